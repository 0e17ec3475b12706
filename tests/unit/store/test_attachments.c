/* store/attachments.h: uploads, what they take, who names them, how long they stay. */
#include "cluster.h"

#include "store/attachments.h"

#define NOW INT64_C(1800000000000000) /* 2027-01-15T08:00:00Z */
#define S INT64_C(1000000)
#define QUOTA 1000

static struct store *store, *second;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	cluster_sql("SELECT tmtp.ensure_partitions('2027-01-14', '2027-01-20')");
	cluster_sql(
	    "INSERT INTO tmtp.site (site_id, domain, name, title, created_at) "
	    "SELECT i, 'shop.test', 's' || i, '', now() FROM generate_series(1, 2) AS i");
	store = cluster_store("tmtp_site", 1);
	second = cluster_store("tmtp_site", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&store, 1000);
	store_stop(&second, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("DELETE FROM tmtp.attachment; DELETE FROM tmtp.attachment_usage; "
	            "TRUNCATE tmtp.message");
	return 0;
}

static long long
used(int site)
{
	return cluster_int("SELECT coalesce(sum(octets), 0) FROM tmtp.attachment_usage "
	                   "WHERE site_id = %d",
	                   site);
}

/* An upload of a site that sets so many octets aside; full says that it can't. */
static struct uuid
begin(int site, int64_t reserve, bool full)
{
	struct attachment_begin b = { .site_id = site,
		                      .attachment_id = uuid_make(),
		                      .type = "text/plain; a=b",
		                      .reserve = reserve,
		                      .quota = QUOTA,
		                      .at_once = 5,
		                      .now_us = NOW,
		                      .keep_until_us = NOW + 60 * S };

	assert_int_equal(RUN(store_attachment_begin, store, &b), STORE_OK);
	assert_int_equal(b.full, full);
	return b.attachment_id;
}

static enum store_rc
part(int site, const struct uuid *id, int part_no, const char *text)
{
	struct attachment_part p = { .site_id = site,
		                     .attachment_id = *id,
		                     .part_no = part_no,
		                     .data = slice_str(text),
		                     .keep_until_us = NOW + 90 * S };

	return RUN(store_attachment_part, store, &p);
}

static struct attachment_end
end_of(int site, const struct uuid *id, uint8_t digest, int64_t size)
{
	return (struct attachment_end){ .site_id = site,
		                        .attachment_id = *id,
		                        .digest = { digest },
		                        .size = size,
		                        .keep_until_us = NOW + 3600 * S };
}

/* A whole one of this digest. */
static struct uuid
upload(int site, uint8_t digest, const char *text)
{
	struct uuid id = begin(site, 100, false);
	struct attachment_end e = end_of(site, &id, digest, (int64_t)strlen(text));

	assert_int_equal(part(site, &id, 0, text), STORE_OK);
	assert_int_equal(RUN(store_attachment_end, store, &e), STORE_OK);
	assert_true(e.fresh);
	return id;
}

static void
test_an_upload_in_parts(void **state)
{
	struct uuid id = begin(1, 100, false);
	struct attachment_end e = end_of(1, &id, 7, 6);
	struct attachment_read r = { .site_id = 1, .attachment_id = id, .part_no = 1 };

	(void)state;
	assert_int_equal(used(1), 100);
	assert_int_equal(part(1, &id, 0, "abc"), STORE_OK);
	assert_int_equal(part(1, &id, 1, "def"), STORE_OK);
	assert_int_equal(part(1, &id, 1, "def"), STORE_OK); /* an answer was lost */
	assert_int_equal(part(2, &id, 2, "ghi"), STORE_NOT_FOUND);
	assert_int_equal(RUN(store_attachment_end, store, &e), STORE_OK);
	assert_true(e.fresh);
	assert_string_equal(e.type, "text/plain; a=b");
	assert_int_equal(used(1), 6);
	e.type[0] = '\0';
	assert_int_equal(RUN(store_attachment_end, store, &e), STORE_OK);
	assert_true(e.fresh);
	assert_int_equal(used(1), 6);
	assert_int_equal(part(1, &id, 2, "ghi"), STORE_NOT_FOUND);
	assert_int_equal(RUN(store_attachment_read, store, &r), STORE_OK);
	assert_memory_equal(r.data, "def", r.len);
	free(r.data);
	r.part_no = 2;
	assert_int_equal(RUN(store_attachment_read, store, &r), STORE_NOT_FOUND);
}

