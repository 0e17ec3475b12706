/* store/catchups.h: how far sites have asked what members said. */
#include "cluster.h"

#include "store/catchups.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define S INT64_C(1000000)

static struct store *relay, *ctl;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("INSERT INTO tmtp.site SELECT i, 's' || i || '.test', 'shop', 't', now() "
	            "FROM generate_series(1, 3) AS i");
	cluster_sql("INSERT INTO tmtp.domain SELECT i, 'd' || i || '.test', now() "
	            "FROM generate_series(1, 3) AS i");
	relay = cluster_store("tmtp_relay", 1);
	ctl = cluster_store("tmtp_ctl", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&relay, 1000);
	store_stop(&ctl, 1000);
	return cluster_teardown(state);
}

static int
noted(void **state)
{
	struct catchup_note n[6];

	(void)state;
	cluster_sql("TRUNCATE tmtp.catchup, tmtp.peer, tmtp.audit");
	for (int i = 0; i < 6; i++) {
		n[i] = (struct catchup_note){ .site_id = 1 + i % 3,
			                      .domain_id = 1 + i / 3,
			                      .next_us = NOW + (int64_t)i * S };
		SUBMIT(store_catchup_note, relay, &n[i]);
	}
	waiting_all();
	n[0].next_us = NOW + 99 * S; /* again: nothing changes */
	assert_int_equal(RUN(store_catchup_note, relay, &n[0]), STORE_OK);
	return 0;
}

/* "site>domain@cursor*attempts ..." */
static const char *
claim(int64_t now_us, unsigned limit)
{
	static char text[512];
	struct catchup_claim c = { .now_us = now_us,
		                   .lease_until_us = now_us + 60 * S,
		                   .limit = limit };
	size_t at = 0;

	text[0] = '\0';
	assert_int_equal(RUN(store_catchup_claim, relay, &c), STORE_OK);
	for (size_t i = 0; i < c.rows_n; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s@%s>%s%s*%d",
		                       i == 0 ? "" : " ", c.rows[i].site_name,
		                       c.rows[i].site_domain, c.rows[i].domain,
		                       c.rows[i].cursor, c.rows[i].attempts);
	catchup_claim_clear(&c);
	return text;
}

static enum store_rc
finish(enum catchup_end end_, const char *cursor, int64_t changed)
{
	struct catchup_finish f = { .site_id = 1,
		                    .domain_id = 1,
		                    .end = end_,
		                    .cursor = cursor,
		                    .next_us = NOW + 1000 * S,
		                    .lease_until_us = NOW + 500 * S,
		                    .now_us = NOW + 7 * S,
		                    .changed = changed,
		                    .reason = "Z storage" };

	return RUN(store_catchup_finish, relay, &f);
}

static void
test_claimed_when_due_under_a_lease(void **state)
{
	(void)state;
	assert_string_equal(claim(NOW - S, 10), "");
	assert_string_equal(claim(NOW + S, 1), "shop@s1.test>d1.test*1");
	assert_string_equal(claim(NOW + S, 10), "shop@s2.test>d1.test*1");
	assert_string_equal(claim(NOW + 3 * S, 10),
	                    "shop@s3.test>d1.test*1 shop@s1.test>d2.test*1");
	assert_string_equal(claim(NOW + 62 * S, 1), "shop@s1.test>d1.test*2"); /* it ran out */
}

static void
test_peers_that_may_not_be_sent_to_are_not_asked(void **state)
{
	(void)state;
	cluster_sql("INSERT INTO tmtp.peer (domain_id, held, retry_at) VALUES "
	            "(1, true, NULL), (2, false, to_timestamp(1800000010))");
	assert_string_equal(claim(NOW + 9 * S, 10), "");
	assert_string_equal(
	    claim(NOW + 10 * S, 10),
	    "shop@s1.test>d2.test*1 shop@s2.test>d2.test*1 shop@s3.test>d2.test*1");
}

