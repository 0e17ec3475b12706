/* tmtpctl message: what a site sent and what became of it. */
#include "ctl/find.h"
#include "ctl/output.h"

#include "base/clock.h"
#include "store/pushes.h"
#include "store/messages.h"
#include "store/recalls.h"

static json_t *
output_uuid(const struct uuid *id)
{
	char text[UUID_TEXT];

	uuid_format(id, text);
	return json_string(text);
}

static json_t *
summary_json(const struct message_summary *m)
{
	return json_pack("{s:o, s:s, s:s, s:s, s:o, s:o, s:I}", "id",
	                 output_uuid(&m->message_id), "channel", m->channel, "audience",
	                 push_audience_name(m->audience), "lane", push_lane_name(m->lane),
	                 "accepted", output_time(m->accepted_us), "recalled",
	                 output_time(m->recalled_us), "size", (json_int_t)m->size);
}

static enum ctl_exit
message_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "id", "ID" },
		{ "accepted", "ACCEPTED" },
		{ "channel", "CHANNEL" },
		{ "audience", "AUDIENCE" },
		{ "lane", "LANE" },
		{ "size", "SIZE" },
		{ "recalled", "RECALLED" },
		{ NULL, NULL },
	};
	const char *before = ctl_value(ctl, "before"), *next = NULL;
	struct message_list list = { .rows = NULL };
	char last[UUID_TEXT];
	enum ctl_exit result;
	enum store_rc rc;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (before != NULL && (result = input_uuid(ctl, before, &list.before)) != CTL_OK) ||
	    (result = find_site_id(ctl, ctl->args[0], NULL, &list.site_id)) != CTL_OK)
		return result;
	rc = ctl_ask(ctl, store_message_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, summary_json(&list.rows[i]));
	if (list.rows_n == list.limit) {
		uuid_format(&list.rows[list.rows_n - 1].message_id, last);
		next = last;
	}
	message_list_clear(&list);
	return output_page(ctl, "messages", rows, columns, "No messages.", "before", next);
}

/* The site's number and the message's id of the two arguments. */
static enum ctl_exit
read_target(struct ctl *ctl, struct input_site *site, int64_t *site_id, struct uuid *id)
{
	enum ctl_exit result = input_uuid(ctl, ctl->args[1], id);

	return result != CTL_OK ? result : find_site_id(ctl, ctl->args[0], site, site_id);
}

static enum ctl_exit
message_failed(struct ctl *ctl, enum store_rc rc, const struct input_site *site)
{
	char missing[CTL_SENTENCE_MAX];

	(void)snprintf(missing, sizeof(missing),
	               "%s has no message %s; tmtpctl message list %s shows those there are",
	               site->address, ctl->args[1], site->address);
	return ctl_store_failed(ctl, rc, missing, NULL);
}

static enum ctl_exit
message_show(struct ctl *ctl)
{
	static const struct output_column fields[] = {
		{ "id", "Message" },
		{ "channel", "Channel" },
		{ "audience", "Audience" },
		{ "lane", "Lane" },
		{ "accepted", "Accepted" },
		{ "expires", "Expires" },
		{ "recalled", "Recalled" },
		{ "waiting", "Waiting" },
		{ "delivered", "Delivered" },
		{ "failed", "Failed" },
		{ "dead", "Given up" },
		{ "rejected", "Rejected" },
		{ "not_sent", "Recalled before it left" },
		{ "told", "Recall delivered" },
		{ "untold", "Recall waiting" },
		{ "read", "Read" },
		{ "withdrawn", "Withdrawn unread" },
		{ NULL, NULL },
	};
	struct message_status s = { .waiting = 0 };
	struct input_site site;
	enum ctl_exit result = read_target(ctl, &site, &s.site_id, &s.message_id);

	if (result == CTL_OK)
		result = message_failed(ctl, ctl_ask(ctl, store_message_status, &s), &site);
	if (result != CTL_OK)
		return result;
	return output_record(
	    ctl,
	    json_pack(
		"{s:o, s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"id", output_uuid(&s.message_id), "site", output_text(site.address), "channel",
		s.channel, "audience", push_audience_name(s.audience), "lane",
		push_lane_name(s.lane), "accepted", output_time(s.accepted_us), "expires",
		output_time(s.expires_us), "recalled", output_time(s.recalled_us), "waiting",
		(json_int_t)s.waiting, "delivered", (json_int_t)s.delivered, "failed",
		(json_int_t)s.failed, "dead", (json_int_t)s.dead, "rejected",
		(json_int_t)s.rejected, "not_sent", (json_int_t)s.recalled, "told",
		(json_int_t)s.recall.delivered, "untold", (json_int_t)s.recall.waiting, "read",
		(json_int_t)s.read, "withdrawn", (json_int_t)s.withdrawn),
	    fields);
}

/* --- Recipients ----------------------------------------------------------- */

