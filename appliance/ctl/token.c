/*
 * tmtpctl token: opaque tokens of sites, of which only the SHA-256 is stored,
 * and signed ones (JWT) for trying things out.
 */
#include "ctl/credential.h"
#include "ctl/jwt.h"

#include "base/clock.h"
#include "base/text.h"

#include <sodium.h>

#define RANDOM_OCTETS 20
#define TOKEN_TEXT                                           \
	(7 + BASE32_LEN(8) + 1 + BASE32_LEN(RANDOM_OCTETS) + \
	 1) /* "tmtp_s_" site "_" random NUL */
#define SCOPES_TEXT 64
#define JWT_LIFE_MAX_S 3600 /* what the site role accepts */

/* --- Scopes --------------------------------------------------------------- */

static const char *const scope_names[] = { "push", "members", "read" };
#define SCOPES (sizeof(scope_names) / sizeof(scope_names[0]))

static bool
find_scope(struct slice word, unsigned *bits)
{
	for (unsigned i = 0; i < SCOPES; i++) {
		if (slice_eq_str(word, scope_names[i])) {
			*bits |= 1U << i;
			return true;
		}
	}
	return false;
}

/* "push,read" to "push read", in the table's order, each once. */
static enum ctl_exit
read_scopes(struct ctl *ctl, const char *text, char out[static SCOPES_TEXT])
{
	unsigned bits = 0;
	size_t len = 0;

	for (const char *p = text;; p++) {
		struct slice word = slice_mem(p, strcspn(p, ", "));

		if (!find_scope(word, &bits))
			return ctl_usage(
			    ctl,
			    "--scope takes push, members and read, with commas between them");
		p += word.len;
		if (*p == '\0')
			break;
	}
	for (unsigned i = 0; i < SCOPES; i++)
		if ((bits & 1U << i) != 0)
			len += (size_t)snprintf(out + len, SCOPES_TEXT - len, "%s%s",
			                        len > 0 ? " " : "", scope_names[i]);
	return CTL_OK;
}

/* --- Opaque tokens -------------------------------------------------------- */

/* The site's number stands in it, so that looking it up asks one site's rows. */
static void
make_token(int64_t site_id, char out[static TOKEN_TEXT])
{
	uint8_t site[8], random[RANDOM_OCTETS];
	size_t len = 7 + BASE32_LEN(sizeof(site));

	for (unsigned i = 0; i < sizeof(site); i++)
		site[i] = (uint8_t)((uint64_t)site_id >> (56 - 8 * i));
	randombytes_buf(random, sizeof(random));
	/* NOLINTNEXTLINE(bugprone-not-null-terminated-result): base32_encode ends it */
	memcpy(out, "tmtp_s_", 7);
	base32_encode(site, sizeof(site), out + 7);
	out[len] = '_';
	base32_encode(random, sizeof(random), out + len + 1);
	sodium_memzero(random, sizeof(random));
}

static enum ctl_exit
store_token(struct ctl *ctl, const struct input_site *site, const char *name,
            const char *scopes, int64_t expires_us, const char *token)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	struct site_change change = {
		.kind = SITE_TOKEN_ADD,
		.label = name,
		.scopes = scopes,
		.material = slice_mem(hash, sizeof(hash)),
		.expires_us = expires_us,
	};

	(void)crypto_hash_sha256(hash, (const uint8_t *)token, strlen(token));
	return credential_change(ctl, site, &change, name);
}

static enum ctl_exit
token_create(struct ctl *ctl)
{
	const char *name = ctl_value(ctl, "name"), *life = ctl_value(ctl, "expires");
	char token[TOKEN_TEXT], scopes[SCOPES_TEXT];
	int64_t site_id, seconds = 0, expires_us = -1;
	struct input_site site;
	enum ctl_exit result;

	if ((result = input_label(ctl, "name", name)) != CTL_OK ||
	    (result = read_scopes(ctl, ctl_value(ctl, "scope"), scopes)) != CTL_OK ||
	    (life != NULL &&
	     (result = input_duration(ctl, "expires", life, &seconds)) != CTL_OK) ||
	    (result = find_site_id(ctl, ctl->args[0], &site, &site_id)) != CTL_OK)
		return result;
	if (life != NULL)
		expires_us = clock_wall_us() + seconds * 1000000;
	make_token(site_id, token);
	result = store_token(ctl, &site, name, scopes, expires_us, token);
	if (result == CTL_OK)
		result = credential_show_once(
		    ctl,
		    json_pack("{s:o, s:o, s:o, s:o, s:s}", "site", output_text(site.address),
		              "name", output_text(name), "scopes", output_words(scopes),
		              "expires", output_time(expires_us), "token", token),
		    token, "The token, shown this once; send it as Authorization: Bearer …");
	sodium_memzero(token, sizeof(token));
	return result;
}

static enum ctl_exit
token_list(struct ctl *ctl)
{
	return credential_list_show(ctl, true);
}

static enum ctl_exit
token_revoke(struct ctl *ctl)
{
	return credential_revoke(ctl, true);
}

