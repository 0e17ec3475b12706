/*
 * A DMTP server that keeps nothing but the books: it decodes and checks every
 * command as a home server does, notes each recipient, and answers as its
 * options say: late, with Z or E for some, with X, or by cutting the connection.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "common/book.h"
#include "dmtp/address.h"
#include "dmtp/server.h"
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define RECORD_MAX ((size_t)4 << 20)

struct options {
	const char *listen, *domain, *certificate, *key, *ca, *expect, *record;
	const char *refuse; /* codes, "," between them: of the first commands */
	struct dmtp_limits limits;
	uint64_t delay_ms;
	uint64_t z_every, e_every;    /* recipients, over all sessions; 0: none */
	uint64_t z_command_every;     /* commands, over all sessions */
	uint64_t retry_s;             /* of those Z */
	uint64_t x_after, drop_after; /* commands of one session */
	uint64_t drop_times;          /* sessions that are cut; 0: all */
	uint64_t i_after;             /* commands of one session */
	uint64_t silent_after;        /* commands of one session */
	uint64_t z_greetings;         /* sessions, the first ones */
	uint64_t cut_greetings;       /* connections, the first ones */
	bool plain;
};

struct counts {
	uint64_t sessions, sessions_now, sessions_most, unverified, dropped, turned_away;
	uint64_t commands, posts, grants, receipts, channels;
	uint64_t refused; /* commands that a home server would refuse too */
	uint64_t recipients, z, e;
	int64_t first_us, last_us; /* of POST: first command in, last reply out; monotonic */
};

/* A reply that is put off. */
struct due {
	struct due *next;
	struct session *session;
	uint64_t seq;
	struct dmtp_response response;
	struct buffer failed; /* what response.failed borrows */
	int64_t at_ms;
};

struct sink {
	struct options o;
	struct loop *loop;
	struct tls_server *tls;
	struct listener *listener;
	struct loop_fd signals, control;
	struct loop_timer due_timer;
	struct due *first_due, **last_due;
	struct session *sessions;
	struct book *book;
	struct buffer record, line;
	struct counts counts;
	uint64_t wait_for; /* distinct pairs that the control line waits for; 0: nothing */
	int record_fd;
};

struct session {
	struct sink *sink;
	struct session *next, **back;
	struct conn *conn;
	struct dmtp_server *server;
	struct loop_timer timer;
	struct loop_defer work;
	uint64_t commands;
	unsigned holds; /* replies that are put off, and the connection */
	bool dead;
};

static void
die(const char *what, const char *why)
{
	(void)fprintf(stderr, "dmtp-sink: %s: %s\n", what, why);
	exit(1);
}

static int64_t
now_ms(const struct session *s)
{
	return loop_mono_ms(s->sink->loop);
}

/* --- What is told ------------------------------------------------------------------ */

static void
print_counts(const struct sink *sink)
{
	const struct counts *c = &sink->counts;
	struct book_counts b = book_counts(sink->book);

	(void)printf(
	    "{\"sessions\": %lu, \"sessions_now\": %lu, \"sessions_most\": %lu, \"unverified\": %lu, "
	    "\"dropped\": %lu, \"turned_away\": %lu, \"commands\": %lu, \"posts\": %lu, \"grants\": %lu, "
	    "\"receipts\": %lu, \"channels\": %lu, \"refused\": %lu, "
	    "\"recipients\": %lu, \"z\": %lu, \"e\": %lu, ",
	    c->sessions, c->sessions_now, c->sessions_most, c->unverified, c->dropped,
	    c->turned_away, c->commands, c->posts, c->grants, c->receipts, c->channels,
	    c->refused, c->recipients, c->z, c->e);
	(void)printf("\"ids\": %lu, \"conflicts\": %lu, \"distinct\": %lu, \"again\": %lu, "
	             "\"expected\": %lu, \"unexpected\": %lu, \"missing\": %lu, "
	             "\"first_us\": %ld, \"last_us\": %ld}\n",
	             b.ids, b.conflicts, b.distinct, b.again, b.expected, b.unexpected,
	             b.missing, c->first_us, c->last_us);
	(void)fflush(stdout);
}

