/* Holds the library against tests/vectors/ and the specification. Runs in the repository's root. */
#include "dmtp_test.h"

#include "base/text.h"
#include "dmtp/card.h"
#include "dmtp/message.h"
#include "dmtp/server.h"
#include "dmtp/uri.h"

#define FOLDER "tests/vectors/"
#define LINES 64

struct line {
	char key[24];
	struct buffer value; /* unescaped */
};

struct block {
	struct line lines[LINES];
	size_t count;
};

static void
unescape(const char *text, struct buffer *out)
{
	buffer_init(out, 1 << 16);
	for (size_t i = 0; text[i] != '\0'; i++) {
		uint8_t octet;

		if (text[i] == '\\' && text[i + 1] == 'x') {
			assert_true(hex_decode(slice_mem(text + i + 2, 2), &octet, 1));
			buffer_add_u8(out, octet);
			i += 3;
		} else {
			buffer_add_u8(out, (uint8_t)text[i]);
		}
	}
	assert_false(out->failed);
}

static void
block_free(struct block *b)
{
	for (size_t i = 0; i < b->count; i++)
		buffer_free(&b->lines[i].value);
	b->count = 0;
}

/* The next block of f; false at the end. */
static bool
block_read(FILE *f, struct block *b)
{
	static char text[1 << 16];
	char *colon;

	b->count = 0;
	while (fgets(text, sizeof(text), f) != NULL) {
		text[strcspn(text, "\n")] = '\0';
		if (text[0] == '#')
			continue;
		if (text[0] == '\0') {
			if (b->count > 0)
				return true;
			continue;
		}
		colon = strchr(text, ':');
		assert_non_null(colon);
		assert_true(b->count < LINES);
		*colon = '\0';
		(void)snprintf(b->lines[b->count].key, sizeof(b->lines[0].key), "%.20s", text);
		unescape(colon[1] == ' ' ? colon + 2 : colon + 1, &b->lines[b->count].value);
		b->count++;
	}
	return b->count > 0;
}

static bool
has(const struct block *b, const char *key)
{
	for (size_t i = 0; i < b->count; i++)
		if (strcmp(b->lines[i].key, key) == 0)
			return true;
	return false;
}

static struct slice
get(const struct block *b, const char *key)
{
	for (size_t i = 0; i < b->count; i++)
		if (strcmp(b->lines[i].key, key) == 0)
			return buffer_slice(&b->lines[i].value);
	return slice_mem(NULL, 0);
}

static uint64_t
number(const struct block *b, const char *key)
{
	uint64_t n = 0;

	if (!text_parse_u64(get(b, key), UINT64_MAX, &n))
		fail_msg("no number: %s", key);
	return n;
}

static void
expect_text(const struct block *b, const char *key, struct slice found)
{
	struct slice name = get(b, "name"), wanted = get(b, key);

	if (!slice_eq(found, wanted))
		fail_msg("%.*s: %s is \"%.*s\" instead of \"%.*s\"", (int)name.len,
		         (const char *)name.data, key, (int)found.len, (const char *)found.data,
		         (int)wanted.len, (const char *)wanted.data);
}

static void
expect_number(const struct block *b, const char *key, uint64_t found)
{
	if (has(b, key) && number(b, key) != found)
		fail_msg("%s of %.*s is %ju", key, (int)get(b, "name").len,
		         (const char *)get(b, "name").data, (uintmax_t)found);
}

/* Every block of the file through check; there must be some. */
static void
each(const char *file, void (*check)(const struct block *))
{
	static struct block b;
	char path[128];
	size_t n = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), FOLDER "%s", file);
	f = fopen(path, "r");
	if (f == NULL)
		fail_msg("%s can't be read; run this from the repository's root", path);
	for (; block_read(f, &b); n++) {
		check(&b);
		block_free(&b);
	}
	(void)fclose(f);
	assert_true(n > 0);
}

/* --- one check a file --------------------------------------------------------- */

static void
check_element(const struct block *b)
{
	static const char *const names[] = { "ok", "more", "bad", "limit" };
	size_t limit = has(b, "limit") ? (size_t)number(b, "limit") : 1000;
	struct slice octets = flush_copy(get(b, "octets"));

	expect_text(b, "answer", slice_str(names[ben_check(octets, limit)]));
	flush_free(octets);
}

