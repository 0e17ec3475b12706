/*
 * Messages from person to person: see letters.h and API.md. A message is a push
 * to one member of the writer's own channel, stored before it is answered;
 * from there on it goes a website's way.
 */
#include "home/letters.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/message.h"
#include "home/compose.h"
#include "home/contacts.h"
#include "home/live.h"
#include "home/view.h"
#include "store/messages.h"
#include "store/pushes.h"
#include "web/reply.h"
#include "web/token.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 128
#define LIMIT_DEFAULT 50
#define LIMIT_MAX 100
#define URL_MAX 2048
#define MINUTE_US 60000000

METRIC_DEFINE(written_total, METRIC_COUNTER, "tmtp_person_messages_total", NULL,
              "Messages that members wrote to other persons.");

struct letter_call {
	struct call call; /* first */
	struct dmtp_address person;
	struct contact_list contact;
	struct letter letter;
	struct push push;
	struct push_rcpt rcpt;
	struct push_earlier earlier;
	struct letter_list letters;
	const char *refused; /* why she can't write now, in a sentence */
	unsigned limit;
};

static void
letter_call_free(void *arg)
{
	struct letter_call *c = arg;

	contact_list_clear(&c->contact);
	letter_list_clear(&c->letters);
	letter_free(&c->letter);
}

static void
begin(struct web_request *req, void *arg, call_step *then)
{
	struct letter_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, then);
}

static struct letter_call *
own(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;

	web_request_set_ctx(call->req, c, letter_call_free);
	return c;
}

/* --- as JSON ------------------------------------------------------------------------ */

static const char *
state_name(int state)
{
	return recipient_state_name((enum recipient_state)state);
}

/* The text within a letter's body; subject and text are null when there is none. */
static void
add_content(json_t *o, const struct letter_call *c, const struct letter_row *row)
{
	struct view_entry entry = {
		.from = row->sent ? c->call.address : dmtp_address_slice(&c->person),
		.channel = SLICE("inbox"),
		.body = slice_mem(row->body, row->body == NULL ? 0 : row->size),
	};
	json_t *fields = row->body == NULL ? NULL : view_fields(&entry);
	const json_t *first = json_array_get(json_object_get(fields, "message"), 0);
	json_t *text = json_object_get(first, "text"),
	       *subject = json_object_get(fields, "subject");

	(void)json_object_set(o, "subject", subject);
	(void)json_object_set(o, "text", text);
	if (subject == NULL)
		(void)json_object_set_new(o, "subject", json_null());
	if (text == NULL)
		(void)json_object_set_new(o, "text", json_null());
	json_decref(fields);
}

static json_t *
letter_json(const struct letter_call *c, const struct letter_row *row)
{
	char id[UUID_TEXT];
	json_t *o = json_object();

	uuid_format(&row->id, id);
	(void)json_object_set_new(o, "id", json_string(id));
	(void)json_object_set_new(
	    o, "from",
	    row->sent ? json_stringn((const char *)c->call.address.data, c->call.address.len)
		      : json_string(c->person.text));
	add_content(o, c, row);
	(void)json_object_set_new(o, "date", view_time(row->date_s * 1000000));
	(void)json_object_set_new(o, row->sent ? "sent" : "arrived", view_time(row->at_us));
	if (row->sent) {
		(void)json_object_set_new(o, "state", json_string(state_name(row->state)));
		if (row->reason != NULL)
			(void)json_object_set_new(o, "reason", json_string(row->reason));
	} else {
		(void)json_object_set_new(o, "read", view_time(row->read_us));
	}
	if (row->withdrawn)
		(void)json_object_set_new(o, "withdrawn", json_true());
	return o;
}

/* --- sending: the answers --------------------------------------------------------------- */

/* Other devices of hers are told, too. */
static void
tell_own(struct letter_call *c, const char *id)
{
	json_t *o = json_pack("{s:s, s:s}", "id", id, "to", c->person.text);
	char *text = json_dumps(o, JSON_COMPACT);

	if (text != NULL)
		live_tell_soon(c->call.api->home->live, c->call.who.account_id, "sent",
		               slice_str(text));
	free(text);
	json_decref(o);
}

static void
reply_accepted(struct letter_call *c, const struct uuid *message_id, bool replayed)
{
	char id[UUID_TEXT];
	struct buffer url;

	uuid_format(message_id, id);
	buffer_init(&url, URL_MAX);
	buffer_add_fmt(&url, "%s/v1/contacts/", c->call.api->home->config->home.http.url);
	call_url_add(&url, dmtp_address_slice(&c->person));
	buffer_add_fmt(&url, "/messages/%s", id);
	buffer_add_u8(&url, '\0');
	if (!url.failed)
		web_reply_header(c->call.req, "Location", (const char *)url.data);
	if (replayed) {
		web_reply_header(c->call.req, "Idempotency-Replayed", "true");
	} else {
		metric_add(&written_total, 1);
		tell_own(c, id);
	}
	web_reply_json(
	    c->call.req, 202,
	    json_pack("{s:s, s:s, s:o}", "id", id, "to", c->person.text, "status_url",
	              url.failed ? json_null() : json_string((const char *)url.data)));
	buffer_free(&url);
}

