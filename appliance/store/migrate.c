/* Schema versions: see migrate.h. Blocking: for start-up and tmtpctl only. */
#include "store/migrate.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/link.h"

#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define MIGRATE_LOCK "7309940831" /* any number of ours: pg_advisory_xact_lock */
#define CONNECT_S "10"
#define LOOK_MS 10000 /* for an answer about the schema */

/* The text's fingerprint: a migration that was edited after it ran is noticed. */
static void
fingerprint(const struct migration *m, char out[static 65])
{
	uint8_t hash[crypto_hash_sha256_BYTES];

	crypto_hash_sha256(hash, (const unsigned char *)m->sql, strlen(m->sql));
	hex_encode(hash, sizeof(hash), out);
}

static void
say(struct buffer *why, const char *text, const PGconn *pg)
{
	const char *error = pg == NULL ? "" : PQerrorMessage(pg);
	size_t len = strlen(error);

	while (len > 0 && error[len - 1] == '\n')
		len--;
	buffer_add_str(why, text);
	if (len > 0)
		buffer_add_str(why, ": ");
	buffer_add(why, error, len);
}

static PGconn *
connect_blocking(const char *conninfo, struct buffer *why)
{
	const char *const keys[] = { LINK_KEYS, "connect_timeout", "dbname", NULL };
	const char *const values[] = { LINK_VALUES, CONNECT_S, conninfo, NULL };
	PGconn *pg = PQconnectdbParams(keys, values, 1);

	if (pg != NULL && PQstatus(pg) == CONNECTION_OK)
		return pg;
	say(why, "cannot connect to the database", pg);
	PQfinish(pg);
	return NULL;
}

/*
 * A query's result; NULL when none came in time. The connection is of no use then: a database
 * that is stopped, or behind a network that was lost, would be waited for without end.
 */
static PGresult *
ask(PGconn *pg, const char *sql, struct buffer *why)
{
	struct pollfd p = { .fd = PQsocket(pg), .events = POLLIN };
	int64_t end_ms = clock_mono_ms() + LOOK_MS, left_ms = LOOK_MS;

	if (PQsendQuery(pg, sql) != 1)
		return PQgetResult(pg);
	while (PQisBusy(pg) == 1 && left_ms > 0) {
		if (poll(&p, 1, (int)left_ms) > 0 && PQconsumeInput(pg) != 1)
			break;
		left_ms = end_ms - clock_mono_ms();
	}
	if (left_ms > 0)
		return PQgetResult(pg);
	buffer_add_fmt(why, "the database does not answer (waited %d s)", LOOK_MS / 1000);
	return NULL;
}

/* What ask returns has a NULL behind it. */
static void
answer_free(PGconn *pg, PGresult *r)
{
	while (r != NULL) {
		PQclear(r);
		r = PQgetResult(pg);
	}
}

static bool
table_exists(PGconn *pg, bool *exists, struct buffer *why)
{
	PGresult *r = ask(pg, "SELECT to_regclass('tmtp.schema_migration') IS NOT NULL", why);
	bool good = PQresultStatus(r) == PGRES_TUPLES_OK;

	if (good)
		*exists = PQgetvalue(r, 0, 0)[0] == 't';
	else if (why->len == 0)
		say(why, "cannot look at the schema", pg);
	answer_free(pg, r);
	return good;
}

static enum migrate_state
compare(const PGresult *r, struct buffer *why)
{
	int n = PQntuples(r);
	char mark[65];

	for (int i = 0; i < n; i++) {
		if ((size_t)i >= migrations_count) {
			buffer_add_fmt(
			    why,
			    "the database has migration %s, which this program does not know: "
			    "install the version that made it, or a newer one",
			    PQgetvalue(r, i, 1));
			return MIGRATE_AHEAD;
		}
		fingerprint(&migrations[i], mark);
		if (strtol(PQgetvalue(r, i, 0), NULL, 10) != migrations[i].number ||
		    strcmp(PQgetvalue(r, i, 2), mark) != 0) {
			buffer_add_fmt(
			    why,
			    "migration %s in the database is not the one this program has: "
			    "it belongs to another build; restore the matching program",
			    PQgetvalue(r, i, 1));
			return MIGRATE_ALTERED;
		}
	}
	if ((size_t)n < migrations_count) {
		buffer_add_fmt(
		    why,
		    "the database's schema is at migration %d of %zu: run `tmtpctl migrate`", n,
		    migrations_count);
		return MIGRATE_BEHIND;
	}
	return MIGRATE_CURRENT;
}

