/* store/queue.h: who has work, who takes it, for whom it is, and what became of it. */
#include "cluster.h"

#include "store/pushes.h"
#include "store/queue.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define S INT64_C(1000000)

static struct store *relay, *second, *ctl;
static const struct uuid me = { { 1 } }, other = { { 2 } };

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-13', '2027-01-18')");
	cluster_sql("INSERT INTO tmtp.site SELECT i, 's' || i || '.test', 'shop', 't', now() "
	            "FROM generate_series(1, 5) AS i");
	cluster_sql("INSERT INTO tmtp.channel SELECT i, 1, 'orders', 't', now() "
	            "FROM generate_series(1, 5) AS i");
	cluster_sql("INSERT INTO tmtp.domain SELECT i, 'd' || i || '.test', now() "
	            "FROM generate_series(1, 30) AS i");
	relay = cluster_store("tmtp_relay", 1);
	second = cluster_store("tmtp_relay", 1);
	ctl = cluster_store("tmtp_ctl", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&relay, 1000);
	store_stop(&second, 1000);
	store_stop(&ctl, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.subscription, tmtp.message, tmtp.batch, tmtp.failure, "
	            "tmtp.peer, tmtp.audit");
	return 0;
}

/* Message n of a site, accepted n ms after NOW. */
static struct uuid
id_of(int64_t n)
{
	return uuid_floor(NOW + 1000 * n);
}

static const char *
id_text(int64_t n)
{
	static char text[8][UUID_TEXT];
	static unsigned at;
	struct uuid id = id_of(n);

	uuid_format(&id, text[++at % 8]);
	return text[at % 8];
}

static void
message(int site_id, int64_t n)
{
	cluster_sql(
	    "INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "
	    "accepted_at, date_s, size, digest, body) VALUES (%d, '%s', 1, 2, 1, "
	    "to_timestamp(%f), 77, 4, sha256('body'), 'body')",
	    site_id, id_text(n), (double)(NOW + 1000 * n) / 1e6);
}

/* A waiting batch of message n; what: members, first, next. */
static void
batch(int site_id, int64_t n, int batch_no, int domain_id, int lane, const char *what)
{
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, members, first_member, next_member, recipients) "
	    "VALUES (%d, '%s', %d, 1, %d, %d, %s, 7)",
	    site_id, id_text(n), batch_no, domain_id, lane, what);
}

#define RANGE "NULL, '', NULL"
#define LIST "'{ann}'::text[], NULL, NULL"

static void
subscribe(int domain_id, const char *member, int state, int joined_ms)
{
	cluster_sql(
	    "INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, "
	    "grant_id, joined_at) VALUES (1, 1, %d, '%s', %d, "
	    "decode(repeat('0%d', 20), 'hex'), to_timestamp(%f))",
	    domain_id, member, state, (int)(strlen(member) % 10),
	    (double)(NOW + 1000 * (int64_t)joined_ms) / 1e6);
}

/* --- Pairs --------------------------------------------------------------- */

static void
test_pairs_in_order_page_by_page(void **state)
{
	struct queue_pairs p = { .limit = 7, .oldest = id_of(-1000) };
	int64_t last = 0;
	int seen = 0;

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, recipients) SELECT 1 + i %% 5, CASE WHEN i %% 2 = 0 THEN '%s'::uuid ELSE "
	    "'%s'::uuid END, i, 1, 1 + i %% 20, i %% 3, 1 FROM generate_series(1, 400) AS i",
	    id_text(1), id_text(86400 * 1000));
	/* Done, dead, held, dropped, and of an old message: no work. */
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, recipients, state) SELECT 1, '%s', 1000 + i, 1, 25 + i, 1, 1, i "
	    "FROM generate_series(1, 4) AS i",
	    id_text(1));
	batch(1, -86400 * 1000, 1, 30, 1, RANGE);
	for (;;) {
		assert_int_equal(RUN(store_queue_pairs, relay, &p), STORE_OK);
		if (p.rows_n == 0)
			break;
		assert_true(p.rows_n <= 7);
		for (size_t i = 0; i < p.rows_n; i++, seen++) {
			int64_t key = p.rows[i].site_id * 1000 + p.rows[i].domain_id;

			assert_true(key > last);
			last = key;
		}
		p.after = p.rows[p.rows_n - 1];
		queue_pairs_clear(&p);
	}
	assert_int_equal(seen, 20); /* (1 + i % 5, 1 + i % 20) */
	queue_pairs_clear(&p);
}

/* Index entries read, from the statistics that the server keeps. */
static int64_t
entries_read(void)
{
	return cluster_int(
	    "SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_tables "
	    "WHERE relname LIKE 'batch%%'");
}

static struct store *
begin(void)
{
	struct store_options o = { .conninfo = cluster_conninfo("tmtp_relay"),
		                   .name = "cost",
		                   .patience_ms = 20000,
		                   .connections = { [STORE_WRITE] = 1, [STORE_READ] = 1 } };
	struct store *s = store_start(&o);

	assert_non_null(s);
	return s;
}

/* Ends the store and its sessions, which say at the end what they read. */
static void
end(struct store *s)
{
	store_stop(&s, 1000);
	while (cluster_int(
		   "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cost' AND "
		   "datname = current_database()") > 0)
		continue;
}

static int64_t
cost_of_pairs(size_t want)
{
	struct queue_pairs p = { .limit = 1000, .oldest = id_of(-1000) };
	struct store *s = begin();
	int64_t before;

	for (int i = 0; i < 3; i++) { /* dead entries are marked, pages are known */
		assert_int_equal(RUN(store_queue_pairs, s, &p), STORE_OK);
		queue_pairs_clear(&p);
	}
	end(s);
	cluster_sql("SELECT pg_stat_force_next_flush()");
	cluster_sql("SELECT 1");
	before = entries_read();
	s = begin();
	assert_int_equal(RUN(store_queue_pairs, s, &p), STORE_OK);
	assert_int_equal(p.rows_n, want);
	queue_pairs_clear(&p);
	end(s);
	return entries_read() - before;
}

