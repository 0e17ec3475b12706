/*
 * Replies: each builds one daemon's response, adds the headers that every
 * answer carries, and hands it to request_finish. Defaults are those of an API:
 * nothing is sniffed, framed, cached or leaked as referrer unless a handler says so.
 */
#include "web/reply.h"

#include "base/log.h"
#include "base/text.h"
#include "web/private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define DETAIL_MAX 512
#define RETRY_AFTER_S 5

/* --- headers --------------------------------------------------------------- */

static bool
value_is_clean(const char *value)
{
	for (; *value != '\0'; value++) {
		if ((unsigned char)*value < 0x20 || *value == 0x7f)
			return false;
	}
	return true;
}

static bool
name_is_ours(const char *name)
{
	static const char *const ours[] = { "Content-Length", "Date", "Connection",
		                            "Transfer-Encoding" };

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		if (strcasecmp(name, ours[i]) == 0)
			return true;
	}
	return false;
}

void
web_reply_header(struct web_request *req, const char *name, const char *value)
{
	size_t n = strlen(name) + 1, v = strlen(value) + 1;
	struct request_header *h;
	char *copy;

	if (!value_is_clean(value) || !value_is_clean(name) || name_is_ours(name)) {
		log_error("reply-header-dropped", LOG_S("name", name));
		return;
	}
	h = web_request_alloc(req, sizeof(*h));
	copy = web_request_alloc(req, n + v);
	if (h == NULL || copy == NULL)
		return;
	memcpy(copy, name, n);
	memcpy(copy + n, value, v);
	*h = (struct request_header){ .next = req->headers, .name = copy, .value = copy + n };
	req->headers = h;
}

void
web_reply_retry_after(struct web_request *req, unsigned seconds)
{
	req->retry_after_s = seconds;
}

static const char *
own_header(const struct web_request *req, const char *name)
{
	for (const struct request_header *h = req->headers; h != NULL; h = h->next) {
		if (strcasecmp(h->name, name) == 0)
			return h->value;
	}
	return NULL;
}

static void
add_default(struct web_request *req, struct MHD_Response *response, const char *name,
            const char *value)
{
	if (own_header(req, name) == NULL)
		(void)MHD_add_response_header(response, name, value);
}

void
reply_add_headers(struct web_request *req, struct MHD_Response *response,
                  const char *content_type)
{
	if (content_type != NULL)
		(void)MHD_add_response_header(response, "Content-Type", content_type);
	for (const struct request_header *h = req->headers; h != NULL; h = h->next)
		(void)MHD_add_response_header(response, h->name, h->value);
	add_default(req, response, "Cache-Control", "no-store");
	add_default(req, response, "X-Content-Type-Options", "nosniff");
	add_default(req, response, "Content-Security-Policy",
	            "default-src 'none'; frame-ancestors 'none'");
	add_default(req, response, "Referrer-Policy", "no-referrer");
	if (req->tls)
		add_default(req, response, "Strict-Transport-Security", "max-age=31536000");
}

/* --- plain replies --------------------------------------------------------- */

static void
finish_with(struct web_request *req, unsigned status, const char *content_type,
            struct MHD_Response *response)
{
	if (response != NULL)
		reply_add_headers(req, response, content_type);
	request_finish(req, status, response);
}

void
web_reply_empty(struct web_request *req, unsigned status)
{
	finish_with(req, status, NULL,
	            MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT));
}

void
web_reply_bytes(struct web_request *req, unsigned status, const char *content_type,
                struct slice data)
{
	finish_with(req, status, content_type,
	            MHD_create_response_from_buffer(
			data.len, data.len == 0 ? (void *)"" : (void *)(uintptr_t)data.data,
			MHD_RESPMEM_MUST_COPY));
}

void
web_reply_bytes_owned(struct web_request *req, unsigned status, const char *content_type,
                      void *data, size_t len)
{
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);

	if (response == NULL)
		free(data);
	finish_with(req, status, content_type, response);
}

static void
reply_json_as(struct web_request *req, unsigned status, const char *content_type, json_t *value)
{
	char *text = value == NULL ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

	json_decref(value);
	if (text == NULL)
		web_reply_empty(req, 500);
	else
		web_reply_bytes_owned(req, status, content_type, text, strlen(text));
}

