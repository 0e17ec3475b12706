/* dmtp/server: the server's session machine, rule by rule. */
#include "dmtp_test.h"

#include "dmtp/server.h"

#define T0 INT64_C(1000000)
#define IDLE_MS 300000
#define POST1                                                                              \
	"l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D "4:from14:shop@a.example2:id2:n1" \
	"5:rcptsl20:" GRANT_A "e4:sizei100e4:urisl1:ueee"
#define MALFORMED \
	"l1:Ed4:code9:malformed4:text64:This is no well-formed command, or a value in it is not allowed.ee"
#define UNKNOWN "l1:Ed4:code15:unknown-command4:text31:This command is not known here.ee"
#define LIMIT "l1:Ed4:code5:limit4:text36:This is more than a session may ask.ee"
#define TLS_REQUIRED "l1:Ed4:code12:tls-required4:text16:Start TLS first.ee"
#define UNVERIFIED \
	"l1:Ed4:code17:unverified-sender4:text57:The domain of the sender is not verified in this session.ee"
/* A refusal of the machine's own: which value is wrong, or which rule. */
#define NOT_BENCODE "l1:Ed4:code9:malformed4:text21:No canonical bencode.ee"
#define CHANNEL_WRONG \
	"l1:Ed4:code9:malformed4:text41:\"channel\" is missing, or not of its type.ee"
#define TOO_MANY_NOOPS \
	"l1:Ed4:code5:limit4:text53:More in a row than the greeting's limit noops allows.ee"
#define TOO_LONG \
	"l1:Ed4:code9:too-large4:text48:Longer than the greeting's limit command allows.ee"
#define TLS_IS_ON "l1:Ed4:code7:not-now4:text18:TLS is on already.ee"
#define NO_TLS "l1:Ed4:code7:not-now4:text30:The greeting didn't offer TLS.ee"
#define REPLY_TO_COME \
	"l1:Ed4:code7:not-now4:text46:A reply is still to come, or the session ends.ee"
#define TOO_MANY_AUTHS \
	"l1:Ed4:code17:unverified-sender4:text39:Too many of this session failed before.ee"
#define AUTH1 "l4:AUTHd6:domain9:a.example3:key2:k19:signature64:" SIGNATURE_S "ee"

static struct dmtp_greeting
greeting(void)
{
	return (struct dmtp_greeting){ .version = 1,
		                       .host = "mx.b.example",
		                       .ext = DMTP_EXT_ALL,
		                       .limits = DMTP_LIMITS_DEFAULT };
}

/* Takes all output as sent; it must be this. */
static void
expect_output(struct dmtp_server *s, int64_t now, const char *expected)
{
	struct slice out = dmtp_server_output(s);

	assert_slice(out, expected);
	dmtp_server_sent(s, now, out.len);
}

static void
drop_output(struct dmtp_server *s, int64_t now)
{
	dmtp_server_sent(s, now, dmtp_server_output(s).len);
}

/* A session whose greeting was taken. */
static struct dmtp_server *
session(bool secured, bool tls_offered)
{
	struct dmtp_server_options o = { .greeting = greeting(), .secured = secured };
	struct dmtp_server *s;

	o.greeting.tls = tls_offered;
	s = dmtp_server_new(&o, T0);
	assert_non_null(s);
	assert_true(dmtp_server_output(s).len > 0);
	drop_output(s, T0);
	assert_int_equal(dmtp_server_is_secured(s), secured);
	return s;
}

static void
feed(struct dmtp_server *s, int64_t now, const char *text)
{
	struct slice in = flush_copy(slice_str(text));

	assert_int_equal(dmtp_server_feed(s, now, in.data, in.len), in.len);
	flush_free(in);
}

static void
expect_nothing(struct dmtp_server *s)
{
	struct dmtp_server_event e;

	if (dmtp_server_next(s, &e))
		fail_msg("event %d, reason %s", e.kind, dmtp_close_name(e.reason));
}

static uint64_t
expect_command(struct dmtp_server *s, enum dmtp_verb verb)
{
	struct dmtp_server_event e;

	assert_true(dmtp_server_next(s, &e));
	assert_int_equal(e.kind, DMTP_SERVER_COMMAND);
	assert_int_equal(e.command.verb, verb);
	return e.seq;
}

static void
expect_close(struct dmtp_server *s, enum dmtp_close reason)
{
	struct dmtp_server_event e;

	assert_true(dmtp_server_next(s, &e));
	assert_int_equal(e.kind, DMTP_SERVER_CLOSE);
	assert_string_equal(dmtp_close_name(e.reason), dmtp_close_name(reason));
	assert_int_equal(dmtp_server_output(s).len, 0);
	assert_int_equal(dmtp_server_deadline(s), -1);
	expect_nothing(s); /* the last event */
	assert_int_equal(dmtp_server_feed(s, T0, (const uint8_t *)"x", 1),
	                 1); /* and nothing hurts any more */
	dmtp_server_eof(s, T0);
	dmtp_server_tick(s, T0 + 1000000000);
	dmtp_server_drain(s, T0, NULL);
	expect_nothing(s);
}

static void
reply_k(struct dmtp_server *s, int64_t now, uint64_t seq)
{
	assert_true(dmtp_server_reply(s, now, seq, &DMTP_RESPONSE_K));
}

static void
reply_e(struct dmtp_server *s, int64_t now, uint64_t seq, enum dmtp_code code)
{
	struct dmtp_response r = dmtp_response_make(DMTP_E, code, 0);

	assert_true(dmtp_server_reply(s, now, seq, &r));
}

/* --- greeting ----------------------------------------------------------------- */

