/* store/messages.h: picking up, and what became of a message and its recipients. */
#include "cluster.h"

#include "store/messages.h"
#include "store/pushes.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S ((long long)(NOW / 1000000))

static struct store *site, *ctl;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site VALUES (1, 'shop.test', 'shop', 't', now()), (2, "
	            "'shop.test', 'other', 't', now())");
	cluster_sql("INSERT INTO tmtp.channel VALUES (1, 1, 'orders', 't', now()), (2, 3, "
	            "'orders', 't', now())");
	/* Ids against the order of names. */
	cluster_sql("INSERT INTO tmtp.domain VALUES (9, 'a.test', now()), (8, 'b.test', "
	            "now()), (7, 'c.test', now())");
	site = cluster_store("tmtp_site", 1);
	ctl = cluster_store("tmtp_ctl", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&site, 1000);
	store_stop(&ctl, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.subscription, tmtp.subscription_past, tmtp.message, "
	            "tmtp.batch, tmtp.failure");
	return 0;
}

/* An id of NOW plus ms. */
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

/* A message of site 1, channel 1, accepted at NOW + ms, of so many octets. */
static void
message(int ms, int audience, int octets, const char *rejected)
{
	cluster_sql("INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, "
	            "lane, accepted_at, date_s, "
	            "size, digest, body, rejected) SELECT 1, '%s', 1, %d, 1, to_timestamp(%f), "
	            "1, length(b), sha256(b), b, %s "
	            "FROM (SELECT convert_to(repeat('x', %d), 'UTF8') AS b) AS body",
	            id_text(ms), audience, (double)(NOW + 1000 * (int64_t)ms) / 1e6, rejected,
	            octets);
}

static struct message_body
body_of(int64_t site_id, int ms, int octets)
{
	struct message_body b = { .site_id = site_id, .message_id = id_of(ms) };
	const char *hex = cluster_text(
	    "SELECT encode(sha256(convert_to(repeat('x', %d), 'UTF8')), 'hex')", octets);
	unsigned v;

	for (int i = 0; i < 32; i++) {
		(void)sscanf(hex + 2 * i, "%2x", &v);
		b.digest[i] = (uint8_t)v;
	}
	return b;
}

/* --- Picking up ---------------------------------------------------------- */

static void
test_a_body_needs_site_id_and_digest(void **state)
{
	struct message_body b;

	(void)state;
	message(0, 0, 1000, "NULL");
	b = body_of(1, 0, 1000);
	assert_int_equal(RUN(store_message_body, site, &b), STORE_OK);
	assert_int_equal(b.size, 1000);
	assert_int_equal(b.body[999], 'x');
	assert_false(b.shared);
	assert_false(b.recalled);
	message_body_clear(&b);
	b = body_of(2, 0, 1000);
	assert_int_equal(RUN(store_message_body, site, &b), STORE_NOT_FOUND);
	b = body_of(1, 1, 1000);
	assert_int_equal(RUN(store_message_body, site, &b), STORE_NOT_FOUND);
	b = body_of(1, 0, 999);
	assert_int_equal(RUN(store_message_body, site, &b), STORE_NOT_FOUND);
	assert_null(b.body);
	b = body_of(1, 99999999, 1000); /* a day without a partition */
	assert_int_equal(RUN(store_message_body, site, &b), STORE_NOT_FOUND);
}

/* Whether it is still to be had, without its octets, whatever its size; mixed with others in a batch. */
static void
test_known_bodies_are_not_read(void **state)
{
	struct message_body b[6];

	(void)state;
	message(0, 0, 1000, "NULL");
	message(1, 0, 300000, "NULL");
	message(2, 0, 1001, "NULL");
	cluster_sql("UPDATE tmtp.message SET recalled_at = now() WHERE message_id = '%s'",
	            id_text(2));
	for (int i = 0; i < 6; i++) {
		static const int sizes[] = { 1000, 300000, 1001 };

		b[i] = body_of(1, i % 3, sizes[i % 3]);
		b[i].known = i < 3;
		SUBMIT(store_message_body, site, &b[i]);
	}
	waiting_all();
	for (int i = 0; i < 6; i++) {
		assert_int_equal(b[i].job.rc, STORE_OK);
		assert_int_equal(b[i].recalled, i % 3 == 2);
		assert_int_equal(b[i].body != NULL, i == 3 || i == 4);
		message_body_clear(&b[i]);
	}
	b[0] = body_of(1, 0, 999);
	b[0].known = true;
	assert_int_equal(RUN(store_message_body, site, &b[0]), STORE_NOT_FOUND);
}

