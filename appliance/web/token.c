/*
 * Signed tokens: see token.h. libjwt checks the signature and nothing else: it
 * would take HS256 with a public key as the secret, ES256 with a P-384 key, and
 * any exp. So the key is judged when it is made, the algorithm is the key's own,
 * and the claims are read here, from the very octets that are signed.
 */
#include "web/token.h"

#include "web/body.h"

#include <errno.h>
#include <jwt.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdlib.h>
#include <strings.h>

#define SECRET_MIN 32
#define SECRET_MAX 1024
#define PEM_MAX 16384
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192

struct token_key {
	enum token_alg alg;
	int64_t site_id;
	char site[TOKEN_NAME_MAX + 1];
	size_t len;
	uint8_t material[];
};

/* --- words ----------------------------------------------------------------- */

const char *
token_reason(enum token_rc rc)
{
	static const char *const reasons[] = {
		[TOKEN_OK] = "ok",
		[TOKEN_MALFORMED] = "malformed",
		[TOKEN_ALGORITHM] = "algorithm",
		[TOKEN_UNKNOWN_KEY] = "unknown-key",
		[TOKEN_BAD_KEY] = "bad-key",
		[TOKEN_BAD_SIGNATURE] = "bad-signature",
		[TOKEN_WRONG_ISSUER] = "wrong-issuer",
		[TOKEN_WRONG_AUDIENCE] = "wrong-audience",
		[TOKEN_EXPIRED] = "expired",
		[TOKEN_NOT_YET] = "not-yet",
		[TOKEN_LIFETIME] = "lifetime",
		[TOKEN_MEMORY] = "memory",
	};

	return reasons[rc];
}

const char *
token_detail(enum token_rc rc)
{
	switch (rc) {
	case TOKEN_MALFORMED:
		return "The token isn't a signed JWT with iss, aud and exp, each of its right "
		       "type and at most once; a kid in its header is a string, and a crit "
		       "isn't understood.";
	case TOKEN_WRONG_AUDIENCE:
		return "The token's aud doesn't name this appliance.";
	case TOKEN_EXPIRED:
		return "The token has expired; check the clock and sign a new one.";
	case TOKEN_NOT_YET:
		return "The token isn't valid yet (nbf or iat); check the clock.";
	case TOKEN_LIFETIME:
		return "The token's exp lies too far ahead; an hour is the most.";
	case TOKEN_MEMORY:
		return "The token can't be checked at the moment.";
	default:
		return "The token can't be verified.";
	}
}

/* --- format ---------------------------------------------------------------- */

struct token_parts {
	json_t *header, *payload; /* owned */
	size_t signature_len;     /* characters */
};

static void
parts_free(struct token_parts *p)
{
	json_decref(p->header);
	json_decref(p->payload);
	*p = (struct token_parts){ .signature_len = 0 };
}

