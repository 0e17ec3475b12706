/*
 * The supervisor's loop: see supervisor.h. Everything waits in one poll(2):
 * signals, children that ended, roles that report ready, and what is due.
 *
 * The text of the configuration that was accepted is kept in memory and handed
 * to the roles, so that a role that restarts never meets a file that was
 * broken since.
 */
#include "supervisor.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/process.h"
#include "store/embedded.h"
#include "store/migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#define CONFIG_MAX (1u << 20)
#define TEXT_MAX 4096
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 30000
#define LONG_LIFE_MS 60000 /* after which a restart is not held against it */
#define AWAIT_MS 1000      /* between two looks at a database that isn't ready for us */
#define AWAIT_TOLD_EVERY 60
#define SECOND_TERM_MS 1000
#define DRAIN_GRACE_MS \
	5000 /* for closing up, behind the drain_timeout_s that roles keep themselves */
#define DATABASE_FAST_MS 60000
#define DATABASE_HARD_MS 5000
#define STARTUP_EXTEND_US "EXTEND_TIMEOUT_USEC=60000000"

enum phase {
	PHASE_RUNNING,
	PHASE_DRAINING,      /* the roles finish */
	PHASE_DATABASE_FAST, /* the database shuts down */
	PHASE_DATABASE_HARD, /* it was told to stop at once */
	PHASE_DONE,
};

/* What has ended too often waits before it is started again. */
struct backoff {
	int64_t started_ms;
	int64_t retry_at_ms; /* meaningful while it isn't running */
	int64_t wait_ms;
};

struct child {
	enum config_role role;
	bool wanted;
	pid_t pid;    /* 0: not running */
	int ready_fd; /* its end of the pipe is open until it reports; -1 afterwards */
	bool ready;   /* reported since it was started */
	struct backoff backoff;
};

struct supervisor {
	char *path;
	struct config *config;
	int text_fd;  /* the accepted text; ours to write */
	int roles_fd; /* the same for the roles, who can only read */
	int signal_fd, child_fd;
	struct embedded *embedded; /* NULL: somebody else's database */
	bool database_running;
	struct backoff database_backoff;
	struct child children[CONFIG_ROLES];
	enum phase phase;
	int64_t phase_end_ms;
	int64_t drain_at_ms; /* when draining began */
	bool announced;      /* READY=1 went out */
	int64_t watchdog_ms; /* 0: nobody asked */
	int64_t watchdog_at_ms;
	int64_t extended_ms; /* when systemd was last asked for patience */
	int early_signal;    /* SIGTERM came while starting */
};

/* --- backoff --------------------------------------------------------------- */

static void
backoff_started(struct backoff *b, int64_t now_ms)
{
	b->started_ms = now_ms;
}

static void
backoff_ended(struct backoff *b, int64_t now_ms)
{
	if (b->wait_ms == 0 || now_ms - b->started_ms >= LONG_LIFE_MS)
		b->wait_ms = BACKOFF_MIN_MS;
	else
		b->wait_ms = b->wait_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : b->wait_ms * 2;
	b->retry_at_ms = now_ms + b->wait_ms;
}

/* --- the configuration's text ---------------------------------------------- */

static bool
read_file(const char *path, struct buffer *out, struct buffer *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *room;
	ssize_t n = -1;

	if (fd >= 0) {
		do {
			room = buffer_reserve(out, 4096);
			n = room == NULL ? -1 : read(fd, room, 4096);
			if (n > 0)
				buffer_added(out, (size_t)n);
		} while (n > 0 || (n < 0 && room != NULL && errno == EINTR));
	}
	if (out->failed)
		buffer_add_fmt(error, "%s: is longer than %u octets", path, CONFIG_MAX);
	else if (n < 0)
		buffer_add_fmt(error, "%s: cannot be read: %s", path, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	return n == 0;
}

/* The new text, then its length: a role that reads meanwhile never finds the file empty. */
static bool
write_text(int fd, const struct buffer *text)
{
	return pwrite(fd, text->data, text->len, 0) == (ssize_t)text->len &&
	       ftruncate(fd, (off_t)text->len) == 0;
}

/* Reads the file and checks it; only a good text replaces the accepted one. */
static bool
load_config(struct supervisor *s, struct config **out, struct buffer *error)
{
	int fd = memfd_create("tmtp.conf", MFD_CLOEXEC);
	struct buffer text;
	bool good = false;

	buffer_init(&text, CONFIG_MAX);
	if (fd < 0) {
		buffer_add_fmt(error, "memfd_create: %s", strerror(errno));
	} else if (read_file(s->path, &text, error)) {
		if (!write_text(fd, &text))
			buffer_add_fmt(error, "cannot keep the configuration: %s",
			               strerror(errno));
		else
			good = config_load_fd(fd, s->path, out, error) == CONFIG_OK;
	}
	if (good && !write_text(s->text_fd, &text)) {
		buffer_add_fmt(error, "cannot keep the configuration: %s", strerror(errno));
		config_free(out);
		good = false;
	}
	if (good)
		(*out)->source_fd = -1;
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&text);
	return good;
}

