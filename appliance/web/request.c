/*
 * A request from its first header to its end. The server's thread and the owner
 * of a pending request meet in one atomic, state: whoever moves it decides who
 * acts. After the move to REPLIED the owner doesn't touch the request again.
 *
 *	RUNNING --handler returned--> WAITING --reply--> REPLIED
 *	RUNNING --reply--> REPLIED          WAITING --stop--> ABANDONED
 */
#include "web/private.h"

#include "base/log.h"
#include "base/text.h"

#include <stdlib.h>
#include <strings.h>

/* What a refused upload may still send before its connection is cut without an answer. */
#define DROP_MAX UPLOAD_DROP_MAX
/* Body memory that an idle connection keeps. */
#define BODY_KEEP 8192

/* --- memory ---------------------------------------------------------------- */

void *
web_request_alloc(struct web_request *req, size_t len)
{
	size_t need = (len + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	struct request_block *block;

	if (need < len)
		return NULL;
	if (need <= REQUEST_INLINE - req->used) {
		req->used += need;
		return req->room + req->used - need;
	}
	block = malloc(sizeof(*block) + need);
	if (block == NULL)
		return NULL;
	block->next = req->blocks;
	block->len = need;
	req->blocks = block;
	return block->data;
}

/*
 * Under AddressSanitizer whoever touches a request's memory after its reply is
 * found at once, and not only when the next request already lies there.
 */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
static void
request_guard(struct web_request *req, bool closed)
{
	if (closed)
		__asan_poison_memory_region(req->room, sizeof(req->room));
	else
		__asan_unpoison_memory_region(req->room, sizeof(req->room));
	for (struct request_block *b = req->blocks; b != NULL; b = b->next) {
		if (closed)
			__asan_poison_memory_region(b->data, b->len);
		else
			__asan_unpoison_memory_region(b->data, b->len);
	}
}
#else
static void
request_guard(struct web_request *req, bool closed)
{
	(void)req;
	(void)closed;
}
#endif

/* As new, but for the body's memory. */
static void
request_reset(struct web_request *req)
{
	struct request_block *block;

	request_guard(req, false);
	if (req->free_ctx != NULL)
		req->free_ctx(req->ctx);
	req->free_ctx = NULL;
	req->ctx = NULL;
	while ((block = req->blocks) != NULL) {
		req->blocks = block->next;
		free(block);
	}
	req->used = 0;
	buffer_clear(&req->body);
	buffer_shrink(&req->body, BODY_KEEP);
	if (req->response != NULL)
		MHD_destroy_response(req->response);
	req->response = NULL;
	req->headers = NULL;
	req->retry_after_s = 0;
	req->route = NULL;
	req->refusal = NULL;
	req->refused[0] = '\0';
	req->allowed = 0;
	req->called = req->has_body = req->overflow = false;
	req->body_max = req->body_dropped = 0;
	req->opening = req->suspended_at_open = false;
	req->taken = 0;
	req->piece_octets = 0;
	req->on_piece = NULL;
	req->problem = NULL;
	req->told = false;
	req->n_params = 0;
	req->status = 0;
	atomic_store_explicit(&req->state, REQ_RUNNING, memory_order_relaxed);
	atomic_store_explicit(&req->refs, 1, memory_order_relaxed);
}

void
request_free(struct web_request *req)
{
	request_reset(req);
	buffer_free(&req->body);
	free(req);
}

void
request_unref(struct web_request *req)
{
	if (atomic_fetch_sub(&req->refs, 1) == 1)
		request_free(req);
}

static struct web_request *
request_make(struct web_conn *conn)
{
	struct web_request *req = calloc(1, sizeof(*req));

	if (req == NULL)
		return NULL;
	atomic_init(&req->state, REQ_RUNNING);
	atomic_init(&req->refs, 1);
	atomic_flag_clear(&req->gate);
	buffer_init(&req->body, SIZE_MAX / 2);
	req->conn = conn;
	req->server = conn->server;
	req->mhd = conn->mhd;
	req->tls = conn->server->has_tls;
	memcpy(req->peer, conn->peer, sizeof(req->peer));
	pthread_mutex_lock(&conn->server->lock);
	conn->req = req;
	pthread_mutex_unlock(&conn->server->lock);
	return req;
}

/* --- before the body ------------------------------------------------------- */

/* What a first look at all headers tells. */
struct header_look {
	size_t lengths, codings, keys;
	struct slice length;
	bool chunked, encoded;
};

static bool
key_is(const char *key, size_t len, const char *name, size_t name_len)
{
	return len == name_len && strncasecmp(key, name, len) == 0;
}
#define KEY_IS(name) key_is(key, key_len, name, sizeof(name) - 1)

static enum MHD_Result
on_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len,
          const char *value, size_t value_len)
{
	struct header_look *look = cls;

	(void)kind;
	if (KEY_IS("Content-Length")) {
		look->lengths++;
		look->length = slice_mem(value, value_len);
	} else if (KEY_IS("Transfer-Encoding")) {
		look->codings++;
		look->chunked = key_is(value, value_len, "chunked", 7);
	} else if (KEY_IS("Content-Encoding")) {
		look->encoded = !key_is(value, value_len, "identity", 8);
	} else if (KEY_IS("Idempotency-Key")) {
		look->keys++;
	}
	return MHD_YES;
}

