/* home/live: what reaches whom, in which order, when arrivals, replays and ends meet. */
#include "base/text.h"
#include "home/live.h"
#include "home/view.h"
#include "store/cluster.h"
#include "web/http.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"

#include <sodium.h>

#define BASE_US (INT64_C(1800000000) * 1000000)

static struct home home;
static struct web_server *server;
static struct http_answer answer;

/* --- the room around it --------------------------------------------------------- */

/* GET /events?a=<account>&since=<cursor>&until=<when the log-in ends, in us>&digest=<letter> */
static void
on_events(struct web_request *req, void *arg)
{
	struct live_member member = { .expires_us = INT64_MAX };
	struct view_cursor since;
	struct slice text;
	uint64_t number = 0;

	(void)arg;
	(void)!web_request_query_u64(req, "a", INT64_MAX, &number);
	member.account_id = (int64_t)number;
	if (web_request_query_u64(req, "until", INT64_MAX, &number) == WEB_QUERY_OK)
		member.expires_us = (int64_t)number;
	if (web_request_query(req, "digest", &text))
		memset(member.digest, text.data[0], sizeof(member.digest));
	live_watch(home.live, req, &member,
	           web_request_query(req, "since", &text) && view_cursor_parse(text, &since)
	               ? &since
	               : NULL);
}

static int
setup(void **state)
{
	static const struct web_route routes[] = { { WEB_GET, "/events", on_events, 0, 0 } };
	struct web_options o = {
		.listen = "127.0.0.1:0", .threads = 2, .routes = routes, .n_routes = 1
	};
	char error[WEB_ERROR_TEXT];

	if (cluster_setup(state) != 0 || sodium_init() < 0)
		return -1;
	cluster_sql(
	    "INSERT INTO tmtp.domain VALUES (1, 'shop.test', now());"
	    "INSERT INTO tmtp.sender VALUES (5, 'shop@shop.test', 1, 'shop.test', now());"
	    "SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-16')");
	home.store = cluster_store("tmtp_home", 1);
	home.live = live_new(&home);
	assert_int_equal(web_server_start(&o, &server, error), WEB_OK);
	return home.live == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	web_server_stop(&server, 2000);
	store_stop(&home.store, 2000);
	assert_false(live_any(home.live)); /* every stream has told its end */
	live_free(&home.live);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("DELETE FROM tmtp.inbox; DELETE FROM tmtp.notification");
	return 0;
}

/* --- entries --------------------------------------------------------------------------- */

static struct uuid
id_of(int n)
{
	struct uuid id = uuid_floor(BASE_US);

	id.octets[14] = (uint8_t)(n >> 8);
	id.octets[15] = (uint8_t)n;
	return id;
}

static void
body_of(int n, struct buffer *out)
{
	char text[48];
	struct dmtp_field f = { .name = DMTP_SUBJECT, .type = SLICE("text/plain") };
	struct dmtp_message m = { .from = SLICE("shop@shop.test"),
		                  .to = SLICE("orders.shop@shop.test"),
		                  .date = BASE_US / 1000000 };

	(void)snprintf(text, sizeof(text), "{{v}}n%d", n);
	f.data = slice_str(text);
	buffer_init(out, 1024);
	assert_int_equal(dmtp_message_encode(&m, &f, 1, out), DMTP_MESSAGE_OK);
}

/* Entry n became visible n microseconds after BASE_US; the member's variable v is "V". */
static void
put(int64_t account, int n)
{
	struct uuid id = id_of(n);
	char text[UUID_TEXT], hex[1024];
	struct buffer body;

	body_of(n, &body);
	hex_encode(body.data, body.len, hex);
	uuid_format(&id, text);
	cluster_sql("INSERT INTO tmtp.notification (notification_id, sender_id, channel, "
	            "digest, size, date_s, uris, state,"
	            " verified_at, body) VALUES ('%s', 5, 'orders', '\\x01', 1, 0, '', 1,"
	            " to_timestamp(1800000000) + %d * interval '1 microsecond', '\\x%s') ON "
	            "CONFLICT DO NOTHING;"
	            "INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, "
	            "variables) VALUES (%lld, '%s',"
	            " to_timestamp(1800000000), 'd1:v1:Ve')",
	            text, n, hex, (long long)account, text);
	buffer_free(&body);
}

