/*
 * Where a domain's DMTP servers are: a pinned route, else SRV records in the
 * order in which to try them, else the domain's own addresses (DMTP.md,
 * section 1).
 */
#ifndef TMTP_RELAY_DISCOVER_H
#define TMTP_RELAY_DISCOVER_H

#include "dmtp/client.h"
#include "relay/relay.h"

#define DISCOVER_MAX 16 /* targets tried in one attempt */

struct discover_target {
	char host[RESOLVE_NAME]; /* a name, or an address */
	uint16_t port;
	enum dmtp_client_mode mode;
};

struct discovery {
	struct relay *relay;
	char domain[RESOLVE_NAME];
	struct resolve_query query;
	void (*fn)(struct discovery *d);
	void *arg;
	/* out */
	struct discover_target targets[DISCOVER_MAX];
	size_t count;       /* 0: none */
	const char *reason; /* why none */
	bool
	    refused; /* the domain says it takes no DMTP: fatal once it stayed so for 48 hours */
	/* its own */
	enum resolve_rc tls_rc;
	bool busy;
};

/* Tells fn exactly once, at once when a route is pinned, else from the loop. d lives until then or discover_cancel. */
void discover_start(struct discovery *d, struct relay *relay, const char *domain,
                    void (*fn)(struct discovery *d), void *arg);
void discover_cancel(struct discovery *d);

#endif
