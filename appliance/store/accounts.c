/* Accounts and log-ins: see accounts.h. */
#include "store/accounts.h"

#include "store/mails.h"
#include "store/rows.h"

#include <sodium.h>

/* --- For logging in ------------------------------------------------------ */

static void
bind_get(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct account_get *get = (const struct account_get *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_slice(a, 1, get->domain);
		args_slice(a, 2, get->name);
	}
}

static void
rows_get(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct account_get *get = (struct account_get *)jobs[i];

		sodium_memzero(get->password_hash, sizeof(get->password_hash));
		get->job.rc = STORE_NOT_FOUND;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct account_get *get = (struct account_get *)jobs[row_i32(r, row, 0)];

		get->account_id = row_i64(r, row, 1);
		row_copy(get->password_hash, sizeof(get->password_hash), r, row, 2);
		get->job.rc = STORE_OK;
	}
}

static const struct store_op get_op = {
	.name = "account_get",
	.sql = "SELECT i.ord, a.account_id, a.password_hash "
	       "FROM unnest($1::int4[], $2::text[], $3::text[]) AS i(ord, domain, name) "
	       "JOIN tmtp.account a ON a.domain = i.domain AND a.name = i.name AND "
	       "a.disabled_at IS NULL",
	.types = (const Oid[]){ T_INT4S, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.batch_max = 64,
	.repeatable = true,
	.bind = bind_get,
	.rows = rows_get,
};

void
store_account_get(struct store *store, struct account_get *get)
{
	get->job.op = &get_op;
	get->password_hash[0] = '\0';
	store_submit(store, &get->job);
}

/* --- Tokens of log-ins --------------------------------------------------- */

static void
bind_token_add(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct account_token_add *add = (const struct account_token_add *)jobs[0];

	(void)n;
	args_i64(a, 0, add->account_id);
	args_slice(a, 1, slice_mem(add->hash, sizeof(add->hash)));
	args_time(a, 2, add->now_us);
	args_time(a, 3, add->expires_us);
}

/* One row when it is there now. */
static void
rows_any(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) > 0 ? STORE_OK : STORE_NOT_FOUND;
}

/* A log-in takes the account's expired ones away. */
static const struct store_op token_add = {
	.name = "account_token_add",
	.sql = "WITH old AS (DELETE FROM tmtp.account_token WHERE account_id = $1 AND "
	       "expires_at <= $3), "
	       "here AS MATERIALIZED (SELECT account_id FROM tmtp.account "
	       " WHERE account_id = $1 AND disabled_at IS NULL), "
	       "made AS (INSERT INTO tmtp.account_token (account_id, token_hash, created_at, "
	       "expires_at) "
	       " SELECT account_id, $2, $3, $4 FROM here ON CONFLICT DO NOTHING) "
	       "SELECT account_id FROM here",
	.types = (const Oid[]){ T_INT8, T_BYTEA, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_token_add,
	.rows = rows_any,
};

void
store_account_token_add(struct store *store, struct account_token_add *add)
{
	add->job.op = &token_add;
	store_submit(store, &add->job);
}

static void
bind_token_get(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct account_token_get *get = (const struct account_token_get *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, get->account_id);
		args_slice(a, 2, slice_mem(get->hash, sizeof(get->hash)));
		args_time(a, 3, get->now_us);
	}
}

static void
rows_token_get(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jobs[i]->rc = STORE_NOT_FOUND;
	for (int row = 0; row < PQntuples(r); row++) {
		struct account_token_get *get =
		    (struct account_token_get *)jobs[row_i32(r, row, 0)];

		get->expires_us = row_time(r, row, 1);
		row_copy(get->address, sizeof(get->address), r, row, 2);
		get->job.rc = STORE_OK;
	}
}

