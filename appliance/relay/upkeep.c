/* Upkeep by the relay: see upkeep.h. */
#include "relay/upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/domain_keys.h"
#include "dmtp/limits.h"
#include "relay/catchup.h"
#include "relay/grants.h"
#include "relay/peer.h"
#include "relay/receipts.h"
#include "relay/plan.h"
#include "store/clocks.h"
#include "store/queue.h"
#include "store/upkeep.h"
#include "store/workers.h"

#include <stdlib.h>

#define PARTITIONS_EVERY_MS ((int64_t)3600 * 1000)
#define CHUNKS_EVERY_MS 1000
#define SECRETS_EVERY_MS ((int64_t)3600 * 1000)
#define CHUNKS_AT_ONCE 50
#define CHUNK_TARGET 800
#define CHUNK_MAX 1000
#define REAP_EVERY_MS 1000
#define EXPIRE_OWN_EVERY_MS 5000
#define EXPIRE_LIMIT_EVERY_MS 60000
#define EXPIRE_AT_ONCE 1000
#define REFUSED_EVERY_MS 5000
#define REFUSED_S      \
	(INT64_C(48) * \
	 3600) /* unsigned DNS is believed after so long (PROTOCOL.md, section 2) */
#define EXPIRE_OVERLAP_S 30 /* for clocks that differ, and for what was just given back */

struct relay_upkeep {
	struct relay *relay;
	struct loop_timer partitions_timer, chunks_timer, reap_timer, own_timer, limit_timer,
	    refused_timer, clock_timer;
	struct upkeep_partitions partitions;
	struct upkeep_chunks chunks;
	struct worker_reap reap;
	struct queue_expire own, limit, refused;
	int64_t own_from_us; /* what expired before was looked at */
	struct relay_later partitions_later, chunks_later, reap_later, own_later, limit_later,
	    refused_later, clock_later;
	struct clock_look look;
	struct clock_see clock;
	int64_t clock_set_back; /* below 0: not asked yet */

	struct loop_timer secrets_timer;
	struct domain_key_forget secrets;
	struct relay_later secrets_later;
};

static void
on_partitions(void *arg)
{
	struct relay_upkeep *u = arg;

	if (u->partitions.job.rc != STORE_OK)
		log_error("partitions-missing",
		          LOG_S("reason", store_rc_text(u->partitions.job.rc)));
	else if (u->partitions.made > 0)
		log_info("partitions-made", LOG_I("count", u->partitions.made));
	if (!u->relay->draining)
		loop_timer_set(&u->partitions_timer,
		               u->partitions.job.rc == STORE_OK ? PARTITIONS_EVERY_MS : 5000);
}

static void
make_partitions(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->partitions = (struct upkeep_partitions){ .now_us = clock_wall_us() };
	relay_later(&u->partitions_later, u->relay, &u->partitions.job, on_partitions, u);
	store_upkeep_partitions(u->relay->store, &u->partitions);
}

/* A page that changed something is followed at once: a channel that has just grown is cut within moments. */
static void
on_chunks(void *arg)
{
	struct relay_upkeep *u = arg;
	bool more = u->chunks.job.rc == STORE_OK && u->chunks.changed > 0;

	if (!u->relay->draining)
		loop_timer_set(&u->chunks_timer, more ? 0 : CHUNKS_EVERY_MS);
}

static void
cut_chunks(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->chunks.target = CHUNK_TARGET;
	u->chunks.max = CHUNK_MAX;
	u->chunks.limit = CHUNKS_AT_ONCE;
	relay_later(&u->chunks_later, u->relay, &u->chunks.job, on_chunks, u);
	store_upkeep_chunks(u->relay->store, &u->chunks);
}

/* --- Private parts of keys that ended ------------------------------------------ */

static void
on_secrets(void *arg)
{
	struct relay_upkeep *u = arg;

	if (u->secrets.job.rc == STORE_OK && u->secrets.forgotten > 0)
		log_info("domain-keys-forgotten", LOG_I("count", u->secrets.forgotten));
	if (!u->relay->draining)
		loop_timer_set(&u->secrets_timer, SECRETS_EVERY_MS);
}

