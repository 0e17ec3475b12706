/* Attachments that a push names: see attached.h. */
#include "site/attached.h"

#include "dmtp/pickup.h"
#include "dmtp/uri.h"

#include <sodium.h>
#include <stdio.h>

const struct web_problem attached_unknown = {
	.type = "urn:tmtp:problem:unknown-attachment",
	.title = "An attachment is named that isn't here.",
	.status = 422,
};

struct item {
	struct slice digest;
};

void
attached_digest_text(const uint8_t digest[static 32], char out[static ATTACHED_DIGEST_TEXT])
{
	(void)sodium_bin2hex(out, ATTACHED_DIGEST_TEXT, digest, 32);
}

static bool
digest_parse(struct slice text, uint8_t out[static 32])
{
	size_t n = 0;

	return text.len == 64 &&
	       sodium_hex2bin(out, 32, (const char *)text.data, text.len, NULL, &n, NULL) ==
	           0 &&
	       n == 32;
}

static bool
is_digest(struct slice text)
{
	uint8_t digest[32];

	return digest_parse(text, digest);
}

static void
read_one(const json_t *json, const char *pointer, struct attached *out,
         struct web_errors *errors)
{
	static const struct web_field fields[] = {
		{ "digest", WEB_STRING, WEB_REQUIRED, offsetof(struct item, digest),
		  .check = is_digest, .expected = "a SHA-256 as 64 hexadecimal digits" },
	};
	struct attachment_named *named = &out->named[out->n];
	struct item item = { { NULL, 0 } };

	if (!json_is_object(json)) {
		web_errors_add(errors, &web_invalid_value, pointer, "must be an object");
		return;
	}
	if (!web_fields_read(json, pointer, fields, 1, &item, errors) ||
	    !digest_parse(item.digest, named->digest))
		return;
	for (size_t i = 0; i < out->n; i++) {
		if (memcmp(out->named[i].digest, named->digest, sizeof(named->digest)) == 0) {
			web_errors_add(errors, &web_invalid_value, pointer,
			               "stands there twice");
			return;
		}
	}
	out->n++;
}

bool
attached_read(const json_t *body, struct attached *out, struct web_errors *errors)
{
	const json_t *list = json_object_get(body, "attachments");
	size_t before = errors->count, n = json_array_size(list);
	char pointer[32];

	out->n = 0;
	if (list == NULL)
		return true;
	if (!json_is_array(list) || n > ATTACHMENTS_NAMED_MAX) {
		web_errors_add(errors, &web_invalid_value, "/attachments",
		               "must be a list of at most %d", ATTACHMENTS_NAMED_MAX);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		(void)snprintf(pointer, sizeof(pointer), "/attachments/%zu", i);
		read_one(json_array_get(list, i), pointer, out, errors);
	}
	return errors->count == before;
}

bool
attached_make(struct attached *a, const struct config_site *site, int64_t site_id)
{
	size_t from[ATTACHMENTS_NAMED_MAX + 1];

	buffer_init(&a->uris, a->n * DMTP_PICKUP_URIS * (DMTP_URI_MAX + 256));
	for (size_t i = 0; i < a->n; i++) {
		struct dmtp_pickup pickup = { .site_id = site_id,
			                      .message_id = a->named[i].attachment_id,
			                      .attachment = true };

		from[i] = a->uris.len;
		memcpy(pickup.digest, a->named[i].digest, sizeof(pickup.digest));
		dmtp_pickup_put_uris(&a->uris, site->message_hosts.items,
		                     site->message_hosts.count, site->http.url, &pickup);
	}
	from[a->n] = a->uris.len;
	for (size_t i = 0; i < a->n; i++)
		a->fields[i] = (struct dmtp_field){
			.name = DMTP_ATTACHMENT,
			.type = slice_str(a->named[i].type),
			.large = true,
			.size = a->named[i].size,
			.digest = slice_mem(a->named[i].digest, sizeof(a->named[i].digest)),
			.uris = slice_mem(a->uris.data + from[i], from[i + 1] - from[i]),
		};
	return !a->uris.failed;
}

json_t *
attached_missing(const struct attached *a)
{
	json_t *errors = json_array();
	char pointer[40];

	for (size_t i = 0; i < a->n; i++) {
		if (a->named[i].found)
			continue;
		(void)snprintf(pointer, sizeof(pointer), "/attachments/%zu/digest", i);
		(void)json_array_append_new(
		    errors,
		    json_pack("{s:s, s:s}", "pointer", pointer, "detail",
		              "is of no attachment that this site has uploaded and that is "
		              "still kept"));
	}
	return errors;
}