static void
reset(struct sink *sink)
{
	uint64_t open = sink->counts.sessions_now;

	book_reset(sink->book);
	sink->counts = (struct counts){ .sessions_now = open, .sessions_most = open };
}

/* "stats", "reset", "wait <pairs>", "quit". */
static void
control(struct sink *sink, struct slice line)
{
	struct slice wait = SLICE("wait ");

	if (slice_eq_str(line, "quit")) {
		loop_stop(sink->loop);
	} else if (slice_eq_str(line, "reset")) {
		reset(sink);
	} else if (slice_eq_str(line, "stats")) {
		print_counts(sink);
	} else if (line.len > wait.len && memcmp(line.data, wait.data, wait.len) == 0) {
		if (!text_parse_u64(slice_mem(line.data + wait.len, line.len - wait.len),
		                    UINT32_MAX, &sink->wait_for))
			(void)fprintf(stderr, "dmtp-sink: wait <number of recipients>\n");
	} else {
		(void)fprintf(stderr, "dmtp-sink: stats, reset, wait N or quit\n");
	}
}

static void
tell_waiting(struct sink *sink)
{
	if (sink->wait_for == 0 || book_counts(sink->book).distinct < sink->wait_for)
		return;
	sink->wait_for = 0;
	print_counts(sink);
}

static void
on_control(struct loop_fd *watch, unsigned ready)
{
	struct sink *sink = watch->arg;
	char in[4096];
	ssize_t n = read(watch->fd, in, sizeof(in));

	(void)ready;
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			(void)loop_fd_want(watch, 0);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (in[i] != '\n') {
			buffer_add_u8(&sink->line, (uint8_t)in[i]);
			continue;
		}
		control(sink, buffer_slice(&sink->line));
		buffer_clear(&sink->line);
	}
	tell_waiting(sink);
}

