/*
 * LMTP's session: see lmtp.h. RCPTs are looked up while more of them come in;
 * every other command waits until they are answered, so that replies keep the
 * order of commands. While a message is stored nothing is read.
 */
#include "home/lmtp.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>

#define OUT_MAX 262144 /* a reply for each of a thousand recipients, and more */
#define OUT_HIGH 32768 /* beyond it nothing is read */

/* A RCPT whose reply isn't written yet. */
struct slot {
	const char *reply; /* NULL: to be answered */
	enum lmtp_answer answer;
	bool told;
	struct lmtp_path address;
};

enum phase {
	COMMANDS,
	TEXT,    /* of a message */
	STORING, /* a message waits for its answer */
	CLOSING,
};

/* Where in a message's line the next octet stands. */
enum at { AT_START, AT_DOT, AT_DOT_CR, AT_TEXT, AT_CR };

struct lmtp {
	struct lmtp_options options;
	enum phase phase;
	struct buffer out;
	int64_t since_ms;      /* of the wait that a deadline counts */
	int64_t text_since_ms; /* DATA's 354 */

	char line[LMTP_LINE_MAX];
	size_t line_len;
	bool line_long, line_ready;

	bool greeted, in_mail, utf8;
	struct lmtp_path sender;
	struct lmtp_path *rcpts; /* accepted */
	size_t rcpts_n, rcpts_cap;

	struct slot slots[LMTP_PIPELINE]; /* a ring: first_seq is slots[first_seq % size] */
	uint64_t first_seq, next_seq;

	enum at at;
	struct buffer body;
	size_t text_line; /* octets of this line */
	const char *text_refusal, *text_reason;
	bool tell_message, tell_refused;
	const char *told_reason;

	unsigned bad_commands;
	bool ended, draining, closed_told;
	enum lmtp_close close;
};

static const char *const close_names[] = {
	[LMTP_CLOSE_NONE] = "none",
	[LMTP_CLOSE_QUIT] = "quit",
	[LMTP_CLOSE_EOF] = "eof",
	[LMTP_CLOSE_IDLE] = "idle",
	[LMTP_CLOSE_BARE_LF] = "bare-lf",
	[LMTP_CLOSE_BAD_COMMANDS] = "bad-commands",
	[LMTP_CLOSE_DRAINED] = "drained",
	[LMTP_CLOSE_REFUSED] = "refused",
	[LMTP_CLOSE_NO_MEMORY] = "no-memory",
};

const char *
lmtp_close_name(enum lmtp_close reason)
{
	return (size_t)reason < sizeof(close_names) / sizeof(close_names[0])
	           ? close_names[reason]
	           : "";
}

/* --- replies ------------------------------------------------------------------------ */

#define R_OK "250 2.0.0 ok\r\n"
#define R_SENDER_OK "250 2.1.0 ok\r\n"
#define R_RCPT_OK "250 2.1.5 ok\r\n"
#define R_STORED "250 2.0.0 stored\r\n"
#define R_GO_ON "354 end with <CRLF>.<CRLF>\r\n"
#define R_BYE "221 2.0.0 bye\r\n"
#define R_VRFY "252 2.5.0 try RCPT\r\n"
#define R_UNKNOWN "500 5.5.1 unknown command\r\n"
#define R_HELO "500 5.5.1 this is LMTP, say LHLO\r\n"
#define R_LONG_LINE "500 5.5.6 line too long\r\n"
#define R_CHARS "500 5.5.2 controls in a command\r\n"
#define R_SYNTAX "501 5.5.4 syntax\r\n"
#define R_BAD_PATH "501 5.1.7 not an address\r\n"
#define R_BAD_RCPT "501 5.1.3 not an address\r\n"
#define R_ORDER "503 5.5.1 out of order\r\n"
#define R_NO_RCPT "503 5.5.1 no valid recipients\r\n"
#define R_UTF8 "553 5.6.7 needs SMTPUTF8, and UTF-8\r\n"
#define R_PARAM "555 5.5.4 unknown parameter\r\n"
#define R_NOBODY "550 5.1.1 no mail is taken for this address\r\n"
#define R_LATER "451 4.3.0 not now, try again later\r\n"
#define R_TOO_MUCH "452 4.3.1 short of memory, try again later\r\n"
#define R_TOO_MANY "452 4.5.3 too many recipients\r\n"
#define R_TOO_LARGE "552 5.3.4 message too large\r\n"
#define R_BARE_LF "550 5.6.11 bare <LF> within the message\r\n"
#define R_LONG_TEXT "554 5.6.0 line too long within the message\r\n"
#define R_CLOSE_LF "521 5.5.2 bare <LF>, closing\r\n"
#define R_CLOSE_IDLE "421 4.4.2 nothing happened, closing\r\n"
#define R_CLOSE_BAD "421 4.7.0 too many errors, closing\r\n"
#define R_CLOSE_DRAIN "421 4.3.2 shutting down\r\n"
#define R_CLOSE_FULL "421 4.3.2 too many connections\r\n"

