/* store/peers.h: what is known of other domains' servers, and the GRANTs that wait for them. */
#include "cluster.h"

#include "store/inboxes.h"
#include "store/peers.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define S INT64_C(1000000)

static struct store *relay, *second, *ctl, *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("INSERT INTO tmtp.domain SELECT i, 'd' || i || '.test', now() "
	            "FROM generate_series(1, 9) AS i");
	cluster_sql("INSERT INTO tmtp.account SELECT i, 'home.test', 'm' || i, 'x', now() "
	            "FROM generate_series(1, 9) AS i");
	cluster_sql("INSERT INTO tmtp.sender SELECT i, 'shop@d' || i || '.test', i, "
	            "'d' || i || '.test', now() FROM generate_series(1, 9) AS i");
	relay = cluster_store("tmtp_relay", 1);
	second = cluster_store("tmtp_relay", 1);
	ctl = cluster_store("tmtp_ctl", 1);
	home = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&relay, 1000);
	store_stop(&second, 1000);
	store_stop(&ctl, 1000);
	store_stop(&home, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.peer, tmtp.audit, tmtp.consent, tmtp.open_grant, "
	            "tmtp.grant_outbox");
	return 0;
}

/* --- Retry state --------------------------------------------------------- */

static struct peer_save
a_save(int64_t domain_id, int failures)
{
	static char reason[] = "no route";

	return (struct peer_save){ .state = { .domain_id = domain_id,
		                              .failures = failures,
		                              .failing_since_us = failures > 0 ? NOW : -1,
		                              .retry_at_us = failures > 0 ? NOW + 60 * S : -1,
		                              .window_commands = failures,
		                              .refused_since_us = -1,
		                              .refused_at_us = -1,
		                              .reason = failures > 0 ? reason : NULL },
		                   .sent_us = failures > 0 ? -1 : NOW + S };
}

static void
test_what_was_saved_is_loaded(void **state)
{
	struct peer_save s;
	struct peer_load l = { .rows = NULL };

	(void)state;
	for (int i = 1; i <= 3; i++) {
		s = a_save(i, 4);
		assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	}
	s = a_save(2, 0); /* well again */
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	cluster_sql("UPDATE tmtp.peer SET failures = 0, held = true WHERE domain_id = 3");
	cluster_sql("INSERT INTO tmtp.peer (domain_id, window_commands) VALUES (4, 1), (5, 0)");
	assert_int_equal(RUN(store_peer_load, relay, &l), STORE_OK);
	assert_int_equal(l.rows_n, 3);
	for (size_t i = 0; i < 3; i++) {
		const struct peer_state *p = &l.rows[i];

		switch (p->domain_id) {
		case 1:
			assert_int_equal(p->failures, 4);
			assert_int_equal(p->failing_since_us, NOW);
			assert_int_equal(p->retry_at_us, NOW + 60 * S);
			assert_int_equal(p->window_commands, 4);
			assert_false(p->held);
			assert_string_equal(p->reason, "no route");
			break;
		case 3:
			assert_true(p->held);
			break;
		default:
			assert_int_equal(p->domain_id, 4);
			assert_int_equal(p->failing_since_us, -1);
			assert_int_equal(p->retry_at_us, -1);
			assert_null(p->reason);
		}
	}
	peer_load_clear(&l);
	assert_int_equal(l.rows_n, 0);
}

/* A failure forgets no success, and neither says anything of what an administrator held. */
static void
test_saving_keeps_the_last_success_and_the_hold(void **state)
{
	struct peer_save s = a_save(1, 0);

	(void)state;
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	cluster_sql("UPDATE tmtp.peer SET held = true");
	s = a_save(1, 2);
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	assert_string_equal(cluster_text("SELECT concat_ws(' ', failures, held, sent_at = "
	                                 "to_timestamp(1800000001)) FROM tmtp.peer"),
	                    "2 t t");
	s = a_save(99, 2); /* no such domain */
	log_set_level((enum log_level)(LOG_ERROR_LEVEL + 1));
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_REFUSED);
	log_set_level(LOG_ERROR_LEVEL);
}

static enum store_rc
hold(const char *domain, bool held)
{
	struct peer_hold h = {
		.actor = "root@host", .domain = domain, .held = held, .now_us = NOW
	};

	return RUN(store_peer_hold, ctl, &h);
}

