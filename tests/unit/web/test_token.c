/*
 * Signed tokens, their cache, opaque tokens. Tokens are put together and signed
 * here by hand, so that every forgery can be made.
 */
#include "base/clock.h"
#include "web/token.h"

#include <jansson.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define NOW INT64_C(1800000000)
#define SECRET "0123456789abcdef0123456789abcdef"

static EVP_PKEY *p256, *p384, *rsa2048, *rsa1024;
static char p256_pem[4096], p384_pem[4096], rsa2048_pem[4096], rsa1024_pem[4096];

static const struct token_expect expect = {
	.aud = "https://appliance.example", .now_s = NOW, .skew_s = 60, .max_life_s = 3600
};

/* --- forging --------------------------------------------------------------- */

static void
b64(const void *data, size_t len, char *out, size_t size)
{
	(void)sodium_bin2base64(out, size, data, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* The raw form r || s that JWS wants (RFC 7518 section 3.4). */
static size_t
ecdsa_raw(const uint8_t *der, size_t len, int half, uint8_t *out)
{
	const uint8_t *p = der;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &p, (long)len);
	const BIGNUM *r, *s;

	assert_non_null(sig);
	ECDSA_SIG_get0(sig, &r, &s);
	assert_int_equal(BN_bn2binpad(r, out, half), half);
	assert_int_equal(BN_bn2binpad(s, out + half, half), half);
	ECDSA_SIG_free(sig);
	return (size_t)half * 2;
}

static size_t
sign_public(EVP_PKEY *key, const char *text, uint8_t *out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t der[1024];
	size_t len = sizeof(der);

	assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
	assert_int_equal(EVP_DigestSign(ctx, der, &len, (const uint8_t *)text, strlen(text)),
	                 1);
	EVP_MD_CTX_free(ctx);
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC)
		return ecdsa_raw(der, len, (EVP_PKEY_get_bits(key) + 7) / 8, out);
	memcpy(out, der, len);
	return len;
}

/* A token of any header and payload, signed by key, or by HMAC with secret, or not at all. */
static struct slice
forge_with(const char *header, const char *payload, EVP_PKEY *key, struct slice secret)
{
	static char token[16384];
	uint8_t signature[1024];
	unsigned mac_len;
	size_t n, len = 0;

	b64(header, strlen(header), token, sizeof(token));
	n = strlen(token);
	token[n++] = '.';
	b64(payload, strlen(payload), token + n, sizeof(token) - n);
	n += strlen(token + n);
	token[n] = '\0';
	if (key != NULL) {
		len = sign_public(key, token, signature);
	} else if (secret.len > 0) {
		assert_non_null(HMAC(EVP_sha256(), secret.data, (int)secret.len,
		                     (const uint8_t *)token, n, signature, &mac_len));
		len = mac_len;
	}
	token[n++] = '.';
	token[n] = '\0';
	if (len > 0)
		b64(signature, len, token + n, sizeof(token) - n);
	return slice_str(token);
}

static struct slice
forge(const char *alg, const char *payload)
{
	char header[200];

	(void)snprintf(header, sizeof(header),
	               "{\"alg\":\"%s\",\"typ\":\"JWT\",\"kid\":\"k1\"}", alg);
	return forge_with(header, payload,
	                  strcmp(alg, "ES256") == 0   ? p256
	                  : strcmp(alg, "RS256") == 0 ? rsa2048
	                                              : NULL,
	                  strcmp(alg, "HS256") == 0 ? SLICE(SECRET) : slice_str(NULL));
}

#define GOOD_CLAIMS                                                                  \
	"\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1800000600," \
	"\"iat\":1800000000"

static struct token_key *
make_key(enum token_alg alg)
{
	struct token_key *key = NULL;
	struct slice material = alg == TOKEN_ES256   ? slice_str(p256_pem)
	                        : alg == TOKEN_RS256 ? slice_str(rsa2048_pem)
	                                             : SLICE(SECRET);

	assert_int_equal(token_key_make(alg, material, SLICE("shop"), 42, &key), TOKEN_OK);
	return key;
}