/* Many at once, small, large, absent, recalled: each gets its own. */
static void
test_bodies_in_one_batch(void **state)
{
	static const int sizes[] = { 1, 262144, 262145, 1000000, 5, 7 };
	struct message_body b[24];

	(void)state;
	for (int i = 0; i < 6; i++)
		message(i, i % 3, sizes[i], "NULL");
	cluster_sql("UPDATE tmtp.message SET recalled_at = now() WHERE message_id IN ('%s', "
	            "(SELECT max(message_id::text)::uuid FROM tmtp.message))",
	            id_text(3));
	for (int i = 0; i < 24; i++)
		b[i] = body_of(1, i % 8, sizes[i % 6]);
	for (int i = 0; i < 24; i++)
		SUBMIT(store_message_body, site, &b[i]);
	waiting_all();
	for (int i = 0; i < 24; i++) {
		bool there = i % 8 == i % 6;
		bool recalled = there && (i % 6 == 3 || i % 6 == 5);

		assert_int_equal(b[i].job.rc, there ? STORE_OK : STORE_NOT_FOUND);
		assert_ptr_equal(b[i].job.done, waiting_done);
		if (there) {
			assert_int_equal(b[i].recalled, recalled);
			assert_int_equal(b[i].shared, i % 3 > 0);
			assert_int_equal(b[i].size, recalled ? 0 : sizes[i % 6]);
		}
		message_body_clear(&b[i]);
	}
}

/* --- Recipients ---------------------------------------------------------- */

/* "ann@a.test=waiting ben@a.test=failed:code …" of one page. */
static const char *
page_text(struct message_recipients *page)
{
	static char text[4096];
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < page->rows_n && at < sizeof(text); i++)
		at += (size_t)snprintf(
		    text + at, sizeof(text) - at, "%s%s=%s%s%s", i == 0 ? "" : " ",
		    page->rows[i].address, recipient_state_name(page->rows[i].state),
		    page->rows[i].reason == NULL ? "" : ":",
		    page->rows[i].reason == NULL ? "" : page->rows[i].reason);
	return text;
}

static const char *
recipients(int ms, int state)
{
	struct message_recipients page = {
		.site_id = 1, .message_id = id_of(ms), .state = state, .limit = 100
	};
	const char *text;

	assert_int_equal(RUN(store_message_recipients, site, &page), STORE_OK);
	text = page_text(&page);
	message_recipients_clear(&page);
	return text;
}

static struct message_status
status_of(int ms)
{
	struct message_status s = { .site_id = 1, .message_id = id_of(ms) };

	assert_int_equal(RUN(store_message_status, site, &s), STORE_OK);
	return s;
}

#define assert_counts(s, w, d, f, x)                    \
	do {                                            \
		struct message_status counted = (s);    \
		assert_int_equal(counted.waiting, w);   \
		assert_int_equal(counted.delivered, d); \
		assert_int_equal(counted.failed, f);    \
		assert_int_equal(counted.dead, x);      \
	} while (0)

/* Seconds around NOW at which a member of channel 1 joined and left (NULL: still there). */
static void
subscribe(int domain_id, const char *member, const char *joined, const char *left)
{
	cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, "
	            "state, joined_at, left_at) "
	            "SELECT 1, 1, %d, '%s', CASE WHEN %s::float8 IS NULL THEN 1 ELSE 3 END, "
	            "to_timestamp(%lld + %s), "
	            "to_timestamp(%lld + %s::float8)",
	            domain_id, member, left, NOW_S, joined, NOW_S, left);
}

/* A batch of message 0, channel 1: what follows members, first, next, recipients, done (seconds
 * after NOW). */
static void
batch(int batch_no, int domain_id, int state, const char *what, const char *done)
{
	cluster_sql("INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, "
	            "domain_id, lane, state, members, "
	            "first_member, next_member, recipients, done_at) SELECT 1, '%s', %d, 1, "
	            "%d, 1, %d, %s, "
	            "to_timestamp(%lld + %s::float8)",
	            id_text(0), batch_no, domain_id, state, what, NOW_S, done);
}

