/*
 * Accepting pushes: see pushes.h. A statement for each audience, carrying
 * whatever waits: key, message and batches are written by one statement so that
 * a push is whole or not there. What is pushed most, one member's message
 * without a key, has a second one that costs less.
 */
#include "store/pushes.h"

#include "store/op.h"

const char *
push_audience_name(int audience)
{
	static const char *const names[] = { [PUSH_ONE] = "one",
		                             [PUSH_LIST] = "list",
		                             [PUSH_CHANNEL] = "channel",
		                             [PUSH_INVITATION] = "invitation" };

	return audience >= PUSH_ONE && audience <= PUSH_INVITATION ? names[audience]
	                                                           : "unknown";
}

const char *
push_lane_name(int lane)
{
	static const char *const names[] = {
		[LANE_URGENT] = "urgent", [LANE_NORMAL] = "normal", [LANE_BULK] = "bulk"
	};

	return lane >= LANE_URGENT && lane <= LANE_BULK ? names[lane] : "unknown";
}

/* The columns that all three share; each statement adds its own behind them. */
#define INPUT_COLUMNS                                                                                 \
	"ord, site_id, channel_id, message_id, lane, accepted_at, date_s, expires_at, digest, body, " \
	"key, body_hash"
#define INPUT_ARRAYS                                                                                  \
	"$1::int4[], $2::int8[], $3::int8[], $4::uuid[], $5::int4[], $6::timestamptz[], $7::int8[], " \
	"$8::timestamptz[], $9::bytea[], $10::bytea[], $11::text[], $12::bytea[]"
#define NEW_TYPES                                                                             \
	T_INT4S, T_INT8S, T_INT8S, T_UUIDS, T_INT4S, T_TIMESTAMPTZS, T_INT8S, T_TIMESTAMPTZS, \
	    T_BYTEAS, T_BYTEAS
#define NEW_N 10 /* without the key and its hash */
#define INPUT_TYPES NEW_TYPES, T_TEXTS, T_BYTEAS
#define INPUT_N 12

/*
 * Looks by the whole key. LIMIT keeps them that: in a table that it knows
 * little of the planner would take a part of the key, and read a channel.
 */
#define DOMAIN_OF(name) \
	"LATERAL (SELECT k.domain_id FROM tmtp.domain k WHERE k.name = " name " LIMIT 1) d "
#define SUBSCRIPTION_OF(push, member)                                                          \
	"LATERAL (SELECT k.state FROM tmtp.subscription k WHERE k.site_id = " push ".site_id " \
	"AND k.channel_id = " push ".channel_id AND k.domain_id = d.domain_id "                \
	"AND k.member = " member " LIMIT 1) s "

/* A key is taken by whoever inserts it first; in order, so that two batches can't wait for each other. */
#define KEYED_AND_FRESH(from)                                                                         \
	"keyed AS (INSERT INTO tmtp.push_key (site_id, key, body_hash, message_id, created_at) "      \
	" SELECT site_id, key, body_hash, message_id, accepted_at FROM " from                         \
	" WHERE key IS NOT NULL ORDER BY site_id, key ON CONFLICT DO NOTHING RETURNING message_id), " \
	"fresh AS MATERIALIZED (SELECT * FROM " from                                                  \
	" WHERE key IS NULL OR message_id IN (SELECT message_id FROM keyed)), "

#define INSERT_MESSAGE(audience, rejected, recipient)                                             \
	"message AS (INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, " \
	" accepted_at, date_s, expires_at, size, digest, body, rejected, recipient) "             \
	" SELECT site_id, message_id, channel_id, " audience ", lane, accepted_at, date_s, "      \
	" expires_at, octet_length(body), digest, body, " rejected ", " recipient                 \
	" FROM fresh ON CONFLICT DO NOTHING RETURNING message_id), "

/*
 * A push that is run again after a lost answer finds its message and leaves the
 * batches as they are: cut from today's chunks and members they would be others.
 * OR keeps the look a hash of the new messages.
 */
#define MADE_NOW "(f.key IS NOT NULL OR f.message_id IN (SELECT message_id FROM message)) "

