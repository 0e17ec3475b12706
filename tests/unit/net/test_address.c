/* net/address: text forms, keys, and which addresses are public. */
#include "net_test.h"

static void
test_addresses_read_and_write(void **state)
{
	static const struct {
		const char *text, *back; /* back NULL: refused */
	} table[] = {
		{ "127.0.0.1:25", "127.0.0.1:25" },
		{ "[::1]:3688", "[::1]:3688" },
		{ "[2001:DB8::1]:0", "[2001:db8::1]:0" },
		{ "[::ffff:192.0.2.1]:80", "192.0.2.1:80" },
		{ "*:3688", "[::]:3688" },
		{ "0.0.0.0:65535", "0.0.0.0:65535" },
		{ "", NULL },
		{ "127.0.0.1", NULL },
		{ "127.0.0.1:", NULL },
		{ "127.0.0.1:65536", NULL },
		{ "127.0.0.1:+1", NULL },
		{ "::1:80", NULL },
		{ "[::1]", NULL },
		{ "[::1]80", NULL },
		{ "[127.0.0.1]:80", NULL },
		{ "localhost:80", NULL },
		{ "127.1:80", NULL },
		{ "[]:1", NULL },
		{ ":80", NULL },
		{ "127.0.0.256:1", NULL },
		{ "[::1:80", NULL },
		{ "**:1", NULL },
	};
	struct net_address a;
	char out[NET_ADDRESS_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		memset(&a, 0xee, sizeof(a));
		assert_int_equal(net_address_parse(table[i].text, &a), table[i].back != NULL);
		if (table[i].back != NULL)
			assert_string_equal(net_address_format(&a, out), table[i].back);
		else
			assert_int_equal(a.len, 0xeeeeeeee);
	}
	assert_true(net_address_parse("192.0.2.1:7", &a));
	net_address_set_port(&a, 3688);
	assert_int_equal(net_address_port(&a), 3688);
	assert_string_equal(net_address_format_ip(&a, out), "192.0.2.1");
	a.ss.ss_family = AF_UNIX;
	assert_string_equal(net_address_format(&a, out), "unix");
	a.ss.ss_family = AF_UNSPEC;
	assert_string_equal(net_address_format(&a, out), "unknown");
}

static void
test_a_v6_subscriber_is_a_64_and_a_mapped_v4_is_v4(void **state)
{
	struct net_address a, b;
	uint8_t ka[8], kb[8];

	(void)state;
	assert_true(net_address_make("2001:db8:0:1::1", 1, &a));
	assert_true(net_address_make("2001:db8:0:1:ffff::2", 2, &b));
	assert_int_equal(net_address_key(&a, ka), 8);
	assert_int_equal(net_address_key(&b, kb), 8);
	assert_memory_equal(ka, kb, 8);
	assert_true(net_address_make("::ffff:192.0.2.1", 1, &a));
	assert_true(net_address_make("192.0.2.1", 2, &b));
	assert_int_equal(net_address_key(&a, ka), 4);
	assert_int_equal(net_address_key(&b, kb), 4);
	assert_memory_equal(ka, kb, 4);
}

static void
test_public_addresses(void **state)
{
	static const struct {
		const char *ip;
		bool is_public;
	} table[] = {
		/* each range's ends and their neighbours */
		{ "0.0.0.0", false },
		{ "0.255.255.255", false },
		{ "1.0.0.0", true },
		{ "9.255.255.255", true },
		{ "10.0.0.0", false },
		{ "10.255.255.255", false },
		{ "11.0.0.0", true },
		{ "100.63.255.255", true },
		{ "100.64.0.0", false },
		{ "100.127.255.255", false },
		{ "100.128.0.0", true },
		{ "126.255.255.255", true },
		{ "127.0.0.1", false },
		{ "127.255.255.255", false },
		{ "128.0.0.0", true },
		{ "169.253.255.255", true },
		{ "169.254.169.254", false },
		{ "169.255.0.0", true },
		{ "172.15.255.255", true },
		{ "172.16.0.0", false },
		{ "172.31.255.255", false },
		{ "172.32.0.0", true },
		{ "191.255.255.255", true },
		{ "192.0.0.1", false },
		{ "192.0.0.170", false },
		{ "192.0.1.0", true },
		{ "192.0.2.1", false },
		{ "192.0.3.0", true },
		{ "192.88.99.1", false },
		{ "192.88.100.0", true },
		{ "192.167.255.255", true },
		{ "192.168.0.0", false },
		{ "192.168.255.255", false },
		{ "192.169.0.0", true },
		{ "198.17.255.255", true },
		{ "198.18.0.0", false },
		{ "198.19.255.255", false },
		{ "198.20.0.0", true },
		{ "198.51.99.255", true },
		{ "198.51.100.1", false },
		{ "198.51.101.0", true },
		{ "203.0.112.255", true },
		{ "203.0.113.7", false },
		{ "203.0.114.0", true },
		{ "223.255.255.255", true },
		{ "224.0.0.1", false },
		{ "239.255.255.255", false },
		{ "240.0.0.1", false },
		{ "255.255.255.255", false },
		{ "8.8.8.8", true },
		/* IPv6 */
		{ "::", false },
		{ "::1", false },
		{ "::127.0.0.1", false },
		{ "::ffff:8.8.8.8", false },
		{ "::ffff:127.0.0.1", false },
		{ "64:ff9b::8.8.8.8", false },
		{ "64:ff9b:1::1", false },
		{ "100::1", false },
		{ "1fff:ffff::1", false },
		{ "2000::1", true },
		{ "2001::1", false },
		{ "2001:0:53aa:64c::1", false },
		{ "2001:1ff:ffff::1", false },
		{ "2001:200::1", true },
		{ "2001:db7:ffff::1", true },
		{ "2001:db8::1", false },
		{ "2001:db9::1", true },
		{ "2001:4860:4860::8888", true },
		{ "2002:7f00:1::1", false },
		{ "2003::1", true },
		{ "2606:4700::1111", true },
		{ "3ffe:ffff::1", true },
		{ "3fff::1", false },
		{ "3fff:fff:ffff::1", false },
		{ "3fff:1000::1", true },
		{ "4000::1", false },
		{ "5f00::1", false },
		{ "fc00::1", false },
		{ "fdff::1", false },
		{ "fe80::1", false },
		{ "fec0::1", false },
		{ "ff02::1", false },
	};
	struct net_address a;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_true(net_address_make(table[i].ip, 443, &a));
		if (net_address_is_public((const struct sockaddr *)&a.ss) != table[i].is_public)
			fail_msg("%s", table[i].ip);
	}
	a.ss.ss_family = AF_UNIX;
	assert_false(net_address_is_public((const struct sockaddr *)&a.ss));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_read_and_write),
		cmocka_unit_test(test_a_v6_subscriber_is_a_64_and_a_mapped_v4_is_v4),
		cmocka_unit_test(test_public_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
