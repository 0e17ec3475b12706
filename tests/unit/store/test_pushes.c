/* store/pushes.h: what is accepted is whole, once, and for those who hold the channel. */
#include "proxy.h"

#include "store/pushes.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */

static struct store *site, *second;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	log_set_level((enum log_level)(LOG_ERROR_LEVEL + 1));
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site VALUES (1, 'shop.test', 'shop', 't', now()), "
	            "(2, 'shop.test', 'other', 't', now())");
	cluster_sql("INSERT INTO tmtp.channel VALUES (1, 1, 'orders', 't', now()), "
	            "(1, 2, 'news', 't', now()), (2, 1, 'orders', 't', now())");
	cluster_sql(
	    "INSERT INTO tmtp.domain VALUES (9, 'a.test', now()), (8, 'b.test', now()), "
	    "(7, 'c.test', now())");
	site = cluster_store("tmtp_site", 1);
	second = cluster_store("tmtp_site", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&site, 1000);
	store_stop(&second, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.subscription, tmtp.chunk, tmtp.message, tmtp.batch, "
	            "tmtp.push_key");
	/* Of channel 1: ann and ben of a.test and cat of b.test hold it, the others don't. */
	cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, "
	            "state, grant_id, joined_at) VALUES (1, 1, 9, 'ann', 1, 'g', now()), "
	            "(1, 1, 9, 'ben', 1, 'g', now()), (1, 1, 8, 'cat', 1, 'g', now()), "
	            "(1, 1, 9, 'asked', 0, NULL, NULL), (1, 1, 9, 'no', 2, NULL, NULL), "
	            "(1, 1, 9, 'left', 3, 'g', now()), (1, 1, 9, 'out', 4, NULL, NULL), "
	            "(1, 2, 9, 'news', 1, 'g', now()), (2, 1, 9, 'other', 1, 'g', now())");
	return 0;
}

/* --- Pushes -------------------------------------------------------------- */

static const uint8_t digest[32] = { 0xd1 };

struct a_push {
	struct push push; /* first: jobs are cast back to it */
	struct push_rcpt rcpts[8];
	char key[24];
};

#define P(p) (&(p)->push)

static void
name(struct a_push *p, const char *address)
{
	const char *at = strchr(address, '@');
	struct push_rcpt *r = &p->rcpts[p->push.rcpts_n++];

	r->member = slice_mem(address, (size_t)(at - address));
	r->domain = slice_str(at + 1);
	r->holds = true; /* whatever stood there */
}

/* Of site 1 in channel 1, to addresses with blanks between them; "*" is the channel. */
static void
make(struct a_push *p, const char *to, const char *key)
{
	static const char *const known[] = { "ann@a.test",   "ben@a.test",   "cat@b.test",
		                             "asked@a.test", "no@a.test",    "left@a.test",
		                             "out@a.test",   "news@a.test",  "other@a.test",
		                             "ann@b.test",   "ann@none.test" };

	*p = (struct a_push){ .push = { .site_id = 1,
		                        .channel_id = 1,
		                        .lane = LANE_NORMAL,
		                        .accepted_us = NOW,
		                        .date_s = NOW / 1000000,
		                        .expires_us = -1,
		                        .body = SLICE("body"),
		                        .digest = digest,
		                        .audience = PUSH_CHANNEL } };
	p->push.message_id = uuid_floor(NOW);
	(void)snprintf(p->key, sizeof(p->key), "%s", key == NULL ? "" : key);
	p->push.key = slice_str(p->key);
	p->push.body_hash[0] = 0xb0;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(to, known[i]) != NULL)
			name(p, known[i]);
	if (p->push.rcpts_n > 0) {
		p->push.rcpts = p->rcpts;
		p->push.audience = p->push.rcpts_n == 1 ? PUSH_ONE : PUSH_LIST;
	}
}

/* Each its own id, in the order of making. */
static void
make_nth(struct a_push *p, int n, const char *to, const char *key)
{
	make(p, to, key);
	p->push.message_id = uuid_floor(NOW + 1000 * (int64_t)n);
}

static enum push_outcome
run(struct a_push *p)
{
	assert_int_equal(RUN(store_push, site, P(p)), STORE_OK);
	return p->push.outcome;
}

