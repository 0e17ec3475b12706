/* dmtp/client: the client's session machine, rule by rule; at the end against the server's. */
#include "dmtp_test.h"

#include "dmtp/client.h"
#include "dmtp/server.h"

#define T0 INT64_C(1000000)
#define GREETING "d4:dmtpi1e3:extl4:AUTHe4:host1:h6:limitsd8:pipelinei10eee"
#define GREETING_TLS "d4:dmtpi1e4:host1:h6:limitsde3:tlsi1ee"
#define CMD "l4:POSTdee" /* the machine does not look inside */

static int tags[2000]; /* their addresses are the tags */

static struct dmtp_client *
client(enum dmtp_client_mode mode)
{
	struct dmtp_client_options o = { .mode = mode };
	struct dmtp_client *c = dmtp_client_new(&o, T0);

	assert_non_null(c);
	return c;
}

static void
feed(struct dmtp_client *c, int64_t now, const char *text)
{
	struct slice in = flush_copy(slice_str(text));

	(void)dmtp_client_feed(c, now, in.data, in.len);
	flush_free(in);
}

static void
expect_output(struct dmtp_client *c, int64_t now, const char *expected)
{
	struct slice out = dmtp_client_output(c);

	assert_slice(out, expected);
	dmtp_client_sent(c, now, out.len);
}

static void
expect_nothing(struct dmtp_client *c)
{
	struct dmtp_client_event e;

	if (dmtp_client_next(c, &e))
		fail_msg("event %d, reason %s", e.kind, dmtp_close_name(e.reason));
}

static struct dmtp_client_event
expect(struct dmtp_client *c, enum dmtp_client_kind kind)
{
	struct dmtp_client_event e;

	assert_true(dmtp_client_next(c, &e));
	if (e.kind != kind)
		fail_msg("event %d instead of %d (%s)", e.kind, kind,
		         dmtp_close_name(e.reason));
	return e;
}

static void
expect_reply(struct dmtp_client *c, int tag, enum dmtp_letter letter)
{
	struct dmtp_client_event e = expect(c, DMTP_CLIENT_REPLY);

	assert_ptr_equal(e.tag, &tags[tag]);
	assert_int_equal(e.response.letter, letter);
}

static void
expect_closed(struct dmtp_client *c, enum dmtp_close reason)
{
	struct dmtp_client_event e = expect(c, DMTP_CLIENT_CLOSED);

	assert_string_equal(dmtp_close_name(e.reason), dmtp_close_name(reason));
	assert_int_equal(dmtp_client_output(c).len, 0);
	assert_int_equal(dmtp_client_deadline(c), -1);
	assert_int_equal(dmtp_client_room(c), 0);
	assert_int_equal(dmtp_client_send(c, T0, DMTP_POST, SLICE(CMD), NULL),
	                 DMTP_CLIENT_CLOSING);
	expect_nothing(c); /* the last event */
	assert_false(dmtp_client_feed(c, T0, (const uint8_t *)"x", 1));
	dmtp_client_tick(c, T0 + 1000000000);
	dmtp_client_eof(c, T0);
	expect_nothing(c);
}

static enum dmtp_client_rc
send_tag(struct dmtp_client *c, int64_t now, int tag)
{
	return dmtp_client_send(c, now, DMTP_POST, SLICE(CMD), &tags[tag]);
}

static void
expect_lost(struct dmtp_client *c, int tag, bool sent)
{
	struct dmtp_client_lost l;

	assert_true(dmtp_client_take_lost(c, &l));
	assert_ptr_equal(l.tag, &tags[tag]);
	assert_int_equal(l.sent, sent);
}

static void
expect_none_lost(struct dmtp_client *c)
{
	struct dmtp_client_lost l;

	assert_false(dmtp_client_take_lost(c, &l));
}

/* A session on TLS whose greeting was read. */
static struct dmtp_client *
greeted(void)
{
	struct dmtp_client *c = client(DMTP_CLIENT_TLS);

	feed(c, T0, GREETING);
	(void)expect(c, DMTP_CLIENT_GREETED);
	return c;
}

