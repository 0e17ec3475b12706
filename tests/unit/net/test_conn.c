/*
 * net/conn over real sockets on loopback: plain, TLS, the change between them, bounds,
 * deadlines, ends.
 */
#include "net_test.h"

#include "net/conn_state.h"

#include <errno.h>
#include <poll.h>

static struct loop *loop;
static struct listener *listener;
static struct net_address here;
static struct tls_server *tls_server;
static struct tls_client *tls_client;
static struct side client, server;
static struct conn_config server_config; /* what the next accepted connection gets */
static bool server_tls;                  /* TLS at once */

static void
on_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	struct conn_config config = server_config;

	(void)arg;
	config.events = &side_events;
	config.arg = &server;
	config.seat = seat;
	assert_null(server.conn);
	server.conn = conn_new(loop, fd, peer, &config);
	assert_non_null(server.conn);
	if (server_tls)
		assert_int_equal(conn_start_tls_server(server.conn, tls_server, true), CONN_OK);
}

static int
setup(void **state)
{
	struct listener_config config = { .bind = "127.0.0.1:0", .accepted = on_accepted };
	char why[NET_TEXT];

	(void)state;
	loop = loop_new();
	assert_non_null(loop);
	listener = listener_new(loop, &config, why);
	assert_non_null(listener);
	listener_address(listener, &here);
	side_init(&client);
	side_init(&server);
	server_config = (struct conn_config){ 0 };
	server_tls = false;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	side_free(&client);
	side_free(&server);
	listener_free(&listener);
	loop_free(&loop);
	return 0;
}

static int
group_setup(void **state)
{
	struct test_cert t = { .cn = "Test CA", .ca = true };
	struct test_ca ca = test_cert_make(&t);
	struct tls_identity home, sender;
	char why[NET_TEXT];

	(void)state;
	test_cert_write("ca", &ca, NULL);
	test_cert_put(
	    "home", &(struct test_cert){ .cn = "h", .san = "DNS:home.example", .issuer = &ca });
	test_cert_put("sender", &(struct test_cert){
				    .cn = "s", .san = "DNS:sender.example", .issuer = &ca });
	test_cert_free(&ca);
	home = test_identity("home.example", "home");
	sender = test_identity("sender.example", "sender");
	assert_int_equal(
	    tls_server_new(&(struct tls_server_config){ .identities = &home,
	                                                .count = 1,
	                                                .ca_file = test_path("ca.crt"),
	                                                .alpn = "dmtp/1" },
	                   &tls_server, why),
	    TLS_OK);
	assert_int_equal(
	    tls_client_new(&(struct tls_client_config){ .identities = &sender,
	                                                .count = 1,
	                                                .ca_file = test_path("ca.crt"),
	                                                .alpn = "dmtp/1" },
	                   &tls_client, why),
	    TLS_OK);
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	tls_server_free(&tls_server);
	tls_client_free(&tls_client);
	test_remove_dir();
	return 0;
}

static void
connect_client(const struct conn_config *base)
{
	struct conn_config config = base == NULL ? (struct conn_config){ 0 } : *base;

	config.events = &side_events;
	config.arg = &client;
	client.conn = conn_connect(loop, &here, 1, false, &config);
	assert_non_null(client.conn);
}

/* Both ends established, with TLS or without. */
static void
establish(bool tls, const struct conn_config *base)
{
	server_tls = tls;
	connect_client(base);
	if (tls)
		assert_int_equal(conn_start_tls_client(client.conn, tls_client, "home.example",
		                                       "sender.example"),
		                 CONN_OK);
	TURN_UNTIL(loop, client.connected == 1 && server.conn != NULL);
	if (tls)
		TURN_UNTIL(loop, client.secured == 1 && server.secured == 1);
}

static void
say(struct side *s, const char *text)
{
	assert_int_equal(conn_write(s->conn, slice_str(text)), CONN_OK);
}

/* A peer that is no conn: a blocking socket. */
static int
raw_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&here.ss, here.len), 0);
	TURN_UNTIL(loop, server.conn != NULL);
	return fd;
}

