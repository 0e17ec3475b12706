/* A libpq connection kept alive: see link.h. */
#include "store/link.h"

#include "base/log.h"

#include <poll.h>
#include <stdio.h>

#define CONNECT_TIMEOUT_MS 10000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 1000 /* a database that came back is found within a second */

/*
 * What every session of ours needs: no statement that runs for ever, and plans that don't
 * wander with statistics that are missing on the first day: joins run as they are written,
 * from the parameters outwards, by index.
 */
#define SESSION_OPTIONS                                                                   \
	"-c plan_cache_mode=force_generic_plan -c statement_timeout=60s -c timezone=UTC " \
	"-c idle_in_transaction_session_timeout=60s -c client_min_messages=warning "      \
	"-c enable_material=off -c enable_bitmapscan=off "                                \
	"-c join_collapse_limit=1 -c enable_hashjoin=off -c enable_mergejoin=off -c enable_seqscan=off"

void
link_init(struct link *l, const char *conninfo, const char *name, const char *worker)
{
	*l = (struct link){ .conninfo = conninfo, .name = name, .worker = worker };
	buffer_init(&l->error, 1024);
}

void
link_deinit(struct link *l)
{
	if (l->pg != NULL)
		PQfinish(l->pg);
	l->pg = NULL;
	buffer_free(&l->error);
}

void
link_fail(struct link *l, int64_t now_ms, const char *text)
{
	const char *why = text != NULL ? text : l->pg != NULL ? PQerrorMessage(l->pg) : "";
	size_t len = strlen(why);

	while (len > 0 && why[len - 1] == '\n')
		len--;
	buffer_clear(&l->error);
	for (size_t i = 0; i < len && i < 1000;
	     i++) /* libpq says some things in several lines */
		buffer_add_u8(&l->error,
		              why[i] == '\n' || why[i] == '\t' ? ' ' : (uint8_t)why[i]);
	buffer_add_u8(&l->error, '\0');
	if (l->backoff_ms == 0)
		l->backoff_ms = BACKOFF_FIRST_MS;
	log_warn("database-connection-lost", LOG_S("connection", l->name),
	         LOG_S("reason", (char *)l->error.data), LOG_I("retry_ms", l->backoff_ms));
	if (l->pg != NULL)
		PQfinish(l->pg);
	l->pg = NULL;
	l->state = LINK_DOWN;
	l->retry_at_ms = now_ms + l->backoff_ms;
	l->backoff_ms = l->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : l->backoff_ms * 2;
}

static void
start(struct link *l, int64_t now_ms)
{
	const char *const keys[] = { LINK_KEYS, "dbname", "fallback_application_name",
		                     "options", NULL };
	char options[sizeof(SESSION_OPTIONS) + 64] = SESSION_OPTIONS;
	const char *const values[] = { LINK_VALUES, l->conninfo, l->name, options, NULL };

	if (l->worker != NULL)
		(void)snprintf(options, sizeof(options), "%s -c tmtp.worker=%s",
		               SESSION_OPTIONS, l->worker);
	l->pg = PQconnectStartParams(keys, values, 1);
	if (l->pg == NULL || PQstatus(l->pg) == CONNECTION_BAD) {
		link_fail(l, now_ms, l->pg == NULL ? "out of memory" : NULL);
		return;
	}
	l->state = LINK_CONNECTING;
	l->wants = PGRES_POLLING_WRITING;
	l->deadline_ms = now_ms + CONNECT_TIMEOUT_MS;
}

bool
link_step(struct link *l, int64_t now_ms, short revents)
{
	if (l->state == LINK_DOWN && now_ms >= l->retry_at_ms)
		start(l, now_ms);
	if (l->state != LINK_CONNECTING)
		return false;
	if (now_ms >= l->deadline_ms) {
		link_fail(l, now_ms, "connecting to the database took too long");
		return false;
	}
	if (revents == 0)
		return false;
	l->wants = PQconnectPoll(l->pg);
	if (l->wants == PGRES_POLLING_FAILED) {
		l->heard_ms = now_ms; /* who refuses is there */
		link_fail(l, now_ms, NULL);
		return false;
	}
	if (l->wants != PGRES_POLLING_OK)
		return false;
	if (PQsetnonblocking(l->pg, 1) != 0) {
		link_fail(l, now_ms, NULL);
		return false;
	}
	l->state = LINK_UP;
	l->heard_ms = now_ms;
	l->backoff_ms = 0;
	return true;
}

bool
link_read(struct link *l, int64_t now_ms)
{
	l->heard_ms = now_ms;
	return PQconsumeInput(l->pg) == 1;
}

int
link_poll(const struct link *l, bool unsent, short *events)
{
	*events = 0;
	if (l->state == LINK_DOWN)
		return -1;
	if (l->state == LINK_CONNECTING)
		*events = l->wants == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	else
		*events = (short)(POLLIN | (unsent ? POLLOUT : 0));
	return PQsocket(l->pg);
}

int64_t
link_timeout(const struct link *l, int64_t now_ms)
{
	int64_t at;

	if (l->state == LINK_UP)
		return -1;
	at = l->state == LINK_DOWN ? l->retry_at_ms : l->deadline_ms;
	return at > now_ms ? at - now_ms : 0;
}