static void
bind_new(struct args *a, int ord, const struct push *p)
{
	args_i32(a, 0, ord);
	args_i64(a, 1, p->site_id);
	args_i64(a, 2, p->channel_id);
	args_uuid(a, 3, &p->message_id);
	args_i32(a, 4, (int32_t)p->lane);
	args_time(a, 5, p->accepted_us);
	args_i64(a, 6, p->date_s);
	args_time(a, 7, p->expires_us);
	args_slice(a, 8, slice_mem(p->digest, 32));
	args_slice(a, 9, p->body);
}

static void
bind_input(struct args *a, int ord, const struct push *p)
{
	bind_new(a, ord, p);
	if (p->key.len == 0) {
		args_null(a, 10);
		args_null(a, 11);
	} else {
		args_slice(a, 10, p->key);
		args_slice(a, 11, slice_mem(p->body_hash, sizeof(p->body_hash)));
	}
}

static size_t
octets_push(const struct store_job *job)
{
	return ((const struct push *)job)->body.len;
}

/* Rows: ord, whether it was stored. A push without a row named nobody who holds the channel. */
static void
rows_outcome(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((struct push *)jobs[i])->outcome = PUSH_NOBODY;
	for (int row = 0; row < PQntuples(r); row++) {
		size_t ord = (size_t)row_i32(r, row, 0);

		if (ord < n)
			((struct push *)jobs[ord])->outcome =
			    row_bool(r, row, 1) ? PUSH_STORED : PUSH_KEY_TAKEN;
	}
}

/* --- One member ---------------------------------------------------------- */

static void
bind_one(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct push *p = (const struct push *)jobs[i];

		bind_input(a, (int)i, p);
		args_slice(a, INPUT_N, p->rcpts[0].domain);
		args_slice(a, INPUT_N + 1, p->rcpts[0].member);
		args_bool(a, INPUT_N + 2, p->conversation);
	}
}

static void
bind_one_new(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct push *p = (const struct push *)jobs[i];

		bind_new(a, (int)i, p);
		args_slice(a, NEW_N, p->rcpts[0].domain);
		args_slice(a, NEW_N + 1, p->rcpts[0].member);
	}
}

static void
rows_one(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	rows_outcome(r, jobs, n);
	for (size_t i = 0; i < n; i++) {
		struct push *p = (struct push *)jobs[i];

		p->rcpts[0].holds = p->outcome != PUSH_NOBODY;
	}
}

static const struct store_op push_one = {
	.name = "push_one",
	/* clang-format off */
	.sql =
	    "WITH held AS MATERIALIZED (SELECT i.*, d.domain_id "
	    " FROM unnest(" INPUT_ARRAYS ", $13::text[], $14::text[], $15::bool[]) "
	    "  AS i(" INPUT_COLUMNS ", domain, member, conversation) "
	    " CROSS JOIN " DOMAIN_OF("i.domain") " CROSS JOIN " SUBSCRIPTION_OF("i", "i.member")
	    " WHERE s.state = 1), " KEYED_AND_FRESH("held")
	    INSERT_MESSAGE("0", "NULL", "CASE WHEN conversation THEN member || '@' || domain END")
	    "batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    " lane, members, recipients) "
	    " SELECT site_id, message_id, 1, channel_id, domain_id, lane, ARRAY[member], 1 FROM fresh f "
	    " WHERE " MADE_NOW "ON CONFLICT DO NOTHING) "
	    "SELECT ord, key IS NULL OR message_id IN (SELECT message_id FROM keyed) FROM held",
	/* clang-format on */
	.types = (const Oid[]){ INPUT_TYPES, T_TEXTS, T_TEXTS, T_BOOLS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.octets = octets_push,
	.bind = bind_one,
	.rows = rows_one,
};

/*
 * Nothing of these can be there before: they have no key, and this is their first try. So there is
 * no conflict to look for, which would cost a look and a WAL record a row. The arrays are unnested in
 * the target list, a row at a time; unnest in FROM would write each of them into a store of its own.
 */
