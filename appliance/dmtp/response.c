/* Responses: see response.h. */
#include "dmtp/response.h"

#include "base/text.h"

#include <stdio.h>

static const struct {
	const char *name;
	enum dmtp_speaks speaks;
	const char *text;
} codes[] = {
	[DMTP_CODE_NONE] = { "", DMTP_SPEAKS_NOTIFICATION, "" },
	[DMTP_CODE_CHANNEL_CLOSED] = { "channel-closed", DMTP_SPEAKS_RCPT,
	                               "This channel is not open to this sender." },
	[DMTP_CODE_THROTTLED] = { "throttled", DMTP_SPEAKS_NOTIFICATION,
	                          "Too much at once: try again later." },
	[DMTP_CODE_STORAGE] = { "storage", DMTP_SPEAKS_NOTIFICATION,
	                        "This can not be stored at the moment: try again later." },
	[DMTP_CODE_TOO_LARGE] = { "too-large", DMTP_SPEAKS_NOTIFICATION,
	                          "This is larger than what is taken here." },
	[DMTP_CODE_DUPLICATE_CONFLICT] = { "duplicate-conflict", DMTP_SPEAKS_NOTIFICATION,
	                                   "This id was used for something else." },
	[DMTP_CODE_MALFORMED] = { "malformed", DMTP_SPEAKS_NOTIFICATION,
	                          "This is no well-formed command, or a value in it is not allowed." },
	[DMTP_CODE_TLS_REQUIRED] = { "tls-required", DMTP_SPEAKS_SESSION, "Start TLS first." },
	[DMTP_CODE_UNVERIFIED_SENDER] = { "unverified-sender", DMTP_SPEAKS_SESSION,
	                                  "The domain of the sender is not verified in this session." },
	[DMTP_CODE_NOT_NOW] = { "not-now", DMTP_SPEAKS_SESSION,
	                        "This command is not possible at this point." },
	[DMTP_CODE_LIMIT] = { "limit", DMTP_SPEAKS_SESSION,
	                      "This is more than a session may ask." },
	[DMTP_CODE_UNKNOWN_COMMAND] = { "unknown-command", DMTP_SPEAKS_SESSION,
	                                "This command is not known here." },
	[DMTP_CODE_SHUTTING_DOWN] = { "shutting-down", DMTP_SPEAKS_SESSION,
	                              "The server is being stopped: try again later." },
};

#define CODE_COUNT (sizeof(codes) / sizeof(codes[0]))

const char *
dmtp_code_name(enum dmtp_code code)
{
	return (size_t)code < CODE_COUNT ? codes[code].name : "";
}

const char *
dmtp_code_text(enum dmtp_code code)
{
	return (size_t)code < CODE_COUNT ? codes[code].text : "";
}

enum dmtp_code
dmtp_code_find(struct slice name)
{
	for (size_t i = 1; i < CODE_COUNT; i++)
		if (slice_eq_str(name, codes[i].name))
			return (enum dmtp_code)i;
	return name.len == 0 ? DMTP_CODE_NONE : DMTP_CODE_OTHER;
}

enum dmtp_speaks
dmtp_code_speaks(enum dmtp_code code)
{
	return (size_t)code < CODE_COUNT ? codes[code].speaks : DMTP_SPEAKS_NOTIFICATION;
}

/* At most DMTP_TEXT_MAX octets of s, cut between characters. */
static struct slice
text_cut(struct slice s)
{
	if (s.len <= DMTP_TEXT_MAX)
		return s;
	s.len = DMTP_TEXT_MAX;
	while (s.len > 0 && (s.data[s.len] & 0xc0) == 0x80)
		s.len--;
	return s;
}

static bool
letter_find(struct slice s, enum dmtp_letter *out)
{
	static const uint8_t letters[] = { DMTP_I, DMTP_X, DMTP_K, DMTP_E, DMTP_Z };

	if (s.len != 1 || memchr(letters, s.data[0], sizeof(letters)) == NULL)
		return false;
	*out = (enum dmtp_letter)s.data[0];
	return true;
}

