/* home/lmtp.h: a mail server's session, octet by octet, and what may go wrong in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "home/lmtp.h"

/* --- a session under test ----------------------------------------------------------- */

/* Whose mail is taken: rcpts that begin with "y"; "l" is put off, the rest is nobody. */
struct run {
	struct lmtp *s;
	int64_t now;
	struct buffer out, body, sender;
	size_t messages, rcpts, refused;
	bool closed, hold_rcpts, hold_message;
	enum lmtp_close why;
	enum lmtp_answer fate; /* of messages */
	uint64_t held[LMTP_PIPELINE];
	size_t held_n;
};

static const struct lmtp_options defaults = {
	.host = "home.test", .octets = 100000, .rcpts = 3, .idle_s = 10
};

static enum lmtp_answer
fate_of(struct slice address)
{
	return address.data[0] == 'y'   ? LMTP_YES
	       : address.data[0] == 'l' ? LMTP_LATER
	                                : LMTP_NOBODY;
}

static void
answer_message(struct run *r)
{
	enum lmtp_answer answers[8];

	for (size_t i = 0; i < lmtp_rcpts(r->s); i++)
		answers[i] = r->fate;
	assert_true(lmtp_answer_message(r->s, r->now, answers));
}

static void
take_message(struct run *r)
{
	struct buffer body;

	r->messages++;
	r->rcpts = lmtp_rcpts(r->s);
	buffer_clear(&r->sender);
	buffer_add_slice(&r->sender, lmtp_sender(r->s));
	lmtp_take_body(r->s, &body);
	buffer_clear(&r->body);
	buffer_add_slice(&r->body, buffer_slice(&body));
	buffer_free(&body);
	if (!r->hold_message)
		answer_message(r);
}

static void
pump(struct run *r)
{
	struct lmtp_event e;
	bool moved;

	do {
		struct slice out = lmtp_output(r->s);

		moved = out.len > 0;
		buffer_add_slice(&r->out, out);
		lmtp_sent(r->s, r->now, out.len);
		while (lmtp_next(r->s, &e)) {
			assert_false(r->closed);
			moved = true;
			switch (e.kind) {
			case LMTP_EVENT_RCPT:
				if (r->hold_rcpts)
					r->held[r->held_n++] = e.seq;
				else
					assert_true(lmtp_answer_rcpt(r->s, r->now, e.seq,
					                             fate_of(e.address)));
				break;
			case LMTP_EVENT_MESSAGE:
				take_message(r);
				break;
			case LMTP_EVENT_REFUSED:
				r->refused++;
				break;
			case LMTP_EVENT_CLOSE:
				r->closed = true;
				r->why = e.closed;
				break;
			}
		}
	} while (moved);
}

static void
begin_with(struct run *r, const struct lmtp_options *options)
{
	*r = (struct run){ .now = 1000, .fate = LMTP_YES };
	buffer_init(&r->out, 1 << 20);
	buffer_init(&r->body, 1 << 20);
	buffer_init(&r->sender, 1000);
	r->s = lmtp_new(options, r->now);
	assert_non_null(r->s);
	pump(r);
	assert_memory_equal(r->out.data, "220 home.test LMTP\r\n", r->out.len);
	buffer_clear(&r->out);
}

static void
begin(struct run *r)
{
	begin_with(r, &defaults);
}

static void
finish(struct run *r)
{
	lmtp_free(&r->s);
	buffer_free(&r->out);
	buffer_free(&r->body);
	buffer_free(&r->sender);
}

/* In parts of at most n octets; answers how many were taken. */
static size_t
feed(struct run *r, const char *text, size_t len, size_t n)
{
	size_t at = 0;

	while (at < len) {
		size_t part = len - at < n ? len - at : n;
		size_t took = lmtp_feed(r->s, r->now, (const uint8_t *)text + at, part);

		at += took;
		pump(r);
		if (took == 0 && !lmtp_wants(r->s))
			break;
	}
	return at;
}

static void
say(struct run *r, const char *text)
{
	assert_int_equal(feed(r, text, strlen(text), 65536), strlen(text));
}

