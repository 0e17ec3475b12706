/*
 * Open inboxes, and pushes that they are told of live: how long it takes from
 * sending a push until the last of those who shall see it has seen it. One
 * push at a time, round after round.
 */
#include "base/clock.h"
#include "base/text.h"
#include "common/http.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define EVENTS_MAX 1024
#define PATIENCE_US 10000000
#define ROUNDS_MAX 100000

struct options {
	const char *connect, *host, *tokens; /* the members' side */
	const char *push, *push_host, *token, *channel, *to, *lane;
	const char *ca;
	uint64_t rounds, pause_ms, expect;
	bool plain; /* the streams, not the pushes */
};

struct round {
	int64_t sent_us, answered_us, first_us, last_us;
};

struct inbox {
	struct http_conn http;
	uint64_t seen; /* the last round */
};

struct watch {
	struct options o;
	struct http_target members, site;
	struct inbox *inboxes;
	size_t n;
	struct http_conn pusher;
	char **to;
	size_t to_n;
	struct round *rounds;
	uint64_t now; /* the round, from 1 */
	uint64_t seen;
	int epoll;
};

/* --- streams ----------------------------------------------------------------------- */

static void
open_inbox(struct watch *w, struct inbox *inbox, const char *token)
{
	struct epoll_event e = { .events = EPOLLIN };
	struct buffer request;

	buffer_init(&request, 4096);
	http_open(&w->members, &inbox->http);
	buffer_add_fmt(&request,
	               "GET /v1/inbox/events HTTP/1.1\r\nHost: %s\r\n"
	               "Authorization: Bearer %s\r\nAccept: text/event-stream\r\n\r\n",
	               w->o.host, token);
	if (!http_send(&inbox->http, buffer_slice(&request)))
		http_die(w->o.connect, "the server closed a stream");
	e.data.ptr = inbox;
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, inbox->http.fd, &e) != 0)
		http_die("epoll", "no memory");
	buffer_free(&request);
}

/* A stream's head: 200, and what follows stays. */
static bool
take_head(struct watch *w, struct inbox *inbox)
{
	struct http_answer answer;

	if (!http_answer(&inbox->http, true, &answer))
		return false;
	if (answer.status != 200) {
		(void)fprintf(stderr, "stream_watch: %.*s\n", (int)inbox->http.in.len,
		              (const char *)inbox->http.in.data);
		http_die(w->o.connect, "no stream");
	}
	http_next(&inbox->http, answer.octets);
	return true;
}

static void
open_inboxes(struct watch *w, char *tokens)
{
	struct epoll_event events[EVENTS_MAX];
	char *line, *rest = tokens;
	size_t open = 0;

	for (const char *c = tokens; *c != '\0'; c++)
		w->n += *c == '\n';
	w->inboxes = calloc(w->n + 1, sizeof(*w->inboxes));
	if (w->inboxes == NULL)
		http_die("streams", "out of memory");
	for (size_t i = 0; i < w->n && (line = http_line(&rest)) != NULL; i++)
		open_inbox(w, &w->inboxes[i], line);
	while (open < w->n) {
		int n = epoll_wait(w->epoll, events, EVENTS_MAX, 10000);

		if (n == 0)
			http_die(w->o.connect, "a stream doesn't begin");
		for (int i = 0; i < n; i++) {
			struct inbox *inbox = events[i].data.ptr;

			if (!http_read(&inbox->http))
				http_die(w->o.connect, "the server closed a stream");
			open += take_head(w, inbox);
		}
	}
}

/* --- rounds ------------------------------------------------------------------------- */

static void
push(struct watch *w)
{
	struct buffer body, request;

	buffer_init(&body, 4096);
	buffer_init(&request, 16384);
	buffer_add_fmt(&body, "{\"to\":\"%s\",", w->to[w->now % w->to_n]);
	if (w->o.lane != NULL)
		buffer_add_fmt(&body, "\"lane\":\"%s\",", w->o.lane);
	buffer_add_fmt(&body,
	               "\"subject\":\"Notice %lu ends\",\"message\":\"It is on its way.\"}",
	               w->now);
	buffer_add_fmt(&request,
	               "POST /v1/channels/%s/messages HTTP/1.1\r\nHost: %s\r\n"
	               "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
	               "Content-Length: %zu\r\n\r\n",
	               w->o.channel, w->o.push_host, w->o.token, body.len);
	buffer_add_slice(&request, buffer_slice(&body));
	if (!http_send(&w->pusher, buffer_slice(&request)))
		http_die(w->o.push, "the server closed the connection");
	buffer_free(&body);
	buffer_free(&request);
}