static void
test_greeting_comes_first(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting() };
	struct dmtp_server *s;

	(void)state;
	o.greeting.tls = true;
	s = dmtp_server_new(&o, T0);
	expect_output(
	    s, T0,
	    "d4:dmtpi1e3:extl4:AUTH5:GRANT7:RECEIPT8:PRESENCEe4:host12:mx.b.example6:limitsd7:commandi262144e"
	    "4:idlei300e7:messagei26214400e5:noopsi10e8:pipelinei64e5:rcptsi1000e4:urisi8ee3:tlsi1ee");
	dmtp_server_free(&s);
	assert_null(s);
	dmtp_server_free(&s);
}

static void
test_greeting_within_tls_offers_no_starttls(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting(), .secured = true };
	struct dmtp_greeting said;
	struct dmtp_server *s;

	(void)state;
	o.greeting.tls = true;
	s = dmtp_server_new(&o, T0);
	assert_true(dmtp_greeting_decode(dmtp_server_output(s), &said));
	assert_false(said.tls);
	dmtp_server_free(&s);
}

static void
test_greeting_below_the_floor_is_not_sent(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting() };

	(void)state;
	o.greeting.limits.pipeline = 7;
	assert_null(dmtp_server_new(&o, T0));
	o.greeting = greeting();
	o.greeting.version = 2;
	assert_null(dmtp_server_new(&o, T0));
}

static void
test_refused_session_gets_z_instead_of_a_greeting(void **state)
{
	struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_SHUTTING_DOWN, 60);
	struct dmtp_server *s = dmtp_server_new_refusing(&z, T0);

	(void)state;
	feed(s, T0, POST1); /* dropped */
	expect_nothing(s);
	expect_output(
	    s, T0,
	    "l1:Zd4:code13:shutting-down5:retryi60e4:text45:The server is being stopped: try again later.ee");
	expect_close(s, DMTP_CLOSE_REFUSED);
	dmtp_server_free(&s);
	s = dmtp_server_new_refusing(&z, T0); /* a client that does not take it */
	assert_int_equal(dmtp_server_deadline(s), T0 + IDLE_MS);
	dmtp_server_tick(s, T0 + IDLE_MS);
	expect_close(s, DMTP_CLOSE_STALLED);
	dmtp_server_free(&s);
}

/* --- commands and replies ------------------------------------------------------- */

static void
test_commands_reach_the_caller_decoded(void **state)
{
	struct dmtp_server *s = session(true, false);
	struct dmtp_server_event e;

	(void)state;
	feed(s, T0, POST1);
	assert_true(dmtp_server_next(s, &e));
	assert_int_equal(e.command.verb, DMTP_POST);
	assert_slice(e.command.post.id, "n1");
	assert_int_equal(e.octets, strlen(POST1));
	assert_int_equal(e.command.post.rcpt_count, 1);
	expect_nothing(s);
	assert_int_equal(dmtp_server_unanswered(s), 1);
	reply_k(s, T0, e.seq);
	expect_output(s, T0, "l1:Ke");
	assert_int_equal(dmtp_server_unanswered(s), 0);
	dmtp_server_free(&s);
}

/* One octet at a time and all at once: the same events, the same octets out. */
static void
transcript(const char *input, size_t step, struct buffer *out)
{
	struct dmtp_server *s = session(true, false);
	struct dmtp_server_event e;
	size_t len = strlen(input);

	for (size_t at = 0; at < len;) {
		size_t n = len - at < step ? len - at : step;
		struct slice part = flush_copy(slice_mem(input + at, n));

		at += dmtp_server_feed(s, T0, part.data, part.len);
		flush_free(part);
		while (dmtp_server_next(s, &e)) {
			struct slice from = dmtp_command_from(&e.command);

			buffer_add_fmt(out, "event %d %d %zu %s ", e.kind, e.command.verb,
			               e.octets, dmtp_close_name(e.reason));
			if (e.kind != DMTP_SERVER_COMMAND)
				continue;
			buffer_add_slice(out, from);
			if (e.seq % 2 == 0) /* some at once, the others at the end */
				reply_k(s, T0, e.seq);
		}
	}
	for (uint64_t seq = 1; seq < 20; seq += 2)
		(void)dmtp_server_reply(s, T0, seq, &DMTP_RESPONSE_K);
	buffer_add_slice(out, dmtp_server_output(s));
	drop_output(s, T0);
	while (dmtp_server_next(s, &e))
		buffer_add_fmt(out, "event %d %s ", e.kind, dmtp_close_name(e.reason));
	dmtp_server_free(&s);
}

static void
test_octets_alone_and_together_make_the_same_session(void **state)
{
	static const char *const inputs[] = {
		POST1 "l4:NOOPe" POST1
		      "l8:CHANNELSd4:from14:shop@a.example5:usersl5:a@b.ceeel4:QUITe"
		      "left",
		POST1 "i1el3:FOOel4:POSTe" AUTH1 "l4:NOOPx",
		"l4:NOOPe9999999999",
		POST1 POST1 POST1 POST1 "l5:GRANTde"
					"e",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(inputs); i++) {
		struct buffer once, bits;

		buffer_init(&once, 100000);
		for (size_t step = 1; step < 40; step = step * 2 + 1) {
			buffer_init(&bits, 100000);
			buffer_clear(&once);
			transcript(inputs[i], 100000, &once);
			transcript(inputs[i], step, &bits);
			buffer_add_u8(&once, 0);
			buffer_add_u8(&bits, 0);
			assert_string_equal((const char *)once.data, (const char *)bits.data);
			buffer_free(&bits);
		}
		buffer_free(&once);
	}
}

