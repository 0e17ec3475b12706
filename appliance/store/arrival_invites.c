/* Invitations that arrive: see arrivals.h. */
#include "store/arrivals.h"
#include "store/op.h"

static void
bind_invite(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_invite *v = (const struct arrival_invite *)jobs[0];

	(void)n;
	args_slice(a, 0, v->from);
	args_slice(a, 1, v->from_domain);
	args_slice(a, 2, v->registrable);
	args_slice(a, 3, v->domain);
	args_slice(a, 4, v->name);
	args_slice(a, 5, v->channel);
	args_slice(a, 6, v->id);
	args_slice(a, 7, v->digest);
	args_slice(a, 8, v->uris);
	if (v->key.len > 0) {
		args_slice(a, 9, v->key);
		args_slice(a, 10, v->signature);
	}
	args_i64(a, 11, v->size);
	args_i64(a, 12, v->date_s);
	args_time(a, 13, v->expires_us);
	args_time(a, 14, v->now_us);
	args_i32(a, 15, v->slot);
	args_i64(a, 16, 1);
	args_time(a, 17, v->lease_until_us);
	args_uuid(a, 18, &v->fresh_id);
	args_i64(a, 19, v->sender_id);
	args_i64(a, 20, v->domain_id);
	args_i64(a, 21, v->per_day);
}

static void
rows_invite(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_invite *v = (struct arrival_invite *)jobs[0];

	(void)n;
	v->shown = PQntuples(r) == 1 && !row_is_null(r, 0, 0);
	v->account_id = v->shown ? row_i64(r, 0, 0) : 0;
}

/*
 * DMTP.md section 7: at most one unanswered for (registrable domain, member),
 * capped by day; a refusal (or a revocation) is final for that sender, a second
 * one for the domain. Who granted needs no invitation: the site that still asks
 * has removed the member since, or lost the grant, and is told it again, of a
 * later date (not more than a second ahead, however often it asks). Who is of
 * the member's own domain answers for himself alone: its operator knows him. A
 * sender or domain that another process has just made known is
 * not seen: the transaction is run again.
 */
static const struct store_op invite_run = {
	.name = "arrival_invite",
	.sql =
	    "WITH member AS MATERIALIZED (SELECT account_id FROM tmtp.account "
	    "  WHERE domain = $4 AND name = $5 AND disabled_at IS NULL), "
	    "theirs AS MATERIALIZED (SELECT c.* , s.address, s.domain_id FROM member m "
	    "  JOIN tmtp.consent c ON c.account_id = m.account_id "
	    "  JOIN tmtp.sender s ON s.sender_id = c.sender_id AND s.registrable = $3 "
	    "  AND ($2 <> $4 OR s.address = $1)), "
	    "wanted AS MATERIALIZED (SELECT m.account_id FROM member m WHERE "
	    "  NOT EXISTS (SELECT FROM theirs WHERE state = 0) "
	    "  AND NOT EXISTS (SELECT FROM theirs WHERE address = $1 AND channel = $6) "
	    "  AND NOT EXISTS (SELECT FROM theirs WHERE address = $1 AND state IN (2, 3)) "
	    "  AND (SELECT count(*) FROM theirs WHERE state IN (2, 3)) < 2 "
	    "  AND (SELECT count(*) FROM theirs WHERE asked_at > $15 - interval '1 day') < $22), "
	    "counted AS (UPDATE tmtp.arrival_count SET recipients = recipients + $17 WHERE slot = $16), "
	    "told AS (UPDATE tmtp.consent c SET changed_id = $19, "
	    "  grant_date = greatest(floor(extract(epoch FROM $15))::int8, c.grant_date + 1) FROM theirs t "
	    "  WHERE t.address = $1 AND t.channel = $6 AND c.account_id = t.account_id "
	    "  AND c.sender_id = t.sender_id AND c.channel = t.channel AND c.state = 1 "
	    "  AND c.changed_id = t.changed_id AND c.grant_date <= floor(extract(epoch FROM $15))::int8 "
	    "  RETURNING c.account_id, c.sender_id, c.channel, t.domain_id), "
	    "queued AS (INSERT INTO tmtp.grant_outbox (account_id, sender_id, channel, domain_id, changed_id) "
	    "  SELECT account_id, sender_id, channel, domain_id, $19 FROM told "
	    "  ON CONFLICT (account_id, sender_id, channel) DO UPDATE SET changed_id = EXCLUDED.changed_id, "
	    "  attempts = 0, leased_until = NULL), "
	    "dom AS (INSERT INTO tmtp.domain (domain_id, name, created_at) "
	    "  SELECT $21, $2, $15 FROM wanted ON CONFLICT DO NOTHING RETURNING domain_id), "
	    "their_domain AS MATERIALIZED (SELECT domain_id FROM tmtp.domain WHERE name = $2 "
	    "  UNION ALL SELECT domain_id FROM dom), "
	    "new_sender AS (INSERT INTO tmtp.sender (sender_id, address, domain_id, registrable, created_at) "
	    "  SELECT $20, $1, d.domain_id, $3, $15 FROM wanted CROSS JOIN their_domain d "
	    "  ON CONFLICT DO NOTHING RETURNING sender_id, domain_id), "
	    "whose AS MATERIALIZED (SELECT sender_id, domain_id FROM tmtp.sender WHERE address = $1 "
	    "  UNION ALL SELECT sender_id, domain_id FROM new_sender), "
	    "dg AS (INSERT INTO tmtp.notification_digest (digest, sender_id, notification_id) "
	    "  SELECT $8, whose.sender_id, $19 FROM wanted CROSS JOIN whose ON CONFLICT DO NOTHING RETURNING 1), "
	    "nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, recipient, digest, size, "
	    "  date_s, expires_at, uris, signing_key, signature, leased_until) "
	    "  SELECT $19, whose.sender_id, $6, $5 || '@' || $4, $8, $12, $13, $14, $9, $10, $11, $18 "
	    "  FROM wanted CROSS JOIN whose CROSS JOIN dg), "
	    "asked AS (INSERT INTO tmtp.consent (account_id, sender_id, channel, state, asked_at, "
	    "  invitation, changed_id, grant_date) "
	    "  SELECT wanted.account_id, whose.sender_id, $6, 0, $15, $19, $19, 0 "
	    "  FROM wanted CROSS JOIN whose CROSS JOIN dg "
	    "  ON CONFLICT DO NOTHING RETURNING account_id) "
	    "SELECT (SELECT account_id FROM asked), "
	    " CASE WHEN EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM whose) THEN tmtp.race() END",
	.types =
	    (const Oid[]){ T_TEXT, T_TEXT,        T_TEXT,        T_TEXT, T_TEXT,  T_TEXT,
	                   T_TEXT, T_BYTEA,       T_TEXT,        T_TEXT, T_BYTEA, T_INT8,
	                   T_INT8, T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT4, T_INT8,  T_TIMESTAMPTZ,
	                   T_UUID, T_INT8,        T_INT8,        T_INT8, 0 },
	.lane = STORE_ARRIVE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_invite,
	.rows = rows_invite,
};

void
store_arrival_invite(struct store *store, struct arrival_invite *invite)
{
	invite->job.op = &invite_run;
	store_submit(store, &invite->job);
}
