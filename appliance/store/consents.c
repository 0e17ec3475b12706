/* What a member said to senders, and says: see inboxes.h. */
#include "store/inboxes.h"

#include "store/rows.h"

const char *
consent_state_name(enum consent_state state)
{
	static const char *const names[] = {
		[CONSENT_ASKED] = "asked",
		[CONSENT_GRANTED] = "granted",
		[CONSENT_REFUSED] = "refused",
		[CONSENT_REVOKED] = "revoked",
	};

	return names[state];
}

/* --- Looking ------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct consent_list *list = (const struct consent_list *)jobs[0];

	(void)n;
	args_i64(a, 0, list->account_id);
	if (list->state >= 0)
		args_i32(a, 1, list->state);
	args_slice(a, 2, list->sender);
	args_slice(a, 3, list->channel);
	args_i64(a, 4, list->limit);
}

void
consent_list_clear(struct consent_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].sender);
		free(list->rows[i].channel);
		free(list->rows[i].body);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct consent_list *list = (struct consent_list *)jobs[0];

	(void)n;
	consent_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct consent_row *c = &list->rows[list->rows_n++];
		struct uuid changed_id = row_uuid(r, row, 5);

		c->sender_id = row_i64(r, row, 0);
		c->sender = row_text(r, row, 1);
		c->channel = row_text(r, row, 2);
		c->state = (enum consent_state)row_i32(r, row, 3);
		c->receipts = row_bool(r, row, 4);
		c->changed_us = uuid_time_us(&changed_id);
		c->body = row_octets(r, row, 6, &c->size);
		if (c->sender == NULL || c->channel == NULL ||
		    (c->body == NULL && !row_is_null(r, row, 6)))
			list->job.rc = STORE_DOWN;
	}
}

static const Oid list_types[] = { T_INT8, T_INT4, T_TEXT, T_TEXT, T_INT8, 0 };

static const struct store_op all_op = {
	.name = "consent_list",
	.sql =
	    "SELECT c.sender_id, s.address, c.channel, c.state::int4, c.receipts, c.changed_id, NULL::bytea "
	    "FROM tmtp.consent c "
	    "CROSS JOIN LATERAL (SELECT k.address FROM tmtp.sender k WHERE k.sender_id = c.sender_id LIMIT 1) s "
	    "WHERE c.account_id = $1 AND ($2::int4 IS NULL OR c.state = $2) "
	    " AND ($3 = '' OR s.address = $3) AND ($4 = '' OR c.channel = $4) "
	    "ORDER BY c.changed_id DESC, s.address, c.channel LIMIT $5",
	.types = list_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

static const struct store_op one_op = {
	.name = "consent_get",
	.sql =
	    "SELECT c.sender_id, s.address, c.channel, c.state::int4, c.receipts, c.changed_id, "
	    " (SELECT n.body FROM tmtp.notification n WHERE n.notification_id = c.invitation AND n.state = 1) "
	    "FROM tmtp.sender s CROSS JOIN LATERAL (SELECT k.* FROM tmtp.consent k "
	    " WHERE k.account_id = $1 AND k.sender_id = s.sender_id AND k.channel = $4 LIMIT 1) c "
	    "WHERE s.address = $3 AND ($2::int4 IS NULL OR c.state = $2) LIMIT $5",
	.types = list_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_consent_list(struct store *store, struct consent_list *list)
{
	list->job.op = list->sender.len > 0 && list->channel.len > 0 ? &one_op : &all_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

/* --- Changing ------------------------------------------------------------ */

