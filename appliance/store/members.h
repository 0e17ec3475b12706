/*
 * A channel's members as the sending side sees them: registering (which
 * invites), removing, listing, and what GRANTs from home servers change.
 */
#ifndef TMTP_STORE_MEMBERS_H
#define TMTP_STORE_MEMBERS_H

#include "base/id.h"
#include "store/store.h"

enum member_state {
	MEMBER_INVITED,
	MEMBER_GRANTED,
	MEMBER_REFUSED,
	MEMBER_REVOKED,
	MEMBER_REMOVED,
	MEMBER_NONE, /* never registered */
};

/* "invited", "granted", "refused", "revoked", "removed", "none". */
const char *member_state_name(enum member_state state);

/*
 * Registers an address; stores the invitation (a message and its batch) when
 * one is due: to who was never registered, and to who is invited or was
 * removed but was not asked for a day. An invitation that the member's home
 * server would drop doesn't go out, and nothing is changed: one to who has not
 * answered another of this site, sent within a day, or who refused one (DMTP.md
 * section 7). STORE_NOT_FOUND: no such open channel of this site. Of two that
 * name one address at once, one invites.
 */
#define MEMBER_CHANNEL_MAX 30

struct member_invite {
	struct store_job job;
	int64_t site_id, channel_id;
	struct slice domain,
	    member; /* normalised; borrowed until done, as are body and digest */
	struct uuid message_id;
	int64_t accepted_us, date_s;
	struct slice body;
	const uint8_t *digest;
	/* out */
	enum member_state state; /* as it is now */
	bool
	    invited; /* an invitation goes out; not to who was asked within a day, holds the channel or said no */
	char held_by[MEMBER_CHANNEL_MAX +
	             1]; /* the channel whose invitation is in the way, or "" */
};

void store_member_invite(struct store *store, struct member_invite *invite);

/* One member (STORE_NOT_FOUND: never registered) or a page of them, in order of (domain, member). */
struct member_row {
	char *address;
	enum member_state state;
	int64_t invited_us, joined_us, left_us; /* -1: not */
	bool receipts;
};

struct member_list {
	struct store_job job;
	int64_t site_id, channel_id;
	struct slice domain,
	    member; /* with exact: this one; else after this one (empty: from the start) */
	bool exact;
	int state; /* only this one, -1: all */
	unsigned limit;
	/* out; freed by member_list_clear */
	struct member_row *rows;
	size_t rows_n;
};

void store_member_list(struct store *store, struct member_list *list);
void member_list_clear(struct member_list *list);

/*
 * The site takes a member off the channel. Who refused or revoked stays so: a
 * removal is no way to ask again. STORE_NOT_FOUND: never registered.
 */
struct member_remove {
	struct store_job job;
	int64_t site_id, channel_id;
	struct slice domain, member;
	int64_t now_us;
};

void store_member_remove(struct store *store, struct member_remove *rm);

/*
 * A GRANT from a member's home server, who may begin it herself: of two the
 * later date wins, on a tie revoked (DMTP, GRANT). After the site removed her
 * only a yes given since then counts. STORE_OK whatever it finds: an unknown
 * site or channel, or an older date, changes nothing.
 */
struct member_grant {
	struct store_job job;
	struct slice domain, member;         /* from */
	struct slice site_domain, site_name; /* to */
	struct slice channel;
	enum member_state state; /* GRANTED, REFUSED or REVOKED */
	struct slice grant_id;   /* 20 octets, or empty with REFUSED */
	bool receipts, presence;
	int64_t date_s, now_us;
	/* out */
	bool changed;       /* may be false when it was run again after a lost connection */
	bool joined;        /* and she didn't hold the channel before */
	int64_t account_id; /* the person whom it was told to; 0: a site, or nobody */
};

void store_member_grant(struct store *store, struct member_grant *grant);

#endif
