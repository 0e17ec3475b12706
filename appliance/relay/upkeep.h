/* What the relay does for the tables besides sending: partitions ahead, chunks cut to size. */
#ifndef TMTP_RELAY_UPKEEP_H
#define TMTP_RELAY_UPKEEP_H

#include "relay/relay.h"

struct relay_upkeep;

struct relay_upkeep *relay_upkeep_new(struct relay *relay);
void relay_upkeep_free(struct relay_upkeep **upkeep);

#endif
