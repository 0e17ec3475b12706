/*
 * The life of the embedded PostgreSQL: directories, lock, starting, watching,
 * stopping, and how to connect. Root never writes into a directory that
 * belongs to another account: a child that became the owner does that.
 */
#include "store/embedded.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/embedded_cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#define DATABASE_ACCOUNT "postgres" /* the package's, when started by root */
#define TICK_MS 50
#define SLOW_START_MS 10000
#define FAST_STOP_MS 60000
#define HARD_STOP_MS 5000
#define FREE_MIN_MIB 64
#define ERROR_MAX 2048

/* sun_path takes 108 octets, the last one a NUL; libpq and PostgreSQL append this name. */
#define SOCKET_PATH_MAX 107
#define SOCKET_NOTE \
	"socket-directory" /* in the state directory: where it went when its path was too long \
	                    */

struct embedded {
	struct cluster cluster;
	const struct embedded_patience *patience; /* while starting */
	int lock_fd;                              /* held as long as this lives */
	pid_t postmaster;                         /* 0: none */
};

static bool
go_on(const struct embedded *e)
{
	return e->patience == NULL || e->patience->go_on == NULL ||
	       e->patience->go_on(e->patience->arg);
}

static bool __attribute__((format(printf, 2, 3)))
fail(struct buffer *error, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	buffer_add_str(error, text);
	return false;
}

/* --- directories ----------------------------------------------------------- */

/* A directory of this owner that nobody else can write to; made if missing. Root gives it away.
 */
static bool
own_directory(const char *path, uid_t uid, gid_t gid, mode_t mode, struct buffer *error)
{
	struct stat st;
	bool good = true;
	int fd;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return fail(error, "cannot make the directory %s: %s", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0) {
		good = fail(error, "cannot open the directory %s: %s", path, strerror(errno));
	} else if (st.st_uid != uid && st.st_uid != geteuid()) {
		good = fail(error,
		            "%s belongs to another account (number %u): start tmtpd as that "
		            "one, or as root, "
		            "or choose another state_directory",
		            path, (unsigned)st.st_uid);
	} else if (geteuid() == 0 && (st.st_uid != uid || st.st_gid != gid) &&
	           fchown(fd, uid, gid) != 0) {
		good = fail(error, "cannot give %s to its account: %s", path, strerror(errno));
	} else if ((st.st_mode & 07777) != mode && fchmod(fd, mode) != 0) {
		good = fail(error, "cannot set the mode of %s: %s", path, strerror(errno));
	}
	if (fd >= 0)
		(void)close(fd);
	return good;
}

/* Ours or root's, and nobody else can put files into it. */
static bool
check_state_directory(const char *path, struct buffer *error)
{
	struct stat st;

	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return fail(error,
		            "cannot make state_directory %s: %s; make it, or name another",
		            path, strerror(errno));
	if (stat(path, &st) != 0)
		return fail(error, "state_directory %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return fail(error, "state_directory %s is not a directory", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return fail(error,
		            "state_directory %s belongs to another account: give it to root or "
		            "to the account "
		            "that starts tmtpd",
		            path);
	if ((st.st_mode & S_IWOTH) != 0)
		return fail(error, "state_directory %s can be written by everybody: chmod o-w",
		            path);
	return true;
}

static bool
check_space(const char *path, struct buffer *error)
{
	struct statvfs fs;
	uint64_t mib;

	if (statvfs(path, &fs) != 0)
		return fail(error, "%s: %s", path, strerror(errno));
	mib = (uint64_t)fs.f_bavail * fs.f_frsize / (1024UL * 1024);
	if (mib < FREE_MIN_MIB)
		return fail(error,
		            "only %llu MiB are free in %s, and the database needs %d to start: "
		            "make room, "
		            "or name a state_directory on a larger disk",
		            (unsigned long long)mib, path, FREE_MIN_MIB);
	return true;
}

