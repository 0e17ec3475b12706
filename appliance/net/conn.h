/*
 * One byte-stream connection, plain or TLS, on a loop: bounded buffers both
 * ways, deadlines, half-close, and the change from plain to TLS in place. It
 * knows nothing of what the octets mean.
 */
#ifndef TMTP_NET_CONN_H
#define TMTP_NET_CONN_H

#include "net/listener.h"
#include "net/tls.h"

struct conn;

enum conn_rc {
	CONN_OK = 0,
	CONN_FULL,   /* doesn't fit now: nothing was taken; `drained` will tell */
	CONN_CLOSED, /* no longer connected, or the sending half was shut */
	CONN_NO_MEMORY,
};

enum conn_end {
	CONN_END_EOF = 1, /* the peer ended its half and nobody wants that told (no `ended`) */
	CONN_END_RESET,   /* the network or the peer broke the connection */
	CONN_END_CONNECT, /* no address could be connected to */
	CONN_END_HANDSHAKE,  /* TLS failed */
	CONN_END_UNVERIFIED, /* TLS failed: the server's certificate didn't stand the check */
	CONN_END_TIMEOUT,    /* connecting or the handshake took too long */
	CONN_END_STALLED,    /* the peer took no octet of waiting output for stall_ms */
	CONN_END_INJECTED,   /* plaintext stood behind the octets that began TLS */
	CONN_END_TLS,        /* a broken or forbidden record after the handshake */
	CONN_END_NO_MEMORY,
};

/* Machine-readable: "reset", "unverified", ... for log lines. */
const char *conn_end_name(enum conn_end end);

/*
 * What the owner is told, always from the loop, never from within a call of
 * conn_*. Any of them may be NULL, and may close the connection.
 */
struct conn_events {
	/* conn_connect reached a peer; TLS, if asked for already, begins now. */
	void (*connected)(struct conn *conn, void *arg);
	/* The TLS handshake is done: conn_tls_peer answers. */
	void (*secured)(struct conn *conn, void *arg);
	/*
	 * Input, with what was left untaken before in front. Returns how many
	 * octets it took; the others stay. It is called again with more input, or
	 * after conn_read_resume. When in_max octets stand untaken, reading stops.
	 * Without this callback input waits as if paused.
	 */
	size_t (*data)(struct conn *conn, void *arg, struct slice in);
	/*
	 * Waiting output fell to out_low or below after it was above out_high, or after a write
	 * that didn't fit.
	 */
	void (*drained)(struct conn *conn, void *arg);
	/*
	 * The peer ended its sending half; nothing more will be read, writing still
	 * works. clean: with FIN, in TLS with close_notify. Not clean: TLS cut by a
	 * bare FIN, which is an error within a message and a close at a boundary.
	 */
	void (*ended)(struct conn *conn, void *arg, bool clean);
	/*
	 * Broken. Nothing follows; the owner still calls conn_close, here or later. text: one
	 * line, for people.
	 */
	void (*closed)(struct conn *conn, void *arg, enum conn_end end, const char *text);
};

/* Zeros mean the defaults. */
struct conn_config {
	const struct conn_events *events; /* borrowed until the connection is closed */
	void *arg;
	size_t in_max;        /* untaken input; default 65536 */
	size_t out_max;       /* waiting output; default 2 MiB */
	size_t out_high;      /* default half of out_max */
	size_t out_low;       /* default an eighth of out_max */
	int64_t connect_ms;   /* for each address; default 10,000 */
	int64_t handshake_ms; /* default 30,000 */
	int64_t stall_ms;     /* default 300,000 */
	/* Taken, also by a failing conn_new; given back at the close. */
	struct listener_seat *seat;
};

/*
 * Takes fd (connected, non-blocking) and reads as soon as the loop turns. NULL: no memory, fd
 * is closed.
 */
struct conn *conn_new(struct loop *loop, int fd, const struct net_address *peer,
                      const struct conn_config *config);

/*
 * Connects to the first address that answers, in the given order; then
 * `connected`, else `closed`. Nothing is reported before the loop turns.
 * public_only: addresses that net_address_is_public refuses are not tried.
 */
struct conn *conn_connect(struct loop *loop, const struct net_address *addresses, size_t count,
                          bool public_only, const struct conn_config *config);

/*
 * At once and without a farewell; unsent output is lost. No callback follows. Sets *conn to
 * NULL; NULL is harmless.
 */
void conn_close(struct conn **conn);

/*
 * Sends what waits, shuts the sending half, reads on and throws away for up to
 * linger_ms after that, then closes; the loop owns it from now on and no
 * callback follows. What the peer doesn't take within stall_ms is lost.
 */
void conn_linger(struct conn **conn, int64_t linger_ms);

/*
 * TLS from here on. What conn_write was given before leaves in plaintext
 * before; input that stands untaken, or that `data` leaves untaken when it
 * calls this, closes with CONN_END_INJECTED. While connecting: begins when
 * connected. require_alpn: a client that doesn't offer the server's protocol is
 * refused (no_application_protocol).
 */
enum conn_rc conn_start_tls_server(struct conn *conn, struct tls_server *server,
                                   bool require_alpn) __attribute__((warn_unused_result));

/*
 * expected  the domain that the server's certificate must name; also the SNI
 * own       whose certificate of the client's identities to present; NULL or unknown: none
 */
enum conn_rc conn_start_tls_client(struct conn *conn, struct tls_client *client,
                                   const char *expected, const char *own)
    __attribute__((warn_unused_result));

/* NULL before `secured`. */
const struct tls_peer *conn_tls_peer(const struct conn *conn);

/*
 * The peer's certificate in words, and by which rule it names domain. False before `secured`, and
 * when it showed none: out untouched.
 */
bool conn_tls_certificate(const struct conn *conn, const char *domain,
                          struct tls_certificate *out) __attribute__((warn_unused_result));

/*
 * Keying material of the session (RFC 8446 section 7.5, RFC 5705), without a
 * context. False before `secured`, and in TLS 1.2 without the extended master
 * secret (RFC 7627): out untouched.
 */
bool conn_tls_exporter(struct conn *conn, const char *label, uint8_t *out, size_t len)
    __attribute__((warn_unused_result));

/*
 * All or nothing; octets leave together at the end of the loop's turn. Before the handshake is
 * done they wait.
 */
enum conn_rc conn_write(struct conn *conn, struct slice octets)
    __attribute__((warn_unused_result));

/* How many octets conn_write would take now. */
size_t conn_write_room(const struct conn *conn);

/* Octets written that the kernel hasn't taken. */
size_t conn_unsent(const struct conn *conn);

/* When the kernel last took an octet, in loop_mono_ms; the beginning before that. */
int64_t conn_last_sent_ms(const struct conn *conn);

/* Input that stands untaken: counted as data's last return left it. */
size_t conn_unread(const struct conn *conn);

/* No further `data`, nothing more is read from the network. Pausing twice is pausing once. */
void conn_read_pause(struct conn *conn);

/* Untaken input is offered again, in the loop's next turn. */
void conn_read_resume(struct conn *conn);

/* After what waits, the sending half ends (close_notify, then FIN); reading goes on. */
void conn_shutdown(struct conn *conn);

/* The other side's address; of conn_connect: the one connected to, or tried last. */
const struct net_address *conn_peer_address(const struct conn *conn);

struct loop *conn_loop(const struct conn *conn);

#endif
