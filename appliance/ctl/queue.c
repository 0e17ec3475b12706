/* tmtpctl queue: what waits to be sent, batch by batch. */
#include "ctl/input.h"
#include "ctl/output.h"

#include "base/clock.h"
#include "store/pushes.h"
#include "store/queue.h"

#include <inttypes.h>

static json_t *
row_json(const struct queue_row *row)
{
	char id[UUID_TEXT];

	uuid_format(&row->message_id, id);
	return json_pack("{s:s, s:i, s:o, s:o, s:o, s:s, s:s, s:i, s:i, s:o, s:o, s:o}",
	                 "message", id, "batch", row->batch_no, "site", output_text(row->site),
	                 "channel", output_text(row->channel), "domain",
	                 output_text(row->domain), "lane", push_lane_name(row->lane), "state",
	                 queue_state_name(row->state), "recipients", row->recipients,
	                 "attempts", row->attempts, "accepted", output_time(row->accepted_us),
	                 "not_before", output_time(row->not_before_us), "reason",
	                 output_text(row->reason));
}

static enum ctl_exit
queue_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "message", "MESSAGE" },   { "batch", "BATCH" },
		{ "site", "SITE" },         { "channel", "CHANNEL" },
		{ "domain", "DOMAIN" },     { "lane", "LANE" },
		{ "state", "STATE" },       { "recipients", "RECIPIENTS" },
		{ "attempts", "ATTEMPTS" }, { "not_before", "NOT BEFORE" },
		{ "reason", "REASON" },     { NULL, NULL },
	};
	const char *only = ctl_value(ctl, "domain"), *message = ctl_value(ctl, "message");
	char domain[DMTP_DOMAIN_MAX + 1];
	struct queue_list list = { .dead = ctl_value(ctl, "dead") != NULL };
	enum ctl_exit result;
	enum store_rc rc;
	bool full;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (only != NULL && (result = input_domain(ctl, only, domain)) != CTL_OK))
		return result;
	if (message != NULL && (result = input_uuid(ctl, message, &list.message_id)) != CTL_OK)
		return result;
	list.domain = only != NULL ? domain : NULL;
	rc = ctl_ask(ctl, store_queue_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, row_json(&list.rows[i]));
	full = list.rows_n == list.limit;
	queue_list_clear(&list);
	(void)output_list(ctl, "batches", rows, columns,
	                  list.dead ? "Nothing was given up or dropped." : "Nothing waits.");
	if (full)
		(void)fprintf(stderr, "There may be more: see --limit.\n");
	return CTL_OK;
}

/* --- Changes -------------------------------------------------------------- */

/* Never neither: nobody drops everything by leaving an option out. */
static enum ctl_exit
read_target(struct ctl *ctl, char domain[static DMTP_DOMAIN_MAX + 1],
            struct queue_change *change)
{
	const char *only = ctl_value(ctl, "domain"), *message = ctl_value(ctl, "message");
	bool all = ctl_value(ctl, "all") != NULL;
	enum ctl_exit result;

	if (all && (only != NULL || message != NULL))
		return ctl_usage(ctl, "%s: --all and --%s exclude each other",
		                 ctl->command->name, only != NULL ? "domain" : "message");
	if (!all && only == NULL && message == NULL)
		return ctl_usage(ctl, "%s needs --domain, --message or both, or else --all",
		                 ctl->command->name);
	if (message != NULL &&
	    (result = input_uuid(ctl, message, &change->message_id)) != CTL_OK)
		return result;
	if (only == NULL)
		return CTL_OK;
	change->domain = domain;
	return input_domain(ctl, only, domain);
}

/* Whether the target has batches that wait or are held, or else such as were given up or dropped. */
static bool
has_batches(struct ctl *ctl, const struct queue_change *change, bool dead)
{
	struct queue_list list = { .domain = change->domain,
		                   .message_id = change->message_id,
		                   .dead = dead,
		                   .limit = 1 };
	bool any = ctl_ask(ctl, store_queue_list, &list) == STORE_OK && list.rows_n > 0;

	queue_list_clear(&list);
	return any;
}

