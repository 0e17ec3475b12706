/*
 * tmtpctl domain-key: the keys that sign a domain's messages and prove the
 * domain to others. The private part goes into the database and nowhere else.
 */
#include "base/clock.h"
#include "ctl/input.h"
#include "ctl/output.h"
#include "store/domain_keys.h"

#include <sodium.h>

#define VALID_FOR_S (INT64_C(3650) * 86400)
#define VALID_MAX_S (INT64_C(36500) * 86400)
#define OVERLAP_S (INT64_C(2) * 86400)
#define LIST_MAX 1000
#define KEY_TEXT 44 /* base64url of 32 octets without padding, and a NUL */

/* The domain of the first argument and --id. */
static enum ctl_exit
read_names(struct ctl *ctl, char domain[static DMTP_DOMAIN_MAX + 1], const char *id)
{
	enum ctl_exit result;

	if ((result = input_domain(ctl, ctl->args[0], domain)) != CTL_OK ||
	    (result = input_domain_is_ours(ctl, domain)) != CTL_OK)
		return result;
	return input_label(ctl, "id", id);
}

static enum ctl_exit
apply(struct ctl *ctl, struct domain_key_change *change, const char *conflict)
{
	char missing[CTL_SENTENCE_MAX];

	change->by.actor = ctl->actor;
	(void)snprintf(missing, sizeof(missing),
	               "%s has no key \"%s\"; tmtpctl domain-key list %s shows those there are",
	               change->domain, change->id, change->domain);
	return ctl_store_failed(ctl, ctl_ask(ctl, store_domain_key_change, change), missing,
	                        conflict);
}