void
web_reply_json(struct web_request *req, unsigned status, json_t *value)
{
	reply_json_as(req, status, "application/json", value);
}

struct MHD_Response *
reply_stopped(void)
{
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);

	if (response != NULL) {
		(void)MHD_add_response_header(response, "Retry-After", "5");
		(void)MHD_add_response_header(response, "Connection", "close");
	}
	return response;
}

/* --- problems -------------------------------------------------------------- */

static void
add_problem_headers(struct web_request *req, const struct web_problem *kind)
{
	char seconds[16];

	if (kind->status == 401 && own_header(req, "WWW-Authenticate") == NULL)
		web_reply_header(req, "WWW-Authenticate", "Bearer");
	if ((kind->status == 429 || kind->status == 503 || req->retry_after_s > 0) &&
	    own_header(req, "Retry-After") == NULL) {
		(void)snprintf(seconds, sizeof(seconds), "%u",
		               req->retry_after_s == 0 ? RETRY_AFTER_S : req->retry_after_s);
		web_reply_header(req, "Retry-After", seconds);
	}
}

/* Takes errors, which may be NULL. */
static void
reply_problem(struct web_request *req, const struct web_problem *kind, json_t *errors,
              const char *detail)
{
	json_t *body = json_pack("{s:s, s:s, s:i}", "type", kind->type, "title", kind->title,
	                         "status", (int)kind->status);

	if (detail != NULL)
		(void)json_object_set_new(body, "detail", json_string(detail));
	if (errors != NULL)
		(void)json_object_set_new(body, "errors", errors);
	req->problem = kind;
	add_problem_headers(req, kind);
	reply_json_as(req, kind->status, "application/problem+json", body);
}

/* What was cut may end within a character, which wouldn't be JSON. */
static void
trim_utf8(char *text)
{
	size_t len = strlen(text);

	for (int i = 0; i < 4 && len > 0 && !text_is_utf8(slice_mem(text, len)); i++)
		text[--len] = '\0';
}

void
web_reply_problem(struct web_request *req, const struct web_problem *kind, const char *detail,
                  ...)
{
	char text[DETAIL_MAX];
	va_list ap;

	if (detail != NULL) {
		va_start(ap, detail);
		(void)vsnprintf(text, sizeof(text), detail, ap);
		va_end(ap);
		trim_utf8(text);
	}
	reply_problem(req, kind, NULL, detail == NULL ? NULL : text);
}

void
web_reply_problem_errors(struct web_request *req, const struct web_problem *kind,
                         json_t *errors, const char *detail, ...)
{
	char text[DETAIL_MAX];
	va_list ap;

	if (detail != NULL) {
		va_start(ap, detail);
		(void)vsnprintf(text, sizeof(text), detail, ap);
		va_end(ap);
		trim_utf8(text);
	}
	reply_problem(req, kind, errors, detail == NULL ? NULL : text);
}

/* --- objects --------------------------------------------------------------- */

/* The daemon frees with one pointer: this keeps what the object's owner wants. */
struct object_hold {
	void (*free_data)(void *owner);
	void *owner;
};

static void
object_release(void *cls)
{
	struct object_hold *hold = cls;

	if (hold->free_data != NULL)
		hold->free_data(hold->owner);
	free(hold);
}

/*
 * True when list, the value of If-None-Match, names etag; "W/" doesn't matter
 * there (weak comparison, RFC 9110 13.1.2). Entity tags hold no quotes.
 */
static bool
etag_listed(struct slice list, const char *etag)
{
	const char *at = (const char *)list.data, *end;

	for (;;) {
		at += strspn(at, " \t,");
		if (*at == '*')
			return true;
		if (at[0] == 'W' && at[1] == '/')
			at += 2;
		end = *at == '"' ? strchr(at + 1, '"') : NULL;
		if (end == NULL)
			return false;
		end++;
		if (slice_eq_str(slice_mem(at, (size_t)(end - at)), etag))
			return true;
		at = end;
	}
}

bool
web_request_knows(struct web_request *req, const char *etag)
{
	struct slice match;

	return web_request_header(req, "If-None-Match", &match) && etag_listed(match, etag);
}

enum range_rc { RANGE_WHOLE, RANGE_PART, RANGE_OUTSIDE };

