/* Our domains' keys: see signing.h. */
#include "relay/signing.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memo.h"
#include "base/metric.h"
#include "dmtp/message.h"
#include "relay/plan.h"
#include "store/domain_keys.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>

#define KEPT_MAX 16384 /* signatures */
#define KEPT_MS 600000
#define AGAIN_MS 500
/* Home servers keep a card for five minutes, caches before it as long. */
#define PUBLISHED_S 600

METRIC_DEFINE(signatures, METRIC_COUNTER, "tmtp_relay_signatures_total", NULL,
              "Messages that were signed.");

struct ring_key {
	char domain[254], id[DOMAIN_KEY_ID];
	int64_t created_s, from_s, until_s;
	uint8_t secret[crypto_sign_SECRETKEYBYTES];
};

/* One generation of the keys; whoever uses them holds a reference. */
struct ring {
	_Atomic unsigned refs;
	size_t n;
	struct ring_key keys[]; /* of a domain the newest first */
};

struct kept {
	struct memo_item item;
	char key_id[DOMAIN_KEY_ID];
	uint8_t signature[DMTP_SIGNATURE_LEN];
};

struct signing {
	struct relay *relay;
	pthread_mutex_t lock; /* of ring, the pointer */
	struct ring *ring;    /* NULL: not loaded yet */
	struct memo *memo;    /* message id -> struct kept */
	struct loop_timer again;
	struct domain_key_secrets load;
	struct relay_later later;
	bool loading, stale, ready;
};

/* --- The ring --------------------------------------------------------------------- */

static void
ring_unref(struct ring *ring)
{
	if (ring == NULL || atomic_fetch_sub(&ring->refs, 1) > 1)
		return;
	sodium_memzero(ring->keys, ring->n * sizeof(ring->keys[0]));
	free(ring);
}

static struct ring *
ring_take(struct signing *s)
{
	struct ring *ring;

	(void)pthread_mutex_lock(&s->lock);
	ring = s->ring;
	if (ring != NULL)
		atomic_fetch_add(&ring->refs, 1);
	(void)pthread_mutex_unlock(&s->lock);
	return ring;
}

static void
ring_replace(struct signing *s, struct ring *made)
{
	struct ring *old;

	(void)pthread_mutex_lock(&s->lock);
	old = s->ring;
	s->ring = made;
	(void)pthread_mutex_unlock(&s->lock);
	ring_unref(old);
	memo_clear(s->memo); /* what a revoked key signed is signed anew */
}

static struct ring *
ring_make(const struct domain_key *rows, size_t n)
{
	struct ring *ring = calloc(1, sizeof(*ring) + n * sizeof(ring->keys[0]));

	if (ring == NULL)
		return NULL;
	atomic_init(&ring->refs, 1);
	for (size_t i = 0; i < n; i++) {
		struct ring_key *k = &ring->keys[ring->n++];
		uint8_t public_key[crypto_sign_PUBLICKEYBYTES];

		(void)snprintf(k->domain, sizeof(k->domain), "%s", rows[i].domain);
		(void)snprintf(k->id, sizeof(k->id), "%s", rows[i].id);
		k->created_s = rows[i].created_us / 1000000;
		k->from_s = rows[i].from_us / 1000000;
		k->until_s = rows[i].until_us / 1000000;
		(void)crypto_sign_seed_keypair(public_key, k->secret, rows[i].seed);
		if (memcmp(public_key, rows[i].public_key, sizeof(public_key)) != 0) {
			log_error("domain-key-broken", LOG_S("domain", k->domain),
			          LOG_S("key", k->id),
			          LOG_S("reason", "its private part is of another key"));
			ring->n--;
		}
	}
	return ring;
}

static const struct ring_key *
ring_choose(const struct ring *ring, struct slice domain, int64_t at_s, int64_t now_s)
{
	const struct ring_key *newest = NULL;

	for (size_t i = 0; i < ring->n; i++) {
		const struct ring_key *k = &ring->keys[i];

		if (!slice_eq_str(domain, k->domain) || at_s < k->from_s || at_s >= k->until_s)
			continue;
		if (k->created_s + PUBLISHED_S <= now_s)
			return k;
		if (newest == NULL)
			newest = k;
	}
	return newest;
}

/* --- Loading ------------------------------------------------------------------------ */

static void
warn_of_missing(struct signing *s)
{
	const struct config *config = s->relay->config;
	int64_t now_s = clock_wall_s();

	for (size_t i = 0; i < config->domains_count; i++) {
		const struct config_domain *d = &config->domains[i];

		if (d->signed_only &&
		    ring_choose(s->ring, slice_str(d->name), now_s, now_s) == NULL)
			log_warn("signing-impossible", LOG_S("domain", d->name),
			         LOG_S("reason", "it has no key: tmtpctl domain-key make"));
	}
}