static bool
open_text(struct supervisor *s)
{
	char path[64];

	s->text_fd = memfd_create("tmtp.conf", MFD_CLOEXEC);
	if (s->text_fd < 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s->text_fd);
	s->roles_fd = open(path, O_RDONLY | O_CLOEXEC);
	return s->roles_fd >= 0;
}

/* --- the service manager --------------------------------------------------- */

static void
tell_status(const struct supervisor *s)
{
	char text[256] = "STATUS=";

	for (int i = 0; i < CONFIG_ROLES; i++) {
		const struct child *c = &s->children[i];
		size_t len = strlen(text);

		if (c->wanted)
			(void)snprintf(text + len, sizeof(text) - len, "%s%s %s",
			               len > 7 ? ", " : "", config_role_name(c->role),
			               c->ready     ? "ready"
			               : c->pid > 0 ? "starting"
			                            : "stopped");
	}
	(void)sd_notify(0, text);
}

static void
announce(struct supervisor *s)
{
	for (int i = 0; i < CONFIG_ROLES; i++)
		if (s->children[i].wanted && !s->children[i].ready)
			return;
	if (s->announced)
		return;
	s->announced = true;
	log_info("ready", LOG_S("configuration", s->path));
	(void)sd_notify(0, "READY=1");
}

static void
extend_patience(struct supervisor *s)
{
	int64_t now_ms = clock_mono_ms();

	if (now_ms - s->extended_ms < 10000 && s->extended_ms != 0)
		return;
	s->extended_ms = now_ms;
	(void)sd_notify(0, STARTUP_EXTEND_US);
}

/* --- roles ----------------------------------------------------------------- */

static void
set_env_number(const char *name, long number)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%ld", number);
	(void)setenv(name, text, 1);
}

static void
reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
}

/* In the child. The same program again, so that each role has its own address space. */
static void __attribute__((noreturn))
exec_role(const struct supervisor *s, const struct child *c, pid_t supervisor, int ready_fd)
{
	const char *argv[] = { "tmtpd",    "--role", config_role_name(c->role),
		               "--config", s->path,  NULL };

	reset_signals();
	(void)setpgid(0, 0); /* a ^C at the terminal is for the supervisor, who drains */
	(void)fcntl(ready_fd, F_SETFD, 0);
	(void)fcntl(s->roles_fd, F_SETFD, 0);
	set_env_number(PROCESS_READY_ENV, ready_fd);
	set_env_number(SUPERVISOR_CONFIG_ENV, s->roles_fd);
	set_env_number(SUPERVISOR_PID_ENV, supervisor);
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("WATCHDOG_PID");
	(void)unsetenv("WATCHDOG_USEC");
	(void)execv("/proc/self/exe", (char *const *)argv); /* execv changes nothing */
	_exit(127);
}

