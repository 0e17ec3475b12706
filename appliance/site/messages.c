/*
 * Pushing: POST /v1/channels/:channel/messages. The answer's text is made
 * before the message goes to the store, so that nothing but the reply is left
 * to do once it is committed.
 */
#include "site/handlers.h"

#include "base/aside.h"
#include "base/clock.h"
#include "base/metric.h"
#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "site/auth.h"
#include "site/attached.h"
#include "site/plan.h"
#include "store/pushes.h"
#include "web/reply.h"

#include <sodium.h>
#include <stdio.h>

METRIC_DEFINE(accepted, METRIC_COUNTER, "tmtp_pushes_total", "result=\"accepted\"",
              "Pushes by what became of them.");
METRIC_DEFINE(replayed, METRIC_COUNTER, "tmtp_pushes_total", "result=\"replayed\"",
              "Pushes by what became of them.");
METRIC_DEFINE(refused, METRIC_COUNTER, "tmtp_pushes_total", "result=\"refused\"",
              "Pushes by what became of them.");
METRIC_DEFINE(failed, METRIC_COUNTER, "tmtp_pushes_total", "result=\"failed\"",
              "Pushes by what became of them.");

static const struct web_problem no_recipient = {
	.type = "urn:tmtp:problem:no-recipient",
	.title = "None of the recipients holds this channel.",
	.status = 422,
};

static const struct web_problem not_replaceable = {
	.type = "urn:tmtp:problem:not-replaceable",
	.title = "This message can't take the place of the one that it names.",
	.status = 422,
};

#define KEY_MAX 128

struct push_call {
	struct channel_call channel; /* first */
	json_t *json;                /* owned, until the plan is made */
	struct attached attached;
	struct attachment_name name;
	struct push push;
	struct plan plan;
	struct push_replacing replacing;
	struct work work;
};

/* One question more: what an idempotency key was used for. */
struct replay {
	struct push_call *call;
	void (*unused)(struct push_call *call); /* the answer when it was not */
	struct push_earlier earlier;
	struct message_recipients rejected;
};

static struct call *
call_of(struct push_call *p)
{
	return &p->channel.call;
}

/* --- answers --------------------------------------------------------------------- */

static void
push_refuse(struct push_call *p, const struct web_problem *kind, const char *detail)
{
	metric_add(&refused, 1);
	web_reply_problem(call_of(p)->req, kind, detail == NULL ? NULL : "%s", detail);
}

static void
push_fail(struct push_call *p, enum store_rc rc)
{
	metric_add(&failed, 1);
	site_reply_store(call_of(p), rc);
}

static void
reply_202(struct call *call, const struct uuid *message_id, json_t *rejected)
{
	struct slice base = site_base(call);
	char id[UUID_TEXT], url[1024], text[1200];
	int n;

	uuid_format(message_id, id);
	(void)snprintf(url, sizeof(url), "%.*s/v1/messages/%s", (int)base.len,
	               (const char *)base.data, id);
	web_reply_header(call->req, "Location", url);
	if (rejected != NULL) {
		web_reply_json(call->req, 202,
		               json_pack("{s:s, s:s, s:o}", "id", id, "status_url", url,
		                         "rejected", rejected));
		return;
	}
	n = snprintf(text, sizeof(text), "{\"id\":\"%s\",\"status_url\":\"%s\"}", id, url);
	web_reply_bytes(call->req, 202, "application/json", slice_mem(text, (size_t)n));
}

static json_t *
address_json(const struct push_rcpt *r)
{
	char text[DMTP_ADDRESS_MAX + 1];
	int n = snprintf(text, sizeof(text), "%.*s@%.*s", (int)r->member.len,
	                 (const char *)r->member.data, (int)r->domain.len,
	                 (const char *)r->domain.data);

	return json_stringn(text, (size_t)n);
}

