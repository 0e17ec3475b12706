/*
 * store/arrivals.h: notifications for those who granted, invitations for those
 * who may be asked, their pickup, and what a sender may know of its channels.
 */
#include "cluster.h"

#include "store/arrivals.h"
#include "store/channels_asked.h"
#include "store/pickups.h"
#include "store/inboxes.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S (NOW / 1000000)
#define S INT64_C(1000000)
#define DAY (86400 * S)

static struct store *home, *second;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-20')");
	cluster_sql("INSERT INTO tmtp.account SELECT i, 'home.test', 'm' || i, 'x', now(), "
	            "CASE WHEN i = 9 THEN now() END FROM generate_series(1, 9) AS i");
	home = cluster_store("tmtp_home", 1);
	second = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&home, 1000);
	store_stop(&second, 1000);
	return cluster_teardown(state);
}

/* Senders 5 and 6 of shop.test, 7 of other.test. */
static int
empty(void **state)
{
	(void)state;
	cluster_sql(
	    "TRUNCATE tmtp.consent, tmtp.open_grant, tmtp.grant_outbox, tmtp.posted, "
	    "tmtp.notification, tmtp.notification_digest, tmtp.inbox, tmtp.sender, tmtp.peer, "
	    "tmtp.domain");
	cluster_sql(
	    "INSERT INTO tmtp.domain VALUES (5, 'shop.test', now()), (7, 'other.test', now())");
	cluster_sql(
	    "INSERT INTO tmtp.sender VALUES (5, 'shop@shop.test', 5, 'shop.test', now()), "
	    "(6, 'b@shop.test', 5, 'shop.test', now()), "
	    "(7, 'web@other.test', 7, 'other.test', now())");
	cluster_sql("UPDATE tmtp.arrival_count SET recipients = 0");
	return 0;
}

/* --- Notifications ------------------------------------------------------- */

/* The grant of a member for a sender's channel: 20 octets that say so. */
static const uint8_t *
grant_of(int account, int sender, int channel)
{
	static uint8_t grants[10][10][4][20];
	uint8_t *g = grants[account][sender][channel];

	if (g[0] != 0) /* made, and perhaps being read */
		return g;
	g[0] = 0xaa;
	g[1] = (uint8_t)account;
	g[2] = (uint8_t)sender;
	g[3] = (uint8_t)channel;
	return g;
}

static void
grants(int account, int sender, int channel)
{
	cluster_sql(
	    "INSERT INTO tmtp.open_grant VALUES (decode('aa%02x%02x%02x' || repeat('00', 16), "
	    "'hex'), %d, %d, 'c%d')",
	    account, sender, channel, account, sender, channel);
}

struct an_arrival {
	struct arrival a; /* first: jobs are cast back to it */
	struct arrival_rcpt rcpts[12];
	char id[16];
	uint8_t digest[32];
};

#define A(x) (&(x)->a)

/* From sender 5, message and id n. */
static void
make(struct an_arrival *x, int n)
{
	*x = (struct an_arrival){ .a = { .from = SLICE("shop@shop.test"),
		                         .uris = SLICE(
					     "https://shop.test/m/1\nhttps://cdn.test/m/1"),
		                         .size = 100 + n,
		                         .date_s = NOW_S,
		                         .expires_us = -1,
		                         .now_us = NOW + S,
		                         .lease_until_us = NOW + 60 * S,
		                         .want_accounts = true,
		                         .slot = 3 } };
	(void)snprintf(x->id, sizeof(x->id), "id-%d", n);
	x->digest[0] = (uint8_t)n;
	x->digest[1] = (uint8_t)(n >> 8);
	x->digest[31] = 0xdd;
	x->a.id = slice_str(x->id);
	x->a.digest = slice_mem(x->digest, 32);
	x->a.fresh_id = uuid_floor(NOW + 1000 * (int64_t)n);
	x->a.rcpts = x->rcpts;
}

static void
to(struct an_arrival *x, const uint8_t *grant)
{
	x->rcpts[x->a.rcpts_n++] = (struct arrival_rcpt){ .grant = grant };
}

static void
arrive(struct an_arrival *x)
{
	assert_int_equal(RUN(store_arrival, home, A(x)), STORE_OK);
}

static int64_t
count(const char *table)
{
	return cluster_int("SELECT count(*) FROM tmtp.%s", table);
}

static void
assert_id(const struct uuid *id, int n)
{
	struct uuid want = uuid_floor(NOW + 1000 * (int64_t)n);

	assert_memory_equal(id, &want, sizeof(want));
}

static void
test_one_recipient_gets_an_entry(void **state)
{
	struct an_arrival x;

	(void)state;
	grants(1, 5, 1);
	make(&x, 1);
	to(&x, grant_of(1, 5, 1));
	x.rcpts[0].vars = SLICE("de");
	x.rcpts[0].closed = true;
	x.a.key = SLICE("k1");
	x.a.signature = SLICE("signature");
	x.a.expires_us = NOW + DAY;
	arrive(&x);
	assert_int_equal(x.a.outcome, ARRIVAL_STORED);
	assert_false(x.rcpts[0].closed);
	assert_true(x.a.fresh);
	assert_int_equal(x.a.state, 0);
	assert_string_equal(x.a.channel, "c1");
	assert_id(&x.a.notification_id, 1);
	assert_int_equal(x.a.accounts_n, 1);
	assert_int_equal(x.a.accounts[0], 1);
	arrival_clear(A(&x));
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', sender_id, channel, recipient, get_byte(digest, 31), "
		"size, "
		"date_s, expires_at = to_timestamp(1800086400), replace(uris, chr(10), ' '), "
		"signing_key, convert_from(signature, 'UTF8'), state, attempts, "
		"leased_until = to_timestamp(1800000060), body, only_account) "
		"FROM tmtp.notification"),
	    "5 c1 221 101 1800000000 t https://shop.test/m/1 https://cdn.test/m/1 k1 signature "
	    "0 0 t");
	assert_string_equal(
	    cluster_text("SELECT concat_ws(' ', account_id, arrived_at = "
	                 "to_timestamp(1800000001), read_at, dropped_at, variables) "
	                 "FROM tmtp.inbox"),
	    "1 t \\x6465");
	assert_string_equal(
	    cluster_text("SELECT concat_ws(' ', domain_id, id, sender_id, size, "
	                 "kept_until = to_timestamp(1800086400)) FROM tmtp.posted"),
	    "5 id-1 5 101 t");
	assert_int_equal(count("notification_digest"), 1);
	assert_int_equal(
	    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 3"), 1);
}

