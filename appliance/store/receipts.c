/* Receipts: see receipts.h. */
#include "store/receipts.h"

#include "store/rows.h"

/* --- Claiming ---------------------------------------------------------------- */

static void
bind_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct receipt_claim *c = (const struct receipt_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	for (size_t i = 0; i < c->skip_n; i++)
		args_i64(a, 2, c->skip[i]);
	args_i64(a, 3, c->limit);
}

static void
read_receipt(struct receipt_out *o, const PGresult *r, int row)
{
	struct slice grant = row_slice(r, row, 9);

	o->account_id = row_i64(r, row, 0);
	o->notification_id = row_uuid(r, row, 1);
	o->kind = (enum receipt_kind)row_i32(r, row, 2);
	o->sender_id = row_i64(r, row, 3);
	o->domain_id = row_i64(r, row, 4);
	o->account = row_text(r, row, 5);
	o->sender = row_text(r, row, 6);
	o->domain = row_text(r, row, 7);
	o->id = row_text(r, row, 8);
	o->date_s = row_time(r, row, 10) / 1000000;
	o->is_void = row_bool(r, row, 11) || grant.len != sizeof(o->grant) || o->id == NULL;
	if (!o->is_void)
		memcpy(o->grant, grant.data, grant.len);
}

static void
rows_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct receipt_claim *c = (struct receipt_claim *)jobs[0];

	(void)n;
	receipt_claim_clear(c);
	c->rows = rows_room(r, sizeof(c->rows[0]),
	                    &c->job); /* else leased in vain: they come again */
	for (int row = 0; c->rows != NULL && row < PQntuples(r); row++)
		read_receipt(&c->rows[c->rows_n++], r, row);
}

static const struct store_op claim_run = {
	.name = "receipt_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT account_id, notification_id, kind FROM tmtp.receipt_outbox "
	    " WHERE (leased_until IS NULL OR leased_until < $1) AND NOT domain_id = ANY ($3) "
	    " ORDER BY domain_id, sender_id, happened_at LIMIT $4 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.receipt_outbox o SET leased_until = $2, attempts = o.attempts + 1, "
	    "  lease_owner = tmtp.this_worker() "
	    " FROM pick WHERE o.account_id = pick.account_id "
	    "  AND o.notification_id = pick.notification_id AND o.kind = pick.kind RETURNING o.*) "
	    "SELECT o.account_id, o.notification_id, o.kind::int4, o.sender_id, o.domain_id, "
	    " a.name || '@' || a.domain, s.address, d.name, n.id, c.grant_id, o.happened_at, "
	    " c.grant_id IS NULL OR o.happened_at < $1 - interval '30 days' "
	    "FROM claimed o JOIN tmtp.account a ON a.account_id = o.account_id "
	    "JOIN tmtp.sender s ON s.sender_id = o.sender_id "
	    "JOIN tmtp.domain d ON d.domain_id = o.domain_id "
	    "LEFT JOIN LATERAL (SELECT k.id FROM tmtp.notification k "
	    " WHERE k.notification_id = o.notification_id LIMIT 1) n ON true "
	    "LEFT JOIN LATERAL (SELECT k.grant_id FROM tmtp.consent k WHERE k.account_id = o.account_id "
	    " AND k.sender_id = o.sender_id AND k.channel = o.channel AND k.state = 1 AND k.receipts LIMIT 1) c ON true "
	    "ORDER BY o.domain_id, o.sender_id, a.domain, o.happened_at",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8S, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_claim,
	.rows = rows_claim,
};

