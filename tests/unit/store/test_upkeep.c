/* store/upkeep.h: days ahead, chunks cut to size, what is old forgotten. */
#include "cluster.h"

#include "store/members.h"
#include "store/pushes.h"
#include "store/upkeep.h"

#define DAYS 9 /* yesterday to a week ahead */
/* message, batch, failure, notification, inbox, replacement, recipient_values, receipt */
#define TABLES 8
#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define DAY INT64_C(86400000000)

static struct store *relay, *second, *site, *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site SELECT i, 's' || i || '.test', 'shop', 't', now() "
	            "FROM generate_series(1, 5) AS i");
	cluster_sql("INSERT INTO tmtp.channel SELECT i, 1, 'orders', 't', now() "
	            "FROM generate_series(1, 5) AS i");
	cluster_sql("INSERT INTO tmtp.domain SELECT i, 'd' || i || '.test', now() "
	            "FROM generate_series(1, 30) AS i");
	relay = cluster_store("tmtp_relay", 1);
	second = cluster_store("tmtp_relay", 1);
	site = cluster_store("tmtp_site", 1);
	home = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&relay, 1000);
	store_stop(&second, 1000);
	store_stop(&site, 1000);
	store_stop(&home, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.subscription, tmtp.chunk, tmtp.message, tmtp.batch");
	return 0;
}

/* --- Days ---------------------------------------------------------------- */

static int64_t
days(void)
{
	return cluster_int(
	    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tmtp.inbox'::regclass");
}

static void
test_days_from_yesterday_to_a_week_ahead(void **state)
{
	struct upkeep_partitions u = { .now_us = NOW + 30 * DAY };
	int64_t before = days();

	(void)state;
	assert_int_equal(RUN(store_upkeep_partitions, relay, &u), STORE_OK);
	assert_int_equal(u.made, DAYS * TABLES);
	assert_int_equal(days(), before + DAYS);
	assert_int_equal(RUN(store_upkeep_partitions, home, &u), STORE_OK);
	assert_int_equal(u.made, 0);
	u.now_us += DAY;
	assert_int_equal(RUN(store_upkeep_partitions, relay, &u), STORE_OK);
	assert_int_equal(u.made, TABLES);
	assert_int_equal(days(), before + DAYS + 1);
	/* A day begins at midnight UTC, by the ids' own time. */
	cluster_sql("INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at) VALUES "
	            "(1, tmtp.uuid_floor('2027-02-13'), now())");
	assert_string_equal(cluster_text("SELECT tableoid::regclass FROM tmtp.inbox"),
	                    "tmtp.inbox_20270213");
	cluster_sql("TRUNCATE tmtp.inbox");
}

/* A day is as its table: keys, indexes, settings, storage. */
static void
test_a_day_is_like_its_table(void **state)
{
	struct upkeep_partitions u = { .now_us = NOW + 60 * DAY };

	(void)state;
	assert_int_equal(RUN(store_upkeep_partitions, relay, &u), STORE_OK);
	assert_string_equal(cluster_text("SELECT string_agg(concat_ws(' ', c.indisprimary, "
	                                 "c.indisvalid, p.inhparent::regclass), "
	                                 "', ' ORDER BY indisprimary) FROM pg_index c JOIN "
	                                 "pg_inherits p ON p.inhrelid = c.indexrelid "
	                                 "WHERE c.indrelid = 'tmtp.batch_20270316'::regclass"),
	                    "f t tmtp.batch_waiting, t t tmtp.batch_pkey");
	assert_int_equal(cluster_int("SELECT count(*) FROM pg_index WHERE indrelid = "
	                             "'tmtp.batch_20270316'::regclass"),
	                 2);
	assert_string_equal(
	    cluster_text("SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE oid = "
	                 "'tmtp.batch_20270316'::regclass"),
	    "fillfactor=80 autovacuum_vacuum_scale_factor=0.05 "
	    "autovacuum_vacuum_cost_delay=1");
	assert_string_equal(
	    cluster_text("SELECT attstorage FROM pg_attribute WHERE attname = 'body' AND "
	                 "attrelid = 'tmtp.message_20270316'::regclass"),
	    "e");
	assert_string_equal(cluster_text("SELECT relowner::regrole FROM pg_class WHERE oid = "
	                                 "'tmtp.message_20270316'::regclass"),
	                    "tmtp_owner");
}

static void
test_two_make_the_same_days(void **state)
{
	struct upkeep_partitions u[8];
	int made = 0;

	(void)state;
	for (int i = 0; i < 8; i++) {
		u[i] = (struct upkeep_partitions){ .now_us = NOW + 90 * DAY };
		SUBMIT(store_upkeep_partitions, i % 2 == 0 ? relay : home, &u[i]);
	}
	waiting_all();
	for (int i = 0; i < 8; i++) {
		assert_int_equal(u[i].job.rc, STORE_OK);
		made += u[i].made;
	}
	assert_int_equal(made, DAYS * TABLES);
}

/* Another process is making the same days: they are waited for, not made twice. */
static void
test_days_that_another_makes_are_found(void **state)
{
	PGconn *other =
	    cluster_hold("SELECT tmtp.ensure_partitions('2027-05-10', '2027-05-30')");
	struct upkeep_partitions u = { .now_us = NOW + 120 * DAY };

	(void)state;
	SUBMIT(store_upkeep_partitions, relay, &u);
	cluster_blocked();
	cluster_release(other);
	waiting_all();
	assert_int_equal(u.job.rc, STORE_OK);
	assert_int_equal(u.made, 0);
}

/* Making tomorrow holds up nobody who reads or writes today, however long he takes. */
static void
test_making_days_waits_for_nobody(void **state)
{
	PGconn *busy = cluster_hold(
	    "DELETE FROM tmtp.message; DELETE FROM tmtp.batch; DELETE FROM tmtp.inbox; "
	    "DELETE FROM tmtp.failure; DELETE FROM tmtp.notification");
	struct upkeep_partitions u = { .now_us = NOW + 160 * DAY };
	int64_t before = days();
	bool blocked;

	(void)state;
	SUBMIT(store_upkeep_partitions, relay, &u);
	do {
		blocked =
		    cluster_int(
			"SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
			"WHERE NOT l.granted AND a.datname = current_database()") > 0;
	} while (!blocked && days() == before);
	cluster_release(busy);
	waiting_all();
	assert_false(blocked);
	assert_int_equal(u.made, DAYS * TABLES);
}

/* --- Chunks -------------------------------------------------------------- */

static void
members(int site_id, int domain_id, int from, int to, int step)
{
	cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, "
	            "state, grant_id, "
	            "joined_at) SELECT %d, 1, %d, 'm' || to_char(i, 'FM00000'), 1, 'g', "
	            "to_timestamp(0) "
	            "FROM generate_series(%d, %d, %d) AS i ON CONFLICT DO NOTHING",
	            site_id, domain_id, from, to, step);
}

