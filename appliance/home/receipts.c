/* RECEIPTs that arrive: see receipts.h. */
#include "home/receipts.h"

#include "base/clock.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "home/commands.h"
#include "store/receipts.h"

#include <stdlib.h>

METRIC_DEFINE(taken_total, METRIC_COUNTER, "tmtp_dmtp_receipts_total", NULL,
              "Receipts that other servers' members gave to sites here.");

struct receipt_call {
	struct receipt_take job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	struct dmtp_address from, to;
	struct receipt_in *rows;
	uint8_t *memory; /* grants */
};

static void
call_free(struct receipt_call *c)
{
	free(c->rows);
	free(c->memory);
	free(c);
}

static void
on_taken(void *arg)
{
	struct receipt_call *c = arg;
	struct dmtp_response r = DMTP_RESPONSE_K;

	if (c->job.job.rc != STORE_OK)
		r = command_response_down();
	metric_add(&taken_total, c->job.taken);
	dmtp_session_reply(c->session, c->seq, &r);
	call_free(c);
}

/* Ids of another form are no message of ours. A time that can't be is brought to one that can. */
static size_t
read_rows(struct receipt_call *c, const struct dmtp_receipt *receipt, int64_t now_s)
{
	uint8_t *at = c->memory;
	struct dmtp_receipt_row row;
	struct ben_reader it;
	size_t n = 0;

	ben_reader_init(&it, receipt->events);
	while (dmtp_receipt_next(&it, &row)) {
		struct receipt_in *in = &c->rows[n];
		int64_t date = row.date < 0 ? 0 : row.date > now_s ? now_s : row.date;

		if (!uuid_parse(row.id, &in->message_id))
			continue;
		memcpy(at, row.grant, DMTP_GRANT_LEN);
		in->grant = at;
		at += DMTP_GRANT_LEN;
		in->kind = row.kind == DMTP_READ ? RECEIPT_READ : RECEIPT_WITHDRAWN;
		in->at_us = date * 1000000;
		n++;
	}
	return n;
}

void
receipts_take(struct dmtp_session *s, uint64_t seq, const struct dmtp_receipt *receipt,
              size_t octets)
{
	struct home *home = dmtp_session_home(s);
	struct receipt_call *c = calloc(1, sizeof(*c));
	struct dmtp_response down = command_response_down();

	if (c != NULL) {
		c->rows = calloc(receipt->event_count + 1, sizeof(*c->rows));
		c->memory = malloc(octets);
	}
	if (c == NULL || c->rows == NULL || c->memory == NULL ||
	    dmtp_address_parse(receipt->from, &c->from) != DMTP_ADDRESS_OK ||
	    dmtp_address_parse(receipt->to, &c->to) != DMTP_ADDRESS_OK) {
		if (c != NULL)
			call_free(c);
		dmtp_session_reply(s, seq, &down);
		return;
	}
	c->session = s;
	c->seq = seq;
	c->job.now_us = clock_wall_us();
	c->job.domain = dmtp_address_domain(&c->from);
	c->job.site_domain = dmtp_address_domain(&c->to);
	c->job.site_name = dmtp_address_local(&c->to);
	c->job.rows = c->rows;
	c->job.rows_n = read_rows(c, receipt, c->job.now_us / 1000000);
	home_later(&c->later, home, &c->job.job, on_taken, c);
	store_receipt_take(home->store, &c->job);
}
