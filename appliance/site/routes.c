/* The public listener's routes, and its answers about health. */
#include "site/handlers.h"

#include "dmtp/card.h"
#include "web/health.h"

#include <stdio.h>
#include <stdlib.h>

/* Bodies that name at most 1000 addresses. */
#define MEMBERS_BODY_MAX ((size_t)1024 * 1024)
/* Stands for the configuration's body_max_bytes, or attachment_max_bytes where it is streamed. */
#define BODY_MAX SIZE_MAX

static void
on_readyz(struct web_request *req, void *arg)
{
	struct site *site = arg;

	web_health_say(req, atomic_load(&site->draining), store_is_up(site->store, NULL));
}

static const struct web_route routes[] = {
	{ WEB_POST, "/v1/channels/:channel/messages", on_push, BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_POST, "/v1/attachments", on_attachment_upload, BODY_MAX,
	  WEB_STREAM_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/m/:site/:message/:digest", on_pickup, 0, 0 },
	{ WEB_GET, "/m/a/:site/:attachment/:digest", on_attachment_get, 0, 0 },
	{ WEB_GET, DMTP_CARD_PATH, on_card, 0, 0 },
	{ WEB_GET, "/v1/messages/:id", on_message_get, 0, WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/messages/:id", on_message_recall, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/messages/:id/recipients", on_message_recipients, 0,
	  WEB_ARG_LIMIT | WEB_ARG_AFTER | WEB_ARG_STATE },
	{ WEB_GET, "/v1/messages", on_message_list, 0, WEB_ARG_LIMIT | WEB_ARG_BEFORE },
	{ WEB_GET, "/v1/channels", on_channel_list, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/channels/:channel", on_channel_get, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/channels/:channel/members", on_member_add, MEMBERS_BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/v1/channels/:channel/members", on_member_list, 0,
	  WEB_ARG_LIMIT | WEB_ARG_AFTER | WEB_ARG_STATE },
	{ WEB_GET, "/v1/channels/:channel/members/:address", on_member_get, 0, WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/channels/:channel/members/:address", on_member_remove, 0,
	  WEB_NO_ARGS },
	{ WEB_GET, "/livez", web_health_on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
};

struct web_route *
site_routes(const struct config *config, size_t *count)
{
	size_t n = sizeof(routes) / sizeof(routes[0]);
	struct web_route *made = malloc(sizeof(routes));

	if (made == NULL)
		return NULL;
	memcpy(made, routes, sizeof(routes));
	for (size_t i = 0; i < n; i++) {
		size_t max = made[i].flags & WEB_STREAM_BODY ? config->site.attachment_max_bytes
		                                             : config->site.body_max_bytes;

		if (made[i].body_max > max)
			made[i].body_max = max;
	}
	*count = n;
	return made;
}
