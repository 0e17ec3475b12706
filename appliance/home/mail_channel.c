/* The channel smtp as its member sees it: see mail_channel.h and API.md. */
#include "home/mail_channel.h"

#include "base/clock.h"
#include "home/call.h"
#include "home/view.h"
#include "store/mails.h"
#include "web/reply.h"

static const struct guard_rule changes = { .kind = 'm', .burst = 100, .every_us = 2000000 };

static bool
may_change(struct call *call)
{
	return call_guard(call, &changes,
	                  slice_mem(&call->who.account_id, sizeof(call->who.account_id)));
}

/* --- looking ------------------------------------------------------------------------ */

struct get_call {
	struct call call; /* first */
	struct mail_channel_get get;
};

static json_t *
channel_json(const struct mail_channel_get *g)
{
	json_t *blocked = json_array();

	for (size_t i = 0; i < g->rows_n; i++)
		(void)json_array_append_new(
		    blocked, json_pack("{s:s, s:o}", "address", g->rows[i].address, "since",
		                       view_time(g->rows[i].blocked_us)));
	return json_pack("{s:b, s:o, s:o}", "open", g->open, "since", view_time(g->changed_us),
	                 "blocked", blocked);
}

static void
after_get(struct call *call)
{
	struct get_call *c = (struct get_call *)call;
	enum store_rc rc = c->get.job.rc;
	json_t *answer = rc == STORE_OK ? channel_json(&c->get) : NULL;

	mail_channel_get_clear(&c->get);
	if (rc == STORE_OK)
		web_reply_json(call->req, 200, answer);
	else
		call_reply_store(call, rc);
}

static void
get_channel(struct call *call)
{
	struct get_call *c = (struct get_call *)call;

	call_await(call, 1, after_get);
	call_job(call, &c->get.job);
	c->get.account_id = call->who.account_id;
	store_mail_channel_get(call->api->home->store, &c->get);
}

void
on_mail_channel_get(struct web_request *req, void *arg)
{
	struct get_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, get_channel);
}

/* --- opening and closing ---------------------------------------------------------------- */

struct set_call {
	struct call call; /* first */
	struct mail_channel_set set;
};

static void
after_set(struct call *call)
{
	struct set_call *c = (struct set_call *)call;

	if (c->set.job.rc == STORE_OK)
		web_reply_empty(call->req, 204);
	else
		call_reply_store(call, c->set.job.rc);
}

static void
set_channel(struct call *call)
{
	struct set_call *c = (struct set_call *)call;

	if (!may_change(call))
		return;
	call_await(call, 1, after_set);
	call_job(call, &c->set.job);
	c->set.account_id = call->who.account_id;
	c->set.now_us = clock_wall_us();
	store_mail_channel_set(call->api->home->store, &c->set);
}

static void
begin_set(struct web_request *req, void *arg, bool open)
{
	struct set_call *c = call_begin(req, arg, sizeof(*c));

	if (c == NULL)
		return;
	c->set.open = open;
	call_auth(&c->call, set_channel);
}

void
on_mail_channel_open(struct web_request *req, void *arg)
{
	begin_set(req, arg, true);
}

void
on_mail_channel_close(struct web_request *req, void *arg)
{
	begin_set(req, arg, false);
}

/* --- blocking ------------------------------------------------------------------------------- */

struct block_call {
	struct call call; /* first */
	struct dmtp_address address;
	struct mail_block_set set;
};

static void
after_block(struct call *call)
{
	struct block_call *c = (struct block_call *)call;

	if (c->set.job.rc == STORE_OK)
		web_reply_empty(call->req, 204);
	else if (c->set.job.rc == STORE_CONFLICT)
		web_reply_problem(call->req, &web_conflict,
		                  "A member can block at most %d addresses.", MAIL_BLOCKS_MAX);
	else
		call_reply_store(call, c->set.job.rc);
}

static void
set_block(struct call *call)
{
	struct block_call *c = (struct block_call *)call;

	if (dmtp_address_normalise(web_request_param(call->req, "address"), &c->address) !=
	    DMTP_ADDRESS_OK) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "What is blocked is an address.");
		return;
	}
	if (!may_change(call))
		return;
	call_await(call, 1, after_block);
	call_job(call, &c->set.job);
	c->set.account_id = call->who.account_id;
	c->set.address = dmtp_address_slice(&c->address);
	c->set.now_us = clock_wall_us();
	store_mail_block_set(call->api->home->store, &c->set);
}

static void
begin_block(struct web_request *req, void *arg, bool block)
{
	struct block_call *c = call_begin(req, arg, sizeof(*c));

	if (c == NULL)
		return;
	c->set.block = block;
	call_auth(&c->call, set_block);
}

void
on_mail_block(struct web_request *req, void *arg)
{
	begin_block(req, arg, true);
}

void
on_mail_unblock(struct web_request *req, void *arg)
{
	begin_block(req, arg, false);
}
