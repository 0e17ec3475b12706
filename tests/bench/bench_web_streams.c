/*
 * What an open, idle event stream costs, and how fast one frame reaches all of
 * them: a server with a small connection memory, and its clients in a child
 * process, so that their memory isn't counted.
 *
 *	bench_web_streams [streams [broadcasts]]
 */
#include "base/clock.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"
#include "web/stream.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STREAMS_MAX 19000

static struct web_stream *streams[STREAMS_MAX];
static _Atomic size_t opened;

static void
on_events(struct web_request *req, void *arg)
{
	struct web_stream_options o = { .heartbeat_ms = 600000 };

	(void)arg;
	streams[atomic_load(&opened)] = web_stream_open(req, &o);
	atomic_fetch_add(&opened, 1);
}

static long
resident_octets(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long total, resident = 0;

	if (f == NULL || fscanf(f, "%ld %ld", &total, &resident) != 2)
		resident = 0;
	if (f != NULL)
		(void)fclose(f);
	return resident * sysconf(_SC_PAGESIZE);
}

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

/*
 * The client's process: opens all, then tells through the pipe each time that a frame has
 * reached everybody.
 */
static void
client_open(uint16_t port, size_t n, int ep)
{
	static const char request[] = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (size_t i = 0; i < n; i++) {
		struct epoll_event e = { .events = EPOLLIN };
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		char head[2048] = "";

		if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0 ||
		    send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
			die("connect");
		for (size_t len = 0; strstr(head, ":\n\n") == NULL;) {
			ssize_t got = recv(fd, head + len, sizeof(head) - 1 - len, 0);

			if (got <= 0)
				die("recv");
			len += (size_t)got;
			head[len] = '\0';
		}
		e.data.fd = fd;
		(void)epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	}
}

static void
client_run(uint16_t port, size_t n, int out)
{
	struct epoll_event events[512];
	int ep = epoll_create1(0);
	size_t got = 0;
	char in[4096];

	client_open(port, n, ep);
	if (write(out, "o", 1) != 1)
		die("write");
	for (;;) {
		int ready = epoll_wait(ep, events, 512, -1);

		for (int i = 0; i < ready; i++) {
			if (recv(events[i].data.fd, in, sizeof(in), 0) <= 0)
				exit(0);
			if (++got % n == 0 && write(out, "a", 1) != 1)
				die("write");
		}
	}
}

static void
wait_for(int in)
{
	char c;

	if (read(in, &c, 1) != 1)
		die("the client");
}

static int
by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Median microseconds from the first send until the last client has the frame. */
static int64_t
broadcast(size_t n, int rounds, int in)
{
	static int64_t took[1000];
	struct web_frame *f =
	    web_frame_make("1", "entry", SLICE("{\"id\":1,\"title\":\"Hello\"}"));

	for (int r = 0; r < rounds; r++) {
		int64_t start_us = clock_mono_us();

		for (size_t i = 0; i < n; i++)
			(void)web_stream_send(streams[i], f);
		wait_for(in);
		took[r] = clock_mono_us() - start_us;
	}
	web_frame_unref(&f);
	qsort(took, (size_t)rounds, sizeof(took[0]), by_value);
	return took[rounds / 2];
}

int
main(int argc, char **argv)
{
	static const struct web_route routes[] = { { WEB_GET, "/events", on_events, 0, 0 } };
	struct web_options o = { .listen = "127.0.0.1:0",
		                 .threads = 1, /* on_events counts without a lock */
		                 .connections = STREAMS_MAX,
		                 .connection_bytes = 4096,
		                 .routes = routes,
		                 .n_routes = 1 };
	size_t n = argc > 1 ? (size_t)atol(argv[1]) : 10000;
	int rounds = argc > 2 ? atoi(argv[2]) : 50, pipes[2];
	struct rlimit limit = { STREAMS_MAX + 100, STREAMS_MAX + 100 };
	char error[WEB_ERROR_TEXT];
	struct web_server *server;
	long before, after;
	int64_t took_us;
	pid_t child;

	if (n < 1 || n > STREAMS_MAX || rounds < 1 || rounds > 1000 || pipe(pipes) != 0)
		return 1;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("descriptors");
	if (web_server_start(&o, &server, error) != WEB_OK) {
		(void)fprintf(stderr, "%s\n", error);
		return 1;
	}
	before = resident_octets();
	child = fork();
	if (child == 0)
		client_run(web_server_port(server), n, pipes[1]);
	wait_for(pipes[0]);
	after = resident_octets();
	took_us = broadcast(n, rounds, pipes[0]);
	(void)printf(
	    "{\"bench\": \"web_stream_idle\", \"value\": %.0f, \"unit\": \"octets/stream\", "
	    "\"detail\": {\"streams\": %zu, \"broadcast_median_us\": %lld}}\n",
	    (double)(after - before) / (double)n, n, (long long)took_us);
	web_server_stop(&server, 1000);
	for (size_t i = 0; i < n; i++)
		web_stream_unref(&streams[i]);
	(void)waitpid(child, NULL, 0);
	return 0;
}
