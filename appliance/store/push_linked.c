/*
 * Pushes that are more than a message for somebody: those whose recipients have
 * values of their own, and those that take an earlier message's place. One a
 * statement, so that the others stay as fast as they are.
 */
#include "store/pushes.h"

#include "store/rows.h"

/* Looks by the whole key, as in pushes.c. */
#define LOOK(as, from_where) "LATERAL (SELECT k.* FROM " from_where " LIMIT 1) " as " "

static void
bind_rcpts(struct args *a, unsigned at, const struct push_rcpt *rcpts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		args_i32(a, at, (int32_t)i);
		args_slice(a, at + 1, rcpts[i].domain);
		args_slice(a, at + 2, rcpts[i].member);
	}
}

/* --- Which message, and when ------------------------------------------------ */

static void
bind_replacing(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct push_replacing *p = (const struct push_replacing *)jobs[0];

	(void)n;
	args_i64(a, 0, p->site_id);
	args_i64(a, 1, p->channel_id);
	args_uuid(a, 2, &p->earlier);
	args_bool(a, 3, p->to_channel);
	args_i64(a, 4, p->now_s);
	bind_rcpts(a, 5, p->rcpts, p->rcpts_n);
	args_i64(a, 8, p->now_s + PUSH_AHEAD_MAX_S);
}

/* Rows: first_id, fits, date or NULL, and an index that was no recipient or NULL. */
static void
rows_replacing(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct push_replacing *p = (struct push_replacing *)jobs[0];

	(void)n;
	if (PQntuples(r) == 0) {
		p->job.rc = STORE_NOT_FOUND;
		return;
	}
	p->first_id = row_uuid(r, 0, 0);
	p->fits = row_bool(r, 0, 1);
	p->date_s = row_is_null(r, 0, 2) ? -1 : row_i64(r, 0, 2);
	for (size_t i = 0; i < p->rcpts_n; i++)
		p->rcpts[i].holds = true;
	for (int row = 0; row < PQntuples(r); row++) {
		size_t index = (size_t)row_i32(r, row, 3);

		if (!row_is_null(r, row, 3) && index < p->rcpts_n)
			p->rcpts[index].holds = false;
	}
}

/*
 * A date is taken once and grows, so whichever of two pushes comes second is
 * the newer one everywhere. Run again after a lost answer it takes another.
 */
