/* What is logged, line by line, for tests that wait for a line. */
#ifndef TMTP_TESTS_WEB_LINES_H
#define TMTP_TESTS_WEB_LINES_H

#include "base/log.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static int lines_from = -1, lines_to = -1;

static inline void
lines_begin(void)
{
	int fds[2];

	if (pipe(fds) != 0)
		return;
	lines_from = fds[0];
	lines_to = fds[1];
	log_set_fd(lines_to);
}

static inline void
lines_end(void)
{
	log_set_fd(STDERR_FILENO);
	(void)close(lines_from);
	(void)close(lines_to);
}

/* The next line, without its newline; false: none within ten seconds. */
static inline bool
lines_next(char *line, size_t size)
{
	struct pollfd one = { .fd = lines_from, .events = POLLIN };
	size_t n = 0;
	char octet;

	while (poll(&one, 1, 10000) == 1 && read(lines_from, &octet, 1) == 1 && octet != '\n') {
		if (n + 1 < size)
			line[n++] = octet;
	}
	line[n] = '\0';
	return n > 0;
}

#endif
