/*
 * Variables in a shared message's text: see message.h. In HTML a small
 * tokenizer (after the HTML standard, section 13.2.5) tells text from markup;
 * in doubt it takes text for markup, and nothing is inserted there. Markdown
 * holds HTML, and destinations of links besides.
 */
#include "dmtp/message.h"

#include "base/text.h"

#define NAME_MAX_LEN 30

static bool
is_name_char(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool
var_name_valid(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!is_name_char(name.data[i]))
			return false;
	return name.len >= 1 && name.len <= NAME_MAX_LEN;
}

bool
dmtp_vars_valid(struct slice vars)
{
	struct ben_reader r;

	if (vars.len > DMTP_VARS_MAX || ben_check(vars, DMTP_VARS_MAX) != BEN_OK)
		return false;
	ben_reader_init(&r, vars);
	ben_enter_dict(&r);
	while (ben_more(&r)) {
		struct slice name = ben_get_str(&r), value = ben_get_str(&r);

		if (!var_name_valid(name) || !text_is_utf8(value))
			return false;
	}
	return !r.bad;
}

/* --- where in HTML we are ------------------------------------------------- */

enum html_state {
	IN_TEXT,
	TAG_NAME,
	BEFORE_ATTRIBUTE,
	ATTRIBUTE_NAME,
	AFTER_ATTRIBUTE,
	BEFORE_VALUE,
	VALUE_UNQUOTED,
	VALUE_DOUBLE,
	VALUE_SINGLE,
	DECLARATION, /* "<!…", "<?…", "</" before no letter: up to ">" */
	COMMENT,
	RAW, /* the inside of an element whose content is no text */
};

struct html {
	enum html_state state;
	bool end_tag;
	size_t name_len; /* of the tag, as far as it fits */
	char name[12];
};

static const char *const raw_elements[] = { "script",   "style",    "textarea", "title",
	                                    "xmp",      "iframe",   "noembed",  "noframes",
	                                    "noscript", "plaintext" };

static uint8_t
lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

static bool
is_letter(uint8_t c)
{
	return lower(c) >= 'a' && lower(c) <= 'z';
}

static bool
is_blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
}

/* at stands on "<". */
static enum html_state
html_open(struct html *h, struct slice s, size_t at)
{
	uint8_t next = at + 1 < s.len ? s.data[at + 1] : 0;

	h->name_len = 0;
	h->end_tag = next == '/';
	if (is_letter(next) || (next == '/' && at + 2 < s.len && is_letter(s.data[at + 2])))
		return TAG_NAME;
	if (s.len - at >= 4 && memcmp(s.data + at, "<!--", 4) == 0)
		return COMMENT;
	return next == '!' || next == '?' || next == '/' ? DECLARATION : IN_TEXT;
}

/* The tag's ">" was read. */
static enum html_state
html_tag_done(const struct html *h)
{
	for (size_t i = 0; !h->end_tag && i < sizeof(raw_elements) / sizeof(raw_elements[0]);
	     i++)
		if (slice_eq_str(slice_mem(h->name, h->name_len), raw_elements[i]))
			return RAW;
	return IN_TEXT;
}

/* at stands on "<" within a raw element: is it that element's end tag? */
static bool
html_ends_raw(const struct html *h, struct slice s, size_t at)
{
	if (s.len - at < 3 + h->name_len || s.data[at + 1] != '/')
		return false;
	for (size_t i = 0; i < h->name_len; i++)
		if (lower(s.data[at + 2 + i]) != (uint8_t)h->name[i])
			return false;
	return is_blank(s.data[at + 2 + h->name_len]) || s.data[at + 2 + h->name_len] == '/' ||
	       s.data[at + 2 + h->name_len] == '>';
}