static enum migrate_state
check_on(PGconn *pg, struct buffer *why)
{
	enum migrate_state state = MIGRATE_DOWN;
	bool exists = false;
	PGresult *r;

	if (!table_exists(pg, &exists, why))
		return MIGRATE_DOWN;
	if (!exists) {
		buffer_add_str(why, "the database has no tables yet: run `tmtpctl migrate`");
		return MIGRATE_EMPTY;
	}
	r = ask(pg,
	        "SELECT number, name, fingerprint FROM tmtp.schema_migration ORDER BY number",
	        why);
	if (PQresultStatus(r) == PGRES_TUPLES_OK)
		state = compare(r, why);
	else if (why->len == 0)
		say(why, "cannot read the schema's version", pg);
	answer_free(pg, r);
	return state;
}

enum migrate_state
migrate_check(const char *conninfo, struct buffer *why)
{
	PGconn *pg = connect_blocking(conninfo, why);
	enum migrate_state state;

	if (pg == NULL)
		return MIGRATE_DOWN;
	state = check_on(pg, why);
	PQfinish(pg);
	return state;
}

bool
migrate_partitions(const char *conninfo, struct buffer *why)
{
	PGconn *pg = connect_blocking(conninfo, why);
	PGresult *r;
	bool good;

	if (pg == NULL)
		return false;
	r = ask(pg,
	        "SELECT tmtp.ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, "
	        "(now() AT TIME ZONE 'UTC')::date + 7)",
	        why);
	good = PQresultStatus(r) == PGRES_TUPLES_OK;
	if (!good && why->len == 0)
		say(why, "cannot make the days' partitions", pg);
	answer_free(pg, r);
	PQfinish(pg);
	return good;
}

static bool
run_sql(PGconn *pg, const char *sql, const char *what, struct buffer *why)
{
	PGresult *r = PQexec(pg, sql);
	ExecStatusType status = PQresultStatus(r);
	bool good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;

	if (!good)
		say(why, what, pg);
	PQclear(r);
	return good;
}

static bool
record(PGconn *pg, const struct migration *m, struct buffer *why)
{
	char number[16], mark[65];
	const char *values[] = { number, m->name, mark };
	PGresult *r;
	bool good;

	(void)snprintf(number, sizeof(number), "%d", m->number);
	fingerprint(m, mark);
	r = PQexecParams(
	    pg,
	    "INSERT INTO tmtp.schema_migration (number, name, fingerprint, applied_at) "
	    "VALUES ($1::int, $2, $3, now())",
	    3, NULL, values, NULL, NULL, 0);
	good = PQresultStatus(r) == PGRES_COMMAND_OK;
	if (!good)
		say(why, m->name, pg);
	PQclear(r);
	return good;
}

static int
applied_count(PGconn *pg)
{
	PGresult *r = PQexec(pg, "SELECT count(*) FROM tmtp.schema_migration");
	int n = PQresultStatus(r) == PGRES_TUPLES_OK
	            ? (int)strtol(PQgetvalue(r, 0, 0), NULL, 10)
	            : 0;

	PQclear(r);
	return n;
}

/* One migration in its transaction; the lock makes two runs wait for each other. */
static enum store_rc
run_next(PGconn *pg, void (*each)(const struct migration *m, void *arg), void *arg,
         struct buffer *why, bool *more)
{
	enum migrate_state state;
	const struct migration *m;
	struct buffer ignored;

	if (!run_sql(pg, "BEGIN", "begin", why) ||
	    !run_sql(pg, "SELECT pg_advisory_xact_lock(" MIGRATE_LOCK ")", "lock", why))
		return STORE_DOWN;
	buffer_init(&ignored, 1024);
	state = check_on(pg, &ignored);
	*more = state == MIGRATE_EMPTY || state == MIGRATE_BEHIND;
	if (!*more) {
		(void)run_sql(pg, "ROLLBACK", "rollback", &ignored);
		if (state != MIGRATE_CURRENT)
			buffer_add_slice(why, buffer_slice(&ignored));
		buffer_free(&ignored);
		return state == MIGRATE_CURRENT ? STORE_OK : STORE_REFUSED;
	}
	buffer_free(&ignored);
	m = &migrations[state == MIGRATE_EMPTY ? 0 : applied_count(pg)];
	if (each != NULL)
		each(m, arg);
	if (run_sql(pg, m->sql, m->name, why) && record(pg, m, why) &&
	    run_sql(pg, "COMMIT", "commit", why))
		return STORE_OK;
	return STORE_REFUSED;
}

enum store_rc
migrate_run(const char *conninfo, void (*each)(const struct migration *m, void *arg), void *arg,
            struct buffer *why)
{
	PGconn *pg = connect_blocking(conninfo, why);
	enum store_rc rc = STORE_OK;
	bool more = true;

	if (pg == NULL)
		return STORE_DOWN;
	while (rc == STORE_OK && more)
		rc = run_next(pg, each, arg, why, &more);
	PQfinish(pg);
	return rc;
}
