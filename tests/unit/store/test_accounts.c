/* store/accounts.h: accounts, log-ins, and their administration. */
#include "cluster.h"

#include "store/accounts.h"
#include "store/sites.h"

#define NOW INT64_C(1800000000000000)

static struct store *ctl, *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	ctl = cluster_store("tmtp_ctl", 1);
	home = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&ctl, 1000);
	store_stop(&home, 1000);
	return cluster_teardown(state);
}

static enum store_rc
change(enum account_change_kind kind, const char *name, const char *hash)
{
	struct account_change c = { .actor = "root@test",
		                    .kind = kind,
		                    .domain = "home.test",
		                    .name = name,
		                    .password_hash = hash,
		                    .id = id_make(),
		                    .now_us = NOW };

	return RUN(store_account_change, ctl, &c);
}

static struct account_get
get_of(const char *name)
{
	struct account_get get = { .domain = SLICE("home.test"), .name = slice_str(name) };

	(void)RUN(store_account_get, home, &get);
	return get;
}

static enum store_rc
token_add(int64_t account_id, uint8_t first, int64_t expires_us)
{
	struct account_token_add add = { .account_id = account_id,
		                         .hash = { first },
		                         .now_us = NOW,
		                         .expires_us = expires_us };

	return RUN(store_account_token_add, home, &add);
}

static struct account_token_get
token_of(int64_t account_id, uint8_t first, int64_t now_us)
{
	struct account_token_get get = { .account_id = account_id,
		                         .hash = { first },
		                         .now_us = now_us };

	(void)RUN(store_account_token_get, home, &get);
	return get;
}

static void
test_an_account_from_its_making_to_its_end(void **state)
{
	int64_t before = cluster_int("SELECT number FROM tmtp.revision");
	struct account_get get;

	(void)state;
	assert_int_equal(get_of("ann").job.rc, STORE_NOT_FOUND);
	assert_int_equal(change(ACCOUNT_CREATE, "ann", "$argon2id$1"), STORE_OK);
	assert_int_equal(change(ACCOUNT_CREATE, "ann", "$argon2id$2"), STORE_CONFLICT);
	get = get_of("ann");
	assert_int_equal(get.job.rc, STORE_OK);
	assert_string_equal(get.password_hash, "$argon2id$1");
	assert_int_equal(change(ACCOUNT_PASSWORD, "ann", "$argon2id$3"), STORE_OK);
	assert_string_equal(get_of("ann").password_hash, "$argon2id$3");
	assert_int_equal(change(ACCOUNT_DISABLE, "ann", NULL), STORE_OK);
	assert_int_equal(change(ACCOUNT_DISABLE, "ann", NULL), STORE_OK);
	get = get_of("ann");
	assert_int_equal(get.job.rc, STORE_NOT_FOUND);
	assert_string_equal(get.password_hash, "");
	assert_int_equal(change(ACCOUNT_ENABLE, "ann", NULL), STORE_OK);
	assert_int_equal(get_of("ann").job.rc, STORE_OK);
	assert_int_equal(cluster_int("SELECT number FROM tmtp.revision"), before + 4);
	assert_string_equal(
	    cluster_text("SELECT string_agg(action, ' ' ORDER BY audit_id) FROM tmtp.audit "
	                 "WHERE subject = 'ann@home.test'"),
	    "account-create account-password account-disable account-enable");
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.audit WHERE detail LIKE '%%argon%%'"), 0);
	assert_int_equal(change(ACCOUNT_PASSWORD, "nobody", "x"), STORE_NOT_FOUND);
	assert_int_equal(change(ACCOUNT_DISABLE, "nobody", NULL), STORE_NOT_FOUND);
	assert_int_equal(change(ACCOUNT_ENABLE, "nobody", NULL), STORE_NOT_FOUND);
}

static void
test_a_name_is_a_sites_or_an_accounts(void **state)
{
	struct site_change site = { .by.actor = "r",
		                    .kind = SITE_CREATE,
		                    .domain = "home.test",
		                    .name = "shop",
		                    .title = "t",
		                    .now_us = NOW,
		                    .id = id_make() };

	(void)state;
	assert_int_equal(RUN(store_site_change, ctl, &site), STORE_OK);
	assert_int_equal(change(ACCOUNT_CREATE, "shop", "x"), STORE_CONFLICT);
	assert_int_equal(change(ACCOUNT_CREATE, "orders.shop", "x"),
	                 STORE_CONFLICT); /* a channel's address */
	assert_int_equal(change(ACCOUNT_CREATE, "orders.other", "x"), STORE_OK);
	site.name = "ann";
	site.id = id_make();
	assert_int_equal(RUN(store_site_change, ctl, &site), STORE_CONFLICT);
}

