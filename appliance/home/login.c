/*
 * Logging in: see login.h. A wrong password, an account that doesn't exist and
 * an address that can't be one cost the same look into the store and the same
 * argon2id, and get the same answer. Attempts are counted by address and by
 * client; one that succeeds isn't counted.
 */
#include "home/login.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/call.h"
#include "home/view.h"
#include "store/accounts.h"
#include "web/body.h"
#include "web/reply.h"
#include "web/token.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>

#define LIFE_S (30L * 86400)
#define PASSWORD_MAX 1024
#define BUSY_RETRY_S 2

METRIC_DEFINE(m_good, METRIC_COUNTER, "tmtp_logins_total", "result=\"good\"",
              "Attempts to log in.");
METRIC_DEFINE(m_refused, METRIC_COUNTER, "tmtp_logins_total", "result=\"refused\"",
              "Attempts to log in.");
METRIC_DEFINE(m_limited, METRIC_COUNTER, "tmtp_logins_total", "result=\"limited\"",
              "Attempts to log in.");

static const struct guard_rule by_address = { .kind = 'a', .burst = 10, .every_us = 10000000 };
static const struct guard_rule by_client = { .kind = 'c', .burst = 30, .every_us = 1000000 };

struct login_body {
	struct slice address, password;
};

static const struct web_field fields[] = {
	{ "address", WEB_STRING, WEB_REQUIRED, offsetof(struct login_body, address), .min = 1,
	  .max = DMTP_ADDRESS_MAX },
	{ "password", WEB_STRING, WEB_REQUIRED, offsetof(struct login_body, password), .min = 1,
	  .max = PASSWORD_MAX },
};

struct login_call {
	struct call call; /* first */
	struct dmtp_address address;
	size_t password_len;
	char password[PASSWORD_MAX]; /* wiped */
	uint8_t client[16];          /* of an IPv6 address the network's half */
	size_t client_len;
	int64_t expires_us;
	char token[CALL_TOKEN_TEXT];
	union {
		struct account_get get;
		struct account_token_add add;
	} job;
};

bool
login_prepare(struct api *api)
{
	uint8_t nobody[32];

	metric_register(&m_good);
	metric_register(&m_refused);
	metric_register(&m_limited);
	randombytes_buf(nobody, sizeof(nobody));
	return crypto_pwhash_str_alg(api->dummy_hash, (const char *)nobody, sizeof(nobody),
	                             crypto_pwhash_OPSLIMIT_INTERACTIVE,
	                             crypto_pwhash_MEMLIMIT_INTERACTIVE,
	                             crypto_pwhash_ALG_ARGON2ID13) == 0;
}

/* --- limits ----------------------------------------------------------------------- */

static struct slice
address_name(const struct login_call *l)
{
	return dmtp_address_slice(&l->address);
}

static struct slice
client_name(const struct login_call *l)
{
	return slice_mem(l->client, l->client_len);
}

/* One household has a /64. */
static void
name_client(struct login_call *l)
{
	struct slice text = call_client(&l->call);

	if (inet_pton(AF_INET6, (const char *)text.data, l->client) == 1)
		l->client_len = 8;
	else if (inet_pton(AF_INET, (const char *)text.data, l->client) == 1)
		l->client_len = 4;
}

/* Takes a place among those who wait for argon2id. False: *wait_s says when there may be one.
 */
static bool
may_try(struct login_call *l, unsigned *wait_s)
{
	struct api *api = l->call.api;
	int64_t now_us = clock_mono_us();

	name_client(l);
	if (!guard_take(api->guard, &by_client, client_name(l), now_us, wait_s) ||
	    !guard_take(api->guard, &by_address, address_name(l), now_us, wait_s))
		return false;
	if (atomic_fetch_add(&api->passwords_waiting, 1) < PASSWORDS_MAX)
		return true;
	atomic_fetch_sub(&api->passwords_waiting, 1);
	*wait_s = BUSY_RETRY_S;
	return false;
}

static void
refuse_limited(struct login_call *l, unsigned wait_s)
{
	metric_add(&m_limited, 1);
	sodium_memzero(l->password, sizeof(l->password));
	web_reply_retry_after(l->call.req, wait_s);
	web_reply_problem(l->call.req, &web_too_many_requests, NULL);
}

/* --- after the store and argon2id ---------------------------------------------------- */

static void
refuse(struct login_call *l)
{
	metric_add(&m_refused, 1);
	log_info("login-refused", LOG_B("client", call_client(&l->call)));
	web_reply_problem(l->call.req, &web_unauthorized,
	                  "The address or the password is wrong.");
}

static void
set_cookie(struct call *call, const char *token, long max_age_s)
{
	char text[160];

	(void)snprintf(text, sizeof(text),
	               "tmtp_token=%s; Path=/; Max-Age=%ld; HttpOnly; SameSite=Strict%s", token,
	               max_age_s, call_is_https(call) ? "; Secure" : "");
	web_reply_header(call->req, "Set-Cookie", text);
	sodium_memzero(text, sizeof(text));
}

