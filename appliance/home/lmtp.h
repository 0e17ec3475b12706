/*
 * The server's half of an LMTP session (RFC 2033) with PIPELINING (RFC 2920),
 * SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531) and ENHANCEDSTATUSCODES
 * (2034): octets in, jobs out; answers in, octets out. No socket, no clock, no
 * callbacks; times are the caller's monotonic milliseconds.
 *
 *   n = lmtp_feed(s, now, data, len);             // takes what it can
 *   while (lmtp_next(s, &event)) …                // also after answers, sent, tick
 *   lmtp_answer_rcpt(s, now, event.seq, answer);  // in any order
 *   lmtp_take_body(s, &body); … lmtp_answer_message(s, now, answers);
 *   out = lmtp_output(s); … lmtp_sent(s, now, n);
 *   at lmtp_deadline(s): lmtp_tick(s, now);
 *
 * A line ends in CRLF and in nothing else. A bare LF in a command ends the
 * session; one within a message refuses the message, and never makes its end
 * (what another server would take for one is how mail is smuggled).
 */
#ifndef TMTP_HOME_LMTP_H
#define TMTP_HOME_LMTP_H

#include "base/buffer.h"
#include "home/lmtp_line.h"

#define LMTP_LINE_MAX 2048       /* octets of a command with its CRLF */
#define LMTP_TEXT_LINE_MAX 65536 /* of a line of a message; RFC 5321 asks for 1000 */
#define LMTP_PIPELINE 64         /* RCPTs that are looked up at a time */
#define LMTP_BAD_COMMANDS 20
#define LMTP_DATA_IDLES 12 /* a whole message may take so many times idle_s */

struct lmtp;

struct lmtp_options {
	const char *host; /* our name; borrowed until lmtp_free */
	size_t octets;    /* the longest message */
	unsigned rcpts;   /* recipients of a message */
	unsigned idle_s;
};

enum lmtp_answer {
	LMTP_YES = 1,   /* RCPT: mail is taken for this address. Message: it is stored */
	LMTP_NOBODY,    /* 550: unknown, closed or blocked, one and the same */
	LMTP_LATER,     /* 451: the database is gone */
	LMTP_TOO_MUCH,  /* 452: short of memory for now */
	LMTP_TOO_LARGE, /* 552 */
};

enum lmtp_close {
	LMTP_CLOSE_NONE = 0,
	LMTP_CLOSE_QUIT,
	LMTP_CLOSE_EOF,
	LMTP_CLOSE_IDLE,
	LMTP_CLOSE_BARE_LF,
	LMTP_CLOSE_BAD_COMMANDS,
	LMTP_CLOSE_DRAINED,
	LMTP_CLOSE_REFUSED,
	LMTP_CLOSE_NO_MEMORY,
};

const char *lmtp_close_name(enum lmtp_close reason);

enum lmtp_kind {
	LMTP_EVENT_RCPT = 1, /* may this address be written to? */
	LMTP_EVENT_MESSAGE,  /* a whole message: take_body, then answer_message */
	LMTP_EVENT_REFUSED,  /* a message was refused here: for the log */
	LMTP_EVENT_CLOSE,    /* all output is sent, or given up: the last event */
};

struct lmtp_event {
	enum lmtp_kind kind;
	uint64_t seq;           /* RCPT */
	struct slice address;   /* RCPT; borrows until the answer */
	const char *reason;     /* REFUSED */
	enum lmtp_close closed; /* CLOSE */
};

/* The greeting stands in the output. NULL: out of memory. */
struct lmtp *lmtp_new(const struct lmtp_options *options, int64_t now_ms);

/* A session above the limits: its output is 421 instead of a greeting, then CLOSE. */
struct lmtp *lmtp_new_refusing(const struct lmtp_options *options, int64_t now_ms);

void lmtp_free(struct lmtp **s);

/* Takes octets from the peer and answers how many: fewer than len while an answer is due. */
size_t lmtp_feed(struct lmtp *s, int64_t now_ms, const uint8_t *data, size_t len);

/* False when it would take nothing now. */
bool lmtp_wants(const struct lmtp *s);

/* The peer ended its stream: what is complete is answered, then CLOSE. */
void lmtp_eof(struct lmtp *s, int64_t now_ms);

/* One event, false when there is none. */
bool lmtp_next(struct lmtp *s, struct lmtp_event *out);

/* The answer to a RCPT event. False: none is due of this number. */
bool lmtp_answer_rcpt(struct lmtp *s, int64_t now_ms, uint64_t seq, enum lmtp_answer answer);

/* --- After MESSAGE, until answer_message ------------------------------------- */

/* The envelope's sender as it stood between its brackets; empty: <>. */
struct slice lmtp_sender(const struct lmtp *s);

/* Its recipients: those answered with YES, in their order; one may stand twice. */
size_t lmtp_rcpts(const struct lmtp *s);
struct slice lmtp_rcpt(const struct lmtp *s, size_t i);

/* Moves the message into out, an unused buffer: lines end in CRLF, dots are unstuffed. */
void lmtp_take_body(struct lmtp *s, struct buffer *out);

/* One answer a recipient, in their order. False: no message waits for one. */
bool lmtp_answer_message(struct lmtp *s, int64_t now_ms, const enum lmtp_answer *answers);

/* --- At any time ---------------------------------------------------------------- */

/* Octets of a message that stand here, and letting them go: it is then refused with 452. */
size_t lmtp_held(const struct lmtp *s);
void lmtp_shed(struct lmtp *s);

/* No further messages: 421 as soon as nothing is due. */
void lmtp_drain(struct lmtp *s, int64_t now_ms);

/* What waits to be sent; borrows until the next call but next and deadline. */
struct slice lmtp_output(const struct lmtp *s);
void lmtp_sent(struct lmtp *s, int64_t now_ms, size_t n);

/* When tick must be called, or -1. Changes with every call. */
int64_t lmtp_deadline(const struct lmtp *s);
void lmtp_tick(struct lmtp *s, int64_t now_ms);

#endif
