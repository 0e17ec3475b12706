/*
 * Consent: see consents.h and API.md. An invitation is answered only while it
 * is asked or when the answer is the same again; a channel can be granted
 * unasked, which is how consent starts at the member's side.
 */
#include "home/consents.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "home/call.h"
#include "home/registrable.h"
#include "home/view.h"
#include "store/inboxes.h"
#include "web/body.h"
#include "web/reply.h"

#include <sodium.h>

#define ROWS_MAX 1000

/* Each change makes rows here and a command to somebody's server. */
static const struct guard_rule changes = { .kind = 'g', .burst = 100, .every_us = 2000000 };

/* --- what the path names ------------------------------------------------------------ */

struct consent_call {
	struct call call; /* first */
	struct dmtp_address sender;
	struct slice channel;
	struct consent_list list;
	struct consent_change change;
	bool receipts;
};

/* False: the request has been answered. */
static bool
path_sender(struct consent_call *c)
{
	c->channel = web_request_param(c->call.req, "channel");
	if (dmtp_address_normalise(web_request_param(c->call.req, "from"), &c->sender) !=
	    DMTP_ADDRESS_OK) {
		web_reply_problem(c->call.req, &web_invalid_value, "The sender is an address.");
		return false;
	}
	if (text_is_name(c->channel) && !slice_eq_str(c->channel, "invite"))
		return true;
	web_reply_problem(
	    c->call.req, &web_invalid_value,
	    "The channel is a name of 1 to 30 of a-z, 0-9 and hyphens, and not \"invite\".");
	return false;
}

static void
ask_list(struct consent_call *c, int state, bool one, call_step *then)
{
	call_await(&c->call, 1, then);
	call_job(&c->call, &c->list.job);
	c->list.account_id = c->call.who.account_id;
	c->list.state = state;
	c->list.limit = one ? 1 : ROWS_MAX;
	if (one) {
		c->list.sender = dmtp_address_slice(&c->sender);
		c->list.channel = c->channel;
	}
	store_consent_list(c->call.api->home->store, &c->list);
}

static void
begin(struct web_request *req, void *arg, call_step *then)
{
	struct consent_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, then);
}

/* --- lists ----------------------------------------------------------------------------- */

static json_t *
invitation_json(const struct consent_row *row)
{
	return json_pack("{s:s, s:s, s:o}", "from", row->sender, "channel", row->channel,
	                 "asked", view_time(row->changed_us));
}

static json_t *
channel_json(const struct consent_row *row)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:b}", "from", row->sender, "channel",
	                 row->channel, "state", consent_state_name(row->state), "since",
	                 view_time(row->changed_us), "receipts", row->receipts);
}

/* Invitations, or everything that was answered. */
static void
after_list(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;
	enum store_rc rc = c->list.job.rc;
	bool invitations = c->list.state == CONSENT_ASKED;
	json_t *answer = json_array();

	for (size_t i = 0; rc == STORE_OK && i < c->list.rows_n; i++) {
		const struct consent_row *row = &c->list.rows[i];

		if (invitations)
			(void)json_array_append_new(answer, invitation_json(row));
		else if (row->state != CONSENT_ASKED)
			(void)json_array_append_new(answer, channel_json(row));
	}
	consent_list_clear(&c->list);
	if (rc == STORE_OK) {
		web_reply_json(call->req, 200, answer);
	} else {
		json_decref(answer);
		call_reply_store(call, rc);
	}
}

static void
list_invitations(struct call *call)
{
	ask_list((struct consent_call *)call, CONSENT_ASKED, false, after_list);
}

void
on_invitation_list(struct web_request *req, void *arg)
{
	begin(req, arg, list_invitations);
}

/* ?state=granted, refused or revoked; all of these without it. */
static void
list_channels(struct call *call)
{
	struct slice text;
	int state = -1;

	if (web_request_query(call->req, "state", &text)) {
		for (int i = CONSENT_GRANTED; i <= CONSENT_REVOKED; i++)
			if (slice_eq_str(text, consent_state_name((enum consent_state)i)))
				state = i;
		if (state < 0) {
			web_reply_problem(call->req, &web_invalid_value,
			                  "state is granted, refused or revoked.");
			return;
		}
	}
	ask_list((struct consent_call *)call, state, false, after_list);
}

void
on_consent_list(struct web_request *req, void *arg)
{
	begin(req, arg, list_channels);
}

/* --- one invitation, with the sender's own words --------------------------------------------
 */

static void
after_invitation(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;
	enum store_rc rc = c->list.job.rc;
	json_t *answer = NULL;

	if (rc == STORE_OK && c->list.rows_n > 0) {
		const struct consent_row *row = &c->list.rows[0];

		answer = invitation_json(row);
		(void)json_object_set_new(answer, "words",
		                          row->body == NULL
		                              ? json_null()
		                              : view_words(slice_mem(row->body, row->size)));
	} else if (rc == STORE_OK) {
		rc = STORE_NOT_FOUND;
	}
	consent_list_clear(&c->list);
	if (rc == STORE_OK)
		web_reply_json(call->req, 200, answer);
	else
		call_reply_store(call, rc);
}

