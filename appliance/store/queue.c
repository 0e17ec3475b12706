/*
 * The sending queue: see queue.h. A batch waits while its state is 0; a lease
 * keeps it from other workers until it ends or runs out. The partial index on
 * waiting batches is walked by (site, domain), so that a dead domain with a
 * million batches costs one step.
 */
#include "store/queue.h"

#include "store/op.h"
#include "store/pushes.h"
#include "store/rows.h"

#include <stdlib.h>

/* --- Pairs --------------------------------------------------------------- */

static void
bind_pairs(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_pairs *p = (const struct queue_pairs *)jobs[0];

	(void)n;
	args_i64(a, 0, p->after.site_id);
	args_i64(a, 1, p->after.domain_id);
	args_uuid(a, 2, &p->oldest);
	args_i64(a, 3, p->limit);
	args_time(a, 4, p->now_us);
}

static void
rows_pairs(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct queue_pairs *p = (struct queue_pairs *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	queue_pairs_clear(p);
	p->rows = calloc((size_t)count + 1, sizeof(*p->rows));
	if (p->rows == NULL)
		return;
	for (int row = 0; row < count; row++)
		p->rows[row] = (struct queue_pair){ row_i64(r, row, 0), row_i64(r, row, 1) };
	p->rows_n = (size_t)count;
}

/*
 * A loose index scan: one probe a pair, however many batches it has. What
 * waits for a peer that may not be sent to now costs the probe and no more.
 */
static const struct store_op pairs_get = {
	.name = "queue_pairs",
	.sql =
	    "WITH RECURSIVE pair AS ( "
	    " (SELECT site_id, domain_id FROM tmtp.batch WHERE state = 0 AND message_id >= $3 "
	    "  AND (site_id, domain_id) > ($1, $2) ORDER BY site_id, domain_id LIMIT 1) "
	    " UNION ALL "
	    " SELECT n.site_id, n.domain_id FROM pair p CROSS JOIN LATERAL "
	    "  (SELECT b.site_id, b.domain_id FROM tmtp.batch b "
	    "   WHERE b.state = 0 AND b.message_id >= $3 "
	    "   AND (b.site_id, b.domain_id) > (p.site_id, p.domain_id) "
	    "   ORDER BY b.site_id, b.domain_id LIMIT 1) n) "
	    "SELECT site_id, domain_id FROM pair WHERE NOT EXISTS (SELECT FROM tmtp.peer k "
	    " WHERE k.domain_id = pair.domain_id AND (k.held OR k.retry_at > $5)) LIMIT $4",
	.types = (const Oid[]){ T_INT8, T_INT8, T_UUID, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_pairs,
	.rows = rows_pairs,
};

void
store_queue_pairs(struct store *store, struct queue_pairs *p)
{
	p->job.op = &pairs_get;
	store_submit(store, &p->job);
}

void
queue_pairs_clear(struct queue_pairs *p)
{
	free(p->rows);
	p->rows = NULL;
	p->rows_n = 0;
}

/* --- Names --------------------------------------------------------------- */

static void
bind_names(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct queue_names *q = (const struct queue_names *)jobs[i];

		args_i32(a, 0, (int)i);
		args_i64(a, 1, q->pair.site_id);
		args_i64(a, 2, q->pair.domain_id);
	}
}

static void
copy_text(char *to, size_t size, struct slice from)
{
	size_t n = from.len < size ? from.len : size - 1;

	if (n > 0)
		memcpy(to, from.data, n);
	to[n] = '\0';
}

static void
rows_names(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct queue_names *q = (struct queue_names *)jobs[row_i32(r, row, 0)];

		copy_text(q->site_name, sizeof(q->site_name), row_slice(r, row, 1));
		copy_text(q->site_domain, sizeof(q->site_domain), row_slice(r, row, 2));
		copy_text(q->domain, sizeof(q->domain), row_slice(r, row, 3));
		q->suspended = row_bool(r, row, 4);
		q->person = row_bool(r, row, 5);
		q->job.rc = STORE_OK;
	}
}

