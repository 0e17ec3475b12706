/* store/members.h: registering, looking, removing, and what GRANTs change. */
#include "cluster.h"

#include "store/members.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define NOW_S (NOW / 1000000)
#define DAY (INT64_C(86400) * 1000000)

static struct store *site, *home, *ctl;
static const uint8_t digest[32] = { 9 };

/* One site with the channels 1 and 2, another with 3. */
static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site VALUES (1, 'shop.test', 'shop', 't', now()), (2, "
	            "'shop.test', 'other', 't', now())");
	cluster_sql("INSERT INTO tmtp.channel VALUES (1, 1, 'orders', 't', now()), (1, 2, "
	            "'news', 't', now()), (2, 3, 'orders', 't', now())");
	site = cluster_store("tmtp_site", 2);
	home = cluster_store("tmtp_home", 2);
	ctl = cluster_store("tmtp_ctl", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&site, 1000);
	store_stop(&home, 1000);
	store_stop(&ctl, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.subscription, tmtp.subscription_past, tmtp.chunk, "
	            "tmtp.message, tmtp.batch");
	cluster_sql("DELETE FROM tmtp.domain");
	return 0;
}

/* An id of the time now_us, different from all others. */
static struct uuid
id_at(int64_t now_us)
{
	static uint16_t count;
	struct uuid id = uuid_floor(now_us);

	count++;
	id.octets[14] = (uint8_t)(count >> 8);
	id.octets[15] = (uint8_t)count;
	return id;
}

static struct member_invite
invitation(const char *member, int64_t now_us)
{
	return (struct member_invite){ .site_id = 1,
		                       .channel_id = 1,
		                       .domain = SLICE("home.test"),
		                       .member = slice_str(member),
		                       .message_id = id_at(now_us),
		                       .accepted_us = now_us,
		                       .date_s = now_us / 1000000,
		                       .body = SLICE("please"),
		                       .digest = digest };
}

static struct member_invite
invite(const char *member, int64_t now_us)
{
	struct member_invite in = invitation(member, now_us);

	assert_int_equal(RUN(store_member_invite, site, &in), STORE_OK);
	return in;
}

static struct member_grant
a_grant(const char *member, enum member_state state, uint8_t id, int64_t date_s)
{
	static uint8_t ids[256][20];

	if (ids[id][0] != id) /* else it may be being read */
		ids[id][0] = id;
	return (struct member_grant){ .domain = SLICE("home.test"),
		                      .member = slice_str(member),
		                      .site_domain = SLICE("shop.test"),
		                      .site_name = SLICE("shop"),
		                      .channel = SLICE("orders"),
		                      .state = state,
		                      .grant_id = state == MEMBER_REFUSED
		                                      ? SLICE("")
		                                      : slice_mem(ids[id], 20),
		                      .date_s = date_s,
		                      .now_us = date_s * 1000000 + 500000 };
}

static bool
grant(const char *member, enum member_state state, uint8_t id, int64_t date_s)
{
	struct member_grant g = a_grant(member, state, id, date_s);

	assert_int_equal(RUN(store_member_grant, home, &g), STORE_OK);
	return g.changed;
}

static struct member_row
look(const char *member)
{
	struct member_list list = { .site_id = 1,
		                    .channel_id = 1,
		                    .domain = SLICE("home.test"),
		                    .member = slice_str(member),
		                    .exact = true,
		                    .state = -1 };
	struct member_row row;

	assert_int_equal(RUN(store_member_list, site, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	row = list.rows[0];
	member_list_clear(&list);
	row.address = NULL;
	return row;
}

static enum store_rc
remove_member(const char *member, int64_t now_us)
{
	struct member_remove rm = { .site_id = 1,
		                    .channel_id = 1,
		                    .domain = SLICE("home.test"),
		                    .member = slice_str(member),
		                    .now_us = now_us };

	return RUN(store_member_remove, site, &rm);
}

/* --- Inviting ------------------------------------------------------------ */

static void
test_an_invitation_goes_out_once_a_day(void **state)
{
	struct member_invite in = invite("ann", NOW);

	(void)state;
	assert_int_equal(in.state, MEMBER_INVITED);
	assert_true(in.invited);
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', m.audience, m.lane, m.size, m.body, b.lane, b.members, "
		"b.recipients, b.state, d.name) FROM tmtp.message m JOIN tmtp.batch b USING "
		"(site_id, message_id) "
		"JOIN tmtp.domain d USING (domain_id)"),
	    "3 0 6 \\x706c65617365 0 {ann} 1 0 home.test");
	in = invite("ann", NOW + DAY - 1);
	assert_false(in.invited);
	assert_int_equal(in.state, MEMBER_INVITED);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
	in = invite("ann", NOW + DAY);
	assert_true(in.invited);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 2);
	assert_int_equal(look("ann").invited_us, NOW + DAY);
}

