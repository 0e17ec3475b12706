/* A member's entries: see inboxes.h. Consent stands in consents.c. */
#include "store/inboxes.h"

#include "store/rows.h"

/* How much earlier than it became visible an entry's id may be: ids are kept for 30 days. */
#define SINCE_BACK_US (INT64_C(31) * 86400 * 1000000)

/* Verified, or withdrawn after it was. */
#define VISIBLE(n) "(" n ".state = 1 OR " n ".state = 3 AND " n ".verified_at IS NOT NULL) "

/* Withdrawn before it could be seen, it never is. */
#define WAS_SEEN(b, n)                                                                      \
	"(" b ".withdrawn_at IS NULL OR " b ".withdrawn_at > greatest(" b ".arrived_at, " n \
	".verified_at)) "

/*
 * A visible notification by its id, as n; one to a single member only for that member. LIMIT keeps the look a look at the
 * key: a planner that knows little of young tables would rather read them all.
 */
#define NOTIFICATION(as, id, account)                                                   \
	"CROSS JOIN LATERAL (SELECT k.* FROM tmtp.notification k "                      \
	"WHERE k.notification_id = " id                                                 \
	" AND " VISIBLE("k") "AND (k.only_account IS NULL OR k.only_account = " account \
			     ") LIMIT 1) " as " "
#define NOTIFICATION_OF(id, account) NOTIFICATION("n", id, account)
#define SENDER_OF_N \
	"CROSS JOIN LATERAL (SELECT k.address FROM tmtp.sender k WHERE k.sender_id = n.sender_id LIMIT 1) s "

#define MAIL "n.mail_sender, n.mail_from, n.mail_address"

/*
 * The entry b, whose notification is n, is shown: it was to be seen, and no
 * entry of its thread that the sender wrote later is; in one second the thread's
 * first is the oldest. A later one that was dropped counts: what it took the place of doesn't come back.
 */
#define SHOWN                                                                                                                                                                \
	WAS_SEEN("b", "n")                                                                                                                                                   \
	"AND (b.thread IS NULL OR NOT EXISTS (SELECT FROM tmtp.inbox o " NOTIFICATION(                                                                                       \
	    "m", "o.notification_id",                                                                                                                                        \
	    "o.account_id") "WHERE o.account_id = b.account_id AND o.thread = b.thread "                                                                                     \
			    "AND (m.date_s, o.notification_id <> o.thread, o.notification_id) > (n.date_s, b.notification_id <> b.thread, b.notification_id) AND " WAS_SEEN( \
				"o", "m") ")) "

/* Bodies are stored as they are, so that only the wanted octets are read. What was withdrawn before it was read is gone. */
#define BODY(b, n, max)                                                                   \
	"CASE WHEN " n ".state = 1 AND (" b ".withdrawn_at IS NULL OR " b ".read_at < " b \
	".withdrawn_at) THEN substr(" n ".body, 1, " max ") END"

/* The columns of an entry behind its ord: see read_entry. */
#define ENTRY(b, n, max)                                                                      \
	b ".notification_id, s.address, " n ".channel, greatest(" b ".arrived_at, " n         \
	  ".verified_at), " n ".date_s, " b ".read_at, " n ".state = 3 OR " b                 \
	  ".withdrawn_at IS NOT NULL, " BODY(b, n, max) ", " b ".variables, " MAIL            \
							", greatest(" b ".arrived_at, " n     \
							".verified_at, " b                    \
							".withdrawn_at), coalesce(" b         \
							".thread, " b ".notification_id), " b \
							".thread IS NOT NULL "

/* The entry of an account that has this id, as b with its n: of a thread the one that is shown. */
#define ENTRY_OF(account, id)                                                   \
	"CROSS JOIN LATERAL (SELECT e.* FROM (SELECT k.* FROM tmtp.inbox k "    \
	"  WHERE k.account_id = " account " AND k.notification_id = " id        \
	" UNION ALL SELECT k.* FROM tmtp.inbox k WHERE k.account_id = " account \
	" AND k.thread = " id " AND k.notification_id <> " id ") e) b "

static int32_t
body_max(const struct inbox_list *list)
{
	return list->body_max > 0 && list->body_max < INT32_MAX ? (int32_t)list->body_max
	                                                        : INT32_MAX;
}

/* --- Pages --------------------------------------------------------------- */

void
inbox_list_clear(struct inbox_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].sender);
		free(list->rows[i].channel);
		free(list->rows[i].body);
		free(list->rows[i].variables);
		free(list->rows[i].mail_sender);
		free(list->rows[i].mail_from);
		free(list->rows[i].mail_address);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

/* Memory was short: mail must never look like what was verified. */
static bool
mail_is_cut(const struct inbox_row *e, const PGresult *r, int row)
{
	return !row_is_null(r, row, 10) &&
	       (e->mail_sender == NULL || e->mail_from == NULL || e->mail_address == NULL);
}

