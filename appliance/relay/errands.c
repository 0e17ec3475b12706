/* Commands besides the queue's: see errands.h. */
#include "relay/errands.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_S 120
#define SKIP_MAX 4096
#define LATER_S 60 /* when nothing says how long */
#define IMPOSSIBLE_S 86400
#define BEHIND_S 2 /* behind the one that probes */
#define EVENT_TEXT 64
#define FINISH_PATIENCE_MS 600000

static struct errand *
errand_of(struct command *command)
{
	return (struct errand *)(void *)((char *)command - offsetof(struct errand, command));
}

static void
on_finished(void *arg)
{
	struct errand *e = arg;
	struct errands *errands = e->errands;
	struct peer *peer = e->peer;

	errands->kind->free(e);
	if (peer != NULL) {
		peer_idle(peer);
		peer_unref(&peer);
	}
	if (--errands->under_way == 0)
		errands_wake(errands);
}

/* sent: never again; else in wait_s. */
static void
finish(struct errand *e, bool sent, int64_t wait_s)
{
	const struct errands_kind *kind = e->errands->kind;
	struct relay *relay = e->errands->relay;
	struct store_job *job;

	session_remove(&e->source);
	job = kind->finish(e, sent, clock_wall_us() + wait_s * 1000000);
	job->patience_ms = FINISH_PATIENCE_MS;
	relay_later(&e->later, relay, job, on_finished, e);
	kind->submit_finish(relay->store, job);
}

/* --- Sending ------------------------------------------------------------------- */

static void
tell(const struct errand *e, const char *what, const char *reason)
{
	char event[EVENT_TEXT];

	(void)snprintf(event, sizeof(event), "%s-%s", e->errands->kind->name, what);
	log_warn(event, LOG_S("peer", e->peer->domain), LOG_S("reason", reason));
}

static void
on_replied(struct command *command, const struct dmtp_response *r)
{
	struct errand *e = errand_of(command);
	char reason[NET_TEXT];

	if (r->letter == DMTP_K) {
		peer_answered(e->peer);
		if (e->errands->kind->answered != NULL)
			e->errands->kind->answered(e);
		finish(e, true, 0);
		return;
	}
	dmtp_response_words(r, reason, sizeof(reason));
	tell(e, "refused", reason);
	if (r->letter == DMTP_E && dmtp_code_speaks(r->code) != DMTP_SPEAKS_SESSION) {
		peer_answered(e->peer);
		finish(e, true, 0); /* never: keeping it would not change that */
		return;
	}
	if (r->letter == DMTP_Z)
		peer_wait(e->peer, reason, r->retry_s > 0 ? r->retry_s : LATER_S);
	else
		peer_failed(e->peer, reason);
	finish(e, false, 0);
}

static void
on_lost(struct command *command, bool alone, const char *reason)
{
	(void)alone;
	(void)reason;
	finish(errand_of(command), false, 0);
}

static void
refuse_unknown(struct errand *e)
{
	char reason[NET_TEXT];

	if (e->errands->kind->needless) {
		finish(e, true, 0);
		return;
	}
	(void)snprintf(reason, sizeof(reason), "the peer does not know %s",
	               dmtp_verb_name(e->errands->kind->verb));
	tell(e, "impossible", reason);
	finish(e, false, IMPOSSIBLE_S);
}

static enum source_rc
make(struct source *source)
{
	struct errand *e = (struct errand *)source;
	const struct errands_kind *kind = e->errands->kind;
	enum dmtp_client_rc sent = DMTP_CLIENT_NO_MEMORY;
	struct buffer encoded;

	if ((session_ext(source->session) & kind->ext) == 0) {
		refuse_unknown(e);
		return SOURCE_DONE;
	}
	buffer_init(&encoded, DMTP_FLOOR_COMMAND);
	kind->encode(e, &encoded);
	if (!encoded.failed)
		sent = session_send(source->session, kind->verb, buffer_slice(&encoded),
		                    &e->command, false);
	buffer_free(&encoded);
	if (sent == DMTP_CLIENT_OK)
		session_remove(source);
	else
		finish(e, false, LATER_S);
	return SOURCE_DONE;
}

