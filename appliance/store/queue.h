/*
 * What is to be sent, for the relay: which (site, domain) pairs have work,
 * claiming batches under a lease, reading a range's recipients, and writing
 * down what became of them.
 */
#ifndef TMTP_STORE_QUEUE_H
#define TMTP_STORE_QUEUE_H

#include "base/id.h"
#include "store/store.h"

/* A retry of single recipients has its batch's number and this much more; a retry of that one again. */
#define QUEUE_RETRY_NO 1000000

/* Pairs with waiting batches whose peer may be sent to now, in order after a given pair. */
struct queue_pair {
	int64_t site_id, domain_id;
};

struct queue_pairs {
	struct store_job job;
	struct queue_pair after; /* {0, 0}: from the start */
	struct uuid oldest;      /* messages older than this are not looked at */
	int64_t now_us;
	unsigned limit;
	struct queue_pair *rows; /* out; freed by queue_pairs_clear */
	size_t rows_n;
};

void store_queue_pairs(struct store *store, struct queue_pairs *pairs);
void queue_pairs_clear(struct queue_pairs *pairs);

/* A site and a domain by their numbers, for addresses and routes; both are kept by the caller. */
struct queue_names {
	struct store_job job;
	struct queue_pair pair;
	/* out; STORE_NOT_FOUND when either is gone */
	char site_name[65], site_domain[254],
	    domain[254]; /* a person's name is longer than a site's */
	bool person;
	bool suspended;
};

void store_queue_names(struct store *store, struct queue_names *names);

enum queue_member_state {
	QUEUE_LEFT,    /* no longer, or never asked */
	QUEUE_INVITED, /* asked, without an answer yet */
	QUEUE_HOLDS,
};

struct queue_member {
	struct slice member; /* borrows from the batch's or range's memory */
	enum queue_member_state state;
	uint8_t grant[20]; /* QUEUE_HOLDS */
	struct slice vars; /* this recipient's values, or empty; borrowed likewise */
};

struct queue_batch {
	int64_t site_id, channel_id, domain_id;
	struct uuid message_id;
	int batch_no, attempts; /* this attempt included */
	int lost_alone;         /* sessions that were lost with nothing but it unanswered */
	int lane, audience;     /* enum push_lane, push_audience */
	bool is_range;
	char *first_member, *next_member; /* of a range; next NULL: to the end */
	int recipients;                   /* planned */
	char channel[32];
	uint8_t digest[32];
	int64_t size, date_s;
	int64_t accepted_us, expires_us; /* expires -1: never */
	int64_t revived_us;              /* an administrator's retry, or -1 */
	int64_t audience_us;             /* who held the channel then is meant */
	bool recalled;                   /* the message is: nobody gets it any more */
	bool is_recall;                  /* it tells that `earlier` is recalled */
	bool is_replacement;             /* it takes the place of `earlier` */
	struct uuid earlier;
	bool tried; /* before this claim: something of it may have left */
	/* Of a list: all, as they stand now. */
	struct queue_member *members;
	size_t members_n;
	uint8_t *memory; /* what members borrow from */
	/* The relay's, put in after the claim: the message's signature; key_id empty: none. */
	char key_id[65];
	uint8_t signature[64];
	struct queue_batch *next;
};

void queue_batch_free(struct queue_batch **batch);

/* Claims up to want batches of a pair, urgent ones first, under a lease; an attempt is counted with it. */
struct queue_claim {
	struct store_job job;
	struct queue_pair pair;
	struct uuid owner, oldest;
	int64_t now_us, lease_until_us;
	unsigned want;
	struct queue_batch *batches; /* out: a list in the order to be sent; the caller's */
	size_t batches_n;
};

void store_queue_claim(struct store *store, struct queue_claim *claim);

/* Who in a range holds the channel, since before the message was accepted. */
struct queue_range {
	struct store_job job;
	const struct queue_batch *batch; /* borrowed until done */
	struct slice after; /* a member of the page before; empty: from the range's start */
	unsigned limit;
	struct queue_member *members; /* out; freed by queue_range_clear */
	size_t members_n;
	uint8_t *memory;
};

void store_queue_range(struct store *store, struct queue_range *range);
void queue_range_clear(struct queue_range *range);

