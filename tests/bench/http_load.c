/*
 * Pushes over keep-alive connections, one unanswered on each, until so many are
 * answered or the time is over: the rate and the delays as one line of JSON.
 * Every answer must be 202.
 */
#include "base/clock.h"
#include "base/text.h"
#include "common/http.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define CONNECTIONS_MAX 1024
#define TIMES_MAX 10000000

struct options {
	const char *connect, *host, *ca, *token, *channel, *to, *lane;
	uint64_t connections, count, seconds, octets, keys;
};

struct push_conn {
	struct http_conn http;
	int64_t sent_us;
};

struct load {
	struct options o;
	struct http_target target;
	struct push_conn conns[CONNECTIONS_MAX];
	char **to;
	size_t to_n;
	char *filler; /* a message's text */
	struct buffer request, body;
	uint64_t sent, answered, refused;
	int32_t *delays_us;
	int64_t first_us, last_us, end_us;
	int64_t first_wall_us;
	int epoll;
};

/* --- requests ---------------------------------------------------------------------- */

static void
make_request(struct load *load)
{
	const struct options *o = &load->o;
	struct buffer *b = &load->body, *r = &load->request;

	buffer_clear(b);
	buffer_clear(r);
	buffer_add_fmt(b, "{\"to\":\"%s\",", load->to[load->sent % load->to_n]);
	if (o->lane != NULL)
		buffer_add_fmt(b, "\"lane\":\"%s\",", o->lane);
	buffer_add_fmt(b, "\"subject\":\"Order %lu is on its way\",\"message\":\"", load->sent);
	buffer_add_str(b, load->filler);
	buffer_add_str(b, "\"}");
	buffer_add_fmt(r, "POST /v1/channels/%s/messages HTTP/1.1\r\nHost: %s\r\n", o->channel,
	               o->host);
	buffer_add_fmt(r, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n",
	               o->token);
	if (o->keys > 0)
		buffer_add_fmt(r, "Idempotency-Key: %ld-%lu\r\n", load->first_us, load->sent);
	buffer_add_fmt(r, "Content-Length: %zu\r\n\r\n", b->len);
	buffer_add_slice(r, buffer_slice(b));
}

static void
send_next(struct load *load, struct push_conn *c)
{
	if (load->sent == load->o.count || clock_mono_us() >= load->end_us)
		return;
	make_request(load);
	c->sent_us = clock_mono_us();
	if (!http_send(&c->http, buffer_slice(&load->request)))
		http_die(load->o.connect, "the server closed a connection");
	load->sent++;
}

static void
take_answer(struct load *load, struct push_conn *c, const struct http_answer *answer)
{
	load->last_us = clock_mono_us();
	if (answer->status != 202 && load->refused++ == 0)
		(void)fprintf(stderr, "http_load: %d %.*s\n", answer->status,
		              (int)answer->body.len, (const char *)answer->body.data);
	if (load->answered < TIMES_MAX)
		load->delays_us[load->answered] = (int32_t)(load->last_us - c->sent_us);
	load->answered++;
}

static void
on_ready(struct load *load, struct push_conn *c)
{
	struct http_answer answer;

	if (!http_read(&c->http))
		http_die(load->o.connect, "the server closed a connection");
	if (!http_answer(&c->http, false, &answer))
		return;
	take_answer(load, c, &answer);
	http_next(&c->http, answer.octets);
	send_next(load, c);
}

/* --- the run ------------------------------------------------------------------------- */

static void
open_all(struct load *load)
{
	load->target = (struct http_target){ .address = load->o.connect,
		                             .host = load->o.host,
		                             .ca = load->o.ca };
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (uint64_t i = 0; i < load->o.connections; i++) {
		struct epoll_event e = { .events = EPOLLIN };

		http_open(&load->target, &load->conns[i].http);
		e.data.ptr = &load->conns[i];
		if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, load->conns[i].http.fd, &e) != 0)
			http_die("epoll", "no memory");
	}
}

static void
run(struct load *load)
{
	static struct epoll_event events[CONNECTIONS_MAX];

	load->first_us = load->last_us = clock_mono_us();
	load->first_wall_us = clock_wall_us();
	load->end_us = load->first_us + (int64_t)load->o.seconds * 1000000;
	for (uint64_t i = 0; i < load->o.connections; i++)
		send_next(load, &load->conns[i]);
	while (load->answered < load->sent) {
		int n = epoll_wait(load->epoll, events, CONNECTIONS_MAX, 10000);

		if (n == 0)
			http_die(load->o.connect, "no answer for 10 seconds");
		for (int i = 0; i < n; i++)
			on_ready(load, events[i].data.ptr);
	}
}

static int
by_size(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return x < y ? -1 : x > y;
}

static int64_t
cpu_us(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * INT64_C(1000000) + u.ru_utime.tv_usec +
	       u.ru_stime.tv_usec;
}

