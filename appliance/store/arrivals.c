/*
 * Arrivals: see arrivals.h. A POST to one grant is a row among many of one
 * statement; a POST to several is a statement of its own, as its recipients
 * are many rows already. Both look the id and the digest up first, insert what
 * is new, and end in tmtp.race() if another process was faster unseen.
 */
#include "store/arrivals.h"

#include "store/arrival_many.h"

#include <stdlib.h>

/* --- One recipient: many POSTs a statement ------------------------------- */

static void
bind_one(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival *first = (const struct arrival *)jobs[0];

	for (size_t i = 0; i < n; i++) {
		const struct arrival *r = (const struct arrival *)jobs[i];

		args_i32(a, 0, (int)i);
		args_slice(a, 1, r->from);
		args_slice(a, 2, r->id);
		args_slice(a, 3, r->digest);
		args_i64(a, 4, r->size);
		args_i64(a, 5, r->date_s);
		args_time(a, 6, r->expires_us);
		args_slice(a, 7, r->uris);
		if (r->key.len > 0) {
			args_slice(a, 8, r->key);
			args_slice(a, 9, r->signature);
		} else {
			args_null(a, 8);
			args_null(a, 9);
		}
		args_uuid(a, 10, &r->fresh_id);
		args_slice(a, 11, slice_mem(r->rcpts[0].grant, 20));
		if (r->rcpts[0].vars.len > 0)
			args_slice(a, 12, r->rcpts[0].vars);
		else
			args_null(a, 12);
		args_time(a, 13, r->now_us);
	}
	args_time(a, 14, first->lease_until_us);
	args_i32(a, 15, first->slot);
	args_i64(a, 16, (int64_t)n);
}

static void
copy_channel(struct arrival *w, struct slice name)
{
	size_t n = name.len < sizeof(w->channel) ? name.len : sizeof(w->channel) - 1;

	if (n > 0)
		memcpy(w->channel, name.data, n);
	w->channel[n] = '\0';
}

static void
rows_one(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct arrival *w = (struct arrival *)jobs[i];

		w->outcome = ARRIVAL_STORED;
		w->rcpts[0].closed = true;
		w->fresh = false;
		w->state = 0;
		w->added = 0;
		arrival_clear(w);
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct arrival *w = (struct arrival *)jobs[row_i32(r, row, 0)];
		bool added = row_bool(r, row, 5);

		if (row_bool(r, row, 2) || row_bool(r, row, 9)) {
			w->outcome = row_bool(r, row, 9) ? ARRIVAL_AWAITED : ARRIVAL_CONFLICT;
			continue;
		}
		if (row_is_null(r, row, 1))
			continue;
		w->rcpts[0].closed = false;
		w->notification_id = row_uuid(r, row, 3);
		w->fresh = row_bool(r, row, 4);
		w->state = row_i32(r, row, 6);
		copy_channel(w, row_slice(r, row, 7));
		w->added = added;
		if (added && (w->accounts = malloc(sizeof(*w->accounts))) != NULL) {
			w->accounts[0] = row_i64(r, row, 1);
			w->accounts_n = 1;
		}
	}
}

/* A look at one row by its whole key, whatever the planner knows of the table. */
#define LOOK(as, from_where) \
	" LEFT JOIN LATERAL (SELECT k.* FROM " from_where " LIMIT 1) " as " ON true "

#define DIFFERS                                                                         \
	"(p.notification_id IS NOT NULL AND (p.digest <> c.digest OR p.size <> c.size " \
	" OR p.sender_id <> s.sender_id))"

/* In the order of keys, so that two processes don't wait for each other. */
#define INSERT_NEW(from)                                                                                        \
	"dg AS (INSERT INTO tmtp.notification_digest (digest, sender_id, notification_id) "                     \
	" SELECT digest, sender_id, nid FROM " from                                                             \
	" WHERE is_new ORDER BY digest, sender_id "                                                             \
	" ON CONFLICT DO NOTHING RETURNING 1), "                                                                \
	"ps AS (INSERT INTO tmtp.posted (domain_id, id, sender_id, notification_id, digest, size, kept_until) " \
	" SELECT domain_id, id, sender_id, nid, digest, size, "                                                 \
	"  least(expires_at, to_timestamp(date_s) + interval '30 days') "                                       \
	" FROM " from                                                                                           \
	" WHERE old_nid IS NULL ORDER BY domain_id, id ON CONFLICT DO NOTHING RETURNING 1), "                   \
	"nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, "     \
	"  expires_at, uris, signing_key, signature, leased_until, id) "                                        \
	" SELECT nid, sender_id, channel, digest, size, date_s, expires_at, uris, signing_key, "                \
	"  signature, lease, id FROM " from " WHERE is_new ON CONFLICT DO NOTHING), "

