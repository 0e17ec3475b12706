/*
 * store/store.h: group commits, what fails alone and what is run again, and a
 * database that dies, comes back, or answers nobody. The statements are the
 * tests' own.
 */
#include "proxy.h"

#include "base/clock.h"

#include "store/op.h"

#include <stdatomic.h>
#include <time.h>

static struct store *store;

/* What a row's act makes the database do, in the statement or at the commit. */
static const char schema[] =
    "CREATE SEQUENCE tmtp.probe_seq; "
    "CREATE TABLE tmtp.probe (id int8 PRIMARY KEY, act text, seq bigserial); "
    "CREATE FUNCTION tmtp.probe_act(act text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
    " IF act = 'zero' THEN RAISE EXCEPTION 'zero' USING ERRCODE = '22012'; "
    " ELSIF act = 'lock' THEN PERFORM pg_advisory_xact_lock(1001); "
    " ELSIF act = 'hold' THEN PERFORM pg_advisory_xact_lock(1002); "
    " ELSIF act = 'second' AND nextval('tmtp.probe_seq') > 1 THEN "
    "  PERFORM pg_advisory_xact_lock(1002); "
    " ELSIF act LIKE 'state:%' THEN RAISE EXCEPTION 'no' USING ERRCODE = substr(act, 7); "
    " ELSIF act LIKE 'flaky:%' AND nextval('tmtp.probe_seq') <= substr(act, 7)::int THEN "
    "  RAISE EXCEPTION 'again' USING ERRCODE = '40001'; "
    " END IF; END $$; "
    "CREATE FUNCTION tmtp.probe_step(id int8, act text) RETURNS int8 LANGUAGE plpgsql AS $$ "
    "BEGIN PERFORM tmtp.probe_act(act); RETURN id; END $$; "
    "CREATE FUNCTION tmtp.probe_commit() RETURNS trigger LANGUAGE plpgsql AS $$ "
    "BEGIN PERFORM tmtp.probe_act(substr(NEW.act, 8)); RETURN NULL; END $$; "
    "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON tmtp.probe "
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.act LIKE 'commit-%') "
    " EXECUTE FUNCTION tmtp.probe_commit(); "
    "GRANT ALL ON tmtp.probe TO tmtp_site; "
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA tmtp TO tmtp_site";

static struct store *
a_store(const char *conninfo, unsigned writers, int64_t patience_ms)
{
	struct store_options o = { .conninfo = conninfo,
		                   .name = "test",
		                   .patience_ms = patience_ms };
	struct store *s;

	o.connections[STORE_WRITE] = writers;
	o.connections[STORE_READ] = 1;
	s = store_start(&o);
	if (s == NULL)
		cluster_die("store_start", conninfo);
	return s;
}

static int
setup(void **state)
{
	(void)unsetenv("TMTP_TEST_CLUSTER"); /* this one is stopped in the middle */
	if (cluster_setup(state) != 0)
		return -1;
	log_set_level((enum log_level)(LOG_ERROR_LEVEL + 1)); /* failures are what is tested */
	cluster_sql("%s", schema);
	store = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	return 0;
}

static int
teardown(void **state)
{
	store_stop(&store, 1000);
	return cluster_teardown(state);
}

static int
empty(void **state)
{
	(void)state;
	cluster_sql("TRUNCATE tmtp.probe");
	cluster_sql("SELECT setval('tmtp.probe_seq', 1, false)");
	return 0;
}

/* --- Statements ---------------------------------------------------------- */

struct probe {
	struct store_job job;
	int64_t id;
	const char *act;
	atomic_int rows;  /* times its rows were read */
	atomic_int dones; /* times it was done */
	int64_t order;    /* which of all that were done it was, from 1 */
	size_t octets;    /* out */
	pthread_t thread; /* that called done */
	void (*then)(struct probe *p);
};

static atomic_llong done_order;

static void
bind_probes(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct probe *p = (const struct probe *)jobs[i];

		args_i64(a, 0, p->id);
		args_text(a, 1, p->act == NULL ? "" : p->act);
	}
}

static void
rows_probes(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)r;
	for (size_t i = 0; i < n; i++)
		((struct probe *)jobs[i])->rows++;
}

#define PUT                                                                            \
	"INSERT INTO tmtp.probe (id, act) SELECT tmtp.probe_step(x.id, x.act), x.act " \
	"FROM unnest($1::int8[], $2::text[]) AS x(id, act) "
#define PROBE_OP(id, text, in, most, again)                                              \
	{                                                                                \
		.name = id, .sql = text, .types = (const Oid[]){ T_INT8S, T_TEXTS, 0 },  \
		.lane = in, .batch_max = most, .repeatable = again, .bind = bind_probes, \
		.rows = rows_probes,                                                     \
	}

static const struct store_op put = PROBE_OP("put", PUT, STORE_WRITE, 512, false);
static const struct store_op put_by_8 = PROBE_OP("put_by_8", PUT, STORE_WRITE, 8, false);
static const struct store_op put_again =
    PROBE_OP("put_again", PUT "ON CONFLICT DO NOTHING", STORE_WRITE, 512, true);
static const struct store_op put_read = PROBE_OP("put_read", PUT, STORE_READ, 512, false);
static const struct store_op put_arrive = PROBE_OP("put_arrive", PUT, STORE_ARRIVE, 512, false);
/* Rows long enough to leave the server before the transaction ends. */
static const struct store_op put_long =
    PROBE_OP("put_long", PUT "RETURNING repeat('x', 100000)", STORE_WRITE, 1, false);
static const struct store_op broken = PROBE_OP(
    "broken",
    "INSERT INTO tmtp.later SELECT x.id FROM unnest($1::int8[], $2::text[]) AS x(id, act)",
    STORE_WRITE, 512, false);

static void
probe_done(struct store_job *job)
{
	struct probe *p = (struct probe *)job;

	p->dones++;
	p->order = ++done_order;
	p->thread = pthread_self();
	if (p->then != NULL)
		p->then(p);
	waiting_done(job);
}

