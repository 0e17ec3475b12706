/* site/plan: what a push's body becomes, and what is refused in it. */
#include "site/plan.h"

#include "base/clock.h"
#include "dmtp/address.h"
#include "dmtp/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct plan_origin
origin(void)
{
	struct plan_origin o = { .site = SLICE("shop"),
		                 .domain = SLICE("shop.test"),
		                 .channel = SLICE("orders"),
		                 .date_s = 1795302084,
		                 .message_max_bytes = 65536 };

	memset(o.salt, 7, sizeof(o.salt));
	return o;
}

/* The plan of a body; errors are kept for the caller. */
static enum plan_rc
make(const char *body, struct plan *plan, struct web_errors *errors)
{
	const struct plan_origin o = origin();
	char error[160];
	json_t *json = NULL;
	enum plan_rc rc;

	*errors = (struct web_errors){ .count = 0 };
	if (web_json_parse(slice_str(body), &json, error) != WEB_BODY_OK)
		fail_msg("%s: %s", body, error);
	rc = site_plan_make(json, &o, plan, errors);
	json_decref(json);
	return rc;
}

static struct dmtp_message
message_of(const struct plan *plan)
{
	struct dmtp_message m;
	uint8_t digest[32];

	assert_int_equal(dmtp_message_decode(buffer_slice(&plan->message), &m),
	                 DMTP_MESSAGE_OK);
	assert_true(dmtp_digest(buffer_slice(&plan->message), digest));
	assert_memory_equal(digest, plan->digest, 32);
	return m;
}

static void
assert_slice(struct slice s, const char *text)
{
	if (!slice_eq_str(s, text))
		fail_msg("\"%.*s\" is not \"%s\"", (int)s.len, (const char *)s.data, text);
}

static void
test_one_recipient_is_named_in_the_message(void **state)
{
	struct web_errors errors;
	struct plan plan;
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;

	(void)state;
	assert_int_equal(
	    make("{\"to\":\"Ann@HOME.test\",\"subject\":\"Hi\",\"message\":\"Your order\","
	         "\"lang\":\"en\"}",
	         &plan, &errors),
	    PLAN_OK);
	assert_int_equal(plan.audience, PUSH_ONE);
	assert_int_equal(plan.lane, LANE_NORMAL);
	assert_int_equal(plan.expires_s, 0);
	assert_int_equal(plan.rcpts_n, 1);
	assert_slice(plan.rcpts[0].member, "ann");
	assert_slice(plan.rcpts[0].domain, "home.test");
	m = message_of(&plan);
	assert_slice(m.from, "shop@shop.test");
	assert_slice(m.to, "ann@home.test");
	assert_int_equal(m.date, 1795302084);
	assert_int_equal(m.salt[15], 7);
	ben_reader_init(&it, m.fields);
	assert_true(dmtp_field_next(&it, &f));
	assert_int_equal(f.name, DMTP_SUBJECT);
	assert_slice(f.data, "Hi");
	assert_slice(f.lang, "en");
	assert_true(dmtp_field_next(&it, &f));
	assert_int_equal(f.name, DMTP_MESSAGE);
	assert_slice(f.type, "text/plain");
	assert_slice(f.data, "Your order");
	assert_false(dmtp_field_next(&it, &f));
	site_plan_free(&plan);
}

static void
test_several_recipients_are_never_named(void **state)
{
	struct web_errors errors;
	struct plan plan;

	(void)state;
	assert_int_equal(make("{\"to\":[\"a@x.test\",\"b@x.test\",\"A@X.test\",\"a@y.test\"],"
	                      "\"message\":\"m\",\"lane\":\"urgent\",\"expires\":60}",
	                      &plan, &errors),
	                 PLAN_OK);
	assert_int_equal(plan.audience, PUSH_LIST);
	assert_int_equal(plan.lane, LANE_URGENT);
	assert_int_equal(plan.expires_s, 60);
	assert_int_equal(plan.rcpts_n, 3); /* duplicates collapse */
	assert_slice(plan.rcpts[0].member, "a");
	assert_slice(plan.rcpts[2].domain, "y.test");
	assert_slice(message_of(&plan).to, "orders.shop@shop.test");
	site_plan_free(&plan);
}