static void
chunk(int site_id, int domain_id, const char *first, const char *next, int n)
{
	cluster_sql("INSERT INTO tmtp.chunk VALUES (%d, 1, %d, '%s', %s, %d)", site_id,
	            domain_id, first, next, n);
}

/* Each chunk ends where the next begins, the first at '', the last nowhere. */
static void
assert_tiled(void)
{
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM (SELECT first_member, next_member, "
	                "lag(next_member) OVER w AS before, row_number() OVER w AS nth, "
	                "lead(first_member) OVER w AS behind FROM tmtp.chunk "
	                "WINDOW w AS (PARTITION BY site_id, channel_id, domain_id ORDER BY "
	                "first_member)) AS x "
	                "WHERE (nth = 1 AND first_member <> '') OR (nth > 1 AND before IS "
	                "DISTINCT FROM first_member) "
	                "OR (behind IS NULL AND next_member IS NOT NULL) OR first_member >= "
	                "next_member"),
	    0);
}

static int64_t
chunks(void)
{
	return cluster_int("SELECT count(*) FROM tmtp.chunk");
}

/* The most that a chunk holds. */
static int64_t
largest(void)
{
	return cluster_int("SELECT max(n) FROM (SELECT count(*) AS n FROM tmtp.chunk c JOIN "
	                   "tmtp.subscription s "
	                   "USING (site_id, channel_id, domain_id) WHERE s.state = 1 AND "
	                   "s.member >= c.first_member "
	                   "AND (c.next_member IS NULL OR s.member < c.next_member) "
	                   "GROUP BY site_id, channel_id, domain_id, first_member) AS x");
}

static struct upkeep_chunks
from_the_start(unsigned limit)
{
	return (struct upkeep_chunks){ .target = 800, .max = 1000, .limit = limit };
}

