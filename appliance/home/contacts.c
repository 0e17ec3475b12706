/*
 * Contacts: see contacts.h and API.md. Each change first looks at how things
 * stand with that person, then changes, then answers with how they stand now.
 */
#include "home/contacts.h"

#include "base/clock.h"
#include "base/id.h"
#include "home/compose.h"
#include "home/consents.h"
#include "home/presence.h"
#include "home/view.h"
#include "store/presence.h"
#include "web/body.h"
#include "web/reply.h"

#include <sodium.h>
#include <stdlib.h>

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000
#define URL_MAX 2048
#define DAY_US ((int64_t)86400 * 1000000)

const struct web_problem contact_problem = {
	.type = "urn:tmtp:problem:not-a-contact",
	.title = "It isn't so with this person.",
	.status = 409,
};

static const struct web_problem refused_problem = {
	.type = "urn:tmtp:problem:contact-refused",
	.title = "This person said no.",
	.status = 409,
};

struct contact_call {
	struct call call; /* first */
	struct dmtp_address person;
	struct contact_list list;
	struct consent_change change;
	struct member_invite invite;
	struct contact_mute mute;
	struct letter letter;
	struct slice words; /* borrows from json */
	json_t *json;
	unsigned status; /* of the answer with the contact */
	enum consent_state answer;
	bool blocked, invites, changes;
	int patch_muted, patch_presence; /* -1: not in the body */
	unsigned limit;
};

static void
contact_call_free(void *arg)
{
	struct contact_call *c = arg;

	contact_list_clear(&c->list);
	letter_free(&c->letter);
	json_decref(c->json);
}

static void
begin(struct web_request *req, void *arg, call_step *then)
{
	struct contact_call *c = call_begin(req, arg, sizeof(*c));

	if (c != NULL)
		call_auth(&c->call, then);
}

/* What the call owns ends with the request. After the authorisation, which uses the place itself. */
static struct contact_call *
own(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	web_request_set_ctx(call->req, c, contact_call_free);
	return c;
}

bool
contact_path(struct call *call, struct dmtp_address *out)
{
	if (dmtp_address_normalise(web_request_param(call->req, "address"), out) ==
	    DMTP_ADDRESS_OK)
		return true;
	web_reply_problem(call->req, &web_invalid_value, "A contact is named by its address.");
	return false;
}

const char *
contact_cannot_write(const struct contact_row *row)
{
	switch (contact_state_of(row)) {
	case CONTACT_BOTH:
		return NULL;
	case CONTACT_INVITED:
		return "This person has not accepted your invitation yet.";
	case CONTACT_ASKED:
		return "This person asks to be your contact: accept, then you can write.";
	case CONTACT_OPEN:
		return "This person's server has not said yet that you may write.";
	case CONTACT_REFUSED:
		return "This person said no; only they can change that.";
	case CONTACT_BLOCKED:
		return "You have blocked this person.";
	case CONTACT_NONE:
		break;
	}
	return "Invite this person first: nobody is written to unasked.";
}

void
contact_tell(struct live *live, int64_t account_id, struct slice address)
{
	json_t *o = json_pack("{s:o}", "address",
	                      json_stringn((const char *)address.data, address.len));
	char *text = json_dumps(o, JSON_COMPACT);

	if (text != NULL)
		live_tell_soon(live, account_id, "contact", slice_str(text));
	free(text);
	json_decref(o);
}

/* --- how things stand, as JSON ------------------------------------------------------ */

static json_t *
presence_json(const struct contact_row *row)
{
	bool agreed = row->presence_mine && row->presence_theirs;
	json_t *o =
	    json_pack("{s:b, s:b, s:o, s:o}", "shown", (int)row->presence_mine, "agreed",
	              (int)agreed, "state", json_null(), "since", json_null());

	if (agreed && row->presence >= 0) {
		(void)json_object_set_new(
		    o, "state",
		    json_string(presence_state_name((enum presence_state)row->presence)));
		(void)json_object_set_new(o, "since", view_time(row->presence_since_us));
	}
	return o;
}

static json_t *
contact_json(const struct contact_row *row)
{
	return json_pack("{s:s, s:s, s:b, s:o, s:b, s:o}", "address", row->address, "state",
	                 contact_state_name(contact_state_of(row)), "can_write",
	                 (int)(contact_cannot_write(row) == NULL), "since",
	                 view_time(row->since_us), "muted", (int)row->muted, "presence",
	                 presence_json(row));
}

static void
look(struct contact_call *c, call_step *then)
{
	contact_list_clear(&c->list);
	call_await(&c->call, 1, then);
	call_job(&c->call, &c->list.job);
	c->list.account_id = c->call.who.account_id;
	c->list.domain = dmtp_address_domain(&c->person);
	c->list.member = dmtp_address_local(&c->person);
	c->list.now_us = clock_wall_us();
	store_contact_list(c->call.api->home->store, &c->list);
}

