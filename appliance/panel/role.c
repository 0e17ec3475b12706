/*
 * The role panel's life: its listeners, its database, its signals. It serves
 * the administrators' API (API.md); their pages are not part of this version.
 */
#include "panel/role.h"

#include "base/log.h"
#include "base/process.h"
#include "base/random.h"
#include "panel/panel.h"
#include "store/embedded.h"
#include "store/store.h"
#include "web/health.h"
#include "web/reply.h"
#include "web/request.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TEXT "text/plain; charset=utf-8"

#define BODY_MAX 4096

struct role {
	struct panel panel;
	struct web_server **servers;
	size_t servers_n;
	struct web_health *health;
	int signal_fd;
};

static bool
is_ready(void *arg, char *reason, size_t size)
{
	struct panel *panel = arg;
	struct buffer why;
	bool up;

	buffer_init(&why, 1024);
	up = store_is_up(panel->store, &why);
	if (!up)
		(void)snprintf(reason, size, "%.*s", (int)why.len, (const char *)why.data);
	buffer_free(&why);
	return up;
}

static void
on_livez(struct web_request *req, void *arg)
{
	(void)arg;
	web_reply_bytes(req, 200, TEXT, SLICE("ok\n"));
}

static void
on_readyz(struct web_request *req, void *arg)
{
	char reason[256];
	bool ready = is_ready(arg, reason, sizeof(reason));

	web_reply_bytes(req, ready ? 200 : 503, TEXT,
	                ready ? SLICE("ok\n") : SLICE("not ready\n"));
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
	{ WEB_GET, "/livez", on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
};

static bool
start_store(struct role *r)
{
	struct store_options options = { .name = "tmtp-panel", .connections = { 1, 1, 0 } };
	struct buffer conninfo, error;

	buffer_init(&conninfo, 4096);
	buffer_init(&error, 1024);
	if (embedded_conninfo(r->panel.config, "tmtp_panel", &conninfo, &error)) {
		options.conninfo = (const char *)conninfo.data;
		r->panel.store = store_start(&options);
	} else {
		log_error("database-unknown", LOG_B("reason", buffer_slice(&error)));
	}
	buffer_free(&conninfo);
	buffer_free(&error);
	return r->panel.store != NULL;
}

static struct web_cert *
certificates(const struct config *config, size_t *n)
{
	struct web_cert *certs = calloc(config->domains_count + 1, sizeof(*certs));

	*n = 0;
	for (size_t i = 0; certs != NULL && i < config->domains_count; i++)
		if (config->domains[i].certificate != NULL)
			certs[(*n)++] = (struct web_cert){ config->domains[i].certificate,
				                           config->domains[i].key };
	return certs;
}

static bool
start_servers(struct role *r)
{
	const struct config_http *http = &r->panel.config->panel.http;
	struct web_options options = { .routes = routes,
		                       .n_routes = sizeof(routes) / sizeof(routes[0]),
		                       .arg = &r->panel };
	char error[WEB_ERROR_TEXT] = "no memory";
	struct web_cert *certs = certificates(r->panel.config, &options.n_certs);
	bool good;

	options.certs = certs;
	if (!http->tls)
		options.n_certs = 0;
	r->servers = calloc(http->listen.count + 1, sizeof(struct web_server *));
	good = certs != NULL && r->servers != NULL;
	while (good && r->servers_n < http->listen.count) {
		options.listen = http->listen.items[r->servers_n].text;
		good = web_server_start(&options, &r->servers[r->servers_n], error) == WEB_OK;
		r->servers_n += good;
	}
	if (!good)
		log_error("listen-failed", LOG_S("address", options.listen),
		          LOG_S("reason", error));
	free(certs);
	return good;
}

static bool
start_health(struct role *r)
{
	struct web_health_options options = { .listen =
		                                  r->panel.config->panel.metrics_listen.text,
		                              .ready = is_ready,
		                              .arg = &r->panel };
	char error[WEB_ERROR_TEXT];

	if (options.listen == NULL || web_health_start(&options, &r->health, error) == WEB_OK)
		return true;
	log_error("listen-failed", LOG_S("address", options.listen), LOG_S("reason", error));
	return false;
}

static void
reload(struct role *r)
{
	struct config *loaded = NULL;
	struct buffer text;
	char error[WEB_ERROR_TEXT];
	struct web_cert *certs;
	size_t n;

	buffer_init(&text, 4096);
	if (config_reload(r->panel.config, &loaded, &text) != CONFIG_OK) {
		log_error("reload-refused", LOG_B("reason", buffer_slice(&text)));
		buffer_free(&text);
		return;
	}
	log_set_level(loaded->log_level);
	certs = certificates(loaded, &n);
	for (size_t i = 0; certs != NULL && r->panel.config->panel.http.tls && i < r->servers_n;
	     i++)
		if (web_server_reload_tls(r->servers[i], certs, n, error) != WEB_OK)
			log_error("certificates-kept", LOG_S("reason", error));
	log_info("reloaded");
	free(certs);
	config_free(&loaded);
	buffer_free(&text);
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
			reload(r);
		}
	}
}

static void
stop(struct role *r)
{
	if (r->health != NULL)
		web_health_drain(r->health);
	for (size_t i = 0; i < r->servers_n; i++) {
		web_server_drain(r->servers[i]);
		web_server_stop(&r->servers[i], 1000);
	}
	web_health_stop(&r->health); /* it asks the store */
	store_stop(&r->panel.store, 1000);
	free(r->servers);
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
