/*
 * The server's session machine: see server.h. Every command takes a place in
 * a ring of replies, the machine's own answers too; what stands at its front
 * and is ready goes out. That is all that keeps the order.
 */
#include "dmtp/server.h"

#include "dmtp/stream.h"

#include <stdio.h>
#include <stdlib.h>

#define READ_AHEAD 65536    /* octets taken beyond one command */
#define OUTPUT_BOUND 262144 /* nothing is read while more than this waits to be sent */
#define RING_FIRST 8

enum server_phase {
	READY,
	DRAINING, /* X is said; what was already sent is still answered */
	TURNING,  /* STARTTLS is granted: no octet may come before the handshake */
	ENDING,   /* nothing more is read; what is due is written, then CLOSE */
	OVER,
};

enum server_step { STEP_WAIT, STEP_AGAIN, STEP_EVENT };

struct place {
	struct buffer reply; /* encoded, while earlier ones are missing */
	enum dmtp_verb verb;
	bool ready;
	bool x_after; /* an X follows this reply */
};

struct dmtp_server {
	struct inlet in;
	struct outlet out;
	struct dmtp_limits limits;
	struct place *ring;
	size_t ring_cap; /* a power of two, or 0 */
	uint64_t first_seq, next_seq;
	uint64_t replies_end; /* outlet_total behind the last reply written */
	int64_t now_ms;
	int64_t heard_ms;     /* the last octets came */
	int64_t active_ms;    /* the last sign of life in either direction */
	int64_t begun_ms;     /* a command's first octet came, or -1 */
	int64_t handshake_ms; /* by when it must be done, or -1 */
	int64_t drain_ms;     /* when draining ends, or -1 */
	enum server_phase phase;
	enum dmtp_close reason;
	unsigned ext;
	uint32_t noops, bad_commands, auth_failures;
	bool secured, plain_allowed, tls_offered;
	void (*refused)(void *arg, const struct dmtp_refusal *refusal); /* or NULL */
	void *refused_arg;
	bool behind; /* the caller holds octets that were not taken */
	bool eof, paused, x_said, x_due, handshake_told, close_told;
};

/* --- small helpers -------------------------------------------------------- */

static size_t
unanswered(const struct dmtp_server *s)
{
	return (size_t)(s->next_seq - s->first_seq);
}

static int64_t
idle_ms(const struct dmtp_server *s)
{
	return (int64_t)s->limits.idle_s * 1000;
}

static void
end_now(struct dmtp_server *s, enum dmtp_close reason)
{
	if (s->phase == OVER)
		return;
	s->phase = OVER;
	s->reason = reason;
	outlet_drop(&s->out);
}

/* Nothing more is read; x: an X goes behind the last reply. */
static void
end_after_replies(struct dmtp_server *s, enum dmtp_close reason, bool x)
{
	s->phase = ENDING;
	s->reason = reason;
	s->x_due = x;
	s->begun_ms = -1;
	s->in.at = s->in.data.len;
}

static bool
reads(const struct dmtp_server *s)
{
	return (s->phase == READY || s->phase == DRAINING) &&
	       unanswered(s) < s->limits.pipeline && outlet_waiting(&s->out) < OUTPUT_BOUND;
}

/* Time that the machine itself did not read doesn't count against a command. */
static void
note_pause(struct dmtp_server *s)
{
	bool can = reads(s);

	if (s->paused && can && s->begun_ms >= 0)
		s->begun_ms = s->now_ms;
	s->paused = !can;
}

/* --- writing -------------------------------------------------------------- */

/* Something was appended to an outlet that held before octets. */
static void
wrote(struct dmtp_server *s, size_t before)
{
	if (s->out.data.failed) {
		end_now(s, DMTP_CLOSE_NO_MEMORY);
		return;
	}
	if (before == 0)
		s->out.waits_ms = s->now_ms;
}

/* A refusal without words of its own gets its code's. */
static void
encode_worded(const struct dmtp_response *r, struct buffer *b)
{
	struct dmtp_response worded = *r;

	if ((r->letter == DMTP_E || r->letter == DMTP_Z) && r->text.len == 0)
		worded.text = slice_str(dmtp_code_text(r->code));
	dmtp_response_encode(&worded, b);
}

static void
write_response(struct dmtp_server *s, const struct dmtp_response *r)
{
	size_t before = outlet_waiting(&s->out);

	encode_worded(r, &s->out.data);
	wrote(s, before);
}

