/*
 * One other domain: its sessions, and its backoff. Retry state belongs to the
 * peer, so a dead domain costs one probe and not one attempt a recipient, and
 * it is shared through the store, so that of several workers one probes. Only
 * a success clears it: K, or an E that speaks of a notification or recipient.
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
	bool asked;               /* retry_at is the peer's own wish */
	bool probe_ours;          /* the store gave us the next probe */
	bool probe_asking;        /* and is being asked for it */
	struct loop_timer retry;  /* runs while the peer is down */
	struct session *sessions; /* a list */
	unsigned sessions_n;
	bool crowded;  /* one of our domains found no room for a session */
	unsigned busy; /* claims and what they brought, that may still reach it */
	unsigned refs; /* who keeps a pointer to it */
	bool saving, save_again;
	bool wants_auth;     /* it didn't take our certificate: new sessions begin with AUTH */
	int64_t answered_us; /* the last answer, wall time; below 0: none yet */
	int64_t
	    sent_saved_ms; /* when it was last written down that something was sent; 0: never */
	struct peer_save save;
	struct relay_later later;
	struct peer_probe probe;
	struct relay_later probe_later;
	UT_hash_handle hh;
};

/*
 * The peer of a domain; made when new. NULL: no memory. Good until control
 * goes back to the loop; who keeps it longer takes a reference.
 */
struct peer *peer_get(struct relay *relay, int64_t domain_id, const char *domain);
struct peer *peer_ref(struct peer *peer);
/* Sets *peer to NULL. A well peer that nobody needs is forgotten. */
void peer_unref(struct peer **peer);

/* The wall clock was set back by so much: what is waited for comes by so much earlier. */
void peer_clock_back(struct relay *relay, int64_t back_us);

/* Loads what is known of peers that are not well; then calls fn. At start-up and when an administrator changed something. */
void peer_load_all(struct relay *relay, void (*fn)(struct relay *relay, bool loaded));

void peer_free_all(struct relay *relay);

/* Nothing keeps it from being sent to now: not held, not waiting for its next try, not another worker's to probe. */
bool peer_is_open(const struct peer *peer);

/* It failed, or asked for a pause, and has not answered since: one probe, not the queue. */
bool peer_is_probing(const struct peer *peer);

/* Open, and when it is being probed: nothing else is under way to it. */
bool peer_has_room(const struct peer *peer);

/* What is claimed for it, from the claim until its end. */
void peer_busy(struct peer *peer);
void peer_idle(struct peer *peer);

/* It asked for a pause that isn't over: its sessions send nothing new. */
bool peer_is_paused(const struct peer *peer);

/*
 * A try failed (reason: in the peer's own words where there are any). While
 * the peer waits for its next try because of one already, it counts no more:
 * many lost commands or sessions at once are one failure.
 */
void peer_failed(struct peer *peer, const char *reason);

/* The same, of a try in which DNS said that the domain takes no DMTP: final when it stays so. */
void peer_refused(struct peer *peer, const char *reason);

/* DNS leads somewhere: what it said before counts no more. */
void peer_found(struct peer *peer);

/* Z, or I or X with a time: the peer's own wish, and no failure of it. */
void peer_wait(struct peer *peer, const char *reason, uint32_t retry_s);

/* A command was answered with K, or with E that doesn't speak of the session. */
void peer_answered(struct peer *peer);

/* A session was lost with commands unanswered: half the window, down to one command. Grows again with answers. */
void peer_narrow(struct peer *peer, unsigned unanswered);

/*
 * The session for what a domain of ours sends: reused, or begun. hint spreads
 * over sessions and keeps what shares it on one. NULL: not now.
 */
struct session *peer_session(struct peer *peer, const char *own, int64_t hint);

/* Told by sessions that have done what there was. */
void peer_session_idle(struct peer *peer, struct session *session);

/* Told by sessions that ended. */
void peer_forget_session(struct peer *peer, struct session *session);

#endif