static void
test_holding_and_releasing(void **state)
{
	struct peer_save s = a_save(1, 3);
	int64_t revision = cluster_int("SELECT number FROM tmtp.revision");

	(void)state;
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	assert_int_equal(hold("d1.test", true), STORE_OK);
	assert_int_equal(hold("d2.test", true), STORE_OK); /* nothing was known of it */
	assert_int_equal(hold("none.test", true), STORE_NOT_FOUND);
	assert_string_equal(
	    cluster_text("SELECT string_agg(concat_ws(' ', domain_id, held, failures, "
	                 "retry_at IS NULL), ', ' ORDER BY domain_id) FROM tmtp.peer"),
	    "1 t 3 f, 2 t 0 t");
	assert_int_equal(hold("d1.test", false), STORE_OK); /* forgets the backoff too */
	assert_string_equal(
	    cluster_text("SELECT concat_ws(' ', held, failures, retry_at, failing_since) "
	                 "FROM tmtp.peer WHERE domain_id = 1"),
	    "f 0");
	assert_string_equal(
	    cluster_text("SELECT string_agg(concat_ws(' ', actor, action, subject), ', ' "
	                 "ORDER BY audit_id) FROM tmtp.audit"),
	    "root@host peer-hold d1.test, root@host peer-hold d2.test, "
	    "root@host peer-release d1.test");
	assert_int_equal(cluster_int("SELECT number FROM tmtp.revision"), revision + 3);
}

static void
test_administrators_see_peers_by_name(void **state)
{
	struct peer_list l = { .domain = NULL };
	struct peer_save s;

	(void)state;
	for (int i = 9; i > 6; i--) {
		s = a_save(i, i == 8 ? 0 : i);
		assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	}
	assert_int_equal(RUN(store_peer_list, ctl, &l), STORE_OK);
	assert_int_equal(l.rows_n, 3);
	assert_string_equal(l.rows[0].domain, "d7.test");
	assert_int_equal(l.rows[0].state.failures, 7);
	assert_int_equal(l.rows[0].sent_us, -1);
	assert_int_equal(l.rows[1].sent_us, NOW + S);
	peer_list_clear(&l);
	l.domain = "d9.test";
	assert_int_equal(RUN(store_peer_list, ctl, &l), STORE_OK);
	assert_int_equal(l.rows_n, 1);
	assert_string_equal(l.rows[0].state.reason, "no route");
	peer_list_clear(&l);
	l.domain = "none.test";
	assert_int_equal(RUN(store_peer_list, ctl, &l), STORE_OK);
	assert_int_equal(l.rows_n, 0);
	peer_list_clear(&l);
}

/* --- Probing --------------------------------------------------------------- */

static struct peer_probe
probe(struct store *s, int64_t domain_id, int64_t now_us)
{
	struct peer_probe p = { .domain_id = domain_id,
		                .now_us = now_us,
		                .until_us = now_us + 30 * S };

	assert_int_equal(RUN(store_peer_probe, s, &p), STORE_OK);
	free(p.state.reason);
	p.state.reason = NULL;
	return p;
}

/* Of two workers one probes; the other learns what is known, and takes over when nothing came of it. */
static void
test_one_worker_probes_a_peer_that_is_down(void **state)
{
	struct peer_save s = a_save(1, 2);
	struct peer_probe p;

	(void)state;
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	p = probe(relay, 1, NOW + 59 * S);
	assert_false(p.ours); /* not yet */
	assert_true(p.known);
	assert_int_equal(p.state.retry_at_us, NOW + 60 * S);
	assert_true(probe(relay, 1, NOW + 60 * S).ours);
	p = probe(second, 1, NOW + 61 * S);
	assert_false(p.ours);
	assert_int_equal(p.state.failures, 2);
	assert_true(probe(second, 1, NOW + 91 * S).ours);
	assert_int_equal(RUN(store_peer_save, second, &s), STORE_OK); /* it failed: over */
	assert_true(probe(relay, 1, NOW + 92 * S).ours);
	s = a_save(1, 0);
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	p = probe(second, 1, NOW + 200 * S);
	assert_false(p.ours); /* there is nothing to probe any more */
	assert_int_equal(p.state.failures, 0);
	assert_int_equal(p.state.retry_at_us, -1);
	cluster_sql("UPDATE tmtp.peer SET held = true, failures = 1");
	p = probe(second, 1, NOW + 200 * S);
	assert_false(p.ours);
	assert_true(p.state.held);
	assert_true(probe(relay, 2, NOW).ours); /* nobody knows anything of it */
}

/* A pause that a peer asked for is no failure, and is known after a restart. */
static void
test_a_wait_without_a_failure_is_loaded(void **state)
{
	struct peer_save s = a_save(1, 0);
	struct peer_load l = { .rows = NULL };

	(void)state;
	s.state.retry_at_us = NOW + 9 * S;
	assert_int_equal(RUN(store_peer_save, relay, &s), STORE_OK);
	assert_int_equal(RUN(store_peer_load, relay, &l), STORE_OK);
	assert_int_equal(l.rows_n, 1);
	assert_int_equal(l.rows[0].failures, 0);
	assert_int_equal(l.rows[0].retry_at_us, NOW + 9 * S);
	peer_load_clear(&l);
}

