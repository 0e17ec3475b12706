/* Peers and their backoff: see peer.h. */
#include "relay/peer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "relay/catchup.h"
#include "relay/grants.h"
#include "relay/receipts.h"
#include "relay/plan.h"
#include "relay/session.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBE_S 120         /* how long a probe is ours; longer than most take */
#define PROBE_AGAIN_MS 2000 /* another worker probes, or the store is away */
#define WINDOW_WIDE 64      /* from here on the window is the peer's own limit again */
#define HOLD_PAUSE_S 5      /* a longer pause gives back what waits in sessions */

METRIC_DEFINE(peers_down, METRIC_GAUGE, "tmtp_relay_peers_down", NULL,
              "Domains that wait for their next try.");
METRIC_DEFINE(tries_failed, METRIC_COUNTER, "tmtp_relay_peer_failures_total", NULL,
              "Tries to reach a domain that failed.");
METRIC_DEFINE(waits_asked, METRIC_COUNTER, "tmtp_relay_peer_waits_total", NULL,
              "Pauses that domains asked for.");

#define SENT_EVERY_MS 60000 /* so often is written down when something was last sent */

struct loader {
	struct peer_load load;
	struct relay_later later;
	struct relay *relay;
	void (*fn)(struct relay *relay, bool loaded);
};

static void save(struct peer *p);
static void ask_probe(struct peer *p);

static int64_t
wall_to_wait_ms(int64_t wall_us)
{
	int64_t wait = (wall_us - clock_wall_us()) / 1000;

	return wait < 0 ? 0 : wait;
}

static void
wake(struct peer *p)
{
	for (struct session *s = p->sessions; s != NULL; s = *session_link(s))
		session_ready(s);
	plan_wake(p->relay->plan);
	grants_wake(p->relay->grants);
	receipts_wake(p->relay->receipts);
	catchup_wake(p->relay->catchup);
}

static void
on_retry(struct loop_timer *timer)
{
	struct peer *p = timer->arg;

	if (p->state.retry_at_us > clock_wall_us()) /* the clock was set back */
		loop_timer_set(&p->retry, wall_to_wait_ms(p->state.retry_at_us) + 1);
	else if (peer_is_probing(p) && !p->probe_ours && !p->state.held)
		ask_probe(p);
	else
		wake(p);
}

/* --- Life ----------------------------------------------------------------------- */

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
		                        .retry_at_us = -1,
		                        .refused_since_us = -1,
		                        .refused_at_us = -1 };
	p->answered_us = -1;
	(void)snprintf(p->domain, sizeof(p->domain), "%s", domain);
	loop_timer_init(&p->retry, relay->loop, on_retry, p);
	HASH_ADD(hh, relay->peers, domain_id, sizeof(p->domain_id), p);
	return p;
}

static void
peer_free(struct peer *p)
{
	HASH_DEL(p->relay->peers, p);
	loop_timer_cancel(&p->retry);
	free(p->state.reason);
	free(p);
}

static bool
is_well(const struct peer *p)
{
	return p->state.failures == 0 && !p->state.held && p->state.retry_at_us < 0 &&
	       p->state.window_commands == 0;
}

/* What isn't well stays: it is as much as the store would say again. */
static void
forget_when_idle(struct peer *p)
{
	if (p->refs == 0 && p->busy == 0 && p->sessions == NULL && !p->saving &&
	    !p->probe_asking && is_well(p))
		peer_free(p);
}

struct peer *
peer_ref(struct peer *p)
{
	p->refs++;
	return p;
}

void
peer_unref(struct peer **peer)
{
	struct peer *p = *peer;

	*peer = NULL;
	if (p == NULL)
		return;
	p->refs--;
	forget_when_idle(p);
}

void
peer_free_all(struct relay *relay)
{
	struct peer *p, *next;

	HASH_ITER(hh, relay->peers, p, next)
	{
		/* cppcheck-suppress uninitvar ; HASH_ITER sets it */
		peer_free(p);
	}
}

/* --- Loading ------------------------------------------------------------------ */

