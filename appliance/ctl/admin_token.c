/* tmtpctl admin-token: who may call the panel's API, and what for. */
#include "ctl/credential.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/admins.h"

#include <sodium.h>

#define PREFIX "tmtp_admin_"
#define RANDOM_OCTETS 32
#define TOKEN_TEXT (sizeof(PREFIX) + BASE32_LEN(RANDOM_OCTETS))

static enum ctl_exit
apply(struct ctl *ctl, struct admin_token_change *change)
{
	char missing[CTL_SENTENCE_MAX], taken[CTL_SENTENCE_MAX];

	change->by.actor = ctl->actor;
	change->now_us = clock_wall_us();
	(void)snprintf(
	    missing, sizeof(missing),
	    "there is no administrator's token \"%s\"; tmtpctl admin-token list shows those there are",
	    change->name);
	(void)snprintf(
	    taken, sizeof(taken),
	    "there is a token \"%s\" already (a revoked one keeps its name): choose another name",
	    change->name);
	return ctl_store_failed(ctl, ctl_ask(ctl, store_admin_token_change, change), missing,
	                        taken);
}

/* "read" or "read,write"; who may write may read. */
static const char *
read_scopes(const char *text)
{
	if (strcmp(text, "read") == 0)
		return "read";
	return strcmp(text, "write") == 0 || strcmp(text, "read,write") == 0 ? "read write"
	                                                                     : NULL;
}

static void
make_token(char out[static TOKEN_TEXT])
{
	uint8_t random[RANDOM_OCTETS];

	randombytes_buf(random, sizeof(random));
	memcpy(out, PREFIX, sizeof(PREFIX));
	base32_encode(random, sizeof(random), out + sizeof(PREFIX) - 1);
	sodium_memzero(random, sizeof(random));
}

static enum ctl_exit
create(struct ctl *ctl)
{
	const char *life = ctl_value(ctl, "expires");
	struct admin_token_change change = { .kind = ADMIN_TOKEN_ADD,
		                             .name = ctl->args[0],
		                             .scopes = read_scopes(ctl_value(ctl, "scope")),
		                             .expires_us = -1 };
	char token[TOKEN_TEXT];
	int64_t seconds = 0;
	enum ctl_exit result;

	if ((result = input_label(ctl, "name", change.name)) != CTL_OK ||
	    (life != NULL &&
	     (result = input_duration(ctl, "expires", life, &seconds)) != CTL_OK))
		return result;
	if (change.scopes == NULL)
		return ctl_usage(ctl, "--scope takes read, or read,write");
	if (life != NULL)
		change.expires_us = clock_wall_us() + seconds * 1000000;
	make_token(token);
	(void)crypto_hash_sha256(change.hash, (const uint8_t *)token, strlen(token));
	result = apply(ctl, &change);
	if (result == CTL_OK)
		result = credential_show_once(
		    ctl,
		    json_pack("{s:o, s:o, s:o, s:s}", "name", output_text(change.name),
		              "scopes", output_words(change.scopes), "expires",
		              output_time(change.expires_us), "token", token),
		    token, "The token, shown this once; send it as Authorization: Bearer …");
	sodium_memzero(token, sizeof(token));
	return result;
}

static json_t *
row_json(const struct admin_token_row *row, int64_t now_us)
{
	const char *state = row->revoked_us >= 0                                ? "revoked"
	                    : row->expires_us >= 0 && row->expires_us <= now_us ? "expired"
	                                                                        : "valid";

	return json_pack("{s:o, s:o, s:s, s:o, s:o, s:o}", "name", output_text(row->name),
	                 "scopes", output_words(row->scopes), "state", state, "created",
	                 output_time(row->created_us), "expires", output_time(row->expires_us),
	                 "revoked", output_time(row->revoked_us));
}

static enum ctl_exit
list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "name", "NAME" },       { "scopes", "SCOPES" },   { "state", "STATE" },
		{ "created", "CREATED" }, { "expires", "EXPIRES" }, { "revoked", "REVOKED" },
		{ NULL, NULL },
	};
	struct admin_token_list tokens = { .rows = NULL };
	enum store_rc rc = ctl_ask(ctl, store_admin_token_list, &tokens);
	int64_t now_us = clock_wall_us();
	json_t *rows;

	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	rows = json_array();
	for (size_t i = 0; i < tokens.rows_n; i++)
		json_array_append_new(rows, row_json(&tokens.rows[i], now_us));
	admin_token_list_clear(&tokens);
	return output_list(
	    ctl, "tokens", rows, columns,
	    "No administrator has a token: tmtpctl admin-token create makes one.");
}

static enum ctl_exit
revoke(struct ctl *ctl)
{
	struct admin_token_change change = { .kind = ADMIN_TOKEN_REVOKE,
		                             .name = ctl->args[0],
		                             .expires_us = -1 };
	enum ctl_exit result = input_label(ctl, "name", change.name);

	if (result == CTL_OK)
		result = apply(ctl, &change);
	if (result != CTL_OK)
		return result;
	return output_done(
	    ctl, json_pack("{s:o, s:s}", "name", output_text(change.name), "state", "revoked"),
	    "The administrator's token \"%s\" is revoked: it is refused from now on.",
	    change.name);
}

const struct ctl_command admin_token_commands[] = {
	{ .name = "admin-token create",
	  .arguments = "NAME",
	  .summary = "Makes a token for the panel's API and prints it, once.",
	  .more = "Only its SHA-256 is stored. The name stands in the audit log. Scopes: read "
	          "(see the queue and the peers), write (retry, hold, release and drop too).",
	  .example = "tmtpctl admin-token create on-call --scope read,write --expires 90d",
	  .options =
	      (const struct ctl_option[]){
		  { "scope", "LIST", "read, or read,write", true },
		  { "expires", "TIME",
	            "how long it is valid: 90d, 12h; else until it is revoked", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = create },
	{ .name = "admin-token list",
	  .arguments = "",
	  .summary = "Shows administrators' tokens, never the tokens themselves.",
	  .example = "tmtpctl admin-token list",
	  .needs = NEEDS_STORE,
	  .run = list },
	{ .name = "admin-token revoke",
	  .arguments = "NAME",
	  .summary = "Ends an administrator's token at once.",
	  .more = "There is no way back, and its name can't be used again.",
	  .example = "tmtpctl admin-token revoke on-call",
	  .needs = NEEDS_STORE,
	  .run = revoke },
	{ .name = NULL },
};