static void
test_several_recipients_get_an_entry_each(void **state)
{
	struct an_arrival x;

	(void)state;
	make(&x, 2);
	for (int i = 1; i <= 5; i++) {
		if (i != 3)
			grants(i, 5, 1);
		to(&x, grant_of(i, 5, 1));
	}
	to(&x, grant_of(1, 5, 1)); /* twice */
	x.rcpts[1].vars = SLICE("two");
	x.rcpts[3].vars = SLICE("four");
	arrive(&x);
	for (int i = 0; i < 6; i++)
		assert_int_equal(x.rcpts[i].closed, i == 2);
	assert_true(x.a.fresh);
	assert_string_equal(x.a.channel, "c1");
	assert_id(&x.a.notification_id, 2);
	assert_int_equal(x.a.accounts_n, 4);
	assert_int_equal(x.a.accounts[0] + x.a.accounts[1] + x.a.accounts[2] + x.a.accounts[3],
	                 1 + 2 + 4 + 5);
	arrival_clear(A(&x));
	assert_string_equal(
	    cluster_text("SELECT string_agg(account_id || coalesce(convert_from("
	                 "variables, 'UTF8'), ''), ' ' ORDER BY account_id) FROM tmtp.inbox"),
	    "1 2two 4four 5");
	assert_int_equal(count("notification"), 1);
	assert_string_equal(
	    cluster_text("SELECT kept_until = to_timestamp(1800000000 + 30 * 86400) "
	                 "FROM tmtp.posted"),
	    "t");
	assert_int_equal(
	    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 3"), 6);
	make(&x, 3);
	to(&x, grant_of(1, 5, 1));
	to(&x, grant_of(2, 5, 1));
	x.a.want_accounts = false;
	arrive(&x);
	assert_int_equal(x.a.accounts_n, 0);
	assert_int_equal(count("inbox"), 6);
}

/* What is closed, whatever the reason, leaves no trace, but costs the same write and commit. */
static void
test_closed_ones_leave_nothing_but_a_commit(void **state)
{
	static const struct {
		int account, sender, channel;
		const char *from;
	} closed[] = { { 8, 5, 1, "shop@shop.test" }, /* never opened */
		       { 1, 7, 1, "shop@shop.test" }, /* another sender's */
		       { 1, 6, 1, "shop@shop.test" }, /* even of the same domain */
		       { 1, 5, 1, "who@new.test" },   /* an unknown sender shows a leaked one */
		       { 1, 5, 1, "web@other.test" } };
	struct an_arrival x;
	int64_t counted = 0;

	(void)state;
	grants(1, 5, 1);
	grants(1, 6, 1);
	grants(1, 7, 1);
	for (size_t i = 0; i < 2 * sizeof(closed) / sizeof(closed[0]); i++) {
		size_t k = i / 2, n = 1 + i % 2 * 2;
		char before[32];

		make(&x, (int)i);
		x.a.from = slice_str(closed[k].from);
		for (size_t r = 0; r < n; r++)
			to(&x,
			   grant_of(closed[k].account, closed[k].sender, closed[k].channel));
		(void)snprintf(
		    before, sizeof(before), "%s",
		    cluster_text("SELECT xmin FROM tmtp.arrival_count WHERE slot = 3"));
		arrive(&x);
		assert_int_equal(x.a.outcome, ARRIVAL_STORED);
		assert_false(x.a.fresh);
		assert_int_equal(x.a.accounts_n, 0);
		for (size_t r = 0; r < n; r++)
			assert_true(x.rcpts[r].closed);
		counted += (int64_t)n;
		assert_int_equal(
		    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 3"),
		    counted);
		assert_string_not_equal(
		    before, cluster_text("SELECT xmin FROM tmtp.arrival_count WHERE slot = 3"));
	}
	assert_int_equal(count("posted") + count("notification") +
	                     count("notification_digest") + count("inbox"),
	                 0);
	assert_int_equal(count("sender"), 3);
}

/* In one pipeline an open grant and a closed one share their commit. */
static void
test_open_and_closed_share_statement_and_commit(void **state)
{
	static struct an_arrival x[200];
	PGconn *other =
	    cluster_hold("UPDATE tmtp.arrival_count SET recipients = 0 WHERE slot = 3");

	(void)state;
	grants(1, 5, 1);
	for (int i = 0; i < 200; i++) {
		make(&x[i], i);
		to(&x[i], grant_of(i % 3 == 0 ? 8 : 1, 5, 1));
		SUBMIT(store_arrival, home, A(&x[i]));
		if (i == 0)
			cluster_blocked(); /* the others pile up behind it */
	}
	cluster_release(other);
	waiting_all();
	for (int i = 0; i < 200; i++) {
		assert_int_equal(x[i].a.job.rc, STORE_OK);
		assert_int_equal(x[i].rcpts[0].closed, i % 3 == 0);
		assert_int_equal(x[i].a.accounts_n, i % 3 != 0);
		assert_int_equal(x[i].a.fresh, i % 3 != 0);
		arrival_clear(A(&x[i]));
	}
	assert_int_equal(count("inbox"), 133);
	assert_int_equal(cluster_int("SELECT count(DISTINCT xmin::text) FROM tmtp.inbox"), 1);
	assert_int_equal(
	    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 3"), 200);
}

/* --- Resends and conflicts ----------------------------------------------- */

/* n recipients: 1 is the statement of one, 3 that of many. */
static void
again(struct an_arrival *x, int n, size_t rcpts)
{
	make(x, n);
	for (size_t i = 0; i < rcpts; i++)
		to(x, grant_of((int)i + 1, 5, 1));
	arrive(x);
}

static void
three_grants(void)
{
	for (int i = 1; i <= 3; i++)
		grants(i, 5, 1);
}

static void
test_a_resend_changes_nothing(void **state)
{
	struct an_arrival x;

	(void)state;
	three_grants();
	for (size_t rcpts = 1; rcpts <= 3; rcpts += 2) {
		char before[512];
		int n = (int)rcpts;

		again(&x, n, rcpts);
		arrival_clear(A(&x));
		cluster_sql("UPDATE tmtp.inbox SET read_at = now(), dropped_at = now()");
		(void)snprintf(before, sizeof(before), "%s",
		               cluster_text("SELECT string_agg(i::text, ' ' ORDER BY "
		                            "account_id) FROM tmtp.inbox i"));
		for (int state_now = 0; state_now < 4; state_now++) {
			cluster_sql("UPDATE tmtp.notification SET state = %d", state_now);
			make(&x, n);
			for (size_t i = 0; i < rcpts; i++)
				to(&x, grant_of((int)i + 1, 5, 1));
			x.a.fresh_id = uuid_floor(NOW + DAY);
			arrive(&x);
			assert_int_equal(x.a.outcome, ARRIVAL_STORED);
			assert_false(x.a.fresh);
			assert_false(x.rcpts[0].closed);
			assert_int_equal(x.a.state, state_now);
			assert_id(&x.a.notification_id, n);
			assert_int_equal(x.a.accounts_n, 0);
		}
		assert_string_equal(before, cluster_text("SELECT string_agg(i::text, ' ' ORDER "
		                                         "BY account_id) FROM tmtp.inbox i"));
		(void)empty(state);
		three_grants();
	}
}

/* A resend may name more: those who have no entry yet get one. */
static void
test_another_recipient_of_the_same_id_gets_an_entry(void **state)
{
	struct an_arrival x;

	(void)state;
	three_grants();
	again(&x, 1, 1);
	arrival_clear(A(&x));
	again(&x, 1, 3);
	assert_false(x.a.fresh);
	assert_int_equal(x.a.accounts_n, 2);
	assert_int_equal(x.a.accounts[0] + x.a.accounts[1], 5);
	arrival_clear(A(&x));
	assert_int_equal(count("notification"), 1);
	assert_int_equal(count("posted"), 1);
	assert_int_equal(count("inbox"), 3);
}

static void
test_an_id_used_for_something_else_is_a_conflict(void **state)
{
	struct an_arrival x;

	(void)state;
	three_grants();
	grants(1, 6, 1);
	grants(1, 7, 1);
	again(&x, 1, 1);
	arrival_clear(A(&x));
	for (size_t i = 0; i < 8; i++) {
		size_t n = i < 4 ? 1 : 3;

		make(&x, 1);
		for (size_t r = 0; r < n; r++)
			to(&x, grant_of(1, i % 4 == 2 ? 6 : i % 4 == 3 ? 7 : 5, 1));
		if (i % 4 == 0)
			x.digest[5] = 1;
		if (i % 4 == 1)
			x.a.size++;
		if (i % 4 == 2)
			x.a.from = SLICE("b@shop.test");
		if (i % 4 == 3) /* another domain's ids are another's */
			x.a.from = SLICE("web@other.test");
		x.a.fresh_id = uuid_floor(NOW + S * (int64_t)i);
		arrive(&x);
		assert_int_equal(x.a.outcome, i % 4 == 3 ? ARRIVAL_STORED : ARRIVAL_CONFLICT);
		assert_int_equal(x.a.fresh, i == 3);
		arrival_clear(A(&x));
	}
	assert_int_equal(count("notification"), 2);
	assert_int_equal(count("inbox"), 2);
	/* The signature and the variables are not compared. */
	make(&x, 1);
	to(&x, grant_of(1, 5, 1));
	x.a.key = SLICE("k");
	x.a.signature = SLICE("s");
	x.rcpts[0].vars = SLICE("de");
	arrive(&x);
	assert_int_equal(x.a.outcome, ARRIVAL_STORED);
	assert_string_equal(cluster_text("SELECT count(variables) FROM tmtp.inbox"), "0");
}

/* One message of one sender is one notification, whatever ids it comes under; another sender's
 * is another. */
static void
test_the_same_message_under_another_id_is_one_entry(void **state)
{
	struct an_arrival x;

	(void)state;
	three_grants();
	grants(1, 7, 1);
	again(&x, 1, 1);
	arrival_clear(A(&x));
	for (size_t n = 1; n <= 3; n += 2) {
		make(&x, (int)n + 10);
		x.digest[0] = 1;
		x.a.size = 101;
		for (size_t i = 0; i < n; i++)
			to(&x, grant_of((int)i + 1, 5, 1));
		arrive(&x);
		assert_int_equal(x.a.outcome, ARRIVAL_STORED);
		assert_false(x.a.fresh);
		assert_id(&x.a.notification_id, 1);
		assert_int_equal(x.a.accounts_n, n - 1);
		arrival_clear(A(&x));
	}
	assert_int_equal(count("notification"), 1);
	assert_int_equal(count("posted"), 3);
	make(&x, 1);
	x.a.from = SLICE("web@other.test");
	x.a.fresh_id = uuid_floor(NOW + S);
	to(&x, grant_of(1, 7, 1));
	arrive(&x);
	assert_true(x.a.fresh);
	arrival_clear(A(&x));
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox WHERE account_id = 1"),
	                 2);
}

static void
test_grants_of_several_channels_are_of_one(void **state)
{
	struct an_arrival x;

	(void)state;
	grants(1, 5, 2);
	grants(2, 5, 1);
	grants(3, 5, 2);
	grants(4, 5, 1);
	make(&x, 1);
	for (int i = 1; i <= 4; i++)
		to(&x, grant_of(i, 5, i % 2 == 0 ? 1 : 2));
	arrive(&x);
	assert_string_equal(x.a.channel, "c1");
	for (int i = 0; i < 4; i++)
		assert_int_equal(x.rcpts[i].closed, i % 2 == 0);
	assert_int_equal(x.a.accounts_n, 2);
	arrival_clear(A(&x));
	assert_int_equal(count("inbox"), 2);
}

/* Its octets again, under another id or the same, to a grant of another channel, alone or with others. */
static void
test_a_message_is_of_one_channel(void **state)
{
	(void)state;
	grants(1, 5, 1);
	grants(2, 5, 2);
	grants(3, 5, 1);
	for (int same_id = 0; same_id < 2; same_id++) {
		for (int n_rcpts = 1; n_rcpts <= 2; n_rcpts++) {
			int n = 1 + 2 * same_id + n_rcpts;
			struct an_arrival x;

			make(&x, n);
			to(&x, grant_of(1, 5, 1));
			arrive(&x);
			assert_false(x.rcpts[0].closed);
			arrival_clear(A(&x));
			make(&x, n);
			if (!same_id)
				x.a.id = SLICE("another");
			x.a.fresh_id = uuid_floor(NOW + 1000 * (int64_t)(n + 100));
			to(&x, grant_of(2, 5, 2));
			if (n_rcpts == 2)
				to(&x, grant_of(3, 5, 1));
			arrive(&x);
			assert_int_equal(x.a.outcome, ARRIVAL_STORED);
			assert_true(x.rcpts[0].closed);
			if (n_rcpts == 2)
				assert_false(x.rcpts[1].closed);
			arrival_clear(A(&x));
			cluster_sql("DELETE FROM tmtp.posted WHERE id = 'another'");
		}
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox WHERE account_id = 2"),
	                 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox WHERE account_id = 3"),
	                 2);
}

/* --- Two processes ------------------------------------------------------- */

static PGconn *
another_stores(const char *id, int digest, const char *nid)
{
	char sql[1024];

	(void)snprintf(
	    sql, sizeof(sql),
	    "INSERT INTO tmtp.notification_digest VALUES (decode('%02x' || repeat('00', 30) || "
	    "'dd', 'hex'), 5, '%s'); INSERT INTO tmtp.posted VALUES (5, '%s', 5, '%s', "
	    "decode('%02x' || repeat('00', 30) || 'dd', 'hex'), %d, 'infinity'); "
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, "
	    "date_s, uris, state) VALUES ('%s', 5, 'c1', '', 1, 1, 'u', 1)",
	    digest, nid, id, nid, digest, 100 + digest, nid);
	return cluster_hold(sql);
}

#define THEIRS "01a3185c-5000-7000-8000-00000000abcd"

static void
test_two_processes_meet_at_a_message(void **state)
{
	static const struct {
		const char *id;
		int digest;
		bool commits, conflict, theirs;
	} table[] = {
		{ "id-1", 1, true, false, true },  /* the same POST */
		{ "id-9", 1, true, false, true },  /* the same message under another id */
		{ "id-1", 9, true, true, false },  /* the id for another message */
		{ "id-1", 1, false, false, false } /* a process that died */
	};
	struct an_arrival x;

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(table) / sizeof(table[0]); i++) {
		size_t k = i / 2, rcpts = 1 + i % 2 * 2;
		PGconn *other;

		(void)empty(state);
		three_grants();
		other = another_stores(table[k].id, table[k].digest, THEIRS);
		make(&x, 1);
		for (size_t r = 0; r < rcpts; r++)
			to(&x, grant_of((int)r + 1, 5, 1));
		SUBMIT(store_arrival, home, A(&x));
		cluster_blocked();
		if (!table[k].commits)
			PQclear(PQexec(other, "ROLLBACK"));
		cluster_release(other);
		waiting_all();
		assert_int_equal(x.a.job.rc, STORE_OK);
		assert_int_equal(x.a.outcome,
		                 table[k].conflict ? ARRIVAL_CONFLICT : ARRIVAL_STORED);
		assert_int_equal(x.a.fresh, !table[k].commits);
		assert_int_equal(x.a.state, table[k].theirs);
		assert_int_equal(x.a.accounts_n, table[k].conflict ? 0 : rcpts);
		arrival_clear(A(&x));
		assert_int_equal(count("notification"), 1);
		assert_int_equal(
		    cluster_int(
			"SELECT count(*) FROM tmtp.inbox WHERE notification_id = '" THEIRS "'"),
		    table[k].theirs ? rcpts : 0);
		assert_int_equal(count("inbox"), table[k].conflict ? 0 : rcpts);
	}
}

