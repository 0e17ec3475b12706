/*
 * Large attachments that messages name, as a home server keeps them: one copy
 * of each for all of a sender's members, in parts, and whose room it takes.
 * A copy is never shown before all of it was verified.
 */
#ifndef TMTP_STORE_COPIES_H
#define TMTP_STORE_COPIES_H

#include "base/digest.h"
#include "store/attachments.h"

/* With more members than this who got the message, fetching on opening tells nothing of one. */
#define COPY_CROWD 100

enum copy_state {
	COPY_WAITING, /* to be fetched */
	COPY_HERE,
	COPY_FAILED,
	COPY_ASLEEP, /* fetched when somebody opens it */
	COPY_STATES
};

/* "waiting", "here", "failed", "on-opening". */
const char *copy_state_name(int state);

/* Why one failed that might be fetched yet, when there is room. */
#define COPY_NO_MEMBER_ROOM "member-room"
#define COPY_NO_ROOM "room"
#define COPY_TOO_LARGE "too-large"

struct copy_limits {
	int64_t max_octets;    /* of one */
	int64_t member_octets; /* of all that one member holds */
	int64_t total_octets;  /* of all; 0: no limit */
};

/*
 * An attachment of a message that was picked up and is about to be shown:
 * decides whether it is fetched at once, on opening, or not at all. What had
 * failed is tried anew.
 */
struct copy_announce {
	struct store_job job;
	struct uuid notification_id;
	int number; /* among the message's attachments, from 0 */
	int64_t size;
	/* borrowed until done */
	struct slice digest;
	struct slice uris; /* "\n" between them */
	struct copy_limits limits;
	struct uuid fresh_id; /* for a new copy */
	int64_t now_us;
};

void store_copy_announce(struct store *store, struct copy_announce *announce);

/* More members got a message: what may sleep no more is to be fetched. */
struct copy_rouse {
	struct store_job job;
	struct uuid notification_id;
};

void store_copy_rouse(struct store *store, struct copy_rouse *rouse);

/* --- Fetching ------------------------------------------------------------- */

struct copy_work {
	struct uuid copy_id;
	uint8_t digest[32];
	int64_t size, octets; /* octets: whole parts that are here */
	uint8_t running[DIGEST_SAVED];
	int attempts, wrong; /* attempts: since it last grew, this one not counted */
	char *uris;
	/* Of the newest message that names it, to judge its sender by. */
	char *sender;
	uint8_t message_digest[32];
	int64_t date_s;
	char *key;
	uint8_t *signature;
	size_t signature_len;
};

void copy_work_clear(struct copy_work *work);

#define COPY_CLAIM_MAX 8

struct copy_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	unsigned limit;
	struct copy_work rows[COPY_CLAIM_MAX]; /* out; each to be cleared */
	size_t rows_n;
};

void store_copy_claim(struct store *store, struct copy_claim *claim);

/*
 * The next parts. Whole ones, and then running is the digest's state after them;
 * or all that are left, verified: whole is set. STORE_NOT_FOUND: somebody else
 * has it, or nobody wants it any more.
 */
struct copy_grow {
	struct store_job job;
	struct uuid copy_id;
	int64_t octets;    /* that were there before: a multiple of ATTACHMENT_PART */
	struct slice data; /* borrowed until done */
	uint8_t running[DIGEST_SAVED];
	bool whole;
	int64_t lease_until_us;
};

void store_copy_grow(struct store *store, struct copy_grow *grow);

/* It isn't to be had now, or never; or others have their turn (no reason): those that never had one come first. */
struct copy_fail {
	struct store_job job;
	struct uuid copy_id;
	bool never;
	bool wrong;         /* what came was something else: from the beginning */
	const char *reason; /* borrowed until done */
	int64_t not_before_us;
};

void store_copy_fail(struct store *store, struct copy_fail *fail);

/* --- Members -------------------------------------------------------------- */

struct copy_info {
	int number;
	struct uuid copy_id;
	enum copy_state state;
	int64_t size, octets;
	uint8_t digest[32];
	char reason[200]; /* of COPY_FAILED, or why the last try ended; "" */
};

#define COPY_INFOS_MAX 64

struct copy_list {
	struct store_job job;
	struct uuid notification_id;
	struct copy_info rows[COPY_INFOS_MAX]; /* out, by number */
	size_t rows_n;
};

void store_copy_list(struct store *store, struct copy_list *list);

/* A member opens one: fetches it if it slept, or if there was no room and now is. */
struct copy_open {
	struct store_job job;
	struct uuid copy_id;
	int64_t account_id;
	struct copy_limits limits;
	enum copy_state state; /* out: as it is now */
};

void store_copy_open(struct store *store, struct copy_open *open);

/* A part of a copy that is here. */
struct copy_read {
	struct store_job job;
	struct uuid copy_id;
	int part_no;
	uint8_t *data; /* out; from malloc, the caller's to free */
	size_t len;
};

void store_copy_read(struct store *store, struct copy_read *read);

/* --- Forgetting ----------------------------------------------------------- */

/*
 * Looks at some copies after a cursor: those that no member has a message with
 * are forgotten, and who dropped it holds it no more.
 */
struct copy_sweep {
	struct store_job job;
	struct uuid after; /* in and out; all zero: from the start, and at the end */
	unsigned limit;
	int64_t young_us;  /* those named since then stay: their message isn't shown yet */
	int64_t forgotten; /* out */
};

void store_copy_sweep(struct store *store, struct copy_sweep *sweep);

#endif
