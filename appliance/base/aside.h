/*
 * A thread for what must run neither on the store's thread, where everybody
 * waits behind it, nor on a server's thread, which must not block: the rest of a
 * request whose token had to be looked up, what burns a core.
 */
#ifndef TMTP_BASE_ASIDE_H
#define TMTP_BASE_ASIDE_H

#include "base/mailbox.h"

/* Stands in what is to be worked on; it lives until run is called. */
struct work {
	struct mail mail;
	void (*run)(struct work *work);
};

struct aside;

/* NULL: no thread or no memory. */
struct aside *aside_start(void);

/* Runs work->run on the thread aside. Any thread. */
void aside_post(struct aside *aside, struct work *work);

/* Runs what was posted before, then ends the thread. What is posted later waits for aside_free. */
void aside_stop(struct aside *aside);

/* Runs what still waits, here, and frees. After aside_stop, when nobody posts any more. NULL is fine. */
void aside_free(struct aside **aside);

#endif
