/* dmtp/bencode: the scanner, the reader and the writer of canonical bencoding. */
#include "dmtp_test.h"

static const char *const canonical[] = {
	"0:",
	"3:abc",
	"i0e",
	"i1e",
	"i-1e",
	"i9223372036854775807e",
	"i-9223372036854775808e",
	"le",
	"de",
	"li1ei2ee",
	"l0:0:e",
	"d0:i1ee",
	"d1:ai1e1:bi2ee",
	"d1:a0:2:aa0:1:b0:e",
	"lllllllleeeeeeee",
	"d1:ad1:ad1:ad1:ad1:ad1:ad1:adeeeeeeee",
	"d1:ali1ed1:bi2eee1:cdee",
	"l4:POSTd2:idi7e5:rcptsl20:aaaaaaaaaaaaaaaaaaaaeee",
	"10:0123456789",
	"d1:\x7fi1e1:\xffi2ee",
	"ld1:bi1eed1:ai1eee", /* each dictionary has its own order */
	"d1:bd1:ai1ee1:ci1ee",
};

static const char *const refused[] = {
	"x",
	"e",
	"-",
	":",
	"ie",
	"i-e",
	"i-0e",
	"i00e",
	"i01e",
	"i-01e",
	"i0-e",
	"i+1e",
	"i1-e",
	"i 1e",
	"i--1e",
	"i1x",
	"i9223372036854775808e",
	"i-9223372036854775809e",
	"i99999999999999999999e",
	"00:",
	"01:a",
	"1a",
	"1-:",
	"lx",
	"dx",
	"di1ei2ee",
	"dle0:e",
	"d1:ae",
	"d1:a0:1:a0:e",
	"d1:b0:1:a0:e",
	"d2:aa0:1:a0:e",
	"d1:\xff"
	"0:1:\x7f"
	"0:e",
	"lllllllll",
	"d1:ad1:ad1:ad1:ad1:ad1:ad1:ad1:ad",
	"d1:ai1e0:i1ee",
	"d0:i1e0:i1ee",
};

static void
test_canonical_elements_are_taken_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(canonical); i++) {
		struct slice s = flush_copy(slice_str(canonical[i]));

		if (ben_check(s, 1000) != BEN_OK)
			fail_msg("%s", canonical[i]);
		flush_free(s);
	}
}

static void
test_every_prefix_asks_for_more(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(canonical); i++)
		assert_prefixes_ask_for_more(slice_str(canonical[i]));
}

static void
test_what_is_not_canonical_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(refused); i++) {
		struct slice s = flush_copy(slice_str(refused[i]));
		enum ben_rc rc = ben_check(s, 1000);

		if (rc != BEN_BAD)
			fail_msg("%s answers %d", refused[i], rc);
		flush_free(s);
	}
	assert_int_equal(ben_check(SLICE("i1ei2e"), 1000), BEN_BAD); /* one element, not two */
}

/* Octet by octet, each time in another block of memory, ends as all at once does. */
static void
test_the_way_octets_arrive_makes_no_difference(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(canonical) + COUNT(refused); i++) {
		const char *text =
		    i < COUNT(canonical) ? canonical[i] : refused[i - COUNT(canonical)];
		struct slice whole = slice_str(text);
		struct ben_scan once, bits;
		enum ben_rc rc_once, rc_bits = BEN_MORE;

		ben_scan_init(&once, 1000);
		ben_scan_init(&bits, 1000);
		rc_once = ben_scan(&once, whole.data, whole.len);
		for (size_t n = 1; n <= whole.len && rc_bits == BEN_MORE; n++) {
			struct slice part = flush_copy(slice_mem(whole.data, n));

			rc_bits = ben_scan(&bits, part.data, part.len);
			flush_free(part);
		}
		assert_int_equal(rc_once, rc_bits);
		assert_int_equal(once.at, bits.at);
		assert_int_equal(ben_scan(&once, whole.data, whole.len), rc_once); /* final */
	}
}

