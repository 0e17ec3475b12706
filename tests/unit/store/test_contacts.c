/* store/contacts.h, store/presence.h, and what persons are to members.h, inboxes.h, pushes.h and arrivals.h. */
#include "cluster.h"

#include "store/arrivals.h"
#include "store/channels_asked.h"
#include "store/pickups.h"
#include "store/contacts.h"
#include "store/messages.h"
#include "store/presence.h"
#include "store/pushes.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S (NOW / 1000000)
#define S INT64_C(1000000)

static struct store *home, *relay, *ctl;
static const uint8_t digest[32] = { 9 };

/* Accounts 1 (ann) and 2 (carl) of a.test, persons as account_create makes them; b.test is domain 7. */
static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-18')");
	cluster_sql(
	    "INSERT INTO tmtp.account VALUES (1, 'a.test', 'ann', 'x', now()), (2, 'a.test', 'carl', 'x', now())");
	cluster_sql(
	    "INSERT INTO tmtp.site SELECT account_id, domain, name, '', created_at, NULL, 1 FROM tmtp.account");
	cluster_sql(
	    "INSERT INTO tmtp.channel SELECT account_id, account_id, 'inbox', '', created_at FROM tmtp.account");
	home = cluster_store("tmtp_home", 2);
	relay = cluster_store("tmtp_relay", 1);
	ctl = cluster_store("tmtp_ctl", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&home, 1000);
	store_stop(&relay, 1000);
	store_stop(&ctl, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql(
	    "TRUNCATE tmtp.subscription, tmtp.subscription_past, tmtp.chunk, tmtp.message, tmtp.batch, tmtp.failure, "
	    "tmtp.push_key, tmtp.consent, tmtp.open_grant, tmtp.grant_outbox, tmtp.notification, tmtp.notification_digest, "
	    "tmtp.posted, tmtp.inbox, tmtp.presence, tmtp.presence_process, tmtp.presence_outbox, tmtp.contact_presence");
	cluster_sql("DELETE FROM tmtp.sender");
	cluster_sql("DELETE FROM tmtp.domain");
	cluster_sql("INSERT INTO tmtp.domain VALUES (7, 'b.test', now())");
	return 0;
}

static struct uuid
id_at(int64_t now_us)
{
	static uint8_t count;
	struct uuid id = uuid_floor(now_us);

	id.octets[15] = ++count;
	return id;
}

/* ann invites somebody of b.test; whether an invitation goes out. */
static bool
invite(const char *member, int64_t now_us)
{
	struct member_invite in = { .site_id = 1,
		                    .channel_id = 1,
		                    .domain = SLICE("b.test"),
		                    .member = slice_str(member),
		                    .message_id = id_at(now_us),
		                    .accepted_us = now_us,
		                    .date_s = now_us / S,
		                    .body = SLICE("words"),
		                    .digest = digest };

	assert_int_equal(RUN(store_member_invite, home, &in), STORE_OK);
	return in.invited;
}

/* b.test tells ann what one of its members says to her. */
static struct member_grant
told(const char *member, enum member_state what, bool presence, int64_t date_s)
{
	static const uint8_t grant[20] = "grant-of-a-member---";
	struct member_grant g = { .domain = SLICE("b.test"),
		                  .member = slice_str(member),
		                  .site_domain = SLICE("a.test"),
		                  .site_name = SLICE("ann"),
		                  .channel = SLICE("inbox"),
		                  .state = what,
		                  .grant_id = slice_mem(grant, what == MEMBER_REFUSED ? 0 : 20),
		                  .presence = presence,
		                  .date_s = date_s,
		                  .now_us = date_s * S };

	assert_int_equal(RUN(store_member_grant, home, &g), STORE_OK);
	return g;
}

static uint8_t next_grant;

/* ann says something to bob@b.test. */
static struct consent_change
say(enum consent_state what, enum consent_why why, int64_t now_us)
{
	struct consent_change c = { .account_id = 1,
		                    .sender = SLICE("bob@b.test"),
		                    .channel = SLICE("inbox"),
		                    .sender_domain = SLICE("b.test"),
		                    .registrable = SLICE("b.test"),
		                    .state = what,
		                    .why = why,
		                    .grant_id = { ++next_grant },
		                    .changed_id = id_at(now_us),
		                    .sender_id = 70,
		                    .domain_id = 99,
		                    .now_us = now_us };

	return c;
}