/* One tmtpd to a state directory; the lock goes with the process, however it ends. */
static bool
take_lock(struct embedded *e, const char *state, struct buffer *error)
{
	char path[4096], pid[32] = "";
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/tmtpd.lock", state);
	e->lock_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (e->lock_fd < 0)
		return fail(error, "cannot open %s: %s", path, strerror(errno));
	if (flock(e->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		n = pread(e->lock_fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		return fail(error,
		            "another tmtpd (process %s) runs the database in %s: stop it "
		            "first, or name another "
		            "state_directory",
		            pid, state);
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(e->lock_fd, 0) != 0 || pwrite(e->lock_fd, pid, (size_t)n, 0) != n)
		return fail(error, "cannot write %s: %s", path, strerror(errno));
	return true;
}

/* --- where the socket is --------------------------------------------------- */

static bool
fits_socket(const char *directory)
{
	return strlen(directory) + sizeof(CLUSTER_SOCKET) - 1 <= SOCKET_PATH_MAX;
}

/* The directory noted in the state directory, which nobody but its owner can write; false:
 * none. */
static bool
read_note(const char *state, char *out, size_t size)
{
	char path[4096];
	size_t len;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/" SOCKET_NOTE, state);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	len = fread(out, 1, size - 1, f);
	(void)fclose(f);
	out[len] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return out[0] == '/' && fits_socket(out);
}

static bool
write_note(const char *state, const char *directory, struct buffer *error)
{
	char path[4096], temporary[4104];
	bool good;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/" SOCKET_NOTE, state);
	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	(void)unlink(temporary);
	f = fopen(temporary, "wxe");
	good = f != NULL && fprintf(f, "%s\n", directory) > 0;
	if (f != NULL)
		good = fclose(f) == 0 && good;
	good = good && chmod(temporary, 0644) == 0 && rename(temporary, path) == 0;
	return good || fail(error, "cannot write %s: %s", path, strerror(errno));
}

static bool
is_own_directory(const char *path, uid_t uid)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == uid &&
	       (st.st_mode & 022) == 0;
}

/*
 * <state>/run; or, when that is too long for a socket, a directory with a
 * random name, made once and noted. A name that could be foreseen in /tmp
 * could be taken by somebody else first.
 */
static char *
make_socket_directory(const struct cluster *c, gid_t gid, struct buffer *error)
{
	const char *state = c->config->state_directory;
	char path[4096], made[] = "/run/tmtp-XXXXXX", fallback[] = "/tmp/tmtp-XXXXXX";
	mode_t mode = geteuid() == 0 ? 0750 : 0700;
	const char *use = path;

	(void)snprintf(path, sizeof(path), "%s/run", state);
	if (!fits_socket(path) &&
	    !(read_note(state, path, sizeof(path)) && is_own_directory(path, c->owner.uid))) {
		use = mkdtemp(made);
		if (use == NULL)
			use = mkdtemp(fallback);
		if (use == NULL) {
			(void)fail(error,
			           "state_directory %s is too long for a socket, and none can "
			           "be made in /run "
			           "or /tmp: %s",
			           state, strerror(errno));
			return NULL;
		}
		if (!write_note(state, use, error))
			return NULL;
	}
	if (!own_directory(use, c->owner.uid, gid, mode, error))
		return NULL;
	return strdup(use);
}

/* --- making ready ---------------------------------------------------------- */

static bool
find_owner(struct cluster *c, struct buffer *error)
{
	if (geteuid() == 0 && process_user_find(DATABASE_ACCOUNT, &c->owner) != PROCESS_OK)
		return fail(
		    error,
		    "there is no account " DATABASE_ACCOUNT
		    " to run the embedded database: install "
		    "the package postgresql-%d, or start tmtpd as another user than root",
		    CLUSTER_VERSION_MIN);
	if (geteuid() != 0 && process_user_of(geteuid(), &c->owner) != PROCESS_OK)
		return fail(
		    error,
		    "the account number %u has no name in /etc/passwd, which PostgreSQL needs",
		    (unsigned)geteuid());
	return true;
}

static bool
name_files(struct cluster *c, struct buffer *error)
{
	if (asprintf(&c->directory, "%s/postgres", c->config->state_directory) < 0)
		c->directory = NULL;
	else if (asprintf(&c->data, "%s/data", c->directory) < 0)
		c->data = NULL;
	return (c->directory != NULL && c->data != NULL) || fail(error, "out of memory");
}

/* Who connects: the roles' account through its group, when that isn't who starts us. */
static bool
make_directories(struct embedded *e, struct buffer *error)
{
	struct cluster *c = &e->cluster;
	const char *state = c->config->state_directory;
	struct process_user user = { .name = NULL };
	bool good;

	if (!check_state_directory(state, error) || !take_lock(e, state, error) ||
	    !own_directory(c->directory, c->owner.uid, c->owner.gid, 0700, error) ||
	    !check_space(state, error))
		return false;
	if (geteuid() == 0 && process_user_find(c->config->user, &user) != PROCESS_OK)
		return fail(error, "there is no account %s", c->config->user);
	c->sockets = make_socket_directory(c, geteuid() == 0 ? user.gid : c->owner.gid, error);
	good = c->sockets != NULL;
	if (good && user.name != NULL && process_can_read(&user, c->sockets) != 0)
		good = fail(error,
		            "the user %s cannot reach %s, where the database's socket is: "
		            "every directory above "
		            "needs its x for others, or choose another state_directory",
		            user.name, c->sockets);
	process_user_free(&user);
	return good;
}

/* What a child must not inherit from a supervisor. */
static void
reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
}

