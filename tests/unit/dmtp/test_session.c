/* dmtp/limits and dmtp/session: limits, the greeting, the names of closes. */
#include "dmtp_test.h"

#include "dmtp/session.h"

static const char all_defaults[] = "d7:commandi262144e4:idlei300e7:messagei26214400e5:noopsi10e"
				   "8:pipelinei64e5:rcptsi1000e4:urisi8ee";

static void
test_limits_are_written_whole(void **state)
{
	struct dmtp_limits l = DMTP_LIMITS_DEFAULT;
	struct buffer b;

	(void)state;
	buffer_init(&b, 1000);
	dmtp_limits_encode(&l, &b);
	assert_slice(buffer_slice(&b), all_defaults);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_free(&b);
}

static void
test_absent_limits_are_defaults(void **state)
{
	struct dmtp_limits l = { 0 };
	struct ben_reader r;

	(void)state;
	ben_reader_init(&r, SLICE("de"));
	dmtp_limits_decode(&r, &l);
	assert_false(r.bad);
	assert_int_equal(l.command_octets, 262144);
	assert_int_equal(l.idle_s, 300);
	assert_int_equal(l.message_octets, 26214400);
	assert_int_equal(l.noops, 10);
	assert_int_equal(l.pipeline, 64);
	assert_int_equal(l.rcpts, 1000);
	assert_int_equal(l.uris, 8);
	ben_reader_init(
	    &r,
	    SLICE(
		"d7:commandi65536e5:extrali1ee5:noopsi0e8:pipelinei8e5:rcptsi100e4:urisi4ee"));
	dmtp_limits_decode(&r, &l);
	assert_false(r.bad);
	assert_int_equal(l.command_octets, 65536);
	assert_int_equal(l.noops, 0);
	assert_int_equal(l.pipeline, 8);
	assert_int_equal(l.idle_s, 300);
}

static void
test_limits_beyond_what_we_count_are_cut(void **state)
{
	struct dmtp_limits l;
	struct ben_reader r;

	(void)state;
	ben_reader_init(
	    &r, SLICE("d7:commandi9223372036854775807e7:messagei9223372036854775807ee"));
	dmtp_limits_decode(&r, &l);
	assert_false(r.bad);
	assert_true(l.command_octets == UINT32_MAX);
	assert_true(l.message_octets == INT64_MAX);
}

static void
test_limits_below_the_floor_are_refused(void **state)
{
	static const char *const table[] = {
		"d7:commandi65535ee",
		"d8:pipelinei7ee",
		"d5:rcptsi99ee",
		"d4:urisi3ee",
		"d4:idlei0ee",
		"d7:messagei0ee",
		"d7:messagei-1ee",
		"d5:noopsi-1ee",
		"d7:command5:65536e",
		"le",
		"i1e",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct dmtp_limits l = { .rcpts = 5 };
		struct ben_reader r;

		ben_reader_init(&r, slice_str(table[i]));
		dmtp_limits_decode(&r, &l);
		if (!r.bad)
			fail_msg("%s", table[i]);
		assert_int_equal(l.rcpts, 5);
	}
}

static void
test_floor_is_what_a_client_may_assume(void **state)
{
	struct dmtp_limits l = dmtp_limits_floor();

	(void)state;
	assert_true(dmtp_limits_valid(&l));
	assert_int_equal(l.command_octets, 65536);
	assert_int_equal(l.pipeline, 8);
	assert_int_equal(l.rcpts, 100);
	assert_int_equal(l.uris, 4);
}