/* --- greeting ----------------------------------------------------------------- */

static void
test_on_tls_commands_may_go_before_the_greeting_within_the_floor(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_TLS);
	uint8_t *big = malloc(65537);

	(void)state;
	assert_non_null(big);
	assert_null(dmtp_client_greeting(c));
	assert_int_equal(dmtp_client_limits(c)->rcpts, 100);
	assert_int_equal(dmtp_client_limits(c)->uris, 4);
	assert_int_equal(dmtp_client_room(c), 8);
	memset(big, 'x', 65537);
	assert_int_equal(dmtp_client_send(c, T0, DMTP_POST, slice_mem(big, 65537), NULL),
	                 DMTP_CLIENT_TOO_LONG);
	for (int i = 0; i < 8; i++)
		assert_int_equal(send_tag(c, T0, i), DMTP_CLIENT_OK);
	assert_int_equal(send_tag(c, T0, 8), DMTP_CLIENT_FULL);
	expect_output(c, T0, CMD CMD CMD CMD CMD CMD CMD CMD);
	feed(c, T0, GREETING "l1:Ke");
	(void)expect(c, DMTP_CLIENT_GREETED);
	assert_string_equal(dmtp_client_greeting(c)->host, "h");
	assert_int_equal(dmtp_client_greeting(c)->ext, DMTP_EXT_AUTH);
	assert_int_equal(dmtp_client_limits(c)->rcpts, 1000);
	expect_reply(c, 0, DMTP_K);
	assert_int_equal(dmtp_client_room(c), 3); /* pipeline 10, 7 unanswered */
	assert_int_equal(dmtp_client_send(c, T0, DMTP_POST, slice_mem(big, 65537), NULL),
	                 DMTP_CLIENT_OK);
	free(big);
	dmtp_client_free(&c);
	assert_null(c);
	dmtp_client_free(&c);
}

static void
test_in_plaintext_nothing_goes_before_the_greeting(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_PLAIN);

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_FULL);
	feed(c, T0, GREETING);
	(void)expect(c, DMTP_CLIENT_GREETED);
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	dmtp_client_free(&c);
}

static void
test_z_instead_of_a_greeting(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_TLS);
	struct dmtp_client_event e;

	(void)state;
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD);
	feed(c, T0, "l1:Zd4:code13:shutting-down5:retryi60eee");
	e = expect(c, DMTP_CLIENT_REFUSED);
	assert_int_equal(e.response.retry_s, 60);
	assert_int_equal(e.response.code, DMTP_CODE_SHUTTING_DOWN);
	expect_closed(c, DMTP_CLOSE_REFUSED);
	expect_lost(c, 1, true);
	expect_none_lost(c);
	dmtp_client_free(&c);
}

static void
test_what_is_no_greeting_ends_the_session(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_close reason;
	} table[] = {
		{ "d4:dmtpi2ee", DMTP_CLOSE_VERSION },
		{ "d4:host1:he", DMTP_CLOSE_MALFORMED },
		{ "d4:dmtpi1e4:host1:h6:limitsd5:rcptsi1eee", DMTP_CLOSE_MALFORMED },
		{ "l1:Ke", DMTP_CLOSE_MALFORMED },
		{ "l1:Xe", DMTP_CLOSE_MALFORMED },
		{ "l1:Ie", DMTP_CLOSE_MALFORMED },
		{ "i1e", DMTP_CLOSE_MALFORMED },
		{ "220 mx ESMTP\r\n", DMTP_CLOSE_MALFORMED },
		{ "9999999:", DMTP_CLOSE_TOO_LARGE },
		{ "HTTP/1.1", DMTP_CLOSE_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct dmtp_client *c = client(DMTP_CLIENT_TLS);

		feed(c, T0, table[i].text);
		expect_closed(c, table[i].reason);
		dmtp_client_free(&c);
	}
}

