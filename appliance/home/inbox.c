/* A member's entries: see inbox.h and API.md. */
#include "home/inbox.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "home/attachments.h"
#include "home/call.h"
#include "home/view.h"
#include "store/inboxes.h"
#include "web/body.h"
#include "web/reply.h"

#include <stdlib.h>

#define LIMIT_DEFAULT 50
#define LIMIT_MAX 100
#define URL_MAX 2048

/* The entry that the path names. False: the request has been answered. */
static bool
path_entry(struct call *call, struct uuid *id)
{
	if (uuid_parse(web_request_param(call->req, "id"), id))
		return true;
	web_reply_problem(call->req, &web_not_found, NULL);
	return false;
}

/* --- the list ----------------------------------------------------------------------- */

struct list_call {
	struct call call; /* first */
	struct inbox_list list;
	struct inbox_count count;
	unsigned limit;
};

static void
add_next(json_t *answer, const struct list_call *l, const struct uuid *last)
{
	char id[UUID_TEXT];
	struct buffer url;

	uuid_format(last, id);
	buffer_init(&url, URL_MAX);
	buffer_add_fmt(&url, "%s/v1/inbox?limit=%u&before=%s%s",
	               l->call.api->home->config->home.http.url, l->limit, id,
	               l->list.unread_only ? "&unread=true" : "");
	if (!url.failed)
		(void)json_object_set_new(answer, "next",
		                          json_stringn((const char *)url.data, url.len));
	buffer_free(&url);
}

static json_t *
list_json(const struct list_call *l)
{
	json_t *entries = json_array();
	json_t *answer =
	    json_pack("{s:o, s:I}", "entries", entries, "unread", (json_int_t)l->count.unread);
	size_t n = l->list.rows_n < l->limit ? l->list.rows_n : l->limit;

	for (size_t i = 0; i < n; i++) {
		struct view_entry entry = view_of_row(&l->list.rows[i]);

		(void)json_array_append_new(entries, view_list_form(&entry));
	}
	if (l->list.rows_n > n)
		add_next(answer, l, &l->list.rows[n - 1].notification_id);
	return answer;
}

static void
after_list(struct call *call)
{
	struct list_call *l = (struct list_call *)call;
	enum store_rc rc = l->list.job.rc != STORE_OK ? l->list.job.rc : l->count.job.rc;
	json_t *answer = rc == STORE_OK ? list_json(l) : NULL;

	inbox_list_clear(&l->list);
	if (rc == STORE_OK)
		web_reply_json(call->req, 200, answer);
	else
		call_reply_store(call, rc);
}

/* Query argument "unread": true or 1, false or 0. */
static bool
query_flag(struct call *call, const char *name, bool *out)
{
	struct slice text;

	if (!web_request_query(call->req, name, &text))
		return true;
	*out = slice_eq_str(text, "true") || slice_eq_str(text, "1");
	if (*out || slice_eq_str(text, "false") || slice_eq_str(text, "0"))
		return true;
	web_reply_problem(call->req, &web_invalid_value, "%s is true or false.", name);
	return false;
}

static bool
read_query(struct list_call *l)
{
	struct slice before;
	uint64_t limit = LIMIT_DEFAULT;

	if (web_request_query_u64(l->call.req, "limit", LIMIT_MAX, &limit) == WEB_QUERY_BAD ||
	    limit == 0) {
		web_reply_problem(l->call.req, &web_invalid_value,
		                  "limit is a number from 1 to %d.", LIMIT_MAX);
		return false;
	}
	l->limit = (unsigned)limit;
	if (web_request_query(l->call.req, "before", &before) &&
	    !uuid_parse(before, &l->list.before)) {
		web_reply_problem(l->call.req, &web_invalid_value, "before is an entry's id.");
		return false;
	}
	return query_flag(&l->call, "unread", &l->list.unread_only);
}

static void
list_entries(struct call *call)
{
	struct list_call *l = (struct list_call *)call;

	if (!read_query(l))
		return;
	l->list.what = INBOX_NEWEST;
	l->list.body_max = VIEW_LIST_OCTETS;
	l->list.limit = l->limit + 1; /* one more tells whether there is a next page */
	l->list.account_id = l->count.account_id = call->who.account_id;
	call_await(call, 2, after_list);
	call_job(call, &l->list.job);
	call_job(call, &l->count.job);
	store_inbox_list(call->api->home->store, &l->list);
	store_inbox_count(call->api->home->store, &l->count);
}

void
on_inbox_list(struct web_request *req, void *arg)
{
	struct list_call *l = call_begin(req, arg, sizeof(*l));

	if (l != NULL)
		call_auth(&l->call, list_entries);
}

/* --- how many ---------------------------------------------------------------------------- */

struct count_call {
	struct call call; /* first */
	struct inbox_count count;
};

static void
after_count(struct call *call)
{
	struct count_call *c = (struct count_call *)call;

	if (c->count.job.rc == STORE_OK)
		web_reply_json(call->req, 200,
		               json_pack("{s:I}", "unread", (json_int_t)c->count.unread));
	else
		call_reply_store(call, c->count.job.rc);
}

static void
count_entries(struct call *call)
{
	struct count_call *c = (struct count_call *)call;

	call_await(call, 1, after_count);
	call_job(call, &c->count.job);
	c->count.account_id = call->who.account_id;
	store_inbox_count(call->api->home->store, &c->count);
}

void
on_inbox_count(struct web_request *req, void *arg)
{
	struct count_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, count_entries);
}

/* --- one entry ------------------------------------------------------------------------------
 */

struct entry_call {
	struct call call; /* first */
	struct inbox_list list;
	json_t *answer; /* while large attachments are asked for */
	struct copy_list copies;
};

