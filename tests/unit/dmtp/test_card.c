/* dmtp/card.h: what is a card, what is none, and what follows from one. */
#include "dmtp_test.h"

#include "dmtp/card.h"
#include "dmtp/message.h"

#include <sodium.h>

#define KEY_43 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

static enum dmtp_card_rc
decode(const char *text, struct dmtp_card **out)
{
	struct slice octets = flush_copy(slice_str(text));
	enum dmtp_card_rc rc = dmtp_card_decode(octets, out);

	flush_free(octets);
	return rc;
}

static struct dmtp_card *
card_of(const char *text)
{
	struct dmtp_card *card;

	assert_int_equal(decode(text, &card), DMTP_CARD_OK);
	return card;
}

static void
test_a_whole_card(void **state)
{
	struct dmtp_card *card = card_of(
	    "{\"dmtp\": 1, \"name\": \"Th\xc3\xa9 Shop\", \"icon\": \"https://a.example/i.png\","
	    " \"hosts\": [\"cdn.a.example\"], \"signed\": 1, \"other\": {},"
	    " \"keys\": [{\"id\": \"k1\", \"ed25519\": \"" KEY_43
	    "\", \"from\": 10, \"until\": 20}]}");

	(void)state;
	assert_string_equal(card->name, "Th\xc3\xa9 Shop");
	assert_string_equal(card->icon, "https://a.example/i.png");
	assert_true(card->signed_only);
	assert_true(dmtp_card_has_host(card, SLICE("cdn.a.example")));
	assert_false(dmtp_card_has_host(card, SLICE("a.example")));
	assert_int_equal(card->keys_n, 1);
	assert_int_equal(card->keys[0].public_key[31], 31);
	assert_true(dmtp_card_key_counts(card, SLICE("k1"), 10));
	assert_true(dmtp_card_key_counts(card, SLICE("k1"), 19));
	assert_false(dmtp_card_key_counts(card, SLICE("k1"), 9));
	assert_false(dmtp_card_key_counts(card, SLICE("k1"), 20));
	assert_false(dmtp_card_key_counts(card, SLICE("k2"), 10));
	dmtp_card_free(&card);
	assert_null(card);
}

static void
test_what_is_no_card(void **state)
{
	static const char *const none[] = {
		"",
		"<!doctype html>",
		"[]",
		"1",
		"{",
		"{}",
		"{\"dmtp\": 2}",
		"{\"dmtp\": \"1\"}",
		"{\"dmtp\": 1} x",
		"{\"dmtp\": 1, \"dmtp\": 1}",
		"{\"dmtp\": 1, \"name\": \"\\u0000\"}",
	};
	static const char *const bad[] = {
		"{\"dmtp\": 1, \"signed\": 2}",     "{\"dmtp\": 1, \"signed\": -1}",
		"{\"dmtp\": 1, \"signed\": \"1\"}", "{\"dmtp\": 1, \"signed\": null}",
		"{\"dmtp\": 1, \"hosts\": {}}",     "{\"dmtp\": 1, \"keys\": \"k\"}",
		"{\"dmtp\": 1, \"keys\": null}",
	};
	struct dmtp_card *card;

	(void)state;
	for (size_t i = 0; i < COUNT(none); i++)
		if (decode(none[i], &card) != DMTP_CARD_NONE || card != NULL)
			fail_msg("a card: %s", none[i]);
	for (size_t i = 0; i < COUNT(bad); i++)
		if (decode(bad[i], &card) != DMTP_CARD_BAD || card != NULL)
			fail_msg("not bad: %s", bad[i]);
}

