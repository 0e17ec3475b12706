/*
 * Asks home domains what their members said to sites here (CHANNELS since), so
 * that a GRANT that got lost is made good: when a domain is there again after
 * an outage, about once a day, and when an administrator says so.
 */
#ifndef TMTP_RELAY_CATCHUP_H
#define TMTP_RELAY_CATCHUP_H

#include "relay/peer.h"

struct catchup *catchup_new(struct relay *relay);
void catchup_free(struct catchup **catchup);

/* A question may be due: look soon. */
void catchup_wake(struct catchup *catchup);

/* A domain that could not be reached answers again. */
void catchup_recovered(struct catchup *catchup, const struct peer *peer);

#endif
