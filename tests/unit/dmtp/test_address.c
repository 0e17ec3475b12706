/* dmtp/address: which forms are addresses, and which of them are equal. */
#include "dmtp_test.h"

#include "dmtp/address.h"

#define L63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"
#define D253 \
	L63 "." L63 "." L63 ".abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghi"

static const struct {
	const char *in, *text; /* NULL: no address */
} table[] = {
	{ "anna@example.org", "anna@example.org" },
	{ "Anna.B@example.org", "anna.b@example.org" },
	{ "a@b", "a@b" },
	{ "j\xc3\xbcrg@example.org", "j\xc3\xbcrg@example.org" },
	{ "J\xc3\x9cRG@example.org",
	  "j\xc3\x9crg@example.org" }, /* only ASCII is lower-cased */
	{ "\xe6\x9d\x8e@xn--fsqu00a.xn--0zwm56d", "\xe6\x9d\x8e@xn--fsqu00a.xn--0zwm56d" },
	{ "a+b!#$%&'*/=?^_`{|}~\"\\@example.org", "a+b!#$%&'*/=?^_`{|}~\"\\@example.org" },
	{ L63 "x@"
	      "example.org",
	  L63 "x@"
	      "example.org" },
	{ "a@" L63 ".org", "a@" L63 ".org" },
	{ "a@" D253, "a@" D253 },
	{ "a@1.2.3.example", "a@1.2.3.example" },
	{ "a@b-c.d--e", "a@b-c.d--e" },
	{ "", NULL },
	{ "@", NULL },
	{ "anna", NULL },
	{ "@example.org", NULL },
	{ "anna@", NULL },
	{ "an@na@example.org", NULL },
	{ "an na@example.org", NULL },
	{ "an\tna@example.org", NULL },
	{ "an\x7fna@example.org", NULL },
	{ "an\xc2\x85na@example.org", NULL },     /* a C1 control */
	{ "an\xc2\xa0na@example.org", NULL },     /* a space that does not break */
	{ "an\xe2\x80\xa8na@example.org", NULL }, /* a line separator */
	{ "ju\xcc\x88rg@example.org", NULL },     /* u and a diaeresis: not composed */
	{ "H\xcc\xb1@example.org", NULL },        /* NFC, but not when lower-cased */
	{ "\xff@example.org", NULL },
	{ "j\xc3@example.org", NULL },
	{ L63 "xx@"
	      "example.org",
	  NULL },
	{ "a@" L63 "x.org", NULL },
	{ "a@x" D253, NULL },
	{ "anna@Example.org", NULL }, /* on the wire domains are lower-case */
	{ "anna@m\xc3\xbcnchen.example", NULL },
	{ "anna@example.org.", NULL },
	{ "anna@.example.org", NULL },
	{ "anna@a..b", NULL },
	{ "anna@-a.org", NULL },
	{ "anna@a-.org", NULL },
	{ "anna@a_b.org", NULL },
	{ "anna@192.0.2.1", NULL },
	{ "anna@[192.0.2.1]", NULL },
	{ "anna@xn--.org", NULL },
	{ " anna@example.org", NULL },
};

static void
test_table_of_addresses_on_the_wire(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice in = flush_copy(slice_str(table[i].in));
		struct dmtp_address a = { .len = 77 };
		enum dmtp_address_rc rc = dmtp_address_parse(in, &a);

		if ((rc == DMTP_ADDRESS_OK) != (table[i].text != NULL))
			fail_msg("\"%s\"", table[i].in);
		if (table[i].text != NULL) {
			assert_string_equal(a.text, table[i].text);
			assert_int_equal(a.len, strlen(a.text));
		} else {
			assert_int_equal(a.len, 77); /* untouched */
		}
		flush_free(in);
	}
}

static void
test_nul_is_a_control(void **state)
{
	struct dmtp_address a;

	(void)state;
	assert_int_equal(dmtp_address_parse(slice_mem("a\0b@c.org", 9), &a), DMTP_ADDRESS_BAD);
	assert_int_equal(dmtp_address_parse(slice_mem("a@c\0.org", 8), &a), DMTP_ADDRESS_BAD);
}

