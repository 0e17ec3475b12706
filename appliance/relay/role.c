/*
 * The relay's life: what it makes, signals, the revision, the drain. On
 * SIGTERM nothing new is claimed; what was sent is waited for and written down.
 */
#include "relay/role.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/random.h"
#include "base/reload.h"
#include "net/discover.h"
#include "relay/catchup.h"
#include "relay/grants.h"
#include "relay/receipts.h"
#include "relay/plan.h"
#include "relay/presences.h"
#include "relay/routes.h"
#include "relay/session.h"
#include "relay/signing.h"
#include "relay/upkeep.h"
#include "store/open.h"
#include "store/sites.h"
#include "store/workers.h"
#include "web/health.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define REVISION_EVERY_MS 500
#define LOAD_AGAIN_MS 1000
#define STORE_PATIENCE_MS 5000
#define STORE_GRACE_MS 3000

struct role {
	struct relay relay; /* first */
	struct relay_upkeep *upkeep;
	struct web_health *health;
	int signal_fd;
	struct loop_fd signals;
	struct loop_timer revision_timer, drain_timer, load_timer;
	struct worker_enter enter;
	struct relay_later enter_later;
	bool entering, entered; /* the store is being told, knows that we are here */
	bool loading, loaded;   /* what is known of peers */
	bool told_ready;
	struct revision_get revision;
	struct relay_later revision_later;
	int64_t revision_number; /* 0: not seen yet */
	int64_t drain_until_ms;
	/* What other threads saw, to be looked at by the loop. */
	struct loop_task notified_task;
	_Atomic bool notified_posted, notified_work, notified_revision, notified_new;
};

/* --- Being woken ------------------------------------------------------------- */

static void
begin_work(struct role *r)
{
	if (r->relay.begun || !r->entered || !r->loaded)
		return;
	r->relay.begun = true;
	plan_wake(r->relay.plan);
	grants_wake(r->relay.grants);
	receipts_wake(r->relay.receipts);
	catchup_wake(r->relay.catchup);
	log_info("begun");
}

static void
on_entered(void *arg)
{
	struct role *r = arg;

	r->entering = false;
	r->entered = r->entered || r->enter.job.rc == STORE_OK;
	begin_work(r);
	if (!r->entered && !r->relay.draining)
		loop_timer_set(&r->load_timer, LOAD_AGAIN_MS);
}

/* The connection that holds our lock is there (again): others may have taken us for gone. */
static void
enter(struct role *r)
{
	if (r->entering)
		return;
	r->entering = true;
	r->enter = (struct worker_enter){ .worker = r->relay.owner,
		                          .role = "relay",
		                          .now_us = clock_wall_us() };
	relay_later(&r->enter_later, &r->relay, &r->enter.job, on_entered, r);
	store_worker_enter(r->relay.store, &r->enter);
}

static void
on_notified_task(struct loop_task *task)
{
	struct role *r =
	    (struct role *)(void *)((char *)task - offsetof(struct role, notified_task));

	atomic_store(&r->notified_posted, false);
	if (atomic_exchange(&r->notified_new, false))
		enter(r);
	if (atomic_exchange(&r->notified_work, false)) {
		plan_wake(r->relay.plan);
		grants_wake(r->relay.grants);
		receipts_wake(r->relay.receipts);
		catchup_wake(r->relay.catchup);
		presences_wake(r->relay.presences);
	}
	/* A question that is under way sets the timer again when it is answered: soon enough. */
	if (atomic_exchange(&r->notified_revision, false) && r->revision_timer.set)
		loop_timer_set(&r->revision_timer, 0);
}

/* On the store's thread; NULL: after a reconnect, when anything may have been missed. */
static void
on_notified(const char *channel, void *arg)
{
	struct role *r = arg;

	if (channel == NULL)
		atomic_store(&r->notified_new, true);
	if (channel == NULL || strcmp(channel, "tmtp_relay") == 0)
		atomic_store(&r->notified_work, true);
	if (channel == NULL || strcmp(channel, "tmtp_revision") == 0)
		atomic_store(&r->notified_revision, true);
	if (!atomic_exchange(&r->notified_posted, true))
		loop_post(r->relay.loop, &r->notified_task);
}