static void
take_answer(struct watch *w)
{
	struct http_answer answer;

	if (!http_read(&w->pusher))
		http_die(w->o.push, "the server closed the connection");
	if (!http_answer(&w->pusher, false, &answer))
		return;
	if (answer.status != 202) {
		(void)fprintf(stderr, "stream_watch: %.*s\n", (int)answer.body.len,
		              (const char *)answer.body.data);
		http_die(w->o.push, "a push was refused");
	}
	w->rounds[w->now - 1].answered_us = clock_wall_us();
	http_next(&w->pusher, answer.octets);
}

static void
take_event(struct watch *w, struct inbox *inbox)
{
	struct round *round = &w->rounds[w->now == 0 ? 0 : w->now - 1];
	char subject[64];
	int n = snprintf(subject, sizeof(subject), "Notice %lu ends", w->now);

	if (!http_read(&inbox->http))
		http_die(w->o.connect, "the server closed a stream");
	if (w->now == 0 || inbox->seen == w->now || inbox->http.in.len == 0 ||
	    memmem(inbox->http.in.data, inbox->http.in.len, subject, (size_t)n) == NULL)
		return;
	round->last_us = clock_wall_us();
	if (w->seen++ == 0)
		round->first_us = round->last_us;
	inbox->seen = w->now;
	buffer_clear(&inbox->http.in);
}

/* Takes what comes for so long, or until the round is over. */
static bool
take(struct watch *w, int64_t for_us, bool round)
{
	struct epoll_event events[EVENTS_MAX];
	int64_t end = clock_mono_us() + for_us, left;

	while ((left = end - clock_mono_us()) > 0) {
		int n = epoll_wait(w->epoll, events, EVENTS_MAX, (int)(left / 1000) + 1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &w->pusher)
				take_answer(w);
			else
				take_event(w, events[i].data.ptr);
		}
		if (round && w->seen >= w->o.expect && w->rounds[w->now - 1].answered_us != 0)
			return true;
	}
	return !round;
}

static void
run(struct watch *w)
{
	struct epoll_event e = { .events = EPOLLIN };

	http_open(&w->site, &w->pusher);
	e.data.ptr = &w->pusher;
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->pusher.fd, &e) != 0)
		http_die("epoll", "no memory");
	for (uint64_t i = 0; i < w->o.rounds; i++) {
		(void)take(w, (int64_t)w->o.pause_ms * 1000, false);
		w->now = i + 1;
		w->seen = 0;
		w->rounds[i].sent_us = clock_wall_us();
		push(w);
		if (!take(w, PATIENCE_US, true)) {
			(void)fprintf(stderr, "stream_watch: round %lu: %lu of %lu saw it\n",
			              i + 1, w->seen, w->o.expect);
			exit(1);
		}
	}
}

/* --- the result ------------------------------------------------------------------------- */

static void
print_result(const struct watch *w)
{
	(void)printf("{\"streams\": %zu, \"rounds\": [", w->n);
	for (uint64_t i = 0; i < w->o.rounds; i++) {
		const struct round *r = &w->rounds[i];

		(void)printf("%s[%ld, %ld, %ld, %ld]", i == 0 ? "" : ", ", r->sent_us,
		             r->answered_us, r->first_us, r->last_us);
	}
	(void)printf("]}\n");
}

/* --- options ---------------------------------------------------------------------------- */

static const char usage[] =
    "stream_watch --connect ADDRESS --host NAME --tokens FILE\n"
    "             --push ADDRESS --push-host NAME --token FILE --channel NAME --to FILE "
    "[options]\n"
    "  --tokens FILE   log-ins of members, a line each: one stream for each\n"
    "  --to FILE       what the pushes' \"to\" is, a line each, over and over\n"
    "  --expect N      how many streams a push reaches (1)\n"
    "  --ca FILE       HTTPS for both, checked against this CA; else plain HTTP\n"
    "  --plain         the streams without TLS all the same, as behind a proxy\n"
    "  --lane NAME     urgent, normal or bulk\n"
    "  --rounds N      (1)\n"
    "  --pause-ms N    quiet before each round (20)\n"
    "Prints for each round, in microseconds since 1970: the push sent, answered, the first "
    "and\n"
    "the last stream that was told.\n";

