/* A many-to-one queue with a descriptor: see mailbox.h. */
#include "base/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

bool
mailbox_init(struct mailbox *box)
{
	*box = (struct mailbox){ .enough = 1, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
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

/* Under the lock: so that who takes knows for certain whether there is something to reset. */
static void
ring(struct mailbox *box)
{
	uint64_t one = 1;
	ssize_t n = write(box->fd, &one, sizeof(one));

	(void)n; /* a full counter is already readable */
	box->rung = true;
}

void
mailbox_wake(struct mailbox *box)
{
	pthread_mutex_lock(&box->lock);
	ring(box);
	pthread_mutex_unlock(&box->lock);
}

void
mailbox_post(struct mailbox *box, struct mail *m)
{
	m->next = NULL;
	pthread_mutex_lock(&box->lock);
	*box->last = m;
	box->last = &m->next;
	if (++box->waiting == box->enough)
		ring(box);
	pthread_mutex_unlock(&box->lock);
}

static void
reset(struct mailbox *box)
{
	uint64_t count;
	ssize_t n = read(box->fd, &count, sizeof(count));

	(void)n;
	box->rung = false;
}

struct mail *
mailbox_take(struct mailbox *box)
{
	struct mail *all;

	pthread_mutex_lock(&box->lock);
	all = box->first;
	box->first = NULL;
	box->last = &box->first;
	box->waiting = 0;
	if (box->rung)
		reset(box);
	pthread_mutex_unlock(&box->lock);
	return all;
}

bool
mailbox_expect(struct mailbox *box, size_t n)
{
	bool enough;

	pthread_mutex_lock(&box->lock);
	box->enough = n;
	enough = box->waiting >= n;
	pthread_mutex_unlock(&box->lock);
	return enough;
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