static void
begin_close(struct lmtp *s, enum lmtp_close reason, const char *reply)
{
	if (s->phase == CLOSING)
		return;
	if (reply != NULL)
		buffer_add_str(&s->out, reply);
	s->phase = CLOSING;
	s->close = s->out.failed ? LMTP_CLOSE_NO_MEMORY : reason;
	buffer_free(&s->body);
}

static void
say(struct lmtp *s, const char *reply)
{
	buffer_add_str(&s->out, reply);
	if (s->out.failed)
		begin_close(s, LMTP_CLOSE_NO_MEMORY, NULL);
}

/* A command that is wrong in itself. */
static void
say_bad(struct lmtp *s, const char *reply)
{
	say(s, reply);
	if (++s->bad_commands >= LMTP_BAD_COMMANDS)
		begin_close(s, LMTP_CLOSE_BAD_COMMANDS, R_CLOSE_BAD);
}

static const char *
reply_of(enum lmtp_answer answer, const char *yes)
{
	switch (answer) {
	case LMTP_YES:
		return yes;
	case LMTP_NOBODY:
		return R_NOBODY;
	case LMTP_TOO_MUCH:
		return R_TOO_MUCH;
	case LMTP_TOO_LARGE:
		return R_TOO_LARGE;
	case LMTP_LATER:
		break;
	}
	return R_LATER;
}

/* --- a transaction -------------------------------------------------------------------- */

static size_t
unanswered(const struct lmtp *s)
{
	return (size_t)(s->next_seq - s->first_seq);
}

static void
forget_mail(struct lmtp *s)
{
	s->in_mail = false;
	s->rcpts_n = 0;
	s->text_refusal = NULL;
	buffer_free(&s->body);
}

static bool
keep_rcpt(struct lmtp *s, const struct lmtp_path *address)
{
	if (s->rcpts_n == s->rcpts_cap) {
		size_t cap = s->rcpts_cap == 0 ? 4 : 2 * s->rcpts_cap;
		struct lmtp_path *more = realloc(s->rcpts, cap * sizeof(*more));

		if (more == NULL)
			return false;
		s->rcpts = more;
		s->rcpts_cap = cap;
	}
	s->rcpts[s->rcpts_n++] = *address;
	return true;
}

/* Replies of RCPTs that nothing stands before. */
static void
flush_slots(struct lmtp *s)
{
	while (s->first_seq < s->next_seq && s->phase == COMMANDS) {
		struct slot *slot = &s->slots[s->first_seq % LMTP_PIPELINE];

		if (slot->reply == NULL)
			return;
		s->first_seq++;
		if (slot->answer == LMTP_YES && s->rcpts_n >= s->options.rcpts)
			slot->reply = R_TOO_MANY;
		else if (slot->answer == LMTP_YES && !keep_rcpt(s, &slot->address))
			slot->reply = R_TOO_MUCH;
		say(s, slot->reply);
	}
}

/* --- commands ------------------------------------------------------------------------- */

static void
on_lhlo(struct lmtp *s, struct slice args)
{
	if (args.len == 0) {
		say_bad(s, R_SYNTAX);
		return;
	}
	forget_mail(s);
	s->greeted = true;
	buffer_add_fmt(&s->out, "250-%s\r\n250-PIPELINING\r\n250-SIZE %zu\r\n250-8BITMIME\r\n",
	               s->options.host, s->options.octets);
	say(s, "250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n");
}

