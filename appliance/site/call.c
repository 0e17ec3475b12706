/* What all handlers share: see call.h. */
#include "site/call.h"

#include "base/clock.h"
#include "web/reply.h"
#include "web/request.h"

#define URL_MAX 4096

void *
site_begin(struct web_request *req, void *site, size_t size)
{
	struct call *call = web_request_alloc(req, size);

	if (call == NULL) {
		web_reply_problem(req, &web_internal, NULL);
		return NULL;
	}
	memset(call, 0, size);
	call->site = site;
	call->req = req;
	return call;
}

void *
site_job(struct call *call, size_t size, void (*done)(struct store_job *job))
{
	struct store_job *job = web_request_alloc(call->req, size);

	if (job == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return NULL;
	}
	memset(job, 0, size);
	job->done = done;
	job->arg = call;
	return job;
}

void
site_reply_store(struct call *call, enum store_rc rc)
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
		                  "The database can't be reached; nothing was stored.");
		return;
	case STORE_COMMIT_UNKNOWN:
		web_reply_retry_after(call->req, 1);
		web_reply_problem(call->req, &web_unavailable,
		                  "The database was lost while storing; ask again with the "
		                  "same Idempotency-Key.");
		return;
	case STORE_OK:
	case STORE_REFUSED:
		break;
	}
	web_reply_problem(call->req, &web_internal, NULL);
}

bool
site_limit(struct call *call, unsigned *limit)
{
	uint64_t n = 100;

	if (web_request_query_u64(call->req, "limit", 1000, &n) == WEB_QUERY_BAD || n == 0) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "limit is a number from 1 to 1000.");
		return false;
	}
	*limit = (unsigned)n;
	return true;
}

bool
site_after(struct call *call, struct dmtp_address *after)
{
	struct slice text;

	after->len = after->local_len = 0;
	if (!web_request_query(call->req, "after", &text) ||
	    dmtp_address_normalise(text, after) == DMTP_ADDRESS_OK)
		return true;
	web_reply_problem(call->req, &web_invalid_value,
	                  "after is an address of the page before.");
	return false;
}

json_t *
site_time_json(int64_t wall_us)
{
	char text[32];

	clock_format_rfc3339(wall_us, text);
	return json_string(text);
}

/* --- URLs ------------------------------------------------------------------------- */

struct slice
site_base(const struct call *call)
{
	return slice_str(call->site->config->site.http.url);
}

void
site_url_begin(struct buffer *url, const struct call *call)
{
	buffer_init(url, URL_MAX);
	buffer_add_slice(url, site_base(call));
}

void
site_next_json(json_t *answer, struct buffer *url)
{
	if (!url->failed)
		(void)json_object_set_new(answer, "next",
		                          json_stringn((const char *)url->data, url->len));
	buffer_free(url);
}

static bool
is_unreserved(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

void
site_url_add(struct buffer *url, const char *name, struct slice value)
{
	bool first = memchr(url->data, '?', url->len) == NULL;

	buffer_add_fmt(url, "%c%s=", first ? '?' : '&', name);
	for (size_t i = 0; i < value.len; i++) {
		if (is_unreserved(value.data[i]))
			buffer_add_u8(url, value.data[i]);
		else
			buffer_add_fmt(url, "%%%02X", value.data[i]);
	}
}
