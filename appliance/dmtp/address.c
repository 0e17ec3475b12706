/*
 * Addresses: see address.h. Nothing here allocates but libidn2, and that only
 * for what people enter; the wire knows A-labels only.
 */
#include "dmtp/address.h"

#include "base/text.h"

#include <idn2.h>
#include <utf8proc.h>

/* Canonical decomposition makes at most four code points of one. */
#define NFC_ROOM (DMTP_LOCAL_MAX * 4 + 4)

static bool
all_ascii(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] >= 0x80)
			return false;
	return true;
}

/* The code points of s in form C, at most NFC_ROOM; below 0 when there are none. */
static utf8proc_ssize_t
nfc_points(struct slice s, utf8proc_int32_t room[static NFC_ROOM])
{
	const utf8proc_option_t form = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
	utf8proc_ssize_t n =
	    utf8proc_decompose(s.data, (utf8proc_ssize_t)s.len, room, NFC_ROOM, form);

	if (n < 0 || n > NFC_ROOM)
		return -1;
	return utf8proc_normalize_utf32(room, n, form);
}

bool
dmtp_text_is_nfc(struct slice s)
{
	utf8proc_int32_t room[NFC_ROOM], point;
	utf8proc_ssize_t n;
	size_t at = 0;

	if (s.len > DMTP_LOCAL_MAX || !text_is_utf8(s))
		return false;
	if (all_ascii(s))
		return true;
	n = nfc_points(s, room);
	for (utf8proc_ssize_t i = 0; i < n; i++) {
		if (at >= s.len)
			return false;
		at += (size_t)utf8proc_iterate(s.data + at, (utf8proc_ssize_t)(s.len - at),
		                               &point);
		if (point != room[i])
			return false;
	}
	return n >= 0 && at == s.len;
}

static bool
point_allowed(utf8proc_int32_t point)
{
	switch (utf8proc_category(point)) {
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_ZS:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP:
		return false;
	default:
		return point != '@';
	}
}

/* s is UTF-8. */
static bool
points_allowed(struct slice s)
{
	utf8proc_int32_t point;

	for (size_t at = 0; at < s.len;) {
		if (s.data[at] < 0x80) {
			if (s.data[at] <= ' ' || s.data[at] == '@' || s.data[at] == 0x7f)
				return false;
			at++;
			continue;
		}
		at += (size_t)utf8proc_iterate(s.data + at, (utf8proc_ssize_t)(s.len - at),
		                               &point);
		if (!point_allowed(point))
			return false;
	}
	return true;
}

static void
lower_ascii(const uint8_t *in, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (char)(in[i] >= 'A' && in[i] <= 'Z' ? in[i] | 0x20 : in[i]);
}

/*
 * The lower-cased form must be NFC too, else what we would send on were no
 * address: "H" and a macron below have no composed form, "h" and it have.
 */
static bool
local_normalised(struct slice local, char out[static DMTP_LOCAL_MAX])
{
	if (local.len < 1 || local.len > DMTP_LOCAL_MAX || !dmtp_text_is_nfc(local) ||
	    !points_allowed(local))
		return false;
	lower_ascii(local.data, local.len, out);
	return dmtp_text_is_nfc(slice_mem(out, local.len));
}

/* Lower-case letters, digits and inner hyphens. *number: digits only. */
static bool
label_valid(struct slice label, bool *number)
{
	*number = true;
	if (label.len < 1 || label.len > 63 || label.data[0] == '-' ||
	    label.data[label.len - 1] == '-')
		return false;
	for (size_t i = 0; i < label.len; i++) {
		uint8_t c = label.data[i];

		if (c >= '0' && c <= '9')
			continue;
		*number = false;
		if (!(c >= 'a' && c <= 'z') && c != '-')
			return false;
	}
	return !(label.len == 4 && memcmp(label.data, "xn--", 4) == 0);
}

bool
dmtp_domain_valid(struct slice domain)
{
	size_t start = 0;
	bool number = true;

	if (domain.len < 1 || domain.len > DMTP_DOMAIN_MAX)
		return false;
	for (size_t at = 0; at <= domain.len; at++) {
		if (at < domain.len && domain.data[at] != '.')
			continue;
		if (!label_valid(slice_mem(domain.data + start, at - start), &number))
			return false;
		start = at + 1;
	}
	return !number;
}

static struct slice
trimmed(struct slice s)
{
	while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t' || s.data[0] == '\n' ||
	                     s.data[0] == '\r'))
		s = slice_mem(s.data + 1, s.len - 1);
	while (s.len > 0 && strchr(" \t\r\n", s.data[s.len - 1]) != NULL &&
	       s.data[s.len - 1] != 0)
		s.len--;
	return s;
}

bool
dmtp_domain_normalise(struct slice in, char out[static DMTP_DOMAIN_MAX + 1])
{
	uint8_t text[DMTP_DOMAIN_MAX * 4 + 1], *ascii = NULL;
	struct slice domain;
	bool ok;

	in = trimmed(in);
	if (in.len < 1 || in.len >= sizeof(text) || !text_is_utf8(in) ||
	    memchr(in.data, 0, in.len) != NULL)
		return false;
	if (all_ascii(in)) {
		lower_ascii(in.data, in.len, (char *)text);
		domain = slice_mem(text, in.len);
		ok = dmtp_domain_valid(domain);
	} else {
		memcpy(text, in.data, in.len);
		text[in.len] = '\0';
		if (idn2_lookup_u8(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) !=
		    IDN2_OK)
			return false;
		domain = slice_str((const char *)ascii);
		ok = dmtp_domain_valid(domain);
	}
	if (ok) {
		memcpy(out, domain.data, domain.len);
		out[domain.len] = '\0';
	}
	idn2_free(ascii);
	return ok;
}

