/*
 * Connections: see conn.h. An owner may close one from within any of its
 * callbacks: everything but the memory goes at once, the memory when the
 * outermost call on the stack is through.
 */
#include "net/conn_state.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *
conn_end_name(enum conn_end end)
{
	static const char *const names[] = {
		[CONN_END_EOF] = "eof",
		[CONN_END_RESET] = "reset",
		[CONN_END_CONNECT] = "connect",
		[CONN_END_HANDSHAKE] = "handshake",
		[CONN_END_UNVERIFIED] = "unverified",
		[CONN_END_TIMEOUT] = "timeout",
		[CONN_END_STALLED] = "stalled",
		[CONN_END_INJECTED] = "injected",
		[CONN_END_TLS] = "tls",
		[CONN_END_NO_MEMORY] = "no-memory",
	};

	if ((size_t)end >= sizeof(names) / sizeof(names[0]) || names[end] == NULL)
		return "unknown";
	return names[end];
}

/* --- the end --------------------------------------------------------------------- */

/* Everything that could act by itself. What callbacks up the stack borrow stays. */
static void
let_go(struct conn *c)
{
	loop_timer_cancel(&c->deadline);
	loop_timer_cancel(&c->stall);
	loop_defer_cancel(&c->flush);
	loop_defer_cancel(&c->process);
	loop_fd_deinit(&c->watch);
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	listener_leave(&c->config.seat);
}

static void
conn_free(struct conn *c)
{
	loop_guest_remove(&c->guest);
	tls_stream_free(&c->tls);
	tls_stream_free(&c->tls_next);
	buffer_free(&c->in);
	buffer_free(&c->raw);
	buffer_free(&c->out);
	free(c->addresses);
	free(c);
}

void
conn_enter(struct conn *c)
{
	c->depth++;
}

void
conn_leave(struct conn *c)
{
	if (--c->depth == 0 && c->gone)
		conn_free(c);
}

void
conn_fail(struct conn *c, enum conn_end end, const char *fmt, ...)
{
	char text[NET_TEXT];
	va_list ap;

	if (conn_is_dead(c))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	let_go(c);
	c->state = CONN_DEAD;
	if (c->events->closed != NULL)
		c->events->closed(c, c->arg, end, text);
}

void
conn_close(struct conn **conn)
{
	struct conn *c = *conn;

	*conn = NULL;
	if (c == NULL)
		return;
	let_go(c);
	c->gone = true;
	if (c->depth == 0)
		conn_free(c);
}

/* --- lingering ------------------------------------------------------------------- */

static size_t
linger_data(struct conn *c, void *arg, struct slice in)
{
	(void)c;
	(void)arg;
	return in.len;
}

static void
linger_ended(struct conn *c, void *arg, bool clean)
{
	(void)arg;
	(void)clean;
	if (c->shut_done)
		conn_close(&c);
}

static void
linger_closed(struct conn *c, void *arg, enum conn_end end, const char *text)
{
	(void)arg;
	(void)end;
	(void)text;
	conn_close(&c);
}

static const struct conn_events linger_events = {
	.data = linger_data,
	.ended = linger_ended,
	.closed = linger_closed,
};

static void
linger_abandoned(struct loop_guest *guest)
{
	struct conn *c = (struct conn *)(void *)((char *)guest - offsetof(struct conn, guest));

	conn_close(&c);
}

void
conn_linger(struct conn **conn, int64_t linger_ms)
{
	struct conn *c = *conn;

	if (c == NULL || conn_is_dead(c) || c->state == CONN_CONNECTING ||
	    (c->shut_done && c->eof)) {
		conn_close(conn);
		return;
	}
	*conn = NULL;
	c->events = &linger_events;
	c->lingering = true;
	c->linger_ms = linger_ms;
	c->guest.end = linger_abandoned;
	loop_guest_add(c->loop, &c->guest);
	buffer_clear(&c->in);
	if (c->shut_done)
		loop_timer_set(&c->deadline, linger_ms);
	c->shut_wanted = true;
	c->paused = false;
	loop_defer(c->loop, &c->flush);
	loop_defer(c->loop, &c->process);
}

