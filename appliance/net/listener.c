/*
 * Accepting: see listener.h. Seats are counted in an object that outlives the
 * listener, because connections may outlive it; addresses in a hash table that
 * holds only those with a seat.
 */
#include "net/listener.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_TOTAL 10000
#define DEFAULT_BACKLOG 1024
#define MAX_REFUSED 64
#define ACCEPTS_A_TURN 64
#define PAUSE_MS 500 /* after descriptors ran out, if no seat is given back before */
#define BUCKETS 1024

/* One address (or /64) and the seats it has. */
struct caller {
	struct caller *next;
	size_t seats;
	uint8_t key[8];
	size_t key_len;
};

struct counts {
	struct listener *listener; /* NULL once it was freed */
	size_t references;         /* the listener's and each seat's */
	size_t now, refused_now;
	uint64_t accepted, refused;
	uint64_t secret; /* so that nobody can aim at one bucket */
	struct caller *buckets[BUCKETS];
};

struct listener_seat {
	struct counts *counts;
	struct caller *caller; /* NULL when addresses aren't counted, or refused */
	bool refused;
};

struct listener {
	struct loop *loop;
	struct loop_fd watch;
	struct loop_timer retry;
	struct counts *counts;
	struct listener_config config;
	struct net_address bound;
	char *path; /* of a Unix socket, ours to remove; or NULL */
	dev_t dev;  /* of that path when it was ours */
	ino_t ino;
	int fd;
	bool paused;    /* by the owner */
	bool exhausted; /* descriptors ran out */
	bool *freed;    /* set to true by listener_free; stands on on_ready's stack */
};

/* --- counting --------------------------------------------------------------- */

static struct caller **
caller_find(struct counts *counts, const uint8_t *key, size_t key_len)
{
	uint64_t hash = UINT64_C(14695981039346656037) ^ counts->secret;
	struct caller **at;

	for (size_t i = 0; i < key_len; i++)
		hash = (hash ^ key[i]) * UINT64_C(1099511628211);
	at = &counts->buckets[(hash ^ hash >> 32) % BUCKETS];
	while (*at != NULL &&
	       ((*at)->key_len != key_len || memcmp((*at)->key, key, key_len) != 0))
		at = &(*at)->next;
	return at;
}

static struct caller *
caller_enter(struct counts *counts, const struct net_address *peer)
{
	uint8_t key[8] = { 0 };
	size_t key_len = net_address_key(peer, key);
	struct caller **at = caller_find(counts, key, key_len);

	if (*at == NULL) {
		*at = calloc(1, sizeof(**at));
		if (*at == NULL)
			return NULL;
		memcpy((*at)->key, key, sizeof(key));
		(*at)->key_len = key_len;
	}
	(*at)->seats++;
	return *at;
}

static void
caller_leave(struct counts *counts, struct caller *caller)
{
	struct caller **at;

	if (caller == NULL || --caller->seats > 0)
		return;
	at = caller_find(counts, caller->key, caller->key_len);
	*at = caller->next;
	free(caller);
}

static void
counts_release(struct counts *counts)
{
	if (--counts->references == 0)
		free(counts);
}

static struct listener_seat *
seat_new(struct counts *counts, struct caller *caller, bool refused)
{
	struct listener_seat *seat = calloc(1, sizeof(*seat));

	if (seat == NULL)
		return NULL;
	*seat =
	    (struct listener_seat){ .counts = counts, .caller = caller, .refused = refused };
	counts->references++;
	if (refused)
		counts->refused_now++;
	else
		counts->now++;
	return seat;
}

static void
update_watch(struct listener *l)
{
	(void)loop_fd_want(&l->watch, l->paused || l->exhausted ? 0 : LOOP_READ);
}

void
listener_leave(struct listener_seat **seat)
{
	struct listener_seat *s = *seat;
	struct counts *counts;

	*seat = NULL;
	if (s == NULL)
		return;
	counts = s->counts;
	caller_leave(counts, s->caller);
	if (s->refused)
		counts->refused_now--;
	else
		counts->now--;
	if (counts->listener != NULL && counts->listener->exhausted)
		loop_timer_set(&counts->listener->retry,
		               0); /* a descriptor will be free by then */
	free(s);
	counts_release(counts);
}

/* --- accepting -------------------------------------------------------------- */

