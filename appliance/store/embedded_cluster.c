/*
 * The cluster of the embedded database. A new one is made beside its place
 * and renamed when it is whole, so that what stands there is never half made.
 */
#include "store/embedded_cluster.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "store/embedded.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS_PARENT "/usr/lib/postgresql"
#define OUTPUT_MAX 65536
#define OUTPUT_SHOWN 600
#define FAST_STOP_MS 60000
#define HARD_STOP_MS 5000

/* Relative to the cluster's directory, where cluster_prepare works. */
#define DATA "data"
#define LOCK_FILE DATA "/postmaster.pid"
#define DATA_NEW "data.new"
#define LOCAL_SETTINGS "postgresql.local.conf"

void
cluster_free(struct cluster *c)
{
	process_user_free(&c->owner);
	free(c->directory);
	free(c->data);
	free(c->programs);
	free(c->sockets);
	*c = (struct cluster){ 0 };
}

/* --- programs -------------------------------------------------------------- */

/* The major version that made the data; 0: there is none, -1: it cannot be told. */
static int
data_version(const char *data)
{
	char path[4096], text[16] = "";
	struct stat st;
	uint64_t major;
	FILE *f;

	if (lstat(data, &st) != 0)
		return errno == ENOENT ? 0 : -1;
	(void)snprintf(path, sizeof(path), "%s/PG_VERSION", data);
	f = fopen(path, "re");
	if (f == NULL)
		return -1;
	if (fgets(text, sizeof(text), f) != NULL)
		text[strcspn(text, ".\n")] = '\0';
	(void)fclose(f);
	return text_parse_u64(slice_str(text), 1000, &major) ? (int)major : -1;
}

static bool
has_programs(const char *dir)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/initdb", dir);
	if (access(path, X_OK) != 0)
		return false;
	(void)snprintf(path, sizeof(path), "%s/postgres", dir);
	return access(path, X_OK) == 0;
}

/* The version wanted, or the newest when that is 0; NULL when the packages have none. */
static char *
packaged_programs(int wanted)
{
	DIR *dir = opendir(PROGRAMS_PARENT);
	const struct dirent *entry;
	uint64_t version, best = 0;
	char path[128];

	if (dir == NULL)
		return NULL;
	while ((entry = readdir(dir)) != NULL) {
		if (!text_parse_u64(slice_str(entry->d_name), 1000, &version))
			continue;
		(void)snprintf(path, sizeof(path), PROGRAMS_PARENT "/%d/bin", (int)version);
		if (!has_programs(path))
			continue;
		if (wanted == 0 ? version >= CLUSTER_VERSION_MIN && version > best
		                : (int)version == wanted)
			best = version;
	}
	(void)closedir(dir);
	(void)snprintf(path, sizeof(path), PROGRAMS_PARENT "/%d/bin", (int)best);
	return best == 0 ? NULL : strdup(path);
}

/* A link in the PATH is followed, for initdb looks for the other programs beside itself. */
static char *
programs_in_path(void)
{
	const char *path = getenv("PATH");
	char try[4096], *real, *slash;

	for (const char *p = path == NULL ? "" : path; *p != '\0';) {
		size_t len = strcspn(p, ":");

		(void)snprintf(try, sizeof(try), "%.*s/postgres", (int)len, p);
		p += len + (p[len] == ':');
		if (try[0] != '/' || access(try, X_OK) != 0)
			continue;
		real = realpath(try, NULL);
		slash = real == NULL ? NULL : strrchr(real, '/');
		if (slash == NULL) {
			free(real);
			continue;
		}
		*slash = '\0';
		if (has_programs(real))
			return real;
		free(real);
	}
	return NULL;
}

bool
embedded_check(const struct config *config, struct buffer *error)
{
	const char *named = config->postgres_directory;

	if (config->database != NULL || named == NULL || has_programs(named))
		return true;
	buffer_add_fmt(error, "postgres_directory: there are no initdb and postgres in %s",
	               named);
	return false;
}

bool
cluster_find_programs(struct cluster *c, struct buffer *error)
{
	const char *named = c->config->postgres_directory;
	int version = data_version(c->data);

	if (named != NULL)
		return embedded_check(c->config, error) &&
		       (c->programs = strdup(named)) != NULL;
	c->programs = packaged_programs(version > 0 ? version : 0);
	if (c->programs == NULL)
		c->programs = programs_in_path();
	if (c->programs != NULL)
		return true;
	buffer_add_fmt(error,
	               "PostgreSQL %d is not installed: install the package postgresql-%d, or "
	               "name its programs "
	               "with postgres_directory, or another database with database",
	               version > 0 ? version : CLUSTER_VERSION_MIN,
	               version > 0 ? version : CLUSTER_VERSION_MIN);
	return false;
}

