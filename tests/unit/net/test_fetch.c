/* net/fetch against a server of our own on loopback: bounds, refusals, ends, reuse. */
#include "https.h"

#include "net/fetch.h"

static struct loop *loop;
static struct https web;
static struct fetcher *fetcher;
static char last_head[4096], last_body[4096];
static size_t last_body_len;

static bool
answer(struct https *h, const char *path, struct slice head, struct slice body,
       struct buffer *out)
{
	int n = 0;

	(void)h;
	(void)snprintf(last_head, sizeof(last_head), "%.*s", (int)head.len,
	               (const char *)head.data);
	(void)snprintf(last_body, sizeof(last_body), "%.*s",
	               (int)(body.len < 4000 ? body.len : 4000), (const char *)body.data);
	last_body_len = body.len;
	if (strcmp(path, "/ok") == 0) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: "
		                    "text/x\r\nETag: \"e\"\r\n"
		                    "Cache-Control: max-age=60\r\n\r\nhello");
	} else if (sscanf(path, "/size/%d", &n) == 1) {
		buffer_add_fmt(out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n);
		memset(buffer_reserve(out, (size_t)n), 'x', (size_t)n);
		buffer_added(out, (size_t)n);
	} else if (sscanf(path, "/chunked/%d", &n) == 1) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (; n > 0; n--)
			buffer_add_str(out, "1\r\ny\r\n");
		buffer_add_str(out, "0\r\n\r\n");
	} else if (strcmp(path, "/short") == 0) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
		return true;
	} else if (strcmp(path, "/endless") == 0) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\n\r\n");
		memset(buffer_reserve(out, 1 << 20), 'z', 1 << 20);
		buffer_added(out, 1 << 20);
	} else if (strcmp(path, "/redirect") == 0) {
		buffer_add_fmt(out,
		               "HTTP/1.1 302 Found\r\nLocation: https://files.example:%u/ok\r\n"
		               "Content-Length: 4\r\n\r\nmove",
		               web.port);
	} else if (strcmp(path, "/gone") == 0) {
		buffer_add_str(
		    out,
		    "HTTP/1.1 410 Gone\r\nContent-Length: 200000\r\nRetry-After: 30\r\n\r\n");
		memset(buffer_reserve(out, 200000), 'g', 200000);
		buffer_added(out, 200000);
	} else if (strcmp(path, "/headers") == 0) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\n");
		for (n = 0; n < 3000; n++)
			buffer_add_fmt(out, "X-Flood-%d: 0123456789012345678901234567890\r\n",
			               n);
		buffer_add_str(out, "Content-Length: 0\r\n\r\n");
	} else if (strcmp(path, "/garbage") == 0) {
		buffer_add_str(out, "SSH-2.0-not-http\r\n\r\n");
	} else if (strcmp(path, "/gzip") == 0) {
		buffer_add_str(out, "HTTP/1.1 200 OK\r\nContent-Encoding: "
		                    "gzip\r\nContent-Length: 4\r\n\r\nnope");
	} else if (strcmp(path, "/cut") == 0) {
		return true;
	} /* else: silence */
	return false;
}

static int
group_setup(void **state)
{
	struct test_cert t = { .cn = "Test CA", .ca = true };
	struct test_ca ca = test_cert_make(&t);

	(void)state;
	test_cert_write("ca", &ca, NULL);
	test_cert_put("files", &(struct test_cert){ .cn = "f",
	                                            .issuer = &ca,
	                                            .san = "DNS:files.example,DNS:localhost" });
	test_cert_free(&ca);
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	test_remove_dir();
	return 0;
}

static int
setup(void **state)
{
	struct tls_identity id = test_identity("files.example", "files");
	struct tls_server_config tls = { .identities = &id,
		                         .count = 1,
		                         .ca_file = test_path("ca.crt") };

	(void)state;
	loop = loop_new();
	web = (struct https){ .answer = answer };
	https_start(&web, loop, &tls);
	fetcher = fetcher_new(
	    loop, &(struct fetcher_config){ .user_agent = "test/1", .max_per_host = 2 });
	assert_non_null(fetcher);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fetcher_free(&fetcher);
	https_stop(&web);
	loop_free(&loop);
	return 0;
}

struct got {
	int calls;
	enum fetch_rc rc;
	long status;
	struct buffer body;
	char text[512], type[64], etag[64], cache[64];
	int64_t retry_after_s;
	bool reused;
	struct fetch *fetch;
	void (*then)(struct got *got);
};

