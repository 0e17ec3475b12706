/*
 * The ways to other domains that the operator pinned, and the TLS clients that
 * go with them: one for the system's trust roots, one for each route's own CA.
 */
#ifndef TMTP_RELAY_ROUTES_H
#define TMTP_RELAY_ROUTES_H

#include "relay/relay.h"

struct route_way {
	const struct config_route *pinned; /* NULL: discovery by DNS */
	struct tls_client *tls;
};

/* NULL: why says which file is wrong. */
struct routes *routes_new(const struct config *config, char why[static NET_TEXT]);
void routes_free(struct routes **routes);

/* Reads certificates and CAs again; all or nothing. Routes themselves change with a restart only. */
bool routes_reload(struct routes *routes, const struct config *config,
                   char why[static NET_TEXT]);

/* How to go to a domain. Borrows from routes. */
struct route_way routes_find(const struct routes *routes, struct slice domain);

#endif