/* base64url without padding (RFC 7515 section 2) around one strict JSON object. */
static enum token_rc
part_decode(struct slice part, json_t **out)
{
	uint8_t text[TOKEN_MAX];
	char error[160];
	size_t len;

	if (part.len == 0 ||
	    sodium_base642bin(text, sizeof(text), (const char *)part.data, part.len, NULL, &len,
	                      NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return TOKEN_MALFORMED;
	switch (web_json_parse(slice_mem(text, len), out, error)) {
	case WEB_BODY_OK:
		return TOKEN_OK;
	case WEB_BODY_MEMORY:
		return TOKEN_MEMORY;
	default:
		return TOKEN_MALFORMED;
	}
}

/* A signature of canonical base64url; else one token could have several spellings. */
static bool
signature_is_fine(struct slice part)
{
	uint8_t octets[TOKEN_MAX];
	size_t len;

	return part.len == 0 ||
	       sodium_base642bin(octets, sizeof(octets), (const char *)part.data, part.len,
	                         NULL, &len, NULL,
	                         sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

static enum token_rc
token_split(struct slice jwt, struct token_parts *out)
{
	const uint8_t *end = jwt.data + jwt.len, *a, *b;
	enum token_rc rc;

	*out = (struct token_parts){ .signature_len = 0 };
	if (jwt.len == 0 || jwt.len > TOKEN_MAX)
		return TOKEN_MALFORMED;
	a = memchr(jwt.data, '.', jwt.len);
	b = a == NULL ? NULL : memchr(a + 1, '.', (size_t)(end - a - 1));
	if (b == NULL || !signature_is_fine(slice_mem(b + 1, (size_t)(end - b - 1))))
		return TOKEN_MALFORMED;
	out->signature_len = (size_t)(end - b - 1);
	rc = part_decode(slice_mem(jwt.data, (size_t)(a - jwt.data)), &out->header);
	if (rc == TOKEN_OK)
		rc = part_decode(slice_mem(a + 1, (size_t)(b - a - 1)), &out->payload);
	if (rc != TOKEN_OK)
		parts_free(out);
	return rc;
}

/* A string of at most max octets into out; absent leaves out "". */
static bool
claim_string(const json_t *object, const char *name, bool required, size_t max, char *out)
{
	const json_t *value = json_object_get(object, name);
	size_t len = json_string_length(value);

	out[0] = '\0';
	if (value == NULL)
		return !required;
	if (!json_is_string(value) || len > max || (required && len == 0))
		return false;
	memcpy(out, json_string_value(value), len + 1);
	return true;
}

/* A NumericDate (RFC 7519 section 2), fractions cut; absent gives 0. */
static bool
claim_time(const json_t *object, const char *name, bool required, int64_t *out)
{
	const json_t *value = json_object_get(object, name);
	double real;

	*out = 0;
	if (value == NULL)
		return !required;
	if (json_is_integer(value)) {
		*out = json_integer_value(value);
		return *out >= 0 && *out <= INT64_C(1) << 53;
	}
	real = json_real_value(value);
	if (!json_is_real(value) || !(real >= 0 && real <= (double)(INT64_C(1) << 53)))
		return false;
	*out = (int64_t)real;
	return true;
}

static enum token_rc
header_read(const json_t *header, size_t signature_len, enum token_alg *alg,
            char kid[static TOKEN_NAME_MAX + 1])
{
	char name[16], type[16];

	/* "crit" asks for extensions that aren't understood here: RFC 7515 section 4.1.11. */
	if (json_object_get(header, "crit") != NULL ||
	    !claim_string(header, "kid", false, TOKEN_NAME_MAX, kid) ||
	    !claim_string(header, "typ", false, sizeof(type) - 1, type) ||
	    (type[0] != '\0' && strcasecmp(type, "JWT") != 0) ||
	    !json_is_string(json_object_get(header, "alg")))
		return TOKEN_MALFORMED;
	if (!claim_string(header, "alg", true, sizeof(name) - 1, name))
		return TOKEN_ALGORITHM;
	if (strcmp(name, "ES256") == 0)
		*alg = TOKEN_ES256;
	else if (strcmp(name, "RS256") == 0)
		*alg = TOKEN_RS256;
	else if (strcmp(name, "HS256") == 0)
		*alg = TOKEN_HS256;
	else
		return TOKEN_ALGORITHM;
	return signature_len == 0 ? TOKEN_MALFORMED : TOKEN_OK;
}

enum token_rc
token_peek(struct slice jwt, struct token_peek *out)
{
	struct token_peek peek;
	struct token_parts parts;
	enum token_rc rc = token_split(jwt, &parts);

	if (rc != TOKEN_OK)
		return rc;
	rc = header_read(parts.header, parts.signature_len, &peek.alg, peek.kid);
	if (rc == TOKEN_OK &&
	    !claim_string(parts.payload, "iss", true, TOKEN_NAME_MAX, peek.iss))
		rc = TOKEN_MALFORMED;
	if (rc == TOKEN_OK)
		*out = peek;
	parts_free(&parts);
	return rc;
}

/* --- keys ------------------------------------------------------------------ */

static bool
public_key_fits(enum token_alg alg, EVP_PKEY *pkey)
{
	char group[64];
	size_t len;

	if (alg == TOKEN_RS256)
		return EVP_PKEY_get_base_id(pkey) == EVP_PKEY_RSA &&
		       EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN &&
		       EVP_PKEY_get_bits(pkey) <= RSA_BITS_MAX;
	return EVP_PKEY_get_base_id(pkey) == EVP_PKEY_EC &&
	       EVP_PKEY_get_group_name(pkey, group, sizeof(group), &len) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

static bool
public_material_is_fine(enum token_alg alg, struct slice material)
{
	EVP_PKEY *pkey;
	BIO *bio;
	bool fine;

	if (material.len == 0 || material.len > PEM_MAX)
		return false;
	bio = BIO_new_mem_buf(material.data, (int)material.len);
	pkey = bio == NULL ? NULL : PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	fine = pkey != NULL && public_key_fits(alg, pkey);
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	ERR_clear_error();
	return fine;
}

/* Whoever pastes a public key where a secret belongs would let everybody sign. */
static bool
secret_is_fine(struct slice material)
{
	const unsigned char *der = material.data;
	EVP_PKEY *pkey;
	X509 *cert;

	if (material.len < SECRET_MIN || material.len > SECRET_MAX ||
	    memmem(material.data, material.len, "-----BEGIN", 10) != NULL)
		return false;
	pkey = d2i_PUBKEY(NULL, &der, (long)material.len);
	der = material.data;
	cert = d2i_X509(NULL, &der, (long)material.len);
	ERR_clear_error();
	EVP_PKEY_free(pkey);
	X509_free(cert);
	return pkey == NULL && cert == NULL;
}

enum token_rc
token_key_make(enum token_alg alg, struct slice material, struct slice site, int64_t site_id,
               struct token_key **out)
{
	struct token_key *key;

	if (site.len == 0 || site.len > TOKEN_NAME_MAX)
		return TOKEN_BAD_KEY;
	if (alg == TOKEN_HS256 ? !secret_is_fine(material)
	                       : !public_material_is_fine(alg, material))
		return TOKEN_BAD_KEY;
	key = calloc(1, sizeof(*key) + material.len);
	if (key == NULL)
		return TOKEN_MEMORY;
	key->alg = alg;
	key->site_id = site_id;
	memcpy(key->site, site.data, site.len);
	key->len = material.len;
	memcpy(key->material, material.data, material.len);
	*out = key;
	return TOKEN_OK;
}

void
token_key_free(struct token_key **key)
{
	if (*key != NULL)
		sodium_memzero((*key)->material, (*key)->len);
	free(*key);
	*key = NULL;
}

/* --- verification ---------------------------------------------------------- */

static jwt_alg_t
library_alg(enum token_alg alg)
{
	return alg == TOKEN_ES256   ? JWT_ALG_ES256
	       : alg == TOKEN_RS256 ? JWT_ALG_RS256
	                            : JWT_ALG_HS256;
}

static enum token_rc
signature_check(struct slice jwt, const struct token_key *key)
{
	char text[TOKEN_MAX + 1];
	jwt_t *decoded = NULL;
	enum token_rc rc = TOKEN_OK;
	int error;

	memcpy(text, jwt.data, jwt.len);
	text[jwt.len] = '\0';
	error = jwt_decode(&decoded, text, key->material, (int)key->len);
	ERR_clear_error();
	if (error != 0)
		rc = error == ENOMEM ? TOKEN_MEMORY : TOKEN_BAD_SIGNATURE;
	else if (jwt_get_alg(decoded) != library_alg(key->alg))
		rc = TOKEN_ALGORITHM;
	jwt_free(decoded);
	return rc;
}

/* One of aud's strings is ours; anything but strings in it makes the token malformed. */
static enum token_rc
audience_check(const json_t *aud, const char *ours)
{
	bool found = false;

	if (json_is_string(aud))
		return strcmp(json_string_value(aud), ours) == 0 ? TOKEN_OK
		                                                 : TOKEN_WRONG_AUDIENCE;
	if (!json_is_array(aud) || json_array_size(aud) == 0)
		return TOKEN_MALFORMED;
	for (size_t i = 0; i < json_array_size(aud); i++) {
		const json_t *item = json_array_get(aud, i);

		if (!json_is_string(item))
			return TOKEN_MALFORMED;
		found = found || strcmp(json_string_value(item), ours) == 0;
	}
	return found ? TOKEN_OK : TOKEN_WRONG_AUDIENCE;
}

static enum token_rc
times_check(const struct token_claims *claims, int64_t nbf, const struct token_expect *expect)
{
	if (expect->now_s >= claims->exp + expect->skew_s)
		return TOKEN_EXPIRED;
	if (nbf > expect->now_s + expect->skew_s ||
	    claims->iat > expect->now_s + expect->skew_s)
		return TOKEN_NOT_YET;
	if (claims->exp > expect->now_s + expect->max_life_s + expect->skew_s)
		return TOKEN_LIFETIME;
	return TOKEN_OK;
}

static enum token_rc
claims_read(const json_t *payload, const struct token_key *key,
            const struct token_expect *expect, struct token_claims *out)
{
	int64_t nbf;
	enum token_rc rc;

	if (!claim_string(payload, "iss", true, TOKEN_NAME_MAX, out->iss) ||
	    !claim_string(payload, "sub", false, TOKEN_NAME_MAX, out->sub) ||
	    !claim_string(payload, "jti", false, TOKEN_NAME_MAX, out->jti) ||
	    !claim_string(payload, "scope", false, TOKEN_SCOPE_MAX, out->scope) ||
	    !claim_time(payload, "exp", true, &out->exp) ||
	    !claim_time(payload, "nbf", false, &nbf) ||
	    !claim_time(payload, "iat", false, &out->iat))
		return TOKEN_MALFORMED;
	out->has_scope = json_object_get(payload, "scope") != NULL;
	rc = audience_check(json_object_get(payload, "aud"), expect->aud);
	if (rc != TOKEN_OK)
		return rc;
	if (strcmp(out->iss, key->site) != 0)
		return TOKEN_WRONG_ISSUER;
	return times_check(out, nbf, expect);
}

/* What is cheap comes first: a signature costs a thousand times what the claims do. */
enum token_rc
token_verify(struct slice jwt, const struct token_key *key, const struct token_expect *expect,
             struct token_claims *out)
{
	struct token_claims claims;
	struct token_parts parts;
	enum token_alg alg;
	enum token_rc rc = token_split(jwt, &parts);

	if (rc != TOKEN_OK)
		return rc;
	rc = header_read(parts.header, parts.signature_len, &alg, claims.kid);
	if (rc == TOKEN_OK && alg != key->alg)
		rc = TOKEN_ALGORITHM;
	if (rc == TOKEN_OK)
		rc = claims_read(parts.payload, key, expect, &claims);
	parts_free(&parts);
	if (rc == TOKEN_OK)
		rc = signature_check(jwt, key);
	if (rc != TOKEN_OK)
		return rc;
	claims.site_id = key->site_id;
	*out = claims;
	return TOKEN_OK;
}

bool
token_has_scope(const struct token_claims *claims, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = claims->scope; *at != '\0';) {
		size_t n = strcspn(at, " ");

		if (n == len && n > 0 && memcmp(at, word, n) == 0)
			return true;
		at += n;
		at += strspn(at, " ");
	}
	return false;
}
