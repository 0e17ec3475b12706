/*
 * HTTPS through libcurl's multi interface: see fetch.h. Who may start is
 * decided here, by host and in turns, so that libcurl never queues; libcurl
 * keeps the connections. There are two pools of them, because it would lend a
 * connection to a private address, once made, to a fetch that may not have one.
 */
#include "net/fetch.h"

#include "base/buffer.h"
#include "base/text.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define MAX_HEADERS 65536
#define MAX_DISCARDED 65536 /* of the body of an answer that isn't 2xx */
#define BUCKETS 1024

/* Connections of one kind: guarded (to public addresses only) or not. */
struct pool {
	struct fetcher *fetcher;
	CURLM *multi;
	struct loop_timer timer;
	struct loop_defer kick; /* a timer of 0 ms */
};

struct socket_watch {
	struct pool *pool;
	struct loop_fd watch;
};

/* A host and port, with the fetches to it. It exists while there are any. */
struct host {
	struct host *chain;       /* of the bucket */
	struct host *next, *prev; /* in the ring, while one of its fetches may start */
	struct fetch *first, **last;
	size_t active, waiting;
	char *key; /* behind the struct: "host:port", or with a pin "host:port@address" */
};

enum fetch_state { FETCH_WAITING, FETCH_RESOLVING, FETCH_RUNNING, FETCH_ENDING };

struct fetch {
	struct fetcher *fetcher;
	struct host *host;
	struct fetch *next, *prev_all, *next_all;
	void (*fn)(void *arg, const struct fetch_answer *answer);
	void *arg;
	/* Its url, ca_file, pin and headers don't hold here: see below. */
	struct fetch_request request;
	CURLU *url;
	char *ca_file, *name;
	unsigned port;
	struct curl_slist *headers, *connect_to, *resolve;
	CURL *easy;
	struct resolve_query query;
	struct loop_timer deadline;
	struct loop_defer ending; /* for what fails before it runs */
	struct buffer body;
	size_t header_octets, discarded;
	enum fetch_state state;
	enum fetch_rc failed; /* what a callback of libcurl's stopped it for */
	bool cut;             /* enough was read of an answer that isn't 2xx */
	bool blocked, opened; /* addresses refused, sockets made */
	char text[CURL_ERROR_SIZE];
};

struct fetcher {
	struct loop *loop;
	struct fetcher_config config;
	struct pool guarded, open;
	CURLSH *share; /* TLS sessions */
	char *user_agent;
	char *ca_file; /* the system's */
	CURL **idle;
	size_t idle_count, active, waiting, octets;
	struct fetch *all;
	struct host ring; /* head */
	struct host *buckets[BUCKETS];
};

const char *
fetch_rc_name(enum fetch_rc rc)
{
	static const char *const names[] = {
		[FETCH_OK] = "ok",
		[FETCH_BAD_URL] = "bad-url",
		[FETCH_BLOCKED] = "blocked",
		[FETCH_RESOLVE] = "resolve",
		[FETCH_CONNECT] = "connect",
		[FETCH_UNVERIFIED] = "unverified",
		[FETCH_TOO_LARGE] = "too-large",
		[FETCH_TIMEOUT] = "timeout",
		[FETCH_BROKEN] = "broken",
		[FETCH_OVERLOAD] = "overload",
	};

	return (size_t)rc < sizeof(names) / sizeof(names[0]) ? names[rc] : "unknown";
}

/* --- hosts ------------------------------------------------------------------------- */

static struct host **
host_find(struct fetcher *f, const char *key)
{
	uint64_t hash = UINT64_C(14695981039346656037);
	struct host **at;

	for (const char *c = key; *c != '\0'; c++)
		hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
	at = &f->buckets[(hash ^ hash >> 32) % BUCKETS];
	while (*at != NULL && strcmp((*at)->key, key) != 0)
		at = &(*at)->chain;
	return at;
}