/* A raw peer that speaks TLS, octet by octet if asked. */
static void
raw_handshake(int fd, struct tls_stream *tls, size_t chunk)
{
	uint8_t in[4096];
	enum tls_rc rc;

	while ((rc = tls_stream_handshake(tls)) != TLS_DONE || tls->wire.len > 0) {
		assert_true(rc == TLS_MORE || rc == TLS_DONE);
		for (size_t at = 0; at < tls->wire.len; at += chunk) {
			size_t n = tls->wire.len - at < chunk ? tls->wire.len - at : chunk;

			assert_int_equal(send(fd, tls->wire.data + at, n, 0), (ssize_t)n);
			(void)loop_turn(loop, 0);
		}
		buffer_clear(&tls->wire);
		if (rc == TLS_MORE) {
			ssize_t n;

			TURN_UNTIL(loop, (n = recv(fd, in, sizeof(in), MSG_DONTWAIT)) > 0);
			tls->in = slice_mem(in, (size_t)n);
		}
	}
	TURN_UNTIL(loop, server.secured == 1);
}

/* --- plain ---------------------------------------------------------------------------- */

static void
test_octets_both_ways_and_half_close(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		establish(tls, NULL);
		say(&client, "one ");
		say(&client, "two");
		TURN_UNTIL(loop, side_got(&server, "one two"));
		assert_int_equal(server.most_seen,
		                 7); /* what one turn writes comes in one piece */
		conn_shutdown(client.conn);
		assert_int_equal(conn_write(client.conn, SLICE("late")), CONN_CLOSED);
		TURN_UNTIL(loop, server.ended == 1);
		assert_true(server.clean);
		say(&server, "the other half still works");
		TURN_UNTIL(loop, side_got(&client, "the other half still works"));
		conn_shutdown(server.conn);
		TURN_UNTIL(loop, client.ended == 1);
		assert_true(client.clean);
		assert_int_equal(client.closed + server.closed, 0);
		side_free(&client);
		side_free(&server);
		assert_int_equal(listener_counts(listener).now, 0);
		side_init(&client);
		side_init(&server);
	}
}

static void
test_half_close_in_tls_1_2(void **state)
{
	struct tls_stream *tls = tls_stream_new_client(tls_client, "home.example", NULL);
	uint8_t buf[4096];
	size_t got;
	int fd;

	(void)state;
	server_tls = true;
	assert_int_equal(SSL_set_max_proto_version(tls->ssl, TLS1_2_VERSION), 1);
	fd = raw_connect();
	raw_handshake(fd, tls, 4096);
	assert_string_equal(conn_tls_peer(server.conn)->version, "TLSv1.2");
	assert_int_equal(tls_stream_write(tls, SLICE("bye")), TLS_DONE);
	tls_stream_shutdown(tls);
	assert_true(send(fd, tls->wire.data, tls->wire.len, 0) > 0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	TURN_UNTIL(loop, server.ended == 1);
	assert_true(side_got(&server, "bye") && server.clean);
	say(&server, "answered");
	conn_shutdown(server.conn);
	TURN_UNTIL(loop, conn_unsent(server.conn) == 0);
	(void)loop_turn(loop, 0);
	tls->in = slice_mem(buf, (size_t)recv(fd, buf, sizeof(buf), 0));
	{
		char text[32] = "";

		assert_int_equal(tls_stream_read(tls, (uint8_t *)text, sizeof(text), &got),
		                 TLS_DONE);
		assert_string_equal(text, "answered");
	}
	while (tls_stream_read(tls, buf, 1, &got) == TLS_MORE)
		tls->in = slice_mem(buf, (size_t)recv(fd, buf, sizeof(buf), 0));
	assert_int_equal(recv(fd, buf, 1, 0), 0);
	tls_stream_free(&tls);
	(void)close(fd);
}

static void
test_a_bare_fin_in_tls_is_told_apart(void **state)
{
	struct tls_stream *tls = tls_stream_new_client(tls_client, "home.example", NULL);
	int fd;

	(void)state;
	server_tls = true;
	fd = raw_connect();
	raw_handshake(fd, tls, 4096);
	assert_int_equal(tls_stream_write(tls, SLICE("cut he")), TLS_DONE);
	assert_true(send(fd, tls->wire.data, tls->wire.len, 0) > 0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	TURN_UNTIL(loop, server.ended == 1);
	assert_true(side_got(&server, "cut he"));
	assert_false(server.clean);
	tls_stream_free(&tls);
	(void)close(fd);
}

static void
test_a_handshake_octet_by_octet(void **state)
{
	struct tls_stream *tls =
	    tls_stream_new_client(tls_client, "home.example", "sender.example");
	int fd;

	(void)state;
	server_tls = true;
	fd = raw_connect();
	raw_handshake(fd, tls, 1);
	assert_true(tls_peer_is(conn_tls_peer(server.conn), SLICE("sender.example")));
	assert_int_equal(tls_stream_write(tls, SLICE("trickled")), TLS_DONE);
	for (size_t i = 0; i < tls->wire.len; i++) {
		assert_int_equal(send(fd, tls->wire.data + i, 1, 0), 1);
		(void)loop_turn(loop, 0);
	}
	TURN_UNTIL(loop, side_got(&server, "trickled"));
	tls_stream_free(&tls);
	(void)close(fd);
}

static void
test_untaken_input_is_offered_again_with_more(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		establish(tls, NULL);
		server.take = 3;
		say(&client, "abcdefgh");
		TURN_UNTIL(loop, side_got(&server, "abc"));
		assert_int_equal(conn_unread(server.conn), 5);
		(void)loop_turn(loop, 0);
		assert_true(side_got(&server, "abc"));
		say(&client, "ij");
		TURN_UNTIL(loop, side_got(&server, "abcdef"));
		server.take = 0;
		conn_read_resume(server.conn);
		TURN_UNTIL(loop, side_got(&server, "abcdefghij"));
		teardown(NULL);
		setup(NULL);
	}
}

static void
pause_and_take_two(struct side *s, struct slice in, size_t *taken)
{
	(void)in;
	*taken = 2;
	conn_read_pause(s->conn);
}

static void
test_paused_in_data_nothing_more_comes_until_resumed(void **state)
{
	char big[50000];

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		establish(tls, NULL);
		memset(big, 'q', sizeof(big));
		server.on_data = pause_and_take_two;
		assert_int_equal(conn_write(client.conn, slice_mem(big, sizeof(big))), CONN_OK);
		TURN_UNTIL(loop, server.got.len == 2);
		for (int i = 0; i < 20; i++)
			(void)loop_turn(loop, 0);
		assert_int_equal(server.got.len, 2);
		server.on_data = NULL;
		conn_read_resume(server.conn);
		TURN_UNTIL(loop, server.got.len == sizeof(big));
		conn_read_pause(server.conn); /* outside a callback */
		say(&client, "more");
		for (int i = 0; i < 20; i++)
			(void)loop_turn(loop, 0);
		assert_int_equal(server.got.len, sizeof(big));
		conn_read_resume(server.conn);
		TURN_UNTIL(loop, server.got.len == sizeof(big) + 4);
		teardown(NULL);
		setup(NULL);
	}
}

