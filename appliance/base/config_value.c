/* Values of configuration options: see config_value.h. */
#include "base/config_value.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define DNS_PORT 53

/* --- text ------------------------------------------------------------------ */

static bool
refuse(struct buffer *why, const char *value, const char *what)
{
	buffer_add_fmt(why, "\"%s\" %s", value, what);
	return false;
}

static bool
keep_text(const char *text, size_t len, char **out, struct buffer *why)
{
	*out = strndup(text, len);
	if (*out == NULL)
		buffer_add_str(why, "out of memory");
	return *out != NULL;
}

static bool
set_number(const struct value_spec *spec, const char *text, uint64_t *out, struct buffer *why)
{
	if (text_parse_u64(slice_str(text), spec->max, out) && *out >= spec->min)
		return true;
	buffer_add_fmt(why, "\"%s\" is not a whole number from %llu to %llu", text,
	               (unsigned long long)spec->min, (unsigned long long)spec->max);
	return false;
}

static bool
set_bool(const char *text, bool *out, struct buffer *why)
{
	if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return refuse(why, text, "is neither true nor false");
	*out = text[0] == 't';
	return true;
}

static bool
set_roles(const struct value_input *in, bool *roles, struct buffer *why)
{
	enum config_role role;

	for (size_t i = 0; i < in->count; i++) {
		if (!config_role_parse(in->items[i], &role))
			return refuse(why, in->items[i],
			              "is not a role: write site, relay, home or panel");
		if (roles[role])
			return refuse(why, in->items[i], "stands twice");
		roles[role] = true;
	}
	if (in->count == 0)
		buffer_add_str(why,
		               "is empty: name at least one of site, relay, home and panel");
	return in->count > 0;
}

static bool
set_level(const char *text, enum log_level *out, struct buffer *why)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum log_level)i;
			return true;
		}
	}
	return refuse(why, text, "is not a level: write debug, info, warn or error");
}

/* Names as useradd(8) makes them; they end up in pg_ident.conf. */
static bool
set_user(const char *text, char **out, struct buffer *why)
{
	size_t len = strlen(text);
	bool good = len >= 1 && len <= 32 && strcmp(text, "root") != 0;

	for (size_t i = 0; good && i < len; i++) {
		char c = text[i];

		good = (c >= 'a' && c <= 'z') || c == '_' ||
		       (i > 0 && ((c >= '0' && c <= '9') || c == '-'));
	}
	if (!good)
		return refuse(why, text,
		              "is not the name of an account for the roles (root is refused)");
	return keep_text(text, len, out, why);
}

/* --- the database ---------------------------------------------------------- */

/* A keyword of libpq's connection string, or a parameter of its URI. */
static bool
has_keyword(const char *conninfo, const char *keyword)
{
	size_t len = strlen(keyword);

	for (const char *p = conninfo; (p = strstr(p, keyword)) != NULL; p++) {
		const char *after = p + len;

		if (p != conninfo && strchr(" \t\n?&", p[-1]) == NULL)
			continue;
		after += strspn(after, " \t\n");
		if (*after == '=')
			return true;
	}
	return false;
}

static bool
is_uri(const char *conninfo)
{
	return strncmp(conninfo, "postgresql://", 13) == 0 ||
	       strncmp(conninfo, "postgres://", 11) == 0;
}

/* "user:secret@" before the first slash of a URI. */
static bool
has_uri_password(const char *conninfo)
{
	const char *authority = strstr(conninfo, "://") + 3;
	size_t len = strcspn(authority, "/?");
	const char *at = memrchr(authority, '@', len);

	return at != NULL && memchr(authority, ':', (size_t)(at - authority)) != NULL;
}

static bool
set_conninfo(const char *text, char **out, struct buffer *why)
{
	if (strcmp(text, "embedded") == 0)
		return true;
	if (!is_uri(text) && strchr(text, '=') == NULL)
		return refuse(why, text,
		              "is neither \"embedded\" nor a connection string like "
		              "\"host=db.test dbname=tmtp\"");
	if (has_keyword(text, "password") || has_keyword(text, "sslpassword") ||
	    (is_uri(text) && has_uri_password(text))) {
		buffer_add_str(
		    why,
		    "holds a password: put it into a file that only the roles' user can read, "
		    "and name that with passfile=");
		return false;
	}
	return keep_text(text, strlen(text), out, why);
}

/* --- files ----------------------------------------------------------------- */