static void
count_down(struct peer *p, bool was_down)
{
	bool is_down = p->state.failures > 0;

	if (is_down != was_down)
		metric_add(&peers_down, is_down ? 1 : -1);
}

/* What the store says of it: another worker's or an administrator's word. */
static void
take_state(struct peer *p, struct peer_state *state)
{
	bool was_down = p->state.failures > 0;

	free(p->state.reason);
	p->state = *state;
	state->reason = NULL;
	p->asked = p->state.failures == 0;
	count_down(p, was_down);
	loop_timer_set(&p->retry, p->state.held ? 0 : wall_to_wait_ms(p->state.retry_at_us));
}

/* Those that are not among the rows are well; an administrator may have said so. */
static void
take_well(struct relay *relay)
{
	struct peer *p, *next;

	HASH_ITER(hh, relay->peers, p, next)
	{
		/* cppcheck-suppress uninitvar ; HASH_ITER sets it */
		bool was_down = p->state.failures > 0;

		if (p->saving || (!p->state.held && !peer_is_probing(p)))
			continue;
		p->state.held = false;
		p->state.failures = 0;
		p->state.retry_at_us = p->state.failing_since_us = -1;
		p->state.refused_since_us = p->state.refused_at_us = -1;
		p->probe_ours = false;
		count_down(p, was_down);
		loop_timer_set(&p->retry, 0);
	}
}

static void
on_loaded(void *arg)
{
	struct loader *l = arg;
	bool loaded = l->load.job.rc == STORE_OK;
	struct peer *p;

	if (loaded)
		take_well(l->relay);
	for (size_t i = 0; loaded && i < l->load.rows_n; i++) {
		p = peer_get(l->relay, l->load.rows[i].domain_id, "");
		if (p != NULL && !p->saving)
			take_state(p, &l->load.rows[i]);
		else if (p != NULL) /* newer than the row, but for the hold, which isn't ours */
			p->state.held = l->load.rows[i].held;
	}
	peer_load_clear(&l->load);
	if (l->fn != NULL)
		l->fn(l->relay, loaded);
	free(l);
}

void
peer_load_all(struct relay *relay, void (*fn)(struct relay *relay, bool loaded))
{
	struct loader *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return;
	l->relay = relay;
	l->fn = fn;
	relay_later(&l->later, relay, &l->load.job, on_loaded, l);
	store_peer_load(relay->store, &l->load);
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
	else
		forget_when_idle(p);
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
	p->save.sent_us = p->answered_us;
	p->sent_saved_ms = clock_mono_ms();
	relay_later(&p->later, p->relay, &p->save.job, on_saved, p);
	store_peer_save(p->relay->store, &p->save);
}

/* Also those whose row is on its way to the store, with the time of before: it is saved once more. */
void
peer_clock_back(struct relay *relay, int64_t back_us)
{
	struct peer *p, *next;

	HASH_ITER(hh, relay->peers, p, next)
	{
		/* cppcheck-suppress uninitvar ; HASH_ITER sets it */
		if (p->state.retry_at_us <= clock_wall_us())
			continue;
		p->state.retry_at_us -= back_us;
		if (!p->state.held)
			loop_timer_set(&p->retry, wall_to_wait_ms(p->state.retry_at_us));
		save(p);
	}
}

/* --- Probing -------------------------------------------------------------------- */

static void
on_probe(void *arg)
{
	struct peer *p = arg;
	struct peer_probe *probe = &p->probe;

	p->probe_asking = false;
	if (p->relay->draining || !peer_is_probing(p) || p->state.held) {
		wake(p); /* told otherwise meanwhile */
	} else if (probe->job.rc == STORE_OK && probe->ours) {
		p->probe_ours = true;
		wake(p);
	} else if (probe->job.rc == STORE_OK && probe->known && !p->saving) {
		bool busy = probe->state.failures > 0 || probe->state.retry_at_us >= 0;

		take_state(p, &probe->state);
		if (busy && !p->state.held && p->state.retry_at_us <= clock_wall_us())
			loop_timer_set(&p->retry, PROBE_AGAIN_MS); /* another probes it now */
	} else {
		loop_timer_set(&p->retry, PROBE_AGAIN_MS);
	}
	free(probe->state.reason);
	probe->state.reason = NULL;
	forget_when_idle(p);
}

