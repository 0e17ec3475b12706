/* JWS compact serialisation (RFC 7515 section 3.1): see jwt.h. */
#include "ctl/jwt.h"

#include "ctl/output.h"

#include <sodium.h>
#include <stdlib.h>

static void
add_base64url(struct buffer *out, struct slice data)
{
	size_t room =
	    sodium_base64_encoded_len(data.len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	uint8_t *text = buffer_reserve(out, room);

	if (text == NULL)
		return;
	(void)sodium_bin2base64((char *)text, room, data.data, data.len,
	                        sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	buffer_added(out, room - 1);
}

static void
add_json(struct buffer *out, const json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT);

	add_base64url(out, slice_str(text));
	free(text);
}

bool
jwt_make(const struct pem_signer *signer, const char *kid, const json_t *claims,
         struct buffer *out)
{
	json_t *header = json_pack("{s:s, s:s, s:o}", "typ", "JWT", "alg",
	                           pem_algorithm(signer), "kid", output_text(kid));
	struct buffer signature;
	bool ok;

	buffer_init(out, JWT_MAX);
	buffer_init(&signature, 2048);
	add_json(out, header);
	buffer_add_u8(out, '.');
	add_json(out, claims);
	ok = !out->failed && pem_sign(signer, buffer_slice(out), &signature);
	buffer_add_u8(out, '.');
	add_base64url(out, buffer_slice(&signature));
	buffer_add_u8(out, '\0');
	buffer_free(&signature);
	json_decref(header);
	return ok && !out->failed;
}
