/*
 * store/recalls.h and arrivals that replace: what a member sees of messages
 * that were taken back or took each other's place, whatever the order in which
 * they came.
 */
#include "cluster.h"

#include "store/inboxes.h"
#include "store/recalls.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S (NOW / 1000000)
#define S INT64_C(1000000)

static struct store *home, *second, *site;
static int64_t now; /* of what arrives; grows */

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-20')");
	cluster_sql(
	    "INSERT INTO tmtp.account SELECT i, 'home.test', 'm' || i, 'x', now(), NULL "
	    "FROM generate_series(1, 3) AS i");
	cluster_sql("INSERT INTO tmtp.domain VALUES (5, 'shop.test', now())");
	cluster_sql(
	    "INSERT INTO tmtp.sender VALUES (5, 'shop@shop.test', 5, 'shop.test', now()), "
	    "(6, 'b@shop.test', 5, 'shop.test', now())");
	cluster_sql(
	    "INSERT INTO tmtp.open_grant SELECT decode('aa' || lpad(to_hex(i), 2, '0') || "
	    "repeat('00', 18), 'hex'), i, 5, 'orders' FROM generate_series(1, 3) AS i");
	cluster_sql(
	    "INSERT INTO tmtp.consent (account_id, sender_id, channel, state, receipts, changed_id, "
	    "grant_date, grant_id) SELECT i, 5, 'orders', 1, i = 1, gen_random_uuid(), 0, "
	    "decode('aa' || lpad(to_hex(i), 2, '0') || repeat('00', 18), 'hex') "
	    "FROM generate_series(1, 3) AS i");
	home = cluster_store("tmtp_home", 1);
	second = cluster_store("tmtp_home", 1);
	site = cluster_store("tmtp_site", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&home, 1000);
	store_stop(&second, 1000);
	store_stop(&site, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql(
	    "TRUNCATE tmtp.posted, tmtp.notification, tmtp.notification_digest, tmtp.inbox, "
	    "tmtp.receipt_outbox");
	now = NOW + S;
	return 0;
}

/* --- What arrives ------------------------------------------------------------ */

/* The grant of an account; account 9 has none. */
static const uint8_t *
grant_of(int account)
{
	static uint8_t grants[10][20];

	grants[account][0] = 0xaa;
	grants[account][1] = (uint8_t)account;
	return grants[account];
}

struct an_arrival {
	struct arrival a; /* first */
	struct arrival_rcpt rcpts[4];
	char id[16], replaces[16];
	uint8_t digest[32];
};

/* Message n, written at second date, to the accounts in "123", replacing message r (0: none). */
static void
arrival_make(struct an_arrival *x, int n, int date, const char *accounts, int r)
{
	*x = (struct an_arrival){ .a = { .from = SLICE("shop@shop.test"),
		                         .uris = SLICE("https://shop.test/m/1"),
		                         .size = 100 + n,
		                         .date_s = NOW_S + date,
		                         .expires_us = -1,
		                         .now_us = now += 1000,
		                         .lease_until_us = NOW + 60 * S,
		                         .want_accounts = true } };
	(void)snprintf(x->id, sizeof(x->id), "id-%d", n);
	(void)snprintf(x->replaces, sizeof(x->replaces), "id-%d", r);
	x->digest[0] = (uint8_t)n;
	x->a.id = slice_str(x->id);
	x->a.digest = slice_mem(x->digest, 32);
	x->a.fresh_id = uuid_floor(now);
	x->a.fresh_id.octets[15] = (uint8_t)n;
	x->a.rcpts = x->rcpts;
	if (r > 0)
		x->a.replaces = slice_str(x->replaces);
	for (; *accounts != '\0'; accounts++)
		x->rcpts[x->a.rcpts_n++].grant = grant_of(*accounts - '0');
}

struct arrived {
	struct uuid id;
	size_t added;
	int state;
	bool fresh, closed; /* closed: the first recipient is */
};