static void
write_x(struct dmtp_server *s, const struct dmtp_response *x)
{
	struct dmtp_response r = { .code = DMTP_CODE_NONE };

	if (s->x_said)
		return;
	if (x != NULL)
		r = *x;
	r.letter = DMTP_X;
	s->x_said = true;
	write_response(s, &r);
}

static void
write_greeting(struct dmtp_server *s, const struct dmtp_greeting *g)
{
	size_t before = outlet_waiting(&s->out);
	struct dmtp_greeting said = *g;

	s->limits = g->limits;
	s->ext = g->ext;
	s->tls_offered = g->tls && !s->secured;
	said.tls = s->tls_offered;
	dmtp_greeting_encode(&said, &s->out.data);
	wrote(s, before);
	ben_scan_init(&s->in.scan, s->limits.command_octets);
	s->in.data.max = (size_t)s->limits.command_octets + READ_AHEAD;
	/* at the worst each of a pipeline has the longest reply; a greeting, an X */
	s->out.data.max = ((size_t)s->limits.pipeline + 2) * DMTP_RESPONSE_MAX;
}

static void
start_draining(struct dmtp_server *s, enum dmtp_close reason, const struct dmtp_response *x)
{
	if (s->phase != READY)
		return;
	s->phase = DRAINING;
	s->reason = reason;
	s->drain_ms = s->now_ms + DMTP_DRAIN_MS;
	write_x(s, x);
}

static struct place *
place_of(struct dmtp_server *s, uint64_t seq)
{
	return &s->ring[seq & (s->ring_cap - 1)];
}

/* A reply went out: its place is free. */
static void
place_done(struct dmtp_server *s)
{
	bool x_after = place_of(s, s->first_seq)->x_after;

	s->replies_end = outlet_total(&s->out);
	s->first_seq++;
	if (x_after)
		start_draining(s, DMTP_CLOSE_AUTH_FAILED, NULL);
}

static void
flush_ready(struct dmtp_server *s)
{
	while (unanswered(s) > 0 && place_of(s, s->first_seq)->ready) {
		struct place *p = place_of(s, s->first_seq);
		size_t before = outlet_waiting(&s->out);

		buffer_add_slice(&s->out.data, buffer_slice(&p->reply));
		buffer_free(&p->reply);
		wrote(s, before);
		place_done(s);
	}
}

/* Encodes it, or Z storage when it would be longer than a response may be. */
static void
encode_reply(const struct dmtp_response *r, struct buffer *b)
{
	const struct dmtp_response instead = dmtp_response_make(DMTP_Z, DMTP_CODE_STORAGE, 60);
	size_t start = b->len;

	if (r->failed.len + r->channels.len + r->events.len > DMTP_RESPONSE_MAX)
		r = &instead;
	encode_worded(r, b);
	if (!b->failed && b->len - start > DMTP_RESPONSE_MAX) {
		b->len = start;
		encode_worded(&instead, b);
	}
}

static void
answer(struct dmtp_server *s, uint64_t seq, const struct dmtp_response *r)
{
	struct place *p = place_of(s, seq);
	size_t before = outlet_waiting(&s->out);

	if (seq == s->first_seq) {
		encode_reply(r, &s->out.data);
		wrote(s, before);
		place_done(s);
		flush_ready(s);
		return;
	}
	buffer_init(&p->reply, (size_t)2 * DMTP_RESPONSE_MAX);
	encode_reply(r, &p->reply);
	p->ready = true;
	if (p->reply.failed)
		end_now(s, DMTP_CLOSE_NO_MEMORY);
}

/* --- places --------------------------------------------------------------- */

static bool
ring_grow(struct dmtp_server *s)
{
	size_t cap = s->ring_cap == 0 ? RING_FIRST : s->ring_cap * 2;
	struct place *ring = calloc(cap, sizeof(*ring));

	if (ring == NULL)
		return false;
	for (uint64_t seq = s->first_seq; seq != s->next_seq; seq++)
		ring[seq & (cap - 1)] = *place_of(s, seq);
	free(s->ring);
	s->ring = ring;
	s->ring_cap = cap;
	return true;
}

/* A place for a command that was just read; false: out of memory, the session is over. */
static bool
take_place(struct dmtp_server *s, enum dmtp_verb verb, uint64_t *seq)
{
	if (unanswered(s) == s->ring_cap && !ring_grow(s)) {
		end_now(s, DMTP_CLOSE_NO_MEMORY);
		return false;
	}
	*seq = s->next_seq++;
	*place_of(s, *seq) = (struct place){ .verb = verb };
	return true;
}