static bool
enter_session(struct errand *e)
{
	struct session *s = peer_session(e->peer, e->own, e->source.stream);

	if (s != NULL)
		session_add(s, &e->source);
	return s != NULL;
}

static void
gone(struct source *source, const char *reason)
{
	struct errand *e = (struct errand *)source;

	(void)reason;
	if (!enter_session(e))
		finish(e, false, 0);
}

void
errand_begin(struct errand *e, struct errands *errands, int64_t domain_id, const char *domain,
             const char *account, int lane, int64_t stream, struct uuid order)
{
	const char *at = account == NULL ? NULL : strrchr(account, '@');
	bool room;

	e->errands = errands;
	e->own = at == NULL ? NULL : at + 1;
	e->command.replied = on_replied;
	e->command.lost = on_lost;
	e->source = (struct source){
		.make = make, .gone = gone, .lane = lane, .stream = stream, .order = order
	};
	errands->under_way++;
	if (domain != NULL && at != NULL)
		e->peer = peer_get(errands->relay, domain_id, domain);
	if (e->peer == NULL) {
		finish(e, false, LATER_S);
		return;
	}
	room = peer_has_room(e->peer);
	(void)peer_ref(e->peer);
	peer_busy(e->peer);
	if (!room || !enter_session(e))
		finish(e, false, room ? 1 : BEHIND_S);
}

void
errand_void(struct errand *e, struct errands *errands)
{
	e->errands = errands;
	errands->under_way++;
	finish(e, true, 0);
}

/* --- Looking --------------------------------------------------------------------- */

static void
on_claimed(void *arg)
{
	struct errands *errands = arg;
	bool more;

	errands->looking = false;
	more = errands->kind->begin(errands) == errands->kind->claim_max;
	free(errands->skip);
	errands->skip = NULL;
	if (!errands->relay->draining)
		loop_timer_set(&errands->look,
		               errands->again || more ? 0 : errands->kind->every_ms);
	errands->again = false;
}

/* Domains that are not to be sent to now. */
static size_t
list_closed(struct errands *errands)
{
	struct peer *p, *next;
	size_t n = 0;

	errands->skip = malloc(SKIP_MAX * sizeof(*errands->skip));
	HASH_ITER(hh, errands->relay->peers, p, next)
	if (errands->skip != NULL && n < SKIP_MAX && !peer_has_room(p))
		errands->skip[n++] = p->domain_id;
	return n;
}

static void
on_look(struct loop_timer *timer)
{
	struct errands *errands = timer->arg;
	struct relay *relay = errands->relay;
	struct errands_claim claim;
	struct store_job *job;

	if (errands->looking || relay->draining || !relay->begun)
		return;
	errands->looking = true;
	claim.now_us = clock_wall_us();
	claim.lease_until_us = claim.now_us + (int64_t)LEASE_S * 1000000;
	claim.skip_n = list_closed(errands);
	claim.skip = errands->skip;
	claim.limit = errands->kind->claim_max;
	job = errands->kind->claim(errands, &claim);
	relay_later(&errands->later, relay, job, on_claimed, errands);
	errands->kind->submit_claim(relay->store, job);
}

void
errands_wake(struct errands *errands)
{
	if (errands->looking)
		errands->again = true;
	else if (!errands->relay->draining)
		loop_timer_set(&errands->look, 0);
}

struct errands *
errands_new(struct relay *relay, const struct errands_kind *kind)
{
	struct errands *errands = calloc(1, kind->size);

	if (errands == NULL)
		return NULL;
	errands->kind = kind;
	errands->relay = relay;
	loop_timer_init(&errands->look, relay->loop, on_look, errands);
	loop_timer_set(&errands->look, 0);
	return errands;
}

void
errands_free(struct errands *errands)
{
	if (errands == NULL)
		return;
	loop_timer_cancel(&errands->look);
	free(errands->skip);
	free(errands);
}
