/*
 * A message's recipients, one by one: see messages.h. No row was written for
 * any of them; their states are derived from the batches, from who held the
 * channel then, and from the failures.
 */
#include "store/messages.h"

#include "store/rows.h"

#include "dmtp/address.h"

const char *
recipient_state_name(enum recipient_state state)
{
	static const char *const names[] = {
		[RECIPIENT_WAITING] = "waiting",   [RECIPIENT_DELIVERED] = "delivered",
		[RECIPIENT_FAILED] = "failed",     [RECIPIENT_DEAD] = "dead",
		[RECIPIENT_REJECTED] = "rejected", [RECIPIENT_RECALLED] = "recalled",
	};

	return names[state];
}

static void
bind_page(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct message_recipients *page = (const struct message_recipients *)jobs[0];
	struct slice domain = dmtp_domain_of(page->after), member = page->after;

	(void)n;
	if (domain.len > 0)
		member.len -= domain.len + 1;
	args_i64(a, 0, page->site_id);
	args_uuid(a, 1, &page->message_id);
	args_slice(a, 2, domain);
	args_slice(a, 3, member);
	if (page->state >= 0)
		args_i32(a, 4, page->state);
	args_i64(a, 5, page->limit);
}

void
message_recipients_clear(struct message_recipients *page)
{
	for (size_t i = 0; i < page->rows_n; i++) {
		free(page->rows[i].address);
		free(page->rows[i].reason);
	}
	free(page->rows);
	page->rows = NULL;
	page->rows_n = 0;
}

/* A message without recipients on this page is one row of NULLs. */
static void
rows_page(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct message_recipients *page = (struct message_recipients *)jobs[0];

	(void)n;
	message_recipients_clear(page);
	if (PQntuples(r) == 0)
		page->job.rc = STORE_NOT_FOUND;
	page->rows = rows_room(r, sizeof(page->rows[0]), &page->job);
	for (int row = 0; page->rows != NULL && row < PQntuples(r); row++) {
		struct recipient_row *out;

		if (row_is_null(r, row, 0))
			continue;
		out = &page->rows[page->rows_n++];
		out->address = row_text(r, row, 0);
		out->state = (enum recipient_state)row_i32(r, row, 1);
		out->reason = row_text(r, row, 2);
		out->read_us = row_time(r, row, 3);
		out->withdrawn_us = row_time(r, row, 4);
		if (out->address == NULL)
			page->job.rc = STORE_DOWN;
	}
	if (page->rows_n == 0)
		message_recipients_clear(page);
}

static const Oid page_types[] = { T_INT8, T_UUID, T_TEXT, T_TEXT, T_INT4, T_INT8, 0 };

/* A batch's state (0 to 5) as enum recipient_state: held ones wait, dropped ones are dead. */
#define STATE_OF(batch_state) "(ARRAY[0, 1, 3, 0, 3, 5])[" batch_state " + 1]"

#define ENDED(done_at) "coalesce(" done_at ", 'infinity')"

#define IN_SEGMENT \
	"s.site_id = $1 AND s.channel_id = m.channel_id AND s.domain_id = seg.domain_id "

/* A batch of this message by its number. LIMIT keeps the look a look at the key, here and below. */
#define BATCH(batch_no)                                                             \
	"(SELECT l.* FROM tmtp.batch l WHERE l.site_id = $1 AND l.message_id = $2 " \
	"AND l.batch_no = " batch_no " LIMIT 1) l "

