/* Other domains' web servers: see origins.h. */
#include "home/origins.h"

#include "net/discover.h"

#include <stdio.h>
#include <stdlib.h>

struct origins {
	struct home *home;
	struct resolver *resolver;
	struct fetcher *fetcher;
	struct net_address *pins; /* one a route; len 0: none */
};

struct fetch *
origins_fetch(struct origins *origins, struct slice domain, const struct fetch_request *request,
              void (*fn)(void *arg, const struct fetch_answer *answer), void *arg)
{
	const struct config *config = origins->home->config;
	const struct config_route *route = config_route_find(config, domain);
	const struct net_address *pin =
	    route == NULL ? NULL : &origins->pins[route - config->routes];
	struct fetch_request r = *request;

	r.ca_file = route == NULL ? NULL : route->ca;
	r.allow_private = route != NULL && route->allow_private;
	r.pin = pin != NULL && pin->len > 0 ? pin : NULL;
	return fetch_start(origins->fetcher, &r, fn, arg);
}

static bool
read_pins(struct origins *origins, char why[static NET_TEXT])
{
	const struct config *config = origins->home->config;

	origins->pins = calloc(config->routes_count + 1, sizeof(*origins->pins));
	if (origins->pins == NULL)
		return false;
	for (size_t i = 0; i < config->routes_count; i++) {
		const struct config_hostport *to = &config->routes[i].pickup;

		if (to->host != NULL &&
		    !net_address_make(to->host, to->port, &origins->pins[i])) {
			(void)snprintf(why, NET_TEXT,
			               "route %s: pickup must be an address, not a name",
			               config->routes[i].domain);
			return false;
		}
	}
	return true;
}

static bool
make_fetcher(struct origins *origins, char why[static NET_TEXT])
{
	struct fetcher_config config = { .user_agent = "tmtpd" };

	origins->resolver = discover_resolver(
	    origins->home->loop, &origins->home->config->relay.nameservers, 0, why);
	config.resolver = origins->resolver;
	if (origins->resolver != NULL)
		origins->fetcher = fetcher_new(origins->home->loop, &config);
	return origins->fetcher != NULL;
}

struct origins *
origins_new(struct home *home, char why[static NET_TEXT])
{
	struct origins *origins = calloc(1, sizeof(*origins));

	(void)snprintf(why, NET_TEXT, "out of memory");
	if (origins == NULL)
		return NULL;
	origins->home = home;
	if (!read_pins(origins, why) || !make_fetcher(origins, why))
		origins_free(&origins);
	return origins;
}

void
origins_free(struct origins **origins)
{
	struct origins *o = *origins;

	if (o == NULL)
		return;
	*origins = NULL;
	fetcher_free(&o->fetcher);
	resolver_free(&o->resolver);
	free(o->pins);
	free(o);
}