static const char *
line_reply(enum lmtp_line_rc rc, const char *bad_path)
{
	switch (rc) {
	case LMTP_LINE_PATH:
		return bad_path;
	case LMTP_LINE_UTF8:
		return R_UTF8;
	case LMTP_LINE_PARAM:
		return R_PARAM;
	case LMTP_LINE_OK:
	case LMTP_LINE_SYNTAX:
	case LMTP_LINE_VALUE:
		break;
	}
	return R_SYNTAX;
}

static void
on_mail(struct lmtp *s, struct slice args)
{
	struct lmtp_mail mail;
	enum lmtp_line_rc rc;

	if (!s->greeted || s->in_mail) {
		say_bad(s, R_ORDER);
		return;
	}
	rc = lmtp_line_mail(args, &mail);
	if (rc != LMTP_LINE_OK) {
		say_bad(s, line_reply(rc, R_BAD_PATH));
	} else if (mail.has_size && mail.size > s->options.octets) {
		say(s, R_TOO_LARGE);
	} else {
		s->in_mail = true;
		s->utf8 = mail.utf8;
		s->sender = mail.sender;
		say(s, R_SENDER_OK);
	}
}

/* In the order of commands, behind those that are looked up. */
static void
on_rcpt(struct lmtp *s, struct slice args)
{
	struct slot *slot = &s->slots[s->next_seq % LMTP_PIPELINE];
	enum lmtp_line_rc rc;

	*slot = (struct slot){ .reply = NULL };
	if (!s->in_mail) {
		slot->reply = R_ORDER;
		s->bad_commands++;
	} else if ((rc = lmtp_line_rcpt(args, s->utf8, &slot->address)) != LMTP_LINE_OK) {
		slot->reply = line_reply(rc, R_BAD_RCPT);
		s->bad_commands++;
	} else if (s->rcpts_n >= s->options.rcpts) {
		slot->reply = R_TOO_MANY;
	}
	s->next_seq++;
	flush_slots(s);
	if (s->bad_commands >= LMTP_BAD_COMMANDS && unanswered(s) == 0)
		begin_close(s, LMTP_CLOSE_BAD_COMMANDS, R_CLOSE_BAD);
}

static void
on_data(struct lmtp *s, struct slice args, int64_t now_ms)
{
	if (args.len > 0) {
		say_bad(s, R_SYNTAX);
	} else if (!s->in_mail) {
		say_bad(s, R_ORDER);
	} else if (s->rcpts_n == 0) {
		say(s, R_NO_RCPT);
	} else {
		say(s, R_GO_ON);
		if (s->phase != COMMANDS)
			return;
		s->phase = TEXT;
		s->at = AT_START;
		s->text_line = 0;
		s->text_refusal = NULL;
		s->text_since_ms = now_ms;
		buffer_init(&s->body, s->options.octets);
	}
}

static bool
has_controls(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((uint8_t)line[i] < 0x20 && line[i] != '\t') || line[i] == 0x7f)
			return true;
	return false;
}

static void
run_verb(struct lmtp *s, enum lmtp_verb verb, struct slice args, int64_t now_ms)
{
	switch (verb) {
	case LMTP_LHLO:
		on_lhlo(s, args);
		break;
	case LMTP_MAIL:
		on_mail(s, args);
		break;
	case LMTP_RCPT_TO:
		on_rcpt(s, args);
		break;
	case LMTP_DATA:
		on_data(s, args, now_ms);
		break;
	case LMTP_RSET:
		forget_mail(s);
		say(s, R_OK);
		break;
	case LMTP_NOOP:
		say(s, R_OK);
		break;
	case LMTP_QUIT:
		begin_close(s, LMTP_CLOSE_QUIT, R_BYE);
		break;
	case LMTP_VRFY:
		say(s, R_VRFY);
		break;
	case LMTP_HELO:
		say_bad(s, R_HELO);
		break;
	case LMTP_UNKNOWN:
		say_bad(s, R_UNKNOWN);
		break;
	}
}