static struct arrived
arrive_at(struct store *at, int n, int date, const char *accounts, int r)
{
	struct an_arrival x;

	arrival_make(&x, n, date, accounts, r);
	assert_int_equal(RUN(store_arrival, at, (&x.a)), STORE_OK);
	assert_int_equal(x.a.outcome, ARRIVAL_STORED);
	arrival_clear(&x.a);
	if (x.a.state == ARRIVAL_RECALLED && x.a.added > 0) {
		assert_int_equal(RUN(store_arrival_revive, at, (&x.a)), STORE_OK);
		assert_true(x.a.fresh);
	}
	return (struct arrived){ .id = x.a.notification_id,
		                 .added = x.a.added,
		                 .state = x.a.state,
		                 .fresh = x.a.fresh,
		                 .closed = x.rcpts[0].closed };
}

static struct arrived
arrive(int n, int date, const char *accounts, int r)
{
	return arrive_at(home, n, date, accounts, r);
}

/* Message n has been picked up. */
static void
verify(int n)
{
	char body[16];

	(void)snprintf(body, sizeof(body), "%d", n);
	now += 1000;
	cluster_sql(
	    "UPDATE tmtp.notification SET state = 1, body = '%s', verified_at = "
	    "to_timestamp(%lld / 1000000.0) WHERE get_byte(digest, 0) = %d AND state = 0",
	    body, (long long)now, n);
}

struct a_recall {
	struct arrival_recall r; /* first */
	struct arrival_rcpt rcpts[4];
	char id[16], recall[16];
	uint8_t digest[32];
};

/* The recall of message n. */
static void
recall_make(struct a_recall *x, int n, const char *accounts)
{
	*x = (struct a_recall){ .r = { .from = SLICE("shop@shop.test"),
		                       .size = 100 + n,
		                       .date_s = NOW_S + 50,
		                       .now_us = now += 1000 } };
	(void)snprintf(x->id, sizeof(x->id), "rc-%d", n);
	(void)snprintf(x->recall, sizeof(x->recall), "id-%d", n);
	x->digest[0] = (uint8_t)n;
	x->r.id = slice_str(x->id);
	x->r.recall = slice_str(x->recall);
	x->r.digest = slice_mem(x->digest, 32);
	x->r.fresh_id = uuid_floor(now);
	x->r.fresh_id.octets[15] = (uint8_t)n;
	x->r.rcpts = x->rcpts;
	for (; *accounts != '\0'; accounts++)
		x->rcpts[x->r.rcpts_n++].grant = grant_of(*accounts - '0');
}

/* Returns how many entries it withdrew now. */
static size_t
take(struct store *at, struct a_recall *x)
{
	size_t n;

	assert_int_equal(RUN(store_arrival_recall, at, (&x->r)), STORE_OK);
	n = x->r.accounts_n;
	arrival_recall_clear(&x->r);
	return n;
}

static size_t
recall_at(struct store *at, int n, const char *accounts)
{
	struct a_recall x;
	size_t withdrawn;

	recall_make(&x, n, accounts);
	withdrawn = take(at, &x);
	assert_int_equal(x.r.outcome, ARRIVAL_STORED);
	return withdrawn;
}

/* --- What a member sees -------------------------------------------------------- */

static struct inbox_list
list_of(int account, int what)
{
	struct inbox_list list = { .account_id = account, .limit = 100 };

	list.what = what;
	assert_int_equal(RUN(store_inbox_list, home, (&list)), STORE_OK);
	return list;
}

static size_t
add(char *text, size_t size, size_t at, const struct inbox_row *e)
{
	return at + (size_t)snprintf(text + at, size - at, "%s%.*s%s%s", at > 0 ? " " : "",
	                             e->body == NULL ? 1 : (int)e->size,
	                             e->body == NULL ? "-" : (const char *)e->body,
	                             e->withdrawn ? "w" : "", e->read_us >= 0 ? "r" : "");
}