/* The batches made at acceptance that end behind the page before, in order of (domain name, member). */
#define SEGMENTS                                                                                                                \
	"seg AS MATERIALIZED (SELECT d.name, b.domain_id, b.batch_no, " STATE_OF(                                               \
	    "b.state") " AS state, "                                                                                            \
		       "  b.members, b.first_member, coalesce(b.next_member, " SQL_MEMBER_LAST                                  \
		       ") AS next_member, "                                                                                     \
		       "  " ENDED(                                                                                              \
			   "b.done_at") " AS done_at, b.reason, "                                                               \
					"  CASE WHEN d.name = $3 THEN $4 ELSE '' END AS after "                                 \
					" FROM tmtp.batch b JOIN tmtp.domain d ON d.domain_id = b.domain_id "                   \
					" WHERE b.site_id = $1 AND b.message_id = $2 AND b.batch_no < 1000000 "                 \
					"  AND (d.name > $3 OR d.name = $3 AND (b.next_member IS NULL OR b.next_member > $4)) " \
					" ORDER BY d.name, b.first_member) "

/* What a recipient lets the site know. */
#define RECEIPT_OF_Z                                                                                  \
	"LEFT JOIN LATERAL (SELECT k.read_at, k.withdrawn_at FROM tmtp.domain d "                     \
	" JOIN tmtp.receipt k ON k.site_id = $1 AND k.message_id = $2 AND k.domain_id = d.domain_id " \
	" AND k.member = z.member WHERE d.name = z.name LIMIT 1) rc ON true "

/*
 * Parameters: $1 site, $2 message, $3 and $4 domain and member of the page
 * before, $5 a state or NULL, $6 limit.
 *
 * "seg" are ranges that tile the channel, or one list a domain; they never
 * overlap, so they are walked until the page is full. The loop keeps the
 * order of its outer side, so the LIMIT cuts where it should.
 *
 * Batch n's put-off recipients are in the lists n + 1000000, n + 2000000 and
 * so on ("chain"); the last list that has a member speaks for her.
 *
 * The audience of a range: who held the channel at acceptance, and still did
 * when her batch was done (one that waits: still does). Who left in between
 * was not sent to and is nobody's recipient any more; so is a listed member
 * who doesn't hold the channel when her batch goes out. Who was refused is
 * listed whatever she did since.
 */
