/*
 * Taking a message back: at its origin, and at a home server that has it or
 * may get it yet.
 */
#ifndef TMTP_STORE_RECALLS_H
#define TMTP_STORE_RECALLS_H

#include "base/id.h"
#include "store/arrivals.h"

/*
 * Recalls a site's message: its body is given to nobody any more, batches that
 * certainly never left are dropped, and for all others the same are made for
 * the recall, which is a row of its own in the urgent lane. Recalling twice
 * changes nothing. STORE_NOT_FOUND: no such message of this site.
 */
struct message_recall {
	struct store_job job;
	int64_t site_id;
	struct uuid message_id;
	struct uuid recall_id; /* fresh, for the recall */
	int64_t now_us;
	const char *actor; /* an administrator: audited, and told to all processes; else NULL */
	const char *subject; /* with actor: what the audit log names */
	bool changed;        /* out: it wasn't recalled before */
};

void store_message_recall(struct store *store, struct message_recall *recall);

/*
 * A POST with `recall`. It costs the same whether or not the message is here
 * and the grants are open. Of a message that isn't here a withdrawn entry is
 * kept for each recipient: it wins when the message comes.
 */
struct arrival_recall {
	struct store_job job;
	/* borrowed until done */
	struct slice from, id, recall, digest;
	int64_t size, date_s;
	int64_t now_us;
	struct uuid fresh_id;       /* for a notification that isn't here */
	struct arrival_rcpt *rcpts; /* vars don't matter */
	size_t rcpts_n;
	int slot;
	/* out */
	enum arrival_outcome outcome;
	struct uuid notification_id;
	int64_t *accounts; /* whose entry was withdrawn now; freed by arrival_recall_clear */
	size_t accounts_n;
};

void store_arrival_recall(struct store *store, struct arrival_recall *recall);
void arrival_recall_clear(struct arrival_recall *recall);

#endif
