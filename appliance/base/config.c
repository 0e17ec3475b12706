/*
 * The configuration file: libconfuse parses it into strings, the table in
 * config_options.h says what each becomes, and checks that span options stand
 * here. Only this file knows libconfuse, which keeps globals: hence the lock.
 */
#include "base/config.h"

#include "base/config_comment.h"
#include "base/config_pem.h"
#include "base/config_value.h"
#include "base/process.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <confuse.h>

#include "base/config_options.h"

/*
 * libconfuse takes the end of the file for the end of every open section, and
 * a file cut short for a whole one. So a last option is added that only the
 * outermost level knows.
 */
#define END_OPTION "end_of_configuration"

#define CONFIG_MAX_OCTETS (1u << 20)
#define RAW_MAX_OCTETS (1u << 20)
#define THREADS_MAX 64
#define EMBEDDED_MEMORY_MAX_MB 1024
#define EMBEDDED_MEMORY_MIN_MB 64

/* What config_load really makes: the public struct and each option's text, for
 * config_restart_options. */
struct loaded {
	struct config config; /* first: a pointer to one is a pointer to the other */
	struct buffer raw[OPTIONS];
};

/* Where an option stands in the file; libconfuse remembers no lines. */
struct mark {
	const cfg_opt_t *opt;
	int line;
	unsigned values, calls;
};

struct loader {
	const char *path;
	char *dir; /* of the path */
	int lines; /* of the text */
	cfg_t *root;
	struct mark *marks;
	size_t marks_count;
	struct loaded *out;
	struct process_user user; /* whom roles become, or name NULL */
	struct buffer *error;
	bool failed;
};

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static struct loader *loader_now; /* libconfuse's callbacks carry no pointer of ours */

/* --- roles ----------------------------------------------------------------- */

static const char *const role_names[CONFIG_ROLES] = { "site", "relay", "home", "panel" };

const char *
config_role_name(enum config_role role)
{
	return role_names[role];
}

bool
config_role_parse(const char *name, enum config_role *out)
{
	for (int i = 0; i < CONFIG_ROLES; i++) {
		if (strcmp(name, role_names[i]) == 0) {
			*out = (enum config_role)i;
			return true;
		}
	}
	return false;
}

/* --- errors ---------------------------------------------------------------- */

/* The first error counts; line 0: none. */
static void __attribute__((format(printf, 3, 4)))
fail(struct loader *l, int line, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (l->failed)
		return;
	l->failed = true;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (line > 0)
		buffer_add_fmt(l->error, "%s:%d: %s", l->path, line, text);
	else
		buffer_add_fmt(l->error, "%s: %s", l->path, text);
}

static void __attribute__((format(printf, 2, 0)))
on_parser_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[512];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	if (cfg->line > loader_now->lines)
		fail(loader_now, loader_now->lines,
		     "the file ends here, with something still open");
	else if (strncmp(text, "no such option", 14) == 0)
		fail(loader_now, cfg->line, "%s here (tmtpd --help-config lists them)", text);
	else if (strncmp(text, "found duplicate title ", 22) == 0)
		fail(loader_now, cfg->line,
		     "%s has a section already: write one for each domain", text + 22);
	else
		fail(loader_now, cfg->line, "%s", text);
}

/* --- libconfuse ------------------------------------------------------------ */

static struct mark *
mark_find(struct loader *l, const cfg_opt_t *opt)
{
	for (size_t i = 0; i < l->marks_count; i++)
		if (l->marks[i].opt == opt)
			return &l->marks[i];
	return NULL;
}

static int
line_of(struct loader *l, cfg_t *section, const char *option)
{
	const struct mark *m = mark_find(l, cfg_getopt(section, option));

	if (m != NULL)
		return m->line;
	return section == l->root ? 0 : section->line; /* of a section: its end */
}

/*
 * libconfuse calls back after each value, after the end of a list and after
 * the end of a section. A second assignment starts the values anew.
 */
static bool
stands_twice(const cfg_opt_t *opt, const struct mark *m)
{
	if ((opt->flags & (CFGF_LIST | CFGF_MULTI)) == 0)
		return true;
	return opt->nvalues < m->values || (opt->nvalues == 1 && m->calls == 2);
}

static int
on_value(cfg_t *cfg, cfg_opt_t *opt)
{
	struct loader *l = loader_now;
	struct mark *marks, *m = mark_find(l, opt);

	if (m != NULL) {
		if (stands_twice(opt, m)) {
			fail(l, cfg->line, "%s stands twice; join the two", opt->name);
			return -1;
		}
		m->values = opt->nvalues;
		m->calls++;
		return 0;
	}
	marks = realloc(l->marks, (l->marks_count + 1) * sizeof(*marks));
	if (marks == NULL) {
		fail(l, cfg->line, "out of memory");
		return -1;
	}
	l->marks = marks;
	l->marks[l->marks_count++] =
	    (struct mark){ .opt = opt, .line = cfg->line, .values = opt->nvalues, .calls = 1 };
	return 0;
}