static void
failure(int domain_id, const char *member, const char *code)
{
	cluster_sql("INSERT INTO tmtp.failure VALUES (1, '%s', %d, '%s', '%s', NULL, now())",
	            id_text(0), domain_id, member, code);
}

static void
test_a_message_to_one_from_waiting_to_delivered(void **state)
{
	struct message_status s;

	(void)state;
	message(0, 0, 10, "NULL");
	subscribe(9, "ann", "-10", "NULL");
	batch(1, 9, 0, "'{ann}'::text[], NULL, NULL, 1", "NULL");
	s = status_of(0);
	assert_string_equal(s.channel, "orders");
	assert_int_equal(s.audience, PUSH_ONE);
	assert_int_equal(s.lane, LANE_NORMAL);
	assert_int_equal(s.accepted_us, NOW);
	assert_int_equal(s.expires_us, -1);
	assert_int_equal(s.recalled_us, -1);
	assert_counts(s, 1, 0, 0, 0);
	assert_string_equal(recipients(0, -1), "ann@a.test=waiting");
	cluster_sql("UPDATE tmtp.batch SET state = 3");
	assert_string_equal(recipients(0, RECIPIENT_WAITING),
	                    "ann@a.test=waiting"); /* held: it waits */
	assert_counts(status_of(0), 1, 0, 0, 0);
	cluster_sql("UPDATE tmtp.batch SET state = 1, done_at = to_timestamp(%lld + 1)", NOW_S);
	assert_counts(status_of(0), 0, 1, 0, 0);
	assert_string_equal(recipients(0, -1), "ann@a.test=delivered");
	assert_string_equal(recipients(0, RECIPIENT_WAITING), "");
	cluster_sql("UPDATE tmtp.batch SET state = 2, reason = 'expired'");
	assert_counts(status_of(0), 0, 0, 0, 1);
	assert_string_equal(recipients(0, -1), "ann@a.test=dead:expired");
	cluster_sql("UPDATE tmtp.batch SET state = 4, reason = NULL");
	assert_counts(status_of(0), 0, 0, 0, 1);
	assert_string_equal(recipients(0, RECIPIENT_DEAD), "ann@a.test=dead");
}

static void
test_another_sites_message_is_not_found(void **state)
{
	struct message_status s = { .site_id = 2, .message_id = id_of(0) };
	struct message_recipients page = {
		.site_id = 2, .message_id = id_of(0), .state = -1, .limit = 10
	};

	(void)state;
	message(0, 2, 10, "NULL");
	assert_string_equal(recipients(0, -1), ""); /* nobody, but there */
	assert_string_equal(recipients(0, RECIPIENT_FAILED), "");
	assert_int_equal(RUN(store_message_status, site, &s), STORE_NOT_FOUND);
	assert_int_equal(RUN(store_message_recipients, site, &page), STORE_NOT_FOUND);
	page.state = RECIPIENT_FAILED;
	assert_int_equal(RUN(store_message_recipients, ctl, &page), STORE_NOT_FOUND);
	page.site_id = 1;
	page.message_id = id_of(1);
	assert_int_equal(RUN(store_message_recipients, ctl, &page), STORE_NOT_FOUND);
}

static void
test_a_list_with_exceptions_and_rejected_ones(void **state)
{
	(void)state;
	message(0, 1, 10, "'{zoe@a.test,bob@b.test,ann@none.test}'::text[]");
	subscribe(9, "ann", "-10", "NULL");
	subscribe(9, "ben", "-10", "NULL");
	subscribe(9, "cat", "-10", "NULL");
	subscribe(7, "ann", "-10", "NULL");
	batch(1, 9, 1, "'{ann,ben,cat}'::text[], NULL, NULL, 2", "5");
	batch(1000001, 9, 0, "'{cat}'::text[], NULL, NULL, 1", "NULL");
	batch(2, 7, 2, "'{ann}'::text[], NULL, NULL, 1", "6");
	failure(9, "ben", "channel-closed");
	assert_counts(status_of(0), 1, 1, 1, 1);
	assert_int_equal(status_of(0).rejected, 3);
	assert_string_equal(recipients(0, -1),
	                    "ann@a.test=delivered ben@a.test=failed:channel-closed "
	                    "cat@a.test=waiting zoe@a.test=rejected "
	                    "bob@b.test=rejected ann@c.test=dead ann@none.test=rejected");
	assert_string_equal(recipients(0, RECIPIENT_FAILED),
	                    "ben@a.test=failed:channel-closed");
	assert_string_equal(recipients(0, RECIPIENT_REJECTED),
	                    "zoe@a.test=rejected bob@b.test=rejected ann@none.test=rejected");
	assert_string_equal(recipients(0, RECIPIENT_WAITING), "cat@a.test=waiting");
	assert_string_equal(recipients(0, RECIPIENT_DELIVERED), "ann@a.test=delivered");
	assert_string_equal(recipients(0, RECIPIENT_DEAD), "ann@c.test=dead");
}

