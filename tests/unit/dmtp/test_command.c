/* dmtp/command: shapes, values, the order in which codes win, and encoding. */
#include "dmtp_test.h"

#include "dmtp/command.h"

#define NOW INT64_C(1800000000)
#define TO "14:anna@b.example"
#define POST_BODY "4:datei1800000000e6:digest32:" DIGEST_D "4:from14:shop@a.example2:id2:n1"
#define POST_HEAD "l4:POSTd" POST_BODY
#define RCPTS "5:rcptsl20:" GRANT_A "e"
#define POST_TAIL "4:sizei100e4:urisl21:https://a.example/m/xeee"

static const struct dmtp_limits limits = { .command_octets = 262144,
	                                   .idle_s = 300,
	                                   .message_octets = 1000,
	                                   .noops = 10,
	                                   .pipeline = 64,
	                                   .rcpts = 3,
	                                   .uris = 2 };

static enum dmtp_code
decode(const char *text, struct dmtp_command *out)
{
	struct slice s = slice_str(text);

	if (ben_check(s, 1 << 20) != BEN_OK)
		fail_msg("not canonical: %s", text);
	return dmtp_command_decode(s, out);
}

/* The code that a POST of these parts gets, NONE when it passes. */
static enum dmtp_code
judge_at(const char *text, bool verified, int64_t now)
{
	struct dmtp_command c;
	enum dmtp_code code = decode(text, &c);
	struct dmtp_verdict v;

	if (code != DMTP_CODE_NONE)
		return code;
	v = dmtp_command_check(&c, &limits, verified, now);
	assert_true(v.letter == 0 || v.letter == DMTP_E);
	return v.code;
}

static enum dmtp_code
judge(const char *text)
{
	return judge_at(text, true, NOW);
}

/* --- shapes ----------------------------------------------------------------- */

static void
test_bare_commands(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_verb verb;
	} table[] = {
		{ "l8:STARTTLSe", DMTP_STARTTLS },
		{ "l4:NOOPe", DMTP_NOOP },
		{ "l4:QUITe", DMTP_QUIT },
		{ "l4:NOOPi1edelee", DMTP_NOOP }, /* surplus is ignored */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct dmtp_command c;
		struct buffer b;

		assert_int_equal(decode(table[i].text, &c), DMTP_CODE_NONE);
		assert_int_equal(c.verb, table[i].verb);
		assert_int_equal(dmtp_command_from(&c).len, 0);
		if (i == 3)
			continue;
		buffer_init(&b, 100);
		dmtp_command_put_bare(&b, table[i].verb);
		assert_slice(buffer_slice(&b), table[i].text);
		assert_prefixes_ask_for_more(buffer_slice(&b));
		buffer_free(&b);
	}
}

static void
test_what_is_not_a_command(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_code code;
	} table[] = {
		{ "i1e", DMTP_CODE_MALFORMED },
		{ "4:NOOP", DMTP_CODE_MALFORMED },
		{ "de", DMTP_CODE_MALFORMED },
		{ "le", DMTP_CODE_MALFORMED },
		{ "li1ee", DMTP_CODE_MALFORMED },
		{ "ll4:NOOPee", DMTP_CODE_MALFORMED },
		{ "l4:noope", DMTP_CODE_UNKNOWN_COMMAND },
		{ "l0:e", DMTP_CODE_UNKNOWN_COMMAND },
		{ "l5:NOOP e", DMTP_CODE_UNKNOWN_COMMAND },
		{ "l4:HELOdee", DMTP_CODE_UNKNOWN_COMMAND },
		{ "l4:POSTe", DMTP_CODE_MALFORMED },
		{ "l4:POSTi1ee", DMTP_CODE_MALFORMED },
		{ "l4:POSTdee", DMTP_CODE_MALFORMED },
		{ "l8:CHANNELSle"
		  "e",
		  DMTP_CODE_MALFORMED },
		{ "l4:AUTHe", DMTP_CODE_MALFORMED },
		{ "l5:GRANTdee", DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTdee", DMTP_CODE_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct dmtp_command c = { .verb = DMTP_NOOP };

		if (decode(table[i].text, &c) != table[i].code)
			fail_msg("%s", table[i].text);
		assert_int_equal(c.verb, DMTP_NOOP); /* untouched */
	}
	assert_int_equal(dmtp_command_verb(SLICE("l4:POSTe")), DMTP_POST);
	assert_int_equal(dmtp_command_verb(SLICE("le")), DMTP_VERB_UNKNOWN);
	assert_int_equal(dmtp_command_verb(SLICE("i1e")), DMTP_VERB_UNKNOWN);
}

static void
test_names_and_their_numbers(void **state)
{
	(void)state;
	assert_string_equal(dmtp_verb_name(DMTP_CHANNELS), "CHANNELS");
	assert_string_equal(dmtp_verb_name((enum dmtp_verb)77), "");
	assert_int_equal(dmtp_well_known_find(SLICE("smtp")), DMTP_CHANNEL_SMTP);
	assert_int_equal(dmtp_well_known_find(SLICE("Inbox")), DMTP_CHANNEL_OTHER);
	assert_string_equal(dmtp_well_known_name(DMTP_CHANNEL_INVITE), "invite");
	assert_int_equal(dmtp_state_find(SLICE("revoked")), DMTP_REVOKED);
	assert_int_equal(dmtp_state_find(SLICE("")), 0);
	assert_string_equal(dmtp_state_name(DMTP_GRANTED), "granted");
	assert_string_equal(dmtp_receipt_name(DMTP_WITHDRAWN), "withdrawn");
}