/* In the child: becomes the owner, who dies with us by sig. */
static bool
become_owner(const struct cluster *c, pid_t parent, int sig, struct buffer *error)
{
	reset_signals();
	(void)setpgid(0, 0);
	if (geteuid() == 0 && process_become(&c->owner, false, error) != PROCESS_OK)
		return false;
	process_die_with(parent, sig);
	return true;
}

static void __attribute__((noreturn))
prepare_in_child(const struct cluster *c, pid_t parent, int out)
{
	struct buffer error;
	bool good;

	buffer_init(&error, ERROR_MAX);
	good = become_owner(c, parent, SIGKILL, &error) && cluster_prepare(c, &error);
	if (!good && write(out, error.data, error.len) < 0)
		_exit(2);
	_exit(good ? 0 : 1);
}

/* Reads the child's words until it ends. False: go_on said no. */
static bool
follow_child(const struct embedded *e, int fd, struct buffer *words)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char part[512];
	ssize_t n = 1;

	while (n != 0) {
		if (!go_on(e))
			return false;
		if (poll(&p, 1, TICK_MS) <= 0)
			continue;
		n = read(fd, part, sizeof(part));
		if (n > 0)
			buffer_add(words, part, (size_t)n);
	}
	return true;
}

static enum embedded_rc
prepare(const struct embedded *e, struct buffer *error)
{
	int fds[2], status = 0;
	pid_t self = getpid(), pid;
	bool followed;

	if (pipe2(fds, O_CLOEXEC) != 0)
		return fail(error, "pipe: %s", strerror(errno)) ? EMBEDDED_OK : EMBEDDED_FAILED;
	pid = fork();
	if (pid == 0)
		prepare_in_child(&e->cluster, self, fds[1]);
	(void)close(fds[1]);
	followed = pid > 0 && follow_child(e, fds[0], error);
	(void)close(fds[0]);
	if (pid < 0) {
		(void)fail(error, "fork: %s", strerror(errno));
		return EMBEDDED_FAILED;
	}
	if (!followed && kill(-pid, SIGKILL) != 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!followed)
		return EMBEDDED_CANCELLED;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return EMBEDDED_OK;
	if (error->len == 0)
		(void)fail(error, "preparing the database ended unexpectedly (status %d)",
		           status);
	return EMBEDDED_FAILED;
}

/* --- the postmaster -------------------------------------------------------- */

