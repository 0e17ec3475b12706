/* PRESENCE on its way: what contacts' servers are told of members who agreed to it. */
#ifndef TMTP_RELAY_PRESENCES_H
#define TMTP_RELAY_PRESENCES_H

#include "relay/relay.h"

struct presences *presences_new(struct relay *relay);
void presences_free(struct presences **presence);

/* Something may wait: look soon. */
void presences_wake(struct presences *presence);

#endif
