/*
 * DNS through c-ares: see resolve.h. An entry is one question with its answer;
 * queries wait at it. Entries hang in a hash table and, oldest use first, in a
 * list from which the cache forgets.
 */
#include "net/resolve.h"

#include <ares.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#define BUCKETS 4096

enum { NS_CLASS_IN = 1, NS_TYPE_A = 1, NS_TYPE_AAAA = 28, NS_TYPE_SRV = 33 };

struct socket_watch {
	struct resolver *resolver;
	struct loop_fd watch;
	struct socket_watch *next;
};

struct resolve_entry {
	struct resolver *resolver;
	struct resolve_entry *chain;         /* of the bucket */
	struct resolve_entry *older, *newer; /* use */
	struct resolve_query *waiting;       /* the last comer first */
	struct loop_defer deliver;
	int64_t expires_ms;
	uint32_t ttl_s, none_ttl_s; /* the least so far, while asking */
	struct resolve_answer answer;
	struct resolve_target *targets;
	struct net_address *v6, *v4; /* while asking; then v6 holds both */
	size_t v6_count, v4_count;
	int asking;       /* questions under way */
	int failed, none; /* of those: how they came back */
	int held;         /* callbacks on the stack */
	bool service;
	bool forgotten; /* out of the table; freed when nothing needs it */
	char name[RESOLVE_NAME];
	char text[96];
};

struct resolver {
	struct loop *loop;
	ares_channel channel;
	struct loop_timer timer;
	struct socket_watch *watches;
	struct resolver_config config;
	struct resolve_entry *buckets[BUCKETS];
	struct resolve_entry use; /* head: use.newer is the oldest */
	size_t count;
};

/* --- entries -------------------------------------------------------------------- */

static struct resolve_entry **
bucket_of(struct resolver *r, bool service, const char *name)
{
	uint64_t hash = UINT64_C(14695981039346656037) ^ service;

	for (; *name != '\0'; name++)
		hash = (hash ^ (uint8_t)*name) * UINT64_C(1099511628211);
	return &r->buckets[(hash ^ hash >> 32) % BUCKETS];
}

static void
entry_free_if_idle(struct resolve_entry *e)
{
	if (!e->forgotten || e->asking > 0 || e->held > 0 || e->waiting != NULL)
		return;
	loop_defer_cancel(&e->deliver);
	free(e->targets);
	free(e->v6);
	free(e->v4);
	free(e);
}

/* Out of the table; whoever waits at it is still answered. */
static void
entry_forget(struct resolve_entry *e)
{
	struct resolve_entry **at = bucket_of(e->resolver, e->service, e->name);

	if (!e->forgotten) {
		while (*at != e)
			at = &(*at)->chain;
		*at = e->chain;
		e->older->newer = e->newer;
		e->newer->older = e->older;
		e->resolver->count--;
		e->forgotten = true;
	}
	entry_free_if_idle(e);
}

static void
entry_used(struct resolve_entry *e)
{
	struct resolve_entry *head = &e->resolver->use;

	if (e->older != NULL) {
		e->older->newer = e->newer;
		e->newer->older = e->older;
	}
	e->older = head->older;
	e->newer = head;
	head->older->newer = e;
	head->older = e;
}

static void on_deliver(struct loop_defer *defer);

static struct resolve_entry *
entry_new(struct resolver *r, bool service, const char *name)
{
	struct resolve_entry *e = calloc(1, sizeof(*e)), **at = bucket_of(r, service, name);

	if (e == NULL)
		return NULL;
	while (r->count >= r->config.cache_max)
		entry_forget(r->use.newer);
	e->resolver = r;
	e->service = service;
	e->ttl_s = e->none_ttl_s = UINT32_MAX;
	(void)snprintf(e->name, sizeof(e->name), "%s", name);
	loop_defer_init(&e->deliver, on_deliver, e);
	e->chain = *at;
	*at = e;
	r->count++;
	entry_used(e);
	return e;
}

