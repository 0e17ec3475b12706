/*
 * What the commands of tmtpctl share: the command table's shape, the run's
 * state, errors, and the way to the configuration and the database. Each group
 * of commands is a file of its own; main.c holds the table of groups.
 */
#ifndef TMTP_CTL_CTL_H
#define TMTP_CTL_CTL_H

#include "base/config.h"
#include "store/store.h"

enum ctl_exit {
	CTL_OK = 0,
	CTL_REFUSED = 1, /* not found, refused, invalid */
	CTL_USAGE = 2,   /* the command line is wrong */
	CTL_DOWN = 3,    /* the database can't be asked */
};

#define CTL_OPTIONS_MAX 8
#define CTL_ACTOR_MAX 256
#define CTL_SENTENCE_MAX 1024

struct ctl_option {
	const char *name;  /* "title", as --title; NULL ends the list */
	const char *value; /* "TEXT"; NULL: a flag */
	const char *help;
	bool required;
};

enum ctl_needs { NEEDS_NOTHING, NEEDS_CONFIG, NEEDS_STORE };

struct ctl;

struct ctl_command {
	const char *name;                 /* "site create"; NULL ends the list */
	const char *arguments;            /* "NAME@DOMAIN"; exactly as many as it has words */
	const char *summary;              /* a line of tmtpctl --help */
	const char *more;                 /* further sentences, or NULL */
	const char *example;              /* command lines, without indentation */
	const struct ctl_option *options; /* or NULL */
	enum ctl_needs needs;
	enum ctl_exit (*run)(struct ctl *ctl);
};

/* One run. */
struct ctl {
	const char *config_path;
	bool json;
	const struct ctl_command *command;
	char **args; /* the command's arguments */
	const char
	    *values[CTL_OPTIONS_MAX]; /* of its options, in their order; NULL: not given */
	struct config *config;        /* owned */
	struct store *store;          /* owned; set when the command needs it */
	char actor[CTL_ACTOR_MAX];    /* "alice@host", for the audit log */
};

extern const struct ctl_command account_commands[], admin_token_commands[], audit_commands[],
    channel_commands[], contact_commands[], dmtp_commands[], domain_key_commands[],
    key_commands[], member_commands[], message_commands[], migrate_commands[], peer_commands[],
    queue_commands[], site_commands[], token_commands[];

/* The option's value, "" for a flag, NULL when it wasn't given. */
const char *ctl_value(const struct ctl *ctl, const char *option);

/*
 * Says what is wrong and what to do, on standard error and, with --json, as
 * {"error": {"code", "message"}} on standard output. Returns code.
 */
enum ctl_exit ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *reason, const char *fmt,
                       ...) __attribute__((format(printf, 4, 5)));

/* The same with CTL_USAGE, and where help is to be found. */
enum ctl_exit ctl_usage(struct ctl *ctl, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* --- The way to the database (open.c) ------------------------------------- */

/* Fills actor: the user at this host; root's SUDO_USER instead of root. */
void ctl_find_actor(struct ctl *ctl);

/* Reads the configuration; says what is wrong with it. */
enum ctl_exit ctl_open_config(struct ctl *ctl);

/* Connects as tmtp_ctl, after a look whether the schema is this program's. Needs the configuration. */
enum ctl_exit ctl_open_store(struct ctl *ctl);

/* Ends the connection and frees everything. */
void ctl_close(struct ctl *ctl);

/* " (is tmtpd running?)" when the database is the embedded one, else "". */
const char *ctl_down_help(const struct ctl *ctl);

/* The connection string of a database role into out, with a NUL. */
enum ctl_exit ctl_conninfo(struct ctl *ctl, const char *role, struct buffer *out);

/* Submits a job by its own function and waits: rc = ctl_ask(ctl, store_site_list, &list). */
#define ctl_ask(ctl, submit, call) \
	(ctl_wait_begin(&(call)->job), submit((ctl)->store, (call)), ctl_wait_end(&(call)->job))
void ctl_wait_begin(struct store_job *job);
enum store_rc ctl_wait_end(struct store_job *job);

/*
 * What a failed job means to the user: not_found and conflict are sentences for these two
 * (NULL: they can't happen).
 */
enum ctl_exit ctl_store_failed(struct ctl *ctl, enum store_rc rc, const char *not_found,
                               const char *conflict);

#endif
