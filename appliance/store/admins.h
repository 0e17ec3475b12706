/*
 * Tokens of administrators: made and revoked with tmtpctl, looked up by the
 * role panel with every request, so that a revocation counts at once.
 */
#ifndef TMTP_STORE_ADMINS_H
#define TMTP_STORE_ADMINS_H

#include "store/sites.h"

#define ADMIN_NAME 65    /* 64 octets and a NUL */
#define ADMIN_SCOPES 128 /* and so many scopes' names */

/* By its hash. STORE_NOT_FOUND: none, revoked or expired at now_us. */
struct admin_token_get {
	struct store_job job;
	uint8_t hash[32];
	int64_t now_us;
	char name[ADMIN_NAME], scopes[ADMIN_SCOPES]; /* out; scopes separated by blanks */
};

void store_admin_token_get(struct store *store, struct admin_token_get *get);

struct admin_token_row {
	char name[ADMIN_NAME], scopes[ADMIN_SCOPES];
	int64_t created_us, expires_us, revoked_us; /* -1: not */
};

/* All, the oldest first. */
struct admin_token_list {
	struct store_job job;
	struct admin_token_row *rows; /* out; freed by admin_token_list_clear */
	size_t rows_n;
};

void store_admin_token_list(struct store *store, struct admin_token_list *list);
void admin_token_list_clear(struct admin_token_list *list);

/* STORE_CONFLICT: the name is taken, also by one that was revoked. STORE_NOT_FOUND: no such name. */
enum admin_token_change_kind {
	ADMIN_TOKEN_ADD, /* hash, scopes, expires_us */
	ADMIN_TOKEN_REVOKE,
};

struct admin_token_change {
	struct store_job job;
	struct audit_by by;
	enum admin_token_change_kind kind;
	const char *name, *scopes; /* borrowed until done */
	uint8_t hash[32];
	int64_t expires_us; /* -1: never */
	int64_t now_us;
};

void store_admin_token_change(struct store *store, struct admin_token_change *change);

#endif
