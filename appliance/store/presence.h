/*
 * Presence: which members watch now, who is to be told, and what other servers
 * told of contacts. All of it is true for minutes only and kept in unlogged
 * tables; nobody's is kept who doesn't show it to a contact.
 */
#ifndef TMTP_STORE_PRESENCE_H
#define TMTP_STORE_PRESENCE_H

#include "base/id.h"
#include "store/store.h"

enum presence_state { PRESENCE_OFFLINE, PRESENCE_ONLINE, PRESENCE_AWAY };

/* "offline", "online", "away". */
const char *presence_state_name(enum presence_state state);

/* What one process sees of its members. */
struct presence_seen {
	int64_t account_id;
	bool online;
	bool anew; /* tell all contacts, whether it changed or not */
};

/*
 * Takes note for a while, and queues what contacts' servers are to be told: a
 * change, or what was told minutes ago. Members who show their presence to
 * nobody are passed over.
 */
struct presence_note {
	struct store_job job;
	struct uuid process;
	int64_t now_us, until_us;
	struct presence_seen *seen; /* each account once; borrowed until done */
	size_t seen_n;
};

void store_presence_note(struct store *store, struct presence_note *note);

/* What a process that is gone had seen is over: its members are offline, unless another sees them. */
struct presence_sweep {
	struct store_job job;
	int64_t now_us;
	int64_t swept; /* out */
};

void store_presence_sweep(struct store *store, struct presence_sweep *sweep);

/* The member's own word, while she is online; and how she stands. */
struct presence_own {
	struct store_job job;
	int64_t account_id, now_us;
	enum { PRESENCE_LOOK, PRESENCE_SAY_AWAY, PRESENCE_SAY_BACK } what;
	enum presence_state state; /* out: offline also when she shows it to nobody */
};

void store_presence_own(struct store *store, struct presence_own *own);

/* What another server says of a person of its own. */
struct presence_arrival {
	struct store_job job;
	struct slice from; /* her address; borrowed until done, as are the grants */
	enum presence_state state;
	int64_t since_us, until_us; /* until -1: offline */
	int64_t now_us;
	const uint8_t (*grants)[20];
	size_t grants_n;
	int64_t *accounts; /* out: to whom it is news; freed by presence_arrival_clear */
	size_t accounts_n;
};

void store_presence_arrival(struct store *store, struct presence_arrival *arrival);
void presence_arrival_clear(struct presence_arrival *arrival);

/* --- For the relay ------------------------------------------------------------ */

struct presence_out {
	int64_t account_id, domain_id;
	char *address, *domain;
	enum presence_state state;
	int64_t since_us, changed_us;
	uint8_t (*grants)[20];
	size_t grants_n;
};

/* Claims what waits for domains that are not to be skipped. Who has GRANTs waiting for that domain waits behind them. */
struct presence_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	const int64_t *skip; /* borrowed until done */
	size_t skip_n;
	unsigned limit;
	struct presence_out *rows; /* out; freed by presence_claim_clear */
	size_t rows_n;
};

void store_presence_claim(struct store *store, struct presence_claim *claim);
void presence_out_clear(struct presence_out *out);
void presence_claim_clear(struct presence_claim *claim);

/* Told (gone unless it changed meanwhile), or to be tried again. */
struct presence_finish {
	struct store_job job;
	int64_t account_id, domain_id, changed_us;
	bool told;
	int64_t not_before_us; /* when not told */
};

void store_presence_finish(struct store *store, struct presence_finish *finish);

#endif
