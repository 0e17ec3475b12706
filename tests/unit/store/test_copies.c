/* store/copies.h: when large attachments are fetched, in which pieces, for whom they are kept. */
#include "cluster.h"

#include "store/copies.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S (NOW / 1000000)
#define S INT64_C(1000000)
#define MEMBERS 120

static struct store *home;
static const struct copy_limits limits = { .max_octets = 1 << 20, .member_octets = 1 << 21 };

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-20')");
	cluster_sql(
	    "INSERT INTO tmtp.account SELECT i, 'home.test', 'm' || i, 'x', now(), NULL "
	    "FROM generate_series(1, %d) AS i",
	    MEMBERS);
	cluster_sql("INSERT INTO tmtp.domain VALUES (5, 'shop.test', now())");
	cluster_sql(
	    "INSERT INTO tmtp.sender VALUES (5, 'shop@shop.test', 5, 'shop.test', now())");
	cluster_sql(
	    "INSERT INTO tmtp.consent (account_id, sender_id, channel, state, receipts, changed_id, "
	    "grant_date) SELECT i, 5, 'orders', 1, i <= 2, gen_random_uuid(), 0 "
	    "FROM generate_series(1, %d) AS i",
	    MEMBERS);
	home = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&home, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("DELETE FROM tmtp.copy; TRUNCATE tmtp.notification, tmtp.inbox");
	return 0;
}

/* Message n is with the members first..last, and picked up unless it waits. */
static struct uuid
message(int n, int first, int last)
{
	struct uuid id = uuid_floor(NOW);
	char text[UUID_TEXT];

	id.octets[15] = (uint8_t)n;
	uuid_format(&id, text);
	cluster_sql(
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, uris, "
	    "state, verified_at, body) VALUES ('%s', 5, 'orders', decode(repeat('%02x', 32), 'hex'), 1, "
	    "%lld, '', 1, now(), '') ON CONFLICT DO NOTHING",
	    text, n, (long long)NOW_S);
	cluster_sql(
	    "INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at) SELECT i, '%s', now() "
	    "FROM generate_series(%d, %d) AS i",
	    text, first, last);
	return id;
}

static void
announce_with(const struct uuid *message_id, int number, uint8_t digest, int64_t size,
              struct copy_limits l)
{
	uint8_t octets[32] = { digest };
	struct copy_announce a = { .notification_id = *message_id,
		                   .number = number,
		                   .size = size,
		                   .digest = slice_mem(octets, 32),
		                   .uris = SLICE("https://shop.test/1\nhttps://shop.test/2"),
		                   .limits = l,
		                   .fresh_id = uuid_make(),
		                   .now_us = NOW };

	assert_int_equal(RUN(store_copy_announce, home, &a), STORE_OK);
}

static void
announce(const struct uuid *message_id, uint8_t digest, int64_t size)
{
	announce_with(message_id, 0, digest, size, limits);
}