/* After a lost answer the same job runs again: it must say what it said, and store nothing
 * twice. */
static void
test_an_invitation_that_is_repeated_says_the_same(void **state)
{
	struct member_invite in = invitation("ann", NOW);

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(RUN(store_member_invite, site, &in), STORE_OK);
		assert_true(in.invited);
	}
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
}

static void
test_who_said_no_or_holds_the_channel_is_not_invited(void **state)
{
	struct member_invite in;

	(void)state;
	assert_true(grant("yes", MEMBER_GRANTED, 1, NOW_S));
	assert_true(grant("no", MEMBER_REFUSED, 0, NOW_S));
	assert_true(grant("gone", MEMBER_GRANTED, 2, NOW_S));
	assert_true(grant("gone", MEMBER_REVOKED, 2, NOW_S + 1));
	in = invite("yes", NOW + 2 * DAY);
	assert_int_equal(in.state, MEMBER_GRANTED);
	assert_false(in.invited);
	in = invite("no", NOW + 2 * DAY);
	assert_int_equal(in.state, MEMBER_REFUSED);
	assert_false(in.invited);
	in = invite("gone", NOW + 2 * DAY);
	assert_int_equal(in.state, MEMBER_REVOKED);
	assert_false(in.invited);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 0);
}

static struct member_invite
invite_to(int64_t channel, const char *member, int64_t now_us)
{
	struct member_invite in = invitation(member, now_us);

	in.channel_id = channel;
	assert_int_equal(RUN(store_member_invite, site, &in), STORE_OK);
	return in;
}

/* A home server keeps one of a site's that is unanswered, and none behind a no: such ones stay here. */
static void
test_an_invitation_that_would_be_dropped_is_held(void **state)
{
	struct member_invite in;

	(void)state;
	assert_true(invite("ann", NOW).invited);
	in = invite_to(2, "ann", NOW + DAY - 1);
	assert_false(in.invited);
	assert_int_equal(in.state, MEMBER_NONE);
	assert_string_equal(in.held_by, "orders");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
	in = invite("ann", NOW + DAY - 1);
	assert_string_equal(in.held_by, ""); /* its own is in nobody's way */
	assert_true(invite_to(2, "bob", NOW).invited);
	/* Answered: the next goes out at once. */
	assert_true(grant("ann", MEMBER_GRANTED, 1, NOW_S + 5));
	in = invite_to(2, "ann", NOW + 6000000);
	assert_true(in.invited);
	assert_int_equal(in.state, MEMBER_INVITED);
	assert_string_equal(in.held_by, "");
	/* Who never answers holds for a day: it may never have been shown. */
	in = invite("bob", NOW + DAY - 1);
	assert_false(in.invited);
	assert_string_equal(in.held_by, "news");
	assert_true(invite("bob", NOW + DAY).invited);
	/* A no to one channel is one to all invitations of the site. */
	assert_true(grant("eve", MEMBER_REFUSED, 0, NOW_S));
	in = invite_to(2, "eve", NOW + 30 * DAY);
	assert_false(in.invited);
	assert_string_equal(in.held_by, "orders");
	/* A second run of a job that was committed says what the first said. */
	in = invitation("zoe", NOW);
	assert_int_equal(RUN(store_member_invite, site, &in), STORE_OK);
	assert_int_equal(RUN(store_member_invite, site, &in), STORE_OK);
	assert_true(in.invited);
	assert_string_equal(in.held_by, "");
}

static void
test_another_sites_channel_is_not_found(void **state)
{
	struct member_invite in = invitation("ann", NOW);

	(void)state;
	in.channel_id = 3;
	assert_int_equal(RUN(store_member_invite, site, &in), STORE_NOT_FOUND);
	in.channel_id = 1;
	in.site_id = 2;
	assert_int_equal(RUN(store_member_invite, site, &in), STORE_NOT_FOUND);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription"), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"), 0);
}

