/* Site cards: see card.h. */
#include "dmtp/card.h"

#include "base/text.h"
#include "dmtp/message.h"

#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>

/* --- Life ------------------------------------------------------------------------- */

struct dmtp_card *
dmtp_card_make(void)
{
	return calloc(1, sizeof(struct dmtp_card));
}

void
dmtp_card_free(struct dmtp_card **card)
{
	struct dmtp_card *c = *card;

	if (c == NULL)
		return;
	*card = NULL;
	for (size_t i = 0; i < c->hosts_n; i++)
		free(c->hosts[i]);
	free(c->hosts);
	free(c->keys);
	free(c->name);
	free(c->icon);
	free(c);
}

/* --- Reading ------------------------------------------------------------------------ */

/* 43 characters of base64url, without padding. */
static bool
read_public_key(const char *text, uint8_t out[static DMTP_KEY_LEN])
{
	size_t len = 0;

	return sodium_base642bin(out, DMTP_KEY_LEN, text, strlen(text), NULL, &len, NULL,
	                         sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
	       len == DMTP_KEY_LEN;
}

static bool
read_key(const json_t *value, struct dmtp_card_key *out)
{
	const char *id = json_string_value(json_object_get(value, "id"));
	const char *key = json_string_value(json_object_get(value, "ed25519"));
	const json_t *from = json_object_get(value, "from");
	const json_t *until = json_object_get(value, "until");

	if (id == NULL || key == NULL || !json_is_integer(from) || !json_is_integer(until) ||
	    !dmtp_id_valid(slice_str(id)) || !read_public_key(key, out->public_key))
		return false;
	(void)snprintf(out->id, sizeof(out->id), "%s", id);
	out->from = json_integer_value(from);
	out->until = json_integer_value(until);
	return true;
}

static const struct dmtp_card_key *
find_key(const struct dmtp_card *card, struct slice id)
{
	for (size_t i = 0; i < card->keys_n; i++)
		if (slice_eq_str(id, card->keys[i].id))
			return &card->keys[i];
	return NULL;
}

static enum dmtp_card_rc
read_keys(const json_t *keys, struct dmtp_card *out)
{
	size_t n =
	    json_array_size(keys) < DMTP_CARD_KEYS ? json_array_size(keys) : DMTP_CARD_KEYS;

	if (keys == NULL)
		return DMTP_CARD_OK;
	if (!json_is_array(keys))
		return DMTP_CARD_BAD;
	out->keys = calloc(n + 1, sizeof(*out->keys));
	if (out->keys == NULL)
		return DMTP_CARD_NO_MEMORY;
	for (size_t i = 0; i < n; i++) {
		struct dmtp_card_key *key = &out->keys[out->keys_n];

		if (read_key(json_array_get(keys, i), key) &&
		    find_key(out, slice_str(key->id)) == NULL)
			out->keys_n++;
	}
	return DMTP_CARD_OK;
}

static enum dmtp_card_rc
read_hosts(const json_t *hosts, struct dmtp_card *out)
{
	size_t n =
	    json_array_size(hosts) < DMTP_CARD_HOSTS ? json_array_size(hosts) : DMTP_CARD_HOSTS;

	if (hosts == NULL)
		return DMTP_CARD_OK;
	if (!json_is_array(hosts))
		return DMTP_CARD_BAD;
	out->hosts = calloc(n + 1, sizeof(*out->hosts));
	if (out->hosts == NULL)
		return DMTP_CARD_NO_MEMORY;
	for (size_t i = 0; i < n; i++) {
		const char *host = json_string_value(json_array_get(hosts, i));

		if (host == NULL || !dmtp_domain_valid(slice_str(host)))
			continue;
		out->hosts[out->hosts_n] = strdup(host);
		if (out->hosts[out->hosts_n++] == NULL) {
			out->hosts_n--;
			return DMTP_CARD_NO_MEMORY;
		}
	}
	return DMTP_CARD_OK;
}

static enum dmtp_card_rc
read_signed(const json_t *value, bool *out)
{
	if (value == NULL || json_is_false(value))
		return DMTP_CARD_OK;
	if (!json_is_true(value) && (!json_is_integer(value) || json_integer_value(value) < 0 ||
	                             json_integer_value(value) > 1))
		return DMTP_CARD_BAD;
	*out = json_is_true(value) || json_integer_value(value) == 1;
	return DMTP_CARD_OK;
}

/* For people: left out when it can't be shown as it is. */
static enum dmtp_card_rc
read_text(const json_t *value, size_t max, char **out)
{
	const char *text = json_string_value(value);

	if (text == NULL || *text == '\0' || strlen(text) > max)
		return DMTP_CARD_OK;
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return DMTP_CARD_OK;
	*out = strdup(text);
	return *out == NULL ? DMTP_CARD_NO_MEMORY : DMTP_CARD_OK;
}

static void
drop_text(char **text)
{
	free(*text);
	*text = NULL;
}

static enum dmtp_card_rc
read_card(const json_t *root, struct dmtp_card *out)
{
	const json_t *version = json_object_get(root, "dmtp");
	enum dmtp_card_rc rc;

	if (!json_is_integer(version) || json_integer_value(version) != 1)
		return DMTP_CARD_NONE;
	if ((rc = read_signed(json_object_get(root, "signed"), &out->signed_only)) !=
	        DMTP_CARD_OK ||
	    (rc = read_hosts(json_object_get(root, "hosts"), out)) != DMTP_CARD_OK ||
	    (rc = read_keys(json_object_get(root, "keys"), out)) != DMTP_CARD_OK ||
	    (rc = read_text(json_object_get(root, "name"), (size_t)4 * DMTP_CARD_NAME,
	                    &out->name)) != DMTP_CARD_OK)
		return rc;
	rc = read_text(json_object_get(root, "icon"), 2048, &out->icon);
	if (out->name != NULL && text_characters(slice_str(out->name)) > DMTP_CARD_NAME)
		drop_text(&out->name);
	if (out->icon != NULL && strncmp(out->icon, "https://", 8) != 0)
		drop_text(&out->icon);
	return rc;
}

enum dmtp_card_rc
dmtp_card_decode(struct slice octets, struct dmtp_card **out)
{
	struct dmtp_card *card;
	enum dmtp_card_rc rc;
	json_t *root;

	*out = NULL;
	if (octets.len == 0 || octets.len > DMTP_CARD_MAX)
		return octets.len == 0 ? DMTP_CARD_NONE : DMTP_CARD_BAD;
	root = json_loadb((const char *)octets.data, octets.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(root)) {
		json_decref(root);
		return DMTP_CARD_NONE;
	}
	card = dmtp_card_make();
	rc = card == NULL ? DMTP_CARD_NO_MEMORY : read_card(root, card);
	json_decref(root);
	if (rc == DMTP_CARD_OK)
		*out = card;
	else
		dmtp_card_free(&card);
	return rc;
}

/* --- Writing -------------------------------------------------------------------------- */

static json_t *
key_json(const struct dmtp_card_key *key)
{
	char text[sodium_base64_ENCODED_LEN(DMTP_KEY_LEN,
	                                    sodium_base64_VARIANT_URLSAFE_NO_PADDING)];

	(void)sodium_bin2base64(text, sizeof(text), key->public_key, sizeof(key->public_key),
	                        sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return json_pack("{s:s, s:s, s:I, s:I}", "id", key->id, "ed25519", text, "from",
	                 (json_int_t)key->from, "until", (json_int_t)key->until);
}

/* NULL: no memory. */
static char *
write_keys(const struct dmtp_card *card, size_t keys_n)
{
	json_t *hosts = json_array(), *keys = json_array(), *root;
	char *text;

	for (size_t i = 0; i < card->hosts_n; i++)
		(void)json_array_append_new(hosts, json_string(card->hosts[i]));
	for (size_t i = 0; i < keys_n; i++)
		(void)json_array_append_new(keys, key_json(&card->keys[i]));
	root =
	    json_pack("{s:i, s:s*, s:s*, s:o, s:i, s:o}", "dmtp", 1, "name", card->name, "icon",
	              card->icon, "hosts", hosts, "signed", card->signed_only, "keys", keys);
	text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

bool
dmtp_card_encode(const struct dmtp_card *card, struct buffer *out)
{
	for (size_t n = card->keys_n;; n = n * 3 / 4) {
		char *text = write_keys(card, n);
		size_t len = text == NULL ? 0 : strlen(text);

		if (text != NULL && len <= DMTP_CARD_MAX)
			buffer_add(out, text, len);
		free(text);
		if (text == NULL || (len > DMTP_CARD_MAX && n == 0))
			return false;
		if (len <= DMTP_CARD_MAX)
			return !out->failed;
	}
}

/* --- What follows from it ---------------------------------------------------------------- */

bool
dmtp_card_has_host(const struct dmtp_card *card, struct slice host)
{
	for (size_t i = 0; i < card->hosts_n; i++)
		if (slice_eq_str(host, card->hosts[i]))
			return true;
	return false;
}

const char *
dmtp_card_verdict_text(enum dmtp_card_verdict verdict)
{
	static const char *const texts[] = {
		[DMTP_CARD_GOOD] = "good",
		[DMTP_CARD_UNSIGNED] = "it is not signed, and the domain signs everything",
		[DMTP_CARD_NO_KEY] = "the domain publishes no key of that id",
		[DMTP_CARD_KEY_ENDED] = "the key is not valid at that time",
		[DMTP_CARD_FORGED] = "the signature is not of that key",
	};

	return texts[verdict];
}

static bool
is_valid_at(const struct dmtp_card_key *key, int64_t at_s)
{
	return key->from <= at_s && at_s < key->until;
}

enum dmtp_card_verdict
dmtp_card_judge(const struct dmtp_card *card, const uint8_t digest[static DMTP_DIGEST_LEN],
                struct slice key, struct slice signature, int64_t date)
{
	const struct dmtp_card_key *found;

	if (key.len == 0 && signature.len == 0)
		return card->signed_only ? DMTP_CARD_UNSIGNED : DMTP_CARD_GOOD;
	found = find_key(card, key);
	if (found == NULL)
		return DMTP_CARD_NO_KEY;
	if (!is_valid_at(found, date))
		return DMTP_CARD_KEY_ENDED;
	return dmtp_message_verify(digest, signature, found->public_key) ? DMTP_CARD_GOOD
	                                                                 : DMTP_CARD_FORGED;
}

bool
dmtp_card_key_counts(const struct dmtp_card *card, struct slice key, int64_t at_s)
{
	const struct dmtp_card_key *found = find_key(card, key);

	return found != NULL && is_valid_at(found, at_s);
}

bool
dmtp_card_proof_counts(const struct dmtp_card *card, struct slice key, int64_t until,
                       int64_t now_s)
{
	return now_s < until && (card == NULL || dmtp_card_key_counts(card, key, now_s));
}

enum dmtp_card_verdict
dmtp_card_judge_auth(const struct dmtp_card *card, const struct dmtp_card_auth *a,
                     int64_t now_s, int64_t *until)
{
	const struct dmtp_card_key *found = find_key(card, a->key);

	if (found == NULL)
		return DMTP_CARD_NO_KEY;
	if (!is_valid_at(found, now_s))
		return DMTP_CARD_KEY_ENDED;
	if (!dmtp_auth_verify(a->exporter, a->client, a->server, a->signature,
	                      found->public_key))
		return DMTP_CARD_FORGED;
	*until = found->until < now_s + DMTP_PROOF_S ? found->until : now_s + DMTP_PROOF_S;
	return DMTP_CARD_GOOD;
}
