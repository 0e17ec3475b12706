/* Sessions of other servers: see dmtp.h. */
#include "home/dmtp.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/cards.h"
#include "home/commands.h"
#include "home/guard.h"
#include "home/posts.h"
#include "net/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

METRIC_DEFINE(sessions_total, METRIC_COUNTER, "tmtp_dmtp_sessions_total", NULL,
              "DMTP sessions that other servers began.");
METRIC_DEFINE(sessions_now, METRIC_GAUGE, "tmtp_dmtp_sessions", NULL,
              "DMTP sessions of other servers now.");
METRIC_DEFINE(sessions_refused, METRIC_COUNTER, "tmtp_dmtp_sessions_refused_total", NULL,
              "DMTP connections above the limits.");

METRIC_DEFINE(sessions_unverified, METRIC_COUNTER, "tmtp_dmtp_identities_refused_total",
              "reason=\"certificate\"", "Identities of other servers that were refused.");
METRIC_DEFINE(handshakes_failed, METRIC_COUNTER, "tmtp_dmtp_identities_refused_total",
              "reason=\"handshake\"", "Identities of other servers that were refused.");

METRIC_DEFINE(injections, METRIC_COUNTER, "tmtp_dmtp_injections_total", NULL,
              "DMTP sessions that were ended for plaintext behind STARTTLS.");

#define PROVEN_MAX 8

/* A domain that AUTH proved. */
struct proven {
	char domain[DMTP_DOMAIN_MAX + 1], key[DMTP_ID_MAX + 1];
	int64_t until;
	struct proven *next;
};
#define REFUSED_S 60 /* who is above the limits of connections comes back then */

/* One address that is listened on. */
struct door {
	struct dmtp_service *service;
	struct listener *listener;
	bool tls; /* from the first octet */
};

struct dmtp_service {
	struct home *home;
	struct tls_server *tls;
	struct door *doors;
	size_t doors_n;
	struct dmtp_session *sessions;
	bool draining;
};

struct dmtp_session {
	struct dmtp_service *service;
	struct dmtp_session *next, **back; /* among the open ones */
	struct conn *conn;
	struct dmtp_server *server;
	struct loop_timer timer;
	struct loop_defer work;
	unsigned holds; /* replies that are due, and the connection */
	bool dead;
	struct proven *proven;
	unsigned proven_n;
	uint32_t refused_s; /* Z instead of a greeting, for so long; 0: it is served */
	const char *refused_why;
	char address[NET_ADDRESS_TEXT];
	struct net_address peer_address;
};

static void end(struct dmtp_session *s, const char *reason);

static int64_t
now_ms(const struct dmtp_session *s)
{
	return loop_mono_ms(s->service->home->loop);
}

const char *
dmtp_session_address(const struct dmtp_session *s)
{
	return s->address;
}

const struct dmtp_limits *
dmtp_session_limits(const struct dmtp_session *s)
{
	return dmtp_server_limits(s->server);
}

struct home *
dmtp_session_home(const struct dmtp_session *s)
{
	return s->service->home;
}

/* --- Who it is ---------------------------------------------------------------------- */

static const struct tls_peer *
tls_peer(const struct dmtp_session *s)
{
	return s->conn == NULL ? NULL : conn_tls_peer(s->conn);
}

const struct net_address *
dmtp_session_peer_address(const struct dmtp_session *s)
{
	return &s->peer_address;
}

static struct proven *
find_proven(const struct dmtp_session *s, struct slice domain)
{
	for (struct proven *p = s->proven; p != NULL; p = p->next)
		if (slice_eq_str(domain, p->domain))
			return p;
	return NULL;
}

static bool
still_counts(const struct dmtp_session *s, const struct proven *p)
{
	const struct dmtp_card *card =
	    cards_kept(s->service->home->cards, slice_str(p->domain));

	return dmtp_card_proof_counts(card, slice_str(p->key), p->until, clock_wall_s());
}