static enum token_rc
verify(struct slice token, enum token_alg alg, struct token_claims *claims)
{
	struct token_key *key = make_key(alg);
	/* flush against the end of its memory, for the sanitizer */
	uint8_t *exact = malloc(token.len == 0 ? 1 : token.len);
	enum token_rc rc;

	memcpy(exact, token.data, token.len);
	rc = token_verify(slice_mem(exact, token.len), key, &expect, claims);
	free(exact);
	token_key_free(&key);
	assert_null(key);
	return rc;
}

/* --- signed tokens --------------------------------------------------------- */

static void
test_good_tokens_of_each_algorithm(void **state)
{
	static const char *const names[] = { "ES256", "RS256", "HS256" };
	struct token_claims c;
	struct token_peek peek;

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct slice token =
		    forge(names[i], "{" GOOD_CLAIMS ",\"sub\":\"u\",\"jti\":\"j\","
		                    "\"scope\":\"push channels:read\",\"other\":{\"a\":1}}");

		assert_int_equal(token_peek(token, &peek), TOKEN_OK);
		assert_int_equal(peek.alg, i);
		assert_string_equal(peek.iss, "shop");
		assert_string_equal(peek.kid, "k1");
		assert_int_equal(verify(token, (enum token_alg)i, &c), TOKEN_OK);
		assert_int_equal(c.site_id, 42);
		assert_int_equal(c.exp, 1800000600);
		assert_int_equal(c.iat, 1800000000);
		assert_string_equal(c.iss, "shop");
		assert_string_equal(c.sub, "u");
		assert_string_equal(c.jti, "j");
		assert_string_equal(c.kid, "k1");
		assert_true(token_has_scope(&c, "push"));
		assert_true(token_has_scope(&c, "channels:read"));
		assert_false(token_has_scope(&c, "channels"));
		assert_false(token_has_scope(&c, "pus"));
		assert_false(token_has_scope(&c, ""));
		assert_true(c.has_scope);
	}
}

