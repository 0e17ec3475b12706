/* store/domain_keys.h: keys of our domains, and who may read what of them. */
#include "cluster.h"

#include "store/domain_keys.h"

#include <fcntl.h>

#define NOW INT64_C(1800000000000000)
#define DAY (INT64_C(86400) * 1000000)

static struct store *ctl, *site, *relay, *home;

static int
setup(void **state)
{
	if (cluster_setup(state) != 0)
		return -1;
	ctl = cluster_store("tmtp_ctl", 1);
	site = cluster_store("tmtp_site", 1);
	relay = cluster_store("tmtp_relay", 1);
	home = cluster_store("tmtp_home", 1);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&ctl, 1000);
	store_stop(&site, 1000);
	store_stop(&relay, 1000);
	store_stop(&home, 1000);
	return cluster_teardown(state);
}

static enum store_rc
change_by(struct store *store, enum domain_key_change_kind kind, const char *domain,
          const char *id, int64_t until_us)
{
	uint8_t key[32], seed[32];
	struct domain_key_change c = {
		.by = { .actor = "root@test" },
		.kind = kind,
		.domain = domain,
		.id = id,
		.public_key = slice_mem(key, sizeof(key)),
		.seed = slice_mem(seed, sizeof(seed)),
		.from_us = NOW - 31 * DAY,
		.until_us = until_us,
		.now_us = NOW,
	};

	memset(key, id[0], sizeof(key));
	memset(seed, id[1], sizeof(seed));
	return RUN(store_domain_key_change, store, &c);
}

static enum store_rc
change(enum domain_key_change_kind kind, const char *domain, const char *id, int64_t until_us)
{
	return change_by(ctl, kind, domain, id, until_us);
}

static struct domain_key_list
list_of(struct store *store, const char *domain, int64_t ended_after_us)
{
	struct domain_key_list list = { .domain = slice_str(domain),
		                        .ended_after_us = ended_after_us,
		                        .limit = 100 };

	assert_int_equal(RUN(store_domain_key_list, store, &list), STORE_OK);
	return list;
}

static size_t
secrets_of(const char *domain)
{
	struct domain_key_secrets s;
	size_t n = 0;

	assert_int_equal(RUN(store_domain_key_secrets, relay, &s), STORE_OK);
	for (size_t i = 0; i < s.rows_n; i++)
		n += strcmp(s.rows[i].domain, domain) == 0;
	domain_key_secrets_clear(&s);
	return n;
}

static int64_t
revision(void)
{
	return cluster_int("SELECT number FROM tmtp.revision");
}

static void
test_a_key_is_made_once_and_told(void **state)
{
	int64_t before = revision();
	struct domain_key_secrets s;
	struct domain_key_list list;

	(void)state;
	assert_int_equal(change(DOMAIN_KEY_MAKE, "a.test", "k1", NOW + DAY), STORE_OK);
	assert_int_equal(revision(), before + 1);
	assert_int_equal(change(DOMAIN_KEY_MAKE, "a.test", "k1", NOW + DAY), STORE_CONFLICT);
	assert_int_equal(revision(), before + 1);
	assert_int_equal(
	    cluster_int("SELECT count(*) FROM tmtp.audit WHERE actor = 'root@test' "
	                "AND action = 'domain-key-make' AND subject = 'a.test' AND "
	                "detail = 'k1'"),
	    1);
	list = list_of(site, "a.test", 0);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].id, "k1");
	assert_int_equal(list.rows[0].public_key[31], 'k');
	assert_int_equal(list.rows[0].created_us, NOW);
	assert_int_equal(list.rows[0].from_us, NOW - 31 * DAY);
	assert_int_equal(list.rows[0].until_us, NOW + DAY);
	assert_int_equal(list.rows[0].retired_us, -1);
	assert_int_equal(list.rows[0].revoked_us, -1);
	domain_key_list_clear(&list);
	assert_int_equal(RUN(store_domain_key_secrets, relay, &s), STORE_OK);
	assert_int_equal(s.rows_n, 1);
	assert_int_equal(s.rows[0].seed[0], '1');
	assert_string_equal(s.rows[0].domain, "a.test");
	domain_key_secrets_clear(&s);
	assert_null(s.rows);
}

static void
test_a_card_shows_what_has_not_ended_long_ago(void **state)
{
	struct domain_key_list list;

	(void)state;
	assert_int_equal(change(DOMAIN_KEY_MAKE, "b.test", "k1", NOW - 10 * DAY), STORE_OK);
	assert_int_equal(change(DOMAIN_KEY_MAKE, "b.test", "k2", NOW + DAY), STORE_OK);
	cluster_sql("UPDATE tmtp.domain_key SET created_at = created_at + interval '1 s' "
	            "WHERE domain = 'b.test' AND key_id = 'k2'");
	list = list_of(site, "b.test", NOW - 11 * DAY);
	assert_int_equal(list.rows_n, 2);
	assert_string_equal(list.rows[0].id, "k2"); /* the newest first */
	domain_key_list_clear(&list);
	list = list_of(site, "b.test", NOW - 9 * DAY);
	assert_int_equal(list.rows_n, 1);
	domain_key_list_clear(&list);
	assert_int_equal(change(DOMAIN_KEY_REVOKE, "b.test", "k2", 0), STORE_OK);
	list = list_of(site, "b.test", NOW - 11 * DAY);
	assert_int_equal(list.rows_n, 1);
	assert_string_equal(list.rows[0].id, "k1");
	domain_key_list_clear(&list);
	list = list_of(ctl, "b.test", 0); /* administrators see all */
	assert_int_equal(list.rows_n, 2);
	domain_key_list_clear(&list);
}

