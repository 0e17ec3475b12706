/* Keys and tokens: see credential.h. */
#include "ctl/credential.h"

#include "base/clock.h"

enum ctl_exit
credential_change(struct ctl *ctl, const struct input_site *site, struct site_change *change,
                  const char *label)
{
	bool token = change->kind == SITE_TOKEN_ADD || change->kind == SITE_TOKEN_REVOKE;
	bool revoke = change->kind == SITE_KEY_REVOKE || change->kind == SITE_TOKEN_REVOKE;
	char missing[CTL_SENTENCE_MAX], taken[CTL_SENTENCE_MAX];

	change->by.actor = ctl->actor;
	change->domain = site->domain;
	change->name = site->name;
	change->now_us = clock_wall_us();
	if (revoke)
		(void)snprintf(missing, sizeof(missing),
		               "%s has no %s \"%s\"; tmtpctl %s list %s shows those there are",
		               site->address, token ? "token" : "key", label,
		               token ? "token" : "key", site->address);
	else
		(void)snprintf(missing, sizeof(missing),
		               "there is no site %s; tmtpctl site list shows those there are",
		               site->address);
	(void)snprintf(
	    taken, sizeof(taken),
	    "%s has a %s \"%s\" already (a revoked one keeps its name): choose another name",
	    site->address, token ? "token" : "key", label);
	return ctl_store_failed(ctl, ctl_ask(ctl, store_site_change, change), missing, taken);
}

static const char *
state_of(const struct credential_row *row, int64_t now_us)
{
	if (row->revoked_us >= 0)
		return "revoked";
	if (row->expires_us >= 0 && row->expires_us <= now_us)
		return "expired";
	return "valid";
}

static json_t *
row_json(const struct credential_row *row, int64_t now_us)
{
	const char *state = state_of(row, now_us);

	if (row->is_token)
		return json_pack("{s:o, s:o, s:s, s:o, s:o, s:o}", "name",
		                 output_text(row->label), "scopes", output_words(row->what),
		                 "state", state, "created", output_time(row->created_us),
		                 "expires", output_time(row->expires_us), "revoked",
		                 output_time(row->revoked_us));
	return json_pack("{s:o, s:o, s:s, s:o, s:o}", "kid", output_text(row->label),
	                 "algorithm", output_text(row->what), "state", state, "created",
	                 output_time(row->created_us), "revoked", output_time(row->revoked_us));
}

enum ctl_exit
credential_list_show(struct ctl *ctl, bool tokens)
{
	static const struct output_column of_keys[] = {
		{ "kid", "KID" },         { "algorithm", "ALGORITHM" }, { "state", "STATE" },
		{ "created", "CREATED" }, { "revoked", "REVOKED" },     { NULL, NULL },
	};
	static const struct output_column of_tokens[] = {
		{ "name", "NAME" },       { "scopes", "SCOPES" },   { "state", "STATE" },
		{ "created", "CREATED" }, { "expires", "EXPIRES" }, { "revoked", "REVOKED" },
		{ NULL, NULL },
	};
	struct input_site site;
	struct credential_list list = { .domain = site.domain, .name = site.name };
	int64_t site_id, now_us = clock_wall_us();
	enum ctl_exit result = find_site_id(ctl, ctl->args[0], &site, &site_id);
	enum store_rc rc;
	json_t *rows;

	if (result != CTL_OK)
		return result;
	rc = ctl_ask(ctl, store_credential_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		if (list.rows[i].is_token == tokens)
			json_array_append_new(rows, row_json(&list.rows[i], now_us));
	credential_list_clear(&list);
	return output_list(ctl, tokens ? "tokens" : "keys", rows, tokens ? of_tokens : of_keys,
	                   tokens ? "This site has no tokens: tmtpctl token create makes one."
	                          : "This site has no keys: tmtpctl key add adds one.");
}

enum ctl_exit
credential_revoke(struct ctl *ctl, bool token)
{
	const char *option = token ? "name" : "kid";
	const char *label = ctl_value(ctl, option);
	struct site_change change = {
		.kind = token ? SITE_TOKEN_REVOKE : SITE_KEY_REVOKE,
		.kid = token ? NULL : label,
		.label = token ? label : NULL,
		.expires_us = -1,
	};
	struct input_site site;
	enum ctl_exit result;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_label(ctl, option, label)) != CTL_OK ||
	    (result = credential_change(ctl, &site, &change, label)) != CTL_OK)
		return result;
	return output_done(ctl,
	                   json_pack("{s:o, s:o, s:s}", "site", output_text(site.address),
	                             option, output_text(label), "state", "revoked"),
	                   "The %s \"%s\" of %s is revoked: it stops working within a second.",
	                   token ? "token" : "key", label, site.address);
}

enum ctl_exit
credential_show_once(struct ctl *ctl, json_t *record, const char *secret, const char *sentence)
{
	if (ctl->json) {
		output_json(record);
	} else {
		(void)fprintf(stderr, "%s\n", sentence);
		printf("%s\n", secret);
		json_decref(record);
	}
	if (output_flush() == OUTPUT_OK)
		return CTL_OK;
	return ctl_fail(
	    ctl, CTL_REFUSED, "not-shown",
	    "it was made but could not be printed, and no command shows it again: revoke it and make another");
}
