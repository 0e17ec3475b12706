/* A client session: see session.h. The protocol is dmtp/client.h's; here are its octets, its waits and its work. */
#include "relay/session.h"

#include "base/log.h"
#include "base/metric.h"
#include "net/conn.h"
#include "net/discover.h"
#include "relay/routes.h"
#include "relay/signing.h"

#include <stdio.h>
#include <stdlib.h>

#define BULK_WINDOW \
	8 /* bulk commands unanswered: enough to keep a peer busy, few enough to overtake */
#define LANES 3
#define BLOCKED_MAX 8
#define OUT_MAX ((size_t)4 << 20)
#define REFUSED_S 60 /* when a Z instead of a greeting doesn't say for how long */

METRIC_DEFINE(sessions_begun, METRIC_COUNTER, "tmtp_relay_sessions_total", NULL,
              "DMTP sessions to peers that were greeted.");
METRIC_DEFINE(sessions_open, METRIC_GAUGE, "tmtp_relay_sessions", NULL,
              "DMTP sessions to peers now.");

#define REFUSED(var, reason)                                                      \
	METRIC_DEFINE(var, METRIC_COUNTER, "tmtp_relay_identities_refused_total", \
	              "reason=\"" reason "\"",                                    \
	              "Sessions to peers that failed for who they or we are, by why.")
REFUSED(refused_certificate, "server-certificate");
REFUSED(refused_protocol, "protocol");
REFUSED(refused_auth, "auth");
REFUSED(refused_sender, "unverified-sender");

/* AUTH in a session. */
enum proof {
	PROOF_NONE,   /* not asked for */
	PROOF_WANTED, /* to be sent before anything else */
	PROOF_SENT,
	PROOF_GIVEN,
};

#define PROOF_AGAIN_MS 60000 /* a proof that was refused sooner than this is of no use */

struct session {
	struct peer *peer;
	struct session *next;
	char own[RESOLVE_NAME];
	unsigned slot;

	struct discovery discovery;
	struct resolve_query query;
	bool resolving;
	size_t target; /* of the discovery's */
	/* Its addresses; those from `untried` on are tried when the server that was reached fails before its greeting. */
	struct net_address addresses[RESOLVE_MAX];
	size_t addresses_n, untried;
	bool reached; /* one of them answered; else none of the rest does */

	struct conn *conn;
	struct dmtp_client *client;
	struct loop_timer timer; /* the client's deadline */
	struct loop_defer work;  /* connecting, sending */
	struct loop_defer reap;
	bool greeted, no_more, answered, dead;
	enum proof proof;
	int64_t proof_ms; /* PROOF_GIVEN: since */
	struct command auth;
	bool retired;       /* its end is our wish, or was told the peer already */
	bool no_service;    /* DNS says that the domain takes no DMTP */
	uint32_t refused_s; /* a target said Z instead of a greeting: for so long */

	struct source *lanes[LANES], **ends[LANES];
	unsigned bulk_out;
	char reason[NET_TEXT];
};

static void work(struct loop_defer *defer);
static void end(struct session *s, const char *reason);

static int64_t
now_ms(const struct session *s)
{
	return loop_mono_ms(s->peer->relay->loop);
}

const char *
session_own(const struct session *s)
{
	return s->own;
}

struct peer *
session_peer(const struct session *s)
{
	return s->peer;
}

struct session **
session_link(struct session *s)
{
	return &s->next;
}

unsigned
session_slot(const struct session *s)
{
	return s->slot;
}

bool
session_is_usable(const struct session *s)
{
	return !s->dead && !s->no_more;
}

bool
session_is_idle(const struct session *s)
{
	for (int lane = 0; lane < LANES; lane++)
		if (s->lanes[lane] != NULL)
			return false;
	return session_is_usable(s) && s->greeted && session_unanswered(s) == 0;
}

bool
session_is_greeted(const struct session *s)
{
	return s->greeted;
}

const struct dmtp_limits *
session_limits(const struct session *s)
{
	return dmtp_client_limits(s->client);
}

