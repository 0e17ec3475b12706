/*
 * Every option of the configuration, once: where it goes, what it accepts,
 * its default and one sentence of help. Included by config.c alone.
 */

enum section {
	SEC_GLOBAL,
	SEC_DOMAIN,
	SEC_SITE,
	SEC_RELAY,
	SEC_HOME,
	SEC_PANEL,
	SEC_ROUTE,
	SECTIONS
};

struct option {
	enum section section;
	const char *name;
	struct value_spec spec;
	size_t offset; /* in the section's struct */
	bool reload;   /* takes effect on SIGHUP */
	const char
	    *deflt; /* as in the file, without quotes; a list's items are parted by blanks */
	const char *help;
};

/* A route as its section stands in the file, before it becomes a config_route. */
struct route_read {
	struct config_route route;
	struct config_hostport dmtp, starttls;
	bool plaintext;
};

#define AT(type, field) offsetof(struct type, field)
#define NUMBER(least, most)                                       \
	{                                                         \
		.kind = VALUE_UINT, .min = (least), .max = (most) \
	}
#define OCTETS(least, most)                                       \
	{                                                         \
		.kind = VALUE_SIZE, .min = (least), .max = (most) \
	}
#define KIND(k)             \
	{                   \
		.kind = (k) \
	}
#define MIB (UINT64_C(1024) * 1024)
#define DAY (UINT64_C(24) * 3600)

