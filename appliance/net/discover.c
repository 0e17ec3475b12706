/* Discovery: see discover.h. */
#include "net/discover.h"

#include "dmtp/session.h"

#include <stdio.h>

static void
set_target(struct discover_target *t, const char *host, uint16_t port,
           enum dmtp_client_mode mode)
{
	(void)snprintf(t->host, sizeof(t->host), "%.*s", (int)sizeof(t->host) - 1, host);
	t->port = port;
	t->priority = t->weight = 0;
	t->mode = mode;
}

static void
add_target(struct discovery *d, const char *host, uint16_t port, enum dmtp_client_mode mode)
{
	set_target(&d->targets[d->count++], host, port, mode);
}

/* In the order in which they are tried; returns how many. */
static size_t
read_answer(struct discover_target *targets, const struct resolve_answer *answer,
            enum dmtp_client_mode mode)
{
	struct resolve_target sorted[RESOLVE_MAX];
	size_t n = answer->count < RESOLVE_MAX ? answer->count : RESOLVE_MAX, i;

	memcpy(sorted, answer->targets, n * sizeof(sorted[0]));
	resolve_order(sorted, n, resolve_random, NULL);
	for (i = 0; i < n && i < DISCOVER_MAX; i++) {
		set_target(&targets[i], sorted[i].host, sorted[i].port, mode);
		targets[i].priority = sorted[i].priority;
		targets[i].weight = sorted[i].weight;
	}
	return i;
}

/* Both names are answered: what they say together; TLS at once comes first. */
static void
both(struct discovery *d)
{
	d->busy = false;
	for (size_t i = 0; i < d->starttls_n && d->count < DISCOVER_MAX; i++)
		d->targets[d->count++] = d->starttls[i];
	if (d->count > 0) {
		d->fn(d);
		return;
	}
	if (d->tls_rc == RESOLVE_FAIL || d->starttls_rc == RESOLVE_FAIL) {
		d->reason = "the name servers gave no usable answer";
	} else if (d->tls_rc == RESOLVE_NO_RECORD && d->starttls_rc == RESOLVE_NO_RECORD) {
		d->fallback = true;
		add_target(d, d->domain, DMTP_PORT_TLS, DMTP_CLIENT_TLS);
		add_target(d, d->domain, DMTP_PORT_PLAIN, DMTP_CLIENT_STARTTLS);
	} else {
		d->reason = "the domain's records say that it takes no DMTP";
		d->refused = true;
	}
	d->fn(d);
}

static void
on_starttls(struct resolve_query *query, const struct resolve_answer *answer)
{
	struct discovery *d = query->arg;

	d->starttls_rc = answer->rc;
	if (answer->rc == RESOLVE_FOUND)
		d->starttls_n = read_answer(d->starttls, answer, DMTP_CLIENT_STARTTLS);
	if (--d->unanswered == 0)
		both(d);
}

static void
on_tls(struct resolve_query *query, const struct resolve_answer *answer)
{
	struct discovery *d = query->arg;

	d->tls_rc = answer->rc;
	if (answer->rc == RESOLVE_FOUND)
		d->count = read_answer(d->targets, answer, DMTP_CLIENT_TLS);
	if (--d->unanswered == 0)
		both(d);
}

static bool
use_route(struct discovery *d, const struct config_route *route)
{
	static const enum dmtp_client_mode modes[] = {
		[ROUTE_DMTP_TLS] = DMTP_CLIENT_TLS,
		[ROUTE_DMTP_STARTTLS] = DMTP_CLIENT_STARTTLS,
		[ROUTE_DMTP_PLAINTEXT] = DMTP_CLIENT_PLAIN,
	};

	if (route == NULL || route->dmtp == ROUTE_DMTP_NONE)
		return false;
	d->pinned = true;
	add_target(d, route->dmtp_target.host, route->dmtp_target.port, modes[route->dmtp]);
	return true;
}

void
discover_start(struct discovery *d, struct resolver *resolver, const char *domain,
               const struct config_route *route, void (*fn)(struct discovery *d), void *arg)
{
	char name[RESOLVE_NAME + 16];

	*d = (struct discovery){ .resolver = resolver, .fn = fn, .arg = arg, .reason = "" };
	(void)snprintf(d->domain, sizeof(d->domain), "%s", domain);
	if (use_route(d, route)) {
		d->fn(d);
		return;
	}
	d->busy = true;
	d->unanswered = 2;
	(void)snprintf(name, sizeof(name), "_dmtps._tcp.%s", domain);
	resolve_service(resolver, &d->tls_query, name, on_tls, d);
	(void)snprintf(name, sizeof(name), "_dmtp._tcp.%s", domain);
	resolve_service(resolver, &d->starttls_query, name, on_starttls, d);
}

void
discover_cancel(struct discovery *d)
{
	if (d->busy) {
		resolve_cancel(&d->tls_query);
		resolve_cancel(&d->starttls_query);
	}
	d->busy = false;
}

struct resolver *
discover_resolver(struct loop *loop, const struct config_addresses *servers, int timeout_ms,
                  char why[static NET_TEXT])
{
	struct resolver_config config = { .timeout_ms = timeout_ms };
	struct resolver *resolver;
	struct buffer list;

	buffer_init(&list, 4096);
	for (size_t i = 0; i < servers->count; i++)
		buffer_add_fmt(&list, "%s%s", i == 0 ? "" : ",", servers->items[i].text);
	buffer_add_u8(&list, '\0');
	if (servers->count > 0)
		config.servers = (const char *)list.data;
	resolver = resolver_new(loop, &config, why);
	buffer_free(&list);
	return resolver;
}
