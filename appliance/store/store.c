/* The engine: its thread, lanes and life. See store.h. */
#include "store/store.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/worker.h"
#include "store/notify.h"
#include "store/pulse.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define WORKERS_MAX 16
#define PATIENCE_MS 2000
/*
 * A second connection begins a transaction of its own when so many jobs wait, or when the first
 * one takes so long: a transaction costs as much as twenty small jobs, so few large ones get more
 * done than many small ones.
 */
#define SHARE_JOBS 32
#define SHARE_MS 4
#define TRIES_MAX 5 /* after the first, of a job whose connection dies */

struct lane {
	struct store_job *first;
	struct store_job **last;
};

struct store {
	pthread_t thread;
	struct mailbox boxes[STORE_LANES]; /* new jobs, by lane */
	struct mailbox wake;               /* nothing is posted: it ends the wait */
	char *conninfo, *name;
	char worker[UUID_TEXT]; /* this process, or "" */
	int64_t patience_ms;
	struct lane lanes[STORE_LANES];
	struct worker workers[WORKERS_MAX];
	size_t workers_n;
	unsigned own_lanes; /* bits of the lanes that have connections of their own */
	struct notifier notifier;
	struct pulse pulse;

	pthread_mutex_t lock; /* guards the rest */
	size_t up;
	struct buffer error;
	_Atomic bool stopping;
	int64_t stop_at_ms;
};

const char *
store_rc_text(enum store_rc rc)
{
	static const char *const texts[] = {
		[STORE_OK] = "ok",
		[STORE_NOT_FOUND] = "not found",
		[STORE_CONFLICT] = "taken already",
		[STORE_REFUSED] = "refused by the database's rules",
		[STORE_DOWN] = "the database is not available",
		[STORE_COMMIT_UNKNOWN] = "the database connection was lost during the commit",
	};

	return texts[rc];
}

static struct lane *
lane_of(struct store *s, const struct store_job *job)
{
	enum store_lane lane = job->op->lane;

	return &s->lanes[(s->own_lanes & 1U << lane) != 0 ? lane : STORE_WRITE];
}

static void
lane_append(struct lane *lane, struct store_job *job)
{
	job->mail.next = NULL;
	*lane->last = job;
	lane->last = (struct store_job **)&job->mail.next;
}

static struct store_job *
lane_take(struct lane *lane)
{
	struct store_job *job = lane->first;

	if (job != NULL) {
		lane->first = (struct store_job *)job->mail.next;
		if (lane->first == NULL)
			lane->last = &lane->first;
	}
	return job;
}

void
store_finish(struct store *s, struct store_job *job, enum store_rc rc)
{
	(void)s;
	/* "Nothing was stored" can't be said of who lost an answer before. */
	job->rc = rc == STORE_DOWN && job->uncertain ? STORE_COMMIT_UNKNOWN : rc;
	job->done(job);
}

bool
store_may_again(struct store_job *job, unsigned tries_max)
{
	return ++job->tries <= tries_max && clock_mono_ms() < job->deadline_ms;
}

void
store_again(struct store *s, struct store_job *job, enum store_rc otherwise)
{
	struct lane *lane = lane_of(s, job);

	if (!store_may_again(job, TRIES_MAX)) {
		store_finish(s, job, otherwise);
		return;
	}
	if (job->uncertain && job->op->again != NULL)
		job->op = job->op->again;
	job->mail.next = (struct mail *)lane->first;
	if (lane->first == NULL)
		lane->last = (struct store_job **)&job->mail.next;
	lane->first = job;
}

void
store_link_changed(struct store *s)
{
	size_t up = 0;
	struct buffer *error = NULL;

	for (size_t i = 0; i < s->workers_n; i++) {
		up += s->workers[i].link.state == LINK_UP;
		if (s->workers[i].link.error.len > 0)
			error = &s->workers[i].link.error;
	}
	pthread_mutex_lock(&s->lock);
	if ((s->up == 0) != (up == 0))
		log_info(up > 0 ? "database-up" : "database-down",
		         LOG_S("connections", s->name));
	s->up = up;
	buffer_clear(&s->error);
	if (error != NULL)
		buffer_add_slice(&s->error, buffer_slice(error));
	pthread_mutex_unlock(&s->lock);
}

bool
store_is_up(struct store *s, struct buffer *why)
{
	bool up;

	pthread_mutex_lock(&s->lock);
	up = s->up > 0;
	if (!up && why != NULL)
		buffer_add_str(why,
		               s->error.len > 0 ? (char *)s->error.data : "not connected yet");
	pthread_mutex_unlock(&s->lock);
	return up;
}