/* The line that is complete, unless it has to wait for RCPTs before it. */
static void
run_line(struct lmtp *s, int64_t now_ms)
{
	struct slice line = slice_mem(s->line, s->line_len - 2), args;
	enum lmtp_verb verb = s->line_long ? LMTP_UNKNOWN : lmtp_line_verb(line, &args);
	bool controls = !s->line_long && has_controls(s->line, line.len);

	if (verb == LMTP_RCPT_TO && !controls ? unanswered(s) == LMTP_PIPELINE
	                                      : unanswered(s) > 0)
		return;
	s->line_ready = false;
	s->since_ms = now_ms;
	if (s->line_long)
		say_bad(s, R_LONG_LINE);
	else if (controls)
		say_bad(s, R_CHARS);
	else
		run_verb(s, verb, args, now_ms);
	s->line_len = 0;
	s->line_long = false;
}

/* A line beyond its limit: only its last two octets count, lest its end be missed. */
static void
keep_end_of_line(struct lmtp *s, const uint8_t *data, size_t n)
{
	char before = ' ';

	if (n >= 2)
		before = (char)data[n - 2];
	else if (s->line_len > 0)
		before = s->line[s->line_len - 1];
	s->line[0] = before;
	s->line[1] = (char)data[n - 1];
	s->line_len = 2;
	s->line_long = true;
}

/* Octets of a command line, at most up to its end. */
static size_t
take_line(struct lmtp *s, const uint8_t *data, size_t len)
{
	const uint8_t *lf = memchr(data, '\n', len);
	size_t n = lf == NULL ? len : (size_t)(lf - data) + 1;

	if (s->line_long || n > sizeof(s->line) - s->line_len) {
		keep_end_of_line(s, data, n);
	} else {
		memcpy(s->line + s->line_len, data, n);
		s->line_len += n;
	}
	if (lf == NULL)
		return n;
	if (s->line_len >= 2 && s->line[s->line_len - 2] == '\r')
		s->line_ready = true;
	else
		begin_close(s, LMTP_CLOSE_BARE_LF, R_CLOSE_LF);
	return n;
}

/* --- a message ------------------------------------------------------------------------- */

static void
refuse_text(struct lmtp *s, const char *reply, const char *reason)
{
	if (s->text_refusal == NULL) {
		s->text_refusal = reply;
		s->text_reason = reason;
	}
	buffer_free(&s->body);
}

static void
add_text(struct lmtp *s, const void *data, size_t len)
{
	if (s->text_refusal != NULL || len == 0)
		return;
	s->text_line += len;
	if (s->text_line > LMTP_TEXT_LINE_MAX) {
		refuse_text(s, R_LONG_TEXT, "a line is too long");
		return;
	}
	if (len > s->options.octets - s->body.len) {
		refuse_text(s, R_TOO_LARGE, "the message is too large");
		return;
	}
	buffer_add(&s->body, data, len);
	if (s->body.failed)
		refuse_text(s, R_TOO_MUCH, "out of memory");
}

static void
end_text(struct lmtp *s, int64_t now_ms)
{
	s->since_ms = now_ms;
	if (s->text_refusal == NULL) {
		s->phase = STORING;
		s->tell_message = true;
		return;
	}
	s->phase = COMMANDS;
	s->tell_refused = true;
	s->told_reason = s->text_reason;
	for (size_t i = 0; i < s->rcpts_n && s->phase == COMMANDS; i++)
		say(s, s->text_refusal);
	forget_mail(s);
}

/* Octets of a line that are neither CR nor LF. */
static size_t
plain_run(const uint8_t *data, size_t len)
{
	const uint8_t *lf = memchr(data, '\n', len), *cr;

	if (lf != NULL)
		len = (size_t)(lf - data);
	cr = len == 0 ? NULL : memchr(data, '\r', len);
	return cr == NULL ? len : (size_t)(cr - data);
}

/* One octet where a run ends or a line begins. True: it was the message's last. */
static bool
take_octet(struct lmtp *s, uint8_t c)
{
	if (s->at == AT_START && c == '.') {
		s->at = AT_DOT;
		return false;
	}
	if (s->at == AT_DOT && c == '\r') {
		s->at = AT_DOT_CR;
		return false;
	}
	if (s->at == AT_DOT_CR && c == '\n')
		return true;
	if (s->at == AT_CR && c == '\n') {
		add_text(s, "\r\n", 2);
		s->text_line = 0;
		s->at = AT_START;
		return false;
	}
	if (s->at == AT_CR || s->at == AT_DOT_CR)
		add_text(s, "\r", 1);
	if (c == '\r') {
		s->at = AT_CR;
		return false;
	}
	if (c == '\n')
		refuse_text(s, R_BARE_LF, "bare LF");
	else
		add_text(s, &c, 1);
	s->at = AT_TEXT;
	return false;
}

