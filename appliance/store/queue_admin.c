/* What administrators see of the queue and do to it: see queue.h. */
#include "store/queue.h"

#include "store/op.h"

#include <stdio.h>
#include <stdlib.h>

static bool
is_set(const struct uuid *id)
{
	static const struct uuid none;

	return memcmp(id, &none, sizeof(none)) != 0;
}

/* --- Words --------------------------------------------------------------- */

const char *
queue_state_name(int state)
{
	static const char *const names[] = { "waiting", "done",    "dead",
		                             "held",    "dropped", "recalled" };
	const int n = sizeof(names) / sizeof(names[0]);

	return state >= 0 && state < n ? names[state] : "unknown";
}

/* --- Listing ------------------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_list *l = (const struct queue_list *)jobs[0];

	(void)n;
	args_text(a, 0, l->domain);
	args_bool(a, 1, l->dead);
	args_uuid(a, 2, &l->oldest);
	args_i64(a, 3, l->limit);
	if (is_set(&l->message_id))
		args_uuid(a, 4, &l->message_id);
	args_uuid(a, 5, &l->after_message);
	args_i32(a, 6, l->after_batch);
	args_i64(a, 7, l->after_site);
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct queue_list *l = (struct queue_list *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	queue_list_clear(l);
	l->rows = calloc((size_t)count + 1, sizeof(*l->rows));
	if (l->rows == NULL) {
		l->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		struct queue_row *q = &l->rows[row];

		q->site = row_text(r, row, 0);
		q->domain = row_text(r, row, 1);
		q->channel = row_text(r, row, 2);
		q->message_id = row_uuid(r, row, 3);
		q->batch_no = row_i32(r, row, 4);
		q->lane = row_i32(r, row, 5);
		q->state = row_i32(r, row, 6);
		q->attempts = row_i32(r, row, 7);
		q->recipients = row_i32(r, row, 8);
		q->accepted_us = row_time(r, row, 9);
		q->not_before_us = row_time(r, row, 10);
		q->reason = row_text(r, row, 11);
		q->site_id = row_i64(r, row, 12);
	}
	l->rows_n = (size_t)count;
}

static const struct store_op list_get = {
	.name = "queue_list",
	.sql =
	    "SELECT s.name || '@' || s.domain, d.name, c.name, b.message_id, b.batch_no, b.lane::int4, "
	    " b.state::int4, b.attempts::int4, b.recipients, m.accepted_at, b.not_before, "
	    " CASE WHEN p.held AND b.state = 0 "
	    "  THEN 'the domain is held: tmtpctl peer release ' || d.name || ' lets it go' "
	    "  ELSE coalesce(b.reason, p.reason) END, b.site_id "
	    "FROM tmtp.batch b JOIN tmtp.domain d ON d.domain_id = b.domain_id "
	    "JOIN tmtp.site s ON s.site_id = b.site_id "
	    "JOIN tmtp.channel c ON c.site_id = b.site_id AND c.channel_id = b.channel_id "
	    "JOIN tmtp.message m ON m.site_id = b.site_id AND m.message_id = b.message_id "
	    "LEFT JOIN tmtp.peer p ON p.domain_id = b.domain_id "
	    "WHERE b.message_id >= $3 AND ($1::text IS NULL OR d.name = $1) "
	    "AND CASE WHEN $2 THEN b.state IN (2, 4) ELSE b.state IN (0, 3) END "
	    "AND ($5::uuid IS NULL OR b.message_id = $5) "
	    "AND b.message_id >= $6 AND (b.message_id, b.batch_no, b.site_id) > ($6, $7, $8) "
	    "ORDER BY b.message_id, b.batch_no, b.site_id LIMIT $4",
	.types =
	    (const Oid[]){ T_TEXT, T_BOOL, T_UUID, T_INT8, T_UUID, T_UUID, T_INT4, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_queue_list(struct store *store, struct queue_list *l)
{
	l->job.op = &list_get;
	l->rows = NULL;
	l->rows_n = 0;
	store_submit(store, &l->job);
}

void
queue_list_clear(struct queue_list *l)
{
	for (size_t i = 0; i < l->rows_n; i++) {
		free(l->rows[i].site);
		free(l->rows[i].domain);
		free(l->rows[i].channel);
		free(l->rows[i].reason);
	}
	free(l->rows);
	l->rows = NULL;
	l->rows_n = 0;
}

/* --- Changing ------------------------------------------------------------ */

