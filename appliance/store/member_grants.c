/* What GRANTs from home servers change of a channel's members: see members.h. */
#include "store/members.h"

#include "store/rows.h"

static void
bind_grant(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct member_grant *g = (const struct member_grant *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_slice(a, 1, g->domain);
		args_slice(a, 2, g->member);
		args_slice(a, 3, g->site_domain);
		args_slice(a, 4, g->site_name);
		args_slice(a, 5, g->channel);
		args_i32(a, 6, (int32_t)g->state);
		if (g->grant_id.len > 0)
			args_slice(a, 7, g->grant_id);
		else
			args_null(a, 7);
		args_bool(a, 8, g->receipts);
		args_i64(a, 9, g->date_s);
		args_time(a, 10, g->now_us);
		args_i64(a, 11, id_make());
		args_bool(a, 12, g->presence);
	}
}

static void
rows_grant(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct member_grant *g = (struct member_grant *)jobs[i];

		g->changed = g->joined = false;
		g->account_id = 0;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct member_grant *g = (struct member_grant *)jobs[row_i32(r, row, 0)];

		g->changed = row_bool(r, row, 1);
		g->joined = row_bool(r, row, 2);
		g->account_id = row_i64(r, row, 3);
	}
}

/*
 * Of several GRANTs for one row in a batch only the one that wins by DMTP's
 * rule is tried, so that no row is touched twice. A no for who was never asked
 * is kept, too: it must win over a yes of an earlier date that comes behind
 * it, and no invitation may follow. After the site removed a member only a
 * yes given since then counts. A period is kept when it ends, from the very
 * row that ended it, so it can't be lost between two connections.
 *
 * A person is told only by whom she has to do with: else strangers could fill
 * her rows. And she has no chunks, for nobody broadcasts to her contacts.
 */