/* Names twice in one batch, names of a new domain, names known: each gets its own answer. */
static void
test_many_invitations_in_one_batch(void **state)
{
	static const char *const names[] = { "a", "b", "a", "c", "b", "a", "known" };
	struct member_invite in[7];
	int invited = 0;

	(void)state;
	assert_true(grant("known", MEMBER_GRANTED, 1, NOW_S));
	for (int i = 0; i < 7; i++) {
		in[i] = invitation(names[i], NOW);
		if (i == 3)
			in[i].domain = SLICE("new.test");
		if (i == 4)
			in[i].channel_id = 2; /* the same person, another channel */
	}
	for (int i = 0; i < 7; i++)
		SUBMIT(store_member_invite, site, &in[i]);
	waiting_all();
	for (int i = 0; i < 7; i++) {
		assert_int_equal(in[i].job.rc, STORE_OK);
		assert_int_equal(in[i].state, i == 6 ? MEMBER_GRANTED : MEMBER_INVITED);
		invited += in[i].invited;
	}
	assert_int_equal(invited, 4); /* a, b, c, b of the other channel */
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 4);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 4);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"), 2);
}

/* Two connections, 200 names of 20 unknown domains, each named by both: one invitation each. */
static void
test_two_connections_invite_the_same_at_once(void **state)
{
	static struct member_invite in[400];
	static char names[200][16], domains[20][16];
	struct store *second = cluster_store("tmtp_site", 1);
	int invited = 0;

	(void)state;
	for (int i = 0; i < 400; i++) {
		int k = i / 2;

		if (i % 2 == 0)
			(void)snprintf(names[k], sizeof(names[k]), "m%d", k);
		if (i % 2 == 0 && k < 20)
			(void)snprintf(domains[k], sizeof(domains[0]), "d%d.test", k);
		in[i] = invitation(names[k], NOW);
		in[i].domain = slice_str(domains[k % 20]);
		SUBMIT(store_member_invite, i % 2 == 0 ? site : second, &in[i]);
	}
	waiting_all();
	for (int i = 0; i < 400; i++) {
		assert_int_equal(in[i].job.rc, STORE_OK);
		assert_int_equal(in[i].state, MEMBER_INVITED);
		invited += in[i].invited;
	}
	assert_int_equal(invited, 200);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 200);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 200);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"), 20);
	store_stop(&second, 1000);
}

/* The domain becomes known, and the address invited, in the middle of the statement. */
static void
test_an_invitation_that_meets_another(void **state)
{
	struct member_invite in = invitation("ann", NOW);
	struct member_grant g = a_grant("ben", MEMBER_GRANTED, 1, NOW_S);
	PGconn *other;

	(void)state;
	other = cluster_hold("INSERT INTO tmtp.domain VALUES (77, 'home.test', now())");
	SUBMIT(store_member_invite, site, &in);
	cluster_blocked();
	SUBMIT(store_member_grant, home, &g);
	cluster_release(other);
	waiting_all();
	assert_int_equal(in.job.rc, STORE_OK);
	assert_int_equal(in.state, MEMBER_INVITED);
	assert_true(in.invited);
	assert_true(g.changed);
	assert_int_equal(cluster_int("SELECT sum(domain_id) FROM tmtp.subscription"), 2 * 77);

	/* The domain is known, the address is being invited. */
	in = invitation("cat", NOW);
	other = cluster_hold("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, "
	                     "member, state, invited_at) "
	                     "VALUES (1, 1, 77, 'cat', 0, '2027-01-15T08:00:00Z')");
	SUBMIT(store_member_invite, site, &in);
	cluster_blocked();
	cluster_release(other);
	waiting_all();
	assert_int_equal(in.job.rc, STORE_OK);
	assert_int_equal(in.state, MEMBER_INVITED);
	assert_false(in.invited);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message"), 1);
}

/* --- GRANTs -------------------------------------------------------------- */

