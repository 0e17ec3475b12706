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
	.sql =
	    "WITH line AS MATERIALIZED (SELECT c.*, s.sender_id, s.domain_id, g.account_id, g.channel, "
	    "  p.notification_id AS old_nid, coalesce(p.awaited, false) AS awaited, " DIFFERS
	    " AS conflict, "
	    "  coalesce(p.notification_id, d.notification_id, c.fresh_id) AS nid, "
	    "  p.notification_id IS NULL AND d.notification_id IS NULL AS is_new, $15 AS lease "
	    " FROM unnest($1::int4[], $2::text[], $3::text[], $4::bytea[], $5::int8[], $6::int8[], "
	    "  $7::timestamptz[], $8::text[], $9::text[], $10::bytea[], $11::uuid[], $12::bytea[], "
	    "  $13::bytea[], $14::timestamptz[]) AS c(ord, sender, id, digest, size, date_s, expires_at, "
	    "  uris, signing_key, signature, fresh_id, grant_id, vars, arrived_at) " LOOK(
		"s",
		"tmtp.sender k WHERE k.address = c.sender") LOOK("g",
	                                                         "tmtp.open_grant k WHERE k.grant_id = c.grant_id AND k.sender_id = s.sender_id")
		LOOK("p", "tmtp.posted k WHERE k.domain_id = s.domain_id AND k.id = c.id") LOOK(
		    "d",
		    "tmtp.notification_digest k WHERE k.digest = c.digest AND k.sender_id = s.sender_id") "), "
													  "good AS MATERIALIZED (SELECT * FROM line WHERE account_id IS NOT NULL AND NOT conflict AND NOT awaited), " COUNT_IT
													      INSERT_NEW(
														  "good") "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables) "
															  " SELECT account_id, nid, arrived_at, vars FROM good ON CONFLICT DO NOTHING "
															  " RETURNING account_id, notification_id) "
															  "SELECT l.ord, l.account_id, l.conflict, l.nid, l.is_new, "
															  " (l.account_id, l.nid) IN (SELECT account_id, notification_id FROM ib), "
															  " CASE WHEN l.is_new THEN 0 ELSE coalesce((SELECT n.state::int4 FROM tmtp.notification n "
															  "  WHERE n.notification_id = l.nid), 0) END, l.channel, " NO_RACE(
															      "good") ", l.awaited FROM line l",
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
		.sql = "WITH c AS MATERIALIZED (SELECT s.sender_id, s.domain_id, "
		       "  $1::text AS sender, $2::text AS id, $3::bytea AS digest, $4::int8 AS size, $5::int8 AS date_s, "
		       "  $6::timestamptz AS expires_at, $7::text AS uris, $8::text AS signing_key, "
		       "  $9::bytea AS signature, $15::timestamptz AS lease "
		       " FROM (SELECT 1) AS one " LOOK(
			   "s",
			   "tmtp.sender k WHERE k.address = $1") "), "
								 "known AS MATERIALIZED (SELECT c.*, p.notification_id AS old_nid, coalesce(p.awaited, false) AS awaited, "
								 "  (p.notification_id IS NOT NULL AND (p.digest <> c.digest OR p.size <> c.size "
								 "   OR p.sender_id <> c.sender_id)) AS conflict, "
								 "  coalesce(p.notification_id, d.notification_id, $10) AS nid, "
								 "  p.notification_id IS NULL AND d.notification_id IS NULL AS is_new "
								 " FROM c " LOOK("p",
	                                                                         "tmtp.posted k WHERE k.domain_id = c.domain_id AND k.id = c.id") LOOK("d", "tmtp.notification_digest k WHERE k.digest = c.digest AND k.sender_id = c.sender_id") "), "
																														  "looked AS MATERIALIZED (SELECT r.idx, r.vars, g.account_id, g.channel "
																														  " FROM unnest($11::int4[], $12::bytea[], $13::bytea[]) AS r(idx, grant_id, vars) " LOOK("g", "tmtp.open_grant k WHERE k.grant_id = r.grant_id "
	                                                                                                                                                                                                                                                                                                                                       "AND k.sender_id = (SELECT sender_id FROM c)") "), "
																																															      "one AS MATERIALIZED (SELECT known.*, (SELECT min(channel) FROM looked) AS channel FROM known), "
																																															      "good AS MATERIALIZED (SELECT * FROM one WHERE NOT conflict AND NOT awaited AND channel IS NOT NULL), " COUNT_IT
																																																  INSERT_NEW("good") "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables) "
																																																		     " SELECT l.account_id, good.nid, $14, l.vars FROM good JOIN looked l ON l.channel = good.channel "
																																																		     " ON CONFLICT DO NOTHING RETURNING account_id) "
																																																		     "SELECT one.conflict, one.nid, one.is_new AND one.channel IS NOT NULL, "
																																																		     " CASE WHEN one.is_new THEN 0 ELSE coalesce((SELECT n.state::int4 FROM tmtp.notification n "
																																																		     "  WHERE n.notification_id = one.nid), 0) END, one.channel, "
																																																		     " (SELECT array_agg(l.idx) FROM looked l "
																																																		     "  WHERE l.account_id IS NULL OR l.channel IS DISTINCT FROM one.channel), "
																																																		     " CASE WHEN $18 THEN (SELECT array_agg(account_id) FROM ib) END, " NO_RACE(
																																																			 "good") ", (SELECT count(*) FROM ib), one.awaited FROM one",
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