static struct host *
host_get(struct fetcher *f, const char *key)
{
	struct host **at = host_find(f, key), *h = *at;
	size_t len = strlen(key) + 1;

	if (h != NULL)
		return h;
	h = calloc(1, sizeof(*h) + len);
	if (h == NULL)
		return NULL;
	h->key = memcpy(h + 1, key, len);
	h->last = &h->first;
	*at = h;
	return h;
}

static void
ring_leave(struct host *h)
{
	if (h->prev == NULL)
		return;
	h->prev->next = h->next;
	h->next->prev = h->prev;
	h->next = h->prev = NULL;
}

static void
ring_join(struct fetcher *f, struct host *h)
{
	h->next = &f->ring;
	h->prev = f->ring.prev;
	f->ring.prev->next = h;
	f->ring.prev = h;
}

/* In the ring exactly while one of its fetches may start; gone when it has none. */
static void
host_update(struct fetcher *f, struct host *h)
{
	bool ready = h->waiting > 0 && h->active < f->config.max_per_host;

	if (ready && h->prev == NULL)
		ring_join(f, h);
	if (!ready)
		ring_leave(h);
	if (h->waiting == 0 && h->active == 0) {
		*host_find(f, h->key) = h->chain;
		free(h);
	}
}

/* --- libcurl's callbacks --------------------------------------------------------------- */

static bool
is_success(const struct fetch *f)
{
	long status = 0;

	(void)curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status <= 299;
}

static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
	struct fetch *f = arg;
	size_t n = size * count;

	if (!is_success(f)) {
		f->discarded += n;
		f->cut = f->discarded > MAX_DISCARDED;
		return f->cut ? CURL_WRITEFUNC_ERROR : n;
	}
	if (n > f->request.max_body - f->body.len)
		f->failed = FETCH_TOO_LARGE;
	else
		buffer_add(&f->body, data, n);
	if (f->body.failed)
		f->failed = FETCH_OVERLOAD;
	return f->failed == FETCH_OK ? n : CURL_WRITEFUNC_ERROR;
}

/* A promise of too much ends it before the body comes. */
static size_t
on_header(char *data, size_t size, size_t count, void *arg)
{
	static const char length[] = "content-length:";
	struct fetch *f = arg;
	size_t n = size * count, at = sizeof(length) - 1;
	uint64_t octets;

	f->header_octets += n;
	if (f->header_octets > MAX_HEADERS) {
		f->failed = FETCH_TOO_LARGE;
		return 0;
	}
	if (n <= at || strncasecmp(data, length, at) != 0 || !is_success(f))
		return n;
	while (at < n && (data[at] == ' ' || data[at] == '\t'))
		at++;
	while (n > at && (data[n - 1] == '\r' || data[n - 1] == '\n' || data[n - 1] == ' '))
		n--;
	if (text_parse_u64(slice_mem(data + at, n - at), UINT64_MAX, &octets) &&
	    octets > f->request.max_body) {
		f->failed = FETCH_TOO_LARGE;
		return 0;
	}
	return size * count;
}

/*
 * The guard stands where the address is really used: behind every resolver,
 * cache and literal.
 */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct fetch *f = arg;
	int fd;

	(void)purpose;
	if (!f->request.allow_private && !net_address_is_public(&address->addr)) {
		f->blocked = true;
		return CURL_SOCKET_BAD;
	}
	f->opened = true;
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static void pool_finished(struct pool *p);

static void
pool_act(struct pool *p, curl_socket_t fd, int what)
{
	int running;

	(void)curl_multi_socket_action(p->multi, fd, what, &running);
	pool_finished(p);
}