static void
test_replies_go_out_in_the_order_of_commands(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t seq[20];

	(void)state;
	for (int i = 0; i < 20; i++)
		feed(s, T0, POST1);
	for (int i = 0; i < 20; i++)
		seq[i] = expect_command(s, DMTP_POST);
	for (int i = 19; i > 0; i--) { /* in reverse */
		reply_e(s, T0, seq[i], i % 2 == 0 ? DMTP_CODE_LIMIT : DMTP_CODE_MALFORMED);
		assert_int_equal(dmtp_server_output(s).len, 0);
	}
	reply_k(s, T0, seq[0]);
	{
		struct buffer b;

		buffer_init(&b, 10000);
		buffer_add_str(&b, "l1:Ke");
		for (int i = 1; i < 20; i++)
			buffer_add_str(&b, i % 2 == 0 ? LIMIT : MALFORMED);
		buffer_add_u8(&b, 0);
		expect_output(s, T0, (const char *)b.data);
		buffer_free(&b);
	}
	dmtp_server_free(&s);
}

static void
test_own_answers_wait_for_their_place(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1 "l4:NOOPel3:FOOe");
	seq = expect_command(s, DMTP_POST);
	expect_nothing(s);
	assert_int_equal(dmtp_server_output(s).len, 0);
	assert_int_equal(dmtp_server_unanswered(s), 3);
	reply_k(s, T0, seq);
	expect_output(s, T0,
	              "l1:Ke"
	              "l1:Ke" UNKNOWN);
	dmtp_server_free(&s);
}

static void
test_reply_twice_or_to_nobody_is_refused(void **state)
{
	struct dmtp_server *s = session(true, false);
	struct dmtp_response x = dmtp_response_make(DMTP_X, DMTP_CODE_NONE, 0);
	uint64_t a, b;

	(void)state;
	feed(s, T0, POST1 POST1);
	a = expect_command(s, DMTP_POST);
	b = expect_command(s, DMTP_POST);
	assert_false(dmtp_server_reply(s, T0, b + 1, &DMTP_RESPONSE_K));
	assert_false(dmtp_server_reply(s, T0, a, &x)); /* not a reply */
	reply_k(s, T0, b);
	assert_false(dmtp_server_reply(s, T0, b, &DMTP_RESPONSE_K));
	reply_k(s, T0, a);
	assert_false(dmtp_server_reply(s, T0, a, &DMTP_RESPONSE_K));
	expect_output(s, T0, "l1:Kel1:Ke");
	dmtp_server_free(&s);
}

static void
test_pipeline_full_takes_nothing_and_fails_nobody(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting(), .secured = true };
	struct dmtp_server *s;
	uint64_t seq[9];

	(void)state;
	o.greeting.limits.pipeline = 8;
	s = dmtp_server_new(&o, T0);
	drop_output(s, T0);
	for (int i = 0; i < 8; i++)
		feed(s, T0, POST1);
	feed(s, T0, "l4:POST"); /* the start of a ninth */
	for (int i = 0; i < 8; i++)
		seq[i] = expect_command(s, DMTP_POST);
	expect_nothing(s);
	assert_false(dmtp_server_wants(s));
	assert_int_equal(dmtp_server_feed(s, T0, (const uint8_t *)"d", 1), 0);
	/* its clock stands still as long as we do not read */
	assert_int_equal(dmtp_server_deadline(s), -1);
	dmtp_server_tick(s, T0 + 10 * IDLE_MS);
	expect_nothing(s);
	reply_k(s, T0 + 10 * IDLE_MS, seq[0]);
	assert_true(dmtp_server_wants(s));
	drop_output(s, T0 + 10 * IDLE_MS);
	assert_int_equal(dmtp_server_deadline(s), T0 + 11 * IDLE_MS);
	feed(s, T0 + 10 * IDLE_MS, &POST1[7]);
	seq[8] = expect_command(s, DMTP_POST);
	assert_false(dmtp_server_wants(s));
	for (int i = 1; i < 9; i++)
		reply_k(s, T0, seq[i]);
	expect_output(s, T0, "l1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Ke");
	dmtp_server_free(&s);
}

static void
test_output_that_nobody_takes_stops_the_reading(void **state)
{
	struct dmtp_server *s = session(true, false);
	struct dmtp_response big = { .letter = DMTP_K, .has_channels = true };
	struct buffer inside;
	uint64_t seq;

	(void)state;
	buffer_init(&inside, 400000);
	ben_put_text(&inside, "a@b.c");
	ben_put_list(&inside);
	buffer_add_str(&inside, "d2:id300000:");
	memset(buffer_reserve(&inside, 300000), 'x', 300000);
	buffer_added(&inside, 300000);
	buffer_add_str(&inside, "4:name0:ee");
	big.channels = buffer_slice(&inside);
	feed(s, T0, POST1);
	seq = expect_command(s, DMTP_POST);
	assert_true(dmtp_server_reply(s, T0, seq, &big));
	assert_false(dmtp_server_wants(s));
	assert_int_equal(dmtp_server_feed(s, T0, (const uint8_t *)"l", 1), 0);
	dmtp_server_sent(s, T0, 100000);
	assert_true(dmtp_server_wants(s));
	buffer_free(&inside);
	dmtp_server_free(&s);
}

static void
test_reply_longer_than_a_response_may_be_becomes_z(void **state)
{
	struct dmtp_response big = { .letter = DMTP_K, .has_events = true };
	struct dmtp_server *s = session(true, false);
	uint8_t *inside = malloc(1048576);
	uint64_t a, b;

	(void)state;
	assert_non_null(inside);
	memcpy(inside, "d1:a1048558:", 12);
	memset(inside + 12, 'x', 1048558);
	inside[1048570] = 'e';
	feed(s, T0, POST1 POST1);
	a = expect_command(s, DMTP_POST);
	b = expect_command(s, DMTP_POST);
	big.events = slice_mem(inside, 1048571);
	assert_true(dmtp_server_reply(s, T0, b, &big));
	assert_true(dmtp_server_reply(s, T0, a, &big));
	expect_output(
	    s, T0,
	    "l1:Zd4:code7:storage5:retryi60e4:text54:This can not be stored at the moment: try again later.ee"
	    "l1:Zd4:code7:storage5:retryi60e4:text54:This can not be stored at the moment: try again later.ee");
	free(inside);
	dmtp_server_free(&s);
}