static void
test_claims_table(void **state)
{
	static const struct {
		const char *payload;
		enum token_rc rc;
	} table[] = {
		{ "{" GOOD_CLAIMS "}", TOKEN_OK },
		/* libjwt looks at none of these */
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\"}", TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1799999940}",
		  TOKEN_EXPIRED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1799999941}",
		  TOKEN_OK },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":0}",
		  TOKEN_EXPIRED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":-1}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1800003660}",
		  TOKEN_OK },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1800003661}",
		  TOKEN_LIFETIME },
		{ "{\"iss\":\"shop\",\"aud\":\"https://"
		  "appliance.example\",\"exp\":9223372036854775807}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://"
		  "appliance.example\",\"exp\":1800000600.5}",
		  TOKEN_OK },
		{ "{\"iss\":\"shop\",\"aud\":\"https://"
		  "appliance.example\",\"exp\":\"1800000600\"}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":true}",
		  TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS ",\"nbf\":1800000060}", TOKEN_OK },
		{ "{" GOOD_CLAIMS ",\"nbf\":1800000061}", TOKEN_NOT_YET },
		{ "{" GOOD_CLAIMS ",\"nbf\":\"now\"}", TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example\",\"exp\":1800000600,"
		  "\"iat\":1800000061}",
		  TOKEN_NOT_YET },
		/* a claim twice */
		{ "{" GOOD_CLAIMS ",\"exp\":1800000600}", TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS ",\"x\":1,\"x\":2}", TOKEN_MALFORMED },
		/* issuer */
		{ "{\"iss\":\"other\",\"aud\":\"https://"
		  "appliance.example\",\"exp\":1800000600}",
		  TOKEN_WRONG_ISSUER },
		{ "{\"aud\":\"https://appliance.example\",\"exp\":1800000600}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":7,\"aud\":\"https://appliance.example\",\"exp\":1800000600}",
		  TOKEN_MALFORMED },
		/* audience: string or array */
		{ "{\"iss\":\"shop\",\"aud\":\"https://appliance.example/"
		  "\",\"exp\":1800000600}",
		  TOKEN_WRONG_AUDIENCE },
		{ "{\"iss\":\"shop\",\"aud\":[\"https://x\",\"https://appliance.example\"],"
		  "\"exp\":1800000600}",
		  TOKEN_OK },
		{ "{\"iss\":\"shop\",\"aud\":[\"https://x\"],\"exp\":1800000600}",
		  TOKEN_WRONG_AUDIENCE },
		{ "{\"iss\":\"shop\",\"aud\":[],\"exp\":1800000600}", TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":[\"https://"
		  "appliance.example\",1],\"exp\":1800000600}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"aud\":{\"https://"
		  "appliance.example\":1},\"exp\":1800000600}",
		  TOKEN_MALFORMED },
		{ "{\"iss\":\"shop\",\"exp\":1800000600}", TOKEN_MALFORMED },
		/* types of the rest */
		{ "{" GOOD_CLAIMS ",\"sub\":1}", TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS ",\"scope\":[\"push\"]}", TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS ",\"jti\":null}", TOKEN_MALFORMED },
		{ "["
		  "]",
		  TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS "} ", TOKEN_OK },
		{ "{" GOOD_CLAIMS "}}", TOKEN_MALFORMED },
		{ "{" GOOD_CLAIMS ",\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
		  TOKEN_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct token_claims c = { .site_id = 7 };

		assert_int_equal(verify(forge("HS256", table[i].payload), TOKEN_HS256, &c),
		                 table[i].rc);
		assert_int_equal(c.site_id, table[i].rc == TOKEN_OK ? 42 : 7); /* untouched */
	}
}

static void
test_the_algorithm_is_the_keys_own(void **state)
{
	static const char *const others[] = { "none",  "NONE",  "None",  "nOnE",  "HS384",
		                              "HS512", "RS384", "ES384", "ES512", "PS256",
		                              "EdDSA", "",      "es256", "HS256 " };
	struct token_claims c;
	struct token_peek peek;

	(void)state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		assert_int_equal(token_peek(forge(others[i], "{" GOOD_CLAIMS "}"), &peek),
		                 TOKEN_ALGORITHM);
		for (int alg = 0; alg < 3; alg++)
			assert_int_equal(verify(forge(others[i], "{" GOOD_CLAIMS "}"),
			                        (enum token_alg)alg, &c),
			                 TOKEN_ALGORITHM);
	}
	/* none with somebody's signature behind it */
	assert_int_equal(
	    verify(forge_with("{\"alg\":\"none\"}", "{" GOOD_CLAIMS "}", p256, slice_str(NULL)),
	           TOKEN_ES256, &c),
	    TOKEN_ALGORITHM);
	/* each good one against the keys of the others */
	assert_int_equal(verify(forge("HS256", "{" GOOD_CLAIMS "}"), TOKEN_ES256, &c),
	                 TOKEN_ALGORITHM);
	assert_int_equal(verify(forge("HS256", "{" GOOD_CLAIMS "}"), TOKEN_RS256, &c),
	                 TOKEN_ALGORITHM);
	assert_int_equal(verify(forge("RS256", "{" GOOD_CLAIMS "}"), TOKEN_ES256, &c),
	                 TOKEN_ALGORITHM);
	assert_int_equal(verify(forge("ES256", "{" GOOD_CLAIMS "}"), TOKEN_HS256, &c),
	                 TOKEN_ALGORITHM);
}

