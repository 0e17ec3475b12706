/* Contacts and conversations: see contacts.h. */
#include "store/contacts.h"

#include "store/messages.h"
#include "store/rows.h"

const char *
contact_state_name(enum contact_state state)
{
	static const char *const names[] = {
		[CONTACT_NONE] = "none",       [CONTACT_INVITED] = "invited",
		[CONTACT_ASKED] = "asked",     [CONTACT_OPEN] = "open",
		[CONTACT_BOTH] = "contact",    [CONTACT_REFUSED] = "refused",
		[CONTACT_BLOCKED] = "blocked",
	};

	return names[state];
}

enum contact_state
contact_state_of(const struct contact_row *row)
{
	if (row->mine == CONSENT_REFUSED || row->mine == CONSENT_REVOKED)
		return row->blocked ? CONTACT_BLOCKED : CONTACT_NONE;
	if (row->mine == CONSENT_ASKED)
		return CONTACT_ASKED;
	if (row->theirs == MEMBER_REFUSED || row->theirs == MEMBER_REVOKED)
		return CONTACT_REFUSED;
	if (row->mine == CONSENT_GRANTED)
		return row->theirs == MEMBER_GRANTED ? CONTACT_BOTH : CONTACT_OPEN;
	/* A yes that was learnt late (CHANNELS since) still wants hers: inviting again gives it. */
	return row->invited_by_me &&
	               (row->theirs == MEMBER_INVITED || row->theirs == MEMBER_GRANTED)
	           ? CONTACT_INVITED
	           : CONTACT_NONE;
}

/* --- Contacts -------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct contact_list *list = (const struct contact_list *)jobs[0];

	(void)n;
	args_i64(a, 0, list->account_id);
	if (list->member.len > 0) {
		args_slice(a, 1, list->domain);
		args_slice(a, 2, list->member);
	} else {
		args_slice(a, 1, list->after);
		args_i64(a, 2, list->limit);
	}
	args_time(a, 3, list->now_us);
}

void
contact_list_clear(struct contact_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++)
		free(list->rows[i].address);
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static int
state_or_nothing(const PGresult *r, int row, int col)
{
	return row_is_null(r, row, col) ? CONTACT_NOTHING : row_i32(r, row, col);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct contact_list *list = (struct contact_list *)jobs[0];

	(void)n;
	contact_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct contact_row *c = &list->rows[list->rows_n++];
		struct uuid changed = row_uuid(r, row, 6);
		int64_t joined_us = row_time(r, row, 4);

		c->address = row_text(r, row, 0);
		c->mine = state_or_nothing(r, row, 1);
		c->theirs = state_or_nothing(r, row, 2);
		c->invited_us = row_time(r, row, 3);
		c->invited_by_me = c->invited_us >= 0;
		c->blocked = row_bool(r, row, 7);
		c->muted = row_bool(r, row, 8);
		c->presence_mine = row_bool(r, row, 9);
		c->presence_theirs = row_bool(r, row, 5);
		c->receipts = row_bool(r, row, 10);
		c->presence = row_is_null(r, row, 11) ? -1 : row_i32(r, row, 11);
		c->presence_since_us = row_time(r, row, 12);
		c->since_us =
		    c->mine == CONTACT_NOTHING ? c->invited_us : uuid_time_us(&changed);
		if (joined_us > c->since_us)
			c->since_us = joined_us;
		if (c->address == NULL)
			list->job.rc = STORE_DOWN;
	}
}

#define CONTACT_COLUMNS                                                                           \
	" m.state::int4, t.state::int4, t.invited_at, t.joined_at, coalesce(t.presence, false), " \
	" m.changed_id, coalesce(m.blocked, false), coalesce(m.muted, false), "                   \
	" coalesce(m.presence, false), coalesce(m.receipts, false), "
#define PRESENCE_COLUMNS " p.state::int4, p.since "

/* What their server told, while both agree to it; online and away lapse. */
#define PRESENCE_OF_M                                                                           \
	"LEFT JOIN LATERAL (SELECT k.state, k.since FROM tmtp.contact_presence k "              \
	" WHERE k.account_id = $1 AND k.sender_id = m.sender_id AND m.presence AND t.presence " \
	" AND (k.until IS NULL OR k.until > $4) LIMIT 1) p ON true "

