/* tmtpctl peer: the other domains, and how sending to them goes. */
#include "ctl/input.h"
#include "ctl/output.h"

#include "base/clock.h"
#include "store/catchups.h"
#include "store/peers.h"

#include <inttypes.h>

static json_t *
row_json(const struct peer_row *row)
{
	const struct peer_state *s = &row->state;
	const char *state = peer_state_name(s, clock_wall_us());
	/* A release keeps the last failure's words; of a domain that is well they are history. */
	const char *reason = strcmp(state, "well") == 0 ? NULL : s->reason;

	return json_pack(
	    "{s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "domain", output_text(row->domain),
	    "state", state, "failures", s->failures, "failing_since",
	    output_time(s->failing_since_us), "retry_at", output_time(s->retry_at_us), "sent",
	    output_time(row->sent_us), "window",
	    s->window_commands > 0 ? json_integer(s->window_commands) : json_null(), "reason",
	    output_text(reason));
}

static enum ctl_exit
peer_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "domain", "DOMAIN" },     { "state", "STATE" },
		{ "failures", "FAILURES" }, { "failing_since", "FAILING SINCE" },
		{ "retry_at", "RETRY AT" }, { "sent", "LAST SENT" },
		{ "reason", "REASON" },     { NULL, NULL },
	};
	struct peer_list list = { .domain = NULL };
	enum store_rc rc = ctl_ask(ctl, store_peer_list, &list);
	json_t *rows;

	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, row_json(&list.rows[i]));
	peer_list_clear(&list);
	return output_list(ctl, "peers", rows, columns,
	                   "Nothing was sent to another domain yet.");
}

static enum ctl_exit
missing_peer(struct ctl *ctl, enum store_rc rc, const char *domain)
{
	char missing[CTL_SENTENCE_MAX];

	(void)snprintf(
	    missing, sizeof(missing),
	    "nothing was sent to %s yet; tmtpctl peer list shows the domains there are",
	    domain);
	return ctl_store_failed(ctl, rc, missing, NULL);
}

static enum ctl_exit
peer_show(struct ctl *ctl)
{
	static const struct output_column fields[] = {
		{ "domain", "Domain" },
		{ "state", "State" },
		{ "failures", "Failures in a row" },
		{ "failing_since", "Failing since" },
		{ "retry_at", "Retry at" },
		{ "sent", "Last sent" },
		{ "window", "Commands at once" },
		{ "reason", "Reason" },
		{ NULL, NULL },
	};
	char domain[DMTP_DOMAIN_MAX + 1];
	struct peer_list list = { .domain = domain };
	enum ctl_exit result = input_domain(ctl, ctl->args[0], domain);
	enum store_rc rc;
	json_t *record = NULL;

	if (result != CTL_OK)
		return result;
	rc = ctl_ask(ctl, store_peer_list, &list);
	if (rc == STORE_OK && list.rows_n == 0)
		rc = STORE_NOT_FOUND;
	if (rc == STORE_OK)
		record = row_json(&list.rows[0]);
	peer_list_clear(&list);
	if (rc != STORE_OK)
		return missing_peer(ctl, rc, domain);
	return output_record(ctl, record, fields);
}

static enum ctl_exit
hold(struct ctl *ctl, bool held, const char *sentence)
{
	char domain[DMTP_DOMAIN_MAX + 1];
	struct peer_hold change = {
		.actor = ctl->actor, .domain = domain, .held = held, .now_us = clock_wall_us()
	};
	enum ctl_exit result = input_domain(ctl, ctl->args[0], domain);

	if (result == CTL_OK)
		result = missing_peer(ctl, ctl_ask(ctl, store_peer_hold, &change), domain);
	if (result != CTL_OK)
		return result;
	return output_done(
	    ctl, json_pack("{s:o, s:b}", "domain", output_text(domain), "held", (int)held),
	    "%s %s", domain, sentence);
}

static enum ctl_exit
peer_hold(struct ctl *ctl)
{
	return hold(ctl, true, "is held: nothing is sent to it until tmtpctl peer release.");
}

static enum ctl_exit
peer_release(struct ctl *ctl)
{
	return hold(ctl, false, "is released and tried at once.");
}

/* --- Catching up on what their members said ------------------------------- */