void
store_receipt_claim(struct store *store, struct receipt_claim *claim)
{
	claim->job.op = &claim_run;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

void
receipt_out_clear(struct receipt_out *row)
{
	free(row->account);
	free(row->sender);
	free(row->domain);
	free(row->id);
	*row = (struct receipt_out){ .account = NULL };
}

void
receipt_claim_clear(struct receipt_claim *claim)
{
	for (size_t i = 0; i < claim->rows_n; i++)
		receipt_out_clear(&claim->rows[i]);
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

/* --- The end of one's way ------------------------------------------------------ */

static void
bind_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct receipt_finish *f = (const struct receipt_finish *)jobs[0];

	(void)n;
	for (size_t i = 0; i < f->rows_n; i++) {
		args_i64(a, 0, f->rows[i].account_id);
		args_uuid(a, 1, &f->rows[i].notification_id);
		args_i32(a, 2, (int32_t)f->rows[i].kind);
	}
	args_bool(a, 3, f->sent);
	args_time(a, 4, f->not_before_us);
}

static const struct store_op finish_run = {
	.name = "receipt_finish",
	.sql =
	    "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int8[], $2::uuid[], $3::int4[]) "
	    "  AS i(account_id, notification_id, kind)), "
	    "gone AS (DELETE FROM tmtp.receipt_outbox o USING i WHERE $4 AND o.account_id = i.account_id "
	    " AND o.notification_id = i.notification_id AND o.kind = i.kind) "
	    "UPDATE tmtp.receipt_outbox o SET leased_until = $5, lease_owner = NULL FROM i WHERE NOT $4 "
	    " AND o.account_id = i.account_id AND o.notification_id = i.notification_id AND o.kind = i.kind",
	.types = (const Oid[]){ T_INT8S, T_UUIDS, T_INT4S, T_BOOL, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_finish,
};

void
store_receipt_finish(struct store *store, struct receipt_finish *finish)
{
	finish->job.op = &finish_run;
	store_submit(store, &finish->job);
}

/* --- Those that came -------------------------------------------------------------- */

static void
bind_take(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct receipt_take *t = (const struct receipt_take *)jobs[0];

	(void)n;
	args_slice(a, 0, t->site_domain);
	args_slice(a, 1, t->site_name);
	args_slice(a, 2, t->domain);
	for (size_t i = 0; i < t->rows_n; i++) {
		args_uuid(a, 3, &t->rows[i].message_id);
		args_slice(a, 4, slice_mem(t->rows[i].grant, 20));
		args_i32(a, 5, (int32_t)t->rows[i].kind);
		args_time(a, 6, t->rows[i].at_us);
	}
	args_time(a, 7, t->now_us);
}

static void
rows_take(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct receipt_take *)jobs[0])->taken = PQntuples(r) == 1 ? row_i64(r, 0, 0) : 0;
}

static const struct store_op take_run = {
	.name = "receipt_take",
	.sql =
	    "WITH it AS MATERIALIZED (SELECT t.site_id, m.message_id, s.domain_id, s.member, "
	    "  min(greatest(least(r.at, $8), m.accepted_at)) FILTER (WHERE r.kind = 1) AS read_at, "
	    "  min(greatest(least(r.at, $8), m.accepted_at)) FILTER (WHERE r.kind = 2) AS withdrawn_at "
	    " FROM tmtp.site t JOIN tmtp.domain d ON d.name = $3 "
	    " CROSS JOIN unnest($4::uuid[], $5::bytea[], $6::int4[], $7::timestamptz[]) "
	    "  AS r(message_id, grant_id, kind, at) "
	    " CROSS JOIN LATERAL (SELECT k.* FROM tmtp.subscription k WHERE k.site_id = t.site_id "
	    "  AND k.grant_id = r.grant_id AND k.receipts AND k.domain_id = d.domain_id LIMIT 1) s "
	    " CROSS JOIN LATERAL (SELECT k.* FROM tmtp.message k WHERE k.site_id = t.site_id "
	    "  AND k.message_id = r.message_id AND k.recalls IS NULL AND k.channel_id = s.channel_id LIMIT 1) m "
	    " WHERE t.domain = $1 AND t.name = $2 AND (m.audience = 2 AND s.joined_at <= m.accepted_at "
	    "  OR m.audience < 2 AND EXISTS (SELECT FROM tmtp.batch b WHERE b.site_id = t.site_id "
	    "   AND b.message_id = m.message_id AND b.batch_no < 1000000 AND b.domain_id = s.domain_id "
	    "   AND s.member = ANY (b.members))) "
	    " GROUP BY t.site_id, m.message_id, s.domain_id, s.member), "
	    "kept AS (INSERT INTO tmtp.receipt AS r (site_id, message_id, domain_id, member, read_at, withdrawn_at) "
	    " SELECT * FROM it ORDER BY 1, 2, 3, 4 ON CONFLICT (site_id, message_id, domain_id, member) "
	    " DO UPDATE SET read_at = coalesce(r.read_at, EXCLUDED.read_at), "
	    "  withdrawn_at = coalesce(r.withdrawn_at, EXCLUDED.withdrawn_at)) "
	    "SELECT count(*) FROM it",
	.types = (const Oid[]){ T_TEXT, T_TEXT, T_TEXT, T_UUIDS, T_BYTEAS, T_INT4S,
	                        T_TIMESTAMPTZS, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_take,
	.rows = rows_take,
};

void
store_receipt_take(struct store *store, struct receipt_take *take)
{
	take->job.op = &take_run;
	take->taken = 0;
	store_submit(store, &take->job);
}