static void
submit_to(struct store *s, struct probe *p, const struct store_op *op)
{
	waiting_add(&p->job);
	p->job.op = op;
	p->job.done = probe_done;
	store_submit(s, &p->job);
}

static void
submit(struct probe *p, const struct store_op *op)
{
	submit_to(store, p, op);
}

static enum store_rc
act(const struct store_op *op, int64_t id, const char *what)
{
	struct probe p = { .id = id, .act = what };

	submit(&p, op);
	waiting_all();
	return p.job.rc;
}

/* False when jobs still wait after so long: the test is lost, and nothing of it may be freed.
 */
static bool
waiting_for(int64_t ms)
{
	struct timespec until;
	bool all;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000 + 1;
	pthread_mutex_lock(&waiting.lock);
	while (waiting.left > 0 &&
	       pthread_cond_timedwait(&waiting.cond, &waiting.lock, &until) == 0)
		continue;
	all = waiting.left == 0;
	pthread_mutex_unlock(&waiting.lock);
	return all;
}

/*
 * A job that waits for a gate, an advisory lock that the test holds: what is
 * submitted meanwhile piles up behind it.
 */
static PGconn *
shut_gate(void)
{
	return cluster_hold("SELECT pg_advisory_xact_lock(1001)");
}

static PGconn *
pile_up(struct probe *first, const struct store_op *op)
{
	PGconn *gate = shut_gate();

	*first = (struct probe){ .id = -1, .act = "lock" };
	submit(first, op);
	cluster_blocked();
	return gate;
}

static void
open_gate(PGconn *gate)
{
	cluster_release(gate);
	waiting_all();
}

/* Transactions that wrote the rows which are there, but for the gate's. */
static int64_t
commits(void)
{
	return cluster_int("SELECT count(DISTINCT xmin::text) FROM tmtp.probe WHERE id >= 0");
}

static int64_t
stored(void)
{
	return cluster_int("SELECT count(*) FROM tmtp.probe WHERE id >= 0");
}

/* Rows that the database wrote before one that was submitted earlier. */
static int64_t
out_of_order(void)
{
	return cluster_int(
	    "SELECT count(*) FROM (SELECT seq, lag(seq) OVER (ORDER BY id) AS before "
	    "FROM tmtp.probe WHERE id >= 0) AS x WHERE seq < before");
}

/* --- Group commits ------------------------------------------------------- */

static void
test_what_waits_together_is_one_commit(void **state)
{
	static struct probe p[500];
	struct probe first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 500; i++) {
		p[i] = (struct probe){ .id = i };
		submit(&p[i], i % 3 == 0 ? &put : i % 3 == 1 ? &put_by_8 : &put_again);
	}
	open_gate(gate);
	for (int i = 0; i < 500; i++)
		assert_int_equal(p[i].job.rc, STORE_OK);
	assert_int_equal(stored(), 500);
	assert_int_equal(commits(), 1);
}

static void
test_a_set_has_an_end(void **state)
{
	static struct probe p[1200];
	struct probe first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 1200; i++) {
		p[i] = (struct probe){ .id = i };
		submit(&p[i], &put);
	}
	open_gate(gate);
	assert_int_equal(stored(), 1200);
	assert_int_equal(commits(), 3);
}

/* The first statement's rows are here, pushed on by the second's; the commit isn't: nobody is
 * told. */
static void
test_results_come_after_the_sync(void **state)
{
	PGconn *hold = cluster_hold("SELECT pg_advisory_xact_lock(1002)");
	struct probe first, p[2] = { { .id = 1, .act = "commit-hold" }, { .id = 2 } };
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	submit(&p[0], &put_long);
	submit(&p[1], &put_long);
	cluster_release(gate);
	while (p[0].rows == 0)
		continue;
	cluster_blocked();
	assert_int_equal(p[0].dones, 0);
	assert_int_equal(stored(), 0);
	open_gate(hold);
	assert_int_equal(p[0].dones, 1);
	assert_int_equal(p[0].job.rc, STORE_OK);
	assert_int_equal(stored(), 2);
}

static void
test_one_bad_row_fails_alone(void **state)
{
	static struct probe p[301];
	struct probe first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 301; i++) {
		p[i] = (struct probe){ .id = i, .act = i == 217 ? "zero" : "" };
		submit(&p[i], &put);
	}
	open_gate(gate);
	for (int i = 0; i < 301; i++) {
		assert_int_equal(p[i].job.rc, i == 217 ? STORE_REFUSED : STORE_OK);
		assert_int_equal(p[i].dones, 1);
	}
	assert_int_equal(stored(), 300);
	assert_true(commits() <= 10); /* by halves, not one by one */
}

static void
test_bad_rows_fail_alone_among_several_statements(void **state)
{
	static const struct store_op *const ops[] = { &put, &put_by_8, &put_again };
	static struct probe p[300];
	struct probe first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 300; i++) {
		p[i] = (struct probe){ .id = i, .act = i == 100 || i == 151 ? "zero" : "" };
		if (i == 251)
			p[i].id = 250; /* taken by the one before it */
		submit(&p[i], ops[i / 2 % 3]);
	}
	open_gate(gate);
	for (int i = 0; i < 300; i++)
		if (i != 250 && i != 251)
			assert_int_equal(p[i].job.rc,
			                 i == 100 || i == 151 ? STORE_REFUSED : STORE_OK);
	/* Which of the two came first is the order of submission. */
	assert_int_equal(p[250].job.rc, STORE_OK);
	assert_int_equal(p[251].job.rc,
	                 ops[251 / 2 % 3] == &put_again ? STORE_OK : STORE_CONFLICT);
	assert_int_equal(stored(), 297);
}

static void
test_order_within_a_lane(void **state)
{
	static struct probe p[600];
	struct probe first;
	PGconn *gate = pile_up(&first, &put_by_8);

	(void)state;
	for (int i = 0; i < 600; i++) {
		p[i] = (struct probe){ .id = i };
		submit(&p[i], &put_by_8);
	}
	open_gate(gate);
	for (int i = 1; i < 600; i++)
		assert_true(p[i].order > p[i - 1].order);
	assert_int_equal(out_of_order(), 0);
}

