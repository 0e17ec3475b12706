/* Recalls at the message's origin: see recalls.h. */
#include "store/recalls.h"

#include "store/rows.h"

static void
bind_recall(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct message_recall *r = (const struct message_recall *)jobs[0];

	(void)n;
	args_i64(a, 0, r->site_id);
	args_uuid(a, 1, &r->message_id);
	args_uuid(a, 2, &r->recall_id);
	args_time(a, 3, r->now_us);
	args_i64(a, 4, r->now_us / 1000000);
}

static void
bind_by_administrator(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct message_recall *r = (const struct message_recall *)jobs[0];
	struct uuid audit = uuid_make();

	bind_recall(a, jobs, n);
	args_uuid(a, 5, &audit);
	args_text(a, 6, r->actor);
	args_text(a, 7, r->subject);
}

static void
rows_recall(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct message_recall *recall = (struct message_recall *)jobs[0];

	(void)n;
	recall->changed = PQntuples(r) == 1 && row_bool(r, 0, 0);
	if (PQntuples(r) == 0)
		recall->job.rc = STORE_NOT_FOUND;
}

/*
 * Which batches left is decided while they are locked: a claim that commits
 * first marks its batch as tried, and this UPDATE then passes it over. All that
 * it didn't drop is told of the recall. What is on its way meanwhile is taken
 * out by the relay when it comes back. Retries are lists of a batch that is
 * told as a whole. An invitation has nobody to be told: nothing came of it
 * that could be withdrawn.
 */
#define RECALL_CTES                                                                                      \
	"it AS MATERIALIZED (SELECT message_id FROM tmtp.message "                                       \
	"  WHERE site_id = $1 AND message_id = $2 AND recalls IS NULL), "                                \
	"m AS (UPDATE tmtp.message SET recalled_at = $4, recall_id = $3 "                                \
	" WHERE site_id = $1 AND message_id = $2 AND recalls IS NULL AND recalled_at IS NULL "           \
	" RETURNING channel_id, audience, size, digest), "                                               \
	"dropped AS (UPDATE tmtp.batch b SET state = 5, done_at = $4, leased_until = NULL, "             \
	"  lease_owner = NULL, reason = NULL FROM m "                                                    \
	" WHERE b.site_id = $1 AND b.message_id = $2 AND b.state IN (0, 3) "                             \
	"  AND (NOT b.tried OR b.leased_until IS NULL OR b.leased_until < $4) "                          \
	" RETURNING b.batch_no, b.tried), "                                                              \
	"told AS MATERIALIZED (SELECT b.*, m.audience, m.size, m.digest FROM m CROSS JOIN tmtp.batch b " \
	" WHERE b.site_id = $1 AND b.message_id = $2 AND b.batch_no < 1000000 AND m.audience <> 3 "      \
	"  AND NOT EXISTS (SELECT FROM dropped d WHERE d.batch_no = b.batch_no AND NOT d.tried) "        \
	"  AND (b.state IN (0, 1, 3) OR b.tried)), "                                                     \
	"telling AS (INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, "        \
	"  accepted_at, date_s, size, digest, body, recalls) "                                           \
	" SELECT $1, $3, channel_id, audience, 0, $4, $5, size, digest, ''::bytea, $2 "                  \
	" FROM told LIMIT 1), "                                                                          \
	"batch AS (INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, "       \
	"  lane, members, first_member, next_member, recipients) "                                       \
	" SELECT $1, $3, batch_no, channel_id, domain_id, 0, members, first_member, next_member, "       \
	"  recipients FROM told) "

static const struct store_op recall_run = {
	.name = "message_recall",
	.sql = "WITH " RECALL_CTES "SELECT EXISTS (SELECT FROM m) FROM it",
	.types = (const Oid[]){ T_INT8, T_UUID, T_UUID, T_TIMESTAMPTZ, T_INT8, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_recall,
	.rows = rows_recall,
};

static const struct store_op recall_by_administrator = {
	.name = "message_recall_audited",
	.sql =
	    "WITH " RECALL_CTES
	    ", audit AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject) "
	    " SELECT $6, $4, $7, 'message-recall', $8 FROM m), "
	    "raised AS (UPDATE tmtp.revision SET number = number + 1 WHERE EXISTS (SELECT FROM m)) "
	    "SELECT EXISTS (SELECT FROM m) FROM it",
	.types = (const Oid[]){ T_INT8, T_UUID, T_UUID, T_TIMESTAMPTZ, T_INT8, T_UUID, T_TEXT,
	                        T_TEXT, 0 },
	.lane = STORE_WRITE,
	.repeatable = true,
	.wakes = "tmtp_relay",
	.bind = bind_by_administrator,
	.rows = rows_recall,
};

void
store_message_recall(struct store *store, struct message_recall *recall)
{
	recall->job.op = recall->actor == NULL ? &recall_run : &recall_by_administrator;
	recall->changed = false;
	store_submit(store, &recall->job);
}
