/*
 * How many accepted messages a second this PostgreSQL takes from whoever does
 * nothing else: prepared unnest inserts of messages and their batches, pipelined
 * on a few connections, each group one durable transaction.
 *
 *	bench_store_inserts CONNINFO SITE CHANNEL DOMAIN [seconds [rows [connections [octets]]]]
 */
#include "base/clock.h"
#include "store/args.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define CONNECTIONS_MAX 16
#define DEPTH 2 /* groups under way on a connection: one is made while one is committed */

enum { MESSAGES, BATCHES, STATEMENTS };

static const struct {
	const char *name, *sql;
	const Oid *types;
	int n;
} statements[STATEMENTS] = {
	[MESSAGES] = { "messages",
	               "INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, "
	               "lane, "
	               "accepted_at, date_s, size, digest, body) "
	               "SELECT $1, m, $2, 0, 1, a, s, octet_length(b), d, b FROM "
	               "unnest($3::uuid[], $4::timestamptz[], $5::int8[], $6::bytea[], "
	               "$7::bytea[]) "
	               "AS i(m, a, s, d, b)",
	               (const Oid[]){ T_INT8, T_INT8, T_UUIDS, T_TIMESTAMPTZS, T_INT8S,
	                              T_BYTEAS, T_BYTEAS, 0 },
	               7 },
	[BATCHES] = { "batches",
	              "INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, "
	              "domain_id, "
	              "lane, members, recipients) "
	              "SELECT $1, m, 1, $2, $3, 1, ARRAY[w], 1 FROM unnest($4::uuid[], "
	              "$5::text[]) "
	              "AS i(m, w)",
	              (const Oid[]){ T_INT8, T_INT8, T_INT8, T_UUIDS, T_TEXTS, 0 }, 5 },
};

struct bench {
	int64_t site, channel, domain;
	size_t rows, octets;
	uint8_t *body;
	struct args messages, batches;
	uint64_t made, committed;
};

struct link {
	PGconn *pg;
	unsigned under_way;
};

static void
die(PGconn *pg)
{
	(void)fprintf(stderr, "bench_store_inserts: %s", PQerrorMessage(pg));
	exit(1);
}

static void
link_open(struct link *l, const char *conninfo)
{
	l->pg = PQconnectdb(conninfo);
	if (PQstatus(l->pg) != CONNECTION_OK)
		die(l->pg);
	for (int i = 0; i < STATEMENTS; i++) {
		PGresult *r = PQprepare(l->pg, statements[i].name, statements[i].sql,
		                        statements[i].n, statements[i].types);

		if (PQresultStatus(r) != PGRES_COMMAND_OK)
			die(l->pg);
		PQclear(r);
	}
	if (PQsetnonblocking(l->pg, 1) != 0 || PQenterPipelineMode(l->pg) != 1)
		die(l->pg);
}

static void
fill(struct bench *b)
{
	uint8_t digest[32];
	char member[16];
	int64_t now = clock_wall_us();

	args_begin(&b->messages, statements[MESSAGES].types);
	args_begin(&b->batches, statements[BATCHES].types);
	args_i64(&b->messages, 0, b->site);
	args_i64(&b->messages, 1, b->channel);
	args_i64(&b->batches, 0, b->site);
	args_i64(&b->batches, 1, b->channel);
	args_i64(&b->batches, 2, b->domain);
	for (size_t i = 0; i < b->rows; i++) {
		struct uuid id = uuid_make();

		randombytes_buf(digest, sizeof(digest));
		memcpy(b->body, &b->made, sizeof(b->made));
		(void)snprintf(member, sizeof(member), "m%06lu", 1 + b->made++ % 1000);
		args_uuid(&b->messages, 2, &id);
		args_time(&b->messages, 3, now);
		args_i64(&b->messages, 4, now / 1000000);
		args_slice(&b->messages, 5, slice_mem(digest, sizeof(digest)));
		args_slice(&b->messages, 6, slice_mem(b->body, b->octets));
		args_uuid(&b->batches, 3, &id);
		args_text(&b->batches, 4, member);
	}
}

