/* dmtp/response: the five letters, their codes, and K's dictionaries. */
#include "dmtp_test.h"

#include "dmtp/response.h"

static void
assert_encodes(const struct dmtp_response *r, const char *expected)
{
	struct buffer b;

	buffer_init(&b, 10000);
	dmtp_response_encode(r, &b);
	assert_slice(buffer_slice(&b), expected);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_free(&b);
}

static struct dmtp_response
decoded(const char *text)
{
	struct dmtp_response r;

	if (dmtp_response_decode(slice_str(text), &r) != DMTP_RESPONSE_OK)
		fail_msg("%s", text);
	return r;
}

static void
test_the_forms_that_are_written(void **state)
{
	struct dmtp_response r;

	(void)state;
	assert_encodes(&DMTP_RESPONSE_K, "l1:Ke");
	r = dmtp_response_make(DMTP_X, DMTP_CODE_NONE, 0);
	assert_encodes(&r, "l1:Xe");
	r = dmtp_response_make(DMTP_I, DMTP_CODE_NONE, 0);
	assert_encodes(&r, "l1:Ie");
	r = dmtp_response_make(DMTP_E, DMTP_CODE_CHANNEL_CLOSED, 0);
	assert_encodes(&r, "l1:Ed4:code14:channel-closed4:text0:ee");
	r = dmtp_response_make(DMTP_Z, DMTP_CODE_THROTTLED, 30);
	r.text = SLICE("slower");
	assert_encodes(&r, "l1:Zd4:code9:throttled5:retryi30e4:text6:slowere"
	                   "e");
	r = dmtp_response_make(DMTP_X, DMTP_CODE_SHUTTING_DOWN,
	                       100000); /* brought into bounds */
	assert_encodes(&r, "l1:Xd4:code13:shutting-down5:retryi86400e4:text0:ee");
	r = dmtp_response_make(DMTP_E, DMTP_CODE_OTHER, 0);
	r.code_raw = SLICE("novel");
	assert_encodes(&r, "l1:Ed4:code5:novel4:text0:ee");
}

static void
test_every_code_has_a_name_and_comes_back(void **state)
{
	(void)state;
	for (int i = 1; i < DMTP_CODE_OTHER; i++) {
		const char *name = dmtp_code_name((enum dmtp_code)i);

		assert_true(strlen(name) > 0);
		assert_int_equal(dmtp_code_find(slice_str(name)), i);
	}
	assert_int_equal(dmtp_code_find(SLICE("Malformed")),
	                 DMTP_CODE_OTHER); /* case-sensitive */
	assert_int_equal(dmtp_code_find(SLICE("")), DMTP_CODE_NONE);
	assert_string_equal(dmtp_code_name(DMTP_CODE_OTHER), "");
}

/* PROTOCOL.md 7: what speaks for the session leaves the notification in the queue. */
static void
test_whom_each_code_speaks_for(void **state)
{
	static const enum dmtp_speaks speaks[] = {
		[DMTP_CODE_CHANNEL_CLOSED] = DMTP_SPEAKS_RCPT,
		[DMTP_CODE_THROTTLED] = DMTP_SPEAKS_NOTIFICATION,
		[DMTP_CODE_STORAGE] = DMTP_SPEAKS_NOTIFICATION,
		[DMTP_CODE_TOO_LARGE] = DMTP_SPEAKS_NOTIFICATION,
		[DMTP_CODE_DUPLICATE_CONFLICT] = DMTP_SPEAKS_NOTIFICATION,
		[DMTP_CODE_MALFORMED] = DMTP_SPEAKS_NOTIFICATION,
		[DMTP_CODE_TLS_REQUIRED] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_UNVERIFIED_SENDER] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_NOT_NOW] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_LIMIT] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_UNKNOWN_COMMAND] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_SHUTTING_DOWN] = DMTP_SPEAKS_SESSION,
		[DMTP_CODE_OTHER] = DMTP_SPEAKS_NOTIFICATION,
	};

	(void)state;
	for (int i = 1; i < (int)COUNT(speaks); i++)
		assert_int_equal(dmtp_code_speaks((enum dmtp_code)i), speaks[i]);
}

