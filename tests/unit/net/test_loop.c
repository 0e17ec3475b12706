/* net/loop: timers, work put off, descriptors, tasks of other threads. */
#include "net_test.h"

#include <pthread.h>
#include <sys/socket.h>

static struct loop *loop;

static int
setup(void **state)
{
	(void)state;
	loop = loop_new();
	return loop == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	loop_free(&loop);
	assert_null(loop);
	return 0;
}

struct tick {
	struct loop_timer timer;
	int64_t due_ms;
	int fired;
};

static int64_t last_due;

static void
on_tick(struct loop_timer *timer)
{
	struct tick *t = timer->arg;

	t->fired++;
	assert_true(loop_mono_ms(loop) >= t->due_ms);
	assert_true(t->due_ms >= last_due);
	last_due = t->due_ms;
}

static void
set_tick(struct tick *t, int64_t ms)
{
	loop_timer_set(&t->timer, ms);
	t->due_ms = t->timer.due_ms;
}

static int
fired_of(const struct tick *ticks, size_t count)
{
	int fired = 0;

	for (size_t i = 0; i < count; i++)
		fired += ticks[i].fired;
	return fired;
}

static void
test_timers_fire_in_order_once_and_not_when_cancelled(void **state)
{
	static struct tick ticks[500];
	unsigned seed = 7;

	(void)state;
	last_due = 0;
	for (size_t i = 0; i < 500; i++) {
		ticks[i] = (struct tick){ 0 };
		loop_timer_init(&ticks[i].timer, loop, on_tick, &ticks[i]);
		set_tick(&ticks[i], rand_r(&seed) % 100);
	}
	for (size_t i = 0; i < 500; i += 3)
		loop_timer_cancel(&ticks[i].timer);
	for (size_t i = 1; i < 500; i += 3)
		set_tick(&ticks[i], rand_r(&seed) % 100); /* earlier or later than before */
	for (size_t i = 0; i < 500; i += 30)
		loop_timer_cancel(&ticks[i].timer); /* twice is once */
	TURN_UNTIL(loop, fired_of(ticks, 500) == 333);
	(void)loop_turn(loop, 0);
	for (size_t i = 0; i < 500; i++)
		assert_int_equal(ticks[i].fired, i % 3 == 0 ? 0 : 1);
}

static void
test_a_timer_put_off_fires_at_its_last_time_only(void **state)
{
	struct tick t = { 0 };
	int64_t begin;

	(void)state;
	last_due = 0;
	loop_timer_init(&t.timer, loop, on_tick, &t);
	set_tick(&t, 5);
	begin = loop_mono_ms(loop);
	set_tick(&t, 60);
	TURN_UNTIL(loop, t.fired == 1);
	assert_true(loop_mono_ms(loop) - begin >= 60);
	set_tick(&t, 10000);
	set_tick(&t, 1);
	TURN_UNTIL(loop, t.fired == 2);
	assert_false(t.timer.set);
}

static void
test_a_timer_set_outside_a_turn_counts_from_now(void **state)
{
	struct tick t = { 0 };
	struct loop *late;

	(void)state;
	clock_freeze(INT64_C(5000000));
	late = loop_new();
	clock_freeze(INT64_C(6000000)); /* a second goes by before anything is set */
	loop_timer_init(&t.timer, late, on_tick, &t);
	loop_timer_set(&t.timer, 10);
	assert_int_equal(t.timer.due_ms, 6010);
	(void)loop_turn(late, 0);
	clock_freeze(INT64_C(7000000));
	loop_timer_set(&t.timer, 10);
	assert_int_equal(t.timer.due_ms, 7010);
	loop_timer_cancel(&t.timer);
	loop_free(&late);
	clock_freeze(-1);
}

static int again_count;

static void
on_again(struct loop_timer *timer)
{
	again_count++;
	loop_timer_set(timer, 0);
}

static void
test_a_timer_that_sets_itself_to_zero_does_not_hold_the_turn(void **state)
{
	struct loop_timer t;

	(void)state;
	again_count = 0;
	loop_timer_init(&t, loop, on_again, NULL);
	loop_timer_set(&t, 0);
	(void)loop_turn(loop, 100);
	assert_int_equal(again_count, 1);
	loop_timer_cancel(&t);
}

static char order[64];

struct put_off {
	struct loop_defer defer;
	char name;
	struct put_off *also, *cancels;
};