/* Who is held or waits for its next try is nobody's work now. */
static void
test_pairs_of_peers_that_may_not_be_sent_to_are_not_told(void **state)
{
	struct queue_pairs p = { .limit = 10, .oldest = id_of(-1000), .now_us = NOW };

	(void)state;
	for (int domain = 1; domain <= 5; domain++)
		batch(1, 1, domain, domain, LANE_NORMAL, RANGE);
	cluster_sql("INSERT INTO tmtp.peer (domain_id, failures, held, retry_at) VALUES "
	            "(1, 0, true, NULL), (2, 3, false, to_timestamp(1800000001)), "
	            "(3, 0, false, to_timestamp(1800000001)), "
	            "(4, 3, false, to_timestamp(1800000000))");
	assert_int_equal(RUN(store_queue_pairs, relay, &p), STORE_OK);
	assert_int_equal(p.rows_n, 2);
	assert_int_equal(p.rows[0].domain_id, 4);
	assert_int_equal(p.rows[1].domain_id, 5);
	queue_pairs_clear(&p);
	p.now_us = NOW + S;
	assert_int_equal(RUN(store_queue_pairs, relay, &p), STORE_OK);
	assert_int_equal(p.rows_n, 4);
	queue_pairs_clear(&p);
}

/* However many batches wait for a domain, it is one step. */
static void
test_a_pair_with_many_batches_costs_one_step(void **state)
{
	int64_t few, many;

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, recipients) SELECT 1, '%s', i, 1, 1 + i %% 3, 1, 1 "
	    "FROM generate_series(1, 30) AS i",
	    id_text(1));
	few = cost_of_pairs(3);
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, recipients) SELECT 1, '%s', i, 1, 1 + i %% 3, 1, 1 "
	    "FROM generate_series(1, 30000) AS i",
	    id_text(2));
	cluster_sql("VACUUM tmtp.batch");
	many = cost_of_pairs(3);
	assert_in_range(few, 1, 1000);
	assert_in_range(many, 1, few + 100); /* a higher tree, not 30,000 entries */
}

static void
test_names_of_a_pair(void **state)
{
	struct queue_names n[3] = { { .pair = { 1, 9 } },
		                    { .pair = { 99, 9 } },
		                    { .pair = { 1, 99 } } };

	(void)state;
	for (int i = 0; i < 3; i++)
		SUBMIT(store_queue_names, relay, &n[i]);
	waiting_all();
	assert_int_equal(n[0].job.rc, STORE_OK);
	assert_int_equal(n[1].job.rc, STORE_NOT_FOUND);
	assert_int_equal(n[2].job.rc, STORE_NOT_FOUND);
	assert_string_equal(n[0].site_name, "shop");
	assert_string_equal(n[0].site_domain, "s1.test");
	assert_string_equal(n[0].domain, "d9.test");
	assert_false(n[0].suspended);
	cluster_sql("UPDATE tmtp.site SET suspended_at = now() WHERE site_id = 1");
	assert_int_equal(RUN(store_queue_names, relay, &n[0]), STORE_OK);
	assert_true(n[0].suspended);
	cluster_sql("UPDATE tmtp.site SET suspended_at = NULL");
}

/* --- Claiming ------------------------------------------------------------ */

static struct queue_claim
a_claim(int site_id, int domain_id, struct uuid owner, int64_t now_us, unsigned want)
{
	return (struct queue_claim){ .pair = { site_id, domain_id },
		                     .owner = owner,
		                     .oldest = id_of(-1000),
		                     .now_us = now_us,
		                     .lease_until_us = now_us + 60 * S,
		                     .want = want };
}

static void
claim_free(struct queue_claim *c)
{
	while (c->batches != NULL) {
		struct queue_batch *next = c->batches->next;

		queue_batch_free(&c->batches);
		assert_null(c->batches);
		c->batches = next;
	}
}

/* "message.batch*attempts …" of a claim, which it frees. */
static const char *
claim_text(struct queue_claim *c)
{
	static char text[4][1024];
	static unsigned turn;
	char *out = text[++turn % 4];
	size_t at = 0, n = 0;

	out[0] = '\0';
	for (struct queue_batch *b = c->batches; b != NULL && at < 1000; b = b->next, n++)
		at += (size_t)snprintf(out + at, 1024 - at, "%s%lld.%d*%d", n == 0 ? "" : " ",
		                       (long long)(uuid_time_us(&b->message_id) - NOW) / 1000,
		                       b->batch_no, b->attempts);
	assert_int_equal(n, c->batches_n);
	claim_free(c);
	return out;
}

static const char *
claim(struct store *s, struct uuid owner, int64_t now_us, unsigned want)
{
	struct queue_claim c = a_claim(1, 9, owner, now_us, want);

	assert_int_equal(RUN(store_queue_claim, s, &c), STORE_OK);
	return claim_text(&c);
}

static void
test_urgent_first_then_by_message(void **state)
{
	(void)state;
	for (int i = 1; i <= 4; i++)
		message(1, i);
	batch(1, 1, 1, 9, LANE_BULK, RANGE);
	batch(1, 1, 2, 9, LANE_BULK, RANGE);
	batch(1, 2, 1, 9, LANE_NORMAL, RANGE);
	batch(1, 3, 1, 9, LANE_URGENT, RANGE);
	batch(1, 4, 1, 9, LANE_NORMAL, RANGE);
	batch(1, 4, 2, 8, LANE_URGENT, RANGE); /* another domain's */
	assert_string_equal(claim(relay, me, NOW, 2), "3.1*1 2.1*1");
	assert_string_equal(claim(relay, me, NOW, 2), "4.1*1 1.1*1");
	assert_string_equal(claim(relay, me, NOW, 2), "1.2*1");
	assert_string_equal(claim(relay, me, NOW, 2), "");
}

