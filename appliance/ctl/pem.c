/*
 * Keys: see pem.h. A weak key is refused here, where somebody can do something
 * about it, and again where it is used.
 */
#include "ctl/pem.h"

#include "ctl/input.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdlib.h>

#define KEY_FILE_MAX 65536
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192
#define P256_OCTETS 32

struct pem_signer {
	const char *algorithm;
	EVP_PKEY *key;        /* ES256 and RS256 */
	struct buffer secret; /* HS256 */
};

/* --- Checks --------------------------------------------------------------- */

/* P-256 by its name: one with spelled-out parameters has none and is refused. */
static bool
is_p256(const EVP_PKEY *key)
{
	char group[32] = "";
	size_t len;

	return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
	       EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

static bool
is_good_rsa(const EVP_PKEY *key)
{
	return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA &&
	       EVP_PKEY_get_bits(key) >= RSA_BITS_MIN && EVP_PKEY_get_bits(key) <= RSA_BITS_MAX;
}

static enum ctl_exit
check_key(struct ctl *ctl, const EVP_PKEY *key, const char *algorithm, const char *path)
{
	if (strcmp(algorithm, "ES256") == 0 && !is_p256(key))
		return ctl_fail(
		    ctl, CTL_REFUSED, "bad-key",
		    "ES256 needs a P-256 key, but %s holds %s with %d bits; openssl genpkey -algorithm EC "
		    "-pkeyopt ec_paramgen_curve:P-256 makes one",
		    input_path_name(path), EVP_PKEY_get0_type_name(key),
		    EVP_PKEY_get_bits(key));
	if (strcmp(algorithm, "RS256") == 0 && !is_good_rsa(key))
		return ctl_fail(
		    ctl, CTL_REFUSED, "bad-key",
		    "RS256 needs RSA with %d to %d bits, but %s holds %s with %d bits; openssl genpkey "
		    "-algorithm RSA -pkeyopt rsa_keygen_bits:3072 makes one",
		    RSA_BITS_MIN, RSA_BITS_MAX, input_path_name(path),
		    EVP_PKEY_get0_type_name(key), EVP_PKEY_get_bits(key));
	return CTL_OK;
}

/* --- Public keys ---------------------------------------------------------- */

static bool
write_public(EVP_PKEY *key, struct buffer *out)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL;
	long len = 0;
	bool ok;

	if (bio != NULL && PEM_write_bio_PUBKEY(bio, key) == 1)
		len = BIO_get_mem_data(bio, &data);
	buffer_init(out, KEY_FILE_MAX);
	if (len > 0)
		buffer_add(out, data, (size_t)len);
	ok = len > 0 && !out->failed;
	BIO_free(bio);
	return ok;
}

static enum ctl_exit
no_public_key(struct ctl *ctl, const char *path, const struct buffer *file)
{
	if (memmem(file->data, file->len, "PRIVATE KEY", 11) != NULL)
		return ctl_fail(
		    ctl, CTL_REFUSED, "private-key",
		    "%s holds a private key, which must stay with the website: give its public half "
		    "(openssl pkey -in FILE -pubout)",
		    input_path_name(path));
	return ctl_fail(ctl, CTL_REFUSED, "bad-key",
	                "%s holds no public key in PEM (-----BEGIN PUBLIC KEY-----)",
	                input_path_name(path));
}

enum ctl_exit
pem_read_public(struct ctl *ctl, const char *algorithm, const char *path, struct buffer *out)
{
	struct buffer file;
	enum ctl_exit result = input_file(ctl, path, KEY_FILE_MAX, &file);
	EVP_PKEY *key;
	BIO *bio;

	if (result != CTL_OK)
		return result;
	bio = BIO_new_mem_buf(file.data, (int)file.len);
	key = bio == NULL ? NULL : PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	if (key == NULL)
		result = no_public_key(ctl, path, &file);
	else
		result = check_key(ctl, key, algorithm, path);
	if (result == CTL_OK && !write_public(key, out))
		result = ctl_fail(ctl, CTL_REFUSED, "bad-key", "%s can't be written as PEM",
		                  input_path_name(path));
	EVP_PKEY_free(key);
	BIO_free(bio);
	input_wipe(&file);
	return result;
}

/* --- Secrets -------------------------------------------------------------- */