static void
test_keys_and_hosts_that_are_none_are_passed_over(void **state)
{
	struct dmtp_card *card = card_of(
	    "{\"dmtp\": 1, \"name\": 5, \"icon\": \"http://a.example/i.png\", \"signed\": false,"
	    " \"hosts\": [\"A.example\", 1, \"127.0.0.1\", \"a_b\", \"c.example\", \"\"],"
	    " \"keys\": [1, {}, {\"id\": \"a\", \"ed25519\": \"short\", \"from\": 1, \"until\": 2},"
	    " {\"id\": \"b\", \"ed25519\": \"" KEY_43 "=\", \"from\": 1, \"until\": 2},"
	    " {\"id\": \"c\", \"ed25519\": \"" KEY_43 "\", \"from\": 1.5, \"until\": 2},"
	    " {\"id\": \"\", \"ed25519\": \"" KEY_43 "\", \"from\": 1, \"until\": 2},"
	    " {\"id\": \"d\", \"ed25519\": \"" KEY_43 "\", \"from\": 1, \"until\": 2},"
	    " {\"id\": \"d\", \"ed25519\": \"" KEY_43 "\", \"from\": 1, \"until\": 9}]}");

	(void)state;
	assert_null(card->name);
	assert_null(card->icon);
	assert_false(card->signed_only);
	assert_int_equal(card->hosts_n, 1);
	assert_string_equal(card->hosts[0], "c.example");
	assert_int_equal(card->keys_n, 1);
	assert_int_equal(card->keys[0].until, 2); /* the first of an id */
	dmtp_card_free(&card);
}

static char *
name_of(const char *name)
{
	struct dmtp_card *card;
	char text[1024], *out;

	(void)snprintf(text, sizeof(text), "{\"dmtp\": 1, \"name\": \"%s\"}", name);
	card = card_of(text);
	out = card->name;
	card->name = NULL;
	dmtp_card_free(&card);
	return out;
}

/* Characters are code points, of one octet or of four. */
static void
test_a_name_has_at_most_100_characters(void **state)
{
	static const char *const characters[] = { "a", "\xc3\xa9", "\xf0\x9f\x92\x8c" };
	char text[4 * (DMTP_CARD_NAME + 1) + 1], *name;

	(void)state;
	for (size_t i = 0; i < COUNT(characters); i++) {
		text[0] = '\0';
		for (int n = 0; n < DMTP_CARD_NAME; n++)
			strcat(text, characters[i]);
		name = name_of(text);
		assert_non_null(name);
		assert_string_equal(name, text);
		free(name);
		strcat(text, characters[i]);
		assert_null(name_of(text));
	}
	assert_null(name_of("a\\u0007b"));
	assert_null(name_of(""));
}

static void
test_an_icon_is_over_https(void **state)
{
	static const char *const none[] = { "http://a.example/i.png", "//a.example/i.png",
		                            "javascript:alert(1)",
		                            "data:image/png;base64,AA==" };
	struct dmtp_card *card;
	char text[256];

	(void)state;
	for (size_t i = 0; i < COUNT(none); i++) {
		(void)snprintf(text, sizeof(text),
		               "{\"dmtp\": 1, \"name\": \"A\", \"icon\": \"%s\"}", none[i]);
		card = card_of(text);
		assert_null(card->icon);
		assert_string_equal(card->name, "A");
		dmtp_card_free(&card);
	}
}

/* Numbers of a stranger's choosing allocate nothing beyond what is read. */
static void
test_bounds(void **state)
{
	struct buffer b;
	struct dmtp_card *card;

	(void)state;
	buffer_init(&b, 1 << 20);
	buffer_add_str(&b, "{\"dmtp\": 1, \"hosts\": [\"a.example\"");
	for (int i = 0; i < 4000; i++)
		buffer_add_fmt(&b, ",\"h%d.a\"", i);
	buffer_add_str(&b, "]}");
	assert_int_equal(dmtp_card_decode(buffer_slice(&b), &card), DMTP_CARD_OK);
	assert_int_equal(card->hosts_n, DMTP_CARD_HOSTS);
	dmtp_card_free(&card);
	while (b.len <= DMTP_CARD_MAX)
		buffer_add_u8(&b, ' ');
	assert_int_equal(dmtp_card_decode(buffer_slice(&b), &card), DMTP_CARD_BAD);
	buffer_clear(&b);
	for (int i = 0; i < 60000; i++)
		buffer_add_u8(&b, '[');
	assert_int_equal(dmtp_card_decode(buffer_slice(&b), &card), DMTP_CARD_NONE);
	buffer_free(&b);
}

