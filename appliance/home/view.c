/*
 * Messages as JSON: see view.h. The list form looks only for the subject, in
 * octets that were verified before they became visible, so a beginning of them
 * is enough; the whole entry decodes all of it again.
 */
#include "home/view.h"

#include "base/clock.h"
#include "base/text.h"
#include "dmtp/uri.h"

#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

struct view_entry
view_of_row(const struct inbox_row *row)
{
	return (struct view_entry){
		.id = row->entry_id,
		.notification_id = row->notification_id,
		.changed_us = row->changed_us,
		.from = slice_str(row->sender),
		.channel = slice_str(row->channel),
		.date_s = row->date_s,
		.arrived_us = row->arrived_us,
		.read_us = row->read_us,
		.withdrawn = row->withdrawn,
		.body = slice_mem(row->body, row->body == NULL ? 0 : row->size),
		.variables =
		    slice_mem(row->variables, row->variables == NULL ? 0 : row->variables_len),
		.mail = row->mail_sender != NULL,
		.mail_sender = slice_str(row->mail_sender),
		.mail_from = slice_str(row->mail_from),
		.mail_address = slice_str(row->mail_address),
	};
}

json_t *
view_time(int64_t wall_us)
{
	char text[32];

	if (wall_us < 0)
		return json_null();
	clock_format_rfc3339(wall_us, text);
	return json_string(text);
}

/* null for what isn't UTF-8. */
static json_t *
text_json(struct slice text)
{
	json_t *string = json_stringn(text.len == 0 ? "" : (const char *)text.data, text.len);

	return string != NULL ? string : json_null();
}

/* --- with variables ------------------------------------------------------------ */

/* What variables may add: a text of nothing but "{{x}}" would become two hundred times as long.
 */
#define EXPANSION_MAX (4u << 20)

/* At most max octets of the text, whole characters. */
static struct slice
cut_text(struct slice text, size_t max)
{
	if (text.len <= max)
		return text;
	for (text.len = max; text.len > 0 && (text.data[text.len] & 0xc0) == 0x80; text.len--)
		continue;
	return text;
}

/*
 * The field's text as this member reads it, of which max octets are wanted;
 * null when it grows beyond measure. What a person wrote is no template, nor is
 * mail: their braces are braces.
 */
static json_t *
field_text(const struct view_entry *e, const struct dmtp_field *f, size_t max)
{
	struct slice from = max < SIZE_MAX / 4 ? cut_text(f->data, 4 * max) : f->data;
	struct buffer out;
	json_t *string;

	if (e->mail || slice_eq_str(e->channel, "inbox"))
		return text_json(cut_text(f->data, max));
	buffer_init(&out, from.len + EXPANSION_MAX);
	dmtp_template_expand(from, dmtp_escape_for(f->type), e->variables, &out);
	string = out.failed ? json_null() : text_json(cut_text(buffer_slice(&out), max));
	buffer_free(&out);
	return string;
}

/* --- the list form ---------------------------------------------------------------- */

/* From what may be only the beginning of a message: a string that is cut off ends the search.
 */
static bool
find_field(struct slice body, const char *wanted, struct dmtp_field *out)
{
	struct ben_reader r;

	ben_reader_init(&r, body);
	ben_enter_dict(&r);
	if (!ben_find(&r, "fields"))
		return false;
	ben_enter_list(&r);
	while (ben_more(&r)) {
		struct slice data = { NULL, 0 }, name = { NULL, 0 }, type = { NULL, 0 };

		ben_enter_dict(&r);
		if (ben_find(&r, "data"))
			data = ben_get_str(&r);
		if (ben_find(&r, "name"))
			name = ben_get_str(&r);
		if (ben_find(&r, "type"))
			type = ben_get_str(&r);
		if (r.bad)
			return false;
		if (slice_eq_str(name, wanted)) {
			*out = (struct dmtp_field){ .type = type, .data = data };
			return true;
		}
		ben_leave(&r);
	}
	return false;
}

/* What mail says of itself, apart from what is true of it. */
static void
add_mail(json_t *o, const struct view_entry *e)
{
	(void)json_object_set_new(o, "verified", json_false());
	(void)json_object_set_new(o, "mail",
	                          json_pack("{s:o, s:o, s:o}", "from", text_json(e->mail_from),
	                                    "address", text_json(e->mail_address), "sender",
	                                    text_json(e->mail_sender)));
}

