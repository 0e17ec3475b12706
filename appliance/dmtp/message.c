/* Messages, digests and signatures: see message.h. Variables stand in template.c. */
#include "dmtp/message.h"

#include "base/digest.h"
#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/uri.h"

#include <sodium.h>
#include <strings.h>

#define MEDIA_TYPE_MAX 255
#define LANG_MAX 35

static const char *const field_names[] = {
	[DMTP_FIELD_OTHER] = "",    [DMTP_SUBJECT] = "subject",
	[DMTP_MESSAGE] = "message", [DMTP_ATTACHMENT] = "attachment",
	[DMTP_ACTION] = "action",
};

#define FIELD_NAMES (sizeof(field_names) / sizeof(field_names[0]))

static const char *const rc_names[] = {
	[DMTP_MESSAGE_OK] = "ok",     [DMTP_MESSAGE_BAD] = "malformed",
	[DMTP_MESSAGE_SIZE] = "size", [DMTP_MESSAGE_DIGEST] = "digest",
	[DMTP_MESSAGE_FROM] = "from", [DMTP_MESSAGE_DATE] = "date",
	[DMTP_MESSAGE_TO] = "to",     [DMTP_MESSAGE_SIGNATURE] = "signature",
};

const char *
dmtp_message_rc_name(enum dmtp_message_rc rc)
{
	return (size_t)rc < sizeof(rc_names) / sizeof(rc_names[0]) ? rc_names[rc] : "";
}

/* --- fields -------------------------------------------------------------- */

static bool
is_token_char(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != 0 && strchr("!#$&-^_.+", c) != NULL);
}

/* type "/" subtype (RFC 6838), then nothing or ";" and printable ASCII. */
bool
dmtp_media_type_valid(struct slice s)
{
	size_t at = 0, parts[2] = { 0, 0 };

	if (s.len > MEDIA_TYPE_MAX)
		return false;
	for (int i = 0; i < 2; i++) {
		for (; at < s.len && is_token_char(s.data[at]); at++)
			parts[i]++;
		if (i == 0 && (at == s.len || s.data[at++] != '/'))
			return false;
	}
	if (parts[0] == 0 || parts[1] == 0 || (at < s.len && s.data[at] != ';'))
		return false;
	for (; at < s.len; at++)
		if (s.data[at] < 0x20 || s.data[at] > 0x7e)
			return false;
	return true;
}

