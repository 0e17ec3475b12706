/* LMTP's command lines: see lmtp_line.h. */
#include "home/lmtp_line.h"

#include "base/text.h"

#include <strings.h>

static const struct {
	const char *name;
	enum lmtp_verb verb;
} verbs[] = {
	{ "LHLO", LMTP_LHLO }, { "MAIL", LMTP_MAIL }, { "RCPT", LMTP_RCPT_TO },
	{ "DATA", LMTP_DATA }, { "RSET", LMTP_RSET }, { "NOOP", LMTP_NOOP },
	{ "QUIT", LMTP_QUIT }, { "VRFY", LMTP_VRFY }, { "HELO", LMTP_HELO },
	{ "EHLO", LMTP_HELO },
};

static bool
is_word(struct slice s, const char *word)
{
	return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

/* Takes n octets off the front. */
static void
skip(struct slice *s, size_t n)
{
	s->data += n;
	s->len -= n;
}

static void
skip_blanks(struct slice *s)
{
	while (s->len > 0 && (s->data[0] == ' ' || s->data[0] == '\t'))
		skip(s, 1);
}

static struct slice
next_word(struct slice *s)
{
	struct slice word = { s->data, 0 };

	while (word.len < s->len && s->data[word.len] != ' ' && s->data[word.len] != '\t')
		word.len++;
	skip(s, word.len);
	skip_blanks(s);
	return word;
}

enum lmtp_verb
lmtp_line_verb(struct slice line, struct slice *args)
{
	struct slice word;

	while (line.len > 0 && line.data[line.len - 1] == ' ')
		line.len--;
	word = next_word(&line);
	*args = line;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (is_word(word, verbs[i].name))
			return verbs[i].verb;
	return LMTP_UNKNOWN;
}

/* --- paths ------------------------------------------------------------------------ */

/* "@a,@b:" in front of an address, which everybody ignores (RFC 5321 appendix C). */
static void
skip_route(struct slice *s)
{
	const uint8_t *colon =
	    s->len > 0 && s->data[0] == '@' ? memchr(s->data, ':', s->len) : NULL;

	if (colon != NULL)
		skip(s, (size_t)(colon - s->data) + 1);
}

static bool
put(struct lmtp_path *p, uint8_t c)
{
	if (p->len == LMTP_PATH_MAX)
		return false;
	p->text[p->len++] = (char)c;
	p->text[p->len] = '\0';
	return true;
}

/* A quoted local part up to its closing quote; keep: with quotes and backslashes, as it stands. */
static bool
take_quoted(struct slice *s, bool keep, struct lmtp_path *p)
{
	bool good = !keep || put(p, '"');

	p->quoted = true;
	for (skip(s, 1); good && s->len > 0 && s->data[0] != '"'; skip(s, 1)) {
		if (s->data[0] == '\\') {
			good = !keep || put(p, '\\');
			skip(s, 1);
			if (s->len == 0)
				return false;
		}
		good = good && put(p, s->data[0]);
	}
	if (!good || s->len == 0)
		return false;
	skip(s, 1);
	return !keep || put(p, '"');
}

/* "<path>"; what follows stays in *s. */
static enum lmtp_line_rc
take_path(struct slice *s, bool keep_quotes, struct lmtp_path *p)
{
	*p = (struct lmtp_path){ .len = 0 };
	skip_blanks(s); /* "FROM: <…>" is wrong and common */
	if (s->len == 0 || s->data[0] != '<')
		return LMTP_LINE_SYNTAX;
	skip(s, 1);
	skip_route(s);
	if (s->len > 0 && s->data[0] == '"' && !take_quoted(s, keep_quotes, p))
		return LMTP_LINE_PATH;
	for (; s->len > 0 && s->data[0] != '>'; skip(s, 1))
		if (s->data[0] <= ' ' || s->data[0] == '<' || s->data[0] == '"' ||
		    !put(p, s->data[0]))
			return LMTP_LINE_PATH;
	if (s->len == 0)
		return LMTP_LINE_SYNTAX;
	skip(s, 1);
	if (s->len > 0 && s->data[0] != ' ')
		return LMTP_LINE_SYNTAX;
	skip_blanks(s);
	return LMTP_LINE_OK;
}

static bool
is_ascii(const struct lmtp_path *p)
{
	for (size_t i = 0; i < p->len; i++)
		if ((p->text[i] & 0x80) != 0)
			return false;
	return true;
}

static bool
charset_fits(const struct lmtp_path *p, bool utf8)
{
	return is_ascii(p) || (utf8 && text_is_utf8(slice_mem(p->text, p->len)));
}

/* "FROM:" or "TO:". */
static bool
take_keyword(struct slice *args, const char *keyword)
{
	size_t n = strlen(keyword);

	if (args->len < n || strncasecmp((const char *)args->data, keyword, n) != 0)
		return false;
	skip(args, n);
	return true;
}

/* --- parameters --------------------------------------------------------------------- */

static enum lmtp_line_rc
take_param(struct slice word, struct lmtp_mail *m)
{
	const uint8_t *equals = memchr(word.data, '=', word.len);
	size_t len = equals == NULL ? word.len : (size_t)(equals - word.data);
	struct slice name = slice_mem(word.data, len);
	struct slice value =
	    equals == NULL ? slice_mem(NULL, 0) : slice_mem(equals + 1, word.len - len - 1);

	if (is_word(name, "SIZE")) {
		m->has_size = true;
		return text_parse_u64(value, UINT64_MAX - 1, &m->size) ? LMTP_LINE_OK
		                                                       : LMTP_LINE_VALUE;
	}
	if (is_word(name, "BODY"))
		return is_word(value, "7BIT") || is_word(value, "8BITMIME") ? LMTP_LINE_OK
		                                                            : LMTP_LINE_VALUE;
	if (is_word(name, "SMTPUTF8") && equals == NULL) {
		m->utf8 = true;
		return LMTP_LINE_OK;
	}
	return LMTP_LINE_PARAM;
}

enum lmtp_line_rc
lmtp_line_mail(struct slice args, struct lmtp_mail *out)
{
	struct lmtp_mail m = { .has_size = false };
	enum lmtp_line_rc rc;

	if (!take_keyword(&args, "FROM:"))
		return LMTP_LINE_SYNTAX;
	rc = take_path(&args, true, &m.sender);
	while (rc == LMTP_LINE_OK && args.len > 0)
		rc = take_param(next_word(&args), &m);
	if (rc == LMTP_LINE_OK && !charset_fits(&m.sender, m.utf8))
		rc = LMTP_LINE_UTF8;
	if (rc == LMTP_LINE_OK)
		*out = m;
	return rc;
}

enum lmtp_line_rc
lmtp_line_rcpt(struct slice args, bool utf8, struct lmtp_path *out)
{
	struct lmtp_path p;
	enum lmtp_line_rc rc;

	if (!take_keyword(&args, "TO:"))
		return LMTP_LINE_SYNTAX;
	rc = take_path(&args, false, &p);
	if (rc == LMTP_LINE_OK && p.len == 0)
		rc = LMTP_LINE_PATH;
	if (rc == LMTP_LINE_OK && args.len > 0)
		rc = LMTP_LINE_PARAM;
	if (rc == LMTP_LINE_OK && !charset_fits(&p, utf8))
		rc = LMTP_LINE_UTF8;
	if (rc == LMTP_LINE_OK)
		*out = p;
	return rc;
}
