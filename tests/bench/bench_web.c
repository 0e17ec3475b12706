/*
 * How many empty requests a second the HTTP room carries when every one is
 * suspended and answered from another thread, as a push is by the store: a
 * server, a replier and an epoll client with keep-alive connections, in one process.
 *
 *	bench_web [connections [seconds [server threads]]]
 */
#include "base/clock.h"
#include "base/mailbox.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024

static const char request[] =
    "POST /v1/channels/orders/messages HTTP/1.1\r\nHost: localhost\r\n"
    "Authorization: Bearer 0123456789\r\nContent-Type: application/json\r\n"
    "Content-Length: 2\r\n\r\n{}";

struct job {
	struct mail mail;
	struct web_request *req;
};

static struct mailbox jobs;
static _Atomic bool done;

static void
on_push(struct web_request *req, void *arg)
{
	struct job *job = web_request_alloc(req, sizeof(*job));

	(void)arg;
	if (job == NULL) {
		web_reply_problem(req, &web_unavailable, NULL);
		return;
	}
	job->req = req;
	mailbox_post(&jobs, &job->mail);
}

static void *
replier_run(void *arg)
{
	struct pollfd p = { .fd = jobs.fd, .events = POLLIN };

	(void)arg;
	while (!atomic_load(&done)) {
		if (poll(&p, 1, 100) <= 0)
			continue;
		for (struct mail *m = mailbox_take(&jobs), *next; m != NULL; m = next) {
			next = m->next; /* the reply takes the job's memory with it */
			web_reply_empty(((struct job *)(void *)m)->req, 202);
		}
	}
	return NULL;
}

static int
client_connect(uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0) {
		perror("connect");
		exit(1);
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void
client_send(int fd)
{
	if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(request) - 1) {
		perror("send");
		exit(1);
	}
}

/* An answer without a body ends with its headers; it comes in one piece on loopback. */
static bool
client_receive(int fd)
{
	char in[2048];
	ssize_t n = recv(fd, in, sizeof(in) - 1, 0);

	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			return false;
		(void)fprintf(stderr, "the server closed a connection\n");
		exit(1);
	}
	in[n] = '\0';
	if (strncmp(in, "HTTP/1.1 202 ", 13) != 0 || strstr(in, "\r\n\r\n") == NULL) {
		(void)fprintf(stderr, "unexpected answer: %s\n", in);
		exit(1);
	}
	return true;
}

static double
client_run(uint16_t port, int connections, double seconds)
{
	struct epoll_event events[CONNECTIONS_MAX];
	int fds[CONNECTIONS_MAX], ep = epoll_create1(EPOLL_CLOEXEC);
	int64_t start_us, end_us;
	long answers = 0;

	for (int i = 0; i < connections; i++) {
		struct epoll_event e = { .events = EPOLLIN };

		e.data.fd = fds[i] = client_connect(port);
		(void)epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &e);
	}
	start_us = clock_mono_us();
	end_us = start_us + (int64_t)(seconds * 1e6);
	for (int i = 0; i < connections; i++)
		client_send(fds[i]);
	while (clock_mono_us() < end_us) {
		int n = epoll_wait(ep, events, connections, 1000);

		for (int i = 0; i < n; i++) {
			if (client_receive(events[i].data.fd)) {
				answers++;
				client_send(events[i].data.fd);
			}
		}
	}
	seconds = (double)(clock_mono_us() - start_us) / 1e6;
	for (int i = 0; i < connections; i++)
		(void)close(fds[i]);
	(void)close(ep);
	return (double)answers / seconds;
}

int
main(int argc, char **argv)
{
	static const struct web_route routes[] = {
		{ WEB_POST, "/v1/channels/:channel/messages", on_push, 65536, 0 },
	};
	struct web_options o = { .listen = "127.0.0.1:0", .routes = routes, .n_routes = 1 };
	int connections = argc > 1 ? atoi(argv[1]) : 64;
	double seconds = argc > 2 ? atof(argv[2]) : 5, rate;
	char error[WEB_ERROR_TEXT];
	struct web_server *server;
	pthread_t replier;

	o.threads = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	if (connections < 1 || connections > CONNECTIONS_MAX || !mailbox_init(&jobs) ||
	    web_server_start(&o, &server, error) != WEB_OK ||
	    pthread_create(&replier, NULL, replier_run, NULL) != 0) {
		(void)fprintf(stderr, "bench_web: can't start\n");
		return 1;
	}
	rate = client_run(web_server_port(server), connections, seconds);
	web_server_stop(&server, 2000);
	atomic_store(&done, true);
	(void)pthread_join(replier, NULL);
	mailbox_deinit(&jobs);
	(void)printf("{\"bench\": \"web_empty\", \"value\": %.0f, \"unit\": \"requests/s\", "
	             "\"detail\": {\"connections\": %d, \"seconds\": %.1f, \"threads\": %u}}\n",
	             rate, connections, seconds, o.threads);
	return 0;
}
