/* Presence: see presence.h. */
#include "store/presence.h"

#include "store/rows.h"

/* What was told is told again after that long; the other side believes it for longer. */
#define TELL_AGAIN "interval '4 minutes'"

const char *
presence_state_name(enum presence_state state)
{
	static const char *const names[] = {
		[PRESENCE_OFFLINE] = "offline",
		[PRESENCE_ONLINE] = "online",
		[PRESENCE_AWAY] = "away",
	};

	return names[state];
}

/* Behind a CTE "changed" of accounts, with the time in `now`. */
#define QUEUE(now)                                                                              \
	"queued AS (INSERT INTO tmtp.presence_outbox (account_id, domain_id, changed_at) "      \
	" SELECT DISTINCT c.account_id, k.domain_id, " now " FROM changed c "                   \
	" CROSS JOIN LATERAL (SELECT v.domain_id FROM tmtp.presence_contact v "                 \
	"  WHERE v.account_id = c.account_id) k ORDER BY 1, 2 "                                 \
	" ON CONFLICT (account_id, domain_id) DO UPDATE SET changed_at = EXCLUDED.changed_at, " \
	"  leased_until = NULL) "

/* --- What a process sees ----------------------------------------------------- */

static void
bind_note(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct presence_note *note = (const struct presence_note *)jobs[0];

	(void)n;
	for (size_t i = 0; i < note->seen_n; i++) {
		args_i64(a, 0, note->seen[i].account_id);
		args_bool(a, 1, note->seen[i].online);
		args_bool(a, 2, note->seen[i].anew);
	}
	args_uuid(a, 3, &note->process);
	args_time(a, 4, note->now_us);
	args_time(a, 5, note->until_us);
}

static const struct store_op note_op = {
	.name = "presence_note",
	.sql =
	    "WITH i AS MATERIALIZED (SELECT u.* FROM unnest($1::int8[], $2::bool[], $3::bool[]) "
	    "  AS u(account_id, online, anew) "
	    " WHERE EXISTS (SELECT FROM tmtp.consent c WHERE c.account_id = u.account_id AND c.presence)), "
	    "put AS (INSERT INTO tmtp.presence_process (account_id, process, until) "
	    " SELECT account_id, $4, $6 FROM i WHERE online ORDER BY account_id "
	    " ON CONFLICT (account_id, process) DO UPDATE SET until = EXCLUDED.until), "
	    "gone AS (DELETE FROM tmtp.presence_process p USING i WHERE NOT i.online "
	    " AND p.account_id = i.account_id AND p.process = $4), "
	    "new AS MATERIALIZED (SELECT i.account_id, i.anew, o.state AS old, o.told_at, "
	    "  CASE WHEN i.online OR EXISTS (SELECT FROM tmtp.presence_process p "
	    "    WHERE p.account_id = i.account_id AND p.process <> $4 AND p.until > $5) "
	    "   THEN CASE WHEN coalesce(o.away, false) THEN 2 ELSE 1 END ELSE 0 END AS state "
	    " FROM i LEFT JOIN LATERAL (SELECT k.* FROM tmtp.presence k "
	    "  WHERE k.account_id = i.account_id LIMIT 1) o ON true), "
	    "changed AS (INSERT INTO tmtp.presence AS p (account_id, state, since, told_at) "
	    " SELECT account_id, state, $5, $5 FROM new WHERE CASE WHEN old IS NULL THEN state > 0 "
	    "  ELSE old <> state OR anew OR state > 0 AND told_at < $5 - " TELL_AGAIN " END "
	    " ORDER BY account_id ON CONFLICT (account_id) DO UPDATE SET state = EXCLUDED.state, "
	    "  since = CASE WHEN p.state = EXCLUDED.state THEN p.since ELSE EXCLUDED.since END, "
	    "  away = p.away AND EXCLUDED.state > 0, told_at = EXCLUDED.told_at "
	    " RETURNING account_id), " QUEUE("$5") "SELECT count(*) FROM changed",
	.types =
	    (const Oid[]){ T_INT8S, T_BOOLS, T_BOOLS, T_UUID, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_note,
};

void
store_presence_note(struct store *store, struct presence_note *note)
{
	note->job.op = &note_op;
	store_submit(store, &note->job);
}

static void
bind_sweep(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_time(a, 0, ((const struct presence_sweep *)jobs[0])->now_us);
}

static void
rows_sweep(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct presence_sweep *)jobs[0])->swept = PQntuples(r) > 0 ? row_i64(r, 0, 0) : 0;
}

