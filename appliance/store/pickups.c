/* Pickups: see pickups.h. */
#include "store/pickups.h"

#include "store/op.h"
#include "store/rows.h"

#include <stdlib.h>

static void
bind_pickup_claim(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct pickup_claim *c = (const struct pickup_claim *)jobs[0];

	(void)n;
	args_time(a, 0, c->now_us);
	args_time(a, 1, c->lease_until_us);
	args_uuid(a, 2, &c->oldest);
	args_i64(a, 3, c->limit);
}

static bool
read_pickup(struct pickup *p, const PGresult *r, int row)
{
	struct slice digest = row_slice(r, row, 4), signature = row_slice(r, row, 10);

	p->notification_id = row_uuid(r, row, 0);
	p->sender = row_text(r, row, 1);
	p->channel = row_text(r, row, 2);
	p->recipient = row_text(r, row, 3);
	if (digest.len == sizeof(p->digest))
		memcpy(p->digest, digest.data, digest.len);
	p->size = row_i64(r, row, 5);
	p->date_s = row_i64(r, row, 6);
	p->expires_us = row_time(r, row, 7);
	p->uris = row_text(r, row, 8);
	p->key = row_text(r, row, 9);
	p->attempts = row_i32(r, row, 11);
	if (signature.len > 0 && (p->signature = malloc(signature.len)) != NULL) {
		memcpy(p->signature, signature.data, signature.len);
		p->signature_len = signature.len;
	}
	return p->sender != NULL && p->channel != NULL && p->uris != NULL;
}

static void
rows_pickup_claim(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct pickup_claim *c = (struct pickup_claim *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	pickup_claim_clear(c);
	c->rows = calloc((size_t)count + 1, sizeof(*c->rows));
	if (c->rows == NULL)
		return; /* leased in vain: they come again */
	for (int row = 0; row < count; row++) {
		if (read_pickup(&c->rows[c->rows_n], r, row))
			c->rows_n++;
		else
			pickup_clear(&c->rows[c->rows_n]);
	}
}

static const struct store_op pickup_claim_run = {
	.name = "pickup_claim",
	.sql =
	    "WITH pick AS MATERIALIZED (SELECT notification_id FROM tmtp.notification "
	    "  WHERE state = 0 AND notification_id >= $3 AND (leased_until IS NULL OR leased_until < $1) "
	    "  AND (not_before IS NULL OR not_before <= $1) "
	    "  ORDER BY notification_id LIMIT $4 FOR UPDATE SKIP LOCKED), "
	    "claimed AS (UPDATE tmtp.notification n SET leased_until = $2, "
	    "  lease_owner = tmtp.this_worker(), attempts = n.attempts + 1 "
	    "  FROM pick WHERE n.notification_id = pick.notification_id RETURNING n.*) "
	    "SELECT c.notification_id, s.address, c.channel, c.recipient, c.digest, c.size, c.date_s, "
	    " c.expires_at, c.uris, c.signing_key, c.signature, c.attempts::int4 "
	    "FROM claimed c JOIN tmtp.sender s ON s.sender_id = c.sender_id ORDER BY c.notification_id",
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_UUID, T_INT8, 0 },
	.lane = STORE_WRITE,
	.bind = bind_pickup_claim,
	.rows = rows_pickup_claim,
};

void
store_pickup_claim(struct store *store, struct pickup_claim *claim)
{
	claim->job.op = &pickup_claim_run;
	claim->rows = NULL;
	claim->rows_n = 0;
	store_submit(store, &claim->job);
}

void
pickup_clear(struct pickup *p)
{
	free(p->sender);
	free(p->channel);
	free(p->recipient);
	free(p->uris);
	free(p->key);
	free(p->signature);
	*p = (struct pickup){ .sender = NULL };
}

void
pickup_claim_clear(struct pickup_claim *claim)
{
	for (size_t i = 0; i < claim->rows_n; i++)
		pickup_clear(&claim->rows[i]);
	free(claim->rows);
	claim->rows = NULL;
	claim->rows_n = 0;
}

static void
bind_pickup_finish(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct pickup_finish *f = (const struct pickup_finish *)jobs[i];
		bool verified = f->end == PICKUP_VERIFIED;

		args_i32(a, 0, (int)i);
		args_uuid(a, 1, &f->notification_id);
		args_i32(a, 2, (int32_t)f->end);
		args_time(a, 3, verified ? f->now_us : -1);
		if (verified)
			args_slice(a, 4, f->body);
		else
			args_null(a, 4);
		args_text(a, 5, verified ? NULL : f->reason);
		args_time(a, 6, f->end == PICKUP_AGAIN ? f->not_before_us : -1);
		if (verified && f->only_name.len > 0) {
			args_slice(a, 7, f->only_domain);
			args_slice(a, 8, f->only_name);
		} else {
			args_null(a, 7);
			args_null(a, 8);
		}
	}
}

static size_t
octets_pickup_finish(const struct store_job *job)
{
	return ((const struct pickup_finish *)job)->body.len;
}

static void
rows_pickup_finish(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct pickup_finish *f = (struct pickup_finish *)jobs[row_i32(r, row, 0)];

		f->only_account = row_i64(r, row, 1);
		f->unseen = row_bool(r, row, 2);
		f->job.rc = STORE_OK;
	}
}

