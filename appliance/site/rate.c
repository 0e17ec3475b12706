/*
 * Token buckets: see rate.h. A bucket is kept as the time at which it would be
 * full again (the theoretical arrival time of the leaky bucket as a meter), so
 * one number a site is all there is. Sites are made by administrators: their
 * number bounds the table.
 */
#include "site/rate.h"

#include <pthread.h>
#include <stdlib.h>

#define PARTS 16
#define BUCKETS 64 /* of a part */
#define SECOND_US 1000000

struct rate {
	struct rate *next;
	int64_t site_id;
	int64_t full_us;
};

struct rates {
	int64_t cost_us;
	struct part {
		pthread_mutex_t lock;
		struct rate *buckets[BUCKETS];
	} parts[PARTS];
};

struct rates *
rates_make(unsigned per_second)
{
	struct rates *rates = calloc(1, sizeof(*rates));

	if (rates == NULL)
		return NULL;
	rates->cost_us = SECOND_US / per_second;
	for (unsigned i = 0; i < PARTS; i++)
		(void)pthread_mutex_init(&rates->parts[i].lock, NULL);
	return rates;
}

void
rates_free(struct rates **rates)
{
	struct rate *r, *next;

	if (*rates == NULL)
		return;
	for (unsigned i = 0; i < PARTS; i++) {
		for (unsigned k = 0; k < BUCKETS; k++)
			for (r = (*rates)->parts[i].buckets[k]; r != NULL; r = next) {
				next = r->next;
				free(r);
			}
		(void)pthread_mutex_destroy(&(*rates)->parts[i].lock);
	}
	free(*rates);
	*rates = NULL;
}

static struct rate *
rate_of(struct part *part, uint64_t hash, int64_t site_id)
{
	struct rate **at = &part->buckets[hash % BUCKETS];

	while (*at != NULL && (*at)->site_id != site_id)
		at = &(*at)->next;
	if (*at == NULL && (*at = calloc(1, sizeof(**at))) != NULL)
		(*at)->site_id = site_id;
	return *at;
}

bool
rates_take(struct rates *rates, int64_t site_id, int64_t now_us, unsigned *wait_s)
{
	uint64_t hash = (uint64_t)site_id * 0x9e3779b97f4a7c15u >> 40;
	struct part *part = &rates->parts[hash / BUCKETS % PARTS];
	struct rate *r;
	bool taken = true;
	int64_t full;

	pthread_mutex_lock(&part->lock);
	r = rate_of(part, hash, site_id);
	if (r != NULL) { /* without memory nobody is refused */
		full = (r->full_us > now_us ? r->full_us : now_us) + rates->cost_us;
		taken = full - now_us <= SECOND_US;
		if (taken)
			r->full_us = full;
		else
			*wait_s = 1 + (unsigned)((full - now_us - SECOND_US) / SECOND_US);
	}
	pthread_mutex_unlock(&part->lock);
	return taken;
}