/* Once round; how many were changed. */
static unsigned
round_of(struct store *s, unsigned limit)
{
	struct upkeep_chunks u = from_the_start(limit);
	unsigned changed = 0;

	do {
		assert_int_equal(RUN(store_upkeep_chunks, s, &u), STORE_OK);
		assert_true(u.seen <= limit);
		changed += u.changed;
	} while (u.site_id != 0);
	return changed;
}

static void
test_a_channel_that_grew_is_cut(void **state)
{
	(void)state;
	members(1, 9, 0, 4999, 1);
	cluster_sql(
	    "UPDATE tmtp.subscription SET state = 3 WHERE member >= 'm04500'"); /* left: not
	                                                                           counted */
	chunk(1, 9, "", "NULL", 1);
	assert_int_equal(round_of(relay, 100), 1);
	assert_tiled();
	assert_int_equal(chunks(), 6);
	assert_int_equal(largest(), 750);
	assert_int_equal(cluster_int("SELECT sum(members) FROM tmtp.chunk"), 4500);
	assert_int_equal(round_of(relay, 100), 0); /* that's all */
	assert_int_equal(chunks(), 6);
}

static void
test_it_grows_while_it_is_cut(void **state)
{
	(void)state;
	chunk(1, 9, "", "NULL", 0);
	for (int i = 0; i < 10; i++) {
		members(1, 9, i, 4999, 10);
		members(1, 8, 0, 100, 1);
		(void)round_of(i % 2 == 0 ? relay : second, 2);
		assert_tiled();
	}
	assert_true(largest() <= 1000);
	assert_int_equal(cluster_int("SELECT sum(members) FROM tmtp.chunk"), 5000);
}

/* The number that was counted before is by chance what a part holds now. */
static void
test_a_chunk_that_doubled_is_cut_too(void **state)
{
	(void)state;
	members(1, 9, 0, 1599, 1);
	chunk(1, 9, "", "NULL", 800);
	assert_int_equal(round_of(relay, 100), 1);
	assert_tiled();
	assert_int_equal(chunks(), 2);
	assert_int_equal(largest(), 800);
	assert_int_equal(round_of(relay, 100), 0);
}

static void
test_exactly_at_the_limit(void **state)
{
	(void)state;
	members(1, 9, 1, 1000, 1);
	chunk(1, 9, "", "NULL", 1);
	members(1, 8, 1, 1001, 1);
	chunk(1, 8, "", "NULL", 1001);
	assert_int_equal(round_of(relay, 100), 2);
	assert_tiled();
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.chunk WHERE domain_id = 9"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.chunk WHERE domain_id = 8"), 2);
	assert_int_equal(cluster_int("SELECT sum(members) FROM tmtp.chunk WHERE domain_id = 9"),
	                 1000);
}

static void
test_thin_neighbours_are_joined(void **state)
{
	(void)state;
	members(1, 9, 0, 4999, 1);
	chunk(1, 9, "", "NULL", 1);
	(void)round_of(relay, 100);
	assert_int_equal(chunks(), 7);
	cluster_sql("UPDATE tmtp.subscription SET state = 3 WHERE right(member, 2) <> '00' AND "
	            "member < 'm04000'");
	for (int i = 0; i < 8; i++) {
		(void)round_of(i % 2 == 0 ? relay : second, 3 + (unsigned)i);
		assert_tiled();
	}
	assert_int_equal(round_of(relay, 100), 0);
	assert_in_range(chunks(), 2, 4);
	assert_true(largest() <= 1000);
	assert_int_equal(cluster_int("SELECT sum(members) FROM tmtp.chunk"), 1040);
	/* And the last one of a channel stays, also when everybody left. */
	cluster_sql("UPDATE tmtp.subscription SET state = 3");
	for (int i = 0; i < 8; i++)
		(void)round_of(relay, 100);
	assert_tiled();
	assert_int_equal(chunks(), 1);
}

static void
test_neighbours_of_other_channels_are_not_joined(void **state)
{
	(void)state;
	for (int s = 1; s <= 5; s++)
		for (int d = 1; d <= 4; d++)
			chunk(s, d, "", "NULL", 5);
	members(1, 1, 1, 3, 1);
	assert_int_equal(round_of(relay, 100), 20);
	assert_int_equal(round_of(relay, 3), 0);
	assert_int_equal(chunks(), 20);
	assert_int_equal(cluster_int("SELECT sum(members) FROM tmtp.chunk"), 3);
}

