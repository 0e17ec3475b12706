/* Upkeep by the role home: see upkeep.h. */
#include "home/upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "home/copies.h"
#include "home/pickups.h"
#include "store/clocks.h"
#include "store/copies.h"
#include "store/mails.h"
#include "store/upkeep.h"
#include "store/workers.h"

#include <stdlib.h>

#define PARTITIONS_EVERY_MS ((int64_t)3600 * 1000)
#define FORGET_EVERY_MS 60000
#define FORGET_AT_ONCE 5000
#define REAP_EVERY_MS 1000
#define SWEEP_EVERY_MS 2000
#define SWEEP_AT_ONCE 100
#define YOUNG_US (INT64_C(10) * 1000000) /* named, and the message is not yet shown */

struct home_upkeep {
	struct home *home;
	struct loop_timer partitions_timer, forget_timer, reap_timer;
	struct upkeep_partitions partitions;
	struct upkeep_forget forget;
	bool posted_more; /* ids are left that may be forgotten */
	struct worker_reap reap;
	struct home_later partitions_later, forget_later, reap_later;
	struct loop_timer mails_timer;
	struct mail_forget mails;
	struct home_later mails_later;
	struct loop_timer copies_timer;
	struct copy_sweep copies;
	struct home_later copies_later;
	struct loop_timer clock_timer;
	struct clock_look look;
	struct clock_see clock;
	struct home_later clock_later;
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
	bool more = u->posted_more || u->forget.forgotten >= FORGET_AT_ONCE;

	if (!u->home->draining)
		loop_timer_set(&u->forget_timer, more ? 1000 : FORGET_EVERY_MS);
}

/* Then the keys of what members wrote. */
static void
on_posted_forgotten(void *arg)
{
	struct home_upkeep *u = arg;

	u->posted_more = u->forget.forgotten >= FORGET_AT_ONCE;
	u->forget.forgotten = 0;
	if (u->home->draining)
		return;
	home_later(&u->forget_later, u->home, &u->forget.job, on_forgotten, u);
	store_upkeep_forget_keys(u->home->store, &u->forget);
}

static void
forget(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	int64_t now_us = clock_wall_us();

	u->forget = (struct upkeep_forget){ .now_us = now_us,
		                            .keys_before_us =
		                                now_us - (int64_t)UPKEEP_KEYS_KEPT_S * 1000000,
		                            .limit = FORGET_AT_ONCE };
	home_later(&u->forget_later, u->home, &u->forget.job, on_posted_forgotten, u);
	store_upkeep_forget_posted(u->home->store, &u->forget);
}

/* Pickups that a process which is gone had begun. */
static void
on_reaped(void *arg)
{
	struct home_upkeep *u = arg;
	char id[UUID_TEXT];

	if (u->reap.job.rc != STORE_OK)
		u->reap.gone_n = 0;
	for (size_t i = 0; i < u->reap.gone_n; i++) {
		uuid_format(&u->reap.gone[i], id);
		log_warn("worker-gone", LOG_S("worker", id), LOG_I("leases", u->reap.leases));
	}
	if (u->home->draining)
		return;
	if (u->reap.gone_n > 0) {
		pickups_wake(u->home->pickups);
		copies_wake(u->home->copies);
	}
	loop_timer_set(&u->reap_timer, REAP_EVERY_MS);
}

static void
reap(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	u->reap = (struct worker_reap){ .worker = u->home->worker };
	home_later(&u->reap_later, u->home, &u->reap.job, on_reaped, u);
	store_worker_reap_homes(u->home->store, &u->reap);
}

static void
on_mails_forgotten(void *arg)
{
	struct home_upkeep *u = arg;

	if (!u->home->draining)
		loop_timer_set(&u->mails_timer,
		               u->mails.forgotten >= FORGET_AT_ONCE ? 1000 : FORGET_EVERY_MS);
}

static void
forget_mails(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	u->mails = (struct mail_forget){ .now_us = clock_wall_us(), .limit = FORGET_AT_ONCE };
	home_later(&u->mails_later, u->home, &u->mails.job, on_mails_forgotten, u);
	store_mail_forget(u->home->store, &u->mails);
}

/* --- copies of attachments that nobody has a message with any more ---------------- */

static void
on_swept(void *arg)
{
	struct home_upkeep *u = arg;

	if (u->copies.job.rc == STORE_OK && u->copies.forgotten > 0)
		log_info("copies-forgotten", LOG_I("count", u->copies.forgotten));
	if (!u->home->draining)
		loop_timer_set(&u->copies_timer, SWEEP_EVERY_MS);
}

static void
sweep_copies(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;

	u->copies.limit = SWEEP_AT_ONCE;
	u->copies.young_us = clock_wall_us() - YOUNG_US;
	home_later(&u->copies_later, u->home, &u->copies.job, on_swept, u);
	store_copy_sweep(u->home->store, &u->copies);
}

static void
on_clock(void *arg)
{
	struct home_upkeep *u = arg;

	clock_look_done(&u->look, &u->clock);
	if (u->clock.job.rc != STORE_OK || u->clock.back_us == 0)
		return;
	log_warn("clock-set-back", LOG_I("by_s", u->clock.back_us / 1000000),
	         LOG_I("moved", u->clock.moved));
	if (u->home->draining)
		return;
	pickups_wake(u->home->pickups);
	copies_wake(u->home->copies);
}

static void
look_at_clock(struct loop_timer *timer)
{
	struct home_upkeep *u = timer->arg;
	int64_t back_us;

	if (u->home->draining)
		return;
	loop_timer_set(&u->clock_timer, CLOCK_LOOK_MS);
	if (!clock_look(&u->look, &u->clock, &back_us))
		return;
	home_later(&u->clock_later, u->home, &u->clock.job, on_clock, u);
	store_clock_see_home(u->home->store, &u->clock);
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
	loop_timer_init(&u->reap_timer, home->loop, reap, u);
	loop_timer_set(&u->reap_timer, 0);
	loop_timer_init(&u->mails_timer, home->loop, forget_mails, u);
	loop_timer_init(&u->copies_timer, home->loop, sweep_copies, u);
	loop_timer_set(&u->copies_timer, SWEEP_EVERY_MS);
	loop_timer_set(&u->partitions_timer, 0);
	loop_timer_set(&u->forget_timer, FORGET_EVERY_MS);
	loop_timer_set(&u->mails_timer, FORGET_EVERY_MS);
	loop_timer_init(&u->clock_timer, home->loop, look_at_clock, u);
	loop_timer_set(&u->clock_timer, 0);
	return u;
}

void
home_upkeep_free(struct home_upkeep **upkeep)
{
	if (*upkeep == NULL)
		return;
	loop_timer_cancel(&(*upkeep)->partitions_timer);
	loop_timer_cancel(&(*upkeep)->forget_timer);
	loop_timer_cancel(&(*upkeep)->reap_timer);
	loop_timer_cancel(&(*upkeep)->mails_timer);
	loop_timer_cancel(&(*upkeep)->copies_timer);
	loop_timer_cancel(&(*upkeep)->clock_timer);
	free(*upkeep);
	*upkeep = NULL;
}
