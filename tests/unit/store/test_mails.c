/* store/mails.h: who takes mail, and mail that arrives. */
#include "cluster.h"

#include "store/accounts.h"
#include "store/inboxes.h"
#include "store/mails.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */

static struct store *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-10', '2027-01-18')");
	cluster_sql(
	    "INSERT INTO tmtp.account VALUES (1, 'home.test', 'ann', 'x', now(), NULL), "
	    "(2, 'home.test', 'ben', 'x', now(), NULL), (3, 'home.test', 'cy', 'x', now(), now()), "
	    "(4, 'b.test', 'ann', 'x', now(), NULL)");
	home = cluster_store("tmtp_home", 2);
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
	cluster_sql(
	    "TRUNCATE tmtp.inbox, tmtp.notification, tmtp.mail_channel, tmtp.mail_block, "
	    "tmtp.mail_seen");
	cluster_sql("DELETE FROM tmtp.sender");
	cluster_sql("DELETE FROM tmtp.domain");
	return 0;
}

static void
set_open(int64_t account, bool open)
{
	struct mail_channel_set s = { .account_id = account, .open = open, .now_us = NOW };

	assert_int_equal(RUN(store_mail_channel_set, home, &s), STORE_OK);
}

static enum store_rc
set_block(int64_t account, const char *address, bool block)
{
	struct mail_block_set s = { .account_id = account,
		                    .address = slice_str(address),
		                    .block = block,
		                    .now_us = NOW };

	return RUN(store_mail_block_set, home, &s);
}

static bool
ask(const char *name, const char *sender)
{
	struct mail_ask a = { .domain = SLICE("home.test"),
		              .name = slice_str(name),
		              .sender = slice_str(sender) };

	assert_int_equal(RUN(store_mail_ask, home, &a), STORE_OK);
	return a.open;
}

/* --- who takes mail -------------------------------------------------------------- */

static void
test_closed_until_opened(void **state)
{
	(void)state;
	assert_false(ask("ann", "a@b.test"));
	set_open(1, true);
	assert_true(ask("ann", "a@b.test"));
	assert_true(ask("ann", ""));
	assert_false(ask("ben", "a@b.test"));
	assert_false(ask("nobody", "a@b.test"));
	set_open(3, true);
	assert_false(ask("cy", "a@b.test")); /* disabled */
	set_open(1, false);
	assert_false(ask("ann", "a@b.test"));
}

static void
test_asked_together(void **state)
{
	static const char *const names[] = { "ann", "ben", "nobody", "ann", "cy" };
	struct mail_ask a[5];

	(void)state;
	set_open(1, true);
	assert_int_equal(set_block(1, "bad@b.test", true), STORE_OK);
	for (size_t i = 0; i < 5; i++) {
		a[i] = (struct mail_ask){ .domain = SLICE("home.test"),
			                  .name = slice_str(names[i]),
			                  .sender = i == 3 ? SLICE("bad@b.test")
			                                   : SLICE("a@b.test") };
		SUBMIT(store_mail_ask, home, &a[i]);
	}
	waiting_all();
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(a[i].open, i == 0);
}

static void
test_blocks(void **state)
{
	struct mail_channel_get g = { .account_id = 1 };

	(void)state;
	assert_int_equal(set_block(1, "b@b.test", true), STORE_OK);
	assert_int_equal(set_block(1, "a@b.test", true), STORE_OK);
	assert_int_equal(set_block(1, "a@b.test", true), STORE_OK);
	assert_int_equal(RUN(store_mail_channel_get, home, &g), STORE_OK);
	assert_false(g.open);
	assert_int_equal(g.changed_us, -1);
	assert_int_equal(g.rows_n, 2);
	assert_string_equal(g.rows[0].address, "a@b.test");
	assert_int_equal(g.rows[0].blocked_us, NOW);
	mail_channel_get_clear(&g);
	set_open(1, true);
	assert_false(ask("ann", "a@b.test"));
	assert_int_equal(set_block(2, "a@b.test", false),
	                 STORE_NOT_FOUND); /* somebody else's */
	assert_int_equal(set_block(1, "a@b.test", false), STORE_OK);
	assert_int_equal(set_block(1, "a@b.test", false), STORE_NOT_FOUND);
	assert_true(ask("ann", "a@b.test"));
	cluster_sql(
	    "INSERT INTO tmtp.mail_block SELECT 1, 'x' || n, now() FROM generate_series(1, %d) n",
	    MAIL_BLOCKS_MAX - 1);
	assert_int_equal(set_block(1, "one@too.many", true), STORE_CONFLICT);
	assert_int_equal(set_block(1, "b@b.test", true), STORE_OK); /* it was already */
}

