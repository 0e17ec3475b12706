/* tmtpctl member: who holds, or was asked to hold, a site's channel. */
#include "ctl/find.h"
#include "ctl/output.h"

#include "store/members.h"

static json_t *
row_json(const struct member_row *row)
{
	return json_pack("{s:o, s:s, s:b, s:o, s:o, s:o}", "address", output_text(row->address),
	                 "state", member_state_name(row->state), "receipts", (int)row->receipts,
	                 "invited", output_time(row->invited_us), "joined",
	                 output_time(row->joined_us), "left", output_time(row->left_us));
}

/* -1 for no option. */
static enum ctl_exit
read_state(struct ctl *ctl, const char *text, int *state)
{
	*state = -1;
	if (text == NULL)
		return CTL_OK;
	for (int i = MEMBER_INVITED; i <= MEMBER_REMOVED; i++) {
		if (strcmp(text, member_state_name((enum member_state)i)) == 0) {
			*state = i;
			return CTL_OK;
		}
	}
	return ctl_usage(ctl, "--state takes invited, granted, refused, revoked or removed");
}

static enum ctl_exit
show(struct ctl *ctl, struct member_list *list)
{
	static const struct output_column columns[] = {
		{ "address", "ADDRESS" }, { "state", "STATE" }, { "invited", "INVITED" },
		{ "joined", "JOINED" },   { "left", "LEFT" },   { "receipts", "RECEIPTS" },
		{ NULL, NULL },
	};
	enum store_rc rc = ctl_ask(ctl, store_member_list, list);
	json_t *rows;
	const char *next = NULL;

	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list->rows_n; i++)
		json_array_append_new(rows, row_json(&list->rows[i]));
	if (list->rows_n == list->limit)
		next = list->rows[list->rows_n - 1].address;
	(void)output_page(
	    ctl, "members", rows, columns,
	    "Nobody: the website registers members (POST /v1/channels/NAME/members).", "after",
	    next);
	member_list_clear(list);
	return CTL_OK;
}

static enum ctl_exit
member_list(struct ctl *ctl)
{
	const char *from = ctl_value(ctl, "after");
	struct input_site site, after = { .name = "" };
	struct member_list list = { .state = -1 };
	enum ctl_exit result;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (result = read_state(ctl, ctl_value(ctl, "state"), &list.state)) != CTL_OK ||
	    (from != NULL && (result = input_account(ctl, from, &after)) != CTL_OK) ||
	    (result = find_site_id(ctl, ctl->args[0], &site, &list.site_id)) != CTL_OK ||
	    (result = find_channel_id(ctl, &site, list.site_id, ctl->args[1],
	                              &list.channel_id)) != CTL_OK)
		return result;
	list.domain = slice_str(after.domain);
	list.member = slice_str(after.name);
	return show(ctl, &list);
}

const struct ctl_command member_commands[] = {
	{ .name = "member list",
	  .arguments = "SITE CHANNEL",
	  .summary = "Shows a channel's members, in order of domain and name.",
	  .example = "tmtpctl member list shop@shop.test orders --state granted",
	  .options =
	      (const struct ctl_option[]){
		  { "state", "STATE", "invited, granted, refused, revoked or removed", false },
		  { "after", "ADDRESS", "those behind this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = member_list },
	{ .name = NULL },
};
