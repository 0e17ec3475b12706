/*
 * What accepting costs below HTTP: pushes to one member each through the store,
 * so many under way at a time, each followed by the next as soon as it is
 * committed.
 *
 *	bench_store_pushes CONNINFO SITE CHANNEL [seconds [waiting [connections [octets]]]]
 */
#include "base/clock.h"
#include "store/pushes.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MEMBERS 1000

struct slot {
	struct push push;
	struct push_rcpt rcpt;
	char member[16];
	uint8_t digest[32];
	uint8_t *body;
};

static struct store *store;
static int64_t site, channel, end_us;
static size_t octets = 1024;
static _Atomic unsigned long committed, failed, made, open_slots;

static void
begin(struct slot *s)
{
	struct push *p = &s->push;

	(void)snprintf(s->member, sizeof(s->member), "m%06lu",
	               1 + atomic_fetch_add(&made, 1) % MEMBERS);
	randombytes_buf(s->digest, sizeof(s->digest));
	s->rcpt = (struct push_rcpt){ .domain = slice_str("home.test"),
		                      .member = slice_str(s->member) };
	p->site_id = site;
	p->channel_id = channel;
	p->message_id = uuid_make();
	p->audience = PUSH_ONE;
	p->lane = LANE_NORMAL;
	p->accepted_us = clock_wall_us();
	p->date_s = p->accepted_us / 1000000;
	p->expires_us = -1;
	p->body = slice_mem(s->body, octets);
	p->digest = s->digest;
	p->rcpts = &s->rcpt;
	p->rcpts_n = 1;
	store_push(store, p);
}

static void
on_done(struct store_job *job)
{
	struct slot *s = (struct slot *)job;

	if (job->rc == STORE_OK && s->push.outcome == PUSH_STORED)
		atomic_fetch_add(&committed, 1);
	else
		atomic_fetch_add(&failed, 1);
	if (clock_mono_us() < end_us)
		begin(s);
	else
		atomic_fetch_sub(&open_slots, 1);
}

int
main(int argc, char **argv)
{
	size_t waiting = argc > 5 ? strtoul(argv[5], NULL, 10) : 64;
	double seconds = argc > 4 ? strtod(argv[4], NULL) : 5;
	struct store_options options = { .name = "bench" };
	struct slot *slots;
	int64_t start_us;

	if (argc < 4 || waiting == 0) {
		(void)fprintf(stderr,
		              "bench_store_pushes CONNINFO SITE CHANNEL [seconds [waiting "
		              "[connections [octets]]]]\n");
		return 2;
	}
	options.conninfo = argv[1];
	options.connections[STORE_WRITE] = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) : 2;
	site = strtol(argv[2], NULL, 10);
	channel = strtol(argv[3], NULL, 10);
	octets = argc > 7 ? strtoul(argv[7], NULL, 10) : octets;
	slots = calloc(waiting, sizeof(*slots));
	if (slots == NULL || sodium_init() < 0 || (store = store_start(&options)) == NULL)
		return 1;
	for (size_t i = 0; i < waiting; i++) {
		slots[i].body = malloc(octets);
		if (slots[i].body == NULL)
			return 1;
		randombytes_buf(slots[i].body, octets);
		slots[i].push.job.done = on_done;
	}
	start_us = clock_mono_us();
	end_us = start_us + (int64_t)(seconds * 1e6);
	atomic_store(&open_slots, waiting);
	for (size_t i = 0; i < waiting; i++)
		begin(&slots[i]);
	while (atomic_load(&open_slots) > 0)
		(void)usleep(1000);
	seconds = (double)(clock_mono_us() - start_us) / 1e6;
	store_stop(&store, 1000);
	(void)printf(
	    "{\"pushes\": %lu, \"failed\": %lu, \"seconds\": %.3f, \"per_second\": %.0f}\n",
	    atomic_load(&committed), atomic_load(&failed), seconds,
	    (double)atomic_load(&committed) / seconds);
	for (size_t i = 0; i < waiting; i++)
		free(slots[i].body);
	free(slots);
	return atomic_load(&failed) == 0 ? 0 : 1;
}
