/* Bodies taken piece by piece, and objects given so: back-pressure, early answers, deadlines, the end of a server. */
#include "base/clock.h"
#include "web/download.h"
#include "web/http.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"
#include "web/upload.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#define PIECE 1000
#define BODY_MAX 100000

static struct web_server *server;
static uint16_t port;
static struct http_answer answer;

/* What the owner does, and what it saw. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t change;
	bool hold_open, hold_pieces; /* until the test goes on */
	bool refuse;                 /* before the body */
	int answer_at;               /* a piece's number; 0: the last one */
	struct web_request *req;     /* held */
	int pieces, freed;
	size_t lens[128];
	uint8_t body[BODY_MAX];
	size_t len;
	bool last;
	/* Of downloads. */
	struct web_download *download;
	uint64_t at;
	bool hold_wants;
	int wants, fail_at, let_go;
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };

/* Fails, rather than hangs, when it takes ten seconds. */
#define WAIT(condition)                                                                \
	do {                                                                           \
		struct timespec until;                                                 \
		int rc = 0;                                                            \
		(void)clock_gettime(CLOCK_REALTIME, &until);                           \
		until.tv_sec += 10;                                                    \
		pthread_mutex_lock(&seen.lock);                                        \
		while (!(condition) && rc == 0)                                        \
			rc = pthread_cond_timedwait(&seen.change, &seen.lock, &until); \
		pthread_mutex_unlock(&seen.lock);                                      \
		assert_int_equal(rc, 0);                                               \
	} while (0)

static void
on_freed(void *ctx)
{
	(void)ctx;
	pthread_mutex_lock(&seen.lock);
	seen.freed++;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static void
reply_size(struct web_request *req)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%zu", seen.len);
	web_reply_bytes(req, 201, "text/plain", slice_str(text));
}

static void
on_piece(struct web_request *req, struct slice piece, bool last, void *arg)
{
	bool held, answers;

	assert_ptr_equal(arg, &seen);
	pthread_mutex_lock(&seen.lock);
	if (piece.len > 0)
		memcpy(seen.body + seen.len, piece.data, piece.len);
	seen.len += piece.len;
	seen.lens[seen.pieces++] = piece.len;
	seen.last = last;
	held = seen.hold_pieces;
	answers = last || seen.pieces == seen.answer_at;
	if (held)
		seen.req = req;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
	if (held)
		return;
	if (!answers)
		web_upload_next(req);
	else if (last)
		reply_size(req);
	else
		web_reply_problem(req, &web_unavailable, NULL);
}

static void
on_upload(struct web_request *req, void *arg)
{
	bool held;

	(void)arg;
	web_request_set_ctx(req, &seen, on_freed);
	pthread_mutex_lock(&seen.lock);
	held = seen.hold_open;
	if (held)
		seen.req = req;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
	if (seen.refuse)
		web_reply_problem(req, &web_forbidden, NULL);
	else if (!held)
		web_upload_begin(req, PIECE, on_piece, &seen);
}

static struct web_request *
held(void)
{
	struct web_request *req;

	WAIT(seen.req != NULL);
	req = seen.req;
	seen.req = NULL;
	return req;
}

/* --- downloads --- */

#define OBJECT 5000

static uint8_t
octet_of(uint64_t at)
{
	return (uint8_t)('a' + at % 23);
}

/* Pieces of PIECE octets, as a store has them. */
static void
give(struct web_download *d, uint64_t at)
{
	uint64_t first = at / PIECE * PIECE;
	uint8_t *data = malloc(PIECE);

	for (size_t i = 0; i < PIECE; i++)
		data[i] = octet_of(first + i);
	web_download_give(d, data, first + PIECE > OBJECT ? OBJECT - first : PIECE, at - first);
}

static void
want(struct web_download *d, uint64_t at, void *owner)
{
	bool held_want, fails;

	assert_ptr_equal(owner, &seen);
	pthread_mutex_lock(&seen.lock);
	fails = ++seen.wants == seen.fail_at;
	held_want = seen.hold_wants;
	seen.download = d;
	seen.at = at;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
	if (fails)
		web_download_give(d, NULL, 0, 0);
	else if (!held_want)
		give(d, at);
}

static void
on_let_go(void *owner)
{
	(void)owner;
	pthread_mutex_lock(&seen.lock);
	seen.let_go++;
	pthread_cond_broadcast(&seen.change);
	pthread_mutex_unlock(&seen.lock);
}

