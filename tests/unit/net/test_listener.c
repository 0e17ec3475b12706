/* net/listener: limits, seats, pausing. Real sockets on loopback. */
#include "net_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct loop *loop;
static struct listener *listener;

struct caught {
	int fd;
	struct listener_seat *seat;
	enum listener_refusal why; /* 0: accepted */
};

static struct caught caught[256];
static size_t caught_count;
static bool free_in_callback;

static void
keep(int fd, struct listener_seat *seat, enum listener_refusal why)
{
	assert_true(caught_count < 256);
	caught[caught_count++] = (struct caught){ fd, seat, why };
	if (free_in_callback)
		listener_free(&listener);
}

static void
on_accepted(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	char text[NET_ADDRESS_TEXT];

	assert_ptr_equal(arg, &listener);
	assert_memory_equal(net_address_format(peer, text), "127.0.0.1:", 10);
	keep(fd, seat, 0);
}

static void
on_refused(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat,
           enum listener_refusal why)
{
	(void)arg;
	(void)peer;
	keep(fd, seat, why);
}

static void
start(const char *bind, size_t total, size_t per_address, bool refuse_aloud)
{
	struct listener_config config = { .bind = bind,
		                          .max_total = total,
		                          .max_per_address = per_address,
		                          .accepted = on_accepted,
		                          .refused = refuse_aloud ? on_refused : NULL,
		                          .arg = &listener };
	char why[NET_TEXT];

	loop = loop_new();
	assert_non_null(loop);
	caught_count = 0;
	free_in_callback = false;
	listener = listener_new(loop, &config, why);
	assert_non_null(listener);
}

static int
call(void)
{
	struct net_address a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port;

	listener_address(listener, &a);
	port = net_address_port(&a);
	assert_true(port > 0);
	assert_true(net_address_make("127.0.0.1", (uint16_t)port, &a));
	assert_int_equal(connect(fd, (struct sockaddr *)&a.ss, a.len), 0);
	return fd;
}

static void
stop(void)
{
	for (size_t i = 0; i < caught_count; i++) {
		if (caught[i].fd >= 0)
			(void)close(caught[i].fd);
		listener_leave(&caught[i].seat);
	}
	listener_free(&listener);
	loop_free(&loop);
}

static bool
is_closed_by_peer(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, 0);

	(void)close(fd);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void
test_limits_in_total_and_by_address(void **state)
{
	int fds[8];

	(void)state;
	start("127.0.0.1:0", 3, 2, true);
	for (int i = 0; i < 3; i++)
		fds[i] = call();
	TURN_UNTIL(loop, caught_count == 3);
	assert_int_equal(caught[1].why, 0);
	assert_int_equal(caught[2].why, LISTENER_ADDRESS_FULL);
	assert_int_equal(listener_counts(listener).now, 2);
	assert_int_equal(listener_counts(listener).accepted, 2);
	assert_int_equal(listener_counts(listener).refused, 1);
	listener_leave(&caught[0].seat);
	assert_null(caught[0].seat);
	listener_leave(&caught[0].seat);
	fds[3] = call();
	TURN_UNTIL(loop, caught_count == 4);
	assert_int_equal(caught[3].why, 0);
	for (int i = 0; i < 4; i++)
		(void)close(fds[i]);
	stop();
}

static void
test_total_limit_refuses_in_silence_without_a_callback(void **state)
{
	int a, b;

	(void)state;
	start("*:0", 1, 0, false);
	a = call();
	TURN_UNTIL(loop, caught_count == 1);
	b = call();
	TURN_UNTIL(loop, listener_counts(listener).refused == 1);
	assert_true(is_closed_by_peer(b));
	assert_int_equal(caught_count, 1);
	(void)close(a);
	stop();
}

static void
test_the_refused_are_bounded_too(void **state)
{
	int fds[80];

	(void)state;
	start("127.0.0.1:0", 1, 0, true);
	for (int i = 0; i < 80; i++)
		fds[i] = call();
	TURN_UNTIL(loop, listener_counts(listener).refused == 79);
	assert_int_equal(caught_count, 1 + 64);
	assert_true(is_closed_by_peer(fds[79]));
	for (int i = 0; i < 79; i++)
		(void)close(fds[i]);
	stop();
}

static void
test_paused_callers_wait_until_resumed(void **state)
{
	int fd;

	(void)state;
	start("127.0.0.1:0", 0, 0, true);
	listener_pause(listener);
	assert_true(listener_counts(listener).paused);
	fd = call();
	for (int i = 0; i < 5; i++)
		(void)loop_turn(loop, 0);
	assert_int_equal(caught_count, 0);
	listener_resume(listener);
	TURN_UNTIL(loop, caught_count == 1);
	(void)close(fd);
	stop();
}