static void
refuse(struct listener *l, int fd, const struct net_address *peer, enum listener_refusal why)
{
	struct counts *counts = l->counts;
	struct listener_seat *seat = NULL;

	counts->refused++;
	if (l->config.refused != NULL && counts->refused_now < MAX_REFUSED)
		seat = seat_new(counts, NULL, true);
	if (seat == NULL)
		(void)close(fd);
	else
		l->config.refused(l->config.arg, fd, peer, seat, why);
}

static void
admit(struct listener *l, int fd, const struct net_address *peer)
{
	struct counts *counts = l->counts;
	struct listener_seat *seat;
	struct caller *caller = NULL;

	if (counts->now >= l->config.max_total) {
		refuse(l, fd, peer, LISTENER_FULL);
		return;
	}
	if (l->config.max_per_address > 0) {
		caller = caller_enter(counts, peer);
		if (caller == NULL) {
			(void)close(fd);
			return;
		}
		if (caller->seats > l->config.max_per_address) {
			caller_leave(counts, caller);
			refuse(l, fd, peer, LISTENER_ADDRESS_FULL);
			return;
		}
	}
	seat = seat_new(counts, caller, false);
	if (seat == NULL) {
		caller_leave(counts, caller);
		(void)close(fd);
		return;
	}
	counts->accepted++;
	l->config.accepted(l->config.arg, fd, peer, seat);
}

static void
on_retry(struct loop_timer *timer)
{
	struct listener *l = timer->arg;

	l->exhausted = false;
	update_watch(l);
}

/* accept(2) failed for want of something that comes back: wait for it instead of spinning. */
static void
exhausted(struct listener *l, int error)
{
	log_warn("accept-paused", LOG_S("reason", strerror(error)),
	         LOG_I("connections", l->counts->now));
	l->exhausted = true;
	update_watch(l);
	loop_timer_set(&l->retry, PAUSE_MS);
}

static void
on_ready(struct loop_fd *watch, unsigned ready)
{
	struct listener *l = watch->arg;
	struct net_address peer;
	bool freed = false;
	int fd;

	(void)ready;
	l->freed = &freed;
	for (int i = 0; i < ACCEPTS_A_TURN && !l->paused; i++) {
		memset(&peer, 0, sizeof(peer));
		peer.len = sizeof(peer.ss);
		fd = accept4(l->fd, (struct sockaddr *)&peer.ss, &peer.len,
		             SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			admit(l, fd, &peer);
			if (freed)
				return;
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		           errno == ENOMEM) {
			exhausted(l, errno);
			break;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			break;
		} /* else: this one connection died in the queue */
	}
	l->freed = NULL;
}

/* --- its life --------------------------------------------------------------- */

static int
bind_to(const struct net_address *a, int backlog)
{
	int one = 1, zero = 0, error;
	int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (a->ss.ss_family != AF_UNIX)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->ss.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (const struct sockaddr *)&a->ss, a->len) == 0 && listen(fd, backlog) == 0)
		return fd;
	error = errno;
	(void)close(fd);
	errno = error;
	return -1;
}

/* --- Unix sockets -------------------------------------------------------------- */

static bool
unix_address(const char *path, struct net_address *out)
{
	struct sockaddr_un *un = (struct sockaddr_un *)(void *)&out->ss;
	size_t len = strlen(path);

	memset(out, 0, sizeof(*out));
	if (path[0] != '/' || len >= sizeof(un->sun_path))
		return false;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return true;
}

/* A socket that an earlier life left: nobody answers there. */
static bool
is_stale(const char *path, const struct net_address *a)
{
	struct stat st;
	bool refused;
	int fd;

	if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	refused =
	    connect(fd, (const struct sockaddr *)&a->ss, a->len) != 0 && errno == ECONNREFUSED;
	(void)close(fd);
	return refused;
}

