/* The plan: see plan.h. */
#include "relay/plan.h"

#include "base/clock.h"
#include "base/log.h"
#include "dmtp/limits.h"
#include "relay/delivery.h"
#include "relay/signing.h"
#include "store/pushes.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_EVERY_MS 250 /* the net under the wake-ups */
#define LEASE_S 120
#define UNDER_WAY_MAX 512 /* deliveries of one pair: what one commit of answers may carry */
#define UNDER_WAY_LOW 256
#define PAIRS_PAGE 1000
/*
 * Memory stays flat however many pairs there are: names of so many that rest
 * are kept, so many are worked for at a time (the others are found again when
 * they end), and beyond so many deliveries each has one.
 */
#define PAIRS_RESTING 4096
#define PAIRS_ALL 16384
#define DELIVERIES_ALL 32768
#define CATCHUP_WITHIN_S 86400 /* a pair's first question, as its jitter will have it */

TAILQ_HEAD(pair_list, pair);

struct plan {
	struct relay *relay;
	struct pair *pairs;
	struct pair_list resting; /* who rests longest first */
	unsigned resting_n;
	struct loop_timer look;
	struct queue_pairs query;
	struct relay_later later;
	bool looking, again;
};

static void claim(struct pair *pair);

/* Nobody takes what is older than a POST may be; and a day for what clocks may differ. */
static struct uuid
oldest(void)
{
	return uuid_floor(clock_wall_us() - (int64_t)(DMTP_PAST_S + 86400) * 1000000);
}

/* --- Pairs ----------------------------------------------------------------------- */

static void
pair_wake(struct pair *pair)
{
	struct plan *plan = pair->relay->plan;

	if (!pair->resting)
		return;
	TAILQ_REMOVE(&plan->resting, pair, rest);
	plan->resting_n--;
	pair->resting = false;
}

static void
pair_free(struct pair *pair)
{
	pair_wake(pair);
	HASH_DEL(pair->relay->plan->pairs, pair);
	peer_unref(&pair->peer);
	free(pair);
}

/* Nothing is under way for it: it may be forgotten, and is found again. */
static void
pair_rest(struct pair *pair)
{
	struct plan *plan = pair->relay->plan;

	if (pair->resting || pair->loading || pair->claiming || pair->under_way > 0)
		return;
	pair->resting = true;
	TAILQ_INSERT_TAIL(&plan->resting, pair, rest);
	if (++plan->resting_n > PAIRS_RESTING)
		pair_free(TAILQ_FIRST(&plan->resting));
}

static void
on_noted(void *arg)
{
	struct pair *pair = arg;

	pair->loading = false;
	claim(pair);
	pair_rest(pair);
}

/* Who is sent to may have said something that got lost: it is asked from now on, too. */
static void
note(struct pair *pair)
{
	int64_t now = clock_wall_us();

	pair->note = (struct catchup_note){
		.site_id = pair->key.site_id,
		.domain_id = pair->key.domain_id,
		.next_us = now + (int64_t)randombytes_uniform(CATCHUP_WITHIN_S) * 1000000,
	};
	relay_later(&pair->later, pair->relay, &pair->note.job, on_noted, pair);
	store_catchup_note(pair->relay->store, &pair->note);
}

static void
on_named(void *arg)
{
	struct pair *pair = arg;
	struct peer *peer = NULL;

	/* A suspended site's too: what was accepted before is still delivered. */
	if (pair->names.job.rc == STORE_OK)
		peer = peer_get(pair->relay, pair->key.domain_id, pair->names.domain);
	if (peer == NULL) { /* asked again when it is found again */
		pair->loading = false;
		pair_free(pair);
		return;
	}
	pair->peer = peer_ref(peer);
	(void)snprintf(pair->from, sizeof(pair->from), "%s@%s", pair->names.site_name,
	               pair->names.site_domain);
	pair->named = true;
	note(pair);
}

static struct pair *
pair_get(struct plan *plan, const struct queue_pair *key)
{
	struct pair *pair;

	HASH_FIND(hh, plan->pairs, key, sizeof(*key), pair);
	if (pair != NULL || HASH_COUNT(plan->pairs) >= PAIRS_ALL + plan->resting_n)
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
	if (pair->loading)
		return;
	pair_wake(pair);
	if (pair->named) {
		claim(pair);
		pair_rest(pair);
	} else {
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

	pair->claim.batches = NULL;
	pair->relay->deliveries += (unsigned)pair->claim.batches_n;
	pair->dry = pair->claim.job.rc != STORE_OK || pair->claim.batches_n < pair->claim.want;
	while (batch != NULL) {
		struct queue_batch *next = batch->next;

		batch->next = NULL;
		pair->under_way++;
		peer_busy(pair->peer);
		delivery_begin(pair, batch);
		batch = next;
	}
	pair->claiming = false;
	peer_idle(pair->peer);
	claim(pair);
	pair_rest(pair);
}

/* How many more may be under way. */
static unsigned
wanted(const struct pair *pair)
{
	unsigned all = pair->relay->deliveries, room;

	if (peer_is_probing(pair->peer))
		return pair->under_way == 0 ? 1 : 0;
	if (pair->under_way >= UNDER_WAY_LOW)
		return 0;
	room = all < DELIVERIES_ALL ? DELIVERIES_ALL - all : pair->under_way == 0 ? 1 : 0;
	return room < UNDER_WAY_MAX - pair->under_way ? room : UNDER_WAY_MAX - pair->under_way;
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
	unsigned want;
	int64_t now = clock_wall_us();

	if (pair->claiming || pair->loading || pair->dry || relay->draining ||
	    !signing_is_ready(relay->signing) || !peer_has_room(pair->peer) ||
	    (want = wanted(pair)) == 0)
		return;
	pair->claiming = true;
	pair_wake(pair);
	peer_busy(pair->peer);
	pair->claim = (struct queue_claim){
		.pair = pair->key,
		.owner = relay->owner,
		.oldest = oldest(),
		.now_us = now,
		.lease_until_us = now + (int64_t)LEASE_S * 1000000,
		.want = want,
	};
	relay_later(&pair->later, relay, &pair->claim.job, on_claimed, pair);
	pair->later.on_store = sign_claimed;
	store_queue_claim(relay->store, &pair->claim);
}

void
plan_delivered(struct pair *pair)
{
	pair->under_way--;
	pair->relay->deliveries--;
	peer_idle(pair->peer);
	claim(pair);
	pair_rest(pair);
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

	if (plan->looking || relay->draining || !relay->begun)
		return;
	plan->looking = true;
	plan->query = (struct queue_pairs){ .after = plan->query.after,
		                            .oldest = oldest(),
		                            .now_us = clock_wall_us(),
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
	TAILQ_INIT(&plan->resting);
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
		peer_unref(&pair->peer);
		free(pair);
	}
	free(*plan);
	*plan = NULL;
}