static void
test_the_cursor_moves_with_the_lease_only(void **state)
{
	(void)state;
	assert_int_equal(finish(CATCHUP_GOES_ON, "early", 1), STORE_NOT_FOUND);
	assert_string_equal(claim(NOW, 10), "shop@s1.test>d1.test*1");
	assert_int_equal(finish(CATCHUP_GOES_ON, "c1", 5), STORE_OK);
	assert_string_equal(
	    cluster_text("SELECT concat_ws(' ', cursor, changed, asked_at IS NULL, attempts, "
	                 "leased_until = to_timestamp(1800000500)) FROM tmtp.catchup "
	                 "WHERE site_id = 1 AND domain_id = 1"),
	    "c1 5 t 0 t");
	assert_int_equal(finish(CATCHUP_DONE, NULL, 2), STORE_OK);
	assert_int_equal(finish(CATCHUP_DONE, "late", 2), STORE_NOT_FOUND);
	assert_string_equal(
	    cluster_text("SELECT concat_ws(' ', cursor, changed, asked_at = "
	                 "to_timestamp(1800000007), leased_until, reason, next_at = "
	                 "to_timestamp(1800001000)) FROM tmtp.catchup "
	                 "WHERE site_id = 1 AND domain_id = 1"),
	    "c1 7 t t");
	assert_string_equal(claim(NOW + 1000 * S, 1), "shop@s2.test>d1.test*1");
	cluster_sql("UPDATE tmtp.catchup SET leased_until = 'infinity' WHERE site_id <> 1 "
	            "OR domain_id <> 1");
	assert_string_equal(claim(NOW + 1000 * S, 10), "shop@s1.test>d1.testc1*1");
	assert_int_equal(finish(CATCHUP_FAILED, "", 0),
	                 STORE_OK); /* from the start, another time */
	assert_string_equal(
	    cluster_text("SELECT concat_ws('|', cursor, reason, asked_at IS NULL) FROM "
	                 "tmtp.catchup WHERE site_id = 1 AND domain_id = 1"),
	    "|Z storage|f");
}

static void
test_due_after_an_outage_and_on_demand(void **state)
{
	struct catchup_due due = { .domain_id = 2, .now_us = NOW - 10 * S };
	struct catchup_ask ask = { .actor = "root@host",
		                   .domain = "d1.test",
		                   .now_us = NOW - 5 * S };
	struct catchup_list l = { .domain = "d1.test", .limit = 2 };

	(void)state;
	assert_int_equal(RUN(store_catchup_due, relay, &due), STORE_OK);
	assert_string_equal(
	    claim(NOW - 9 * S, 10),
	    "shop@s1.test>d2.test*1 shop@s2.test>d2.test*1 shop@s3.test>d2.test*1");
	cluster_sql("UPDATE tmtp.catchup SET cursor = 'far'");
	assert_int_equal(RUN(store_catchup_ask, ctl, &ask), STORE_OK);
	assert_int_equal(ask.sites, 3);
	assert_string_equal(claim(NOW - 5 * S, 1), "shop@s1.test>d1.testfar*1");
	ask.from_start = true;
	assert_int_equal(RUN(store_catchup_ask, ctl, &ask), STORE_OK);
	assert_int_equal(finish(CATCHUP_DONE, "x", 1), STORE_NOT_FOUND); /* taken from it */
	assert_string_equal(claim(NOW - 5 * S, 1), "shop@s1.test>d1.test*1");
	ask.domain = "d3.test";
	assert_int_equal(RUN(store_catchup_ask, ctl, &ask), STORE_NOT_FOUND);
	ask.domain = "none.test";
	assert_int_equal(RUN(store_catchup_ask, ctl, &ask), STORE_NOT_FOUND);
	assert_string_equal(
	    cluster_text(
		"SELECT string_agg(concat_ws(' ', actor, action, subject, detail), '; ' "
		"ORDER BY audit_id) FROM tmtp.audit"),
	    "root@host peer-catch-up d1.test; root@host peer-catch-up d1.test from the start");
	assert_int_equal(RUN(store_catchup_list, ctl, &l), STORE_OK);
	assert_int_equal(l.rows_n, 2);
	assert_string_equal(l.rows[0].site, "shop@s1.test");
	assert_string_equal(l.rows[1].domain, "d1.test");
	assert_int_equal(l.rows[0].asked_us, -1);
	catchup_list_clear(&l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_claimed_when_due_under_a_lease, noted),
		cmocka_unit_test_setup(test_peers_that_may_not_be_sent_to_are_not_asked, noted),
		cmocka_unit_test_setup(test_the_cursor_moves_with_the_lease_only, noted),
		cmocka_unit_test_setup(test_due_after_an_outage_and_on_demand, noted),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
