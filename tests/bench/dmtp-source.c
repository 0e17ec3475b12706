/*
 * Load for a DMTP server: POSTs over some sessions at once, as many unanswered
 * as asked for, and what became of them as one line of JSON. It doesn't resend.
 */
#include "base/clock.h"
#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/client.h"
#include "net/conn.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define CONNECTIONS_MAX 1024
#define COMMAND_MAX ((size_t)16 << 20)

struct options {
	const char *connect, *domain, *from, *certificate, *key, *ca, *grants, *uri, *prefix;
	uint64_t connections, window, rcpts, count, seconds;
	bool plain;
};

struct source {
	struct options o;
	struct loop *loop;
	struct tls_client *tls;
	struct loop_timer limit; /* the end of patience */
	uint8_t *grants;
	size_t grants_n, grants_at;
	int64_t *sent_us; /* by the number of the POST; its answer's delay once it is there */
	uint64_t made, answered, lost, k, e, z, failed;
	size_t open;
	int64_t first_us, last_us;
	const char *why; /* the last session that ended early */
};

struct session {
	struct source *source;
	struct conn *conn;
	struct dmtp_client *client;
	struct loop_timer timer;
	struct loop_defer work;
};

static void
die(const char *what, const char *why)
{
	(void)fprintf(stderr, "dmtp-source: %s: %s\n", what, why);
	exit(1);
}

static int64_t
now_ms(const struct session *s)
{
	return loop_mono_ms(s->source->loop);
}

/* --- Commands -------------------------------------------------------------------------- */

static void
put_rcpts(struct source *source, struct dmtp_post_writer *w)
{
	for (uint64_t i = 0; i < source->o.rcpts; i++) {
		dmtp_post_put_grant(w, source->grants + source->grants_at * DMTP_GRANT_LEN);
		source->grants_at = (source->grants_at + 1) % source->grants_n;
	}
}

static void
encode(struct source *source, struct buffer *out)
{
	struct buffer uris;
	struct dmtp_post_writer w;
	uint8_t digest[DMTP_DIGEST_LEN];
	char id[DMTP_ID_MAX + 1];
	struct dmtp_post post = { .from = slice_str(source->o.from), .size = 1024 };

	(void)snprintf(id, sizeof(id), "%s%lu", source->o.prefix, source->made);
	randombytes_buf(digest, sizeof(digest));
	buffer_init(&uris, 4096);
	ben_put_text(&uris, source->o.uri);
	post.id = slice_str(id);
	post.date = clock_wall_s();
	post.digest = slice_mem(digest, sizeof(digest));
	post.uris = buffer_slice(&uris);
	dmtp_post_begin(&w, out, &post);
	put_rcpts(source, &w);
	dmtp_post_end(&w);
	buffer_free(&uris);
}

static void
send_more(struct session *s)
{
	struct source *source = s->source;
	struct buffer command;

	buffer_init(&command, COMMAND_MAX);
	while (dmtp_client_greeting(s->client) != NULL && source->made < source->o.count &&
	       dmtp_client_room(s->client) > 0) {
		int64_t *sent = &source->sent_us[source->made];

		buffer_clear(&command);
		encode(source, &command);
		*sent = clock_mono_us();
		if (dmtp_client_send(s->client, now_ms(s), DMTP_POST, buffer_slice(&command),
		                     sent) != DMTP_CLIENT_OK)
			break;
		source->made++;
	}
	buffer_free(&command);
}

static void
on_reply(struct source *source, const struct dmtp_client_event *event)
{
	int64_t now = clock_mono_us();
	int64_t *sent = event->tag;

	source->answered++;
	source->failed += event->response.failed_count;
	if (event->response.letter == DMTP_K)
		source->k++;
	else if (event->response.letter == DMTP_E)
		source->e++;
	else
		source->z++;
	*sent = now - *sent;
	source->last_us = now;
	if (source->answered + source->lost == source->o.count)
		loop_stop(source->loop);
}

/* --- Sessions ---------------------------------------------------------------------------- */