static json_t *
key_json(const struct domain_key *k, int64_t now_us)
{
	char text[KEY_TEXT];
	const char *state = k->revoked_us >= 0      ? "revoked"
	                    : k->until_us <= now_us ? "ended"
	                    : k->retired_us >= 0    ? "retiring"
	                                            : "valid";

	(void)sodium_bin2base64(text, sizeof(text), k->public_key, sizeof(k->public_key),
	                        sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return json_pack("{s:o, s:s, s:s, s:o, s:o, s:o, s:o}", "id", output_text(k->id),
	                 "state", state, "ed25519", text, "created", output_time(k->created_us),
	                 "from", output_time(k->from_us), "until", output_time(k->until_us),
	                 "revoked", output_time(k->revoked_us));
}

/* --- make ------------------------------------------------------------------------- */

/* "k20261125-1f3a": says when, and doesn't repeat. */
static void
make_id(char out[static DOMAIN_KEY_ID], int64_t now_us)
{
	char time[32];
	uint8_t random[2];

	clock_format_rfc3339(now_us, time);
	randombytes_buf(random, sizeof(random));
	(void)snprintf(out, DOMAIN_KEY_ID, "k%.4s%.2s%.2s-%02x%02x", time, time + 5, time + 8,
	               random[0], random[1]);
}

static enum ctl_exit
store_new(struct ctl *ctl, struct domain_key *key)
{
	uint8_t seed[crypto_sign_SEEDBYTES], secret[crypto_sign_SECRETKEYBYTES];
	struct domain_key_change change = {
		.kind = DOMAIN_KEY_MAKE,
		.domain = key->domain,
		.id = key->id,
		.public_key = slice_mem(key->public_key, sizeof(key->public_key)),
		.seed = slice_mem(seed, sizeof(seed)),
		.from_us = key->from_us,
		.until_us = key->until_us,
		.now_us = key->created_us,
	};
	char taken[CTL_SENTENCE_MAX];
	enum ctl_exit result;

	randombytes_buf(seed, sizeof(seed));
	(void)crypto_sign_seed_keypair(key->public_key, secret, seed);
	(void)snprintf(
	    taken, sizeof(taken),
	    "%s has a key \"%s\" already (one that has ended keeps its id): choose another id",
	    key->domain, key->id);
	result = apply(ctl, &change, taken);
	sodium_memzero(seed, sizeof(seed));
	sodium_memzero(secret, sizeof(secret));
	return result;
}

static enum ctl_exit
domain_key_make(struct ctl *ctl)
{
	const char *valid_for = ctl_value(ctl, "valid-for"), *id = ctl_value(ctl, "id");
	struct domain_key key = { .created_us = clock_wall_us(),
		                  .retired_us = -1,
		                  .revoked_us = -1 };
	int64_t seconds = VALID_FOR_S;
	enum ctl_exit result;
	json_t *record;

	make_id(key.id, key.created_us);
	if ((result = read_names(ctl, key.domain, id != NULL ? id : key.id)) != CTL_OK)
		return result;
	if (valid_for != NULL &&
	    (result = input_duration(ctl, "valid-for", valid_for, &seconds)) != CTL_OK)
		return result;
	if (seconds <= 0 || seconds > VALID_MAX_S)
		return ctl_usage(ctl, "--valid-for takes at most 36500d, and not nothing");
	if (id != NULL)
		(void)snprintf(key.id, sizeof(key.id), "%s", id);
	/* Messages that wait were dated before the key was made: it signs them too. */
	key.from_us = key.created_us - (int64_t)DOMAIN_KEY_WAIT_S * 1000000;
	key.until_us = key.created_us + seconds * 1000000;
	if ((result = store_new(ctl, &key)) != CTL_OK)
		return result;
	record = key_json(&key, key.created_us);
	json_object_set_new(record, "domain", output_text(key.domain));
	return output_done(ctl, record,
	                   "The key \"%s\" of %s is made: it stands in the site card now, and "
	                   "signs messages once it has stood there for ten minutes (at once "
	                   "when it is the only one).",
	                   key.id, key.domain);
}

/* --- list ------------------------------------------------------------------------- */

static enum ctl_exit
domain_key_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "id", "ID" },           { "state", "STATE" }, { "ed25519", "PUBLIC KEY" },
		{ "created", "CREATED" }, { "until", "UNTIL" }, { NULL, NULL },
	};
	char domain[DMTP_DOMAIN_MAX + 1];
	struct domain_key_list list = { .limit = LIST_MAX };
	int64_t now_us = clock_wall_us();
	enum ctl_exit result;
	enum store_rc rc;
	json_t *rows;

	if ((result = input_domain(ctl, ctl->args[0], domain)) != CTL_OK ||
	    (result = input_domain_is_ours(ctl, domain)) != CTL_OK)
		return result;
	list.domain = slice_str(domain);
	rc = ctl_ask(ctl, store_domain_key_list, &list);
	if (rc != STORE_OK)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < list.rows_n; i++)
		json_array_append_new(rows, key_json(&list.rows[i], now_us));
	domain_key_list_clear(&list);
	return output_list(ctl, "keys", rows, columns,
	                   "This domain has no keys: its messages aren't signed. "
	                   "tmtpctl domain-key make makes one.");
}

/* --- retire, revoke ------------------------------------------------------------------ */

static enum ctl_exit
domain_key_retire(struct ctl *ctl)
{
	const char *id = ctl_value(ctl, "id"), *overlap = ctl_value(ctl, "overlap");
	char domain[DMTP_DOMAIN_MAX + 1], conflict[CTL_SENTENCE_MAX], when[32];
	int64_t seconds = OVERLAP_S;
	struct domain_key_change change = {
		.kind = DOMAIN_KEY_RETIRE, .domain = domain, .id = id, .now_us = clock_wall_us()
	};
	enum ctl_exit result;

	if ((result = read_names(ctl, domain, id)) != CTL_OK)
		return result;
	if (overlap != NULL &&
	    (result = input_duration(ctl, "overlap", overlap, &seconds)) != CTL_OK)
		return result;
	if (seconds < 0 || seconds > VALID_MAX_S)
		return ctl_usage(ctl, "--overlap takes at most 36500d");
	change.until_us = change.now_us + seconds * 1000000;
	(void)snprintf(conflict, sizeof(conflict), "the key \"%s\" of %s is revoked", id,
	               domain);
	if ((result = apply(ctl, &change, conflict)) != CTL_OK)
		return result;
	clock_format_rfc3339(change.until_us, when);
	return output_done(
	    ctl,
	    json_pack("{s:o, s:o, s:s, s:o}", "domain", output_text(domain), "id",
	              output_text(id), "state", "retiring", "until",
	              output_time(change.until_us)),
	    "The key \"%s\" of %s ends at %s at the latest: what is dated later is signed by "
	    "another. It stays in the site card for 400 days more.",
	    id, domain, when);
}