static void
check_command(const struct block *b)
{
	const struct dmtp_limits limits = DMTP_LIMITS_DEFAULT;
	struct slice octets = flush_copy(get(b, "octets"));
	struct dmtp_verdict v = { DMTP_E, DMTP_CODE_NONE, NULL };
	bool verified = !slice_eq_str(get(b, "verified"), "no");
	struct dmtp_command c;
	char answer[64];

	assert_int_equal(ben_check(octets, limits.command_octets), BEN_OK);
	v.code = dmtp_command_decode(octets, &c);
	if (v.code == DMTP_CODE_NONE) {
		v = dmtp_command_check(&c, &limits, verified, (int64_t)number(b, "now"));
		if (has(b, "verb"))
			expect_text(b, "verb", slice_str(dmtp_verb_name(c.verb)));
		if (c.verb == DMTP_POST)
			expect_number(b, "rcpts", c.post.rcpt_count);
	}
	if (v.letter == 0)
		(void)snprintf(answer, sizeof(answer), "pass");
	else if (v.letter == DMTP_K)
		(void)snprintf(answer, sizeof(answer), "K");
	else
		(void)snprintf(answer, sizeof(answer), "%c %s", v.letter,
		               dmtp_code_name(v.code));
	expect_text(b, "answer", slice_str(answer));
	flush_free(octets);
}

static void
check_response(const struct block *b)
{
	struct slice octets = flush_copy(get(b, "octets"));
	struct dmtp_response r;
	uint8_t letter;

	if (has(b, "answer")) {
		assert_int_equal(dmtp_response_decode(octets, &r), DMTP_RESPONSE_BAD);
	} else {
		assert_int_equal(dmtp_response_decode(octets, &r), DMTP_RESPONSE_OK);
		letter = (uint8_t)r.letter;
		expect_text(b, "letter", slice_mem(&letter, 1));
		expect_text(b, "code", r.code_raw);
		expect_number(b, "retry", r.retry_s);
		expect_number(b, "failed", r.failed_count);
		expect_number(b, "channels", ben_count(r.channels) / 2);
		expect_number(b, "events", ben_count(r.events));
		expect_number(b, "rcpts", r.limits.rcpts);
	}
	flush_free(octets);
}

static void
check_greeting(const struct block *b)
{
	struct slice octets = flush_copy(get(b, "octets"));
	struct dmtp_greeting g;

	if (has(b, "answer")) {
		assert_false(dmtp_greeting_decode(octets, &g));
	} else {
		assert_true(dmtp_greeting_decode(octets, &g));
		expect_number(b, "version", (uint64_t)g.version);
		expect_number(b, "rcpts", g.limits.rcpts);
		if (has(b, "tls"))
			expect_text(b, "tls", slice_str(g.tls ? "yes" : "no"));
	}
	flush_free(octets);
}

static void
check_address(const struct block *b)
{
	struct slice octets = flush_copy(get(b, "octets"));
	struct dmtp_address a;

	if (has(b, "answer")) {
		assert_int_equal(dmtp_address_parse(octets, &a), DMTP_ADDRESS_BAD);
	} else {
		assert_int_equal(dmtp_address_parse(octets, &a), DMTP_ADDRESS_OK);
		expect_text(b, "is", dmtp_address_slice(&a));
	}
	flush_free(octets);
}

static void
check_uri(const struct block *b)
{
	struct slice octets = flush_copy(get(b, "octets")), answer = get(b, "answer");
	struct dmtp_uri uri;

	assert_int_equal(dmtp_uri_possible(octets), !slice_eq_str(answer, "bad"));
	assert_int_equal(dmtp_uri_split(octets, &uri), answer.len == 0);
	if (answer.len == 0) {
		expect_text(b, "host", uri.host);
		expect_number(b, "port", uri.port);
	}
	flush_free(octets);
}

static void
check_grant(const struct block *b)
{
	uint8_t grant[20], wanted[20];
	char text[BASE32_LEN(20) + 1];

	if (has(b, "answer")) {
		assert_false(base32_decode(get(b, "text"), grant, sizeof(grant)));
		return;
	}
	assert_true(hex_decode(get(b, "hex"), wanted, sizeof(wanted)));
	assert_true(base32_decode(get(b, "text"), grant, sizeof(grant)));
	assert_memory_equal(grant, wanted, sizeof(grant));
	base32_encode(grant, sizeof(grant), text);
	expect_text(b, "text", slice_str(text));
}

static void
check_message(const struct block *b)
{
	struct slice octets = flush_copy(get(b, "octets"));
	uint8_t digest[32], wanted[32], key[32], signature[64];
	struct dmtp_message m;

	if (has(b, "answer")) {
		assert_int_equal(dmtp_message_decode(octets, &m), DMTP_MESSAGE_BAD);
	} else {
		assert_int_equal(dmtp_message_decode(octets, &m), DMTP_MESSAGE_OK);
		expect_number(b, "fields", m.field_count);
		assert_true(hex_decode(get(b, "digest"), wanted, 32));
		assert_true(hex_decode(get(b, "key"), key, 32));
		assert_true(hex_decode(get(b, "signature"), signature, 64));
		assert_true(dmtp_digest(octets, digest));
		assert_memory_equal(digest, wanted, 32);
		assert_true(dmtp_message_verify(digest, slice_mem(signature, 64), key));
	}
	flush_free(octets);
}