/* --- bounds --------------------------------------------------------------------------- */

static void
test_a_reader_that_takes_nothing_stops_the_writer_at_the_bound(void **state)
{
	struct conn_config small = { .out_max = 100000, .out_high = 50000, .out_low = 1000 };
	uint8_t block[1000];
	size_t written = 0, at = 0, refused;
	int drained;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		server_config.in_max = 5000;
		establish(tls, &small);
		server.take_none = true;
		written = at = 0;
		/*
		 * Until nothing has moved for a while: the kernel's buffers and both bounds are
		 * full.
		 */
		for (int still = 0; still < 200; still++) {
			for (size_t i = 0; i < sizeof(block); i++)
				block[i] = (uint8_t)((written + i) % 251);
			while (conn_write(client.conn, slice_mem(block, sizeof(block))) ==
			       CONN_OK) {
				written += sizeof(block);
				still = 0;
				for (size_t i = 0; i < sizeof(block); i++)
					block[i] = (uint8_t)((written + i) % 251);
				assert_true(conn_unsent(client.conn) <=
				            100000 + 2 * TLS_WIRE_HIGH);
			}
			(void)loop_turn(loop, 0);
		}
		assert_int_equal(conn_unread(server.conn), 5000);
		assert_int_equal(server.most_seen, 5000);
		assert_int_equal(conn_write(client.conn, slice_mem(block, sizeof(block))),
		                 CONN_FULL);
		drained = client.drained;
		for (int i = 0; i < 20; i++)
			(void)loop_turn(loop, 0);
		assert_int_equal(client.drained, drained);
		refused = written;
		server.take_none = false;
		conn_read_resume(server.conn);
		TURN_UNTIL(loop, server.got.len == refused);
		assert_int_equal(client.drained, drained + 1);
		say(&client, "a little");
		TURN_UNTIL(loop, server.got.len == refused + 8);
		assert_int_equal(client.drained, drained + 1);
		for (; at < refused; at++)
			assert_int_equal(server.got.data[at], at % 251);
		teardown(NULL);
		setup(NULL);
	}
}