static void
test_two_processes_get_the_same_posts(void **state)
{
	static struct an_arrival x[2][60];

	(void)state;
	three_grants();
	for (int i = 0; i < 60; i++) {
		for (int s = 0; s < 2; s++) {
			make(&x[s][i], s == 0 ? i : 59 - i);
			x[s][i].a.slot = s;
			x[s][i].a.fresh_id = uuid_make();
			x[s][i].a.fresh_id.octets[0] = 1; /* of a day that has a partition */
			memcpy(x[s][i].a.fresh_id.octets, "\x01\xa3\x18\x5c\x50", 5);
			for (int r = 1; r <= (i % 2 == 0 ? 1 : 3); r++)
				to(&x[s][i], grant_of(r, 5, 1));
			SUBMIT(store_arrival, s == 0 ? home : second, A(&x[s][i]));
		}
	}
	waiting_all();
	for (int i = 0; i < 60; i++) {
		for (int s = 0; s < 2; s++) {
			assert_int_equal(x[s][i].a.job.rc, STORE_OK);
			assert_int_equal(x[s][i].a.outcome, ARRIVAL_STORED);
			arrival_clear(A(&x[s][i]));
		}
	}
	assert_int_equal(count("notification"), 60);
	assert_int_equal(count("notification_digest"), 60);
	assert_int_equal(count("posted"), 60);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.inbox i JOIN tmtp.notification n "
	                "USING (notification_id)"),
	    count("inbox"));
}