/* A private part is of no use once nothing that its key could sign may be sent any more. */
static void
forget_secrets(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->secrets = (struct domain_key_forget){
		.ended_before_us = clock_wall_us() - (int64_t)DOMAIN_KEY_WAIT_S * 1000000
	};
	relay_later(&u->secrets_later, u->relay, &u->secrets.job, on_secrets, u);
	store_domain_key_forget(u->relay->store, &u->secrets);
}

/* --- Workers that are gone ----------------------------------------------------- */

static void
on_reaped(void *arg)
{
	struct relay_upkeep *u = arg;
	struct relay *relay = u->relay;
	char id[UUID_TEXT];

	if (u->reap.job.rc != STORE_OK)
		u->reap.gone_n = 0;
	for (size_t i = 0; i < u->reap.gone_n; i++) {
		uuid_format(&u->reap.gone[i], id);
		log_warn("worker-gone", LOG_S("worker", id), LOG_I("leases", u->reap.leases));
	}
	if (u->reap.gone_n > 0) {
		plan_wake(relay->plan);
		grants_wake(relay->grants);
		receipts_wake(relay->receipts);
		catchup_wake(relay->catchup);
	}
	if (!relay->draining)
		loop_timer_set(&u->reap_timer, REAP_EVERY_MS);
}

static void
reap(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->reap = (struct worker_reap){ .worker = u->relay->owner };
	relay_later(&u->reap_later, u->relay, &u->reap.job, on_reaped, u);
	store_worker_reap_relays(u->relay->store, &u->reap);
}

/* --- A clock that was set back ------------------------------------------------- */

static void
on_clock(void *arg)
{
	struct relay_upkeep *u = arg;
	struct relay *relay = u->relay;
	bool first = u->clock_set_back < 0;

	clock_look_done(&u->look, &u->clock);
	if (u->clock.job.rc != STORE_OK)
		return;
	if (u->clock.back_us > 0)
		log_warn("clock-set-back", LOG_I("by_s", u->clock.back_us / 1000000),
		         LOG_I("moved", u->clock.moved));
	/* By whichever process: what this one keeps of the peers is of the wrong time too. */
	if (u->clock.back_us > 0 || (!first && u->clock.set_back != u->clock_set_back)) {
		u->own_from_us = u->clock.now_us - (int64_t)DMTP_PAST_S * 1000000;
		peer_load_all(relay, NULL);
		plan_wake(relay->plan);
		grants_wake(relay->grants);
		receipts_wake(relay->receipts);
		catchup_wake(relay->catchup);
	}
	u->clock_set_back = u->clock.set_back;
}

static void
look_at_clock(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;
	int64_t back_us;
	bool due;

	if (u->relay->draining)
		return;
	loop_timer_set(&u->clock_timer, CLOCK_LOOK_MS);
	due = clock_look(&u->look, &u->clock, &back_us);
	if (back_us > 0)
		peer_clock_back(u->relay, back_us);
	if (!due)
		return;
	relay_later(&u->clock_later, u->relay, &u->clock.job, on_clock, u);
	store_clock_see_relay(u->relay->store, &u->clock);
}

/* --- Expiry ---------------------------------------------------------------------- */

static bool
tell_expired(struct queue_expire *e)
{
	bool full = e->job.rc == STORE_OK && e->rows_n == e->limit;
	char id[UUID_TEXT];

	for (size_t i = 0; e->job.rc == STORE_OK && i < e->rows_n; i++) {
		uuid_format(&e->rows[i].message_id, id);
		log_warn("delivery-dead", LOG_S("peer", e->rows[i].domain),
		         LOG_S("message", id), LOG_S("reason", e->rows[i].reason));
	}
	queue_expire_clear(e);
	return full;
}

static void
on_own_expired(void *arg)
{
	struct relay_upkeep *u = arg;
	bool good = u->own.job.rc == STORE_OK, full = tell_expired(&u->own);

	if (good && !full)
		u->own_from_us = u->own.now_us - (int64_t)EXPIRE_OVERLAP_S * 1000000;
	if (!u->relay->draining)
		loop_timer_set(&u->own_timer, full ? 0 : EXPIRE_OWN_EVERY_MS);
}

