/*
 * The servers of one role: one for each address in its configuration, all with
 * the same routes and the domains' certificates. What fails is logged here.
 */
#ifndef TMTP_WEB_SERVERS_H
#define TMTP_WEB_SERVERS_H

#include "base/config.h"
#include "web/server.h"

/* All zero: none. */
struct web_servers {
	struct web_server **items;
	size_t n;
	bool tls;
};

/*
 * On each of http's addresses; listen and certs of common are filled in here.
 * False: logged; what did start is to be stopped all the same.
 */
bool web_servers_start(struct web_servers *servers, const struct config *config,
                       const struct config_http *http, const struct web_options *common)
    __attribute__((warn_unused_result));

/* The certificates of a configuration that was read again; those that can't be used are kept. */
void web_servers_reload(struct web_servers *servers, const struct config *loaded);

/* See web_server_drain. */
void web_servers_drain(struct web_servers *servers);

/* One after the other; all of them together wait for grace_ms. */
void web_servers_stop(struct web_servers *servers, int64_t grace_ms);

#endif
