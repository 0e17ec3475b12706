/*
 * One DMTP session to a peer, as a client: finds a server, makes TLS, then
 * carries commands. Work that waits stands in lanes; urgent ones go first, and
 * bulk never fills the window.
 */
#ifndef TMTP_RELAY_SESSION_H
#define TMTP_RELAY_SESSION_H

#include "dmtp/client.h"
#include "relay/peer.h"

struct session;

/* What is sent with a command as its tag: told of its end exactly once. */
struct command {
	/* The reply. */
	void (*replied)(struct command *command, const struct dmtp_response *response);
	/* The session ended without one. alone: it was the only one unanswered, and sent. */
	void (*lost)(struct command *command, bool alone, const char *reason);
	bool bulk; /* the session's */
};

enum source_rc {
	SOURCE_SENT, /* one command, by session_send; asked again while there is room */
	SOURCE_WAIT, /* nothing now: session_ready will tell */
	SOURCE_DONE, /* all is sent: it has taken itself out, by session_remove */
};

/*
 * Something that makes commands. It keeps its place in its lane until it is
 * done: what was accepted later for the same stream waits behind it, so that
 * order holds for one sender and one recipient. Parts of one message (of one
 * order) don't wait for each other. Embeds in its owner.
 */
struct source {
	enum source_rc (*make)(struct source *source);
	/* The session is gone, or takes no more: the source is out of its lane, and may enter another session's. */
	void (*gone)(struct source *source, const char *reason);
	int lane; /* 0 urgent .. 2 bulk */
	int64_t stream;
	struct uuid order;
	struct session *session; /* the session's: NULL when in no lane */
	struct source *next, **back;
};

/* Begins to connect. NULL: no memory. It frees itself when it ends, and tells its peer. */
struct session *session_begin(struct peer *peer, const char *own, unsigned slot);

/* Whose certificate it shows. */
const char *session_own(const struct session *s);
struct peer *session_peer(const struct session *s);

/* For peer.c: the peer's list, and which of its places this session has. */
struct session **session_link(struct session *s);
unsigned session_slot(const struct session *s);
/* It takes new commands (perhaps once it is connected). */
bool session_is_usable(const struct session *s);

/* Puts the source at the end of its lane; make is called from the loop's next turn on. */
void session_add(struct session *s, struct source *source);
/* Takes it out. Harmless when it is in no lane. */
void session_remove(struct source *source);
/* What waited has something to send again. */
void session_ready(struct session *s);

/* From within make. Not OK: it doesn't go out, and command isn't told of anything. */
enum dmtp_client_rc session_send(struct session *s, enum dmtp_verb verb, struct slice encoded,
                                 struct command *command, bool bulk)
    __attribute__((warn_unused_result));

/* The peer's limits and extension verbs; greeted: they are known. */
bool session_is_greeted(const struct session *s);
const struct dmtp_limits *session_limits(const struct session *s);
unsigned session_ext(const struct session *s);

/* At most so many commands unanswered; 0: what the peer allows. */
void session_window(struct session *s, unsigned commands);

/* Nothing is to be sent and nothing unanswered. */
bool session_is_idle(const struct session *s);

/* Commands unanswered. */
size_t session_unanswered(const struct session *s);

/* All sources are gone from it; what was sent is still answered. */
void session_give_back(struct session *s, const char *reason);

/* No new commands; QUIT when everything is answered. Its end is no failure of the peer. */
void session_quit(struct session *s);

/* At once; commands are lost, sources gone. */
void session_abort(struct session *s, const char *reason);

#endif