static void
test_greeting_comes_within_30_seconds(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_TLS);

	(void)state;
	assert_int_equal(dmtp_client_deadline(c), T0 + 30000);
	feed(c, T0 + 29000, "d4:dmtp"); /* however it trickles */
	expect_nothing(c);
	dmtp_client_tick(c, T0 + 29999);
	expect_nothing(c);
	dmtp_client_tick(c, T0 + 30000);
	expect_closed(c, DMTP_CLOSE_HANDSHAKE);
	dmtp_client_free(&c);
}

/* --- STARTTLS ------------------------------------------------------------------- */

static void
test_starttls_and_the_earlier_greeting_is_forgotten(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_STARTTLS);

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_FULL);
	feed(c, T0, GREETING_TLS);
	expect_nothing(c);
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_FULL); /* never in plaintext */
	expect_output(c, T0, "l8:STARTTLSe");
	assert_false(dmtp_client_secured(c, T0));
	feed(c, T0, "l1:Ke");
	(void)expect(c, DMTP_CLIENT_HANDSHAKE);
	assert_int_equal(dmtp_client_deadline(c), T0 + 30000);
	assert_true(dmtp_client_secured(c, T0 + 10));
	assert_null(dmtp_client_greeting(c));
	assert_int_equal(dmtp_client_limits(c)->rcpts, 100);
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK); /* early, on TLS */
	feed(c, T0 + 10, GREETING "l1:Ke");
	expect_output(c, T0 + 10, CMD);
	(void)expect(c, DMTP_CLIENT_GREETED);
	expect_reply(c, 0, DMTP_K);
	dmtp_client_free(&c);
}

static void
test_octets_behind_the_k_of_starttls_close(void **state)
{
	struct dmtp_client *c;

	(void)state;
	for (int how = 0; how < 3; how++) {
		c = client(DMTP_CLIENT_STARTTLS);
		feed(c, T0, GREETING_TLS);
		expect_nothing(c);
		expect_output(c, T0, "l8:STARTTLSe");
		feed(c, T0, how == 0 ? "l1:Kel1:Ke" : "l1:Ke");
		if (how == 1)
			feed(c, T0, "l");
		if (how == 2) {
			(void)expect(c, DMTP_CLIENT_HANDSHAKE);
			feed(c, T0, GREETING);
			assert_false(dmtp_client_secured(c, T0));
		}
		expect_closed(c, DMTP_CLOSE_INJECTED);
		expect_none_lost(c);
		dmtp_client_free(&c);
	}
}

static void
test_never_without_tls_when_it_is_needed(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_STARTTLS);

	(void)state;
	feed(c, T0, GREETING); /* does not offer it */
	expect_closed(c, DMTP_CLOSE_NO_TLS);
	dmtp_client_free(&c);
	c = client(DMTP_CLIENT_STARTTLS);
	feed(c, T0, GREETING_TLS);
	expect_nothing(c);
	expect_output(c, T0, "l8:STARTTLSe");
	feed(c, T0, "l1:Ed4:code7:not-nowee");
	expect_closed(c, DMTP_CLOSE_NO_TLS);
	dmtp_client_free(&c);
}

static void
test_handshake_takes_at_most_30_seconds(void **state)
{
	struct dmtp_client *c = client(DMTP_CLIENT_STARTTLS);

	(void)state;
	feed(c, T0, GREETING_TLS);
	expect_nothing(c);
	expect_output(c, T0, "l8:STARTTLSe");
	feed(c, T0 + 1000, "l1:Ke");
	(void)expect(c, DMTP_CLIENT_HANDSHAKE);
	dmtp_client_tick(c, T0 + 30999);
	expect_nothing(c);
	dmtp_client_tick(c, T0 + 31000);
	expect_closed(c, DMTP_CLOSE_HANDSHAKE);
	dmtp_client_free(&c);
	c = client(DMTP_CLIENT_STARTTLS); /* or the stream ends */
	feed(c, T0, GREETING_TLS);
	expect_nothing(c);
	expect_output(c, T0, "l8:STARTTLSe");
	feed(c, T0, "l1:Ke");
	(void)expect(c, DMTP_CLIENT_HANDSHAKE);
	dmtp_client_eof(c, T0);
	expect_closed(c, DMTP_CLOSE_EOF);
	dmtp_client_free(&c);
}

