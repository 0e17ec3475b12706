/*
 * What administrators change of sites: see sites.h. Each change is one
 * statement that also writes the audit log and raises the revision, and
 * answers one number: an enum row_verdict. Nothing here aborts the transaction
 * for a name that is taken, because others share it.
 */
#include "store/sites.h"

#include "store/mails.h"
#include "store/rows.h"

/* Parameters of all: $1 domain, $2 name, $3 now, $4 the audit row's id, $5 actor. */
#define COMMON_TYPES T_TEXT, T_TEXT, T_TIMESTAMPTZ, T_UUID, T_TEXT
#define COMMON_N 5

#define FOUND                                                        \
	"WITH found AS MATERIALIZED (SELECT site_id FROM tmtp.site " \
	" WHERE domain = $1 AND name = $2 AND kind = 0), "

/* Behind a CTE "changed" that has a row when something changed. */
#define TELL(action, detail)                                                                \
	", told AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) " \
	" SELECT $4, $3, $5, '" action "', $2 || '@' || $1, " detail " FROM changed), "     \
	"raised AS (UPDATE tmtp.revision SET number = number + 1 "                          \
	" WHERE only_row AND EXISTS (SELECT FROM changed)) "

/* For what is added: the site must be there, the name must not. */
#define VERDICT_ADDED                                             \
	"SELECT CASE WHEN NOT EXISTS (SELECT FROM found) THEN 1 " \
	" WHEN EXISTS (SELECT FROM changed) THEN 0 ELSE 2 END"

/* For what is ended: it must have been there; ending it twice is fine. */
#define VERDICT_ENDED(there) "SELECT CASE WHEN EXISTS (SELECT FROM " there ") THEN 0 ELSE 1 END"

static void
bind_common(struct args *a, const struct site_change *c)
{
	struct uuid id = uuid_make();

	args_text(a, 0, c->domain);
	args_text(a, 1, c->name);
	args_time(a, 2, c->now_us);
	args_uuid(a, 3, &id);
	args_text(a, 4, c->by.actor);
}

static void
bind_create(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_i64(a, COMMON_N, c->id);
	args_text(a, COMMON_N + 1, c->title);
}

static void
bind_plain(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	bind_common(a, (const struct site_change *)jobs[0]);
}

static void
bind_key_add(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->kid);
	args_text(a, COMMON_N + 1, c->algorithm);
	args_slice(a, COMMON_N + 2, c->material);
}

static void
bind_key_revoke(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->kid);
}

static void
bind_token_add(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->label);
	args_slice(a, COMMON_N + 1, c->material);
	args_text(a, COMMON_N + 2, c->scopes);
	args_time(a, COMMON_N + 3, c->expires_us);
}

static void
bind_token_revoke(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->label);
}

static void
bind_channel_create(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->channel);
	args_text(a, COMMON_N + 1, c->title);
	args_i64(a, COMMON_N + 2, c->id);
}

static void
bind_channel_close(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_change *c = (const struct site_change *)jobs[0];

	(void)n;
	bind_common(a, c);
	args_text(a, COMMON_N, c->channel);
}

