/* A look at a domain's servers: see look.h. All addresses are looked at side by side, each step under its own limit. */
#include "ctl/look.h"

#include <stdio.h>

static void
done(struct look *look)
{
	if (--look->pending == 0)
		loop_stop(look->loop);
}

/* --- One address -------------------------------------------------------------- */

static void
try_end(struct look_try *t)
{
	if (t->over)
		return;
	t->over = true;
	loop_timer_cancel(&t->timer);
	conn_close(&t->conn);
	dmtp_client_free(&t->client);
	done(t->look);
}

static void
try_fail(struct look_try *t, enum look_step step, const char *why)
{
	if (!t->greeted) {
		t->step = step;
		(void)snprintf(t->why, sizeof(t->why), "%s", why);
	}
	try_end(t);
}

static enum dmtp_client_mode
mode_of(const struct look_try *t)
{
	return t->look->discovery.targets[t->target].mode;
}

/* Where it stands while it waits for the other side. */
static enum look_step
waiting_for(const struct look_try *t)
{
	if (t->connect_ms < 0)
		return LOOK_TCP;
	if (t->secured || mode_of(t) == DMTP_CLIENT_PLAIN)
		return LOOK_GREETING;
	return mode_of(t) == DMTP_CLIENT_TLS ? LOOK_TLS : LOOK_STARTTLS;
}

static void
await_more(struct look_try *t)
{
	loop_timer_set(&t->timer, t->look->timeout_ms);
}

static void
on_try_timer(struct loop_timer *timer)
{
	struct look_try *t = timer->arg;
	static const char *const what[] = {
		[LOOK_TCP] = "nothing answers",
		[LOOK_STARTTLS] = "connected, then it said nothing",
		[LOOK_TLS] = "connected, but the TLS handshake did not come to its end",
		[LOOK_GREETING] = "TLS is there, then it said nothing",
		[LOOK_CHECK] = "",
	};
	enum look_step step = waiting_for(t);
	char why[NET_TEXT];

	(void)snprintf(why, sizeof(why), "%s within %d s", what[step],
	               (int)(t->look->timeout_ms / 1000));
	try_fail(t, step, why);
}

static void
flush(struct look_try *t)
{
	struct slice out = dmtp_client_output(t->client);

	if (out.len > 0 && conn_write(t->conn, out) == CONN_OK)
		dmtp_client_sent(t->client, loop_mono_ms(t->look->loop), out.len);
}

/* What it has been for; the rest is a farewell. */
static void
on_greeted(struct look_try *t)
{
	if (mode_of(t) == DMTP_CLIENT_STARTTLS && !t->secured)
		return;
	t->greeting = *dmtp_client_greeting(t->client);
	t->greeted = true;
	t->step = t->problem[0] == '\0' ? LOOK_DONE : LOOK_CHECK;
	(void)snprintf(t->why, sizeof(t->why), "%s", t->problem);
	dmtp_client_quit(t->client, loop_mono_ms(t->look->loop));
}

static void
describe_refusal(const struct dmtp_response *r, char out[static NET_TEXT])
{
	(void)snprintf(out, NET_TEXT, "it takes no session now: %.*s",
	               (int)(r->text.len < 150 ? r->text.len : 150),
	               r->text.len > 0 ? (const char *)r->text.data : "it says no more");
}

static void
handle(struct look_try *t, const struct dmtp_client_event *event)
{
	char text[NET_TEXT];

	switch (event->kind) {
	case DMTP_CLIENT_GREETED:
		on_greeted(t);
		break;
	case DMTP_CLIENT_HANDSHAKE:
		await_more(t);
		if (conn_start_tls_client(t->conn, t->look->tls, t->look->domain, NULL) !=
		    CONN_OK)
			try_fail(t, LOOK_TLS, "TLS could not begin");
		break;
	case DMTP_CLIENT_REFUSED:
		describe_refusal(&event->response, text);
		try_fail(t, LOOK_GREETING, text);
		break;
	case DMTP_CLIENT_CLOSED:
		if (event->reason == DMTP_CLOSE_NO_TLS)
			try_fail(t, LOOK_STARTTLS, "it does not offer STARTTLS");
		else if (event->reason == DMTP_CLOSE_MALFORMED)
			try_fail(t, waiting_for(t), "what it said is no DMTP greeting");
		else
			try_fail(t, waiting_for(t), dmtp_close_name(event->reason));
		break;
	case DMTP_CLIENT_REPLY:
	case DMTP_CLIENT_INFO:
	case DMTP_CLIENT_NO_MORE:
		break;
	}
}

static void
take_events(struct look_try *t)
{
	struct dmtp_client_event event;

	while (!t->over && dmtp_client_next(t->client, &event))
		handle(t, &event);
	if (!t->over)
		flush(t);
}

static void
begin_client(struct look_try *t)
{
	struct dmtp_client_options options = { .mode = mode_of(t) };

	t->client = dmtp_client_new(&options, loop_mono_ms(t->look->loop));
	if (t->client == NULL)
		try_fail(t, LOOK_GREETING, "out of memory");
}