bool
dmtp_session_is_verified(const struct dmtp_session *s, struct slice domain)
{
	const struct tls_peer *peer = tls_peer(s);
	const struct proven *proven;

	if (peer != NULL && tls_peer_is(peer, domain))
		return true;
	proven = s->dead ? NULL : find_proven(s, domain);
	return proven != NULL && still_counts(s, proven);
}

const char *
dmtp_session_server(const struct dmtp_session *s)
{
	const struct tls_peer *peer = tls_peer(s);
	const struct config_domain *domain =
	    peer == NULL ? NULL
			 : config_domain_find(s->service->home->config, slice_str(peer->sni));

	return domain == NULL ? "" : domain->name;
}

bool
dmtp_session_is_over(const struct dmtp_session *s)
{
	return s->dead;
}

bool
dmtp_session_exporter(const struct dmtp_session *s, uint8_t out[static 32])
{
	return tls_peer(s) != NULL && conn_tls_exporter(s->conn, DMTP_EXPORTER_LABEL, out, 32);
}

static struct dmtp_limits
limits_of_all(const struct config *config)
{
	const struct config_limits *l = &config->home.limits;

	return (struct dmtp_limits){ .command_octets = l->command_octets,
		                     .idle_s = l->idle_s,
		                     .message_octets = l->message_octets,
		                     .noops = l->noops,
		                     .pipeline = l->pipeline,
		                     .rcpts = l->rcpts,
		                     .uris = l->uris };
}

/* What the operator gave this domain in place of everybody's. */
static void
limits_of_route(const struct config *config, struct slice domain, struct dmtp_limits *l)
{
	const struct config_route *route = config_route_find(config, domain);

	if (route == NULL)
		return;
	if (route->limits.command_octets != 0)
		l->command_octets = route->limits.command_octets;
	if (route->limits.message_octets != 0)
		l->message_octets = route->limits.message_octets;
	if (route->limits.pipeline != 0)
		l->pipeline = route->limits.pipeline;
	if (route->limits.rcpts != 0)
		l->rcpts = route->limits.rcpts;
	if (route->limits.uris != 0)
		l->uris = route->limits.uris;
}

/* By whom the session is verified for; of two domains with a say the later one's counts. */
static struct dmtp_limits
limits_of_session(const struct dmtp_session *s)
{
	const struct config *config = s->service->home->config;
	const struct tls_peer *peer = tls_peer(s);
	struct dmtp_limits l = limits_of_all(config);

	for (size_t i = 0; peer != NULL && peer->verified && i < peer->name_count; i++)
		limits_of_route(config, slice_str(peer->names[i]), &l);
	for (const struct proven *p = s->proven; p != NULL; p = p->next)
		limits_of_route(config, slice_str(p->domain), &l);
	return l;
}

bool
dmtp_session_prove(struct dmtp_session *s, const char *domain, const char *key, int64_t until,
                   struct dmtp_limits *limits)
{
	struct proven *p = find_proven(s, slice_str(domain));

	*limits = DMTP_LIMITS_DEFAULT;
	if (s->dead) /* its service may be gone */
		return true;
	if (p == NULL) {
		if (s->proven_n == PROVEN_MAX || (p = calloc(1, sizeof(*p))) == NULL)
			return false;
		p->next = s->proven;
		s->proven = p;
		s->proven_n++;
	}
	(void)snprintf(p->domain, sizeof(p->domain), "%s", domain);
	(void)snprintf(p->key, sizeof(p->key), "%s", key);
	p->until = until;
	*limits = limits_of_session(s);
	return true;
}

/* --- Octets ---------------------------------------------------------------------- */

static void
set_timer(struct dmtp_session *s)
{
	int64_t deadline = dmtp_server_deadline(s->server);

	if (deadline < 0)
		loop_timer_cancel(&s->timer);
	else
		loop_timer_set(&s->timer, deadline > now_ms(s) ? deadline - now_ms(s) : 0);
}

