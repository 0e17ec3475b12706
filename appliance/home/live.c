/*
 * Live push: see live.h. A watcher either is level, and then the loop's thread
 * alone sends to it; or it catches up, and then what arrives waits in its
 * queue, and whoever holds the turn (the thread aside, after the store's
 * answers) sends what the store showed and then the queue. So one thread at a
 * time sends to a watcher, in the order of events.
 *
 * A shard's lock is never held while something is sent. The reference that the
 * stream's callbacks hold ends with closed; jobs of the store hold their own.
 */
#include "home/live.h"

#include "base/aside.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/view.h"
#include "store/accounts.h"
#include "store/inboxes.h"
#include "web/reply.h"
#include "web/stream.h"

#include <pthread.h>
#include <stdlib.h>

#define SHARDS 64
#define BUCKETS 256 /* of a shard */
#define HEARTBEAT_MS 20000
#define RETRY_MS 2000
/* A queue holds at most two pages and a frame: a page is asked for when one has been taken. */
#define QUEUE_OCTETS ((size_t)128 * 1024)
#define PAGE_OCTETS ((size_t)24 * 1024)
#define PAGE_ROWS 50
/* What may arrive while a watcher catches up; beyond it the stream ends and the client comes
 * back. */
#define WAITING_MAX 64
/* Ids that the replay showed, kept until what arrived meanwhile has been told. */
#define SHOWN_MAX 256
#define SHOWN_KEEP_MS 10000
/* A log-in that is gone is noticed after that long, or with live_forget at the next heartbeat.
 */
#define VERIFY_MS 60000
#define SEND_BATCH 256

METRIC_DEFINE(m_watchers, METRIC_GAUGE, "tmtp_inbox_watchers", NULL,
              "Open inboxes that are told live.");
METRIC_DEFINE(m_replayed, METRIC_COUNTER, "tmtp_inbox_replayed_total", NULL,
              "Entries told to watchers that came back.");
METRIC_DEFINE(m_cut, METRIC_COUNTER, "tmtp_inbox_watchers_cut_total", NULL,
              "Watchers sent away because they fell too far behind.");

struct shown {
	size_t n, cap; /* n counts on; the last cap of them are kept */
	struct uuid id[];
};

struct waiting {
	struct uuid id;
	struct web_frame *frame; /* a reference; NULL: to be read from the store */
	bool is_entry;           /* else it is never a double */
};

/* A watcher that isn't level. */
struct catching {
	struct work work; /* first: what the thread aside gets */
	struct watcher *watcher;
	struct inbox_list list;
	struct view_cursor cursor; /* the last entry that was sent */
	bool replaying,
	    strictly; /* strictly: the next page begins after the cursor's microsecond */
	bool paused, drained; /* under the lock */
	size_t first, n;      /* of waiting, a ring; under the lock */
	struct waiting waiting[WAITING_MAX];
};

struct watcher {
	struct watcher *next; /* of the account */
	struct live *live;
	struct live_member member;
	struct web_stream *stream; /* a reference; NULL before it is open */
	struct catching *catching; /* NULL: level */
	struct shown *shown;       /* or NULL */
	int64_t level_ms;          /* since when it is level */
	_Atomic int64_t verified_ms;
	_Atomic int refs;
	_Atomic bool verifying;
	bool listed; /* under the lock, as what follows */
	bool lost; /* something that couldn't wait, or its place, before the stream was open */
};

struct watched {
	struct watched *next; /* of the bucket */
	int64_t account_id;
	unsigned n;
	struct watcher *first;
};

struct live {
	struct home *home;
	struct aside *aside;
	_Atomic size_t watchers;
	_Atomic int64_t forgotten_ms; /* log-ins looked up before are not believed */
	_Atomic bool closed;
	struct shard {
		pthread_mutex_t lock;
		struct watched *buckets[BUCKETS];
	} shards[SHARDS];
};

/* --- life -------------------------------------------------------------------------- */