static void
end(struct session *s, const char *why)
{
	struct dmtp_client_lost lost;

	if (s->conn == NULL)
		return;
	s->source->why = why;
	while (s->client != NULL && dmtp_client_take_lost(s->client, &lost))
		s->source->lost++;
	loop_timer_cancel(&s->timer);
	loop_defer_cancel(&s->work);
	conn_close(&s->conn);
	if (--s->source->open == 0 ||
	    s->source->answered + s->source->lost == s->source->o.count)
		loop_stop(s->source->loop);
}

static void
handle(struct session *s, const struct dmtp_client_event *event)
{
	switch (event->kind) {
	case DMTP_CLIENT_REPLY:
		on_reply(s->source, event);
		break;
	case DMTP_CLIENT_CLOSED:
		end(s, dmtp_close_name(event->reason));
		break;
	default:
		break;
	}
}

static bool
flush(struct session *s)
{
	struct slice out = dmtp_client_output(s->client);
	size_t room = conn_write_room(s->conn);
	size_t n = out.len < room ? out.len : room;

	if (n == 0 || conn_write(s->conn, slice_mem(out.data, n)) != CONN_OK)
		return false;
	dmtp_client_sent(s->client, now_ms(s), n);
	return true;
}

static void
on_work(struct loop_defer *defer)
{
	struct session *s = defer->arg;
	struct dmtp_client_event event;
	int64_t deadline;

	if (s->client == NULL)
		return;
	do {
		while (s->conn != NULL && dmtp_client_next(s->client, &event))
			handle(s, &event);
		if (s->conn == NULL)
			return;
		send_more(s);
	} while (flush(s));
	deadline = dmtp_client_deadline(s->client);
	if (deadline < 0)
		loop_timer_cancel(&s->timer);
	else
		loop_timer_set(&s->timer, deadline > now_ms(s) ? deadline - now_ms(s) : 0);
}

static void
work_soon(struct session *s)
{
	loop_defer(s->source->loop, &s->work);
}

static void
on_timer(struct loop_timer *timer)
{
	struct session *s = timer->arg;

	dmtp_client_tick(s->client, now_ms(s));
	work_soon(s);
}

static void
make_client(struct session *s)
{
	const struct options *o = &s->source->o;
	struct dmtp_client_options options = { .window = (uint32_t)o->window };

	options.mode = o->plain ? DMTP_CLIENT_PLAIN : DMTP_CLIENT_TLS;
	s->client = dmtp_client_new(&options, now_ms(s));
	if (s->client == NULL)
		die("session", "out of memory");
	work_soon(s);
}

static void
on_connected(struct conn *conn, void *arg)
{
	struct session *s = arg;

	(void)conn;
	if (s->source->o.plain)
		make_client(s);
}

static void
on_secured(struct conn *conn, void *arg)
{
	(void)conn;
	make_client(arg);
}

static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct session *s = arg;

	(void)conn;
	if (s->client == NULL)
		return 0;
	(void)dmtp_client_feed(s->client, now_ms(s), in.data, in.len);
	work_soon(s);
	return in.len;
}

static void
on_drained(struct conn *conn, void *arg)
{
	(void)conn;
	work_soon(arg);
}

static void
on_ended(struct conn *conn, void *arg, bool clean)
{
	struct session *s = arg;

	(void)conn;
	(void)clean;
	if (s->client == NULL) {
		end(s, "closed before TLS");
		return;
	}
	dmtp_client_eof(s->client, now_ms(s));
	work_soon(s);
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end why, const char *text)
{
	(void)conn;
	(void)text;
	end(arg, conn_end_name(why));
}

static void
open_session(struct source *source, struct session *s)
{
	static const struct conn_events events = { .connected = on_connected,
		                                   .secured = on_secured,
		                                   .data = on_data,
		                                   .drained = on_drained,
		                                   .ended = on_ended,
		                                   .closed = on_closed };
	struct conn_config config = { .events = &events, .arg = s };
	struct slice own = dmtp_domain_of(slice_str(source->o.from));
	struct net_address to;

	if (!net_address_parse(source->o.connect, &to))
		die("--connect", "takes an address and a port");
	s->source = source;
	loop_timer_init(&s->timer, source->loop, on_timer, s);
	loop_defer_init(&s->work, on_work, s);
	s->conn = conn_connect(source->loop, &to, 1, false, &config);
	if (s->conn == NULL ||
	    (!source->o.plain && conn_start_tls_client(s->conn, source->tls, source->o.domain,
	                                               (const char *)own.data) != CONN_OK))
		die("session", "can't begin");
	source->open++;
}

