/*
 * The server's life: listening, connections, stopping. Each connection owns its
 * request's memory and reuses it; the server's list of connections is only for
 * what acts on all of them (stopping, cutting the slow). A keeper thread sends
 * the streams' heartbeats and cuts connections that trickle.
 */
#include "web/private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/text.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define BACKLOG 1024
#define KEEPER_MS 1000
#define EMPTY_MS 2000

METRIC_DEFINE(m_connections, METRIC_GAUGE, "tmtp_http_connections", NULL,
              "Open HTTP connections.");
METRIC_DEFINE(m_streams, METRIC_GAUGE, "tmtp_http_streams", NULL, "Open event streams.");
METRIC_DEFINE(m_2xx, METRIC_COUNTER, "tmtp_http_requests_total", "class=\"2xx\"",
              "HTTP requests by class of status.");
METRIC_DEFINE(m_3xx, METRIC_COUNTER, "tmtp_http_requests_total", "class=\"3xx\"",
              "HTTP requests by class of status.");
METRIC_DEFINE(m_4xx, METRIC_COUNTER, "tmtp_http_requests_total", "class=\"4xx\"",
              "HTTP requests by class of status.");
METRIC_DEFINE(m_5xx, METRIC_COUNTER, "tmtp_http_requests_total", "class=\"5xx\"",
              "HTTP requests by class of status.");

void
metrics_request(unsigned status)
{
	metric_add(status < 300   ? &m_2xx
	           : status < 400 ? &m_3xx
	           : status < 500 ? &m_4xx
	                          : &m_5xx,
	           1);
}

void
metrics_connections(int change)
{
	metric_add(&m_connections, change);
}

void
metrics_streams(int change)
{
	metric_add(&m_streams, change);
}

static void
metrics_show(void)
{
	metric_register(&m_connections);
	metric_register(&m_streams);
	metric_register(&m_2xx);
	metric_register(&m_3xx);
	metric_register(&m_4xx);
	metric_register(&m_5xx);
}

/* --- connections ----------------------------------------------------------- */

struct web_conn *
conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info == NULL ? NULL : info->socket_context;
}

void
web_conn_enter(struct web_conn *conn, enum conn_phase phase)
{
	atomic_store_explicit(&conn->since_ms, clock_mono_ms(), memory_order_relaxed);
	atomic_store_explicit(&conn->phase, phase, memory_order_relaxed);
}

static void
conn_name_peer(struct web_conn *conn)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(conn->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *sa = info == NULL ? NULL : info->client_addr;

	if (sa != NULL && sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		(void)inet_ntop(AF_INET, &in->sin_addr, conn->peer, sizeof(conn->peer));
	} else if (sa != NULL && sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;
		bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		(void)inet_ntop(mapped ? AF_INET : AF_INET6,
		                in6->sin6_addr.s6_addr + (mapped ? 12 : 0), conn->peer,
		                sizeof(conn->peer));
	}
}

/* Without memory the context stays NULL, and the connection ends. */
static void
conn_open(struct web_server *server, struct MHD_Connection *mhd, void **context)
{
	struct web_conn *conn = calloc(1, sizeof(*conn));
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

	*context = conn;
	if (conn == NULL) {
		if (info != NULL)
			(void)shutdown(info->connect_fd, SHUT_RDWR);
		return;
	}
	conn->server = server;
	conn->mhd = mhd;
	conn->fd = info == NULL ? -1 : info->connect_fd;
	conn_name_peer(conn);
	web_conn_enter(conn, server->has_tls ? CONN_HANDSHAKE : CONN_HEADERS);
	if (server->has_tls && conn->fd >= 0)
		handshake_begin(conn);
	metrics_connections(1);
	pthread_mutex_lock(&server->lock);
	conn->next = server->conns;
	if (conn->next != NULL)
		conn->next->prev = conn;
	server->conns = conn;
	pthread_mutex_unlock(&server->lock);
}

static void
conn_close(struct web_server *server, void **context)
{
	struct web_conn *conn = *context;

	*context = NULL;
	if (conn == NULL)
		return;
	refused_close(conn);
	pthread_mutex_lock(&server->lock);
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		server->conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	pthread_mutex_unlock(&server->lock);
	metrics_connections(-1);
	if (conn->req != NULL)
		request_free(conn->req);
	tls_set_unref(&conn->tls);
	free(conn);
}

static void
on_connection(void *cls, struct MHD_Connection *mhd, void **context,
              enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_open(cls, mhd, context);
	else
		conn_close(cls, context);
}

/* --- the keeper ------------------------------------------------------------ */

