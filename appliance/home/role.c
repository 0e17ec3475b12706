/*
 * The life of the role home: what it makes, signals, the revision, the drain.
 * On SIGTERM other servers are told X, members 503; what is under way is
 * answered, committed and only then the store ends.
 */
#include "home/role.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/random.h"
#include "base/reload.h"
#include "home/api.h"
#include "home/auths.h"
#include "home/cards.h"
#include "home/copies.h"
#include "home/dmtp.h"
#include "home/guard.h"
#include "home/live.h"
#include "home/mails.h"
#include "home/origins.h"
#include "home/pickups.h"
#include "home/posts.h"
#include "home/presence.h"
#include "home/smtp.h"
#include "home/upkeep.h"
#include "store/open.h"
#include "store/sites.h"
#include "store/workers.h"
#include "web/health.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define REVISION_EVERY_MS 500
#define STORE_GRACE_MS 3000
#define ENTER_PATIENCE_MS 60000
#define RATES 65536 /* client addresses and domains whose rates are remembered */

struct role {
	struct home home; /* first */
	struct home_upkeep *upkeep;
	struct web_health *health;
	int signal_fd;
	struct loop_fd signals;
	struct loop_timer revision_timer, drain_timer;
	struct revision_get revision;
	struct home_later revision_later;
	int64_t revision_number; /* 0: not seen yet */
	int64_t drain_until_ms;
	struct loop_task notified_task;
	_Atomic bool notified, notified_new;
	struct worker_enter enter;
	struct home_later enter_later;
	bool entering;
};

/* --- The revision ---------------------------------------------------------------- */

static void
on_revision(void *arg)
{
	struct role *r = arg;

	if (r->revision.job.rc == STORE_OK && r->revision.number != r->revision_number) {
		/* At the end the last answers come when the API is gone. */
		if (r->revision_number != 0 && r->home.api != NULL)
			api_forget(r->home.api);
		r->revision_number = r->revision.number;
	}
	if (!r->home.draining)
		loop_timer_set(&r->revision_timer, REVISION_EVERY_MS);
}

static void
ask_revision(struct loop_timer *timer)
{
	struct role *r = timer->arg;

	if (r->home.draining)
		return;
	r->revision = (struct revision_get){ .number = 0 };
	home_later(&r->revision_later, &r->home, &r->revision.job, on_revision, r);
	store_revision_get(r->home.store, &r->revision);
}

static void
on_entered(void *arg)
{
	struct role *r = arg;

	r->entering = false;
	if (r->enter.job.rc != STORE_OK)
		log_warn("worker-unknown", LOG_S("reason", store_rc_text(r->enter.job.rc)));
}

/*
 * The connection that holds our lock is there (again): others may have taken
 * us for gone. Leases that are taken before it is known run out by themselves.
 */
static void
enter(struct role *r)
{
	if (r->entering)
		return;
	r->entering = true;
	r->enter = (struct worker_enter){ .worker = r->home.worker,
		                          .role = "home",
		                          .now_us = clock_wall_us() };
	r->enter.job.patience_ms = ENTER_PATIENCE_MS;
	home_later(&r->enter_later, &r->home, &r->enter.job, on_entered, r);
	store_worker_enter(r->home.store, &r->enter);
}

static void
on_notified_task(struct loop_task *task)
{
	struct role *r =
	    (struct role *)(void *)((char *)task - offsetof(struct role, notified_task));

	atomic_store(&r->notified, false);
	if (atomic_exchange(&r->notified_new, false))
		enter(r);
	/* A question that is under way sets the timer again when it is answered: soon enough. */
	if (!r->home.draining && r->revision_timer.set)
		loop_timer_set(&r->revision_timer, 0);
}

/* On the store's thread. */
static void
on_notified(const char *channel, void *arg)
{
	struct role *r = arg;

	if (channel == NULL)
		atomic_store(&r->notified_new, true);
	if (!atomic_exchange(&r->notified, true))
		loop_post(r->home.loop, &r->notified_task);
}

/* --- Signals ------------------------------------------------------------------------ */

static void
take_over(void *arg, const struct config *loaded)
{
	struct role *r = arg;
	char why[NET_TEXT];

	if (!dmtp_service_reload(r->home.dmtp, loaded, why))
		log_error("certificates-kept", LOG_S("reason", why));
	api_reload(r->home.api, loaded);
}

static void
on_drain(struct loop_timer *timer)
{
	struct role *r = timer->arg;
	bool quiet = dmtp_service_is_quiet(r->home.dmtp) && smtp_is_quiet(r->home.smtp) &&
	             pickups_count(r->home.pickups) == 0 && r->home.jobs == 0;

	if (quiet || loop_mono_ms(r->home.loop) >= r->drain_until_ms)
		loop_stop(r->home.loop);
	else
		loop_timer_set(&r->drain_timer, 20);
}

