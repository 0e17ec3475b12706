/*
 * The client's session machine: see client.h. Commands that are unanswered
 * stand in a ring, in the order in which their replies will come; where each
 * begins in the stream tells which of them ever left.
 */
#include "dmtp/client.h"

#include "dmtp/stream.h"

#include <stdlib.h>

#define READ_AHEAD 262144
#define OUTPUT_BOUND 1048576 /* no more commands are taken while this much waits */
#define WINDOW_MAX 1024      /* whatever the peer allows */
#define RING_FIRST 8
#define REPLY_TIMEOUT_MS 300000

enum client_step { STEP_WAIT, STEP_AGAIN, STEP_EVENT };

enum client_turn { TURN_NONE, TURN_ASKED, TURN_GRANTED };

struct pending {
	void *tag;
	uint64_t begins; /* outlet_total before it */
	enum dmtp_verb verb;
	bool own; /* the machine's: no tag, no event */
};

struct dmtp_client {
	struct dmtp_client_options options;
	struct dmtp_greeting greeting;
	struct dmtp_limits limits;
	struct inlet in;
	struct outlet out;
	struct pending *ring;
	size_t ring_cap; /* a power of two, or 0 */
	uint64_t first, next;
	int64_t now_ms;
	int64_t begun_ms;  /* the wait for a greeting or a handshake began, or -1 */
	int64_t heard_ms;  /* the last octets came, or the wait for replies began */
	int64_t active_ms; /* the last octets in either direction */
	int64_t drain_ms;  /* when waiting for the last replies ends, or -1 */
	uint32_t noops;
	enum client_turn turn;
	enum dmtp_close reason;
	bool secured, greeted, no_more, quit_wanted, quit_sent, eof, refused, over, close_told;
};

/* --- helpers -------------------------------------------------------------- */

static size_t
unanswered(const struct dmtp_client *c)
{
	return (size_t)(c->next - c->first);
}

static struct pending *
pending_at(struct dmtp_client *c, uint64_t i)
{
	return &c->ring[i & (c->ring_cap - 1)];
}

static void
end_now(struct dmtp_client *c, enum dmtp_close reason)
{
	if (c->over)
		return;
	c->over = true;
	c->reason = reason;
	outlet_drop(&c->out);
}

static int64_t
idle_ms(const struct dmtp_client *c)
{
	return (int64_t)c->limits.idle_s * 1000;
}

static size_t
window(const struct dmtp_client *c)
{
	size_t w = c->limits.pipeline < WINDOW_MAX ? c->limits.pipeline : WINDOW_MAX;

	return c->options.window > 0 && c->options.window < w ? c->options.window : w;
}

static bool
ring_grow(struct dmtp_client *c)
{
	size_t cap = c->ring_cap == 0 ? RING_FIRST : c->ring_cap * 2;
	struct pending *ring = calloc(cap, sizeof(*ring));

	if (ring == NULL)
		return false;
	for (uint64_t i = c->first; i != c->next; i++)
		ring[i & (cap - 1)] = *pending_at(c, i);
	free(c->ring);
	c->ring = ring;
	c->ring_cap = cap;
	return true;
}

/* --- sending -------------------------------------------------------------- */

/* Appends an encoded command; false: out of memory, nothing has changed. */
static bool
queue(struct dmtp_client *c, struct pending command, struct slice octets)
{
	size_t before = outlet_waiting(&c->out);

	if (unanswered(c) == c->ring_cap && !ring_grow(c))
		return false;
	command.begins = outlet_total(&c->out);
	buffer_add_slice(&c->out.data, octets);
	if (c->out.data.failed) {
		c->out.data.failed = false; /* a failed append leaves the content as it was */
		return false;
	}
	if (before == 0)
		c->out.waits_ms = c->now_ms;
	if (unanswered(c) == 0)
		c->heard_ms = c->now_ms;
	c->active_ms = c->now_ms;
	*pending_at(c, c->next++) = command;
	return true;
}

