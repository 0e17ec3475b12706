/* Other domains' site cards: see cards.h. */
#include "home/cards.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/origins.h"

#include <stdio.h>
#include <stdlib.h>

#define FETCH_MS 5000
#define UNSAID_S 3600  /* a card without Cache-Control is kept so long */
#define UNANSWERED_S 5 /* a domain that didn't answer is asked again after this */
#define CARDS_MAX 8192
#define OCTETS_MAX ((size_t)64 << 20)

METRIC_DEFINE(fetched_total, METRIC_COUNTER, "tmtp_site_cards_total", "result=\"fetched\"",
              "Site cards of other domains, by what asking for them gave.");
METRIC_DEFINE(none_total, METRIC_COUNTER, "tmtp_site_cards_total", "result=\"none\"",
              "Site cards of other domains, by what asking for them gave.");
METRIC_DEFINE(refused_total, METRIC_COUNTER, "tmtp_site_cards_total", "result=\"refused\"",
              "Site cards of other domains, by what asking for them gave.");
METRIC_DEFINE(unanswered_total, METRIC_COUNTER, "tmtp_site_cards_total",
              "result=\"unanswered\"",
              "Site cards of other domains, by what asking for them gave.");

/* A domain's card, or that it couldn't be had. */
struct entry {
	struct cards *cards;
	char domain[DMTP_DOMAIN_MAX + 1];
	struct dmtp_card *card; /* NULL: none yet, or not any more */
	size_t octets;
	int64_t until_ms;   /* how long card counts */
	int64_t fresh_ms;   /* until then nothing is fetched */
	char why[NET_TEXT]; /* the last fetch gave nothing; "" when it did */
	struct fetch *fetch;
	bool telling;           /* its card is lent to callbacks */
	struct loop_defer tell; /* answers those who asked too soon */
	LIST_HEAD(card_asks, card_ask) asks;
	TAILQ_ENTRY(entry) order; /* by the last use */
	UT_hash_handle hh;
};

struct cards {
	struct home *home;
	struct entry *entries;
	TAILQ_HEAD(entry_order, entry) order;
	size_t n, octets;
};

static int64_t
now_ms(const struct cards *cards)
{
	return loop_mono_ms(cards->home->loop);
}

/* --- Entries -------------------------------------------------------------------------- */

static void
drop_card(struct entry *e)
{
	e->cards->octets -= e->octets;
	e->octets = 0;
	dmtp_card_free(&e->card);
}

static void
entry_free(struct entry *e)
{
	struct cards *cards = e->cards;

	drop_card(e);
	fetch_cancel(&e->fetch);
	loop_defer_cancel(&e->tell);
	HASH_DEL(cards->entries, e);
	TAILQ_REMOVE(&cards->order, e, order);
	cards->n--;
	free(e);
}

/* The least used go, but for those somebody waits for. */
static void
make_room(struct cards *cards, const struct entry *keep)
{
	struct entry *e = TAILQ_FIRST(&cards->order), *next;

	for (; e != NULL && (cards->n > CARDS_MAX || cards->octets > OCTETS_MAX); e = next) {
		next = TAILQ_NEXT(e, order);
		if (e != keep && e->fetch == NULL && !e->telling && LIST_EMPTY(&e->asks))
			entry_free(e);
	}
}

static struct entry *
entry_find(struct cards *cards, struct slice domain)
{
	struct entry *e;

	HASH_FIND(hh, cards->entries, domain.data, domain.len, e);
	if (e != NULL) {
		TAILQ_REMOVE(&cards->order, e, order);
		TAILQ_INSERT_TAIL(&cards->order, e, order);
	}
	return e;
}

static void tell_deferred(struct loop_defer *defer);