static uint64_t
number(const char *name, const char *text)
{
	uint64_t n = 0;

	if (!text_parse_u64(slice_str(text), ROUNDS_MAX, &n))
		http_die(name, "takes a number");
	return n;
}

enum { TEXTS = 10 };

static void
parse_options(struct options *o, int argc, char **argv)
{
	const char **const texts[TEXTS] = { &o->connect,   &o->host,  &o->tokens,  &o->push,
		                            &o->push_host, &o->token, &o->channel, &o->to,
		                            &o->lane,      &o->ca };
	uint64_t *const numbers[] = { &o->rounds, &o->pause_ms, &o->expect };
	static const struct option longs[] = {
		{ "connect", 1, NULL, 0 },   { "host", 1, NULL, 0 },
		{ "tokens", 1, NULL, 0 },    { "push", 1, NULL, 0 },
		{ "push-host", 1, NULL, 0 }, { "token", 1, NULL, 0 },
		{ "channel", 1, NULL, 0 },   { "to", 1, NULL, 0 },
		{ "lane", 1, NULL, 0 },      { "ca", 1, NULL, 0 },
		{ "rounds", 1, NULL, 0 },    { "pause-ms", 1, NULL, 0 },
		{ "expect", 1, NULL, 0 },    { "plain", 0, NULL, 'p' },
		{ "help", 0, NULL, 'h' },    { NULL, 0, NULL, 0 }
	};
	int at, c;

	*o = (struct options){ .rounds = 1, .pause_ms = 20, .expect = 1 };
	while ((c = getopt_long(argc, argv, "", longs, &at)) >= 0) {
		if (c == 0 && at < TEXTS)
			*texts[at] = optarg;
		else if (c == 0)
			*numbers[at - TEXTS] = number(longs[at].name, optarg);
		else if (c == 'p')
			o->plain = true;
		else
			(void)fputs(usage, stderr), exit(c == 'h' ? 0 : 2);
	}
	for (int i = 0; i < 8; i++)
		if (*texts[i] == NULL)
			(void)fputs(usage, stderr), exit(2);
	if (optind < argc || o->rounds == 0)
		(void)fputs(usage, stderr), exit(2);
}

static void
read_to(struct watch *w, char *rest)
{
	char *line;

	while ((line = http_line(&rest)) != NULL) {
		w->to = realloc(w->to, (w->to_n + 1) * sizeof(*w->to));
		if (w->to == NULL)
			http_die("--to", "out of memory");
		w->to[w->to_n++] = line;
	}
	if (w->to_n == 0)
		http_die(w->o.to, "an empty file");
}

int
main(int argc, char **argv)
{
	static struct watch w;
	struct rlimit files;
	char *tokens, *token, *to, *rest;

	parse_options(&w.o, argc, argv);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	tokens = http_file(w.o.tokens);
	rest = token = http_file(w.o.token);
	w.o.token = http_line(&rest);
	to = http_file(w.o.to);
	read_to(&w, to);
	w.rounds = calloc(w.o.rounds, sizeof(*w.rounds));
	w.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w.rounds == NULL || w.epoll < 0 || w.o.token == NULL)
		http_die("stream_watch", "can't begin");
	w.members =
	    (struct http_target){ w.o.connect, w.o.host, w.o.plain ? NULL : w.o.ca, NULL };
	w.site = (struct http_target){ w.o.push, w.o.push_host, w.o.ca, NULL };
	open_inboxes(&w, tokens);
	run(&w);
	print_result(&w);
	for (size_t i = 0; i < w.n; i++)
		http_close(&w.inboxes[i].http);
	http_close(&w.pusher);
	http_target_free(&w.members);
	http_target_free(&w.site);
	free(w.inboxes);
	free(w.rounds);
	free(w.to);
	free(tokens);
	free(token);
	free(to);
	return 0;
}
