/* What a sender may ask about its channels: see channels_asked.h. */
#include "store/channels_asked.h"

#include "store/op.h"
#include "store/rows.h"

#include <stdlib.h>

static void
bind_channels(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct channels_get *c = (const struct channels_get *)jobs[0];

	(void)n;
	args_slice(a, 0, c->from);
	for (size_t i = 0; i < c->users_n; i++) {
		const uint8_t *at = memrchr(c->users[i].data, '@', c->users[i].len);
		size_t local = at == NULL ? 0 : (size_t)(at - c->users[i].data);

		args_slice(a, 1, slice_mem(c->users[i].data, local));
		args_slice(a, 2,
		           at == NULL ? (struct slice){ NULL, 0 }
		                      : slice_mem(at + 1, c->users[i].len - local - 1));
	}
}

static void
rows_channels(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct channels_get *c = (struct channels_get *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	channels_get_clear(c);
	c->rows = calloc((size_t)count + 1, sizeof(*c->rows));
	if (c->rows == NULL) {
		c->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		struct slice grant = row_slice(r, row, 2);

		c->rows[row].address = row_text(r, row, 0);
		c->rows[row].channel = row_text(r, row, 1);
		if (grant.len == sizeof(c->rows[row].grant))
			memcpy(c->rows[row].grant, grant.data, grant.len);
	}
	c->rows_n = (size_t)count;
}

static const struct store_op channels_run = {
	.name = "channels_get",
	.sql =
	    "SELECT a.name || '@' || a.domain, c.channel, c.grant_id "
	    "FROM unnest($2::text[], $3::text[]) AS u(name, domain) "
	    "JOIN tmtp.account a ON a.domain = u.domain AND a.name = u.name AND a.disabled_at IS NULL "
	    "JOIN tmtp.consent c ON c.account_id = a.account_id AND c.state = 1 "
	    " AND c.sender_id = (SELECT sender_id FROM tmtp.sender WHERE address = $1) "
	    "ORDER BY 1, 2",
	.types = (const Oid[]){ T_TEXT, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_channels,
	.rows = rows_channels,
};

void
store_channels_get(struct store *store, struct channels_get *get)
{
	get->job.op = &channels_run;
	get->rows = NULL;
	get->rows_n = 0;
	store_submit(store, &get->job);
}

void
channels_get_clear(struct channels_get *get)
{
	for (size_t i = 0; i < get->rows_n; i++) {
		free(get->rows[i].address);
		free(get->rows[i].channel);
	}
	free(get->rows);
	get->rows = NULL;
	get->rows_n = 0;
}

static void
bind_since(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct channels_since *s = (const struct channels_since *)jobs[0];
	struct uuid before = uuid_floor(s->before_us);

	(void)n;
	args_slice(a, 0, s->from);
	args_uuid(a, 1, &s->since);
	args_i64(a, 2, s->limit);
	if (s->before_us > 0)
		args_uuid(a, 3, &before);
}

static void
rows_since(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct channels_since *s = (struct channels_since *)jobs[0];
	int count = PQntuples(r);

	(void)n;
	channels_since_clear(s);
	s->rows = calloc((size_t)count + 1, sizeof(*s->rows));
	if (s->rows == NULL) {
		s->job.rc = STORE_DOWN;
		return;
	}
	for (int row = 0; row < count; row++) {
		struct consent_event *e = &s->rows[row];
		struct slice grant = row_slice(r, row, 3);

		e->address = row_text(r, row, 0);
		e->channel = row_text(r, row, 1);
		e->state = row_i32(r, row, 2);
		e->has_grant = grant.len == sizeof(e->grant);
		if (e->has_grant)
			memcpy(e->grant, grant.data, grant.len);
		e->receipts = row_bool(r, row, 4);
		e->date_s = row_i64(r, row, 5);
		e->changed_id = row_uuid(r, row, 6);
		e->presence = row_bool(r, row, 7);
	}
	s->rows_n = (size_t)count;
}

static const struct store_op since_run = {
	.name = "channels_since",
	.sql =
	    "SELECT a.name || '@' || a.domain, c.channel, c.state::int4, c.grant_id, c.receipts, "
	    " c.grant_date, c.changed_id, c.presence "
	    "FROM tmtp.sender s JOIN tmtp.consent c ON c.sender_id = s.sender_id AND c.state > 0 "
	    " AND c.changed_id > $2 "
	    "JOIN tmtp.account a ON a.account_id = c.account_id "
	    "WHERE s.address = $1 AND ($4::uuid IS NULL OR c.changed_id < $4) "
	    "ORDER BY c.changed_id LIMIT $3",
	.types = (const Oid[]){ T_TEXT, T_UUID, T_INT8, T_UUID, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_since,
	.rows = rows_since,
};

void
store_channels_since(struct store *store, struct channels_since *since)
{
	since->job.op = &since_run;
	since->rows = NULL;
	since->rows_n = 0;
	store_submit(store, &since->job);
}

void
channels_since_clear(struct channels_since *since)
{
	for (size_t i = 0; i < since->rows_n; i++) {
		free(since->rows[i].address);
		free(since->rows[i].channel);
	}
	free(since->rows);
	since->rows = NULL;
	since->rows_n = 0;
}