static cfg_opt_t
describe_option(const struct option *o)
{
	cfg_flag_t list = value_is_list(o->spec.kind) ? CFGF_LIST : CFGF_NONE;
	cfg_opt_t opt = CFG_STR(o->name, NULL, CFGF_NODEFAULT);

	opt.flags |= list;
	opt.validcb = on_value;
	return opt;
}

static size_t
describe_section(enum section section, cfg_opt_t *out)
{
	size_t n = 0;

	for (size_t i = 0; i < OPTIONS; i++)
		if (options[i].section == section)
			out[n++] = describe_option(&options[i]);
	out[n] = (cfg_opt_t)CFG_END();
	return n;
}

static cfg_t *
describe(void)
{
	/* Room for all in one section, with the sections and two ends. */
	cfg_opt_t all[SECTIONS][OPTIONS + SECTIONS + 2];
	size_t n = describe_section(SEC_GLOBAL, all[SEC_GLOBAL]);

	all[SEC_GLOBAL][n++] = (cfg_opt_t)CFG_STR(END_OPTION, NULL, CFGF_NODEFAULT);
	for (enum section s = SEC_GLOBAL + 1; s < SECTIONS; s++) {
		cfg_flag_t flags = sections[s].titled
		                       ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES
		                       : CFGF_NONE;

		(void)describe_section(s, all[s]);
		all[SEC_GLOBAL][n] = (cfg_opt_t)CFG_SEC(sections[s].name, all[s], flags);
		all[SEC_GLOBAL][n++].validcb = on_value;
	}
	all[SEC_GLOBAL][n] = (cfg_opt_t)CFG_END();
	return cfg_init(all[SEC_GLOBAL], CFGF_NONE); /* copies */
}

static bool
parse_text(struct loader *l, struct buffer *text)
{
	int rc = CFG_FILE_ERROR, open_comment = config_blank_comments(text->data, text->len);
	FILE *f;

	if (open_comment != 0) {
		fail(l, open_comment, "a comment begins here, and nothing ends it");
		return false;
	}
	for (size_t i = 0; i < text->len; i++)
		l->lines += text->data[i] == '\n' || i == text->len - 1;
	buffer_add_str(text, text->data[text->len - 1] == '\n' ? "" : "\n");
	buffer_add_str(text, END_OPTION " = x\n");
	f = text->failed ? NULL : fmemopen(text->data, text->len, "r");

	l->root = describe();
	if (l->root != NULL && f != NULL) {
		(void)cfg_set_error_function(l->root, on_parser_error);
		l->root->filename = strdup(l->path);
		rc = cfg_parse_fp(l->root, f);
	}
	if (f != NULL)
		(void)fclose(f);
	if (rc != CFG_SUCCESS)
		fail(l, 0, "cannot be parsed");
	else if (cfg_size(l->root, END_OPTION) != 1)
		fail(l, 0, "ends with something still open");
	return !l->failed;
}

/* --- from strings to fields ------------------------------------------------ */

#define ITEMS_MAX 256

struct items {
	const char *list[ITEMS_MAX];
	size_t count;
	char copy[256]; /* of a default that is a list */
};

static void
default_items(const struct option *o, struct items *out)
{
	char *save = NULL;

	out->count = 0;
	if (!value_is_list(o->spec.kind)) {
		out->list[out->count++] = o->deflt;
		return;
	}
	(void)snprintf(out->copy, sizeof(out->copy), "%s", o->deflt);
	for (char *p = strtok_r(out->copy, " ", &save); p != NULL;
	     p = strtok_r(NULL, " ", &save))
		out->list[out->count++] = p;
}

/* An empty list in the file leaves no mark, but it is no default either. */
static bool
is_given(struct loader *l, cfg_opt_t *opt)
{
	return mark_find(l, opt) != NULL || (opt->flags & CFGF_MODIFIED) != 0 ||
	       cfg_opt_size(opt) > 0;
}

static bool
collect_items(struct loader *l, cfg_t *section, const struct option *o, struct items *out)
{
	cfg_opt_t *opt = cfg_getopt(section, o->name);
	const struct mark *m = mark_find(l, opt);

	if (m != NULL &&
	    cfg_opt_size(opt) < m->values) { /* a second, empty list has no callback */
		fail(l, m->line, "%s stands twice; join the two", o->name);
		return false;
	}
	if (!is_given(l, opt)) {
		default_items(o, out);
		return true;
	}
	if (cfg_opt_size(opt) > ITEMS_MAX) {
		fail(l, line_of(l, section, o->name), "%s has more than %d items", o->name,
		     ITEMS_MAX);
		return false;
	}
	out->count = cfg_opt_size(opt);
	for (unsigned i = 0; i < out->count; i++)
		out->list[i] = cfg_opt_getnstr(opt, i);
	return true;
}