static void
on_signal(struct loop_fd *watch, unsigned ready)
{
	struct sink *sink = watch->arg;
	struct signalfd_siginfo info;

	(void)ready;
	if (read(watch->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1)
		print_counts(sink);
	else
		loop_stop(sink->loop);
}

/* --- The record ---------------------------------------------------------------------- */

/* "<id> <grant> <letter>"; letter "-": the connection is cut without an answer. */
static void
record_rcpt(struct sink *sink, struct slice id, const struct dmtp_rcpt *rcpt, char letter)
{
	char grant[BASE32_LEN(DMTP_GRANT_LEN) + 1];

	if (sink->record_fd < 0)
		return;
	buffer_add_slice(&sink->record, id);
	buffer_add_u8(&sink->record, ' ');
	if (rcpt->grant != NULL) {
		base32_encode(rcpt->grant, DMTP_GRANT_LEN, grant);
		buffer_add_str(&sink->record, grant);
	} else {
		buffer_add_slice(&sink->record, rcpt->address);
		buffer_add_u8(&sink->record, '/');
		buffer_add_slice(&sink->record, rcpt->channel);
	}
	buffer_add_fmt(&sink->record, " %c\n", letter);
}

/* Before the reply: what was acknowledged is in the file even if this process is killed. */
static void
record_flush(struct sink *sink)
{
	struct slice out = buffer_slice(&sink->record);

	if (sink->record.failed)
		die(sink->o.record, "a command's record doesn't fit");
	while (out.len > 0) {
		ssize_t n = write(sink->record_fd, out.data, out.len);

		if (n < 0 && errno != EINTR)
			die(sink->o.record, strerror(errno));
		if (n > 0)
			out = slice_mem(out.data + n, out.len - (size_t)n);
	}
	buffer_clear(&sink->record);
}

/* --- Commands ------------------------------------------------------------------------- */

static bool
every(uint64_t n, uint64_t count)
{
	return n > 0 && count % n == 0;
}

/* Takes one recipient; its failure, if it is to have one, goes into failed. */
static void
take_rcpt(struct session *s, const struct dmtp_post *post, uint32_t id,
          const struct dmtp_rcpt *rcpt, uint32_t index, bool cut, struct buffer *failed)
{
	struct sink *sink = s->sink;
	uint64_t n = ++sink->counts.recipients;
	char letter = cut ? '-' : 'K';

	if (!cut && every(sink->o.z_every, n)) {
		letter = 'Z';
		sink->counts.z++;
		dmtp_failed_put(failed, index, DMTP_Z, DMTP_CODE_THROTTLED);
	} else if (!cut && every(sink->o.e_every, n)) {
		letter = 'E';
		sink->counts.e++;
		dmtp_failed_put(failed, index, DMTP_E, DMTP_CODE_CHANNEL_CLOSED);
	} else if (!book_take(sink->book, id, rcpt)) {
		die("book", "out of memory");
	}
	record_rcpt(sink, post->id, rcpt, letter);
}

static struct dmtp_response
take_post(struct session *s, const struct dmtp_post *post, bool cut, struct buffer *failed)
{
	struct dmtp_response r = DMTP_RESPONSE_K;
	uint32_t id = book_id(s->sink->book, post), index = 0;
	struct ben_reader it;
	struct dmtp_rcpt rcpt;

	s->sink->counts.posts++;
	if (id == 0)
		die("book", "out of memory");
	ben_reader_init(&it, post->rcpts);
	while (dmtp_rcpt_next(&it, &rcpt))
		take_rcpt(s, post, id, &rcpt, index++, cut, failed);
	if (s->sink->record_fd >= 0)
		record_flush(s->sink);
	r.failed = buffer_slice(failed);
	return r;
}

static int
by_octets(const void *a, const void *b)
{
	return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* Nobody here holds anything open, and nothing ever changed. */
static struct dmtp_response
take_channels(const struct dmtp_channels *c, struct buffer *inside)
{
	struct dmtp_response r = DMTP_RESPONSE_K;
	struct slice *users = calloc(c->user_count + 1, sizeof(*users));
	struct ben_reader it;

	if (users == NULL)
		die("channels", "out of memory");
	r.has_events = c->has_since;
	r.has_channels = !c->has_since;
	ben_reader_init(&it, c->users);
	for (size_t i = 0; i < c->user_count; i++)
		users[i] = ben_get_str(&it);
	qsort(users, c->user_count, sizeof(*users), by_octets);
	for (size_t i = 0; i < c->user_count; i++) {
		if (i > 0 && slice_eq(users[i], users[i - 1]))
			continue;
		dmtp_channels_open(inside, users[i]);
		dmtp_channels_close(inside);
	}
	free(users);
	r.channels = buffer_slice(inside);
	return r;
}

/* The code that this command is refused with, whatever it says; NONE: it isn't. */
static enum dmtp_code
code_of(const struct sink *sink)
{
	const char *at = sink->o.refuse;

	for (uint64_t i = 1; at != NULL && i < sink->counts.commands; i++) {
		at = strchr(at, ',');
		at = at == NULL ? NULL : at + 1;
	}
	return at == NULL ? DMTP_CODE_NONE : dmtp_code_find(slice_mem(at, strcspn(at, ",")));
}

static struct dmtp_response
answer_to(struct session *s, const struct dmtp_command *c, bool cut, struct buffer *inside)
{
	struct counts *counts = &s->sink->counts;
	enum dmtp_code code = code_of(s->sink);

	if (code != DMTP_CODE_NONE)
		return dmtp_response_make(code == DMTP_CODE_SHUTTING_DOWN ? DMTP_Z : DMTP_E,
		                          code, (uint32_t)s->sink->o.retry_s);

	if (every(s->sink->o.z_command_every, counts->commands)) {
		counts->z++;
		return dmtp_response_make(DMTP_Z, DMTP_CODE_THROTTLED,
		                          (uint32_t)s->sink->o.retry_s);
	}
	switch (c->verb) {
	case DMTP_POST:
		return take_post(s, &c->post, cut, inside);
	case DMTP_CHANNELS:
		counts->channels++;
		return take_channels(&c->channels, inside);
	case DMTP_GRANT:
		counts->grants++;
		return DMTP_RESPONSE_K;
	case DMTP_RECEIPT:
		counts->receipts += c->receipt.event_count;
		return DMTP_RESPONSE_K;
	default:
		return dmtp_response_make(DMTP_E, DMTP_CODE_UNVERIFIED_SENDER, 0);
	}
}

static bool
is_verified(const struct session *s, const struct dmtp_command *c)
{
	const struct tls_peer *peer = conn_tls_peer(s->conn);

	if (peer == NULL)
		return s->sink->o.plain;
	return tls_peer_is(peer, dmtp_domain_of(dmtp_command_from(c)));
}

/* --- Replies --------------------------------------------------------------------------- */

static void
work_soon(struct session *s)
{
	loop_defer(s->sink->loop, &s->work);
}

static void
release(struct session *s)
{
	if (--s->holds > 0)
		return;
	dmtp_server_free(&s->server);
	free(s);
}

static void
reply(struct session *s, uint64_t seq, const struct dmtp_response *r)
{
	if (s->dead)
		return;
	(void)dmtp_server_reply(s->server, now_ms(s), seq, r);
	s->sink->counts.last_us = clock_mono_us();
	work_soon(s);
}

static void
reply_later(struct session *s, uint64_t seq, const struct dmtp_response *r,
            const struct buffer *inside)
{
	struct sink *sink = s->sink;
	struct due *d = calloc(1, sizeof(*d));

	if (d == NULL)
		die("reply", "out of memory");
	s->holds++;
	*d = (struct due){ .session = s, .seq = seq, .response = *r, .failed = *inside };
	d->at_ms = now_ms(s) + (int64_t)sink->o.delay_ms;
	if (sink->first_due == NULL)
		loop_timer_set(&sink->due_timer, (int64_t)sink->o.delay_ms);
	*sink->last_due = d;
	sink->last_due = &d->next;
}

static void
due_free(struct sink *sink)
{
	struct due *d = sink->first_due;

	sink->first_due = d->next;
	if (sink->first_due == NULL)
		sink->last_due = &sink->first_due;
	release(d->session);
	buffer_free(&d->failed);
	free(d);
}

static void
on_due(struct loop_timer *timer)
{
	struct sink *sink = timer->arg;
	int64_t now = loop_mono_ms(sink->loop);

	while (sink->first_due != NULL && sink->first_due->at_ms <= now) {
		struct due *d = sink->first_due;

		reply(d->session, d->seq, &d->response);
		due_free(sink);
	}
	if (sink->first_due != NULL)
		loop_timer_set(timer, sink->first_due->at_ms - now);
	tell_waiting(sink);
}

static void
end(struct session *s, bool linger)
{
	if (s->dead)
		return;
	s->dead = true;
	*s->back = s->next;
	if (s->next != NULL)
		s->next->back = s->back;
	s->sink->counts.sessions_now--;
	loop_timer_cancel(&s->timer);
	if (linger)
		conn_linger(&s->conn, DMTP_LINGER_MS);
	else
		conn_close(&s->conn);
	work_soon(s); /* freed there: the machine may be in use further up the stack */
}

/* This command is noted and never answered: the connection is cut at it. */
static bool
is_cut(struct session *s)
{
	struct sink *sink = s->sink;

	if (sink->o.drop_after == 0 || s->commands != sink->o.drop_after ||
	    (sink->o.drop_times > 0 && sink->counts.dropped >= sink->o.drop_times))
		return false;
	sink->counts.dropped++;
	return true;
}

static void
on_command(struct session *s, const struct dmtp_server_event *event)
{
	struct sink *sink = s->sink;
	const struct dmtp_command *c = &event->command;
	struct dmtp_verdict v = dmtp_command_check(c, dmtp_server_limits(s->server),
	                                           is_verified(s, c), clock_wall_s());
	struct buffer inside;
	struct dmtp_response r;
	bool cut;

	sink->counts.commands++;
	s->commands++;
	if (sink->counts.first_us == 0)
		sink->counts.first_us = clock_mono_us();
	cut = is_cut(s);
	buffer_init(&inside, DMTP_RESPONSE_MAX);
	if (v.letter == 0) {
		r = answer_to(s, c, cut, &inside);
	} else {
		sink->counts.refused++;
		r = dmtp_response_make(v.letter, v.code, 0);
		log_warn("refused", LOG_S("verb", dmtp_verb_name(c->verb)),
		         LOG_B("from", dmtp_command_from(c)),
		         LOG_S("code", dmtp_code_name(v.code)));
	}
	if (cut) {
		end(s, false);
		buffer_free(&inside);
	} else if (sink->o.silent_after > 0 && s->commands > sink->o.silent_after) {
		buffer_free(&inside); /* it was noted, and is never answered */
	} else if (sink->o.delay_ms > 0) {
		reply_later(s, event->seq, &r, &inside);
	} else {
		reply(s, event->seq, &r);
		buffer_free(&inside);
	}
	if (sink->o.i_after > 0 && s->commands == sink->o.i_after && !s->dead) {
		struct dmtp_response i =
		    dmtp_response_make(DMTP_I, DMTP_CODE_THROTTLED, (uint32_t)sink->o.retry_s);

		dmtp_server_info(s->server, now_ms(s), &i);
		work_soon(s);
	}
	if (sink->o.x_after > 0 && s->commands == sink->o.x_after && !s->dead)
		dmtp_server_drain(s->server, now_ms(s), NULL);
}

/* --- Sessions ---------------------------------------------------------------------------- */

static void
handle(struct session *s, const struct dmtp_server_event *event)
{
	switch (event->kind) {
	case DMTP_SERVER_COMMAND:
		on_command(s, event);
		break;
	case DMTP_SERVER_STARTTLS:
		if (conn_start_tls_server(s->conn, s->sink->tls, false) != CONN_OK)
			end(s, false);
		break;
	case DMTP_SERVER_CLOSE:
		end(s, true);
		break;
	}
}

static bool
flush(struct session *s)
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
set_timer(struct session *s)
{
	int64_t deadline = dmtp_server_deadline(s->server);

	if (deadline < 0)
		loop_timer_cancel(&s->timer);
	else
		loop_timer_set(&s->timer, deadline > now_ms(s) ? deadline - now_ms(s) : 0);
}

static void
work(struct session *s)
{
	struct dmtp_server_event event;

	do {
		while (!s->dead && dmtp_server_next(s->server, &event))
			handle(s, &event);
		if (s->dead)
			return;
	} while (flush(s));
	if (conn_unread(s->conn) > 0 && dmtp_server_wants(s->server))
		conn_read_resume(s->conn);
	set_timer(s);
	tell_waiting(s->sink);
}

static void
on_work(struct loop_defer *defer)
{
	struct session *s = defer->arg;

	if (s->dead)
		release(s);
	else if (s->server != NULL)
		work(s);
}

static void
on_timer(struct loop_timer *timer)
{
	struct session *s = timer->arg;

	dmtp_server_tick(s->server, now_ms(s));
	work(s);
}

static struct dmtp_greeting
greeting(const struct session *s)
{
	struct dmtp_greeting g = {
		.version = 1,
		.ext = DMTP_EXT_GRANT | DMTP_EXT_RECEIPT,
		.tls = s->sink->tls != NULL && conn_tls_peer(s->conn) == NULL,
		.limits = s->sink->o.limits,
	};

	(void)snprintf(g.host, sizeof(g.host), "%s", s->sink->o.domain);
	return g;
}

static void
make_server(struct session *s, bool secured)
{
	struct dmtp_server_options o = { .greeting = greeting(s),
		                         .secured = secured,
		                         .plain_allowed = s->sink->o.plain };

	if (s->sink->counts.turned_away < s->sink->o.z_greetings) {
		struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_THROTTLED,
		                                            (uint32_t)s->sink->o.retry_s);

		s->sink->counts.turned_away++;
		s->server = dmtp_server_new_refusing(&z, now_ms(s));
	} else {
		s->server = dmtp_server_new(&o, now_ms(s));
	}
	if (s->server == NULL)
		end(s, false);
	else
		work_soon(s);
}

static void
on_secured(struct conn *conn, void *arg)
{
	struct session *s = arg;
	struct dmtp_greeting g;

	if (!conn_tls_peer(conn)->verified) {
		s->sink->counts.unverified++;
		log_warn("peer-unverified", LOG_S("reason", conn_tls_peer(conn)->problem));
	}
	if (s->server == NULL) {
		make_server(s, true);
		return;
	}
	g = greeting(s);
	if (dmtp_server_secured(s->server, now_ms(s), &g))
		work_soon(s);
	else
		end(s, false);
}

static size_t
on_data(struct conn *conn, void *arg, struct slice in)
{
	struct session *s = arg;
	size_t n;

	(void)conn;
	if (s->server == NULL)
		return 0;
	n = dmtp_server_feed(s->server, now_ms(s), in.data, in.len);
	work(s);
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
	if (s->server == NULL) {
		end(s, false);
		return;
	}
	dmtp_server_eof(s->server, now_ms(s));
	work_soon(s);
}

static void
on_closed(struct conn *conn, void *arg, enum conn_end why, const char *text)
{
	(void)conn;
	log_info("session-broken", LOG_S("end", conn_end_name(why)), LOG_S("reason", text));
	end(arg, false);
}

static void
on_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	static const struct conn_events events = { .secured = on_secured,
		                                   .data = on_data,
		                                   .drained = on_drained,
		                                   .ended = on_ended,
		                                   .closed = on_closed };
	struct sink *sink = arg;
	struct session *s = calloc(1, sizeof(*s));
	struct conn_config config = { .events = &events,
		                      .arg = s,
		                      .in_max = 262144,
		                      .stall_ms = (int64_t)sink->o.limits.idle_s * 1000,
		                      .seat = seat };

	if (s == NULL)
		die("session", "out of memory");
	s->sink = sink;
	s->conn = conn_new(sink->loop, fd, peer, &config);
	if (s->conn == NULL)
		die("session", "out of memory");
	s->holds = 1;
	loop_timer_init(&s->timer, sink->loop, on_timer, s);
	loop_defer_init(&s->work, on_work, s);
	s->next = sink->sessions;
	s->back = &sink->sessions;
	if (s->next != NULL)
		s->next->back = &s->next;
	sink->sessions = s;
	sink->counts.sessions++;
	if (++sink->counts.sessions_now > sink->counts.sessions_most)
		sink->counts.sessions_most = sink->counts.sessions_now;
	if (sink->counts.dropped < sink->o.cut_greetings) {
		sink->counts.dropped++;
		end(s, false);
		return;
	}
	if (sink->o.plain)
		make_server(s, false);
	else if (conn_start_tls_server(s->conn, sink->tls, true) != CONN_OK)
		end(s, false);
}