static const struct store_op names_get = {
	.name = "queue_names",
	.sql = "SELECT i.ord, s.name, s.domain, d.name, s.suspended_at IS NOT NULL, s.kind = 1 "
	       "FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS i(ord, site_id, domain_id) "
	       "JOIN tmtp.site s ON s.site_id = i.site_id "
	       "JOIN tmtp.domain d ON d.domain_id = i.domain_id",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_INT8S, 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_names,
	.rows = rows_names,
};

void
store_queue_names(struct store *store, struct queue_names *names)
{
	names->job.op = &names_get;
	store_submit(store, &names->job);
}

/* --- Claiming ------------------------------------------------------------ */

void
queue_batch_free(struct queue_batch **batch)
{
	struct queue_batch *b = *batch;

	if (b == NULL)
		return;
	free(b->first_member);
	free(b->next_member);
	free(b->members);
	free(b->memory);
	free(b);
	*batch = NULL;
}

static void
bind_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct queue_claim *c = (const struct queue_claim *)jobs[i];

		args_i32(a, 0, (int)i);
		args_i64(a, 1, c->pair.site_id);
		args_i64(a, 2, c->pair.domain_id);
		args_i64(a, 3, c->want);
	}
	/* The same for all that one process claims at once. */
	args_uuid(a, 4, &((const struct queue_claim *)jobs[0])->owner);
	args_uuid(a, 5, &((const struct queue_claim *)jobs[0])->oldest);
	args_time(a, 6, ((const struct queue_claim *)jobs[0])->now_us);
	args_time(a, 7, ((const struct queue_claim *)jobs[0])->lease_until_us);
}

struct member_fill {
	struct queue_batch *batch;
	size_t at;
};

static void
fill_member(size_t i, struct slice v, void *arg)
{
	struct member_fill *f = arg;

	memcpy(f->batch->memory + f->at, v.data, v.len);
	f->batch->members[i].member = slice_mem(f->batch->memory + f->at, v.len);
	f->at += v.len;
}

static void
fill_grant(size_t i, struct slice v, void *arg)
{
	struct member_fill *f = arg;

	struct queue_member *m = &f->batch->members[i];

	if (i >= f->batch->members_n)
		return;
	m->state = v.len == sizeof(m->grant) ? QUEUE_HOLDS
	           : v.len == 1              ? QUEUE_INVITED
	                                     : QUEUE_LEFT;
	if (m->state == QUEUE_HOLDS)
		memcpy(m->grant, v.data, v.len);
}

static void
count_member(size_t i, struct slice v, void *arg)
{
	size_t *octets = arg;

	(void)i;
	*octets += v.len;
}

static void
fill_vars(size_t i, struct slice v, void *arg)
{
	struct member_fill *f = arg;

	if (i >= f->batch->members_n || v.len == 0)
		return;
	memcpy(f->batch->memory + f->at, v.data, v.len);
	f->batch->members[i].vars = slice_mem(f->batch->memory + f->at, v.len);
	f->at += v.len;
}

static bool
read_members(struct queue_batch *b, const PGresult *r, int row, int members, int grants,
             int vars)
{
	struct member_fill fill = { .batch = b };
	size_t octets = 0;

	b->members_n = row_array(r, row, members, count_member, &octets);
	(void)row_array(r, row, vars, count_member, &octets);
	b->members = calloc(b->members_n + 1, sizeof(*b->members));
	b->memory = malloc(octets + 1);
	if (b->members == NULL || b->memory == NULL)
		return false;
	(void)row_array(r, row, members, fill_member, &fill);
	(void)row_array(r, row, grants, fill_grant, &fill);
	(void)row_array(r, row, vars, fill_vars, &fill);
	return true;
}