/* In words that are safe to repeat. */
static void
refuse_argument(struct web_request *req, struct slice name)
{
	bool plain = name.len > 0 && name.len <= 40;

	for (size_t i = 0; plain && i < name.len; i++)
		plain = name.data[i] > ' ' && name.data[i] < 0x7f;
	req->refusal = &web_bad_request;
	if (plain)
		(void)snprintf(req->refused, sizeof(req->refused),
		               "There is no argument \"%.*s\" here.", (int)name.len,
		               (const char *)name.data);
	else
		(void)snprintf(req->refused, sizeof(req->refused),
		               "There is no such argument here.");
}

static bool
is_known_argument(unsigned flags, struct slice name)
{
	static const struct {
		unsigned flag;
		const char *name;
	} args[] = {
		{ WEB_ARG_LIMIT, "limit" },   { WEB_ARG_BEFORE, "before" },
		{ WEB_ARG_AFTER, "after" },   { WEB_ARG_STATE, "state" },
		{ WEB_ARG_UNREAD, "unread" }, { WEB_ARG_LAST_EVENT_ID, "last_event_id" },
		{ WEB_ARG_DOMAIN, "domain" }, { WEB_ARG_MESSAGE, "message" },
	};
	bool checked = (flags & WEB_NO_ARGS) != 0;

	for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++) {
		checked = checked || (flags & args[i].flag) != 0;
		if ((flags & args[i].flag) != 0 && slice_eq_str(name, args[i].name))
			return true;
	}
	return !checked;
}

/*
 * Any argument that can't be decoded makes the request a bad one, so that later look-ups can't
 * fail.
 */
static enum MHD_Result
on_argument(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len,
            const char *value, size_t value_len)
{
	struct web_request *req = cls;
	struct slice decoded;
	uint8_t *room = web_request_alloc(req, key_len > value_len ? key_len : value_len);
	bool named = room != NULL && route_decode(slice_mem(key, key_len), room, &decoded);

	(void)kind;
	if (named && !is_known_argument(req->route->flags, decoded))
		refuse_argument(req, decoded);
	else if (!named || !route_decode(slice_mem(value, value_len), room, &decoded))
		req->refusal = &web_bad_request;
	return req->refusal == NULL ? MHD_YES : MHD_NO;
}

static bool
method_parse(const char *text, enum web_method *out)
{
	static const char *const names[WEB_METHODS] = { "GET", "HEAD",  "POST",
		                                        "PUT", "PATCH", "DELETE" };

	for (unsigned i = 0; i < WEB_METHODS; i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum web_method)i;
			return true;
		}
	}
	return false;
}

/*
 * The path of a target: the absolute form ("http://host/path") is a server's to accept, RFC
 * 9112 3.2.2.
 */
static struct slice
target_path(const char *url)
{
	const char *slash;

	if (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0) {
		slash = strchr(strchr(url, ':') + 3, '/');
		return slice_str(slash == NULL ? "/" : slash);
	}
	return slice_str(url);
}

