/* Upkeep of the tables: see upkeep.h. */
#include "store/upkeep.h"

#include "store/op.h"
#include "store/rows.h"

/* --- Partitions ------------------------------------------------------------ */

static void
bind_partitions(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_time(a, 0, ((const struct upkeep_partitions *)jobs[0])->now_us);
}

static void
rows_partitions(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct upkeep_partitions *)jobs[0])->made = PQntuples(r) == 1 ? row_i32(r, 0, 0) : 0;
}

const struct store_op upkeep_partitions_op = {
	.name = "upkeep_partitions",
	.sql = "SELECT tmtp.ensure_partitions(($1 AT TIME ZONE 'UTC')::date - 1, "
	       "($1 AT TIME ZONE 'UTC')::date + 7)",
	.types = (const Oid[]){ T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_partitions,
	.rows = rows_partitions,
};

void
store_upkeep_partitions(struct store *store, struct upkeep_partitions *u)
{
	u->job.op = &upkeep_partitions_op;
	store_submit(store, &u->job);
}

/* --- Chunks ---------------------------------------------------------------- */

static void
bind_chunks(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct upkeep_chunks *u = (const struct upkeep_chunks *)jobs[0];

	(void)n;
	args_i64(a, 0, u->site_id);
	args_i64(a, 1, u->channel_id);
	args_i64(a, 2, u->domain_id);
	args_text(a, 3, u->first_member);
	args_i64(a, 4, u->target);
	args_i64(a, 5, u->max);
	args_i64(a, 6, u->limit);
}

static void
rows_chunks(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct upkeep_chunks *u = (struct upkeep_chunks *)jobs[0];
	int last = PQntuples(r) - 1;

	(void)n;
	u->seen = (unsigned)(last + 1);
	u->changed = 0;
	for (int row = 0; row <= last; row++)
		u->changed += row_bool(r, row, 4);
	if (u->seen < u->limit || last < 0) {
		u->site_id = u->channel_id = u->domain_id = 0;
		u->first_member[0] = '\0';
		return;
	}
	u->site_id = row_i64(r, last, 0);
	u->channel_id = row_i64(r, last, 1);
	u->domain_id = row_i64(r, last, 2);
	(void)snprintf(u->first_member, sizeof(u->first_member), "%s", PQgetvalue(r, last, 3));
}

#define SAME_CHANNEL(a, b)                                                          \
	a ".site_id = " b ".site_id AND " a ".channel_id = " b ".channel_id AND " a \
	  ".domain_id = " b ".domain_id "

#define OF_CHANNEL "(PARTITION BY site_id, channel_id, domain_id ORDER BY first_member)"

/*
 * A chunk that has grown is cut into equal parts: the parts' first members are
 * every so-many-th of the range. The row keeps its start, its end moves to the
 * first cut, and the other parts are inserted. Of two neighbours that hold
 * little together ("thin") the first takes the second's end, and the second is
 * deleted; of three in a row the third waits for the next round. No instant
 * has a gap.
 */
static const struct store_op chunks_run = {
	.name = "upkeep_chunks",
	/* clang-format off */
	.sql =
	    "WITH c AS MATERIALIZED (SELECT k.* FROM tmtp.chunk k "
	    "  WHERE (k.site_id, k.channel_id, k.domain_id, k.first_member) > ($1, $2, $3, $4) "
	    "  ORDER BY k.site_id, k.channel_id, k.domain_id, k.first_member LIMIT $7 FOR UPDATE SKIP LOCKED), "
	    "counted AS MATERIALIZED (SELECT c.*, t.n, "
	    "  CASE WHEN t.n > $6 THEN ceil(t.n::numeric / ceil(t.n::numeric / $5))::int8 ELSE t.n END AS part "
	    "  FROM c CROSS JOIN LATERAL (SELECT count(*) AS n FROM tmtp.subscription s "
	    "   WHERE s.site_id = c.site_id AND s.channel_id = c.channel_id AND s.domain_id = c.domain_id "
	    "   AND s.member >= c.first_member AND s.member < coalesce(c.next_member, " SQL_MEMBER_LAST ") "
	    "   AND s.state = 1) t), "
	    "cut AS MATERIALIZED (SELECT k.site_id, k.channel_id, k.domain_id, k.first_member AS old_first, "
	    "  m.member AS first_member, "
	    "  coalesce(lead(m.member) OVER (PARTITION BY k.site_id, k.channel_id, k.domain_id, k.first_member "
	    "   ORDER BY m.member), k.next_member) AS next_member, k.part, "
	    "  row_number() OVER (PARTITION BY k.site_id, k.channel_id, k.domain_id, k.first_member "
	    "   ORDER BY m.member) AS nth "
	    "  FROM counted k CROSS JOIN LATERAL (SELECT s.member, row_number() OVER (ORDER BY s.member) AS n "
	    "   FROM tmtp.subscription s WHERE s.site_id = k.site_id AND s.channel_id = k.channel_id "
	    "   AND s.domain_id = k.domain_id AND s.member >= k.first_member "
	    "   AND s.member < coalesce(k.next_member, " SQL_MEMBER_LAST ") AND s.state = 1) m "
	    "  WHERE k.n > $6 AND m.n > 1 AND (m.n - 1) % k.part = 0), "
	    "split AS (INSERT INTO tmtp.chunk (site_id, channel_id, domain_id, first_member, next_member, members) "
	    "  SELECT site_id, channel_id, domain_id, first_member, next_member, part FROM cut), "
	    "pair AS MATERIALIZED (SELECT k.site_id, k.channel_id, k.domain_id, k.first_member, "
	    "  lead(first_member) OVER o AS other, lead(next_member) OVER o AS other_next, "
	    "  n + lead(n) OVER o AS n, "
	    "  coalesce(lead(first_member) OVER o = next_member AND n + lead(n) OVER o <= $5 / 2, false) AS thin "
	    "  FROM counted k WINDOW o AS " OF_CHANNEL "), "
	    "joined AS MATERIALIZED (SELECT * FROM (SELECT pair.*, lag(thin, 1, false) OVER " OF_CHANNEL
	    "  AS taken FROM pair) p WHERE thin AND NOT taken), "
	    "gone AS (DELETE FROM tmtp.chunk k USING joined j WHERE " SAME_CHANNEL("k", "j")
	    "  AND k.first_member = j.other), "
	    "changed AS MATERIALIZED (SELECT o.*, j.n AS both, j.other_next, g.other IS NOT NULL AS is_gone "
	    "  FROM counted o "
	    "  LEFT JOIN joined j ON " SAME_CHANNEL("j", "o") "AND j.first_member = o.first_member "
	    "  LEFT JOIN joined g ON " SAME_CHANNEL("g", "o") "AND g.other = o.first_member "
	    "  WHERE o.members <> o.part OR o.n > $6 OR j.n IS NOT NULL OR g.n IS NOT NULL), "
	    "kept AS (UPDATE tmtp.chunk k SET members = coalesce(o.both, o.part), "
	    "  next_member = CASE WHEN o.both IS NOT NULL THEN o.other_next ELSE "
	    "   coalesce((SELECT x.first_member FROM cut x WHERE " SAME_CHANNEL("x", "o")
	    "    AND x.old_first = o.first_member AND x.nth = 1), o.next_member) END "
	    "  FROM changed o WHERE NOT o.is_gone AND " SAME_CHANNEL("k", "o")
	    "  AND k.first_member = o.first_member) "
	    "SELECT o.site_id, o.channel_id, o.domain_id, o.first_member, EXISTS (SELECT FROM changed x "
	    "  WHERE " SAME_CHANNEL("x", "o") "AND x.first_member = o.first_member) FROM counted o "
	    "ORDER BY o.site_id, o.channel_id, o.domain_id, o.first_member",
	/* clang-format on */
	.types = (const Oid[]){ T_INT8, T_INT8, T_INT8, T_TEXT, T_INT8, T_INT8, T_INT8, 0 },
	.lane = STORE_READ, /* it may take a while; nobody waits for it */
	.bind = bind_chunks,
	.rows = rows_chunks,
};

void
store_upkeep_chunks(struct store *store, struct upkeep_chunks *u)
{
	u->job.op = &chunks_run;
	store_submit(store, &u->job);
}

/* --- Forgetting ------------------------------------------------------------ */

static void
bind_forget(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct upkeep_forget *u = (const struct upkeep_forget *)jobs[0];

	(void)n;
	args_time(a, 0, u->now_us);
	args_time(a, 1, u->keys_before_us);
	args_i64(a, 2, u->limit);
}

static void
rows_forget(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct upkeep_forget *)jobs[0])->forgotten = PQntuples(r) == 1 ? row_i64(r, 0, 0) : 0;
}