static void
print_result(struct load *load)
{
	size_t n = load->answered < TIMES_MAX ? load->answered : TIMES_MAX;
	double seconds = (double)(load->last_us - load->first_us) / 1e6;

	qsort(load->delays_us, n, sizeof(*load->delays_us), by_size);
	(void)printf(
	    "{\"answered\": %lu, \"refused\": %lu, \"seconds\": %.3f, \"per_second\": %.0f, "
	    "\"p50_us\": %d, \"p99_us\": %d, \"first_us\": %ld, \"last_us\": %ld, "
	    "\"first_wall_us\": %ld, \"cpu_us\": %ld}\n",
	    load->answered, load->refused, seconds,
	    seconds > 0 ? (double)load->answered / seconds : 0,
	    n == 0 ? 0 : load->delays_us[n / 2], n == 0 ? 0 : load->delays_us[n * 99 / 100],
	    load->first_us, load->last_us, load->first_wall_us, cpu_us());
}

/* --- options -------------------------------------------------------------------------- */

static const char usage[] =
    "http_load --connect ADDRESS --host NAME --token FILE --channel NAME --to FILE [options]\n"
    "  --ca FILE        HTTPS, checked against this CA; else plain HTTP\n"
    "  --to FILE        what the pushes' \"to\" is, a line each, over and over\n"
    "  --lane NAME      urgent, normal or bulk\n"
    "  --octets N       of the message's text (840: a canonical message of about 1 KiB)\n"
    "  --connections N  (64)\n"
    "  --count N        pushes (as many as there is time for)\n"
    "  --seconds N      time (5; with --count 300)\n"
    "  --keys 1         an Idempotency-Key with each\n";

static uint64_t
number(const char *name, const char *text)
{
	uint64_t n = 0;

	if (!text_parse_u64(slice_str(text), UINT32_MAX, &n))
		http_die(name, "takes a number");
	return n;
}

enum { TEXTS = 7 };

static void
parse_options(struct options *o, int argc, char **argv)
{
	const char **const texts[TEXTS] = { &o->connect, &o->host, &o->ca,  &o->token,
		                            &o->channel, &o->to,   &o->lane };
	uint64_t *const numbers[] = { &o->connections, &o->count, &o->seconds, &o->octets,
		                      &o->keys };
	static const struct option longs[] = {
		{ "connect", 1, NULL, 0 }, { "host", 1, NULL, 0 },
		{ "ca", 1, NULL, 0 },      { "token", 1, NULL, 0 },
		{ "channel", 1, NULL, 0 }, { "to", 1, NULL, 0 },
		{ "lane", 1, NULL, 0 },    { "connections", 1, NULL, 0 },
		{ "count", 1, NULL, 0 },   { "seconds", 1, NULL, 0 },
		{ "octets", 1, NULL, 0 },  { "keys", 1, NULL, 0 },
		{ "help", 0, NULL, 'h' },  { NULL, 0, NULL, 0 }
	};
	int at, c;

	*o = (struct options){ .connections = 64, .count = UINT32_MAX, .octets = 840 };
	while ((c = getopt_long(argc, argv, "", longs, &at)) >= 0) {
		if (c == 0 && at < TEXTS)
			*texts[at] = optarg;
		else if (c == 0)
			*numbers[at - TEXTS] = number(longs[at].name, optarg);
		else
			(void)fputs(usage, stderr), exit(c == 'h' ? 0 : 2);
	}
	if (o->seconds == 0)
		o->seconds = o->count == UINT32_MAX ? 5 : 300;
	if (optind < argc || o->connect == NULL || o->host == NULL || o->token == NULL ||
	    o->channel == NULL || o->to == NULL || o->connections == 0 ||
	    o->connections > CONNECTIONS_MAX)
		(void)fputs(usage, stderr), exit(2);
}

static void
read_files(struct load *load, char **token, char **to)
{
	char *rest, *line;

	rest = *token = http_file(load->o.token);
	load->o.token = http_line(&rest);
	rest = *to = http_file(load->o.to);
	while ((line = http_line(&rest)) != NULL) {
		if ((load->to_n & (load->to_n - 1)) == 0)
			load->to = realloc(load->to, (load->to_n + 1) * 2 * sizeof(*load->to));
		if (load->to == NULL)
			http_die("--to", "out of memory");
		load->to[load->to_n++] = line;
	}
	if (load->to_n == 0 || load->o.token == NULL)
		http_die("--to, --token", "an empty file");
}

int
main(int argc, char **argv)
{
	static struct load load;
	char *token, *to;

	parse_options(&load.o, argc, argv);
	read_files(&load, &token, &to);
	load.filler = calloc(load.o.octets + 1, 1);
	load.delays_us = malloc(TIMES_MAX * sizeof(*load.delays_us));
	if (load.filler == NULL || load.delays_us == NULL)
		http_die("http_load", "out of memory");
	for (uint64_t i = 0; i < load.o.octets; i++)
		load.filler[i] = "It arrives tomorrow before noon. "[i % 33];
	buffer_init(&load.request, (size_t)64 << 20);
	buffer_init(&load.body, (size_t)64 << 20);
	open_all(&load);
	run(&load);
	print_result(&load);
	for (uint64_t i = 0; i < load.o.connections; i++)
		http_close(&load.conns[i].http);
	http_target_free(&load.target);
	buffer_free(&load.request);
	buffer_free(&load.body);
	free(load.filler);
	free(load.delays_us);
	free(load.to);
	free(token);
	free(to);
	return load.refused == 0 &&
	               (load.o.count == UINT32_MAX || load.answered == load.o.count)
	           ? 0
	           : 1;
}
