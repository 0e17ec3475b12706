/* A many-to-one queue with a descriptor: see mailbox.h. */
#include "base/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

bool
mailbox_init(struct mailbox *box)
{
	*box = (struct mailbox){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	box->last = &box->first;
	return box->fd >= 0 && pthread_mutex_init(&box->lock, NULL) == 0;
}

void
mailbox_deinit(struct mailbox *box)
{
	if (box->fd >= 0)
		(void)close(box->fd);
	box->fd = -1;
	(void)pthread_mutex_destroy(&box->lock);
}

void
mailbox_wake(struct mailbox *box)
{
	uint64_t one = 1;
	ssize_t n = write(box->fd, &one, sizeof(one));

	(void)n; /* a full counter is already readable */
}

void
mailbox_post(struct mailbox *box, struct mail *m)
{
	bool first;

	m->next = NULL;
	pthread_mutex_lock(&box->lock);
	first = box->first == NULL;
	*box->last = m;
	box->last = &m->next;
	box->waiting++;
	pthread_mutex_unlock(&box->lock);
	if (first)
		mailbox_wake(box);
}

struct mail *
mailbox_take(struct mailbox *box)
{
	struct mail *all;
	uint64_t count;
	ssize_t n = read(box->fd, &count, sizeof(count));

	(void)
	    n; /* reset before taking: a post between the two wakes once too often, never too seldom */
	pthread_mutex_lock(&box->lock);
	all = box->first;
	box->first = NULL;
	box->last = &box->first;
	box->waiting = 0;
	pthread_mutex_unlock(&box->lock);
	return all;
}

size_t
mailbox_waiting(struct mailbox *box)
{
	size_t n;

	pthread_mutex_lock(&box->lock);
	n = box->waiting;
	pthread_mutex_unlock(&box->lock);
	return n;
}