/* --- running a program ----------------------------------------------------- */

/* In the child: dies with its parent, reads input, writes both outputs to one pipe. */
static void __attribute__((noreturn))
exec_program(pid_t parent, const char *const *argv, int in, int out)
{
	process_die_with(parent, SIGKILL);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		_exit(126);
	(void)setenv("LC_ALL", "C", 1);
	(void)unsetenv("NOTIFY_SOCKET"); /* PostgreSQL would tell systemd of its own states */
	(void)unsetenv("WATCHDOG_USEC");
	(void)execv(argv[0], (char *const *)argv); /* execv changes nothing */
	_exit(127);
}

/* A file descriptor from which text is read; what fits a pipe is all that is needed. */
static int
input_of(const char *text)
{
	size_t len = strlen(text);
	int fds[2];

	if (len == 0)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (len > 4096 || pipe2(fds, O_CLOEXEC) != 0)
		return -1;
	if (write(fds[1], text, len) != (ssize_t)len) {
		(void)close(fds[0]);
		fds[0] = -1;
	}
	(void)close(fds[1]);
	return fds[0];
}

static void
read_output(int fd, struct buffer *out)
{
	char part[4096];
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && out->len + (size_t)n <= out->max)
			buffer_add(out, part, (size_t)n);
}

/* The exit code; 128 + signal when killed, -1 when not even started. */
static int
run_program(const char *const *argv, const char *input, struct buffer *out)
{
	int fds[2], in = input_of(input), status = 0;
	pid_t self = getpid(), pid = -1;

	if (in >= 0 && pipe2(fds, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0)
			exec_program(self, argv, in, fds[1]);
		(void)close(fds[1]);
		if (pid > 0)
			read_output(fds[0], out);
		(void)close(fds[0]);
	}
	if (in >= 0)
		(void)close(in);
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The end of a program's output is where its reason stands. */
static void
add_output(struct buffer *error, const struct buffer *output)
{
	size_t len = output->len, from;

	while (len > 0 && output->data[len - 1] == '\n')
		len--;
	from = len > OUTPUT_SHOWN ? len - OUTPUT_SHOWN : 0;
	for (size_t i = from; i < len; i++)
		buffer_add_u8(error, output->data[i] == '\n' ? ' ' : output->data[i]);
}

/* --- making a cluster ------------------------------------------------------ */

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static bool
remove_tree(const char *path)
{
	struct stat st;

	if (lstat(path, &st) != 0)
		return errno == ENOENT;
	return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0;
}

static bool
run_initdb(const struct cluster *c, struct buffer *error)
{
	char program[4096];
	const char *argv[] = { program,
		               "-D",
		               DATA_NEW,
		               "-U",
		               "postgres",
		               "-E",
		               "UTF8",
		               "--locale",
		               "C",
		               "-A",
		               "peer",
		               "--data-checksums",
		               "--no-instructions",
		               NULL };
	struct buffer output;
	int rc;

	(void)snprintf(program, sizeof(program), "%s/initdb", c->programs);
	buffer_init(&output, OUTPUT_MAX);
	rc = run_program(argv, "", &output);
	if (rc != 0) {
		buffer_add_fmt(error, "cannot make the database in %s (initdb ended with %d): ",
		               c->data, rc);
		add_output(error, &output);
	}
	buffer_free(&output);
	return rc == 0;
}

/*
 * Roles that may log in and nothing else: the migrations grant. Single-user
 * mode takes a statement a line, and needs neither a socket nor a login.
 */
static const char bootstrap_sql[] =
    "CREATE ROLE tmtp_owner LOGIN;\n"
    "CREATE ROLE tmtp_site LOGIN;\n"
    "CREATE ROLE tmtp_relay LOGIN;\n"
    "CREATE ROLE tmtp_home LOGIN;\n"
    "CREATE ROLE tmtp_panel LOGIN;\n"
    "CREATE ROLE tmtp_ctl LOGIN;\n"
    "CREATE DATABASE tmtp OWNER tmtp_owner;\n"
    "REVOKE ALL ON DATABASE tmtp, postgres, template1 FROM PUBLIC;\n"
    "GRANT CONNECT ON DATABASE tmtp TO tmtp_site, tmtp_relay, tmtp_home, tmtp_panel, "
    "tmtp_ctl;\n";

static bool
run_bootstrap(const struct cluster *c, struct buffer *error)
{
	char program[4096];
	const char *argv[] = { program,    "--single",
		               "-D",       DATA_NEW,
		               "-c",       "exit_on_error=on",
		               "-c",       "log_min_error_statement=panic",
		               "postgres", NULL };
	struct buffer output;
	int rc;

	(void)snprintf(program, sizeof(program), "%s/postgres", c->programs);
	buffer_init(&output, OUTPUT_MAX);
	rc = run_program(argv, bootstrap_sql, &output);
	if (rc != 0) {
		buffer_add_fmt(
		    error, "cannot make the database's roles in %s (postgres ended with %d): ",
		    c->data, rc);
		add_output(error, &output);
	}
	buffer_free(&output);
	return rc == 0;
}

static bool
sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool good = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		(void)close(fd);
	return good;
}