static void
take_lane_mail(struct store *s, struct mailbox *box)
{
	struct mail *m = mailbox_take(box);
	int64_t now = clock_mono_ms();

	while (m != NULL) {
		struct store_job *job = (struct store_job *)m;

		m = m->next;
		job->deadline_ms =
		    now + (job->patience_ms > 0 ? job->patience_ms : s->patience_ms);
		job->tries = 0;
		job->uncertain = false;
		lane_append(lane_of(s, job), job);
	}
}

/*
 * How many new jobs of a lane are worth taking now. SIZE_MAX: none, no connection is free for
 * them; who becomes free takes them. *again_ms (-1 before): when the answer changes by itself.
 */
static size_t
lane_need(const struct store *s, unsigned lane, int64_t now_ms, int64_t *again_ms)
{
	size_t idle = 0, busy = 0;
	int64_t sent_ms = now_ms;

	for (size_t i = 0; i < s->workers_n; i++) {
		const struct worker *c = &s->workers[i];

		if ((c->lanes & 1U << lane) == 0)
			continue;
		if (c->link.state != LINK_UP) /* their patience runs from when they are taken */
			return 1;
		idle += worker_is_idle(c);
		busy += !worker_is_idle(c);
		if (!worker_is_idle(c) && c->sent_ms < sent_ms)
			sent_ms = c->sent_ms;
	}
	if (s->stopping)
		return 1;
	if (idle == 0)
		return SIZE_MAX;
	if (busy == 0 || lane != STORE_WRITE || now_ms - sent_ms >= SHARE_MS)
		return 1;
	if (*again_ms < 0)
		*again_ms = sent_ms + SHARE_MS;
	return SHARE_JOBS;
}

/* Takes what waits in the boxes where there is enough. */
static void
take_mail(struct store *s, int64_t now_ms)
{
	int64_t again_ms = -1;

	for (unsigned lane = 0; lane < STORE_LANES; lane++)
		if (mailbox_waiting(&s->boxes[lane]) >= lane_need(s, lane, now_ms, &again_ms))
			take_lane_mail(s, &s->boxes[lane]);
}

/* Has the boxes ring for what is enough as things stand now. When to look without that; -1: never. */
static int64_t
expect_mail(struct store *s, int64_t now_ms)
{
	int64_t again_ms = -1;

	for (unsigned lane = 0; lane < STORE_LANES; lane++)
		if (mailbox_expect(&s->boxes[lane], lane_need(s, lane, now_ms, &again_ms)))
			again_ms = now_ms;
	return again_ms;
}

static struct set *
gather(struct store *s, struct worker *c)
{
	struct set *set = NULL;
	size_t octets = 0;

	if (c->again != NULL) {
		set = c->again;
		c->again = set->next;
		return set;
	}
	for (unsigned lane = 0; lane < STORE_LANES; lane++) {
		struct store_job *job;

		if ((c->lanes & 1U << lane) == 0 || s->lanes[lane].first == NULL)
			continue;
		if (set == NULL) {
			/* NOLINTNEXTLINE(bugprone-sizeof-expression): its array is one of pointers */
			set = malloc(sizeof(*set) + SET_JOBS_MAX * sizeof(set->job[0]));
			if (set == NULL)
				return NULL;
			set->n = 0;
		}
		while (set->n < SET_JOBS_MAX && octets < SET_OCTETS_MAX &&
		       (job = lane_take(&s->lanes[lane])) != NULL) {
			set->job[set->n++] = job;
			octets += job->op->octets == NULL ? 0 : job->op->octets(job);
		}
	}
	return set;
}

static void
dispatch(struct store *s)
{
	for (size_t i = 0; i < s->workers_n; i++) {
		struct worker *c = &s->workers[i];
		struct set *set;

		if (worker_is_idle(c) && (set = gather(s, c)) != NULL)
			worker_send(c, set, clock_mono_ms());
	}
}

/* Jobs that waited too long for a database that is gone are told so. Returns the next deadline, -1: none. */
static int64_t
expire(struct store *s, int64_t now)
{
	int64_t next = -1;

	for (unsigned l = 0; l < STORE_LANES; l++) {
		struct lane old = s->lanes[l];
		struct store_job *job;

		if (old.first == NULL)
			continue;
		s->lanes[l] = (struct lane){ NULL, &s->lanes[l].first };
		while ((job = lane_take(&old)) != NULL) {
			if (now >= job->deadline_ms) {
				store_finish(s, job, STORE_DOWN);
				continue;
			}
			if (next < 0 || job->deadline_ms < next)
				next = job->deadline_ms;
			lane_append(&s->lanes[l], job);
		}
	}
	return next;
}