/* Those who hold no channel, or NULL when all do. */
static json_t *
rejected_json(const struct push *push)
{
	json_t *list = NULL;

	for (size_t i = 0; i < push->rcpts_n; i++) {
		if (push->rcpts[i].holds)
			continue;
		if (list == NULL)
			list = json_array();
		(void)json_array_append_new(list, address_json(&push->rcpts[i]));
	}
	return list;
}

static void
reply_nobody(struct push_call *p)
{
	json_t *errors = json_array();
	char pointer[32] = "/to";

	for (size_t i = 0; i < p->push.rcpts_n; i++) {
		if (p->plan.rcpts_at != NULL)
			(void)snprintf(pointer, sizeof(pointer), "/to/%u",
			               (unsigned)p->plan.rcpts_at[i]);
		(void)json_array_append_new(
		    errors, json_pack("{s:s, s:o, s:s}", "pointer", pointer, "address",
		                      address_json(&p->push.rcpts[i]), "detail",
		                      "does not hold this channel"));
	}
	metric_add(&refused, 1);
	web_reply_problem_errors(call_of(p)->req, &no_recipient, errors,
	                         "Nothing was stored: members hold a channel once they have "
	                         "accepted its invitation.");
}

static void
reply_stored(struct push_call *p)
{
	struct call *call = call_of(p);
	struct uuid id = p->push.message_id;
	json_t *rejected = p->push.audience == PUSH_LIST ? rejected_json(&p->push) : NULL;

	metric_add(&accepted, 1);
	site_body_keep(call->site, call->who.site_id, &id, p->plan.digest,
	               p->plan.audience != PUSH_ONE, p->plan.message.data, p->plan.message.len);
	p->plan.message.data = NULL; /* taken */
	p->plan.message.len = p->plan.message.cap = 0;
	reply_202(call, &id, rejected);
}

static void
reply_not_replaceable(struct push_call *p)
{
	json_t *errors = json_array();
	const struct push_replacing *r = &p->replacing;

	(void)json_array_append_new(
	    errors, json_pack("{s:s, s:s}", "pointer", "/replaces", "detail",
	                      r->job.rc == STORE_NOT_FOUND ? "is no message of this channel"
	                                                   : "had other recipients"));
	for (size_t i = 0; r->job.rc == STORE_OK && i < r->rcpts_n; i++)
		if (!r->rcpts[i].holds)
			(void)json_array_append_new(
			    errors, json_pack("{s:s, s:o, s:s}", "pointer", "/to", "address",
			                      address_json(&r->rcpts[i]), "detail",
			                      "was no recipient of the earlier message"));
	metric_add(&refused, 1);
	web_reply_problem_errors(call_of(p)->req, &not_replaceable, errors,
	                         "Nothing was stored.");
}

/* --- an idempotency key that was used before ----------------------------------------- */

static void
on_rejected(struct store_job *job)
{
	struct replay *r = job->arg;
	struct call *call = call_of(r->call);
	struct uuid id = r->earlier.message_id;
	json_t *list = NULL;
	enum store_rc rc = job->rc;

	for (size_t i = 0; rc == STORE_OK && i < r->rejected.rows_n; i++) {
		if (list == NULL)
			list = json_array();
		(void)json_array_append_new(list, json_string(r->rejected.rows[i].address));
	}
	message_recipients_clear(&r->rejected);
	if (rc != STORE_OK &&
	    rc != STORE_NOT_FOUND) { /* not found: kept no longer; the key still is */
		push_fail(r->call, rc);
		return;
	}
	metric_add(&replayed, 1);
	web_reply_header(call->req, "Idempotency-Replayed", "true");
	reply_202(call, &id, list);
}

/* The same answer again names the same recipients as rejected. */
static void
ask_rejected(struct replay *r)
{
	r->rejected = (struct message_recipients){
		.job = { .done = on_rejected, .arg = r },
		.site_id = r->earlier.site_id,
		.message_id = r->earlier.message_id,
		.state = RECIPIENT_REJECTED,
		.limit = PUSH_RCPTS_MAX,
	};
	store_message_recipients(call_of(r->call)->site->store, &r->rejected);
}

