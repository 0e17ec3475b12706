/* store/workers.h: a lease ends with the process that holds it. */
#include "cluster.h"

#include "store/catchups.h"
#include "store/clocks.h"
#include "store/peers.h"
#include "store/presence.h"
#include "store/queue.h"
#include "store/receipts.h"
#include "store/workers.h"

#include <stdatomic.h>

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define S INT64_C(1000000)

/* A process: a store with an identity, as a role makes it. */
struct process {
	struct store *store;
	struct uuid id;
	_Atomic bool connected;
};

static struct process first, second;

static void
on_notified(const char *channel, void *arg)
{
	if (channel == NULL)
		atomic_store(&((struct process *)arg)->connected, true);
}

static void
start(struct process *p, const char *role)
{
	static const char *const channels[] = { "tmtp_relay", NULL };
	struct store_options o = { .conninfo = cluster_conninfo(role),
		                   .name = "test",
		                   .patience_ms = 20000,
		                   .worker = &p->id,
		                   .listen = channels,
		                   .notified = on_notified,
		                   .arg = p };
	struct worker_enter enter = { .role =
		                          strcmp(role, "tmtp_relay") == 0 ? "relay" : "home",
		                      .now_us = NOW };

	p->id = enter.worker = uuid_make();
	atomic_store(&p->connected, false);
	o.connections[STORE_WRITE] = o.connections[STORE_READ] = 1;
	p->store = store_start(&o);
	while (!atomic_load(&p->connected))
		usleep(1000);
	for (int i = 0; i < 2; i++) /* after each reconnect it says it again */
		assert_int_equal(RUN(store_worker_enter, p->store, &enter), STORE_OK);
}

static void
end(struct process *p)
{
	store_stop(&p->store, 1000);
}

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-13', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site VALUES (1, 's1.test', 'shop', 't', now())");
	cluster_sql("INSERT INTO tmtp.channel VALUES (1, 1, 'orders', 't', now())");
	cluster_sql("INSERT INTO tmtp.domain VALUES (9, 'd9.test', now())");
	cluster_sql("INSERT INTO tmtp.account VALUES (1, 'home.test', 'm1', 'x', now())");
	cluster_sql("INSERT INTO tmtp.sender VALUES (1, 'shop@d9.test', 9, 'd9.test', now())");
	return 0;
}

/* A batch, a GRANT, a question, a receipt and a presence that wait; a peer to be probed. */
static int
some(void **state)
{
	struct uuid id = uuid_floor(NOW);
	char text[UUID_TEXT];

	(void)state;
	uuid_format(&id, text);
	cluster_sql("TRUNCATE tmtp.message, tmtp.batch, tmtp.grant_outbox, tmtp.consent, "
	            "tmtp.catchup, tmtp.notification, tmtp.worker, tmtp.receipt_outbox, "
	            "tmtp.presence_outbox, tmtp.peer");
	cluster_sql(
	    "INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "
	    "accepted_at, date_s, size, digest, body) VALUES (1, '%s', 1, 2, 1, "
	    "to_timestamp(1800000000), 77, 4, sha256('body'), 'body')",
	    text);
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, "
	    "domain_id, lane, first_member, recipients) VALUES (1, '%s', 1, 1, 9, 1, '', 1)",
	    text);
	cluster_sql("INSERT INTO tmtp.consent VALUES (1, 1, 'orders', 1, sha256('g'), false, "
	            "NULL, NULL, '%s', 77)",
	            text);
	cluster_sql("INSERT INTO tmtp.grant_outbox (account_id, sender_id, channel, domain_id, "
	            "changed_id) VALUES (1, 1, 'orders', 9, '%s')",
	            text);
	cluster_sql("INSERT INTO tmtp.catchup (site_id, domain_id, next_at) "
	            "VALUES (1, 9, to_timestamp(1800000000))");
	cluster_sql("INSERT INTO tmtp.receipt_outbox VALUES (1, '%s', 1, 1, 9, 'orders', "
	            "to_timestamp(1800000000))",
	            text);
	cluster_sql("INSERT INTO tmtp.presence_outbox VALUES (1, 9, to_timestamp(1800000000))");
	cluster_sql(
	    "INSERT INTO tmtp.domain VALUES (10, 'down.test', now()) ON CONFLICT DO NOTHING");
	cluster_sql("INSERT INTO tmtp.peer (domain_id, failures, retry_at) "
	            "VALUES (10, 1, to_timestamp(1800000000))");
	return 0;
}

