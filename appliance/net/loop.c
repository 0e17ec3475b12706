/*
 * The event loop: see loop.h. libevent waits; the timers are ours, in a pairing
 * heap whose links stand in the timers themselves, because setting one must not
 * fail and because an idle deadline is put off far more often than it fires.
 */
#include "net/loop.h"

#include "base/clock.h"
#include "base/log.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdlib.h>

struct loop {
	struct event_base *base;
	struct event *alarm; /* the one libevent timer: the earliest of ours */
	struct mailbox box;
	struct loop_fd box_watch;
	struct loop_timer *timers;
	struct loop_defer waiting, ready; /* circular, these are the heads */
	struct loop_guest *guests;
	int64_t now_ms;
	int64_t alarm_ms; /* when alarm fires; -1: it isn't set */
	atomic_bool stop;
	bool stale;     /* the turn's time hasn't been read since the wait */
	bool in_timers; /* timers are being run */
	uint8_t scratch_in[LOOP_SCRATCH];
	uint8_t scratch_out[LOOP_SCRATCH];
};

static void
refresh(struct loop *loop)
{
	if (!loop->stale)
		return;
	loop->now_ms = clock_mono_ms();
	loop->stale = false;
}

/* --- timers --------------------------------------------------------------- */

/* The earlier of two roots, the other among its children. */
static struct loop_timer *
meld(struct loop_timer *a, struct loop_timer *b)
{
	struct loop_timer *t;

	if (a == NULL || b == NULL)
		return a == NULL ? b : a;
	if (b->heap_ms < a->heap_ms) {
		t = a;
		a = b;
		b = t;
	}
	b->back = a;
	b->sibling = a->child;
	if (a->child != NULL)
		a->child->back = b;
	a->child = b;
	return a;
}

/*
 * Melds a list of siblings into one root: pairs from the left, then the pairs
 * from the right.
 */
static struct loop_timer *
meld_siblings(struct loop_timer *first)
{
	struct loop_timer *pairs = NULL, *root = NULL, *a, *b, *pair;

	while ((a = first) != NULL) {
		b = a->sibling;
		first = b == NULL ? NULL : b->sibling;
		a->sibling = a->back = NULL;
		if (b != NULL)
			b->sibling = b->back = NULL;
		pair = meld(a, b);
		pair->sibling = pairs;
		pairs = pair;
	}
	while ((a = pairs) != NULL) {
		pairs = a->sibling;
		a->sibling = NULL;
		root = meld(root, a);
	}
	return root;
}

static void
heap_add(struct loop *loop, struct loop_timer *t, int64_t due_ms)
{
	t->heap_ms = t->due_ms = due_ms;
	t->child = t->sibling = t->back = NULL;
	t->set = true;
	loop->timers = meld(loop->timers, t);
}

static void
heap_remove(struct loop *loop, struct loop_timer *t)
{
	struct loop_timer *below = meld_siblings(t->child);

	t->set = false;
	t->child = NULL;
	if (loop->timers == t) {
		loop->timers = below;
		return;
	}
	if (t->back->child == t)
		t->back->child = t->sibling;
	else
		t->back->sibling = t->sibling;
	if (t->sibling != NULL)
		t->sibling->back = t->back;
	t->sibling = t->back = NULL;
	loop->timers = meld(loop->timers, below);
}

void
loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*fn)(struct loop_timer *),
                void *arg)
{
	*timer = (struct loop_timer){ .loop = loop, .fn = fn, .arg = arg };
}

void
loop_timer_set(struct loop_timer *timer, int64_t ms)
{
	struct loop *loop = timer->loop;
	int64_t due_ms;

	refresh(loop); /* outside a turn the time is old */
	due_ms = loop->now_ms + (ms < 0 ? 0 : ms);
	if (loop->in_timers && due_ms <= loop->now_ms)
		due_ms =
		    loop->now_ms + 1; /* a timer that sets itself to 0 must not hold the turn */
	if (timer->set && due_ms >= timer->heap_ms) {
		timer->due_ms = due_ms; /* moved when its old place comes up */
		return;
	}
	if (timer->set)
		heap_remove(loop, timer);
	heap_add(loop, timer, due_ms);
}

void
loop_timer_cancel(struct loop_timer *timer)
{
	if (timer->set)
		heap_remove(timer->loop, timer);
}

