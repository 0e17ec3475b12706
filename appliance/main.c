/*
 * tmtpd: the arguments; then either the supervisor, or, started by it, one
 * role as a process of its own.
 */
#include "base/config.h"
#include "base/log.h"
#include "base/process.h"
#include "base/version.h"
#include "home/role.h"
#include "panel/role.h"
#include "relay/role.h"
#include "site/role.h"
#include "store/embedded.h"
#include "supervisor.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/tmtp/tmtp.conf"
#define EXIT_USAGE 2

enum command { COMMAND_RUN, COMMAND_CHECK, COMMAND_ROLE };

struct arguments {
	enum command command;
	const char *config;
	enum config_role role;
};

static int (*const role_mains[CONFIG_ROLES])(const struct config *) = {
	[ROLE_SITE] = site_main,
	[ROLE_RELAY] = relay_main,
	[ROLE_HOME] = home_main,
	[ROLE_PANEL] = panel_main,
};

static const char usage[] =
    "usage: tmtpd [-c FILE] [-n]\n"
    "\n"
    "Serves websites, members and other servers, as its configuration says.\n"
    "\n"
    "  -c, --config FILE  the configuration; default " CONFIG_DEFAULT "\n"
    "  -n, --check        check the configuration, say ok or what is wrong, and end\n"
    "      --help-config  explain every option of the configuration\n"
    "      --list-config  the same for programs: name, type, default and help, tabs between\n"
    "  -V, --version      the version\n"
    "  -h, --help         this\n"
    "\n"
    "Signals: SIGHUP reads the configuration and the certificates again, SIGTERM and\n"
    "SIGINT stop after what is under way; a second one, a second later or more, at once.\n";

static int
check(const char *path)
{
	struct config *config = NULL;
	struct buffer error;
	bool good;

	buffer_init(&error, 4096);
	good =
	    config_load(path, &config, &error) == CONFIG_OK && embedded_check(config, &error);
	if (good)
		(void)puts("ok");
	else
		(void)fprintf(stderr, "%.*s\n", (int)error.len, (const char *)error.data);
	buffer_free(&error);
	config_free(&config);
	return good ? 0 : 1;
}

/* --- one role -------------------------------------------------------------- */

/* A number that the supervisor left in the environment; -1: none. */
static long
env_number(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long number;

	if (text == NULL)
		return -1;
	number = strtol(text, &end, 10);
	(void)unsetenv(name);
	return end == text || *end != '\0' || number < 0 ? -1 : number;
}

static enum config_rc
load_for_role(const char *path, struct config **out, struct buffer *error)
{
	long fd = env_number(SUPERVISOR_CONFIG_ENV);

	return fd < 0 ? config_load(path, out, error)
	              : config_load_fd((int)fd, path, out, error);
}

/* After this the process is nobody in particular: listening below 1024 is all that is left of
 * root. */
static bool
drop_privileges(const struct config *config, struct buffer *error)
{
	struct process_user user;
	bool good;

	if (geteuid() != 0)
		return true;
	if (process_user_find(config->user, &user) != PROCESS_OK) {
		buffer_add_fmt(error, "there is no account %s", config->user);
		return false;
	}
	(void)unsetenv("HOME"); /* libraries look into the account's own then */
	good = process_become(&user, true, error) == PROCESS_OK;
	process_user_free(&user);
	return good;
}

/* A connection is a descriptor: take as many as the system lets us. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int
run_role(const struct arguments *args)
{
	long supervisor = env_number(SUPERVISOR_PID_ENV);
	struct config *config = NULL;
	struct buffer error;
	int rc = 1, fd;

	buffer_init(&error, 4096);
	log_set_role(config_role_name(args->role));
	if (load_for_role(args->config, &config, &error) != CONFIG_OK ||
	    !drop_privileges(config, &error)) {
		log_error("role-not-started", LOG_B("reason", buffer_slice(&error)));
		goto out;
	}
	if (supervisor > 0)
		process_die_with((pid_t)supervisor,
		                 SIGKILL); /* after the change of user, which forgets it */
	log_set_level(config->log_level);
	raise_file_limit();
	fd = process_signals(); /* blocked before there is a second thread; the role reads them
	                         */
	if (fd >= 0)
		(void)close(fd);
	rc = role_mains[args->role](config);
out:
	buffer_free(&error);
	config_free(&config);
	return rc;
}

/* --- arguments ------------------------------------------------------------- */

enum { OPT_ROLE = 256, OPT_HELP_CONFIG, OPT_LIST_CONFIG };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "check", no_argument, NULL, 'n' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ "help-config", no_argument, NULL, OPT_HELP_CONFIG },
	{ "list-config", no_argument, NULL, OPT_LIST_CONFIG },
	{ "role", required_argument, NULL, OPT_ROLE },
	{ NULL, 0, NULL, 0 },
};

/* What only shows something, and ends. */
static void __attribute__((noreturn)) show(int opt)
{
	switch (opt) {
	case 'V':
		(void)puts("tmtpd " TMTP_VERSION);
		break;
	case OPT_HELP_CONFIG:
		config_help(stdout);
		break;
	case OPT_LIST_CONFIG:
		config_list(stdout);
		break;
	default:
		(void)fputs(usage, stdout);
		break;
	}
	exit(fflush(stdout) == 0 ? 0 : 1);
}

static bool
parse(int argc, char **argv, struct arguments *args)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "c:nhV", long_options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			args->config = optarg;
			break;
		case 'n':
			args->command = COMMAND_CHECK;
			break;
		case OPT_ROLE:
			args->command = COMMAND_ROLE;
			if (!config_role_parse(optarg, &args->role))
				return false;
			break;
		case '?':
			return false;
		default:
			show(opt);
		}
	}
	if (optind == argc)
		return true;
	(void)fprintf(stderr, "tmtpd: \"%s\" is one argument too many\n", argv[optind]);
	return false;
}

int
main(int argc, char **argv)
{
	struct arguments args = { .command = COMMAND_RUN, .config = CONFIG_DEFAULT };

	if (!parse(argc, argv, &args)) {
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	switch (args.command) {
	case COMMAND_CHECK:
		return check(args.config);
	case COMMAND_ROLE:
		return run_role(&args);
	case COMMAND_RUN:
		break;
	}
	return supervisor_run(args.config);
}