static struct copy_info
info(const struct uuid *message_id)
{
	struct copy_list list = { .notification_id = *message_id };

	assert_int_equal(RUN(store_copy_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	return list.rows[0];
}

/* --- When ------------------------------------------------------------------- */

static void
test_at_once_unless_in_a_crowd_or_nobody_minds(void **state)
{
	static const struct {
		int first, last;
		enum copy_state state;
	} table[] = {
		{ 3, 3, COPY_WAITING },  { 3, 102, COPY_WAITING },
		{ 3, 103, COPY_ASLEEP }, { 1, 2, COPY_ASLEEP },
		{ 1, 3, COPY_WAITING },  { 5, 4, COPY_ASLEEP }, /* nobody */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct uuid id = message((int)i, table[i].first, table[i].last);

		announce(&id, (uint8_t)i, 1000);
		announce(&id, (uint8_t)i, 1000); /* an answer was lost */
		assert_int_equal(info(&id).state, table[i].state);
	}
}

static void
test_more_members_wake_it(void **state)
{
	struct uuid id = message(1, 1, 2);
	struct copy_rouse rouse = { .notification_id = id };

	(void)state;
	announce(&id, 1, 1000);
	assert_int_equal(RUN(store_copy_rouse, home, &rouse), STORE_OK);
	assert_int_equal(info(&id).state, COPY_ASLEEP);
	(void)message(1, 3, 3);
	assert_int_equal(RUN(store_copy_rouse, home, &rouse), STORE_OK);
	assert_int_equal(info(&id).state, COPY_WAITING);
}

static void
test_another_message_that_names_it(void **state)
{
	struct uuid first = message(1, 1, 2), second = message(2, 3, 4);

	(void)state;
	announce(&first, 1, 1000);
	announce(&second, 1, 1000);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy"), 1);
	assert_int_equal(info(&first).state, COPY_WAITING);
	announce_with(&second, 1, 1, 1001,
	              limits); /* the same digest, another size: one of them lies */
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy"), 2);
}

/* --- Room ------------------------------------------------------------------- */

static void
test_room(void **state)
{
	struct uuid one = message(1, 3, 4), two = message(2, 3, 3), three = message(3, 3, 4);
	struct copy_limits l = { .max_octets = 1000, .member_octets = 1500, .total_octets = 0 };
	struct copy_open open = { .account_id = 3, .limits = l };

	(void)state;
	announce_with(&one, 0, 1, 1001, l);
	assert_int_equal(info(&one).state, COPY_FAILED);
	assert_string_equal(info(&one).reason, COPY_TOO_LARGE);
	announce_with(&two, 0, 2, 1000, l);
	assert_int_equal(info(&two).state, COPY_WAITING);
	announce_with(&three, 0, 3, 900, l); /* member 4 has room */
	assert_int_equal(info(&three).state, COPY_WAITING);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy_holder"), 2);
	two = message(4, 3, 3);
	announce_with(&two, 0, 4, 501, l);
	assert_string_equal(info(&two).reason, COPY_NO_MEMBER_ROOM);
	open.copy_id = info(&two).copy_id;
	assert_int_equal(RUN(store_copy_open, home, &open), STORE_OK);
	assert_int_equal(open.state, COPY_FAILED);
	cluster_sql("DELETE FROM tmtp.copy_holder WHERE account_id = 3");
	assert_int_equal(RUN(store_copy_open, home, &open), STORE_OK);
	assert_int_equal(open.state, COPY_WAITING);
	assert_int_equal(
	    cluster_int("SELECT sum(size) FROM tmtp.copy_holder WHERE account_id = 3"), 501);
	l.total_octets = 2500;
	two = message(5, 10, 10);
	announce_with(&two, 0, 5, 100, l);
	assert_string_equal(info(&two).reason, COPY_NO_ROOM);
}

static void
test_opening_what_sleeps(void **state)
{
	struct uuid id = message(1, 3, 110);
	struct copy_open open = { .account_id = 7, .limits = limits };

	(void)state;
	announce(&id, 1, 1000);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy_holder"), 0);
	open.copy_id = info(&id).copy_id;
	assert_int_equal(RUN(store_copy_open, home, &open), STORE_OK);
	assert_int_equal(open.state, COPY_WAITING);
	assert_int_equal(cluster_int("SELECT account_id FROM tmtp.copy_holder"), 7);
	open.copy_id = uuid_make();
	assert_int_equal(RUN(store_copy_open, home, &open), STORE_NOT_FOUND);
}

/* --- Fetching ---------------------------------------------------------------- */

static size_t
claim(struct copy_work *out, int64_t now_us)
{
	struct copy_claim c = { .now_us = now_us,
		                .lease_until_us = now_us + 60 * S,
		                .limit = 4 };

	assert_int_equal(RUN(store_copy_claim, home, &c), STORE_OK);
	for (size_t i = 1; i < c.rows_n; i++)
		copy_work_clear(&c.rows[i]);
	if (c.rows_n > 0)
		*out = c.rows[0];
	return c.rows_n;
}

static enum store_rc
grow(const struct copy_work *w, int64_t from, size_t len, bool whole)
{
	uint8_t *data = calloc(1, len);
	struct copy_grow g = { .copy_id = w->copy_id,
		               .octets = from,
		               .data = slice_mem(data, len),
		               .running = { 42 },
		               .whole = whole,
		               .lease_until_us = NOW + 60 * S };
	enum store_rc rc = RUN(store_copy_grow, home, &g);

	free(data);
	return rc;
}

static void
test_it_grows_and_is_gone_on_with(void **state)
{
	struct uuid id = message(1, 3, 3);
	struct copy_work w = { .uris = NULL }, again = { .uris = NULL };
	struct copy_read read = { .part_no = 2 };

	(void)state;
	announce(&id, 1, 2 * ATTACHMENT_PART + 5);
	assert_int_equal(claim(&w, NOW), 1);
	assert_int_equal(w.attempts, 0);
	assert_int_equal(w.octets, 0);
	assert_string_equal(w.sender, "shop@shop.test");
	assert_string_equal(w.uris, "https://shop.test/1\nhttps://shop.test/2");
	assert_int_equal(claim(&again, NOW + S), 0); /* leased */
	assert_int_equal(grow(&w, 0, (size_t)2 * ATTACHMENT_PART, false), STORE_OK);
	assert_int_equal(grow(&w, 0, (size_t)2 * ATTACHMENT_PART, false),
	                 STORE_OK); /* a lost answer */
	assert_int_equal(grow(&w, ATTACHMENT_PART, ATTACHMENT_PART + 5, true),
	                 STORE_NOT_FOUND); /* somebody else's */
	assert_int_equal(info(&id).octets, 2 * ATTACHMENT_PART);
	read.copy_id = w.copy_id;
	assert_int_equal(RUN(store_copy_read, home, &read),
	                 STORE_NOT_FOUND); /* not to be seen yet */
	assert_int_equal(claim(&again, NOW + 61 * S), 1);
	assert_int_equal(again.octets, 2 * ATTACHMENT_PART);
	assert_int_equal(again.running[0], 42);
	assert_int_equal(again.attempts, 0);
	assert_int_equal(grow(&again, 2 * ATTACHMENT_PART, 5, true), STORE_OK);
	assert_int_equal(info(&id).state, COPY_HERE);
	assert_int_equal(RUN(store_copy_read, home, &read), STORE_OK);
	assert_int_equal(read.len, 5);
	free(read.data);
	assert_int_equal(grow(&w, 2 * ATTACHMENT_PART, 5, false), STORE_NOT_FOUND);
	copy_work_clear(&w);
	copy_work_clear(&again);
}

static void
test_it_fails_for_a_while_and_for_good(void **state)
{
	struct uuid id = message(1, 3, 3);
	struct copy_work w = { .uris = NULL };
	struct copy_fail fail = { .reason = "HTTP status 500", .not_before_us = NOW + 10 * S };

	(void)state;
	announce(&id, 1, 2 * ATTACHMENT_PART);
	assert_int_equal(claim(&w, NOW), 1);
	assert_int_equal(grow(&w, 0, ATTACHMENT_PART, false), STORE_OK);
	fail.copy_id = w.copy_id;
	assert_int_equal(RUN(store_copy_fail, home, &fail), STORE_OK);
	copy_work_clear(&w);
	assert_int_equal(info(&id).state, COPY_WAITING);
	assert_string_equal(info(&id).reason, "HTTP status 500");
	assert_int_equal(claim(&w, NOW + 9 * S), 0);
	assert_int_equal(claim(&w, NOW + 10 * S), 1);
	assert_int_equal(w.octets, ATTACHMENT_PART);
	copy_work_clear(&w);
	fail.wrong = true;
	assert_int_equal(RUN(store_copy_fail, home, &fail), STORE_OK);
	assert_int_equal(claim(&w, NOW + 10 * S), 1);
	assert_int_equal(w.octets, 0);
	assert_int_equal(w.wrong, 1);
	copy_work_clear(&w);
	fail.never = true;
	assert_int_equal(RUN(store_copy_fail, home, &fail), STORE_OK);
	assert_int_equal(info(&id).state, COPY_FAILED);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy_part"), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy_holder"), 0);
	announce(&id, 1, 2 * ATTACHMENT_PART); /* it is named anew */
	assert_int_equal(info(&id).state, COPY_WAITING);
	assert_int_equal(claim(&w, NOW + 10 * S), 1);
	assert_int_equal(w.wrong, 0);
	copy_work_clear(&w);
}