static void
test_duplicates_that_leave_one_make_a_message_to_one(void **state)
{
	struct web_errors errors;
	struct plan plan;

	(void)state;
	assert_int_equal(
	    make("{\"to\":[\"a@x.test\",\"a@x.test\"],\"subject\":\"s\"}", &plan, &errors),
	    PLAN_OK);
	assert_int_equal(plan.audience, PUSH_ONE);
	assert_slice(message_of(&plan).to, "a@x.test");
	site_plan_free(&plan);
}

static void
test_star_is_everybody_in_bulk(void **state)
{
	struct web_errors errors;
	struct plan plan;

	(void)state;
	assert_int_equal(make("{\"to\":\"*\",\"subject\":\"s\"}", &plan, &errors), PLAN_OK);
	assert_int_equal(plan.audience, PUSH_CHANNEL);
	assert_int_equal(plan.lane, LANE_BULK);
	assert_int_equal(plan.rcpts_n, 0);
	assert_slice(message_of(&plan).to, "orders.shop@shop.test");
	site_plan_free(&plan);
	assert_int_equal(
	    make("{\"to\":[\"*\"],\"subject\":\"s\",\"lane\":\"normal\"}", &plan, &errors),
	    PLAN_OK);
	assert_int_equal(plan.lane, LANE_NORMAL);
	site_plan_free(&plan);
}

static void
test_forms_and_action_become_fields(void **state)
{
	struct web_errors errors;
	struct plan plan;
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;

	(void)state;
	assert_int_equal(
	    make("{\"to\":\"*\",\"message\":{\"text/html\":\"<p>x\",\"text/plain\":\"x\"},"
	         "\"action\":{\"label\":\"Track\",\"url\":\"https://shop.test/o/1#now\"}}",
	         &plan, &errors),
	    PLAN_OK);
	m = message_of(&plan);
	ben_reader_init(&it, m.fields);
	assert_true(dmtp_field_next(&it, &f));
	assert_slice(f.type, "text/plain");
	assert_true(dmtp_field_next(&it, &f));
	assert_slice(f.type, "text/html");
	assert_slice(f.data, "<p>x");
	assert_true(dmtp_field_next(&it, &f));
	assert_int_equal(f.name, DMTP_ACTION);
	assert_slice(f.type, "text/uri-list");
	assert_slice(f.data, "# Track\r\nhttps://shop.test/o/1#now\r\n");
	assert_false(dmtp_field_next(&it, &f));
	site_plan_free(&plan);
}

