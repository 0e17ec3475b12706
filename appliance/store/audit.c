/* The audit log: see audit.h. Its key is a UUIDv7, so time is a range of it. */
#include "store/audit.h"

#include "store/rows.h"

#include <stdlib.h>

static const struct uuid zero;

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct audit_list *list = (const struct audit_list *)jobs[0];
	struct uuid from = uuid_floor(list->since_us), before = list->before;

	(void)n;
	if (memcmp(&before, &zero, sizeof(zero)) == 0)
		memset(&before, 0xff, sizeof(before));
	args_uuid(a, 0, &from);
	args_uuid(a, 1, &before);
	args_i64(a, 2, list->limit);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct audit_list *list = (struct audit_list *)jobs[0];

	(void)n;
	audit_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct audit_row *a = &list->rows[list->rows_n++];

		a->audit_id = row_uuid(r, row, 0);
		a->at_us = row_time(r, row, 1);
		a->actor = row_text(r, row, 2);
		a->action = row_text(r, row, 3);
		a->subject = row_text(r, row, 4);
		a->detail = row_text(r, row, 5);
	}
}

static const struct store_op list_get = {
	.name = "audit_list",
	.sql = "SELECT audit_id, at, actor, action, subject, detail FROM tmtp.audit "
	       "WHERE audit_id >= $1 AND audit_id < $2 ORDER BY audit_id DESC LIMIT $3",
	.types = (const Oid[]){ T_UUID, T_UUID, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_audit_list(struct store *store, struct audit_list *list)
{
	list->job.op = &list_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

void
audit_list_clear(struct audit_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].actor);
		free(list->rows[i].action);
		free(list->rows[i].subject);
		free(list->rows[i].detail);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
bind_add(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct audit_add *add = (const struct audit_add *)jobs[0];

	(void)n;
	args_uuid(a, 0, &add->audit_id);
	args_time(a, 1, add->now_us);
	args_text(a, 2, add->actor);
	args_text(a, 3, add->action);
	args_text(a, 4, add->subject);
	if (add->detail != NULL)
		args_text(a, 5, add->detail);
	else
		args_null(a, 5);
}

static const struct store_op add_run = {
	.name = "audit_add",
	.sql = "INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) "
	       "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
	.types = (const Oid[]){ T_UUID, T_TIMESTAMPTZ, T_TEXT, T_TEXT, T_TEXT, T_TEXT, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_add,
};

void
store_audit_add(struct store *store, struct audit_add *add)
{
	add->job.op = &add_run;
	store_submit(store, &add->job);
}