/* The cursor looks at each chunk once a round, whatever the page; then it begins again. */
static void
test_the_cursor_goes_round(void **state)
{
	struct upkeep_chunks u;

	(void)state;
	for (int s = 1; s <= 5; s++)
		for (int d = 1; d <= 20; d++)
			chunk(s, d, "", "NULL", 0);
	for (unsigned limit = 1; limit <= 120; limit = limit * 3 + 1) {
		unsigned seen = 0;

		u = from_the_start(limit);
		do {
			assert_int_equal(RUN(store_upkeep_chunks, relay, &u), STORE_OK);
			seen += u.seen;
		} while (u.site_id != 0);
		assert_int_equal(seen, 100);
		assert_int_equal(u.channel_id, 0);
		assert_int_equal(u.domain_id, 0);
		assert_string_equal(u.first_member, "");
	}
	cluster_sql("TRUNCATE tmtp.chunk");
	u = from_the_start(10);
	assert_int_equal(RUN(store_upkeep_chunks, relay, &u), STORE_OK);
	assert_int_equal(u.seen, 0);
}

/* Two cut the same channels again and again while members join and broadcasts are accepted. */
static void
test_cutting_while_members_join_and_messages_are_accepted(void **state)
{
	static struct upkeep_chunks u[2][12];
	static struct push p[12];
	static struct member_grant g[600];
	static char names[600][8];
	static const uint8_t digest[32], grant[20];

	(void)state;
	members(1, 9, 0, 9999, 2);
	chunk(1, 9, "", "NULL", 1);
	for (int i = 0; i < 12; i++) {
		for (int k = 0; k < 50; k++) {
			int n = i * 50 + k;

			(void)snprintf(names[n], sizeof(names[n]), "m%05d", n * 16 + 1);
			g[n] = (struct member_grant){ .domain = SLICE("d9.test"),
				                      .member = slice_str(names[n]),
				                      .site_domain = SLICE("s1.test"),
				                      .site_name = SLICE("shop"),
				                      .channel = SLICE("orders"),
				                      .state = MEMBER_GRANTED,
				                      .grant_id = slice_mem(grant, 20),
				                      .date_s = 1,
				                      .now_us = NOW };
			SUBMIT(store_member_grant, home, &g[n]);
		}
		for (int w = 0; w < 2; w++) {
			u[w][i] = (struct upkeep_chunks){ .target = 800 - 60 * i,
				                          .max = 1000 - 60 * i,
				                          .limit = 100 };
			SUBMIT(store_upkeep_chunks, w == 0 ? relay : second, &u[w][i]);
		}
		p[i] = (struct push){ .site_id = 1,
			              .channel_id = 1,
			              .audience = PUSH_CHANNEL,
			              .lane = LANE_BULK,
			              .accepted_us = NOW,
			              .expires_us = -1,
			              .body = SLICE("b"),
			              .digest = digest,
			              .message_id = uuid_floor(NOW + 1000 * (int64_t)i) };
		SUBMIT(store_push, site, &p[i]);
	}
	waiting_all();
	for (int i = 0; i < 12; i++) {
		assert_int_equal(p[i].job.rc, STORE_OK);
		assert_int_equal(u[0][i].job.rc, STORE_OK);
		assert_int_equal(u[1][i].job.rc, STORE_OK);
	}
	for (int n = 0; n < 600; n++)
		assert_int_equal(g[n].job.rc, STORE_OK);
	assert_tiled();
	assert_true(chunks() > 10);
	/* Each message's batches tile the channel: everybody is in exactly one. */
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM (SELECT m.message_id, s.member, (SELECT count(*) "
	                "FROM tmtp.batch b "
	                "WHERE b.site_id = 1 AND b.message_id = m.message_id AND s.member >= "
	                "b.first_member AND "
	                "(b.next_member IS NULL OR s.member < b.next_member)) AS n FROM "
	                "tmtp.message m, "
	                "tmtp.subscription s WHERE s.member LIKE '%%0') AS x WHERE n <> 1"),
	    0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 12);
}

