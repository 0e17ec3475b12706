/*
 * The members' API: its routes, listeners and life. Streams and requests share
 * the listeners: a page's EventSource sends its cookie only to where it came
 * from. A connection's memory is small, because most of them are idle streams.
 */
#include "home/api.h"

#include "base/clock.h"
#include "base/log.h"
#include "home/attachments.h"
#include "home/call.h"
#include "home/consents.h"
#include "home/contacts.h"
#include "home/inbox.h"
#include "home/letters.h"
#include "home/login.h"
#include "home/origin.h"
#include "home/presence.h"
#include "home/mail_channel.h"
#include "web/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BODY_MAX 65536
/* A text of 64 KiB, of which JSON may need up to six octets for one. */
#define LETTER_BODY_MAX 409600
#define CONNECTIONS_MAX 20000
/* 7.3 KiB a stream, all in all; the headers of browsers have 700 to 1,500 octets. */
#define CONNECTION_BYTES 4096
#define HEADER_BYTES 2048
#define LOGINS_MAX 16384
#define GUARD_BUCKETS 32768
#define JOBS_WAIT_MS 5000
#define TEXT "text/plain; charset=utf-8"

/* --- health ------------------------------------------------------------------------- */

/* The reason is the operator's, on the metrics' listener: the public hears only that. */
static void
on_readyz(struct web_request *req, void *arg)
{
	struct api *api = arg;

	web_health_say(req, atomic_load(&api->draining), store_is_up(api->home->store, NULL));
}