static void
test_a_peer_that_takes_nothing_is_stalled(void **state)
{
	struct conn_config config = { .stall_ms = 50 };
	static uint8_t big[1 << 20];
	int fd;

	(void)state;
	server_config = config;
	server_config.out_max = (size_t)64 << 20;
	fd = raw_connect();
	while (conn_write(server.conn, slice_mem(big, sizeof(big))) == CONN_OK)
		;
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_STALLED);
	assert_non_null(strstr(server.text, "took nothing"));
	assert_int_equal(conn_write(server.conn, SLICE("x")), CONN_CLOSED);
	assert_int_equal(listener_counts(listener).now, 0);
	(void)close(fd);
}

/* Decrypts what the raw peer has received. */
static void
raw_drain(int fd, struct tls_stream *tls)
{
	static uint8_t in[65536], out[65536];
	size_t got;
	ssize_t n;

	while ((n = recv(fd, in, sizeof(in), MSG_DONTWAIT)) > 0) {
		tls->in = slice_mem(in, (size_t)n);
		while (tls_stream_read(tls, out, sizeof(out), &got) == TLS_DONE)
			;
	}
}

static void
test_key_updates_without_end_do_not_grow_memory(void **state)
{
	struct tls_stream *tls = tls_stream_new_client(tls_client, "home.example", NULL);
	int fd, small = 4096;
	size_t most = 0;

	(void)state;
	server_tls = true;
	fd = raw_connect();
	raw_handshake(fd, tls, 4096);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(
	    setsockopt(server.conn->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (int i = 0; i < 20000; i++) {
		assert_int_equal(SSL_key_update(tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(tls->ssl), 1);
		if (i % 50 == 49)
			assert_int_equal(tls_stream_write(tls, SLICE("x")), TLS_DONE);
	}
	for (int i = 0; i < 1000; i++) { /* it asks and asks and takes no answer */
		ssize_t n = send(fd, tls->wire.data, tls->wire.len, MSG_DONTWAIT);

		if (n > 0)
			buffer_consume(&tls->wire, (size_t)n);
		(void)loop_turn(loop, 0);
		assert_int_equal(server.closed, 0);
		if (conn_unsent(server.conn) > most)
			most = conn_unsent(server.conn);
	}
	assert_in_range(most, TLS_WIRE_HIGH, 2 * TLS_WIRE_HIGH);
	assert_true(server.got.len < 400);
	for (int i = 0; server.got.len < 400; i++) { /* now it does */
		ssize_t n = send(fd, tls->wire.data, tls->wire.len, MSG_DONTWAIT);

		if (n > 0)
			buffer_consume(&tls->wire, (size_t)n);
		raw_drain(fd, tls);
		(void)loop_turn(loop, 10);
		assert_int_equal(server.closed, 0);
		assert_true(i < 1000);
	}
	tls_stream_free(&tls);
	(void)close(fd);
}

/* --- connecting ------------------------------------------------------------------------ */

static struct net_address
closed_port(void)
{
	struct net_address a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(net_address_make("127.0.0.1", 0, &a));
	assert_int_equal(bind(fd, (struct sockaddr *)&a.ss, a.len), 0);
	a.len = sizeof(a.ss);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a.ss, &a.len), 0);
	(void)close(fd);
	return a;
}

static void
test_addresses_are_tried_in_order(void **state)
{
	struct conn_config config = { .events = &side_events, .arg = &client };
	struct net_address list[] = { closed_port(), closed_port(), here };

	(void)state;
	client.conn = conn_connect(loop, list, 3, false, &config);
	assert_int_equal(client.connected, 0);
	TURN_UNTIL(loop, client.connected == 1 && server.conn != NULL);
	assert_int_equal(net_address_port(conn_peer_address(client.conn)),
	                 net_address_port(&here));
	conn_close(&client.conn);
	client.conn = conn_connect(loop, list, 2, false, &config);
	TURN_UNTIL(loop, client.closed == 1);
	assert_int_equal(client.end, CONN_END_CONNECT);
	assert_non_null(strstr(client.text, strerror(ECONNREFUSED)));
	conn_close(&client.conn);
	client.conn = conn_connect(loop, list, 0, false, &config);
	TURN_UNTIL(loop, client.closed == 2);
	assert_int_equal(client.end, CONN_END_CONNECT);
}

static void
test_public_only_never_connects_to_loopback(void **state)
{
	struct conn_config config = { .events = &side_events, .arg = &client };

	(void)state;
	client.conn = conn_connect(loop, &here, 1, true, &config);
	TURN_UNTIL(loop, client.closed == 1);
	assert_int_equal(client.end, CONN_END_CONNECT);
	assert_non_null(strstr(client.text, "not a public address"));
	assert_int_equal(listener_counts(listener).accepted, 0);
}

static void
test_an_address_that_never_answers_times_out(void **state)
{
	struct conn_config config = { .events = &side_events,
		                      .arg = &client,
		                      .connect_ms = 50 };
	struct net_address full, list[2];
	int fill[16], fd = socket(AF_INET, SOCK_STREAM, 0), n = 0;
	struct pollfd p;

	(void)state;
	/* A backlog that is full drops what else comes. */
	assert_true(net_address_make("127.0.0.1", 0, &full));
	assert_int_equal(bind(fd, (struct sockaddr *)&full.ss, full.len), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&full.ss, &full.len), 0);
	do {
		fill[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(fill[n], (struct sockaddr *)&full.ss, full.len);
		p = (struct pollfd){ .fd = fill[n++], .events = POLLOUT };
	} while (n < 16 && poll(&p, 1, 200) == 1);
	assert_true(n < 16);
	client.conn = conn_connect(loop, &full, 1, false, &config);
	TURN_UNTIL(loop, client.closed == 1);
	assert_int_equal(client.end, CONN_END_TIMEOUT);
	conn_close(&client.conn);
	list[0] = full;
	list[1] = here;
	client.conn = conn_connect(loop, list, 2, false, &config);
	TURN_UNTIL(loop, client.connected == 1);
	while (n > 0)
		(void)close(fill[--n]);
	(void)close(fd);
}

/* --- STARTTLS --------------------------------------------------------------------------- */

static void
server_starts_tls(struct side *s, struct slice in, size_t *taken)
{
	if (s->secured > 0 || in.len < 8)
		return;
	*taken = 8;
	assert_int_equal(conn_write(s->conn, SLICE("K")), CONN_OK);
	assert_int_equal(conn_start_tls_server(s->conn, tls_server, false), CONN_OK);
	assert_int_equal(conn_write(s->conn, SLICE("second greeting")), CONN_OK);
}

static void
client_starts_tls(struct side *s, struct slice in, size_t *taken)
{
	if (s->secured > 0)
		return;
	assert_int_equal(in.data[0], 'K');
	*taken = 1;
	assert_int_equal(conn_start_tls_client(s->conn, tls_client, "home.example", NULL),
	                 CONN_OK);
}

static void
test_starttls_and_what_is_written_around_it(void **state)
{
	(void)state;
	server.on_data = server_starts_tls;
	client.on_data = client_starts_tls;
	establish(false, NULL);
	assert_null(conn_tls_peer(client.conn));
	say(&client, "STARTTLS");
	TURN_UNTIL(loop, client.secured == 1 && server.secured == 1);
	TURN_UNTIL(loop, side_got(&client, "Ksecond greeting"));
	assert_true(conn_tls_peer(client.conn)->verified);
	say(&client, "secret");
	TURN_UNTIL(loop, side_got(&server, "STARTTLSsecret"));
}

static void
test_what_is_written_after_asking_for_tls_never_leaves_in_plaintext(void **state)
{
	char seen[8192] = "";
	size_t len = 0;
	int fd;

	(void)state;
	server.on_data = server_starts_tls;
	fd = raw_connect();
	assert_int_equal(send(fd, "STARTTLS", 8, 0), 8);
	TURN_UNTIL(loop,
	           (len = (size_t)recv(fd, seen, sizeof(seen), MSG_DONTWAIT)) != (size_t)-1);
	for (int i = 0; i < 20; i++)
		(void)loop_turn(loop, 0);
	assert_int_equal(len, 1); /* only the K until the handshake is done */
	assert_int_equal(recv(fd, seen, sizeof(seen), MSG_DONTWAIT), -1);
	(void)close(fd);
}

static void
test_plaintext_behind_starttls_closes(void **state)
{
	int fd;

	(void)state;
	server.on_data = server_starts_tls;
	fd = raw_connect();
	assert_int_equal(send(fd, "STARTTLSl4:NOOPe", 16, 0), 16);
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_INJECTED);
	assert_int_equal(server.secured, 0);
	assert_true(side_got(&server, "STARTTLS"));
	(void)close(fd);
}