static void
run_timers(struct loop *loop)
{
	struct loop_timer *t;

	loop->in_timers = true;
	while ((t = loop->timers) != NULL && t->heap_ms <= loop->now_ms) {
		heap_remove(loop, t);
		if (t->due_ms > t->heap_ms)
			heap_add(loop, t, t->due_ms); /* it was put off */
		else
			t->fn(t);
	}
	loop->in_timers = false;
}

/* --- work put off ------------------------------------------------------------ */

static void
list_init(struct loop_defer *head)
{
	head->next = head->prev = head;
}

static void
list_append(struct loop_defer *head, struct loop_defer *d)
{
	d->next = head;
	d->prev = head->prev;
	head->prev->next = d;
	head->prev = d;
}

void
loop_defer_init(struct loop_defer *defer, void (*fn)(struct loop_defer *), void *arg)
{
	*defer = (struct loop_defer){ .fn = fn, .arg = arg };
}

void
loop_defer(struct loop *loop, struct loop_defer *defer)
{
	if (defer->prev == NULL)
		list_append(&loop->waiting, defer);
}

void
loop_defer_cancel(struct loop_defer *defer)
{
	if (defer->prev == NULL)
		return;
	defer->prev->next = defer->next;
	defer->next->prev = defer->prev;
	defer->next = defer->prev = NULL;
}

static void
run_deferred(struct loop *loop)
{
	struct loop_defer *d;

	if (loop->waiting.next == &loop->waiting)
		return;
	/*
	 * The whole list changes its head; what is put off from here on waits for the next
	 * turn.
	 */
	loop->ready = loop->waiting;
	loop->ready.next->prev = &loop->ready;
	loop->ready.prev->next = &loop->ready;
	list_init(&loop->waiting);
	while ((d = loop->ready.next) != &loop->ready) {
		loop_defer_cancel(d);
		d->fn(d);
	}
}

/* --- descriptors ----------------------------------------------------------- */

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct loop_fd *watch = arg;

	(void)fd;
	refresh(watch->loop);
	watch->fn(watch, (what & EV_READ) != 0 ? LOOP_READ : LOOP_WRITE);
}

bool
loop_fd_init(struct loop_fd *watch, struct loop *loop, int fd,
             void (*fn)(struct loop_fd *, unsigned), void *arg)
{
	*watch = (struct loop_fd){ .loop = loop, .fn = fn, .arg = arg, .fd = fd };
	watch->read_event = event_new(loop->base, fd, EV_READ | EV_PERSIST, on_event, watch);
	watch->write_event = event_new(loop->base, fd, EV_WRITE | EV_PERSIST, on_event, watch);
	if (watch->read_event != NULL && watch->write_event != NULL)
		return true;
	loop_fd_deinit(watch);
	return false;
}

static bool
want_one(struct event *event, bool had, bool want)
{
	if (had == want)
		return true;
	return (want ? event_add(event, NULL) : event_del(event)) == 0;
}

bool
loop_fd_want(struct loop_fd *watch, unsigned want)
{
	if (want == watch->want)
		return true;
	if (!want_one(watch->read_event, (watch->want & LOOP_READ) != 0,
	              (want & LOOP_READ) != 0))
		return false;
	watch->want = (watch->want & LOOP_WRITE) | (want & LOOP_READ);
	if (!want_one(watch->write_event, (watch->want & LOOP_WRITE) != 0,
	              (want & LOOP_WRITE) != 0))
		return false;
	watch->want = want;
	return true;
}

void
loop_fd_deinit(struct loop_fd *watch)
{
	if (watch->read_event != NULL)
		event_free(watch->read_event);
	if (watch->write_event != NULL)
		event_free(watch->write_event);
	watch->read_event = watch->write_event = NULL;
	watch->want = 0;
}

/* --- tasks ----------------------------------------------------------------- */

void
loop_post(struct loop *loop, struct loop_task *task)
{
	mailbox_post(&loop->box, &task->mail);
}

static void
on_mail(struct loop_fd *watch, unsigned ready)
{
	struct loop *loop = watch->arg;
	struct mail *m = mailbox_take(&loop->box), *next;

	(void)ready;
	for (; m != NULL; m = next) {
		struct loop_task *task = (struct loop_task *)m;

		next = m->next; /* run may free the task */
		task->run(task);
	}
}

void
loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	mailbox_wake(&loop->box);
}

/* --- turns ----------------------------------------------------------------- */

static void
on_alarm(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	loop->alarm_ms = -1;
}

