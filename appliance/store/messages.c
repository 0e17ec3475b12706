/* Stored messages: see messages.h. Their recipients stand in recipients.c. */
#include "store/messages.h"

#include "store/rows.h"

/* --- Picking up ---------------------------------------------------------- */

/* Bodies up to this are fetched many at a time; a larger one is asked for again, alone. */
#define SMALL_OCTETS "262144"

static void
bind_body(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct message_body *b = (const struct message_body *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, b->site_id);
		args_uuid(a, 2, &b->message_id);
		args_slice(a, 3, slice_mem(b->digest, sizeof(b->digest)));
		args_bool(a, 4, b->known);
	}
}

void
message_body_clear(struct message_body *body)
{
	free(body->body);
	body->body = NULL;
	body->size = 0;
}

static void
rows_body(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		message_body_clear((struct message_body *)jobs[i]);
		jobs[i]->rc = STORE_NOT_FOUND;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct message_body *b = (struct message_body *)jobs[row_i32(r, row, 0)];

		b->shared = row_bool(r, row, 1);
		b->recalled = row_bool(r, row, 2);
		b->is_large = row_bool(r, row, 3);
		b->body = row_octets(r, row, 4, &b->size);
		b->job.rc = b->body != NULL || b->recalled || b->is_large || b->known
		                ? STORE_OK
		                : STORE_DOWN;
	}
}

static const Oid body_types[] = { T_INT4S, T_INT8S, T_UUIDS, T_BYTEAS, T_BOOLS, 0 };

static const struct store_op small_op = {
	.name = "message_body",
	.sql =
	    "SELECT i.ord, m.audience IN (1, 2), m.recalled_at IS NOT NULL, m.size > " SMALL_OCTETS
	    ", "
	    " CASE WHEN m.recalled_at IS NULL AND m.size <= " SMALL_OCTETS
	    "  AND NOT i.known THEN m.body END "
	    "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::bytea[], $5::bool[]) "
	    " AS i(ord, site_id, message_id, digest, known) "
	    "JOIN tmtp.message m ON m.site_id = i.site_id AND m.message_id = i.message_id "
	    " AND m.digest = i.digest AND m.recalls IS NULL",
	.types = body_types,
	.lane = STORE_READ,
	.batch_max = 64,
	.repeatable = true,
	.bind = bind_body,
	.rows = rows_body,
};

static const struct store_op large_op = {
	.name = "message_body_large",
	.sql = "SELECT i.ord, m.audience IN (1, 2), m.recalled_at IS NOT NULL, false, "
	       " CASE WHEN m.recalled_at IS NULL AND NOT i.known THEN m.body END "
	       "FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::bytea[], $5::bool[]) "
	       " AS i(ord, site_id, message_id, digest, known) "
	       "JOIN tmtp.message m ON m.site_id = i.site_id AND m.message_id = i.message_id "
	       " AND m.digest = i.digest AND m.recalls IS NULL",
	.types = body_types,
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_body,
	.rows = rows_body,
};

/* The caller's done comes with the body, or with the second answer when that was too large for the first. */
static void
on_small(struct store_job *job)
{
	struct message_body *b = (struct message_body *)job;

	job->done = b->then;
	if (job->rc != STORE_OK || !b->is_large || b->recalled || b->known) {
		job->done(job);
		return;
	}
	job->op = &large_op;
	store_submit(b->store, job);
}

void
store_message_body(struct store *store, struct message_body *body)
{
	body->store = store;
	body->then = body->job.done;
	body->job.done = on_small;
	body->job.op = &small_op;
	body->body = NULL;
	body->size = 0;
	store_submit(store, &body->job);
}

/* --- What became of it, in numbers --------------------------------------- */

static void
bind_status(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct message_status *s = (const struct message_status *)jobs[0];

	(void)n;
	args_i64(a, 0, s->site_id);
	args_uuid(a, 1, &s->message_id);
}

static void
rows_status(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct message_status *s = (struct message_status *)jobs[0];

	(void)n;
	if (PQntuples(r) == 0) {
		s->job.rc = STORE_NOT_FOUND;
		return;
	}
	row_copy(s->channel, sizeof(s->channel), r, 0, 0);
	s->audience = row_i32(r, 0, 1);
	s->lane = row_i32(r, 0, 2);
	s->accepted_us = row_time(r, 0, 3);
	s->expires_us = row_time(r, 0, 4);
	s->recalled_us = row_time(r, 0, 5);
	s->rejected = row_i32(r, 0, 6);
	s->waiting = row_i64(r, 0, 7);
	s->dead = row_i64(r, 0, 9);
	s->failed = row_i64(r, 0, 10);
	s->delivered = row_i64(r, 0, 8) - s->failed;
	s->recalled = row_i64(r, 0, 11);
	s->recall.waiting = row_i64(r, 0, 12);
	s->recall.dead = row_i64(r, 0, 14);
	s->recall.failed = row_i64(r, 0, 15);
	s->recall.delivered = row_i64(r, 0, 13) - s->recall.failed;
	s->read = row_i64(r, 0, 16);
	s->withdrawn = row_i64(r, 0, 17);
}

/*
 * Sums over batches and a count of failures, never a look at every member. A
 * done batch's recipients are those that were answered for good; who was put
 * off is counted by a batch of its own. A waiting range's number is what its
 * chunk was last counted as; one never counted yet is counted here, up to
 * what a chunk may hold, so that a message to new members isn't told as over.
 */