static void
on_socket_ready(struct loop_fd *watch, unsigned ready)
{
	struct pool *p = ((struct socket_watch *)watch->arg)->pool;

	pool_act(p, watch->fd,
	         ((ready & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
	             ((ready & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

static int
on_want(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct pool *p = arg;
	struct socket_watch *w = socket_arg;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w != NULL)
			loop_fd_deinit(&w->watch);
		free(w);
		return 0;
	}
	if (w == NULL) {
		w = calloc(1, sizeof(*w));
		if (w == NULL ||
		    !loop_fd_init(&w->watch, p->fetcher->loop, fd, on_socket_ready, w)) {
			free(w);
			return -1;
		}
		w->pool = p;
		(void)curl_multi_assign(p->multi, fd, w);
	}
	return loop_fd_want(&w->watch,
	                    ((what & CURL_POLL_IN) != 0 ? (unsigned)LOOP_READ : 0) |
	                        ((what & CURL_POLL_OUT) != 0 ? (unsigned)LOOP_WRITE : 0))
	           ? 0
	           : -1;
}

static void
on_pool_timer(struct loop_timer *timer)
{
	pool_act(timer->arg, CURL_SOCKET_TIMEOUT, 0);
}

static void
on_pool_kick(struct loop_defer *defer)
{
	pool_act(defer->arg, CURL_SOCKET_TIMEOUT, 0);
}

static int
on_want_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct pool *p = arg;

	(void)multi;
	loop_timer_cancel(&p->timer);
	loop_defer_cancel(&p->kick);
	if (timeout_ms == 0)
		loop_defer(p->fetcher->loop, &p->kick);
	else if (timeout_ms > 0)
		loop_timer_set(&p->timer, timeout_ms);
	return 0;
}

/* --- the end of a fetch -------------------------------------------------------------- */

static struct pool *
pool_of(struct fetch *f)
{
	return f->request.allow_private ? &f->fetcher->open : &f->fetcher->guarded;
}

/* Takes f out of everything it may stand in. */
static void
detach(struct fetch *f)
{
	struct fetcher *owner = f->fetcher;
	struct host *h = f->host;

	loop_timer_cancel(&f->deadline);
	loop_defer_cancel(&f->ending);
	resolve_cancel(&f->query);
	if (h == NULL)
		return;
	f->host = NULL;
	if (f->state == FETCH_WAITING) {
		struct fetch **at = &h->first;

		while (*at != f)
			at = &(*at)->next;
		*at = f->next;
		if (h->last == &f->next)
			h->last = at;
		h->waiting--;
		owner->waiting--;
	} else {
		h->active--;
		owner->active--;
		owner->octets -= f->request.max_body;
	}
	host_update(owner, h);
}

static void
give_back_easy(struct fetch *f)
{
	struct fetcher *owner = f->fetcher;

	if (f->easy == NULL)
		return;
	(void)curl_multi_remove_handle(pool_of(f)->multi, f->easy);
	if (owner->idle_count < owner->config.max_total) {
		/* It must not keep pointing at what goes with the fetch. */
		(void)curl_easy_setopt(f->easy, CURLOPT_CURLU, NULL);
		(void)curl_easy_setopt(f->easy, CURLOPT_ERRORBUFFER, NULL);
		(void)curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, NULL);
		(void)curl_easy_setopt(f->easy, CURLOPT_CONNECT_TO, NULL);
		(void)curl_easy_setopt(f->easy, CURLOPT_RESOLVE, NULL);
		(void)curl_easy_setopt(f->easy, CURLOPT_POSTFIELDS, NULL);
		owner->idle[owner->idle_count++] = f->easy;
	} else {
		curl_easy_cleanup(f->easy);
	}
	f->easy = NULL;
}

static void
fetch_free(struct fetch *f)
{
	give_back_easy(f);
	if (f->prev_all != NULL)
		f->prev_all->next_all = f->next_all;
	else if (f->fetcher->all == f)
		f->fetcher->all = f->next_all;
	if (f->next_all != NULL)
		f->next_all->prev_all = f->prev_all;
	curl_slist_free_all(f->headers);
	curl_slist_free_all(f->connect_to);
	curl_slist_free_all(f->resolve);
	curl_url_cleanup(f->url);
	buffer_free(&f->body);
	curl_free(f->name);
	free(f->ca_file);
	free(f);
}

static const char *
header_of(struct fetch *f, const char *name)
{
	struct curl_header *h;

	if (f->easy == NULL ||
	    curl_easy_header(f->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
		return "";
	return h->value;
}

static void start_waiting(struct fetcher *owner);

static void
finish(struct fetch *f, enum fetch_rc rc, const char *text)
{
	struct fetcher *owner = f->fetcher;
	struct fetch_answer answer = { .rc = rc,
		                       .text = rc == FETCH_OK ? "" : text,
		                       .retry_after_s = -1 };
	long connects = 1;
	curl_off_t after = 0;

	if (f->easy != NULL) {
		(void)curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &answer.status);
		(void)curl_easy_getinfo(f->easy, CURLINFO_NUM_CONNECTS, &connects);
		if (curl_easy_getinfo(f->easy, CURLINFO_RETRY_AFTER, &after) == CURLE_OK &&
		    after > 0)
			answer.retry_after_s = after;
	}
	answer.reused = connects == 0;
	if (rc == FETCH_OK && answer.status >= 200 && answer.status <= 299)
		answer.body = buffer_slice(&f->body);
	answer.content_type = header_of(f, "content-type");
	answer.content_range = header_of(f, "content-range");
	answer.etag = header_of(f, "etag");
	answer.cache_control = header_of(f, "cache-control");
	detach(f);
	f->state = FETCH_ENDING;
	start_waiting(owner);
	f->fn(f->arg, &answer);
	fetch_free(f);
}

static enum fetch_rc
judge(const struct fetch *f, CURLcode code)
{
	if (f->failed != FETCH_OK)
		return f->failed;
	if (code == CURLE_OK || f->cut)
		return FETCH_OK;
	if (f->blocked && !f->opened)
		return FETCH_BLOCKED;
	switch (code) {
	case CURLE_URL_MALFORMAT:
		return FETCH_BAD_URL;
	case CURLE_COULDNT_RESOLVE_HOST:
		return FETCH_RESOLVE;
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
		return FETCH_CONNECT;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return FETCH_UNVERIFIED;
	case CURLE_OPERATION_TIMEDOUT:
		return FETCH_TIMEOUT;
	case CURLE_OUT_OF_MEMORY:
		return FETCH_OVERLOAD;
	default:
		return FETCH_BROKEN;
	}
}

static const char *
say(const struct fetch *f, enum fetch_rc rc, CURLcode code)
{
	if (rc == FETCH_TOO_LARGE)
		return f->header_octets > MAX_HEADERS ? "more than 64 KiB of headers"
		                                      : "more octets than announced";
	if (rc == FETCH_BLOCKED)
		return "no address of the host is public";
	if (rc == FETCH_OVERLOAD)
		return "no memory";
	return f->text[0] != '\0' ? f->text : curl_easy_strerror(code);
}

static void
pool_finished(struct pool *p)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(p->multi, &left)) != NULL) {
		CURLcode code = message->data.result;
		struct fetch *f = NULL;
		enum fetch_rc rc;

		if (message->msg != CURLMSG_DONE ||
		    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&f) !=
		        CURLE_OK ||
		    f == NULL)
			continue;
		rc = judge(f, code);
		finish(f, rc, say(f, rc, code));
	}
}