static const struct store_op grant_op = {
	.name = "member_grant",
	.sql =
	    "WITH told AS MATERIALIZED ("
	    " SELECT DISTINCT ON (c.site_id, c.channel_id, i.domain, i.member) i.*, c.site_id, c.channel_id, t.kind "
	    " FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], "
	    "  $7::int4[], $8::bytea[], $9::bool[], $10::int8[], $11::timestamptz[], $12::int8[], "
	    "  $13::bool[]) "
	    "  AS i(ord, domain, member, site_domain, site_name, channel, state, grant_id, receipts, "
	    "  date_s, now, new_domain_id, presence) "
	    " JOIN tmtp.site t ON t.domain = i.site_domain AND t.name = i.site_name "
	    " CROSS JOIN LATERAL (SELECT k.site_id, k.channel_id FROM tmtp.channel k "
	    "  WHERE k.site_id = t.site_id AND k.name = i.channel LIMIT 1) c "
	    " WHERE t.kind = 0 "
	    "  OR EXISTS (SELECT FROM tmtp.domain d CROSS JOIN LATERAL (SELECT FROM tmtp.subscription k "
	    "   WHERE k.site_id = c.site_id AND k.channel_id = c.channel_id AND k.domain_id = d.domain_id "
	    "   AND k.member = i.member LIMIT 1) k WHERE d.name = i.domain) "
	    "  OR EXISTS (SELECT FROM tmtp.sender s CROSS JOIN LATERAL (SELECT FROM tmtp.consent k "
	    "   WHERE k.account_id = t.site_id AND k.sender_id = s.sender_id AND k.channel = i.channel LIMIT 1) k "
	    "   WHERE s.address = i.member || '@' || i.domain) "
	    " ORDER BY c.site_id, c.channel_id, i.domain, i.member, i.date_s DESC, "
	    "  (i.state = 3) DESC, i.ord), "
	    "fresh AS (INSERT INTO tmtp.domain (domain_id, name, created_at) "
	    " SELECT DISTINCT ON (a.domain) a.new_domain_id, a.domain, a.now FROM told a "
	    " WHERE NOT EXISTS (SELECT FROM tmtp.domain d WHERE d.name = a.domain) "
	    " ORDER BY a.domain ON CONFLICT DO NOTHING RETURNING domain_id, name), "
	    "keyed AS MATERIALIZED (SELECT a.*, coalesce(d.domain_id, f.domain_id) AS domain_id "
	    " FROM told a LEFT JOIN tmtp.domain d ON d.name = a.domain "
	    " LEFT JOIN fresh f ON f.name = a.domain), "
	    "changed AS (INSERT INTO tmtp.subscription AS s (site_id, channel_id, domain_id, member, "
	    "  state, grant_id, receipts, joined_at, left_at, grant_date, presence) "
	    " SELECT site_id, channel_id, domain_id, member, state, "
	    "  CASE WHEN state = 1 THEN grant_id END, receipts AND state = 1, "
	    "  CASE WHEN state = 1 THEN now END, CASE WHEN state <> 1 THEN now END, date_s, "
	    "  presence AND state = 1 "
	    " FROM keyed WHERE domain_id IS NOT NULL ORDER BY site_id, channel_id, domain_id, member "
	    " ON CONFLICT (site_id, channel_id, domain_id, member) DO UPDATE SET "
	    "  state = EXCLUDED.state, receipts = EXCLUDED.receipts, presence = EXCLUDED.presence, grant_date = EXCLUDED.grant_date, "
	    "  grant_id = CASE WHEN EXCLUDED.state = 1 THEN EXCLUDED.grant_id ELSE s.grant_id END, "
	    "  joined_at = CASE WHEN EXCLUDED.state = 1 AND s.state <> 1 THEN EXCLUDED.joined_at "
	    "   ELSE s.joined_at END, "
	    "  left_at = CASE WHEN EXCLUDED.state <> 1 AND s.state <> 1 AND s.joined_at IS NOT NULL "
	    "   THEN s.left_at ELSE EXCLUDED.left_at END "
	    "  WHERE (EXCLUDED.grant_date > s.grant_date "
	    "    OR EXCLUDED.grant_date = s.grant_date AND EXCLUDED.state = 3 AND s.state <> 3) "
	    "   AND NOT (s.state = 4 AND EXCLUDED.state = 1 "
	    "    AND s.left_at > to_timestamp(EXCLUDED.grant_date)) "
	    " RETURNING site_id, channel_id, domain_id, member, state, joined_at, left_at, grant_id), "
	    "past AS (INSERT INTO tmtp.subscription_past "
	    "  (site_id, channel_id, domain_id, member, joined_at, left_at, grant_id) "
	    " SELECT site_id, channel_id, domain_id, member, joined_at, left_at, grant_id FROM changed "
	    " WHERE joined_at IS NOT NULL AND left_at IS NOT NULL ON CONFLICT DO NOTHING), "
	    "chunk AS (INSERT INTO tmtp.chunk (site_id, channel_id, domain_id, first_member, members) "
	    " SELECT DISTINCT c.site_id, c.channel_id, c.domain_id, '', 0 FROM changed c WHERE c.state = 1 "
	    "  AND c.site_id IN (SELECT site_id FROM told WHERE kind = 0) "
	    "  AND NOT EXISTS (SELECT FROM tmtp.chunk k WHERE k.site_id = c.site_id "
	    "   AND k.channel_id = c.channel_id AND k.domain_id = c.domain_id AND k.first_member = '') "
	    " ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING) "
	    "SELECT k.ord, c.member IS NOT NULL, coalesce(c.state = 1 AND c.joined_at = k.now, false), "
	    " CASE WHEN k.kind = 1 THEN k.site_id ELSE 0 END, "
	    " CASE WHEN k.domain_id IS NULL THEN tmtp.race() END "
	    "FROM keyed k LEFT JOIN changed c ON c.site_id = k.site_id AND c.channel_id = k.channel_id "
	    " AND c.domain_id = k.domain_id AND c.member = k.member",
	.types =
	    (const Oid[]){ T_INT4S, T_TEXTS, T_TEXTS, T_TEXTS, T_TEXTS, T_TEXTS, T_INT4S,
	                   T_BYTEAS, T_BOOLS, T_INT8S, T_TIMESTAMPTZS, T_INT8S, T_BOOLS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_grant,
	.rows = rows_grant,
};

void
store_member_grant(struct store *store, struct member_grant *grant)
{
	grant->job.op = &grant_op;
	grant->changed = false;
	store_submit(store, &grant->job);
}