/* --- Options ------------------------------------------------------------------------------ */

static const char usage[] =
    "dmtp-sink --domain NAME --certificate FILE --key FILE --ca FILE [options]\n"
    "  --listen ADDRESS     where it serves DMTP with TLS from the first octet (127.0.0.1:0)\n"
    "  --plain              plaintext, and STARTTLS when there is a certificate; believes all\n"
    "  --limits K=N[,K=N]   command_octets, idle_s, message_octets, noops, pipeline, rcpts, "
    "uris\n"
    "  --delay-ms N         every reply comes that much later\n"
    "  --z-every N          every Nth recipient gets Z throttled\n"
    "  --e-every N          every Nth recipient gets E channel-closed\n"
    "  --z-command-every N  every Nth command gets Z throttled\n"
    "  --refuse CODE[,CODE] so many first commands get E (or Z shutting-down) with these codes\n"
    "  --z-greetings N      the first N sessions get Z throttled instead of a greeting\n"
    "  --i-after N          I throttled after a session's Nth command\n"
    "  --retry N            the seconds that such a Z or I says (1)\n"
    "  --x-after N          X after a session's Nth command\n"
    "  --drop-after N       a session's Nth command is noted, not answered, the connection "
    "cut\n"
    "  --drop-times N       only the first N such times\n"
    "  --cut-greetings N    the first N connections are cut before a greeting\n"
    "  --silent-after N     what a session sends after its Nth command is noted and never "
    "answered\n"
    "  --record FILE        appends every recipient before its reply: id, grant, K, Z, E or -\n"
    "  --expect FILE        the grants that each id shall reach, base32, one a line\n"
    "First line: {\"listening\": address}. Counts: SIGUSR1, at the end (SIGTERM, SIGINT), and "
    "on\n"
    "standard input: stats, reset, wait N (until N different recipients), quit.\n";