static bool
said(enum consent_state what, enum consent_why why, int64_t now_us)
{
	struct consent_change c = say(what, why, now_us);

	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	return c.changed;
}

static struct contact_row
bob(void)
{
	struct contact_list list = { .account_id = 1,
		                     .domain = SLICE("b.test"),
		                     .member = SLICE("bob"),
		                     .now_us = NOW };
	struct contact_row row;

	assert_int_equal(RUN(store_contact_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].address, "bob@b.test");
	row = list.rows[0];
	row.address = NULL;
	contact_list_clear(&list);
	return row;
}

static const char *
state_of_bob(void)
{
	struct contact_row row = bob();

	return contact_state_name(contact_state_of(&row));
}

static void
make_contact(void)
{
	assert_true(invite("bob", NOW - 60 * S));
	assert_true(told("bob", MEMBER_GRANTED, false, NOW_S - 50).joined);
	assert_true(said(CONSENT_GRANTED, CONSENT_ANSWER, NOW - 50 * S));
	assert_string_equal(state_of_bob(), "contact");
}

/* --- How two stand -------------------------------------------------------- */

static void
test_states(void **state)
{
	static const struct {
		int mine, theirs;
		bool invited, blocked;
		enum contact_state want;
	} table[] = {
		{ CONTACT_NOTHING, CONTACT_NOTHING, false, false, CONTACT_NONE },
		{ CONTACT_NOTHING, MEMBER_INVITED, true, false, CONTACT_INVITED },
		{ CONTACT_NOTHING, MEMBER_REFUSED, true, false, CONTACT_REFUSED },
		{ CONTACT_NOTHING, MEMBER_GRANTED, true, false, CONTACT_INVITED },
		{ CONTACT_NOTHING, MEMBER_GRANTED, false, false, CONTACT_NONE },
		{ CONSENT_ASKED, CONTACT_NOTHING, false, false, CONTACT_ASKED },
		{ CONSENT_ASKED, MEMBER_GRANTED, true, false, CONTACT_ASKED },
		{ CONSENT_GRANTED, CONTACT_NOTHING, false, false, CONTACT_OPEN },
		{ CONSENT_GRANTED, MEMBER_INVITED, true, false, CONTACT_OPEN },
		{ CONSENT_GRANTED, MEMBER_GRANTED, true, false, CONTACT_BOTH },
		{ CONSENT_GRANTED, MEMBER_REVOKED, true, false, CONTACT_REFUSED },
		{ CONSENT_REFUSED, MEMBER_GRANTED, true, false, CONTACT_NONE },
		{ CONSENT_REFUSED, MEMBER_GRANTED, true, true, CONTACT_BLOCKED },
		{ CONSENT_REVOKED, MEMBER_REFUSED, true, false, CONTACT_NONE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct contact_row row = { .mine = table[i].mine,
			                   .theirs = table[i].theirs,
			                   .invited_by_me = table[i].invited,
			                   .blocked = table[i].blocked };

		if (contact_state_of(&row) != table[i].want)
			fail_msg("row %zu", i);
	}
}

/* A stranger's GRANT would otherwise fill a member's rows; and no chunk is cut for a person. */
static void
test_a_person_is_told_only_by_whom_she_knows(void **state)
{
	struct member_grant g = told("spam", MEMBER_GRANTED, false, NOW_S);

	(void)state;
	assert_false(g.changed);
	assert_int_equal(g.account_id, 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription"), 0);
	assert_false(told("spam", MEMBER_REFUSED, false, NOW_S).changed);

	assert_true(invite("bob", NOW - S));
	g = told("bob", MEMBER_GRANTED, false, NOW_S);
	assert_true(g.changed && g.joined);
	assert_int_equal(g.account_id, 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.chunk"), 0);
	g = told("bob", MEMBER_GRANTED, true, NOW_S + 1); /* a change, but no joining */
	assert_true(g.changed && !g.joined);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription WHERE presence"),
	                 1);
	assert_true(told("bob", MEMBER_REVOKED, true, NOW_S + 2).changed);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription WHERE presence"),
	                 0);

	/* Whom she answered may tell her, too, though she never asked. */
	cluster_sql("DELETE FROM tmtp.subscription");
	assert_true(said(CONSENT_GRANTED, CONSENT_SAID, NOW));
	assert_true(told("bob", MEMBER_GRANTED, false, NOW_S + 3).joined);
}

static void
test_an_accepted_invitation_opens_the_inviters_inbox(void **state)
{
	(void)state;
	/* No yes of theirs, or no invitation of hers: nothing. */
	assert_true(invite("bob", NOW - 60 * S));
	assert_false(said(CONSENT_GRANTED, CONSENT_ANSWER, NOW));
	assert_true(told("bob", MEMBER_GRANTED, false, NOW_S).joined);
	assert_true(said(CONSENT_GRANTED, CONSENT_ANSWER, NOW));
	assert_string_equal(state_of_bob(), "contact");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.open_grant"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.grant_outbox"), 1);
	/* What is open stays as it is; told anew when they may not know. */
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	assert_false(said(CONSENT_GRANTED, CONSENT_ANSWER, NOW + S));
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.grant_outbox"), 0);
	assert_true(said(CONSENT_GRANTED, CONSENT_ANSWER_ANEW, NOW + S));
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.grant_outbox"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.open_grant"), 1);
}