static void
test_information_is_unasked(void **state)
{
	struct dmtp_response i = dmtp_response_make(DMTP_I, DMTP_CODE_THROTTLED, 5);
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1);
	seq = expect_command(s, DMTP_POST);
	dmtp_server_info(s, T0, &i);
	reply_k(s, T0, seq);
	expect_output(s, T0,
	              "l1:Id4:code9:throttled5:retryi5e4:text0:ee"
	              "l1:Ke");
	dmtp_server_free(&s);
}

/* --- bad input ---------------------------------------------------------------- */

static void
test_not_canonical_is_malformed_in_its_place_then_x_then_close(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1 "l4:NOOPx" POST1);
	seq = expect_command(s, DMTP_POST);
	expect_nothing(s); /* what stands behind it is not read */
	assert_int_equal(dmtp_server_output(s).len, 0);
	feed(s, T0, POST1);
	expect_nothing(s);
	reply_k(s, T0, seq);
	expect_nothing(s);
	expect_output(s, T0, "l1:Ke" NOT_BENCODE "l1:Xe");
	expect_close(s, DMTP_CLOSE_MALFORMED);
	dmtp_server_free(&s);
}

static void
test_too_long_is_told_as_soon_as_a_length_says_so(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	feed(s, T0, "l4:POSTd1:x262144");
	expect_nothing(s);
	expect_output(s, T0, TOO_LONG "l1:Xe");
	expect_close(s, DMTP_CLOSE_TOO_LARGE);
	dmtp_server_free(&s);
}

static void
test_wrong_shape_is_malformed_and_the_session_goes_on(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	feed(s, T0, "i1edel4:POSTei5el4:NOOPe");
	expect_nothing(s);
	expect_output(s, T0, MALFORMED MALFORMED MALFORMED MALFORMED "l1:Ke");
	dmtp_server_free(&s);
}

static void
test_twenty_bad_commands_end_the_session(void **state)
{
	struct dmtp_server *s = session(true, false);
	struct buffer b;

	(void)state;
	buffer_init(&b, 10000);
	for (int i = 0; i < 19; i++) {
		feed(s, T0, i % 2 == 0 ? "i1e" : "l3:FOOe");
		expect_nothing(s);
	}
	drop_output(s, T0);
	expect_nothing(s);
	feed(s, T0, "i1e" POST1);
	expect_nothing(s);
	expect_output(s, T0, MALFORMED "l1:Xe");
	expect_close(s, DMTP_CLOSE_BAD_COMMANDS);
	buffer_free(&b);
	dmtp_server_free(&s);
}

static void
test_verbs_that_are_not_offered_are_unknown(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting(), .secured = true };
	struct dmtp_server *s;

	(void)state;
	o.greeting.ext = DMTP_EXT_GRANT;
	s = dmtp_server_new(&o, T0);
	drop_output(s, T0);
	feed(s, T0, AUTH1 "l7:RECEIPTdeel4:postdee");
	expect_nothing(s);
	expect_output(s, T0, UNKNOWN UNKNOWN UNKNOWN);
	feed(s, T0, "l5:GRANTdee"); /* this one is known, and misshapen */
	expect_nothing(s);
	expect_output(s, T0, CHANNEL_WRONG);
	dmtp_server_free(&s);
}

/* --- refusals are told -------------------------------------------------------- */

static void
note_refusal(void *arg, const struct dmtp_refusal *refusal)
{
	struct buffer *notes = arg;

	buffer_add_slice(notes, refusal->verb);
	buffer_add_fmt(notes, " %s %s\n", dmtp_code_name(refusal->code),
	               refusal->why == NULL ? "-" : refusal->why);
}

static void
test_who_asks_is_told_of_each_refusal(void **state)
{
	struct buffer notes;
	struct dmtp_server_options o = {
		.greeting = greeting(), .secured = true, .refused = note_refusal, .arg = &notes
	};
	struct dmtp_server *s = dmtp_server_new(&o, T0);

	(void)state;
	assert_non_null(s);
	buffer_init(&notes, 4096);
	drop_output(s, T0);
	feed(s, T0, "l8:STARTTLSe"); /* nothing may stand behind it */
	expect_nothing(s);
	feed(s, T0,
	     "l4:POSTdee"
	     "l8:CHANNELSd4:fromi1eee"
	     "l4:BREW3:tea1:!e"
	     "l4:NOOPe"
	     "i1e"
	     "l4:POSTx");
	expect_nothing(s);
	assert_slice(buffer_slice(&notes),
	             "STARTTLS not-now TLS is on already.\n"
	             "POST malformed \"date\" is missing, or not of its type.\n"
	             "CHANNELS malformed \"from\" is missing, or not of its type.\n"
	             "BREW unknown-command -\n"
	             " malformed -\n"
	             " malformed No canonical bencode.\n");
	buffer_free(&notes);
	dmtp_server_free(&s);
}

/* --- NOOP, QUIT, end of stream --------------------------------------------------- */

