/* tmtpctl site: the websites that may push. */
#include "ctl/find.h"
#include "ctl/input.h"
#include "ctl/output.h"

#include "base/clock.h"

static json_t *
site_json(const struct site_row *row)
{
	return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:I, s:I, s:I}", "id",
	                 output_id(row->site_id), "address", output_text(row->address), "title",
	                 output_text(row->title), "state",
	                 row->suspended_us >= 0 ? "suspended" : "active", "created",
	                 output_time(row->created_us), "suspended",
	                 output_time(row->suspended_us), "channels", (json_int_t)row->channels,
	                 "keys", (json_int_t)row->keys, "tokens", (json_int_t)row->tokens);
}

static enum ctl_exit
change(struct ctl *ctl, enum site_change_kind kind, const struct input_site *site,
       const char *title, int64_t *id)
{
	char missing[CTL_SENTENCE_MAX], taken[CTL_SENTENCE_MAX];
	struct site_change c = {
		.by = { ctl->actor },
		.kind = kind,
		.domain = site->domain,
		.name = site->name,
		.title = title,
		.expires_us = -1,
		.id = id_make(),
		.now_us = clock_wall_us(),
	};

	(void)snprintf(missing, sizeof(missing),
	               "there is no site %s; tmtpctl site list shows those there are",
	               site->address);
	(void)snprintf(
	    taken, sizeof(taken),
	    "%s is taken: a domain's sites, channels and accounts share one namespace",
	    site->address);
	*id = c.id;
	return ctl_store_failed(ctl, ctl_ask(ctl, store_site_change, &c), missing, taken);
}

static enum ctl_exit
site_create(struct ctl *ctl)
{
	const char *title = ctl_value(ctl, "title");
	struct input_site site;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_domain_is_ours(ctl, site.domain)) != CTL_OK ||
	    (result = input_title(ctl, "title", title)) != CTL_OK ||
	    (result = change(ctl, SITE_CREATE, &site, title, &id)) != CTL_OK)
		return result;
	return output_done(
	    ctl,
	    json_pack("{s:o, s:o, s:o, s:s}", "id", output_id(id), "address",
	              output_text(site.address), "title", output_text(title), "state",
	              "active"),
	    "Site %s was created. Next: a channel (tmtpctl channel create %s NAME --title TEXT) and a way "
	    "to log in (tmtpctl token create or key add).",
	    site.address, site.address);
}

static enum ctl_exit
set_state(struct ctl *ctl, enum site_change_kind kind, const char *state, const char *sentence)
{
	struct input_site site;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = change(ctl, kind, &site, NULL, &id)) != CTL_OK)
		return result;
	return output_done(
	    ctl, json_pack("{s:o, s:s}", "address", output_text(site.address), "state", state),
	    "Site %s %s", site.address, sentence);
}

static enum ctl_exit
site_suspend(struct ctl *ctl)
{
	return set_state(ctl, SITE_SUSPEND, "suspended",
	                 "is suspended: nothing of it is accepted any more.");
}

static enum ctl_exit
site_resume(struct ctl *ctl)
{
	return set_state(ctl, SITE_RESUME, "active", "is active.");
}

static enum ctl_exit
site_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "address", "ADDRESS" },   { "title", "TITLE" }, { "state", "STATE" },
		{ "channels", "CHANNELS" }, { "keys", "KEYS" },   { "tokens", "TOKENS" },
		{ "created", "CREATED" },   { NULL, NULL },
	};
	struct site_list list = { .rows = NULL };
	enum store_rc rc = ctl_ask(ctl, store_site_list, &list);
	json_t *rows;

	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, site_json(&list.rows[i]));
	site_list_clear(&list);
	return output_list(
	    ctl, "sites", rows, columns,
	    "There are no sites yet: tmtpctl site create NAME@DOMAIN --title TEXT makes one.");
}

static enum ctl_exit
site_show(struct ctl *ctl)
{
	static const struct output_column fields[] = {
		{ "address", "Address" },
		{ "title", "Title" },
		{ "state", "State" },
		{ "created", "Created" },
		{ "suspended", "Suspended" },
		{ "channels", "Channels" },
		{ "keys", "Keys" },
		{ "tokens", "Tokens" },
		{ "id", "Id" },
		{ NULL, NULL },
	};
	struct site_list list;
	enum ctl_exit result = find_site(ctl, ctl->args[0], &list, NULL);
	json_t *record;

	if (result != CTL_OK)
		return result;
	record = site_json(&list.rows[0]);
	site_list_clear(&list);
	return output_record(ctl, record, fields);
}

const struct ctl_command site_commands[] = {
	{ .name = "site create",
	  .arguments = "NAME@DOMAIN",
	  .summary = "Makes a site, a website that may push messages.",
	  .more =
	      "The domain must stand in the configuration. Its sites and accounts share one namespace.",
	  .example = "tmtpctl site create shop@shop.test --title \"The shop\"",
	  .options =
	      (const struct ctl_option[]){
		  { "title", "TEXT", "what people see, at most 100 characters", true },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = site_create },
	{ .name = "site list",
	  .arguments = "",
	  .summary = "Shows all sites.",
	  .example = "tmtpctl site list",
	  .needs = NEEDS_STORE,
	  .run = site_list },
	{ .name = "site show",
	  .arguments = "SITE",
	  .summary = "Shows one site.",
	  .example = "tmtpctl site show shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = site_show },
	{ .name = "site suspend",
	  .arguments = "SITE",
	  .summary = "Accepts nothing of this site any more.",
	  .more =
	      "Messages that were accepted before are still delivered. The site's keys and tokens stop "
	      "working within a second.",
	  .example = "tmtpctl site suspend shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = site_suspend },
	{ .name = "site resume",
	  .arguments = "SITE",
	  .summary = "Accepts a suspended site's messages again.",
	  .example = "tmtpctl site resume shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = site_resume },
	{ .name = NULL },
};