static struct queue_batch *
read_batch(const PGresult *r, int row)
{
	struct queue_batch *b = calloc(1, sizeof(*b));
	struct slice digest = row_slice(r, row, 14);

	if (b == NULL)
		return NULL;
	b->site_id = row_i64(r, row, 1);
	b->domain_id = row_i64(r, row, 2);
	b->message_id = row_uuid(r, row, 3);
	b->batch_no = row_i32(r, row, 4);
	b->channel_id = row_i64(r, row, 5);
	b->lane = row_i32(r, row, 6);
	b->attempts = row_i32(r, row, 7);
	b->recipients = row_i32(r, row, 8);
	b->is_range = row_bool(r, row, 9);
	b->first_member = row_text(r, row, 10);
	b->next_member = row_text(r, row, 11);
	copy_text(b->channel, sizeof(b->channel), row_slice(r, row, 12));
	b->audience = row_i32(r, row, 13);
	if (digest.len == sizeof(b->digest))
		memcpy(b->digest, digest.data, digest.len);
	b->size = row_i32(r, row, 15);
	b->date_s = row_i64(r, row, 16);
	b->accepted_us = row_time(r, row, 17);
	b->expires_us = row_time(r, row, 18);
	b->recalled = row_bool(r, row, 19);
	b->lost_alone = row_i32(r, row, 22);
	b->revived_us = row_time(r, row, 23);
	b->is_recall = !row_is_null(r, row, 24);
	b->is_replacement = !b->is_recall && !row_is_null(r, row, 25);
	b->earlier = row_uuid(r, row, b->is_recall ? 24 : 25);
	b->audience_us = row_time(r, row, 26);
	b->tried = row_bool(r, row, 27);
	if (!b->is_range && !read_members(b, r, row, 20, 21, 28))
		queue_batch_free(&b);
	return b;
}

static void
claim_clear(struct queue_claim *c)
{
	while (c->batches != NULL) {
		struct queue_batch *next = c->batches->next;

		queue_batch_free(&c->batches);
		c->batches = next;
	}
	c->batches_n = 0;
}

/* Rows come in the order to be sent. A row that memory is short for stays leased and comes again. */
static void
rows_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		claim_clear((struct queue_claim *)jobs[i]);
	for (int row = PQntuples(r) - 1; row >= 0; row--) {
		struct queue_claim *c = (struct queue_claim *)jobs[row_i32(r, row, 0)];
		struct queue_batch *b = read_batch(r, row);

		if (b == NULL)
			continue;
		b->next = c->batches;
		c->batches = b;
		c->batches_n++;
	}
}