static void
keep_raw(struct loader *l, size_t index, const char *title, const struct items *items)
{
	struct buffer *raw = &l->out->raw[index];

	if (title != NULL)
		buffer_add_fmt(raw, "%s:\n", title);
	for (size_t i = 0; i < items->count; i++)
		buffer_add_fmt(raw, "%s\n", items->list[i]);
	if (raw->failed)
		fail(l, 0, "is too long");
}

/* Fills the struct of one section, as its options say. */
static bool
fill(struct loader *l, enum section which, cfg_t *section, void *base)
{
	struct items items;
	struct buffer why;

	buffer_init(&why, 1024);
	for (size_t i = 0; i < OPTIONS && !l->failed; i++) {
		const struct option *o = &options[i];
		struct value_input in;

		if (o->section != which || !collect_items(l, section, o, &items))
			continue;
		in = (struct value_input){ .items = items.list,
			                   .count = items.count,
			                   .dir = l->dir };
		keep_raw(l, i, cfg_title(section), &items);
		if (!value_set(&o->spec, &in, (char *)base + o->offset, &why))
			fail(l, line_of(l, section, o->name), "%s: %.*s", o->name, (int)why.len,
			     (const char *)why.data);
	}
	buffer_free(&why);
	return !l->failed;
}

static void
unfill(enum section which, void *base)
{
	for (size_t i = 0; i < OPTIONS; i++)
		if (options[i].section == which)
			value_free(options[i].spec.kind, (char *)base + options[i].offset);
}

/* --- domains and routes ---------------------------------------------------- */

static bool
keep_title(struct loader *l, cfg_t *section, char **out)
{
	const char *title = cfg_title(section);

	if (!value_is_domain(title)) {
		fail(l, section->line,
		     "\"%s\" is not a domain: write it in lower case, as A-labels (xn--...)",
		     title);
		return false;
	}
	*out = strdup(title);
	if (*out == NULL)
		fail(l, 0, "out of memory");
	return *out != NULL;
}

static void
check_key(struct loader *l, cfg_t *section, const struct config_domain *d)
{
	struct buffer why;
	int err;

	buffer_init(&why, 1024);
	if (!pem_check_pair(d->certificate, d->key, d->name, &why)) {
		fail(l, line_of(l, section, "certificate"), "%.*s", (int)why.len,
		     (const char *)why.data);
		goto out;
	}
	if (l->user.name == NULL)
		goto out;
	err = process_can_read(&l->user, d->key);
	if (err == 0)
		err = process_can_read(&l->user, d->certificate);
	if (err != 0)
		fail(l, line_of(l, section, "key"),
		     "the user %s, who serves with them, cannot read %s and %s (%s): give the "
		     "files to its group",
		     l->user.name, d->key, d->certificate, strerror(err));
out:
	buffer_free(&why);
}

static bool
read_domain(struct loader *l, cfg_t *section, struct config_domain *d)
{
	if (!keep_title(l, section, &d->name) || !fill(l, SEC_DOMAIN, section, d))
		return false;
	if ((d->certificate == NULL) != (d->key == NULL))
		fail(l, section->line,
		     "domain \"%s\" has a certificate without a key, or the reverse: name both "
		     "files",
		     d->name);
	else if (d->certificate != NULL)
		check_key(l, section, d);
	return !l->failed;
}

static bool
read_domains(struct loader *l)
{
	struct config *c = &l->out->config;
	unsigned n = cfg_size(l->root, "domain");

	if (n == 0)
		return true;
	c->domains = calloc(n, sizeof(*c->domains));
	if (c->domains == NULL) {
		fail(l, 0, "out of memory");
		return false;
	}
	c->domains_count = n;
	for (unsigned i = 0; i < n; i++)
		if (!read_domain(l, cfg_getnsec(l->root, "domain", i), &c->domains[i]))
			return false;
	return true;
}

/* Three options of the file become one kind of target. Takes the target's memory out of r. */
static void
decide_dmtp(struct loader *l, cfg_t *section, struct route_read *r)
{
	struct config_hostport *from = r->dmtp.host != NULL ? &r->dmtp : &r->starttls;

	if (r->dmtp.host != NULL && r->starttls.host != NULL) {
		fail(l, line_of(l, section, "starttls"),
		     "a route has dmtp or starttls, not both");
		return;
	}
	if (r->plaintext && r->dmtp.host == NULL) {
		fail(l, line_of(l, section, "plaintext"),
		     "plaintext needs a target: dmtp = \"host:port\"");
		return;
	}
	r->route.dmtp = from->host == NULL ? ROUTE_DMTP_NONE
	                : r->plaintext     ? ROUTE_DMTP_PLAINTEXT
	                : from == &r->dmtp ? ROUTE_DMTP_TLS
	                                   : ROUTE_DMTP_STARTTLS;
	r->route.dmtp_target = *from;
	*from = (struct config_hostport){ 0 };
}