static void
on_object(struct web_request *req, void *arg)
{
	(void)arg;
	web_reply_object(req, &(struct web_object){ .content_type = "text/plain",
	                                            .etag = "\"e\"",
	                                            .len = OBJECT,
	                                            .want = want,
	                                            .free_data = on_let_go,
	                                            .owner = &seen });
}

/* --- the server --- */

static int
setup(void **state)
{
	static const struct web_route routes[] = {
		{ WEB_POST, "/up", on_upload, BODY_MAX, WEB_STREAM_BODY },
		{ WEB_GET, "/object", on_object, 0, 0 },
	};
	struct web_options o = { .listen = "127.0.0.1:0",
		                 .threads = 2,
		                 .request_s = 1,
		                 .routes = routes,
		                 .n_routes = 2 };
	char error[WEB_ERROR_TEXT];

	(void)state;
	seen.hold_open = seen.hold_pieces = seen.refuse = seen.last = seen.hold_wants = false;
	seen.answer_at = seen.pieces = seen.freed = seen.wants = seen.fail_at = seen.let_go = 0;
	seen.len = 0;
	seen.req = NULL;
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
	return 0;
}

static void
send_head(struct http_client *c, const char *more)
{
	char text[256];

	(void)snprintf(text, sizeof(text), "POST /up HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", more);
	assert_true(http_send(c, text));
}

static void
send_octets(struct http_client *c, size_t from, size_t n)
{
	char text[1024];

	while (n > 0) {
		size_t some = n < sizeof(text) - 1 ? n : sizeof(text) - 1;

		for (size_t i = 0; i < some; i++)
			text[i] = (char)octet_of(from + i);
		text[some] = '\0';
		assert_true(http_send(c, text));
		from += some;
		n -= some;
	}
}

static void
expect_octets(const uint8_t *data, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(data[i], octet_of(from + i));
}

/* --- uploads ------------------------------------------------------------------ */

static void
upload_of(size_t len, bool hold_open)
{
	struct http_client *c = http_open(port);
	char head[64];

	seen.hold_open = hold_open;
	(void)snprintf(head, sizeof(head), "Content-Length: %zu", len);
	send_head(c, head);
	if (hold_open) /* while octets are under way, or before */
		web_upload_begin(held(), PIECE, on_piece, &seen);
	send_octets(c, 0, len);
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 201);
	assert_int_equal(atoi(answer.body), (int)len);
	expect_octets(seen.body, 0, len);
	for (int i = 0; i < seen.pieces - 1; i++)
		assert_int_equal(seen.lens[i], PIECE);
	assert_true(seen.last);
	http_close(c);
	WAIT(seen.freed == 1);
}

static void
test_pieces_are_whole_but_for_the_last(void **state)
{
	(void)state;
	upload_of(3 * PIECE + 17, false);
	assert_int_equal(seen.pieces, 4);
}

static void
test_an_exact_number_of_pieces_ends_in_an_empty_one(void **state)
{
	(void)state;
	upload_of(3 * PIECE, false);
	assert_int_equal(seen.pieces, 4);
	assert_int_equal(seen.lens[3], 0);
}

static void
test_it_may_be_taken_later(void **state)
{
	(void)state;
	upload_of(50 * PIECE + 1, true);
}

static void
test_an_empty_body_is_one_empty_piece(void **state)
{
	(void)state;
	upload_of(0, true);
	assert_int_equal(seen.pieces, 1);
}

static void
test_chunks_and_two_uploads_on_one_connection(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	for (int i = 1; i <= 2; i++) {
		seen.len = 0;
		send_head(c, "Transfer-Encoding: chunked");
		assert_true(http_send(c, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
		assert_true(http_read(c, &answer, false));
		assert_int_equal(answer.status, 201);
		expect_octets(seen.body, 0, 5);
		WAIT(seen.freed == i);
	}
	http_close(c);
}

/* Nothing is read while the owner has a piece: the client's octets stay in the sockets. */
static void
test_nothing_is_taken_while_a_piece_is_held(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	seen.hold_pieces = true;
	send_head(c, "Content-Length: 50000");
	send_octets(c, 0, 50000);
	for (int i = 1; i <= 51; i++) {
		struct web_request *req = held();

		assert_int_equal(seen.pieces, i);
		if (seen.last)
			reply_size(req);
		else
			web_upload_next(req);
	}
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 201);
	http_close(c);
}

static void
test_it_may_be_refused_before_the_body(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	seen.refuse = true;
	send_head(c, "Content-Length: 5000\r\nExpect: 100-continue");
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 403);
	http_close(c);
	/* Who sends without asking is read to the end, or would hear a reset in place of the answer. */
	for (int later = 0; later < 2; later++) {
		c = http_open(port);
		seen.refuse = later == 0;
		seen.hold_open = later == 1;
		send_head(c, "Content-Length: 90000");
		send_octets(c, 0, 45000);
		if (later == 1)
			web_reply_problem(held(), &web_forbidden, NULL);
		send_octets(c, 45000, 45000);
		assert_true(http_read(c, &answer, false));
		assert_int_equal(answer.status, 403);
		http_close(c);
	}
	c = http_open(port);
	send_head(c, "Content-Length: 100001");
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 413);
	http_close(c);
	assert_int_equal(seen.pieces, 0);
}

