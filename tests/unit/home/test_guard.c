/* home/guard, home/call: token buckets, and the form of tokens. */
#include "home/call.h"
#include "home/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sodium.h>

#define SECOND INT64_C(1000000)

static const struct guard_rule rule = { .kind = 'a', .burst = 3, .every_us = 10 * SECOND };
static const struct guard_rule other = { .kind = 'b', .burst = 3, .every_us = 10 * SECOND };

static void
test_a_burst_then_one_each_interval(void **state)
{
	struct guard *g = guard_make(64);
	int64_t now = 1000 * SECOND;
	unsigned wait_s = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(guard_take(g, &rule, SLICE("ann"), now, &wait_s));
	assert_false(guard_take(g, &rule, SLICE("ann"), now, &wait_s));
	assert_int_equal(wait_s, 10);
	assert_false(guard_take(g, &rule, SLICE("ann"), now + 9 * SECOND, &wait_s));
	assert_int_equal(wait_s, 1);
	assert_true(guard_take(g, &rule, SLICE("ann"), now + 10 * SECOND, &wait_s));
	assert_false(guard_take(g, &rule, SLICE("ann"), now + 10 * SECOND, &wait_s));
	for (int i = 0; i < 3; i++) /* long after it holds no more than the burst */
		assert_true(guard_take(g, &rule, SLICE("ann"), now + 1000 * SECOND, &wait_s));
	assert_false(guard_take(g, &rule, SLICE("ann"), now + 1000 * SECOND, &wait_s));
	guard_free(&g);
}

static void
test_looking_takes_nothing(void **state)
{
	struct guard *g = guard_make(64);
	int64_t now = 1000 * SECOND;
	unsigned wait_s;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_false(guard_is_empty(g, &rule, SLICE("ann"), now));
		assert_true(guard_take(g, &rule, SLICE("ann"), now, &wait_s));
	}
	assert_true(guard_is_empty(g, &rule, SLICE("ann"), now));
	assert_false(guard_is_empty(g, &rule, SLICE("bob"), now));
	assert_false(guard_is_empty(g, &other, SLICE("ann"), now));
	assert_true(guard_is_empty(g, &rule, SLICE("ann"), now + 10 * SECOND - 1));
	assert_false(guard_is_empty(g, &rule, SLICE("ann"), now + 10 * SECOND));
	/* What is charged beyond it makes a debt. */
	guard_charge(g, &rule, SLICE("ann"), now);
	assert_true(guard_is_empty(g, &rule, SLICE("ann"), now + 10 * SECOND));
	assert_false(guard_is_empty(g, &rule, SLICE("ann"), now + 20 * SECOND));
	guard_free(&g);
}

static void
test_names_and_rules_are_apart(void **state)
{
	struct guard *g = guard_make(64);
	unsigned wait_s;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(guard_take(g, &rule, SLICE("ann"), SECOND, &wait_s));
	assert_false(guard_take(g, &rule, SLICE("ann"), SECOND, &wait_s));
	assert_true(guard_take(g, &rule, SLICE("bob"), SECOND, &wait_s));
	assert_true(guard_take(g, &other, SLICE("ann"), SECOND, &wait_s));
	assert_true(guard_take(g, &rule, SLICE(""), SECOND, &wait_s));
	guard_free(&g);
}

/* The last before the end may go into debt; who is in debt is refused and pays no more. */
static void
test_spending_may_go_into_debt_once(void **state)
{
	struct guard *g = guard_make(64);
	int64_t now = 1000 * SECOND;
	unsigned wait_s = 9;

	(void)state;
	assert_true(guard_spend(g, &rule, SLICE("ann"), 2, now, &wait_s));
	assert_int_equal(wait_s, 0);
	assert_true(guard_spend(g, &rule, SLICE("ann"), 4, now, &wait_s)); /* 3 too many */
	assert_int_equal(wait_s, 31);
	assert_false(guard_spend(g, &rule, SLICE("ann"), 1, now + 29 * SECOND, &wait_s));
	assert_int_equal(wait_s, 2);
	assert_false(guard_spend(g, &rule, SLICE("ann"), 1, now + 30 * SECOND, &wait_s));
	assert_int_equal(wait_s, 1);
	assert_true(guard_spend(g, &rule, SLICE("ann"), 1, now + 31 * SECOND, &wait_s));
	assert_true(guard_spend(g, &rule, SLICE("bob"), 3, now, &wait_s));
	assert_int_equal(wait_s, 1);
	guard_free(&g);
}

static void
test_what_is_given_back_counts_again_but_no_further(void **state)
{
	struct guard *g = guard_make(64);
	unsigned wait_s;

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_true(guard_take(g, &rule, SLICE("ann"), SECOND, &wait_s));
		guard_give(g, &rule, SLICE("ann"), SECOND);
	}
	guard_give(g, &rule, SLICE("ann"), SECOND);
	for (int i = 0; i < 3; i++)
		assert_true(guard_take(g, &rule, SLICE("ann"), SECOND, &wait_s));
	assert_false(guard_take(g, &rule, SLICE("ann"), SECOND, &wait_s));
	guard_free(&g);
}

/* A flood of names drops those that did little, not the one that is being tried. */
static void
test_a_flood_of_names_keeps_the_guilty(void **state)
{
	struct guard *g = guard_make(1024);
	unsigned wait_s;
	char name[32];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(guard_take(g, &rule, SLICE("guilty"), SECOND, &wait_s));
	for (int i = 0; i < 100000; i++) {
		(void)snprintf(name, sizeof(name), "name%d", i);
		assert_true(guard_take(g, &rule, slice_str(name), SECOND, &wait_s));
	}
	assert_false(guard_take(g, &rule, SLICE("guilty"), SECOND, &wait_s));
	guard_free(&g);
}

static void
test_tokens_have_one_form(void **state)
{
	char token[CALL_TOKEN_TEXT], bad[CALL_TOKEN_TEXT + 1];
	int64_t account = 0;

	(void)state;
	call_token_make(INT64_C(0x123456789abcdef), token);
	assert_int_equal(strlen(token), CALL_TOKEN_TEXT - 1);
	assert_true(call_token_parse(slice_str(token), &account));
	assert_int_equal(account, INT64_C(0x123456789abcdef));
	for (size_t i = 0; i < strlen(token);
	     i++) { /* no prefix is one, nor is one with a wrong character */
		assert_false(call_token_parse(slice_mem(token, i), &account));
		memcpy(bad, token, sizeof(token));
		bad[i] = 'A';
		assert_false(call_token_parse(slice_str(bad), &account));
	}
	(void)snprintf(bad, sizeof(bad), "%sa", token);
	assert_false(call_token_parse(slice_str(bad), &account));
	assert_false(call_token_parse(SLICE(""), &account));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_burst_then_one_each_interval),
		cmocka_unit_test(test_looking_takes_nothing),
		cmocka_unit_test(test_names_and_rules_are_apart),
		cmocka_unit_test(test_spending_may_go_into_debt_once),
		cmocka_unit_test(test_what_is_given_back_counts_again_but_no_further),
		cmocka_unit_test(test_a_flood_of_names_keeps_the_guilty),
		cmocka_unit_test(test_tokens_have_one_form),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
