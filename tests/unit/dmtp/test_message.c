/* dmtp/message: canonical messages, digests, signatures. */
#include "dmtp_test.h"

#include "dmtp/message.h"

#include <sodium.h>

#define SALT "0123456789abcdef"
#define MESSAGE_TAIL "4:from14:shop@a.example4:salt16:" SALT "2:to21:orders.shop@a.examplee"
#define WITH_FIELDS(fields) "d4:datei1800000000e6:fieldsl" fields "e" MESSAGE_TAIL
#define SUBJECT "d4:data5:Hello4:name7:subject4:type10:text/plaine"

static const struct dmtp_message head = { .from = { (const uint8_t *)"shop@a.example", 14 },
	                                  .to = { (const uint8_t *)"orders.shop@a.example",
	                                          21 },
	                                  .date = 1800000000,
	                                  .salt = SALT };

static void
test_message_is_written_as_it_is_read(void **state)
{
	struct dmtp_field fields[] = {
		{ .name = DMTP_SUBJECT, .type = SLICE("text/plain"), .data = SLICE("Hello") },
		{ .name = DMTP_MESSAGE,
		  .type = SLICE("text/html; charset=utf-8"),
		  .lang = SLICE("de-CH"),
		  .data = SLICE("<p>Gr\xc3\xbczi</p>") },
		{ .name = DMTP_ATTACHMENT,
		  .type = SLICE("image/png"),
		  .large = true,
		  .size = 9,
		  .digest = SLICE(DIGEST_D),
		  .uris = SLICE("19:https://a.example/x") },
		{ .name = DMTP_ACTION,
		  .type = SLICE("text/uri-list"),
		  .data = SLICE("https://a.example/t") },
	};
	struct dmtp_message back;
	struct dmtp_field f;
	struct ben_reader it;
	struct buffer b;
	struct slice flush;

	(void)state;
	buffer_init(&b, 10000);
	assert_int_equal(dmtp_message_encode(&head, fields, COUNT(fields), &b),
	                 DMTP_MESSAGE_OK);
	assert_slice(
	    buffer_slice(&b),
	    WITH_FIELDS(
		SUBJECT
		"d4:data13:<p>Gr\xc3\xbczi</p>4:lang5:de-CH4:name7:message4:type24:text/html; "
		"charset=utf-8ed6:digest32:" DIGEST_D
		"4:name10:attachment4:sizei9e4:type9:image/png4:urisl"
		"19:https://a.example/xeed4:data19:https://a.example/t4:name6:action4:type13:text/uri-liste"));
	assert_prefixes_ask_for_more(buffer_slice(&b));
	flush = flush_copy(buffer_slice(&b));
	assert_int_equal(dmtp_message_decode(flush, &back), DMTP_MESSAGE_OK);
	assert_slice(back.from, "shop@a.example");
	assert_slice(back.to, "orders.shop@a.example");
	assert_true(back.date == 1800000000);
	assert_memory_equal(back.salt, SALT, 16);
	assert_int_equal(back.field_count, 4);
	ben_reader_init(&it, back.fields);
	assert_true(dmtp_field_next(&it, &f));
	assert_int_equal(f.name, DMTP_SUBJECT);
	assert_slice(f.data, "Hello");
	assert_true(dmtp_field_next(&it, &f));
	assert_slice(f.lang, "de-CH");
	assert_true(dmtp_field_next(&it, &f));
	assert_true(f.large);
	assert_int_equal(f.size, 9);
	assert_slice(f.digest, DIGEST_D);
	assert_true(dmtp_field_next(&it, &f));
	assert_int_equal(f.name, DMTP_ACTION);
	assert_false(dmtp_field_next(&it, &f));
	assert_false(it.bad);
	flush_free(flush);
	buffer_free(&b);
}