unsigned
session_ext(const struct session *s)
{
	const struct dmtp_greeting *g = dmtp_client_greeting(s->client);

	return g == NULL ? 0 : g->ext;
}

void
session_window(struct session *s, unsigned commands)
{
	if (s->client != NULL)
		dmtp_client_set_window(s->client, commands);
}

size_t
session_unanswered(const struct session *s)
{
	return s->client == NULL ? 0 : dmtp_client_unanswered(s->client);
}

/* --- Lanes ------------------------------------------------------------------ */

void
session_add(struct session *s, struct source *source)
{
	int lane = source->lane < 0 || source->lane >= LANES ? LANES - 1 : source->lane;

	source->session = s;
	source->next = NULL;
	source->back = s->ends[lane];
	*s->ends[lane] = source;
	s->ends[lane] = &source->next;
	session_ready(s);
}

void
session_remove(struct source *source)
{
	struct session *s = source->session;

	if (s == NULL)
		return;
	*source->back = source->next;
	if (source->next != NULL)
		source->next->back = source->back;
	for (int lane = 0; lane < LANES; lane++)
		if (s->ends[lane] == &source->next)
			s->ends[lane] = source->back;
	source->session = NULL;
	source->next = NULL;
}

void
session_ready(struct session *s)
{
	if (!s->dead)
		loop_defer(s->peer->relay->loop, &s->work);
}

static bool
has_sources(const struct session *s)
{
	for (int lane = 0; lane < LANES; lane++)
		if (s->lanes[lane] != NULL)
			return true;
	return false;
}

/* Each may enter another session from within its gone. */
static void
drop_sources(struct session *s, const char *reason)
{
	for (int lane = 0; lane < LANES; lane++) {
		while (s->lanes[lane] != NULL) {
			struct source *source = s->lanes[lane];

			session_remove(source);
			source->gone(source, reason);
		}
	}
}

void
session_give_back(struct session *s, const char *reason)
{
	if (!s->dead)
		drop_sources(s, reason);
}

/* Streams in which something earlier waits, while a lane is walked. */
struct blocked {
	const struct source *first[BLOCKED_MAX];
	size_t n;
};

static bool
is_blocked(const struct blocked *b, const struct source *source)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->first[i]->stream == source->stream)
			return memcmp(&b->first[i]->order, &source->order,
			              sizeof(source->order)) != 0;
	return false;
}

static bool
has_room(const struct session *s, int lane)
{
	return !s->dead && !s->no_more && !peer_is_paused(s->peer) &&
	       (s->proof == PROOF_NONE || s->proof == PROOF_GIVEN) &&
	       dmtp_client_room(s->client) > 0 &&
	       (lane < LANES - 1 || s->bulk_out < BULK_WINDOW) &&
	       dmtp_client_output(s->client).len < OUT_MAX;
}

static void
serve_lane(struct session *s, int lane)
{
	struct blocked blocked = { .n = 0 };
	struct source *source = s->lanes[lane];

	while (source != NULL && has_room(s, lane)) {
		struct source *next = source->next;
		enum source_rc rc;

		if (is_blocked(&blocked, source)) {
			source = next;
			continue;
		}
		rc = source->make(source);
		if (rc == SOURCE_SENT)
			continue;
		if (rc == SOURCE_WAIT) {
			if (blocked.n == BLOCKED_MAX)
				return;
			blocked.first[blocked.n++] = source;
		}
		source = next; /* a source that is done may be freed by now */
	}
}

enum dmtp_client_rc
session_send(struct session *s, enum dmtp_verb verb, struct slice encoded,
             struct command *command, bool bulk)
{
	enum dmtp_client_rc rc = dmtp_client_send(s->client, now_ms(s), verb, encoded, command);

	if (rc != DMTP_CLIENT_OK)
		return rc;
	command->bulk = bulk;
	s->bulk_out += bulk;
	return rc;
}

/* --- Octets ------------------------------------------------------------------ */

