/*
 * Commands: ["VERB", {…}]. Decoding looks at shapes and borrows from the
 * element; dmtp_command_check then judges counts and values in the order in
 * which codes win. Recipients are walked without allocation.
 */
#ifndef TMTP_DMTP_COMMAND_H
#define TMTP_DMTP_COMMAND_H

#include "dmtp/response.h"

enum dmtp_verb {
	DMTP_VERB_UNKNOWN = 0,
	DMTP_STARTTLS,
	DMTP_POST,
	DMTP_CHANNELS,
	DMTP_NOOP,
	DMTP_QUIT,
	DMTP_AUTH,
	DMTP_GRANT,
	DMTP_RECEIPT,
	DMTP_PRESENCE,
};

/* Extension verbs that a greeting offers. */
#define DMTP_EXT_AUTH 1u
#define DMTP_EXT_GRANT 2u
#define DMTP_EXT_RECEIPT 4u
#define DMTP_EXT_PRESENCE 8u
#define DMTP_EXT_ALL 15u

enum dmtp_well_known {
	DMTP_CHANNEL_OTHER = 0, /* no such channel: closed */
	DMTP_CHANNEL_INBOX,
	DMTP_CHANNEL_SMTP,
	DMTP_CHANNEL_INVITE,
};

enum dmtp_state { DMTP_GRANTED = 1, DMTP_REFUSED, DMTP_REVOKED };
enum dmtp_presence_state { DMTP_OFFLINE = 1, DMTP_ONLINE, DMTP_AWAY };
enum dmtp_receipt_kind { DMTP_READ = 1, DMTP_WITHDRAWN };

struct dmtp_rcpt {
	const uint8_t *grant; /* DMTP_GRANT_LEN octets, or NULL: address and channel */
	struct slice vars;    /* the whole dictionary "d…e"; empty when there is none */
	struct slice address; /* as it stands; may be of a form that matches no user */
	struct slice channel;
	enum dmtp_well_known known;
};

struct dmtp_post {
	struct slice from, id;
	int64_t date;
	int64_t size;
	struct slice digest;          /* DMTP_DIGEST_LEN octets */
	struct slice uris;            /* inside of a list of strings */
	struct slice rcpts;           /* inside; decoding only */
	size_t uri_count, rcpt_count; /* decoding only */
	struct slice key, signature;  /* empty: absent */
	struct slice channel;         /* empty: absent */
	bool has_expires;
	int64_t expires;
	struct slice replaces, recall; /* empty: absent */
	bool shared;                   /* decoding only: a recipient has variables */
	bool invites;                  /* decoding only: a recipient's channel is invite */
	bool values_bad;               /* decoding only: judged by dmtp_command_check */
};

struct dmtp_channels {
	struct slice from;
	bool has_since;
	struct slice since; /* cursor, has_since only */
	struct slice users; /* inside of a list of strings otherwise */
	size_t user_count;
};

struct dmtp_grant {
	struct slice from, to, channel;
	struct slice grant; /* DMTP_GRANT_LEN octets; empty with DMTP_REFUSED */
	enum dmtp_state state;
	bool receipts, presence;
	int64_t date;
	bool values_bad; /* decoding only */
};

struct dmtp_receipt {
	struct slice from, to;
	struct slice events; /* inside: dmtp_receipt_next, dmtp_receipt_put */
	size_t event_count;  /* decoding only */
	bool values_bad;     /* decoding only */
};

struct dmtp_receipt_row {
	struct slice id;
	const uint8_t *grant; /* DMTP_GRANT_LEN octets */
	enum dmtp_receipt_kind kind;
	int64_t date;
};

/* What a person's home tells the homes of those who agreed to see it. */
struct dmtp_presence {
	struct slice from;
	struct slice rcpts; /* inside of a list of grants: dmtp_presence_next, ben_put_str */
	size_t rcpt_count;  /* decoding only */
	enum dmtp_presence_state state;
	int64_t since;
	int64_t until;   /* not with DMTP_OFFLINE */
	bool values_bad; /* decoding only */
};

struct dmtp_auth {
	struct slice domain, key, signature;
	bool values_bad; /* decoding only */
};

struct dmtp_command {
	enum dmtp_verb verb;
	const char *wrong; /* after MALFORMED: the key where it went wrong, or NULL */
	union {
		struct dmtp_post post;
		struct dmtp_channels channels;
		struct dmtp_grant grant;
		struct dmtp_receipt receipt;
		struct dmtp_presence presence;
		struct dmtp_auth auth;
	};
};