/* DMTP's least values: a greeting with less is refused by clients. */
static void
check_route_limits(struct loader *l, cfg_t *section, const struct config_limits *limits)
{
	const struct {
		const char *name;
		unsigned value, least;
	} all[] = { { "command_octets", limits->command_octets, 65536 },
		    { "message_octets", limits->message_octets, 1024 },
		    { "pipeline", limits->pipeline, 8 },
		    { "rcpts", limits->rcpts, 100 },
		    { "uris", limits->uris, 4 } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].value != 0 && all[i].value < all[i].least)
			fail(l, line_of(l, section, all[i].name),
			     "%s: \"%u\" is neither 0 nor at least %u", all[i].name,
			     all[i].value, all[i].least);
}

static bool
has_limits(const struct config_limits *limits)
{
	return limits->command_octets != 0 || limits->message_octets != 0 ||
	       limits->pipeline != 0 || limits->rcpts != 0 || limits->uris != 0;
}

static bool
read_route(struct loader *l, cfg_t *section, struct config_route *route)
{
	struct route_read r = { 0 };
	struct buffer why;

	buffer_init(&why, 1024);
	if (keep_title(l, section, &r.route.domain) && fill(l, SEC_ROUTE, section, &r))
		decide_dmtp(l, section, &r);
	if (!l->failed && r.route.ca != NULL && !pem_check_ca(r.route.ca, &why))
		fail(l, line_of(l, section, "ca"), "%.*s", (int)why.len,
		     (const char *)why.data);
	if (!l->failed)
		check_route_limits(l, section, &r.route.limits);
	if (!l->failed && r.route.dmtp == ROUTE_DMTP_NONE && r.route.pickup.host == NULL &&
	    r.route.ca == NULL && !r.route.allow_private && !has_limits(&r.route.limits))
		fail(l, section->line,
		     "route \"%s\" says nothing: name its dmtp or pickup target",
		     r.route.domain);
	*route = r.route;
	value_free(VALUE_HOSTPORT, &r.dmtp);
	value_free(VALUE_HOSTPORT, &r.starttls);
	buffer_free(&why);
	return !l->failed;
}

static bool
read_routes(struct loader *l)
{
	struct config *c = &l->out->config;
	unsigned n = cfg_size(l->root, "route");

	if (n == 0)
		return true;
	c->routes = calloc(n, sizeof(*c->routes));
	if (c->routes == NULL) {
		fail(l, 0, "out of memory");
		return false;
	}
	c->routes_count = n;
	for (unsigned i = 0; i < n; i++)
		if (!read_route(l, cfg_getnsec(l->root, "route", i), &c->routes[i]))
			return false;
	return true;
}

/* --- what spans options ---------------------------------------------------- */

/* Whom roles become; only root can become somebody. */
static void
find_user(struct loader *l)
{
	const char *name = l->out->config.user;
	int line = line_of(l, l->root, "user");

	if (geteuid() != 0)
		return;
	if (process_user_find(name, &l->user) != PROCESS_OK)
		fail(l, line,
		     "user: there is no account %s; make one (useradd --system %s) or name "
		     "another",
		     name, name);
	else if (l->user.uid == 0 || l->user.gid == 0)
		fail(l, line, "user: the account %s has root's user or group; name another",
		     name);
}

struct listener {
	const char *name;
	enum config_role role;
	const struct config_address *addr;
};

#define LISTENERS_MAX 1024

static size_t
add_listeners(struct listener *out, size_t n, const char *name, enum config_role role,
              const struct config_address *items, size_t count)
{
	for (size_t i = 0; i < count && n < LISTENERS_MAX; i++)
		if (items[i].text != NULL)
			out[n++] =
			    (struct listener){ .name = name, .role = role, .addr = &items[i] };
	return n;
}

