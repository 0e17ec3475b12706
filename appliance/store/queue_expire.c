/* Giving up what waited too long: see queue.h. */
#include "store/queue.h"

#include "store/rows.h"

void
queue_expire_clear(struct queue_expire *expire)
{
	for (size_t i = 0; i < expire->rows_n; i++) {
		free(expire->rows[i].domain);
		free(expire->rows[i].reason);
	}
	free(expire->rows);
	expire->rows = NULL;
	expire->rows_n = 0;
}

static void
rows_expire(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct queue_expire *e = (struct queue_expire *)jobs[0];

	(void)n;
	queue_expire_clear(e);
	e->rows = rows_room(r, sizeof(e->rows[0]), &e->job);
	for (int row = 0; e->rows != NULL && row < PQntuples(r); row++)
		e->rows[e->rows_n++] = (struct queue_expired){
			.domain = row_text(r, row, 0),
			.message_id = row_uuid(r, row, 1),
			.recipients = row_i32(r, row, 2),
			.reason = row_text(r, row, 3),
		};
}

/* Sites with something that waits: one probe a site. */
#define SITES                                                                                   \
	"WITH RECURSIVE site AS ( "                                                             \
	" (SELECT site_id FROM tmtp.batch WHERE state = 0 ORDER BY site_id LIMIT 1) "           \
	" UNION ALL "                                                                           \
	" SELECT n.site_id FROM site s CROSS JOIN LATERAL (SELECT b.site_id FROM tmtp.batch b " \
	"  WHERE b.state = 0 AND b.site_id > s.site_id ORDER BY b.site_id LIMIT 1) n), "

/* A batch that somebody holds a lease of is on its way: who holds it judges it at its end. */
#define FREE(b) "(" b ".leased_until IS NULL OR " b ".leased_until < $1) "

#define GIVE_UP(why)                                                                                     \
	"gone AS (UPDATE tmtp.batch b SET state = 2, done_at = $1, leased_until = NULL, "                \
	"  lease_owner = NULL, reason = '" why "' || coalesce('; last: ' || "                            \
	"  coalesce((SELECT p.reason FROM tmtp.peer p WHERE p.domain_id = b.domain_id), b.reason), '') " \
	" FROM late WHERE b.site_id = late.site_id AND b.message_id = late.message_id "                  \
	" AND b.batch_no = late.batch_no RETURNING b.domain_id, b.message_id, b.recipients, b.reason) "  \
	"SELECT d.name, g.message_id, g.recipients, g.reason "                                           \
	"FROM gone g JOIN tmtp.domain d ON d.domain_id = g.domain_id"

static void
bind_own(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_expire *e = (const struct queue_expire *)jobs[0];

	(void)n;
	args_time(a, 0, e->now_us);
	args_time(a, 1, e->from_us);
	args_i64(a, 2, e->limit);
}

/* "state < 1": "= 0" would lead the planner to the index of all that waits. */
static const struct store_op own_run = {
	.name = "queue_expire_own",
	.sql = SITES
	"late AS MATERIALIZED (SELECT b.* FROM site CROSS JOIN LATERAL ("
	"  SELECT m.message_id FROM tmtp.message m WHERE m.site_id = site.site_id "
	"  AND m.expires_at > $2 AND m.expires_at <= $1) m CROSS JOIN LATERAL ("
	"  SELECT k.site_id, k.message_id, k.batch_no FROM tmtp.batch k "
	"  WHERE k.site_id = site.site_id AND k.message_id = m.message_id AND k.state < 1 "
	"  AND " FREE("k") "FOR UPDATE SKIP LOCKED) b LIMIT $3), " GIVE_UP(
	    "expired before it could be delivered"),
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_READ, /* it may take a while; nobody waits for it */
	.bind = bind_own,
	.rows = rows_expire,
};

void
store_queue_expire_own(struct store *store, struct queue_expire *expire)
{
	expire->job.op = &own_run;
	expire->rows = NULL;
	expire->rows_n = 0;
	store_submit(store, &expire->job);
}