/* Her later word holds: what she took back isn't opened by a late yes, unless she asked again since. */
static void
test_a_late_yes_does_not_open_what_was_closed(void **state)
{
	(void)state;
	assert_true(invite("bob", NOW - 60 * S));
	assert_true(said(CONSENT_REFUSED, CONSENT_UNASKED, NOW - 30 * S));
	assert_string_equal(state_of_bob(), "none");
	assert_true(told("bob", MEMBER_GRANTED, false, NOW_S).joined);
	assert_false(said(CONSENT_GRANTED, CONSENT_ANSWER_ANEW, NOW));
	assert_string_equal(state_of_bob(), "none");
	cluster_sql("UPDATE tmtp.subscription SET invited_at = to_timestamp(%lld)",
	            (long long)NOW_S);
	assert_true(said(CONSENT_GRANTED, CONSENT_ANSWER, NOW + S));
	assert_string_equal(state_of_bob(), "contact");
}

static void
test_blocking_and_letting_go(void **state)
{
	struct consent_change c;

	(void)state;
	c = say(CONSENT_REFUSED, CONSENT_SAID, NOW); /* who never asked can't be answered … */
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_NOT_FOUND);
	c = say(CONSENT_REFUSED, CONSENT_UNASKED, NOW); /* … but blocked */
	c.blocked = true;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_string_equal(state_of_bob(), "blocked");
	assert_true(said(CONSENT_REFUSED, CONSENT_UNASKED,
	                 NOW + S)); /* no longer blocked, merely gone */
	assert_string_equal(state_of_bob(), "none");
	assert_true(said(CONSENT_GRANTED, CONSENT_SAID, NOW + 2 * S));
	assert_string_equal(state_of_bob(), "open");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.open_grant"), 1);
	c = say(CONSENT_REFUSED, CONSENT_UNASKED, NOW + 3 * S);
	c.blocked = true;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.open_grant"), 0);
	assert_true(bob().blocked);
}

static void
test_settings(void **state)
{
	struct contact_mute mute = { .account_id = 1,
		                     .address = SLICE("bob@b.test"),
		                     .muted = true };
	struct consent_change c;

	(void)state;
	assert_int_equal(RUN(store_contact_mute, home, &mute), STORE_NOT_FOUND);
	make_contact();
	assert_int_equal(RUN(store_contact_mute, home, &mute), STORE_OK);
	assert_true(bob().muted);
	mute.account_id = 2; /* another's contact is none of hers */
	assert_int_equal(RUN(store_contact_mute, home, &mute), STORE_NOT_FOUND);

	c = say(CONSENT_GRANTED, CONSENT_SAID, NOW);
	c.presence = PRESENCE_SHOWN;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(c.changed && bob().presence_mine);
	assert_true(
	    said(CONSENT_GRANTED, CONSENT_SAID, NOW + S)); /* as it was, and told again */
	assert_true(bob().presence_mine && bob().muted);
	assert_true(said(CONSENT_REFUSED, CONSENT_UNASKED, NOW + 2 * S));
	assert_true(said(CONSENT_GRANTED, CONSENT_SAID, NOW + 3 * S));
	assert_false(bob().presence_mine); /* to be agreed anew */
}