/*
 * A transaction is run again because of another job in it, and meanwhile the
 * member revoked: nothing of what the first run said may remain.
 */
static void
test_a_second_run_says_nothing_of_the_first(void **state)
{
	PGconn *gate =
	    cluster_hold("UPDATE tmtp.arrival_count SET recipients = 0 WHERE slot = 3");
	PGconn *other =
	    cluster_hold("INSERT INTO tmtp.notification_digest VALUES (decode('03' || "
	                 "repeat('00', 30) || 'dd', 'hex'), 5, gen_random_uuid())");
	struct an_arrival first, x, bad;

	(void)state;
	three_grants();
	make(&first, 1);
	to(&first, grant_of(1, 5, 1));
	SUBMIT(store_arrival, home, A(&first));
	cluster_blocked();
	make(&x, 2);
	to(&x, grant_of(1, 5, 1));
	SUBMIT(store_arrival, home, A(&x));
	make(&bad, 3);
	to(&bad, grant_of(2, 5, 1));
	to(&bad, grant_of(3, 5, 1));
	bad.a.fresh_id = uuid_floor(NOW + 400 * DAY); /* a day without a partition */
	bad.a.want_accounts = false;                  /* so that it looks at the digest first */
	SUBMIT(store_arrival, home, A(&bad));
	log_set_level((enum log_level)(LOG_ERROR_LEVEL + 1));
	cluster_release(gate);
	while (count("inbox") == 0)
		continue;
	cluster_blocked();
	cluster_sql("DELETE FROM tmtp.open_grant WHERE account_id = 1");
	PQclear(PQexec(other, "ROLLBACK"));
	PQfinish(other);
	waiting_all();
	log_set_level(LOG_ERROR_LEVEL);
	assert_int_equal(bad.a.job.rc, STORE_REFUSED);
	assert_int_equal(x.a.job.rc, STORE_OK);
	assert_true(x.rcpts[0].closed);
	assert_false(x.a.fresh);
	assert_int_equal(x.a.accounts_n, 0);
	arrival_clear(A(&first));
	arrival_clear(A(&bad));
	assert_int_equal(count("notification"), 1);
}

/* --- Invitations --------------------------------------------------------- */

static int next_invite;

static struct arrival_invite
an_invite(const char *from, const char *registrable, const char *name, const char *channel)
{
	static uint8_t digests[200][32];
	int n = ++next_invite;

	digests[n % 200][0] = (uint8_t)n;
	digests[n % 200][1] = (uint8_t)(n >> 8);
	return (struct arrival_invite){ .from = slice_str(from),
		                        .from_domain = slice_str(strchr(from, '@') + 1),
		                        .registrable = slice_str(registrable),
		                        .domain = SLICE("home.test"),
		                        .name = slice_str(name),
		                        .channel = slice_str(channel),
		                        .id = SLICE("id"),
		                        .digest = slice_mem(digests[n % 200], 32),
		                        .uris = SLICE("u"),
		                        .size = 10,
		                        .date_s = NOW_S,
		                        .expires_us = -1,
		                        .now_us = NOW,
		                        .lease_until_us = NOW + 60 * S,
		                        .fresh_id = uuid_floor(NOW + 1000 * (int64_t)n),
		                        .sender_id = 1000 + n,
		                        .domain_id = 2000 + n,
		                        .per_day = 3,
		                        .slot = 4 };
}