/* Bad rows and transactions that are run again change nothing of the others' order. */
static void
test_order_survives_failures(void **state)
{
	static struct probe p[400];
	struct probe first;
	PGconn *gate = pile_up(&first, &put_by_8);

	(void)state;
	for (int i = 0; i < 400; i++) {
		p[i] = (struct probe){ .id = i };
		p[i].act = i == 13 || i == 200 ? "zero" : i == 5 ? "flaky:2" : "";
		submit(&p[i], &put_by_8);
	}
	open_gate(gate);
	assert_int_equal(stored(), 398);
	assert_int_equal(out_of_order(), 0);
	for (int i = 1; i < 400; i++)
		assert_true(p[i].order > p[i - 1].order);
}

/* --- Errors -------------------------------------------------------------- */

static void
test_a_unique_key_is_a_conflict_and_other_data_refused(void **state)
{
	(void)state;
	assert_int_equal(act(&put, 1, ""), STORE_OK);
	assert_int_equal(act(&put, 1, ""), STORE_CONFLICT);
	assert_int_equal(act(&put, 2, "zero"), STORE_REFUSED);
	assert_int_equal(act(&put, 3, "state:23514"), STORE_REFUSED);
	assert_int_equal(act(&put, 4, ""), STORE_OK);
}

static const struct store_op put_day =
    PROBE_OP("put_day",
             "INSERT INTO tmtp.probe_day SELECT tmtp.uuid_floor(current_date + x.id::int) "
             "FROM unnest($1::int8[], $2::text[]) AS x(id, act)",
             STORE_WRITE, 512, false);

/* Nobody made today's partition: who meets that makes it, and stores; a day that upkeep wouldn't make
 * is refused. */
static void
test_a_day_without_partitions_is_made(void **state)
{
	struct probe p[4] = { { .id = 0 }, { .id = 1 }, { .id = 0 }, { .id = 5 } };
	PGconn *gate;
	struct probe first;

	(void)state;
	cluster_sql("CREATE TABLE tmtp.probe_day (id uuid) PARTITION BY RANGE (id)");
	cluster_sql("GRANT ALL ON tmtp.probe_day TO tmtp_site");
	cluster_sql("INSERT INTO tmtp.partitioned VALUES ('probe_day', '')");
	cluster_sql("ALTER TABLE tmtp.probe_day OWNER TO tmtp_owner");
	gate = pile_up(&first, &put);
	submit(&p[0], &put_day);
	p[3].act = "";
	submit(&p[3], &put);
	submit(&p[1], &put_day);
	open_gate(gate);
	assert_int_equal(p[0].job.rc, STORE_OK);
	assert_int_equal(p[1].job.rc, STORE_OK);
	assert_int_equal(p[3].job.rc, STORE_OK);
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.probe_day"), 2);
	assert_int_equal(act(&put_day, 300, ""), STORE_REFUSED);
	cluster_sql("DELETE FROM tmtp.partitioned WHERE name = 'probe_day'");
	cluster_sql("DROP TABLE tmtp.probe_day");
}

static void
test_trouble_of_the_server_is_down(void **state)
{
	static const char *const states[] = { "53100", "53200", "53300", "57P03", "57014",
		                              "25006", "58030", "XX000", "08006" };
	char what[16];

	(void)state;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		(void)snprintf(what, sizeof(what), "state:%s", states[i]);
		assert_int_equal(act(&put, 1, what), STORE_DOWN);
		assert_int_equal(act(&put, (int64_t)i + 10, ""), STORE_OK);
	}
	assert_int_equal(stored(), 9);
}

static void
test_a_serialization_failure_runs_again(void **state)
{
	struct probe p[20], first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 20; i++) {
		p[i] = (struct probe){ .id = i, .act = i == 7 ? "flaky:3" : "" };
		submit(&p[i], &put);
	}
	open_gate(gate);
	for (int i = 0; i < 20; i++)
		assert_int_equal(p[i].job.rc, STORE_OK);
	assert_int_equal(stored(), 20);
	assert_int_equal(commits(), 1);
	assert_int_equal(act(&put, 30, "state:40P01"), STORE_DOWN); /* but not for ever */
	assert_int_equal(act(&put, 31, ""), STORE_OK);
}

/* What fails at the Sync itself has no statement to blame: it is found by halving all the same.
 */
static void
test_a_commit_that_fails(void **state)
{
	struct probe p[40], first;
	PGconn *gate;

	(void)state;
	assert_int_equal(act(&put, 1, "commit-zero"), STORE_REFUSED);
	assert_int_equal(act(&put, 1, "commit-state:23505"), STORE_CONFLICT);
	assert_int_equal(act(&put, 1, "commit-state:53100"), STORE_DOWN);
	assert_int_equal(act(&put, 1, "commit-flaky:2"), STORE_OK);
	assert_int_equal(stored(), 1);
	gate = pile_up(&first, &put);
	for (int i = 0; i < 40; i++) {
		p[i] = (struct probe){ .id = 10 + i, .act = i == 31 ? "commit-zero" : "" };
		submit(&p[i], i % 2 == 0 ? &put : &put_again);
	}
	open_gate(gate);
	for (int i = 0; i < 40; i++)
		assert_int_equal(p[i].job.rc, i == 31 ? STORE_REFUSED : STORE_OK);
	assert_int_equal(stored(), 40);
}

static void
test_a_statement_that_cannot_be_prepared_fails_alone(void **state)
{
	struct probe p[30], first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	for (int i = 0; i < 30; i++) {
		p[i] = (struct probe){ .id = i };
		submit(&p[i], i % 10 == 5 ? &broken : i % 2 == 0 ? &put : &put_again);
	}
	open_gate(gate);
	for (int i = 0; i < 30; i++)
		assert_int_equal(p[i].job.rc, i % 10 == 5 ? STORE_REFUSED : STORE_OK);
	assert_int_equal(stored(), 27);
	cluster_sql("CREATE TABLE tmtp.later (id int8)");
	cluster_sql("GRANT ALL ON tmtp.later TO tmtp_site");
	assert_int_equal(act(&broken, 1, ""), STORE_OK); /* it can be now */
	cluster_sql("DROP TABLE tmtp.later");
}

