/*
 * A small HTTP/1.1 client for load: connections that stay, plain or TLS,
 * non-blocking once they are open, answers cut out of what came in.
 */
#ifndef TMTP_BENCH_HTTP_H
#define TMTP_BENCH_HTTP_H

#include "base/buffer.h"

struct http_target {
	const char *address; /* "127.0.0.1:8080" */
	const char *host;    /* the Host header and, with TLS, the name that is checked */
	const char *ca;      /* PEM; NULL: plain HTTP */
	void *tls;           /* the library's; private */
};

struct http_conn {
	int fd;
	void *ssl; /* private */
	struct buffer in;
};

struct http_answer {
	int status;
	struct slice body; /* borrows from the connection until the next call */
	size_t octets;     /* of the whole answer, for http_next; of a stream only its head */
};

/* Connects and shakes hands, then the descriptor doesn't block. Ends the process with a
 * sentence when it can't. */
void http_open(struct http_target *to, struct http_conn *conn);
void http_close(struct http_conn *conn);
void http_target_free(struct http_target *to);

/* Sends all of it, waiting when the kernel is full. False: the connection is gone. */
bool http_send(struct http_conn *conn, struct slice octets);

/* Reads what there is, without waiting, into conn->in. False: the connection has ended. */
bool http_read(struct http_conn *conn);

/*
 * A whole answer stands at the front of conn->in; it must have a Content-Length
 * or, when stream is true, only its head is looked at.
 */
bool http_answer(const struct http_conn *conn, bool stream, struct http_answer *out);

/* Drops that many octets from the front. */
void http_next(struct http_conn *conn, size_t octets);

/* A file's whole content, with a NUL behind; ends the process with a sentence when it can't.
 * Owned by the caller. */
char *http_file(const char *path);

/* The next line of text, cut in place; NULL at the end. *text moves on. */
char *http_line(char **text);

/* Prints the tool's sentence and ends the process. */
void http_die(const char *what, const char *why) __attribute__((noreturn));

#endif
