/*
 * Verified tokens by their SHA-256, and opaque tokens. The cache is cut into
 * shards with a lock each and sets of four places; a token's claims are packed
 * to what they need. A generation, raised by token_cache_clear, makes all that
 * was put before, and all that is being verified meanwhile, worthless.
 */
#include "web/token.h"

#include "base/digest.h"
#include "base/text.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS 64
#define WAYS 4
#define STRINGS 5

/* --- digests --------------------------------------------------------------- */

void
token_digest(struct slice token, uint8_t out[static TOKEN_DIGEST])
{
	digest_sha256(token, out);
}

bool
token_equal(const uint8_t *a, const uint8_t *b, size_t len)
{
	return sodium_memcmp(a, b, len) == 0;
}

/* --- packed claims --------------------------------------------------------- */

struct packed {
	int64_t site_id, exp, iat;
	uint16_t len[STRINGS];
	bool has_scope;
	char text[];
};

/* The strings of *c in their packed order. */
static void
claims_strings(struct token_claims *c, char *out[static STRINGS])
{
	out[0] = c->iss;
	out[1] = c->sub;
	out[2] = c->kid;
	out[3] = c->jti;
	out[4] = c->scope;
}

static struct packed *
claims_pack(const struct token_claims *claims)
{
	struct token_claims copy = *claims;
	char *strings[STRINGS];
	size_t total = 0, at = 0;
	struct packed *p;

	claims_strings(&copy, strings);
	for (size_t i = 0; i < STRINGS; i++)
		total += strlen(strings[i]);
	p = malloc(sizeof(*p) + total);
	if (p == NULL)
		return NULL;
	p->site_id = claims->site_id;
	p->exp = claims->exp;
	p->iat = claims->iat;
	p->has_scope = claims->has_scope;
	for (size_t i = 0; i < STRINGS; i++) {
		p->len[i] = (uint16_t)strlen(strings[i]);
		memcpy(p->text + at, strings[i], p->len[i]);
		at += p->len[i];
	}
	return p;
}

static void
claims_unpack(const struct packed *p, struct token_claims *out)
{
	char *strings[STRINGS];
	size_t at = 0;

	out->site_id = p->site_id;
	out->exp = p->exp;
	out->iat = p->iat;
	out->has_scope = p->has_scope;
	claims_strings(out, strings);
	for (size_t i = 0; i < STRINGS; i++) {
		memcpy(strings[i], p->text + at, p->len[i]);
		strings[i][p->len[i]] = '\0';
		at += p->len[i];
	}
}

/* --- the cache ------------------------------------------------------------- */

struct place {
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;
	uint64_t used;         /* the shard's count at the last use */
	struct packed *claims; /* owned; NULL: free */
};

struct shard {
	_Alignas(64) pthread_mutex_t lock;
	uint64_t count;
	struct place *places; /* owned: sets * WAYS */
};

struct token_cache {
	_Atomic uint64_t generation;
	uint32_t sets; /* a shard's; a power of two */
	struct shard shards[SHARDS];
};

struct token_cache *
token_cache_make(size_t entries)
{
	struct token_cache *cache;
	uint32_t sets = 1024 / SHARDS / WAYS;

	while ((size_t)sets * SHARDS * WAYS < entries && sets < UINT32_C(1) << 24)
		sets *= 2;
	cache = aligned_alloc(64, (sizeof(*cache) + 63) & ~(size_t)63);
	if (cache == NULL)
		return NULL;
	memset(cache, 0, sizeof(*cache));
	cache->sets = sets;
	for (size_t i = 0; i < SHARDS; i++) {
		(void)pthread_mutex_init(&cache->shards[i].lock, NULL);
		cache->shards[i].places = calloc((size_t)sets * WAYS, sizeof(struct place));
		if (cache->shards[i].places == NULL) {
			token_cache_free(&cache);
			return NULL;
		}
	}
	return cache;
}

void
token_cache_free(struct token_cache **cache)
{
	if (*cache == NULL)
		return;
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &(*cache)->shards[i];

		for (size_t j = 0; s->places != NULL && j < (size_t)(*cache)->sets * WAYS; j++)
			free(s->places[j].claims);
		free(s->places);
		(void)pthread_mutex_destroy(&s->lock);
	}
	free(*cache);
	*cache = NULL;
}