static enum ctl_exit
read_state(struct ctl *ctl, const char *text, int *state)
{
	*state = -1;
	if (text == NULL)
		return CTL_OK;
	for (int i = RECIPIENT_WAITING; i <= RECIPIENT_RECALLED; i++) {
		if (strcmp(text, recipient_state_name((enum recipient_state)i)) == 0) {
			*state = i;
			return CTL_OK;
		}
	}
	return ctl_usage(
	    ctl, "--state takes waiting, delivered, failed, dead, rejected or recalled");
}

static enum ctl_exit
show_recipients(struct ctl *ctl, struct message_recipients *page)
{
	static const struct output_column columns[] = {
		{ "address", "ADDRESS" },
		{ "state", "STATE" },
		{ "reason", "REASON" },
		{ NULL, NULL },
	};
	const char *next = NULL;
	json_t *rows = json_array();

	for (size_t i = 0; i < page->rows_n; i++)
		json_array_append_new(rows,
		                      json_pack("{s:o, s:s, s:o}", "address",
		                                output_text(page->rows[i].address), "state",
		                                recipient_state_name(page->rows[i].state),
		                                "reason", output_text(page->rows[i].reason)));
	if (page->rows_n == page->limit)
		next = page->rows[page->rows_n - 1].address;
	return output_page(ctl, "recipients", rows, columns, "No such recipients.", "after",
	                   next);
}

static enum ctl_exit
message_recipients(struct ctl *ctl)
{
	const char *from = ctl_value(ctl, "after");
	struct message_recipients page = { .state = -1 };
	struct input_site site, after = { .name = "" };
	enum ctl_exit result;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &page.limit)) != CTL_OK ||
	    (result = read_state(ctl, ctl_value(ctl, "state"), &page.state)) != CTL_OK ||
	    (from != NULL && (result = input_account(ctl, from, &after)) != CTL_OK) ||
	    (result = read_target(ctl, &site, &page.site_id, &page.message_id)) != CTL_OK)
		return result;
	page.after = slice_str(from != NULL ? after.address : "");
	result = message_failed(ctl, ctl_ask(ctl, store_message_recipients, &page), &site);
	if (result == CTL_OK)
		result = show_recipients(ctl, &page);
	message_recipients_clear(&page);
	return result;
}

/* --- Taking back ----------------------------------------------------------- */

static enum ctl_exit
message_recall(struct ctl *ctl)
{
	struct message_recall recall = { .actor = ctl->actor, .subject = ctl->args[1] };
	struct input_site site;
	enum ctl_exit result = read_target(ctl, &site, &recall.site_id, &recall.message_id);
	json_t *record;

	if (result != CTL_OK)
		return result;
	recall.recall_id = uuid_make();
	recall.now_us = clock_wall_us();
	result = message_failed(ctl, ctl_ask(ctl, store_message_recall, &recall), &site);
	if (result != CTL_OK)
		return result;
	record = json_pack("{s:o, s:b}", "id", output_uuid(&recall.message_id), "changed",
	                   recall.changed);
	return output_done(
	    ctl, record,
	    recall.changed ? "The message is recalled; the home servers that have it are told."
			   : "The message was recalled before.");
}

const struct ctl_command message_commands[] = {
	{ .name = "message list",
	  .arguments = "SITE",
	  .summary = "Shows the site's messages, newest first.",
	  .example = "tmtpctl message list shop@shop.test --limit 20",
	  .options =
	      (const struct ctl_option[]){
		  { "before", "ID", "those older than this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = message_list },
	{ .name = "message show",
	  .arguments = "SITE ID",
	  .summary = "Shows one message and counts what became of it.",
	  .more =
	      "Waiting: not yet acknowledged by the recipients' home servers. Delivered: acknowledged. Failed: "
	      "refused for good. Given up: expired or parked. Rejected: named without holding the channel. Read and withdrawn are known "
	      "of members who allow receipts.",
	  .example = "tmtpctl message show shop@shop.test 019aa9d4-0000-7000-8000-000000000000",
	  .needs = NEEDS_STORE,
	  .run = message_show },
	{ .name = "message recipients",
	  .arguments = "SITE ID",
	  .summary = "Shows a message's recipients one by one.",
	  .example =
	      "tmtpctl message recipients shop@shop.test 019aa9d4-0000-7000-8000-000000000000 --state failed",
	  .options =
	      (const struct ctl_option[]){
		  { "state", "STATE", "waiting, delivered, failed, dead, rejected or recalled",
	            false },
		  { "after", "ADDRESS", "those behind this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = message_recipients },
	{ .name = "message recall",
	  .arguments = "SITE ID",
	  .summary = "Takes a message back.",
	  .more =
	      "Nobody can pick it up any more, what has not left yet is not sent, and the home servers that have "
	      "it are told: members see that it was withdrawn, and its content only if they had read it.",
	  .example =
	      "tmtpctl message recall shop@shop.test 019aa9d4-0000-7000-8000-000000000000",
	  .needs = NEEDS_STORE,
	  .run = message_recall },
	{ .name = NULL },
};