/* --- GRANTs that wait ---------------------------------------------------- */

static char senders[10][24], domains[10][16];

/* Member says something to shop@dN.test about a channel. */
static void
say(int64_t account_id, int n, enum consent_state what, const char *channel)
{
	struct consent_change c = { .account_id = account_id,
		                    .channel = slice_str(channel),
		                    .state = what,
		                    .grant_id = { (uint8_t)account_id, (uint8_t)n },
		                    .sender_id = 100 + n,
		                    .domain_id = 100 + n,
		                    .now_us = NOW,
		                    .changed_id = uuid_make() };

	(void)snprintf(senders[n], sizeof(senders[n]), "shop@d%d.test", n);
	(void)snprintf(domains[n], sizeof(domains[n]), "d%d.test", n);
	c.sender = slice_str(senders[n]);
	c.sender_domain = c.registrable = slice_str(domains[n]);
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed);
}

static struct grant_claim
claim(struct store *s, int64_t now_us, unsigned limit, const int64_t *skip, size_t skip_n)
{
	struct grant_claim c = { .now_us = now_us,
		                 .lease_until_us = now_us + 60 * S,
		                 .limit = limit,
		                 .skip = skip,
		                 .skip_n = skip_n };

	assert_int_equal(RUN(store_grant_claim, s, &c), STORE_OK);
	return c;
}

/* "account>domain:state …" */
static const char *
claim_text(struct grant_claim c)
{
	static char text[512];
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < c.rows_n; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%lld>%s:%d*%d",
		                       i == 0 ? "" : " ", (long long)c.rows[i].account_id,
		                       c.rows[i].domain, c.rows[i].state, c.rows[i].attempts);
	grant_claim_clear(&c);
	assert_null(c.rows);
	return text;
}

static enum store_rc
finish(const struct grant_out *g, bool sent, int64_t not_before_us)
{
	struct grant_finish f = { .account_id = g->account_id,
		                  .sender_id = g->sender_id,
		                  .channel = g->channel,
		                  .changed_id = g->changed_id,
		                  .sent = sent,
		                  .not_before_us = not_before_us };

	return RUN(store_grant_finish, relay, &f);
}

static int64_t
waits(void)
{
	return cluster_int("SELECT count(*) FROM tmtp.grant_outbox");
}

static void
test_a_claim_tells_what_the_site_is_told(void **state)
{
	struct grant_claim c;
	uint8_t grant[20] = { 1, 3 };

	(void)state;
	say(1, 3, CONSENT_GRANTED, "orders");
	cluster_sql("UPDATE tmtp.consent SET receipts = true");
	c = claim(relay, NOW, 10, NULL, 0);
	assert_int_equal(c.rows_n, 1);
	assert_string_equal(c.rows[0].account, "m1@home.test");
	assert_string_equal(c.rows[0].sender, "shop@d3.test");
	assert_string_equal(c.rows[0].channel, "orders");
	assert_string_equal(c.rows[0].domain, "d3.test");
	assert_int_equal(c.rows[0].domain_id, 3);
	assert_int_equal(c.rows[0].state, CONSENT_GRANTED);
	assert_true(c.rows[0].has_grant);
	assert_memory_equal(c.rows[0].grant, grant, sizeof(grant));
	assert_true(c.rows[0].receipts);
	assert_int_equal(c.rows[0].date_s, NOW / S);
	assert_int_equal(c.rows[0].attempts, 1);
	assert_int_equal(finish(&c.rows[0], true, -1), STORE_OK);
	assert_int_equal(waits(), 0);
	grant_claim_clear(&c);
	cluster_sql("TRUNCATE tmtp.consent, tmtp.open_grant");
	cluster_sql(
	    "INSERT INTO tmtp.consent VALUES (1, 3, 'orders', 0, NULL, false, now(), NULL, "
	    "gen_random_uuid(), 0)");
	say(1, 3, CONSENT_REFUSED, "orders");
	c = claim(relay, NOW, 10, NULL, 0);
	assert_false(c.rows[0].has_grant);
	assert_int_equal(c.rows[0].state, CONSENT_REFUSED);
	grant_claim_clear(&c);
}

