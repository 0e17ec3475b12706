/*
 * PRESENCE on its way: see presences.h. One row is one member's state for one
 * domain, told in as many commands as its contacts there need. What can't be
 * told now is told later as it stands then; nobody's presence waits for what
 * it was.
 */
#include "relay/presences.h"

#include "base/clock.h"
#include "base/log.h"
#include "relay/session.h"
#include "store/presence.h"

#include <stdlib.h>

#define LOOK_EVERY_MS 2000
#define LEASE_S 60
#define CLAIM_MAX 256
#define SKIP_MAX 4096
#define LASTS_S 600 /* how long the other side believes it; it is told again before */
#define LATER_S 60

struct presences {
	struct relay *relay;
	struct loop_timer look;
	struct presence_claim claim;
	struct relay_later later;
	int64_t *skip;
	bool looking, again;
};

struct told {
	struct command command; /* first */
	struct telling *telling;
};

/* One row: waits in its session's lane, goes out, is answered, is gone. */
struct telling {
	struct source source; /* first */
	struct presences *presence;
	struct peer *peer;
	struct presence_out row; /* owned */
	size_t at;               /* the next grant */
	unsigned unanswered;
	bool failed, ending;
	struct presence_finish finish;
	struct relay_later later;
};

static void
on_finished(void *arg)
{
	struct telling *t = arg;

	presence_out_clear(&t->row);
	free(t);
}

/* When nothing of it is under way any more. */
static void
end(struct telling *t)
{
	session_remove(&t->source);
	if (t->unanswered > 0 || t->ending)
		return;
	t->ending = true;
	t->finish = (struct presence_finish){
		.account_id = t->row.account_id,
		.domain_id = t->row.domain_id,
		.changed_us = t->row.changed_us,
		.told = !t->failed,
		.not_before_us = clock_wall_us() + (int64_t)LATER_S * 1000000,
	};
	relay_later(&t->later, t->presence->relay, &t->finish.job, on_finished, t);
	store_presence_finish(t->presence->relay->store, &t->finish);
}

static void
fail(struct telling *t)
{
	t->failed = true;
	end(t);
}

/* --- sending ------------------------------------------------------------------------ */

static void
answered(struct command *command, bool well)
{
	struct told *told = (struct told *)command;
	struct telling *t = told->telling;

	free(told);
	t->unanswered--;
	t->failed = t->failed || !well;
	if (t->failed || t->at == t->row.grants_n)
		end(t);
}

/* E: it is not wanted, and saying it again would not help. */
static void
on_replied(struct command *command, const struct dmtp_response *r)
{
	struct telling *t = ((struct told *)command)->telling;

	if (r->letter == DMTP_K)
		peer_answered(t->peer);
	else
		log_info("presence-refused", LOG_S("peer", t->peer->domain),
		         LOG_S("reason", dmtp_code_name(r->code)));
	answered(command, r->letter != DMTP_Z);
}

static void
on_lost(struct command *command, bool alone, const char *reason)
{
	(void)alone;
	(void)reason;
	answered(command, false);
}

static bool
send_some(struct telling *t, size_t n)
{
	static const enum dmtp_presence_state states[] = { [PRESENCE_OFFLINE] = DMTP_OFFLINE,
		                                           [PRESENCE_ONLINE] = DMTP_ONLINE,
		                                           [PRESENCE_AWAY] = DMTP_AWAY };
	struct told *told = calloc(1, sizeof(*told));
	struct buffer inside, encoded;
	struct dmtp_presence p = {
		.from = slice_str(t->row.address),
		.state = states[t->row.state],
		.since = t->row.since_us / 1000000,
		.until = clock_wall_s() + LASTS_S,
	};
	bool sent;

	if (told == NULL)
		return false;
	told->telling = t;
	told->command.replied = on_replied;
	told->command.lost = on_lost;
	buffer_init(&inside, 64 + n * 24);
	for (size_t i = t->at; i < t->at + n; i++)
		ben_put_str(&inside, slice_mem(t->row.grants[i], sizeof(t->row.grants[i])));
	p.rcpts = buffer_slice(&inside);
	buffer_init(&encoded, session_limits(t->source.session)->command_octets);
	dmtp_presence_encode(&p, &encoded);
	sent = !inside.failed && !encoded.failed &&
	       session_send(t->source.session, DMTP_PRESENCE, buffer_slice(&encoded),
	                    &told->command, false) == DMTP_CLIENT_OK;
	buffer_free(&inside);
	buffer_free(&encoded);
	if (sent)
		t->unanswered++;
	else
		free(told);
	return sent;
}

