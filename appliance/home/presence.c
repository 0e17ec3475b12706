/*
 * Who watches: see presence.h. Once a second those who watch now are compared
 * with those who did; a member is gone a few seconds after her last stream,
 * so that a page that is loaded again says nothing. What is known is noted in
 * the store again and again, for other processes and lest it lapse.
 */
#include "home/presence.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "home/commands.h"
#include "home/live.h"
#include "store/presence.h"

#include <jansson.h>
#include <stdlib.h>

#define TICK_MS 1000
#define GONE_MS 5000
#define NOTE_AGAIN_MS 60000
#define LEASE_US ((int64_t)150 * 1000000)
#define SWEEP_MS 30000
#define WATCHED_MAX 20000
#define NOTES_MAX 1000 /* in one statement */

/* A member who watches, did a moment ago, or is to be told of. */
struct seen {
	int64_t account_id;
	int64_t watched_ms; /* when she was seen watching last; 0: never */
	int64_t noted_ms;   /* 0: not yet */
	bool anew;
	UT_hash_handle hh;
};

struct presence {
	struct home *home;
	struct uuid process;
	struct seen *seen;
	struct loop_timer tick;
	int64_t swept_ms;
	struct presence_note note;
	struct presence_sweep sweep;
	struct home_later note_later, sweep_later;
	bool noting, sweeping;
	int64_t watched[WATCHED_MAX];
	struct presence_seen notes[NOTES_MAX];
};

static struct seen *
seen_get(struct presence *p, int64_t account_id)
{
	struct seen *s;

	HASH_FIND(hh, p->seen, &account_id, sizeof(account_id), s);
	if (s != NULL)
		return s;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->account_id = account_id;
	HASH_ADD(hh, p->seen, account_id, sizeof(s->account_id), s);
	return s;
}

/* She is, or was a moment ago. */
static bool
is_watched(const struct seen *s, int64_t now_ms)
{
	return s->watched_ms > 0 && s->watched_ms + GONE_MS >= now_ms;
}

static void
look(struct presence *p, int64_t now_ms)
{
	size_t n = live_accounts(p->home->live, p->watched, WATCHED_MAX);

	for (size_t i = 0; i < n; i++) {
		struct seen *s = seen_get(p, p->watched[i]);

		if (s != NULL)
			s->watched_ms = now_ms;
	}
}

/* --- noting ---------------------------------------------------------------------- */

static void
on_noted(void *arg)
{
	struct presence *p = arg;
	int64_t now_ms = loop_mono_ms(p->home->loop);

	p->noting = false;
	for (size_t i = 0; i < p->note.seen_n; i++) {
		const struct presence_seen *note = &p->notes[i];
		struct seen *s;

		HASH_FIND(hh, p->seen, &note->account_id, sizeof(note->account_id), s);
		if (s == NULL)
			continue;
		if (p->note.job.rc != STORE_OK) { /* it comes again */
			s->anew = s->anew || note->anew;
			continue;
		}
		s->noted_ms = note->online ? now_ms : 0;
		/* Who came back, or is to be told of once more, is noted by the next turn. */
		if (!note->online && !s->anew && !is_watched(s, now_ms)) {
			HASH_DEL(p->seen, s);
			free(s);
		}
	}
}

/* False: all is said about it. */
static bool
is_due(const struct seen *s, bool online, int64_t now_ms)
{
	return !online || s->anew || s->noted_ms == 0 || now_ms - s->noted_ms >= NOTE_AGAIN_MS;
}

static void
note(struct presence *p, int64_t now_ms)
{
	int64_t now_us = clock_wall_us();
	struct seen *s, *next;
	size_t n = 0;

	HASH_ITER(hh, p->seen, s, next)
	{
		/* cppcheck-suppress uninitvar ; HASH_ITER sets it */
		bool online = is_watched(s, now_ms);

		if (n == NOTES_MAX)
			break;
		if (!is_due(s, online, now_ms))
			continue;
		p->notes[n++] = (struct presence_seen){ .account_id = s->account_id,
			                                .online = online,
			                                .anew = s->anew };
		s->anew = false;
	}
	if (n == 0)
		return;
	p->noting = true;
	p->note = (struct presence_note){ .process = p->process,
		                          .now_us = now_us,
		                          .until_us = now_us + LEASE_US,
		                          .seen = p->notes,
		                          .seen_n = n };
	home_later(&p->note_later, p->home, &p->note.job, on_noted, p);
	store_presence_note(p->home->store, &p->note);
}

static void
on_swept(void *arg)
{
	((struct presence *)arg)->sweeping = false;
}

static void
sweep(struct presence *p, int64_t now_ms)
{
	p->swept_ms = now_ms;
	p->sweeping = true;
	p->sweep = (struct presence_sweep){ .now_us = clock_wall_us() };
	home_later(&p->sweep_later, p->home, &p->sweep.job, on_swept, p);
	store_presence_sweep(p->home->store, &p->sweep);
}

