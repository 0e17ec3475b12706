/*
 * What is refused before a handler could: by libmicrohttpd, which answers broken
 * requests itself and only tells its logger; by the keeper, who cuts what
 * trickles; by TLS. Each leaves a line that says who and why.
 *
 * The logger isn't told which connection it is about. But the daemon closes a
 * connection after such an answer, on the same thread and in the order of the
 * answers; so the reason waits, in the thread's own memory, for the next that
 * closes with a request unanswered, with octets that began none, or without its
 * client having left.
 */
#include "web/private.h"

#include "base/log.h"

#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define WAITING_MAX 64
#define REASON_TEXT 80

/* First in, first out. */
static _Thread_local struct {
	unsigned first, n;
	struct {
		unsigned status;
		char reason[REASON_TEXT];
	} refusals[WAITING_MAX];
} waiting;

static void
tell(const char *client)
{
	unsigned status = waiting.refusals[waiting.first].status;

	metrics_request(status);
	log_info("request-refused", LOG_I("status", status),
	         LOG_S("reason", waiting.refusals[waiting.first].reason),
	         LOG_S("client", client));
	waiting.first = (waiting.first + 1) % WAITING_MAX;
	waiting.n--;
}

/* The title of the page that the daemon answers with, its entities dropped. */
static void
reason_of(const char *line, char out[static REASON_TEXT])
{
	const char *title = strstr(line, "<title>");
	size_t n = 0;

	for (const char *p = title == NULL ? "" : title + 7;
	     *p != '\0' && *p != '<' && n + 1 < REASON_TEXT; p++) {
		if (strncmp(p, "&quot;", 6) == 0)
			p += 5;
		else
			out[n++] = *p;
	}
	out[n] = '\0';
}

void
refused_hear(const char *line)
{
	const char *code = strstr(line, "HTTP response code is ");
	unsigned long status = code == NULL ? 0 : strtoul(code + 22, NULL, 10);

	if (status >= 400 && status < 600) {
		unsigned at;

		if (waiting.n == WAITING_MAX)
			tell("");
		at = (waiting.first + waiting.n++) % WAITING_MAX;
		waiting.refusals[at].status = (unsigned)status;
		reason_of(line, waiting.refusals[at].reason);
	} else if (strstr(line, "reached connection limit") != NULL) {
		log_info("connection-refused", LOG_S("reason", "connection-limit"));
	} else {
		log_debug("http-daemon", LOG_S("text", line));
	}
}

static bool
client_left(const struct web_conn *conn)
{
	char octet;

	return conn->fd < 0 || recv(conn->fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Octets, but not the line that a request begins with: not said by the daemon at all. */
static bool
no_request(const struct web_conn *conn)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return !conn->began && !conn->server->has_tls && conn->fd >= 0 &&
	       getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_bytes_received > 1; /* its end counts as one */
}

void
refused_close(const struct web_conn *conn)
{
	if (waiting.n > 0 && (conn->unanswered || no_request(conn) || !client_left(conn)))
		tell(conn->peer);
	else if (conn->cut)
		log_info("connection-cut", LOG_S("reason", "too-slow"),
		         LOG_S("client", conn->peer));
	else if (conn->heard && !conn->handshaken)
		log_info("connection-refused", LOG_S("reason", "tls-handshake"),
		         LOG_S("client", conn->peer));
	else if (no_request(conn))
		log_info("connection-refused", LOG_S("reason", "no-request"),
		         LOG_S("client", conn->peer));
}
