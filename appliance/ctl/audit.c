/* tmtpctl audit: who changed what. */
#include "ctl/input.h"
#include "ctl/output.h"

#include "store/audit.h"

static json_t *
row_json(const struct audit_row *row)
{
	char id[UUID_TEXT];

	uuid_format(&row->audit_id, id);
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:s}", "at", output_time(row->at_us),
	                 "actor", output_text(row->actor), "action", output_text(row->action),
	                 "subject", output_text(row->subject), "detail",
	                 output_text(row->detail), "id", id);
}

static enum ctl_exit
audit_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "at", "AT" },           { "actor", "ACTOR" },   { "action", "ACTION" },
		{ "subject", "SUBJECT" }, { "detail", "DETAIL" }, { NULL, NULL },
	};
	const char *since = ctl_value(ctl, "since"), *before = ctl_value(ctl, "before"),
		   *next = NULL;
	struct audit_list list = { .since_us = 0 };
	char last[UUID_TEXT];
	enum ctl_exit result;
	enum store_rc rc;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (since != NULL &&
	     (result = input_past(ctl, "since", since, &list.since_us)) != CTL_OK) ||
	    (before != NULL && (result = input_uuid(ctl, before, &list.before)) != CTL_OK))
		return result;
	rc = ctl_ask(ctl, store_audit_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, row_json(&list.rows[i]));
	if (list.rows_n == list.limit) {
		uuid_format(&list.rows[list.rows_n - 1].audit_id, last);
		next = last;
	}
	audit_list_clear(&list);
	return output_page(ctl, "audit", rows, columns, "Nothing was changed in that time.",
	                   "before", next);
}

const struct ctl_command audit_commands[] = {
	{ .name = "audit list",
	  .arguments = "",
	  .summary = "Shows who changed what, newest first.",
	  .example = "tmtpctl audit list --since 7d",
	  .options =
	      (const struct ctl_option[]){
		  { "since", "TIME", "not older: 24h, 7d, 2026-11-21, 2026-11-21T23:00:00Z",
	            false },
		  { "before", "ID", "those older than this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = audit_list },
	{ .name = NULL },
};