/* False: nothing could be written. */
static bool
flush(struct dmtp_session *s)
{
	struct slice out = dmtp_server_output(s->server);
	size_t room = conn_write_room(s->conn);
	size_t n = out.len < room ? out.len : room;

	if (n == 0 || conn_write(s->conn, slice_mem(out.data, n)) != CONN_OK)
		return false;
	dmtp_server_sent(s->server, now_ms(s), n);
	return true;
}

static void
begin_tls(struct dmtp_session *s)
{
	if (conn_start_tls_server(s->conn, s->service->tls, false) != CONN_OK)
		end(s, "TLS could not begin");
}

static void
handle(struct dmtp_session *s, const struct dmtp_server_event *event)
{
	switch (event->kind) {
	case DMTP_SERVER_COMMAND:
		dmtp_session_hold(s);
		command_handle(s, event);
		break;
	case DMTP_SERVER_STARTTLS:
		begin_tls(s);
		break;
	case DMTP_SERVER_CLOSE:
		if (event->reason == DMTP_CLOSE_INJECTED)
			metric_add(&injections, 1);
		end(s, dmtp_close_name(event->reason));
		break;
	}
}

/*
 * Commands are taken on while there is room for them; a session that has none
 * under way may always take one. Its own next reply lets it look again.
 */
static bool
may_go_on(const struct dmtp_session *s)
{
	return dmtp_server_unanswered(s->server) == 0 ||
	       posts_have_room(s->service->home->posts);
}

/*
 * Events, output, and reading on: after anything that happened. What was sent
 * may be what an event waited for.
 */
static void
work(struct loop_defer *defer)
{
	struct dmtp_session *s = defer->arg;
	struct dmtp_server_event event;

	do {
		while (!s->dead && s->server != NULL && may_go_on(s) &&
		       dmtp_server_next(s->server, &event))
			handle(s, &event);
		if (s->dead || s->server == NULL)
			return;
	} while (flush(s));
	if (conn_unread(s->conn) > 0 && dmtp_server_wants(s->server))
		conn_read_resume(s->conn);
	set_timer(s);
}

static void
work_soon(struct dmtp_session *s)
{
	loop_defer(s->service->home->loop, &s->work);
}

void
dmtp_session_hold(struct dmtp_session *s)
{
	s->holds++;
}

static void
release(struct dmtp_session *s)
{
	struct proven *p;

	if (--s->holds > 0)
		return;
	dmtp_server_free(&s->server);
	while ((p = s->proven) != NULL) {
		s->proven = p->next;
		free(p);
	}
	free(s);
}

void
dmtp_session_reply(struct dmtp_session *s, uint64_t seq, const struct dmtp_response *response)
{
	if (!s->dead) {
		(void)dmtp_server_reply(s->server, now_ms(s), seq, response);
		work_soon(s);
	}
	release(s);
}

void
dmtp_session_inform(struct dmtp_session *s, const struct dmtp_response *info)
{
	if (s->dead)
		return;
	dmtp_server_info(s->server, now_ms(s), info);
	work_soon(s);
}

/* --- The connection ---------------------------------------------------------------- */

static void
make_refusal(struct dmtp_session *s)
{
	struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_THROTTLED, s->refused_s);

	z.text = slice_str(s->refused_why);
	s->server = dmtp_server_new_refusing(&z, now_ms(s));
	if (s->server == NULL)
		end(s, "refused");
	else
		work_soon(s);
}

static struct dmtp_greeting
greeting(const struct dmtp_session *s)
{
	const struct config *config = s->service->home->config;
	const struct tls_peer *peer = conn_tls_peer(s->conn);
	const struct config_domain *named =
	    peer == NULL ? NULL : config_domain_find(config, slice_str(peer->sni));
	struct dmtp_greeting g = {
		.version = 1,
		.ext = COMMANDS_EXT,
		.tls = peer == NULL,
		.limits = limits_of_session(s),
	};

	(void)snprintf(g.host, sizeof(g.host), "%s",
	               named != NULL ? named->name : config->domains[0].name);
	return g;
}

