/*
 * The channel smtp: who takes mail and from whom not, and mail that arrives.
 * Its sender is the gateway, "smtp@<the members' domain>", an address that no
 * site or account has; what mail says of its author is kept beside, and is
 * nobody's word but its own: no grant, and nothing that a DMTP sender's rows
 * could be mistaken for, follows from it.
 */
#ifndef TMTP_STORE_MAILS_H
#define TMTP_STORE_MAILS_H

#include "base/id.h"
#include "store/store.h"

#define MAIL_CHANNEL "smtp"
#define MAIL_GATEWAY "smtp" /* its local part */
#define MAIL_BLOCKS_MAX 1000

/*
 * May this sender's mail go to this member? Unknown, closed and blocked cost
 * the same statement and are one answer.
 */
struct mail_ask {
	struct store_job job;
	struct slice domain, name; /* the member; borrowed until done, as is sender */
	struct slice sender;       /* a normalised address, or empty */
	bool open;                 /* out */
};

void store_mail_ask(struct store *store, struct mail_ask *ask);

enum mail_fate {
	MAIL_STORED,   /* now, or already before */
	MAIL_CLOSED,   /* as in mail_ask */
	MAIL_UNWANTED, /* the author in its header is blocked: accepted, and not kept */
};

struct mail_rcpt {
	struct slice name; /* borrowed until done */
	/* out */
	enum mail_fate fate;
	int64_t account_id; /* MAIL_STORED */
	bool added;         /* the entry is new */
};

/* A mail to members of one domain, verified and visible with its commit. */
struct mail_arrival {
	struct store_job job;
	/* borrowed until done */
	struct slice domain; /* the members' and the gateway's */
	struct slice gateway,
	    registrable;             /* of the gateway: its address; its registrable domain */
	struct slice seen;           /* SHA-256: the same mail has the same */
	struct slice digest, body;   /* the canonical message, its SHA-256 */
	struct slice sender, author; /* normalised, for blocks; empty: none */
	struct slice mail_sender, mail_from, mail_address; /* to be kept */
	int64_t date_s, now_us;
	struct uuid fresh_id;
	int64_t sender_id, domain_id; /* fresh of id_make, used when unknown yet */
	struct mail_rcpt *rcpts;
	size_t rcpts_n;
	/* out */
	struct uuid notification_id;
};

void store_mail_arrival(struct store *store, struct mail_arrival *arrival);

/* --- What a member decides ----------------------------------------------------- */

/* Opens or closes the channel; the same again changes nothing. */
struct mail_channel_set {
	struct store_job job;
	int64_t account_id;
	bool open;
	int64_t now_us;
};

void store_mail_channel_set(struct store *store, struct mail_channel_set *set);

struct mail_block_row {
	char *address;
	int64_t blocked_us;
};

struct mail_channel_get {
	struct store_job job;
	int64_t account_id;
	/* out; freed by mail_channel_get_clear */
	bool open;
	int64_t changed_us;          /* -1: never opened */
	struct mail_block_row *rows; /* by address */
	size_t rows_n;
};

void store_mail_channel_get(struct store *store, struct mail_channel_get *get);
void mail_channel_get_clear(struct mail_channel_get *get);

/*
 * Blocks an address or, with block false, no longer. STORE_CONFLICT: more than
 * MAIL_BLOCKS_MAX; STORE_NOT_FOUND: it wasn't blocked. Blocking twice is once.
 */
struct mail_block_set {
	struct store_job job;
	int64_t account_id;
	struct slice address; /* normalised; borrowed until done */
	bool block;
	int64_t now_us;
};

void store_mail_block_set(struct store *store, struct mail_block_set *set);

/* Forgets mail that can't be delivered again any more. */
struct mail_forget {
	struct store_job job;
	int64_t now_us;
	unsigned limit;
	unsigned forgotten; /* out */
};

void store_mail_forget(struct store *store, struct mail_forget *forget);

#endif