#define NO_RACE(from)                                                                          \
	"CASE WHEN (SELECT count(*) FROM dg) <> (SELECT count(*) FROM " from " WHERE is_new) " \
	" OR (SELECT count(*) FROM ps) <> (SELECT count(*) FROM " from                         \
	" WHERE old_nid IS NULL) "                                                             \
	" THEN tmtp.race() END"

/* A POST to nobody is a write and a commit too (see the table). */
#define COUNT_IT \
	"counted AS (UPDATE tmtp.arrival_count SET recipients = recipients + $17 WHERE slot = $16), "

static const struct store_op arrival_one = {
	.name = "arrival_one",
	/* clang-format off */
	.sql =
	    "WITH line AS MATERIALIZED (SELECT c.*, s.sender_id, s.domain_id, g.account_id, g.channel, "
	    "  p.notification_id AS old_nid, coalesce(p.awaited, false) AS awaited, " DIFFERS " AS conflict, "
	    "  coalesce(p.notification_id, d.notification_id, c.fresh_id) AS nid, "
	    "  p.notification_id IS NULL AND d.notification_id IS NULL AS is_new, $15 AS lease, "
	    "  coalesce(CASE WHEN coalesce(p.notification_id, d.notification_id) IS NOT NULL "
	    "   THEN " CHANNEL_OF("coalesce(p.notification_id, d.notification_id)") " = g.channel END, true) AS fits "
	    " FROM unnest($1::int4[], $2::text[], $3::text[], $4::bytea[], $5::int8[], $6::int8[], "
	    "  $7::timestamptz[], $8::text[], $9::text[], $10::bytea[], $11::uuid[], $12::bytea[], "
	    "  $13::bytea[], $14::timestamptz[]) AS c(ord, sender, id, digest, size, date_s, expires_at, "
	    "  uris, signing_key, signature, fresh_id, grant_id, vars, arrived_at) "
	    LOOK("s", "tmtp.sender k WHERE k.address = c.sender")
	    LOOK("g", "tmtp.open_grant k WHERE k.grant_id = c.grant_id AND k.sender_id = s.sender_id")
	    LOOK("p", "tmtp.posted k WHERE k.domain_id = s.domain_id AND k.id = c.id")
	    LOOK("d", "tmtp.notification_digest k WHERE k.digest = c.digest AND k.sender_id = s.sender_id")
	    "), "
	    "good AS MATERIALIZED (SELECT * FROM line WHERE account_id IS NOT NULL AND fits "
	    " AND NOT conflict AND NOT awaited), "
	    COUNT_IT INSERT_NEW("good")
	    "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables) "
	    " SELECT account_id, nid, arrived_at, vars FROM good ON CONFLICT DO NOTHING "
	    " RETURNING account_id, notification_id) "
	    "SELECT l.ord, CASE WHEN l.fits THEN l.account_id END, l.conflict, l.nid, l.is_new, "
	    " (l.account_id, l.nid) IN (SELECT account_id, notification_id FROM ib), "
	    " CASE WHEN l.is_new THEN 0 ELSE coalesce((SELECT n.state::int4 FROM tmtp.notification n "
	    "  WHERE n.notification_id = l.nid), 0) END, l.channel, " NO_RACE("good") ", l.awaited FROM line l",
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_TEXTS, T_TEXTS, T_BYTEAS, T_INT8S, T_INT8S,
	                        T_TIMESTAMPTZS, T_TEXTS, T_TEXTS, T_BYTEAS, T_UUIDS, T_BYTEAS,
	                        T_BYTEAS, T_TIMESTAMPTZS, T_TIMESTAMPTZ, T_INT4, T_INT8, 0 },
	.lane = STORE_ARRIVE,
	.batch_max = 256,
	.repeatable = true,
	.bind = bind_one,
	.rows = rows_one,
};

