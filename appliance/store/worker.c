/* A worker connection: see worker.h. */
#include "store/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/upkeep.h"

#include <poll.h>
#include <stdlib.h>

/* Of two that meet one goes on each time; each meeting may cost the other a deadlock and a second look. */
#define RACES_MAX 20
/* No statement takes so long (statement_timeout in link.c): who still works on one is stuck. */
#define STUCK_MS 75000
/* Partitions that were made so short ago are there: what still finds none is at fault itself. */
#define MENDED_MS 1000

void
worker_init(struct worker *c, struct store *store, unsigned lanes, const char *conninfo,
            const char *name, const char *process)
{
	*c = (struct worker){ .store = store, .lanes = lanes };
	link_init(&c->link, conninfo, name, process);
	args_init(&c->args);
	buffer_init(&c->message, 1024);
}

static void
set_finish(struct worker *c, struct set *set, enum store_rc rc)
{
	for (size_t i = 0; i < set->n; i++)
		store_finish(c->store, set->job[i], rc);
	free(set);
}

void
worker_deinit(struct worker *c)
{
	struct set *set;

	if (c->set != NULL)
		set_finish(c, c->set, STORE_COMMIT_UNKNOWN);
	c->set = NULL;
	while ((set = c->again) != NULL) {
		c->again = set->next;
		set_finish(c, set, STORE_DOWN);
	}
	link_deinit(&c->link);
	args_deinit(&c->args);
	buffer_free(&c->message);
	free(c->items);
}

bool
worker_is_idle(const struct worker *c)
{
	return c->link.state == LINK_UP && c->set == NULL;
}

bool
worker_unsent(const struct worker *c)
{
	return c->set != NULL;
}

/* Sets that were put aside go back to their lane, in front and in order: another connection may take them. */
static void
give_back(struct worker *c)
{
	struct set *reversed = NULL, *set;

	while ((set = c->again) != NULL) {
		c->again = set->next;
		set->next = reversed;
		reversed = set;
	}
	while ((set = reversed) != NULL) {
		reversed = set->next;
		for (size_t i = set->n; i > 0; i--)
			store_again(c->store, set->job[i - 1], STORE_DOWN);
		free(set);
	}
}

/*
 * The connection is gone with a set in flight. Whether it was committed can't
 * be known: what may run twice does, the rest is told so.
 */
void
worker_lose(struct worker *c, int64_t now_ms, const char *text)
{
	struct set *set = c->set;

	link_fail(&c->link, now_ms, text);
	c->set = NULL;
	c->prepared_n = 0;
	give_back(c);
	if (set != NULL) {
		for (size_t i = set->n; i > 0; i--) {
			struct store_job *job = set->job[i - 1];

			job->uncertain = true;
			if (job->op->repeatable)
				store_again(c->store, job, STORE_COMMIT_UNKNOWN);
			else
				store_finish(c->store, job, STORE_COMMIT_UNKNOWN);
		}
		free(set);
	}
	store_link_changed(c->store);
}

static bool
is_prepared(const struct worker *c, const struct store_op *op)
{
	for (size_t i = 0; i < c->prepared_n; i++)
		if (c->prepared[i] == op)
			return true;
	return false;
}

static struct item *
item_add(struct worker *c)
{
	if (c->items_n == c->items_cap) {
		size_t cap = c->items_cap == 0 ? 16 : c->items_cap * 2;
		struct item *items = realloc(c->items, cap * sizeof(*items));

		if (items == NULL)
			return NULL;
		c->items = items;
		c->items_cap = cap;
	}
	c->items[c->items_n] = (struct item){ .op = NULL };
	return &c->items[c->items_n++];
}

