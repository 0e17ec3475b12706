/*
 * A database for a group of store tests. In the cluster that TMTP_TEST_CLUSTER
 * names (its socket's folder), or in one made and ended by the group itself;
 * the database is the group's own either way, migrated, and dropped behind it.
 */
#ifndef TMTP_TESTS_CLUSTER_H
#define TMTP_TESTS_CLUSTER_H

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "store/migrate.h"
#include "store/store.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
	char dir[64];
	char name[32];
	bool own;       /* the cluster is this group's */
	PGconn *super;  /* in the group's database, as postgres */
	char text[512]; /* what cluster_text answers */
} cluster;

/* Connects as a database role of ours; the text is valid until the next call. */
static inline const char *
cluster_conninfo(const char *role)
{
	static char text[192];

	(void)snprintf(text, sizeof(text), "host=%s dbname=%s user=%s", cluster.dir,
	               cluster.name, role);
	return text;
}

static inline void
cluster_die(const char *what, const char *why)
{
	(void)fprintf(stderr, "test cluster: %s: %s\n", what, why);
	exit(3);
}

static inline void
cluster_admin(const char *before, const char *behind)
{
	char text[160];
	PGconn *pg;
	PGresult *r;

	(void)snprintf(text, sizeof(text), "host=%s dbname=postgres user=postgres",
	               cluster.dir);
	pg = PQconnectdb(text);
	(void)snprintf(text, sizeof(text), "%s %s %s", before, cluster.name, behind);
	r = PQexec(pg, text);
	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		cluster_die(text, PQerrorMessage(pg));
	PQclear(r);
	PQfinish(pg);
}

static inline void
cluster_script(const char *verb)
{
	char text[160];

	(void)snprintf(text, sizeof(text), "sh tests/cluster.sh %s %s", verb, cluster.dir);
	if (system(text) != 0)
		cluster_die(text, "failed; tests run from the repository's top folder");
}

static inline int
cluster_setup(void **state)
{
	const char *given = getenv("TMTP_TEST_CLUSTER");
	struct uuid id = uuid_make();
	const char *tmp = getenv("TMPDIR");
	struct buffer why;

	(void)state;
	if (tmp == NULL || tmp[0] == '\0' || strlen(tmp) > 40) /* a socket's path is short */
		tmp = "/tmp";
	log_set_level(LOG_ERROR_LEVEL);
	cluster.own = given == NULL || given[0] == '\0';
	if (cluster.own)
		(void)snprintf(cluster.dir, sizeof(cluster.dir), "%s/tmtpXXXXXX", tmp);
	else
		(void)snprintf(cluster.dir, sizeof(cluster.dir), "%s", given);
	if (cluster.own) {
		if (mkdtemp(cluster.dir) == NULL || chmod(cluster.dir, 0755) != 0)
			cluster_die(cluster.dir, "no folder");
		cluster_script("start");
	}
	(void)snprintf(cluster.name, sizeof(cluster.name), "t_%02x%02x%02x%02x%02x%02x_%d",
	               id.octets[10], id.octets[11], id.octets[12], id.octets[13],
	               id.octets[14], id.octets[15], (int)getpid());
	cluster_admin("CREATE DATABASE", "OWNER tmtp_owner");
	buffer_init(&why, 4096);
	if (migrate_run(cluster_conninfo("tmtp_owner"), NULL, NULL, &why) != STORE_OK) {
		buffer_add_u8(&why, '\0');
		cluster_die("migrate", (char *)why.data);
	}
	buffer_free(&why);
	cluster.super = PQconnectdb(cluster_conninfo("postgres"));
	return PQstatus(cluster.super) == CONNECTION_OK ? 0 : -1;
}

static inline int
cluster_teardown(void **state)
{
	(void)state;
	PQfinish(cluster.super);
	cluster_admin("DROP DATABASE", "WITH (FORCE)");
	if (cluster.own)
		cluster_script("stop");
	return 0;
}

/* Runs SQL as postgres: what a test puts into the tables, or looks up behind the room's back.
 */
static inline const char *cluster_text(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

static inline const char *
cluster_text(const char *fmt, ...)
{
	static char sql[8192];
	va_list ap;
	PGresult *r;

	va_start(ap, fmt);
	(void)vsnprintf(sql, sizeof(sql), fmt, ap);
	va_end(ap);
	r = PQexec(cluster.super, sql);
	if (PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_COMMAND_OK)
		cluster_die(sql, PQerrorMessage(cluster.super));
	(void)snprintf(cluster.text, sizeof(cluster.text), "%s",
	               PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
	PQclear(r);
	return cluster.text;
}

#define cluster_sql(...) (void)cluster_text(__VA_ARGS__)
#define cluster_int(...) strtoll(cluster_text(__VA_ARGS__), NULL, 10)

/* A store with one connection a lane in use, as a database role. */
static inline struct store *
cluster_store(const char *role, unsigned writers)
{
	struct store_options o = { .conninfo = cluster_conninfo(role),
		                   .name = "test",
		                   .patience_ms = 20000 };
	struct store *s;

	o.connections[STORE_WRITE] = writers;
	o.connections[STORE_READ] = 1;
	s = store_start(&o);
	if (s == NULL)
		cluster_die("store_start", role);
	return s;
}

/*
 * Another process in the middle of its transaction: cluster_hold runs sql and
 * doesn't commit, cluster_blocked returns when somebody waits for it, and
 * cluster_release commits.
 */
static inline PGconn *
cluster_hold(const char *sql)
{
	PGconn *pg = PQconnectdb(cluster_conninfo("postgres"));

	PQclear(PQexec(pg, "BEGIN"));
	PQclear(PQexec(pg, sql));
	if (PQtransactionStatus(pg) != PQTRANS_INTRANS)
		cluster_die(sql, PQerrorMessage(pg));
	return pg;
}

static inline void
cluster_blocked(void)
{
	while (
	    cluster_int("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
	                "WHERE NOT l.granted AND a.datname = current_database()") == 0)
		continue;
}

static inline void
cluster_release(PGconn *pg)
{
	PQclear(PQexec(pg, "COMMIT"));
	PQfinish(pg);
}

/* Jobs that a test waits for, any number at once. */
struct waiting {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	size_t left;
};

static struct waiting waiting = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };

static inline void
waiting_done(struct store_job *job)
{
	(void)job;
	pthread_mutex_lock(&waiting.lock);
	waiting.left--;
	pthread_cond_signal(&waiting.cond);
	pthread_mutex_unlock(&waiting.lock);
}

static inline void
waiting_add(struct store_job *job)
{
	job->done = waiting_done;
	pthread_mutex_lock(&waiting.lock);
	waiting.left++;
	pthread_mutex_unlock(&waiting.lock);
}

static inline void
waiting_all(void)
{
	pthread_mutex_lock(&waiting.lock);
	while (waiting.left > 0)
		pthread_cond_wait(&waiting.cond, &waiting.lock);
	pthread_mutex_unlock(&waiting.lock);
}

/* SUBMIT(store_site_list, store, &list) begins, waiting_all() ends; RUN does both and is the
 * result. */
#define SUBMIT(call, store, x) (waiting_add(&(x)->job), call(store, x))
#define RUN(call, store, x) (SUBMIT(call, store, x), waiting_all(), (x)->job.rc)

#endif
