/* Text codecs and checks: see text.h. */
#include "base/text.h"

static const char base32_alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char hex_alphabet[] = "0123456789abcdef";

void
base32_encode(const uint8_t *data, size_t len, char *out)
{
	uint32_t bits = 0;
	unsigned held = 0;

	for (size_t i = 0; i < len; i++) {
		bits = (bits << 8) | data[i];
		held += 8;
		while (held >= 5) {
			held -= 5;
			*out++ = base32_alphabet[(bits >> held) & 31];
		}
	}
	if (held > 0)
		*out++ = base32_alphabet[(bits << (5 - held)) & 31];
	*out = '\0';
}

static int
base32_value(uint8_t c)
{
	if (c >= 'a' && c <= 'z')
		return c - 'a';
	if (c >= '2' && c <= '7')
		return c - '2' + 26;
	return -1;
}

bool
base32_decode(struct slice text, uint8_t *out, size_t len)
{
	uint32_t bits = 0;
	unsigned held = 0;
	size_t at = 0;

	if (text.len != BASE32_LEN(len))
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (base32_value(text.data[i]) < 0)
			return false;
	if (len * 8 % 5 != 0) {
		unsigned spare = (unsigned)(text.len * 5 - len * 8);

		if ((base32_value(text.data[text.len - 1]) & ((1 << spare) - 1)) != 0)
			return false;
	}
	for (size_t i = 0; i < text.len; i++) {
		bits = (bits << 5) | (uint32_t)base32_value(text.data[i]);
		held += 5;
		if (held >= 8 && at < len) {
			held -= 8;
			out[at++] = (uint8_t)(bits >> held);
		}
	}
	return true;
}

void
hex_encode(const uint8_t *data, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++) {
		*out++ = hex_alphabet[data[i] >> 4];
		*out++ = hex_alphabet[data[i] & 15];
	}
	*out = '\0';
}

static int
hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool
hex_decode(struct slice text, uint8_t *out, size_t len)
{
	if (text.len != len * 2)
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (hex_value(text.data[i]) < 0)
			return false;
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(hex_value(text.data[2 * i]) * 16 +
		                   hex_value(text.data[2 * i + 1]));
	return true;
}

bool
text_is_name(struct slice s)
{
	if (s.len < 1 || s.len > 30)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return true;
}

/* Octets of the well-formed sequence at p, 0 when there is none. Unicode 15, table 3-7. */
static size_t
utf8_sequence(const uint8_t *p, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (left < n)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

bool
text_is_utf8(struct slice s)
{
	for (size_t at = 0; at < s.len;) {
		uint64_t eight;
		size_t n;

		if (s.len - at >= sizeof(eight)) { /* most text is ASCII, for long stretches */
			memcpy(&eight, s.data + at, sizeof(eight));
			if ((eight & UINT64_C(0x8080808080808080)) == 0) {
				at += sizeof(eight);
				continue;
			}
		}
		n = utf8_sequence(s.data + at, s.len - at);
		if (n == 0)
			return false;
		at += n;
	}
	return true;
}

size_t
text_characters(struct slice s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++)
		n += (s.data[i] & 0xc0) != 0x80;
	return n;
}

bool
text_parse_u64(struct slice s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (s.len == 0 || s.len > 20 || (s.len > 1 && s.data[0] == '0'))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		unsigned d = (unsigned)s.data[i] - '0';

		if (d > 9 || v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	if (v > max)
		return false;
	*out = v;
	return true;
}