/* --- POST ------------------------------------------------------------------- */

static void
test_post_in_every_recipient_form(void **state)
{
	struct dmtp_command c;
	struct dmtp_rcpt r;
	struct ben_reader it;
	const struct dmtp_post *p = &c.post;

	(void)state;
	assert_int_equal(
	    decode("l4:POSTd7:channel6:orders4:datei1800000000e6:digest32:" DIGEST_D
	           "7:expiresi1800009999e4:from14:shop@a.example2:id2:n13:key2:k1"
	           "5:rcptsl20:" GRANT_A "l20:" GRANT_B "d4:name5:Brunoeel" TO "5:inboxel" TO
	           "5:otheree"
	           "8:replaces2:n09:signature64:" SIGNATURE_S "4:sizei100e4:urisl3:u:13:u:2eee",
	           &c),
	    DMTP_CODE_NONE);
	assert_int_equal(c.verb, DMTP_POST);
	assert_slice(dmtp_command_from(&c), "shop@a.example");
	assert_slice(p->id, "n1");
	assert_true(p->date == NOW);
	assert_int_equal(p->size, 100);
	assert_slice(p->digest, DIGEST_D);
	assert_slice(p->key, "k1");
	assert_slice(p->signature, SIGNATURE_S);
	assert_slice(p->channel, "orders");
	assert_slice(p->replaces, "n0");
	assert_int_equal(p->recall.len, 0);
	assert_true(p->has_expires);
	assert_true(p->expires == 1800009999);
	assert_int_equal(p->uri_count, 2);
	assert_int_equal(p->rcpt_count, 4);
	assert_true(p->shared);
	assert_false(p->invites);
	assert_false(p->values_bad);
	ben_reader_init(&it, p->rcpts);
	assert_true(dmtp_rcpt_next(&it, &r));
	assert_memory_equal(r.grant, GRANT_A, 20);
	assert_int_equal(r.vars.len, 0);
	assert_true(dmtp_rcpt_next(&it, &r));
	assert_memory_equal(r.grant, GRANT_B, 20);
	assert_slice(r.vars, "d4:name5:Brunoe");
	assert_true(dmtp_rcpt_next(&it, &r));
	assert_null(r.grant);
	assert_slice(r.address, "anna@b.example");
	assert_int_equal(r.known, DMTP_CHANNEL_INBOX);
	assert_true(dmtp_rcpt_next(&it, &r));
	assert_slice(r.channel, "other"); /* nobody's: closed, and not malformed */
	assert_int_equal(r.known, DMTP_CHANNEL_OTHER);
	assert_false(dmtp_rcpt_next(&it, &r));
	assert_false(it.bad);
}

static void
test_post_wrong_shapes_are_malformed(void **state)
{
	static const char *const table[] = {
		/* one argument missing after the other */
		"l4:POSTd6:digest32:" DIGEST_D
		"4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
		"l4:POSTd4:datei1800000000e4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
		"l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D "2:id2:n1" RCPTS POST_TAIL,
		"l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		"4:from14:shop@a.example" RCPTS POST_TAIL,
		POST_HEAD POST_TAIL,
		POST_HEAD RCPTS "4:urisl1:uee"
				"e",
		POST_HEAD RCPTS "4:sizei100eee", /* uris may be absent in a recall only */
		/* wrong types */
		"l4:POSTd4:date1:16:digest32:" DIGEST_D
		"4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
		POST_HEAD "5:rcptsd1:a1:bee"
			  "e",
		POST_HEAD "5:rcptsli1ee" POST_TAIL,
		POST_HEAD "5:rcptsldee" POST_TAIL,
		POST_HEAD "5:rcptsllee" POST_TAIL,
		POST_HEAD "5:rcptsll20:" GRANT_A "ee" POST_TAIL,
		POST_HEAD "5:rcptsll20:" GRANT_A "i1eee" POST_TAIL,
		POST_HEAD "5:rcptslli1e5:inboxee" POST_TAIL,
		POST_HEAD RCPTS "4:size3:1004:urisl1:ueee",
		POST_HEAD RCPTS "4:sizei100e4:urisli1eeee",
		POST_HEAD RCPTS "4:sizei100e4:uris1:uee",
		POST_HEAD RCPTS "6:recalli1e" POST_TAIL,
		"l4:POSTd7:channeli1e4:datei1800000000e6:digest32:" DIGEST_D
		"4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
	};
	struct dmtp_command c;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (decode(table[i], &c) != DMTP_CODE_MALFORMED)
			fail_msg("%s", table[i]);
	/* whatever the session is verified for */
	assert_int_equal(judge_at(table[0], false, NOW), DMTP_CODE_MALFORMED);
}