static void
test_a_yes_makes_a_member_and_a_chunk(void **state)
{
	struct member_row m;

	(void)state;
	(void)invite("ann", NOW);
	assert_true(grant("ann", MEMBER_GRANTED, 7, NOW_S + 60));
	m = look("ann");
	assert_int_equal(m.state, MEMBER_GRANTED);
	assert_int_equal(m.joined_us, NOW + 60500000);
	assert_int_equal(m.left_us, -1);
	assert_string_equal(
	    cluster_text(
		"SELECT concat_ws(' ', site_id, channel_id, '[' || first_member || ']', "
		"next_member IS NULL, members) FROM tmtp.chunk"),
	    "1 1 [] t 0");
	assert_int_equal(cluster_int("SELECT get_byte(grant_id, 0) FROM tmtp.subscription"), 7);
	assert_true(
	    grant("ben", MEMBER_GRANTED, 8, NOW_S)); /* nobody asked: she began it herself */
	assert_int_equal(look("ben").invited_us, -1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.chunk"), 1);
	assert_false(grant("ann", MEMBER_GRANTED, 7, NOW_S + 60)); /* repeated */
	assert_int_equal(look("ann").joined_us, NOW + 60500000);
}

/* first is stored, then second comes: does it change anything, and what stands then? */
static void
test_of_two_grants_the_later_wins_and_revoked_on_a_tie(void **state)
{
	static const struct {
		enum member_state first, second;
		int after; /* seconds that the second's date is later */
		bool changes;
	} table[] = {
		{ MEMBER_GRANTED, MEMBER_REVOKED, 1, true },
		{ MEMBER_GRANTED, MEMBER_REVOKED, 0, true },
		{ MEMBER_GRANTED, MEMBER_REVOKED, -1, false },
		{ MEMBER_REVOKED, MEMBER_GRANTED, 1, true },
		{ MEMBER_REVOKED, MEMBER_GRANTED, 0, false },
		{ MEMBER_REVOKED, MEMBER_GRANTED, -1, false },
		{ MEMBER_REVOKED, MEMBER_REVOKED, 0, false },
		{ MEMBER_REFUSED, MEMBER_GRANTED, 1, true },
		{ MEMBER_REFUSED, MEMBER_GRANTED, 0, false },
		{ MEMBER_REFUSED, MEMBER_REVOKED, 0, true },
		{ MEMBER_GRANTED, MEMBER_REFUSED, 0, false },
		{ MEMBER_GRANTED, MEMBER_REFUSED, 1, true },
		{ MEMBER_GRANTED, MEMBER_GRANTED, 0, false },
	};
	char name[8];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		(void)snprintf(name, sizeof(name), "t%zu", i);
		assert_true(grant(name, table[i].first, 1, NOW_S));
		assert_int_equal(grant(name, table[i].second, 2, NOW_S + table[i].after),
		                 table[i].changes);
		assert_int_equal(look(name).state,
		                 table[i].changes ? table[i].second : table[i].first);
	}
}

/* The same rule holds between GRANTs of one batch, in whichever order they stand. */
static void
test_the_rule_holds_within_a_batch(void **state)
{
	static struct member_grant g[60];
	static char names[20][16];

	(void)state;
	for (int i = 0; i < 20; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "b%d", i);
		g[3 * i] = a_grant(names[i], MEMBER_REVOKED, 1, NOW_S + (i < 10 ? 5 : 4));
		g[3 * i + 1] = a_grant(names[i], MEMBER_GRANTED, 1, NOW_S + 1);
		g[3 * i + 2] = a_grant(names[i], MEMBER_GRANTED, 2, NOW_S + 5);
	}
	for (int i = 0; i < 60; i++)
		SUBMIT(store_member_grant, home, &g[i]);
	waiting_all();
	for (int i = 0; i < 20; i++)
		assert_int_equal(look(names[i]).state,
		                 i < 10 ? MEMBER_REVOKED : MEMBER_GRANTED);
}

static void
test_a_member_who_comes_back_leaves_her_earlier_periods(void **state)
{
	(void)state;
	assert_true(grant("ann", MEMBER_GRANTED, 1, NOW_S));
	assert_true(grant("ann", MEMBER_REVOKED, 1, NOW_S + 10));
	assert_true(grant("ann", MEMBER_REVOKED, 1,
	                  NOW_S + 15)); /* said again: she left at the first */
	assert_int_equal(look("ann").left_us, NOW + 10500000);
	assert_true(grant("ann", MEMBER_GRANTED, 2, NOW_S + 20));
	assert_int_equal(look("ann").joined_us, NOW + 20500000);
	assert_int_equal(look("ann").left_us, -1);
	assert_int_equal(remove_member("ann", NOW + 30000000), STORE_OK);
	assert_true(grant("ann", MEMBER_GRANTED, 3, NOW_S + 40));
	assert_string_equal(
	    cluster_text(
		"SELECT string_agg(concat(floor(extract(epoch FROM joined_at)) - %lld, '-', "
		"floor(extract(epoch FROM left_at)) - %lld, ':', get_byte(grant_id, 0)), ' ' "
		"ORDER BY joined_at) "
		"FROM tmtp.subscription_past",
		(long long)NOW_S, (long long)NOW_S),
	    "0-10:1 20-30:2");
	assert_int_equal(cluster_int("SELECT get_byte(grant_id, 0) FROM tmtp.subscription"), 3);
}