struct live *
live_new(struct home *home)
{
	struct live *live = calloc(1, sizeof(*live));

	if (live == NULL || (live->aside = aside_start()) == NULL) {
		free(live);
		return NULL;
	}
	live->home = home;
	for (size_t i = 0; i < SHARDS; i++)
		(void)pthread_mutex_init(&live->shards[i].lock, NULL);
	metric_register(&m_watchers);
	metric_register(&m_replayed);
	metric_register(&m_cut);
	return live;
}

void
live_free(struct live **live)
{
	if (*live == NULL)
		return;
	atomic_store(&(*live)->closed, true);
	aside_stop((*live)->aside);
	aside_free(&(*live)->aside);
	for (size_t i = 0; i < SHARDS; i++)
		(void)pthread_mutex_destroy(&(*live)->shards[i].lock);
	free(*live);
	*live = NULL;
}

static void
catching_free(struct catching *c)
{
	if (c == NULL)
		return;
	for (; c->n > 0; c->n--, c->first++)
		web_frame_unref(&c->waiting[c->first % WAITING_MAX].frame);
	inbox_list_clear(&c->list);
	free(c);
}

static struct watcher *
watcher_ref(struct watcher *w)
{
	atomic_fetch_add(&w->refs, 1);
	return w;
}

static void
watcher_unref(struct watcher *w)
{
	if (atomic_fetch_sub(&w->refs, 1) != 1)
		return;
	catching_free(w->catching);
	free(w->shown);
	web_stream_unref(&w->stream);
	free(w);
}

/* --- who watches --------------------------------------------------------------------- */

static uint64_t
hash_of(int64_t account_id)
{
	return (uint64_t)account_id * 0x9e3779b97f4a7c15u;
}

static struct shard *
lock_shard(struct live *live, int64_t account_id)
{
	struct shard *shard = &live->shards[hash_of(account_id) >> 58];

	pthread_mutex_lock(&shard->lock);
	return shard;
}

static struct shard *
lock_of(struct watcher *w)
{
	return lock_shard(w->live, w->member.account_id);
}

/* Under the lock: where the account stands, or would be put. */
static struct watched **
find(struct shard *shard, int64_t account_id)
{
	struct watched **at = &shard->buckets[hash_of(account_id) >> 50 & (BUCKETS - 1)];

	while (*at != NULL && (*at)->account_id != account_id)
		at = &(*at)->next;
	return at;
}

/* Out of its account's list. Under the lock; the account may be empty then. */
static void
list_take(struct watched *a, struct watcher **link)
{
	struct watcher *w = *link;

	*link = w->next;
	w->listed = false;
	a->n--;
	atomic_fetch_sub(&w->live->watchers, 1);
	metric_add(&m_watchers, -1);
}

/*
 * The account's oldest watcher makes room: it is the likeliest to have gone
 * unnoticed. *stream is a reference or NULL.
 */
static void
list_make_room(struct watched *a, struct web_stream **stream)
{
	struct watcher **link = &a->first, *w;

	while ((*link)->next != NULL)
		link = &(*link)->next;
	w = *link;
	w->lost = true;
	*stream = w->stream == NULL ? NULL : web_stream_ref(w->stream);
	list_take(a, link);
}

/* False: no memory. */
static bool
watcher_list(struct watcher *w)
{
	struct shard *shard = lock_of(w);
	struct watched **at = find(shard, w->member.account_id);
	struct web_stream *oldest = NULL;
	bool listed;

	if (*at == NULL && (*at = calloc(1, sizeof(**at))) != NULL)
		(*at)->account_id = w->member.account_id;
	listed = *at != NULL;
	if (listed) {
		if ((*at)->n >= LIVE_PER_ACCOUNT)
			list_make_room(*at, &oldest);
		w->next = (*at)->first;
		(*at)->first = w;
		(*at)->n++;
		w->listed = true;
		atomic_fetch_add(&w->live->watchers, 1);
		metric_add(&m_watchers, 1);
	}
	pthread_mutex_unlock(&shard->lock);
	if (oldest != NULL)
		web_stream_close(oldest);
	web_stream_unref(&oldest);
	return listed;
}