/* The classic: sign with the public key as if it were a shared secret. */
static void
test_hs256_with_a_public_key_as_secret(void **state)
{
	struct token_claims c;
	struct token_key *key = NULL;
	uint8_t *der = NULL;
	int len = i2d_PUBKEY(p256, &der);
	char padded[5000];

	(void)state;
	assert_int_equal(verify(forge_with("{\"alg\":\"HS256\"}", "{" GOOD_CLAIMS "}", NULL,
	                                   slice_str(rsa2048_pem)),
	                        TOKEN_RS256, &c),
	                 TOKEN_ALGORITHM);
	assert_int_equal(verify(forge_with("{\"alg\":\"HS256\"}", "{" GOOD_CLAIMS "}", NULL,
	                                   slice_str(p256_pem)),
	                        TOKEN_ES256, &c),
	                 TOKEN_ALGORITHM);
	assert_int_equal(
	    token_key_make(TOKEN_HS256, slice_str(p256_pem), SLICE("shop"), 1, &key),
	    TOKEN_BAD_KEY);
	(void)snprintf(padded, sizeof(padded), "\n %s", p256_pem);
	assert_int_equal(token_key_make(TOKEN_HS256, slice_str(padded), SLICE("shop"), 1, &key),
	                 TOKEN_BAD_KEY);
	assert_int_equal(
	    token_key_make(TOKEN_HS256, slice_mem(der, (size_t)len), SLICE("shop"), 1, &key),
	    TOKEN_BAD_KEY);
	assert_null(key);
	OPENSSL_free(der);
}

static void
test_keys_that_are_refused(void **state)
{
	static const char cert[] =
	    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
	struct token_key *key = NULL;
	char big[2000];
	const struct {
		enum token_alg alg;
		struct slice material;
	} table[] = {
		{ TOKEN_ES256, slice_str(p384_pem) },
		{ TOKEN_ES256, slice_str(rsa2048_pem) },
		{ TOKEN_RS256, slice_str(p256_pem) },
		{ TOKEN_RS256, slice_str(rsa1024_pem) },
		{ TOKEN_ES256, slice_str("") },
		{ TOKEN_ES256, slice_str("junk") },
		{ TOKEN_ES256, slice_str(cert) },
		{ TOKEN_HS256, slice_str("") },
		{ TOKEN_HS256, slice_mem(SECRET, 31) },
		{ TOKEN_HS256, slice_mem(big, 1025) },
		{ TOKEN_ES256, slice_mem(p256_pem, 60) },
		{ TOKEN_ES256, slice_mem(big, 2000) },
	};

	(void)state;
	memset(big, 'x', sizeof(big));
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(
		    token_key_make(table[i].alg, table[i].material, SLICE("shop"), 1, &key),
		    TOKEN_BAD_KEY);
	assert_int_equal(token_key_make(TOKEN_HS256, SLICE(SECRET), slice_str(""), 1, &key),
	                 TOKEN_BAD_KEY);
	assert_int_equal(
	    token_key_make(TOKEN_HS256, SLICE(SECRET), slice_mem(big, 256), 1, &key),
	    TOKEN_BAD_KEY);
	assert_null(key);
}

/*
 * libjwt takes ES256 from a P-384 key; here such a key never becomes one, and its signature is
 * no P-256 one.
 */
static void
test_es256_signed_with_p384(void **state)
{
	struct token_claims c;

	(void)state;
	assert_int_equal(verify(forge_with("{\"alg\":\"ES256\"}", "{" GOOD_CLAIMS "}", p384,
	                                   slice_str(NULL)),
	                        TOKEN_ES256, &c),
	                 TOKEN_BAD_SIGNATURE);
}