static size_t
batches(struct process *p)
{
	struct queue_claim c = { .pair = { 1, 9 },
		                 .owner = p->id,
		                 .oldest = uuid_floor(NOW - 86400 * S),
		                 .now_us = NOW + S,
		                 .lease_until_us = NOW + 100 * S,
		                 .want = 5 };
	size_t n;

	assert_int_equal(RUN(store_queue_claim, p->store, &c), STORE_OK);
	n = c.batches_n;
	queue_batch_free(&c.batches);
	return n;
}

static size_t
grants(struct process *p)
{
	struct grant_claim c = { .now_us = NOW + S,
		                 .lease_until_us = NOW + 100 * S,
		                 .limit = 5 };
	size_t n;

	assert_int_equal(RUN(store_grant_claim, p->store, &c), STORE_OK);
	n = c.rows_n;
	grant_claim_clear(&c);
	return n;
}

static size_t
questions(struct process *p)
{
	struct catchup_claim c = { .now_us = NOW + S,
		                   .lease_until_us = NOW + 100 * S,
		                   .limit = 5 };
	size_t n;

	assert_int_equal(RUN(store_catchup_claim, p->store, &c), STORE_OK);
	n = c.rows_n;
	catchup_claim_clear(&c);
	return n;
}

static size_t
receipts(struct process *p)
{
	struct receipt_claim c = { .now_us = NOW + S,
		                   .lease_until_us = NOW + 100 * S,
		                   .limit = 5 };
	size_t n;

	assert_int_equal(RUN(store_receipt_claim, p->store, &c), STORE_OK);
	n = c.rows_n;
	receipt_claim_clear(&c);
	return n;
}

/* Behind the GRANT: as long as that waits, none is claimed. */
static size_t
presences(struct process *p)
{
	struct presence_claim c = { .now_us = NOW + S,
		                    .lease_until_us = NOW + 100 * S,
		                    .limit = 5 };
	size_t n;

	cluster_sql("UPDATE tmtp.grant_outbox SET account_id = -account_id");
	assert_int_equal(RUN(store_presence_claim, p->store, &c), STORE_OK);
	cluster_sql("UPDATE tmtp.grant_outbox SET account_id = -account_id");
	n = c.rows_n;
	presence_claim_clear(&c);
	return n;
}

static size_t
probes(struct process *p)
{
	struct peer_probe probe = { .domain_id = 10,
		                    .now_us = NOW + S,
		                    .until_us = NOW + 100 * S };

	assert_int_equal(RUN(store_peer_probe, p->store, &probe), STORE_OK);
	free(probe.state.reason);
	return probe.ours;
}

/* How many of what waits is this process's now: 6 or 0. */
static size_t
all(struct process *p)
{
	return batches(p) + grants(p) + questions(p) + receipts(p) + presences(p) + probes(p);
}

static struct worker_reap
reap(struct process *p, void (*call)(struct store *, struct worker_reap *))
{
	struct worker_reap r = { .worker = p->id };

	assert_int_equal(RUN(call, p->store, &r), STORE_OK);
	return r;
}

/* The server misses a client's end within moments, not at once. */
static struct worker_reap
reap_until(struct process *p, void (*call)(struct store *, struct worker_reap *))
{
	struct worker_reap r;

	do {
		r = reap(p, call);
	} while (r.gone_n == 0);
	return r;
}

static void
test_who_is_there_keeps_its_leases(void **state)
{
	(void)state;
	start(&first, "tmtp_relay");
	start(&second, "tmtp_relay");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.worker"), 2);
	assert_int_equal(all(&first), 6);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(reap(&first, store_worker_reap_relays).gone_n, 0);
		assert_int_equal(reap(&second, store_worker_reap_relays).gone_n, 0);
	}
	assert_int_equal(all(&second), 0);
	end(&first);
	end(&second);
}

