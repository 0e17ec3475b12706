/* A channel's members: see members.h. What GRANTs change stands in member_grants.c. */
#include "store/members.h"

#include "store/rows.h"

const char *
member_state_name(enum member_state state)
{
	static const char *const names[] = {
		[MEMBER_INVITED] = "invited", [MEMBER_GRANTED] = "granted",
		[MEMBER_REFUSED] = "refused", [MEMBER_REVOKED] = "revoked",
		[MEMBER_REMOVED] = "removed", [MEMBER_NONE] = "none",
	};

	return names[state];
}

/* --- Registering --------------------------------------------------------- */

static void
bind_invite(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct member_invite *in = (const struct member_invite *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, in->site_id);
		args_i64(a, 2, in->channel_id);
		args_slice(a, 3, in->domain);
		args_slice(a, 4, in->member);
		args_uuid(a, 5, &in->message_id);
		args_time(a, 6, in->accepted_us);
		args_i64(a, 7, in->date_s);
		args_slice(a, 8, in->body);
		args_slice(a, 9, slice_mem(in->digest, 32));
		args_i64(a, 10, id_make());
	}
}

static void
rows_invite(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct member_invite *in = (struct member_invite *)jobs[row_i32(r, row, 0)];
		struct slice held_by = row_slice(r, row, 4);

		in->state = (enum member_state)row_i32(r, row, 1);
		in->invited = row_bool(r, row, 2);
		(void)snprintf(in->held_by, sizeof(in->held_by), "%.*s", (int)held_by.len,
		               held_by.len > 0 ? (const char *)held_by.data : "");
		in->job.rc = STORE_OK;
	}
}

/*
 * Whether an invitation is due is decided by the row itself while it is
 * locked, so two that ask at once send one. An address named twice in a batch
 * counts once, for the first that named it. A job that runs a second time
 * finds its own message and says the same as the first time.
 */