static void
on_earlier(struct store_job *job)
{
	struct replay *r = job->arg;
	struct push_call *p = r->call;
	const struct push *push = &p->push;

	if (job->rc == STORE_NOT_FOUND)
		r->unused(p);
	else if (job->rc != STORE_OK)
		push_fail(p, job->rc);
	else if (!token_equal(r->earlier.body_hash, push->body_hash, sizeof(push->body_hash)))
		push_refuse(p, &web_idempotency_mismatch, NULL);
	else if (memcmp(&r->earlier.message_id, &push->message_id, sizeof(push->message_id)) ==
	         0)
		reply_stored(p); /* our own: the store lost the first answer and asked again */
	else
		ask_rejected(r);
}

/* The store found the key taken, and then not: it ran out between the two questions. */
static void
key_ran_out(struct push_call *p)
{
	push_fail(p, STORE_DOWN);
}

static void
ask_earlier(struct push_call *p, void (*unused)(struct push_call *))
{
	struct replay *r = web_request_alloc(call_of(p)->req, sizeof(*r));

	if (r == NULL) {
		push_refuse(p, &web_internal, NULL);
		return;
	}
	memset(r, 0, sizeof(*r));
	r->call = p;
	r->unused = unused;
	r->earlier.job.done = on_earlier;
	r->earlier.job.arg = r;
	r->earlier.site_id = p->push.site_id;
	r->earlier.key = p->push.key;
	store_push_earlier(call_of(p)->site->store, &r->earlier);
}

/*
 * What could not be pushed now may have been once: whoever lost that answer gets it, whatever the
 * channel and its members have done since.
 */
static void
refuse_unless_earlier(struct push_call *p, void (*refuse)(struct push_call *))
{
	if (p->push.key.len > 0)
		ask_earlier(p, refuse);
	else
		refuse(p);
}

/* --- into the store ------------------------------------------------------------------------
 */

static void
on_pushed(struct store_job *job)
{
	struct push_call *p = job->arg;

	if (job->rc != STORE_OK) {
		push_fail(p, job->rc);
		return;
	}
	switch (p->push.outcome) {
	case PUSH_STORED:
		reply_stored(p);
		break;
	case PUSH_NOBODY:
		refuse_unless_earlier(p, reply_nobody);
		break;
	case PUSH_KEY_TAKEN:
		ask_earlier(p, key_ran_out);
		break;
	}
}

/* On the thread aside, since a long message's digest takes a while. */
static void
push_redated(struct work *work)
{
	struct push_call *p =
	    (struct push_call *)(void *)((char *)work - offsetof(struct push_call, work));

	if (!site_plan_redate(&p->plan, p->push.date_s))
		push_refuse(p, &web_internal, NULL);
	else
		store_push(call_of(p)->site->store, &p->push);
}

/* A repeated push gets its first answer, though what it replaced can be replaced no more. */
static void
on_replacing(struct store_job *job)
{
	struct push_call *p = job->arg;
	const struct push_replacing *r = &p->replacing;
	bool refused_now = job->rc == STORE_NOT_FOUND || (job->rc == STORE_OK && !r->fits);

	if (refused_now) {
		refuse_unless_earlier(p, reply_not_replaceable);
	} else if (job->rc != STORE_OK) {
		push_fail(p, job->rc);
	} else if (r->date_s < 0) {
		metric_add(&refused, 1);
		web_reply_retry_after(call_of(p)->req, 60);
		web_reply_problem(call_of(p)->req, &web_too_many_requests,
		                  "This message is replaced more than once a second.");
	} else {
		p->push.first_id = r->first_id;
		p->push.date_s = r->date_s;
		p->work.run = push_redated;
		aside_post(call_of(p)->site->aside, &p->work);
	}
}

