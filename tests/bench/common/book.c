/*
 * Open addressing over exact keys: an id's number and 20 octets. Grants are
 * random already; an address is hashed to as many octets.
 */
#include "common/book.h"

#include "base/text.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAP 1024

struct pair {
	uint32_t id; /* 0: an empty place */
	uint8_t rcpt[DMTP_GRANT_LEN];
};

struct pairs {
	struct pair *at;
	size_t cap, n; /* cap is a power of two */
};

/* What an id stood for when it came first, as one hash. */
struct known {
	uint8_t content[DMTP_DIGEST_LEN];
};

struct book {
	struct pairs seen, expected;
	struct pairs names; /* the id of a name is its number */
	struct known *known;
	size_t known_cap;
	struct book_counts counts;
};

static uint64_t
hash_of(uint32_t id, const uint8_t rcpt[static DMTP_GRANT_LEN])
{
	uint64_t h;

	memcpy(&h, rcpt, sizeof(h));
	return h ^ (id * UINT64_C(0x9e3779b97f4a7c15));
}

/* Where the pair is, or the empty place where it would be. any_id: whatever its id. */
static struct pair *
place(const struct pairs *p, uint32_t id, const uint8_t rcpt[static DMTP_GRANT_LEN],
      bool any_id)
{
	size_t i = hash_of(any_id ? 0 : id, rcpt) & (p->cap - 1);

	while (p->at[i].id != 0 && ((!any_id && p->at[i].id != id) ||
	                            memcmp(p->at[i].rcpt, rcpt, DMTP_GRANT_LEN) != 0))
		i = (i + 1) & (p->cap - 1);
	return &p->at[i];
}

static bool
pairs_grow(struct pairs *p, bool any_id)
{
	struct pairs bigger = { .cap = p->cap == 0 ? FIRST_CAP : p->cap * 2, .n = p->n };

	bigger.at = calloc(bigger.cap, sizeof(*bigger.at));
	if (bigger.at == NULL)
		return false;
	for (size_t i = 0; i < p->cap; i++)
		if (p->at[i].id != 0)
			*place(&bigger, p->at[i].id, p->at[i].rcpt, any_id) = p->at[i];
	free(p->at);
	*p = bigger;
	return true;
}

/* The pair's place, with room for one more; NULL: no memory. */
static struct pair *
pairs_find(struct pairs *p, uint32_t id, const uint8_t rcpt[static DMTP_GRANT_LEN], bool any_id)
{
	if (p->n >= p->cap / 2 && !pairs_grow(p, any_id))
		return NULL;
	return place(p, id, rcpt, any_id);
}

static void
pairs_put(struct pairs *p, struct pair *at, uint32_t id,
          const uint8_t rcpt[static DMTP_GRANT_LEN])
{
	at->id = id;
	memcpy(at->rcpt, rcpt, DMTP_GRANT_LEN);
	p->n++;
}

static void
pairs_free(struct pairs *p)
{
	free(p->at);
	*p = (struct pairs){ .n = 0 };
}

struct book *
book_new(void)
{
	return calloc(1, sizeof(struct book));
}

void
book_reset(struct book *book)
{
	pairs_free(&book->seen);
	pairs_free(&book->names);
	book->counts = (struct book_counts){ .expected = book->counts.expected };
}

void
book_free(struct book **book)
{
	if (*book == NULL)
		return;
	book_reset(*book);
	pairs_free(&(*book)->expected);
	free((*book)->known);
	free(*book);
	*book = NULL;
}

/* --- what is expected --------------------------------------------------------- */

static bool
expect_line(struct book *book, char *line)
{
	uint8_t grant[DMTP_GRANT_LEN];
	struct pair *at;

	line[strcspn(line, "\r\n")] = '\0';
	if (!base32_decode(slice_str(line), grant, sizeof(grant)))
		return false;
	at = pairs_find(&book->expected, 1, grant, true);
	if (at == NULL)
		return false;
	if (at->id == 0)
		pairs_put(&book->expected, at, 1, grant);
	return true;
}

bool
book_expect(struct book *book, const char *path, char why[static 256])
{
	FILE *f = fopen(path, "re");
	char line[128];
	unsigned long number = 0;
	bool good = f != NULL;

	if (f == NULL)
		(void)snprintf(why, 256, "%s: %s", path, strerror(errno));
	while (good && fgets(line, sizeof(line), f) != NULL) {
		number++;
		good = expect_line(book, line);
		if (!good)
			(void)snprintf(why, 256, "%s: line %lu is no grant", path, number);
	}
	if (f != NULL)
		(void)fclose(f);
	book->counts.expected = book->expected.n;
	return good;
}