static struct shard *
cache_shard(struct token_cache *cache, const uint8_t *digest)
{
	return &cache->shards[digest[0] % SHARDS];
}

static struct place *
shard_set(const struct token_cache *cache, const struct shard *s, const uint8_t *digest)
{
	uint32_t n;

	memcpy(&n, digest + 4, sizeof(n));
	return &s->places[(size_t)(n & (cache->sets - 1)) * WAYS];
}

bool
token_cache_get(struct token_cache *cache, const uint8_t digest[static TOKEN_DIGEST],
                int64_t now_s, struct token_claims *out, uint64_t *generation)
{
	struct shard *s = cache_shard(cache, digest);
	struct place *set = shard_set(cache, s, digest);
	bool found = false;

	*generation = atomic_load(&cache->generation);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < WAYS && !found; i++) {
		if (set[i].claims == NULL || memcmp(set[i].digest, digest, TOKEN_DIGEST) != 0)
			continue;
		if (set[i].generation != *generation || set[i].claims->exp <= now_s)
			break;
		claims_unpack(set[i].claims, out);
		set[i].used = ++s->count;
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* The same token's place, else a free or worthless one, else the one unused for longest. */
static struct place *
set_choose(struct place *set, const uint8_t *digest, uint64_t generation)
{
	struct place *best = &set[0];

	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].claims != NULL && memcmp(set[i].digest, digest, TOKEN_DIGEST) == 0)
			return &set[i];
		if (set[i].claims == NULL || set[i].generation != generation)
			set[i].used = 0;
		if (set[i].used < best->used)
			best = &set[i];
	}
	return best;
}

void
token_cache_put(struct token_cache *cache, const uint8_t digest[static TOKEN_DIGEST],
                const struct token_claims *claims, uint64_t generation)
{
	struct shard *s = cache_shard(cache, digest);
	struct packed *packed = claims_pack(claims), *old;
	struct place *p;

	if (packed == NULL || atomic_load(&cache->generation) != generation) {
		free(packed);
		return;
	}
	/*
	 * A clear that comes between here and there leaves a place of an old generation: never
	 * found.
	 */
	pthread_mutex_lock(&s->lock);
	p = set_choose(shard_set(cache, s, digest), digest, generation);
	old = p->claims;
	memcpy(p->digest, digest, TOKEN_DIGEST);
	p->generation = generation;
	p->used = ++s->count;
	p->claims = packed;
	pthread_mutex_unlock(&s->lock);
	free(old);
}

void
token_cache_clear(struct token_cache *cache)
{
	atomic_fetch_add(&cache->generation, 1);
}

/* --- opaque tokens --------------------------------------------------------- */

#define RANDOM_OCTETS 32

static bool
kind_is_fine(struct slice kind)
{
	for (size_t i = 0; i < kind.len; i++) {
		if (kind.data[i] < 'a' || kind.data[i] > 'z')
			return false;
	}
	return kind.len >= 1 && kind.len <= TOKEN_OPAQUE_KIND_MAX;
}

bool
token_opaque_make(const char *kind, char out[static TOKEN_OPAQUE_TEXT])
{
	uint8_t random[RANDOM_OCTETS];
	char text[BASE32_LEN(RANDOM_OCTETS) + 1];

	if (!kind_is_fine(slice_str(kind)) || sodium_init() < 0)
		return false;
	randombytes_buf(random, sizeof(random));
	base32_encode(random, sizeof(random), text);
	(void)snprintf(out, TOKEN_OPAQUE_TEXT, "tmtp_%s_%s", kind, text);
	sodium_memzero(random, sizeof(random));
	sodium_memzero(text, sizeof(text));
	return true;
}

bool
token_opaque_parse(struct slice text, struct slice *kind)
{
	uint8_t random[RANDOM_OCTETS];
	const uint8_t *end;
	struct slice k;

	if (text.len < 5 || text.len >= TOKEN_OPAQUE_TEXT || memcmp(text.data, "tmtp_", 5) != 0)
		return false;
	end = memchr(text.data + 5, '_', text.len - 5);
	if (end == NULL)
		return false;
	k = slice_mem(text.data + 5, (size_t)(end - text.data - 5));
	if (!kind_is_fine(k) ||
	    !base32_decode(slice_mem(end + 1, text.len - 5 - k.len - 1), random, RANDOM_OCTETS))
		return false;
	*kind = k;
	return true;
}
