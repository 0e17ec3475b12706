/* From the store's thread back to the loop: see relay.h. */
#include "relay/relay.h"

static void
on_loop(struct loop_task *task)
{
	struct relay_later *later = (struct relay_later *)task;

	later->relay->jobs--;
	later->fn(later->arg);
}

static void
on_store(struct store_job *job)
{
	struct relay_later *later = job->arg;

	if (later->on_store != NULL)
		later->on_store(later->arg);
	loop_post(later->relay->loop, &later->task);
}

void
relay_later(struct relay_later *later, struct relay *relay, struct store_job *job,
            void (*fn)(void *arg), void *arg)
{
	*later = (struct relay_later){ .relay = relay, .fn = fn, .arg = arg };
	later->task.run = on_loop;
	job->done = on_store;
	job->arg = later;
	relay->jobs++;
}