static void
test_bad_bodies_are_told_by_pointer(void **state)
{
	static const struct {
		const char *body, *pointer;
		const struct web_problem *kind;
	} table[] = {
		{ "{\"subject\":\"s\"}", "/to", &web_missing_field },
		{ "{\"to\":7,\"subject\":\"s\"}", "/to", &web_invalid_value },
		{ "{\"to\":[],\"subject\":\"s\"}", "/to", &web_invalid_value },
		{ "{\"to\":\"nobody\",\"subject\":\"s\"}", "/to", &web_invalid_value },
		{ "{\"to\":[\"a@x.test\",\"b\"],\"subject\":\"s\"}", "/to/1",
		  &web_invalid_value },
		{ "{\"to\":[\"a@x.test\",\"*\"],\"subject\":\"s\"}", "/to/1",
		  &web_invalid_value },
		{ "{\"to\":[\"a@x.test\",null],\"subject\":\"s\"}", "/to/1",
		  &web_invalid_value },
		{ "{\"to\":\"a b@x.test\",\"subject\":\"s\"}", "/to", &web_invalid_value },
		{ "{\"to\":\"a@x\\u0000.test\",\"subject\":\"s\"}", NULL, NULL },
		{ "{\"to\":\"*\"}", "/message", &web_missing_field },
		{ "{\"to\":\"*\",\"subject\":\"\"}", "/subject", &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"a\\nb\"}", "/subject", &web_invalid_value },
		{ "{\"to\":\"*\",\"message\":\"\"}", "/message", &web_invalid_value },
		{ "{\"to\":\"*\",\"message\":{}}", "/message", &web_missing_field },
		{ "{\"to\":\"*\",\"message\":{\"text/xml\":\"x\"}}", "/message",
		  &web_unknown_field },
		{ "{\"to\":\"*\",\"message\":{\"text/plain\":1}}", "/message/text~1plain",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"message\":[\"x\"]}", "/message", &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"lane\":\"fast\"}", "/lane",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"lang\":\"x_y\"}", "/lang",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"expires\":59}", "/expires",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"expires\":2592001}", "/expires",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"expires\":\"60\"}", "/expires",
		  &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"action\":{\"label\":\"x\"}}",
		  "/action/url", &web_missing_field },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"action\":{\"label\":\"x\",\"url\":\"http:/"
		  "/a.test\"}}",
		  "/action/url", &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"action\":{\"label\":\"x\",\"url\":"
		  "\"javascript:1\"}}",
		  "/action/url", &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"action\":{\"label\":\"x\",\"url\":\"https:"
		  "//a.test/\\r\\nx\"}}",
		  "/action/url", &web_invalid_value },
		{ "{\"to\":\"*\",\"subject\":\"s\",\"colour\":1}", "/colour",
		  &web_unknown_field },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct web_errors errors;
		struct plan plan;
		const char *pointer;

		if (table[i].kind == NULL) { /* refused by the parser already */
			char error[160];
			json_t *json;

			assert_int_equal(web_json_parse(slice_str(table[i].body), &json, error),
			                 WEB_BODY_MALFORMED);
			continue;
		}
		if (make(table[i].body, &plan, &errors) != PLAN_INVALID)
			fail_msg("accepted: %s", table[i].body);
		pointer = json_string_value(
		    json_object_get(json_array_get(errors.list, 0), "pointer"));
		if (errors.kind != table[i].kind || strcmp(pointer, table[i].pointer) != 0)
			fail_msg("%s: %s at %s", table[i].body, errors.kind->type, pointer);
		site_plan_free(&plan);
		web_errors_free(&errors);
	}
}

/* A subject of n letters "ä". */
static enum plan_rc
push_subject_of(size_t n)
{
	char body[4096] = "{\"to\":\"*\",\"subject\":\"";
	struct web_errors errors;
	struct plan plan;
	enum plan_rc rc;

	for (size_t i = 0; i < n; i++)
		strcat(body, "\xc3\xa4");
	strcat(body, "\"}");
	rc = make(body, &plan, &errors);
	site_plan_free(&plan);
	web_errors_free(&errors);
	return rc;
}

static void
test_a_subject_is_counted_in_characters(void **state)
{
	(void)state;
	assert_int_equal(push_subject_of(200), PLAN_OK);
	assert_int_equal(push_subject_of(201), PLAN_INVALID);
}

/* {"to": [n addresses, each different], "message": "m"} */
static char *
body_of_list(size_t n)
{
	char *body = malloc(64 + n * 32), *at = body;

	at += sprintf(at, "{\"message\":\"m\",\"to\":[");
	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "%s\"m%zu@home.test\"", i == 0 ? "" : ",", i);
	(void)sprintf(at, "]}");
	return body;
}

static void
test_a_thousand_recipients_and_no_more(void **state)
{
	struct web_errors errors;
	struct plan plan;
	char *body = body_of_list(PUSH_RCPTS_MAX);

	(void)state;
	assert_int_equal(make(body, &plan, &errors), PLAN_OK);
	assert_int_equal(plan.rcpts_n, PUSH_RCPTS_MAX);
	assert_slice(plan.rcpts[999].member, "m999");
	site_plan_free(&plan);
	free(body);
	body = body_of_list(PUSH_RCPTS_MAX + 1);
	assert_int_equal(make(body, &plan, &errors), PLAN_INVALID);
	site_plan_free(&plan);
	web_errors_free(&errors);
	free(body);
}

