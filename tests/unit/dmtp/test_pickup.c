/* dmtp/pickup: the path of a message, written and read. */
#include "dmtp/pickup.h"

#include "dmtp/bencode.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PATH_LEN (3 + 13 + 1 + 36 + 1 + 52)

static struct dmtp_pickup
sample(void)
{
	struct dmtp_pickup p = { .site_id = 0x0102030405060708 };

	for (unsigned i = 0; i < 16; i++)
		p.message_id.octets[i] = (uint8_t)i;
	for (unsigned i = 0; i < 32; i++)
		p.digest[i] = (uint8_t)(255 - i);
	return p;
}

static void
test_uri_is_read_back(void **state)
{
	const struct dmtp_pickup p = sample();
	struct dmtp_pickup back = { 0 };
	struct buffer b;
	struct slice rest;

	(void)state;
	buffer_init(&b, 4096);
	dmtp_pickup_uri(&b, SLICE("https://cdn.shop.test/x"), &p);
	assert_false(b.failed);
	assert_memory_equal(
	    b.data,
	    "https://cdn.shop.test/x/m/aebagbafaydqq/00010203-0405-0607-0809-0a0b0c0d0e0f/",
	    77);
	assert_int_equal(b.len, 77 + 52);
	rest = slice_mem(b.data + 26, b.len - 26);
	assert_true(dmtp_pickup_parse(slice_mem(rest.data, 13), slice_mem(rest.data + 14, 36),
	                              slice_mem(rest.data + 51, 52), &back));
	assert_int_equal(back.site_id, p.site_id);
	assert_memory_equal(&back.message_id, &p.message_id, 16);
	assert_memory_equal(back.digest, p.digest, 32);
	buffer_free(&b);
}

static void
test_other_texts_are_refused(void **state)
{
	static const char *const sites[] = { "",
		                             "aebagbafaydq",
		                             "AEBAGBAFAYDQQ",
		                             "aebagbafaydqqa",
		                             "aaaaaaaaaaaaa" /* 0 */,
		                             "777777777777" /* short */,
		                             "7777777777776" /* negative */,
		                             "aebagbafaydqr" /* spare bits */ };
	int64_t out = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(sites) / sizeof(sites[0]); i++)
		assert_false(dmtp_site_parse(slice_str(sites[i]), &out));
	assert_int_equal(out, 7);
}

static void
assert_uris(size_t others_n, const char *expected)
{
	static char *const others[] = { "https://a.test", "https://b.test/x", "https://c.test",
		                        "https://d.test" };
	const struct dmtp_pickup p = sample();
	struct buffer list, bases;
	struct ben_reader r;

	buffer_init(&list, 4096);
	buffer_init(&bases, 4096);
	dmtp_pickup_put_uris(&list, others, others_n, "https://shop.test", &p);
	assert_false(list.failed);
	ben_reader_init(&r, buffer_slice(&list));
	while (ben_more(&r)) {
		struct slice uri = ben_get_str(&r);

		assert_true(uri.len > PATH_LEN);
		buffer_add_slice(&bases, slice_mem(uri.data, uri.len - PATH_LEN));
		buffer_add_u8(&bases, ' ');
	}
	assert_false(r.bad);
	buffer_add_u8(&bases, '\0');
	assert_string_equal((const char *)bases.data, expected);
	buffer_free(&list);
	buffer_free(&bases);
}

/* PROTOCOL.md 3: every receiver takes four; the sender's own is one of them, and the last. */
static void
test_uris_in_order_own_last(void **state)
{
	(void)state;
	assert_uris(0, "https://shop.test ");
	assert_uris(2, "https://a.test https://b.test/x https://shop.test ");
	assert_uris(3, "https://a.test https://b.test/x https://c.test https://shop.test ");
	assert_uris(4, "https://a.test https://b.test/x https://c.test https://shop.test ");
}

static void
test_uris_that_do_not_fit_fail(void **state)
{
	const struct dmtp_pickup p = sample();
	struct buffer list;

	(void)state;
	buffer_init(&list, 100);
	dmtp_pickup_put_uris(&list, NULL, 0, "https://shop.test", &p);
	assert_true(list.failed);
	buffer_free(&list);
}

/* PROTOCOL.md 11: a short random delay when many members are notified. */
static void
test_a_message_to_many_waits_a_random_moment(void **state)
{
	bool seen[151] = { false };

	(void)state;
	for (uint32_t random = 0; random < 1000; random++) {
		assert_int_equal(dmtp_pickup_delay_ms(1, random), 0);
		assert_int_equal(dmtp_pickup_delay_ms(100, random), 0);
		assert_in_range(dmtp_pickup_delay_ms(150, random), 0, 150);
		seen[dmtp_pickup_delay_ms(150, random)] = true;
	}
	for (size_t i = 0; i < 151; i++)
		assert_true(seen[i]);
	assert_int_equal(dmtp_pickup_delay_ms(1000000, 1000), 1000);
	assert_int_equal(dmtp_pickup_delay_ms(1000000, 1001), 0);
	assert_in_range(dmtp_pickup_delay_ms(SIZE_MAX, UINT32_MAX), 0, 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uri_is_read_back),
		cmocka_unit_test(test_other_texts_are_refused),
		cmocka_unit_test(test_uris_in_order_own_last),
		cmocka_unit_test(test_uris_that_do_not_fit_fail),
		cmocka_unit_test(test_a_message_to_many_waits_a_random_moment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