/* Decoded parameters are copied into the request: the daemon's memory isn't ours to change. */
static bool
request_take_params(struct web_request *req, const struct route_path *pattern,
                    const struct route_path *path)
{
	for (size_t i = 0; i < path->n; i++) {
		struct slice name = pattern->part[i], value;
		uint8_t *room;

		if (name.len < 2 || name.data[0] != ':')
			continue;
		room = web_request_alloc(req, path->part[i].len);
		if (room == NULL || !route_decode(path->part[i], room, &value))
			return false;
		req->params[req->n_params].name = slice_mem(name.data + 1, name.len - 1);
		req->params[req->n_params++].value = value;
	}
	return true;
}

static void
request_route(struct web_request *req, const char *url, const char *method_text)
{
	struct web_server *server = req->server;
	struct route_path path;
	enum web_method method, find;
	size_t index = 0;
	bool known = method_parse(method_text, &method);

	req->method = known ? method : WEB_METHODS;
	find = req->method == WEB_HEAD ? WEB_GET : req->method;
	if (!route_path_cut(target_path(url), &path)) {
		req->refusal = &web_not_found;
		return;
	}
	req->route = route_find(&server->routes, find, &path, &index, &req->allowed);
	if (req->route == NULL)
		req->refusal = req->allowed != 0 ? &web_method_not_allowed : &web_not_found;
	else if (!request_take_params(req, &server->routes.paths[index], &path))
		req->refusal = &web_bad_request;
	else if (atomic_load(&server->draining) && find != WEB_GET &&
	         !(req->route->flags & WEB_WHEN_DRAINING))
		req->refusal = &web_unavailable;
}

static bool
length_parse(struct slice s, uint64_t *out)
{
	while (s.len > 1 && s.data[0] == '0') /* "007" is a length too, RFC 9110 8.6 */
		s = slice_mem(s.data + 1, s.len - 1);
	return text_parse_u64(s, UINT64_MAX, out);
}

static void
refuse(struct web_request *req, const char *why)
{
	req->refusal = &web_bad_request;
	(void)snprintf(req->refused, sizeof(req->refused), "%s", why);
}

