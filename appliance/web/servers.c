/* The servers of one role: see servers.h. */
#include "web/servers.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

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

bool
web_servers_start(struct web_servers *servers, const struct config *config,
                  const struct config_http *http, const struct web_options *common)
{
	struct web_options options = *common;
	char error[WEB_ERROR_TEXT] = "no memory";
	struct web_cert *certs = certificates(config, &options.n_certs);
	bool good;

	options.certs = certs;
	if (!http->tls)
		options.n_certs = 0;
	servers->tls = http->tls;
	servers->items = calloc(http->listen.count + 1, sizeof(struct web_server *));
	good = certs != NULL && servers->items != NULL;
	while (good && servers->n < http->listen.count) {
		options.listen = http->listen.items[servers->n].text;
		good = web_server_start(&options, &servers->items[servers->n], error) == WEB_OK;
		servers->n += good;
	}
	if (!good)
		log_error("listen-failed", LOG_S("address", options.listen),
		          LOG_S("reason", error));
	free(certs);
	return good;
}

void
web_servers_reload(struct web_servers *servers, const struct config *loaded)
{
	char error[WEB_ERROR_TEXT];
	struct web_cert *certs;
	size_t n = 0;

	if (!servers->tls)
		return;
	certs = certificates(loaded, &n);
	for (size_t i = 0; certs != NULL && i < servers->n; i++)
		if (web_server_reload_tls(servers->items[i], certs, n, error) != WEB_OK)
			log_error("certificates-kept", LOG_S("reason", error));
	free(certs);
}

void
web_servers_drain(struct web_servers *servers)
{
	for (size_t i = 0; i < servers->n; i++)
		web_server_drain(servers->items[i]);
}

void
web_servers_stop(struct web_servers *servers, int64_t grace_ms)
{
	int64_t until_ms = clock_mono_ms() + grace_ms;

	for (size_t i = 0; i < servers->n; i++) {
		int64_t left_ms = until_ms - clock_mono_ms();

		web_server_stop(&servers->items[i], left_ms > 0 ? (unsigned)left_ms : 0);
	}
	free(servers->items);
	*servers = (struct web_servers){ .n = 0 };
}
