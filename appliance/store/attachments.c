/* Uploaded attachments: see attachments.h. */
#include "store/attachments.h"

#include "store/rows.h"

static size_t
octets_of_part(const struct store_job *job)
{
	(void)job;
	return ATTACHMENT_PART;
}

/* --- Uploading ------------------------------------------------------------ */

static void
bind_begin(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_begin *b = (const struct attachment_begin *)jobs[0];

	(void)n;
	args_i64(a, 0, b->site_id);
	args_uuid(a, 1, &b->attachment_id);
	args_text(a, 2, b->type);
	args_i64(a, 3, b->reserve);
	args_i64(a, 4, b->quota);
	args_time(a, 5, b->now_us);
	args_time(a, 6, b->keep_until_us);
	args_i64(a, 7, b->at_once);
}

static void
rows_begin(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct attachment_begin *b = (struct attachment_begin *)jobs[0];

	(void)n;
	b->busy = row_bool(r, 0, 1);
	b->full = !b->busy && !row_bool(r, 0, 0);
}

/* The row of what the site takes is the lock of its quota. */
static const struct store_op begin_run = {
	.name = "attachment_begin",
	.sql =
	    "WITH was AS MATERIALIZED (SELECT FROM tmtp.attachment WHERE site_id = $1 AND attachment_id = $2), "
	    "busy AS MATERIALIZED (SELECT count(*) >= $8 AND NOT EXISTS (SELECT FROM was) AS taken FROM "
	    "  (SELECT FROM tmtp.attachment WHERE site_id = $1 AND state = 0 LIMIT $8) a), "
	    "room AS (INSERT INTO tmtp.attachment_usage AS u (site_id, octets) "
	    " SELECT $1, $4 FROM busy WHERE NOT busy.taken AND $4 <= $5 AND NOT EXISTS (SELECT FROM was) "
	    " ON CONFLICT (site_id) DO UPDATE SET octets = u.octets + excluded.octets "
	    "  WHERE u.octets + excluded.octets <= $5 RETURNING 1), "
	    "made AS (INSERT INTO tmtp.attachment (site_id, attachment_id, type, size, created_at, keep_until) "
	    " SELECT $1, $2, $3, $4, $6, $7 FROM room RETURNING 1) "
	    "SELECT EXISTS (SELECT FROM was) OR EXISTS (SELECT FROM made), taken FROM busy",
	.types = (const Oid[]){ T_INT8, T_UUID, T_TEXT, T_INT8, T_INT8, T_TIMESTAMPTZ,
	                        T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_begin,
	.rows = rows_begin,
};

void
store_attachment_begin(struct store *store, struct attachment_begin *begin)
{
	begin->job.op = &begin_run;
	store_submit(store, &begin->job);
}

static void
bind_part(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_part *p = (const struct attachment_part *)jobs[0];

	(void)n;
	args_i64(a, 0, p->site_id);
	args_uuid(a, 1, &p->attachment_id);
	args_i32(a, 2, p->part_no);
	args_slice(a, 3, p->data);
	args_time(a, 4, p->keep_until_us);
}

static const struct store_op part_run = {
	.name = "attachment_part",
	.sql = "WITH a AS (UPDATE tmtp.attachment SET keep_until = $5 "
	       " WHERE site_id = $1 AND attachment_id = $2 AND state = 0 RETURNING 1), "
	       "p AS (INSERT INTO tmtp.attachment_part (site_id, attachment_id, part_no, data) "
	       " SELECT $1, $2, $3, $4 FROM a ON CONFLICT DO NOTHING) "
	       "SELECT FROM a",
	.types = (const Oid[]){ T_INT8, T_UUID, T_INT4, T_BYTEA, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.octets = octets_of_part,
	.bind = bind_part,
	.rows = rows_found,
};

void
store_attachment_part(struct store *store, struct attachment_part *part)
{
	part->job.op = &part_run;
	store_submit(store, &part->job);
}

static void
bind_end(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_end *e = (const struct attachment_end *)jobs[0];

	(void)n;
	args_i64(a, 0, e->site_id);
	args_uuid(a, 1, &e->attachment_id);
	args_slice(a, 2, slice_mem(e->digest, sizeof(e->digest)));
	args_i64(a, 3, e->size);
	args_time(a, 4, e->keep_until_us);
}

static void
rows_end(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct attachment_end *e = (struct attachment_end *)jobs[0];

	rows_found(r, jobs, n);
	if (PQntuples(r) == 0)
		return;
	row_copy(e->type, sizeof(e->type), r, 0, 0);
	e->fresh = row_bool(r, 0, 1);
}

/*
 * Run again after a lost answer it finds itself as the one that is there. What
 * changes the row reads mine, so that it is locked and read before.
 */
static const struct store_op end_run = {
	.name = "attachment_end",
	.sql =
	    "WITH mine AS MATERIALIZED (SELECT size FROM tmtp.attachment "
	    "  WHERE site_id = $1 AND attachment_id = $2 AND state = 0 FOR UPDATE), "
	    "old AS (UPDATE tmtp.attachment SET keep_until = greatest(keep_until, $5) "
	    "  WHERE site_id = $1 AND digest = $3 AND state = 1 RETURNING attachment_id, type), "
	    "done AS (UPDATE tmtp.attachment a SET state = 1, size = $4, digest = $3, keep_until = $5 FROM mine "
	    "  WHERE a.site_id = $1 AND a.attachment_id = $2 AND a.state = 0 AND NOT EXISTS (SELECT FROM old) "
	    "  RETURNING a.attachment_id, a.type), "
	    "gone AS (DELETE FROM tmtp.attachment a USING mine "
	    "  WHERE a.site_id = $1 AND a.attachment_id = $2 AND a.state = 0 AND EXISTS (SELECT FROM old)), "
	    "used AS (UPDATE tmtp.attachment_usage u SET octets = u.octets - mine.size "
	    "  + CASE WHEN EXISTS (SELECT FROM old) THEN 0 ELSE $4 END FROM mine WHERE u.site_id = $1) "
	    "SELECT type, attachment_id = $2 FROM old UNION ALL SELECT type, true FROM done",
	.types = (const Oid[]){ T_INT8, T_UUID, T_BYTEA, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_end,
	.rows = rows_end,
};

void
store_attachment_end(struct store *store, struct attachment_end *end)
{
	end->job.op = &end_run;
	store_submit(store, &end->job);
}

static void
bind_drop(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_drop *d = (const struct attachment_drop *)jobs[0];

	(void)n;
	args_i64(a, 0, d->site_id);
	args_uuid(a, 1, &d->attachment_id);
}

static const struct store_op drop_run = {
	.name = "attachment_drop",
	.sql = "WITH gone AS (DELETE FROM tmtp.attachment "
	       " WHERE site_id = $1 AND attachment_id = $2 AND state = 0 RETURNING size) "
	       "UPDATE tmtp.attachment_usage u SET octets = u.octets - gone.size FROM gone "
	       "WHERE u.site_id = $1",
	.types = (const Oid[]){ T_INT8, T_UUID, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_drop,
};

void
store_attachment_drop(struct store *store, struct attachment_drop *drop)
{
	drop->job.op = &drop_run;
	store_submit(store, &drop->job);
}

/* --- Naming --------------------------------------------------------------- */

static void
bind_name(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_name *m = (const struct attachment_name *)jobs[0];

	(void)n;
	args_i64(a, 0, m->site_id);
	args_uuid(a, 1, &m->message_id);
	for (size_t i = 0; i < m->named_n; i++) {
		args_i32(a, 2, (int32_t)i);
		args_slice(a, 3, slice_mem(m->named[i].digest, sizeof(m->named[i].digest)));
	}
	args_time(a, 4, m->keep_until_us);
	args_time(a, 5, m->keep_until_us - m->slack_us);
}

static void
rows_name(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct attachment_name *m = (struct attachment_name *)jobs[0];
	size_t found = 0;

	(void)n;
	for (size_t i = 0; i < m->named_n; i++)
		m->named[i].found = false;
	for (int row = 0; row < PQntuples(r); row++) {
		struct attachment_named *named = &m->named[row_i32(r, row, 0)];

		named->found = true;
		named->attachment_id = row_uuid(r, row, 1);
		named->size = row_i64(r, row, 2);
		row_copy(named->type, sizeof(named->type), r, row, 3);
		found++;
	}
	if (found < m->named_n)
		m->job.rc = STORE_NOT_FOUND;
}

/* FOR KEY SHARE: one that is reaped at this moment is waited for, and then isn't there. */
static const struct store_op name_run = {
	.name = "attachment_name",
	.sql =
	    "WITH found AS MATERIALIZED (SELECT i.ord, a.attachment_id, a.size, a.type, a.keep_until "
	    "  FROM unnest($3::int4[], $4::bytea[]) AS i(ord, digest) "
	    "  JOIN tmtp.attachment a ON a.site_id = $1 AND a.digest = i.digest AND a.state = 1 "
	    "  FOR KEY SHARE OF a), "
	    "full_set AS MATERIALIZED (SELECT FROM found HAVING count(*) = cardinality($3::int4[])), "
	    "kept AS (UPDATE tmtp.attachment a SET keep_until = $5 FROM found, full_set "
	    "  WHERE a.site_id = $1 AND a.attachment_id = found.attachment_id AND a.keep_until < $6), "
	    "named AS (INSERT INTO tmtp.message_attachment (site_id, attachment_id, message_id) "
	    "  SELECT $1, found.attachment_id, $2 FROM found, full_set ON CONFLICT DO NOTHING) "
	    "SELECT ord, attachment_id, size, type FROM found",
	.types =
	    (const Oid[]){ T_INT8, T_UUID, T_INT4S, T_BYTEAS, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_name,
	.rows = rows_name,
};

void
store_attachment_name(struct store *store, struct attachment_name *name)
{
	name->job.op = &name_run;
	store_submit(store, &name->job);
}

/* --- Picking up ----------------------------------------------------------- */

static void
bind_find(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct attachment_find *f = (const struct attachment_find *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, f->site_id);
		args_uuid(a, 2, &f->attachment_id);
		args_slice(a, 3, slice_mem(f->digest, sizeof(f->digest)));
	}
}

static void
rows_find(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct attachment_find *f = (struct attachment_find *)jobs[row_i32(r, row, 0)];

		f->size = row_i64(r, row, 1);
		f->recalled = row_bool(r, row, 2);
		f->shared = row_bool(r, row, 3);
		f->job.rc = STORE_OK;
	}
}

/* Messages that name a, newest first, of this kind; not those that never came to be. */
#define NAMING(what, where, limit)                                                  \
	"(SELECT " what                                                             \
	" FROM tmtp.message_attachment n CROSS JOIN LATERAL (SELECT k.audience, "   \
	"  k.recalled_at FROM tmtp.message k WHERE k.site_id = n.site_id "          \
	"  AND k.message_id = n.message_id LIMIT 1) m "                             \
	" WHERE n.site_id = a.site_id AND n.attachment_id = a.attachment_id " where \
	" ORDER BY n.message_id DESC LIMIT " limit ") "

static const struct store_op find_run = {
	.name = "attachment_find",
	/* clang-format off */
	.sql =
	    "SELECT i.ord, a.size, NOT EXISTS " NAMING("", "AND m.recalled_at IS NULL", "1")
	    ", (SELECT count(*) > 1 OR bool_or(x.audience IN (1, 2)) FROM " NAMING("m.audience", "", "2") " x) "
	    "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::bytea[]) AS i(ord, site_id, id, digest) "
	    "JOIN tmtp.attachment a ON a.site_id = i.site_id AND a.attachment_id = i.id AND a.state = 1 "
	    " AND a.digest = i.digest WHERE EXISTS " NAMING("", "", "1"),
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_BYTEAS, 0 },
	.lane = STORE_READ,
	.batch_max = 64,
	.repeatable = true,
	.bind = bind_find,
	.rows = rows_find,
};

void
store_attachment_find(struct store *store, struct attachment_find *find)
{
	find->job.op = &find_run;
	store_submit(store, &find->job);
}

static void
bind_read(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_read *p = (const struct attachment_read *)jobs[0];

	(void)n;
	args_i64(a, 0, p->site_id);
	args_uuid(a, 1, &p->attachment_id);
	args_i32(a, 2, p->part_no);
}

static void
rows_read(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct attachment_read *p = (struct attachment_read *)jobs[0];

	rows_found(r, jobs, n);
	free(p->data);
	p->data = NULL;
	if (PQntuples(r) > 0 && (p->data = row_octets(r, 0, 0, &p->len)) == NULL)
		p->job.rc = STORE_DOWN;
}

static const struct store_op read_run = {
	.name = "attachment_read",
	.sql = "SELECT data FROM tmtp.attachment_part "
	       "WHERE site_id = $1 AND attachment_id = $2 AND part_no = $3",
	.types = (const Oid[]){ T_INT8, T_UUID, T_INT4, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.octets = octets_of_part,
	.bind = bind_read,
	.rows = rows_read,
};

void
store_attachment_read(struct store *store, struct attachment_read *read)
{
	read->job.op = &read_run;
	read->data = NULL;
	read->len = 0;
	store_submit(store, &read->job);
}

/* --- Forgetting ----------------------------------------------------------- */

static void
bind_reap(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct attachment_reap *r = (const struct attachment_reap *)jobs[0];

	(void)n;
	args_time(a, 0, r->now_us);
	args_i64(a, 1, r->limit);
}

static void
rows_reap(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct attachment_reap *)jobs[0])->forgotten = row_i64(r, 0, 0);
}

static const struct store_op reap_run = {
	.name = "attachment_reap",
	.sql =
	    "WITH over AS MATERIALIZED (SELECT site_id, attachment_id FROM tmtp.attachment "
	    "  WHERE keep_until < $1 ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED), "
	    "gone AS (DELETE FROM tmtp.attachment a USING over WHERE a.site_id = over.site_id "
	    "  AND a.attachment_id = over.attachment_id RETURNING a.site_id, a.size), "
	    "used AS (UPDATE tmtp.attachment_usage u SET octets = u.octets - g.octets FROM "
	    "  (SELECT site_id, sum(size)::int8 AS octets FROM gone GROUP BY site_id) g "
	    "  WHERE u.site_id = g.site_id) "
	    "SELECT count(*) FROM gone",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_reap,
	.rows = rows_reap,
};

void
store_attachment_reap(struct store *store, struct attachment_reap *reap)
{
	reap->job.op = &reap_run;
	store_submit(store, &reap->job);
}