static void
child_start(struct supervisor *s, struct child *c, int64_t now_ms)
{
	pid_t self = getpid();
	int fds[2];

	backoff_started(&c->backoff, now_ms);
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
		backoff_ended(&c->backoff, now_ms);
		log_error("role-not-started", LOG_S("role", config_role_name(c->role)),
		          LOG_S("reason", strerror(errno)));
		return;
	}
	c->pid = fork();
	if (c->pid == 0)
		exec_role(s, c, self, fds[1]);
	(void)close(fds[1]);
	if (c->pid < 0) {
		c->pid = 0;
		(void)close(fds[0]);
		backoff_ended(&c->backoff, now_ms);
		log_error("role-not-started", LOG_S("role", config_role_name(c->role)),
		          LOG_S("reason", strerror(errno)));
		return;
	}
	c->ready_fd = fds[0];
	log_info("role-start", LOG_S("role", config_role_name(c->role)), LOG_I("pid", c->pid));
}

/* The octet arrived, or the role closed its end without a word. */
static void
child_report(struct supervisor *s, struct child *c)
{
	char octet;
	ssize_t n = read(c->ready_fd, &octet, 1);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	(void)close(c->ready_fd);
	c->ready_fd = -1;
	if (n != 1)
		return;
	c->ready = true;
	log_info("role-ready", LOG_S("role", config_role_name(c->role)), LOG_I("pid", c->pid),
	         LOG_I("ms", clock_mono_ms() - c->backoff.started_ms));
	tell_status(s);
	announce(s);
}

static void
child_ended(struct supervisor *s, struct child *c, int status, int64_t now_ms)
{
	bool draining = s->phase != PHASE_RUNNING;
	enum log_level level = draining && WIFEXITED(status) && WEXITSTATUS(status) == 0
	                           ? LOG_INFO_LEVEL
	                           : LOG_WARN_LEVEL;

	backoff_ended(&c->backoff, now_ms);
	log_at(level, "role-end", LOG_S("role", config_role_name(c->role)),
	       LOG_I("pid", c->pid), LOG_S("how", WIFSIGNALED(status) ? "signal" : "exit"),
	       LOG_I("code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
	       LOG_I("restart_ms", draining ? -1 : c->backoff.wait_ms));
	if (c->ready_fd >= 0)
		(void)close(c->ready_fd);
	c->ready_fd = -1;
	c->ready = false;
	c->pid = 0;
	tell_status(s);
}

static void
reap(struct supervisor *s, int64_t now_ms)
{
	int status;

	for (int i = 0; i < CONFIG_ROLES; i++) {
		struct child *c = &s->children[i];

		if (c->pid > 0 && waitpid(c->pid, &status, WNOHANG) == c->pid)
			child_ended(s, c, status, now_ms);
	}
	if (s->embedded == NULL || !s->database_running || embedded_alive(s->embedded, &status))
		return;
	s->database_running = false;
	backoff_ended(&s->database_backoff, now_ms);
	if (s->phase == PHASE_RUNNING || s->phase == PHASE_DRAINING)
		log_error("database-end", LOG_S("how", WIFSIGNALED(status) ? "signal" : "exit"),
		          LOG_I("code",
		                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)));
}

static size_t
signal_roles(const struct supervisor *s, int sig)
{
	size_t n = 0;

	for (int i = 0; i < CONFIG_ROLES; i++) {
		if (s->children[i].pid <= 0)
			continue;
		n++;
		if (sig != 0)
			(void)kill(s->children[i].pid, sig);
	}
	return n;
}

static void
restart_due(struct supervisor *s, int64_t now_ms)
{
	struct buffer error;

	for (int i = 0; i < CONFIG_ROLES; i++) {
		struct child *c = &s->children[i];

		if (c->wanted && c->pid == 0 && now_ms >= c->backoff.retry_at_ms)
			child_start(s, c, now_ms);
	}
	if (s->embedded == NULL || s->database_running ||
	    now_ms < s->database_backoff.retry_at_ms)
		return;
	buffer_init(&error, TEXT_MAX);
	backoff_started(&s->database_backoff, now_ms);
	s->database_running = embedded_relaunch(s->embedded, &error);
	if (s->database_running)
		log_info("database-restart");
	else
		backoff_ended(&s->database_backoff, now_ms);
	buffer_free(&error);
}

/* --- signals --------------------------------------------------------------- */