/* A pair that another live worker holds leases of is left to it: order is kept within a pair. */
static const struct store_op claim_run = {
	.name = "queue_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT p.ord, b.site_id, b.message_id, b.batch_no, b.tried "
	    " FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[]) AS p(ord, site_id, domain_id, want) "
	    " CROSS JOIN LATERAL (SELECT w.site_id, w.message_id, w.batch_no, w.tried FROM tmtp.batch w "
	    "  WHERE w.site_id = p.site_id AND w.domain_id = p.domain_id AND w.state = 0 "
	    "  AND w.message_id >= $6 "
	    "  AND (w.leased_until IS NULL OR w.leased_until < $7) "
	    "  AND (w.not_before IS NULL OR w.not_before <= $7) "
	    "  ORDER BY w.lane, w.message_id, w.batch_no LIMIT p.want FOR UPDATE SKIP LOCKED) b), "
	    "claimed AS (UPDATE tmtp.batch b SET leased_until = $8, lease_owner = $5, "
	    "  attempts = b.attempts + 1, tried = true FROM pick "
	    " WHERE b.site_id = pick.site_id AND b.message_id = pick.message_id AND b.batch_no = pick.batch_no "
	    " RETURNING pick.ord, b.site_id, b.domain_id, b.message_id, b.batch_no, b.channel_id, b.lane, "
	    "  b.attempts, b.recipients, b.members, b.first_member, b.next_member, b.lost_alone, b.revived_at, pick.tried AS was_tried) "
	    "SELECT c.ord, c.site_id, c.domain_id, c.message_id, c.batch_no, c.channel_id, c.lane::int4, "
	    " c.attempts::int4, c.recipients, c.members IS NULL, c.first_member, c.next_member, ch.name, "
	    " m.audience::int4, m.digest, m.size, m.date_s, m.accepted_at, m.expires_at, "
	    " m.recalled_at IS NOT NULL, held.members, held.grants, c.lost_alone::int4, c.revived_at, m.recalls, m.replaces, "
	    /* a recall is for those who were meant then */
	    " CASE WHEN m.recalls IS NULL THEN m.accepted_at ELSE coalesce((SELECT k.accepted_at "
	    "  FROM tmtp.message k WHERE k.site_id = c.site_id AND k.message_id = m.recalls), m.accepted_at) END, "
	    " c.was_tried, CASE WHEN m.has_values THEN held.vars END "
	    "FROM claimed c "
	    "CROSS JOIN LATERAL (SELECT k.* FROM tmtp.message k WHERE k.site_id = c.site_id "
	    " AND k.message_id = c.message_id LIMIT 1) m "
	    "CROSS JOIN LATERAL (SELECT k.name FROM tmtp.channel k WHERE k.site_id = c.site_id "
	    " AND k.channel_id = c.channel_id LIMIT 1) ch "
	    "LEFT JOIN LATERAL (SELECT array_agg(x.member) AS members, "
	    "  array_agg(CASE s.state WHEN 1 THEN coalesce(s.grant_id, ''::bytea) WHEN 0 THEN '\\x00'::bytea "
	    "   ELSE ''::bytea END) AS grants, array_agg(coalesce(v.variables, ''::bytea)) AS vars "
	    "  FROM unnest(c.members) AS x(member) "
	    "  LEFT JOIN LATERAL (SELECT k.state, k.grant_id FROM tmtp.subscription k "
	    "   WHERE k.site_id = c.site_id AND k.channel_id = c.channel_id "
	    "   AND k.domain_id = c.domain_id AND k.member = x.member LIMIT 1) s ON true "
	    "  LEFT JOIN LATERAL (SELECT k.variables FROM tmtp.recipient_values k WHERE m.has_values "
	    "   AND k.site_id = c.site_id AND k.message_id = c.message_id AND k.domain_id = c.domain_id "
	    "   AND k.member = x.member LIMIT 1) v ON true) held ON c.members IS NOT NULL "
	    "ORDER BY c.ord, c.lane, c.message_id, c.batch_no",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_INT8S, T_INT8S, T_UUID, T_UUID,
	                        T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.batch_max = 64,
	.bind = bind_claim,
	.rows = rows_claim,
};

void
store_queue_claim(struct store *store, struct queue_claim *c)
{
	c->job.op = &claim_run;
	c->batches = NULL;
	c->batches_n = 0;
	store_submit(store, &c->job);
}

/* --- A range's recipients ------------------------------------------------ */

static void
bind_range(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_range *q = (const struct queue_range *)jobs[0];
	const struct queue_batch *b = q->batch;

	(void)n;
	args_i64(a, 0, b->site_id);
	args_i64(a, 1, b->channel_id);
	args_i64(a, 2, b->domain_id);
	if (q->after.len > 0)
		args_slice(a, 3, q->after);
	else
		args_text(a, 3, b->first_member);
	args_bool(a, 4, q->after.len > 0);
	args_text(a, 5, b->next_member);
	args_time(a, 6, b->audience_us);
	args_i64(a, 7, q->limit);
}

static void
rows_range(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct queue_range *q = (struct queue_range *)jobs[0];
	size_t count = (size_t)PQntuples(r), octets = 0, at = 0;

	(void)n;
	queue_range_clear(q);
	for (size_t i = 0; i < count; i++)
		octets += (size_t)PQgetlength(r, (int)i, 0);
	q->members = calloc(count + 1, sizeof(*q->members));
	q->memory = malloc(octets + 1);
	if (q->members == NULL || q->memory == NULL) {
		queue_range_clear(q);
		q->job.rc = STORE_DOWN;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct slice member = row_slice(r, (int)i, 0), grant = row_slice(r, (int)i, 1);

		memcpy(q->memory + at, member.data, member.len);
		q->members[i].member = slice_mem(q->memory + at, member.len);
		at += member.len;
		q->members[i].state = QUEUE_HOLDS;
		if (grant.len == sizeof(q->members[i].grant))
			memcpy(q->members[i].grant, grant.data, grant.len);
	}
	q->members_n = count;
}

