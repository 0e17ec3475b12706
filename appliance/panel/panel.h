/*
 * The role's state, and a call: one request of an administrator on its way
 * through authorisation, the store and back. A call lives in its request's
 * memory; a reply ends both.
 */
#ifndef TMTP_PANEL_PANEL_H
#define TMTP_PANEL_PANEL_H

#include "base/config.h"
#include "store/admins.h"
#include "web/request.h"

#include <jansson.h>

struct panel {
	const struct config *config;
	struct store *store;
};

struct call;
typedef void call_step(struct call *call);

struct call {
	struct panel *panel;
	struct web_request *req;
	struct admin_token_get who; /* name and scopes, once authorised */
	bool writes;                /* the scope write is wanted, not only read */
	call_step *then;
};

/* A zeroed call of size octets, struct call first. NULL: the request has been answered. */
void *panel_begin(struct web_request *req, void *panel, size_t size);

/* Goes on with then once the bearer's token has been found to allow it; 401, 403 or 503 otherwise. */
void panel_authorise(struct call *call, bool writes, call_step *then);

/* Answers what isn't STORE_OK. */
void panel_reply_store(struct call *call, enum store_rc rc);

/* Wall microseconds in RFC 3339; below 0 null. */
json_t *panel_time_json(int64_t wall_us);

/* queue.c */
web_handler on_queue_list, on_queue_retry, on_queue_hold, on_queue_release, on_queue_drop;

/* peers.c */
web_handler on_peer_list, on_peer_hold, on_peer_release;

#endif