/* What has no shape, is unknown, or comes out of turn: nothing else hears of it. */
static void
on_command_refused(void *arg, const struct dmtp_refusal *refusal)
{
	command_tell_refused(arg, refusal->verb, SLICE(""), refusal->code, refusal->why);
}

static bool
make_server(struct dmtp_session *s, bool secured)
{
	struct dmtp_server_options options = { .greeting = greeting(s),
		                               .secured = secured,
		                               .refused = on_command_refused,
		                               .arg = s };

	s->server = dmtp_server_new(&options, now_ms(s));
	if (s->server == NULL) {
		end(s, "out of memory");
		return false;
	}
	if (s->service->draining)
		dmtp_server_drain(s->server, now_ms(s), NULL);
	work_soon(s);
	return true;
}

static void
on_secured(struct conn *conn, void *arg)
{
	struct dmtp_session *s = arg;
	const struct tls_peer *peer = conn_tls_peer(conn);
	struct dmtp_greeting g;

	if (peer->presented && !peer->verified) {
		metric_add(&sessions_unverified, 1);
		log_warn("peer-unverified", LOG_S("address", s->address),
		         LOG_S("reason", peer->problem));
	}
	if (s->refused_s > 0) {
		make_refusal(s);
		return;
	}
	if (s->server == NULL) {
		(void)make_server(s, true);
		return;
	}
	g = greeting(s);
	if (dmtp_server_secured(s->server, now_ms(s), &g))
		work_soon(s);
	else
		end(s, "TLS out of place");
}

static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct dmtp_session *s = arg;
	size_t n;

	(void)conn;
	if (s->server == NULL)
		return 0;
	n = dmtp_server_feed(s->server, now_ms(s), in.data, in.len);
	work(&s->work);
	return n;
}

static void
on_drained(struct conn *conn, void *arg)
{
	(void)conn;
	work_soon(arg);
}

static void
on_ended(struct conn *conn, void *arg, bool clean)
{
	struct dmtp_session *s = arg;

	(void)conn;
	(void)clean;
	if (s->server == NULL) {
		end(s, "closed before TLS");
		return;
	}
	dmtp_server_eof(s->server, now_ms(s));
	work_soon(s);
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end why, const char *text)
{
	(void)conn;
	if (why == CONN_END_HANDSHAKE)
		metric_add(&handshakes_failed, 1);
	if (why == CONN_END_INJECTED)
		metric_add(&injections, 1);
	end(arg, text);
}

static const struct conn_events events = {
	.secured = on_secured,
	.data = on_data,
	.drained = on_drained,
	.ended = on_ended,
	.closed = on_closed,
};

static void
on_timer(struct loop_timer *timer)
{
	struct dmtp_session *s = timer->arg;

	if (s->dead || s->server == NULL)
		return;
	dmtp_server_tick(s->server, now_ms(s));
	work(&s->work);
}

/* --- Life ---------------------------------------------------------------------------- */

static void
end(struct dmtp_session *s, const char *reason)
{
	if (s->dead)
		return;
	s->dead = true;
	log_info("dmtp-session-ended", LOG_S("address", s->address), LOG_S("reason", reason));
	*s->back = s->next;
	if (s->next != NULL)
		s->next->back = s->back;
	loop_timer_cancel(&s->timer);
	loop_defer_cancel(&s->work);
	if (s->conn != NULL)
		conn_linger(&s->conn, DMTP_LINGER_MS);
	metric_add(&sessions_now, -1);
	/* The machine may be in use further up the stack. */
	loop_defer(s->service->home->loop, &s->work);
}

/* The deferred work of a session that has ended: its last hold but for replies. */
static void
work_or_reap(struct loop_defer *defer)
{
	struct dmtp_session *s = defer->arg;

	if (s->dead)
		release(s);
	else
		work(defer);
}