static void
fill(struct dmtp_card *card, size_t keys)
{
	card->name = strdup("\"quoted\"\n");
	card->keys = calloc(keys, sizeof(*card->keys));
	for (; card->keys_n < keys; card->keys_n++) {
		struct dmtp_card_key *k = &card->keys[card->keys_n];

		(void)snprintf(k->id, sizeof(k->id), "key-%060zu", card->keys_n);
		memset(k->public_key, (int)card->keys_n, sizeof(k->public_key));
		k->from = INT64_MIN;
		k->until = INT64_MAX;
	}
}

static void
test_what_is_written_is_read_and_the_oldest_keys_give_way(void **state)
{
	for (size_t keys = 0; keys <= 512; keys += 64) {
		struct dmtp_card *card = dmtp_card_make(), *again;
		struct buffer b;

		(void)state;
		fill(card, keys);
		card->signed_only = keys > 64;
		buffer_init(&b, DMTP_CARD_MAX);
		assert_true(dmtp_card_encode(card, &b));
		assert_true(b.len <= DMTP_CARD_MAX);
		assert_int_equal(dmtp_card_decode(buffer_slice(&b), &again), DMTP_CARD_OK);
		assert_int_equal(again->signed_only, card->signed_only);
		assert_true(again->keys_n == keys || (keys >= 320 && again->keys_n >= 180));
		for (size_t i = 0; i < again->keys_n; i++)
			assert_memory_equal(&again->keys[i], &card->keys[i],
			                    sizeof(again->keys[i]));
		buffer_free(&b);
		dmtp_card_free(&card);
		dmtp_card_free(&again);
	}
}

/* --- judging ------------------------------------------------------------------------ */

struct signer {
	struct dmtp_card *card;
	uint8_t secret[64], digest[32], signature[64];
};

static struct signer
signer_make(bool signed_only)
{
	struct signer s = { .card = dmtp_card_make() };
	uint8_t seed[32] = { 3 };

	fill(s.card, 1);
	s.card->signed_only = signed_only;
	(void)snprintf(s.card->keys[0].id, sizeof(s.card->keys[0].id), "k");
	s.card->keys[0].from = 100;
	s.card->keys[0].until = 200;
	(void)crypto_sign_seed_keypair(s.card->keys[0].public_key, s.secret, seed);
	memset(s.digest, 'd', sizeof(s.digest));
	dmtp_message_sign(s.digest, s.secret, s.signature);
	return s;
}

static void
test_signatures_are_judged(void **state)
{
	const struct slice none = { NULL, 0 };

	(void)state;
	for (int demanded = 0; demanded < 2; demanded++) {
		struct signer s = signer_make(demanded == 1);
		struct slice good = slice_mem(s.signature, 64);

		assert_int_equal(dmtp_card_judge(s.card, s.digest, none, none, 150),
		                 demanded ? DMTP_CARD_UNSIGNED : DMTP_CARD_GOOD);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"), good, 100),
		                 DMTP_CARD_GOOD);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"), good, 199),
		                 DMTP_CARD_GOOD);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"), good, 99),
		                 DMTP_CARD_KEY_ENDED);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"), good, 200),
		                 DMTP_CARD_KEY_ENDED);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("K"), good, 150),
		                 DMTP_CARD_NO_KEY);
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"),
		                                 slice_mem(s.signature, 63), 150),
		                 DMTP_CARD_FORGED);
		s.digest[0] ^= 1;
		assert_int_equal(dmtp_card_judge(s.card, s.digest, SLICE("k"), good, 150),
		                 DMTP_CARD_FORGED);
		dmtp_card_free(&s.card);
	}
}

