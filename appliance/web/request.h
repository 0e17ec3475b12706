/*
 * One HTTP request as a handler sees it, and the table of routes that leads to
 * the handler. A handler is called once, when the body is complete, on a server
 * thread, and must not block: it replies at once, or keeps the request and
 * replies later from any thread (web/reply.h, web/stream.h). Exactly one reply
 * a request; with it the request is gone.
 */
#ifndef TMTP_WEB_REQUEST_H
#define TMTP_WEB_REQUEST_H

#include "base/slice.h"

struct web_request;

enum web_method { WEB_GET, WEB_HEAD, WEB_POST, WEB_PUT, WEB_PATCH, WEB_DELETE, WEB_METHODS };

typedef void web_handler(struct web_request *req, void *arg);

enum web_route_flag {
	WEB_JSON_BODY = 1,     /* a body that isn't JSON by its Content-Type gets 415 */
	WEB_WHEN_DRAINING = 2, /* served while the server drains, whatever the method */
	WEB_STREAM_BODY = 4,   /* the handler is called before the body: web/upload.h */
	/* Query arguments that are understood; with any of these every other one gets 400. */
	WEB_NO_ARGS = 1 << 8,
	WEB_ARG_LIMIT = 1 << 9,
	WEB_ARG_BEFORE = 1 << 10,
	WEB_ARG_AFTER = 1 << 11,
	WEB_ARG_STATE = 1 << 12,
	WEB_ARG_UNREAD = 1 << 13,
	WEB_ARG_LAST_EVENT_ID = 1 << 14,
	WEB_ARG_DOMAIN = 1 << 15,
	WEB_ARG_MESSAGE = 1 << 16,
};

/*
 * { WEB_POST, "/v1/channels/:channel/messages", on_push, 65536, WEB_JSON_BODY }
 * A segment that begins with ':' matches any one non-empty segment. Of several
 * routes that match, the first wins. HEAD is served by GET's handler, without
 * the body. At most 8 parameters and 16 segments a path. body_max 0: a body gets
 * 400.
 */
struct web_route {
	enum web_method method;
	const char *path;
	web_handler *handler;
	size_t body_max; /* octets */
	unsigned flags;
};

/* HEAD reads as WEB_GET. */
enum web_method web_request_method(const struct web_request *req);

/* The route that matched. */
const struct web_route *web_request_route(const struct web_request *req);

/*
 * Path parameter "channel": percent-decoded, UTF-8, without NUL; the empty
 * slice when the route has none of that name. Everything below borrows from
 * the request until the reply.
 */
struct slice web_request_param(const struct web_request *req, const char *name);

/* First value of a query argument, decoded like a parameter. False: absent; out untouched. */
bool web_request_query(struct web_request *req, const char *name, struct slice *out);

/* A query argument as an integer 0..max. WEB_QUERY_BAD: there, but not such a number. */
enum web_query { WEB_QUERY_OK = 0, WEB_QUERY_ABSENT, WEB_QUERY_BAD };
enum web_query web_request_query_u64(struct web_request *req, const char *name, uint64_t max,
                                     uint64_t *out) __attribute__((warn_unused_result));

/* First value of a header, any case of the name. False: absent; out untouched. */
bool web_request_header(struct web_request *req, const char *name, struct slice *out);

/* If-None-Match names this entity tag (quotes included): what it stands for need not be sent. */
bool web_request_knows(struct web_request *req, const char *etag);

/* The token of "Authorization: Bearer <token>". False: none; out untouched. */
bool web_request_bearer(struct web_request *req, struct slice *out);

/* The body as it was sent; content codings other than identity were refused with 415. */
struct slice web_request_body(const struct web_request *req);

/*
 * True when the media type is this one ("application/json"), whatever its parameters but a
 * charset other than UTF-8.
 */
bool web_request_content_is(struct web_request *req, const char *media_type);

/* The client's address as text, without port. */
const char *web_request_peer(const struct web_request *req);

/* Why it is refused was logged by who refuses it, who knows more: no line is added. */
void web_request_told(struct web_request *req);

/* Memory that lives as long as the request; NULL when there is none. */
void *web_request_alloc(struct web_request *req, size_t len);

/*
 * Attaches the handler's own state; free_ctx (may be NULL) is called with it once, when
 * the request's end is known: answered, client gone, or server stopped. On any thread.
 */
void web_request_set_ctx(struct web_request *req, void *ctx, void (*free_ctx)(void *));
void *web_request_ctx(const struct web_request *req);

#endif