/* --- commands and replies ------------------------------------------------------- */

static void
test_replies_belong_to_commands_in_order(void **state)
{
	struct dmtp_client *c = greeted();
	struct dmtp_client_event e;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(send_tag(c, T0, i), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD CMD CMD CMD);
	feed(c, T0,
	     "l1:Kel1:Id4:code9:throttled5:retryi9eeel1:Ed4:code5:limiteel1:Zd5:retryi7eee");
	expect_reply(c, 0, DMTP_K);
	e = expect(c, DMTP_CLIENT_INFO); /* belongs to none */
	assert_int_equal(e.response.retry_s, 9);
	e = expect(c, DMTP_CLIENT_REPLY);
	assert_ptr_equal(e.tag, &tags[1]);
	assert_int_equal(e.response.code, DMTP_CODE_LIMIT);
	assert_int_equal(e.verb, DMTP_POST);
	expect_reply(c, 2, DMTP_Z);
	expect_nothing(c);
	assert_int_equal(dmtp_client_unanswered(c), 1);
	dmtp_client_free(&c);
}

static void
test_replies_octet_by_octet(void **state)
{
	struct dmtp_client *c = greeted();
	const char *text = "l1:Kd6:failedlli0e1:E14:channel-closedeeee"
			   "l1:Id4:text1:xeel1:Ke";
	int events = 0;

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD CMD);
	for (size_t i = 0; i < strlen(text); i++) {
		struct slice one = flush_copy(slice_mem(text + i, 1));
		struct dmtp_client_event e;

		assert_true(dmtp_client_feed(c, T0, one.data, 1));
		flush_free(one);
		if (!dmtp_client_next(c, &e))
			continue;
		assert_int_equal(e.kind, events == 1 ? DMTP_CLIENT_INFO : DMTP_CLIENT_REPLY);
		assert_int_equal(e.response.failed_count, events == 0 ? 1 : 0);
		events++;
	}
	assert_int_equal(events, 3);
	dmtp_client_free(&c);
}

static void
test_reply_to_no_command_ends_the_session(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	feed(c, T0, "l1:Ke");
	expect_closed(c, DMTP_CLOSE_UNASKED);
	dmtp_client_free(&c);
	c = greeted(); /* nor to one of which no octet has left */
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	feed(c, T0, "l1:Ke");
	expect_closed(c, DMTP_CLOSE_UNASKED);
	expect_lost(c, 0, false);
	dmtp_client_free(&c);
	c = greeted(); /* but E too-large may come while it is being sent */
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	dmtp_client_sent(c, T0, 1);
	feed(c, T0, "l1:Ed4:code9:too-largeeel1:Xe");
	expect_reply(c, 0, DMTP_E);
	(void)expect(c, DMTP_CLIENT_NO_MORE);
	dmtp_client_free(&c);
}

static void
test_what_is_no_response_ends_the_session(void **state)
{
	static const char *const table[] = { "d4:dmtpi1e4:host1:he", "l1:ke", "i1e", "x",
		                             "l1:Kd6:failedi1eee" };

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct dmtp_client *c = greeted();

		feed(c, T0, table[i]);
		expect_closed(c, DMTP_CLOSE_MALFORMED);
		dmtp_client_free(&c);
	}
	{
		struct dmtp_client *c = greeted(); /* a response is at most 1 MiB */

		feed(c, T0, "l1:Kd1:x1048576:");
		expect_closed(c, DMTP_CLOSE_TOO_LARGE);
		dmtp_client_free(&c);
	}
}