/* Milliseconds that the next wait may last; below 0: without end. */
static int64_t
wait_ms(const struct loop *loop, int64_t max_wait_ms)
{
	int64_t ms;

	if (loop->waiting.next != &loop->waiting || atomic_load(&loop->stop))
		return 0;
	if (loop->timers == NULL)
		return max_wait_ms;
	ms = loop->timers->heap_ms - loop->now_ms;
	if (ms < 0)
		ms = 0;
	return max_wait_ms >= 0 && max_wait_ms < ms ? max_wait_ms : ms;
}

/*
 * Sets libevent's timer for the end of the wait. A system that refuses it makes the wait a
 * poll.
 */
static int
set_alarm(struct loop *loop, int64_t ms)
{
	struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
		              .tv_usec = (suseconds_t)(ms % 1000) * 1000 };

	if (ms == 0)
		return EVLOOP_NONBLOCK;
	if (ms < 0) {
		if (loop->alarm_ms >= 0)
			(void)event_del(loop->alarm);
		loop->alarm_ms = -1;
		return 0;
	}
	if (loop->alarm_ms == loop->now_ms + ms)
		return 0;
	loop->alarm_ms = loop->now_ms + ms;
	return event_add(loop->alarm, &tv) == 0 ? 0 : EVLOOP_NONBLOCK;
}

bool
loop_turn(struct loop *loop, int64_t max_wait_ms)
{
	int flags;

	loop->stale = true;
	refresh(loop);
	flags = EVLOOP_ONCE | set_alarm(loop, wait_ms(loop, max_wait_ms));
	loop->stale = true;
	(void)event_base_loop(loop->base, flags);
	refresh(loop);
	run_timers(loop);
	run_deferred(loop);
	loop->stale = true;
	return !atomic_load(&loop->stop);
}

void
loop_run(struct loop *loop)
{
	while (loop_turn(loop, -1))
		;
}

int64_t
loop_mono_ms(const struct loop *loop)
{
	return loop->now_ms;
}

/* --- its life ------------------------------------------------------------- */

/* What libevent has to say, in our form. */
static void
on_libevent_log(int severity, const char *text)
{
	if (severity >= EVENT_LOG_WARN)
		log_warn("libevent", LOG_S("reason", text));
}

static bool
loop_init(struct loop *loop)
{
	event_set_log_callback(on_libevent_log);
	loop->box.fd = -1;
	list_init(&loop->waiting);
	list_init(&loop->ready);
	loop->now_ms = clock_mono_ms();
	loop->stale = true;
	loop->alarm_ms = -1;
	atomic_init(&loop->stop, false);
	loop->base = event_base_new();
	if (loop->base == NULL || !mailbox_init(&loop->box))
		return false;
	loop->alarm = evtimer_new(loop->base, on_alarm, loop);
	return loop->alarm != NULL &&
	       loop_fd_init(&loop->box_watch, loop, loop->box.fd, on_mail, loop) &&
	       loop_fd_want(&loop->box_watch, LOOP_READ);
}

struct loop *
loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (loop != NULL && !loop_init(loop))
		loop_free(&loop);
	return loop;
}

void
loop_free(struct loop **loop)
{
	struct loop *l = *loop;

	*loop = NULL;
	if (l == NULL)
		return;
	while (l->guests != NULL) {
		struct loop_guest *guest = l->guests;

		loop_guest_remove(guest);
		guest->end(guest);
	}
	loop_fd_deinit(&l->box_watch);
	if (l->alarm != NULL)
		event_free(l->alarm);
	if (l->box.fd >= 0)
		mailbox_deinit(&l->box);
	if (l->base != NULL)
		event_base_free(l->base);
	free(l);
}

void
loop_guest_add(struct loop *loop, struct loop_guest *guest)
{
	guest->next = loop->guests;
	guest->back = &loop->guests;
	if (guest->next != NULL)
		guest->next->back = &guest->next;
	loop->guests = guest;
}

void
loop_guest_remove(struct loop_guest *guest)
{
	if (guest->back == NULL)
		return;
	*guest->back = guest->next;
	if (guest->next != NULL)
		guest->next->back = guest->back;
	guest->next = NULL;
	guest->back = NULL;
}

uint8_t *
loop_scratch_in(struct loop *loop)
{
	return loop->scratch_in;
}

uint8_t *
loop_scratch_out(struct loop *loop)
{
	return loop->scratch_out;
}
