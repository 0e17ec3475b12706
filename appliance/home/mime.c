/*
 * Mail as fields: see mime.h. Text is brought to UTF-8 whatever it claims to
 * be: what isn't text in UTF-8 shows as U+FFFD, an unknown charset as UTF-8 or
 * else as Latin 1.
 */
#include "home/mime.h"

#include "base/text.h"
#include "home/mime_scan.h"

#include <gmime/gmime.h>
#include <stdio.h>
#include <stdlib.h>

#define HEADER_LOOK 65536 /* octets of a mail beyond measure whose header is read */

/* Decoded text is at most so many times as long as what it came as. */
#define TEXT_GROWTH 4

struct walk {
	struct mime_mail *mail;
	size_t octets;  /* of the whole */
	bool body_done; /* what else is text is an attachment */
	bool plain, html;
	size_t attachments;
	bool failed; /* more than fits: the mail stays whole */
};

/* --- text ------------------------------------------------------------------------- */

#define REPLACEMENT SLICE("\xef\xbf\xbd")

/* How many octets the character at the beginning has, 0 when it is none. */
static size_t
char_len(struct slice s)
{
	size_t n = s.data[0] < 0x80 ? 1 : s.data[0] < 0xe0 ? 2 : s.data[0] < 0xf0 ? 3 : 4;

	return n <= s.len && text_is_utf8(slice_mem(s.data, n)) ? n : 0;
}

static bool
is_plain(uint8_t c, bool line)
{
	return (c >= 0x20 && c < 0x7f) || (!line && (c == '\t' || c == '\n'));
}

static size_t
plain_len(struct slice s, size_t at, bool line)
{
	size_t n = 0;

	while (at + n < s.len && is_plain(s.data[at + n], line))
		n++;
	return n;
}

/* The first character of s, or a replacement; answers what it took of s, 0: no room for it. */
static size_t
add_char(struct buffer *out, struct slice s, size_t room)
{
	size_t n = char_len(s);

	if (room < (n == 0 ? 3 : n))
		return 0;
	buffer_add_slice(out, n == 0 ? REPLACEMENT : slice_mem(s.data, n));
	return n == 0 ? 1 : n;
}

/*
 * Appends s as UTF-8 without controls, at most max octets and whole characters.
 * line: one line; else CRLF and CR become LF.
 */
static void
add_clean(struct buffer *out, struct slice s, bool line, size_t max)
{
	size_t at = 0, end = out->len + max;

	while (at < s.len && !out->failed) {
		size_t n = plain_len(s, at, line);

		if (n > 0) {
			n = n < end - out->len ? n : end - out->len;
			buffer_add(out, s.data + at, n);
		} else if (s.data[at] == '\r' && !line) {
			n = at + 1 < s.len && s.data[at + 1] == '\n' ? 2 : 1;
			buffer_add_u8(out, '\n');
		} else if (s.data[at] < 0x20 || s.data[at] == 0x7f) {
			n = 1;
			buffer_add_u8(out, ' ');
		} else {
			n = add_char(out, slice_mem(s.data + at, s.len - at), end - out->len);
			if (n == 0)
				return;
		}
		at += n;
		if (out->len >= end)
			return;
	}
}

static void
add_latin1(struct buffer *out, struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i];

		if (c < 0x80) {
			buffer_add_u8(out, c);
		} else {
			buffer_add_u8(out, (uint8_t)(0xc0 | c >> 6));
			buffer_add_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
		}
	}
}

static bool
is_charset(const char *charset, const char *name)
{
	return charset != NULL && g_ascii_strcasecmp(charset, name) == 0;
}

/* Octets of a charset into UTF-8, more or less: add_clean makes it true. */
static void
add_charset(struct buffer *out, struct slice s, const char *charset)
{
	bool utf8 = is_charset(charset, "utf-8"), ascii = is_charset(charset, "us-ascii");
	GMimeFilter *filter = charset == NULL || utf8 || ascii
	                          ? NULL
	                          : g_mime_filter_charset_new(charset, "UTF-8");
	size_t len = 0, prespace = 0;
	char *text = NULL;

	if (filter == NULL) {
		if (utf8 || text_is_utf8(s))
			buffer_add_slice(out, s);
		else
			add_latin1(out, s);
		return;
	}
	/* GMime's parameter isn't const; it only reads. */
	g_mime_filter_complete(filter, (char *)(uintptr_t)s.data, s.len, 0, &text, &len,
	                       &prespace);
	buffer_add(out, text, len);
	g_object_unref(filter);
}