static void
test_the_noop_after_noops_in_a_row_is_refused(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	for (int i = 0; i < 10; i++)
		feed(s, T0, "l4:NOOPe");
	expect_nothing(s);
	expect_output(s, T0, "l1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Kel1:Ke");
	feed(s, T0, "l4:NOOPel4:NOOPe");
	expect_nothing(s);
	expect_output(s, T0, TOO_MANY_NOOPS TOO_MANY_NOOPS);
	feed(s, T0, POST1 "l4:NOOPe"); /* not in a row any more */
	reply_k(s, T0, expect_command(s, DMTP_POST));
	expect_nothing(s);
	expect_output(s, T0, "l1:Kel1:Ke");
	dmtp_server_free(&s);
}

static void
test_quit_is_answered_last_and_nothing_more_is_read(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1 "l4:QUITe" POST1 "junk");
	seq = expect_command(s, DMTP_POST);
	expect_nothing(s);
	feed(s, T0, "more junk");
	reply_k(s, T0, seq);
	expect_nothing(s); /* not before the K is sent */
	expect_output(s, T0, "l1:Kel1:Ke");
	expect_close(s, DMTP_CLOSE_QUIT);
	dmtp_server_free(&s);
}

static void
test_end_of_stream_answers_what_is_complete_before_it(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t a, b;

	(void)state;
	feed(s, T0, POST1 POST1 "l4:POST");
	a = expect_command(s, DMTP_POST);
	dmtp_server_eof(s, T0);
	b = expect_command(s, DMTP_POST);
	expect_nothing(s);
	reply_k(s, T0, a);
	expect_nothing(s);
	reply_k(s, T0, b);
	expect_nothing(s);
	expect_output(s, T0, "l1:Kel1:Ke");
	expect_close(s, DMTP_CLOSE_EOF);
	dmtp_server_free(&s);
}

static void
test_end_of_stream_with_a_full_pipeline(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting(), .secured = true };
	struct dmtp_server *s;

	(void)state;
	o.greeting.limits.pipeline = 8;
	s = dmtp_server_new(&o, T0);
	drop_output(s, T0);
	for (int i = 0; i < 10; i++)
		feed(s, T0, POST1);
	dmtp_server_eof(s, T0);
	for (int i = 0; i < 8; i++)
		(void)expect_command(s, DMTP_POST);
	expect_nothing(s);
	for (uint64_t i = 0; i < 8; i++)
		reply_k(s, T0, i);
	for (uint64_t i = 8; i < 10; i++)
		reply_k(s, T0, expect_command(s, DMTP_POST));
	expect_nothing(s);
	drop_output(s, T0);
	expect_close(s, DMTP_CLOSE_EOF);
	dmtp_server_free(&s);
}

/* --- TLS ------------------------------------------------------------------------ */

static void
test_before_tls_commands_are_refused(void **state)
{
	struct dmtp_server *s = session(false, true);

	(void)state;
	feed(s, T0,
	     POST1 AUTH1 "l4:NOOPe"
	                 "l4:POSTe");
	expect_nothing(s);
	expect_output(s, T0, TLS_REQUIRED TLS_REQUIRED "l1:Ke" MALFORMED); /* shape wins */
	dmtp_server_free(&s);
}

static void
test_pinned_plaintext_is_served(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting(), .plain_allowed = true };
	struct dmtp_server *s = dmtp_server_new(&o, T0);

	(void)state;
	drop_output(s, T0);
	feed(s, T0, POST1);
	reply_k(s, T0, expect_command(s, DMTP_POST));
	expect_output(s, T0, "l1:Ke");
	dmtp_server_free(&s);
}

static void
test_starttls_then_a_new_greeting_with_other_limits(void **state)
{
	struct dmtp_server *s = session(false, true);
	struct dmtp_greeting g = greeting();
	struct dmtp_server_event e;

	(void)state;
	assert_false(dmtp_server_secured(s, T0, &g)); /* nobody asked */
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s); /* not before the K is sent */
	assert_false(dmtp_server_secured(s, T0, &g));
	expect_output(s, T0, "l1:Ke");
	assert_true(dmtp_server_next(s, &e));
	assert_int_equal(e.kind, DMTP_SERVER_STARTTLS);
	expect_nothing(s);
	assert_int_equal(dmtp_server_deadline(s), T0 + 30000);
	g.limits.rcpts = 5000;
	g.limits.noops = 1;
	assert_true(dmtp_server_secured(s, T0 + 5, &g));
	assert_true(dmtp_server_is_secured(s));
	assert_int_equal(dmtp_server_limits(s)->rcpts, 5000);
	assert_true(dmtp_server_output(s).len > 100);
	drop_output(s, T0 + 5);
	feed(s, T0 + 5, POST1 "l8:STARTTLSe");
	reply_k(s, T0 + 5, expect_command(s, DMTP_POST));
	expect_nothing(s);
	expect_output(s, T0 + 5, "l1:Ke" TLS_IS_ON);
	dmtp_server_free(&s);
}

static void
test_starttls_with_octets_behind_it_closes_before_all_else(void **state)
{
	struct dmtp_server *s = session(false, true);
	struct dmtp_greeting g = greeting();
	struct dmtp_server_event e;

	(void)state;
	feed(s, T0, "l8:STARTTLSel4:NOOPe");
	expect_close(s, DMTP_CLOSE_INJECTED);
	dmtp_server_free(&s);

	s = session(false, true); /* before what it would otherwise have been told */
	feed(s, T0, "l4:NOOPel8:STARTTLSel");
	expect_close(s, DMTP_CLOSE_INJECTED);
	dmtp_server_free(&s);

	s = session(false, true); /* while K waits to be sent */
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	feed(s, T0, "l");
	expect_close(s, DMTP_CLOSE_INJECTED);
	dmtp_server_free(&s);

	s = session(false, true); /* during the handshake, past the TLS layer */
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	drop_output(s, T0);
	assert_true(dmtp_server_next(s, &e));
	feed(s, T0, "l");
	assert_false(dmtp_server_secured(s, T0, &g));
	expect_close(s, DMTP_CLOSE_INJECTED);
	dmtp_server_free(&s);
}