static bool
make_cluster(const struct cluster *c, struct buffer *error)
{
	log_info("database-make", LOG_S("directory", c->data), LOG_S("programs", c->programs));
	if (!remove_tree(DATA_NEW)) {
		buffer_add_fmt(error, "cannot remove the unfinished %s/" DATA_NEW ": %s",
		               c->directory, strerror(errno));
		return false;
	}
	if (!run_initdb(c, error) || !run_bootstrap(c, error)) {
		(void)remove_tree(DATA_NEW);
		return false;
	}
	if (rename(DATA_NEW, DATA) != 0 || !sync_directory(".")) {
		buffer_add_fmt(error, "cannot rename the new database to %s: %s", c->data,
		               strerror(errno));
		return false;
	}
	return true;
}

/*
 * "postgres (PostgreSQL) 15.8 (Debian ...)" is 15. A preloaded library may have written lines
 * of its own before. 0: error says what there was instead.
 */
static int
program_version(const struct cluster *c, struct buffer *error)
{
	char program[4096];
	const char *argv[] = { program, "-V", NULL };
	static const char said[] = "postgres (PostgreSQL) ";
	const char *at = NULL;
	struct buffer output;
	long major = 0;
	int rc;

	(void)snprintf(program, sizeof(program), "%s/postgres", c->programs);
	buffer_init(&output, OUTPUT_MAX);
	rc = run_program(argv, "", &output);
	buffer_add_u8(&output, '\0');
	if (rc == 0 && !output.failed)
		at = strstr((const char *)output.data, said);
	if (at != NULL)
		major = strtol(at + sizeof(said) - 1, NULL, 10);
	if (major <= 0 || major >= INT_MAX) {
		major = 0;
		buffer_add_fmt(error,
		               "%s does not say its version (it ended with %d): ", program, rc);
		output.len -= output.len > 0;
		add_output(error, &output);
	}
	buffer_free(&output);
	return (int)major;
}

static bool
check_version(const struct cluster *c, struct buffer *error)
{
	int program = program_version(c, error), data = data_version(DATA);

	if (program == 0)
		return false;
	if (program < CLUSTER_VERSION_MIN)
		buffer_add_fmt(error,
		               "%s/postgres is PostgreSQL %d, and %d or newer is needed: name "
		               "another with postgres_directory",
		               c->programs, program, CLUSTER_VERSION_MIN);
	else if (data < 0)
		buffer_add_fmt(error,
		               "%s is no database that can be read (no PG_VERSION): restore it "
		               "from a backup, or "
		               "move it away for an empty one",
		               c->data);
	else if (data != 0 && data != program)
		buffer_add_fmt(error,
		               "the database in %s is of PostgreSQL %d, the programs in %s are "
		               "%d: install "
		               "postgresql-%d, or move the database over with pg_upgrade",
		               c->data, data, c->programs, program, data);
	else
		return true;
	return false;
}

/* --- what an earlier life left --------------------------------------------- */

/* A server process that works in this cluster, by what the kernel says of it. */
static bool
works_here(pid_t pid, const char *data)
{
	char path[64], text[4096];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text));
	(void)close(fd);
	if (n < 8 || memcmp(text, "postgres", 8) != 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
	n = readlink(path, text, sizeof(text) - 1);
	if (n < 0)
		return false;
	text[n] = '\0';
	return strcmp(text, data) == 0;
}

/* Sends sig (0: none) to each of them; how many there are. */
static size_t
signal_leftovers(const char *data, int sig)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	uint64_t number;
	size_t n = 0;

	if (proc == NULL)
		return 0;
	while ((entry = readdir(proc)) != NULL) {
		if (!text_parse_u64(slice_str(entry->d_name), INT32_MAX, &number) ||
		    !works_here((pid_t)number, data))
			continue;
		n++;
		if (sig != 0)
			(void)kill((pid_t)number, sig);
	}
	(void)closedir(proc);
	return n;
}

