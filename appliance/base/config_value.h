/*
 * One option's value: from the strings that stand in the file to the field it
 * fills, with every check that looks at this value alone. Private to config.c.
 */
#ifndef TMTP_BASE_CONFIG_VALUE_H
#define TMTP_BASE_CONFIG_VALUE_H

#include "base/config.h"

enum value_kind {
	VALUE_UINT,      /* unsigned; within min..max */
	VALUE_SIZE,      /* size_t; within min..max */
	VALUE_BOOL,      /* bool */
	VALUE_ROLES,     /* bool[CONFIG_ROLES] */
	VALUE_LEVEL,     /* enum log_level */
	VALUE_USER,      /* char *: an account's name */
	VALUE_CONNINFO,  /* char *: NULL for "embedded" */
	VALUE_PATH,      /* char *: made absolute; NULL when empty */
	VALUE_ADDRESS,   /* struct config_address; not set when empty */
	VALUE_ADDRESSES, /* struct config_addresses */
	VALUE_SERVERS,   /* struct config_addresses; port 53 when none is written */
	VALUE_SOCKETS,   /* struct config_addresses; "unix:/path" too */
	VALUE_HOSTPORT,  /* struct config_hostport; not set when empty */
	VALUE_ORIGIN,    /* char *: "https://host[:port]"; NULL when empty */
	VALUE_URLS,      /* struct config_strings: "https://host[:port][/path]" */
	VALUE_URL,       /* char *: one such; NULL when empty */
	VALUE_TITLE,     /* char *: 1 to 100 characters of UTF-8 in one line; NULL when empty */
};

struct value_spec {
	enum value_kind kind;
	uint64_t min, max; /* numbers only */
};

struct value_input {
	const char *const *items;
	size_t count;    /* 1 unless the kind is a list */
	const char *dir; /* where relative file names begin */
};

/* The kind takes a list in braces. */
bool value_is_list(enum value_kind kind);

/* "number", "true or false", "list of addresses": for people. */
const char *value_kind_name(enum value_kind kind);

/* Fills the zeroed field. False: a sentence in why; what the field holds by then value_free
 * frees. */
bool value_set(const struct value_spec *spec, const struct value_input *in, void *field,
               struct buffer *why) __attribute__((warn_unused_result));

void value_free(enum value_kind kind, void *field);

/* A domain as DMTP writes it: lower-case letters, digits, hyphens and dots, at most 253 octets.
 */
bool value_is_domain(const char *s);

/* A host in a URL: a domain, an IPv4 address, or an IPv6 address in brackets. */
bool value_is_url_host(struct slice host);

#endif
