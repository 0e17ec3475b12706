/*
 * What a member writes, as a canonical message: to one person, by herself.
 * Pure: no request, no store, no clock.
 */
#ifndef TMTP_HOME_COMPOSE_H
#define TMTP_HOME_COMPOSE_H

#include "base/buffer.h"
#include "web/body.h"

#define COMPOSE_TEXT_MAX 65536  /* octets of a message's text */
#define COMPOSE_SUBJECT_MAX 200 /* characters */
#define COMPOSE_WORDS_MAX 140   /* characters of an invitation's own words */
#define COMPOSE_EXPIRES_MIN_S 60
#define COMPOSE_EXPIRES_MAX_S 2592000

/* From whom to whom (normalised addresses), and when; borrowed. */
struct compose_origin {
	struct slice from, to;
	int64_t date_s;
	uint8_t salt[16]; /* random, unique */
};

struct letter {
	struct buffer message; /* the canonical message */
	uint8_t digest[32];
	int64_t expires_s; /* from now; 0: never */
};

enum compose_rc {
	COMPOSE_OK = 0,
	COMPOSE_INVALID, /* errors says what */
	COMPOSE_MEMORY,
};

/* body: {"message", "subject"?, "lang"?, "expires"?}. *out is to be freed in any case; it borrows nothing. */
enum compose_rc compose_letter(const json_t *body, const struct compose_origin *origin,
                               struct letter *out, struct web_errors *errors)
    __attribute__((warn_unused_result));

/* An invitation: the inviter's address as the subject, and her words, if any. */
enum compose_rc compose_invitation(const struct compose_origin *origin, struct slice words,
                                   struct letter *out) __attribute__((warn_unused_result));

void letter_free(struct letter *letter);

/* 1 to 140 characters in one line, without what the other side would take for a link, and drop. */
bool compose_words_valid(struct slice words);

#endif
