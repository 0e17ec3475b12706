/* What a member sees and says: entries, reading, invitations, consent. */
#ifndef TMTP_STORE_INBOXES_H
#define TMTP_STORE_INBOXES_H

#include "base/id.h"
#include "store/store.h"

struct inbox_row {
	struct uuid
	    entry_id; /* what a member knows it by: a replacement keeps that of what it replaces */
	struct uuid notification_id;
	char *sender, *channel;
	int64_t arrived_us;      /* when it became visible to this member */
	int64_t date_s, read_us; /* read -1: not yet */
	int64_t changed_us;      /* the last time that it became visible or was withdrawn */
	bool withdrawn;
	uint8_t *body; /* the canonical message; NULL: withdrawn before it was read */
	size_t size;
	uint8_t *variables; /* this member's, canonical bencode, or NULL */
	size_t variables_len;
	/* Of mail (mails.h); all NULL: it came over DMTP, from a verified sender. */
	char *mail_sender, *mail_from, *mail_address;
};

/*
 * A page of visible entries: those whose notification was verified, and those
 * withdrawn since then. Of entries that replace each other the newest is one.
 * STORE_NOT_FOUND with INBOX_ONE only, which takes the id of an entry or of a
 * notification. INBOX_SINCE gives all that changed in the last row's
 * microsecond, which may be more than limit: go on from that row's changed_us.
 * It looks at entries whose notification is at most 31 days older than since_us.
 */
struct inbox_list {
	struct store_job job;
	int64_t account_id;
	enum { INBOX_NEWEST, INBOX_ONE, INBOX_SINCE } what;
	struct uuid
	    before; /* INBOX_NEWEST: notifications older than this, all zero: from the newest; INBOX_ONE: this one */
	int64_t since_us; /* INBOX_SINCE: changed after this, oldest first */
	bool unread_only;
	unsigned limit;
	unsigned body_max; /* only so many octets of each body; 0: all of it */
	/* out; freed by inbox_list_clear */
	struct inbox_row *rows;
	size_t rows_n;
	/* inboxes.c's own */
	struct store *store;
	void (*then)(struct store_job *job);
	bool threads;
};

void store_inbox_list(struct store *store, struct inbox_list *list);
void inbox_list_clear(struct inbox_list *list);

struct inbox_count {
	struct store_job job;
	int64_t account_id;
	int64_t unread; /* out */
};

void store_inbox_count(struct store *store, struct inbox_count *count);

/* STORE_NOT_FOUND: no such visible entry. Marking twice keeps the first time. */
struct inbox_mark {
	struct store_job job;
	int64_t account_id;
	struct uuid entry_id;
	enum { INBOX_READ, INBOX_UNREAD, INBOX_DROP } mark;
	int64_t now_us;
};

void store_inbox_mark(struct store *store, struct inbox_mark *mark);

/* --- Consent ------------------------------------------------------------ */

enum consent_state { CONSENT_ASKED, CONSENT_GRANTED, CONSENT_REFUSED, CONSENT_REVOKED };

/* "asked", "granted", "refused", "revoked". */
const char *consent_state_name(enum consent_state state);

struct consent_row {
	int64_t sender_id;
	char *sender, *channel;
	enum consent_state state;
	bool receipts;
	int64_t changed_us; /* asked or answered */
	uint8_t *
	    body; /* the invitation's message, once verified; only when one row was asked for */
	size_t size;
};

/* The last changed first. */
struct consent_list {
	struct store_job job;
	int64_t account_id;
	int state; /* only this one; -1: all */
	struct slice sender,
	    channel; /* both: only this one, with the invitation's words; empty: all */
	unsigned limit;
	struct consent_row *rows; /* out; freed by consent_list_clear */
	size_t rows_n;
};

void store_consent_list(struct store *store, struct consent_list *list);
void consent_list_clear(struct consent_list *list);

/* Whether this member and the person see each other's presence, as far as she is concerned. */
enum consent_presence { PRESENCE_AS_IT_WAS, PRESENCE_SHOWN, PRESENCE_HIDDEN };

enum consent_why {
	CONSENT_SAID,    /* by the member, asked or (a yes) not */
	CONSENT_UNASKED, /* REFUSED: also of who never asked */
	CONSENT_ANSWER,  /* GRANTED: a person whom the member invited, and who has accepted */
	CONSENT_ANSWER_ANEW, /* likewise; her server may not know of an earlier yes: it is told again */
};

/*
 * A member's yes, no or no longer. Granting what was never asked for starts
 * the consent at the member's side. Puts the GRANT for the site into the
 * outbox in the same transaction. STORE_NOT_FOUND: refusing what nobody asked
 * for, or revoking what was never granted. Saying the same again changes
 * nothing; other receipts keep the grant. After a no or a revocation a yes
 * makes a new grant: the earlier one never comes back.
 */
struct consent_change {
	struct store_job job;
	int64_t account_id;
	struct slice sender, channel; /* borrowed until done; sender is a normalised address */
	struct slice sender_domain, registrable;
	enum consent_state state; /* GRANTED, REFUSED or REVOKED */
	bool receipts;
	enum consent_why why;
	bool
	    blocked; /* REFUSED: the member wants no more of this person, and sees that she said so */
	enum consent_presence presence;
	uint8_t grant_id[20]; /* fresh random octets, used when a grant is made */
	struct uuid changed_id;
	int64_t sender_id, domain_id; /* fresh of id_make, used when unknown yet */
	int64_t now_us;
	/* out */
	bool changed;
};

void store_consent_change(struct store *store, struct consent_change *change);

#endif