static void
take_over(struct supervisor *s, struct config *fresh)
{
	struct buffer names;

	buffer_init(&names, TEXT_MAX);
	config_restart_options(s->config, fresh, &names);
	if (names.len > 0)
		log_warn("reload-needs-restart", LOG_B("options", buffer_slice(&names)));
	buffer_free(&names);
	s->config->drain_timeout_s = fresh->drain_timeout_s;
	log_set_level(fresh->log_level);
}

/*
 * s->config stays the one that the supervisor started with, but for what may
 * change: a later reload is again compared with what really runs.
 */
static void
reload(struct supervisor *s)
{
	struct config *fresh = NULL;
	struct buffer error;

	(void)sd_notify(0, "RELOADING=1");
	buffer_init(&error, TEXT_MAX);
	if (load_config(s, &fresh, &error)) {
		take_over(s, fresh);
		config_free(&fresh);
		log_info("reload", LOG_I("roles", signal_roles(s, SIGHUP)));
	} else {
		log_error("reload-refused", LOG_B("reason", buffer_slice(&error)));
	}
	buffer_free(&error);
	if (s->announced)
		(void)sd_notify(0, "READY=1");
	tell_status(s);
}

static void
drain(struct supervisor *s, int64_t now_ms)
{
	char text[96];

	/* Asked a second time: at once. Who asks twice in a second asked once: systemd, a shell and
	 * a terminal may all tell us of one and the same end. */
	if (s->phase == PHASE_DRAINING) {
		if (now_ms - s->drain_at_ms >= SECOND_TERM_MS)
			s->phase_end_ms = now_ms;
		return;
	}
	if (s->phase != PHASE_RUNNING)
		return;
	s->phase = PHASE_DRAINING;
	s->drain_at_ms = now_ms;
	s->phase_end_ms = now_ms + (int64_t)s->config->drain_timeout_s * 1000 + DRAIN_GRACE_MS;
	(void)snprintf(text, sizeof(text),
	               "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%lld",
	               ((long long)s->config->drain_timeout_s + 90) * 1000000);
	(void)sd_notify(0, text);
	log_info("drain", LOG_I("roles", signal_roles(s, SIGTERM)),
	         LOG_I("timeout_s", s->config->drain_timeout_s));
}

static void
take_signals(struct supervisor *s, int64_t now_ms)
{
	int sig;

	while ((sig = process_next_signal(s->signal_fd)) != 0) {
		if (sig == SIGHUP && s->phase == PHASE_RUNNING)
			reload(s);
		else if (sig == SIGTERM)
			drain(s, now_ms);
	}
}