static void
on_answer(void *arg, const struct fetch_answer *a)
{
	struct got *g = arg;

	g->calls++;
	g->rc = a->rc;
	g->status = a->status;
	buffer_init(&g->body, (size_t)64 << 20);
	buffer_add_slice(&g->body, a->body);
	(void)snprintf(g->text, sizeof(g->text), "%s", a->text);
	(void)snprintf(g->type, sizeof(g->type), "%s", a->content_type);
	(void)snprintf(g->etag, sizeof(g->etag), "%s", a->etag);
	(void)snprintf(g->cache, sizeof(g->cache), "%s", a->cache_control);
	g->retry_after_s = a->retry_after_s;
	g->reused = a->reused;
	assert_int_equal(a->rc == FETCH_OK, a->text[0] == '\0');
	g->fetch = NULL;
	if (g->then != NULL)
		g->then(g);
}

static struct fetch_request
request_for(const char *path, size_t max_body)
{
	static char url[8][256];
	static size_t next;
	char *u = url[next++ % 8];

	(void)snprintf(u, sizeof(url[0]), "https://files.example:%u%s", web.port, path);
	return (struct fetch_request){ .url = u,
		                       .max_body = max_body,
		                       .ca_file = test_path("ca.crt"),
		                       .pin = &web.here,
		                       .allow_private = true };
}

static struct got *
fetch_now(const struct fetch_request *r)
{
	static struct got g;

	buffer_free(&g.body);
	g = (struct got){ 0 };
	g.fetch = fetch_start(fetcher, r, on_answer, &g);
	assert_non_null(g.fetch);
	assert_int_equal(g.calls, 0);
	TURN_UNTIL(loop, g.calls == 1);
	return &g;
}

static struct got *
get(const char *path, size_t max_body)
{
	struct fetch_request r = request_for(path, max_body);

	return fetch_now(&r);
}

static void
test_a_document_and_what_is_told_of_it(void **state)
{
	struct got *g = get("/ok", 5);

	(void)state;
	assert_int_equal(g->rc, FETCH_OK);
	assert_int_equal(g->status, 200);
	assert_true(slice_eq_str(buffer_slice(&g->body), "hello"));
	assert_string_equal(g->type, "text/x");
	assert_string_equal(g->etag, "\"e\"");
	assert_string_equal(g->cache, "max-age=60");
	assert_int_equal(g->retry_after_s, -1);
	assert_false(g->reused);
	assert_non_null(strstr(last_head, "GET /ok HTTP/1.1\r\n"));
	assert_non_null(strstr(last_head, "User-Agent: test/1\r\n"));
	assert_null(strstr(last_head, "Accept-Encoding"));
	g = get("/ok", 5);
	assert_true(g->reused);
	assert_int_equal(web.connections, 1);
	assert_int_equal(fetcher_count(fetcher), 0);
}

