/*
 * Uploading an attachment: POST /v1/attachments, the octets as they are. They go
 * into the store piece by piece, each committed before the next is read, and
 * the answer comes when all are. What the quota has, and that the site may, is
 * asked before any octet is read. An upload that ends early is dropped at once,
 * or by the upkeep when nobody is left to do it.
 */
#include "site/handlers.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/message.h"
#include "site/attached.h"
#include "site/auth.h"
#include "web/reply.h"
#include "web/upload.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

/* An upload that makes no progress for so long is forgotten; the web server cuts it before. */
#define IDLE_US (INT64_C(300) * 1000000)
#define DROP_PATIENCE_MS 60000
#define CONFLICTS_MAX 5
/* At once: of a site over all processes, and of all sites in this one (256 KiB each). */
#define SITE_UPLOADS_MAX 32
#define UPLOADS_MAX 256

METRIC_DEFINE(uploaded_total, METRIC_COUNTER, "tmtp_attachments_total", "result=\"uploaded\"",
              "Uploads of attachments by how they ended.");
METRIC_DEFINE(ended_total, METRIC_COUNTER, "tmtp_attachments_total", "result=\"ended-early\"",
              "Uploads of attachments by how they ended.");

static const struct web_problem quota_reached = {
	.type = "urn:tmtp:problem:attachment-quota",
	.title = "This site's attachments take all the room that they may.",
	.status = 507,
};

static const struct web_problem digest_mismatch = {
	.type = "urn:tmtp:problem:digest-mismatch",
	.title = "The octets are not those that Content-Digest names.",
	.status = 422,
};

/* Outlives the call: told of the request's end. */
struct upload {
	struct site *site;
	struct attachment_drop drop; /* first what is begun is dropped */
	bool begun, complete;
};

struct upload_call {
	struct call call; /* first */
	struct upload *upload;
	struct digest_run run;
	int64_t size;
	int parts, conflicts;
	bool last, has_claim;
	uint8_t claim[32];
	char type[ATTACHMENT_TYPE_MAX + 1];
	struct attachment_begin begin;
	struct attachment_part part;
	struct attachment_end end;
};

/* --- the end ------------------------------------------------------------------- */

static void
on_dropped(struct store_job *job)
{
	free(job->arg);
}

/* On any thread: answered, the client gone, or the server stopped. */
static void
upload_over(void *ctx)
{
	struct upload *u = ctx;

	atomic_fetch_sub(&u->site->uploads, 1);
	if (!u->begun || u->complete || atomic_load(&u->site->stopping)) {
		free(u);
		return;
	}
	metric_add(&ended_total, 1);
	u->drop.job =
	    (struct store_job){ .done = on_dropped, .arg = u, .patience_ms = DROP_PATIENCE_MS };
	store_attachment_drop(u->site->store, &u->drop);
}

/* --- the octets ------------------------------------------------------------------ */

static int64_t
unused_until(const struct upload_call *c)
{
	return clock_wall_us() +
	       (int64_t)c->call.site->config->site.attachment_unused_s * 1000000;
}

static void
on_ended(struct store_job *job)
{
	struct upload_call *c = job->arg;
	char digest[ATTACHED_DIGEST_TEXT], until[32];
	bool fresh = c->end.fresh;

	if (job->rc == STORE_CONFLICT && c->conflicts++ < CONFLICTS_MAX) {
		store_attachment_end(c->call.site->store, &c->end);
		return;
	}
	if (job->rc != STORE_OK) {
		site_reply_store(&c->call, job->rc == STORE_NOT_FOUND ? STORE_DOWN : job->rc);
		return;
	}
	c->upload->complete = true;
	metric_add(&uploaded_total, 1);
	attached_digest_text(c->end.digest, digest);
	clock_format_rfc3339(c->end.keep_until_us, until);
	log_info("attachment-uploaded", LOG_B("site", c->call.who.name),
	         LOG_I("octets", c->size));
	web_reply_json(c->call.req, fresh ? 201 : 200,
	               json_pack("{s:s, s:I, s:s, s:s}", "digest", digest, "size",
	                         (json_int_t)c->size, "type", c->end.type, "kept_until",
	                         until));
}

static void
end_upload(struct upload_call *c)
{
	if (c->size == 0) {
		web_reply_problem(c->call.req, &web_bad_request,
		                  "An attachment has at least one octet.");
		return;
	}
	c->end = (struct attachment_end){ .job = { .done = on_ended, .arg = c },
		                          .site_id = c->call.who.site_id,
		                          .attachment_id = c->begin.attachment_id,
		                          .size = c->size,
		                          .keep_until_us = unused_until(c) };
	digest_run_end(&c->run, c->end.digest);
	if (c->has_claim && memcmp(c->claim, c->end.digest, sizeof(c->claim)) != 0)
		web_reply_problem(c->call.req, &digest_mismatch, "Nothing was stored.");
	else
		store_attachment_end(c->call.site->store, &c->end);
}