static void
test_receipts_and_a_new_grant_keep_the_period(void **state)
{
	struct member_grant g = a_grant("ann", MEMBER_GRANTED, 2, NOW_S + 9);

	(void)state;
	assert_true(grant("ann", MEMBER_GRANTED, 1, NOW_S));
	g.receipts = true;
	assert_int_equal(RUN(store_member_grant, home, &g), STORE_OK);
	assert_true(g.changed);
	assert_true(look("ann").receipts);
	assert_int_equal(look("ann").joined_us, NOW + 500000);
	assert_int_equal(cluster_int("SELECT get_byte(grant_id, 0) FROM tmtp.subscription"), 2);
	assert_true(grant("ann", MEMBER_REVOKED, 2, NOW_S + 10));
	assert_false(look("ann").receipts);
}

static void
test_a_grant_for_nobodys_channel_writes_nothing(void **state)
{
	struct member_grant g[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		g[i] = a_grant("ann", MEMBER_GRANTED, 1, NOW_S);
	g[0].channel = SLICE("none");
	g[1].site_name = SLICE("none");
	g[2].site_domain = SLICE("none.test");
	for (int i = 0; i < 3; i++)
		SUBMIT(store_member_grant, home, &g[i]);
	waiting_all();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(g[i].job.rc, STORE_OK);
		assert_false(g[i].changed);
	}
	assert_int_equal(cluster_int("SELECT (SELECT count(*) FROM tmtp.subscription) + "
	                             "(SELECT count(*) FROM tmtp.domain) "
	                             "+ (SELECT count(*) FROM tmtp.chunk)"),
	                 0);
}

static void
test_two_connections_grant_for_the_same_at_once(void **state)
{
	static struct member_grant g[400];
	static char names[100][16], domains[10][16];
	struct store *second = cluster_store("tmtp_home", 1);

	(void)state;
	for (int i = 0; i < 400; i++) {
		int k = i / 4;

		if (i % 4 == 0)
			(void)snprintf(names[k], sizeof(names[k]), "m%d", k);
		if (i % 4 == 0 && k < 10)
			(void)snprintf(domains[k], sizeof(domains[0]), "g%d.test", k);
		g[i] = a_grant(names[k], (i & 1) == 0 ? MEMBER_GRANTED : MEMBER_REVOKED, 1,
		               NOW_S + ((i & 2) == 0 ? 3 : 1));
		g[i].domain = slice_str(domains[k % 10]);
		SUBMIT(store_member_grant, (i & 2) == 0 ? home : second, &g[i]);
	}
	waiting_all();
	for (int i = 0; i < 400; i++)
		assert_int_equal(g[i].job.rc, STORE_OK);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.subscription WHERE state = 3"),
	                 100);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain"), 10);
}

/* --- Removing and looking ------------------------------------------------ */

static void
test_a_removed_member_may_be_asked_again_but_a_no_stays(void **state)
{
	(void)state;
	assert_int_equal(remove_member("ann", NOW), STORE_NOT_FOUND);
	assert_true(grant("ann", MEMBER_GRANTED, 1, NOW_S));
	assert_int_equal(remove_member("ann", NOW + 5000000), STORE_OK);
	assert_int_equal(remove_member("ann", NOW + 9000000), STORE_OK);
	assert_int_equal(look("ann").state, MEMBER_REMOVED);
	assert_int_equal(look("ann").left_us, NOW + 5000000);
	assert_false(
	    grant("ann", MEMBER_GRANTED, 2, NOW_S + 4)); /* a yes from before the removal */
	assert_true(invite("ann", NOW + 10000000).invited);
	assert_int_equal(look("ann").state, MEMBER_INVITED);
	assert_true(grant("ann", MEMBER_GRANTED, 3,
	                  NOW_S + 4)); /* her clock is behind; she was asked again */

	assert_true(grant("no", MEMBER_REFUSED, 0, NOW_S));
	assert_int_equal(remove_member("no", NOW), STORE_OK);
	assert_int_equal(look("no").state, MEMBER_REFUSED);
	assert_false(invite("no", NOW + 2 * DAY).invited);
	(void)invite("asked", NOW);
	assert_int_equal(remove_member("asked", NOW + 1), STORE_OK);
	assert_int_equal(look("asked").state, MEMBER_REMOVED);
	assert_false(invite("asked", NOW + 2).invited); /* a day between, removed or not */
	assert_true(invite("asked", NOW + DAY).invited);
}