/* What was said since the last time is exactly this. */
static void
heard(struct run *r, const char *expected)
{
	buffer_add_u8(&r->out, '\0');
	assert_string_equal((char *)r->out.data, expected);
	buffer_clear(&r->out);
}

/* The replies' codes, one a line, the last of a multi-line reply's. */
static void
codes(struct run *r, const char *expected)
{
	char text[4096] = "";
	size_t at = 0;

	buffer_add_u8(&r->out, '\0');
	for (char *line = (char *)r->out.data; *line != '\0'; line = strstr(line, "\r\n") + 2)
		if (line[3] == ' ' && at < sizeof(text) - 8)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.3s",
			                       at > 0 ? " " : "", line);
	assert_string_equal(text, expected);
	buffer_clear(&r->out);
}

#define HELLO "LHLO mail.test\r\n"
#define ENVELOPE "MAIL FROM:<a@b.test>\r\nRCPT TO:<y@home.test>\r\nDATA\r\n"

static void
body_is(struct run *r, const char *expected)
{
	assert_int_equal(r->body.len, strlen(expected));
	assert_memory_equal(r->body.data, expected, r->body.len);
}

/* --- what it says -------------------------------------------------------------------------- */

static void
test_a_mail(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO);
	heard(&r, "250-home.test\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n"
	          "250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n");
	say(&r, "MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME\r\n");
	heard(&r, "250 2.1.0 ok\r\n");
	say(&r, "RCPT TO:<yes@home.test>\r\n");
	heard(&r, "250 2.1.5 ok\r\n");
	say(&r, "RCPT TO:<no@home.test>\r\n");
	heard(&r, "550 5.1.1 no mail is taken for this address\r\n");
	say(&r, "rcpt to:<l@home.test>\r\n");
	heard(&r, "451 4.3.0 not now, try again later\r\n");
	say(&r, "RCPT TO:<you@home.test>\r\n");
	heard(&r, "250 2.1.5 ok\r\n");
	say(&r, "DATA\r\n");
	heard(&r, "354 end with <CRLF>.<CRLF>\r\n");
	say(&r, "Subject: x\r\n\r\nHello\r\n.\r\n");
	heard(&r, "250 2.0.0 stored\r\n250 2.0.0 stored\r\n"); /* one a recipient (RFC 2033) */
	assert_int_equal(r.rcpts, 2);
	body_is(&r, "Subject: x\r\n\r\nHello\r\n");
	say(&r, "NOOP\r\nVRFY y\r\nRSET\r\nQUIT\r\n");
	codes(&r, "250 252 250 221");
	assert_true(r.closed);
	assert_int_equal(r.why, LMTP_CLOSE_QUIT);
	finish(&r);
}

static const char script[] =
    HELLO "MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<y@home.test>\r\nRCPT TO:<n@home.test>"
	  "\r\nRCPT TO:<\xc3\xa4@home.test>\r\nDATA\r\nS: 1\r\n\r\n..dot\r\n...\r\n"
	  "a\r.\r\n.\r\nMAIL FROM:<\"q\\\"x\"@b.test>\r\nRCPT TO:<\"y y\"@home.test>"
	  "\r\nDATA\r\n\r\n.\r\nQUIT\r\n";
#define SCRIPT_CODES "250 250 250 550 550 354 250 250 250 354 250 221"

/* Everything in one piece, as PIPELINING lets, and in pieces of every size: the same comes out. */
static void
test_every_size_of_pieces(void **state)
{
	(void)state;
	for (size_t n = 1; n <= sizeof(script); n++) {
		struct run r;

		begin(&r);
		assert_int_equal(feed(&r, script, sizeof(script) - 1, n), sizeof(script) - 1);
		codes(&r, SCRIPT_CODES);
		assert_int_equal(r.messages, 2);
		assert_true(r.closed);
		body_is(&r, "\r\n");
		assert_memory_equal(r.sender.data, "\"q\\\"x\"@b.test", r.sender.len);
		finish(&r);
	}
}

