/*
 * The role's life: what it makes, in which order it ends, and its one loop,
 * which waits for signals and looks at the revision. Everything else happens
 * on the threads of the server and of the store.
 */
#include "site/role.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/random.h"
#include "base/reload.h"
#include "site/handlers.h"
#include "site/owners.h"
#include "store/attachments.h"
#include "store/open.h"
#include "store/sites.h"
#include "store/upkeep.h"
#include "web/health.h"
#include "web/servers.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define REVISION_CHANNEL "tmtp_revision"
#define REVISION_MS 500
#define TOKENS_MAX 65536
#define KEYS_MAX 16384
#define CHANNELS_MAX 65536
#define CARDS_MAX 1024
#define BODIES_MAX_BYTES (32u << 20)
#define STORE_GRACE_MS 2000
#define FORGET_EVERY_MS 600000
#define FORGET_AT_ONCE 20000
#define REAP_EVERY_MS 30000
#define REAP_AT_ONCE 20

struct role {
	struct site site;
	struct web_servers servers;
	struct web_route *routes;
	struct web_health *health;
	struct mailbox wake; /* nothing is posted: it wakes the loop */
	int signal_fd;
	unsigned drain_timeout_s;

	struct revision_get revision;
	_Atomic bool asking; /* revision is the store's */
	_Atomic bool again;  /* something may have changed since it was asked */
	int64_t number;      /* as last seen, on the store's thread; 0: never */

	struct upkeep_forget forget;
	_Atomic bool forgetting; /* forget is the store's */
	_Atomic bool more;       /* there are more to forget */

	struct attachment_reap reap;
	_Atomic bool reaping;   /* reap is the store's */
	_Atomic bool more_over; /* there are more attachments whose time is over */
};

/* --- the revision ---------------------------------------------------------------- */

/* Something about sites, keys, tokens or channels has changed: nothing kept is believed any
 * more. */
static void
forget(struct site *site)
{
	token_cache_clear(site->tokens);
	memo_clear(site->keys);
	memo_clear(site->channels);
	memo_clear(site->bodies);
	memo_clear(site->cards);
}

static void on_revision(struct store_job *job);

/* On the main thread alone. */
static void
ask_revision(struct role *role)
{
	atomic_store(&role->again, true);
	if (atomic_exchange(&role->asking, true))
		return;
	atomic_store(&role->again, false);
	role->revision.job =
	    (struct store_job){ .done = on_revision, .arg = role, .patience_ms = REVISION_MS };
	store_revision_get(role->site.store, &role->revision);
}

static void
on_revision(struct store_job *job)
{
	struct role *role = job->arg;

	if (job->rc == STORE_OK && role->revision.number != role->number) {
		if (role->number != 0) {
			forget(&role->site);
			log_debug("revision-changed", LOG_I("number", role->revision.number));
		}
		role->number = role->revision.number;
	}
	atomic_store(&role->asking, false);
	if (atomic_load(&role->again))
		mailbox_wake(&role->wake);
}

static void
on_notified(const char *channel, void *arg)
{
	struct role *role = arg;

	(void)channel;
	mailbox_wake(&role->wake);
}

/* --- idempotency keys ----------------------------------------------------------------- */

static void
on_forgotten(struct store_job *job)
{
	struct role *role = job->arg;
	int64_t n = job->rc == STORE_OK ? role->forget.forgotten : 0;

	if (n > 0)
		log_info("keys-forgotten", LOG_I("count", n));
	atomic_store(&role->more, n >= FORGET_AT_ONCE);
	atomic_store(&role->forgetting, false);
}

/* Those that are older than they are promised to be known; the main thread's. */
static void
forget_keys(struct role *role)
{
	int64_t now_us = clock_wall_us();

	if (atomic_exchange(&role->forgetting, true))
		return;
	role->forget = (struct upkeep_forget){
		.job = { .done = on_forgotten, .arg = role, .patience_ms = FORGET_EVERY_MS },
		.now_us = now_us,
		.keys_before_us = now_us - (int64_t)UPKEEP_KEYS_KEPT_S * 1000000,
		.limit = FORGET_AT_ONCE,
	};
	store_upkeep_forget_keys(role->site.store, &role->forget);
}

/* --- attachments whose time is over ------------------------------------------------------ */

static void
on_reaped(struct store_job *job)
{
	struct role *role = job->arg;
	int64_t n = job->rc == STORE_OK ? role->reap.forgotten : 0;

	if (n > 0)
		log_info("attachments-forgotten", LOG_I("count", n));
	atomic_store(&role->reaping, false);
	if (n >= REAP_AT_ONCE) {
		atomic_store(&role->more_over, true);
		mailbox_wake(&role->wake);
	}
}

static void
reap_attachments(struct role *role)
{
	if (atomic_exchange(&role->reaping, true))
		return;
	role->reap = (struct attachment_reap){
		.job = { .done = on_reaped, .arg = role, .patience_ms = REAP_EVERY_MS },
		.now_us = clock_wall_us(),
		.limit = REAP_AT_ONCE,
	};
	store_attachment_reap(role->site.store, &role->reap);
}

/* --- SIGHUP ---------------------------------------------------------------------------- */

static void
take_over(void *arg, const struct config *loaded)
{
	struct role *role = arg;

	role->drain_timeout_s = loaded->drain_timeout_s;
	owners_set(role->site.owners, loaded);
	memo_clear(role->site.cards);
	web_servers_reload(&role->servers, loaded);
}