static struct resolve_entry *
entry_find(struct resolver *r, bool service, const char *name)
{
	struct resolve_entry *e = *bucket_of(r, service, name);

	while (e != NULL && (e->service != service || strcmp(e->name, name) != 0))
		e = e->chain;
	if (e != NULL && e->asking == 0 && e->waiting == NULL &&
	    e->expires_ms <= loop_mono_ms(r->loop)) {
		entry_forget(e);
		return NULL;
	}
	return e;
}

/* --- answering -------------------------------------------------------------------- */

static void
link_query(struct resolve_query **list, struct resolve_query *q)
{
	q->next = *list;
	q->back = list;
	if (q->next != NULL)
		q->next->back = &q->next;
	*list = q;
}

static void
on_deliver(struct loop_defer *defer)
{
	struct resolve_entry *e = defer->arg;
	struct resolve_query *list = NULL, *q;
	struct resolve_answer answer = e->answer;
	int64_t left_ms = e->expires_ms - loop_mono_ms(e->resolver->loop);

	answer.ttl_s = left_ms > 0 ? left_ms / 1000 : 0;
	e->held++;
	while ((q = e->waiting) != NULL) { /* turned around: first come, first served */
		e->waiting = q->next;
		link_query(&list, q);
	}
	while ((q = list) != NULL) {
		resolve_cancel(q);
		q->fn(q, &answer);
	}
	e->held--;
	if (e->answer.rc == RESOLVE_FAIL && e->waiting == NULL)
		entry_forget(e);
	else
		entry_free_if_idle(e);
}

static void
finish(struct resolve_entry *e, enum resolve_rc rc, uint32_t ttl, const char *text)
{
	const struct resolver_config *config = &e->resolver->config;
	int64_t most_s = rc == RESOLVE_FOUND ? config->ttl_max_s : config->ttl_none_s;
	int64_t ttl_s = ttl;

	if (ttl_s < config->ttl_min_s)
		ttl_s = config->ttl_min_s;
	if (ttl_s > most_s)
		ttl_s = most_s;
	if (rc == RESOLVE_FAIL)
		ttl_s = 0;
	e->expires_ms = loop_mono_ms(e->resolver->loop) + ttl_s * 1000;
	if (text != e->text)
		(void)snprintf(e->text, sizeof(e->text), "%s", text);
	e->answer.rc = rc;
	e->answer.text = e->text;
	loop_defer(e->resolver->loop, &e->deliver);
}

static bool
has_message(int status, const unsigned char *data, int len)
{
	return data != NULL && len > 0 &&
	       (status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND);
}

static void
on_service(void *arg, int status, int timeouts, unsigned char *data, int len)
{
	struct resolve_entry *e = arg;
	enum resolve_rc rc = RESOLVE_FAIL;
	uint32_t ttl_s = 0;
	size_t count = RESOLVE_MAX;

	(void)timeouts;
	e->asking--;
	if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
		entry_free_if_idle(e);
		return;
	}
	e->targets = calloc(RESOLVE_MAX, sizeof(*e->targets));
	if (e->targets != NULL && has_message(status, data, len))
		rc = resolve_parse_service(slice_mem(data, (size_t)len), e->name, e->targets,
		                           &count, &ttl_s);
	if (rc == RESOLVE_FOUND) {
		struct resolve_target *less = realloc(e->targets, count * sizeof(*less));

		if (less != NULL)
			e->targets = less;
		e->answer.targets = e->targets;
		e->answer.count = count;
	}
	finish(e, rc, ttl_s,
	       rc == RESOLVE_FOUND              ? ""
	       : rc != RESOLVE_FAIL             ? "no such service"
	       : has_message(status, data, len) ? "unusable answer"
	                                        : ares_strerror(status));
}