static void
test_signatures_that_do_not_fit(void **state)
{
	static const char *const names[] = { "ES256", "RS256", "HS256" };
	struct token_claims c;
	char copy[16384];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct slice token = forge(names[i], "{" GOOD_CLAIMS "}");
		char *dot;

		memcpy(copy, token.data, token.len + 1);
		dot = strrchr(copy, '.');
		dot[3] = dot[3] == 'A' ? 'B' : 'A';
		assert_int_equal(verify(slice_str(copy), (enum token_alg)i, &c),
		                 TOKEN_BAD_SIGNATURE);
		/* half of it */
		memcpy(copy, token.data, token.len + 1);
		dot = strrchr(copy, '.');
		dot[1 + 4] = '\0';
		assert_int_equal(verify(slice_str(copy), (enum token_alg)i, &c),
		                 TOKEN_BAD_SIGNATURE);
		/* none */
		dot[1] = '\0';
		assert_int_equal(verify(slice_str(copy), (enum token_alg)i, &c),
		                 TOKEN_MALFORMED);
	}
	/* another key of the right kind */
	assert_int_equal(verify(forge_with("{\"alg\":\"HS256\"}", "{" GOOD_CLAIMS "}", NULL,
	                                   SLICE("another secret of a good length.")),
	                        TOKEN_HS256, &c),
	                 TOKEN_BAD_SIGNATURE);
	/* the payload changed behind the signature */
	memcpy(copy, forge("HS256", "{" GOOD_CLAIMS ",\"sub\":\"a\"}").data, 16384);
	{
		char other[16384], *tail = strrchr(copy, '.');

		memcpy(other, forge("HS256", "{" GOOD_CLAIMS ",\"sub\":\"b\"}").data, 16384);
		(void)snprintf(strrchr(other, '.'), 200, "%s", tail);
		assert_int_equal(verify(slice_str(other), TOKEN_HS256, &c),
		                 TOKEN_BAD_SIGNATURE);
	}
}

static void
test_headers_table(void **state)
{
	static const struct {
		const char *header;
		enum token_rc rc;
	} table[] = {
		{ "{\"alg\":\"HS256\"}", TOKEN_OK },
		{ "{\"alg\":\"HS256\",\"typ\":\"jwt\",\"jku\":\"http://evil\",\"jwk\":{}}",
		  TOKEN_OK },
		{ "{\"alg\":\"HS256\",\"typ\":\"JWE\"}", TOKEN_MALFORMED },
		{ "{\"typ\":\"JWT\"}", TOKEN_MALFORMED },
		{ "{\"alg\":7}", TOKEN_MALFORMED },
		{ "{\"alg\":\"HS256\",\"alg\":\"none\"}", TOKEN_MALFORMED },
		{ "{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", TOKEN_MALFORMED },
		{ "{\"alg\":\"HS256\",\"kid\":7}", TOKEN_MALFORMED },
		{ "{\"alg\":\"HS256\",\"typ\":7}", TOKEN_MALFORMED },
		{ "{\"alg\":\"HS256\"} x", TOKEN_MALFORMED },
	};
	struct token_claims c;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(verify(forge_with(table[i].header, "{" GOOD_CLAIMS "}", NULL,
		                                   SLICE(SECRET)),
		                        TOKEN_HS256, &c),
		                 table[i].rc);
}