static void
submit_replacing(struct push_call *p)
{
	p->replacing = (struct push_replacing){
		.job = { .done = on_replacing, .arg = p },
		.site_id = p->push.site_id,
		.channel_id = p->push.channel_id,
		.earlier = p->plan.earlier,
		.to_channel = p->plan.audience == PUSH_CHANNEL,
		.rcpts = p->plan.rcpts,
		.rcpts_n = p->plan.rcpts_n,
		.now_s = p->push.date_s,
	};
	store_push_replacing(call_of(p)->site->store, &p->replacing);
}

static void
submit(struct channel_call *channel)
{
	struct push_call *p = (struct push_call *)channel;

	p->push.channel_id = channel->channel_id;
	if (p->plan.is_replacement)
		submit_replacing(p);
	else
		store_push(channel->call.site->store, &p->push);
}

static void
no_channel(struct push_call *p)
{
	push_refuse(p, &web_not_found, "There is no such channel.");
}

static void
on_no_channel(struct channel_call *channel)
{
	refuse_unless_earlier((struct push_call *)channel, no_channel);
}

static void
push_fill(struct push_call *p)
{
	struct push *push = &p->push;
	int64_t now_us = clock_wall_us();

	push->job.done = on_pushed;
	push->job.arg = p;
	push->audience = p->plan.audience;
	push->lane = p->plan.lane;
	push->accepted_us = now_us;
	push->expires_us = p->plan.expires_s == 0 ? -1 : now_us + p->plan.expires_s * 1000000;
	push->body = buffer_slice(&p->plan.message);
	push->digest = p->plan.digest;
	push->rcpts = p->plan.rcpts;
	push->rcpts_n = p->plan.rcpts_n;
	push->has_values = p->plan.has_values;
	push->is_replacement = p->plan.is_replacement;
}

/* --- from the request ------------------------------------------------------------------------
 */

static bool
key_is_valid(struct slice key)
{
	for (size_t i = 0; i < key.len; i++)
		if (key.data[i] < 0x20 || key.data[i] > 0x7e)
			return false;
	return key.len >= 1 && key.len <= KEY_MAX;
}

/* What a key stands for: the channel and the body, octet for octet. */
static bool
hash_request(struct push_call *p, struct slice body)
{
	struct slice channel = web_request_param(call_of(p)->req, "channel");
	uint8_t parts[64];

	if (!dmtp_digest(channel, parts) || !dmtp_digest(body, parts + 32))
		return false;
	return dmtp_digest(slice_mem(parts, sizeof(parts)), p->push.body_hash);
}

static bool
read_key(struct push_call *p)
{
	struct slice key;

	if (!web_request_header(call_of(p)->req, "Idempotency-Key", &key))
		return true;
	if (!key_is_valid(key)) {
		push_refuse(p, &web_invalid_value,
		            "Idempotency-Key is 1 to 128 printable ASCII characters.");
		return false;
	}
	p->push.key = key;
	if (!hash_request(p, web_request_body(call_of(p)->req))) {
		push_refuse(p, &web_internal, NULL);
		return false;
	}
	return true;
}

static void
free_push(void *arg)
{
	struct push_call *p = arg;

	json_decref(p->json);
	buffer_free(&p->attached.uris);
	site_plan_free(&p->plan);
}

/* Makes the plan from the body. False: the request has been answered. */
static bool
make_plan(struct push_call *p)
{
	struct call *call = call_of(p);
	struct plan_origin origin = {
		.site = call->who.name,
		.domain = call->who.domain,
		.channel = web_request_param(call->req, "channel"),
		.date_s = clock_wall_s(),
		.message_max_bytes = call->site->config->site.message_max_bytes,
		.attached = p->attached.fields,
		.attached_n = p->attached.n,
	};
	struct web_errors errors = { .count = 0 };
	enum plan_rc rc;

	randombytes_buf(origin.salt, sizeof(origin.salt));
	p->push.date_s = origin.date_s;
	rc = site_plan_make(p->json, &origin, &p->plan, &errors);
	json_decref(p->json);
	p->json = NULL;
	if (rc == PLAN_OK)
		return true;
	if (rc == PLAN_INVALID) {
		metric_add(&refused, 1);
		web_reply_errors(call->req, &errors);
		return false;
	}
	web_errors_free(&errors);
	push_refuse(p, rc == PLAN_TOO_LARGE ? &web_payload_too_large : &web_internal,
	            rc == PLAN_TOO_LARGE ? "The message would be longer than this server takes."
	                                 : NULL);
	return false;
}

