/* store/migrate.h: a schema is this program's, or the operator is told what to do. */
#include "cluster.h"

static int
setup(void **state)
{
	return cluster_setup(state);
}

/* Nothing of ours is there. */
static int
empty(void **state)
{
	(void)state;
	cluster_sql("SET client_min_messages = warning");
	cluster_sql("DROP SCHEMA IF EXISTS tmtp CASCADE");
	return 0;
}

static char why[8192];

static enum migrate_state
check(void)
{
	struct buffer text;
	enum migrate_state result;

	buffer_init(&text, sizeof(why) - 1);
	result = migrate_check(cluster_conninfo("tmtp_owner"), &text);
	buffer_add_u8(&text, '\0');
	(void)snprintf(why, sizeof(why), "%s", (char *)text.data);
	buffer_free(&text);
	return result;
}

static int told[16];
static size_t told_n;

static void
tell(const struct migration *m, void *arg)
{
	assert_ptr_equal(arg, told);
	if (told_n < 16)
		told[told_n++] = m->number;
}

static enum store_rc
run(void)
{
	struct buffer text;
	enum store_rc rc;

	told_n = 0;
	buffer_init(&text, sizeof(why) - 1);
	rc = migrate_run(cluster_conninfo("tmtp_owner"), tell, told, &text);
	buffer_add_u8(&text, '\0');
	(void)snprintf(why, sizeof(why), "%s", (char *)text.data);
	buffer_free(&text);
	return rc;
}

/* Runs the first n as a program would that knew no more. */
static void
as_of(size_t n)
{
	PGconn *pg = PQconnectdb(cluster_conninfo("tmtp_owner"));
	char number[8];

	for (size_t i = 0; i < n; i++) {
		const char *values[] = { number, migrations[i].name, migrations[i].sql };
		PGresult *r = PQexec(pg, migrations[i].sql);

		if (PQresultStatus(r) != PGRES_COMMAND_OK &&
		    PQresultStatus(r) != PGRES_TUPLES_OK)
			cluster_die(migrations[i].name, PQerrorMessage(pg));
		PQclear(r);
		(void)snprintf(number, sizeof(number), "%d", migrations[i].number);
		r = PQexecParams(pg,
		                 "INSERT INTO tmtp.schema_migration VALUES ($1::int, $2, "
		                 "encode(sha256(convert_to($3, 'UTF8')), 'hex'), now())",
		                 3, NULL, values, NULL, NULL, 0);
		if (PQresultStatus(r) != PGRES_COMMAND_OK)
			cluster_die(migrations[i].name, PQerrorMessage(pg));
		PQclear(r);
	}
	PQfinish(pg);
}

static int64_t
objects(void)
{
	return cluster_int(
	    "SELECT count(*) FROM pg_class WHERE relnamespace = 'tmtp'::regnamespace");
}

static void
test_the_program_has_numbered_migrations(void **state)
{
	(void)state;
	assert_true(migrations_count >= 3);
	for (size_t i = 0; i < migrations_count; i++) {
		/* They rise; one that is still being made elsewhere leaves a gap. */
		assert_true(migrations[i].number > (i == 0 ? 0 : migrations[i - 1].number));
		assert_true(strlen(migrations[i].name) > 4);
		assert_non_null(strstr(migrations[i].sql, "tmtp."));
	}
}

static void
test_from_nothing_to_current(void **state)
{
	(void)state;
	assert_int_equal(check(), MIGRATE_EMPTY);
	assert_non_null(strstr(why, "tmtpctl migrate"));
	assert_int_equal(run(), STORE_OK);
	assert_string_equal(why, "");
	assert_int_equal(told_n, migrations_count);
	assert_int_equal(told[0], 1);
	assert_int_equal(check(), MIGRATE_CURRENT);
	assert_string_equal(why, "");
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.schema_migration"),
	                 migrations_count);
	assert_int_equal(run(), STORE_OK); /* nothing to do */
	assert_int_equal(told_n, 0);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.schema_migration"),
	                 migrations_count);
}

static void
test_each_role_may_ask(void **state)
{
	static const char *const roles[] = { "tmtp_site", "tmtp_relay", "tmtp_home",
		                             "tmtp_panel", "tmtp_ctl" };
	struct buffer text;

	(void)state;
	buffer_init(&text, 1000);
	assert_int_equal(run(), STORE_OK);
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		assert_int_equal(migrate_check(cluster_conninfo(roles[i]), &text),
		                 MIGRATE_CURRENT);
	assert_int_equal(text.len, 0);
	buffer_free(&text);
}

static void
test_from_behind_only_what_is_missing_runs(void **state)
{
	(void)state;
	as_of(migrations_count - 1);
	cluster_sql(
	    "INSERT INTO tmtp.audit VALUES (gen_random_uuid(), now(), 'a', 'kept', 's')");
	assert_int_equal(check(), MIGRATE_BEHIND);
	assert_non_null(strstr(why, "tmtpctl migrate"));
	assert_int_equal(run(), STORE_OK);
	assert_int_equal(told_n, 1);
	assert_int_equal(told[0], migrations[migrations_count - 1].number);
	assert_int_equal(check(), MIGRATE_CURRENT);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.audit WHERE action = 'kept'"),
	                 1);
}

