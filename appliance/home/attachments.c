/*
 * Attachments of entries: see attachments.h and API.md. Octets to be saved,
 * never something that a browser shows. Those of a large one are read from the
 * store as the client takes them.
 */
#include "home/attachments.h"

#include "base/text.h"
#include "home/view.h"
#include "store/inboxes.h"
#include "web/download.h"
#include "web/reply.h"

#include <stdio.h>
#include <stdlib.h>

#define CACHING "private, no-store"
/* What fetching on opening takes, at its best. */
#define RETRY_AFTER_S 2
/* Answers at once, each with a part in memory. */
#define DOWNLOADS_MAX 512

static const struct web_problem not_here = {
	.type = "urn:tmtp:problem:attachment-not-here",
	.title = "The attachment isn't here yet.",
	.status = 503,
};

static const struct web_problem not_to_be_had = {
	.type = "urn:tmtp:problem:attachment-failed",
	.title = "The attachment can't be had.",
	.status = 410,
};

/* --- in an entry -------------------------------------------------------------------- */

static bool
is_large(const json_t *attachment)
{
	return json_object_get(attachment, "url") == NULL;
}

bool
attachments_any_large(const json_t *fields)
{
	const json_t *list = json_object_get(fields, "attachments");

	for (size_t i = 0; i < json_array_size(list); i++)
		if (is_large(json_array_get(list, i)))
			return true;
	return false;
}

static const struct copy_info *
copy_find(const struct copy_list *copies, uint64_t number)
{
	for (size_t i = 0; i < copies->rows_n; i++)
		if ((uint64_t)copies->rows[i].number == number)
			return &copies->rows[i];
	return NULL;
}

static void
describe(json_t *o, const char *id, size_t number, const struct copy_info *copy)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "/v1/inbox/%s/attachments/%zu", id, number);
	(void)json_object_set_new(o, "url", json_string(path));
	(void)json_object_set_new(
	    o, "state",
	    json_string(copy_state_name((int)(copy == NULL ? COPY_FAILED : copy->state))));
	if (copy == NULL)
		return;
	if (copy->state == COPY_WAITING)
		(void)json_object_set_new(o, "fetched", json_integer(copy->octets));
	if (copy->state == COPY_FAILED ||
	    (copy->state == COPY_WAITING && copy->reason[0] != '\0'))
		(void)json_object_set_new(o, "reason", json_string(copy->reason));
}

void
attachments_describe(json_t *fields, const struct uuid *entry_id,
                     const struct copy_list *copies)
{
	const json_t *list = json_object_get(fields, "attachments");
	char id[UUID_TEXT];

	uuid_format(entry_id, id);
	for (size_t i = 0; i < json_array_size(list); i++)
		if (is_large(json_array_get(list, i)))
			describe(json_array_get(list, i), id, i, copy_find(copies, i));
}

/* --- a large one's octets -------------------------------------------------------------- */

/* What an answer reads from; lives as long as that. */
struct serving {
	struct home *home;
	struct api *api;
	struct uuid copy_id;
};

struct reading {
	struct copy_read read; /* first */
	struct web_download *download;
	struct api *api;
	size_t skip;
};

static void
on_read(struct store_job *job)
{
	struct reading *r = (struct reading *)job;
	struct api *api = r->api;
	uint8_t *data = r->read.data;

	if (job->rc != STORE_OK) {
		free(data);
		data = NULL;
	}
	web_download_give(r->download, data, r->read.len, r->skip);
	free(r);
	atomic_fetch_sub(&api->jobs, 1);
}

static void
want(struct web_download *d, uint64_t at, void *owner)
{
	struct serving *s = owner;
	struct reading *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		web_download_give(d, NULL, 0, 0);
		return;
	}
	atomic_fetch_add(&s->api->jobs, 1);
	r->api = s->api;
	r->download = d;
	r->skip = (size_t)(at % ATTACHMENT_PART);
	r->read.job.done = on_read;
	r->read.copy_id = s->copy_id;
	r->read.part_no = (int)(at / ATTACHMENT_PART);
	store_copy_read(s->home->store, &r->read);
}

static void
safe_headers(struct web_request *req)
{
	web_reply_header(req, "Content-Disposition", "attachment");
	web_reply_header(req, "Content-Security-Policy", "sandbox; default-src 'none'");
}

static void
let_go(void *owner)
{
	struct serving *s = owner;

	atomic_fetch_sub(&s->api->downloads, 1);
	free(s);
}

