/*
 * Bodies piece by piece: see upload.h. It uses the states of a request
 * (request.c) and one more: GO, in which the owner says that it wants more.
 *
 *	RUNNING --handler or piece returned--> WAITING --next--> GO --daemon--> RUNNING
 *
 * When a connection that was suspended before its body goes on, the daemon
 * calls once more without octets before it reads any.
 */
#include "web/upload.h"

#include "base/text.h"
#include "web/private.h"

/* The owner's right to the request ends; it was the server's to count. */
static void
uncount(struct web_request *req)
{
	if (req->pending)
		atomic_fetch_sub(&req->server->pending, 1);
	req->pending = false;
}

/* The daemon's thread goes on with the body. */
static void
go_on(struct web_request *req)
{
	uncount(req);
	buffer_clear(&req->body);
	atomic_store(&req->state, REQ_RUNNING);
	web_conn_enter(req->conn, CONN_BODY);
}

enum turn { TURN_NEXT, TURN_KEPT, TURN_ANSWERED };

/*
 * After a handler or an owner of a piece had its turn. Suspends the connection
 * when it keeps the request, which then isn't ours any more.
 */
static enum turn
after_turn(struct web_request *req)
{
	struct MHD_Connection *mhd = req->mhd;
	int state = atomic_load(&req->state), running = REQ_RUNNING;

	if (state == REQ_GO) {
		go_on(req);
		return TURN_NEXT;
	}
	if (state == REQ_REPLIED)
		return TURN_ANSWERED;
	req->suspended_at_open = req->opening;
	MHD_suspend_connection(mhd);
	/* Once WAITING, the owner may go on, and the request may end: hands off. */
	if (!atomic_compare_exchange_strong(&req->state, &running, REQ_WAITING))
		MHD_resume_connection(mhd);
	return TURN_KEPT;
}

/* Counted before refusing is read: see request.c. */
static bool
begin_turn(struct web_request *req)
{
	req->pending = true;
	atomic_fetch_add(&req->server->pending, 1);
	web_conn_enter(req->conn, CONN_REPLY);
	if (!atomic_load(&req->server->refusing))
		return true;
	web_reply_problem(req, &web_unavailable, NULL);
	return false;
}

/*
 * Refused before its body: a client that sends it without waiting would hear a
 * reset instead of the answer, so some of it is read first. Who asked whether
 * to send it isn't sending, and hears at once.
 */
static bool
reads_first(struct web_request *req)
{
	return req->length <= REFUSED_DROP_MAX &&
	       MHD_lookup_connection_value(req->mhd, MHD_HEADER_KIND, "Expect") == NULL;
}

enum MHD_Result
upload_open(struct web_request *req)
{
	req->called = true;
	req->opening = true;
	if (begin_turn(req))
		req->route->handler(req, req->server->arg);
	if (after_turn(req) != TURN_ANSWERED || reads_first(req))
		return MHD_YES;
	return request_answer(req);
}

static enum turn
give_piece(struct web_request *req, bool last)
{
	if (begin_turn(req))
		req->on_piece(req, buffer_slice(&req->body), last, req->piece_arg);
	return after_turn(req);
}

/* Octets that nobody wants any more; their number is bounded by what the route takes. */
static enum MHD_Result
drop(struct web_request *req, size_t *size)
{
	uncount(req);
	req->taken += *size;
	req->body_dropped += *size;
	*size = 0;
	if (req->body_dropped >= req->piece_octets) {
		req->body_dropped = 0;
		web_conn_enter(req->conn, CONN_BODY);
	}
	return req->taken > (req->on_piece == NULL ? REFUSED_DROP_MAX
	                                           : req->body_max + (uint64_t)UPLOAD_DROP_MAX)
	           ? MHD_NO
	           : MHD_YES;
}

/* All of it, unless the owner keeps a piece: what isn't taken of a connection that goes on is forgotten. */
static enum MHD_Result
take(struct web_request *req, const char *data, size_t *size)
{
	while (*size > 0) {
		size_t n = req->piece_octets - req->body.len;
		enum turn turn = TURN_NEXT;

		n = n < *size ? n : *size;
		if (n > req->body_max - req->taken) {
			web_reply_problem(req, &web_payload_too_large,
			                  "At most %zu octets are taken here.", req->body_max);
			web_conn_enter(req->conn, CONN_BODY);
			return drop(req, size);
		}
		buffer_add(&req->body, data, n);
		if (req->body.failed)
			return MHD_NO;
		req->taken += n;
		data += n;
		*size -= n;
		if (req->body.len == req->piece_octets)
			turn = give_piece(req, false);
		if (turn == TURN_KEPT)
			return MHD_YES;
		if (turn == TURN_ANSWERED) {
			web_conn_enter(req->conn, CONN_BODY);
			return drop(req, size);
		}
	}
	return MHD_YES;
}

enum MHD_Result
upload_on_access(struct web_request *req, const char *data, size_t *size)
{
	bool opening = req->opening;

	if (atomic_load(&req->state) == REQ_GO)
		go_on(req);
	if (atomic_load(&req->state) == REQ_ABANDONED)
		return *size > 0 ? MHD_NO : request_answer(req);
	req->opening = false;
	if (atomic_load(&req->state) == REQ_REPLIED) {
		if (*size > 0)
			return drop(req, size);
		if (opening && req->suspended_at_open && reads_first(req)) {
			req->suspended_at_open = false;
			uncount(req);
			web_conn_enter(req->conn, CONN_BODY);
			return MHD_YES;
		}
		return request_answer(req);
	}
	if (opening && *size == 0 && req->suspended_at_open) {
		req->suspended_at_open = false;
		return MHD_YES;
	}
	if (*size > 0)
		return take(req, data, size);
	return give_piece(req, true) == TURN_ANSWERED ? request_answer(req) : MHD_YES;
}

void
web_upload_begin(struct web_request *req, size_t piece_octets, web_piece_fn *on_piece,
                 void *arg)
{
	req->piece_octets = piece_octets;
	req->on_piece = on_piece;
	req->piece_arg = arg;
	request_hand_over(req, REQ_GO);
}

void
web_upload_next(struct web_request *req)
{
	request_hand_over(req, REQ_GO);
}

int64_t
web_upload_length(const struct web_request *req)
{
	return req->length;
}
