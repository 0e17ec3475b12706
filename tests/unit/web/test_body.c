/* Strict JSON and the table of fields; what a client is told. */
#include "base/text.h"
#include "web/body.h"
#include "web/http.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static enum web_body_rc
parse(struct slice text)
{
	json_t *json = NULL;
	char error[160];
	/* flush against the end of its memory, for the sanitizer */
	uint8_t *exact = malloc(text.len == 0 ? 1 : text.len);
	enum web_body_rc rc;

	if (text.len > 0)
		memcpy(exact, text.data, text.len);
	rc = web_json_parse(slice_mem(exact, text.len), &json, error);
	assert_int_equal(rc == WEB_BODY_OK, json != NULL);
	json_decref(json);
	free(exact);
	return rc;
}

static void
test_json_that_is_refused(void **state)
{
	const struct slice bad[] = {
		SLICE(""),
		SLICE(" "),
		SLICE("[]"),
		SLICE("\"a\""),
		SLICE("null"),
		SLICE("{"),
		SLICE("{}x"),
		SLICE("{} {}"),
		SLICE("{\"a\":1,\"a\":2}"),
		SLICE("{\"a\":{\"b\":1,\"b\":1}}"),
		SLICE("{\"a\":1,}"),
		SLICE("{'a':1}"),
		SLICE("{\"a\":\"\\u0000\"}"),
		SLICE("{\"a\":\"\0\"}"),
		SLICE("{}\0"),
		SLICE("{\"a\":\"\xff\"}"),
		SLICE("{\"a\":\"\xed\xa0\x80\"}"),
		SLICE("{\"a\":\"\\ud800\"}"),
		SLICE("{\"a\":\"\\ud800\\u0041\"}"),
		SLICE("{\"a\":\"\\udc8c\\ud83d\"}"),
		SLICE("{\"a\":\"\\ud83d\\\\udc8c\"}"),
		SLICE("{\"a\":\"\\u00g0\"}"),
		SLICE("{\"a\":\"\\x\"}"),
		SLICE("{\"a\":\"\\u\"}"),
		SLICE("{\"a\":/* */1}"),
		SLICE("{\"a\":1} // end"),
		SLICE("{\"a\":1]"),
		SLICE("{\"a\"}"),
		SLICE("{\"a\":}"),
		SLICE("{1:1}"),
		SLICE("{\"a\":+1}"),
		SLICE("{\"a\":.5}"),
		SLICE("{\"a\":-}"),
		SLICE("{\"a\":True}"),
		SLICE("{\"a\":-9223372036854775809}"),
		SLICE("{\"a\":99999999999999999999}"),
		SLICE("{\"a\":1e999}"),
		SLICE("{\"a\":NaN}"),
		SLICE("{\"a\":01}"),
		SLICE("\xef\xbb\xbf{}"),
		SLICE("{\"a\":\"\n\"}"),
		SLICE("{\"a\\u0000b\":1}"),
		SLICE("{\"a\":\"\\"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i]), WEB_BODY_MALFORMED);
}