static void
watcher_unlist(struct watcher *w)
{
	struct shard *shard = lock_of(w);
	struct watched **at = find(shard, w->member.account_id), *empty = NULL;
	struct watcher **link;

	if (w->listed) {
		for (link = &(*at)->first; *link != w; link = &(*link)->next)
			continue;
		list_take(*at, link);
		if ((*at)->n == 0) {
			empty = *at;
			*at = empty->next;
		}
	}
	pthread_mutex_unlock(&shard->lock);
	free(empty);
}

bool
live_any(const struct live *live)
{
	return atomic_load(&live->watchers) > 0;
}

size_t
live_accounts(const struct live *live, int64_t *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = (struct shard *)(uintptr_t)&live->shards[i];

		pthread_mutex_lock(&shard->lock);
		for (size_t k = 0; k < BUCKETS; k++)
			for (struct watched *a = shard->buckets[k]; a != NULL && n < max;
			     a = a->next)
				out[n++] = a->account_id;
		pthread_mutex_unlock(&shard->lock);
	}
	return n;
}

/* --- frames ------------------------------------------------------------------------------ */

static struct web_frame *
frame_of(const struct view_entry *entry)
{
	struct view_cursor at = view_cursor_of(entry);
	char id[VIEW_CURSOR_TEXT];
	json_t *json = view_list_form(entry);
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	struct web_frame *frame = NULL;

	view_cursor_format(&at, id);
	if (text != NULL)
		frame = web_frame_make(id, "entry", slice_str(text));
	free(text);
	json_decref(json);
	return frame;
}

static bool
was_shown(const struct shown *shown, const struct uuid *id)
{
	size_t n = shown == NULL ? 0 : shown->n < shown->cap ? shown->n : shown->cap;

	for (size_t i = 0; i < n; i++)
		if (memcmp(&shown->id[i], id, sizeof(*id)) == 0)
			return true;
	return false;
}

/* Without memory a double may come later: better than a gap. */
static void
show(struct watcher *w, const struct uuid *id)
{
	struct shown *s = w->shown;
	size_t cap = s == NULL ? 4 : s->cap;

	if (s == NULL || (s->n == s->cap && s->cap < SHOWN_MAX)) {
		cap = s == NULL ? cap : cap * 4;
		s = realloc(w->shown, sizeof(*s) + cap * sizeof(s->id[0]));
		if (s == NULL)
			return;
		if (w->shown == NULL)
			s->n = 0;
		s->cap = cap;
		w->shown = s;
	}
	s->id[s->n++ % s->cap] = *id;
}

/* --- catching up: the turn's owner
 * ------------------------------------------------------------ */

static void settle(struct watcher *w);

static void
leave(struct watcher *w)
{
	web_stream_close(w->stream);
	watcher_unref(w);
}

static void
on_store(struct store_job *job)
{
	struct catching *c = job->arg;

	aside_post(c->watcher->live->aside, &c->work);
}

static void
ask(struct catching *c, void (*then)(struct work *work))
{
	c->work.run = then;
	c->list.job = (struct store_job){ .done = on_store, .arg = c };
	c->list.account_id = c->watcher->member.account_id;
	c->list.body_max = VIEW_LIST_OCTETS;
	store_inbox_list(c->watcher->live->home->store, &c->list);
}

static void on_page(struct work *work);

static void
ask_page(struct catching *c)
{
	c->list.what = INBOX_SINCE;
	c->list.since_us = c->cursor.changed_us - (c->strictly ? 0 : 1);
	c->list.limit = PAGE_ROWS;
	ask(c, on_page);
}

/* Sends what the page has of new, as much as fits. False: the stream has ended. *more: the page
 * wasn't the last. */