static void
test_a_claim_tells_all_of_a_batch(void **state)
{
	struct queue_claim c = a_claim(1, 9, me, NOW, 10);
	struct queue_batch *b;

	(void)state;
	message(1, 1);
	cluster_sql(
	    "UPDATE tmtp.message SET expires_at = to_timestamp(1800003600), audience = 1");
	batch(1, 1, 3, 9, LANE_NORMAL, "NULL, 'b', 'm'");
	batch(1, 1, 4, 9, LANE_NORMAL, "NULL, 'm', NULL");
	assert_int_equal(RUN(store_queue_claim, relay, &c), STORE_OK);
	assert_int_equal(c.batches_n, 2);
	b = c.batches;
	assert_int_equal(b->site_id, 1);
	assert_int_equal(b->channel_id, 1);
	assert_int_equal(b->domain_id, 9);
	assert_int_equal(b->lane, LANE_NORMAL);
	assert_int_equal(b->audience, PUSH_LIST);
	assert_true(b->is_range);
	assert_string_equal(b->first_member, "b");
	assert_string_equal(b->next_member, "m");
	assert_null(b->next->next_member);
	assert_int_equal(b->recipients, 7);
	assert_string_equal(b->channel, "orders");
	assert_int_equal(b->size, 4);
	assert_int_equal(b->date_s, 77);
	assert_int_equal(b->accepted_us, NOW + 1000);
	assert_int_equal(b->expires_us, NOW + 3600 * S);
	assert_false(b->recalled);
	assert_int_equal(b->members_n, 0);
	assert_int_equal(b->digest[0], cluster_int("SELECT get_byte(sha256('body'), 0)"));
	claim_free(&c);
	cluster_sql("UPDATE tmtp.message SET recalled_at = now(), expires_at = NULL");
	c = a_claim(1, 9, me, NOW + 61 * S, 1);
	assert_int_equal(RUN(store_queue_claim, relay, &c), STORE_OK);
	assert_true(c.batches->recalled);
	assert_int_equal(c.batches->expires_us, -1);
	claim_free(&c);
}

static void
test_a_lease_keeps_others_away_until_it_ends(void **state)
{
	(void)state;
	message(1, 1);
	batch(1, 1, 1, 9, LANE_NORMAL, RANGE);
	assert_string_equal(claim(relay, me, NOW, 5), "1.1*1");
	assert_string_equal(claim(second, other, NOW + 59 * S, 5), "");
	assert_string_equal(claim(relay, me, NOW + 60 * S, 5), "");
	assert_string_equal(claim(second, other, NOW + 61 * S, 5), "1.1*2");
	assert_string_equal(claim(relay, me, NOW + 62 * S, 5), "");
}

static void
test_what_is_not_due_or_not_waiting_is_not_claimed(void **state)
{
	(void)state;
	message(1, 1);
	for (int i = 1; i <= 6; i++)
		batch(1, 1, i, 9, LANE_NORMAL, RANGE);
	cluster_sql("UPDATE tmtp.batch SET state = batch_no WHERE batch_no < 5");
	cluster_sql(
	    "UPDATE tmtp.batch SET not_before = to_timestamp(1800000010) WHERE batch_no = 5");
	message(1, -86400 * 1000);
	batch(1, -86400 * 1000, 1, 9, LANE_NORMAL, RANGE); /* older than is looked at */
	assert_string_equal(claim(relay, me, NOW + 9 * S, 9), "1.6*1");
	assert_string_equal(claim(relay, me, NOW + 10 * S, 9), "1.5*1");
}

/* Two workers claim all the time from the same pairs: each batch is one's alone. */
static void
test_two_workers_share_no_batch(void **state)
{
	static struct queue_claim c[2][40];
	int64_t taken = 0;

	(void)state;
	message(1, 1);
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, first_member, recipients) SELECT 1, '%s', i, 1, 1 + i %% 5, 1, '', 1 "
	    "FROM generate_series(1, 1000) AS i",
	    id_text(1));
	for (int i = 0; i < 40; i++) {
		for (int w = 0; w < 2; w++) {
			c[w][i] = a_claim(1, 1 + i % 5, w == 0 ? me : other, NOW, 20);
			SUBMIT(store_queue_claim, w == 0 ? relay : second, &c[w][i]);
		}
	}
	waiting_all();
	for (int i = 0; i < 40; i++) {
		for (int w = 0; w < 2; w++) {
			assert_int_equal(c[w][i].job.rc, STORE_OK);
			taken += (int64_t)c[w][i].batches_n;
			claim_free(&c[w][i]);
		}
	}
	assert_int_equal(taken, 1000);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch WHERE attempts = 1"),
	                 1000);
}

/* Another worker is in the middle of taking the first: the second is taken without waiting. */
static void
test_a_claim_does_not_wait_for_another(void **state)
{
	PGconn *pg;

	(void)state;
	message(1, 1);
	batch(1, 1, 1, 9, LANE_NORMAL, RANGE);
	batch(1, 1, 2, 9, LANE_NORMAL, RANGE);
	pg = cluster_hold("UPDATE tmtp.batch SET leased_until = 'infinity' WHERE batch_no = 1");
	assert_string_equal(claim(relay, me, NOW, 5), "1.2*1");
	cluster_release(pg);
	assert_string_equal(claim(relay, me, NOW + 30 * S, 5), "");
}

/* Members of a list as they stand when it goes out, not as when it was accepted. */
static void
test_a_list_has_its_members_states(void **state)
{
	static const struct {
		const char *name;
		enum queue_member_state state;
	} want[] = {
		{ "a", QUEUE_HOLDS },   { "bb", QUEUE_INVITED }, { "ccc", QUEUE_LEFT },
		{ "dddd", QUEUE_LEFT }, { "none", QUEUE_LEFT },  { "zzzzz", QUEUE_HOLDS }
	};
	struct queue_claim c = a_claim(1, 9, me, NOW, 5);
	uint8_t grant[20];

	(void)state;
	message(1, 1);
	batch(1, 1, 1, 9, LANE_NORMAL, "'{a,bb,ccc,dddd,none,zzzzz}'::text[], NULL, NULL");
	batch(1, 1, 2, 9, LANE_NORMAL, "'{}'::text[], NULL, NULL");
	subscribe(9, "a", 1, 0);
	subscribe(9, "bb", 0, 0);
	subscribe(9, "ccc", 3, 0);
	subscribe(9, "dddd", 4, 0);
	subscribe(8, "none", 1, 0); /* of another domain */
	subscribe(9, "zzzzz", 1, 5000);
	assert_int_equal(RUN(store_queue_claim, relay, &c), STORE_OK);
	assert_int_equal(c.batches_n, 2);
	assert_false(c.batches->is_range);
	assert_int_equal(c.batches->members_n, 6);
	for (size_t i = 0; i < 6; i++) {
		const struct queue_member *m = &c.batches->members[i];

		assert_true(slice_eq_str(m->member, want[i].name));
		assert_int_equal(m->state, want[i].state);
		memset(grant, (int)strlen(want[i].name), sizeof(grant));
		if (m->state == QUEUE_HOLDS)
			assert_memory_equal(m->grant, grant, sizeof(grant));
	}
	assert_int_equal(c.batches->next->members_n, 0);
	assert_false(c.batches->next->is_range);
	claim_free(&c);
}

