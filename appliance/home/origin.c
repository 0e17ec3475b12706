/*
 * The origin of persons' messages: see origin.h. Without a token, since the
 * digest is the permission. `site` serves the same path for websites; here
 * it stands so that members can write where no website is.
 */
#include "home/origin.h"

#include "dmtp/pickup.h"
#include "home/call.h"
#include "store/messages.h"
#include "web/reply.h"

#include <stdlib.h>

struct origin_call {
	struct call call; /* first; speaks for nobody */
	struct dmtp_pickup pickup;
	struct message_body body;
};

static void
reply_body(struct origin_call *o)
{
	char etag[BASE32_LEN(32) + 3] = "\"";
	uint8_t *octets = o->body.body;
	size_t size = o->body.size;

	base32_encode(o->pickup.digest, sizeof(o->pickup.digest), etag + 1);
	etag[1 + BASE32_LEN(32)] = '"';
	o->body.body = NULL; /* the reply's */
	web_reply_object(o->call.req,
	                 &(struct web_object){ .content_type = "application/octet-stream",
	                                       .cache_control = "private, max-age=3600",
	                                       .etag = etag,
	                                       .data = octets,
	                                       .len = size,
	                                       .free_data = free,
	                                       .owner = octets });
}

static void
after_body(struct call *call)
{
	struct origin_call *o = (struct origin_call *)call;

	if (o->body.job.rc != STORE_OK) {
		call_reply_store(call, o->body.job.rc);
	} else if (o->body.recalled) {
		message_body_clear(&o->body);
		web_reply_problem(call->req, &web_gone,
		                  "The sender has recalled this message.");
	} else {
		reply_body(o);
	}
}

void
on_origin(struct web_request *req, void *arg)
{
	struct origin_call *o = call_begin(req, arg, sizeof(*o));

	if (o == NULL)
		return;
	if (!dmtp_pickup_parse(web_request_param(req, "site"),
	                       web_request_param(req, "message"),
	                       web_request_param(req, "digest"), &o->pickup)) {
		web_reply_problem(req, &web_not_found, NULL);
		return;
	}
	call_await(&o->call, 1, after_body);
	call_job(&o->call, &o->body.job);
	o->body.site_id = o->pickup.site_id;
	o->body.message_id = o->pickup.message_id;
	memcpy(o->body.digest, o->pickup.digest, sizeof(o->body.digest));
	store_message_body(o->call.api->home->store, &o->body);
}
