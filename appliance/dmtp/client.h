/*
 * The client's half of a session: encoded commands in, octets out; octets in,
 * replies out, each with the tag of its command. No socket, no clock, no
 * callbacks. One thread, its owner's, at a time.
 */
#ifndef TMTP_DMTP_CLIENT_H
#define TMTP_DMTP_CLIENT_H

#include "dmtp/session.h"

struct dmtp_client;

enum dmtp_client_mode {
	DMTP_CLIENT_TLS,      /* TLS from the first octet, handshake done */
	DMTP_CLIENT_STARTTLS, /* plaintext now, TLS before any other command */
	DMTP_CLIENT_PLAIN,    /* a pinned route says so */
};

struct dmtp_client_options {
	enum dmtp_client_mode mode;
	uint32_t window;          /* commands unanswered at once; 0: what the peer allows */
	int64_t reply_timeout_ms; /* no octet received while replies are due; 0: 5 minutes */
	bool keep_alive;          /* NOOPs, as many as the peer allows; then QUIT */
};

enum dmtp_client_kind {
	DMTP_CLIENT_GREETED =
	    1,                 /* dmtp_client_greeting; with STARTTLS only the one within TLS */
	DMTP_CLIENT_HANDSHAKE, /* STARTTLS was granted: do the handshake, then dmtp_client_secured */
	DMTP_CLIENT_REPLY,   /* K, E or Z of a command */
	DMTP_CLIENT_INFO,    /* I */
	DMTP_CLIENT_NO_MORE, /* X: commands sent are still answered, others are refused */
	DMTP_CLIENT_REFUSED, /* Z instead of a greeting; CLOSE follows */
	DMTP_CLIENT_CLOSED,  /* close now; the last event; then dmtp_client_lost */
};

struct dmtp_client_event {
	enum dmtp_client_kind kind;
	void *tag;           /* REPLY */
	enum dmtp_verb verb; /* REPLY */
	struct dmtp_response
	    response; /* REPLY, INFO, NO_MORE, REFUSED: borrows until the next call of next or feed */
	enum dmtp_close reason; /* CLOSED */
};

enum dmtp_client_rc {
	DMTP_CLIENT_OK = 0,
	DMTP_CLIENT_FULL,    /* the window: again after a REPLY, GREETED or sent */
	DMTP_CLIENT_CLOSING, /* X, QUIT or a close: never on this session */
	DMTP_CLIENT_TOO_LONG, /* longer than the peer's (before the greeting: the floor's) limit */
	DMTP_CLIENT_NO_MEMORY,
};

struct dmtp_client *dmtp_client_new(const struct dmtp_client_options *options, int64_t now_ms);
void dmtp_client_free(struct dmtp_client **c);

/*
 * Queues one encoded command (copied). tag is handed back with its reply, or
 * by dmtp_client_lost. The caller keeps rcpts and uris within
 * dmtp_client_limits, and sends only extension verbs that the greeting offers.
 */
enum dmtp_client_rc dmtp_client_send(struct dmtp_client *c, int64_t now_ms, enum dmtp_verb verb,
                                     struct slice command, void *tag)
    __attribute__((warn_unused_result));

/* How many commands could be sent now. */
size_t dmtp_client_room(const struct dmtp_client *c);

/* A smaller (or again larger) window; 0: what the peer allows. */
void dmtp_client_set_window(struct dmtp_client *c, uint32_t window);

/* QUIT when everything is answered; until then no new commands. */
void dmtp_client_quit(struct dmtp_client *c, int64_t now_ms);

/* All is taken, always; false: the session has ended and the octets were dropped. */
bool dmtp_client_feed(struct dmtp_client *c, int64_t now_ms, const uint8_t *data, size_t len);
void dmtp_client_eof(struct dmtp_client *c, int64_t now_ms);

/* The handshake is done. False: out of place. */
bool dmtp_client_secured(struct dmtp_client *c, int64_t now_ms);

/* One event, false when there is none. */
bool dmtp_client_next(struct dmtp_client *c, struct dmtp_client_event *out);

/* After CLOSED, or before free: one by one, in order, what was not answered. */
struct dmtp_client_lost {
	void *tag;
	enum dmtp_verb verb;
	bool sent; /* an octet of it left */
};
bool dmtp_client_take_lost(struct dmtp_client *c, struct dmtp_client_lost *out);

struct slice dmtp_client_output(const struct dmtp_client *c);
void dmtp_client_sent(struct dmtp_client *c, int64_t now_ms, size_t n);

/* When tick must be called, or -1. Changes with every call. */
int64_t dmtp_client_deadline(const struct dmtp_client *c);
void dmtp_client_tick(struct dmtp_client *c, int64_t now_ms);

/* NULL before the (first, or new) greeting. */
const struct dmtp_greeting *dmtp_client_greeting(const struct dmtp_client *c);
/* The peer's, or the floor before the greeting. */
const struct dmtp_limits *dmtp_client_limits(const struct dmtp_client *c);
size_t dmtp_client_unanswered(const struct dmtp_client *c);

#endif