/* --- Several recipients: a POST a statement ------------------------------ */

void
arrival_bind_many(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival *r = (const struct arrival *)jobs[0];

	(void)n;
	args_slice(a, 0, r->from);
	args_slice(a, 1, r->id);
	args_slice(a, 2, r->digest);
	args_i64(a, 3, r->size);
	args_i64(a, 4, r->date_s);
	args_time(a, 5, r->expires_us);
	args_slice(a, 6, r->uris);
	if (r->key.len > 0) {
		args_slice(a, 7, r->key);
		args_slice(a, 8, r->signature);
	}
	args_uuid(a, 9, &r->fresh_id);
	for (size_t i = 0; i < r->rcpts_n; i++) {
		args_i32(a, 10, (int)i);
		args_slice(a, 11, slice_mem(r->rcpts[i].grant, 20));
		if (r->rcpts[i].vars.len > 0)
			args_slice(a, 12, r->rcpts[i].vars);
		else
			args_null(a, 12);
	}
	args_time(a, 13, r->now_us);
	args_time(a, 14, r->lease_until_us);
	args_i32(a, 15, r->slot);
	args_i64(a, 16, (int64_t)r->rcpts_n);
	args_bool(a, 17, r->want_accounts);
}

static void
each_closed(size_t i, struct slice v, void *arg)
{
	struct arrival *w = arg;
	size_t index;

	(void)i;
	if (v.len != 4)
		return;
	index = (size_t)v.data[0] << 24 | (size_t)v.data[1] << 16 | (size_t)v.data[2] << 8 |
	        v.data[3];
	if (index < w->rcpts_n)
		w->rcpts[index].closed = true;
}

static int64_t
get_i64(struct slice v)
{
	uint64_t x = 0;

	for (size_t k = 0; k < v.len; k++)
		x = x << 8 | v.data[k];
	return (int64_t)x;
}

struct account_fill {
	int64_t *to;
	size_t n;
};

static void
each_account(size_t i, struct slice v, void *arg)
{
	struct account_fill *f = arg;

	if (i < f->n)
		f->to[i] = get_i64(v);
}

static void
each_nothing(size_t i, struct slice v, void *arg)
{
	(void)i;
	(void)v;
	(void)arg;
}

void
arrival_rows_many(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival *w = (struct arrival *)jobs[0];
	struct account_fill fill;

	(void)n;
	arrival_clear(w);
	w->outcome = ARRIVAL_STORED;
	w->fresh = false;
	w->state = 0;
	w->added = 0;
	for (size_t i = 0; i < w->rcpts_n; i++)
		w->rcpts[i].closed = false;
	if (PQntuples(r) != 1) {
		w->job.rc = STORE_DOWN;
		return;
	}
	if (row_bool(r, 0, 0) || row_bool(r, 0, 9)) {
		w->outcome = row_bool(r, 0, 9) ? ARRIVAL_AWAITED : ARRIVAL_CONFLICT;
		return;
	}
	w->added = (size_t)row_i64(r, 0, 8);
	w->notification_id = row_uuid(r, 0, 1);
	w->fresh = row_bool(r, 0, 2);
	w->state = row_i32(r, 0, 3);
	copy_channel(w, row_slice(r, 0, 4));
	(void)row_array(r, 0, 5, each_closed, w);
	fill.n = row_array(r, 0, 6, each_nothing, NULL);
	if (fill.n == 0)
		return;
	fill.to = w->accounts = calloc(fill.n, sizeof(*fill.to));
	if (fill.to != NULL)
		w->accounts_n = row_array(r, 0, 6, each_account, &fill);
}

