/* store/inboxes.h: a member's entries, and what she says to senders. */
#include "cluster.h"

#include "store/inboxes.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S ((long long)(NOW / 1000000))

static struct store *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-10', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.domain VALUES (9, 'shop.test', now())");
	cluster_sql("INSERT INTO tmtp.sender VALUES (5, 'shop@shop.test', 9, 'shop.test', "
	            "now()), (6, 'b@shop.test', 9, 'shop.test', now())");
	cluster_sql("INSERT INTO tmtp.account VALUES (1, 'home.test', 'ann', 'x', now()), (2, "
	            "'home.test', 'ben', 'x', now())");
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
	cluster_sql("TRUNCATE tmtp.inbox, tmtp.notification, tmtp.consent, tmtp.open_grant, "
	            "tmtp.grant_outbox");
	cluster_sql("DELETE FROM tmtp.sender WHERE sender_id > 6");
	cluster_sql("DELETE FROM tmtp.domain WHERE domain_id > 9");
	return 0;
}

static struct uuid
id_of(int ms)
{
	return uuid_floor(NOW + 1000 * (int64_t)ms);
}

static const char *
id_text(int ms)
{
	static char text[UUID_TEXT];
	struct uuid id = id_of(ms);

	uuid_format(&id, text);
	return text;
}

/* A notification with the id of NOW + ms; verified (seconds after NOW, NULL: not), its body
 * "body<ms>". */
static void
notification(int ms, int notified, const char *verified)
{
	cluster_sql("INSERT INTO tmtp.notification (notification_id, sender_id, channel, "
	            "digest, size, date_s, uris, state, "
	            "verified_at, body) SELECT '%s', 5, 'orders', '\\x01', 5, %d, 'https://x', "
	            "%d, to_timestamp(%lld + %s::float8), "
	            "CASE WHEN %d = 1 THEN convert_to('body%d', 'UTF8') END",
	            id_text(ms), 100 + ms, notified, NOW_S, verified, notified, ms);
}

static void
entry(int account, int ms, const char *arrived)
{
	cluster_sql("INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at) SELECT "
	            "%d, '%s', to_timestamp(%lld + %s::float8)",
	            account, id_text(ms), NOW_S, arrived);
}

static enum store_rc
mark(int account, int ms, unsigned what, int64_t now_us)
{
	struct inbox_mark m = { .account_id = account,
		                .entry_id = id_of(ms),
		                .now_us = now_us };

	m.mark = what;
	return RUN(store_inbox_mark, home, &m);
}

static struct inbox_list
newest(int account, unsigned limit)
{
	struct inbox_list list = { .account_id = account,
		                   .what = INBOX_NEWEST,
		                   .limit = limit };

	assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
	return list;
}

/* Somebody who only lists doesn't load attachments. */
static void
test_bodies_are_cut_where_asked(void **state)
{
	static const int ways[] = { INBOX_NEWEST, INBOX_ONE, INBOX_SINCE };

	(void)state;
	notification(1, 1, "5");
	entry(1, 1, "3");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct inbox_list list = { .account_id = 1, .limit = 10, .body_max = 3 };

		list.what = ways[i];
		if (ways[i] == INBOX_ONE)
			list.before = id_of(1);
		assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
		assert_int_equal(list.rows_n, 1);
		assert_int_equal(list.rows[0].size, 3);
		assert_memory_equal(list.rows[0].body, "bod", 3);
		inbox_list_clear(&list);
	}
}

static int64_t
unread(int account)
{
	struct inbox_count count = { .account_id = account };

	assert_int_equal(RUN(store_inbox_count, home, &count), STORE_OK);
	return count.unread;
}

/* --- Entries ------------------------------------------------------------- */

