/* tmtpctl channel: what a site's members say yes to. */
#include "ctl/find.h"
#include "ctl/output.h"

#include "base/clock.h"

static enum ctl_exit
change(struct ctl *ctl, enum site_change_kind kind, const struct input_site *site,
       const char *channel, const char *title, int64_t *id)
{
	struct site_change c = {
		.by = { ctl->actor },
		.kind = kind,
		.domain = site->domain,
		.name = site->name,
		.channel = channel,
		.title = title,
		.expires_us = -1,
		.id = id_make(),
		.now_us = clock_wall_us(),
	};
	char missing[CTL_SENTENCE_MAX], taken[CTL_SENTENCE_MAX];

	(void)snprintf(
	    missing, sizeof(missing),
	    kind == CHANNEL_CREATE
		? "there is no site %s; tmtpctl site list shows those there are"
		: "%s has no such channel; tmtpctl channel list shows those there are",
	    site->address);
	(void)snprintf(
	    taken, sizeof(taken),
	    "%s has a channel \"%s\" already (a closed one keeps its name), or an account has its address: "
	    "choose another name",
	    site->address, channel);
	*id = c.id;
	return ctl_store_failed(ctl, ctl_ask(ctl, store_site_change, &c), missing, taken);
}

static enum ctl_exit
channel_create(struct ctl *ctl)
{
	const char *title = ctl_value(ctl, "title"), *name = ctl->args[1];
	struct input_site site;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_channel(ctl, name)) != CTL_OK ||
	    (result = input_title(ctl, "title", title)) != CTL_OK ||
	    (result = change(ctl, CHANNEL_CREATE, &site, name, title, &id)) != CTL_OK)
		return result;
	return output_done(ctl,
	                   json_pack("{s:o, s:o, s:o, s:o, s:s}", "site",
	                             output_text(site.address), "name", output_text(name),
	                             "title", output_text(title), "id", output_id(id), "state",
	                             "open"),
	                   "The channel \"%s\" of %s was created: its address is %s.%s.", name,
	                   site.address, name, site.address);
}

static enum ctl_exit
channel_close(struct ctl *ctl)
{
	const char *name = ctl->args[1];
	struct input_site site;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_name(ctl, "channel's name", name)) != CTL_OK ||
	    (result = change(ctl, CHANNEL_CLOSE, &site, name, NULL, &id)) != CTL_OK)
		return result;
	return output_done(
	    ctl,
	    json_pack("{s:o, s:o, s:s}", "site", output_text(site.address), "name",
	              output_text(name), "state", "closed"),
	    "The channel \"%s\" of %s is closed: nothing can be pushed to it any more.", name,
	    site.address);
}

static json_t *
row_json(const struct channel_row *row)
{
	return json_pack(
	    "{s:s, s:o, s:s, s:I, s:o, s:o, s:o}", "name", row->name, "title",
	    output_text(row->title), "state", row->closed_us >= 0 ? "closed" : "open",
	    "members", (json_int_t)row->members, "created", output_time(row->created_us),
	    "closed", output_time(row->closed_us), "id", output_id(row->channel_id));
}

static enum ctl_exit
channel_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "name", "NAME" },       { "title", "TITLE" },     { "state", "STATE" },
		{ "members", "MEMBERS" }, { "created", "CREATED" }, { NULL, NULL },
	};
	struct channel_list list = { .rows = NULL };
	struct input_site site;
	enum ctl_exit result = find_site_id(ctl, ctl->args[0], &site, &list.site_id);
	enum store_rc rc;
	json_t *rows;

	if (result != CTL_OK)
		return result;
	rc = ctl_ask(ctl, store_channel_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, row_json(&list.rows[i]));
	channel_list_clear(&list);
	return output_list(
	    ctl, "channels", rows, columns,
	    "This site has no channels yet: tmtpctl channel create SITE NAME --title TEXT makes one.");
}

const struct ctl_command channel_commands[] = {
	{ .name = "channel create",
	  .arguments = "SITE NAME",
	  .summary = "Makes a channel of the site.",
	  .more =
	      "Members are asked for their yes channel by channel: one for orders, another for offers. The "
	      "name is 1 to 30 of a-z, 0-9 and -, and not inbox, invite or smtp; the title is what members see.",
	  .example = "tmtpctl channel create shop@shop.test orders --title \"Your orders\"",
	  .options =
	      (const struct ctl_option[]){
		  { "title", "TEXT", "what members see, at most 100 characters", true },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = channel_create },
	{ .name = "channel list",
	  .arguments = "SITE",
	  .summary = "Shows the site's channels; members as last counted.",
	  .example = "tmtpctl channel list shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = channel_list },
	{ .name = "channel close",
	  .arguments = "SITE NAME",
	  .summary = "Closes a channel: nothing can be pushed to it any more.",
	  .more = "There is no way back, and its name can't be used again.",
	  .example = "tmtpctl channel close shop@shop.test offers",
	  .needs = NEEDS_STORE,
	  .run = channel_close },
	{ .name = NULL },
};
