/* What all of the API's handlers share: see call.h. */
#include "home/call.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "dmtp/pickup.h"
#include "store/accounts.h"
#include "web/reply.h"
#include "web/token.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define TOKEN_PREFIX "tmtp_m_"
#define TOKEN_RANDOM 20
#define COOKIE_NAME "tmtp_token="
#define LOGIN_KEEP_MS 60000
#define DRAIN_RETRY_S 5

void *
call_begin(struct web_request *req, void *api, size_t size)
{
	struct call *call;

	if (atomic_load(&((struct api *)api)->draining)) {
		web_reply_retry_after(req, DRAIN_RETRY_S);
		web_reply_problem(req, &web_unavailable, "This server is being restarted.");
		return NULL;
	}
	call = web_request_alloc(req, size);
	if (call == NULL) {
		web_reply_problem(req, &web_internal, NULL);
		return NULL;
	}
	memset(call, 0, size);
	call->api = api;
	call->req = req;
	return call;
}

/* --- going on -------------------------------------------------------------------- */

/* The count ends last: the API isn't freed before. */
static void
on_aside(struct work *work)
{
	struct call *call = (struct call *)work;
	struct api *api = call->api;

	call->then(call);
	atomic_fetch_sub(&api->jobs, 1);
}

static void
on_store(struct store_job *job)
{
	struct call *call = job->arg;

	if (atomic_fetch_sub(&call->waiting, 1) == 1)
		aside_post(call->api->aside, &call->work);
}

void
call_await(struct call *call, unsigned n, call_step *then)
{
	call->then = then;
	call->work.run = on_aside;
	atomic_store(&call->waiting, n);
	atomic_fetch_add(&call->api->jobs, 1);
}

void
call_job(struct call *call, struct store_job *job)
{
	*job = (struct store_job){ .done = on_store, .arg = call };
}

void
call_burn(struct call *call, call_step *then)
{
	call->then = then;
	call->work.run = on_aside;
	atomic_fetch_add(&call->api->jobs, 1);
	aside_post(call->api->passwords, &call->work);
}

/* --- answers ------------------------------------------------------------------------- */

void
call_reply_store(struct call *call, enum store_rc rc)
{
	switch (rc) {
	case STORE_NOT_FOUND:
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	case STORE_CONFLICT:
		web_reply_problem(call->req, &web_conflict, NULL);
		return;
	case STORE_DOWN:
		web_reply_retry_after(call->req, 1);
		web_reply_problem(call->req, &web_unavailable,
		                  "The database can't be reached; nothing was changed.");
		return;
	case STORE_COMMIT_UNKNOWN:
		web_reply_retry_after(call->req, 1);
		web_reply_problem(
		    call->req, &web_unavailable,
		    "The database was lost while it stored this; asking again does no harm.");
		return;
	case STORE_OK:
	case STORE_REFUSED:
		break;
	}
	web_reply_problem(call->req, &web_internal, NULL);
}

bool
call_guard(struct call *call, const struct guard_rule *rule, struct slice name)
{
	unsigned wait_s = 1;

	if (guard_take(call->api->guard, rule, name, clock_mono_us(), &wait_s))
		return true;
	web_reply_retry_after(call->req, wait_s);
	web_reply_problem(call->req, &web_too_many_requests, NULL);
	return false;
}