/* Claims of many pairs in one batch: each gets its own. */
static void
test_claims_in_one_batch(void **state)
{
	struct queue_claim c[60];

	(void)state;
	for (int i = 1; i <= 5; i++)
		message(i, i);
	cluster_sql(
	    "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "
	    "lane, first_member, recipients) SELECT s, ('{%s,%s,%s,%s,%s}'::uuid[])[s], "
	    "d * 10 + i, 1, d, 1, '', 1 FROM generate_series(1, 5) AS s, "
	    "generate_series(1, 12) AS d, generate_series(1, 3) AS i",
	    id_text(1), id_text(2), id_text(3), id_text(4), id_text(5));
	for (int i = 0; i < 60; i++) {
		c[i] = a_claim(1 + i % 5, 1 + i / 5, me, NOW, 1 + (unsigned)i % 3);
		SUBMIT(store_queue_claim, relay, &c[i]);
	}
	waiting_all();
	for (int i = 0; i < 60; i++) {
		assert_int_equal(c[i].batches_n, 1 + i % 3);
		for (struct queue_batch *b = c[i].batches; b != NULL; b = b->next) {
			assert_int_equal(b->site_id, 1 + i % 5);
			assert_int_equal(b->domain_id, 1 + i / 5);
			assert_int_equal(b->size, 4);
		}
		claim_free(&c[i]);
	}
}

/* --- A range's recipients ------------------------------------------------ */

static struct queue_batch
a_range(const char *first, const char *next)
{
	return (struct queue_batch){ .site_id = 1,
		                     .channel_id = 1,
		                     .domain_id = 9,
		                     .is_range = true,
		                     .first_member = (char *)(uintptr_t)first,
		                     .next_member = (char *)(uintptr_t)next,
		                     .audience_us = NOW };
}

/* "ann ben …", read in pages of so many. */
static const char *
range(const char *first, const char *next, unsigned limit)
{
	static char text[512];
	struct queue_batch b = a_range(first, next);
	struct queue_range r = { .batch = &b, .limit = limit };
	size_t at = 0;

	text[0] = '\0';
	for (;;) {
		char after[80];

		assert_int_equal(RUN(store_queue_range, relay, &r), STORE_OK);
		assert_true(r.members_n <= limit);
		if (r.members_n == 0)
			break;
		for (size_t i = 0; i < r.members_n; i++) {
			assert_int_equal(r.members[i].state, QUEUE_HOLDS);
			assert_int_equal(r.members[i].grant[19], r.members[i].member.len % 10);
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s",
			                       at == 0 ? "" : " ", (int)r.members[i].member.len,
			                       (const char *)r.members[i].member.data);
		}
		(void)snprintf(after, sizeof(after), "%.*s",
		               (int)r.members[r.members_n - 1].member.len,
		               (const char *)r.members[r.members_n - 1].member.data);
		queue_range_clear(&r);
		r.after = slice_str(after);
	}
	queue_range_clear(&r);
	return text;
}

static void
test_a_range_is_who_held_the_channel_and_does(void **state)
{
	(void)state;
	subscribe(9, "ann", 1, -10);
	subscribe(9, "just", 1, 0);
	subscribe(9, "late", 1, 1); /* joined after it was accepted */
	subscribe(9, "left", 3, -10);
	subscribe(9, "removed", 4, -10);
	subscribe(9, "asked", 0, -10);
	subscribe(8, "far", 1, -10);
	assert_string_equal(range("", NULL, 10), "ann just");
}

static void
test_a_range_has_its_bounds(void **state)
{
	/* Greater than any name: 64 octets of the last character. */
	char last[65] = "";

	(void)state;
	for (int i = 0; i < 16; i++)
		memcpy(last + 4 * i, "\xf4\x8f\xbf\xbf", 5);
	subscribe(9, "a", 1, -1);
	subscribe(9, "b", 1, -1);
	subscribe(9, "ba", 1, -1);
	subscribe(9, "c", 1, -1);
	subscribe(9, "\xc3\xa9", 1, -1);
	subscribe(9, last, 1, -1);
	assert_string_equal(range("b", "c", 10), "b ba");
	assert_string_equal(range("", "b", 10), "a");
	assert_string_equal(range("c", "c", 10), "");
	assert_true(strncmp(range("c", NULL, 1), "c \xc3\xa9 \xf4", 6) == 0);
	assert_string_equal(range("a", "bb", 1), "a b ba");
}

/* Pages without gap or double while others come and go around the cursor. */
static void
test_a_range_page_by_page(void **state)
{
	struct queue_batch b = a_range("m00000", "m05000");
	struct queue_range r = { .batch = &b, .limit = 333 };
	int seen = 0;
	char after[8] = "", last[8] = "";

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, "
	    "grant_id, joined_at) SELECT 1, 1, 9, 'm' || to_char(i, 'FM00000'), 1, "
	    "decode(repeat('06', 20), 'hex'), to_timestamp(0) FROM generate_series(0, 9999) i");
	for (;;) {
		r.after = slice_str(after);
		assert_int_equal(RUN(store_queue_range, relay, &r), STORE_OK);
		if (r.members_n == 0)
			break;
		for (size_t i = 0; i < r.members_n; i++, seen++) {
			assert_int_equal(r.members[i].member.len, 6);
			memcpy(after, r.members[i].member.data, 6);
			assert_true(strcmp(after, last) > 0);
			memcpy(last, after, sizeof(last));
		}
		queue_range_clear(&r);
		subscribe(
		    9,
		    cluster_text("SELECT 'm0' || 4000 + (random() * 900)::int || 'x%d'", seen),
		    1, 1000);
	}
	assert_int_equal(seen, 5000);
	queue_range_clear(&r);
}

/* --- The end of a batch -------------------------------------------------- */