static void
expire_own(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->own = (struct queue_expire){ .now_us = clock_wall_us(),
		                        .from_us = u->own_from_us,
		                        .limit = EXPIRE_AT_ONCE };
	relay_later(&u->own_later, u->relay, &u->own.job, on_own_expired, u);
	store_queue_expire_own(u->relay->store, &u->own);
}

static void
on_limit_expired(void *arg)
{
	struct relay_upkeep *u = arg;
	bool full = tell_expired(&u->limit);

	if (!u->relay->draining)
		loop_timer_set(&u->limit_timer, full ? 0 : EXPIRE_LIMIT_EVERY_MS);
}

static void
expire_limit(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->limit = (struct queue_expire){ .now_us = clock_wall_us(),
		                          .limit_s = u->relay->config->relay.expire_after_s,
		                          .limit = EXPIRE_AT_ONCE };
	relay_later(&u->limit_later, u->relay, &u->limit.job, on_limit_expired, u);
	store_queue_expire_limit(u->relay->store, &u->limit);
}

static void
on_refused_expired(void *arg)
{
	struct relay_upkeep *u = arg;
	bool full = tell_expired(&u->refused);

	if (!u->relay->draining)
		loop_timer_set(&u->refused_timer, full ? 0 : REFUSED_EVERY_MS);
}

static void
expire_refused(struct loop_timer *timer)
{
	struct relay_upkeep *u = timer->arg;

	u->refused = (struct queue_expire){ .now_us = clock_wall_us(),
		                            .limit_s = REFUSED_S,
		                            .limit = EXPIRE_AT_ONCE };
	relay_later(&u->refused_later, u->relay, &u->refused.job, on_refused_expired, u);
	store_queue_expire_refused(u->relay->store, &u->refused);
}

/* --- Life -------------------------------------------------------------------------- */

struct relay_upkeep *
relay_upkeep_new(struct relay *relay)
{
	struct relay_upkeep *u = calloc(1, sizeof(*u));

	if (u == NULL)
		return NULL;
	u->relay = relay;
	loop_timer_init(&u->partitions_timer, relay->loop, make_partitions, u);
	loop_timer_init(&u->chunks_timer, relay->loop, cut_chunks, u);
	loop_timer_init(&u->secrets_timer, relay->loop, forget_secrets, u);
	loop_timer_set(&u->partitions_timer, 0);
	loop_timer_init(&u->reap_timer, relay->loop, reap, u);
	loop_timer_init(&u->own_timer, relay->loop, expire_own, u);
	loop_timer_init(&u->limit_timer, relay->loop, expire_limit, u);
	loop_timer_init(&u->refused_timer, relay->loop, expire_refused, u);
	loop_timer_set(&u->refused_timer, REFUSED_EVERY_MS);
	loop_timer_init(&u->clock_timer, relay->loop, look_at_clock, u);
	u->clock_set_back = -1;
	loop_timer_set(&u->clock_timer, 0);
	/* What expired while nobody looked: all that can still wait. */
	u->own_from_us = clock_wall_us() - (int64_t)DMTP_PAST_S * 1000000;
	loop_timer_set(&u->chunks_timer, 0);
	loop_timer_set(&u->secrets_timer, 0);
	loop_timer_set(&u->reap_timer, 0);
	loop_timer_set(&u->own_timer, EXPIRE_OWN_EVERY_MS);
	loop_timer_set(&u->limit_timer, EXPIRE_OWN_EVERY_MS);
	return u;
}

void
relay_upkeep_free(struct relay_upkeep **upkeep)
{
	if (*upkeep == NULL)
		return;
	loop_timer_cancel(&(*upkeep)->partitions_timer);
	loop_timer_cancel(&(*upkeep)->chunks_timer);
	loop_timer_cancel(&(*upkeep)->secrets_timer);
	loop_timer_cancel(&(*upkeep)->reap_timer);
	loop_timer_cancel(&(*upkeep)->own_timer);
	loop_timer_cancel(&(*upkeep)->limit_timer);
	loop_timer_cancel(&(*upkeep)->refused_timer);
	loop_timer_cancel(&(*upkeep)->clock_timer);
	free(*upkeep);
	*upkeep = NULL;
}