static bool
invite_at(const char *from, const char *registrable, const char *name, const char *channel,
          int64_t now_us)
{
	struct arrival_invite v = an_invite(from, registrable, name, channel);

	v.now_us = now_us;
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	assert_int_equal(v.shown, v.account_id > 0);
	return v.shown;
}

#define invite(from, registrable, name, channel) \
	invite_at(from, registrable, name, channel, NOW)

/* The member answers everything that was asked. */
static void
answers(int state)
{
	cluster_sql("UPDATE tmtp.consent SET state = %d WHERE state = 0", state);
}

/* Nor does an entry become an invitation: that is dropped. */
static void
test_an_invitation_is_nobodys_entry(void **state)
{
	struct arrival_invite v;
	struct an_arrival x;

	(void)state;
	grants(1, 5, 1);
	grants(2, 5, 1);
	for (int n_rcpts = 1; n_rcpts <= 2; n_rcpts++) {
		make(&x, 50 + n_rcpts);
		v = an_invite("shop@shop.test", "shop.test", n_rcpts == 1 ? "m3" : "m4",
		              "sale");
		v.digest = x.a.digest;
		assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
		assert_true(v.shown);
		for (int i = 1; i <= n_rcpts; i++)
			to(&x, grant_of(i, 5, 1));
		arrive(&x);
		assert_int_equal(x.a.outcome, ARRIVAL_STORED);
		for (int i = 0; i < n_rcpts; i++)
			assert_true(x.rcpts[i].closed);
		assert_int_equal(x.a.accounts_n, 0);
		arrival_clear(A(&x));
	}
	assert_int_equal(count("inbox"), 0);
	make(&x, 60);
	to(&x, grant_of(1, 5, 1));
	arrive(&x);
	arrival_clear(A(&x));
	v = an_invite("shop@shop.test", "shop.test", "m5", "sale");
	v.digest = x.a.digest;
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	assert_false(v.shown);
	assert_int_equal(count("inbox"), 1);
}

static void
test_a_first_invitation_makes_all_its_rows(void **state)
{
	struct arrival_invite v = an_invite("new@a.new.test", "new.test", "m1", "orders");

	(void)state;
	v.key = SLICE("k");
	v.signature = SLICE("s");
	v.expires_us = NOW + DAY;
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	assert_true(v.shown);
	assert_int_equal(v.account_id, 1);
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', s.address, s.registrable, d.name, c.account_id, "
		"c.channel, "
		"c.state, c.grant_id, c.asked_at = to_timestamp(1800000000), n.recipient, "
		"n.channel, "
		"n.state, n.signing_key, n.size, n.leased_until = to_timestamp(1800000060), "
		"g.notification_id = n.notification_id) FROM tmtp.consent c JOIN tmtp.sender s "
		"USING (sender_id) JOIN tmtp.domain d USING (domain_id) JOIN tmtp.notification "
		"n "
		"ON n.notification_id = c.invitation JOIN tmtp.notification_digest g ON "
		"g.digest = n.digest AND g.sender_id = n.sender_id"),
	    "new@a.new.test new.test a.new.test 1 orders 0 t m1@home.test orders 0 k 10 t t");
	assert_int_equal(
	    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 4"), 1);
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK); /* a resend */
	assert_false(v.shown);
	assert_int_equal(count("consent"), 1);
	assert_int_equal(count("notification"), 1);
	assert_true(invite("new@a.new.test", "new.test", "m2",
	                   "orders")); /* another member is another's */
	assert_int_equal(count("sender"), 4);
	assert_int_equal(count("domain"), 3);
}

static void
test_nobody_leaves_no_trace(void **state)
{
	(void)state;
	assert_false(invite("new@new.test", "new.test", "nobody", "orders"));
	assert_false(invite("new@new.test", "new.test", "m9", "orders")); /* disabled */
	assert_int_equal(
	    count("consent") + count("notification") + count("notification_digest"), 0);
	assert_int_equal(count("sender"), 3);
	assert_int_equal(count("domain"), 2);
	assert_int_equal(
	    cluster_int("SELECT recipients FROM tmtp.arrival_count WHERE slot = 4"), 2);
}

static void
test_one_unanswered_for_a_registrable_domain(void **state)
{
	(void)state;
	assert_true(invite("shop@shop.test", "shop.test", "m1", "orders"));
	assert_false(invite("shop@shop.test", "shop.test", "m1", "news"));
	assert_false(invite("b@shop.test", "shop.test", "m1", "orders"));
	assert_false(
	    invite_at("x@deep.shop.test", "shop.test", "m1", "orders", NOW + 30 * DAY));
	assert_true(invite("web@other.test", "other.test", "m1", "orders"));
	assert_true(invite("b@shop.test", "shop.test", "m2", "orders"));
	answers(CONSENT_GRANTED);
	assert_true(invite("b@shop.test", "shop.test", "m1", "orders"));
}

static void
test_so_many_a_day(void **state)
{
	static const char *const channels[] = { "a", "b", "c", "d", "e" };

	(void)state;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(
		    invite_at("shop@shop.test", "shop.test", "m1", channels[i], NOW + i * S),
		    i < 3);
		answers(CONSENT_GRANTED);
	}
	assert_false(invite_at("b@shop.test", "shop.test", "m1", "e",
	                       NOW + DAY - 1)); /* all of the domain */
	assert_true(invite_at("b@shop.test", "shop.test", "m1", "e", NOW + DAY));
	answers(CONSENT_GRANTED);
	assert_false(invite_at("b@shop.test", "shop.test", "m1", "f", NOW + DAY));
	assert_true(invite_at("web@other.test", "other.test", "m1", "a", NOW + S));
}

static void
test_a_refusal_is_final_for_the_sender_a_second_for_the_domain(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *member = i == 0 ? "m1" : "m2";
		int no = i == 0 ? CONSENT_REFUSED : CONSENT_REVOKED;

		assert_true(invite("shop@shop.test", "shop.test", member, "orders"));
		answers(no);
		assert_false(invite_at("shop@shop.test", "shop.test", member, "orders",
		                       NOW + 400 * DAY));
		assert_false(
		    invite_at("shop@shop.test", "shop.test", member, "news", NOW + 400 * DAY));
		assert_true(
		    invite_at("b@shop.test", "shop.test", member, "orders", NOW + 2 * DAY));
		answers(no);
		assert_false(
		    invite_at("c@shop.test", "shop.test", member, "orders", NOW + 400 * DAY));
		assert_false(
		    invite_at("c@d.shop.test", "shop.test", member, "orders", NOW + 400 * DAY));
		assert_true(invite("web@other.test", "other.test", member, "orders"));
		answers(CONSENT_GRANTED);
	}
}