static void
read_entry(struct inbox_list *list, const PGresult *r, int row)
{
	struct inbox_row *e = &list->rows[list->rows_n++];

	e->notification_id = row_uuid(r, row, 1);
	e->sender = row_text(r, row, 2);
	e->channel = row_text(r, row, 3);
	e->arrived_us = row_time(r, row, 4);
	e->date_s = row_i64(r, row, 5);
	e->read_us = row_time(r, row, 6);
	e->withdrawn = row_bool(r, row, 7);
	e->body = row_octets(r, row, 8, &e->size);
	e->variables = row_octets(r, row, 9, &e->variables_len);
	e->mail_sender = row_text(r, row, 10);
	e->mail_from = row_text(r, row, 11);
	e->mail_address = row_text(r, row, 12);
	e->changed_us = row_time(r, row, 13);
	e->entry_id = row_uuid(r, row, 14);
	list->threads = list->threads || row_bool(r, row, 15);
	if (e->sender == NULL || e->channel == NULL || (e->body == NULL && !e->withdrawn) ||
	    (e->variables == NULL && !row_is_null(r, row, 9)) || mail_is_cut(e, r, row))
		list->job.rc = STORE_DOWN;
}

/* Rows come in the order of their jobs. */
static void
rows_entries(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	int end, row = 0;

	for (size_t i = 0; i < n; i++) {
		struct inbox_list *list = (struct inbox_list *)jobs[i];

		inbox_list_clear(list);
		for (end = row; end < PQntuples(r) && row_i32(r, end, 0) == (int32_t)i;)
			end++;
		if (end > row &&
		    (list->rows = calloc((size_t)(end - row), sizeof(list->rows[0]))) == NULL) {
			list->job.rc = STORE_DOWN;
			row = end;
		}
		while (row < end)
			read_entry(list, r, row++);
		if (list->what == INBOX_ONE && list->rows_n == 0 && list->job.rc == STORE_OK)
			list->job.rc = STORE_NOT_FOUND;
	}
}

static void
bind_newest(struct args *a, struct store_job *const *jobs, size_t n)
{
	static const struct uuid none;
	struct uuid last;

	memset(&last, 0xff, sizeof(last));
	for (size_t i = 0; i < n; i++) {
		const struct inbox_list *list = (const struct inbox_list *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, list->account_id);
		args_uuid(a, 2,
		          memcmp(&list->before, &none, sizeof(none)) == 0 ? &last
		                                                          : &list->before);
		args_bool(a, 3, list->unread_only);
		args_i64(a, 4, list->limit);
		args_i32(a, 5, body_max(list));
	}
}

#define NEWEST(shown)                                                                                       \
	"SELECT i.ord, x.* "                                                                                \
	"FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::bool[], $5::int8[], $6::int4[]) "              \
	" AS i(ord, account_id, before, unread, max, octets) "                                              \
	"CROSS JOIN LATERAL (SELECT " ENTRY(                                                                \
	    "b", "n", "i.octets") " FROM tmtp.inbox b " NOTIFICATION_OF("b.notification_id",                \
	                                                                "b.account_id")                     \
	    SENDER_OF_N                                                                                     \
	    " WHERE b.account_id = i.account_id AND b.notification_id < i.before AND b.dropped_at IS NULL " \
	    "  AND (NOT i.unread OR b.read_at IS NULL AND b.withdrawn_at IS NULL) AND " shown               \
	    " ORDER BY b.notification_id DESC LIMIT i.max) x "                                              \
	    "ORDER BY i.ord, x.notification_id DESC"

static const struct store_op newest_op = {
	.name = "inbox_newest",
	.sql = NEWEST(WAS_SEEN("b", "n")),
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_BOOLS, T_INT8S, T_INT4S, 0 },
	.lane = STORE_READ,
	.batch_max = 16,
	.repeatable = true,
	.bind = bind_newest,
	.rows = rows_entries,
};

static const struct store_op newest_threads_op = {
	.name = "inbox_newest_threads",
	.sql = NEWEST(SHOWN),
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_BOOLS, T_INT8S, T_INT4S, 0 },
	.lane = STORE_READ,
	.batch_max = 16,
	.repeatable = true,
	.bind = bind_newest,
	.rows = rows_entries,
};

static void
bind_one(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct inbox_list *list = (const struct inbox_list *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, list->account_id);
		args_uuid(a, 2, &list->before);
		args_i32(a, 3, body_max(list));
	}
}

