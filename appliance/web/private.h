/*
 * What the files of this room share and nobody else includes: the server, its
 * connections and the request's inside. See server.c for who owns what and
 * request.c for the states of a request.
 */
#ifndef TMTP_WEB_PRIVATE_H
#define TMTP_WEB_PRIVATE_H

#include "base/buffer.h"
#include "base/slice.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"
#include "web/stream.h"
#include "web/upload.h"

#include <arpa/inet.h>
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

/* --- route.c --------------------------------------------------------------- */

#define ROUTE_SEGMENTS 16
#define ROUTE_PARAMS 8

struct route_path {
	size_t n;
	struct slice part[ROUTE_SEGMENTS];
};

struct route_set {
	const struct web_route *routes; /* borrowed */
	struct route_path *paths;       /* owned, one a route */
	size_t n;
};

/* False: a path that can't be served, or no memory. */
bool route_set_init(struct route_set *set, const struct web_route *routes, size_t n)
    __attribute__((warn_unused_result));
void route_set_deinit(struct route_set *set);

/*
 * Cuts "/a/b" into "a" and "b"; "/" is no segment at all. False: no leading slash, too many,
 * or an empty one.
 */
bool route_path_cut(struct slice path, struct route_path *out);

/*
 * The first route for path and method; NULL when there is none: then *allowed
 * has a bit (1u << method) for each method that path does have.
 */
const struct web_route *route_find(const struct route_set *set, enum web_method method,
                                   const struct route_path *path, size_t *index,
                                   unsigned *allowed);

/*
 * Percent-decodes s into out (room for s.len octets). False: a broken escape,
 * NUL, or no UTF-8.
 */
bool route_decode(struct slice s, uint8_t *out, struct slice *decoded);

/* --- tls.c ----------------------------------------------------------------- */

struct tls_set;

enum web_rc tls_set_load(const struct web_cert *certs, size_t n, struct tls_set **out,
                         char error[static WEB_ERROR_TEXT]);
struct tls_set *tls_set_ref(struct tls_set *set);
void tls_set_unref(struct tls_set **set);

/* The pair whose names match the client's SNI, else the first. */
gnutls_certificate_retrieve_function3 tls_choose;

/* --- handshake.c ----------------------------------------------------------- */

struct web_conn;
struct web_server;

/* On a new connection of a server with TLS. */
void handshake_begin(struct web_conn *conn);

/* Before the daemon starts; false: no thread or descriptor. Ended once no handshake waits. */
bool handshakes_start(struct web_server *server) __attribute__((warn_unused_result));
void handshakes_stop(struct web_server *server);

/* --- server.c -------------------------------------------------------------- */

enum conn_phase {
	CONN_HANDSHAKE, /* of TLS */
	CONN_HEADERS,   /* waiting for a request, or reading its headers */
	CONN_BODY,
	CONN_REPLY /* the handler has it, or the answer is on its way */
};

struct web_conn {
	struct web_conn *prev, *next; /* the server's list, under its lock */
	struct web_server *server;
	struct MHD_Connection *mhd;
	struct tls_set *tls; /* a reference while a handshake may use it; NULL without TLS */
	struct web_request *req; /* reused; changes under the server's lock */
	int fd;
	bool handshaken, waited, heard; /* see handshake.c; on the daemon's thread alone */
	bool began, unanswered;   /* a request, ever and now; on the daemon's thread alone */
	_Atomic bool cut;         /* by the keeper */
	_Atomic int phase;        /* enum conn_phase */
	_Atomic int64_t since_ms; /* of the phase */
	char peer[INET6_ADDRSTRLEN];
};

struct web_server {
	struct MHD_Daemon *daemon;
	struct route_set routes;
	void *arg;
	size_t header_bytes;
	int64_t request_ms, idle_ms;
	bool has_tls;
	uint16_t port;
	int listen_fd; /* -1 once the daemon owns it */
	_Atomic bool draining;
	_Atomic bool refusing;     /* no handler is called any more */
	_Atomic size_t active;     /* requests begun and not completed */
	_Atomic size_t pending;    /* of them, those with a handler: may be suspended */
	_Atomic size_t resuming;   /* threads inside MHD_resume_connection */
	_Atomic size_t fetching;   /* downloads that wait for octets: suspended */
	_Atomic size_t handshakes; /* those that wait for their client: suspended */
	int handshake_epoll, handshake_stop;
	pthread_t handshake_thread;

	pthread_mutex_t lock; /* of what follows; nothing is called back under it */
	pthread_cond_t wake;
	struct web_conn *conns;
	struct web_stream *streams;
	struct tls_set *tls;
	bool stopping;      /* the keeper goes home */
	bool streams_ended; /* and new ones end at once */
	int64_t next_ms;    /* when the keeper wakes */
	pthread_t keeper;
};

struct web_conn *conn_of(struct MHD_Connection *mhd);
void web_conn_enter(struct web_conn *conn, enum conn_phase phase);