static struct dmtp_session *
session_new(struct dmtp_service *service, int fd, const struct net_address *peer,
            struct listener_seat *seat)
{
	struct dmtp_session *s = calloc(1, sizeof(*s));
	struct conn_config config = {
		.events = &events,
		.arg = s,
		.in_max = 262144,
		.out_max = (size_t)2 << 20,
		.stall_ms = (int64_t)service->home->config->home.limits.idle_s * 1000,
		.seat = seat,
	};

	if (s == NULL) {
		(void)close(fd);
		listener_leave(&seat);
		return NULL;
	}
	s->conn = conn_new(service->home->loop, fd, peer, &config);
	if (s->conn == NULL) {
		free(s);
		return NULL;
	}
	s->service = service;
	s->holds = 1;
	(void)net_address_format(peer, s->address);
	s->peer_address = *peer;
	loop_timer_init(&s->timer, service->home->loop, on_timer, s);
	loop_defer_init(&s->work, work_or_reap, s);
	s->next = service->sessions;
	s->back = &service->sessions;
	if (s->next != NULL)
		s->next->back = &s->next;
	service->sessions = s;
	metric_add(&sessions_now, 1);
	metric_add(&sessions_total, 1);
	return s;
}

/* Within TLS from the first octet a Z, too, needs the handshake; the listener bounds how many do. */
static void
refuse(struct door *door, struct dmtp_session *s, uint32_t retry_s, const char *why)
{
	metric_add(&sessions_refused, 1);
	log_warn("dmtp-refused", LOG_S("address", s->address), LOG_S("reason", why),
	         LOG_I("retry_s", retry_s));
	s->refused_s = retry_s;
	s->refused_why = why;
	if (!door->tls)
		make_refusal(s);
	else if (conn_start_tls_server(s->conn, door->service->tls, true) != CONN_OK)
		end(s, "TLS could not begin");
}

/* 0: it may begin a session; else how many seconds are too few. */
static unsigned
must_wait(const struct home *home, const struct net_address *peer)
{
	unsigned rate = home->config->home.max_sessions_per_minute, wait_s = 0;
	struct guard_rule rule = { .kind = 's', .burst = rate };
	uint8_t key[8];
	size_t len = net_address_key(peer, key);

	if (rate == 0)
		return 0;
	rule.every_us = INT64_C(60000000) / rate;
	if (guard_take(home->rates, &rule, slice_mem(key, len), clock_mono_us(), &wait_s))
		return 0;
	return wait_s;
}

static void
on_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	struct door *door = arg;
	struct dmtp_session *s = session_new(door->service, fd, peer, seat);
	unsigned wait_s;

	if (s == NULL)
		return;
	wait_s = must_wait(door->service->home, peer);
	if (wait_s > 0)
		refuse(door, s, wait_s, "too many sessions begun from there");
	else if (!door->tls)
		(void)make_server(s, false);
	else if (conn_start_tls_server(s->conn, door->service->tls, true) != CONN_OK)
		end(s, "TLS could not begin");
}

static void
on_refused(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat,
           enum listener_refusal why)
{
	struct door *door = arg;
	struct dmtp_session *s = session_new(door->service, fd, peer, seat);

	if (s != NULL)
		refuse(door, s, REFUSED_S,
		       why == LISTENER_FULL ? "too many connections"
		                            : "too many connections from there");
}

/* --- The service ---------------------------------------------------------------------- */

