/*
 * A tiny HTTPS server over net/conn, for the tests of fetching: what it answers is decided by
 * the path.
 */
#ifndef TMTP_TEST_HTTPS_H
#define TMTP_TEST_HTTPS_H

#include "net_test.h"

struct https {
	struct loop *loop;
	struct listener *listener;
	struct tls_server *tls;
	struct net_address here;
	unsigned port;
	int connections, requests;
	struct web *all;
	/*
	 * Writes the whole answer for one request into out; path is NUL-terminated. Returns
	 * whether to close then.
	 */
	bool (*answer)(struct https *https, const char *path, struct slice head,
	               struct slice body, struct buffer *out);
};

struct web {
	struct https *https;
	struct conn *conn;
	struct web *next;
};

TEST_FN void
web_end(struct web *w)
{
	struct web **at = &w->https->all;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	conn_close(&w->conn);
	free(w);
}

TEST_FN void
web_closed(struct conn *conn, void *arg, enum conn_end end, const char *text)
{
	(void)conn;
	(void)end;
	(void)text;
	web_end(arg);
}

TEST_FN size_t
web_data(struct conn *conn, void *arg, struct slice in)
{
	struct web *w = arg;
	const uint8_t *end = memmem(in.data, in.len, "\r\n\r\n", 4);
	const char *length;
	char path[256] = "";
	size_t head, body = 0;
	struct buffer out;
	bool ends;

	if (end == NULL)
		return 0;
	head = (size_t)(end - in.data) + 4;
	length = memmem(in.data, head, "Content-Length:", 15);
	if (length != NULL)
		body = (size_t)atoi(length + 15);
	if (in.len < head + body)
		return 0;
	(void)sscanf((const char *)in.data, "%*s %255s", path);
	w->https->requests++;
	buffer_init(&out, (size_t)64 << 20);
	ends = w->https->answer(w->https, path, slice_mem(in.data, head),
	                        slice_mem(in.data + head, body), &out);
	if (out.len > 0)
		assert_int_equal(conn_write(conn, buffer_slice(&out)), CONN_OK);
	buffer_free(&out);
	if (ends)
		conn_shutdown(conn);
	return head + body;
}

TEST_FN void
https_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	static const struct conn_events events = { .data = web_data, .closed = web_closed };
	struct https *h = arg;
	struct web *w = calloc(1, sizeof(*w));
	struct conn_config config = { .events = &events,
		                      .arg = w,
		                      .seat = seat,
		                      .out_max = (size_t)64 << 20,
		                      .in_max = (size_t)4 << 20 };

	assert_non_null(w);
	w->https = h;
	w->next = h->all;
	h->all = w;
	h->connections++;
	w->conn = conn_new(h->loop, fd, peer, &config);
	assert_non_null(w->conn);
	assert_int_equal(conn_start_tls_server(w->conn, h->tls, false), CONN_OK);
}

TEST_FN void
https_start(struct https *h, struct loop *loop, const struct tls_server_config *tls)
{
	struct listener_config config = { .bind = "127.0.0.1:0",
		                          .accepted = https_accepted,
		                          .arg = h };
	char why[NET_TEXT];

	h->loop = loop;
	assert_int_equal(tls_server_new(tls, &h->tls, why), TLS_OK);
	h->listener = listener_new(loop, &config, why);
	assert_non_null(h->listener);
	listener_address(h->listener, &h->here);
	h->port = net_address_port(&h->here);
}

TEST_FN void
https_stop(struct https *h)
{
	while (h->all != NULL)
		web_end(h->all);
	listener_free(&h->listener);
	tls_server_free(&h->tls);
}

#endif
