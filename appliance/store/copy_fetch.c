/* Fetching copies of large attachments: see copies.h. */
#include "store/copies.h"

#include "store/rows.h"

/* --- Claiming ------------------------------------------------------------- */

static void
bind_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_claim *c = (const struct copy_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	args_i64(a, 2, c->limit < COPY_CLAIM_MAX ? c->limit : COPY_CLAIM_MAX);
}

void
copy_work_clear(struct copy_work *work)
{
	free(work->uris);
	free(work->sender);
	free(work->key);
	free(work->signature);
	*work = (struct copy_work){ .uris = NULL };
}

static void
copy_fixed(uint8_t *out, size_t len, const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);

	if (v.len == len)
		memcpy(out, v.data, len);
}

static bool
read_work(struct copy_work *w, const PGresult *r, int row)
{
	*w = (struct copy_work){ .copy_id = row_uuid(r, row, 0),
		                 .size = row_i64(r, row, 2),
		                 .octets = row_is_null(r, row, 4) ? 0 : row_i64(r, row, 3),
		                 .attempts = row_i32(r, row, 5),
		                 .wrong = row_i32(r, row, 6),
		                 .uris = row_text(r, row, 7),
		                 .sender = row_text(r, row, 8),
		                 .date_s = row_i64(r, row, 10),
		                 .key = row_text(r, row, 11) };
	copy_fixed(w->digest, sizeof(w->digest), r, row, 1);
	copy_fixed(w->running, sizeof(w->running), r, row, 4);
	copy_fixed(w->message_digest, sizeof(w->message_digest), r, row, 9);
	w->signature = row_octets(r, row, 12, &w->signature_len);
	return w->uris != NULL && w->sender != NULL;
}

static void
rows_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct copy_claim *c = (struct copy_claim *)jobs[0];

	(void)n;
	while (c->rows_n > 0)
		copy_work_clear(&c->rows[--c->rows_n]);
	for (int row = 0; row < PQntuples(r) && c->rows_n < COPY_CLAIM_MAX; row++) {
		if (read_work(&c->rows[c->rows_n], r, row))
			c->rows_n++;
		else
			copy_work_clear(
			    &c->rows[c->rows_n]); /* leased in vain: it comes again */
	}
}

/* The attempt is counted before it is made. */
static const struct store_op claim_run = {
	.name = "copy_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT copy_id FROM tmtp.copy WHERE state = 0 "
	    "  AND (leased_until IS NULL OR leased_until < $1) AND (not_before IS NULL OR not_before <= $1) "
	    "  ORDER BY not_before NULLS FIRST, copy_id LIMIT $3 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.copy c SET leased_until = $2, lease_owner = tmtp.this_worker(), "
	    "  attempts = c.attempts + 1 FROM pick WHERE c.copy_id = pick.copy_id RETURNING c.*) "
	    "SELECT c.copy_id, c.digest, c.size, c.octets, c.running, c.attempts - 1, c.wrong::int4, "
	    " s.uris, x.address, s.digest, s.date_s, s.signing_key, s.signature "
	    "FROM claimed c JOIN tmtp.sender x ON x.sender_id = c.sender_id "
	    "CROSS JOIN LATERAL (SELECT s.uris, n.digest, n.date_s, n.signing_key, n.signature "
	    "  FROM tmtp.copy_source s JOIN tmtp.notification n ON n.notification_id = s.notification_id "
	    "  WHERE s.copy_id = c.copy_id ORDER BY s.notification_id DESC LIMIT 1) s "
	    "ORDER BY c.copy_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_claim,
	.rows = rows_claim,
};

