/*
 * The queue in which two threads meet: many post, one takes. The file
 * descriptor is readable while anything waits, so the taker polls it among
 * its sockets. No callback runs under the lock.
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
	int fd; /* eventfd(2), non-blocking; owned */
};

/* False (errno set) when the system gives no eventfd. */
bool mailbox_init(struct mailbox *box) __attribute__((warn_unused_result));

/* Closes the descriptor; what still waits is the caller's to free before. */
void mailbox_deinit(struct mailbox *box);

/* Appends; takes m until it is taken. Any thread. */
void mailbox_post(struct mailbox *box, struct mail *m);

/* Everything that waits, oldest first, as a list through next; NULL when nothing does. Resets the descriptor. */
struct mail *mailbox_take(struct mailbox *box);

/* How much waits now. */
size_t mailbox_waiting(struct mailbox *box);

/* Makes the descriptor readable without posting. */
void mailbox_wake(struct mailbox *box);

#endif