static bool
set_path(const char *text, const char *dir, char **out, struct buffer *why)
{
	size_t len = strlen(text);
	int n;

	if (len == 0)
		return true;
	while (len > 1 && text[len - 1] == '/')
		len--;
	if (text[0] == '/')
		return keep_text(text, len, out, why);
	n = asprintf(out, "%s/%.*s", strcmp(dir, "/") == 0 ? "" : dir, (int)len, text);
	if (n < 0) {
		*out = NULL;
		buffer_add_str(why, "out of memory");
	}
	return n >= 0;
}

/* --- addresses ------------------------------------------------------------- */

struct split {
	struct slice host; /* without brackets */
	bool brackets;
	struct slice port; /* empty when there is none */
};

static bool
split_hostport(const char *text, struct split *out)
{
	struct split s = { 0 };
	const char *end;

	if (text[0] == '[') {
		end = strchr(text, ']');
		if (end == NULL)
			return false;
		s.brackets = true;
		s.host = slice_mem(text + 1, (size_t)(end - text - 1));
		end++;
	} else {
		end = text + strcspn(text, ":");
		s.host = slice_mem(text, (size_t)(end - text));
	}
	if (*end == ':') {
		s.port = slice_str(end + 1);
		if (s.port.len == 0)
			return false;
	} else if (*end != '\0') {
		return false;
	}
	*out = s;
	return s.host.len > 0;
}

static bool
parse_ip(struct split s, struct sockaddr_storage *addr, socklen_t *len)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
	char host[INET6_ADDRSTRLEN];

	if (s.host.len >= sizeof(host))
		return false;
	memcpy(host, s.host.data, s.host.len);
	host[s.host.len] = '\0';
	memset(addr, 0, sizeof(*addr));
	if (s.brackets) {
		in6->sin6_family = AF_INET6;
		*len = sizeof(*in6);
		return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1;
	}
	in4->sin_family = AF_INET;
	*len = sizeof(*in4);
	return inet_pton(AF_INET, host, &in4->sin_addr) == 1;
}

static bool
parse_port(struct slice text, uint16_t *out)
{
	uint64_t port;

	if (!text_parse_u64(text, UINT16_MAX, &port) || port == 0)
		return false;
	*out = (uint16_t)port;
	return true;
}

/* default_port 0: one must be written. */
static bool
set_address(const char *text, uint16_t default_port, struct config_address *out,
            struct buffer *why)
{
	struct split s;
	uint16_t port = default_port;

	if (!split_hostport(text, &s) || !parse_ip(s, &out->addr, &out->addr_len))
		return refuse(why, text,
		              "is not an address like \"127.0.0.1:8080\" or \"[::]:3688\"");
	if ((s.port.len > 0 || default_port == 0) && !parse_port(s.port, &port))
		return refuse(why, text, "has no port from 1 to 65535 behind its address");
	if (out->addr.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&out->addr)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&out->addr)->sin_port = htons(port);
	return keep_text(text, strlen(text), &out->text, why);
}

/* "unix:/path", absolute. */
static bool
set_unix(const char *text, struct config_address *out, struct buffer *why)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&out->addr;
	const char *path = text + strlen("unix:");

	if (path[0] != '/' || path[1] == '\0')
		return refuse(why, text, "has no absolute path behind \"unix:\"");
	if (strlen(path) >= sizeof(un->sun_path))
		return refuse(why, text, "is longer than the path of a socket may be");
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	out->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
	return keep_text(text, strlen(text), &out->text, why);
}

static bool
set_socket(const char *text, struct config_address *out, struct buffer *why)
{
	if (strncmp(text, "unix:", 5) == 0)
		return set_unix(text, out, why);
	return set_address(text, 0, out, why);
}

static bool
set_sockets(const struct value_input *in, struct config_addresses *out, struct buffer *why)
{
	if (in->count == 0)
		return true;
	out->items = calloc(in->count, sizeof(*out->items));
	if (out->items == NULL) {
		buffer_add_str(why, "out of memory");
		return false;
	}
	out->count = in->count;
	for (size_t i = 0; i < in->count; i++)
		if (!set_socket(in->items[i], &out->items[i], why))
			return false;
	return true;
}

static bool
set_addresses(const struct value_input *in, uint16_t default_port, struct config_addresses *out,
              struct buffer *why)
{
	if (in->count == 0)
		return true;
	out->items = calloc(in->count, sizeof(*out->items));
	if (out->items == NULL) {
		buffer_add_str(why, "out of memory");
		return false;
	}
	out->count = in->count;
	for (size_t i = 0; i < in->count; i++)
		if (!set_address(in->items[i], default_port, &out->items[i], why))
			return false;
	return true;
}

