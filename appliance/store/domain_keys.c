/* Keys of our domains: see domain_keys.h. */
#include "store/domain_keys.h"

#include "store/rows.h"

#include <sodium.h>

/* --- Reading ------------------------------------------------------------------- */

#define PUBLIC_COLUMNS                                                                  \
	"k.domain, k.key_id, k.public_key, k.created_at, k.valid_from, k.valid_until, " \
	"k.retired_at, k.revoked_at"

static void
copy_octets(uint8_t out[static 32], struct slice from)
{
	if (from.len == 32)
		memcpy(out, from.data, 32);
}

static void
read_key(struct domain_key *k, const PGresult *r, int row)
{
	row_copy(k->domain, sizeof(k->domain), r, row, 0);
	row_copy(k->id, sizeof(k->id), r, row, 1);
	copy_octets(k->public_key, row_slice(r, row, 2));
	k->created_us = row_time(r, row, 3);
	k->from_us = row_time(r, row, 4);
	k->until_us = row_time(r, row, 5);
	k->retired_us = row_time(r, row, 6);
	k->revoked_us = row_time(r, row, 7);
}

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct domain_key_list *list = (const struct domain_key_list *)jobs[0];

	(void)n;
	args_slice(a, 0, list->domain);
	args_bool(a, 1, list->ended_after_us > 0);
	args_time(a, 2, list->ended_after_us);
	args_i64(a, 3, list->limit);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct domain_key_list *list = (struct domain_key_list *)jobs[0];

	(void)n;
	domain_key_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++)
		read_key(&list->rows[list->rows_n++], r, row);
}