static void
bind_change(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct consent_change *c = (const struct consent_change *)jobs[0];

	(void)n;
	args_i64(a, 0, c->account_id);
	args_slice(a, 1, c->sender);
	args_slice(a, 2, c->channel);
	args_slice(a, 3, c->sender_domain);
	args_slice(a, 4, c->registrable);
	args_i32(a, 5, (int32_t)c->state);
	args_bool(a, 6, c->receipts);
	args_slice(a, 7, slice_mem(c->grant_id, sizeof(c->grant_id)));
	args_uuid(a, 8, &c->changed_id);
	args_i64(a, 9, c->sender_id);
	args_i64(a, 10, c->domain_id);
	args_time(a, 11, c->now_us);
	args_i64(a, 12, c->now_us / 1000000);
	args_i32(a, 13, (int32_t)c->why);
	args_bool(a, 14, c->blocked);
	if (c->presence != PRESENCE_AS_IT_WAS)
		args_bool(a, 15, c->presence == PRESENCE_SHOWN);
}

static void
rows_change(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct consent_change *c = (struct consent_change *)jobs[0];

	(void)n;
	c->changed = PQntuples(r) == 1 && row_bool(r, 0, 1);
	if (PQntuples(r) != 1 || !row_bool(r, 0, 0))
		c->job.rc = STORE_NOT_FOUND;
}

/*
 * The row may change only from what this statement saw: another process's
 * change in between makes it run again (tmtp.race), else a no that meets a
 * yes could leave the yes's grant open. Dates grow by a second at least, so
 * that a site never has to break a tie. A yes that is said again is told again,
 * at most once a second: the site may have removed the member since. A revoked or refused consent keeps its
 * grant's id (GRANT names it); open_grant doesn't.
 *
 * CONSENT_ANSWER: "mine" is the member's own invitation to that person, who has
 * said yes; it opens her inbox unless she said something else since then. What
 * is open already is told again, with CONSENT_ANSWER_ANEW.
 */