static uint64_t
number(const char *name, const char *text)
{
	uint64_t n = 0;

	if (text == NULL || !text_parse_u64(slice_str(text), UINT32_MAX, &n))
		die(name, "takes a number");
	return n;
}

static void
parse_limits(struct dmtp_limits *l, char *text)
{
	enum { COMMAND, IDLE, MESSAGE, NOOPS, PIPELINE, RCPTS, URIS };
	char *const names[] = { [COMMAND] = "command_octets",
		                [IDLE] = "idle_s",
		                [MESSAGE] = "message_octets",
		                [NOOPS] = "noops",
		                [PIPELINE] = "pipeline",
		                [RCPTS] = "rcpts",
		                [URIS] = "uris",
		                NULL };
	uint32_t *const at[] = {
		[COMMAND] = &l->command_octets, [IDLE] = &l->idle_s, [NOOPS] = &l->noops,
		[PIPELINE] = &l->pipeline,      [RCPTS] = &l->rcpts, [URIS] = &l->uris
	};

	while (*text != '\0') {
		char *value = NULL;
		int which = getsubopt(&text, names, &value);

		if (which < 0)
			die("--limits", "no such limit");
		if (which == MESSAGE)
			l->message_octets = number("--limits", value);
		else
			*at[which] = (uint32_t)number("--limits", value);
	}
	if (!dmtp_limits_valid(l))
		die("--limits", "below the floor that every server grants");
}

