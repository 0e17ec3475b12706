/* Routes: cutting paths, matching, decoding. */
#include "web/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void
handler(struct web_request *req, void *arg)
{
	(void)req;
	(void)arg;
}

static const struct web_route routes[] = {
	{ WEB_GET, "/v1/channels/mine", handler, 0, 0 },
	{ WEB_GET, "/v1/channels/:channel", handler, 0, 0 },
	{ WEB_DELETE, "/v1/channels/:channel", handler, 0, 0 },
	{ WEB_POST, "/v1/channels/:channel/messages", handler, 0, 0 },
	{ WEB_GET, "/", handler, 0, 0 },
};

static const struct web_route *
find(enum web_method method, const char *path, unsigned *allowed)
{
	static struct route_set set;
	struct route_path cut;
	const struct web_route *found;
	size_t index;

	*allowed = 0;
	assert_true(route_set_init(&set, routes, sizeof(routes) / sizeof(routes[0])));
	found = route_path_cut(slice_str(path), &cut)
	            ? route_find(&set, method, &cut, &index, allowed)
	            : NULL;
	route_set_deinit(&set);
	return found;
}

static void
test_the_first_that_matches_wins(void **state)
{
	unsigned allowed;

	(void)state;
	assert_ptr_equal(find(WEB_GET, "/v1/channels/mine", &allowed), &routes[0]);
	assert_ptr_equal(find(WEB_GET, "/v1/channels/orders", &allowed), &routes[1]);
	assert_ptr_equal(find(WEB_DELETE, "/v1/channels/mine", &allowed), &routes[2]);
	assert_ptr_equal(find(WEB_POST, "/v1/channels/a/messages", &allowed), &routes[3]);
	assert_ptr_equal(find(WEB_GET, "/", &allowed), &routes[4]);
}

static void
test_no_route_and_no_method_are_told_apart(void **state)
{
	unsigned allowed;

	(void)state;
	assert_null(find(WEB_PUT, "/v1/channels/orders", &allowed));
	assert_int_equal(allowed, 1u << WEB_GET | 1u << WEB_HEAD | 1u << WEB_DELETE);
	assert_null(find(WEB_GET, "/v1/channels/a/messages", &allowed));
	assert_int_equal(allowed, 1u << WEB_POST);
	assert_null(find(WEB_GET, "/v1/channels", &allowed));
	assert_int_equal(allowed, 0);
	assert_null(find(WEB_GET, "/v1/channels/", &allowed));
	assert_null(find(WEB_GET, "/v1//channels", &allowed));
	assert_null(find(WEB_GET, "v1/channels/a", &allowed));
	assert_null(find(WEB_GET, "", &allowed));
	assert_null(find(WEB_GET, "/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", &allowed)); /* 17 */
}

static void
test_tables_that_cannot_be_served(void **state)
{
	static const struct web_route bad[][1] = {
		{ { WEB_GET, "no-slash", handler, 0, 0 } },
		{ { WEB_GET, "/a", NULL, 0, 0 } },
		{ { WEB_HEAD, "/a", handler, 0, 0 } },
		{ { WEB_GET, "/:a/:b/:c/:d/:e/:f/:g/:h/:i", handler, 0, 0 } },
		{ { WEB_GET, "/a/", handler, 0, 0 } },
	};
	struct route_set set;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(route_set_init(&set, bad[i], 1));
}

static void
test_decode_table(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} table[] = {
		{ "", "" },         { "plain", "plain" }, { "%41%62", "Ab" },
		{ "a%2Fb", "a/b" }, { "%c3%a4", "ä" },    { "%C3%A4", "ä" },
		{ "a+b", "a+b" },   { "%", NULL },        { "%4", NULL },
		{ "%4g", NULL },    { "%g4", NULL },      { "%00", NULL },
		{ "%ff", NULL },    { "%c3", NULL },      { "%ed%a0%80", NULL },
		{ "%2541", "%41" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint8_t *room = malloc(strlen(table[i].in) + 1); /* exact, for the sanitizer */
		struct slice in = slice_str(table[i].in), out;

		assert_int_equal(route_decode(in, room, &out), table[i].out != NULL);
		if (table[i].out != NULL)
			assert_true(slice_eq_str(out, table[i].out));
		free(room);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_first_that_matches_wins),
		cmocka_unit_test(test_no_route_and_no_method_are_told_apart),
		cmocka_unit_test(test_tables_that_cannot_be_served),
		cmocka_unit_test(test_decode_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
