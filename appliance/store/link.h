/*
 * One libpq connection that is kept alive: asynchronous connecting with
 * backoff, and what its socket waits for. Who uses it decides what is sent.
 */
#ifndef TMTP_STORE_LINK_H
#define TMTP_STORE_LINK_H

#include "base/buffer.h"

#include <libpq-fe.h>

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_UP };

struct link {
	PGconn *pg;
	enum link_state state;
	int64_t retry_at_ms; /* LINK_DOWN: not before */
	int64_t deadline_ms; /* LINK_CONNECTING: given up then */
	int64_t backoff_ms;
	int64_t heard_ms; /* when the database last said anything on it */
	PostgresPollingStatusType wants;
	const char *conninfo; /* borrowed */
	const char *name;     /* borrowed */
	const char *worker;   /* borrowed: the process's id as text, or NULL */
	struct buffer error;  /* the last failure's text */
};

/* worker: what tmtp.this_worker() answers within the session; NULL: nothing. */
void link_init(struct link *l, const char *conninfo, const char *name, const char *worker);
void link_deinit(struct link *l);

/*
 * For PQconnectStartParams and its kind, before the connection string, which wins: a database on
 * another machine whose network is lost is noticed. Sockets of this machine don't mind.
 */
#define LINK_KEYS \
	"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"
#define LINK_VALUES "10", "5", "3", "10000"

/* Moves connecting on; true when the link has just come up. revents as from poll(2). */
bool link_step(struct link *l, int64_t now_ms, short revents);

/* Closes the connection because of text (NULL: libpq's last message); it is tried again after a backoff. */
void link_fail(struct link *l, int64_t now_ms, const char *text);

/* The socket (-1: none) and the poll(2) events it waits for; unsent: there are octets to flush. */
int link_poll(const struct link *l, bool unsent, short *events);

/* Takes what has arrived (PQconsumeInput); false when the connection is broken. */
bool link_read(struct link *l, int64_t now_ms);

/* Milliseconds until link_step has something to do without the socket; -1: never. */
int64_t link_timeout(const struct link *l, int64_t now_ms);

#endif