static void
on_deadline(struct loop_timer *timer)
{
	finish(timer->arg, FETCH_TIMEOUT, "not done in time");
}

static void
on_ending(struct loop_defer *defer)
{
	struct fetch *f = defer->arg;

	finish(f, f->failed, f->text);
}

/* Ends a fetch that doesn't run, from the loop. */
static void
end_later(struct fetch *f, enum fetch_rc rc, const char *text)
{
	f->failed = rc;
	(void)snprintf(f->text, sizeof(f->text), "%s", text);
	loop_defer(f->fetcher->loop, &f->ending);
}

/* --- starting --------------------------------------------------------------------------- */

static void
set_common(struct fetcher *owner, CURL *e)
{
	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "https");
	(void)curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "https");
	(void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(e, CURLOPT_PROXY, ""); /* not even the environment's */
	(void)curl_easy_setopt(e, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	(void)curl_easy_setopt(e, CURLOPT_CAPATH,
	                       NULL); /* libcurl caches parsed roots only of a file */
	(void)curl_easy_setopt(e, CURLOPT_SHARE, owner->share);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	if (owner->user_agent != NULL)
		(void)curl_easy_setopt(e, CURLOPT_USERAGENT, owner->user_agent);
}

static CURL *
take_easy(struct fetcher *owner)
{
	CURL *easy;

	if (owner->idle_count > 0)
		return owner->idle[--owner->idle_count];
	easy = curl_easy_init();
	if (easy != NULL)
		set_common(owner, easy);
	return easy;
}

static long
to_long(uint64_t v)
{
	return v > INT32_MAX ? INT32_MAX : (long)v;
}

static void
set_method(struct fetch *f)
{
	const struct fetch_request *r = &f->request;
	char range[64];

	if (r->post) {
		(void)curl_easy_setopt(f->easy, CURLOPT_POST, 1L);
		(void)curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE_LARGE,
		                       (curl_off_t)r->body.len);
		(void)curl_easy_setopt(f->easy, CURLOPT_POSTFIELDS,
		                       r->body.len > 0 ? (const char *)r->body.data : "");
	} else {
		(void)curl_easy_setopt(f->easy, CURLOPT_HTTPGET, 1L);
	}
	(void)snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)r->range_first,
	               (unsigned long long)r->range_last);
	(void)curl_easy_setopt(f->easy, CURLOPT_RANGE, r->ranged ? range : NULL);
}