static size_t
collect_listeners(const struct config *c, struct listener *out)
{
	size_t n = 0;

	if (c->roles[ROLE_SITE]) {
		n = add_listeners(out, n, "site.listen", ROLE_SITE, c->site.http.listen.items,
		                  c->site.http.listen.count);
		n = add_listeners(out, n, "site.metrics_listen", ROLE_SITE,
		                  &c->site.metrics_listen, 1);
	}
	if (c->roles[ROLE_RELAY])
		n = add_listeners(out, n, "relay.metrics_listen", ROLE_RELAY,
		                  &c->relay.metrics_listen, 1);
	if (c->roles[ROLE_HOME]) {
		n = add_listeners(out, n, "home.listen", ROLE_HOME, c->home.http.listen.items,
		                  c->home.http.listen.count);
		n = add_listeners(out, n, "home.dmtp_listen", ROLE_HOME,
		                  c->home.dmtp_listen.items, c->home.dmtp_listen.count);
		n = add_listeners(out, n, "home.dmtps_listen", ROLE_HOME,
		                  c->home.dmtps_listen.items, c->home.dmtps_listen.count);
		n = add_listeners(out, n, "home.lmtp_listen", ROLE_HOME,
		                  c->home.lmtp.listen.items, c->home.lmtp.listen.count);
		n = add_listeners(out, n, "home.metrics_listen", ROLE_HOME,
		                  &c->home.metrics_listen, 1);
	}
	if (c->roles[ROLE_PANEL]) {
		n = add_listeners(out, n, "panel.listen", ROLE_PANEL,
		                  c->panel.http.listen.items, c->panel.http.listen.count);
		n = add_listeners(out, n, "panel.metrics_listen", ROLE_PANEL,
		                  &c->panel.metrics_listen, 1);
	}
	return n;
}

/* Of one family: the same path, or the same port at the same address, or at every address. */
static bool
collide(const struct config_address *a, const struct config_address *b)
{
	if (a->addr.ss_family != b->addr.ss_family)
		return false;
	if (a->addr.ss_family == AF_UNIX)
		return strcmp(a->text, b->text) == 0;
	if (a->addr.ss_family == AF_INET6) {
		const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)&a->addr;
		const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)&b->addr;

		return x->sin6_port == y->sin6_port &&
		       (IN6_IS_ADDR_UNSPECIFIED(&x->sin6_addr) ||
		        IN6_IS_ADDR_UNSPECIFIED(&y->sin6_addr) ||
		        IN6_ARE_ADDR_EQUAL(&x->sin6_addr, &y->sin6_addr));
	}
	const struct sockaddr_in *x = (const struct sockaddr_in *)&a->addr;
	const struct sockaddr_in *y = (const struct sockaddr_in *)&b->addr;

	return x->sin_port == y->sin_port && (x->sin_addr.s_addr == htonl(INADDR_ANY) ||
	                                      y->sin_addr.s_addr == htonl(INADDR_ANY) ||
	                                      x->sin_addr.s_addr == y->sin_addr.s_addr);
}

/* The option of a listener in the file; its line is 0 when it is a default. */
static int
listener_line(struct loader *l, const struct listener *which)
{
	cfg_t *section = cfg_getsec(l->root, role_names[which->role]);
	const struct mark *m = mark_find(l, cfg_getopt(section, strchr(which->name, '.') + 1));

	return m == NULL ? 0 : m->line;
}

static void
refuse_collision(struct loader *l, const struct listener *a, const struct listener *b)
{
	int line = listener_line(l, b);

	if (line == 0)
		line = listener_line(l, a);
	fail(l, line, "%s and %s both want %s: give one another port", a->name, b->name,
	     b->addr->text);
}

static void
check_listeners(struct loader *l)
{
	struct listener *all = calloc(LISTENERS_MAX, sizeof(*all));
	size_t n;

	if (all == NULL) {
		fail(l, 0, "out of memory");
		return;
	}
	n = collect_listeners(&l->out->config, all);
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (collide(all[i].addr, all[j].addr))
				refuse_collision(l, &all[i], &all[j]);
	free(all);
}

static bool
has_certificate(const struct config *c)
{
	for (size_t i = 0; i < c->domains_count; i++)
		if (c->domains[i].certificate != NULL)
			return true;
	return false;
}

/* The URL's default, and what serves TLS has something to serve it with. */
static void
check_http(struct loader *l, enum config_role role, struct config_http *http)
{
	struct config *c = &l->out->config;
	cfg_t *section = cfg_getsec(l->root, role_names[role]);

	if (http->url == NULL && c->domains_count > 0) {
		if (asprintf(&http->url, "https://%s", c->domains[0].name) < 0) {
			http->url = NULL;
			fail(l, 0, "out of memory");
		}
	}
	if (!c->roles[role])
		return;
	if (http->listen.count == 0)
		fail(l, line_of(l, section, "listen"),
		     "%s.listen is empty: name an address, or leave the role out of roles",
		     role_names[role]);
	if (http->url == NULL)
		fail(l, line_of(l, section, "url"),
		     "%s.url: name it, or a domain { } that it follows from", role_names[role]);
	if (http->tls && !has_certificate(c))
		fail(l, line_of(l, section, "tls"),
		     "%s.tls needs a domain with certificate and key", role_names[role]);
}

