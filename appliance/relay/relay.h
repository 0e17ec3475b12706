/*
 * The relay's parts, and what they share. Everything runs on one loop; the
 * store's answers come back to it. Work flows one way:
 *
 *   plan      which (site, domain) pairs have batches; claims them
 *   delivery  one claimed batch: reads its recipients, becomes POSTs, ends
 *   errands   commands besides: claimed, sent, written down
 *   grants    errands: GRANTs that wait for other domains
 *   receipts  errands: RECEIPTs of members here, for sites elsewhere
 *   signing   our domains' keys: signatures of messages, AUTH
 *   catchup   what their members said, asked of other domains
 *   presences who of our members is online, for contacts who agreed
 *   peer      one other domain: its sessions and its backoff
 *   session   one DMTP connection to it
 */
#ifndef TMTP_RELAY_RELAY_H
#define TMTP_RELAY_RELAY_H

#include "base/config.h"
#include "base/id.h"
#include "net/loop.h"
#include "net/resolve.h"
#include "net/tls.h"
#include "store/store.h"

struct peer;
struct plan;
struct grants;
struct receipts;
struct catchup;
struct presences;
struct routes;
struct signing;

struct relay {
	const struct config *config; /* the running one; the options that need a restart */
	struct loop *loop;
	struct store *store;
	struct resolver *resolver;
	struct routes *routes; /* pinned ways and their TLS clients */
	struct uuid owner;     /* of this process's leases */
	struct peer *peers;    /* by domain_id */
	struct plan *plan;
	struct grants *grants;
	struct receipts *receipts;
	struct catchup *catchup;
	struct signing *signing; /* our domains' keys */
	unsigned jobs;           /* of the store that are under way for this loop */
	unsigned pages;          /* of ranges' recipients, read or being read */
	unsigned deliveries;     /* under way, of all pairs */
	bool begun; /* the store knows of this process and it of its peers: it may claim */
	struct presences *presences;
	bool draining;
};

/* --- A store's job whose end is told on the loop ---------------------------- */

/* Embeds in what embeds the job; lives until fn. */
struct relay_later {
	struct loop_task task; /* first */
	struct relay *relay;
	void (*fn)(void *arg);
	void *arg;
	/* Set after relay_later: called before, on the store's thread; short work of its own. */
	void (*on_store)(void *arg);
};

/* Makes job call fn(arg) on the loop's thread when it ends. Before each submission. */
void relay_later(struct relay_later *later, struct relay *relay, struct store_job *job,
                 void (*fn)(void *arg), void *arg);

#endif