static bool
set_hostport(const char *text, struct config_hostport *out, struct buffer *why)
{
	struct sockaddr_storage addr;
	socklen_t addr_len;
	struct split s;
	bool good;

	if (text[0] == '\0')
		return true;
	good = split_hostport(text, &s) && parse_port(s.port, &out->port);
	if (good && s.brackets)
		good = parse_ip(s, &addr, &addr_len);
	if (!good || !keep_text((const char *)s.host.data, s.host.len, &out->host, why))
		return refuse(
		    why, text,
		    "is not a target like \"mail.home.test:3688\" or \"127.0.0.1:3688\"");
	if (!s.brackets && !value_is_domain(out->host))
		return refuse(why, text, "is not a host name in lower case or an address");
	return true;
}

bool
value_is_domain(const char *s)
{
	size_t label = 0, len = strlen(s);

	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i <= len; i++) {
		char c = s[i];

		if (c == '.' || c == '\0') {
			if (label == 0 || label > 63 || s[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		      (c == '-' && label > 0)))
			return false;
		label++;
	}
	return true;
}

/* --- URLs ------------------------------------------------------------------ */

static bool
is_loopback(struct slice host)
{
	char text[254];

	if (host.len >= sizeof(text))
		return false;
	memcpy(text, host.data, host.len);
	text[host.len] = '\0';
	return strcmp(text, "localhost") == 0 || strncmp(text, "127.", 4) == 0 ||
	       strcmp(text, "[::1]") == 0;
}

bool
value_is_url_host(struct slice host)
{
	struct sockaddr_storage addr;
	socklen_t addr_len;
	struct split s;
	char text[256];

	if (host.len == 0 || host.len >= sizeof(text))
		return false;
	memcpy(text, host.data, host.len);
	text[host.len] = '\0';
	if (text[0] == '[')
		return split_hostport(text, &s) && s.port.len == 0 &&
		       parse_ip(s, &addr, &addr_len);
	return value_is_domain(text);
}

static bool
is_path(const char *path)
{
	for (; *path != '\0'; path++)
		if (*path <= ' ' || *path == 0x7f || strchr("?#\"<>\\^`{|}", *path) != NULL ||
		    (*path & 0x80) != 0)
			return false;
	return true;
}

static bool
set_url(const char *text, bool path_allowed, bool plain_allowed, char **out, struct buffer *why)
{
	bool secure = strncmp(text, "https://", 8) == 0;
	const char *host = text + (secure ? 8 : 7), *end, *colon;
	size_t len = strlen(text);
	struct slice name;
	uint16_t port;

	if (!secure && strncmp(text, "http://", 7) != 0)
		return refuse(why, text, "does not begin with https://");
	while (text[len - 1] == '/')
		len--;
	end = host + strcspn(host, "/");
	colon = memrchr(host, ':', (size_t)(end - host));
	if (colon != NULL && memchr(colon, ']', (size_t)(end - colon)) != NULL)
		colon = NULL; /* it stands within an IPv6 address */
	name = slice_mem(host, (size_t)((colon == NULL ? end : colon) - host));
	if (!value_is_url_host(name) ||
	    (colon != NULL &&
	     !parse_port(slice_mem(colon + 1, (size_t)(end - colon - 1)), &port)))
		return refuse(why, text, "has no host name in lower case, or a wrong port");
	if (!secure && !(plain_allowed && is_loopback(name)))
		return refuse(why, text, "must begin with https://");
	if (text + len > end && !path_allowed)
		return refuse(why, text, "must end with the host or port: no path");
	if (!is_path(end))
		return refuse(why, text,
		              "has a query, a fragment or a character that a path does not");
	return keep_text(text, len, out, why);
}

static bool
set_urls(const struct value_input *in, struct config_strings *out, struct buffer *why)
{
	if (in->count == 0)
		return true;
	out->items = calloc(in->count, sizeof(*out->items));
	if (out->items == NULL) {
		buffer_add_str(why, "out of memory");
		return false;
	}
	out->count = in->count;
	for (size_t i = 0; i < in->count; i++)
		if (!set_url(in->items[i], true, false, &out->items[i], why))
			return false;
	return true;
}

/* --- text for people --------------------------------------------------------- */

#define TITLE_CHARACTERS 100

static bool
set_title(const char *text, char **out, struct buffer *why)
{
	size_t len = strlen(text);
	bool good = text_is_utf8(slice_str(text));

	for (size_t i = 0; good && i < len; i++)
		good = (unsigned char)text[i] >= ' ' && text[i] != 0x7f;
	if (!good || text_characters(slice_str(text)) > TITLE_CHARACTERS)
		return refuse(why, text, "is not one line of at most 100 characters of UTF-8");
	return keep_text(text, len, out, why);
}