static void
test_forms_that_are_no_token(void **state)
{
	static const char *const forms[] = { "",          ".",          "..",
		                             "...",       "a.b",        "a.b.c.d",
		                             "e30",       "e30.e30.",   "e30=.e30.AA",
		                             "e30.e30.A", "e3 0.e30.AA" };
	struct token_peek peek = { .iss = "untouched" };
	struct token_claims c;
	char copy[16384], long_payload[10000];
	struct slice token;

	(void)state;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		assert_int_equal(token_peek(slice_str(forms[i]), &peek), TOKEN_MALFORMED);
		assert_int_equal(verify(slice_str(forms[i]), TOKEN_HS256, &c), TOKEN_MALFORMED);
	}
	assert_string_equal(peek.iss, "untouched");
	/* every proper prefix, and one octet more */
	token = forge("HS256", "{" GOOD_CLAIMS "}");
	memcpy(copy, token.data, token.len + 1);
	for (size_t i = 0; i < token.len; i++)
		assert_int_not_equal(verify(slice_mem(copy, i), TOKEN_HS256, &c), TOKEN_OK);
	copy[token.len] = 'A';
	assert_int_not_equal(verify(slice_mem(copy, token.len + 1), TOKEN_HS256, &c), TOKEN_OK);
	copy[token.len] = '=';
	assert_int_equal(verify(slice_mem(copy, token.len + 1), TOKEN_HS256, &c),
	                 TOKEN_MALFORMED);
	copy[token.len - 1] = '\0'; /* a NUL within */
	assert_int_equal(verify(slice_mem(copy, token.len), TOKEN_HS256, &c), TOKEN_MALFORMED);
	/* too long, though well signed */
	(void)snprintf(long_payload, sizeof(long_payload),
	               "{" GOOD_CLAIMS ",\"x\":\"%05900d\"}", 1);
	assert_int_equal(verify(forge("HS256", long_payload), TOKEN_HS256, &c), TOKEN_OK);
	(void)snprintf(long_payload, sizeof(long_payload),
	               "{" GOOD_CLAIMS ",\"x\":\"%06100d\"}", 1);
	assert_int_equal(verify(forge("HS256", long_payload), TOKEN_HS256, &c),
	                 TOKEN_MALFORMED);
	(void)snprintf(long_payload, sizeof(long_payload),
	               "{" GOOD_CLAIMS ",\"jti\":\"%0256d\"}", 1);
	assert_int_equal(verify(forge("HS256", long_payload), TOKEN_HS256, &c),
	                 TOKEN_MALFORMED);
}

static void
test_a_client_never_learns_which_of_key_and_signature_failed(void **state)
{
	(void)state;
	assert_string_equal(token_detail(TOKEN_UNKNOWN_KEY), token_detail(TOKEN_BAD_SIGNATURE));
	assert_string_equal(token_detail(TOKEN_UNKNOWN_KEY), token_detail(TOKEN_WRONG_ISSUER));
	assert_string_equal(token_detail(TOKEN_UNKNOWN_KEY), token_detail(TOKEN_BAD_KEY));
	assert_string_equal(token_detail(TOKEN_UNKNOWN_KEY), token_detail(TOKEN_ALGORITHM));
	assert_string_not_equal(token_detail(TOKEN_UNKNOWN_KEY), token_detail(TOKEN_EXPIRED));
	for (int rc = TOKEN_OK; rc <= TOKEN_MEMORY; rc++)
		assert_non_null(token_reason((enum token_rc)rc));
	assert_string_equal(token_reason(TOKEN_EXPIRED), "expired");
}

/* --- the cache ------------------------------------------------------------- */

static void
fill_claims(struct token_claims *c, int64_t site_id)
{
	*c = (struct token_claims){ .site_id = site_id,
		                    .exp = NOW + 10,
		                    .iat = NOW,
		                    .iss = "shop",
		                    .kid = "k1",
		                    .scope = "push" };
	(void)snprintf(c->jti, sizeof(c->jti), "%lld", (long long)site_id);
}

static void
digest_of(int64_t n, uint8_t out[TOKEN_DIGEST])
{
	token_digest(slice_mem(&n, sizeof(n)), out);
}

static void
test_digest_is_sha256(void **state)
{
	static const uint8_t abc[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea };
	uint8_t digest[TOKEN_DIGEST];

	(void)state;
	token_digest(SLICE("abc"), digest);
	assert_memory_equal(digest, abc, sizeof(abc));
}