static void
test_responses_are_read(void **state)
{
	struct dmtp_response r;

	(void)state;
	r = decoded("l1:Zd4:code9:throttled5:retryi30e4:text6:slowere"
	            "e");
	assert_int_equal(r.letter, DMTP_Z);
	assert_int_equal(r.code, DMTP_CODE_THROTTLED);
	assert_int_equal(r.retry_s, 30);
	assert_slice(r.text, "slower");
	r = decoded("l1:Ke");
	assert_int_equal(r.letter, DMTP_K);
	assert_int_equal(r.failed_count, 0);
	r = decoded("l1:Ed4:code5:novelee"); /* an unknown code: its letter counts */
	assert_int_equal(r.letter, DMTP_E);
	assert_int_equal(r.code, DMTP_CODE_OTHER);
	assert_slice(r.code_raw, "novel");
	r = decoded("l1:Zd5:retryi0eee");
	assert_int_equal(r.retry_s, 1);
	r = decoded("l1:Zd5:retryi-5eee");
	assert_int_equal(r.retry_s, 1);
	r = decoded("l1:Zd5:retryi86401eee");
	assert_int_equal(r.retry_s, 86400);
	r = decoded("l1:Id4:text2:\xff\xff"
	            "ee"); /* for people only: dropped */
	assert_int_equal(r.text.len, 0);
	r = decoded("l1:Kd5:extrai1eei5e3:abce"); /* unknown keys, surplus elements */
	assert_int_equal(r.letter, DMTP_K);
}

static void
test_text_is_cut_between_characters(void **state)
{
	struct buffer b;
	char text[300];
	struct dmtp_response r = dmtp_response_make(DMTP_E, DMTP_CODE_LIMIT, 0), back;

	(void)state;
	for (size_t i = 0; i < 150; i++)
		memcpy(text + i * 2, "\xc3\xbc", 2);
	memmove(text + 1, text, 298);
	text[0] = 'x'; /* characters now begin at odd octets */
	r.text = slice_mem(text, 299);
	buffer_init(&b, 1000);
	dmtp_response_encode(&r, &b);
	assert_int_equal(dmtp_response_decode(buffer_slice(&b), &back), DMTP_RESPONSE_OK);
	assert_int_equal(back.text.len, 199);
	buffer_clear(&b);
	buffer_add_str(&b, "l1:Ed4:code0:4:text299:");
	buffer_add(&b, text, 299);
	buffer_add_str(&b, "ee");
	assert_int_equal(dmtp_response_decode(buffer_slice(&b), &back), DMTP_RESPONSE_OK);
	assert_int_equal(back.text.len, 199);
	buffer_free(&b);
}

static void
test_what_is_no_response_is_refused(void **state)
{
	static const char *const table[] = {
		"le",
		"de",
		"i1e",
		"1:K",
		"li1ee",
		"l0:e",
		"l1:ke",
		"l1:Qe",
		"l2:KKe",
		"l1:Ki5ee",
		"l1:Klee",
		"l1:Kd6:failedi1eee",
		"l1:Kd6:failedl1:aeee",
		"l1:Kd6:failedlli0e1:Eeeee",
		"l1:Kd6:failedlli0e1:K4:codeeeee",
		"l1:Kd6:failedlli-1e1:E4:codeeeee",
		"l1:Kd6:failedlli4294967296e1:E4:codeeeee",
		"l1:Kd6:failedll1:01:E4:codeeeee",
		"l1:Kd8:channelsleee",
		"l1:Kd8:channelsd1:ai1eeee",
		"l1:Kd8:channelsd1:ali1eeeee",
		"l1:Kd8:channelsd1:ald2:id0:eeeee",
		"l1:Kd8:channelsd1:ald4:name1:xeeeee",
		"l1:Kd6:eventsi1eee",
		"l1:Kd6:eventsli1eeee",
		"l1:Kd4:nexti1eee",
		"l1:Kd4:next65:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaee",
		"l1:Kd6:limitsi1eee",
		"l1:Kd6:limitsd5:rcptsi1eeee",
		"l1:Ed4:codei1eee",
		"l1:Zd5:retry1:1ee",
		"l1:Ed4:texti1eee",
	};
	struct dmtp_response r = { .retry_s = 4711 };

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice s = flush_copy(slice_str(table[i]));

		if (dmtp_response_decode(s, &r) == DMTP_RESPONSE_OK)
			fail_msg("%s", table[i]);
		flush_free(s);
	}
	assert_int_equal(r.retry_s, 4711); /* untouched */
}

