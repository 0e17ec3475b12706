/* store/embedded.c: how to connect, and a whole life of a database in a process of its own. */
#include "store/embedded.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#include <cmocka.h>

static char base[] = "/tmp/test-embedded-XXXXXX";

static int
set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(base));
	assert_int_equal(chmod(base, 0755), 0);
	log_set_level(LOG_ERROR_LEVEL);
	return 0;
}

static int
tear_down(void **state)
{
	char command[64];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", base);
	return system(command);
}

static bool
conninfo_is(char *database, char *state_directory, const char *wanted)
{
	struct config config = { .database = database, .state_directory = state_directory };
	struct buffer out, error;
	bool same;

	buffer_init(&out, 4096);
	buffer_init(&error, 4096);
	same = embedded_conninfo(&config, "tmtp_site", &out, &error) &&
	       strcmp((const char *)out.data, wanted) == 0;
	if (!same)
		print_error("got %s %.*s\n", out.len > 0 ? (const char *)out.data : "nothing",
		            (int)error.len, (const char *)error.data);
	buffer_free(&out);
	buffer_free(&error);
	return same;
}

static void
test_another_database_gets_the_role_as_its_user(void **state)
{
	char keywords[] = "host=/run/postgresql passfile='/etc/a b'",
	     named[] = "dbname=mail user=me";
	char uri[] = "postgresql://db.test:5433/mail?sslmode=verify-full",
	     quote[] = "host=h dbname='a\\'b'";

	(void)state;
	assert_true(conninfo_is(
	    keywords, NULL,
	    "passfile='/etc/a b' host='/run/postgresql' dbname='tmtp' user='tmtp_site'"));
	assert_true(conninfo_is(named, NULL, "user='me' dbname='mail'"));
	assert_true(conninfo_is(
	    uri, NULL,
	    "dbname='mail' host='db.test' port='5433' sslmode='verify-full' user='tmtp_site'"));
	assert_true(conninfo_is(quote, NULL, "dbname='a\\'b' host='h' user='tmtp_site'"));
}

static void
test_a_wrong_connection_string_is_explained(void **state)
{
	char text[] = "host=h nonsense=1";
	struct config config = { .database = text };
	struct buffer out, error;

	(void)state;
	buffer_init(&out, 4096);
	buffer_init(&error, 4096);
	assert_false(embedded_conninfo(&config, "tmtp_site", &out, &error));
	assert_non_null(memmem(error.data, error.len, "nonsense", 8));
	assert_int_equal(error.data[error.len - 1] == '\n', 0);
	buffer_clear(&error);
	config = (struct config){ .state_directory = base };
	assert_false(embedded_conninfo(&config, "tmtp_site", &out, &error));
	assert_non_null(memmem(error.data, error.len, "start tmtpd first", 17));
	buffer_free(&out);
	buffer_free(&error);
}

static bool
ask(const struct config *config, const char *role, const char *sql, char *answer, size_t size)
{
	struct buffer out, error;
	PGresult *r = NULL;
	PGconn *pg = NULL;
	bool good;

	buffer_init(&out, 4096);
	buffer_init(&error, 4096);
	good = embedded_conninfo(config, role, &out, &error);
	if (good) {
		pg = PQconnectdb((const char *)out.data);
		r = PQexec(pg, sql);
		good = PQresultStatus(r) == PGRES_TUPLES_OK;
		if (good)
			(void)snprintf(answer, size, "%s", PQgetvalue(r, 0, 0));
	}
	PQclear(r);
	PQfinish(pg);
	buffer_free(&out);
	buffer_free(&error);
	return good;
}

/* So that it is the postmaster's parent and can end without a word. */
static int
life(const struct config *config)
{
	struct embedded *e = NULL, *second = NULL;
	struct buffer error;
	char answer[64] = "";
	int status, rc = 0;

	buffer_init(&error, 4096);
	if (embedded_start(config, NULL, &e, &error) != EMBEDDED_OK) {
		print_error("%.*s\n", (int)error.len, (const char *)error.data);
		return 10;
	}
	if (!ask(config, "tmtp_relay", "SELECT current_user", answer, sizeof(answer)) ||
	    strcmp(answer, "tmtp_relay") != 0)
		rc = 11;
	else if (ask(config, "nobody_at_all", "SELECT 1", answer, sizeof(answer)))
		rc = 12;
	else if (embedded_start(config, NULL, &second, &error) != EMBEDDED_FAILED ||
	         second != NULL)
		rc = 13; /* the lock */
	embedded_signal(e, SIGKILL);
	while (rc == 0 && embedded_alive(e, &status))
		(void)usleep(1000);
	if (rc == 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		rc = 14;
	if (rc == 0 && !embedded_relaunch(e, &error))
		rc = 15;
	for (int i = 0;
	     rc == 0 && !ask(config, "tmtp_site", "SELECT 1", answer, sizeof(answer)); i++) {
		if (i > 10000)
			rc = 16;
		(void)usleep(5000);
	}
	embedded_stop(&e);
	buffer_free(&error);
	return e != NULL ? 17 : rc;
}

static bool
say_no(void *calls)
{
	return ++*(int *)calls < 3;
}

static void
test_a_database_lives_and_comes_back(void **state)
{
	struct config config = { .embedded_memory_mb = 64 };
	char path[64], user[] = "nobody", answer[128];
	struct embedded_patience patience;
	struct embedded *e = NULL;
	struct buffer error;
	int calls = 0;
	struct stat st;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/state", base);
	config.state_directory = path;
	config.user = user;
	assert_int_equal(life(&config), 0);
	assert_false(
	    ask(&config, "tmtp_site", "SELECT 1", answer, sizeof(answer))); /* stopped */
	assert_int_equal(life(&config), 0); /* again on the same data */
	buffer_init(&error, 4096);
	patience = (struct embedded_patience){ .go_on = say_no, .arg = &calls };
	assert_int_equal(embedded_start(&config, &patience, &e, &error), EMBEDDED_CANCELLED);
	assert_null(e);
	(void)snprintf(answer, sizeof(answer), "%s/postgres/data.new", path);
	assert_int_equal(stat(answer, &st), -1);
	assert_int_equal(errno, ENOENT);
	buffer_free(&error);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_another_database_gets_the_role_as_its_user),
		cmocka_unit_test(test_a_wrong_connection_string_is_explained),
		cmocka_unit_test(test_a_database_lives_and_comes_back),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