static void
on_part(struct store_job *job)
{
	struct upload_call *c = job->arg;

	if (job->rc == STORE_NOT_FOUND || job->rc == STORE_REFUSED)
		site_reply_store(&c->call, STORE_DOWN); /* taken for given up */
	else if (job->rc != STORE_OK)
		site_reply_store(&c->call, job->rc);
	else if (c->last)
		end_upload(c);
	else
		web_upload_next(c->call.req);
}

static void
on_piece(struct web_request *req, struct slice piece, bool last, void *arg)
{
	struct upload_call *c = arg;

	(void)req;
	c->last = last;
	if (piece.len == 0) {
		end_upload(c);
		return;
	}
	digest_run_add(&c->run, piece);
	c->size += (int64_t)piece.len;
	c->part = (struct attachment_part){ .job = { .done = on_part, .arg = c },
		                            .site_id = c->call.who.site_id,
		                            .attachment_id = c->begin.attachment_id,
		                            .part_no = c->parts++,
		                            .data = piece,
		                            .keep_until_us = clock_wall_us() + IDLE_US };
	store_attachment_part(c->call.site->store, &c->part);
}

/* --- the beginning ----------------------------------------------------------------- */

static void
on_begun(struct store_job *job)
{
	struct upload_call *c = job->arg;

	if (job->rc != STORE_OK) {
		site_reply_store(&c->call, job->rc);
		return;
	}
	if (c->begin.busy) {
		web_reply_problem(c->call.req, &web_too_many_requests,
		                  "This site may upload %d attachments at once.",
		                  SITE_UPLOADS_MAX);
		return;
	}
	if (c->begin.full) {
		web_reply_problem(
		    c->call.req, &quota_reached,
		    "They may take %zu octets, of which fewer than %lld are left.",
		    c->call.site->config->site.attachment_quota_bytes,
		    (long long)c->begin.reserve);
		return;
	}
	c->upload->begun = true;
	web_upload_begin(c->call.req, ATTACHMENT_PART, on_piece, c);
}

/* "sha-256=:<base64>:" among others (RFC 9530). False: the request has been answered. */
static bool
read_claim(struct upload_call *c)
{
	static const char name[] = "sha-256=:";
	struct slice text;
	const char *at, *end;
	size_t n = 0;
	bool good;

	if (!web_request_header(c->call.req, "Content-Digest", &text) ||
	    (at = strstr((const char *)text.data, name)) == NULL)
		return true;
	at += sizeof(name) - 1;
	end = strchr(at, ':');
	good = end != NULL &&
	       sodium_base642bin(c->claim, sizeof(c->claim), at, (size_t)(end - at), NULL, &n,
	                         NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
	       n == sizeof(c->claim);
	c->has_claim = good;
	if (!good)
		web_reply_problem(c->call.req, &web_invalid_value,
		                  "Content-Digest has no SHA-256 where it says so.");
	return good;
}

/* False: the request has been answered. */
static bool
read_type(struct upload_call *c)
{
	struct slice type = SLICE("application/octet-stream");

	(void)web_request_header(c->call.req, "Content-Type", &type);
	if (type.len > ATTACHMENT_TYPE_MAX || !dmtp_media_type_valid(type)) {
		web_reply_problem(c->call.req, &web_invalid_value,
		                  "Content-Type is no media type of at most %d octets.",
		                  ATTACHMENT_TYPE_MAX);
		return false;
	}
	memcpy(c->type, type.data, type.len);
	c->type[type.len] = '\0';
	return true;
}

static void
upload_authorised(struct call *call)
{
	struct upload_call *c = (struct upload_call *)call;
	const struct config_site *config = &call->site->config->site;
	int64_t length = web_upload_length(call->req);
	int64_t now_us = clock_wall_us();

	if (!read_type(c) || !read_claim(c))
		return;
	c->upload = calloc(1, sizeof(*c->upload));
	if (c->upload == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	c->upload->site = call->site;
	web_request_set_ctx(call->req, c->upload, upload_over);
	if (atomic_fetch_add(&call->site->uploads, 1) >= UPLOADS_MAX) {
		web_reply_problem(call->req, &web_unavailable,
		                  "Too many attachments are being uploaded.");
		return;
	}
	digest_run_init(&c->run);
	c->begin = (struct attachment_begin){
		.job = { .done = on_begun, .arg = c },
		.site_id = call->who.site_id,
		.attachment_id = uuid_make(),
		.type = c->type,
		.reserve = length >= 0 ? length : (int64_t)config->attachment_max_bytes,
		.quota = (int64_t)config->attachment_quota_bytes,
		.at_once = SITE_UPLOADS_MAX,
		.now_us = now_us,
		.keep_until_us = now_us + IDLE_US,
	};
	c->upload->drop.site_id = call->who.site_id;
	c->upload->drop.attachment_id = c->begin.attachment_id;
	store_attachment_begin(call->site->store, &c->begin);
}

void
on_attachment_upload(struct web_request *req, void *arg)
{
	struct upload_call *c = site_begin(req, arg, sizeof(*c));

	if (c != NULL)
		site_auth(&c->call, SCOPE_PUSH, upload_authorised);
}
