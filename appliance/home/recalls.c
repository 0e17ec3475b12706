/* Recalls that arrive: see recalls.h. */
#include "home/recalls.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/commands.h"
#include "home/live.h"
#include "store/recalls.h"

#include <stdlib.h>

METRIC_DEFINE(withdrawn_total, METRIC_COUNTER, "tmtp_inbox_withdrawn_total", NULL,
              "Entries of members that were withdrawn by their senders.");

struct recall_call {
	struct arrival_recall job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	uint8_t *memory; /* what the job's slices borrow from */
	uint32_t *index; /* the POST's index of each of the job's rcpts */
	struct buffer failed;
};

static void
call_free(struct recall_call *c)
{
	arrival_recall_clear(&c->job);
	free(c->job.rcpts);
	free(c->index);
	free(c->memory);
	buffer_free(&c->failed);
	free(c);
}

static void
close_rcpt(struct recall_call *c, uint32_t index)
{
	dmtp_failed_put(&c->failed, index, DMTP_E, DMTP_CODE_CHANNEL_CLOSED);
}

static void
answer(struct recall_call *c)
{
	struct dmtp_response r = DMTP_RESPONSE_K;

	if (c->job.job.rc != STORE_OK)
		r = command_response_down();
	else if (c->job.outcome == ARRIVAL_CONFLICT)
		r = dmtp_response_make(DMTP_E, DMTP_CODE_DUPLICATE_CONFLICT, 0);
	else if (c->failed.failed)
		r = dmtp_response_make(DMTP_Z, DMTP_CODE_STORAGE, 60);
	else
		r.failed = buffer_slice(&c->failed);
	dmtp_session_reply(c->session, c->seq, &r);
}

static void
on_recalled(void *arg)
{
	struct recall_call *c = arg;
	struct arrival_recall *job = &c->job;

	if (job->job.rc == STORE_OK && job->outcome == ARRIVAL_STORED) {
		for (size_t i = 0; i < job->rcpts_n; i++)
			if (job->rcpts[i].closed)
				close_rcpt(c, c->index[i]);
		live_changed(c->later.home->live, &job->notification_id, job->accounts,
		             job->accounts_n);
		metric_add(&withdrawn_total, (int64_t)job->accounts_n);
		if (job->accounts_n > 0)
			log_info("recall-taken", LOG_B("from", job->from),
			         LOG_B("id", job->recall),
			         LOG_I("entries", (int64_t)job->accounts_n));
	}
	answer(c);
	call_free(c);
}

static struct slice
keep(uint8_t **at, struct slice s)
{
	struct slice kept = slice_mem(*at, s.len);

	if (s.len > 0)
		memcpy(*at, s.data, s.len);
	*at += s.len;
	return kept;
}

/* An invitation is nobody's entry: its recall is acknowledged, and that is all. */
static void
take_rcpts(struct recall_call *c, uint8_t **at, const struct dmtp_post *post)
{
	struct ben_reader it;
	struct dmtp_rcpt rcpt;
	uint32_t index = 0;

	ben_reader_init(&it, post->rcpts);
	for (; dmtp_rcpt_next(&it, &rcpt); index++) {
		if (rcpt.grant != NULL) {
			c->index[c->job.rcpts_n] = index;
			c->job.rcpts[c->job.rcpts_n++].grant =
			    keep(at, slice_mem(rcpt.grant, DMTP_GRANT_LEN)).data;
		} else if (rcpt.known != DMTP_CHANNEL_INVITE) {
			close_rcpt(c, index);
		}
	}
}

static void
submit(struct recall_call *c, struct home *home, const struct dmtp_post *post)
{
	struct arrival_recall *job = &c->job;
	uint8_t *at = c->memory;

	job->from = keep(&at, post->from);
	job->id = keep(&at, post->id);
	job->recall = keep(&at, post->recall);
	job->digest = keep(&at, post->digest);
	job->size = post->size;
	job->date_s = post->date;
	job->now_us = clock_wall_us();
	job->fresh_id = uuid_make();
	job->slot = home->slot;
	take_rcpts(c, &at, post);
	home_later(&c->later, home, &job->job, on_recalled, c);
	store_arrival_recall(home->store, job);
}

void
recalls_take(struct dmtp_session *s, uint64_t seq, const struct dmtp_post *post, size_t octets)
{
	struct recall_call *c = calloc(1, sizeof(*c));
	struct dmtp_response down = command_response_down();

	if (c != NULL) {
		c->session = s;
		c->seq = seq;
		buffer_init(&c->failed, DMTP_RESPONSE_MAX);
		c->job.rcpts = calloc(post->rcpt_count + 1, sizeof(*c->job.rcpts));
		c->index = calloc(post->rcpt_count + 1, sizeof(*c->index));
		c->memory = malloc(octets);
	}
	if (c == NULL || c->job.rcpts == NULL || c->index == NULL || c->memory == NULL) {
		if (c != NULL)
			call_free(c);
		dmtp_session_reply(s, seq, &down);
		return;
	}
	submit(c, dmtp_session_home(s), post);
}