static void
test_an_answer_in_the_middle_comes_after_the_body(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	seen.answer_at = 2;
	send_head(c, "Content-Length: 50000");
	send_octets(c, 0, 50000);
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 503);
	assert_int_equal(seen.pieces, 2);
	http_close(c);
	WAIT(seen.freed == 1);
}

static void
test_chunks_beyond_the_limit_are_refused(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	send_head(c, "Transfer-Encoding: chunked");
	assert_true(http_send(c, "186a1\r\n")); /* 100001 */
	send_octets(c, 0, 100001);
	assert_true(http_send(c, "\r\n0\r\n\r\n"));
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 413);
	http_close(c);
}

static void
test_who_stops_sending_is_cut(void **state)
{
	struct http_client *c = http_open(port);
	int64_t start_ms = clock_mono_ms();

	(void)state;
	send_head(c, "Content-Length: 5000");
	send_octets(c, 0, 2500);
	assert_false(http_read_head(c, &answer));
	assert_in_range(clock_mono_ms() - start_ms, 900, 9000);
	WAIT(seen.freed == 1);
	assert_int_equal(seen.pieces, 2);
	http_close(c);
}

static void
test_who_is_slow_but_goes_on_is_not(void **state)
{
	struct http_client *c = http_open(port);
	const struct timespec pause = { .tv_nsec = 400000000 };

	(void)state;
	send_head(c, "Content-Length: 6000");
	for (size_t i = 0; i < 6; i++) { /* 2.4 s, of which no piece takes one */
		send_octets(c, i * PIECE, PIECE);
		(void)nanosleep(&pause, NULL);
	}
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 201);
	http_close(c);
}

static void
test_who_leaves_is_noticed(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	send_head(c, "Content-Length: 5000");
	send_octets(c, 0, 2500);
	WAIT(seen.pieces == 2);
	http_close(c);
	WAIT(seen.freed == 1);
}

static void
test_who_leaves_while_a_piece_is_held(void **state)
{
	struct http_client *c = http_open(port);
	struct web_request *req;

	(void)state;
	seen.hold_pieces = true;
	send_head(c, "Content-Length: 5000");
	send_octets(c, 0, 2500);
	req = held();
	http_close(c);
	assert_int_equal(seen.freed, 0); /* the owner still has it */
	seen.hold_pieces = false;
	web_upload_next(req);
	WAIT(seen.freed == 1);
}

/* The owner's answer and its wish for more go nowhere, and free the request. */
static void
test_stopping_while_a_piece_is_held(void **state)
{
	struct http_client *c = http_open(port), *d = http_open(port);
	struct web_request *first, *second;

	(void)state;
	seen.hold_pieces = true;
	send_head(c, "Content-Length: 5000");
	send_octets(c, 0, 2500);
	first = held();
	send_head(d, "Content-Length: 5000");
	send_octets(d, 0, 2500);
	second = held();
	web_server_stop(&server, 100);
	web_upload_next(first);
	reply_size(second);
	WAIT(seen.freed == 2);
	http_close(c);
	http_close(d);
}

static void
test_stopping_while_a_body_comes(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	send_head(c, "Content-Length: 5000");
	send_octets(c, 0, 2500);
	WAIT(seen.pieces == 2);
	web_server_stop(&server, 100);
	assert_int_equal(seen.freed, 1);
	http_close(c);
}

/* --- downloads ------------------------------------------------------------------ */

static void
get(struct http_client *c, const char *more)
{
	char text[256];

	(void)snprintf(text, sizeof(text), "GET /object HTTP/1.1\r\nHost: a\r\n%s\r\n", more);
	assert_true(http_send(c, text));
}

