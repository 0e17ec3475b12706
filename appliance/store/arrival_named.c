/* Recipients by name: see arrivals.h. */
#include "store/arrivals.h"
#include "store/op.h"

static void
bind_named(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct arrival_named *w = (const struct arrival_named *)jobs[0];

	(void)n;
	args_slice(a, 0, w->from);
	for (size_t i = 0; i < w->rcpts_n; i++) {
		args_i32(a, 1, (int32_t)i);
		args_slice(a, 2, w->rcpts[i].domain);
		args_slice(a, 3, w->rcpts[i].name);
	}
}

static void
rows_named(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct arrival_named *w = (struct arrival_named *)jobs[0];

	(void)n;
	for (int row = 0; row < PQntuples(r); row++) {
		size_t i = (size_t)row_i32(r, row, 0);
		struct slice grant = row_slice(r, row, 1);

		if (i < w->rcpts_n && grant.len == sizeof(w->rcpts[i].grant))
			memcpy(w->rcpts[i].grant, grant.data, grant.len);
	}
}

/* clang-format off */
static const struct store_op named_run = {
	.name = "arrival_named",
	.sql =
	    "SELECT r.idx, c.grant_id FROM unnest($2::int4[], $3::text[], $4::text[]) AS r(idx, domain, name) "
	    "LEFT JOIN LATERAL (SELECT k.account_id FROM tmtp.account k "
	    " WHERE k.domain = r.domain AND k.name = r.name LIMIT 1) a ON true "
	    "LEFT JOIN LATERAL (SELECT k.grant_id FROM tmtp.consent k WHERE k.account_id = a.account_id "
	    " AND k.sender_id = (SELECT s.sender_id FROM tmtp.sender s WHERE s.address = $1) "
	    " AND k.channel = 'inbox' AND k.state = 1 LIMIT 1) c ON true",
	.types = (const Oid[]){ T_TEXT, T_INT4S, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_named,
	.rows = rows_named,
};
/* clang-format on */

void
store_arrival_named(struct store *store, struct arrival_named *named)
{
	named->job.op = &named_run;
	store_submit(store, &named->job);
}