/* Everybody who reaches its directory may connect: the directory decides. */
static int
open_unix(const char *path, int backlog, char *why)
{
	struct net_address a;
	int fd;

	if (!unix_address(path, &a)) {
		(void)snprintf(why, NET_TEXT, "\"unix:%.200s\" is no path for a socket", path);
		return -1;
	}
	fd = bind_to(&a, backlog);
	if (fd < 0 && errno == EADDRINUSE && is_stale(path, &a) && unlink(path) == 0)
		fd = bind_to(&a, backlog);
	if (fd >= 0 && chmod(path, 0666) == 0)
		return fd;
	(void)snprintf(why, NET_TEXT, "can't listen on unix:%.120s: %s", path, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

/* Remembers which file is ours: what another process puts in its place stays. */
static bool
keep_path(struct listener *l, const char *bind)
{
	struct stat st;

	if (strncmp(bind, "unix:", 5) != 0)
		return true;
	l->path = strdup(bind + 5);
	if (l->path == NULL || lstat(l->path, &st) != 0)
		return false;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return true;
}

static void
remove_path(struct listener *l)
{
	struct stat st;

	if (l->path != NULL && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
	    st.st_ino == l->ino)
		(void)unlink(l->path);
	free(l->path);
}

static int
open_socket(const struct listener_config *config, char *why)
{
	int backlog = config->backlog > 0 ? config->backlog : DEFAULT_BACKLOG;
	struct net_address a;
	int fd;

	if (strncmp(config->bind, "unix:", 5) == 0)
		return open_unix(config->bind + 5, backlog, why);
	if (!net_address_parse(config->bind, &a)) {
		(void)snprintf(why, NET_TEXT,
		               "\"%s\" is no address to listen on: write 192.0.2.1:port, "
		               "[2001:db8::1]:port or *:port",
		               config->bind);
		return -1;
	}
	fd = bind_to(&a, backlog);
	if (fd < 0 && errno == EAFNOSUPPORT &&
	    config->bind[0] == '*') { /* a machine without IPv6 */
		(void)net_address_make("0.0.0.0", net_address_port(&a), &a);
		fd = bind_to(&a, backlog);
	}
	if (fd < 0)
		(void)snprintf(why, NET_TEXT, "can't listen on %s: %s", config->bind,
		               strerror(errno));
	return fd;
}

static bool
listener_init(struct listener *l, struct loop *loop, const struct listener_config *config)
{
	l->loop = loop;
	l->config = *config;
	l->config.bind = NULL; /* was borrowed */
	if (l->config.max_total == 0)
		l->config.max_total = DEFAULT_TOTAL;
	loop_timer_init(&l->retry, loop, on_retry, l);
	l->counts = calloc(1, sizeof(*l->counts));
	if (l->counts == NULL)
		return false;
	l->counts->listener = l;
	l->counts->references = 1;
	if (getrandom(&l->counts->secret, sizeof(l->counts->secret), 0) < 0)
		return false;
	l->bound.len = sizeof(l->bound.ss);
	if (!keep_path(l, config->bind))
		return false;
	if (getsockname(l->fd, (struct sockaddr *)&l->bound.ss, &l->bound.len) != 0)
		return false;
	return loop_fd_init(&l->watch, loop, l->fd, on_ready, l) &&
	       loop_fd_want(&l->watch, LOOP_READ);
}

struct listener *
listener_new(struct loop *loop, const struct listener_config *config, char why[static NET_TEXT])
{
	struct listener *l = calloc(1, sizeof(*l));

	if (l == NULL) {
		(void)snprintf(why, NET_TEXT, "no memory");
		return NULL;
	}
	l->fd = open_socket(config, why);
	if (l->fd < 0) {
		free(l);
		return NULL;
	}
	if (!listener_init(l, loop, config)) {
		(void)snprintf(why, NET_TEXT, "can't watch %s: %s", config->bind,
		               strerror(errno));
		listener_free(&l);
	}
	return l;
}

void
listener_free(struct listener **listener)
{
	struct listener *l = *listener;

	*listener = NULL;
	if (l == NULL)
		return;
	if (l->freed != NULL)
		*l->freed = true;
	loop_timer_cancel(&l->retry);
	loop_fd_deinit(&l->watch);
	remove_path(l);
	(void)close(l->fd);
	if (l->counts != NULL) {
		l->counts->listener = NULL;
		counts_release(l->counts);
	}
	free(l);
}

void
listener_address(const struct listener *listener, struct net_address *out)
{
	*out = listener->bound;
}

void
listener_pause(struct listener *listener)
{
	listener->paused = true;
	update_watch(listener);
}

void
listener_resume(struct listener *listener)
{
	listener->paused = false;
	update_watch(listener);
}

struct listener_counts
listener_counts(const struct listener *listener)
{
	const struct counts *c = listener->counts;

	return (struct listener_counts){ .now = c->now,
		                         .accepted = c->accepted,
		                         .refused = c->refused,
		                         .paused = listener->paused || listener->exhausted };
}
