/*
 * Receipts: those that members' home servers have yet to send, and those that
 * came for a site of ours.
 */
#ifndef TMTP_STORE_RECEIPTS_H
#define TMTP_STORE_RECEIPTS_H

#include "base/id.h"
#include "store/store.h"

enum receipt_kind { RECEIPT_READ = 1, RECEIPT_WITHDRAWN };

/* --- That wait to be sent ---------------------------------------------------- */

struct receipt_out {
	int64_t account_id, sender_id, domain_id; /* domain: the sender's, where it goes */
	struct uuid notification_id;
	enum receipt_kind kind;
	bool
	    is_void; /* the member allows it no more, or nobody would want it: to be forgotten */
	char *account, *sender; /* addresses */
	char *domain;           /* the sender's */
	char *id;               /* what the message was posted under */
	uint8_t grant[20];
	int64_t date_s;
};

/* Claims receipts whose lease is free, grouped by domain, sender and the account's domain. */
struct receipt_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	const int64_t *skip; /* domains that are not to be claimed now; borrowed until done */
	size_t skip_n;
	unsigned limit;
	struct receipt_out *rows; /* out; freed by receipt_claim_clear */
	size_t rows_n;
};

void store_receipt_claim(struct store *store, struct receipt_claim *claim);
void receipt_claim_clear(struct receipt_claim *claim);
void receipt_out_clear(struct receipt_out *row);

/* Acknowledged (gone) or given back. */
struct receipt_finish {
	struct store_job job;
	const struct receipt_out *rows; /* borrowed until done */
	size_t rows_n;
	bool sent;
	int64_t not_before_us; /* when not sent */
};

void store_receipt_finish(struct store *store, struct receipt_finish *finish);

/* --- That came ------------------------------------------------------------------ */

struct receipt_in {
	struct uuid message_id;
	const uint8_t *grant; /* 20 octets; borrowed until done */
	enum receipt_kind kind;
	int64_t at_us;
};

/*
 * Keeps them for the site, if there is such a one. A row counts only when its
 * grant is one that a member of that domain holds, with receipts, of the
 * message's channel, and the message was for her. The first time counts.
 */
struct receipt_take {
	struct store_job job;
	/* borrowed until done */
	struct slice site_domain, site_name;
	struct slice domain; /* the members': verified */
	const struct receipt_in *rows;
	size_t rows_n;
	int64_t now_us;
	int64_t taken; /* out */
};

void store_receipt_take(struct store *store, struct receipt_take *take);

#endif
