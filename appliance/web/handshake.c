/*
 * TLS handshakes that wait for their client. libmicrohttpd (0.9.75, epoll) calls
 * gnutls_handshake again and again without a pause as long as octets of it are
 * missing: a client that connects and says nothing would take a processor. So the
 * session reads through the function here, which suspends a connection whose
 * handshake finds nothing to read; a thread waits for all of these and resumes
 * each when something came. While suspended a connection is nobody's but this
 * thread's; how long it may take is the keeper's business. What the server itself
 * says in a handshake fits into the socket's buffer.
 */
#include "web/private.h"

#include "base/metric.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64

METRIC_DEFINE(m_waiting, METRIC_GAUGE, "tmtp_http_handshakes", NULL,
              "TLS handshakes of HTTPS that wait for their client.");

static void
count(struct web_server *server, int change)
{
	metric_add(&m_waiting, change);
	if (change > 0)
		atomic_fetch_add(&server->handshakes, 1);
	else
		atomic_fetch_sub(&server->handshakes, 1);
}

/* --- the session's socket, on the daemon's threads -------------------------- */

/* False: the server stops, and the handshake is to fail. */
static bool
wait_to_read(struct web_conn *conn)
{
	struct web_server *server = conn->server;
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT, .data.ptr = conn };
	int op = conn->waited ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	count(server, 1); /* first, so that whoever stops the server sees it, or is seen */
	if (atomic_load(&server->refusing)) {
		count(server, -1);
		return false;
	}
	conn->waited = true;
	MHD_suspend_connection(conn->mhd);
	if (epoll_ctl(server->handshake_epoll, op, conn->fd, &event) != 0) {
		(void)shutdown(conn->fd, SHUT_RDWR); /* it reads the end at once */
		MHD_resume_connection(conn->mhd);
		count(server, -1);
	}
	return true;
}

static ssize_t
pull(gnutls_transport_ptr_t arg, void *data, size_t len)
{
	struct web_conn *conn = arg;
	ssize_t n = recv(conn->fd, data, len, 0);
	int error = errno;

	if (n > 0)
		conn->heard = true;
	else if (n < 0 && error == EAGAIN && !conn->handshaken && !wait_to_read(conn))
		error = ECONNABORTED;
	errno = error;
	return n;
}

static int
pull_timeout(gnutls_transport_ptr_t arg, unsigned ms)
{
	struct web_conn *conn = arg;
	struct pollfd one = { .fd = conn->fd, .events = POLLIN };

	return poll(&one, 1, ms == GNUTLS_INDEFINITE_TIMEOUT ? -1 : (int)ms);
}

/* The client's last word of a handshake is its Finished. */
static int
on_finished(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
            const gnutls_datum_t *message)
{
	struct MHD_Connection *mhd = gnutls_session_get_ptr(session);
	struct web_conn *conn = mhd == NULL ? NULL : conn_of(mhd);

	(void)type;
	(void)when;
	(void)message;
	if (conn != NULL && incoming != 0 && !conn->handshaken) {
		conn->handshaken = true;
		web_conn_enter(conn, CONN_HEADERS);
	}
	return 0;
}

void
handshake_begin(struct web_conn *conn)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(conn->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);

	if (info == NULL)
		return;
	gnutls_transport_set_ptr2(info->tls_session, conn,
	                          (gnutls_transport_ptr_t)(intptr_t)conn->fd);
	gnutls_transport_set_pull_function(info->tls_session, pull);
	gnutls_transport_set_pull_timeout_function(info->tls_session, pull_timeout);
	gnutls_handshake_set_hook_function(info->tls_session, GNUTLS_HANDSHAKE_FINISHED,
	                                   GNUTLS_HOOK_POST, on_finished);
}

/* --- the thread that waits --------------------------------------------------- */

static void *
run(void *arg)
{
	struct web_server *server = arg;
	struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_wait(server->handshake_epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct web_conn *conn = events[i].data.ptr;

			if (conn == NULL)
				return NULL;
			MHD_resume_connection(conn->mhd); /* and conn may be gone */
			count(server, -1);
		}
	}
}

bool
handshakes_start(struct web_server *server)
{
	struct epoll_event event = { .events = EPOLLIN };

	metric_register(&m_waiting);
	server->handshake_epoll = epoll_create1(EPOLL_CLOEXEC);
	server->handshake_stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->handshake_epoll >= 0 && server->handshake_stop >= 0 &&
	    epoll_ctl(server->handshake_epoll, EPOLL_CTL_ADD, server->handshake_stop, &event) ==
	        0 &&
	    pthread_create(&server->handshake_thread, NULL, run, server) == 0)
		return true;
	if (server->handshake_epoll >= 0)
		(void)close(server->handshake_epoll);
	if (server->handshake_stop >= 0)
		(void)close(server->handshake_stop);
	return false;
}

void
handshakes_stop(struct web_server *server)
{
	(void)eventfd_write(server->handshake_stop, 1);
	(void)pthread_join(server->handshake_thread, NULL);
	(void)close(server->handshake_epoll);
	(void)close(server->handshake_stop);
}