/* The site that asks who granted has removed the member since: it is told again, of a later date. */
static void
test_who_granted_needs_no_invitation(void **state)
{
	static const char told[] =
	    "SELECT concat_ws(' ', c.grant_date, o.changed_id = c.changed_id, o.domain_id, "
	    "c.grant_id, c.state) FROM tmtp.consent c LEFT JOIN tmtp.grant_outbox o USING "
	    "(account_id, sender_id, channel) WHERE c.channel = 'orders'";

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.consent VALUES (1, 5, 'orders', 1, '\\xaa', false, NULL, NULL, "
	    "gen_random_uuid(), 1)");
	assert_false(invite("shop@shop.test", "shop.test", "m1", "orders"));
	assert_int_equal(count("notification"), 0);
	assert_string_equal(cluster_text(told), "1800000000 t 5 \\xaa 1");
	/* In the same second, and however often: not more than a second ahead. */
	for (int i = 0; i < 3; i++)
		assert_false(invite("shop@shop.test", "shop.test", "m1", "orders"));
	assert_string_equal(cluster_text(told), "1800000001 t 5 \\xaa 1");
	/* Another sender, another channel, another member: nothing is told. */
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	assert_false(invite_at("b@shop.test", "shop.test", "nobody", "orders", NOW + DAY));
	assert_int_equal(count("grant_outbox"), 0);
	/* Nor of who revoked. */
	cluster_sql("UPDATE tmtp.consent SET state = 3");
	assert_false(invite_at("shop@shop.test", "shop.test", "m1", "orders", NOW + DAY));
	assert_int_equal(count("grant_outbox"), 0);
	cluster_sql("UPDATE tmtp.consent SET state = 1");
	assert_true(invite("shop@shop.test", "shop.test", "m1", "news"));
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.consent WHERE state = 1"), 1);
}

/* The same message again, for whom it may be: it was shown once. */
static void
test_an_invitation_is_one_message(void **state)
{
	struct arrival_invite v = an_invite("shop@shop.test", "shop.test", "m1", "orders");

	(void)state;
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	assert_true(v.shown);
	v.name = SLICE("m2");
	v.fresh_id = uuid_floor(NOW + 5000 * 1000);
	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	assert_false(v.shown);
	assert_int_equal(count("consent"), 1);
	assert_int_equal(count("notification"), 1);
}

/* Another process makes the sender, or its domain, known at the same moment: nobody's
 * invitation is lost. */
static void
test_invitations_that_meet_at_an_unknown_sender(void **state)
{
	static const char *const others[] = {
		"INSERT INTO tmtp.domain VALUES (70, 'new.test', now())",
		"INSERT INTO tmtp.domain VALUES (70, 'new.test', now()); "
		"INSERT INTO tmtp.sender VALUES (70, 'x@new.test', 70, 'new.test', now())",
	};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct arrival_invite v = an_invite("x@new.test", "new.test", "m1", "orders");
		PGconn *other;

		(void)empty(state);
		other = cluster_hold(others[i]);
		SUBMIT(store_arrival_invite, home, &v);
		cluster_blocked();
		cluster_release(other);
		waiting_all();
		assert_int_equal(v.job.rc, STORE_OK);
		assert_true(v.shown);
		assert_int_equal(
		    cluster_int(
			"SELECT domain_id FROM tmtp.sender WHERE address = 'x@new.test'"),
		    70);
		assert_int_equal(count("consent"), 1);
		assert_int_equal(count("notification"), 1);
	}
}

/* --- Pickup -------------------------------------------------------------- */

/* Notification n in a state; its lease and its time in seconds after NOW. */
static void
notification(int n, int state, const char *lease, const char *not_before)
{
	char id[UUID_TEXT];
	struct uuid uuid = uuid_floor(NOW + 1000 * (int64_t)n);

	uuid_format(&uuid, id);
	cluster_sql(
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, recipient, "
	    "digest, "
	    "size, date_s, uris, signing_key, signature, state, leased_until, not_before) "
	    "VALUES "
	    "('%s', 5, 'c1', CASE WHEN %d = 1 THEN 'm1@home.test' END, sha256('%d'), %d, 7, "
	    "'u1' || chr(10) || 'u2', CASE WHEN %d = 1 THEN 'k' END, CASE WHEN %d = 1 THEN "
	    "'sig'::bytea "
	    "END, %d, to_timestamp(1800000000 + %s::float8), to_timestamp(1800000000 + "
	    "%s::float8))",
	    id, n, n, 10 + n, n, n, state, lease, not_before);
}

static const char *
claim(struct store *s, int64_t now_us, unsigned limit)
{
	static char text[256];
	struct pickup_claim c = { .now_us = now_us,
		                  .lease_until_us = now_us + 30 * S,
		                  .oldest = uuid_floor(NOW - DAY),
		                  .limit = limit };
	size_t at = 0;

	text[0] = '\0';
	assert_int_equal(RUN(store_pickup_claim, s, &c), STORE_OK);
	for (size_t i = 0; i < c.rows_n; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%lld*%d",
		                       i == 0 ? "" : " ", (long long)c.rows[i].size - 10,
		                       c.rows[i].attempts);
	pickup_claim_clear(&c);
	return text;
}

static void
test_pickups_that_are_due_oldest_first(void **state)
{
	struct pickup_claim c = { .now_us = NOW,
		                  .lease_until_us = NOW + S,
		                  .oldest = uuid_floor(NOW - DAY),
		                  .limit = 1 };

	(void)state;
	notification(3, 0, "NULL", "NULL");
	notification(1, 0, "-1", "NULL");
	notification(2, 0, "NULL", "0");
	notification(4, 0, "10", "NULL"); /* somebody is at it */
	notification(5, 0, "NULL", "20"); /* not yet */
	for (int i = 1; i < 4; i++)
		notification(5 + i, i, "NULL", "NULL");
	notification(-86400 * 1000 - 1, 0, "NULL", "NULL"); /* older than is looked at */
	assert_int_equal(RUN(store_pickup_claim, home, &c), STORE_OK);
	assert_int_equal(c.rows_n, 1);
	assert_string_equal(c.rows[0].sender, "shop@shop.test");
	assert_string_equal(c.rows[0].channel, "c1");
	assert_string_equal(c.rows[0].recipient, "m1@home.test");
	assert_string_equal(c.rows[0].uris, "u1\nu2");
	assert_string_equal(c.rows[0].key, "k");
	assert_int_equal(c.rows[0].signature_len, 3);
	assert_int_equal(c.rows[0].size, 11);
	assert_int_equal(c.rows[0].date_s, 7);
	assert_int_equal(c.rows[0].expires_us, -1);
	assert_int_equal(c.rows[0].attempts, 1);
	assert_id(&c.rows[0].notification_id, 1);
	assert_int_equal(c.rows[0].digest[0], cluster_int("SELECT get_byte(sha256('1'), 0)"));
	pickup_claim_clear(&c);
	assert_string_equal(claim(second, NOW, 10), "2*1 3*1");
	assert_string_equal(claim(home, NOW, 10), "");
	assert_string_equal(claim(home, NOW + 11 * S, 10), "1*2 4*1");
	assert_string_equal(claim(home, NOW + 31 * S, 10), "2*2 3*2 5*1");
}

