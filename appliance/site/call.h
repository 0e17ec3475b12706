/*
 * The role's state, and a call: one request of a website on its way through
 * authorisation, the store and back. A call lives in its request's memory; a
 * reply ends both, so whatever a handler owns besides is freed before.
 */
#ifndef TMTP_SITE_CALL_H
#define TMTP_SITE_CALL_H

#include "base/aside.h"
#include "base/config.h"
#include "base/memo.h"
#include "dmtp/address.h"
#include "site/rate.h"
#include "store/store.h"
#include "web/problem.h"
#include "web/token.h"

#include <jansson.h>

struct owners;
struct web_request;

/* Made and freed by role.c; everything in it stands as long as requests do. */
struct site {
	const struct config *config; /* as at the start */
	struct store *store;
	struct aside *aside;
	struct rates *rates;        /* NULL: no limit */
	struct token_cache *tokens; /* verified tokens */
	struct memo *keys;          /* (iss, kid) -> key */
	struct memo *channels;      /* (site, name) -> channel */
	struct memo *bodies;        /* message id -> canonical message */
	struct memo *cards;         /* domain -> site card */
	struct owners *owners;      /* what the configuration says of our domains */
	_Atomic unsigned uploads,
	    downloads; /* of attachments, under way: each holds a part in memory */
	_Atomic bool draining;
	_Atomic bool
	    stopping; /* no request is waited for any more: nothing new is asked of the store */
};

/* What a token allows. */
enum site_scope { SCOPE_PUSH = 1, SCOPE_MEMBERS = 2, SCOPE_READ = 4, SCOPE_ALL = 7 };

/* For whom a call speaks. */
struct who {
	int64_t site_id;
	unsigned scopes;
	struct slice name, domain; /* in the request's memory */
};

struct call;
typedef void call_step(struct call *call);

struct call {
	struct site *site;
	struct web_request *req;
	struct who who;
	unsigned wanted; /* scopes, any of which will do */
	call_step *then; /* what comes after the authorisation */
};

/*
 * size octets in the request's memory, zeroed, beginning with a struct call.
 * NULL: no memory; the request has been answered.
 */
void *site_begin(struct web_request *req, void *site, size_t size);

/* Answers a store's refusal: 503 with Retry-After while the database is gone, 404, 409, 500. */
void site_reply_store(struct call *call, enum store_rc rc);

/* A job's memory in the request's, zeroed, its arg the call. NULL as site_begin. */
void *site_job(struct call *call, size_t size, void (*done)(struct store_job *job));

/* Query argument "limit": 1..1000, 100 when absent. False: the request has been answered. */
bool site_limit(struct call *call, unsigned *limit);

/* Query argument "after": an address, empty when absent. False: the request has been answered.
 */
bool site_after(struct call *call, struct dmtp_address *after);

/* The next page's URL, from our own: init, add, set as "next" of the answer (which frees url).
 */
void site_url_begin(struct buffer *url, const struct call *call);
void site_next_json(json_t *answer, struct buffer *url);

/* "2026-11-21T23:01:24Z" */
json_t *site_time_json(int64_t wall_us);

/* Appends ?name=value or &name=value, percent-encoded. */
void site_url_add(struct buffer *url, const char *name, struct slice value);

/* The role's own URL. */
struct slice site_base(const struct call *call);

#endif