static void
test_post_values(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_code code;
	} table[] = {
		{ POST_HEAD RCPTS POST_TAIL, DMTP_CODE_NONE },
		{ POST_HEAD "5:rcptsle" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsl19:aaaaaaaaaaaaaaaaaaae" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsl21:a" GRANT_A "e" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsl0:e" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll3:abcdeee" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll20:" GRANT_A "deee" POST_TAIL, DMTP_CODE_NONE },
		{ POST_HEAD "5:rcptsll20:" GRANT_A "d1:A0:eee" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll20:" GRANT_A "d1:ai1eeee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll20:" GRANT_A "d1:a1:\xff"
		            "eee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll20:" GRANT_A
		            "d31:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0:eee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		/* an address that is none matches no user; that is not malformed */
		{ POST_HEAD "5:rcptsll3:abc5:inboxee" POST_TAIL, DMTP_CODE_NONE },
		/* one address, in whatever case; not two */
		{ POST_HEAD "5:rcptsll5:a@b.c5:inboxel5:A@b.c4:smtpee" POST_TAIL,
		  DMTP_CODE_NONE },
		{ POST_HEAD "5:rcptsll5:a@b.c5:inboxel5:x@b.c5:inboxee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD "5:rcptsll5:a@b.c5:inboxel6:aa@b.c5:inboxee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		/* invite needs a channel */
		{ POST_HEAD "5:rcptsll5:a@b.c6:inviteee" POST_TAIL, DMTP_CODE_MALFORMED },
		/* and one that a site can have */
		{ "l4:POSTd7:channel6:invite" POST_BODY "5:rcptsll5:a@b.c6:inviteee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l4:POSTd7:channel4:smtp" POST_BODY "5:rcptsll5:a@b.c6:inviteee" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "4:sizei0e4:urisl1:ueee", DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "4:sizei-1e4:urisl1:ueee", DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "4:sizei1e4:urisl1:ueee", DMTP_CODE_NONE },
		{ POST_HEAD RCPTS "4:sizei100e4:urislee"
		                  "e",
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "4:sizei100e4:urisl0:eee", DMTP_CODE_MALFORMED },
		/* key and signature: both or none */
		{ POST_HEAD "3:key1:k" RCPTS POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "9:signature64:" SIGNATURE_S POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD "3:key1:k" RCPTS "9:signature64:" SIGNATURE_S POST_TAIL,
		  DMTP_CODE_NONE },
		{ POST_HEAD "3:key1:\n" RCPTS "9:signature64:" SIGNATURE_S POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD "3:key1:k" RCPTS "9:signature3:abc" POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD "3:key0:" RCPTS "9:signature0:" POST_TAIL, DMTP_CODE_MALFORMED },
		/* recall: no uris, an id that is not its own */
		{ POST_HEAD RCPTS "6:recall2:n04:sizei100eee", DMTP_CODE_NONE },
		{ POST_HEAD RCPTS "6:recall2:n04:sizei100e4:urislee"
		                  "e",
		  DMTP_CODE_NONE },
		{ POST_HEAD RCPTS "6:recall2:n0" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "6:recall2:n14:sizei100eee", DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "6:recall0:" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "6:recall2:n08:replaces2:n24:sizei100eee",
		  DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "8:replaces2:n0" POST_TAIL, DMTP_CODE_NONE },
		{ POST_HEAD RCPTS "8:replaces2:n1" POST_TAIL, DMTP_CODE_MALFORMED },
		{ POST_HEAD RCPTS "8:replaces1:\x7f" POST_TAIL, DMTP_CODE_MALFORMED },
		/* from, id, digest */
		{ "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		  "4:from9:a.example2:id2:n1" RCPTS POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		  "4:from14:shop@A.example2:id2:n1" RCPTS POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		  "4:from14:shop@a.example2:id0:" RCPTS POST_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l4:POSTd4:datei1800000000e6:digest31:ddddddddddddddddddddddddddddddd"
		  "4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
		  DMTP_CODE_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (judge(table[i].text) != table[i].code)
			fail_msg("%zu: %s", i, table[i].text);
}

static void
test_post_invite_with_its_channel(void **state)
{
	struct dmtp_command c;
	const char *text =
	    "l4:POSTd7:channel6:orders4:datei1800000000e6:digest32:" DIGEST_D
	    "4:from14:shop@a.example2:id2:n15:rcptsll5:a@b.c6:inviteee" POST_TAIL;

	(void)state;
	assert_int_equal(judge(text), DMTP_CODE_NONE);
	assert_int_equal(decode(text, &c), DMTP_CODE_NONE);
	assert_true(c.post.invites);
	assert_slice(c.post.channel, "orders");
	assert_int_equal(
	    judge("l4:POSTd7:channel6:Orders4:datei1800000000e6:digest32:" DIGEST_D
	          "4:from14:shop@a.example2:id2:n15:rcptsll5:a@b.c6:inviteee" POST_TAIL),
	    DMTP_CODE_MALFORMED);
}

static void
test_post_date_is_at_most_30_days_old_and_1_hour_ahead(void **state)
{
	const char *text = POST_HEAD RCPTS POST_TAIL;

	(void)state;
	assert_int_equal(judge_at(text, true, NOW + 30 * 86400), DMTP_CODE_NONE);
	assert_int_equal(judge_at(text, true, NOW + 30 * 86400 + 1), DMTP_CODE_MALFORMED);
	assert_int_equal(judge_at(text, true, NOW - 3600), DMTP_CODE_NONE);
	assert_int_equal(judge_at(text, true, NOW - 3601), DMTP_CODE_MALFORMED);
}

static const char *
why_at(const char *text, int64_t now_s)
{
	struct dmtp_command c;

	assert_int_equal(decode(text, &c), DMTP_CODE_NONE);
	return dmtp_command_check(&c, &limits, true, now_s).why;
}

static void
test_what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *text;
		int64_t now_s;
		const char *why; /* a part of it */
	} table[] = {
		{ POST_HEAD RCPTS POST_TAIL, NOW - 3601, "an hour ahead" },
		{ POST_HEAD RCPTS POST_TAIL, NOW + 30 * 86400 + 1, "30 days old" },
		{ POST_HEAD RCPTS "6:recall2:n0" POST_TAIL, NOW, "a recall has none" },
		{ POST_HEAD RCPTS "6:recall2:n14:sizei100eee", NOW, "another message" },
		{ POST_HEAD RCPTS "6:recall2:n08:replaces2:n24:sizei100eee", NOW,
		  "replaces nothing" },
		{ POST_HEAD "5:rcptsle" POST_TAIL, NOW, "rcpts is empty" },
		{ POST_HEAD RCPTS "9:signature64:" SIGNATURE_S POST_TAIL, NOW, "go together" },
		{ POST_HEAD RCPTS "4:sizei0e4:urisl21:https://a.example/m/xeee", NOW,
		  "size is" },
		{ "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		  "4:from9:a.example2:id2:n1" RCPTS POST_TAIL,
		  NOW, "from is no address" },
		{ "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
		  "4:from14:shop@a.example2:id0:" RCPTS POST_TAIL,
		  NOW, "id is not" },
		{ "l4:POSTd4:datei1800000000e6:digest31:ddddddddddddddddddddddddddddddd"
		  "4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
		  NOW, "digest is not" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		const char *why = why_at(table[i].text, table[i].now_s);

		if (why == NULL || strstr(why, table[i].why) == NULL)
			fail_msg("%zu: %s", i, why == NULL ? "nothing" : why);
	}
	assert_null(why_at(POST_HEAD RCPTS POST_TAIL, NOW));
}

static void
test_post_expired_is_k_and_dropped(void **state)
{
	struct dmtp_command c;
	struct dmtp_verdict v;

	(void)state;
	assert_int_equal(
	    decode("l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D
	           "7:expiresi1800000010e4:from14:shop@a.example2:id2:n1" RCPTS POST_TAIL,
	           &c),
	    DMTP_CODE_NONE);
	v = dmtp_command_check(&c, &limits, true, NOW + 10);
	assert_int_equal(v.letter, 0);
	v = dmtp_command_check(&c, &limits, true, NOW + 11);
	assert_int_equal(v.letter, DMTP_K);
	assert_int_equal(v.code, DMTP_CODE_NONE);
}

/* Each command has every fault from its place in the order on; the first one wins. */
static void
test_which_code_wins(void **state)
{
#define FAULTY_EXPIRES "7:expiresi5e"
	static const char *const shape =
	    "l4:POSTd4:datei5e6:digest1:d" FAULTY_EXPIRES "4:from1:x2:id0:"
	    "5:rcptsl1:a1:a1:a1:ae4:sizei5000e4:urisli1eeee";
	static const char *const counts =
	    "l4:POSTd4:datei5e6:digest1:d" FAULTY_EXPIRES "4:from1:x2:id0:"
	    "5:rcptsl1:a1:a1:a1:ae4:sizei5000e4:urisl1:ueee";
	static const char *const uris =
	    "l4:POSTd4:datei5e6:digest1:d" FAULTY_EXPIRES "4:from1:x2:id0:"
	    "5:rcptsl1:ae4:sizei5000e4:urisl1:u1:u1:ueee";
	static const char *const values =
	    "l4:POSTd4:datei5e6:digest1:d" FAULTY_EXPIRES "4:from1:x2:id0:"
	    "5:rcptsl1:ae4:sizei5000e4:urisl1:ueee";
	static const char *const size =
	    "l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D FAULTY_EXPIRES
	    "4:from14:shop@a.example2:id2:n1" RCPTS "4:sizei5000e4:urisl1:ueee";

	(void)state;
	assert_int_equal(judge_at(shape, false, NOW), DMTP_CODE_MALFORMED);
	assert_int_equal(judge_at(counts, false, NOW), DMTP_CODE_UNVERIFIED_SENDER);
	assert_int_equal(judge(counts), DMTP_CODE_LIMIT);
	assert_int_equal(judge(uris), DMTP_CODE_LIMIT);
	assert_int_equal(judge(values), DMTP_CODE_MALFORMED);
	assert_int_equal(judge(size), DMTP_CODE_TOO_LARGE);
}

static void
test_post_is_written_as_it_is_read(void **state)
{
	struct dmtp_post post = { .from = SLICE("shop@a.example"),
		                  .id = SLICE("n1"),
		                  .date = NOW,
		                  .size = 100,
		                  .digest = SLICE(DIGEST_D),
		                  .key = SLICE("k1"),
		                  .signature = SLICE(SIGNATURE_S),
		                  .channel = SLICE("orders"),
		                  .has_expires = true,
		                  .expires = NOW + 5,
		                  .replaces = SLICE("n0") };
	struct dmtp_post_writer w;
	struct buffer b, uris;

	(void)state;
	buffer_init(&b, 10000);
	buffer_init(&uris, 1000);
	ben_put_text(&uris, "https://a.example/m/x");
	post.uris = buffer_slice(&uris);
	dmtp_post_begin(&w, &b, &post);
	dmtp_post_put_grant(&w, (const uint8_t *)GRANT_A);
	dmtp_post_put_vars(&w, (const uint8_t *)GRANT_B, SLICE("d1:a1:be"));
	dmtp_post_put_address(&w, SLICE("anna@b.example"), DMTP_CHANNEL_INVITE);
	dmtp_post_end(&w);
	assert_slice(buffer_slice(&b),
	             "l4:POSTd7:channel6:orders4:datei1800000000e6:digest32:" DIGEST_D
	             "7:expiresi1800000005e4:from14:shop@a.example2:id2:n13:key2:k1"
	             "5:rcptsl20:" GRANT_A "l20:" GRANT_B
	             "d1:a1:beel14:anna@b.example6:inviteee"
	             "8:replaces2:n09:signature64:" SIGNATURE_S POST_TAIL);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_add_u8(&b, 0);
	assert_int_equal(judge((const char *)b.data), DMTP_CODE_NONE);
	buffer_clear(&b);
	post = (struct dmtp_post){ .from = SLICE("shop@a.example"),
		                   .id = SLICE("n1"),
		                   .date = NOW,
		                   .size = 100,
		                   .digest = SLICE(DIGEST_D),
		                   .recall = SLICE("n0") };
	dmtp_post_begin(&w, &b, &post);
	dmtp_post_put_grant(&w, (const uint8_t *)GRANT_A);
	dmtp_post_end(&w);
	assert_slice(buffer_slice(&b), POST_HEAD RCPTS "6:recall2:n04:sizei100eee");
	buffer_free(&b);
	buffer_free(&uris);
}

static void
test_post_writer_respects_the_buffers_maximum(void **state)
{
	struct dmtp_post post = { .from = SLICE("shop@a.example"),
		                  .id = SLICE("n1"),
		                  .digest = SLICE(DIGEST_D) };
	struct dmtp_post_writer w;
	struct buffer b;

	(void)state;
	buffer_init(&b, 200);
	dmtp_post_begin(&w, &b, &post);
	for (int i = 0; i < 100; i++)
		dmtp_post_put_grant(&w, (const uint8_t *)GRANT_A);
	dmtp_post_end(&w);
	assert_true(b.failed);
	assert_true(b.len <= 200);
	buffer_free(&b);
}

/* Input that ends with its heap block, cut anywhere: nothing is read beyond, whatever is answered. */
static void
test_decoding_stays_within_cut_and_bent_elements(void **state)
{
	static const char *const table[] = {
		POST_HEAD "5:rcptsl20:" GRANT_A "l20:" GRANT_B
			  "d4:name5:Brunoeel14:anna@b.example5:inboxee" POST_TAIL,
		"l8:CHANNELSd4:from14:shop@a.example5:usersl5:a@b.ceee",
		"l7:RECEIPTd6:eventsll2:n120:" GRANT_A
		"4:readi1800000000eee4:from5:a@b.c2:to14:shop@a.exampleee",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice whole = slice_str(table[i]);

		for (size_t n = 0; n + 1 < whole.len; n++) {
			struct slice cut = flush_copy(slice_mem(whole.data, n));
			struct slice bent = flush_copy(whole);
			struct dmtp_command c;

			assert_int_not_equal(dmtp_command_decode(cut, &c), DMTP_CODE_NONE);
			((uint8_t *)(uintptr_t)bent.data)[n] =
			    (uint8_t)(n % 2 == 0 ? '9' : 'e');
			if (dmtp_command_decode(bent, &c) == DMTP_CODE_NONE)
				(void)dmtp_command_check(&c, &limits, true, NOW);
			flush_free(cut);
			flush_free(bent);
		}
	}
}

/* --- CHANNELS ----------------------------------------------------------------- */

static void
test_channels_of_users_and_since_a_cursor(void **state)
{
	struct dmtp_command c;
	struct buffer b;

	(void)state;
	buffer_init(&b, 1000);
	assert_int_equal(
	    decode("l8:CHANNELSd4:from14:shop@a.example5:usersl5:a@b.c3:xyzeee", &c),
	    DMTP_CODE_NONE);
	assert_false(c.channels.has_since);
	assert_int_equal(c.channels.user_count, 2);
	assert_slice(dmtp_command_from(&c), "shop@a.example");
	assert_int_equal(dmtp_command_check(&c, &limits, true, NOW).letter, 0);
	dmtp_channels_encode(&c.channels, &b);
	assert_slice(buffer_slice(&b),
	             "l8:CHANNELSd4:from14:shop@a.example5:usersl5:a@b.c3:xyzeee");
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_clear(&b);
	assert_int_equal(decode("l8:CHANNELSd4:from14:shop@a.example5:since0:ee", &c),
	                 DMTP_CODE_NONE);
	assert_true(c.channels.has_since);
	assert_int_equal(c.channels.since.len, 0); /* the empty cursor begins */
	dmtp_channels_encode(&c.channels, &b);
	assert_slice(buffer_slice(&b), "l8:CHANNELSd4:from14:shop@a.example5:since0:ee");
	buffer_free(&b);
}

static void
test_channels_values_and_counts(void **state)
{
	(void)state;
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.exampleee"), DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:since0:5:usersleee"),
	                 DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:usersli1eeee"),
	                 DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:sincei0eee"),
	                 DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd5:usersleee"), DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd4:from1:x5:usersleee"), DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:usersleee"),
	                 DMTP_CODE_NONE);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:usersl1:a1:b1:ceee"),
	                 DMTP_CODE_NONE);
	assert_int_equal(judge("l8:CHANNELSd4:from14:shop@a.example5:usersl1:a1:b1:c1:deee"),
	                 DMTP_CODE_LIMIT);
	assert_int_equal(
	    judge_at("l8:CHANNELSd4:from14:shop@a.example5:usersl1:a1:b1:c1:deee", false, NOW),
	    DMTP_CODE_UNVERIFIED_SENDER);
	assert_int_equal(
	    judge("l8:CHANNELSd4:from14:shop@a.example5:since64:" SIGNATURE_S "ee"),
	    DMTP_CODE_NONE);
	assert_int_equal(
	    judge("l8:CHANNELSd4:from14:shop@a.example5:since65:s" SIGNATURE_S "ee"),
	    DMTP_CODE_MALFORMED);
}

