/* What a process owes its supervisor and the system: see process.h. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- accounts -------------------------------------------------------------- */

static enum process_rc
keep_account(const struct passwd *pw, struct process_user *out)
{
	char *name;

	if (pw == NULL)
		return PROCESS_NO_USER;
	name = strdup(pw->pw_name);
	if (name == NULL)
		return PROCESS_FAILED;
	*out = (struct process_user){ .name = name, .uid = pw->pw_uid, .gid = pw->pw_gid };
	return PROCESS_OK;
}

enum process_rc
process_user_find(const char *name, struct process_user *out)
{
	struct passwd pw, *found = NULL;
	char memory[16384];

	(void)getpwnam_r(name, &pw, memory, sizeof(memory), &found);
	return keep_account(found, out);
}

enum process_rc
process_user_of(uid_t uid, struct process_user *out)
{
	struct passwd pw, *found = NULL;
	char memory[16384];

	(void)getpwuid_r(uid, &pw, memory, sizeof(memory), &found);
	return keep_account(found, out);
}

void
process_user_free(struct process_user *user)
{
	free(user->name);
	*user = (struct process_user){ 0 };
}

/* --- becoming -------------------------------------------------------------- */

/* libcap would be a library for these two calls. */
static bool
set_capabilities(uint32_t mask)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = mask, .permitted = mask } };

	return syscall(SYS_capset, &head, data) == 0;
}

static bool
has_bind_capability(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	return syscall(SYS_capget, &head, data) == 0 &&
	       (data[0].permitted & 1u << CAP_NET_BIND_SERVICE) != 0;
}

static bool
change_ids(const struct process_user *user)
{
	return initgroups(user->name, user->gid) == 0 &&
	       setresgid(user->gid, user->gid, user->gid) == 0 &&
	       setresuid(user->uid, user->uid, user->uid) == 0;
}

static bool
is_for_good(const struct process_user *user)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	if (getresuid(&r, &e, &s) != 0 || getresgid(&rg, &eg, &sg) != 0)
		return false;
	if (r != user->uid || e != user->uid || s != user->uid)
		return false;
	if (rg != user->gid || eg != user->gid || sg != user->gid)
		return false;
	return setresuid(0, 0, 0) != 0 && geteuid() == user->uid;
}

enum process_rc
process_become(const struct process_user *user, bool keep_bind, struct buffer *error)
{
	if (user->uid == 0 || user->gid == 0) {
		buffer_add_fmt(error, "the account %s has root's user or group", user->name);
		return PROCESS_FAILED;
	}
	keep_bind = keep_bind && has_bind_capability();
	if (prctl(PR_SET_KEEPCAPS, keep_bind ? 1 : 0) != 0 || !change_ids(user) ||
	    !set_capabilities(keep_bind ? 1u << CAP_NET_BIND_SERVICE : 0) ||
	    prctl(PR_SET_KEEPCAPS, 0) != 0) {
		buffer_add_fmt(error, "cannot become the user %s: %s", user->name,
		               strerror(errno));
		return PROCESS_FAILED;
	}
	if (!is_for_good(user) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
		buffer_add_fmt(error, "became the user %s, but not for good", user->name);
		return PROCESS_FAILED;
	}
	return PROCESS_OK;
}

static int
try_to_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return errno;
	(void)close(fd);
	return 0;
}

int
process_can_read(const struct process_user *user, const char *path)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return try_to_read(path);
	pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0)
		_exit(change_ids(user) ? try_to_read(path) : EPERM);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

/* --- parent and child ------------------------------------------------------ */

void
process_die_with(pid_t parent, int sig)
{
	if (prctl(PR_SET_PDEATHSIG, sig) != 0 || getppid() != parent)
		_exit(1);
}

int
process_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int
process_next_signal(int fd)
{
	struct signalfd_siginfo info;
	ssize_t n;

	do
		n = read(fd, &info, sizeof(info));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(info))
		return 0;
	return info.ssi_signo == SIGHUP ? SIGHUP : SIGTERM;
}

void
process_ready(void)
{
	const char *text = getenv(PROCESS_READY_ENV);
	char *end;
	long fd;

	if (text == NULL)
		return;
	fd = strtol(text, &end, 10);
	(void)unsetenv(PROCESS_READY_ENV);
	if (end == text || *end != '\0' || fd <= STDERR_FILENO || fd > 1 << 20)
		return;
	while (write((int)fd, "1", 1) < 0 && errno == EINTR)
		continue;
	(void)close((int)fd);
}