static void
on_loaded(void *arg)
{
	struct signing *s = arg;
	struct ring *ring =
	    s->load.job.rc == STORE_OK ? ring_make(s->load.rows, s->load.rows_n) : NULL;

	s->loading = false;
	domain_key_secrets_clear(&s->load);
	if (ring == NULL || s->stale) {
		ring_unref(ring);
		loop_timer_set(&s->again, s->stale ? 0 : AGAIN_MS);
		return;
	}
	ring_replace(s, ring);
	warn_of_missing(s);
	if (s->ready)
		return;
	s->ready = true;
	plan_wake(s->relay->plan);
}

static void
on_again(struct loop_timer *timer)
{
	signing_load(timer->arg);
}

void
signing_load(struct signing *s)
{
	s->stale = s->loading;
	if (s->loading || s->relay->draining)
		return;
	s->loading = true;
	s->load = (struct domain_key_secrets){ .rows = NULL };
	relay_later(&s->later, s->relay, &s->load.job, on_loaded, s);
	store_domain_key_secrets(s->relay->store, &s->load);
}

bool
signing_is_ready(const struct signing *s)
{
	return s->ready;
}

/* --- Signing ------------------------------------------------------------------------- */

static void
kept_free(struct memo_item *item)
{
	free(item);
}

static void
keep(struct signing *s, const struct queue_batch *b, struct slice name, uint64_t generation)
{
	struct kept *kept = malloc(sizeof(*kept));

	if (kept == NULL)
		return;
	memo_item_init(&kept->item, kept_free);
	memcpy(kept->key_id, b->key_id, sizeof(kept->key_id));
	memcpy(kept->signature, b->signature, sizeof(kept->signature));
	memo_put(s->memo, name, &kept->item, 1, clock_mono_ms() + KEPT_MS, generation);
	memo_item_unref(&kept->item);
}

void
signing_sign(struct signing *s, struct slice domain, struct queue_batch *b)
{
	struct slice name = slice_mem(b->message_id.octets, sizeof(b->message_id.octets));
	struct ring *ring = ring_take(s);
	const struct ring_key *key;
	uint64_t generation;
	struct kept *kept;

	key = ring == NULL ? NULL : ring_choose(ring, domain, b->date_s, clock_wall_s());
	if (key == NULL) {
		ring_unref(ring);
		return;
	}
	kept = (struct kept *)memo_get(s->memo, name, clock_mono_ms(), &generation);
	if (kept != NULL) {
		memcpy(b->key_id, kept->key_id, sizeof(b->key_id));
		memcpy(b->signature, kept->signature, sizeof(b->signature));
		memo_item_unref(&kept->item);
	} else {
		memcpy(b->key_id, key->id, sizeof(b->key_id));
		dmtp_message_sign(b->digest, key->secret, b->signature);
		metric_add(&signatures, 1);
		keep(s, b, name, generation);
	}
	ring_unref(ring);
}

bool
signing_can_prove(struct signing *s, struct slice domain)
{
	int64_t now_s = clock_wall_s();
	struct ring *ring = ring_take(s);
	bool can = ring != NULL && ring_choose(ring, domain, now_s, now_s) != NULL;

	ring_unref(ring);
	return can;
}

bool
signing_prove(struct signing *s, struct slice domain, struct slice server,
              const uint8_t exporter[static 32], struct signing_proof *out)
{
	int64_t now_s = clock_wall_s();
	struct ring *ring = ring_take(s);
	const struct ring_key *key =
	    ring == NULL ? NULL : ring_choose(ring, domain, now_s, now_s);
	bool good = key != NULL &&
	            dmtp_auth_sign(exporter, domain, server, key->secret, out->signature);

	if (good)
		memcpy(out->key_id, key->id, sizeof(out->key_id));
	ring_unref(ring);
	return good;
}

/* --- Life ------------------------------------------------------------------------------ */

struct signing *
signing_new(struct relay *relay)
{
	struct signing *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->relay = relay;
	(void)pthread_mutex_init(&s->lock, NULL);
	loop_timer_init(&s->again, relay->loop, on_again, s);
	s->memo = memo_make(KEPT_MAX);
	if (s->memo == NULL)
		signing_free(&s);
	return s;
}

void
signing_free(struct signing **signing)
{
	struct signing *s = *signing;

	if (s == NULL)
		return;
	*signing = NULL;
	loop_timer_cancel(&s->again);
	domain_key_secrets_clear(&s->load);
	ring_unref(s->ring);
	memo_free(&s->memo);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}