/* Brings jobs of one statement together, keeping their order; lists executions in items. */
static bool
plan_items(struct worker *c, struct set *set)
{
	size_t done = 0;

	c->items_n = c->at = 0;
	while (done < set->n) {
		const struct store_op *op = set->job[done]->op;
		size_t max = op->batch_max == 0 ? 1 : op->batch_max;
		size_t end = done;
		struct item *item;

		for (size_t i = done; i < set->n && end - done < max; i++) {
			struct store_job *job = set->job[i];

			if (job->op != op)
				continue;
			memmove(&set->job[end + 1], &set->job[end],
			        (i - end) * sizeof(struct store_job *));
			set->job[end++] = job;
		}
		if (!is_prepared(c, op)) {
			item = item_add(c);
			if (item == NULL)
				return false;
			item->op = op;
			item->prepare = true;
			if (c->prepared_n == WORKER_OPS_MAX)
				return false;
			c->prepared[c->prepared_n++] = op;
		}
		item = item_add(c);
		if (item == NULL)
			return false;
		*item = (struct item){ .op = op, .first = done, .n = end - done };
		done = end;
	}
	return item_add(c) != NULL; /* the Sync */
}

static bool
send_item(struct worker *c, struct set *set, const struct item *item)
{
	const char *values[ARGS_MAX];
	int lengths[ARGS_MAX], formats[ARGS_MAX];
	int types = 0;

	if (item->op == NULL)
		return PQpipelineSync(c->link.pg) == 1;
	if (item->prepare) {
		while (item->op->types[types] != 0)
			types++;
		return PQsendPrepare(c->link.pg, item->op->name, item->op->sql, types,
		                     item->op->types) == 1;
	}
	args_begin(&c->args, item->op->types);
	item->op->bind(&c->args, &set->job[item->first], item->n);
	if (!args_finish(&c->args, values, lengths, formats))
		return false;
	return PQsendQueryPrepared(c->link.pg, item->op->name, (int)c->args.n, values, lengths,
	                           formats, 1) == 1;
}

static void
flush(struct worker *c, int64_t now_ms)
{
	if (PQflush(c->link.pg) < 0)
		worker_lose(c, now_ms, NULL);
}

void
worker_send(struct worker *c, struct set *set, int64_t now_ms)
{
	c->set = set;
	c->sent_ms = now_ms;
	c->failed = NULL;
	c->no_partition = false;
	c->sqlstate[0] = '\0';
	if (!plan_items(c, set)) {
		worker_lose(c, now_ms, "out of memory for a transaction");
		return;
	}
	for (size_t i = 0; i < set->n; i++)
		set->job[i]->rc = STORE_OK;
	for (size_t i = 0; i < c->items_n; i++) {
		if (!send_item(c, set, &c->items[i])) {
			worker_lose(c, now_ms, NULL);
			return;
		}
	}
	flush(c, now_ms);
}

static void
push_again(struct worker *c, struct store_job *const *jobs, size_t n)
{
	struct set *set;

	if (n == 0)
		return;
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): its array is one of pointers */
	set = malloc(sizeof(*set) + n * sizeof(set->job[0]));
	if (set == NULL) {
		for (size_t i = 0; i < n; i++)
			store_finish(c->store, jobs[i], STORE_DOWN);
		return;
	}
	set->n = n;
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are copied */
	memcpy(set->job, jobs, n * sizeof(set->job[0]));
	set->next = c->again;
	c->again = set;
}

static bool
class_is(const struct worker *c, const char *class)
{
	return strncmp(c->sqlstate, class, 2) == 0;
}

/* PostgreSQL's appendix A: these classes speak of the server, not of the data. */
static bool
is_server_trouble(const struct worker *c)
{
	return class_is(c, "08") || class_is(c, "53") || class_is(c, "57") ||
	       class_is(c, "58") || class_is(c, "XX") || strcmp(c->sqlstate, "25006") == 0;
}

static void
log_failure(const struct worker *c, const struct store_op *op, const char *event)
{
	log_error(event, LOG_S("statement", op->name), LOG_S("sqlstate", c->sqlstate),
	          LOG_B("reason", buffer_slice(&c->message)));
}