json_t *
view_list_form(const struct view_entry *e)
{
	/* The same whether all of it was at hand or not. */
	struct slice body = slice_mem(
	    e->body.data, e->body.len < VIEW_LIST_OCTETS ? e->body.len : VIEW_LIST_OCTETS);
	struct dmtp_field subject, text;
	char id[UUID_TEXT];
	json_t *o = json_object(), *line = NULL;

	uuid_format(&e->id, id);
	if (find_field(body, "subject", &subject))
		line = field_text(e, &subject, VIEW_SUBJECT_MAX);
	(void)json_object_set_new(o, "id", json_string(id));
	(void)json_object_set_new(o, "from", text_json(e->from));
	(void)json_object_set_new(o, "channel", text_json(e->channel));
	(void)json_object_set_new(o, "subject", line == NULL ? json_null() : line);
	if (slice_eq_str(e->channel, "inbox") && find_field(body, "message", &text))
		(void)json_object_set_new(o, "text", field_text(e, &text, VIEW_SUBJECT_MAX));
	(void)json_object_set_new(o, "date", view_time(e->date_s * 1000000));
	(void)json_object_set_new(o, "arrived", view_time(e->arrived_us));
	(void)json_object_set_new(o, "read", view_time(e->read_us));
	if (memcmp(&e->id, &e->notification_id, sizeof(e->id)) != 0)
		(void)json_object_set_new(o, "replaced", json_true());
	if (e->withdrawn)
		(void)json_object_set_new(o, "withdrawn", json_true());
	if (e->mail)
		add_mail(o, e);
	return o;
}

/* --- actions ------------------------------------------------------------------------- */

static bool
is_essence(struct slice type, const char *essence)
{
	size_t n = strlen(essence);

	return type.len >= n && strncasecmp((const char *)type.data, essence, n) == 0 &&
	       (type.len == n || type.data[n] == ';' || type.data[n] == ' ');
}

static struct slice
next_line(struct slice *rest)
{
	const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, '\n', rest->len);
	size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
	struct slice line = slice_mem(rest->data, len);

	*rest = end == NULL ? slice_mem(NULL, 0) : slice_mem(end + 1, rest->len - len - 1);
	if (line.len > 0 && line.data[line.len - 1] == '\r')
		line.len--;
	return line;
}

/* https with a host, nothing that a script could hide in; a fragment is allowed. */
static bool
is_action_url(struct slice s)
{
	const uint8_t *hash = s.len == 0 ? NULL : memchr(s.data, '#', s.len);
	struct dmtp_uri uri;

	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] <= 0x20 || s.data[i] >= 0x7f)
			return false;
	return s.len <= DMTP_URI_MAX &&
	       dmtp_uri_split(slice_mem(s.data, hash == NULL ? s.len : (size_t)(hash - s.data)),
	                      &uri);
}

/* A text/uri-list (RFC 2483): each comment is the label of the URL that follows it. */
static void
add_actions(json_t *actions, const struct dmtp_field *f)
{
	struct slice rest = f->data, label = { NULL, 0 };

	if (!is_essence(f->type, "text/uri-list") || !text_is_utf8(f->data))
		return;
	while (rest.len > 0) {
		struct slice line = next_line(&rest);

		if (line.len > 0 && line.data[0] == '#') {
			label = slice_mem(line.data + 1, line.len - 1);
			while (label.len > 0 && label.data[0] == ' ')
				label = slice_mem(label.data + 1, label.len - 1);
		} else if (is_action_url(line)) {
			(void)json_array_append_new(
			    actions, json_pack("{s:o, s:o}", "label",
			                       text_json(label.len > 0 ? label : line), "url",
			                       text_json(line)));
			label = slice_mem(NULL, 0);
		}
	}
}

/* --- the whole entry ---------------------------------------------------------------------- */

static void
add_message(json_t *messages, const struct dmtp_field *f, const struct view_entry *e)
{
	json_t *o = json_pack("{s:o}", "type", text_json(f->type));

	if (text_is_utf8(f->data))
		(void)json_object_set_new(o, "text", field_text(e, f, SIZE_MAX));
	else
		(void)json_object_set_new(o, "size", json_integer((json_int_t)f->data.len));
	if (f->lang.len > 0)
		(void)json_object_set_new(o, "lang", text_json(f->lang));
	(void)json_array_append_new(messages, o);
}

static void
add_attachment(json_t *attachments, const struct dmtp_field *f, const struct uuid *entry)
{
	json_t *o = json_pack("{s:o, s:I}", "type", text_json(f->type), "size",
	                      f->large ? (json_int_t)f->size : (json_int_t)f->data.len);
	char id[UUID_TEXT], path[96];

	if (!f->large) {
		uuid_format(entry, id);
		(void)snprintf(path, sizeof(path), "/v1/inbox/%s/attachments/%zu", id,
		               json_array_size(attachments));
		(void)json_object_set_new(o, "url", json_string(path));
	}
	(void)json_array_append_new(attachments, o);
}

json_t *
view_fields(const struct view_entry *e)
{
	json_t *messages, *actions, *attachments, *subject = NULL;
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;

	if (dmtp_message_decode(e->body, &m) != DMTP_MESSAGE_OK)
		return NULL;
	messages = json_array();
	actions = json_array();
	attachments = json_array();
	ben_reader_init(&it, m.fields);
	while (dmtp_field_next(&it, &f)) {
		if (f.name == DMTP_SUBJECT && subject == NULL)
			subject = field_text(e, &f, SIZE_MAX);
		else if (f.name == DMTP_MESSAGE)
			add_message(messages, &f, e);
		else if (f.name == DMTP_ACTION)
			add_actions(actions, &f);
		else if (f.name == DMTP_ATTACHMENT)
			add_attachment(attachments, &f, &e->id);
	}
	return json_pack("{s:o, s:o, s:o, s:o}", "subject",
	                 subject == NULL ? json_null() : subject, "message", messages,
	                 "actions", actions, "attachments", attachments);
}

