/*
 * Time, injectable: tests set the clock, everything else only reads it.
 * Wall time is for what is stored or sent; monotonic time for waiting.
 */
#ifndef TMTP_BASE_CLOCK_H
#define TMTP_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Wall time, microseconds since 1970 UTC. */
int64_t clock_wall_us(void);

/* Wall time, whole seconds since 1970 UTC. */
int64_t clock_wall_s(void);

/* Monotonic time, milliseconds from an arbitrary start. */
int64_t clock_mono_ms(void);

/* Monotonic time, microseconds from the same start. */
int64_t clock_mono_us(void);

/*
 * Whether the wall clock was set: by how much it went further than the monotonic one since the
 * last call, microseconds, below 0 for back. Less than a second is none: that is a clock being
 * slewed. {0} before the first call.
 */
struct clock_watch {
	bool begun;
	int64_t ahead_us; /* wall minus monotonic */
};

int64_t clock_jump_us(struct clock_watch *watch);

/* Tests only: both clocks stand still at this wall time; below 0 gives the real ones back. */
void clock_freeze(int64_t wall_us);

/* "2026-11-21T23:01:24Z" for wall microseconds, into out (at least 21 octets). */
void clock_format_rfc3339(int64_t wall_us, char out[static 32]);

#endif