/* The peer may go at any octet: what is complete is answered, a mail cut short is none. */
static void
test_every_prefix(void **state)
{
	const char *second = strstr(script, ".\r\nQUIT") + 3;
	const char *first = strstr(script, ".\r\nMAIL") + 3;

	(void)state;
	for (size_t n = 0; n < sizeof(script); n++) {
		struct run r;

		begin(&r);
		(void)feed(&r, script, n, 65536);
		lmtp_eof(r.s, r.now);
		pump(&r);
		assert_true(r.closed);
		assert_int_equal(r.messages, (script + n >= first) + (script + n >= second));
		finish(&r);
	}
}

static void
test_dots_are_unstuffed(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO ENVELOPE "..\r\n.a\r\n\r\n..b.\r\n.\rc\r\n.\r\r\nend\r\n.\r\n");
	body_is(&r, ".\r\na\r\n\r\n.b.\r\n\rc\r\n\r\r\nend\r\n");
	finish(&r);
}

/* RFC 5321 section 4.1.1.4, and what was made of servers that thought otherwise. */
static void
test_only_crlf_dot_crlf_ends_a_mail(void **state)
{
	static const char *const ends[] = { "\n.\n",   "\n.\r\n", "\r\n.\n",    "\r.\r",
		                            "\r\n.\r", "\r.\r\n", "\r\n.\r\r\n" };
	struct run r;

	(void)state;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		bool bare = strstr(ends[i], "\n.\n") != NULL || ends[i][0] == '\n';

		begin(&r);
		say(&r, HELLO ENVELOPE "x");
		say(&r, ends[i]);
		assert_int_equal(r.messages, 0);
		say(&r, "MAIL FROM:<evil@b.test>\r\nRCPT TO:<y2@home.test>\r\nDATA\r\n");
		buffer_clear(&r.out);
		say(&r, "\r\n.\r\n");
		codes(&r, bare ? "550" : "250");
		assert_int_equal(r.messages, bare ? 0 : 1);
		assert_int_equal(r.refused, bare ? 1 : 0);
		finish(&r);
	}
}

static void
test_a_bare_lf_in_commands_ends_the_session(void **state)
{
	static const char *const lines[] = { "NOOP\nQUIT\r\n", "\n", "NOOP\r\n\n",
		                             "NO\nOP\r\n" };

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct run r;

		begin(&r);
		say(&r, HELLO);
		say(&r, lines[i]);
		assert_true(r.closed);
		assert_int_equal(r.why, LMTP_CLOSE_BARE_LF);
		buffer_add_u8(&r.out, '\0');
		assert_non_null(strstr((char *)r.out.data, "521 5.5.2"));
		finish(&r);
	}
}

/* --- bad input ----------------------------------------------------------------------------- */

static const struct {
	const char *line;
	const char *reply;
} bad[] = {
	{ "", "500 5.5.1" },
	{ "EHLO x", "500 5.5.1" },
	{ "HELO x", "500 5.5.1" },
	{ "LHLO", "501 5.5.4" },
	{ "BDAT 5 LAST", "500 5.5.1" },
	{ "STARTTLS", "500 5.5.1" },
	{ "MAILFROM:<a@b.test>", "500 5.5.1" },
	{ "MAIL <a@b.test>", "501 5.5.4" },
	{ "MAIL FROM:a@b.test", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test", "501 5.5.4" },
	{ "MAIL FROM:<a b@b.test>", "501 5.1.7" },
	{ "MAIL FROM:<\"a@b.test>", "501 5.1.7" },
	{ "MAIL FROM:<a@b.test>SIZE=1", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> SIZE=", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> SIZE=-1", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> SIZE=99999999999999999999999", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> SIZE=100001", "552 5.3.4" },
	{ "MAIL FROM:<a@b.test> BODY=BINARYMIME", "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> RET=FULL", "555 5.5.4" },
	{ "MAIL FROM:<a@b.test> SMTPUTF8=1", "555 5.5.4" },
	{ "MAIL FROM:<\xc3\xa4@b.test>", "553 5.6.7" },
	{ "MAIL FROM:<\xff@b.test> SMTPUTF8", "553 5.6.7" },
	{ "RCPT TO:<y@home.test>", "503 5.5.1" },
	{ "DATA", "503 5.5.1" },
	{ "NOOP \x01", "500 5.5.2" },
	{ "NO\rOP", "500 5.5.2" },
};

static void
test_bad_commands(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char line[256];
		struct run r;

		begin(&r);
		say(&r, HELLO);
		buffer_clear(&r.out);
		(void)snprintf(line, sizeof(line), "%s\r\n", bad[i].line);
		say(&r, line);
		assert_memory_equal(r.out.data, bad[i].reply, 9);
		say(&r, ENVELOPE ".\r\n"); /* and the session goes on */
		assert_int_equal(r.messages, 1);
		finish(&r);
	}
}