/* As the loop tells of it. */
static void
arrive(const int64_t *accounts, size_t accounts_n, int n, bool variables)
{
	struct live_entry entry = { .notification_id = id_of(n),
		                    .sender = SLICE("shop@shop.test"),
		                    .channel = SLICE("orders"),
		                    .arrived_us = BASE_US + n,
		                    .differs = variables };
	struct buffer body;

	body_of(n, &body);
	entry.body = buffer_slice(&body);
	live_arrived(home.live, &entry, accounts, accounts_n);
	buffer_free(&body);
}

static void
arrive_at(int64_t account, int n)
{
	arrive(&account, 1, n, false);
}

/* --- watchers ------------------------------------------------------------------------------
 */

/* since -1: none, else the cursor of entry since. */
static struct http_client *
watch(int64_t account, int since, const char *more)
{
	struct http_client *c = http_open(web_server_port(server));
	struct view_cursor cursor = { .changed_us = BASE_US + since, .id = id_of(since) };
	char text[VIEW_CURSOR_TEXT], request[256];

	view_cursor_format(&cursor, text);
	(void)snprintf(
	    request, sizeof(request), "GET /events?a=%lld%s%s%s HTTP/1.1\r\nHost: x\r\n\r\n",
	    (long long)account, since < 0 ? "" : "&since=", since < 0 ? "" : text, more);
	assert_true(http_send(c, request));
	assert_true(http_read_head(c, &answer));
	assert_int_equal(answer.status, 200);
	return c;
}

/* Reads on until the subjects of all entries so far are these, "n1 n2". */
static void
expect(struct http_client *c, const char *subjects)
{
	char seen[4096] = "";
	bool last = false;

	answer.len = 0;
	for (;;) {
		size_t n = 0;

		answer.body[answer.len] = '\0';
		for (const char *at = answer.body; (at = strstr(at, "\"subject\":\"")) != NULL;
		     at++) {
			at += 11;
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "%s%.*s",
			                      n == 0 ? "" : " ", (int)strcspn(at, "\""), at);
		}
		if (strcmp(seen, subjects) == 0)
			return;
		if (strncmp(seen, subjects, strlen(seen)) != 0 || last ||
		    !http_read_chunk(c, &answer, &last)) {
			print_error("got \"%s\", wanted \"%s\"\n", seen, subjects);
			fail();
		}
	}
}

static void
expect_end(struct http_client *c)
{
	bool last = false;

	answer.len = 0;
	while (!last)
		assert_true(http_read_chunk(c, &answer, &last));
	http_close(c);
}

/* Everybody's connection closes; the streams end when the server notices, so the next test asks
 * for other accounts. */
static void
leave(struct http_client *c)
{
	http_close(c);
}

/* --- tests
 * ------------------------------------------------------------------------------------ */

static void
test_each_hears_what_is_hers(void **state)
{
	struct http_client *a = watch(101, -1, ""), *b = watch(102, -1, ""),
			   *b2 = watch(102, -1, "");
	int64_t both[] = { 101, 102, 103 }, accounts[64];
	size_t n;

	(void)state;
	assert_true(live_any(home.live));
	n = live_accounts(home.live, accounts, 64);
	assert_true(n >= 2);
	assert_int_equal(live_accounts(home.live, accounts, 1), 1);
	arrive_at(101, 1);
	arrive(both, 3, 2, false);
	arrive_at(103, 3);
	arrive_at(102, 4);
	expect(a, "n1 n2"); /* without variables: as it stands, and no look into the store */
	expect(b, "n2 n4");
	expect(b2, "n2 n4");
	live_invited(home.live, 101);
	while (strstr(answer.body, "event: invitation\ndata: {}\n\n") == NULL) {
		bool last;

		assert_true(http_read_chunk(a, &answer, &last));
	}
	leave(a);
	leave(b);
	leave(b2);
}