/* --- what the loop calls --------------------------------------------------------- */

static void connect_next(struct conn *c);

static void
on_connect_ready(struct conn *c)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error == 0) {
		conn_connected(c);
		return;
	}
	c->connect_error = error;
	connect_next(c);
}

static void
on_ready(struct loop_fd *watch, unsigned ready)
{
	struct conn *c = watch->arg;

	conn_enter(c);
	if (c->state == CONN_CONNECTING) {
		on_connect_ready(c);
	} else if ((ready & LOOP_READ) != 0) {
		c->may_receive = true;
		conn_process(c);
	} else {
		c->blocked = false;
		conn_flush(c);
	}
	conn_leave(c);
}

static void
on_process(struct loop_defer *defer)
{
	struct conn *c = defer->arg;

	conn_enter(c);
	if (c->state == CONN_CONNECTING)
		connect_next(c);
	else
		conn_process(c);
	conn_leave(c);
}

static void
on_flush(struct loop_defer *defer)
{
	struct conn *c = defer->arg;

	conn_enter(c);
	conn_flush(c);
	conn_leave(c);
}

static void
on_deadline(struct loop_timer *timer)
{
	struct conn *c = timer->arg;

	conn_enter(c);
	if (c->state == CONN_CONNECTING) {
		c->connect_error = ETIMEDOUT;
		connect_next(c);
	} else {
		conn_fail(c, CONN_END_TIMEOUT,
		          c->state == CONN_SECURING ? "TLS handshake: not done in time"
		                                    : "lingered long enough");
	}
	conn_leave(c);
}

static void
on_stall(struct loop_timer *timer)
{
	struct conn *c = timer->arg;

	conn_enter(c);
	conn_fail(c, CONN_END_STALLED, "the peer took nothing of %zu waiting octets for %lld s",
	          conn_unsent(c), (long long)(c->config.stall_ms / 1000));
	conn_leave(c);
}

/* --- the beginning --------------------------------------------------------------- */

static void
set_defaults(struct conn_config *config)
{
	if (config->in_max == 0)
		config->in_max = 65536;
	if (config->out_max == 0)
		config->out_max = (size_t)2 * 1024 * 1024;
	if (config->out_high == 0)
		config->out_high = config->out_max / 2;
	if (config->out_low == 0)
		config->out_low = config->out_max / 8;
	if (config->connect_ms == 0)
		config->connect_ms = 10000;
	if (config->handshake_ms == 0)
		config->handshake_ms = 30000;
	if (config->stall_ms == 0)
		config->stall_ms = 300000;
}

static struct conn *
conn_make(struct loop *loop, const struct conn_config *config)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct listener_seat *seat = config->seat;

	if (c == NULL) {
		listener_leave(&seat);
		return NULL;
	}
	c->loop = loop;
	c->config = *config;
	c->events = config->events;
	c->arg = config->arg;
	c->transport = &conn_plain;
	c->fd = -1;
	c->peer.ss.ss_family = AF_UNSPEC;
	c->last_sent_ms = loop_mono_ms(loop);
	set_defaults(&c->config);
	buffer_init(&c->in, c->config.in_max);
	buffer_init(&c->raw, LOOP_SCRATCH);
	buffer_init(&c->out, c->config.out_max);
	loop_timer_init(&c->deadline, loop, on_deadline, c);
	loop_timer_init(&c->stall, loop, on_stall, c);
	loop_defer_init(&c->flush, on_flush, c);
	loop_defer_init(&c->process, on_process, c);
	return c;
}

