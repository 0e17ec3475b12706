/*
 * What a process of the appliance owes its supervisor and the system: becoming
 * another user for good, dying with its parent, saying that it is ready.
 */
#ifndef TMTP_BASE_PROCESS_H
#define TMTP_BASE_PROCESS_H

#include "base/buffer.h"

#include <signal.h>
#include <sys/types.h>

/* The descriptor's number that a role writes one octet to when it is ready. */
#define PROCESS_READY_ENV "TMTP_READY_FD"

/* The account of a user; name is owned. */
struct process_user {
	char *name;
	uid_t uid;
	gid_t gid;
};

enum process_rc {
	PROCESS_OK = 0,
	PROCESS_NO_USER, /* the system knows no such user */
	PROCESS_FAILED,  /* see the error's text */
};

/* Looks a user up by name. PROCESS_NO_USER leaves out untouched. */
enum process_rc process_user_find(const char *name, struct process_user *out)
    __attribute__((warn_unused_result));

/* The same by number. */
enum process_rc process_user_of(uid_t uid, struct process_user *out)
    __attribute__((warn_unused_result));

void process_user_free(struct process_user *user);

/*
 * Becomes the user: supplementary groups, group and user, verified that there
 * is no way back. keep_bind keeps the right to listen on ports below 1024, and
 * nothing else. Only while the process has one thread.
 */
enum process_rc process_become(const struct process_user *user, bool keep_bind,
                               struct buffer *error) __attribute__((warn_unused_result));

/*
 * 0 when this user can open the file for reading, else an errno. Called by
 * root it tries in a child process; by anybody else it tries as itself.
 */
int process_can_read(const struct process_user *user, const char *path);

/* The kernel sends sig when the parent ends; exits at once when parent is not (or no longer)
 * the parent. */
void process_die_with(pid_t parent, int sig);

/*
 * Blocks SIGTERM, SIGINT and SIGHUP for this thread and those made later, and
 * ignores SIGPIPE. The signalfd(2) (non-blocking, owned by the caller) reads
 * them; below 0 with errno otherwise. tmtpd has called it before a role's main.
 */
int process_signals(void);

/*
 * The next signal that waits in the descriptor: SIGTERM (SIGINT becomes that)
 * or SIGHUP; 0 when none does.
 */
int process_next_signal(int fd);

/* Tells the supervisor that this role serves; does nothing the second time or without a
 * supervisor. */
void process_ready(void);

#endif
