/* Tokens of administrators: see admins.h. */
#include "store/admins.h"

#include "store/rows.h"

/* --- Looking one up ---------------------------------------------------------- */

static void
bind_get(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct admin_token_get *get = (const struct admin_token_get *)jobs[0];

	(void)n;
	args_slice(a, 0, slice_mem(get->hash, sizeof(get->hash)));
	args_time(a, 1, get->now_us);
}

static void
rows_get(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct admin_token_get *get = (struct admin_token_get *)jobs[0];

	(void)n;
	get->job.rc = STORE_NOT_FOUND;
	if (PQntuples(r) != 1)
		return;
	row_copy(get->name, sizeof(get->name), r, 0, 0);
	row_copy(get->scopes, sizeof(get->scopes), r, 0, 1);
	get->job.rc = STORE_OK;
}

static const struct store_op token_get = {
	.name = "admin_token_get",
	.sql = "SELECT name, array_to_string(scopes, ' ') FROM tmtp.admin_token "
	       "WHERE token_hash = $1 AND revoked_at IS NULL "
	       "AND (expires_at IS NULL OR expires_at > $2)",
	.types = (const Oid[]){ T_BYTEA, T_TIMESTAMPTZ, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_get,
	.rows = rows_get,
};

void
store_admin_token_get(struct store *store, struct admin_token_get *get)
{
	get->job.op = &token_get;
	store_submit(store, &get->job);
}

/* --- Listing ------------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)a;
	(void)jobs;
	(void)n;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct admin_token_list *list = (struct admin_token_list *)jobs[0];

	(void)n;
	admin_token_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct admin_token_row *t = &list->rows[list->rows_n++];

		row_copy(t->name, sizeof(t->name), r, row, 0);
		row_copy(t->scopes, sizeof(t->scopes), r, row, 1);
		t->created_us = row_time(r, row, 2);
		t->expires_us = row_time(r, row, 3);
		t->revoked_us = row_time(r, row, 4);
	}
}

static const struct store_op list_get = {
	.name = "admin_token_list",
	.sql = "SELECT name, array_to_string(scopes, ' '), created_at, expires_at, revoked_at "
	       "FROM tmtp.admin_token ORDER BY created_at, name",
	.types = (const Oid[]){ 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_admin_token_list(struct store *store, struct admin_token_list *list)
{
	list->job.op = &list_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

void
admin_token_list_clear(struct admin_token_list *list)
{
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

/* --- Changing ------------------------------------------------------------------- */

/* $1 name, $2 now, $3 the audit row's id, $4 actor. */
static void
bind_common(struct args *a, const struct admin_token_change *c)
{
	struct uuid id = uuid_make();

	args_text(a, 0, c->name);
	args_time(a, 1, c->now_us);
	args_uuid(a, 2, &id);
	args_text(a, 3, c->by.actor);
}

static void
bind_add(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct admin_token_change *c = (const struct admin_token_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_slice(a, 4, slice_mem(c->hash, sizeof(c->hash)));
	args_text(a, 5, c->scopes);
	if (c->expires_us >= 0)
		args_time(a, 6, c->expires_us);
}

static void
bind_revoke(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	bind_common(a, (const struct admin_token_change *)jobs[0]);
}

static const struct store_op changes[] = {
	[ADMIN_TOKEN_ADD] = {
	    .name = "admin_token_add",
	    .sql = "WITH changed AS (INSERT INTO tmtp.admin_token "
		   " (token_hash, name, scopes, created_at, expires_at) "
		   " VALUES ($5, $1, string_to_array($6, ' '), $2, $7) ON CONFLICT DO NOTHING RETURNING name), "
		   "told AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) "
		   " SELECT $3, $2, $4, 'admin-token-add', name, $6 FROM changed) "
		   "SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN 0 ELSE 2 END",
	    .types = (const Oid[]){ T_TEXT, T_TIMESTAMPTZ, T_UUID, T_TEXT, T_BYTEA, T_TEXT,
	                            T_TIMESTAMPTZ, 0 },
	    .bind = bind_add,
	    .rows = rows_verdict,
	},
	[ADMIN_TOKEN_REVOKE] = {
	    .name = "admin_token_revoke",
	    .sql = "WITH there AS MATERIALIZED (SELECT name FROM tmtp.admin_token WHERE name = $1), "
		   "changed AS (UPDATE tmtp.admin_token SET revoked_at = $2 "
		   " WHERE name = $1 AND revoked_at IS NULL RETURNING name), "
		   "told AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject) "
		   " SELECT $3, $2, $4, 'admin-token-revoke', name FROM changed) "
		   "SELECT CASE WHEN EXISTS (SELECT FROM there) THEN 0 ELSE 1 END",
	    .types = (const Oid[]){ T_TEXT, T_TIMESTAMPTZ, T_UUID, T_TEXT, 0 },
	    .bind = bind_revoke,
	    .rows = rows_verdict,
	},
};

void
store_admin_token_change(struct store *store, struct admin_token_change *change)
{
	change->job.op = &changes[change->kind];
	store_submit(store, &change->job);
}
