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
#include "web/reply.h"
#include "web/server.h"

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

static void
on_livez(struct web_request *req, void *arg)
{
	(void)arg;
	web_reply_bytes(req, 200, TEXT, SLICE("ok\n"));
}

/* The reason is the operator's, on the metrics' listener: the public hears only that. */
static void
on_readyz(struct web_request *req, void *arg)
{
	struct api *api = arg;

	if (atomic_load(&api->draining))
		web_reply_bytes(req, 503, TEXT, SLICE("draining\n"));
	else if (store_is_up(api->home->store, NULL))
		web_reply_bytes(req, 200, TEXT, SLICE("ok\n"));
	else
		web_reply_bytes(req, 503, TEXT, SLICE("not ready\n"));
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
	{ WEB_GET, "/livez", on_livez, 0, 0 },
	{ WEB_GET, "/readyz", on_readyz, 0, 0 },
};

/* --- certificates --------------------------------------------------------------------- */

/* The domains' pairs, to be freed; borrows their names. */
static struct web_cert *
certificates(const struct config *config, size_t *count)
{
	struct web_cert *certs = calloc(config->domains_count + 1, sizeof(*certs));
	size_t n = 0;

	for (size_t i = 0; certs != NULL && i < config->domains_count; i++) {
		const struct config_domain *d = &config->domains[i];

		if (d->certificate != NULL)
			certs[n++] = (struct web_cert){ d->certificate, d->key };
	}
	*count = n;
	return certs;
}

void
api_reload(struct api *api, const struct config *loaded)
{
	char error[WEB_ERROR_TEXT];
	size_t n = 0;
	struct web_cert *certs;

	if (!api->home->config->home.http.tls)
		return;
	certs = certificates(loaded, &n);
	for (size_t i = 0; certs != NULL && i < api->servers_n; i++)
		if (web_server_reload_tls(api->servers[i], certs, n, error) != WEB_OK)
			log_error("certificates-kept", LOG_S("reason", error));
	free(certs);
}

/* --- life -------------------------------------------------------------------------------- */

static void
release(struct api *api)
{
	aside_free(&api->passwords);
	aside_free(&api->aside);
	memo_free(&api->logins);
	guard_free(&api->guard);
	free(api->servers);
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
	api->servers =
	    calloc(home->config->home.http.listen.count, sizeof(struct web_server *));
	if (api->logins == NULL || api->guard == NULL || api->servers == NULL ||
	    !login_prepare(api)) {
		release(api);
		return NULL;
	}
	api->aside = aside_start();
	api->passwords = aside_start();
	return api;
}

static bool
listen_all(struct api *api, struct buffer *error)
{
	const struct config *config = api->home->config;
	struct web_options options = { .threads = config->home.threads,
		                       .connections = CONNECTIONS_MAX,
		                       .connection_bytes = CONNECTION_BYTES,
		                       .header_bytes = HEADER_BYTES,
		                       .routes = routes,
		                       .n_routes = sizeof(routes) / sizeof(routes[0]),
		                       .arg = api };
	char text[WEB_ERROR_TEXT] = "no memory";
	struct web_cert *certs = certificates(config, &options.n_certs);
	bool good = certs != NULL;

	options.certs = certs;
	if (!config->home.http.tls)
		options.n_certs = 0;
	while (good && api->servers_n < config->home.http.listen.count) {
		options.listen = config->home.http.listen.items[api->servers_n].text;
		good =
		    web_server_start(&options, &api->servers[api->servers_n], text) == WEB_OK;
		api->servers_n += good;
	}
	if (!good)
		buffer_add_str(error, text);
	free(certs);
	return good;
}

struct api *
api_start(struct home *home, struct buffer *error)
{
	struct api *api = make(home);

	if (api == NULL || api->aside == NULL || api->passwords == NULL) {
		buffer_add_str(error, "no memory or threads");
		api_stop(&api);
		return NULL;
	}
	if (!listen_all(api, error)) {
		api_stop(&api);
		return NULL;
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
	for (size_t i = 0; i < api->servers_n; i++)
		web_server_drain(api->servers[i]);
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
	unsigned grace_ms;

	*stopped = NULL;
	if (api == NULL)
		return;
	grace_ms = api->home->config->drain_timeout_s * 1000 / 2;
	api_drain(api);
	for (size_t i = 0; i < api->servers_n; i++)
		web_server_stop(&api->servers[i], grace_ms);
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