/* --- one door -------------------------------------------------------------- */

bool
value_is_list(enum value_kind kind)
{
	return kind == VALUE_ROLES || kind == VALUE_ADDRESSES || kind == VALUE_SERVERS ||
	       kind == VALUE_SOCKETS || kind == VALUE_URLS;
}

const char *
value_kind_name(enum value_kind kind)
{
	static const char *const names[] = {
		[VALUE_UINT] = "number",
		[VALUE_SIZE] = "number",
		[VALUE_BOOL] = "true or false",
		[VALUE_ROLES] = "list of roles",
		[VALUE_LEVEL] = "level",
		[VALUE_USER] = "account",
		[VALUE_CONNINFO] = "embedded or connection string",
		[VALUE_PATH] = "path",
		[VALUE_ADDRESS] = "address",
		[VALUE_ADDRESSES] = "list of addresses",
		[VALUE_SERVERS] = "list of addresses",
		[VALUE_SOCKETS] = "list of sockets",
		[VALUE_HOSTPORT] = "host:port",
		[VALUE_ORIGIN] = "URL",
		[VALUE_URLS] = "list of URLs",
		[VALUE_URL] = "URL",
		[VALUE_TITLE] = "text",
	};

	return names[kind];
}

bool
value_set(const struct value_spec *spec, const struct value_input *in, void *field,
          struct buffer *why)
{
	const char *text = in->count > 0 ? in->items[0] : "";
	uint64_t number;

	switch (spec->kind) {
	case VALUE_UINT:
		if (!set_number(spec, text, &number, why))
			return false;
		*(unsigned *)field = (unsigned)number;
		return true;
	case VALUE_SIZE:
		if (!set_number(spec, text, &number, why))
			return false;
		*(size_t *)field = (size_t)number;
		return true;
	case VALUE_BOOL:
		return set_bool(text, field, why);
	case VALUE_ROLES:
		return set_roles(in, field, why);
	case VALUE_LEVEL:
		return set_level(text, field, why);
	case VALUE_USER:
		return set_user(text, field, why);
	case VALUE_CONNINFO:
		return set_conninfo(text, field, why);
	case VALUE_PATH:
		return set_path(text, in->dir, field, why);
	case VALUE_ADDRESS:
		return text[0] == '\0' || set_address(text, 0, field, why);
	case VALUE_ADDRESSES:
		return set_addresses(in, 0, field, why);
	case VALUE_SERVERS:
		return set_addresses(in, DNS_PORT, field, why);
	case VALUE_SOCKETS:
		return set_sockets(in, field, why);
	case VALUE_HOSTPORT:
		return set_hostport(text, field, why);
	case VALUE_ORIGIN:
		return text[0] == '\0' || set_url(text, false, true, field, why);
	case VALUE_URLS:
		return set_urls(in, field, why);
	case VALUE_URL:
		return text[0] == '\0' || set_url(text, true, false, field, why);
	case VALUE_TITLE:
		return text[0] == '\0' || set_title(text, field, why);
	}
	return false;
}

static void
free_text(char **text)
{
	free(*text);
	*text = NULL;
}

static void
free_addresses(struct config_addresses *a)
{
	for (size_t i = 0; i < a->count; i++)
		free(a->items[i].text);
	free(a->items);
	*a = (struct config_addresses){ 0 };
}

static void
free_strings(struct config_strings *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->items[i]);
	free(s->items);
	*s = (struct config_strings){ 0 };
}

void
value_free(enum value_kind kind, void *field)
{
	switch (kind) {
	case VALUE_UINT:
	case VALUE_SIZE:
	case VALUE_BOOL:
	case VALUE_ROLES:
	case VALUE_LEVEL:
		break;
	case VALUE_USER:
	case VALUE_CONNINFO:
	case VALUE_PATH:
	case VALUE_ORIGIN:
	case VALUE_URL:
	case VALUE_TITLE:
		free_text(field);
		break;
	case VALUE_ADDRESS:
		free_text(&((struct config_address *)field)->text);
		break;
	case VALUE_ADDRESSES:
	case VALUE_SERVERS:
	case VALUE_SOCKETS:
		free_addresses(field);
		break;
	case VALUE_HOSTPORT:
		free_text(&((struct config_hostport *)field)->host);
		break;
	case VALUE_URLS:
		free_strings(field);
		break;
	}
}