static const char *
batches(void)
{
	return cluster_text(
	    "SELECT string_agg(concat_ws(' ', batch_no, channel_id, domain_id, lane, state, "
	    "coalesce(members::text, concat('[', first_member, ',', next_member, ')')), "
	    "recipients, "
	    "attempts), '; ' ORDER BY site_id, message_id, batch_no) FROM tmtp.batch");
}

static void
test_one_member_is_one_batch(void **state)
{
	struct a_push p;

	(void)state;
	make(&p, "ben@a.test", NULL);
	p.push.lane = LANE_URGENT;
	p.push.expires_us = NOW + 3600000000;
	assert_int_equal(run(&p), PUSH_STORED);
	assert_true(p.rcpts[0].holds);
	assert_string_equal(batches(), "1 1 9 0 0 {ben} 1 0");
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', site_id, channel_id, audience, lane, "
		"accepted_at = to_timestamp(1800000000), date_s, "
		"expires_at = to_timestamp(1800003600), recalled_at, size, "
		"get_byte(digest, 0), convert_from(body, 'UTF8'), rejected) FROM tmtp.message"),
	    "1 1 0 0 t 1800000000 t 4 209 body");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.push_key"), 0);
}

static void
test_without_expiry_there_is_none(void **state)
{
	struct a_push p;

	(void)state;
	make(&p, "ann@a.test", NULL);
	assert_int_equal(run(&p), PUSH_STORED);
	assert_string_equal(cluster_text("SELECT expires_at IS NULL FROM tmtp.message"), "t");
}

/* Who is asked, said no, left, was removed, holds another channel or another site's; or nobody
 * knows. */
static void
test_who_does_not_hold_the_channel_gets_nothing(void **state)
{
	static const char *const who[] = { "asked@a.test", "no@a.test",    "left@a.test",
		                           "out@a.test",   "news@a.test",  "other@a.test",
		                           "ann@b.test",   "ann@none.test" };
	struct a_push p;

	(void)state;
	for (size_t i = 0; i < sizeof(who) / sizeof(who[0]); i++) {
		make_nth(&p, (int)i, who[i], "k");
		assert_int_equal(run(&p), PUSH_NOBODY);
		assert_false(p.rcpts[0].holds);
	}
	make_nth(&p, 20, "asked@a.test left@a.test ann@none.test", "k");
	assert_int_equal(run(&p), PUSH_NOBODY);
	for (int i = 0; i < 3; i++)
		assert_false(p.rcpts[i].holds);
	assert_int_equal(
	    cluster_int("SELECT (SELECT count(*) FROM tmtp.message) + (SELECT count(*) "
	                "FROM tmtp.batch) + (SELECT count(*) FROM tmtp.push_key)"),
	    0);
	make_nth(&p, 21, "ann@a.test", "k"); /* the key is still free */
	assert_int_equal(run(&p), PUSH_STORED);
}

static void
test_a_list_is_a_batch_a_domain_and_its_rejected(void **state)
{
	struct a_push p;

	(void)state;
	make(&p, "ann@a.test ben@a.test cat@b.test asked@a.test ann@none.test", NULL);
	assert_int_equal(run(&p), PUSH_STORED);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(p.rcpts[i].holds, i < 3);
	assert_string_equal(batches(), "1 1 8 1 0 {cat} 1 0; 2 1 9 1 0 {ann,ben} 2 0");
	assert_string_equal(cluster_text("SELECT concat(audience, rejected) FROM tmtp.message"),
	                    "1{asked@a.test,ann@none.test}");
	make_nth(&p, 1, "ann@a.test cat@b.test", NULL);
	assert_int_equal(run(&p), PUSH_STORED);
	assert_string_equal(cluster_text("SELECT rejected IS NULL FROM tmtp.message "
	                                 "ORDER BY message_id DESC LIMIT 1"),
	                    "t");
}