/* STARTTLS, NOOP or QUIT of the machine's own. */
static void
queue_own(struct dmtp_client *c, enum dmtp_verb verb)
{
	struct buffer b;

	buffer_init(&b, 64);
	dmtp_command_put_bare(&b, verb);
	if (b.failed ||
	    !queue(c, (struct pending){ .verb = verb, .own = true }, buffer_slice(&b)))
		end_now(c, DMTP_CLOSE_NO_MEMORY);
	buffer_free(&b);
}

/* QUIT once everything is answered; without a greeting there is nobody to say it to. */
static void
quit_when_done(struct dmtp_client *c)
{
	if (c->over || c->quit_sent || !(c->quit_wanted || c->no_more) || unanswered(c) > 0)
		return;
	if (!c->greeted || c->turn != TURN_NONE) {
		end_now(c, DMTP_CLOSE_QUIT);
		return;
	}
	c->quit_sent = true;
	if (c->drain_ms < 0)
		c->drain_ms = c->now_ms + DMTP_DRAIN_MS;
	queue_own(c, DMTP_QUIT);
}

static bool
closing(const struct dmtp_client *c)
{
	return c->over || c->no_more || c->quit_wanted || c->eof || c->refused;
}

/* Commands may go: TLS is there or not wanted; in plaintext the greeting is awaited. */
static bool
open_for_commands(const struct dmtp_client *c)
{
	if (c->options.mode == DMTP_CLIENT_PLAIN)
		return c->greeted;
	return c->secured;
}

size_t
dmtp_client_room(const struct dmtp_client *c)
{
	size_t w = window(c), n = unanswered(c);

	if (closing(c) || !open_for_commands(c) || outlet_waiting(&c->out) >= OUTPUT_BOUND)
		return 0;
	return w > n ? w - n : 0;
}

enum dmtp_client_rc
dmtp_client_send(struct dmtp_client *c, int64_t now_ms, enum dmtp_verb verb,
                 struct slice command, void *tag)
{
	c->now_ms = now_ms;
	if (closing(c))
		return DMTP_CLIENT_CLOSING;
	if (open_for_commands(c) && command.len > c->limits.command_octets)
		return DMTP_CLIENT_TOO_LONG;
	if (dmtp_client_room(c) == 0)
		return DMTP_CLIENT_FULL;
	if (!queue(c, (struct pending){ .verb = verb, .tag = tag }, command))
		return DMTP_CLIENT_NO_MEMORY;
	c->noops = 0;
	return DMTP_CLIENT_OK;
}

void
dmtp_client_set_window(struct dmtp_client *c, uint32_t w)
{
	c->options.window = w;
}

void
dmtp_client_quit(struct dmtp_client *c, int64_t now_ms)
{
	c->now_ms = now_ms;
	c->quit_wanted = true;
	quit_when_done(c);
}

/* --- elements --------------------------------------------------------------- */

static enum client_step
on_greeting(struct dmtp_client *c, struct slice element, struct dmtp_client_event *out)
{
	struct dmtp_greeting g;

	if (!dmtp_greeting_decode(element, &g)) {
		end_now(c, DMTP_CLOSE_MALFORMED);
		return STEP_AGAIN;
	}
	if (g.version != 1) {
		end_now(c, DMTP_CLOSE_VERSION);
		return STEP_AGAIN;
	}
	c->greeting = g;
	c->limits = g.limits;
	c->greeted = true;
	c->begun_ms = -1;
	if (c->options.mode == DMTP_CLIENT_STARTTLS && !c->secured) {
		if (!g.tls) {
			end_now(c, DMTP_CLOSE_NO_TLS);
			return STEP_AGAIN;
		}
		c->turn = TURN_ASKED;
		c->begun_ms = c->now_ms;
		queue_own(c, DMTP_STARTTLS);
		return STEP_AGAIN;
	}
	quit_when_done(c);
	out->kind = DMTP_CLIENT_GREETED;
	return STEP_EVENT;
}

