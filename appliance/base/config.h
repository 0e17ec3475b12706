/*
 * The configuration: one file, parsed and validated as a whole into one
 * struct with every default filled in. Unknown sections and options are
 * refused. Secrets never stand in it, only the names of the files that hold
 * them. The text of every option's default and help is one table in config.c.
 */
#ifndef TMTP_BASE_CONFIG_H
#define TMTP_BASE_CONFIG_H

#include "base/buffer.h"
#include "base/log.h"

#include <stdio.h>
#include <sys/socket.h>

enum config_role { ROLE_SITE, ROLE_RELAY, ROLE_HOME, ROLE_PANEL, CONFIG_ROLES };

/* A numeric address to listen on or to ask: "127.0.0.1:443", "[::]:3688". */
struct config_address {
	char *text; /* as written; NULL when the option is not set */
	struct sockaddr_storage addr;
	socklen_t addr_len;
};

struct config_addresses {
	struct config_address *items;
	size_t count;
};

/* "127.0.0.1:13688", "[::1]:13688" or "mail.home.test:3688". */
struct config_hostport {
	char *host; /* without brackets; NULL when the option is not set */
	uint16_t port;
};

struct config_strings {
	char **items;
	size_t count;
};

/* A domain that this appliance speaks for. */
struct config_domain {
	char *name;        /* lower case, A-labels */
	char *certificate; /* PEM file, the whole chain; NULL: none. Absolute, as every file
	                      name here */
	char *key;         /* PEM file; NULL exactly when certificate is */
	/* What its site card says. */
	char *title;      /* who sends; NULL: the domain */
	char *icon;       /* URL of a PNG, or NULL */
	bool signed_only; /* what isn't signed is to be refused */
};

/* How a route's DMTP target is spoken to. */
enum config_route_dmtp {
	ROUTE_DMTP_NONE,      /* no target: the domain's own SRV records */
	ROUTE_DMTP_TLS,       /* TLS from the first octet */
	ROUTE_DMTP_STARTTLS,  /* STARTTLS */
	ROUTE_DMTP_PLAINTEXT, /* no TLS at all */
};

/* What DMTP's greeting announces (DMTP.md section 3). */
struct config_limits {
	unsigned command_octets, idle_s, message_octets, noops, pipeline, rcpts, uris;
};

/* A pinned way to another domain, and what it may do here. */
struct config_route {
	char *domain;
	enum config_route_dmtp dmtp;
	struct config_hostport dmtp_target; /* set unless dmtp is ROUTE_DMTP_NONE */
	struct config_hostport
	    pickup;         /* where https://<any of its hosts> is fetched, or host NULL */
	char *ca;           /* PEM file that replaces the system's trust roots, or NULL */
	bool allow_private; /* private and loopback addresses are allowed */
	struct config_limits limits; /* of its verified sessions; each 0: as everybody's */
};

/* What a listener for HTTP needs; every url is without a trailing slash. */
struct config_http {
	struct config_addresses listen; /* at least one */
	char *url;                      /* as the outside sees it: "https://shop.test" */
	bool tls;                       /* HTTPS by ourselves; else plain HTTP, for a proxy */
};

/* Every receiver takes four URIs a message, and our own is always one. */
#define CONFIG_MESSAGE_HOSTS 3

struct config_site {
	struct config_http http;
	unsigned threads; /* resolved: never 0 */
	size_t body_max_bytes;
	size_t message_max_bytes;
	struct config_strings message_hosts; /* more pickup URLs in order of preference,
	                                        "https://host[:port][/path]" */
	struct config_address metrics_listen;
	unsigned max_pushes_per_second;                      /* of one site; 0: no limit */
	size_t attachment_max_bytes, attachment_quota_bytes; /* of one, of all of a site */
	unsigned attachment_unused_s, attachment_used_s;     /* kept so long */
};

struct config_relay {
	struct config_address metrics_listen;
	unsigned sessions_per_domain;
	unsigned expire_after_s;
	unsigned retry_min_s, retry_max_s; /* min <= max */
	unsigned connect_timeout_s, reply_timeout_s;
	struct config_addresses
	    nameservers; /* empty: resolv.conf's. Port 53 when none is written */
	bool auth; /* prove our domains by a published key where a certificate doesn't do */
};