/* An action leaves of what is open only what it doesn't apply to, so one open batch tells all. */
static const char *
why_none(struct ctl *ctl, const struct queue_change *change)
{
	static const char *const open[] = {
		[QUEUE_RETRY_NOW] =
		    "It is being sent, and tried again by itself if that fails.",
		[QUEUE_HOLD] = "It is held already.",
		[QUEUE_RESUME] = "It isn't held: it waits, and is tried by itself.",
		[QUEUE_DROP] = "It came a moment ago: try again.",
	};

	if (has_batches(ctl, change, false))
		return open[change->action];
	if (change->action == QUEUE_DROP)
		return "Nothing of it waits, is held or was given up.";
	if (!has_batches(ctl, change, true))
		return "Nothing of it waits or was given up.";
	return change->action == QUEUE_RETRY_NOW
	           ? "It was dropped, and there is no way back."
	           : "It was given up or dropped: tmtpctl queue list --dead shows which.";
}

static enum ctl_exit
run_change(struct ctl *ctl, enum queue_action action, const char *sentence)
{
	struct queue_change change = { .actor = ctl->actor,
		                       .action = action,
		                       .now_us = clock_wall_us() };
	char domain[DMTP_DOMAIN_MAX + 1];
	enum ctl_exit result = read_target(ctl, domain, &change);
	json_t *record;

	if (result == CTL_OK)
		result = ctl_store_failed(ctl, ctl_ask(ctl, store_queue_change, &change),
		                          "nothing in the queue matches", NULL);
	if (result != CTL_OK)
		return result;
	record = json_pack("{s:I}", "changed", (json_int_t)change.changed);
	if (change.changed == 0)
		return output_done(ctl, record, "No batch was concerned. %s",
		                   why_none(ctl, &change));
	return output_done(ctl, record, "Batches: %" PRId64 ". They %s", change.changed,
	                   sentence);
}

static enum ctl_exit
queue_retry(struct ctl *ctl)
{
	return run_change(ctl, QUEUE_RETRY_NOW, "are tried at once.");
}

static enum ctl_exit
queue_hold(struct ctl *ctl)
{
	return run_change(ctl, QUEUE_HOLD, "are held: tmtpctl queue release lets them go.");
}

static enum ctl_exit
queue_release(struct ctl *ctl)
{
	return run_change(ctl, QUEUE_RESUME, "wait to be sent again.");
}

static enum ctl_exit
queue_drop(struct ctl *ctl)
{
	return run_change(ctl, QUEUE_DROP, "were dropped.");
}

static const struct ctl_option targets[] = {
	{ "domain", "NAME", "what goes to this domain", false },
	{ "message", "ID", "what carries this message; with --domain: that one delivery",
	  false },
	{ "all", NULL, "everything", false },
	{ NULL, NULL, NULL, false },
};

const struct ctl_command queue_commands[] = {
	{ .name = "queue list",
	  .arguments = "",
	  .summary = "Shows the batches that wait to be sent.",
	  .more =
	      "A batch is one message for one domain, for at most about a thousand recipients. Held ones "
	      "are shown among them.",
	  .example = "tmtpctl queue list --domain home.test",
	  .options =
	      (const struct ctl_option[]){
		  { "domain", "NAME", "only to this domain", false },
		  { "message", "ID", "only what carries this message", false },
		  { "dead", NULL, "those given up or dropped, instead of those that wait",
	            false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = queue_list },
	{ .name = "queue retry",
	  .arguments = "",
	  .summary = "Tries batches at once: waiting, held or given up.",
	  .more =
	      "Their domains' backoff is forgotten too, and the operator's limit of time begins "
	      "anew; what a message says itself about its end stays.",
	  .example = "tmtpctl queue retry --domain home.test",
	  .options = targets,
	  .needs = NEEDS_STORE,
	  .run = queue_retry },
	{ .name = "queue hold",
	  .arguments = "",
	  .summary = "Holds batches back until they are released.",
	  .more = "New batches go out as before: tmtpctl peer hold holds a whole domain.",
	  .example = "tmtpctl queue hold --message 019aa9d4-0000-7000-8000-000000000000",
	  .options = targets,
	  .needs = NEEDS_STORE,
	  .run = queue_hold },
	{ .name = "queue release",
	  .arguments = "",
	  .summary = "Lets held batches go.",
	  .example = "tmtpctl queue release --all",
	  .options = targets,
	  .needs = NEEDS_STORE,
	  .run = queue_release },
	{ .name = "queue drop",
	  .arguments = "",
	  .summary = "Drops batches that wait, are held or were given up.",
	  .more = "They are never sent, and count as given up. There is no way back.",
	  .example = "tmtpctl queue drop --domain gone.test",
	  .options = targets,
	  .needs = NEEDS_STORE,
	  .run = queue_drop },
	{ .name = NULL },
};
