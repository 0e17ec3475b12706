/*
 * home/cards, home/judge: how long another domain's card counts, when it is asked for again, and
 * what follows when it can't be had. The clock stands still but for wait_s, and origins_fetch is
 * the test's own: it keeps each request until the test answers it.
 */
#include "base/clock.h"
#include "home/cards.h"
#include "home/judge.h"
#include "home/origins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define BEGAN_S INT64_C(1800000000)
#define KEY_43 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define CARD(keys) "{\"dmtp\": 1, \"keys\": [" keys "]}"
#define KEY(id) \
	"{\"id\": \"" id "\", \"ed25519\": \"" KEY_43 "\", \"from\": 0, \"until\": 4102444800}"

static struct home home;
static struct card_ask ask;

/* What was asked for, and what became of it. */
static struct {
	unsigned fetches, answers;
	struct fetch_request request;
	char url[512], why[NET_TEXT];
	void (*fn)(void *arg, const struct fetch_answer *answer);
	void *arg;
	bool had; /* the answer was a card */
} told;

/* --- the room around it --------------------------------------------------------- */

struct fetch *
origins_fetch(struct origins *origins, struct slice domain, const struct fetch_request *request,
              void (*fn)(void *arg, const struct fetch_answer *answer), void *arg)
{
	(void)origins;
	(void)domain;
	told.fetches++;
	told.request = *request;
	(void)snprintf(told.url, sizeof(told.url), "%s", request->url);
	told.fn = fn;
	told.arg = arg;
	return (struct fetch *)&told;
}

void
fetch_cancel(struct fetch **fetch)
{
	*fetch = NULL;
}

const char *
fetch_rc_name(enum fetch_rc rc)
{
	return rc == FETCH_TIMEOUT ? "timeout" : "other";
}

static int
begin(void **state)
{
	(void)state;
	clock_freeze(BEGAN_S * 1000000);
	memset(&told, 0, sizeof(told));
	home = (struct home){ .loop = loop_new() };
	home.cards = cards_new(&home);
	return home.loop == NULL || home.cards == NULL ? -1 : 0;
}

static int
finish(void **state)
{
	(void)state;
	cards_free(&home.cards);
	loop_free(&home.loop);
	clock_freeze(-1);
	return 0;
}

static void
wait_s(int64_t s)
{
	clock_freeze(clock_wall_us() + s * 1000000);
	(void)loop_turn(home.loop, 0);
}

static void
on_card(void *arg, const struct card_answer *answer)
{
	(void)arg;
	told.answers++;
	told.had = answer->card != NULL;
	(void)snprintf(told.why, sizeof(told.why), "%s", answer->why);
}

static void
ask_for(const char *domain)
{
	assert_true(cards_ask(home.cards, slice_str(domain), &ask, on_card, NULL));
	(void)loop_turn(home.loop, 0);
}

static void
answer_with(enum fetch_rc rc, long status, const char *body, const char *cache_control)
{
	const struct fetch_answer answer = { .rc = rc,
		                             .status = status,
		                             .body = slice_str(body),
		                             .text = "",
		                             .cache_control = cache_control };

	told.fn(told.arg, &answer);
}

static bool
is_kept(const char *domain)
{
	return cards_kept(home.cards, slice_str(domain)) != NULL;
}

/* --- how long ------------------------------------------------------------------------ */

static void
test_a_card_counts_as_long_as_it_says_from_5_minutes_to_24_hours_and_unsaid_an_hour(
    void **state)
{
	static const struct {
		const char *cache_control;
		int64_t counts_s;
	} table[] = {
		{ "", 3600 },
		{ "public", 3600 },
		{ "max-age", 3600 },
		{ "max-age=x", 3600 },
		{ "max-age=0", 300 },
		{ "max-age=299", 300 },
		{ "public, max-age=300", 300 },
		{ "max-age=301", 301 },
		{ "max-age=7200, public", 7200 },
		{ "max-age=86400", 86400 },
		{ "max-age=86401", 86400 },
		{ "max-age=99999999999999999999", 86400 },
		{ "no-store", 300 },
		{ "no-cache", 300 },
	};
	char domain[32];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		(void)snprintf(domain, sizeof(domain), "d%zu.test", i);
		ask_for(domain);
		answer_with(FETCH_OK, 200, CARD(""), table[i].cache_control);
		wait_s(table[i].counts_s - 1);
		if (!is_kept(domain))
			fail_msg("\"%s\": it counts no more", table[i].cache_control);
		wait_s(1);
		if (is_kept(domain))
			fail_msg("\"%s\": it still counts", table[i].cache_control);
	}
}

/* --- when ------------------------------------------------------------------------------ */

static void
test_a_card_is_fetched_over_https_within_5_seconds_and_64_kib(void **state)
{
	(void)state;
	ask_for("a.test");
	assert_string_equal(told.url, "https://a.test/.well-known/dmtp");
	assert_int_equal(told.request.total_ms, 5000);
	assert_int_equal(told.request.connect_ms, 5000);
	assert_int_equal(told.request.max_body, 65536);
	answer_with(FETCH_TIMEOUT, 0, "", "");
	assert_int_equal(told.answers, 1);
	assert_false(told.had);
	assert_string_equal(told.why, "timeout: ");
}

