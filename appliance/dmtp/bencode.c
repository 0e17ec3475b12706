/* Canonical bencoding: see bencode.h. The scanner is a state machine; nothing recurses. */
#include "dmtp/bencode.h"

enum scan_state {
	AT_VALUE,   /* a value, or the close of a list */
	AT_KEY,     /* a dictionary's key, or its close */
	IN_INT,     /* behind "i" */
	IN_LENGTH,  /* within a string's length */
	IN_PAYLOAD, /* within a string */
	DONE,
	REFUSED_BAD,
	REFUSED_LIMIT,
};

enum scan_place { IN_LIST, WANTS_KEY, WANTS_VALUE };

#define NO_KEY SIZE_MAX

void
ben_scan_init(struct ben_scan *s, size_t limit)
{
	/* so that sums of offsets and lengths can't overflow */
	if (limit > SIZE_MAX / 32)
		limit = SIZE_MAX / 32;
	*s = (struct ben_scan){ .limit = limit, .state = AT_VALUE };
}

/* A value is complete: what comes next depends on the container around it. */
static void
scan_value_done(struct ben_scan *s)
{
	if (s->depth == 0) {
		s->state = DONE;
		return;
	}
	if (s->place[s->depth - 1] == WANTS_VALUE)
		s->place[s->depth - 1] = WANTS_KEY;
	s->state = s->place[s->depth - 1] == IN_LIST ? AT_VALUE : AT_KEY;
}

/* A string is complete: as a key it must be greater than the one before it. */
static void
scan_str_done(struct ben_scan *s, const uint8_t *data)
{
	uint8_t top = (uint8_t)(s->depth - 1);
	struct slice key = { data + s->str_at, s->str_len };

	if (s->depth == 0 || s->place[top] != WANTS_KEY) {
		scan_value_done(s);
		return;
	}
	if (s->key_at[top] != NO_KEY &&
	    slice_cmp((struct slice){ data + s->key_at[top], s->key_len[top] }, key) >= 0) {
		s->state = REFUSED_BAD;
		return;
	}
	s->key_at[top] = s->str_at;
	s->key_len[top] = s->str_len;
	s->place[top] = WANTS_VALUE;
	s->state = AT_VALUE;
}

static void
scan_open(struct ben_scan *s, enum scan_place place)
{
	if (s->depth == BEN_DEPTH) {
		s->state = REFUSED_BAD;
		return;
	}
	s->place[s->depth] = (uint8_t)place;
	s->key_at[s->depth] = NO_KEY;
	s->depth++;
	s->state = place == IN_LIST ? AT_VALUE : AT_KEY;
}

static void
scan_close(struct ben_scan *s)
{
	if (s->depth == 0 || s->place[s->depth - 1] == WANTS_VALUE) {
		s->state = REFUSED_BAD;
		return;
	}
	s->depth--;
	scan_value_done(s);
}

static void
scan_length_first(struct ben_scan *s, uint8_t c)
{
	s->number = (uint64_t)(c - '0');
	s->digits = 1;
	s->state = IN_LENGTH;
}

static void
scan_value(struct ben_scan *s, uint8_t c)
{
	if (c >= '0' && c <= '9') {
		scan_length_first(s, c);
	} else if (s->state == AT_KEY) {
		if (c == 'e')
			scan_close(s);
		else
			s->state = REFUSED_BAD;
	} else if (c == 'i') {
		s->number = 0;
		s->digits = 0;
		s->negative = false;
		s->state = IN_INT;
	} else if (c == 'l') {
		scan_open(s, IN_LIST);
	} else if (c == 'd') {
		scan_open(s, WANTS_KEY);
	} else if (c == 'e') {
		scan_close(s);
	} else {
		s->state = REFUSED_BAD;
	}
}

/* One rule for "-0" and leading zeros: nothing follows a first 0, no "-" before it. */
static void
scan_int(struct ben_scan *s, uint8_t c)
{
	uint64_t max = (uint64_t)INT64_MAX + (s->negative ? 1 : 0);
	unsigned d = (unsigned)c - '0';

	if (c == '-' && s->digits == 0 && !s->negative) {
		s->negative = true;
	} else if (c == 'e' && s->digits > 0) {
		scan_value_done(s);
	} else if (d > 9 || (s->digits > 0 && s->number == 0) ||
	           (d == 0 && s->digits == 0 && s->negative) || s->number > (max - d) / 10) {
		s->state = REFUSED_BAD;
	} else {
		s->number = s->number * 10 + d;
		s->digits = 1;
	}
}