static enum html_state
html_in_name(struct html *h, uint8_t c)
{
	if (is_blank(c))
		return BEFORE_ATTRIBUTE;
	if (c == '/')
		return h->name_len > 0 ? BEFORE_ATTRIBUTE : TAG_NAME;
	if (h->name_len < sizeof(h->name))
		h->name[h->name_len++] = (char)lower(c);
	return TAG_NAME;
}

static enum html_state
html_in_tag(struct html *h, uint8_t c)
{
	switch (h->state) {
	case TAG_NAME:
		return html_in_name(h, c);
	case BEFORE_ATTRIBUTE:
		return is_blank(c) || c == '/' ? BEFORE_ATTRIBUTE : ATTRIBUTE_NAME;
	case ATTRIBUTE_NAME:
	case AFTER_ATTRIBUTE:
		if (c == '=')
			return BEFORE_VALUE;
		if (c == '/')
			return BEFORE_ATTRIBUTE;
		if (is_blank(c))
			return AFTER_ATTRIBUTE;
		return ATTRIBUTE_NAME;
	case BEFORE_VALUE:
		if (is_blank(c))
			return BEFORE_VALUE;
		if (c == '"')
			return VALUE_DOUBLE;
		return c == '\'' ? VALUE_SINGLE : VALUE_UNQUOTED;
	default:
		return is_blank(c) ? BEFORE_ATTRIBUTE : VALUE_UNQUOTED;
	}
}

/* The octet at s.data[at] goes by. */
static void
html_step(struct html *h, struct slice s, size_t at)
{
	uint8_t c = s.data[at];

	switch (h->state) {
	case IN_TEXT:
		if (c == '<')
			h->state = html_open(h, s, at);
		break;
	case VALUE_DOUBLE:
	case VALUE_SINGLE:
		if (c == (h->state == VALUE_DOUBLE ? '"' : '\''))
			h->state = BEFORE_ATTRIBUTE;
		break;
	case DECLARATION:
		if (c == '>')
			h->state = IN_TEXT;
		break;
	case COMMENT:
		if (c == '>' && at >= 2 && memcmp(s.data + at - 2, "--", 2) == 0)
			h->state = IN_TEXT;
		break;
	case RAW:
		if (c == '<' && html_ends_raw(h, s, at))
			h->state = html_open(h, s, at);
		break;
	default:
		h->state = c == '>' ? html_tag_done(h) : html_in_tag(h, c);
		break;
	}
}

/* --- insertion ------------------------------------------------------------ */

static bool
type_is(struct slice type, const char *essence)
{
	size_t n = strlen(essence);

	if (type.len < n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (lower(type.data[i]) != (uint8_t)essence[i])
			return false;
	return type.len == n || type.data[n] == ';' || is_blank(type.data[n]);
}

enum dmtp_escape
dmtp_escape_for(struct slice media_type)
{
	if (type_is(media_type, "text/html") || type_is(media_type, "application/xhtml+xml"))
		return DMTP_ESCAPE_HTML;
	if (type_is(media_type, "text/markdown"))
		return DMTP_ESCAPE_MARKDOWN;
	return DMTP_ESCAPE_NONE;
}

static const char *
entity(uint8_t c)
{
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	default:
		return NULL;
	}
}

static bool
is_punctuation(uint8_t c)
{
	return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') ||
	       (c > 'z' && c < 0x7f);
}

/* Entities are text in HTML and, unlike backslashes, also in HTML within Markdown. */
static void
put_escaped(struct slice value, enum dmtp_escape escape, struct buffer *out)
{
	for (size_t i = 0; i < value.len; i++) {
		const char *text = entity(value.data[i]);

		if (text != NULL) {
			buffer_add_str(out, text);
			continue;
		}
		if (escape == DMTP_ESCAPE_MARKDOWN && is_punctuation(value.data[i]))
			buffer_add_u8(out, '\\');
		buffer_add_u8(out, value.data[i]);
	}
}