static void
test_lists(void **state)
{
	struct contact_list list = { .account_id = 1, .limit = 2, .now_us = NOW };

	(void)state;
	make_contact();
	assert_true(invite("anna", NOW));
	assert_true(invite("zoe", NOW));
	cluster_sql(
	    "INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, joined_at) "
	    "VALUES (1, 1, 7, 'unasked', 1, now()), (2, 2, 7, 'of-carl', 1, now())");
	for (int round = 0; round < 2; round++) {
		struct store *s = round == 0 ? home : ctl;

		list.support = round == 1;
		list.after = (struct slice){ NULL, 0 };
		assert_int_equal(RUN(store_contact_list, s, &list), STORE_OK);
		assert_int_equal(list.rows_n, 2);
		assert_string_equal(list.rows[0].address, "anna@b.test");
		assert_string_equal(list.rows[1].address, "bob@b.test");
		contact_list_clear(&list);
		list.after = SLICE("bob@b.test");
		assert_int_equal(RUN(store_contact_list, s, &list), STORE_OK);
		assert_int_equal(list.rows_n, 1);
		assert_string_equal(list.rows[0].address, "zoe@b.test");
		contact_list_clear(&list);
	}
	list = (struct contact_list){ .account_id = 2, .limit = 10 };
	assert_int_equal(RUN(store_contact_list, home, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
}

/* --- Invitations that arrive ------------------------------------------------- */

static struct arrival_invite
asks(const char *from, const char *domain, int64_t now_us)
{
	struct arrival_invite v = { .from = slice_str(from),
		                    .from_domain = slice_str(domain),
		                    .registrable = slice_str(domain),
		                    .domain = SLICE("a.test"),
		                    .name = SLICE("ann"),
		                    .channel = SLICE("inbox"),
		                    .id = slice_str(from),
		                    .digest = slice_str(from),
		                    .uris = SLICE("https://x/m/1"),
		                    .size = 5,
		                    .date_s = now_us / S,
		                    .expires_us = -1,
		                    .now_us = now_us,
		                    .lease_until_us = now_us,
		                    .fresh_id = id_at(now_us),
		                    .sender_id = id_make(),
		                    .domain_id = id_make(),
		                    .per_day = 5 };

	assert_int_equal(RUN(store_arrival_invite, home, &v), STORE_OK);
	return v;
}

static void
test_an_invitation_of_a_contact_is_answered_by_the_grant(void **state)
{
	int64_t before;

	(void)state;
	make_contact();
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	before = cluster_int("SELECT grant_date FROM tmtp.consent");
	assert_false(asks("bob@b.test", "b.test", NOW).shown);
	assert_int_equal(
	    cluster_int(
		"SELECT count(*) FROM tmtp.grant_outbox o JOIN tmtp.consent c USING (account_id, "
		"sender_id, channel) WHERE o.changed_id = c.changed_id"),
	    1);
	assert_true(cluster_int("SELECT grant_date FROM tmtp.consent") > before);
	/* A no isn't told again. */
	assert_true(said(CONSENT_REFUSED, CONSENT_UNASKED, NOW + S));
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	assert_false(asks("bob@b.test", "b.test", NOW + 2 * S).shown);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.grant_outbox"), 0);
}

static void
test_neighbours_answer_for_themselves(void **state)
{
	(void)state;
	assert_true(asks("x@b.test", "b.test", NOW).shown);
	assert_false(
	    asks("y@b.test", "b.test", NOW).shown); /* one of a domain waits at a time */
	assert_true(asks("carl@a.test", "a.test", NOW).shown);
	assert_true(asks("dora@a.test", "a.test", NOW).shown);
	assert_false(asks("dora@a.test", "a.test", NOW).shown);
}

/* --- Conversations ------------------------------------------------------------ */

static struct uuid
write_to(int64_t account_id, const char *member, int64_t now_us)
{
	struct push_rcpt rcpt = { .domain = SLICE("b.test"), .member = slice_str(member) };
	struct push p = { .site_id = account_id,
		          .channel_id = account_id,
		          .message_id = id_at(now_us),
		          .audience = PUSH_ONE,
		          .lane = LANE_URGENT,
		          .accepted_us = now_us,
		          .date_s = now_us / S,
		          .expires_us = -1,
		          .body = SLICE("sent"),
		          .digest = digest,
		          .conversation = true,
		          .rcpts = &rcpt,
		          .rcpts_n = 1 };

	assert_int_equal(RUN(store_push, home, &p), STORE_OK);
	assert_int_equal(p.outcome, PUSH_STORED);
	return p.message_id;
}

/* bob wrote to account_id: an entry whose notification is verified. */
static void
arrives(int64_t account_id, int64_t now_us, const char *more)
{
	struct uuid id = id_at(now_us);
	char text[UUID_TEXT];

	uuid_format(&id, text);
	cluster_sql(
	    "INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, uris, state, "
	    "verified_at, only_account, body) VALUES ('%s', 70, 'inbox', 'x', 3, %lld, 'u', 1, to_timestamp(%lld), %lld, 'got')",
	    text, (long long)(now_us / S), (long long)(now_us / S), (long long)account_id);
	cluster_sql("INSERT INTO tmtp.inbox VALUES (%lld, '%s', to_timestamp(%lld))",
	            (long long)account_id, text, (long long)(now_us / S));
	if (more != NULL)
		cluster_sql("UPDATE tmtp.%s WHERE notification_id = '%s'", more, text);
}

static struct letter_list
letters(struct uuid before, unsigned limit)
{
	struct letter_list l = { .account_id = 1,
		                 .address = SLICE("bob@b.test"),
		                 .before = before,
		                 .limit = limit };

	assert_int_equal(RUN(store_letter_list, home, &l), STORE_OK);
	return l;
}

static void
test_a_conversation_has_both_directions_and_nobody_else(void **state)
{
	struct letter_list l;
	struct uuid last;

	(void)state;
	make_contact();
	assert_true(invite("zoe", NOW - 60 * S));
	assert_true(told("zoe", MEMBER_GRANTED, false, NOW_S - 50).joined);
	(void)write_to(1, "bob", NOW + S);
	arrives(1, NOW + 2 * S, NULL);
	(void)write_to(1, "zoe", NOW + 3 * S);
	arrives(2, NOW + 4 * S, NULL); /* to carl */
	arrives(1, NOW + 5 * S, "inbox SET dropped_at = now()");
	arrives(1, NOW + 6 * S,
	        "notification SET state = 0, verified_at = NULL"); /* not verified yet */
	arrives(1, NOW + 7 * S, "notification SET state = 3, body = NULL"); /* withdrawn */
	l = letters((struct uuid){ { 0 } }, 2);
	assert_int_equal(l.rows_n, 2);
	assert_true(l.rows[0].withdrawn && !l.rows[0].sent && l.rows[0].body == NULL);
	assert_true(!l.rows[1].sent && l.rows[1].size == 3);
	last = l.rows[1].id;
	letter_list_clear(&l);
	l = letters(last, 2);
	assert_int_equal(l.rows_n, 1);
	assert_true(l.rows[0].sent && l.rows[0].state == RECIPIENT_WAITING &&
	            l.rows[0].size == 4);
	letter_list_clear(&l);
}

static int
state_of(struct uuid id)
{
	struct letter_list l = {
		.account_id = 1, .address = SLICE("bob@b.test"), .before = id, .one = true
	};
	enum store_rc rc = RUN(store_letter_list, home, &l);
	int state = rc == STORE_NOT_FOUND ? -1 : l.rows[0].state;

	letter_list_clear(&l);
	return state;
}

static void
test_what_became_of_a_message(void **state)
{
	struct uuid id;
	char text[UUID_TEXT];

	(void)state;
	make_contact();
	id = write_to(1, "bob", NOW);
	uuid_format(&id, text);
	assert_int_equal(state_of(id), RECIPIENT_WAITING);
	cluster_sql("UPDATE tmtp.batch SET state = 3 WHERE message_id = '%s'", text);
	assert_int_equal(state_of(id), RECIPIENT_WAITING); /* held */
	cluster_sql("UPDATE tmtp.batch SET state = 1 WHERE message_id = '%s'", text);
	assert_int_equal(state_of(id), RECIPIENT_DELIVERED);
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, lane, members, recipients) "
	    "VALUES (1, '%s', 1000001, 1, 7, 0, ARRAY['bob'], 1)",
	    text);
	assert_int_equal(state_of(id), RECIPIENT_WAITING); /* put off: the last batch speaks */
	cluster_sql("UPDATE tmtp.batch SET state = 2 WHERE batch_no = 1000001");
	assert_int_equal(state_of(id), RECIPIENT_DEAD);
	cluster_sql(
	    "INSERT INTO tmtp.failure VALUES (1, '%s', 7, 'bob', 'channel-closed', NULL, now())",
	    text);
	assert_int_equal(state_of(id), RECIPIENT_FAILED);
	assert_int_equal(state_of(id_at(NOW)), -1);
	cluster_sql("UPDATE tmtp.message SET recipient = 'zoe@b.test'");
	assert_int_equal(state_of(id), -1); /* of another conversation */
}