static void
after_earlier(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;
	enum store_rc rc = c->earlier.job.rc;
	struct uuid id = c->earlier.message_id;

	if (rc == STORE_NOT_FOUND && c->refused != NULL)
		web_reply_problem(call->req, &contact_problem, "%s", c->refused);
	else if (rc != STORE_OK) /* it ran out between the two questions */
		call_reply_store(call, rc == STORE_NOT_FOUND ? STORE_DOWN : rc);
	else if (!token_equal(c->earlier.body_hash, c->push.body_hash,
	                      sizeof(c->push.body_hash)))
		web_reply_problem(call->req, &web_idempotency_mismatch, NULL);
	else /* our own id: the store lost the first answer and asked again */
		reply_accepted(c, &id, memcmp(&id, &c->push.message_id, sizeof(id)) != 0);
}

static void
ask_earlier(struct letter_call *c)
{
	call_await(&c->call, 1, after_earlier);
	call_job(&c->call, &c->earlier.job);
	c->earlier.site_id = c->call.who.account_id;
	c->earlier.key = c->push.key;
	store_push_earlier(c->call.api->home->store, &c->earlier);
}

static void
after_push(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;
	struct uuid id = c->push.message_id;

	if (c->push.job.rc != STORE_OK)
		call_reply_store(call, c->push.job.rc);
	else if (c->push.outcome == PUSH_STORED)
		reply_accepted(c, &id, false);
	else if (c->push.outcome == PUSH_KEY_TAKEN)
		ask_earlier(c);
	else /* they said no since we looked */
		web_reply_problem(call->req, &contact_problem,
		                  "This person said no; only they can change that.");
}

/* --- sending: the way into the store ------------------------------------------------------- */

static void
push(struct letter_call *c)
{
	struct push *p = &c->push;
	int64_t now_us = clock_wall_us();

	c->rcpt = (struct push_rcpt){ .domain = dmtp_address_domain(&c->person),
		                      .member = dmtp_address_local(&c->person) };
	call_await(&c->call, 1, after_push);
	call_job(&c->call, &p->job);
	p->site_id = p->channel_id = c->call.who.account_id;
	p->message_id = uuid_make();
	p->audience = PUSH_ONE;
	p->lane = LANE_URGENT; /* somebody may be waiting for it */
	p->conversation = true;
	p->accepted_us = now_us;
	p->expires_us = c->letter.expires_s == 0 ? -1 : now_us + c->letter.expires_s * 1000000;
	p->body = buffer_slice(&c->letter.message);
	p->digest = c->letter.digest;
	p->rcpts = &c->rcpt;
	p->rcpts_n = 1;
	store_push(c->call.api->home->store, p);
}

/* A repeated push is answered as before, however things stand now. */
static void
after_look(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;

	if (c->contact.job.rc != STORE_OK || c->contact.rows_n != 1) {
		call_reply_store(call, c->contact.job.rc == STORE_OK ? STORE_NOT_FOUND
		                                                     : c->contact.job.rc);
		return;
	}
	c->refused = contact_cannot_write(&c->contact.rows[0]);
	if (c->refused == NULL)
		push(c);
	else if (c->push.key.len > 0)
		ask_earlier(c);
	else
		web_reply_problem(call->req, &contact_problem, "%s", c->refused);
}

static void
look(struct letter_call *c)
{
	call_await(&c->call, 1, after_look);
	call_job(&c->call, &c->contact.job);
	c->contact.account_id = c->call.who.account_id;
	c->contact.domain = dmtp_address_domain(&c->person);
	c->contact.member = dmtp_address_local(&c->person);
	c->contact.now_us = clock_wall_us();
	store_contact_list(c->call.api->home->store, &c->contact);
}

/* What a key stands for: the person and the body, octet for octet. */
static bool
hash_request(struct letter_call *c)
{
	uint8_t parts[64];

	return dmtp_digest(dmtp_address_slice(&c->person), parts) &&
	       dmtp_digest(web_request_body(c->call.req), parts + 32) &&
	       dmtp_digest(slice_mem(parts, sizeof(parts)), c->push.body_hash);
}

/* False: the request has been answered. */
static bool
read_key(struct letter_call *c)
{
	struct slice key;
	bool good;

	if (!web_request_header(c->call.req, "Idempotency-Key", &key))
		return true;
	good = key.len >= 1 && key.len <= KEY_MAX;
	for (size_t i = 0; good && i < key.len; i++)
		good = key.data[i] >= 0x20 && key.data[i] <= 0x7e;
	c->push.key = key;
	if (!good)
		web_reply_problem(c->call.req, &web_invalid_value,
		                  "Idempotency-Key is 1 to 128 printable ASCII characters.");
	else if (!hash_request(c))
		web_reply_problem(c->call.req, &web_internal, NULL);
	else
		return true;
	return false;
}

