/* Peers and their backoff: see peer.h. */
#include "relay/peer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "relay/grants.h"
#include "relay/receipts.h"
#include "relay/plan.h"
#include "relay/session.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

METRIC_DEFINE(peers_down, METRIC_GAUGE, "tmtp_relay_peers_down", NULL,
              "Domains that wait for their next try.");
METRIC_DEFINE(tries_failed, METRIC_COUNTER, "tmtp_relay_peer_failures_total", NULL,
              "Tries to reach a domain that failed.");

struct loader {
	struct peer_load load;
	struct relay_later later;
	struct relay *relay;
	void (*fn)(struct relay *relay);
};

static void save(struct peer *p);

static int64_t
wall_to_wait_ms(int64_t wall_us)
{
	int64_t wait = (wall_us - clock_wall_us()) / 1000;

	return wait < 0 ? 0 : wait;
}

static void
on_retry(struct loop_timer *timer)
{
	struct peer *p = timer->arg;

	plan_peer_opened(p->relay->plan, p);
	grants_wake(p->relay->grants);
	receipts_wake(p->relay->receipts);
}

struct peer *
peer_get(struct relay *relay, int64_t domain_id, const char *domain)
{
	struct peer *p;

	HASH_FIND(hh, relay->peers, &domain_id, sizeof(domain_id), p);
	if (p != NULL) {
		if (p->domain[0] == '\0')
			(void)snprintf(p->domain, sizeof(p->domain), "%s", domain);
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return NULL;
	p->relay = relay;
	p->domain_id = domain_id;
	p->state = (struct peer_state){ .domain_id = domain_id,
		                        .failing_since_us = -1,
		                        .retry_at_us = -1 };
	(void)snprintf(p->domain, sizeof(p->domain), "%s", domain);
	loop_timer_init(&p->retry, relay->loop, on_retry, p);
	HASH_ADD(hh, relay->peers, domain_id, sizeof(p->domain_id), p);
	return p;
}

/* --- Loading ------------------------------------------------------------------ */

static void
take_state(struct peer *p, struct peer_state *state)
{
	free(p->state.reason);
	p->state = *state;
	state->reason = NULL;
	if (!p->state.held && p->state.retry_at_us > clock_wall_us())
		loop_timer_set(&p->retry, wall_to_wait_ms(p->state.retry_at_us));
	else
		loop_timer_set(&p->retry, 0);
}

static void
on_loaded(void *arg)
{
	struct loader *l = arg;
	struct peer *p, *next;

	if (l->load.job.rc == STORE_OK) {
		/* Those that are not among the rows are well; an administrator may have said so. */
		HASH_ITER(hh, l->relay->peers, p, next)
		{
			/* cppcheck-suppress uninitvar ; HASH_ITER sets it */
			if (p->state.held || p->state.failures > 0) {
				p->state.held = false;
				p->state.failures = 0;
				p->state.retry_at_us = p->state.failing_since_us = -1;
				loop_timer_set(&p->retry, 0);
			}
		}
		for (size_t i = 0; i < l->load.rows_n; i++) {
			p = peer_get(l->relay, l->load.rows[i].domain_id, "");
			if (p != NULL)
				take_state(p, &l->load.rows[i]);
		}
	}
	peer_load_clear(&l->load);
	if (l->fn != NULL)
		l->fn(l->relay);
	free(l);
}

void
peer_load_all(struct relay *relay, void (*fn)(struct relay *relay))
{
	struct loader *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return;
	l->relay = relay;
	l->fn = fn;
	relay_later(&l->later, relay, &l->load.job, on_loaded, l);
	store_peer_load(relay->store, &l->load);
}

void
peer_free_all(struct relay *relay)
{
	struct peer *p, *next;

	HASH_ITER(hh, relay->peers, p, next)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): those before were taken out */
		HASH_DEL(relay->peers, p);
		loop_timer_cancel(&p->retry);
		free(p->state.reason);
		free(p);
	}
}

/* --- Saving -------------------------------------------------------------------- */

static void
on_saved(void *arg)
{
	struct peer *p = arg;

	free(p->save.state.reason);
	p->save.state.reason = NULL;
	p->saving = false;
	if (p->save_again)
		save(p);
}

/* One save under way; what changes meanwhile is saved after it. */
static void
save(struct peer *p)
{
	p->save_again = p->saving;
	if (p->saving)
		return;
	p->saving = true;
	p->save = (struct peer_save){ .state = p->state };
	p->save.state.reason = p->state.reason == NULL ? NULL : strdup(p->state.reason);
	p->save.sent_us = p->state.failures == 0 ? clock_wall_us() : -1;
	relay_later(&p->later, p->relay, &p->save.job, on_saved, p);
	store_peer_save(p->relay->store, &p->save);
}