static void
test_scanner_stops_at_the_end_of_its_element(void **state)
{
	struct slice two = SLICE("l4:NOOPel4:QUITe");
	struct ben_scan s;

	(void)state;
	ben_scan_init(&s, 1000);
	assert_int_equal(ben_scan(&s, two.data, two.len), BEN_OK);
	assert_int_equal(s.at, 8);
}

/* The least input that proves an element too long, and what is just short enough. */
static void
test_a_length_tells_the_limit_before_its_octets_come(void **state)
{
	static const struct {
		const char *start;
		size_t limit;
		enum ben_rc rc;
	} table[] = {
		{ "10:", 13, BEN_MORE },
		{ "10:", 12, BEN_LIMIT },
		{ "10", 11, BEN_LIMIT },
		{ "99", 100, BEN_LIMIT },
		{ "98", 100, BEN_MORE },
		{ "l10:", 14, BEN_LIMIT },
		{ "l10:", 15, BEN_MORE },
		{ "l99999", 1000, BEN_LIMIT },
		{ "llll", 4, BEN_LIMIT },
		{ "ll", 4, BEN_MORE },
		{ "999999999999999999999999", 1000, BEN_LIMIT },
		{ "d3:abc5:", 100, BEN_MORE },
		{ "i12345", 5, BEN_LIMIT },
		{ "", 0, BEN_LIMIT },
		{ "18446744073709551616:", SIZE_MAX, BEN_LIMIT },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice s = flush_copy(slice_str(table[i].start));

		if (ben_check(s, table[i].limit) != table[i].rc)
			fail_msg("%s within %zu", table[i].start, table[i].limit);
		flush_free(s);
	}
	for (size_t i = 0; i < COUNT(canonical); i++) { /* the limit itself is allowed */
		struct slice s = slice_str(canonical[i]);

		assert_int_equal(ben_check(s, s.len), BEN_OK);
		assert_int_equal(ben_check(s, s.len - 1), BEN_LIMIT);
	}
}

static void
test_reader_walks_containers(void **state)
{
	struct ben_reader r;
	struct slice list;

	(void)state;
	ben_reader_init(&r, SLICE("d1:ai-5e1:bli1e2:xye1:cd1:zi0ee1:d0:e"));
	assert_int_equal(ben_peek(&r), BEN_DICT);
	ben_enter_dict(&r);
	assert_true(ben_find(&r, "a"));
	assert_int_equal(ben_get_int(&r), -5);
	assert_false(ben_find(&r, "aa"));
	assert_true(ben_find(&r, "b"));
	assert_int_equal(ben_peek(&r), BEN_LIST);
	list = ben_get_list(&r);
	assert_slice(list, "i1e2:xy");
	assert_int_equal(ben_count(list), 2);
	assert_true(ben_find(&r, "c"));
	assert_slice(ben_get_raw(&r), "d1:zi0ee");
	assert_true(ben_find(&r, "d"));
	assert_int_equal(ben_get_str(&r).len, 0);
	assert_false(ben_find(&r, "e"));
	ben_leave(&r);
	assert_false(r.bad);
	assert_int_equal(ben_peek(&r), BEN_END);
}

static void
test_reader_leaves_past_what_was_not_read(void **state)
{
	struct ben_reader r;

	(void)state;
	ben_reader_init(&r, SLICE("ll1:ad1:b1:cee2:zzei7e"));
	ben_enter_list(&r);
	ben_enter_list(&r);
	assert_slice(ben_get_str(&r), "a");
	ben_leave(&r);
	assert_slice(ben_get_str(&r), "zz");
	ben_leave(&r);
	assert_int_equal(ben_get_int(&r), 7);
	assert_false(r.bad);
	ben_leave(&r);
	assert_true(r.bad);
}