static void
test_members_values_are_read_and_order_is_kept(void **state)
{
	struct http_client *a = watch(201, -1, "");
	int64_t account = 201;

	(void)state;
	for (int n = 1; n <= 4; n++)
		put(201, n);
	arrive_at(201, 1);
	arrive(&account, 1, 2, true);
	arrive_at(201, 3); /* waits for the one before it */
	arrive(&account, 1, 4, true);
	arrive(&account, 1, 5, true); /* dropped meanwhile: nothing to tell */
	arrive_at(201, 6);
	expect(a, "n1 Vn2 n3 Vn4 n6");
	leave(a);
}

static void
test_a_replay_begins_after_the_cursor(void **state)
{
	struct http_client *c;

	(void)state;
	for (int n = 1; n <= 5; n++)
		put(301, n);
	c = watch(301, 0, "");
	expect(c, "Vn1 Vn2 Vn3 Vn4 Vn5");
	leave(c);
	c = watch(301, 3, "");
	expect(c, "Vn4 Vn5");
	arrive_at(301, 6);
	expect(c, "n6");
	leave(c);
	c = watch(301, 5, "");
	arrive_at(301, 7);
	expect(c, "n7");
	leave(c);
}

/* Entries of one microsecond are told apart by their ids; a page of nothing but them doesn't
 * end the replay. */
static void
test_a_replay_over_pages_and_ties(void **state)
{
	struct http_client *c;
	char wanted[4096] = "";
	size_t len = 0;

	(void)state;
	for (int n = 1; n <= 180; n++)
		put(401, n);
	cluster_sql(
	    "UPDATE tmtp.notification SET verified_at = to_timestamp(1800000000) + interval "
	    "'40 microseconds'"
	    " WHERE verified_at BETWEEN to_timestamp(1800000000) + interval '40 microseconds'"
	    "  AND to_timestamp(1800000000) + interval '120 microseconds'");
	for (int n = 39; n <= 180; n++)
		len += (size_t)snprintf(wanted + len, sizeof(wanted) - len, "%sVn%d",
		                        len == 0 ? "" : " ", n);
	c = watch(401, 38, "");
	expect(c, wanted);
	leave(c);
	len = 0;
	for (int n = 121; n <= 180; n++)
		len += (size_t)snprintf(wanted + len, sizeof(wanted) - len, "%sVn%d",
		                        len == 0 ? "" : " ", n);
	c = http_open(web_server_port(server));
	{
		struct view_cursor cursor = { .changed_us = BASE_US + 40, .id = id_of(120) };
		char text[VIEW_CURSOR_TEXT], request[256];

		view_cursor_format(&cursor, text);
		(void)snprintf(request, sizeof(request),
		               "GET /events?a=401&since=%s HTTP/1.1\r\nHost: x\r\n\r\n", text);
		assert_true(http_send(c, request));
		assert_true(http_read_head(c, &answer));
	}
	expect(c, wanted);
	leave(c);
}

/* The store is held until both have happened: what the replay shows isn't told again, and what
 * it doesn't is. */
static void
test_arrivals_during_a_replay(void **state)
{
	struct http_client *c;

	(void)state;
	put(501, 1);
	put(501, 2);
	cluster_sql("BEGIN");
	cluster_sql("LOCK TABLE tmtp.inbox IN ACCESS EXCLUSIVE MODE");
	c = watch(501, 0, "");
	arrive_at(501, 2); /* committed before the replay reads, told after it was asked for */
	arrive_at(501, 3); /* the replay won't see it */
	cluster_sql("COMMIT");
	expect(c, "Vn1 Vn2 n3");
	arrive_at(501, 2); /* told late: after the watcher was level again */
	arrive_at(501, 4);
	expect(c, "n4");
	leave(c);
}