static void
test_a_card_is_fetched_at_most_once_a_minute_and_after_no_answer_in_5_seconds(void **state)
{
	(void)state;
	ask_for("a.test");
	answer_with(FETCH_OK, 200, CARD(""), "");
	wait_s(59);
	assert_false(cards_may_renew(home.cards, SLICE("a.test")));
	ask_for("a.test"); /* answered by what that found */
	assert_int_equal(told.fetches, 1);
	assert_int_equal(told.answers, 2);
	assert_true(told.had);
	wait_s(1);
	assert_true(cards_may_renew(home.cards, SLICE("a.test")));
	ask_for("a.test");
	assert_int_equal(told.fetches, 2);
	answer_with(FETCH_OK, 503, "", "");
	wait_s(4);
	ask_for("a.test");
	assert_int_equal(told.fetches, 2);
	wait_s(1);
	ask_for("a.test");
	assert_int_equal(told.fetches, 3);
}

static void
test_a_card_counts_on_while_asking_again_gets_no_answer(void **state)
{
	static const struct {
		enum fetch_rc rc;
		long status;
	} unanswered[] = {
		{ FETCH_TIMEOUT, 0 }, { FETCH_CONNECT, 0 }, { FETCH_OK, 500 }, { FETCH_OK, 429 }
	};

	(void)state;
	ask_for("a.test");
	answer_with(FETCH_OK, 200, CARD(KEY("k")), "max-age=3600");
	for (size_t i = 0; i < sizeof(unanswered) / sizeof(unanswered[0]); i++) {
		wait_s(60);
		ask_for("a.test");
		assert_true(is_kept("a.test")); /* while it is asked for */
		answer_with(unanswered[i].rc, unanswered[i].status, "", "");
		assert_true(told.had);
		assert_true(dmtp_card_key_counts(cards_kept(home.cards, SLICE("a.test")),
		                                 SLICE("k"), BEGAN_S));
	}
	wait_s(3600 - 4 * 60 - 1);
	assert_true(is_kept("a.test"));
	wait_s(1); /* no longer than it would have */
	assert_false(is_kept("a.test"));
}

/* --- what ------------------------------------------------------------------------------- */

static void
test_a_status_says_that_there_is_no_card_or_nothing(void **state)
{
	static const long none[] = { 300, 301, 302, 303, 307, 308, 400, 401, 403, 404,
		                     405, 407, 409, 410, 424, 426, 428, 430, 451, 499 };
	static const long nothing[] = { 408, 425, 429, 500, 501, 502, 503, 504, 599, 204, 206 };
	const struct dmtp_card *card;
	char domain[32], why[32];

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		(void)snprintf(domain, sizeof(domain), "d%ld.test", none[i]);
		ask_for(domain);
		answer_with(FETCH_OK, none[i], "", "");
		card = cards_kept(home.cards, slice_str(domain));
		if (!told.had || card == NULL || card->keys_n > 0 || card->signed_only)
			fail_msg("%ld isn't taken for there being no card", none[i]);
	}
	for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
		(void)snprintf(domain, sizeof(domain), "d%ld.test", nothing[i]);
		(void)snprintf(why, sizeof(why), "HTTP status %ld", nothing[i]);
		ask_for(domain);
		answer_with(FETCH_OK, nothing[i], "", "");
		if (told.had || is_kept(domain))
			fail_msg("%ld is taken for an answer", nothing[i]);
		assert_string_equal(told.why, why);
	}
}

/* --- a notification whose key the card doesn't hold ---------------------------------------- */

static struct judge judge;
static unsigned judged;

static void
on_judged(void *arg)
{
	(void)arg;
	judged++;
}

static void
judge_again(const struct pickup *info)
{
	static char uri[] = "https://a.test/m/x";
	static char *uris[] = { uri };

	judged = 0;
	judge_begin(&judge, &home, info, uris, 1, on_judged, NULL);
}

static void
test_a_key_that_the_card_does_not_hold_is_looked_for_in_a_newer_card(void **state)
{
	static char sender[] = "shop@a.test", key[] = "new";
	uint8_t signature[DMTP_SIGNATURE_LEN] = { 0 };
	struct pickup info = { .sender = sender,
		               .key = key,
		               .signature = signature,
		               .signature_len = sizeof(signature),
		               .date_s = BEGAN_S };

	(void)state;
	judge_again(&info);
	answer_with(FETCH_OK, 200, CARD(KEY("old")), "");
	assert_int_equal(judged, 1);
	assert_int_equal(judge.verdict, JUDGE_WRONG); /* fetched for this: no newer one yet */
	wait_s(59);
	judge_again(&info);
	assert_int_equal(told.fetches, 1);
	assert_int_equal(judged, 1);
	assert_int_equal(judge.verdict, JUDGE_WRONG);
	wait_s(1);
	judge_again(&info);
	assert_int_equal(told.fetches, 2);
	assert_int_equal(judged, 0);
	answer_with(FETCH_OK, 200, CARD(KEY("old") "," KEY("new")), "");
	assert_int_equal(judged, 1);
	assert_int_equal(judge.verdict, JUDGE_NEVER); /* by that key: it didn't sign this */
	assert_string_equal(judge.reason, "signature: the signature is not of that key");
}

int
main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, finish)
	const struct CMUnitTest tests[] = {
		TEST(
		    test_a_card_counts_as_long_as_it_says_from_5_minutes_to_24_hours_and_unsaid_an_hour),
		TEST(test_a_card_is_fetched_over_https_within_5_seconds_and_64_kib),
		TEST(
		    test_a_card_is_fetched_at_most_once_a_minute_and_after_no_answer_in_5_seconds),
		TEST(test_a_card_counts_on_while_asking_again_gets_no_answer),
		TEST(test_a_status_says_that_there_is_no_card_or_nothing),
		TEST(test_a_key_that_the_card_does_not_hold_is_looked_for_in_a_newer_card),
	};

	return cmocka_run_group_tests_name(__FILE__, tests, NULL, NULL);
}
