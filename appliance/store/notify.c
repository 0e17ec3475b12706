/* LISTEN and NOTIFY: see notify.h. */
#include "store/notify.h"

#include "base/log.h"
#include "store/workers.h"

#include <inttypes.h>
#include <stdio.h>

#define WAKE_EVERY_MS 20

void
notifier_init(struct notifier *n, const char *conninfo, const char *name, const char *worker,
              const struct store_options *o)
{
	*n = (struct notifier){ .listen = o->listen, .notified = o->notified, .arg = o->arg };
	n->used = o->listen != NULL;
	n->lock_key = o->worker == NULL ? 0 : worker_lock_key(o->worker);
	link_init(&n->link, conninfo, name, worker);
	(void)pthread_mutex_init(&n->lock, NULL);
}

void
notifier_deinit(struct notifier *n)
{
	link_deinit(&n->link);
	(void)pthread_mutex_destroy(&n->lock);
}

void
notifier_wake(struct notifier *n, const char *channel)
{
	pthread_mutex_lock(&n->lock);
	n->used = true;
	for (size_t i = 0; i < NOTIFIER_CHANNELS; i++) {
		struct wake *w = &n->wakes[i];

		if (w->channel == NULL)
			w->channel = channel;
		if (strcmp(w->channel, channel) == 0) {
			w->owed = true;
			break;
		}
	}
	pthread_mutex_unlock(&n->lock);
}

bool
notifier_is_owed(struct notifier *n)
{
	bool owed = n->in_flight;

	pthread_mutex_lock(&n->lock);
	for (size_t i = 0; i < NOTIFIER_CHANNELS; i++)
		owed = owed || n->wakes[i].owed;
	pthread_mutex_unlock(&n->lock);
	return owed &&
	       (n->link.state == LINK_UP || n->link.backoff_ms == 0); /* or it comes up yet */
}

int64_t
notifier_poll(struct notifier *n, int64_t now_ms, struct pollfd *fd)
{
	int64_t at = -1;

	pthread_mutex_lock(&n->lock);
	if (!n->used) {
		pthread_mutex_unlock(&n->lock);
		return -1;
	}
	for (size_t i = 0; i < NOTIFIER_CHANNELS; i++) {
		struct wake *w = &n->wakes[i];

		if (w->owed && !n->in_flight && n->link.state == LINK_UP &&
		    (at < 0 || w->not_before_ms < at))
			at = w->not_before_ms;
	}
	pthread_mutex_unlock(&n->lock);
	fd->fd = link_poll(&n->link, n->in_flight && PQflush(n->link.pg) == 1, &fd->events);
	if (n->link.state != LINK_UP)
		at = now_ms + link_timeout(&n->link, now_ms);
	return at;
}

static void
query(struct notifier *n, int64_t now_ms, const char *verb, const char *channel)
{
	char sql[256];

	/* Channel names are literals of ours, made of letters and underscores. */
	(void)snprintf(sql, sizeof(sql), "%s %s", verb, channel);
	if (PQsendQuery(n->link.pg, sql) != 1 || PQflush(n->link.pg) < 0) {
		link_fail(&n->link, now_ms, NULL);
		return;
	}
	n->in_flight = true;
}

void
notifier_ask(struct notifier *n, int64_t now_ms)
{
	pthread_mutex_lock(&n->lock);
	n->used = true;
	pthread_mutex_unlock(&n->lock);
	if (n->link.state == LINK_UP && !n->in_flight)
		query(n, now_ms, "SELECT", "1");
}

void
notifier_lose(struct notifier *n, int64_t now_ms, const char *text)
{
	if (n->link.state == LINK_UP)
		link_fail(&n->link, now_ms, text);
	n->in_flight = n->listening = false;
}

/* libpq sends several statements of one simple query in one round trip. */
static void
start_listening(struct notifier *n, int64_t now_ms)
{
	struct buffer sql;

	n->listening = n->listen == NULL;
	n->in_flight = false;
	if (n->listening)
		return;
	buffer_init(&sql, 1024);
	for (const char *const *c = n->listen; *c != NULL; c++)
		buffer_add_fmt(&sql, "%s%s", c == n->listen ? "" : "; LISTEN ", *c);
	/* Shared: the session before it, if the server still has it, doesn't stand in the way. */
	if (n->lock_key != 0)
		buffer_add_fmt(&sql, "; SELECT pg_advisory_lock_shared(%" PRId64 ")",
		               n->lock_key);
	buffer_add_u8(&sql, '\0');
	query(n, now_ms, "LISTEN", (char *)sql.data);
	buffer_free(&sql);
}

static void
send_owed(struct notifier *n, int64_t now_ms)
{
	const char *channel = NULL;

	if (n->in_flight || n->link.state != LINK_UP)
		return;
	pthread_mutex_lock(&n->lock);
	for (size_t i = 0; i < NOTIFIER_CHANNELS && channel == NULL; i++) {
		struct wake *w = &n->wakes[i];

		if (w->owed && now_ms >= w->not_before_ms) {
			w->owed = false;
			w->not_before_ms = now_ms + WAKE_EVERY_MS;
			channel = w->channel;
		}
	}
	pthread_mutex_unlock(&n->lock);
	if (channel != NULL)
		query(n, now_ms, "NOTIFY", channel);
}

/* Told only now that something may have been missed: what comes from here on is heard. */
static void
answered(struct notifier *n)
{
	n->in_flight = false;
	if (n->listening)
		return;
	n->listening = true;
	n->notified(NULL, n->arg);
}

static void
read_results(struct notifier *n, int64_t now_ms)
{
	PGnotify *got;
	PGresult *r;

	if (!link_read(&n->link, now_ms)) {
		link_fail(&n->link, now_ms, NULL);
		return;
	}
	while (n->in_flight && PQisBusy(n->link.pg) == 0) {
		r = PQgetResult(n->link.pg);
		if (r == NULL)
			answered(n);
		else if (PQresultStatus(r) != PGRES_COMMAND_OK &&
		         PQresultStatus(r) != PGRES_TUPLES_OK)
			log_error("notify-failed", LOG_S("reason", PQresultErrorMessage(r)));
		PQclear(r);
	}
	while ((got = PQnotifies(n->link.pg)) != NULL) {
		if (n->notified != NULL)
			n->notified(got->relname, n->arg);
		PQfreemem(got);
	}
	if (PQstatus(n->link.pg) == CONNECTION_BAD)
		link_fail(&n->link, now_ms, NULL);
}

void
notifier_step(struct notifier *n, int64_t now_ms, short revents)
{
	bool used;

	pthread_mutex_lock(&n->lock);
	used = n->used;
	pthread_mutex_unlock(&n->lock);
	if (!used)
		return;
	if (link_step(&n->link, now_ms, revents))
		start_listening(n, now_ms);
	else if (n->link.state == LINK_UP && revents != 0)
		read_results(n, now_ms);
	if (n->link.state != LINK_UP)
		n->in_flight = n->listening = false;
	send_owed(n, now_ms);
}