/* From which states to which; -1 stands for none. */
static const struct {
	const char *name;
	int from[3], to;
} actions[] = {
	[QUEUE_RETRY_NOW] = { "queue-retry", { 0, 2, 3 }, 0 },
	[QUEUE_HOLD] = { "queue-hold", { 0, -1, -1 }, 3 },
	[QUEUE_RESUME] = { "queue-release", { 3, -1, -1 }, 0 },
	[QUEUE_DROP] = { "queue-drop", { 0, 2, 3 }, 4 },
};

static void
bind_change(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct queue_change *c = (const struct queue_change *)jobs[0];
	bool one = is_set(&c->message_id);
	struct uuid audit = uuid_make();
	char subject[UUID_TEXT + 256], id[UUID_TEXT];

	(void)n;
	args_text(a, 0, c->domain);
	if (one)
		args_uuid(a, 1, &c->message_id);
	args_uuid(a, 2, &c->oldest);
	for (size_t i = 0; i < 3; i++)
		args_i32(a, 3, actions[c->action].from[i]);
	args_i32(a, 4, actions[c->action].to);
	args_uuid(a, 5, &audit);
	args_time(a, 6, c->now_us);
	args_text(a, 7, c->actor);
	args_text(a, 8, actions[c->action].name);
	uuid_format(&c->message_id, id);
	(void)snprintf(subject, sizeof(subject), "%s%s%s", one ? id : "",
	               one && c->domain != NULL ? " " : "",
	               c->domain != NULL ? c->domain
	               : one             ? ""
	                                 : "all");
	args_text(a, 9, subject);
	args_bool(a, 10, c->action == QUEUE_RETRY_NOW);
	args_bool(a, 11, c->action == QUEUE_DROP);
}

static void
rows_change(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	((struct queue_change *)jobs[0])->changed = PQntuples(r) == 1 ? row_i64(r, 0, 0) : 0;
}

/*
 * A batch that a worker has on its way is changed too: what the worker writes
 * at the end finds no lease then. A retry alone leaves it: it is being tried.
 */
static const struct store_op change_run = {
	.name = "queue_change",
	.sql =
	    "WITH chosen AS MATERIALIZED (SELECT b.site_id, b.message_id, b.batch_no, b.domain_id "
	    " FROM tmtp.batch b JOIN tmtp.domain d ON d.domain_id = b.domain_id "
	    " WHERE b.message_id >= $3 AND ($1::text IS NULL OR d.name = $1) "
	    " AND ($2::uuid IS NULL OR b.message_id = $2) AND b.state = ANY ($4) "
	    " AND NOT ($11 AND b.state = 0 AND coalesce(b.leased_until > $7, false))), "
	    "changed AS (UPDATE tmtp.batch b SET state = $5, not_before = NULL, leased_until = NULL, "
	    "  lease_owner = NULL, attempts = CASE WHEN $11 THEN 0 ELSE b.attempts END, "
	    "  lost_alone = CASE WHEN $11 THEN 0 ELSE b.lost_alone END, "
	    "  revived_at = CASE WHEN $11 THEN $7 ELSE b.revived_at END, "
	    "  done_at = CASE WHEN $12 THEN $7 ELSE NULL END, "
	    "  reason = CASE WHEN $12 THEN 'dropped by an administrator' ELSE b.reason END "
	    " FROM chosen c WHERE b.site_id = c.site_id AND b.message_id = c.message_id "
	    " AND b.batch_no = c.batch_no RETURNING b.domain_id), "
	    "peers AS (UPDATE tmtp.peer p SET failures = 0, failing_since = NULL, retry_at = NULL, "
	    "  probe_until = NULL "
	    " WHERE $11 AND p.domain_id IN (SELECT domain_id FROM changed)), "
	    "audit AS (INSERT INTO tmtp.audit (audit_id, at, actor, action, subject, detail) "
	    " SELECT $6, $7, $8, $9, $10, (SELECT count(*) FROM changed)::text "
	    "  WHERE EXISTS (SELECT FROM changed)), "
	    "raised AS (UPDATE tmtp.revision SET number = number + 1 WHERE EXISTS (SELECT FROM changed)) "
	    "SELECT count(*) FROM changed",
	.types = (const Oid[]){ T_TEXT, T_UUID, T_UUID, T_INT4S, T_INT4, T_UUID, T_TIMESTAMPTZ,
	                        T_TEXT, T_TEXT, T_TEXT, T_BOOL, T_BOOL, 0 },
	.lane = STORE_WRITE,
	.wakes = "tmtp_relay",
	.bind = bind_change,
	.rows = rows_change,
};

void
store_queue_change(struct store *store, struct queue_change *c)
{
	c->job.op = &change_run;
	store_submit(store, &c->job);
}