static void
test_good_messages(void **state)
{
	static const char *const table[] = {
		WITH_FIELDS(SUBJECT),
		WITH_FIELDS("d4:data0:4:name7:message4:type10:text/plaine"),
		WITH_FIELDS("d4:data2:\xff\xff"
		            "4:name7:message4:type15:application/pdfe"),
		WITH_FIELDS("d4:data2:\xff\xff"
		            "4:name10:attachment4:type3:a/be"),
		WITH_FIELDS("d4:name5:novel4:type3:a/be" SUBJECT), /* passed over */
		WITH_FIELDS("d4:data1:x5:extrai1e4:name7:subject4:type3:a/be"),
		"d4:datei-5e5:extrale6:fieldsl" SUBJECT "e" MESSAGE_TAIL,
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice s = flush_copy(slice_str(table[i]));
		struct dmtp_message m;

		if (dmtp_message_decode(s, &m) != DMTP_MESSAGE_OK)
			fail_msg("%s", table[i]);
		flush_free(s);
	}
}

static void
test_bad_messages(void **state)
{
	static const char *const table[] = {
		"",
		"de",
		"le",
		WITH_FIELDS(""),
		WITH_FIELDS("d4:data1:x4:name6:action4:type3:a/be"), /* nothing to read */
		WITH_FIELDS("d4:name5:novel4:type3:a/be"),
		WITH_FIELDS(SUBJECT) "x",
		"d4:datei01e6:fieldsl" SUBJECT "e" MESSAGE_TAIL,
		"d4:date1:16:fieldsl" SUBJECT "e" MESSAGE_TAIL,
		"d6:fieldsl" SUBJECT "e" MESSAGE_TAIL,
		"d4:datei1e" MESSAGE_TAIL,
		"d4:datei1e6:fieldsl" SUBJECT "e4:from1:x4:salt16:" SALT "2:to5:a@b.ce",
		"d4:datei1e6:fieldsl" SUBJECT "e4:from5:a@b.c4:salt16:" SALT "2:to1:xe",
		"d4:datei1e6:fieldsl" SUBJECT
		"e4:from5:a@b.c4:salt15:0123456789abcde2:to5:a@b.ce",
		"d4:datei1e6:fieldsl" SUBJECT "e4:from5:a@b.c2:to5:a@b.ce",
		"d4:datei1e6:fieldsl" SUBJECT "e4:from5:a@b.c4:salt16:" SALT "e",
		WITH_FIELDS("i1e"),
		WITH_FIELDS("1:x"),
		WITH_FIELDS("de"),
		WITH_FIELDS("d4:data1:x4:type3:a/be"),
		WITH_FIELDS("d4:data1:x4:name7:subjecte"),
		WITH_FIELDS("d4:name7:subject4:type3:a/be"),
		WITH_FIELDS("d4:datai1e4:name7:subject4:type3:a/be"),
		WITH_FIELDS("d4:data1:\xff"
		            "4:name7:subject4:type10:text/plaine"),
		WITH_FIELDS("d4:data1:\xff"
		            "4:name7:message4:type10:text/plaine"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type4:texte"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type5:text/e"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type2:/ae"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type0:e"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type5:a/b ce"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:type5:a/b;\ne"),
		WITH_FIELDS("d4:data1:x4:lang0:4:name7:subject4:type3:a/be"),
		WITH_FIELDS("d4:data1:x4:lang2:d\xc3"
		            "4:name7:subject4:type3:a/be"),
		/* large attachments: all three or none, and no data; no other field is large */
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name10:attachment4:type3:a/b4:urisl1:uee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name10:attachment4:sizei0e4:type3:a/b4:urisl1:uee"),
		WITH_FIELDS(
		    "d6:digest31:ddddddddddddddddddddddddddddddd4:name10:attachment4:sizei1e4:type3:a/b4:urisl1:uee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name10:attachment4:sizei1e4:type3:a/b4:urislee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name10:attachment4:sizei1e4:type3:a/b4:urisl0:ee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name10:attachment4:sizei1e4:type3:a/b4:urisli1eee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D "4:name10:attachment4:sizei1e4:type3:a/be"),
		WITH_FIELDS("d4:data1:x6:digest32:" DIGEST_D
		            "4:name10:attachment4:sizei1e4:type3:a/b4:urisl1:uee"),
		WITH_FIELDS("d6:digest32:" DIGEST_D
		            "4:name7:message4:sizei1e4:type3:a/b4:urisl1:uee"),
		WITH_FIELDS("d4:data1:x4:name7:subject4:sizei1e4:type3:a/be"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice s = flush_copy(slice_str(table[i]));
		struct dmtp_message m = { .field_count = 77 };

		if (dmtp_message_decode(s, &m) != DMTP_MESSAGE_BAD)
			fail_msg("%zu: %s", i, table[i]);
		assert_int_equal(m.field_count, 77);
		flush_free(s);
	}
}

static void
test_every_prefix_of_a_message_is_none(void **state)
{
	struct slice whole = SLICE(WITH_FIELDS(SUBJECT));

	(void)state;
	for (size_t n = 0; n < whole.len; n++) {
		struct slice cut = flush_copy(slice_mem(whole.data, n));
		struct dmtp_message m;

		assert_int_equal(dmtp_message_decode(cut, &m), DMTP_MESSAGE_BAD);
		flush_free(cut);
	}
}

static void
test_what_could_not_be_read_is_not_written(void **state)
{
	struct dmtp_field good = { .name = DMTP_SUBJECT,
		                   .type = SLICE("text/plain"),
		                   .data = SLICE("x") };
	struct dmtp_field bad = good;
	struct dmtp_message m = head;
	struct buffer b;

	(void)state;
	buffer_init(&b, 10000);
	buffer_add_str(&b, "before");
	assert_int_equal(dmtp_message_encode(&m, &good, 0, &b), DMTP_MESSAGE_BAD);
	bad.type = SLICE("text");
	assert_int_equal(dmtp_message_encode(&m, &bad, 1, &b), DMTP_MESSAGE_BAD);
	bad = good;
	bad.data = SLICE("\xff");
	assert_int_equal(dmtp_message_encode(&m, &bad, 1, &b), DMTP_MESSAGE_BAD);
	m.to = SLICE("nobody");
	assert_int_equal(dmtp_message_encode(&m, &good, 1, &b), DMTP_MESSAGE_BAD);
	assert_slice(buffer_slice(&b), "before");
	buffer_free(&b);
	buffer_init(&b, 60); /* too small */
	assert_int_equal(dmtp_message_encode(&head, &good, 1, &b), DMTP_MESSAGE_BAD);
	assert_true(b.failed);
	buffer_free(&b);
}

static void
test_check_tells_what_does_not_fit(void **state)
{
	struct slice octets = SLICE(WITH_FIELDS(SUBJECT)), junk = SLICE("de");
	uint8_t digest[32], junk_digest[32];
	struct dmtp_expected good, e;
	struct dmtp_message m;

	(void)state;
	assert_true(dmtp_digest(octets, digest));
	assert_true(dmtp_digest(junk, junk_digest));
	good = (struct dmtp_expected){ .size = (int64_t)octets.len,
		                       .digest = slice_mem(digest, 32),
		                       .from = SLICE("Shop@a.example"),
		                       .date = 1800000000,
		                       .to = SLICE("Orders.Shop@a.example") };
	assert_int_equal(dmtp_message_check(octets, &good, &m), DMTP_MESSAGE_OK);
	assert_int_equal(m.field_count, 1);
	e = good;
	e.size++;
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_SIZE);
	e = good;
	e.size = -1;
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_SIZE);
	e = good;
	e.digest = SLICE(DIGEST_D);
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_DIGEST);
	e = good;
	e.digest.len = 31;
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_DIGEST);
	e = good;
	e.size = 2;
	e.digest = slice_mem(junk_digest, 32);
	assert_int_equal(dmtp_message_check(junk, &e, &m), DMTP_MESSAGE_BAD);
	e = good;
	e.from = SLICE("shop@b.example");
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_FROM);
	e = good;
	e.date++;
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_DATE);
	e = good;
	e.to = SLICE("anna@b.example");
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_TO);
	e.to = SLICE("no address");
	assert_int_equal(dmtp_message_check(octets, &e, &m), DMTP_MESSAGE_TO);
	for (int i = 0; i <= DMTP_MESSAGE_SIGNATURE; i++)
		assert_true(strlen(dmtp_message_rc_name((enum dmtp_message_rc)i)) > 0);
}