enum ctl_exit
pem_read_secret(struct ctl *ctl, const char *path, struct buffer *out)
{
	enum ctl_exit result = input_secret(ctl, path, SECRET_MAX, out);

	if (result != CTL_OK)
		return result;
	if (memmem(out->data, out->len, "-----BEGIN", 10) != NULL)
		result = ctl_fail(
		    ctl, CTL_REFUSED, "bad-key",
		    "%s holds a key in PEM, which is no secret for HS256: use ES256 with --public-key",
		    input_path_name(path));
	else if (out->len < SECRET_MIN || out->len > SECRET_MAX)
		result =
		    ctl_fail(ctl, CTL_REFUSED, "bad-key",
		             "an HS256 secret has %d to %d octets: --generate makes a good one",
		             SECRET_MIN, SECRET_MAX);
	if (result != CTL_OK)
		input_wipe(out);
	return result;
}

/* --- Signing -------------------------------------------------------------- */

enum ctl_exit
pem_read_secret_signer(struct ctl *ctl, const char *path, struct pem_signer **out)
{
	struct pem_signer *s = calloc(1, sizeof(*s));
	enum ctl_exit result;

	if (s == NULL)
		return ctl_fail(ctl, CTL_REFUSED, "memory", "out of memory");
	s->algorithm = "HS256";
	if ((result = pem_read_secret(ctl, path, &s->secret)) != CTL_OK)
		free(s);
	else
		*out = s;
	return result;
}

enum ctl_exit
pem_read_signer(struct ctl *ctl, const char *path, struct pem_signer **out)
{
	struct pem_signer *s = calloc(1, sizeof(*s));
	struct buffer file;
	enum ctl_exit result =
	    s == NULL ? CTL_REFUSED : input_file(ctl, path, KEY_FILE_MAX, &file);
	BIO *bio;

	if (result != CTL_OK) {
		free(s);
		return result;
	}
	buffer_init(&s->secret, 0);
	bio = BIO_new_mem_buf(file.data, (int)file.len);
	s->key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	if (s->key == NULL) {
		result = ctl_fail(
		    ctl, CTL_REFUSED, "bad-key",
		    "%s holds no private key in PEM that can be read; for HS256 use --secret-file",
		    input_path_name(path));
	} else {
		s->algorithm = EVP_PKEY_get_base_id(s->key) == EVP_PKEY_RSA ? "RS256" : "ES256";
		result = check_key(ctl, s->key, s->algorithm, path);
	}
	BIO_free(bio);
	input_wipe(&file);
	if (result == CTL_OK)
		*out = s;
	else
		pem_signer_free(&s);
	return result;
}

void
pem_signer_free(struct pem_signer **signer)
{
	struct pem_signer *s = *signer;

	if (s == NULL)
		return;
	EVP_PKEY_free(s->key);
	input_wipe(&s->secret);
	free(s);
	*signer = NULL;
}

const char *
pem_algorithm(const struct pem_signer *signer)
{
	return signer->algorithm;
}

/* JWTs carry r and s, 32 octets each, where OpenSSL writes DER. */
static bool
add_raw_ecdsa(const uint8_t *der, size_t len, struct buffer *out)
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
	uint8_t raw[2 * P256_OCTETS];
	bool ok =
	    sig != NULL &&
	    BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, P256_OCTETS) == P256_OCTETS &&
	    BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + P256_OCTETS, P256_OCTETS) == P256_OCTETS;

	if (ok)
		buffer_add(out, raw, sizeof(raw));
	ECDSA_SIG_free(sig);
	return ok;
}

static bool
sign_with_key(const struct pem_signer *s, struct slice data, struct buffer *out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t sig[RSA_BITS_MAX / 8];
	size_t len = sizeof(sig);
	bool ok = ctx != NULL &&
	          EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, s->key) == 1 &&
	          EVP_DigestSign(ctx, sig, &len, data.data, data.len) == 1;

	if (ok && EVP_PKEY_get_base_id(s->key) == EVP_PKEY_EC)
		ok = add_raw_ecdsa(sig, len, out);
	else if (ok)
		buffer_add(out, sig, len);
	EVP_MD_CTX_free(ctx);
	return ok;
}

bool
pem_sign(const struct pem_signer *s, struct slice data, struct buffer *out)
{
	uint8_t mac[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state state;

	if (s->key != NULL)
		return sign_with_key(s, data, out) && !out->failed;
	(void)crypto_auth_hmacsha256_init(&state, s->secret.data, s->secret.len);
	(void)crypto_auth_hmacsha256_update(&state, data.data, data.len);
	(void)crypto_auth_hmacsha256_final(&state, mac);
	sodium_memzero(&state, sizeof(state));
	buffer_add(out, mac, sizeof(mac));
	return !out->failed;
}