/* Octets that the machine has not taken yet are behind it as well. */
static void
test_starttls_with_octets_behind_it_that_were_not_taken(void **state)
{
	struct dmtp_server *s = session(false, true);
	size_t fits = 262144 + 65536, pad = (fits - 12) / 10;
	uint8_t *input = malloc(fits + 5);
	size_t at = 0;

	(void)state;
	assert_non_null(input);
	memcpy(input, "l4:NOOP262", 10);
	/* one long NOOP, then STARTTLS at the very end of what is taken, and more */
	at = (size_t)snprintf((char *)input, fits, "l4:NOOP%zu:", (size_t)260000);
	memset(input + at, 'x', 260000);
	at += 260000;
	input[at++] = 'e';
	while (fits - at - 12 >= 8 + 11)
		memcpy(input + at, "l4:NOOPe", 8), at += 8;
	pad = fits - at - 12 - 8 - 2; /* an l4:NOOP<n>:…e that fills the gap */
	at += (size_t)snprintf((char *)input + at, 30, "l4:NOOP%zu:", pad);
	memset(input + at, 'x', pad);
	at += pad;
	memcpy(input + at, "el8:STARTTLSe", 13);
	at += 13;
	assert_int_equal(at, fits);
	memcpy(input + at, "extra", 5);
	assert_int_equal(dmtp_server_feed(s, T0, input, fits + 5), fits);
	for (int i = 0; i < 10000; i++) {
		struct dmtp_server_event e;

		if (dmtp_server_next(s, &e)) {
			assert_int_equal(e.kind, DMTP_SERVER_CLOSE);
			assert_int_equal(e.reason, DMTP_CLOSE_INJECTED);
			break;
		}
		assert_true(dmtp_server_output(s).len > 0);
		drop_output(s, T0);
		assert_true(i < 9999);
	}
	free(input);
	dmtp_server_free(&s);
}

static void
test_starttls_with_a_reply_unwritten_is_not_now(void **state)
{
	struct dmtp_server *s = session(false, true);

	(void)state;
	feed(s, T0, "l4:NOOPe");
	expect_nothing(s);
	feed(s, T0, "l8:STARTTLSe"); /* the K still waits to be sent */
	expect_nothing(s);
	expect_output(s, T0, "l1:Ke" REPLY_TO_COME);
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	expect_output(s, T0, "l1:Ke");
	dmtp_server_free(&s);
	s = session(false, false); /* not offered */
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	expect_output(s, T0, NO_TLS);
	dmtp_server_free(&s);
}

/* In plaintext a client may send STARTTLS before it has read the greeting. */
static void
test_starttls_before_the_greeting_was_taken(void **state)
{
	struct dmtp_server_options o = { .greeting = greeting() };
	struct dmtp_server_event e;
	struct dmtp_server *s;

	(void)state;
	o.greeting.tls = true;
	s = dmtp_server_new(&o, T0);
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	drop_output(s, T0);
	assert_true(dmtp_server_next(s, &e));
	assert_int_equal(e.kind, DMTP_SERVER_STARTTLS);
	dmtp_server_free(&s);
}

static void
test_handshake_is_done_within_30_seconds(void **state)
{
	struct dmtp_server *s = session(false, true);
	struct dmtp_server_event e;

	(void)state;
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	drop_output(s, T0);
	assert_true(dmtp_server_next(s, &e));
	dmtp_server_tick(s, T0 + 29999);
	expect_nothing(s);
	dmtp_server_tick(s, T0 + 30000);
	expect_close(s, DMTP_CLOSE_HANDSHAKE);
	dmtp_server_free(&s);
	s = session(false, true); /* or its stream ends */
	feed(s, T0, "l8:STARTTLSe");
	dmtp_server_eof(s, T0);
	expect_close(s, DMTP_CLOSE_EOF);
	dmtp_server_free(&s);
	s = session(false, true); /* or we go down */
	feed(s, T0, "l8:STARTTLSe");
	expect_nothing(s);
	dmtp_server_drain(s, T0, NULL);
	expect_close(s, DMTP_CLOSE_DRAINED);
	dmtp_server_free(&s);
}

/* --- AUTH ----------------------------------------------------------------------- */

static void
test_auth_k_brings_new_limits_into_force(void **state)
{
	struct dmtp_response k = { .letter = DMTP_K,
		                   .has_limits = true,
		                   .limits = DMTP_LIMITS_DEFAULT };
	struct dmtp_server *s = session(true, false);

	(void)state;
	k.limits.rcpts = 7777;
	k.limits.command_octets = 65536; /* what is under way still counts by the old measure */
	feed(s, T0, AUTH1);
	assert_true(dmtp_server_reply(s, T0, expect_command(s, DMTP_AUTH), &k));
	assert_int_equal(dmtp_server_limits(s)->rcpts, 7777);
	assert_int_equal(dmtp_server_limits(s)->command_octets, 262144);
	assert_true(dmtp_server_output(s).len > 60);
	dmtp_server_free(&s);
}

static void
test_the_third_failed_auth_is_followed_by_x(void **state)
{
	struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_UNVERIFIED_SENDER, 60);
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	for (int i = 0; i < 2; i++) {
		feed(s, T0, AUTH1);
		reply_e(s, T0, expect_command(s, DMTP_AUTH), DMTP_CODE_UNVERIFIED_SENDER);
		expect_output(s, T0, UNVERIFIED);
	}
	feed(s, T0, AUTH1); /* unreachable keys are no failure */
	assert_true(dmtp_server_reply(s, T0, expect_command(s, DMTP_AUTH), &z));
	drop_output(s, T0);
	feed(s, T0, AUTH1 POST1 AUTH1);
	seq = expect_command(s, DMTP_AUTH);
	reply_e(s, T0, seq, DMTP_CODE_UNVERIFIED_SENDER);
	expect_output(s, T0, UNVERIFIED "l1:Xe");
	/* what was already sent is answered, but for further attempts */
	reply_k(s, T0, expect_command(s, DMTP_POST));
	expect_nothing(s);
	expect_output(s, T0, "l1:Ke" TOO_MANY_AUTHS);
	dmtp_server_tick(s, T0 + 10000);
	expect_close(s, DMTP_CLOSE_AUTH_FAILED);
	dmtp_server_free(&s);
}