static void
test_bad_recipients(void **state)
{
	static const char *const lines[][2] = {
		{ "RCPT TO:<>\r\n", "501 5.1.3" },
		{ "RCPT TO:y@home.test\r\n", "501 5.5.4" },
		{ "RCPT TO:<y@home.test> NOTIFY=NEVER\r\n", "555 5.5.4" },
		{ "RCPT TO:<y\xc3\xa4@home.test>\r\n", "553 5.6.7" },
		{ "RCPT TO:<y@home.test>x\r\n", "501 5.5.4" },
		{ "MAIL FROM:<b@b.test>\r\n", "503 5.5.1" },
		{ "DATA\r\n", "503 5.5.1" },
		{ "RCPT TO:<@a.test,@b.test:y@home.test>\r\n", "250 2.1.5" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct run r;

		begin(&r);
		say(&r, HELLO "MAIL FROM:<a@b.test>\r\n");
		buffer_clear(&r.out);
		say(&r, lines[i][0]);
		assert_memory_equal(r.out.data, lines[i][1], 9);
		finish(&r);
	}
}

static void
test_order(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, "MAIL FROM:<a@b.test>\r\n");
	codes(&r, "503");
	say(&r, HELLO "MAIL FROM:<a@b.test>\r\nRCPT TO:<y@home.test>\r\nRSET\r\nDATA\r\n");
	codes(&r, "250 250 250 250 503");
	say(&r, "MAIL FROM:<a@b.test>\r\nRCPT TO:<y@home.test>\r\n" HELLO "DATA\r\n");
	codes(&r, "250 250 250 503");
	say(&r, "MAIL FROM:<a@b.test>\r\nRCPT TO:<n@home.test>\r\nDATA\r\n");
	codes(&r, "250 550 503"); /* RFC 2033: nobody accepted, no DATA */
	finish(&r);
}

static void
test_too_many_bad_commands(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	for (int i = 0; i < LMTP_BAD_COMMANDS; i++)
		say(&r, "NONSENSE\r\n");
	assert_true(r.closed);
	assert_int_equal(r.why, LMTP_CLOSE_BAD_COMMANDS);
	say(&r, "NOOP\r\n"); /* taken and dropped */
	finish(&r);
}

static void
test_too_many_recipients(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO "MAIL FROM:<a@b.test>\r\n");
	buffer_clear(&r.out);
	say(&r, "RCPT TO:<y1@h.test>\r\nRCPT TO:<n@h.test>\r\nRCPT TO:<y2@h.test>\r\n"
	        "RCPT TO:<y3@h.test>\r\nRCPT TO:<y4@h.test>\r\n");
	codes(&r, "250 550 250 250 452");
	say(&r, "DATA\r\n.\r\n");
	codes(&r, "354 250 250 250");
	finish(&r);
}

static void
test_long_lines(void **state)
{
	static char line[3 * LMTP_LINE_MAX];
	struct run r;

	(void)state;
	for (size_t n = LMTP_LINE_MAX - 4; n < LMTP_LINE_MAX + 4; n++) {
		for (size_t piece = 1; piece < 70000; piece += 34567) {
			memset(line, 'x', sizeof(line));
			memcpy(line, "NOOP ", 5);
			memcpy(line + n - 2, "\r\n", 2);
			begin(&r);
			(void)feed(&r, line, n, piece);
			codes(&r, n <= LMTP_LINE_MAX ? "250" : "500");
			say(&r, "NOOP\r\n");
			codes(&r, "250");
			finish(&r);
		}
	}
	begin(&r); /* far too long, and its end is still found; a bare LF in it too */
	memset(line, '\r', sizeof(line));
	(void)feed(&r, line, sizeof(line), 1000);
	say(&r, "\nNOOP\r\n");
	codes(&r, "500 250");
	memset(line, 'x', sizeof(line));
	(void)feed(&r, line, sizeof(line), 1000);
	say(&r, "\n");
	assert_int_equal(r.why, LMTP_CLOSE_BARE_LF);
	finish(&r);
}

