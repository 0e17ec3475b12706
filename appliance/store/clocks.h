/*
 * A clock that was set back. What waits, waits until a time; if that was
 * written while the clock was ahead by an hour, it would wait for an hour once
 * the clock is right. The latest time seen stands in the database, so that a
 * process finds the difference also when it wasn't there meanwhile, and of
 * several processes one moves what waits.
 */
#ifndef TMTP_STORE_CLOCKS_H
#define TMTP_STORE_CLOCKS_H

#include "store/store.h"

/*
 * Below this a difference is another host's clock, or nothing worth moving. It
 * has to stay below any lease, so that no lease outlives it by much.
 */
#define CLOCK_BACK_S 60

struct clock_see {
	struct store_job job;
	int64_t now_us;
	/* out */
	int64_t
	    back_us; /* it was set back by so much, and this call has moved what waits; else 0 */
	int64_t
	    set_back; /* how often that was found, by anybody: what grows is a reason to read again */
	int64_t moved; /* rows */
};

/* For the role relay: batches, peers, what waits to be told. For the role home: pickups. */
void store_clock_see_relay(struct store *store, struct clock_see *see);
void store_clock_see_home(struct store *store, struct clock_see *see);

#endif