static void
test_window_is_the_smaller_of_ours_and_the_peers(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(dmtp_client_room(c), 10);
	dmtp_client_set_window(c, 2); /* halved after lost sessions */
	assert_int_equal(dmtp_client_room(c), 2);
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_OK);
	assert_int_equal(send_tag(c, T0, 2), DMTP_CLIENT_FULL);
	dmtp_client_set_window(c, 1);
	assert_int_equal(dmtp_client_room(c), 0);
	dmtp_client_set_window(c, 100);
	assert_int_equal(dmtp_client_room(c), 8);
	dmtp_client_set_window(c, 0);
	assert_int_equal(dmtp_client_room(c), 8);
	dmtp_client_free(&c);
	c = client(DMTP_CLIENT_TLS); /* a peer that allows everything */
	feed(c, T0, "d4:dmtpi1e4:host1:h6:limitsd8:pipelinei4000000000eee");
	(void)expect(c, DMTP_CLIENT_GREETED);
	assert_int_equal(dmtp_client_room(c), 1024);
	dmtp_client_free(&c);
}

static void
test_output_that_waits_fills_the_window(void **state)
{
	struct dmtp_client *c = greeted();
	uint8_t *big = malloc(262145);
	int n = 0;

	(void)state;
	assert_non_null(big);
	memset(big, 'x', 262145);
	assert_int_equal(dmtp_client_send(c, T0, DMTP_POST, slice_mem(big, 262145), NULL),
	                 DMTP_CLIENT_TOO_LONG);
	while (dmtp_client_send(c, T0, DMTP_POST, slice_mem(big, 262144), &tags[n]) ==
	       DMTP_CLIENT_OK)
		n++;
	assert_int_equal(n, 4); /* a mebibyte */
	dmtp_client_sent(c, T0, 1);
	assert_int_equal(dmtp_client_room(c), 6);
	free(big);
	dmtp_client_free(&c);
}

static void
test_k_of_auth_brings_limits(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(dmtp_client_send(c, T0, DMTP_AUTH, SLICE("l4:AUTHdee"), &tags[0]),
	                 DMTP_CLIENT_OK);
	expect_output(c, T0, "l4:AUTHdee");
	feed(c, T0, "l1:Kd6:limitsd5:rcptsi5000eeee");
	expect_reply(c, 0, DMTP_K);
	assert_int_equal(dmtp_client_limits(c)->rcpts, 5000);
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_OK);
	dmtp_client_sent(c, T0, strlen(CMD));
	feed(c, T0, "l1:Kd6:limitsd5:rcptsi9000eeee"); /* only AUTH's */
	expect_reply(c, 1, DMTP_K);
	assert_int_equal(dmtp_client_limits(c)->rcpts, 5000);
	dmtp_client_free(&c);
}

/* --- ends ------------------------------------------------------------------------- */

static void
test_lost_session_hands_back_what_was_unanswered(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(send_tag(c, T0, i), DMTP_CLIENT_OK);
	dmtp_client_sent(c, T0, 2 * strlen(CMD) + 1); /* two, and an octet of the third */
	feed(c, T0,
	     "l1:Ke"
	     "l1:K");
	dmtp_client_eof(c, T0);
	expect_reply(c, 0, DMTP_K); /* what came before the end counts */
	expect_closed(c, DMTP_CLOSE_EOF);
	expect_lost(c, 1, true);
	expect_lost(c, 2, true);
	expect_lost(c, 3, false);
	expect_none_lost(c);
	dmtp_client_free(&c);
}

static void
test_after_x_nothing_is_sent_but_quit(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD);
	feed(c, T0, "l1:Xd4:code13:shutting-downee");
	assert_int_equal(expect(c, DMTP_CLIENT_NO_MORE).response.code, DMTP_CODE_SHUTTING_DOWN);
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_CLOSING);
	assert_int_equal(dmtp_client_deadline(c), T0 + 10000);
	feed(c, T0 + 100, "l1:Ke");
	expect_reply(c, 0, DMTP_K);
	expect_output(c, T0 + 100, "l4:QUITe");
	feed(c, T0 + 200, "l1:Ke");
	expect_closed(c, DMTP_CLOSE_DRAINED);
	expect_none_lost(c);
	dmtp_client_free(&c);
}

