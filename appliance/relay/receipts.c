/* Receipts on their way: see receipts.h. */
#include "relay/receipts.h"

#include "base/metric.h"
#include "relay/errands.h"
#include "store/receipts.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_MS 2000
#define CLAIM_MAX 500
#define GROUP_MAX DMTP_FLOOR_RCPTS /* of one command: what every peer takes */

METRIC_DEFINE(sent_total, METRIC_COUNTER, "tmtp_relay_receipts_total", NULL,
              "Receipts that sites were told.");

struct receipts {
	struct errands errands; /* first */
	struct receipt_claim claim;
};

/* What goes in one command: of one domain's members to one sender. */
struct group {
	struct errand errand;               /* first */
	struct receipt_out rows[GROUP_MAX]; /* owned */
	size_t n;
	struct receipt_finish finish;
};

static struct store_job *
prepare_claim(struct errands *errands, const struct errands_claim *claim)
{
	struct receipts *receipts = (struct receipts *)errands;

	receipts->claim = (struct receipt_claim){
		.now_us = claim->now_us,
		.lease_until_us = claim->lease_until_us,
		.skip = claim->skip,
		.skip_n = claim->skip_n,
		.limit = claim->limit,
	};
	return &receipts->claim.job;
}

static void
submit_claim(struct store *store, struct store_job *job)
{
	store_receipt_claim(store, (struct receipt_claim *)job);
}

static bool
go_together(const struct receipt_out *a, const struct receipt_out *b)
{
	const char *x = a->account == NULL ? NULL : strrchr(a->account, '@');
	const char *y = b->account == NULL ? NULL : strrchr(b->account, '@');

	return a->is_void == b->is_void && a->sender_id == b->sender_id &&
	       a->domain_id == b->domain_id && x != NULL && y != NULL && strcmp(x, y) == 0;
}

/* Takes the rows. */
static void
begin_group(struct receipts *receipts, struct receipt_out *rows, size_t n)
{
	struct group *g = calloc(1, sizeof(*g));
	const struct receipt_out *first;

	if (g == NULL)
		return; /* their lease runs out */
	memcpy(g->rows, rows, n * sizeof(*rows));
	memset(rows, 0, n * sizeof(*rows));
	g->n = n;
	first = &g->rows[0];
	if (first->is_void)
		errand_void(&g->errand, &receipts->errands);
	else
		errand_begin(&g->errand, &receipts->errands, first->domain_id,
		             first->sender == NULL ? NULL : first->domain, first->account, 1,
		             first->sender_id, first->notification_id);
}

static size_t
begin(struct errands *errands)
{
	struct receipts *receipts = (struct receipts *)errands;
	struct receipt_claim *claim = &receipts->claim;
	size_t n = claim->rows_n;

	for (size_t first = 0, end; first < n; first = end) {
		for (end = first + 1; end < n && end - first < GROUP_MAX &&
		                      go_together(&claim->rows[first], &claim->rows[end]);)
			end++;
		begin_group(receipts, &claim->rows[first], end - first);
	}
	receipt_claim_clear(claim);
	return n;
}

static void
encode(const struct errand *errand, struct buffer *out)
{
	const struct group *g = (const struct group *)errand;
	struct dmtp_receipt receipt = { .from = slice_str(g->rows[0].account),
		                        .to = slice_str(g->rows[0].sender) };
	struct buffer events;

	buffer_init(&events, DMTP_FLOOR_COMMAND);
	for (size_t i = 0; i < g->n; i++) {
		const struct receipt_out *o = &g->rows[i];
		struct dmtp_receipt_row row = {
			.id = slice_str(o->id),
			.grant = o->grant,
			.kind = o->kind == RECEIPT_READ ? DMTP_READ : DMTP_WITHDRAWN,
			.date = o->date_s,
		};

		dmtp_receipt_put(&row, &events);
	}
	receipt.events = buffer_slice(&events);
	dmtp_receipt_encode(&receipt, out);
	buffer_free(&events);
}

static struct store_job *
prepare_finish(struct errand *errand, bool sent, int64_t not_before_us)
{
	struct group *g = (struct group *)errand;

	g->finish = (struct receipt_finish){
		.rows = g->rows,
		.rows_n = g->n,
		.sent = sent,
		.not_before_us = not_before_us,
	};
	return &g->finish.job;
}

static void
submit_finish(struct store *store, struct store_job *job)
{
	store_receipt_finish(store, (struct receipt_finish *)job);
}

static void
answered(const struct errand *errand)
{
	metric_add(&sent_total, (int64_t)((const struct group *)errand)->n);
}

static void
free_group(struct errand *errand)
{
	struct group *g = (struct group *)errand;

	for (size_t i = 0; i < g->n; i++)
		receipt_out_clear(&g->rows[i]);
	free(g);
}

static const struct errands_kind kind = {
	.name = "receipts",
	.verb = DMTP_RECEIPT,
	.ext = DMTP_EXT_RECEIPT,
	.needless = true, /* it doesn't want to know */
	.every_ms = LOOK_EVERY_MS,
	.claim_max = CLAIM_MAX,
	.size = sizeof(struct receipts),
	.claim = prepare_claim,
	.submit_claim = submit_claim,
	.begin = begin,
	.encode = encode,
	.finish = prepare_finish,
	.submit_finish = submit_finish,
	.answered = answered,
	.free = free_group,
};

struct receipts *
receipts_new(struct relay *relay)
{
	return (struct receipts *)errands_new(relay, &kind);
}

void
receipts_free(struct receipts **receipts)
{
	errands_free((struct errands *)*receipts);
	*receipts = NULL;
}

void
receipts_wake(struct receipts *receipts)
{
	errands_wake(&receipts->errands);
}
