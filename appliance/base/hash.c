/* The hash of hash tables: see hash.h. */
#include "base/hash.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint8_t process_key[crypto_shorthash_KEYBYTES];

static void
make_key(void)
{
	randombytes_buf(process_key, sizeof(process_key));
}

unsigned
hash_octets(const void *key, size_t len)
{
	uint8_t out[crypto_shorthash_BYTES];
	unsigned hash;

	(void)pthread_once(&once, make_key);
	(void)crypto_shorthash(out, key, len, process_key);
	memcpy(&hash, out, sizeof(hash));
	return hash;
}
