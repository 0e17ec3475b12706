/* A connection's octets, in and out: see conn_state.h. */
#include "net/conn_state.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#define RECORD 16384
#define KEEP 1024 /* of an empty buffer's memory */

/* --- receiving --------------------------------------------------------------------- */

/* One recv a round, so that no connection holds the turn. */
static enum io_rc
receive(struct conn *c, uint8_t *out, size_t size, size_t *got)
{
	ssize_t n;

	if (!c->may_receive)
		return IO_MORE;
	c->may_receive = false;
	do
		n = recv(c->fd, out, size, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		*got = (size_t)n;
		return IO_DONE;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return IO_MORE;
	if (c->broken) {
		conn_fail(c, CONN_END_RESET, "%s", c->broken_text);
		return IO_FAILED;
	}
	if (n == 0)
		return IO_ENDED;
	conn_fail(c, CONN_END_RESET, "receiving: %s", strerror(errno));
	return IO_FAILED;
}

static enum io_rc
plain_read(struct conn *c, uint8_t *out, size_t size, size_t *got)
{
	return receive(c, out, size, got);
}

static void
plain_read_done(struct conn *c)
{
	(void)c;
}

static void
tls_read_done(struct conn *c)
{
	struct slice rest = c->tls->in;

	c->tls->in = slice_mem(NULL, 0);
	if (c->raw.len > 0)
		buffer_consume(&c->raw, c->raw.len - rest.len);
	else
		buffer_add_slice(&c->raw, rest);
	buffer_shrink(&c->raw, 0);
	if (c->tls->wire.len > c->wire_at)
		loop_defer(c->loop,
		           &c->flush); /* reading makes TLS answer: key updates, alerts */
	if (c->raw.failed)
		conn_fail(c, CONN_END_NO_MEMORY, "no memory");
}

/* The stream used up its input, also what was kept: more of the network's. */
static enum io_rc
tls_more(struct conn *c)
{
	enum io_rc rc;
	size_t got = 0;

	buffer_clear(&c->raw);
	rc = receive(c, loop_scratch_in(c->loop), LOOP_SCRATCH, &got);
	if (rc == IO_DONE)
		c->tls->in = slice_mem(loop_scratch_in(c->loop), got);
	return rc == IO_ENDED ? IO_CUT : rc;
}

static enum io_rc
tls_read(struct conn *c, uint8_t *out, size_t size, size_t *got)
{
	enum io_rc rc;

	for (;;) {
		switch (tls_stream_read(c->tls, out, size, got)) {
		case TLS_DONE:
			return IO_DONE;
		case TLS_ENDED:
			return IO_ENDED;
		case TLS_FAILED:
			conn_fail(c, CONN_END_TLS, "%s", c->tls->error);
			return IO_FAILED;
		case TLS_MORE:
			break;
		}
		rc = tls_more(c);
		if (rc != IO_DONE)
			return rc;
	}
}

/* --- delivering -------------------------------------------------------------------- */

static bool
wire_is_high(const struct conn *c)
{
	return c->tls != NULL && c->tls->wire.len - c->wire_at > TLS_WIRE_HIGH;
}

/* Nothing shall be read now. */
static bool
is_stopped(const struct conn *c)
{
	if (conn_is_dead(c) || c->eof || c->state == CONN_CONNECTING || wire_is_high(c))
		return true;
	if (c->state == CONN_SECURING)
		return false;
	return c->paused || c->tls_next != NULL || c->events->data == NULL ||
	       c->in.len >= c->config.in_max;
}

static size_t
call_data(struct conn *c, struct slice s)
{
	size_t taken = c->events->data(c, c->arg, s);

	return taken > s.len ? s.len : taken;
}

/* Offers fresh input behind what stands untaken; keeps what is left. */
static void
deliver(struct conn *c, struct slice fresh)
{
	size_t taken;

	c->offer = false;
	if (c->in.len == 0) {
		taken = call_data(c, fresh);
		buffer_add(&c->in, fresh.data + taken, fresh.len - taken);
	} else {
		buffer_add_slice(&c->in, fresh);
		taken = call_data(c, buffer_slice(&c->in));
		buffer_consume(&c->in, taken);
	}
	if (c->in.failed && !conn_is_dead(c))
		conn_fail(c, CONN_END_NO_MEMORY, "no memory");
	buffer_shrink(&c->in, KEEP);
}

static void
told_end(struct conn *c, bool clean)
{
	c->eof = true;
	if (c->state == CONN_SECURING)
		conn_fail(c, CONN_END_EOF, "TLS handshake: closed by the peer");
	else if (c->events->ended != NULL)
		c->events->ended(c, c->arg, clean);
	else
		conn_fail(c, CONN_END_EOF, clean ? "closed by the peer" : "cut by the peer");
}

/* --- the handshake ------------------------------------------------------------------- */

/* The last alert says to the other side what ours logs; whether it arrives doesn't matter. */
static void
send_alert(struct conn *c)
{
	const struct buffer *wire = &c->tls->wire;

	if (wire->len > c->wire_at)
		(void)send(c->fd, wire->data + c->wire_at, wire->len - c->wire_at,
		           MSG_NOSIGNAL);
}

static void
out_sent(struct conn *c, size_t n)
{
	c->out_at += n;
	c->plain_left -= c->plain_left < n ? c->plain_left : n;
	if (c->out_at == c->out.len) {
		buffer_clear(&c->out);
		buffer_shrink(&c->out, KEEP);
		c->out_at = 0;
	}
}

static void
begin_tls(struct conn *c)
{
	if (c->in.len > 0) {
		conn_fail(c, CONN_END_INJECTED, "plaintext behind the beginning of TLS");
		return;
	}
	c->tls = c->tls_next;
	c->tls_next = NULL;
	c->wire_at = 0;
	buffer_add_slice(&c->tls->wire, slice_mem(conn_waiting(c).data, c->plain_left));
	out_sent(c, c->plain_left);
	if (c->tls->wire.failed) {
		conn_fail(c, CONN_END_NO_MEMORY, "no memory");
		return;
	}
	c->transport = &conn_tls;
	c->state = CONN_SECURING;
	loop_timer_set(&c->deadline, c->config.handshake_ms);
}

static void
secured(struct conn *c)
{
	c->state = CONN_OPEN;
	loop_timer_cancel(&c->deadline);
	if (c->events->secured != NULL)
		c->events->secured(c, c->arg);
}

static enum io_rc
handshake(struct conn *c)
{
	enum io_rc rc;

	for (;;) {
		enum tls_rc step = tls_stream_handshake(c->tls);

		loop_defer(c->loop, &c->flush);
		if (step == TLS_DONE) {
			secured(c);
			return IO_DONE;
		}
		if (step != TLS_MORE) {
			send_alert(c);
			conn_fail(c,
			          c->tls->unverified ? CONN_END_UNVERIFIED : CONN_END_HANDSHAKE,
			          "%s", c->tls->error);
			return IO_FAILED;
		}
		if (wire_is_high(c))
			return IO_MORE;
		rc = tls_more(c);
		if (rc != IO_DONE)
			return rc;
	}
}

/* --- rounds -------------------------------------------------------------------------- */

/* One step of reading; false when the round is over. */
static bool
read_step(struct conn *c)
{
	size_t room = c->config.in_max - c->in.len, got = 0;
	enum io_rc rc;

	if (c->state == CONN_SECURING) {
		rc = handshake(c);
	} else {
		rc = c->transport->read(c, loop_scratch_out(c->loop),
		                        room < LOOP_SCRATCH ? room : LOOP_SCRATCH, &got);
		if (rc == IO_DONE)
			deliver(c, slice_mem(loop_scratch_out(c->loop), got));
	}
	if (rc == IO_ENDED || rc == IO_CUT)
		told_end(c, rc == IO_ENDED);
	return rc == IO_DONE;
}

void
conn_process(struct conn *c)
{
	bool more = true;

	if (c->offer && c->in.len > 0 && !c->paused && !conn_is_dead(c) &&
	    c->events->data != NULL && c->tls_next == NULL)
		deliver(c, slice_mem(NULL, 0));
	if (c->tls != NULL && !conn_is_dead(c))
		c->tls->in = buffer_slice(&c->raw);
	c->interrupted = false;
	while (more && !conn_is_dead(c)) {
		if (c->tls_next != NULL && c->state == CONN_OPEN)
			begin_tls(c);
		else if (is_stopped(c))
			c->interrupted = true, more = false;
		else
			more = read_step(c);
	}
	if (!conn_is_dead(c))
		c->transport->read_done(c);
	if (!conn_is_dead(c))
		conn_update_watch(c);
}

void
conn_update_watch(struct conn *c)
{
	unsigned want = is_stopped(c) ? 0 : LOOP_READ;

	if (c->blocked || c->state == CONN_CONNECTING)
		want |= LOOP_WRITE;
	if (c->broken && (want & LOOP_READ) == 0)
		conn_fail(c, CONN_END_RESET, "%s", c->broken_text);
	else if (!loop_fd_want(&c->watch, want))
		conn_fail(c, CONN_END_NO_MEMORY, "can't watch the connection: %s",
		          strerror(errno));
}

/* --- sending ------------------------------------------------------------------------- */

static enum io_rc
plain_next(struct conn *c, struct slice *out)
{
	*out = conn_waiting(c);
	if (c->tls_next != NULL && out->len > c->plain_left)
		out->len = c->plain_left; /* what was written later belongs into TLS */
	return IO_DONE;
}

static void
plain_end(struct conn *c)
{
	(void)c;
}

static enum io_rc
tls_next(struct conn *c, struct slice *out)
{
	struct buffer *wire = &c->tls->wire;

	while (c->state == CONN_OPEN && wire->len - c->wire_at < TLS_WIRE_HIGH &&
	       conn_waiting(c).len > 0) {
		struct slice s = conn_waiting(c);

		if (s.len > RECORD)
			s.len = RECORD;
		if (tls_stream_write(c->tls, s) != TLS_DONE) {
			conn_fail(c, CONN_END_TLS, "%s", c->tls->error);
			return IO_FAILED;
		}
		out_sent(c, s.len);
	}
	*out = slice_mem(wire->data == NULL ? NULL : wire->data + c->wire_at,
	                 wire->len - c->wire_at);
	return IO_DONE;
}

static void
tls_sent(struct conn *c, size_t n)
{
	c->wire_at += n;
	if (c->wire_at == c->tls->wire.len) {
		buffer_clear(&c->tls->wire);
		buffer_shrink(&c->tls->wire, KEEP);
		c->wire_at = 0;
	}
}

static void
tls_end(struct conn *c)
{
	tls_stream_shutdown(c->tls);
}

const struct transport conn_plain = { plain_read, plain_read_done, plain_next, out_sent,
	                              plain_end };
const struct transport conn_tls = { tls_read, tls_read_done, tls_next, tls_sent, tls_end };

/* The peer may have said why before it went: what it said is read before the owner is told. */
static void
break_off(struct conn *c, int error)
{
	c->broken = true;
	(void)snprintf(c->broken_text, sizeof(c->broken_text), "sending: %s", strerror(error));
	c->blocked = false;
	loop_timer_cancel(&c->stall);
	conn_update_watch(c);
}

/*
 * Sends until nothing waits (IO_DONE), the kernel takes no more (IO_MORE), or it can't be
 * (IO_FAILED).
 */
static enum io_rc
send_waiting(struct conn *c, bool *progress)
{
	struct slice s;
	ssize_t n;

	for (;;) {
		if (c->transport->next(c, &s) != IO_DONE)
			return IO_FAILED;
		if (s.len == 0)
			return IO_DONE;
		n = send(c->fd, s.data, s.len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return IO_MORE;
		if (n < 0) {
			break_off(c, errno);
			return IO_FAILED;
		}
		c->transport->sent(c, (size_t)n);
		c->last_sent_ms = loop_mono_ms(c->loop);
		*progress = true;
	}
}

/* Everything was sent: the sending half may end. */
static void
shut(struct conn *c)
{
	if (!c->end_queued) {
		c->end_queued = true;
		c->transport->end(c);
		loop_defer(c->loop, &c->flush);
		return;
	}
	c->shut_done = true;
	(void)shutdown(c->fd, SHUT_WR);
	if (!c->lingering)
		return;
	if (c->eof)
		conn_fail(c, CONN_END_EOF, "closed by the peer");
	else
		loop_timer_set(&c->deadline, c->linger_ms);
}

void
conn_flush(struct conn *c)
{
	bool progress = false;
	enum io_rc rc;

	if (conn_is_dead(c) || c->state == CONN_CONNECTING || c->broken)
		return;
	rc = send_waiting(c, &progress);
	if (rc == IO_FAILED)
		return;
	c->blocked = rc == IO_MORE;
	if (!c->blocked)
		loop_timer_cancel(&c->stall);
	else if (progress || !c->stall.set)
		loop_timer_set(&c->stall, c->config.stall_ms);
	if (rc == IO_DONE && c->shut_wanted && !c->shut_done && c->state == CONN_OPEN &&
	    c->tls_next == NULL)
		shut(c);
	if (!conn_is_dead(c) && c->tell_drained && conn_unsent(c) <= c->config.out_low) {
		c->tell_drained = false;
		if (c->events->drained != NULL)
			c->events->drained(c, c->arg);
	}
	if (conn_is_dead(c))
		return;
	conn_update_watch(c);
	if (!conn_is_dead(c) && c->interrupted && !is_stopped(c))
		loop_defer(c->loop, &c->process);
}