/* Whether a body comes, and may. Two framings at once are how requests get smuggled. */
static void
request_look_at_headers(struct web_request *req)
{
	struct header_look look = { 0 };
	const union MHD_ConnectionInfo *info;
	uint64_t length = 0;

	(void)MHD_get_connection_values_n(req->mhd, MHD_HEADER_KIND, on_header, &look);
	req->body_max = req->route == NULL ? 0 : req->route->body_max;
	req->has_body =
	    look.codings > 0 ||
	    (look.lengths > 0 && (!length_parse(look.length, &length) || length > 0));
	req->length =
	    look.lengths > 0 && look.codings == 0 && length <= INT64_MAX ? (int64_t)length : -1;
	info = MHD_get_connection_info(req->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (look.codings + look.lengths > 1 || (look.codings == 1 && !look.chunked))
		req->refusal = &web_bad_request;
	else if (info != NULL && info->header_size > req->server->header_bytes)
		req->refusal = &web_header_too_large;
	else if (req->refusal == NULL && req->has_body && req->body_max == 0)
		refuse(req, "No body is expected here.");
	else if (req->refusal == NULL && length > req->body_max)
		req->refusal = &web_payload_too_large;
	else if (req->refusal == NULL && look.keys > 1)
		refuse(req, "There is more than one Idempotency-Key.");
	else if (req->refusal == NULL && look.encoded)
		req->refusal = &web_unsupported_media;
	if (req->refusal == NULL)
		(void)MHD_get_connection_values_n(req->mhd, MHD_GET_ARGUMENT_KIND, on_argument,
		                                  req);
}

static void
request_refuse(struct web_request *req)
{
	static const char *const names[WEB_METHODS] = { "GET", "HEAD",  "POST",
		                                        "PUT", "PATCH", "DELETE" };
	struct buffer allow;

	if (req->refusal == &web_method_not_allowed) {
		buffer_init(&allow, 64);
		for (unsigned i = 0; i < WEB_METHODS; i++) {
			if (req->allowed & 1u << i)
				buffer_add_fmt(&allow, "%s%s", allow.len == 0 ? "" : ", ",
				               names[i]);
		}
		buffer_add_u8(&allow, 0);
		if (!allow.failed)
			web_reply_header(req, "Allow", (const char *)allow.data);
		buffer_free(&allow);
	}
	if (req->refusal == &web_payload_too_large)
		web_reply_problem(req, req->refusal, "At most %zu octets are taken here.",
		                  req->body_max);
	else if (req->refusal == &web_unsupported_media)
		web_reply_problem(
		    req, req->refusal,
		    "The body is to be application/json, in UTF-8 and not compressed.");
	else if (req->refusal == &web_header_too_large)
		web_reply_problem(req, req->refusal, "At most %zu octets of headers are taken.",
		                  req->server->header_bytes);
	else if (req->refused[0] != '\0')
		web_reply_problem(req, req->refusal, "%s", req->refused);
	else
		web_reply_problem(req, req->refusal, NULL);
}

/* --- the answer's way out -------------------------------------------------- */

static void
request_log(struct web_request *req, unsigned status)
{
	const char *path = req->route == NULL ? "" : req->route->path;

	metrics_request(status);
	if (status >= 500 && req->refusal == NULL &&
	    (req->problem == NULL || req->problem == &web_internal ||
	     req->problem == &web_unavailable))
		log_warn("request-failed", LOG_I("status", status), LOG_S("route", path),
		         LOG_S("client", req->peer));
	else if (status >= 400 && req->problem != NULL && !req->told)
		log_info("request-refused", LOG_I("status", status),
		         LOG_S("reason", strrchr(req->problem->type, ':') + 1),
		         LOG_S("route", path), LOG_S("client", req->peer));
}

enum MHD_Result
request_answer(struct web_request *req)
{
	bool abandoned = atomic_load(&req->state) == REQ_ABANDONED;
	struct MHD_Response *response = abandoned ? reply_stopped() : req->response;
	unsigned status = abandoned ? 503 : req->status;
	enum MHD_Result rc;

	if (!abandoned)
		req->response = NULL;
	if (req->pending)
		atomic_fetch_sub(&req->server->pending, 1);
	req->pending = false;
	if (response == NULL)
		return MHD_NO;
	request_log(req, status);
	if (!abandoned && atomic_load(&req->server->draining))
		(void)MHD_add_response_header(response, "Connection", "close");
	rc = MHD_queue_response(req->mhd, status, response);
	if (rc == MHD_YES)
		req->conn->unanswered = false;
	MHD_destroy_response(response);
	return rc;
}

void
request_hand_over(struct web_request *req, enum request_state to)
{
	struct MHD_Connection *mhd = req->mhd;
	struct web_server *server = req->server;
	int state = atomic_load(&req->state);

	while (state != REQ_ABANDONED &&
	       !atomic_compare_exchange_weak(&req->state, &state, (int)to))
		continue;
	if (state == REQ_ABANDONED) {
		request_unref(req);
	} else if (state == REQ_WAITING) {
		/* While the request is pending, the server stands; it waits for the count. */
		atomic_fetch_add(&server->resuming, 1);
		MHD_resume_connection(mhd);
		atomic_fetch_sub(&server->resuming, 1);
	}
}

void
request_finish(struct web_request *req, unsigned status, struct MHD_Response *response)
{
	if (atomic_load(&req->state) == REQ_REPLIED) {
		log_error("reply-twice", LOG_I("status", status));
		if (response != NULL)
			MHD_destroy_response(response);
		return;
	}
	req->status = status;
	req->response = response;
	request_guard(req, true);
	request_hand_over(req, REQ_REPLIED);
}

bool
request_abandon(struct web_request *req)
{
	int state = REQ_WAITING;
	bool done = false;

	while (atomic_flag_test_and_set_explicit(&req->gate, memory_order_acquire))
		continue;
	if (atomic_load(&req->state) == REQ_WAITING) {
		atomic_store(&req->refs, 2);
		done = atomic_compare_exchange_strong(&req->state, &state, REQ_ABANDONED);
		if (!done) /* answered just now */
			atomic_store(&req->refs, 1);
		/* The daemon may never call for an upload again: its client may send nothing more. */
		if (done && req->pending && req->route->flags & WEB_STREAM_BODY) {
			req->pending = false;
			atomic_fetch_sub(&req->server->pending, 1);
		}
	}
	atomic_flag_clear_explicit(&req->gate, memory_order_release);
	return done;
}

/* The handler, or the refusal; then the answer, or the wait for it. */
static enum MHD_Result
request_run(struct web_request *req)
{
	struct MHD_Connection *mhd = req->mhd;
	int state = REQ_RUNNING;

	req->called = req->pending = true;
	web_conn_enter(req->conn, CONN_REPLY);
	/*
	 * Counted before refusing is read: a server that refuses and counts none may stop its
	 * daemon.
	 */
	atomic_fetch_add(&req->server->pending, 1);
	if (req->overflow && req->refusal == NULL)
		req->refusal = &web_payload_too_large;
	if (atomic_load(&req->server->refusing))
		req->refusal = &web_unavailable;
	if (req->refusal == NULL && req->route->flags & WEB_JSON_BODY && req->body.len > 0 &&
	    !web_request_content_is(req, "application/json"))
		req->refusal = &web_unsupported_media;
	if (req->refusal != NULL)
		request_refuse(req);
	else
		req->route->handler(req, req->server->arg);
	if (atomic_load(&req->state) == REQ_REPLIED)
		return request_answer(req);
	MHD_suspend_connection(mhd);
	/* Once WAITING, the reply may come, and with it the request's end: hands off. */
	if (!atomic_compare_exchange_strong(&req->state, &state, REQ_WAITING))
		MHD_resume_connection(mhd);
	return MHD_YES;
}

static enum MHD_Result
request_begin(struct MHD_Connection *mhd, const char *url, const char *method, void **con_cls)
{
	struct web_conn *conn = conn_of(mhd);
	struct web_request *req;

	if (conn == NULL)
		return MHD_NO;
	req = conn->req != NULL ? conn->req : request_make(conn);
	if (req == NULL)
		return MHD_NO;
	*con_cls = req;
	atomic_fetch_add(&conn->server->active, 1);
	request_route(req, url, method);
	request_look_at_headers(req);
	web_conn_enter(conn, CONN_BODY);
	if (req->refusal == NULL && req->route->flags & WEB_STREAM_BODY)
		return upload_open(req);
	if (req->refusal == NULL || !req->has_body)
		return MHD_YES;
	/* Answered before the body, which is never read: the daemon closes after it. */
	req->called = true;
	web_conn_enter(conn, CONN_REPLY);
	request_refuse(req);
	return request_answer(req);
}

/*
 * Keeps what the body may hold; what a chunked one sends beyond is dropped, so that its sender
 * hears of it.
 */
static enum MHD_Result
request_take_body(struct web_request *req, const char *data, size_t len)
{
	if (!req->overflow && len <= req->body_max - req->body.len) {
		buffer_add(&req->body, data, len);
		return req->body.failed ? MHD_NO : MHD_YES;
	}
	req->overflow = true;
	req->body_dropped += len;
	if (req->body_dropped <= DROP_MAX)
		return MHD_YES;
	req->problem = &web_payload_too_large; /* it listens to no answer: closed without one */
	request_log(req, 413);
	return MHD_NO;
}

enum MHD_Result
request_on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                  const char *version, const char *data, size_t *size, void **con_cls)
{
	struct web_request *req = *con_cls;
	size_t len = *size;

	(void)cls;
	(void)version;
	if (req == NULL)
		return request_begin(mhd, url, method, con_cls);
	if (req->refusal == NULL && req->route->flags & WEB_STREAM_BODY)
		return upload_on_access(req, data, size);
	if (len > 0) {
		*size = 0;
		return request_take_body(req, data, len);
	}
	return req->called ? request_answer(req) : request_run(req);
}