static const struct store_op push_one_new = {
	.name = "push_one_new",
	/* clang-format off */
	.sql =
	    "WITH held AS MATERIALIZED (SELECT i.*, d.domain_id FROM (SELECT unnest($1::int4[]) AS ord, "
	    "  unnest($2::int8[]) AS site_id, unnest($3::int8[]) AS channel_id, "
	    "  unnest($4::uuid[]) AS message_id, unnest($5::int4[]) AS lane, "
	    "  unnest($6::timestamptz[]) AS accepted_at, unnest($7::int8[]) AS date_s, "
	    "  unnest($8::timestamptz[]) AS expires_at, unnest($9::bytea[]) AS digest, "
	    "  unnest($10::bytea[]) AS body, unnest($11::text[]) AS domain, unnest($12::text[]) AS member) i "
	    " CROSS JOIN " DOMAIN_OF("i.domain") " CROSS JOIN " SUBSCRIPTION_OF("i", "i.member")
	    " WHERE s.state = 1), "
	    "message AS (INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "
	    " accepted_at, date_s, expires_at, size, digest, body) "
	    " SELECT site_id, message_id, channel_id, 0, lane, accepted_at, date_s, expires_at, "
	    " octet_length(body), digest, body FROM held), "
	    "batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    " lane, members, recipients) "
	    " SELECT site_id, message_id, 1, channel_id, domain_id, lane, ARRAY[member], 1 FROM held) "
	    "SELECT ord, true FROM held",
	/* clang-format on */
	.types = (const Oid[]){ NEW_TYPES, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.repeatable = true,
	.again = &push_one,
	.wakes = "tmtp_relay",
	.octets = octets_push,
	.bind = bind_one_new,
	.rows = rows_one,
};

/* --- A list of members --------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct push *p = (const struct push *)jobs[i];

		bind_input(a, (int)i, p);
		for (size_t k = 0; k < p->rcpts_n; k++) {
			args_i32(a, INPUT_N, (int32_t)i);
			args_i32(a, INPUT_N + 1, (int32_t)k);
			args_slice(a, INPUT_N + 2, p->rcpts[k].domain);
			args_slice(a, INPUT_N + 3, p->rcpts[k].member);
		}
	}
}

/* Rows: ord, stored, index of a recipient, holds. */
static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	rows_outcome(r, jobs, n);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < ((struct push *)jobs[i])->rcpts_n; k++)
			((struct push *)jobs[i])->rcpts[k].holds = false;
	for (int row = 0; row < PQntuples(r); row++) {
		struct push *p = (struct push *)jobs[row_i32(r, row, 0)];
		size_t index = (size_t)row_i32(r, row, 2);

		if (index < p->rcpts_n)
			p->rcpts[index].holds = true;
	}
}

static const struct store_op push_list = {
	.name = "push_list",
	/* clang-format off */
	.sql =
	    "WITH looked AS MATERIALIZED (SELECT r.*, d.domain_id, coalesce(s.state = 1, false) AS holds "
	    " FROM unnest($13::int4[], $14::int4[], $15::text[], $16::text[]) AS r(ord, idx, domain, member) "
	    " JOIN unnest($1::int4[], $2::int8[], $3::int8[]) AS i(ord, site_id, channel_id) ON i.ord = r.ord "
	    " LEFT JOIN " DOMAIN_OF("r.domain") " ON true "
	    " LEFT JOIN " SUBSCRIPTION_OF("i", "r.member") " ON true), "
	    "held AS MATERIALIZED (SELECT * FROM unnest(" INPUT_ARRAYS ") AS i(" INPUT_COLUMNS ") "
	    " WHERE ord IN (SELECT ord FROM looked WHERE holds)), " KEYED_AND_FRESH("held")
	    INSERT_MESSAGE("1", "(SELECT array_agg(l.member || '@' || l.domain ORDER BY l.idx) FROM looked l " " WHERE l.ord = fresh.ord AND NOT l.holds)", "NULL")
	    "batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    " lane, members, recipients) "
	    " SELECT f.site_id, f.message_id, "
	    "  row_number() OVER (PARTITION BY f.ord ORDER BY l.domain_id), f.channel_id, l.domain_id, "
	    "  f.lane, array_agg(l.member ORDER BY l.member), count(*) "
	    " FROM fresh f JOIN looked l ON l.ord = f.ord AND l.holds WHERE " MADE_NOW
	    " GROUP BY f.ord, f.site_id, f.message_id, f.channel_id, f.lane, l.domain_id "
	    " ON CONFLICT DO NOTHING) "
	    "SELECT h.ord, h.key IS NULL OR h.message_id IN (SELECT message_id FROM keyed), l.idx "
	    "FROM held h JOIN looked l ON l.ord = h.ord AND l.holds",
	/* clang-format on */
	.types = (const Oid[]){ INPUT_TYPES, T_INT4S, T_INT4S, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 8, /* joins within the statement are loops over it: keep it small */
	.repeatable = true,
	.wakes = "tmtp_relay",
	.octets = octets_push,
	.bind = bind_list,
	.rows = rows_list,
};