/* --- what comes ----------------------------------------------------------------- */

static struct known *
known_room(struct book *book, uint32_t id)
{
	size_t cap = book->known_cap == 0 ? 64 : book->known_cap * 2;
	struct known *grown;

	if (id < book->known_cap)
		return &book->known[id];
	grown = realloc(book->known, cap * sizeof(*grown));
	if (grown == NULL)
		return NULL;
	book->known = grown;
	book->known_cap = cap;
	return &book->known[id];
}

/* The sender's domain and the id, which together are unique. */
static void
hash_name(const struct dmtp_post *post, uint8_t out[static DMTP_GRANT_LEN])
{
	struct slice domain = dmtp_domain_of(post->from);
	crypto_generichash_state h;

	(void)crypto_generichash_init(&h, NULL, 0, DMTP_GRANT_LEN);
	(void)crypto_generichash_update(&h, domain.data, domain.len);
	(void)crypto_generichash_update(&h, (const uint8_t *)"", 1);
	(void)crypto_generichash_update(&h, post->id.data, post->id.len);
	(void)crypto_generichash_final(&h, out, DMTP_GRANT_LEN);
}

static void
hash_content(const struct dmtp_post *post, uint8_t out[static DMTP_DIGEST_LEN])
{
	crypto_generichash_state h;

	(void)crypto_generichash_init(&h, NULL, 0, DMTP_DIGEST_LEN);
	(void)crypto_generichash_update(&h, post->digest.data, post->digest.len);
	(void)crypto_generichash_update(&h, (const uint8_t *)&post->size, sizeof(post->size));
	(void)crypto_generichash_update(&h, post->from.data, post->from.len);
	(void)crypto_generichash_final(&h, out, DMTP_DIGEST_LEN);
}

uint32_t
book_id(struct book *book, const struct dmtp_post *post)
{
	uint8_t name[DMTP_GRANT_LEN], content[DMTP_DIGEST_LEN];
	struct pair *at;
	struct known *known;
	uint32_t id;

	hash_name(post, name);
	hash_content(post, content);
	at = pairs_find(&book->names, 0, name, true);
	if (at == NULL)
		return 0;
	if (at->id != 0) {
		if (memcmp(book->known[at->id].content, content, sizeof(content)) != 0)
			book->counts.conflicts++;
		return at->id;
	}
	id = (uint32_t)book->counts.ids + 1;
	known = known_room(book, id);
	if (known == NULL)
		return 0;
	memcpy(known->content, content, sizeof(content));
	pairs_put(&book->names, at, id, name);
	book->counts.ids++;
	return id;
}

static bool
is_expected(const struct book *book, const uint8_t rcpt[static DMTP_GRANT_LEN])
{
	return book->expected.n > 0 && place(&book->expected, 1, rcpt, true)->id != 0;
}

bool
book_take(struct book *book, uint32_t id, const struct dmtp_rcpt *rcpt)
{
	uint8_t hashed[DMTP_GRANT_LEN];
	const uint8_t *name = rcpt->grant;
	struct pair *at;

	if (name == NULL) {
		crypto_generichash_state h;

		(void)crypto_generichash_init(&h, NULL, 0, sizeof(hashed));
		(void)crypto_generichash_update(&h, rcpt->address.data, rcpt->address.len);
		(void)crypto_generichash_update(&h, (const uint8_t *)"", 1);
		(void)crypto_generichash_update(&h, rcpt->channel.data, rcpt->channel.len);
		(void)crypto_generichash_final(&h, hashed, sizeof(hashed));
		name = hashed;
	}
	at = pairs_find(&book->seen, id, name, false);
	if (at == NULL)
		return false;
	if (at->id != 0) {
		book->counts.again++;
		return true;
	}
	pairs_put(&book->seen, at, id, name);
	book->counts.distinct++;
	if (book->expected.n > 0 && !is_expected(book, name))
		book->counts.unexpected++;
	return true;
}

struct book_counts
book_counts(const struct book *book)
{
	struct book_counts c = book->counts;

	if (c.expected > 0)
		c.missing = c.expected * c.ids - (c.distinct - c.unexpected);
	return c;
}
