/*
 * Token buckets: see guard.h. A bucket is kept as the time at which it would be
 * full again, under a keyed hash of its name: names are chosen by strangers.
 */
#include "home/guard.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>

#define WAYS 8
#define NAME_MAX_LEN 400

struct bucket {
	uint64_t name; /* its hash; 0: free */
	int64_t full_us;
};

struct guard {
	pthread_mutex_t lock;
	uint8_t key[crypto_shorthash_KEYBYTES];
	size_t sets; /* a power of two */
	struct bucket buckets[];
};

struct guard *
guard_make(size_t buckets)
{
	size_t sets = 1;
	struct guard *guard;

	while (sets * WAYS < buckets)
		sets *= 2;
	guard = calloc(1, sizeof(*guard) + sets * WAYS * sizeof(guard->buckets[0]));
	if (guard == NULL)
		return NULL;
	(void)pthread_mutex_init(&guard->lock, NULL);
	randombytes_buf(guard->key, sizeof(guard->key));
	guard->sets = sets;
	return guard;
}

void
guard_free(struct guard **guard)
{
	if (*guard == NULL)
		return;
	(void)pthread_mutex_destroy(&(*guard)->lock);
	free(*guard);
	*guard = NULL;
}

static uint64_t
hash_of(const struct guard *guard, const struct guard_rule *rule, struct slice name)
{
	uint8_t text[1 + NAME_MAX_LEN], out[crypto_shorthash_BYTES];
	size_t len = name.len < NAME_MAX_LEN ? name.len : NAME_MAX_LEN;
	uint64_t hash;

	text[0] = (uint8_t)rule->kind;
	if (len > 0)
		memcpy(text + 1, name.data, len);
	(void)crypto_shorthash(out, text, 1 + len, guard->key);
	memcpy(&hash, out, sizeof(hash));
	return hash == 0 ? 1 : hash;
}

/* The name's bucket, in place of the one nearest to full when there is none. Under the lock. */
static struct bucket *
bucket_of(struct guard *guard, uint64_t name)
{
	struct bucket *set = &guard->buckets[(name & (guard->sets - 1)) * WAYS], *least = set;

	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].name == name)
			return &set[i];
		if (set[i].full_us < least->full_us)
			least = &set[i];
	}
	*least = (struct bucket){ .name = name };
	return least;
}

bool
guard_take(struct guard *guard, const struct guard_rule *rule, struct slice name,
           int64_t now_us, unsigned *wait_s)
{
	uint64_t hash = hash_of(guard, rule, name);
	int64_t full, late;
	struct bucket *b;

	pthread_mutex_lock(&guard->lock);
	b = bucket_of(guard, hash);
	full = (b->full_us > now_us ? b->full_us : now_us) + rule->every_us;
	late = full - now_us - (int64_t)rule->burst * rule->every_us;
	if (late <= 0)
		b->full_us = full;
	pthread_mutex_unlock(&guard->lock);
	if (late > 0)
		*wait_s = (unsigned)((late + 999999) / 1000000);
	return late <= 0;
}

bool
guard_spend(struct guard *guard, const struct guard_rule *rule, struct slice name, size_t n,
            int64_t now_us, unsigned *wait_s)
{
	uint64_t hash = hash_of(guard, rule, name);
	int64_t holds = (int64_t)rule->burst * rule->every_us, debt;
	struct bucket *b;
	bool good;

	pthread_mutex_lock(&guard->lock);
	b = bucket_of(guard, hash);
	if (b->full_us < now_us)
		b->full_us = now_us;
	good = b->full_us - now_us < holds;
	if (good)
		b->full_us += (int64_t)n * rule->every_us;
	debt = b->full_us - now_us - holds;
	pthread_mutex_unlock(&guard->lock);
	*wait_s = debt < 0 ? 0 : (unsigned)(debt / 1000000 + 1);
	return good;
}

void
guard_charge(struct guard *guard, const struct guard_rule *rule, struct slice name,
             int64_t now_us)
{
	uint64_t hash = hash_of(guard, rule, name);
	struct bucket *b;

	pthread_mutex_lock(&guard->lock);
	b = bucket_of(guard, hash);
	b->full_us = (b->full_us > now_us ? b->full_us : now_us) + rule->every_us;
	pthread_mutex_unlock(&guard->lock);
}

bool
guard_is_empty(struct guard *guard, const struct guard_rule *rule, struct slice name,
               int64_t now_us)
{
	uint64_t hash = hash_of(guard, rule, name);
	const struct bucket *set = &guard->buckets[(hash & (guard->sets - 1)) * WAYS];
	bool empty = false;

	pthread_mutex_lock(&guard->lock);
	for (size_t i = 0; i < WAYS; i++)
		if (set[i].name == hash)
			empty = set[i].full_us - now_us >
			        ((int64_t)rule->burst - 1) * rule->every_us;
	pthread_mutex_unlock(&guard->lock);
	return empty;
}

void
guard_give(struct guard *guard, const struct guard_rule *rule, struct slice name,
           int64_t now_us)
{
	uint64_t hash = hash_of(guard, rule, name);
	struct bucket *b;

	pthread_mutex_lock(&guard->lock);
	b = bucket_of(guard, hash);
	if (b->full_us > now_us)
		b->full_us -= rule->every_us;
	pthread_mutex_unlock(&guard->lock);
}