/* The entries, the newest first: the message's number or "-", w withdrawn, r read. */
static const char *
inbox(int account)
{
	static char text[256];
	struct inbox_list list = list_of(account, INBOX_NEWEST), since;
	struct inbox_count count = { .account_id = account };
	int64_t unread = 0;
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < list.rows_n; i++) {
		at = add(text, sizeof(text), at, &list.rows[i]);
		unread += list.rows[i].read_us < 0 && !list.rows[i].withdrawn;
	}
	/* the count and the events agree with the list */
	assert_int_equal(RUN(store_inbox_count, home, (&count)), STORE_OK);
	assert_int_equal(count.unread, unread);
	since = list_of(account, INBOX_SINCE);
	assert_int_equal(since.rows_n, list.rows_n);
	for (size_t i = 1; i < since.rows_n; i++)
		assert_true(since.rows[i].changed_us >= since.rows[i - 1].changed_us);
	inbox_list_clear(&list);
	inbox_list_clear(&since);
	return text;
}

static enum store_rc
mark(int account, const struct uuid *id, int how)
{
	struct inbox_mark m = { .account_id = account, .entry_id = *id, .now_us = now += 1000 };

	m.mark = how;
	return RUN(store_inbox_mark, home, (&m));
}

/* Reads the newest. */
static void
read_newest(int account)
{
	struct inbox_list list = list_of(account, INBOX_NEWEST);

	assert_true(list.rows_n > 0);
	assert_int_equal(mark(account, &list.rows[0].entry_id, INBOX_READ), STORE_OK);
	inbox_list_clear(&list);
}

/* --- Recalls that arrive --------------------------------------------------------- */

static void
test_a_recall_withdraws_what_is_there(void **state)
{
	(void)state;
	arrive(1, 0, "123", 0);
	verify(1);
	read_newest(2);
	assert_int_equal(recall_at(home, 1, "12"), 2);
	assert_string_equal(inbox(1), "-w");
	assert_string_equal(inbox(2), "1wr");
	assert_string_equal(inbox(3), "1");
	read_newest(1);
	assert_string_equal(inbox(1), "-wr");
	/* again: nothing more */
	assert_int_equal(recall_at(home, 1, "12"), 0);
	assert_string_equal(inbox(2), "1wr");
	/* and the site is told of the one who allows it, that it was unread */
	assert_string_equal(cluster_text("SELECT string_agg(account_id || ' ' || kind, ',') "
	                                 "FROM tmtp.receipt_outbox"),
	                    "1 2");
}

static void
test_a_recall_that_comes_first_wins(void **state)
{
	struct arrived x;

	(void)state;
	recall_at(home, 1, "1");
	assert_string_equal(cluster_text("SELECT state FROM tmtp.notification"), "4");
	x = arrive(1, 0, "1", 0);
	assert_int_equal(x.added, 0);
	assert_false(x.fresh);
	x = arrive(1, 0, "12", 0);
	assert_int_equal(x.added, 1);
	assert_true(x.fresh);
	verify(1);
	assert_string_equal(inbox(1), "");
	assert_string_equal(inbox(2), "1");
	assert_string_equal(cluster_text("SELECT date_s FROM tmtp.notification"), "1800000000");
	assert_int_equal(mark(1, &x.id, INBOX_READ), STORE_NOT_FOUND);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.notification"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.receipt_outbox"), 0);
}

static void
test_a_recall_before_the_pickup(void **state)
{
	(void)state;
	arrive(1, 0, "12", 0);
	recall_at(home, 1, "1");
	verify(1);
	assert_string_equal(inbox(1), "");
	assert_string_equal(inbox(2), "1");
}

static void
test_recalls_of_what_is_not_theirs(void **state)
{
	struct a_recall x;

	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	recall_make(&x, 1, "9");
	assert_int_equal(take(home, &x), 0);
	assert_true(x.rcpts[0].closed);
	x.r.from = SLICE("b@shop.test");
	x.rcpts[0].grant = grant_of(1);
	(void)take(home, &x);
	assert_int_equal(x.r.outcome, ARRIVAL_CONFLICT); /* the id is another sender's */
	x.r.from = SLICE("who@new.test");
	(void)take(home, &x);
	assert_true(x.rcpts[0].closed);
	x.r.from = SLICE("shop@shop.test");
	x.digest[5] = 1;
	(void)take(home, &x);
	assert_int_equal(x.r.outcome, ARRIVAL_CONFLICT);
	assert_string_equal(inbox(1), "1");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.posted"), 1);
}