/* --- GRANT -------------------------------------------------------------------- */

#define GRANT_HEAD "l5:GRANTd7:channel6:orders4:datei1800000000e4:from5:a@b.c"
#define GRANT_TO "2:to14:shop@a.exampleee"

static void
test_grant_goes_around(void **state)
{
	static const char *const table[] = {
		GRANT_HEAD "5:grant20:" GRANT_A "8:receiptsi1e5:state7:granted" GRANT_TO,
		GRANT_HEAD "5:grant20:" GRANT_A "5:state7:revoked" GRANT_TO,
		GRANT_HEAD "5:state7:refused" GRANT_TO,
		GRANT_HEAD "5:grant20:" GRANT_A "8:presencei1e5:state7:granted" GRANT_TO,
	};
	struct dmtp_command c;
	struct buffer b;

	(void)state;
	buffer_init(&b, 1000);
	for (size_t i = 0; i < COUNT(table); i++) {
		assert_int_equal(judge(table[i]), DMTP_CODE_NONE);
		assert_int_equal(decode(table[i], &c), DMTP_CODE_NONE);
		buffer_clear(&b);
		dmtp_grant_encode(&c.grant, &b);
		assert_slice(buffer_slice(&b), table[i]);
		assert_prefixes_ask_for_more(buffer_slice(&b));
	}
	assert_int_equal(decode(table[0], &c), DMTP_CODE_NONE);
	assert_true(c.grant.receipts && !c.grant.presence);
	assert_int_equal(c.grant.state, DMTP_GRANTED);
	assert_slice(c.grant.grant, GRANT_A);
	assert_slice(c.grant.channel, "orders");
	assert_slice(c.grant.to, "shop@a.example");
	assert_slice(dmtp_command_from(&c), "a@b.c");
	buffer_free(&b);
}

