/*
 * Arrivals that take the place of an earlier one, and arrivals in whose place
 * something already stands. Entries that replace each other share a thread;
 * which of them is shown is decided when the inbox is read, by their dates. So
 * here nothing depends on the order in which they come.
 *
 * A replaced id that isn't here yet is written down as posted with nothing but
 * a number for its notification (size 0): whoever posts it finds that row, also
 * when both come at the same time.
 */
#include "store/arrival_many.h"

#include "store/rows.h"

static void
bind_replacing(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival *r = (const struct arrival *)jobs[0];
	struct uuid first = r->fresh_id;

	arrival_bind_many(a, jobs, n);
	if (r->replaces.len > 0)
		args_slice(a, ARRIVAL_MANY_N, r->replaces);
	/* the number of what is yet to come: just before this one's */
	for (size_t i = sizeof(first.octets); i-- > 8;)
		if (first.octets[i]-- != 0)
			break;
	args_uuid(a, ARRIVAL_MANY_N + 1, &first);
}

#define LOOK(as, from_where) \
	" LEFT JOIN LATERAL (SELECT k.* FROM " from_where " LIMIT 1) " as " ON true "

/*
 * Parameters as arrival_many's, and $19 the id that is replaced or NULL, $20 a
 * fresh number for it.
 *
 * "root" is the replaced one's entry, whose thread all are put into. A recipient
 * who hasn't got it, though it was posted, gets a withdrawn entry in its place:
 * coming late it must not be seen. What stood in a thread named after this very
 * message, because it came first, moves into the root's.
 */
static const struct store_op
    replacing = {
	    .name = "arrival_replacing",
	    /* clang-format off */
	.sql =
	    "WITH c AS (SELECT max(sender_id) AS sender_id, max(domain_id) AS domain_id "
	    " FROM tmtp.sender WHERE address = $1), "
	    "looked AS (SELECT r.idx, r.vars, g.account_id, g.channel "
	    " FROM unnest($11, $12, $13) AS r(idx, grant_id, vars) "
	    LOOK("g", "tmtp.open_grant k WHERE k.grant_id = r.grant_id AND k.sender_id = (SELECT sender_id FROM c)")
	    "), "
	    "met AS (SELECT c.*, "
	    "  p.notification_id IS NULL OR p.size = 0 AS unposted, "
	    "  coalesce(p.size > 0 AND (p.digest <> $3 OR p.size <> $4 OR p.sender_id <> c.sender_id), false) "
	    "   AS conflict, "
	    "  coalesce(CASE WHEN p.size > 0 THEN p.notification_id END, d.notification_id, "
	    "   p.notification_id, $10) AS nid, "
	    "  (p.notification_id IS NULL OR p.size = 0) AND d.notification_id IS NULL AS is_new, "
	    "  CASE WHEN $19 IS NOT NULL THEN coalesce(r.notification_id, $20) END AS root, "
	    "  $19 IS NOT NULL AND r.notification_id IS NULL AS no_root, r.size > 0 AS posted "
	    " FROM c " LOOK("p", "tmtp.posted k WHERE k.domain_id = c.domain_id AND k.id = $2")
	    LOOK("d", "tmtp.notification_digest k WHERE k.digest = $3 AND k.sender_id = c.sender_id")
	    LOOK("r", "tmtp.posted k WHERE k.domain_id = c.domain_id AND k.id = $19 AND k.sender_id = c.sender_id")
	    "), "
	    "one AS (SELECT met.*, coalesce(" CHANNEL_OF("met.nid") ", (SELECT min(channel) FROM looked)) AS channel FROM met), "
	    "good AS (SELECT * FROM one WHERE NOT conflict AND EXISTS (SELECT FROM looked l WHERE l.channel = one.channel)), "
	    "counted AS (UPDATE tmtp.arrival_count SET recipients = recipients + $17 WHERE slot = $16), "
	    "dg AS (INSERT INTO tmtp.notification_digest (digest, sender_id, notification_id) "
	    " SELECT $3, sender_id, nid FROM good WHERE is_new ON CONFLICT DO NOTHING RETURNING 1), "
	    "ps AS (INSERT INTO tmtp.posted AS p (domain_id, id, sender_id, notification_id, digest, size, kept_until, awaited) "
	    " SELECT domain_id, $2, sender_id, nid, $3, $4, least($6, to_timestamp($5 + 2592000)), false "
	    "  FROM good WHERE unposted "
	    " UNION ALL SELECT domain_id, $19, sender_id, root, '', 0, to_timestamp($5 + 2592000), true "
	    "  FROM good WHERE no_root "
	    " ON CONFLICT (domain_id, id) DO UPDATE SET sender_id = EXCLUDED.sender_id, "
	    "  notification_id = EXCLUDED.notification_id, digest = EXCLUDED.digest, size = EXCLUDED.size "
	    "  WHERE p.size = 0 AND EXCLUDED.size > 0 RETURNING 1), "
	    "nt AS (INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, "
	    "  expires_at, uris, signing_key, signature, leased_until, id) "
	    " SELECT nid, sender_id, channel, $3, $4, $5, $6, $7, $8, $9, $15, $2 FROM good WHERE is_new "
	    " ON CONFLICT DO NOTHING), "
	    "mine AS (SELECT DISTINCT ON (l.account_id) l.account_id, l.vars, good.nid, "
	    "  nullif(good.root, good.nid) AS root, good.posted, "
	    "  coalesce(b.thread, good.root, good.nid) AS thread "
	    " FROM good JOIN looked l ON l.channel = good.channel "
	    LOOK("b", "tmtp.inbox k WHERE k.account_id = l.account_id AND k.notification_id = good.root")
	    " ORDER BY 1, l.idx), "
	    "rt AS (INSERT INTO tmtp.inbox AS b (account_id, notification_id, arrived_at, withdrawn_at, thread) "
	    " SELECT account_id, root, $14, $14, thread FROM mine WHERE posted AND root IS NOT NULL "
	    " ORDER BY 1 ON CONFLICT (account_id, notification_id) DO UPDATE SET thread = EXCLUDED.thread "
	    "  WHERE b.thread IS NULL), "
	    "mv AS (UPDATE tmtp.inbox b SET thread = m.thread FROM mine m WHERE b.account_id = m.account_id "
	    "  AND b.thread = m.nid AND m.thread <> m.nid), "
	    "ib AS (INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables, thread) "
	    " SELECT account_id, nid, $14, vars, thread FROM mine ORDER BY 1 ON CONFLICT DO NOTHING "
	    " RETURNING account_id) "
	    "SELECT conflict, nid, is_new AND channel IS NOT NULL, "
	    " coalesce((SELECT n.state::int4 FROM tmtp.notification n "
	    "  WHERE n.notification_id = one.nid), 0), channel, "
	    " (SELECT array_agg(l.idx) FROM looked l "
	    "  WHERE (l.channel = one.channel) IS NOT TRUE), "
	    " (SELECT array_agg(account_id) FROM ib WHERE $18), "
	    " CASE WHEN (SELECT is_new::int + unposted::int + no_root::int FROM good) "
	    "   <> (SELECT count(*) FROM dg) + (SELECT count(*) FROM ps) "
	    "  THEN tmtp.race() END, (SELECT count(*) FROM ib), false FROM one",
	    /* clang-format on */
	    .types = (const Oid[]){ ARRIVAL_MANY_TYPES, T_TEXT, T_UUID, 0 },
	    .lane = STORE_ARRIVE,
	    .repeatable = true,
	    .bind = bind_replacing,
	    .rows = arrival_rows_many,
    };