/* --- All who hold the channel --------------------------------------------- */

static void
bind_channel(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bind_input(a, (int)i, (const struct push *)jobs[i]);
}

static const struct store_op push_channel = {
	.name = "push_channel",
	/* clang-format off */
	.sql =
	    "WITH held AS MATERIALIZED (SELECT * FROM unnest(" INPUT_ARRAYS ") AS i(" INPUT_COLUMNS ")), "
	    KEYED_AND_FRESH("held") INSERT_MESSAGE("2", "NULL", "NULL")
	    "batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    " lane, first_member, next_member, recipients) "
	    " SELECT f.site_id, f.message_id, "
	    "  row_number() OVER (PARTITION BY f.ord ORDER BY c.domain_id, c.first_member), "
	    "  f.channel_id, c.domain_id, f.lane, c.first_member, c.next_member, c.members "
	    " FROM fresh f JOIN tmtp.chunk c ON c.site_id = f.site_id AND c.channel_id = f.channel_id "
	    " WHERE " MADE_NOW "ON CONFLICT DO NOTHING) "
	    "SELECT ord, key IS NULL OR message_id IN (SELECT message_id FROM keyed) FROM held",
	/* clang-format on */
	.types = (const Oid[]){ INPUT_TYPES, 0 },
	.lane = STORE_WRITE,
	.batch_max = 8,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.octets = octets_push,
	.bind = bind_channel,
	.rows = rows_outcome,
};

void
store_push(struct store *store, struct push *p)
{
	static const struct store_op *const ops[] = {
		[PUSH_ONE] = &push_one,
		[PUSH_LIST] = &push_list,
		[PUSH_CHANNEL] = &push_channel,
	};

	if (p->has_values || p->is_replacement) {
		store_push_linked(store, p);
		return;
	}
	p->job.op = p->audience == PUSH_ONE && p->key.len == 0 && !p->conversation
	                ? &push_one_new
	                : ops[p->audience];
	store_submit(store, &p->job);
}

/* --- What a key was used for ---------------------------------------------- */

static void
bind_earlier(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct push_earlier *e = (const struct push_earlier *)jobs[i];

		args_i32(a, 0, (int)i);
		args_i64(a, 1, e->site_id);
		args_slice(a, 2, e->key);
	}
}

static void
rows_earlier(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct push_earlier *e = (struct push_earlier *)jobs[row_i32(r, row, 0)];
		struct slice hash = row_slice(r, row, 2);

		e->message_id = row_uuid(r, row, 1);
		if (hash.len == sizeof(e->body_hash))
			memcpy(e->body_hash, hash.data, hash.len);
		e->job.rc = STORE_OK;
	}
}

static const struct store_op earlier_get = {
	.name = "push_earlier",
	.sql = "SELECT i.ord, k.message_id, k.body_hash "
	       "FROM unnest($1::int4[], $2::int8[], $3::text[]) AS i(ord, site_id, key) "
	       "JOIN tmtp.push_key k ON k.site_id = i.site_id AND k.key = i.key",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_TEXTS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_earlier,
	.rows = rows_earlier,
};

void
store_push_earlier(struct store *store, struct push_earlier *e)
{
	e->job.op = &earlier_get;
	store_submit(store, &e->job);
}