static void
test_who_was_put_off_counts_once(void **state)
{
	(void)state;
	message(0, 2, 10, "NULL");
	for (int i = 0; i < 6; i++) {
		const char *const names[] = { "a", "b", "c", "d", "e", "f" };

		subscribe(9, names[i], "-10", "NULL");
	}
	/* a, f: K at once. b..e put off; then b K, c refused, d and e put off again; then d
	 * dead with e. */
	batch(1, 9, 1, "NULL, '', NULL, 2", "5");
	batch(1000001, 9, 1, "'{b,c,d,e}'::text[], NULL, NULL, 2", "10");
	batch(2000001, 9, 0, "'{d,e}'::text[], NULL, NULL, 2", "NULL");
	failure(9, "c", "too-large");
	assert_counts(status_of(0), 2, 3, 1, 0);
	assert_string_equal(recipients(0, -1),
	                    "a@a.test=delivered b@a.test=delivered c@a.test=failed:too-large "
	                    "d@a.test=waiting e@a.test=waiting f@a.test=delivered");
	assert_string_equal(recipients(0, RECIPIENT_WAITING),
	                    "d@a.test=waiting e@a.test=waiting");
	cluster_sql("UPDATE tmtp.batch SET state = 2, reason = 'throttled', done_at = "
	            "to_timestamp(%lld + 20) "
	            "WHERE batch_no = 2000001",
	            NOW_S);
	assert_counts(status_of(0), 0, 3, 1, 2);
	assert_string_equal(recipients(0, RECIPIENT_DEAD),
	                    "d@a.test=dead:throttled e@a.test=dead:throttled");
	assert_string_equal(recipients(0, RECIPIENT_DELIVERED),
	                    "a@a.test=delivered b@a.test=delivered f@a.test=delivered");
}

/* Accepted at 0, the batch done at 10: who of these is in the audience? */
static void
test_the_audience_is_who_held_the_channel_and_still_did(void **state)
{
	(void)state;
	message(0, 2, 10, "NULL");
	subscribe(9, "always", "-10", "NULL");
	subscribe(9, "early", "-10", "-5");  /* left before it was accepted */
	subscribe(9, "gone", "-10", "5");    /* left before it went out */
	subscribe(9, "later", "-10", "15");  /* got it and left */
	subscribe(9, "late", "5", "NULL");   /* came after it was accepted */
	subscribe(9, "refused", "-10", "9"); /* the refusal was why she left */
	subscribe(9, "back", "30", "NULL");  /* got it, left, came back */
	subscribe(9, "turned", "5", "NULL"); /* left and came back in between */
	cluster_sql(
	    "INSERT INTO tmtp.subscription_past SELECT 1, 1, 9, m, to_timestamp(%lld - 10), "
	    "to_timestamp(%lld + l), NULL "
	    "FROM (VALUES ('back', 20), ('turned', 3), ('later', 15), ('gone', 5)) AS v(m, l)",
	    NOW_S, NOW_S);
	cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, "
	            "state) VALUES (1, 1, 9, 'asked', 0)");
	failure(9, "refused", "channel-closed");
	batch(1, 9, 1, "NULL, '', NULL, 4", "10");
	assert_string_equal(
	    recipients(0, -1),
	    "always@a.test=delivered back@a.test=delivered later@a.test=delivered "
	    "refused@a.test=failed:channel-closed");
	assert_counts(status_of(0), 0, 3, 1, 0);
	cluster_sql("DELETE FROM tmtp.failure");
	cluster_sql("UPDATE tmtp.batch SET state = 0, done_at = NULL");
	assert_string_equal(recipients(0, -1),
	                    "always@a.test=waiting"); /* it would be sent to these now */
}

