/*
 * Server-sent events (HTML, section 9.2): an open answer into which frames are
 * sent from any thread. A frame is formatted once and shared by thousands of
 * streams. A stream's queue is bounded: whoever reads too slowly is cut off and
 * catches up with Last-Event-ID.
 */
#ifndef TMTP_WEB_STREAM_H
#define TMTP_WEB_STREAM_H

#include "base/slice.h"

struct web_request;
struct web_stream;
struct web_frame;

/*
 * One event. id (may be NULL) and event (may be NULL: "message") are single
 * lines; data may have several (LF, CR LF or CR) and becomes one data line
 * each. NULL: no memory, or a line break or NUL in id or event. The caller owns one reference.
 */
struct web_frame *web_frame_make(const char *id, const char *event, struct slice data);
struct web_frame *web_frame_ref(struct web_frame *f);
void web_frame_unref(struct web_frame **f);

/* Octets on the wire, chunking aside; borrows. Tests. */
struct slice web_frame_octets(const struct web_frame *f);

struct web_stream_options {
	unsigned heartbeat_ms; /* a comment after that long without an event; default 25000 */
	size_t buffer_max; /* octets queued and not yet taken by the client; default 65536 */
	unsigned retry_ms; /* what a client is told to wait before it comes back; 0: nothing */
	/*
	 * Called once when the stream has ended, whoever ended it, on a server thread, perhaps
	 * before web_stream_open has returned; afterwards arg isn't used. May be NULL.
	 */
	void (*closed)(struct web_stream *stream, void *arg);
	/*
	 * Called each time that the client has taken all that was queued, heartbeats too, on a
	 * server thread, perhaps before web_stream_open has returned, never after closed:
	 * whoever has much to send goes on then. May be NULL.
	 */
	void (*drained)(struct web_stream *stream, void *arg);
	void *arg;
};

/*
 * Replies 200 text/event-stream and keeps the answer open. The request is gone
 * as with any reply. The caller owns one reference, valid beyond the stream's
 * end. A client that ends its side of the connection is taken for gone, within
 * seconds. NULL: no memory; the request has been answered and closed is never called.
 * Last-Event-ID is an ordinary header: read it before.
 */
struct web_stream *web_stream_open(struct web_request *req, const struct web_stream_options *o);

/*
 * Queues the frame (it takes its own reference). False: the stream has ended, or this
 * frame was one too many for a slow reader, and it is ending. Any thread.
 */
bool web_stream_send(struct web_stream *s, struct web_frame *f);

/* Ends the stream after what is queued. Any thread; closed is still called. */
void web_stream_close(struct web_stream *s);

struct web_stream *web_stream_ref(struct web_stream *s);
void web_stream_unref(struct web_stream **s);

#endif