static struct entry *
entry_get(struct cards *cards, struct slice domain)
{
	struct entry *e = entry_find(cards, domain);

	if (e != NULL || domain.len > DMTP_DOMAIN_MAX)
		return e;
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return NULL;
	e->cards = cards;
	memcpy(e->domain, domain.data, domain.len);
	LIST_INIT(&e->asks);
	loop_defer_init(&e->tell, tell_deferred, e);
	HASH_ADD(hh, cards->entries, domain, domain.len, e);
	TAILQ_INSERT_TAIL(&cards->order, e, order);
	cards->n++;
	make_room(cards, e);
	return e;
}

/* --- Answers ---------------------------------------------------------------------------- */

static const struct dmtp_card *
counting(const struct entry *e)
{
	return e->card != NULL && e->until_ms > now_ms(e->cards) ? e->card : NULL;
}

/* All who ask; those who ask from within a callback wait for the next time. */
static void
tell(struct entry *e)
{
	LIST_HEAD(asks_told, card_ask) asks = LIST_HEAD_INITIALIZER(asks);
	struct card_answer answer = { .card = counting(e), .why = e->why };
	struct card_ask *ask;

	while ((ask = LIST_FIRST(&e->asks)) != NULL) {
		LIST_REMOVE(ask, link);
		LIST_INSERT_HEAD(&asks, ask, link);
	}
	e->telling = true;
	while ((ask = LIST_FIRST(&asks)) != NULL) {
		LIST_REMOVE(ask, link);
		ask->waits = false;
		ask->fn(ask->arg, &answer);
	}
	e->telling = false;
}

static void
tell_deferred(struct loop_defer *defer)
{
	tell(defer->arg);
}

/* --- Fetching ------------------------------------------------------------------------------ */

/* "max-age=600": as long as that, within the protocol's bounds. */
static int64_t
keep_s(const char *cache_control)
{
	const char *at = strstr(cache_control, "max-age=");
	int64_t age = UNSAID_S;

	if (at != NULL && at[8] >= '0' && at[8] <= '9')
		age = strtol(at + 8, NULL, 10);
	else if (strstr(cache_control, "no-cache") != NULL ||
	         strstr(cache_control, "no-store") != NULL)
		age = 0;
	if (age < DMTP_CARD_LEAST_S)
		return DMTP_CARD_LEAST_S;
	return age > DMTP_CARD_MOST_S ? DMTP_CARD_MOST_S : age;
}

/* Takes card. */
static void
keep(struct entry *e, struct dmtp_card *card, size_t octets, int64_t for_s)
{
	drop_card(e);
	e->card = card;
	e->octets = octets;
	e->cards->octets += octets;
	e->until_ms = now_ms(e->cards) + for_s * 1000;
	e->why[0] = '\0';
	make_room(e->cards, e);
}

/* What was kept before still counts as long as it would have. */
static void
give_up(struct entry *e, const char *why)
{
	(void)snprintf(e->why, sizeof(e->why), "%s", why);
	log_warn("card-refused", LOG_S("domain", e->domain), LOG_S("reason", why));
}

/* It answered that there is none, or something that is no card. */
static void
keep_none(struct entry *e)
{
	struct dmtp_card *card = dmtp_card_make();

	metric_add(&none_total, 1);
	if (card == NULL)
		give_up(e, "out of memory");
	else
		keep(e, card, sizeof(*card), DMTP_CARD_LEAST_S);
}

static void
take_document(struct entry *e, const struct fetch_answer *answer)
{
	struct dmtp_card *card;

	switch (dmtp_card_decode(answer->body, &card)) {
	case DMTP_CARD_OK:
		metric_add(&fetched_total, 1);
		/* Its memory is about twice the text, at most. */
		keep(e, card, sizeof(*e) + 2 * answer->body.len, keep_s(answer->cache_control));
		return;
	case DMTP_CARD_NONE:
		keep_none(e);
		return;
	case DMTP_CARD_BAD:
		metric_add(&refused_total, 1);
		give_up(e, "it is not of the form that a site card has");
		return;
	case DMTP_CARD_NO_MEMORY:
		give_up(e, "out of memory");
		return;
	}
}