static const struct store_op replacing_run = {
	.name = "push_replacing",
	.sql =
	    "WITH e AS MATERIALIZED (SELECT message_id, coalesce(replaces, message_id) AS first_id, "
	    "  audience, date_s FROM tmtp.message WHERE site_id = $1 AND message_id = $3 "
	    "  AND channel_id = $2 AND recalls IS NULL AND audience <> 3), "
	    "bad AS MATERIALIZED (SELECT r.idx FROM e "
	    " CROSS JOIN unnest($6::int4[], $7::text[], $8::text[]) AS r(idx, domain, member) "
	    " WHERE NOT EXISTS (SELECT FROM tmtp.domain d JOIN tmtp.batch b ON b.site_id = $1 "
	    "  AND b.message_id = e.message_id AND b.batch_no < 1000000 AND b.domain_id = d.domain_id "
	    "  WHERE d.name = r.domain AND r.member = ANY (b.members))), "
	    "fits AS MATERIALIZED (SELECT * FROM e WHERE (audience = 2) = $4 AND NOT EXISTS (SELECT FROM bad)), "
	    "taken AS (INSERT INTO tmtp.replacement AS r (site_id, first_id, last_date_s) "
	    " SELECT $1, first_id, greatest($5, date_s + 1) FROM fits "
	    " ON CONFLICT (site_id, first_id) DO UPDATE "
	    "  SET last_date_s = greatest(r.last_date_s + 1, EXCLUDED.last_date_s) "
	    "  WHERE r.last_date_s < $9 RETURNING last_date_s) "
	    "SELECT e.first_id, EXISTS (SELECT FROM fits), (SELECT last_date_s FROM taken), bad.idx "
	    "FROM e LEFT JOIN bad ON true",
	.types = (const Oid[]){ T_INT8, T_INT8, T_UUID, T_BOOL, T_INT8, T_INT4S, T_TEXTS,
	                        T_TEXTS, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_replacing,
	.rows = rows_replacing,
};

void
store_push_replacing(struct store *store, struct push_replacing *replacing)
{
	replacing->job.op = &replacing_run;
	store_submit(store, &replacing->job);
}

/* --- The push ---------------------------------------------------------------- */

static void
bind_linked(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct push *p = (const struct push *)jobs[0];

	(void)n;
	args_i64(a, 0, p->site_id);
	args_i64(a, 1, p->channel_id);
	args_uuid(a, 2, &p->message_id);
	args_i32(a, 3, (int32_t)p->lane);
	args_time(a, 4, p->accepted_us);
	args_i64(a, 5, p->date_s);
	args_time(a, 6, p->expires_us);
	args_slice(a, 7, slice_mem(p->digest, 32));
	args_slice(a, 8, p->body);
	if (p->key.len > 0) {
		args_slice(a, 9, p->key);
		args_slice(a, 10, slice_mem(p->body_hash, sizeof(p->body_hash)));
	}
	args_i32(a, 11, (int32_t)p->audience);
	if (p->is_replacement)
		args_uuid(a, 12, &p->first_id);
	args_bool(a, 13, p->has_values);
	bind_rcpts(a, 14, p->rcpts, p->rcpts_n);
	for (size_t i = 0; i < p->rcpts_n; i++) {
		if (p->rcpts[i].values.len > 0)
			args_slice(a, 17, p->rcpts[i].values);
		else
			args_null(a, 17);
	}
}

/* Rows: stored, and the index of a recipient who holds the channel, or NULL. */
static void
rows_linked(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct push *p = (struct push *)jobs[0];

	(void)n;
	p->outcome = PUSH_NOBODY;
	for (size_t i = 0; i < p->rcpts_n; i++)
		p->rcpts[i].holds = false;
	for (int row = 0; row < PQntuples(r); row++) {
		size_t index = (size_t)row_i32(r, row, 1);

		p->outcome = row_bool(r, row, 0) ? PUSH_STORED : PUSH_KEY_TAKEN;
		if (!row_is_null(r, row, 1) && index < p->rcpts_n)
			p->rcpts[index].holds = true;
	}
}

static size_t
octets_linked(const struct store_job *job)
{
	return ((const struct push *)job)->body.len;
}

/* Run again after a lost answer it finds its message, and leaves all as it is. */
static const struct store_op linked_run = {
	.name = "push_linked",
	/* clang-format off */
	.sql =
	    "WITH looked AS MATERIALIZED (SELECT r.*, d.domain_id, coalesce(s.state = 1, false) AS holds "
	    " FROM unnest($15::int4[], $16::text[], $17::text[], $18::bytea[]) "
	    "  AS r(idx, domain, member, variables) "
	    " LEFT JOIN " LOOK("d", "tmtp.domain k WHERE k.name = r.domain") "ON true "
	    " LEFT JOIN "
	    LOOK("s", "tmtp.subscription k WHERE k.site_id = $1 AND k.channel_id = $2 " "AND k.domain_id = d.domain_id AND k.member = r.member")
	    "ON true), "
	    "wanted AS MATERIALIZED (SELECT 1 AS one WHERE $12 = 2 OR EXISTS (SELECT FROM looked WHERE holds)), "
	    "keyed AS (INSERT INTO tmtp.push_key (site_id, key, body_hash, message_id, created_at) "
	    " SELECT $1, $10, $11, $3, $5 FROM wanted WHERE $10 IS NOT NULL ON CONFLICT DO NOTHING RETURNING 1), "
	    "message AS (INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "
	    "  accepted_at, date_s, expires_at, size, digest, body, rejected, replaces, has_values) "
	    " SELECT $1, $3, $2, $12, $4, $5, $6, $7, octet_length($9), $8, $9, "
	    "  (SELECT array_agg(l.member || '@' || l.domain ORDER BY l.idx) FROM looked l WHERE NOT l.holds), "
	    "  $13, $14 FROM wanted WHERE $10 IS NULL OR EXISTS (SELECT FROM keyed) "
	    " ON CONFLICT DO NOTHING RETURNING message_id), "
	    "list AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, lane, "
	    "  members, recipients) "
	    " SELECT $1, $3, row_number() OVER (ORDER BY l.domain_id), $2, l.domain_id, $4, "
	    "  array_agg(l.member ORDER BY l.member), count(*) "
	    " FROM message CROSS JOIN looked l WHERE l.holds GROUP BY l.domain_id), "
	    "range AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, lane, "
	    "  first_member, next_member, recipients) "
	    " SELECT $1, $3, row_number() OVER (ORDER BY c.domain_id, c.first_member), $2, c.domain_id, $4, "
	    "  c.first_member, c.next_member, c.members "
	    " FROM message CROSS JOIN tmtp.chunk c WHERE $12 = 2 AND c.site_id = $1 AND c.channel_id = $2), "
	    "own AS (INSERT INTO tmtp.recipient_values (site_id, message_id, domain_id, member, variables) "
	    " SELECT $1, $3, l.domain_id, l.member, l.variables FROM message CROSS JOIN looked l "
	    " WHERE l.holds AND l.variables IS NOT NULL) "
	    "SELECT $10 IS NULL OR EXISTS (SELECT FROM keyed), l.idx FROM wanted LEFT JOIN looked l ON l.holds",
	/* clang-format on */
	.types = (const Oid[]){ T_INT8, T_INT8, T_UUID, T_INT4, T_TIMESTAMPTZ, T_INT8,
	                        T_TIMESTAMPTZ, T_BYTEA, T_BYTEA, T_TEXT, T_BYTEA, T_INT4,
	                        T_UUID, T_BOOL, T_INT4S, T_TEXTS, T_TEXTS, T_BYTEAS, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.octets = octets_linked,
	.bind = bind_linked,
	.rows = rows_linked,
};

void
store_push_linked(struct store *store, struct push *push)
{
	push->job.op = &linked_run;
	store_submit(store, &push->job);
}
