/*
 * Event streams. The daemon pulls: its reader copies what is queued, and when
 * nothing is, suspends the connection instead of returning 0 (which would burn
 * a core); a sender resumes it. One lock a stream orders the two. The response
 * holds a reference and its release is the stream's end, on every path.
 *
 * Lock order: stream, then server; nobody takes a stream's lock under a server's.
 */
#include "web/stream.h"

#include "base/clock.h"
#include "web/private.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define HEARTBEAT_MS 25000
#define LOOK_EVERY_MS 1000 /* whether clients are still there */
#define BUFFER_MAX 65536
#define QUEUE_FIRST 4
#define QUEUE_KEEP 16
#define BATCH 256
/* Only answers to HTTP/1.0 pass through the daemon's own block. */
#define BLOCK 256

struct web_frame {
	_Atomic int refs;
	size_t len;
	uint8_t data[];
};

struct web_stream {
	pthread_mutex_t lock;
	_Atomic int refs;
	struct MHD_Connection *mhd;
	int fd; /* -1 before the first read and after the end */
	bool suspended, closing, cut, ended;
	size_t buffer_max;
	struct web_frame **queue; /* a ring */
	size_t cap, head, count;
	size_t offset; /* into the first frame */
	size_t queued; /* octets */
	unsigned heartbeat_ms;
	_Atomic int64_t due_ms; /* of the next heartbeat */
	int64_t looked_ms;      /* when the client was last there, under the server's lock */
	void (*closed)(struct web_stream *, void *);
	void (*drained)(struct web_stream *, void *);
	void *arg;

	struct web_server *server; /* while it is listed there, under its lock */
	struct web_stream *prev, *next;
	bool listed, told, told_cut;
};

/* --- frames ---------------------------------------------------------------- */

static bool
is_single_line(const char *s)
{
	return s == NULL || strpbrk(s, "\r\n") == NULL;
}

static void
put_line(struct buffer *b, const char *name, const uint8_t *data, size_t len)
{
	buffer_add_str(b, name);
	buffer_add(b, data, len);
	buffer_add_u8(b, '\n');
}

/* One "data:" line for each of data's, whichever of the three line ends it uses. */
static void
put_data(struct buffer *b, struct slice data)
{
	size_t from = 0;

	for (size_t i = 0; i < data.len; i++) {
		if (data.data[i] != '\n' && data.data[i] != '\r')
			continue;
		put_line(b, "data: ", data.data + from, i - from);
		if (data.data[i] == '\r' && i + 1 < data.len && data.data[i + 1] == '\n')
			i++;
		from = i + 1;
	}
	put_line(b, "data: ", data.data == NULL ? NULL : data.data + from, data.len - from);
}

static struct web_frame *
frame_of(struct buffer *b)
{
	struct web_frame *f = b->failed ? NULL : malloc(sizeof(*f) + b->len);

	if (f != NULL) {
		atomic_init(&f->refs, 1);
		f->len = b->len;
		memcpy(f->data, b->data, b->len);
	}
	buffer_free(b);
	return f;
}

struct web_frame *
web_frame_make(const char *id, const char *event, struct slice data)
{
	struct buffer b;

	if (!is_single_line(id) || !is_single_line(event))
		return NULL;
	buffer_init(&b, SIZE_MAX / 2);
	if (id != NULL)
		put_line(&b, "id: ", (const uint8_t *)id, strlen(id));
	if (event != NULL)
		put_line(&b, "event: ", (const uint8_t *)event, strlen(event));
	put_data(&b, data);
	buffer_add_u8(&b, '\n');
	return frame_of(&b);
}

static struct web_frame *
frame_first(unsigned retry_ms)
{
	struct buffer b;

	buffer_init(&b, 64);
	if (retry_ms > 0)
		buffer_add_fmt(&b, "retry: %u\n\n", retry_ms);
	else
		buffer_add_str(&b, ":\n\n");
	return frame_of(&b);
}

