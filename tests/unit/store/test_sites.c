/* store/sites.h: what administrators change, and what the site role then sees. */
#include "cluster.h"

#include "store/sites.h"

#include <fcntl.h>

#define NOW INT64_C(1800000000000000)

static struct store *ctl, *site, *panel;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	ctl = cluster_store("tmtp_ctl", 2);
	site = cluster_store("tmtp_site", 1);
	panel = cluster_store("tmtp_panel", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&ctl, 1000);
	store_stop(&site, 1000);
	store_stop(&panel, 1000);
	return cluster_teardown(state);
}

static enum store_rc
change(struct store *store, struct site_change c)
{
	c.by.actor = "root@test";
	c.now_us = NOW;
	c.id = id_make();
	return RUN(store_site_change, store, &c);
}

static enum store_rc
create(const char *name)
{
	return change(ctl, (struct site_change){ .kind = SITE_CREATE,
	                                         .domain = "shop.test",
	                                         .name = name,
	                                         .title = "A shop" });
}

static int64_t
revision_now(void)
{
	struct revision_get get = { .number = 0 };

	assert_int_equal(RUN(store_revision_get, site, &get), STORE_OK);
	return get.number;
}

static void
test_a_site_is_created_once_told_and_counted(void **state)
{
	int64_t before = revision_now();
	struct site_list list = { .domain = SLICE("shop.test"), .name = SLICE("one") };

	(void)state;
	assert_int_equal(create("one"), STORE_OK);
	assert_int_equal(revision_now(), before + 1);
	assert_int_equal(
	    cluster_int(
		"SELECT count(*) FROM tmtp.audit WHERE actor = 'root@test' AND "
		"action = 'site-create' AND subject = 'one@shop.test' AND detail = 'A shop'"),
	    1);
	assert_int_equal(create("one"), STORE_CONFLICT);
	assert_int_equal(revision_now(), before + 1); /* a conflict changes nothing */
	assert_int_equal(RUN(store_site_list, panel, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].address, "one@shop.test");
	assert_string_equal(list.rows[0].title, "A shop");
	assert_int_equal(list.rows[0].created_us, NOW);
	assert_int_equal(list.rows[0].suspended_us, -1);
	site_list_clear(&list);
	list.name = SLICE("none");
	assert_int_equal(RUN(store_site_list, ctl, &list), STORE_NOT_FOUND);
	site_list_clear(&list);
}

/* Many at once share a transaction: the one whose name is taken must not spoil the others. */
static void
test_a_conflict_spoils_no_neighbour(void **state)
{
	struct site_change c[6];
	static const char *const names[] = { "n0", "n1", "n0", "n2", "n1", "n3" };
	int ok = 0, taken = 0;

	(void)state;
	for (int i = 0; i < 6; i++)
		c[i] = (struct site_change){ .by.actor = "a",
			                     .kind = SITE_CREATE,
			                     .domain = "many.test",
			                     .name = names[i],
			                     .title = "t",
			                     .id = id_make(),
			                     .now_us = NOW };
	for (int i = 0; i < 6; i++)
		SUBMIT(store_site_change, ctl, &c[i]);
	waiting_all();
	for (int i = 0; i < 6; i++) {
		ok += c[i].job.rc == STORE_OK;
		taken += c[i].job.rc == STORE_CONFLICT;
	}
	assert_int_equal(ok, 4);
	assert_int_equal(taken, 2);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.site WHERE domain = 'many.test'"), 4);
}

static void
test_sites_and_accounts_share_their_names(void **state)
{
	(void)state;
	cluster_sql("INSERT INTO tmtp.local_name VALUES ('shop.test', 'ann', 'account', 7)");
	assert_int_equal(create("ann"), STORE_CONFLICT);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.site WHERE name = 'ann'"), 0);
}

static struct site_key_get
key_of(const char *name, const char *kid)
{
	struct site_key_get get = { .domain = SLICE("shop.test"),
		                    .name = slice_str(name),
		                    .kid = slice_str(kid) };

	(void)RUN(store_site_key_get, site, &get);
	return get;
}