void
store_copy_claim(struct store *store, struct copy_claim *claim)
{
	claim->job.op = &claim_run;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

/* --- Growing -------------------------------------------------------------- */

static void
bind_grow(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_grow *g = (const struct copy_grow *)jobs[0];
	int32_t part_no = (int32_t)(g->octets / ATTACHMENT_PART);

	(void)n;
	args_uuid(a, 0, &g->copy_id);
	args_i64(a, 1, g->octets);
	args_i64(a, 2, g->octets + (int64_t)g->data.len);
	args_slice(a, 3, slice_mem(g->running, sizeof(g->running)));
	args_bool(a, 4, g->whole);
	args_time(a, 5, g->lease_until_us);
	for (size_t at = 0; at < g->data.len; at += ATTACHMENT_PART) {
		size_t left = g->data.len - at;

		args_i32(a, 6, part_no++);
		args_slice(a, 7,
		           slice_mem(g->data.data + at,
		                     left < ATTACHMENT_PART ? left : ATTACHMENT_PART));
	}
}

static size_t
octets_grow(const struct store_job *job)
{
	return ((const struct copy_grow *)job)->data.len;
}

/* Run again after a lost answer it finds what it made. Parts of an earlier, wrong try are written over. */
static const struct store_op grow_run = {
	.name = "copy_grow",
	.sql =
	    "WITH c AS (UPDATE tmtp.copy SET octets = $3, running = $4, attempts = 0, not_before = NULL, reason = NULL, "
	    "  state = CASE WHEN $5 THEN 1 ELSE 0 END, leased_until = CASE WHEN $5 THEN NULL ELSE $6 END "
	    "  WHERE copy_id = $1 AND (state = 0 AND octets IN ($2, $3) OR state = 1 AND $5) RETURNING copy_id), "
	    "p AS (INSERT INTO tmtp.copy_part (copy_id, part_no, data) SELECT c.copy_id, u.part_no, u.data "
	    "  FROM c, unnest($7::int4[], $8::bytea[]) AS u(part_no, data) "
	    "  ON CONFLICT (copy_id, part_no) DO UPDATE SET data = excluded.data) "
	    "SELECT FROM c",
	.types = (const Oid[]){ T_UUID, T_INT8, T_INT8, T_BYTEA, T_BOOL, T_TIMESTAMPTZ, T_INT4S,
	                        T_BYTEAS, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.octets = octets_grow,
	.bind = bind_grow,
	.rows = rows_found,
};

void
store_copy_grow(struct store *store, struct copy_grow *grow)
{
	grow->job.op = &grow_run;
	store_submit(store, &grow->job);
}

/* --- Failing -------------------------------------------------------------- */

static void
bind_fail(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_fail *f = (const struct copy_fail *)jobs[0];

	(void)n;
	args_uuid(a, 0, &f->copy_id);
	args_bool(a, 1, f->never);
	args_bool(a, 2, f->wrong);
	args_text(a, 3, f->reason);
	args_time(a, 4, f->not_before_us);
}

/* What failed for good keeps no octets: nobody will ever see them. */
static const struct store_op fail_run = {
	.name = "copy_fail",
	.sql =
	    "WITH c AS (UPDATE tmtp.copy SET state = CASE WHEN $2 THEN 2 ELSE 0 END, reason = $4, not_before = $5, "
	    "  leased_until = NULL, lease_owner = NULL, wrong = wrong + $3::int, "
	    "  octets = CASE WHEN $2 OR $3 THEN 0 ELSE octets END, running = CASE WHEN $2 OR $3 THEN NULL ELSE running END "
	    "  WHERE copy_id = $1 AND state = 0 RETURNING copy_id), "
	    "p AS (DELETE FROM tmtp.copy_part p USING c WHERE $2 AND p.copy_id = c.copy_id), "
	    "h AS (DELETE FROM tmtp.copy_holder h USING c WHERE $2 AND h.copy_id = c.copy_id) "
	    "SELECT FROM c",
	.types = (const Oid[]){ T_UUID, T_BOOL, T_BOOL, T_TEXT, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.bind = bind_fail,
	.rows = rows_found,
};

void
store_copy_fail(struct store *store, struct copy_fail *fail)
{
	fail->job.op = &fail_run;
	store_submit(store, &fail->job);
}