/* The recall in one process, its message in another: whichever commits first. */
static void
test_a_recall_and_its_message_meet(void **state)
{
	(void)state;
	for (int n = 1; n <= 20; n++) {
		struct an_arrival a;
		struct a_recall x;

		arrival_make(&a, n, 0, "1", 0);
		recall_make(&x, n, "1");
		SUBMIT(store_arrival, home, &a.a);
		SUBMIT(store_arrival_recall, second, &x.r);
		waiting_all();
		assert_int_equal(a.a.job.rc, STORE_OK);
		assert_int_equal(a.a.outcome, ARRIVAL_STORED);
		assert_int_equal(x.r.job.rc, STORE_OK);
		assert_int_equal(x.r.outcome, ARRIVAL_STORED);
		arrival_clear(&a.a);
		arrival_recall_clear(&x.r);
		verify(n);
		assert_string_equal(
		    cluster_text("SELECT count(*) FROM tmtp.inbox WHERE withdrawn_at IS NULL"),
		    "0");
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 20);
}

/* --- Replacements -------------------------------------------------------------------- */

static void
test_the_newest_stands_in_the_place_of_all(void **state)
{
	struct arrived first, third;
	struct inbox_list one;

	(void)state;
	first = arrive(1, 0, "12", 0);
	verify(1);
	read_newest(1);
	arrive(2, 1, "1", 1);
	assert_string_equal(inbox(1), "1r"); /* not before it can be seen */
	verify(2);
	assert_string_equal(inbox(1), "2"); /* unread again */
	third = arrive(3, 2, "1", 1);
	verify(3);
	assert_string_equal(inbox(1), "3");
	assert_string_equal(inbox(2), "1");
	/* one entry, by one id */
	one = (struct inbox_list){
		.account_id = 1, .what = INBOX_ONE, .before = first.id, .limit = 1
	};
	assert_int_equal(RUN(store_inbox_list, home, (&one)), STORE_OK);
	assert_int_equal(one.rows_n, 1);
	assert_memory_equal(&one.rows[0].entry_id, &first.id, sizeof(first.id));
	assert_memory_equal(&one.rows[0].notification_id, &third.id, sizeof(third.id));
	inbox_list_clear(&one);
	assert_int_equal(mark(1, &first.id, INBOX_READ), STORE_OK);
	assert_string_equal(inbox(1), "3r");
	assert_int_equal(mark(1, &first.id, INBOX_DROP), STORE_OK);
	assert_string_equal(inbox(1), ""); /* nothing older comes back */
	arrive(4, 3, "1", 1);
	verify(4);
	assert_string_equal(inbox(1), "4");
}

/* Every order of three that name the first, and of three that name the one before. */
static void
test_no_order_of_arrival_matters(void **state)
{
	static const int orders[6][3] = { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 },
		                          { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } };

	for (int chained = 0; chained <= 1; chained++) {
		for (int same_second = 0; same_second <= chained; same_second++) {
			for (size_t o = 0; o < 6; o++) {
				(void)empty(state);
				for (int i = 0; i < 3; i++) {
					int n = orders[o][i];
					int r = n == 1 ? 0 : chained ? n - 1 : 1;

					arrive_at(i == 1 ? second : home, n,
					          same_second ? 0 : n, "13", r);
					verify(n);
				}
				assert_string_equal(inbox(1), "3");
				assert_string_equal(inbox(3), "3");
				assert_string_equal(inbox(2), "");
			}
		}
	}
}

static void
test_what_never_came_is_not_missed(void **state)
{
	(void)state;
	arrive(2, 1, "1", 1); /* 1 never comes */
	verify(2);
	assert_string_equal(inbox(1), "2");
	arrive(3, 2, "1", 1);
	verify(3);
	assert_string_equal(inbox(1), "3");
	arrive(1, 0, "2", 0); /* now it does, for somebody else */
	verify(1);
	assert_string_equal(inbox(1), "3");
	assert_string_equal(inbox(2), "1");
	arrive(1, 0, "1", 0);
	assert_string_equal(inbox(1), "3");
}

