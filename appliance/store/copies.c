/* Copies of large attachments: see copies.h. Fetching stands in copy_fetch.c. */
#include "store/copies.h"

#include "store/rows.h"

const char *
copy_state_name(int state)
{
	static const char *const names[COPY_STATES] = { [COPY_WAITING] = "waiting",
		                                        [COPY_HERE] = "here",
		                                        [COPY_FAILED] = "failed",
		                                        [COPY_ASLEEP] = "on-opening" };

	return state >= 0 && state < COPY_STATES ? names[state] : "unknown";
}

/*
 * The entry i of a member shows what its message n has. What was withdrawn before it was read
 * doesn't.
 */
#define SHOWS(i, n)                                                                   \
	i ".dropped_at IS NULL AND (" i ".withdrawn_at IS NULL OR " i ".read_at < " i \
	  ".withdrawn_at) AND (" n ".only_account IS NULL OR " n ".only_account = " i \
	  ".account_id) "

/* Entries that members have of the message n: found by who opened its channel, since a look by the message isn't indexed. */
#define ENTRIES(n, where, limit)                                                   \
	"(SELECT c.account_id, c.receipts FROM tmtp.consent c CROSS JOIN LATERAL " \
	"  (SELECT k.* FROM tmtp.inbox k WHERE k.account_id = c.account_id "       \
	"   AND k.notification_id = " n ".notification_id LIMIT 1) i "             \
	" WHERE c.sender_id = " n ".sender_id AND c.state > 0 AND c.channel = " n  \
	".channel " where limit ") "

#define MESSAGE(as, id)                                                                         \
	"CROSS JOIN LATERAL (SELECT k.* FROM tmtp.notification k WHERE k.notification_id = " id \
	" LIMIT 1) " as " "

/* --- Announcing ----------------------------------------------------------- */

static void
bind_announce(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_announce *c = (const struct copy_announce *)jobs[0];

	(void)n;
	args_uuid(a, 0, &c->notification_id);
	args_i32(a, 1, c->number);
	args_slice(a, 2, c->digest);
	args_i64(a, 3, c->size);
	args_slice(a, 4, c->uris);
	args_uuid(a, 5, &c->fresh_id);
	args_time(a, 6, c->now_us);
	args_i64(a, 7, c->limits.max_octets);
	args_i64(a, 8, c->limits.member_octets);
	args_i64(a, 9, c->limits.total_octets);
}

#define CROWD_PLUS_1 "101"
_Static_assert(COPY_CROWD == 100, "CROWD_PLUS_1");

/*
 * "On opening" needs a crowd, or that nobody minds: each of them lets the
 * sender know what was read. Of a member without room nothing is kept for;
 * when none has room, nothing is fetched.
 */
#define ASLEEP                                                                       \
	"(SELECT count(*) = 0 OR count(*) = " CROWD_PLUS_1 " OR bool_and(receipts) " \
	" FROM who) "