/* What became of one batch. Failures and the retry are written with it. */
enum queue_end {
	QUEUE_DONE,     /* sent to all but the failures */
	QUEUE_RELEASE,  /* back to the queue: not before a time, the lease is given up */
	QUEUE_DEAD,     /* given up, with the reason */
	QUEUE_RECALLED, /* not sent: the message is recalled */
};

struct queue_failure {
	struct slice member; /* borrowed until done, as is code */
	struct slice code;
	bool temporary; /* Z: goes into the retry batch */
};

struct queue_finish {
	struct store_job job;
	int64_t site_id, channel_id, domain_id;
	struct uuid message_id, owner;
	int batch_no, lane;
	enum queue_end end;
	int recipients; /* QUEUE_DONE: sent to */
	int64_t now_us;
	int64_t not_before_us; /* QUEUE_RELEASE and the retry batch; -1: at once */
	bool uncounted;        /* QUEUE_RELEASE: the attempt was none of its own */
	bool tried;            /* QUEUE_RELEASE: something of it may have left, now or before */
	bool alone; /* QUEUE_RELEASE: its session was lost with nothing else unanswered */
	const char *reason; /* QUEUE_DEAD, QUEUE_RELEASE: borrowed until done, or NULL */
	const struct queue_failure *failures;
	size_t failures_n;
};

void store_queue_finish(struct store *store, struct queue_finish *finish);

/* --- Expiry ----------------------------------------------------------------- */

struct queue_expired {
	char *domain, *reason;
	struct uuid message_id;
	int recipients;
};

/*
 * Gives up waiting batches (held ones, and those on their way, are not looked
 * at) whose time is over, whether or not their peer may be sent to. What it
 * says of each ends in the peer's own words, where there are any.
 */
struct queue_expire {
	struct store_job job;
	int64_t now_us;
	int64_t from_us;            /* _own: messages that expired since then */
	int64_t limit_s;            /* _limit: the operator's; _refused: how long */
	unsigned limit;             /* batches */
	struct queue_expired *rows; /* out; freed by queue_expire_clear */
	size_t rows_n;
};

/*
 * Those whose domain DNS has said to take no DMTP for limit_s and more, and said so again since
 * the message was accepted (or revived).
 */
void store_queue_expire_refused(struct store *store, struct queue_expire *expire);
/* Those of messages that said themselves when they expire. */
void store_queue_expire_own(struct store *store, struct queue_expire *expire);
/* Those of messages that didn't, and are older than the operator's limit. */
void store_queue_expire_limit(struct store *store, struct queue_expire *expire);
void queue_expire_clear(struct queue_expire *expire);

/* --- Administrators: one delivery, a peer's, all -------------------------- */

enum queue_action { QUEUE_RETRY_NOW, QUEUE_HOLD, QUEUE_RESUME, QUEUE_DROP };

struct queue_change {
	struct store_job job;
	const char *actor;
	enum queue_action action;
	const char *domain; /* only this peer's, or NULL */
	struct uuid
	    message_id; /* only this message's, unless all zero; with domain: one delivery */
	struct uuid oldest;
	int64_t now_us;
	int64_t changed; /* out: batches */
};

void store_queue_change(struct store *store, struct queue_change *change);

struct queue_row {
	char *site, *domain, *channel;
	int64_t site_id;
	struct uuid message_id;
	int batch_no, lane, state, attempts, recipients;
	int64_t accepted_us, not_before_us;
	char *reason; /* of the last attempt, or NULL */
};

struct queue_list {
	struct store_job job;
	const char *domain;     /* only this peer's, or NULL */
	struct uuid message_id; /* only this message's, unless all zero */
	bool dead;              /* those given up or dropped, instead of those that wait */
	struct uuid oldest;
	/* The row of the page before, unless all zero. */
	struct uuid after_message;
	int after_batch;
	int64_t after_site;
	unsigned limit;
	struct queue_row *rows; /* out; freed by queue_list_clear */
	size_t rows_n;
};

/* "waiting", "done", "dead", "held", "dropped", "recalled"; "unknown". */
const char *queue_state_name(int state);

void store_queue_list(struct store *store, struct queue_list *list);
void queue_list_clear(struct queue_list *list);

#endif
