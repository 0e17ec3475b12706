/* What the role does for its tables besides: partitions ahead, old ids and log-ins forgotten. */
#ifndef TMTP_HOME_UPKEEP_H
#define TMTP_HOME_UPKEEP_H

#include "home/home.h"

struct home_upkeep;

struct home_upkeep *home_upkeep_new(struct home *home);
void home_upkeep_free(struct home_upkeep **upkeep);

#endif
