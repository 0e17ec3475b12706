/*
 * Recalls that arrive: see recalls.h. The message's digest leads to its
 * notification, also when that one has yet to come; the entry of each
 * recipient is the lock, so of a message and its recall that come at the same
 * time to two processes the recall wins.
 */
#include "store/recalls.h"

#include "store/rows.h"

static void
bind_recall(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_recall *r = (const struct arrival_recall *)jobs[0];

	(void)n;
	args_slice(a, 0, r->from);
	args_slice(a, 1, r->id);
	args_slice(a, 2, r->recall);
	args_slice(a, 3, r->digest);
	args_i64(a, 4, r->size);
	args_i64(a, 5, r->date_s);
	args_uuid(a, 6, &r->fresh_id);
	for (size_t i = 0; i < r->rcpts_n; i++) {
		args_i32(a, 7, (int)i);
		args_slice(a, 8, slice_mem(r->rcpts[i].grant, 20));
	}
	args_time(a, 9, r->now_us);
	args_i32(a, 10, r->slot);
	args_i64(a, 11, (int64_t)r->rcpts_n);
}

static void
close_one(struct arrival_recall *r, int32_t index)
{
	if (index >= 0 && (size_t)index < r->rcpts_n)
		r->rcpts[index].closed = true;
}

/* Rows: conflict, notification, and an index that is closed or an account whose entry was withdrawn. */
static void
rows_recall(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_recall *w = (struct arrival_recall *)jobs[0];
	size_t count = (size_t)PQntuples(r);

	(void)n;
	arrival_recall_clear(w);
	w->outcome = ARRIVAL_STORED;
	for (size_t i = 0; i < w->rcpts_n; i++)
		w->rcpts[i].closed = false;
	w->accounts = calloc(count + 1, sizeof(*w->accounts));
	if (w->accounts == NULL || count == 0) {
		w->job.rc = STORE_DOWN;
		return;
	}
	if (row_bool(r, 0, 0))
		w->outcome = ARRIVAL_CONFLICT;
	w->notification_id = row_uuid(r, 0, 1);
	for (int row = 0; row < (int)count; row++) {
		if (!row_is_null(r, row, 2))
			close_one(w, row_i32(r, row, 2));
		if (!row_is_null(r, row, 3))
			w->accounts[w->accounts_n++] = row_i64(r, row, 3);
	}
}

/*
 * Parameters: $1 from, $2 the recall's id, $3 the recalled one, $4 digest,
 * $5 size, $6 date, $7 a fresh notification's id, $8 and $9 recipients, $10 now,
 * $11 and $12 the counter.
 *
 * A notification that isn't here is made in state 4: recalled before it was
 * announced. When it is announced after all, its recipients besides these get it.
 * A recall is told to a site that is to know what was read, unless it was.
 */