/* Before the greeting only a Z may come instead of it. */
static enum client_step
on_refusal(struct dmtp_client *c, struct slice element, struct dmtp_client_event *out)
{
	if (dmtp_response_decode(element, &out->response) != DMTP_RESPONSE_OK ||
	    out->response.letter != DMTP_Z) {
		end_now(c, DMTP_CLOSE_MALFORMED);
		return STEP_AGAIN;
	}
	c->refused = true;
	out->kind = DMTP_CLIENT_REFUSED;
	return STEP_EVENT;
}

/* CVE-2011-0411, seen from this side: what stands behind the K was not protected. */
static enum client_step
on_starttls_reply(struct dmtp_client *c, const struct dmtp_response *r,
                  struct dmtp_client_event *out)
{
	if (r->letter != DMTP_K) {
		end_now(c, DMTP_CLOSE_NO_TLS);
		return STEP_AGAIN;
	}
	if (inlet_waiting(&c->in) > 0) {
		end_now(c, DMTP_CLOSE_INJECTED);
		return STEP_AGAIN;
	}
	c->turn = TURN_GRANTED;
	c->begun_ms = c->now_ms;
	out->kind = DMTP_CLIENT_HANDSHAKE;
	return STEP_EVENT;
}

static enum client_step
on_own_reply(struct dmtp_client *c, enum dmtp_verb verb, const struct dmtp_response *r,
             struct dmtp_client_event *out)
{
	switch (verb) {
	case DMTP_STARTTLS:
		return on_starttls_reply(c, r, out);
	case DMTP_QUIT:
		end_now(c, c->no_more ? DMTP_CLOSE_DRAINED : DMTP_CLOSE_QUIT);
		return STEP_AGAIN;
	default: /* NOOP: a peer that refuses one wants us to go */
		if (r->letter != DMTP_K)
			c->quit_wanted = true;
		quit_when_done(c);
		return STEP_AGAIN;
	}
}

/* K, E or Z: it belongs to the first command that is unanswered, if that has begun to leave. */
static enum client_step
on_reply(struct dmtp_client *c, struct dmtp_client_event *out)
{
	const struct dmtp_response *r = &out->response;
	struct pending p;

	if (unanswered(c) == 0 || pending_at(c, c->first)->begins >= c->out.sent) {
		end_now(c, DMTP_CLOSE_UNASKED);
		return STEP_AGAIN;
	}
	p = *pending_at(c, c->first++);
	if (p.own)
		return on_own_reply(c, p.verb, r, out);
	if (p.verb == DMTP_AUTH && r->letter == DMTP_K && r->has_limits)
		c->limits = r->limits;
	quit_when_done(c);
	out->kind = DMTP_CLIENT_REPLY;
	out->tag = p.tag;
	out->verb = p.verb;
	return STEP_EVENT;
}

static enum client_step
on_x(struct dmtp_client *c, struct dmtp_client_event *out)
{
	if (!c->no_more && c->drain_ms < 0)
		c->drain_ms = c->now_ms + DMTP_DRAIN_MS;
	c->no_more = true;
	quit_when_done(c);
	out->kind = DMTP_CLIENT_NO_MORE;
	return STEP_EVENT;
}

static enum client_step
on_element(struct dmtp_client *c, struct slice element, struct dmtp_client_event *out)
{
	if (!c->greeted)
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): an element has octets */
		return element.data[0] == 'd' ? on_greeting(c, element, out)
		                              : on_refusal(c, element, out);
	if (dmtp_response_decode(element, &out->response) != DMTP_RESPONSE_OK) {
		end_now(c, DMTP_CLOSE_MALFORMED);
		return STEP_AGAIN;
	}
	switch (out->response.letter) {
	case DMTP_I:
		out->kind = DMTP_CLIENT_INFO;
		return STEP_EVENT;
	case DMTP_X:
		return on_x(c, out);
	default:
		return on_reply(c, out);
	}
}