/* IPv6 and IPv4 taking turns, so that one family that leads nowhere costs one try at a time. */
static void
interleave(struct resolve_entry *e)
{
	size_t count = e->v6_count + e->v4_count, six = 0, four = 0;
	struct net_address *all = calloc(count, sizeof(*all));

	if (all == NULL)
		return;
	for (size_t i = 0; i < count; i++) {
		bool take_six = four == e->v4_count || (six < e->v6_count && six <= four);

		all[i] = take_six ? e->v6[six++] : e->v4[four++];
	}
	free(e->v6);
	free(e->v4);
	e->v6 = all;
	e->v4 = NULL;
	e->answer.addresses = all;
	e->answer.count = count;
}

static void
finish_host(struct resolve_entry *e, uint32_t ttl_s, const char *text)
{
	if (e->v6_count + e->v4_count > 0)
		interleave(e);
	if (e->answer.addresses != NULL)
		finish(e, RESOLVE_FOUND, e->failed > 0 ? 0 : ttl_s, "");
	else if (e->failed > 0 || e->v6_count + e->v4_count > 0)
		finish(e, RESOLVE_FAIL, 0, text);
	else if (e->none > 0)
		finish(e, RESOLVE_NO_NAME, e->none_ttl_s, "no such name");
	else
		finish(e, RESOLVE_NO_RECORD, e->none_ttl_s, "the name has no address");
}

static void
on_addresses(struct resolve_entry *e, bool v6, int status, const unsigned char *data, int len)
{
	struct net_address *list = calloc(RESOLVE_MAX, sizeof(*list));
	enum resolve_rc rc = RESOLVE_FAIL;
	uint32_t ttl_s = 0;
	size_t count = RESOLVE_MAX;

	e->asking--;
	if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
		free(list);
		entry_free_if_idle(e);
		return;
	}
	if (list != NULL && has_message(status, data, len))
		rc = resolve_parse_addresses(slice_mem(data, (size_t)len), e->name, v6, list,
		                             &count, &ttl_s);
	else
		count = 0;
	if (rc == RESOLVE_FOUND && ttl_s < e->ttl_s)
		e->ttl_s = ttl_s;
	if ((rc == RESOLVE_NO_RECORD || rc == RESOLVE_NO_NAME) && ttl_s < e->none_ttl_s)
		e->none_ttl_s = ttl_s;
	e->failed += rc == RESOLVE_FAIL;
	e->none += rc == RESOLVE_NO_NAME;
	*(v6 ? &e->v6 : &e->v4) = list;
	*(v6 ? &e->v6_count : &e->v4_count) = count;
	if (rc == RESOLVE_FAIL)
		(void)snprintf(e->text, sizeof(e->text), "%s",
		               has_message(status, data, len) ? "unusable answer"
		                                              : ares_strerror(status));
	if (e->asking == 0)
		finish_host(e, e->ttl_s, e->text);
}

static void
on_v6(void *arg, int status, int timeouts, unsigned char *data, int len)
{
	(void)timeouts;
	on_addresses(arg, true, status, data, len);
}

static void
on_v4(void *arg, int status, int timeouts, unsigned char *data, int len)
{
	(void)timeouts;
	on_addresses(arg, false, status, data, len);
}

/* --- asking ------------------------------------------------------------------------ */

static void
set_timer(struct resolver *r)
{
	struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);

	if (next == NULL)
		loop_timer_cancel(&r->timer);
	else
		loop_timer_set(&r->timer, (int64_t)tv.tv_sec * 1000 + tv.tv_usec / 1000 + 1);
}