static const struct store_op range_get = {
	.name = "queue_range",
	.sql =
	    "SELECT member, grant_id FROM tmtp.subscription "
	    "WHERE site_id = $1 AND channel_id = $2 AND domain_id = $3 "
	    "AND member >= $4 AND (NOT $5 OR member <> $4) AND member < coalesce($6, " SQL_MEMBER_LAST
	    ") "
	    "AND state = 1 AND joined_at <= $7 "
	    "ORDER BY member LIMIT $8",
	.types = (const Oid[]){ T_INT8, T_INT8, T_INT8, T_TEXT, T_BOOL, T_TEXT, T_TIMESTAMPTZ,
	                        T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_range,
	.rows = rows_range,
};

void
store_queue_range(struct store *store, struct queue_range *range)
{
	range->job.op = &range_get;
	store_submit(store, &range->job);
}

void
queue_range_clear(struct queue_range *range)
{
	free(range->members);
	free(range->memory);
	range->members = NULL;
	range->memory = NULL;
	range->members_n = 0;
}

/* --- The end of a batch --------------------------------------------------
 *
 * A batch with a lease waits: so the owner is asked for and not the state,
 * which would lead the planner to the index of all that waits.
 */

static void
bind_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct queue_finish *f = (const struct queue_finish *)jobs[i];
		static const int states[] = {
			[QUEUE_DONE] = 1, [QUEUE_DEAD] = 2, [QUEUE_RECALLED] = 5
		};
		bool done = f->end == QUEUE_DONE, ended = f->end != QUEUE_RELEASE;

		args_i32(a, 0, (int)i);
		args_i64(a, 1, f->site_id);
		args_uuid(a, 2, &f->message_id);
		args_i32(a, 3, f->batch_no);
		args_i32(a, 4, states[f->end]);
		if (done)
			args_i32(a, 5, f->recipients);
		else
			args_null(a, 5);
		args_time(a, 6, f->end == QUEUE_RELEASE ? f->not_before_us : -1);
		args_time(a, 7, ended ? f->now_us : -1);
		args_text(a, 8, f->reason);
		args_i32(a, 9, f->end == QUEUE_RELEASE && f->uncounted ? 1 : 0);
	}
	args_uuid(a, 10, &((const struct queue_finish *)jobs[0])->owner);
}

static void
bind_plain(struct args *a, struct store_job *const *jobs, size_t n)
{
	bind_finish(a, jobs, n);
	for (size_t i = 0; i < n; i++) {
		const struct queue_finish *f = (const struct queue_finish *)jobs[i];

		args_i32(a, 11, f->end == QUEUE_RELEASE && f->alone ? 1 : 0);
		args_bool(a, 12, f->end != QUEUE_RELEASE || f->tried);
	}
}

static void
rows_finish(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc =
		    STORE_NOT_FOUND; /* the lease was lost, or an administrator was faster */
	for (int row = 0; row < PQntuples(r); row++)
		jobs[row_i32(r, row, 0)]->rc = STORE_OK;
}