static void
test_too_much_during_a_replay_ends_the_stream(void **state)
{
	struct http_client *c;

	(void)state;
	cluster_sql("BEGIN");
	cluster_sql("LOCK TABLE tmtp.inbox IN ACCESS EXCLUSIVE MODE");
	c = watch(601, 0, "");
	for (int n = 1; n <= 65; n++)
		arrive_at(601, n);
	expect_end(c);
	cluster_sql("COMMIT");
}

/* The database fails: the stream ends, and the client comes back with its last id. */
static void
test_a_replay_that_fails_ends_the_stream(void **state)
{
	struct http_client *c;

	(void)state;
	cluster_sql("ALTER TABLE tmtp.inbox RENAME TO away");
	c = watch(701, 0, "");
	expect_end(c);
	cluster_sql("ALTER TABLE tmtp.away RENAME TO inbox");
}

static void
test_logging_out_ends_only_that_log_in(void **state)
{
	struct live_member member = { .account_id = 801 };
	struct http_client *a = watch(801, -1, "&digest=a"), *b = watch(801, -1, "&digest=b");

	(void)state;
	memset(member.digest, 'a', sizeof(member.digest));
	live_logged_out(home.live, &member);
	expect_end(a);
	arrive_at(801, 1);
	expect(b, "n1");
	leave(b);
}

/* Each event is an occasion to look: a log-in that has expired, or is found gone once others
 * are forgotten. */
static void
test_a_log_in_that_ends_ends_its_streams(void **state)
{
	struct http_client *expired = watch(901, -1, "&until=1"), *gone = watch(902, -1, "");

	(void)state;
	arrive_at(901, 1);
	expect_end(expired);
	live_forget(home.live);
	arrive_at(902, 1);
	expect_end(gone);
}

static void
test_the_newest_streams_of_an_account_stay(void **state)
{
	struct http_client *c[LIVE_PER_ACCOUNT + 2];

	(void)state;
	for (int i = 0; i < LIVE_PER_ACCOUNT + 2; i++)
		c[i] = watch(1001, -1, "");
	expect_end(c[0]);
	expect_end(c[1]);
	arrive_at(1001, 1);
	for (int i = 2; i < LIVE_PER_ACCOUNT + 2; i++) {
		expect(c[i], "n1");
		leave(c[i]);
	}
}

static void
test_all_streams_end_and_later_ones_at_once(void **state)
{
	struct http_client *a = watch(1101, -1, ""), *b = watch(1102, -1, "");

	(void)state;
	live_close_all(home.live);
	expect_end(a);
	expect_end(b);
	expect_end(watch(1103, -1, ""));
	expect_end(watch(1103, 0, ""));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_each_hears_what_is_hers, empty),
		cmocka_unit_test_setup(test_members_values_are_read_and_order_is_kept, empty),
		cmocka_unit_test_setup(test_a_replay_begins_after_the_cursor, empty),
		cmocka_unit_test_setup(test_a_replay_over_pages_and_ties, empty),
		cmocka_unit_test_setup(test_arrivals_during_a_replay, empty),
		cmocka_unit_test_setup(test_too_much_during_a_replay_ends_the_stream, empty),
		cmocka_unit_test_setup(test_a_replay_that_fails_ends_the_stream, empty),
		cmocka_unit_test_setup(test_logging_out_ends_only_that_log_in, empty),
		cmocka_unit_test_setup(test_a_log_in_that_ends_ends_its_streams, empty),
		cmocka_unit_test_setup(test_the_newest_streams_of_an_account_stay, empty),
		cmocka_unit_test_setup(test_all_streams_end_and_later_ones_at_once,
		                       empty), /* the last one */
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