static void
test_retiring_never_makes_a_key_last_longer(void **state)
{
	struct domain_key_list list;

	(void)state;
	assert_int_equal(change(DOMAIN_KEY_MAKE, "c.test", "k1", NOW + 9 * DAY), STORE_OK);
	assert_int_equal(change(DOMAIN_KEY_RETIRE, "c.test", "k1", NOW + 2 * DAY), STORE_OK);
	assert_int_equal(change(DOMAIN_KEY_RETIRE, "c.test", "k1", NOW + 5 * DAY), STORE_OK);
	list = list_of(site, "c.test", 0);
	assert_int_equal(list.rows[0].until_us, NOW + 2 * DAY);
	assert_int_equal(list.rows[0].retired_us, NOW);
	domain_key_list_clear(&list);
	assert_int_equal(secrets_of("c.test"), 1); /* it signs what is dated before its end */
	assert_int_equal(change(DOMAIN_KEY_RETIRE, "c.test", "k9", NOW), STORE_NOT_FOUND);
	assert_int_equal(change(DOMAIN_KEY_RETIRE, "x.test", "k1", NOW), STORE_NOT_FOUND);
}

static void
test_a_revoked_key_loses_its_private_part(void **state)
{
	struct domain_key_list list;
	int64_t before;

	(void)state;
	assert_int_equal(change(DOMAIN_KEY_MAKE, "d.test", "k1", NOW + 9 * DAY), STORE_OK);
	assert_int_equal(secrets_of("d.test"), 1);
	assert_int_equal(change(DOMAIN_KEY_REVOKE, "d.test", "k1", 0), STORE_OK);
	assert_int_equal(secrets_of("d.test"), 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain_key_secret "
	                             "WHERE domain = 'd.test'"),
	                 0);
	list = list_of(ctl, "d.test", 0);
	assert_int_equal(list.rows[0].revoked_us, NOW);
	assert_int_equal(list.rows[0].until_us, NOW);
	domain_key_list_clear(&list);
	before = revision();
	assert_int_equal(change(DOMAIN_KEY_REVOKE, "d.test", "k1", 0), STORE_OK);
	assert_int_equal(revision(), before);
	assert_int_equal(change(DOMAIN_KEY_RETIRE, "d.test", "k1", NOW), STORE_CONFLICT);
	assert_int_equal(change(DOMAIN_KEY_MAKE, "d.test", "k1", NOW), STORE_CONFLICT);
	assert_int_equal(change(DOMAIN_KEY_REVOKE, "d.test", "k9", 0), STORE_NOT_FOUND);
}

static void
test_private_parts_are_forgotten_when_nothing_can_wait_for_them(void **state)
{
	struct domain_key_forget forget = { .ended_before_us = NOW };

	(void)state;
	assert_int_equal(change(DOMAIN_KEY_MAKE, "e.test", "k1", NOW - DAY), STORE_OK);
	assert_int_equal(change(DOMAIN_KEY_MAKE, "e.test", "k2", NOW + DAY), STORE_OK);
	assert_int_equal(secrets_of("e.test"), 2);
	assert_int_equal(RUN(store_domain_key_forget, relay, &forget), STORE_OK);
	assert_true(forget.forgotten >= 1);
	assert_int_equal(secrets_of("e.test"), 1);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain_key "
	                             "WHERE domain = 'e.test'"),
	                 2);
}

static void
test_only_the_relay_reads_private_parts(void **state)
{
	struct store *others[] = { site, home, ctl };

	(void)state;
	log_set_fd(open("/dev/null", 1));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct domain_key_secrets s;

		assert_int_equal(RUN(store_domain_key_secrets, others[i], &s), STORE_REFUSED);
		domain_key_secrets_clear(&s);
	}
	assert_int_equal(change_by(site, DOMAIN_KEY_MAKE, "f.test", "k1", NOW), STORE_REFUSED);
	assert_int_equal(change_by(relay, DOMAIN_KEY_MAKE, "f.test", "k1", NOW), STORE_REFUSED);
	log_set_fd(2);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.domain_key "
	                             "WHERE domain = 'f.test'"),
	                 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_key_is_made_once_and_told),
		cmocka_unit_test(test_a_card_shows_what_has_not_ended_long_ago),
		cmocka_unit_test(test_retiring_never_makes_a_key_last_longer),
		cmocka_unit_test(test_a_revoked_key_loses_its_private_part),
		cmocka_unit_test(
		    test_private_parts_are_forgotten_when_nothing_can_wait_for_them),
		cmocka_unit_test(test_only_the_relay_reads_private_parts),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