/* A site may show one member's message to another one's grant: nobody but its recipient sees it. */
static void
test_a_message_to_one_member_is_seen_by_no_other(void **state)
{
	struct inbox_list list;

	(void)state;
	notification(1, 1, "5");
	cluster_sql("UPDATE tmtp.notification SET only_account = 2");
	entry(1, 1, "3");
	entry(2, 1, "3");
	list = newest(1, 10);
	assert_int_equal(list.rows_n, 0);
	inbox_list_clear(&list);
	assert_int_equal(unread(1), 0);
	assert_int_equal(mark(1, 1, INBOX_READ, NOW), STORE_NOT_FOUND);
	list = (struct inbox_list){
		.account_id = 1, .what = INBOX_ONE, .before = id_of(1), .limit = 1
	};
	assert_int_not_equal(RUN(store_inbox_list, home, &list) == STORE_OK && list.rows_n > 0,
	                     1);
	inbox_list_clear(&list);
	list = (struct inbox_list){
		.account_id = 1, .what = INBOX_SINCE, .since_us = NOW, .limit = 10
	};
	assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
	inbox_list_clear(&list);
	list = newest(2, 10);
	assert_int_equal(list.rows_n, 1);
	inbox_list_clear(&list);
	assert_int_equal(unread(2), 1);
	assert_int_equal(mark(2, 1, INBOX_READ, NOW), STORE_OK);
}

static void
test_only_what_was_verified_is_there(void **state)
{
	struct inbox_list list;

	(void)state;
	notification(1, 0, "NULL"); /* to be picked up */
	notification(2, 1, "5");
	notification(3, 2, "NULL"); /* failed */
	notification(4, 3, "5");    /* withdrawn after it was verified */
	notification(5, 3, "NULL"); /* withdrawn before */
	for (int i = 1; i <= 5; i++)
		entry(1, i, "3");
	cluster_sql("UPDATE tmtp.inbox SET variables = '\\x6465' WHERE notification_id = '%s'",
	            id_text(2));
	list = newest(1, 10);
	assert_int_equal(list.rows_n, 2);
	assert_true(list.rows[0].withdrawn);
	assert_null(list.rows[0].body);
	assert_false(list.rows[1].withdrawn);
	assert_memory_equal(list.rows[1].body, "body2", 5);
	assert_int_equal(list.rows[1].size, 5);
	assert_string_equal(list.rows[1].sender, "shop@shop.test");
	assert_string_equal(list.rows[1].channel, "orders");
	assert_int_equal(list.rows[1].arrived_us,
	                 NOW + 5000000); /* verified after it arrived */
	assert_int_equal(list.rows[1].date_s, 102);
	assert_int_equal(list.rows[1].read_us, -1);
	assert_int_equal(list.rows[1].variables_len, 2);
	assert_memory_equal(list.rows[1].variables, "de", 2);
	assert_null(list.rows[0].variables);
	assert_int_equal(unread(1), 2);
	inbox_list_clear(&list);
	list = (struct inbox_list){ .account_id = 1, .what = INBOX_ONE };
	for (int i = 1; i <= 5; i++) {
		list.before = id_of(i);
		assert_int_equal(RUN(store_inbox_list, home, &list),
		                 i == 2 || i == 4 ? STORE_OK : STORE_NOT_FOUND);
		assert_int_equal(list.rows_n, i == 2 || i == 4);
		assert_int_equal(mark(1, i, INBOX_READ, NOW),
		                 i == 2 || i == 4 ? STORE_OK : STORE_NOT_FOUND);
		inbox_list_clear(&list);
	}
}

static void
test_marks_read_unread_and_drop(void **state)
{
	struct inbox_list list;

	(void)state;
	notification(1, 1, "1");
	notification(2, 1, "1");
	entry(1, 1, "2");
	entry(1, 2, "2");
	entry(2, 1, "2");
	assert_int_equal(mark(1, 1, INBOX_READ, NOW + 10), STORE_OK);
	assert_int_equal(mark(1, 1, INBOX_READ, NOW + 20), STORE_OK);
	list = newest(1, 10);
	assert_int_equal(list.rows[1].read_us, NOW + 10); /* the first time stays */
	inbox_list_clear(&list);
	assert_int_equal(unread(1), 1);
	assert_int_equal(unread(2), 1); /* another member's is another's */
	list = (struct inbox_list){
		.account_id = 1, .what = INBOX_NEWEST, .limit = 10, .unread_only = true
	};
	assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	inbox_list_clear(&list);
	assert_int_equal(mark(1, 1, INBOX_UNREAD, NOW + 30), STORE_OK);
	assert_int_equal(unread(1), 2);
	assert_int_equal(mark(1, 1, INBOX_DROP, NOW + 40), STORE_OK);
	assert_int_equal(mark(1, 1, INBOX_DROP, NOW + 40),
	                 STORE_OK); /* the same drop, run again */
	assert_int_equal(mark(1, 1, INBOX_DROP, NOW + 50), STORE_NOT_FOUND);
	assert_int_equal(mark(1, 1, INBOX_READ, NOW + 50), STORE_NOT_FOUND);
	assert_int_equal(unread(1), 1);
	list = newest(1, 10);
	assert_int_equal(list.rows_n, 1);
	inbox_list_clear(&list);
	assert_int_equal(mark(2, 2, INBOX_READ, NOW), STORE_NOT_FOUND); /* not hers */
	assert_int_equal(mark(2, 1, INBOX_READ, NOW), STORE_OK);
}