/* --- Connections that share a lane ----------------------------------------- */

/* Few jobs wait a moment for company when another connection is at work, but never for its end. */
static void
test_a_second_connection_waits_for_company_but_not_for_the_first(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 2, 20000);
	PGconn *gate = shut_gate();
	struct probe slow = { .id = -1, .act = "lock" },
		     few[3] = { { .id = 1 }, { .id = 2 }, { .id = 3 } };

	(void)state;
	submit_to(s, &slow, &put);
	cluster_blocked();
	for (int i = 0; i < 3; i++)
		submit_to(s, &few[i], &put);
	while (few[0].dones + few[1].dones + few[2].dones < 3)
		continue;
	assert_int_equal(slow.dones, 0);
	open_gate(gate);
	store_stop(&s, 1000);
}

/* --- Lanes, threads ------------------------------------------------------ */

static void
test_a_lane_does_not_wait_for_another(void **state)
{
	struct probe first;
	PGconn *gate = pile_up(&first, &put);
	struct probe p[2] = { { .id = 1 }, { .id = 2 } };

	(void)state;
	submit(&p[0], &put_arrive); /* without connections of its own: the lane of writes */
	submit(&p[1], &put_read);
	while (p[1].dones == 0)
		continue;
	assert_int_equal(p[0].dones, 0);
	open_gate(gate);
	assert_int_equal(p[0].job.rc, STORE_OK);
	assert_int_equal(p[1].job.rc, STORE_OK);
}

static atomic_int chain_left;

static void
chain(struct probe *p)
{
	p->id++;
	if (chain_left-- > 0)
		submit(p, &put);
}

static void
test_a_job_may_be_submitted_from_done(void **state)
{
	struct probe p = { .id = 1, .then = chain };

	(void)state;
	chain_left = 50;
	submit(&p, &put);
	waiting_all();
	assert_int_equal(p.dones, 51);
	assert_false(pthread_equal(p.thread, pthread_self()));
	assert_int_equal(stored(), 51);
}

static struct probe crowd[10000];

static void *
submit_some(void *arg)
{
	struct store *s = ((void **)arg)[0];
	struct probe *from = ((void **)arg)[1];
	static const struct store_op *const ops[] = { &put, &put_by_8, &put_read, &put_again };

	for (size_t i = 0; i < 2500; i++)
		submit_to(s, &from[i], ops[i % 4]);
	return NULL;
}

