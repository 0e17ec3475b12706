/*
 * tmtpctl: the command line of administrators. Finds the command, reads its
 * options, opens what it needs, runs it. Secrets never come in as arguments,
 * which every user of the machine can read.
 */
#include "ctl/ctl.h"

#include "ctl/help.h"
#include "ctl/output.h"

#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>

#define CONFIG_DEFAULT "/etc/tmtp/tmtp.conf"

enum { OPT_HELP = 'h', OPT_CONFIG = 'c', OPT_VERSION = 'V', OPT_JSON = 256, OPT_OWN = 512 };

static const struct ctl_command *const groups[] = {
	migrate_commands, site_commands,        key_commands,     token_commands,
	channel_commands, account_commands,     contact_commands, member_commands,
	message_commands, queue_commands,       peer_commands,    domain_key_commands,
	audit_commands,   admin_token_commands,
};

#define GROUPS (sizeof(groups) / sizeof(groups[0]))

/* --- Errors --------------------------------------------------------------- */

/* What stands in an argument, a file or libpq's words must not steer the terminal. */
static void
on_one_line(char *text)
{
	char *to = text;

	for (const char *p = text; *p != '\0'; p++) {
		bool control = (unsigned char)*p < ' ' || *p == 0x7f;

		if (!control)
			*to++ = *p;
		else if (to > text && to[-1] != ' ')
			*to++ = ' ';
	}
	*to = '\0';
}

static void __attribute__((format(printf, 3, 0)))
tell(struct ctl *ctl, const char *reason, const char *fmt, va_list ap)
{
	json_t *document, *error;
	char text[4096];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	on_one_line(text);
	(void)fprintf(stderr, "tmtpctl: %s\n", text);
	if (!ctl->json)
		return;
	error = json_object();
	json_object_set_new(error, "code", output_text(reason));
	json_object_set_new(error, "message", output_text(text));
	document = json_object();
	json_object_set_new(document, "error", error);
	output_json(document);
}

enum ctl_exit
ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(ctl, reason, fmt, ap);
	va_end(ap);
	return code;
}

enum ctl_exit
ctl_usage(struct ctl *ctl, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(ctl, "usage", fmt, ap);
	va_end(ap);
	if (ctl->command != NULL)
		(void)fprintf(stderr, "Try: tmtpctl %s --help\n", ctl->command->name);
	else
		(void)fputs("Try: tmtpctl --help\n", stderr);
	return CTL_USAGE;
}

/* --- Finding the command -------------------------------------------------- */

static const struct ctl_command *
find_command(const char *first, const char *second)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s %s", first, second != NULL ? second : "");
	for (size_t g = 0; g < GROUPS; g++)
		for (const struct ctl_command *c = groups[g]; c->name != NULL; c++)
			if (strcmp(c->name, first) == 0 || strcmp(c->name, name) == 0)
				return c;
	return NULL;
}

/* The command whose words stand at argv[optind], which moves behind them. */
static enum ctl_exit
choose_command(struct ctl *ctl, int argc, char **argv)
{
	const char *first = optind < argc ? argv[optind] : NULL;
	const char *second = first != NULL && optind + 1 < argc ? argv[optind + 1] : NULL;

	if (first == NULL)
		return ctl_usage(ctl, "no command given");
	if ((ctl->command = find_command(first, second)) != NULL) {
		optind += strchr(ctl->command->name, ' ') != NULL ? 2 : 1;
		return CTL_OK;
	}
	if (!help_is_group(groups, GROUPS, first))
		return ctl_usage(ctl, "there is no command \"%s\"", first);
	if (second != NULL && (strcmp(second, "--help") == 0 || strcmp(second, "-h") == 0)) {
		help_all(stdout, groups, GROUPS, first);
		return CTL_OK;
	}
	help_all(stderr, groups, GROUPS, first);
	if (second == NULL)
		return ctl_usage(ctl, "\"%s\" needs a second word", first);
	return ctl_usage(ctl, "there is no command \"%s %s\"", first, second);
}

/* --- Options -------------------------------------------------------------- */

static size_t
option_index(const struct ctl_command *command, const char *name)
{
	size_t i = 0;

	while (strcmp(command->options[i].name, name) != 0)
		i++;
	return i;
}

const char *
ctl_value(const struct ctl *ctl, const char *option)
{
	return ctl->values[option_index(ctl->command, option)];
}

/* Common options and the command's own, as getopt_long wants them. */
static void
fill_options(const struct ctl_command *command, struct option *out)
{
	static const struct option common[] = {
		{ "help", no_argument, NULL, OPT_HELP },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "config", required_argument, NULL, OPT_CONFIG },
		{ "version", no_argument, NULL, OPT_VERSION },
	};
	size_t n = command == NULL ? 4 : 3;

	memcpy(out, common, n * sizeof(common[0]));
	for (int i = 0;
	     command != NULL && command->options != NULL && command->options[i].name != NULL;
	     i++)
		out[n++] =
		    (struct option){ command->options[i].name,
			             command->options[i].value != NULL ? required_argument
			                                               : no_argument,
			             NULL, OPT_OWN + i };
	out[n] = (struct option){ NULL, 0, NULL, 0 };
}

/* What stands behind "=" may be a secret that was put there by mistake: it isn't repeated. */
static enum ctl_exit
bad_option(struct ctl *ctl, int c, const char *argument)
{
	int len = (int)strcspn(argument, "=");

	if (c == ':')
		return ctl_usage(ctl, "the option %.*s needs a value", len, argument);
	if (optopt > 0 && optopt < OPT_JSON && strchr("hcV", optopt) == NULL)
		return ctl_usage(ctl, "there is no option -%c here", optopt);
	if (optopt != 0)
		return ctl_usage(ctl, "the option %.*s takes no value", len, argument);
	return ctl_usage(ctl, "there is no option %.*s here", len, argument);
}

