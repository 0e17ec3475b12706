/*
 * The embedded database's cluster: its programs, its making, its settings, and
 * what an earlier life left behind. Private to embedded.c.
 */
#ifndef TMTP_STORE_EMBEDDED_CLUSTER_H
#define TMTP_STORE_EMBEDDED_CLUSTER_H

#include "base/config.h"
#include "base/process.h"

struct cluster {
	const struct config *config; /* borrowed */
	struct process_user owner;   /* whom the files belong to and the postmaster runs as */
	char *directory;             /* <state>/postgres; owned */
	char *data;                  /* <state>/postgres/data; owned */
	char *programs;              /* where initdb and postgres are; owned */
	char *sockets;               /* the directory of the Unix socket; owned */
};

/* PostgreSQL's socket in its directory; behind it, ".lock" is that of its lock file. */
#define CLUSTER_SOCKET "/.s.PGSQL.5432"

/* The oldest PostgreSQL that the schema works with. */
#define CLUSTER_VERSION_MIN 15

/* Fills programs: of the data's version when there is data, else the newest. */
bool cluster_find_programs(struct cluster *c, struct buffer *error)
    __attribute__((warn_unused_result));

/*
 * Makes the cluster if there is none, stops what still runs on it, writes its
 * settings. Called in a process that is the owner already.
 */
bool cluster_prepare(const struct cluster *c, struct buffer *error)
    __attribute__((warn_unused_result));

/* The postmaster of this pid has written that it takes connections. */
bool cluster_is_ready(const struct cluster *c, pid_t pid);

void cluster_free(struct cluster *c);

#endif
