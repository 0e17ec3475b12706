/*
 * Accepts connections for somebody else: counts them, in total and by address,
 * refuses what is above the limits, and pauses when descriptors run out.
 */
#ifndef TMTP_NET_LISTENER_H
#define TMTP_NET_LISTENER_H

#include "net/address.h"
#include "net/loop.h"

struct listener;

/*
 * A connection's place in the counts; given back by conn (conn_config.seat) or
 * listener_leave.
 */
struct listener_seat;

enum listener_refusal {
	LISTENER_FULL = 1,     /* max_total reached */
	LISTENER_ADDRESS_FULL, /* max_per_address reached */
};

struct listener_config {
	/*
	 * net_address_parse's form; "*:port" serves both families. Or "unix:/path":
	 * the file is made (in place of one that nobody listens on), open to who
	 * reaches its directory, and removed in the end.
	 */
	const char *bind;
	size_t max_total;       /* 0: 10,000 */
	size_t max_per_address; /* an IPv4 address or an IPv6 /64; 0: no limit */
	int backlog;            /* 0: 1024 */
	/* Takes fd (non-blocking, close-on-exec) and seat. */
	void (*accepted)(void *arg, int fd, const struct net_address *peer,
	                 struct listener_seat *seat);
	/*
	 * Takes fd and seat of a connection above the limits, to say why and close.
	 * At most 64 such at a time; beyond, or without this, they are closed unseen.
	 */
	void (*refused)(void *arg, int fd, const struct net_address *peer,
	                struct listener_seat *seat, enum listener_refusal why);
	void *arg;
};

struct listener_counts {
	size_t now;        /* seats taken, without those refused */
	uint64_t accepted; /* since the start */
	uint64_t refused;
	bool paused; /* by listener_pause or because descriptors ran out */
};

/* Binds and listens; config is copied. NULL: why says what failed. */
struct listener *listener_new(struct loop *loop, const struct listener_config *config,
                              char why[static NET_TEXT]);

/*
 * Stops accepting and frees; seats still taken stay valid until they are given back. Allowed in
 * its callbacks.
 */
void listener_free(struct listener **listener);

/* What it is bound to: the port is never 0. */
void listener_address(const struct listener *listener, struct net_address *out);

/* Connections wait in the kernel's backlog until resumed. */
void listener_pause(struct listener *listener);
void listener_resume(struct listener *listener);

struct listener_counts listener_counts(const struct listener *listener);

/* Gives a seat back and sets *seat to NULL; NULL is harmless. */
void listener_leave(struct listener_seat **seat);

#endif