/* --- beginning ------------------------------------------------------------------------ */

static bool
start_store(struct role *role)
{
	static const char *const listen[] = { REVISION_CHANNEL, NULL };
	const struct config *config = role->site.config;
	const struct store_options options = {
		.name = "tmtp-site",
		.connections = { [STORE_WRITE] = config->store_connections,
		                 [STORE_READ] = (config->store_connections + 1) / 2 },
		.listen = listen,
		.notified = on_notified,
		.arg = role,
	};

	role->site.store = store_open(config, "tmtp_site", &options);
	return role->site.store != NULL;
}

static bool
start_memory(struct role *role)
{
	struct site *site = &role->site;

	if (site->config->site.max_pushes_per_second > 0) {
		site->rates = rates_make(site->config->site.max_pushes_per_second);
		if (site->rates == NULL)
			return false;
	}
	site->tokens = token_cache_make(TOKENS_MAX);
	site->keys = memo_make(KEYS_MAX);
	site->channels = memo_make(CHANNELS_MAX);
	site->bodies = memo_make(BODIES_MAX_BYTES);
	site->cards = memo_make(CARDS_MAX);
	site->owners = owners_make(site->config);
	site->aside = aside_start();
	return site->tokens != NULL && site->keys != NULL && site->channels != NULL &&
	       site->bodies != NULL && site->cards != NULL && site->owners != NULL &&
	       site->aside != NULL;
}

static bool
start_servers(struct role *role)
{
	const struct config *config = role->site.config;
	struct web_options options = { .threads = config->site.threads, .arg = &role->site };

	role->routes = site_routes(config, &options.n_routes);
	options.routes = role->routes;
	return role->routes != NULL &&
	       web_servers_start(&role->servers, config, &config->site.http, &options);
}

static bool
start_health(struct role *role)
{
	const struct web_health_options options = {
		.listen = role->site.config->site.metrics_listen.text,
		.ready = store_is_ready,
		.arg = role->site.store,
	};

	return web_health_begin(&options, &role->health);
}

static bool
start(struct role *role)
{
	role->signal_fd = process_signals();
	if (role->signal_fd < 0 || !random_start()) {
		log_error("start-failed", LOG_S("reason", strerror(errno)));
		return false;
	}
	if (!start_memory(role)) {
		log_error("start-failed", LOG_S("reason", "no memory or threads"));
		return false;
	}
	return start_store(role) && start_servers(role) && start_health(role);
}

/* --- the loop ---------------------------------------------------------------------------- */

/* Until a signal says that it is over. */
static void
serve(struct role *role)
{
	struct pollfd fds[] = { { .fd = role->signal_fd, .events = POLLIN },
		                { .fd = role->wake.fd, .events = POLLIN } };
	int64_t next = 0, next_forget = 0, next_reap = 0, now;
	int sig;

	for (;;) {
		now = clock_mono_ms();
		if (now >= next_forget || atomic_exchange(&role->more, false)) {
			forget_keys(role);
			next_forget = now + FORGET_EVERY_MS;
		}
		if (now >= next_reap || atomic_exchange(&role->more_over, false)) {
			reap_attachments(role);
			next_reap = now + REAP_EVERY_MS;
		}
		if (now >= next || fds[1].revents != 0) {
			(void)mailbox_take(&role->wake);
			ask_revision(role);
			next = now + REVISION_MS;
		}
		(void)poll(fds, 2, (int)(next - now));
		while ((sig = process_next_signal(role->signal_fd)) != 0) {
			if (sig == SIGTERM)
				return;
			reload_config(role->site.config, take_over, role);
		}
	}
}

/* --- the end ------------------------------------------------------------------------------ */

/* The servers first: they wait for the replies that the store still owes. A sixth of the time
 * is the store's. */
static void
drain(struct role *role)
{
	atomic_store(&role->site.draining, true);
	if (role->health != NULL)
		web_health_drain(role->health);
	web_servers_drain(&role->servers);
	web_servers_stop(&role->servers, (int64_t)role->drain_timeout_s * 1000 * 5 / 6);
	atomic_store(&role->site.stopping, true);
	if (role->site.aside != NULL)
		aside_stop(role->site.aside);
	web_health_stop(&role->health); /* it asks the store */
	store_stop(&role->site.store, STORE_GRACE_MS);
	aside_free(&role->site.aside);
}

static void
release(struct role *role)
{
	token_cache_free(&role->site.tokens);
	memo_free(&role->site.keys);
	memo_free(&role->site.channels);
	memo_free(&role->site.bodies);
	memo_free(&role->site.cards);
	owners_free(&role->site.owners);
	rates_free(&role->site.rates);
	mailbox_deinit(&role->wake);
	free(role->routes);
	if (role->signal_fd >= 0)
		(void)close(role->signal_fd);
	free(role);
}

int
site_main(const struct config *config)
{
	struct role *role = calloc(1, sizeof(*role));
	bool started;

	if (role == NULL || !mailbox_init(&role->wake)) {
		log_error("start-failed", LOG_S("reason", strerror(errno)));
		free(role);
		return 1;
	}
	role->site.config = config;
	role->drain_timeout_s = config->drain_timeout_s;
	role->signal_fd = -1;
	started = start(role);
	if (started) {
		process_ready();
		log_info("serving", LOG_S("url", config->site.http.url));
		serve(role);
		log_info("draining");
	}
	drain(role);
	release(role);
	return started ? 0 : 1;
}