/* The states that stand without a process to back them, not only those that lapsed just now. */
static const struct store_op sweep_op = {
	.name = "presence_sweep",
	.sql =
	    "WITH lapsed AS (DELETE FROM tmtp.presence_process WHERE until <= $1), "
	    "changed AS (UPDATE tmtp.presence p SET state = 0, away = false, since = $1, told_at = $1 "
	    " WHERE p.state > 0 AND NOT EXISTS (SELECT FROM tmtp.presence_process k "
	    "  WHERE k.account_id = p.account_id AND k.until > $1) RETURNING p.account_id), " QUEUE(
		"$1") "SELECT count(*) FROM changed",
	.types = (const Oid[]){ T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_sweep,
	.rows = rows_sweep,
};

void
store_presence_sweep(struct store *store, struct presence_sweep *sweep)
{
	sweep->job.op = &sweep_op;
	store_submit(store, &sweep->job);
}

static void
bind_own(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct presence_own *own = (const struct presence_own *)jobs[0];

	(void)n;
	args_i64(a, 0, own->account_id);
	args_time(a, 1, own->now_us);
	if (own->what != PRESENCE_LOOK)
		args_bool(a, 2, own->what == PRESENCE_SAY_AWAY);
}

static void
rows_own(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct presence_own *)jobs[0])->state =
	    PQntuples(r) > 0 ? (enum presence_state)row_i32(r, 0, 0) : PRESENCE_OFFLINE;
}

