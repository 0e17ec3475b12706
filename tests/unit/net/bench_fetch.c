/*
 * How many small fetches a second go over reused TLS connections, server and client in one
 * thread.
 */
#include "https.h"

#include "net/fetch.h"

static struct loop *loop;
static struct https web;
static struct fetcher *fetcher;
static struct fetch_request request;
static long left, failed;

static bool
answer(struct https *h, const char *path, struct slice head, struct slice body,
       struct buffer *out)
{
	(void)h;
	(void)path;
	(void)head;
	(void)body;
	buffer_add_str(out, "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n");
	memset(buffer_reserve(out, 300), 'x', 300);
	buffer_added(out, 300);
	return false;
}

static void
on_answer(void *arg, const struct fetch_answer *a)
{
	failed += a->rc != FETCH_OK || a->body.len != 300;
	left--;
	if (left >= (long)(intptr_t)arg)
		(void)fetch_start(fetcher, &request, on_answer, arg);
}

static void
run(long count, long at_once)
{
	int64_t begin, us;
	int before = web.connections;

	left = count;
	begin = clock_mono_us();
	for (long i = 0; i < at_once; i++)
		(void)fetch_start(fetcher, &request, on_answer, (void *)(intptr_t)at_once);
	while (left > 0)
		(void)loop_turn(loop, 100);
	us = clock_mono_us() - begin;
	printf("%ld fetches, %ld asked for at once: %.0f/s, %.1f us each, %d new connections, "
	       "%ld failed\n",
	       count, at_once, (double)count * 1e6 / (double)us, (double)us / (double)count,
	       web.connections - before, failed);
}

int
main(void)
{
	struct test_cert t = { .cn = "CA", .ca = true };
	struct test_ca ca = test_cert_make(&t);
	struct tls_identity id;

	test_cert_write("ca", &ca, NULL);
	test_cert_put("files", &(struct test_cert){
				   .cn = "f", .issuer = &ca, .san = "DNS:files.example" });
	test_cert_free(&ca);
	id = test_identity("files.example", "files");
	loop = loop_new();
	web.answer = answer;
	https_start(&web, loop, &(struct tls_server_config){ .identities = &id, .count = 1 });
	for (size_t per_host = 1; per_host <= 16; per_host *= 16) {
		char url[128];

		(void)snprintf(url, sizeof(url), "https://files.example:%u/m/x", web.port);
		request = (struct fetch_request){ .url = url,
			                          .max_body = 300,
			                          .ca_file = test_path("ca.crt"),
			                          .pin = &web.here,
			                          .allow_private = true };
		fetcher =
		    fetcher_new(loop, &(struct fetcher_config){ .max_per_host = per_host });
		printf("%zu connections a host: ", per_host);
		run(20000, 64);
		fetcher_free(&fetcher);
	}
	https_stop(&web);
	loop_free(&loop);
	test_remove_dir();
	return failed != 0;
}
