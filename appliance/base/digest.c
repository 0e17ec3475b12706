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

/* --- running --------------------------------------------------------------- */

void
digest_run_init(struct digest_run *run)
{
	(void)crypto_hash_sha256_init(&run->state);
}

void
digest_run_add(struct digest_run *run, struct slice octets)
{
	if (octets.len > 0)
		(void)crypto_hash_sha256_update(&run->state, octets.data, octets.len);
}

void
digest_run_end(struct digest_run *run, uint8_t out[static DIGEST_LEN])
{
	(void)crypto_hash_sha256_final(&run->state, out);
}

/* Between blocks the eight words are all there is; the count is bits. */
void
digest_run_save(const struct digest_run *run, uint8_t out[static DIGEST_SAVED])
{
	for (size_t i = 0; i < DIGEST_SAVED; i++)
		out[i] = (uint8_t)(run->state.state[i / 4] >> (24 - 8 * (i % 4)));
}

void
digest_run_restore(struct digest_run *run, const uint8_t saved[static DIGEST_SAVED],
                   uint64_t octets)
{
	digest_run_init(run);
	for (size_t i = 0; i < DIGEST_SAVED / 4; i++)
		run->state.state[i] = (uint32_t)saved[4 * i] << 24 |
		                      (uint32_t)saved[4 * i + 1] << 16 |
		                      (uint32_t)saved[4 * i + 2] << 8 | saved[4 * i + 3];
	run->state.count = octets << 3;
}