/* [index, letter, code], surplus ignored. */
static bool
failed_read(struct ben_reader *r, struct dmtp_failed *out)
{
	int64_t index;
	struct slice letter;

	ben_enter_list(r);
	index = ben_get_int(r);
	letter = ben_get_str(r);
	out->code_raw = ben_get_str(r);
	ben_leave(r);
	if (r->bad || index < 0 || index > UINT32_MAX || !letter_find(letter, &out->letter) ||
	    (out->letter != DMTP_E && out->letter != DMTP_Z)) {
		r->bad = true;
		return false;
	}
	out->index = (uint32_t)index;
	out->code = dmtp_code_find(out->code_raw);
	return true;
}

bool
dmtp_failed_next(struct ben_reader *it, struct dmtp_failed *out)
{
	return ben_more(it) && failed_read(it, out);
}

static bool
failed_valid(struct slice inside, size_t *count)
{
	struct ben_reader it;
	struct dmtp_failed one;

	ben_reader_init(&it, inside);
	for (*count = 0; dmtp_failed_next(&it, &one); (*count)++)
		;
	return !it.bad;
}

bool
dmtp_open_channel_next(struct ben_reader *it, struct dmtp_open_channel *out)
{
	struct dmtp_open_channel c = { { NULL, 0 }, { NULL, 0 } };

	if (!ben_more(it))
		return false;
	ben_enter_dict(it);
	if (ben_find(it, "id"))
		c.id = ben_get_str(it);
	if (ben_find(it, "name"))
		c.name = ben_get_str(it);
	ben_leave(it);
	if (c.id.len == 0)
		it->bad = true;
	if (it->bad)
		return false;
	*out = c;
	return true;
}

bool
dmtp_channels_next(struct ben_reader *it, struct slice *address, struct slice *list)
{
	struct slice key, value;

	if (!ben_more(it))
		return false;
	key = ben_get_str(it);
	value = ben_get_list(it);
	if (it->bad)
		return false;
	*address = key;
	*list = value;
	return true;
}

static bool
channels_valid(struct slice inside)
{
	struct ben_reader it, of_one;
	struct dmtp_open_channel c;
	struct slice address, list;

	ben_reader_init(&it, inside);
	while (dmtp_channels_next(&it, &address, &list)) {
		ben_reader_init(&of_one, list);
		while (dmtp_open_channel_next(&of_one, &c))
			;
		if (of_one.bad)
			return false;
	}
	return !it.bad;
}

/* The events' own shape is judged by who walks them. */
static bool
events_valid(struct slice inside)
{
	struct ben_reader it;
	size_t count = 0;

	ben_reader_init(&it, inside);
	for (; ben_more(&it); count++)
		(void)ben_get_dict(&it);
	return !it.bad && count <= DMTP_EVENTS_MAX;
}

static uint32_t
retry_bounded(int64_t s)
{
	if (s < 1)
		return 1;
	return s > DMTP_RETRY_MAX ? DMTP_RETRY_MAX : (uint32_t)s;
}

/* The dictionary's keys in their order. */
static void
read_dict(struct ben_reader *r, struct dmtp_response *out)
{
	bool k = out->letter == DMTP_K;

	ben_enter_dict(r);
	if (k && ben_find(r, "channels")) {
		out->has_channels = true;
		out->channels = ben_get_dict(r);
	}
	if (!k && ben_find(r, "code"))
		out->code_raw = ben_get_str(r);
	if (k && ben_find(r, "events")) {
		out->has_events = true;
		out->events = ben_get_list(r);
	}
	if (k && ben_find(r, "failed"))
		out->failed = ben_get_list(r);
	if (k && ben_find(r, "limits")) {
		out->has_limits = true;
		dmtp_limits_decode(r, &out->limits);
	}
	if (k && ben_find(r, "next"))
		out->next = ben_get_str(r);
	else if (out->has_events)
		r->bad = true; /* who asked would begin again, and again */
	if (!k && ben_find(r, "retry"))
		out->retry_s = retry_bounded(ben_get_int(r));
	if (!k && ben_find(r, "text"))
		out->text = text_cut(ben_get_str(r));
	ben_leave(r);
}

