/*
 * The role panel's life: its listeners, its database, its signals. It serves
 * the administrators' API (API.md); their pages are not part of this version.
 */
#include "panel/role.h"

#include "base/log.h"
#include "base/process.h"
#include "base/random.h"
#include "base/reload.h"
#include "panel/panel.h"
#include "store/open.h"
#include "web/health.h"
#include "web/request.h"
#include "web/servers.h"

#include <poll.h>
#include <unistd.h>

#define BODY_MAX 4096

struct role {
	struct panel panel;
	struct web_servers servers;
	struct web_health *health;
	int signal_fd;
};

static void
on_readyz(struct web_request *req, void *arg)
{
	struct panel *panel = arg;

	web_health_say(req, false, store_is_up(panel->store, NULL));
}

static const struct web_route routes[] = {
	{ WEB_GET, "/v1/queue", on_queue_list, 0,
	  WEB_ARG_LIMIT | WEB_ARG_AFTER | WEB_ARG_STATE | WEB_ARG_DOMAIN | WEB_ARG_MESSAGE },
	{ WEB_POST, "/v1/queue/retry", on_queue_retry, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_POST, "/v1/queue/hold", on_queue_hold, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_POST, "/v1/queue/release", on_queue_release, BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_POST, "/v1/queue/drop", on_queue_drop, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/v1/peers", on_peer_list, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/peers/:domain/hold", on_peer_hold, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/peers/:domain/release", on_peer_release, 0, WEB_NO_ARGS },
	{ WEB_GET, "/livez", web_health_on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
};

static bool
start_store(struct role *r)
{
	const struct store_options options = { .name = "tmtp-panel",
		                               .connections = { 1, 1, 0 } };

	r->panel.store = store_open(r->panel.config, "tmtp_panel", &options);
	return r->panel.store != NULL;
}

static bool
start_servers(struct role *r)
{
	const struct web_options options = { .routes = routes,
		                             .n_routes = sizeof(routes) / sizeof(routes[0]),
		                             .arg = &r->panel };

	return web_servers_start(&r->servers, r->panel.config, &r->panel.config->panel.http,
	                         &options);
}

static bool
start_health(struct role *r)
{
	const struct web_health_options options = {
		.listen = r->panel.config->panel.metrics_listen.text,
		.ready = store_is_ready,
		.arg = r->panel.store,
	};

	return web_health_begin(&options, &r->health);
}

static void
take_over(void *arg, const struct config *loaded)
{
	struct role *r = arg;

	web_servers_reload(&r->servers, loaded);
}

static void
serve(struct role *r)
{
	struct pollfd fd = { .fd = r->signal_fd, .events = POLLIN };
	int signal;

	for (;;) {
		(void)poll(&fd, 1, -1);
		while ((signal = process_next_signal(r->signal_fd)) != 0) {
			if (signal == SIGTERM)
				return;
			reload_config(r->panel.config, take_over, r);
		}
	}
}

static void
stop(struct role *r)
{
	if (r->health != NULL)
		web_health_drain(r->health);
	web_servers_drain(&r->servers);
	web_servers_stop(&r->servers, 1000);
	web_health_stop(&r->health); /* it asks the store */
	store_stop(&r->panel.store, 1000);
	if (r->signal_fd >= 0)
		(void)close(r->signal_fd);
}

int
panel_main(const struct config *config)
{
	struct role r = { .panel.config = config, .signal_fd = process_signals() };
	bool started = r.signal_fd >= 0 && random_start() && start_store(&r) &&
	               start_servers(&r) && start_health(&r);

	if (started) {
		process_ready();
		log_info("serving", LOG_S("url", config->panel.http.url));
		serve(&r);
	}
	stop(&r);
	return started ? 0 : 1;
}