/* Without it, who is held would be sent to: asked until it is answered. */
static void
on_loaded(struct relay *relay, bool loaded)
{
	struct role *r = (struct role *)relay;

	r->loading = false;
	if (!r->loaded && !r->told_ready) {
		r->told_ready = true;
		process_ready();
		log_info("ready");
	}
	r->loaded = r->loaded || loaded;
	begin_work(r);
	if (!loaded && !relay->draining)
		loop_timer_set(&r->load_timer, LOAD_AGAIN_MS);
}

static void
load(struct role *r)
{
	if (r->loading)
		return;
	r->loading = true;
	peer_load_all(&r->relay, on_loaded);
}

static void
on_load(struct loop_timer *timer)
{
	struct role *r = timer->arg;

	load(r);
	if (!r->entered)
		enter(r);
}

static void
on_revision(void *arg)
{
	struct role *r = arg;

	if (r->revision.job.rc == STORE_OK && r->revision.number != r->revision_number) {
		if (r->revision_number != 0) {
			load(r);
			signing_load(r->relay.signing);
		}
		r->revision_number = r->revision.number;
	}
	if (!r->relay.draining)
		loop_timer_set(&r->revision_timer, REVISION_EVERY_MS);
}

static void
ask_revision(struct loop_timer *timer)
{
	struct role *r = timer->arg;

	r->revision = (struct revision_get){ .number = 0 };
	relay_later(&r->revision_later, &r->relay, &r->revision.job, on_revision, r);
	store_revision_get(r->relay.store, &r->revision);
}

/* --- Signals ------------------------------------------------------------------- */

static void
take_over(void *arg, const struct config *loaded)
{
	struct role *r = arg;
	char why[NET_TEXT];

	if (!routes_reload(r->relay.routes, loaded, why))
		log_error("certificates-kept", LOG_S("reason", why));
}

/* Asked again and again while draining: sessions first, then what the store still writes down. */
static void
on_drain(struct loop_timer *timer)
{
	struct role *r = timer->arg;
	struct peer *p, *next;
	bool sessions = false;

	HASH_ITER(hh, r->relay.peers, p, next)
	sessions = sessions || p->sessions != NULL;
	if ((!sessions && r->relay.jobs == 0) ||
	    loop_mono_ms(r->relay.loop) >= r->drain_until_ms) {
		loop_stop(r->relay.loop);
		return;
	}
	loop_timer_set(&r->drain_timer, 20);
}

static void
drain(struct role *r)
{
	struct peer *p, *next;

	if (r->relay.draining)
		return;
	log_info("draining");
	r->relay.draining = true;
	if (r->health != NULL)
		web_health_drain(r->health);
	r->drain_until_ms =
	    loop_mono_ms(r->relay.loop) + (int64_t)r->relay.config->drain_timeout_s * 1000;
	HASH_ITER(hh, r->relay.peers, p, next)
	{
		for (struct session *s = p->sessions, *after; s != NULL; s = after) {
			after = *session_link(s);
			session_quit(s);
		}
	}
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
			reload_config(r->relay.config, take_over, r);
		else
			drain(r);
	}
}

/* --- Life ----------------------------------------------------------------------- */

static bool
start_store(struct role *r)
{
	static const char *const channels[] = { "tmtp_relay", "tmtp_revision", NULL };
	const struct store_options options = {
		.name = "tmtp-relay",
		.connections = { [STORE_WRITE] = r->relay.config->store_connections,
		                 [STORE_READ] = 1 },
		.patience_ms = STORE_PATIENCE_MS,
		.worker = &r->relay.owner,
		.listen = channels,
		.notified = on_notified,
		.arg = r,
	};

	r->relay.store = store_open(r->relay.config, "tmtp_relay", &options);
	return r->relay.store != NULL;
}