static void
set_timer(struct session *s)
{
	int64_t deadline = s->client == NULL ? -1 : dmtp_client_deadline(s->client);

	if (deadline < 0)
		loop_timer_cancel(&s->timer);
	else
		loop_timer_set(&s->timer, deadline > now_ms(s) ? deadline - now_ms(s) : 0);
}

static void
flush(struct session *s)
{
	while (s->conn != NULL && s->client != NULL) {
		struct slice out = dmtp_client_output(s->client);
		size_t room = conn_write_room(s->conn);
		size_t n = out.len < room ? out.len : room;

		if (n == 0 || conn_write(s->conn, slice_mem(out.data, n)) != CONN_OK)
			break;
		dmtp_client_sent(s->client, now_ms(s), n);
	}
	set_timer(s);
}

static void
copy_reason(struct session *s, const struct dmtp_response *r)
{
	dmtp_response_words(r, s->reason, sizeof(s->reason));
}

/* --- AUTH --------------------------------------------------------------------- */

static bool
has_certificate(const struct session *s)
{
	const struct config_domain *d =
	    config_domain_find(s->peer->relay->config, slice_str(s->own));

	return d != NULL && d->certificate != NULL;
}

static bool
can_prove(const struct session *s)
{
	return s->peer->relay->config->relay.auth && conn_tls_peer(s->conn) != NULL &&
	       (session_ext(s) & DMTP_EXT_AUTH) != 0 &&
	       signing_can_prove(s->peer->relay->signing, slice_str(s->own));
}

/* No use in this session, nor in one that would begin now. */
static void
proof_failed(struct session *s, const char *reason, uint32_t retry_s)
{
	metric_add(&refused_auth, 1);
	log_warn("auth-failed", LOG_S("peer", s->peer->domain), LOG_S("as", s->own),
	         LOG_S("reason", reason));
	if (retry_s > 0)
		peer_wait(s->peer, reason, retry_s);
	else
		peer_failed(s->peer, reason);
	session_quit(s);
}

static void
on_auth_replied(struct command *command, const struct dmtp_response *r)
{
	struct session *s =
	    (struct session *)(void *)((char *)command - offsetof(struct session, auth));

	if (r->letter == DMTP_K) {
		s->proof = PROOF_GIVEN;
		s->proof_ms = now_ms(s);
		log_info("auth-done", LOG_S("peer", s->peer->domain), LOG_S("as", s->own));
		return;
	}
	copy_reason(s, r);
	proof_failed(s, s->reason,
	             r->letter == DMTP_Z ? (r->retry_s > 0 ? r->retry_s : 60) : 0);
}

static void
on_auth_lost(struct command *command, bool alone, const char *reason)
{
	(void)command;
	(void)alone;
	(void)reason;
}

static void
send_auth(struct session *s)
{
	struct slice server = slice_str(s->peer->domain), own = slice_str(s->own);
	struct signing_proof proof;
	struct dmtp_auth auth;
	struct buffer encoded;
	uint8_t exporter[32];

	if (dmtp_client_room(s->client) == 0)
		return;
	if (!conn_tls_exporter(s->conn, DMTP_EXPORTER_LABEL, exporter, sizeof(exporter)) ||
	    !signing_prove(s->peer->relay->signing, own, server, exporter, &proof)) {
		proof_failed(s, "AUTH needs a key, and TLS with the extended master secret", 0);
		return;
	}
	auth = (struct dmtp_auth){ .domain = own,
		                   .key = slice_str(proof.key_id),
		                   .signature =
		                       slice_mem(proof.signature, sizeof(proof.signature)) };
	buffer_init(&encoded, 4096);
	dmtp_auth_encode(&auth, &encoded);
	s->auth = (struct command){ .replied = on_auth_replied, .lost = on_auth_lost };
	if (!encoded.failed && session_send(s, DMTP_AUTH, buffer_slice(&encoded), &s->auth,
	                                    false) == DMTP_CLIENT_OK)
		s->proof = PROOF_SENT;
	buffer_free(&encoded);
}

/*
 * The peer doesn't know who we are: AUTH says it, and what it refused goes
 * again. False: it was told already, or can't be.
 */
