/*
 * Sockets and OpenSSL by hand, since the client must cost less than what it
 * measures.
 */
#include "common/http.h"

#include "base/text.h"
#include "net/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define IN_MAX ((size_t)4 << 20)
#define READ_SIZE 16384

void
http_die(const char *what, const char *why)
{
	(void)fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* --- opening ------------------------------------------------------------------- */

static void
make_tls(struct http_target *to)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (ctx == NULL || SSL_CTX_load_verify_locations(ctx, to->ca, NULL) != 1)
		http_die(to->ca, "no usable CA");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
	                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
	to->tls = ctx;
}

static void
shake_hands(struct http_target *to, struct http_conn *conn)
{
	SSL *ssl;

	if (to->tls == NULL)
		make_tls(to);
	ssl = SSL_new(to->tls);
	if (ssl == NULL || SSL_set_fd(ssl, conn->fd) != 1 ||
	    SSL_set_tlsext_host_name(ssl, to->host) != 1 || SSL_set1_host(ssl, to->host) != 1 ||
	    SSL_connect(ssl) != 1) {
		ERR_print_errors_fp(stderr);
		http_die(to->address, "no TLS");
	}
	conn->ssl = ssl;
}

void
http_open(struct http_target *to, struct http_conn *conn)
{
	struct net_address a;
	int one = 1;

	if (!net_address_parse(to->address, &a))
		http_die(to->address, "no address");
	*conn =
	    (struct http_conn){ .fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	buffer_init(&conn->in, IN_MAX);
	if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&a.ss, a.len) != 0)
		http_die(to->address, strerror(errno));
	(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (to->ca != NULL)
		shake_hands(to, conn);
	(void)fcntl(conn->fd, F_SETFL, O_NONBLOCK);
}

void
http_close(struct http_conn *conn)
{
	SSL_free(conn->ssl);
	conn->ssl = NULL;
	if (conn->fd >= 0)
		(void)close(conn->fd);
	conn->fd = -1;
	buffer_free(&conn->in);
}

void
http_target_free(struct http_target *to)
{
	SSL_CTX_free(to->tls);
	to->tls = NULL;
}

/* --- octets --------------------------------------------------------------------- */

/* Octets written, 0: not now, below 0: gone. */
static ssize_t
write_some(struct http_conn *conn, struct slice octets)
{
	size_t n;
	ssize_t sent;

	if (conn->ssl != NULL) {
		if (SSL_write_ex(conn->ssl, octets.data, octets.len, &n) == 1)
			return (ssize_t)n;
		return SSL_get_error(conn->ssl, 0) == SSL_ERROR_WANT_WRITE ? 0 : -1;
	}
	sent = send(conn->fd, octets.data, octets.len, MSG_NOSIGNAL);
	return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
}

bool
http_send(struct http_conn *conn, struct slice octets)
{
	struct pollfd p = { .fd = conn->fd, .events = POLLOUT };

	while (octets.len > 0) {
		ssize_t n = write_some(conn, octets);

		if (n < 0 || (n == 0 && poll(&p, 1, 10000) == 0))
			return false;
		octets = slice_mem(octets.data + n, octets.len - (size_t)n);
	}
	return true;
}

/* Octets read, 0: not now, below 0: ended. */
static ssize_t
read_some(struct http_conn *conn, uint8_t *out)
{
	size_t n;
	ssize_t got;

	if (conn->ssl != NULL) {
		if (SSL_read_ex(conn->ssl, out, READ_SIZE, &n) == 1)
			return (ssize_t)n;
		return SSL_get_error(conn->ssl, 0) == SSL_ERROR_WANT_READ ? 0 : -1;
	}
	got = recv(conn->fd, out, READ_SIZE, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return got == 0 ? -1 : got;
}

bool
http_read(struct http_conn *conn)
{
	for (;;) {
		uint8_t *room = buffer_reserve(&conn->in, READ_SIZE);
		ssize_t n;

		if (room == NULL)
			http_die("answer", "too long");
		n = read_some(conn, room);
		if (n <= 0)
			return n == 0;
		buffer_added(&conn->in, (size_t)n);
		if (conn->ssl == NULL && n < READ_SIZE)
			return true;
	}
}

/* --- answers --------------------------------------------------------------------- */

/* A header's value as a number, or -1. */
static long
header_number(const char *head, size_t len, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = head; at + n < head + len; at++)
		if (at[0] == '\n' && strncasecmp(at + 1, name, n) == 0)
			return strtol(at + 1 + n, NULL, 10);
	return -1;
}

bool
http_answer(const struct http_conn *conn, bool stream, struct http_answer *out)
{
	const char *data = (const char *)conn->in.data;
	const char *end = conn->in.len == 0 ? NULL : memmem(data, conn->in.len, "\r\n\r\n", 4);
	size_t head;
	long body;

	if (end == NULL || conn->in.len < 12)
		return false;
	head = (size_t)(end - data) + 4;
	body = header_number(data, head, "content-length:");
	if (stream || body < 0)
		body = 0;
	if (conn->in.len < head + (size_t)body)
		return false;
	out->status = (int)strtol(data + 9, NULL, 10);
	out->body = slice_mem(data + head, (size_t)body);
	out->octets = head + (size_t)body;
	return true;
}

void
http_next(struct http_conn *conn, size_t octets)
{
	buffer_consume(&conn->in, octets);
}

/* --- files ------------------------------------------------------------------------- */

char *
http_file(const char *path)
{
	FILE *f = fopen(path, "re");
	size_t cap = 65536, len = 0;
	char *text = malloc(cap);

	if (f == NULL)
		http_die(path, strerror(errno));
	while (text != NULL) {
		len += fread(text + len, 1, cap - len - 1, f);
		if (len < cap - 1)
			break;
		cap *= 2;
		text = realloc(text, cap);
	}
	if (text == NULL)
		http_die(path, "out of memory");
	text[len] = '\0';
	(void)fclose(f);
	return text;
}

char *
http_line(char **text)
{
	char *line = *text;
	size_t n = strcspn(line, "\n");

	if (line[0] == '\0')
		return NULL;
	*text = line + n + (line[n] == '\n');
	line[n] = '\0';
	return line;
}