/* The channel's chunks as they are, and nobody else's. */
static void
test_a_broadcast_copies_the_chunks(void **state)
{
	struct a_push p;

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.chunk VALUES (1, 1, 9, 'b', 'm', 700), (1, 1, 9, '', 'b', 800), "
	    "(1, 1, 9, 'm', NULL, 20), (1, 1, 7, '', NULL, 5), (1, 2, 9, '', NULL, 1), "
	    "(2, 1, 9, '', NULL, 1)");
	make(&p, "*", NULL);
	p.push.lane = LANE_BULK;
	assert_int_equal(run(&p), PUSH_STORED);
	assert_string_equal(batches(), "1 1 7 2 0 [,) 5 0; 2 1 9 2 0 [,b) 800 0; "
	                               "3 1 9 2 0 [b,m) 700 0; 4 1 9 2 0 [m,) 20 0");
	assert_int_equal(cluster_int("SELECT audience FROM tmtp.message"), PUSH_CHANNEL);
	cluster_sql("TRUNCATE tmtp.chunk, tmtp.batch");
	make_nth(&p, 1, "*", NULL);
	assert_int_equal(run(&p), PUSH_STORED); /* to nobody yet; it is accepted all the same */
	assert_string_equal(batches(), "");
}

/* --- Idempotency --------------------------------------------------------- */

static const char *const audiences[] = { "ann@a.test", "ann@a.test cat@b.test", "*" };

static void
test_a_key_is_used_once_and_says_for_what(void **state)
{
	struct push_earlier e = { .site_id = 1, .key = SLICE("key") };
	struct a_push p;

	(void)state;
	assert_int_equal(RUN(store_push_earlier, site, &e), STORE_NOT_FOUND);
	make_nth(&p, 0, audiences[0], "key");
	assert_int_equal(run(&p), PUSH_STORED);
	for (int i = 0; i < 3; i++) {
		make_nth(&p, i + 1, audiences[i], "key");
		p.push.body_hash[0] = 0xff;
		assert_int_equal(run(&p), PUSH_KEY_TAKEN);
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 1);
	assert_int_equal(RUN(store_push_earlier, site, &e), STORE_OK);
	p.push.message_id = uuid_floor(NOW);
	assert_memory_equal(&e.message_id, &p.push.message_id, sizeof(e.message_id));
	assert_int_equal(e.body_hash[0], 0xb0);
	e.site_id = 2; /* another site's keys are another's */
	assert_int_equal(RUN(store_push_earlier, site, &e), STORE_NOT_FOUND);
	make_nth(&p, 9, "other@a.test", "key");
	p.push.site_id = 2;
	assert_int_equal(run(&p), PUSH_STORED);
}

/* Holds the first statement back, so that what is submitted meanwhile is one transaction. */
static PGconn *
pile_up(struct a_push *first)
{
	PGconn *other = cluster_hold("INSERT INTO tmtp.push_key VALUES (1, 'gate', '', "
	                             "gen_random_uuid(), now())");

	make_nth(first, 1000, "ann@a.test", "gate");
	SUBMIT(store_push, site, P(first));
	cluster_blocked();
	return other;
}

static void
test_a_key_twice_in_one_batch(void **state)
{
	struct a_push p[30], first;
	PGconn *gate = pile_up(&first);
	int good = 0;

	(void)state;
	for (int i = 0; i < 30; i++) {
		char key[16];

		(void)snprintf(key, sizeof(key), "k%d", i % 5);
		make_nth(&p[i], i, audiences[i / 10], key);
		SUBMIT(store_push, site, P(&p[i]));
	}
	cluster_release(gate);
	waiting_all();
	assert_int_equal(first.push.outcome, PUSH_KEY_TAKEN);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(p[i].push.job.rc, STORE_OK);
		good += p[i].push.outcome == PUSH_STORED;
		assert_true(p[i].push.outcome != PUSH_NOBODY);
	}
	assert_int_equal(good, 5);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 5);
	assert_int_equal(cluster_int("SELECT count(DISTINCT xmin::text) FROM tmtp.message"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.push_key k JOIN tmtp.message m "
	                             "USING (site_id, message_id)"),
	                 5);
}

/* Another process has just used the key: who comes second waits for its commit, or takes its
 * place. */
