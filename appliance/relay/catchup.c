/*
 * Catching up on consent: see catchup.h. A question and its answer, what it
 * says written down, the cursor moved, the next question; each step only
 * after the one before it was committed.
 */
#include "relay/catchup.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "relay/session.h"
#include "store/catchups.h"
#include "store/members.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_EVERY_MS 5000
#define LEASE_S 120
#define ASKING_MAX 8    /* at a time: an answer has up to 1000 events */
#define ATTEMPTS_MAX 8  /* claims without an end: once a day is enough for it */
#define ROUNDS_MAX 4096 /* questions in one go */
#define AGAIN_S 60      /* after something that passes */
#define DAY_S 86400

METRIC_DEFINE(caught_up, METRIC_COUNTER, "tmtp_relay_catchups_total", "state=\"done\"",
              "Questions for what members said, by their end.");
METRIC_DEFINE(not_caught_up, METRIC_COUNTER, "tmtp_relay_catchups_total", "state=\"failed\"",
              "Questions for what members said, by their end.");
METRIC_DEFINE(learnt, METRIC_COUNTER, "tmtp_relay_grants_learnt_total", NULL,
              "What members had said and no GRANT had told.");

struct catchup {
	struct relay *relay;
	struct loop_timer look;
	struct catchup_claim claim;
	struct relay_later later;
	bool looking, again;
	unsigned under_way;
};

/* A domain that recovered. */
struct recovery {
	struct catchup_due due;
	struct relay_later later;
};

/* One event on its way into the store; borrows from the asking's copy of the answer. */
struct event {
	struct member_grant job; /* first */
	struct relay_later later;
	struct asking *asking;
	struct dmtp_address from;
};

/* A site's question to a domain, from its claim to its end. */
struct asking {
	struct source source; /* first */
	struct command command;
	struct catchup *catchup;
	struct peer *peer;
	struct catchup_out row;
	struct dmtp_address site;
	struct event *events; /* of the last answer */
	size_t events_n, pending;
	bool down;       /* one could not be stored */
	uint8_t *answer; /* what the events borrow from */
	char next[DMTP_CURSOR_MAX + 1];
	bool more;
	unsigned rounds;
	int64_t told, changed; /* events in all; of them news */
	int64_t new_changes;   /* not yet told to the store */
	char reason[NET_TEXT];
	struct catchup_finish finish;
	struct relay_later later;
};

static void apply(struct asking *q, const struct dmtp_response *r);

static struct asking *
asking_of(struct command *command)
{
	return (struct asking *)(void *)((char *)command - offsetof(struct asking, command));
}

/* --- The end ----------------------------------------------------------------------- */

static void
asking_free(struct asking *q)
{
	struct catchup *catchup = q->catchup;
	struct peer *peer = q->peer;

	free(q->events);
	free(q->answer);
	free(q);
	if (peer != NULL) {
		peer_idle(peer);
		peer_unref(&peer);
	}
	catchup->under_way--;
	catchup_wake(catchup);
}

static void
on_finished(void *arg)
{
	struct asking *q = arg;

	if (q->finish.job.rc != STORE_OK && q->finish.job.rc != STORE_NOT_FOUND)
		log_warn("catch-up-unrecorded", LOG_S("peer", q->row.domain),
		         LOG_S("reason", store_rc_text(q->finish.job.rc)));
	asking_free(q);
}

static void
tell_store(struct asking *q, enum catchup_end end, int64_t wait_s, const char *cursor,
           void (*fn)(void *arg))
{
	int64_t now = clock_wall_us();

	q->finish = (struct catchup_finish){
		.site_id = q->row.site_id,
		.domain_id = q->row.domain_id,
		.end = end,
		.cursor = cursor,
		.next_us = now + wait_s * 1000000,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.now_us = now,
		.changed = q->new_changes,
		.reason = q->reason,
	};
	q->finish.job.patience_ms = 600000;
	relay_later(&q->later, q->catchup->relay, &q->finish.job, fn, q);
	store_catchup_finish(q->catchup->relay->store, &q->finish);
}