static bool
is_quiet(struct store *s)
{
	for (size_t i = 0; i < s->workers_n; i++)
		if (s->workers[i].set != NULL || s->workers[i].again != NULL)
			return false;
	for (unsigned l = 0; l < STORE_LANES; l++)
		if (s->lanes[l].first != NULL)
			return false;
	for (unsigned l = 0; l < STORE_LANES; l++)
		if (mailbox_waiting(&s->boxes[l]) > 0)
			return false;
	return true;
}

static bool
must_end(struct store *s, int64_t now)
{
	_Atomic bool stopping;

	pthread_mutex_lock(&s->lock);
	stopping = s->stopping && now >= s->stop_at_ms;
	if (s->stopping && !stopping)
		stopping = is_quiet(s) && !notifier_is_owed(&s->notifier);
	pthread_mutex_unlock(&s->lock);
	return stopping;
}

/*
 * Asks a database that has been quiet for a sign of life, and gives up every connection to one
 * that gives none: what was sent may have been committed, what waits has its patience. Returns
 * when to look again; -1: when there is a connection.
 */
static int64_t
feel_pulse(struct store *s, int64_t now_ms)
{
	static const char text[] = "the database does not answer";
	int64_t heard_ms = s->notifier.link.heard_ms, again_ms;

	if (s->up == 0) {
		s->pulse.asked = false;
		return -1;
	}
	for (size_t i = 0; i < s->workers_n; i++)
		if (s->workers[i].link.heard_ms > heard_ms)
			heard_ms = s->workers[i].link.heard_ms;
	switch (pulse_look(&s->pulse, now_ms, heard_ms, &again_ms)) {
	case PULSE_GOOD:
		return again_ms;
	case PULSE_ASK:
		notifier_ask(&s->notifier, now_ms);
		return again_ms;
	case PULSE_GONE:
		break;
	}
	for (size_t i = 0; i < s->workers_n; i++)
		if (s->workers[i].link.state == LINK_UP)
			worker_lose(&s->workers[i], now_ms, text);
	notifier_lose(&s->notifier, now_ms, text);
	return now_ms;
}

static int
until(int64_t now, int64_t timeout, int64_t at)
{
	if (at >= 0 && (timeout < 0 || at - now < timeout))
		timeout = at > now ? at - now : 0;
	return (int)(timeout > 60000 ? 60000 : timeout);
}

static void
wait_and_step(struct store *s)
{
	struct pollfd fds[WORKERS_MAX + 2 + STORE_LANES];
	int64_t now = clock_mono_ms();
	int64_t pulse = feel_pulse(s, now);
	int64_t deadline = s->up < s->workers_n ? expire(s, now) : -1;
	int timeout =
	    until(now, until(now, s->stopping ? 20 : 60000, deadline), expect_mail(s, now));
	nfds_t n = 0;

	timeout = until(now, timeout, pulse);
	for (size_t i = 0; i < s->workers_n; i++) {
		struct worker *c = &s->workers[i];
		int64_t wait = link_timeout(&c->link, now);

		fds[n] = (struct pollfd){ .fd = -1 };
		fds[n].fd = link_poll(&c->link, worker_unsent(c) && PQflush(c->link.pg) == 1,
		                      &fds[n].events);
		n++;
		if (wait >= 0)
			timeout = until(now, timeout, now + wait);
	}
	fds[n] = (struct pollfd){ .fd = -1 };
	timeout = until(now, timeout, notifier_poll(&s->notifier, now, &fds[n]));
	n++;
	fds[n++] = (struct pollfd){ .fd = s->wake.fd, .events = POLLIN };
	for (unsigned lane = 0; lane < STORE_LANES; lane++)
		fds[n++] = (struct pollfd){ .fd = s->boxes[lane].fd, .events = POLLIN };
	if (poll(fds, n, timeout) < 0 && errno != EINTR)
		log_error("poll-failed", LOG_S("reason", strerror(errno)));
	now = clock_mono_ms();
	for (size_t i = 0; i < s->workers_n; i++)
		worker_step(&s->workers[i], now, fds[i].revents);
	notifier_step(&s->notifier, now, fds[s->workers_n].revents);
	if (fds[s->workers_n + 1].revents != 0)
		(void)mailbox_take(&s->wake);
	for (unsigned lane = 0; lane < STORE_LANES; lane++)
		if (fds[s->workers_n + 2 + lane].revents != 0)
			take_lane_mail(s, &s->boxes[lane]);
}

