/* LMTP sessions: see smtp.h. */
#include "home/smtp.h"

#include "base/log.h"
#include "base/metric.h"
#include "home/mails.h"
#include "net/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINGER_MS 2000
/* Mail in memory, of all sessions: so many of the longest, and some room for short ones. */
#define HELD_LONGEST 4
#define HELD_MORE ((size_t)64 << 20)

METRIC_DEFINE(sessions_total, METRIC_COUNTER, "tmtp_lmtp_sessions_total", NULL,
              "LMTP sessions that the mail server began.");
METRIC_DEFINE(sessions_now, METRIC_GAUGE, "tmtp_lmtp_sessions", NULL, "LMTP sessions now.");
METRIC_DEFINE(sessions_refused, METRIC_COUNTER, "tmtp_lmtp_sessions_refused_total", NULL,
              "LMTP connections above the limit.");

struct smtp {
	struct home *home;
	struct listener **doors;
	size_t doors_n;
	struct session *sessions;
	size_t held; /* octets of mail in sessions */
	bool draining;
};

struct session {
	struct smtp *smtp;
	struct session *next, **back; /* among the open ones */
	struct conn *conn;
	struct lmtp *lmtp;
	struct loop_timer timer;
	struct loop_defer work;
	unsigned holds; /* answers that are due, and the connection */
	size_t held;
	bool dead;
	char address[NET_ADDRESS_TEXT];
};

/* A RCPT that is asked about. */
struct question {
	struct session *session;
	uint64_t seq;
};

static void end(struct session *s, const char *reason);

static int64_t
now_ms(const struct session *s)
{
	return loop_mono_ms(s->smtp->home->loop);
}

static void
work_soon(struct session *s)
{
	loop_defer(s->smtp->home->loop, &s->work);
}

static void
release(struct session *s)
{
	if (--s->holds > 0)
		return;
	lmtp_free(&s->lmtp);
	free(s);
}

/* --- memory ---------------------------------------------------------------------- */

static void
count_held(struct session *s)
{
	size_t held = s->dead ? 0 : lmtp_held(s->lmtp);

	s->smtp->held += held - s->held;
	s->held = held;
}

/* The session that grew beyond what all may hold gives way; its mail comes again. */
static void
bound_held(struct session *s)
{
	const struct smtp *smtp = s->smtp;
	size_t max = HELD_LONGEST * smtp->home->config->home.lmtp.octets + HELD_MORE;

	count_held(s);
	if (s->held == 0 || smtp->held + mails_held(smtp->home->mails) <= max)
		return;
	lmtp_shed(s->lmtp);
	count_held(s);
}

/* --- events ------------------------------------------------------------------------ */

static void
on_answer(void *arg, enum lmtp_answer answer)
{
	struct question *q = arg;
	struct session *s = q->session;

	if (!s->dead) {
		(void)lmtp_answer_rcpt(s->lmtp, now_ms(s), q->seq, answer);
		work_soon(s);
	}
	free(q);
	release(s);
}

static void
ask(struct session *s, const struct lmtp_event *event)
{
	struct question *q = calloc(1, sizeof(*q));

	if (q == NULL) {
		(void)lmtp_answer_rcpt(s->lmtp, now_ms(s), event->seq, LMTP_TOO_MUCH);
		return;
	}
	q->session = s;
	q->seq = event->seq;
	s->holds++;
	mails_ask(s->smtp->home->mails, lmtp_sender(s->lmtp), event->address, on_answer, q);
}

/* Without memory nobody has it. */
static void
answer_all(struct session *s, enum lmtp_answer answer)
{
	size_t n = lmtp_rcpts(s->lmtp);
	enum lmtp_answer *answers = calloc(n, sizeof(*answers));

	if (answers == NULL) {
		end(s, "out of memory");
		return;
	}
	for (size_t i = 0; i < n; i++)
		answers[i] = answer;
	(void)lmtp_answer_message(s->lmtp, now_ms(s), answers);
	free(answers);
}

static void
on_done(void *arg, const enum lmtp_answer *answers)
{
	struct session *s = arg;

	if (!s->dead) {
		if (answers != NULL)
			(void)lmtp_answer_message(s->lmtp, now_ms(s), answers);
		else
			answer_all(s, LMTP_TOO_MUCH);
		work_soon(s);
	}
	release(s);
}