static size_t
take_text(struct lmtp *s, int64_t now_ms, const uint8_t *data, size_t len)
{
	size_t n = 0;

	s->since_ms = now_ms;
	while (n < len) {
		if (s->at == AT_TEXT) {
			size_t run = plain_run(data + n, len - n);

			add_text(s, data + n, run);
			n += run;
			if (n == len)
				break;
		}
		if (take_octet(s, data[n++])) {
			end_text(s, now_ms);
			break;
		}
	}
	return n;
}

/* --- octets in ---------------------------------------------------------------------------- */

bool
lmtp_wants(const struct lmtp *s)
{
	if (s->phase == CLOSING)
		return true;
	return s->phase != STORING && !s->line_ready && s->out.len < OUT_HIGH;
}

/* What a peer that has gone, or a server that ends, leaves to be done: nothing. */
static void
close_when_idle(struct lmtp *s)
{
	if (s->phase == STORING || unanswered(s) > 0 || s->line_ready)
		return;
	if (s->draining)
		begin_close(s, LMTP_CLOSE_DRAINED, R_CLOSE_DRAIN);
	else if (s->ended)
		begin_close(s, LMTP_CLOSE_EOF, NULL);
}

static void
run(struct lmtp *s, int64_t now_ms)
{
	flush_slots(s);
	if (s->bad_commands >= LMTP_BAD_COMMANDS && unanswered(s) == 0)
		begin_close(s, LMTP_CLOSE_BAD_COMMANDS, R_CLOSE_BAD);
	if (s->line_ready && s->phase == COMMANDS)
		run_line(s, now_ms);
	close_when_idle(s);
}

size_t
lmtp_feed(struct lmtp *s, int64_t now_ms, const uint8_t *data, size_t len)
{
	size_t n = 0;

	while (n < len && lmtp_wants(s)) {
		if (s->phase == CLOSING)
			return len;
		if (s->phase == TEXT)
			n += take_text(s, now_ms, data + n, len - n);
		else
			n += take_line(s, data + n, len - n);
		run(s, now_ms);
	}
	return n;
}

void
lmtp_eof(struct lmtp *s, int64_t now_ms)
{
	s->ended = true;
	run(s, now_ms);
}

void
lmtp_drain(struct lmtp *s, int64_t now_ms)
{
	s->draining = true;
	run(s, now_ms);
}

/* --- events and answers ------------------------------------------------------------------- */

static bool
next_rcpt(struct lmtp *s, struct lmtp_event *out)
{
	for (uint64_t seq = s->first_seq; seq < s->next_seq; seq++) {
		struct slot *slot = &s->slots[seq % LMTP_PIPELINE];

		if (slot->told || slot->reply != NULL)
			continue;
		slot->told = true;
		*out = (struct lmtp_event){ .kind = LMTP_EVENT_RCPT,
			                    .seq = seq,
			                    .address = slice_mem(slot->address.text,
			                                         slot->address.len) };
		return true;
	}
	return false;
}

bool
lmtp_next(struct lmtp *s, struct lmtp_event *out)
{
	if (s->tell_refused) {
		s->tell_refused = false;
		*out =
		    (struct lmtp_event){ .kind = LMTP_EVENT_REFUSED, .reason = s->told_reason };
		return true;
	}
	if (s->phase == CLOSING) {
		if (s->closed_told || s->out.len > 0)
			return false;
		s->closed_told = true;
		*out = (struct lmtp_event){ .kind = LMTP_EVENT_CLOSE, .closed = s->close };
		return true;
	}
	if (s->tell_message) {
		s->tell_message = false;
		*out = (struct lmtp_event){ .kind = LMTP_EVENT_MESSAGE };
		return true;
	}
	return next_rcpt(s, out);
}