static bool
open_signals(struct supervisor *s)
{
	sigset_t set;

	s->signal_fd = process_signals();
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (s->signal_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return false;
	s->child_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->child_fd >= 0;
}

/* --- ending ---------------------------------------------------------------- */

static void
enter_database_stop(struct supervisor *s, int64_t now_ms)
{
	if (s->embedded == NULL || !s->database_running) {
		s->phase = PHASE_DONE;
		return;
	}
	s->phase = PHASE_DATABASE_FAST;
	s->phase_end_ms = now_ms + DATABASE_FAST_MS;
	embedded_signal(s->embedded, SIGINT);
}

/* What the phases wait for, and what happens when it doesn't come. */
static void
advance(struct supervisor *s, int64_t now_ms)
{
	bool late = now_ms >= s->phase_end_ms;

	switch (s->phase) {
	case PHASE_RUNNING:
		restart_due(s, now_ms);
		break;
	case PHASE_DRAINING:
		if (signal_roles(s, 0) == 0) {
			enter_database_stop(s, now_ms);
		} else if (late) {
			log_warn("drain-timeout", LOG_I("roles", signal_roles(s, SIGKILL)));
			s->phase_end_ms = now_ms + 1000;
		}
		break;
	case PHASE_DATABASE_FAST:
	case PHASE_DATABASE_HARD:
		if (!s->database_running) {
			s->phase = PHASE_DONE;
		} else if (late) {
			log_warn("database-slow-stop");
			embedded_signal(s->embedded,
			                s->phase == PHASE_DATABASE_FAST ? SIGQUIT : SIGKILL);
			s->phase = PHASE_DATABASE_HARD;
			s->phase_end_ms = now_ms + DATABASE_HARD_MS;
		}
		break;
	case PHASE_DONE:
		break;
	}
}

/* --- the loop -------------------------------------------------------------- */

static void
sooner(int64_t *until_ms, int64_t at_ms)
{
	if (at_ms < *until_ms)
		*until_ms = at_ms;
}

/* Milliseconds until something is due without anybody's doing; -1: never. */
static int
next_timeout(const struct supervisor *s, int64_t now_ms)
{
	int64_t until = INT64_MAX;

	if (s->watchdog_ms > 0)
		sooner(&until, s->watchdog_at_ms);
	if (s->phase != PHASE_RUNNING)
		sooner(&until, s->phase_end_ms);
	for (int i = 0; s->phase == PHASE_RUNNING && i < CONFIG_ROLES; i++)
		if (s->children[i].wanted && s->children[i].pid == 0)
			sooner(&until, s->children[i].backoff.retry_at_ms);
	if (s->phase == PHASE_RUNNING && s->embedded != NULL && !s->database_running)
		sooner(&until, s->database_backoff.retry_at_ms);
	if (until == INT64_MAX)
		return -1;
	return until <= now_ms ? 0 : until - now_ms > 60000 ? 60000 : (int)(until - now_ms);
}

static void
feed_watchdog(struct supervisor *s, int64_t now_ms)
{
	if (s->watchdog_ms == 0 || now_ms < s->watchdog_at_ms)
		return;
	s->watchdog_at_ms = now_ms + s->watchdog_ms;
	(void)sd_notify(0, "WATCHDOG=1");
}

static void
wait_for_something(struct supervisor *s)
{
	struct pollfd p[2 + CONFIG_ROLES];
	struct signalfd_siginfo ignored;

	p[0] = (struct pollfd){ .fd = s->signal_fd, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = s->child_fd, .events = POLLIN };
	for (int i = 0; i < CONFIG_ROLES; i++)
		p[2 + i] = (struct pollfd){ .fd = s->children[i].ready_fd, .events = POLLIN };
	if (poll(p, 2 + CONFIG_ROLES, next_timeout(s, clock_mono_ms())) <= 0)
		return;
	while (read(s->child_fd, &ignored, sizeof(ignored)) > 0)
		continue;
	for (int i = 0; i < CONFIG_ROLES; i++)
		if (s->children[i].ready_fd >= 0 && p[2 + i].revents != 0)
			child_report(s, &s->children[i]);
}

static void
loop(struct supervisor *s)
{
	while (s->phase != PHASE_DONE) {
		int64_t now_ms = clock_mono_ms();

		feed_watchdog(s, now_ms);
		take_signals(s, now_ms);
		reap(s, now_ms);
		advance(s, now_ms);
		if (s->phase != PHASE_DONE)
			wait_for_something(s);
	}
}

/* --- starting -------------------------------------------------------------- */

/* While something is waited for at the start: has somebody asked to stop? A reload then is no
 * more than the start. */
static bool
still_wanted(void *arg)
{
	struct supervisor *s = arg;
	int sig = process_next_signal(s->signal_fd);

	if (sig == SIGTERM)
		s->early_signal = sig;
	extend_patience(s);
	return s->early_signal == 0;
}

/* Waits for about ms; false when asked to stop. */
static bool
wait_wanted(struct supervisor *s, int64_t ms)
{
	struct pollfd p = { .fd = s->signal_fd, .events = POLLIN };
	int64_t end = clock_mono_ms() + ms;

	while (still_wanted(s)) {
		int64_t left = end - clock_mono_ms();

		if (left <= 0)
			return true;
		(void)poll(&p, 1, left > 5000 ? 5000 : (int)left);
	}
	return false;
}

static bool
start_database(struct supervisor *s)
{
	struct embedded_patience patience = { .go_on = still_wanted, .arg = s };
	struct buffer error;
	enum embedded_rc rc;

	if (s->config->database != NULL)
		return true;
	buffer_init(&error, TEXT_MAX);
	rc = embedded_start(s->config, &patience, &s->embedded, &error);
	if (rc == EMBEDDED_FAILED)
		log_error("database-not-started", LOG_B("reason", buffer_slice(&error)));
	s->database_running = rc == EMBEDDED_OK;
	backoff_started(&s->database_backoff, clock_mono_ms());
	buffer_free(&error);
	return rc == EMBEDDED_OK;
}

static void
tell_migration(const struct migration *m, void *arg)
{
	(void)arg;
	log_info("migration", LOG_S("name", m->name));
}

/* The role that asks: one of those that run here, for their logins are what must work. */
static const char *
asking_role(const struct config *config)
{
	static const char *const names[CONFIG_ROLES] = { "tmtp_site", "tmtp_relay", "tmtp_home",
		                                         "tmtp_panel" };

	for (int i = 0; i < CONFIG_ROLES; i++)
		if (config->roles[i])
			return names[i];
	return names[0];
}

/*
 * After a week off there is no partition for today: roles that are ready can store. The panel
 * stores nothing by days, and may not make them. Who meets a missing one makes it, so what fails
 * here is only told.
 */
static void
make_partitions(const struct config *config)
{
	struct buffer conninfo, why;

	if (!config->roles[ROLE_SITE] && !config->roles[ROLE_RELAY] &&
	    !config->roles[ROLE_HOME])
		return;
	buffer_init(&conninfo, TEXT_MAX);
	buffer_init(&why, TEXT_MAX);
	if (!embedded_conninfo(config, asking_role(config), &conninfo, &why) ||
	    !migrate_partitions((const char *)conninfo.data, &why))
		log_warn("partitions-missing", LOG_B("reason", buffer_slice(&why)));
	buffer_free(&conninfo);
	buffer_free(&why);
}

/* In the child, as the roles' user: an empty embedded database gets its tables, any other is
 * only looked at. */
static enum migrate_state
look_at_schema(const struct config *config, struct buffer *why)
{
	enum migrate_state state = MIGRATE_DOWN;
	struct buffer conninfo;

	buffer_init(&conninfo, TEXT_MAX);
	if (embedded_conninfo(config, asking_role(config), &conninfo, why))
		state = migrate_check((const char *)conninfo.data, why);
	if (state == MIGRATE_EMPTY && config->database == NULL) {
		buffer_clear(&conninfo);
		buffer_clear(why);
		if (embedded_conninfo(config, "tmtp_owner", &conninfo, why) &&
		    migrate_run((const char *)conninfo.data, tell_migration, NULL, why) ==
		        STORE_OK)
			state = MIGRATE_CURRENT;
	}
	if (state == MIGRATE_CURRENT)
		make_partitions(config);
	buffer_free(&conninfo);
	return state;
}

static void __attribute__((noreturn))
schema_in_child(const struct supervisor *s, pid_t parent, int out)
{
	struct process_user user = { .name = NULL };
	enum migrate_state state = MIGRATE_DOWN;
	struct buffer why;
	bool good = true;

	reset_signals();
	buffer_init(&why, TEXT_MAX);
	if (geteuid() == 0) {
		(void)unsetenv("HOME"); /* libpq looks for its files there */
		good = process_user_find(s->config->user, &user) == PROCESS_OK &&
		       process_become(&user, false, &why) == PROCESS_OK;
	}
	process_die_with(parent, SIGKILL);
	if (good)
		state = look_at_schema(s->config, &why);
	if (why.len > 0 && write(out, why.data, why.len) < 0)
		_exit(MIGRATE_DOWN);
	_exit((int)state);
}

/* Asks in a child; false: asked to stop meanwhile. */
static bool
ask_schema(struct supervisor *s, enum migrate_state *state, struct buffer *why)
{
	struct pollfd p = { .events = POLLIN };
	int fds[2], status = 0;
	pid_t self = getpid(), pid;
	char part[512];
	ssize_t n = 1;

	*state = MIGRATE_DOWN;
	if (pipe2(fds, O_CLOEXEC) != 0)
		return true;
	pid = fork();
	if (pid == 0)
		schema_in_child(s, self, fds[1]);
	(void)close(fds[1]);
	p.fd = fds[0];
	while (pid > 0 && n != 0 && still_wanted(s)) {
		if (poll(&p, 1, 200) <= 0)
			continue;
		n = read(fds[0], part, sizeof(part));
		if (n > 0)
			buffer_add(why, part, (size_t)n);
	}
	(void)close(fds[0]);
	if (pid > 0 && n != 0)
		(void)kill(pid, SIGKILL);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) <= MIGRATE_DOWN)
		*state = (enum migrate_state)WEXITSTATUS(status);
	return s->early_signal == 0;
}