/* Everything that differs between fetches: a handle keeps the settings of the one before. */
static bool
set_own(struct fetch *f)
{
	const struct fetch_request *r = &f->request;
	CURL *e = f->easy;
	bool good = curl_easy_setopt(e, CURLOPT_CURLU, f->url) == CURLE_OK;

	set_method(f);
	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, f);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, f);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, f);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, f);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f->text);
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, f->headers);
	(void)curl_easy_setopt(e, CURLOPT_CONNECT_TO, f->connect_to);
	(void)curl_easy_setopt(e, CURLOPT_RESOLVE, f->resolve);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, to_long((uint64_t)r->connect_ms));
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, to_long(r->low_speed_bytes));
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, to_long((uint64_t)r->low_speed_s));
	return good && curl_easy_setopt(e, CURLOPT_CAINFO,
	                                f->ca_file != NULL ? f->ca_file
	                                                   : f->fetcher->ca_file) == CURLE_OK;
}

static void
run(struct fetch *f)
{
	f->state = FETCH_RUNNING;
	f->easy = take_easy(f->fetcher);
	if (f->easy == NULL || !set_own(f)) {
		end_later(f, FETCH_OVERLOAD, "no memory");
		return;
	}
	if (curl_multi_add_handle(pool_of(f)->multi, f->easy) != CURLM_OK)
		end_later(f, FETCH_OVERLOAD, "no memory");
}

/* "+host:port:address,address" for libcurl's cache. False: none may be used, or no memory. */
static bool
give_addresses(struct fetch *f, const struct resolve_answer *answer)
{
	struct buffer text;
	char ip[NET_ADDRESS_TEXT];
	size_t given = 0;

	buffer_init(&text, 16384);
	buffer_add_fmt(&text, "+%s:%u:", f->name, f->port);
	for (size_t i = 0; i < answer->count; i++) {
		const struct net_address *a = &answer->addresses[i];
		bool v6 = a->ss.ss_family == AF_INET6;

		if (!f->request.allow_private &&
		    !net_address_is_public((const struct sockaddr *)&a->ss))
			continue;
		buffer_add_fmt(&text, v6 ? "%s[%s]" : "%s%s", given++ == 0 ? "" : ",",
		               net_address_format_ip(a, ip));
	}
	buffer_add_u8(&text, '\0');
	if (given > 0 && !text.failed)
		f->resolve = curl_slist_append(NULL, (const char *)text.data);
	buffer_free(&text);
	return f->resolve != NULL;
}

