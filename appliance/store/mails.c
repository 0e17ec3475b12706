/* Mail: see mails.h. */
#include "store/mails.h"

#include "store/rows.h"

/* A member's account, as a; whether it takes mail, as c. */
#define ACCOUNT_OF(domain, name)                                                              \
	"LEFT JOIN LATERAL (SELECT k.account_id FROM tmtp.account k WHERE k.domain = " domain \
	" AND k.name = " name " AND k.disabled_at IS NULL LIMIT 1) a ON true "                \
	"LEFT JOIN LATERAL (SELECT k.account_id FROM tmtp.mail_channel k "                    \
	" WHERE k.account_id = a.account_id AND k.open LIMIT 1) c ON true "
#define IS_BLOCKED(address)                                                            \
	"EXISTS (SELECT FROM tmtp.mail_block k WHERE k.account_id = a.account_id AND " \
	"k.address = " address ")"

/* --- Asking ------------------------------------------------------------------ */

static void
bind_ask(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct mail_ask *ask = (const struct mail_ask *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_slice(a, 1, ask->domain);
		args_slice(a, 2, ask->name);
		args_slice(a, 3, ask->sender);
	}
}

static void
rows_ask(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((struct mail_ask *)jobs[i])->open = false;
	for (int row = 0; row < PQntuples(r); row++)
		((struct mail_ask *)jobs[row_i32(r, row, 0)])->open = row_bool(r, row, 1);
}