/* --- fields --------------------------------------------------------------------------- */

/* A field of at most max octets, whose data the caller appends. NULL: too many. */
static struct mime_piece *
new_piece(struct walk *w, enum dmtp_field_name name, size_t max)
{
	struct mime_mail *m = w->mail;
	struct mime_piece *piece;

	if (m->pieces_n == MIME_FIELDS_MAX) {
		w->failed = true;
		return NULL;
	}
	piece = &m->pieces[m->pieces_n++];
	buffer_init(&piece->data, max);
	m->fields[m->fields_n++] = (struct dmtp_field){ .name = name };
	return piece;
}

/* When all pieces stand where they stay. */
static void
point_fields(struct mime_mail *m)
{
	for (size_t i = 0; i < m->fields_n; i++) {
		m->fields[i].type = slice_str(m->pieces[i].type);
		m->fields[i].data = buffer_slice(&m->pieces[i].data);
	}
}

static bool
is_token(const char *s)
{
	size_t n = s == NULL ? 0 : strlen(s);

	for (size_t i = 0; i < n; i++)
		if (!g_ascii_isalnum(s[i]) && strchr("!#$&-^_.+", s[i]) == NULL)
			return false;
	return n > 0 && n <= 100;
}

/* `; name="x"` (RFC 2045), or in its extended form (RFC 2231), when it fits. */
static void
add_name(char type[static 256], const char *name)
{
	size_t at = strlen(type), start = at;
	bool plain = true;

	for (const char *p = name; *p != '\0'; p++)
		plain = plain && (uint8_t)*p >= 0x20 && (uint8_t)*p < 0x7f;
	at += (size_t)snprintf(type + at, 256 - at, plain ? "; name=\"" : "; name*=UTF-8''");
	for (const char *p = name; *p != '\0' && at < 250; p++) {
		if (!plain && !g_ascii_isalnum(*p) && *p != '.' && *p != '-' && *p != '_') {
			at += (size_t)snprintf(type + at, 256 - at, "%%%02X", (uint8_t)*p);
			continue;
		}
		if (plain && (*p == '"' || *p == '\\'))
			type[at++] = '\\';
		type[at++] = *p;
	}
	if (at >= 250)
		at = start; /* half a name is none */
	else if (plain)
		type[at++] = '"';
	type[at] = '\0';
}

static void
set_type(struct mime_piece *piece, GMimeObject *object)
{
	GMimeContentType *type = g_mime_object_get_content_type(object);
	const char *media = type == NULL ? NULL : g_mime_content_type_get_media_type(type);
	const char *sub = type == NULL ? NULL : g_mime_content_type_get_media_subtype(type);
	const char *name =
	    GMIME_IS_PART(object) ? g_mime_part_get_filename((GMimePart *)object) : NULL;

	if (is_token(media) && is_token(sub))
		(void)snprintf(piece->type, sizeof(piece->type), "%s/%s", media, sub);
	else
		(void)snprintf(piece->type, sizeof(piece->type), "application/octet-stream");
	for (char *p = piece->type; *p != '\0'; p++)
		*p = g_ascii_tolower(*p);
	if (name != NULL && *name != '\0')
		add_name(piece->type, name);
}

/* The octets of a leaf, decoded. To be freed with g_byte_array_unref. */
static GByteArray *
content_of(GMimeObject *object)
{
	GByteArray *octets = g_byte_array_new();
	GMimeStream *stream = g_mime_stream_mem_new_with_byte_array(octets);
	GMimeDataWrapper *content =
	    GMIME_IS_PART(object) ? g_mime_part_get_content((GMimePart *)object) : NULL;
	GMimeMessage *inner = GMIME_IS_MESSAGE_PART(object)
	                          ? g_mime_message_part_get_message((GMimeMessagePart *)object)
	                          : NULL;

	g_mime_stream_mem_set_owner((GMimeStreamMem *)stream, FALSE);
	if (content != NULL)
		(void)g_mime_data_wrapper_write_to_stream(content, stream);
	else if (inner != NULL)
		(void)g_mime_object_write_to_stream((GMimeObject *)inner, NULL, stream);
	(void)g_mime_stream_flush(stream);
	g_object_unref(stream);
	return octets;
}