static void
test_who_is_gone_leaves_its_leases_to_others(void **state)
{
	struct worker_reap r;
	struct uuid gone;

	(void)state;
	start(&first, "tmtp_relay");
	start(&second, "tmtp_relay");
	assert_int_equal(all(&first), 6);
	gone = first.id;
	end(&first);
	r = reap_until(&second, store_worker_reap_relays);
	assert_int_equal(r.gone_n, 1);
	assert_memory_equal(&r.gone[0], &gone, sizeof(gone));
	assert_int_equal(r.leases, 6);
	assert_int_equal(all(&second), 6);
	assert_int_equal(cluster_int("SELECT attempts FROM tmtp.batch"),
	                 2); /* counted all the same */
	assert_int_equal(reap(&second, store_worker_reap_relays).gone_n, 0);
	end(&second);
}

/* Its connections were lost, it wasn't: it takes its lock again and goes on. */
static void
test_who_comes_back_is_there_again(void **state)
{
	(void)state;
	start(&first, "tmtp_relay");
	start(&second, "tmtp_relay");
	atomic_store(&first.connected, false);
	log_set_level((enum log_level)(LOG_ERROR_LEVEL + 1));
	cluster_sql("SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = "
	            "'advisory' AND l.objid::bigint | (l.classid::bigint << 32) = %lld",
	            (long long)worker_lock_key(&first.id));
	while (!atomic_load(&first.connected))
		usleep(1000);
	log_set_level(LOG_ERROR_LEVEL);
	assert_int_equal(batches(&first), 1);
	assert_int_equal(reap(&second, store_worker_reap_relays).gone_n, 0);
	end(&first);
	end(&second);
}

static void
test_roles_are_apart(void **state)
{
	struct uuid n = uuid_floor(NOW);
	char text[UUID_TEXT];

	(void)state;
	uuid_format(&n, text);
	start(&first, "tmtp_home");
	start(&second, "tmtp_home");
	/* As an arrival does it: the owner is the connection's. */
	cluster_sql(
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, "
	    "size, date_s, uris, leased_until, lease_owner) VALUES ('%s', 1, 'orders', "
	    "sha256('x'), 1, 77, 'u', to_timestamp(1800000090), (SELECT worker_id "
	    "FROM tmtp.worker ORDER BY entered_at, worker_id LIMIT 1))",
	    text);
	end(&first);
	assert_int_equal(reap_until(&second, store_worker_reap_homes).leases, 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.notification "
	                             "WHERE leased_until IS NULL AND lease_owner IS NULL"),
	                 1);
	end(&second);
	/* A relay looks after relays only. */
	start(&first, "tmtp_relay");
	for (int i = 0; i < 3; i++)
		assert_int_equal(reap(&first, store_worker_reap_relays).gone_n, 0);
	end(&first);
}

static void
test_a_connection_knows_whose_it_is(void **state)
{
	char text[UUID_TEXT];

	(void)state;
	start(&first, "tmtp_relay");
	assert_int_equal(grants(&first), 1);
	uuid_format(&first.id, text);
	assert_string_equal(cluster_text("SELECT lease_owner FROM tmtp.grant_outbox"), text);
	assert_string_equal(cluster_text("SELECT coalesce(tmtp.this_worker()::text, 'nobody')"),
	                    "nobody");
	end(&first);
}

/* --- A clock that was set back --------------------------------------------------- */

#define HOUR (3600 * S)

static struct clock_see
see(struct process *p, void (*call)(struct store *, struct clock_see *), int64_t now_us)
{
	struct clock_see c = { .now_us = now_us, .seen_us = -1 };

	assert_int_equal(RUN(call, p->store, &c), STORE_OK);
	return c;
}