static void
test_parts_and_equality(void **state)
{
	struct dmtp_address a, b;

	(void)state;
	assert_int_equal(dmtp_address_parse(SLICE("Anna@example.org"), &a), DMTP_ADDRESS_OK);
	assert_int_equal(dmtp_address_parse(SLICE("anna@example.org"), &b), DMTP_ADDRESS_OK);
	assert_true(dmtp_address_eq(&a, &b));
	assert_slice(dmtp_address_local(&a), "anna");
	assert_slice(dmtp_address_domain(&a), "example.org");
	assert_int_equal(dmtp_address_parse(SLICE("anne@example.org"), &b), DMTP_ADDRESS_OK);
	assert_false(dmtp_address_eq(&a, &b));
	assert_slice(dmtp_domain_of(SLICE("a@b@c")), "c");
	assert_slice(dmtp_domain_of(SLICE("a@")), "");
	assert_slice(dmtp_domain_of(SLICE("abc")), "");
}

static void
test_channel_addresses_split_and_join(void **state)
{
	static const char *const not_channels[] = { "shop@example.org", "a.b.c@example.org",
		                                    ".shop@example.org", "orders.@example.org",
		                                    "or_ders.shop@example.org" };
	struct dmtp_address a, b;
	struct slice channel = SLICE("kept"), site = SLICE("kept");

	(void)state;
	assert_int_equal(dmtp_address_parse(SLICE("orders-2.shop@example.org"), &a),
	                 DMTP_ADDRESS_OK);
	for (size_t i = 0; i < COUNT(not_channels); i++) {
		assert_int_equal(dmtp_address_parse(slice_str(not_channels[i]), &b),
		                 DMTP_ADDRESS_OK);
		assert_false(dmtp_address_channel(&b, &channel, &site));
		assert_slice(channel, "kept");
	}
	assert_true(dmtp_address_channel(&a, &channel, &site));
	assert_slice(channel, "orders-2");
	assert_slice(site, "shop");
	assert_int_equal(dmtp_address_make(channel, site, SLICE("example.org"), &b),
	                 DMTP_ADDRESS_OK);
	assert_true(dmtp_address_eq(&a, &b));
	assert_int_equal(dmtp_address_make(SLICE(""), site, SLICE("example.org"), &b),
	                 DMTP_ADDRESS_OK);
	assert_string_equal(b.text, "shop@example.org");
	assert_int_equal(dmtp_address_make(SLICE("A"), site, SLICE("example.org"), &b),
	                 DMTP_ADDRESS_BAD);
	assert_int_equal(dmtp_address_make(channel, SLICE(""), SLICE("example.org"), &b),
	                 DMTP_ADDRESS_BAD);
	assert_int_equal(dmtp_address_make(channel, site, SLICE("Example.org"), &b),
	                 DMTP_ADDRESS_BAD);
}