static void
test_sizes(void **state)
{
	static const struct {
		const char *path;
		size_t max;
		enum fetch_rc rc;
	} table[] = {
		{ "/size/0", 10, FETCH_OK },         { "/size/10", 10, FETCH_OK },
		{ "/size/11", 10, FETCH_TOO_LARGE }, { "/size/500000", 500000, FETCH_OK },
		{ "/chunked/10", 10, FETCH_OK },     { "/chunked/11", 10, FETCH_TOO_LARGE },
		{ "/short", 100, FETCH_BROKEN },     { "/endless", 1000, FETCH_TOO_LARGE },
		{ "/headers", 10, FETCH_TOO_LARGE }, { "/garbage", 10, FETCH_BROKEN },
		{ "/cut", 10, FETCH_BROKEN },        { "/size/1", 0, FETCH_TOO_LARGE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct got *g = get(table[i].path, table[i].max);

		if (g->rc != table[i].rc)
			fail_msg("%s: %s (%s)", table[i].path, fetch_rc_name(g->rc), g->text);
		assert_true(g->rc == FETCH_OK || g->body.len == 0);
	}
	assert_int_equal(get("/gzip", 10)->body.len,
	                 4); /* encodings are the caller's to see, never undone */
}

static void
test_answers_other_than_2xx_are_answers(void **state)
{
	struct got *g = get("/redirect", 10);

	(void)state;
	assert_int_equal(g->rc, FETCH_OK);
	assert_int_equal(g->status, 302);
	assert_int_equal(g->body.len, 0);
	assert_int_equal(web.requests, 1); /* and not followed */
	g = get("/gone",
	        10); /* its body is longer than what is allowed, and than what is thrown away */
	assert_int_equal(g->rc, FETCH_OK);
	assert_int_equal(g->status, 410);
	assert_int_equal(g->retry_after_s, 30);
}

static void
test_urls_that_are_not_fetched(void **state)
{
	static const char *const urls[] = { "http://files.example/ok",
		                            "ftp://files.example/",
		                            "files.example/ok",
		                            "file:///etc/passwd",
		                            "https://",
		                            "https:///ok",
		                            "https://user@files.example/",
		                            "https://user:pw@files.example/",
		                            "https://files.example:0/",
		                            "https://files.example:99999/",
		                            "https://fi les.example/",
		                            "https://f\xc3\xa4.example/",
		                            "",
		                            "gopher://x/",
		                            "https://@x/",
		                            "HTTP://x/",
		                            "https://a\nb/",
		                            "https:/files.example/",
		                            "https:files.example",
		                            "https://a\\@b/",
		                            "https://a%2eb/",
		                            "https://[::1",
		                            "https://?x",
		                            "https://#x" };

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct fetch_request r = { .url = urls[i], .max_body = 10 };
		struct got *g = fetch_now(&r);

		if (g->rc != FETCH_BAD_URL)
			fail_msg("%s: %s", urls[i], fetch_rc_name(g->rc));
	}
	assert_int_equal(web.connections, 0);
}

static void
test_the_host_of_a_url(void **state)
{
	static const struct {
		const char *url, *host;
		uint16_t port;
	} table[] = {
		{ "https://Files.Example/m/x", "files.example", 443 },
		{ "HTTPS://a.example:8443?q=@b", "a.example", 8443 },
		{ "https://a.example#@b.example/", "a.example", 443 },
		{ "https://[::1]:5/", "[::1]", 5 },
		{ "https://2130706433/", "127.0.0.1", 443 },
	};
	char host[RESOLVE_NAME] = "untouched";
	uint16_t port = 7;

	(void)state;
	assert_false(fetch_url_host("https://a@b/", host, &port));
	assert_false(fetch_url_host("http://a/", host, &port));
	assert_string_equal(host, "untouched");
	assert_int_equal(port, 7);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_true(fetch_url_host(table[i].url, host, &port));
		assert_string_equal(host, table[i].host);
		assert_int_equal(port, table[i].port);
	}
}

static void
test_private_addresses_are_refused_however_they_come(void **state)
{
	static const char *const hosts[] = {
		"127.0.0.1",        "localhost", "[::1]",    "[::ffff:127.0.0.1]", "0.0.0.0",
		"2130706433",       "0x7f.1",    "10.1.2.3", "169.254.169.254",    "[fe80::1]",
		"[64:ff9b::7f00:1]"
	};
	struct resolver *resolver;
	char url[128], why[NET_TEXT];

	(void)state;
	for (int with = 0; with < 2; with++) { /* libcurl's resolver, then ours */
		resolver = resolver_new(
		    loop, &(struct resolver_config){ .servers = "127.0.0.1:1" }, why);
		if (with) {
			fetcher_free(&fetcher);
			fetcher =
			    fetcher_new(loop, &(struct fetcher_config){ .resolver = resolver });
		}
		for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
			struct fetch_request r = { .url = url,
				                   .max_body = 10,
				                   .ca_file = test_path("ca.crt") };

			(void)snprintf(url, sizeof(url), "https://%s:%u/ok", hosts[i],
			               web.port);
			if (fetch_now(&r)->rc != FETCH_BLOCKED)
				fail_msg("%s", url);
		}
		if (with)
			fetcher_free(&fetcher);
		resolver_free(&resolver);
	}
	fetcher = fetcher_new(loop, &(struct fetcher_config){ 0 });
	{
		struct fetch_request r = request_for("/ok", 10); /* a pin alone opens nothing */

		r.allow_private = false;
		assert_int_equal(fetch_now(&r)->rc, FETCH_BLOCKED);
		r.allow_private = true;
		assert_int_equal(fetch_now(&r)->rc, FETCH_OK);
		r.allow_private = false; /* nor the connection that a pinned one left behind */
		assert_int_equal(fetch_now(&r)->rc, FETCH_BLOCKED);
	}
	assert_int_equal(web.connections, 1);
}