static void
ask_probe(struct peer *p)
{
	int64_t now = clock_wall_us();

	if (p->probe_asking)
		return;
	p->probe_asking = true;
	p->probe = (struct peer_probe){ .domain_id = p->domain_id,
		                        .now_us = now,
		                        .until_us = now + (int64_t)PROBE_S * 1000000 };
	relay_later(&p->probe_later, p->relay, &p->probe.job, on_probe, p);
	store_peer_probe(p->relay->store, &p->probe);
}

/* --- Backoff ------------------------------------------------------------------- */

bool
peer_is_probing(const struct peer *p)
{
	return p->state.failures > 0 || p->state.retry_at_us >= 0;
}

bool
peer_is_open(const struct peer *p)
{
	if (p->state.held || p->relay->draining)
		return false;
	if (!peer_is_probing(p))
		return true;
	return p->probe_ours && p->state.retry_at_us <= clock_wall_us();
}

bool
peer_has_room(const struct peer *p)
{
	return peer_is_open(p) && (p->busy == 0 || !peer_is_probing(p));
}

bool
peer_is_paused(const struct peer *p)
{
	return p->asked && p->state.retry_at_us > clock_wall_us();
}

void
peer_busy(struct peer *p)
{
	p->busy++;
}

void
peer_idle(struct peer *p)
{
	p->busy--;
	forget_when_idle(p);
}

/* Doubles from the first wait on, never beyond the last; a fifth of it is chance, so that peers that fell together don't return together. */
static int64_t
backoff_ms(const struct peer *p)
{
	const struct config_relay *c = &p->relay->config->relay;
	int64_t wait = (int64_t)c->retry_min_s * 1000, longest = (int64_t)c->retry_max_s * 1000;

	for (int i = 1; i < p->state.failures && wait < longest; i++)
		wait *= 2;
	if (wait > longest)
		wait = longest;
	return wait - (int64_t)randombytes_uniform((uint32_t)(wait / 5 + 1));
}

static void
set_reason(struct peer *p, const char *reason)
{
	free(p->state.reason);
	p->state.reason = strdup(reason);
}

/* Not before then; a longer wait that the peer asked for stays. */
static void
close_for(struct peer *p, int64_t wait_ms)
{
	int64_t at = clock_wall_us() + wait_ms * 1000;

	if (at > p->state.retry_at_us)
		p->state.retry_at_us = at;
	p->probe_ours = false;
	loop_timer_set(&p->retry, wall_to_wait_ms(p->state.retry_at_us));
	save(p);
}

void
peer_failed(struct peer *p, const char *reason)
{
	int64_t now = clock_wall_us(), wait_ms;

	if (p->relay->draining)
		return;
	if (!p->asked && p->state.failures > 0 && p->state.retry_at_us > now)
		return;
	if (p->state.failures++ == 0) {
		p->state.failing_since_us = now;
		metric_add(&peers_down, 1);
	}
	metric_add(&tries_failed, 1);
	p->asked = p->asked && p->state.retry_at_us > now;
	wait_ms = backoff_ms(p);
	set_reason(p, reason);
	close_for(p, wait_ms);
	log_warn("peer-failed", LOG_S("peer", p->domain), LOG_S("reason", reason),
	         LOG_I("failures", p->state.failures),
	         LOG_I("retry_s", (wall_to_wait_ms(p->state.retry_at_us) + 999) / 1000));
}

void
peer_refused(struct peer *p, const char *reason)
{
	p->state.refused_at_us = clock_wall_us();
	if (p->state.refused_since_us < 0)
		p->state.refused_since_us = p->state.refused_at_us;
	peer_failed(p, reason);
}

void
peer_found(struct peer *p)
{
	p->state.refused_since_us = p->state.refused_at_us =
	    -1; /* saved with what comes of it */
}