static void
test_no_descriptors_left_pauses_instead_of_spinning(void **state)
{
	struct rlimit before, none;
	int a, b, turns = 0;

	(void)state;
	start("127.0.0.1:0", 0, 0, true);
	a = call();
	TURN_UNTIL(loop, caught_count == 1);
	b = call();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)b + 1; /* nothing above what is open */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	log_set_fd(-1);
	TURN_UNTIL(loop, listener_counts(listener).paused);
	for (int64_t begin = loop_mono_ms(loop); loop_mono_ms(loop) < begin + 100; turns++)
		(void)loop_turn(loop, 50);
	log_set_fd(STDERR_FILENO);
	assert_true(turns < 10);
	assert_int_equal(caught_count, 1);
	(void)close(
	    caught[0].fd); /* one becomes free; giving the seat back wakes the listener */
	caught[0].fd = -1;
	listener_leave(&caught[0].seat);
	log_set_fd(-1);
	TURN_UNTIL(loop, caught_count == 2);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	TURN_UNTIL(loop, !listener_counts(listener).paused);
	log_set_fd(STDERR_FILENO);
	(void)close(a);
	(void)close(b);
	stop();
}

static void
test_seats_outlive_the_listener(void **state)
{
	int fds[3];

	(void)state;
	start("127.0.0.1:0", 0, 10, true);
	for (int i = 0; i < 3; i++)
		fds[i] = call();
	free_in_callback = true; /* in the midst of accepting three */
	TURN_UNTIL(loop, caught_count == 1);
	(void)loop_turn(loop, 0);
	assert_int_equal(caught_count, 1);
	assert_null(listener);
	for (int i = 0; i < 3; i++)
		(void)close(fds[i]);
	stop();
}

static void
test_what_cannot_be_bound_is_said(void **state)
{
	struct listener_config config = { .accepted = on_accepted };
	struct net_address a;
	char why[NET_TEXT], text[NET_ADDRESS_TEXT];

	(void)state;
	start("[::1]:0", 0, 0, false);
	listener_address(listener, &a);
	config.bind = net_address_format(&a, text);
	assert_null(listener_new(loop, &config, why));
	assert_non_null(strstr(why, text));
	assert_non_null(strstr(why, strerror(EADDRINUSE)));
	config.bind = "example.org:25";
	assert_null(listener_new(loop, &config, why));
	assert_non_null(strstr(why, "example.org:25"));
	stop();
}

/* --- Unix sockets --------------------------------------------------------------- */

static char unix_dir[] = "/tmp/tlXXXXXX";
static char unix_bind[64];

static int
unix_call(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", unix_bind + 5);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static void
on_unix(void *arg, int fd, const struct net_address *peer, struct listener_seat *seat)
{
	char text[NET_ADDRESS_TEXT];

	(void)arg;
	assert_string_equal(net_address_format(peer, text), "unix");
	keep(fd, seat, 0);
}

static struct listener *
unix_listen(char why[static NET_TEXT])
{
	struct listener_config config = { .bind = unix_bind, .accepted = on_unix };

	return listener_new(loop, &config, why);
}

/* A file that nobody listens on is replaced, one in use isn't, and the end removes what is ours. */
static void
test_unix_socket(void **state)
{
	char why[NET_TEXT];
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(unix_dir));
	(void)snprintf(unix_bind, sizeof(unix_bind), "unix:%s/s", unix_dir);
	loop = loop_new();
	caught_count = 0;
	listener = unix_listen(why);
	assert_non_null(listener);
	assert_int_equal(stat(unix_bind + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	fd = unix_call();
	assert_true(fd >= 0);
	while (caught_count == 0)
		(void)loop_turn(loop, 1000);
	assert_null(unix_listen(why));
	assert_non_null(strstr(why, "in use"));
	while (caught_count == 1) /* the one that looked whether somebody listens */
		(void)loop_turn(loop, 1000);
	for (size_t i = 0; i < caught_count; i++) {
		(void)close(caught[i].fd);
		listener_leave(&caught[i].seat);
	}
	(void)close(fd);
	listener_free(&listener);
	assert_int_not_equal(stat(unix_bind + 5, &st), 0);
	loop_free(&loop);
}

static void
test_unix_socket_of_an_earlier_life(void **state)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char why[NET_TEXT];
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	loop = loop_new();
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", unix_bind + 5);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	(void)close(fd);
	listener = unix_listen(why);
	assert_non_null(listener);
	/* Another process has taken the name since: it is not ours to remove. */
	assert_int_equal(unlink(un.sun_path), 0);
	fd = open(un.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	(void)close(fd);
	listener_free(&listener);
	assert_int_equal(stat(un.sun_path, &st), 0);
	assert_null(unix_listen(why)); /* a plain file is never replaced */
	assert_int_equal(unlink(un.sun_path), 0);
	assert_int_equal(rmdir(unix_dir), 0);
	loop_free(&loop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_in_total_and_by_address),
		cmocka_unit_test(test_total_limit_refuses_in_silence_without_a_callback),
		cmocka_unit_test(test_the_refused_are_bounded_too),
		cmocka_unit_test(test_paused_callers_wait_until_resumed),
		cmocka_unit_test(test_no_descriptors_left_pauses_instead_of_spinning),
		cmocka_unit_test(test_seats_outlive_the_listener),
		cmocka_unit_test(test_what_cannot_be_bound_is_said),
		cmocka_unit_test(test_unix_socket),
		cmocka_unit_test(test_unix_socket_of_an_earlier_life),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