static void
test_tokens_live_until_expiry_or_log_out(void **state)
{
	struct account_token_drop drop = { .hash = { 1 } };
	struct account_token_get get;
	int64_t ben;

	(void)state;
	assert_int_equal(change(ACCOUNT_CREATE, "ben", "x"), STORE_OK);
	ben = get_of("ben").account_id;
	drop.account_id = ben;
	assert_int_equal(token_add(ben, 1, NOW + 10), STORE_OK);
	assert_int_equal(token_add(ben, 1, NOW + 10),
	                 STORE_OK); /* repeated after a lost answer */
	assert_int_equal(token_add(ben, 2, NOW + 10), STORE_OK);
	get = token_of(ben, 1, NOW);
	assert_int_equal(get.job.rc, STORE_OK);
	assert_string_equal(get.address, "ben@home.test");
	assert_int_equal(get.expires_us, NOW + 10);
	assert_int_equal(token_of(ben, 1, NOW + 10).job.rc, STORE_NOT_FOUND);
	assert_int_equal(token_of(ben + 1, 1, NOW).job.rc,
	                 STORE_NOT_FOUND); /* another account's */
	assert_int_equal(RUN(store_account_token_drop, home, &drop), STORE_OK);
	assert_int_equal(token_of(ben, 1, NOW).job.rc, STORE_NOT_FOUND);
	assert_int_equal(token_of(ben, 2, NOW).job.rc, STORE_OK);
	assert_int_equal(token_add(ben, 3, NOW), STORE_OK); /* expired at once */
	assert_int_equal(token_add(ben, 4, NOW + 10), STORE_OK);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.account_token WHERE account_id = %lld",
	                (long long)ben),
	    2);
	assert_int_equal(token_add(12345, 1, NOW + 10), STORE_NOT_FOUND);
}

static void
test_a_new_password_or_a_ban_logs_out(void **state)
{
	int64_t cat;

	(void)state;
	assert_int_equal(change(ACCOUNT_CREATE, "cat", "x"), STORE_OK);
	cat = get_of("cat").account_id;
	assert_int_equal(token_add(cat, 1, NOW + 10), STORE_OK);
	assert_int_equal(change(ACCOUNT_PASSWORD, "cat", "y"), STORE_OK);
	assert_int_equal(token_of(cat, 1, NOW).job.rc, STORE_NOT_FOUND);
	assert_int_equal(token_add(cat, 1, NOW + 10), STORE_OK);
	assert_int_equal(change(ACCOUNT_DISABLE, "cat", NULL), STORE_OK);
	assert_int_equal(token_of(cat, 1, NOW).job.rc, STORE_NOT_FOUND);
	assert_int_equal(token_add(cat, 2, NOW + 10), STORE_NOT_FOUND);
	assert_int_equal(change(ACCOUNT_ENABLE, "cat", NULL), STORE_OK);
	assert_int_equal(token_of(cat, 1, NOW).job.rc,
	                 STORE_NOT_FOUND); /* it doesn't come back */
}

static void
test_pages_have_no_gaps_while_accounts_come(void **state)
{
	struct account_list list = { .domain = SLICE("pages.test"), .limit = 7 };
	char after[16] = "", name[16];
	int seen = 0;

	(void)state;
	cluster_sql("INSERT INTO tmtp.account SELECT 1000 + i, 'pages.test', 'a' || to_char(i, "
	            "'FM000'), 'x', now() "
	            "FROM generate_series(0, 98, 2) i");
	do {
		list.after = slice_str(after);
		assert_int_equal(RUN(store_account_list, ctl, &list), STORE_OK);
		for (size_t i = 0; i < list.rows_n; i++) {
			(void)snprintf(name, sizeof(name), "%.4s", list.rows[i].address);
			assert_true(strcmp(name, after) > 0);
			seen += (atoi(name + 1) & 1) == 0;
			(void)snprintf(after, sizeof(after), "%s", name);
		}
		cluster_sql(
		    "INSERT INTO tmtp.account SELECT 2000 + 10 * %d, 'pages.test', 'a' || "
		    "to_char(2 * %d + 1, 'FM000'), 'x', now() ON CONFLICT DO NOTHING",
		    seen, seen);
	} while (list.rows_n > 0 && (account_list_clear(&list), true));
	assert_int_equal(seen, 50);
	account_list_clear(&list);
}

/* One by its name says the same as a page does. */
static void
test_one_account_by_its_name(void **state)
{
	struct account_list list = { .domain = SLICE("pages.test"),
		                     .exact = SLICE("opens"),
		                     .limit = 1 };

	(void)state;
	cluster_sql(
	    "INSERT INTO tmtp.account VALUES (3000, 'pages.test', 'opens', 'x', now())");
	cluster_sql(
	    "INSERT INTO tmtp.mail_channel (account_id, open, changed_at) VALUES (3000, true, now())");
	assert_int_equal(RUN(store_account_list, ctl, &list), STORE_OK);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].address, "opens@pages.test");
	assert_true(list.rows[0].takes_mail);
	account_list_clear(&list);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_account_from_its_making_to_its_end),
		cmocka_unit_test(test_a_name_is_a_sites_or_an_accounts),
		cmocka_unit_test(test_tokens_live_until_expiry_or_log_out),
		cmocka_unit_test(test_a_new_password_or_a_ban_logs_out),
		cmocka_unit_test(test_pages_have_no_gaps_while_accounts_come),
		cmocka_unit_test(test_one_account_by_its_name),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