static struct queue_finish
a_finish(enum queue_end end, int batch_no, struct uuid owner)
{
	return (struct queue_finish){ .site_id = 1,
		                      .channel_id = 1,
		                      .domain_id = 9,
		                      .message_id = id_of(1),
		                      .owner = owner,
		                      .batch_no = batch_no,
		                      .lane = LANE_NORMAL,
		                      .end = end,
		                      .recipients = 5,
		                      .now_us = NOW + 5 * S,
		                      .not_before_us = -1 };
}

static const char *
batch_text(int batch_no)
{
	return cluster_text("SELECT concat_ws(' ', state, recipients, attempts, "
	                    "extract(epoch FROM not_before)::int8 - 1800000000, "
	                    "extract(epoch FROM done_at)::int8 - 1800000000, reason, "
	                    "CASE WHEN leased_until IS NOT NULL OR lease_owner IS NOT NULL "
	                    "THEN 'leased' END) FROM tmtp.batch WHERE batch_no = %d",
	                    batch_no);
}

static int
claimed(void **state)
{
	(void)empty(state);
	message(1, 1);
	for (int i = 1; i <= 5; i++)
		batch(1, 1, i, 9, LANE_NORMAL, RANGE);
	assert_string_equal(claim(relay, me, NOW, 5), "1.1*1 1.2*1 1.3*1 1.4*1 1.5*1");
	return 0;
}

static void
test_a_batch_ends_done_released_or_dead(void **state)
{
	struct queue_finish f[5];

	(void)state;
	f[0] = a_finish(QUEUE_DONE, 1, me);
	f[1] = a_finish(QUEUE_RELEASE, 2, me);
	f[1].not_before_us = NOW + 90 * S;
	f[1].reason = "refused";
	f[2] = a_finish(QUEUE_RELEASE, 3, me);
	f[2].uncounted = true;
	f[3] = a_finish(QUEUE_DEAD, 4, me);
	f[3].reason = "expired";
	f[4] = a_finish(QUEUE_DONE, 99, me); /* no such batch */
	for (int i = 0; i < 5; i++)
		SUBMIT(store_queue_finish, relay, &f[i]);
	waiting_all();
	for (int i = 0; i < 5; i++)
		assert_int_equal(f[i].job.rc, i < 4 ? STORE_OK : STORE_NOT_FOUND);
	assert_string_equal(batch_text(1), "1 5 1 5");
	assert_string_equal(batch_text(2), "0 7 1 90 refused");
	assert_string_equal(batch_text(3), "0 7 0");
	assert_string_equal(batch_text(4), "2 7 1 5 expired");
	assert_string_equal(batch_text(5), "0 7 1 leased");
	assert_string_equal(claim(second, other, NOW + 5 * S, 5), "1.3*1");
	assert_string_equal(claim(second, other, NOW + 59 * S, 5), "");
	assert_string_equal(claim(second, other, NOW + 90 * S, 5), "1.2*2 1.3*2 1.5*2");
}

static void
test_who_lost_the_lease_changes_nothing(void **state)
{
	const struct queue_failure failed[] = { { SLICE("x"), SLICE("closed"), false },
		                                { SLICE("y"), SLICE("busy"), true } };
	struct queue_finish f;

	(void)state;
	assert_string_equal(claim(second, other, NOW + 61 * S, 1), "1.1*2");
	for (int i = 0; i < 4; i++) {
		f = a_finish(i < 2 ? QUEUE_DONE : i == 2 ? QUEUE_RELEASE : QUEUE_DEAD, 1, me);
		f.failures = failed;
		f.failures_n = i == 1 ? 2 : 0;
		assert_int_equal(RUN(store_queue_finish, relay, &f), STORE_NOT_FOUND);
	}
	assert_string_equal(batch_text(1), "0 7 2 leased");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.failure"), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 5);
	f = a_finish(QUEUE_DONE, 1, other);
	assert_int_equal(RUN(store_queue_finish, second, &f), STORE_OK);
	/* Run again after a lost answer: nothing changes. */
	f.recipients = 9;
	assert_int_equal(RUN(store_queue_finish, second, &f), STORE_NOT_FOUND);
	assert_string_equal(batch_text(1), "1 5 2 5");
}

static void
test_exceptions_are_written_and_the_temporary_ones_come_again(void **state)
{
	const struct queue_failure failed[] = {
		{ SLICE("gone"), SLICE("channel-closed"), false },
		{ SLICE("full"), SLICE("storage"), true },
		{ SLICE("big"), SLICE("too-large"), false },
		{ SLICE("slow"), SLICE("throttled"), true },
	};
	struct queue_finish f = a_finish(QUEUE_DONE, 2, me);
	struct queue_claim c;

	(void)state;
	subscribe(9, "full", 1, 0);
	f.failures = failed;
	f.failures_n = 4;
	f.not_before_us = NOW + 30 * S;
	for (int i = 0; i < 2; i++) { /* the second time finds no lease */
		assert_int_equal(RUN(store_queue_finish, relay, &f),
		                 i == 0 ? STORE_OK : STORE_NOT_FOUND);
		assert_string_equal(batch_text(2), "1 3 1 5");
		assert_string_equal(batch_text(2 + QUEUE_RETRY_NO), "0 2 0 30");
		assert_string_equal(
		    cluster_text(
			"SELECT string_agg(concat_ws(' ', site_id, domain_id, member, code, "
			"failed_at = to_timestamp(1800000005)), '; ' ORDER BY member) "
			"FROM tmtp.failure"),
		    "1 9 big too-large t; 1 9 gone channel-closed t");
		assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 6);
	}
	/* The retry is claimed when its time has come, and may be put off itself. */
	assert_string_equal(claim(second, other, NOW + 29 * S, 5), "");
	c = a_claim(1, 9, other, NOW + 30 * S, 5);
	assert_int_equal(RUN(store_queue_claim, second, &c), STORE_OK);
	assert_int_equal(c.batches_n, 1);
	assert_int_equal(c.batches->batch_no, 2 + QUEUE_RETRY_NO);
	assert_int_equal(c.batches->attempts, 1); /* what was put off did no harm to anybody */
	assert_int_equal(c.batches->members_n, 2);
	assert_int_equal(c.batches->members[0].state, QUEUE_HOLDS);
	assert_int_equal(c.batches->members[1].state, QUEUE_LEFT);
	claim_free(&c);
	f = a_finish(QUEUE_DONE, 2 + QUEUE_RETRY_NO, other);
	f.recipients = 1;
	f.failures = &failed[1];
	f.failures_n = 1;
	assert_int_equal(RUN(store_queue_finish, second, &f), STORE_OK);
	assert_string_equal(batch_text(2 + QUEUE_RETRY_NO), "1 0 1 30 5");
	assert_string_equal(batch_text(2 + 2 * QUEUE_RETRY_NO), "0 1 0");
	/* Only refusals: no batch of its own. */
	f = a_finish(QUEUE_DONE, 3, me);
	f.failures = &failed[2];
	f.failures_n = 1;
	assert_int_equal(RUN(store_queue_finish, relay, &f), STORE_OK);
	assert_string_equal(batch_text(3), "1 5 1 5");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch"), 7);
}