static void
test_greeting_goes_around(void **state)
{
	struct dmtp_greeting g = { .version = 1,
		                   .host = "mx.example.org",
		                   .ext = DMTP_EXT_ALL,
		                   .tls = true,
		                   .limits = DMTP_LIMITS_DEFAULT };
	struct dmtp_greeting back;
	struct buffer b;
	struct slice flush;

	(void)state;
	buffer_init(&b, 1000);
	dmtp_greeting_encode(&g, &b);
	assert_memory_equal(
	    b.data,
	    "d4:dmtpi1e3:extl4:AUTH5:GRANT7:RECEIPT8:PRESENCEe4:host14:mx.example.org6:limitsd",
	    70);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	flush = flush_copy(buffer_slice(&b));
	assert_true(dmtp_greeting_decode(flush, &back));
	assert_string_equal(back.host, "mx.example.org");
	assert_int_equal(back.ext, DMTP_EXT_ALL);
	assert_true(back.tls);
	assert_int_equal(back.limits.rcpts, 1000);
	flush_free(flush);
	g.ext = DMTP_EXT_GRANT;
	g.tls = false;
	buffer_clear(&b);
	dmtp_greeting_encode(&g, &b);
	assert_true(dmtp_greeting_decode(buffer_slice(&b), &back));
	assert_int_equal(back.ext, DMTP_EXT_GRANT);
	assert_false(back.tls);
	buffer_free(&b);
}

static void
test_greeting_with_little_and_with_more(void **state)
{
	struct dmtp_greeting g;

	(void)state;
	assert_true(dmtp_greeting_decode(SLICE("d4:dmtpi1e4:host1:he"), &g));
	assert_int_equal(g.limits.pipeline, 64);
	assert_int_equal(g.ext, 0);
	assert_true(dmtp_greeting_decode(
	    SLICE("d3:abci1e4:dmtpi1e3:extl4:AUTH5:FUTURe4:host0:1:zlee"), &g));
	assert_int_equal(g.ext, DMTP_EXT_AUTH);
	/* whatever another version says beside its number */
	assert_true(dmtp_greeting_decode(SLICE("d4:dmtpi2e4:hosti5ee"), &g));
	assert_int_equal(g.version, 2);
}

static void
test_what_is_no_greeting_is_refused(void **state)
{
	static const char *const table[] = {
		"de",
		"le",
		"i1e",
		"4:dmtp",
		"d4:dmtp1:1e",
		"d4:host1:he",
		"d4:dmtpi1ee",
		"d4:dmtpi1e4:hosti1ee",
		"d4:dmtpi1e3:ext1:a4:host1:he",
		"d4:dmtpi1e3:extli1ee4:host1:he",
		"d4:dmtpi1e4:host1:h6:limitsi1ee",
		"d4:dmtpi1e4:host1:h6:limitsd5:rcptsi1eee",
		"d4:dmtpi1e4:host1:h3:tls1:1e",
	};
	struct dmtp_greeting g = { .version = 77 };
	struct buffer b;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (dmtp_greeting_decode(slice_str(table[i]), &g))
			fail_msg("%s", table[i]);
	buffer_init(&b, 1000);
	buffer_add_str(&b, "d4:dmtpi1e4:host254:");
	memset(buffer_reserve(&b, 254), 'a', 254);
	buffer_added(&b, 254);
	buffer_add_str(&b, "e");
	assert_false(dmtp_greeting_decode(buffer_slice(&b), &g));
	assert_false(dmtp_greeting_decode(slice_mem("d4:dmtpi1e4:host1:\0e", 20), &g));
	assert_int_equal(g.version, 77);
	buffer_free(&b);
}

static void
test_every_close_has_a_name(void **state)
{
	(void)state;
	for (int i = DMTP_CLOSE_NONE; i <= DMTP_CLOSE_NO_MEMORY; i++)
		assert_true(strlen(dmtp_close_name((enum dmtp_close)i)) > 0);
	assert_string_equal(dmtp_close_name((enum dmtp_close)99), "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_are_written_whole),
		cmocka_unit_test(test_absent_limits_are_defaults),
		cmocka_unit_test(test_limits_beyond_what_we_count_are_cut),
		cmocka_unit_test(test_limits_below_the_floor_are_refused),
		cmocka_unit_test(test_floor_is_what_a_client_may_assume),
		cmocka_unit_test(test_greeting_goes_around),
		cmocka_unit_test(test_greeting_with_little_and_with_more),
		cmocka_unit_test(test_what_is_no_greeting_is_refused),
		cmocka_unit_test(test_every_close_has_a_name),
	};

	return RUN(tests);
}