/* Somebody has a chunk in hand: the others are looked at without waiting. */
static void
test_a_chunk_in_other_hands_is_passed_by(void **state)
{
	PGconn *other;

	(void)state;
	members(1, 9, 1, 1500, 1);
	members(1, 8, 1, 1500, 1);
	chunk(1, 9, "", "NULL", 1);
	chunk(1, 8, "", "NULL", 1);
	other = cluster_hold("SELECT * FROM tmtp.chunk WHERE domain_id = 8 FOR UPDATE");
	assert_int_equal(round_of(relay, 100), 1);
	cluster_release(other);
	assert_int_equal(chunks(), 3);
	assert_int_equal(round_of(relay, 100), 1);
	assert_int_equal(chunks(), 4);
	assert_tiled();
}

/* The one between two thin ones is in other hands: they are no neighbours. */
static void
test_what_is_passed_by_is_not_joined_over(void **state)
{
	PGconn *other;

	(void)state;
	chunk(1, 9, "", "'b'", 0);
	chunk(1, 9, "b", "'c'", 0);
	chunk(1, 9, "c", "NULL", 0);
	other = cluster_hold("SELECT * FROM tmtp.chunk WHERE first_member = 'b' FOR UPDATE");
	assert_int_equal(round_of(relay, 100), 0);
	assert_tiled();
	assert_int_equal(chunks(), 3);
	cluster_release(other);
	assert_int_equal(round_of(relay, 100), 2);
	assert_tiled();
	assert_int_equal(chunks(), 2);
}

/* --- Forgetting ---------------------------------------------------------- */

static void
test_old_keys_ids_and_log_ins_are_forgotten(void **state)
{
	struct upkeep_forget f = { .now_us = NOW, .keys_before_us = NOW - DAY, .limit = 7 };

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.push_key SELECT 1, 'k' || i, '', gen_random_uuid(), "
	    "to_timestamp(1800000000 - i * 86400 / 10.0) FROM generate_series(1, 20) AS i");
	cluster_sql("INSERT INTO tmtp.account VALUES (1, 'd.test', 'm', 'x', now())");
	cluster_sql("INSERT INTO tmtp.account_token SELECT 1, i::text::bytea, now(), "
	            "to_timestamp(1800000000 + i) FROM generate_series(-4, 3) AS i");
	cluster_sql("INSERT INTO tmtp.posted SELECT 5, i::text, 5, gen_random_uuid(), '', 1, "
	            "to_timestamp(1800000000 + i) FROM generate_series(-10, 9) AS i");
	assert_int_equal(RUN(store_upkeep_forget_keys, site, &f), STORE_OK);
	assert_int_equal(f.forgotten, 7);
	assert_int_equal(RUN(store_upkeep_forget_keys, site, &f), STORE_OK);
	assert_int_equal(f.forgotten, 3);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.push_key"), 10);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.push_key WHERE created_at < "
	                             "to_timestamp(1800000000 - 86400)"),
	                 0);
	assert_int_equal(RUN(store_upkeep_forget_posted, home, &f), STORE_OK);
	assert_int_equal(f.forgotten, 7 + 4);
	assert_int_equal(RUN(store_upkeep_forget_posted, home, &f), STORE_OK);
	assert_int_equal(f.forgotten, 3);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.posted WHERE kept_until >= "
	                             "to_timestamp(1800000000)"),
	                 10);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.posted"), 10);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.account_token"), 4);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_days_from_yesterday_to_a_week_ahead),
		cmocka_unit_test(test_a_day_is_like_its_table),
		cmocka_unit_test(test_two_make_the_same_days),
		cmocka_unit_test(test_days_that_another_makes_are_found),
		cmocka_unit_test(test_making_days_waits_for_nobody),
		cmocka_unit_test_setup(test_a_channel_that_grew_is_cut, empty),
		cmocka_unit_test_setup(test_it_grows_while_it_is_cut, empty),
		cmocka_unit_test_setup(test_a_chunk_that_doubled_is_cut_too, empty),
		cmocka_unit_test_setup(test_exactly_at_the_limit, empty),
		cmocka_unit_test_setup(test_thin_neighbours_are_joined, empty),
		cmocka_unit_test_setup(test_neighbours_of_other_channels_are_not_joined, empty),
		cmocka_unit_test_setup(test_the_cursor_goes_round, empty),
		cmocka_unit_test_setup(
		    test_cutting_while_members_join_and_messages_are_accepted, empty),
		cmocka_unit_test_setup(test_a_chunk_in_other_hands_is_passed_by, empty),
		cmocka_unit_test_setup(test_what_is_passed_by_is_not_joined_over, empty),
		cmocka_unit_test(test_old_keys_ids_and_log_ins_are_forgotten),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
