/*
 * Site cards (PROTOCOL.md 9.2): what a domain publishes about itself as JSON
 * at https://domain/.well-known/dmtp. Written, read, and what follows from one
 * for a message's signature and for AUTH.
 */
#ifndef TMTP_DMTP_CARD_H
#define TMTP_DMTP_CARD_H

#include "dmtp/address.h"
#include "dmtp/limits.h"

#define DMTP_CARD_PATH "/.well-known/dmtp"
#define DMTP_CARD_MAX 65536  /* octets */
#define DMTP_CARD_HOSTS 256  /* more are not read */
#define DMTP_CARD_KEYS 512   /* likewise */
#define DMTP_CARD_NAME 100   /* characters */
#define DMTP_CARD_FRESH_S 60 /* a younger card is not fetched again */
#define DMTP_CARD_LEAST_S 300
#define DMTP_CARD_MOST_S 86400
#define DMTP_PROOF_S 86400 /* AUTH holds no longer */

struct dmtp_card_key {
	char id[DMTP_ID_MAX + 1];
	uint8_t public_key[DMTP_KEY_LEN];
	int64_t from, until; /* valid at from, no longer at until */
};

struct dmtp_card {
	char *name, *icon; /* NULL: not said */
	char **hosts;      /* further hosts of pickup URIs */
	size_t hosts_n;
	bool signed_only; /* what isn't signed is not this domain's */
	struct dmtp_card_key *keys;
	size_t keys_n;
};

enum dmtp_card_rc {
	DMTP_CARD_OK = 0,
	DMTP_CARD_NONE, /* something else, like a page for people: there is no card */
	DMTP_CARD_BAD,  /* a card of ours, but not of this form: nothing follows from it */
	DMTP_CARD_NO_MEMORY,
};

/*
 * octets is the whole document. A key or host that is none is passed over, as
 * is the second key of an id; a wrong type of "signed", "hosts" or "keys" is
 * BAD, since passing over it would weaken what the domain meant. *out is NULL
 * unless OK; freed by dmtp_card_free.
 */
enum dmtp_card_rc dmtp_card_decode(struct slice octets, struct dmtp_card **out)
    __attribute__((warn_unused_result));

/*
 * Appends the document: at most DMTP_CARD_MAX octets, the last keys left out
 * when they don't fit. False: no memory, or too long without any key.
 */
bool dmtp_card_encode(const struct dmtp_card *card, struct buffer *out)
    __attribute__((warn_unused_result));

/* A card that says nothing: of a domain without one. NULL: no memory. */
struct dmtp_card *dmtp_card_make(void);
void dmtp_card_free(struct dmtp_card **card);

bool dmtp_card_has_host(const struct dmtp_card *card, struct slice host);

enum dmtp_card_verdict {
	DMTP_CARD_GOOD = 0,
	DMTP_CARD_UNSIGNED,  /* and the domain signs everything */
	DMTP_CARD_NO_KEY,    /* no key of this id: perhaps in a newer card */
	DMTP_CARD_KEY_ENDED, /* not valid at the time that counts */
	DMTP_CARD_FORGED,    /* not made with this key */
};

const char *dmtp_card_verdict_text(enum dmtp_card_verdict verdict);

/* A message's signature, or its absence (key and signature empty). date is the message's. */
enum dmtp_card_verdict dmtp_card_judge(const struct dmtp_card *card,
                                       const uint8_t digest[static DMTP_DIGEST_LEN],
                                       struct slice key, struct slice signature, int64_t date);

/* It has this key, and the key is valid then. */
bool dmtp_card_key_counts(const struct dmtp_card *card, struct slice key, int64_t at_s);

/*
 * What AUTH proved by this key until then still counts, by the newest card that is known (NULL:
 * none): a key that it doesn't hold any more has leaked, for all that we know.
 */
bool dmtp_card_proof_counts(const struct dmtp_card *card, struct slice key, int64_t until,
                            int64_t now_s);

/* AUTH's, at now_s. *until (untouched unless GOOD): the proof's end, the key's or DMTP_PROOF_S away. */
struct dmtp_card_auth {
	const uint8_t *exporter; /* 32 octets */
	struct slice client, server, key, signature;
};
enum dmtp_card_verdict dmtp_card_judge_auth(const struct dmtp_card *card,
                                            const struct dmtp_card_auth *auth, int64_t now_s,
                                            int64_t *until);

#endif
