/*
 * /livez, /readyz and /metrics: see health.h. A role that drains is alive and
 * not ready, so that a balancer stops sending before the listener closes.
 */
#include "web/health.h"

#include "base/buffer.h"
#include "base/log.h"
#include "base/metric.h"
#include "web/reply.h"
#include "web/request.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define METRICS_MAX (4u << 20)
#define TEXT "text/plain; charset=utf-8"

struct web_health {
	struct web_server *server;
	bool (*ready)(void *arg, char *reason, size_t size);
	void *arg;
	_Atomic bool draining;
};

void
web_health_on_livez(struct web_request *req, void *arg)
{
	(void)arg;
	web_reply_bytes(req, 200, TEXT, SLICE("ok\n"));
}

void
web_health_say(struct web_request *req, bool draining, bool ready)
{
	if (draining)
		web_reply_bytes(req, 503, TEXT, SLICE("draining\n"));
	else if (ready)
		web_reply_bytes(req, 200, TEXT, SLICE("ok\n"));
	else
		web_reply_bytes(req, 503, TEXT, SLICE("not ready\n"));
}

static void
on_readyz(struct web_request *req, void *arg)
{
	struct web_health *h = arg;
	char reason[200] = "not ready", line[208];

	if (atomic_load(&h->draining)) {
		web_health_say(req, true, false);
	} else if (h->ready == NULL || h->ready(h->arg, reason, sizeof(reason))) {
		web_health_say(req, false, true);
	} else {
		(void)snprintf(line, sizeof(line), "%s\n", reason);
		web_reply_bytes(req, 503, TEXT, slice_str(line));
	}
}

static void
on_metrics(struct web_request *req, void *arg)
{
	struct buffer out;

	(void)arg;
	buffer_init(&out, METRICS_MAX);
	metric_write_all(&out);
	if (out.failed) {
		buffer_free(&out);
		web_reply_problem(req, &web_internal, NULL);
		return;
	}
	web_reply_bytes_owned(req, 200, "text/plain; version=0.0.4; charset=utf-8", out.data,
	                      out.len);
}

static const struct web_route health_routes[] = {
	{ WEB_GET, "/livez", web_health_on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
	{ WEB_GET, "/metrics", on_metrics, 0, 0 },
};

enum web_rc
web_health_start(const struct web_health_options *o, struct web_health **out,
                 char error[static WEB_ERROR_TEXT])
{
	struct web_health *h = calloc(1, sizeof(*h));
	struct web_options options = { .listen = o->listen,
		                       .threads = 1,
		                       .connections = 256,
		                       .idle_s = 30,
		                       .routes = health_routes,
		                       .n_routes =
		                           sizeof(health_routes) / sizeof(health_routes[0]),
		                       .arg = h };
	enum web_rc rc;

	*out = NULL;
	if (h == NULL) {
		(void)snprintf(error, WEB_ERROR_TEXT, "no memory");
		return WEB_MEMORY;
	}
	h->ready = o->ready;
	h->arg = o->arg;
	rc = web_server_start(&options, &h->server, error);
	if (rc != WEB_OK) {
		free(h);
		return rc;
	}
	*out = h;
	return WEB_OK;
}

bool
web_health_begin(const struct web_health_options *o, struct web_health **out)
{
	char error[WEB_ERROR_TEXT];

	*out = NULL;
	if (o->listen == NULL || web_health_start(o, out, error) == WEB_OK)
		return true;
	log_error("listen-failed", LOG_S("address", o->listen), LOG_S("reason", error));
	return false;
}

uint16_t
web_health_port(const struct web_health *h)
{
	return web_server_port(h->server);
}

void
web_health_drain(struct web_health *h)
{
	atomic_store(&h->draining, true);
}

void
web_health_stop(struct web_health **h)
{
	if (*h == NULL)
		return;
	web_server_stop(&(*h)->server, 0);
	free(*h);
	*h = NULL;
}
