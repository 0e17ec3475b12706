/* Receipts on their way: see receipts.h. */
#include "relay/receipts.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "relay/session.h"
#include "store/receipts.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_EVERY_MS 2000
#define LEASE_S 120
#define CLAIM_MAX 500
#define SKIP_MAX 4096
#define GROUP_MAX DMTP_FLOOR_RCPTS /* of one command: what every peer takes */
#define LATER_S 60
#define BEHIND_S 2 /* behind the one that probes */

METRIC_DEFINE(sent_total, METRIC_COUNTER, "tmtp_relay_receipts_total", NULL,
              "Receipts that sites were told.");

struct receipts {
	struct relay *relay;
	struct loop_timer look;
	struct receipt_claim claim;
	struct relay_later later;
	int64_t *skip;
	bool looking, again;
	unsigned under_way; /* groups */
};

/* What goes in one command: of one domain's members to one sender. */
struct group {
	struct source source; /* first */
	struct command command;
	struct receipts *receipts;
	struct peer *peer;
	struct receipt_out rows[GROUP_MAX]; /* owned */
	size_t n;
	struct receipt_finish finish;
	struct relay_later later;
};

static struct group *
group_of(struct command *command)
{
	return (struct group *)(void *)((char *)command - offsetof(struct group, command));
}

static void
on_finished(void *arg)
{
	struct group *g = arg;
	struct receipts *receipts = g->receipts;
	struct peer *peer = g->peer;

	for (size_t i = 0; i < g->n; i++)
		receipt_out_clear(&g->rows[i]);
	free(g);
	if (peer != NULL) {
		peer_idle(peer);
		peer_unref(&peer);
	}
	if (--receipts->under_way == 0 && receipts->again)
		receipts_wake(receipts);
}

static void
finish(struct group *g, bool sent, int64_t wait_s)
{
	session_remove(&g->source);
	g->finish = (struct receipt_finish){
		.rows = g->rows,
		.rows_n = g->n,
		.sent = sent,
		.not_before_us = clock_wall_us() + wait_s * 1000000,
	};
	g->finish.job.patience_ms = 600000;
	relay_later(&g->later, g->receipts->relay, &g->finish.job, on_finished, g);
	store_receipt_finish(g->receipts->relay->store, &g->finish);
}

/* --- Sending -------------------------------------------------------------------- */

static void
on_replied(struct command *command, const struct dmtp_response *r)
{
	struct group *g = group_of(command);
	char reason[NET_TEXT];

	if (r->letter == DMTP_K) {
		peer_answered(g->peer);
		metric_add(&sent_total, (int64_t)g->n);
		finish(g, true, 0);
		return;
	}
	(void)snprintf(reason, sizeof(reason), "%c %s %.*s", r->letter, dmtp_code_name(r->code),
	               (int)(r->text.len < 150 ? r->text.len : 150),
	               r->text.len > 0 ? (const char *)r->text.data : "");
	log_warn("receipts-refused", LOG_S("peer", g->peer->domain), LOG_S("reason", reason));
	if (r->letter == DMTP_E && dmtp_code_speaks(r->code) != DMTP_SPEAKS_SESSION) {
		peer_answered(g->peer);
		finish(g, true, 0); /* never: keeping them would not change that */
		return;
	}
	if (r->letter == DMTP_Z)
		peer_wait(g->peer, reason, r->retry_s > 0 ? r->retry_s : LATER_S);
	else
		peer_failed(g->peer, reason);
	finish(g, false, 0);
}

static void
on_lost(struct command *command, bool alone, const char *reason)
{
	(void)alone;
	(void)reason;
	finish(group_of(command), false, 0);
}

static void
encode(const struct group *g, struct buffer *out)
{
	struct dmtp_receipt receipt = { .from = slice_str(g->rows[0].account),
		                        .to = slice_str(g->rows[0].sender) };
	struct buffer events;

	buffer_init(&events, DMTP_FLOOR_COMMAND);
	for (size_t i = 0; i < g->n; i++) {
		const struct receipt_out *o = &g->rows[i];
		struct dmtp_receipt_row row = {
			.id = slice_str(o->id),
			.grant = o->grant,
			.kind = o->kind == RECEIPT_READ ? DMTP_READ : DMTP_WITHDRAWN,
			.date = o->date_s,
		};

		dmtp_receipt_put(&row, &events);
	}
	receipt.events = buffer_slice(&events);
	dmtp_receipt_encode(&receipt, out);
	buffer_free(&events);
}

static enum source_rc
make(struct source *source)
{
	struct group *g = (struct group *)source;
	struct buffer encoded;
	enum dmtp_client_rc sent;

	if ((session_ext(source->session) & DMTP_EXT_RECEIPT) == 0) {
		finish(g, true, 0); /* it doesn't want to know */
		return SOURCE_DONE;
	}
	buffer_init(&encoded, DMTP_FLOOR_COMMAND);
	encode(g, &encoded);
	sent = encoded.failed ? DMTP_CLIENT_NO_MEMORY
	                      : session_send(source->session, DMTP_RECEIPT,
	                                     buffer_slice(&encoded), &g->command, false);
	buffer_free(&encoded);
	if (sent == DMTP_CLIENT_OK)
		session_remove(source);
	else
		finish(g, false, LATER_S);
	return SOURCE_DONE;
}