struct slice
dmtp_domain_of(struct slice address)
{
	for (size_t i = address.len; i > 0; i--)
		if (address.data[i - 1] == '@')
			return slice_mem(address.data + i, address.len - i);
	return slice_mem(NULL, 0);
}

/* What stands before the last "@"; empty when there is none. */
static struct slice
local_of(struct slice address)
{
	struct slice domain = dmtp_domain_of(address);

	if (domain.data == NULL)
		return domain;
	return slice_mem(address.data, (size_t)(domain.data - address.data) - 1);
}

/* Both parts are normalised. */
static void
join(const char *local, size_t local_len, struct slice domain, struct dmtp_address *out)
{
	memcpy(out->text, local, local_len);
	out->text[local_len] = '@';
	memcpy(out->text + local_len + 1, domain.data, domain.len);
	out->local_len = (uint16_t)local_len;
	out->len = (uint16_t)(local_len + 1 + domain.len);
	out->text[out->len] = '\0';
}

enum dmtp_address_rc
dmtp_address_parse(struct slice in, struct dmtp_address *out)
{
	struct slice domain = dmtp_domain_of(in), local = local_of(in);
	char lower[DMTP_LOCAL_MAX];

	if (!dmtp_domain_valid(domain) || !local_normalised(local, lower))
		return DMTP_ADDRESS_BAD;
	join(lower, local.len, domain, out);
	return DMTP_ADDRESS_OK;
}

/* Form C of s as UTF-8 into out; answers its length, 0 when there is none or it is too long. */
static size_t
to_nfc(struct slice s, uint8_t out[static DMTP_LOCAL_MAX])
{
	utf8proc_int32_t room[NFC_ROOM];
	utf8proc_uint8_t one[4];
	utf8proc_ssize_t n;
	size_t len = 0;

	if (s.len > (size_t)DMTP_LOCAL_MAX * 4 || !text_is_utf8(s))
		return 0;
	n = nfc_points(s, room);
	for (utf8proc_ssize_t i = 0; i < n; i++) {
		size_t octets = (size_t)utf8proc_encode_char(room[i], one);

		if (len + octets > DMTP_LOCAL_MAX)
			return 0;
		memcpy(out + len, one, octets);
		len += octets;
	}
	return len;
}

enum dmtp_address_rc
dmtp_address_normalise(struct slice in, struct dmtp_address *out)
{
	uint8_t composed[DMTP_LOCAL_MAX];
	char domain[DMTP_DOMAIN_MAX + 1], lower[DMTP_LOCAL_MAX];
	struct slice local, typed;

	in = trimmed(in);
	local = local_of(in);
	local = slice_mem(composed, to_nfc(local, composed));
	typed = dmtp_domain_of(in);
	if (!local_normalised(local, lower) || !dmtp_domain_normalise(typed, domain) ||
	    typed.len != trimmed(typed).len)
		return DMTP_ADDRESS_BAD;
	join(lower, local.len, slice_str(domain), out);
	return DMTP_ADDRESS_OK;
}

bool
dmtp_address_eq(const struct dmtp_address *a, const struct dmtp_address *b)
{
	return slice_eq(dmtp_address_slice(a), dmtp_address_slice(b));
}

bool
dmtp_address_channel(const struct dmtp_address *a, struct slice *channel, struct slice *site)
{
	struct slice local = dmtp_address_local(a), before, behind;
	const uint8_t *dot = memchr(local.data, '.', local.len);

	if (dot == NULL)
		return false;
	before = slice_mem(local.data, (size_t)(dot - local.data));
	behind = slice_mem(dot + 1, local.len - before.len - 1);
	if (!text_is_name(before) || !text_is_name(behind))
		return false;
	*channel = before;
	*site = behind;
	return true;
}

enum dmtp_address_rc
dmtp_address_make(struct slice channel, struct slice site, struct slice domain,
                  struct dmtp_address *out)
{
	char local[DMTP_LOCAL_MAX];
	size_t at = 0;

	if ((channel.len > 0 && !text_is_name(channel)) || !text_is_name(site) ||
	    !dmtp_domain_valid(domain))
		return DMTP_ADDRESS_BAD;
	if (channel.len > 0) {
		memcpy(local, channel.data, channel.len);
		local[channel.len] = '.';
		at = channel.len + 1;
	}
	memcpy(local + at, site.data, site.len);
	join(local, at + site.len, domain, out);
	return DMTP_ADDRESS_OK;
}

bool
dmtp_id_valid(struct slice id)
{
	if (id.len < 1 || id.len > 64)
		return false;
	for (size_t i = 0; i < id.len; i++)
		if (id.data[i] < 0x20 || id.data[i] > 0x7e)
			return false;
	return true;
}