static const struct web_route routes[] = {
	{ WEB_POST, "/v1/login", on_login, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/v1/login", on_login_get, 0, WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/login", on_logout, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/inbox", on_inbox_list, 0,
	  WEB_ARG_LIMIT | WEB_ARG_BEFORE | WEB_ARG_UNREAD },
	{ WEB_GET, "/v1/inbox/count", on_inbox_count, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/inbox/events", on_inbox_events, 0, WEB_ARG_LAST_EVENT_ID },
	{ WEB_GET, "/v1/inbox/:id", on_entry_get, 0, WEB_NO_ARGS },
	{ WEB_PATCH, "/v1/inbox/:id", on_entry_patch, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/inbox/:id", on_entry_drop, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/inbox/:id/read", on_entry_read, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/inbox/:id/attachments/:n", on_entry_attachment, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/invitations", on_invitation_list, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/invitations/:from/:channel", on_invitation_get, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/invitations/:from/:channel/accept", on_invitation_accept, BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_POST, "/v1/invitations/:from/:channel/refuse", on_invitation_refuse, 0,
	  WEB_NO_ARGS },
	{ WEB_GET, "/v1/channels", on_consent_list, 0, WEB_ARG_STATE },
	{ WEB_GET, "/v1/channels/smtp", on_mail_channel_get, 0, WEB_NO_ARGS },
	{ WEB_PUT, "/v1/channels/smtp", on_mail_channel_open, 0, WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/channels/smtp", on_mail_channel_close, 0, WEB_NO_ARGS },
	{ WEB_PUT, "/v1/channels/smtp/blocked/:address", on_mail_block, 0, WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/channels/smtp/blocked/:address", on_mail_unblock, 0, WEB_NO_ARGS },
	{ WEB_PUT, "/v1/channels/:from/:channel", on_consent_grant, BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/channels/:from/:channel", on_consent_revoke, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/contacts", on_contact_list, 0, WEB_ARG_LIMIT | WEB_ARG_AFTER },
	{ WEB_POST, "/v1/contacts", on_contact_invite, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/v1/contacts/:address", on_contact_get, 0, WEB_NO_ARGS },
	{ WEB_PATCH, "/v1/contacts/:address", on_contact_patch, BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_DELETE, "/v1/contacts/:address", on_contact_remove, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/contacts/:address/accept", on_contact_accept, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/contacts/:address/refuse", on_contact_refuse, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/contacts/:address/block", on_contact_block, 0, WEB_NO_ARGS },
	{ WEB_POST, "/v1/contacts/:address/messages", on_letter_send, LETTER_BODY_MAX,
	  WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/v1/contacts/:address/messages", on_letter_list, 0,
	  WEB_ARG_LIMIT | WEB_ARG_BEFORE },
	{ WEB_GET, "/v1/contacts/:address/messages/:id", on_letter_get, 0, WEB_NO_ARGS },
	{ WEB_GET, "/v1/presence", on_presence_get, 0, WEB_NO_ARGS },
	{ WEB_PUT, "/v1/presence", on_presence_put, BODY_MAX, WEB_JSON_BODY | WEB_NO_ARGS },
	{ WEB_GET, "/m/:site/:message/:digest", on_origin, 0, 0 },
	{ WEB_GET, "/livez", web_health_on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
};

void
api_reload(struct api *api, const struct config *loaded)
{
	web_servers_reload(&api->servers, loaded);
}

/* --- life -------------------------------------------------------------------------------- */

static void
release(struct api *api)
{
	aside_free(&api->passwords);
	aside_free(&api->aside);
	memo_free(&api->logins);
	guard_free(&api->guard);
	free(api);
}

static struct api *
make(struct home *home)
{
	struct api *api = calloc(1, sizeof(*api));

	if (api == NULL)
		return NULL;
	api->home = home;
	api->logins = memo_make(LOGINS_MAX);
	api->guard = guard_make(GUARD_BUCKETS);
	if (api->logins == NULL || api->guard == NULL || !login_prepare(api)) {
		release(api);
		return NULL;
	}
	api->aside = aside_start();
	api->passwords = aside_start();
	return api;
}

static bool
listen_all(struct api *api)
{
	const struct config *config = api->home->config;
	const struct web_options options = { .threads = config->home.threads,
		                             .connections = CONNECTIONS_MAX,
		                             .connection_bytes = CONNECTION_BYTES,
		                             .header_bytes = HEADER_BYTES,
		                             .routes = routes,
		                             .n_routes = sizeof(routes) / sizeof(routes[0]),
		                             .arg = api };

	return web_servers_start(&api->servers, config, &config->home.http, &options);
}

struct api *
api_start(struct home *home)
{
	struct api *api = make(home);

	if (api == NULL || api->aside == NULL || api->passwords == NULL) {
		log_error("start-failed", LOG_S("reason", "no memory or threads"));
		api_stop(&api);
	} else if (!listen_all(api)) {
		api_stop(&api);
	}
	return api;
}

void
api_forget(struct api *api)
{
	memo_clear(api->logins);
	live_forget(api->home->live);
}

void
api_drain(struct api *api)
{
	atomic_store(&api->draining, true);
	web_servers_drain(&api->servers);
	live_close_all(api->home->live);
}

/* Those whose request was given up still use what is freed here. The store's patience is
 * shorter than this wait. */
static bool
jobs_ended(struct api *api)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	int64_t until_ms = clock_mono_ms() + JOBS_WAIT_MS;

	while (atomic_load(&api->jobs) > 0 && clock_mono_ms() < until_ms)
		(void)nanosleep(&pause, NULL);
	return atomic_load(&api->jobs) == 0;
}

void
api_stop(struct api **stopped)
{
	struct api *api = *stopped;

	*stopped = NULL;
	if (api == NULL)
		return;
	api_drain(api);
	web_servers_stop(&api->servers, (int64_t)api->home->config->drain_timeout_s * 1000 / 2);
	atomic_store(&api->stopping, true);
	if (!jobs_ended(api)) {
		/* The process ends: memory that the store may still write to is left to it. */
		log_warn("requests-left", LOG_I("jobs", atomic_load(&api->jobs)));
		return;
	}
	if (api->passwords != NULL)
		aside_stop(api->passwords);
	if (api->aside != NULL)
		aside_stop(api->aside);
	release(api);
}