/* The daemon's idle time-out starts anew with every octet; this one doesn't. */
static bool
conn_trickles(const struct web_server *server, struct web_conn *conn, int64_t now_ms)
{
	int64_t age = now_ms - atomic_load_explicit(&conn->since_ms, memory_order_relaxed);

	switch (atomic_load_explicit(&conn->phase, memory_order_relaxed)) {
	case CONN_HEADERS:
		return age > server->idle_ms + server->request_ms;
	case CONN_HANDSHAKE:
	case CONN_BODY:
		return age > server->request_ms;
	default:
		return false;
	}
}

/* Under the lock: a listed connection's descriptor is still its own. */
static void
keeper_cut(struct web_server *server, int64_t now_ms)
{
	for (struct web_conn *c = server->conns; c != NULL; c = c->next) {
		if (c->fd >= 0 && conn_trickles(server, c, now_ms)) {
			atomic_store(&c->cut, true);
			(void)shutdown(c->fd, SHUT_RDWR);
		}
	}
}

static void
keeper_sleep(struct web_server *server)
{
	int64_t wait_ms = server->next_ms - clock_mono_ms();
	struct timespec until;

	if (wait_ms <= 0)
		return;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(&server->wake, &server->lock, &until);
}

static void *
keeper_run(void *arg)
{
	struct web_server *server = arg;

	pthread_mutex_lock(&server->lock);
	while (!server->stopping) {
		int64_t now_ms = clock_mono_ms(), next_ms;

		keeper_cut(server, now_ms);
		server->next_ms = now_ms + KEEPER_MS;
		pthread_mutex_unlock(&server->lock);
		stream_look_all(server, now_ms);
		next_ms = stream_keep(server, now_ms);
		pthread_mutex_lock(&server->lock);
		if (next_ms < server->next_ms)
			server->next_ms = next_ms;
		if (!server->stopping)
			keeper_sleep(server);
	}
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* --- letting go of requests and handshakes ----------------------------------- */

void
web_server_drain(struct web_server *s)
{
	atomic_store(&s->draining, true);
}

size_t
web_server_active(const struct web_server *s)
{
	return atomic_load(&s->active);
}

/*
 * Answers waiting requests with 503. A connection found here is suspended and so
 * can't go away before it is resumed, which happens outside the lock.
 */
static void
server_abandon_waiting(struct web_server *s)
{
	struct MHD_Connection *found[64];
	size_t n;

	do {
		n = 0;
		pthread_mutex_lock(&s->lock);
		for (struct web_conn *c = s->conns; c != NULL && n < 64; c = c->next) {
			if (c->req != NULL && request_abandon(c->req))
				found[n++] = c->mhd;
		}
		pthread_mutex_unlock(&s->lock);
		for (size_t i = 0; i < n; i++)
			MHD_resume_connection(found[i]);
	} while (n == 64);
}

/* All connections, or only those without a request: their handshake may be waiting. */
static void
server_cut(struct web_server *s, bool all)
{
	pthread_mutex_lock(&s->lock);
	for (struct web_conn *c = s->conns; c != NULL; c = c->next) {
		if (c->fd >= 0 && (all || c->req == NULL))
			(void)shutdown(c->fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&s->lock);
}

/*
 * Until every request is completed, or grace_ms and a second are over. After
 * grace_ms what waits is answered with 503; who doesn't even take that is cut.
 * Looks again every two milliseconds: this happens once in a process's life.
 */
static void
server_wait(struct web_server *s, unsigned grace_ms)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	int64_t waited_ms = 0;

	while (atomic_load(&s->active) > 0 && waited_ms < (int64_t)grace_ms + 1000) {
		if (waited_ms >= (int64_t)grace_ms) {
			atomic_store(&s->refusing, true);
			stream_close_all(s, true);
			server_abandon_waiting(s);
		}
		(void)nanosleep(&pause, NULL);
		waited_ms += 2;
	}
	if (atomic_load(&s->active) > 0)
		server_cut(s, true);
}

/* Until nothing is suspended, nor can be again: stopping before would abort the process. */
static void
server_settle(struct web_server *s)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	atomic_store(&s->refusing, true);
	while (atomic_load(&s->pending) > 0 || atomic_load(&s->resuming) > 0 ||
	       atomic_load(&s->fetching) > 0 || atomic_load(&s->handshakes) > 0) {
		server_abandon_waiting(s);
		server_cut(s, false);
		(void)nanosleep(&pause, NULL);
	}
}

/*
 * No new connections, and those that are there end: a broken request that
 * libmicrohttpd (0.9.75) reads while its daemon is stopped makes it follow a
 * null pointer. A connection that was being accepted shows within milliseconds.
 */