static const struct store_op status_op = {
	.name = "message_status",
	.sql =
	    "SELECT (SELECT c.name FROM tmtp.channel c "
	    "  WHERE c.site_id = m.site_id AND c.channel_id = m.channel_id), "
	    " m.audience::int4, m.lane::int4, m.accepted_at, m.expires_at, m.recalled_at, "
	    " coalesce(cardinality(m.rejected), 0), coalesce(b.waiting, 0)::int8, coalesce(b.done, 0)::int8, "
	    " coalesce(b.dead, 0)::int8, f.failed, coalesce(b.recalled, 0)::int8, "
	    " coalesce(t.waiting, 0)::int8, coalesce(t.done, 0)::int8, coalesce(t.dead, 0)::int8, tf.failed, "
	    " rc.read, rc.withdrawn "
	    "FROM tmtp.message m "
	    "CROSS JOIN LATERAL (SELECT "
	    "  sum(CASE WHEN x.recipients = 0 AND x.members IS NULL THEN (SELECT count(*) FROM ("
	    "    SELECT FROM tmtp.subscription s WHERE s.site_id = $1 AND s.channel_id = m.channel_id "
	    "    AND s.domain_id = x.domain_id AND s.member >= x.first_member "
	    "    AND s.member < coalesce(x.next_member, " SQL_MEMBER_LAST ") "
	    "    AND s.state = 1 AND s.joined_at <= m.accepted_at LIMIT 1000) AS few) "
	    "   ELSE x.recipients END) FILTER (WHERE x.state IN (0, 3)) AS waiting, "
	    "  sum(x.recipients) FILTER (WHERE x.state = 1) AS done, "
	    "  sum(x.recipients) FILTER (WHERE x.state IN (2, 4)) AS dead, "
	    "  sum(x.recipients) FILTER (WHERE x.state = 5) AS recalled "
	    " FROM tmtp.batch x WHERE x.site_id = $1 AND x.message_id = $2) b "
	    "CROSS JOIN LATERAL (SELECT count(*) AS failed FROM tmtp.failure x "
	    " WHERE x.site_id = $1 AND x.message_id = $2) f "
	    "CROSS JOIN LATERAL (SELECT sum(x.recipients) FILTER (WHERE x.state IN (0, 3)) AS waiting, "
	    "  sum(x.recipients) FILTER (WHERE x.state = 1) AS done, "
	    "  sum(x.recipients) FILTER (WHERE x.state IN (2, 4)) AS dead "
	    " FROM tmtp.batch x WHERE x.site_id = $1 AND x.message_id = m.recall_id) t "
	    "CROSS JOIN LATERAL (SELECT count(*) AS failed FROM tmtp.failure x "
	    " WHERE x.site_id = $1 AND x.message_id = m.recall_id) tf "
	    "CROSS JOIN LATERAL (SELECT count(x.read_at) AS read, "
	    "  count(*) FILTER (WHERE x.read_at IS NULL) AS withdrawn FROM tmtp.receipt x "
	    " WHERE x.site_id = $1 AND x.message_id = $2) rc "
	    "WHERE m.site_id = $1 AND m.message_id = $2 AND m.recalls IS NULL",
	.types = (const Oid[]){ T_INT8, T_UUID, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_status,
	.rows = rows_status,
};

void
store_message_status(struct store *store, struct message_status *status)
{
	status->job.op = &status_op;
	store_submit(store, &status->job);
}

/* --- A site's messages --------------------------------------------------- */

static void
bind_list(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct message_list *list = (const struct message_list *)jobs[0];
	static const struct uuid none;
	struct uuid last;

	(void)n;
	memset(&last, 0xff, sizeof(last));
	args_i64(a, 0, list->site_id);
	args_uuid(a, 1,
	          memcmp(&list->before, &none, sizeof(none)) == 0 ? &last : &list->before);
	args_i64(a, 2, list->limit);
}

void
message_list_clear(struct message_list *list)
{
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_list(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct message_list *list = (struct message_list *)jobs[0];

	(void)n;
	message_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct message_summary *m = &list->rows[list->rows_n++];

		m->message_id = row_uuid(r, row, 0);
		row_copy(m->channel, sizeof(m->channel), r, row, 1);
		m->audience = row_i32(r, row, 2);
		m->lane = row_i32(r, row, 3);
		m->accepted_us = row_time(r, row, 4);
		m->recalled_us = row_time(r, row, 5);
		m->size = row_i32(r, row, 6);
	}
}

static const struct store_op list_op = {
	.name = "message_list",
	.sql =
	    "SELECT m.message_id, (SELECT c.name FROM tmtp.channel c "
	    "  WHERE c.site_id = m.site_id AND c.channel_id = m.channel_id), "
	    " m.audience::int4, m.lane::int4, m.accepted_at, m.recalled_at, m.size "
	    "FROM tmtp.message m WHERE m.site_id = $1 AND m.message_id < $2 AND m.recalls IS NULL "
	    "ORDER BY m.message_id DESC LIMIT $3",
	.types = (const Oid[]){ T_INT8, T_UUID, T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_list,
	.rows = rows_list,
};

void
store_message_list(struct store *store, struct message_list *list)
{
	list->job.op = &list_op;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}
