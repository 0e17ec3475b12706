/*
 * Bodies that are taken piece by piece, of routes with WEB_STREAM_BODY. The
 * handler is called before any of the body is read. It answers, and then no
 * piece comes: of a body that is sent without asking (Expect) up to 16 MiB pass
 * by unseen first, so that its sender hears the answer. Or it takes the upload
 * with web_upload_begin, at once or later. Then pieces come, one at a time: while the owner has one nothing is
 * read, so that a client is as fast as what its octets go into, and a server
 * holds one piece of each upload.
 *
 * After each piece the owner says web_upload_next, or answers; both on any
 * thread, and both end its right to the request until the next piece. An answer
 * in the middle lets the rest of the body pass by unseen before it is sent,
 * since HTTP/1.1 knows no earlier one that all clients read. When the client
 * leaves or the server stops, no piece comes any more: the request's free_ctx
 * tells of it.
 *
 * A piece must be complete within the server's request_s, whatever trickles.
 */
#ifndef TMTP_WEB_UPLOAD_H
#define TMTP_WEB_UPLOAD_H

#include "base/slice.h"

struct web_request;

/* piece: borrowed until web_upload_next or the answer; only the last one may be shorter, or empty. */
typedef void web_piece_fn(struct web_request *req, struct slice piece, bool last, void *arg);

/* on_piece is called on a server thread and must not block. */
void web_upload_begin(struct web_request *req, size_t piece_octets, web_piece_fn *on_piece,
                      void *arg);

/* The next piece, please. Not after the last one. */
void web_upload_next(struct web_request *req);

/* What the client says that it will send; -1: it doesn't (chunked). */
int64_t web_upload_length(const struct web_request *req);

#endif