void
peer_wait(struct peer *p, const char *reason, uint32_t retry_s)
{
	int64_t at = clock_wall_us() + (int64_t)retry_s * 1000000;

	if (p->relay->draining)
		return;
	/* Each command of a full window says it again. */
	if (p->asked && at <= p->state.retry_at_us + 999999)
		return;
	p->asked = true;
	metric_add(&waits_asked, 1);
	set_reason(p, reason);
	close_for(p, (int64_t)retry_s * 1000);
	log_warn("peer-asks-to-wait", LOG_S("peer", p->domain), LOG_S("reason", reason),
	         LOG_I("failures", p->state.failures), LOG_I("retry_s", retry_s));
	if (retry_s > HOLD_PAUSE_S)
		for (struct session *s = p->sessions; s != NULL; s = *session_link(s))
			session_give_back(s, reason);
}

/* Doubles with success until it is the peer's own limit again. */
static void
widen(struct peer *p)
{
	p->state.window_commands *= 2;
	if (p->state.window_commands >= WINDOW_WIDE)
		p->state.window_commands = 0;
	for (struct session *s = p->sessions; s != NULL; s = *session_link(s))
		session_window(s, (unsigned)p->state.window_commands);
}

void
peer_answered(struct peer *p)
{
	bool was_down = p->state.failures > 0;
	bool narrowed = p->state.window_commands > 0;

	p->answered_us = clock_wall_us();
	if (narrowed)
		widen(p);
	if (!peer_is_probing(p) || peer_is_paused(p)) {
		if (narrowed || p->sent_saved_ms == 0 ||
		    clock_mono_ms() - p->sent_saved_ms >= SENT_EVERY_MS)
			save(p);
		return;
	}
	if (was_down) {
		metric_add(&peers_down, -1);
		log_info("peer-recovered", LOG_S("peer", p->domain),
		         LOG_I("failures", p->state.failures));
	}
	p->state.failures = 0;
	p->state.failing_since_us = p->state.retry_at_us = -1;
	p->asked = p->probe_ours = false;
	loop_timer_cancel(&p->retry);
	free(p->state.reason);
	p->state.reason = NULL;
	if (was_down) /* it may have tried to tell us something meanwhile */
		catchup_recovered(p->relay->catchup, p);
	wake(p);
	save(p);
}

void
peer_narrow(struct peer *p, unsigned unanswered)
{
	unsigned window = unanswered / 2, now = (unsigned)p->state.window_commands;

	if (now > 0 && now / 2 < window)
		window = now / 2;
	p->state.window_commands = window == 0 ? 1 : (int)window;
	log_info("window-narrowed", LOG_S("peer", p->domain), LOG_I("unanswered", unanswered),
	         LOG_I("commands", p->state.window_commands));
	for (struct session *s = p->sessions; s != NULL; s = *session_link(s))
		session_window(s, (unsigned)p->state.window_commands);
	save(p);
}

/* --- Sessions ------------------------------------------------------------------ */

/* A session that does nothing makes room for another domain of ours, which has none. */
static void
make_room(struct peer *p)
{
	for (struct session *s = p->sessions; s != NULL; s = *session_link(s)) {
		if (session_is_idle(s)) {
			session_quit(s);
			return;
		}
	}
	p->crowded = true; /* the first that has nothing more to do */
}

void
peer_session_idle(struct peer *p, struct session *s)
{
	if (!p->crowded || !session_is_idle(s))
		return;
	p->crowded = false;
	session_quit(s);
}

struct session *
peer_session(struct peer *p, const char *own, int64_t hint)
{
	unsigned max = p->relay->config->relay.sessions_per_domain;
	/* Hashed: the low bits of a number of id_make are alike. */
	unsigned slot = hash_octets(&hint, sizeof(hint)) % max;
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
	if (p->sessions_n >= max) { /* all are other domains' of ours: an end will tell */
		make_room(p);
		return NULL;
	}
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
	grants_wake(p->relay->grants);
	receipts_wake(p->relay->receipts);
	catchup_wake(p->relay->catchup);
}