static bool
prove_then_again(struct session *s, const struct dmtp_response *r)
{
	if (r->code != DMTP_CODE_UNVERIFIED_SENDER || r->letter == DMTP_K)
		return false;
	metric_add(&refused_sender, 1);
	if (s->proof == PROOF_WANTED || s->proof == PROOF_SENT)
		return true; /* sent before AUTH was */
	if (!can_prove(s) ||
	    (s->proof == PROOF_GIVEN && now_ms(s) < s->proof_ms + PROOF_AGAIN_MS)) {
		log_warn("sender-unverified", LOG_S("peer", s->peer->domain),
		         LOG_S("as", s->own),
		         LOG_S("reason", s->proof == PROOF_GIVEN
		                             ? "the peer refuses us after AUTH"
		                             : "the peer refuses our certificate, and there "
		                               "is no key for AUTH"));
		return false;
	}
	log_info("auth-wanted", LOG_S("peer", s->peer->domain), LOG_S("as", s->own));
	s->proof = PROOF_WANTED;
	s->peer->wants_auth = true;
	return true;
}

/* What it says of the session can't change within it: the next try is another one. */
static void
on_reply(struct session *s, const struct dmtp_client_event *event)
{
	struct command *command = event->tag;
	bool spoilt = command != &s->auth && event->response.letter == DMTP_E &&
	              dmtp_code_speaks(event->response.code) == DMTP_SPEAKS_SESSION;

	s->bulk_out -= command->bulk;
	if (command != &s->auth && prove_then_again(s, &event->response)) {
		command->lost(command, false, "the peer wants AUTH first");
		return;
	}
	s->answered = true;
	command->replied(command, &event->response);
	if (spoilt && !s->dead && !s->no_more)
		session_quit(s);
}

static void
on_info(struct session *s, const struct dmtp_response *r)
{
	copy_reason(s, r);
	log_info("peer-informs", LOG_S("peer", s->peer->domain), LOG_S("reason", s->reason),
	         LOG_I("retry_s", r->retry_s));
	if (r->retry_s > 0)
		peer_wait(s->peer, s->reason, r->retry_s);
}

/* X: what was sent is answered, the rest goes on in another session. */
static void
on_no_more(struct session *s, const struct dmtp_response *r)
{
	bool unserved = !s->answered && (has_sources(s) || session_unanswered(s) > 0);

	s->no_more = true;
	copy_reason(s, r);
	if (r->retry_s > 0)
		peer_wait(s->peer, s->reason, r->retry_s);
	else if (unserved && session_unanswered(s) == 0)
		peer_failed(s->peer, "it takes no commands: X before any was answered");
	s->retired = s->answered || r->retry_s > 0;
	drop_sources(s, "the peer takes no more commands in this session");
}

static void
on_handshake(struct session *s)
{
	struct route_way way = routes_find(s->peer->relay->routes, slice_str(s->peer->domain));

	flush(s);
	if (conn_start_tls_client(s->conn, way.tls, s->peer->domain, s->own) != CONN_OK)
		end(s, "TLS could not begin");
}

static void
on_greeted(struct session *s)
{
	const struct dmtp_greeting *g = dmtp_client_greeting(s->client);

	if (s->discovery.targets[s->target].mode == DMTP_CLIENT_STARTTLS &&
	    conn_tls_peer(s->conn) == NULL)
		return; /* the greeting before TLS */
	if (s->greeted)
		return;
	s->greeted = true;
	if ((s->peer->wants_auth || !has_certificate(s)) && can_prove(s))
		s->proof = PROOF_WANTED;
	metric_add(&sessions_begun, 1);
	if (s->peer->state.window_commands > 0)
		dmtp_client_set_window(s->client, (uint32_t)s->peer->state.window_commands);
	log_info("session-begun", LOG_S("peer", s->peer->domain), LOG_S("as", s->own),
	         LOG_S("host", g->host),
	         LOG_S("tls", conn_tls_peer(s->conn) == NULL
	                          ? "none"
	                          : conn_tls_peer(s->conn)->version));
}

