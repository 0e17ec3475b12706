/*
 * A channel's members: registering (which invites them), listing, looking one
 * up, taking one off. An invitation is a message like any other, made here for
 * each address; whether it goes out is the store's to decide.
 */
#include "site/handlers.h"

#include "base/clock.h"
#include "base/text.h"
#include "dmtp/address.h"
#include "site/auth.h"
#include "site/plan.h"
#include "store/members.h"
#include "store/sites.h"
#include "web/reply.h"

#include <sodium.h>
#include <stdlib.h>

#define ADDRESSES_MAX 1000

/* --- registering -------------------------------------------------------------- */

struct add_body {
	struct slice address, text;
	const json_t *addresses;
};

/* One address on its way. */
struct add_one {
	struct member_invite invite;
	struct dmtp_address address;
	struct plan plan;
};

struct add_call {
	struct call call; /* first */
	struct work work;
	struct channel_list channel;
	json_t *json; /* the body; text borrows from it */
	struct slice text;
	struct add_one *one; /* owned */
	size_t n;
	size_t waiting;   /* counted on the store's thread alone */
	enum store_rc rc; /* the worst so far */
};

static const struct web_field add_fields[] = {
	{ "address", WEB_STRING, 0, offsetof(struct add_body, address), .min = 1,
	  .max = 2L * DMTP_ADDRESS_MAX },
	{ "addresses", WEB_ARRAY, 0, offsetof(struct add_body, addresses), .min = 1,
	  .max = ADDRESSES_MAX },
	{ "text", WEB_STRING, 0, offsetof(struct add_body, text),
	  .check = site_plan_words_valid,
	  .expected = "1 to 140 characters in one line, without links or addresses" },
};

static void
add_free(void *arg)
{
	struct add_call *a = arg;

	for (size_t i = 0; i < a->n; i++)
		site_plan_free(&a->one[i].plan);
	free(a->one);
	channel_list_clear(&a->channel);
	json_decref(a->json);
}

static json_t *
added_json(const struct add_call *a)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < a->n; i++) {
		const struct member_invite *in = &a->one[i].invite;

		(void)json_array_append_new(
		    rows, json_pack("{s:s, s:s, s:b, s:s*}", "address", a->one[i].address.text,
		                    "state", member_state_name(in->state), "invited",
		                    (int)in->invited, "held_by",
		                    in->held_by[0] == '\0' ? NULL : in->held_by));
	}
	return json_pack("{s:o}", "members", rows);
}

static void
on_added(struct store_job *job)
{
	struct add_call *a = job->arg;

	if (job->rc != STORE_OK)
		a->rc = job->rc;
	if (--a->waiting > 0)
		return;
	if (a->rc == STORE_OK)
		web_reply_json(a->call.req, 202, added_json(a));
	else
		site_reply_store(&a->call, a->rc);
}

static enum plan_rc
add_plan(struct add_call *a, const struct channel_row *row, struct add_one *one, int64_t now_us)
{
	struct plan_origin origin = {
		.site = a->call.who.name,
		.domain = a->call.who.domain,
		.channel = slice_str(row->name),
		.date_s = now_us / 1000000,
		.message_max_bytes = a->call.site->config->site.message_max_bytes,
	};
	enum plan_rc rc;

	randombytes_buf(origin.salt, sizeof(origin.salt));
	rc = site_plan_invitation(&origin, dmtp_address_slice(&one->address),
	                          slice_str(row->title[0] == '\0' ? row->name : row->title),
	                          a->text, &one->plan);
	one->invite = (struct member_invite){
		.job = { .done = on_added, .arg = a },
		.site_id = a->call.who.site_id,
		.channel_id = row->channel_id,
		.domain = dmtp_address_domain(&one->address),
		.member = dmtp_address_local(&one->address),
		.message_id = uuid_make(),
		.accepted_us = now_us,
		.date_s = origin.date_s,
		.body = buffer_slice(&one->plan.message),
		.digest = one->plan.digest,
	};
	return rc;
}

/*
 * On the thread aside, since a thousand messages are made here. Once the last
 * job is submitted the call may be gone.
 */
static void
add_submit(struct work *work)
{
	struct add_call *a =
	    (struct add_call *)(void *)((char *)work - offsetof(struct add_call, work));
	const struct channel_row *row = a->channel.rows;
	struct store *store = a->call.site->store;
	struct add_one *one = a->one;
	enum store_rc rc = STORE_OK;
	int64_t now_us = clock_wall_us();
	size_t n = a->n;

	if (atomic_load(&a->call.site->stopping))
		rc = STORE_DOWN;
	for (size_t i = 0; rc == STORE_OK && i < n; i++)
		if (add_plan(a, row, &one[i], now_us) != PLAN_OK)
			rc = STORE_REFUSED;
	if (rc != STORE_OK) {
		site_reply_store(&a->call, rc);
		return;
	}
	a->waiting = n;
	for (size_t i = 0; i < n; i++)
		store_member_invite(store, &one[i].invite);
}