static void
test_plaintext_behind_the_servers_answer_closes_the_client(void **state)
{
	(void)state;
	client.on_data = client_starts_tls;
	establish(false, NULL);
	say(&server, "Kl1:Ie");
	TURN_UNTIL(loop, client.closed == 1);
	assert_int_equal(client.end, CONN_END_INJECTED);
}

static void
test_tls_begun_outside_data_refuses_untaken_input(void **state)
{
	(void)state;
	establish(false, NULL);
	server.take = 8;
	say(&client, "STARTTLSinjected");
	TURN_UNTIL(loop, conn_unread(server.conn) == 8);
	assert_int_equal(conn_start_tls_server(server.conn, tls_server, false), CONN_OK);
	assert_int_equal(server.closed, 0); /* never from within a call */
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_INJECTED);
}

static void
test_early_writes_wait_for_the_handshake(void **state)
{
	(void)state;
	server_tls = true;
	connect_client(NULL);
	assert_int_equal(conn_start_tls_client(client.conn, tls_client, "home.example", NULL),
	                 CONN_OK);
	say(&client, "before anything is connected");
	TURN_UNTIL(loop, side_got(&server, "before anything is connected"));
	assert_int_equal(client.secured, 1);
	assert_int_equal(conn_start_tls_client(client.conn, tls_client, "home.example", NULL),
	                 CONN_CLOSED);
}

