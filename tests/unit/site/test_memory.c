/* base/memo, base/aside, site/rate: what the role keeps, counts and puts aside. */
#include "base/aside.h"
#include "base/memo.h"
#include "site/rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct thing {
	struct memo_item item;
	int value;
};

static _Atomic int alive;

static void
thing_free(struct memo_item *item)
{
	alive--;
	free(item);
}

static void
put(struct memo *memo, const char *key, int value, size_t weight, int64_t until_ms,
    uint64_t generation)
{
	struct thing *t = malloc(sizeof(*t));

	alive++;
	memo_item_init(&t->item, thing_free);
	t->value = value;
	memo_put(memo, slice_str(key), &t->item, weight, until_ms, generation);
	memo_item_unref(&t->item);
}

/* The value under key, or -1. */
static int
get(struct memo *memo, const char *key, int64_t now_ms)
{
	struct memo_item *item = memo_get(memo, slice_str(key), now_ms, NULL);
	int value = item == NULL ? -1 : ((struct thing *)item)->value;

	memo_item_unref(item);
	return value;
}

static void
test_memo_keeps_replaces_and_drops(void **state)
{
	struct memo *memo = memo_make(1600);

	(void)state;
	put(memo, "a", 1, 1, INT64_MAX, memo_generation(memo));
	put(memo, "", 2, 1, INT64_MAX, memo_generation(memo));
	assert_int_equal(get(memo, "a", 0), 1);
	assert_int_equal(get(memo, "", 0), 2);
	put(memo, "a", 3, 1, INT64_MAX, memo_generation(memo));
	assert_int_equal(get(memo, "a", 0), 3);
	assert_int_equal(alive, 2);
	memo_drop(memo, SLICE("a"));
	memo_drop(memo, SLICE("b"));
	assert_int_equal(get(memo, "a", 0), -1);
	memo_free(&memo);
	assert_null(memo);
	assert_int_equal(alive, 0);
}

static void
test_memo_ends_items_at_their_time(void **state)
{
	struct memo *memo = memo_make(1600);

	(void)state;
	put(memo, "a", 1, 1, 1000, memo_generation(memo));
	assert_int_equal(get(memo, "a", 999), 1);
	assert_int_equal(get(memo, "a", 1000), -1);
	assert_int_equal(alive, 0);
	memo_free(&memo);
}

/* What was asked for before the clearing must not come in behind it. */
static void
test_memo_clear_keeps_out_what_is_on_its_way(void **state)
{
	struct memo *memo = memo_make(1600);
	uint64_t generation;

	(void)state;
	assert_null(memo_get(memo, SLICE("a"), 0, &generation));
	put(memo, "b", 2, 1, INT64_MAX, generation);
	memo_clear(memo);
	put(memo, "a", 1, 1, INT64_MAX, generation);
	assert_int_equal(get(memo, "a", 0), -1);
	assert_int_equal(get(memo, "b", 0), -1);
	assert_int_equal(alive, 0);
	put(memo, "a", 1, 1, INT64_MAX, memo_generation(memo));
	assert_int_equal(get(memo, "a", 0), 1);
	memo_free(&memo);
}

static void
test_memo_stays_within_its_weight(void **state)
{
	struct memo *memo = memo_make(1600); /* 100 a part */
	char key[16];
	int last = 0;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		(void)snprintf(key, sizeof(key), "k%d", i);
		put(memo, key, i, 10, INT64_MAX, memo_generation(memo));
		assert_int_equal(get(memo, key, 0), i);
		last = i;
	}
	assert_true(alive <= 160);
	assert_int_equal(get(memo, "k0", 0), -1); /* the oldest went first */
	assert_int_equal(last, 9999);
	put(memo, "heavy", 1, 101, INT64_MAX, memo_generation(memo));
	assert_int_equal(get(memo, "heavy", 0), -1);
	memo_free(&memo);
	assert_int_equal(alive, 0);
}

static void
test_memo_items_outlive_the_memo(void **state)
{
	struct memo *memo = memo_make(16);
	struct memo_item *item;

	(void)state;
	put(memo, "a", 5, 1, INT64_MAX, memo_generation(memo));
	item = memo_get(memo, SLICE("a"), 0, NULL);
	memo_free(&memo);
	assert_int_equal(alive, 1);
	assert_int_equal(((struct thing *)item)->value, 5);
	memo_item_unref(item);
	assert_int_equal(alive, 0);
}

static void *
hammer(void *arg)
{
	char key[8];

	for (int i = 0; i < 20000; i++) {
		(void)snprintf(key, sizeof(key), "%d", i % 97);
		if (i % 3 == 0)
			put(arg, key, i % 97, 1, INT64_MAX, memo_generation(arg));
		else if (i % 1000 == 1)
			memo_clear(arg);
		else if (get(arg, key, 0) > 96)
			return arg;
	}
	return NULL;
}

static void
test_memo_from_many_threads(void **state)
{
	struct memo *memo = memo_make(160);
	pthread_t threads[4];
	void *wrong;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, memo), 0);
	for (int i = 0; i < 4; i++) {
		(void)pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	memo_free(&memo);
	assert_int_equal(alive, 0);
}

static void
test_rate_lets_a_second_pass_and_then_one_by_one(void **state)
{
	struct rates *rates = rates_make(10);
	unsigned wait = 0;
	int passed = 0;

	(void)state;
	for (int i = 0; i < 25; i++)
		passed += rates_take(rates, 1, 5000000, &wait);
	assert_int_equal(passed, 10);
	assert_int_equal(wait, 1);
	assert_true(rates_take(rates, 2, 5000000, &wait)); /* another site's own */
	assert_false(rates_take(rates, 1, 5099999, &wait));
	assert_true(rates_take(rates, 1, 5100000, &wait));
	assert_false(rates_take(rates, 1, 5100000, &wait));
	passed = 0;
	for (int i = 0; i < 25; i++)
		passed += rates_take(rates, 1, 60000000, &wait);
	assert_int_equal(passed, 10);
	rates_free(&rates);
	assert_null(rates);
}

struct counted {
	struct work work;
	_Atomic int *count;
};

static void
count(struct work *work)
{
	(*((struct counted *)work)->count)++;
}

static void
test_aside_runs_everything_once(void **state)
{
	struct aside *aside = aside_start();
	static struct counted works[1000];
	_Atomic int n = 0;

	(void)state;
	assert_non_null(aside);
	for (int i = 0; i < 999; i++) {
		works[i] = (struct counted){ .work = { .run = count }, .count = &n };
		aside_post(aside, &works[i].work);
	}
	aside_stop(aside);
	assert_int_equal(n, 999);
	works[999] = (struct counted){ .work = { .run = count }, .count = &n };
	aside_post(aside, &works[999].work);
	assert_int_equal(n, 999);
	aside_free(&aside);
	assert_int_equal(n, 1000);
	assert_null(aside);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memo_keeps_replaces_and_drops),
		cmocka_unit_test(test_memo_ends_items_at_their_time),
		cmocka_unit_test(test_memo_clear_keeps_out_what_is_on_its_way),
		cmocka_unit_test(test_memo_stays_within_its_weight),
		cmocka_unit_test(test_memo_items_outlive_the_memo),
		cmocka_unit_test(test_memo_from_many_threads),
		cmocka_unit_test(test_rate_lets_a_second_pass_and_then_one_by_one),
		cmocka_unit_test(test_aside_runs_everything_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