static struct pickup_finish
a_finish(int n, int end)
{
	struct pickup_finish f = { .notification_id = uuid_floor(NOW + 1000 * (int64_t)n),
		                   .body = SLICE("the body"),
		                   .reason = "because",
		                   .now_us = NOW + 5 * S,
		                   .not_before_us = NOW + 60 * S,
		                   .only_account = 77 };

	f.end = (unsigned)end;
	return f;
}

static const char *
notification_text(int n)
{
	return cluster_text(
	    "SELECT concat_ws(' ', state, convert_from(body, 'UTF8'), only_account, reason, "
	    "extract(epoch FROM verified_at)::int8 - 1800000000, "
	    "extract(epoch FROM not_before)::int8 - 1800000000, leased_until) "
	    "FROM tmtp.notification WHERE size = %d",
	    10 + n);
}

static void
test_pickups_end_verified_failed_withdrawn_or_later(void **state)
{
	struct pickup_finish f[7];

	(void)state;
	for (int i = 0; i < 6; i++) {
		notification(i, i == 5, "10", "NULL");
		f[i] = a_finish(i, i);
	}
	f[4] = a_finish(4, PICKUP_VERIFIED);
	f[4].only_domain = SLICE("home.test");
	f[4].only_name = SLICE("m2");
	f[5] = a_finish(5, PICKUP_FAILED); /* another process verified it meanwhile */
	f[6] = a_finish(99, PICKUP_VERIFIED);
	for (int i = 0; i < 7; i++)
		SUBMIT(store_pickup_finish, home, &f[i]);
	waiting_all();
	for (int i = 0; i < 7; i++)
		assert_int_equal(f[i].job.rc, i < 5 ? STORE_OK : STORE_NOT_FOUND);
	assert_string_equal(notification_text(0), "0 because 60");
	assert_string_equal(notification_text(1), "1 the body 5");
	assert_string_equal(notification_text(2), "2 because");
	assert_string_equal(notification_text(3), "3 because");
	assert_string_equal(notification_text(4), "1 the body 2 5");
	assert_int_equal(f[1].only_account, 0);
	assert_false(f[1].unseen);
	assert_int_equal(f[4].only_account, 2);
	assert_true(f[4].unseen); /* she was sent nothing */
	assert_int_equal(cluster_int("SELECT state FROM tmtp.notification WHERE size = 15"), 1);
	/* Run again after a lost answer: as it was. */
	f[1].body = SLICE("other");
	assert_int_equal(RUN(store_pickup_finish, home, &f[1]), STORE_NOT_FOUND);
	assert_string_equal(notification_text(1), "1 the body 5");
}

static void
test_a_message_to_a_member_who_is_not_here_failed(void **state)
{
	struct pickup_finish f = a_finish(1, PICKUP_VERIFIED);

	(void)state;
	notification(1, 0, "NULL", "NULL");
	f.only_domain = SLICE("home.test");
	f.only_name = SLICE("nobody");
	assert_int_equal(RUN(store_pickup_finish, home, &f), STORE_OK);
	assert_int_equal(f.only_account, -1);
	assert_true(f.unseen);
	assert_string_equal(cluster_text("SELECT concat_ws(' ', state, reason, body IS NULL) "
	                                 "FROM tmtp.notification"),
	                    "2 to t");
	notification(2, 0, "NULL", "NULL");
	f = a_finish(2, PICKUP_FAILED);
	f.only_domain = SLICE("home.test");
	f.only_name = SLICE("nobody");
	assert_int_equal(RUN(store_pickup_finish, home, &f), STORE_OK);
	assert_string_equal(notification_text(2), "2 because");
}

static void
test_a_message_to_one_of_those_who_got_it_is_seen(void **state)
{
	struct pickup_finish f;
	struct an_arrival x;

	(void)state;
	grants(2, 5, 1);
	make(&x, 1);
	to(&x, grant_of(2, 5, 1));
	arrive(&x);
	f = (struct pickup_finish){ .notification_id = x.a.notification_id,
		                    .end = PICKUP_VERIFIED,
		                    .body = SLICE("body"),
		                    .now_us = NOW,
		                    .only_domain = SLICE("home.test"),
		                    .only_name = SLICE("m2") };
	assert_int_equal(RUN(store_pickup_finish, home, &f), STORE_OK);
	assert_int_equal(f.only_account, 2);
	assert_false(f.unseen);
	arrival_clear(A(&x));
}

static void
test_holders_are_those_asked_for_with_an_entry(void **state)
{
	static const int64_t ask[] = { 1, 2, 3, 4 };
	struct arrival_holders h = { .notification_id = uuid_floor(NOW + 1000),
		                     .ask = ask,
		                     .ask_n = 4 };

	(void)state;
	notification(1, 1, "NULL", "NULL");
	cluster_sql("INSERT INTO tmtp.inbox SELECT a, notification_id, now(), NULL, CASE WHEN "
	            "a = 3 THEN "
	            "now() END FROM tmtp.notification, unnest(ARRAY[1, 3, 4, 5]) AS a");
	assert_int_equal(RUN(store_arrival_holders, home, &h), STORE_OK);
	assert_int_equal(h.accounts_n, 2);
	assert_int_equal(h.accounts[0] + h.accounts[1], 5);
	arrival_holders_clear(&h);
	h.notification_id = uuid_floor(NOW + 2000);
	assert_int_equal(RUN(store_arrival_holders, home, &h), STORE_OK);
	assert_int_equal(h.accounts_n, 0);
	arrival_holders_clear(&h);
}

/* --- CHANNELS ------------------------------------------------------------ */