static void *
run(void *arg)
{
	struct store *s = arg;

	while (!must_end(s, clock_mono_ms())) {
		take_mail(s, clock_mono_ms());
		dispatch(s);
		wait_and_step(s);
	}
	return NULL;
}

static void
add_workers(struct store *s, unsigned n, unsigned lanes)
{
	while (n-- > 0 && s->workers_n < WORKERS_MAX)
		worker_init(&s->workers[s->workers_n++], s, lanes, s->conninfo, s->name,
		            s->worker[0] == '\0' ? NULL : s->worker);
}

static void
store_free(struct store *s)
{
	notifier_deinit(&s->notifier);
	mailbox_deinit(&s->wake);
	for (unsigned l = 0; l < STORE_LANES; l++)
		mailbox_deinit(&s->boxes[l]);
	(void)pthread_mutex_destroy(&s->lock);
	buffer_free(&s->error);
	free(s->conninfo);
	free(s->name);
	free(s);
}

static bool
make_boxes(struct store *s)
{
	bool good = mailbox_init(&s->wake);

	for (unsigned l = 0; l < STORE_LANES; l++)
		good = mailbox_init(&s->boxes[l]) && good;
	return good;
}

struct store *
store_start(const struct store_options *o)
{
	struct store *s = calloc(1, sizeof(*s));
	unsigned shared = 1U << STORE_WRITE;

	if (s == NULL)
		return NULL;
	for (unsigned l = 0; l < STORE_LANES; l++)
		s->lanes[l] = (struct lane){ NULL, &s->lanes[l].first };
	s->patience_ms = o->patience_ms > 0 ? o->patience_ms : PATIENCE_MS;
	s->conninfo = strdup(o->conninfo);
	s->name = strdup(o->name);
	buffer_init(&s->error, 2048);
	(void)pthread_mutex_init(&s->lock, NULL);
	if (o->worker != NULL)
		uuid_format(o->worker, s->worker);
	notifier_init(&s->notifier, s->conninfo, s->name, o->worker == NULL ? NULL : s->worker,
	              o);
	if (s->conninfo == NULL || s->name == NULL || !make_boxes(s)) {
		store_free(s);
		return NULL;
	}
	s->own_lanes = shared;
	for (unsigned l = STORE_WRITE + 1; l < STORE_LANES; l++)
		if (o->connections[l] > 0)
			s->own_lanes |= 1U << l;
	add_workers(s, o->connections[STORE_WRITE] > 0 ? o->connections[STORE_WRITE] : 1,
	            shared);
	for (unsigned l = STORE_WRITE + 1; l < STORE_LANES; l++)
		add_workers(s, o->connections[l], 1U << l);
	if (pthread_create(&s->thread, NULL, run, s) != 0) {
		store_free(s);
		return NULL;
	}
	return s;
}

void
store_stop(struct store **store, int64_t grace_ms)
{
	struct store *s = *store;

	if (s == NULL)
		return;
	*store = NULL;
	pthread_mutex_lock(&s->lock);
	s->stop_at_ms = clock_mono_ms() + grace_ms;
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
	mailbox_wake(&s->wake);
	(void)pthread_join(s->thread, NULL);
	for (size_t i = 0; i < s->workers_n; i++)
		worker_deinit(&s->workers[i]);
	do { /* what is submitted from done, too */
		take_mail(s, clock_mono_ms());
		(void)expire(s, INT64_MAX);
	} while (!is_quiet(s));
	store_free(s);
}

void
store_submit(struct store *s, struct store_job *job)
{
	enum store_lane lane = job->op->lane;

	if (s == NULL) { /* what late events of a role that ends still ask for */
		job->rc = STORE_DOWN;
		job->done(job);
		return;
	}
	mailbox_post(&s->boxes[(s->own_lanes & 1U << lane) != 0 ? lane : STORE_WRITE],
	             &job->mail);
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void
on_waited(struct store_job *job)
{
	struct waiter *w = job->arg;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

enum store_rc
store_run(struct store *s, struct store_job *job)
{
	struct waiter w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };

	job->done = on_waited;
	/* cppcheck-suppress autoVariables ; the job is done before w goes */
	job->arg = &w;
	store_submit(s, job);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return job->rc;
}

void
store_wake(struct store *s, const char *channel)
{
	notifier_wake(&s->notifier, channel);
	if (!pthread_equal(pthread_self(), s->thread))
		mailbox_wake(&s->wake);
}