static void
test_ten_thousand_jobs_from_four_threads(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 2, 20000);
	pthread_t threads[4];
	void *args[4][2];
	size_t good = 0;

	(void)state;
	for (int i = 0; i < 10000; i++)
		crowd[i] = (struct probe){ .id = i, .act = i % 1000 == 999 ? "zero" : "" };
	for (int i = 0; i < 4; i++) {
		args[i][0] = s;
		args[i][1] = &crowd[i * 2500];
		assert_int_equal(pthread_create(&threads[i], NULL, submit_some, args[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		(void)pthread_join(threads[i], NULL);
	waiting_all();
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(crowd[i].dones, 1);
		good += crowd[i].job.rc == STORE_OK;
	}
	assert_int_equal(good, 9990);
	assert_int_equal(stored(), 9990);
	assert_true(commits() < 2000);
	store_stop(&s, 5000);
	assert_null(s);
}

/* --- Size ---------------------------------------------------------------- */

static void
rows_big(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct probe *p = (struct probe *)jobs[0];

	(void)n;
	p->octets = 0;
	for (int row = 0; row < PQntuples(r); row++)
		p->octets += row_slice(r, row, 0).len;
}

static const struct store_op big = {
	.name = "big",
	.sql = "SELECT repeat('x', 1000000) FROM unnest($1::int8[], $2::text[]) AS x(id, act), "
	       "generate_series(1, x.id)",
	.types = (const Oid[]){ T_INT8S, T_TEXTS, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_probes,
	.rows = rows_big,
};

static void
test_a_large_result_beside_small_ones(void **state)
{
	struct probe p[3] = { { .id = 150 }, { .id = 0 }, { .id = 1 } };

	(void)state;
	for (int i = 0; i < 3; i++)
		submit(&p[i], &big);
	waiting_all();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(p[i].job.rc, STORE_OK);
		assert_int_equal(p[i].octets, p[i].id * 1000000);
	}
}

#define LOAD (4 << 20)

static uint8_t *load;

static size_t
octets_load(const struct store_job *job)
{
	return (size_t)((const struct probe *)job)->id;
}

static void
bind_load(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		args_slice(a, 0, slice_mem(load, octets_load(jobs[i])));
}

static void
rows_load(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	assert_int_equal(PQntuples(r), n);
	for (size_t i = 0; i < n; i++) {
		((struct probe *)jobs[i])->octets = (size_t)row_i32(r, (int)i, 0);
		((struct probe *)jobs[i])->rows = (int)n;
	}
}

static const struct store_op loads = {
	.name = "loads",
	.sql = "SELECT octet_length(x) FROM unnest($1::bytea[]) AS x",
	.types = (const Oid[]){ T_BYTEAS, 0 },
	.lane = STORE_WRITE,
	.batch_max = 256,
	.octets = octets_load,
	.bind = bind_load,
	.rows = rows_load,
};

/* Large bodies that come together are more than one transaction should carry; small ones still
 * share. */
static void
test_large_values_share_no_transaction(void **state)
{
	struct probe p[40], first;
	PGconn *gate = pile_up(&first, &put);

	(void)state;
	load = calloc(1, LOAD);
	assert_non_null(load);
	for (int i = 0; i < 40; i++) {
		p[i] = (struct probe){ .id = i < 20 ? LOAD - i : i };
		submit(&p[i], &loads);
	}
	open_gate(gate);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(p[i].job.rc, STORE_OK);
		assert_int_equal(p[i].octets, p[i].id);
		assert_in_range(p[i].rows, 1, i < 18 ? 3 : 40);
	}
	assert_int_equal(p[39].rows, p[38].rows);
	assert_true(p[39].rows > 10);
	free(load);
}

/* --- Connections that die ------------------------------------------------ */

/* Ends the backend that waits for a lock; returns when it is gone. */
static void
kill_blocked(void)
{
	long long pid;

	cluster_blocked();
	pid = cluster_int("SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
	                  "WHERE NOT l.granted AND a.datname = current_database()");
	cluster_sql("SELECT pg_terminate_backend(%lld)", pid);
	while (cluster_int("SELECT count(*) FROM pg_stat_activity WHERE pid = %lld", pid) > 0)
		continue;
}

/* What may run twice does, what may not is told so, what had not begun doesn't notice. */
static void
test_a_backend_killed_in_the_middle(void **state)
{
	PGconn *gate = shut_gate();
	struct probe p[3] = { { .id = 1, .act = "lock" }, { .id = 2 }, { .id = 3 } };

	(void)state;
	submit(&p[0], &put_again);
	cluster_blocked();
	submit(&p[1], &put);
	kill_blocked();
	cluster_blocked(); /* the second is on its way with the first now */
	assert_int_equal(p[1].dones, 0);
	kill_blocked();
	submit(&p[2], &put);
	open_gate(gate);
	assert_int_equal(p[0].job.rc, STORE_OK);
	assert_int_equal(p[1].job.rc, STORE_COMMIT_UNKNOWN);
	assert_int_equal(p[2].job.rc, STORE_OK);
	for (int i = 0; i < 3; i++)
		assert_int_equal(p[i].dones, 1);
	assert_int_equal(stored(), 2);
}

/* A job that kills its backend each time ends too. */
static void
test_a_job_that_kills_connections_ends(void **state)
{
	PGconn *gate = shut_gate();
	struct probe p = { .id = 1, .act = "lock" };

	(void)state;
	submit(&p, &put_again);
	for (int i = 0; i < 6; i++)
		kill_blocked();
	waiting_all();
	assert_int_equal(p.job.rc, STORE_COMMIT_UNKNOWN);
	open_gate(gate);
	assert_int_equal(act(&put, 2, ""), STORE_OK);
}

/* Committed, but the answer is lost: what may run twice does, and is there once. */
static void
test_an_answer_that_never_comes(void **state)
{
	struct probe p[2] = { { .id = 1 }, { .id = 2 } }, warm = { .id = 3 };
	struct store *s;

	(void)state;
	proxy_start();
	s = a_store(proxy_conninfo("tmtp_site"), 1, 20000);
	submit_to(s, &warm, &put);
	waiting_all();
	for (int i = 0; i < 2; i++) {
		proxy_hold();
		submit_to(s, &p[i], i == 0 ? &put_again : &put);
		while (cluster_int("SELECT count(*) FROM tmtp.probe WHERE id = %d", i + 1) == 0)
			continue;
		assert_int_equal(p[i].dones, 0);
		proxy_cut();
		waiting_all();
	}
	assert_int_equal(p[0].job.rc, STORE_OK);
	assert_int_equal(p[1].job.rc, STORE_COMMIT_UNKNOWN);
	assert_int_equal(stored(), 3);
	store_stop(&s, 1000);
	proxy_stop();
}

/* Nothing can be asked any more: a lost answer is no "nothing was stored". */
static void
test_a_lost_answer_is_never_called_down(void **state)
{
	struct probe p = { .id = 1, .job = { .patience_ms = 300 } }, warm = { .id = 3 };
	struct store *s;

	(void)state;
	proxy_start();
	s = a_store(proxy_conninfo("tmtp_site"), 1, 20000);
	submit_to(s, &warm, &put);
	waiting_all();
	proxy_hold();
	submit_to(s, &p, &put_again);
	while (stored() < 2)
		continue;
	proxy_stop();
	waiting_all();
	assert_int_equal(p.job.rc, STORE_COMMIT_UNKNOWN);
	store_stop(&s, 0);
}

/*
 * Eight jobs, one bad: the first half is run again and waits for the lock 1002,
 * the other half is put aside. Returns who holds the lock.
 */
static PGconn *
halves(struct store *s, struct probe p[8], struct probe *first)
{
	static const char *const acts[] = { "second", "zero", "", "", "", "", "", "" };
	PGconn *second = cluster_hold("SELECT pg_advisory_xact_lock(1002)");
	PGconn *gate = shut_gate();

	*first = (struct probe){ .id = -1, .act = "lock" };
	submit_to(s, first, &put_again);
	cluster_blocked();
	for (int i = 0; i < 8; i++) {
		p[i] = (struct probe){ .id = i, .act = acts[i] };
		submit_to(s, &p[i], &put_again);
	}
	cluster_release(gate);
	while (first->dones == 0)
		continue;
	cluster_blocked();
	return second;
}

static void
test_halves_survive_their_connection_in_order(void **state)
{
	struct probe p[8], first;
	PGconn *second = halves(store, p, &first);

	(void)state;
	kill_blocked();
	open_gate(second);
	for (int i = 0; i < 8; i++)
		assert_int_equal(p[i].job.rc, i == 1 ? STORE_REFUSED : STORE_OK);
	assert_int_equal(out_of_order(), 0);
}

/* --- A database that is stopped ------------------------------------------ */

static void
start_again(void)
{
	cluster_script("resume");
	PQreset(cluster.super);
}

static void
test_a_stopped_database_costs_patience_and_no_more(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 2, 1000);
	struct probe p[4] = { { .id = 1 }, { .id = 2 }, { .id = 3 }, { .id = 4 } };
	struct probe warm = { .id = 5 };
	struct buffer why;
	int64_t began, took;

	(void)state;
	submit_to(s, &warm, &put);
	waiting_all();
	cluster_script("halt");
	began = clock_mono_ms();
	p[3].job.patience_ms = 60000;
	submit_to(s, &p[3], &put);
	for (int i = 0; i < 3; i++)
		submit_to(s, &p[i], i == 0 ? &put : i == 1 ? &put_again : &put_read);
	while (p[0].dones + p[1].dones + p[2].dones < 3)
		continue;
	took = clock_mono_ms() - began;
	for (int i = 0; i < 3; i++)
		assert_int_equal(p[i].job.rc, STORE_DOWN);
	assert_in_range(took, 990, 2500);
	assert_int_equal(p[3].dones, 0);
	buffer_init(&why, 2000);
	assert_false(store_is_up(s, &why));
	assert_true(why.len > 20);
	buffer_free(&why);
	start_again();
	began = clock_mono_ms();
	waiting_all();
	assert_in_range(clock_mono_ms() - began, 0, 2000);
	assert_int_equal(p[3].job.rc, STORE_OK);
	assert_true(store_is_up(s, NULL));
	assert_int_equal(cluster_int("SELECT count(*) FROM tmtp.probe"), 2);
	store_stop(&s, 1000);
}