/* A fifth of a day is chance: not all of a domain's sites at once, nor all domains. */
static void
done(struct asking *q)
{
	int64_t wait_s = DAY_S - (int64_t)randombytes_uniform(DAY_S / 5);

	metric_add(&caught_up, 1);
	log_info("caught-up", LOG_B("site", dmtp_address_slice(&q->site)),
	         LOG_S("peer", q->row.domain), LOG_I("events", q->told),
	         LOG_I("changed", q->changed));
	tell_store(q, CATCHUP_DONE, wait_s, NULL, on_finished);
}

/* cursor: to begin with next time, or NULL. */
static void
failed(struct asking *q, const char *reason, int64_t wait_s, const char *cursor)
{
	session_remove(&q->source);
	(void)snprintf(q->reason, sizeof(q->reason), "%s", reason);
	metric_add(&not_caught_up, 1);
	log_warn("catch-up-failed", LOG_B("site", dmtp_address_slice(&q->site)),
	         LOG_S("peer", q->row.domain), LOG_S("reason", q->reason));
	tell_store(q, CATCHUP_FAILED, wait_s, cursor, on_finished);
}

/* --- Asking ------------------------------------------------------------------------ */

static void
on_replied(struct command *command, const struct dmtp_response *r)
{
	struct asking *q = asking_of(command);
	char reason[NET_TEXT];

	if (r->letter == DMTP_K) {
		peer_answered(q->peer);
		apply(q, r);
		return;
	}
	dmtp_response_words(r, reason, sizeof(reason));
	if (r->letter == DMTP_Z) {
		peer_wait(q->peer, reason, r->retry_s > 0 ? r->retry_s : AGAIN_S);
		failed(q, reason, r->retry_s > 0 ? r->retry_s : AGAIN_S, NULL);
	} else if (dmtp_code_speaks(r->code) == DMTP_SPEAKS_SESSION) {
		peer_failed(q->peer, reason);
		failed(q, reason, AGAIN_S, NULL);
	} else { /* a cursor that it doesn't know any more: from the start */
		peer_answered(q->peer);
		failed(q, reason, q->row.cursor[0] != '\0' ? 1 : DAY_S, "");
	}
}

static void
on_lost(struct command *command, bool alone, const char *reason)
{
	(void)alone;
	failed(asking_of(command), reason, AGAIN_S, NULL);
}

static enum source_rc
make(struct source *source)
{
	struct asking *q = (struct asking *)source;
	struct dmtp_channels channels = { .from = dmtp_address_slice(&q->site),
		                          .has_since = true,
		                          .since = slice_str(q->row.cursor) };
	enum dmtp_client_rc sent = DMTP_CLIENT_NO_MEMORY;
	struct buffer encoded;

	buffer_init(&encoded, 4096);
	dmtp_channels_encode(&channels, &encoded);
	if (!encoded.failed)
		sent = session_send(source->session, DMTP_CHANNELS, buffer_slice(&encoded),
		                    &q->command, false);
	buffer_free(&encoded);
	if (sent == DMTP_CLIENT_OK)
		session_remove(source);
	else
		failed(q, "it could not be sent", AGAIN_S, NULL);
	return SOURCE_DONE;
}

static bool
enter_session(struct asking *q)
{
	struct session *s = peer_session(q->peer, q->row.site_domain, q->row.site_id);

	if (s != NULL)
		session_add(s, &q->source);
	return s != NULL;
}

static void
gone(struct source *source, const char *reason)
{
	struct asking *q = (struct asking *)source;

	if (!enter_session(q))
		failed(q, reason, AGAIN_S, NULL);
}

/* --- What it says ------------------------------------------------------------------ */