/* --- failing handshakes --------------------------------------------------------------------
 */

static void
test_handshakes_that_fail_say_why(void **state)
{
	uint8_t secret[32];
	int fd;

	(void)state;
	server_tls = true; /* the wrong name */
	connect_client(NULL);
	assert_int_equal(conn_start_tls_client(client.conn, tls_client, "other.example", NULL),
	                 CONN_OK);
	TURN_UNTIL(loop, client.closed == 1 && server.closed == 1);
	assert_int_equal(client.end, CONN_END_UNVERIFIED);
	assert_non_null(strstr(client.text, "hostname mismatch"));
	assert_int_equal(client.secured, 0);
	assert_false(conn_tls_exporter(client.conn, "EXPORTER-dmtp", secret, sizeof(secret)));
	side_free(&client);
	side_free(&server);

	side_init(&client); /* no TLS at all */
	side_init(&server);
	fd = raw_connect();
	assert_int_equal(send(fd, "d4:dmtpi1ee and so on", 21, 0), 21);
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_HANDSHAKE);
	(void)close(fd);
	side_free(&server);

	side_init(&server); /* gone in the midst */
	fd = raw_connect();
	assert_int_equal(send(fd, "\x16\x03\x01", 3, 0), 3);
	(void)close(fd);
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_EOF);
	assert_non_null(strstr(server.text, "closed by the peer"));
}

static void
test_a_handshake_has_its_deadline_whatever_trickles(void **state)
{
	int fd;

	(void)state;
	server_tls = true;
	server_config.handshake_ms = 60;
	fd = raw_connect();
	assert_int_equal(send(fd, "\x16\x03\x01\x40", 4, 0), 4);
	while (server.closed == 0) {
		int64_t now_ms = loop_mono_ms(loop);

		(void)send(fd, "\x00", 1, MSG_NOSIGNAL); /* of a record of 16 KiB */
		while (server.closed == 0 && loop_mono_ms(loop) == now_ms)
			(void)loop_turn(loop, 1);
	}
	assert_int_equal(server.end, CONN_END_TIMEOUT);
	(void)close(fd);
}

static void
test_a_broken_record_ends_the_session(void **state)
{
	struct tls_stream *tls = tls_stream_new_client(tls_client, "home.example", NULL);
	int fd;

	(void)state;
	server_tls = true;
	fd = raw_connect();
	raw_handshake(fd, tls, 4096);
	assert_int_equal(tls_stream_write(tls, SLICE("altered on the way")), TLS_DONE);
	tls->wire.data[tls->wire.len - 1] ^= 1;
	assert_true(send(fd, tls->wire.data, tls->wire.len, 0) > 0);
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_TLS);
	assert_int_equal(server.got.len, 0);
	tls_stream_free(&tls);
	(void)close(fd);
}

static void
test_exporters_agree(void **state)
{
	uint8_t a[32], b[32];

	(void)state;
	establish(true, NULL);
	assert_true(conn_tls_exporter(client.conn, "EXPORTER-dmtp", a, sizeof(a)));
	assert_true(conn_tls_exporter(server.conn, "EXPORTER-dmtp", b, sizeof(b)));
	assert_memory_equal(a, b, 32);
}

/* --- ends -------------------------------------------------------------------------------- */

static void
raw_reset(int fd)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
	(void)close(fd);
}