static void
on_resolved(struct resolve_query *query, const struct resolve_answer *answer)
{
	struct fetch *f = query->arg;

	if (answer->rc != RESOLVE_FOUND) {
		finish(f, FETCH_RESOLVE, answer->text);
		return;
	}
	if (give_addresses(f, answer))
		run(f);
	else
		finish(f, FETCH_BLOCKED, "no address of the host is public");
}

static void
start(struct fetch *f)
{
	struct net_address a;

	f->state = FETCH_RESOLVING;
	if (f->fetcher->config.resolver != NULL && f->connect_to == NULL &&
	    !net_address_make(f->name, 0, &a) && f->name[0] != '[')
		resolve_host(f->fetcher->config.resolver, &f->query, f->name, on_resolved, f);
	else
		run(f);
}

/* Hosts take turns; a fetch whose octets don't fit waits without holding up others. */
static void
start_waiting(struct fetcher *owner)
{
	struct host *h = owner->ring.next, *next;

	for (; h != &owner->ring && owner->active < owner->config.max_total; h = next) {
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): h stands in the ring */
		struct fetch *f = h->first;

		next = h->next;
		if (owner->active > 0 &&
		    owner->octets + f->request.max_body > owner->config.max_octets)
			continue;
		h->first = f->next;
		if (h->first == NULL)
			h->last = &h->first;
		h->waiting--;
		owner->waiting--;
		h->active++;
		owner->active++;
		owner->octets += f->request.max_body;
		ring_leave(h);
		host_update(owner, h); /* to the end of the ring, if it may go on */
		if (next == &owner->ring)
			next = owner->ring.next;
		start(f);
	}
}

/* --- requests ---------------------------------------------------------------------------- */

/*
 * Stricter than libcurl, which forgives what browsers forgive: between the
 * scheme and the path stands a host, perhaps a port, and nothing that two
 * parsers could read in two ways.
 */
static const char *
check_authority(const char *url)
{
	static const char allowed[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]";
	size_t len;

	for (const char *c = url; *c != '\0'; c++) {
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
			return "not a URL";
	}
	if (strncasecmp(url, "https://", 8) != 0)
		return "only https is fetched";
	url += 8;
	len = strcspn(url, "/?#");
	if (memchr(url, '@', len) != NULL)
		return "no credentials in a URL";
	return len > 0 && strspn(url, allowed) >= len ? NULL : "no host";
}

/*
 * NULL when the URL may be fetched, with url and *name to be freed in any case;
 * else why not.
 */
static const char *
read_url(const char *text, CURLU **url, char **name, unsigned *port)
{
	const char *why = check_authority(text);
	char *number = NULL;
	uint64_t value = 0;

	*name = NULL;
	*url = curl_url();
	if (why == NULL &&
	    (*url == NULL || curl_url_set(*url, CURLUPART_URL, text, 0) != CURLUE_OK))
		why = "not a URL";
	else if (why == NULL && (curl_url_get(*url, CURLUPART_HOST, name, 0) != CURLUE_OK ||
	                         (*name)[0] == '\0' || strlen(*name) >= RESOLVE_NAME))
		why = "no host";
	else if (why == NULL &&
	         (curl_url_get(*url, CURLUPART_PORT, &number, CURLU_DEFAULT_PORT) !=
	              CURLUE_OK ||
	          !text_parse_u64(slice_str(number), 65535, &value) || value == 0))
		why = "no such port";
	*port = (unsigned)value;
	curl_free(number);
	return why;
}

static void
lower(char *s)
{
	for (; *s != '\0'; s++) {
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
	}
}