/* What waits until a second after the time at which its clock was an hour ahead. */
static void
all_wait_until(int64_t at_us)
{
	long long s = (long long)(at_us / S);

	cluster_sql("UPDATE tmtp.batch SET not_before = to_timestamp(%lld), "
	            "leased_until = to_timestamp(%lld)",
	            s, s);
	cluster_sql("UPDATE tmtp.grant_outbox SET leased_until = to_timestamp(%lld)", s);
	cluster_sql("UPDATE tmtp.receipt_outbox SET leased_until = to_timestamp(%lld)", s);
	cluster_sql("UPDATE tmtp.presence_outbox SET leased_until = to_timestamp(%lld)", s);
	cluster_sql("UPDATE tmtp.catchup SET next_at = to_timestamp(%lld), "
	            "leased_until = to_timestamp(%lld)",
	            s, s);
	cluster_sql("UPDATE tmtp.peer SET retry_at = to_timestamp(%lld), "
	            "probe_until = to_timestamp(%lld)",
	            s, s);
}

static void
test_what_an_advanced_clock_told_to_wait_is_told_anew(void **state)
{
	struct clock_see c;

	(void)state;
	cluster_sql("UPDATE tmtp.clock SET seen_at = 'epoch', set_back = 0");
	start(&first, "tmtp_relay");
	start(&second, "tmtp_relay");
	assert_int_equal(see(&first, store_clock_see_relay, NOW).back_us, 0);
	assert_int_equal(see(&first, store_clock_see_relay, NOW + HOUR).back_us, 0);
	all_wait_until(NOW + HOUR);
	assert_int_equal(all(&first), 0);

	/* Another process finds it; the first learns that it happened, and moves nothing again. */
	c = see(&second, store_clock_see_relay, NOW);
	assert_int_equal(c.back_us, HOUR);
	assert_int_equal(c.set_back, 1);
	assert_int_equal(c.moved, 6);
	c = see(&first, store_clock_see_relay, NOW);
	assert_int_equal(c.back_us, 0);
	assert_int_equal(c.set_back, 1);
	assert_int_equal(c.moved, 0);
	assert_int_equal(all(&first), 6);
	end(&first);
	end(&second);
}

/* Clocks of several hosts differ by a little; that moves nothing, and the latest stays. */
static void
test_clocks_that_differ_a_little_move_nothing(void **state)
{
	(void)state;
	cluster_sql("UPDATE tmtp.clock SET seen_at = 'epoch', set_back = 0");
	start(&first, "tmtp_relay");
	all_wait_until(NOW + HOUR);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(
		    see(&first, store_clock_see_relay, NOW + CLOCK_BACK_S * S).moved, 0);
		assert_int_equal(see(&first, store_clock_see_relay, NOW).moved, 0);
	}
	assert_int_equal(all(&first), 0);
	assert_int_equal(cluster_int("SELECT extract(epoch FROM seen_at)::int8 FROM tmtp.clock "
	                             "WHERE role = 'relay'"),
	                 NOW / S + CLOCK_BACK_S);
	assert_int_equal(see(&first, store_clock_see_relay, NOW - S).set_back, 1);
	end(&first);
}

/* A clock that was ahead for less than the time between two looks: the process itself saw it. */
static void
test_what_only_the_process_saw_counts(void **state)
{
	struct clock_see c = { .now_us = NOW, .seen_us = NOW + HOUR };

	(void)state;
	cluster_sql("UPDATE tmtp.clock SET seen_at = to_timestamp(%lld), set_back = 0",
	            (long long)(NOW / S));
	start(&first, "tmtp_relay");
	all_wait_until(NOW + HOUR);
	assert_int_equal(RUN(store_clock_see_relay, first.store, &c), STORE_OK);
	assert_int_equal(c.back_us, HOUR);
	assert_int_equal(all(&first), 6);
	end(&first);
}