/* What contact_state_of calls CONTACT_NONE isn't listed. */
#define PAGE(presence_columns, presence_join)                                              \
	"WITH m AS MATERIALIZED (SELECT s.address, c.sender_id, c.state, c.changed_id, "   \
	"  c.blocked, c.muted, c.presence, c.receipts "                                    \
	" FROM tmtp.consent c CROSS JOIN LATERAL (SELECT k.address FROM tmtp.sender k "    \
	"  WHERE k.sender_id = c.sender_id LIMIT 1) s "                                    \
	" WHERE c.account_id = $1 AND c.channel = 'inbox'), "                              \
	"t AS MATERIALIZED (SELECT (s.member || '@' || d.name) COLLATE \"C\" AS address, " \
	"  s.state, s.invited_at, s.joined_at, s.presence "                                \
	" FROM tmtp.subscription s CROSS JOIN LATERAL (SELECT k.name FROM tmtp.domain k "  \
	"  WHERE k.domain_id = s.domain_id LIMIT 1) d "                                    \
	" WHERE s.site_id = $1 AND s.channel_id = $1) "                                    \
	"SELECT address, " CONTACT_COLUMNS presence_columns                                \
	"FROM m FULL JOIN t USING (address) " presence_join " WHERE address > $2 "         \
	" AND CASE WHEN m.state IS NULL THEN t.invited_at IS NOT NULL "                    \
	"   AND t.state IN (0, 1, 2, 3) "                                                  \
	"  WHEN m.state IN (2, 3) THEN m.blocked ELSE true END "                           \
	"ORDER BY address LIMIT $3"