/* A website's push is in no conversation. */
static void
test_only_persons_messages_have_a_recipient(void **state)
{
	struct push_rcpt rcpt = { .domain = SLICE("b.test"), .member = SLICE("bob") };
	struct push p = { .site_id = 1,
		          .channel_id = 1,
		          .message_id = id_at(NOW),
		          .audience = PUSH_ONE,
		          .accepted_us = NOW,
		          .date_s = NOW_S,
		          .expires_us = -1,
		          .body = SLICE("x"),
		          .digest = digest,
		          .rcpts = &rcpt,
		          .rcpts_n = 1 };

	(void)state;
	make_contact();
	assert_int_equal(RUN(store_push, home, &p), STORE_OK);
	assert_int_equal(p.outcome, PUSH_STORED);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.message WHERE recipient IS NOT NULL"), 0);
	(void)write_to(1, "bob", NOW + S);
	assert_string_equal(cluster_text("SELECT string_agg(recipient, ' ') FROM tmtp.message"),
	                    "bob@b.test");
}

/* --- Presence -------------------------------------------------------------------- */

static const struct uuid first = { { 1 } }, second = { { 2 } };

static void
note(const struct uuid *process, bool online, bool anew, int64_t now_us)
{
	struct presence_seen seen[] = { { 1, online, anew }, { 2, online, anew } };
	struct presence_note n = { .process = *process,
		                   .now_us = now_us,
		                   .until_us = now_us + 150 * S,
		                   .seen = seen,
		                   .seen_n = 2 };

	assert_int_equal(RUN(store_presence_note, home, &n), STORE_OK);
}

