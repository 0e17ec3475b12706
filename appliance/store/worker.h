/*
 * One worker connection of the engine: sends a set of jobs as one pipelined
 * transaction, reads the results, and after a failure finds the job whose
 * data was bad by halving the set. For store.c only.
 */
#ifndef TMTP_STORE_WORKER_H
#define TMTP_STORE_WORKER_H

#include "store/args.h"
#include "store/link.h"
#include "store/op.h"

/* Jobs of one transaction, grouped by statement. */
struct set {
	struct set *next;
	size_t n;
	struct store_job *job[];
};

#define WORKER_OPS_MAX 128
#define SET_JOBS_MAX 512
/* A set with so many octets takes no more jobs: libpq moves what is unsent at every write. */
#define SET_OCTETS_MAX ((size_t)8 << 20)

struct worker {
	struct link link;
	unsigned lanes; /* bits of enum store_lane */
	struct store *store;

	struct set *again; /* sets to be sent before any new one */
	struct set *set;   /* in flight, or NULL */
	int64_t sent_ms;   /* when it was sent */
	struct item {
		const struct store_op *op; /* NULL: the Sync */
		bool prepare;
		size_t first, n; /* jobs */
	} * items;
	size_t items_n, items_cap, at;
	const struct item *failed; /* the first statement that failed */
	char sqlstate[6];
	bool no_partition; /* it failed because a day has no partition */
	struct buffer message;
	int64_t mended_ms; /* when partitions were last made for that, 0: never */
	enum store_rc mend_rc;

	const struct store_op *prepared[WORKER_OPS_MAX];
	size_t prepared_n;
	struct args args;
};

/* The last three as link_init's. */
void worker_init(struct worker *c, struct store *store, unsigned lanes, const char *conninfo,
                 const char *name, const char *process);
void worker_deinit(struct worker *c);

/* Connected and nothing in flight. */
bool worker_is_idle(const struct worker *c);

/* Sends the set (takes it). Only when idle. */
void worker_send(struct worker *c, struct set *set, int64_t now_ms);

/* Reads and writes what the socket allows. */
void worker_step(struct worker *c, int64_t now_ms, short revents);

/* Gives the connection up, and what is under way on it, because of text. Only when it is up. */
void worker_lose(struct worker *c, int64_t now_ms, const char *text);

/* Octets wait to be written. */
bool worker_unsent(const struct worker *c);

/* What the engine offers to its connections (store.c). */
void store_finish(struct store *store, struct store_job *job, enum store_rc rc);
/* Counts one more try; false when the job's time or tries are used up. */
bool store_may_again(struct store_job *job, unsigned tries_max);
/* Puts the job back in front of its lane, or finishes it when it may not be tried again. */
void store_again(struct store *store, struct store_job *job, enum store_rc otherwise);
void store_link_changed(struct store *store);

#endif