static void
test_grant_values(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_code code;
	} table[] = {
		{ GRANT_HEAD "5:state7:granted" GRANT_TO, DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:state7:revoked" GRANT_TO, DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "5:state7:refused" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant0:5:state7:refused" GRANT_TO, DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant19:aaaaaaaaaaaaaaaaaaa5:state7:granted" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "5:state5:maybe" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "8:receiptsi0e5:state7:granted" GRANT_TO,
		  DMTP_CODE_NONE },
		{ GRANT_HEAD "5:grant20:" GRANT_A "8:receiptsi2e5:state7:granted" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "8:receipts1:15:state7:granted" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "5:state7:granted2:to1:xee",
		  DMTP_CODE_MALFORMED },
		{ GRANT_HEAD "5:grant20:" GRANT_A "5:state7:grantedee", DMTP_CODE_MALFORMED },
		{ "l5:GRANTd7:channel6:Orders4:datei1800000000e4:from5:a@b.c5:state7:refused" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ "l5:GRANTd7:channel6:orders4:datei1800000000e4:from1:x5:state7:refused" GRANT_TO,
		  DMTP_CODE_MALFORMED },
		{ "l5:GRANTd7:channel6:orders4:from5:a@b.c5:state7:refused" GRANT_TO,
		  DMTP_CODE_MALFORMED },
	};
	const char *good = GRANT_HEAD "5:state7:refused" GRANT_TO;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (judge(table[i].text) != table[i].code)
			fail_msg("%s", table[i].text);
	assert_int_equal(judge_at(good, false, NOW), DMTP_CODE_UNVERIFIED_SENDER);
	assert_int_equal(judge_at(good, true, NOW + 30 * 86400 + 1), DMTP_CODE_MALFORMED);
	assert_int_equal(judge_at(good, true, NOW - 3601), DMTP_CODE_MALFORMED);
	assert_int_equal(judge_at(good, true, NOW - 3600), DMTP_CODE_NONE);
}