static void
test_json_that_is_taken(void **state)
{
	const struct slice good[] = {
		SLICE("{}"),
		SLICE(" \r\n\t{ } \n"),
		SLICE("{\"a\":[1,2.5,true,null,\"\\ud83d\\udc8c\",{\"b\":\"[[[[[[[[[[[[[[[[[[[["
		      "\"}]}"),
		SLICE("{\"a\":\"\\\\ud800\"}"), /* an escaped backslash, and letters */
		SLICE("{\"a\":[[1,[2]],{\"a\":{\"a\":1e-400}}],\"b\":-0}"),
		SLICE("{\"\":\"\\\\\\\"{{{{{{{{{{{{{{{{{{{{\"}"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(parse(good[i]), WEB_BODY_OK);
}

static void
test_every_prefix_of_a_body_is_malformed(void **state)
{
	static const char text[] =
	    "{\"to\":[\"a\",{\"b\":\"\\u00e4\\\"\"}],\"n\":-12.5e3,\"t\":true}";

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		assert_int_equal(parse(slice_mem(text, i)), WEB_BODY_MALFORMED);
	assert_int_equal(parse(slice_mem(text, sizeof(text) - 1)), WEB_BODY_OK);
}

/* The tree is what another parser makes of the text. */
static void
test_json_is_read_as_it_stands(void **state)
{
	static const char text[] =
	    "{\"a\":[1,-2.5,true,false,null,\"\\u00e4\\ud83d\\udc8c\\n\\\"\\/\"],"
	    "\"b\":{\"c\":{},\"d\":[],\"\\u00e4\":\"x\"},\"e\":\"y\",\"\":1e3}";
	json_t *json = NULL, *other = json_loads(text, 0, NULL);
	char error[160];

	(void)state;
	assert_int_equal(web_json_parse(slice_str(text), &json, error), WEB_BODY_OK);
	assert_true(json_equal(json, other));
	json_decref(json);
	json_decref(other);
}

static void
test_what_is_malformed_is_told_with_its_place(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "{\"a\":1,\n \"a\":2}",
		  "a name stands twice in one object (line 2, column 4)" },
		{ "{\"a\":\"b\"", "it ends too early (line 1, column 8)" },
		{ "{} x", "something follows its end (line 1, column 4)" },
		{ "{\"a\":99999999999999999999}", "a number is too large (line 1, column 25)" },
		{ "{\"a\":\"\\u0000\"}", "it holds a NUL (line 1, column 8)" },
		{ "{\"a\":\"\xff\"}", "it isn't UTF-8" },
		{ "[]", "it isn't an object" },
		{ "{\n\n\"a\" 1}", "it can't be parsed (line 3, column 5)" },
	};
	json_t *json;
	char error[160];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(web_json_parse(slice_str(cases[i].text), &json, error),
		                 WEB_BODY_MALFORMED);
		assert_string_equal(error, cases[i].error);
	}
}

static void
test_nesting_is_bounded(void **state)
{
	char text[200];

	(void)state;
	for (int depth = 1; depth <= 20; depth++) {
		int n = snprintf(text, sizeof(text), "{\"a\":");

		for (int i = 1; i < depth; i++)
			text[n++] = '[';
		text[n++] = '1';
		for (int i = 1; i < depth; i++)
			text[n++] = ']';
		text[n++] = '}';
		assert_int_equal(parse(slice_mem(text, (size_t)n)),
		                 depth <= WEB_JSON_DEPTH ? WEB_BODY_OK : WEB_BODY_MALFORMED);
	}
}

/* --- fields ---------------------------------------------------------------- */

struct push {
	struct slice title, channel;
	int64_t expires, count;
	bool urgent;
	struct web_strings to;
	const json_t *variables, *parts, *any;
};

static const struct web_field fields[] = {
	{ "title", WEB_STRING, WEB_REQUIRED, offsetof(struct push, title), 1, 5, NULL, NULL },
	{ "channel", WEB_STRING, WEB_NULLABLE, offsetof(struct push, channel), 0, 0,
	  text_is_name, "a channel's name" },
	{ "expires", WEB_INT, 0, offsetof(struct push, expires), 10, 20, NULL, NULL },
	{ "count", WEB_INT, 0, offsetof(struct push, count), 0, 0, NULL, NULL },
	{ "urgent", WEB_BOOL, 0, offsetof(struct push, urgent), 0, 0, NULL, NULL },
	{ "to", WEB_STRINGS, 0, offsetof(struct push, to), 1, 3, text_is_name, "a name" },
	{ "variables", WEB_OBJECT, 0, offsetof(struct push, variables), 0, 0, NULL, NULL },
	{ "parts", WEB_ARRAY, 0, offsetof(struct push, parts), 1, 2, NULL, NULL },
	{ "any", WEB_ANY, 0, offsetof(struct push, any), 0, 0, NULL, NULL },
};
#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static bool
read_push(const char *text, struct push *out, json_t **json, struct web_errors *errors)
{
	char error[160];

	*errors = (struct web_errors){ .count = 0 };
	assert_int_equal(web_json_parse(slice_str(text), json, error), WEB_BODY_OK);
	return web_fields_read(*json, "", fields, N_FIELDS, out, errors);
}