const struct store_op *const arrival_replacing = &replacing;

/* --- Announced after its recall -------------------------------------------- */

static void
bind_revive(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival *r = (const struct arrival *)jobs[0];

	(void)n;
	args_uuid(a, 0, &r->notification_id);
	args_slice(a, 1, r->uris);
	if (r->key.len > 0) {
		args_slice(a, 2, r->key);
		args_slice(a, 3, r->signature);
	}
	args_time(a, 4, r->expires_us);
	args_time(a, 5, r->lease_until_us);
	args_i64(a, 6, r->date_s);
}

static void
rows_revive(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival *w = (struct arrival *)jobs[0];

	(void)n;
	w->fresh = PQntuples(r) == 1;
	w->state = 0;
}

/* The recall's date isn't the message's. Another process that was faster picks it up. */
static const struct store_op revive_run = {
	.name = "arrival_revive",
	.sql =
	    "UPDATE tmtp.notification SET state = 0, uris = $2, signing_key = $3, signature = $4, "
	    " expires_at = $5, leased_until = $6, date_s = $7 "
	    "WHERE notification_id = $1 AND state = 4 RETURNING 1",
	.types = (const Oid[]){ T_UUID, T_TEXT, T_TEXT, T_BYTEA, T_TIMESTAMPTZ, T_TIMESTAMPTZ,
	                        T_INT8, 0 },
	.lane = STORE_ARRIVE,
	.repeatable = true,
	.bind = bind_revive,
	.rows = rows_revive,
};

void
store_arrival_revive(struct store *store, struct arrival *arrival)
{
	arrival->job.op = &revive_run;
	store_submit(store, &arrival->job);
}
