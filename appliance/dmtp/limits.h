/*
 * What a server demands of its clients (PROTOCOL.md, the greeting): the
 * defaults of absent keys, the floor that every server grants, and the codec
 * of the "limits" dictionary.
 */
#ifndef TMTP_DMTP_LIMITS_H
#define TMTP_DMTP_LIMITS_H

#include "dmtp/bencode.h"

struct dmtp_limits {
	uint32_t command_octets; /* a command's element */
	uint32_t idle_s;
	uint64_t message_octets;
	uint32_t noops;    /* in a row */
	uint32_t pipeline; /* commands unanswered */
	uint32_t rcpts;    /* of a POST; users of CHANNELS; rows of RECEIPT */
	uint32_t uris;
};

#define DMTP_LIMITS_DEFAULT                                \
	((struct dmtp_limits){ .command_octets = 262144,   \
	                       .idle_s = 300,              \
	                       .message_octets = 26214400, \
	                       .noops = 10,                \
	                       .pipeline = 64,             \
	                       .rcpts = 1000,              \
	                       .uris = 8 })

/* The least that limits may say, and what a client may assume on TLS before the greeting. */
#define DMTP_FLOOR_COMMAND 65536
#define DMTP_FLOOR_PIPELINE 8
#define DMTP_FLOOR_RCPTS 100
#define DMTP_FLOOR_URIS 4

/* Defaults with the floor in place of what the floor names. */
struct dmtp_limits dmtp_limits_floor(void);

/* Each value is one that a greeting may carry. */
bool dmtp_limits_valid(const struct dmtp_limits *l);

#define DMTP_RESPONSE_MAX 1048576 /* octets of a response's element */
#define DMTP_EVENTS_MAX 1000      /* events in one K */
#define DMTP_CURSOR_MAX 64
#define DMTP_TEXT_MAX 200
#define DMTP_RETRY_MAX 86400
#define DMTP_ID_MAX 64
#define DMTP_VARS_MAX 1024
#define DMTP_GRANT_LEN 20
#define DMTP_DIGEST_LEN 32
#define DMTP_SALT_LEN 16
#define DMTP_SIGNATURE_LEN 64
#define DMTP_KEY_LEN 32
#define DMTP_PAST_S (30L * 86400) /* how old a date may be */
#define DMTP_FUTURE_S 3600        /* how far ahead */

/* The whole dictionary. */
void dmtp_limits_encode(const struct dmtp_limits *l, struct buffer *out);

/*
 * The next value of r, a dictionary. Absent keys are defaults, values too
 * large for us are cut to what we can count. A wrong type or a value below
 * the floor makes r bad; out is then untouched.
 */
void dmtp_limits_decode(struct ben_reader *r, struct dmtp_limits *out);

#endif
