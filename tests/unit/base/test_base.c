/* base/: buffers, text codecs, ids, log lines, mailboxes. */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/metric.h"
#include "base/text.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void
test_buffer_keeps_its_content_when_max_is_hit(void **state)
{
	struct buffer b;

	(void)state;
	buffer_init(&b, 8);
	buffer_add_str(&b, "12345");
	buffer_add_str(&b, "6789");
	assert_true(b.failed);
	assert_int_equal(b.len, 5);
	buffer_add_str(&b, "6");
	assert_int_equal(b.len, 5); /* failed stays failed */
	buffer_clear(&b);
	buffer_add_str(&b, "12345678");
	assert_false(b.failed);
	assert_int_equal(b.len, 8);
	buffer_consume(&b, 3);
	assert_memory_equal(b.data, "45678", 5);
	buffer_free(&b);
}

static void
test_base32_known_values_and_refusals(void **state)
{
	static const struct {
		const char *plain, *text;
	} table[] = {
		/* RFC 4648 section 10, lower case, unpadded */
		{ "", "" },
		{ "f", "my" },
		{ "fo", "mzxq" },
		{ "foo", "mzxw6" },
		{ "foob", "mzxw6yq" },
		{ "fooba", "mzxw6ytb" },
		{ "foobar", "mzxw6ytboi" },
	};
	char text[16];
	uint8_t back[8];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		size_t n = strlen(table[i].plain);

		base32_encode((const uint8_t *)table[i].plain, n, text);
		assert_string_equal(text, table[i].text);
		assert_true(base32_decode(slice_str(text), back, n));
		assert_memory_equal(back, table[i].plain, n);
	}
	assert_false(base32_decode(SLICE("mz"), back, 1));    /* trailing bits set */
	assert_false(base32_decode(SLICE("MY"), back, 1));    /* upper case */
	assert_false(base32_decode(SLICE("my="), back, 1));   /* padding */
	assert_false(base32_decode(SLICE("m1"), back, 1));    /* not in the alphabet */
	assert_false(base32_decode(SLICE("mzxw6"), back, 2)); /* another length */
}

