/* tmtpctl contact: whom a member knows, for who helps her. Never what they wrote. */
#include "ctl/find.h"
#include "ctl/output.h"

#include "base/clock.h"
#include "store/accounts.h"
#include "store/contacts.h"

static json_t *
row_json(const struct contact_row *row)
{
	const char *presence = row->presence_mine && row->presence_theirs ? "agreed"
	                       : row->presence_mine                       ? "offered"
	                       : row->presence_theirs                     ? "asked"
	                                                                  : "no";

	return json_pack("{s:o, s:s, s:o, s:o, s:b, s:s}", "address", output_text(row->address),
	                 "state", contact_state_name(contact_state_of(row)), "since",
	                 output_time(row->since_us), "invited", output_time(row->invited_us),
	                 "muted", (int)row->muted, "presence", presence);
}

static enum ctl_exit
find_account_id(struct ctl *ctl, const char *text, int64_t *id)
{
	struct input_site who;
	struct account_list list = { .limit = 1 };
	char missing[CTL_SENTENCE_MAX];
	enum ctl_exit result = input_account(ctl, text, &who);
	enum store_rc rc;

	if (result != CTL_OK)
		return result;
	(void)snprintf(missing, sizeof(missing),
	               "there is no account %s; tmtpctl account list shows those there are",
	               who.address);
	list.domain = slice_str(who.domain);
	list.exact = slice_str(who.name);
	rc = ctl_ask(ctl, store_account_list, &list);
	if (rc == STORE_OK && list.rows_n == 0)
		rc = STORE_NOT_FOUND;
	if (rc == STORE_OK)
		*id = list.rows[0].account_id;
	account_list_clear(&list);
	return ctl_store_failed(ctl, rc, missing, NULL);
}

static enum ctl_exit
contact_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "address", "ADDRESS" },   { "state", "STATE" }, { "since", "SINCE" },
		{ "presence", "PRESENCE" }, { "muted", "MUTED" }, { NULL, NULL },
	};
	struct contact_list list = { .support = true, .now_us = clock_wall_us() };
	const char *from = ctl_value(ctl, "after"), *next = NULL;
	struct input_site after = { .address = "" };
	enum ctl_exit result;
	enum store_rc rc;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (from != NULL && (result = input_account(ctl, from, &after)) != CTL_OK) ||
	    (result = find_account_id(ctl, ctl->args[0], &list.account_id)) != CTL_OK)
		return result;
	list.after = slice_str(after.address);
	rc = ctl_ask(ctl, store_contact_list, &list);
	if (rc != STORE_OK)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, row_json(&list.rows[i]));
	if (list.rows_n == list.limit)
		next = list.rows[list.rows_n - 1].address;
	(void)output_page(ctl, "contacts", rows, columns, "Nobody yet.", "after", next);
	contact_list_clear(&list);
	return CTL_OK;
}

const struct ctl_command contact_commands[] = {
	{ .name = "contact list",
	  .arguments = "ADDRESS",
	  .summary = "Shows whom a member knows: who invited, accepted, refused or blocked.",
	  .more = "What they wrote to each other, and where they are, is not shown.",
	  .example = "tmtpctl contact list ann@home.test",
	  .options =
	      (const struct ctl_option[]){
		  { "after", "ADDRESS", "those behind this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = contact_list },
	{ .name = NULL },
};
