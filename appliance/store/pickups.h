/*
 * Notifications whose messages are to be picked up: claimed, and ended. What
 * ends one runs in the lane STORE_ARRIVE, behind the arrivals.
 */
#ifndef TMTP_STORE_PICKUPS_H
#define TMTP_STORE_PICKUPS_H

#include "base/id.h"
#include "store/store.h"

struct pickup {
	struct uuid notification_id;
	char *sender, *channel;
	char *recipient; /* of an invitation: the member's address; or NULL */
	uint8_t digest[32];
	int64_t size, date_s, expires_us;
	char *uris; /* "\n" between them */
	char *key;
	uint8_t *signature;
	size_t signature_len;
	int attempts;
};

/* Claims notifications whose pickup is due and not leased, oldest first. */
struct pickup_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	struct uuid oldest;
	unsigned limit;
	struct pickup *rows; /* out; freed by pickup_claim_clear */
	size_t rows_n;
};

void store_pickup_claim(struct store *store, struct pickup_claim *claim);
void pickup_clear(struct pickup *pickup);
void pickup_claim_clear(struct pickup_claim *claim);

enum pickup_end {
	PICKUP_AGAIN = 0,
	PICKUP_VERIFIED = 1,
	PICKUP_FAILED = 2,
	PICKUP_WITHDRAWN = 3,
};

/* The end of a pickup, or its putting off. Visible to its members with PICKUP_VERIFIED's commit. */
struct pickup_finish {
	struct store_job job;
	struct uuid notification_id;
	enum pickup_end end;
	struct slice body; /* PICKUP_VERIFIED; borrowed until done */
	/* PICKUP_VERIFIED of a message that is to one member and not to the channel: only that one may see it. */
	struct slice only_domain, only_name;
	const char *reason;            /* the others; borrowed */
	int64_t now_us, not_before_us; /* PICKUP_AGAIN */
	int64_t
	    only_account; /* out, 0: all who have an entry; -1: no such member, so it failed */
	bool unseen;      /* out: that one has no entry, so nobody sees it */
};

void store_pickup_finish(struct store *store, struct pickup_finish *finish);

/* What waits for a time because of that domain's host is due now: messages, and large attachments. */
struct pickup_resume {
	struct store_job job;
	struct slice domain; /* borrowed until done */
	int64_t now_us;
	int64_t count; /* out: so many waited */
};

void store_pickup_resume(struct store *store, struct pickup_resume *resume);

/* Which of these accounts have a visible entry of the notification: for live push after a restart. */
struct arrival_holders {
	struct store_job job;
	struct uuid notification_id;
	const int64_t *ask; /* borrowed until done */
	size_t ask_n;
	int64_t *accounts; /* out; freed by arrival_holders_clear */
	size_t accounts_n;
};

void store_arrival_holders(struct store *store, struct arrival_holders *holders);
void arrival_holders_clear(struct arrival_holders *holders);

#endif