static void
handle(struct session *s, const struct dmtp_client_event *event)
{
	switch (event->kind) {
	case DMTP_CLIENT_GREETED:
		on_greeted(s);
		break;
	case DMTP_CLIENT_HANDSHAKE:
		on_handshake(s);
		break;
	case DMTP_CLIENT_REPLY:
		on_reply(s, event);
		break;
	case DMTP_CLIENT_INFO:
		on_info(s, &event->response);
		break;
	case DMTP_CLIENT_NO_MORE:
		on_no_more(s, &event->response);
		break;
	case DMTP_CLIENT_REFUSED:
		copy_reason(s,
		            &event->response); /* its end follows: the next target, or a wait */
		s->refused_s =
		    event->response.retry_s > 0 ? event->response.retry_s : REFUSED_S;
		break;
	case DMTP_CLIENT_CLOSED:
		end(s, s->reason[0] != '\0' ? s->reason : dmtp_close_name(event->reason));
		break;
	}
}

static void
take_events(struct session *s)
{
	struct dmtp_client_event event;

	while (!s->dead && s->client != NULL && dmtp_client_next(s->client, &event))
		handle(s, &event);
	if (!s->dead)
		session_ready(s);
}

/* --- The connection ----------------------------------------------------------- */

static bool
make_client(struct session *s, enum dmtp_client_mode mode)
{
	const struct config_relay *config = &s->peer->relay->config->relay;
	struct dmtp_client_options options = { .mode = mode,
		                               .keep_alive = true,
		                               .reply_timeout_ms =
		                                   (int64_t)config->reply_timeout_s * 1000 };

	s->client = dmtp_client_new(&options, now_ms(s));
	if (s->client == NULL)
		end(s, "out of memory");
	return s->client != NULL;
}

static void
on_connected(struct conn *conn, void *arg)
{
	struct session *s = arg;
	enum dmtp_client_mode mode = s->discovery.targets[s->target].mode;

	/* The conn tried them in order, and this is the first that answered. */
	while (s->untried < s->addresses_n &&
	       !net_address_eq(&s->addresses[s->untried], conn_peer_address(conn)))
		s->untried++;
	s->untried += s->untried < s->addresses_n;
	s->reached = true;
	if (mode != DMTP_CLIENT_TLS && make_client(s, mode))
		set_timer(s);
}

static void
on_secured(struct conn *conn, void *arg)
{
	struct session *s = arg;

	if (s->client == NULL) {
		if (strcmp(conn_tls_peer(conn)->alpn, DMTP_ALPN) != 0) {
			metric_add(&refused_protocol, 1);
			end(s, "the server does not speak " DMTP_ALPN);
			return;
		}
		if (make_client(s, DMTP_CLIENT_TLS))
			set_timer(s);
		return;
	}
	if (!dmtp_client_secured(s->client, now_ms(s)))
		end(s, "TLS out of place");
	else
		take_events(s);
}

static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct session *s = arg;

	(void)conn;
	if (s->client == NULL)
		return 0;
	(void)dmtp_client_feed(s->client, now_ms(s), in.data, in.len);
	take_events(s);
	return in.len;
}

static void
on_drained(struct conn *conn, void *arg)
{
	(void)conn;
	session_ready(arg);
}

static void
on_ended(struct conn *conn, void *arg, bool clean)
{
	struct session *s = arg;

	(void)conn;
	(void)clean;
	if (s->client == NULL) {
		end(s, "the server closed before its greeting");
		return;
	}
	dmtp_client_eof(s->client, now_ms(s));
	take_events(s);
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end why, const char *text)
{
	struct session *s = arg;

	(void)conn;
	if (why == CONN_END_UNVERIFIED) {
		metric_add(&refused_certificate, 1);
		log_warn("server-unverified", LOG_S("peer", s->peer->domain),
		         LOG_S("host", s->discovery.targets[s->target].host),
		         LOG_S("reason", text));
	}
	end(s, text);
}