static enum ctl_exit
peer_catch_up(struct ctl *ctl)
{
	char domain[DMTP_DOMAIN_MAX + 1];
	struct catchup_ask ask = { .actor = ctl->actor,
		                   .domain = domain,
		                   .from_start = ctl_value(ctl, "from-start") != NULL,
		                   .now_us = clock_wall_us() };
	enum ctl_exit result = input_domain(ctl, ctl->args[0], domain);

	if (result == CTL_OK)
		result = missing_peer(ctl, ctl_ask(ctl, store_catchup_ask, &ask), domain);
	if (result != CTL_OK)
		return result;
	return output_done(ctl,
	                   json_pack("{s:o, s:I}", "domain", output_text(domain), "sites",
	                             (json_int_t)ask.sites),
	                   "%s is asked what its members said, for %" PRId64
	                   " of the sites here.",
	                   domain, ask.sites);
}

static json_t *
catchup_json(const struct catchup_row *row)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:I, s:o}", "domain", output_text(row->domain),
	                 "site", output_text(row->site), "asked", output_time(row->asked_us),
	                 "next", output_time(row->next_us), "changed", (json_int_t)row->changed,
	                 "reason", output_text(row->reason));
}

static enum ctl_exit
peer_catch_ups(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "domain", "DOMAIN" }, { "site", "SITE" },      { "asked", "LAST ASKED" },
		{ "next", "NEXT" },     { "changed", "LEARNT" }, { "reason", "REASON" },
		{ NULL, NULL },
	};
	const char *only = ctl_value(ctl, "domain");
	char domain[DMTP_DOMAIN_MAX + 1];
	struct catchup_list list = { .domain = NULL };
	enum ctl_exit result;
	enum store_rc rc;
	bool full;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &list.limit)) != CTL_OK ||
	    (only != NULL && (result = input_domain(ctl, only, domain)) != CTL_OK))
		return result;
	list.domain = only != NULL ? domain : NULL;
	rc = ctl_ask(ctl, store_catchup_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, catchup_json(&list.rows[i]));
	full = list.rows_n == list.limit;
	catchup_list_clear(&list);
	result = output_list(ctl, "catch_ups", rows, columns,
	                     "Nothing was sent to another domain yet.");
	if (full)
		(void)fprintf(stderr, "There may be more: see --limit.\n");
	return result;
}

const struct ctl_command peer_commands[] = {
	{ .name = "peer list",
	  .arguments = "",
	  .summary = "Shows the domains sent to, and how that goes.",
	  .example = "tmtpctl peer list",
	  .needs = NEEDS_STORE,
	  .run = peer_list },
	{ .name = "peer show",
	  .arguments = "DOMAIN",
	  .summary = "Shows one domain.",
	  .example = "tmtpctl peer show home.test",
	  .needs = NEEDS_STORE,
	  .run = peer_show },
	{ .name = "peer hold",
	  .arguments = "DOMAIN",
	  .summary = "Sends nothing to a domain until it is released.",
	  .example = "tmtpctl peer hold home.test",
	  .needs = NEEDS_STORE,
	  .run = peer_hold },
	{ .name = "peer release",
	  .arguments = "DOMAIN",
	  .summary = "Sends to a held or failing domain again, at once.",
	  .example = "tmtpctl peer release home.test",
	  .needs = NEEDS_STORE,
	  .run = peer_release },
	{ .name = "peer catch-up",
	  .arguments = "DOMAIN",
	  .summary = "Asks a domain what its members said to sites here.",
	  .more =
	      "What a member says to a site is told to it at once; this makes good what got lost. "
	      "It happens by itself after an outage and once a day.",
	  .example = "tmtpctl peer catch-up home.test",
	  .options =
	      (const struct ctl_option[]){ { "from-start", NULL,
	                                     "everything they ever said, not only what is new",
	                                     false },
	                                   { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = peer_catch_up },
	{ .name = "peer catch-ups",
	  .arguments = "",
	  .summary =
	      "Shows when domains were asked what their members said, and what was learnt.",
	  .example = "tmtpctl peer catch-ups --domain home.test",
	  .options =
	      (const struct ctl_option[]){
		  { "domain", "NAME", "only this domain", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = peer_catch_ups },
	{ .name = NULL },
};