/* --- Invitations ---------------------------------------------------------- */

static void
bind_invite(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_invite *v = (const struct arrival_invite *)jobs[0];

	(void)n;
	args_slice(a, 0, v->from);
	args_slice(a, 1, v->from_domain);
	args_slice(a, 2, v->registrable);
	args_slice(a, 3, v->domain);
	args_slice(a, 4, v->name);
	args_slice(a, 5, v->channel);
	args_slice(a, 6, v->id);
	args_slice(a, 7, v->digest);
	args_slice(a, 8, v->uris);
	if (v->key.len > 0) {
		args_slice(a, 9, v->key);
		args_slice(a, 10, v->signature);
	}
	args_i64(a, 11, v->size);
	args_i64(a, 12, v->date_s);
	args_time(a, 13, v->expires_us);
	args_time(a, 14, v->now_us);
	args_i32(a, 15, v->slot);
	args_i64(a, 16, 1);
	args_time(a, 17, v->lease_until_us);
	args_uuid(a, 18, &v->fresh_id);
	args_i64(a, 19, v->sender_id);
	args_i64(a, 20, v->domain_id);
	args_i64(a, 21, v->per_day);
}

static void
rows_invite(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_invite *v = (struct arrival_invite *)jobs[0];

	(void)n;
	v->shown = PQntuples(r) == 1 && !row_is_null(r, 0, 0);
	v->account_id = v->shown ? row_i64(r, 0, 0) : 0;
}

/*
 * DMTP.md section 7: at most one unanswered for (registrable domain, member),
 * capped by day; a refusal (or a revocation) is final for that sender, a second
 * one for the domain. Who granted needs no invitation: the site that still asks
 * has removed the member since, or lost the grant, and is told it again, of a
 * later date (not more than a second ahead, however often it asks). Who is of
 * the member's own domain answers for himself alone: its operator knows him. A
 * sender or domain that another process has just made known is
 * not seen: the transaction is run again.
 */