static void
get_one(struct entry_call *e, call_step *then)
{
	if (!path_entry(&e->call, &e->list.before))
		return;
	call_await(&e->call, 1, then);
	call_job(&e->call, &e->list.job);
	e->list.what = INBOX_ONE;
	e->list.limit = 1;
	e->list.account_id = e->call.who.account_id;
	store_inbox_list(e->call.api->home->store, &e->list);
}

/* False: the request has been answered. */
static bool
found_one(struct entry_call *e)
{
	enum store_rc rc = e->list.job.rc;

	if (rc == STORE_OK && e->list.rows_n > 0)
		return true;
	inbox_list_clear(&e->list);
	call_reply_store(&e->call, rc == STORE_OK ? STORE_NOT_FOUND : rc);
	return false;
}

static void
refuse_undecodable(struct entry_call *e)
{
	char id[UUID_TEXT];

	uuid_format(&e->list.before, id);
	log_error("message-undecodable", LOG_S("notification", id));
	web_reply_problem(e->call.req, &web_internal, "This message can't be read.");
}

static void
after_copies(struct call *call)
{
	struct entry_call *e = (struct entry_call *)call;
	json_t *answer = e->answer;

	if (e->copies.job.rc != STORE_OK) {
		json_decref(answer);
		call_reply_store(call, e->copies.job.rc);
		return;
	}
	attachments_describe(json_object_get(answer, "fields"), &e->list.before, &e->copies);
	web_reply_json(call->req, 200, answer);
}

static void
ask_copies(struct entry_call *e, json_t *answer)
{
	e->answer = answer;
	call_await(&e->call, 1, after_copies);
	call_job(&e->call, &e->copies.job);
	store_copy_list(e->call.api->home->store, &e->copies);
}

static void
after_entry(struct call *call)
{
	struct entry_call *e = (struct entry_call *)call;
	json_t *answer = NULL, *inside = NULL;
	struct view_entry entry;
	bool gone;

	if (!found_one(e))
		return;
	entry = view_of_row(&e->list.rows[0]);
	gone = entry.withdrawn && entry.body.len == 0;
	if (!gone)
		inside = view_fields(&entry);
	if (gone || inside != NULL) {
		answer = view_list_form(&entry);
		(void)json_object_set_new(answer, "fields", gone ? json_null() : inside);
	}
	e->list.before = entry.id;
	e->copies.notification_id = entry.notification_id;
	inbox_list_clear(&e->list);
	if (!gone && inside == NULL)
		refuse_undecodable(e);
	else if (inside != NULL && attachments_any_large(inside))
		ask_copies(e, answer);
	else
		web_reply_json(call->req, 200, answer);
}

static void
get_entry(struct call *call)
{
	get_one((struct entry_call *)call, after_entry);
}

void
on_entry_get(struct web_request *req, void *arg)
{
	struct entry_call *e = call_begin(req, arg, sizeof(*e));

	if (e != NULL)
		call_auth(&e->call, get_entry);
}

/* --- marking
 * ---------------------------------------------------------------------------------------- */

struct mark_call {
	struct call call; /* first */
	struct inbox_mark mark;
};

static void
after_mark(struct call *call)
{
	struct mark_call *m = (struct mark_call *)call;

	if (m->mark.job.rc == STORE_OK)
		web_reply_empty(call->req, 204);
	else
		call_reply_store(call, m->mark.job.rc);
}

static void
mark(struct call *call)
{
	struct mark_call *m = (struct mark_call *)call;

	if (!path_entry(call, &m->mark.entry_id))
		return;
	call_await(call, 1, after_mark);
	call_job(call, &m->mark.job);
	m->mark.account_id = call->who.account_id;
	m->mark.now_us = clock_wall_us();
	store_inbox_mark(call->api->home->store, &m->mark);
}

void
on_entry_read(struct web_request *req, void *arg)
{
	struct mark_call *m = call_begin(req, arg, sizeof(*m));

	if (m == NULL)
		return;
	m->mark.mark = INBOX_READ;
	call_auth(&m->call, mark);
}

void
on_entry_drop(struct web_request *req, void *arg)
{
	struct mark_call *m = call_begin(req, arg, sizeof(*m));

	if (m == NULL)
		return;
	m->mark.mark = INBOX_DROP;
	call_auth(&m->call, mark);
}

struct patch_body {
	bool read;
};

static void
patch(struct call *call)
{
	static const struct web_field fields[] = {
		{ "read", WEB_BOOL, WEB_REQUIRED, offsetof(struct patch_body, read), .max = 0 },
	};
	struct mark_call *m = (struct mark_call *)call;
	struct patch_body body = { false };
	json_t *json;

	if (!web_body_read(call->req, fields, 1, &body, &json))
		return;
	json_decref(json);
	m->mark.mark = body.read ? INBOX_READ : INBOX_UNREAD;
	mark(call);
}

void
on_entry_patch(struct web_request *req, void *arg)
{
	struct mark_call *m = call_begin(req, arg, sizeof(*m));

	if (m != NULL)
		call_auth(&m->call, patch);
}

/* --- watching
 * ------------------------------------------------------------------------------------------ */

static void
watch(struct call *call)
{
	struct view_cursor since;
	struct slice text;
	bool has = web_request_header(call->req, "Last-Event-ID", &text) ||
	           web_request_query(call->req, "last_event_id", &text);

	if (has && text.len > 0 && !view_cursor_parse(text, &since)) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "The last event's id isn't one of ours.");
		return;
	}
	live_watch(call->api->home->live, call->req, &call->who,
	           has && text.len > 0 ? &since : NULL);
}

void
on_inbox_events(struct web_request *req, void *arg)
{
	struct call *call = call_begin(req, arg, sizeof(*call));

	if (call != NULL)
		call_auth(call, watch);
}