bool
fetch_url_host(const char *url, char host[static RESOLVE_NAME], uint16_t *port)
{
	CURLU *parsed;
	char *name;
	unsigned number;
	bool good = read_url(url, &parsed, &name, &number) == NULL;

	if (good) {
		(void)snprintf(host, RESOLVE_NAME, "%s", name);
		lower(host);
		*port = (uint16_t)number;
	}
	curl_free(name);
	curl_url_cleanup(parsed);
	return good;
}

static bool
copy_headers(struct fetch *f, const char *const *headers)
{
	struct curl_slist *grown;

	for (; headers != NULL && *headers != NULL; headers++) {
		grown = curl_slist_append(f->headers, *headers);
		if (grown == NULL)
			return false;
		f->headers = grown;
	}
	if (!f->request.post)
		return true;
	grown = curl_slist_append(f->headers, "Expect:"); /* no waiting for 100 */
	f->headers = grown == NULL ? f->headers : grown;
	return grown != NULL;
}

static bool
copy_pin(struct fetch *f, const struct net_address *pin, char *key, size_t key_size)
{
	char address[NET_ADDRESS_TEXT], to[NET_ADDRESS_TEXT + 8];
	size_t len = strlen(key);

	if (pin == NULL)
		return true;
	(void)snprintf(to, sizeof(to), "::%s", net_address_format(pin, address));
	f->connect_to = curl_slist_append(NULL, to);
	(void)snprintf(key + len, key_size - len, "@%s", address);
	return f->connect_to != NULL;
}

static bool
enqueue(struct fetch *f)
{
	char key[RESOLVE_NAME + NET_ADDRESS_TEXT + 16];

	(void)snprintf(key, sizeof(key), "%s:%u", f->name, f->port);
	lower(key);
	if (!copy_pin(f, f->request.pin, key, sizeof(key)))
		return false;
	f->host = host_get(f->fetcher, key);
	if (f->host == NULL)
		return false;
	f->next = NULL;
	*f->host->last = f;
	f->host->last = &f->next;
	f->host->waiting++;
	f->fetcher->waiting++;
	host_update(f->fetcher, f->host);
	return true;
}

static void
set_defaults(struct fetch_request *r)
{
	if (r->connect_ms == 0)
		r->connect_ms = 10000;
	if (r->total_ms == 0)
		r->total_ms = 60000;
	if (r->low_speed_bytes == 0)
		r->low_speed_bytes = 1024;
	if (r->low_speed_s == 0)
		r->low_speed_s = 20;
}

/* Into the queue, or to an end that comes later. */
static void
accept_request(struct fetch *f, const struct fetch_request *request)
{
	const char *why = read_url(request->url, &f->url, &f->name, &f->port);

	if (why != NULL) {
		end_later(f, FETCH_BAD_URL, why);
		return;
	}
	if (request->ca_file != NULL)
		f->ca_file = strdup(request->ca_file);
	if ((request->ca_file != NULL && f->ca_file == NULL) ||
	    !copy_headers(f, request->headers) ||
	    f->fetcher->waiting >= f->fetcher->config.max_waiting || !enqueue(f)) {
		end_later(f, FETCH_OVERLOAD, "too many fetches wait, or no memory");
		return;
	}
	loop_timer_set(&f->deadline, f->request.total_ms);
	start_waiting(f->fetcher);
}

struct fetch *
fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
            void (*fn)(void *arg, const struct fetch_answer *answer), void *arg)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (f == NULL)
		return NULL;
	f->fetcher = fetcher;
	f->fn = fn;
	f->arg = arg;
	f->request = *request;
	set_defaults(&f->request);
	buffer_init(&f->body, request->max_body);
	loop_timer_init(&f->deadline, fetcher->loop, on_deadline, f);
	loop_defer_init(&f->ending, on_ending, f);
	f->next_all = fetcher->all;
	if (f->next_all != NULL)
		f->next_all->prev_all = f;
	fetcher->all = f;
	accept_request(f, request);
	f->request.url = f->request.ca_file = NULL; /* were borrowed */
	f->request.pin = NULL;
	f->request.headers = NULL;
	return f;
}