/* Mail from the local mail server (home/lmtp.h). */
struct config_lmtp {
	struct config_addresses listen; /* also "unix:/path" (AF_UNIX); may be empty: off */
	bool allow_remote;              /* else only loopback addresses and Unix sockets */
	size_t octets;                  /* of one mail */
	unsigned rcpts;                 /* of one mail */
	unsigned connections, idle_s;
};

struct config_home {
	struct config_http http;
	unsigned threads;                     /* resolved: never 0 */
	struct config_addresses dmtp_listen;  /* STARTTLS; may be empty */
	struct config_addresses dmtps_listen; /* TLS at once; may be empty */
	struct config_address metrics_listen;
	unsigned max_connections;
	unsigned max_connections_per_address;
	unsigned max_sessions_per_minute; /* of one client address; 0: no limit */
	unsigned max_rcpts_per_second;    /* of one sender's domain; 0: no limit */
	struct config_limits limits;
	bool invitations;
	unsigned invitations_per_day;         /* of one registrable domain to one member */
	unsigned contact_invitations_per_day; /* that one member sends */
	unsigned messages_per_minute;         /* that one member writes */
	unsigned contact_messages_per_minute; /* that one contact gets through to a member */
	struct config_lmtp lmtp;
	/* Of one attachment, of all that one member has, of all that are here (0: no limit). */
	size_t attachment_max_bytes, attachment_member_bytes, attachment_total_bytes;
};

struct config_panel {
	struct config_http http;
	struct config_address metrics_listen;
};

struct config {
	char *path; /* the file, absolute */
	bool roles[CONFIG_ROLES];
	char *state_directory;
	char *database; /* NULL: the embedded one; else a libpq conninfo without a password */
	char *user;     /* whom a role becomes when started as root */
	enum log_level log_level;
	unsigned drain_timeout_s;
	char *postgres_directory;    /* NULL: to be found */
	unsigned embedded_memory_mb; /* resolved: never 0 */
	unsigned store_connections;  /* of one role */
	struct config_domain *domains;
	size_t domains_count;
	struct config_route *routes;
	size_t routes_count;
	struct config_site site;
	struct config_relay relay;
	struct config_home home;
	struct config_panel panel;
	int source_fd; /* where config_reload reads again, or -1: path. Borrowed */
};

enum config_rc {
	CONFIG_OK = 0,
	CONFIG_UNREADABLE, /* the file cannot be opened or read */
	CONFIG_INVALID,    /* the file is read and wrong */
};

/*
 * Reads and checks the file, certificates and keys included (as the user that
 * roles become, when called by root). Not OK: *out is untouched and error
 * holds one line, "file:line: what is wrong and what to do"; the line is
 * missing where the fault has none. Any thread; one at a time works, the
 * others wait.
 */
enum config_rc config_load(const char *path, struct config **out, struct buffer *error)
    __attribute__((warn_unused_result));

/* The same from a descriptor that can be read at any offset; path is for messages and relative
 * names. */
enum config_rc config_load_fd(int fd, const char *path, struct config **out,
                              struct buffer *error) __attribute__((warn_unused_result));

/*
 * The same from where config came: what a role calls on SIGHUP. It then takes
 * over what may change without a restart (config_restart_options names what
 * may not) and frees the new or the old one.
 */
enum config_rc config_reload(const struct config *config, struct config **out,
                             struct buffer *error) __attribute__((warn_unused_result));

/* Frees everything and sets *config to NULL; NULL is fine. */
void config_free(struct config **config);

/* "site", "relay", "home", "panel". */
const char *config_role_name(enum config_role role);

/* False: no such role, *out untouched. */
bool config_role_parse(const char *name, enum config_role *out);

/* The domain of this name (lower case), or NULL. Borrows. */
const struct config_domain *config_domain_find(const struct config *config, struct slice name);

/* The route to this domain (lower case), or NULL. Borrows. */
const struct config_route *config_route_find(const struct config *config, struct slice domain);

/* The names of the options that differ and take effect only after a restart, ", " between them.
 */
void config_restart_options(const struct config *running, const struct config *loaded,
                            struct buffer *names);

/* Every option, its default and its help, one paragraph each. */
void config_help(FILE *out);

/* "section.option<TAB>type<TAB>default<TAB>help" lines; the section is missing for global
 * options. */
void config_list(FILE *out);

#endif