static void
test_a_reset_is_told(void **state)
{
	(void)state;
	raw_reset(raw_connect());
	TURN_UNTIL(loop, server.closed == 1);
	assert_int_equal(server.end, CONN_END_RESET);
	assert_int_equal(server.ended, 0);
}

static void
test_last_words_are_heard_though_sending_failed(void **state)
{
	int fd = raw_connect();

	(void)state;
	say(&server, "x");
	TURN_UNTIL(loop, conn_unsent(server.conn) == 0);
	conn_read_pause(server.conn);
	(void)loop_turn(loop, 0);
	assert_int_equal(send(fd, "last words", 10, 0), 10);
	(void)close(fd); /* with an unread x: the peer's kernel resets at the next octet */
	for (int i = 0;
	     i < 50 && conn_write(server.conn, SLICE("more")) == CONN_OK && server.closed == 0;
	     i++) {
		conn_read_resume(server.conn);
		(void)loop_turn(loop, 10);
	}
	TURN_UNTIL(loop, server.closed == 1 || server.ended == 1);
	assert_true(side_got(&server, "last words"));
}

static enum { IN_CONNECTED, IN_SECURED, IN_DATA, IN_ENDED, IN_DRAINED, IN_CLOSED } close_in;
static int calls_after;

static void
maybe_close(int here_is)
{
	if (client.conn == NULL)
		calls_after++;
	else if ((int)close_in == here_is)
		conn_close(&client.conn);
}

static void
c_connected(struct conn *c, void *arg)
{
	(void)c;
	(void)arg;
	maybe_close(IN_CONNECTED);
}

static void
c_secured(struct conn *c, void *arg)
{
	(void)c;
	(void)arg;
	maybe_close(IN_SECURED);
}

static size_t
c_data(struct conn *c, void *arg, struct slice in)
{
	static uint8_t copy[65536];

	(void)c;
	(void)arg;
	maybe_close(IN_DATA);
	memcpy(copy, in.data, in.len); /* the slice is good until the return */
	return in.len / 2;
}

static void
c_ended(struct conn *c, void *arg, bool clean)
{
	(void)c;
	(void)arg;
	(void)clean;
	maybe_close(IN_ENDED);
	if (client.conn != NULL)
		conn_shutdown(client.conn);
}

static void
c_drained(struct conn *c, void *arg)
{
	(void)c;
	(void)arg;
	maybe_close(IN_DRAINED);
}

static void
c_closed(struct conn *c, void *arg, enum conn_end end, const char *text)
{
	(void)c;
	(void)arg;
	(void)end;
	(void)text;
	maybe_close(IN_CLOSED);
}

static void
test_closing_within_any_callback(void **state)
{
	static const struct conn_events closers = { c_connected, c_secured, c_data,
		                                    c_drained,   c_ended,   c_closed };
	struct conn_config config = { .events = &closers,
		                      .arg = &client,
		                      .out_max = 2000,
		                      .out_high = 10,
		                      .out_low = 5 };

	(void)state;
	for (int i = 0; i < 2 * (IN_CLOSED + 1); i++) {
		int which = i / 2;
		bool tls = i % 2 == 1;

		if (which == IN_SECURED && !tls)
			continue;
		close_in = (unsigned)which;
		calls_after = 0;
		server_tls = tls;
		client.conn = conn_connect(loop, &here, 1, false, &config);
		if (tls)
			assert_int_equal(
			    conn_start_tls_client(
				client.conn, tls_client,
				which == IN_CLOSED ? "other.example" : "home.example", NULL),
			    CONN_OK);
		assert_int_equal(conn_write(client.conn, SLICE("some output, above the mark")),
		                 CONN_OK);
		TURN_UNTIL(loop, server.conn != NULL || client.conn == NULL);
		if (server.conn != NULL && conn_write(server.conn, SLICE("hello")) == CONN_OK &&
		    which != IN_CLOSED)
			conn_shutdown(server.conn);
		if (which == IN_CLOSED && !tls) {
			TURN_UNTIL(loop, side_got(&server, "some output, above the mark"));
			side_free(&server); /* unread data none: FIN; so make it a broken
			                       connection */
			TURN_UNTIL(loop,
			           client.conn == NULL ||
			               conn_write(client.conn, SLICE("x")) == CONN_CLOSED);
			conn_close(&client.conn);
		}
		TURN_UNTIL(loop, client.conn == NULL);
		for (int t = 0; t < 10; t++)
			(void)loop_turn(loop, 0);
		assert_int_equal(calls_after, 0);
		teardown(NULL);
		setup(NULL);
	}
}