/* --- arriving ---------------------------------------------------------------------- */

struct letter {
	struct mail_arrival a;
	struct mail_rcpt rcpts[4];
};

/* To ann, ben, cy and nobody, of home.test. */
static void
make(struct letter *m, const char *seen)
{
	static const char *const names[] = { "ann", "ben", "cy", "nobody" };

	*m = (struct letter){ .a = { .domain = SLICE("home.test"),
		                     .gateway = SLICE("smtp@home.test"),
		                     .registrable = SLICE("home.test"),
		                     .seen = slice_str(seen),
		                     .digest = SLICE("digest"),
		                     .body = SLICE("body"),
		                     .sender = SLICE("env@b.test"),
		                     .author = SLICE("author@b.test"),
		                     .mail_sender = SLICE("Env@b.test"),
		                     .mail_from = SLICE("A <author@b.test>"),
		                     .mail_address = SLICE("author@b.test"),
		                     .date_s = NOW / 1000000,
		                     .now_us = NOW,
		                     .sender_id = id_make(),
		                     .domain_id = id_make(),
		                     .rcpts_n = 4 } };
	m->a.fresh_id = uuid_floor(NOW);
	m->a.fresh_id.octets[15] = (uint8_t)seen[0];
	m->a.rcpts = m->rcpts;
	for (size_t i = 0; i < 4; i++)
		m->rcpts[i].name = slice_str(names[i]);
}

static void
fates(const struct letter *m, enum mail_fate ann, enum mail_fate ben)
{
	assert_int_equal(m->rcpts[0].fate, ann);
	assert_int_equal(m->rcpts[1].fate, ben);
	assert_int_equal(m->rcpts[2].fate, MAIL_CLOSED);
	assert_int_equal(m->rcpts[3].fate, MAIL_CLOSED);
}

static void
test_a_mail_is_stored_for_who_takes_it(void **state)
{
	struct inbox_list list = { .account_id = 1, .what = INBOX_NEWEST, .limit = 5 };
	struct letter m;

	(void)state;
	set_open(1, true);
	make(&m, "1");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	fates(&m, MAIL_STORED, MAIL_CLOSED);
	assert_true(m.rcpts[0].added);
	assert_int_equal(m.rcpts[0].account_id, 1);
	assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].sender, "smtp@home.test");
	assert_string_equal(list.rows[0].channel, "smtp");
	assert_string_equal(list.rows[0].mail_sender, "Env@b.test");
	assert_string_equal(list.rows[0].mail_from, "A <author@b.test>");
	assert_string_equal(list.rows[0].mail_address, "author@b.test");
	assert_int_equal(list.rows[0].arrived_us, NOW);
	assert_memory_equal(list.rows[0].body, "body", 4);
	inbox_list_clear(&list);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 1);
}

/* Nothing is written for nobody: no sender, no domain, no message. */
static void
test_a_mail_to_nobody_leaves_nothing(void **state)
{
	struct letter m;

	(void)state;
	make(&m, "1");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	fates(&m, MAIL_CLOSED, MAIL_CLOSED);
	assert_int_equal(
	    cluster_int("SELECT (SELECT count(*) FROM tmtp.sender) + (SELECT count(*) "
	                "FROM tmtp.domain) + (SELECT count(*) FROM tmtp.mail_seen) + "
	                "(SELECT count(*) FROM tmtp.notification)"),
	    0);
}

static void
test_blocked_envelopes_and_authors(void **state)
{
	struct letter m;

	(void)state;
	set_open(1, true);
	set_open(2, true);
	assert_int_equal(set_block(1, "env@b.test", true), STORE_OK);
	assert_int_equal(set_block(2, "author@b.test", true), STORE_OK);
	make(&m, "1");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	fates(&m, MAIL_CLOSED, MAIL_UNWANTED);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 0);
	m.a.author = m.a.sender = SLICE("");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	fates(&m, MAIL_STORED, MAIL_STORED);
}

