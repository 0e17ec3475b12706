/*
 * The engine under every statement: a thread that owns the database
 * connections and turns waiting jobs into group commits. Whatever waits in a
 * lane when one of its connections is free becomes one pipelined transaction;
 * a job is told its result only after that transaction's Sync, so nothing is
 * ever acknowledged before it is committed.
 *
 * The statements themselves stand in the files beside this one, a group of
 * tables each; this file knows none of them.
 */
#ifndef TMTP_STORE_STORE_H
#define TMTP_STORE_STORE_H

#include "base/buffer.h"
#include "base/mailbox.h"

enum store_rc {
	STORE_OK = 0,
	STORE_NOT_FOUND, /* no such row, or not this caller's */
	STORE_CONFLICT,  /* a unique name, key or id is taken by something else */
	STORE_REFUSED,   /* the data broke a rule of the tables; a fault of the caller */
	STORE_DOWN,      /* the database is gone, full or shutting down: nothing was stored */
	STORE_COMMIT_UNKNOWN, /* the connection died between the Sync and its answer */
};

const char *store_rc_text(enum store_rc rc);

/* A lane has its own connections and its own order. A lane without connections uses STORE_WRITE's. */
enum store_lane {
	STORE_WRITE,  /* short writes that share commits */
	STORE_READ,   /* reads that may take long */
	STORE_ARRIVE, /* one connection, so that commits come in the order of submission */
	STORE_LANES
};

struct store;
struct store_op;
struct uuid;

/* A unit of work; the statement's own struct embeds it first. */
struct store_job {
	struct mail mail;
	const struct store_op *op;
	/* Called once, on the store's thread, after the commit or the failure. It owns the job then. */
	void (*done)(struct store_job *job);
	void *arg; /* the submitter's */
	int64_t
	    patience_ms; /* how long it may wait for a database that is gone; 0: the store's default */
	enum store_rc rc;

	int64_t deadline_ms; /* the engine's */
	unsigned tries;      /* the engine's */
	bool uncertain;      /* the engine's: an earlier try may have been committed */
};

struct store_options {
	const char *conninfo;              /* libpq's; copied */
	const char *name;                  /* application_name; copied */
	unsigned connections[STORE_LANES]; /* 0: shares STORE_WRITE's (at least 1) */
	int64_t patience_ms;               /* default for jobs; 0: 2000 */
	/*
	 * This process's id, or NULL. tmtp.this_worker() answers it in every session, and the
	 * connection that listens holds its advisory lock (workers.h); listen must be set then.
	 */
	const struct uuid *worker;
	/* NOTIFY channels to listen on, NULL-terminated, or NULL; notified is called on the store's
	 * thread with the channel's name, and with NULL after every (re)connect: anything may have
	 * been missed. */
	const char *const *listen;
	void (*notified)(const char *channel, void *arg);
	void *arg;
};

/* Starts the thread; connecting goes on in the background. NULL: out of memory or threads. */
struct store *store_start(const struct store_options *options);

/*
 * Takes no more jobs, finishes those it has (those that cannot within grace_ms
 * fail with STORE_DOWN), ends the thread, frees the store.
 */
void store_stop(struct store **store, int64_t grace_ms);

/*
 * Takes the job until its done. Any thread, also from within done. NULL, as
 * store_stop leaves it: done is called at once, with STORE_DOWN.
 */
void store_submit(struct store *store, struct store_job *job);

/* Submits and waits; for tmtpctl and tests. Not from the store's own thread. job->done is overwritten. */
enum store_rc store_run(struct store *store, struct store_job *job)
    __attribute__((warn_unused_result));

/* True while at least one connection is usable; else *why (when not NULL) has the last error's text. */
bool store_is_up(struct store *store, struct buffer *why);

/* Sends NOTIFY on a connection of its own: the first at once, then at most one each 20 ms. Any thread. */
void store_wake(struct store *store, const char *channel);

#endif