/* Calls tls_server_new or _reload with what a configuration says. */
static enum tls_error
with_tls_config(struct dmtp_service *service, const struct config *config,
                char why[static NET_TEXT])
{
	struct tls_identity *ids = calloc(config->domains_count + 1, sizeof(*ids));
	struct tls_pin *pins = calloc(config->routes_count + 1, sizeof(*pins));
	struct tls_server_config tls = { .identities = ids, .alpn = DMTP_ALPN, .pins = pins };
	enum tls_error error = TLS_NO_MEMORY;

	for (size_t i = 0; ids != NULL && i < config->domains_count; i++) {
		const struct config_domain *d = &config->domains[i];

		if (d->certificate != NULL)
			ids[tls.count++] =
			    (struct tls_identity){ d->name, d->certificate, d->key };
	}
	for (size_t i = 0; pins != NULL && i < config->routes_count; i++)
		if (config->routes[i].ca != NULL)
			pins[tls.pin_count++] =
			    (struct tls_pin){ config->routes[i].domain, config->routes[i].ca };
	if (ids != NULL && pins != NULL)
		error = service->tls == NULL ? tls_server_new(&tls, &service->tls, why)
		                             : tls_server_reload(service->tls, &tls, why);
	free(ids);
	free(pins);
	return error;
}

static bool
open_door(struct dmtp_service *service, const struct config_address *address, bool tls,
          char why[static NET_TEXT])
{
	struct door *door = &service->doors[service->doors_n];
	const struct config_home *c = &service->home->config->home;
	struct listener_config config = {
		.bind = address->text,
		.max_total = c->max_connections,
		.max_per_address = c->max_connections_per_address,
		.accepted = on_accepted,
		.refused = on_refused,
		.arg = door,
	};

	door->service = service;
	door->tls = tls;
	door->listener = listener_new(service->home->loop, &config, why);
	if (door->listener == NULL)
		return false;
	service->doors_n++;
	log_info("listening", LOG_S("protocol", tls ? "dmtps" : "dmtp"),
	         LOG_S("address", address->text));
	return true;
}

static bool
open_doors(struct dmtp_service *service, char why[static NET_TEXT])
{
	const struct config_home *c = &service->home->config->home;

	service->doors =
	    calloc(c->dmtp_listen.count + c->dmtps_listen.count + 1, sizeof(*service->doors));
	if (service->doors == NULL)
		return false;
	for (size_t i = 0; i < c->dmtps_listen.count; i++)
		if (!open_door(service, &c->dmtps_listen.items[i], true, why))
			return false;
	for (size_t i = 0; i < c->dmtp_listen.count; i++)
		if (!open_door(service, &c->dmtp_listen.items[i], false, why))
			return false;
	return true;
}

struct dmtp_service *
dmtp_service_new(struct home *home, char why[static NET_TEXT])
{
	struct dmtp_service *service = calloc(1, sizeof(*service));

	(void)snprintf(why, NET_TEXT, "out of memory");
	if (service == NULL)
		return NULL;
	service->home = home;
	if (with_tls_config(service, home->config, why) != TLS_OK || !open_doors(service, why))
		dmtp_service_free(&service);
	return service;
}

bool
dmtp_service_reload(struct dmtp_service *service, const struct config *loaded,
                    char why[static NET_TEXT])
{
	return with_tls_config(service, loaded, why) == TLS_OK;
}

void
dmtp_service_drain(struct dmtp_service *service)
{
	service->draining = true;
	for (size_t i = 0; i < service->doors_n; i++)
		listener_free(&service->doors[i].listener);
	for (struct dmtp_session *s = service->sessions, *next; s != NULL; s = next) {
		next = s->next;
		if (s->server == NULL) {
			end(s, "shutting down");
			continue;
		}
		dmtp_server_drain(s->server, now_ms(s), NULL);
		work_soon(s);
	}
}

bool
dmtp_service_is_quiet(const struct dmtp_service *service)
{
	return service->sessions == NULL;
}

void
dmtp_service_free(struct dmtp_service **service)
{
	struct dmtp_service *d = *service;

	if (d == NULL)
		return;
	*service = NULL;
	while (d->sessions != NULL)
		end(d->sessions, "shutting down");
	(void)loop_turn(d->home->loop, 0); /* those that ended are freed at the end of a turn */
	for (size_t i = 0; i < d->doors_n; i++)
		listener_free(&d->doors[i].listener);
	tls_server_free(&d->tls);
	free(d->doors);
	free(d);
}
