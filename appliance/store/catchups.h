/*
 * How far a site has asked a home domain what its members said (CHANNELS
 * since): a cursor for each (site, domain) that the site ever sent to, and
 * when it is asked next.
 */
#ifndef TMTP_STORE_CATCHUPS_H
#define TMTP_STORE_CATCHUPS_H

#include "dmtp/limits.h"
#include "store/store.h"

/* From now on the domain is asked for the site, first at next_us; nothing changes when it is already. */
struct catchup_note {
	struct store_job job;
	int64_t site_id, domain_id, next_us;
};

void store_catchup_note(struct store *store, struct catchup_note *note);

/* A domain could not be reached for a while, nor perhaps reach us: all its sites' questions are due. */
struct catchup_due {
	struct store_job job;
	int64_t domain_id, now_us;
};

void store_catchup_due(struct store *store, struct catchup_due *due);

/* An administrator wants it now. STORE_NOT_FOUND: nobody here ever sent there. */
struct catchup_ask {
	struct store_job job;
	const char *actor, *domain;
	bool from_start; /* forget the cursor: everything is told again */
	int64_t now_us;
	int64_t sites; /* out: how many ask */
};

void store_catchup_ask(struct store *store, struct catchup_ask *ask);

struct catchup_out {
	int64_t site_id, domain_id;
	char site_name[65], site_domain[254], domain[254];
	char cursor[DMTP_CURSOR_MAX + 1];
	int attempts; /* this one included */
};

/* Claims questions that are due, of peers that may be sent to, under a lease. */
struct catchup_claim {
	struct store_job job;
	int64_t now_us, lease_until_us;
	unsigned limit;
	struct catchup_out *rows; /* out; freed by catchup_claim_clear */
	size_t rows_n;
};

void store_catchup_claim(struct store *store, struct catchup_claim *claim);
void catchup_claim_clear(struct catchup_claim *claim);

/*
 * What became of it. CATCHUP_GOES_ON keeps the lease, to lease_until_us. The
 * cursor is only ever moved by who holds the lease: STORE_NOT_FOUND is told
 * to others.
 */
enum catchup_end { CATCHUP_GOES_ON, CATCHUP_DONE, CATCHUP_FAILED };

struct catchup_finish {
	struct store_job job;
	int64_t site_id, domain_id;
	enum catchup_end end;
	const char *cursor;     /* to go on from; NULL: as it is. Borrowed until done */
	int64_t next_us;        /* DONE, FAILED */
	int64_t lease_until_us; /* GOES_ON */
	int64_t now_us;
	int64_t changed;    /* what was learnt since it was last told */
	const char *reason; /* FAILED: borrowed until done */
};

void store_catchup_finish(struct store *store, struct catchup_finish *finish);

/* For administrators. */
struct catchup_row {
	char *site, *domain;
	int64_t asked_us, next_us; /* asked -1: never to the end */
	int64_t changed;
	char *reason; /* or NULL */
};

struct catchup_list {
	struct store_job job;
	const char *domain; /* only this one, or NULL */
	unsigned limit;
	struct catchup_row *rows; /* out; freed by catchup_list_clear */
	size_t rows_n;
};

void store_catchup_list(struct store *store, struct catchup_list *list);
void catchup_list_clear(struct catchup_list *list);

#endif