static const struct store_op invite_op = {
	.name = "member_invite",
	.sql =
	    "WITH asked AS MATERIALIZED (SELECT i.* "
	    " FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::uuid[], "
	    "  $7::timestamptz[], $8::int8[], $9::bytea[], $10::bytea[], $11::int8[]) "
	    "  AS i(ord, site_id, channel_id, domain, member, message_id, accepted_at, date_s, body, "
	    "  digest, new_domain_id) "
	    " JOIN tmtp.channel c ON c.site_id = i.site_id AND c.channel_id = i.channel_id "
	    "  AND c.closed_at IS NULL), "
	    "fresh AS (INSERT INTO tmtp.domain (domain_id, name, created_at) "
	    " SELECT DISTINCT ON (a.domain) a.new_domain_id, a.domain, a.accepted_at FROM asked a "
	    " WHERE NOT EXISTS (SELECT FROM tmtp.domain d WHERE d.name = a.domain) "
	    " ORDER BY a.domain ON CONFLICT DO NOTHING RETURNING domain_id, name), "
	    "keyed AS MATERIALIZED (SELECT a.*, coalesce(d.domain_id, f.domain_id) AS domain_id "
	    " FROM asked a LEFT JOIN tmtp.domain d ON d.name = a.domain "
	    " LEFT JOIN fresh f ON f.name = a.domain), "
	    "held AS MATERIALIZED (SELECT k.ord, o.name FROM keyed k CROSS JOIN LATERAL ("
	    "  SELECT c.name FROM tmtp.channel c CROSS JOIN LATERAL ("
	    "   SELECT s.state, s.invited_at FROM tmtp.subscription s WHERE s.site_id = k.site_id "
	    "    AND s.channel_id = c.channel_id AND s.domain_id = k.domain_id AND s.member = k.member "
	    "   LIMIT 1) s "
	    "  WHERE c.site_id = k.site_id AND c.channel_id <> k.channel_id "
	    "   AND (s.state = 2 OR s.state = 0 AND s.invited_at > k.accepted_at - interval '24 hours') "
	    "  ORDER BY s.state, c.channel_id LIMIT 1) o), "
	    "due AS (INSERT INTO tmtp.subscription AS s "
	    "  (site_id, channel_id, domain_id, member, state, invited_at) "
	    " SELECT DISTINCT ON (site_id, channel_id, domain_id, member) "
	    "  site_id, channel_id, domain_id, member, 0, accepted_at "
	    " FROM keyed WHERE domain_id IS NOT NULL "
	    "  AND NOT EXISTS (SELECT FROM held WHERE held.ord = keyed.ord) "
	    " ORDER BY site_id, channel_id, domain_id, member, ord "
	    " ON CONFLICT (site_id, channel_id, domain_id, member) "
	    " DO UPDATE SET state = 0, invited_at = EXCLUDED.invited_at "
	    "  WHERE s.state IN (0, 4) AND (s.invited_at IS NULL "
	    "   OR s.invited_at <= EXCLUDED.invited_at - interval '24 hours') "
	    " RETURNING site_id, channel_id, domain_id, member), "
	    "sent AS MATERIALIZED ("
	    " SELECT DISTINCT ON (k.site_id, k.channel_id, k.domain_id, k.member) k.* "
	    " FROM due JOIN keyed k ON k.site_id = due.site_id AND k.channel_id = due.channel_id "
	    "  AND k.domain_id = due.domain_id AND k.member = due.member "
	    " ORDER BY k.site_id, k.channel_id, k.domain_id, k.member, k.ord), "
	    "message AS (INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "
	    "  accepted_at, date_s, size, digest, body) "
	    " SELECT site_id, message_id, channel_id, 3, 0, accepted_at, date_s, octet_length(body), "
	    "  digest, body FROM sent), "
	    "batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "  lane, members, recipients) "
	    " SELECT site_id, message_id, 1, channel_id, domain_id, 0, ARRAY[member], 1 FROM sent) "
	    "SELECT k.ord, CASE WHEN due.member IS NOT NULL THEN 0 "
	    "  WHEN held.ord IS NOT NULL THEN coalesce(s.state, 5) ELSE coalesce(s.state, 0) END::int4, "
	    " sent.ord IS NOT NULL OR EXISTS (SELECT FROM tmtp.message m "
	    "  WHERE m.site_id = k.site_id AND m.message_id = k.message_id), "
	    " CASE WHEN k.domain_id IS NULL THEN tmtp.race() END, "
	    " CASE WHEN coalesce(s.state, 4) IN (0, 4) AND NOT EXISTS (SELECT FROM tmtp.message m "
	    "  WHERE m.site_id = k.site_id AND m.message_id = k.message_id) THEN held.name END "
	    "FROM keyed k LEFT JOIN held ON held.ord = k.ord LEFT JOIN tmtp.subscription s "
	    "  ON s.site_id = k.site_id "
	    "  AND s.channel_id = k.channel_id AND s.domain_id = k.domain_id AND s.member = k.member "
	    " LEFT JOIN due ON due.site_id = k.site_id AND due.channel_id = k.channel_id "
	    "  AND due.domain_id = k.domain_id AND due.member = k.member "
	    " LEFT JOIN sent ON sent.ord = k.ord",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_INT8S, T_TEXTS, T_TEXTS, T_UUIDS,
	                        T_TIMESTAMPTZS, T_INT8S, T_BYTEAS, T_BYTEAS, T_INT8S, 0 },
	.lane = STORE_WRITE,
	.batch_max = 64,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_invite,
	.rows = rows_invite,
};

void
store_member_invite(struct store *store, struct member_invite *invite)
{
	invite->job.op = &invite_op;
	invite->invited = false;
	store_submit(store, &invite->job);
}