static void
test_failed_triples_go_around(void **state)
{
	struct dmtp_response r = DMTP_RESPONSE_K, back;
	struct dmtp_failed f;
	struct ben_reader it;
	struct buffer inside, b;

	(void)state;
	buffer_init(&inside, 1000);
	buffer_init(&b, 1000);
	dmtp_failed_put(&inside, 0, DMTP_E, DMTP_CODE_CHANNEL_CLOSED);
	dmtp_failed_put(&inside, 999, DMTP_Z, DMTP_CODE_THROTTLED);
	r.failed = buffer_slice(&inside);
	dmtp_response_encode(&r, &b);
	assert_slice(buffer_slice(&b),
	             "l1:Kd6:failedlli0e1:E14:channel-closedeli999e1:Z9:throttledeeee");
	assert_int_equal(dmtp_response_decode(buffer_slice(&b), &back), DMTP_RESPONSE_OK);
	assert_int_equal(back.failed_count, 2);
	ben_reader_init(&it, back.failed);
	assert_true(dmtp_failed_next(&it, &f));
	assert_int_equal(f.index, 0);
	assert_int_equal(f.letter, DMTP_E);
	assert_int_equal(f.code, DMTP_CODE_CHANNEL_CLOSED);
	assert_true(dmtp_failed_next(&it, &f));
	assert_int_equal(f.index, 999);
	assert_int_equal(f.letter, DMTP_Z);
	assert_false(dmtp_failed_next(&it, &f));
	assert_false(it.bad);
	buffer_free(&inside);
	buffer_free(&b);
}

static void
test_channels_go_around(void **state)
{
	struct dmtp_response r = { .letter = DMTP_K, .has_channels = true }, back;
	struct dmtp_open_channel c = { SLICE(GRANT_A), SLICE("orders") };
	struct slice address, list;
	struct ben_reader it, of_one;
	struct buffer inside, b;

	(void)state;
	buffer_init(&inside, 1000);
	buffer_init(&b, 1000);
	dmtp_channels_open(&inside, SLICE("anna@a.example"));
	dmtp_channels_put(&inside, &c);
	c = (struct dmtp_open_channel){ SLICE("inbox"), SLICE("") };
	dmtp_channels_put(&inside, &c);
	dmtp_channels_close(&inside);
	dmtp_channels_open(&inside, SLICE("ben@a.example"));
	dmtp_channels_close(&inside);
	r.channels = buffer_slice(&inside);
	dmtp_response_encode(&r, &b);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	assert_int_equal(dmtp_response_decode(buffer_slice(&b), &back), DMTP_RESPONSE_OK);
	assert_true(back.has_channels);
	ben_reader_init(&it, back.channels);
	assert_true(dmtp_channels_next(&it, &address, &list));
	assert_slice(address, "anna@a.example");
	ben_reader_init(&of_one, list);
	assert_true(dmtp_open_channel_next(&of_one, &c));
	assert_slice(c.id, GRANT_A);
	assert_slice(c.name, "orders");
	assert_true(dmtp_open_channel_next(&of_one, &c));
	assert_slice(c.id, "inbox");
	assert_false(dmtp_open_channel_next(&of_one, &c));
	assert_true(dmtp_channels_next(&it, &address, &list));
	assert_slice(address, "ben@a.example");
	assert_int_equal(list.len, 0);
	assert_false(dmtp_channels_next(&it, &address, &list));
	assert_false(it.bad);
	inside.len = 0;
	r.channels = buffer_slice(&inside);
	assert_encodes(&r, "l1:Kd8:channelsdeee"); /* none were asked for: still a dictionary */
	buffer_free(&inside);
	buffer_free(&b);
}

