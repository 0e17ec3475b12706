/*
 * Which batches are sent next: looks for (site, domain) pairs with work when
 * woken and from time to time, and claims batches for pairs whose peer is
 * open, as many as are worth having under way.
 */
#ifndef TMTP_RELAY_PLAN_H
#define TMTP_RELAY_PLAN_H

#include "relay/peer.h"
#include "store/catchups.h"
#include "store/queue.h"

#include "base/hash.h"

#include <sys/queue.h>

struct delivery;

/* A site's traffic to a domain. Kept for a while when there is none. */
struct pair {
	struct relay *relay;
	struct queue_pair key;
	struct queue_names names; /* loaded once */
	bool named;
	struct peer *peer;            /* once named; a reference */
	char from[96 + RESOLVE_NAME]; /* the site's address */
	unsigned under_way;           /* deliveries */
	unsigned pages; /* of ranges' recipients, read or being read: delivery.c bounds them */
	struct delivery *page_first, *page_last; /* that wait to read their first one */
	bool loading, claiming;
	bool dry; /* the last claim found less than it wanted; work found later sets it false */
	bool resting; /* among those that nothing is under way for */
	TAILQ_ENTRY(pair) rest;
	struct queue_claim claim;
	struct catchup_note note;
	struct relay_later later;
	UT_hash_handle hh;
};

struct plan *plan_new(struct relay *relay);
void plan_free(struct plan **plan);

/* Something may wait: look soon. */
void plan_wake(struct plan *plan);

/* A delivery of the pair ended. */
void plan_delivered(struct pair *pair);

#endif