static void
test_the_same_digest_is_the_same_attachment(void **state)
{
	struct uuid first = upload(1, 7, "abc"), again = begin(1, 50, false), other;
	struct attachment_end e = end_of(1, &again, 7, 3);

	(void)state;
	assert_int_equal(part(1, &again, 0, "abc"), STORE_OK);
	e.keep_until_us = NOW + 7200 * S;
	assert_int_equal(RUN(store_attachment_end, store, &e), STORE_OK);
	assert_false(e.fresh);
	assert_int_equal(used(1), 3);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.attachment_part"), 1);
	assert_int_equal(
	    cluster_int("SELECT extract(epoch FROM keep_until)::int8 FROM tmtp.attachment"),
	    NOW / S + 7200);
	other = upload(2, 7, "abc"); /* another site's is another */
	assert_memory_not_equal(&first, &other, sizeof(first));
}

static void
test_two_uploads_of_it_that_end_at_once(void **state)
{
	struct uuid a = begin(1, 50, false), b = begin(1, 50, false);
	struct attachment_end e = end_of(1, &b, 9, 3);
	PGconn *pg;

	(void)state;
	assert_int_equal(part(1, &b, 0, "abc"), STORE_OK);
	{
		char sql[256], text[UUID_TEXT];

		uuid_format(&a, text);
		(void)snprintf(sql, sizeof(sql),
		               "UPDATE tmtp.attachment SET state = 1, size = 3, "
		               "digest = decode('09' || repeat('00', 31), 'hex') "
		               "WHERE attachment_id = '%s'",
		               text);
		pg = cluster_hold(sql);
	}
	SUBMIT(store_attachment_end, store, &e);
	cluster_blocked();
	cluster_release(pg);
	waiting_all();
	if (e.job.rc == STORE_CONFLICT)
		assert_int_equal(RUN(store_attachment_end, store, &e), STORE_OK);
	assert_int_equal(e.job.rc, STORE_OK);
	assert_false(e.fresh);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.attachment"), 1);
}

static void
test_the_quota_counts_what_is_under_way(void **state)
{
	struct uuid id = begin(1, QUOTA - 100, false);
	struct attachment_drop drop = { .site_id = 1, .attachment_id = id };

	(void)state;
	(void)begin(1, 101, true);
	(void)begin(1, 100, false);
	(void)begin(1, 1, true);
	(void)begin(2, QUOTA, false);
	(void)begin(2, QUOTA + 1, true);
	assert_int_equal(RUN(store_attachment_drop, store, &drop), STORE_OK);
	assert_int_equal(RUN(store_attachment_drop, store, &drop), STORE_OK);
	assert_int_equal(used(1), 100);
	(void)begin(1, QUOTA - 100, false);
	cluster_sql("DELETE FROM tmtp.attachment_usage");
	(void)begin(1, QUOTA + 1, true); /* the first one may not take too much either */
}

static void
test_so_many_at_once(void **state)
{
	struct attachment_begin b = {
		.site_id = 1, .type = "a/b", .reserve = 1, .quota = QUOTA, .at_once = 2
	};

	(void)state;
	for (int i = 0; i < 3; i++) {
		b.attachment_id = uuid_make();
		assert_int_equal(RUN(store_attachment_begin, store, &b), STORE_OK);
		assert_int_equal(b.busy, i == 2);
		assert_false(b.full);
	}
	b.site_id = 2;
	assert_int_equal(RUN(store_attachment_begin, store, &b), STORE_OK);
	assert_false(b.busy);
	assert_int_equal(used(1), 2);
}

static void
test_a_complete_one_is_not_dropped(void **state)
{
	struct uuid id = upload(1, 7, "abc");
	struct attachment_drop drop = { .site_id = 1, .attachment_id = id };

	(void)state;
	assert_int_equal(RUN(store_attachment_drop, store, &drop), STORE_OK);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.attachment_part"), 1);
	assert_int_equal(used(1), 3);
}

static enum store_rc
name(int site, const struct uuid *message, struct attachment_named *named, size_t n,
     int64_t until_us)
{
	struct attachment_name m = { .site_id = site,
		                     .message_id = *message,
		                     .named = named,
		                     .named_n = n,
		                     .keep_until_us = until_us,
		                     .slack_us = 100 * S };

	return RUN(store_attachment_name, store, &m);
}

static void
test_naming_is_all_or_nothing(void **state)
{
	struct uuid a = upload(1, 1, "a"), message = uuid_floor(NOW);
	struct attachment_named named[2] = { { .digest = { 2 } }, { .digest = { 1 } } };

	(void)state;
	(void)upload(2, 2, "bb");
	assert_int_equal(name(1, &message, named, 2, NOW + 9000 * S), STORE_NOT_FOUND);
	assert_false(named[0].found);
	assert_true(named[1].found);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message_attachment"), 0);
	(void)upload(1, 2, "bb");
	assert_int_equal(name(1, &message, named, 2, NOW + 9000 * S), STORE_OK);
	assert_int_equal(named[0].size, 2);
	assert_memory_equal(&named[1].attachment_id, &a, sizeof(a));
	assert_string_equal(named[1].type, "text/plain; a=b");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.message_attachment"), 2);
	assert_int_equal(name(1, &message, named, 2, NOW + 9050 * S),
	                 STORE_OK); /* within the slack */
	assert_int_equal(
	    cluster_int(
		"SELECT max(extract(epoch FROM keep_until))::int8 FROM tmtp.attachment"),
	    NOW / S + 9000);
}