static bool
enter_session(struct group *g)
{
	const char *at = strrchr(g->rows[0].account, '@');
	struct session *s =
	    at == NULL ? NULL : peer_session(g->peer, at + 1, g->rows[0].sender_id);

	if (s != NULL)
		session_add(s, &g->source);
	return s != NULL;
}

static void
gone(struct source *source, const char *reason)
{
	struct group *g = (struct group *)source;

	(void)reason;
	if (!enter_session(g))
		finish(g, false, 0);
}

/* Takes the rows. */
static void
begin(struct receipts *receipts, struct receipt_out *rows, size_t n)
{
	struct group *g = calloc(1, sizeof(*g));
	const struct receipt_out *first = g == NULL ? NULL : &g->rows[0];
	bool room;

	if (g == NULL)
		return; /* their lease runs out */
	g->receipts = receipts;
	memcpy(g->rows, rows, n * sizeof(*rows));
	memset(rows, 0, n * sizeof(*rows));
	g->n = n;
	g->command.replied = on_replied;
	g->command.lost = on_lost;
	g->source = (struct source){ .make = make,
		                     .gone = gone,
		                     .lane = 1,
		                     .stream = first->sender_id,
		                     .order = first->notification_id };
	receipts->under_way++;
	if (!first->is_void && first->account != NULL && first->sender != NULL &&
	    first->domain != NULL)
		g->peer = peer_get(receipts->relay, first->domain_id, first->domain);
	if (g->peer == NULL) {
		finish(g, first->is_void, LATER_S);
		return;
	}
	room = peer_has_room(g->peer);
	(void)peer_ref(g->peer);
	peer_busy(g->peer);
	if (!room || !enter_session(g))
		finish(g, false, room ? 1 : BEHIND_S);
}

/* --- Looking --------------------------------------------------------------------- */

static bool
go_together(const struct receipt_out *a, const struct receipt_out *b)
{
	const char *x = a->account == NULL ? NULL : strrchr(a->account, '@');
	const char *y = b->account == NULL ? NULL : strrchr(b->account, '@');

	return a->is_void == b->is_void && a->sender_id == b->sender_id &&
	       a->domain_id == b->domain_id && x != NULL && y != NULL && strcmp(x, y) == 0;
}

static void
on_claimed(void *arg)
{
	struct receipts *receipts = arg;
	struct receipt_claim *claim = &receipts->claim;
	bool more = claim->rows_n == CLAIM_MAX;

	receipts->looking = false;
	for (size_t first = 0, end; first < claim->rows_n; first = end) {
		for (end = first + 1; end < claim->rows_n && end - first < GROUP_MAX &&
		                      go_together(&claim->rows[first], &claim->rows[end]);)
			end++;
		begin(receipts, &claim->rows[first], end - first);
	}
	receipt_claim_clear(claim);
	free(receipts->skip);
	receipts->skip = NULL;
	if (!receipts->relay->draining)
		loop_timer_set(&receipts->look, receipts->again || more ? 0 : LOOK_EVERY_MS);
	receipts->again = false;
}

/* Domains that are not to be sent to now. */
static size_t
list_closed(struct receipts *receipts)
{
	struct peer *p, *next;
	size_t n = 0;

	receipts->skip = malloc(SKIP_MAX * sizeof(*receipts->skip));
	HASH_ITER(hh, receipts->relay->peers, p, next)
	if (receipts->skip != NULL && n < SKIP_MAX && !peer_has_room(p))
		receipts->skip[n++] = p->domain_id;
	return n;
}

static void
on_look(struct loop_timer *timer)
{
	struct receipts *receipts = timer->arg;
	struct relay *relay = receipts->relay;
	int64_t now = clock_wall_us();

	if (receipts->looking || relay->draining || !relay->begun)
		return;
	receipts->looking = true;
	receipts->claim = (struct receipt_claim){
		.now_us = now,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.skip_n = list_closed(receipts),
		.limit = CLAIM_MAX,
	};
	receipts->claim.skip = receipts->skip;
	relay_later(&receipts->later, relay, &receipts->claim.job, on_claimed, receipts);
	store_receipt_claim(relay->store, &receipts->claim);
}

void
receipts_wake(struct receipts *receipts)
{
	if (receipts->looking)
		receipts->again = true;
	else if (!receipts->relay->draining)
		loop_timer_set(&receipts->look, 0);
}

struct receipts *
receipts_new(struct relay *relay)
{
	struct receipts *receipts = calloc(1, sizeof(*receipts));

	if (receipts == NULL)
		return NULL;
	receipts->relay = relay;
	loop_timer_init(&receipts->look, relay->loop, on_look, receipts);
	loop_timer_set(&receipts->look, 0);
	return receipts;
}

void
receipts_free(struct receipts **receipts)
{
	if (*receipts == NULL)
		return;
	loop_timer_cancel(&(*receipts)->look);
	free((*receipts)->skip);
	free(*receipts);
	*receipts = NULL;
}