static const struct store_op announce_run = {
	.name = "copy_announce",
	/* clang-format off */
	.sql =
	    "WITH n AS MATERIALIZED (SELECT * FROM tmtp.notification WHERE notification_id = $1), "
	    "who AS MATERIALIZED (SELECT e.* FROM n CROSS JOIN LATERAL " ENTRIES("n", "", "LIMIT " CROWD_PLUS_1) " e), "
	    "rule AS MATERIALIZED (SELECT " ASLEEP " AS asleep), "
	    "room AS MATERIALIZED (SELECT who.account_id FROM who, rule WHERE NOT rule.asleep AND $4 + "
	    "  coalesce((SELECT sum(h.size) FROM tmtp.copy_holder h WHERE h.account_id = who.account_id), 0) <= $9), "
	    "v AS MATERIALIZED (SELECT CASE WHEN $4 > $8 THEN '" COPY_TOO_LARGE "' WHEN rule.asleep THEN NULL "
	    "  WHEN NOT EXISTS (SELECT FROM room) THEN '" COPY_NO_MEMBER_ROOM "' "
	    "  WHEN $10 > 0 AND $4 + (SELECT coalesce(sum(c.size), 0) FROM tmtp.copy c WHERE c.state IN (0, 1)) > $10 "
	    "  THEN '" COPY_NO_ROOM "' END AS reason, rule.asleep FROM rule), "
	    "made AS (INSERT INTO tmtp.copy AS c (copy_id, sender_id, digest, size, state, reason, created_at) "
	    "  SELECT $6, n.sender_id, $3, $4, CASE WHEN v.reason IS NOT NULL THEN 2 WHEN v.asleep THEN 3 ELSE 0 END, "
	    "  v.reason, $7 FROM n, v "
	    "  ON CONFLICT (sender_id, digest, size) DO UPDATE SET created_at = $7, "
	    "   state = CASE WHEN c.state = 2 OR c.state = 3 AND excluded.state = 0 THEN excluded.state ELSE c.state END, "
	    "   reason = CASE WHEN c.state IN (2, 3) THEN excluded.reason ELSE c.reason END, "
	    "   attempts = CASE WHEN c.state IN (2, 3) THEN 0 ELSE c.attempts END, "
	    "   wrong = CASE WHEN c.state IN (2, 3) THEN 0 ELSE c.wrong END, "
	    "   not_before = CASE WHEN c.state IN (2, 3) THEN NULL ELSE c.not_before END "
	    "  RETURNING copy_id, state), "
	    "source AS (INSERT INTO tmtp.copy_source (copy_id, notification_id, number, uris) "
	    "  SELECT copy_id, $1, $2, $5 FROM made ON CONFLICT DO NOTHING), "
	    "held AS (INSERT INTO tmtp.copy_holder (account_id, copy_id, size) "
	    "  SELECT room.account_id, made.copy_id, $4 FROM made, room WHERE made.state IN (0, 1) ON CONFLICT DO NOTHING) "
	    "SELECT FROM made",
	/* clang-format on */
	.types = (const Oid[]){ T_UUID, T_INT4, T_BYTEA, T_INT8, T_TEXT, T_UUID, T_TIMESTAMPTZ,
	                        T_INT8, T_INT8, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_announce,
};

void
store_copy_announce(struct store *store, struct copy_announce *announce)
{
	announce->job.op = &announce_run;
	store_submit(store, &announce->job);
}

static void
bind_rouse(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_uuid(a, 0, &((const struct copy_rouse *)jobs[0])->notification_id);
}

static const struct store_op rouse_run = {
	.name = "copy_rouse",
	/* clang-format off */
	.sql =
	    "WITH s AS MATERIALIZED (SELECT c.copy_id FROM tmtp.copy_source s JOIN tmtp.copy c ON c.copy_id = s.copy_id "
	    "  WHERE s.notification_id = $1 AND c.state = 3), "
	    "n AS MATERIALIZED (SELECT k.* FROM tmtp.notification k WHERE k.notification_id = $1 "
	    "  AND EXISTS (SELECT FROM s)), "
	    "who AS MATERIALIZED (SELECT e.* FROM n CROSS JOIN LATERAL " ENTRIES("n", "", "LIMIT " CROWD_PLUS_1) " e) "
	    "UPDATE tmtp.copy c SET state = 0 FROM s WHERE c.copy_id = s.copy_id AND c.state = 3 AND NOT " ASLEEP,
	/* clang-format on */
	.types = (const Oid[]){ T_UUID, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_rouse,
};

void
store_copy_rouse(struct store *store, struct copy_rouse *rouse)
{
	rouse->job.op = &rouse_run;
	store_submit(store, &rouse->job);
}

/* --- Members -------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_uuid(a, 0, &((const struct copy_list *)jobs[0])->notification_id);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct copy_list *list = (struct copy_list *)jobs[0];

	(void)n;
	list->rows_n = 0;
	for (int row = 0; row < PQntuples(r) && row < COPY_INFOS_MAX; row++) {
		struct copy_info *c = &list->rows[list->rows_n++];
		struct slice digest = row_slice(r, row, 5);

		c->number = row_i32(r, row, 0);
		c->copy_id = row_uuid(r, row, 1);
		c->state = (enum copy_state)row_i32(r, row, 2);
		c->size = row_i64(r, row, 3);
		c->octets = row_i64(r, row, 4);
		if (digest.len == sizeof(c->digest))
			memcpy(c->digest, digest.data, digest.len);
		row_copy(c->reason, sizeof(c->reason), r, row, 6);
	}
}

static const struct store_op list_run = {
	.name = "copy_list",
	.sql =
	    "SELECT s.number, c.copy_id, c.state::int4, c.size, c.octets, c.digest, c.reason "
	    "FROM tmtp.copy_source s JOIN tmtp.copy c ON c.copy_id = s.copy_id "
	    "WHERE s.notification_id = $1 ORDER BY s.number",
	.types = (const Oid[]){ T_UUID, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_copy_list(struct store *store, struct copy_list *list)
{
	list->job.op = &list_run;
	store_submit(store, &list->job);
}

static void
bind_open(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_open *o = (const struct copy_open *)jobs[0];

	(void)n;
	args_uuid(a, 0, &o->copy_id);
	args_i64(a, 1, o->account_id);
	args_i64(a, 2, o->limits.max_octets);
	args_i64(a, 3, o->limits.member_octets);
	args_i64(a, 4, o->limits.total_octets);
}

static void
rows_open(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct copy_open *o = (struct copy_open *)jobs[0];

	(void)n;
	if (PQntuples(r) == 0)
		o->job.rc = STORE_NOT_FOUND;
	else
		o->state = (enum copy_state)row_i32(r, 0, 0);
}

static const struct store_op open_run = {
	.name = "copy_open",
	.sql =
	    "WITH c AS MATERIALIZED (SELECT c.copy_id, c.state, c.size, "
	    "  CASE WHEN c.size > $3 THEN '" COPY_TOO_LARGE "' "
	    "   WHEN c.size + coalesce((SELECT sum(h.size) FROM tmtp.copy_holder h WHERE h.account_id = $2 "
	    "    AND h.copy_id <> c.copy_id), 0) > $4 THEN '" COPY_NO_MEMBER_ROOM "' "
	    "   WHEN $5 > 0 AND c.size + (SELECT coalesce(sum(o.size), 0) FROM tmtp.copy o WHERE o.state IN (0, 1)) > $5 "
	    "   THEN '" COPY_NO_ROOM "' END AS no "
	    "  FROM tmtp.copy c WHERE c.copy_id = $1 AND (c.state = 3 OR c.state = 2 AND c.reason IN ('" COPY_TOO_LARGE
	    "', '" COPY_NO_MEMBER_ROOM "', '" COPY_NO_ROOM "'))), "
	    "u AS (UPDATE tmtp.copy k SET state = CASE WHEN c.no IS NULL THEN 0 ELSE 2 END, reason = c.no, attempts = 0, "
	    "  wrong = 0, not_before = NULL FROM c WHERE k.copy_id = c.copy_id AND k.state IN (2, 3) RETURNING k.state), "
	    "held AS (INSERT INTO tmtp.copy_holder (account_id, copy_id, size) SELECT $2, copy_id, size FROM c "
	    "  WHERE no IS NULL ON CONFLICT DO NOTHING) "
	    "SELECT coalesce((SELECT state FROM u), k.state)::int4 FROM tmtp.copy k WHERE k.copy_id = $1",
	.types = (const Oid[]){ T_UUID, T_INT8, T_INT8, T_INT8, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_open,
	.rows = rows_open,
};

void
store_copy_open(struct store *store, struct copy_open *open)
{
	open->job.op = &open_run;
	store_submit(store, &open->job);
}

static void
bind_read(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_read *p = (const struct copy_read *)jobs[0];

	(void)n;
	args_uuid(a, 0, &p->copy_id);
	args_i32(a, 1, p->part_no);
}

static void
rows_read(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct copy_read *p = (struct copy_read *)jobs[0];

	(void)n;
	free(p->data);
	p->data = NULL;
	if (PQntuples(r) == 0)
		p->job.rc = STORE_NOT_FOUND;
	else if ((p->data = row_octets(r, 0, 0, &p->len)) == NULL)
		p->job.rc = STORE_DOWN;
}

static size_t
octets_read(const struct store_job *job)
{
	(void)job;
	return ATTACHMENT_PART;
}

static const struct store_op read_run = {
	.name = "copy_read",
	.sql = "SELECT p.data FROM tmtp.copy c JOIN tmtp.copy_part p ON p.copy_id = c.copy_id "
	       "WHERE c.copy_id = $1 AND c.state = 1 AND p.part_no = $2",
	.types = (const Oid[]){ T_UUID, T_INT4, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.octets = octets_read,
	.bind = bind_read,
	.rows = rows_read,
};

void
store_copy_read(struct store *store, struct copy_read *read)
{
	read->job.op = &read_run;
	read->data = NULL;
	read->len = 0;
	store_submit(store, &read->job);
}

/* --- Forgetting ----------------------------------------------------------- */

static void
bind_sweep(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct copy_sweep *s = (const struct copy_sweep *)jobs[0];

	(void)n;
	args_uuid(a, 0, &s->after);
	args_i64(a, 1, s->limit);
	args_time(a, 2, s->young_us);
}

static void
rows_sweep(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct copy_sweep *s = (struct copy_sweep *)jobs[0];
	bool more = PQntuples(r) == 1 && row_i64(r, 0, 0) == (int64_t)s->limit;

	(void)n;
	s->forgotten = PQntuples(r) == 1 ? row_i64(r, 0, 1) : 0;
	if (more)
		s->after = row_uuid(r, 0, 2);
	else
		memset(&s->after, 0, sizeof(s->after));
}

/* created_at is looked at in the DELETE itself: who names it at this moment moves it on. */
static const struct store_op sweep_run = {
	.name = "copy_sweep",
	/* clang-format off */
	.sql =
	    "WITH page AS MATERIALIZED (SELECT copy_id FROM tmtp.copy WHERE copy_id > $1 ORDER BY copy_id LIMIT $2), "
	    "wanted AS MATERIALIZED (SELECT p.copy_id FROM page p WHERE EXISTS (SELECT FROM tmtp.copy_source s "
	    MESSAGE("n", "s.notification_id") "  WHERE s.copy_id = p.copy_id AND (n.state = 0 OR n.state = 1 AND EXISTS "
	    ENTRIES("n", "AND " SHOWS("i", "n"), "LIMIT 1") "))), "
	    "gone AS (DELETE FROM tmtp.copy c WHERE c.copy_id IN (SELECT copy_id FROM page) "
	    "  AND c.copy_id NOT IN (SELECT copy_id FROM wanted) AND c.created_at < $3 RETURNING 1), "
	    "let_go AS (DELETE FROM tmtp.copy_holder h USING wanted w WHERE h.copy_id = w.copy_id AND NOT EXISTS "
	    "  (SELECT FROM tmtp.copy_source s " MESSAGE("n", "s.notification_id")
	    "   CROSS JOIN LATERAL (SELECT k.* FROM tmtp.inbox k WHERE k.account_id = h.account_id "
	    "    AND k.notification_id = s.notification_id LIMIT 1) i "
	    "   WHERE s.copy_id = h.copy_id AND (n.state = 0 OR " SHOWS("i", "n") "))) "
	    "SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM gone), "
	    " (SELECT copy_id FROM page ORDER BY copy_id DESC LIMIT 1)",
	/* clang-format on */
	.types = (const Oid[]){ T_UUID, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ, /* it may take a while; nobody waits for it */
	.bind = bind_sweep,
	.rows = rows_sweep,
};

void
store_copy_sweep(struct store *store, struct copy_sweep *sweep)
{
	sweep->job.op = &sweep_run;
	store_submit(store, &sweep->job);
}
