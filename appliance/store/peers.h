/*
 * Peers: the retry state of a domain, shared by all workers, and the GRANTs
 * that wait for it.
 */
#ifndef TMTP_STORE_PEERS_H
#define TMTP_STORE_PEERS_H

#include "base/id.h"
#include "store/store.h"

struct peer_state {
	int64_t domain_id;
	int failures;             /* in a row; 0: well */
	int64_t failing_since_us; /* -1: well */
	int64_t retry_at_us;      /* -1: now */
	int window_commands;      /* 0: the peer's own limit */
	bool held;                /* by an administrator: nothing is sent */
	char *reason;             /* of the last failure, in the peer's words; or NULL */
};

/* Peers that are down, waiting, held or narrowed; all others are well. */
struct peer_load {
	struct store_job job;
	struct peer_state *rows; /* out; freed by peer_load_clear */
	size_t rows_n;
};

void store_peer_load(struct store *store, struct peer_load *load);
void peer_load_clear(struct peer_load *load);

/* Writes the state down (everything but held); a probe that was under way is over. */
struct peer_save {
	struct store_job job;
	struct peer_state state; /* reason is borrowed until done */
	int64_t sent_us;         /* the last success, -1: none now */
};

void store_peer_save(struct store *store, struct peer_save *save);

/*
 * Of several workers one probes a peer that is down, and for until_us it is
 * the one that asked, unless another does, the peer is held, or its next try
 * is later by now. Not ours: what the store knows of it, to go by.
 */
struct peer_probe {
	struct store_job job;
	int64_t domain_id, now_us, until_us;
	/* out */
	bool ours;
	bool known;              /* there is a row: state is filled */
	struct peer_state state; /* its reason is the caller's */
};

void store_peer_probe(struct store *store, struct peer_probe *probe);

/* For administrators: peers with their names and what waits for them. */
struct peer_row {
	char *domain;
	struct peer_state state;
	int64_t sent_us;
};

struct peer_list {
	struct store_job job;
	const char *domain;    /* only this one, or NULL */
	struct peer_row *rows; /* out; freed by peer_list_clear */
	size_t rows_n;
};

/* "held", "failing", "waiting" (until it asked for) or "well". */
const char *peer_state_name(const struct peer_state *state, int64_t now_us);

void store_peer_list(struct store *store, struct peer_list *list);
void peer_list_clear(struct peer_list *list);

struct peer_hold {
	struct store_job job;
	const char *actor, *domain;
	bool held; /* false: also forgets the backoff, so that it is tried at once */
	int64_t now_us;
};

/* STORE_NOT_FOUND: no such domain. */
void store_peer_hold(struct store *store, struct peer_hold *hold);

/* --- GRANTs that wait ----------------------------------------------------- */

struct grant_out {
	int64_t account_id, sender_id, domain_id;
	char *account; /* address */
	char *sender;  /* address */
	char *channel;
	int state; /* enum consent_state: 1 granted, 2 refused, 3 revoked */
	bool has_grant, receipts, presence;
	uint8_t grant[20];
	int64_t date_s;
	struct uuid changed_id;
	int attempts;
	char *domain; /* of the sender: where it goes */
};

/* Claims GRANTs whose lease is free, oldest first, at most limit. */
struct grant_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	const int64_t *skip; /* domains that are not to be claimed now; borrowed until done */
	size_t skip_n;
	unsigned limit;
	struct grant_out *rows; /* out; freed by grant_claim_clear */
	size_t rows_n;
};

void store_grant_claim(struct store *store, struct grant_claim *claim);
void grant_claim_clear(struct grant_claim *claim);

/* Acknowledged (gone unless it changed meanwhile) or given back. */
struct grant_finish {
	struct store_job job;
	int64_t account_id, sender_id;
	const char *channel; /* borrowed until done */
	struct uuid changed_id;
	bool sent;
	int64_t not_before_us; /* when not sent */
};

void store_grant_finish(struct store *store, struct grant_finish *finish);

#endif