static bool
send_page(struct catching *c, bool *more)
{
	size_t octets = 0, i;
	bool open = true, news = false;

	for (i = 0; open && i < c->list.rows_n && octets < PAGE_OCTETS; i++) {
		struct view_entry entry = view_of_row(&c->list.rows[i]);
		struct view_cursor at = view_cursor_of(&entry);
		struct web_frame *frame;

		if (view_cursor_cmp(&at, &c->cursor) <= 0)
			continue;
		frame = frame_of(&entry);
		open = frame != NULL && web_stream_send(c->watcher->stream, frame);
		octets += frame == NULL ? 0 : web_frame_octets(frame).len;
		web_frame_unref(&frame);
		show(c->watcher, &entry.notification_id);
		c->cursor = at;
		news = true;
		metric_add(&m_replayed, 1);
	}
	*more = i < c->list.rows_n || c->list.rows_n >= PAGE_ROWS;
	c->strictly = *more && !news;
	return open;
}

/* On the thread aside: a page has come. The next one when the client has taken this one. */
static void
on_page(struct work *work)
{
	struct catching *c = (struct catching *)work;
	struct watcher *w = c->watcher;
	bool more = false, open = c->list.job.rc == STORE_OK && !atomic_load(&w->live->closed);
	struct shard *shard;
	bool go_on = false;

	shard = lock_of(w);
	c->drained = false;
	pthread_mutex_unlock(&shard->lock);
	open = open && send_page(c, &more);
	inbox_list_clear(&c->list);
	if (!open) {
		leave(w);
		return;
	}
	if (!more) {
		c->replaying = false;
		settle(w);
		return;
	}
	shard = lock_of(w);
	go_on =
	    c->drained || c->strictly; /* after a page without news nothing is to be taken */
	c->paused = !go_on;
	pthread_mutex_unlock(&shard->lock);
	if (go_on)
		ask_page(c);
	else
		watcher_unref(w); /* on_drained takes one again */
}

/* On the thread aside: one entry as this member reads it. Gone meanwhile: nothing to tell. */
static void
on_one(struct work *work)
{
	struct catching *c = (struct catching *)work;
	struct watcher *w = c->watcher;
	struct web_frame *frame;
	struct view_entry entry;
	bool open = !atomic_load(&w->live->closed);

	if (open && c->list.job.rc == STORE_OK && c->list.rows_n > 0) {
		entry = view_of_row(&c->list.rows[0]);
		frame = frame_of(&entry);
		open = frame != NULL && web_stream_send(w->stream, frame);
		web_frame_unref(&frame);
	} else if (c->list.job.rc != STORE_OK && c->list.job.rc != STORE_NOT_FOUND) {
		open = false;
	}
	inbox_list_clear(&c->list);
	if (open)
		settle(w);
	else
		leave(w);
}

/* Takes the next that waits. False: none, and the watcher is level now. */
static bool
next_waiting(struct watcher *w, struct waiting *out)
{
	struct shard *shard = lock_of(w);
	struct catching *c = w->catching;
	bool found = c->n > 0;

	if (found) {
		*out = c->waiting[c->first++ % WAITING_MAX];
		c->n--;
	} else {
		w->catching = NULL;
		w->level_ms = clock_mono_ms();
	}
	pthread_mutex_unlock(&shard->lock);
	if (!found)
		catching_free(c);
	return found;
}

/* What arrived meanwhile, until the watcher is level or something must be read. Takes the
 * caller's reference. */
static void
settle(struct watcher *w)
{
	struct catching *c = w->catching;
	struct waiting next;
	bool open = true;

	while (open && next_waiting(w, &next)) {
		if (next.is_entry && was_shown(w->shown, &next.id)) {
			web_frame_unref(&next.frame);
		} else if (next.frame != NULL) {
			open = web_stream_send(w->stream, next.frame);
			web_frame_unref(&next.frame);
		} else {
			c->list.what = INBOX_ONE;
			c->list.before = next.id;
			c->list.limit = 1;
			ask(c, on_one);
			return;
		}
	}
	watcher_unref(w);
}

/* --- what arrives
 * ----------------------------------------------------------------------------------- */

/* Streams to be told outside of the lock. */
struct outbox {
	struct web_frame *frame;
	size_t n;
	struct web_stream *streams[SEND_BATCH];
};