/* The same transaction once more, before anything else: the lane's order stays. */
static void
run_again(struct worker *c, struct set *set)
{
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++) {
		if (store_may_again(set->job[i], RACES_MAX))
			set->job[n++] = set->job[i];
		else
			store_finish(c->store, set->job[i], STORE_DOWN);
	}
	push_again(c, set->job, n);
}

/* None of this statement's jobs can succeed; the others can. */
static void
leave_out(struct worker *c, struct set *set, const struct store_op *op, enum store_rc rc)
{
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++) {
		if (set->job[i]->op == op)
			store_finish(c->store, set->job[i], rc);
		else
			set->job[n++] = set->job[i];
	}
	push_again(c, set->job, n);
}

/* In the set's order: what stands before the jobs of which one was bad, they by halves, the rest. */
static void
run_parts(struct worker *c, const struct set *set, size_t first, size_t n)
{
	size_t half = n / 2, end = first + n;

	push_again(c, &set->job[end], set->n - end);
	push_again(c, &set->job[first + half], n - half);
	push_again(c, &set->job[first], half);
	push_again(c, set->job, first);
}

/* --- Days without partitions ------------------------------------------------ */

struct mending {
	struct upkeep_partitions partitions;
	struct worker *worker;
};

static void
on_mended(struct store_job *job)
{
	struct mending *m = (struct mending *)job;

	m->worker->mended_ms = clock_mono_ms();
	m->worker->mend_rc = job->rc;
	if (job->rc == STORE_OK)
		log_info("partitions-made", LOG_I("count", m->partitions.made));
	else
		log_error("partitions-missing", LOG_S("reason", store_rc_text(job->rc)));
	free(m);
}

/*
 * Upkeep makes the days ahead; when it could not, whoever meets the missing one makes it, and its
 * transaction runs again behind that. False: it was done already, and helped nobody.
 */
static bool
mend(struct worker *c, struct set *set, const struct store_op *op)
{
	int64_t now_ms = clock_mono_ms();
	struct store_job *job;
	struct mending *m;

	if (c->mended_ms > 0 && now_ms - c->mended_ms < MENDED_MS) {
		if (c->mend_rc == STORE_OK)
			return false;
		leave_out(c, set, op, STORE_DOWN);
		return true;
	}
	m = calloc(1, sizeof(*m));
	if (m == NULL) {
		leave_out(c, set, op, STORE_DOWN);
		return true;
	}
	m->worker = c;
	m->partitions.now_us = clock_wall_us();
	job = &m->partitions.job;
	job->op = &upkeep_partitions_op;
	job->done = on_mended;
	job->deadline_ms = now_ms + 10000;
	run_again(c, set);
	push_again(c, &job, 1);
	return true;
}

/* The set was rolled back: runs again what may succeed without the job that was at fault. */
static void
resolve_failure(struct worker *c, struct set *set, const struct item *failed)
{
	/* A commit that fails has no statement to blame: each job is suspect. */
	const struct store_op *op = failed->op != NULL ? failed->op : set->job[0]->op;
	size_t first = failed->op != NULL ? failed->first : 0;
	size_t n = failed->op != NULL ? failed->n : set->n;

	if (c->no_partition && mend(c, set, op)) {
		free(set);
		return;
	}
	if (class_is(c, "40")) { /* serialization failure, deadlock */
		run_again(c, set);
	} else if (is_server_trouble(c)) {
		log_failure(c, op, "database-refuses");
		for (size_t i = 0; i < set->n; i++)
			store_finish(c->store, set->job[i], STORE_DOWN);
	} else if (failed->prepare) {
		log_failure(c, op, "statement-refused");
		leave_out(c, set, op, STORE_REFUSED);
	} else if (set->n == 1) {
		log_failure(c, op, "statement-refused");
		store_finish(c->store, set->job[0],
		             strcmp(c->sqlstate, "23505") == 0 ? STORE_CONFLICT
		                                               : STORE_REFUSED);
	} else {
		run_parts(c, set, first, n);
	}
	free(set);
}