/* Nothing complete is left of a stream that has ended. */
static enum dmtp_close
eof_reason(const struct dmtp_client *c)
{
	if (unanswered(c) > (c->quit_sent ? 1u : 0u))
		return DMTP_CLOSE_EOF;
	if (c->no_more)
		return DMTP_CLOSE_DRAINED;
	return c->quit_sent ? DMTP_CLOSE_QUIT : DMTP_CLOSE_EOF;
}

static enum client_step
client_step(struct dmtp_client *c, struct dmtp_client_event *out)
{
	struct slice element;
	enum ben_rc rc;

	if (c->over) {
		if (c->close_told)
			return STEP_WAIT;
		c->close_told = true;
		out->kind = DMTP_CLIENT_CLOSED;
		out->reason = c->reason;
		return STEP_EVENT;
	}
	if (c->refused) {
		end_now(c, DMTP_CLOSE_REFUSED);
		return STEP_AGAIN;
	}
	rc = c->turn == TURN_GRANTED ? BEN_MORE
	                             : inlet_element(&c->in, DMTP_RESPONSE_MAX, &element);
	switch (rc) {
	case BEN_OK:
		return on_element(c, element, out);
	case BEN_MORE:
		if (!c->eof)
			return STEP_WAIT;
		end_now(c, eof_reason(c));
		return STEP_AGAIN;
	default:
		end_now(c, rc == BEN_BAD ? DMTP_CLOSE_MALFORMED : DMTP_CLOSE_TOO_LARGE);
		return STEP_AGAIN;
	}
}

bool
dmtp_client_next(struct dmtp_client *c, struct dmtp_client_event *out)
{
	enum client_step step;

	*out = (struct dmtp_client_event){ .tag = NULL };
	do {
		step = client_step(c, out);
	} while (step == STEP_AGAIN);
	return step == STEP_EVENT;
}

/* --- input and output -------------------------------------------------------- */

bool
dmtp_client_feed(struct dmtp_client *c, int64_t now_ms, const uint8_t *data, size_t len)
{
	c->now_ms = now_ms;
	if (c->over)
		return false;
	if (len == 0)
		return true;
	if (c->turn == TURN_GRANTED) {
		end_now(c, DMTP_CLOSE_INJECTED);
		return false;
	}
	inlet_compact(&c->in);
	buffer_add(&c->in.data, data, len);
	if (c->in.data.failed) {
		end_now(c, DMTP_CLOSE_NO_MEMORY);
		return false;
	}
	c->heard_ms = now_ms;
	c->active_ms = now_ms;
	return true;
}

void
dmtp_client_eof(struct dmtp_client *c, int64_t now_ms)
{
	c->now_ms = now_ms;
	c->eof = true;
}

bool
dmtp_client_secured(struct dmtp_client *c, int64_t now_ms)
{
	if (c->over || c->turn != TURN_GRANTED)
		return false;
	c->now_ms = now_ms;
	c->turn = TURN_NONE;
	c->secured = true;
	c->greeted = false;
	c->limits = dmtp_limits_floor();
	c->begun_ms = now_ms;
	c->active_ms = now_ms;
	return true;
}

bool
dmtp_client_take_lost(struct dmtp_client *c, struct dmtp_client_lost *out)
{
	while (unanswered(c) > 0) {
		struct pending p = *pending_at(c, c->first++);

		if (p.own)
			continue;
		*out = (struct dmtp_client_lost){ .tag = p.tag,
			                          .verb = p.verb,
			                          .sent = c->out.sent > p.begins };
		return true;
	}
	return false;
}

struct slice
dmtp_client_output(const struct dmtp_client *c)
{
	return outlet_slice(&c->out);
}

void
dmtp_client_sent(struct dmtp_client *c, int64_t now_ms, size_t n)
{
	c->now_ms = now_ms;
	outlet_sent(&c->out, now_ms, n);
	if (n > 0)
		c->active_ms = now_ms;
}