/* The machine's own answers to a command. */
static void
accept_self(struct dmtp_server *s, enum dmtp_verb verb)
{
	const struct dmtp_response k = dmtp_response_make(DMTP_K, DMTP_CODE_NONE, 0);
	uint64_t seq;

	if (take_place(s, verb, &seq))
		answer(s, seq, &k);
}

static void
refuse_self(struct dmtp_server *s, struct slice element, enum dmtp_code code, const char *why)
{
	const struct dmtp_refusal refusal = { .verb = dmtp_command_verb_sent(element),
		                              .code = code,
		                              .why = why };
	struct dmtp_response e = dmtp_response_make(DMTP_E, code, 0);
	uint64_t seq;

	if (why != NULL)
		e.text = slice_str(why);
	if (s->refused != NULL)
		s->refused(s->refused_arg, &refusal);
	if (take_place(s, dmtp_command_verb(element), &seq))
		answer(s, seq, &e);
}

/* --- commands --------------------------------------------------------------- */

static void
on_bad(struct dmtp_server *s, struct slice element, enum dmtp_code code, const char *wrong)
{
	char why[96];

	if (wrong != NULL)
		(void)snprintf(why, sizeof(why), "\"%s\" is missing, or not of its type.",
		               wrong);
	refuse_self(s, element, code, wrong == NULL ? NULL : why);
	if (++s->bad_commands >= DMTP_BAD_COMMANDS && s->phase != OVER)
		end_after_replies(s, DMTP_CLOSE_BAD_COMMANDS, true);
}

static bool
reply_unwritten(const struct dmtp_server *s)
{
	return unanswered(s) > 0 || s->out.sent < s->replies_end;
}

/* CVE-2011-0411: what stands behind STARTTLS was not protected, whoever wrote it. */
static void
on_starttls(struct dmtp_server *s, struct slice element)
{
	if (inlet_waiting(&s->in) > 0 || s->behind) {
		end_now(s, DMTP_CLOSE_INJECTED);
		return;
	}
	if (!s->tls_offered || s->phase != READY || reply_unwritten(s)) {
		refuse_self(s, element, DMTP_CODE_NOT_NOW,
		            s->secured ? "TLS is on already."
		            : !s->tls_offered
		                ? "The greeting didn't offer TLS."
		                : "A reply is still to come, or the session ends.");
		return;
	}
	accept_self(s, DMTP_STARTTLS);
	if (s->phase == OVER)
		return;
	s->phase = TURNING;
	s->handshake_ms = s->now_ms + DMTP_HANDSHAKE_MS;
	s->handshake_told = false;
}

static void
on_noop(struct dmtp_server *s, struct slice element)
{
	if (s->noops < s->limits.noops) {
		s->noops++;
		accept_self(s, DMTP_NOOP);
	} else {
		refuse_self(s, element, DMTP_CODE_LIMIT,
		            "More in a row than the greeting's limit noops allows.");
	}
}

static bool
offered(const struct dmtp_server *s, enum dmtp_verb verb)
{
	switch (verb) {
	case DMTP_VERB_UNKNOWN:
		return false;
	case DMTP_AUTH:
		return (s->ext & DMTP_EXT_AUTH) != 0;
	case DMTP_GRANT:
		return (s->ext & DMTP_EXT_GRANT) != 0;
	case DMTP_RECEIPT:
		return (s->ext & DMTP_EXT_RECEIPT) != 0;
	case DMTP_PRESENCE:
		return (s->ext & DMTP_EXT_PRESENCE) != 0;
	default:
		return true;
	}
}

/* One for the caller; what can be refused without it is refused. */
static enum server_step
on_caller_command(struct dmtp_server *s, struct slice element, struct dmtp_server_event *out)
{
	enum dmtp_verb verb = out->command.verb;

	if (!s->secured && !s->plain_allowed) {
		refuse_self(s, element, DMTP_CODE_TLS_REQUIRED, NULL);
		return STEP_AGAIN;
	}
	if (verb == DMTP_AUTH && s->auth_failures >= DMTP_AUTH_FAILURES) {
		refuse_self(s, element, DMTP_CODE_UNVERIFIED_SENDER,
		            "Too many of this session failed before.");
		return STEP_AGAIN;
	}
	if (!take_place(s, verb, &out->seq))
		return STEP_AGAIN;
	out->kind = DMTP_SERVER_COMMAND;
	out->octets = element.len;
	return STEP_EVENT;
}