static enum ctl_exit
domain_key_revoke(struct ctl *ctl)
{
	const char *id = ctl_value(ctl, "id");
	char domain[DMTP_DOMAIN_MAX + 1];
	struct domain_key_change change = {
		.kind = DOMAIN_KEY_REVOKE, .domain = domain, .id = id, .now_us = clock_wall_us()
	};
	enum ctl_exit result;

	if ((result = read_names(ctl, domain, id)) != CTL_OK ||
	    (result = apply(ctl, &change, NULL)) != CTL_OK)
		return result;
	return output_done(
	    ctl,
	    json_pack("{s:o, s:o, s:s}", "domain", output_text(domain), "id", output_text(id),
	              "state", "revoked"),
	    "The key \"%s\" of %s is revoked: it has left the site card and its private part is "
	    "deleted. Others refuse it as soon as they read the card again, within five minutes.",
	    id, domain);
}

const struct ctl_command domain_key_commands[] = {
	{ .name = "domain-key make",
	  .arguments = "DOMAIN",
	  .summary = "Makes a key that signs the domain's messages.",
	  .more =
	      "An Ed25519 key. Its public part stands in the site card, "
	      "https://DOMAIN/.well-known/dmtp, its private part in the database, where only the relay "
	      "may read it. The relay signs with the newest key that has stood in the card for ten "
	      "minutes; it also proves the domain with it (AUTH) to servers that don't accept its "
	      "certificate. To rotate: make a new key, then retire the old one.",
	  .example = "tmtpctl domain-key make shop.test",
	  .options =
	      (const struct ctl_option[]){
		  { "id", "ID",
	            "the key's id, 1 to 64 characters; otherwise the day and chance", false },
		  { "valid-for", "TIME", "how long it may sign, like 365d; otherwise 3650d",
	            false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = domain_key_make },
	{ .name = "domain-key list",
	  .arguments = "DOMAIN",
	  .summary = "Shows the domain's keys, the newest first.",
	  .example = "tmtpctl domain-key list shop.test",
	  .needs = NEEDS_STORE,
	  .run = domain_key_list },
	{ .name = "domain-key retire",
	  .arguments = "DOMAIN",
	  .summary = "Ends a key after an overlap.",
	  .more =
	      "What it signed before stays good. Make its successor first: with no other key, messages "
	      "are not signed any more.",
	  .example = "tmtpctl domain-key retire shop.test --id k20261125-1f3a --overlap 2d",
	  .options =
	      (const struct ctl_option[]){
		  { "id", "ID", "the key's id", true },
		  { "overlap", "TIME", "how long it may still sign; otherwise 2d", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = domain_key_retire },
	{ .name = "domain-key revoke",
	  .arguments = "DOMAIN",
	  .summary = "Ends a key that leaked: nothing it signed counts any more.",
	  .more =
	      "It leaves the site card at once. Make its successor first: it also signs anew what still "
	      "waits to be delivered. There is no way back, and the id can't be used again.",
	  .example = "tmtpctl domain-key make shop.test\n"
	             "tmtpctl domain-key revoke shop.test --id k20261125-1f3a",
	  .options = (const struct ctl_option[]){ { "id", "ID", "the key's id", true },
	                                          { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = domain_key_revoke },
	{ .name = NULL },
};