/* s->at stands behind c. At least the payload and the open containers' "e" are to come. */
static void
scan_length(struct ben_scan *s, const uint8_t *data, uint8_t c)
{
	unsigned d = (unsigned)c - '0';

	if (d <= 9) {
		if (s->number == 0)
			s->state = REFUSED_BAD;
		else if (s->number > s->limit)
			s->state = REFUSED_LIMIT;
		else
			s->number = s->number * 10 + d;
	} else if (c != ':') {
		s->state = REFUSED_BAD;
	} else {
		s->skip = (size_t)s->number;
		s->str_at = s->at;
		s->str_len = s->skip;
		s->state = IN_PAYLOAD;
		if (s->skip == 0)
			scan_str_done(s, data);
	}
	if ((s->state == IN_LENGTH || s->state == IN_PAYLOAD) &&
	    (s->number > s->limit || s->at + s->depth > s->limit - (size_t)s->number))
		s->state = REFUSED_LIMIT;
}

static void
scan_octet(struct ben_scan *s, const uint8_t *data)
{
	uint8_t c = data[s->at++];

	switch (s->state) {
	case AT_VALUE:
	case AT_KEY:
		scan_value(s, c);
		break;
	case IN_INT:
		scan_int(s, c);
		break;
	default:
		scan_length(s, data, c);
		break;
	}
}

static void
scan_payload(struct ben_scan *s, const uint8_t *data, size_t len)
{
	size_t n = len - s->at < s->skip ? len - s->at : s->skip;

	s->at += n;
	s->skip -= n;
	if (s->skip == 0)
		scan_str_done(s, data);
}

enum ben_rc
ben_scan(struct ben_scan *s, const uint8_t *data, size_t len)
{
	while (s->state < DONE) {
		if (s->at >= s->limit)
			s->state = REFUSED_LIMIT;
		else if (s->at >= len)
			return BEN_MORE;
		else if (s->state == IN_PAYLOAD)
			scan_payload(s, data, len);
		else
			scan_octet(s, data);
	}
	switch (s->state) {
	case DONE:
		return BEN_OK;
	case REFUSED_LIMIT:
		return BEN_LIMIT;
	default:
		return BEN_BAD;
	}
}

enum ben_rc
ben_check(struct slice element, size_t limit)
{
	struct ben_scan s;
	enum ben_rc rc;

	ben_scan_init(&s, limit);
	rc = ben_scan(&s, element.data, element.len);
	return rc == BEN_OK && s.at != element.len ? BEN_BAD : rc;
}

/* --- reader -------------------------------------------------------------- */

void
ben_reader_init(struct ben_reader *r, struct slice values)
{
	r->at = values.data;
	r->end = values.len == 0 ? values.data : values.data + values.len;
	r->key = NULL;
	r->bad = false;
}

enum ben_kind
ben_peek(const struct ben_reader *r)
{
	if (!ben_more(r))
		return BEN_END;
	switch (*r->at) {
	case 'i':
		return BEN_INT;
	case 'l':
		return BEN_LIST;
	case 'd':
		return BEN_DICT;
	default:
		return BEN_STR;
	}
}

static void
reader_fail(struct ben_reader *r)
{
	r->bad = true;
	r->at = r->end;
}

struct slice
ben_get_str(struct ben_reader *r)
{
	const uint8_t *p = r->at;
	struct slice out = { NULL, 0 };
	size_t len = 0;

	while (p < r->end && (unsigned)*p - '0' <= 9 && len <= SIZE_MAX / 16)
		len = len * 10 + (size_t)(*p++ - '0');
	if (r->bad || p == r->at || p == r->end || *p != ':' ||
	    len > (size_t)(r->end - p - 1)) {
		reader_fail(r);
		return out;
	}
	out = (struct slice){ p + 1, len };
	r->at = p + 1 + len;
	return out;
}

