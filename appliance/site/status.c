/* What became of messages: the list, one message's counts, its recipients. */
#include "site/handlers.h"

#include "dmtp/address.h"
#include "site/auth.h"
#include "store/messages.h"
#include "store/pushes.h"
#include "web/reply.h"

/* The message that the path names. False: the request has been answered. */
static bool
path_message(struct call *call, struct uuid *id)
{
	if (uuid_parse(web_request_param(call->req, "id"), id))
		return true;
	web_reply_problem(call->req, &web_not_found, NULL);
	return false;
}

/* --- the list ------------------------------------------------------------------- */

struct list_call {
	struct call call; /* first */
	struct message_list list;
	unsigned limit;
};

static json_t *
summary_json(const struct message_summary *row)
{
	char id[UUID_TEXT];
	json_t *o;

	uuid_format(&row->message_id, id);
	o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:i}", "id", id, "channel", row->channel,
	              "audience", push_audience_name(row->audience), "lane",
	              push_lane_name(row->lane), "accepted", site_time_json(row->accepted_us),
	              "size", (int)row->size);
	if (row->recalled_us >= 0)
		(void)json_object_set_new(o, "recalled", site_time_json(row->recalled_us));
	return o;
}

static json_t *
list_json(struct list_call *l)
{
	json_t *rows = json_array();
	json_t *answer = json_pack("{s:o}", "messages", rows);
	size_t n = l->list.rows_n < l->limit ? l->list.rows_n : l->limit;
	char id[UUID_TEXT];
	struct buffer url;

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, summary_json(&l->list.rows[i]));
	if (l->list.rows_n > n) {
		uuid_format(&l->list.rows[n - 1].message_id, id);
		site_url_begin(&url, &l->call);
		buffer_add_fmt(&url, "/v1/messages?limit=%u", l->limit);
		site_url_add(&url, "before", slice_str(id));
		site_next_json(answer, &url);
	}
	return answer;
}

static void
on_listed(struct store_job *job)
{
	struct list_call *l = job->arg;
	enum store_rc rc = job->rc;
	json_t *answer = rc == STORE_OK ? list_json(l) : NULL;

	message_list_clear(&l->list);
	if (rc == STORE_OK)
		web_reply_json(l->call.req, 200, answer);
	else
		site_reply_store(&l->call, rc);
}

static void
list_messages(struct call *call)
{
	struct list_call *l = (struct list_call *)call;
	struct slice before;

	if (!site_limit(call, &l->limit))
		return;
	if (web_request_query(call->req, "before", &before) &&
	    !uuid_parse(before, &l->list.before)) {
		web_reply_problem(call->req, &web_invalid_value, "before is a message's id.");
		return;
	}
	l->list.job.done = on_listed;
	l->list.job.arg = l;
	l->list.site_id = call->who.site_id;
	l->list.limit = l->limit + 1; /* one more tells whether there is a next page */
	store_message_list(call->site->store, &l->list);
}

void
on_message_list(struct web_request *req, void *arg)
{
	struct list_call *l = site_begin(req, arg, sizeof(*l));

	if (l != NULL)
		site_auth(&l->call, SCOPE_READ, list_messages);
}

/* --- one ------------------------------------------------------------------------- */

struct status_call {
	struct call call; /* first */
	struct message_status status;
};

/* When it was, for how many it never left, and how far those who had it have been told. */
static void
add_recall(json_t *o, json_t *counts, const struct message_status *s)
{
	(void)json_object_set_new(o, "recalled", site_time_json(s->recalled_us));
	(void)json_object_set_new(counts, "recalled", json_integer(s->recalled));
	(void)json_object_set_new(
	    o, "recall",
	    json_pack("{s:I, s:I, s:I, s:I}", "waiting", (json_int_t)s->recall.waiting,
	              "delivered", (json_int_t)s->recall.delivered, "failed",
	              (json_int_t)s->recall.failed, "dead", (json_int_t)s->recall.dead));
}

static json_t *
status_json(const struct message_status *s)
{
	char id[UUID_TEXT];
	json_t *counts =
	    json_pack("{s:I, s:I, s:I, s:I, s:I}", "waiting", (json_int_t)s->waiting,
	              "delivered", (json_int_t)s->delivered, "failed", (json_int_t)s->failed,
	              "dead", (json_int_t)s->dead, "rejected", (json_int_t)s->rejected);
	json_t *receipts = json_pack("{s:I, s:I}", "read", (json_int_t)s->read, "withdrawn",
	                             (json_int_t)s->withdrawn);
	json_t *o;

	uuid_format(&s->message_id, id);
	o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "id", id, "channel", s->channel,
	              "audience", push_audience_name(s->audience), "lane",
	              push_lane_name(s->lane), "accepted", site_time_json(s->accepted_us),
	              "recipients", counts, "receipts", receipts);
	if (s->expires_us >= 0)
		(void)json_object_set_new(o, "expires", site_time_json(s->expires_us));
	if (s->recalled_us >= 0)
		add_recall(o, counts, s);
	return o;
}

