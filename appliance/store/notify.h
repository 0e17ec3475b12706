/*
 * LISTEN and NOTIFY on a connection of their own. A NOTIFY takes a lock
 * across its commit, so it never rides in a transaction that stores anything:
 * the first goes out at once, then at most one each 20 ms. For store.c only.
 */
#ifndef TMTP_STORE_NOTIFY_H
#define TMTP_STORE_NOTIFY_H

#include "store/link.h"
#include "store/store.h"

#include <poll.h>

#define NOTIFIER_CHANNELS 8

struct notifier {
	struct link link;
	const char *const *listen;
	void (*notified)(const char *channel, void *arg);
	void *arg;
	int64_t lock_key; /* of the advisory lock that tells that this process is there, or 0 */
	bool used;        /* anybody listens, wakes or asks; else it never connects */
	bool in_flight;   /* a query's result is awaited */
	bool listening;
	pthread_mutex_t lock;
	struct wake {
		const char *channel;
		bool owed;
		int64_t not_before_ms;
	} wakes[NOTIFIER_CHANNELS];
};

void notifier_init(struct notifier *n, const char *conninfo, const char *name,
                   const char *worker, const struct store_options *o);
void notifier_deinit(struct notifier *n);

/* Fills fd; returns the time at which notifier_step has something to do, -1: none. */
int64_t notifier_poll(struct notifier *n, int64_t now_ms, struct pollfd *fd);
void notifier_step(struct notifier *n, int64_t now_ms, short revents);

/* Asks the database for a sign of life, unless an answer is awaited already. */
void notifier_ask(struct notifier *n, int64_t now_ms);

/* The database doesn't answer: the connection is given up, and made anew. */
void notifier_lose(struct notifier *n, int64_t now_ms, const char *text);

/* Any thread. The channel's name is a literal: it is borrowed for ever. */
void notifier_wake(struct notifier *n, const char *channel);

/* A NOTIFY is still to be sent or answered, and could be. */
bool notifier_is_owed(struct notifier *n);

#endif
