/*
 * Other domains' site cards (PROTOCOL.md 9.2), in memory: fetched when asked
 * for, kept as long as the domain says (five minutes to a day), by domain
 * fetched at most once a minute. A domain that answers without a card has an
 * empty one; a domain that doesn't answer has none, and nothing follows.
 */
#ifndef TMTP_HOME_CARDS_H
#define TMTP_HOME_CARDS_H

#include "dmtp/card.h"
#include "home/home.h"

#include <sys/queue.h>

/* card NULL: it can't be had now, for the reason in why. Borrowed until the callback returns. */
struct card_answer {
	const struct dmtp_card *card;
	const char *why;
};

/* A question; embeds in the asker, lives until fn or cards_cancel. */
struct card_ask {
	void (*fn)(void *arg, const struct card_answer *answer);
	void *arg;
	bool waits;
	LIST_ENTRY(card_ask) link;
};

/* NULL: no memory. */
struct cards *cards_new(struct home *home);

/* After the loop has stopped. */
void cards_free(struct cards **cards);

/* What is kept and still counts, or NULL. Borrowed until the loop turns. */
const struct dmtp_card *cards_kept(struct cards *cards, struct slice domain);

/* A newer card might say more than the kept one: that is a minute old. */
bool cards_may_renew(struct cards *cards, struct slice domain);

/*
 * Fetches the card, also when one is kept, unless the last fetch was a moment
 * ago: then it answers what that found. fn is called once, from the loop,
 * never from within. False: no memory, and no fn follows.
 */
bool cards_ask(struct cards *cards, struct slice domain, struct card_ask *ask,
               void (*fn)(void *arg, const struct card_answer *answer), void *arg)
    __attribute__((warn_unused_result));

/* No fn follows. Harmless for one that doesn't wait. */
void cards_cancel(struct card_ask *ask);

#endif
