/*
 * The embedded database: a PostgreSQL of our own under the state directory,
 * reachable over a Unix socket only, started and stopped with whoever calls
 * this. Never changes an existing cluster but for its three configuration
 * files. For processes that have one thread so far, since it forks.
 */
#ifndef TMTP_STORE_EMBEDDED_H
#define TMTP_STORE_EMBEDDED_H

#include "base/config.h"

#include <sys/types.h>

struct embedded;

enum embedded_rc {
	EMBEDDED_OK = 0,
	EMBEDDED_FAILED,    /* error holds a sentence that says what to do */
	EMBEDDED_CANCELLED, /* go_on said no; nothing runs */
};

/* Asked about twenty times a second while something is waited for. False: give up. */
struct embedded_patience {
	bool (*go_on)(void *arg);
	void *arg;
};

/*
 * Makes the cluster if there is none, stops a postmaster that an earlier life
 * left behind, starts one and waits until it takes connections, however long
 * recovery lasts. The postmaster is a child of the caller and shuts down when
 * the caller dies. Started by root it runs as the account postgres, else as
 * the caller. Fails when another process holds this state directory.
 * patience may be NULL.
 */
enum embedded_rc embedded_start(const struct config *config,
                                const struct embedded_patience *patience, struct embedded **out,
                                struct buffer *error) __attribute__((warn_unused_result));

/*
 * What of the configuration only the machine can tell: that postgres_directory, where it is
 * written and used, has the programs. False: error holds a sentence.
 */
bool embedded_check(const struct config *config, struct buffer *error)
    __attribute__((warn_unused_result));

/* False when the postmaster has ended, and reaps it; *status is waitpid(2)'s. */
bool embedded_alive(struct embedded *e, int *status);

/* Starts the postmaster again after embedded_alive said false; doesn't wait for it. */
bool embedded_relaunch(struct embedded *e, struct buffer *error)
    __attribute__((warn_unused_result));

/* SIGINT: disconnect everybody and shut down; SIGQUIT: at once, with recovery at the next
 * start; SIGKILL. */
void embedded_signal(struct embedded *e, int sig);

/* Shuts down, waits (a minute, then harder), frees; *e is NULL afterwards. NULL is fine. */
void embedded_stop(struct embedded **e);

/*
 * How to connect as this database role ("tmtp_site"), for the embedded
 * database and for another one alike: config's own connection string with the
 * role as its user, unless it names one. out ends with a NUL, so out->data is
 * a string. False: error says why.
 */
bool embedded_conninfo(const struct config *config, const char *role, struct buffer *out,
                       struct buffer *error) __attribute__((warn_unused_result));

#endif