static void
outbox_flush(struct outbox *o)
{
	for (size_t i = 0; i < o->n; i++) {
		(void)web_stream_send(o->streams[i], o->frame);
		web_stream_unref(&o->streams[i]);
	}
	o->n = 0;
}

/*
 * Behind what waits already; under the lock. False: too much waits, or no
 * memory. *begin: it was level, so that the caller has to settle it.
 */
static bool
wait_in_line(struct watcher *w, const struct waiting *what, bool *begin)
{
	struct catching *c = w->catching;

	*begin = false;
	if (c == NULL) {
		c = calloc(1, sizeof(*c));
		if (c == NULL)
			return false;
		c->watcher = w;
		w->catching = c;
		*begin = true;
	}
	if (c->n == WAITING_MAX)
		return false;
	c->waiting[(c->first + c->n) % WAITING_MAX] = *what;
	if (what->frame != NULL)
		(void)web_frame_ref(what->frame);
	c->n++;
	return true;
}

/* One watcher, under the lock. What is to be done outside goes to o, begin or cut. */
static void
tell_one(struct watcher *w, const struct waiting *what, struct outbox *o,
         struct watcher **begin, struct web_stream **cut)
{
	bool begins;

	if (w->catching == NULL && what->is_entry && was_shown(w->shown, &what->id))
		return;
	if (w->catching == NULL && what->frame != NULL) {
		o->streams[o->n++] = web_stream_ref(w->stream);
	} else if (!wait_in_line(w, what, &begins)) {
		metric_add(&m_cut, 1);
		w->lost = true;
		*cut = w->stream == NULL ? NULL : web_stream_ref(w->stream);
	} else if (begins) {
		*begin = watcher_ref(w);
	}
}

static void
tell_account(struct live *live, int64_t account_id, const struct waiting *what,
             struct outbox *o)
{
	struct watcher *begin[LIVE_PER_ACCOUNT];
	struct web_stream *cut[LIVE_PER_ACCOUNT];
	struct shard *shard = lock_shard(live, account_id);
	struct watched *a = *find(shard, account_id);
	size_t n = 0;

	for (struct watcher *w = a == NULL ? NULL : a->first; w != NULL; w = w->next, n++) {
		begin[n] = NULL;
		cut[n] = NULL;
		tell_one(w, what, o, &begin[n], &cut[n]);
	}
	pthread_mutex_unlock(&shard->lock);
	for (size_t i = 0; i < n; i++) {
		if (begin[i] != NULL)
			settle(begin[i]);
		if (cut[i] != NULL)
			web_stream_close(cut[i]);
		web_stream_unref(&cut[i]);
	}
}

static void
tell(struct live *live, const struct waiting *what, const int64_t *accounts, size_t n)
{
	struct outbox o = { .frame = what->frame };

	for (size_t i = 0; i < n; i++) {
		if (o.n + LIVE_PER_ACCOUNT > SEND_BATCH)
			outbox_flush(&o);
		tell_account(live, accounts[i], what, &o);
	}
	outbox_flush(&o);
}

void
live_arrived(struct live *live, const struct live_entry *entry, const int64_t *accounts,
             size_t n)
{
	struct waiting what = { .id = entry->notification_id, .is_entry = true };
	struct view_entry view = { .id = entry->notification_id,
		                   .notification_id = entry->notification_id,
		                   .from = entry->sender,
		                   .channel = entry->channel,
		                   .date_s = entry->date_s,
		                   .arrived_us = entry->arrived_us,
		                   .changed_us = entry->arrived_us,
		                   .read_us = -1,
		                   .body = entry->body,
		                   .mail = entry->mail,
		                   .mail_sender = entry->mail_sender,
		                   .mail_from = entry->mail_from,
		                   .mail_address = entry->mail_address };

	if (n == 0 || !live_any(live))
		return;
	if (!entry->differs)
		what.frame = frame_of(&view); /* without memory each is read from the store */
	tell(live, &what, accounts, n);
	web_frame_unref(&what.frame);
}