static void
test_what_people_enter_is_normalised(void **state)
{
	static const struct {
		const char *in, *text;
	} entered[] = {
		{ " Anna@Example.ORG\r\n", "anna@example.org" },
		{ "ju\xcc\x88rg@example.org", "j\xc3\xbcrg@example.org" },
		{ "anna@M\xc3\xbcnchen.example", "anna@xn--mnchen-3ya.example" },
		{ "anna@stra\xc3\x9f"
		  "e.example",
		  "anna@xn--strae-oqa.example" },
		{ "\tanna@xn--mnchen-3ya.example ", "anna@xn--mnchen-3ya.example" },
		{ "anna", NULL },
		{ "", NULL },
		{ "  ", NULL },
		{ "an na@example.org", NULL },
		{ "anna@exa mple.org", NULL },
		{ "anna@ example.org", NULL },
		{ "anna @example.org", NULL },
		{ "anna@\xff.org", NULL },
		{ "\xff@example.org", NULL },
		{ "anna@-\xc3\xbc.org", NULL },
		{ "anna@\xe2\x98\xba\xef\xb8\x8f..org", NULL },
		{ L63 "xx@example.org", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(entered); i++) {
		struct slice in = flush_copy(slice_str(entered[i].in));
		struct dmtp_address a, again;
		enum dmtp_address_rc rc = dmtp_address_normalise(in, &a);

		if ((rc == DMTP_ADDRESS_OK) != (entered[i].text != NULL))
			fail_msg("\"%s\"", entered[i].in);
		if (entered[i].text != NULL) {
			assert_string_equal(a.text, entered[i].text);
			assert_int_equal(dmtp_address_parse(dmtp_address_slice(&a), &again),
			                 DMTP_ADDRESS_OK);
			assert_true(dmtp_address_eq(&a, &again));
		}
		flush_free(in);
	}
}

static void
test_the_longest_local_parts(void **state)
{
	/* 32 times U+1E9B U+0323, which decompose and recompose: 160 octets */
	char text[400] = "";
	struct dmtp_address a;

	(void)state;
	for (int i = 0; i < 12; i++)
		strcat(text, "\xe1\xba\x9b\xcc\xa3");
	strcat(text, "@example.org"); /* 60 octets, already in form C */
	assert_int_equal(dmtp_address_parse(slice_str(text), &a), DMTP_ADDRESS_OK);
	text[0] = '\0';
	for (int i = 0; i < 70; i++) /* longer than any local part, composed or not */
		strcat(text, "u\xcc\x88");
	strcat(text, "@example.org");
	assert_int_equal(dmtp_address_normalise(slice_str(text), &a), DMTP_ADDRESS_BAD);
	text[0] = '\0';
	for (int i = 0; i < 32; i++) /* 96 octets that compose to 64 */
		strcat(text, "u\xcc\x88");
	strcat(text, "@example.org");
	assert_int_equal(dmtp_address_normalise(slice_str(text), &a), DMTP_ADDRESS_OK);
	assert_int_equal(a.local_len, 64);
}

static void
test_ids_are_printable_ascii(void **state)
{
	(void)state;
	assert_true(dmtp_id_valid(SLICE("a")));
	assert_true(dmtp_id_valid(SLICE("a b~")));
	assert_true(dmtp_id_valid(SLICE(L63 "x")));
	assert_false(dmtp_id_valid(SLICE("")));
	assert_false(dmtp_id_valid(SLICE(L63 "xy")));
	assert_false(dmtp_id_valid(SLICE("a\n")));
	assert_false(dmtp_id_valid(SLICE("a\x7f")));
	assert_false(dmtp_id_valid(SLICE("\xc3\xbc")));
}

static void
test_form_c_is_told(void **state)
{
	(void)state;
	assert_true(dmtp_text_is_nfc(SLICE("")));
	assert_true(dmtp_text_is_nfc(SLICE("abc")));
	assert_true(dmtp_text_is_nfc(SLICE("\xc3\xbc")));
	assert_false(dmtp_text_is_nfc(SLICE("u\xcc\x88")));
	assert_false(
	    dmtp_text_is_nfc(SLICE("\xe2\x84\xab"))); /* the angstrom sign is a letter */
	assert_false(dmtp_text_is_nfc(SLICE("\xff")));
	assert_false(dmtp_text_is_nfc(SLICE("a\xcc\x88\xcc\xa3"))); /* marks out of order */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_of_addresses_on_the_wire),
		cmocka_unit_test(test_nul_is_a_control),
		cmocka_unit_test(test_parts_and_equality),
		cmocka_unit_test(test_channel_addresses_split_and_join),
		cmocka_unit_test(test_what_people_enter_is_normalised),
		cmocka_unit_test(test_the_longest_local_parts),
		cmocka_unit_test(test_ids_are_printable_ascii),
		cmocka_unit_test(test_form_c_is_told),
	};

	return RUN(tests);
}