/* --- A database that hangs ------------------------------------------------ */

static void
thaw(void)
{
	cluster_script("thaw");
}

/*
 * Its connections stay open and nothing comes: whoever waits is told within seconds, what was
 * sent is unknown, what comes later has its patience, and all goes on when it goes on.
 */
static void
test_a_database_that_hangs_is_noticed(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 2, 1000);
	struct probe p[3] = { { .id = 1 }, { .id = 2 }, { .id = 3 } }, warm = { .id = 4 };
	struct probe late = { .id = 5 };
	struct buffer why;
	bool all;

	(void)state;
	submit_to(s, &warm, &put);
	waiting_all();
	cluster_script("freeze");
	submit_to(s, &p[0], &put);
	submit_to(s, &p[1], &put_again);
	submit_to(s, &p[2], &put_read);
	all = waiting_for(30000);
	buffer_init(&why, 2000);
	/* A connection that had nothing to do is found out when it is looked at next. */
	for (int64_t end = clock_mono_ms() + 30000; all && clock_mono_ms() < end;)
		if (!store_is_up(s, NULL))
			break;
	if (!all || store_is_up(s, &why)) {
		thaw();
		fail();
	}
	buffer_add_u8(&why, '\0');
	submit_to(s, &late, &put);
	all = waiting_for(30000);
	thaw();
	assert_true(all);
	assert_non_null(strstr((char *)why.data, "does not answer"));
	buffer_free(&why);
	/* Only the connection that was warmed is known to have been up: the others' may not be sent. */
	assert_int_equal(p[0].job.rc, STORE_COMMIT_UNKNOWN);
	for (int i = 1; i < 3; i++)
		assert_true(p[i].job.rc == STORE_COMMIT_UNKNOWN || p[i].job.rc == STORE_DOWN);
	assert_int_equal(late.job.rc, STORE_DOWN);
	while (!store_is_up(s, NULL))
		continue;
	late = (struct probe){ .id = 6 };
	submit_to(s, &late, &put);
	waiting_all();
	assert_int_equal(late.job.rc, STORE_OK);
	store_stop(&s, 1000);
}

/* Nobody asks it anything, and still it is known. */
static void
test_an_idle_store_notices_too(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 1000);
	struct probe warm = { .id = 1 }, again = { .id = 2 };
	int64_t end;

	(void)state;
	submit_to(s, &warm, &put);
	waiting_all();
	cluster_script("freeze");
	end = clock_mono_ms() + 30000;
	while (store_is_up(s, NULL) && clock_mono_ms() < end)
		continue;
	thaw();
	assert_in_range(clock_mono_ms(), 0, end - 1);
	while (!store_is_up(s, NULL))
		continue;
	submit_to(s, &again, &put);
	waiting_all();
	assert_int_equal(again.job.rc, STORE_OK);
	store_stop(&s, 1000);
}

/* One that is at work is left to it, however long nothing comes, while the database lives. */
static void
test_a_slow_statement_is_no_hang(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	struct probe first = { .id = -1, .act = "lock" };
	PGconn *gate = shut_gate();

	(void)state;
	submit_to(s, &first, &put);
	cluster_blocked();
	cluster_sql("SELECT pg_sleep(7)"); /* longer than a silent database is given */
	assert_int_equal(first.dones, 0);
	assert_true(store_is_up(s, NULL));
	open_gate(gate);
	assert_int_equal(first.job.rc, STORE_OK);
	store_stop(&s, 1000);
}

struct look {
	const char *conninfo;
	enum migrate_state found;
	struct buffer why;
};

static void *
look(void *arg)
{
	struct look *l = arg;

	buffer_init(&l->why, 2000);
	l->found = migrate_check(l->conninfo, &l->why);
	buffer_add_u8(&l->why, '\0');
	return NULL;
}

/* Both in one: who is connected gets no answer, who connects neither. */
static void
test_looking_at_the_schema_of_one_that_hangs_ends(void **state)
{
	struct look connected = { .found = MIGRATE_CURRENT },
		    new = { .found = MIGRATE_CURRENT };
	pthread_t thread;

	(void)state;
	proxy_start();
	proxy_mute(true);
	connected.conninfo = proxy_conninfo("tmtp_site");
	new.conninfo = cluster_conninfo("tmtp_site");
	assert_int_equal(pthread_create(&thread, NULL, look, &connected), 0);
	while (!proxy.muted)
		continue;
	cluster_script("freeze");
	(void)look(&new);
	(void)pthread_join(thread, NULL);
	thaw();
	proxy_mute(false);
	proxy_stop();
	assert_int_equal(connected.found, MIGRATE_DOWN);
	assert_string_equal((char *)connected.why.data,
	                    "the database does not answer (waited 10 s)");
	assert_int_equal(new.found, MIGRATE_DOWN);
	assert_non_null(strstr((char *)new.why.data, "cannot connect"));
	buffer_free(&connected.why);
	buffer_free(&new.why);
}