/*
 * Repeatable: a notification that is no longer to be picked up stays as it is,
 * and its job is told so. A message to a member who isn't here has failed.
 */
static const struct store_op pickup_finish_run = {
	.name = "pickup_finish",
	.sql =
	    "UPDATE tmtp.notification n SET state = CASE WHEN i.only = -1 THEN 2 ELSE i.state END, "
	    " verified_at = i.verified_at, body = CASE WHEN i.only = -1 THEN NULL ELSE i.body END, "
	    " reason = CASE WHEN i.only = -1 THEN 'to' ELSE i.reason END, "
	    " only_account = nullif(i.only, 0), not_before = i.not_before, leased_until = NULL "
	    "FROM (SELECT u.*, CASE WHEN u.only_name IS NULL THEN 0 ELSE coalesce((SELECT a.account_id "
	    "  FROM tmtp.account a WHERE a.domain = u.only_domain AND a.name = u.only_name), -1) END AS only "
	    " FROM unnest($1::int4[], $2::uuid[], $3::int4[], $4::timestamptz[], $5::bytea[], $6::text[], "
	    "  $7::timestamptz[], $8::text[], $9::text[]) AS u(ord, notification_id, state, verified_at, body, "
	    "  reason, not_before, only_domain, only_name)) i "
	    /* not "= 0", which would lead the planner to the index of all that is pending */
	    "WHERE n.notification_id = i.notification_id AND n.state < 1 RETURNING i.ord, i.only::int8, "
	    " i.only <> 0 AND NOT EXISTS (SELECT FROM tmtp.inbox b WHERE b.account_id = i.only "
	    "  AND b.notification_id = i.notification_id)",
	.types = (const Oid[]){ T_INT4S, T_UUIDS, T_INT4S, T_TIMESTAMPTZS, T_BYTEAS, T_TEXTS,
	                        T_TIMESTAMPTZS, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_ARRIVE,
	.batch_max = 128,
	.repeatable = true,
	.octets = octets_pickup_finish,
	.bind = bind_pickup_finish,
	.rows = rows_pickup_finish,
};

void
store_pickup_finish(struct store *store, struct pickup_finish *finish)
{
	finish->job.op = &pickup_finish_run;
	store_submit(store, &finish->job);
}

static void
bind_resume(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct pickup_resume *w = (const struct pickup_resume *)jobs[0];

	(void)n;
	args_slice(a, 0, w->domain);
	args_time(a, 1, w->now_us);
}

static void
rows_resume(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct pickup_resume *)jobs[0])->count = PQntuples(r) == 1 ? row_i64(r, 0, 0) : 0;
}

static const struct store_op resume_run = {
	.name = "pickup_resume",
	.sql =
	    "WITH theirs AS MATERIALIZED (SELECT s.sender_id FROM tmtp.sender s "
	    "  JOIN tmtp.domain d ON d.domain_id = s.domain_id WHERE d.name = $1), "
	    "messages AS (UPDATE tmtp.notification n SET not_before = NULL WHERE n.state = 0 "
	    "  AND n.not_before > $2 AND n.sender_id = ANY (ARRAY(SELECT sender_id FROM theirs)) RETURNING 1), "
	    "copies AS (UPDATE tmtp.copy c SET not_before = NULL WHERE c.state = 0 "
	    "  AND c.not_before > $2 AND c.sender_id = ANY (ARRAY(SELECT sender_id FROM theirs)) RETURNING 1) "
	    "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM copies)",
	.types = (const Oid[]){ T_TEXT, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_resume,
	.rows = rows_resume,
};

void
store_pickup_resume(struct store *store, struct pickup_resume *resume)
{
	resume->job.op = &resume_run;
	store_submit(store, &resume->job);
}

/* --- Who is to be told ---------------------------------------------------- */

static void
bind_holders(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_holders *h = (const struct arrival_holders *)jobs[0];

	(void)n;
	args_uuid(a, 0, &h->notification_id);
	for (size_t i = 0; i < h->ask_n; i++)
		args_i64(a, 1, h->ask[i]);
}

static void
rows_holders(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_holders *h = (struct arrival_holders *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	arrival_holders_clear(h);
	h->accounts = calloc((size_t)count + 1, sizeof(*h->accounts));
	if (h->accounts == NULL) {
		h->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++)
		h->accounts[row] = row_i64(r, row, 0);
	h->accounts_n = (size_t)count;
}

static const struct store_op holders_get = {
	.name = "arrival_holders",
	.sql = "SELECT i.account_id FROM unnest($2::int8[]) AS ask(account_id) "
	       "JOIN tmtp.inbox i ON i.account_id = ask.account_id AND i.notification_id = $1 "
	       "WHERE i.dropped_at IS NULL",
	.types = (const Oid[]){ T_UUID, T_INT8S, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_holders,
	.rows = rows_holders,
};

void
store_arrival_holders(struct store *store, struct arrival_holders *holders)
{
	holders->job.op = &holders_get;
	holders->accounts = NULL;
	holders->accounts_n = 0;
	store_submit(store, &holders->job);
}

void
arrival_holders_clear(struct arrival_holders *holders)
{
	free(holders->accounts);
	holders->accounts = NULL;
	holders->accounts_n = 0;
}