struct web_frame *
web_frame_ref(struct web_frame *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void
web_frame_unref(struct web_frame **f)
{
	if (*f != NULL && atomic_fetch_sub_explicit(&(*f)->refs, 1, memory_order_acq_rel) == 1)
		free(*f);
	*f = NULL;
}

struct slice
web_frame_octets(const struct web_frame *f)
{
	return slice_mem(f->data, f->len);
}

/* --- the queue, under the stream's lock ------------------------------------ */

static bool
queue_grow(struct web_stream *s)
{
	size_t cap = s->cap == 0 ? QUEUE_FIRST : s->cap * 2;
	struct web_frame **queue = calloc(cap, sizeof(struct web_frame *));

	if (queue == NULL)
		return false;
	for (size_t i = 0; i < s->count; i++)
		queue[i] = s->queue[(s->head + i) % s->cap];
	free(s->queue);
	s->queue = queue;
	s->cap = cap;
	s->head = 0;
	return true;
}

static bool
queue_push(struct web_stream *s, struct web_frame *f)
{
	if (s->queued + f->len > s->buffer_max || (s->count == s->cap && !queue_grow(s)))
		return false;
	s->queue[(s->head + s->count) % s->cap] = web_frame_ref(f);
	s->count++;
	s->queued += f->len;
	return true;
}

static void
queue_pop(struct web_stream *s)
{
	web_frame_unref(&s->queue[s->head]);
	s->head = (s->head + 1) % s->cap;
	s->count--;
	s->offset = 0;
	if (s->count == 0 && s->cap > QUEUE_KEEP) {
		free(s->queue);
		s->queue = NULL;
		s->cap = s->head = 0;
	}
}

static size_t
queue_read(struct web_stream *s, uint8_t *out, size_t max)
{
	size_t n = 0;

	while (s->count > 0 && n < max) {
		struct web_frame *f = s->queue[s->head];
		size_t some = f->len - s->offset < max - n ? f->len - s->offset : max - n;

		memcpy(out + n, f->data + s->offset, some);
		n += some;
		s->offset += some;
		s->queued -= some;
		if (s->offset == f->len)
			queue_pop(s);
	}
	return n;
}

static void
queue_drop(struct web_stream *s)
{
	while (s->count > 0)
		queue_pop(s);
	s->queued = 0;
}

/* --- references ------------------------------------------------------------ */

struct web_stream *
web_stream_ref(struct web_stream *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void
web_stream_unref(struct web_stream **stream)
{
	struct web_stream *s = *stream;

	*stream = NULL;
	if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): who lets go holds one of refs */
	queue_drop(s);
	free(s->queue);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

/* --- the server's list ----------------------------------------------------- */

/* On the server's thread, so the server stands. */
static void
stream_list(struct web_stream *s)
{
	struct web_conn *conn = conn_of(s->mhd);
	struct web_server *server = conn->server;
	bool ended;

	pthread_mutex_lock(&server->lock);
	s->server = server;
	s->next = server->streams;
	if (s->next != NULL)
		s->next->prev = s;
	server->streams = s;
	s->listed = true;
	ended = server->streams_ended;
	if (atomic_load(&s->due_ms) < server->next_ms)
		pthread_cond_signal(&server->wake);
	pthread_mutex_unlock(&server->lock);
	metrics_streams(1);
	pthread_mutex_lock(&s->lock);
	s->fd = conn->fd;
	s->closing = s->closing || ended;
	pthread_mutex_unlock(&s->lock);
}

static void
stream_unlist(struct web_stream *s)
{
	struct web_server *server = s->server;

	pthread_mutex_lock(&server->lock);
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		server->streams = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	s->listed = false;
	pthread_mutex_unlock(&server->lock);
	metrics_streams(-1);
}

/* --- the daemon's side ----------------------------------------------------- */

static ssize_t
on_read(void *cls, uint64_t pos, char *out, size_t max)
{
	struct web_stream *s = cls;
	size_t n;
	ssize_t rc;
	bool drained;

	(void)pos;
	if (!s->listed)
		stream_list(s);
	pthread_mutex_lock(&s->lock);
	n = s->cut ? 0 : queue_read(s, (uint8_t *)out, max);
	drained = n > 0 && s->count == 0;
	if (s->cut) {
		rc = MHD_CONTENT_READER_END_WITH_ERROR;
	} else if (n > 0) {
		rc = (ssize_t)n;
	} else if (s->closing) {
		rc = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		/* Under the lock, so that a sender's resume comes after. */
		s->suspended = true;
		MHD_suspend_connection(s->mhd);
		rc = 0;
	}
	pthread_mutex_unlock(&s->lock);
	if (drained && s->drained != NULL)
		s->drained(s, s->arg);
	return rc;
}

/* The response is gone: sent to its end, client gone, or never sent. */
static void
on_release(void *cls)
{
	struct web_stream *s = cls;

	if (s->listed)
		stream_unlist(s);
	pthread_mutex_lock(&s->lock);
	s->ended = true;
	s->fd = -1;
	queue_drop(s);
	pthread_mutex_unlock(&s->lock);
	if (s->closed != NULL)
		s->closed(s, s->arg);
	web_stream_unref(&s);
}

/* --- the sender's side ----------------------------------------------------- */

static void
stream_resume(struct web_stream *s)
{
	if (s->suspended) {
		s->suspended = false;
		MHD_resume_connection(s->mhd);
	}
}

/*
 * What is queued goes nowhere. The daemon waits for a socket that takes nothing: shutdown
 * wakes it.
 */
static void
stream_cut(struct web_stream *s)
{
	s->cut = true;
	queue_drop(s);
	if (s->fd >= 0)
		(void)shutdown(s->fd, SHUT_RDWR);
	stream_resume(s);
}

static struct web_stream *
stream_make(struct web_request *req, const struct web_stream_options *o)
{
	struct web_stream *s = calloc(1, sizeof(*s));
	struct web_frame *first = frame_first(o->retry_ms);

	if (s == NULL || first == NULL) {
		free(s);
		web_frame_unref(&first);
		return NULL;
	}
	(void)pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->refs, 2);
	s->mhd = req->mhd;
	s->fd = -1;
	s->buffer_max = o->buffer_max == 0 ? BUFFER_MAX : o->buffer_max;
	s->heartbeat_ms = o->heartbeat_ms == 0 ? HEARTBEAT_MS : o->heartbeat_ms;
	atomic_init(&s->due_ms, clock_mono_ms() + s->heartbeat_ms);
	s->closed = o->closed;
	s->drained = o->drained;
	s->arg = o->arg;
	if (!queue_push(s, first))
		s->cut = true;
	web_frame_unref(&first);
	return s;
}

struct web_stream *
web_stream_open(struct web_request *req, const struct web_stream_options *o)
{
	struct web_stream *s = stream_make(req, o), *server_side = s;
	struct MHD_Response *response =
	    s == NULL ? NULL
		      : MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, on_read, s,
	                                                  on_release);

	if (response == NULL) {
		web_stream_unref(&server_side);
		web_stream_unref(&s);
		web_reply_problem(req, &web_unavailable, NULL);
		return NULL;
	}
	web_reply_header(req, "X-Accel-Buffering", "no");
	reply_add_headers(req, response, "text/event-stream");
	request_finish(req, 200, response);
	return s;
}