static const struct store_op page_op = {
	.name = "message_recipients",
	/* clang-format off */
	.sql =
	    "WITH m AS MATERIALIZED (SELECT channel_id, audience, accepted_at, rejected "
	    " FROM tmtp.message WHERE site_id = $1 AND message_id = $2 AND recalls IS NULL), "
	    "retries AS MATERIALIZED (SELECT coalesce(max(batch_no), 0) / 1000000 AS n "
	    " FROM tmtp.batch WHERE site_id = $1 AND message_id = $2), " SEGMENTS ", "
	    "page AS MATERIALIZED ("
	    " (SELECT seg.name, y.member, y.state, y.reason "
	    "  FROM m CROSS JOIN retries CROSS JOIN seg CROSS JOIN LATERAL ("
	    "   SELECT DISTINCT ON (x.member) x.member, "
	    "    CASE WHEN f.member IS NULL THEN coalesce(chain.state, seg.state) ELSE 2 END AS state, "
	    "    CASE WHEN f.member IS NOT NULL THEN f.code "
	    "     WHEN chain.member IS NOT NULL THEN chain.reason ELSE seg.reason END AS reason "
	    "   FROM (SELECT s.member, s.joined_at, s.left_at FROM tmtp.period s "
	    "     WHERE seg.members IS NULL AND " IN_SEGMENT
	    "      AND s.member >= seg.first_member AND s.member > seg.after "
	    "      AND s.member < seg.next_member AND s.joined_at <= m.accepted_at "
	    "    UNION ALL SELECT u.member, s.joined_at, s.left_at FROM unnest(seg.members) AS u(member) "
	    "     CROSS JOIN LATERAL (SELECT s.joined_at, s.left_at FROM tmtp.period s "
	    "      WHERE " IN_SEGMENT " AND s.member = u.member OFFSET 0) s "
	    "     WHERE m.audience <> 3 AND u.member > seg.after "
	    "    UNION ALL SELECT u.member, '-infinity', 'infinity' FROM unnest(seg.members) AS u(member) "
	    "     WHERE m.audience = 3 AND u.member > seg.after "
	    "    ORDER BY 1) x "
	    "   LEFT JOIN (SELECT DISTINCT ON (u.member) u.member, " STATE_OF("l.state") " AS state, "
	    "      " ENDED("l.done_at") " AS done_at, l.reason "
	    "     FROM generate_series(1, retries.n) AS g(n) "
	    "     CROSS JOIN LATERAL " BATCH("seg.batch_no + g.n * 1000000")
	    "     CROSS JOIN LATERAL unnest(l.members) AS u(member) "
	    "     ORDER BY u.member, l.batch_no DESC) chain ON chain.member = x.member "
	    "   LEFT JOIN LATERAL (SELECT f.member, f.code FROM tmtp.failure f WHERE f.site_id = $1 "
	    "    AND f.message_id = $2 AND f.domain_id = seg.domain_id AND f.member = x.member LIMIT 1) f ON true "
	    "   WHERE (f.member IS NOT NULL "
	    "     OR coalesce(chain.done_at, seg.done_at) BETWEEN x.joined_at AND x.left_at) "
	    "    AND ($5::int4 IS NULL OR f.member IS NULL AND $5 = coalesce(chain.state, seg.state)) "
	    "   ORDER BY x.member LIMIT $6) y "
	    "  WHERE $5::int4 IS NULL OR $5 <> 4 AND ($5 = seg.state "
	    "    OR EXISTS (SELECT FROM generate_series(1, retries.n) AS g(n) "
	    "     CROSS JOIN LATERAL " BATCH("seg.batch_no + g.n * 1000000") "     WHERE $5 = "
	    STATE_OF("l.state") ")) "
	    "  LIMIT $6) "
	    "UNION ALL "
	    " (SELECT a.name, a.member, 4, NULL "
	    "  FROM m CROSS JOIN LATERAL (SELECT split_part(r.address, '@', 2) COLLATE \"C\" AS name, "
	    "    split_part(r.address, '@', 1) COLLATE \"C\" AS member "
	    "   FROM unnest(m.rejected) AS r(address)) a "
	    "  WHERE ($5::int4 IS NULL OR $5 = 4) AND (a.name, a.member) > ($3, $4) "
	    "  ORDER BY a.name, a.member LIMIT $6)) "
	    "SELECT z.member || '@' || z.name, z.state, z.reason, rc.* "
	    "FROM m LEFT JOIN LATERAL ("
	    " SELECT * FROM page ORDER BY page.name, page.member LIMIT $6) z ON true " RECEIPT_OF_Z
	    "ORDER BY z.name, z.member",
	/* clang-format on */
	.types = page_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_page,
	.rows = rows_page,
};

/* Those who were refused stand in a table of their own. */
static const struct store_op failed_op = {
	.name = "message_recipients_failed",
	/* clang-format off */
	.sql =
	    "WITH " SEGMENTS
	    "SELECT z.member || '@' || z.name, 2, z.code, NULL::timestamptz, NULL::timestamptz "
	    "FROM tmtp.message m LEFT JOIN LATERAL ("
	    " SELECT n.name, f.member, f.code "
	    " FROM (SELECT DISTINCT seg.name, seg.domain_id, seg.after FROM seg ORDER BY 1) n "
	    " CROSS JOIN LATERAL (SELECT f.member, f.code FROM tmtp.failure f "
	    "  WHERE f.site_id = $1 AND f.message_id = $2 AND f.domain_id = n.domain_id "
	    "  AND f.member > n.after ORDER BY f.member LIMIT $6) f LIMIT $6) z ON true "
	    "WHERE m.site_id = $1 AND m.message_id = $2 AND m.recalls IS NULL AND $5::int4 = 2 "
	    "ORDER BY z.name, z.member",
	/* clang-format on */
	.types = page_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_page,
	.rows = rows_page,
};

void
store_message_recipients(struct store *store, struct message_recipients *page)
{
	page->job.op = page->state == RECIPIENT_FAILED ? &failed_op : &page_op;
	page->rows = NULL;
	page->rows_n = 0;
	store_submit(store, &page->job);
}