enum { TEXTS = 8 };

static void
parse_options(struct options *o, int argc, char **argv)
{
	const char **const texts[TEXTS] = {
		&o->listen, &o->domain, &o->certificate, &o->key,
		&o->ca,     &o->expect, &o->record,      &o->refuse
	};
	uint64_t *const numbers[] = { &o->delay_ms,        &o->z_every,     &o->e_every,
		                      &o->z_command_every, &o->retry_s,     &o->x_after,
		                      &o->drop_after,      &o->drop_times,  &o->i_after,
		                      &o->silent_after,    &o->z_greetings, &o->cut_greetings };
	static const struct option longs[] = {
		{ "listen", 1, NULL, 0 },      { "domain", 1, NULL, 0 },
		{ "certificate", 1, NULL, 0 }, { "key", 1, NULL, 0 },
		{ "ca", 1, NULL, 0 },          { "expect", 1, NULL, 0 },
		{ "record", 1, NULL, 0 },      { "refuse", 1, NULL, 0 },
		{ "delay-ms", 1, NULL, 0 },    { "z-every", 1, NULL, 0 },
		{ "e-every", 1, NULL, 0 },     { "z-command-every", 1, NULL, 0 },
		{ "retry", 1, NULL, 0 },       { "x-after", 1, NULL, 0 },
		{ "drop-after", 1, NULL, 0 },  { "drop-times", 1, NULL, 0 },
		{ "i-after", 1, NULL, 0 },     { "silent-after", 1, NULL, 0 },
		{ "z-greetings", 1, NULL, 0 }, { "cut-greetings", 1, NULL, 0 },
		{ "limits", 1, NULL, 'l' },    { "plain", 0, NULL, 'p' },
		{ "help", 0, NULL, 'h' },      { NULL, 0, NULL, 0 }
	};
	int at, c;

	*o = (struct options){ .listen = "127.0.0.1:0", .retry_s = 1 };
	o->limits = DMTP_LIMITS_DEFAULT;
	while ((c = getopt_long(argc, argv, "", longs, &at)) >= 0) {
		if (c == 0 && at < TEXTS)
			*texts[at] = optarg;
		else if (c == 0)
			*numbers[at - TEXTS] = number(longs[at].name, optarg);
		else if (c == 'l')
			parse_limits(&o->limits, optarg);
		else if (c == 'p')
			o->plain = true;
		else
			(void)fputs(usage, stderr), exit(c == 'h' ? 0 : 2);
	}
	if (optind < argc || o->domain == NULL || (o->certificate == NULL && !o->plain) ||
	    (o->certificate != NULL && (o->key == NULL || o->ca == NULL)))
		(void)fputs(usage, stderr), exit(2);
}