/* False: the request has been answered. */
static bool
found(struct contact_call *c)
{
	if (c->list.job.rc == STORE_OK && c->list.rows_n == 1)
		return true;
	call_reply_store(&c->call,
	                 c->list.job.rc == STORE_OK ? STORE_NOT_FOUND : c->list.job.rc);
	return false;
}

static void
after_last_look(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (found(c))
		web_reply_json(call->req, c->status, contact_json(&c->list.rows[0]));
}

static void
reply_contact(struct contact_call *c, unsigned status)
{
	c->status = status;
	look(c, after_last_look);
}

/* --- the list ------------------------------------------------------------------------- */

static json_t *
list_json(const struct contact_call *c)
{
	json_t *rows = json_array(), *answer = json_pack("{s:o}", "contacts", rows);
	size_t n = c->list.rows_n < c->limit ? c->list.rows_n : c->limit;
	struct buffer url;

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, contact_json(&c->list.rows[i]));
	if (c->list.rows_n > n) {
		buffer_init(&url, URL_MAX);
		buffer_add_fmt(&url, "%s/v1/contacts?limit=%u&after=",
		               c->call.api->home->config->home.http.url, c->limit);
		call_url_add(&url, slice_str(c->list.rows[n - 1].address));
		if (!url.failed)
			(void)json_object_set_new(
			    answer, "next", json_stringn((const char *)url.data, url.len));
		buffer_free(&url);
	}
	return answer;
}

static void
after_list(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (c->list.job.rc == STORE_OK)
		web_reply_json(call->req, 200, list_json(c));
	else
		call_reply_store(call, c->list.job.rc);
}

static void
list_contacts(struct call *call)
{
	struct contact_call *c = own(call);
	uint64_t limit = LIMIT_DEFAULT;

	if (web_request_query_u64(call->req, "limit", LIMIT_MAX, &limit) == WEB_QUERY_BAD ||
	    limit == 0) {
		web_reply_problem(call->req, &web_invalid_value,
		                  "limit is a number from 1 to %d.", LIMIT_MAX);
		return;
	}
	c->limit = (unsigned)limit;
	c->list.after = (struct slice){ NULL, 0 };
	(void)web_request_query(call->req, "after", &c->list.after);
	call_await(call, 1, after_list);
	call_job(call, &c->list.job);
	c->list.account_id = call->who.account_id;
	c->list.now_us = clock_wall_us();
	c->list.limit = c->limit + 1; /* one more tells whether there is a next page */
	store_contact_list(call->api->home->store, &c->list);
}

void
on_contact_list(struct web_request *req, void *arg)
{
	begin(req, arg, list_contacts);
}

/* One that she never had to do with isn't there. */
static void
after_get(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (!found(c))
		return;
	if (contact_state_of(&c->list.rows[0]) == CONTACT_NONE)
		call_reply_store(call, STORE_NOT_FOUND);
	else
		web_reply_json(call->req, 200, contact_json(&c->list.rows[0]));
}

static void
get_contact(struct call *call)
{
	struct contact_call *c = own(call);

	if (contact_path(call, &c->person))
		look(c, after_get);
}

void
on_contact_get(struct web_request *req, void *arg)
{
	begin(req, arg, get_contact);
}

/* --- what the member says ---------------------------------------------------------------- */

static enum store_rc
worst(const struct contact_call *c)
{
	if (c->changes && c->change.job.rc != STORE_OK)
		return c->change.job.rc;
	return c->invites ? c->invite.job.rc : STORE_OK;
}

/* Her other devices look at this contact again. */
static void
tell_own(struct contact_call *c)
{
	contact_tell(c->call.api->home->live, c->call.who.account_id,
	             dmtp_address_slice(&c->person));
}

static void
after_said(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;
	enum store_rc rc = worst(c);

	if (rc == STORE_OK) {
		tell_own(c);
		reply_contact(c, c->status);
	} else {
		call_reply_store(call, rc);
	}
}

static void
submit(struct contact_call *c)
{
	struct store *store = c->call.api->home->store;
	bool invites = c->invites, changes = c->changes;

	call_await(&c->call, (unsigned)invites + (unsigned)changes, after_said);
	if (invites)
		call_job(&c->call, &c->invite.job);
	if (changes)
		call_job(&c->call, &c->change.job);
	if (invites)
		store_member_invite(store, &c->invite);
	if (changes)
		store_consent_change(store, &c->change);
}

static void
fill_change(struct contact_call *c, enum consent_state state)
{
	c->changes = true;
	consent_change_fill(&c->call, &c->person, SLICE("inbox"), state, &c->change);
}

