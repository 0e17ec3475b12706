/*
 * Ed25519 keys of our domains: made, retired and revoked by administrators,
 * published by the site role, used by the relay, which alone reads their
 * private parts. Every change raises the revision.
 */
#ifndef TMTP_STORE_DOMAIN_KEYS_H
#define TMTP_STORE_DOMAIN_KEYS_H

#include "store/sites.h"

#define DOMAIN_KEY_ID 65 /* 64 octets and a NUL */

/* Messages are at most so old: after that a key that has ended signs nothing any more. */
#define DOMAIN_KEY_WAIT_S (31 * 86400)
/* A key that has ended stays in the card so long. */
#define DOMAIN_KEY_SHOWN_S (400 * 86400)

struct domain_key {
	char domain[254], id[DOMAIN_KEY_ID];
	uint8_t public_key[32];
	uint8_t seed[32];                      /* domain_key_secrets only */
	int64_t created_us, from_us, until_us; /* valid from, until */
	int64_t retired_us, revoked_us;        /* -1: not */
};

/* Public parts; newest first. */
struct domain_key_list {
	struct store_job job;
	struct slice domain; /* borrowed until done */
	/* Only what a card shows: not revoked, and not ended before this; 0: all. */
	int64_t ended_after_us;
	unsigned limit;
	struct domain_key *rows; /* out; freed by domain_key_list_clear */
	size_t rows_n;
};

void store_domain_key_list(struct store *store, struct domain_key_list *list);
void domain_key_list_clear(struct domain_key_list *list);

/* All keys of all domains that still may sign, with their private parts; the relay's. */
struct domain_key_secrets {
	struct store_job job;
	struct domain_key
	    *rows; /* out, by domain, the newest first; wiped and freed by …_clear */
	size_t rows_n;
};

void store_domain_key_secrets(struct store *store, struct domain_key_secrets *secrets);
void domain_key_secrets_clear(struct domain_key_secrets *secrets);

/* Deletes private parts of keys that ended before this; the relay's upkeep. */
struct domain_key_forget {
	struct store_job job;
	int64_t ended_before_us;
	int64_t forgotten; /* out */
};

void store_domain_key_forget(struct store *store, struct domain_key_forget *forget);

/* --- Administrators ----------------------------------------------------------- */

/*
 * STORE_CONFLICT: the id is taken, also by a key that has ended, or (retire)
 * the key is revoked. STORE_NOT_FOUND: no such key. Retiring never makes a key
 * last longer; what is revoked a second time keeps its first time.
 */
enum domain_key_change_kind {
	DOMAIN_KEY_MAKE,   /* public_key, seed, from_us, until_us */
	DOMAIN_KEY_RETIRE, /* until_us */
	DOMAIN_KEY_REVOKE,
};

struct domain_key_change {
	struct store_job job;
	struct audit_by by;
	enum domain_key_change_kind kind;
	const char *domain, *id; /* borrowed until done, as are the keys */
	struct slice public_key, seed;
	int64_t from_us, until_us, now_us;
};

void store_domain_key_change(struct store *store, struct domain_key_change *change);

#endif