/*
 * One complete canonical element. Answers DMTP_CODE_NONE (out is filled and
 * borrows from element), DMTP_CODE_MALFORMED (the shape is wrong) or
 * DMTP_CODE_UNKNOWN_COMMAND; then out is untouched but for wrong.
 */
enum dmtp_code dmtp_command_decode(struct slice element, struct dmtp_command *out)
    __attribute__((warn_unused_result));

/* The verb of a complete element, whatever follows it; UNKNOWN also when there is none. */
enum dmtp_verb dmtp_command_verb(struct slice element);

/* The same as it was sent, of any octets; empty when there is none. */
struct slice dmtp_command_verb_sent(struct slice element);

/* The "from" of a command, or AUTH's domain; empty for the others. Borrows as the command does. */
struct slice dmtp_command_from(const struct dmtp_command *c);

/* letter 0: go on. K: answer K and store nothing (expired). E: answer that. */
struct dmtp_verdict {
	enum dmtp_letter letter;
	enum dmtp_code code;
	const char *why; /* which value is wrong, for people; NULL: the code says it all */
};
#define DMTP_VERDICT_PASS ((struct dmtp_verdict){ 0, DMTP_CODE_NONE, NULL })

/*
 * What can be judged without a database, in the order in which codes win:
 * verification, counts, values, too-large, expires. verified: the session is
 * verified for the domain of dmtp_command_from (exactly, octet by octet;
 * ignored for AUTH). now_s: seconds since 1970 UTC.
 */
struct dmtp_verdict dmtp_command_check(const struct dmtp_command *c,
                                       const struct dmtp_limits *limits, bool verified,
                                       int64_t now_s);

/* it was set by ben_reader_init(&it, post.rcpts). False: no more. For checked posts. */
bool dmtp_rcpt_next(struct ben_reader *it, struct dmtp_rcpt *out);

/* it over receipt.events. For checked receipts. */
bool dmtp_receipt_next(struct ben_reader *it, struct dmtp_receipt_row *out);

/* it over presence.rcpts: a grant's DMTP_GRANT_LEN octets, or NULL: no more. For checked presences. */
const uint8_t *dmtp_presence_next(struct ben_reader *it);

/*
 * it over a response's events. False: no more, or (it->bad) not a grant's
 * shape. One whose values_bad is set is to be passed over.
 */
bool dmtp_grant_next(struct ben_reader *it, struct dmtp_grant *out);

enum dmtp_well_known dmtp_well_known_find(struct slice name);
const char *dmtp_well_known_name(enum dmtp_well_known c);
const char *dmtp_verb_name(enum dmtp_verb verb);
const char *dmtp_state_name(enum dmtp_state state);
enum dmtp_state dmtp_state_find(struct slice name); /* 0: none */
const char *dmtp_receipt_name(enum dmtp_receipt_kind kind);
const char *dmtp_presence_name(enum dmtp_presence_state state);

/* --- encoding: appends; a failed buffer tells at the end ----------------- */

/* STARTTLS, NOOP and QUIT. */
void dmtp_command_put_bare(struct buffer *out, enum dmtp_verb verb);

/* A POST in three steps; post (whose rcpts are not looked at) is borrowed until the end. */
struct dmtp_post_writer {
	struct buffer *out;
	const struct dmtp_post *post;
};
void dmtp_post_begin(struct dmtp_post_writer *w, struct buffer *out,
                     const struct dmtp_post *post);
void dmtp_post_put_grant(struct dmtp_post_writer *w,
                         const uint8_t grant[static DMTP_GRANT_LEN]);
/* vars: a whole canonical dictionary "d…e". */
void dmtp_post_put_vars(struct dmtp_post_writer *w, const uint8_t grant[static DMTP_GRANT_LEN],
                        struct slice vars);
void dmtp_post_put_address(struct dmtp_post_writer *w, struct slice address,
                           enum dmtp_well_known channel);
void dmtp_post_end(struct dmtp_post_writer *w);

void dmtp_channels_encode(const struct dmtp_channels *c, struct buffer *out);
void dmtp_grant_encode(const struct dmtp_grant *g, struct buffer *out);
/* The dictionary alone: an event within a K. */
void dmtp_grant_put(const struct dmtp_grant *g, struct buffer *inside);
void dmtp_receipt_encode(const struct dmtp_receipt *r, struct buffer *out);
void dmtp_receipt_put(const struct dmtp_receipt_row *row, struct buffer *inside);
void dmtp_presence_encode(const struct dmtp_presence *p, struct buffer *out);
void dmtp_auth_encode(const struct dmtp_auth *a, struct buffer *out);

#endif