static const struct store_op invite_run = {
	.name = "arrival_invite",
	.sql =
	    "WITH member AS MATERIALIZED (SELECT account_id FROM tmtp.account "
	    "  WHERE domain = $4 AND name = $5 AND disabled_at IS NULL), "
	    "theirs AS MATERIALIZED (SELECT c.* , s.address, s.domain_id FROM member m "
	    "  JOIN tmtp.consent c ON c.account_id = m.account_id "
	    "  JOIN tmtp.sender s ON s.sender_id = c.sender_id AND s.registrable = $3 "
	    "  AND ($2 <> $4 OR s.address = $1)), "
	    "wanted AS MATERIALIZED (SELECT m.account_id FROM member m WHERE "
	    "  NOT EXISTS (SELECT FROM theirs WHERE state = 0) "
	    "  AND NOT EXISTS (SELECT FROM theirs WHERE address = $1 AND channel = $6) "
	    "  AND NOT EXISTS (SELECT FROM theirs WHERE address = $1 AND state IN (2, 3)) "
	    "  AND (SELECT count(*) FROM theirs WHERE state IN (2, 3)) < 2 "
	    "  AND (SELECT count(*) FROM theirs WHERE asked_at > $15 - interval '1 day') < $22), "
	    "counted AS (UPDATE tmtp.arrival_count SET recipients = recipients + $17 WHERE slot = $16), "
	    "told AS (UPDATE tmtp.consent c SET changed_id = $19, "
	    "  grant_date = greatest(floor(extract(epoch FROM $15))::int8, c.grant_date + 1) FROM theirs t "
	    "  WHERE t.address = $1 AND t.channel = $6 AND c.account_id = t.account_id "
	    "  AND c.sender_id = t.sender_id AND c.channel = t.channel AND c.state = 1 "
	    "  AND c.changed_id = t.changed_id AND c.grant_date <= floor(extract(epoch FROM $15))::int8 "
	    "  RETURNING c.account_id, c.sender_id, c.channel, t.domain_id), "
	    "queued AS (INSERT INTO tmtp.grant_outbox (account_id, sender_id, channel, domain_id, changed_id) "
	    "  SELECT account_id, sender_id, channel, domain_id, $19 FROM told "
	    "  ON CONFLICT (account_id, sender_id, channel) DO UPDATE SET changed_id = EXCLUDED.changed_id, "
	    "  attempts = 0, leased_until = NULL), "
	    "dom AS (INSERT INTO tmtp.domain (domain_id, name, created_at) "
	    "  SELECT $21, $2, $15 FROM wanted ON CONFLICT DO NOTHING RETURNING domain_id), "
	    "their_domain AS MATERIALIZED (SELECT domain_id FROM tmtp.domain WHERE name = $2 "
	    "  UNION ALL SELECT domain_id FROM dom), "
	    "new_sender AS (INSERT INTO tmtp.sender (sender_id, address, domain_id, registrable, created_at) "
	    "  SELECT $20, $1, d.domain_id, $3, $15 FROM wanted CROSS JOIN their_domain d "
	    "  ON CONFLICT DO NOTHING RETURNING sender_id, domain_id), "
	    "whose AS MATERIALIZED (SELECT sender_id, domain_id FROM tmtp.sender WHERE address = $1 "
	    "  UNION ALL SELECT sender_id, domain_id FROM new_sender), "
	    "dg AS (INSERT INTO tmtp.notification_digest (digest, sender_id, notification_id) "
	    "  SELECT $8, whose.sender_id, $19 FROM wanted CROSS JOIN whose ON CONFLICT DO NOTHING RETURNING 1), "
	    "nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, recipient, digest, size, "
	    "  date_s, expires_at, uris, signing_key, signature, leased_until) "
	    "  SELECT $19, whose.sender_id, $6, $5 || '@' || $4, $8, $12, $13, $14, $9, $10, $11, $18 "
	    "  FROM wanted CROSS JOIN whose CROSS JOIN dg), "
	    "asked AS (INSERT INTO tmtp.consent (account_id, sender_id, channel, state, asked_at, "
	    "  invitation, changed_id, grant_date) "
	    "  SELECT wanted.account_id, whose.sender_id, $6, 0, $15, $19, $19, 0 "
	    "  FROM wanted CROSS JOIN whose CROSS JOIN dg "
	    "  ON CONFLICT DO NOTHING RETURNING account_id) "
	    "SELECT (SELECT account_id FROM asked), "
	    " CASE WHEN EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM whose) THEN tmtp.race() END",
	.types =
	    (const Oid[]){ T_TEXT, T_TEXT,        T_TEXT,        T_TEXT, T_TEXT,  T_TEXT,
	                   T_TEXT, T_BYTEA,       T_TEXT,        T_TEXT, T_BYTEA, T_INT8,
	                   T_INT8, T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT4, T_INT8,  T_TIMESTAMPTZ,
	                   T_UUID, T_INT8,        T_INT8,        T_INT8, 0 },
	.lane = STORE_ARRIVE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_invite,
	.rows = rows_invite,
};

void
store_arrival_invite(struct store *store, struct arrival_invite *invite)
{
	invite->job.op = &invite_run;
	store_submit(store, &invite->job);
}

/* --- Pickup --------------------------------------------------------------- */

static void
bind_pickup_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct pickup_claim *c = (const struct pickup_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	args_uuid(a, 2, &c->oldest);
	args_i64(a, 3, c->limit);
}