/* Named ones are sent to when they hold the channel then, whenever they joined. */
static void
test_a_listed_member_who_left_is_no_recipient(void **state)
{
	(void)state;
	message(0, 1, 10, "NULL");
	subscribe(9, "ann", "-10", "NULL");
	subscribe(9, "gone", "-10", "5");
	subscribe(9, "turned", "5", "NULL");
	cluster_sql("INSERT INTO tmtp.subscription_past SELECT 1, 1, 9, 'turned', "
	            "to_timestamp(%lld - 10), to_timestamp(%lld + 3), NULL",
	            NOW_S, NOW_S);
	batch(1, 9, 1, "'{ann,gone,turned}'::text[], NULL, NULL, 2", "10");
	assert_string_equal(recipients(0, -1), "ann@a.test=delivered turned@a.test=delivered");
	assert_counts(status_of(0), 0, 2, 0, 0);
}

static void
test_an_invitation_has_its_one_recipient(void **state)
{
	(void)state;
	message(0, 3, 10, "NULL");
	batch(1, 9, 0, "'{new}'::text[], NULL, NULL, 1", "NULL");
	assert_string_equal(recipients(0, -1), "new@a.test=waiting");
}

/* A chunk that nobody counted yet says 0: a message that waits for its members must not look as
 * over. */
static void
test_an_uncounted_range_is_counted_while_it_waits(void **state)
{
	(void)state;
	message(0, 2, 10, "NULL");
	subscribe(9, "a", "-10", "NULL");
	subscribe(9, "b", "-10", "NULL");
	subscribe(9, "x", "10", "NULL");
	batch(1, 9, 0, "NULL, '', 'x', 0", "NULL");
	batch(2, 9, 0, "NULL, 'x', NULL, 0", "NULL");
	batch(3, 8, 0, "NULL, '', NULL, 41", "NULL");
	assert_counts(status_of(0), 43, 0, 0, 0);
}

/*
 * 3 domains in 40 ranges, every state among them: pages of any size give all
 * recipients once, in order, while members come and go, and agree with the
 * counts.
 */
static void
test_pages_without_gaps_or_doubles(void **state)
{
	static const unsigned limits[] = { 1, 7, 100, 5000 };
	struct message_status s;

	(void)state;
	message(0, 2, 10, "NULL");
	cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, "
	            "state, joined_at) "
	            "SELECT 1, 1, 7 + i %% 3, 'm' || to_char(i, 'FM0000'), 1, "
	            "to_timestamp(%lld - 10) FROM generate_series(0, 1199) i",
	            NOW_S);
	cluster_sql("INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, "
	            "domain_id, lane, state, first_member, "
	            "next_member, recipients, done_at) SELECT 1, '%s', 1 + d * 20 + k, 1, 7 + "
	            "d, 1, (d + k) %% 5, "
	            "CASE k WHEN 0 THEN '' ELSE 'm' || to_char(k * 60, 'FM0000') END, CASE "
	            "WHEN k < 19 THEN 'm' || to_char(k * 60 + 60, 'FM0000') END, "
	            "20, CASE WHEN (d + k) %% 5 IN (1, 2, 4) THEN to_timestamp(%lld + 5) END "
	            "FROM generate_series(0, 2) d, generate_series(0, 19) k",
	            id_text(0), NOW_S);
	/* Of each done range one is refused and one put off. */
	cluster_sql("INSERT INTO tmtp.failure SELECT 1, message_id, domain_id, (SELECT "
	            "min(member) FROM tmtp.subscription s WHERE "
	            "s.domain_id = b.domain_id AND s.member >= b.first_member), "
	            "'channel-closed', NULL, now() FROM tmtp.batch b WHERE state = 1");
	cluster_sql("INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, "
	            "domain_id, lane, members, recipients) "
	            "SELECT 1, message_id, batch_no + 1000000, 1, domain_id, 1, ARRAY[(SELECT "
	            "max(member) FROM tmtp.subscription s WHERE "
	            "s.domain_id = b.domain_id AND s.member < b.next_member)], 1 FROM "
	            "tmtp.batch b WHERE state = 1 AND next_member IS NOT NULL");
	cluster_sql("UPDATE tmtp.batch b SET recipients = recipients - 1 WHERE state = 1 AND "
	            "next_member IS NOT NULL");
	s = status_of(0);
	assert_int_equal(s.waiting + s.delivered + s.failed + s.dead, 1200);
	for (int wanted = -1; wanted <= RECIPIENT_DEAD; wanted++) {
		const int64_t counts[] = { 1200, s.waiting, s.delivered, s.failed, s.dead };

		for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
			struct message_recipients page = { .site_id = 1,
				                           .message_id = id_of(0),
				                           .state = wanted,
				                           .limit = limits[l] };
			char after[64] = "", last[64] = "", member[64], domain[64], key[140];
			int64_t seen = 0;

			for (;;) {
				page.after = slice_str(after);
				assert_int_equal(RUN(store_message_recipients, site, &page),
				                 STORE_OK);
				if (page.rows_n == 0)
					break;
				assert_true(page.rows_n <= limits[l]);
				for (size_t i = 0; i < page.rows_n; i++) {
					(void)sscanf(page.rows[i].address, "%63[^@]@%63s",
					             member, domain);
					(void)snprintf(key, sizeof(key), "%s %s", domain,
					               member);
					assert_true(strcmp(key, last) > 0);
					(void)snprintf(last, sizeof(last), "%.63s", key);
					if (wanted >= 0)
						assert_int_equal(page.rows[i].state, wanted);
				}
				seen += (int64_t)page.rows_n;
				(void)snprintf(after, sizeof(after), "%s",
				               page.rows[page.rows_n - 1].address);
				message_recipients_clear(&page);
				/* Somebody joins now: she is nobody's recipient of this one. */
				cluster_sql("INSERT INTO tmtp.subscription (site_id, "
				            "channel_id, domain_id, member, state, joined_at) "
				            "VALUES (1, 1, 8, 'm%04lldx', 1, to_timestamp(%lld "
				            "+ 1)) ON CONFLICT DO NOTHING",
				            (long long)seen, NOW_S);
			}
			assert_int_equal(seen, counts[wanted + 1]);
		}
	}
}