static void
test_a_host_through_our_resolver(void **state)
{
	char why[NET_TEXT], url[128];
	struct resolver *resolver = resolver_new(
	    loop,
	    &(struct resolver_config){ .servers = "127.0.0.1:1", .timeout_ms = 50, .tries = 1 },
	    why);
	struct fetch_request r = { .url = url,
		                   .max_body = 10,
		                   .ca_file = test_path("ca.crt"),
		                   .allow_private = true };

	(void)state;
	fetcher_free(&fetcher);
	fetcher = fetcher_new(loop, &(struct fetcher_config){ .resolver = resolver });
	(void)snprintf(url, sizeof(url), "https://localhost:%u/ok", web.port);
	/*
	 * The hosts file may name ::1 first, where nobody listens: the pin is the same name by
	 * another way.
	 */
	assert_true(fetch_now(&r)->rc == FETCH_OK || fetch_now(&r)->rc == FETCH_CONNECT);
	(void)snprintf(url, sizeof(url), "https://nowhere.example:%u/ok", web.port);
	assert_int_equal(fetch_now(&r)->rc, FETCH_RESOLVE);
	fetcher_free(&fetcher);
	resolver_free(&resolver);
}

static void
test_servers_must_prove_the_name(void **state)
{
	struct fetch_request r = request_for("/ok", 10);
	char url[128];

	(void)state;
	r.ca_file = NULL; /* the system's roots don't know this CA */
	assert_int_equal(fetch_now(&r)->rc, FETCH_UNVERIFIED);
	r.ca_file = test_path("none.crt");
	assert_int_equal(fetch_now(&r)->rc, FETCH_UNVERIFIED);
	r.ca_file = test_path("ca.crt");
	r.url = url;
	(void)snprintf(url, sizeof(url), "https://other.example:%u/ok", web.port);
	assert_int_equal(fetch_now(&r)->rc, FETCH_UNVERIFIED);
	assert_int_equal(web.requests, 0);
	assert_int_equal(get("/ok", 10)->rc, FETCH_OK);
	/* a good connection isn't lent to who wouldn't trust it */
	r = request_for("/ok", 10);
	r.ca_file = NULL;
	assert_int_equal(fetch_now(&r)->rc, FETCH_UNVERIFIED);
}

static void
test_time_is_bounded(void **state)
{
	struct fetch_request r = request_for("/silence", 10);
	struct got *g;
	int64_t begin = clock_mono_ms();

	(void)state;
	r.total_ms = 80;
	assert_int_equal(fetch_now(&r)->rc, FETCH_TIMEOUT);
	assert_true(clock_mono_ms() - begin >= 80);
	r.total_ms = 60000;
	r.low_speed_s = 1;
	r.low_speed_bytes = 100;
	g = fetch_now(&r);
	assert_int_equal(g->rc, FETCH_TIMEOUT);
	assert_true(clock_mono_ms() - begin < 15000);
	r = request_for("/ok", 10);
	r.pin = &(struct net_address){ 0 };
	{
		struct net_address closed;

		assert_true(net_address_parse("127.0.0.1:1", &closed));
		r.pin = &closed;
		assert_int_equal(fetch_now(&r)->rc, FETCH_CONNECT);
	}
}

static void
test_ranges_headers_and_posts(void **state)
{
	static const char *const headers[] = { "X-One: 1", "If-None-Match: \"e\"", NULL };
	static uint8_t big[3 << 20];
	struct fetch_request r = request_for("/ok", 10);

	(void)state;
	r.ranged = true;
	r.range_first = 10;
	r.range_last = 19;
	r.headers = headers;
	assert_int_equal(fetch_now(&r)->rc, FETCH_OK);
	assert_non_null(strstr(last_head, "Range: bytes=10-19\r\n"));
	assert_non_null(strstr(last_head, "X-One: 1\r\n"));
	r = request_for("/ok", 10);
	r.post = true;
	r.body = SLICE("{\"a\":1}");
	assert_int_equal(fetch_now(&r)->rc, FETCH_OK);
	assert_non_null(strstr(last_head, "POST /ok HTTP/1.1\r\n"));
	assert_null(strstr(last_head, "Expect"));
	assert_null(strstr(last_head, "X-One"));
	assert_null(strstr(last_head, "Range"));
	assert_string_equal(last_body, "{\"a\":1}");
	r.body = slice_mem(big, sizeof(big)); /* libcurl would ask first whether it may */
	assert_int_equal(fetch_now(&r)->rc, FETCH_OK);
	assert_null(strstr(last_head, "Expect"));
	assert_int_equal(last_body_len, sizeof(big));
	r.body = slice_mem(NULL, 0);
	assert_int_equal(fetch_now(&r)->rc, FETCH_OK);
	assert_non_null(strstr(last_head, "Content-Length: 0\r\n"));
	assert_int_equal(get("/ok", 10)->rc,
	                 FETCH_OK); /* the same handle, nothing of the POST left */
	assert_non_null(strstr(last_head, "GET /ok"));
	assert_null(strstr(last_head, "Content-Length"));
}

