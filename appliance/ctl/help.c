/* Help from the command table: see help.h. */
#include "ctl/help.h"

#include "base/version.h"

#define LINE_WIDTH 78

static bool
begins_with(const char *name, const char *word)
{
	size_t len = strlen(word);

	return strncmp(name, word, len) == 0 && (name[len] == ' ' || name[len] == '\0');
}

bool
help_is_group(const struct ctl_command *const *groups, size_t groups_n, const char *word)
{
	for (size_t g = 0; g < groups_n; g++)
		for (const struct ctl_command *c = groups[g]; c->name != NULL; c++)
			if (begins_with(c->name, word))
				return true;
	return false;
}

/* Words of text, the first line beginning at column, the others at indent. */
static void
print_wrapped(FILE *out, const char *text, size_t column, size_t indent)
{
	while (*text != '\0') {
		size_t len = strcspn(text, " ");

		if (column > indent && column + 1 + len > LINE_WIDTH) {
			(void)fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		if (column > indent) {
			(void)fputc(' ', out);
			column++;
		}
		(void)fprintf(out, "%.*s", (int)len, text);
		column += len;
		text += len;
		text += strspn(text, " ");
	}
	(void)fputc('\n', out);
}

void
help_all(FILE *out, const struct ctl_command *const *groups, size_t groups_n, const char *group)
{
	if (group == NULL)
		(void)fputs(
		    "Usage: tmtpctl [--config FILE] [--json] COMMAND [ARGUMENTS] [OPTIONS]\n\n"
		    "Administers the appliance. Commands:\n\n",
		    out);
	for (size_t g = 0; g < groups_n; g++) {
		if (group == NULL && g > 0)
			(void)fputc('\n', out);
		for (const struct ctl_command *c = groups[g]; c->name != NULL; c++) {
			if (group != NULL && !begins_with(c->name, group))
				continue;
			(void)fprintf(out, "  %-18s  ", c->name);
			print_wrapped(out, c->summary, 22, 22);
		}
	}
	if (group == NULL)
		(void)fputs(
		    "\nOptions, before or behind the command:\n"
		    "  -c, --config FILE  the configuration (/etc/tmtp/tmtp.conf)\n"
		    "      --json         one JSON document on standard output\n"
		    "  -h, --help         this, or a command's own help: tmtpctl site create --help\n"
		    "  -V, --version      the version\n\n"
		    "Exit status: 0 done, 1 refused or not found, 2 wrong usage, 3 the database can't be\n"
		    "asked. Times are UTC.\n\n"
		    "Example:\n"
		    "  tmtpctl site create shop@shop.test --title \"The shop\"\n",
		    out);
}

static void
help_option(const char *name, const char *value, const char *help, bool required)
{
	char head[64];
	char text[512];

	(void)snprintf(head, sizeof(head), "--%s%s%s", name, value != NULL ? " " : "",
	               value != NULL ? value : "");
	(void)snprintf(text, sizeof(text), "%s%s", help, required ? " (required)" : "");
	printf("  %-22s  ", head);
	if (strlen(head) > 22)
		printf("\n%26s", "");
	print_wrapped(stdout, text, 26, 26);
}

void
help_command(const struct ctl_command *c)
{
	printf("Usage: tmtpctl %s%s%s%s\n\n", c->name, c->arguments[0] != '\0' ? " " : "",
	       c->arguments, c->options != NULL ? " [OPTIONS]" : "");
	print_wrapped(stdout, c->summary, 0, 0);
	if (c->more != NULL) {
		(void)fputc('\n', stdout);
		print_wrapped(stdout, c->more, 0, 0);
	}
	printf("\nOptions:\n");
	for (const struct ctl_option *o = c->options; o != NULL && o->name != NULL; o++)
		help_option(o->name, o->value, o->help, o->required);
	help_option("config", "FILE", "the configuration (/etc/tmtp/tmtp.conf)", false);
	help_option("json", NULL, "one JSON document on standard output", false);
	printf("\nExample:\n");
	for (const char *line = c->example; *line != '\0';) {
		size_t len = strcspn(line, "\n");

		printf("  %.*s\n", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

void
help_version(void)
{
	printf("tmtpctl %s\n", TMTP_VERSION);
}