bool
web_stream_send(struct web_stream *s, struct web_frame *f)
{
	bool sent = false;

	pthread_mutex_lock(&s->lock);
	if (!s->ended && !s->closing && !s->cut) {
		sent = queue_push(s, f);
		if (sent)
			stream_resume(s);
		else
			stream_cut(s);
	}
	pthread_mutex_unlock(&s->lock);
	atomic_store_explicit(&s->due_ms, clock_mono_ms() + s->heartbeat_ms,
	                      memory_order_relaxed);
	return sent;
}

void
web_stream_close(struct web_stream *s)
{
	pthread_mutex_lock(&s->lock);
	if (!s->ended) {
		s->closing = true;
		stream_resume(s);
	}
	pthread_mutex_unlock(&s->lock);
}

/* --- heartbeats and the end of all ----------------------------------------- */

/* Not behind something that the client hasn't taken yet: that finds a vanished one as well. */
static void
stream_beat(struct web_stream *s, struct web_frame *beat)
{
	pthread_mutex_lock(&s->lock);
	if (!s->ended && !s->closing && !s->cut && s->count == 0 && queue_push(s, beat))
		stream_resume(s);
	pthread_mutex_unlock(&s->lock);
}

/*
 * The daemon doesn't poll a suspended connection. Who has ended its side of
 * one reads no events any more.
 */
