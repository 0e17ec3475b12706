/* SHA-256, fast for short inputs: the implementation is looked up once a process. Thread-safe. */
#ifndef TMTP_BASE_DIGEST_H
#define TMTP_BASE_DIGEST_H

#include "base/slice.h"

#define DIGEST_LEN 32

/* Never fails: short of memory it takes a slower way that needs none. */
void digest_sha256(struct slice octets, uint8_t out[static DIGEST_LEN]);

#endif