static bool
start_resolver(struct role *r, char why[static NET_TEXT])
{
	r->relay.resolver =
	    discover_resolver(r->relay.loop, &r->relay.config->relay.nameservers, 0, why);
	return r->relay.resolver != NULL;
}

static bool
start_health(struct role *r)
{
	const struct web_health_options options = {
		.listen = r->relay.config->relay.metrics_listen.text,
		.ready = store_is_ready,
		.arg = r->relay.store,
	};

	return web_health_begin(&options, &r->health);
}

static bool
start(struct role *r)
{
	char why[NET_TEXT] = "out of memory";

	r->relay.owner = uuid_make();
	r->notified_task.run = on_notified_task;
	r->relay.loop = loop_new();
	if (r->relay.loop == NULL)
		return false;
	loop_timer_init(&r->revision_timer, r->relay.loop, ask_revision, r);
	loop_timer_init(&r->drain_timer, r->relay.loop, on_drain, r);
	loop_timer_init(&r->load_timer, r->relay.loop, on_load, r);
	r->relay.routes = routes_new(r->relay.config, why);
	if (r->relay.routes == NULL || !start_resolver(r, why)) {
		log_error("cannot-start", LOG_S("reason", why));
		return false;
	}
	r->relay.signing = signing_new(&r->relay);
	r->relay.plan = plan_new(&r->relay);
	r->relay.grants = grants_new(&r->relay);
	r->relay.receipts = receipts_new(&r->relay);
	r->relay.catchup = catchup_new(&r->relay);
	r->relay.presences = presences_new(&r->relay);
	if (r->relay.plan == NULL || r->relay.grants == NULL || r->relay.catchup == NULL ||
	    r->relay.receipts == NULL || r->relay.signing == NULL ||
	    r->relay.presences == NULL || !start_store(r) || !start_health(r) ||
	    (r->upkeep = relay_upkeep_new(&r->relay)) == NULL)
		return false;
	if (!loop_fd_init(&r->signals, r->relay.loop, r->signal_fd, on_signal, r) ||
	    !loop_fd_want(&r->signals, LOOP_READ))
		return false;
	loop_timer_set(&r->revision_timer, 0);
	signing_load(r->relay.signing);
	load(r);
	return true;
}

static void
stop(struct role *r)
{
	struct peer *p, *next;

	HASH_ITER(hh, r->relay.peers, p, next)
	while (p->sessions != NULL)
		session_abort(p->sessions, "shutting down");
	web_health_stop(&r->health); /* it asks the store */
	store_stop(&r->relay.store, STORE_GRACE_MS);
	for (int turns = 0; r->relay.loop != NULL && turns < 10; turns++)
		(void)loop_turn(r->relay.loop,
		                0); /* what the store answered last is freed by its owner */
	if (r->relay.loop != NULL) {
		loop_timer_cancel(&r->revision_timer);
		loop_timer_cancel(&r->drain_timer);
		loop_timer_cancel(&r->load_timer);
		loop_fd_deinit(&r->signals);
	}
	relay_upkeep_free(&r->upkeep);
	catchup_free(&r->relay.catchup);
	grants_free(&r->relay.grants);
	receipts_free(&r->relay.receipts);
	presences_free(&r->relay.presences);
	plan_free(&r->relay.plan);
	signing_free(&r->relay.signing);
	peer_free_all(&r->relay);
	resolver_free(&r->relay.resolver);
	routes_free(&r->relay.routes);
	loop_free(&r->relay.loop);
}

int
relay_main(const struct config *config)
{
	struct role *r = random_start() ? calloc(1, sizeof(*r)) : NULL;
	bool good;

	if (r == NULL)
		return 1;
	r->relay.config = config;
	r->signal_fd = process_signals();
	good = r->signal_fd >= 0 && start(r);
	if (good)
		loop_run(r->relay.loop);
	stop(r);
	if (r->signal_fd >= 0)
		(void)close(r->signal_fd);
	free(r);
	return good ? 0 : 1;
}