static void
test_grants_as_events_of_channels(void **state)
{
	struct dmtp_response r = { .letter = DMTP_K, .has_events = true, .next = SLICE("9") },
			     back;
	struct dmtp_grant g = { .from = SLICE("a@b.c"),
		                .to = SLICE("shop@a.example"),
		                .channel = SLICE("orders"),
		                .grant = SLICE(GRANT_A),
		                .state = DMTP_GRANTED,
		                .date = NOW };
	struct dmtp_grant got;
	struct buffer inside, b;
	struct ben_reader it;

	(void)state;
	buffer_init(&inside, 1000);
	buffer_init(&b, 1000);
	dmtp_grant_put(&g, &inside);
	g.state = DMTP_REVOKED;
	dmtp_grant_put(&g, &inside);
	g.channel = SLICE("NO NAME"); /* to be passed over */
	dmtp_grant_put(&g, &inside);
	r.events = buffer_slice(&inside);
	dmtp_response_encode(&r, &b);
	assert_int_equal(dmtp_response_decode(buffer_slice(&b), &back), DMTP_RESPONSE_OK);
	ben_reader_init(&it, back.events);
	assert_true(dmtp_grant_next(&it, &got));
	assert_int_equal(got.state, DMTP_GRANTED);
	assert_false(got.values_bad);
	assert_true(dmtp_grant_next(&it, &got));
	assert_int_equal(got.state, DMTP_REVOKED);
	assert_true(dmtp_grant_next(&it, &got));
	assert_true(got.values_bad);
	assert_false(dmtp_grant_next(&it, &got));
	assert_false(it.bad);
	ben_reader_init(&it, SLICE("d4:datei1ee"));
	assert_false(dmtp_grant_next(&it, &got));
	assert_true(it.bad);
	buffer_free(&inside);
	buffer_free(&b);
}