static bool
read_pickup(struct pickup *p, const PGresult *r, int row)
{
	struct slice digest = row_slice(r, row, 4), signature = row_slice(r, row, 10);

	p->notification_id = row_uuid(r, row, 0);
	p->sender = row_text(r, row, 1);
	p->channel = row_text(r, row, 2);
	p->recipient = row_text(r, row, 3);
	if (digest.len == sizeof(p->digest))
		memcpy(p->digest, digest.data, digest.len);
	p->size = row_i64(r, row, 5);
	p->date_s = row_i64(r, row, 6);
	p->expires_us = row_time(r, row, 7);
	p->uris = row_text(r, row, 8);
	p->key = row_text(r, row, 9);
	p->attempts = row_i32(r, row, 11);
	if (signature.len > 0 && (p->signature = malloc(signature.len)) != NULL) {
		memcpy(p->signature, signature.data, signature.len);
		p->signature_len = signature.len;
	}
	return p->sender != NULL && p->channel != NULL && p->uris != NULL;
}

static void
rows_pickup_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct pickup_claim *c = (struct pickup_claim *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	pickup_claim_clear(c);
	c->rows = calloc((size_t)count + 1, sizeof(*c->rows));
	if (c->rows == NULL)
		return; /* leased in vain: they come again */
	for (int row = 0; row < count; row++) {
		if (read_pickup(&c->rows[c->rows_n], r, row))
			c->rows_n++;
		else
			pickup_clear(&c->rows[c->rows_n]);
	}
}

static const struct store_op pickup_claim_run = {
	.name = "pickup_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT notification_id FROM tmtp.notification "
	    "  WHERE state = 0 AND notification_id >= $3 AND (leased_until IS NULL OR leased_until < $1) "
	    "  AND (not_before IS NULL OR not_before <= $1) "
	    "  ORDER BY notification_id LIMIT $4 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.notification n SET leased_until = $2, "
	    "  lease_owner = tmtp.this_worker(), attempts = n.attempts + 1 "
	    "  FROM pick WHERE n.notification_id = pick.notification_id RETURNING n.*) "
	    "SELECT c.notification_id, s.address, c.channel, c.recipient, c.digest, c.size, c.date_s, "
	    " c.expires_at, c.uris, c.signing_key, c.signature, c.attempts::int4 "
	    "FROM claimed c JOIN tmtp.sender s ON s.sender_id = c.sender_id ORDER BY c.notification_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_UUID, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_pickup_claim,
	.rows = rows_pickup_claim,
};

void
store_pickup_claim(struct store *store, struct pickup_claim *claim)
{
	claim->job.op = &pickup_claim_run;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

void
pickup_clear(struct pickup *p)
{
	free(p->sender);
	free(p->channel);
	free(p->recipient);
	free(p->uris);
	free(p->key);
	free(p->signature);
	*p = (struct pickup){ .sender = NULL };
}

void
pickup_claim_clear(struct pickup_claim *claim)
{
	for (size_t i = 0; i < claim->rows_n; i++)
		pickup_clear(&claim->rows[i]);
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

static void
bind_pickup_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct pickup_finish *f = (const struct pickup_finish *)jobs[i];
		bool verified = f->end == PICKUP_VERIFIED;

		args_i32(a, 0, (int)i);
		args_uuid(a, 1, &f->notification_id);
		args_i32(a, 2, (int32_t)f->end);
		args_time(a, 3, verified ? f->now_us : -1);
		if (verified)
			args_slice(a, 4, f->body);
		else
			args_null(a, 4);
		args_text(a, 5, verified ? NULL : f->reason);
		args_time(a, 6, f->end == PICKUP_AGAIN ? f->not_before_us : -1);
		if (verified && f->only_name.len > 0) {
			args_slice(a, 7, f->only_domain);
			args_slice(a, 8, f->only_name);
		} else {
			args_null(a, 7);
			args_null(a, 8);
		}
	}
}

static size_t
octets_pickup_finish(const struct store_job *job)
{
	return ((const struct pickup_finish *)job)->body.len;
}

static void
rows_pickup_finish(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct pickup_finish *f = (struct pickup_finish *)jobs[row_i32(r, row, 0)];

		f->only_account = row_i64(r, row, 1);
		f->job.rc = STORE_OK;
	}
}