static void
test_x_waits_ten_seconds_for_answers(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD);
	feed(c, T0, "l1:Xe");
	(void)expect(c, DMTP_CLIENT_NO_MORE);
	dmtp_client_tick(c, T0 + 10000);
	expect_closed(c, DMTP_CLOSE_DRAINED);
	expect_lost(c, 0, true);
	dmtp_client_free(&c);
	c = greeted(); /* with nothing outstanding: QUIT at once; the peer may simply close */
	feed(c, T0, "l1:Xe");
	(void)expect(c, DMTP_CLIENT_NO_MORE);
	expect_output(c, T0, "l4:QUITe");
	dmtp_client_eof(c, T0);
	expect_closed(c, DMTP_CLOSE_DRAINED);
	expect_none_lost(c);
	dmtp_client_free(&c);
}

static void
test_quit_waits_for_the_last_reply(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	expect_output(c, T0, CMD);
	dmtp_client_quit(c, T0);
	assert_int_equal(send_tag(c, T0, 1), DMTP_CLIENT_CLOSING);
	assert_int_equal(dmtp_client_output(c).len, 0);
	feed(c, T0, "l1:Ke");
	expect_reply(c, 0, DMTP_K);
	expect_output(c, T0, "l4:QUITe");
	feed(c, T0, "l1:Ke");
	expect_closed(c, DMTP_CLOSE_QUIT);
	dmtp_client_free(&c);
	c = greeted(); /* no K within ten seconds: as good */
	dmtp_client_quit(c, T0);
	expect_output(c, T0, "l4:QUITe");
	dmtp_client_tick(c, T0 + 10000);
	expect_closed(c, DMTP_CLOSE_QUIT);
	dmtp_client_free(&c);
	c = greeted(); /* the end of the stream instead of K */
	dmtp_client_quit(c, T0);
	expect_output(c, T0, "l4:QUITe");
	dmtp_client_eof(c, T0);
	expect_closed(c, DMTP_CLOSE_QUIT);
	dmtp_client_free(&c);
	c = client(DMTP_CLIENT_TLS); /* nobody has greeted */
	dmtp_client_quit(c, T0);
	expect_closed(c, DMTP_CLOSE_QUIT);
	dmtp_client_free(&c);
}

/* --- time --------------------------------------------------------------------------- */

static void
test_keep_alive_says_noop_as_often_as_allowed_then_quit(void **state)
{
	struct dmtp_client_options o = { .mode = DMTP_CLIENT_TLS, .keep_alive = true };
	struct dmtp_client *c = dmtp_client_new(&o, T0);
	int64_t now = T0;

	(void)state;
	feed(c, T0, "d4:dmtpi1e4:host1:h6:limitsd5:noopsi2eee");
	(void)expect(c, DMTP_CLIENT_GREETED);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(dmtp_client_deadline(c), now + 150000);
		dmtp_client_tick(c, now + 149999);
		assert_int_equal(dmtp_client_output(c).len, 0);
		now += 150000;
		dmtp_client_tick(c, now);
		if (i == 2) /* a command in between: they are not in a row any more */
			break;
		expect_output(c, now, i < 2 ? "l4:NOOPe" : "l4:QUITe");
		feed(c, now, "l1:Ke");
		expect_nothing(c);
		if (i == 1) {
			assert_int_equal(send_tag(c, now, 0), DMTP_CLIENT_OK);
			expect_output(c, now, CMD);
			feed(c, now, "l1:Ke");
			expect_reply(c, 0, DMTP_K);
		}
	}
	expect_output(c, now, "l4:NOOPe");
	feed(c, now, "l1:Ke");
	expect_nothing(c);
	now += 150000;
	dmtp_client_tick(c, now);
	expect_output(c, now, "l4:NOOPe");
	feed(c, now, "l1:Ke");
	expect_nothing(c);
	now += 150000;
	dmtp_client_tick(c, now);
	expect_output(c, now, "l4:QUITe");
	feed(c, now, "l1:Ke");
	expect_closed(c, DMTP_CLOSE_QUIT);
	dmtp_client_free(&c);
}

