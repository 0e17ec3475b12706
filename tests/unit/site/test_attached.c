/* site/attached: which attachments a push names, and the fields that they become. */
#include "site/attached.h"

#include "base/digest.h"
#include "site/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static bool
read_body(const char *body, struct attached *a, struct web_errors *errors)
{
	json_t *json = json_loads(body, 0, NULL);
	bool good;

	assert_non_null(json);
	*errors = (struct web_errors){ .count = 0 };
	good = attached_read(json, a, errors);
	json_decref(json);
	return good;
}

#define D "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be0"

static void
test_what_is_wrong_is_pointed_at(void **state)
{
	static const struct {
		const char *body, *pointer;
	} table[] = {
		{ "{\"attachments\":{}}", "/attachments" },
		{ "{\"attachments\":[1]}", "/attachments/0" },
		{ "{\"attachments\":[{}]}", "/attachments/0/digest" },
		{ "{\"attachments\":[{\"digest\":\"" D "\"}]}", "/attachments/0/digest" },
		{ "{\"attachments\":[{\"digest\":\"" D "x\"}]}", "/attachments/0/digest" },
		{ "{\"attachments\":[{\"digest\":\"" D "33\"}]}", "/attachments/0/digest" },
		{ "{\"attachments\":[{\"digest\":\"" D "3\",\"a\":1}]}", "/attachments/0/a" },
		{ "{\"attachments\":[{\"digest\":\"" D "3\"},{\"digest\":\"" D "3\"}]}",
		  "/attachments/1" },
		{ "{\"attachments\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", "/attachments" },
	};
	struct attached a;
	struct web_errors errors;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_false(read_body(table[i].body, &a, &errors));
		assert_string_equal(json_string_value(json_object_get(
					json_array_get(errors.list, 0), "pointer")),
		                    table[i].pointer);
		web_errors_free(&errors);
	}
	assert_true(read_body("{}", &a, &errors));
	assert_int_equal(a.n, 0);
	assert_true(read_body("{\"attachments\":[]}", &a, &errors));
	assert_true(read_body("{\"attachments\":[{\"digest\":\"" D "3\"}]}", &a, &errors));
	assert_int_equal(a.named[0].digest[31], 0x03);
}

/* As many as there may be, at as many hosts, are a message that its receiver understands. */
static void
test_they_become_fields(void **state)
{
	char *hosts[] = { (char *)"https://a.shop.test", (char *)"https://b.shop.test/deep",
		          (char *)"https://c.shop.test" };
	const struct config_site site = { .http.url = (char *)"https://shop.test",
		                          .message_hosts = { hosts, 3 } };
	struct attached a = { .n = ATTACHMENTS_NAMED_MAX };
	struct plan_origin origin = { .site = SLICE("shop"),
		                      .domain = SLICE("shop.test"),
		                      .channel = SLICE("orders"),
		                      .date_s = 1795302084,
		                      .message_max_bytes = 65536,
		                      .attached = a.fields,
		                      .attached_n = ATTACHMENTS_NAMED_MAX };
	struct web_errors errors = { .count = 0 };
	json_t *json =
	    json_loads("{\"to\":\"*\",\"subject\":\"s\",\"attachments\":[]}", 0, NULL);
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it, uris;
	struct plan plan;
	int seen = 0, n = 0;

	(void)state;
	for (size_t i = 0; i < a.n; i++) {
		a.named[i] = (struct attachment_named){ .digest = { (uint8_t)i },
			                                .attachment_id = uuid_make(),
			                                .size = 1000 + (int64_t)i,
			                                .type = "video/mp4" };
	}
	assert_true(attached_make(&a, &site, 7));
	assert_int_equal(site_plan_make(json, &origin, &plan, &errors), PLAN_OK);
	assert_int_equal(dmtp_message_decode(buffer_slice(&plan.message), &m), DMTP_MESSAGE_OK);
	ben_reader_init(&it, m.fields);
	while (dmtp_field_next(&it, &f)) {
		if (f.name != DMTP_ATTACHMENT)
			continue;
		assert_true(f.large);
		assert_int_equal(f.size, 1000 + seen);
		assert_int_equal(f.digest.data[0], seen);
		ben_reader_init(&uris, f.uris);
		for (n = 0; ben_more(&uris); n++) {
			struct slice uri = ben_get_str(&uris);

			if (n == 1)
				assert_memory_equal(uri.data, "https://b.shop.test/deep/m/a/",
				                    29);
			if (n == 3)
				assert_memory_equal(uri.data, "https://shop.test/m/a/", 22);
		}
		assert_int_equal(n, 4);
		seen++;
	}
	assert_int_equal(seen, ATTACHMENTS_NAMED_MAX);
	site_plan_free(&plan);
	buffer_free(&a.uris);
	json_decref(json);
}

static void
test_those_that_are_missing_are_named(void **state)
{
	struct attached a = {
		.n = 3, .named = { { .found = true }, { .found = false }, { .found = false } }
	};
	json_t *errors = attached_missing(&a);

	(void)state;
	assert_int_equal(json_array_size(errors), 2);
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(errors, 1), "pointer")),
	    "/attachments/2/digest");
	json_decref(errors);
}

/* A digest that is gone on with after every block is the digest of all. */
static void
test_a_running_digest(void **state)
{
	uint8_t octets[5 * DIGEST_BLOCK + 7], whole[DIGEST_LEN], made[DIGEST_LEN],
	    saved[DIGEST_SAVED];

	(void)state;
	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 7);
	digest_sha256(slice_mem(octets, sizeof(octets)), whole);
	for (size_t at = 0; at <= sizeof(octets); at += DIGEST_BLOCK) {
		struct digest_run run;

		digest_run_init(&run);
		digest_run_add(&run, slice_mem(octets, at));
		digest_run_save(&run, saved);
		memset(&run, 0xff, sizeof(run));
		digest_run_restore(&run, saved, at);
		digest_run_add(&run, slice_mem(octets + at, sizeof(octets) - at));
		digest_run_end(&run, made);
		assert_memory_equal(made, whole, sizeof(whole));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_wrong_is_pointed_at),
		cmocka_unit_test(test_they_become_fields),
		cmocka_unit_test(test_those_that_are_missing_are_named),
		cmocka_unit_test(test_a_running_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