static enum source_rc
make(struct source *source)
{
	struct telling *t = (struct telling *)source;
	size_t n = t->row.grants_n - t->at;

	if ((session_ext(source->session) & DMTP_EXT_PRESENCE) == 0) {
		t->at = t->row.grants_n; /* it can't be told there */
		end(t);
		return SOURCE_DONE;
	}
	if (n > session_limits(source->session)->rcpts)
		n = session_limits(source->session)->rcpts;
	if (!send_some(t, n)) {
		fail(t);
		return SOURCE_DONE;
	}
	t->at += n;
	if (t->at < t->row.grants_n)
		return SOURCE_SENT;
	session_remove(source);
	return SOURCE_DONE;
}

static void
gone(struct source *source, const char *reason)
{
	(void)reason;
	fail((struct telling *)source);
}

static void
begin(struct presences *presence, struct presence_out *row)
{
	const char *at = row->address == NULL ? NULL : strrchr(row->address, '@');
	struct telling *t = calloc(1, sizeof(*t));
	struct session *s = NULL;

	if (t == NULL || at == NULL) { /* its lease runs out */
		presence_out_clear(row);
		free(t);
		return;
	}
	t->presence = presence;
	t->row = *row;
	*row = (struct presence_out){ .address = NULL };
	t->source = (struct source){
		.make = make, .gone = gone, .stream = t->row.account_id, .order = uuid_make()
	};
	t->peer = peer_get(presence->relay, t->row.domain_id, t->row.domain);
	if (t->row.grants_n == 0) { /* nobody there agrees any more */
		end(t);
		return;
	}
	if (t->peer != NULL)
		s = peer_session(t->peer, strrchr(t->row.address, '@') + 1, t->row.account_id);
	if (s != NULL)
		session_add(s, &t->source);
	else
		fail(t);
}

/* --- looking -------------------------------------------------------------------------- */

static void
on_claimed(void *arg)
{
	struct presences *p = arg;
	bool more = p->claim.rows_n == CLAIM_MAX;

	p->looking = false;
	for (size_t i = 0; i < p->claim.rows_n; i++)
		begin(p, &p->claim.rows[i]);
	presence_claim_clear(&p->claim);
	free(p->skip);
	p->skip = NULL;
	if (!p->relay->draining)
		loop_timer_set(&p->look, p->again || more ? 0 : LOOK_EVERY_MS);
	p->again = false;
}

/* Domains that are not to be sent to now. */
static size_t
list_closed(struct presences *p)
{
	struct peer *peer, *next;
	size_t n = 0;

	p->skip = malloc(SKIP_MAX * sizeof(*p->skip));
	HASH_ITER(hh, p->relay->peers, peer, next)
	if (p->skip != NULL && n < SKIP_MAX && !peer_is_open(peer))
		p->skip[n++] = peer->domain_id;
	return n;
}

static void
on_look(struct loop_timer *timer)
{
	struct presences *p = timer->arg;
	int64_t now = clock_wall_us();

	if (p->looking || p->relay->draining)
		return;
	p->looking = true;
	p->claim = (struct presence_claim){
		.now_us = now,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.skip_n = list_closed(p),
		.limit = CLAIM_MAX,
	};
	p->claim.skip = p->skip;
	relay_later(&p->later, p->relay, &p->claim.job, on_claimed, p);
	store_presence_claim(p->relay->store, &p->claim);
}

void
presences_wake(struct presences *p)
{
	if (p->looking)
		p->again = true;
	else if (!p->relay->draining)
		loop_timer_set(&p->look, 0);
}

struct presences *
presences_new(struct relay *relay)
{
	struct presences *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->relay = relay;
	loop_timer_init(&p->look, relay->loop, on_look, p);
	loop_timer_set(&p->look, LOOK_EVERY_MS);
	return p;
}

void
presences_free(struct presences **presence)
{
	if (*presence == NULL)
		return;
	loop_timer_cancel(&(*presence)->look);
	free((*presence)->skip);
	free(*presence);
	*presence = NULL;
}