/* --- Life ------------------------------------------------------------------------------------
 */

static void
open_files(struct sink *sink)
{
	const struct options *o = &sink->o;
	char why[256];

	sink->record_fd = -1;
	if (o->record != NULL)
		sink->record_fd =
		    open(o->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (o->record != NULL && sink->record_fd < 0)
		die(o->record, strerror(errno));
	sink->book = book_new();
	if (sink->book == NULL)
		die("book", "out of memory");
	if (o->expect != NULL && !book_expect(sink->book, o->expect, why))
		die("--expect", why);
}

static void
open_listener(struct sink *sink)
{
	const struct options *o = &sink->o;
	struct tls_identity identity = { o->domain, o->certificate, o->key };
	struct tls_server_config tls = {
		.identities = &identity, .count = 1, .ca_file = o->ca, .alpn = DMTP_ALPN
	};
	struct listener_config config = { .bind = o->listen,
		                          .accepted = on_accepted,
		                          .arg = sink };
	char why[NET_TEXT], text[NET_ADDRESS_TEXT];
	struct net_address bound;

	if (o->certificate != NULL && tls_server_new(&tls, &sink->tls, why) != TLS_OK)
		die("TLS", why);
	sink->listener = listener_new(sink->loop, &config, why);
	if (sink->listener == NULL)
		die("--listen", why);
	listener_address(sink->listener, &bound);
	(void)printf("{\"listening\": \"%s\"}\n", net_address_format(&bound, text));
	(void)fflush(stdout);
}

static void
watch(struct sink *sink)
{
	sigset_t set;
	int fd;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0 || !loop_fd_init(&sink->signals, sink->loop, fd, on_signal, sink) ||
	    !loop_fd_want(&sink->signals, LOOP_READ))
		die("signals", strerror(errno));
	/* Standard input may be a file or closed, which can't be watched: then there is no
	 * control line. */
	if (loop_fd_init(&sink->control, sink->loop, 0, on_control, sink))
		(void)loop_fd_want(&sink->control, LOOP_READ);
}