static void
test_a_key_is_found_until_it_is_revoked(void **state)
{
	struct site_change add = { .kind = SITE_KEY_ADD,
		                   .domain = "shop.test",
		                   .name = "keyed",
		                   .kid = "k1",
		                   .algorithm = "ES256",
		                   .material = SLICE("a\0key") };
	struct site_change end = {
		.kind = SITE_KEY_REVOKE, .domain = "shop.test", .name = "keyed", .kid = "k1"
	};
	struct site_key_get get;

	(void)state;
	assert_int_equal(change(ctl, add), STORE_NOT_FOUND); /* no site yet */
	assert_int_equal(create("keyed"), STORE_OK);
	assert_int_equal(change(ctl, add), STORE_OK);
	assert_int_equal(change(ctl, add), STORE_CONFLICT);
	get = key_of("keyed", "k1");
	assert_int_equal(get.job.rc, STORE_OK);
	assert_string_equal(get.algorithm, "ES256");
	assert_int_equal(get.material_len, 5);
	assert_memory_equal(get.material, "a\0key", 5);
	assert_false(get.suspended);
	site_key_get_clear(&get);
	assert_int_equal(key_of("keyed", "k2").job.rc, STORE_NOT_FOUND);
	assert_int_equal(key_of("one", "k1").job.rc, STORE_NOT_FOUND); /* another site's */

	assert_int_equal(change(ctl, (struct site_change){ .kind = SITE_SUSPEND,
	                                                   .domain = "shop.test",
	                                                   .name = "keyed" }),
	                 STORE_OK);
	get = key_of("keyed", "k1");
	assert_true(get.suspended);
	site_key_get_clear(&get);
	assert_int_equal(change(ctl, (struct site_change){ .kind = SITE_RESUME,
	                                                   .domain = "shop.test",
	                                                   .name = "keyed" }),
	                 STORE_OK);
	get = key_of("keyed", "k1");
	assert_false(get.suspended);
	site_key_get_clear(&get);

	assert_int_equal(change(ctl, end), STORE_OK);
	assert_int_equal(key_of("keyed", "k1").job.rc, STORE_NOT_FOUND);
	assert_int_equal(change(ctl, end), STORE_OK);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.audit WHERE action = 'key-revoke'"), 1);
	end.kid = "k9";
	assert_int_equal(change(ctl, end), STORE_NOT_FOUND);
	add.kid = "k3";
	add.algorithm = "none";
	assert_int_equal(change(ctl, add), STORE_REFUSED);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.audit WHERE detail LIKE '%%a key%%'"), 0);
}

/* Lookups that wait together are one execution: each gets its own answer. */
static void
test_keys_and_tokens_in_one_batch(void **state)
{
	struct site_token_get t[40];
	struct site_change add = { .kind = SITE_TOKEN_ADD,
		                   .domain = "shop.test",
		                   .name = "batch" };
	char label[16];
	uint8_t hash[32] = { 0 };
	int64_t id;

	(void)state;
	assert_int_equal(create("batch"), STORE_OK);
	id = cluster_int("SELECT site_id FROM tmtp.site WHERE name = 'batch'");
	for (int i = 0; i < 40; i += 2) {
		hash[0] = (uint8_t)i;
		(void)snprintf(label, sizeof(label), "t%d", i);
		add.label = label;
		add.material = slice_mem(hash, 32);
		add.scopes = i % 4 == 0 ? "push members" : "read";
		add.expires_us = i < 20 ? NOW + i : -1;
		assert_int_equal(change(ctl, add), STORE_OK);
	}
	for (int i = 0; i < 40; i++) {
		t[i] = (struct site_token_get){ .site_id = i == 39 ? id + 1 : id,
			                        .now_us = NOW + 5 };
		t[i].hash[0] = (uint8_t)i;
		if (i == 39)
			t[i].hash[0] = 38; /* right token, wrong site */
		SUBMIT(store_site_token_get, site, &t[i]);
	}
	waiting_all();
	for (int i = 0; i < 40; i++) {
		bool valid = i % 2 == 0 && i > 4; /* expired: up to and with NOW + 5 */

		assert_int_equal(t[i].job.rc, valid ? STORE_OK : STORE_NOT_FOUND);
		if (valid) {
			assert_string_equal(t[i].scopes, i % 4 == 0 ? "push members" : "read");
			assert_string_equal(t[i].site_name, "batch");
			assert_string_equal(t[i].site_domain, "shop.test");
			assert_int_equal(t[i].expires_us, i < 20 ? NOW + i : -1);
		}
		site_token_get_clear(&t[i]);
	}
}

