/* The thread aside: see aside.h. */
#include "base/aside.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>

struct aside {
	struct mailbox box;
	pthread_t thread;
	_Atomic bool stopping;
};

static void
run_waiting(struct aside *aside)
{
	for (struct mail *m = mailbox_take(&aside->box), *next; m != NULL; m = next) {
		struct work *work = (struct work *)m;

		next = m->next; /* the work may be gone once it has run */
		work->run(work);
	}
}

static void *
run(void *arg)
{
	struct aside *aside = arg;
	struct pollfd fd = { .fd = aside->box.fd, .events = POLLIN };
	bool last;

	do {
		(void)poll(&fd, 1, -1);
		last = atomic_load(&aside->stopping);
		run_waiting(aside);
	} while (!last);
	return NULL;
}

struct aside *
aside_start(void)
{
	struct aside *aside = calloc(1, sizeof(*aside));

	if (aside == NULL)
		return NULL;
	if (!mailbox_init(&aside->box)) {
		free(aside);
		return NULL;
	}
	if (pthread_create(&aside->thread, NULL, run, aside) != 0) {
		mailbox_deinit(&aside->box);
		free(aside);
		return NULL;
	}
	return aside;
}

void
aside_post(struct aside *aside, struct work *work)
{
	mailbox_post(&aside->box, &work->mail);
}

void
aside_stop(struct aside *aside)
{
	atomic_store(&aside->stopping, true);
	mailbox_wake(&aside->box);
	(void)pthread_join(aside->thread, NULL);
}

void
aside_free(struct aside **aside)
{
	if (*aside == NULL)
		return;
	run_waiting(*aside);
	mailbox_deinit(&(*aside)->box);
	free(*aside);
	*aside = NULL;
}
