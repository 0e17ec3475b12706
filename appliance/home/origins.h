/*
 * Other domains' web servers, as this role fetches from them: site cards and
 * messages. Knows the pinned routes and the address rule; whether a host may
 * be asked for something is the caller's rule.
 */
#ifndef TMTP_HOME_ORIGINS_H
#define TMTP_HOME_ORIGINS_H

#include "home/home.h"
#include "net/fetch.h"

/* NULL: why says what failed. */
struct origins *origins_new(struct home *home, char why[static NET_TEXT]);

/* After the loop has stopped, and everything that fetches is freed. */
void origins_free(struct origins **origins);

/*
 * Fetches a URL for what domain sent or publishes, over its route if it has
 * one; as fetch_start otherwise. request's ca_file, pin and allow_private are
 * filled in here.
 */
struct fetch *origins_fetch(struct origins *origins, struct slice domain,
                            const struct fetch_request *request,
                            void (*fn)(void *arg, const struct fetch_answer *answer),
                            void *arg);

#endif