void
request_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                     enum MHD_RequestTerminationCode code)
{
	struct web_server *server = cls;
	struct web_request *req = *con_cls;
	struct web_conn *conn;

	(void)mhd;
	(void)code;
	*con_cls = NULL;
	if (req == NULL)
		return;
	conn = req->conn;
	if (req->pending) /* the client left before its answer could be queued */
		atomic_fetch_sub(&server->pending, 1);
	req->pending = false;
	if (atomic_load(&req->state) == REQ_ABANDONED) {
		pthread_mutex_lock(&server->lock);
		conn->req = NULL;
		pthread_mutex_unlock(&server->lock);
		request_unref(req);
	} else {
		request_reset(req);
	}
	web_conn_enter(conn, CONN_HEADERS);
	atomic_fetch_sub(&server->active, 1);
}

/* --- what handlers read ---------------------------------------------------- */

enum web_method
web_request_method(const struct web_request *req)
{
	return req->method == WEB_HEAD ? WEB_GET : req->method;
}

const struct web_route *
web_request_route(const struct web_request *req)
{
	return req->route;
}

struct slice
web_request_param(const struct web_request *req, const char *name)
{
	for (size_t i = 0; i < req->n_params; i++) {
		if (slice_eq_str(req->params[i].name, name))
			return req->params[i].value;
	}
	return (struct slice){ 0 };
}