static void
test_a_sites_messages_newest_first(void **state)
{
	struct message_list list = { .site_id = 1, .limit = 2 };
	int64_t last = INT64_MAX;
	int seen = 0;

	(void)state;
	for (int i = 0; i < 5; i++)
		message(i * 24 * 3600 * 1000 / 2, i % 3, 10 + i, "NULL"); /* over three days */
	for (;;) {
		assert_int_equal(RUN(store_message_list, site, &list), STORE_OK);
		if (list.rows_n == 0)
			break;
		for (size_t i = 0; i < list.rows_n; i++, seen++) {
			assert_true(list.rows[i].accepted_us < last);
			last = list.rows[i].accepted_us;
			assert_int_equal(list.rows[i].size, 14 - seen);
			assert_string_equal(list.rows[i].channel, "orders");
			list.before = list.rows[i].message_id;
		}
		message_list_clear(&list);
	}
	assert_int_equal(seen, 5);
	list = (struct message_list){ .site_id = 2, .limit = 9 };
	assert_int_equal(RUN(store_message_list, ctl, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_a_body_needs_site_id_and_digest, empty),
		cmocka_unit_test_setup(test_known_bodies_are_not_read, empty),
		cmocka_unit_test_setup(test_bodies_in_one_batch, empty),
		cmocka_unit_test_setup(test_a_message_to_one_from_waiting_to_delivered, empty),
		cmocka_unit_test_setup(test_another_sites_message_is_not_found, empty),
		cmocka_unit_test_setup(test_a_list_with_exceptions_and_rejected_ones, empty),
		cmocka_unit_test_setup(test_who_was_put_off_counts_once, empty),
		cmocka_unit_test_setup(test_the_audience_is_who_held_the_channel_and_still_did,
		                       empty),
		cmocka_unit_test_setup(test_a_listed_member_who_left_is_no_recipient, empty),
		cmocka_unit_test_setup(test_an_invitation_has_its_one_recipient, empty),
		cmocka_unit_test_setup(test_an_uncounted_range_is_counted_while_it_waits,
		                       empty),
		cmocka_unit_test_setup(test_pages_without_gaps_or_doubles, empty),
		cmocka_unit_test_setup(test_a_sites_messages_newest_first, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