static const struct conn_events events = {
	.connected = on_connected,
	.secured = on_secured,
	.data = on_data,
	.drained = on_drained,
	.ended = on_ended,
	.closed = on_closed,
};

static void
on_timer(struct loop_timer *timer)
{
	struct session *s = timer->arg;

	if (s->client == NULL || s->dead)
		return;
	dmtp_client_tick(s->client, now_ms(s));
	take_events(s);
}

/* --- Finding the way ----------------------------------------------------------- */

static void
connect_to_rest(struct session *s)
{
	struct relay *relay = s->peer->relay;
	struct route_way way = routes_find(relay->routes, slice_str(s->peer->domain));
	struct conn_config config = {
		.events = &events,
		.arg = s,
		.out_max = OUT_MAX,
		.connect_ms = (int64_t)relay->config->relay.connect_timeout_s * 1000,
	};
	bool guarded = way.pinned == NULL || !way.pinned->allow_private;

	s->reached = false;
	s->conn = conn_connect(relay->loop, &s->addresses[s->untried],
	                       s->addresses_n - s->untried, guarded, &config);
	if (s->conn == NULL) {
		end(s, "out of memory");
		return;
	}
	if (s->discovery.targets[s->target].mode == DMTP_CLIENT_TLS &&
	    conn_start_tls_client(s->conn, way.tls, s->peer->domain, s->own) != CONN_OK)
		end(s, "TLS could not begin");
}

static void
on_host(struct resolve_query *query, const struct resolve_answer *answer)
{
	struct session *s = query->arg;
	size_t n = answer->count < RESOLVE_MAX ? answer->count : RESOLVE_MAX;

	s->resolving = false;
	s->no_service = s->discovery.fallback && answer->rc == RESOLVE_NO_NAME;
	if (!s->no_service && answer->rc != RESOLVE_FAIL)
		peer_found(s->peer);
	if (answer->rc != RESOLVE_FOUND || n == 0) {
		(void)snprintf(s->reason, sizeof(s->reason), "%s: %s",
		               s->discovery.targets[s->target].host, answer->text);
		end(s, s->reason);
		return;
	}
	memcpy(s->addresses, answer->addresses, n * sizeof(s->addresses[0]));
	for (size_t i = 0; i < n; i++)
		net_address_set_port(&s->addresses[i], s->discovery.targets[s->target].port);
	s->addresses_n = n;
	s->untried = 0;
	connect_to_rest(s);
}

static void
try_target(struct session *s)
{
	const struct discover_target *t = &s->discovery.targets[s->target];

	if (s->untried < s->addresses_n) {
		connect_to_rest(s);
		return;
	}
	if (net_address_make(t->host, t->port, &s->addresses[0])) {
		peer_found(s->peer);
		s->addresses_n = 1;
		s->untried = 0;
		connect_to_rest(s);
		return;
	}
	s->resolving = true;
	resolve_host(s->peer->relay->resolver, &s->query, t->host, on_host, s);
}

/* Discovery gave no target. */
static void
end_unfound(struct session *s)
{
	s->no_service = s->discovery.refused;
	end(s, s->discovery.reason);
}

static void
on_discovered(struct discovery *d)
{
	session_ready(d->arg);
}

static void
work(struct loop_defer *defer)
{
	struct session *s = defer->arg;

	if (s->dead)
		return;
	if (s->conn == NULL && !s->resolving && !s->discovery.busy) {
		if (s->target < s->discovery.count)
			try_target(s);
		else
			end_unfound(s);
		return;
	}
	if (s->greeted && s->proof == PROOF_WANTED && !s->no_more)
		send_auth(s);
	for (int lane = 0; !s->dead && s->greeted && lane < LANES; lane++)
		serve_lane(s, lane);
	if (!s->dead)
		flush(s);
	if (!s->dead)
		peer_session_idle(s->peer, s);
}

/* --- Life ------------------------------------------------------------------------ */

static void
reap(struct loop_defer *defer)
{
	struct session *s = defer->arg;

	dmtp_client_free(&s->client);
	peer_unref(&s->peer);
	free(s);
}