static const struct store_op change_op = {
	.name = "consent_change",
	.sql =
	    "WITH known AS MATERIALIZED (SELECT sender_id, domain_id FROM tmtp.sender WHERE address = $2), "
	    "dom AS (INSERT INTO tmtp.domain (domain_id, name, created_at) SELECT $11, $4, $12 "
	    " WHERE ($6 = 1 OR $14 = 1) AND NOT EXISTS (SELECT FROM known) "
	    "  AND NOT EXISTS (SELECT FROM tmtp.domain WHERE name = $4) "
	    " ON CONFLICT DO NOTHING RETURNING domain_id), "
	    "theirs AS MATERIALIZED (SELECT domain_id FROM tmtp.domain WHERE name = $4 "
	    " UNION ALL SELECT domain_id FROM dom), "
	    "made AS (INSERT INTO tmtp.sender (sender_id, address, domain_id, registrable, created_at) "
	    " SELECT $10, $2, theirs.domain_id, $5, $12 FROM theirs "
	    " WHERE ($6 = 1 OR $14 = 1) AND NOT EXISTS (SELECT FROM known) "
	    " ON CONFLICT DO NOTHING RETURNING sender_id, domain_id), "
	    "whose AS MATERIALIZED (SELECT * FROM known UNION ALL SELECT * FROM made), "
	    "old AS MATERIALIZED (SELECT c.* FROM whose CROSS JOIN LATERAL ("
	    " SELECT k.state, k.receipts, k.presence, k.blocked, k.changed_id, k.grant_date FROM tmtp.consent k "
	    " WHERE k.account_id = $1 AND k.sender_id = whose.sender_id AND k.channel = $3 LIMIT 1) c), "
	    "mine AS MATERIALIZED (SELECT k.invited_at FROM whose CROSS JOIN LATERAL ("
	    " SELECT s.invited_at FROM tmtp.subscription s WHERE s.site_id = $1 AND s.channel_id = $1 "
	    "  AND s.domain_id = whose.domain_id AND s.member = left($2, -1 - length($4)) AND s.state = 1 LIMIT 1) k "
	    " WHERE $14 >= 2), "
	    "wanted AS MATERIALIZED (SELECT whose.*, old.changed_id FROM whose LEFT JOIN old ON true "
	    " LEFT JOIN mine ON true "
	    " WHERE CASE WHEN $14 >= 2 THEN CASE old.state WHEN 1 THEN $14 = 3 "
	    "   WHEN 2 THEN floor(extract(epoch FROM mine.invited_at) * 1000) > tmtp.uuid_ms(old.changed_id) "
	    "   WHEN 3 THEN floor(extract(epoch FROM mine.invited_at) * 1000) > tmtp.uuid_ms(old.changed_id) "
	    "   ELSE mine.invited_at IS NOT NULL END "
	    "  WHEN old.state IS NULL THEN $6 = 1 OR $14 = 1 "
	    "  WHEN $6 = 1 THEN old.state <> 1 OR old.receipts <> $7 OR old.grant_date < $13 "
	    "   OR old.presence <> coalesce($16, old.presence) "
	    "  WHEN $6 = 2 THEN old.state <> 2 OR old.blocked <> $15 ELSE old.state = 1 END), "
	    "said AS (INSERT INTO tmtp.consent AS c "
	    "  (account_id, sender_id, channel, state, grant_id, receipts, changed_id, grant_date, presence, blocked) "
	    " SELECT $1, w.sender_id, $3, $6, CASE WHEN $6 = 1 THEN $8 END, $6 = 1 AND $7, $9, $13, "
	    "  $6 = 1 AND coalesce($16, false), $6 = 2 AND $15 FROM wanted w "
	    " ON CONFLICT (account_id, sender_id, channel) DO UPDATE SET state = EXCLUDED.state, "
	    "  grant_id = CASE WHEN EXCLUDED.state = 1 AND c.state <> 1 THEN EXCLUDED.grant_id ELSE c.grant_id END, "
	    "  presence = $6 = 1 AND coalesce($16, c.presence), blocked = EXCLUDED.blocked, "
	    "  receipts = CASE WHEN $14 >= 2 THEN c.receipts ELSE EXCLUDED.receipts END, changed_id = EXCLUDED.changed_id, "
	    "  grant_date = greatest(EXCLUDED.grant_date, c.grant_date + 1) "
	    "  WHERE c.changed_id = (SELECT w.changed_id FROM wanted w) "
	    " RETURNING c.state, c.grant_id), "
	    "opened AS (INSERT INTO tmtp.open_grant (grant_id, account_id, sender_id, channel) "
	    " SELECT said.grant_id, $1, w.sender_id, $3 FROM said CROSS JOIN wanted w WHERE said.state = 1 "
	    " ON CONFLICT DO NOTHING), "
	    "closed AS (DELETE FROM tmtp.open_grant g USING said "
	    " WHERE g.grant_id = said.grant_id AND said.state <> 1), "
	    "queued AS (INSERT INTO tmtp.grant_outbox (account_id, sender_id, channel, domain_id, changed_id) "
	    " SELECT $1, w.sender_id, $3, w.domain_id, $9 FROM said CROSS JOIN wanted w "
	    " ON CONFLICT (account_id, sender_id, channel) DO UPDATE SET changed_id = EXCLUDED.changed_id, "
	    "  attempts = 0, leased_until = NULL) "
	    "SELECT $6 = 1 OR $14 = 1 OR EXISTS (SELECT FROM old WHERE $6 = 2 OR old.state IN (1, 3)), "
	    " EXISTS (SELECT FROM said) OR EXISTS (SELECT FROM old WHERE old.changed_id = $9), "
	    " CASE WHEN ($6 = 1 OR $14 = 1) AND NOT EXISTS (SELECT FROM whose) "
	    "  OR EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM said) THEN tmtp.race() END",
	.types = (const Oid[]){ T_INT8, T_TEXT, T_TEXT, T_TEXT, T_TEXT, T_INT4, T_BOOL, T_BYTEA,
	                        T_UUID, T_INT8, T_INT8, T_TIMESTAMPTZ, T_INT8, T_INT4, T_BOOL,
	                        T_BOOL, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_change,
	.rows = rows_change,
};

void
store_consent_change(struct store *store, struct consent_change *change)
{
	change->job.op = &change_op;
	change->changed = false;
	store_submit(store, &change->job);
}
