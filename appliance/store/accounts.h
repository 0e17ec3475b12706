/* Members' accounts of this appliance's domains, and their log-ins. */
#ifndef TMTP_STORE_ACCOUNTS_H
#define TMTP_STORE_ACCOUNTS_H

#include "store/store.h"

/* For logging in: the password's argon2id hash. STORE_NOT_FOUND: no such account, or disabled. */
struct account_get {
	struct store_job job;
	struct slice domain, name; /* borrowed until done */
	int64_t account_id;        /* out */
	char password_hash[160];   /* out; wipe it */
};

void store_account_get(struct store *store, struct account_get *get);

/* A log-in's token, stored as SHA-256. Takes the account's expired ones away. STORE_NOT_FOUND: no such account, or disabled. */
struct account_token_add {
	struct store_job job;
	int64_t account_id;
	uint8_t hash[32];
	int64_t now_us, expires_us;
};

void store_account_token_add(struct store *store, struct account_token_add *add);

/* STORE_NOT_FOUND: no such token, expired, or the account is disabled. */
struct account_token_get {
	struct store_job job;
	int64_t account_id; /* written in the token */
	uint8_t hash[32];
	int64_t now_us;
	int64_t expires_us;         /* out */
	char address[64 + 1 + 254]; /* out */
};

void store_account_token_get(struct store *store, struct account_token_get *get);

/* Logging out. */
struct account_token_drop {
	struct store_job job;
	int64_t account_id;
	uint8_t hash[32];
};

void store_account_token_drop(struct store *store, struct account_token_drop *drop);

/* --- Administrators ---------------------------------------------------- */

enum account_change_kind { ACCOUNT_CREATE, ACCOUNT_PASSWORD, ACCOUNT_DISABLE, ACCOUNT_ENABLE };

/*
 * STORE_CONFLICT: the name is taken (sites and accounts share it, and
 * "channel.site" is a channel's); STORE_NOT_FOUND: no such account. A new
 * password and disabling end the account's log-ins.
 */
struct account_change {
	struct store_job job;
	const char *actor;
	enum account_change_kind kind;
	const char *domain, *name, *password_hash; /* borrowed until done */
	int64_t id;                                /* ACCOUNT_CREATE: of id_make */
	int64_t now_us;
};

void store_account_change(struct store *store, struct account_change *change);

struct account_row {
	int64_t account_id;
	char *address;
	int64_t created_us, disabled_us;
	bool takes_mail; /* the channel smtp is open */
};

struct account_list {
	struct store_job job;
	struct slice domain, after; /* after: a name of the page before */
	struct slice exact;         /* only the account of this name; empty: a page */
	unsigned limit;
	struct account_row *rows; /* out; freed by account_list_clear */
	size_t rows_n;
};

void store_account_list(struct store *store, struct account_list *list);
void account_list_clear(struct account_list *list);

#endif