/* --- Forgetting ---------------------------------------------------------------- */

static int64_t
sweep(struct copy_sweep *s)
{
	assert_int_equal(RUN(store_copy_sweep, home, s), STORE_OK);
	return s->forgotten;
}

static void
test_it_stays_with_the_last_who_has_it(void **state)
{
	struct uuid one = message(1, 3, 4), two = message(2, 5, 5), other = message(3, 6, 6);
	struct copy_sweep s = { .limit = 10, .young_us = NOW + S },
			  young = { .limit = 10, .young_us = NOW };

	(void)state;
	announce(&one, 1, 1000);
	announce(&two, 1, 1000);
	announce(&other, 2, 1000);
	assert_int_equal(sweep(&s), 0);
	cluster_sql("UPDATE tmtp.inbox SET dropped_at = now() WHERE account_id IN (3, 5)");
	assert_int_equal(sweep(&s), 0);
	assert_int_equal(
	    cluster_int(
		"SELECT string_agg(account_id::text, '' ORDER BY 1)::int8 FROM tmtp.copy_holder"),
	    46);
	cluster_sql(
	    "UPDATE tmtp.inbox SET withdrawn_at = now(), read_at = now() - interval '1 h' WHERE account_id = 4");
	assert_int_equal(sweep(&s), 0); /* what was read before stays readable */
	cluster_sql("UPDATE tmtp.inbox SET read_at = NULL WHERE account_id = 4");
	assert_int_equal(sweep(&young), 0); /* named just now: its message isn't shown yet */
	assert_int_equal(sweep(&s), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.copy"), 1);
	cluster_sql("UPDATE tmtp.notification SET only_account = 7");
	assert_int_equal(sweep(&s), 1);
}

static void
test_it_is_swept_page_by_page(void **state)
{
	struct copy_sweep s = { .limit = 2, .young_us = NOW + S };
	struct uuid id;

	(void)state;
	for (int i = 1; i <= 5; i++) {
		id = message(i, 3, 3);
		announce(&id, (uint8_t)i, 10);
	}
	cluster_sql("UPDATE tmtp.inbox SET dropped_at = now()");
	assert_int_equal(sweep(&s), 2);
	assert_int_equal(sweep(&s), 2);
	assert_int_equal(sweep(&s), 1);
	assert_int_equal(s.after.octets[0], 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_at_once_unless_in_a_crowd_or_nobody_minds, empty),
		cmocka_unit_test_setup(test_more_members_wake_it, empty),
		cmocka_unit_test_setup(test_another_message_that_names_it, empty),
		cmocka_unit_test_setup(test_room, empty),
		cmocka_unit_test_setup(test_opening_what_sleeps, empty),
		cmocka_unit_test_setup(test_it_grows_and_is_gone_on_with, empty),
		cmocka_unit_test_setup(test_it_fails_for_a_while_and_for_good, empty),
		cmocka_unit_test_setup(test_it_stays_with_the_last_who_has_it, empty),
		cmocka_unit_test_setup(test_it_is_swept_page_by_page, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