/* Several marks of one entry, and of many, in one batch: all but the first, which waits for a lock. */
static void
test_marks_in_one_batch(void **state)
{
	struct store *single = cluster_store("tmtp_home", 1);
	struct inbox_mark m[40];
	PGconn *pg;

	(void)state;
	for (int i = 0; i < 10; i++) {
		notification(i, 1, "1");
		if (i < 9)
			entry(1, i, "2");
	}
	pg = cluster_hold("LOCK TABLE tmtp.inbox");
	for (int i = 0; i < 40; i++) {
		static const unsigned marks[] = { INBOX_READ, INBOX_UNREAD, INBOX_READ,
			                          INBOX_DROP };

		m[i] = (struct inbox_mark){ .account_id = 1,
			                    .entry_id = id_of(i % 10),
			                    .now_us = NOW + i };
		m[i].mark = marks[i / 10];
		if (i >= 30 && i % 2 == 0)
			m[i].mark = INBOX_UNREAD;
		SUBMIT(store_inbox_mark, single, &m[i]);
		if (i == 0)
			cluster_blocked();
	}
	cluster_release(pg);
	waiting_all();
	store_stop(&single, 1000);
	for (int i = 0; i < 40; i++)
		assert_int_equal(m[i].job.rc, i % 10 == 9 ? STORE_NOT_FOUND : STORE_OK);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.inbox WHERE dropped_at IS NOT NULL"), 4);
	assert_int_equal(unread(1), 5);
}

static void
test_pages_newest_first_without_gaps_while_more_arrive(void **state)
{
	struct inbox_list list = { .account_id = 1, .what = INBOX_NEWEST, .limit = 7 };
	struct uuid last;
	int seen = 0, pages = 0;

	(void)state;
	memset(&last, 0xff, sizeof(last));
	/* 60 over three days, each third invisible, some another member's. */
	for (int i = 0; i < 60; i++) {
		int ms = i * 4320 * 1000 % (3 * 86400 * 1000);

		notification(ms, i % 3 == 0 ? 0 : 1, i % 3 == 0 ? "NULL" : "1");
		entry(1, ms, "2");
		if (i % 2 == 0)
			entry(2, ms, "2");
	}
	for (;;) {
		assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
		if (list.rows_n == 0)
			break;
		for (size_t i = 0; i < list.rows_n; i++, seen++) {
			assert_true(memcmp(&list.rows[i].notification_id, &last, sizeof(last)) <
			            0);
			last = list.before = list.rows[i].notification_id;
		}
		inbox_list_clear(&list);
		notification(3 * 86400 * 1000 - 60000 + pages, 1, "1");
		entry(1, 3 * 86400 * 1000 - 60000 + pages++, "2");
	}
	assert_int_equal(seen, 40);
}

/* Lists of several members in one batch: each gets its own. */
static void
test_lists_in_one_batch(void **state)
{
	struct inbox_list list[24];

	(void)state;
	for (int i = 0; i < 6; i++) {
		notification(i, 1, "1");
		entry(1, i, "2");
		if (i < 2)
			entry(2, i, "2");
	}
	for (int i = 0; i < 24; i++) {
		list[i] =
		    (struct inbox_list){ .account_id = 1 + i % 3, .limit = 1 + (unsigned)i };
		list[i].what = i < 12 ? INBOX_NEWEST : INBOX_ONE;
		if (i >= 12)
			list[i].before = id_of(i % 8);
	}
	for (int i = 0; i < 24; i++)
		SUBMIT(store_inbox_list, home, &list[i]);
	waiting_all();
	for (int i = 0; i < 24; i++) {
		static const size_t has[] = { 6, 2, 0 };
		size_t mine = has[i % 3];

		if (i < 12) {
			assert_int_equal(list[i].job.rc, STORE_OK);
			assert_int_equal(list[i].rows_n,
			                 mine < list[i].limit ? mine : list[i].limit);
		} else {
			assert_int_equal(list[i].job.rc,
			                 (size_t)i % 8 < mine ? STORE_OK : STORE_NOT_FOUND);
			if (list[i].rows_n > 0)
				assert_int_equal(list[i].rows[0].date_s, 100 + i % 8);
		}
		inbox_list_clear(&list[i]);
	}
}