static void
on_add_channel(struct store_job *job)
{
	struct add_call *a = job->arg;
	enum store_rc rc = job->rc;

	if (rc == STORE_OK && (a->channel.rows_n != 1 || a->channel.rows[0].closed_us >= 0))
		rc = STORE_NOT_FOUND;
	if (rc != STORE_OK) {
		site_reply_store(&a->call, rc);
		return;
	}
	a->work.run = add_submit;
	aside_post(a->call.site->aside, &a->work);
}

static void
add_address(struct add_call *a, struct slice text, const char *pointer,
            struct web_errors *errors)
{
	struct add_one *one = &a->one[a->n];

	if (dmtp_address_normalise(text, &one->address) != DMTP_ADDRESS_OK) {
		web_errors_add(errors, &web_invalid_value, pointer,
		               "must be a member's address, local@domain");
		return;
	}
	for (size_t i = 0; i < a->n; i++)
		if (dmtp_address_eq(&a->one[i].address, &one->address))
			return;
	a->n++;
}

static void
add_list(struct add_call *a, const json_t *addresses, struct web_errors *errors)
{
	char pointer[48];

	for (size_t i = 0; i < json_array_size(addresses); i++) {
		const json_t *item = json_array_get(addresses, i);

		(void)snprintf(pointer, sizeof(pointer), "/addresses/%zu", i);
		if (!json_is_string(item))
			web_errors_add(errors, &web_invalid_value, pointer, "must be a string");
		else
			add_address(
			    a, slice_mem(json_string_value(item), json_string_length(item)),
			    pointer, errors);
	}
}

/* False: errors says what is wrong, or it is empty for want of memory. */
static bool
add_read(struct add_call *a, struct web_errors *errors)
{
	struct add_body body = { .addresses = NULL };
	size_t n;

	if (!web_fields_read(a->json, "", add_fields,
	                     sizeof(add_fields) / sizeof(add_fields[0]), &body, errors))
		return false;
	if ((body.address.len > 0) == (body.addresses != NULL)) {
		web_errors_add(errors, &web_missing_field, "/address",
		               "or \"addresses\" must be there, one of them");
		return false;
	}
	a->text = body.text;
	n = body.addresses != NULL ? json_array_size(body.addresses) : 1;
	a->one = calloc(n, sizeof(*a->one));
	if (a->one == NULL)
		return false;
	if (body.addresses != NULL)
		add_list(a, body.addresses, errors);
	else
		add_address(a, body.address, "/address", errors);
	return errors->count == 0;
}

static void
add_members(struct call *call)
{
	struct add_call *a = (struct add_call *)call;
	struct web_errors errors = { .count = 0 };
	struct slice name = web_request_param(call->req, "channel");
	char error[160];

	web_request_set_ctx(call->req, a, add_free);
	if (!text_is_name(name)) {
		web_reply_problem(call->req, &web_not_found, "There is no such channel.");
	} else if (web_json_parse(web_request_body(call->req), &a->json, error) !=
	           WEB_BODY_OK) {
		web_reply_problem(call->req, &web_malformed_json, "%s", error);
	} else if (!add_read(a, &errors)) {
		web_reply_errors(call->req, &errors);
	} else {
		a->channel = (struct channel_list){ .job = { .done = on_add_channel, .arg = a },
			                            .site_id = call->who.site_id,
			                            .name = name };
		store_channel_list(call->site->store, &a->channel);
	}
}

void
on_member_add(struct web_request *req, void *arg)
{
	struct add_call *a = site_begin(req, arg, sizeof(*a));

	if (a != NULL)
		site_auth(&a->call, SCOPE_MEMBERS, add_members);
}

/* --- listing ----------------------------------------------------------------------- */

struct members_call {
	struct channel_call channel; /* first */
	struct member_list list;
	struct dmtp_address address; /* after this one, or this one */
	unsigned limit;
};

static json_t *
member_json(const struct member_row *row)
{
	json_t *o = json_pack("{s:s, s:s, s:b}", "address", row->address, "state",
	                      member_state_name(row->state), "receipts", (int)row->receipts);

	if (row->invited_us >= 0)
		(void)json_object_set_new(o, "invited", site_time_json(row->invited_us));
	if (row->joined_us >= 0)
		(void)json_object_set_new(o, "joined", site_time_json(row->joined_us));
	if (row->left_us >= 0)
		(void)json_object_set_new(o, "left", site_time_json(row->left_us));
	return o;
}

static json_t *
members_json(struct members_call *m)
{
	json_t *rows = json_array();
	json_t *answer = json_pack("{s:o}", "members", rows);
	size_t n = m->list.rows_n < m->limit ? m->list.rows_n : m->limit;
	struct buffer url;

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, member_json(&m->list.rows[i]));
	if (m->list.rows_n > n) {
		site_url_begin(&url, &m->channel.call);
		buffer_add_fmt(&url, "/v1/channels/%.*s/members?limit=%u",
		               (int)m->channel.name.len, (const char *)m->channel.name.data,
		               m->limit);
		if (m->list.state >= 0)
			site_url_add(
			    &url, "state",
			    slice_str(member_state_name((enum member_state)m->list.state)));
		site_url_add(&url, "after", slice_str(m->list.rows[n - 1].address));
		site_next_json(answer, &url);
	}
	return answer;
}