enum dmtp_response_rc
dmtp_response_decode(struct slice element, struct dmtp_response *out)
{
	struct dmtp_response v = { .letter = DMTP_K };
	struct ben_reader r;

	ben_reader_init(&r, element);
	ben_enter_list(&r);
	if (!letter_find(ben_get_str(&r), &v.letter))
		return DMTP_RESPONSE_BAD;
	if (ben_more(&r))
		read_dict(&r, &v);
	ben_leave(&r);
	if (!text_is_utf8(v.text)) /* for people only: no reason to lose the session */
		v.text.len = 0;
	if (r.bad || v.next.len > DMTP_CURSOR_MAX || !failed_valid(v.failed, &v.failed_count) ||
	    !channels_valid(v.channels) || !events_valid(v.events))
		return DMTP_RESPONSE_BAD;
	v.code = dmtp_code_find(v.code_raw);
	*out = v;
	return DMTP_RESPONSE_OK;
}

/* --- encoding ------------------------------------------------------------ */

static void
put_inside(struct buffer *out, const char *key, uint8_t open, struct slice inside)
{
	ben_put_text(out, key);
	buffer_add_u8(out, open);
	buffer_add_slice(out, inside);
	ben_put_end(out);
}

static void
put_k(const struct dmtp_response *r, struct buffer *out)
{
	if (!r->has_channels && !r->has_events && r->failed.len == 0 && !r->has_limits)
		return;
	ben_put_dict(out);
	if (r->has_channels)
		put_inside(out, "channels", 'd', r->channels);
	if (r->has_events)
		put_inside(out, "events", 'l', r->events);
	if (r->failed.len > 0)
		put_inside(out, "failed", 'l', r->failed);
	if (r->has_limits) {
		ben_put_text(out, "limits");
		dmtp_limits_encode(&r->limits, out);
	}
	if (r->has_events) {
		ben_put_text(out, "next");
		ben_put_str(out, r->next);
	}
	ben_put_end(out);
}

static void
put_code(const struct dmtp_response *r, struct buffer *out)
{
	struct slice code =
	    r->code == DMTP_CODE_OTHER ? r->code_raw : slice_str(dmtp_code_name(r->code));
	bool bare = code.len == 0 && r->text.len == 0 && r->retry_s == 0;

	if (bare && (r->letter == DMTP_I || r->letter == DMTP_X))
		return;
	ben_put_dict(out);
	ben_put_text(out, "code");
	ben_put_str(out, code);
	if (r->retry_s > 0) {
		ben_put_text(out, "retry");
		ben_put_int(out, retry_bounded(r->retry_s));
	}
	ben_put_text(out, "text");
	ben_put_str(out, text_cut(r->text));
	ben_put_end(out);
}

void
dmtp_response_encode(const struct dmtp_response *r, struct buffer *out)
{
	uint8_t letter = (uint8_t)r->letter;

	ben_put_list(out);
	ben_put_str(out, slice_mem(&letter, 1));
	if (r->letter == DMTP_K)
		put_k(r, out);
	else
		put_code(r, out);
	ben_put_end(out);
}

void
dmtp_failed_put(struct buffer *inside, uint32_t index, enum dmtp_letter letter,
                enum dmtp_code code)
{
	uint8_t c = (uint8_t)letter;

	ben_put_list(inside);
	ben_put_int(inside, index);
	ben_put_str(inside, slice_mem(&c, 1));
	ben_put_text(inside, dmtp_code_name(code));
	ben_put_end(inside);
}

void
dmtp_channels_open(struct buffer *inside, struct slice address)
{
	ben_put_str(inside, address);
	ben_put_list(inside);
}

void
dmtp_channels_put(struct buffer *inside, const struct dmtp_open_channel *c)
{
	ben_put_dict(inside);
	ben_put_text(inside, "id");
	ben_put_str(inside, c->id);
	ben_put_text(inside, "name");
	ben_put_str(inside, c->name);
	ben_put_end(inside);
}

void
dmtp_channels_close(struct buffer *inside)
{
	ben_put_end(inside);
}

void
dmtp_response_words(const struct dmtp_response *r, char *out, size_t size)
{
	struct slice code =
	    r->code == DMTP_CODE_OTHER ? r->code_raw : slice_str(dmtp_code_name(r->code));
	int code_len = (int)(code.len < 64 ? code.len : 64);
	int text_len = (int)(r->text.len < 150 ? r->text.len : 150);

	(void)snprintf(out, size, "%c%s%.*s%s%.*s", r->letter, code_len > 0 ? " " : "",
	               code_len, code_len > 0 ? (const char *)code.data : "",
	               text_len > 0 ? ": " : "", text_len,
	               text_len > 0 ? (const char *)r->text.data : "");
}