static void
test_leases_limits_and_domains_that_are_skipped(void **state)
{
	static const int64_t skip[] = { 2, 5 };

	(void)state;
	for (int i = 1; i <= 6; i++)
		say(i, i <= 3 ? 2 : i, CONSENT_GRANTED, "orders");
	assert_string_equal(claim_text(claim(relay, NOW, 10, skip, 2)),
	                    "4>d4.test:1*1 6>d6.test:1*1");
	assert_string_equal(claim_text(claim(second, NOW, 2, NULL, 0)),
	                    "1>d2.test:1*1 2>d2.test:1*1");
	assert_string_equal(claim_text(claim(relay, NOW + 59 * S, 10, skip, 1)),
	                    "5>d5.test:1*1");
	assert_string_equal(
	    claim_text(claim(relay, NOW + 61 * S, 10, NULL, 0)),
	    "1>d2.test:1*2 2>d2.test:1*2 3>d2.test:1*1 4>d4.test:1*2 6>d6.test:1*2");
	assert_string_equal(claim_text(claim(second, NOW + 61 * S, 10, NULL, 0)), "");
}

static void
test_what_was_not_sent_comes_again_at_its_time(void **state)
{
	struct grant_claim c;

	(void)state;
	say(1, 2, CONSENT_GRANTED, "orders");
	c = claim(relay, NOW, 10, NULL, 0);
	assert_int_equal(finish(&c.rows[0], false, NOW + 10 * S), STORE_OK);
	grant_claim_clear(&c);
	assert_string_equal(claim_text(claim(relay, NOW + 10 * S, 10, NULL, 0)), "");
	assert_string_equal(claim_text(claim(relay, NOW + 11 * S, 10, NULL, 0)),
	                    "1>d2.test:1*2");
}

/* The member says something else while a GRANT is on its way: that must be told too. */
static void
test_what_changed_meanwhile_stays(void **state)
{
	struct grant_claim c;

	(void)state;
	say(1, 2, CONSENT_GRANTED, "orders");
	say(2, 2, CONSENT_GRANTED, "orders");
	c = claim(relay, NOW, 10, NULL, 0);
	assert_int_equal(c.rows_n, 2);
	say(1, 2, CONSENT_REVOKED, "orders");
	for (int i = 0; i < 2; i++)
		assert_int_equal(finish(&c.rows[i], true, -1), STORE_OK);
	grant_claim_clear(&c);
	assert_int_equal(waits(), 1);
	c = claim(relay, NOW + S, 10, NULL, 0);
	assert_int_equal(c.rows_n, 1);
	assert_int_equal(c.rows[0].state, CONSENT_REVOKED);
	assert_int_equal(c.rows[0].attempts, 1);
	assert_true(c.rows[0].has_grant); /* a revocation names its grant */
	assert_int_equal(finish(&c.rows[0], true, -1), STORE_OK);
	assert_int_equal(finish(&c.rows[0], true, -1), STORE_OK); /* run again */
	grant_claim_clear(&c);
	assert_int_equal(waits(), 0);
}

static void
test_many_end_in_one_batch(void **state)
{
	static struct grant_finish f[90];
	struct grant_claim c;

	(void)state;
	for (int i = 0; i < 90; i++)
		say(1 + i % 9, 1 + i / 10, CONSENT_GRANTED, i / 9 % 2 == 0 ? "a" : "b");
	c = claim(relay, NOW, 100, NULL, 0);
	assert_int_equal(c.rows_n, waits());
	for (size_t i = 0; i < c.rows_n; i++) {
		f[i] = (struct grant_finish){ .account_id = c.rows[i].account_id,
			                      .sender_id = c.rows[i].sender_id,
			                      .channel = c.rows[i].channel,
			                      .changed_id = c.rows[i].changed_id,
			                      .sent = i % 3 > 0,
			                      .not_before_us =
			                          i % 3 > 0 ? -1 : NOW + (int64_t)i * S };
		SUBMIT(store_grant_finish, relay, &f[i]);
	}
	waiting_all();
	for (size_t i = 0; i < c.rows_n; i++)
		assert_int_equal(f[i].job.rc, STORE_OK);
	assert_int_equal(waits(), (c.rows_n + 2) / 3);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.grant_outbox WHERE leased_until < "
	                "to_timestamp(1800000010)"),
	    4);
	grant_claim_clear(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_what_was_saved_is_loaded, empty),
		cmocka_unit_test_setup(test_saving_keeps_the_last_success_and_the_hold, empty),
		cmocka_unit_test_setup(test_holding_and_releasing, empty),
		cmocka_unit_test_setup(test_administrators_see_peers_by_name, empty),
		cmocka_unit_test_setup(test_one_worker_probes_a_peer_that_is_down, empty),
		cmocka_unit_test_setup(test_a_wait_without_a_failure_is_loaded, empty),
		cmocka_unit_test_setup(test_a_claim_tells_what_the_site_is_told, empty),
		cmocka_unit_test_setup(test_leases_limits_and_domains_that_are_skipped, empty),
		cmocka_unit_test_setup(test_what_was_not_sent_comes_again_at_its_time, empty),
		cmocka_unit_test_setup(test_what_changed_meanwhile_stays, empty),
		cmocka_unit_test_setup(test_many_end_in_one_batch, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