static void
conclude(struct worker *c)
{
	struct set *set = c->set;

	c->set = NULL;
	if (c->failed != NULL) {
		resolve_failure(c, set, c->failed);
		return;
	}
	for (size_t i = 0; i < set->n; i++) {
		if (set->job[i]->op->wakes != NULL &&
		    (i == 0 || set->job[i - 1]->op != set->job[i]->op))
			store_wake(c->store, set->job[i]->op->wakes);
	}
	for (size_t i = 0; i < set->n; i++)
		store_finish(c->store, set->job[i], set->job[i]->rc);
	free(set);
}

static void
forget_prepared(struct worker *c, const struct store_op *op)
{
	for (size_t i = 0; i < c->prepared_n; i++) {
		if (c->prepared[i] == op) {
			c->prepared[i] = c->prepared[--c->prepared_n];
			return;
		}
	}
}

static void
take_result(struct worker *c, const PGresult *r)
{
	const struct item *item = &c->items[c->at];
	ExecStatusType status = PQresultStatus(r);
	const char *state;

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
		if (!item->prepare && item->op != NULL && item->op->rows != NULL)
			item->op->rows(r, &c->set->job[item->first], item->n);
		return;
	}
	if (item->prepare && item->op != NULL)
		forget_prepared(c, item->op);
	if (status == PGRES_PIPELINE_ABORTED || c->failed != NULL)
		return;
	state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	(void)snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", state == NULL ? "XX000" : state);
	/* A row that breaks a CHECK names its constraint. */
	c->no_partition = strcmp(c->sqlstate, "23514") == 0 &&
	                  PQresultErrorField(r, PG_DIAG_TABLE_NAME) != NULL &&
	                  PQresultErrorField(r, PG_DIAG_CONSTRAINT_NAME) == NULL;
	state = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	buffer_clear(&c->message);
	buffer_add_str(&c->message, state == NULL ? PQresultErrorMessage(r) : state);
	c->failed = item;
}

/* Takes what has arrived; true while there may be more. */
static bool
read_some(struct worker *c)
{
	PGresult *r;

	if (c->set == NULL || PQisBusy(c->link.pg) != 0)
		return false;
	r = PQgetResult(c->link.pg);
	if (r == NULL) {
		if (PQstatus(c->link.pg) == CONNECTION_BAD)
			return false;
		if (c->items[c->at].op != NULL)
			c->at++; /* NULL ends one statement's results; a Sync has no such end */
		return true;
	}
	if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) {
		PQclear(r);
		conclude(c);
		return true;
	}
	take_result(c, r);
	PQclear(r);
	return true;
}

void
worker_step(struct worker *c, int64_t now_ms, short revents)
{
	int64_t retry_at_ms = c->link.retry_at_ms;

	if (link_step(&c->link, now_ms, revents)) {
		if (PQenterPipelineMode(c->link.pg) != 1)
			worker_lose(c, now_ms, NULL);
		store_link_changed(c->store);
		return;
	}
	if (c->link.retry_at_ms != retry_at_ms) /* connecting failed: why is known now */
		store_link_changed(c->store);
	if (c->link.state == LINK_UP && c->set != NULL && now_ms - c->sent_ms >= STUCK_MS &&
	    now_ms - c->link.heard_ms >= STUCK_MS) {
		worker_lose(c, now_ms, "the database left a statement without an answer");
		return;
	}
	if (c->link.state != LINK_UP || revents == 0)
		return;
	if ((revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !link_read(&c->link, now_ms)) {
		worker_lose(c, now_ms, NULL);
		return;
	}
	while (read_some(c))
		continue;
	if (PQstatus(c->link.pg) == CONNECTION_BAD) {
		worker_lose(c, now_ms, NULL);
		return;
	}
	if (c->set != NULL)
		flush(c, now_ms);
}