static const struct store_op one_op = {
	.name = "inbox_one",
	/* clang-format off */
	.sql =
	    "SELECT i.ord, " ENTRY("b", "n", "i.octets")
	    "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[]) "
	    " AS i(ord, account_id, id, octets) "
	    "CROSS JOIN LATERAL (SELECT k.* FROM tmtp.inbox k WHERE k.account_id = i.account_id "
	    " AND k.notification_id = i.id AND k.dropped_at IS NULL AND k.thread IS NULL LIMIT 1) b "
	    NOTIFICATION_OF("i.id", "i.account_id") SENDER_OF_N "WHERE " WAS_SEEN("b", "n") "ORDER BY i.ord",
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_INT4S, 0 },
	.lane = STORE_READ,
	.batch_max = 32,
	.repeatable = true,
	.bind = bind_one,
	.rows = rows_entries,
};

static const struct store_op one_threads_op = {
	.name = "inbox_one_threads",
	/* clang-format off */
	.sql =
	    "SELECT i.ord, " ENTRY("b", "n", "i.octets")
	    "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[]) "
	    " AS i(ord, account_id, id, octets) " ENTRY_OF("i.account_id", "i.id")
	    NOTIFICATION_OF("b.notification_id", "b.account_id") SENDER_OF_N "WHERE b.dropped_at IS NULL AND "
	    SHOWN "ORDER BY i.ord",
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_INT4S, 0 },
	.lane = STORE_READ,
	.batch_max = 32,
	.repeatable = true,
	.bind = bind_one,
	.rows = rows_entries,
};

static void
bind_since(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct inbox_list *list = (const struct inbox_list *)jobs[0];
	int64_t since = list->since_us > 0 ? list->since_us : 0;
	struct uuid from = uuid_floor(since > SINCE_BACK_US ? since - SINCE_BACK_US : 0);

	(void)n;
	args_i64(a, 0, list->account_id);
	args_uuid(a, 1, &from);
	args_time(a, 2, since);
	args_bool(a, 3, list->unread_only);
	args_i64(a, 4, list->limit);
	args_i32(a, 5, body_max(list));
}

/*
 * When an entry became visible stands in no index, but it is at most 31 days
 * after the time in its id: so the member's entries of that span are looked
 * at, without their bodies, and no older ones. Entries that became visible in
 * the same microsecond come together, lest the next page miss one.
 */
static const struct store_op since_op = {
	.name = "inbox_since",
	/* clang-format off */
	.sql =
	    "SELECT 0, " ENTRY("x", "n", "$6")
	    "FROM (SELECT b.*, greatest(b.arrived_at, n.verified_at, b.withdrawn_at) AS changed_at "
	    " FROM tmtp.inbox b " NOTIFICATION_OF("b.notification_id", "b.account_id")
	    " WHERE b.account_id = $1 AND b.notification_id >= $2 AND b.dropped_at IS NULL "
	    "  AND greatest(b.arrived_at, n.verified_at, b.withdrawn_at) > $3 "
	    "  AND (NOT $4 OR b.read_at IS NULL AND b.withdrawn_at IS NULL) AND " SHOWN
	    " ORDER BY changed_at FETCH FIRST $5 ROWS WITH TIES) x " NOTIFICATION_OF("x.notification_id", "$1")
	    SENDER_OF_N "ORDER BY x.changed_at, x.notification_id",
	/* clang-format on */
	.types = (const Oid[]){ T_INT8, T_UUID, T_TIMESTAMPTZ, T_BOOL, T_INT8, T_INT4, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_since,
	.rows = rows_entries,
};

/*
 * Threads cost looks into every day. Few members have any: they are asked for
 * only when a page has one, or when no entry outside of threads has the id.
 */
static void
on_plain(struct store_job *job)
{
	struct inbox_list *list = (struct inbox_list *)job;
	bool again = list->what == INBOX_ONE ? job->rc == STORE_NOT_FOUND
	                                     : job->rc == STORE_OK && list->threads;

	job->done = list->then;
	if (!again) {
		job->done(job);
		return;
	}
	inbox_list_clear(list);
	job->op = list->what == INBOX_ONE ? &one_threads_op : &newest_threads_op;
	store_submit(list->store, job);
}

void
store_inbox_list(struct store *store, struct inbox_list *list)
{
	static const struct store_op *const ops[] = {
		[INBOX_NEWEST] = &newest_op,
		[INBOX_ONE] = &one_op,
		[INBOX_SINCE] = &since_op,
	};

	list->job.op = ops[list->what];
	list->rows = NULL;
	list->rows_n = 0;
	list->threads = false;
	if (list->what != INBOX_SINCE) {
		list->store = store;
		list->then = list->job.done;
		list->job.done = on_plain;
	}
	store_submit(store, &list->job);
}

/* --- Counting ------------------------------------------------------------ */

static void
bind_count(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, ((const struct inbox_count *)jobs[i])->account_id);
	}
}

