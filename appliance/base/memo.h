/*
 * What a role keeps in memory of what the store said: a bounded map from a
 * few octets to shared objects, cut into parts so that threads rarely meet.
 * The oldest go first when it is full. Clearing also keeps out what was asked
 * for before and answered after: whoever looks up gets the generation, and
 * puts with it.
 */
#ifndef TMTP_BASE_MEMO_H
#define TMTP_BASE_MEMO_H

#include "base/slice.h"

#include <stdatomic.h>

/* Longest key, in octets. */
#define MEMO_KEY_MAX 640

/* Stands first in whatever is kept. */
struct memo_item {
	_Atomic unsigned refs; /* 1 when made: the maker's */
	void (*free)(struct memo_item *item);
};

static inline void
memo_item_init(struct memo_item *item, void (*free_item)(struct memo_item *))
{
	atomic_init(&item->refs, 1);
	item->free = free_item;
}

static inline void
memo_item_ref(struct memo_item *item)
{
	atomic_fetch_add_explicit(&item->refs, 1, memory_order_relaxed);
}

/* Gives one reference back; the last one frees. NULL is fine. */
void memo_item_unref(struct memo_item *item);

struct memo;

/* weight_max: what all items together may weigh, in the putters' own unit. NULL: no memory. */
struct memo *memo_make(size_t weight_max);
void memo_free(struct memo **memo);

/*
 * A reference to what is kept under key and hasn't ended at now_ms, or NULL.
 * *generation (may be NULL) is for memo_put. Any thread.
 */
struct memo_item *memo_get(struct memo *memo, struct slice key, int64_t now_ms,
                           uint64_t *generation);

/*
 * Keeps item (with a reference of its own) until until_ms, in place of what
 * stood there; not when memo was cleared since generation was read, when it is
 * too heavy, or without memory. weight is at least 1.
 */
void memo_put(struct memo *memo, struct slice key, struct memo_item *item, size_t weight,
              int64_t until_ms, uint64_t generation);

/* The generation of now, for what is put without having looked. */
uint64_t memo_generation(const struct memo *memo);

void memo_drop(struct memo *memo, struct slice key);
void memo_clear(struct memo *memo);

#endif