static void
test_a_key_in_two_connections_at_once(void **state)
{
	(void)state;
	for (int i = 0; i < 6; i++) {
		PGconn *other =
		    cluster_hold("INSERT INTO tmtp.push_key VALUES (1, 'same', '\\xaa', "
		                 "gen_random_uuid(), now())");
		struct a_push p;

		make_nth(&p, i, audiences[i % 3], "same");
		SUBMIT(store_push, site, P(&p));
		cluster_blocked();
		if (i < 3) {
			PQclear(PQexec(other, "ROLLBACK"));
			PQfinish(other);
		} else {
			cluster_release(other);
		}
		waiting_all();
		assert_int_equal(p.push.job.rc, STORE_OK);
		assert_int_equal(p.push.outcome, i < 3 ? PUSH_STORED : PUSH_KEY_TAKEN);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), i < 3);
		cluster_sql("TRUNCATE tmtp.push_key, tmtp.message, tmtp.batch");
	}
}

/* The same keys in other orders from two connections: nobody waits for ever, each key is used
 * once. */
static void
test_keys_in_other_orders_do_not_deadlock(void **state)
{
	static struct a_push p[2][150];
	int good[50] = { 0 };

	(void)state;
	for (int round = 0; round < 150; round++) {
		for (int s = 0; s < 2; s++) {
			int k = s == 0 ? round % 50 : 49 - round % 50;
			char key[16];

			(void)snprintf(key, sizeof(key), "k%d", k);
			make_nth(&p[s][round], 2 * round + s, audiences[(round + s) % 3], key);
			SUBMIT(store_push, s == 0 ? site : second, P(&p[s][round]));
		}
	}
	waiting_all();
	for (int round = 0; round < 150; round++) {
		for (int s = 0; s < 2; s++) {
			int k = s == 0 ? round % 50 : 49 - round % 50;

			assert_int_equal(p[s][round].push.job.rc, STORE_OK);
			good[k] += p[s][round].push.outcome == PUSH_STORED;
		}
	}
	for (int k = 0; k < 50; k++)
		assert_int_equal(good[k], 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 50);
}

/* --- A lost answer ------------------------------------------------------- */

/*
 * The push was committed, the answer is lost, and before it is run again the
 * channel looks different: it must stay the one message that it was.
 */
static void
lost_answer(struct a_push *p, const char *between)
{
	struct store *s;
	struct a_push warm;

	proxy_start();
	s = store_start(&(struct store_options){
	    .conninfo = proxy_conninfo("tmtp_site"), .name = "test", .patience_ms = 20000 });
	make_nth(&warm, 5000, "asked@a.test", NULL);
	assert_int_equal(RUN(store_push, s, P(&warm)), STORE_OK);
	proxy_hold();
	SUBMIT(store_push, s, P(p));
	while (cluster_int("SELECT count(*) FROM tmtp.message") == 0)
		continue;
	cluster_sql("%s", between);
	proxy_cut();
	waiting_all();
	assert_int_equal(p->push.job.rc, STORE_OK);
	store_stop(&s, 1000);
	proxy_stop();
}

static void
test_a_broadcast_run_again_while_its_chunks_are_cut(void **state)
{
	struct a_push p;

	(void)state;
	cluster_sql("INSERT INTO tmtp.chunk VALUES (1, 1, 9, '', NULL, 2)");
	make(&p, "*", NULL);
	lost_answer(&p, "UPDATE tmtp.chunk SET next_member = 'b', members = 1; "
	                "INSERT INTO tmtp.chunk VALUES (1, 1, 9, 'b', NULL, 1)");
	assert_int_equal(p.push.outcome, PUSH_STORED);
	assert_string_equal(batches(), "1 1 9 1 0 [,) 2 0");
}

static void
test_a_list_run_again_when_others_hold_the_channel(void **state)
{
	struct a_push p;

	(void)state;
	make(&p, "ann@a.test cat@b.test ann@none.test", NULL);
	lost_answer(
	    &p, "INSERT INTO tmtp.domain VALUES (3, 'none.test', now()); "
		"INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state) "
		"VALUES (1, 1, 3, 'ann', 1)");
	assert_int_equal(p.push.outcome, PUSH_STORED);
	assert_string_equal(batches(), "1 1 8 1 0 {cat} 1 0; 2 1 9 1 0 {ann} 1 0");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
	cluster_sql("DELETE FROM tmtp.domain WHERE domain_id = 3");
}

