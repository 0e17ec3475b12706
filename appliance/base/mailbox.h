/*
 * The queue in which two threads meet: many post, one takes. The file
 * descriptor becomes readable when as much waits as the taker wants to hear
 * of, so it polls it among its sockets. No callback runs under the lock.
 */
#ifndef TMTP_BASE_MAILBOX_H
#define TMTP_BASE_MAILBOX_H

#include "base/slice.h"

#include <pthread.h>

/* The link that stands in a posted object. */
struct mail {
	struct mail *next;
};

struct mailbox {
	pthread_mutex_t lock;
	struct mail *first;
	struct mail **last;
	size_t waiting;
	size_t enough; /* so many ring */
	bool rung;     /* the descriptor is readable */
	int fd;        /* eventfd(2), non-blocking; owned */
};

/* False (errno set) when the system gives no eventfd. */
bool mailbox_init(struct mailbox *box) __attribute__((warn_unused_result));

/* Closes the descriptor; what still waits is the caller's to free before. */
void mailbox_deinit(struct mailbox *box);

/* Appends; takes m until it is taken. Any thread. */
void mailbox_post(struct mailbox *box, struct mail *m);

/* Everything that waits, oldest first, as a list through next; NULL when nothing does. Resets the descriptor. */
struct mail *mailbox_take(struct mailbox *box);

/*
 * From now on the descriptor rings when n wait (at first 1); SIZE_MAX: never.
 * True: so many do already, and it does not ring for them. The taker's.
 */
bool mailbox_expect(struct mailbox *box, size_t n);

/* How much waits now. */
size_t mailbox_waiting(struct mailbox *box);

/* Makes the descriptor readable without posting. */
void mailbox_wake(struct mailbox *box);

#endif