static bool
lang_valid(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		      (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return s.len >= 1 && s.len <= LANG_MAX;
}

static enum dmtp_field_name
field_name_find(struct slice name)
{
	for (size_t i = 1; i < FIELD_NAMES; i++)
		if (slice_eq_str(name, field_names[i]))
			return (enum dmtp_field_name)i;
	return DMTP_FIELD_OTHER;
}

/* The keys in their order; r becomes bad on a wrong type. *has_data as found. */
static void
read_field(struct ben_reader *r, struct dmtp_field *f, bool *has_data)
{
	bool has_size, has_digest;

	ben_enter_dict(r);
	*has_data = ben_find(r, "data");
	if (*has_data)
		f->data = ben_get_str(r);
	has_digest = ben_find(r, "digest");
	if (has_digest)
		f->digest = ben_get_str(r);
	if (ben_find(r, "lang")) {
		f->lang = ben_get_str(r);
		r->bad = r->bad || !lang_valid(f->lang);
	}
	r->bad = r->bad || !ben_find(r, "name");
	f->name = field_name_find(ben_get_str(r));
	has_size = ben_find(r, "size");
	if (has_size)
		f->size = ben_get_int(r);
	r->bad = r->bad || !ben_find(r, "type");
	f->type = ben_get_str(r);
	f->large = ben_find(r, "uris");
	if (f->large)
		f->uris = ben_get_list(r);
	ben_leave(r);
	if (has_size != f->large || has_digest != f->large)
		r->bad = true;
}

static bool
uris_valid(struct slice inside)
{
	struct ben_reader it;
	size_t n = 0;

	ben_reader_init(&it, inside);
	for (; ben_more(&it); n++)
		if (!dmtp_uri_possible(ben_get_str(&it)))
			return false;
	return !it.bad && n >= 1;
}

static bool
is_text(struct slice type)
{
	return type.len >= 5 && strncasecmp((const char *)type.data, "text/", 5) == 0;
}

static bool
field_valid(const struct dmtp_field *f, bool has_data)
{
	if (!dmtp_media_type_valid(f->type) || has_data == f->large)
		return false;
	if (f->large)
		return f->name == DMTP_ATTACHMENT && f->size >= 1 &&
		       f->digest.len == DMTP_DIGEST_LEN && uris_valid(f->uris);
	if (f->name == DMTP_SUBJECT || (f->name == DMTP_MESSAGE && is_text(f->type)))
		return text_is_utf8(f->data);
	return true;
}

bool
dmtp_field_next(struct ben_reader *it, struct dmtp_field *out)
{
	struct dmtp_field f = { .name = DMTP_FIELD_OTHER };
	bool has_data;

	if (!ben_more(it))
		return false;
	read_field(it, &f, &has_data);
	if (f.name != DMTP_FIELD_OTHER && !it->bad && !field_valid(&f, has_data))
		it->bad = true;
	if (it->bad)
		return false;
	*out = f;
	return true;
}

/* Every field is in form, and one of them is worth reading. */
static bool
fields_valid(struct slice inside, size_t *count)
{
	struct ben_reader it;
	struct dmtp_field f;
	bool content = false;

	ben_reader_init(&it, inside);
	for (*count = 0; dmtp_field_next(&it, &f); (*count)++)
		if (f.name == DMTP_SUBJECT || f.name == DMTP_MESSAGE ||
		    f.name == DMTP_ATTACHMENT)
			content = true;
	return !it.bad && content;
}

/* --- the whole ----------------------------------------------------------- */

static bool
is_address(struct slice s)
{
	struct dmtp_address a;

	return dmtp_address_parse(s, &a) == DMTP_ADDRESS_OK;
}

static void
read_message(struct ben_reader *r, struct dmtp_message *m)
{
	struct slice salt;

	ben_enter_dict(r);
	r->bad = r->bad || !ben_find(r, "date");
	m->date = ben_get_int(r);
	r->bad = r->bad || !ben_find(r, "fields");
	m->fields = ben_get_list(r);
	r->bad = r->bad || !ben_find(r, "from");
	m->from = ben_get_str(r);
	r->bad = r->bad || !ben_find(r, "salt");
	salt = ben_get_str(r);
	r->bad = r->bad || !ben_find(r, "to");
	m->to = ben_get_str(r);
	ben_leave(r);
	if (salt.len == DMTP_SALT_LEN)
		memcpy(m->salt, salt.data, DMTP_SALT_LEN);
	else
		r->bad = true;
}

enum dmtp_message_rc
dmtp_message_decode(struct slice octets, struct dmtp_message *out)
{
	struct dmtp_message m = { .date = 0 };
	struct ben_reader r;

	if (ben_check(octets, octets.len) != BEN_OK)
		return DMTP_MESSAGE_BAD;
	ben_reader_init(&r, octets);
	read_message(&r, &m);
	if (r.bad || !is_address(m.from) || !is_address(m.to) ||
	    !fields_valid(m.fields, &m.field_count))
		return DMTP_MESSAGE_BAD;
	*out = m;
	return DMTP_MESSAGE_OK;
}

static void
put_pair(struct buffer *out, const char *key, struct slice value)
{
	ben_put_text(out, key);
	ben_put_str(out, value);
}

static void
put_field(const struct dmtp_field *f, struct buffer *out)
{
	ben_put_dict(out);
	if (f->large)
		put_pair(out, "digest", f->digest);
	else
		put_pair(out, "data", f->data);
	if (f->lang.len > 0)
		put_pair(out, "lang", f->lang);
	put_pair(out, "name",
	         slice_str((size_t)f->name < FIELD_NAMES ? field_names[f->name] : ""));
	if (f->large) {
		ben_put_text(out, "size");
		ben_put_int(out, f->size);
	}
	put_pair(out, "type", f->type);
	if (f->large) {
		ben_put_text(out, "uris");
		ben_put_list(out);
		buffer_add_slice(out, f->uris);
		ben_put_end(out);
	}
	ben_put_end(out);
}

enum dmtp_message_rc
dmtp_message_encode(const struct dmtp_message *m, const struct dmtp_field *fields, size_t count,
                    struct buffer *out)
{
	size_t start = out->len;
	struct dmtp_message made;

	ben_put_dict(out);
	ben_put_text(out, "date");
	ben_put_int(out, m->date);
	ben_put_text(out, "fields");
	ben_put_list(out);
	for (size_t i = 0; i < count; i++)
		put_field(&fields[i], out);
	ben_put_end(out);
	put_pair(out, "from", m->from);
	put_pair(out, "salt", slice_mem(m->salt, DMTP_SALT_LEN));
	put_pair(out, "to", m->to);
	ben_put_end(out);
	if (!out->failed &&
	    dmtp_message_decode(slice_mem(out->data + start, out->len - start), &made) ==
	        DMTP_MESSAGE_OK &&
	    made.field_count == count)
		return DMTP_MESSAGE_OK;
	out->len = start;
	return DMTP_MESSAGE_BAD;
}

static bool
same_address(struct slice a, struct slice b)
{
	struct dmtp_address x, y;

	return dmtp_address_parse(a, &x) == DMTP_ADDRESS_OK &&
	       dmtp_address_parse(b, &y) == DMTP_ADDRESS_OK && dmtp_address_eq(&x, &y);
}

enum dmtp_message_rc
dmtp_message_check(struct slice octets, const struct dmtp_expected *expected,
                   struct dmtp_message *out)
{
	uint8_t digest[DMTP_DIGEST_LEN];
	struct dmtp_message m;

	if (expected->size < 0 || octets.len != (uint64_t)expected->size)
		return DMTP_MESSAGE_SIZE;
	if (!dmtp_digest(octets, digest) ||
	    !slice_eq(slice_mem(digest, sizeof(digest)), expected->digest))
		return DMTP_MESSAGE_DIGEST;
	if (dmtp_message_decode(octets, &m) != DMTP_MESSAGE_OK)
		return DMTP_MESSAGE_BAD;
	if (!same_address(m.from, expected->from))
		return DMTP_MESSAGE_FROM;
	if (m.date != expected->date)
		return DMTP_MESSAGE_DATE;
	if (!same_address(m.to, expected->to))
		return DMTP_MESSAGE_TO;
	*out = m;
	return DMTP_MESSAGE_OK;
}

bool
dmtp_digest(struct slice octets, uint8_t out[static DMTP_DIGEST_LEN])
{
	digest_sha256(octets, out);
	return true;
}

/* --- signatures ---------------------------------------------------------- */

#define MESSAGE_LABEL "DMTP/1 message" /* with its NUL */
#define AUTH_LABEL "DMTP/1 auth"       /* with its NUL */
#define SIGNED_MESSAGE_LEN (sizeof(MESSAGE_LABEL) + DMTP_DIGEST_LEN)
#define SIGNED_AUTH_MAX (sizeof(AUTH_LABEL) + 32 + DMTP_DOMAIN_MAX + 1 + DMTP_DOMAIN_MAX)

static void
signed_message(const uint8_t *digest, uint8_t out[static SIGNED_MESSAGE_LEN])
{
	memcpy(out, MESSAGE_LABEL, sizeof(MESSAGE_LABEL));
	memcpy(out + sizeof(MESSAGE_LABEL), digest, DMTP_DIGEST_LEN);
}

void
dmtp_message_sign(const uint8_t digest[static DMTP_DIGEST_LEN], const uint8_t secret[static 64],
                  uint8_t out[static DMTP_SIGNATURE_LEN])
{
	uint8_t text[SIGNED_MESSAGE_LEN];

	signed_message(digest, text);
	(void)crypto_sign_detached(out, NULL, text, sizeof(text), secret);
}

bool
dmtp_message_verify(const uint8_t digest[static DMTP_DIGEST_LEN], struct slice signature,
                    const uint8_t key[static DMTP_KEY_LEN])
{
	uint8_t text[SIGNED_MESSAGE_LEN];

	if (signature.len != DMTP_SIGNATURE_LEN)
		return false;
	signed_message(digest, text);
	return crypto_sign_verify_detached(signature.data, text, sizeof(text), key) == 0;
}

/* Answers the length, 0 when a domain is too long. */
static size_t
signed_auth(const uint8_t *exporter, struct slice client, struct slice server,
            uint8_t out[static SIGNED_AUTH_MAX])
{
	size_t at = 0;

	if (client.len < 1 || client.len > DMTP_DOMAIN_MAX || server.len < 1 ||
	    server.len > DMTP_DOMAIN_MAX)
		return 0;
	memcpy(out, AUTH_LABEL, sizeof(AUTH_LABEL));
	at += sizeof(AUTH_LABEL);
	memcpy(out + at, exporter, 32);
	at += 32;
	memcpy(out + at, client.data, client.len);
	at += client.len;
	out[at++] = 0;
	memcpy(out + at, server.data, server.len);
	return at + server.len;
}

bool
dmtp_auth_sign(const uint8_t exporter[static 32], struct slice client_domain,
               struct slice server_domain, const uint8_t secret[static 64],
               uint8_t out[static DMTP_SIGNATURE_LEN])
{
	uint8_t text[SIGNED_AUTH_MAX];
	size_t len = signed_auth(exporter, client_domain, server_domain, text);

	if (len > 0)
		(void)crypto_sign_detached(out, NULL, text, len, secret);
	sodium_memzero(text, sizeof(text));
	return len > 0;
}

bool
dmtp_auth_verify(const uint8_t exporter[static 32], struct slice client_domain,
                 struct slice server_domain, struct slice signature,
                 const uint8_t key[static DMTP_KEY_LEN])
{
	uint8_t text[SIGNED_AUTH_MAX];
	size_t len = signed_auth(exporter, client_domain, server_domain, text);
	bool ok = len > 0 && signature.len == DMTP_SIGNATURE_LEN &&
	          crypto_sign_verify_detached(signature.data, text, len, key) == 0;

	sodium_memzero(text, sizeof(text));
	return ok;
}