/* --- Backoff ------------------------------------------------------------------- */

bool
peer_is_open(const struct peer *p)
{
	return !p->state.held && !p->relay->draining &&
	       (p->state.retry_at_us < 0 || p->state.retry_at_us <= clock_wall_us());
}

bool
peer_is_probing(const struct peer *p)
{
	return p->state.failures > 0;
}

/* Doubles from the first wait on, never beyond the last; a fifth of it is chance, so that peers that fell together don't return together. */
static int64_t
backoff_s(const struct peer *p)
{
	const struct config_relay *c = &p->relay->config->relay;
	int64_t wait = c->retry_min_s;

	for (int i = 1; i < p->state.failures && wait < c->retry_max_s; i++)
		wait *= 2;
	if (wait > c->retry_max_s)
		wait = c->retry_max_s;
	return wait - (int64_t)randombytes_uniform((uint32_t)(wait / 5 + 1));
}

static void
set_reason(struct peer *p, const char *reason)
{
	free(p->state.reason);
	p->state.reason = strdup(reason);
}

void
peer_failed(struct peer *p, const char *reason, uint32_t retry_s)
{
	int64_t now = clock_wall_us();
	int64_t wait_s = retry_s;

	if (p->relay->draining)
		return;
	if (retry_s == 0) {
		if (p->state.failures++ == 0) {
			p->state.failing_since_us = now;
			metric_add(&peers_down, 1);
		}
		metric_add(&tries_failed, 1);
		wait_s = backoff_s(p);
	}
	set_reason(p, reason);
	p->state.retry_at_us = now + wait_s * 1000000;
	loop_timer_set(&p->retry, wait_s * 1000);
	log_warn("peer-failed", LOG_S("peer", p->domain), LOG_S("reason", reason),
	         LOG_I("failures", p->state.failures), LOG_I("retry_s", wait_s));
	save(p);
}

void
peer_answered(struct peer *p)
{
	bool was_down = p->state.failures > 0;
	bool narrowed = p->state.window_commands > 0;

	if (!was_down && !narrowed)
		return;
	if (narrowed) { /* doubles with success until it is the peer's own limit again */
		p->state.window_commands *= 2;
		if (p->state.window_commands >= 64)
			p->state.window_commands = 0;
		for (struct session *s = p->sessions; s != NULL; s = *session_link(s))
			session_window(s, (unsigned)p->state.window_commands);
	}
	if (was_down) {
		metric_add(&peers_down, -1);
		log_info("peer-recovered", LOG_S("peer", p->domain),
		         LOG_I("failures", p->state.failures));
		p->state.failures = 0;
		p->state.failing_since_us = p->state.retry_at_us = -1;
		free(p->state.reason);
		p->state.reason = NULL;
		plan_peer_opened(p->relay->plan, p);
		grants_wake(p->relay->grants);
		receipts_wake(p->relay->receipts);
	}
	save(p);
}

void
peer_narrow(struct peer *p, unsigned unanswered)
{
	unsigned window = unanswered / 2;

	if (p->state.window_commands > 0 && (unsigned)p->state.window_commands / 2 < window)
		window = (unsigned)p->state.window_commands / 2;
	p->state.window_commands = window == 0 ? 1 : (int)window;
	save(p);
}

/* --- Sessions ------------------------------------------------------------------ */

struct session *
peer_session(struct peer *p, const char *own, int64_t hint)
{
	unsigned max = p->relay->config->relay.sessions_per_domain;
	unsigned slot = peer_is_probing(p) ? 0 : (unsigned)((uint64_t)hint % max);
	struct session *any = NULL, *s;

	if (!peer_is_open(p))
		return NULL;
	for (s = p->sessions; s != NULL; s = *session_link(s)) {
		if (!session_is_usable(s) || strcmp(session_own(s), own) != 0)
			continue;
		any = s;
		if (session_slot(s) == slot)
			return s;
	}
	if (any != NULL && (p->sessions_n >= max || peer_is_probing(p)))
		return any;
	if (p->sessions_n >= max)
		return NULL; /* all are other domains' of ours: their end will tell */
	s = session_begin(p, own, slot);
	if (s == NULL)
		return NULL;
	*session_link(s) = p->sessions;
	p->sessions = s;
	p->sessions_n++;
	return s;
}

void
peer_forget_session(struct peer *p, struct session *session)
{
	for (struct session **at = &p->sessions; *at != NULL; at = session_link(*at)) {
		if (*at == session) {
			*at = *session_link(session);
			p->sessions_n--;
			break;
		}
	}
	plan_wake(p->relay->plan);
}