static void
check_auth(const struct block *b)
{
	uint8_t exporter[32], key[32], signature[64] = { 0 };
	size_t len = get(b, "signature").len / 2;

	assert_true(len <= sizeof(signature));
	assert_true(hex_decode(get(b, "exporter"), exporter, 32));
	assert_true(hex_decode(get(b, "key"), key, 32));
	assert_true(hex_decode(get(b, "signature"), signature, len));
	if (dmtp_auth_verify(exporter, get(b, "client"), get(b, "server"),
	                     slice_mem(signature, len), key) == has(b, "answer"))
		fail_msg("judged wrongly: %.*s", (int)get(b, "name").len,
		         (const char *)get(b, "name").data);
}

static void
check_judgement(const struct block *b, const struct dmtp_card *card)
{
	static const char *const words[] = {
		[DMTP_CARD_GOOD] = "good",     [DMTP_CARD_UNSIGNED] = "unsigned",
		[DMTP_CARD_NO_KEY] = "no-key", [DMTP_CARD_KEY_ENDED] = "key-ended",
		[DMTP_CARD_FORGED] = "forged",
	};
	uint8_t digest[32], signature[64];
	struct slice given = { NULL, 0 };

	assert_true(hex_decode(get(b, "digest"), digest, 32));
	if (has(b, "signature")) {
		assert_true(hex_decode(get(b, "signature"), signature, 64));
		given = slice_mem(signature, sizeof(signature));
	}
	expect_text(b, "judged",
	            slice_str(words[dmtp_card_judge(card, digest, get(b, "key"), given,
	                                            (int64_t)number(b, "date"))]));
}

static void
check_card(const struct block *b)
{
	static const char *const words[] = {
		[DMTP_CARD_OK] = "card", [DMTP_CARD_NONE] = "none", [DMTP_CARD_BAD] = "bad"
	};
	struct slice octets = flush_copy(get(b, "octets"));
	struct dmtp_card *card;
	enum dmtp_card_rc rc = dmtp_card_decode(octets, &card);

	assert_true(rc < COUNT(words));
	expect_text(b, "is", slice_str(words[rc]));
	if (card != NULL) {
		expect_number(b, "keys", card->keys_n);
		expect_number(b, "hosts", card->hosts_n);
		expect_number(b, "signed", card->signed_only);
	}
	if (has(b, "judged"))
		check_judgement(b, card);
	dmtp_card_free(&card);
	flush_free(octets);
}

static void
check_variables(const struct block *b)
{
	struct buffer out;

	buffer_init(&out, 1 << 16);
	assert_true(dmtp_vars_valid(get(b, "variables")));
	dmtp_template_expand(get(b, "text"), dmtp_escape_for(get(b, "type")),
	                     get(b, "variables"), &out);
	expect_text(b, "shown", buffer_slice(&out));
	buffer_free(&out);
}

/* What the client sends, in pieces of step octets, answered by K; the server's close is told. */
static bool
session_feed(struct dmtp_server *s, struct slice in, size_t step)
{
	struct dmtp_server_event e;
	bool closed = false;

	for (size_t at = 0; at < in.len;) {
		struct slice part = flush_copy(
		    slice_mem(in.data + at, in.len - at < step ? in.len - at : step));

		at += dmtp_server_feed(s, 0, part.data, part.len);
		flush_free(part);
		while (dmtp_server_next(s, &e)) {
			if (e.kind == DMTP_SERVER_COMMAND)
				assert_true(dmtp_server_reply(s, 0, e.seq, &DMTP_RESPONSE_K));
			closed = closed || e.kind == DMTP_SERVER_CLOSE;
		}
	}
	return closed;
}

/* Texts of refusals are for people: none of the vectors'. */
static void
add_without_texts(struct buffer *out, struct slice s)
{
	static const char key[] = "4:text";
	const uint8_t *end = s.data + s.len;

	for (const uint8_t *at = s.data; at < end;) {
		const uint8_t *found = memmem(at, (size_t)(end - at), key, sizeof(key) - 1);
		char *behind;
		unsigned long len;

		if (found == NULL) {
			buffer_add(out, at, (size_t)(end - at));
			return;
		}
		found += sizeof(key) - 1;
		buffer_add(out, at, (size_t)(found - at));
		len = strtoul((const char *)found, &behind, 10);
		buffer_add_str(out, "0:");
		at = (const uint8_t *)behind + 1 + len;
		assert_true(*behind == ':' && at <= end);
	}
}

