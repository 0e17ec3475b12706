/*
 * The HTTP server: listeners on libmicrohttpd's own epoll threads, TLS with
 * certificates that are replaced at run time, limits, draining and stopping.
 * What it serves is a table of routes (web/request.h).
 */
#ifndef TMTP_WEB_SERVER_H
#define TMTP_WEB_SERVER_H

#include "base/slice.h"

struct web_server;
struct web_route;

enum web_rc {
	WEB_OK = 0,
	WEB_BAD_ADDRESS, /* listen isn't "host:port", "[v6]:port" or ":port" */
	WEB_LISTEN,      /* the address can't be bound */
	WEB_BAD_CERT,    /* a certificate or key can't be read, or they don't belong together */
	WEB_MEMORY,
	WEB_START /* no threads, no descriptors, or a route that can't be served */
};

/* A PEM chain, leaf first, and its unencrypted PEM key. */
struct web_cert {
	const char *cert_file;
	const char *key_file;
};

/*
 * A field that is 0 takes its default. Borrowed during web_server_start only, routes and arg
 * for ever.
 */
struct web_options {
	const char *listen; /* "127.0.0.1:8080", "[::]:443", ":80"; port 0: any free one */
	unsigned threads;   /* default: one a core, at most 16 */
	const struct web_cert *certs; /* none: plain HTTP. The first serves unknown names */
	size_t n_certs;
	unsigned connections;    /* at once; default 8192 */
	size_t connection_bytes; /* memory of each; default 16384, at least 2048 */
	size_t header_bytes; /* request line and headers, above: 431; default half of that */
	unsigned idle_s;     /* without any octet; default 60. Not while a reply is pending */
	unsigned request_s;  /* for all of the headers, and of the body; default 30 */
	const struct web_route *routes;
	size_t n_routes;
	void *arg; /* every handler's second argument */
};

/* One text for a failure, for people: "/etc/x.pem: no such file". */
#define WEB_ERROR_TEXT 256

/*
 * Starts listening and serving; *out owns the server. On failure *out is NULL
 * and error says why.
 */
enum web_rc web_server_start(const struct web_options *o, struct web_server **out,
                             char error[static WEB_ERROR_TEXT])
    __attribute__((warn_unused_result));

/* The port that was bound. */
uint16_t web_server_port(const struct web_server *s);

/*
 * Replaces the certificates for handshakes from now on; connections that stand
 * keep theirs. On failure the old ones stay and error says why. Only for a
 * server started with certificates. Any thread.
 */
enum web_rc web_server_reload_tls(struct web_server *s, const struct web_cert *certs, size_t n,
                                  char error[static WEB_ERROR_TEXT])
    __attribute__((warn_unused_result));

/*
 * From now on GET and HEAD are still served, each answer closing its
 * connection; everything else new gets 503. Requests under way go on.
 */
void web_server_drain(struct web_server *s);

/* Requests under way now, streams among them. */
size_t web_server_active(const struct web_server *s);

/*
 * Drains, ends the streams, waits up to grace_ms for the pending replies,
 * answers what is left with 503 (a client that takes no octet is cut a second
 * later), stops listening and frees the server; *s becomes NULL. Whoever still owes a reply may
 * pay it later: the request stays valid (its headers read as absent), the reply goes nowhere.
 * Not from a handler.
 */
void web_server_stop(struct web_server **s, unsigned grace_ms);

#endif
