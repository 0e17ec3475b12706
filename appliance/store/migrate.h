/*
 * The schema's versions: numbered migrations that travel inside the program,
 * each run once, in a transaction, under an advisory lock.
 */
#ifndef TMTP_STORE_MIGRATE_H
#define TMTP_STORE_MIGRATE_H

#include "store/store.h"

struct migration {
	int number;
	const char *name;
	const char *sql;
};

/* Made from schema/[0-9]*.sql at build time. */
extern const struct migration migrations[];
extern const size_t migrations_count;

enum migrate_state {
	MIGRATE_CURRENT, /* the schema is exactly this program's */
	MIGRATE_EMPTY,   /* no schema yet */
	MIGRATE_BEHIND,  /* an older one: `tmtpctl migrate` */
	MIGRATE_AHEAD,   /* a newer program made it: upgrade this one */
	MIGRATE_ALTERED, /* a migration of another text stands there */
	MIGRATE_DOWN,    /* the database can't be asked */
};

/* What the database's schema is. why: a sentence for the operator that says what to do, empty when current. */
enum migrate_state migrate_check(const char *conninfo, struct buffer *why)
    __attribute__((warn_unused_result));

/* Makes the days' partitions from yesterday to a week ahead, as a role that may. */
bool migrate_partitions(const char *conninfo, struct buffer *why)
    __attribute__((warn_unused_result));

/*
 * Brings the schema to this program's version, as the owner (tmtp_owner).
 * each, when not NULL, is told of every migration before it runs. On
 * STORE_REFUSED or STORE_DOWN nothing of the failed migration remains, and why
 * says what happened.
 */
enum store_rc migrate_run(const char *conninfo,
                          void (*each)(const struct migration *m, void *arg), void *arg,
                          struct buffer *why) __attribute__((warn_unused_result));

#endif
