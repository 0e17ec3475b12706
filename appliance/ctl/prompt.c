/*
 * The terminal without echo: see prompt.h. A signal while we wait must not
 * leave the terminal mute: signals are let in only within ppoll, and what they
 * would have done is done after the echo is back.
 */
#include "ctl/prompt.h"

#include "ctl/input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

static void
on_signal(int number)
{
	caught = number;
}

/* One line without its end. False: a signal came, the input ended, or the line is too long. */
static bool
read_line(int fd, size_t max, const sigset_t *allowed, struct buffer *out)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	uint8_t *room = buffer_reserve(out, max + 2);
	ssize_t n;

	if (room == NULL)
		return false;
	for (size_t len = 0; len <= max; len += (size_t)n) {
		if (ppoll(&wait, 1, NULL, allowed) < 0 || caught != 0)
			return false;
		n = read(fd, room + len, max + 1 - len);
		if (n <= 0)
			return false;
		if (room[len + (size_t)n - 1] != '\n')
			continue;
		buffer_added(out, len + (size_t)n - 1);
		room[out->len] = '\0';
		return true;
	}
	return false;
}

static bool
ask(int fd, const char *question, size_t max, const sigset_t *allowed, struct buffer *out)
{
	bool ok;

	(void)dprintf(fd, "%s: ", question);
	ok = read_line(fd, max, allowed, out);
	(void)dprintf(fd, "\n");
	return ok;
}

static bool
ask_twice(int fd, size_t max, struct buffer *first, struct buffer *second)
{
	struct sigaction old[SIGNALS], catch = { .sa_handler = on_signal };
	struct termios before, mute;
	sigset_t block, allowed;
	bool ok = false;

	if (tcgetattr(fd, &before) != 0)
		return false;
	(void)sigemptyset(&block);
	for (size_t i = 0; i < SIGNALS; i++)
		(void)sigaddset(&block, signals[i]);
	(void)sigprocmask(SIG_BLOCK, &block, &allowed);
	for (size_t i = 0; i < SIGNALS; i++)
		(void)sigaction(signals[i], &catch, &old[i]);
	mute = before;
	mute.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	if (tcsetattr(fd, TCSAFLUSH, &mute) == 0)
		ok = ask(fd, "New password", max, &allowed, first) &&
		     ask(fd, "The same again", max, &allowed, second);
	(void)tcsetattr(fd, TCSAFLUSH, &before);
	for (size_t i = 0; i < SIGNALS; i++)
		(void)sigaction(signals[i], &old[i], NULL);
	if (caught != 0)
		(void)raise(caught);
	(void)sigprocmask(SIG_SETMASK, &allowed, NULL);
	return ok;
}

enum ctl_exit
prompt_new_password(struct ctl *ctl, size_t max, struct buffer *out)
{
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct buffer second;
	bool ok, same;

	buffer_init(out, max + 2);
	buffer_init(&second, max + 2);
	if (fd < 0)
		return ctl_fail(ctl, CTL_REFUSED, "no-terminal",
		                "there is no terminal to ask on: use --password-file");
	ok = ask_twice(fd, max, out, &second);
	(void)close(fd);
	same = ok && slice_eq(buffer_slice(out), buffer_slice(&second));
	input_wipe(&second);
	if (same)
		return CTL_OK;
	input_wipe(out);
	if (ok)
		return ctl_fail(ctl, CTL_REFUSED, "mismatch",
		                "the two passwords differ: nothing was changed");
	return ctl_fail(ctl, CTL_REFUSED, "aborted",
	                "no password was entered: nothing was changed");
}