static void
bind_limit(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_expire *e = (const struct queue_expire *)jobs[0];
	int64_t before_us = e->now_us - e->limit_s * 1000000;
	struct uuid before = uuid_floor(before_us);

	(void)n;
	args_time(a, 0, e->now_us);
	args_uuid(a, 1, &before);
	args_i64(a, 2, e->limit);
	args_time(a, 3, before_us);
}

/* Younger days hold nothing that is so old: only the oldest partitions are looked at. */
static const struct store_op limit_run = {
	.name = "queue_expire_limit",
	.sql = SITES
	"late AS MATERIALIZED (SELECT b.* FROM site CROSS JOIN LATERAL ("
	"  SELECT k.site_id, k.message_id, k.batch_no FROM tmtp.batch k "
	"  WHERE k.site_id = site.site_id AND k.state = 0 AND k.message_id < $2 "
	"  AND (k.revived_at IS NULL OR k.revived_at < $4) AND " FREE(
	    "k") "  AND NOT EXISTS (SELECT FROM tmtp.message m WHERE m.site_id = k.site_id "
		 "   AND m.message_id = k.message_id AND m.expires_at IS NOT NULL) "
		 "  LIMIT $3 FOR UPDATE SKIP LOCKED) b LIMIT $3), " GIVE_UP(
		     "could not be delivered within the operator''s limit"),
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_UUID, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.bind = bind_limit,
	.rows = rows_expire,
};

void
store_queue_expire_limit(struct store *store, struct queue_expire *expire)
{
	expire->job.op = &limit_run;
	expire->rows = NULL;
	expire->rows_n = 0;
	store_submit(store, &expire->job);
}

static void
bind_refused(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_expire *e = (const struct queue_expire *)jobs[0];

	(void)n;
	args_time(a, 0, e->now_us);
	args_time(a, 1, e->now_us - e->limit_s * 1000000);
	args_i64(a, 2, e->limit);
}

/* What was accepted after the last refusal is tried first: the domain may have changed its mind. */
static const struct store_op refused_run = {
	.name = "queue_expire_refused",
	.sql =
	    "WITH RECURSIVE refused AS MATERIALIZED (SELECT p.domain_id, p.refused_at "
	    " FROM tmtp.peer p WHERE p.refused_since <= $2), "
	    "site AS ( "
	    " (SELECT site_id FROM tmtp.batch WHERE state = 0 AND EXISTS (SELECT FROM refused) "
	    "  ORDER BY site_id LIMIT 1) "
	    " UNION ALL "
	    " SELECT n.site_id FROM site s CROSS JOIN LATERAL (SELECT b.site_id FROM tmtp.batch b "
	    "  WHERE b.state = 0 AND b.site_id > s.site_id ORDER BY b.site_id LIMIT 1) n), "
	    "late AS MATERIALIZED (SELECT b.* FROM site CROSS JOIN refused r CROSS JOIN LATERAL ("
	    "  SELECT k.site_id, k.message_id, k.batch_no FROM tmtp.batch k "
	    "  WHERE k.site_id = site.site_id AND k.domain_id = r.domain_id AND k.state = 0 "
	    "  AND (k.revived_at IS NULL OR k.revived_at < r.refused_at) AND " FREE(
		"k") "  AND EXISTS (SELECT FROM tmtp.message m WHERE m.site_id = k.site_id "
		     "   AND m.message_id = k.message_id AND m.accepted_at < r.refused_at) "
		     "  LIMIT $3 FOR UPDATE SKIP LOCKED) b LIMIT $3), " GIVE_UP(
			 "DNS has said for two days that the domain takes no DMTP"),
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_READ,
	.bind = bind_refused,
	.rows = rows_expire,
};

void
store_queue_expire_refused(struct store *store, struct queue_expire *expire)
{
	expire->job.op = &refused_run;
	expire->rows = NULL;
	expire->rows_n = 0;
	store_submit(store, &expire->job);
}
