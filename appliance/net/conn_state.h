/*
 * A connection from within, for conn.c (its life and what its owner calls) and
 * conn_io.c (octets in and out).
 */
#ifndef TMTP_NET_CONN_STATE_H
#define TMTP_NET_CONN_STATE_H

#include "net/conn.h"
#include "net/tls_stream.h"

enum conn_state { CONN_CONNECTING, CONN_SECURING, CONN_OPEN, CONN_DEAD };

enum io_rc {
	IO_DONE = 0,
	IO_MORE,   /* nothing now */
	IO_ENDED,  /* the peer's half is over, cleanly */
	IO_CUT,    /* TLS: FIN without close_notify */
	IO_FAILED, /* conn_fail was called */
};

/* Plain or TLS. */
struct transport {
	/* Up to size octets of plaintext; receives from the network at most once a round. */
	enum io_rc (*read)(struct conn *c, uint8_t *out, size_t size, size_t *got);
	/* After the last read of a round: nothing may stay in the loop's scratch memory. */
	void (*read_done)(struct conn *c);
	/* What to send next; empty when nothing waits. IO_DONE or IO_FAILED. */
	enum io_rc (*next)(struct conn *c, struct slice *out);
	void (*sent)(struct conn *c, size_t n);
	/* Queues the farewell of the sending half. */
	void (*end)(struct conn *c);
};

struct conn {
	struct loop *loop;
	struct conn_config config;
	const struct conn_events *events;
	void *arg;
	const struct transport *transport;
	struct tls_stream *tls;      /* from the start of the handshake on */
	struct tls_stream *tls_next; /* asked for, not begun */
	struct loop_fd watch;
	struct loop_timer deadline; /* of connecting, the handshake, lingering */
	struct loop_timer stall;
	struct loop_defer flush, process;
	struct loop_guest guest; /* while lingering */
	struct buffer in;        /* untaken plaintext */
	struct buffer raw;       /* ciphertext received, not yet decrypted: reading stopped */
	struct buffer out;       /* plaintext written */
	size_t out_at, wire_at;  /* what was sent of out, of tls->wire */
	size_t plain_left;       /* of out, what precedes tls_next */
	struct net_address peer;
	struct net_address *addresses; /* still to be tried, while connecting */
	size_t address_count, address_next;
	int64_t last_sent_ms, linger_ms;
	int fd, depth;
	int connect_error; /* errno of the last attempt, or -1 */
	enum conn_state state;
	bool public_only;
	bool paused;
	bool may_receive; /* this round hasn't received yet */
	bool eof;         /* nothing more comes; told */
	bool blocked;     /* the kernel's send buffer is full */
	bool broken;      /* sending failed; what the peer said before is still read */
	bool tell_drained;
	bool interrupted; /* the last round ended though there may be more to read */
	bool offer;       /* untaken input shall be offered again */
	bool shut_wanted, end_queued, shut_done;
	bool lingering;
	bool gone; /* conn_close was called within a callback */
	char broken_text[80];
};

extern const struct transport conn_plain, conn_tls;

/*
 * Around everything that may call the owner: the memory stays until the
 * outermost conn_leave.
 */
void conn_enter(struct conn *c);
void conn_leave(struct conn *c);

static inline bool
conn_is_dead(const struct conn *c)
{
	return c->gone || c->state == CONN_DEAD;
}

/* Lets go of everything but the memory, then tells the owner. */
void conn_fail(struct conn *c, enum conn_end end, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The owner's callback for a connection established. */
void conn_connected(struct conn *c);

/* Reads and delivers until nothing is there or somebody says stop. */
void conn_process(struct conn *c);

/* Sends what waits. */
void conn_flush(struct conn *c);

/* Watches the descriptor for what is of use now. */
void conn_update_watch(struct conn *c);

/* Octets that wait in out. */
static inline struct slice
conn_waiting(const struct conn *c)
{
	return slice_mem(c->out.data == NULL ? NULL : c->out.data + c->out_at,
	                 c->out.len - c->out_at);
}

#endif