/* --- Looking ------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct member_list *list = (const struct member_list *)jobs[0];

	(void)n;
	args_i64(a, 0, list->site_id);
	args_i64(a, 1, list->channel_id);
	args_slice(a, 2, list->domain);
	args_slice(a, 3, list->member);
	if (list->state >= 0)
		args_i32(a, 4, list->state);
	args_i64(a, 5, list->exact ? 1 : list->limit);
}

void
member_list_clear(struct member_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++)
		free(list->rows[i].address);
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct member_list *list = (struct member_list *)jobs[0];

	(void)n;
	member_list_clear(list);
	if (list->exact && PQntuples(r) == 0)
		list->job.rc = STORE_NOT_FOUND;
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct member_row *m = &list->rows[list->rows_n++];

		m->address = row_text(r, row, 0);
		m->state = (enum member_state)row_i32(r, row, 1);
		m->invited_us = row_time(r, row, 2);
		m->joined_us = row_time(r, row, 3);
		m->left_us = row_time(r, row, 4);
		m->receipts = row_bool(r, row, 5);
		if (m->address == NULL)
			list->job.rc = STORE_DOWN;
	}
}

static const Oid list_types[] = { T_INT8, T_INT8, T_TEXT, T_TEXT, T_INT4, T_INT8, 0 };

/* The inner LIMIT makes it a look at the whole key, whatever the planner thinks of a part of it. */
static const struct store_op exact_op = {
	.name = "member_get",
	.sql =
	    "SELECT s.member || '@' || d.name, s.state::int4, s.invited_at, s.joined_at, s.left_at, s.receipts "
	    "FROM tmtp.domain d CROSS JOIN LATERAL (SELECT * FROM tmtp.subscription k WHERE k.site_id = $1 "
	    " AND k.channel_id = $2 AND k.domain_id = d.domain_id AND k.member = $4 LIMIT 1) s "
	    "WHERE d.name = $3 AND ($5::int4 IS NULL OR s.state = $5) LIMIT $6",
	.types = list_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

/*
 * The channel's domains are found by leaps over the key (one look each), put
 * in order of name, and walked until the page is full: the loop keeps the
 * order of its outer side, so the LIMIT cuts where it should.
 */
static const struct store_op page_op = {
	.name = "member_list",
	.sql =
	    "WITH RECURSIVE leap(domain_id) AS ("
	    " (SELECT s.domain_id FROM tmtp.subscription s WHERE s.site_id = $1 AND s.channel_id = $2 "
	    "  ORDER BY s.domain_id LIMIT 1) "
	    " UNION ALL "
	    " SELECT (SELECT s.domain_id FROM tmtp.subscription s WHERE s.site_id = $1 "
	    "   AND s.channel_id = $2 AND s.domain_id > leap.domain_id ORDER BY s.domain_id LIMIT 1) "
	    " FROM leap WHERE leap.domain_id IS NOT NULL), "
	    "named AS MATERIALIZED (SELECT d.domain_id, d.name FROM leap "
	    " JOIN tmtp.domain d ON d.domain_id = leap.domain_id WHERE d.name >= $3 ORDER BY d.name), "
	    "page AS MATERIALIZED (SELECT named.name, m.* FROM named CROSS JOIN LATERAL ("
	    "  SELECT s.member, s.state, s.invited_at, s.joined_at, s.left_at, s.receipts "
	    "  FROM tmtp.subscription s WHERE s.site_id = $1 AND s.channel_id = $2 "
	    "  AND s.domain_id = named.domain_id "
	    "  AND s.member > CASE WHEN named.name = $3 THEN $4 ELSE '' END "
	    "  AND ($5::int4 IS NULL OR s.state = $5) ORDER BY s.member LIMIT $6) m LIMIT $6) "
	    "SELECT member || '@' || name, state::int4, invited_at, joined_at, left_at, receipts "
	    "FROM page ORDER BY name, member",
	.types = list_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_member_list(struct store *store, struct member_list *list)
{
	list->job.op = list->exact ? &exact_op : &page_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

/* --- Removing ------------------------------------------------------------ */

static void
bind_remove(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct member_remove *rm = (const struct member_remove *)jobs[0];

	(void)n;
	args_i64(a, 0, rm->site_id);
	args_i64(a, 1, rm->channel_id);
	args_slice(a, 2, rm->domain);
	args_slice(a, 3, rm->member);
	args_time(a, 4, rm->now_us);
}

static void
rows_remove(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) > 0 ? STORE_OK : STORE_NOT_FOUND;
}

/*
 * Who refused or revoked keeps that state: a removal must not turn a no into
 * something that may be invited again. A period that ends is kept.
 */
static const struct store_op remove_op = {
	.name = "member_remove",
	.sql =
	    "WITH there AS MATERIALIZED (SELECT s.domain_id FROM tmtp.domain d "
	    " CROSS JOIN LATERAL (SELECT k.domain_id FROM tmtp.subscription k WHERE k.site_id = $1 "
	    "  AND k.channel_id = $2 AND k.domain_id = d.domain_id AND k.member = $4 LIMIT 1) s "
	    " WHERE d.name = $3), "
	    "gone AS (UPDATE tmtp.subscription s SET state = 4, "
	    "  left_at = CASE WHEN s.state = 1 OR s.joined_at IS NULL THEN $5 ELSE s.left_at END "
	    " WHERE s.site_id = $1 AND s.channel_id = $2 AND s.domain_id = (SELECT domain_id FROM there) "
	    "  AND s.member = $4 AND s.state IN (0, 1) "
	    " RETURNING s.domain_id, s.joined_at, s.left_at, s.grant_id), "
	    "past AS (INSERT INTO tmtp.subscription_past "
	    "  (site_id, channel_id, domain_id, member, joined_at, left_at, grant_id) "
	    " SELECT $1, $2, domain_id, $4, joined_at, left_at, grant_id FROM gone "
	    " WHERE joined_at IS NOT NULL ON CONFLICT DO NOTHING) "
	    "SELECT domain_id FROM there",
	.types = (const Oid[]){ T_INT8, T_INT8, T_TEXT, T_TEXT, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_remove,
	.rows = rows_remove,
};

void
store_member_remove(struct store *store, struct member_remove *rm)
{
	rm->job.op = &remove_op;
	store_submit(store, &rm->job);
}