static void
on_status(struct store_job *job)
{
	struct status_call *s = job->arg;

	if (job->rc == STORE_OK)
		web_reply_json(s->call.req, 200, status_json(&s->status));
	else
		site_reply_store(&s->call, job->rc);
}

static void
get_status(struct call *call)
{
	struct status_call *s = (struct status_call *)call;

	if (!path_message(call, &s->status.message_id))
		return;
	s->status.job.done = on_status;
	s->status.job.arg = s;
	s->status.site_id = call->who.site_id;
	store_message_status(call->site->store, &s->status);
}

void
on_message_get(struct web_request *req, void *arg)
{
	struct status_call *s = site_begin(req, arg, sizeof(*s));

	if (s != NULL)
		site_auth(&s->call, SCOPE_READ, get_status);
}

/* --- its recipients ----------------------------------------------------------------- */

/* After an empty page it is asked whether there is such a message at all. */
struct recipients_call {
	struct call call; /* first */
	struct message_status status;
	struct message_recipients page;
	struct dmtp_address after;
	unsigned limit;
};

static json_t *
recipient_json(const struct recipient_row *row)
{
	json_t *o = json_pack("{s:s, s:s}", "address", row->address, "state",
	                      recipient_state_name(row->state));

	if (row->reason != NULL)
		(void)json_object_set_new(o, "reason", json_string(row->reason));
	if (row->read_us >= 0)
		(void)json_object_set_new(o, "read", site_time_json(row->read_us));
	if (row->withdrawn_us >= 0)
		(void)json_object_set_new(o, "withdrawn", site_time_json(row->withdrawn_us));
	return o;
}

static json_t *
recipients_json(struct recipients_call *r)
{
	json_t *rows = json_array();
	json_t *answer = json_pack("{s:o}", "recipients", rows);
	size_t n = r->page.rows_n < r->limit ? r->page.rows_n : r->limit;
	char id[UUID_TEXT];
	struct buffer url;

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, recipient_json(&r->page.rows[i]));
	if (r->page.rows_n > n) {
		uuid_format(&r->page.message_id, id);
		site_url_begin(&url, &r->call);
		buffer_add_fmt(&url, "/v1/messages/%s/recipients?limit=%u", id, r->limit);
		if (r->page.state >= 0)
			site_url_add(&url, "state",
			             slice_str(recipient_state_name(
					 (enum recipient_state)r->page.state)));
		site_url_add(&url, "after", slice_str(r->page.rows[n - 1].address));
		site_next_json(answer, &url);
	}
	return answer;
}

static void
on_known(struct store_job *job)
{
	struct recipients_call *r = job->arg;

	if (job->rc == STORE_OK)
		web_reply_json(r->call.req, 200, json_pack("{s:[]}", "recipients"));
	else
		site_reply_store(&r->call, job->rc);
}

static void
ask_known(struct recipients_call *r)
{
	r->status.job.done = on_known;
	r->status.job.arg = r;
	r->status.site_id = r->page.site_id;
	r->status.message_id = r->page.message_id;
	store_message_status(r->call.site->store, &r->status);
}

static void
on_recipients(struct store_job *job)
{
	struct recipients_call *r = job->arg;
	enum store_rc rc = job->rc;
	json_t *answer;

	if (rc == STORE_OK && r->page.rows_n == 0) {
		message_recipients_clear(&r->page);
		ask_known(r);
		return;
	}
	answer = rc == STORE_OK ? recipients_json(r) : NULL;
	message_recipients_clear(&r->page);
	if (rc == STORE_OK)
		web_reply_json(r->call.req, 200, answer);
	else
		site_reply_store(&r->call, rc);
}

static bool
state_parse(struct slice text, int *state)
{
	for (int i = RECIPIENT_WAITING; i <= RECIPIENT_RECALLED; i++) {
		if (slice_eq_str(text, recipient_state_name((enum recipient_state)i))) {
			*state = i;
			return true;
		}
	}
	return false;
}

static void
get_recipients(struct call *call)
{
	struct recipients_call *r = (struct recipients_call *)call;
	struct slice state;

	r->page.state = -1;
	if (!path_message(call, &r->page.message_id) || !site_limit(call, &r->limit))
		return;
	if (web_request_query(call->req, "state", &state) &&
	    !state_parse(state, &r->page.state)) {
		web_reply_problem(
		    call->req, &web_invalid_value,
		    "state is waiting, delivered, failed, dead, rejected or recalled.");
		return;
	}
	if (!site_after(call, &r->after))
		return;
	r->page.after = dmtp_address_slice(&r->after);
	r->page.job.done = on_recipients;
	r->page.job.arg = r;
	r->page.site_id = call->who.site_id;
	r->page.limit = r->limit + 1;
	store_message_recipients(call->site->store, &r->page);
}

void
on_message_recipients(struct web_request *req, void *arg)
{
	struct recipients_call *r = site_begin(req, arg, sizeof(*r));

	if (r != NULL)
		site_auth(&r->call, SCOPE_READ, get_recipients);
}
