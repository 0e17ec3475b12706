/* The plan: see plan.h. */
#include "relay/plan.h"

#include "base/clock.h"
#include "base/log.h"
#include "relay/delivery.h"
#include "relay/signing.h"
#include "store/pushes.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_EVERY_MS 250 /* the net under the wake-ups */
#define LEASE_S 120
#define UNDER_WAY_MAX 512 /* deliveries of one pair: what one commit of answers may carry */
#define UNDER_WAY_LOW 256
#define PAIRS_PAGE 1000

struct plan {
	struct relay *relay;
	struct pair *pairs;
	struct loop_timer look;
	struct queue_pairs query;
	struct relay_later later;
	bool looking, again;
};

static void claim(struct pair *pair);

/* Messages older than the longest life are nobody's work any more. */
static struct uuid
oldest(const struct relay *relay)
{
	return uuid_floor(clock_wall_us() -
	                  ((int64_t)relay->config->relay.expire_after_s + 86400) * 1000000);
}

/* --- Pairs ----------------------------------------------------------------------- */

static void
on_named(void *arg)
{
	struct pair *pair = arg;

	pair->loading = false;
	/* A suspended site's too: what was accepted before is still delivered. */
	if (pair->names.job.rc != STORE_OK) {
		HASH_DEL(pair->relay->plan->pairs,
		         pair); /* asked again when it is found again */
		free(pair);
		return;
	}
	pair->peer = peer_get(pair->relay, pair->key.domain_id, pair->names.domain);
	(void)snprintf(pair->from, sizeof(pair->from), "%s@%s", pair->names.site_name,
	               pair->names.site_domain);
	pair->named = pair->peer != NULL;
	if (pair->named)
		claim(pair);
}

static struct pair *
pair_get(struct plan *plan, const struct queue_pair *key)
{
	struct pair *pair;

	HASH_FIND(hh, plan->pairs, key, sizeof(*key), pair);
	if (pair != NULL)
		return pair;
	pair = calloc(1, sizeof(*pair));
	if (pair == NULL)
		return NULL;
	pair->relay = plan->relay;
	pair->key = *key;
	HASH_ADD(hh, plan->pairs, key, sizeof(pair->key), pair);
	return pair;
}

static void
work_found(struct pair *pair)
{
	pair->dry = false;
	if (pair->named) {
		claim(pair);
	} else if (!pair->loading) {
		pair->loading = true;
		pair->names.pair = pair->key;
		relay_later(&pair->later, pair->relay, &pair->names.job, on_named, pair);
		store_queue_names(pair->relay->store, &pair->names);
	}
}

/* --- Claiming -------------------------------------------------------------------- */

static void
on_claimed(void *arg)
{
	struct pair *pair = arg;
	struct queue_batch *batch = pair->claim.batches;

	pair->claiming = false;
	pair->claim.batches = NULL;
	pair->dry = pair->claim.job.rc != STORE_OK || pair->claim.batches_n < pair->claim.want;
	while (batch != NULL) {
		struct queue_batch *next = batch->next;

		batch->next = NULL;
		pair->under_way++;
		delivery_begin(pair, batch);
		batch = next;
	}
	claim(pair);
}

/* On the store's thread: the loop has enough to do. */
static void
sign_claimed(void *arg)
{
	struct pair *pair = arg;
	struct slice domain = slice_str(pair->names.site_domain);

	for (struct queue_batch *b = pair->claim.batches; b != NULL; b = b->next)
		signing_sign(pair->relay->signing, domain, b);
}

static void
claim(struct pair *pair)
{
	struct relay *relay = pair->relay;
	bool probing = peer_is_probing(pair->peer);
	unsigned max = probing ? 1 : UNDER_WAY_MAX;
	int64_t now = clock_wall_us();

	if (pair->claiming || pair->dry || relay->draining || !peer_is_open(pair->peer) ||
	    !signing_is_ready(relay->signing))
		return;
	if (pair->under_way >= (probing ? 1 : UNDER_WAY_LOW))
		return;
	pair->claiming = true;
	pair->claim = (struct queue_claim){
		.pair = pair->key,
		.owner = relay->owner,
		.oldest = oldest(relay),
		.now_us = now,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.want = max - pair->under_way,
	};
	relay_later(&pair->later, relay, &pair->claim.job, on_claimed, pair);
	pair->later.on_store = sign_claimed;
	store_queue_claim(relay->store, &pair->claim);
}

void
plan_delivered(struct pair *pair)
{
	pair->under_way--;
	claim(pair);
}

void
plan_peer_opened(struct plan *plan, struct peer *peer)
{
	(void)peer;
	plan_wake(plan);
}

/* --- Looking --------------------------------------------------------------------- */

static void
on_looked(void *arg)
{
	struct plan *plan = arg;
	size_t n = plan->query.rows_n;
	bool more = plan->query.job.rc == STORE_OK && n == PAIRS_PAGE;

	plan->looking = false;
	for (size_t i = 0; i < n; i++) {
		struct pair *pair = pair_get(plan, &plan->query.rows[i]);

		if (pair != NULL)
			work_found(pair);
	}
	plan->query.after = more ? plan->query.rows[n - 1] : (struct queue_pair){ 0, 0 };
	queue_pairs_clear(&plan->query);
	loop_timer_set(&plan->look, more || plan->again ? 0 : LOOK_EVERY_MS);
	plan->again = false;
}

static void
on_look(struct loop_timer *timer)
{
	struct plan *plan = timer->arg;
	struct relay *relay = plan->relay;

	if (plan->looking || relay->draining)
		return;
	plan->looking = true;
	plan->query = (struct queue_pairs){ .after = plan->query.after,
		                            .oldest = oldest(relay),
		                            .limit = PAIRS_PAGE };
	relay_later(&plan->later, relay, &plan->query.job, on_looked, plan);
	store_queue_pairs(relay->store, &plan->query);
}

void
plan_wake(struct plan *plan)
{
	if (plan->looking)
		plan->again = true;
	else if (!plan->relay->draining)
		loop_timer_set(&plan->look, 0);
}

struct plan *
plan_new(struct relay *relay)
{
	struct plan *plan = calloc(1, sizeof(*plan));

	if (plan == NULL)
		return NULL;
	plan->relay = relay;
	loop_timer_init(&plan->look, relay->loop, on_look, plan);
	loop_timer_set(&plan->look, 0);
	return plan;
}

void
plan_free(struct plan **plan)
{
	struct pair *pair, *next;

	if (*plan == NULL)
		return;
	loop_timer_cancel(&(*plan)->look);
	HASH_ITER(hh, (*plan)->pairs, pair, next)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): those before were taken out */
		HASH_DEL((*plan)->pairs, pair);
		free(pair);
	}
	free(*plan);
	*plan = NULL;
}