static bool
wait_for_leftovers(const char *data, int64_t timeout_ms)
{
	int64_t end = clock_mono_ms() + timeout_ms;

	while (signal_leftovers(data, 0) > 0) {
		if (clock_mono_ms() >= end)
			return false;
		(void)poll(NULL, 0, 20);
	}
	return true;
}

/* The pid in a lock file of the postmaster, or 0. */
static pid_t
lock_file_pid(const char *path)
{
	char text[32] = "";
	uint64_t pid;
	FILE *f;

	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	if (fgets(text, sizeof(text), f) != NULL)
		text[strcspn(text, "\n")] = '\0';
	(void)fclose(f);
	return text_parse_u64(slice_str(text), INT32_MAX, &pid) ? (pid_t)pid : 0;
}

/* Nothing of ours runs: a number that is alive has become somebody else's. */
static void
remove_stale_lock(const char *path)
{
	pid_t pid = lock_file_pid(path);

	if (pid > 0 && kill(pid, 0) == 0)
		(void)unlink(path);
}

/*
 * A postmaster that outlived its parent is asked to shut down; backends whose
 * postmaster was killed are ended. Then the number in its lock files (beside the
 * data, and beside the socket) may have become somebody else's, or wait for its
 * parent to look at it, and PostgreSQL would refuse to start because of it.
 */
static bool
stop_leftovers(const struct cluster *c, struct buffer *error)
{
	char *data = realpath(DATA, NULL);
	pid_t postmaster = lock_file_pid(LOCK_FILE);
	char socket_lock[4096];
	bool gone;

	if (data == NULL)
		return true;
	if (signal_leftovers(data, 0) > 0) {
		log_warn("database-left-behind", LOG_S("directory", data),
		         LOG_I("pid", postmaster));
		if (postmaster > 0 && works_here(postmaster, data)) {
			(void)kill(postmaster, SIGINT);
			(void)wait_for_leftovers(data, FAST_STOP_MS);
		}
		(void)signal_leftovers(data, SIGQUIT);
		if (!wait_for_leftovers(data, HARD_STOP_MS))
			(void)signal_leftovers(data, SIGKILL);
	}
	gone = wait_for_leftovers(data, HARD_STOP_MS);
	if (!gone)
		buffer_add_fmt(
		    error, "a PostgreSQL still runs in %s and does not end: stop it by hand",
		    c->data);
	if (gone) {
		(void)snprintf(socket_lock, sizeof(socket_lock), "%s" CLUSTER_SOCKET ".lock",
		               c->sockets);
		remove_stale_lock(LOCK_FILE);
		remove_stale_lock(socket_lock);
	}
	free(data);
	return gone;
}

/* --- settings -------------------------------------------------------------- */

static void
write_tuning(struct buffer *out, const struct config *config)
{
	unsigned mb = config->embedded_memory_mb;

	buffer_add_fmt(out, "shared_buffers = %uMB\n", mb / 2);
	buffer_add_fmt(out, "effective_cache_size = %uMB\n", mb * 2);
	buffer_add_fmt(out, "maintenance_work_mem = %uMB\n", mb / 8 < 16 ? 16 : mb / 8);
	buffer_add_str(out, "work_mem = 8MB\n"
	                    "huge_pages = try\n"
	                    "max_connections = 100\n"
	                    "random_page_cost = 1.1\n"
	                    "jit = off\n"
	                    "track_io_timing = off\n"
	                    "\n"
	                    "synchronous_commit = on\n"
	                    "full_page_writes = on\n"
	                    "wal_compression = lz4\n"
	                    "wal_buffers = 16MB\n"
	                    "min_wal_size = 256MB\n"
	                    "max_wal_size = 4GB\n"
	                    "checkpoint_timeout = 15min\n"
	                    "checkpoint_completion_target = 0.9\n"
	                    "\n"
	                    "# queues: rows live shortly, so look often and finish fast\n"
	                    "autovacuum_naptime = 15s\n"
	                    "autovacuum_vacuum_scale_factor = 0.05\n"
	                    "autovacuum_vacuum_insert_scale_factor = 0.1\n"
	                    "autovacuum_analyze_scale_factor = 0.05\n"
	                    "autovacuum_vacuum_cost_limit = 2000\n");
}