static void
stream_look(struct web_stream *s)
{
	struct pollfd p = { .events = POLLRDHUP };

	pthread_mutex_lock(&s->lock);
	p.fd = s->fd;
	if (!s->ended && !s->cut && s->fd >= 0 && poll(&p, 1, 0) > 0)
		stream_cut(s);
	pthread_mutex_unlock(&s->lock);
}

void
stream_look_all(struct web_server *server, int64_t now_ms)
{
	struct web_stream *found[BATCH];
	size_t n;

	do {
		n = 0;
		pthread_mutex_lock(&server->lock);
		for (struct web_stream *s = server->streams; s != NULL && n < BATCH;
		     s = s->next) {
			if (now_ms - s->looked_ms < LOOK_EVERY_MS)
				continue;
			s->looked_ms = now_ms;
			found[n++] = web_stream_ref(s);
		}
		pthread_mutex_unlock(&server->lock);
		for (size_t i = 0; i < n; i++) {
			stream_look(found[i]);
			web_stream_unref(&found[i]);
		}
	} while (n == BATCH);
}

int64_t
stream_keep(struct web_server *server, int64_t now_ms)
{
	struct web_frame *beat = NULL;
	struct web_stream *due[BATCH];
	int64_t next_ms;
	size_t n;

	do {
		n = 0;
		next_ms = INT64_MAX;
		pthread_mutex_lock(&server->lock);
		for (struct web_stream *s = server->streams; s != NULL && n < BATCH;
		     s = s->next) {
			int64_t due_ms = atomic_load_explicit(&s->due_ms, memory_order_relaxed);

			if (due_ms <= now_ms) {
				due[n++] = web_stream_ref(s);
				due_ms = now_ms + s->heartbeat_ms;
				atomic_store_explicit(&s->due_ms, due_ms, memory_order_relaxed);
			}
			if (due_ms < next_ms)
				next_ms = due_ms;
		}
		pthread_mutex_unlock(&server->lock);
		if (n > 0 && beat == NULL)
			beat = frame_first(0);
		for (size_t i = 0; i < n; i++) {
			if (beat != NULL)
				stream_beat(due[i], beat);
			web_stream_unref(&due[i]);
		}
	} while (n == BATCH);
	web_frame_unref(&beat);
	return next_ms;
}

static void
stream_end(struct web_stream *s, bool cut)
{
	if (!cut) {
		web_stream_close(s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	if (!s->ended)
		stream_cut(s);
	pthread_mutex_unlock(&s->lock);
}

void
stream_close_all(struct web_server *server, bool cut)
{
	struct web_stream *found[BATCH];
	size_t n;

	do {
		n = 0;
		pthread_mutex_lock(&server->lock);
		server->streams_ended = true;
		for (struct web_stream *s = server->streams; s != NULL && n < BATCH;
		     s = s->next) {
			bool *told = cut ? &s->told_cut : &s->told;

			if (!*told)
				found[n++] = web_stream_ref(s);
			*told = true;
		}
		pthread_mutex_unlock(&server->lock);
		for (size_t i = 0; i < n; i++) {
			stream_end(found[i], cut);
			web_stream_unref(&found[i]);
		}
	} while (n == BATCH);
}
