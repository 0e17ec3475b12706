/* What a member says of her own presence: see presence.h and API.md. */
#include "home/presence.h"

#include "base/clock.h"
#include "home/call.h"
#include "store/presence.h"
#include "web/body.h"
#include "web/reply.h"

struct own_call {
	struct call call; /* first */
	struct presence_own own;
};

static void
after_own(struct call *call)
{
	struct own_call *c = (struct own_call *)call;

	if (c->own.job.rc == STORE_OK)
		web_reply_json(call->req, 200,
		               json_pack("{s:s}", "state", presence_state_name(c->own.state)));
	else
		call_reply_store(call, c->own.job.rc);
}

static void
ask(struct own_call *c)
{
	call_await(&c->call, 1, after_own);
	call_job(&c->call, &c->own.job);
	c->own.account_id = c->call.who.account_id;
	c->own.now_us = clock_wall_us();
	store_presence_own(c->call.api->home->store, &c->own);
}

static void
get_own(struct call *call)
{
	ask((struct own_call *)call);
}

void
on_presence_get(struct web_request *req, void *arg)
{
	struct own_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, get_own);
}

static bool
is_own_state(struct slice s)
{
	return slice_eq_str(s, "online") || slice_eq_str(s, "away");
}

static void
put_own(struct call *call)
{
	static const struct web_field fields[] = {
		{ "state", WEB_STRING, WEB_REQUIRED, 0, .check = is_own_state,
		  .expected = "\"online\" or \"away\"" },
	};
	static const struct guard_rule rule = { .kind = 'p', .burst = 30, .every_us = 5000000 };
	struct own_call *c = (struct own_call *)call;
	struct slice state = { NULL, 0 };
	json_t *json;

	if (!call_guard(call, &rule,
	                slice_mem(&call->who.account_id, sizeof(call->who.account_id))) ||
	    !web_body_read(call->req, fields, 1, &state, &json))
		return;
	c->own.what = slice_eq_str(state, "away") ? PRESENCE_SAY_AWAY : PRESENCE_SAY_BACK;
	json_decref(json);
	ask(c);
}

void
on_presence_put(struct web_request *req, void *arg)
{
	struct own_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, put_own);
}
