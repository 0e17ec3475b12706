/* The queue, as administrators see it and change it: what waits, is held, or was given up. */
#include "panel/panel.h"

#include "base/clock.h"
#include "dmtp/address.h"
#include "store/pushes.h"
#include "store/queue.h"
#include "web/body.h"
#include "web/reply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_MAX 1024
#define LIMIT_MAX 1000

/* --- the list ---------------------------------------------------------------- */

struct list_call {
	struct call call; /* first */
	struct queue_list list;
	char domain[DMTP_DOMAIN_MAX + 1];
	unsigned limit;
};

static json_t *
batch_json(const struct queue_row *row)
{
	char id[UUID_TEXT];

	uuid_format(&row->message_id, id);
	return json_pack("{s:s, s:i, s:s?, s:s?, s:s?, s:s, s:s, s:i, s:i, s:o, s:o, s:s?}",
	                 "message", id, "batch", row->batch_no, "site", row->site, "channel",
	                 row->channel, "domain", row->domain, "lane", push_lane_name(row->lane),
	                 "state", queue_state_name(row->state), "recipients", row->recipients,
	                 "attempts", row->attempts, "accepted",
	                 panel_time_json(row->accepted_us), "not_before",
	                 panel_time_json(row->not_before_us), "reason", row->reason);
}

/* Where the next page begins: "<message>.<batch>.<site>" of this one's last row. */
static json_t *
next_json(const struct list_call *l, const struct queue_row *last)
{
	static const struct uuid none;
	char url[URL_MAX], id[UUID_TEXT], message[UUID_TEXT];
	bool one = memcmp(&l->list.message_id, &none, sizeof(none)) != 0;

	uuid_format(&last->message_id, id);
	uuid_format(&l->list.message_id, message);
	(void)snprintf(
	    url, sizeof(url), "%s/v1/queue?limit=%u&state=%s%s%s%s%s&after=%s.%d.%" PRId64,
	    l->call.panel->config->panel.http.url, l->limit, l->list.dead ? "dead" : "waiting",
	    l->list.domain != NULL ? "&domain=" : "", l->list.domain != NULL ? l->domain : "",
	    one ? "&message=" : "", one ? message : "", id, last->batch_no, last->site_id);
	return json_string(url);
}

static void
on_listed(struct store_job *job)
{
	struct list_call *l = job->arg;
	size_t n = l->list.rows_n < l->limit ? l->list.rows_n : l->limit;
	json_t *rows, *answer;

	if (job->rc != STORE_OK && job->rc != STORE_NOT_FOUND) {
		queue_list_clear(&l->list);
		panel_reply_store(&l->call, job->rc);
		return;
	}
	rows = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, batch_json(&l->list.rows[i]));
	answer = json_pack("{s:o}", "batches", rows);
	if (l->list.rows_n > n)
		(void)json_object_set_new(answer, "next", next_json(l, &l->list.rows[n - 1]));
	queue_list_clear(&l->list);
	web_reply_json(l->call.req, 200, answer);
}

/* Digits up to end; moves at behind it. */
static bool
read_number(const char **at, char end, long long max, long long *out)
{
	char *stop;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*out = strtoll(*at, &stop, 10);
	if (errno != 0 || *out > max || *stop != end)
		return false;
	*at = end == '\0' ? stop : stop + 1;
	return true;
}

static bool
read_after(struct slice text, struct queue_list *list)
{
	char copy[128];
	const char *at = copy + UUID_TEXT;
	long long batch, site;

	if (text.len < UUID_TEXT || text.len >= sizeof(copy))
		return false;
	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	if (!uuid_parse(slice_mem(text.data, UUID_TEXT - 1), &list->after_message) ||
	    at[-1] != '.' || !read_number(&at, '.', INT32_MAX, &batch) ||
	    !read_number(&at, '\0', INT64_MAX, &site))
		return false;
	list->after_batch = (int)batch;
	list->after_site = site;
	return true;
}

