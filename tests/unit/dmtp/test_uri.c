/* dmtp/uri: what can be picked up. */
#include "dmtp_test.h"

#include "dmtp/uri.h"

static void
test_good_uris_are_split(void **state)
{
	static const struct {
		const char *in, *host, *path;
		uint16_t port;
	} table[] = {
		{ "https://example.org/m/abc", "example.org", "/m/abc", 443 },
		{ "https://a.example.org:8443/x?y=z", "a.example.org", "/x?y=z", 8443 },
		{ "https://example.org", "example.org", "", 443 },
		{ "https://example.org:1", "example.org", "", 1 },
		{ "https://example.org:65535/", "example.org", "/", 65535 },
		{ "https://xn--mnchen-3ya.example/a:b@c", "xn--mnchen-3ya.example", "/a:b@c",
		  443 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice in = flush_copy(slice_str(table[i].in));
		struct dmtp_uri u;

		assert_true(dmtp_uri_split(in, &u));
		assert_slice(u.host, table[i].host);
		assert_slice(u.path, table[i].path);
		assert_int_equal(u.port, table[i].port);
		flush_free(in);
	}
}

static void
test_other_uris_are_refused(void **state)
{
	static const char *const table[] = {
		"",
		"https",
		"https://",
		"http://example.org/",
		"HTTPS://example.org/",
		"ftp://a.b/",
		"https:///m",
		"https://user@example.org/",
		"https://u:p@example.org/",
		"https://192.0.2.1/",
		"https://[2001:db8::1]/",
		"https://Example.org/",
		"https://example.org:/",
		"https://example.org:0/",
		"https://example.org:65536/",
		"https://example.org:08/",
		"https://example.org:8x/",
		"https://example.org/#f",
		"https://example.org/ a",
		"https://example.org/\n",
		"https://example.org/\xc3\xbc",
		"https://example.org?x",
		"https://example.org\\@evil.example/",
		"https://a..b/",
		"file:///etc/passwd",
		"https://example.org\x7f/",
	};
	char longest[DMTP_URI_MAX + 2];
	struct dmtp_uri u = { .port = 7 };

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice in = flush_copy(slice_str(table[i]));

		if (dmtp_uri_split(in, &u))
			fail_msg("%s", table[i]);
		assert_int_equal(u.port, 7);
		flush_free(in);
	}
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "https://example.org/", 20);
	assert_true(dmtp_uri_split(slice_mem(longest, DMTP_URI_MAX), &u));
	assert_false(dmtp_uri_split(slice_mem(longest, DMTP_URI_MAX + 1), &u));
}

/* A NUL or a broken UTF-8 would be refused by the database only, again and again. */
static void
test_possible_uris_are_visible_ascii(void **state)
{
	char longest[DMTP_URI_MAX + 1];

	(void)state;
	memset(longest, 'a', sizeof(longest));
	assert_true(dmtp_uri_possible(SLICE("https://example.org/m/x")));
	assert_true(dmtp_uri_possible(SLICE("!~")));
	assert_true(dmtp_uri_possible(slice_mem(longest, DMTP_URI_MAX)));
	assert_false(dmtp_uri_possible(slice_mem(longest, DMTP_URI_MAX + 1)));
	assert_false(dmtp_uri_possible(SLICE("")));
	for (int octet = 0; octet < 256; octet++) {
		uint8_t text[3] = { 'a', (uint8_t)octet, 'b' };

		assert_int_equal(dmtp_uri_possible(slice_mem(text, 3)),
		                 octet > 0x20 && octet < 0x7f);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_possible_uris_are_visible_ascii),
		cmocka_unit_test(test_good_uris_are_split),
		cmocka_unit_test(test_other_uris_are_refused),
	};

	return RUN(tests);
}