static const struct store_op token_get = {
	.name = "account_token_get",
	.sql = "SELECT i.ord, t.expires_at, a.name || '@' || a.domain "
	       "FROM unnest($1::int4[], $2::int8[], $3::bytea[], $4::timestamptz[]) "
	       " AS i(ord, account_id, token_hash, now) "
	       "JOIN tmtp.account_token t ON t.account_id = i.account_id AND t.token_hash = "
	       "i.token_hash "
	       " AND t.expires_at > i.now "
	       "JOIN tmtp.account a ON a.account_id = t.account_id AND a.disabled_at IS NULL",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_BYTEAS, T_TIMESTAMPTZS, 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_token_get,
	.rows = rows_token_get,
};

void
store_account_token_get(struct store *store, struct account_token_get *get)
{
	get->job.op = &token_get;
	get->address[0] = '\0';
	store_submit(store, &get->job);
}

static void
bind_token_drop(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct account_token_drop *drop = (const struct account_token_drop *)jobs[0];

	(void)n;
	args_i64(a, 0, drop->account_id);
	args_slice(a, 1, slice_mem(drop->hash, sizeof(drop->hash)));
}

static const struct store_op token_drop = {
	.name = "account_token_drop",
	.sql = "DELETE FROM tmtp.account_token WHERE account_id = $1 AND token_hash = $2",
	.types = (const Oid[]){ T_INT8, T_BYTEA, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_token_drop,
};

void
store_account_token_drop(struct store *store, struct account_token_drop *drop)
{
	drop->job.op = &token_drop;
	store_submit(store, &drop->job);
}

/* --- Administrators ------------------------------------------------------ */

/* Parameters of all: $1 domain, $2 name, $3 now, $4 the audit row's id, $5 actor. */
#define COMMON_TYPES T_TEXT, T_TEXT, T_TIMESTAMPTZ, T_UUID, T_TEXT
#define COMMON_N 5

#define FOUND                                                              \
	"WITH found AS MATERIALIZED (SELECT account_id FROM tmtp.account " \
	" WHERE domain = $1 AND name = $2), "

/* Behind a CTE "changed" that has a row when something changed. */
#define TELL(action)                                                                \
	", told AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject) " \
	" SELECT $4, $3, $5, '" action "', $2 || '@' || $1 FROM changed), "         \
	"raised AS (UPDATE tmtp.revision SET number = number + 1 "                  \
	" WHERE only_row AND EXISTS (SELECT FROM changed)) "

/* Whoever knew the old password is logged out; so is who may not be here. */
#define LOG_OUT                                                                        \
	", out AS (DELETE FROM tmtp.account_token t USING found WHERE t.account_id = " \
	"found.account_id)"

static void
bind_change(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct account_change *c = (const struct account_change *)jobs[0];
	struct uuid id = uuid_make();

	(void)n;
	args_text(a, 0, c->domain);
	args_text(a, 1, c->name);
	args_time(a, 2, c->now_us);
	args_uuid(a, 3, &id);
	args_text(a, 4, c->actor);
	if (c->kind == ACCOUNT_CREATE || c->kind == ACCOUNT_PASSWORD)
		args_text(a, COMMON_N, c->password_hash);
	if (c->kind == ACCOUNT_CREATE)
		args_i64(a, COMMON_N + 1, c->id);
}

static void
rows_created(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	jobs[0]->rc = PQntuples(r) > 0 ? STORE_OK : STORE_CONFLICT;
}

static const struct store_op changes[] = {
	[ACCOUNT_CREATE] = {
	    .name = "account_create",
	    /* "channel.site" is a channel's address: no account of a site's domain is called so.
	     * Nor is it called as the domain's mail gateway. */
	    .sql = "WITH named AS (INSERT INTO tmtp.local_name (domain, name, kind, id) "
		   " SELECT $1, $2, 'account', $7 WHERE $2 <> '" MAIL_GATEWAY "' AND NOT EXISTS (SELECT FROM tmtp.local_name s "
		   "  WHERE s.domain = $1 AND s.name = substring($2 from '^[a-z0-9-]+[.]([a-z0-9-]+)$') "
		   "  AND s.kind = 'site') "
		   " ON CONFLICT (domain, name) DO NOTHING RETURNING id), "
		   "changed AS (INSERT INTO tmtp.account (account_id, domain, name, password_hash, created_at) "
		   " SELECT id, $1, $2, $6, $3 FROM named RETURNING account_id), "
		   /* a person writes as a site does: schema/007_persons.sql */
		   "sender AS (INSERT INTO tmtp.site (site_id, domain, name, title, created_at, kind) "
		   " SELECT id, $1, $2, '', $3, 1 FROM named RETURNING site_id), "
		   "inbox AS (INSERT INTO tmtp.channel (site_id, channel_id, name, title, created_at) "
		   " SELECT site_id, site_id, 'inbox', '', $3 FROM sender)"
		   TELL("account-create") "SELECT account_id FROM changed",
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, T_INT8, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_change,
	    .rows = rows_created,
	},
	[ACCOUNT_PASSWORD] = {
	    .name = "account_password",
	    .sql = FOUND
		   "changed AS (UPDATE tmtp.account a SET password_hash = $6 FROM found "
		   " WHERE a.account_id = found.account_id RETURNING a.account_id)"
		   LOG_OUT TELL("account-password") "SELECT account_id FROM found",
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_change,
	    .rows = rows_any,
	},
	[ACCOUNT_DISABLE] = {
	    .name = "account_disable",
	    .sql = FOUND
		   "changed AS (UPDATE tmtp.account a SET disabled_at = $3 FROM found "
		   " WHERE a.account_id = found.account_id AND a.disabled_at IS NULL RETURNING a.account_id)"
		   LOG_OUT TELL("account-disable") "SELECT account_id FROM found",
	    .types = (const Oid[]){ COMMON_TYPES, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_change,
	    .rows = rows_any,
	},
	[ACCOUNT_ENABLE] = {
	    .name = "account_enable",
	    .sql = FOUND
		   "changed AS (UPDATE tmtp.account a SET disabled_at = NULL FROM found "
		   " WHERE a.account_id = found.account_id AND a.disabled_at IS NOT NULL RETURNING a.account_id)"
		   TELL("account-enable") "SELECT account_id FROM found",
	    .types = (const Oid[]){ COMMON_TYPES, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_change,
	    .rows = rows_any,
	},
};

void
store_account_change(struct store *store, struct account_change *change)
{
	change->job.op = &changes[change->kind];
	store_submit(store, &change->job);
}

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct account_list *list = (const struct account_list *)jobs[0];

	(void)n;
	args_slice(a, 0, list->domain);
	args_slice(a, 1, list->exact.len > 0 ? list->exact : list->after);
	args_i64(a, 2, list->limit);
}

void
account_list_clear(struct account_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++)
		free(list->rows[i].address);
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct account_list *list = (struct account_list *)jobs[0];

	(void)n;
	account_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct account_row *out = &list->rows[list->rows_n++];

		out->account_id = row_i64(r, row, 0);
		out->address = row_text(r, row, 1);
		out->created_us = row_time(r, row, 2);
		out->disabled_us = row_time(r, row, 3);
		out->takes_mail = row_bool(r, row, 4);
		if (out->address == NULL)
			list->job.rc = STORE_DOWN;
	}
}

static const struct store_op list_op = {
	.name = "account_list",
	.sql =
	    "SELECT a.account_id, a.name || '@' || a.domain, a.created_at, a.disabled_at, "
	    " EXISTS (SELECT FROM tmtp.mail_channel m WHERE m.account_id = a.account_id AND m.open) "
	    "FROM tmtp.account a "
	    "WHERE a.domain = $1 AND a.name > $2 ORDER BY a.name LIMIT $3",
	.types = (const Oid[]){ T_TEXT, T_TEXT, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

static const struct store_op exact_op = {
	.name = "account_exact",
	.sql =
	    "SELECT a.account_id, a.name || '@' || a.domain, a.created_at, a.disabled_at, "
	    " EXISTS (SELECT FROM tmtp.mail_channel m WHERE m.account_id = a.account_id AND m.open) "
	    "FROM tmtp.account a WHERE a.domain = $1 AND a.name = $2 LIMIT $3",
	.types = (const Oid[]){ T_TEXT, T_TEXT, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_account_list(struct store *store, struct account_list *list)
{
	list->job.op = list->exact.len > 0 ? &exact_op : &list_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}
