/* What the relay does for the tables besides sending: partitions ahead, chunks cut to size. */
#ifndef TMTP_RELAY_UPKEEP_H
#define TMTP_RELAY_UPKEEP_H

#include "relay/relay.h"

struct upkeep;

struct upkeep *upkeep_new(struct relay *relay);
void upkeep_free(struct upkeep **upkeep);

#endif
