/*
 * A progress bar on standard error, for work of steps that may each be long.
 * It appears after a second, and only on a terminal.
 */
#ifndef TMTP_CTL_PROGRESS_H
#define TMTP_CTL_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool running; /* there is a thread: it is a terminal */
	bool over, drawn;
	size_t done, all; /* steps */
	const char *step; /* borrowed: the name of the one under way */
	int64_t began_ms;
};

void progress_begin(struct progress *p, size_t all);

/* The step of this name begins, done of them being over. The bar gives way to a line on standard output. */
void progress_step(struct progress *p, size_t done, const char *name);

/* The bar disappears. */
void progress_end(struct progress *p);

#endif