static bool
is_loopback(const struct config_address *a)
{
	if (a->addr.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(
		    &((const struct sockaddr_in6 *)&a->addr)->sin6_addr);
	return ntohl(((const struct sockaddr_in *)&a->addr)->sin_addr.s_addr) >> 24 == 127;
}

/* Whoever reaches the listener can write to members who opened their channel. */
static void
check_lmtp(struct loader *l)
{
	const struct config_lmtp *lmtp = &l->out->config.home.lmtp;
	cfg_t *home = cfg_getsec(l->root, "home");

	for (size_t i = 0; i < lmtp->listen.count; i++) {
		const struct config_address *a = &lmtp->listen.items[i];

		if (a->addr.ss_family == AF_UNIX || is_loopback(a) || lmtp->allow_remote)
			continue;
		fail(
		    l, line_of(l, home, "lmtp_listen"),
		    "home.lmtp_listen: other machines may reach %s; name a loopback address or "
		    "unix:/path, or set lmtp_allow_remote = true",
		    a->text);
		return;
	}
}

static void
check_roles(struct loader *l)
{
	struct config *c = &l->out->config;
	cfg_t *home = cfg_getsec(l->root, "home"), *relay = cfg_getsec(l->root, "relay");
	const char *state = cfg_getstr(l->root, "state_directory"); /* NULL: not written */

	if ((c->roles[ROLE_SITE] || c->roles[ROLE_RELAY] || c->roles[ROLE_HOME]) &&
	    c->domains_count == 0)
		fail(l, 0,
		     "no domain: write domain \"your.domain\" { certificate = ... key = ... }");
	check_http(l, ROLE_SITE, &c->site.http);
	check_http(l, ROLE_HOME, &c->home.http);
	check_http(l, ROLE_PANEL, &c->panel.http);
	if (c->roles[ROLE_SITE] && c->site.http.url != NULL &&
	    strncmp(c->site.http.url, "https://", 8) != 0)
		fail(l, line_of(l, cfg_getsec(l->root, "site"), "url"),
		     "site.url must begin with https://: messages are picked up there");
	if (c->roles[ROLE_HOME] && !has_certificate(c) &&
	    c->home.dmtps_listen.count + c->home.dmtp_listen.count > 0)
		fail(l, line_of(l, home, "dmtps_listen"),
		     "home.dmtps_listen and home.dmtp_listen need a domain with certificate "
		     "and key: "
		     "other servers deliver over TLS only");
	check_lmtp(l);
	if (c->site.message_hosts.count > CONFIG_MESSAGE_HOSTS)
		fail(
		    l, line_of(l, cfg_getsec(l->root, "site"), "message_hosts"),
		    "site.message_hosts has more than %d URLs: with our own, no more fit into a "
		    "notification that everybody takes",
		    CONFIG_MESSAGE_HOSTS);
	if (c->relay.retry_min_s > c->relay.retry_max_s)
		fail(l, line_of(l, relay, "retry_min_s"),
		     "relay.retry_min_s is longer than relay.retry_max_s");
	if (c->state_directory == NULL)
		fail(l, line_of(l, l->root, "state_directory"),
		     "state_directory is empty: name a directory");
	else if (state != NULL && state[0] != '/')
		/* It would be made absolute from the file's folder, and move with the file. */
		fail(l, line_of(l, l->root, "state_directory"),
		     "state_directory %s must be an absolute path, one that begins with /",
		     state);
}

/* --- what follows from the machine ----------------------------------------- */

static unsigned
processors(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

/* The limit of the control group that this process is in, or UINT64_MAX. */
static uint64_t
cgroup_memory(void)
{
	char line[512], path[600];
	uint64_t limit = UINT64_MAX;
	FILE *f = fopen("/proc/self/cgroup", "re");

	if (f == NULL)
		return limit;
	path[0] = '\0';
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "0::/", 4) == 0)
			(void)snprintf(path, sizeof(path), "/sys/fs/cgroup/%.*s/memory.max",
			               (int)strcspn(line + 4, "\n"), line + 4);
	(void)fclose(f);
	f = path[0] == '\0' ? NULL : fopen(path, "re");
	if (f == NULL)
		return limit;
	if (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		(void)text_parse_u64(slice_str(line), UINT64_MAX - 1,
		                     &limit); /* "max" leaves it */
	}
	(void)fclose(f);
	return limit;
}