/* An administrator changes a batch in the moment in which its worker ends it. */
static void
test_an_end_that_meets_an_administrator(void **state)
{
	struct queue_finish f = a_finish(QUEUE_DONE, 1, me);
	PGconn *pg = cluster_hold("UPDATE tmtp.batch SET state = 4, lease_owner = NULL, "
	                          "leased_until = NULL WHERE batch_no = 1");

	(void)state;
	SUBMIT(store_queue_finish, relay, &f);
	cluster_blocked();
	cluster_release(pg);
	waiting_all();
	assert_int_equal(f.job.rc, STORE_NOT_FOUND);
	assert_int_equal(cluster_int("SELECT state FROM tmtp.batch WHERE batch_no = 1"), 4);
}

/* --- Administrators ------------------------------------------------------ */

static const char *
list(const char *domain, bool dead, unsigned limit)
{
	static char text[1024];
	struct queue_list l = {
		.domain = domain, .dead = dead, .oldest = id_of(-1000), .limit = limit
	};
	size_t at = 0;

	text[0] = '\0';
	assert_int_equal(RUN(store_queue_list, ctl, &l), STORE_OK);
	for (size_t i = 0; i < l.rows_n; i++) {
		const struct queue_row *q = &l.rows[i];

		assert_string_equal(q->channel, "orders");
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s>%s %d/%d%s%s",
		                       i == 0 ? "" : "; ", q->site, q->domain, q->batch_no,
		                       q->state, q->reason == NULL ? "" : " ",
		                       q->reason == NULL ? "" : q->reason);
	}
	queue_list_clear(&l);
	return text;
}

static int64_t
change(enum queue_action action, const char *domain, struct uuid message_id)
{
	struct queue_change c = { .actor = "root@host",
		                  .action = action,
		                  .domain = domain,
		                  .message_id = message_id,
		                  .oldest = id_of(-1000),
		                  .now_us = NOW };

	assert_int_equal(RUN(store_queue_change, ctl, &c), STORE_OK);
	return c.changed;
}

static int
some_of_each(void **state)
{
	(void)empty(state);
	message(1, 1);
	message(2, 2);
	for (int i = 0; i < 5; i++) {
		batch(1, 1, 10 + i, 9, LANE_NORMAL, RANGE);
		batch(2, 2, 10 + i, 8, LANE_NORMAL, RANGE);
	}
	cluster_sql("UPDATE tmtp.batch SET state = batch_no - 10, attempts = 3, "
	            "reason = CASE WHEN batch_no = 12 THEN 'parked' END");
	cluster_sql(
	    "INSERT INTO tmtp.peer (domain_id, failures, reason, retry_at, failing_since) "
	    "VALUES "
	    "(8, 4, 'no route', 'infinity', now()), (7, 1, 'other', 'infinity', now())");
	return 0;
}

static void
test_administrators_see_what_waits_and_what_is_dead(void **state)
{
	(void)state;
	assert_string_equal(
	    list(NULL, false, 10),
	    "shop@s1.test>d9.test 10/0; shop@s1.test>d9.test 13/3; "
	    "shop@s2.test>d8.test 10/0 no route; shop@s2.test>d8.test 13/3 no route");
	assert_string_equal(list("d9.test", false, 1), "shop@s1.test>d9.test 10/0");
	assert_string_equal(
	    list("d8.test", true, 10),
	    "shop@s2.test>d8.test 12/2 parked; shop@s2.test>d8.test 14/4 no route");
	assert_string_equal(list("d7.test", false, 10), "");
}

static const char *
states(int site_id)
{
	return cluster_text(
	    "SELECT string_agg(state::text, '' ORDER BY batch_no) FROM tmtp.batch "
	    "WHERE site_id = %d",
	    site_id);
}

static void
test_administrators_retry_hold_resume_and_drop(void **state)
{
	static const struct uuid all;
	int64_t revision = cluster_int("SELECT number FROM tmtp.revision");

	(void)state;
	assert_int_equal(change(QUEUE_HOLD, "d9.test", all), 1);
	assert_string_equal(states(1), "31234");
	assert_int_equal(change(QUEUE_RESUME, "d9.test", all), 2);
	assert_string_equal(states(1), "01204");
	assert_int_equal(change(QUEUE_RETRY_NOW, NULL, id_of(2)), 3);
	assert_string_equal(states(2), "01004");
	assert_int_equal(cluster_int("SELECT sum(attempts) FROM tmtp.batch WHERE site_id = 2"),
	                 6);
	assert_string_equal(
	    cluster_text("SELECT string_agg(concat_ws(' ', domain_id, failures, "
	                 "retry_at), ', ' ORDER BY domain_id) FROM tmtp.peer"),
	    "7 1 infinity, 8 0");
	assert_int_equal(change(QUEUE_DROP, NULL, all), 6);
	assert_string_equal(states(1), "41444");
	assert_string_equal(states(2), "41444");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch WHERE done_at = "
	                             "to_timestamp(1800000000)"),
	                 6);
	assert_int_equal(change(QUEUE_HOLD, "none.test", all), 0); /* and is not audited */
	assert_string_equal(
	    cluster_text(
		"SELECT string_agg(concat_ws(' ', actor, action, subject, detail), '; ' "
		"ORDER BY audit_id) FROM tmtp.audit"),
	    cluster_text("SELECT concat('root@host queue-hold d9.test 1; root@host "
	                 "queue-release d9.test 2; "
	                 "root@host queue-retry %s 3; root@host queue-drop all 6')",
	                 id_text(2)));
	assert_int_equal(cluster_int("SELECT number FROM tmtp.revision"), revision + 4);
}

