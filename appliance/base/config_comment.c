/* Comments become blanks: see config_comment.h. The rules are those of libconfuse's lexer.l. */
#include "base/config_comment.h"

#include <stdbool.h>
#include <string.h>

struct scan {
	uint8_t *at, *end;
	int line;
};

static bool
begins_with(const struct scan *s, const char *what)
{
	size_t n = strlen(what);

	return (size_t)(s->end - s->at) >= n && memcmp(s->at, what, n) == 0;
}

static void
step(struct scan *s)
{
	if (s->at < s->end)
		s->line += *s->at++ == '\n';
}

static void
blank(struct scan *s)
{
	if (*s->at != '\n')
		*s->at = ' ';
	step(s);
}

/* "${NAME}" may hold anything; without its end it is no more than two characters. */
static void
pass_variable(struct scan *s)
{
	const uint8_t *end = memchr(s->at, '}', (size_t)(s->end - s->at));

	do
		step(s);
	while (end != NULL && s->at <= end);
}

static void
pass_string(struct scan *s)
{
	uint8_t quote = *s->at;

	step(s);
	while (s->at < s->end && *s->at != quote) {
		if (quote == '"' && begins_with(s, "${")) {
			pass_variable(s);
			continue;
		}
		if (*s->at == '\\')
			step(s);
		step(s);
	}
	step(s);
}

static bool
in_word(const struct scan *s)
{
	return s->at < s->end && strchr(" #\"'\t\n\r={}()+,*", *s->at) == NULL;
}

/* A bare word, or whatever stands between two. */
static void
pass_word(struct scan *s)
{
	bool word = in_word(s);

	do
		step(s);
	while (word && in_word(s));
}

static void
blank_line(struct scan *s)
{
	while (s->at < s->end && *s->at != '\n')
		blank(s);
}

/* False: nothing ends it. */
static bool
blank_block(struct scan *s)
{
	blank(s);
	blank(s);
	while (s->at < s->end && !begins_with(s, "*/"))
		blank(s);
	if (s->at == s->end)
		return false;
	blank(s);
	blank(s);
	return true;
}

int
config_blank_comments(uint8_t *text, size_t len)
{
	struct scan s = { .at = text, .end = text + len, .line = 1 };

	while (s.at < s.end) {
		int began = s.line;

		if (*s.at == '#' || begins_with(&s, "//"))
			blank_line(&s);
		else if (begins_with(&s, "/*") && !blank_block(&s))
			return began;
		else if (s.at == s.end)
			break;
		else if (*s.at == '"' || *s.at == '\'')
			pass_string(&s);
		else if (begins_with(&s, "${"))
			pass_variable(&s);
		else
			pass_word(&s);
	}
	return 0;
}