static void
on_moved(void *arg)
{
	struct asking *q = arg;

	free(q->events);
	free(q->answer);
	q->events = NULL;
	q->answer = NULL;
	q->events_n = 0;
	if (q->finish.job.rc == STORE_NOT_FOUND) {
		asking_free(q); /* an administrator or another worker asks anew */
		return;
	}
	if (q->finish.job.rc != STORE_OK) {
		failed(q, store_rc_text(q->finish.job.rc), AGAIN_S, NULL);
		return;
	}
	q->new_changes = 0;
	memcpy(q->row.cursor, q->next, sizeof(q->row.cursor));
	if (!q->more)
		done(q);
	else if (++q->rounds == ROUNDS_MAX)
		failed(q, "it goes on without an end", DAY_S, NULL);
	else if (!enter_session(q))
		failed(q, "the domain can't be sent to now", AGAIN_S, NULL);
}

static void
on_applied(struct asking *q)
{
	if (--q->pending > 0)
		return;
	for (size_t i = 0; i < q->events_n; i++)
		q->new_changes += q->events[i].job.changed;
	q->changed += q->new_changes;
	metric_add(&learnt, q->new_changes);
	if (q->down)
		failed(q, "the database is not available", AGAIN_S, NULL);
	else
		tell_store(q, CATCHUP_GOES_ON, 0, q->next, on_moved);
}

static void
on_stored(void *arg)
{
	struct event *e = arg;

	if (e->job.job.rc != STORE_OK)
		e->asking->down = true;
	on_applied(e->asking);
}

/* A domain speaks for its own members and to who asked; anything else is passed over. */
static bool
read_event(struct asking *q, const struct dmtp_grant *g, struct event *e)
{
	struct dmtp_address to;

	if (g->values_bad || dmtp_address_parse(g->from, &e->from) != DMTP_ADDRESS_OK ||
	    dmtp_address_parse(g->to, &to) != DMTP_ADDRESS_OK ||
	    !dmtp_address_eq(&to, &q->site) ||
	    !slice_eq_str(dmtp_address_domain(&e->from), q->row.domain))
		return false;
	e->asking = q;
	e->job = (struct member_grant){
		.domain = dmtp_address_domain(&e->from),
		.member = dmtp_address_local(&e->from),
		.site_domain = slice_str(q->row.site_domain),
		.site_name = slice_str(q->row.site_name),
		.channel = g->channel,
		.state = g->state == DMTP_GRANTED   ? MEMBER_GRANTED
		         : g->state == DMTP_REFUSED ? MEMBER_REFUSED
		                                    : MEMBER_REVOKED,
		.grant_id = g->grant,
		.receipts = g->receipts,
		.presence = g->presence,
		.date_s = g->date,
		.now_us = clock_wall_us(),
	};
	return true;
}

static size_t
read_events(struct asking *q, struct slice inside)
{
	struct ben_reader it;
	struct dmtp_grant g;
	size_t seen = 0, passed_over;

	ben_reader_init(&it, inside);
	while (seen < DMTP_EVENTS_MAX && dmtp_grant_next(&it, &g)) {
		seen++;
		if (read_event(q, &g, &q->events[q->events_n]))
			q->events_n++;
	}
	passed_over = seen - q->events_n;
	if (passed_over > 0)
		log_warn("catch-up-passed-over", LOG_S("peer", q->row.domain),
		         LOG_I("events", (int64_t)passed_over),
		         LOG_S("reason", "not of that domain's members, or not to this site"));
	return seen;
}

static void
apply(struct asking *q, const struct dmtp_response *r)
{
	size_t len = r->events.len, seen;

	if (!r->has_events || r->next.len > DMTP_CURSOR_MAX) {
		failed(q, "it answered something else", DAY_S, NULL);
		return;
	}
	q->events = calloc(DMTP_EVENTS_MAX, sizeof(*q->events));
	q->answer = malloc(len + 1);
	if (q->events == NULL || q->answer == NULL) {
		failed(q, "out of memory", AGAIN_S, NULL);
		return;
	}
	if (len > 0)
		memcpy(q->answer, r->events.data, len);
	memset(q->next, 0, sizeof(q->next));
	if (r->next.len > 0)
		memcpy(q->next, r->next.data, r->next.len);
	seen = read_events(q, slice_mem(q->answer, len));
	q->told += (int64_t)seen;
	q->more = seen > 0 && strcmp(q->next, q->row.cursor) != 0;
	q->down = false;
	q->pending = 1;
	for (size_t i = 0; i < q->events_n; i++) {
		struct event *e = &q->events[i];

		q->pending++;
		relay_later(&e->later, q->catchup->relay, &e->job.job, on_stored, e);
		store_member_grant(q->catchup->relay->store, &e->job);
	}
	on_applied(q); /* of this call */
}