static void
test_an_object_is_asked_for_as_it_is_taken(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	get(c, "");
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.status, 200);
	assert_int_equal(answer.len, OBJECT);
	expect_octets((const uint8_t *)answer.body, 0, OBJECT);
	assert_int_equal(seen.wants, 5);
	WAIT(seen.let_go == 1);
	get(c, "If-None-Match: \"e\"\r\n");
	assert_true(http_read(c, &answer, true));
	assert_int_equal(answer.status, 304);
	WAIT(seen.let_go == 2);
	assert_true(http_send(c, "HEAD /object HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_true(http_read(c, &answer, true));
	assert_string_equal(http_header(&answer, "Content-Length"), "5000");
	WAIT(seen.let_go == 3);
	assert_int_equal(seen.wants, 5);
	http_close(c);
}

static void
test_ranges_begin_and_end_within_pieces(void **state)
{
	static const struct {
		const char *range;
		size_t from, len;
		int wants;
	} table[] = {
		{ "bytes=0-0", 0, 1, 1 },
		{ "bytes=999-1000", 999, 2, 2 },
		{ "bytes=1500-", 1500, 3500, 4 },
		{ "bytes=-1", 4999, 1, 1 },
		{ "bytes=2000-2999", 2000, 1000, 1 },
	};
	struct http_client *c = http_open(port);
	char more[64];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		seen.wants = 0;
		(void)snprintf(more, sizeof(more), "Range: %s\r\n", table[i].range);
		get(c, more);
		assert_true(http_read(c, &answer, false));
		assert_int_equal(answer.status, 206);
		assert_int_equal(answer.len, table[i].len);
		expect_octets((const uint8_t *)answer.body, table[i].from, table[i].len);
		assert_int_equal(seen.wants, table[i].wants);
	}
	http_close(c);
}

static void
test_what_can_not_be_had_cuts_the_answer(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	seen.fail_at = 3;
	get(c, "");
	assert_true(http_read_head(c, &answer));
	assert_int_equal(answer.status, 200);
	assert_false(http_read_octets(c, &answer, OBJECT));
	http_close(c);
	WAIT(seen.let_go == 1);
}

static void
test_an_answer_from_another_thread(void **state)
{
	struct http_client *c = http_open(port);

	(void)state;
	seen.hold_wants = true;
	get(c, "");
	for (int i = 1; i <= 5; i++) {
		WAIT(seen.wants == i);
		assert_int_equal(seen.at, (uint64_t)(i - 1) * PIECE);
		give(seen.download, seen.at);
	}
	assert_true(http_read(c, &answer, false));
	assert_int_equal(answer.len, OBJECT);
	http_close(c);
}

static void *
give_later(void *arg)
{
	const struct timespec pause = { .tv_nsec = 300000000 };

	(void)nanosleep(&pause, NULL);
	give(arg, seen.at);
	return NULL;
}

/* The server waits for the answer that is owed to it, even when its client has left. */
static void
test_stopping_while_octets_are_wanted(void **state)
{
	struct http_client *c = http_open(port);
	pthread_t thread;

	(void)state;
	seen.hold_wants = true;
	get(c, "");
	WAIT(seen.wants == 1);
	http_close(c);
	assert_int_equal(pthread_create(&thread, NULL, give_later, seen.download), 0);
	web_server_stop(&server, 0);
	(void)pthread_join(thread, NULL);
	assert_int_equal(seen.let_go, 1);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_pieces_are_whole_but_for_the_last),
		T(test_an_exact_number_of_pieces_ends_in_an_empty_one),
		T(test_it_may_be_taken_later),
		T(test_an_empty_body_is_one_empty_piece),
		T(test_chunks_and_two_uploads_on_one_connection),
		T(test_nothing_is_taken_while_a_piece_is_held),
		T(test_it_may_be_refused_before_the_body),
		T(test_an_answer_in_the_middle_comes_after_the_body),
		T(test_chunks_beyond_the_limit_are_refused),
		T(test_who_stops_sending_is_cut),
		T(test_who_is_slow_but_goes_on_is_not),
		T(test_who_leaves_is_noticed),
		T(test_who_leaves_while_a_piece_is_held),
		T(test_stopping_while_a_piece_is_held),
		T(test_stopping_while_a_body_comes),
		T(test_an_object_is_asked_for_as_it_is_taken),
		T(test_ranges_begin_and_end_within_pieces),
		T(test_what_can_not_be_had_cuts_the_answer),
		T(test_an_answer_from_another_thread),
		T(test_stopping_while_octets_are_wanted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