static void
test_since_is_by_visibility_oldest_first(void **state)
{
	struct inbox_list list = { .account_id = 1, .what = INBOX_SINCE, .limit = 2 };
	static const int order[] = { 1, 4, 2, 3, 5 };
	int seen = 0;

	(void)state;
	/* Arrived in the order of ids, became visible in another; 2, 3 and 5 in the same
	 * moment. */
	notification(1, 1, "1");
	notification(2, 1, "9");
	notification(3, 1, "9");
	notification(4, 1, "5");
	notification(5, 3, "9");
	for (int i = 1; i <= 5; i++)
		entry(1, i, "0.5");
	notification(6, 1, "20");
	entry(1, 6, "1");
	assert_int_equal(mark(1, 6, INBOX_DROP, NOW), STORE_OK);
	notification(-4 * 86400 * 1000, 1,
	             "-400000"); /* known since long, but now for this member too */
	entry(1, -4 * 86400 * 1000, "30");
	for (;;) {
		assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
		if (list.rows_n == 0)
			break;
		for (size_t i = 0; i < list.rows_n; i++, seen++) {
			if (seen < 5)
				assert_int_equal(list.rows[i].date_s, 100 + order[seen]);
			else
				assert_int_equal(list.rows[i].arrived_us, NOW + 30000000);
			list.since_us = list.rows[i].arrived_us;
		}
		inbox_list_clear(&list);
	}
	assert_int_equal(seen, 6);
	list.since_us = NOW + 5000000;
	list.limit = 1;
	assert_int_equal(RUN(store_inbox_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 3); /* those of one moment come together */
	inbox_list_clear(&list);
}

/* --- Consent ------------------------------------------------------------- */

static uint8_t next_grant;

static struct consent_change
say(enum consent_state what, const char *sender, int64_t now_us)
{
	struct consent_change c = { .account_id = 1,
		                    .sender = slice_str(sender),
		                    .channel = SLICE("orders"),
		                    .sender_domain = SLICE("new.test"),
		                    .registrable = SLICE("new.test"),
		                    .state = what,
		                    .grant_id = { ++next_grant },
		                    .changed_id = uuid_make(),
		                    .sender_id = id_make(),
		                    .domain_id = id_make(),
		                    .now_us = now_us };

	return c;
}

/* 1 changed, 0 not, -1 not found. */
static int
said(enum consent_state what, const char *sender, int64_t now_us)
{
	struct consent_change c = say(what, sender, now_us);
	enum store_rc rc = RUN(store_consent_change, home, &c);

	assert_true(rc == STORE_OK || rc == STORE_NOT_FOUND);
	return rc == STORE_NOT_FOUND ? -1 : c.changed;
}

static const char *
consent_now(void)
{
	return cluster_text("SELECT concat_ws(' ', state, get_byte(grant_id, 0), (SELECT "
	                    "string_agg(get_byte(g.grant_id, 0)::text, ',') "
	                    "FROM tmtp.open_grant g)) FROM tmtp.consent");
}

static void
test_a_yes_that_nobody_asked_for(void **state)
{
	struct consent_change c = say(CONSENT_GRANTED, "who@new.test", NOW);
	char want[32];

	(void)state;
	c.receipts = true;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed);
	(void)snprintf(want, sizeof(want), "1 %d %d", next_grant, next_grant);
	assert_string_equal(consent_now(), want);
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', s.address, s.registrable, d.name, c.channel, "
		"c.receipts, c.grant_date, "
		"o.changed_id = c.changed_id, o.domain_id = d.domain_id) FROM tmtp.consent c "
		"JOIN tmtp.sender s USING (sender_id) JOIN tmtp.domain d USING (domain_id) "
		"JOIN tmtp.grant_outbox o USING (account_id, sender_id, channel)"),
	    "who@new.test new.test new.test orders t 1800000000 t t");
	/* Run again after a lost answer: the same answer, nothing twice. */
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed);
	assert_string_equal(consent_now(), want);
	/* Said again by another request: nothing changes, no new grant. */
	c.changed_id = uuid_make();
	c.grant_id[0] = ++next_grant;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_false(c.changed);
	assert_string_equal(consent_now(), want);
	/* A second later the site may have removed the member: it is told again, the same grant. */
	c.now_us += 1000000;
	c.changed_id = uuid_make();
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed);
	assert_string_equal(consent_now(), want);
	assert_string_equal(cluster_text("SELECT concat_ws(' ', c.grant_date, o.changed_id = "
	                                 "c.changed_id) FROM tmtp.consent c JOIN "
	                                 "tmtp.grant_outbox o USING (account_id, sender_id, "
	                                 "channel)"),
	                    "1800000001 t");
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK); /* a lost answer */
	assert_int_equal(cluster_int("SELECT grant_date FROM tmtp.consent"), 1800000001);
	c.changed_id = uuid_make();
	/* Other receipts: told to the site, with the same grant. */
	c.receipts = false;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed);
	assert_string_equal(consent_now(), want);
}

