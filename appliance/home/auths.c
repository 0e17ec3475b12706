/* AUTH: see auths.h. */
#include "home/auths.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/message.h"
#include "home/cards.h"

#include <stdlib.h>
#include <sys/queue.h>

#define LATER_S 10 /* a card that can't be had is asked for again after five seconds */

METRIC_DEFINE(verified_total, METRIC_COUNTER, "tmtp_dmtp_auths_total", "result=\"verified\"",
              "AUTH of other servers, by its result.");
METRIC_DEFINE(refused_total, METRIC_COUNTER, "tmtp_dmtp_auths_total", "result=\"refused\"",
              "AUTH of other servers, by its result.");
METRIC_DEFINE(later_total, METRIC_COUNTER, "tmtp_dmtp_auths_total", "result=\"later\"",
              "AUTH of other servers, by its result.");

struct gate;

/* One AUTH that waits for a card. */
struct auth {
	struct auths *auths;
	struct dmtp_session *session; /* held until the reply */
	uint64_t seq;
	char domain[DMTP_DOMAIN_MAX + 1], server[DMTP_DOMAIN_MAX + 1], key[DMTP_ID_MAX + 1];
	uint8_t signature[DMTP_SIGNATURE_LEN], exporter[32];
	bool renewed;
	struct gate *gate; /* its address's; it has the turn, or waits for it */
	struct card_ask ask;
	TAILQ_ENTRY(auth) link;
};

/* A client address for which a card is being fetched, and who waits there; the first has the turn. */
struct gate {
	uint8_t key[8];
	TAILQ_HEAD(auth_queue, auth) queue;
	struct loop_defer next;
	struct auths *auths;
	UT_hash_handle hh;
};

struct auths {
	struct home *home;
	struct gate *gates;
};

static void on_card(void *arg, const struct card_answer *answer);
static void take_turn(struct auth *a);

/* --- Gates ------------------------------------------------------------------------- */

static void
on_next(struct loop_defer *defer)
{
	struct gate *gate = defer->arg;
	struct auth *a = TAILQ_FIRST(&gate->queue);

	if (a != NULL) {
		take_turn(a);
		return;
	}
	HASH_DEL(gate->auths->gates, gate);
	free(gate);
}

static struct gate *
gate_get(struct auths *auths, const struct dmtp_session *s)
{
	uint8_t key[8] = { 0 };
	struct gate *gate;

	(void)net_address_key(dmtp_session_peer_address(s), key);
	HASH_FIND(hh, auths->gates, key, sizeof(key), gate);
	if (gate != NULL)
		return gate;
	gate = calloc(1, sizeof(*gate));
	if (gate == NULL)
		return NULL;
	memcpy(gate->key, key, sizeof(gate->key));
	TAILQ_INIT(&gate->queue);
	gate->auths = auths;
	loop_defer_init(&gate->next, on_next, gate);
	HASH_ADD(hh, auths->gates, key, sizeof(gate->key), gate);
	return gate;
}

/* --- Ends ----------------------------------------------------------------------------- */

static void
end(struct auth *a, const struct dmtp_response *response)
{
	struct gate *gate = a->gate;

	cards_cancel(&a->ask);
	if (gate != NULL) {
		TAILQ_REMOVE(&gate->queue, a, link);
		loop_defer(a->auths->home->loop, &gate->next);
	}
	dmtp_session_reply(a->session, a->seq, response);
	free(a);
}

static void
refuse(struct auth *a, const char *reason)
{
	struct dmtp_response e = dmtp_response_make(DMTP_E, DMTP_CODE_UNVERIFIED_SENDER, 0);

	metric_add(&refused_total, 1);
	log_warn("auth-refused", LOG_S("address", dmtp_session_address(a->session)),
	         LOG_S("domain", a->domain), LOG_S("key", a->key), LOG_S("reason", reason));
	e.text = slice_str(reason);
	end(a, &e);
}

static void
put_off(struct auth *a, const char *reason)
{
	struct dmtp_response z =
	    dmtp_response_make(DMTP_Z, DMTP_CODE_UNVERIFIED_SENDER, LATER_S);

	metric_add(&later_total, 1);
	log_warn("auth-put-off", LOG_S("address", dmtp_session_address(a->session)),
	         LOG_S("domain", a->domain), LOG_S("key", a->key), LOG_S("reason", reason));
	z.text = SLICE("the domain's site card can't be had now");
	end(a, &z);
}

static void
accept_proof(struct auth *a, int64_t until)
{
	struct dmtp_response k = DMTP_RESPONSE_K;

	if (!dmtp_session_prove(a->session, a->domain, a->key, until, &k.limits)) {
		refuse(a, "too many domains in one session");
		return;
	}
	metric_add(&verified_total, 1);
	log_info("auth-verified", LOG_S("address", dmtp_session_address(a->session)),
	         LOG_S("domain", a->domain), LOG_S("key", a->key));
	k.has_limits = true;
	end(a, &k);
}