static void
test_a_look_says_when_to_ask(void **state)
{
	struct clock_look look = { 0 };
	struct clock_see c;
	int64_t back;

	(void)state;
	assert_true(clock_look(&look, &c, &back));
	assert_true(c.seen_us < 0 && back == 0);
	assert_false(clock_look(&look, &c, &back)); /* asked, not answered */
	c.job.rc = STORE_OK;
	clock_look_done(&look, &c);
	assert_false(clock_look(&look, &c, &back)); /* only each few seconds */

	look.watch.ahead_us += HOUR; /* it was set back by an hour since */
	assert_true(clock_look(&look, &c, &back));
	assert_true(back > HOUR - S && back < HOUR + S);
	assert_true(c.seen_us > c.now_us + HOUR - S);
	c.job.rc = STORE_DOWN;
	clock_look_done(&look, &c);
	assert_true(clock_look(&look, &c, &back)); /* not told yet */
	assert_true(back == 0 && c.seen_us > c.now_us + HOUR - S);
	c.job.rc = STORE_OK;
	clock_look_done(&look, &c);
	assert_false(clock_look(&look, &c, &back));

	look.watch.ahead_us -= HOUR; /* and now ahead: what is seen is told at once */
	assert_true(clock_look(&look, &c, &back));
	assert_true(back == 0 && c.seen_us < 0);
}

/* Else a message to all would be for nobody until the clock is there again. */
static void
test_who_joined_in_the_future_has_joined(void **state)
{
	(void)state;
	cluster_sql("UPDATE tmtp.clock SET seen_at = to_timestamp(%lld)",
	            (long long)((NOW + HOUR) / S));
	cluster_sql(
	    "INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, "
	    "grant_id, joined_at) VALUES (1, 1, 9, 'ann', 1, sha256('g'), to_timestamp(%lld)), "
	    "(1, 1, 9, 'bob', 1, sha256('h'), to_timestamp(%lld))",
	    (long long)((NOW + HOUR) / S), (long long)(NOW / S - 7));
	start(&first, "tmtp_relay");
	assert_true(see(&first, store_clock_see_relay, NOW).moved > 0);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.subscription WHERE joined_at <= "
	                "to_timestamp(1800000000)"),
	    2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription WHERE joined_at = "
	                             "to_timestamp(1800000000 - 7)"),
	                 1);
	cluster_sql("DELETE FROM tmtp.subscription");
	end(&first);
}

/* A pickup too. */
static void
test_pickups_are_told_anew(void **state)
{
	struct uuid n = uuid_floor(NOW);
	char text[UUID_TEXT];

	(void)state;
	uuid_format(&n, text);
	cluster_sql("UPDATE tmtp.clock SET seen_at = 'epoch', set_back = 0");
	cluster_sql(
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, "
	    "size, date_s, uris, not_before) VALUES ('%s', 1, 'orders', sha256('x'), 1, 77, "
	    "'u', to_timestamp(%lld))",
	    text, (long long)((NOW + HOUR) / S + 5));
	start(&first, "tmtp_home");
	assert_int_equal(see(&first, store_clock_see_home, NOW + HOUR).moved, 0);
	assert_int_equal(see(&first, store_clock_see_home, NOW + S).moved, 1);
	assert_int_equal(cluster_int("SELECT extract(epoch FROM not_before)::int8 "
	                             "FROM tmtp.notification"),
	                 NOW / S + 6);
	end(&first);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_who_is_there_keeps_its_leases, some),
		cmocka_unit_test_setup(test_who_is_gone_leaves_its_leases_to_others, some),
		cmocka_unit_test_setup(test_who_comes_back_is_there_again, some),
		cmocka_unit_test_setup(test_roles_are_apart, some),
		cmocka_unit_test_setup(test_a_connection_knows_whose_it_is, some),
		cmocka_unit_test_setup(test_what_an_advanced_clock_told_to_wait_is_told_anew,
		                       some),
		cmocka_unit_test_setup(test_clocks_that_differ_a_little_move_nothing, some),
		cmocka_unit_test_setup(test_what_only_the_process_saw_counts, some),
		cmocka_unit_test(test_a_look_says_when_to_ask),
		cmocka_unit_test_setup(test_who_joined_in_the_future_has_joined, some),
		cmocka_unit_test_setup(test_pickups_are_told_anew, some),
	};

	return cmocka_run_group_tests(tests, setup, cluster_teardown);
}