static const struct store_op page_op = {
	.name = "contact_list",
	.sql = PAGE(PRESENCE_COLUMNS, PRESENCE_OF_M),
	.types = (const Oid[]){ T_INT8, T_TEXT, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

/* Where somebody is is no matter of an administrator's. */
static const struct store_op support_op = {
	.name = "contact_list_support",
	.sql = PAGE(" NULL::int4, $4::timestamptz ", ""),
	.types = (const Oid[]){ T_INT8, T_TEXT, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

static const struct store_op exact_op = {
	.name = "contact_get",
	.sql =
	    "SELECT $3 || '@' || $2, " CONTACT_COLUMNS PRESENCE_COLUMNS
	    "FROM (SELECT 1) AS one "
	    "LEFT JOIN LATERAL (SELECT k.* FROM tmtp.sender s CROSS JOIN LATERAL ("
	    "  SELECT c.* FROM tmtp.consent c WHERE c.account_id = $1 AND c.sender_id = s.sender_id "
	    "  AND c.channel = 'inbox' LIMIT 1) k WHERE s.address = $3 || '@' || $2) m ON true "
	    "LEFT JOIN LATERAL (SELECT k.* FROM tmtp.domain d CROSS JOIN LATERAL ("
	    "  SELECT s.* FROM tmtp.subscription s WHERE s.site_id = $1 AND s.channel_id = $1 "
	    "  AND s.domain_id = d.domain_id AND s.member = $3 LIMIT 1) k WHERE d.name = $2) t ON true " PRESENCE_OF_M,
	.types = (const Oid[]){ T_INT8, T_TEXT, T_TEXT, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_contact_list(struct store *store, struct contact_list *list)
{
	list->job.op = list->member.len > 0 ? &exact_op
	               : list->support      ? &support_op
	                                    : &page_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

static void
bind_mute(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct contact_mute *m = (const struct contact_mute *)jobs[0];

	(void)n;
	args_i64(a, 0, m->account_id);
	args_slice(a, 1, m->address);
	args_bool(a, 2, m->muted);
}

static void
rows_mute(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) > 0 ? STORE_OK : STORE_NOT_FOUND;
}

static const struct store_op mute_op = {
	.name = "contact_mute",
	.sql = "UPDATE tmtp.consent c SET muted = $3 FROM tmtp.sender s "
	       "WHERE s.address = $2 AND c.account_id = $1 AND c.sender_id = s.sender_id "
	       "AND c.channel = 'inbox' RETURNING c.account_id",
	.types = (const Oid[]){ T_INT8, T_TEXT, T_BOOL, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_mute,
	.rows = rows_mute,
};

void
store_contact_mute(struct store *store, struct contact_mute *mute)
{
	mute->job.op = &mute_op;
	store_submit(store, &mute->job);
}

/* --- Conversations ----------------------------------------------------------- */

static void
bind_letters(struct args *a, struct store_job *const *jobs, size_t n)
{
	static const struct uuid none;
	const struct letter_list *list = (const struct letter_list *)jobs[0];
	struct uuid last;

	(void)n;
	memset(&last, 0xff, sizeof(last));
	args_i64(a, 0, list->account_id);
	args_slice(a, 1, list->address);
	args_uuid(a, 2,
	          memcmp(&list->before, &none, sizeof(none)) == 0 ? &last : &list->before);
	if (!list->one)
		args_i64(a, 3, list->limit);
}

void
letter_list_clear(struct letter_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].reason);
		free(list->rows[i].body);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_letters(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct letter_list *list = (struct letter_list *)jobs[0];

	(void)n;
	letter_list_clear(list);
	if (list->one && PQntuples(r) == 0)
		list->job.rc = STORE_NOT_FOUND;
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct letter_row *l = &list->rows[list->rows_n++];

		l->id = row_uuid(r, row, 0);
		l->sent = row_bool(r, row, 1);
		l->date_s = row_i64(r, row, 2);
		l->at_us = row_time(r, row, 3);
		l->read_us = row_time(r, row, 4);
		l->withdrawn = row_bool(r, row, 5);
		l->state = row_i32(r, row, 6);
		l->reason = row_text(r, row, 7);
		l->body = row_octets(r, row, 8, &l->size);
		if (l->body == NULL && !l->withdrawn)
			list->job.rc = STORE_DOWN;
	}
}

/*
 * What was sent, with what became of it: the last batch speaks (a put-off
 * message has one more), and a refusal stands in failure. As enum recipient_state.
 */
#define SENT_COLUMNS                                                                             \
	"m.message_id AS id, true AS sent, m.date_s, m.accepted_at AS at, "                      \
	"NULL::timestamptz AS read_at, m.recalled_at IS NOT NULL AS withdrawn, "                 \
	"CASE WHEN f.code IS NOT NULL THEN 2 ELSE (ARRAY[0, 1, 3, 0, 3])[b.state + 1] END "      \
	" AS state, coalesce(f.code, CASE WHEN b.state IN (2, 4) THEN b.reason END) AS reason, " \
	"CASE WHEN m.recalled_at IS NULL THEN m.body END AS body "
#define SENT_END(m)                                                                  \
	"LEFT JOIN LATERAL (SELECT k.state, k.reason FROM tmtp.batch k "             \
	" WHERE k.site_id = $1 AND k.message_id = " m ".message_id "                 \
	" ORDER BY k.batch_no DESC LIMIT 1) b ON true "                              \
	"LEFT JOIN LATERAL (SELECT k.code FROM tmtp.failure k WHERE k.site_id = $1 " \
	" AND k.message_id = " m ".message_id LIMIT 1) f ON true "

static const struct store_op letters_op = {
	.name = "letter_list",
	.sql =
	    "SELECT x.* FROM ("
	    " (SELECT " SENT_COLUMNS
	    " FROM (SELECT k.* FROM tmtp.message k WHERE k.site_id = $1 "
	    "   AND k.recipient = $2 AND k.message_id < $3 ORDER BY k.message_id DESC LIMIT $4) m " SENT_END(
		"m") ") UNION ALL (SELECT n.notification_id, false, n.date_s, greatest(e.arrived_at, n.verified_at), "
		     "  e.read_at, n.state = 3, 0, NULL, CASE WHEN n.state = 1 THEN n.body END "
		     " FROM tmtp.sender s CROSS JOIN LATERAL (SELECT k.* FROM tmtp.notification k "
		     "   WHERE k.only_account = $1 AND k.sender_id = s.sender_id AND k.channel = 'inbox' "
		     "   AND k.notification_id < $3 AND k.verified_at IS NOT NULL "
		     "   AND EXISTS (SELECT FROM tmtp.inbox i WHERE i.account_id = $1 "
		     "    AND i.notification_id = k.notification_id AND i.dropped_at IS NULL) "
		     "   ORDER BY k.notification_id DESC LIMIT $4) n "
		     " CROSS JOIN LATERAL (SELECT i.arrived_at, i.read_at FROM tmtp.inbox i WHERE i.account_id = $1 "
		     "   AND i.notification_id = n.notification_id LIMIT 1) e "
		     " WHERE s.address = $2)) x ORDER BY x.id DESC LIMIT $4",
	.types = (const Oid[]){ T_INT8, T_TEXT, T_UUID, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_letters,
	.rows = rows_letters,
};

static const struct store_op letter_op = {
	.name = "letter_get",
	.sql =
	    "SELECT " SENT_COLUMNS " FROM (SELECT k.* FROM tmtp.message k WHERE k.site_id = $1 "
	    " AND k.message_id = $3 AND k.recipient = $2 LIMIT 1) m " SENT_END("m"),
	.types = (const Oid[]){ T_INT8, T_TEXT, T_UUID, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_letters,
	.rows = rows_letters,
};

void
store_letter_list(struct store *store, struct letter_list *list)
{
	list->job.op = list->one ? &letter_op : &letters_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}
