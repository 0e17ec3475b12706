/* Calls of administrators: see panel.h. */
#include "panel/panel.h"

#include "base/clock.h"
#include "web/problem.h"
#include "web/reply.h"
#include "web/token.h"

#include <string.h>

void *
panel_begin(struct web_request *req, void *panel, size_t size)
{
	struct call *call = web_request_alloc(req, size);

	if (call == NULL) {
		web_reply_problem(req, &web_internal, NULL);
		return NULL;
	}
	memset(call, 0, size);
	call->panel = panel;
	call->req = req;
	return call;
}

void
panel_reply_store(struct call *call, enum store_rc rc)
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
		                  "The database can't be reached; nothing was changed.");
		return;
	case STORE_COMMIT_UNKNOWN:
		web_reply_retry_after(call->req, 1);
		web_reply_problem(call->req, &web_unavailable,
		                  "The database was lost while it stored this; look at what is "
		                  "there before asking again.");
		return;
	case STORE_OK:
	case STORE_REFUSED:
		break;
	}
	web_reply_problem(call->req, &web_internal, NULL);
}

/* --- authorisation ------------------------------------------------------------- */

static bool
has_scope(const char *scopes, const char *wanted)
{
	size_t len = strlen(wanted);

	for (const char *p = scopes; *p != '\0'; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		if (n == len && memcmp(p, wanted, n) == 0)
			return true;
		p += n;
	}
	return false;
}

static void
refuse(struct call *call)
{
	web_reply_problem(call->req, &web_unauthorized,
	                  "Send an administrator's token (tmtpctl admin-token create) as "
	                  "\"Authorization: Bearer …\".");
}

static void
on_token(struct store_job *job)
{
	struct call *call = job->arg;

	if (job->rc == STORE_NOT_FOUND)
		refuse(call);
	else if (job->rc != STORE_OK)
		panel_reply_store(call, job->rc);
	else if (!has_scope(call->who.scopes, call->writes ? "write" : "read"))
		web_reply_problem(call->req, &web_forbidden, "This token may not %s.",
		                  call->writes ? "change anything" : "see this");
	else
		call->then(call);
}

void
panel_authorise(struct call *call, bool writes, call_step *then)
{
	struct slice token, kind;

	call->writes = writes;
	call->then = then;
	if (!web_request_bearer(call->req, &token) || !token_opaque_parse(token, &kind) ||
	    !slice_eq_str(kind, "admin")) {
		refuse(call);
		return;
	}
	token_digest(token, call->who.hash);
	call->who.now_us = clock_wall_us();
	call->who.job.done = on_token;
	call->who.job.arg = call;
	store_admin_token_get(call->panel->store, &call->who);
}

/* --- values ---------------------------------------------------------------------- */

json_t *
panel_time_json(int64_t wall_us)
{
	char text[32];

	if (wall_us < 0)
		return json_null();
	clock_format_rfc3339(wall_us, text);
	return json_string(text);
}
