/*
 * One other domain: its sessions, and its backoff. Retry state belongs to the
 * peer, so a dead domain costs one probe and not one attempt a recipient; only
 * an answered command clears it.
 */
#ifndef TMTP_RELAY_PEER_H
#define TMTP_RELAY_PEER_H

#include "relay/relay.h"
#include "store/peers.h"

#include "base/hash.h"

struct session;

struct peer {
	struct relay *relay;
	int64_t domain_id;
	char domain[RESOLVE_NAME];
	struct peer_state state;  /* reason is owned */
	struct loop_timer retry;  /* runs while the peer is down */
	struct session *sessions; /* a list */
	unsigned sessions_n;
	bool saving, save_again;
	int64_t
	    sent_saved_ms; /* when it was last written down that something was sent; 0: never */
	struct peer_save save;
	struct relay_later later;
	UT_hash_handle hh;
};

/* The peer of a domain; made when new. NULL: no memory. */
struct peer *peer_get(struct relay *relay, int64_t domain_id, const char *domain);

/* Loads what is known of peers that are not well; then calls fn. At start-up and when an administrator changed something. */
void peer_load_all(struct relay *relay, void (*fn)(struct relay *relay));

void peer_free_all(struct relay *relay);

/* Nothing keeps it from being sent to now: not held, not waiting for its next try. */
bool peer_is_open(const struct peer *peer);

/* It failed before and has not answered since: one probe, not the queue. */
bool peer_is_probing(const struct peer *peer);

/*
 * A try failed (reason: in the peer's own words where there are any). retry_s
 * above 0 is the peer's own wish and no failure of it.
 */
void peer_failed(struct peer *peer, const char *reason, uint32_t retry_s);

/* A command was answered with K or with a recipient's code. */
void peer_answered(struct peer *peer);

/* A session was lost with commands unanswered: half the window, down to one command. Grows again with answers. */
void peer_narrow(struct peer *peer, unsigned unanswered);

/*
 * The session for what a domain of ours sends: reused, or begun. hint spreads
 * over sessions and keeps what shares it on one. NULL: not now.
 */
struct session *peer_session(struct peer *peer, const char *own, int64_t hint);

/* Told by sessions that ended. */
void peer_forget_session(struct peer *peer, struct session *session);

#endif