static void
test_digest_is_sha256(void **state)
{
	static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
		                         0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
		                         0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
		                         0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	uint8_t digest[32];

	(void)state;
	assert_true(dmtp_digest(SLICE("abc"), digest));
	assert_memory_equal(digest, abc, 32);
}

static void
test_message_signatures(void **state)
{
	uint8_t pk[32], sk[64], seed[32] = { 1 }, digest[32] = { 2 }, sig[64], text[47];

	(void)state;
	crypto_sign_seed_keypair(pk, sk, seed);
	dmtp_message_sign(digest, sk, sig);
	assert_true(dmtp_message_verify(digest, slice_mem(sig, 64), pk));
	/* what is signed: the label, a NUL, the digest */
	memcpy(text, "DMTP/1 message\0", 15);
	memcpy(text + 15, digest, 32);
	assert_int_equal(crypto_sign_verify_detached(sig, text, 47, pk), 0);
	assert_false(dmtp_message_verify(digest, slice_mem(sig, 63), pk));
	sig[0] ^= 1;
	assert_false(dmtp_message_verify(digest, slice_mem(sig, 64), pk));
	sig[0] ^= 1;
	digest[31] ^= 1;
	assert_false(dmtp_message_verify(digest, slice_mem(sig, 64), pk));
}