/* The options that no file in the data directory may overrule. */
static void __attribute__((noreturn)) exec_postmaster(const struct cluster *c, pid_t parent)
{
	char program[4096], sockets[256];
	const char *argv[] = { program, "-D",    c->data, "-c",        "listen_addresses=",
		               "-c",    sockets, "-c",    "port=5432", NULL };
	struct buffer error;
	int null = open("/dev/null", O_RDONLY);

	buffer_init(&error, ERROR_MAX);
	(void)snprintf(program, sizeof(program), "%s/postgres", c->programs);
	(void)snprintf(sockets, sizeof(sockets), "unix_socket_directories=\"%s\"", c->sockets);
	if (!become_owner(c, parent, SIGINT, &error) || null < 0 ||
	    dup2(null, STDIN_FILENO) < 0 || chdir("/") != 0)
		_exit(126);
	(void)umask(077);
	(void)setenv("LC_ALL", "C", 1);
	(void)unsetenv("NOTIFY_SOCKET"); /* PostgreSQL would tell systemd of its own states */
	(void)unsetenv("WATCHDOG_USEC");
	(void)execv(program, (char *const *)argv); /* execv changes nothing */
	_exit(127);
}

bool
embedded_relaunch(struct embedded *e, struct buffer *error)
{
	pid_t self = getpid(), pid = fork();

	if (pid < 0)
		return fail(error, "fork: %s", strerror(errno));
	if (pid == 0)
		exec_postmaster(&e->cluster, self);
	e->postmaster = pid;
	return true;
}

bool
embedded_alive(struct embedded *e, int *status)
{
	pid_t pid;

	*status = 0;
	if (e->postmaster == 0)
		return false;
	pid = waitpid(e->postmaster, status, WNOHANG);
	if (pid == 0 || (pid < 0 && errno == EINTR))
		return true;
	e->postmaster = 0;
	return false;
}

void
embedded_signal(struct embedded *e, int sig)
{
	if (e->postmaster > 0)
		(void)kill(e->postmaster, sig);
}