int64_t
ben_get_int(struct ben_reader *r)
{
	const uint8_t *p = r->at;
	const uint8_t *digits;
	uint64_t v = 0;
	bool negative;

	if (r->bad || p == r->end || *p++ != 'i')
		goto bad;
	negative = p < r->end && *p == '-';
	p += negative ? 1 : 0;
	digits = p;
	while (p < r->end && (unsigned)*p - '0' <= 9 && v <= UINT64_MAX / 16)
		v = v * 10 + (uint64_t)(*p++ - '0');
	if (p == r->end || p == digits || *p != 'e' ||
	    v > (uint64_t)INT64_MAX + (negative ? 1 : 0))
		goto bad;
	r->at = p + 1;
	if (negative)
		return v == 0 ? 0 : -(int64_t)(v - 1) - 1;
	return (int64_t)v;
bad:
	reader_fail(r);
	return 0;
}

void
ben_skip(struct ben_reader *r)
{
	size_t depth = 0;

	do {
		if (r->bad || r->at >= r->end) {
			reader_fail(r);
			return;
		}
		switch (*r->at) {
		case 'i':
			(void)ben_get_int(r);
			break;
		case 'l':
		case 'd':
			depth++;
			r->at++;
			break;
		case 'e':
			if (depth == 0) {
				reader_fail(r);
				return;
			}
			depth--;
			r->at++;
			break;
		default:
			(void)ben_get_str(r);
			break;
		}
	} while (depth > 0);
}

struct slice
ben_get_raw(struct ben_reader *r)
{
	const uint8_t *start = r->at;

	ben_skip(r);
	if (r->bad)
		return (struct slice){ NULL, 0 };
	return (struct slice){ start, (size_t)(r->at - start) };
}

static struct slice
get_inside(struct ben_reader *r, enum ben_kind kind)
{
	struct slice raw;

	if (ben_peek(r) != kind) {
		reader_fail(r);
		return (struct slice){ NULL, 0 };
	}
	raw = ben_get_raw(r);
	return r->bad ? raw : (struct slice){ raw.data + 1, raw.len - 2 };
}

struct slice
ben_get_list(struct ben_reader *r)
{
	return get_inside(r, BEN_LIST);
}

struct slice
ben_get_dict(struct ben_reader *r)
{
	return get_inside(r, BEN_DICT);
}

static void
reader_enter(struct ben_reader *r, enum ben_kind kind)
{
	if (ben_peek(r) != kind)
		reader_fail(r);
	else
		r->at++;
}

void
ben_enter_list(struct ben_reader *r)
{
	reader_enter(r, BEN_LIST);
}

void
ben_enter_dict(struct ben_reader *r)
{
	reader_enter(r, BEN_DICT);
}

void
ben_leave(struct ben_reader *r)
{
	while (ben_more(r))
		ben_skip(r);
	if (r->bad || r->at >= r->end)
		reader_fail(r);
	else
		r->at++;
}

bool
ben_find(struct ben_reader *r, const char *key)
{
	struct slice wanted = slice_str(key);

	if (!r->bad)
		r->key = key;
	while (ben_more(r)) {
		const uint8_t *before = r->at;
		struct slice found = ben_get_str(r);
		int c = slice_cmp(found, wanted);

		if (r->bad)
			return false;
		if (c == 0)
			return true;
		if (c > 0) {
			r->at = before;
			return false;
		}
		ben_skip(r);
	}
	return false;
}

size_t
ben_count(struct slice inside)
{
	struct ben_reader r;
	size_t n = 0;

	ben_reader_init(&r, inside);
	while (ben_more(&r)) {
		ben_skip(&r);
		n++;
	}
	return n;
}

/* --- writer -------------------------------------------------------------- */

static void
put_decimal(struct buffer *b, uint64_t v, const char *before, char after)
{
	char text[24];
	size_t at = sizeof(text);

	text[--at] = after;
	do {
		text[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	buffer_add_str(b, before);
	buffer_add(b, text + at, sizeof(text) - at);
}

void
ben_put_str(struct buffer *b, struct slice s)
{
	put_decimal(b, s.len, "", ':');
	buffer_add_slice(b, s);
}

void
ben_put_text(struct buffer *b, const char *s)
{
	ben_put_str(b, slice_str(s));
}

void
ben_put_int(struct buffer *b, int64_t v)
{
	if (v < 0)
		put_decimal(b, (uint64_t) - (v + 1) + 1, "i-", 'e');
	else
		put_decimal(b, (uint64_t)v, "i", 'e');
}

void
ben_put_list(struct buffer *b)
{
	buffer_add_u8(b, 'l');
}

void
ben_put_dict(struct buffer *b)
{
	buffer_add_u8(b, 'd');
}

void
ben_put_end(struct buffer *b)
{
	buffer_add_u8(b, 'e');
}
