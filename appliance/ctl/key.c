/* tmtpctl key: the keys that verify a site's signed tokens (JWT). */
#include "ctl/credential.h"
#include "ctl/pem.h"

#include <sodium.h>

#define GENERATED_OCTETS 32
#define GENERATED_TEXT 44 /* base64url without padding, and a NUL */

/* 256 random bits as text that fits into any configuration file. The characters are the secret. */
static void
generate(struct buffer *out)
{
	uint8_t random[GENERATED_OCTETS];
	char text[GENERATED_TEXT];

	randombytes_buf(random, sizeof(random));
	(void)sodium_bin2base64(text, sizeof(text), random, sizeof(random),
	                        sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	buffer_init(out, sizeof(text));
	buffer_add(out, text, strlen(text) + 1);
	out->len--;
	sodium_memzero(random, sizeof(random));
	sodium_memzero(text, sizeof(text));
}

/* The options must fit together: one source, and the one that belongs to the algorithm. */
static enum ctl_exit
read_material(struct ctl *ctl, const char *algorithm, struct buffer *out)
{
	const char *public_key = ctl_value(ctl, "public-key");
	const char *secret = ctl_value(ctl, "secret-file");
	bool generated = ctl_value(ctl, "generate") != NULL;

	if (strcmp(algorithm, "ES256") == 0 || strcmp(algorithm, "RS256") == 0) {
		if (public_key == NULL || secret != NULL || generated)
			return ctl_usage(ctl, "%s takes --public-key and nothing else",
			                 algorithm);
		return pem_read_public(ctl, algorithm, public_key, out);
	}
	if (strcmp(algorithm, "HS256") != 0)
		return ctl_usage(ctl, "--algorithm takes ES256, RS256 or HS256");
	if (public_key != NULL || (secret != NULL) == generated)
		return ctl_usage(ctl, "HS256 takes either --secret-file or --generate");
	if (secret != NULL)
		return pem_read_secret(ctl, secret, out);
	generate(out);
	return CTL_OK;
}

static enum ctl_exit
told(struct ctl *ctl, const char *address, const char *kid, const char *algorithm,
     const char *secret)
{
	json_t *record = json_pack("{s:o, s:o, s:s, s:s}", "site", output_text(address), "kid",
	                           output_text(kid), "algorithm", algorithm, "state", "valid");
	enum ctl_exit result;

	if (secret == NULL)
		return output_done(
		    ctl, record,
		    "The key \"%s\" (%s) of %s is known. Its tokens name it as kid.", kid,
		    algorithm, address);
	json_object_set_new(record, "secret", json_string(secret));
	result = credential_show_once(
	    ctl, record, secret,
	    "The secret, shown this once (its characters as they are, not decoded):");
	return result;
}

static enum ctl_exit
key_add(struct ctl *ctl)
{
	const char *kid = ctl_value(ctl, "kid"), *algorithm = ctl_value(ctl, "algorithm");
	struct site_change change = {
		.kind = SITE_KEY_ADD, .kid = kid, .algorithm = algorithm, .expires_us = -1
	};
	struct input_site site;
	struct buffer material = { .data = NULL };
	enum ctl_exit result;

	if ((result = input_site(ctl, ctl->args[0], &site)) != CTL_OK ||
	    (result = input_label(ctl, "kid", kid)) != CTL_OK ||
	    (result = read_material(ctl, algorithm, &material)) != CTL_OK)
		return result;
	change.material = buffer_slice(&material);
	result = credential_change(ctl, &site, &change, kid);
	if (result == CTL_OK)
		result = told(ctl, site.address, kid, algorithm,
		              ctl_value(ctl, "generate") != NULL ? (const char *)material.data
		                                                 : NULL);
	input_wipe(&material);
	return result;
}

static enum ctl_exit
key_list(struct ctl *ctl)
{
	return credential_list_show(ctl, false);
}

static enum ctl_exit
key_revoke(struct ctl *ctl)
{
	return credential_revoke(ctl, false);
}

const struct ctl_command key_commands[] = {
	{ .name = "key add",
	  .arguments = "SITE",
	  .summary = "Adds a key that verifies the site's tokens (JWT).",
	  .more =
	      "The website signs JWTs with its private key and names this one in the header's kid. For "
	      "ES256 (P-256) and RS256 (RSA, at least 2048 bits) only the public key is stored; for HS256 "
	      "both sides hold one secret, whose characters are used as they are.",
	  .example =
	      "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out shop.pem\n"
	      "openssl pkey -in shop.pem -pubout |\n"
	      "    tmtpctl key add shop@shop.test --kid web1 --algorithm ES256 --public-key -\n"
	      "tmtpctl key add shop@shop.test --kid web2 --algorithm HS256 --generate",
	  .options =
	      (const struct ctl_option[]){
		  { "kid", "ID", "the key's id, 1 to 64 characters", true },
		  { "algorithm", "NAME", "ES256, RS256 or HS256", true },
		  { "public-key", "FILE", "the public key in PEM; -: standard input", false },
		  { "secret-file", "FILE", "HS256's secret, one line; -: standard input",
	            false },
		  { "generate", NULL, "make a secret for HS256 and print it, once", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = key_add },
	{ .name = "key list",
	  .arguments = "SITE",
	  .summary = "Shows the site's keys.",
	  .example = "tmtpctl key list shop@shop.test",
	  .needs = NEEDS_STORE,
	  .run = key_list },
	{ .name = "key revoke",
	  .arguments = "SITE",
	  .summary = "Ends a key: what it signed is refused within a second.",
	  .more = "There is no way back, and its id can't be used again.",
	  .example = "tmtpctl key revoke shop@shop.test --kid web1",
	  .options = (const struct ctl_option[]){ { "kid", "ID", "the key's id", true },
	                                          { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = key_revoke },
	{ .name = NULL },
};
