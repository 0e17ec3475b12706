/* A clock that was set back: see clocks.h. */
#include "store/clocks.h"

#include "store/op.h"

static void
bind_see(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_time(a, 0, ((const struct clock_see *)jobs[0])->now_us);
	args_i64(a, 1, CLOCK_BACK_S);
	args_time(a, 2, ((const struct clock_see *)jobs[0])->seen_us);
}

static void
rows_see(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct clock_see *see = (struct clock_see *)jobs[0];
	bool one = PQntuples(r) == 1;

	(void)n;
	see->back_us = one ? row_i64(r, 0, 0) : 0;
	see->set_back = one ? row_i64(r, 0, 1) : 0;
	see->moved = one ? row_i64(r, 0, 2) : 0;
}

/*
 * Waits are moved by the whole difference, whether they were written before
 * the clock went ahead or while it was: those of before are tried too early
 * once, which a wait that lasts an hour too long is worse than. "Is it back"
 * is asked first and once, so that nothing is walked while the clock is right.
 */
#define SEEN(role)                                                                                  \
	"WITH was AS MATERIALIZED (SELECT greatest(c.seen_at, $3) AS seen_at, c.set_back, "         \
	"  greatest(c.seen_at, $3) > $1 + $2 * interval '1 second' AS back FROM tmtp.clock c "      \
	"  WHERE c.role = '" role "' FOR UPDATE), "                                                 \
	"now_seen AS (UPDATE tmtp.clock c SET seen_at = $1, set_back = c.set_back + was.back::int " \
	"  FROM was WHERE c.role = '" role "' AND (was.back OR was.seen_at < $1)), "

#define IS_BACK "(SELECT back FROM was)"
#define MOVED(column) column " = " column " - (SELECT seen_at - $1 FROM was)"

#define TOLD                                                                                 \
	"SELECT CASE WHEN w.back THEN (extract(epoch FROM w.seen_at - $1) * 1000000)::int8 " \
	" ELSE 0 END, w.set_back + w.back::int, "

static const struct store_op see_relay = {
	.name = "clock_see_relay",
	/* clang-format off */
	.sql =
	    SEEN("relay")
	    "batches AS (UPDATE tmtp.batch SET " MOVED("not_before") ", " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND state = 0 AND (not_before > $1 OR leased_until > $1) RETURNING 1), "
	    "peers AS (UPDATE tmtp.peer SET " MOVED("retry_at") ", " MOVED("probe_until") ", "
	    "  failing_since = least(failing_since, $1), refused_since = least(refused_since, $1), "
	    "  refused_at = least(refused_at, $1) "
	    "  WHERE " IS_BACK " AND (retry_at > $1 OR probe_until > $1 OR failing_since > $1 "
	    "   OR refused_at > $1) RETURNING 1), "
	    "grants AS (UPDATE tmtp.grant_outbox SET " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND leased_until > $1 RETURNING 1), "
	    "receipts AS (UPDATE tmtp.receipt_outbox SET " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND leased_until > $1 RETURNING 1), "
	    "presences AS (UPDATE tmtp.presence_outbox SET " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND leased_until > $1 RETURNING 1), "
	    "catchups AS (UPDATE tmtp.catchup SET " MOVED("next_at") ", " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND (next_at > $1 OR leased_until > $1) RETURNING 1), "
	    "joined AS (UPDATE tmtp.subscription SET joined_at = $1 "
	    "  WHERE " IS_BACK " AND joined_at > $1 RETURNING 1) "
	    TOLD
	    "(SELECT count(*) FROM batches) + (SELECT count(*) FROM peers) "
	    " + (SELECT count(*) FROM grants) + (SELECT count(*) FROM receipts) "
	    " + (SELECT count(*) FROM presences) + (SELECT count(*) FROM catchups) "
	    " + (SELECT count(*) FROM joined) FROM was w",
	/* clang-format on */
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.bind = bind_see,
	.rows = rows_see,
};

static const struct store_op see_home = {
	.name = "clock_see_home",
	/* clang-format off */
	.sql =
	    SEEN("home")
	    "pickups AS (UPDATE tmtp.notification SET " MOVED("not_before") ", " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND state = 0 AND (not_before > $1 OR leased_until > $1) RETURNING 1), "
	    "copies AS (UPDATE tmtp.copy SET " MOVED("not_before") ", " MOVED("leased_until")
	    "  WHERE " IS_BACK " AND state = 0 AND (not_before > $1 OR leased_until > $1) RETURNING 1) "
	    TOLD "(SELECT count(*) FROM pickups) + (SELECT count(*) FROM copies) FROM was w",
	/* clang-format on */
	.types = (const Oid[]){ T_TIMESTAMPTZ, T_INT8, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.bind = bind_see,
	.rows = rows_see,
};

#define ASK_EVERY_MS 5000
#define BACK_US ((int64_t)CLOCK_BACK_S * 1000000)

bool
clock_look(struct clock_look *look, struct clock_see *see, int64_t *back_us)
{
	int64_t jump = clock_jump_us(&look->watch), now_us = clock_wall_us();

	*back_us = jump <= -BACK_US ? -jump : 0;
	if (*back_us > 0 && now_us - jump > look->seen_us)
		look->seen_us = now_us - jump;
	if (jump >= BACK_US || jump <= -BACK_US)
		look->due_ms = 0;
	if (look->busy || clock_mono_ms() < look->due_ms)
		return false;
	look->busy = true;
	*see = (struct clock_see){ .now_us = now_us,
		                   .seen_us = look->seen_us > 0 ? look->seen_us : -1 };
	return true;
}

void
clock_look_done(struct clock_look *look, const struct clock_see *see)
{
	look->busy = false;
	if (see->job.rc != STORE_OK)
		return;
	if (see->seen_us == look->seen_us)
		look->seen_us = 0;
	if (look->seen_us == 0)
		look->due_ms = clock_mono_ms() + ASK_EVERY_MS;
}

void
store_clock_see_relay(struct store *store, struct clock_see *see)
{
	see->job.op = &see_relay;
	store_submit(store, &see->job);
}

void
store_clock_see_home(struct store *store, struct clock_see *see)
{
	see->job.op = &see_home;
	store_submit(store, &see->job);
}