/* --- Looking ----------------------------------------------------------------------- */

static void
begin(struct catchup *catchup, const struct catchup_out *row)
{
	struct asking *q = calloc(1, sizeof(*q));
	bool room;

	if (q == NULL) /* its lease runs out */
		return;
	q->catchup = catchup;
	q->row = *row;
	q->command.replied = on_replied;
	q->command.lost = on_lost;
	q->source = (struct source){ .make = make,
		                     .gone = gone,
		                     .lane = 2, /* nobody waits for it */
		                     .stream = -row->site_id };
	catchup->under_way++;
	q->peer = peer_get(catchup->relay, row->domain_id, row->domain);
	if (q->peer == NULL ||
	    dmtp_address_make((struct slice){ NULL, 0 }, slice_str(row->site_name),
	                      slice_str(row->site_domain), &q->site) != DMTP_ADDRESS_OK) {
		q->peer = NULL;
		failed(q, "out of memory", AGAIN_S, NULL);
		return;
	}
	room = peer_has_room(q->peer);
	(void)peer_ref(q->peer);
	peer_busy(q->peer);
	if (row->attempts > ATTEMPTS_MAX)
		failed(q, "asked again and again without an end", DAY_S, NULL);
	else if (!room || !enter_session(q))
		failed(q, "the domain can't be sent to now", room ? AGAIN_S : 2, NULL);
}

static void
on_claimed(void *arg)
{
	struct catchup *catchup = arg;

	catchup->looking = false;
	for (size_t i = 0; i < catchup->claim.rows_n; i++)
		begin(catchup, &catchup->claim.rows[i]);
	catchup_claim_clear(&catchup->claim);
	if (!catchup->relay->draining)
		loop_timer_set(&catchup->look, catchup->again ? 0 : LOOK_EVERY_MS);
	catchup->again = false;
}

static void
on_look(struct loop_timer *timer)
{
	struct catchup *catchup = timer->arg;
	struct relay *relay = catchup->relay;
	int64_t now = clock_wall_us();

	if (catchup->looking || relay->draining || !relay->begun ||
	    catchup->under_way >= ASKING_MAX)
		return;
	catchup->looking = true;
	catchup->claim =
	    (struct catchup_claim){ .now_us = now,
		                    .lease_until_us = now + (int64_t)LEASE_S * 1000000,
		                    .limit = ASKING_MAX - catchup->under_way };
	relay_later(&catchup->later, relay, &catchup->claim.job, on_claimed, catchup);
	store_catchup_claim(relay->store, &catchup->claim);
}

void
catchup_wake(struct catchup *catchup)
{
	if (catchup->looking)
		catchup->again = true;
	else if (!catchup->relay->draining)
		loop_timer_set(&catchup->look, 0);
}

static void
on_due(void *arg)
{
	free(arg); /* the store has woken us */
}

void
catchup_recovered(struct catchup *catchup, const struct peer *peer)
{
	struct recovery *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return; /* within a day it is due anyway */
	r->due =
	    (struct catchup_due){ .domain_id = peer->domain_id, .now_us = clock_wall_us() };
	r->due.job.patience_ms = 60000;
	relay_later(&r->later, catchup->relay, &r->due.job, on_due, r);
	store_catchup_due(catchup->relay->store, &r->due);
}

struct catchup *
catchup_new(struct relay *relay)
{
	struct catchup *catchup = calloc(1, sizeof(*catchup));

	if (catchup == NULL)
		return NULL;
	catchup->relay = relay;
	loop_timer_init(&catchup->look, relay->loop, on_look, catchup);
	return catchup;
}

void
catchup_free(struct catchup **catchup)
{
	if (*catchup == NULL)
		return;
	loop_timer_cancel(&(*catchup)->look);
	free(*catchup);
	*catchup = NULL;
}