static void
on_connected(struct conn *conn, void *arg)
{
	struct look_try *t = arg;

	(void)conn;
	t->connect_ms = loop_mono_ms(t->look->loop) - t->began_ms;
	await_more(t);
	if (mode_of(t) != DMTP_CLIENT_TLS)
		begin_client(t);
}

static void
note_tls(struct look_try *t)
{
	const struct tls_peer *peer = conn_tls_peer(t->conn);

	t->secured = true;
	(void)snprintf(t->version, sizeof(t->version), "%s", peer->version);
	(void)snprintf(t->cipher, sizeof(t->cipher), "%s", peer->cipher);
	(void)snprintf(t->alpn, sizeof(t->alpn), "%s", peer->alpn);
	(void)snprintf(t->problem, sizeof(t->problem), "%s",
	               peer->verified ? "" : peer->problem);
	t->certified = conn_tls_certificate(t->conn, t->look->domain, &t->certificate);
}

static void
on_secured(struct conn *conn, void *arg)
{
	struct look_try *t = arg;

	(void)conn;
	note_tls(t);
	await_more(t);
	if (t->client != NULL) {
		if (dmtp_client_secured(t->client, loop_mono_ms(t->look->loop)))
			take_events(t);
		else
			try_fail(t, LOOK_TLS, "TLS out of place");
	} else if (strcmp(t->alpn, DMTP_ALPN) != 0) {
		try_fail(t, LOOK_TLS, "it speaks TLS, but not the protocol " DMTP_ALPN);
	} else {
		begin_client(t);
	}
}

static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct look_try *t = arg;

	(void)conn;
	if (t->client == NULL)
		return 0;
	(void)dmtp_client_feed(t->client, loop_mono_ms(t->look->loop), in.data, in.len);
	take_events(t);
	return in.len;
}

static void
on_ended(struct conn *conn, void *arg, bool clean)
{
	struct look_try *t = arg;

	(void)conn;
	(void)clean;
	try_fail(t, waiting_for(t), "it closed the connection without a greeting");
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end end, const char *text)
{
	struct look_try *t = arg;

	(void)conn;
	if (end ==
	    CONN_END_CONNECT) /* "192.0.2.1:3688: Connection refused": the address is known */
		try_fail(t, LOOK_TCP,
		         strstr(text, ": ") == NULL ? text : strstr(text, ": ") + 2);
	else
		try_fail(t,
		         t->client != NULL && end == CONN_END_HANDSHAKE ? LOOK_TLS
		                                                        : waiting_for(t),
		         text);
}

static const struct conn_events events = {
	.connected = on_connected,
	.secured = on_secured,
	.data = on_data,
	.ended = on_ended,
	.closed = on_closed,
};

static void
try_begin(struct look *look, size_t target, const struct net_address *address)
{
	struct look_try *t = &look->tries[look->tries_n];
	struct conn_config config = {
		.events = &events,
		.arg = t,
		.connect_ms =
		    2 * look->timeout_ms, /* the timer here is sooner, and says more */
		.handshake_ms = 2 * look->timeout_ms,
	};

	if (look->tries_n == LOOK_TRIES)
		return;
	look->tries_n++;
	*t = (struct look_try){
		.look = look, .target = target, .address = *address, .connect_ms = -1
	};
	loop_timer_init(&t->timer, look->loop, on_try_timer, t);
	look->pending++;
	if ((look->route == NULL || !look->route->allow_private) &&
	    !net_address_is_public((const struct sockaddr *)&address->ss)) {
		try_fail(t, LOOK_GUARD, "not a public address: it is not connected to");
		return;
	}
	t->began_ms = loop_mono_ms(look->loop);
	t->conn = conn_connect(look->loop, address, 1, false, &config);
	if (t->conn == NULL ||
	    (mode_of(t) == DMTP_CLIENT_TLS &&
	     conn_start_tls_client(t->conn, look->tls, look->domain, NULL) != CONN_OK)) {
		try_fail(t, LOOK_TCP, "out of memory");
		return;
	}
	await_more(t);
}

/* --- One target ----------------------------------------------------------------- */

static void
host_end(struct look_host *h, enum resolve_rc rc, const char *why)
{
	h->busy = false;
	h->rc = rc;
	(void)snprintf(h->why, sizeof(h->why), "%s", why);
	loop_timer_cancel(&h->timer);
	done(h->look);
}

static void
on_host(struct resolve_query *query, const struct resolve_answer *answer)
{
	struct look_host *h = query->arg;
	uint16_t port = h->look->discovery.targets[h->target].port;

	for (size_t i = 0; answer->rc == RESOLVE_FOUND && i < answer->count; i++) {
		struct net_address address = answer->addresses[i];

		net_address_set_port(&address, port);
		try_begin(h->look, h->target, &address);
	}
	host_end(h, answer->rc, answer->rc == RESOLVE_FOUND ? "" : answer->text);
}

static void
on_host_timer(struct loop_timer *timer)
{
	struct look_host *h = timer->arg;

	resolve_cancel(&h->query);
	host_end(h, RESOLVE_FAIL, "the name servers did not answer in time");
}