static void
test_a_host_has_its_share_and_others_go_on(void **state)
{
	struct fetch_request silent = request_for("/silence", 10),
			     other = request_for("/ok", 10);
	struct got a[5], b;
	char url[128];

	(void)state;
	memset(a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	for (int i = 0; i < 5; i++)
		a[i].fetch = fetch_start(fetcher, &silent, on_answer, &a[i]);
	assert_int_equal(fetcher_count(fetcher), 5);
	(void)snprintf(url, sizeof(url), "https://localhost:%u/ok", web.port);
	other.url = url;
	b.fetch = fetch_start(fetcher, &other, on_answer, &b);
	TURN_UNTIL(loop, b.calls == 1);
	assert_int_equal(b.rc, FETCH_OK);
	TURN_UNTIL(loop, web.requests == 3);
	assert_int_equal(web.connections, 3); /* two of the five, and the other */
	fetch_cancel(&a[0].fetch);            /* running; the next may start */
	assert_null(a[0].fetch);
	fetch_cancel(&a[4].fetch); /* waiting */
	TURN_UNTIL(loop, web.requests == 4);
	assert_int_equal(fetcher_count(fetcher), 3);
	assert_int_equal(a[0].calls + a[4].calls, 0);
	buffer_free(&b.body);
	/* teardown: the others are cancelled with the fetcher */
}

static void
test_octets_at_once_are_bounded(void **state)
{
	struct fetch_request r = request_for("/silence", 600);
	struct got a[3];

	(void)state;
	fetcher_free(&fetcher);
	fetcher =
	    fetcher_new(loop, &(struct fetcher_config){ .max_octets = 1000, .max_waiting = 2 });
	memset(a, 0, sizeof(a));
	for (int i = 0; i < 3; i++)
		a[i].fetch = fetch_start(fetcher, &r, on_answer, &a[i]);
	TURN_UNTIL(loop, web.requests == 1);
	for (int i = 0; i < 20; i++)
		(void)loop_turn(loop, 0);
	assert_int_equal(web.requests, 1);
	assert_int_equal(fetch_now(&r)->rc, FETCH_OVERLOAD); /* one runs, two wait */
	fetch_cancel(&a[0].fetch);
	TURN_UNTIL(loop, web.requests == 2);
}

static int chain_left;

static void
fetch_next(struct got *g)
{
	struct fetch_request r = request_for("/ok", 10);

	buffer_free(&g->body);
	if (--chain_left > 0)
		g->fetch = fetch_start(fetcher, &r, on_answer, g);
}

static void
test_fetching_from_within_the_callback(void **state)
{
	struct got g = { .then = fetch_next };
	struct fetch_request r = request_for("/ok", 10);

	(void)state;
	chain_left = 200;
	g.fetch = fetch_start(fetcher, &r, on_answer, &g);
	TURN_UNTIL(loop, chain_left == 0);
	assert_int_equal(g.calls, 200);
	assert_true(g.reused);
	/* A callback comes before its own connection is free again, so two alternate. */
	assert_in_range(web.connections, 1, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_document_and_what_is_told_of_it),
		T(test_sizes),
		T(test_answers_other_than_2xx_are_answers),
		T(test_urls_that_are_not_fetched),
		T(test_the_host_of_a_url),
		T(test_private_addresses_are_refused_however_they_come),
		T(test_a_host_through_our_resolver),
		T(test_servers_must_prove_the_name),
		T(test_time_is_bounded),
		T(test_ranges_headers_and_posts),
		T(test_a_host_has_its_share_and_others_go_on),
		T(test_octets_at_once_are_bounded),
		T(test_fetching_from_within_the_callback),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
