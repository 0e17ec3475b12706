/*
 * The server's half of a session: octets in, events out; replies in, octets
 * out. No socket, no clock, no callbacks. One thread, its owner's, at a time.
 *
 *   n = dmtp_server_feed(s, now, data, len);      // takes what it can
 *   while (dmtp_server_next(s, &event)) …         // also after reply, sent, tick
 *   dmtp_server_reply(s, now, seq, &response);    // in any order
 *   out = dmtp_server_output(s); … dmtp_server_sent(s, now, n);
 *   at dmtp_server_deadline(s): dmtp_server_tick(s, now);
 */
#ifndef TMTP_DMTP_SERVER_H
#define TMTP_DMTP_SERVER_H

#include "dmtp/session.h"

struct dmtp_server;

/* Gone when the call returns. */
struct dmtp_refusal {
	struct slice verb; /* as it was sent: of any octets; empty when there was none */
	enum dmtp_code code;
	const char *why; /* for people, or NULL: the code says it all */
};

struct dmtp_server_options {
	struct dmtp_greeting greeting; /* copied; its tls counts in plaintext only */
	bool secured;                  /* TLS from the first octet, handshake done */
	bool plain_allowed;            /* a pinned route: commands are served without TLS too */
	/* Told, from within next, of each command that is answered with E without becoming an event. May be NULL. */
	void (*refused)(void *arg, const struct dmtp_refusal *refusal);
	void *arg;
};

enum dmtp_server_kind {
	DMTP_SERVER_COMMAND = 1, /* POST, CHANNELS, AUTH, GRANT or RECEIPT: answer with reply */
	DMTP_SERVER_STARTTLS,    /* K is sent: do the handshake, then dmtp_server_secured */
	DMTP_SERVER_CLOSE, /* all output is sent, or given up: close now; the last event */
};

struct dmtp_server_event {
	enum dmtp_server_kind kind;
	uint64_t seq;                /* COMMAND */
	struct dmtp_command command; /* COMMAND: borrows until the next call of next or feed */
	size_t octets;               /* COMMAND: length of its element */
	enum dmtp_close reason;      /* CLOSE */
};

/* The greeting stands in the output. NULL: out of memory, or a greeting that may not be sent. */
struct dmtp_server *dmtp_server_new(const struct dmtp_server_options *options, int64_t now_ms);

/* A session that is refused: its output is refusal (a Z) instead of a greeting, then CLOSE. */
struct dmtp_server *dmtp_server_new_refusing(const struct dmtp_response *refusal,
                                             int64_t now_ms);

void dmtp_server_free(struct dmtp_server **s);

/*
 * Takes octets from the peer and answers how many. Fewer than len while
 * `pipeline` commands are unanswered or output waits: offer the rest again
 * after the next reply or sent. After QUIT and the like all is taken and dropped.
 */
size_t dmtp_server_feed(struct dmtp_server *s, int64_t now_ms, const uint8_t *data, size_t len);

/* False when it would take nothing now: the caller stops reading its socket. */
bool dmtp_server_wants(const struct dmtp_server *s);

/* The peer ended its stream: what is complete is answered, then CLOSE. */
void dmtp_server_eof(struct dmtp_server *s, int64_t now_ms);

/* One event, false when there is none. */
bool dmtp_server_next(struct dmtp_server *s, struct dmtp_server_event *out);

/*
 * The K, E or Z of a COMMAND, in any order; written in the order of commands.
 * False: no such command is unanswered (a caller's mistake; nothing happens).
 * K of AUTH with limits puts them in force. A reply longer than a response may
 * be goes out as Z storage.
 */
bool dmtp_server_reply(struct dmtp_server *s, int64_t now_ms, uint64_t seq,
                       const struct dmtp_response *response);

/* Writes an I now. */
void dmtp_server_info(struct dmtp_server *s, int64_t now_ms, const struct dmtp_response *info);

/* The handshake that STARTTLS asked for is done: a new greeting, copied. False: out of place. */
bool dmtp_server_secured(struct dmtp_server *s, int64_t now_ms,
                         const struct dmtp_greeting *greeting);

/* X (with a code and text, or NULL); commands already sent are answered for DMTP_DRAIN_MS. */
void dmtp_server_drain(struct dmtp_server *s, int64_t now_ms, const struct dmtp_response *x);

/* What waits to be sent; borrows until the next call but next and deadline. */
struct slice dmtp_server_output(const struct dmtp_server *s);
void dmtp_server_sent(struct dmtp_server *s, int64_t now_ms, size_t n);

/* When tick must be called, or -1. Changes with every call. */
int64_t dmtp_server_deadline(const struct dmtp_server *s);
void dmtp_server_tick(struct dmtp_server *s, int64_t now_ms);

bool dmtp_server_is_secured(const struct dmtp_server *s);
const struct dmtp_limits *dmtp_server_limits(const struct dmtp_server *s);
size_t dmtp_server_unanswered(const struct dmtp_server *s);

#endif