static void
test_the_same_mail_shows_once(void **state)
{
	struct uuid first;
	struct letter m;

	(void)state;
	set_open(1, true);
	make(&m, "1");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	first = m.a.notification_id;
	make(&m, "1");
	m.a.fresh_id.octets[14] = 9;
	m.a.rcpts_n = 2;
	set_open(2, true);
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	assert_memory_equal(&m.a.notification_id, &first, sizeof(first));
	assert_int_equal(m.rcpts[0].fate, MAIL_STORED);
	assert_false(m.rcpts[0].added);
	assert_true(m.rcpts[1].added);
	make(&m, "2");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	assert_true(m.rcpts[0].added);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.notification"), 2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 4);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.sender"), 1);
}

/* One recipient twice: both hear of it, one entry. */
static void
test_a_recipient_twice(void **state)
{
	struct letter m;

	(void)state;
	set_open(1, true);
	make(&m, "1");
	m.rcpts[1].name = SLICE("ann");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	fates(&m, MAIL_STORED, MAIL_STORED);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 1);
}

/* Another process stores the same mail, or makes the gateway known, at this very moment. */
static void
test_two_processes_meet(void **state)
{
	static const char *const theirs[] = {
		"INSERT INTO tmtp.mail_seen VALUES ('1', '01a30dc2-9000-7000-8000-000000000055', now())",
		"WITH d AS (INSERT INTO tmtp.domain VALUES (77, 'home.test', now()) RETURNING domain_id) "
		"INSERT INTO tmtp.sender SELECT 78, 'smtp@home.test', domain_id, 'home.test', now() FROM d",
	};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PGconn *other;
		struct letter m;

		(void)empty(NULL);
		set_open(1, true);
		make(&m, "1");
		other = cluster_hold(theirs[i]);
		SUBMIT(store_mail_arrival, home, &m.a);
		cluster_blocked();
		cluster_release(other);
		waiting_all();
		assert_int_equal(m.a.job.rc, STORE_OK);
		assert_int_equal(m.rcpts[0].fate, MAIL_STORED);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 1);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.notification"), i);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.sender"), 1);
	}
}

static void
test_members_of_domains_are_apart(void **state)
{
	struct letter m;

	(void)state;
	set_open(4, true);
	make(&m, "1");
	assert_int_equal(RUN(store_mail_arrival, home, &m.a), STORE_OK);
	assert_int_equal(m.rcpts[0].fate,
	                 MAIL_CLOSED); /* ann of home.test isn't ann of b.test */
}

static void
test_forgetting(void **state)
{
	struct mail_forget f = { .now_us = NOW, .limit = 2 };

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.mail_seen SELECT n::text::bytea, gen_random_uuid(), "
	    "to_timestamp(%lld) + (n - 3) * interval '1 s' FROM generate_series(0, 4) n",
	    (long long)(NOW / 1000000));
	assert_int_equal(RUN(store_mail_forget, home, &f), STORE_OK);
	assert_int_equal(f.forgotten, 2);
	assert_int_equal(RUN(store_mail_forget, home, &f), STORE_OK);
	assert_int_equal(f.forgotten, 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.mail_seen"), 2);
}

/* The gateway's name can't be somebody's. */
static void
test_the_gateways_name_is_taken(void **state)
{
	struct store *ctl = cluster_store("tmtp_ctl", 1);
	struct account_change c = { .kind = ACCOUNT_CREATE,
		                    .domain = "home.test",
		                    .name = "smtp",
		                    .actor = "test",
		                    .password_hash = "x",
		                    .id = id_make(),
		                    .now_us = NOW };

	(void)state;
	assert_int_equal(RUN(store_account_change, ctl, &c), STORE_CONFLICT);
	store_stop(&ctl, 1000);
}

#define TEST(f) cmocka_unit_test_setup(f, empty)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_closed_until_opened),
		TEST(test_asked_together),
		TEST(test_blocks),
		TEST(test_a_mail_is_stored_for_who_takes_it),
		TEST(test_a_mail_to_nobody_leaves_nothing),
		TEST(test_blocked_envelopes_and_authors),
		TEST(test_the_same_mail_shows_once),
		TEST(test_a_recipient_twice),
		TEST(test_two_processes_meet),
		TEST(test_members_of_domains_are_apart),
		TEST(test_forgetting),
		TEST(test_the_gateways_name_is_taken),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
