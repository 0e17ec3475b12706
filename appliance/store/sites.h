/*
 * Sites, their channels and who may speak for them: read by the site role,
 * changed by administrators. Every change raises the revision, at which
 * processes forget what they keep in memory.
 */
#ifndef TMTP_STORE_SITES_H
#define TMTP_STORE_SITES_H

#include "store/store.h"

/* The revision number; raised with every change of sites, keys, tokens and accounts. */
struct revision_get {
	struct store_job job;
	int64_t number; /* out */
};

void store_revision_get(struct store *store, struct revision_get *get);

/* A key that verifies a site's JWTs: by the site's address ("iss") and the key's id. STORE_NOT_FOUND: none that is valid. */
struct site_key_get {
	struct store_job job;
	struct slice domain, name, kid; /* borrowed until done */
	/* out; material is wiped and freed by site_key_get_clear */
	int64_t site_id;
	char algorithm[8];
	uint8_t *material;
	size_t material_len;
	bool suspended;
};

void store_site_key_get(struct store *store, struct site_key_get *get);
void site_key_get_clear(struct site_key_get *get);

/* An opaque token by its hash. STORE_NOT_FOUND: none, revoked or expired at now_us. */
struct site_token_get {
	struct store_job job;
	int64_t site_id; /* written in the token */
	uint8_t hash[32];
	int64_t now_us;
	/* out; freed by site_token_get_clear */
	char *scopes; /* separated by blanks */
	char *site_name, *site_domain;
	int64_t expires_us; /* -1: never */
	bool suspended;
};

void store_site_token_get(struct store *store, struct site_token_get *get);
void site_token_get_clear(struct site_token_get *get);

/* A channel of a site by its name (STORE_NOT_FOUND: none, or closed), or all of a site's, closed ones too. */
struct channel_row {
	int64_t channel_id;
	char name[32];
	char *title;
	int64_t created_us, closed_us; /* closed -1: open */
	int64_t members;               /* as last counted */
};

struct channel_list {
	struct store_job job;
	int64_t site_id;
	struct slice name;        /* only this one, open or closed; empty: all, by name */
	struct channel_row *rows; /* out; freed by channel_list_clear */
	size_t rows_n;
};

void store_channel_list(struct store *store, struct channel_list *list);
void channel_list_clear(struct channel_list *list);

/* --- Administrators (tmtpctl, the panel) ------------------------------- */

/* Who changes something, for the audit log written in the same transaction. */
struct audit_by {
	const char *actor; /* "root@host" or an administrator's name */
};

struct site_row {
	int64_t site_id;
	char *address, *title;
	int64_t created_us, suspended_us;
	int64_t keys, tokens, channels; /* neither revoked nor closed */
};

struct site_list {
	struct store_job job;
	struct slice domain, name; /* only this one; empty: all */
	struct site_row *rows;     /* out; freed by site_list_clear */
	size_t rows_n;
};

void store_site_list(struct store *store, struct site_list *list);
void site_list_clear(struct site_list *list);

/*
 * One change each. STORE_CONFLICT: the name is taken (for a channel also by an
 * account called "channel.site"); STORE_NOT_FOUND: no such site, key, token or
 * channel; STORE_REFUSED: an algorithm that isn't known. What is ended
 * (suspended, revoked, closed) a second time keeps its first time: STORE_OK.
 */
enum site_change_kind {
	SITE_CREATE,  /* domain, name, title */
	SITE_SUSPEND, /* nothing of it is accepted any more */
	SITE_RESUME,
	SITE_KEY_ADD,      /* kid, algorithm, material */
	SITE_KEY_REVOKE,   /* kid */
	SITE_TOKEN_ADD,    /* label, material = SHA-256 of the token, scopes, expires_us */
	SITE_TOKEN_REVOKE, /* label */
	CHANNEL_CREATE,    /* channel, title */
	CHANNEL_CLOSE,     /* channel */
};

struct site_change {
	struct store_job job;
	struct audit_by by;
	enum site_change_kind kind;
	const char *domain, *name; /* the site; all borrowed until done */
	const char *title, *kid, *algorithm, *label, *channel;
	const char *scopes; /* separated by blanks */
	struct slice material;
	int64_t expires_us; /* -1: never */
	int64_t id;         /* for what is created: of id_make */
	int64_t now_us;
};

void store_site_change(struct store *store, struct site_change *change);

/* Keys and tokens of a site, for listing; never their material. */
struct credential_row {
	bool is_token;
	char *label; /* kid or the token's name */
	char *what;  /* algorithm or scopes */
	int64_t created_us, expires_us, revoked_us;
};

struct credential_list {
	struct store_job job;
	const char *domain, *name;
	struct credential_row *rows; /* out; freed by credential_list_clear */
	size_t rows_n;
};

void store_credential_list(struct store *store, struct credential_list *list);
void credential_list_clear(struct credential_list *list);

#endif