bool
lmtp_answer_rcpt(struct lmtp *s, int64_t now_ms, uint64_t seq, enum lmtp_answer answer)
{
	struct slot *slot = &s->slots[seq % LMTP_PIPELINE];

	if (seq < s->first_seq || seq >= s->next_seq || !slot->told || slot->reply != NULL)
		return false;
	slot->answer = answer;
	slot->reply = reply_of(answer, R_RCPT_OK);
	s->since_ms = now_ms;
	run(s, now_ms);
	return true;
}

struct slice
lmtp_sender(const struct lmtp *s)
{
	return slice_mem(s->sender.text, s->sender.len);
}

size_t
lmtp_rcpts(const struct lmtp *s)
{
	return s->rcpts_n;
}

struct slice
lmtp_rcpt(const struct lmtp *s, size_t i)
{
	return slice_mem(s->rcpts[i].text, s->rcpts[i].len);
}

void
lmtp_take_body(struct lmtp *s, struct buffer *out)
{
	*out = s->body;
	buffer_init(&s->body, s->options.octets);
}

bool
lmtp_answer_message(struct lmtp *s, int64_t now_ms, const enum lmtp_answer *answers)
{
	if (s->phase != STORING || s->tell_message)
		return false;
	s->phase = COMMANDS;
	s->since_ms = now_ms;
	for (size_t i = 0; i < s->rcpts_n && s->phase == COMMANDS; i++)
		say(s, reply_of(answers[i], R_STORED));
	forget_mail(s);
	run(s, now_ms);
	return true;
}

size_t
lmtp_held(const struct lmtp *s)
{
	return s->body.cap;
}

void
lmtp_shed(struct lmtp *s)
{
	if (s->phase == TEXT)
		refuse_text(s, R_TOO_MUCH, "too many messages at a time");
}

/* --- octets out, and time -------------------------------------------------------------------- */

struct slice
lmtp_output(const struct lmtp *s)
{
	return buffer_slice(&s->out);
}

void
lmtp_sent(struct lmtp *s, int64_t now_ms, size_t n)
{
	(void)now_ms;
	buffer_consume(&s->out, n);
}

int64_t
lmtp_deadline(const struct lmtp *s)
{
	int64_t idle_ms = (int64_t)s->options.idle_s * 1000, due = s->since_ms + idle_ms;

	if (s->phase == CLOSING)
		return s->out.len > 0 ? due : -1;
	if (s->phase == STORING || unanswered(s) > 0)
		return -1;
	if (s->phase == TEXT && s->text_since_ms + LMTP_DATA_IDLES * idle_ms < due)
		due = s->text_since_ms + LMTP_DATA_IDLES * idle_ms;
	return due;
}

void
lmtp_tick(struct lmtp *s, int64_t now_ms)
{
	int64_t due = lmtp_deadline(s);

	if (due < 0 || now_ms < due)
		return;
	if (s->phase == CLOSING)
		buffer_clear(&s->out); /* nobody takes it */
	else
		begin_close(s, LMTP_CLOSE_IDLE, R_CLOSE_IDLE);
	s->since_ms = now_ms;
}

/* --- life --------------------------------------------------------------------------------------- */

static struct lmtp *
make(const struct lmtp_options *options, int64_t now_ms)
{
	struct lmtp *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->options = *options;
	s->since_ms = now_ms;
	buffer_init(&s->out, OUT_MAX);
	buffer_init(&s->body, options->octets);
	return s;
}

struct lmtp *
lmtp_new(const struct lmtp_options *options, int64_t now_ms)
{
	struct lmtp *s = make(options, now_ms);

	if (s == NULL)
		return NULL;
	buffer_add_fmt(&s->out, "220 %s LMTP\r\n", options->host);
	if (s->out.failed)
		lmtp_free(&s);
	return s;
}

struct lmtp *
lmtp_new_refusing(const struct lmtp_options *options, int64_t now_ms)
{
	struct lmtp *s = make(options, now_ms);

	if (s != NULL)
		begin_close(s, LMTP_CLOSE_REFUSED, R_CLOSE_FULL);
	return s;
}

void
lmtp_free(struct lmtp **session)
{
	struct lmtp *s = *session;

	*session = NULL;
	if (s == NULL)
		return;
	buffer_free(&s->out);
	buffer_free(&s->body);
	free(s->rcpts);
	free(s);
}