/*
 * A database of somebody else's that cannot be asked, and a schema of our own
 * that is behind: tmtpctl migrate can only help while the database runs.
 */
static bool
worth_waiting(const struct supervisor *s, enum migrate_state state)
{
	return state == (s->embedded == NULL ? MIGRATE_DOWN : MIGRATE_BEHIND);
}

static void
tell_waiting(const struct buffer *why)
{
	char text[256];

	log_warn("database-awaited", LOG_B("reason", buffer_slice(why)));
	(void)snprintf(text, sizeof(text), "STATUS=waiting: %.*s",
	               (int)(why->len > 200 ? 200 : why->len), (const char *)why->data);
	(void)sd_notify(0, text);
}

/* Roles start on the schema that this program knows and on no other. */
static bool
check_schema(struct supervisor *s)
{
	enum migrate_state state = MIGRATE_DOWN;
	struct buffer why;
	bool wanted;

	buffer_init(&why, TEXT_MAX);
	for (unsigned tries = 0;; tries++) {
		buffer_clear(&why);
		wanted = ask_schema(s, &state, &why);
		if (!wanted || !worth_waiting(s, state))
			break;
		if (tries % AWAIT_TOLD_EVERY == 0)
			tell_waiting(&why);
		wanted = wait_wanted(s, AWAIT_MS);
		if (!wanted)
			break;
	}
	if (wanted && state != MIGRATE_CURRENT)
		log_error("schema-refused", LOG_B("reason", buffer_slice(&why)));
	buffer_free(&why);
	return wanted && state == MIGRATE_CURRENT;
}