static void
get_invitation(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (path_sender(c))
		ask_list(c, CONSENT_ASKED, true, after_invitation);
}

void
on_invitation_get(struct web_request *req, void *arg)
{
	begin(req, arg, get_invitation);
}

/* --- changes
 * -------------------------------------------------------------------------------------- */

static void
after_change(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (c->change.job.rc == STORE_OK)
		web_reply_empty(call->req, 204);
	else
		call_reply_store(call, c->change.job.rc);
}

/* In the request's memory. */
static struct slice
registrable_of(struct call *call, struct slice domain)
{
	struct buffer out;
	uint8_t *copy;
	size_t len;

	buffer_init(&out, DMTP_DOMAIN_MAX);
	registrable_domain(domain, &out);
	len = out.len;
	copy = web_request_alloc(call->req, len + 1);
	if (copy != NULL && len > 0)
		memcpy(copy, out.data, len);
	buffer_free(&out);
	return copy == NULL ? domain : slice_mem(copy, len);
}

void
consent_change_fill(struct call *call, const struct dmtp_address *sender, struct slice channel,
                    enum consent_state state, struct consent_change *change)
{
	change->account_id = call->who.account_id;
	change->sender = dmtp_address_slice(sender);
	change->sender_domain = dmtp_address_domain(sender);
	change->registrable = registrable_of(call, change->sender_domain);
	change->channel = channel;
	change->state = state;
	randombytes_buf(change->grant_id, sizeof(change->grant_id));
	change->changed_id = uuid_make();
	change->sender_id = id_make();
	change->domain_id = id_make();
	change->now_us = clock_wall_us();
}

static void
change(struct consent_call *c, enum consent_state state)
{
	call_await(&c->call, 1, after_change);
	call_job(&c->call, &c->change.job);
	consent_change_fill(&c->call, &c->sender, c->channel, state, &c->change);
	c->change.receipts = c->receipts;
	store_consent_change(c->call.api->home->store, &c->change);
}

struct grant_body {
	bool receipts;
};

/* An optional body {"receipts": …}. False: the request has been answered. */
static bool
read_receipts(struct consent_call *c)
{
	static const struct web_field fields[] = {
		{ "receipts", WEB_BOOL, 0, offsetof(struct grant_body, receipts), .max = 0 },
	};
	struct grant_body body = { false };
	json_t *json;

	if (web_request_body(c->call.req).len == 0)
		return true;
	if (!web_body_read(c->call.req, fields, 1, &body, &json))
		return false;
	json_decref(json);
	c->receipts = body.receipts;
	return true;
}

bool
consent_may_change(struct call *call)
{
	return call_guard(call, &changes,
	                  slice_mem(&call->who.account_id, sizeof(call->who.account_id)));
}

static bool
may_change(struct consent_call *c)
{
	return consent_may_change(&c->call);
}

/* Was it asked, or answered so before? */
static void
answer(struct consent_call *c, enum consent_state state)
{
	enum store_rc rc = c->list.job.rc;
	bool open = rc == STORE_OK && c->list.rows_n > 0 &&
	            (c->list.rows[0].state == CONSENT_ASKED || c->list.rows[0].state == state);

	consent_list_clear(&c->list);
	if (open)
		change(c, state);
	else
		call_reply_store(&c->call, rc == STORE_OK ? STORE_NOT_FOUND : rc);
}

static void
accept_found(struct call *call)
{
	answer((struct consent_call *)call, CONSENT_GRANTED);
}

static void
refuse_found(struct call *call)
{
	answer((struct consent_call *)call, CONSENT_REFUSED);
}

static void
accept_invitation(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (path_sender(c) && read_receipts(c) && may_change(c))
		ask_list(c, -1, true, accept_found);
}

void
on_invitation_accept(struct web_request *req, void *arg)
{
	begin(req, arg, accept_invitation);
}

static void
refuse_invitation(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (path_sender(c) && may_change(c))
		ask_list(c, -1, true, refuse_found);
}

void
on_invitation_refuse(struct web_request *req, void *arg)
{
	begin(req, arg, refuse_invitation);
}

static void
grant(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (path_sender(c) && read_receipts(c) && may_change(c))
		change(c, CONSENT_GRANTED);
}

void
on_consent_grant(struct web_request *req, void *arg)
{
	begin(req, arg, grant);
}

static void
revoke(struct call *call)
{
	struct consent_call *c = (struct consent_call *)call;

	if (path_sender(c) && may_change(c))
		change(c, CONSENT_REVOKED);
}

void
on_consent_revoke(struct web_request *req, void *arg)
{
	begin(req, arg, revoke);
}