static void
on_tick(struct loop_timer *timer)
{
	struct presence *p = timer->arg;
	int64_t now_ms = loop_mono_ms(p->home->loop);

	if (p->home->draining)
		return; /* members come back to the next process; if not, what is noted lapses */
	look(p, now_ms);
	if (!p->noting)
		note(p, now_ms);
	if (!p->sweeping && now_ms - p->swept_ms >= SWEEP_MS)
		sweep(p, now_ms);
	loop_timer_set(&p->tick, TICK_MS);
}

struct touching {
	struct loop_task task; /* first */
	struct presence *presence;
	int64_t account_id;
};

static void
on_touched(struct loop_task *task)
{
	struct touching *t = (struct touching *)task;
	struct seen *s = seen_get(t->presence, t->account_id);

	if (s != NULL)
		s->anew = true;
	if (s != NULL && t->presence->tick.set)
		loop_timer_set(&t->presence->tick, 0);
	free(t);
}

void
presence_touch(struct presence *presence, int64_t account_id)
{
	struct touching *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return;
	t->task.run = on_touched;
	t->presence = presence;
	t->account_id = account_id;
	loop_post(presence->home->loop, &t->task);
}

/* --- what other servers say --------------------------------------------------------- */

struct said {
	struct presence_arrival job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	struct dmtp_address from;
	uint8_t grants[][20];
};

static void
tell(const struct said *s)
{
	struct live *live = dmtp_session_home(s->session)->live;
	char since[32], *text;
	json_t *o;

	if (s->job.accounts_n == 0)
		return;
	clock_format_rfc3339(s->job.since_us, since);
	o = json_pack("{s:s, s:s, s:s}", "address", s->from.text, "state",
	              presence_state_name(s->job.state), "since", since);
	text = json_dumps(o, JSON_COMPACT);
	for (size_t i = 0; text != NULL && i < s->job.accounts_n; i++)
		live_tell(live, s->job.accounts[i], "presence", slice_str(text));
	free(text);
	json_decref(o);
}

static void
on_said(void *arg)
{
	struct said *s = arg;
	struct dmtp_response r = DMTP_RESPONSE_K;

	if (s->job.job.rc != STORE_OK)
		r = command_response_down();
	else
		tell(s);
	dmtp_session_reply(s->session, s->seq, &r);
	presence_arrival_clear(&s->job);
	free(s);
}

void
presence_take(struct dmtp_session *session, uint64_t seq, const struct dmtp_presence *said)
{
	static const enum presence_state states[] = { [DMTP_OFFLINE] = PRESENCE_OFFLINE,
		                                      [DMTP_ONLINE] = PRESENCE_ONLINE,
		                                      [DMTP_AWAY] = PRESENCE_AWAY };
	struct home *home = dmtp_session_home(session);
	struct said *s =
	    calloc(1, sizeof(*s) + said->rcpt_count * sizeof(((struct said *)NULL)->grants[0]));
	struct dmtp_response down = command_response_down();
	const uint8_t *grant;
	struct ben_reader it;

	if (s == NULL || dmtp_address_parse(said->from, &s->from) != DMTP_ADDRESS_OK) {
		free(s);
		dmtp_session_reply(session, seq, &down);
		return;
	}
	s->session = session;
	s->seq = seq;
	ben_reader_init(&it, said->rcpts);
	while (s->job.grants_n < said->rcpt_count && (grant = dmtp_presence_next(&it)) != NULL)
		memcpy(s->grants[s->job.grants_n++], grant, sizeof(s->grants[0]));
	s->job.from = dmtp_address_slice(&s->from);
	s->job.state = states[said->state];
	s->job.now_us = clock_wall_us();
	s->job.since_us = said->since * 1000000;
	if (s->job.since_us > s->job.now_us) /* their clock is ahead */
		s->job.since_us = s->job.now_us / 1000000 * 1000000;
	s->job.until_us = said->state == DMTP_OFFLINE ? -1 : said->until * 1000000;
	s->job.grants = (const uint8_t(*)[20])s->grants;
	home_later(&s->later, home, &s->job.job, on_said, s);
	store_presence_arrival(home->store, &s->job);
}

/* --- life -------------------------------------------------------------------------------- */

struct presence *
presence_new(struct home *home)
{
	struct presence *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->home = home;
	p->process = uuid_make();
	p->swept_ms = loop_mono_ms(home->loop);
	loop_timer_init(&p->tick, home->loop, on_tick, p);
	loop_timer_set(&p->tick, TICK_MS);
	return p;
}

void
presence_free(struct presence **presence)
{
	struct seen *s, *next;

	if (*presence == NULL)
		return;
	loop_timer_cancel(&(*presence)->tick);
	HASH_ITER(hh, (*presence)->seen, s, next)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): those before were taken out */
		HASH_DEL((*presence)->seen, s);
		free(s);
	}
	free(*presence);
	*presence = NULL;
}