/*
 * A copy of one of the connection's values. The gate is held for the length of
 * a look-up, so that a stopping server doesn't free the connection under it.
 */
static bool
request_lookup(struct web_request *req, enum MHD_ValueKind kind, const char *name,
               struct slice *out)
{
	const char *value = NULL;
	size_t len = 0;
	uint8_t *copy = NULL;

	while (atomic_flag_test_and_set_explicit(&req->gate, memory_order_acquire))
		continue;
	if (atomic_load(&req->state) != REQ_ABANDONED &&
	    MHD_lookup_connection_value_n(req->mhd, kind, name, strlen(name), &value, &len) ==
	        MHD_YES) {
		copy = web_request_alloc(req, len + 1);
		if (copy != NULL && len > 0)
			memcpy(copy, value, len);
	}
	atomic_flag_clear_explicit(&req->gate, memory_order_release);
	if (copy == NULL)
		return false;
	copy[len] = '\0';
	*out = slice_mem(copy, len);
	return true;
}

bool
web_request_query(struct web_request *req, const char *name, struct slice *out)
{
	struct slice raw;

	if (!request_lookup(req, MHD_GET_ARGUMENT_KIND, name, &raw))
		return false;
	return route_decode(raw, (uint8_t *)(uintptr_t)raw.data, out);
}

enum web_query
web_request_query_u64(struct web_request *req, const char *name, uint64_t max, uint64_t *out)
{
	struct slice text;

	if (!web_request_query(req, name, &text))
		return WEB_QUERY_ABSENT;
	return text_parse_u64(text, max, out) ? WEB_QUERY_OK : WEB_QUERY_BAD;
}

bool
web_request_header(struct web_request *req, const char *name, struct slice *out)
{
	return request_lookup(req, MHD_HEADER_KIND, name, out);
}

bool
web_request_bearer(struct web_request *req, struct slice *out)
{
	struct slice s;

	if (!web_request_header(req, "Authorization", &s) || s.len < 8 ||
	    strncasecmp((const char *)s.data, "Bearer ", 7) != 0)
		return false;
	s = slice_mem(s.data + 7, s.len - 7);
	while (s.len > 0 && s.data[0] == ' ')
		s = slice_mem(s.data + 1, s.len - 1);
	while (s.len > 0 && s.data[s.len - 1] == ' ')
		s.len--;
	if (s.len == 0)
		return false;
	*out = s;
	return true;
}

struct slice
web_request_body(const struct web_request *req)
{
	return buffer_slice(&req->body);
}

static bool
charset_is_utf8(const char *params)
{
	const char *at = strcasestr(params, "charset=");

	if (at == NULL)
		return true;
	at += 8;
	at += *at == '"';
	return strncasecmp(at, "utf-8", 5) == 0 && strchr("\"; \t", at[5]) != NULL;
}

bool
web_request_content_is(struct web_request *req, const char *media_type)
{
	struct slice type;
	size_t len = strlen(media_type);
	const char *rest;

	if (!web_request_header(req, "Content-Type", &type) || type.len < len ||
	    strncasecmp((const char *)type.data, media_type, len) != 0)
		return false;
	rest = (const char *)type.data + len;
	return strchr("; \t", *rest) != NULL && charset_is_utf8(rest);
}

const char *
web_request_peer(const struct web_request *req)
{
	return req->peer;
}

void
web_request_told(struct web_request *req)
{
	req->told = true;
}

void
web_request_set_ctx(struct web_request *req, void *ctx, void (*free_ctx)(void *))
{
	req->ctx = ctx;
	req->free_ctx = free_ctx;
}

void *
web_request_ctx(const struct web_request *req)
{
	return req->ctx;
}