/* --- time ------------------------------------------------------------------- */

static int64_t
reply_timeout_ms(const struct dmtp_client *c)
{
	return c->options.reply_timeout_ms > 0 ? c->options.reply_timeout_ms : REPLY_TIMEOUT_MS;
}

/* Half of what the peer allows: a NOOP that is under way is in time. */
static bool
keeps_alive(const struct dmtp_client *c)
{
	return c->options.keep_alive && c->greeted && unanswered(c) == 0 && !closing(c) &&
	       c->turn == TURN_NONE;
}

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

int64_t
dmtp_client_deadline(const struct dmtp_client *c)
{
	int64_t d = c->drain_ms;

	if (c->over)
		return -1;
	if (c->begun_ms >= 0)
		d = earlier(d, c->begun_ms + DMTP_HANDSHAKE_MS);
	if (outlet_waiting(&c->out) > 0)
		d = earlier(d, c->out.waits_ms + idle_ms(c));
	if (unanswered(c) > 0)
		d = earlier(d, c->heard_ms + reply_timeout_ms(c));
	if (keeps_alive(c))
		d = earlier(d, c->active_ms + idle_ms(c) / 2);
	return d;
}

static void
keep_alive(struct dmtp_client *c)
{
	if (c->noops < c->limits.noops) {
		c->noops++;
		queue_own(c, DMTP_NOOP);
	} else {
		c->quit_wanted = true;
		quit_when_done(c);
	}
}

void
dmtp_client_tick(struct dmtp_client *c, int64_t now_ms)
{
	c->now_ms = now_ms;
	if (c->over)
		return;
	if (c->drain_ms >= 0 && now_ms >= c->drain_ms)
		end_now(c, c->no_more ? DMTP_CLOSE_DRAINED : DMTP_CLOSE_QUIT);
	else if (c->begun_ms >= 0 && now_ms >= c->begun_ms + DMTP_HANDSHAKE_MS)
		end_now(c, DMTP_CLOSE_HANDSHAKE);
	else if (outlet_waiting(&c->out) > 0 && now_ms >= c->out.waits_ms + idle_ms(c))
		end_now(c, DMTP_CLOSE_STALLED);
	else if (unanswered(c) > 0 && now_ms >= c->heard_ms + reply_timeout_ms(c))
		end_now(c, DMTP_CLOSE_NO_REPLY);
	else if (keeps_alive(c) && now_ms >= c->active_ms + idle_ms(c) / 2)
		keep_alive(c);
}

/* --- life ------------------------------------------------------------------- */

struct dmtp_client *
dmtp_client_new(const struct dmtp_client_options *options, int64_t now_ms)
{
	struct dmtp_client *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->options = *options;
	c->secured = options->mode == DMTP_CLIENT_TLS;
	c->limits = dmtp_limits_floor();
	c->now_ms = c->begun_ms = c->heard_ms = c->active_ms = now_ms;
	c->drain_ms = -1;
	buffer_init(&c->in.data, DMTP_RESPONSE_MAX + READ_AHEAD);
	buffer_init(&c->out.data,
	            OUTPUT_BOUND + (size_t)UINT32_MAX); /* one command beyond the bound */
	ben_scan_init(&c->in.scan, DMTP_RESPONSE_MAX);
	return c;
}

void
dmtp_client_free(struct dmtp_client **c)
{
	if (*c == NULL)
		return;
	free((*c)->ring);
	buffer_free(&(*c)->in.data);
	buffer_free(&(*c)->out.data);
	free(*c);
	*c = NULL;
}

const struct dmtp_greeting *
dmtp_client_greeting(const struct dmtp_client *c)
{
	return c->greeted ? &c->greeting : NULL;
}

const struct dmtp_limits *
dmtp_client_limits(const struct dmtp_client *c)
{
	return &c->limits;
}

size_t
dmtp_client_unanswered(const struct dmtp_client *c)
{
	return unanswered(c);
}