/* --- Judging ------------------------------------------------------------------------------ */

/* Asks for the card; the asker has its address's turn. */
static void
ask(struct auth *a)
{
	if (!cards_ask(a->auths->home->cards, slice_str(a->domain), &a->ask, on_card, a))
		put_off(a, "out of memory");
}

/* By a card that is there. False: a newer one is to be asked for. */
static bool
judge(struct auth *a, const struct dmtp_card *card)
{
	const struct dmtp_card_auth proof = {
		.exporter = a->exporter,
		.client = slice_str(a->domain),
		.server = slice_str(a->server),
		.key = slice_str(a->key),
		.signature = slice_mem(a->signature, sizeof(a->signature)),
	};
	int64_t until = 0;
	enum dmtp_card_verdict verdict =
	    dmtp_card_judge_auth(card, &proof, clock_wall_s(), &until);

	if (verdict == DMTP_CARD_GOOD)
		accept_proof(a, until);
	else if (!a->renewed && cards_may_renew(a->auths->home->cards, slice_str(a->domain)))
		return false;
	else
		refuse(a, dmtp_card_verdict_text(verdict));
	return true;
}

static void
on_card(void *arg, const struct card_answer *answer)
{
	struct auth *a = arg;

	a->renewed = true;
	if (answer->card == NULL)
		put_off(a, answer->why);
	else
		(void)judge(a, answer->card);
}

/* Its address's turn has come: the card may be in memory by now. */
static void
take_turn(struct auth *a)
{
	const struct dmtp_card *card;

	if (a->ask.waits)
		return;
	if (dmtp_session_is_over(a->session)) {
		put_off(a, "the session has ended");
		return;
	}
	card = cards_kept(a->auths->home->cards, slice_str(a->domain));
	if (card == NULL || !judge(a, card))
		ask(a);
}

static void
wait_for_turn(struct auth *a)
{
	struct gate *gate = gate_get(a->auths, a->session);
	bool first;

	if (gate == NULL) {
		put_off(a, "out of memory");
		return;
	}
	first = TAILQ_EMPTY(&gate->queue);
	a->gate = gate;
	TAILQ_INSERT_TAIL(&gate->queue, a, link);
	if (first)
		ask(a);
}

/* --- Beginning ------------------------------------------------------------------------------ */

static void
copy_text(char *to, size_t size, struct slice from)
{
	size_t n = from.len < size ? from.len : size - 1;

	memcpy(to, from.data, n);
	to[n] = '\0';
}

void
auths_take(struct auths *auths, struct dmtp_session *s, uint64_t seq,
           const struct dmtp_auth *auth)
{
	struct auth *a = calloc(1, sizeof(*a));
	struct dmtp_response z =
	    dmtp_response_make(DMTP_Z, DMTP_CODE_UNVERIFIED_SENDER, LATER_S);
	const struct dmtp_card *card;

	if (a == NULL) {
		dmtp_session_reply(s, seq, &z);
		return;
	}
	a->auths = auths;
	a->session = s;
	a->seq = seq;
	copy_text(a->domain, sizeof(a->domain), auth->domain);
	copy_text(a->key, sizeof(a->key), auth->key);
	memcpy(a->signature, auth->signature.data, sizeof(a->signature));
	copy_text(a->server, sizeof(a->server), slice_str(dmtp_session_server(s)));
	if (a->server[0] == '\0') {
		refuse(a, "the session names no domain of ours (SNI)");
		return;
	}
	if (!dmtp_session_exporter(s, a->exporter)) {
		refuse(a, "needs TLS 1.3, or TLS 1.2 with the extended master secret");
		return;
	}
	card = cards_kept(auths->home->cards, auth->domain);
	if (card == NULL || !judge(a, card))
		wait_for_turn(a);
}

/* --- Life -------------------------------------------------------------------------------------- */

struct auths *
auths_new(struct home *home)
{
	struct auths *auths = calloc(1, sizeof(*auths));

	if (auths != NULL)
		auths->home = home;
	return auths;
}

void
auths_free(struct auths **auths)
{
	struct auths *all = *auths;
	struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_SHUTTING_DOWN, 1);
	struct gate *gate, *next;
	struct auth *a;

	if (all == NULL)
		return;
	*auths = NULL;
	HASH_ITER(hh, all->gates, gate, next)
	{
		while ((a = TAILQ_FIRST(&gate->queue)) != NULL)
			/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): end takes it out of the queue */
			end(a, &z);
		loop_defer_cancel(&gate->next);
		/* NOLINTNEXTLINE(clang-analyzer-*): gates before were taken out, this one stands in them */
		HASH_DEL(all->gates, gate);
		free(gate);
	}
	free(all);
}