/* --- walking ------------------------------------------------------------------------------ */

static void
add_attachment(struct walk *w, GMimeObject *object)
{
	struct mime_piece *piece;
	GByteArray *octets;

	if (w->attachments++ == MIME_ATTACHMENTS_MAX) {
		w->failed = true;
		return;
	}
	piece = new_piece(w, DMTP_ATTACHMENT, 2 * w->octets);
	if (piece == NULL)
		return;
	set_type(piece, object);
	octets = content_of(object);
	buffer_add(&piece->data, octets->data, octets->len);
	w->failed = w->failed || piece->data.failed;
	g_byte_array_unref(octets);
}

static void
add_text(struct walk *w, GMimeObject *object, const char *type)
{
	struct mime_piece *piece = new_piece(w, DMTP_MESSAGE, TEXT_GROWTH * w->octets + 16);
	GByteArray *octets;
	struct buffer text;

	if (piece == NULL)
		return;
	(void)snprintf(piece->type, sizeof(piece->type), "%s", type);
	octets = content_of(object);
	buffer_init(&text, TEXT_GROWTH * w->octets + 16);
	add_charset(&text, slice_mem(octets->data, octets->len),
	            g_mime_object_get_content_type_parameter(object, "charset"));
	add_clean(&piece->data, buffer_slice(&text), false, piece->data.max);
	w->failed = w->failed || text.failed || piece->data.failed;
	buffer_free(&text);
	g_byte_array_unref(octets);
}

static bool
is_type(GMimeObject *object, const char *type, const char *sub)
{
	GMimeContentType *t = g_mime_object_get_content_type(object);

	return t != NULL && g_mime_content_type_is_type(t, type, sub);
}

/* The text that is to be read, or something beside it. */
static void
walk_part(struct walk *w, GMimeObject *object, bool alternative)
{
	bool plain = is_type(object, "text", "plain"), html = is_type(object, "text", "html");
	const char *disposition = g_mime_object_get_disposition(object);
	bool apart = disposition != NULL && g_ascii_strcasecmp(disposition, "attachment") == 0;

	if (w->body_done || apart || !(plain || html) || (plain && w->plain) ||
	    (html && w->html)) {
		add_attachment(w, object);
		return;
	}
	w->plain = w->plain || plain;
	w->html = w->html || html;
	w->body_done = !alternative;
	add_text(w, object, plain ? "text/plain" : "text/html");
}

static void
/* NOLINTNEXTLINE(misc-no-recursion): as deep as MIME_CONTAINERS_MAX */
walk_object(struct walk *w, GMimeObject *object, bool alternative)
{
	bool inside = alternative || is_type(object, "multipart", "alternative");
	int n;

	if (w->failed || object == NULL)
		return;
	if (GMIME_IS_PART(object)) {
		walk_part(w, object, alternative);
		return;
	}
	if (!GMIME_IS_MULTIPART(object)) {
		add_attachment(w, object);
		return;
	}
	n = g_mime_multipart_get_count((GMimeMultipart *)object);
	for (int i = 0; i < n && !w->failed; i++)
		walk_object(w, g_mime_multipart_get_part((GMimeMultipart *)object, i), inside);
	if (inside && !alternative)
		w->body_done = w->plain || w->html;
}

/* --- the header ------------------------------------------------------------------------------ */

static void
read_subject(struct walk *w, GMimeMessage *message)
{
	const char *subject = g_mime_message_get_subject(message);
	struct mime_piece *piece;

	if (subject == NULL)
		return;
	piece = new_piece(w, DMTP_SUBJECT, MIME_SUBJECT_MAX);
	if (piece == NULL)
		return;
	(void)snprintf(piece->type, sizeof(piece->type), "text/plain");
	add_clean(&piece->data, slice_str(subject), true, MIME_SUBJECT_MAX);
}

static void
read_from(struct mime_mail *m, GMimeMessage *message)
{
	InternetAddressList *list = g_mime_message_get_from(message);
	int n = list == NULL ? 0 : internet_address_list_length(list);
	char *text = n == 0 ? NULL : internet_address_list_to_string(list, NULL, FALSE);

	add_clean(&m->from, slice_str(text), true, MIME_FROM_MAX);
	g_free(text);
	for (int i = 0; i < n && m->address.len == 0; i++) {
		InternetAddress *address = internet_address_list_get_address(list, i);

		if (INTERNET_ADDRESS_IS_MAILBOX(address))
			add_clean(&m->address,
			          slice_str(internet_address_mailbox_get_addr(
				      (InternetAddressMailbox *)address)),
			          true, MIME_ADDRESS_MAX);
	}
}