static void
handle(struct session *s, const struct lmtp_event *event)
{
	switch (event->kind) {
	case LMTP_EVENT_RCPT:
		ask(s, event);
		break;
	case LMTP_EVENT_MESSAGE:
		s->holds++;
		mails_take(s->smtp->home->mails, s->lmtp, on_done, s);
		break;
	case LMTP_EVENT_REFUSED:
		log_info("mail-refused", LOG_B("from", lmtp_sender(s->lmtp)),
		         LOG_S("reason", event->reason));
		break;
	case LMTP_EVENT_CLOSE:
		end(s, lmtp_close_name(event->closed));
		break;
	}
}

/* --- octets ----------------------------------------------------------------------------- */

static void
set_timer(struct session *s)
{
	int64_t deadline = lmtp_deadline(s->lmtp);

	if (deadline < 0)
		loop_timer_cancel(&s->timer);
	else
		loop_timer_set(&s->timer, deadline > now_ms(s) ? deadline - now_ms(s) : 0);
}

/* False: nothing could be written. */
static bool
flush(struct session *s)
{
	struct slice out = lmtp_output(s->lmtp);
	size_t room = conn_write_room(s->conn);
	size_t n = out.len < room ? out.len : room;

	if (n == 0 || conn_write(s->conn, slice_mem(out.data, n)) != CONN_OK)
		return false;
	lmtp_sent(s->lmtp, now_ms(s), n);
	return true;
}

/* Events, output, and reading on: after anything that happened. */
static void
work(struct session *s)
{
	struct lmtp_event event;

	do {
		while (!s->dead && lmtp_next(s->lmtp, &event))
			handle(s, &event);
		if (s->dead)
			return;
	} while (flush(s));
	bound_held(s);
	if (conn_unread(s->conn) > 0 && lmtp_wants(s->lmtp))
		conn_read_resume(s->conn);
	set_timer(s);
}

/* The deferred work of a session that has ended: its last hold but for answers. */
static void
work_or_reap(struct loop_defer *defer)
{
	struct session *s = defer->arg;

	if (s->dead)
		release(s);
	else
		work(s);
}

/* What comes of these octets is done at the end of the turn: it may end the session. */
static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct session *s = arg;
	size_t n = lmtp_feed(s->lmtp, now_ms(s), in.data, in.len);

	(void)conn;
	bound_held(s);
	work_soon(s);
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
	struct session *s = arg;

	(void)conn;
	(void)clean;
	lmtp_eof(s->lmtp, now_ms(s));
	work_soon(s);
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end why, const char *text)
{
	(void)conn;
	(void)why;
	end(arg, text);
}

static const struct conn_events events = {
	.data = on_data,
	.drained = on_drained,
	.ended = on_ended,
	.closed = on_closed,
};

static void
on_timer(struct loop_timer *timer)
{
	struct session *s = timer->arg;

	if (s->dead)
		return;
	lmtp_tick(s->lmtp, now_ms(s));
	work(s);
}

/* --- life -------------------------------------------------------------------------------- */

static void
end(struct session *s, const char *reason)
{
	if (s->dead)
		return;
	s->dead = true;
	log_info("lmtp-session-ended", LOG_S("address", s->address), LOG_S("reason", reason));
	*s->back = s->next;
	if (s->next != NULL)
		s->next->back = s->back;
	count_held(s);
	loop_timer_cancel(&s->timer);
	loop_defer_cancel(&s->work);
	conn_linger(&s->conn, LINGER_MS);
	metric_add(&sessions_now, -1);
	/* The machine may be in use further up the stack. */
	loop_defer(s->smtp->home->loop, &s->work);
}

static struct lmtp *
make_lmtp(const struct smtp *smtp, bool refuse)
{
	const struct config *config = smtp->home->config;
	struct lmtp_options options = {
		.host = config->domains[0].name,
		.octets = config->home.lmtp.octets,
		.rcpts = config->home.lmtp.rcpts,
		.idle_s = config->home.lmtp.idle_s,
	};
	int64_t now = loop_mono_ms(smtp->home->loop);

	return refuse ? lmtp_new_refusing(&options, now) : lmtp_new(&options, now);
}