/* The statement for what is new can't tell; another runs when an answer was lost. */
static void
test_a_push_to_one_run_again(void **state)
{
	struct a_push p;

	(void)state;
	make(&p, "ann@a.test", NULL);
	lost_answer(&p, "SELECT 1");
	assert_int_equal(p.push.outcome, PUSH_STORED);
	assert_true(p.push.rcpts[0].holds);
	assert_string_equal(batches(), "1 1 9 1 0 {ann} 1 0");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
}

/* With a key, the key tells: it is this message's own. */
static void
test_a_push_with_a_key_run_again(void **state)
{
	struct push_earlier e = { .site_id = 1, .key = SLICE("mine") };
	struct a_push p;

	(void)state;
	make(&p, "ann@a.test", "mine");
	lost_answer(&p, "SELECT 1");
	assert_int_equal(p.push.outcome, PUSH_KEY_TAKEN);
	assert_int_equal(RUN(store_push_earlier, site, &e), STORE_OK);
	assert_memory_equal(&e.message_id, &p.push.message_id, sizeof(e.message_id));
	assert_string_equal(batches(), "1 1 9 1 0 {ann} 1 0");
}

/* --- Many ---------------------------------------------------------------- */

static void
test_a_thousand_at_once_in_few_commits(void **state)
{
	static struct a_push p[1000];

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.chunk VALUES (1, 1, 9, '', NULL, 2), (1, 1, 8, '', NULL, 1)");
	for (int i = 0; i < 1000; i++) {
		char key[16];

		(void)snprintf(key, sizeof(key), "k%d", i);
		make_nth(&p[i], i, audiences[i % 20 == 19 ? 2 : i % 10 == 9],
		         i % 2 == 0 ? key : NULL);
		SUBMIT(store_push, i % 2 == 0 ? site : second, P(&p[i]));
	}
	waiting_all();
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(p[i].push.job.rc, STORE_OK);
		assert_int_equal(p[i].push.outcome, PUSH_STORED);
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1000);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 900 + 2 * 50 + 2 * 50);
	assert_true(cluster_int("SELECT count(DISTINCT xmin::text) FROM tmtp.message") <= 100);
	/* Whole: a message and its batches are of one transaction. */
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch b JOIN tmtp.message m "
	                             "USING (site_id, message_id) WHERE b.xmin <> m.xmin"),
	                 0);
}

/* A day without a partition, a message too many: it fails alone. */
static void
test_a_push_that_cannot_be_stored_fails_alone(void **state)
{
	struct a_push p[20], first;
	PGconn *gate = pile_up(&first);

	(void)state;
	for (int i = 0; i < 20; i++) {
		make_nth(&p[i], i, audiences[i % 3], NULL);
		if (i == 7)
			p[i].push.message_id = uuid_floor(NOW + INT64_C(40) * 86400000000);
		SUBMIT(store_push, site, P(&p[i]));
	}
	cluster_release(gate);
	waiting_all();
	for (int i = 0; i < 20; i++)
		assert_int_equal(p[i].push.job.rc, i == 7 ? STORE_REFUSED : STORE_OK);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 19);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_one_member_is_one_batch, empty),
		cmocka_unit_test_setup(test_without_expiry_there_is_none, empty),
		cmocka_unit_test_setup(test_who_does_not_hold_the_channel_gets_nothing, empty),
		cmocka_unit_test_setup(test_a_list_is_a_batch_a_domain_and_its_rejected, empty),
		cmocka_unit_test_setup(test_a_broadcast_copies_the_chunks, empty),
		cmocka_unit_test_setup(test_a_key_is_used_once_and_says_for_what, empty),
		cmocka_unit_test_setup(test_a_key_twice_in_one_batch, empty),
		cmocka_unit_test_setup(test_a_key_in_two_connections_at_once, empty),
		cmocka_unit_test_setup(test_keys_in_other_orders_do_not_deadlock, empty),
		cmocka_unit_test_setup(test_a_broadcast_run_again_while_its_chunks_are_cut,
		                       empty),
		cmocka_unit_test_setup(test_a_list_run_again_when_others_hold_the_channel,
		                       empty),
		cmocka_unit_test_setup(test_a_push_to_one_run_again, empty),
		cmocka_unit_test_setup(test_a_push_with_a_key_run_again, empty),
		cmocka_unit_test_setup(test_a_thousand_at_once_in_few_commits, empty),
		cmocka_unit_test_setup(test_a_push_that_cannot_be_stored_fails_alone, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