/* One delivery is a message to a domain; a retry leaves what is being tried, and begins its time anew. */
static void
test_one_delivery_and_what_a_retry_begins_anew(void **state)
{
	struct queue_list l = { .message_id = id_of(2), .limit = 1 };

	(void)state;
	batch(2, 2, 20, 9, LANE_NORMAL, RANGE);
	cluster_sql("UPDATE tmtp.batch SET lost_alone = 2");
	assert_int_equal(change(QUEUE_HOLD, "d9.test", id_of(2)), 1);
	assert_string_equal(states(1), "01234");
	assert_string_equal(states(2), "012343");
	cluster_sql("UPDATE tmtp.batch SET leased_until = to_timestamp(1800000060) "
	            "WHERE site_id = 2 AND batch_no = 10");
	assert_int_equal(change(QUEUE_RETRY_NOW, "d8.test", id_of(2)),
	                 2); /* the dead, the held */
	assert_string_equal(
	    cluster_text(
		"SELECT string_agg(concat_ws(' ', batch_no, state, lost_alone, "
		"revived_at = to_timestamp(1800000000), leased_until IS NOT NULL), '; ' "
		"ORDER BY batch_no) FROM tmtp.batch WHERE site_id = 2 AND domain_id = 8"),
	    "10 0 2 t; 11 1 2 f; 12 0 0 t f; 13 0 0 t f; 14 4 2 f");
	assert_string_equal(
	    cluster_text("SELECT subject FROM tmtp.audit ORDER BY audit_id LIMIT 1"),
	    cluster_text("SELECT '%s d9.test'", id_text(2)));
	/* Page by page. */
	for (int i = 0; i < 4; i++) {
		static const int expected[] = { 10, 12, 13, 20 };

		assert_int_equal(RUN(store_queue_list, ctl, &l), STORE_OK);
		assert_int_equal(l.rows_n, 1);
		assert_int_equal(l.rows[0].batch_no, expected[i]);
		l.after_message = l.rows[0].message_id;
		l.after_batch = l.rows[0].batch_no;
		l.after_site = l.rows[0].site_id;
		queue_list_clear(&l);
	}
	assert_int_equal(RUN(store_queue_list, ctl, &l), STORE_OK);
	assert_int_equal(l.rows_n, 0);
	queue_list_clear(&l);
}

/* --- Expiry ---------------------------------------------------------------- */

static size_t
expired(void (*call)(struct store *, struct queue_expire *), int64_t now_us, int64_t from_us,
        unsigned limit)
{
	struct queue_expire e = {
		.now_us = now_us, .from_us = from_us, .limit_s = 3600, .limit = limit
	};
	size_t n;

	assert_int_equal(RUN(call, relay, &e), STORE_OK);
	n = e.rows_n;
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(e.rows[i].domain, "d9.test");
		assert_int_equal(e.rows[i].recipients, 7);
		assert_non_null(e.rows[i].reason);
	}
	queue_expire_clear(&e);
	return n;
}