static void
test_lingering_sends_everything_then_waits_for_the_peer(void **state)
{
	static uint8_t big[300000];

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		memset(big, 'z', sizeof(big));
		establish(tls, NULL);
		assert_int_equal(conn_write(server.conn, slice_mem(big, sizeof(big))), CONN_OK);
		conn_linger(&server.conn, 60000);
		assert_null(server.conn);
		say(&client, "thrown away");
		TURN_UNTIL(loop, client.ended == 1);
		assert_true(client.clean);
		assert_int_equal(client.got.len, sizeof(big));
		assert_int_equal(listener_counts(listener).now, 1); /* it lingers */
		say(&client, "this too");
		conn_shutdown(client.conn);
		TURN_UNTIL(loop, listener_counts(listener).now == 0);
		assert_int_equal(server.closed + server.ended, 0);
		assert_int_equal(client.closed, 0);
		teardown(NULL);
		setup(NULL);
	}
}

static void
test_lingering_has_an_end(void **state)
{
	(void)state;
	establish(true, NULL);
	conn_linger(&server.conn, 30); /* the client never closes */
	TURN_UNTIL(loop, listener_counts(listener).now == 0);
	teardown(NULL);
	setup(NULL);
	establish(true, NULL);
	conn_linger(&server.conn, 60000); /* teardown: loop_free ends it */
	(void)loop_turn(loop, 0);
	assert_int_equal(listener_counts(listener).now, 1);
}

static void
linger_at_once(struct side *s, struct slice in, size_t *taken)
{
	(void)in;
	*taken = 1;
	assert_int_equal(conn_write(s->conn, SLICE("go away")), CONN_OK);
	conn_linger(&s->conn, 30);
}

static void
test_lingering_from_within_data(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		server.on_data = linger_at_once;
		establish(tls, NULL);
		say(&client, "hello?");
		TURN_UNTIL(loop, side_got(&client, "go away") && client.ended == 1);
		conn_close(&client.conn);
		TURN_UNTIL(loop, listener_counts(listener).now == 0);
		teardown(NULL);
		setup(NULL);
	}
}

static void
test_who_is_not_told_of_the_end_is_closed(void **state)
{
	struct conn_events deaf = side_events;
	struct conn_config config = { .events = &deaf, .arg = &client };

	(void)state;
	deaf.ended = NULL;
	client.conn = conn_connect(loop, &here, 1, false, &config);
	TURN_UNTIL(loop, server.conn != NULL);
	conn_shutdown(server.conn);
	TURN_UNTIL(loop, client.closed == 1);
	assert_int_equal(client.end, CONN_END_EOF);
	assert_string_equal(conn_end_name(client.end), "eof");
	assert_string_equal(conn_end_name((enum conn_end)99), "unknown");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_octets_both_ways_and_half_close),
		T(test_half_close_in_tls_1_2),
		T(test_a_bare_fin_in_tls_is_told_apart),
		T(test_a_handshake_octet_by_octet),
		T(test_untaken_input_is_offered_again_with_more),
		T(test_paused_in_data_nothing_more_comes_until_resumed),
		T(test_a_reader_that_takes_nothing_stops_the_writer_at_the_bound),
		T(test_a_peer_that_takes_nothing_is_stalled),
		T(test_key_updates_without_end_do_not_grow_memory),
		T(test_addresses_are_tried_in_order),
		T(test_public_only_never_connects_to_loopback),
		T(test_an_address_that_never_answers_times_out),
		T(test_starttls_and_what_is_written_around_it),
		T(test_what_is_written_after_asking_for_tls_never_leaves_in_plaintext),
		T(test_plaintext_behind_starttls_closes),
		T(test_plaintext_behind_the_servers_answer_closes_the_client),
		T(test_tls_begun_outside_data_refuses_untaken_input),
		T(test_early_writes_wait_for_the_handshake),
		T(test_handshakes_that_fail_say_why),
		T(test_a_handshake_has_its_deadline_whatever_trickles),
		T(test_a_broken_record_ends_the_session),
		T(test_exporters_agree),
		T(test_a_reset_is_told),
		T(test_last_words_are_heard_though_sending_failed),
		T(test_closing_within_any_callback),
		T(test_lingering_sends_everything_then_waits_for_the_peer),
		T(test_lingering_has_an_end),
		T(test_lingering_from_within_data),
		T(test_who_is_not_told_of_the_end_is_closed),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