static const struct store_op ops[] = {
	[SITE_CREATE] = {
	    .name = "site_create",
	    .sql = "WITH named AS (INSERT INTO tmtp.local_name (domain, name, kind, id) "
		   " SELECT $1, $2, 'site', $6 WHERE $2 <> '" MAIL_GATEWAY "' ON CONFLICT (domain, name) DO NOTHING RETURNING id), "
		   "changed AS (INSERT INTO tmtp.site (site_id, domain, name, title, created_at) "
		   " SELECT id, $1, $2, $7, $3 FROM named RETURNING site_id)"
		   TELL("site-create", "$7")
		   "SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN 0 ELSE 2 END",
	    .types = (const Oid[]){ COMMON_TYPES, T_INT8, T_TEXT, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_create,
	    .rows = rows_verdict,
	},
	[SITE_SUSPEND] = {
	    .name = "site_suspend",
	    .sql = FOUND
		   "changed AS (UPDATE tmtp.site s SET suspended_at = $3 FROM found "
		   " WHERE s.site_id = found.site_id AND s.suspended_at IS NULL RETURNING s.site_id)"
		   TELL("site-suspend", "NULL") VERDICT_ENDED("found"),
	    .types = (const Oid[]){ COMMON_TYPES, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_plain,
	    .rows = rows_verdict,
	},
	[SITE_RESUME] = {
	    .name = "site_resume",
	    .sql = FOUND
		   "changed AS (UPDATE tmtp.site s SET suspended_at = NULL FROM found "
		   " WHERE s.site_id = found.site_id AND s.suspended_at IS NOT NULL RETURNING s.site_id)"
		   TELL("site-resume", "NULL") VERDICT_ENDED("found"),
	    .types = (const Oid[]){ COMMON_TYPES, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_plain,
	    .rows = rows_verdict,
	},
	[SITE_KEY_ADD] = {
	    .name = "site_key_add",
	    .sql = FOUND
		   "changed AS (INSERT INTO tmtp.site_key (site_id, kid, algorithm, material, created_at) "
		   " SELECT site_id, $6, $7, $8, $3 FROM found ON CONFLICT DO NOTHING RETURNING kid)"
		   TELL("key-add", "$6 || ' ' || $7") VERDICT_ADDED,
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, T_TEXT, T_BYTEA, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_key_add,
	    .rows = rows_verdict,
	},
	[SITE_KEY_REVOKE] = {
	    .name = "site_key_revoke",
	    .sql = FOUND
		   "there AS MATERIALIZED (SELECT k.site_id, k.kid FROM found "
		   " JOIN tmtp.site_key k ON k.site_id = found.site_id AND k.kid = $6), "
		   "changed AS (UPDATE tmtp.site_key k SET revoked_at = $3 FROM there "
		   " WHERE k.site_id = there.site_id AND k.kid = there.kid AND k.revoked_at IS NULL "
		   " RETURNING k.kid)"
		   TELL("key-revoke", "$6") VERDICT_ENDED("there"),
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_key_revoke,
	    .rows = rows_verdict,
	},
	[SITE_TOKEN_ADD] = {
	    .name = "site_token_add",
	    .sql = FOUND
		   "changed AS (INSERT INTO tmtp.site_token "
		   " (site_id, token_hash, name, scopes, created_at, expires_at) "
		   " SELECT site_id, $7, $6, string_to_array($8, ' '), $3, $9 FROM found "
		   " ON CONFLICT DO NOTHING RETURNING name)"
		   TELL("token-add", "$6 || ': ' || $8") VERDICT_ADDED,
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, T_BYTEA, T_TEXT, T_TIMESTAMPTZ, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_token_add,
	    .rows = rows_verdict,
	},
	[SITE_TOKEN_REVOKE] = {
	    .name = "site_token_revoke",
	    .sql = FOUND
		   "there AS MATERIALIZED (SELECT t.site_id, t.name FROM found "
		   " JOIN tmtp.site_token t ON t.site_id = found.site_id AND t.name = $6), "
		   "changed AS (UPDATE tmtp.site_token t SET revoked_at = $3 FROM there "
		   " WHERE t.site_id = there.site_id AND t.name = there.name AND t.revoked_at IS NULL "
		   " RETURNING t.name)"
		   TELL("token-revoke", "$6") VERDICT_ENDED("there"),
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_token_revoke,
	    .rows = rows_verdict,
	},
	[CHANNEL_CREATE] = {
	    .name = "channel_create",
	    /* An account called "channel.site" would have the channel's address. */
	    .sql = FOUND
		   "changed AS (INSERT INTO tmtp.channel (site_id, channel_id, name, title, created_at) "
		   " SELECT site_id, $8, $6, $7, $3 FROM found "
		   " WHERE NOT EXISTS (SELECT FROM tmtp.local_name WHERE domain = $1 AND name = $6 || '.' || $2) "
		   " ON CONFLICT (site_id, name) DO NOTHING RETURNING channel_id)"
		   TELL("channel-create", "$6") VERDICT_ADDED,
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, T_TEXT, T_INT8, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_channel_create,
	    .rows = rows_verdict,
	},
	[CHANNEL_CLOSE] = {
	    .name = "channel_close",
	    .sql = FOUND
		   "there AS MATERIALIZED (SELECT c.site_id, c.channel_id FROM found "
		   " JOIN tmtp.channel c ON c.site_id = found.site_id AND c.name = $6), "
		   "changed AS (UPDATE tmtp.channel c SET closed_at = $3 FROM there "
		   " WHERE c.site_id = there.site_id AND c.channel_id = there.channel_id "
		   " AND c.closed_at IS NULL RETURNING c.channel_id)"
		   TELL("channel-close", "$6") VERDICT_ENDED("there"),
	    .types = (const Oid[]){ COMMON_TYPES, T_TEXT, 0 },
	    .wakes = "tmtp_revision",
	    .bind = bind_channel_close,
	    .rows = rows_verdict,
	},
};

void
store_site_change(struct store *store, struct site_change *change)
{
	change->job.op = &ops[change->kind];
	store_submit(store, &change->job);
}