enum view_attached
view_attachment(struct slice body, uint64_t n, struct slice *out)
{
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;

	if (dmtp_message_decode(body, &m) != DMTP_MESSAGE_OK)
		return VIEW_ATTACHED_NONE;
	ben_reader_init(&it, m.fields);
	while (dmtp_field_next(&it, &f)) {
		if (f.name != DMTP_ATTACHMENT || n-- > 0)
			continue;
		*out = f.data;
		return f.large ? VIEW_ATTACHED_LARGE : VIEW_ATTACHED_HERE;
	}
	return VIEW_ATTACHED_NONE;
}

/* --- an invitation's words
 * -------------------------------------------------------------------- */

static bool
is_space(uint8_t c)
{
	return c <= 0x20 || c == 0x7f;
}

/* "https://x", "www.x", "x.example/y": a word that a reader or a program could take for an
 * address. */
static bool
looks_like_link(struct slice word)
{
	if (word.len >= 4 && strncasecmp((const char *)word.data, "www.", 4) == 0)
		return true;
	for (size_t i = 0; i + 1 < word.len; i++) {
		bool inner = i > 0 && word.data[i] == '.' && !is_space(word.data[i + 1]);

		if ((word.data[i] == ':' || word.data[i] == '/') && word.data[i + 1] == '/')
			return true;
		if (inner &&
		    ((word.data[i + 1] | 0x20) >= 'a' && (word.data[i + 1] | 0x20) <= 'z'))
			return true;
	}
	return false;
}

/* Word by word, with one space between, until the characters are used up. */
static void
put_words(struct slice text, struct buffer *out)
{
	size_t at = 0, left = VIEW_WORDS_MAX, chars;

	for (;;) {
		struct slice word;

		while (at < text.len && is_space(text.data[at]))
			at++;
		word = slice_mem(text.data + at, 0);
		for (chars = 0; at < text.len && !is_space(text.data[at]); at++, word.len++)
			chars += (text.data[at] & 0xc0) != 0x80;
		if (word.len == 0 || chars + (out->len > 0) > left)
			return;
		if (looks_like_link(word))
			continue;
		left -= chars + (out->len > 0);
		if (out->len > 0)
			buffer_add_u8(out, ' ');
		buffer_add_slice(out, word);
	}
}

bool
view_words_are_plain(struct slice words)
{
	size_t at = 0;

	while (at < words.len) {
		struct slice word = slice_mem(words.data + at, 0);

		for (; at < words.len && !is_space(words.data[at]); at++)
			word.len++;
		if (looks_like_link(word) || (word.len > 0 && memchr(word.data, '@', word.len)))
			return false;
		at++;
	}
	return true;
}

json_t *
view_words(struct slice body)
{
	json_t *words = NULL;
	struct dmtp_message m;
	struct dmtp_field f;
	struct ben_reader it;
	struct buffer out;

	if (dmtp_message_decode(body, &m) != DMTP_MESSAGE_OK)
		return json_null();
	buffer_init(&out, (size_t)4 * VIEW_WORDS_MAX);
	ben_reader_init(&it, m.fields);
	while (words == NULL && dmtp_field_next(&it, &f)) {
		if (f.name != DMTP_MESSAGE || !is_essence(f.type, "text/plain"))
			continue;
		put_words(f.data, &out);
		words = out.len == 0 || out.failed ? NULL : text_json(buffer_slice(&out));
	}
	buffer_free(&out);
	return words != NULL ? words : json_null();
}

/* --- cursors
 * ---------------------------------------------------------------------------------- */

struct view_cursor
view_cursor_of(const struct view_entry *entry)
{
	return (struct view_cursor){ .changed_us = entry->changed_us,
		                     .id = entry->notification_id };
}

void
view_cursor_format(const struct view_cursor *cursor, char out[static VIEW_CURSOR_TEXT])
{
	char id[UUID_TEXT];

	uuid_format(&cursor->id, id);
	(void)snprintf(out, VIEW_CURSOR_TEXT, "%" PRId64 "-%s",
	               cursor->changed_us < 0 ? 0 : cursor->changed_us, id);
}

bool
view_cursor_parse(struct slice text, struct view_cursor *out)
{
	const uint8_t *dash = text.len == 0 ? NULL : memchr(text.data, '-', text.len);
	size_t len = dash == NULL ? 0 : (size_t)(dash - text.data);
	struct uuid id;
	uint64_t us;

	if (dash == NULL || !text_parse_u64(slice_mem(text.data, len), INT64_MAX, &us) ||
	    !uuid_parse(slice_mem(dash + 1, text.len - len - 1), &id))
		return false;
	*out = (struct view_cursor){ .changed_us = (int64_t)us, .id = id };
	return true;
}

int
view_cursor_cmp(const struct view_cursor *a, const struct view_cursor *b)
{
	if (a->changed_us != b->changed_us)
		return a->changed_us < b->changed_us ? -1 : 1;
	return memcmp(a->id.octets, b->id.octets, sizeof(a->id.octets));
}
