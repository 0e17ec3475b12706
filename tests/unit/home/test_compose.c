/* home/compose: what a member writes becomes a canonical message, or is refused with the reason. */
#include "home/compose.h"

#include "dmtp/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct compose_origin
origin(void)
{
	return (struct compose_origin){ .from = SLICE("ann@a.test"),
		                        .to = SLICE("bob@b.test"),
		                        .date_s = 1800000000,
		                        .salt = { 7 } };
}

static json_t *
parse(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	return json;
}

/* The pointer of the first error, or "" when it is fine. */
static const char *
refused_at(const char *text)
{
	static char pointer[64];
	struct web_errors errors = { .count = 0 };
	json_t *json = parse(text);
	struct compose_origin from = origin();
	struct letter letter;
	enum compose_rc rc = compose_letter(json, &from, &letter, &errors);

	pointer[0] = '\0';
	if (rc == COMPOSE_INVALID)
		(void)snprintf(pointer, sizeof(pointer), "%s",
		               json_string_value(
				   json_object_get(json_array_get(errors.list, 0), "pointer")));
	else
		assert_int_equal(rc, COMPOSE_OK);
	web_errors_free(&errors);
	letter_free(&letter);
	json_decref(json);
	return pointer;
}

static void
test_a_letter_is_a_message_to_one(void **state)
{
	json_t *json = parse(
	    "{\"message\": \"Hello\\n{{you}}\", \"subject\": \"Hi\", \"lang\": \"de-AT\", "
	    "\"expires\": 60}");
	struct web_errors errors = { .count = 0 };
	struct compose_origin from = origin();
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;
	struct letter letter;
	uint8_t digest[32];

	(void)state;
	assert_int_equal(compose_letter(json, &from, &letter, &errors), COMPOSE_OK);
	json_decref(json);
	assert_int_equal(letter.expires_s, 60);
	assert_int_equal(dmtp_message_decode(buffer_slice(&letter.message), &m),
	                 DMTP_MESSAGE_OK);
	assert_true(slice_eq_str(m.from, "ann@a.test") && slice_eq_str(m.to, "bob@b.test"));
	assert_int_equal(m.date, 1800000000);
	assert_int_equal(m.field_count, 2);
	ben_reader_init(&it, m.fields);
	assert_true(dmtp_field_next(&it, &f));
	assert_true(f.name == DMTP_SUBJECT && slice_eq_str(f.data, "Hi"));
	assert_true(dmtp_field_next(&it, &f));
	assert_true(f.name == DMTP_MESSAGE && slice_eq_str(f.data, "Hello\n{{you}}") &&
	            slice_eq_str(f.lang, "de-AT") && slice_eq_str(f.type, "text/plain"));
	assert_true(dmtp_digest(buffer_slice(&letter.message), digest));
	assert_memory_equal(digest, letter.digest, sizeof(digest));
	letter_free(&letter);
}

static void
test_what_is_refused(void **state)
{
	static const char *const table[][2] = {
		{ "{\"message\": \"x\"}", "" },
		{ "{\"message\": \"x\\ty\\r\\n\"}", "" },
		{ "{}", "/message" },
		{ "{\"message\": \"\"}", "/message" },
		{ "{\"message\": [\"x\"]}", "/message" },
		{ "{\"message\": \"\\u001b[2J\"}", "/message" },
		{ "{\"message\": \"\\u007f\"}", "/message" },
		{ "{\"message\": \"\\u0085\"}", "/message" },
		{ "{\"message\": \"x\", \"subject\": \"\"}", "/subject" },
		{ "{\"message\": \"x\", \"subject\": \"a\\nb\"}", "/subject" },
		{ "{\"message\": \"x\", \"lang\": \"d\"}", "/lang" },
		{ "{\"message\": \"x\", \"lang\": \"de-\"}", "/lang" },
		{ "{\"message\": \"x\", \"lang\": \"1de\"}", "/lang" },
		{ "{\"message\": \"x\", \"lang\": \"abcdefghi\"}", "/lang" },
		{ "{\"message\": \"x\", \"lang\": \"zh-Hant-TW\"}", "" },
		{ "{\"message\": \"x\", \"expires\": 59}", "/expires" },
		{ "{\"message\": \"x\", \"expires\": 2592001}", "/expires" },
		{ "{\"message\": \"x\", \"html\": \"y\"}", "/html" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(refused_at(table[i][0]), table[i][1]);
}

static void
test_a_text_of_the_greatest_length(void **state)
{
	char *text = malloc(COMPOSE_TEXT_MAX + 64);

	(void)state;
	assert_non_null(text);
	for (int more = 0; more < 2; more++) {
		size_t n = (size_t)snprintf(text, 64, "{\"message\": \"");

		memset(text + n, 'x', COMPOSE_TEXT_MAX + (size_t)more);
		strcpy(text + n + COMPOSE_TEXT_MAX + more, "\"}");
		assert_string_equal(refused_at(text), more == 0 ? "" : "/message");
	}
	free(text);
}

static void
test_words_of_an_invitation(void **state)
{
	static const struct {
		const char *words;
		bool valid;
	} table[] = {
		{ "We met at the fair. Remember?", true },
		{ "At 10.30, or so...", true },
		{ "\xc3\xa4", true },
		{ "", false },
		{ "two\nlines", false },
		{ "see spam.example", false },
		{ "see https://x", false },
		{ "WWW.x", false },
		{ "me@b.test", false },
		{ "\xff", false },
	};
	char text[142];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (compose_words_valid(slice_str(table[i].words)) != table[i].valid)
			fail_msg("%s", table[i].words);
	memset(text, 'x', sizeof(text));
	assert_true(compose_words_valid(slice_mem(text, 140)));
	assert_false(compose_words_valid(slice_mem(text, 141)));
}

static void
test_an_invitation_with_and_without_words(void **state)
{
	struct compose_origin from = origin();
	struct dmtp_message m;
	struct letter letter;

	(void)state;
	for (size_t n = 1; n <= 2; n++) {
		struct slice words = n == 1 ? slice_mem(NULL, 0) : SLICE("Hello");

		assert_int_equal(compose_invitation(&from, words, &letter), COMPOSE_OK);
		assert_int_equal(dmtp_message_decode(buffer_slice(&letter.message), &m),
		                 DMTP_MESSAGE_OK);
		assert_int_equal(m.field_count, n);
		letter_free(&letter);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_letter_is_a_message_to_one),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_a_text_of_the_greatest_length),
		cmocka_unit_test(test_words_of_an_invitation),
		cmocka_unit_test(test_an_invitation_with_and_without_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