/* What is wrong with the arguments, or NULL. */
static const char *
read_list(struct list_call *l)
{
	struct web_request *req = l->call.req;
	struct slice text;
	uint64_t limit = 100;

	if (web_request_query_u64(req, "limit", LIMIT_MAX, &limit) == WEB_QUERY_BAD ||
	    limit == 0)
		return "limit is a number from 1 to 1000.";
	l->limit = (unsigned)limit;
	l->list.limit = l->limit + 1; /* one more tells whether there is a next page */
	if (web_request_query(req, "state", &text)) {
		l->list.dead = slice_eq_str(text, "dead");
		if (!l->list.dead && !slice_eq_str(text, "waiting"))
			return "state is waiting (held ones are among them) or dead.";
	}
	if (web_request_query(req, "domain", &text)) {
		if (!dmtp_domain_normalise(text, l->domain))
			return "domain is a domain's name, like home.test.";
		l->list.domain = l->domain;
	}
	if (web_request_query(req, "message", &text) && !uuid_parse(text, &l->list.message_id))
		return "message is a message's id.";
	if (web_request_query(req, "after", &text) && !read_after(text, &l->list))
		return "after stands in the page before, in its next.";
	return NULL;
}

static void
list_batches(struct call *call)
{
	struct list_call *l = (struct list_call *)call;
	const char *wrong = read_list(l);

	if (wrong != NULL) {
		web_reply_problem(call->req, &web_invalid_value, "%s", wrong);
		return;
	}
	l->list.job.done = on_listed;
	l->list.job.arg = l;
	store_queue_list(call->panel->store, &l->list);
}

void
on_queue_list(struct web_request *req, void *arg)
{
	struct list_call *l = panel_begin(req, arg, sizeof(*l));

	if (l != NULL)
		panel_authorise(&l->call, false, list_batches);
}

/* --- changes ------------------------------------------------------------------- */

struct change_call {
	struct call call; /* first */
	struct queue_change change;
	char domain[DMTP_DOMAIN_MAX + 1];
};

struct target {
	struct slice domain, message;
	bool all;
};

static const struct web_field target_fields[] = {
	{ "domain", WEB_STRING, 0, offsetof(struct target, domain), .min = 1, .max = 253 },
	{ "message", WEB_STRING, 0, offsetof(struct target, message), .min = 1, .max = 36 },
	{ "all", WEB_BOOL, 0, offsetof(struct target, all), .min = 0 },
};

static void
on_changed(struct store_job *job)
{
	struct change_call *c = job->arg;

	if (job->rc == STORE_OK)
		web_reply_json(c->call.req, 200,
		               json_pack("{s:I}", "changed", (json_int_t)c->change.changed));
	else
		panel_reply_store(&c->call, job->rc);
}

/* What is wrong with the target, or NULL. Never neither: nobody drops everything by leaving a field out. */
static const char *
read_target(struct change_call *c, const struct target *t)
{
	if (t->all == (t->domain.len > 0 || t->message.len > 0))
		return "domain, message or both say which batches; or else all, with true.";
	if (t->message.len > 0 && !uuid_parse(t->message, &c->change.message_id))
		return "message is a message's id.";
	if (t->domain.len > 0) {
		if (!dmtp_domain_normalise(t->domain, c->domain))
			return "domain is a domain's name, like home.test.";
		c->change.domain = c->domain;
	}
	return NULL;
}

static void
change_batches(struct call *call)
{
	struct change_call *c = (struct change_call *)call;
	struct target target = { .all = false };
	const char *wrong;
	json_t *json;

	if (!web_body_read(call->req, target_fields,
	                   sizeof(target_fields) / sizeof(target_fields[0]), &target, &json))
		return;
	wrong = read_target(c, &target);
	json_decref(json);
	if (wrong != NULL) {
		web_reply_problem(call->req, &web_invalid_value, "%s", wrong);
		return;
	}
	c->change.actor = call->who.name;
	c->change.now_us = clock_wall_us();
	c->change.job.done = on_changed;
	c->change.job.arg = c;
	store_queue_change(call->panel->store, &c->change);
}

static void
begin_change(struct web_request *req, void *panel, enum queue_action action)
{
	struct change_call *c = panel_begin(req, panel, sizeof(*c));

	if (c == NULL)
		return;
	c->change.action = action;
	panel_authorise(&c->call, true, change_batches);
}

void
on_queue_retry(struct web_request *req, void *arg)
{
	begin_change(req, arg, QUEUE_RETRY_NOW);
}

void
on_queue_hold(struct web_request *req, void *arg)
{
	begin_change(req, arg, QUEUE_HOLD);
}

void
on_queue_release(struct web_request *req, void *arg)
{
	begin_change(req, arg, QUEUE_RESUME);
}

void
on_queue_drop(struct web_request *req, void *arg)
{
	begin_change(req, arg, QUEUE_DROP);
}
