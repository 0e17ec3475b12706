/* What large attachments a message has, on its way into the store: see copies.h. */
#include "home/copies.h"

#include "base/clock.h"
#include "base/log.h"
#include "dmtp/message.h"

#include <stdlib.h>

/* More than anybody looks at; what is beyond is never fetched. */
#define ATTACHMENTS_MAX COPY_INFOS_MAX
#define URIS_OCTETS_MAX 65536

struct one {
	struct copy_announce job;
	struct home_later later;
	struct copies_announce *all;
	struct buffer uris;
};

struct copies_announce {
	struct copies *copies;
	struct home *home;
	void (*fn)(void *arg, bool stored); /* NULL: cancelled */
	void *arg;
	struct one *ones;
	size_t n, waiting;
	bool failed;
};

struct rouse {
	struct copy_rouse job;
	struct home_later later;
	struct copies *copies;
};

static void
announce_free(struct copies_announce *a)
{
	for (size_t i = 0; i < a->n; i++)
		buffer_free(&a->ones[i].uris);
	free(a->ones);
	free(a);
}

static void
on_stored(void *arg)
{
	struct one *one = arg;
	struct copies_announce *a = one->all;
	void (*fn)(void *, bool) = a->fn;
	void *fn_arg = a->arg;
	bool stored;

	if (one->job.job.rc != STORE_OK)
		a->failed = true;
	if (--a->waiting > 0)
		return;
	stored = !a->failed;
	if (stored)
		copies_wake(a->copies);
	announce_free(a);
	if (fn != NULL)
		fn(fn_arg, stored);
}

static void
put_uris(struct slice inside, struct buffer *out)
{
	struct ben_reader it;

	buffer_init(out, URIS_OCTETS_MAX);
	ben_reader_init(&it, inside);
	while (ben_more(&it)) {
		if (out->len > 0)
			buffer_add_u8(out, '\n');
		buffer_add_slice(out, ben_get_str(&it));
	}
}

static void
add(struct copies_announce *a, const struct uuid *id, const struct dmtp_field *f, int number)
{
	struct one *one = &a->ones[a->n];

	put_uris(f->uris, &one->uris);
	if (one->uris.failed) {
		buffer_free(&one->uris);
		return;
	}
	one->all = a;
	one->job.notification_id = *id;
	one->job.number = number;
	one->job.size = f->size;
	one->job.digest = f->digest;
	one->job.uris = buffer_slice(&one->uris);
	one->job.limits = copies_limits(a->home);
	one->job.fresh_id = uuid_make();
	one->job.now_us = clock_wall_us();
	a->n++;
}

static void
find_all(struct copies_announce *a, const struct uuid *id, struct slice body)
{
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;
	int number = 0;

	if (dmtp_message_decode(body, &m) != DMTP_MESSAGE_OK)
		return;
	ben_reader_init(&it, m.fields);
	while (dmtp_field_next(&it, &f) && a->n < ATTACHMENTS_MAX) {
		if (f.name != DMTP_ATTACHMENT)
			continue;
		if (f.large)
			add(a, id, &f, number);
		number++;
	}
}

/* Most messages have none: asked without memory. */
static bool
has_large(struct slice body)
{
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;
	bool found = false;

	if (dmtp_message_decode(body, &m) != DMTP_MESSAGE_OK)
		return false;
	ben_reader_init(&it, m.fields);
	while (!found && dmtp_field_next(&it, &f))
		found = f.name == DMTP_ATTACHMENT && f.large;
	return found;
}

bool
copies_announce(struct copies *copies, const struct uuid *notification_id, struct slice body,
                struct copies_announce **out, void (*fn)(void *arg, bool stored), void *arg)
{
	struct home *home = copies_home(copies);
	struct copies_announce *a;

	if (!has_large(body))
		return false;
	a = calloc(1, sizeof(*a));
	if (a == NULL || (a->ones = calloc(ATTACHMENTS_MAX, sizeof(*a->ones))) == NULL) {
		free(a);
		log_error("attachments-forgotten", LOG_S("reason", "out of memory"));
		return false;
	}
	a->copies = copies;
	a->home = home;
	a->fn = fn;
	a->arg = arg;
	find_all(a, notification_id, body);
	if (a->n == 0) {
		announce_free(a);
		return false;
	}
	a->waiting = a->n;
	*out = a;
	for (size_t i = 0, n = a->n; i < n; i++) {
		struct one *one = &a->ones[i];

		one->job.job.patience_ms = 60000;
		home_later(&one->later, home, &one->job.job, on_stored, one);
		store_copy_announce(home->store, &one->job);
	}
	return true;
}

/* The jobs go on: they borrow from what the asker may free, but for that they are done by then. */
void
copies_announce_cancel(struct copies_announce **announce)
{
	if (*announce != NULL)
		(*announce)->fn = NULL;
	*announce = NULL;
}

static void
on_roused(void *arg)
{
	struct rouse *r = arg;

	copies_wake(r->copies);
	free(r);
}

void
copies_rouse(struct copies *copies, const struct uuid *notification_id)
{
	struct home *home = copies_home(copies);
	struct rouse *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return;
	r->copies = copies;
	r->job.notification_id = *notification_id;
	home_later(&r->later, home, &r->job.job, on_roused, r);
	store_copy_rouse(home->store, &r->job);
}