static void
session_run(const struct block *b, size_t step)
{
	struct dmtp_server_options o = { .secured = true,
		                         .greeting = { .version = 1,
		                                       .host = "mx.b.example",
		                                       .ext = DMTP_EXT_GRANT | DMTP_EXT_RECEIPT,
		                                       .limits = DMTP_LIMITS_DEFAULT } };
	struct dmtp_server_event e;
	struct dmtp_server *s;
	struct buffer plain;
	bool closed = false;

	buffer_init(&plain, 1 << 20);
	o.greeting.limits.rcpts = 2000;
	s = dmtp_server_new(&o, 0);
	assert_non_null(s);
	for (size_t i = 0; i < b->count; i++) {
		struct slice value = buffer_slice(&b->lines[i].value), out;

		if (strcmp(b->lines[i].key, "C") == 0)
			closed = session_feed(s, value, step) || closed;
		if (strcmp(b->lines[i].key, "S") != 0)
			continue;
		out = dmtp_server_output(s);
		buffer_clear(&plain);
		add_without_texts(&plain, out);
		if (!slice_eq(buffer_slice(&plain), value))
			fail_msg("%.*s: \"%.*s\"", (int)get(b, "name").len,
			         (const char *)get(b, "name").data, (int)out.len,
			         (const char *)out.data);
		dmtp_server_sent(s, 0, out.len);
	}
	while (dmtp_server_next(s, &e))
		closed = closed || e.kind == DMTP_SERVER_CLOSE;
	expect_text(b, "close", slice_str(closed ? "yes" : "no"));
	dmtp_server_free(&s);
	buffer_free(&plain);
}

static void
check_session(const struct block *b)
{
	struct slice name = get(b, "name");

	session_run(b, SIZE_MAX);
	/* whether octets stand behind STARTTLS depends on how they come: only as it stands */
	if (memmem(name.data, name.len, "behind it", 9) == NULL)
		session_run(b, 1);
}

/* An example line of the specification: "<n octets>" stands for that many. */
static void
example_octets(const char *line, struct buffer *out)
{
	buffer_init(out, 1 << 16);
	while (*line != '\0' && *line != '\n') {
		char *end;
		unsigned long n = *line == '<' ? strtoul(line + 1, &end, 10) : 0;

		if (n > 0 && strncmp(end, " octets>", 8) == 0) {
			for (; n > 0; n--)
				buffer_add_u8(out, 'x');
			line = end + 8;
		} else {
			buffer_add_u8(out, (uint8_t)*line++);
		}
	}
}

static void
test_examples_of_the_specification_are_canonical(void **state)
{
	FILE *f = fopen("appliance/dmtp/PROTOCOL.md", "r");
	char line[1024];
	bool code = false;
	int n = 0;

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		struct buffer octets;

		if (strncmp(line, "```", 3) == 0)
			code = !code;
		if (!code || (line[0] != 'd' && line[0] != 'l') || line[1] < '0' ||
		    line[1] > '9')
			continue;
		example_octets(line, &octets);
		if (ben_check(buffer_slice(&octets), 1 << 16) != BEN_OK)
			fail_msg("%s", line);
		buffer_free(&octets);
		n++;
	}
	(void)fclose(f);
	assert_true(n >= 8);
}

#define FILE_TEST(what)                                  \
	static void test_vectors_of_##what(void **state) \
	{                                                \
		(void)state;                             \
		each(FILE_OF_##what, check_##what);      \
	}
#define FILE_OF_element "elements.txt"
#define FILE_OF_command "commands.txt"
#define FILE_OF_response "responses.txt"
#define FILE_OF_greeting "greetings.txt"
#define FILE_OF_address "addresses.txt"
#define FILE_OF_message "messages.txt"
#define FILE_OF_uri "uris.txt"
#define FILE_OF_grant "grants.txt"
#define FILE_OF_auth "auth.txt"
#define FILE_OF_card "cards.txt"
#define FILE_OF_variables "variables.txt"
#define FILE_OF_session "sessions.txt"
FILE_TEST(element)
FILE_TEST(command)
FILE_TEST(response)
FILE_TEST(greeting)
FILE_TEST(address)
FILE_TEST(message)
FILE_TEST(uri)
FILE_TEST(grant)
FILE_TEST(auth)
FILE_TEST(card)
FILE_TEST(variables)
FILE_TEST(session)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors_of_element),
		cmocka_unit_test(test_vectors_of_command),
		cmocka_unit_test(test_vectors_of_response),
		cmocka_unit_test(test_vectors_of_greeting),
		cmocka_unit_test(test_vectors_of_address),
		cmocka_unit_test(test_vectors_of_message),
		cmocka_unit_test(test_vectors_of_uri),
		cmocka_unit_test(test_vectors_of_grant),
		cmocka_unit_test(test_vectors_of_auth),
		cmocka_unit_test(test_vectors_of_card),
		cmocka_unit_test(test_vectors_of_variables),
		cmocka_unit_test(test_vectors_of_session),
		cmocka_unit_test(test_examples_of_the_specification_are_canonical),
	};

	return RUN(tests);
}