static void
explain_end(const struct embedded *e, int status, struct buffer *error)
{
	struct buffer space;

	buffer_init(&space, ERROR_MAX);
	(void)fail(error,
	           "PostgreSQL ended at its start (%s %d); its own lines in the log say why",
	           WIFSIGNALED(status) ? "signal" : "exit code",
	           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (!check_space(e->cluster.config->state_directory, &space))
		(void)fail(error, "; %.*s", (int)space.len, (const char *)space.data);
	buffer_free(&space);
}

static enum embedded_rc
wait_ready(struct embedded *e, struct buffer *error)
{
	int64_t started = clock_mono_ms(), told = started;
	int status;

	while (!cluster_is_ready(&e->cluster, e->postmaster)) {
		if (!embedded_alive(e, &status)) {
			explain_end(e, status, error);
			return EMBEDDED_FAILED;
		}
		if (!go_on(e))
			return EMBEDDED_CANCELLED;
		if (clock_mono_ms() - told >= SLOW_START_MS) {
			told = clock_mono_ms();
			log_info("database-recovers",
			         LOG_I("seconds", (told - started) / 1000));
		}
		(void)poll(NULL, 0, TICK_MS / 2);
	}
	log_info("database-ready", LOG_S("sockets", e->cluster.sockets),
	         LOG_I("pid", e->postmaster), LOG_I("ms", clock_mono_ms() - started));
	return EMBEDDED_OK;
}

static enum embedded_rc
start_steps(struct embedded *e, struct buffer *error)
{
	struct cluster *c = &e->cluster;
	enum embedded_rc rc;

	if (!find_owner(c, error) || !name_files(c, error) || !make_directories(e, error) ||
	    !cluster_find_programs(c, error))
		return EMBEDDED_FAILED;
	rc = prepare(e, error);
	if (rc != EMBEDDED_OK)
		return rc;
	if (!embedded_relaunch(e, error))
		return EMBEDDED_FAILED;
	return wait_ready(e, error);
}

enum embedded_rc
embedded_start(const struct config *config, const struct embedded_patience *patience,
               struct embedded **out, struct buffer *error)
{
	struct embedded *e = calloc(1, sizeof(*e));
	enum embedded_rc rc;

	if (e == NULL) {
		(void)fail(error, "out of memory");
		return EMBEDDED_FAILED;
	}
	e->cluster.config = config;
	e->patience = patience;
	e->lock_fd = -1;
	rc = start_steps(e, error);
	e->patience = NULL;
	e->cluster.config = NULL; /* it may be replaced from now on */
	if (rc == EMBEDDED_OK)
		*out = e;
	else
		embedded_stop(&e);
	return rc;
}

static bool
wait_end(struct embedded *e, int64_t timeout_ms)
{
	int64_t end = clock_mono_ms() + timeout_ms;
	int status;

	while (embedded_alive(e, &status)) {
		if (clock_mono_ms() >= end)
			return false;
		(void)poll(NULL, 0, TICK_MS / 2);
	}
	return true;
}

void
embedded_stop(struct embedded **embedded)
{
	struct embedded *e = *embedded;

	if (e == NULL)
		return;
	embedded_signal(e, SIGINT);
	if (!wait_end(e, FAST_STOP_MS)) {
		embedded_signal(e, SIGQUIT);
		if (!wait_end(e, HARD_STOP_MS)) {
			embedded_signal(e, SIGKILL);
			(void)wait_end(e, HARD_STOP_MS);
		}
	}
	if (e->lock_fd >= 0)
		(void)close(e->lock_fd);
	cluster_free(&e->cluster);
	free(e);
	*embedded = NULL;
}

/* --- connecting ------------------------------------------------------------ */

static void
add_parameter(struct buffer *out, const char *key, const char *value)
{
	buffer_add_fmt(out, "%s%s='", out->len > 0 ? " " : "", key);
	for (; *value != '\0'; value++) {
		if (*value == '\'' || *value == '\\')
			buffer_add_u8(out, '\\');
		buffer_add_u8(out, (uint8_t)*value);
	}
	buffer_add_u8(out, '\'');
}

/* requirepeer: whoever else listened there would not be the database. */
static bool
own_conninfo(const struct config *config, const char *role, struct buffer *out,
             struct buffer *error)
{
	char path[4096];
	struct process_user owner;
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/postgres", config->state_directory);
	if (stat(path, &st) != 0)
		return fail(error, "there is no embedded database in %s: %s; start tmtpd first",
		            config->state_directory, strerror(errno));
	if (process_user_of(st.st_uid, &owner) != PROCESS_OK)
		return fail(error, "%s belongs to an account without a name", path);
	(void)snprintf(path, sizeof(path), "%s/run", config->state_directory);
	if (!fits_socket(path) && !read_note(config->state_directory, path, sizeof(path))) {
		process_user_free(&owner);
		return fail(error, "there is no %s/" SOCKET_NOTE ": start tmtpd first",
		            config->state_directory);
	}
	add_parameter(out, "host", path);
	add_parameter(out, "port", "5432");
	add_parameter(out, "dbname", "tmtp");
	add_parameter(out, "user", role);
	add_parameter(out, "requirepeer", owner.name);
	process_user_free(&owner);
	return true;
}

static bool
other_conninfo(const char *conninfo, const char *role, struct buffer *out, struct buffer *error)
{
	PQconninfoOption *options;
	bool user = false, dbname = false;
	char *text = NULL;

	options = PQconninfoParse(conninfo, &text);
	if (options == NULL) {
		(void)fail(error, "database: %s", text == NULL ? "out of memory" : text);
		PQfreemem(text);
		while (error->len > 0 && error->data[error->len - 1] == '\n')
			error->len--;
		return false;
	}
	for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
		if (o->val == NULL || o->val[0] == '\0')
			continue;
		user = user || strcmp(o->keyword, "user") == 0;
		dbname = dbname || strcmp(o->keyword, "dbname") == 0;
		add_parameter(out, o->keyword, o->val);
	}
	PQconninfoFree(options);
	if (!dbname)
		add_parameter(out, "dbname", "tmtp");
	if (!user)
		add_parameter(out, "user", role);
	return true;
}

bool
embedded_conninfo(const struct config *config, const char *role, struct buffer *out,
                  struct buffer *error)
{
	bool good = config->database == NULL
	                ? own_conninfo(config, role, out, error)
	                : other_conninfo(config->database, role, out, error);

	if (good) {
		buffer_add_u8(out, '\0'); /* so that out->data is a string */
		good = !out->failed || fail(error, "the connection string is too long");
	}
	return good;
}