/* --- Signed tokens -------------------------------------------------------- */

static enum ctl_exit
read_signer(struct ctl *ctl, struct pem_signer **signer)
{
	const char *key = ctl_value(ctl, "key"), *secret = ctl_value(ctl, "secret-file");

	if ((key != NULL) == (secret != NULL))
		return ctl_usage(ctl, "token jwt takes either --key or --secret-file");
	return key != NULL ? pem_read_signer(ctl, key, signer)
	                   : pem_read_secret_signer(ctl, secret, signer);
}

static enum ctl_exit
sign(struct ctl *ctl, const struct pem_signer *signer, const struct input_site *site,
     int64_t life_s, const char *scopes)
{
	int64_t now_s = clock_wall_s();
	json_t *claims = json_pack("{s:o, s:o, s:I, s:I}", "iss", output_text(site->address),
	                           "aud", output_text(site->domain), "iat", (json_int_t)now_s,
	                           "exp", (json_int_t)now_s + life_s);
	struct buffer jwt;
	bool ok;

	if (scopes != NULL)
		json_object_set_new(claims, "scope", output_text(scopes));
	ok = jwt_make(signer, ctl_value(ctl, "kid"), claims, &jwt);
	json_decref(claims);
	if (ok && ctl->json)
		output_json(json_pack("{s:s, s:o}", "token", (const char *)jwt.data, "expires",
		                      output_time((now_s + life_s) * 1000000)));
	else if (ok)
		printf("%s\n", (const char *)jwt.data);
	input_wipe(&jwt);
	return ok ? CTL_OK
	          : ctl_fail(ctl, CTL_REFUSED, "bad-key", "signing failed: can this key sign?");
}

static enum ctl_exit
token_jwt(struct ctl *ctl)
{
	const char *life = ctl_value(ctl, "expires"), *scope = ctl_value(ctl, "scope");
	char scopes[SCOPES_TEXT];
	struct pem_signer *signer = NULL;
	int64_t life_s = 600;
	struct input_site site;
	enum ctl_exit result;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_label(ctl, "kid", ctl_value(ctl, "kid"))) != CTL_OK ||
	    (scope != NULL && (result = read_scopes(ctl, scope, scopes)) != CTL_OK) ||
	    (life != NULL &&
	     (result = input_duration(ctl, "expires", life, &life_s)) != CTL_OK))
		return result;
	if (life_s > JWT_LIFE_MAX_S)
		return ctl_usage(ctl, "--expires is at most 1h: longer ones are refused");
	if ((result = read_signer(ctl, &signer)) == CTL_OK)
		result = sign(ctl, signer, &site, life_s, scope != NULL ? scopes : NULL);
	pem_signer_free(&signer);
	return result;
}

const struct ctl_command token_commands[] = {
	{ .name = "token create",
	  .arguments = "SITE",
	  .summary = "Makes an opaque token for the site and prints it, once.",
	  .more =
	      "Only its SHA-256 is stored. Scopes: push (send messages), members (register and remove "
	      "members), read (see what became of messages).",
	  .example =
	      "tmtpctl token create shop@shop.test --name backend --scope push,read --expires 90d",
	  .options =
	      (const struct ctl_option[]){
		  { "name", "NAME", "what it is for, 1 to 64 characters", true },
		  { "scope", "LIST", "of push, members, read, with commas", true },
		  { "expires", "TIME",
	            "how long it is valid: 90d, 12h; else until it is revoked", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = token_create },
	{ .name = "token list",
	  .arguments = "SITE",
	  .summary = "Shows the site's tokens, never the tokens themselves.",
	  .example = "tmtpctl token list shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = token_list },
	{ .name = "token revoke",
	  .arguments = "SITE",
	  .summary = "Ends a token: it is refused within a second.",
	  .more = "There is no way back, and its name can't be used again.",
	  .example = "tmtpctl token revoke shop@shop.test --name backend",
	  .options = (const struct ctl_option[]){ { "name", "NAME", "the token's name", true },
	                                          { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = token_revoke },
	{ .name = "token jwt",
	  .arguments = "SITE",
	  .summary = "Signs a JWT as the website would, to try things out.",
	  .more =
	      "Needs neither the configuration nor the database. The algorithm is the key's own: ES256 for P-256, "
	      "RS256 for RSA, HS256 for a secret.",
	  .example =
	      "curl -H \"Authorization: Bearer $(tmtpctl token jwt shop@shop.test --kid web1 --key shop.pem)\" \\\n"
	      "    https://shop.test/v1/channels",
	  .options =
	      (const struct ctl_option[]){
		  { "kid", "ID", "the key's id, as in key add", true },
		  { "key", "FILE", "the private key in PEM; -: standard input", false },
		  { "secret-file", "FILE", "HS256's secret, one line; -: standard input",
	            false },
		  { "expires", "TIME", "how long it is valid, at most 1h (10m)", false },
		  { "scope", "LIST", "of push, members, read; else all", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_NOTHING,
	  .run = token_jwt },
	{ .name = NULL },
};