/* --- PRESENCE ----------------------------------------------------------------- */

static void
test_presence_goes_around(void **state)
{
	static const char *const table[] = {
		"l8:PRESENCEd4:from5:a@b.c5:rcptsl20:" GRANT_A "20:" GRANT_B
		"e5:sincei1799999999e5:state6:online5:untili1800000600eee",
		"l8:PRESENCEd4:from5:a@b.c5:rcptsl20:" GRANT_A
		"e5:sincei1799999999e5:state4:away5:untili1800000600eee",
		"l8:PRESENCEd4:from5:a@b.c5:rcptsl20:" GRANT_A "e5:sincei0e5:state7:offlineee",
	};
	struct dmtp_command c;
	struct ben_reader it;
	struct buffer b;
	size_t n;

	(void)state;
	buffer_init(&b, 1000);
	for (size_t i = 0; i < COUNT(table); i++) {
		assert_int_equal(judge(table[i]), DMTP_CODE_NONE);
		assert_int_equal(decode(table[i], &c), DMTP_CODE_NONE);
		assert_slice(dmtp_command_from(&c), "a@b.c");
		ben_reader_init(&it, c.presence.rcpts);
		for (n = 0; dmtp_presence_next(&it) != NULL; n++)
			;
		assert_int_equal(n, i == 0 ? 2 : 1);
		buffer_clear(&b);
		dmtp_presence_encode(&c.presence, &b);
		assert_slice(buffer_slice(&b), table[i]);
		assert_prefixes_ask_for_more(buffer_slice(&b));
	}
	assert_int_equal(judge_at(table[0], false, NOW), DMTP_CODE_UNVERIFIED_SENDER);
	assert_int_equal(judge("l8:PRESENCEd4:from5:a@b.c5:rcptsl20:" GRANT_A "20:" GRANT_A
	                       "20:" GRANT_A "20:" GRANT_A "e5:sincei0e5:state7:offlineee"),
	                 DMTP_CODE_LIMIT);
	assert_int_equal(
	    judge("l8:PRESENCEd4:from5:a@b.c5:rcptsli1ee5:sincei0e5:state7:offlineee"),
	    DMTP_CODE_MALFORMED);
	/* never a grant that is too short */
	ben_reader_init(&it, SLICE("1:g"));
	assert_null(dmtp_presence_next(&it));
	buffer_free(&b);
}

/* --- RECEIPT ------------------------------------------------------------------ */

#define RECEIPT_TAIL "4:from5:a@b.c2:to14:shop@a.exampleee"
#define ROW "l2:n120:" GRANT_A "4:readi1800000000ee"

static void
test_receipt_goes_around(void **state)
{
	const char *text = "l7:RECEIPTd6:eventsl" ROW "l2:n220:" GRANT_B "9:withdrawni5ee"
			   "e" RECEIPT_TAIL;
	struct dmtp_receipt_row row;
	struct dmtp_command c;
	struct ben_reader it;
	struct buffer inside, b;
	struct dmtp_receipt made;

	(void)state;
	buffer_init(&inside, 1000);
	buffer_init(&b, 1000);
	assert_int_equal(judge(text), DMTP_CODE_NONE);
	assert_int_equal(decode(text, &c), DMTP_CODE_NONE);
	assert_int_equal(c.receipt.event_count, 2);
	assert_slice(dmtp_command_from(&c), "a@b.c");
	ben_reader_init(&it, c.receipt.events);
	assert_true(dmtp_receipt_next(&it, &row));
	assert_slice(row.id, "n1");
	assert_memory_equal(row.grant, GRANT_A, 20);
	assert_int_equal(row.kind, DMTP_READ);
	assert_true(row.date == NOW);
	dmtp_receipt_put(&row, &inside);
	assert_true(dmtp_receipt_next(&it, &row));
	assert_int_equal(row.kind, DMTP_WITHDRAWN);
	dmtp_receipt_put(&row, &inside);
	assert_false(dmtp_receipt_next(&it, &row));
	assert_false(it.bad);
	made = c.receipt;
	made.events = buffer_slice(&inside);
	dmtp_receipt_encode(&made, &b);
	assert_slice(buffer_slice(&b), text);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_free(&inside);
	buffer_free(&b);
}

