/*
 * LMTP's machine under decisions: what the peer sends in which pieces, when and how lookups and
 * mails are answered, how time goes. Replies never outrun what was asked, a mail is told once and
 * only with recipients, and no bare LF is ever part of one.
 */
#include "fuzz.h"

#include "home/lmtp.h"

#define HELD_MAX 256

struct run {
	struct lmtp *s;
	int64_t now;
	uint64_t held[HELD_MAX];
	size_t held_n;
	bool message, closed;
};

static void
check_body(const struct buffer *body)
{
	MUST(body->len <= 4096);
	for (size_t i = 0; i < body->len; i++)
		MUST(body->data[i] != '\n' || (i > 0 && body->data[i - 1] == '\r'));
}

static void
take_message(struct run *r)
{
	struct buffer body;
	size_t n = lmtp_rcpts(r->s);

	MUST(n > 0 && n <= 5 && !r->message);
	for (size_t i = 0; i < n; i++)
		MUST(lmtp_rcpt(r->s, i).len > 0);
	lmtp_take_body(r->s, &body);
	check_body(&body);
	buffer_free(&body);
	r->message = true;
}

static void
take_events(struct run *r)
{
	struct lmtp_event e;

	while (lmtp_next(r->s, &e)) {
		MUST(!r->closed);
		switch (e.kind) {
		case LMTP_EVENT_RCPT:
			MUST(r->held_n < LMTP_PIPELINE);
			r->held[r->held_n++] = e.seq;
			break;
		case LMTP_EVENT_MESSAGE:
			take_message(r);
			break;
		case LMTP_EVENT_REFUSED:
			MUST(e.reason != NULL);
			break;
		case LMTP_EVENT_CLOSE:
			r->closed = true;
			MUST(lmtp_output(r->s).len == 0);
			break;
		}
	}
}

static void
answer_one(struct run *r, uint8_t op)
{
	size_t at;
	uint64_t seq;

	if (r->held_n == 0)
		return;
	at = op % r->held_n;
	seq = r->held[at];
	r->held[at] = r->held[--r->held_n];
	MUST(lmtp_answer_rcpt(r->s, r->now, seq, (enum lmtp_answer)(1 + op / 16 % 5)));
	MUST(!lmtp_answer_rcpt(r->s, r->now, seq, LMTP_YES));
}

static void
answer_message(struct run *r, uint8_t op)
{
	enum lmtp_answer answers[5];

	for (size_t i = 0; i < 5; i++)
		answers[i] = (enum lmtp_answer)(1 + (op + i) % 5);
	/* A session that has closed meanwhile wants no answer any more. */
	if (lmtp_answer_message(r->s, r->now, answers))
		MUST(r->message);
	r->message = false;
}

static void
feed(struct run *r, struct slice part)
{
	bool wants = lmtp_wants(r->s);
	size_t n = lmtp_feed(r->s, r->now, part.data, part.len);

	MUST(n <= part.len && (wants || n == 0));
	MUST(n == part.len || !lmtp_wants(r->s));
}

static void
step(struct run *r, struct slice *in)
{
	uint8_t op = fuzz_octet(in);

	switch (op % 16) {
	case 0:
		feed(r, fuzz_octets(in, fuzz_octet(in)));
		break;
	case 1:
		answer_one(r, op);
		break;
	case 2:
		answer_message(r, op);
		break;
	case 3:
		lmtp_sent(r->s, r->now,
		          op > 64 ? lmtp_output(r->s).len : lmtp_output(r->s).len / 2);
		break;
	case 4:
		r->now += fuzz_octet(in) * INT64_C(500);
		lmtp_tick(r->s, r->now);
		break;
	case 5:
		if (op > 200)
			lmtp_shed(r->s);
		break;
	case 6:
		if (op > 240)
			lmtp_eof(r->s, r->now);
		else if (op > 224)
			lmtp_drain(r->s, r->now);
		break;
	default: { /* a line, whole: most of the time something is understood */
		const uint8_t *lf = in->len == 0 ? NULL : memchr(in->data, '\n', in->len);

		feed(r, fuzz_octets(in, lf == NULL ? in->len : (size_t)(lf - in->data) + 1));
		break;
	}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lmtp_options o = { .host = "h", .octets = 4096, .rcpts = 5, .idle_s = 10 };
	struct slice in = slice_mem(data, size);
	struct run r = { .s = lmtp_new(&o, 0) };

	MUST(r.s != NULL);
	while (in.len > 0) {
		step(&r, &in);
		take_events(&r);
		MUST(!r.closed || lmtp_deadline(r.s) == -1);
		MUST(lmtp_held(r.s) <= 4096);
	}
	lmtp_free(&r.s);
	return 0;
}