static bool
range_number(const char *from, const char *to, uint64_t *out)
{
	while (to - from > 1 && *from == '0')
		from++;
	return text_parse_u64(slice_mem(from, (size_t)(to - from)), UINT64_MAX, out);
}

/*
 * "bytes=a-b", "bytes=a-" or "bytes=-n"; anything else, several ranges too, is the whole (RFC
 * 9110 14.2).
 */
static enum range_rc
range_parse(struct slice value, size_t len, size_t *from, size_t *count)
{
	const char *text = (const char *)value.data, *dash;
	uint64_t first = 0, last = UINT64_MAX;

	if (strncasecmp(text, "bytes=", 6) != 0)
		return RANGE_WHOLE;
	text += 6;
	dash = strchr(text, '-');
	if (dash == NULL || (dash == text && dash[1] == '\0') ||
	    (dash != text && !range_number(text, dash, &first)) ||
	    (dash[1] != '\0' && !range_number(dash + 1, dash + strlen(dash), &last)))
		return RANGE_WHOLE;
	if (dash == text) { /* the last n octets */
		if (last == 0 || len == 0)
			return RANGE_OUTSIDE;
		first = last >= len ? 0 : len - last;
		last = len - 1;
	} else if (last < first) {
		return RANGE_WHOLE;
	}
	if (first >= len)
		return RANGE_OUTSIDE;
	*from = (size_t)first;
	*count = (size_t)((last >= len ? len - 1 : last) - first + 1);
	return RANGE_PART;
}

static enum range_rc
object_range(struct web_request *req, const struct web_object *o, size_t *from, size_t *count)
{
	struct slice range, condition;

	*from = 0;
	*count = o->len;
	if (web_request_method(req) != WEB_GET || req->method == WEB_HEAD ||
	    !web_request_header(req, "Range", &range))
		return RANGE_WHOLE;
	if (web_request_header(req, "If-Range", &condition) &&
	    (o->etag == NULL || !slice_eq_str(condition, o->etag)))
		return RANGE_WHOLE;
	return range_parse(range, o->len, from, count);
}

static void
object_drop(const struct web_object *o)
{
	if (o->free_data != NULL)
		o->free_data(o->owner);
}

static void
object_send(struct web_request *req, unsigned status, const struct web_object *o, size_t from,
            size_t count)
{
	struct object_hold *hold;
	struct MHD_Response *response = NULL;

	if (o->want != NULL) {
		response = download_response(req, o, from, count);
		if (response == NULL)
			object_drop(o);
		finish_with(req, status, o->content_type, response);
		return;
	}
	hold = malloc(sizeof(*hold));
	if (hold != NULL) {
		*hold = (struct object_hold){ o->free_data, o->owner };
		response = MHD_create_response_from_buffer_with_free_callback_cls(
		    count, count == 0 ? (void *)"" : (void *)(uintptr_t)(o->data + from),
		    object_release, hold);
	}
	if (response == NULL) {
		free(hold);
		object_drop(o);
	}
	finish_with(req, status, o->content_type, response);
}

void
web_reply_object(struct web_request *req, const struct web_object *o)
{
	char content_range[96];
	size_t from, count;
	enum range_rc range;

	bool same = o->etag != NULL && web_request_knows(req, o->etag);

	range = object_range(req, o, &from, &count);
	if (range == RANGE_OUTSIDE && !same) {
		(void)snprintf(content_range, sizeof(content_range), "bytes */%zu", o->len);
		web_reply_header(req, "Content-Range", content_range);
		object_drop(o);
		web_reply_problem(req, &web_range_not_satisfiable, NULL);
		return;
	}
	web_reply_header(req, "Cache-Control",
	                 o->cache_control == NULL ? "no-store" : o->cache_control);
	if (o->etag != NULL)
		web_reply_header(req, "ETag", o->etag);
	if (same) {
		object_drop(o);
		web_reply_empty(req, 304);
		return;
	}
	web_reply_header(req, "Accept-Ranges", "bytes");
	if (range == RANGE_PART) {
		(void)snprintf(content_range, sizeof(content_range), "bytes %zu-%zu/%zu", from,
		               from + count - 1, o->len);
		web_reply_header(req, "Content-Range", content_range);
	}
	object_send(req, range == RANGE_PART ? 206 : 200, o, from, count);
}
