/* GRANTs on their way: see grants.h. */
#include "relay/grants.h"

#include "base/clock.h"
#include "base/log.h"
#include "relay/session.h"
#include "store/peers.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_EVERY_MS 1000
#define LEASE_S 120
#define CLAIM_MAX 256
#define SKIP_MAX 4096
#define LATER_S 60 /* when nothing says how long */
#define BEHIND_S 2 /* behind the one that probes */

struct grants {
	struct relay *relay;
	struct loop_timer look;
	struct grant_claim claim;
	struct relay_later later;
	int64_t *skip;
	bool looking, again;
	unsigned under_way;
};

/* One GRANT: waits in its session's lane, goes out, is answered, is written down. */
struct grant {
	struct source source; /* first */
	struct command command;
	struct grants *grants;
	struct peer *peer;
	struct grant_out row; /* owned */
	struct grant_finish finish;
	struct relay_later later;
};

static struct grant *
grant_of(struct command *command)
{
	return (struct grant *)(void *)((char *)command - offsetof(struct grant, command));
}

static void
row_free(struct grant_out *row)
{
	free(row->account);
	free(row->sender);
	free(row->channel);
	free(row->domain);
	*row = (struct grant_out){ .account = NULL };
}

static void
on_finished(void *arg)
{
	struct grant *g = arg;
	struct grants *grants = g->grants;
	struct peer *peer = g->peer;

	row_free(&g->row);
	free(g);
	if (peer != NULL) {
		peer_idle(peer);
		peer_unref(&peer);
	}
	if (--grants->under_way == 0)
		grants_wake(grants);
}

static void
finish(struct grant *g, bool sent, int64_t wait_s)
{
	session_remove(&g->source);
	g->finish = (struct grant_finish){
		.account_id = g->row.account_id,
		.sender_id = g->row.sender_id,
		.channel = g->row.channel,
		.changed_id = g->row.changed_id,
		.sent = sent,
		.not_before_us = clock_wall_us() + wait_s * 1000000,
	};
	g->finish.job.patience_ms = 600000;
	relay_later(&g->later, g->grants->relay, &g->finish.job, on_finished, g);
	store_grant_finish(g->grants->relay->store, &g->finish);
}

/* --- Sending -------------------------------------------------------------------- */