/* What the machine itself knows: a literal or the hosts file. */
static bool
answer_locally(struct resolve_entry *e)
{
	struct net_address a;
	struct hostent *host;

	e->v6 = calloc(RESOLVE_MAX, sizeof(*e->v6));
	if (e->v6 == NULL)
		return false;
	if (net_address_make(e->name, 0, &a))
		e->v6[e->v6_count++] = a;
	for (int i = 0; i < 2 && e->v6_count == 0; i++) {
		int family = i == 0 ? AF_INET6 : AF_INET;
		char ip[64];

		if (ares_gethostbyname_file(e->resolver->channel, e->name, family, &host) !=
		    ARES_SUCCESS)
			continue;
		for (char **at = host->h_addr_list; *at != NULL && e->v6_count < RESOLVE_MAX;
		     at++) {
			if (ares_inet_ntop(family, *at, ip, sizeof(ip)) != NULL &&
			    net_address_make(ip, 0, &a))
				e->v6[e->v6_count++] = a;
		}
		ares_free_hostent(host);
	}
	if (e->v6_count == 0) {
		free(e->v6);
		e->v6 = NULL;
		return false;
	}
	finish_host(e, 0, "no memory");
	return true;
}

static void
ask(struct resolve_entry *e)
{
	struct resolver *r = e->resolver;

	if (e->name[0] == '\0') {
		finish(e, RESOLVE_FAIL, 0, "no name that could be asked for");
		return;
	}
	if (!e->service && answer_locally(e))
		return;
	/* Counted before asking: an answer may come before ares_query returns. */
	e->asking = e->service ? 1 : 2;
	e->held++;
	if (e->service) {
		ares_query(r->channel, e->name, NS_CLASS_IN, NS_TYPE_SRV, on_service, e);
	} else {
		ares_query(r->channel, e->name, NS_CLASS_IN, NS_TYPE_AAAA, on_v6, e);
		ares_query(r->channel, e->name, NS_CLASS_IN, NS_TYPE_A, on_v4, e);
	}
	e->held--;
	set_timer(r);
}

static void
on_no_memory(struct loop_defer *defer)
{
	struct resolve_query *q = defer->arg;
	struct resolve_answer answer = { .rc = RESOLVE_FAIL, .text = "no memory" };

	q->fn(q, &answer);
}

static void
resolve(struct resolver *r, struct resolve_query *q, bool service, const char *name,
        void (*fn)(struct resolve_query *, const struct resolve_answer *), void *arg)
{
	struct resolve_entry *e;
	char lower[RESOLVE_NAME];
	size_t len = strlen(name);

	*q = (struct resolve_query){ .fn = fn, .arg = arg };
	loop_defer_init(&q->no_memory, on_no_memory, q);
	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len >= sizeof(lower))
		len = 0; /* as good as any other bad name */
	for (size_t i = 0; i < len; i++)
		lower[i] =
		    (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
	lower[len] = '\0';
	e = entry_find(r, service, lower);
	if (e != NULL) {
		entry_used(e);
		if (e->asking == 0)
			loop_defer(r->loop, &e->deliver);
	} else if ((e = entry_new(r, service, lower)) == NULL) {
		loop_defer(r->loop, &q->no_memory);
		return;
	} else {
		ask(e);
	}
	q->entry = e;
	link_query(&e->waiting, q);
}

void
resolve_service(struct resolver *resolver, struct resolve_query *query, const char *name,
                void (*fn)(struct resolve_query *, const struct resolve_answer *), void *arg)
{
	resolve(resolver, query, true, name, fn, arg);
}

void
resolve_host(struct resolver *resolver, struct resolve_query *query, const char *name,
             void (*fn)(struct resolve_query *, const struct resolve_answer *), void *arg)
{
	resolve(resolver, query, false, name, fn, arg);
}

void
resolve_cancel(struct resolve_query *query)
{
	struct resolve_entry *e = query->entry;

	loop_defer_cancel(&query->no_memory);
	if (query->back == NULL)
		return;
	*query->back = query->next;
	if (query->next != NULL)
		query->next->back = query->back;
	query->next = NULL;
	query->back = NULL;
	query->entry = NULL;
	entry_free_if_idle(e);
}

/* --- sockets and life ------------------------------------------------------------------ */