static void
serve(struct call *call, const struct copy_info *copy)
{
	struct serving *s = malloc(sizeof(*s));
	char etag[BASE32_LEN(32) + 3];

	if (s == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	if (atomic_fetch_add(&call->api->downloads, 1) >= DOWNLOADS_MAX) {
		atomic_fetch_sub(&call->api->downloads, 1);
		free(s);
		web_reply_problem(call->req, &web_unavailable, NULL);
		return;
	}
	*s = (struct serving){ call->api->home, call->api, copy->copy_id };
	etag[0] = '"';
	base32_encode(copy->digest, sizeof(copy->digest), etag + 1);
	memcpy(etag + sizeof(etag) - 2, "\"", 2);
	safe_headers(call->req);
	web_reply_object(call->req, &(struct web_object){
					.content_type = "application/octet-stream",
					.cache_control = CACHING,
					.etag = etag,
					.len = (size_t)copy->size,
					.want = want,
					.free_data = let_go,
					.owner = s,
				    });
}

/* --- the request -------------------------------------------------------------------------- */

struct attachment_call {
	struct call call; /* first */
	struct inbox_list list;
	struct copy_list copies;
	struct copy_open open;
	uint64_t number;
	const struct copy_info *copy;
};

static void
reply_state(struct attachment_call *a, enum copy_state state)
{
	struct call *call = &a->call;

	if (state == COPY_FAILED) {
		web_reply_problem(call->req, &not_to_be_had, "%s",
		                  a->copy->reason[0] == '\0' ? "There is no room for it."
		                                             : a->copy->reason);
		return;
	}
	web_reply_retry_after(call->req, RETRY_AFTER_S);
	web_reply_problem(call->req, &not_here, "Of %lld octets %lld are here.",
	                  (long long)a->copy->size, (long long)a->copy->octets);
}

static void
after_open(struct call *call)
{
	struct attachment_call *a = (struct attachment_call *)call;

	if (a->open.job.rc != STORE_OK)
		call_reply_store(call, a->open.job.rc);
	else if (a->open.state == COPY_HERE)
		serve(call, a->copy);
	else
		reply_state(a, a->open.state);
}

static void
after_copies(struct call *call)
{
	struct attachment_call *a = (struct attachment_call *)call;

	if (a->copies.job.rc != STORE_OK) {
		call_reply_store(call, a->copies.job.rc);
		return;
	}
	a->copy = copy_find(&a->copies, a->number);
	if (a->copy == NULL) { /* a message from before attachments were fetched */
		web_reply_problem(call->req, &not_to_be_had, "It was never fetched.");
	} else if (a->copy->state == COPY_HERE) {
		serve(call, a->copy);
	} else if (a->copy->state == COPY_WAITING) {
		reply_state(a, COPY_WAITING);
	} else {
		call_await(call, 1, after_open);
		call_job(call, &a->open.job);
		a->open.copy_id = a->copy->copy_id;
		a->open.account_id = call->who.account_id;
		a->open.limits = copies_limits(call->api->home);
		store_copy_open(call->api->home->store, &a->open);
	}
}

static void
serve_inline(struct attachment_call *a, struct slice octets)
{
	uint8_t *body = a->list.rows[0].body;

	a->list.rows[0].body = NULL;
	inbox_list_clear(&a->list);
	safe_headers(a->call.req);
	web_reply_object(a->call.req,
	                 &(struct web_object){ .content_type = "application/octet-stream",
	                                       .cache_control = CACHING,
	                                       .data = octets.data,
	                                       .len = octets.len,
	                                       .free_data = free,
	                                       .owner = body });
}

static void
after_entry(struct call *call)
{
	struct attachment_call *a = (struct attachment_call *)call;
	enum store_rc rc = a->list.job.rc;
	struct view_entry entry;
	enum view_attached attached;
	struct slice octets;
	struct uuid id;

	if (rc != STORE_OK || a->list.rows_n == 0) {
		inbox_list_clear(&a->list);
		call_reply_store(call, rc == STORE_OK ? STORE_NOT_FOUND : rc);
		return;
	}
	entry = view_of_row(&a->list.rows[0]);
	/* a withdrawn message has no body, and so no attachments */
	attached = view_attachment(entry.body, a->number, &octets);
	if (attached == VIEW_ATTACHED_HERE) {
		serve_inline(a, octets);
		return;
	}
	id = entry.notification_id;
	inbox_list_clear(&a->list);
	if (attached == VIEW_ATTACHED_NONE) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	call_await(call, 1, after_copies);
	call_job(call, &a->copies.job);
	a->copies.notification_id = id;
	store_copy_list(call->api->home->store, &a->copies);
}

static void
get_attachment(struct call *call)
{
	struct attachment_call *a = (struct attachment_call *)call;

	if (!text_parse_u64(web_request_param(call->req, "n"), 1000000, &a->number) ||
	    !uuid_parse(web_request_param(call->req, "id"), &a->list.before)) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	call_await(call, 1, after_entry);
	call_job(call, &a->list.job);
	a->list.what = INBOX_ONE;
	a->list.limit = 1;
	a->list.account_id = call->who.account_id;
	store_inbox_list(call->api->home->store, &a->list);
}

void
on_entry_attachment(struct web_request *req, void *arg)
{
	struct attachment_call *a = call_begin(req, arg, sizeof(*a));

	if (a != NULL)
		call_auth(&a->call, get_attachment);
}