/* Never a statement, a parameter or a row's values in a log line. */
static void
write_settings(struct buffer *out, const struct cluster *c)
{
	buffer_add_str(out, "# Written by tmtpd at every start. Your own settings belong into\n"
	                    "# " LOCAL_SETTINGS " beside this file; they win.\n\n");
	write_tuning(out, c->config);
	buffer_add_str(out, "\n"
	                    "idle_in_transaction_session_timeout = 5min\n"
	                    "unix_socket_permissions = 0777\n" /* the directory is the door */
	                    "timezone = UTC\n"
	                    "lc_messages = C\n"
	                    "\n"
	                    "log_destination = stderr\n"
	                    "logging_collector = off\n"
	                    "log_timezone = UTC\n"
	                    "log_line_prefix = 'event=postgres pid=%p text='\n"
	                    "log_error_verbosity = terse\n"
	                    "log_min_error_statement = panic\n"
	                    "log_parameter_max_length = 0\n"
	                    "log_parameter_max_length_on_error = 0\n"
	                    "log_checkpoints = off\n"
	                    "\n"
	                    "include_if_exists = '" LOCAL_SETTINGS "'\n");
}

static void
write_logins(struct buffer *out, const char *account, bool superuser)
{
	static const char *const roles[] = { "tmtp_owner", "tmtp_site",  "tmtp_relay",
		                             "tmtp_home",  "tmtp_panel", "tmtp_ctl" };

	if (superuser)
		buffer_add_fmt(out, "tmtp \"%s\" postgres\n", account);
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		buffer_add_fmt(out, "tmtp \"%s\" %s\n", account, roles[i]);
}

/* Which account of the system may be which role: root and the roles' user all but the
 * superuser. */
static void
write_ident(struct buffer *out, const struct cluster *c)
{
	const char *user = c->config->user;

	buffer_add_str(out, "# Written by tmtpd at every start.\n");
	write_logins(out, c->owner.name, true);
	if (strcmp(c->owner.name, "root") != 0)
		write_logins(out, "root", false);
	if (strcmp(c->owner.name, user) != 0)
		write_logins(out, user, false);
}

/* Whole or not at all. */
static bool
write_file(const char *name, const struct buffer *text, struct buffer *error)
{
	char path[128], temporary[160];
	bool good = false;
	int fd;

	(void)snprintf(path, sizeof(path), DATA "/%s", name);
	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		good = !text->failed &&
		       write(fd, text->data, text->len) == (ssize_t)text->len && fsync(fd) == 0;
		good = close(fd) == 0 && good && rename(temporary, path) == 0;
	}
	if (!good)
		buffer_add_fmt(error, "cannot write the database's %s: %s", name,
		               strerror(errno));
	return good;
}

static bool
write_all_settings(const struct cluster *c, struct buffer *error)
{
	struct buffer text;
	bool good;

	buffer_init(&text, OUTPUT_MAX);
	write_settings(&text, c);
	good = write_file("postgresql.conf", &text, error);
	buffer_clear(&text);
	buffer_add_str(
	    &text,
	    "# Written by tmtpd at every start: the Unix socket only, see pg_ident.conf.\n"
	    "local all all peer map=tmtp\n"
	    "local replication all peer map=tmtp\n");
	good = good && write_file("pg_hba.conf", &text, error);
	buffer_clear(&text);
	write_ident(&text, c);
	good = good && write_file("pg_ident.conf", &text, error);
	if (good && access(DATA "/" LOCAL_SETTINGS, F_OK) != 0) {
		buffer_clear(&text);
		buffer_add_str(&text, "# Your own settings; tmtpd never changes this file.\n");
		good = write_file(LOCAL_SETTINGS, &text, error);
	}
	buffer_free(&text);
	return good;
}

/* --- together -------------------------------------------------------------- */

bool
cluster_prepare(const struct cluster *c, struct buffer *error)
{
	struct stat st;

	if (chdir(c->directory) != 0) {
		buffer_add_fmt(error,
		               "the user %s, who runs the database, cannot reach %s: %s; every "
		               "directory above needs "
		               "its x for others, or choose another state_directory",
		               c->owner.name, c->directory, strerror(errno));
		return false;
	}
	(void)umask(077);
	if (!check_version(c, error))
		return false;
	if (lstat(DATA, &st) != 0 && !make_cluster(c, error))
		return false;
	return stop_leftovers(c, error) && write_all_settings(c, error);
}

/* Line 8 of the postmaster's lock file is its state (pg_ctl reads the same). */
bool
cluster_is_ready(const struct cluster *c, pid_t pid)
{
	char path[4096], line[256] = "";
	bool ready = false;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/postmaster.pid", c->data);
	if (lock_file_pid(path) != pid)
		return false;
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	for (int i = 1; fgets(line, sizeof(line), f) != NULL; i++)
		ready = i == 8 && strncmp(line, "ready", 5) == 0;
	(void)fclose(f);
	return ready;
}