static void
message(const struct uuid *id, int audience, bool recalled)
{
	char text[UUID_TEXT];

	uuid_format(id, text);
	cluster_sql(
	    "INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, accepted_at, "
	    "date_s, size, digest, body, recalled_at) VALUES (1, '%s', 1, %d, 0, now(), 0, 1, '', '', %s)",
	    text, audience, recalled ? "now()" : "NULL");
}

static struct attachment_find
find(const struct uuid *id, uint8_t digest)
{
	struct attachment_find f = { .site_id = 1, .attachment_id = *id, .digest = { digest } };

	(void)RUN(store_attachment_find, store, &f);
	return f;
}

static void
test_it_is_found_while_a_message_has_it(void **state)
{
	struct uuid id = upload(1, 1, "abc"),
		    m[3] = { uuid_floor(NOW), uuid_floor(NOW + S), uuid_floor(NOW + 2 * S) };
	struct attachment_named named = { .digest = { 1 } };

	(void)state;
	assert_int_equal(find(&id, 1).job.rc, STORE_NOT_FOUND);
	assert_int_equal(name(1, &m[0], &named, 1, NOW), STORE_OK);
	assert_int_equal(find(&id, 1).job.rc, STORE_NOT_FOUND); /* the push failed then */
	message(&m[0], 0, false);
	assert_int_equal(find(&id, 1).job.rc, STORE_OK);
	assert_int_equal(find(&id, 1).size, 3);
	assert_false(find(&id, 1).shared);
	assert_int_equal(find(&id, 2).job.rc, STORE_NOT_FOUND);
	message(&m[1], 0, true);
	assert_int_equal(name(1, &m[1], &named, 1, NOW), STORE_OK);
	assert_true(find(&id, 1).shared); /* two may fetch it */
	assert_false(find(&id, 1).recalled);
	cluster_sql("UPDATE tmtp.message SET recalled_at = now()");
	assert_true(find(&id, 1).recalled);
	message(&m[2], 2, false);
	assert_int_equal(name(1, &m[2], &named, 1, NOW), STORE_OK);
	assert_false(find(&id, 1).recalled);
	assert_true(find(&id, 1).shared);
}

static int64_t
reap(int64_t now_us, unsigned limit)
{
	struct attachment_reap r = { .now_us = now_us, .limit = limit };

	assert_int_equal(RUN(store_attachment_reap, store, &r), STORE_OK);
	return r.forgotten;
}

static void
test_what_is_over_is_forgotten(void **state)
{
	struct uuid under_way = begin(1, 100, false), kept = upload(1, 1, "abc"),
		    message_id = uuid_floor(NOW);
	struct attachment_named named = { .digest = { 1 } };

	(void)state;
	(void)upload(1, 2, "defg");
	(void)upload(2, 2, "defg");
	assert_int_equal(name(1, &message_id, &named, 1, NOW + 9000 * S), STORE_OK);
	assert_int_equal(reap(NOW + 59 * S, 10), 0);
	assert_int_equal(part(1, &under_way, 0, "x"), STORE_OK); /* moves it on */
	assert_int_equal(reap(NOW + 61 * S, 10), 0);
	assert_int_equal(reap(NOW + 91 * S, 10), 1);
	assert_int_equal(part(1, &under_way, 1, "x"), STORE_NOT_FOUND);
	assert_int_equal(used(1), 7);
	assert_int_equal(reap(NOW + 3601 * S, 1), 1);
	assert_int_equal(reap(NOW + 3601 * S, 1), 1);
	assert_int_equal(reap(NOW + 3601 * S, 1), 0);
	assert_int_equal(used(1), 3);
	assert_int_equal(used(2), 0);
	assert_int_equal(reap(NOW + 9001 * S, 10), 1);
	assert_int_equal(used(1), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.attachment_part"), 0);
	assert_int_equal(find(&kept, 1).job.rc, STORE_NOT_FOUND);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_an_upload_in_parts, empty),
		cmocka_unit_test_setup(test_the_same_digest_is_the_same_attachment, empty),
		cmocka_unit_test_setup(test_two_uploads_of_it_that_end_at_once, empty),
		cmocka_unit_test_setup(test_the_quota_counts_what_is_under_way, empty),
		cmocka_unit_test_setup(test_so_many_at_once, empty),
		cmocka_unit_test_setup(test_a_complete_one_is_not_dropped, empty),
		cmocka_unit_test_setup(test_naming_is_all_or_nothing, empty),
		cmocka_unit_test_setup(test_it_is_found_while_a_message_has_it, empty),
		cmocka_unit_test_setup(test_what_is_over_is_forgotten, empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