static const struct store_op recall_run = {
	.name = "arrival_recall",
	.sql =
	    "WITH c AS MATERIALIZED (SELECT s.sender_id, s.domain_id FROM (SELECT 1) AS one "
	    " LEFT JOIN LATERAL (SELECT k.* FROM tmtp.sender k WHERE k.address = $1 LIMIT 1) s ON true), "
	    "known AS MATERIALIZED (SELECT c.*, p.notification_id AS own_nid, "
	    "  (p.notification_id IS NOT NULL AND (p.digest <> $4 OR p.size <> $5 "
	    "    OR p.sender_id <> c.sender_id)) "
	    "  OR coalesce(o.size > 0 AND (o.digest <> $4 OR o.size <> $5 OR o.sender_id <> c.sender_id), false) "
	    "   AS conflict, "
	    "  d.notification_id IS NULL AS is_new, "
	    "  coalesce(d.notification_id, o.notification_id, $7) AS nid "
	    " FROM c LEFT JOIN LATERAL (SELECT k.* FROM tmtp.posted k "
	    "   WHERE k.domain_id = c.domain_id AND k.id = $2 LIMIT 1) p ON true "
	    "  LEFT JOIN LATERAL (SELECT k.* FROM tmtp.posted k "
	    "   WHERE k.domain_id = c.domain_id AND k.id = $3 LIMIT 1) o ON true "
	    "  LEFT JOIN LATERAL (SELECT k.* FROM tmtp.notification_digest k "
	    "   WHERE k.digest = $4 AND k.sender_id = c.sender_id LIMIT 1) d ON true), "
	    "looked AS MATERIALIZED (SELECT r.idx, g.account_id, g.channel "
	    " FROM unnest($8::int4[], $9::bytea[]) AS r(idx, grant_id) "
	    " LEFT JOIN LATERAL (SELECT k.* FROM tmtp.open_grant k WHERE k.grant_id = r.grant_id "
	    "  AND k.sender_id = (SELECT sender_id FROM c) LIMIT 1) g ON true), "
	    "good AS MATERIALIZED (SELECT known.*, coalesce((SELECT n.channel FROM tmtp.notification n "
	    "   WHERE n.notification_id = known.nid), (SELECT min(channel) FROM looked)) AS channel "
	    " FROM known WHERE NOT conflict AND EXISTS (SELECT FROM looked WHERE account_id IS NOT NULL)), "
	    "counted AS (UPDATE tmtp.arrival_count SET recipients = recipients + $12 WHERE slot = $11), "
	    "dg AS (INSERT INTO tmtp.notification_digest (digest, sender_id, notification_id) "
	    " SELECT $4, sender_id, nid FROM good WHERE is_new ON CONFLICT DO NOTHING RETURNING 1), "
	    "ps AS (INSERT INTO tmtp.posted (domain_id, id, sender_id, notification_id, digest, size, kept_until) "
	    " SELECT domain_id, $2, sender_id, nid, $4, $5, to_timestamp($6) + interval '30 days' "
	    " FROM good WHERE own_nid IS NULL ON CONFLICT DO NOTHING RETURNING 1), "
	    "nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, "
	    "  uris, state, id) SELECT nid, sender_id, channel, $4, $5, $6, '', 4, $3 FROM good WHERE is_new "
	    " ON CONFLICT DO NOTHING), "
	    "ib AS (INSERT INTO tmtp.inbox AS b (account_id, notification_id, arrived_at, withdrawn_at) "
	    " SELECT DISTINCT l.account_id, good.nid, $10, $10 FROM good JOIN looked l ON l.channel = good.channel "
	    " ORDER BY 1 ON CONFLICT (account_id, notification_id) DO UPDATE SET withdrawn_at = $10 "
	    "  WHERE b.withdrawn_at IS NULL "
	    " RETURNING account_id, notification_id, arrived_at, read_at), "
	    "rc AS (INSERT INTO tmtp.receipt_outbox (account_id, notification_id, kind, sender_id, domain_id, "
	    "  channel, happened_at) "
	    " SELECT ib.account_id, ib.notification_id, 2, good.sender_id, good.domain_id, good.channel, $10 "
	    " FROM ib CROSS JOIN good JOIN LATERAL (SELECT FROM tmtp.consent k WHERE k.account_id = ib.account_id "
	    "  AND k.sender_id = good.sender_id AND k.channel = good.channel AND k.state = 1 AND k.receipts "
	    "  LIMIT 1) k ON true "
	    " WHERE ib.read_at IS NULL AND ib.arrived_at < $10 ON CONFLICT DO NOTHING) "
	    "SELECT known.conflict, known.nid, x.idx, x.account_id, "
	    " CASE WHEN (SELECT count(*) FROM dg) <> (SELECT count(*) FROM good WHERE is_new) "
	    "  OR (SELECT count(*) FROM ps) <> (SELECT count(*) FROM good WHERE own_nid IS NULL) "
	    "  THEN tmtp.race() END "
	    "FROM known LEFT JOIN (SELECT l.idx, NULL::int8 AS account_id FROM looked l WHERE l.account_id IS NULL "
	    " UNION ALL SELECT NULL, ib.account_id FROM ib WHERE ib.arrived_at < $10) x ON true",
	.types = (const Oid[]){ T_TEXT, T_TEXT, T_TEXT, T_BYTEA, T_INT8, T_INT8, T_UUID,
	                        T_INT4S, T_BYTEAS, T_TIMESTAMPTZ, T_INT4, T_INT8, 0 },
	.lane = STORE_ARRIVE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_recall,
	.rows = rows_recall,
};

void
store_arrival_recall(struct store *store, struct arrival_recall *recall)
{
	recall->job.op = &recall_run;
	recall->accounts = NULL;
	recall->accounts_n = 0;
	store_submit(store, &recall->job);
}

void
arrival_recall_clear(struct arrival_recall *recall)
{
	free(recall->accounts);
	recall->accounts = NULL;
	recall->accounts_n = 0;
}
