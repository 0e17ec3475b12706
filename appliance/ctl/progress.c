/* The progress bar: see progress.h. A thread draws it, since the work itself blocks. */
#include "ctl/progress.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define FIRST_MS 1000
#define EVERY_MS 250
#define BAR_WIDTH 24

static void
draw(struct progress *p, int64_t since_ms)
{
	char bar[BAR_WIDTH + 1];
	size_t full = p->all == 0 ? 0 : p->done * BAR_WIDTH / p->all;

	for (size_t i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < full ? '#' : '.';
	bar[BAR_WIDTH] = '\0';
	(void)fprintf(stderr, "\r\033[K[%s] %zu of %zu  %s  %" PRId64 " s", bar, p->done,
	              p->all, p->step != NULL ? p->step : "", since_ms / 1000);
	(void)fflush(stderr);
	p->drawn = true;
}

static void
erase(struct progress *p)
{
	if (p->drawn)
		(void)fputs("\r\033[K", stderr);
	p->drawn = false;
}

static struct timespec
after_ms(int64_t ms)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static void *
run(void *arg)
{
	struct progress *p = arg;
	struct timespec until = after_ms(FIRST_MS);

	pthread_mutex_lock(&p->lock);
	while (!p->over) {
		if (pthread_cond_timedwait(&p->wake, &p->lock, &until) != ETIMEDOUT)
			continue;
		draw(p, clock_mono_ms() - p->began_ms);
		until = after_ms(EVERY_MS);
	}
	erase(p);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void
progress_begin(struct progress *p, size_t all)
{
	pthread_condattr_t attr;

	*p = (struct progress){ .all = all, .began_ms = clock_mono_ms() };
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	p->running =
	    isatty(STDERR_FILENO) != 0 && pthread_create(&p->thread, NULL, run, p) == 0;
}

void
progress_step(struct progress *p, size_t done, const char *name)
{
	pthread_mutex_lock(&p->lock);
	p->done = done;
	p->step = name;
	erase(p);
	pthread_mutex_unlock(&p->lock);
}

void
progress_end(struct progress *p)
{
	pthread_mutex_lock(&p->lock);
	p->over = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	if (p->running)
		(void)pthread_join(p->thread, NULL);
	(void)pthread_cond_destroy(&p->wake);
	(void)pthread_mutex_destroy(&p->lock);
}