static void
test_utf8_table(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} table[] = {
		{ "", true },
		{ "abc", true },
		{ "\xc3\xa4", true },
		{ "\xe2\x82\xac", true },
		{ "\xf0\x9f\x92\x8c", true },
		{ "\xf4\x8f\xbf\xbf", true },
		{ "\xc0\x80", false },
		{ "\xc1\xbf", false },
		{ "\xe0\x80\x80", false },
		{ "\xed\xa0\x80", false },
		{ "\xf4\x90\x80\x80", false },
		{ "\x80", false },
		{ "\xc3", false },
		{ "\xe2\x82", false },
		{ "\xff", false },
		{ "\xf0\x80\x80\x80", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(text_is_utf8(slice_str(table[i].text)), table[i].good);
}

static void
test_numbers_and_names(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_true(text_parse_u64(SLICE("0"), 10, &v));
	assert_int_equal(v, 0);
	assert_true(text_parse_u64(SLICE("18446744073709551615"), UINT64_MAX, &v));
	assert_true(v == UINT64_MAX);
	v = 7;
	assert_false(text_parse_u64(SLICE("18446744073709551616"), UINT64_MAX, &v));
	assert_false(text_parse_u64(SLICE("01"), 10, &v));
	assert_false(text_parse_u64(SLICE("+1"), 10, &v));
	assert_false(text_parse_u64(SLICE(""), 10, &v));
	assert_false(text_parse_u64(SLICE("11"), 10, &v));
	assert_int_equal(v, 7);
	assert_true(text_is_name(SLICE("orders-2")));
	assert_false(text_is_name(SLICE("")));
	assert_false(text_is_name(SLICE("Orders")));
	assert_false(text_is_name(SLICE("a.b")));
	assert_true(text_is_name(SLICE("123456789012345678901234567890")));
	assert_false(text_is_name(SLICE("1234567890123456789012345678901")));
}

static void
test_uuid_order_and_text(void **state)
{
	struct uuid before = uuid_make(), id, back;
	char text[UUID_TEXT];

	(void)state;
	for (int i = 0; i < 10000; i++) {
		id = uuid_make();
		assert_true(memcmp(before.octets, id.octets, 16) < 0);
		before = id;
	}
	uuid_format(&id, text);
	assert_int_equal(text[14], '7');
	assert_true(uuid_parse(slice_str(text), &back));
	assert_memory_equal(&back, &id, sizeof(id));
	text[0] = 'G';
	assert_false(uuid_parse(slice_str(text), &back));
	assert_false(uuid_parse(SLICE("0190163d8694739baea5966c26f8ad91"), &back));
	assert_false(uuid_parse(SLICE("0190163D-8694-739B-AEA5-966C26F8AD91"), &back));
	assert_true(uuid_parse(SLICE("0190163d-8694-739b-aea5-966c26f8ad91"), &back));
}

static void
test_uuid_goes_on_when_the_clock_is_set_back(void **state)
{
	struct uuid first, second;

	(void)state;
	clock_freeze(INT64_C(4000000000000000));
	first = uuid_make();
	clock_freeze(INT64_C(3999999990000000));
	second = uuid_make();
	clock_freeze(-1);
	assert_true(memcmp(first.octets, second.octets, 16) < 0);
	assert_true(uuid_time_us(&first) == INT64_C(4000000000000000));
}

/* A watch that began when the wall clock was further ahead, or less, is what a clock that was set leaves. */
static void
test_a_clock_that_is_set_is_noticed_once(void **state)
{
	const int64_t hour = INT64_C(3600000000);
	struct clock_watch watch = { 0 };
	int64_t jump;

	(void)state;
	assert_true(clock_jump_us(&watch) == 0);
	assert_true(clock_jump_us(&watch) == 0);
	watch.ahead_us += hour;
	jump = clock_jump_us(&watch);
	assert_true(jump < -hour + 500000 && jump > -hour - 500000);
	assert_true(clock_jump_us(&watch) == 0);
	watch.ahead_us -= hour;
	jump = clock_jump_us(&watch);
	assert_true(jump > hour - 500000 && jump < hour + 500000);
	watch.ahead_us += 400000; /* slewed */
	assert_true(clock_jump_us(&watch) == 0);
}

static void
test_log_escapes_and_stays_one_line(void **state)
{
	int fds[2];
	char line[256] = { 0 };

	(void)state;
	assert_int_equal(pipe(fds), 0);
	log_set_fd(fds[1]);
	log_warn("odd-input", LOG_S("text", "a \"b\"\nevent=forged"), LOG_I("n", -3),
	         LOG_B("raw", slice_mem("plain", 5)), LOG_S("none", ""));
	log_set_fd(STDERR_FILENO);
	assert_true(read(fds[0], line, sizeof(line) - 1) > 0);
	assert_string_equal(line,
	                    "event=odd-input level=warn text=\"a \\\"b\\\"\\x0aevent=forged\" "
	                    "n=-3 raw=plain none=\"\"\n");
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static bool
is_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void
test_mailbox_is_readable_while_something_waits(void **state)
{
	struct mailbox box;
	struct mail a, b;
	struct mail *all;

	(void)state;
	assert_true(mailbox_init(&box));
	assert_null(mailbox_take(&box));
	assert_false(is_readable(box.fd));
	mailbox_post(&box, &a);
	assert_true(is_readable(box.fd));
	mailbox_post(&box, &b);
	assert_int_equal(mailbox_waiting(&box), 2);
	all = mailbox_take(&box);
	assert_ptr_equal(all, &a);
	assert_ptr_equal(all->next, &b);
	assert_null(b.next);
	assert_null(mailbox_take(&box));
	assert_false(is_readable(box.fd));
	mailbox_wake(&box);
	assert_true(is_readable(box.fd));
	assert_null(mailbox_take(&box));
	assert_false(is_readable(box.fd));
	mailbox_deinit(&box);
}

static void
test_mailbox_rings_when_as_much_waits_as_expected(void **state)
{
	struct mailbox box;
	struct mail m[4];

	(void)state;
	assert_true(mailbox_init(&box));
	assert_false(mailbox_expect(&box, 3));
	mailbox_post(&box, &m[0]);
	mailbox_post(&box, &m[1]);
	assert_false(is_readable(box.fd));
	assert_true(mailbox_expect(&box, 2));
	assert_false(is_readable(box.fd)); /* it was told already */
	assert_false(mailbox_expect(&box, 3));
	mailbox_post(&box, &m[2]);
	assert_true(is_readable(box.fd));
	assert_ptr_equal(mailbox_take(&box), &m[0]);
	assert_false(mailbox_expect(&box, SIZE_MAX));
	mailbox_post(&box, &m[3]);
	assert_false(is_readable(box.fd));
	assert_ptr_equal(mailbox_take(&box), &m[3]);
	mailbox_deinit(&box);
}

/* ASCII is looked at eight octets at a time: what is not ASCII may stand anywhere in or across them. */
static void
test_utf8_is_judged_wherever_it_stands(void **state)
{
	uint8_t text[24];

	(void)state;
	for (size_t len = 1; len <= sizeof(text); len++) {
		for (size_t at = 0; at < len; at++) {
			memset(text, 'a', sizeof(text));
			text[at] = 0xff;
			assert_false(text_is_utf8(slice_mem(text, len)));
			text[at] = 0xc3; /* alone, then with its second half */
			assert_false(text_is_utf8(slice_mem(text, len)));
			if (at + 1 < len) {
				text[at + 1] = 0xa4;
				assert_true(text_is_utf8(slice_mem(text, len)));
			}
		}
	}
}

static void
test_metrics_of_one_name_stand_together(void **state)
{
	METRIC_DEFINE(one, METRIC_COUNTER, "t_total", "code=\"b\"", "Things.");
	METRIC_DEFINE(two, METRIC_COUNTER, "t_total", "code=\"a\"", "Things.");
	METRIC_DEFINE(other, METRIC_GAUGE, "s_now", NULL, "Now.");
	struct buffer out;

	(void)state;
	metric_add(&one, 2);
	metric_set(&other, 5);
	metric_add(&two, 1);
	metric_add(&one, 1);
	buffer_init(&out, 65536);
	metric_write_all(&out);
	buffer_add_u8(&out, 0);
	assert_non_null(strstr((char *)out.data, "# TYPE s_now gauge\ns_now 5\n"));
	assert_non_null(strstr((char *)out.data,
	                       "# HELP t_total Things.\n# TYPE t_total counter\n"
	                       "t_total{code=\"a\"} 1\nt_total{code=\"b\"} 3\n"));
	buffer_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffer_keeps_its_content_when_max_is_hit),
		cmocka_unit_test(test_base32_known_values_and_refusals),
		cmocka_unit_test(test_utf8_table),
		cmocka_unit_test(test_numbers_and_names),
		cmocka_unit_test(test_uuid_order_and_text),
		cmocka_unit_test(test_uuid_goes_on_when_the_clock_is_set_back),
		cmocka_unit_test(test_a_clock_that_is_set_is_noticed_once),
		cmocka_unit_test(test_log_escapes_and_stays_one_line),
		cmocka_unit_test(test_mailbox_is_readable_while_something_waits),
		cmocka_unit_test(test_mailbox_rings_when_as_much_waits_as_expected),
		cmocka_unit_test(test_utf8_is_judged_wherever_it_stands),
		cmocka_unit_test(test_metrics_of_one_name_stand_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