/* Accepting is a yes at any time; refusing and blocking a no, also to who never asked. */
static void
answer(struct call *call)
{
	struct contact_call *c = own(call);

	c->status = 200;
	if (!contact_path(call, &c->person) || !consent_may_change(call))
		return;
	fill_change(c, c->answer);
	c->change.blocked = c->blocked;
	if (c->answer == CONSENT_REFUSED)
		c->change.why = CONSENT_UNASKED;
	submit(c);
}

static void
begin_answer(struct web_request *req, void *arg, enum consent_state state, bool blocked)
{
	struct contact_call *c = call_begin(req, arg, sizeof(*c));

	if (c == NULL)
		return;
	c->answer = state;
	c->blocked = blocked;
	call_auth(&c->call, answer);
}

void
on_contact_accept(struct web_request *req, void *arg)
{
	begin_answer(req, arg, CONSENT_GRANTED, false);
}

void
on_contact_refuse(struct web_request *req, void *arg)
{
	begin_answer(req, arg, CONSENT_REFUSED, false);
}

void
on_contact_block(struct web_request *req, void *arg)
{
	begin_answer(req, arg, CONSENT_REFUSED, true);
}

static void
after_removed(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (c->change.job.rc == STORE_OK) {
		tell_own(c);
		web_reply_empty(call->req, 204);
	} else {
		call_reply_store(call, c->change.job.rc);
	}
}

static void
after_remove_look(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (!found(c))
		return;
	if (contact_state_of(&c->list.rows[0]) == CONTACT_NONE) {
		call_reply_store(call, STORE_NOT_FOUND);
		return;
	}
	fill_change(c, CONSENT_REFUSED);
	c->change.why = CONSENT_UNASKED;
	call_await(call, 1, after_removed);
	call_job(call, &c->change.job);
	store_consent_change(call->api->home->store, &c->change);
}

static void
remove_contact(struct call *call)
{
	struct contact_call *c = own(call);

	if (contact_path(call, &c->person) && consent_may_change(call))
		look(c, after_remove_look);
}

void
on_contact_remove(struct web_request *req, void *arg)
{
	begin(req, arg, remove_contact);
}

/* --- inviting ----------------------------------------------------------------------------- */

struct invite_body {
	struct slice address, text;
};

static const struct web_field invite_fields[] = {
	{ "address", WEB_STRING, WEB_REQUIRED, offsetof(struct invite_body, address), .min = 1,
	  .max = 2L * DMTP_ADDRESS_MAX },
	{ "text", WEB_STRING, 0, offsetof(struct invite_body, text),
	  .check = compose_words_valid,
	  .expected = "1 to 140 characters in one line, without links or addresses" },
};

/* False: the request has been answered. */
static bool
fill_invite(struct contact_call *c)
{
	struct compose_origin origin = { .from = c->call.address,
		                         .to = dmtp_address_slice(&c->person),
		                         .date_s = clock_wall_s() };

	randombytes_buf(origin.salt, sizeof(origin.salt));
	if (compose_invitation(&origin, c->words, &c->letter) != COMPOSE_OK) {
		web_reply_problem(c->call.req, &web_internal, NULL);
		return false;
	}
	c->invites = true;
	c->invite = (struct member_invite){
		.site_id = c->call.who.account_id,
		.channel_id = c->call.who.account_id,
		.domain = dmtp_address_domain(&c->person),
		.member = dmtp_address_local(&c->person),
		.message_id = uuid_make(),
		.accepted_us = clock_wall_us(),
		.date_s = origin.date_s,
		.body = buffer_slice(&c->letter.message),
		.digest = c->letter.digest,
	};
	return true;
}

static bool
may_invite(struct contact_call *c)
{
	struct guard_rule rule = {
		.kind = 'v',
		.burst = c->call.api->home->config->home.contact_invitations_per_day,
		.every_us =
		    DAY_US / c->call.api->home->config->home.contact_invitations_per_day,
	};

	return call_guard(&c->call, &rule,
	                  slice_mem(&c->call.who.account_id, sizeof(c->call.who.account_id)));
}

/*
 * Whoever asks her, or said yes before, needs no invitation: inviting them is
 * accepting. Whom she had let go she wants back, and says so at once.
 */
static void
after_invite_look(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;
	const struct contact_row *row;

	if (!found(c))
		return;
	row = &c->list.rows[0];
	if (contact_state_of(row) == CONTACT_BOTH) {
		web_reply_json(call->req, 200, contact_json(row));
		return;
	}
	if (row->theirs == MEMBER_REFUSED || row->theirs == MEMBER_REVOKED) {
		web_reply_problem(call->req, &refused_problem,
		                  "Their no is final; only they can change that.");
		return;
	}
	c->status = 200;
	if (row->mine == CONSENT_ASKED || row->mine == CONSENT_REFUSED ||
	    row->mine == CONSENT_REVOKED || row->theirs == MEMBER_GRANTED)
		fill_change(c, CONSENT_GRANTED);
	if (row->mine != CONSENT_ASKED && row->theirs != MEMBER_GRANTED) {
		c->status = 202;
		if (!may_invite(c) || !fill_invite(c))
			return;
	}
	submit(c);
}