static void
test_fields_are_read_into_the_struct(void **state)
{
	struct push p = { .expires = 7 };
	struct web_errors errors;
	json_t *json;

	(void)state;
	assert_true(read_push(
	    "{\"title\":\"abc\",\"channel\":null,\"urgent\":true,\"to\":[\"a\",\"b\"],"
	    "\"count\":-9223372036854775808,\"variables\":{},\"parts\":[1],\"any\":null}",
	    &p, &json, &errors));
	assert_true(slice_eq_str(p.title, "abc"));
	assert_null(p.channel.data);
	assert_int_equal(p.expires, 7); /* absent: untouched */
	assert_true(p.count == INT64_MIN);
	assert_true(p.urgent);
	assert_int_equal(p.to.count, 2);
	assert_true(slice_eq_str(web_strings_at(&p.to, 1), "b"));
	assert_true(json_is_object(p.variables));
	assert_true(json_is_null(p.any));
	json_decref(json);
	assert_true(
	    read_push("{\"title\":\"abc\",\"to\":\"one\",\"expires\":20}", &p, &json, &errors));
	assert_int_equal(p.to.count, 1);
	assert_true(slice_eq_str(web_strings_at(&p.to, 0), "one"));
	assert_int_equal(p.expires, 20);
	json_decref(json);
}

static void
test_what_is_wrong_is_told_by_pointer(void **state)
{
	static const struct {
		const char *body, *pointer, *detail;
		const struct web_problem *kind;
	} table[] = {
		{ "{}", "/title", "is required", &web_missing_field },
		{ "{\"title\":null}", "/title", "must be a string", &web_invalid_value },
		{ "{\"title\":7}", "/title", "must be a string", &web_invalid_value },
		{ "{\"title\":\"\"}", "/title", "must not be empty", &web_invalid_value },
		{ "{\"title\":\"123456\"}", "/title", "must be at most 5 octets long",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"channel\":\"A\"}", "/channel", "must be a channel's name",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"expires\":9}", "/expires", "must be from 10 to 20",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"expires\":1.5}", "/expires", "must be an integer",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"urgent\":1}", "/urgent", "must be true or false",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":5}", "/to", "must be a string or a list of strings",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":[]}", "/to", "must not be empty",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":[\"a\",\"a\",\"a\",\"a\"]}", "/to",
		  "must have at most 3 items", &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":[\"a\",5]}", "/to/1", "must be a string",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":[\"A\"]}", "/to/0", "must be a name",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"to\":\"A\"}", "/to", "must be a name",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"variables\":[]}", "/variables", "must be an object",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"parts\":{}}", "/parts", "must be a list",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"parts\":[1,2,3]}", "/parts", "must have at most 2 items",
		  &web_invalid_value },
		{ "{\"title\":\"a\",\"tittle\":1}", "/tittle", "isn't a field here",
		  &web_unknown_field },
		{ "{\"title\":\"a\",\"a/b~c\":1}", "/a~1b~0c", "isn't a field here",
		  &web_unknown_field },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct push p = { .count = 0 };
		struct web_errors errors;
		json_t *json, *first;

		assert_false(read_push(table[i].body, &p, &json, &errors));
		assert_int_equal(errors.count, 1);
		assert_ptr_equal(errors.kind, table[i].kind);
		first = json_array_get(errors.list, 0);
		assert_string_equal(json_string_value(json_object_get(first, "pointer")),
		                    table[i].pointer);
		assert_string_equal(json_string_value(json_object_get(first, "detail")),
		                    table[i].detail);
		web_errors_free(&errors);
		json_decref(json);
	}
}

static void
test_an_answer_tells_sixteen_errors_at_most(void **state)
{
	struct push p = { .count = 0 };
	struct web_errors errors;
	json_t *json;
	char text[4000] = "{";

	(void)state;
	for (int i = 0; i < 100; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "\"x%d\":1,",
		               i);
	(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "\"title\":\"a\"}");
	assert_false(read_push(text, &p, &json, &errors));
	assert_int_equal(errors.count, 100);
	assert_int_equal(json_array_size(errors.list), WEB_ERRORS_MAX);
	web_errors_free(&errors);
	json_decref(json);
}

