/*
 * A stand-in for the database's socket that passes octets on until a test
 * says otherwise: it holds the server's answers back, lets clients only greet,
 * and cuts connections. So a transaction can be committed whose answer never
 * arrives.
 */
#ifndef TMTP_TESTS_PROXY_H
#define TMTP_TESTS_PROXY_H

#include "cluster.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PROXY_PAIRS 16

static struct {
	char dir[64], conninfo[192];
	struct sockaddr_un server;
	pthread_t thread;
	pthread_mutex_t lock; /* guards the rest */
	int listener, wake[2];
	struct {
		int client, server; /* -1: free */
		bool greeted;
	} pair[PROXY_PAIRS];
	bool hold; /* answers stay where they are */
	bool stop;
	atomic_bool mute;  /* of a new client only the greeting is passed on */
	atomic_bool muted; /* a client waits to say more */
} proxy;

/* Octets from one side to the other; false at the end of either. */
static inline bool
proxy_pass(int from, int to)
{
	char data[65536];
	ssize_t n = read(from, data, sizeof(data)), at = 0;

	while (at < n) {
		ssize_t put = send(to, data + at, (size_t)(n - at), MSG_NOSIGNAL);

		if (put < 0)
			return false;
		at += put;
	}
	return n > 0;
}

static inline void
proxy_close(size_t i)
{
	if (proxy.pair[i].client < 0)
		return;
	(void)close(proxy.pair[i].client);
	(void)close(proxy.pair[i].server);
	proxy.pair[i].client = proxy.pair[i].server = -1;
}

static inline void
proxy_accept(void)
{
	int client = accept(proxy.listener, NULL, NULL);
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(server, (const struct sockaddr *)&proxy.server, sizeof(proxy.server)) == 0)
		for (size_t i = 0; i < PROXY_PAIRS; i++)
			if (proxy.pair[i].client < 0) {
				proxy.pair[i].client = client;
				proxy.pair[i].server = server;
				proxy.pair[i].greeted = false;
				return;
			}
	(void)close(client);
	(void)close(server);
}

static inline bool
proxy_listen_to(size_t i)
{
	if (proxy.mute && proxy.pair[i].greeted) {
		proxy.muted = true;
		return true;
	}
	proxy.pair[i].greeted = true;
	return proxy_pass(proxy.pair[i].client, proxy.pair[i].server);
}

static inline void *
proxy_run(void *arg)
{
	struct pollfd fds[2 + 2 * PROXY_PAIRS];
	char octet;

	(void)arg;
	pthread_mutex_lock(&proxy.lock);
	while (!proxy.stop) {
		fds[0] = (struct pollfd){ .fd = proxy.listener, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = proxy.wake[0], .events = POLLIN };
		for (size_t i = 0; i < PROXY_PAIRS; i++) {
			fds[2 + 2 * i] =
			    (struct pollfd){ .fd = proxy.pair[i].client, .events = POLLIN };
			fds[3 + 2 * i] =
			    (struct pollfd){ .fd = proxy.hold ? -1 : proxy.pair[i].server,
				             .events = POLLIN };
		}
		pthread_mutex_unlock(&proxy.lock);
		(void)poll(fds, 2 + 2 * PROXY_PAIRS, -1);
		pthread_mutex_lock(&proxy.lock);
		if (fds[1].revents != 0 && read(proxy.wake[0], &octet, 1) == 1)
			continue; /* something changed: look anew */
		for (size_t i = 0; i < PROXY_PAIRS; i++) {
			bool good = true;

			if (fds[2 + 2 * i].revents != 0)
				good = proxy_listen_to(i);
			if (good && !proxy.hold && fds[3 + 2 * i].revents != 0)
				good = proxy_pass(proxy.pair[i].server, proxy.pair[i].client);
			if (!good)
				proxy_close(i);
		}
		if (fds[0].revents != 0)
			proxy_accept();
	}
	pthread_mutex_unlock(&proxy.lock);
	return NULL;
}

static inline void
proxy_change(bool hold, bool cut, bool stop)
{
	pthread_mutex_lock(&proxy.lock);
	proxy.hold = hold;
	proxy.stop = stop;
	for (size_t i = 0; cut && i < PROXY_PAIRS; i++)
		proxy_close(i);
	if (write(proxy.wake[1], "", 1) != 1)
		cluster_die("proxy", "pipe");
	pthread_mutex_unlock(&proxy.lock);
}

/* From now on nothing that the server says arrives. */
static inline void
proxy_hold(void)
{
	proxy_change(true, false, false);
}

/* Every connection ends here and now; new ones are passed on. */
static inline void
proxy_cut(void)
{
	proxy_change(false, true, false);
}

static inline void
proxy_release(void)
{
	proxy_change(false, false, false);
}

static inline void
proxy_mute(bool on)
{
	proxy.mute = on;
}

/* Stands before the test cluster's socket. */
static inline void
proxy_start(void)
{
	struct sockaddr_un here = { .sun_family = AF_UNIX };

	(void)snprintf(proxy.dir, sizeof(proxy.dir), "/tmp/tmtpXXXXXX");
	if (mkdtemp(proxy.dir) == NULL)
		cluster_die("proxy", "no folder");
	proxy.server.sun_family = AF_UNIX;
	(void)snprintf(proxy.server.sun_path, sizeof(proxy.server.sun_path), "%s/.s.PGSQL.5432",
	               cluster.dir);
	(void)snprintf(here.sun_path, sizeof(here.sun_path), "%s/.s.PGSQL.5432", proxy.dir);
	for (size_t i = 0; i < PROXY_PAIRS; i++)
		proxy.pair[i].client = proxy.pair[i].server = -1;
	proxy.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)pthread_mutex_init(&proxy.lock, NULL);
	proxy.hold = proxy.stop = false;
	proxy.mute = proxy.muted = false;
	if (bind(proxy.listener, (const struct sockaddr *)&here, sizeof(here)) != 0 ||
	    listen(proxy.listener, 16) != 0 || pipe(proxy.wake) != 0 ||
	    pthread_create(&proxy.thread, NULL, proxy_run, NULL) != 0)
		cluster_die("proxy", "no socket");
}

static inline void
proxy_stop(void)
{
	char path[96];

	proxy_change(false, true, true);
	(void)pthread_join(proxy.thread, NULL);
	(void)close(proxy.listener);
	(void)close(proxy.wake[0]);
	(void)close(proxy.wake[1]);
	(void)snprintf(path, sizeof(path), "%s/.s.PGSQL.5432", proxy.dir);
	(void)unlink(path);
	(void)rmdir(proxy.dir);
}

/* As cluster_conninfo, through the proxy. */
static inline const char *
proxy_conninfo(const char *role)
{
	(void)snprintf(proxy.conninfo, sizeof(proxy.conninfo), "host=%s dbname=%s user=%s",
	               proxy.dir, cluster.name, role);
	return proxy.conninfo;
}

#endif