static const struct
    store_op
	arrival_many = {
		.name = "arrival_many",
		/* clang-format off */
	.sql =
	    "WITH c AS MATERIALIZED (SELECT s.sender_id, s.domain_id, "
	    "  $1::text AS sender, $2::text AS id, $3::bytea AS digest, $4::int8 AS size, $5::int8 AS date_s, "
	    "  $6::timestamptz AS expires_at, $7::text AS uris, $8::text AS signing_key, "
	    "  $9::bytea AS signature, $15::timestamptz AS lease "
	    " FROM (SELECT 1) AS one " LOOK("s", "tmtp.sender k WHERE k.address = $1") "), "
	    "known AS MATERIALIZED (SELECT c.*, p.notification_id AS old_nid, coalesce(p.awaited, false) AS awaited, "
	    "  (p.notification_id IS NOT NULL AND (p.digest <> c.digest OR p.size <> c.size "
	    "   OR p.sender_id <> c.sender_id)) AS conflict, "
	    "  coalesce(p.notification_id, d.notification_id, $10) AS nid, "
	    "  p.notification_id IS NULL AND d.notification_id IS NULL AS is_new "
	    " FROM c " LOOK("p", "tmtp.posted k WHERE k.domain_id = c.domain_id AND k.id = c.id")
	    LOOK("d", "tmtp.notification_digest k WHERE k.digest = c.digest AND k.sender_id = c.sender_id")
	    "), "
	    "looked AS MATERIALIZED (SELECT r.idx, r.vars, g.account_id, g.channel "
	    " FROM unnest($11::int4[], $12::bytea[], $13::bytea[]) AS r(idx, grant_id, vars) "
	    LOOK("g", "tmtp.open_grant k WHERE k.grant_id = r.grant_id " "AND k.sender_id = (SELECT sender_id FROM c)")
	    "), "
	    "one AS MATERIALIZED (SELECT known.*, coalesce(CASE WHEN nid <> $10 THEN " CHANNEL_OF("known.nid") " END, "
	    "  (SELECT min(channel) FROM looked)) AS channel FROM known), "
	    "good AS MATERIALIZED (SELECT * FROM one WHERE NOT conflict AND NOT awaited "
	    " AND EXISTS (SELECT FROM looked l WHERE l.channel = one.channel)), "
	    COUNT_IT INSERT_NEW("good")
	    "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables) "
	    " SELECT l.account_id, good.nid, $14, l.vars FROM good JOIN looked l ON l.channel = good.channel "
	    " ON CONFLICT DO NOTHING RETURNING account_id) "
	    "SELECT one.conflict, one.nid, one.is_new AND one.channel IS NOT NULL, "
	    " CASE WHEN one.is_new THEN 0 ELSE coalesce((SELECT n.state::int4 FROM tmtp.notification n "
	    "  WHERE n.notification_id = one.nid), 0) END, one.channel, "
	    " (SELECT array_agg(l.idx) FROM looked l "
	    "  WHERE l.account_id IS NULL OR l.channel IS DISTINCT FROM one.channel), "
	    " CASE WHEN $18 THEN (SELECT array_agg(account_id) FROM ib) END, " NO_RACE("good")
	    ", (SELECT count(*) FROM ib), one.awaited FROM one",
		/* clang-format on */
		.types =
		    (const Oid[]){ T_TEXT, T_TEXT, T_BYTEA, T_INT8, T_INT8, T_TIMESTAMPTZ,
	                           T_TEXT, T_TEXT, T_BYTEA, T_UUID, T_INT4S, T_BYTEAS, T_BYTEAS,
	                           T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT4, T_INT8, T_BOOL, 0 },
		.lane = STORE_ARRIVE,
		.repeatable = true,
		.bind = arrival_bind_many,
		.rows = arrival_rows_many,
	};

/* What replaces it came before it: the statement that knows of replacements takes it. */
static void
on_plain(struct store_job *job)
{
	struct arrival *arrival = (struct arrival *)job;

	job->done = arrival->then;
	if (job->rc != STORE_OK || arrival->outcome != ARRIVAL_AWAITED) {
		job->done(job);
		return;
	}
	job->op = arrival_replacing;
	store_submit(arrival->store, job);
}

void
store_arrival(struct store *store, struct arrival *arrival)
{
	arrival->job.op = arrival->rcpts_n == 1 ? &arrival_one : &arrival_many;
	if (arrival->replaces.len > 0) {
		arrival->job.op = arrival_replacing;
	} else {
		arrival->store = store;
		arrival->then = arrival->job.done;
		arrival->job.done = on_plain;
	}
	arrival->accounts = NULL;
	arrival->accounts_n = 0;
	arrival->fresh = false;
	arrival->state = 0;
	store_submit(store, &arrival->job);
}

void
arrival_clear(struct arrival *arrival)
{
	free(arrival->accounts);
	arrival->accounts = NULL;
	arrival->accounts_n = 0;
}
