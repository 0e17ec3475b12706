/* Upkeep by the relay: see upkeep.h. */
#include "relay/upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/domain_keys.h"
#include "store/upkeep.h"

#include <stdlib.h>

#define PARTITIONS_EVERY_MS ((int64_t)3600 * 1000)
#define CHUNKS_EVERY_MS 1000
#define SECRETS_EVERY_MS ((int64_t)3600 * 1000)
#define CHUNKS_AT_ONCE 50
#define CHUNK_TARGET 800
#define CHUNK_MAX 1000

struct relay_upkeep {
	struct relay *relay;
	struct loop_timer partitions_timer, chunks_timer, secrets_timer;
	struct upkeep_partitions partitions;
	struct upkeep_chunks chunks;
	struct domain_key_forget secrets;
	struct relay_later partitions_later, chunks_later, secrets_later;
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
	loop_timer_set(&u->chunks_timer, 0);
	loop_timer_set(&u->secrets_timer, 0);
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
	free(*upkeep);
	*upkeep = NULL;
}