static void
on_socket_ready(struct loop_fd *watch, unsigned ready)
{
	struct resolver *r = ((struct socket_watch *)watch->arg)->resolver;
	int fd = watch->fd;

	ares_process_fd(r->channel, (ready & LOOP_READ) != 0 ? fd : ARES_SOCKET_BAD,
	                (ready & LOOP_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
	set_timer(r);
}

static void
on_timer(struct loop_timer *timer)
{
	struct resolver *r = timer->arg;

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	set_timer(r);
}

/* c-ares wants this of a socket; nothing at all: it is about to close it. */
static void
on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct socket_watch **at = &r->watches, *w;
	unsigned want =
	    (readable ? (unsigned)LOOP_READ : 0) | (writable ? (unsigned)LOOP_WRITE : 0);

	while (*at != NULL && (*at)->watch.fd != fd)
		at = &(*at)->next;
	w = *at;
	if (want == 0 && w != NULL) {
		*at = w->next;
		loop_fd_deinit(&w->watch);
		free(w);
	}
	if (want == 0)
		return;
	if (w == NULL) {
		w = calloc(1, sizeof(*w));
		if (w == NULL || !loop_fd_init(&w->watch, r->loop, fd, on_socket_ready, w)) {
			free(w);
			return; /* the question ends with its timeout */
		}
		w->resolver = r;
		w->next = r->watches;
		r->watches = w;
	}
	(void)loop_fd_want(&w->watch, want);
}

static int
channel_init(struct resolver *r)
{
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS,
		.timeout = r->config.timeout_ms,
		.tries = r->config.tries,
		.ednspsz = 1232,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = r,
	};
	int rc =
	    ares_init_options(&r->channel, &options,
	                      ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
	                          ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB | ARES_OPT_DOMAINS);

	if (rc != ARES_SUCCESS) {
		r->channel = NULL;
		return rc;
	}
	if (r->config.servers != NULL)
		rc = ares_set_servers_ports_csv(r->channel, r->config.servers);
	r->config.servers = NULL; /* was borrowed */
	return rc;
}

static void
set_defaults(struct resolver_config *config)
{
	if (config->timeout_ms == 0)
		config->timeout_ms = 3000;
	if (config->tries == 0)
		config->tries = 3;
	if (config->cache_max == 0)
		config->cache_max = 10000;
	if (config->ttl_min_s == 0)
		config->ttl_min_s = 5;
	if (config->ttl_max_s == 0)
		config->ttl_max_s = 3600;
	if (config->ttl_none_s == 0)
		config->ttl_none_s = 60;
}

struct resolver *
resolver_new(struct loop *loop, const struct resolver_config *config, char why[static NET_TEXT])
{
	struct resolver *r = calloc(1, sizeof(*r));
	int rc = ARES_ENOMEM;

	if (r != NULL) {
		r->loop = loop;
		r->config = *config;
		r->use.older = r->use.newer = &r->use;
		set_defaults(&r->config);
		loop_timer_init(&r->timer, loop, on_timer, r);
		rc = ares_library_init(ARES_LIB_INIT_ALL);
	}
	if (rc != ARES_SUCCESS) {
		free(r);
		r = NULL;
	} else {
		rc = channel_init(r);
	}
	if (rc != ARES_SUCCESS) {
		(void)snprintf(why, NET_TEXT, "DNS: %s%s%s",
		               config->servers == NULL ? "" : config->servers,
		               config->servers == NULL ? "" : ": ", ares_strerror(rc));
		resolver_free(&r);
	}
	return r;
}

void
resolver_forget(struct resolver *resolver)
{
	struct resolve_entry *e = resolver->use.newer, *next;

	for (; e != &resolver->use; e = next) {
		next = e->newer;
		entry_forget(e);
	}
}

void
resolver_free(struct resolver **resolver)
{
	struct resolver *r = *resolver;

	*resolver = NULL;
	if (r == NULL)
		return;
	resolver_forget(r);
	if (r->channel != NULL)
		ares_destroy(r->channel);
	loop_timer_cancel(&r->timer);
	ares_library_cleanup();
	free(r);
}