static void
no_delay(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

struct conn *
conn_new(struct loop *loop, int fd, const struct net_address *peer,
         const struct conn_config *config)
{
	struct conn *c = conn_make(loop, config);

	if (c == NULL) {
		(void)close(fd);
		return NULL;
	}
	c->fd = fd;
	c->state = CONN_OPEN;
	if (peer != NULL)
		c->peer = *peer;
	no_delay(fd);
	if (!loop_fd_init(&c->watch, loop, fd, on_ready, c)) {
		conn_close(&c);
		return NULL;
	}
	loop_defer(loop, &c->process); /* watches when the owner has said what it wants */
	return c;
}

/* --- connecting ------------------------------------------------------------------ */

struct conn *
conn_connect(struct loop *loop, const struct net_address *addresses, size_t count,
             bool public_only, const struct conn_config *config)
{
	struct conn *c = conn_make(loop, config);

	if (c == NULL)
		return NULL;
	c->state = CONN_CONNECTING;
	c->public_only = public_only;
	c->addresses = calloc(count + 1, sizeof(*c->addresses));
	if (c->addresses == NULL) {
		conn_close(&c);
		return NULL;
	}
	if (count > 0)
		memcpy(c->addresses, addresses, count * sizeof(*addresses));
	c->address_count = count;
	loop_defer(loop, &c->process);
	return c;
}

/*
 * Begins to connect to c->peer; 0 when it is under way or done, -1 for an address that is
 * closed to us, else errno.
 */
static int
connect_try(struct conn *c)
{
	if (c->public_only && !net_address_is_public((const struct sockaddr *)&c->peer.ss))
		return -1;
	c->fd = socket(c->peer.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return errno;
	no_delay(c->fd);
	if (connect(c->fd, (const struct sockaddr *)&c->peer.ss, c->peer.len) != 0 &&
	    errno != EINPROGRESS)
		return errno;
	if (!loop_fd_init(&c->watch, c->loop, c->fd, on_ready, c) ||
	    !loop_fd_want(&c->watch, LOOP_WRITE))
		return ENOMEM;
	loop_timer_set(&c->deadline, c->config.connect_ms);
	return 0;
}

static void
connect_failed(struct conn *c)
{
	char address[NET_ADDRESS_TEXT];
	enum conn_end end = c->connect_error == ETIMEDOUT ? CONN_END_TIMEOUT : CONN_END_CONNECT;

	if (c->address_count == 0)
		conn_fail(c, CONN_END_CONNECT, "no address to connect to");
	else
		conn_fail(c, end, "%s: %s", net_address_format(&c->peer, address),
		          c->connect_error == -1 ? "not a public address"
		                                 : strerror(c->connect_error));
}

/* Goes to the next address that can be tried, or fails. */
static void
connect_next(struct conn *c)
{
	for (;;) {
		loop_timer_cancel(&c->deadline);
		loop_fd_deinit(&c->watch);
		if (c->fd >= 0)
			(void)close(c->fd);
		c->fd = -1;
		if (c->address_next >= c->address_count) {
			connect_failed(c);
			return;
		}
		c->peer = c->addresses[c->address_next++];
		c->connect_error = connect_try(c);
		if (c->connect_error == 0)
			return;
	}
}

void
conn_connected(struct conn *c)
{
	loop_timer_cancel(&c->deadline);
	free(c->addresses);
	c->addresses = NULL;
	c->state = CONN_OPEN;
	c->last_sent_ms = loop_mono_ms(c->loop);
	if (c->events->connected != NULL)
		c->events->connected(c, c->arg);
	if (conn_is_dead(c))
		return;
	loop_defer(c->loop, &c->flush);
	conn_process(c);
}

/* --- what the owner calls -------------------------------------------------------- */

static enum conn_rc
start_tls(struct conn *c, struct tls_stream *stream)
{
	if (stream == NULL)
		return CONN_NO_MEMORY;
	if (conn_is_dead(c) || c->tls != NULL || c->tls_next != NULL || c->shut_wanted ||
	    c->eof) {
		tls_stream_free(&stream);
		return CONN_CLOSED;
	}
	c->tls_next = stream;
	c->plain_left = conn_waiting(c).len;
	if (c->state != CONN_CONNECTING)
		loop_defer(c->loop, &c->process);
	return CONN_OK;
}

enum conn_rc
conn_start_tls_server(struct conn *conn, struct tls_server *server, bool require_alpn)
{
	return start_tls(conn, tls_stream_new_server(server, require_alpn));
}

enum conn_rc
conn_start_tls_client(struct conn *conn, struct tls_client *client, const char *expected,
                      const char *own)
{
	return start_tls(conn, tls_stream_new_client(client, expected, own));
}

const struct tls_peer *
conn_tls_peer(const struct conn *conn)
{
	return conn->tls != NULL && conn->tls->done ? &conn->tls->peer : NULL;
}

bool
conn_tls_certificate(const struct conn *conn, const char *domain, struct tls_certificate *out)
{
	X509 *cert =
	    conn_tls_peer(conn) == NULL ? NULL : SSL_get0_peer_certificate(conn->tls->ssl);

	if (cert != NULL)
		tls_certificate_describe(cert, domain, out);
	return cert != NULL;
}

bool
conn_tls_exporter(struct conn *conn, const char *label, uint8_t *out, size_t len)
{
	return conn_tls_peer(conn) != NULL && tls_stream_exporter(conn->tls, label, out, len);
}

enum conn_rc
conn_write(struct conn *conn, struct slice octets)
{
	struct conn *c = conn;

	if (conn_is_dead(c) || c->broken || c->shut_wanted)
		return CONN_CLOSED;
	if (octets.len > conn_write_room(c)) {
		c->tell_drained = true;
		loop_defer(c->loop, &c->flush);
		return CONN_FULL;
	}
	if (c->out_at > 0 &&
	    (c->out_at >= c->out.len - c->out_at || c->out.len + octets.len > c->out.max)) {
		buffer_consume(&c->out, c->out_at);
		c->out_at = 0;
	}
	buffer_add_slice(&c->out, octets);
	if (c->out.failed) {
		c->out.failed = false; /* what stands in it is whole */
		return CONN_NO_MEMORY;
	}
	if (conn_unsent(c) > c->config.out_high)
		c->tell_drained = true;
	if (c->state != CONN_CONNECTING)
		loop_defer(c->loop, &c->flush);
	return CONN_OK;
}

size_t
conn_write_room(const struct conn *conn)
{
	size_t waiting = conn_unsent(conn);

	return waiting >= conn->config.out_max ? 0 : conn->config.out_max - waiting;
}

size_t
conn_unsent(const struct conn *conn)
{
	return conn_waiting(conn).len +
	       (conn->tls == NULL ? 0 : conn->tls->wire.len - conn->wire_at);
}

int64_t
conn_last_sent_ms(const struct conn *conn)
{
	return conn->last_sent_ms;
}

size_t
conn_unread(const struct conn *conn)
{
	return conn->in.len;
}

void
conn_read_pause(struct conn *conn)
{
	conn->paused = true;
	if (!conn_is_dead(conn) && conn->depth == 0 && conn->state != CONN_CONNECTING)
		loop_defer(conn->loop, &conn->process); /* takes the watch away */
}

void
conn_read_resume(struct conn *conn)
{
	conn->paused = false;
	conn->offer = true;
	if (!conn_is_dead(conn) && conn->state != CONN_CONNECTING)
		loop_defer(conn->loop, &conn->process);
}

void
conn_shutdown(struct conn *conn)
{
	if (conn_is_dead(conn))
		return;
	conn->shut_wanted = true;
	loop_defer(conn->loop, &conn->flush);
}

const struct net_address *
conn_peer_address(const struct conn *conn)
{
	return &conn->peer;
}

struct loop *
conn_loop(const struct conn *conn)
{
	return conn->loop;
}