static const struct store_op ask_op = {
	.name = "mail_ask",
	.sql =
	    "SELECT i.ord, c.account_id IS NOT NULL AND NOT " IS_BLOCKED("i.sender") " FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[]) AS i(ord, domain, name, sender) " ACCOUNT_OF(
		"i.domain", "i.name"),
	.types = (const Oid[]){ T_INT4S, T_TEXTS, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.batch_max = 64,
	.repeatable = true,
	.bind = bind_ask,
	.rows = rows_ask,
};

void
store_mail_ask(struct store *store, struct mail_ask *ask)
{
	ask->job.op = &ask_op;
	ask->open = false;
	store_submit(store, &ask->job);
}

/* --- Arriving ---------------------------------------------------------------- */

static void
bind_arrival(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct mail_arrival *m = (const struct mail_arrival *)jobs[0];

	(void)n;
	args_slice(a, 0, m->gateway);
	args_slice(a, 1, m->domain);
	args_slice(a, 2, m->registrable);
	args_slice(a, 3, m->seen);
	args_slice(a, 4, m->digest);
	args_slice(a, 5, m->body);
	args_slice(a, 6, m->sender);
	args_slice(a, 7, m->author);
	args_slice(a, 8, m->mail_sender);
	args_slice(a, 9, m->mail_from);
	args_slice(a, 10, m->mail_address);
	args_i64(a, 11, m->date_s);
	args_time(a, 12, m->now_us);
	args_uuid(a, 13, &m->fresh_id);
	args_i64(a, 14, m->sender_id);
	args_i64(a, 15, m->domain_id);
	for (size_t i = 0; i < m->rcpts_n; i++) {
		args_i32(a, 16, (int32_t)i);
		args_slice(a, 17, m->rcpts[i].name);
	}
	args_i64(a, 18, (int64_t)m->body.len);
}

static size_t
octets_arrival(const struct store_job *job)
{
	return ((const struct mail_arrival *)job)->body.len;
}

static void
rows_arrival(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct mail_arrival *m = (struct mail_arrival *)jobs[0];

	(void)n;
	for (size_t i = 0; i < m->rcpts_n; i++)
		m->rcpts[i].fate = MAIL_CLOSED;
	for (int row = 0; row < PQntuples(r); row++) {
		struct mail_rcpt *rcpt = &m->rcpts[row_i32(r, row, 0)];

		rcpt->fate = (enum mail_fate)row_i32(r, row, 1);
		rcpt->account_id = row_i64(r, row, 2);
		rcpt->added = row_bool(r, row, 3);
		m->notification_id = row_uuid(r, row, 4);
	}
}

/*
 * The gateway's sender is made known with its first mail. Mail of a name that
 * another process has just made known, or the same mail through another
 * process, isn't seen here: the transaction is run again.
 */
static const struct store_op arrival_op = {
	.name = "mail_arrival",
	.sql =
	    "WITH r AS MATERIALIZED (SELECT i.ord, a.account_id, "
	    "  CASE WHEN c.account_id IS NULL OR " IS_BLOCKED(
		"$7") " THEN 1 "
		      "   WHEN " IS_BLOCKED(
			  "$8") " THEN 2 ELSE 0 END AS fate "
				" FROM unnest($17::int4[], $18::text[]) AS i(ord, name) " ACCOUNT_OF(
				    "$2",
				    "i.name") "), "
					      "wanted AS MATERIALIZED (SELECT DISTINCT account_id FROM r WHERE fate = 0), "
					      "seen AS MATERIALIZED (SELECT notification_id FROM tmtp.mail_seen WHERE digest = $4), "
					      "any_wanted AS MATERIALIZED (SELECT FROM wanted LIMIT 1), "
					      "one AS MATERIALIZED (SELECT coalesce((SELECT notification_id FROM seen), $14) AS nid, "
					      "  EXISTS (SELECT FROM any_wanted) AND NOT EXISTS (SELECT FROM seen) AS is_new), "
					      "known_domain AS MATERIALIZED (SELECT domain_id FROM tmtp.domain WHERE name = $2), "
					      "dom AS (INSERT INTO tmtp.domain (domain_id, name, created_at) SELECT $16, $2, $13 "
					      "  FROM any_wanted WHERE NOT EXISTS (SELECT FROM known_domain) ON CONFLICT DO NOTHING RETURNING domain_id), "
					      "known_sender AS MATERIALIZED (SELECT sender_id FROM tmtp.sender WHERE address = $1), "
					      "new_sender AS (INSERT INTO tmtp.sender (sender_id, address, domain_id, registrable, created_at) "
					      "  SELECT $15, $1, d.domain_id, $3, $13 FROM any_wanted "
					      "  CROSS JOIN (SELECT domain_id FROM known_domain UNION ALL SELECT domain_id FROM dom) d "
					      "  WHERE NOT EXISTS (SELECT FROM known_sender) ON CONFLICT DO NOTHING RETURNING sender_id), "
					      "whose AS MATERIALIZED (SELECT sender_id FROM known_sender UNION ALL SELECT sender_id FROM new_sender), "
					      "ms AS (INSERT INTO tmtp.mail_seen (digest, notification_id, kept_until) "
					      "  SELECT $4, nid, $13 + interval '30 days' FROM one WHERE is_new ON CONFLICT DO NOTHING RETURNING 1), "
					      "nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, "
					      "  uris, state, verified_at, body, mail_sender, mail_from, mail_address) "
					      "  SELECT one.nid, whose.sender_id, '" MAIL_CHANNEL
					      "', $5, $19, $12, '', 1, $13, $6, $9, $10, $11 "
					      "  FROM one CROSS JOIN whose WHERE one.is_new), "
					      "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at) "
					      "  SELECT wanted.account_id, one.nid, $13 FROM wanted CROSS JOIN one "
					      "  ON CONFLICT DO NOTHING RETURNING account_id) "
					      "SELECT r.ord, r.fate, r.account_id, r.account_id IN (SELECT account_id FROM ib), one.nid, "
					      " CASE WHEN one.is_new AND (NOT EXISTS (SELECT FROM ms) OR NOT EXISTS (SELECT FROM whose)) "
					      "  THEN tmtp.race() END "
					      "FROM r CROSS JOIN one",
	.types = (const Oid[]){ T_TEXT,  T_TEXT,  T_TEXT,        T_BYTEA, T_BYTEA,
	                        T_BYTEA, T_TEXT,  T_TEXT,        T_TEXT,  T_TEXT,
	                        T_TEXT,  T_INT8,  T_TIMESTAMPTZ, T_UUID,  T_INT8,
	                        T_INT8,  T_INT4S, T_TEXTS,       T_INT8,  0 },
	.lane = STORE_ARRIVE,
	.repeatable = true,
	.octets = octets_arrival,
	.bind = bind_arrival,
	.rows = rows_arrival,
};

void
store_mail_arrival(struct store *store, struct mail_arrival *arrival)
{
	arrival->job.op = &arrival_op;
	store_submit(store, &arrival->job);
}

/* --- The channel --------------------------------------------------------------- */

static void
bind_channel_set(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct mail_channel_set *s = (const struct mail_channel_set *)jobs[0];

	(void)n;
	args_i64(a, 0, s->account_id);
	args_bool(a, 1, s->open);
	args_time(a, 2, s->now_us);
}

static const struct store_op channel_set_op = {
	.name = "mail_channel_set",
	.sql =
	    "INSERT INTO tmtp.mail_channel AS m (account_id, open, changed_at) VALUES ($1, $2, $3) "
	    "ON CONFLICT (account_id) DO UPDATE SET open = excluded.open, "
	    " changed_at = CASE WHEN m.open = excluded.open THEN m.changed_at ELSE excluded.changed_at END",
	.types = (const Oid[]){ T_INT8, T_BOOL, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_channel_set,
};

void
store_mail_channel_set(struct store *store, struct mail_channel_set *set)
{
	set->job.op = &channel_set_op;
	store_submit(store, &set->job);
}

static void
bind_channel_get(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_i64(a, 0, ((const struct mail_channel_get *)jobs[0])->account_id);
}

void
mail_channel_get_clear(struct mail_channel_get *get)
{
	for (size_t i = 0; i < get->rows_n; i++)
		free(get->rows[i].address);
	free(get->rows);
	get->rows = NULL;
	get->rows_n = 0;
}

/* A row a blocked address, or one without when there is none. */
static void
rows_channel_get(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct mail_channel_get *g = (struct mail_channel_get *)jobs[0];

	(void)n;
	mail_channel_get_clear(g);
	g->open = PQntuples(r) > 0 && row_bool(r, 0, 0);
	g->changed_us = PQntuples(r) > 0 ? row_time(r, 0, 1) : -1;
	g->rows = rows_room(r, sizeof(g->rows[0]), &g->job);
	for (int row = 0; g->rows != NULL && row < PQntuples(r); row++) {
		if (row_is_null(r, row, 2))
			continue;
		g->rows[g->rows_n].address = row_text(r, row, 2);
		g->rows[g->rows_n].blocked_us = row_time(r, row, 3);
		if (g->rows[g->rows_n++].address == NULL)
			g->job.rc = STORE_DOWN;
	}
}

static const struct store_op channel_get_op = {
	.name = "mail_channel_get",
	.sql =
	    "SELECT coalesce(m.open, false), m.changed_at, b.address, b.blocked_at FROM (SELECT 1) AS one "
	    "LEFT JOIN LATERAL (SELECT k.* FROM tmtp.mail_channel k WHERE k.account_id = $1 LIMIT 1) m ON true "
	    "LEFT JOIN LATERAL (SELECT k.* FROM tmtp.mail_block k WHERE k.account_id = $1) b ON true "
	    "ORDER BY b.address",
	.types = (const Oid[]){ T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_channel_get,
	.rows = rows_channel_get,
};

void
store_mail_channel_get(struct store *store, struct mail_channel_get *get)
{
	get->job.op = &channel_get_op;
	get->rows = NULL;
	get->rows_n = 0;
	store_submit(store, &get->job);
}

/* --- Blocks --------------------------------------------------------------------- */

static void
bind_block(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct mail_block_set *s = (const struct mail_block_set *)jobs[0];

	(void)n;
	args_i64(a, 0, s->account_id);
	args_slice(a, 1, s->address);
	if (!s->block)
		return;
	args_time(a, 2, s->now_us);
	args_i64(a, 3, MAIL_BLOCKS_MAX);
}

static void
rows_block(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	const struct mail_block_set *s = (const struct mail_block_set *)jobs[0];

	(void)n;
	if (PQntuples(r) == 0)
		jobs[0]->rc = s->block ? STORE_CONFLICT : STORE_NOT_FOUND;
}

static const struct store_op block_op = {
	.name = "mail_block",
	.sql =
	    "WITH had AS MATERIALIZED (SELECT FROM tmtp.mail_block WHERE account_id = $1 AND address = $2), "
	    "added AS (INSERT INTO tmtp.mail_block (account_id, address, blocked_at) SELECT $1, $2, $3 "
	    " WHERE NOT EXISTS (SELECT FROM had) "
	    "  AND (SELECT count(*) FROM tmtp.mail_block WHERE account_id = $1) < $4 "
	    " ON CONFLICT (account_id, address) DO UPDATE SET blocked_at = mail_block.blocked_at RETURNING 1) "
	    "SELECT 1 WHERE EXISTS (SELECT FROM had) OR EXISTS (SELECT FROM added)",
	.types = (const Oid[]){ T_INT8, T_TEXT, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_block,
	.rows = rows_block,
};

static const struct store_op unblock_op = {
	.name = "mail_unblock",
	.sql = "DELETE FROM tmtp.mail_block WHERE account_id = $1 AND address = $2 RETURNING 1",
	.types = (const Oid[]){ T_INT8, T_TEXT, 0 },
	.lane = STORE_WRITE,
	.bind = bind_block,
	.rows = rows_block,
};

void
store_mail_block_set(struct store *store, struct mail_block_set *set)
{
	set->job.op = set->block ? &block_op : &unblock_op;
	store_submit(store, &set->job);
}

/* --- Upkeep ----------------------------------------------------------------------- */

static void
bind_forget(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct mail_forget *f = (const struct mail_forget *)jobs[0];

	(void)n;
	args_time(a, 0, f->now_us);
	args_i64(a, 1, f->limit);
}

static void
rows_forget(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct mail_forget *)jobs[0])->forgotten =
	    PQntuples(r) > 0 ? (unsigned)row_i64(r, 0, 0) : 0;
}

static const struct store_op forget_op = {
	.name = "mail_forget",
	.sql =
	    "WITH old AS (DELETE FROM tmtp.mail_seen WHERE digest IN (SELECT digest FROM tmtp.mail_seen "
	    "  WHERE kept_until < $1 ORDER BY kept_until LIMIT $2) RETURNING 1) "
	    "SELECT count(*) FROM old",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_forget,
	.rows = rows_forget,
};

void
store_mail_forget(struct store *store, struct mail_forget *forget)
{
	forget->job.op = &forget_op;
	forget->forgotten = 0;
	store_submit(store, &forget->job);
}