/* A name of one's own is cut in the answer, between characters. */
static void
test_a_long_unknown_name_is_cut(void **state)
{
	struct push p = { .count = 0 };
	struct web_errors errors;
	json_t *json;
	char text[4000] = "{\"title\":\"a\",\"x";
	const char *pointer;

	(void)state;
	for (int i = 0; i < 300; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "\xc3\xa4/");
	(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "\":1}");
	assert_false(read_push(text, &p, &json, &errors));
	pointer = json_string_value(json_object_get(json_array_get(errors.list, 0), "pointer"));
	assert_non_null(pointer);
	assert_true(strlen(pointer) < 80);
	assert_true(text_is_utf8(slice_str(pointer)));
	web_errors_free(&errors);
	json_decref(json);
}

/* --- over HTTP ------------------------------------------------------------- */

static void
on_push(struct web_request *req, void *arg)
{
	struct push p = { .count = 0 };
	json_t *json;

	(void)arg;
	if (!web_body_read(req, fields, N_FIELDS, &p, &json))
		return;
	web_reply_json(req, 200,
	               json_pack("{s:s%}", "title", (const char *)p.title.data, p.title.len));
	json_decref(json);
}

static void
test_a_bad_body_is_answered_with_all_that_is_wrong(void **state)
{
	static const struct web_route routes[] = { { WEB_POST, "/push", on_push, 1000, 0 } };
	struct web_options o = {
		.listen = "127.0.0.1:0", .threads = 1, .routes = routes, .n_routes = 1
	};
	static struct http_answer answer;
	struct web_server *server;
	char error[WEB_ERROR_TEXT];
	json_t *body, *errors;

	(void)state;
	assert_int_equal(web_server_start(&o, &server, error), WEB_OK);
	assert_int_equal(
	    http_ask(web_server_port(server),
	             "POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	             "Content-Length: 22\r\n\r\n{\"to\":{},\"urgent\":\"x\"}",
	             &answer),
	    400);
	body = json_loads(answer.body, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(body, "type")),
	                    "urn:tmtp:problem:missing-field");
	assert_string_equal(json_string_value(json_object_get(body, "detail")),
	                    "/title is required");
	errors = json_object_get(body, "errors");
	assert_int_equal(json_array_size(errors), 3);
	json_decref(body);
	assert_int_equal(
	    http_ask(web_server_port(server),
	             "POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	             "Content-Length: 3\r\n\r\n{\"a",
	             &answer),
	    400);
	assert_non_null(strstr(answer.body, "urn:tmtp:problem:malformed-json"));
	assert_int_equal(
	    http_ask(web_server_port(server),
	             "POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\n"
	             "Content-Length: 2\r\n\r\n{}",
	             &answer),
	    415);
	assert_int_equal(
	    http_ask(web_server_port(server),
	             "POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: Application/JSON\r\n"
	             "Content-Length: 13\r\n\r\n{\"title\":\"t\"}",
	             &answer),
	    200);
	assert_string_equal(answer.body, "{\"title\":\"t\"}");
	web_server_stop(&server, 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_that_is_refused),
		cmocka_unit_test(test_json_that_is_taken),
		cmocka_unit_test(test_every_prefix_of_a_body_is_malformed),
		cmocka_unit_test(test_json_is_read_as_it_stands),
		cmocka_unit_test(test_what_is_malformed_is_told_with_its_place),
		cmocka_unit_test(test_nesting_is_bounded),
		cmocka_unit_test(test_fields_are_read_into_the_struct),
		cmocka_unit_test(test_what_is_wrong_is_told_by_pointer),
		cmocka_unit_test(test_an_answer_tells_sixteen_errors_at_most),
		cmocka_unit_test(test_a_long_unknown_name_is_cut),
		cmocka_unit_test(test_a_bad_body_is_answered_with_all_that_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