static void
test_receipt_values_and_counts(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_code code;
	} table[] = {
		{ "l7:RECEIPTd6:eventsle" RECEIPT_TAIL, DMTP_CODE_NONE },
		{ "l7:RECEIPTd6:eventsl" ROW ROW ROW "e" RECEIPT_TAIL, DMTP_CODE_NONE },
		{ "l7:RECEIPTd6:eventsl" ROW ROW ROW ROW "e" RECEIPT_TAIL, DMTP_CODE_LIMIT },
		{ "l7:RECEIPTd6:eventsll2:n120:" GRANT_A "4:readi1e3:newee" RECEIPT_TAIL,
		  DMTP_CODE_NONE },
		{ "l7:RECEIPTd6:eventsll2:n120:" GRANT_A "4:Readi1eee" RECEIPT_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsll0:20:" GRANT_A "4:readi1eee" RECEIPT_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsll2:n11:g4:readi1eee" RECEIPT_TAIL, DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsll2:n120:" GRANT_A "4:readee" RECEIPT_TAIL,
		  DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsli1ee" RECEIPT_TAIL, DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsde" RECEIPT_TAIL, DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsle4:from1:x2:to14:shop@a.exampleee",
		  DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsle4:from5:a@b.c2:to1:xee", DMTP_CODE_MALFORMED },
		{ "l7:RECEIPTd6:eventsle4:from5:a@b.cee", DMTP_CODE_MALFORMED },
	};
	struct ben_reader it;
	struct dmtp_receipt_row row;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (judge(table[i].text) != table[i].code)
			fail_msg("%s", table[i].text);
	assert_int_equal(judge_at(table[2].text, false, NOW), DMTP_CODE_UNVERIFIED_SENDER);
	ben_reader_init(&it, SLICE("l2:n11:g4:readi1ee"));
	assert_false(dmtp_receipt_next(&it, &row)); /* never a grant that is too short */
	assert_true(it.bad);
}

/* --- AUTH --------------------------------------------------------------------- */

static void
test_auth_goes_around(void **state)
{
	const char *text =
	    "l4:AUTHd6:domain9:a.example3:key2:k19:signature64:" SIGNATURE_S "ee";
	struct dmtp_command c;
	struct buffer b;

	(void)state;
	buffer_init(&b, 1000);
	assert_int_equal(judge_at(text, false, NOW),
	                 DMTP_CODE_NONE); /* needs no verified session */
	assert_int_equal(decode(text, &c), DMTP_CODE_NONE);
	assert_slice(dmtp_command_from(&c), "a.example");
	dmtp_auth_encode(&c.auth, &b);
	assert_slice(buffer_slice(&b), text);
	assert_prefixes_ask_for_more(buffer_slice(&b));
	buffer_free(&b);
	assert_int_equal(
	    judge("l4:AUTHd6:domain9:A.example3:key2:k19:signature64:" SIGNATURE_S "ee"),
	    DMTP_CODE_MALFORMED);
	assert_int_equal(
	    judge("l4:AUTHd6:domain9:a.example3:key0:9:signature64:" SIGNATURE_S "ee"),
	    DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l4:AUTHd6:domain9:a.example3:key2:k19:signature2:ssee"),
	                 DMTP_CODE_MALFORMED);
	assert_int_equal(judge("l4:AUTHd6:domain9:a.example3:key2:k1ee"), DMTP_CODE_MALFORMED);
}

static void
test_rcpt_next_never_hands_out_a_short_grant(void **state)
{
	struct ben_reader it;
	struct dmtp_rcpt r;

	(void)state;
	ben_reader_init(&it, SLICE("3:abc"));
	assert_false(dmtp_rcpt_next(&it, &r));
	assert_true(it.bad);
	ben_reader_init(&it, SLICE("l3:abcdee"));
	assert_false(dmtp_rcpt_next(&it, &r));
	assert_true(it.bad);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare_commands),
		cmocka_unit_test(test_what_is_not_a_command),
		cmocka_unit_test(test_names_and_their_numbers),
		cmocka_unit_test(test_post_in_every_recipient_form),
		cmocka_unit_test(test_post_wrong_shapes_are_malformed),
		cmocka_unit_test(test_post_values),
		cmocka_unit_test(test_post_invite_with_its_channel),
		cmocka_unit_test(test_post_date_is_at_most_30_days_old_and_1_hour_ahead),
		cmocka_unit_test(test_what_is_wrong_is_said),
		cmocka_unit_test(test_post_expired_is_k_and_dropped),
		cmocka_unit_test(test_which_code_wins),
		cmocka_unit_test(test_post_is_written_as_it_is_read),
		cmocka_unit_test(test_post_writer_respects_the_buffers_maximum),
		cmocka_unit_test(test_decoding_stays_within_cut_and_bent_elements),
		cmocka_unit_test(test_channels_of_users_and_since_a_cursor),
		cmocka_unit_test(test_channels_values_and_counts),
		cmocka_unit_test(test_grant_goes_around),
		cmocka_unit_test(test_grant_values),
		cmocka_unit_test(test_grants_as_events_of_channels),
		cmocka_unit_test(test_presence_goes_around),
		cmocka_unit_test(test_receipt_goes_around),
		cmocka_unit_test(test_receipt_values_and_counts),
		cmocka_unit_test(test_auth_goes_around),
		cmocka_unit_test(test_rcpt_next_never_hands_out_a_short_grant),
	};

	return RUN(tests);
}