static void
close_all(struct sink *sink)
{
	listener_free(&sink->listener);
	while (sink->sessions != NULL)
		end(sink->sessions, false);
	while (sink->first_due != NULL)
		due_free(sink);
	loop_timer_cancel(&sink->due_timer);
	loop_fd_deinit(&sink->signals);
	loop_fd_deinit(&sink->control);
	(void)loop_turn(sink->loop, 0); /* frees the sessions that ended */
	loop_free(&sink->loop);
	tls_server_free(&sink->tls);
	book_free(&sink->book);
	buffer_free(&sink->record);
	buffer_free(&sink->line);
}

int
main(int argc, char **argv)
{
	struct sink sink = { .wait_for = 0 };

	parse_options(&sink.o, argc, argv);
	log_set_level(LOG_WARN_LEVEL);
	sink.loop = loop_new();
	if (sink.loop == NULL)
		die("loop", "out of memory");
	sink.last_due = &sink.first_due;
	loop_timer_init(&sink.due_timer, sink.loop, on_due, &sink);
	buffer_init(&sink.record, RECORD_MAX);
	buffer_init(&sink.line, 4096);
	open_files(&sink);
	watch(&sink);
	open_listener(&sink);
	loop_run(sink.loop);
	print_counts(&sink);
	close_all(&sink);
	return 0;
}
