/* The members' HTTP API: routes, their listener, its life. See API.md. */
#ifndef TMTP_HOME_API_H
#define TMTP_HOME_API_H

#include "home/home.h"

/* Starts listening as config->home.http says. NULL: logged. */
struct api *api_start(struct home *home);

/* Certificates again, from a configuration just loaded; the old ones stay on error, with a log
 * line. */
void api_reload(struct api *api, const struct config *loaded);

/* Caches of log-ins forget what they have: the revision changed. Any thread. */
void api_forget(struct api *api);

/* New requests get 503, event streams end; what is under way is answered. */
void api_drain(struct api *api);

/* After the drain and before the store stops. */
void api_stop(struct api **stopped);

#endif