/* --- refused.c ------------------------------------------------------------- */

/* A line of the daemon's logger, without its newline. */
void refused_hear(const char *line);

/* A connection is over; on the daemon's thread. */
void refused_close(const struct web_conn *conn);

/* --- request.c ------------------------------------------------------------- */

/*
 * RUNNING    the server's thread has it: reading, or inside the handler.
 * WAITING    the connection is suspended; the reply resumes it.
 * REPLIED    response and status are set; the server's thread sends them.
 * ABANDONED  the server stopped first and answers by itself; the owner's reply frees it.
 * GO         an upload's owner wants more of the body: see upload.c.
 */
enum request_state { REQ_RUNNING, REQ_WAITING, REQ_REPLIED, REQ_ABANDONED, REQ_GO };

struct request_header {
	struct request_header *next;
	const char *name, *value;
};

struct request_block {
	struct request_block *next;
	size_t len;
	max_align_t data[];
};

#define REQUEST_INLINE 640

struct web_request {
	_Atomic int state;
	_Atomic int refs; /* 2 once abandoned: the server's side and the owner's */
	atomic_flag gate; /* held to look into mhd or to abandon */
	struct web_conn *conn;
	struct web_server *server;
	struct MHD_Connection *mhd;
	const struct web_route *route;
	const struct web_problem *refusal; /* decided before the handler */
	char refused[80];                  /* the refusal in words, or "" */
	enum web_method method;
	unsigned allowed; /* methods, for 405 */
	bool called, pending, has_body, overflow;
	bool tls; /* of the connection */
	/* Of an upload. */
	bool opening, suspended_at_open;
	uint64_t taken; /* octets of the body so far */
	int64_t length; /* Content-Length, or -1 */
	size_t piece_octets;
	web_piece_fn *on_piece;
	void *piece_arg;
	size_t body_max, body_dropped;
	int64_t since_ms;
	size_t n_params;
	struct {
		struct slice name, value;
	} params[ROUTE_PARAMS];
	struct buffer body;
	unsigned status;
	struct MHD_Response *response;
	struct request_header *headers; /* of the reply */
	unsigned retry_after_s;
	void *ctx;
	void (*free_ctx)(void *);
	char peer[INET6_ADDRSTRLEN];
	const struct web_problem *problem; /* that it was answered with, or NULL */
	bool told;                         /* why it was refused has been logged */
	struct request_block *blocks;
	size_t used; /* of room */
	_Alignas(max_align_t) uint8_t room[REQUEST_INLINE];
};

enum MHD_Result request_on_access(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **con_cls);
void request_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                          enum MHD_RequestTerminationCode code);

/* The reply's last step: takes response. */
void request_finish(struct web_request *req, unsigned status, struct MHD_Response *response);

/*
 * The owner's right to the request ends, on any thread: the daemon's thread goes on with it in
 * this state, or nobody when the server gave up on it.
 */
void request_hand_over(struct web_request *req, enum request_state to);

/*
 * The server gives up on a waiting request; true: mhd must now be resumed. Under the server's
 * lock.
 */
bool request_abandon(struct web_request *req);

void request_free(struct web_request *req);
void request_unref(struct web_request *req);

/* On the server's thread, in state REPLIED or ABANDONED: the answer goes out. */
enum MHD_Result request_answer(struct web_request *req);

/* --- upload.c -------------------------------------------------------------- */

/* What a body may go on sending beyond what its route takes, until it is cut. */
#define UPLOAD_DROP_MAX 1048576
/* Of what was refused before its body so many are read before the answer. */
#define REFUSED_DROP_MAX ((int64_t)16 << 20)

/* A route's handler that is called before the body, and all calls of the daemon's that follow. */
enum MHD_Result upload_open(struct web_request *req);
enum MHD_Result upload_on_access(struct web_request *req, const char *data, size_t *size);

/* --- reply.c --------------------------------------------------------------- */

/* Adds the caller's headers and the defaults. */
void reply_add_headers(struct web_request *req, struct MHD_Response *response,
                       const char *content_type);

/* A 503 that belongs to no request; NULL without memory. */
struct MHD_Response *reply_stopped(void);

/* --- download.c ------------------------------------------------------------ */

/* Takes what the object owns, unless it is NULL. */
struct MHD_Response *download_response(struct web_request *req, const struct web_object *o,
                                       size_t from, size_t count);

/* --- stream.c -------------------------------------------------------------- */

/* Sends the heartbeats that are due; the time of the next one. */
int64_t stream_keep(struct web_server *server, int64_t now_ms);

/* Ends the streams of clients that are gone; looks at each once a second at most. */
void stream_look_all(struct web_server *server, int64_t now_ms);

/* Ends all of a server's streams; cut: at once. */
void stream_close_all(struct web_server *server, bool cut);

/* --- metrics, in server.c -------------------------------------------------- */

void metrics_request(unsigned status);
void metrics_connections(int change);
void metrics_streams(int change);

#endif