/* A server that is there and has no card says 404, or leads elsewhere, which isn't followed. */
static bool
says_none(long status)
{
	return status >= 300 && status < 500 && status != 408 && status != 425 && status != 429;
}

static void
on_fetched(void *arg, const struct fetch_answer *answer)
{
	struct entry *e = arg;
	char why[NET_TEXT];
	bool answered =
	    (answer->rc == FETCH_OK && answer->status < 500) || answer->rc == FETCH_TOO_LARGE;

	e->fetch = NULL;
	e->fresh_ms =
	    now_ms(e->cards) + (answered ? DMTP_CARD_FRESH_S : UNANSWERED_S) * INT64_C(1000);
	if (answer->rc == FETCH_OK && answer->status == 200) {
		take_document(e, answer);
	} else if (answer->rc == FETCH_OK && says_none(answer->status)) {
		keep_none(e);
	} else {
		if (answer->rc == FETCH_OK)
			(void)snprintf(why, sizeof(why), "HTTP status %ld", answer->status);
		else
			(void)snprintf(why, sizeof(why), "%s: %s", fetch_rc_name(answer->rc),
			               answer->text);
		metric_add(answered ? &refused_total : &unanswered_total, 1);
		give_up(e, why);
	}
	tell(e);
}

static void
fetch(struct entry *e)
{
	char url[DMTP_DOMAIN_MAX + 64];
	struct fetch_request request = {
		.url = url,
		.max_body = DMTP_CARD_MAX,
		.connect_ms = FETCH_MS,
		.total_ms = FETCH_MS,
	};

	(void)snprintf(url, sizeof(url), "https://%s" DMTP_CARD_PATH, e->domain);
	e->fetch = origins_fetch(e->cards->home->origins, slice_str(e->domain), &request,
	                         on_fetched, e);
	if (e->fetch == NULL) {
		give_up(e, "out of memory");
		loop_defer(e->cards->home->loop, &e->tell);
	}
}

/* --- Asking ----------------------------------------------------------------------------------- */

const struct dmtp_card *
cards_kept(struct cards *cards, struct slice domain)
{
	struct entry *e = entry_find(cards, domain);

	return e == NULL ? NULL : counting(e);
}

bool
cards_may_renew(struct cards *cards, struct slice domain)
{
	struct entry *e = entry_find(cards, domain);

	return e == NULL || e->fresh_ms <= now_ms(cards);
}

bool
cards_ask(struct cards *cards, struct slice domain, struct card_ask *ask,
          void (*fn)(void *arg, const struct card_answer *answer), void *arg)
{
	struct entry *e = entry_get(cards, domain);

	*ask = (struct card_ask){ .fn = fn, .arg = arg, .waits = true };
	if (e == NULL) {
		ask->waits = false;
		return false;
	}
	LIST_INSERT_HEAD(&e->asks, ask, link);
	if (e->fetch != NULL)
		return true;
	if (e->fresh_ms > now_ms(cards))
		loop_defer(cards->home->loop, &e->tell);
	else
		fetch(e);
	return true;
}

void
cards_cancel(struct card_ask *ask)
{
	if (!ask->waits)
		return;
	ask->waits = false;
	LIST_REMOVE(ask, link);
}

/* --- Life ---------------------------------------------------------------------------------------- */

struct cards *
cards_new(struct home *home)
{
	struct cards *cards = calloc(1, sizeof(*cards));

	if (cards == NULL)
		return NULL;
	cards->home = home;
	TAILQ_INIT(&cards->order);
	return cards;
}

void
cards_free(struct cards **cards)
{
	struct cards *all = *cards;

	if (all == NULL)
		return;
	*cards = NULL;
	while (!TAILQ_EMPTY(&all->order))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): entry_free takes it out of order */
		entry_free(TAILQ_FIRST(&all->order));
	free(all);
}