static void
test_from_each_state_to_each(void **state)
{
	static const struct {
		int from, say, result, after;
	} table[] = {
		{ -1, CONSENT_REFUSED, -1, -1 },
		{ -1, CONSENT_REVOKED, -1, -1 },
		{ CONSENT_ASKED, CONSENT_GRANTED, 1, CONSENT_GRANTED },
		{ CONSENT_ASKED, CONSENT_REFUSED, 1, CONSENT_REFUSED },
		{ CONSENT_ASKED, CONSENT_REVOKED, -1, CONSENT_ASKED },
		{ CONSENT_GRANTED, CONSENT_GRANTED, 0, CONSENT_GRANTED },
		{ CONSENT_GRANTED, CONSENT_REFUSED, 1, CONSENT_REFUSED },
		{ CONSENT_GRANTED, CONSENT_REVOKED, 1, CONSENT_REVOKED },
		{ CONSENT_REFUSED, CONSENT_GRANTED, 1, CONSENT_GRANTED },
		{ CONSENT_REFUSED, CONSENT_REFUSED, 0, CONSENT_REFUSED },
		{ CONSENT_REFUSED, CONSENT_REVOKED, -1, CONSENT_REFUSED },
		{ CONSENT_REVOKED, CONSENT_GRANTED, 1, CONSENT_GRANTED },
		{ CONSENT_REVOKED, CONSENT_REFUSED, 1, CONSENT_REFUSED },
		{ CONSENT_REVOKED, CONSENT_REVOKED, 0, CONSENT_REVOKED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		cluster_sql("DELETE FROM tmtp.consent");
		cluster_sql("DELETE FROM tmtp.open_grant");
		cluster_sql("DELETE FROM tmtp.grant_outbox");
		if (table[i].from >= 0)
			cluster_sql("INSERT INTO tmtp.consent (account_id, sender_id, channel, "
			            "state, grant_id, changed_id, grant_date) "
			            "SELECT 1, 5, 'orders', %d, g, '%s', %lld FROM (SELECT "
			            "CASE WHEN %d IN (1, 3) THEN '\\x0007'::bytea END AS g) x",
			            table[i].from, id_text((int)i), NOW_S + 50, table[i].from);
		if (table[i].from == CONSENT_GRANTED)
			cluster_sql(
			    "INSERT INTO tmtp.open_grant VALUES ('\\x0007', 1, 5, 'orders')");
		assert_int_equal(said((enum consent_state)table[i].say, "shop@shop.test", NOW),
		                 table[i].result);
		assert_int_equal(
		    cluster_int("SELECT coalesce((SELECT state FROM tmtp.consent), -1)"),
		    table[i].after);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.open_grant"),
		                 table[i].after == CONSENT_GRANTED);
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.grant_outbox"),
		                 table[i].result == 1);
		if (table[i].result ==
		    1) /* the clock stood behind the last date: it grows all the same */
			assert_int_equal(cluster_int("SELECT grant_date FROM tmtp.consent"),
			                 NOW_S + 51);
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"), 1);
	assert_int_equal(said(CONSENT_REFUSED, "stranger@new.test", NOW), -1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"),
	                 1); /* a no to nobody leaves nothing */
}

