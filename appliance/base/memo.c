/*
 * The map: see memo.h. Each part is a chained hash with its own lock and a
 * list by age. Items are released outside of the lock: theirs may be long.
 */
#include "base/memo.h"

#include <pthread.h>
#include <stdlib.h>

#define PARTS 16
#define BUCKETS 1024 /* of a part */

struct entry {
	struct entry *chain;         /* of its bucket */
	struct entry *older, *newer; /* by age */
	struct memo_item *item;
	size_t weight;
	int64_t until_ms;
	uint32_t hash;
	uint32_t key_len;
	uint8_t key[];
};

struct part {
	pthread_mutex_t lock;
	struct entry *buckets[BUCKETS];
	struct entry *oldest, *newest;
	size_t weight;
};

struct memo {
	size_t part_max;
	_Atomic uint64_t generation;
	struct part parts[PARTS];
};

void
memo_item_unref(struct memo_item *item)
{
	if (item != NULL &&
	    atomic_fetch_sub_explicit(&item->refs, 1, memory_order_acq_rel) == 1)
		item->free(item);
}

/* FNV-1a with a last stir: keys are short, and those who choose them hold a token. */
static uint32_t
hash_of(struct slice key)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < key.len; i++)
		h = (h ^ key.data[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

static struct part *
part_of(struct memo *memo, uint32_t hash)
{
	return &memo->parts[hash >> 28 & (PARTS - 1)];
}

static struct entry **
entry_find(struct part *part, struct slice key, uint32_t hash)
{
	struct entry **at = &part->buckets[hash & (BUCKETS - 1)];

	while (*at != NULL &&
	       ((*at)->hash != hash || !slice_eq(slice_mem((*at)->key, (*at)->key_len), key)))
		at = &(*at)->chain;
	return at;
}

/* Out of chain and list, onto the list of those to be freed. */
static void
entry_take(struct part *part, struct entry **at, struct entry **gone)
{
	struct entry *e = *at;

	*at = e->chain;
	*(e->older != NULL ? &e->older->newer : &part->oldest) = e->newer;
	*(e->newer != NULL ? &e->newer->older : &part->newest) = e->older;
	part->weight -= e->weight;
	e->chain = *gone;
	*gone = e;
}

static void
entry_take_oldest(struct part *part, struct entry **gone)
{
	struct entry *e = part->oldest;

	entry_take(part, entry_find(part, slice_mem(e->key, e->key_len), e->hash), gone);
}

static void
entry_add(struct part *part, struct entry *e)
{
	struct entry **bucket = &part->buckets[e->hash & (BUCKETS - 1)];

	e->chain = *bucket;
	*bucket = e;
	e->newer = NULL;
	e->older = part->newest;
	*(part->newest != NULL ? &part->newest->newer : &part->oldest) = e;
	part->newest = e;
	part->weight += e->weight;
}

static void
entries_free(struct entry *gone)
{
	while (gone != NULL) {
		struct entry *e = gone;

		gone = e->chain;
		memo_item_unref(e->item);
		free(e);
	}
}

struct memo *
memo_make(size_t weight_max)
{
	struct memo *memo = calloc(1, sizeof(*memo));

	if (memo == NULL)
		return NULL;
	memo->part_max = weight_max / PARTS > 0 ? weight_max / PARTS : 1;
	atomic_init(&memo->generation, 1);
	for (unsigned i = 0; i < PARTS; i++)
		(void)pthread_mutex_init(&memo->parts[i].lock, NULL);
	return memo;
}

void
memo_free(struct memo **memo)
{
	if (*memo == NULL)
		return;
	memo_clear(*memo);
	for (unsigned i = 0; i < PARTS; i++)
		(void)pthread_mutex_destroy(&(*memo)->parts[i].lock);
	free(*memo);
	*memo = NULL;
}

uint64_t
memo_generation(const struct memo *memo)
{
	return atomic_load(&memo->generation);
}

struct memo_item *
memo_get(struct memo *memo, struct slice key, int64_t now_ms, uint64_t *generation)
{
	uint32_t hash = hash_of(key);
	struct part *part = part_of(memo, hash);
	struct memo_item *item = NULL;
	struct entry *gone = NULL, **at;

	if (generation != NULL)
		*generation = memo_generation(memo);
	pthread_mutex_lock(&part->lock);
	at = entry_find(part, key, hash);
	if (*at != NULL && now_ms >= (*at)->until_ms)
		entry_take(part, at, &gone);
	else if (*at != NULL)
		memo_item_ref(item = (*at)->item);
	pthread_mutex_unlock(&part->lock);
	entries_free(gone);
	return item;
}

void
memo_put(struct memo *memo, struct slice key, struct memo_item *item, size_t weight,
         int64_t until_ms, uint64_t generation)
{
	uint32_t hash = hash_of(key);
	struct part *part = part_of(memo, hash);
	struct entry *gone = NULL, **at, *e;

	if (weight > memo->part_max || key.len > MEMO_KEY_MAX)
		return;
	e = malloc(sizeof(*e) + key.len);
	if (e == NULL)
		return;
	*e = (struct entry){ .item = item,
		             .weight = weight,
		             .until_ms = until_ms,
		             .hash = hash,
		             .key_len = (uint32_t)key.len };
	if (key.len > 0)
		memcpy(e->key, key.data, key.len);
	memo_item_ref(item);
	pthread_mutex_lock(&part->lock);
	at = entry_find(part, key, hash);
	if (*at != NULL)
		entry_take(part, at, &gone);
	if (memo_generation(memo) == generation) {
		while (part->oldest != NULL && part->weight + weight > memo->part_max)
			entry_take_oldest(part, &gone);
		entry_add(part, e);
	} else {
		e->chain = gone;
		gone = e;
	}
	pthread_mutex_unlock(&part->lock);
	entries_free(gone);
}

void
memo_drop(struct memo *memo, struct slice key)
{
	uint32_t hash = hash_of(key);
	struct part *part = part_of(memo, hash);
	struct entry *gone = NULL, **at;

	pthread_mutex_lock(&part->lock);
	at = entry_find(part, key, hash);
	if (*at != NULL)
		entry_take(part, at, &gone);
	pthread_mutex_unlock(&part->lock);
	entries_free(gone);
}

/* The generation first: a put that saw the old one either comes before its part is emptied, or not at all. */
void
memo_clear(struct memo *memo)
{
	atomic_fetch_add(&memo->generation, 1);
	for (unsigned i = 0; i < PARTS; i++) {
		struct part *part = &memo->parts[i];
		struct entry *gone = NULL;

		pthread_mutex_lock(&part->lock);
		while (part->oldest != NULL)
			entry_take_oldest(part, &gone);
		pthread_mutex_unlock(&part->lock);
		entries_free(gone);
	}
}