static bool
is_unreserved(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

void
call_url_add(struct buffer *url, struct slice value)
{
	for (size_t i = 0; i < value.len; i++) {
		if (is_unreserved(value.data[i]))
			buffer_add_u8(url, value.data[i]);
		else
			buffer_add_fmt(url, "%%%02X", value.data[i]);
	}
}

/* --- the client ------------------------------------------------------------------------ */

static bool
from_this_machine(struct call *call)
{
	const char *peer = web_request_peer(call->req);

	return strncmp(peer, "127.", 4) == 0 || strcmp(peer, "::1") == 0;
}

/* The last address is the one that the nearest proxy saw. */
struct slice
call_client(struct call *call)
{
	struct slice list;
	struct in6_addr in;
	const char *last;

	if (!from_this_machine(call) ||
	    !web_request_header(call->req, "X-Forwarded-For", &list))
		return slice_str(web_request_peer(call->req));
	last = strrchr((const char *)list.data, ',');
	last = last == NULL ? (const char *)list.data : last + 1;
	last += strspn(last, " ");
	if (inet_pton(AF_INET, last, &in) != 1 && inet_pton(AF_INET6, last, &in) != 1)
		return slice_str(web_request_peer(call->req));
	return slice_str(last);
}

bool
call_is_https(struct call *call)
{
	struct slice proto;

	return call->api->home->config->home.http.tls ||
	       (from_this_machine(call) &&
	        web_request_header(call->req, "X-Forwarded-Proto", &proto) &&
	        slice_eq_str(proto, "https"));
}

/* --- tokens ------------------------------------------------------------------------------ */

void
call_token_make(int64_t account_id, char out[static CALL_TOKEN_TEXT])
{
	uint8_t random[TOKEN_RANDOM];
	char account[DMTP_SITE_TEXT], text[BASE32_LEN(TOKEN_RANDOM) + 1];

	randombytes_buf(random, sizeof(random));
	dmtp_site_format(account_id, account);
	base32_encode(random, sizeof(random), text);
	(void)snprintf(out, CALL_TOKEN_TEXT, TOKEN_PREFIX "%s_%s", account, text);
	sodium_memzero(random, sizeof(random));
	sodium_memzero(text, sizeof(text));
}

bool
call_token_parse(struct slice token, int64_t *account_id)
{
	const size_t prefix = sizeof(TOKEN_PREFIX) - 1, account = DMTP_SITE_TEXT - 1;
	uint8_t random[TOKEN_RANDOM];

	return token.len == CALL_TOKEN_TEXT - 1 &&
	       memcmp(token.data, TOKEN_PREFIX, prefix) == 0 &&
	       token.data[prefix + account] == '_' &&
	       base32_decode(
		   slice_mem(token.data + prefix + account + 1, BASE32_LEN(TOKEN_RANDOM)),
		   random, TOKEN_RANDOM) &&
	       dmtp_site_parse(slice_mem(token.data + prefix, account), account_id);
}

/* The value of our cookie in "a=1; tmtp_token=…; b=2". */
static bool
cookie_token(struct slice cookies, struct slice *token)
{
	const char *at = (const char *)cookies.data;
	const size_t name = sizeof(COOKIE_NAME) - 1;

	while (*at != '\0') {
		size_t len = strcspn(at, ";");

		if (len > name && memcmp(at, COOKIE_NAME, name) == 0) {
			*token = slice_mem(at + name, len - name);
			return true;
		}
		at += len;
		at += strspn(at, "; ");
	}
	return false;
}

bool
call_token(struct web_request *req, struct slice *token, bool *by_cookie)
{
	struct slice cookies;

	*by_cookie = false;
	if (web_request_bearer(req, token))
		return true;
	*by_cookie =
	    web_request_header(req, "Cookie", &cookies) && cookie_token(cookies, token);
	return *by_cookie;
}

/* A browser sends cookies along with what other sites make it send; neither header is theirs to
 * set. */
static bool
is_from_our_page(struct web_request *req)
{
	struct slice value;

	return web_request_header(req, "X-TMTP-Request", &value) ||
	       (web_request_header(req, "Sec-Fetch-Site", &value) &&
	        slice_eq_str(value, "same-origin"));
}

/* --- who calls ------------------------------------------------------------------------------
 */

/* A log-in that is kept in memory. */
struct kept {
	struct memo_item item; /* first */
	int64_t account_id, expires_us;
	char address[];
};

struct lookup {
	struct account_token_get get; /* first */
	struct call *call;
	call_step *then;
	uint64_t generation;
};

static void
kept_free(struct memo_item *item)
{
	free(item);
}

static void
refuse(struct call *call, const char *reason)
{
	log_info("auth-refused", LOG_S("reason", reason), LOG_B("client", call_client(call)),
	         LOG_S("route", web_request_route(call->req)->path));
	web_request_told(call->req);
	web_reply_problem(call->req, &web_unauthorized,
	                  "Log in and send the token that you get.");
}

/* Goes on with then when the log-in is known and still lasts. */
static void
admit(struct call *call, int64_t account_id, int64_t expires_us, const char *address,
      call_step *then)
{
	size_t len = strlen(address);
	char *copy = web_request_alloc(call->req, len + 1);

	if (copy == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	memcpy(copy, address, len + 1);
	call->address = slice_mem(copy, len);
	call->who.account_id = account_id;
	call->who.expires_us = expires_us;
	then(call);
}

static void
keep(const struct lookup *l)
{
	const struct account_token_get *get = &l->get;
	struct memo *logins = l->call->api->logins;
	int64_t left_ms = (get->expires_us - clock_wall_us()) / 1000;
	size_t len = strlen(get->address);
	struct kept *kept = malloc(sizeof(*kept) + len + 1);

	if (kept == NULL)
		return;
	memo_item_init(&kept->item, kept_free);
	kept->account_id = get->account_id;
	kept->expires_us = get->expires_us;
	memcpy(kept->address, get->address, len + 1);
	memo_put(logins, slice_mem(get->hash, sizeof(get->hash)), &kept->item, 1,
	         clock_mono_ms() + (left_ms < LOGIN_KEEP_MS ? left_ms : LOGIN_KEEP_MS),
	         l->generation);
	memo_item_unref(&kept->item);
}

/* On the thread aside: the store has answered. The lookup is freed first, since a stream keeps
 * its request's memory. */
static void
after_lookup(struct call *call)
{
	struct lookup *l = web_request_ctx(call->req);
	struct account_token_get get = l->get;
	call_step *then = l->then;

	if (get.job.rc == STORE_OK)
		keep(l);
	web_request_set_ctx(call->req, NULL, NULL);
	free(l);
	if (get.job.rc == STORE_OK)
		admit(call, get.account_id, get.expires_us, get.address, then);
	else if (get.job.rc == STORE_NOT_FOUND)
		refuse(call, "unknown-token");
	else
		call_reply_store(call, get.job.rc);
}

static void
look_up(struct call *call, uint64_t generation, call_step *then)
{
	struct lookup *l = calloc(1, sizeof(*l));

	if (l == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	web_request_set_ctx(call->req, l, free);
	l->call = call;
	l->then = then;
	l->generation = generation;
	call_await(call, 1, after_lookup);
	call_job(call, &l->get.job);
	l->get.account_id = call->who.account_id;
	memcpy(l->get.hash, call->who.digest, sizeof(l->get.hash));
	l->get.now_us = clock_wall_us();
	store_account_token_get(call->api->home->store, &l->get);
}

void
call_auth(struct call *call, call_step *then)
{
	struct slice token;
	uint64_t generation = 0;
	struct kept *kept;

	if (!call_token(call->req, &token, &call->by_cookie)) {
		refuse(call, "missing");
		return;
	}
	if (!call_token_parse(token, &call->who.account_id)) {
		refuse(call, "malformed");
		return;
	}
	if (call->by_cookie && web_request_method(call->req) != WEB_GET &&
	    !is_from_our_page(call->req)) {
		log_info("auth-refused", LOG_S("reason", "cross-site"),
		         LOG_B("client", call_client(call)));
		web_request_told(call->req);
		web_reply_problem(
		    call->req, &web_forbidden,
		    "With a cookie, what changes something needs the header X-TMTP-Request.");
		return;
	}
	token_digest(token, call->who.digest);
	kept = (struct kept *)memo_get(call->api->logins,
	                               slice_mem(call->who.digest, sizeof(call->who.digest)),
	                               clock_mono_ms(), &generation);
	if (kept != NULL && kept->account_id == call->who.account_id) {
		admit(call, kept->account_id, kept->expires_us, kept->address, then);
		memo_item_unref(&kept->item);
		return;
	}
	if (kept != NULL)
		memo_item_unref(&kept->item);
	look_up(call, generation, then);
}