static enum server_step
on_element(struct dmtp_server *s, struct slice element, struct dmtp_server_event *out)
{
	enum dmtp_verb verb = dmtp_command_verb(element);
	enum dmtp_code code = DMTP_CODE_UNKNOWN_COMMAND;

	if (verb != DMTP_NOOP)
		s->noops = 0;
	if (verb == DMTP_STARTTLS) {
		on_starttls(s, element);
		return STEP_AGAIN;
	}
	if (verb == DMTP_VERB_UNKNOWN || offered(s, verb))
		code = dmtp_command_decode(element, &out->command);
	if (code != DMTP_CODE_NONE) {
		on_bad(s, element, code,
		       code == DMTP_CODE_MALFORMED ? out->command.wrong : NULL);
		return STEP_AGAIN;
	}
	switch (verb) {
	case DMTP_NOOP:
		on_noop(s, element);
		return STEP_AGAIN;
	case DMTP_QUIT:
		accept_self(s, verb);
		if (s->phase != OVER)
			end_after_replies(s, DMTP_CLOSE_QUIT, false);
		return STEP_AGAIN;
	default:
		return on_caller_command(s, element, out);
	}
}

static enum server_step
read_element(struct dmtp_server *s, struct dmtp_server_event *out)
{
	struct slice element;
	enum ben_rc rc = inlet_element(&s->in, s->limits.command_octets, &element);

	switch (rc) {
	case BEN_OK:
		s->begun_ms = inlet_waiting(&s->in) > 0 ? s->heard_ms : -1;
		return on_element(s, element, out);
	case BEN_MORE:
		if (!s->eof)
			return STEP_WAIT;
		end_after_replies(s, DMTP_CLOSE_EOF, false);
		return STEP_AGAIN;
	default:
		if (rc == BEN_BAD)
			refuse_self(s, (struct slice){ 0 }, DMTP_CODE_MALFORMED,
			            "No canonical bencode.");
		else
			refuse_self(s, (struct slice){ 0 }, DMTP_CODE_TOO_LARGE,
			            "Longer than the greeting's limit command allows.");
		if (s->phase != OVER)
			end_after_replies(
			    s, rc == BEN_BAD ? DMTP_CLOSE_MALFORMED : DMTP_CLOSE_TOO_LARGE,
			    true);
		return STEP_AGAIN;
	}
}

/* --- events ----------------------------------------------------------------- */

static enum server_step
step_turning(struct dmtp_server *s, struct dmtp_server_event *out)
{
	if (s->eof) {
		end_now(s, DMTP_CLOSE_EOF);
		return STEP_AGAIN;
	}
	if (s->handshake_told || outlet_waiting(&s->out) > 0)
		return STEP_WAIT;
	s->handshake_told = true;
	out->kind = DMTP_SERVER_STARTTLS;
	return STEP_EVENT;
}

static enum server_step
step_ending(struct dmtp_server *s)
{
	if (unanswered(s) > 0)
		return STEP_WAIT;
	if (s->x_due) {
		s->x_due = false;
		write_x(s, NULL);
		return STEP_AGAIN;
	}
	if (outlet_waiting(&s->out) > 0)
		return STEP_WAIT;
	s->phase = OVER;
	return STEP_AGAIN;
}

static enum server_step
server_step(struct dmtp_server *s, struct dmtp_server_event *out)
{
	switch (s->phase) {
	case READY:
	case DRAINING:
		return reads(s) ? read_element(s, out) : STEP_WAIT;
	case TURNING:
		return step_turning(s, out);
	case ENDING:
		return step_ending(s);
	default:
		if (s->close_told)
			return STEP_WAIT;
		s->close_told = true;
		out->kind = DMTP_SERVER_CLOSE;
		out->reason = s->reason;
		return STEP_EVENT;
	}
}

bool
dmtp_server_next(struct dmtp_server *s, struct dmtp_server_event *out)
{
	enum server_step step;

	*out = (struct dmtp_server_event){ .seq = 0 };
	do {
		step = server_step(s, out);
	} while (step == STEP_AGAIN);
	note_pause(s);
	return step == STEP_EVENT;
}

/* --- input ------------------------------------------------------------------ */

bool
dmtp_server_wants(const struct dmtp_server *s)
{
	if (s->phase != READY && s->phase != DRAINING)
		return true;
	return reads(s) && inlet_waiting(&s->in) < s->in.data.max;
}