static void
test_a_revoked_grant_never_comes_back(void **state)
{
	char first[32], want[32];

	(void)state;
	assert_int_equal(said(CONSENT_GRANTED, "shop@shop.test", NOW), 1);
	(void)snprintf(first, sizeof(first), "1 %d %d", next_grant, next_grant);
	assert_string_equal(consent_now(), first);
	cluster_sql("UPDATE tmtp.grant_outbox SET attempts = 4, leased_until = now()");
	(void)snprintf(want, sizeof(want), "3 %d",
	               next_grant); /* GRANT names what is revoked */
	assert_int_equal(said(CONSENT_REVOKED, "shop@shop.test", NOW + 5), 1);
	assert_string_equal(consent_now(), want);
	assert_string_equal(cluster_text("SELECT concat_ws(' ', attempts, leased_until IS "
	                                 "NULL, count(*) OVER ()) FROM tmtp.grant_outbox"),
	                    "0 t 1");
	assert_int_equal(said(CONSENT_GRANTED, "shop@shop.test", NOW + 6), 1);
	(void)snprintf(want, sizeof(want), "1 %d %d", next_grant, next_grant);
	assert_string_not_equal(want, first);
	assert_string_equal(consent_now(), want);
}

/* A no begins before a yes is committed, and waits for it: it must close what that yes opened.
 */
static void
test_a_no_that_met_a_yes_closes_its_grant(void **state)
{
	struct consent_change no = say(CONSENT_REFUSED, "shop@shop.test", NOW + 1);
	PGconn *yes;

	(void)state;
	cluster_sql("INSERT INTO tmtp.consent (account_id, sender_id, channel, state, "
	            "changed_id, grant_date) "
	            "VALUES (1, 5, 'orders', 0, '%s', 0)",
	            id_text(1));
	yes = cluster_hold("UPDATE tmtp.consent SET state = 1, grant_id = '\\x09', changed_id "
	                   "= gen_random_uuid(); "
	                   "INSERT INTO tmtp.open_grant VALUES ('\\x09', 1, 5, 'orders')");
	SUBMIT(store_consent_change, home, &no);
	cluster_blocked();
	cluster_release(yes);
	waiting_all();
	assert_int_equal(no.job.rc, STORE_OK);
	assert_true(no.changed);
	assert_string_equal(consent_now(), "2 9");
}

/* Two begin a consent with a sender that nobody knew: the one that comes second finds the
 * first's rows. */
static void
test_two_meet_at_an_unknown_sender(void **state)
{
	struct consent_change c = say(CONSENT_GRANTED, "x@new.test", NOW);
	PGconn *other;

	(void)state;
	other = cluster_hold(
	    "INSERT INTO tmtp.domain VALUES (77, 'new.test', now()); "
	    "INSERT INTO tmtp.sender VALUES (77, 'x@new.test', 77, 'new.test', now())");
	SUBMIT(store_consent_change, home, &c);
	cluster_blocked();
	cluster_release(other);
	waiting_all();
	assert_int_equal(c.job.rc, STORE_OK);
	assert_true(c.changed);
	assert_int_equal(cluster_int("SELECT sender_id FROM tmtp.consent"), 77);
	assert_int_equal(cluster_int("SELECT domain_id FROM tmtp.grant_outbox"), 77);
}

/* Yes and no from two connections, again and again: an open grant is always the consent's own.
 */
