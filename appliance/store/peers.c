/* Peers' retry state and the GRANTs that wait for them: see peers.h. */
#include "store/peers.h"

#include "store/op.h"

#include <stdlib.h>

/* --- Loading ------------------------------------------------------------- */

static void
read_state(struct peer_state *s, const PGresult *r, int row)
{
	s->domain_id = row_i64(r, row, 0);
	s->failures = row_i32(r, row, 1);
	s->failing_since_us = row_time(r, row, 2);
	s->retry_at_us = row_time(r, row, 3);
	s->window_commands = row_i32(r, row, 4);
	s->held = row_bool(r, row, 5);
	s->reason = row_text(r, row, 6);
	s->refused_since_us = row_time(r, row, 7);
	s->refused_at_us = row_time(r, row, 8);
}

#define STATE_COLUMNS                                                                       \
	"p.domain_id, p.failures, p.failing_since, p.retry_at, p.window_commands, p.held, " \
	"p.reason, p.refused_since, p.refused_at"

static void
bind_nothing(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)a;
	(void)jobs;
	(void)n;
}

static void
rows_load(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct peer_load *load = (struct peer_load *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	peer_load_clear(load);
	load->rows = calloc((size_t)count + 1, sizeof(*load->rows));
	if (load->rows == NULL) {
		load->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++)
		read_state(&load->rows[row], r, row);
	load->rows_n = (size_t)count;
}

static const struct store_op load_get = {
	.name = "peer_load",
	.sql =
	    "SELECT " STATE_COLUMNS " FROM tmtp.peer p "
	    "WHERE p.failures > 0 OR p.held OR p.window_commands > 0 OR p.retry_at IS NOT NULL",
	.types = (const Oid[]){ 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_nothing,
	.rows = rows_load,
};

void
store_peer_load(struct store *store, struct peer_load *load)
{
	load->job.op = &load_get;
	load->rows = NULL;
	load->rows_n = 0;
	store_submit(store, &load->job);
}

void
peer_load_clear(struct peer_load *load)
{
	for (size_t i = 0; i < load->rows_n; i++)
		free(load->rows[i].reason);
	free(load->rows);
	load->rows = NULL;
	load->rows_n = 0;
}

/* --- Saving -------------------------------------------------------------- */

static void
bind_save(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct peer_save *s = (const struct peer_save *)jobs[0];

	(void)n;
	args_i64(a, 0, s->state.domain_id);
	args_i32(a, 1, s->state.failures);
	args_time(a, 2, s->state.failing_since_us);
	args_time(a, 3, s->state.retry_at_us);
	args_text(a, 4, s->state.reason);
	args_i32(a, 5, s->state.window_commands);
	args_time(a, 6, s->sent_us);
	args_time(a, 7, s->state.refused_since_us);
	args_time(a, 8, s->state.refused_at_us);
}

static const struct store_op save_run = {
	.name = "peer_save",
	.sql =
	    "INSERT INTO tmtp.peer AS p (domain_id, failures, failing_since, retry_at, reason, "
	    " window_commands, sent_at, refused_since, refused_at) "
	    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
	    "ON CONFLICT (domain_id) DO UPDATE SET failures = excluded.failures, "
	    " failing_since = excluded.failing_since, retry_at = excluded.retry_at, "
	    " reason = excluded.reason, window_commands = excluded.window_commands, "
	    " probe_until = NULL, probe_owner = NULL, sent_at = coalesce(excluded.sent_at, p.sent_at), "
	    " refused_since = CASE WHEN excluded.refused_since IS NOT NULL "
	    "  THEN least(excluded.refused_since, p.refused_since) END, "
	    " refused_at = excluded.refused_at",
	.types = (const Oid[]){ T_INT8, T_INT4, T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_TEXT, T_INT4,
	                        T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_save,
};

void
store_peer_save(struct store *store, struct peer_save *save)
{
	save->job.op = &save_run;
	store_submit(store, &save->job);
}

/* --- Probing --------------------------------------------------------------- */

static void
bind_probe(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct peer_probe *p = (const struct peer_probe *)jobs[0];

	(void)n;
	args_i64(a, 0, p->domain_id);
	args_time(a, 1, p->now_us);
	args_time(a, 2, p->until_us);
}

static void
rows_probe(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct peer_probe *p = (struct peer_probe *)jobs[0];

	(void)n;
	free(p->state.reason);
	p->state = (struct peer_state){ .domain_id = p->domain_id,
		                        .refused_since_us = -1,
		                        .refused_at_us = -1 };
	p->known = PQntuples(r) == 1;
	if (p->known)
		read_state(&p->state, r, 0);
	p->ours = !p->known || row_bool(r, 0, 9);
}

/* Without a row nobody else knows anything either. A tie of two is the database's to break. */
static const struct store_op probe_run = {
	.name = "peer_probe",
	.sql = "WITH ours AS (UPDATE tmtp.peer p SET probe_until = $3, "
	       "  probe_owner = tmtp.this_worker() WHERE p.domain_id = $1 "
	       " AND NOT p.held AND (p.retry_at IS NULL OR p.retry_at <= $2) "
	       " AND (p.failures > 0 OR p.retry_at IS NOT NULL) "
	       " AND (p.probe_until IS NULL OR p.probe_until <= $2) RETURNING 1) "
	       "SELECT " STATE_COLUMNS ", EXISTS (SELECT FROM ours) FROM tmtp.peer p "
	       "WHERE p.domain_id = $1",
	.types = (const Oid[]){ T_INT8, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.bind = bind_probe,
	.rows = rows_probe,
};

void
store_peer_probe(struct store *store, struct peer_probe *probe)
{
	probe->job.op = &probe_run;
	probe->state.reason = NULL;
	store_submit(store, &probe->job);
}

/* --- Administrators ------------------------------------------------------ */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_text(a, 0, ((const struct peer_list *)jobs[0])->domain);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct peer_list *list = (struct peer_list *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	peer_list_clear(list);
	list->rows = calloc((size_t)count + 1, sizeof(*list->rows));
	if (list->rows == NULL) {
		list->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		read_state(&list->rows[row].state, r, row);
		list->rows[row].domain = row_text(r, row, 9);
		list->rows[row].sent_us = row_time(r, row, 10);
	}
	list->rows_n = (size_t)count;
}

static const struct store_op list_get = {
	.name = "peer_list",
	.sql = "SELECT " STATE_COLUMNS ", d.name, p.sent_at FROM tmtp.domain d "
	       "JOIN tmtp.peer p ON p.domain_id = d.domain_id "
	       "WHERE $1::text IS NULL OR d.name = $1 ORDER BY d.name",
	.types = (const Oid[]){ T_TEXT, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

const char *
peer_state_name(const struct peer_state *state, int64_t now_us)
{
	if (state->held)
		return "held";
	if (state->failures > 0)
		return "failing";
	return state->retry_at_us > now_us ? "waiting" : "well";
}

void
store_peer_list(struct store *store, struct peer_list *list)
{
	list->job.op = &list_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

void
peer_list_clear(struct peer_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].domain);
		free(list->rows[i].state.reason);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
bind_hold(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct peer_hold *h = (const struct peer_hold *)jobs[0];
	struct uuid audit = uuid_make();

	(void)n;
	args_text(a, 0, h->domain);
	args_bool(a, 1, h->held);
	args_uuid(a, 2, &audit);
	args_time(a, 3, h->now_us);
	args_text(a, 4, h->actor);
}

static void
rows_hold(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) == 1 ? STORE_OK : STORE_NOT_FOUND;
}

static const struct store_op hold_run = {
	.name = "peer_hold",
	.sql =
	    "WITH changed AS (INSERT INTO tmtp.peer AS p (domain_id, held) "
	    " SELECT d.domain_id, $2 FROM tmtp.domain d WHERE d.name = $1 "
	    " ON CONFLICT (domain_id) DO UPDATE SET held = $2, "
	    "  failures = CASE WHEN $2 THEN p.failures ELSE 0 END, "
	    "  failing_since = CASE WHEN $2 THEN p.failing_since END, "
	    "  retry_at = CASE WHEN $2 THEN p.retry_at END, "
	    "  refused_since = CASE WHEN $2 THEN p.refused_since END, "
	    "  refused_at = CASE WHEN $2 THEN p.refused_at END, "
	    "  probe_until = CASE WHEN $2 THEN p.probe_until END RETURNING domain_id), "
	    "audit AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject) "
	    " SELECT $3, $4, $5, CASE WHEN $2 THEN 'peer-hold' ELSE 'peer-release' END, $1 FROM changed), "
	    "raised AS (UPDATE tmtp.revision SET number = number + 1 WHERE EXISTS (SELECT FROM changed)) "
	    "SELECT domain_id FROM changed",
	.types = (const Oid[]){ T_TEXT, T_BOOL, T_UUID, T_TIMESTAMPTZ, T_TEXT, 0 },
	.lane = STORE_WRITE,
	.wakes = "tmtp_relay",
	.bind = bind_hold,
	.rows = rows_hold,
};

void
store_peer_hold(struct store *store, struct peer_hold *hold)
{
	hold->job.op = &hold_run;
	store_submit(store, &hold->job);
}

/* --- GRANTs that wait ---------------------------------------------------- */

static void
bind_grant_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct grant_claim *c = (const struct grant_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	for (size_t i = 0; i < c->skip_n; i++)
		args_i64(a, 2, c->skip[i]);
	args_i64(a, 3, c->limit);
}

static void
read_grant(struct grant_out *g, const PGresult *r, int row)
{
	struct slice grant = row_slice(r, row, 7);

	g->account_id = row_i64(r, row, 0);
	g->sender_id = row_i64(r, row, 1);
	g->domain_id = row_i64(r, row, 2);
	g->account = row_text(r, row, 3);
	g->sender = row_text(r, row, 4);
	g->channel = row_text(r, row, 5);
	g->state = row_i32(r, row, 6);
	g->has_grant = grant.len == sizeof(g->grant);
	if (g->has_grant)
		memcpy(g->grant, grant.data, grant.len);
	g->receipts = row_bool(r, row, 8);
	g->date_s = row_i64(r, row, 9);
	g->changed_id = row_uuid(r, row, 10);
	g->attempts = row_i32(r, row, 11);
	g->domain = row_text(r, row, 12);
	g->presence = row_bool(r, row, 13);
}

static void
rows_grant_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct grant_claim *c = (struct grant_claim *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	grant_claim_clear(c);
	c->rows = calloc((size_t)count + 1, sizeof(*c->rows));
	if (c->rows == NULL)
		return; /* leased in vain: they come again */
	for (int row = 0; row < count; row++)
		read_grant(&c->rows[row], r, row);
	c->rows_n = (size_t)count;
}

static const struct store_op grant_claim_run = {
	.name = "grant_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT account_id, sender_id, channel FROM tmtp.grant_outbox "
	    " WHERE (leased_until IS NULL OR leased_until < $1) AND NOT domain_id = ANY ($3) "
	    " ORDER BY domain_id, changed_id LIMIT $4 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.grant_outbox o SET leased_until = $2, "
	    "  lease_owner = tmtp.this_worker(), attempts = o.attempts + 1 "
	    " FROM pick WHERE o.account_id = pick.account_id AND o.sender_id = pick.sender_id "
	    " AND o.channel = pick.channel "
	    " RETURNING o.account_id, o.sender_id, o.channel, o.domain_id, o.attempts) "
	    "SELECT o.account_id, o.sender_id, o.domain_id, a.name || '@' || a.domain, s.address, "
	    " o.channel, c.state::int4, c.grant_id, c.receipts, c.grant_date, c.changed_id, "
	    " o.attempts::int4, d.name, c.presence "
	    "FROM claimed o JOIN tmtp.consent c ON c.account_id = o.account_id "
	    " AND c.sender_id = o.sender_id AND c.channel = o.channel "
	    "JOIN tmtp.account a ON a.account_id = o.account_id "
	    "JOIN tmtp.sender s ON s.sender_id = o.sender_id "
	    "JOIN tmtp.domain d ON d.domain_id = o.domain_id "
	    "ORDER BY o.domain_id, c.changed_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8S, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_grant_claim,
	.rows = rows_grant_claim,
};

void
store_grant_claim(struct store *store, struct grant_claim *claim)
{
	claim->job.op = &grant_claim_run;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

void
grant_claim_clear(struct grant_claim *claim)
{
	for (size_t i = 0; i < claim->rows_n; i++) {
		free(claim->rows[i].account);
		free(claim->rows[i].sender);
		free(claim->rows[i].channel);
		free(claim->rows[i].domain);
	}
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

static void
bind_grant_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct grant_finish *f = (const struct grant_finish *)jobs[i];

		args_i64(a, 0, f->account_id);
		args_i64(a, 1, f->sender_id);
		args_text(a, 2, f->channel);
		args_uuid(a, 3, &f->changed_id);
		args_bool(a, 4, f->sent);
		args_time(a, 5, f->not_before_us);
	}
}

/* A consent that changed while its GRANT was on the way stays, to be sent anew. */
static const struct store_op grant_finish_run = {
	.name = "grant_finish",
	.sql =
	    "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::uuid[], "
	    "  $5::bool[], $6::timestamptz[]) AS i(account_id, sender_id, channel, changed_id, sent, not_before)), "
	    "gone AS (DELETE FROM tmtp.grant_outbox o USING i WHERE i.sent AND o.account_id = i.account_id "
	    " AND o.sender_id = i.sender_id AND o.channel = i.channel AND o.changed_id = i.changed_id) "
	    "UPDATE tmtp.grant_outbox o SET lease_owner = NULL, "
	    " leased_until = CASE WHEN i.sent THEN NULL ELSE i.not_before END "
	    "FROM i WHERE o.account_id = i.account_id AND o.sender_id = i.sender_id AND o.channel = i.channel "
	    " AND (NOT i.sent OR o.changed_id <> i.changed_id)",
	.types =
	    (const Oid[]){ T_INT8S, T_INT8S, T_TEXTS, T_UUIDS, T_BOOLS, T_TIMESTAMPTZS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.repeatable = true,
	.bind = bind_grant_finish,
};

void
store_grant_finish(struct store *store, struct grant_finish *finish)
{
	finish->job.op = &grant_finish_run;
	store_submit(store, &finish->job);
}