static const struct store_op list_get = {
	.name = "domain_key_list",
	.sql = "SELECT " PUBLIC_COLUMNS " FROM tmtp.domain_key k WHERE k.domain = $1 "
	       "AND (NOT $2 OR (k.revoked_at IS NULL AND k.valid_until > $3)) "
	       "ORDER BY k.created_at DESC, k.key_id DESC LIMIT $4",
	.types = (const Oid[]){ T_TEXT, T_BOOL, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_domain_key_list(struct store *store, struct domain_key_list *list)
{
	list->job.op = &list_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

void
domain_key_list_clear(struct domain_key_list *list)
{
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
bind_nothing(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)a;
	(void)jobs;
	(void)n;
}

static void
rows_secrets(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct domain_key_secrets *s = (struct domain_key_secrets *)jobs[0];

	(void)n;
	domain_key_secrets_clear(s);
	s->rows = rows_room(r, sizeof(s->rows[0]), &s->job);
	for (int row = 0; s->rows != NULL && row < PQntuples(r); row++) {
		struct domain_key *k = &s->rows[s->rows_n++];

		read_key(k, r, row);
		copy_octets(k->seed, row_slice(r, row, 8));
	}
}

static const struct store_op secrets_get = {
	.name = "domain_key_secrets",
	.sql =
	    "SELECT " PUBLIC_COLUMNS ", s.seed FROM tmtp.domain_key_secret s "
	    "CROSS JOIN LATERAL (SELECT d.* FROM tmtp.domain_key d WHERE d.domain = s.domain "
	    " AND d.key_id = s.key_id LIMIT 1) k WHERE k.revoked_at IS NULL "
	    "ORDER BY k.domain, k.created_at DESC, k.key_id DESC",
	.types = (const Oid[]){ 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_nothing,
	.rows = rows_secrets,
};

void
store_domain_key_secrets(struct store *store, struct domain_key_secrets *s)
{
	s->job.op = &secrets_get;
	s->rows = NULL;
	s->rows_n = 0;
	store_submit(store, &s->job);
}

void
domain_key_secrets_clear(struct domain_key_secrets *s)
{
	if (s->rows != NULL)
		sodium_memzero(s->rows, s->rows_n * sizeof(s->rows[0]));
	free(s->rows);
	s->rows = NULL;
	s->rows_n = 0;
}

/* --- Forgetting private parts ---------------------------------------------------- */

static void
bind_forget(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_time(a, 0, ((const struct domain_key_forget *)jobs[0])->ended_before_us);
}

static void
rows_forget(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct domain_key_forget *)jobs[0])->forgotten = PQntuples(r);
}

static const struct store_op forget_run = {
	.name = "domain_key_forget",
	.sql = "DELETE FROM tmtp.domain_key_secret s USING tmtp.domain_key k "
	       "WHERE k.domain = s.domain AND k.key_id = s.key_id AND k.valid_until < $1 "
	       "RETURNING 1",
	.types = (const Oid[]){ T_TIMESTAMPTZ, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.bind = bind_forget,
	.rows = rows_forget,
};

void
store_domain_key_forget(struct store *store, struct domain_key_forget *forget)
{
	forget->job.op = &forget_run;
	store_submit(store, &forget->job);
}

/* --- Administrators ---------------------------------------------------------------- */

/* Parameters of all: $1 domain, $2 id, $3 now, $4 the audit row's id, $5 actor. */
#define COMMON_TYPES T_TEXT, T_TEXT, T_TIMESTAMPTZ, T_UUID, T_TEXT
#define COMMON_N 5

/* Behind a CTE "changed" that has a row when something changed. */
#define TELL(action, detail)                                                                \
	", told AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) " \
	" SELECT $4, $3, $5, '" action "', $1, " detail " FROM changed), "                  \
	"raised AS (UPDATE tmtp.revision SET number = number + 1 "                          \
	" WHERE only_row AND EXISTS (SELECT FROM changed)) "

#define UNTIL_TEXT(t) "to_char(" t " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

#define THERE                                                                                 \
	"WITH there AS MATERIALIZED (SELECT domain, key_id, revoked_at FROM tmtp.domain_key " \
	" WHERE domain = $1 AND key_id = $2), "

static void
bind_common(struct args *a, const struct domain_key_change *c)
{
	struct uuid id = uuid_make();

	args_text(a, 0, c->domain);
	args_text(a, 1, c->id);
	args_time(a, 2, c->now_us);
	args_uuid(a, 3, &id);
	args_text(a, 4, c->by.actor);
}

static void
bind_make(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct domain_key_change *c = (const struct domain_key_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_slice(a, COMMON_N, c->public_key);
	args_slice(a, COMMON_N + 1, c->seed);
	args_time(a, COMMON_N + 2, c->from_us);
	args_time(a, COMMON_N + 3, c->until_us);
}

static void
bind_retire(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct domain_key_change *c = (const struct domain_key_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_time(a, COMMON_N, c->until_us);
}

static void
bind_revoke(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	bind_common(a, (const struct domain_key_change *)jobs[0]);
}

static const struct store_op changes[] = {
	[DOMAIN_KEY_MAKE] = {
	    .name = "domain_key_make",
	    .sql = "WITH changed AS (INSERT INTO tmtp.domain_key "
		   " (domain, key_id, public_key, created_at, valid_from, valid_until) "
		   " VALUES ($1, $2, $6, $3, $8, $9) ON CONFLICT DO NOTHING RETURNING domain, key_id), "
		   "kept AS (INSERT INTO tmtp.domain_key_secret (domain, key_id, seed) "
		   " SELECT domain, key_id, $7 FROM changed)"
		   TELL("domain-key-make", "$2")
		   "SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN 0 ELSE 2 END",
	    .types = (const Oid[]){ COMMON_TYPES, T_BYTEA, T_BYTEA, T_TIMESTAMPTZ, T_TIMESTAMPTZ, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_make,
	    .rows = rows_verdict,
	},
	[DOMAIN_KEY_RETIRE] = {
	    .name = "domain_key_retire",
	    .sql = THERE
		   "changed AS (UPDATE tmtp.domain_key k SET retired_at = coalesce(k.retired_at, $3), "
		   " valid_until = least(k.valid_until, $6) FROM there WHERE k.domain = there.domain "
		   " AND k.key_id = there.key_id AND k.revoked_at IS NULL "
		   " RETURNING k.key_id, k.valid_until)"
		   TELL("domain-key-retire", "key_id || ' until ' || " UNTIL_TEXT("valid_until"))
		   "SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN 0 "
		   " WHEN EXISTS (SELECT FROM there) THEN 2 ELSE 1 END",
	    .types = (const Oid[]){ COMMON_TYPES, T_TIMESTAMPTZ, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_retire,
	    .rows = rows_verdict,
	},
	[DOMAIN_KEY_REVOKE] = {
	    .name = "domain_key_revoke",
	    .sql = THERE
		   "changed AS (UPDATE tmtp.domain_key k SET revoked_at = $3, "
		   " valid_until = least(k.valid_until, $3) FROM there WHERE k.domain = there.domain "
		   " AND k.key_id = there.key_id AND k.revoked_at IS NULL RETURNING k.key_id), "
		   "gone AS (DELETE FROM tmtp.domain_key_secret s USING there "
		   " WHERE s.domain = there.domain AND s.key_id = there.key_id)"
		   TELL("domain-key-revoke", "key_id")
		   "SELECT CASE WHEN EXISTS (SELECT FROM there) THEN 0 ELSE 1 END",
	    .types = (const Oid[]){ COMMON_TYPES, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_revoke,
	    .rows = rows_verdict,
	},
};

void
store_domain_key_change(struct store *store, struct domain_key_change *change)
{
	change->job.op = &changes[change->kind];
	store_submit(store, &change->job);
}
