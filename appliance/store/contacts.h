/*
 * A member's contacts: persons (or whoever writes to her `inbox`) with what
 * each said to the other. A contact is made of a subscription of her own
 * channel and a consent (schema/007_persons.sql); nobody writes before both
 * say yes. And her conversations: what went out and what came in, together.
 */
#ifndef TMTP_STORE_CONTACTS_H
#define TMTP_STORE_CONTACTS_H

#include "store/inboxes.h"
#include "store/members.h"

#define CONTACT_NOTHING (-1) /* neither asked nor answered */

struct contact_row {
	char *address;
	int theirs; /* enum member_state: may she write to them? CONTACT_NOTHING: she never asked */
	int mine;           /* enum consent_state: may they write to her? or CONTACT_NOTHING */
	bool invited_by_me; /* and may be invited again when it is a day old */
	bool blocked, muted, receipts;
	bool presence_mine, presence_theirs; /* who agreed to it */
	int64_t invited_us, since_us;        /* -1: not. since: the newest of what was said */
	/* Of a contact with whom it was agreed; presence -1: not known */
	int presence; /* enum presence_state */
	int64_t presence_since_us;
};

enum contact_state {
	CONTACT_NONE,    /* nobody said anything, or she let it go */
	CONTACT_INVITED, /* she asked, and has no answer */
	CONTACT_ASKED,   /* they ask her */
	CONTACT_OPEN,    /* they may write; their own yes is on its way, or was never given */
	CONTACT_BOTH,    /* both said yes: they can write to each other */
	CONTACT_REFUSED, /* they said no, or no longer */
	CONTACT_BLOCKED, /* she said so */
};

/* "none", "invited", "asked", "open", "contact", "refused", "blocked". */
const char *contact_state_name(enum contact_state state);
enum contact_state contact_state_of(const struct contact_row *row);

/* A page in the order of addresses, without those of CONTACT_NONE; or one, which always has a row. */
struct contact_list {
	struct store_job job;
	int64_t account_id;
	struct slice domain, member; /* only this one; empty: a page. Borrowed until done */
	struct slice after;          /* an address of the page before */
	bool support; /* a page for an administrator: without anybody's presence */
	int64_t now_us;
	unsigned limit;
	struct contact_row *rows; /* out; freed by contact_list_clear */
	size_t rows_n;
};

void store_contact_list(struct store *store, struct contact_list *list);
void contact_list_clear(struct contact_list *list);

/* STORE_NOT_FOUND: she said nothing to this person yet. */
struct contact_mute {
	struct store_job job;
	int64_t account_id;
	struct slice address; /* borrowed until done */
	bool muted;
};

void store_contact_mute(struct store *store, struct contact_mute *mute);

/* --- Conversations ---------------------------------------------------------- */

struct letter_row {
	struct uuid id;        /* the message's, or the entry's */
	bool sent;             /* by this member */
	int64_t date_s, at_us; /* at: accepted, or visible */
	int64_t read_us;       /* of what came in; -1: not yet */
	int state;             /* of what was sent: enum recipient_state */
	char *reason;          /* why it failed, or NULL */
	bool withdrawn;
	uint8_t *body; /* the canonical message; NULL when withdrawn */
	size_t size;
};

/*
 * The newest before an id (all zero: from the newest), both directions, in the
 * order of ids, which are made when a message is accepted or arrives. Or one
 * that she sent: STORE_NOT_FOUND when there is none. What the person sent to
 * more than this member alone is in her inbox only.
 */
struct letter_list {
	struct store_job job;
	int64_t account_id;
	struct slice address; /* the other's; borrowed until done */
	struct uuid before;
	bool one; /* the one that she sent and that `before` names */
	unsigned limit;
	struct letter_row *rows; /* out; freed by letter_list_clear */
	size_t rows_n;
};

void store_letter_list(struct store *store, struct letter_list *list);
void letter_list_clear(struct letter_list *list);

#endif
