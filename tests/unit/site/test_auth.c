/* site/auth: the forms of opaque tokens and scopes. */
#include "site/auth.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
test_opaque_tokens_name_their_site(void **state)
{
	static const char *const bad[] = {
		"",
		"tmtp_s_",
		"tmtp_s_aebagbafaydqq",
		"tmtp_s_aebagbafaydqq_",
		"tmtp_s_aebagbafaydqq_aaaaaaaaaaaaaaa",  /* 15 random characters */
		"tmtp_s_aebagbafaydqq_aaaaaaaaaaaaaaa1", /* not base32 */
		"tmtp_s_AEBAGBAFAYDQQ_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"tmtp_a_aebagbafaydqq_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"tmtp_s_777777777776q_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", /* below 0 */
		"tmtp_s_aebagbafaydqqaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"tmtp_s_aebagbafaydqq_"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	int64_t id = 0;

	(void)state;
	assert_true(auth_opaque_site(
	    SLICE("tmtp_s_aebagbafaydqq_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), &id));
	assert_int_equal(id, 0x0102030405060708);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		id = 3;
		if (auth_opaque_site(slice_str(bad[i]), &id))
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(id, 3);
	}
}

static void
test_scopes_are_words(void **state)
{
	(void)state;
	assert_int_equal(auth_scopes("push"), SCOPE_PUSH);
	assert_int_equal(auth_scopes("push members read"), SCOPE_ALL);
	assert_int_equal(auth_scopes("  read   push "), SCOPE_READ | SCOPE_PUSH);
	assert_int_equal(auth_scopes("pushes pus reader none"), 0);
	assert_int_equal(auth_scopes(""), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opaque_tokens_name_their_site),
		cmocka_unit_test(test_scopes_are_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