size_t
dmtp_server_feed(struct dmtp_server *s, int64_t now_ms, const uint8_t *data, size_t len)
{
	size_t n;

	s->now_ms = now_ms;
	if (len == 0 || s->phase == ENDING || s->phase == OVER)
		return len;
	if (s->phase == TURNING) {
		end_now(s, DMTP_CLOSE_INJECTED);
		return len;
	}
	s->behind = true;
	if (!dmtp_server_wants(s))
		return 0;
	inlet_compact(&s->in);
	n = s->in.data.max - s->in.data.len;
	n = n < len ? n : len;
	if (s->in.data.len == 0)
		s->begun_ms = now_ms;
	buffer_add(&s->in.data, data, n);
	if (s->in.data.failed) {
		end_now(s, DMTP_CLOSE_NO_MEMORY);
		return len;
	}
	s->heard_ms = now_ms;
	s->active_ms = now_ms;
	s->behind = n < len;
	return n;
}

void
dmtp_server_eof(struct dmtp_server *s, int64_t now_ms)
{
	s->now_ms = now_ms;
	s->eof = true;
}

/* --- output ----------------------------------------------------------------- */

/* What is under way counts by the old measure too: the client had not read the new one. */
static void
apply_limits(struct dmtp_server *s, const struct dmtp_limits *l)
{
	struct dmtp_limits old = s->limits;

	s->limits = *l;
	if (s->limits.command_octets < old.command_octets)
		s->limits.command_octets = old.command_octets;
	if (s->limits.pipeline < old.pipeline)
		s->limits.pipeline = old.pipeline;
	s->in.data.max = (size_t)s->limits.command_octets + READ_AHEAD;
	s->out.data.max = ((size_t)s->limits.pipeline + 2) * DMTP_RESPONSE_MAX;
	s->in.scan.limit = s->limits.command_octets;
}

static void
judge_auth(struct dmtp_server *s, struct place *p, const struct dmtp_response *r)
{
	if (r->letter == DMTP_K && r->has_limits && dmtp_limits_valid(&r->limits))
		apply_limits(s, &r->limits);
	if (r->letter == DMTP_E && r->code == DMTP_CODE_UNVERIFIED_SENDER &&
	    ++s->auth_failures == DMTP_AUTH_FAILURES)
		p->x_after = true;
}

bool
dmtp_server_reply(struct dmtp_server *s, int64_t now_ms, uint64_t seq,
                  const struct dmtp_response *response)
{
	struct place *p;

	s->now_ms = now_ms;
	if (seq < s->first_seq || seq >= s->next_seq ||
	    (response->letter != DMTP_K && response->letter != DMTP_E &&
	     response->letter != DMTP_Z))
		return false;
	p = place_of(s, seq);
	if (p->ready)
		return false;
	if (s->phase == OVER)
		return true;
	if (p->verb == DMTP_AUTH)
		judge_auth(s, p, response);
	answer(s, seq, response);
	s->active_ms = now_ms;
	note_pause(s);
	return true;
}

void
dmtp_server_info(struct dmtp_server *s, int64_t now_ms, const struct dmtp_response *info)
{
	struct dmtp_response r = *info;

	s->now_ms = now_ms;
	r.letter = DMTP_I;
	if (s->phase == READY || s->phase == DRAINING)
		write_response(s, &r);
}

bool
dmtp_server_secured(struct dmtp_server *s, int64_t now_ms, const struct dmtp_greeting *greeting)
{
	if (s->phase != TURNING || !s->handshake_told || greeting->version != 1 ||
	    !dmtp_limits_valid(&greeting->limits))
		return false;
	s->now_ms = now_ms;
	s->phase = READY;
	s->secured = true;
	s->handshake_ms = -1;
	s->begun_ms = -1;
	s->active_ms = now_ms;
	s->noops = 0;
	s->behind = false;
	inlet_compact(&s->in);
	write_greeting(s, greeting);
	return true;
}

void
dmtp_server_drain(struct dmtp_server *s, int64_t now_ms, const struct dmtp_response *x)
{
	s->now_ms = now_ms;
	if (s->phase == TURNING)
		end_now(s, DMTP_CLOSE_DRAINED);
	else
		start_draining(s, DMTP_CLOSE_DRAINED, x);
}

struct slice
dmtp_server_output(const struct dmtp_server *s)
{
	return outlet_slice(&s->out);
}

void
dmtp_server_sent(struct dmtp_server *s, int64_t now_ms, size_t n)
{
	s->now_ms = now_ms;
	outlet_sent(&s->out, now_ms, n);
	if (n > 0)
		s->active_ms = now_ms;
	note_pause(s);
}