static void
test_what_was_put_aside_has_its_patience_too(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 1500);
	struct probe p[8], first;
	PGconn *second = halves(s, p, &first);
	bool all;

	(void)state;
	cluster_script("halt");
	all = waiting_for(6000);
	start_again();
	PQfinish(second);
	assert_true(all);
	for (int i = 0; i < 8; i++)
		assert_true(p[i].job.rc == STORE_DOWN ||
		            (i < 4 && p[i].job.rc == STORE_COMMIT_UNKNOWN));
	store_stop(&s, 1000);
}

static void
test_a_store_that_never_connected_says_why(void **state)
{
	struct store *s = a_store("host=/nonexistent/folder", 1, 100);
	int64_t end = clock_mono_ms() + 5000;
	struct buffer why;

	(void)state;
	buffer_init(&why, 2000);
	do {
		buffer_clear(&why);
		assert_false(store_is_up(s, &why));
		buffer_add_u8(&why, '\0');
	} while (strstr((char *)why.data, "/nonexistent/folder") == NULL &&
	         clock_mono_ms() < end);
	assert_non_null(strstr((char *)why.data, "/nonexistent/folder"));
	buffer_free(&why);
	store_stop(&s, 0);
}

/* --- Stopping ------------------------------------------------------------ */

static void
test_stopping_finishes_what_waits(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 2, 20000);

	(void)state;
	for (int i = 0; i < 3000; i++) {
		crowd[i] = (struct probe){ .id = i };
		submit_to(s, &crowd[i], i % 2 == 0 ? &put : &put_read);
	}
	store_stop(&s, 30000);
	assert_int_equal(waiting.left, 0);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(crowd[i].job.rc, STORE_OK);
	assert_int_equal(stored(), 3000);
}

static void
test_stopping_has_an_end(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	PGconn *gate = shut_gate();
	struct probe p[10];
	int64_t began;

	(void)state;
	for (int i = 0; i < 10; i++) {
		p[i] = (struct probe){ .id = i, .act = i == 0 ? "lock" : "" };
		submit_to(s, &p[i], &put_again);
		if (i == 0)
			cluster_blocked();
	}
	began = clock_mono_ms();
	store_stop(&s, 300);
	assert_in_range(clock_mono_ms() - began, 300, 3000);
	assert_int_equal(waiting.left, 0);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(p[i].job.rc, i == 0 ? STORE_COMMIT_UNKNOWN : STORE_DOWN);
		assert_int_equal(p[i].dones, 1);
	}
	open_gate(gate);
}

static struct store *stopping;

static void
chain_stopping(struct probe *p)
{
	if (chain_left-- > 0)
		submit_to(stopping, p, &put);
}

static void
test_what_done_submits_while_it_stops_is_done_too(void **state)
{
	struct probe p = { .id = 1, .then = chain_stopping };
	struct store *s = stopping = a_store("host=/nonexistent/folder", 1, 20000);

	(void)state;
	chain_left = 3;
	submit_to(s, &p, &put);
	store_stop(&s, 0);
	assert_true(waiting_for(0));
	assert_int_equal(p.dones, 4);
	assert_int_equal(p.job.rc, STORE_DOWN);
}

/* --- LISTEN and NOTIFY --------------------------------------------------- */

static atomic_int heard_a, heard_b, told, told_mute;

static void
on_notified(const char *channel, void *arg)
{
	assert_ptr_equal(arg, &heard_a);
	if (channel == NULL) {
		told_mute += proxy.mute;
		told++;
	} else if (strcmp(channel, "probe_a") == 0) {
		heard_a++;
	} else if (strcmp(channel, "probe_b") == 0) {
		heard_b++;
	}
}

static struct store *
a_listener(const char *conninfo)
{
	static const char *const listen_to[] = { "probe_a", "probe_b", NULL };
	struct store_options o = { .conninfo = conninfo,
		                   .name = "listener",
		                   .listen = listen_to,
		                   .notified = on_notified,
		                   .arg = &heard_a };
	struct store *s = store_start(&o);

	heard_a = heard_b = told = told_mute = 0;
	if (s == NULL)
		cluster_die("store_start", conninfo);
	return s;
}

static void
test_a_listener_hears_and_is_told_of_each_connection(void **state)
{
	struct store *s = a_listener(cluster_conninfo("tmtp_site"));

	(void)state;
	for (int i = 1; i <= 3; i++) {
		while (told < i)
			continue;
		cluster_sql("NOTIFY probe_a");
		cluster_sql("NOTIFY probe_other");
		cluster_sql("NOTIFY probe_b");
		while (heard_b < i)
			continue;
		assert_int_equal(heard_a, i);
		assert_int_equal(told, i);
		if (i < 3)
			cluster_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
			            "WHERE application_name = 'listener'");
	}
	store_stop(&s, 1000);
}

/* Who is told that something may have been missed looks: from then on nothing may be missed. */
static void
test_a_listener_is_told_when_it_listens(void **state)
{
	struct store *s;

	(void)state;
	proxy_start();
	proxy_mute(true);
	s = a_listener(proxy_conninfo("tmtp_site"));
	while (!proxy.muted)
		continue;
	for (int i = 0; i < 20; i++)
		cluster_sql("SELECT 1");
	proxy_mute(false);
	while (told == 0)
		continue;
	assert_int_equal(told_mute, 0);
	store_stop(&s, 1000);
	proxy_stop();
}

static PGconn *
an_ear(void)
{
	PGconn *pg = PQconnectdb(cluster_conninfo("postgres"));

	PQclear(PQexec(pg, "LISTEN probe_w"));
	return pg;
}

/* Notifications that have come up to now. */
static int
heard(PGconn *pg)
{
	int n = 0;
	PGnotify *got;

	PQclear(PQexec(pg, "SELECT 1"));
	while ((got = PQnotifies(pg)) != NULL) {
		PQfreemem(got);
		n++;
	}
	return n;
}

static void
test_wakes_are_coalesced(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	PGconn *ear = an_ear();
	int64_t began = clock_mono_ms(), took;
	int n, calls = 0;

	(void)state;
	do {
		store_wake(s, "probe_w");
		calls++;
	} while (clock_mono_ms() - began < 300);
	took = clock_mono_ms() - began;
	store_stop(&s, 5000); /* sends what it owes */
	n = heard(ear);
	assert_true(calls > 100);
	assert_in_range(n, 3, took / 20 + 2);
	PQfinish(ear);
}