/* False: the request has been answered. */
static bool
read_letter(struct letter_call *c)
{
	struct compose_origin origin = { .from = c->call.address,
		                         .to = dmtp_address_slice(&c->person),
		                         .date_s = clock_wall_s() };
	struct web_errors errors = { .count = 0 };
	char error[160];
	json_t *json = NULL;
	enum compose_rc rc;

	if (web_json_parse(web_request_body(c->call.req), &json, error) != WEB_BODY_OK) {
		web_reply_problem(c->call.req, &web_malformed_json, "%s", error);
		return false;
	}
	randombytes_buf(origin.salt, sizeof(origin.salt));
	c->push.date_s = origin.date_s;
	rc = compose_letter(json, &origin, &c->letter, &errors);
	json_decref(json);
	if (rc == COMPOSE_INVALID) {
		web_reply_errors(c->call.req, &errors);
	} else {
		web_errors_free(&errors);
		if (rc != COMPOSE_OK)
			web_reply_problem(c->call.req, &web_internal, NULL);
	}
	return rc == COMPOSE_OK;
}

static bool
may_write(struct letter_call *c)
{
	unsigned per_minute = c->call.api->home->config->home.messages_per_minute;
	struct guard_rule rule = { .kind = 'w',
		                   .burst = per_minute,
		                   .every_us = MINUTE_US / per_minute };

	return call_guard(&c->call, &rule,
	                  slice_mem(&c->call.who.account_id, sizeof(c->call.who.account_id)));
}

static void
send_letter(struct call *call)
{
	struct letter_call *c = own(call);

	if (contact_path(call, &c->person) && read_key(c) && read_letter(c) && may_write(c))
		look(c);
}

void
on_letter_send(struct web_request *req, void *arg)
{
	begin(req, arg, send_letter);
}

/* --- the conversation ---------------------------------------------------------------------- */

static json_t *
list_json(const struct letter_call *c)
{
	json_t *rows = json_array(), *answer = json_pack("{s:o}", "messages", rows);
	size_t n = c->letters.rows_n < c->limit ? c->letters.rows_n : c->limit;
	char id[UUID_TEXT];
	struct buffer url;

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, letter_json(c, &c->letters.rows[i]));
	if (c->letters.rows_n > n) {
		uuid_format(&c->letters.rows[n - 1].id, id);
		buffer_init(&url, URL_MAX);
		buffer_add_fmt(&url, "%s/v1/contacts/",
		               c->call.api->home->config->home.http.url);
		call_url_add(&url, dmtp_address_slice(&c->person));
		buffer_add_fmt(&url, "/messages?limit=%u&before=%s", c->limit, id);
		if (!url.failed)
			(void)json_object_set_new(
			    answer, "next", json_stringn((const char *)url.data, url.len));
		buffer_free(&url);
	}
	return answer;
}

static void
after_list(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;

	if (c->letters.job.rc == STORE_OK)
		web_reply_json(call->req, 200, list_json(c));
	else
		call_reply_store(call, c->letters.job.rc);
}

static void
ask_letters(struct letter_call *c, call_step *then)
{
	call_await(&c->call, 1, then);
	call_job(&c->call, &c->letters.job);
	c->letters.account_id = c->call.who.account_id;
	c->letters.address = dmtp_address_slice(&c->person);
	store_letter_list(c->call.api->home->store, &c->letters);
}

static void
list_letters(struct call *call)
{
	struct letter_call *c = own(call);
	uint64_t limit = LIMIT_DEFAULT;
	struct slice before;

	if (!contact_path(call, &c->person))
		return;
	if (web_request_query_u64(call->req, "limit", LIMIT_MAX, &limit) == WEB_QUERY_BAD ||
	    limit == 0) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "limit is a number from 1 to %d.", LIMIT_MAX);
		return;
	}
	if (web_request_query(call->req, "before", &before) &&
	    !uuid_parse(before, &c->letters.before)) {
		web_reply_problem(call->req, &web_invalid_value, "before is a message's id.");
		return;
	}
	c->limit = (unsigned)limit;
	c->letters.limit = c->limit + 1; /* one more tells whether there is a next page */
	ask_letters(c, after_list);
}

void
on_letter_list(struct web_request *req, void *arg)
{
	begin(req, arg, list_letters);
}

/* --- what became of one ------------------------------------------------------------------------ */

static void
after_get(struct call *call)
{
	struct letter_call *c = (struct letter_call *)call;

	if (c->letters.job.rc == STORE_OK && c->letters.rows_n == 1)
		web_reply_json(call->req, 200, letter_json(c, &c->letters.rows[0]));
	else
		call_reply_store(call, c->letters.job.rc == STORE_OK ? STORE_NOT_FOUND
		                                                     : c->letters.job.rc);
}

static void
get_letter(struct call *call)
{
	struct letter_call *c = own(call);

	if (!contact_path(call, &c->person))
		return;
	if (!uuid_parse(web_request_param(call->req, "id"), &c->letters.before)) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	c->letters.one = true;
	ask_letters(c, after_get);
}

void
on_letter_get(struct web_request *req, void *arg)
{
	begin(req, arg, get_letter);
}
