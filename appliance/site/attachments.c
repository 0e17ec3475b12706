/*
 * Serving attachments: GET /m/a/:site/:attachment/:digest, without a token, since
 * the URI is the permission. Octets are read from the store as the client takes
 * them. Caches are told what they are told of messages (pickup.c).
 */
#include "site/handlers.h"

#include "dmtp/pickup.h"
#include "store/attachments.h"
#include "web/download.h"
#include "web/reply.h"

#include <stdlib.h>

/* Answers at once, each with a part in memory. */
#define DOWNLOADS_MAX 512

struct find_call {
	struct call call; /* first; speaks for nobody */
	struct dmtp_pickup pickup;
	struct attachment_find find;
};

/* What an answer reads from; lives as long as that. */
struct serving {
	struct site *site;
	int64_t site_id;
	struct uuid attachment_id;
};

struct reading {
	struct attachment_read read; /* first */
	struct web_download *download;
	size_t skip;
};

static void
on_read(struct store_job *job)
{
	struct reading *r = (struct reading *)job;
	uint8_t *data = r->read.data;

	if (job->rc != STORE_OK) {
		free(data);
		data = NULL;
	}
	web_download_give(r->download, data, r->read.len, r->skip);
	free(r);
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
	r->download = d;
	r->skip = (size_t)(at % ATTACHMENT_PART);
	r->read.job.done = on_read;
	r->read.site_id = s->site_id;
	r->read.attachment_id = s->attachment_id;
	r->read.part_no = (int)(at / ATTACHMENT_PART);
	store_attachment_read(s->site->store, &r->read);
}

static void
let_go(void *owner)
{
	struct serving *s = owner;

	atomic_fetch_sub(&s->site->downloads, 1);
	free(s);
}

static void
serve(struct find_call *c)
{
	struct serving *s = malloc(sizeof(*s));
	char etag[PICKUP_ETAG_TEXT];

	if (s == NULL) {
		web_reply_problem(c->call.req, &web_internal, NULL);
		return;
	}
	if (atomic_fetch_add(&c->call.site->downloads, 1) >= DOWNLOADS_MAX) {
		atomic_fetch_sub(&c->call.site->downloads, 1);
		free(s);
		web_reply_problem(c->call.req, &web_unavailable, NULL);
		return;
	}
	*s = (struct serving){ c->call.site, c->find.site_id, c->find.attachment_id };
	site_pickup_etag(c->find.digest, etag);
	web_reply_object(c->call.req, &(struct web_object){
					  .content_type = "application/octet-stream",
					  .cache_control = site_pickup_caching(c->find.shared),
					  .etag = etag,
					  .len = (size_t)c->find.size,
					  .want = want,
					  .free_data = let_go,
					  .owner = s,
				      });
}

static void
on_found(struct store_job *job)
{
	struct find_call *c = job->arg;

	if (job->rc != STORE_OK) {
		site_reply_store(&c->call, job->rc);
	} else if (c->find.recalled) {
		web_reply_header(c->call.req, "Cache-Control", SITE_PICKUP_GONE);
		web_reply_problem(c->call.req, &web_gone,
		                  "The sender has recalled every message with it.");
	} else {
		serve(c);
	}
}

void
on_attachment_get(struct web_request *req, void *arg)
{
	struct find_call *c = site_begin(req, arg, sizeof(*c));

	if (c == NULL)
		return;
	if (!dmtp_pickup_parse(web_request_param(req, "site"),
	                       web_request_param(req, "attachment"),
	                       web_request_param(req, "digest"), &c->pickup)) {
		web_reply_problem(req, &web_not_found, NULL);
		return;
	}
	c->find = (struct attachment_find){ .job = { .done = on_found, .arg = c },
		                            .site_id = c->pickup.site_id,
		                            .attachment_id = c->pickup.message_id };
	memcpy(c->find.digest, c->pickup.digest, sizeof(c->find.digest));
	store_attachment_find(c->call.site->store, &c->find);
}
