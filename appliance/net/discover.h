/*
 * Where a domain's DMTP servers are: a pinned route, else SRV records in the
 * order in which to try them, else the domain's own addresses (PROTOCOL.md,
 * section 2).
 */
#ifndef TMTP_NET_DISCOVER_H
#define TMTP_NET_DISCOVER_H

#include "base/config.h"
#include "dmtp/client.h"
#include "net/resolve.h"

#define DISCOVER_MAX 16 /* targets tried in one attempt */

struct discover_target {
	char host[RESOLVE_NAME]; /* a name, or an address */
	uint16_t port;
	uint16_t priority, weight; /* of its SRV record; 0 without one */
	enum dmtp_client_mode mode;
};

struct discovery {
	struct resolver *resolver;
	char domain[RESOLVE_NAME];
	void (*fn)(struct discovery *d);
	void *arg;
	/* out */
	struct discover_target targets[DISCOVER_MAX];
	size_t count;       /* 0: none */
	const char *reason; /* why none */
	bool pinned;        /* a route says it: DNS wasn't asked */
	bool fallback;      /* no SRV record: the targets are the domain's own name */
	bool refused;       /* the domain's records say that it takes no DMTP */
	enum resolve_rc tls_rc, starttls_rc; /* of _dmtps._tcp and _dmtp._tcp, unless pinned */
	/* its own */
	bool busy;
	unsigned unanswered;
	struct resolve_query tls_query, starttls_query; /* asked at the same time */
	struct discover_target starttls[DISCOVER_MAX];
	size_t starttls_n;
};

/*
 * route: the pinned one for the domain, or NULL. Tells fn exactly once, at once when a target is
 * pinned, else from the loop. d lives until then or discover_cancel.
 */
void discover_start(struct discovery *d, struct resolver *resolver, const char *domain,
                    const struct config_route *route, void (*fn)(struct discovery *d),
                    void *arg);
void discover_cancel(struct discovery *d);

/* A resolver that asks the configured name servers (none: the system's). NULL: why says what failed. */
struct resolver *discover_resolver(struct loop *loop, const struct config_addresses *servers,
                                   int timeout_ms, char why[static NET_TEXT]);

#endif
