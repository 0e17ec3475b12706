/*
 * A small HTTP client for the tests of this room: requests are written by hand,
 * answers are cut out of the stream one by one. Blocking, with a time limit on
 * every read, so that a test that would hang fails instead.
 */
#ifndef TMTP_TESTS_WEB_HTTP_H
#define TMTP_TESTS_WEB_HTTP_H

#include "base/slice.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct http_client {
	int fd;
	size_t len;
	char in[262144];
};

struct http_answer {
	int status;
	char head[16384];
	char body[262144];
	size_t len;
};

static inline int
http_connect(uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval limit = { .tv_sec = 10 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static inline struct http_client *
http_open(uint16_t port)
{
	struct http_client *c = calloc(1, sizeof(*c));

	c->fd = http_connect(port);
	return c;
}

static inline void
http_close(struct http_client *c)
{
	(void)close(c->fd);
	free(c);
}

static inline bool
http_send(struct http_client *c, const char *text)
{
	size_t len = strlen(text);

	return send(c->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* False: end of stream, error or time limit. */
static inline bool
http_fill(struct http_client *c)
{
	ssize_t n = recv(c->fd, c->in + c->len, sizeof(c->in) - 1 - c->len, 0);

	if (n <= 0)
		return false;
	c->len += (size_t)n;
	c->in[c->len] = '\0';
	return true;
}

static inline void
http_drop(struct http_client *c, size_t n)
{
	c->len -= n;
	memmove(c->in, c->in + n, c->len + 1);
}

/* The value of a header of an answer, or NULL. Lives until the next call. */
static inline const char *
http_header(const struct http_answer *a, const char *name)
{
	static _Thread_local char value[4096];
	size_t n = strlen(name);

	for (const char *line = strstr(a->head, "\r\n"); line != NULL;
	     line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
			line += n + 1 + strspn(line + n + 1, " ");
			(void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(line, "\r"),
			               line);
			return value;
		}
	}
	return NULL;
}

/* The status line and headers of the next answer. */
static inline bool
http_read_head(struct http_client *c, struct http_answer *a)
{
	char *end;

	c->in[c->len] = '\0';
	while ((end = strstr(c->in, "\r\n\r\n")) == NULL) {
		if (!http_fill(c))
			return false;
	}
	a->len = 0;
	(void)snprintf(a->head, sizeof(a->head), "%.*s", (int)(end + 2 - c->in), c->in);
	a->status = atoi(a->head + 9);
	http_drop(c, (size_t)(end + 4 - c->in));
	return true;
}

static inline bool
http_read_octets(struct http_client *c, struct http_answer *a, size_t n)
{
	while (c->len < n) {
		if (!http_fill(c))
			return false;
	}
	if (a->len + n >= sizeof(a->body))
		return false;
	memcpy(a->body + a->len, c->in, n);
	a->len += n;
	a->body[a->len] = '\0';
	http_drop(c, n);
	return true;
}

/* One chunk; *last: the closing one. */
static inline bool
http_read_chunk(struct http_client *c, struct http_answer *a, bool *last)
{
	char *end;
	size_t n;

	c->in[c->len] = '\0';
	while ((end = strstr(c->in, "\r\n")) == NULL) {
		if (!http_fill(c))
			return false;
	}
	n = strtoul(c->in, NULL, 16);
	http_drop(c, (size_t)(end + 2 - c->in));
	*last = n == 0;
	if (!http_read_octets(c, a, n))
		return false;
	while (c->len < 2) {
		if (!http_fill(c))
			return false;
	}
	http_drop(c, 2);
	return true;
}

/* A whole answer; no_body: to HEAD. */
static inline bool
http_read(struct http_client *c, struct http_answer *a, bool no_body)
{
	const char *length;
	bool last = false;

	a->body[0] = '\0';
	if (!http_read_head(c, a))
		return false;
	if (no_body || a->status == 204 || a->status == 304)
		return true;
	length = http_header(a, "Content-Length");
	if (length != NULL)
		return http_read_octets(c, a, strtoul(length, NULL, 10));
	while (!last) {
		if (!http_read_chunk(c, a, &last))
			return false;
	}
	return true;
}

/* One request on a connection of its own; status 0 when there was no answer. */
static inline int
http_ask(uint16_t port, const char *text, struct http_answer *a)
{
	struct http_client *c = http_open(port);

	a->status = 0;
	if (!http_send(c, text) || !http_read(c, a, strncmp(text, "HEAD ", 5) == 0))
		a->status = 0;
	http_close(c);
	return a->status;
}

/* True when the peer has closed (or reset) and nothing is left to read. */
static inline bool
http_is_closed(struct http_client *c)
{
	return c->len == 0 && !http_fill(c);
}

#endif
