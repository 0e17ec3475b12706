/*
 * Pickup: GET /m/:site/:message/:digest, without a token, since the digest is
 * the permission. What was accepted a moment ago is served from memory. It
 * stays there for two seconds at most, so a recall, whoever makes it, takes
 * effect within that time (and at once when it raises the revision).
 *
 * Caches in front share what went to several recipients. They ask again after a
 * minute, which costs no body, so that a recall gets through to whoever comes by
 * them; a recipient's home server may keep what it has as long as it likes.
 */
#include "site/handlers.h"

#include "base/clock.h"
#include "base/metric.h"
#include "dmtp/pickup.h"
#include "store/messages.h"
#include "web/reply.h"

#include <stdio.h>
#include <stdlib.h>

#define KEEP_MS 2000

METRIC_DEFINE(from_memory, METRIC_COUNTER, "tmtp_pickups_total", "source=\"memory\"",
              "Messages picked up, by where they came from.");
METRIC_DEFINE(from_store, METRIC_COUNTER, "tmtp_pickups_total", "source=\"store\"",
              "Messages picked up, by where they came from.");
METRIC_DEFINE(missed, METRIC_COUNTER, "tmtp_pickups_total", "source=\"none\"",
              "Messages picked up, by where they came from.");

METRIC_DEFINE(unchanged, METRIC_COUNTER, "tmtp_pickups_total", "source=\"unchanged\"",
              "Messages picked up, by where they came from.");

#define CACHE_SHARED "public, max-age=3600, s-maxage=60"
#define CACHE_PRIVATE "private, max-age=3600"
#define ETAG_TEXT PICKUP_ETAG_TEXT

struct kept_body {
	struct memo_item item;
	int64_t site_id;
	uint8_t digest[32];
	bool shared;
	uint8_t *data;
	size_t len;
};

struct pickup_call {
	struct call call; /* first; speaks for nobody */
	struct dmtp_pickup pickup;
	uint64_t generation;
	struct message_body body;
};

static void
kept_body_free(struct memo_item *item)
{
	struct kept_body *kept = (struct kept_body *)item;

	free(kept->data);
	free(kept);
}

/* Takes data. NULL: no memory; data has been freed. */
static struct kept_body *
kept_body_make(int64_t site_id, const uint8_t digest[static 32], bool shared, void *data,
               size_t len)
{
	struct kept_body *kept = malloc(sizeof(*kept));

	if (kept == NULL) {
		free(data);
		return NULL;
	}
	memo_item_init(&kept->item, kept_body_free);
	kept->site_id = site_id;
	memcpy(kept->digest, digest, sizeof(kept->digest));
	kept->shared = shared;
	kept->data = data;
	kept->len = len;
	return kept;
}

static void
body_put(struct site *site, const struct uuid *id, struct kept_body *kept, uint64_t generation)
{
	memo_put(site->bodies, slice_mem(id->octets, sizeof(id->octets)), &kept->item,
	         kept->len + sizeof(*kept), clock_mono_ms() + KEEP_MS, generation);
}

void
site_body_keep(struct site *site, int64_t site_id, const struct uuid *message_id,
               const uint8_t digest[static 32], bool shared, void *body, size_t len)
{
	struct kept_body *kept = kept_body_make(site_id, digest, shared, body, len);

	if (kept == NULL)
		return;
	body_put(site, message_id, kept, memo_generation(site->bodies));
	memo_item_unref(&kept->item);
}

/* Other messages are read again; what was asked of the store before is not kept. */
void
site_body_recalled(struct site *site, const struct uuid *message_id)
{
	(void)message_id;
	memo_clear(site->bodies);
}

/* --- answers -------------------------------------------------------------------- */

static void
kept_body_done(void *owner)
{
	memo_item_unref(owner);
}

void
site_pickup_etag(const uint8_t digest[static 32], char etag[static ETAG_TEXT])
{
	etag[0] = '"';
	base32_encode(digest, 32, etag + 1);
	memcpy(etag + ETAG_TEXT - 2, "\"", 2);
}