static void
test_long_text_lines(void **state)
{
	struct lmtp_options o = defaults;
	char *line = malloc(LMTP_TEXT_LINE_MAX + 3);
	struct run r;

	(void)state;
	o.octets = 3 * LMTP_TEXT_LINE_MAX;
	for (size_t n = LMTP_TEXT_LINE_MAX - 2; n <= LMTP_TEXT_LINE_MAX; n += 2) {
		memset(line, 'x', n);
		memcpy(line + n, "\r\n", 2);
		begin_with(&r, &o);
		say(&r, HELLO ENVELOPE);
		buffer_clear(&r.out);
		(void)feed(&r, line, n + 2, 65536);
		say(&r, ".\r\n");
		codes(&r, n + 2 <= LMTP_TEXT_LINE_MAX ? "250" : "554");
		finish(&r);
	}
	free(line);
}

/* Exactly so many octets as SIZE says, whatever the dots; more are read to the end and refused. */
static void
test_size(void **state)
{
	struct lmtp_options o = defaults;
	struct run r;

	(void)state;
	o.octets = 10;
	begin_with(&r, &o);
	say(&r, HELLO ENVELOPE);
	buffer_clear(&r.out);
	say(&r, "..345678\r\n\r\n.\r\n");
	codes(&r, "552");
	assert_int_equal(r.refused, 1);
	assert_int_equal(lmtp_held(r.s), 0);
	say(&r, ENVELOPE "..34567\r\n.\r\n");
	codes(&r, "250 250 354 250");
	body_is(&r, ".34567\r\n");
	say(&r, "MAIL FROM:<a@b.test> SIZE=10\r\nRSET\r\nMAIL FROM:<a@b.test> SIZE=11\r\n");
	codes(&r, "250 250 552");
	finish(&r);
}

/* --- answers ------------------------------------------------------------------------------------ */

/* Lookups end in any order; replies keep that of the commands, and what follows waits. */
static void
test_replies_keep_their_order(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	r.hold_rcpts = true;
	say(&r, HELLO "MAIL FROM:<a@b.test>\r\n");
	buffer_clear(&r.out);
	say(&r, "RCPT TO:<y@h.test>\r\nRCPT TO:<>\r\nRCPT TO:<n@h.test>\r\nDATA\r\n");
	assert_int_equal(r.held_n, 2);
	assert_int_equal(r.out.len, 0);
	assert_false(lmtp_wants(r.s));
	assert_true(lmtp_answer_rcpt(r.s, r.now, r.held[1], LMTP_NOBODY));
	pump(&r);
	assert_int_equal(r.out.len, 0);
	assert_false(lmtp_answer_rcpt(r.s, r.now, r.held[1], LMTP_YES)); /* once */
	assert_false(lmtp_answer_rcpt(r.s, r.now, r.held[1] + 7, LMTP_YES));
	assert_true(lmtp_answer_rcpt(r.s, r.now, r.held[0], LMTP_YES));
	pump(&r);
	codes(&r, "250 501 550 354");
	finish(&r);
}

static void
test_a_window_of_recipients(void **state)
{
	struct lmtp_options o = defaults;
	struct run r;

	(void)state;
	o.rcpts = 1000;
	begin_with(&r, &o);
	r.hold_rcpts = true;
	say(&r, HELLO "MAIL FROM:<a@b.test>\r\n");
	for (int i = 0; i < LMTP_PIPELINE; i++)
		say(&r, "RCPT TO:<y@h.test>\r\n");
	say(&r, "RCPT TO:<y@h.test>\r\n"); /* taken, and waits */
	assert_int_equal(feed(&r, "NOOP\r\n", 6, 6), 0);
	assert_int_equal(r.held_n, LMTP_PIPELINE);
	buffer_clear(&r.out);
	r.hold_rcpts = false;
	for (int i = 0; i < LMTP_PIPELINE; i++)
		assert_true(lmtp_answer_rcpt(r.s, r.now, r.held[i], LMTP_YES));
	pump(&r);
	assert_int_equal(r.out.len, (LMTP_PIPELINE + 1) * strlen("250 2.1.5 ok\r\n"));
	finish(&r);
}