static void
on_replied(struct command *command, const struct dmtp_response *r)
{
	struct grant *g = grant_of(command);
	char reason[NET_TEXT];

	if (r->letter == DMTP_K) {
		peer_answered(g->peer);
		finish(g, true, 0);
		return;
	}
	(void)snprintf(reason, sizeof(reason), "%c %s %.*s", r->letter, dmtp_code_name(r->code),
	               (int)(r->text.len < 150 ? r->text.len : 150),
	               r->text.len > 0 ? (const char *)r->text.data : "");
	log_warn("grant-refused", LOG_S("peer", g->peer->domain), LOG_S("reason", reason));
	if (r->letter == DMTP_E && dmtp_code_speaks(r->code) != DMTP_SPEAKS_SESSION) {
		peer_answered(g->peer);
		finish(g, true, 0); /* never: keeping it would not change that */
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
	finish(grant_of(command), false, 0);
}

static enum source_rc
make(struct source *source)
{
	static const enum dmtp_state states[] = { 0, DMTP_GRANTED, DMTP_REFUSED, DMTP_REVOKED };
	struct grant *g = (struct grant *)source;
	const struct grant_out *row = &g->row;
	struct buffer encoded;
	enum dmtp_client_rc sent;
	struct dmtp_grant grant = {
		.from = slice_str(row->account),
		.to = slice_str(row->sender),
		.channel = slice_str(row->channel),
		.state = states[row->state & 3],
		.receipts = row->receipts,
		.presence = row->presence,
		.date = row->date_s,
	};

	if ((session_ext(source->session) & DMTP_EXT_GRANT) == 0) {
		log_warn("grant-impossible", LOG_S("peer", g->peer->domain),
		         LOG_S("reason", "the peer does not know GRANT"));
		finish(g, false, 86400);
		return SOURCE_DONE;
	}
	if (row->has_grant && row->state != 2)
		grant.grant = slice_mem(row->grant, sizeof(row->grant));
	buffer_init(&encoded, 65536);
	dmtp_grant_encode(&grant, &encoded);
	sent = encoded.failed ? DMTP_CLIENT_NO_MEMORY
	                      : session_send(source->session, DMTP_GRANT,
	                                     buffer_slice(&encoded), &g->command, false);
	buffer_free(&encoded);
	if (sent == DMTP_CLIENT_OK)
		session_remove(source);
	else
		finish(g, false, LATER_S);
	return SOURCE_DONE;
}

/* One member's stay on one session: their order matters. */
static bool
enter_session(struct grant *g)
{
	const char *at = strrchr(g->row.account, '@');
	struct session *s =
	    at == NULL ? NULL : peer_session(g->peer, at + 1, g->row.account_id);

	if (s != NULL)
		session_add(s, &g->source);
	return s != NULL;
}

static void
gone(struct source *source, const char *reason)
{
	struct grant *g = (struct grant *)source;

	(void)reason;
	if (!enter_session(g))
		finish(g, false, 0);
}

static void
begin(struct grants *grants, struct grant_out *row)
{
	struct grant *g = calloc(1, sizeof(*g));
	bool room;

	if (g == NULL) { /* its lease runs out */
		row_free(row);
		return;
	}
	g->grants = grants;
	g->row = *row;
	*row = (struct grant_out){ .account = NULL };
	g->command.replied = on_replied;
	g->command.lost = on_lost;
	g->source = (struct source){ .make = make,
		                     .gone = gone,
		                     .lane = 0,
		                     .stream = g->row.account_id,
		                     .order = g->row.changed_id };
	grants->under_way++;
	g->peer = g->row.account == NULL || g->row.sender == NULL || g->row.channel == NULL ||
	                  g->row.domain == NULL
	              ? NULL
	              : peer_get(grants->relay, g->row.domain_id, g->row.domain);
	if (g->peer == NULL) {
		finish(g, false, LATER_S);
		return;
	}
	room = peer_has_room(g->peer);
	(void)peer_ref(g->peer);
	peer_busy(g->peer);
	if (!room || !enter_session(g))
		finish(g, false, room ? 1 : BEHIND_S);
}

/* --- Looking --------------------------------------------------------------------- */

static void
on_claimed(void *arg)
{
	struct grants *grants = arg;
	bool more = grants->claim.rows_n == CLAIM_MAX;

	grants->looking = false;
	for (size_t i = 0; i < grants->claim.rows_n; i++)
		begin(grants, &grants->claim.rows[i]);
	grant_claim_clear(&grants->claim);
	free(grants->skip);
	grants->skip = NULL;
	if (!grants->relay->draining)
		loop_timer_set(&grants->look, grants->again || more ? 0 : LOOK_EVERY_MS);
	grants->again = false;
}

/* Domains that are not to be sent to now. */
static size_t
list_closed(struct grants *grants)
{
	struct peer *p, *next;
	size_t n = 0;

	grants->skip = malloc(SKIP_MAX * sizeof(*grants->skip));
	HASH_ITER(hh, grants->relay->peers, p, next)
	if (grants->skip != NULL && n < SKIP_MAX && !peer_has_room(p))
		grants->skip[n++] = p->domain_id;
	return n;
}

static void
on_look(struct loop_timer *timer)
{
	struct grants *grants = timer->arg;
	struct relay *relay = grants->relay;
	int64_t now = clock_wall_us();

	if (grants->looking || relay->draining || !relay->begun)
		return;
	grants->looking = true;
	grants->claim = (struct grant_claim){
		.now_us = now,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.skip_n = list_closed(grants),
		.limit = CLAIM_MAX,
	};
	grants->claim.skip = grants->skip;
	relay_later(&grants->later, relay, &grants->claim.job, on_claimed, grants);
	store_grant_claim(relay->store, &grants->claim);
}

void
grants_wake(struct grants *grants)
{
	if (grants->looking)
		grants->again = true;
	else if (!grants->relay->draining)
		loop_timer_set(&grants->look, 0);
}

struct grants *
grants_new(struct relay *relay)
{
	struct grants *grants = calloc(1, sizeof(*grants));

	if (grants == NULL)
		return NULL;
	grants->relay = relay;
	loop_timer_init(&grants->look, relay->loop, on_look, grants);
	loop_timer_set(&grants->look, 0);
	return grants;
}

void
grants_free(struct grants **grants)
{
	if (*grants == NULL)
		return;
	loop_timer_cancel(&(*grants)->look);
	free((*grants)->skip);
	free(*grants);
	*grants = NULL;
}
