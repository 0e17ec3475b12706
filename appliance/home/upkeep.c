/* Upkeep by the role home: see upkeep.h. */
#include "home/upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/upkeep.h"

#include <stdlib.h>

#define PARTITIONS_EVERY_MS ((int64_t)3600 * 1000)
#define FORGET_EVERY_MS 60000
#define FORGET_AT_ONCE 5000

struct home_upkeep {
	struct home *home;
	struct loop_timer partitions_timer, forget_timer;
	struct upkeep_partitions partitions;
	struct upkeep_forget forget;
	struct home_later partitions_later, forget_later;
};

static void
on_partitions(void *arg)
{
	struct home_upkeep *u = arg;
	bool good = u->partitions.job.rc == STORE_OK;

	if (!good)
		log_error("partitions-missing",
		          LOG_S("reason", store_rc_text(u->partitions.job.rc)));
	if (!u->home->draining)
		loop_timer_set(&u->partitions_timer, good ? PARTITIONS_EVERY_MS : 5000);
}

static void
make_partitions(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	u->partitions = (struct upkeep_partitions){ .now_us = clock_wall_us() };
	home_later(&u->partitions_later, u->home, &u->partitions.job, on_partitions, u);
	store_upkeep_partitions(u->home->store, &u->partitions);
}

static void
on_forgotten(void *arg)
{
	struct home_upkeep *u = arg;

	if (!u->home->draining)
		loop_timer_set(&u->forget_timer,
		               u->forget.forgotten >= FORGET_AT_ONCE ? 1000 : FORGET_EVERY_MS);
}

static void
forget(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	u->forget =
	    (struct upkeep_forget){ .now_us = clock_wall_us(), .limit = FORGET_AT_ONCE };
	home_later(&u->forget_later, u->home, &u->forget.job, on_forgotten, u);
	store_upkeep_forget_posted(u->home->store, &u->forget);
}

struct home_upkeep *
home_upkeep_new(struct home *home)
{
	struct home_upkeep *u = calloc(1, sizeof(*u));

	if (u == NULL)
		return NULL;
	u->home = home;
	loop_timer_init(&u->partitions_timer, home->loop, make_partitions, u);
	loop_timer_init(&u->forget_timer, home->loop, forget, u);
	loop_timer_set(&u->partitions_timer, 0);
	loop_timer_set(&u->forget_timer, FORGET_EVERY_MS);
	return u;
}

void
home_upkeep_free(struct home_upkeep **upkeep)
{
	if (*upkeep == NULL)
		return;
	loop_timer_cancel(&(*upkeep)->partitions_timer);
	loop_timer_cancel(&(*upkeep)->forget_timer);
	free(*upkeep);
	*upkeep = NULL;
}