static void
test_a_token_ends_when_revoked(void **state)
{
	struct site_change add = { .kind = SITE_TOKEN_ADD,
		                   .domain = "shop.test",
		                   .name = "tok",
		                   .label = "ci",
		                   .scopes = "push",
		                   .expires_us = -1 };
	struct site_token_get get = { .now_us = NOW };
	struct credential_list list = { .domain = "shop.test", .name = "tok" };
	uint8_t hash[32];

	(void)state;
	memset(hash, 0x77, sizeof(hash));
	memcpy(get.hash, hash, sizeof(hash));
	add.material = slice_mem(hash, 32);
	assert_int_equal(create("tok"), STORE_OK);
	assert_int_equal(RUN(store_credential_list, ctl, &list), STORE_OK);
	assert_int_equal(list.rows_n, 0);
	credential_list_clear(&list);
	assert_int_equal(change(ctl, add), STORE_OK);
	get.site_id = cluster_int("SELECT site_id FROM tmtp.site WHERE name = 'tok'");
	assert_int_equal(RUN(store_site_token_get, site, &get), STORE_OK);
	site_token_get_clear(&get);
	add.kind = SITE_TOKEN_REVOKE;
	assert_int_equal(change(panel, add), STORE_OK);
	assert_int_equal(RUN(store_site_token_get, site, &get), STORE_NOT_FOUND);
	assert_int_equal(RUN(store_credential_list, ctl, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_true(list.rows[0].is_token);
	assert_string_equal(list.rows[0].label, "ci");
	assert_string_equal(list.rows[0].what, "push");
	assert_int_equal(list.rows[0].expires_us, -1);
	assert_int_equal(list.rows[0].revoked_us, NOW);
	credential_list_clear(&list);
	list.name = "none";
	assert_int_equal(RUN(store_credential_list, ctl, &list), STORE_NOT_FOUND);
	add.label = "other";
	assert_int_equal(change(ctl, add), STORE_NOT_FOUND);
}

static void
test_channels_of_a_site(void **state)
{
	struct site_change add = {
		.kind = CHANNEL_CREATE, .domain = "shop.test", .name = "chan", .title = "Orders"
	};
	struct channel_list list = { .name = SLICE("orders") };

	(void)state;
	add.channel = "orders";
	assert_int_equal(create("chan"), STORE_OK);
	assert_int_equal(change(ctl, add), STORE_OK);
	assert_int_equal(change(ctl, add), STORE_CONFLICT);
	add.channel = "news";
	assert_int_equal(change(ctl, add), STORE_OK);
	cluster_sql(
	    "INSERT INTO tmtp.local_name VALUES ('shop.test', 'bea.chan', 'account', 8)");
	add.channel = "bea"; /* its address is an account's */
	assert_int_equal(change(ctl, add), STORE_CONFLICT);

	list.site_id = cluster_int("SELECT site_id FROM tmtp.site WHERE name = 'chan'");
	cluster_sql("INSERT INTO tmtp.chunk SELECT site_id, channel_id, 1, x, NULL, 3 FROM "
	            "tmtp.channel, "
	            "(VALUES ('a'), ('b')) AS v(x) WHERE name = 'orders'");
	assert_int_equal(RUN(store_channel_list, site, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].name, "orders");
	assert_string_equal(list.rows[0].title, "Orders");
	assert_int_equal(list.rows[0].members, 6);
	assert_int_equal(list.rows[0].closed_us, -1);
	channel_list_clear(&list);

	add.kind = CHANNEL_CLOSE;
	add.channel = "orders";
	assert_int_equal(change(ctl, add), STORE_OK);
	assert_int_equal(RUN(store_channel_list, site, &list), STORE_OK); /* shown as closed */
	assert_int_equal(list.rows_n, 1);
	assert_int_equal(list.rows[0].closed_us, NOW);
	channel_list_clear(&list);
	list.name = SLICE("");
	assert_int_equal(RUN(store_channel_list, site, &list), STORE_OK);
	assert_int_equal(list.rows_n, 2);
	assert_string_equal(list.rows[0].name, "news");
	assert_int_equal(list.rows[1].closed_us, NOW);
	channel_list_clear(&list);
	list.name = SLICE("news");
	list.site_id++; /* another site */
	assert_int_equal(RUN(store_channel_list, site, &list), STORE_NOT_FOUND);
}

/* The site role reads; what administrators do is not its to do. */
static void
test_the_site_role_changes_nothing(void **state)
{
	(void)state;
	log_set_fd(open("/dev/null", 1));
	assert_int_equal(change(site, (struct site_change){ .kind = SITE_CREATE,
	                                                    .domain = "shop.test",
	                                                    .name = "evil",
	                                                    .title = "x" }),
	                 STORE_REFUSED);
	log_set_fd(2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.site WHERE name = 'evil'"), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_site_is_created_once_told_and_counted),
		cmocka_unit_test(test_a_conflict_spoils_no_neighbour),
		cmocka_unit_test(test_sites_and_accounts_share_their_names),
		cmocka_unit_test(test_a_key_is_found_until_it_is_revoked),
		cmocka_unit_test(test_keys_and_tokens_in_one_batch),
		cmocka_unit_test(test_a_token_ends_when_revoked),
		cmocka_unit_test(test_channels_of_a_site),
		cmocka_unit_test(test_the_site_role_changes_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
