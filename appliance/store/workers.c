/* Processes that lease rows: see workers.h. */
#include "store/workers.h"

#include "store/op.h"

/* The random half of a UUIDv7. */
int64_t
worker_lock_key(const struct uuid *worker)
{
	int64_t key;

	memcpy(&key, worker->octets + 8, sizeof(key));
	return key;
}

/* --- Entering -------------------------------------------------------------- */

static void
bind_enter(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct worker_enter *e = (const struct worker_enter *)jobs[0];

	(void)n;
	args_uuid(a, 0, &e->worker);
	args_text(a, 1, e->role);
	args_i64(a, 2, worker_lock_key(&e->worker));
	args_time(a, 3, e->now_us);
}

static const struct store_op enter_run = {
	.name = "worker_enter",
	.sql = "INSERT INTO tmtp.worker (worker_id, role, lock_key, entered_at) "
	       "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
	.types = (const Oid[]){ T_UUID, T_TEXT, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_enter,
};

void
store_worker_enter(struct store *store, struct worker_enter *enter)
{
	enter->job.op = &enter_run;
	store_submit(store, &enter->job);
}

/* --- Reaping ---------------------------------------------------------------- */

static void
bind_reap(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_uuid(a, 0, &((const struct worker_reap *)jobs[0])->worker);
}

static void
rows_reap(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct worker_reap *reap = (struct worker_reap *)jobs[0];

	(void)n;
	reap->gone_n = 0;
	reap->leases = 0;
	for (int row = 0; row < PQntuples(r) && row < WORKERS_GONE_MAX; row++) {
		reap->gone[reap->gone_n++] = row_uuid(r, row, 0);
		reap->leases = row_i64(r, row, 1);
	}
}

/*
 * The lock that is got here is let go with the transaction. "Is any gone" is
 * asked first and once, so that nothing is walked while all are there; that a
 * gone one's leases cost a walk through all that waits is rare enough.
 */
#define GONE(role)                                                                    \
	"WITH gone AS MATERIALIZED (SELECT w.worker_id FROM tmtp.worker w "           \
	" WHERE w.role = '" role "' AND w.worker_id <> $1 "                           \
	" AND pg_try_advisory_xact_lock(w.lock_key) ORDER BY w.worker_id LIMIT 16), " \
	"forgotten AS (DELETE FROM tmtp.worker w WHERE w.worker_id IN (SELECT worker_id FROM gone)), "

#define OF_GONE(x)                               \
	"(SELECT count(*) FROM gone) > 0 AND " x \
	".lease_owner = ANY (ARRAY(SELECT worker_id FROM gone)) "

#define FREED(name, table, x, which)                                                         \
	name " AS (UPDATE tmtp." table " " x " SET leased_until = NULL, lease_owner = NULL " \
	     " WHERE " which                                                                 \
	     OF_GONE(x) "RETURNING 1), "

static const struct store_op reap_relays = {
	.name = "worker_reap_relays",
	/* clang-format off */
	.sql =
	    GONE("relay")
	    FREED("batches", "batch", "b", "b.state = 0 AND ")
	    FREED("grants", "grant_outbox", "g", "")
	    FREED("receipts", "receipt_outbox", "r", "")
	    FREED("presences", "presence_outbox", "o", "")
	    FREED("catchups", "catchup", "c", "")
	    "probes AS (UPDATE tmtp.peer p SET probe_until = NULL, probe_owner = NULL "
	    " WHERE (SELECT count(*) FROM gone) > 0 "
	    " AND p.probe_owner = ANY (ARRAY(SELECT worker_id FROM gone)) RETURNING 1) "
	    "SELECT g.worker_id, (SELECT count(*) FROM batches) + (SELECT count(*) FROM grants) "
	    " + (SELECT count(*) FROM receipts) + (SELECT count(*) FROM presences) "
	    " + (SELECT count(*) FROM catchups) + (SELECT count(*) FROM probes) FROM gone g",
	/* clang-format on */
	.types = (const Oid[]){ T_UUID, 0 },
	.lane = STORE_WRITE,
	.bind = bind_reap,
	.rows = rows_reap,
};

static const struct store_op reap_homes = {
	.name = "worker_reap_homes",
	/* clang-format off */
	.sql =
	    GONE("home")
	    "pickups AS (UPDATE tmtp.notification n SET leased_until = NULL, lease_owner = NULL "
	    " WHERE n.state = 0 AND " OF_GONE("n") "RETURNING 1), "
	    "copies AS (UPDATE tmtp.copy c SET leased_until = NULL, lease_owner = NULL "
	    " WHERE c.state = 0 AND " OF_GONE("c") "RETURNING 1) "
	    "SELECT g.worker_id, (SELECT count(*) FROM pickups) + (SELECT count(*) FROM copies) FROM gone g",
	/* clang-format on */
	.types = (const Oid[]){ T_UUID, 0 },
	.lane = STORE_WRITE,
	.bind = bind_reap,
	.rows = rows_reap,
};

void
store_worker_reap_relays(struct store *store, struct worker_reap *reap)
{
	reap->job.op = &reap_relays;
	store_submit(store, &reap->job);
}

void
store_worker_reap_homes(struct store *store, struct worker_reap *reap)
{
	reap->job.op = &reap_homes;
	store_submit(store, &reap->job);
}