static void
invite_contact(struct call *call)
{
	struct contact_call *c = own(call);
	struct invite_body body = { .text = { NULL, 0 } };

	if (!web_body_read(call->req, invite_fields,
	                   sizeof(invite_fields) / sizeof(invite_fields[0]), &body, &c->json))
		return;
	c->words = body.text;
	if (dmtp_address_normalise(body.address, &c->person) != DMTP_ADDRESS_OK)
		web_reply_problem(call->req, &web_invalid_value,
		                  "\"address\" must be a person's address, local@domain.");
	else if (slice_eq(dmtp_address_slice(&c->person), call->address))
		web_reply_problem(call->req, &web_invalid_value, "That is yourself.");
	else if (consent_may_change(call))
		look(c, after_invite_look);
}

void
on_contact_invite(struct web_request *req, void *arg)
{
	begin(req, arg, invite_contact);
}

/* --- her settings ---------------------------------------------------------------------------- */

struct patch_body {
	const json_t *muted, *presence;
};

static const struct web_field patch_fields[] = {
	{ "muted", WEB_ANY, 0, offsetof(struct patch_body, muted), .max = 0 },
	{ "presence", WEB_ANY, 0, offsetof(struct patch_body, presence), .max = 0 },
};

static void
after_patched(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;
	enum store_rc rc = c->patch_muted >= 0 ? c->mute.job.rc : STORE_OK;

	if (rc == STORE_OK && c->changes)
		rc = c->change.job.rc;
	if (rc == STORE_OK) {
		tell_own(c);
		if (c->patch_presence > 0)
			presence_touch(call->api->home->presence, call->who.account_id);
		reply_contact(c, 200);
	} else {
		call_reply_store(call, rc);
	}
}

static void
submit_patch(struct contact_call *c, const struct contact_row *row)
{
	struct store *store = c->call.api->home->store;
	bool mutes = c->patch_muted >= 0, changes = c->patch_presence >= 0;

	if (changes) {
		fill_change(c, CONSENT_GRANTED);
		c->change.receipts = row->receipts;
		c->change.presence = c->patch_presence > 0 ? PRESENCE_SHOWN : PRESENCE_HIDDEN;
	}
	call_await(&c->call, (unsigned)mutes + (unsigned)changes, after_patched);
	if (changes)
		call_job(&c->call, &c->change.job);
	if (mutes) {
		call_job(&c->call, &c->mute.job);
		c->mute.account_id = c->call.who.account_id;
		c->mute.address = dmtp_address_slice(&c->person);
		c->mute.muted = c->patch_muted > 0;
		store_contact_mute(store, &c->mute);
	}
	if (changes)
		store_consent_change(store, &c->change);
}

/* Settings are of who may write: a contact, or one whose own yes is still to come. */
static void
after_patch_look(struct call *call)
{
	struct contact_call *c = (struct contact_call *)call;

	if (!found(c))
		return;
	if (c->list.rows[0].mine != CONSENT_GRANTED) {
		if (contact_state_of(&c->list.rows[0]) == CONTACT_NONE)
			call_reply_store(call, STORE_NOT_FOUND);
		else
			web_reply_problem(
			    call->req, &contact_problem,
			    "Only a contact can be muted or shown your presence.");
		return;
	}
	submit_patch(c, &c->list.rows[0]);
}

/* -1: absent; -2: the request has been answered. */
static int
read_flag(struct call *call, const json_t *value, const char *name)
{
	if (value == NULL)
		return -1;
	if (json_is_boolean(value))
		return json_is_true(value);
	web_reply_problem(call->req, &web_invalid_value, "\"%s\" is true or false.", name);
	return -2;
}

static void
patch_contact(struct call *call)
{
	struct contact_call *c = own(call);
	struct patch_body body = { NULL, NULL };
	int muted, presence;

	if (!contact_path(call, &c->person) ||
	    !web_body_read(call->req, patch_fields, 2, &body, &c->json))
		return;
	/* Once the request has been answered the call is gone: nothing is written into it then. */
	if ((muted = read_flag(call, body.muted, "muted")) < -1 ||
	    (presence = read_flag(call, body.presence, "presence")) < -1)
		return;
	c->patch_muted = muted;
	c->patch_presence = presence;
	if (c->patch_muted < 0 && c->patch_presence < 0)
		web_reply_problem(call->req, &web_missing_field,
		                  "Say \"muted\", \"presence\" or both.");
	else if (consent_may_change(call))
		look(c, after_patch_look);
}

void
on_contact_patch(struct web_request *req, void *arg)
{
	begin(req, arg, patch_contact);
}