static void
test_cache_finds_until_exp_and_until_cleared(void **state)
{
	struct token_cache *cache = token_cache_make(0);
	struct token_claims c, found;
	uint8_t digest[TOKEN_DIGEST], other[TOKEN_DIGEST];
	uint64_t generation;

	(void)state;
	digest_of(1, digest);
	digest_of(2, other);
	fill_claims(&c, 1);
	assert_false(token_cache_get(cache, digest, NOW, &found, &generation));
	token_cache_put(cache, digest, &c, generation);
	assert_true(token_cache_get(cache, digest, NOW + 9, &found, &generation));
	assert_int_equal(found.site_id, 1);
	assert_string_equal(found.iss, "shop");
	assert_string_equal(found.jti, "1");
	assert_string_equal(found.sub, "");
	assert_string_equal(found.scope, "push");
	assert_false(found.has_scope);
	c.has_scope = true; /* an empty one is none that is missing */
	token_cache_put(cache, digest, &c, generation);
	assert_true(token_cache_get(cache, digest, NOW + 9, &found, &generation));
	assert_true(found.has_scope);
	assert_false(token_cache_get(cache, other, NOW, &found, &generation));
	assert_false(token_cache_get(cache, digest, NOW + 10, &found, &generation)); /* exp */
	token_cache_clear(cache);
	assert_false(token_cache_get(cache, digest, NOW, &found, &generation));
	token_cache_put(cache, digest, &c, generation);
	assert_true(token_cache_get(cache, digest, NOW, &found, &generation));
	token_cache_free(&cache);
	assert_null(cache);
}

/* The key is revoked between a token's verification and its way into the cache. */
static void
test_a_token_verified_before_the_revocation_is_not_remembered(void **state)
{
	struct token_cache *cache = token_cache_make(0);
	struct token_claims c, found;
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;

	(void)state;
	digest_of(1, digest);
	fill_claims(&c, 1);
	assert_false(token_cache_get(cache, digest, NOW, &found, &generation));
	token_cache_clear(cache);
	token_cache_put(cache, digest, &c, generation);
	assert_false(token_cache_get(cache, digest, NOW, &found, &generation));
	token_cache_free(&cache);
}

static void
test_cache_is_bounded_and_keeps_what_is_used(void **state)
{
	struct token_cache *cache = token_cache_make(1024);
	struct token_claims c, found;
	uint8_t hot[TOKEN_DIGEST], digest[TOKEN_DIGEST];
	uint64_t generation;
	int kept = 0;

	(void)state;
	digest_of(0, hot);
	fill_claims(&c, 0);
	assert_false(token_cache_get(cache, hot, NOW, &found, &generation));
	token_cache_put(cache, hot, &c, generation);
	for (int64_t i = 1; i <= 20000; i++) {
		digest_of(i, digest);
		fill_claims(&c, i);
		token_cache_put(cache, digest, &c, generation);
		assert_true(token_cache_get(cache, digest, NOW, &found, &generation));
		assert_int_equal(found.site_id, i);
		assert_true(token_cache_get(cache, hot, NOW, &found, &generation));
	}
	for (int64_t i = 1; i <= 20000; i++) {
		digest_of(i, digest);
		kept += token_cache_get(cache, digest, NOW, &found, &generation);
	}
	assert_true(kept <= 1024);
	assert_true(kept > 900);
	token_cache_free(&cache);
}

static struct token_cache *shared;

static void *
use_cache(void *arg)
{
	struct token_claims c, found;
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;
	intptr_t wrong = 0;

	for (int64_t i = 0; i < 20000; i++) {
		digest_of(i % 500, digest);
		if (token_cache_get(shared, digest, NOW, &found, &generation)) {
			wrong += found.site_id != i % 500;
			continue;
		}
		fill_claims(&c, i % 500);
		token_cache_put(shared, digest, &c, generation);
		if (i % 997 == 0)
			token_cache_clear(shared);
	}
	(void)arg;
	return (void *)wrong;
}

static void
test_cache_on_many_threads(void **state)
{
	pthread_t threads[4];
	void *wrong;

	(void)state;
	shared = token_cache_make(1024);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_cache, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	token_cache_free(&shared);
}

/* --- opaque tokens --------------------------------------------------------- */