static void
on_members(struct store_job *job)
{
	struct members_call *m = job->arg;
	enum store_rc rc = job->rc;
	json_t *answer = rc == STORE_OK ? members_json(m) : NULL;

	member_list_clear(&m->list);
	if (rc == STORE_OK)
		web_reply_json(m->channel.call.req, 200, answer);
	else
		site_reply_store(&m->channel.call, rc);
}

/* With m's address, list, limit and done set. */
static void
ask_members(struct channel_call *channel)
{
	struct members_call *m = (struct members_call *)channel;

	m->list.job.arg = m;
	m->list.site_id = channel->call.who.site_id;
	m->list.channel_id = channel->channel_id;
	if (m->address.len > 0) {
		m->list.domain = dmtp_address_domain(&m->address);
		m->list.member = dmtp_address_local(&m->address);
	}
	store_member_list(channel->call.site->store, &m->list);
}

static bool
state_parse(struct slice text, int *state)
{
	for (int i = MEMBER_INVITED; i <= MEMBER_REMOVED; i++) {
		if (slice_eq_str(text, member_state_name((enum member_state)i))) {
			*state = i;
			return true;
		}
	}
	return false;
}

static void
list_members(struct call *call)
{
	struct members_call *m = (struct members_call *)call;
	struct slice state;

	m->list.state = -1;
	m->list.job.done = on_members;
	if (!site_limit(call, &m->limit) || !site_after(call, &m->address))
		return;
	m->list.limit = m->limit + 1; /* one more tells whether there is a next page */
	if (web_request_query(call->req, "state", &state) &&
	    !state_parse(state, &m->list.state)) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "state is invited, granted, refused, revoked or removed.");
		return;
	}
	site_channel_find(&m->channel, ask_members);
}

void
on_member_list(struct web_request *req, void *arg)
{
	struct members_call *m = site_begin(req, arg, sizeof(*m));

	if (m != NULL)
		site_auth(&m->channel.call, SCOPE_MEMBERS | SCOPE_READ, list_members);
}

/* --- one ------------------------------------------------------------------------------ */

static void
on_member(struct store_job *job)
{
	struct members_call *m = job->arg;
	enum store_rc rc = job->rc;
	json_t *row = NULL;

	if (rc == STORE_OK && m->list.rows_n == 1)
		row = member_json(&m->list.rows[0]);
	else if (rc == STORE_OK)
		rc = STORE_NOT_FOUND;
	member_list_clear(&m->list);
	if (rc == STORE_OK)
		web_reply_json(m->channel.call.req, 200, row);
	else
		site_reply_store(&m->channel.call, rc);
}

/* The address that the path names. False: the request has been answered. */
static bool
path_address(struct call *call, struct dmtp_address *out)
{
	if (dmtp_address_normalise(web_request_param(call->req, "address"), out) ==
	    DMTP_ADDRESS_OK)
		return true;
	web_reply_problem(call->req, &web_not_found, "There is no such member.");
	return false;
}

static void
get_member(struct call *call)
{
	struct members_call *m = (struct members_call *)call;

	if (!path_address(call, &m->address))
		return;
	m->list.state = -1;
	m->list.exact = true;
	m->list.limit = 1;
	m->list.job.done = on_member;
	site_channel_find(&m->channel, ask_members);
}

void
on_member_get(struct web_request *req, void *arg)
{
	struct members_call *m = site_begin(req, arg, sizeof(*m));

	if (m != NULL)
		site_auth(&m->channel.call, SCOPE_MEMBERS | SCOPE_READ, get_member);
}

/* --- taking off -------------------------------------------------------------------------- */

struct remove_call {
	struct channel_call channel; /* first */
	struct member_remove remove;
	struct dmtp_address address;
};

static void
on_removed(struct store_job *job)
{
	struct remove_call *r = job->arg;

	if (job->rc == STORE_OK)
		web_reply_empty(r->channel.call.req, 204);
	else
		site_reply_store(&r->channel.call, job->rc);
}

static void
ask_remove(struct channel_call *channel)
{
	struct remove_call *r = (struct remove_call *)channel;

	r->remove = (struct member_remove){
		.job = { .done = on_removed, .arg = r },
		.site_id = channel->call.who.site_id,
		.channel_id = channel->channel_id,
		.domain = dmtp_address_domain(&r->address),
		.member = dmtp_address_local(&r->address),
		.now_us = clock_wall_us(),
	};
	store_member_remove(channel->call.site->store, &r->remove);
}

static void
remove_member(struct call *call)
{
	struct remove_call *r = (struct remove_call *)call;

	if (path_address(call, &r->address))
		site_channel_find(&r->channel, ask_remove);
}

void
on_member_remove(struct web_request *req, void *arg)
{
	struct remove_call *r = site_begin(req, arg, sizeof(*r));

	if (r != NULL)
		site_auth(&r->channel.call, SCOPE_MEMBERS, remove_member);
}