static void
test_the_message_has_a_longest_size(void **state)
{
	struct plan_origin o = origin();
	struct web_errors errors = { .count = 0 };
	struct plan plan;
	json_t *json = json_pack("{s:s, s:s}", "to", "*", "subject", "0123456789");
	size_t len;

	(void)state;
	assert_int_equal(site_plan_make(json, &o, &plan, &errors), PLAN_OK);
	len = plan.message.len;
	site_plan_free(&plan);
	o.message_max_bytes = len;
	assert_int_equal(site_plan_make(json, &o, &plan, &errors), PLAN_OK);
	site_plan_free(&plan);
	o.message_max_bytes = len - 1;
	assert_int_equal(site_plan_make(json, &o, &plan, &errors), PLAN_TOO_LARGE);
	site_plan_free(&plan);
	o.message_max_bytes = 5;
	assert_int_equal(site_plan_make(json, &o, &plan, &errors), PLAN_TOO_LARGE);
	site_plan_free(&plan);
	json_decref(json);
}

static void
test_an_invitation_names_the_member(void **state)
{
	const struct plan_origin o = origin();
	struct plan plan;
	struct dmtp_message m;

	(void)state;
	assert_int_equal(site_plan_invitation(&o, SLICE("ann@home.test"), SLICE("Orders"),
	                                      SLICE("News of your orders"), &plan),
	                 PLAN_OK);
	m = message_of(&plan);
	assert_slice(m.to, "ann@home.test");
	assert_int_equal(m.field_count, 2);
	site_plan_free(&plan);
	assert_int_equal(site_plan_invitation(&o, SLICE("ann@home.test"), SLICE("Orders"),
	                                      (struct slice){ NULL, 0 }, &plan),
	                 PLAN_OK);
	assert_int_equal(message_of(&plan).field_count, 1);
	site_plan_free(&plan);
}

static void
test_an_invitations_words_hold_no_link(void **state)
{
	static const char *const good[] = { "News of your orders.", "Hi. There, at 10.30!",
		                            "U.S.A. and so on...",
		                            "Gr\xc3\xbc\xc3\x9f"
		                            "e",
		                            "3.14" };
	static const char *const bad[] = { "",
		                           "see https://x.test",
		                           "see www.xy",
		                           "shop.test",
		                           "a shop.test/x b",
		                           "b\xc3\xbc"
		                           "cher.example",
		                           "mail me@x",
		                           "MAILTO:x",
		                           "two\nlines",
		                           "javascript://x" };
	char text[600] = "";

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!site_plan_words_valid(slice_str(good[i])))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (site_plan_words_valid(slice_str(bad[i])))
			fail_msg("accepted: %s", bad[i]);
	for (int i = 0; i < 140; i++)
		strcat(text, "\xe2\x82\xac");
	assert_true(site_plan_words_valid(slice_str(text)));
	strcat(text, "x");
	assert_false(site_plan_words_valid(slice_str(text)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_recipient_is_named_in_the_message),
		cmocka_unit_test(test_several_recipients_are_never_named),
		cmocka_unit_test(test_duplicates_that_leave_one_make_a_message_to_one),
		cmocka_unit_test(test_star_is_everybody_in_bulk),
		cmocka_unit_test(test_forms_and_action_become_fields),
		cmocka_unit_test(test_bad_bodies_are_told_by_pointer),
		cmocka_unit_test(test_a_subject_is_counted_in_characters),
		cmocka_unit_test(test_a_thousand_recipients_and_no_more),
		cmocka_unit_test(test_the_message_has_a_longest_size),
		cmocka_unit_test(test_an_invitation_names_the_member),
		cmocka_unit_test(test_an_invitations_words_hold_no_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