void
fetch_cancel(struct fetch **fetch)
{
	struct fetch *f = *fetch;
	struct fetcher *owner;

	*fetch = NULL;
	if (f == NULL)
		return;
	owner = f->fetcher;
	detach(f);
	fetch_free(f);
	start_waiting(owner);
}

/* --- the fetcher ------------------------------------------------------------------ */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void
global_init(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static bool
pool_init(struct pool *p, struct fetcher *owner)
{
	p->fetcher = owner;
	loop_timer_init(&p->timer, owner->loop, on_pool_timer, p);
	loop_defer_init(&p->kick, on_pool_kick, p);
	p->multi = curl_multi_init();
	if (p->multi == NULL)
		return false;
	(void)curl_multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_want);
	(void)curl_multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p);
	(void)curl_multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_want_timer);
	(void)curl_multi_setopt(p->multi, CURLMOPT_TIMERDATA, p);
	(void)curl_multi_setopt(p->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	(void)curl_multi_setopt(p->multi, CURLMOPT_MAXCONNECTS,
	                        to_long(owner->config.max_total));
	return true;
}

static void
pool_deinit(struct pool *p)
{
	if (p->multi != NULL)
		(void)curl_multi_cleanup(p->multi);
	p->multi = NULL;
	if (p->fetcher == NULL)
		return;
	loop_timer_cancel(&p->timer);
	loop_defer_cancel(&p->kick);
}

static void
config_defaults(struct fetcher_config *c)
{
	if (c->max_per_host == 0)
		c->max_per_host = 16;
	if (c->max_total == 0)
		c->max_total = 128;
	if (c->max_octets == 0)
		c->max_octets = (size_t)256 * 1024 * 1024;
	if (c->max_waiting == 0)
		c->max_waiting = 100000;
}

static bool
fetcher_init(struct fetcher *f, struct loop *loop, const struct fetcher_config *config)
{
	const char *roots = curl_version_info(CURLVERSION_NOW)->cainfo;

	f->loop = loop;
	f->config = *config;
	config_defaults(&f->config);
	f->config.user_agent = NULL; /* was borrowed */
	f->ring.next = f->ring.prev = &f->ring;
	f->idle = calloc(f->config.max_total, sizeof(CURL *));
	f->user_agent = config->user_agent == NULL ? NULL : strdup(config->user_agent);
	f->ca_file = strdup(roots != NULL ? roots : "/etc/ssl/certs/ca-certificates.crt");
	f->share = curl_share_init();
	return f->idle != NULL && (f->user_agent != NULL || config->user_agent == NULL) &&
	       f->ca_file != NULL && f->share != NULL &&
	       curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) ==
	           CURLSHE_OK &&
	       pool_init(&f->guarded, f) && pool_init(&f->open, f);
}

struct fetcher *
fetcher_new(struct loop *loop, const struct fetcher_config *config)
{
	struct fetcher *f = calloc(1, sizeof(*f));

	(void)pthread_once(&global_once, global_init);
	if (f != NULL && !fetcher_init(f, loop, config))
		fetcher_free(&f);
	return f;
}

void
fetcher_free(struct fetcher **fetcher)
{
	struct fetcher *f = *fetcher;

	*fetcher = NULL;
	if (f == NULL)
		return;
	f->config.max_total = f->idle == NULL ? 0 : f->config.max_total;
	while (f->all != NULL) {
		struct fetch *one = f->all;

		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): fetch_free took the one before out of all */
		detach(one);
		fetch_free(one);
	}
	while (f->idle_count > 0)
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): without idle the count is 0 */
		curl_easy_cleanup(f->idle[--f->idle_count]);
	pool_deinit(&f->guarded);
	pool_deinit(&f->open);
	if (f->share != NULL)
		(void)curl_share_cleanup(f->share);
	free(f->idle);
	free(f->user_agent);
	free(f->ca_file);
	free(f);
}

size_t
fetcher_count(const struct fetcher *fetcher)
{
	return fetcher->active + fetcher->waiting;
}