static void
test_noop_refused_means_go(void **state)
{
	struct dmtp_client_options o = { .mode = DMTP_CLIENT_TLS, .keep_alive = true };
	struct dmtp_client *c = dmtp_client_new(&o, T0);

	(void)state;
	feed(c, T0, GREETING);
	(void)expect(c, DMTP_CLIENT_GREETED);
	dmtp_client_tick(c, T0 + 150000);
	expect_output(c, T0 + 150000, "l4:NOOPe");
	feed(c, T0 + 150000, "l1:Ed4:code5:limitee");
	expect_nothing(c);
	expect_output(c, T0 + 150000, "l4:QUITe");
	dmtp_client_free(&c);
}

static void
test_without_keep_alive_an_idle_session_just_waits(void **state)
{
	struct dmtp_client *c = greeted();

	(void)state;
	assert_int_equal(dmtp_client_deadline(c), -1);
	dmtp_client_tick(c, T0 + 1000000);
	expect_nothing(c);
	assert_int_equal(dmtp_client_output(c).len, 0);
	dmtp_client_free(&c);
}

static void
test_reply_that_does_not_come(void **state)
{
	struct dmtp_client_options o = { .mode = DMTP_CLIENT_TLS, .reply_timeout_ms = 60000 };
	struct dmtp_client *c = dmtp_client_new(&o, T0);

	(void)state;
	feed(c, T0, GREETING);
	(void)expect(c, DMTP_CLIENT_GREETED);
	assert_int_equal(send_tag(c, T0 + 100000, 0), DMTP_CLIENT_OK);
	expect_output(c, T0 + 100000, CMD);
	assert_int_equal(dmtp_client_deadline(c), T0 + 160000);
	feed(c, T0 + 150000, "l1:Ie"); /* a sign of life */
	(void)expect(c, DMTP_CLIENT_INFO);
	dmtp_client_tick(c, T0 + 209999);
	expect_nothing(c);
	dmtp_client_tick(c, T0 + 210000);
	expect_closed(c, DMTP_CLOSE_NO_REPLY);
	expect_lost(c, 0, true);
	dmtp_client_free(&c);
}

static void
test_peer_that_takes_nothing(void **state)
{
	struct dmtp_client_options o = { .mode = DMTP_CLIENT_TLS,
		                         .reply_timeout_ms = 10000000 };
	struct dmtp_client *c = dmtp_client_new(&o, T0);

	(void)state;
	feed(c, T0, GREETING);
	(void)expect(c, DMTP_CLIENT_GREETED);
	assert_int_equal(send_tag(c, T0, 0), DMTP_CLIENT_OK);
	dmtp_client_sent(c, T0 + 1000, 1);
	assert_int_equal(dmtp_client_deadline(c), T0 + 301000);
	dmtp_client_tick(c, T0 + 301000);
	expect_closed(c, DMTP_CLOSE_STALLED);
	expect_lost(c, 0, true);
	dmtp_client_free(&c);
}

/* --- both machines ------------------------------------------------------------------- */

static void
pump(struct dmtp_client *c, struct dmtp_server *s, size_t chunk)
{
	struct slice out;
	size_t n;

	out = dmtp_client_output(c);
	n = out.len < chunk ? out.len : chunk;
	if (n > 0) {
		n = dmtp_server_feed(s, T0, out.data, n);
		dmtp_client_sent(c, T0, n);
	}
	out = dmtp_server_output(s);
	n = out.len < chunk ? out.len : chunk;
	if (n > 0) {
		(void)dmtp_client_feed(c, T0, out.data, n);
		dmtp_server_sent(s, T0, n);
	}
}