static void
consent(int account, int sender, int channel, int state, int n)
{
	char id[UUID_TEXT];
	struct uuid uuid = uuid_floor(NOW + 1000 * (int64_t)n);

	uuid_format(&uuid, id);
	cluster_sql(
	    "INSERT INTO tmtp.consent VALUES (%d, %d, 'c%d', %d, CASE WHEN %d IN (1, 3) THEN "
	    "decode('aa%02x%02x%02x' || repeat('00', 16), 'hex') END, %s, NULL, NULL, '%s', "
	    "%d)",
	    account, sender, channel, state, state, account, sender, channel,
	    n == 3 ? "true" : "false", id, 1000 + n);
}

static void
test_channels_of_users(void **state)
{
	const struct slice users[] = {
		SLICE("m2@home.test"), SLICE("m1@home.test"),     SLICE("m3@home.test"),
		SLICE("m9@home.test"), SLICE("nobody@home.test"), SLICE("m1@far.test"),
		SLICE("odd")
	};
	struct channels_get g = { .from = SLICE("shop@shop.test"),
		                  .users = users,
		                  .users_n = 7 };

	(void)state;
	consent(1, 5, 1, 1, 1);
	consent(1, 5, 2, 1, 2);
	consent(1, 7, 1, 1, 3); /* another sender's */
	consent(2, 5, 1, 1, 4);
	consent(3, 5, 1, 3, 5); /* revoked */
	consent(3, 5, 2, 0, 6);
	consent(4, 5, 1, 1, 7); /* not asked for */
	consent(9, 5, 1, 1, 8); /* disabled */
	assert_int_equal(RUN(store_channels_get, home, &g), STORE_OK);
	assert_int_equal(g.rows_n, 3);
	assert_string_equal(g.rows[0].address, "m1@home.test");
	assert_string_equal(g.rows[0].channel, "c1");
	assert_memory_equal(g.rows[0].grant, grant_of(1, 5, 1), 20);
	assert_string_equal(g.rows[1].channel, "c2");
	assert_string_equal(g.rows[2].address, "m2@home.test");
	channels_get_clear(&g);
	g.from = SLICE("who@new.test");
	assert_int_equal(RUN(store_channels_get, home, &g), STORE_OK);
	assert_int_equal(g.rows_n, 0);
	channels_get_clear(&g);
}

static void
test_channels_since(void **state)
{
	struct channels_since c = { .from = SLICE("shop@shop.test"), .limit = 2 };
	int seen = 0;

	(void)state;
	consent(1, 5, 1, 1, 1);
	consent(2, 5, 1, 2, 2);
	consent(3, 5, 1, 1, 3);
	consent(4, 5, 1, 0, 4); /* asked only */
	consent(5, 7, 1, 1, 5); /* another sender's */
	consent(6, 5, 1, 3, 6);
	for (;;) {
		static const int want[] = { 1, 2, 1, 3 };

		assert_int_equal(RUN(store_channels_since, home, &c), STORE_OK);
		if (c.rows_n == 0)
			break;
		for (size_t i = 0; i < c.rows_n; i++, seen++) {
			assert_int_equal(c.rows[i].state, want[seen]);
			assert_int_equal(c.rows[i].has_grant, want[seen] != 2);
			assert_int_equal(c.rows[i].receipts, seen == 2);
			assert_string_equal(c.rows[i].channel, "c1");
			assert_int_equal(c.rows[i].date_s, seen == 3 ? 1006 : 1001 + seen);
		}
		assert_string_equal(c.rows[0].address,
		                    seen == 2 ? "m1@home.test" : "m3@home.test");
		c.since = c.rows[c.rows_n - 1].changed_id;
		channels_since_clear(&c);
	}
	channels_since_clear(&c);
	assert_int_equal(seen, 4);
	/* What is too young to be told waits for the next question. */
	c = (struct channels_since){ .from = SLICE("shop@shop.test"),
		                     .limit = 10,
		                     .before_us = 1000 };
	assert_int_equal(RUN(store_channels_since, home, &c), STORE_OK);
	assert_int_equal(c.rows_n, 0);
	channels_since_clear(&c);
	c = (struct channels_since){ .from = SLICE("who@new.test"), .limit = 10 };
	assert_int_equal(RUN(store_channels_since, home, &c), STORE_OK);
	assert_int_equal(c.rows_n, 0);
	channels_since_clear(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_one_recipient_gets_an_entry, empty),
		cmocka_unit_test_setup(test_several_recipients_get_an_entry_each, empty),
		cmocka_unit_test_setup(test_closed_ones_leave_nothing_but_a_commit, empty),
		cmocka_unit_test_setup(test_open_and_closed_share_statement_and_commit, empty),
		cmocka_unit_test_setup(test_a_resend_changes_nothing, empty),
		cmocka_unit_test_setup(test_another_recipient_of_the_same_id_gets_an_entry,
		                       empty),
		cmocka_unit_test_setup(test_an_id_used_for_something_else_is_a_conflict, empty),
		cmocka_unit_test_setup(test_the_same_message_under_another_id_is_one_entry,
		                       empty),
		cmocka_unit_test_setup(test_grants_of_several_channels_are_of_one, empty),
		cmocka_unit_test_setup(test_a_message_is_of_one_channel, empty),
		cmocka_unit_test_setup(test_two_processes_meet_at_a_message, empty),
		cmocka_unit_test_setup(test_two_processes_get_the_same_posts, empty),
		cmocka_unit_test_setup(test_a_second_run_says_nothing_of_the_first, empty),
		cmocka_unit_test_setup(test_an_invitation_is_nobodys_entry, empty),
		cmocka_unit_test_setup(test_a_first_invitation_makes_all_its_rows, empty),
		cmocka_unit_test_setup(test_nobody_leaves_no_trace, empty),
		cmocka_unit_test_setup(test_one_unanswered_for_a_registrable_domain, empty),
		cmocka_unit_test_setup(test_so_many_a_day, empty),
		cmocka_unit_test_setup(
		    test_a_refusal_is_final_for_the_sender_a_second_for_the_domain, empty),
		cmocka_unit_test_setup(test_who_granted_needs_no_invitation, empty),
		cmocka_unit_test_setup(test_an_invitation_is_one_message, empty),
		cmocka_unit_test_setup(test_invitations_that_meet_at_an_unknown_sender, empty),
		cmocka_unit_test_setup(test_pickups_that_are_due_oldest_first, empty),
		cmocka_unit_test_setup(test_pickups_end_verified_failed_withdrawn_or_later,
		                       empty),
		cmocka_unit_test_setup(test_a_message_to_a_member_who_is_not_here_failed,
		                       empty),
		cmocka_unit_test_setup(test_a_message_to_one_of_those_who_got_it_is_seen,
		                       empty),
		cmocka_unit_test_setup(test_holders_are_those_asked_for_with_an_entry, empty),
		cmocka_unit_test_setup(test_channels_of_users, empty),
		cmocka_unit_test_setup(test_channels_since, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
