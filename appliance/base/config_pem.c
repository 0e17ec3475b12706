/* Certificates and keys: see config_pem.h. */
#include "base/config_pem.h"

#include <errno.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/* Without this, OpenSSL asks on the terminal. */
static int
no_passphrase(char *out, int size, int writing, void *asked)
{
	(void)out;
	(void)size;
	(void)writing;
	*(bool *)asked = true;
	return -1;
}

static FILE *
open_file(const char *path, const char *what, struct buffer *why)
{
	FILE *f = fopen(path, "re");

	if (f == NULL)
		buffer_add_fmt(why, "the %s %s cannot be read: %s", what, path,
		               strerror(errno));
	return f;
}

static X509 *
read_certificate(const char *path, const char *what, struct buffer *why)
{
	FILE *f = open_file(path, what, why);
	X509 *x;

	if (f == NULL)
		return NULL;
	x = PEM_read_X509(f, NULL, NULL, NULL);
	(void)fclose(f);
	if (x == NULL)
		buffer_add_fmt(why, "%s holds no certificate in PEM form", path);
	return x;
}

static EVP_PKEY *
read_key(const char *path, struct buffer *why)
{
	FILE *f = open_file(path, "key", why);
	bool asked = false;
	EVP_PKEY *key;

	if (f == NULL)
		return NULL;
	key = PEM_read_PrivateKey(f, NULL, no_passphrase, &asked);
	(void)fclose(f);
	if (key == NULL)
		buffer_add_fmt(why,
		               asked ? "the key %s is encrypted: store it without a "
		                       "passphrase, readable by its user only"
		                     : "%s holds no private key in PEM form",
		               path);
	return key;
}

bool
pem_check_pair(const char *certificate, const char *key, const char *domain, struct buffer *why)
{
	unsigned flags = X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
	X509 *x = NULL;
	EVP_PKEY *k = NULL;
	bool good = false;

	x = read_certificate(certificate, "certificate", why);
	if (x == NULL)
		goto out;
	k = read_key(key, why);
	if (k == NULL)
		goto out;
	if (X509_check_private_key(x, k) != 1) {
		buffer_add_fmt(why, "the key %s does not belong to the certificate %s", key,
		               certificate);
		goto out;
	}
	if (X509_check_host(x, domain, strlen(domain), flags, NULL) != 1) {
		buffer_add_fmt(
		    why, "the certificate %s does not name %s (a wildcard does not count)",
		    certificate, domain);
		goto out;
	}
	good = true;
out:
	EVP_PKEY_free(k);
	X509_free(x);
	ERR_clear_error();
	return good;
}

bool
pem_check_ca(const char *file, struct buffer *why)
{
	X509 *x = read_certificate(file, "file", why);

	X509_free(x);
	ERR_clear_error();
	return x != NULL;
}