static unsigned
quarter_of_memory_mb(void)
{
	uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t group = cgroup_memory();
	uint64_t mb = (group < machine ? group : machine) / 4 / (UINT64_C(1024) * 1024);

	if (mb > EMBEDDED_MEMORY_MAX_MB)
		return EMBEDDED_MEMORY_MAX_MB;
	return mb < EMBEDDED_MEMORY_MIN_MB ? EMBEDDED_MEMORY_MIN_MB : (unsigned)mb;
}

static void
resolve_machine(struct config *c)
{
	if (c->site.threads == 0)
		c->site.threads = processors();
	if (c->home.threads == 0)
		c->home.threads = processors();
	if (c->embedded_memory_mb == 0)
		c->embedded_memory_mb = quarter_of_memory_mb();
	else if (c->embedded_memory_mb < EMBEDDED_MEMORY_MIN_MB)
		c->embedded_memory_mb = EMBEDDED_MEMORY_MIN_MB;
}

/* --- loading --------------------------------------------------------------- */

static bool
read_config(struct loader *l, struct buffer *text)
{
	struct config *c = &l->out->config;

	if (!parse_text(l, text) || !fill(l, SEC_GLOBAL, l->root, c))
		return false;
	find_user(l);
	for (enum section s = SEC_GLOBAL + 1; s < SECTIONS && !l->failed; s++)
		if (!sections[s].titled)
			(void)fill(l, s, cfg_getsec(l->root, sections[s].name),
			           (char *)c + sections[s].offset);
	if (l->failed || !read_domains(l) || !read_routes(l))
		return false;
	check_roles(l);
	check_listeners(l);
	resolve_machine(c);
	return !l->failed;
}

static bool
keep_path(const char *path, char **absolute, char **dir)
{
	char *slash;

	*absolute = realpath(path, NULL);
	if (*absolute == NULL)
		*absolute = strdup(path);
	if (*absolute == NULL)
		return false;
	slash = strrchr(*absolute, '/');
	*dir = slash == NULL        ? strdup(".")
	       : slash == *absolute ? strdup("/")
	                            : strndup(*absolute, (size_t)(slash - *absolute));
	return *dir != NULL;
}

static struct loaded *
loaded_make(void)
{
	struct loaded *made = calloc(1, sizeof(*made));

	if (made == NULL)
		return NULL;
	made->config.source_fd = -1;
	for (size_t i = 0; i < OPTIONS; i++)
		buffer_init(&made->raw[i], RAW_MAX_OCTETS);
	return made;
}

static enum config_rc
load_text(const char *path, struct buffer *text, struct config **out, struct buffer *error)
{
	struct loader l = { .path = path, .error = error };
	struct config *made = NULL;
	enum config_rc rc = CONFIG_INVALID;

	l.out = loaded_make();
	if (l.out != NULL)
		made = &l.out->config;
	(void)pthread_mutex_lock(&loading);
	loader_now = &l;
	if (l.out == NULL || !keep_path(path, &made->path, &l.dir))
		fail(&l, 0, "out of memory");
	else if (text->len == 0)
		fail(&l, 0, "is empty: the least that it holds is a domain { }");
	else if (memchr(text->data, '\0', text->len) != NULL)
		fail(&l, 0, "is not a text file");
	else if (read_config(&l, text))
		rc = CONFIG_OK;
	if (l.root != NULL)
		(void)cfg_free(l.root);
	loader_now = NULL;
	(void)pthread_mutex_unlock(&loading);
	free(l.marks);
	free(l.dir);
	process_user_free(&l.user);
	if (rc == CONFIG_OK)
		*out = made;
	else
		config_free(&made);
	return rc;
}

/* Reads at offsets, so that a descriptor shared between processes has no position to fight for.
 */
static enum config_rc
read_all(int fd, const char *path, struct buffer *text, struct buffer *error)
{
	uint8_t *room;
	ssize_t n;

	for (;;) {
		room = buffer_reserve(text, 4096);
		if (room == NULL) {
			buffer_add_fmt(error, "%s: is longer than %u octets", path,
			               CONFIG_MAX_OCTETS);
			return CONFIG_INVALID;
		}
		n = pread(fd, room, 4096, (off_t)text->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			buffer_add_fmt(error, "%s: cannot be read: %s", path, strerror(errno));
			return CONFIG_UNREADABLE;
		}
		if (n == 0)
			return CONFIG_OK;
		buffer_added(text, (size_t)n);
	}
}

enum config_rc
config_load_fd(int fd, const char *path, struct config **out, struct buffer *error)
{
	struct buffer text;
	enum config_rc rc;

	buffer_init(&text, CONFIG_MAX_OCTETS + 4096);
	rc = read_all(fd, path, &text, error);
	if (rc == CONFIG_OK)
		rc = load_text(path, &text, out, error);
	if (rc == CONFIG_OK)
		(*out)->source_fd = fd;
	buffer_free(&text);
	return rc;
}

