/*
 * Processes that lease rows, so that a lease ends with its owner and not only
 * with its time. The connection that listens (store_options.worker) holds an
 * advisory lock as long as the process is there; who gets that lock of another
 * knows that it is gone. A process whose machine is gone keeps it until the
 * database misses the connection; then its leases run out first.
 */
#ifndef TMTP_STORE_WORKERS_H
#define TMTP_STORE_WORKERS_H

#include "base/id.h"
#include "store/store.h"

#define WORKERS_GONE_MAX 16

int64_t worker_lock_key(const struct uuid *worker);

/*
 * Makes this process known: when its lock is held (each time that notified is
 * told NULL), and before it leases anything.
 */
struct worker_enter {
	struct store_job job;
	struct uuid worker;
	const char *role; /* "relay", "home": a literal */
	int64_t now_us;
};

void store_worker_enter(struct store *store, struct worker_enter *enter);

/* Gives back what processes of a role that are gone had leased. Costs next to nothing when none is. */
struct worker_reap {
	struct store_job job;
	struct uuid worker; /* who asks: it is there */
	/* out */
	struct uuid gone[WORKERS_GONE_MAX];
	size_t gone_n;
	int64_t leases;
};

/* Batches, GRANTs, catching up. */
void store_worker_reap_relays(struct store *store, struct worker_reap *reap);
/* Pickups. */
void store_worker_reap_homes(struct store *store, struct worker_reap *reap);

#endif