static void
test_opaque_tokens(void **state)
{
	char a[TOKEN_OPAQUE_TEXT], b[TOKEN_OPAQUE_TEXT], bad[TOKEN_OPAQUE_TEXT + 8];
	uint8_t da[TOKEN_DIGEST], db[TOKEN_DIGEST];
	struct slice kind;

	(void)state;
	assert_true(token_opaque_make("session", a));
	assert_true(token_opaque_make("session", b));
	assert_string_not_equal(a, b);
	assert_int_equal(strlen(a), 5 + 7 + 1 + 52);
	assert_true(token_opaque_parse(slice_str(a), &kind));
	assert_true(slice_eq_str(kind, "session"));
	token_digest(slice_str(a), da);
	token_digest(slice_str(b), db);
	assert_false(token_equal(da, db, TOKEN_DIGEST));
	token_digest(slice_str(a), db);
	assert_true(token_equal(da, db, TOKEN_DIGEST));
	assert_true(token_opaque_make("abcdefghijklmnop", a));
	assert_true(token_opaque_parse(slice_str(a), &kind));
	assert_false(token_opaque_make("abcdefghijklmnopq", a));
	assert_false(token_opaque_make("", a));
	assert_false(token_opaque_make("a_b", a));
	assert_false(token_opaque_make("A", a));
	kind = SLICE("untouched");
	for (size_t i = 0; i < strlen(b); i++)
		assert_false(token_opaque_parse(slice_mem(b, i), &kind));
	(void)snprintf(bad, sizeof(bad), "%sa", b);
	assert_false(token_opaque_parse(slice_str(bad), &kind));
	(void)snprintf(bad, sizeof(bad), "%s", b);
	bad[20] = 'A';
	assert_false(token_opaque_parse(slice_str(bad), &kind));
	(void)snprintf(bad, sizeof(bad), "%s", b);
	bad[0] = 'T';
	assert_false(token_opaque_parse(slice_str(bad), &kind));
	assert_true(slice_eq_str(kind, "untouched"));
}

static void
export_public(EVP_PKEY *key, char out[static 4096])
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n;

	assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
	n = BIO_read(bio, out, 4095);
	assert_true(n > 0);
	out[n] = '\0';
	BIO_free(bio);
}

static int
group_setup(void **state)
{
	(void)state;
	p256 = EVP_EC_gen("P-256");
	p384 = EVP_EC_gen("P-384");
	rsa2048 = EVP_RSA_gen(2048);
	rsa1024 = EVP_RSA_gen(1024);
	export_public(p256, p256_pem);
	export_public(p384, p384_pem);
	export_public(rsa2048, rsa2048_pem);
	export_public(rsa1024, rsa1024_pem);
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	EVP_PKEY_free(p256);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(rsa2048);
	EVP_PKEY_free(rsa1024);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_tokens_of_each_algorithm),
		cmocka_unit_test(test_claims_table),
		cmocka_unit_test(test_the_algorithm_is_the_keys_own),
		cmocka_unit_test(test_hs256_with_a_public_key_as_secret),
		cmocka_unit_test(test_keys_that_are_refused),
		cmocka_unit_test(test_es256_signed_with_p384),
		cmocka_unit_test(test_signatures_that_do_not_fit),
		cmocka_unit_test(test_headers_table),
		cmocka_unit_test(test_forms_that_are_no_token),
		cmocka_unit_test(test_a_client_never_learns_which_of_key_and_signature_failed),
		cmocka_unit_test(test_digest_is_sha256),
		cmocka_unit_test(test_cache_finds_until_exp_and_until_cleared),
		cmocka_unit_test(test_a_token_verified_before_the_revocation_is_not_remembered),
		cmocka_unit_test(test_cache_is_bounded_and_keeps_what_is_used),
		cmocka_unit_test(test_cache_on_many_threads),
		cmocka_unit_test(test_opaque_tokens),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
