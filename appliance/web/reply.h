/*
 * The one reply to a request. Every web_reply_* ends the caller's right to the
 * request, whatever happens on the wire; none of them fails towards its caller
 * (without memory the client sees its connection closed). Any thread.
 */
#ifndef TMTP_WEB_REPLY_H
#define TMTP_WEB_REPLY_H

#include "base/slice.h"
#include "web/problem.h"

#include <jansson.h>

struct web_request;
struct web_download;

/*
 * Adds a header to the reply that follows. Copies. A value with CR, LF or
 * other controls is dropped and logged, as is one that the server itself sets
 * (Content-Length, Date, Connection, Transfer-Encoding).
 */
void web_reply_header(struct web_request *req, const char *name, const char *value);

/* No body. 204, 202, 304 and the like. */
void web_reply_empty(struct web_request *req, unsigned status);

/* application/json. Takes value; NULL (no memory) becomes 500. */
void web_reply_json(struct web_request *req, unsigned status, json_t *value);

/* Copies data. */
void web_reply_bytes(struct web_request *req, unsigned status, const char *content_type,
                     struct slice data);

/* Takes data, to be freed with free(). */
void web_reply_bytes_owned(struct web_request *req, unsigned status, const char *content_type,
                           void *data, size_t len);

/*
 * application/problem+json with a detail for this instance (printf; UTF-8).
 * Never put a secret or another tenant's data into it. 401 gets
 * WWW-Authenticate, 429 and 503 get "Retry-After: 5" unless the caller added
 * one with web_reply_header.
 */
void web_reply_problem(struct web_request *req, const struct web_problem *kind,
                       const char *detail, ...) __attribute__((format(printf, 3, 4)));

/* The same with "errors": [{"pointer": "/to", "detail": "…"}…]. Takes errors. */
void web_reply_problem_errors(struct web_request *req, const struct web_problem *kind,
                              json_t *errors, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));

/* Seconds for Retry-After, for the problem that follows. */
void web_reply_retry_after(struct web_request *req, unsigned seconds);

/* An immutable thing that clients and caches fetch by its name. */
struct web_object {
	const char *content_type;
	const char *cache_control; /* "public, max-age=3600"; NULL: "no-store" */
	const char *etag;          /* strong, with its quotes; NULL: none, and no conditions */
	const uint8_t *data;       /* not with want */
	size_t len;
	/*
	 * Octets that are not in memory: asks for those from `at` on, on a server thread and
	 * without blocking; web_download_give answers (web/download.h). NULL: data has them.
	 */
	void (*want)(struct web_download *d, uint64_t at, void *owner);
	void (*free_data)(void *owner); /* once, when data is no longer needed; may be NULL */
	void *owner;
};

/*
 * 200, 304 (If-None-Match), 206 for one range (with If-Range), or 416. Several
 * ranges get the whole. Takes *o's data: free_data is called on every way out.
 */
void web_reply_object(struct web_request *req, const struct web_object *o);

#endif
