/*
 * Picking messages up: eagerly, once for all members and processes, over the
 * notification's URIs in their order; verified against the notification before
 * anybody sees it. A lease in the store is the lock; what a process leaves
 * undone another one finds when the lease has run out.
 */
#ifndef TMTP_HOME_PICKUPS_H
#define TMTP_HOME_PICKUPS_H

#include "home/home.h"
#include "net/address.h"
#include "store/arrivals.h"
#include "store/pickups.h"

#define PICKUP_LEASE_US (INT64_C(90) * 1000000)

/* NULL: no memory. */
struct pickups *pickups_new(struct home *home);

/* After the loop has stopped. */
void pickups_free(struct pickups **pickups);

/* A notification was stored for somebody: picks it up when fresh, shows it to those who watch when it can be seen. */
void pickups_arrived(struct pickups *pickups, const struct arrival *arrival);

/*
 * The same for an invitation's words. Those of one that isn't shown, or is for nobody, are
 * fetched too, and thrown away: the sender's web server must not see who is there.
 */
void pickups_invited(struct pickups *pickups, const struct arrival_invite *invite);

/* Looks for work that another life left behind. */
void pickups_wake(struct pickups *pickups);

/* Fetches under way. */
size_t pickups_count(const struct pickups *pickups);

#endif