static void
test_yes_and_no_at_once_leave_no_grant_behind(void **state)
{
	static struct consent_change c[40];
	struct store *second = cluster_store("tmtp_home", 1);
	static const char *const senders[] = { "r1@race.test", "r2@race.test",
		                               "shop@shop.test" };

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 6; i++) {
			c[i] = say(i % 2 == 0 ? CONSENT_GRANTED : CONSENT_REVOKED,
			           senders[i / 2], NOW + round);
			c[i].sender_domain = SLICE("race.test");
			SUBMIT(store_consent_change, i % 2 == 0 ? home : second, &c[i]);
		}
		waiting_all();
		for (int i = 0; i < 6; i++)
			assert_true(c[i].job.rc == STORE_OK || c[i].job.rc == STORE_NOT_FOUND);
		assert_int_equal(
		    cluster_int(
			"SELECT count(*) FROM tmtp.consent c FULL JOIN tmtp.open_grant g USING "
			"(grant_id) "
			"WHERE (c.state = 1) IS DISTINCT FROM (g.grant_id IS NOT NULL)"),
		    0);
	}
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.sender WHERE address LIKE '%%race.test'"),
	    2);
	store_stop(&second, 1000);
}

static void
test_consents_are_listed_with_the_invitations_words(void **state)
{
	struct consent_list list = { .account_id = 1, .state = -1, .limit = 10 };

	(void)state;
	notification(1, 1, "1");
	notification(2, 0, "NULL");
	cluster_sql("INSERT INTO tmtp.consent (account_id, sender_id, channel, state, "
	            "asked_at, invitation, changed_id, grant_date) "
	            "SELECT 1, 5, 'orders', 0, now(), '%s'::uuid, '%s'::uuid, 0",
	            id_text(1), id_text(1));
	cluster_sql("INSERT INTO tmtp.consent (account_id, sender_id, channel, state, "
	            "asked_at, invitation, changed_id, grant_date) "
	            "SELECT 1, 6, 'orders', 0, now(), '%s'::uuid, '%s'::uuid, 0",
	            id_text(2), id_text(2));
	cluster_sql("INSERT INTO tmtp.consent (account_id, sender_id, channel, state, "
	            "receipts, changed_id, grant_date) "
	            "SELECT a, 5, 'news', 1, true, '%s'::uuid, 7 FROM (VALUES (1), (2)) v(a)",
	            id_text(3));
	assert_int_equal(RUN(store_consent_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 3);
	assert_string_equal(list.rows[0].channel, "news");
	assert_true(list.rows[0].receipts);
	assert_int_equal(list.rows[0].changed_us, NOW + 3000);
	assert_null(list.rows[2].body);
	consent_list_clear(&list);
	list.state = CONSENT_ASKED;
	assert_int_equal(RUN(store_consent_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 2);
	consent_list_clear(&list);
	list.sender = SLICE("shop@shop.test");
	list.channel = SLICE("orders");
	assert_int_equal(RUN(store_consent_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_int_equal(list.rows[0].sender_id, 5);
	assert_memory_equal(list.rows[0].body, "body1", 5);
	consent_list_clear(&list);
	list.sender = SLICE("b@shop.test"); /* not picked up yet */
	assert_int_equal(RUN(store_consent_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_null(list.rows[0].body);
	consent_list_clear(&list);
	list.account_id = 2;
	assert_int_equal(RUN(store_consent_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
	consent_list_clear(&list);
	assert_string_equal(consent_state_name(CONSENT_REVOKED), "revoked");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_a_message_to_one_member_is_seen_by_no_other, empty),
		cmocka_unit_test_setup(test_bodies_are_cut_where_asked, empty),
		cmocka_unit_test_setup(test_only_what_was_verified_is_there, empty),
		cmocka_unit_test_setup(test_marks_read_unread_and_drop, empty),
		cmocka_unit_test_setup(test_marks_in_one_batch, empty),
		cmocka_unit_test_setup(test_pages_newest_first_without_gaps_while_more_arrive,
		                       empty),
		cmocka_unit_test_setup(test_lists_in_one_batch, empty),
		cmocka_unit_test_setup(test_since_is_by_visibility_oldest_first, empty),
		cmocka_unit_test_setup(test_a_yes_that_nobody_asked_for, empty),
		cmocka_unit_test_setup(test_from_each_state_to_each, empty),
		cmocka_unit_test_setup(test_a_revoked_grant_never_comes_back, empty),
		cmocka_unit_test_setup(test_a_no_that_met_a_yes_closes_its_grant, empty),
		cmocka_unit_test_setup(test_two_meet_at_an_unknown_sender, empty),
		cmocka_unit_test_setup(test_yes_and_no_at_once_leave_no_grant_behind, empty),
		cmocka_unit_test_setup(test_consents_are_listed_with_the_invitations_words,
		                       empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
