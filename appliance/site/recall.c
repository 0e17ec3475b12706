/* Taking a message back: DELETE /v1/messages/:id. What is told to the home servers is the relay's work. */
#include "site/handlers.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "site/auth.h"
#include "store/recalls.h"
#include "web/reply.h"

METRIC_DEFINE(recalled_total, METRIC_COUNTER, "tmtp_messages_recalled_total", NULL,
              "Messages that sites recalled.");

struct recall_call {
	struct call call; /* first */
	struct message_recall recall;
};

static void
on_recalled(struct store_job *job)
{
	struct recall_call *r = job->arg;
	char id[UUID_TEXT];

	if (job->rc != STORE_OK) {
		site_reply_store(&r->call, job->rc);
		return;
	}
	site_body_recalled(r->call.site, &r->recall.message_id);
	if (r->recall.changed) {
		uuid_format(&r->recall.message_id, id);
		log_info("message-recalled", LOG_B("site", r->call.who.name),
		         LOG_S("message", id));
		metric_add(&recalled_total, 1);
	}
	web_reply_empty(r->call.req, 204);
}

static void
recall_message(struct call *call)
{
	struct recall_call *r = (struct recall_call *)call;

	if (!uuid_parse(web_request_param(call->req, "id"), &r->recall.message_id)) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	r->recall.job.done = on_recalled;
	r->recall.job.arg = r;
	r->recall.site_id = call->who.site_id;
	r->recall.recall_id = uuid_make();
	r->recall.now_us = clock_wall_us();
	store_message_recall(call->site->store, &r->recall);
}

void
on_message_recall(struct web_request *req, void *arg)
{
	struct recall_call *r = site_begin(req, arg, sizeof(*r));

	if (r != NULL)
		site_auth(&r->call, SCOPE_PUSH, recall_message);
}
