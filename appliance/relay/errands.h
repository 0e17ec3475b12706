/*
 * Commands to other domains besides the messages' queue: rows that wait in the
 * store are claimed, go out as one command each, and their end is written down.
 * What a kind of them is made of stands in grants.c and receipts.c; how they
 * are looked for, wait in a session's lane, are answered and put off, here.
 */
#ifndef TMTP_RELAY_ERRANDS_H
#define TMTP_RELAY_ERRANDS_H

#include "relay/relay.h"
#include "relay/session.h"

struct errand;
struct errands;

/* What the store is asked for. */
struct errands_claim {
	int64_t now_us, lease_until_us;
	const int64_t
	    *skip; /* domains that are not to be sent to now; borrowed until it ended */
	size_t skip_n;
	unsigned limit;
};

struct errands_kind {
	const char *name; /* "grant": its log lines are grant-refused, grant-impossible */
	enum dmtp_verb verb;
	unsigned ext;       /* DMTP_EXT_…, without which a peer doesn't know the verb */
	bool needless;      /* a peer that doesn't know it needn't be told, ever */
	int64_t every_ms;   /* it is looked for again */
	unsigned claim_max; /* rows claimed at once */
	size_t size;        /* of what embeds struct errands */
	/* Prepares the job that claims; submit_claim hands it to the store. */
	struct store_job *(*claim)(struct errands *errands, const struct errands_claim *claim);
	void (*submit_claim)(struct store *store, struct store_job *job);
	/* The claim ended: begins an errand for what goes together; frees the rest. Rows claimed. */
	size_t (*begin)(struct errands *errands);
	void (*encode)(const struct errand *errand, struct buffer *out);
	/* Prepares the job that writes the end down. */
	struct store_job *(*finish)(struct errand *errand, bool sent, int64_t not_before_us);
	void (*submit_finish)(struct store *store, struct store_job *job);
	void (*answered)(const struct errand *errand); /* with K; may be NULL */
	void (*free)(struct errand *errand);           /* with all that it owns */
};

/* Embedded first in the kind's own. */
struct errands {
	const struct errands_kind *kind;
	struct relay *relay;
	struct loop_timer look;
	struct relay_later later;
	int64_t *skip;
	bool looking, again;
	unsigned under_way;
};

/* One of them; embedded first in the kind's own. */
struct errand {
	struct source source; /* first */
	struct command command;
	struct errands *errands;
	struct peer *peer;
	const char *own; /* our domain for which it goes; borrowed */
	struct relay_later later;
};

/* Of kind->size octets, zeroed behind struct errands. NULL: no memory. */
struct errands *errands_new(struct relay *relay, const struct errands_kind *kind);
void errands_free(struct errands *errands); /* NULL is fine */

/* There may be some to send. */
void errands_wake(struct errands *errands);

/*
 * Takes a zeroed errand whose kind's part is filled and sends it to domain for
 * the member account ("ann@home.test"; both borrowed until it is freed). NULL
 * for either: memory was short, it comes again. Of one stream they go in order.
 */
void errand_begin(struct errand *errand, struct errands *errands, int64_t domain_id,
                  const char *domain, const char *account, int lane, int64_t stream,
                  struct uuid order);

/* The same for what needs no sending: it is written down as done. */
void errand_void(struct errand *errand, struct errands *errands);

#endif
