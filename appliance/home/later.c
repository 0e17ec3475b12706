/* From the store's thread back to the loop: see home.h. */
#include "home/home.h"

static void
on_loop(struct loop_task *task)
{
	struct home_later *later = (struct home_later *)task;

	later->home->jobs--;
	later->fn(later->arg);
}

static void
on_store(struct store_job *job)
{
	struct home_later *later = job->arg;

	loop_post(later->home->loop, &later->task);
}

void
home_later(struct home_later *later, struct home *home, struct store_job *job,
           void (*fn)(void *arg), void *arg)
{
	*later = (struct home_later){ .home = home, .fn = fn, .arg = arg };
	later->task.run = on_loop;
	job->done = on_store;
	job->arg = later;
	home->jobs++;
}