/* Posted to one of two when its replacement comes to both. */
static void
test_a_late_part_of_what_was_replaced(void **state)
{
	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	arrive(2, 0, "12", 1);
	verify(2);
	arrive(1, 0, "2", 0);
	assert_string_equal(inbox(1), "2");
	assert_string_equal(inbox(2), "2");
}

static void
test_a_replacement_that_fails_leaves_what_is_there(void **state)
{
	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	arrive(2, 1, "1", 1);
	cluster_sql("UPDATE tmtp.notification SET state = 2 WHERE state = 0");
	assert_string_equal(inbox(1), "1");
	arrive(3, 2, "1", 2);
	verify(3);
	assert_string_equal(inbox(1), "3");
}

static void
test_replacements_and_recalls(void **state)
{
	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	arrive(2, 1, "1", 1);
	verify(2);
	recall_at(home, 1, "1"); /* what nobody sees any more */
	assert_string_equal(inbox(1), "2");
	recall_at(home, 2, "1");
	assert_string_equal(inbox(1), "-w");
	arrive(3, 2, "1", 1);
	verify(3);
	assert_string_equal(inbox(1), "3");
	arrive(4, 3, "1", 1);
	recall_at(home, 4, "1"); /* before it could be seen: as if it had never come */
	verify(4);
	assert_string_equal(inbox(1), "3");
}

static void
test_a_replacement_again_changes_nothing(void **state)
{
	struct arrived x;

	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	arrive(2, 1, "1", 1);
	verify(2);
	x = arrive(2, 1, "1", 1);
	assert_int_equal(x.added, 0);
	assert_int_equal(x.state, 1);
	x = arrive(2, 1, "9", 1);
	assert_true(x.closed);
	assert_string_equal(inbox(1), "2");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.inbox"), 2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.posted"), 2);
}

static void
test_a_replacement_does_not_reach_another_sender(void **state)
{
	struct an_arrival x;

	(void)state;
	arrive(1, 0, "1", 0);
	verify(1);
	cluster_sql(
	    "INSERT INTO tmtp.open_grant VALUES (decode('bb' || repeat('00', 19), 'hex'), 1, 6, 'orders')");
	arrival_make(&x, 2, 1, "1", 0);
	x.a.from = SLICE("b@shop.test");
	x.a.replaces = SLICE("id-9");
	x.rcpts[0].grant = (const uint8_t[20]){ 0xbb };
	assert_int_equal(RUN(store_arrival, home, (&x.a)), STORE_OK);
	assert_int_equal(x.a.added, 1);
	arrival_clear(&x.a);
	verify(2);
	assert_string_equal(inbox(1), "2 1");
	cluster_sql("DELETE FROM tmtp.open_grant WHERE sender_id = 6");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_a_recall_withdraws_what_is_there, empty),
		cmocka_unit_test_setup(test_a_recall_that_comes_first_wins, empty),
		cmocka_unit_test_setup(test_a_recall_before_the_pickup, empty),
		cmocka_unit_test_setup(test_recalls_of_what_is_not_theirs, empty),
		cmocka_unit_test_setup(test_a_recall_and_its_message_meet, empty),
		cmocka_unit_test_setup(test_the_newest_stands_in_the_place_of_all, empty),
		cmocka_unit_test_setup(test_no_order_of_arrival_matters, empty),
		cmocka_unit_test_setup(test_what_never_came_is_not_missed, empty),
		cmocka_unit_test_setup(test_a_late_part_of_what_was_replaced, empty),
		cmocka_unit_test_setup(test_a_replacement_that_fails_leaves_what_is_there,
		                       empty),
		cmocka_unit_test_setup(test_replacements_and_recalls, empty),
		cmocka_unit_test_setup(test_a_replacement_again_changes_nothing, empty),
		cmocka_unit_test_setup(test_a_replacement_does_not_reach_another_sender, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