void
live_changed(struct live *live, const struct uuid *notification_id, const int64_t *accounts,
             size_t n)
{
	struct waiting what = { .id = *notification_id, .is_entry = false };

	if (n > 0 && live_any(live))
		tell(live, &what, accounts, n);
}

void
live_tell(struct live *live, int64_t account_id, const char *event, struct slice data)
{
	struct waiting what = { .is_entry = false };

	if (!live_any(live))
		return;
	what.frame = web_frame_make(NULL, event, data);
	if (what.frame != NULL)
		tell(live, &what, &account_id, 1);
	web_frame_unref(&what.frame);
}

struct telling {
	struct loop_task task; /* first */
	struct live *live;
	int64_t account_id;
	const char *event;
	size_t len;
	uint8_t data[];
};

static void
on_telling(struct loop_task *task)
{
	struct telling *t = (struct telling *)task;

	live_tell(t->live, t->account_id, t->event, slice_mem(t->data, t->len));
	free(t);
}

void
live_tell_soon(struct live *live, int64_t account_id, const char *event, struct slice data)
{
	struct telling *t = live_any(live) ? calloc(1, sizeof(*t) + data.len) : NULL;

	if (t == NULL)
		return;
	t->task.run = on_telling;
	t->live = live;
	t->account_id = account_id;
	t->event = event;
	t->len = data.len;
	memcpy(t->data, data.data, data.len);
	loop_post(live->home->loop, &t->task);
}

void
live_invited(struct live *live, int64_t account_id)
{
	live_tell(live, account_id, "invitation", SLICE("{}"));
}

/* --- the stream's side
 * -------------------------------------------------------------------------------- */

struct verifying {
	struct account_token_get get; /* first */
	struct watcher *watcher;
};

/* On the store's thread. */
static void
on_verified(struct store_job *job)
{
	struct verifying *v = (struct verifying *)job;
	struct watcher *w = v->watcher;

	if (job->rc == STORE_NOT_FOUND)
		web_stream_close(w->stream);
	else if (job->rc == STORE_OK)
		atomic_store(&w->verified_ms, clock_mono_ms());
	atomic_store(&w->verifying, false);
	free(v);
	watcher_unref(w);
}

/* At each heartbeat: a log-in that has ended ends its streams. */
static void
verify(struct watcher *w)
{
	int64_t now_us = clock_wall_us(), seen_ms = atomic_load(&w->verified_ms);
	struct verifying *v;

	if (now_us >= w->member.expires_us) {
		web_stream_close(w->stream);
		return;
	}
	if ((clock_mono_ms() - seen_ms < VERIFY_MS &&
	     seen_ms > atomic_load(&w->live->forgotten_ms)) ||
	    atomic_load(&w->live->closed) || atomic_exchange(&w->verifying, true))
		return;
	v = calloc(1, sizeof(*v));
	if (v == NULL) {
		atomic_store(&w->verifying, false);
		return;
	}
	v->watcher = watcher_ref(w);
	v->get.job.done = on_verified;
	v->get.account_id = w->member.account_id;
	memcpy(v->get.hash, w->member.digest, sizeof(v->get.hash));
	v->get.now_us = now_us;
	store_account_token_get(w->live->home->store, &v->get);
}

static void
on_drained(struct web_stream *stream, void *arg)
{
	struct watcher *w = arg;
	struct shard *shard = lock_of(w);
	struct catching *c = w->catching;
	bool open = w->stream != NULL, ask_now = c != NULL && c->paused;
	struct shown *old = NULL;

	(void)stream;
	if (c != NULL) {
		c->drained = true;
		c->paused = false;
	} else if (w->shown != NULL && clock_mono_ms() - w->level_ms > SHOWN_KEEP_MS) {
		old = w->shown;
		w->shown = NULL;
	}
	pthread_mutex_unlock(&shard->lock);
	free(old);
	if (ask_now) {
		(void)watcher_ref(w);
		ask_page(c);
	}
	if (open)
		verify(w);
}

static void
on_closed(struct web_stream *stream, void *arg)
{
	struct watcher *w = arg;

	(void)stream;
	watcher_unlist(w);
	watcher_unref(w);
}

