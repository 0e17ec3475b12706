/* Judging notifications by site cards: see judge.h. */
#include "home/judge.h"

#include "base/metric.h"
#include "dmtp/uri.h"

#include <stdio.h>

#define REFUSED(var, reason)                                                   \
	METRIC_DEFINE(var, METRIC_COUNTER, "tmtp_notifications_refused_total", \
	              "reason=\"" reason "\"",                                 \
	              "Notifications that are not their sender's, by why.")

REFUSED(refused_unsigned, "unsigned");
REFUSED(refused_no_key, "no-key");
REFUSED(refused_key_ended, "key-ended");
REFUSED(refused_forged, "forged");
REFUSED(refused_host, "host");

static void on_card(void *arg, const struct card_answer *answer);

static struct slice
sender_domain(const struct judge *j)
{
	return dmtp_domain_of(slice_str(j->info->sender));
}

static uint32_t
allowed_uris(const struct judge *j, const struct dmtp_card *card)
{
	uint32_t allowed = 0;
	struct dmtp_uri uri;

	for (size_t i = 0; i < j->uris_n && i < JUDGE_URIS; i++)
		if (dmtp_uri_split(slice_str(j->uris[i]), &uri) &&
		    (slice_eq(uri.host, sender_domain(j)) ||
		     dmtp_card_has_host(card, uri.host)))
			allowed |= UINT32_C(1) << i;
	return allowed;
}

static void
end(struct judge *j, enum judge_verdict verdict, const char *reason)
{
	j->verdict = verdict;
	(void)snprintf(j->reason, sizeof(j->reason), "%s", reason);
	j->fn(j->arg);
}

static void
refuse(struct judge *j, enum dmtp_card_verdict verdict)
{
	static struct metric *const counted[] = {
		[DMTP_CARD_UNSIGNED] = &refused_unsigned,
		[DMTP_CARD_NO_KEY] = &refused_no_key,
		[DMTP_CARD_KEY_ENDED] = &refused_key_ended,
		[DMTP_CARD_FORGED] = &refused_forged,
	};
	char reason[sizeof(j->reason)];

	metric_add(counted[verdict], 1);
	(void)snprintf(reason, sizeof(reason), "signature: %s",
	               dmtp_card_verdict_text(verdict));
	end(j, verdict == DMTP_CARD_NO_KEY ? JUDGE_WRONG : JUDGE_NEVER, reason);
}

/* What speaks against it may have changed since the card was fetched. */
static bool
renew(struct judge *j)
{
	if (j->renewed || !cards_may_renew(j->home->cards, sender_domain(j)))
		return false;
	j->renewed = true;
	return cards_ask(j->home->cards, sender_domain(j), &j->ask, on_card, j);
}

static void
judge(struct judge *j, const struct dmtp_card *card)
{
	const struct pickup *info = j->info;
	enum dmtp_card_verdict verdict = dmtp_card_judge(
	    card, info->digest, info->key == NULL ? slice_mem(NULL, 0) : slice_str(info->key),
	    slice_mem(info->signature, info->signature_len), info->date_s);
	uint32_t all = (uint32_t)((UINT64_C(1) << j->uris_n) - 1);

	j->allowed = allowed_uris(j, card);
	if ((verdict != DMTP_CARD_GOOD || j->allowed != all) && renew(j))
		return;
	if (verdict != DMTP_CARD_GOOD) {
		refuse(j, verdict);
	} else if (j->allowed == 0) {
		metric_add(&refused_host, 1);
		end(j, JUDGE_WRONG, "no URI's host is the sender's domain or in its site card");
	} else {
		end(j, JUDGE_PASS, "");
	}
}

static void
on_card(void *arg, const struct card_answer *answer)
{
	struct judge *j = arg;
	char reason[sizeof(j->reason)];

	if (answer->card != NULL) {
		judge(j, answer->card);
		return;
	}
	(void)snprintf(reason, sizeof(reason), "the sender's site card: %.120s", answer->why);
	end(j, JUDGE_LATER, reason);
}

void
judge_begin(struct judge *j, struct home *home, const struct pickup *info, char *const *uris,
            size_t uris_n, void (*fn)(void *arg), void *arg)
{
	const struct dmtp_card *card;

	*j = (struct judge){ .home = home,
		             .info = info,
		             .uris = uris,
		             .uris_n = uris_n < JUDGE_URIS ? uris_n : JUDGE_URIS,
		             .fn = fn,
		             .arg = arg };
	card = cards_kept(home->cards, sender_domain(j));
	if (card != NULL)
		judge(j, card);
	else if (!cards_ask(home->cards, sender_domain(j), &j->ask, on_card, j))
		end(j, JUDGE_LATER, "out of memory");
}

void
judge_cancel(struct judge *j)
{
	cards_cancel(&j->ask);
}