/* Gives up what it took. */
static void
no_session(struct session *s, int fd, struct listener_seat *seat)
{
	if (s != NULL)
		lmtp_free(&s->lmtp);
	free(s);
	if (fd >= 0)
		(void)close(fd);
	listener_leave(&seat);
}

static void
session_begin(struct session *s, const struct net_address *peer)
{
	struct smtp *smtp = s->smtp;

	s->holds = 1;
	(void)net_address_format(peer, s->address);
	loop_timer_init(&s->timer, smtp->home->loop, on_timer, s);
	loop_defer_init(&s->work, work_or_reap, s);
	s->next = smtp->sessions;
	s->back = &smtp->sessions;
	if (s->next != NULL)
		s->next->back = &s->next;
	smtp->sessions = s;
	metric_add(&sessions_now, 1);
	metric_add(&sessions_total, 1);
	work_soon(s);
}

static struct session *
session_new(struct smtp *smtp, int fd, const struct net_address *peer,
            struct listener_seat *seat, bool refuse)
{
	struct session *s = calloc(1, sizeof(*s));
	struct conn_config config = {
		.events = &events,
		.arg = s,
		.in_max = 262144,
		.out_max = (size_t)1 << 20,
		.stall_ms = (int64_t)smtp->home->config->home.lmtp.idle_s * 1000,
		.seat = seat,
	};

	if (s == NULL || (s->lmtp = make_lmtp(smtp, refuse)) == NULL) {
		no_session(s, fd, seat);
		return NULL;
	}
	s->smtp = smtp;
	s->conn = conn_new(smtp->home->loop, fd, peer, &config);
	if (s->conn == NULL) {
		no_session(s, -1, NULL);
		return NULL;
	}
	session_begin(s, peer);
	return s;
}

static void
on_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	(void)session_new(arg, fd, peer, seat, false);
}

static void
on_refused(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat,
           enum listener_refusal why)
{
	(void)why;
	metric_add(&sessions_refused, 1);
	log_warn("lmtp-refused", LOG_S("reason", "too many connections"));
	(void)session_new(arg, fd, peer, seat, true);
}

static bool
open_door(struct smtp *smtp, const char *address, char why[static NET_TEXT])
{
	struct listener_config config = {
		.bind = address,
		.max_total = smtp->home->config->home.lmtp.connections,
		.accepted = on_accepted,
		.refused = on_refused,
		.arg = smtp,
	};
	struct listener *door = listener_new(smtp->home->loop, &config, why);

	if (door == NULL)
		return false;
	smtp->doors[smtp->doors_n++] = door;
	log_info("listening", LOG_S("protocol", "lmtp"), LOG_S("address", address));
	return true;
}

struct smtp *
smtp_new(struct home *home, char why[static NET_TEXT])
{
	const struct config_addresses *listen = &home->config->home.lmtp.listen;
	struct smtp *smtp = calloc(1, sizeof(*smtp));
	bool good = smtp != NULL;

	(void)snprintf(why, NET_TEXT, "out of memory");
	if (good) {
		smtp->home = home;
		smtp->doors = calloc(listen->count + 1, sizeof(struct listener *));
		good = smtp->doors != NULL;
	}
	for (size_t i = 0; good && i < listen->count; i++)
		good = open_door(smtp, listen->items[i].text, why);
	if (!good)
		smtp_free(&smtp);
	return smtp;
}

void
smtp_drain(struct smtp *smtp)
{
	smtp->draining = true;
	for (size_t i = 0; i < smtp->doors_n; i++)
		listener_free(&smtp->doors[i]);
	for (struct session *s = smtp->sessions; s != NULL; s = s->next) {
		lmtp_drain(s->lmtp, now_ms(s));
		work_soon(s);
	}
}

bool
smtp_is_quiet(const struct smtp *smtp)
{
	return smtp->sessions == NULL;
}

void
smtp_free(struct smtp **smtp)
{
	struct smtp *s = *smtp;

	if (s == NULL)
		return;
	*smtp = NULL;
	while (s->sessions != NULL)
		end(s->sessions, "shutting down");
	(void)loop_turn(s->home->loop, 0); /* those that ended are freed at the end of a turn */
	for (size_t i = 0; i < s->doors_n; i++)
		listener_free(&s->doors[i]);
	free(s->doors);
	free(s);
}