static void
host_begin(struct look *look, size_t target)
{
	const struct discover_target *t = &look->discovery.targets[target];
	struct look_host *h = &look->hosts[target];
	struct net_address address;

	*h = (struct look_host){ .look = look, .target = target };
	loop_timer_init(&h->timer, look->loop, on_host_timer, h);
	if (net_address_make(t->host, t->port, &address)) {
		try_begin(look, target, &address);
		return;
	}
	look->pending++;
	h->busy = true;
	loop_timer_set(&h->timer, look->timeout_ms);
	resolve_host(look->resolver, &h->query, t->host, on_host, h);
}

/* --- Where they are --------------------------------------------------------------- */

static void
on_discovered(struct discovery *d)
{
	struct look *look = d->arg;

	loop_timer_cancel(&look->timer);
	for (size_t i = 0; i < d->count; i++)
		host_begin(look, i);
	done(look);
}

static void
on_discovery_timer(struct loop_timer *timer)
{
	struct look *look = timer->arg;

	discover_cancel(&look->discovery);
	look->discovery.count = 0;
	look->discovery.tls_rc = look->discovery.starttls_rc = RESOLVE_FAIL;
	look->discovery.reason = "the name servers did not answer in time";
	done(look);
}

/* --- The site card ------------------------------------------------------------------ */

static void
card_read(struct look_card *c, struct slice body)
{
	switch (dmtp_card_decode(body, &c->card)) {
	case DMTP_CARD_OK:
		return;
	case DMTP_CARD_NONE:
		(void)snprintf(c->why, sizeof(c->why), "what is there is no site card");
		return;
	case DMTP_CARD_BAD:
		(void)snprintf(c->why, sizeof(c->why),
		               "it is not of the form that a site card has");
		return;
	case DMTP_CARD_NO_MEMORY:
		(void)snprintf(c->why, sizeof(c->why), "out of memory");
		return;
	}
}

static void
on_card(void *arg, const struct fetch_answer *answer)
{
	struct look *look = arg;
	struct look_card *c = &look->card;

	look->fetch = NULL;
	c->answered = true;
	c->rc = answer->rc;
	c->status = answer->status;
	if (answer->rc != FETCH_OK)
		(void)snprintf(c->why, sizeof(c->why), "%s", answer->text);
	else if (answer->status != 200)
		(void)snprintf(c->why, sizeof(c->why), "HTTP status %ld", answer->status);
	else
		card_read(c, answer->body);
	done(look);
}

static void
card_begin(struct look *look)
{
	const struct config_route *route = look->route;
	char url[DMTP_DOMAIN_MAX + 64];
	struct fetch_request request = {
		.url = url,
		.max_body = DMTP_CARD_MAX,
		.connect_ms = look->timeout_ms,
		.total_ms = look->timeout_ms,
		.ca_file = route == NULL ? NULL : route->ca,
		.allow_private = route != NULL && route->allow_private,
	};

	if (route != NULL && route->pickup.host != NULL &&
	    net_address_make(route->pickup.host, route->pickup.port, &look->pin))
		request.pin = &look->pin;
	(void)snprintf(url, sizeof(url), "https://%s" DMTP_CARD_PATH, look->domain);
	look->fetch = fetch_start(look->fetcher, &request, on_card, look);
	if (look->fetch != NULL)
		look->pending++;
}

/* --- The whole ------------------------------------------------------------------------ */

static bool
prepare(struct look *look, char why[static NET_TEXT])
{
	struct tls_client_config tls = {
		.ca_file = look->route == NULL ? NULL : look->route->ca,
		.alpn = DMTP_ALPN,
		.unchecked =
		    true, /* so that what is wrong can be told; nothing is sent to it */
	};
	struct fetcher_config fetcher = { .user_agent = "tmtpctl" };

	(void)snprintf(why, NET_TEXT, "out of memory");
	look->loop = loop_new();
	if (look->loop == NULL)
		return false;
	look->resolver = discover_resolver(look->loop, &look->config->relay.nameservers,
	                                   (int)look->timeout_ms / 2, why);
	if (look->resolver == NULL || tls_client_new(&tls, &look->tls, why) != TLS_OK)
		return false;
	fetcher.resolver = look->resolver;
	look->fetcher = fetcher_new(look->loop, &fetcher);
	return look->fetcher != NULL;
}

bool
look_run(struct look *look, char why[static NET_TEXT])
{
	look->route = config_route_find(look->config, slice_str(look->domain));
	if (!prepare(look, why))
		return false;
	loop_timer_init(&look->timer, look->loop, on_discovery_timer, look);
	look->pending = 1;
	loop_timer_set(&look->timer, look->timeout_ms);
	card_begin(look);
	discover_start(&look->discovery, look->resolver, look->domain, look->route,
	               on_discovered, look);
	if (look->pending > 0)
		loop_run(look->loop);
	return true;
}

void
look_clear(struct look *look)
{
	dmtp_card_free(&look->card.card);
	fetcher_free(&look->fetcher);
	tls_client_free(&look->tls);
	resolver_free(&look->resolver);
	loop_free(&look->loop);
}