/* "account>domain:state*grants …" */
static const char *
claimed(int64_t now_us, bool told_them)
{
	static char text[256];
	struct presence_claim c = { .now_us = now_us,
		                    .lease_until_us = now_us + 60 * S,
		                    .limit = 10 };
	size_t at = 0;

	assert_int_equal(RUN(store_presence_claim, relay, &c), STORE_OK);
	text[0] = '\0';
	for (size_t i = 0; i < c.rows_n; i++) {
		struct presence_finish f = { .account_id = c.rows[i].account_id,
			                     .domain_id = c.rows[i].domain_id,
			                     .changed_us = c.rows[i].changed_us,
			                     .told = told_them,
			                     .not_before_us = now_us + 30 * S };

		at +=
		    (size_t)snprintf(text + at, sizeof(text) - at, "%s%s>%s:%s*%zu",
		                     i == 0 ? "" : " ", c.rows[i].address, c.rows[i].domain,
		                     presence_state_name(c.rows[i].state), c.rows[i].grants_n);
		assert_int_equal(RUN(store_presence_finish, relay, &f), STORE_OK);
	}
	presence_claim_clear(&c);
	return text;
}

/* Both agree: ann to bob by her consent, bob by what his server told. */
static void
agree(void)
{
	struct consent_change c = say(CONSENT_GRANTED, CONSENT_SAID, NOW);

	make_contact();
	c.presence = PRESENCE_SHOWN;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	assert_true(told("bob", MEMBER_GRANTED, true, NOW_S).changed);
	cluster_sql("DELETE FROM tmtp.grant_outbox");
}