static void
test_auth_signatures(void **state)
{
	uint8_t pk[32], sk[64], seed[32] = { 3 }, exporter[32] = { 4 }, sig[64],
				text[12 + 32 + 1 + 2 + 1];
	char longest[254];

	(void)state;
	crypto_sign_seed_keypair(pk, sk, seed);
	assert_true(dmtp_auth_sign(exporter, SLICE("a"), SLICE("b"), sk, sig));
	assert_true(dmtp_auth_verify(exporter, SLICE("a"), SLICE("b"), slice_mem(sig, 64), pk));
	memcpy(text, "DMTP/1 auth\0", 12);
	memcpy(text + 12, exporter, 32);
	memcpy(text + 44, "a\0b", 3);
	assert_int_equal(crypto_sign_verify_detached(sig, text, 47, pk), 0);
	/* neither the domains' places nor their boundary can be moved */
	assert_false(
	    dmtp_auth_verify(exporter, SLICE("b"), SLICE("a"), slice_mem(sig, 64), pk));
	assert_false(
	    dmtp_auth_verify(exporter, SLICE("a"), SLICE("c"), slice_mem(sig, 64), pk));
	assert_false(
	    dmtp_auth_verify(exporter, SLICE("a"), SLICE("b"), slice_mem(sig, 10), pk));
	exporter[0]++;
	assert_false(
	    dmtp_auth_verify(exporter, SLICE("a"), SLICE("b"), slice_mem(sig, 64), pk));
	memset(longest, 'a', sizeof(longest));
	assert_true(dmtp_auth_sign(exporter, slice_mem(longest, 253), slice_mem(longest, 253),
	                           sk, sig));
	assert_true(dmtp_auth_verify(exporter, slice_mem(longest, 253), slice_mem(longest, 253),
	                             slice_mem(sig, 64), pk));
	assert_false(dmtp_auth_sign(exporter, slice_mem(longest, 254), SLICE("b"), sk, sig));
	assert_false(dmtp_auth_sign(exporter, SLICE(""), SLICE("b"), sk, sig));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message_is_written_as_it_is_read),
		cmocka_unit_test(test_good_messages),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_every_prefix_of_a_message_is_none),
		cmocka_unit_test(test_what_could_not_be_read_is_not_written),
		cmocka_unit_test(test_check_tells_what_does_not_fit),
		cmocka_unit_test(test_digest_is_sha256),
		cmocka_unit_test(test_message_signatures),
		cmocka_unit_test(test_auth_signatures),
	};

	return sodium_init() < 0 ? 1 : RUN(tests);
}