static void
run(struct link *l, int which, struct args *args)
{
	const char *values[ARGS_MAX];
	int lengths[ARGS_MAX], formats[ARGS_MAX];

	if (!args_finish(args, values, lengths, formats) ||
	    PQsendQueryPrepared(l->pg, statements[which].name, statements[which].n, values,
	                        lengths, formats, 1) != 1)
		die(l->pg);
}

static void
send_group(struct bench *b, struct link *l)
{
	fill(b);
	run(l, MESSAGES, &b->messages);
	run(l, BATCHES, &b->batches);
	if (PQpipelineSync(l->pg) != 1 || PQflush(l->pg) < 0)
		die(l->pg);
	l->under_way++;
}

/* Only the Sync's result says that a group is committed. */
static void
take_results(struct bench *b, struct link *l)
{
	PGresult *r;

	if (PQconsumeInput(l->pg) != 1)
		die(l->pg);
	while (l->under_way > 0 && !PQisBusy(l->pg)) {
		r = PQgetResult(l->pg);
		if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) {
			l->under_way--;
			b->committed += b->rows;
		} else if (r != NULL && PQresultStatus(r) != PGRES_COMMAND_OK) {
			die(l->pg);
		}
		PQclear(r);
	}
}

static double
measure(struct bench *b, struct link *links, size_t n, double seconds)
{
	int64_t start = clock_mono_us(), end = start + (int64_t)(seconds * 1e6);
	struct pollfd polls[CONNECTIONS_MAX];
	bool open = true, busy = true;

	while (open || busy) {
		open = clock_mono_us() < end;
		busy = false;
		for (size_t i = 0; i < n; i++) {
			while (open && links[i].under_way < DEPTH)
				send_group(b, &links[i]);
			polls[i] =
			    (struct pollfd){ .fd = PQsocket(links[i].pg), .events = POLLIN };
			if (PQflush(links[i].pg) == 1)
				polls[i].events |= POLLOUT;
		}
		if (poll(polls, n, 10000) < 0 && errno != EINTR)
			die(links[0].pg);
		for (size_t i = 0; i < n; i++) {
			take_results(b, &links[i]);
			busy = busy || links[i].under_way > 0;
		}
	}
	return (double)(clock_mono_us() - start) / 1e6;
}

int
main(int argc, char **argv)
{
	struct bench b = { .rows = argc > 6 ? strtoul(argv[6], NULL, 10) : 128,
		           .octets = argc > 8 ? strtoul(argv[8], NULL, 10) : 1024 };
	size_t n = argc > 7 ? strtoul(argv[7], NULL, 10) : 2;
	double seconds = argc > 5 ? strtod(argv[5], NULL) : 5;
	struct link links[CONNECTIONS_MAX] = { { .under_way = 0 } };

	if (argc < 5 || n == 0 || n > CONNECTIONS_MAX || b.octets < 16 || b.rows == 0) {
		(void)fprintf(stderr,
		              "bench_store_inserts CONNINFO SITE CHANNEL DOMAIN [seconds "
		              "[rows [connections [octets]]]]\n");
		return 2;
	}
	b.site = strtol(argv[2], NULL, 10);
	b.channel = strtol(argv[3], NULL, 10);
	b.domain = strtol(argv[4], NULL, 10);
	b.body = malloc(b.octets);
	if (b.body == NULL || sodium_init() < 0)
		return 1;
	randombytes_buf(b.body, b.octets);
	args_init(&b.messages);
	args_init(&b.batches);
	for (size_t i = 0; i < n; i++)
		link_open(&links[i], argv[1]);
	seconds = measure(&b, links, n, seconds);
	(void)printf("{\"rows\": %lu, \"seconds\": %.3f, \"per_second\": %.0f, \"group\": %zu, "
	             "\"connections\": %zu}\n",
	             b.committed, seconds, (double)b.committed / seconds, b.rows, n);
	for (size_t i = 0; i < n; i++)
		PQfinish(links[i].pg);
	args_deinit(&b.messages);
	args_deinit(&b.batches);
	free(b.body);
	return 0;
}
