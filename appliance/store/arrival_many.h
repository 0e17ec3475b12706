/* What the statements for a POST to several recipients share: for the files of this room only. */
#ifndef TMTP_STORE_ARRIVAL_MANY_H
#define TMTP_STORE_ARRIVAL_MANY_H

#include "store/arrivals.h"
#include "store/op.h"

/*
 * The channel that a notification is of. An invitation is of none that is granted ("invite" is
 * no channel's name), so that nobody who is posted the same octets gets it as an entry.
 */
#define CHANNEL_OF(nid)                                                           \
	"(SELECT CASE WHEN o.recipient IS NULL THEN o.channel ELSE 'invite' END " \
	"FROM tmtp.notification o WHERE o.notification_id = " nid ")"

/* Parameters $1 to $18 of one arrival, in the order of arrival_many's types. */
#define ARRIVAL_MANY_TYPES                                                                     \
	T_TEXT, T_TEXT, T_BYTEA, T_INT8, T_INT8, T_TIMESTAMPTZ, T_TEXT, T_TEXT, T_BYTEA,       \
	    T_UUID, T_INT4S, T_BYTEAS, T_BYTEAS, T_TIMESTAMPTZ, T_TIMESTAMPTZ, T_INT4, T_INT8, \
	    T_BOOL
#define ARRIVAL_MANY_N 18

void arrival_bind_many(struct args *a, struct store_job *const *jobs, size_t n);

/*
 * One row: conflict, notification, whether it is new, its state, channel, the
 * indices that are closed, the accounts with a new entry (when wanted), nothing,
 * how many entries are new, whether what replaces it came before it.
 */
void arrival_rows_many(const PGresult *r, struct store_job *const *jobs, size_t n);

/* For a POST with replaces, and for one that is awaited (arrival_replaces.c). */
extern const struct store_op *const arrival_replacing;

#endif