static void
plan_push(struct push_call *p)
{
	if (!make_plan(p))
		return;
	push_fill(p);
	p->channel.missing = on_no_channel;
	site_channel_find(&p->channel, submit);
}

/* False: the request has been answered. */
static bool
read_json(struct push_call *p)
{
	struct call *call = call_of(p);
	struct web_errors errors = { .count = 0 };
	char error[160];

	web_request_set_ctx(call->req, p, free_push);
	if (web_json_parse(web_request_body(call->req), &p->json, error) != WEB_BODY_OK) {
		push_refuse(p, &web_malformed_json, error);
		return false;
	}
	if (attached_read(p->json, &p->attached, &errors))
		return true;
	metric_add(&refused, 1);
	web_reply_errors(call->req, &errors);
	return false;
}

static void
reply_not_attached(struct push_call *p)
{
	metric_add(&refused, 1);
	web_reply_problem_errors(call_of(p)->req, &attached_unknown,
	                         attached_missing(&p->attached), "Nothing was stored.");
}

/* On the thread aside. */
static void
push_attached(struct work *work)
{
	struct push_call *p =
	    (struct push_call *)(void *)((char *)work - offsetof(struct push_call, work));
	struct call *call = call_of(p);

	if (attached_make(&p->attached, &call->site->config->site, call->who.site_id))
		plan_push(p);
	else
		push_refuse(p, &web_internal, NULL);
}

static void
on_named(struct store_job *job)
{
	struct push_call *p = job->arg;

	if (job->rc == STORE_NOT_FOUND) {
		refuse_unless_earlier(p, reply_not_attached);
	} else if (job->rc != STORE_OK) {
		push_fail(p, job->rc);
	} else {
		p->work.run = push_attached;
		aside_post(call_of(p)->site->aside, &p->work);
	}
}

/* They are kept from now on for this message, whether it comes to be or not. */
static void
name_attachments(struct push_call *p)
{
	struct call *call = call_of(p);
	int64_t used_us = (int64_t)call->site->config->site.attachment_used_s * 1000000;

	p->name = (struct attachment_name){ .job = { .done = on_named, .arg = p },
		                            .site_id = call->who.site_id,
		                            .message_id = p->push.message_id,
		                            .named = p->attached.named,
		                            .named_n = p->attached.n,
		                            .keep_until_us = clock_wall_us() + used_us,
		                            .slack_us = used_us / 500 };
	store_attachment_name(call->site->store, &p->name);
}

static void
push_authorised(struct call *call)
{
	struct push_call *p = (struct push_call *)call;
	unsigned wait_s = 1;

	if (call->site->rates != NULL &&
	    !rates_take(call->site->rates, call->who.site_id, clock_mono_us(), &wait_s)) {
		metric_add(&refused, 1);
		web_reply_retry_after(call->req, wait_s);
		web_reply_problem(call->req, &web_too_many_requests,
		                  "This site may push %u times a second.",
		                  call->site->config->site.max_pushes_per_second);
		return;
	}
	if (!text_is_name(web_request_param(call->req, "channel"))) {
		no_channel(p);
		return;
	}
	p->push.site_id = call->who.site_id;
	p->push.message_id = uuid_make();
	if (!read_key(p) || !read_json(p))
		return;
	if (p->attached.n > 0)
		name_attachments(p);
	else
		plan_push(p);
}

void
on_push(struct web_request *req, void *arg)
{
	struct push_call *p = site_begin(req, arg, sizeof(*p));

	if (p != NULL)
		site_auth(&p->channel.call, SCOPE_PUSH, push_authorised);
}