enum config_rc
config_load(const char *path, struct config **out, struct buffer *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum config_rc rc;

	if (fd < 0) {
		buffer_add_fmt(error, "%s: cannot be opened: %s", path, strerror(errno));
		return CONFIG_UNREADABLE;
	}
	rc = config_load_fd(fd, path, out, error);
	if (rc == CONFIG_OK)
		(*out)->source_fd = -1;
	(void)close(fd);
	return rc;
}

enum config_rc
config_reload(const struct config *config, struct config **out, struct buffer *error)
{
	if (config->source_fd >= 0)
		return config_load_fd(config->source_fd, config->path, out, error);
	return config_load(config->path, out, error);
}

void
config_free(struct config **config)
{
	struct config *c = *config;
	struct loaded *l = (struct loaded *)c;

	if (c == NULL)
		return;
	for (size_t i = 0; i < c->domains_count; i++) {
		free(c->domains[i].name);
		unfill(SEC_DOMAIN, &c->domains[i]);
	}
	for (size_t i = 0; i < c->routes_count; i++) {
		free(c->routes[i].domain);
		free(c->routes[i].ca);
		value_free(VALUE_HOSTPORT, &c->routes[i].dmtp_target);
		value_free(VALUE_HOSTPORT, &c->routes[i].pickup);
	}
	for (enum section s = SEC_GLOBAL; s < SECTIONS; s++)
		if (!sections[s].titled)
			unfill(s, (char *)c + sections[s].offset);
	for (size_t i = 0; i < OPTIONS; i++)
		buffer_free(&l->raw[i]);
	free(c->domains);
	free(c->routes);
	free(c->path);
	free(l);
	*config = NULL;
}

/* --- looking things up ----------------------------------------------------- */

const struct config_domain *
config_domain_find(const struct config *config, struct slice name)
{
	for (size_t i = 0; i < config->domains_count; i++)
		if (slice_eq_str(name, config->domains[i].name))
			return &config->domains[i];
	return NULL;
}

const struct config_route *
config_route_find(const struct config *config, struct slice domain)
{
	for (size_t i = 0; i < config->routes_count; i++)
		if (slice_eq_str(domain, config->routes[i].domain))
			return &config->routes[i];
	return NULL;
}

void
config_restart_options(const struct config *running, const struct config *loaded,
                       struct buffer *names)
{
	const struct loaded *a = (const struct loaded *)running,
			    *b = (const struct loaded *)loaded;

	for (size_t i = 0; i < OPTIONS; i++) {
		const char *section = sections[options[i].section].name;

		if (options[i].reload ||
		    slice_eq(buffer_slice(&a->raw[i]), buffer_slice(&b->raw[i])))
			continue;
		buffer_add_fmt(names, "%s%s%s%s", names->len > 0 ? ", " : "",
		               section == NULL ? "" : section, section == NULL ? "" : ".",
		               options[i].name);
	}
}

/* --- the table, shown ------------------------------------------------------ */

/* As it would stand in the file. */
static void
write_default(FILE *out, const struct option *o)
{
	struct items items;

	if (!value_is_list(o->spec.kind)) {
		bool bare = o->spec.kind == VALUE_UINT || o->spec.kind == VALUE_SIZE ||
		            o->spec.kind == VALUE_BOOL;

		(void)fprintf(out, bare ? "%s" : "\"%s\"", o->deflt);
		return;
	}
	default_items(o, &items);
	(void)fputs("{", out);
	for (size_t i = 0; i < items.count; i++)
		(void)fprintf(out, "%s\"%s\"", i > 0 ? ", " : "", items.list[i]);
	(void)fputs("}", out);
}

void
config_help(FILE *out)
{
	for (enum section s = SEC_GLOBAL; s < SECTIONS; s++) {
		(void)fprintf(out, "%s%s\n", s == SEC_GLOBAL ? "" : "\n", sections[s].help);
		if (sections[s].name != NULL && !sections[s].titled)
			(void)fprintf(out, "(section %s { ... })\n", sections[s].name);
		for (size_t i = 0; i < OPTIONS; i++) {
			if (options[i].section != s)
				continue;
			(void)fprintf(out, "\n    %s = ", options[i].name);
			write_default(out, &options[i]);
			(void)fprintf(out, "    (%s)\n        %s\n",
			              value_kind_name(options[i].spec.kind), options[i].help);
		}
	}
}

void
config_list(FILE *out)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const char *section = sections[options[i].section].name;

		(void)fprintf(out, "%s%s%s\t%s\t", section == NULL ? "" : section,
		              section == NULL ? "" : ".", options[i].name,
		              value_kind_name(options[i].spec.kind));
		write_default(out, &options[i]);
		(void)fprintf(out, "\t%s\n", options[i].help);
	}
}
