/* The other domains, as administrators see them, and holding them back. */
#include "panel/panel.h"

#include "base/clock.h"
#include "dmtp/address.h"
#include "store/peers.h"
#include "web/reply.h"

/* --- the list ------------------------------------------------------------------ */

struct list_call {
	struct call call; /* first */
	struct peer_list list;
};

static json_t *
peer_json(const struct peer_row *row, int64_t now_us)
{
	const struct peer_state *s = &row->state;

	return json_pack("{s:s?, s:s, s:i, s:o, s:o, s:o, s:s?}", "domain", row->domain,
	                 "state", peer_state_name(s, now_us), "failures", s->failures,
	                 "failing_since", panel_time_json(s->failing_since_us), "retry_at",
	                 panel_time_json(s->retry_at_us), "sent", panel_time_json(row->sent_us),
	                 "reason", s->reason);
}

static void
on_listed(struct store_job *job)
{
	struct list_call *l = job->arg;
	int64_t now_us = clock_wall_us();
	json_t *rows;

	if (job->rc != STORE_OK && job->rc != STORE_NOT_FOUND) {
		peer_list_clear(&l->list);
		panel_reply_store(&l->call, job->rc);
		return;
	}
	rows = json_array();
	for (size_t i = 0; i < l->list.rows_n; i++)
		(void)json_array_append_new(rows, peer_json(&l->list.rows[i], now_us));
	peer_list_clear(&l->list);
	web_reply_json(l->call.req, 200, json_pack("{s:o}", "peers", rows));
}

static void
list_peers(struct call *call)
{
	struct list_call *l = (struct list_call *)call;

	l->list.job.done = on_listed;
	l->list.job.arg = l;
	store_peer_list(call->panel->store, &l->list);
}

void
on_peer_list(struct web_request *req, void *arg)
{
	struct list_call *l = panel_begin(req, arg, sizeof(*l));

	if (l != NULL)
		panel_authorise(&l->call, false, list_peers);
}

/* --- holding ---------------------------------------------------------------------- */

struct hold_call {
	struct call call; /* first */
	struct peer_hold hold;
	char domain[DMTP_DOMAIN_MAX + 1];
};

static void
on_held(struct store_job *job)
{
	struct hold_call *h = job->arg;

	if (job->rc == STORE_OK)
		web_reply_json(
		    h->call.req, 200,
		    json_pack("{s:s, s:b}", "domain", h->domain, "held", (int)h->hold.held));
	else if (job->rc == STORE_NOT_FOUND)
		web_reply_problem(h->call.req, &web_not_found,
		                  "Nothing was sent to this domain yet.");
	else
		panel_reply_store(&h->call, job->rc);
}

static void
hold_peer(struct call *call)
{
	struct hold_call *h = (struct hold_call *)call;

	if (!dmtp_domain_normalise(web_request_param(call->req, "domain"), h->domain)) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	h->hold.actor = call->who.name;
	h->hold.domain = h->domain;
	h->hold.now_us = clock_wall_us();
	h->hold.job.done = on_held;
	h->hold.job.arg = h;
	store_peer_hold(call->panel->store, &h->hold);
}

static void
begin_hold(struct web_request *req, void *panel, bool held)
{
	struct hold_call *h = panel_begin(req, panel, sizeof(*h));

	if (h == NULL)
		return;
	h->hold.held = held;
	panel_authorise(&h->call, true, hold_peer);
}

void
on_peer_hold(struct web_request *req, void *arg)
{
	begin_hold(req, arg, true);
}

void
on_peer_release(struct web_request *req, void *arg)
{
	begin_hold(req, arg, false);
}