const char *
site_pickup_caching(bool shared)
{
	return shared ? CACHE_SHARED : CACHE_PRIVATE;
}

/* Takes a reference to kept. from: what counts it. */
static void
reply_body(struct web_request *req, struct kept_body *kept, struct metric *from)
{
	char etag[ETAG_TEXT];
	const struct web_object object = {
		.content_type = "application/octet-stream",
		.cache_control = site_pickup_caching(kept->shared),
		.etag = etag,
		.data = kept->data,
		.len = kept->len,
		.free_data = kept_body_done,
		.owner = &kept->item,
	};

	site_pickup_etag(kept->digest, etag);
	metric_add(web_request_knows(req, etag) ? &unchanged : from, 1);
	web_reply_object(req, &object);
}

/* Who has it already is told so, without its octets. */
static void
reply_unchanged(struct web_request *req, const struct pickup_call *p)
{
	char etag[ETAG_TEXT];

	site_pickup_etag(p->pickup.digest, etag);
	metric_add(&unchanged, 1);
	web_reply_object(req, &(struct web_object){
				  .cache_control = site_pickup_caching(p->body.shared),
				  .etag = etag,
				  .data = (const uint8_t *)"",
			      });
}

static void
reply_missing(struct web_request *req)
{
	metric_add(&missed, 1);
	web_reply_problem(req, &web_not_found, NULL);
}

static void
on_body(struct store_job *job)
{
	struct message_body *body = (struct message_body *)job;
	struct pickup_call *p = job->arg;
	struct kept_body *kept;

	if (job->rc == STORE_NOT_FOUND) {
		reply_missing(p->call.req);
		return;
	}
	if (job->rc != STORE_OK) {
		site_reply_store(&p->call, job->rc);
		return;
	}
	if (body->recalled) {
		message_body_clear(body);
		web_reply_header(p->call.req, "Cache-Control", SITE_PICKUP_GONE);
		web_reply_problem(p->call.req, &web_gone,
		                  "The sender has recalled this message.");
		return;
	}
	if (body->known) {
		reply_unchanged(p->call.req, p);
		return;
	}
	kept = kept_body_make(p->pickup.site_id, p->pickup.digest, body->shared, body->body,
	                      body->size);
	body->body = NULL; /* taken */
	if (kept == NULL) {
		web_reply_problem(p->call.req, &web_internal, NULL);
		return;
	}
	body_put(p->call.site, &p->pickup.message_id, kept, p->generation);
	reply_body(p->call.req, kept, &from_store);
}

void
on_pickup(struct web_request *req, void *arg)
{
	struct site *site = arg;
	struct pickup_call *p = site_begin(req, arg, sizeof(*p));
	struct kept_body *kept;
	char etag[ETAG_TEXT];

	if (p == NULL)
		return;
	if (!dmtp_pickup_parse(web_request_param(req, "site"),
	                       web_request_param(req, "message"),
	                       web_request_param(req, "digest"), &p->pickup)) {
		reply_missing(req);
		return;
	}
	kept = (struct kept_body *)memo_get(
	    site->bodies,
	    slice_mem(p->pickup.message_id.octets, sizeof(p->pickup.message_id.octets)),
	    clock_mono_ms(), &p->generation);
	if (kept != NULL && kept->site_id == p->pickup.site_id &&
	    token_equal(kept->digest, p->pickup.digest, sizeof(kept->digest))) {
		reply_body(req, kept, &from_memory);
		return;
	}
	if (kept != NULL) { /* ids are unique: the store would say the same */
		memo_item_unref(&kept->item);
		reply_missing(req);
		return;
	}
	p->body = (struct message_body){ .job = { .done = on_body, .arg = p },
		                         .site_id = p->pickup.site_id,
		                         .message_id = p->pickup.message_id };
	memcpy(p->body.digest, p->pickup.digest, sizeof(p->body.digest));
	site_pickup_etag(p->pickup.digest, etag);
	p->body.known = web_request_knows(req, etag);
	store_message_body(site->store, &p->body);
}