static void
test_reader_knows_every_integer(void **state)
{
	static const struct {
		const char *text;
		int64_t value;
	} table[] = {
		{ "i0e", 0 },
		{ "i42e", 42 },
		{ "i-42e", -42 },
		{ "i9223372036854775807e", INT64_MAX },
		{ "i-9223372036854775808e", INT64_MIN },
	};
	struct buffer b;

	(void)state;
	buffer_init(&b, 100);
	for (size_t i = 0; i < COUNT(table); i++) {
		struct ben_reader r;

		ben_reader_init(&r, slice_str(table[i].text));
		assert_true(ben_get_int(&r) == table[i].value);
		assert_false(r.bad);
		buffer_clear(&b);
		ben_put_int(&b, table[i].value);
		assert_slice(buffer_slice(&b), table[i].text);
	}
	buffer_free(&b);
}

/* Whatever a reader is pointed at, it stays within, and says bad once and for all. */
static void
test_reader_errors_are_sticky_and_stay_in_bounds(void **state)
{
	static const char *const junk[] = { "",
		                            "i",
		                            "i5",
		                            "ie5",
		                            "5:ab",
		                            "5",
		                            ":",
		                            "e",
		                            "x",
		                            "l",
		                            "d1:a",
		                            "99999999999999999999999:",
		                            "i99999999999999999999e",
		                            "l1:a",
		                            "-",
		                            "i-",
		                            "lle",
		                            "dli1ee" };

	(void)state;
	for (size_t i = 0; i < COUNT(junk); i++) {
		struct slice s = flush_copy(slice_str(junk[i]));

		for (int how = 0; how < 7; how++) {
			struct ben_reader r;

			ben_reader_init(&r, s);
			switch (how) {
			case 0:
				(void)ben_get_str(&r);
				break;
			case 1:
				(void)ben_get_int(&r);
				break;
			case 2:
				(void)ben_get_list(&r);
				break;
			case 3:
				(void)ben_get_dict(&r);
				break;
			case 4:
				ben_enter_dict(&r);
				(void)ben_find(&r, "a");
				ben_leave(&r);
				break;
			case 5:
				ben_enter_list(&r);
				ben_leave(&r);
				break;
			default:
				ben_skip(&r);
				break;
			}
			if (!r.bad)
				fail_msg("\"%s\" read in way %d", junk[i], how);
			assert_false(ben_more(&r));
			assert_int_equal(ben_get_int(&r), 0);
			assert_int_equal(ben_get_str(&r).len, 0);
			assert_int_equal(ben_get_raw(&r).len, 0);
			assert_true(r.bad);
		}
		(void)ben_count(s);
		flush_free(s);
	}
}

static void
test_writer_writes_canonical_form(void **state)
{
	struct buffer b;

	(void)state;
	buffer_init(&b, 1000);
	ben_put_list(&b);
	ben_put_text(&b, "POST");
	ben_put_dict(&b);
	ben_put_text(&b, "a");
	ben_put_int(&b, 10);
	ben_put_text(&b, "b");
	ben_put_str(&b, SLICE("0123456789"));
	ben_put_end(&b);
	ben_put_end(&b);
	assert_slice(buffer_slice(&b), "l4:POSTd1:ai10e1:b10:0123456789ee");
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_canonical_elements_are_taken_whole),
		cmocka_unit_test(test_every_prefix_asks_for_more),
		cmocka_unit_test(test_what_is_not_canonical_is_refused),
		cmocka_unit_test(test_the_way_octets_arrive_makes_no_difference),
		cmocka_unit_test(test_scanner_stops_at_the_end_of_its_element),
		cmocka_unit_test(test_a_length_tells_the_limit_before_its_octets_come),
		cmocka_unit_test(test_reader_walks_containers),
		cmocka_unit_test(test_reader_leaves_past_what_was_not_read),
		cmocka_unit_test(test_reader_knows_every_integer),
		cmocka_unit_test(test_reader_errors_are_sticky_and_stay_in_bounds),
		cmocka_unit_test(test_writer_writes_canonical_form),
	};

	return RUN(tests);
}