static enum ctl_exit
take_own(struct ctl *ctl, int index)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): only a command has own options */
	const struct ctl_option *option = &ctl->command->options[index];

	if (ctl->values[index] != NULL)
		return ctl_usage(ctl, "--%s is given twice", option->name);
	if (optarg != NULL && *optarg == '\0')
		return ctl_usage(ctl, "--%s is empty", option->name);
	ctl->values[index] = optarg != NULL ? optarg : "";
	return CTL_OK;
}

/* getopt_long takes abbreviations; they would become promises, and hide which option a value went to. */
static bool
is_abbreviated(const char *given, const struct option *options, int c)
{
	if (strncmp(given, "--", 2) != 0)
		return false;
	for (const struct option *o = options; o->name != NULL; o++)
		if (o->val == c)
			return strlen(o->name) != strcspn(given + 2, "=");
	return false;
}

/* Reads options; before the command ("+") or among its arguments. *help: --help or --version was answered. */
static enum ctl_exit
read_options(struct ctl *ctl, int argc, char **argv, bool *help)
{
	struct option options[CTL_OPTIONS_MAX + 5];
	enum ctl_exit result = CTL_OK;
	int c;

	fill_options(ctl->command, options);
	while (result == CTL_OK && !*help &&
	       (c = getopt_long(argc, argv, ctl->command == NULL ? "+:hc:V" : ":hc:", options,
	                        NULL)) != -1) {
		const char *given =
		    argv[optind - (optarg != NULL && optarg == argv[optind - 1] ? 2 : 1)];

		if (is_abbreviated(given, options, c))
			return ctl_usage(
			    ctl, "there is no option %.*s here: options are written in full",
			    (int)strcspn(given, "="), given);
		if (c == OPT_HELP && ctl->command != NULL)
			help_command(ctl->command);
		else if (c == OPT_HELP)
			help_all(stdout, groups, GROUPS, NULL);
		else if (c == OPT_VERSION)
			help_version();
		else if (c == OPT_CONFIG)
			ctl->config_path = optarg;
		else if (c >= OPT_OWN)
			result = take_own(ctl, c - OPT_OWN);
		else if (c != OPT_JSON)
			result = bad_option(ctl, c, argv[optind - 1]);
		*help = c == OPT_HELP || c == OPT_VERSION;
	}
	return result;
}

static int
count_words(const char *text)
{
	int n = 0;

	for (const char *p = text; *p != '\0'; p++)
		n += *p != ' ' && (p == text || p[-1] == ' ');
	return n;
}

static enum ctl_exit
check_call(struct ctl *ctl, int args_n)
{
	const struct ctl_command *command = ctl->command;
	int wanted = count_words(command->arguments);

	if (args_n > wanted)
		return ctl_usage(ctl, "\"%s\" is one argument too many", ctl->args[wanted]);
	if (args_n < wanted)
		return ctl_usage(ctl, "%s needs %s", command->name, command->arguments);
	for (size_t i = 0; command->options != NULL && command->options[i].name != NULL; i++)
		if (command->options[i].required && ctl->values[i] == NULL)
			return ctl_usage(ctl, "%s needs --%s", command->name,
			                 command->options[i].name);
	return CTL_OK;
}

/* --- Running -------------------------------------------------------------- */

static enum ctl_exit
run(struct ctl *ctl)
{
	enum ctl_exit result = CTL_OK;

	ctl_find_actor(ctl);
	if (ctl->command->needs >= NEEDS_CONFIG)
		result = ctl_open_config(ctl);
	if (result == CTL_OK && ctl->command->needs >= NEEDS_STORE)
		result = ctl_open_store(ctl);
	if (result == CTL_OK)
		result = ctl->command->run(ctl);
	ctl_close(ctl);
	return result;
}

static enum ctl_exit
call(struct ctl *ctl, int argc, char **argv)
{
	enum ctl_exit result;
	bool help = false;

	opterr = 0;
	if ((result = read_options(ctl, argc, argv, &help)) != CTL_OK || help)
		return result;
	if ((result = choose_command(ctl, argc, argv)) != CTL_OK || ctl->command == NULL)
		return result;
	argc -= optind - 1; /* the command's last word stands where a program's name does */
	argv += optind - 1;
	optind = 0; /* getopt begins anew: options may now stand among arguments */
	if ((result = read_options(ctl, argc, argv, &help)) != CTL_OK || help)
		return result;
	ctl->args = argv + optind;
	if ((result = check_call(ctl, argc - optind)) != CTL_OK)
		return result;
	return run(ctl);
}

/* Known before anything can go wrong, so that errors have the form that is asked for. */
static bool
wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

int
main(int argc, char **argv)
{
	struct ctl ctl = { .config_path = CONFIG_DEFAULT, .json = wants_json(argc, argv) };
	enum ctl_exit result;

	(void)signal(
	    SIGPIPE,
	    SIG_IGN); /* a reader that goes away must not end us in the middle of a change */
	log_set_level(LOG_ERROR_LEVEL); /* what goes wrong is told in sentences */
	output_init();
	if (sodium_init() < 0)
		return (int)ctl_fail(&ctl, CTL_REFUSED, "system",
		                     "no source of random numbers");
	result = call(&ctl, argc, argv);
	if (output_flush() == OUTPUT_FAILED && result == CTL_OK)
		result = CTL_REFUSED;
	return (int)result;
}