static void
after_token(struct call *call)
{
	struct login_call *l = (struct login_call *)call;
	enum store_rc rc = l->job.add.job.rc;
	int64_t now_us = clock_mono_us();

	if (rc == STORE_NOT_FOUND) {
		refuse(l);
	} else if (rc != STORE_OK) {
		call_reply_store(call, rc);
	} else {
		guard_give(call->api->guard, &by_address, address_name(l), now_us);
		guard_give(call->api->guard, &by_client, client_name(l), now_us);
		metric_add(&m_good, 1);
		set_cookie(call, l->token, LIFE_S);
		web_reply_json(call->req, 200,
		               json_pack("{s:s, s:o, s:s}", "token", l->token, "expires",
		                         view_time(l->expires_us), "address", l->address.text));
	}
}

static void
log_in(struct login_call *l, int64_t account_id)
{
	struct account_token_add *add = &l->job.add;

	*add =
	    (struct account_token_add){ .account_id = account_id, .now_us = clock_wall_us() };
	l->expires_us = add->expires_us = add->now_us + INT64_C(1000000) * LIFE_S;
	call_token_make(account_id, l->token);
	token_digest(slice_str(l->token), add->hash);
	call_await(&l->call, 1, after_token);
	call_job(&l->call, &add->job);
	store_account_token_add(l->call.api->home->store, add);
}

/* On the thread for passwords. */
static void
verify(struct call *call)
{
	struct login_call *l = (struct login_call *)call;
	struct account_get *get = &l->job.get;
	bool known = get->job.rc == STORE_OK;
	bool good = !atomic_load(&call->api->stopping) &&
	            crypto_pwhash_str_verify(known ? get->password_hash : call->api->dummy_hash,
	                                     l->password, l->password_len) == 0;

	sodium_memzero(l->password, sizeof(l->password));
	sodium_memzero(get->password_hash, sizeof(get->password_hash));
	atomic_fetch_sub(&call->api->passwords_waiting, 1);
	if (known && good)
		log_in(l, get->account_id);
	else
		refuse(l);
}

static void
after_account(struct call *call)
{
	struct login_call *l = (struct login_call *)call;
	enum store_rc rc = l->job.get.job.rc;

	if (rc == STORE_OK || rc == STORE_NOT_FOUND) {
		call_burn(call, verify);
		return;
	}
	sodium_memzero(l->password, sizeof(l->password));
	atomic_fetch_sub(&call->api->passwords_waiting, 1);
	call_reply_store(call, rc);
}

/* --- the handlers ------------------------------------------------------------------------ */

/* The password is copied out of what is parsed, and both are wiped. */
static bool
read_body(struct login_call *l)
{
	struct slice raw = web_request_body(l->call.req);
	struct login_body body;
	json_t *json;

	if (!web_body_read(l->call.req, fields, sizeof(fields) / sizeof(fields[0]), &body,
	                   &json))
		return false;
	if (dmtp_address_normalise(body.address, &l->address) != DMTP_ADDRESS_OK)
		l->address = (struct dmtp_address){ .len = 0 };
	memcpy(l->password, body.password.data, body.password.len);
	l->password_len = body.password.len;
	sodium_memzero((void *)(uintptr_t)body.password.data, body.password.len);
	sodium_memzero((void *)(uintptr_t)raw.data, raw.len);
	json_decref(json);
	return true;
}

void
on_login(struct web_request *req, void *arg)
{
	struct login_call *l = call_begin(req, arg, sizeof(*l));
	struct account_get *get;
	unsigned wait_s = 1;

	if (l == NULL || !read_body(l))
		return;
	if (!may_try(l, &wait_s)) {
		refuse_limited(l, wait_s);
		return;
	}
	get = &l->job.get;
	*get = (struct account_get){ .account_id = 0 };
	if (l->address.len > 0) {
		get->domain = dmtp_address_domain(&l->address);
		get->name = dmtp_address_local(&l->address);
	}
	call_await(&l->call, 1, after_account);
	call_job(&l->call, &get->job);
	store_account_get(l->call.api->home->store, get);
}

static void
tell(struct call *call)
{
	web_reply_json(
	    call->req, 200,
	    json_pack("{s:o, s:o}", "address",
	              json_stringn((const char *)call->address.data, call->address.len),
	              "expires", view_time(call->who.expires_us)));
}

void
on_login_get(struct web_request *req, void *arg)
{
	struct call *call = call_begin(req, arg, sizeof(*call));

	if (call != NULL)
		call_auth(call, tell);
}

struct logout_call {
	struct call call; /* first */
	struct account_token_drop drop;
};

/* Forgets all log-ins that are kept: what is just being looked up is kept out as well. */
static void
after_drop(struct call *call)
{
	struct logout_call *o = (struct logout_call *)call;

	if (o->drop.job.rc != STORE_OK) {
		call_reply_store(call, o->drop.job.rc);
		return;
	}
	memo_clear(call->api->logins);
	live_logged_out(call->api->home->live, &call->who);
	set_cookie(call, "", 0);
	web_reply_empty(call->req, 204);
}

static void
drop(struct call *call)
{
	struct logout_call *o = (struct logout_call *)call;

	call_await(call, 1, after_drop);
	call_job(call, &o->drop.job);
	o->drop.account_id = call->who.account_id;
	memcpy(o->drop.hash, call->who.digest, sizeof(o->drop.hash));
	store_account_token_drop(call->api->home->store, &o->drop);
}

void
on_logout(struct web_request *req, void *arg)
{
	struct logout_call *o = call_begin(req, arg, sizeof(*o));

	if (o != NULL)
		call_auth(&o->call, drop);
}