/* Nothing is said of a mail before it is answered, and nothing is read. */
static void
test_a_mail_waits_for_its_commit(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	r.hold_message = true;
	say(&r, HELLO ENVELOPE);
	buffer_clear(&r.out);
	assert_int_equal(feed(&r, "x\r\n.\r\nNOOP\r\n", 12, 100), 6);
	assert_int_equal(r.messages, 1);
	assert_int_equal(r.out.len, 0);
	assert_int_equal(lmtp_deadline(r.s), -1);
	lmtp_drain(r.s, r.now);
	pump(&r);
	assert_false(r.closed);
	r.fate = LMTP_LATER;
	answer_message(&r);
	pump(&r);
	codes(&r, "451 421");
	assert_int_equal(r.why, LMTP_CLOSE_DRAINED);
	assert_false(lmtp_answer_message(r.s, r.now, &r.fate));
	finish(&r);
}

static void
test_answers_of_a_mail(void **state)
{
	static const struct {
		enum lmtp_answer answer;
		const char *code;
	} all[] = { { LMTP_YES, "250" },
		    { LMTP_NOBODY, "550" },
		    { LMTP_LATER, "451" },
		    { LMTP_TOO_MUCH, "452" },
		    { LMTP_TOO_LARGE, "552" } };
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		r.fate = all[i].answer;
		say(&r, ENVELOPE);
		buffer_clear(&r.out);
		say(&r, ".\r\n");
		codes(&r, all[i].code);
	}
	finish(&r);
}

static void
test_memory_given_back(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO ENVELOPE "some text\r\n");
	assert_true(lmtp_held(r.s) > 0);
	lmtp_shed(r.s);
	assert_int_equal(lmtp_held(r.s), 0);
	buffer_clear(&r.out);
	say(&r, "more\r\n.\r\n");
	codes(&r, "452");
	assert_int_equal(r.messages, 0);
	lmtp_shed(r.s); /* between mails: nothing */
	say(&r, ENVELOPE ".\r\n");
	assert_int_equal(r.messages, 1);
	finish(&r);
}

/* --- time ---------------------------------------------------------------------------------------- */

static void
test_idle(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	assert_int_equal(lmtp_deadline(r.s), 11000);
	r.now = 9000;
	say(&r, "NO"); /* octets that trickle are no command */
	assert_int_equal(lmtp_deadline(r.s), 11000);
	lmtp_tick(r.s, 10999);
	pump(&r);
	assert_false(r.closed);
	say(&r, "OP\r\n");
	codes(&r, "250");
	assert_int_equal(lmtp_deadline(r.s), 19000);
	r.now = 19000;
	lmtp_tick(r.s, r.now);
	pump(&r);
	codes(&r, "421");
	assert_int_equal(r.why, LMTP_CLOSE_IDLE);
	finish(&r);
}

/* A mail may take longer, as long as it goes on, but not for ever. */
static void
test_a_mail_that_trickles(void **state)
{
	struct run r;
	int64_t began;

	(void)state;
	begin(&r);
	say(&r, HELLO ENVELOPE);
	began = r.now;
	while (!r.closed && r.now < began + 1000000) {
		r.now += 9000;
		lmtp_tick(r.s, r.now);
		pump(&r);
		(void)feed(&r, "x", 1, 1);
	}
	assert_int_equal(r.why, LMTP_CLOSE_IDLE);
	assert_true(r.now - began >= LMTP_DATA_IDLES * 10000 &&
	            r.now - began < LMTP_DATA_IDLES * 10000 + 9000);
	finish(&r);
}