static void
test_nobody_is_told_who_did_not_agree(void **state)
{
	struct consent_change c = say(CONSENT_GRANTED, CONSENT_SAID, NOW);

	(void)state;
	make_contact();
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	note(&first, true, true, NOW);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.presence"),
	                 0); /* nor is anything kept */
	assert_string_equal(claimed(NOW, true), "");
	c.presence = PRESENCE_SHOWN;
	assert_int_equal(RUN(store_consent_change, home, &c), STORE_OK);
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	note(&first, true, true, NOW + S); /* she alone */
	assert_string_equal(claimed(NOW + S, true), "");
	assert_true(told("bob", MEMBER_GRANTED, true, NOW_S).changed);
	note(&first, true, true, NOW + 2 * S);
	assert_string_equal(claimed(NOW + 2 * S, true), "ann@a.test>b.test:online*1");
}

static void
test_changes_are_told_once_and_again_before_they_lapse(void **state)
{
	struct presence_own own = { .account_id = 1,
		                    .now_us = NOW + 30 * S,
		                    .what = PRESENCE_SAY_AWAY };

	(void)state;
	agree();
	note(&first, true, false, NOW);
	assert_string_equal(claimed(NOW, true), "ann@a.test>b.test:online*1");
	note(&first, true, false, NOW + 10 * S);
	assert_string_equal(claimed(NOW + 10 * S, true), "");
	assert_int_equal(RUN(store_presence_own, home, &own), STORE_OK);
	assert_int_equal(own.state, PRESENCE_AWAY);
	assert_string_equal(claimed(NOW + 30 * S, false),
	                    "ann@a.test>b.test:away*1"); /* they couldn't be told … */
	assert_string_equal(claimed(NOW + 40 * S, true), "");
	assert_string_equal(claimed(NOW + 61 * S, true),
	                    "ann@a.test>b.test:away*1"); /* … until later */
	note(&first, true, false, NOW + 400 * S);
	assert_string_equal(claimed(NOW + 400 * S, true),
	                    "ann@a.test>b.test:away*1"); /* lest it lapse */
	own = (struct presence_own){ .account_id = 1,
		                     .now_us = NOW + 401 * S,
		                     .what = PRESENCE_LOOK };
	assert_int_equal(RUN(store_presence_own, home, &own), STORE_OK);
	assert_int_equal(own.state, PRESENCE_AWAY);
	/* Behind a GRANT for the same domain it waits. */
	own.what = PRESENCE_SAY_BACK;
	cluster_sql(
	    "INSERT INTO tmtp.grant_outbox VALUES (1, 70, 'inbox', 7, gen_random_uuid())");
	assert_int_equal(RUN(store_presence_own, home, &own), STORE_OK);
	assert_string_equal(claimed(NOW + 402 * S, true), "");
	cluster_sql("DELETE FROM tmtp.grant_outbox");
	assert_string_equal(claimed(NOW + 402 * S, true), "ann@a.test>b.test:online*1");
}

static void
test_another_process_sees_her_still(void **state)
{
	struct presence_sweep sweep = { .now_us = NOW + 10 * S };

	(void)state;
	agree();
	note(&first, true, false, NOW);
	note(&second, true, false, NOW);
	(void)claimed(NOW, true);
	note(&first, false, false, NOW + S);
	assert_string_equal(claimed(NOW + S, true), "");
	assert_int_equal(RUN(store_presence_sweep, home, &sweep), STORE_OK);
	assert_int_equal(sweep.swept, 0);
	sweep.now_us = NOW + 151 * S; /* the second died */
	assert_int_equal(RUN(store_presence_sweep, home, &sweep), STORE_OK);
	assert_int_equal(sweep.swept, 1);
	assert_string_equal(claimed(NOW + 151 * S, true), "ann@a.test>b.test:offline*1");
	assert_int_equal(RUN(store_presence_sweep, home, &sweep), STORE_OK);
	assert_int_equal(sweep.swept, 0);
}