static void
rows_count(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	for (int row = 0; row < PQntuples(r); row++)
		((struct inbox_count *)jobs[row_i32(r, row, 0)])->unread = row_i64(r, row, 1);
}

static const struct store_op count_op = {
	.name = "inbox_count",
	/* clang-format off */
	.sql =
	    "SELECT i.ord, (SELECT count(*) FROM tmtp.inbox b "
	    NOTIFICATION_OF("b.notification_id", "b.account_id")
	    " WHERE b.account_id = i.account_id AND b.read_at IS NULL AND b.dropped_at IS NULL "
	    "  AND b.withdrawn_at IS NULL AND " SHOWN ") "
	    "FROM unnest($1::int4[], $2::int8[]) AS i(ord, account_id)",
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_INT8S, 0 },
	.lane = STORE_READ,
	.batch_max = 32,
	.repeatable = true,
	.bind = bind_count,
	.rows = rows_count,
};

void
store_inbox_count(struct store *store, struct inbox_count *count)
{
	count->job.op = &count_op;
	count->unread = 0;
	store_submit(store, &count->job);
}

/* --- Marking ------------------------------------------------------------- */

static void
bind_mark(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct inbox_mark *m = (const struct inbox_mark *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, m->account_id);
		args_uuid(a, 2, &m->entry_id);
		args_i32(a, 3, (int32_t)m->mark);
		args_time(a, 4, m->now_us);
	}
}

static void
rows_mark(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++)
		jobs[row_i32(r, row, 0)]->rc = STORE_OK;
}

/*
 * Marks of one entry that wait together are one update: the last of read and
 * unread counts, and any drop. An entry that this very drop dropped before
 * (the answer was lost) is found again.
 */
static const struct store_op mark_op = {
	.name = "inbox_mark",
	/* clang-format off */
	.sql =
	    "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[], "
	    "  $5::timestamptz[]) AS i(ord, account_id, id, mark, now)), "
	    "want AS MATERIALIZED (SELECT account_id, id, "
	    "  (array_agg(mark ORDER BY ord DESC) FILTER (WHERE mark < 2))[1] AS mark, "
	    "  (array_agg(now ORDER BY ord DESC) FILTER (WHERE mark < 2))[1] AS now, "
	    "  min(now) FILTER (WHERE mark = 2) AS dropped_at "
	    " FROM i GROUP BY account_id, id ORDER BY account_id, id), "
	    "seen AS MATERIALIZED (SELECT w.*, b.notification_id, b.read_at, b.withdrawn_at, n.sender_id, "
	    "  n.channel FROM want w " ENTRY_OF("w.account_id", "w.id")
	    NOTIFICATION_OF("b.notification_id", "b.account_id") " WHERE " SHOWN "), "
	    "marked AS (UPDATE tmtp.inbox b SET "
	    "  read_at = CASE w.mark WHEN 0 THEN coalesce(b.read_at, w.now) WHEN 1 THEN NULL ELSE b.read_at END, "
	    "  dropped_at = w.dropped_at "
	    " FROM seen w WHERE b.account_id = w.account_id AND b.notification_id = w.notification_id "
	    "  AND (b.dropped_at IS NULL OR b.dropped_at = w.dropped_at) "
	    " RETURNING b.account_id, w.id, b.notification_id), "
	    /* what is read for the first time is told to senders whom the member lets know */
	    "told AS (INSERT INTO tmtp.receipt_outbox (account_id, notification_id, kind, sender_id, domain_id, "
	    "  channel, happened_at) "
	    " SELECT w.account_id, w.notification_id, 1, w.sender_id, s.domain_id, w.channel, w.now "
	    " FROM marked m JOIN seen w ON w.account_id = m.account_id AND w.id = m.id "
	    " CROSS JOIN LATERAL (SELECT FROM tmtp.consent k WHERE k.account_id = w.account_id "
	    "  AND k.sender_id = w.sender_id AND k.channel = w.channel AND k.state = 1 AND k.receipts LIMIT 1) c "
	    " CROSS JOIN LATERAL (SELECT k.domain_id FROM tmtp.sender k WHERE k.sender_id = w.sender_id LIMIT 1) s "
	    " WHERE w.mark = 0 AND w.read_at IS NULL AND w.withdrawn_at IS NULL "
	    " ORDER BY 1, 2 ON CONFLICT DO NOTHING) "
	    "SELECT i.ord FROM i JOIN marked m ON m.account_id = i.account_id AND m.id = i.id",
	/* clang-format on */
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_UUIDS, T_INT4S, T_TIMESTAMPTZS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 128,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_mark,
	.rows = rows_mark,
};

void
store_inbox_mark(struct store *store, struct inbox_mark *mark)
{
	mark->job.op = &mark_op;
	store_submit(store, &mark->job);
}