static const struct store_op finish_plain = {
	.name = "queue_finish",
	.sql =
	    "UPDATE tmtp.batch b SET state = i.state, recipients = coalesce(i.recipients, b.recipients), "
	    " not_before = i.not_before, done_at = i.done_at, reason = i.reason, "
	    " attempts = b.attempts - i.uncount, lost_alone = b.lost_alone + i.alone, "
	    " tried = i.tried, "
	    " leased_until = NULL, lease_owner = NULL "
	    "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[], $5::int4[], $6::int4[], "
	    " $7::timestamptz[], $8::timestamptz[], $9::text[], $10::int4[], $12::int4[], $13::bool[]) "
	    " AS i(ord, site_id, message_id, batch_no, state, recipients, not_before, done_at, reason, "
	    " uncount, alone, tried) "
	    "WHERE b.site_id = i.site_id AND b.message_id = i.message_id AND b.batch_no = i.batch_no "
	    " AND b.lease_owner = $11 "
	    "RETURNING i.ord",
	.types =
	    (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_INT4S, T_INT4S, T_INT4S, T_TIMESTAMPTZS,
	                   T_TIMESTAMPTZS, T_TEXTS, T_INT4S, T_UUID, T_INT4S, T_BOOLS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.repeatable = true, /* the second time finds no lease and changes nothing */
	.bind = bind_plain,
	.rows = rows_finish,
};

static void
bind_exceptions(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_finish *f = (const struct queue_finish *)jobs[0];
	int temporary = 0;

	bind_finish(a, jobs, n);
	for (size_t i = 0; i < f->failures_n; i++) {
		args_slice(a, 11, f->failures[i].member);
		args_slice(a, 12, f->failures[i].code);
		args_bool(a, 13, f->failures[i].temporary);
		temporary += f->failures[i].temporary;
	}
	args_i64(a, 14, f->channel_id);
	args_i64(a, 15, f->domain_id);
	args_i32(a, 16, f->lane);
	args_time(a, 17, f->now_us);
	args_time(a, 18, f->not_before_us);
	args_i32(a, 19, f->recipients - temporary);
}

/* The batch is done but for these: the refused ones are failures, the put-off ones a batch of their own. */
static const struct store_op finish_exceptions = {
	.name = "queue_finish_exceptions",
	.sql =
	    "WITH done AS (UPDATE tmtp.batch b SET state = 1, recipients = $20, done_at = $18, "
	    "  reason = NULL, leased_until = NULL, lease_owner = NULL "
	    " FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[], $5::int4[], $6::int4[], "
	    "  $7::timestamptz[], $8::timestamptz[], $9::text[], $10::int4[]) "
	    "  AS i(ord, site_id, message_id, batch_no, state, recipients, not_before, done_at, reason, uncount) "
	    " WHERE b.site_id = i.site_id AND b.message_id = i.message_id AND b.batch_no = i.batch_no "
	    "  AND b.lease_owner = $11 "
	    " RETURNING i.ord, b.site_id, b.message_id, b.batch_no), "
	    "failed AS (INSERT INTO tmtp.failure (site_id, message_id, domain_id, member, code, failed_at) "
	    " SELECT d.site_id, d.message_id, $16, x.member, x.code, $18 "
	    " FROM done d CROSS JOIN unnest($12::text[], $13::text[], $14::bool[]) AS x(member, code, temporary) "
	    " WHERE NOT x.temporary ON CONFLICT DO NOTHING), "
	    "again AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, lane, "
	    "  members, recipients, attempts, not_before) "
	    " SELECT d.site_id, d.message_id, d.batch_no + 1000000, "
	    "  $15, $16, $17, array_agg(x.member), count(*), 0, $19 "
	    " FROM done d CROSS JOIN unnest($12::text[], $13::text[], $14::bool[]) AS x(member, code, temporary) "
	    " WHERE x.temporary GROUP BY d.site_id, d.message_id, d.batch_no) "
	    "SELECT ord FROM done",
	.types = (const Oid[]){ T_INT4S, T_INT8S,        T_UUIDS,        T_INT4S,       T_INT4S,
	                        T_INT4S, T_TIMESTAMPTZS, T_TIMESTAMPTZS, T_TEXTS,       T_INT4S,
	                        T_UUID,  T_TEXTS,        T_TEXTS,        T_BOOLS,       T_INT8,
	                        T_INT8,  T_INT4,         T_TIMESTAMPTZ,  T_TIMESTAMPTZ, T_INT4,
	                        0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_exceptions,
	.rows = rows_finish,
};

void
store_queue_finish(struct store *store, struct queue_finish *f)
{
	f->job.op =
	    f->end == QUEUE_DONE && f->failures_n > 0 ? &finish_exceptions : &finish_plain;
	store_submit(store, &f->job);
}
