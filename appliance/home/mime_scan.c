/*
 * A mail's measure: see mime_scan.h. Headers stand at the beginning, behind
 * what could be a boundary, and behind the empty line of a header that could
 * be a message's within a message.
 */
#include "home/mime_scan.h"

#include <strings.h>

struct scan {
	size_t header_lines, header_octets, boundaries, containers;
	bool in_header; /* this line belongs to one, perhaps */
	bool again;     /* behind this header another may begin at once */
	bool digest;    /* parts of a digest are messages without saying so */
};

static bool
has(struct slice line, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= line.len; i++)
		if (strncasecmp((const char *)line.data + i, word, n) == 0)
			return true;
	return false;
}

/* A content type's line, or one that could be its continuation. */
static bool
may_tell_type(struct slice line)
{
	return line.data[0] == ' ' || line.data[0] == '\t' ||
	       (line.len >= 8 && strncasecmp((const char *)line.data, "content-", 8) == 0);
}

static void
scan_header(struct scan *s, struct slice line)
{
	bool message, multipart;

	s->header_lines++;
	s->header_octets += line.len;
	if (!may_tell_type(line))
		return;
	message = has(line, "message");
	multipart = has(line, "multipart");
	s->containers += message || multipart;
	s->again = s->again || message;
	s->digest = s->digest || has(line, "digest");
}

static void
scan_line(struct scan *s, struct slice line)
{
	if (line.len >= 2 && line.data[0] == '-' && line.data[1] == '-') {
		s->boundaries++;
		s->in_header = true;
		s->again = false;
	} else if (line.len == 0) {
		s->in_header = s->in_header && (s->again || s->digest);
		s->again = false;
	} else if (s->in_header) {
		scan_header(s, line);
	}
}

bool
mime_scan(struct slice mail)
{
	struct scan s = { .in_header = true };
	const uint8_t *at = mail.data, *end = mail.data + mail.len;

	while (mail.len > 0 && at < end) {
		const uint8_t *lf = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((lf == NULL ? end : lf) - at);

		scan_line(&s, slice_mem(at, len > 0 && at[len - 1] == '\r' ? len - 1 : len));
		if (s.header_lines > MIME_HEADER_LINES_MAX ||
		    s.header_octets > MIME_HEADER_OCTETS_MAX ||
		    s.boundaries > MIME_BOUNDARIES_MAX || s.containers > MIME_CONTAINERS_MAX)
			return false;
		at = lf == NULL ? end : lf + 1;
	}
	return true;
}
