/*
 * What the tables need from time to time: tomorrow's partitions, chunks cut to
 * size, keys and ids forgotten when they are old. Any worker may do it; two at
 * once don't disturb each other.
 */
#ifndef TMTP_STORE_UPKEEP_H
#define TMTP_STORE_UPKEEP_H

#include "store/store.h"

/* Makes the daily partitions from a day before now to a week after. */
struct upkeep_partitions {
	struct store_job job;
	int64_t now_us;
	int made; /* out */
};

void store_upkeep_partitions(struct store *store, struct upkeep_partitions *upkeep);

/* Counts the chunks after a cursor anew; splits one above max, joins neighbours that are thin. */
struct upkeep_chunks {
	struct store_job job;
	int64_t site_id, channel_id,
	    domain_id; /* the cursor, in and out; all zero: from the start, and at the end */
	char first_member[65];
	int target, max; /* about 800 members, split above 1000 */
	unsigned limit;  /* chunks looked at */
	/* out */
	unsigned seen, changed;
};

void store_upkeep_chunks(struct store *store, struct upkeep_chunks *upkeep);

/* Idempotency keys, posted ids and log-ins that are older than they need be; at most limit of each. */
struct upkeep_forget {
	struct store_job job;
	int64_t now_us;
	int64_t keys_before_us;
	unsigned limit;
	int64_t forgotten; /* out */
};

/*
 * How long an idempotency key is remembered: whoever repeats a push does so within hours; a
 * week outlasts a weekend without anybody at the website.
 */
#define UPKEEP_KEYS_KEPT_S (7 * 24 * 3600)

/* For the roles site and home: keys. For the role home: posted ids and log-ins. */
void store_upkeep_forget_keys(struct store *store, struct upkeep_forget *upkeep);
void store_upkeep_forget_posted(struct store *store, struct upkeep_forget *upkeep);

#endif