static void
test_a_newer_programs_schema_is_left_alone(void **state)
{
	int64_t before;

	(void)state;
	assert_int_equal(run(), STORE_OK);
	cluster_sql("INSERT INTO tmtp.schema_migration VALUES (99, '099_future', 'f', now())");
	before = objects();
	assert_int_equal(check(), MIGRATE_AHEAD);
	assert_non_null(strstr(why, "099_future"));
	assert_int_equal(run(), STORE_REFUSED);
	assert_non_null(strstr(why, "099_future"));
	assert_int_equal(told_n, 0);
	assert_int_equal(objects(), before);
}

static void
test_a_migration_of_another_text_is_told(void **state)
{
	(void)state;
	assert_int_equal(run(), STORE_OK);
	cluster_sql(
	    "UPDATE tmtp.schema_migration SET fingerprint = repeat('0', 64) WHERE number = 2");
	assert_int_equal(check(), MIGRATE_ALTERED);
	assert_non_null(strstr(why, migrations[1].name));
	assert_int_equal(run(), STORE_REFUSED);
	assert_non_null(strstr(why, migrations[1].name));
	/* Also when it is the one behind which there would be more to do. */
	cluster_sql("DELETE FROM tmtp.schema_migration WHERE number >= 3");
	assert_int_equal(check(), MIGRATE_ALTERED);
	cluster_sql("DELETE FROM tmtp.schema_migration WHERE number > 1");
	cluster_sql("UPDATE tmtp.schema_migration SET number = 77");
	assert_int_equal(check(), MIGRATE_ALTERED);
	assert_int_equal(run(), STORE_REFUSED);
}

/* What is in the way makes one fail: nothing of that one remains, all of those before it does.
 */
static void
test_a_migration_that_fails_leaves_nothing(void **state)
{
	int64_t before;

	(void)state;
	as_of(1);
	cluster_sql(
	    "CREATE TABLE tmtp.failure (of_somebody_else int)"); /* late in the second */
	before = objects();
	assert_int_equal(run(), STORE_REFUSED);
	assert_non_null(strstr(why, migrations[1].name));
	assert_non_null(strstr(why, "failure"));
	assert_int_equal(told_n, 1);
	assert_int_equal(objects(), before);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.schema_migration"), 1);
	assert_int_equal(check(), MIGRATE_BEHIND);
	cluster_sql("DROP TABLE tmtp.failure");
	assert_int_equal(run(), STORE_OK);
	assert_int_equal(check(), MIGRATE_CURRENT);
}

static void
test_a_database_that_cannot_be_asked(void **state)
{
	struct buffer text;

	(void)state;
	buffer_init(&text, 2000);
	assert_int_equal(migrate_check("host=/nonexistent/folder", &text), MIGRATE_DOWN);
	assert_true(text.len > 20);
	buffer_clear(&text);
	assert_int_equal(migrate_run("host=/nonexistent/folder", NULL, NULL, &text),
	                 STORE_DOWN);
	assert_true(text.len > 20);
	buffer_clear(&text);
	/* Who may not make tables is told so, and made none. */
	assert_int_equal(migrate_run(cluster_conninfo("tmtp_site"), NULL, NULL, &text),
	                 STORE_REFUSED);
	assert_true(text.len > 20);
	assert_int_equal(check(), MIGRATE_EMPTY);
	buffer_free(&text);
}

static char owner[192];

static void *
run_in_thread(void *arg)
{
	struct buffer text;

	buffer_init(&text, 1000);
	*(enum store_rc *)arg = migrate_run(owner, NULL, NULL, &text);
	buffer_free(&text);
	return NULL;
}

/* Both wait at the same gate, begin together, and each migration runs once. */
static void
test_two_at_once(void **state)
{
	pthread_t threads[4];
	enum store_rc rc[4];
	PGconn *gate = cluster_hold("SELECT pg_advisory_xact_lock(7309940831)");

	(void)state;
	(void)snprintf(owner, sizeof(owner), "%s", cluster_conninfo("tmtp_owner"));
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_in_thread, &rc[i]), 0);
	while (cluster_int(
		   "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE "
		   "NOT l.granted AND a.datname = current_database()") < 4)
		continue;
	cluster_release(gate);
	for (int i = 0; i < 4; i++) {
		(void)pthread_join(threads[i], NULL);
		assert_int_equal(rc[i], STORE_OK);
	}
	assert_int_equal(check(), MIGRATE_CURRENT);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.schema_migration"),
	                 migrations_count);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_program_has_numbered_migrations),
		cmocka_unit_test_setup(test_from_nothing_to_current, empty),
		cmocka_unit_test_setup(test_each_role_may_ask, empty),
		cmocka_unit_test_setup(test_from_behind_only_what_is_missing_runs, empty),
		cmocka_unit_test_setup(test_a_newer_programs_schema_is_left_alone, empty),
		cmocka_unit_test_setup(test_a_migration_of_another_text_is_told, empty),
		cmocka_unit_test_setup(test_a_migration_that_fails_leaves_nothing, empty),
		cmocka_unit_test_setup(test_a_database_that_cannot_be_asked, empty),
		cmocka_unit_test_setup(test_two_at_once, empty),
	};

	return cmocka_run_group_tests(tests, setup, cluster_teardown);
}
