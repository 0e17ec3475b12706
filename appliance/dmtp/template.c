/*
 * Variables in a shared message's text: see message.h. In HTML a small
 * tokenizer (after the HTML standard, section 13.2.5) tells text from markup;
 * in doubt it takes text for markup, and nothing is inserted there.
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
	return DMTP_ESCAPE_NONE;
}

static void
put_escaped(struct slice value, struct buffer *out)
{
	for (size_t i = 0; i < value.len; i++) {
		switch (value.data[i]) {
		case '&':
			buffer_add_str(out, "&amp;");
			break;
		case '<':
			buffer_add_str(out, "&lt;");
			break;
		case '>':
			buffer_add_str(out, "&gt;");
			break;
		case '"':
			buffer_add_str(out, "&quot;");
			break;
		case '\'':
			buffer_add_str(out, "&#39;");
			break;
		default:
			buffer_add_u8(out, value.data[i]);
			break;
		}
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
	if (escape == DMTP_ESCAPE_HTML)
		put_escaped(value, out);
	else
		buffer_add_slice(out, value);
}

/* In HTML only in text, and not right behind "<": a value must not become a tag's name. */
static bool
may_insert(const struct html *h, enum dmtp_escape escape, struct slice text, size_t at)
{
	return escape == DMTP_ESCAPE_NONE ||
	       (h->state == IN_TEXT && (at == 0 || text.data[at - 1] != '<'));
}

void
dmtp_template_expand(struct slice text, enum dmtp_escape escape, struct slice vars,
                     struct buffer *out)
{
	struct html html = { .state = IN_TEXT };
	char name[NAME_MAX_LEN + 1];
	size_t copied = 0;

	for (size_t at = 0; at < text.len && !out->failed;) {
		size_t n =
		    may_insert(&html, escape, text, at) ? placeholder(text, at, name) : 0;

		if (n == 0) {
			if (escape == DMTP_ESCAPE_HTML)
				html_step(&html, text, at);
			at++;
			continue;
		}
		buffer_add(out, text.data + copied, at - copied);
		put_variable(name, escape, vars, out);
		at += n;
		copied = at;
	}
	if (text.len > copied)
		buffer_add(out, text.data + copied, text.len - copied);
}
