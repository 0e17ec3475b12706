/* Pickups that wait for a host that is back: see resume.h. */
#include "home/resume.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memo.h"
#include "dmtp/address.h"
#include "home/copies.h"
#include "home/pickups.h"
#include "store/pickups.h"

#include <stdlib.h>

#define DOMAINS_MAX 4096
#define FAILED_MS ((int64_t)3600 * 1000) /* no longer than a pickup waits */
#define PAUSE_MS 1000                    /* what comes after all at once asks once, not each */

struct resume {
	struct home *home;
	struct memo *failed;              /* domains of which something was put off */
	char domain[DMTP_DOMAIN_MAX + 1]; /* asked for, or just asked for */
	int64_t again_ms;
	bool busy;
	struct pickup_resume job;
	struct home_later later;
};

static void
item_free(struct memo_item *item)
{
	free(item);
}

struct resume *
resume_new(struct home *home)
{
	struct resume *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->home = home;
	r->failed = memo_make(DOMAINS_MAX);
	if (r->failed == NULL)
		resume_free(&r);
	return r;
}

void
resume_free(struct resume **resume)
{
	if (*resume != NULL)
		memo_free(&(*resume)->failed);
	free(*resume);
	*resume = NULL;
}

void
resume_failed(struct resume *r, struct slice domain)
{
	struct memo_item *item = calloc(1, sizeof(*item));

	if (item == NULL)
		return;
	memo_item_init(item, item_free);
	memo_put(r->failed, domain, item, 1, clock_mono_ms() + FAILED_MS,
	         memo_generation(r->failed));
	memo_item_unref(item);
}

static void
on_resumed(void *arg)
{
	struct resume *r = arg;

	r->busy = false;
	r->again_ms = clock_mono_ms() + PAUSE_MS;
	if (r->job.job.rc != STORE_OK || r->job.count == 0)
		return;
	log_info("pickups-resumed", LOG_S("domain", r->domain), LOG_I("count", r->job.count));
	pickups_wake(r->home->pickups);
	copies_wake(r->home->copies);
}

void
resume_worked(struct resume *r, struct slice domain, bool retried)
{
	struct memo_item *item = memo_get(r->failed, domain, clock_mono_ms(), NULL);
	bool same = slice_eq(slice_str(r->domain), domain);

	if (item == NULL && !retried)
		return;
	memo_item_unref(item);
	if (r->busy || r->home->draining || domain.len > DMTP_DOMAIN_MAX ||
	    (same && clock_mono_ms() < r->again_ms))
		return; /* what stays in failed is looked at with the next that works */
	memo_drop(r->failed, domain);
	memcpy(r->domain, domain.data, domain.len);
	r->domain[domain.len] = '\0';
	r->busy = true;
	r->job =
	    (struct pickup_resume){ .domain = slice_str(r->domain), .now_us = clock_wall_us() };
	home_later(&r->later, r->home, &r->job.job, on_resumed, r);
	store_pickup_resume(r->home->store, &r->job);
}
