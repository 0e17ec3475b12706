/* GRANTs on their way: see grants.h. */
#include "relay/grants.h"

#include "relay/errands.h"
#include "store/peers.h"

#include <stdlib.h>

#define LOOK_EVERY_MS 1000
#define CLAIM_MAX 256

struct grants {
	struct errands errands; /* first */
	struct grant_claim claim;
};

/* One GRANT. */
struct grant {
	struct errand errand; /* first */
	struct grant_out row; /* owned */
	struct grant_finish finish;
};

static void
row_free(struct grant_out *row)
{
	free(row->account);
	free(row->sender);
	free(row->channel);
	free(row->domain);
	*row = (struct grant_out){ .account = NULL };
}

static struct store_job *
prepare_claim(struct errands *errands, const struct errands_claim *claim)
{
	struct grants *grants = (struct grants *)errands;

	grants->claim = (struct grant_claim){
		.now_us = claim->now_us,
		.lease_until_us = claim->lease_until_us,
		.skip = claim->skip,
		.skip_n = claim->skip_n,
		.limit = claim->limit,
	};
	return &grants->claim.job;
}

static void
submit_claim(struct store *store, struct store_job *job)
{
	store_grant_claim(store, (struct grant_claim *)job);
}

/* One member's stay on one session: their order matters. */
static void
begin_one(struct grants *grants, struct grant_out *row)
{
	struct grant *g = calloc(1, sizeof(*g));

	if (g == NULL) { /* its lease runs out */
		row_free(row);
		return;
	}
	g->row = *row;
	*row = (struct grant_out){ .account = NULL };
	row = &g->row;
	errand_begin(&g->errand, &grants->errands, row->domain_id,
	             row->sender == NULL || row->channel == NULL ? NULL : row->domain,
	             row->account, 0, row->account_id, row->changed_id);
}

static size_t
begin(struct errands *errands)
{
	struct grants *grants = (struct grants *)errands;
	size_t n = grants->claim.rows_n;

	for (size_t i = 0; i < n; i++)
		begin_one(grants, &grants->claim.rows[i]);
	grant_claim_clear(&grants->claim);
	return n;
}

static void
encode(const struct errand *errand, struct buffer *out)
{
	static const enum dmtp_state states[] = { 0, DMTP_GRANTED, DMTP_REFUSED, DMTP_REVOKED };
	const struct grant_out *row = &((const struct grant *)errand)->row;
	struct dmtp_grant grant = {
		.from = slice_str(row->account),
		.to = slice_str(row->sender),
		.channel = slice_str(row->channel),
		.state = states[row->state & 3],
		.receipts = row->receipts,
		.presence = row->presence,
		.date = row->date_s,
	};

	if (row->has_grant && row->state != 2)
		grant.grant = slice_mem(row->grant, sizeof(row->grant));
	dmtp_grant_encode(&grant, out);
}

static struct store_job *
prepare_finish(struct errand *errand, bool sent, int64_t not_before_us)
{
	struct grant *g = (struct grant *)errand;

	g->finish = (struct grant_finish){
		.account_id = g->row.account_id,
		.sender_id = g->row.sender_id,
		.channel = g->row.channel,
		.changed_id = g->row.changed_id,
		.sent = sent,
		.not_before_us = not_before_us,
	};
	return &g->finish.job;
}

static void
submit_finish(struct store *store, struct store_job *job)
{
	store_grant_finish(store, (struct grant_finish *)job);
}

static void
free_grant(struct errand *errand)
{
	struct grant *g = (struct grant *)errand;

	row_free(&g->row);
	free(g);
}

static const struct errands_kind kind = {
	.name = "grant",
	.verb = DMTP_GRANT,
	.ext = DMTP_EXT_GRANT,
	.every_ms = LOOK_EVERY_MS,
	.claim_max = CLAIM_MAX,
	.size = sizeof(struct grants),
	.claim = prepare_claim,
	.submit_claim = submit_claim,
	.begin = begin,
	.encode = encode,
	.finish = prepare_finish,
	.submit_finish = submit_finish,
	.free = free_grant,
};

struct grants *
grants_new(struct relay *relay)
{
	return (struct grants *)errands_new(relay, &kind);
}

void
grants_free(struct grants **grants)
{
	errands_free((struct errands *)*grants);
	*grants = NULL;
}

void
grants_wake(struct grants *grants)
{
	errands_wake(&grants->errands);
}