static void
test_a_peer_that_takes_no_farewell(void **state)
{
	struct lmtp *s = lmtp_new(&defaults, 0);
	struct lmtp_event e;

	(void)state;
	lmtp_tick(s, 10000);
	assert_false(lmtp_next(s, &e));
	assert_int_equal(lmtp_deadline(s), 20000);
	lmtp_tick(s, 20000);
	assert_true(lmtp_next(s, &e));
	assert_int_equal(e.kind, LMTP_EVENT_CLOSE);
	assert_false(lmtp_next(s, &e));
	assert_int_equal(lmtp_deadline(s), -1);
	lmtp_free(&s);
}

static void
test_drain(void **state)
{
	struct run r;

	(void)state;
	begin(&r);
	say(&r, HELLO ENVELOPE "half a mail");
	buffer_clear(&r.out);
	lmtp_drain(r.s, r.now);
	pump(&r);
	codes(&r, "421");
	assert_int_equal(r.messages, 0);
	assert_int_equal(r.why, LMTP_CLOSE_DRAINED);
	finish(&r);
}

static void
test_refusing(void **state)
{
	struct lmtp *s = lmtp_new_refusing(&defaults, 0);
	struct lmtp_event e;

	(void)state;
	assert_memory_equal(lmtp_output(s).data, "421 4.3.2", 9);
	assert_false(lmtp_next(s, &e));
	lmtp_sent(s, 0, lmtp_output(s).len);
	assert_true(lmtp_next(s, &e));
	assert_int_equal(e.closed, LMTP_CLOSE_REFUSED);
	assert_string_equal(lmtp_close_name(e.closed), "refused");
	lmtp_free(&s);
}

/* --- paths --------------------------------------------------------------------------------------- */

static void
test_paths(void **state)
{
	struct lmtp_path p;
	struct lmtp_mail m;
	char line[2 * LMTP_PATH_MAX];

	(void)state;
	assert_int_equal(lmtp_line_rcpt(SLICE("TO:<\"a.b\"@h.test>"), false, &p), LMTP_LINE_OK);
	assert_string_equal(p.text,
	                    "a.b@h.test"); /* the same mailbox (RFC 5321 section 4.1.2) */
	assert_int_equal(lmtp_line_rcpt(SLICE("to: <\"a\\\"b\\\\\"@h.test>"), false, &p),
	                 LMTP_LINE_OK);
	assert_string_equal(p.text, "a\"b\\@h.test");
	assert_int_equal(lmtp_line_mail(SLICE("FROM:<\"a b\"@h.test>"), &m), LMTP_LINE_OK);
	assert_string_equal(m.sender.text, "\"a b\"@h.test");
	assert_int_equal(lmtp_line_mail(SLICE("FROM:<>  SIZE=5"), &m), LMTP_LINE_OK);
	assert_int_equal(m.sender.len, 0);
	assert_int_equal(m.size, 5);
	for (size_t n = LMTP_PATH_MAX; n <= LMTP_PATH_MAX + 1; n++) {
		(void)snprintf(line, sizeof(line), "TO:<%0*d>", (int)n, 0);
		assert_int_equal(lmtp_line_rcpt(slice_str(line), false, &p),
		                 n == LMTP_PATH_MAX ? LMTP_LINE_OK : LMTP_LINE_PATH);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_mail),
		cmocka_unit_test(test_every_size_of_pieces),
		cmocka_unit_test(test_every_prefix),
		cmocka_unit_test(test_dots_are_unstuffed),
		cmocka_unit_test(test_only_crlf_dot_crlf_ends_a_mail),
		cmocka_unit_test(test_a_bare_lf_in_commands_ends_the_session),
		cmocka_unit_test(test_bad_commands),
		cmocka_unit_test(test_bad_recipients),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_too_many_bad_commands),
		cmocka_unit_test(test_too_many_recipients),
		cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_long_text_lines),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_replies_keep_their_order),
		cmocka_unit_test(test_a_window_of_recipients),
		cmocka_unit_test(test_a_mail_waits_for_its_commit),
		cmocka_unit_test(test_answers_of_a_mail),
		cmocka_unit_test(test_memory_given_back),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_a_mail_that_trickles),
		cmocka_unit_test(test_a_peer_that_takes_no_farewell),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_refusing),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
