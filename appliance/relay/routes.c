/* Pinned routes and TLS clients: see routes.h. */
#include "relay/routes.h"

#include "dmtp/session.h"

#include <stdlib.h>

struct routes {
	const struct config *config;
	struct tls_client *standard;
	struct tls_client **pinned; /* one a route, NULL: the standard one */
};

/* The configuration's certificates as identities; NULL with *n > 0 is out of memory. */
static struct tls_identity *
own_identities(const struct config *config, size_t *n)
{
	struct tls_identity *ids = calloc(config->domains_count + 1, sizeof(*ids));

	*n = 0;
	for (size_t i = 0; ids != NULL && i < config->domains_count; i++) {
		const struct config_domain *d = &config->domains[i];

		if (d->certificate != NULL)
			ids[(*n)++] = (struct tls_identity){ d->name, d->certificate, d->key };
	}
	return ids;
}

static struct tls_client_config
client_config(const struct tls_identity *ids, size_t n, const char *ca)
{
	return (struct tls_client_config){
		.identities = ids,
		.count = n,
		.ca_file = ca,
		.alpn = DMTP_ALPN,
	};
}

static bool
build(struct routes *r, const struct tls_identity *ids, size_t n, char why[static NET_TEXT])
{
	struct tls_client_config c = client_config(ids, n, NULL);

	if (tls_client_new(&c, &r->standard, why) != TLS_OK)
		return false;
	for (size_t i = 0; i < r->config->routes_count; i++) {
		const struct config_route *route = &r->config->routes[i];

		if (route->ca == NULL)
			continue;
		c = client_config(ids, n, route->ca);
		if (tls_client_new(&c, &r->pinned[i], why) != TLS_OK)
			return false;
	}
	return true;
}

struct routes *
routes_new(const struct config *config, char why[static NET_TEXT])
{
	struct routes *r = calloc(1, sizeof(*r));
	struct tls_identity *ids = NULL;
	size_t n;

	if (r == NULL)
		return NULL;
	r->config = config;
	r->pinned = calloc(config->routes_count + 1, sizeof(struct tls_client *));
	ids = own_identities(config, &n);
	if (r->pinned == NULL || ids == NULL || !build(r, ids, n, why))
		routes_free(&r);
	free(ids);
	return r;
}

void
routes_free(struct routes **routes)
{
	struct routes *r = *routes;

	if (r == NULL)
		return;
	*routes = NULL;
	for (size_t i = 0; r->pinned != NULL && i < r->config->routes_count; i++)
		tls_client_free(&r->pinned[i]);
	free(r->pinned);
	tls_client_free(&r->standard);
	free(r);
}

bool
routes_reload(struct routes *r, const struct config *config, char why[static NET_TEXT])
{
	size_t n;
	struct tls_identity *ids = own_identities(config, &n);
	struct tls_client_config c = client_config(ids, n, NULL);
	bool good = ids != NULL && tls_client_reload(r->standard, &c, why) == TLS_OK;

	for (size_t i = 0; good && i < r->config->routes_count; i++) {
		if (r->pinned[i] == NULL)
			continue;
		c = client_config(ids, n, r->config->routes[i].ca);
		good = tls_client_reload(r->pinned[i], &c, why) == TLS_OK;
	}
	free(ids);
	return good;
}

struct route_way
routes_find(const struct routes *r, struct slice domain)
{
	const struct config_route *route = config_route_find(r->config, domain);
	struct route_way way = { .pinned = route, .tls = r->standard };

	if (route != NULL && r->pinned[route - r->config->routes] != NULL)
		way.tls = r->pinned[route - r->config->routes];
	return way;
}
