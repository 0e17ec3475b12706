/* Event streams: framing, slow and vanished readers, heartbeats, the end of all. */
#include "base/clock.h"
#include "base/metric.h"
#include "web/http.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"
#include "web/stream.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

static struct web_server *server;
static uint16_t port;
static struct http_answer answer;
static struct web_stream_options stream_options;

static struct {
	pthread_mutex_t lock;
	pthread_cond_t change;
	struct web_stream *stream[64];
	struct web_request *req;
	int opened, closed;
	char last_id[64];
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };

static void
on_closed(struct web_stream *stream, void *arg)
{
	assert_non_null(stream);
	assert_ptr_equal(arg, &seen);
	pthread_mutex_lock(&seen.lock);
	seen.closed++;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static void
on_events(struct web_request *req, void *arg)
{
	struct web_stream *stream;
	struct slice last;

	(void)arg;
	if (web_request_header(req, "Last-Event-ID", &last))
		(void)snprintf(seen.last_id, sizeof(seen.last_id), "%.*s", (int)last.len,
		               (const char *)last.data);
	stream = web_stream_open(req, &stream_options);
	pthread_mutex_lock(&seen.lock);
	seen.stream[seen.opened++] = stream;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static void
on_later(struct web_request *req, void *arg)
{
	(void)arg;
	pthread_mutex_lock(&seen.lock);
	seen.req = req;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static struct web_request *
wait_request(void)
{
	struct web_request *req;

	pthread_mutex_lock(&seen.lock);
	while (seen.req == NULL)
		pthread_cond_wait(&seen.change, &seen.lock);
	req = seen.req;
	seen.req = NULL;
	pthread_mutex_unlock(&seen.lock);
	return req;
}

static struct web_stream *
wait_stream(int i)
{
	struct web_stream *s;

	pthread_mutex_lock(&seen.lock);
	while (seen.opened <= i)
		pthread_cond_wait(&seen.change, &seen.lock);
	s = seen.stream[i];
	pthread_mutex_unlock(&seen.lock);
	assert_non_null(s);
	return s;
}

/* Fails, rather than hangs, when it takes ten seconds. */
static void
wait_closed(int n)
{
	struct timespec until;
	int closed;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&seen.lock);
	while (seen.closed < n) {
		if (pthread_cond_timedwait(&seen.change, &seen.lock, &until) != 0)
			break;
	}
	closed = seen.closed;
	pthread_mutex_unlock(&seen.lock);
	assert_int_equal(closed, n);
}

static int
setup(void **state)
{
	static const struct web_route routes[] = { { WEB_GET, "/events", on_events, 0, 0 },
		                                   { WEB_GET, "/later", on_later, 0, 0 } };
	struct web_options o = { .listen = "127.0.0.1:0",
		                 .threads = 2,
		                 .connection_bytes = 4096,
		                 .routes = routes,
		                 .n_routes = 2 };
	char error[WEB_ERROR_TEXT];

	(void)state;
	seen.opened = seen.closed = 0;
	seen.last_id[0] = '\0';
	stream_options = (struct web_stream_options){ .closed = on_closed, .arg = &seen };
	if (web_server_start(&o, &server, error) != WEB_OK)
		return -1;
	port = web_server_port(server);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	web_server_stop(&server, 1000);
	assert_int_equal(seen.closed, seen.opened); /* exactly once each */
	for (int i = 0; i < seen.opened; i++)
		web_stream_unref(&seen.stream[i]);
	return 0;
}

static struct http_client *
open_stream(void)
{
	struct http_client *c = http_open(port);

	assert_true(http_send(c, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_true(http_read_head(c, &answer));
	assert_int_equal(answer.status, 200);
	assert_string_equal(http_header(&answer, "Content-Type"), "text/event-stream");
	return c;
}

/* Reads chunks until the text has come; what came before it is dropped with it. */
static void
expect(struct http_client *c, const char *text)
{
	char *at;
	bool last = false;

	answer.body[answer.len] = '\0';
	while ((at = strstr(answer.body, text)) == NULL) {
		assert_true(http_read_chunk(c, &answer, &last));
		assert_false(last);
	}
	at += strlen(text);
	answer.len -= (size_t)(at - answer.body);
	memmove(answer.body, at, answer.len + 1);
}

static void
send_text(struct web_stream *s, const char *id, const char *text)
{
	struct web_frame *f = web_frame_make(id, NULL, slice_str(text));

	assert_true(web_stream_send(s, f));
	web_frame_unref(&f);
}

static void
send_if_open(struct web_stream *s, const char *text)
{
	struct web_frame *f = web_frame_make(NULL, NULL, slice_str(text));

	(void)web_stream_send(s, f);
	web_frame_unref(&f);
}

/* --- frames ---------------------------------------------------------------- */

static void
test_frames(void **state)
{
	static const struct {
		const char *id, *event, *data, *octets; /* NULL octets: refused */
	} table[] = {
		{ NULL, NULL, "a", "data: a\n\n" },
		{ "7", "entry", "a", "id: 7\nevent: entry\ndata: a\n\n" },
		{ NULL, NULL, "", "data: \n\n" },
		{ NULL, NULL, "a\nb", "data: a\ndata: b\n\n" },
		{ NULL, NULL, "a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n" },
		{ NULL, NULL, "\n\n", "data: \ndata: \ndata: \n\n" },
		{ NULL, NULL, "a\n\nevent: x", "data: a\ndata: \ndata: event: x\n\n" },
		{ "a\nb", NULL, "a", NULL },
		{ NULL, "a\rb", "a", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct web_frame *f =
		    web_frame_make(table[i].id, table[i].event, slice_str(table[i].data));

		assert_int_equal(f == NULL, table[i].octets == NULL);
		if (f != NULL)
			assert_true(slice_eq_str(web_frame_octets(f), table[i].octets));
		web_frame_unref(&f);
	}
}

/* --- sending --------------------------------------------------------------- */

static void
test_events_arrive_as_they_are_sent(void **state)
{
	struct http_client *c = open_stream();
	struct web_stream *s = wait_stream(0);

	(void)state;
	expect(c, ":\n\n"); /* at once, so that nobody waits for the headers */
	for (int i = 0; i < 100; i++) {
		char id[16], text[64];

		(void)snprintf(id, sizeof(id), "%d", i);
		send_text(s, id, "line 1\nline 2");
		(void)snprintf(text, sizeof(text), "id: %d\ndata: line 1\ndata: line 2\n\n", i);
		expect(c, text);
	}
	web_stream_close(s);
	assert_false(web_stream_send(s, NULL)); /* never looked at */
	for (bool last = false; !last;)
		assert_true(http_read_chunk(c, &answer, &last));
	wait_closed(1);
	http_close(c);
}

static _Atomic int drained;

static void
on_drained(struct web_stream *stream, void *arg)
{
	assert_non_null(stream);
	assert_ptr_equal(arg, &seen);
	atomic_fetch_add(&drained, 1);
	pthread_mutex_lock(&seen.lock);
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static void
wait_drained(int n)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&seen.lock);
	while (atomic_load(&drained) < n) {
		if (pthread_cond_timedwait(&seen.change, &seen.lock, &until) != 0)
			break;
	}
	pthread_mutex_unlock(&seen.lock);
	assert_int_equal(atomic_load(&drained), n);
}

/* Once each time that the queue has become empty: who has much to send waits for that. */
static void
test_the_sender_hears_when_all_was_taken(void **state)
{
	struct http_client *c;
	struct web_stream *s;

	(void)state;
	atomic_store(&drained, 0);
	stream_options.drained = on_drained;
	c = open_stream();
	s = wait_stream(0);
	wait_drained(1); /* the stream's own beginning */
	for (int i = 2; i < 5; i++) {
		send_text(s, NULL, "x");
		wait_drained(i);
	}
	http_close(c);
	web_stream_close(s);
	wait_closed(1);
	assert_int_equal(atomic_load(&drained), 4);
}

static void
test_large_frames_and_many_at_once_keep_their_order(void **state)
{
	struct http_client *c = open_stream();
	struct web_stream *s = wait_stream(0);
	static char big[20001];

	(void)state;
	memset(big, 'x', 20000);
	send_text(s, "1", big);
	send_text(s, "2", "b");
	for (int i = 0; i < 500; i++)
		send_text(s, NULL, "c");
	send_text(s, "end", "d");
	expect(c, "id: 1\ndata: xxx");
	expect(c, "xxx\n\nid: 2\ndata: b\n\ndata: c\n\n");
	expect(c, "id: end\ndata: d\n\n");
	http_close(c);
}

static void
test_one_frame_for_many_streams(void **state)
{
	struct http_client *c[32];
	struct web_frame *f;

	(void)state;
	for (int i = 0; i < 32; i++)
		c[i] = open_stream();
	f = web_frame_make("9", "entry", SLICE("shared"));
	for (int i = 0; i < 32; i++)
		assert_true(web_stream_send(wait_stream(i), f));
	web_frame_unref(&f);
	for (int i = 0; i < 32; i++) {
		answer.len = 0;
		expect(c[i], "id: 9\nevent: entry\ndata: shared\n\n");
		http_close(c[i]);
	}
}

static void
test_a_stream_opened_later_by_another_thread(void **state)
{
	struct http_client *c = http_open(port);
	struct web_stream *s;

	(void)state;
	assert_true(http_send(c, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"));
	stream_options.retry_ms = 1500;
	s = web_stream_open(wait_request(), &stream_options);
	assert_non_null(s);
	send_text(s, "1", "before the headers, perhaps");
	assert_true(http_read_head(c, &answer));
	expect(c, "retry: 1500\n\n");
	expect(c, "id: 1\ndata: before the headers, perhaps\n\n");
	http_close(c);
	seen.stream[seen.opened++] = s;
}

static void
test_last_event_id_can_be_read_before_replay(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	assert_true(
	    http_send(c, "GET /events HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 0190-41\r\n\r\n"));
	assert_true(http_read_head(c, &answer));
	send_text(wait_stream(0), "0190-42", "missed");
	assert_string_equal(seen.last_id, "0190-41");
	expect(c, "id: 0190-42\ndata: missed\n\n");
	http_close(c);
}

static void *
send_many(void *arg)
{
	struct web_frame *f = web_frame_make(NULL, NULL, SLICE("m"));
	intptr_t sent = 0;

	for (int i = 0; i < 2000; i++)
		sent += web_stream_send(arg, f);
	web_frame_unref(&f);
	return (void *)sent;
}

static void
test_senders_on_many_threads(void **state)
{
	struct http_client *c;
	struct web_stream *s;
	pthread_t threads[4];
	size_t want = 0, got = 0;
	void *sent;

	(void)state;
	stream_options.buffer_max = 1 << 20;
	c = open_stream();
	s = wait_stream(0);
	expect(c, ":\n\n");
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_many, s), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &sent), 0);
		want += (size_t)(intptr_t)sent;
	}
	assert_int_equal(want, 8000);
	answer.len = 0;
	while (got < want * strlen("data: m\n\n")) {
		bool last;

		answer.len = 0;
		assert_true(http_read_chunk(c, &answer, &last));
		got += answer.len;
	}
	assert_int_equal(got, want * strlen("data: m\n\n"));
	http_close(c);
}

/* --- who doesn't read, who is gone ----------------------------------------- */

static void
test_a_slow_reader_is_cut_and_the_others_go_on(void **state)
{
	struct http_client *slow = open_stream(), *good = open_stream();
	struct web_stream *s = wait_stream(0);
	static char big[8001];
	struct web_frame *f;
	int sent = 0;

	(void)state;
	memset(big, 'x', 8000);
	f = web_frame_make(NULL, NULL, slice_str(big));
	while (sent < 100000 && web_stream_send(s, f))
		sent++;
	assert_true(sent < 100000); /* the kernel's buffers and 64 KiB, then no more */
	assert_false(web_stream_send(s, f));
	web_frame_unref(&f);
	wait_closed(1);
	answer.len = 0;
	send_text(wait_stream(1), NULL, "still here");
	expect(good, "data: still here\n\n");
	http_close(slow);
	http_close(good);
}

static void
test_a_frame_above_the_bound_ends_the_stream(void **state)
{
	struct http_client *c;
	struct web_frame *f =
	    web_frame_make(NULL, NULL, SLICE("0123456789012345678901234567890123456789"));

	(void)state;
	stream_options.buffer_max = 20;
	c = open_stream();
	expect(c, ":\n\n");
	assert_false(web_stream_send(wait_stream(0), f));
	web_frame_unref(&f);
	wait_closed(1);
	http_close(c);
}

static void
test_heartbeats_come_when_nothing_else_does(void **state)
{
	struct http_client *c;

	(void)state;
	stream_options.heartbeat_ms = 40;
	c = open_stream();
	for (int i = 0; i < 4; i++)
		expect(c, ":\n\n");
	send_text(wait_stream(0), NULL, "event");
	expect(c, "data: event\n\n");
	expect(c, ":\n\n");
	http_close(c);
}

static void
test_a_heartbeat_finds_a_vanished_client(void **state)
{
	struct http_client *c;

	(void)state;
	stream_options.heartbeat_ms = 30;
	for (int i = 0; i < 10; i++) {
		c = open_stream();
		(void)wait_stream(i);
		http_close(c);
	}
	wait_closed(10);
	assert_false(web_stream_send(wait_stream(3), NULL));
}

/* Between heartbeats too: they are 25 seconds apart, and patience is shorter. */
static void
test_a_client_that_leaves_is_noticed_before_the_heartbeat(void **state)
{
	struct http_client *c = open_stream(), *stays = open_stream();

	(void)state;
	expect(c, ":\n\n");
	expect(stays, ":\n\n");
	http_close(c);
	wait_closed(1);
	for (int i = 0; i < 2; i++)
		send_if_open(wait_stream(i), "still there");
	expect(stays, "data: still there\n\n");
	http_close(stays);
	wait_closed(2);
}

/* The trap of libmicrohttpd 0.9.75: a reader that returns 0 is asked again and again. */
static void
test_an_idle_stream_costs_no_time(void **state)
{
	struct http_client *c = open_stream();
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	struct timespec a, b;
	int64_t used_ms;

	(void)state;
	expect(c, ":\n\n");
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	assert_int_equal(poll(&p, 1, 400), 0); /* nothing comes */
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	used_ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
	assert_true(used_ms < 100);
	http_close(c);
}

static void
test_http_1_0_gets_its_events_too(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	assert_true(http_send(c, "GET /events HTTP/1.0\r\n\r\n"));
	assert_true(http_read_head(c, &answer));
	assert_null(http_header(&answer, "Transfer-Encoding"));
	send_text(wait_stream(0), NULL, "plain");
	while (strstr(c->in, "data: plain\n\n") == NULL)
		assert_true(http_fill(c));
	http_close(c);
}

/* --- the end of all -------------------------------------------------------- */

static void
test_stopping_ends_streams_after_what_is_queued(void **state)
{
	struct http_client *c[8];
	bool last = false;

	(void)state;
	for (int i = 0; i < 8; i++) {
		c[i] = open_stream();
		send_text(wait_stream(i), NULL, "farewell");
	}
	web_server_stop(&server, 5000);
	assert_int_equal(seen.closed, 8);
	for (int i = 0; i < 8; i++) {
		answer.len = 0;
		expect(c[i], "data: farewell\n\n");
		for (last = false; !last;)
			assert_true(http_read_chunk(c[i], &answer, &last));
		http_close(c[i]);
		assert_false(web_stream_send(seen.stream[i], NULL));
		web_stream_close(seen.stream[i]); /* no harm */
	}
}

static void
test_stopping_does_not_wait_for_a_stuck_reader(void **state)
{
	struct http_client *c;
	static char big[8001];
	struct web_frame *f;
	int64_t start_ms = clock_mono_ms();

	(void)state;
	stream_options.buffer_max = 64 << 20;
	c = open_stream();
	memset(big, 'x', 8000);
	f = web_frame_make(NULL, NULL, slice_str(big));
	/* More than the kernel takes, less than what cuts the stream. */
	for (int i = 0; i < 4000; i++)
		assert_true(web_stream_send(wait_stream(0), f));
	web_frame_unref(&f);
	assert_int_equal(seen.closed, 0);
	web_server_stop(&server, 50);
	assert_int_equal(seen.closed, 1);
	assert_true(clock_mono_ms() - start_ms < 8000);
	http_close(c);
}

static void
test_a_stream_opened_after_the_stop_ends_at_once(void **state)
{
	struct http_client *c = http_open(port);
	struct web_request *req;

	(void)state;
	assert_true(http_send(c, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"));
	req = wait_request();
	web_server_stop(&server, 0);
	assert_true(http_read_head(c, &answer));
	assert_int_equal(answer.status, 503);
	seen.stream[seen.opened++] = web_stream_open(req, &stream_options);
	assert_non_null(seen.stream[0]);
	assert_int_equal(seen.closed, 1);
	assert_false(web_stream_send(seen.stream[0], NULL));
	http_close(c);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		T(test_events_arrive_as_they_are_sent),
		T(test_the_sender_hears_when_all_was_taken),
		T(test_large_frames_and_many_at_once_keep_their_order),
		T(test_one_frame_for_many_streams),
		T(test_a_stream_opened_later_by_another_thread),
		T(test_last_event_id_can_be_read_before_replay),
		T(test_senders_on_many_threads),
		T(test_a_slow_reader_is_cut_and_the_others_go_on),
		T(test_a_frame_above_the_bound_ends_the_stream),
		T(test_heartbeats_come_when_nothing_else_does),
		T(test_a_heartbeat_finds_a_vanished_client),
		T(test_a_client_that_leaves_is_noticed_before_the_heartbeat),
		T(test_an_idle_stream_costs_no_time),
		T(test_http_1_0_gets_its_events_too),
		T(test_stopping_ends_streams_after_what_is_queued),
		T(test_stopping_does_not_wait_for_a_stuck_reader),
		T(test_a_stream_opened_after_the_stop_ends_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