static void
read_header(struct walk *w, GMimeMessage *message)
{
	GDateTime *date = g_mime_message_get_date(message);

	if (date != NULL)
		w->mail->date_s = g_date_time_to_unix(date);
	read_subject(w, message);
	read_from(w->mail, message);
}

/* --- the whole --------------------------------------------------------------------------------- */

static GMimeMessage *
parse(struct slice octets)
{
	GMimeStream *stream =
	    g_mime_stream_mem_new_with_buffer((const char *)octets.data, octets.len);
	GMimeParser *parser = g_mime_parser_new_with_stream(stream);
	GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);

	g_object_unref(parser);
	g_object_unref(stream);
	return message;
}

static void
clear(struct mime_mail *m)
{
	for (size_t i = 0; i < m->pieces_n; i++)
		buffer_free(&m->pieces[i].data);
	buffer_free(&m->from);
	buffer_free(&m->address);
	m->pieces_n = m->fields_n = 0;
}

/* False: it is to be kept whole. */
static bool
take_apart(struct slice octets, struct mime_mail *m)
{
	struct walk w = { .mail = m, .octets = octets.len };
	GMimeMessage *message = mime_scan(octets) ? parse(octets) : NULL;

	if (message == NULL)
		return false;
	read_header(&w, message);
	walk_object(&w, g_mime_message_get_mime_part(message), false);
	g_object_unref(message);
	return !w.failed;
}

static struct slice
first_header(struct slice octets)
{
	static const uint8_t blank[] = { '\r', '\n', '\r', '\n' };
	size_t len = octets.len < HEADER_LOOK ? octets.len : HEADER_LOOK;
	const uint8_t *end = memmem(octets.data, len, blank, sizeof(blank));

	return slice_mem(octets.data, end == NULL ? len : (size_t)(end - octets.data) + 4);
}

/* Subject and author as far as they can be read, and the mail as it came. */
static bool
keep_whole(struct slice octets, struct mime_mail *m)
{
	struct walk w = { .mail = m, .octets = octets.len };
	GMimeMessage *message = parse(first_header(octets));
	struct mime_piece *piece;

	m->whole = true;
	if (message != NULL) {
		read_header(&w, message);
		g_object_unref(message);
	}
	piece = new_piece(&w, DMTP_ATTACHMENT, octets.len);
	if (piece == NULL)
		return false;
	(void)snprintf(piece->type, sizeof(piece->type), "message/rfc822");
	buffer_add_slice(&piece->data, octets);
	return !piece->data.failed;
}

/* A mail without anything still is one. */
static bool
add_nothing(struct mime_mail *m)
{
	struct walk w = { .mail = m };
	struct mime_piece *piece = new_piece(&w, DMTP_MESSAGE, 1);

	if (piece != NULL)
		(void)snprintf(piece->type, sizeof(piece->type), "text/plain");
	return piece != NULL;
}

static void
begin(struct mime_mail *m)
{
	m->date_s = -1;
	m->whole = false;
	buffer_init(&m->from, MIME_FROM_MAX);
	buffer_init(&m->address, MIME_ADDRESS_MAX);
}

bool
mime_read(struct slice octets, struct mime_mail **out)
{
	struct mime_mail *m = calloc(1, sizeof(*m));
	bool good = m != NULL;

	if (good) {
		begin(m);
		if (!take_apart(octets, m)) {
			clear(m);
			begin(m);
			good = keep_whole(octets, m);
		}
		if (good && m->fields_n == 0)
			good = add_nothing(m);
	}
	if (good)
		point_fields(m);
	else
		mime_free(&m);
	*out = m;
	return good;
}

void
mime_free(struct mime_mail **mail)
{
	if (*mail != NULL)
		clear(*mail);
	free(*mail);
	*mail = NULL;
}

/* What the library finds wrong with a mail is no line of our log. */
static void
ignore(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
	(void)domain;
	(void)level;
	(void)message;
	(void)data;
}

void
mime_start(void)
{
	(void)g_log_set_default_handler(ignore, NULL);
	g_mime_init();
}
