/* What the tests of dmtp/ share. */
#ifndef TMTP_TESTS_DMTP_TEST_H
#define TMTP_TESTS_DMTP_TEST_H

#include "base/buffer.h"
#include "dmtp/bencode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define RUN(tests) cmocka_run_group_tests_name(__FILE__, tests, NULL, NULL)

#define GRANT_A "aaaaaaaaaaaaaaaaaaaa"
#define GRANT_B "bbbbbbbbbbbbbbbbbbbb"
#define DIGEST_D "dddddddddddddddddddddddddddddddd"
#define SIGNATURE_S "ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"

/* A copy that ends where its heap block ends: the sanitizer sees one octet read too far. */
static inline struct slice
flush_copy(struct slice s)
{
	uint8_t *p = malloc(s.len == 0 ? 1 : s.len);

	assert_non_null(p);
	if (s.len > 0)
		memcpy(p, s.data, s.len);
	return slice_mem(p, s.len);
}

static inline void
flush_free(struct slice s)
{
	free((void *)(uintptr_t)s.data);
}

static inline void
assert_slice(struct slice s, const char *expected)
{
	if (!slice_eq_str(s, expected))
		fail_msg("\"%.*s\" instead of \"%s\"", (int)s.len, (const char *)s.data,
		         expected);
}

/* Each proper prefix of a canonical element asks for more, the whole is one. */
static inline void
assert_prefixes_ask_for_more(struct slice element)
{
	for (size_t n = 0; n < element.len; n++) {
		struct slice cut = flush_copy(slice_mem(element.data, n));

		if (ben_check(cut, 1 << 20) != BEN_MORE)
			fail_msg("prefix of %zu octets does not ask for more", n);
		flush_free(cut);
	}
	assert_int_equal(ben_check(element, 1 << 20), BEN_OK);
}

#endif