static const struct store_op forget_keys = {
	.name = "upkeep_forget_keys",
	.sql =
	    "WITH gone AS (DELETE FROM tmtp.push_key k USING (SELECT site_id, key FROM tmtp.push_key "
	    "  WHERE created_at < $2 AND $1 >= $2 LIMIT $3) o "
	    " WHERE k.site_id = o.site_id AND k.key = o.key RETURNING 1) SELECT count(*) FROM gone",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_forget,
	.rows = rows_forget,
};

static const struct store_op forget_posted = {
	.name = "upkeep_forget_posted",
	.sql =
	    "WITH ids AS (DELETE FROM tmtp.posted p USING (SELECT domain_id, id FROM tmtp.posted "
	    "  WHERE kept_until < $1 AND $1 >= $2 LIMIT $3) o "
	    " WHERE p.domain_id = o.domain_id AND p.id = o.id RETURNING 1), "
	    "tokens AS (DELETE FROM tmtp.account_token t USING (SELECT account_id, token_hash "
	    "  FROM tmtp.account_token WHERE expires_at < $1 LIMIT $3) o "
	    " WHERE t.account_id = o.account_id AND t.token_hash = o.token_hash RETURNING 1) "
	    "SELECT (SELECT count(*) FROM ids) + (SELECT count(*) FROM tokens)",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_forget,
	.rows = rows_forget,
};

void
store_upkeep_forget_keys(struct store *store, struct upkeep_forget *u)
{
	u->job.op = &forget_keys;
	store_submit(store, &u->job);
}

void
store_upkeep_forget_posted(struct store *store, struct upkeep_forget *u)
{
	u->job.op = &forget_posted;
	store_submit(store, &u->job);
}