/* --- time ------------------------------------------------------------------- */

static bool
command_open(const struct dmtp_server *s)
{
	return s->phase == READY && reads(s) && s->begun_ms >= 0;
}

static bool
is_idle(const struct dmtp_server *s)
{
	return s->phase == READY && unanswered(s) == 0 && outlet_waiting(&s->out) == 0 &&
	       s->begun_ms < 0;
}

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

int64_t
dmtp_server_deadline(const struct dmtp_server *s)
{
	int64_t d = s->drain_ms;

	if (s->phase == OVER)
		return -1;
	d = earlier(d, s->handshake_ms);
	if (outlet_waiting(&s->out) > 0)
		d = earlier(d, s->out.waits_ms + idle_ms(s));
	if (command_open(s))
		d = earlier(d, s->begun_ms + idle_ms(s));
	if (is_idle(s))
		d = earlier(d, s->active_ms + idle_ms(s));
	return d;
}

void
dmtp_server_tick(struct dmtp_server *s, int64_t now_ms)
{
	s->now_ms = now_ms;
	if (s->phase == OVER)
		return;
	if (s->drain_ms >= 0 && now_ms >= s->drain_ms) {
		end_now(s, s->reason);
	} else if (s->handshake_ms >= 0 && now_ms >= s->handshake_ms) {
		end_now(s, DMTP_CLOSE_HANDSHAKE);
	} else if (outlet_waiting(&s->out) > 0 && now_ms >= s->out.waits_ms + idle_ms(s)) {
		end_now(s, DMTP_CLOSE_STALLED);
	} else if (command_open(s) && now_ms >= s->begun_ms + idle_ms(s)) {
		write_x(s, NULL);
		s->drain_ms = now_ms + DMTP_DRAIN_MS;
		if (s->phase != OVER)
			end_after_replies(s, DMTP_CLOSE_SLOW_COMMAND, false);
	} else if (is_idle(s) && now_ms >= s->active_ms + idle_ms(s)) {
		start_draining(s, DMTP_CLOSE_IDLE, NULL);
	}
}

/* --- life ------------------------------------------------------------------- */

static struct dmtp_server *
server_alloc(int64_t now_ms)
{
	struct dmtp_server *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->limits = DMTP_LIMITS_DEFAULT;
	s->now_ms = s->heard_ms = s->active_ms = now_ms;
	s->begun_ms = s->handshake_ms = s->drain_ms = -1;
	buffer_init(&s->in.data, 0);
	buffer_init(&s->out.data, (size_t)2 * DMTP_RESPONSE_MAX);
	return s;
}

struct dmtp_server *
dmtp_server_new(const struct dmtp_server_options *options, int64_t now_ms)
{
	struct dmtp_server *s;

	if (options->greeting.version != 1 || !dmtp_limits_valid(&options->greeting.limits))
		return NULL;
	s = server_alloc(now_ms);
	if (s == NULL)
		return NULL;
	s->secured = options->secured;
	s->plain_allowed = options->plain_allowed;
	s->refused = options->refused;
	s->refused_arg = options->arg;
	write_greeting(s, &options->greeting);
	if (s->phase == OVER)
		dmtp_server_free(&s);
	return s;
}

struct dmtp_server *
dmtp_server_new_refusing(const struct dmtp_response *refusal, int64_t now_ms)
{
	struct dmtp_server *s = server_alloc(now_ms);
	struct dmtp_response z = *refusal;

	if (s == NULL)
		return NULL;
	z.letter = DMTP_Z;
	write_response(s, &z);
	if (s->phase == OVER)
		dmtp_server_free(&s);
	else
		end_after_replies(s, DMTP_CLOSE_REFUSED, false);
	return s;
}

void
dmtp_server_free(struct dmtp_server **s)
{
	if (*s == NULL)
		return;
	for (uint64_t seq = (*s)->first_seq; seq != (*s)->next_seq; seq++)
		buffer_free(&place_of(*s, seq)->reply);
	free((*s)->ring);
	buffer_free(&(*s)->in.data);
	buffer_free(&(*s)->out.data);
	free(*s);
	*s = NULL;
}

bool
dmtp_server_is_secured(const struct dmtp_server *s)
{
	return s->secured;
}

const struct dmtp_limits *
dmtp_server_limits(const struct dmtp_server *s)
{
	return &s->limits;
}

size_t
dmtp_server_unanswered(const struct dmtp_server *s)
{
	return unanswered(s);
}
