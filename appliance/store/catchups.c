/* Questions for what members said: see catchups.h. */
#include "store/catchups.h"

#include "store/rows.h"

/* --- Beginning ------------------------------------------------------------- */

static void
bind_note(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct catchup_note *c = (const struct catchup_note *)jobs[i];

		args_i64(a, 0, c->site_id);
		args_i64(a, 1, c->domain_id);
		args_time(a, 2, c->next_us);
	}
}

static const struct store_op note_run = {
	.name = "catchup_note",
	.sql =
	    "INSERT INTO tmtp.catchup (site_id, domain_id, next_at) "
	    "SELECT site_id, domain_id, min(next_at) "
	    "FROM unnest($1::int8[], $2::int8[], $3::timestamptz[]) AS i(site_id, domain_id, next_at) "
	    "GROUP BY site_id, domain_id ORDER BY site_id, domain_id ON CONFLICT DO NOTHING",
	.types = (const Oid[]){ T_INT8S, T_INT8S, T_TIMESTAMPTZS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_note,
};

void
store_catchup_note(struct store *store, struct catchup_note *note)
{
	note->job.op = &note_run;
	store_submit(store, &note->job);
}

static void
bind_due(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct catchup_due *d = (const struct catchup_due *)jobs[0];

	(void)n;
	args_i64(a, 0, d->domain_id);
	args_time(a, 1, d->now_us);
}

static const struct store_op due_run = {
	.name = "catchup_due",
	.sql = "UPDATE tmtp.catchup SET next_at = $2 WHERE domain_id = $1 AND next_at > $2",
	.types = (const Oid[]){ T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_due,
};

void
store_catchup_due(struct store *store, struct catchup_due *due)
{
	due->job.op = &due_run;
	store_submit(store, &due->job);
}

static void
bind_ask(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct catchup_ask *c = (const struct catchup_ask *)jobs[0];
	struct uuid audit = uuid_make();

	(void)n;
	args_text(a, 0, c->domain);
	args_time(a, 1, c->now_us);
	args_bool(a, 2, c->from_start);
	args_uuid(a, 3, &audit);
	args_text(a, 4, c->actor);
}

static void
rows_ask(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct catchup_ask *c = (struct catchup_ask *)jobs[0];

	(void)n;
	c->sites = PQntuples(r) == 1 ? row_i64(r, 0, 0) : 0;
	c->job.rc = c->sites > 0 ? STORE_OK : STORE_NOT_FOUND;
}

/* One under way is taken from its worker: what that learnt so far stands. */
static const struct store_op ask_run = {
	.name = "catchup_ask",
	.sql =
	    "WITH asked AS (UPDATE tmtp.catchup c SET next_at = $2, attempts = 0, "
	    "  leased_until = NULL, lease_owner = NULL, cursor = CASE WHEN $3 THEN '' ELSE c.cursor END "
	    " FROM tmtp.domain d WHERE d.name = $1 AND c.domain_id = d.domain_id RETURNING 1), "
	    "audit AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) "
	    " SELECT $4, $2, $5, 'peer-catch-up', $1, CASE WHEN $3 THEN 'from the start' END "
	    " WHERE EXISTS (SELECT FROM asked)) "
	    "SELECT count(*) FROM asked",
	.types = (const Oid[]){ T_TEXT, T_TIMESTAMPTZ, T_BOOL, T_UUID, T_TEXT, 0 },
	.lane = STORE_WRITE,
	.wakes = "tmtp_relay",
	.bind = bind_ask,
	.rows = rows_ask,
};

void
store_catchup_ask(struct store *store, struct catchup_ask *ask)
{
	ask->job.op = &ask_run;
	store_submit(store, &ask->job);
}

/* --- Working --------------------------------------------------------------- */

static void
bind_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct catchup_claim *c = (const struct catchup_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	args_i64(a, 2, c->limit);
}

void
catchup_claim_clear(struct catchup_claim *claim)
{
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

static void
rows_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct catchup_claim *c = (struct catchup_claim *)jobs[0];

	(void)n;
	catchup_claim_clear(c);
	c->rows = rows_room(r, sizeof(c->rows[0]), &c->job);
	for (int row = 0; c->rows != NULL && row < PQntuples(r); row++) {
		struct catchup_out *out = &c->rows[c->rows_n++];

		out->site_id = row_i64(r, row, 0);
		out->domain_id = row_i64(r, row, 1);
		row_copy(out->site_name, sizeof(out->site_name), r, row, 2);
		row_copy(out->site_domain, sizeof(out->site_domain), r, row, 3);
		row_copy(out->domain, sizeof(out->domain), r, row, 4);
		row_copy(out->cursor, sizeof(out->cursor), r, row, 5);
		out->attempts = row_i32(r, row, 6);
	}
}

static const struct store_op claim_run = {
	.name = "catchup_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT c.site_id, c.domain_id FROM tmtp.catchup c "
	    " WHERE c.next_at <= $1 AND (c.leased_until IS NULL OR c.leased_until < $1) "
	    " AND NOT EXISTS (SELECT FROM tmtp.peer p WHERE p.domain_id = c.domain_id "
	    "  AND (p.held OR p.retry_at > $1)) "
	    " ORDER BY c.next_at LIMIT $3 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.catchup c SET leased_until = $2, attempts = c.attempts + 1, "
	    "  lease_owner = tmtp.this_worker() FROM pick "
	    " WHERE c.site_id = pick.site_id AND c.domain_id = pick.domain_id "
	    " RETURNING c.site_id, c.domain_id, c.cursor, c.attempts) "
	    "SELECT c.site_id, c.domain_id, s.name, s.domain, d.name, c.cursor, c.attempts::int4 "
	    "FROM claimed c JOIN tmtp.site s ON s.site_id = c.site_id "
	    "JOIN tmtp.domain d ON d.domain_id = c.domain_id ORDER BY c.domain_id, c.site_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_claim,
	.rows = rows_claim,
};

void
store_catchup_claim(struct store *store, struct catchup_claim *claim)
{
	claim->job.op = &claim_run;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

static void
bind_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct catchup_finish *f = (const struct catchup_finish *)jobs[0];
	bool goes_on = f->end == CATCHUP_GOES_ON;

	(void)n;
	args_i64(a, 0, f->site_id);
	args_i64(a, 1, f->domain_id);
	args_text(a, 2, f->cursor);
	args_time(a, 3, goes_on ? -1 : f->next_us);
	args_time(a, 4, goes_on ? f->lease_until_us : -1);
	args_time(a, 5, f->end == CATCHUP_DONE ? f->now_us : -1);
	args_i64(a, 6, f->changed);
	args_text(a, 7, f->end == CATCHUP_FAILED ? f->reason : NULL);
	args_bool(a, 8, goes_on);
}

static void
rows_finish(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) == 1 ? STORE_OK : STORE_NOT_FOUND;
}

static const struct store_op finish_run = {
	.name = "catchup_finish",
	.sql = "UPDATE tmtp.catchup c SET cursor = coalesce($3, c.cursor), "
	       " next_at = coalesce($4, c.next_at), leased_until = $5, attempts = 0, "
	       " lease_owner = CASE WHEN $9 THEN c.lease_owner END, "
	       " asked_at = coalesce($6, c.asked_at), changed = c.changed + $7, reason = $8 "
	       "WHERE c.site_id = $1 AND c.domain_id = $2 AND c.leased_until IS NOT NULL "
	       " AND c.lease_owner IS NOT DISTINCT FROM tmtp.this_worker() RETURNING 1",
	.types = (const Oid[]){ T_INT8, T_INT8, T_TEXT, T_TIMESTAMPTZ, T_TIMESTAMPTZ,
	                        T_TIMESTAMPTZ, T_INT8, T_TEXT, T_BOOL, 0 },
	.lane = STORE_WRITE,
	.bind = bind_finish,
	.rows = rows_finish,
};

void
store_catchup_finish(struct store *store, struct catchup_finish *finish)
{
	finish->job.op = &finish_run;
	store_submit(store, &finish->job);
}

/* --- Administrators -------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct catchup_list *l = (const struct catchup_list *)jobs[0];

	(void)n;
	args_text(a, 0, l->domain);
	args_i64(a, 1, l->limit);
}

void
catchup_list_clear(struct catchup_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].site);
		free(list->rows[i].domain);
		free(list->rows[i].reason);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct catchup_list *l = (struct catchup_list *)jobs[0];

	(void)n;
	catchup_list_clear(l);
	l->rows = rows_room(r, sizeof(l->rows[0]), &l->job);
	for (int row = 0; l->rows != NULL && row < PQntuples(r); row++)
		l->rows[l->rows_n++] = (struct catchup_row){
			.site = row_text(r, row, 0),
			.domain = row_text(r, row, 1),
			.asked_us = row_time(r, row, 2),
			.next_us = row_time(r, row, 3),
			.changed = row_i64(r, row, 4),
			.reason = row_text(r, row, 5),
		};
}

static const struct store_op list_get = {
	.name = "catchup_list",
	.sql =
	    "SELECT s.name || '@' || s.domain, d.name, c.asked_at, c.next_at, c.changed, c.reason "
	    "FROM tmtp.domain d JOIN tmtp.catchup c ON c.domain_id = d.domain_id "
	    "JOIN tmtp.site s ON s.site_id = c.site_id "
	    "WHERE $1::text IS NULL OR d.name = $1 ORDER BY d.name, s.domain, s.name LIMIT $2",
	.types = (const Oid[]){ T_TEXT, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_catchup_list(struct store *store, struct catchup_list *list)
{
	list->job.op = &list_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}