/*
 * Repeatable: a notification that is no longer to be picked up stays as it is,
 * and its job is told so. A message to a member who isn't here has failed.
 */
static const struct store_op pickup_finish_run = {
	.name = "pickup_finish",
	.sql =
	    "UPDATE tmtp.notification n SET state = CASE WHEN i.only = -1 THEN 2 ELSE i.state END, "
	    " verified_at = i.verified_at, body = CASE WHEN i.only = -1 THEN NULL ELSE i.body END, "
	    " reason = CASE WHEN i.only = -1 THEN 'to' ELSE i.reason END, "
	    " only_account = nullif(i.only, 0), not_before = i.not_before, leased_until = NULL "
	    "FROM (SELECT u.*, CASE WHEN u.only_name IS NULL THEN 0 ELSE coalesce((SELECT a.account_id "
	    "  FROM tmtp.account a WHERE a.domain = u.only_domain AND a.name = u.only_name), -1) END AS only "
	    " FROM unnest($1::int4[], $2::uuid[], $3::int4[], $4::timestamptz[], $5::bytea[], $6::text[], "
	    "  $7::timestamptz[], $8::text[], $9::text[]) AS u(ord, notification_id, state, verified_at, body, "
	    "  reason, not_before, only_domain, only_name)) i "
	    /* not "= 0", which would lead the planner to the index of all that is pending */
	    "WHERE n.notification_id = i.notification_id AND n.state < 1 RETURNING i.ord, i.only::int8",
	.types = (const Oid[]){ T_INT4S, T_UUIDS, T_INT4S, T_TIMESTAMPTZS, T_BYTEAS, T_TEXTS,
	                        T_TIMESTAMPTZS, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_ARRIVE,
	.batch_max = 128,
	.repeatable = true,
	.octets = octets_pickup_finish,
	.bind = bind_pickup_finish,
	.rows = rows_pickup_finish,
};

void
store_pickup_finish(struct store *store, struct pickup_finish *finish)
{
	finish->job.op = &pickup_finish_run;
	store_submit(store, &finish->job);
}

/* --- Who is to be told ---------------------------------------------------- */

static void
bind_holders(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_holders *h = (const struct arrival_holders *)jobs[0];

	(void)n;
	args_uuid(a, 0, &h->notification_id);
	for (size_t i = 0; i < h->ask_n; i++)
		args_i64(a, 1, h->ask[i]);
}

static void
rows_holders(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_holders *h = (struct arrival_holders *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	arrival_holders_clear(h);
	h->accounts = calloc((size_t)count + 1, sizeof(*h->accounts));
	if (h->accounts == NULL) {
		h->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++)
		h->accounts[row] = row_i64(r, row, 0);
	h->accounts_n = (size_t)count;
}

static const struct store_op holders_get = {
	.name = "arrival_holders",
	.sql = "SELECT i.account_id FROM unnest($2::int8[]) AS ask(account_id) "
	       "JOIN tmtp.inbox i ON i.account_id = ask.account_id AND i.notification_id = $1 "
	       "WHERE i.dropped_at IS NULL",
	.types = (const Oid[]){ T_UUID, T_INT8S, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_holders,
	.rows = rows_holders,
};

void
store_arrival_holders(struct store *store, struct arrival_holders *holders)
{
	holders->job.op = &holders_get;
	holders->accounts = NULL;
	holders->accounts_n = 0;
	store_submit(store, &holders->job);
}

void
arrival_holders_clear(struct arrival_holders *holders)
{
	free(holders->accounts);
	holders->accounts = NULL;
	holders->accounts_n = 0;
}

/* --- CHANNELS ------------------------------------------------------------- */

static void
bind_channels(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct channels_get *c = (const struct channels_get *)jobs[0];

	(void)n;
	args_slice(a, 0, c->from);
	for (size_t i = 0; i < c->users_n; i++) {
		const uint8_t *at = memrchr(c->users[i].data, '@', c->users[i].len);
		size_t local = at == NULL ? 0 : (size_t)(at - c->users[i].data);

		args_slice(a, 1, slice_mem(c->users[i].data, local));
		args_slice(a, 2,
		           at == NULL ? (struct slice){ NULL, 0 }
		                      : slice_mem(at + 1, c->users[i].len - local - 1));
	}
}

static void
rows_channels(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct channels_get *c = (struct channels_get *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	channels_get_clear(c);
	c->rows = calloc((size_t)count + 1, sizeof(*c->rows));
	if (c->rows == NULL) {
		c->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		struct slice grant = row_slice(r, row, 2);

		c->rows[row].address = row_text(r, row, 0);
		c->rows[row].channel = row_text(r, row, 1);
		if (grant.len == sizeof(c->rows[row].grant))
			memcpy(c->rows[row].grant, grant.data, grant.len);
	}
	c->rows_n = (size_t)count;
}

static const struct store_op channels_run = {
	.name = "channels_get",
	.sql =
	    "SELECT a.name || '@' || a.domain, c.channel, c.grant_id "
	    "FROM unnest($2::text[], $3::text[]) AS u(name, domain) "
	    "JOIN tmtp.account a ON a.domain = u.domain AND a.name = u.name AND a.disabled_at IS NULL "
	    "JOIN tmtp.consent c ON c.account_id = a.account_id AND c.state = 1 "
	    " AND c.sender_id = (SELECT sender_id FROM tmtp.sender WHERE address = $1) "
	    "ORDER BY 1, 2",
	.types = (const Oid[]){ T_TEXT, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_channels,
	.rows = rows_channels,
};

void
store_channels_get(struct store *store, struct channels_get *get)
{
	get->job.op = &channels_run;
	get->rows = NULL;
	get->rows_n = 0;
	store_submit(store, &get->job);
}

void
channels_get_clear(struct channels_get *get)
{
	for (size_t i = 0; i < get->rows_n; i++) {
		free(get->rows[i].address);
		free(get->rows[i].channel);
	}
	free(get->rows);
	get->rows = NULL;
	get->rows_n = 0;
}

static void
bind_since(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct channels_since *s = (const struct channels_since *)jobs[0];
	struct uuid before = uuid_floor(s->before_us);

	(void)n;
	args_slice(a, 0, s->from);
	args_uuid(a, 1, &s->since);
	args_i64(a, 2, s->limit);
	if (s->before_us > 0)
		args_uuid(a, 3, &before);
}

static void
rows_since(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct channels_since *s = (struct channels_since *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	channels_since_clear(s);
	s->rows = calloc((size_t)count + 1, sizeof(*s->rows));
	if (s->rows == NULL) {
		s->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		struct consent_event *e = &s->rows[row];
		struct slice grant = row_slice(r, row, 3);

		e->address = row_text(r, row, 0);
		e->channel = row_text(r, row, 1);
		e->state = row_i32(r, row, 2);
		e->has_grant = grant.len == sizeof(e->grant);
		if (e->has_grant)
			memcpy(e->grant, grant.data, grant.len);
		e->receipts = row_bool(r, row, 4);
		e->date_s = row_i64(r, row, 5);
		e->changed_id = row_uuid(r, row, 6);
		e->presence = row_bool(r, row, 7);
	}
	s->rows_n = (size_t)count;
}

static const struct store_op since_run = {
	.name = "channels_since",
	.sql =
	    "SELECT a.name || '@' || a.domain, c.channel, c.state::int4, c.grant_id, c.receipts, "
	    " c.grant_date, c.changed_id, c.presence "
	    "FROM tmtp.sender s JOIN tmtp.consent c ON c.sender_id = s.sender_id AND c.state > 0 "
	    " AND c.changed_id > $2 "
	    "JOIN tmtp.account a ON a.account_id = c.account_id "
	    "WHERE s.address = $1 AND ($4::uuid IS NULL OR c.changed_id < $4) "
	    "ORDER BY c.changed_id LIMIT $3",
	.types = (const Oid[]){ T_TEXT, T_UUID, T_INT8, T_UUID, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_since,
	.rows = rows_since,
};

void
store_channels_since(struct store *store, struct channels_since *since)
{
	since->job.op = &since_run;
	since->rows = NULL;
	since->rows_n = 0;
	store_submit(store, &since->job);
}

void
channels_since_clear(struct channels_since *since)
{
	for (size_t i = 0; i < since->rows_n; i++) {
		free(since->rows[i].address);
		free(since->rows[i].channel);
	}
	free(since->rows);
	since->rows = NULL;
	since->rows_n = 0;
}