/* Of a.example to b.example, not signed yet; borrows both. */
static struct dmtp_card_auth
proof_by(const struct signer *s, const uint8_t *exporter)
{
	return (struct dmtp_card_auth){ .exporter = exporter,
		                        .client = SLICE("a.example"),
		                        .server = SLICE("b.example"),
		                        .key = SLICE("k"),
		                        .signature = slice_mem(s->signature, 64) };
}

static void
test_proofs_are_judged(void **state)
{
	struct signer s = signer_make(false);
	uint8_t exporter[32] = { 7 };
	struct dmtp_card_auth a = proof_by(&s, exporter);
	int64_t until = -1;

	(void)state;
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_FORGED);
	assert_int_equal(until, -1);
	assert_true(dmtp_auth_sign(exporter, a.client, a.server, s.secret, s.signature));
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 200, &until), DMTP_CARD_KEY_ENDED);
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_GOOD);
	assert_int_equal(until, 200);
	a.server = SLICE("a.example");
	a.client = SLICE("b.example");
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_FORGED);
	a.key = SLICE("x");
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_NO_KEY);
	dmtp_card_free(&s.card);
}

static void
test_a_proof_ends_with_its_key_and_after_24_hours(void **state)
{
	struct signer s = signer_make(false);
	uint8_t exporter[32] = { 7 };
	struct dmtp_card_auth a = proof_by(&s, exporter);
	const int64_t day = 24 * 3600;
	int64_t until = -1;

	(void)state;
	assert_true(dmtp_auth_sign(exporter, a.client, a.server, s.secret, s.signature));
	for (int64_t more = -1; more <= 1; more++) {
		s.card->keys[0].until = 150 + day + more;
		assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_GOOD);
		assert_int_equal(until, 150 + day + (more < 0 ? more : 0));
	}
	s.card->keys[0].until = INT64_MAX;
	assert_int_equal(dmtp_card_judge_auth(s.card, &a, 150, &until), DMTP_CARD_GOOD);
	assert_int_equal(until, 150 + day);
	dmtp_card_free(&s.card);
}

static void
test_a_proof_counts_until_its_end_while_the_newest_card_holds_the_key(void **state)
{
	struct signer s = signer_make(false);

	(void)state;
	/* No card is known any more: the proof's end is what is left. */
	assert_true(dmtp_card_proof_counts(NULL, SLICE("k"), 180, 179));
	assert_false(dmtp_card_proof_counts(NULL, SLICE("k"), 180, 180));
	/* Earlier than the key's end, as after 24 hours. */
	assert_true(dmtp_card_proof_counts(s.card, SLICE("k"), 180, 179));
	assert_false(dmtp_card_proof_counts(s.card, SLICE("k"), 180, 180));
	/* Newer cards: the key ends earlier, and is gone. */
	s.card->keys[0].until = 160;
	assert_true(dmtp_card_proof_counts(s.card, SLICE("k"), 180, 159));
	assert_false(dmtp_card_proof_counts(s.card, SLICE("k"), 180, 160));
	s.card->keys_n = 0;
	assert_false(dmtp_card_proof_counts(s.card, SLICE("k"), 180, 159));
	dmtp_card_free(&s.card);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_whole_card),
		cmocka_unit_test(test_what_is_no_card),
		cmocka_unit_test(test_keys_and_hosts_that_are_none_are_passed_over),
		cmocka_unit_test(test_a_name_has_at_most_100_characters),
		cmocka_unit_test(test_an_icon_is_over_https),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_what_is_written_is_read_and_the_oldest_keys_give_way),
		cmocka_unit_test(test_signatures_are_judged),
		cmocka_unit_test(test_proofs_are_judged),
		cmocka_unit_test(test_a_proof_ends_with_its_key_and_after_24_hours),
		cmocka_unit_test(
		    test_a_proof_counts_until_its_end_while_the_newest_card_holds_the_key),
	};

	return RUN(tests);
}