static size_t
hears(const char *from, uint8_t grant, enum presence_state what, int64_t since_us)
{
	uint8_t grants[1][20] = { { grant } };
	struct presence_arrival a = { .from = slice_str(from),
		                      .state = what,
		                      .since_us = since_us,
		                      .until_us = what == PRESENCE_OFFLINE ? -1 : NOW + 600 * S,
		                      .now_us = NOW,
		                      .grants = (const uint8_t(*)[20])grants,
		                      .grants_n = 1 };
	size_t n;

	assert_int_equal(RUN(store_presence_arrival, home, &a), STORE_OK);
	n = a.accounts_n;
	assert_true(n == 0 || a.accounts[0] == 1);
	presence_arrival_clear(&a);
	return n;
}

static void
test_what_others_tell(void **state)
{
	uint8_t grant;

	(void)state;
	agree();
	grant = (uint8_t)cluster_int("SELECT get_byte(grant_id, 0) FROM tmtp.open_grant");
	cluster_sql("INSERT INTO tmtp.sender VALUES (71, 'eve@b.test', 7, 'b.test', now())");
	assert_int_equal(hears("eve@b.test", grant, PRESENCE_ONLINE, NOW),
	                 0); /* another's grant */
	assert_int_equal(hears("bob@b.test", (uint8_t)(grant + 1), PRESENCE_ONLINE, NOW), 0);
	assert_int_equal(bob().presence, -1);
	assert_int_equal(hears("bob@b.test", grant, PRESENCE_ONLINE, NOW), 1);
	assert_int_equal(bob().presence, PRESENCE_ONLINE);
	assert_int_equal(hears("bob@b.test", grant, PRESENCE_ONLINE, NOW), 0); /* no news */
	assert_int_equal(hears("bob@b.test", grant, PRESENCE_OFFLINE, NOW - S),
	                 0); /* of before */
	assert_int_equal(bob().presence, PRESENCE_ONLINE);
	cluster_sql("UPDATE tmtp.contact_presence SET until = to_timestamp(%lld)",
	            (long long)NOW_S);
	assert_int_equal(bob().presence, -1); /* it lapsed */
	assert_int_equal(hears("bob@b.test", grant, PRESENCE_OFFLINE, NOW), 1);
	assert_int_equal(bob().presence, PRESENCE_OFFLINE);
	assert_true(bob().presence_since_us == NOW);
	/* Either takes it back: nothing is shown, nothing taken. */
	assert_true(told("bob", MEMBER_GRANTED, false, NOW_S + 1).changed);
	assert_int_equal(bob().presence, -1);
	assert_int_equal(hears("bob@b.test", grant, PRESENCE_ONLINE, NOW + S), 0);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test_setup(test_a_person_is_told_only_by_whom_she_knows, empty),
		cmocka_unit_test_setup(test_an_accepted_invitation_opens_the_inviters_inbox,
		                       empty),
		cmocka_unit_test_setup(test_a_late_yes_does_not_open_what_was_closed, empty),
		cmocka_unit_test_setup(test_blocking_and_letting_go, empty),
		cmocka_unit_test_setup(test_settings, empty),
		cmocka_unit_test_setup(test_lists, empty),
		cmocka_unit_test_setup(test_an_invitation_of_a_contact_is_answered_by_the_grant,
		                       empty),
		cmocka_unit_test_setup(test_neighbours_answer_for_themselves, empty),
		cmocka_unit_test_setup(test_a_conversation_has_both_directions_and_nobody_else,
		                       empty),
		cmocka_unit_test_setup(test_what_became_of_a_message, empty),
		cmocka_unit_test_setup(test_only_persons_messages_have_a_recipient, empty),
		cmocka_unit_test_setup(test_nobody_is_told_who_did_not_agree, empty),
		cmocka_unit_test_setup(test_changes_are_told_once_and_again_before_they_lapse,
		                       empty),
		cmocka_unit_test_setup(test_another_process_sees_her_still, empty),
		cmocka_unit_test_setup(test_what_others_tell, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
