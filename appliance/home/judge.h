/*
 * Whether a notification is its sender's, and which of its URIs may be asked:
 * by the sender's site card. Comes before the pickup, since a signature covers
 * the digest and not the octets.
 */
#ifndef TMTP_HOME_JUDGE_H
#define TMTP_HOME_JUDGE_H

#include "home/cards.h"
#include "store/pickups.h"

#define JUDGE_URIS 16

enum judge_verdict {
	JUDGE_PASS,
	JUDGE_LATER, /* the card can't be had: it says nothing about the notification */
	JUDGE_WRONG, /* wrong now; a newer card may say otherwise */
	JUDGE_NEVER, /* forged, or not signed where everything is */
};

/* Embeds in the asker; lives until fn or judge_cancel. */
struct judge {
	struct card_ask ask;
	struct home *home;
	/* borrowed until fn */
	const struct pickup *info;
	char *const *uris;
	size_t uris_n;
	void (*fn)(void *arg);
	void *arg;
	bool renewed;
	/* out */
	enum judge_verdict verdict;
	uint32_t allowed; /* bit by bit: this URI's host is the sender's; JUDGE_PASS */
	char reason[160]; /* one line, unless JUDGE_PASS */
};

/* Calls fn once: from within when the card is known, else from the loop. At most JUDGE_URIS URIs. */
void judge_begin(struct judge *j, struct home *home, const struct pickup *info,
                 char *const *uris, size_t uris_n, void (*fn)(void *arg), void *arg);

/* No fn follows. Harmless when none would. */
void judge_cancel(struct judge *j);

#endif