static void
test_pages_of_members_in_order_without_gaps(void **state)
{
	struct member_list list = { .site_id = 1, .channel_id = 1, .state = -1, .limit = 7 };
	char domain[16] = "", member[16] = "", last[40] = "";
	int pages = 0, old = 0;

	(void)state;
	/* Domain ids against the order of names. */
	cluster_sql("INSERT INTO tmtp.domain SELECT 100 - i, 'p' || i || '.test', now() FROM "
	            "generate_series(0, 9) i");
	cluster_sql(
	    "INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state) "
	    "SELECT 1, 1 + i %% 2, 100 - i %% 10, 'm' || to_char(i, 'FM0000'), i %% 5 FROM "
	    "generate_series(0, 999) i");
	for (;;) {
		list.domain = slice_str(domain);
		list.member = slice_str(member);
		assert_int_equal(RUN(store_member_list, site, &list), STORE_OK);
		if (list.rows_n == 0)
			break;
		for (size_t i = 0; i < list.rows_n; i++) {
			char key[40];

			assert_int_equal(
			    sscanf(list.rows[i].address, "%15[^@]@%15s", member, domain), 2);
			(void)snprintf(key, sizeof(key), "%s %s", domain, member);
			assert_true(strcmp(key, last) > 0);
			(void)snprintf(last, sizeof(last), "%s", key);
			old += member[0] == 'm';
		}
		/* Rows come before and behind the cursor. */
		cluster_sql("INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, "
		            "member, state) "
		            "VALUES (1, 1, 96, 'a%d', 1), (1, 1, 92, 'z%d', 1)",
		            pages, pages);
		member_list_clear(&list);
		pages++;
	}
	assert_int_equal(old, 500);
	list.domain = list.member = SLICE("");
	list.state = MEMBER_REFUSED;
	list.limit = 1000;
	assert_int_equal(RUN(store_member_list, ctl, &list), STORE_OK);
	assert_int_equal(list.rows_n, 100);
	member_list_clear(&list);
	list.site_id = 2; /* another site's */
	assert_int_equal(RUN(store_member_list, site, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
	list.site_id = 1;
	list.exact = true;
	list.domain = SLICE("p1.test");
	list.member = SLICE("nobody");
	assert_int_equal(RUN(store_member_list, site, &list), STORE_NOT_FOUND);
}

static void
test_states_have_names(void **state)
{
	(void)state;
	assert_string_equal(member_state_name(MEMBER_INVITED), "invited");
	assert_string_equal(member_state_name(MEMBER_REMOVED), "removed");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_an_invitation_goes_out_once_a_day, empty),
		cmocka_unit_test_setup(test_an_invitation_that_is_repeated_says_the_same,
		                       empty),
		cmocka_unit_test_setup(test_who_said_no_or_holds_the_channel_is_not_invited,
		                       empty),
		cmocka_unit_test_setup(test_an_invitation_that_would_be_dropped_is_held, empty),
		cmocka_unit_test_setup(test_another_sites_channel_is_not_found, empty),
		cmocka_unit_test_setup(test_many_invitations_in_one_batch, empty),
		cmocka_unit_test_setup(test_two_connections_invite_the_same_at_once, empty),
		cmocka_unit_test_setup(test_an_invitation_that_meets_another, empty),
		cmocka_unit_test_setup(test_a_yes_makes_a_member_and_a_chunk, empty),
		cmocka_unit_test_setup(test_of_two_grants_the_later_wins_and_revoked_on_a_tie,
		                       empty),
		cmocka_unit_test_setup(test_the_rule_holds_within_a_batch, empty),
		cmocka_unit_test_setup(test_a_member_who_comes_back_leaves_her_earlier_periods,
		                       empty),
		cmocka_unit_test_setup(test_receipts_and_a_new_grant_keep_the_period, empty),
		cmocka_unit_test_setup(test_a_grant_for_nobodys_channel_writes_nothing, empty),
		cmocka_unit_test_setup(test_two_connections_grant_for_the_same_at_once, empty),
		cmocka_unit_test_setup(test_a_removed_member_may_be_asked_again_but_a_no_stays,
		                       empty),
		cmocka_unit_test_setup(test_pages_of_members_in_order_without_gaps, empty),
		cmocka_unit_test(test_states_have_names),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