/* Two thousand commands through chunks of every kind; the server answers some late. */
static void
test_client_and_server_understand_each_other(void **state)
{
	static const size_t chunks[] = { 1, 7, 100, 4096, 1 << 20 };
	struct dmtp_server_options so = { .secured = true,
		                          .greeting = { .version = 1,
		                                        .host = "h",
		                                        .ext = DMTP_EXT_ALL,
		                                        .limits = DMTP_LIMITS_DEFAULT } };

	(void)state;
	for (size_t k = 0; k < COUNT(chunks); k++) {
		struct dmtp_server *s = dmtp_server_new(&so, T0);
		struct dmtp_client *c = client(DMTP_CLIENT_TLS);
		int sent = 0, answered = 0, total = k == 0 ? 100 : 2000;
		bool server_closed = false, client_closed = false;
		uint64_t late = 0;
		bool has_late = false;

		for (long turn = 0; turn < 1000000 && !(server_closed && client_closed);
		     turn++) {
			struct dmtp_server_event se;
			struct dmtp_client_event ce;

			while (sent < total &&
			       dmtp_client_send(c, T0, DMTP_CHANNELS,
			                        SLICE("l8:CHANNELSd4:from3:a@b5:usersleee"),
			                        &tags[sent]) == DMTP_CLIENT_OK)
				sent++;
			pump(c, s, chunks[k]);
			while (dmtp_server_next(s, &se)) {
				if (se.kind == DMTP_SERVER_CLOSE) {
					assert_int_equal(se.reason, DMTP_CLOSE_QUIT);
					server_closed = true;
					continue;
				}
				assert_int_equal(se.kind, DMTP_SERVER_COMMAND);
				if (has_late)
					assert_true(
					    dmtp_server_reply(s, T0, late, &DMTP_RESPONSE_K));
				has_late = se.seq % 3 == 0;
				late = se.seq;
				if (!has_late)
					assert_true(
					    dmtp_server_reply(s, T0, se.seq, &DMTP_RESPONSE_K));
			}
			if (has_late && dmtp_client_output(c).len == 0) {
				assert_true(dmtp_server_reply(s, T0, late, &DMTP_RESPONSE_K));
				has_late = false;
			}
			while (dmtp_client_next(c, &ce)) {
				if (ce.kind == DMTP_CLIENT_REPLY)
					assert_ptr_equal(ce.tag, &tags[answered++]);
				client_closed = client_closed || ce.kind == DMTP_CLIENT_CLOSED;
			}
			if (answered == total)
				dmtp_client_quit(c, T0);
		}
		assert_int_equal(answered, total);
		assert_true(server_closed && client_closed);
		expect_none_lost(c);
		dmtp_server_free(&s);
		dmtp_client_free(&c);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    test_on_tls_commands_may_go_before_the_greeting_within_the_floor),
		cmocka_unit_test(test_in_plaintext_nothing_goes_before_the_greeting),
		cmocka_unit_test(test_z_instead_of_a_greeting),
		cmocka_unit_test(test_what_is_no_greeting_ends_the_session),
		cmocka_unit_test(test_greeting_comes_within_30_seconds),
		cmocka_unit_test(test_starttls_and_the_earlier_greeting_is_forgotten),
		cmocka_unit_test(test_octets_behind_the_k_of_starttls_close),
		cmocka_unit_test(test_never_without_tls_when_it_is_needed),
		cmocka_unit_test(test_handshake_takes_at_most_30_seconds),
		cmocka_unit_test(test_replies_belong_to_commands_in_order),
		cmocka_unit_test(test_replies_octet_by_octet),
		cmocka_unit_test(test_reply_to_no_command_ends_the_session),
		cmocka_unit_test(test_what_is_no_response_ends_the_session),
		cmocka_unit_test(test_window_is_the_smaller_of_ours_and_the_peers),
		cmocka_unit_test(test_output_that_waits_fills_the_window),
		cmocka_unit_test(test_k_of_auth_brings_limits),
		cmocka_unit_test(test_lost_session_hands_back_what_was_unanswered),
		cmocka_unit_test(test_after_x_nothing_is_sent_but_quit),
		cmocka_unit_test(test_x_waits_ten_seconds_for_answers),
		cmocka_unit_test(test_quit_waits_for_the_last_reply),
		cmocka_unit_test(test_keep_alive_says_noop_as_often_as_allowed_then_quit),
		cmocka_unit_test(test_noop_refused_means_go),
		cmocka_unit_test(test_without_keep_alive_an_idle_session_just_waits),
		cmocka_unit_test(test_reply_that_does_not_come),
		cmocka_unit_test(test_peer_that_takes_nothing),
		cmocka_unit_test(test_client_and_server_understand_each_other),
	};

	return RUN(tests);
}
