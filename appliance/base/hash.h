/*
 * Hash tables: uthash with SipHash under a key of this process, so that nobody
 * who chooses names can choose collisions. Include this, not uthash.h.
 */
#ifndef TMTP_BASE_HASH_H
#define TMTP_BASE_HASH_H

#include <stddef.h>

#define HASH_FUNCTION(key, len, hash) ((hash) = hash_octets((key), (len)))

/* Thread-safe. */
unsigned hash_octets(const void *key, size_t len);

#include <uthash.h>

#endif