/* --- watching
 * ----------------------------------------------------------------------------------------------
 */

static struct watcher *
watcher_make(struct live *live, const struct live_member *member,
             const struct view_cursor *since)
{
	struct watcher *w = calloc(1, sizeof(*w));

	if (w == NULL || (w->catching = calloc(1, sizeof(*w->catching))) == NULL) {
		free(w);
		return NULL;
	}
	w->live = live;
	w->member = *member;
	atomic_init(&w->refs, 2); /* the stream's and the opener's */
	atomic_init(&w->verified_ms, clock_mono_ms());
	w->catching->watcher = w;
	w->catching->replaying = since != NULL;
	if (since != NULL)
		w->catching->cursor = *since;
	return w;
}

static void
watcher_begin(struct watcher *w, struct web_stream *stream)
{
	struct shard *shard = lock_of(w);
	bool lost = w->lost;

	w->stream = stream;
	pthread_mutex_unlock(&shard->lock);
	if (lost || atomic_load(&w->live->closed))
		leave(w);
	else if (w->catching->replaying)
		ask_page(w->catching);
	else
		settle(w);
}

void
live_watch(struct live *live, struct web_request *req, const struct live_member *member,
           const struct view_cursor *since)
{
	struct watcher *w = watcher_make(live, member, since);
	struct web_stream_options options = { .heartbeat_ms = HEARTBEAT_MS,
		                              .buffer_max = QUEUE_OCTETS,
		                              .retry_ms = RETRY_MS,
		                              .closed = on_closed,
		                              .drained = on_drained,
		                              .arg = w };
	struct web_stream *stream;

	if (w == NULL) {
		web_reply_problem(req, &web_unavailable, NULL);
		return;
	}
	/* Listed before the stream opens: what arrives from now on waits. */
	if (!watcher_list(w)) {
		web_reply_problem(req, &web_unavailable, NULL);
	} else if ((stream = web_stream_open(req, &options)) != NULL) {
		watcher_begin(w, stream);
		return;
	}
	watcher_unlist(w);
	watcher_unref(w); /* nobody will call on_closed */
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): two references were made */
	watcher_unref(w);
}

void
live_forget(struct live *live)
{
	atomic_store(&live->forgotten_ms, clock_mono_ms());
}

/* Of an account the streams of one log-in, or all with digest NULL. What doesn't fit the server
 * ends when it stops. */
static void
close_account(struct watched *a, const uint8_t *digest, struct outbox *o)
{
	for (struct watcher *w = a == NULL ? NULL : a->first; w != NULL && o->n < SEND_BATCH;
	     w = w->next)
		if (w->stream != NULL &&
		    (digest == NULL ||
		     memcmp(w->member.digest, digest, sizeof(w->member.digest)) == 0))
			o->streams[o->n++] = web_stream_ref(w->stream);
}

static void
outbox_close(struct outbox *o)
{
	for (size_t i = 0; i < o->n; i++) {
		web_stream_close(o->streams[i]);
		web_stream_unref(&o->streams[i]);
	}
	o->n = 0;
}

void
live_logged_out(struct live *live, const struct live_member *member)
{
	struct outbox o = { .n = 0 };
	struct shard *shard = lock_shard(live, member->account_id);

	close_account(*find(shard, member->account_id), member->digest, &o);
	pthread_mutex_unlock(&shard->lock);
	outbox_close(&o);
}

void
live_close_all(struct live *live)
{
	struct outbox o = { .n = 0 };

	atomic_store(&live->closed, true);
	for (size_t i = 0; i < (size_t)SHARDS * BUCKETS; i++) {
		struct shard *shard = &live->shards[i / BUCKETS];

		pthread_mutex_lock(&shard->lock);
		for (struct watched *a = shard->buckets[i % BUCKETS]; a != NULL; a = a->next)
			close_account(a, NULL, &o);
		pthread_mutex_unlock(&shard->lock);
		outbox_close(&o);
	}
}