static void
start_roles(struct supervisor *s)
{
	int64_t now_ms = clock_mono_ms();
	uint64_t usec = 0;

	for (int i = 0; i < CONFIG_ROLES; i++) {
		s->children[i].wanted = s->config->roles[i];
		s->children[i].backoff.retry_at_ms = now_ms;
	}
	if (sd_watchdog_enabled(0, &usec) > 0)
		s->watchdog_ms = (int64_t)usec / 2000;
}

static void
supervisor_free(struct supervisor *s)
{
	const int fds[] = { s->text_fd, s->roles_fd, s->signal_fd, s->child_fd };

	embedded_stop(&s->embedded);
	config_free(&s->config);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
	free(s->path);
}

/* Links are left as they are: a later reload follows them anew. */
static char *
absolute_path(const char *path)
{
	char *here = NULL, *made = NULL;

	if (path[0] == '/')
		return strdup(path);
	here = getcwd(NULL, 0);
	if (here != NULL && asprintf(&made, "%s/%s", here, path) < 0)
		made = NULL;
	free(here);
	return made;
}

static bool
start(struct supervisor *s, const char *config_path)
{
	struct buffer error;
	bool good;

	s->path = absolute_path(config_path);
	if (s->path == NULL || !open_text(s) || !open_signals(s)) {
		log_error("not-started", LOG_S("reason", strerror(errno)));
		return false;
	}
	buffer_init(&error, TEXT_MAX);
	good = load_config(s, &s->config, &error);
	if (!good)
		log_error("configuration-refused", LOG_B("reason", buffer_slice(&error)));
	buffer_free(&error);
	if (!good)
		return false;
	log_set_level(s->config->log_level);
	return start_database(s) && check_schema(s);
}

int
supervisor_run(const char *config_path)
{
	struct supervisor s = {
		.text_fd = -1, .roles_fd = -1, .signal_fd = -1, .child_fd = -1
	};
	bool good;

	for (int i = 0; i < CONFIG_ROLES; i++)
		s.children[i] = (struct child){ .role = (enum config_role)i, .ready_fd = -1 };
	good = start(&s, config_path);
	if (good) {
		start_roles(&s);
		loop(&s);
		log_info("stopped");
	}
	good = good || s.early_signal != 0;
	supervisor_free(&s);
	return good ? 0 : 1;
}
