/* What a member writes: see compose.h. */
#include "home/compose.h"

#include "base/text.h"
#include "dmtp/message.h"
#include "home/view.h"

#define FIELDS_MAX 2
/* What a message needs besides its fields' data: two addresses, types, a tag. */
#define OVERHEAD_MAX 2048
#define LANG_MAX 35

struct letter_body {
	struct slice message, subject, lang;
	int64_t expires;
};

/* Well-formed text of min to max characters without controls; lines: LF, CR and TAB are allowed. */
static bool
is_text(struct slice text, size_t min, size_t max, bool lines)
{
	size_t characters = 0;

	if (!text_is_utf8(text))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		bool line = lines && (c == '\n' || c == '\r' || c == '\t');

		if ((c < 0x20 && !line) || c == 0x7f ||
		    (c == 0xc2 && text.data[i + 1] < 0xa0)) /* C1 controls */
			return false;
		characters += (c & 0xc0) != 0x80;
	}
	return characters >= min && characters <= max;
}

static bool
is_message(struct slice s)
{
	return s.len <= COMPOSE_TEXT_MAX && is_text(s, 1, COMPOSE_TEXT_MAX, true);
}

static bool
is_subject(struct slice s)
{
	return is_text(s, 1, COMPOSE_SUBJECT_MAX, false);
}

/* A BCP 47 tag's shape: runs of 1 to 8 letters and digits, a hyphen between them. */
static bool
is_lang(struct slice s)
{
	size_t run = 0;

	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i], letter = c | 0x20;

		if (c == '-' && run > 0)
			run = 0;
		else if (!((letter >= 'a' && letter <= 'z') ||
		           (i > 0 && c >= '0' && c <= '9')) ||
		         ++run > 8)
			return false;
	}
	return s.len >= 2 && s.len <= LANG_MAX && run > 0;
}

bool
compose_words_valid(struct slice words)
{
	return is_text(words, 1, COMPOSE_WORDS_MAX, false) && view_words_are_plain(words);
}

static const struct web_field letter_fields[] = {
	{ "message", WEB_STRING, WEB_REQUIRED, offsetof(struct letter_body, message),
	  .check = is_message, .expected = "text of 1 to 65536 octets" },
	{ "subject", WEB_STRING, 0, offsetof(struct letter_body, subject), .check = is_subject,
	  .expected = "text of 1 to 200 characters in one line" },
	{ "lang", WEB_STRING, 0, offsetof(struct letter_body, lang), .check = is_lang,
	  .expected = "a language tag (BCP 47), such as \"de-AT\"" },
	{ "expires", WEB_INT, 0, offsetof(struct letter_body, expires),
	  .min = COMPOSE_EXPIRES_MIN_S, .max = COMPOSE_EXPIRES_MAX_S },
};

static enum compose_rc
encode(const struct compose_origin *origin, const struct dmtp_field *fields, size_t n,
       struct letter *out)
{
	struct dmtp_message m = { .from = origin->from,
		                  .to = origin->to,
		                  .date = origin->date_s };

	memcpy(m.salt, origin->salt, sizeof(m.salt));
	buffer_init(&out->message, COMPOSE_TEXT_MAX + OVERHEAD_MAX);
	if (dmtp_message_encode(&m, fields, n, &out->message) != DMTP_MESSAGE_OK ||
	    out->message.failed || !dmtp_digest(buffer_slice(&out->message), out->digest))
		return COMPOSE_MEMORY;
	return COMPOSE_OK;
}

static struct dmtp_field
plain(enum dmtp_field_name name, struct slice data, struct slice lang)
{
	return (struct dmtp_field){
		.name = name, .type = SLICE("text/plain"), .lang = lang, .data = data
	};
}

enum compose_rc
compose_letter(const json_t *body, const struct compose_origin *origin, struct letter *out,
               struct web_errors *errors)
{
	struct letter_body b = { .expires = 0 };
	struct dmtp_field fields[FIELDS_MAX];
	size_t n = 0;

	*out = (struct letter){ .expires_s = 0 };
	if (!web_fields_read(body, "", letter_fields,
	                     sizeof(letter_fields) / sizeof(letter_fields[0]), &b, errors))
		return COMPOSE_INVALID;
	out->expires_s = b.expires;
	if (b.subject.len > 0)
		fields[n++] = plain(DMTP_SUBJECT, b.subject, b.lang);
	fields[n++] = plain(DMTP_MESSAGE, b.message, b.lang);
	return encode(origin, fields, n, out);
}

enum compose_rc
compose_invitation(const struct compose_origin *origin, struct slice words, struct letter *out)
{
	const struct slice none = { NULL, 0 };
	struct dmtp_field fields[FIELDS_MAX] = {
		plain(DMTP_SUBJECT, origin->from, none),
		plain(DMTP_MESSAGE, words, none),
	};

	*out = (struct letter){ .expires_s = 0 };
	return encode(origin, fields, words.len > 0 ? 2 : 1, out);
}

void
letter_free(struct letter *letter)
{
	buffer_free(&letter->message);
}
