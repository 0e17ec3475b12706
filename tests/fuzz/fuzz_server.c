/*
 * The server machine. An even first octet: the rest is decisions (feed, reply,
 * send, time, drain, end). An odd one: the rest is a stream, fed at once and
 * octet by octet; the sessions must be the same.
 */
#include "fuzz.h"

#include "dmtp/server.h"

#define OUT_MAX (1 << 22)

static struct dmtp_server *
make(uint8_t flags)
{
	struct dmtp_server_options o = { .greeting = { .version = 1,
		                                       .host = "mx.example",
		                                       .ext = DMTP_EXT_ALL,
		                                       .limits = dmtp_limits_floor() } };

	o.secured = (flags & 2) != 0;
	o.plain_allowed = (flags & 4) != 0;
	o.greeting.tls = (flags & 8) != 0;
	return dmtp_server_new(&o, 0);
}

/* --- a stream, two ways ---------------------------------------------------- */

static void
send_all(struct dmtp_server *s, struct buffer *out)
{
	struct slice o = dmtp_server_output(s);

	buffer_add_slice(out, o);
	dmtp_server_sent(s, 0, o.len);
}

struct way {
	struct buffer events, octets; /* each in order; how they mix depends on the chunks */
};

static void
run_stream(uint8_t flags, struct slice in, size_t step, struct way *way)
{
	struct dmtp_server *s = make(flags);
	struct dmtp_server_event e;
	bool closed = false;

	MUST(s != NULL);
	buffer_init(&way->events, OUT_MAX);
	buffer_init(&way->octets, OUT_MAX);
	while (!closed) {
		struct slice part = slice_mem(in.data, in.len < step ? in.len : step);
		size_t n = dmtp_server_feed(s, 0, part.data, part.len);

		MUST(n <= part.len);
		in = slice_mem(in.data + n, in.len - n);
		if (in.len == 0)
			dmtp_server_eof(s, 0);
		while (dmtp_server_next(s, &e)) {
			buffer_add_fmt(&way->events, "(%d %d %zu %d)", e.kind, e.command.verb,
			               e.octets, e.reason);
			closed = e.kind == DMTP_SERVER_CLOSE;
			if (e.kind == DMTP_SERVER_COMMAND)
				MUST(dmtp_server_reply(s, 0, e.seq, &DMTP_RESPONSE_K));
		}
		send_all(s, &way->octets);
	}
	dmtp_server_free(&s);
}

static void
compare_ways(uint8_t flags, struct slice in)
{
	struct way once, bits;

	/* STARTTLS is judged by what stands behind it at that moment: not comparable */
	if (memmem(in.data, in.len, "STARTTLS", 8) != NULL)
		return;
	run_stream(flags, in, SIZE_MAX, &once);
	run_stream(flags, in, 1, &bits);
	MUST(slice_eq(buffer_slice(&once.events), buffer_slice(&bits.events)));
	MUST(slice_eq(buffer_slice(&once.octets), buffer_slice(&bits.octets)));
	buffer_free(&once.events);
	buffer_free(&once.octets);
	buffer_free(&bits.events);
	buffer_free(&bits.octets);
}

/* --- decisions ------------------------------------------------------------- */

struct run {
	struct dmtp_server *s;
	int64_t now;
	uint64_t waiting[256];
	size_t count;
	bool closed;
};

static void
take_events(struct run *r)
{
	struct dmtp_greeting g = {
		.version = 1, .host = "x", .ext = 7, .limits = dmtp_limits_floor()
	};
	struct dmtp_server_event e;
	struct ben_reader it;
	struct dmtp_rcpt rcpt;

	while (dmtp_server_next(r->s, &e)) {
		MUST(!r->closed);
		switch (e.kind) {
		case DMTP_SERVER_COMMAND:
			MUST(r->count < 256);
			r->waiting[r->count++] = e.seq;
			if (e.command.verb != DMTP_POST)
				break;
			ben_reader_init(&it, e.command.post.rcpts);
			while (dmtp_rcpt_next(&it, &rcpt))
				;
			break;
		case DMTP_SERVER_STARTTLS:
			MUST(dmtp_server_secured(r->s, r->now, &g));
			break;
		default:
			r->closed = true;
			MUST(dmtp_server_output(r->s).len == 0);
			break;
		}
	}
}

static void
reply_one(struct run *r, uint8_t which, uint8_t how)
{
	static const enum dmtp_letter letters[] = { DMTP_K, DMTP_E, DMTP_Z };
	struct dmtp_response response =
	    dmtp_response_make(letters[how % 3], (enum dmtp_code)(how % DMTP_CODE_OTHER), how);
	size_t i;

	if (r->count == 0)
		return;
	i = which % r->count;
	MUST(dmtp_server_reply(r->s, r->now, r->waiting[i], &response));
	MUST(r->closed || !dmtp_server_reply(r->s, r->now, r->waiting[i] + 1000, &response));
	r->waiting[i] = r->waiting[--r->count];
}

static void
run_decisions(uint8_t flags, struct slice in)
{
	struct run r = { .s = make(flags) };
	struct slice part;

	MUST(r.s != NULL);
	while (in.len > 0) {
		uint8_t op = fuzz_octet(&in);

		switch (op % 8) {
		case 0:
		case 1:
		case 2:
			part = fuzz_octets(&in, fuzz_octet(&in));
			MUST(dmtp_server_feed(r.s, r.now, part.data, part.len) <= part.len);
			break;
		case 3:
			reply_one(&r, fuzz_octet(&in), op / 8);
			break;
		case 4:
			dmtp_server_sent(r.s, r.now, fuzz_octet(&in));
			break;
		case 5:
			r.now += fuzz_octet(&in) * INT64_C(2000);
			dmtp_server_tick(r.s, r.now);
			break;
		case 6:
			if (op > 128)
				dmtp_server_drain(r.s, r.now, NULL);
			else
				dmtp_server_info(r.s, r.now,
				                 &(struct dmtp_response){ .letter = DMTP_I });
			break;
		default:
			if (op > 200)
				dmtp_server_eof(r.s, r.now);
			dmtp_server_sent(r.s, r.now, SIZE_MAX);
			break;
		}
		take_events(&r);
		MUST(!r.closed || dmtp_server_deadline(r.s) == -1);
		MUST(dmtp_server_unanswered(r.s) <= dmtp_server_limits(r.s)->pipeline);
	}
	dmtp_server_free(&r.s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_mem(data, size);
	uint8_t flags = fuzz_octet(&in);

	if ((flags & 1) != 0)
		compare_ways(flags, in);
	else
		run_decisions(flags, in);
	return 0;
}
