/*
 * Who calls. A website's signed token (JWT, RFC 7519, verified with libjwt
 * under RFC 8725's advice), a bounded cache of tokens already verified, and
 * opaque tokens "tmtp_<kind>_<random>", stored as SHA-256. Never logs a token.
 *
 * The way of a request: token_digest, token_cache_get; on a miss token_peek,
 * the caller finds the key of (iss, kid), token_verify, token_cache_put with the
 * generation from token_cache_get, so that a key revoked meanwhile isn't missed.
 */
#ifndef TMTP_WEB_TOKEN_H
#define TMTP_WEB_TOKEN_H

#include "base/slice.h"

/* Longest signed token, in octets. */
#define TOKEN_MAX 8192
/* Longest iss, kid, sub and jti, in octets. */
#define TOKEN_NAME_MAX 255
/* Longest scope. */
#define TOKEN_SCOPE_MAX 511

enum token_alg { TOKEN_ES256, TOKEN_RS256, TOKEN_HS256 };

enum token_rc {
	TOKEN_OK = 0,
	TOKEN_MALFORMED,   /* not strict JSON in base64url; a claim twice, or of another type */
	TOKEN_ALGORITHM,   /* none, unknown, or not the key's own */
	TOKEN_UNKNOWN_KEY, /* for callers: nothing found for (iss, kid) */
	TOKEN_BAD_KEY,     /* material refused: curve, size, a PEM as secret */
	TOKEN_BAD_SIGNATURE,
	TOKEN_WRONG_ISSUER,
	TOKEN_WRONG_AUDIENCE,
	TOKEN_EXPIRED,
	TOKEN_NOT_YET,  /* nbf or iat lies ahead */
	TOKEN_LIFETIME, /* exp lies too far ahead */
	TOKEN_MEMORY
};

/* For the log: "expired". */
const char *token_reason(enum token_rc rc);

/*
 * For the client, in a 401: helps with what the caller may know (times, audience,
 * format) and says one and the same for unknown key, issuer, algorithm and signature.
 */
const char *token_detail(enum token_rc rc);

/* What the token claims before anything is verified. */
struct token_peek {
	enum token_alg alg;
	char iss[TOKEN_NAME_MAX + 1];
	char kid[TOKEN_NAME_MAX + 1]; /* "" when absent */
};

/* Strict and bounded. TOKEN_OK, TOKEN_MALFORMED, TOKEN_ALGORITHM or TOKEN_MEMORY. */
enum token_rc token_peek(struct slice jwt, struct token_peek *out)
    __attribute__((warn_unused_result));

/* Verification material, checked once. */
struct token_key;

/*
 * material  ES256: a public P-256 key, PEM. RS256: a public RSA key of 2048 to 8192 bits, PEM.
 *           HS256: 32 to 1024 octets, anything but a public key.
 * site      whom iss must name; copied, at most TOKEN_NAME_MAX octets.
 * *out owns the key; token_key_free wipes it. TOKEN_OK, TOKEN_BAD_KEY or TOKEN_MEMORY.
 */
enum token_rc token_key_make(enum token_alg alg, struct slice material, struct slice site,
                             int64_t site_id, struct token_key **out)
    __attribute__((warn_unused_result));
void token_key_free(struct token_key **key);

struct token_expect {
	const char *aud;    /* this appliance; one of the token's audiences */
	int64_t now_s;      /* wall clock */
	int64_t skew_s;     /* 60 */
	int64_t max_life_s; /* how far exp may lie ahead, skew aside: 3600 */
};

struct token_claims {
	int64_t site_id; /* the key's */
	int64_t exp;     /* seconds since 1970 */
	int64_t iat;     /* 0: absent */
	char iss[TOKEN_NAME_MAX + 1];
	char sub[TOKEN_NAME_MAX + 1]; /* "" when absent */
	char kid[TOKEN_NAME_MAX + 1]; /* "" when absent */
	char jti[TOKEN_NAME_MAX + 1]; /* "" when absent */
	char
	    scope[TOKEN_SCOPE_MAX + 1]; /* words with single spaces between (RFC 8693), or "" */
	bool has_scope;                 /* there is one, though it may be "" */
};

/*
 * Everything: format, algorithm, signature, issuer, audience, times. On failure *out is
 * untouched.
 */
enum token_rc token_verify(struct slice jwt, const struct token_key *key,
                           const struct token_expect *expect, struct token_claims *out)
    __attribute__((warn_unused_result));

/* True when scope holds the word. */
bool token_has_scope(const struct token_claims *claims, const char *word);

/* --- the cache ------------------------------------------------------------- */

#define TOKEN_DIGEST 32

/* SHA-256 of a token as sent. */
void token_digest(struct slice token, uint8_t out[static TOKEN_DIGEST]);

struct token_cache;

/* For about so many tokens (a power of two, at least 1024). NULL: no memory. */
struct token_cache *token_cache_make(size_t entries);
void token_cache_free(struct token_cache **cache);

/*
 * True: *out holds the claims of this verified token, which hasn't expired at now_s (exp
 * itself, no skew) and whose key hadn't been revoked. *generation is for token_cache_put.
 */
bool token_cache_get(struct token_cache *cache, const uint8_t digest[static TOKEN_DIGEST],
                     int64_t now_s, struct token_claims *out, uint64_t *generation);

/* Remembers a verified token, unless the cache was cleared since generation was read. */
void token_cache_put(struct token_cache *cache, const uint8_t digest[static TOKEN_DIGEST],
                     const struct token_claims *claims, uint64_t generation);

/* A key was revoked or a site closed: nothing put before, or on its way, is found any more. */
void token_cache_clear(struct token_cache *cache);

/* --- opaque tokens --------------------------------------------------------- */

/* "tmtp_" kind "_" 52 characters of base32: 32 random octets. */
#define TOKEN_OPAQUE_KIND_MAX 16
#define TOKEN_OPAQUE_TEXT (5 + TOKEN_OPAQUE_KIND_MAX + 1 + 52 + 1)

/* A new one; kind is [a-z]{1,16}. False: kind isn't. */
bool token_opaque_make(const char *kind, char out[static TOKEN_OPAQUE_TEXT])
    __attribute__((warn_unused_result));

/*
 * The kind of a well-formed opaque token; borrows from text. Store and look up by
 * token_digest of the whole text. False: not one; kind untouched.
 */
bool token_opaque_parse(struct slice text, struct slice *kind);

/* Equal, in a time that doesn't depend on where they differ. */
bool token_equal(const uint8_t *a, const uint8_t *b, size_t len);

#endif