static void
server_empty(struct web_server *s)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	int64_t until_ms = clock_mono_ms() + EMPTY_MS;

	s->listen_fd = MHD_quiesce_daemon(s->daemon);
	for (int seen = 0; seen < 5 && clock_mono_ms() < until_ms; seen++) {
		pthread_mutex_lock(&s->lock);
		if (s->conns != NULL)
			seen = 0;
		pthread_mutex_unlock(&s->lock);
		server_cut(s, true);
		(void)nanosleep(&pause, NULL);
	}
}

static void
server_end_daemon(struct web_server *s)
{
	server_empty(s);
	MHD_stop_daemon(s->daemon);
	if (s->has_tls)
		handshakes_stop(s);
}

/* --- starting -------------------------------------------------------------- */

/* "host:port", "[v6]:port", ":port"; host gets "" for all addresses. */
static bool
listen_split(const char *listen, char host[static 64], char port[static 8])
{
	const char *colon = listen == NULL ? NULL : strrchr(listen, ':');
	size_t len = colon == NULL ? 0 : (size_t)(colon - listen);
	uint64_t number;

	if (colon == NULL || !text_parse_u64(slice_str(colon + 1), 65535, &number))
		return false;
	if (len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
		listen++;
		len -= 2;
	} else if (memchr(listen, ':', len) != NULL) {
		return false;
	}
	if (len >= 64)
		return false;
	memcpy(host, listen, len);
	host[len] = '\0';
	(void)snprintf(port, 8, "%u", (unsigned)number);
	return true;
}

static int
listen_bind(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, zero = 0;

	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static uint16_t
listen_port(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} own = { .v6 = { .sin6_port = 0 } };
	socklen_t len = sizeof(own);

	if (getsockname(fd, &own.any, &len) != 0)
		return 0;
	return ntohs(own.any.sa_family == AF_INET6 ? own.v6.sin6_port : own.v4.sin_port);
}

static enum web_rc
server_listen(struct web_server *s, const char *text, char error[static WEB_ERROR_TEXT])
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *list, *ai;
	char host[64], port[8];

	if (!listen_split(text, host, port)) {
		(void)snprintf(error, WEB_ERROR_TEXT, "\"%s\" isn't host:port",
		               text == NULL ? "" : text);
		return WEB_BAD_ADDRESS;
	}
	if (host[0] == '\0')
		(void)snprintf(host, sizeof(host), "::");
	if (getaddrinfo(host, port, &hints, &list) != 0) {
		(void)snprintf(error, WEB_ERROR_TEXT, "\"%s\": no such address", host);
		return WEB_BAD_ADDRESS;
	}
	for (ai = list; ai != NULL && s->listen_fd < 0; ai = ai->ai_next)
		s->listen_fd = listen_bind(ai);
	freeaddrinfo(list);
	if (s->listen_fd < 0) {
		(void)snprintf(error, WEB_ERROR_TEXT, "can't listen on %s: %s", text,
		               strerror(errno));
		return WEB_LISTEN;
	}
	s->port = listen_port(s->listen_fd);
	return WEB_OK;
}

__attribute__((format(printf, 2, 0))) static void
on_daemon_log(void *cls, const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	(void)cls;
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	while (len > 0 && line[len - 1] == '\n')
		line[--len] = '\0';
	refused_hear(line);
}

/* The request line has been read; so that a connection knows that it owes an answer. */
static void *
on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct web_conn *conn = conn_of(mhd);

	(void)cls;
	(void)uri;
	if (conn != NULL)
		conn->began = conn->unanswered = true;
	return NULL;
}

/*
 * Paths and arguments reach us as they were sent; route_decode decodes them, segment by
 * segment.
 */
static size_t
on_unescape(void *cls, struct MHD_Connection *mhd, char *s)
{
	(void)cls;
	(void)mhd;
	return strlen(s);
}

static unsigned
default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > 16 ? 16 : (unsigned)n;
}

static bool
server_start_daemon(struct web_server *s, const struct web_options *o)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
	                 MHD_USE_ERROR_LOG | MHD_USE_TURBO | (s->has_tls ? MHD_USE_TLS : 0);
	unsigned threads = o->threads == 0 ? default_threads() : o->threads;
	size_t memory = o->connection_bytes == 0 ? 16384 : o->connection_bytes;
	struct MHD_OptionItem more[4];
	size_t n = 0;

	if (threads > 1)
		more[n++] =
		    (struct MHD_OptionItem){ MHD_OPTION_THREAD_POOL_SIZE, threads, NULL };
	if (s->has_tls) {
		more[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_CERT_CALLBACK2, 0,
			                             (void *)(uintptr_t)tls_choose };
		more[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0,
			                             (void *)TLS_PRIORITIES };
	}
	more[n] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
	s->header_bytes = o->header_bytes == 0 ? memory / 2 : o->header_bytes;
	s->idle_ms = (o->idle_s == 0 ? 60 : (int64_t)o->idle_s) * 1000;
	s->request_ms = (o->request_s == 0 ? 30 : (int64_t)o->request_s) * 1000;
	s->daemon = MHD_start_daemon(
	    flags, 0, NULL, NULL, request_on_access, s, MHD_OPTION_EXTERNAL_LOGGER,
	    on_daemon_log, NULL, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
	    MHD_OPTION_CONNECTION_LIMIT, o->connections == 0 ? 8192 : o->connections,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory < 2048 ? (size_t)2048 : memory,
	    MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(s->idle_ms / 1000),
	    MHD_OPTION_NOTIFY_COMPLETED, request_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
	    on_connection, s, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, NULL,
	    MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 1,
	    MHD_OPTION_ARRAY, more, MHD_OPTION_END);
	return s->daemon != NULL;
}