static void
on_put_off(struct loop_defer *defer)
{
	struct put_off *p = defer->arg;
	size_t n = strlen(order);

	order[n] = p->name;
	order[n + 1] = '\0';
	if (p->also != NULL)
		loop_defer(loop, &p->also->defer);
	if (p->cancels != NULL)
		loop_defer_cancel(&p->cancels->defer);
}

static void
test_work_put_off_runs_once_at_the_end_of_the_turn(void **state)
{
	struct put_off a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };

	(void)state;
	order[0] = '\0';
	loop_defer_init(&a.defer, on_put_off, &a);
	loop_defer_init(&b.defer, on_put_off, &b);
	loop_defer_init(&c.defer, on_put_off, &c);
	a.also = &a;    /* again: in the next turn */
	a.cancels = &b; /* though it waits in the same list */
	loop_defer(loop, &a.defer);
	loop_defer(loop, &b.defer);
	loop_defer(loop, &c.defer);
	loop_defer(loop, &c.defer);
	loop_defer(loop, &a.defer);
	(void)loop_turn(loop, -1); /* must not wait */
	assert_string_equal(order, "ac");
	(void)loop_turn(loop, -1);
	assert_string_equal(order, "aca");
	loop_defer_cancel(&a.defer);
	(void)loop_turn(loop, 0);
	assert_string_equal(order, "aca");
}

struct seen {
	struct loop_fd watch;
	unsigned ready;
	bool ends;
};

static void
on_seen(struct loop_fd *watch, unsigned ready)
{
	struct seen *s = watch->arg;

	s->ready |= ready;
	if (s->ends)
		loop_fd_deinit(watch);
}

static void
test_descriptors_are_watched_for_what_is_wanted(void **state)
{
	struct seen s = { 0 };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	assert_true(loop_fd_init(&s.watch, loop, fds[0], on_seen, &s));
	(void)loop_turn(loop, 0);
	assert_int_equal(s.ready, 0);
	assert_true(loop_fd_want(&s.watch, LOOP_READ | LOOP_WRITE));
	(void)loop_turn(loop, 1000);
	assert_int_equal(s.ready, LOOP_WRITE);
	s.ready = 0;
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_true(loop_fd_want(&s.watch, LOOP_READ));
	(void)loop_turn(loop, 1000);
	assert_int_equal(s.ready, LOOP_READ);
	s.ready = 0;
	assert_true(loop_fd_want(&s.watch, 0));
	(void)loop_turn(loop, 0);
	assert_int_equal(s.ready, 0);
	s.ends = true; /* readable and writable: the first call ends it */
	assert_true(loop_fd_want(&s.watch, LOOP_READ | LOOP_WRITE));
	(void)loop_turn(loop, 1000);
	assert_true(s.ready == LOOP_READ || s.ready == LOOP_WRITE);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

struct job {
	struct loop_task task;
	int number;
};

static int jobs_run, job_last[4];

static void
run_job(struct loop_task *task)
{
	struct job *job = (struct job *)task;

	assert_true(job->number % 10000 > job_last[job->number / 10000] ||
	            (job->number % 10000 == 0 && job_last[job->number / 10000] == 0));
	job_last[job->number / 10000] = job->number % 10000;
	free(job);
	if (++jobs_run == 40000)
		loop_stop(loop);
}

static void *
post_many(void *arg)
{
	int who = *(int *)arg;

	for (int i = 0; i < 10000; i++) {
		struct job *job = malloc(sizeof(*job));

		if (job == NULL)
			abort();
		*job = (struct job){ .task.run = run_job, .number = who * 10000 + i };
		loop_post(loop, &job->task);
	}
	return NULL;
}

static void
test_tasks_of_four_threads_all_run_in_their_order(void **state)
{
	pthread_t threads[4];
	int who[4] = { 0, 1, 2, 3 };

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, post_many, &who[i]), 0);
	loop_run(loop);
	assert_int_equal(jobs_run, 40000);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(threads[i], NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
		    test_timers_fire_in_order_once_and_not_when_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_a_timer_put_off_fires_at_its_last_time_only, setup, teardown),
		cmocka_unit_test(test_a_timer_set_outside_a_turn_counts_from_now),
		cmocka_unit_test_setup_teardown(
		    test_a_timer_that_sets_itself_to_zero_does_not_hold_the_turn, setup,
		    teardown),
		cmocka_unit_test_setup_teardown(
		    test_work_put_off_runs_once_at_the_end_of_the_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_are_watched_for_what_is_wanted,
		                                setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_tasks_of_four_threads_all_run_in_their_order, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