static void
hand_back_lost(struct session *s, const char *reason)
{
	struct dmtp_client_lost lost;
	size_t unanswered = session_unanswered(s);

	if (s->client == NULL)
		return;
	if (unanswered > 0)
		peer_narrow(s->peer, (unsigned)unanswered);
	while (dmtp_client_take_lost(s->client, &lost)) {
		struct command *command = lost.tag;

		if (command != NULL)
			command->lost(command, unanswered == 1 && lost.sent, reason);
	}
}

/*
 * What its end says of the peer. One that was of use is no failure, nor one
 * that nobody needed, nor one of which the peer was told already.
 */
static void
tell_peer(struct session *s, const char *reason)
{
	bool idle = session_unanswered(s) == 0 && !has_sources(s);

	if (s->retired || (s->greeted && (idle || s->answered)))
		return;
	if (!s->greeted && s->refused_s > 0)
		peer_wait(s->peer, reason, s->refused_s);
	else if (s->no_service)
		peer_refused(s->peer, reason);
	else
		peer_failed(s->peer, reason);
}

static void
finish(struct session *s, const char *reason)
{
	s->dead = true;
	loop_defer_cancel(&s->work);
	loop_timer_cancel(&s->timer);
	discover_cancel(&s->discovery);
	if (s->resolving)
		resolve_cancel(&s->query);
	if (s->conn != NULL)
		conn_linger(&s->conn, DMTP_LINGER_MS);
	metric_add(&sessions_open, -1);
	log_info("session-ended", LOG_S("peer", s->peer->domain), LOG_S("as", s->own),
	         LOG_S("reason", reason));
	peer_forget_session(s->peer, s);
	tell_peer(s, reason);
	hand_back_lost(s, reason);
	drop_sources(s, reason);
	loop_defer(s->peer->relay->loop, &s->reap);
}

/* Before the greeting the target's next address is tried, then the next target; after it the session is over. */
static void
end(struct session *s, const char *reason)
{
	char text[NET_TEXT];

	if (s->dead)
		return;
	(void)snprintf(text, sizeof(text), "%s", reason);
	if (!s->reached)
		s->untried = s->addresses_n;
	if (s->greeted || s->no_more || s->discovery.busy ||
	    (s->untried == s->addresses_n && s->target + 1 >= s->discovery.count)) {
		finish(s, text);
		return;
	}
	log_info("target-failed", LOG_S("peer", s->peer->domain),
	         LOG_S("host", s->discovery.targets[s->target].host), LOG_S("reason", text));
	(void)snprintf(s->reason, sizeof(s->reason), "%s", text);
	conn_close(&s->conn);
	dmtp_client_free(&s->client);
	loop_timer_cancel(&s->timer);
	if (s->untried == s->addresses_n) {
		s->target++;
		s->untried = s->addresses_n = 0;
	}
	session_ready(s);
}

struct session *
session_begin(struct peer *peer, const char *own, unsigned slot)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->peer = peer_ref(peer);
	s->slot = slot;
	(void)snprintf(s->own, sizeof(s->own), "%s", own);
	for (int lane = 0; lane < LANES; lane++)
		s->ends[lane] = &s->lanes[lane];
	loop_timer_init(&s->timer, peer->relay->loop, on_timer, s);
	loop_defer_init(&s->work, work, s);
	loop_defer_init(&s->reap, reap, s);
	metric_add(&sessions_open, 1);
	discover_start(&s->discovery, peer->relay->resolver, peer->domain,
	               routes_find(peer->relay->routes, slice_str(peer->domain)).pinned,
	               on_discovered, s);
	session_ready(s);
	return s;
}

void
session_quit(struct session *s)
{
	if (s->dead)
		return;
	s->no_more = s->retired = true;
	if (!s->greeted) {
		finish(s, "shutting down");
		return;
	}
	drop_sources(s, "the session ends");
	dmtp_client_quit(s->client, now_ms(s));
	session_ready(s);
}

void
session_abort(struct session *s, const char *reason)
{
	s->retired = true;
	if (!s->dead)
		finish(s, reason);
}