static void
test_events_and_limits_go_around(void **state)
{
	struct dmtp_response r = { .letter = DMTP_K, .has_events = true, .next = SLICE("c7") },
			     back;

	(void)state;
	assert_encodes(&r, "l1:Kd6:eventsle4:next2:c7ee");
	back = decoded("l1:Kd6:eventsle4:next2:c7ee");
	assert_true(back.has_events);
	assert_slice(back.next, "c7");
	r = (struct dmtp_response){ .letter = DMTP_K,
		                    .has_limits = true,
		                    .limits = DMTP_LIMITS_DEFAULT };
	r.limits.rcpts = 5000;
	assert_encodes(
	    &r, "l1:Kd6:limitsd7:commandi262144e4:idlei300e7:messagei26214400e5:noopsi10e"
		"8:pipelinei64e5:rcptsi5000e4:urisi8eeee");
	back = decoded("l1:Kd6:limitsd5:rcptsi5000eeee");
	assert_true(back.has_limits);
	assert_int_equal(back.limits.rcpts, 5000);
	assert_int_equal(back.limits.uris, 8);
}

static void
test_at_most_a_thousand_events(void **state)
{
	struct dmtp_response r;
	struct buffer b;

	(void)state;
	buffer_init(&b, 10000);
	for (int n = 1000; n <= 1001; n++) {
		buffer_clear(&b);
		buffer_add_str(&b, "l1:Kd6:eventsl");
		for (int i = 0; i < n; i++)
			buffer_add_str(&b, "de");
		buffer_add_str(&b, "e4:next1:cee");
		assert_int_equal(dmtp_response_decode(buffer_slice(&b), &r) == DMTP_RESPONSE_OK,
		                 n == 1000);
	}
	buffer_free(&b);
}

static void
test_responses_in_words(void **state)
{
	struct dmtp_response r = { .letter = DMTP_X };
	char out[64], small[12];

	(void)state;
	dmtp_response_words(&r, out, sizeof(out));
	assert_string_equal(out, "X");
	r = dmtp_response_make(DMTP_Z, DMTP_CODE_THROTTLED, 5);
	r.text = SLICE("Later.");
	dmtp_response_words(&r, out, sizeof(out));
	assert_string_equal(out, "Z throttled: Later.");
	r = (struct dmtp_response){ .letter = DMTP_E,
		                    .code = DMTP_CODE_OTHER,
		                    .code_raw = SLICE("of-theirs") };
	dmtp_response_words(&r, out, sizeof(out));
	assert_string_equal(out, "E of-theirs");
	dmtp_response_words(&r, small, sizeof(small));
	assert_string_equal(small, "E of-theirs");
	dmtp_response_words(&r, small, 5);
	assert_string_equal(small, "E of");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whom_each_code_speaks_for),
		cmocka_unit_test(test_the_forms_that_are_written),
		cmocka_unit_test(test_every_code_has_a_name_and_comes_back),
		cmocka_unit_test(test_responses_are_read),
		cmocka_unit_test(test_text_is_cut_between_characters),
		cmocka_unit_test(test_what_is_no_response_is_refused),
		cmocka_unit_test(test_failed_triples_go_around),
		cmocka_unit_test(test_channels_go_around),
		cmocka_unit_test(test_events_and_limits_go_around),
		cmocka_unit_test(test_at_most_a_thousand_events),
		cmocka_unit_test(test_responses_in_words),
	};

	return RUN(tests);
}
