/*
 * A clock that was set back. What waits, waits until a time; if that was
 * written while the clock was ahead by an hour, it would wait for an hour once
 * the clock is right. The latest time seen stands in the database, so that a
 * process finds the difference also when it wasn't there meanwhile, and of
 * several processes one moves what waits.
 */
#ifndef TMTP_STORE_CLOCKS_H
#define TMTP_STORE_CLOCKS_H

#include "base/clock.h"
#include "store/store.h"

/*
 * Below this a difference is another host's clock, or nothing worth moving. It
 * has to stay below any lease, so that no lease outlives it by much.
 */
#define CLOCK_BACK_S 60

struct clock_see {
	struct store_job job;
	int64_t now_us;
	int64_t
	    seen_us; /* the latest time that this process saw, when it knows of a later one; else below 0 */
	/* out */
	int64_t
	    back_us; /* it was set back by so much, and this call has moved what waits; else 0 */
	int64_t
	    set_back; /* how often that was found, by anybody: what grows is a reason to read again */
	int64_t moved; /* rows */
};

/*
 * For the role relay: batches, peers, what waits to be told; and who joined a
 * channel at a time that is yet to come has joined it now, or messages to all
 * would not be for her. For the role home: pickups.
 */
void store_clock_see_relay(struct store *store, struct clock_see *see);
void store_clock_see_home(struct store *store, struct clock_see *see);

/* When to ask: a process looks at its own clock every CLOCK_LOOK_MS, and asks when that is due. {0} at first. */
#define CLOCK_LOOK_MS 200

struct clock_look {
	struct clock_watch watch;
	int64_t due_ms; /* monotonic */
	int64_t
	    seen_us; /* not yet told: the latest time before the clock was set back; 0: none */
	bool busy;   /* asked, and not answered */
};

/*
 * True: see is filled and to be given to the store now; clock_look_done follows its answer.
 * *back_us: the clock was just set back by so much, else 0: what is in memory is to be moved.
 */
bool clock_look(struct clock_look *look, struct clock_see *see, int64_t *back_us);
void clock_look_done(struct clock_look *look, const struct clock_see *see);

#endif