static struct web_server *
server_make(void)
{
	struct web_server *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (s == NULL)
		return NULL;
	s->listen_fd = -1;
	s->handshake_epoll = s->handshake_stop = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	return s;
}

static void
server_free(struct web_server *s)
{
	if (s->listen_fd >= 0)
		(void)close(s->listen_fd);
	route_set_deinit(&s->routes);
	tls_set_unref(&s->tls);
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static enum web_rc
server_prepare(struct web_server *s, const struct web_options *o,
               char error[static WEB_ERROR_TEXT])
{
	enum web_rc rc;

	s->arg = o->arg;
	if (!route_set_init(&s->routes, o->routes, o->n_routes)) {
		(void)snprintf(error, WEB_ERROR_TEXT, "a route can't be served");
		return WEB_START;
	}
	if (o->n_certs > 0) {
		rc = tls_set_load(o->certs, o->n_certs, &s->tls, error);
		if (rc != WEB_OK)
			return rc;
		s->has_tls = true;
	}
	rc = server_listen(s, o->listen, error);
	if (rc != WEB_OK)
		return rc;
	if (s->has_tls && !handshakes_start(s)) {
		(void)snprintf(error, WEB_ERROR_TEXT, "no thread");
		return WEB_START;
	}
	if (!server_start_daemon(s, o)) {
		(void)snprintf(error, WEB_ERROR_TEXT, "the HTTP server doesn't start: %s",
		               strerror(errno));
		if (s->has_tls)
			handshakes_stop(s);
		return WEB_START;
	}
	s->listen_fd = -1;
	if (pthread_create(&s->keeper, NULL, keeper_run, s) != 0) {
		(void)snprintf(error, WEB_ERROR_TEXT, "no thread");
		server_settle(s);
		server_end_daemon(s);
		return WEB_START;
	}
	return WEB_OK;
}

enum web_rc
web_server_start(const struct web_options *o, struct web_server **out,
                 char error[static WEB_ERROR_TEXT])
{
	struct web_server *s = server_make();
	enum web_rc rc;

	*out = NULL;
	error[0] = '\0';
	if (s == NULL) {
		(void)snprintf(error, WEB_ERROR_TEXT, "no memory");
		return WEB_MEMORY;
	}
	metrics_show();
	rc = server_prepare(s, o, error);
	if (rc != WEB_OK) {
		server_free(s);
		return rc;
	}
	*out = s;
	return WEB_OK;
}

uint16_t
web_server_port(const struct web_server *s)
{
	return s->port;
}

enum web_rc
web_server_reload_tls(struct web_server *s, const struct web_cert *certs, size_t n,
                      char error[static WEB_ERROR_TEXT])
{
	struct tls_set *set, *old;
	enum web_rc rc;

	error[0] = '\0';
	if (!s->has_tls) {
		(void)snprintf(error, WEB_ERROR_TEXT, "this server was started without TLS");
		return WEB_BAD_CERT;
	}
	rc = tls_set_load(certs, n, &set, error);
	if (rc != WEB_OK)
		return rc;
	pthread_mutex_lock(&s->lock);
	old = s->tls;
	s->tls = set;
	pthread_mutex_unlock(&s->lock);
	tls_set_unref(&old);
	return WEB_OK;
}

/* --- ending --------------------------------------------------------------- */

static void
server_stop_keeper(struct web_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	(void)pthread_join(s->keeper, NULL);
}

/*
 * The daemon listens until the end: MHD_quiesce_daemon (0.9.75, epoll, a pool)
 * and a worker that is awake may both take the socket out of the worker's set,
 * and the second one to do so aborts the process.
 */
void
web_server_stop(struct web_server **server, unsigned grace_ms)
{
	struct web_server *s = *server;

	*server = NULL;
	if (s == NULL)
		return;
	web_server_drain(s);
	stream_close_all(s, false);
	server_wait(s, grace_ms);
	server_settle(s);
	server_stop_keeper(s);
	server_end_daemon(s);
	server_free(s);
}