/* --- Options ------------------------------------------------------------------------------ */

static const char usage[] =
    "dmtp-source --connect ADDRESS --domain NAME --from SITE@DOMAIN\n"
    "            --certificate FILE --key FILE --ca FILE [options]\n"
    "  --plain          without TLS\n"
    "  --connections N  sessions at once (4)\n"
    "  --window N       commands unanswered in a session (0: what the server allows)\n"
    "  --rcpts N        recipients of a command (1)\n"
    "  --count N        commands (1000)\n"
    "  --grants FILE    recipients, base32, one a line, over and over; else random ones\n"
    "  --uri URL        where messages are said to be picked up\n"
    "  --prefix TEXT    what ids begin with (else random)\n"
    "  --seconds N      when to give up (60)\n";

static uint64_t
number(const char *name, const char *text)
{
	uint64_t n = 0;

	if (!text_parse_u64(slice_str(text), UINT32_MAX, &n))
		die(name, "takes a number");
	return n;
}

enum { TEXTS = 9 };

static void
parse_options(struct options *o, int argc, char **argv)
{
	const char **const texts[TEXTS] = { &o->connect,     &o->domain, &o->from,
		                            &o->certificate, &o->key,    &o->ca,
		                            &o->grants,      &o->uri,    &o->prefix };
	uint64_t *const numbers[] = { &o->connections, &o->window, &o->rcpts, &o->count,
		                      &o->seconds };
	static const struct option longs[] = {
		{ "connect", 1, NULL, 0 }, { "domain", 1, NULL, 0 },
		{ "from", 1, NULL, 0 },    { "certificate", 1, NULL, 0 },
		{ "key", 1, NULL, 0 },     { "ca", 1, NULL, 0 },
		{ "grants", 1, NULL, 0 },  { "uri", 1, NULL, 0 },
		{ "prefix", 1, NULL, 0 },  { "connections", 1, NULL, 0 },
		{ "window", 1, NULL, 0 },  { "rcpts", 1, NULL, 0 },
		{ "count", 1, NULL, 0 },   { "seconds", 1, NULL, 0 },
		{ "plain", 0, NULL, 'p' }, { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int at, c;

	*o = (struct options){ .connections = 4,
		               .rcpts = 1,
		               .count = 1000,
		               .seconds = 60,
		               .uri = "https://localhost/m/0" };
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
	if (optind < argc || o->connect == NULL || o->domain == NULL || o->from == NULL ||
	    dmtp_domain_of(slice_str(o->from)).len == 0 || o->connections == 0 ||
	    o->connections > CONNECTIONS_MAX || o->rcpts == 0 || o->count == 0 ||
	    (!o->plain && (o->certificate == NULL || o->key == NULL || o->ca == NULL)))
		(void)fputs(usage, stderr), exit(2);
}

/* --- What it needs and what it says
 * ----------------------------------------------------------- */

static void
read_grants(struct source *source)
{
	FILE *f = fopen(source->o.grants, "re");
	size_t cap = 0;
	char line[128];

	if (f == NULL)
		die(source->o.grants, strerror(errno));
	while (fgets(line, sizeof(line), f) != NULL) {
		if (source->grants_n == cap) {
			cap = cap == 0 ? 1024 : cap * 2;
			source->grants = realloc(source->grants, cap * DMTP_GRANT_LEN);
			if (source->grants == NULL)
				die("--grants", "out of memory");
		}
		line[strcspn(line, "\r\n")] = '\0';
		if (!base32_decode(slice_str(line),
		                   source->grants + source->grants_n++ * DMTP_GRANT_LEN,
		                   DMTP_GRANT_LEN))
			die(source->o.grants, "a line is no grant");
	}
	(void)fclose(f);
	if (source->grants_n < source->o.rcpts)
		die(source->o.grants, "fewer grants than recipients of a command");
}

static void
prepare(struct source *source)
{
	static char prefix[16];
	uint8_t random[4];

	if (source->o.prefix == NULL) {
		randombytes_buf(random, sizeof(random));
		hex_encode(random, sizeof(random), prefix);
		prefix[8] = '-';
		source->o.prefix = prefix;
	}
	if (source->o.grants != NULL) {
		read_grants(source);
	} else {
		source->grants_n = 100000 + source->o.rcpts;
		source->grants = calloc(source->grants_n, DMTP_GRANT_LEN);
		if (source->grants == NULL)
			die("grants", "out of memory");
		randombytes_buf(source->grants, source->grants_n * DMTP_GRANT_LEN);
	}
	source->sent_us = calloc(source->o.count, sizeof(*source->sent_us));
	if (source->sent_us == NULL)
		die("times", "out of memory");
}

static int
by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void
print_result(struct source *source)
{
	double seconds = (double)(source->last_us - source->first_us) / 1e6;
	double rate = seconds > 0 ? (double)source->answered / seconds : 0;
	size_t n = source->answered;

	/* The answered ones are delays, the others still are times of the clock, which are
	 * longer. */
	qsort(source->sent_us, source->made, sizeof(*source->sent_us), by_size);
	(void)printf(
	    "{\"commands\": %lu, \"rcpts\": %lu, \"seconds\": %.3f, \"commands_per_s\": %.0f, "
	    "\"rcpts_per_s\": %.0f, \"k\": %lu, \"e\": %lu, \"z\": %lu, \"failed\": %lu, "
	    "\"lost\": %lu, \"p50_us\": %ld, \"p99_us\": %ld, \"ended\": \"%s\"}\n",
	    source->answered, source->o.rcpts, seconds, rate, rate * (double)source->o.rcpts,
	    source->k, source->e, source->z, source->failed, source->lost,
	    n == 0 ? 0 : source->sent_us[n / 2], n == 0 ? 0 : source->sent_us[n * 99 / 100],
	    source->why == NULL ? "" : source->why);
}

static void
on_limit(struct loop_timer *timer)
{
	struct source *source = timer->arg;

	source->why = "out of time";
	loop_stop(source->loop);
}

static void
make_tls(struct source *source)
{
	struct slice own = dmtp_domain_of(slice_str(source->o.from));
	struct tls_identity id = { (const char *)own.data, source->o.certificate,
		                   source->o.key };
	struct tls_client_config tls = {
		.identities = &id, .count = 1, .ca_file = source->o.ca, .alpn = DMTP_ALPN
	};
	char why[NET_TEXT];

	if (tls_client_new(&tls, &source->tls, why) != TLS_OK)
		die("TLS", why);
}

int
main(int argc, char **argv)
{
	static struct session sessions[CONNECTIONS_MAX];
	struct source source = { .made = 0 };
	bool good;

	(void)signal(SIGPIPE, SIG_IGN);
	parse_options(&source.o, argc, argv);
	source.loop = loop_new();
	if (source.loop == NULL || sodium_init() < 0)
		die("loop", "can't begin");
	prepare(&source);
	if (!source.o.plain)
		make_tls(&source);
	loop_timer_init(&source.limit, source.loop, on_limit, &source);
	loop_timer_set(&source.limit, (int64_t)source.o.seconds * 1000);
	source.first_us = source.last_us = clock_mono_us();
	for (size_t i = 0; i < source.o.connections; i++)
		open_session(&source, &sessions[i]);
	loop_run(source.loop);
	print_result(&source);
	good = source.answered == source.o.count;
	for (size_t i = 0; i < source.o.connections; i++) {
		end(&sessions[i], source.why);
		dmtp_client_free(&sessions[i].client);
	}
	loop_timer_cancel(&source.limit);
	loop_free(&source.loop);
	tls_client_free(&source.tls);
	free(source.grants);
	free(source.sent_us);
	return good ? 0 : 1;
}