/* Neither by its shape, which the machine refuses, nor by its values, which its owner does. */
static void
test_a_malformed_auth_is_no_failed_proof(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	for (int i = 0; i < 2; i++) {
		feed(s, T0, AUTH1);
		reply_e(s, T0, expect_command(s, DMTP_AUTH), DMTP_CODE_UNVERIFIED_SENDER);
		expect_output(s, T0, UNVERIFIED);
	}
	for (int i = 0; i < 3; i++) {
		feed(s, T0, "l4:AUTHdee");
		expect_nothing(s);
		feed(s, T0, AUTH1);
		reply_e(s, T0, expect_command(s, DMTP_AUTH), DMTP_CODE_MALFORMED);
		drop_output(s, T0);
	}
	feed(s, T0, AUTH1);
	reply_e(s, T0, expect_command(s, DMTP_AUTH), DMTP_CODE_UNVERIFIED_SENDER);
	expect_output(s, T0, UNVERIFIED "l1:Xe");
	dmtp_server_free(&s);
}

/* --- time ------------------------------------------------------------------------ */

static void
test_idle_session_gets_x_and_then_is_closed(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	assert_int_equal(dmtp_server_deadline(s), T0 + IDLE_MS);
	dmtp_server_tick(s, T0 + IDLE_MS - 1);
	assert_int_equal(dmtp_server_output(s).len, 0);
	feed(s, T0 + 1000, "l4:NOOPe"); /* a sign of life */
	expect_nothing(s);
	expect_output(s, T0 + 1000, "l1:Ke");
	assert_int_equal(dmtp_server_deadline(s), T0 + 1000 + IDLE_MS);
	dmtp_server_tick(s, T0 + 1000 + IDLE_MS);
	expect_output(s, T0 + 1000 + IDLE_MS, "l1:Xe");
	/* a command that crossed the X is answered */
	feed(s, T0 + 1000 + IDLE_MS, POST1);
	reply_k(s, T0 + 1000 + IDLE_MS, expect_command(s, DMTP_POST));
	expect_output(s, T0 + 1000 + IDLE_MS, "l1:Ke");
	assert_int_equal(dmtp_server_deadline(s), T0 + 11000 + IDLE_MS);
	dmtp_server_tick(s, T0 + 11000 + IDLE_MS);
	expect_close(s, DMTP_CLOSE_IDLE);
	dmtp_server_free(&s);
}

static void
test_session_with_commands_outstanding_is_not_idle(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1);
	seq = expect_command(s, DMTP_POST);
	assert_int_equal(dmtp_server_deadline(s), -1);
	dmtp_server_tick(s, T0 + 5 * IDLE_MS);
	expect_nothing(s);
	reply_k(s, T0 + 5 * IDLE_MS, seq);
	expect_output(s, T0 + 5 * IDLE_MS, "l1:Ke");
	assert_int_equal(dmtp_server_deadline(s), T0 + 6 * IDLE_MS);
	dmtp_server_free(&s);
}

static void
test_command_that_trickles_is_cut_off(void **state)
{
	struct dmtp_server *s = session(true, false);
	const char *post = POST1;
	int64_t now = T0;
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1);
	seq = expect_command(s, DMTP_POST);
	for (int i = 0; i < 30;
	     i++) { /* an octet every ten seconds: not idle, and not in time */
		char one[2] = { post[i], 0 };

		now = T0 + 500 + 10000 * i;
		dmtp_server_tick(s, now);
		feed(s, now, one);
		expect_nothing(s);
	}
	assert_int_equal(dmtp_server_deadline(s), T0 + 500 + IDLE_MS);
	dmtp_server_tick(s, T0 + 500 + IDLE_MS);
	expect_output(s, now, "l1:Xe");
	expect_nothing(s); /* the first one is still answered */
	reply_k(s, now, seq);
	expect_output(s, now, "l1:Ke");
	expect_close(s, DMTP_CLOSE_SLOW_COMMAND);
	dmtp_server_free(&s);
}

static void
test_command_behind_another_has_its_own_clock(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	feed(s, T0 + 100, "l4:");
	expect_nothing(s);
	feed(s, T0 + 900, "NOOPel4:N");
	expect_nothing(s);
	drop_output(s, T0 + 900);
	assert_int_equal(dmtp_server_deadline(s), T0 + 900 + IDLE_MS);
	dmtp_server_free(&s);
}

static void
test_client_that_takes_no_octet_of_a_reply_is_closed(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	feed(s, T0, "l4:NOOPe");
	expect_nothing(s);
	assert_int_equal(dmtp_server_deadline(s), T0 + IDLE_MS);
	dmtp_server_sent(s, T0 + 200000, 1); /* one octet is a sign of life */
	assert_int_equal(dmtp_server_deadline(s), T0 + 200000 + IDLE_MS);
	dmtp_server_tick(s, T0 + 200000 + IDLE_MS);
	expect_close(s, DMTP_CLOSE_STALLED);
	dmtp_server_free(&s);
}

