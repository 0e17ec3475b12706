/* SHA-256, fast for short inputs: the implementation is looked up once a process. Thread-safe. */
#ifndef TMTP_BASE_DIGEST_H
#define TMTP_BASE_DIGEST_H

#include "base/slice.h"

#include <sodium/crypto_hash_sha256.h>

#define DIGEST_LEN 32

/* Never fails: short of memory it takes a slower way that needs none. */
void digest_sha256(struct slice octets, uint8_t out[static DIGEST_LEN]);

/* A digest of octets that come one after the other. Plain memory: copied and forgotten at will. */
struct digest_run {
	crypto_hash_sha256_state state;
};

void digest_run_init(struct digest_run *run);
void digest_run_add(struct digest_run *run, struct slice octets);
/* Of all that was added. It is to be begun anew after that. */
void digest_run_end(struct digest_run *run, uint8_t out[static DIGEST_LEN]);

/*
 * What a run is after a multiple of DIGEST_BLOCK octets, in a form that any machine can go on
 * from.
 */
#define DIGEST_BLOCK 64
#define DIGEST_SAVED 32
void digest_run_save(const struct digest_run *run, uint8_t out[static DIGEST_SAVED]);
void digest_run_restore(struct digest_run *run, const uint8_t saved[static DIGEST_SAVED],
                        uint64_t octets);

#endif
