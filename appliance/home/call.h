/*
 * A call: one request of a member on its way through authorisation, the store
 * and back. A call lives in its request's memory; a reply ends both, so what a
 * handler owns besides is freed before. What comes after the store runs on the
 * thread aside.
 */
#ifndef TMTP_HOME_CALL_H
#define TMTP_HOME_CALL_H

#include "base/aside.h"
#include "base/memo.h"
#include "dmtp/address.h"
#include "home/api.h"
#include "home/guard.h"
#include "home/live.h"
#include "web/problem.h"
#include "web/request.h"
#include "web/servers.h"

#include <jansson.h>

/* Log-ins that wait for a processor, beyond the one that has it. */
#define PASSWORDS_MAX 64

struct api {
	struct home *home;
	struct web_servers servers;
	struct aside *aside;     /* after the store has answered */
	struct aside *passwords; /* argon2id: what burns a core */
	struct memo *logins;     /* a token's digest -> who it is */
	struct guard *guard;
	char dummy_hash[160]; /* nobody's: verifying it costs what somebody's costs */
	_Atomic unsigned passwords_waiting;
	_Atomic unsigned
	    downloads;       /* of large attachments, under way: each holds a part in memory */
	_Atomic size_t jobs; /* that the store or a thread aside has */
	_Atomic bool draining;
	_Atomic bool stopping; /* nobody waits for an answer any more */
};

struct call;
typedef void call_step(struct call *call);

struct call {
	struct work work; /* first: what a thread aside gets */
	struct api *api;
	struct web_request *req;
	struct live_member who; /* after the authorisation */
	struct slice address;   /* of who; in the request's memory */
	bool by_cookie;
	_Atomic unsigned waiting; /* for so many jobs */
	call_step *then;
};

/*
 * size octets in the request's memory, zeroed, beginning with a struct call.
 * NULL: the request has been answered (no memory, or the role drains).
 */
void *call_begin(struct web_request *req, void *api, size_t size);

/*
 * Who calls? Goes on with then once the token is known, at once or on the
 * thread aside; otherwise the request is answered. A token that came as a
 * cookie changes nothing unless a page of ours sent the request.
 */
void call_auth(struct call *call, call_step *then);

/* The token of a request, from the header or the cookie. False: none. */
bool call_token(struct web_request *req, struct slice *token, bool *by_cookie);

/* "tmtp_m_<account id>_<20 random octets>": the account. False: not of this form. */
bool call_token_parse(struct slice token, int64_t *account_id);

/* Makes such a token. */
#define CALL_TOKEN_TEXT (7 + 13 + 1 + 32 + 1)
void call_token_make(int64_t account_id, char out[static CALL_TOKEN_TEXT]);

/*
 * Before n jobs are submitted: then is called on the thread aside when the last
 * of them has ended. Each job is made ready with call_job.
 */
void call_await(struct call *call, unsigned n, call_step *then);
void call_job(struct call *call, struct store_job *job);

/* Goes on with then on the thread for passwords. */
void call_burn(struct call *call, call_step *then);

/* Answers a store's refusal: 503 with Retry-After while the database is gone, 404, 409, 500. */
void call_reply_store(struct call *call, enum store_rc rc);

/* Appends a query argument's value, percent-encoded. */
void call_url_add(struct buffer *url, struct slice value);

/* Takes one of the member's from the rule's bucket. False: the request has been answered, 429.
 */
bool call_guard(struct call *call, const struct guard_rule *rule, struct slice name);

/* The client's address, as a proxy on this machine tells it when there is one. */
struct slice call_client(struct call *call);

/* The client speaks HTTPS, with us or with that proxy. */
bool call_is_https(struct call *call);

#endif