static void
test_the_first_wake_goes_at_once(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	PGconn *ear = an_ear();
	int64_t least = 1000;

	(void)state;
	for (int i = 0; i < 10; i++) {
		int64_t began = clock_mono_ms();

		store_wake(s, "probe_w");
		while (heard(ear) == 0)
			continue;
		if (clock_mono_ms() - began < least)
			least = clock_mono_ms() - began;
		while (clock_mono_ms() - began < 25)
			continue;
	}
	assert_true(least < 10);
	store_stop(&s, 1000);
	PQfinish(ear);
}

static const struct store_op waking = {
	.name = "waking",
	.sql = PUT,
	.types = (const Oid[]){ T_INT8S, T_TEXTS, 0 },
	.batch_max = 8,
	.wakes = "probe_w",
	.bind = bind_probes,
};

static void
test_a_commit_wakes_and_a_failure_does_not(void **state)
{
	struct store *s = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	PGconn *ear = an_ear();
	struct probe bad = { .id = 1, .act = "zero" }, good = { .id = 2 };

	(void)state;
	submit_to(s, &bad, &waking);
	waiting_all();
	submit_to(s, &good, &put); /* wakes nobody, and is behind */
	waiting_all();
	assert_int_equal(heard(ear), 0);
	good.id = 3;
	submit_to(s, &good, &waking);
	waiting_all();
	store_stop(&s, 5000);
	assert_int_equal(heard(ear), 1);
	PQfinish(ear);
}

static void
test_results_have_texts(void **state)
{
	(void)state;
	for (int rc = STORE_OK; rc <= STORE_COMMIT_UNKNOWN; rc++)
		assert_true(strlen(store_rc_text((enum store_rc)rc)) > 1);
}

/* Late events of a role that ends still ask: store_stop left them NULL. */
static void
test_a_store_that_was_stopped_says_down(void **state)
{
	struct store *stopped = a_store(cluster_conninfo("tmtp_site"), 1, 20000);
	struct probe p = { .id = 1 };

	(void)state;
	store_stop(&stopped, 1000);
	submit_to(stopped, &p, &put);
	assert_int_equal(p.dones, 1);
	assert_int_equal(p.job.rc, STORE_DOWN);
	assert_int_equal(stored(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_what_waits_together_is_one_commit, empty),
		cmocka_unit_test_setup(test_a_set_has_an_end, empty),
		cmocka_unit_test_setup(test_results_come_after_the_sync, empty),
		cmocka_unit_test_setup(test_one_bad_row_fails_alone, empty),
		cmocka_unit_test_setup(test_bad_rows_fail_alone_among_several_statements,
		                       empty),
		cmocka_unit_test_setup(test_order_within_a_lane, empty),
		cmocka_unit_test_setup(test_order_survives_failures, empty),
		cmocka_unit_test_setup(test_a_unique_key_is_a_conflict_and_other_data_refused,
		                       empty),
		cmocka_unit_test_setup(test_a_day_without_partitions_is_made, empty),
		cmocka_unit_test_setup(test_trouble_of_the_server_is_down, empty),
		cmocka_unit_test_setup(test_a_serialization_failure_runs_again, empty),
		cmocka_unit_test_setup(test_a_commit_that_fails, empty),
		cmocka_unit_test_setup(test_a_statement_that_cannot_be_prepared_fails_alone,
		                       empty),
		cmocka_unit_test_setup(
		    test_a_second_connection_waits_for_company_but_not_for_the_first, empty),
		cmocka_unit_test_setup(test_a_lane_does_not_wait_for_another, empty),
		cmocka_unit_test_setup(test_a_job_may_be_submitted_from_done, empty),
		cmocka_unit_test_setup(test_ten_thousand_jobs_from_four_threads, empty),
		cmocka_unit_test_setup(test_a_large_result_beside_small_ones, empty),
		cmocka_unit_test_setup(test_large_values_share_no_transaction, empty),
		cmocka_unit_test_setup(test_a_backend_killed_in_the_middle, empty),
		cmocka_unit_test_setup(test_a_job_that_kills_connections_ends, empty),
		cmocka_unit_test_setup(test_an_answer_that_never_comes, empty),
		cmocka_unit_test_setup(test_a_lost_answer_is_never_called_down, empty),
		cmocka_unit_test_setup(test_halves_survive_their_connection_in_order, empty),
		cmocka_unit_test_setup(test_a_stopped_database_costs_patience_and_no_more,
		                       empty),
		cmocka_unit_test_setup(test_a_database_that_hangs_is_noticed, empty),
		cmocka_unit_test_setup(test_an_idle_store_notices_too, empty),
		cmocka_unit_test_setup(test_a_slow_statement_is_no_hang, empty),
		cmocka_unit_test_setup(test_looking_at_the_schema_of_one_that_hangs_ends,
		                       empty),
		cmocka_unit_test_setup(test_what_was_put_aside_has_its_patience_too, empty),
		cmocka_unit_test(test_a_store_that_never_connected_says_why),
		cmocka_unit_test_setup(test_stopping_finishes_what_waits, empty),
		cmocka_unit_test_setup(test_stopping_has_an_end, empty),
		cmocka_unit_test_setup(test_what_done_submits_while_it_stops_is_done_too,
		                       empty),
		cmocka_unit_test_setup(test_a_listener_hears_and_is_told_of_each_connection,
		                       empty),
		cmocka_unit_test_setup(test_a_listener_is_told_when_it_listens, empty),
		cmocka_unit_test_setup(test_wakes_are_coalesced, empty),
		cmocka_unit_test_setup(test_the_first_wake_goes_at_once, empty),
		cmocka_unit_test_setup(test_a_commit_wakes_and_a_failure_does_not, empty),
		cmocka_unit_test_setup(test_a_store_that_was_stopped_says_down, empty),
		cmocka_unit_test(test_results_have_texts),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