/* By its own word, whether its peer is there or not; what is held, on its way or over is left. */
static void
test_what_says_when_it_expires_is_given_up_then(void **state)
{
	(void)state;
	for (int n = 1; n <= 7; n++) {
		message(1, n);
		batch(1, n, 1, 9, LANE_NORMAL, RANGE);
	}
	cluster_sql("UPDATE tmtp.message SET expires_at = to_timestamp(1800000100) "
	            "WHERE message_id <> '%s'",
	            id_text(7));
	cluster_sql("UPDATE tmtp.batch SET state = 3 WHERE message_id = '%s'", id_text(3));
	cluster_sql("UPDATE tmtp.batch SET state = 1 WHERE message_id = '%s'", id_text(4));
	cluster_sql("UPDATE tmtp.batch SET leased_until = to_timestamp(1800000150), "
	            "lease_owner = gen_random_uuid() WHERE message_id IN ('%s', '%s')",
	            id_text(5), id_text(6));
	cluster_sql("INSERT INTO tmtp.peer (domain_id, held, failures, reason) "
	            "VALUES (9, true, 1, 'Z storage: full')");
	assert_int_equal(expired(store_queue_expire_own, NOW + 99 * S, 0, 10), 0);
	assert_int_equal(expired(store_queue_expire_own, NOW + 100 * S, NOW + 100 * S, 10), 0);
	assert_int_equal(expired(store_queue_expire_own, NOW + 100 * S, 0, 1), 1);
	assert_int_equal(expired(store_queue_expire_own, NOW + 100 * S, 0, 10), 1);
	assert_int_equal(expired(store_queue_expire_own, NOW + 100 * S, 0, 10), 0);
	assert_string_equal(cluster_text("SELECT DISTINCT concat_ws(' ', done_at = "
	                                 "to_timestamp(1800000100), reason) FROM tmtp.batch "
	                                 "WHERE state = 2"),
	                    "t expired before it could be delivered; last: Z storage: full");
	assert_int_equal(expired(store_queue_expire_own, NOW + 151 * S, 0, 10), 2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch WHERE state = 2"), 4);
}

/* Others after the operator's limit, which an administrator's retry begins anew. */
static void
test_what_does_not_say_is_given_up_after_the_limit(void **state)
{
	int64_t over = NOW + 3600 * S + 10000;

	(void)state;
	for (int n = 1; n <= 5; n++) {
		message(1, n);
		batch(1, n, 1, 9, LANE_NORMAL, RANGE);
	}
	message(1, 60000); /* a minute younger */
	batch(1, 60000, 1, 9, LANE_NORMAL, RANGE);
	cluster_sql("UPDATE tmtp.message SET expires_at = 'infinity' WHERE message_id = '%s'",
	            id_text(2));
	cluster_sql("UPDATE tmtp.batch SET revived_at = to_timestamp(1800000060) "
	            "WHERE message_id = '%s'",
	            id_text(3));
	cluster_sql("UPDATE tmtp.batch SET reason = 'lost' WHERE message_id = '%s'",
	            id_text(4));
	assert_int_equal(expired(store_queue_expire_limit, NOW + 3600 * S, 0, 10), 0);
	assert_int_equal(expired(store_queue_expire_limit, over, 0, 10), 3);
	assert_string_equal(
	    cluster_text("SELECT reason FROM tmtp.batch WHERE message_id = '%s'", id_text(1)),
	    "could not be delivered within the operator's limit");
	assert_string_equal(
	    cluster_text("SELECT reason FROM tmtp.batch WHERE message_id = '%s'", id_text(4)),
	    "could not be delivered within the operator's limit; last: lost");
	assert_int_equal(expired(store_queue_expire_limit, over + 61 * S, 0, 10), 2);
	assert_int_equal(expired(store_queue_expire_limit, over + 86400 * S, 0, 10), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch WHERE state = 0"), 1);
}

/* What DNS has said of a domain for two days is final, for what was tried since it began to say so. */
static void
test_what_dns_refuses_for_long_is_given_up(void **state)
{
	(void)state;
	for (int n = 1; n <= 4; n++) {
		message(1, n);
		batch(1, n, 1, n == 4 ? 8 : 9, LANE_NORMAL, RANGE);
	}
	cluster_sql("UPDATE tmtp.message SET accepted_at = to_timestamp(1800000000)");
	cluster_sql("UPDATE tmtp.message SET accepted_at = to_timestamp(1800000101) "
	            "WHERE message_id = '%s'",
	            id_text(2));
	cluster_sql("UPDATE tmtp.batch SET revived_at = to_timestamp(1800000101) "
	            "WHERE message_id = '%s'",
	            id_text(3));
	cluster_sql("INSERT INTO tmtp.peer (domain_id, failures, reason, refused_since, "
	            "refused_at) VALUES (8, 1, 'dead', NULL, NULL), (9, 1, 'no such name', "
	            "to_timestamp(1800000000), to_timestamp(1800000100))");
	assert_int_equal(expired(store_queue_expire_refused, NOW + 3599 * S, 0, 10), 0);
	assert_int_equal(expired(store_queue_expire_refused, NOW + 3600 * S, 0, 10), 1);
	assert_string_equal(
	    cluster_text("SELECT reason FROM tmtp.batch WHERE message_id = '%s'", id_text(1)),
	    "DNS has said for two days that the domain takes no DMTP; last: no such name");
	cluster_sql("UPDATE tmtp.peer SET refused_at = to_timestamp(1800000200) "
	            "WHERE domain_id = 9");
	assert_int_equal(expired(store_queue_expire_refused, NOW + 3600 * S, 0, 10), 2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.batch WHERE state = 0"), 1);
}

/* Of sessions that were lost with it alone; it outlives the claim. */
static void
test_lost_alone_is_counted_apart(void **state)
{
	struct queue_finish f = a_finish(QUEUE_RELEASE, 1, me);
	struct queue_claim c;

	(void)state;
	f.uncounted = f.alone = true;
	assert_int_equal(RUN(store_queue_finish, relay, &f), STORE_OK);
	c = a_claim(1, 9, other, NOW + S, 1);
	assert_int_equal(RUN(store_queue_claim, second, &c), STORE_OK);
	assert_int_equal(c.batches->batch_no, 1);
	assert_int_equal(c.batches->attempts, 1);
	assert_int_equal(c.batches->lost_alone, 1);
	assert_int_equal(c.batches->revived_us, -1);
	claim_free(&c);
}

/* What a worker has on its way is taken from it: its end finds no lease. */
static void
test_a_batch_on_its_way_is_changed_too(void **state)
{
	static const struct uuid all;
	struct queue_finish f = a_finish(QUEUE_DONE, 1, me);

	(void)state;
	assert_int_equal(change(QUEUE_HOLD, "d9.test", all), 5);
	assert_int_equal(RUN(store_queue_finish, relay, &f), STORE_NOT_FOUND);
	assert_string_equal(batch_text(1), "3 7 1");
	assert_string_equal(claim(relay, me, NOW + 100 * S, 5), "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_pairs_in_order_page_by_page, empty),
		cmocka_unit_test_setup(test_a_pair_with_many_batches_costs_one_step, empty),
		cmocka_unit_test_setup(test_pairs_of_peers_that_may_not_be_sent_to_are_not_told,
		                       empty),
		cmocka_unit_test_setup(test_names_of_a_pair, empty),
		cmocka_unit_test_setup(test_urgent_first_then_by_message, empty),
		cmocka_unit_test_setup(test_a_claim_tells_all_of_a_batch, empty),
		cmocka_unit_test_setup(test_a_lease_keeps_others_away_until_it_ends, empty),
		cmocka_unit_test_setup(test_what_is_not_due_or_not_waiting_is_not_claimed,
		                       empty),
		cmocka_unit_test_setup(test_two_workers_share_no_batch, empty),
		cmocka_unit_test_setup(test_a_claim_does_not_wait_for_another, empty),
		cmocka_unit_test_setup(test_a_list_has_its_members_states, empty),
		cmocka_unit_test_setup(test_claims_in_one_batch, empty),
		cmocka_unit_test_setup(test_a_range_is_who_held_the_channel_and_does, empty),
		cmocka_unit_test_setup(test_a_range_has_its_bounds, empty),
		cmocka_unit_test_setup(test_a_range_page_by_page, empty),
		cmocka_unit_test_setup(test_a_batch_ends_done_released_or_dead, claimed),
		cmocka_unit_test_setup(test_who_lost_the_lease_changes_nothing, claimed),
		cmocka_unit_test_setup(
		    test_exceptions_are_written_and_the_temporary_ones_come_again, claimed),
		cmocka_unit_test_setup(test_an_end_that_meets_an_administrator, claimed),
		cmocka_unit_test_setup(test_administrators_see_what_waits_and_what_is_dead,
		                       some_of_each),
		cmocka_unit_test_setup(test_administrators_retry_hold_resume_and_drop,
		                       some_of_each),
		cmocka_unit_test_setup(test_a_batch_on_its_way_is_changed_too, claimed),
		cmocka_unit_test_setup(test_lost_alone_is_counted_apart, claimed),
		cmocka_unit_test_setup(test_one_delivery_and_what_a_retry_begins_anew,
		                       some_of_each),
		cmocka_unit_test_setup(test_what_says_when_it_expires_is_given_up_then, empty),
		cmocka_unit_test_setup(test_what_does_not_say_is_given_up_after_the_limit,
		                       empty),
		cmocka_unit_test_setup(test_what_dns_refuses_for_long_is_given_up, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
