/*
 * What arrives over DMTP: notifications for members who granted the channel,
 * and invitations. Everything that writes runs in the lane STORE_ARRIVE, so
 * that commits come in the order of arrival.
 */
#ifndef TMTP_STORE_ARRIVALS_H
#define TMTP_STORE_ARRIVALS_H

#include "base/id.h"
#include "store/store.h"

enum arrival_outcome {
	ARRIVAL_STORED,   /* for those recipients who are not closed; perhaps none */
	ARRIVAL_CONFLICT, /* the id was used for another digest, size or sender */
	ARRIVAL_AWAITED,  /* the store's own: what replaces it came before it */
};

/* A notification's state: recalled before it was announced. */
#define ARRIVAL_RECALLED 4

struct arrival_rcpt {
	const uint8_t *grant; /* 20 octets; borrowed until done */
	struct slice vars;    /* this recipient's variables, or empty; borrowed */
	bool closed;          /* out: no such grant of this sender; whatever the reason */
};

/*
 * A POST to grants. Unknown and revoked grants cost the same statements and
 * the same commit as open ones. Two that share (domain, id) or (sender, digest)
 * must not be under way at the same time: the caller keeps them in a row.
 */
struct arrival {
	struct store_job job;
	/* borrowed until done */
	struct slice from; /* the sender's address; its domain is verified */
	struct slice id, digest;
	struct slice replaces; /* an earlier id, or empty */
	struct slice uris;     /* in order, "\n" between them */
	struct slice key, signature;
	int64_t size, date_s, expires_us; /* -1: never */
	int64_t now_us, lease_until_us;   /* a new notification is leased for pickup */
	struct uuid fresh_id;             /* for a new notification */
	struct arrival_rcpt *rcpts;
	size_t rcpts_n;
	bool want_accounts; /* fill accounts */
	int slot;           /* the process's row in arrival_count, 0..15 */
	/* out */
	enum arrival_outcome outcome;
	struct uuid notification_id; /* when any recipient isn't closed */
	char channel[32];            /* the grants' */
	bool fresh;                  /* it is new: pick it up */
	int state; /* 0 to be picked up, 1 verified, 2 failed, 3 withdrawn, 4 recalled before it came */
	size_t added;      /* entries that are new */
	int64_t *accounts; /* who got a new entry; freed by arrival_clear */
	size_t accounts_n;
	/* arrivals.c's own */
	struct store *store;
	void (*then)(struct store_job *job);
};

void store_arrival(struct store *store, struct arrival *arrival);

/*
 * After an arrival whose state was 4, of which entries are new: it is to be
 * picked up after all, for them. Sets state and fresh.
 */
void store_arrival_revive(struct store *store, struct arrival *arrival);
void arrival_clear(struct arrival *arrival);

/*
 * The grants of recipients who were named, [address, "inbox"]: those that the
 * members gave this sender by name. Where there is none, grant stays what it
 * was: the caller puts a random one there, and so the POST costs the same.
 */
struct arrival_named {
	struct store_job job;
	struct slice from; /* borrowed until done, as are the addresses */
	struct arrival_named_rcpt {
		struct slice domain, name;
		uint8_t grant[20]; /* in and out */
	} * rcpts;
	size_t rcpts_n;
};

void store_arrival_named(struct store *store, struct arrival_named *named);

/* A POST to [address, "invite"]. Whatever it finds, the sender is told K. */
struct arrival_invite {
	struct store_job job;
	/* borrowed until done */
	struct slice from, from_domain, registrable; /* of the sender */
	struct slice domain, name;                   /* the member */
	struct slice channel;                        /* offered */
	struct slice id, digest, uris, key, signature;
	int64_t size, date_s, expires_us;
	int64_t now_us, lease_until_us;
	struct uuid fresh_id;
	int64_t sender_id, domain_id; /* fresh of id_make, used when unknown yet */
	int per_day;                  /* of one registrable domain to one member */
	int slot;
	/* out */
	bool shown;         /* a new invitation */
	int64_t account_id; /* whose, when shown */
};

void store_arrival_invite(struct store *store, struct arrival_invite *invite);

#endif