/* The length of "{{name}}" at at, 0 when there is none; the name goes into name. */
static size_t
placeholder(struct slice s, size_t at, char name[static NAME_MAX_LEN + 1])
{
	size_t n = 0;

	if (s.len - at < 5 || s.data[at] != '{' || s.data[at + 1] != '{')
		return 0;
	while (n < NAME_MAX_LEN && at + 2 + n < s.len && is_name_char(s.data[at + 2 + n])) {
		name[n] = (char)s.data[at + 2 + n];
		n++;
	}
	name[n] = '\0';
	if (n == 0 || s.len - at - 2 - n < 2 || memcmp(s.data + at + 2 + n, "}}", 2) != 0)
		return 0;
	return n + 4;
}

static void
put_variable(const char *name, enum dmtp_escape escape, struct slice vars, struct buffer *out)
{
	struct ben_reader r;
	struct slice value;

	ben_reader_init(&r, vars);
	ben_enter_dict(&r);
	if (!ben_find(&r, name))
		return;
	value = ben_get_str(&r);
	if (escape == DMTP_ESCAPE_NONE)
		buffer_add_slice(out, value);
	else
		put_escaped(value, escape, out);
}

/* --- the places where something is inserted ------------------------------- */

/* A walk through a text, from one place to the next. */
struct walk {
	struct slice text;
	enum dmtp_escape escape;
	struct html html;
	uint8_t until; /* within a link's destination in Markdown: what ends it; else 0 */
	size_t at;
	char name[NAME_MAX_LEN + 1]; /* of the place that was found */
};

/* In HTML only in text, and not right behind "<": a value must not become a tag's name. */
static bool
may_insert(const struct walk *w)
{
	if (w->escape == DMTP_ESCAPE_NONE)
		return true;
	return w->html.state == IN_TEXT && w->until == 0 &&
	       (w->at == 0 || w->text.data[w->at - 1] != '<');
}

/* "](" begins a link's destination and title, "]:" that of a reference, to the end of its line. */
static void
markdown_step(struct walk *w)
{
	uint8_t c = w->text.data[w->at];

	if (w->until != 0) {
		if (c == w->until || c == '\n')
			w->until = 0;
	} else if (w->at > 0 && w->text.data[w->at - 1] == ']' && (c == '(' || c == ':')) {
		w->until = c == '(' ? ')' : '\n';
	}
}

/* The length of the next place, which stands at w->at then; 0: there is none. The caller goes on behind it. */
static size_t
walk_next(struct walk *w)
{
	for (; w->at < w->text.len; w->at++) {
		size_t n = may_insert(w) ? placeholder(w->text, w->at, w->name) : 0;

		if (n > 0)
			return n;
		if (w->escape == DMTP_ESCAPE_MARKDOWN)
			markdown_step(w);
		if (w->escape != DMTP_ESCAPE_NONE)
			html_step(&w->html, w->text, w->at);
	}
	return 0;
}

void
dmtp_template_expand(struct slice text, enum dmtp_escape escape, struct slice vars,
                     struct buffer *out)
{
	struct walk w = { .text = text, .escape = escape, .html = { .state = IN_TEXT } };
	size_t copied = 0, n;

	while (!out->failed && (n = walk_next(&w)) > 0) {
		buffer_add(out, text.data + copied, w.at - copied);
		put_variable(w.name, escape, vars, out);
		w.at += n;
		copied = w.at;
	}
	if (text.len > copied)
		buffer_add(out, text.data + copied, text.len - copied);
}

void
dmtp_template_names(struct slice text, enum dmtp_escape escape,
                    void (*each)(const char *name, void *arg), void *arg)
{
	struct walk w = { .text = text, .escape = escape, .html = { .state = IN_TEXT } };
	size_t n;

	while ((n = walk_next(&w)) > 0) {
		each(w.name, arg);
		w.at += n;
	}
}

bool
dmtp_var_name_valid(struct slice name)
{
	return var_name_valid(name);
}
