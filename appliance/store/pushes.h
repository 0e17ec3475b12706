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

/* "one", "list", "channel", "invitation"; "urgent", "normal", "bulk"; else "unknown". */
const char *push_audience_name(int audience);
const char *push_lane_name(int lane);

enum push_outcome {
	PUSH_STORED,
	PUSH_NOBODY,    /* none of those named holds the channel: nothing was stored */
	PUSH_KEY_TAKEN, /* this site used the idempotency key before: ask store_push_earlier */
};

struct push_rcpt {
	struct slice domain, member; /* normalised; borrowed until done */
	struct slice
	    values; /* of its own for the message's variables: a canonical dictionary, or empty */
	bool holds; /* out: it holds the channel */
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
	bool has_values;       /* recipients have */
	bool is_replacement;   /* of the chain that begins with first_id: see push_replacing */
	struct uuid first_id;
	uint8_t body_hash[32]; /* of the request, with a key */
	struct push_rcpt *rcpts;
	size_t
	    rcpts_n; /* 1 for PUSH_ONE, 1..PUSH_RCPTS_MAX for PUSH_LIST, 0 for PUSH_CHANNEL */

	enum push_outcome outcome; /* out */
};

/* Takes push until its job.done. Repeatable: a lost answer is asked for again under the same message_id. */
void store_push(struct store *store, struct push *push);
/* The same, for a push that is a replacement or has values. For pushes.c. */
void store_push_linked(struct store *store, struct push *push);

/*
 * Before a push that replaces an earlier message: is there such a one in this
 * channel, was it for these recipients, and which date makes the new one the
 * newest? Takes that date for this push. STORE_NOT_FOUND: no such message of
 * this site in this channel, or it was an invitation.
 */
struct push_replacing {
	struct store_job job;
	int64_t site_id, channel_id;
	struct uuid earlier;
	bool to_channel;         /* the push is for all who hold the channel */
	struct push_rcpt *rcpts; /* borrowed until done; holds, out: it was a recipient then */
	size_t rcpts_n;
	int64_t now_s;
	/* out */
	struct uuid first_id; /* of the chain of replacements */
	bool fits;            /* to_channel is as it was, and all recipients were */
	int64_t date_s;       /* -1: so many a second that the dates would run ahead */
};

#define PUSH_AHEAD_MAX_S 1800

void store_push_replacing(struct store *store, struct push_replacing *replacing);

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
