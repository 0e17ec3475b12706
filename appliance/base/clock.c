/* The clocks: see clock.h. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static _Atomic int64_t frozen_us = -1;

static int64_t
read_us(clockid_t id)
{
	struct timespec ts;
	int64_t frozen = atomic_load_explicit(&frozen_us, memory_order_relaxed);

	if (frozen >= 0)
		return frozen;
	(void)clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_wall_us(void)
{
	return read_us(CLOCK_REALTIME);
}

int64_t
clock_wall_s(void)
{
	return clock_wall_us() / 1000000;
}

int64_t
clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

int64_t
clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

int64_t
clock_jump_us(struct clock_watch *watch)
{
	int64_t ahead_us = clock_wall_us() - clock_mono_us();
	int64_t jump = watch->begun ? ahead_us - watch->ahead_us : 0;

	watch->begun = true;
	watch->ahead_us = ahead_us;
	return jump > -1000000 && jump < 1000000 ? 0 : jump;
}

void
clock_freeze(int64_t wall_us)
{
	atomic_store(&frozen_us, wall_us);
}

void
clock_format_rfc3339(int64_t wall_us, char out[static 32])
{
	time_t s = (time_t)(wall_us / 1000000);
	struct tm tm;

	if (gmtime_r(&s, &tm) == NULL) {
		(void)snprintf(out, 32, "1970-01-01T00:00:00Z");
		return;
	}
	(void)snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02dZ", (tm.tm_year + 1900) % 10000,
	               (tm.tm_mon + 1) % 100, tm.tm_mday % 100, tm.tm_hour % 100,
	               tm.tm_min % 100, tm.tm_sec % 100);
}
