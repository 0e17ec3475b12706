/* SHA-256: see digest.h. OpenSSL uses the processor's own instructions, which libsodium does not. */
#include "base/digest.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <sodium.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256; /* fetched once: a fetch costs more than a digest */

static void
fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
}

void
digest_sha256(struct slice octets, uint8_t out[static DIGEST_LEN])
{
	EVP_MD_CTX *ctx;
	bool done;

	(void)pthread_once(&once, fetch);
	ctx = sha256 == NULL ? NULL : EVP_MD_CTX_new();
	done = ctx != NULL && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1 &&
	       EVP_DigestUpdate(ctx, octets.data, octets.len) == 1 &&
	       EVP_DigestFinal_ex(ctx, out, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	if (!done)
		(void)crypto_hash_sha256(out, octets.data, octets.len);
}