static const struct option options[] = {
	{ SEC_GLOBAL, "roles", KIND(VALUE_ROLES), AT(config, roles), false,
	  "site relay home panel", "What this machine does, one process each." },
	{ SEC_GLOBAL, "state_directory", KIND(VALUE_PATH), AT(config, state_directory), false,
	  "/var/lib/tmtp", "Where the embedded database lives: an absolute path." },
	{ SEC_GLOBAL, "database", KIND(VALUE_CONNINFO), AT(config, database), false, "embedded",
	  "\"embedded\" runs a PostgreSQL of our own; anything else is a connection string for "
	  "yours, "
	  "without a password (name a passfile)." },
	{ SEC_GLOBAL, "user", KIND(VALUE_USER), AT(config, user), false, "tmtp",
	  "The account that roles run as when tmtpd is started by root." },
	{ SEC_GLOBAL, "log_level", KIND(VALUE_LEVEL), AT(config, log_level), true, "info",
	  "The least important lines that are logged: debug, info, warn or error." },
	{ SEC_GLOBAL, "drain_timeout_s", NUMBER(0, 3600), AT(config, drain_timeout_s), true,
	  "30",
	  "How long a role may finish its work when stopped; five seconds later it is killed." },
	{ SEC_GLOBAL, "postgres_directory", KIND(VALUE_PATH), AT(config, postgres_directory),
	  false, "",
	  "Where initdb and postgres are; empty: the newest in /usr/lib/postgresql, else the "
	  "PATH." },
	{ SEC_GLOBAL, "embedded_memory_mb", NUMBER(0, 1u << 20), AT(config, embedded_memory_mb),
	  false, "0",
	  "Memory that the embedded database plans with; 0: a quarter of the machine's, at "
	  "most 1024." },
	{ SEC_GLOBAL, "store_connections", NUMBER(1, 8), AT(config, store_connections), false,
	  "2", "Database connections of one role." },

	{ SEC_DOMAIN, "certificate", KIND(VALUE_PATH), AT(config_domain, certificate), true, "",
	  "PEM file with the domain's certificate and its chain, for DMTP and HTTPS; empty: "
	  "none." },
	{ SEC_DOMAIN, "key", KIND(VALUE_PATH), AT(config_domain, key), true, "",
	  "PEM file with the certificate's private key, readable by the roles' user." },
	{ SEC_DOMAIN, "title", KIND(VALUE_TITLE), AT(config_domain, title), true, "",
	  "Who sends, as members of other domains read it in the site card; empty: the "
	  "domain." },
	{ SEC_DOMAIN, "icon", KIND(VALUE_URL), AT(config_domain, icon), true, "",
	  "https URL of a PNG of at most 64 KiB, for the site card; empty: none." },
	{ SEC_DOMAIN, "signed", KIND(VALUE_BOOL), AT(config_domain, signed_only), true, "false",
	  "true: the site card demands that messages of this domain which are not signed are "
	  "refused (while it has a key that signs)." },

	{ SEC_SITE, "listen", KIND(VALUE_ADDRESSES), AT(config_site, http.listen), false,
	  "127.0.0.1:8080",
	  "Where websites push and home servers pick up; [::] takes IPv4 too." },
	{ SEC_SITE, "url", KIND(VALUE_ORIGIN), AT(config_site, http.url), false, "",
	  "This role's URL as the outside sees it; empty: https:// and the first domain." },
	{ SEC_SITE, "tls", KIND(VALUE_BOOL), AT(config_site, http.tls), false, "false",
	  "true: HTTPS by ourselves; false: plain HTTP, for a proxy that speaks HTTPS." },
	{ SEC_SITE, "threads", NUMBER(0, 64), AT(config_site, threads), false, "0",
	  "Threads that serve HTTP; 0: one a processor." },
	{ SEC_SITE, "body_max_bytes", OCTETS(4096, 1u << 30), AT(config_site, body_max_bytes),
	  false, "36700160", "The longest body of a request." },
	{ SEC_SITE, "message_max_bytes", OCTETS(1024, 1u << 30),
	  AT(config_site, message_max_bytes), false, "26214400",
	  "The longest message, as it is stored and picked up." },
	{ SEC_SITE, "message_hosts", KIND(VALUE_URLS), AT(config_site, message_hosts), false,
	  "",
	  "Up to three more URLs that messages can be picked up from (a CDN, a cache), in order of "
	  "preference, before our own." },
	{ SEC_SITE, "metrics_listen", KIND(VALUE_ADDRESS), AT(config_site, metrics_listen),
	  false, "", "Where Prometheus finds this role's metrics; empty: nowhere." },
	{ SEC_SITE, "max_pushes_per_second", NUMBER(0, 1000000),
	  AT(config_site, max_pushes_per_second), false, "0",
	  "Pushes a second that one site may make; 0: no limit." },

	{ SEC_SITE, "attachment_max_bytes", OCTETS(1, UINT64_C(1) << 40),
	  AT(config_site, attachment_max_bytes), false, "268435456",
	  "The largest attachment that a site may upload." },
	{ SEC_SITE, "attachment_quota_bytes", OCTETS(1, UINT64_C(1) << 50),
	  AT(config_site, attachment_quota_bytes), false, "10737418240",
	  "What all attachments of one site may take together." },
	{ SEC_SITE, "attachment_unused_s", NUMBER(60, 366 * DAY),
	  AT(config_site, attachment_unused_s), false, "86400",
	  "How long an attachment that no message names is kept after its upload." },
	{ SEC_SITE, "attachment_used_s", NUMBER(60, 366 * DAY),
	  AT(config_site, attachment_used_s), false, "2678400",
	  "How long an attachment is kept after the last message that names it was accepted; home "
	  "servers may pick a message up for 30 days." },

	{ SEC_RELAY, "metrics_listen", KIND(VALUE_ADDRESS), AT(config_relay, metrics_listen),
	  false, "", "Where Prometheus finds this role's metrics; empty: nowhere." },
	{ SEC_RELAY, "sessions_per_domain", NUMBER(1, 64),
	  AT(config_relay, sessions_per_domain), false, "4",
	  "DMTP sessions to one domain at a time." },
	{ SEC_RELAY, "expire_after_s", NUMBER(60, 30 * DAY), AT(config_relay, expire_after_s),
	  false, "432000",
	  "How long delivery of a message is tried when it does not say itself." },
	{ SEC_RELAY, "retry_min_s", NUMBER(1, DAY), AT(config_relay, retry_min_s), false, "60",
	  "The first wait before an unreachable domain is tried again; it doubles." },
	{ SEC_RELAY, "retry_max_s", NUMBER(1, DAY), AT(config_relay, retry_max_s), false,
	  "14400", "The longest such wait." },
	{ SEC_RELAY, "connect_timeout_s", NUMBER(1, 300), AT(config_relay, connect_timeout_s),
	  false, "30", "How long one target of a domain may take to answer." },
	{ SEC_RELAY, "reply_timeout_s", NUMBER(1, 3600), AT(config_relay, reply_timeout_s),
	  false, "60",
	  "How long a server that was sent commands may say nothing at all; then it counts as failed, "
	  "and what it didn't answer is sent again." },
	{ SEC_RELAY, "nameservers", KIND(VALUE_SERVERS), AT(config_relay, nameservers), false,
	  "",
	  "DNS servers to ask (address or address:port); empty: those of /etc/resolv.conf." },
	{ SEC_RELAY, "auth", KIND(VALUE_BOOL), AT(config_relay, auth), false, "true",
	  "Whether a domain of ours without a certificate, or with one that a peer does not "
	  "accept, is proved by its published key (AUTH)." },

	{ SEC_HOME, "listen", KIND(VALUE_ADDRESSES), AT(config_home, http.listen), false,
	  "127.0.0.1:8081", "Where members read their inbox; [::] takes IPv4 too." },
	{ SEC_HOME, "url", KIND(VALUE_ORIGIN), AT(config_home, http.url), false, "",
	  "This role's URL as the outside sees it; empty: https:// and the first domain." },
	{ SEC_HOME, "tls", KIND(VALUE_BOOL), AT(config_home, http.tls), false, "false",
	  "true: HTTPS by ourselves; false: plain HTTP, for a proxy that speaks HTTPS." },
	{ SEC_HOME, "threads", NUMBER(0, 64), AT(config_home, threads), false, "0",
	  "Threads that serve HTTP; 0: one a processor." },
	{ SEC_HOME, "dmtp_listen", KIND(VALUE_ADDRESSES), AT(config_home, dmtp_listen), false,
	  "[::]:3687", "Where other servers deliver over DMTP with STARTTLS." },
	{ SEC_HOME, "dmtps_listen", KIND(VALUE_ADDRESSES), AT(config_home, dmtps_listen), false,
	  "[::]:3688", "Where other servers deliver over DMTP with TLS from the first octet." },
	{ SEC_HOME, "metrics_listen", KIND(VALUE_ADDRESS), AT(config_home, metrics_listen),
	  false, "", "Where Prometheus finds this role's metrics; empty: nowhere." },
	{ SEC_HOME, "max_connections", NUMBER(1, 1000000), AT(config_home, max_connections),
	  false, "10000", "DMTP connections at a time." },
	{ SEC_HOME, "max_connections_per_address", NUMBER(1, 1000000),
	  AT(config_home, max_connections_per_address), false, "64",
	  "DMTP connections of one client address at a time." },
	{ SEC_HOME, "max_sessions_per_minute", NUMBER(0, 1000000),
	  AT(config_home, max_sessions_per_minute), false, "600",
	  "DMTP sessions that one client address may begin a minute; 0: no limit." },
	{ SEC_HOME, "max_rcpts_per_second", NUMBER(0, 1000000),
	  AT(config_home, max_rcpts_per_second), false, "0",
	  "Recipients that one domain may notify a second; 0: no limit." },
	{ SEC_HOME, "command_octets", NUMBER(65536, 16 * MIB),
	  AT(config_home, limits.command_octets), false, "262144",
	  "The longest DMTP command." },
	{ SEC_HOME, "idle_s", NUMBER(10, 3600), AT(config_home, limits.idle_s), false, "300",
	  "How long a DMTP session may do nothing." },
	{ SEC_HOME, "message_octets", NUMBER(1024, 1u << 30),
	  AT(config_home, limits.message_octets), false, "26214400",
	  "The longest message that is picked up." },
	{ SEC_HOME, "noops", NUMBER(1, 1000), AT(config_home, limits.noops), false, "10",
	  "NOOPs in a row." },
	{ SEC_HOME, "pipeline", NUMBER(8, 1024), AT(config_home, limits.pipeline), false, "64",
	  "Unanswered commands of one session." },
	{ SEC_HOME, "rcpts", NUMBER(100, 10000), AT(config_home, limits.rcpts), false, "1000",
	  "Recipients of one command." },
	{ SEC_HOME, "uris", NUMBER(4, 64), AT(config_home, limits.uris), false, "8",
	  "Pickup URIs of one notification." },
	{ SEC_HOME, "invitations", KIND(VALUE_BOOL), AT(config_home, invitations), false,
	  "true", "Whether strangers may ask a member to open a channel." },
	{ SEC_HOME, "invitations_per_day", NUMBER(1, 10000),
	  AT(config_home, invitations_per_day), false, "5",
	  "Such questions a day from one registrable domain to one member." },
	{ SEC_HOME, "contact_invitations_per_day", NUMBER(1, 100000),
	  AT(config_home, contact_invitations_per_day), false, "50",
	  "Invitations to other persons that one member may send a day." },
	{ SEC_HOME, "messages_per_minute", NUMBER(1, 100000),
	  AT(config_home, messages_per_minute), false, "60",
	  "Messages that one member may write a minute." },
	{ SEC_HOME, "contact_messages_per_minute", NUMBER(1, 100000),
	  AT(config_home, contact_messages_per_minute), false, "120",
	  "Messages a minute that are taken from one contact for one member; what is more waits "
	  "at the contact's server." },
	{ SEC_HOME, "attachment_max_bytes", OCTETS(0, UINT64_C(1) << 40),
	  AT(config_home, attachment_max_bytes), false, "268435456",
	  "The largest attachment that is fetched for members; 0: none is." },
	{ SEC_HOME, "attachment_member_bytes", OCTETS(0, UINT64_C(1) << 50),
	  AT(config_home, attachment_member_bytes), false, "4294967296",
	  "What the attachments that are kept for one member may take together." },
	{ SEC_HOME, "attachment_total_bytes", OCTETS(0, UINT64_C(1) << 50),
	  AT(config_home, attachment_total_bytes), false, "0",
	  "What all attachments that are kept for members may take together; 0: no limit." },
	{ SEC_HOME, "lmtp_listen", KIND(VALUE_SOCKETS), AT(config_home, lmtp.listen), false, "",
	  "Where the local mail server delivers mail for members who opened the channel smtp, "
	  "over LMTP: unix:/path or a loopback address; empty: no mail." },
	{ SEC_HOME, "lmtp_allow_remote", KIND(VALUE_BOOL), AT(config_home, lmtp.allow_remote),
	  false, "false",
	  "true: lmtp_listen may name addresses that other machines reach. Whoever reaches "
	  "them can write to those members." },
	{ SEC_HOME, "lmtp_octets", OCTETS(65536, 256 * MIB), AT(config_home, lmtp.octets),
	  false, "26214400", "The longest mail." },
	{ SEC_HOME, "lmtp_rcpts", NUMBER(1, 1000), AT(config_home, lmtp.rcpts), false, "100",
	  "Recipients of one mail." },
	{ SEC_HOME, "lmtp_connections", NUMBER(1, 1000), AT(config_home, lmtp.connections),
	  false, "40", "LMTP connections at a time." },
	{ SEC_HOME, "lmtp_idle_s", NUMBER(10, 3600), AT(config_home, lmtp.idle_s), false, "300",
	  "How long an LMTP session may do nothing." },

	{ SEC_PANEL, "listen", KIND(VALUE_ADDRESSES), AT(config_panel, http.listen), false,
	  "127.0.0.1:8082", "Where administrators find the panel; [::] takes IPv4 too." },
	{ SEC_PANEL, "url", KIND(VALUE_ORIGIN), AT(config_panel, http.url), false, "",
	  "This role's URL as the administrators see it; empty: https:// and the first "
	  "domain." },
	{ SEC_PANEL, "tls", KIND(VALUE_BOOL), AT(config_panel, http.tls), false, "false",
	  "true: HTTPS by ourselves; false: plain HTTP, for a proxy that speaks HTTPS." },
	{ SEC_PANEL, "metrics_listen", KIND(VALUE_ADDRESS), AT(config_panel, metrics_listen),
	  false, "", "Where Prometheus finds this role's metrics; empty: nowhere." },

	{ SEC_ROUTE, "dmtp", KIND(VALUE_HOSTPORT), AT(route_read, dmtp), false, "",
	  "host:port that takes this domain's DMTP, with TLS from the first octet, instead of "
	  "its SRV records." },
	{ SEC_ROUTE, "starttls", KIND(VALUE_HOSTPORT), AT(route_read, starttls), false, "",
	  "The same with STARTTLS." },
	{ SEC_ROUTE, "plaintext", KIND(VALUE_BOOL), AT(route_read, plaintext), false, "false",
	  "true: speak to the dmtp target without TLS; only for a network that you trust." },
	{ SEC_ROUTE, "pickup", KIND(VALUE_HOSTPORT), AT(route_read, route.pickup), false, "",
	  "host:port that this domain's messages and its site card are fetched from, whatever "
	  "their URLs resolve to." },
	{ SEC_ROUTE, "ca", KIND(VALUE_PATH), AT(route_read, route.ca), false, "",
	  "PEM file with the certificate authorities to trust for this domain instead of the "
	  "system's." },
	{ SEC_ROUTE, "allow_private", KIND(VALUE_BOOL), AT(route_read, route.allow_private),
	  false, "false", "true: this domain may be at a private or loopback address." },
	{ SEC_ROUTE, "command_octets", NUMBER(0, 16 * MIB),
	  AT(route_read, route.limits.command_octets), false, "0",
	  "The longest DMTP command of this domain, once it is verified; 0: as everybody's." },
	{ SEC_ROUTE, "message_octets", NUMBER(0, 1u << 30),
	  AT(route_read, route.limits.message_octets), false, "0",
	  "The longest message that is picked up from it; 0: as everybody's." },
	{ SEC_ROUTE, "pipeline", NUMBER(0, 1024), AT(route_read, route.limits.pipeline), false,
	  "0", "Its unanswered commands in one session; 0: as everybody's." },
	{ SEC_ROUTE, "rcpts", NUMBER(0, 10000), AT(route_read, route.limits.rcpts), false, "0",
	  "Recipients of one command of it; 0: as everybody's." },
	{ SEC_ROUTE, "uris", NUMBER(0, 64), AT(route_read, route.limits.uris), false, "0",
	  "Pickup URIs of one notification of it; 0: as everybody's." },
};

#undef AT
#undef NUMBER
#undef OCTETS
#undef KIND
#undef MIB
#undef DAY

#define OPTIONS (sizeof(options) / sizeof(options[0]))

static const struct {
	const char *name; /* NULL: outside of any section */
	bool titled;      /* may stand several times, each with a title */
	size_t offset;    /* in struct config, when not titled */
	const char *help;
} sections[SECTIONS] = {
	[SEC_GLOBAL] = { NULL, false, 0, "Outside of any section" },
	[SEC_DOMAIN] = { "domain", true, 0,
	                 "A domain that this appliance speaks for: domain \"shop.test\" { ... "
	                 "}" },
	[SEC_SITE] = { "site", false, offsetof(struct config, site), "What websites speak to" },
	[SEC_RELAY] = { "relay", false, offsetof(struct config, relay),
	                "What carries messages to other servers" },
	[SEC_HOME] = { "home", false, offsetof(struct config, home),
	               "What other servers and members speak to" },
	[SEC_PANEL] = { "panel", false, offsetof(struct config, panel),
	                "What administrators speak to" },
	[SEC_ROUTE] = { "route", true, 0,
	                "A pinned way to another domain: route \"home.test\" { ... }" },
};
