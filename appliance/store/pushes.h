/*
 * Accepting: a message, its idempotency key and its batches in one group
 * commit. The job is told STORE_OK only when all of it is committed.
 */
#ifndef TMTP_STORE_PUSHES_H
#define TMTP_STORE_PUSHES_H

#include "base/id.h"
#include "store/store.h"

#define PUSH_RCPTS_MAX 1000 /* members named in one push */

enum push_audience { PUSH_ONE, PUSH_LIST, PUSH_CHANNEL, PUSH_INVITATION };
enum push_lane { LANE_URGENT, LANE_NORMAL, LANE_BULK };

enum push_outcome {
	PUSH_STORED,
	PUSH_NOBODY,    /* none of those named holds the channel: nothing was stored */
	PUSH_KEY_TAKEN, /* this site used the idempotency key before: ask store_push_earlier */
};

struct push_rcpt {
	struct slice domain, member; /* normalised; borrowed until done */
	bool holds;                  /* out: it holds the channel */
};

struct push {
	struct store_job job;
	int64_t site_id, channel_id;
	struct uuid message_id;
	enum push_audience audience; /* not PUSH_INVITATION: members.h */
	enum push_lane lane;
	int64_t accepted_us, date_s;
	int64_t expires_us; /* -1: never */
	struct slice body; /* the canonical message; borrowed until done, as are the next two */
	const uint8_t *digest; /* 32 octets */
	bool conversation;     /* PUSH_ONE, of a person: kept with its recipient */
	struct slice key;      /* idempotency key; len 0: none */
	uint8_t body_hash[32]; /* of the request, with a key */
	struct push_rcpt *rcpts;
	size_t
	    rcpts_n; /* 1 for PUSH_ONE, 1..PUSH_RCPTS_MAX for PUSH_LIST, 0 for PUSH_CHANNEL */

	enum push_outcome outcome; /* out */
};

/* Takes push until its job.done. Repeatable: a lost answer is asked for again under the same message_id. */
void store_push(struct store *store, struct push *push);

/* What an idempotency key was used for. STORE_NOT_FOUND: it is free (again). */
struct push_earlier {
	struct store_job job;
	int64_t site_id;
	struct slice key; /* borrowed until done */
	/* out */
	struct uuid message_id;
	uint8_t body_hash[32];
};

void store_push_earlier(struct store *store, struct push_earlier *earlier);

#endif