static void
test_drain_answers_what_was_sent_for_ten_seconds(void **state)
{
	struct dmtp_response x = dmtp_response_make(DMTP_X, DMTP_CODE_SHUTTING_DOWN, 5);
	struct dmtp_server *s = session(true, false);
	uint64_t seq;

	(void)state;
	feed(s, T0, POST1);
	seq = expect_command(s, DMTP_POST);
	dmtp_server_drain(s, T0, &x);
	dmtp_server_drain(s, T0 + 5, NULL); /* once is enough */
	expect_output(s, T0, "l1:Xd4:code13:shutting-down5:retryi5e4:text0:ee");
	feed(s, T0 + 9000, POST1 "l8:STARTTLSe");
	(void)expect_command(s, DMTP_POST);
	reply_k(s, T0 + 9000, seq);
	expect_output(s, T0 + 9000, "l1:Ke");
	assert_int_equal(dmtp_server_deadline(s), T0 + 10000);
	dmtp_server_tick(s, T0 + 10000);
	expect_close(s, DMTP_CLOSE_DRAINED);
	dmtp_server_free(&s);
}

static void
test_quit_is_allowed_after_x(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	dmtp_server_drain(s, T0, NULL);
	expect_output(s, T0, "l1:Xe");
	feed(s, T0, "l4:QUITe");
	expect_nothing(s);
	expect_output(s, T0, "l1:Ke");
	expect_close(s, DMTP_CLOSE_QUIT);
	dmtp_server_free(&s);
}

static void
test_malformed_while_draining_says_no_second_x(void **state)
{
	struct dmtp_server *s = session(true, false);

	(void)state;
	dmtp_server_drain(s, T0, NULL);
	feed(s, T0, "x");
	expect_nothing(s);
	expect_output(s, T0, "l1:Xe" NOT_BENCODE);
	expect_close(s, DMTP_CLOSE_MALFORMED);
	dmtp_server_free(&s);
}

static void
test_free_with_replies_that_wait(void **state)
{
	struct dmtp_server *s = session(true, false);
	uint64_t a, b;

	(void)state;
	feed(s, T0, POST1 POST1 "l4:NOOPe");
	a = expect_command(s, DMTP_POST);
	b = expect_command(s, DMTP_POST);
	expect_nothing(s);
	reply_k(s, T0, b);
	assert_true(a != b);
	dmtp_server_free(&s); /* the leak checker looks on */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting_comes_first),
		cmocka_unit_test(test_greeting_within_tls_offers_no_starttls),
		cmocka_unit_test(test_greeting_below_the_floor_is_not_sent),
		cmocka_unit_test(test_refused_session_gets_z_instead_of_a_greeting),
		cmocka_unit_test(test_commands_reach_the_caller_decoded),
		cmocka_unit_test(test_octets_alone_and_together_make_the_same_session),
		cmocka_unit_test(test_replies_go_out_in_the_order_of_commands),
		cmocka_unit_test(test_own_answers_wait_for_their_place),
		cmocka_unit_test(test_reply_twice_or_to_nobody_is_refused),
		cmocka_unit_test(test_pipeline_full_takes_nothing_and_fails_nobody),
		cmocka_unit_test(test_output_that_nobody_takes_stops_the_reading),
		cmocka_unit_test(test_reply_longer_than_a_response_may_be_becomes_z),
		cmocka_unit_test(test_information_is_unasked),
		cmocka_unit_test(
		    test_not_canonical_is_malformed_in_its_place_then_x_then_close),
		cmocka_unit_test(test_too_long_is_told_as_soon_as_a_length_says_so),
		cmocka_unit_test(test_wrong_shape_is_malformed_and_the_session_goes_on),
		cmocka_unit_test(test_twenty_bad_commands_end_the_session),
		cmocka_unit_test(test_verbs_that_are_not_offered_are_unknown),
		cmocka_unit_test(test_who_asks_is_told_of_each_refusal),
		cmocka_unit_test(test_the_noop_after_noops_in_a_row_is_refused),
		cmocka_unit_test(test_quit_is_answered_last_and_nothing_more_is_read),
		cmocka_unit_test(test_end_of_stream_answers_what_is_complete_before_it),
		cmocka_unit_test(test_end_of_stream_with_a_full_pipeline),
		cmocka_unit_test(test_before_tls_commands_are_refused),
		cmocka_unit_test(test_pinned_plaintext_is_served),
		cmocka_unit_test(test_starttls_then_a_new_greeting_with_other_limits),
		cmocka_unit_test(test_starttls_with_octets_behind_it_closes_before_all_else),
		cmocka_unit_test(test_starttls_with_octets_behind_it_that_were_not_taken),
		cmocka_unit_test(test_starttls_with_a_reply_unwritten_is_not_now),
		cmocka_unit_test(test_starttls_before_the_greeting_was_taken),
		cmocka_unit_test(test_handshake_is_done_within_30_seconds),
		cmocka_unit_test(test_auth_k_brings_new_limits_into_force),
		cmocka_unit_test(test_the_third_failed_auth_is_followed_by_x),
		cmocka_unit_test(test_a_malformed_auth_is_no_failed_proof),
		cmocka_unit_test(test_idle_session_gets_x_and_then_is_closed),
		cmocka_unit_test(test_session_with_commands_outstanding_is_not_idle),
		cmocka_unit_test(test_command_that_trickles_is_cut_off),
		cmocka_unit_test(test_command_behind_another_has_its_own_clock),
		cmocka_unit_test(test_client_that_takes_no_octet_of_a_reply_is_closed),
		cmocka_unit_test(test_drain_answers_what_was_sent_for_ten_seconds),
		cmocka_unit_test(test_quit_is_allowed_after_x),
		cmocka_unit_test(test_malformed_while_draining_says_no_second_x),
		cmocka_unit_test(test_free_with_replies_that_wait),
	};

	return RUN(tests);
}
