/*
 * The audit log: who changed what, newest first. Changes write their own rows
 * in their own transactions; only what isn't a change of rows adds one here.
 */
#ifndef TMTP_STORE_AUDIT_H
#define TMTP_STORE_AUDIT_H

#include "base/id.h"
#include "store/store.h"

struct audit_row {
	struct uuid audit_id;
	int64_t at_us;
	char *actor, *action, *subject;
	char *detail; /* or NULL */
};

struct audit_list {
	struct store_job job;
	int64_t since_us;   /* not older; 0: all */
	struct uuid before; /* older than this one; all zero: from the newest */
	unsigned limit;
	struct audit_row *rows; /* out; freed by audit_list_clear */
	size_t rows_n;
};

void store_audit_list(struct store *store, struct audit_list *list);
void audit_list_clear(struct audit_list *list);

/* Something was done that no other statement tells of. */
struct audit_add {
	struct store_job job;
	const char *actor, *action, *subject; /* borrowed until done, as is detail */
	const char *detail;                   /* or NULL */
	struct uuid audit_id;                 /* of uuid_make */
	int64_t now_us;
};

void store_audit_add(struct store *store, struct audit_add *add);

#endif