static void
drain(struct role *r)
{
	if (r->home.draining)
		return;
	log_info("draining");
	r->home.draining = true;
	if (r->health != NULL)
		web_health_drain(r->health);
	r->drain_until_ms =
	    loop_mono_ms(r->home.loop) + (int64_t)r->home.config->drain_timeout_s * 1000;
	dmtp_service_drain(r->home.dmtp);
	smtp_drain(r->home.smtp);
	api_drain(r->home.api);
	loop_timer_set(&r->drain_timer, 0);
}

static void
on_signal(struct loop_fd *watch, unsigned ready)
{
	struct role *r = watch->arg;
	int signal;

	(void)ready;
	while ((signal = process_next_signal(r->signal_fd)) != 0) {
		if (signal == SIGHUP)
			reload_config(r->home.config, take_over, r);
		else
			drain(r);
	}
}

/* --- Life ------------------------------------------------------------------------------ */

static bool
start_store(struct role *r)
{
	static const char *const channels[] = { "tmtp_revision", NULL };
	const struct store_options options = {
		.name = "tmtp-home",
		.connections = { [STORE_WRITE] = 1,
		                 [STORE_READ] = r->home.config->store_connections,
		                 [STORE_ARRIVE] = 1 },
		.worker = &r->home.worker,
		.listen = channels,
		.notified = on_notified,
		.arg = r,
	};

	r->home.store = store_open(r->home.config, "tmtp_home", &options);
	return r->home.store != NULL;
}

static bool
start_health(struct role *r)
{
	const struct web_health_options options = {
		.listen = r->home.config->home.metrics_listen.text,
		.ready = store_is_ready,
		.arg = r->home.store,
	};

	return web_health_begin(&options, &r->health);
}

static bool
start_parts(struct role *r)
{
	struct home *h = &r->home;
	char why[NET_TEXT] = "out of memory";

	if ((h->rates = guard_make(RATES)) == NULL || (h->live = live_new(h)) == NULL ||
	    (h->presence = presence_new(h)) == NULL || (h->posts = posts_new(h)) == NULL ||
	    (h->origins = origins_new(h, why)) == NULL || (h->cards = cards_new(h)) == NULL ||
	    (h->auths = auths_new(h)) == NULL || (h->copies = copies_new(h)) == NULL ||
	    (h->pickups = pickups_new(h)) == NULL || (h->mails = mails_new(h)) == NULL ||
	    (h->smtp = smtp_new(h, why)) == NULL ||
	    (h->dmtp = dmtp_service_new(h, why)) == NULL) {
		log_error("cannot-start", LOG_S("reason", why));
		return false;
	}
	h->api = api_start(h);
	return h->api != NULL;
}

static bool
start(struct role *r)
{
	r->home.worker = uuid_make();
	r->home.slot = (int)randombytes_uniform(16);
	r->notified_task.run = on_notified_task;
	r->home.loop = loop_new();
	if (r->home.loop == NULL)
		return false;
	loop_timer_init(&r->revision_timer, r->home.loop, ask_revision, r);
	loop_timer_init(&r->drain_timer, r->home.loop, on_drain, r);
	if (!start_store(r) || !start_parts(r) || !start_health(r))
		return false;
	r->upkeep = home_upkeep_new(&r->home);
	if (r->upkeep == NULL ||
	    !loop_fd_init(&r->signals, r->home.loop, r->signal_fd, on_signal, r) ||
	    !loop_fd_want(&r->signals, LOOP_READ))
		return false;
	loop_timer_set(&r->revision_timer, 0);
	process_ready();
	log_info("ready");
	return true;
}

static void
stop(struct role *r)
{
	struct home *h = &r->home;

	if (h->loop == NULL)
		return;
	if (h->api != NULL)
		api_stop(&h->api);
	web_health_stop(&r->health);
	dmtp_service_free(&h->dmtp);
	smtp_free(&h->smtp);
	store_stop(&h->store, STORE_GRACE_MS);
	for (int turns = 0; turns < 10; turns++)
		(void)loop_turn(h->loop,
		                0); /* what the store answered last is freed by its owner */
	loop_timer_cancel(&r->revision_timer);
	loop_timer_cancel(&r->drain_timer);
	loop_fd_deinit(&r->signals);
	home_upkeep_free(&r->upkeep);
	mails_free(&h->mails);
	pickups_free(&h->pickups);
	copies_free(&h->copies);
	auths_free(&h->auths);
	cards_free(&h->cards);
	origins_free(&h->origins);
	posts_free(&h->posts);
	presence_free(&h->presence);
	live_free(&h->live);
	guard_free(&h->rates);
	loop_free(&h->loop);
}

int
home_main(const struct config *config)
{
	struct role *r = random_start() ? calloc(1, sizeof(*r)) : NULL;
	bool good;

	if (r == NULL)
		return 1;
	r->home.config = config;
	r->signal_fd = process_signals();
	good = r->signal_fd >= 0 && start(r);
	if (good)
		loop_run(r->home.loop);
	stop(r);
	if (r->signal_fd >= 0)
		(void)close(r->signal_fd);
	free(r);
	return good ? 0 : 1;
}