static const struct store_op own_op = {
	.name = "presence_own",
	.sql =
	    "WITH changed AS (UPDATE tmtp.presence p SET away = $3, state = CASE WHEN $3 THEN 2 ELSE 1 END, "
	    "  since = $2, told_at = $2 WHERE p.account_id = $1 AND p.state > 0 AND p.away <> $3 "
	    " RETURNING p.account_id, p.state), " QUEUE(
		"$2") "SELECT state::int4 FROM changed UNION ALL "
		      "SELECT p.state::int4 FROM tmtp.presence p WHERE p.account_id = $1 "
		      " AND NOT EXISTS (SELECT FROM changed)",
	.types = (const Oid[]){ T_INT8, T_TIMESTAMPTZ, T_BOOL, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_own,
	.rows = rows_own,
};

void
store_presence_own(struct store *store, struct presence_own *own)
{
	own->job.op = &own_op;
	store_submit(store, &own->job);
}

/* --- What other servers say ---------------------------------------------------- */

static void
bind_arrival(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct presence_arrival *p = (const struct presence_arrival *)jobs[0];

	(void)n;
	args_slice(a, 0, p->from);
	for (size_t i = 0; i < p->grants_n; i++)
		args_slice(a, 1, slice_mem(p->grants[i], sizeof(p->grants[i])));
	args_i32(a, 2, (int32_t)p->state);
	args_time(a, 3, p->since_us);
	args_time(a, 4, p->until_us);
	args_time(a, 5, p->now_us);
}

static void
rows_arrival(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct presence_arrival *p = (struct presence_arrival *)jobs[0];

	(void)n;
	presence_arrival_clear(p);
	p->accounts = rows_room(r, sizeof(*p->accounts), &p->job);
	for (int row = 0; p->accounts != NULL && row < PQntuples(r); row++)
		p->accounts[p->accounts_n++] = row_i64(r, row, 0);
}

static const struct store_op arrival_op = {
	.name = "presence_arrival",
	.sql =
	    "WITH told AS MATERIALIZED (SELECT DISTINCT g.account_id, g.sender_id FROM tmtp.sender s "
	    " CROSS JOIN unnest($2::bytea[]) AS x(grant_id) "
	    " CROSS JOIN LATERAL (SELECT k.* FROM tmtp.open_grant k WHERE k.grant_id = x.grant_id "
	    "  AND k.sender_id = s.sender_id AND k.channel = 'inbox' LIMIT 1) g "
	    " CROSS JOIN LATERAL (SELECT FROM tmtp.presence_contact v WHERE v.account_id = g.account_id "
	    "  AND v.sender_id = g.sender_id LIMIT 1) v WHERE s.address = $1), "
	    "put AS (INSERT INTO tmtp.contact_presence AS p (account_id, sender_id, state, since, until) "
	    " SELECT account_id, sender_id, $3, $4, $5 FROM told ORDER BY account_id, sender_id "
	    " ON CONFLICT (account_id, sender_id) DO UPDATE SET state = EXCLUDED.state, "
	    "  since = EXCLUDED.since, until = EXCLUDED.until WHERE EXCLUDED.since >= p.since "
	    " RETURNING account_id, sender_id) "
	    "SELECT put.account_id FROM put LEFT JOIN LATERAL (SELECT k.state, k.until "
	    " FROM tmtp.contact_presence k WHERE k.account_id = put.account_id "
	    " AND k.sender_id = put.sender_id LIMIT 1) old ON true "
	    "WHERE old.state IS DISTINCT FROM $3 OR old.until < $6",
	.types = (const Oid[]){ T_TEXT, T_BYTEAS, T_INT4, T_TIMESTAMPTZ, T_TIMESTAMPTZ,
	                        T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_arrival,
	.rows = rows_arrival,
};

void
store_presence_arrival(struct store *store, struct presence_arrival *arrival)
{
	arrival->job.op = &arrival_op;
	arrival->accounts = NULL;
	arrival->accounts_n = 0;
	store_submit(store, &arrival->job);
}

void
presence_arrival_clear(struct presence_arrival *arrival)
{
	free(arrival->accounts);
	arrival->accounts = NULL;
	arrival->accounts_n = 0;
}

/* --- Telling ------------------------------------------------------------------- */

static void
bind_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct presence_claim *c = (const struct presence_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	for (size_t i = 0; i < c->skip_n; i++)
		args_i64(a, 2, c->skip[i]);
	args_i64(a, 3, c->limit);
}

static void
count_grant(size_t i, struct slice v, void *arg)
{
	(void)i;
	(void)v;
	(void)arg;
}

static void
fill_grant(size_t i, struct slice v, void *arg)
{
	struct presence_out *out = arg;

	if (i < out->grants_n && v.len == sizeof(out->grants[i]))
		memcpy(out->grants[i], v.data, v.len);
}

static void
read_out(struct presence_out *out, const PGresult *r, int row, struct store_job *job)
{
	out->account_id = row_i64(r, row, 0);
	out->domain_id = row_i64(r, row, 1);
	out->address = row_text(r, row, 2);
	out->domain = row_text(r, row, 3);
	out->state = (enum presence_state)row_i32(r, row, 4);
	out->since_us = row_time(r, row, 5);
	out->changed_us = row_time(r, row, 6);
	out->grants_n = row_array(r, row, 7, count_grant, NULL);
	out->grants = calloc(out->grants_n + 1, sizeof(*out->grants));
	if (out->address == NULL || out->domain == NULL || out->grants == NULL) {
		out->grants_n = 0;
		job->rc = STORE_DOWN;
		return;
	}
	(void)row_array(r, row, 7, fill_grant, out);
}

static void
rows_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct presence_claim *c = (struct presence_claim *)jobs[0];

	(void)n;
	presence_claim_clear(c);
	c->rows = rows_room(r, sizeof(*c->rows), &c->job);
	for (int row = 0; c->rows != NULL && row < PQntuples(r); row++)
		read_out(&c->rows[c->rows_n++], r, row, &c->job);
}

static const struct store_op claim_op = {
	.name = "presence_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT o.account_id, o.domain_id FROM tmtp.presence_outbox o "
	    " WHERE (o.leased_until IS NULL OR o.leased_until < $1) AND NOT o.domain_id = ANY ($3) "
	    " AND NOT EXISTS (SELECT FROM tmtp.grant_outbox g WHERE g.account_id = o.account_id "
	    "  AND g.domain_id = o.domain_id) "
	    " LIMIT $4 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.presence_outbox o SET leased_until = $2, "
	    "  lease_owner = tmtp.this_worker() FROM pick "
	    " WHERE o.account_id = pick.account_id AND o.domain_id = pick.domain_id "
	    " RETURNING o.account_id, o.domain_id, o.changed_at) "
	    "SELECT o.account_id, o.domain_id, a.name || '@' || a.domain, d.name, "
	    " coalesce(p.state, 0)::int4, coalesce(p.since, o.changed_at), o.changed_at, "
	    " (SELECT array_agg(v.grant_id) FROM tmtp.presence_contact v "
	    "  WHERE v.account_id = o.account_id AND v.domain_id = o.domain_id) "
	    "FROM claimed o JOIN tmtp.account a ON a.account_id = o.account_id "
	    "JOIN tmtp.domain d ON d.domain_id = o.domain_id "
	    "LEFT JOIN tmtp.presence p ON p.account_id = o.account_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT8S, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_claim,
	.rows = rows_claim,
};

void
store_presence_claim(struct store *store, struct presence_claim *claim)
{
	claim->job.op = &claim_op;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

void
presence_out_clear(struct presence_out *out)
{
	free(out->address);
	free(out->domain);
	free(out->grants);
	*out = (struct presence_out){ .address = NULL };
}

void
presence_claim_clear(struct presence_claim *claim)
{
	for (size_t i = 0; i < claim->rows_n; i++)
		presence_out_clear(&claim->rows[i]);
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

static void
bind_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct presence_finish *f = (const struct presence_finish *)jobs[i];

		args_i64(a, 0, f->account_id);
		args_i64(a, 1, f->domain_id);
		args_time(a, 2, f->changed_us);
		args_bool(a, 3, f->told);
		args_time(a, 4, f->not_before_us);
	}
}

/* What changed meanwhile has no lease any more, and stays. */
static const struct store_op finish_op = {
	.name = "presence_finish",
	.sql =
	    "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int8[], $2::int8[], $3::timestamptz[], "
	    "  $4::bool[], $5::timestamptz[]) AS i(account_id, domain_id, changed_at, told, not_before)), "
	    "gone AS (DELETE FROM tmtp.presence_outbox o USING i WHERE i.told "
	    " AND o.account_id = i.account_id AND o.domain_id = i.domain_id AND o.changed_at = i.changed_at) "
	    "UPDATE tmtp.presence_outbox o SET leased_until = i.not_before, lease_owner = NULL FROM i WHERE NOT i.told "
	    " AND o.account_id = i.account_id AND o.domain_id = i.domain_id AND o.changed_at = i.changed_at",
	.types = (const Oid[]){ T_INT8S, T_INT8S, T_TIMESTAMPTZS, T_BOOLS, T_TIMESTAMPTZS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.repeatable = true,
	.bind = bind_finish,
};

void
store_presence_finish(struct store *store, struct presence_finish *finish)
{
	finish->job.op = &finish_op;
	store_submit(store, &finish->job);
}
