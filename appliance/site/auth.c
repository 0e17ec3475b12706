/*
 * Authorisation: see auth.h. The fast way is one look into the cache of
 * verified tokens. The slow way: the key from memory or from the store, the
 * signature on the server's or the thread aside, never on the store's.
 */
#include "site/auth.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/pickup.h"
#include "store/sites.h"
#include "web/reply.h"
#include "web/request.h"

#include <stdio.h>
#include <stdlib.h>

#define SKEW_S 60
#define LIFE_MAX_S 3600
#define OPAQUE_PREFIX "tmtp_s_"

struct kept_key {
	struct memo_item item;
	struct token_key *key;
};

/* A token on its slow way. */
struct lookup {
	struct work work;
	struct call *call;
	struct slice token;
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;     /* of the tokens' cache */
	uint64_t key_generation; /* of the keys' */
	struct token_peek peek;
	struct dmtp_address site; /* of iss */
	size_t name_len;          /* of name: iss, NUL, kid */
	uint8_t name[2 * TOKEN_NAME_MAX + 1];
	union {
		struct site_key_get key;
		struct site_token_get token;
	} job;
};

/* --- scopes and forms -------------------------------------------------------- */

unsigned
auth_scopes(const char *text)
{
	static const struct {
		const char *word;
		unsigned scope;
	} words[] = { { "push", SCOPE_PUSH },
		      { "members", SCOPE_MEMBERS },
		      { "read", SCOPE_READ } };
	unsigned scopes = 0;

	while (*text != '\0') {
		size_t len = strcspn(text, " ");

		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			if (slice_eq_str(slice_mem(text, len), words[i].word))
				scopes |= words[i].scope;
		text += len;
		text += strspn(text, " ");
	}
	return scopes;
}

bool
auth_opaque_site(struct slice token, int64_t *site_id)
{
	const size_t prefix = sizeof(OPAQUE_PREFIX) - 1, site = DMTP_SITE_TEXT - 1;
	size_t rest = prefix + site + 1;

	if (token.len < rest + 16 || token.len > rest + 64 ||
	    memcmp(token.data, OPAQUE_PREFIX, prefix) != 0 || token.data[prefix + site] != '_')
		return false;
	for (; rest < token.len; rest++)
		if (!((token.data[rest] >= 'a' && token.data[rest] <= 'z') ||
		      (token.data[rest] >= '2' && token.data[rest] <= '7')))
			return false;
	return dmtp_site_parse(slice_mem(token.data + prefix, site), site_id);
}

/* --- answers --------------------------------------------------------------------- */

static void
refuse(struct call *call, const char *reason, const char *iss, const char *detail)
{
	log_info("auth-refused", LOG_S("reason", reason), LOG_S("iss", iss),
	         LOG_S("client", web_request_peer(call->req)),
	         LOG_S("route", web_request_route(call->req)->path));
	web_request_told(call->req);
	web_reply_problem(call->req, &web_unauthorized, "%s", detail);
}

static void
refuse_suspended(struct call *call, const char *iss)
{
	log_info("auth-refused", LOG_S("reason", "suspended"), LOG_S("iss", iss),
	         LOG_S("client", web_request_peer(call->req)),
	         LOG_S("route", web_request_route(call->req)->path));
	web_request_told(call->req);
	web_reply_problem(call->req, &web_forbidden, "This site is suspended.");
}

static struct slice
copy_text(struct call *call, const char *text, size_t len)
{
	char *copy = web_request_alloc(call->req, len + 1);

	if (copy == NULL)
		return (struct slice){ NULL, 0 };
	memcpy(copy, text, len);
	copy[len] = '\0';
	return slice_mem(copy, len);
}

/* The claims are verified: who they name, then what they may. */
static void
admit(struct call *call, const struct token_claims *claims)
{
	const char *at = strchr(claims->iss, '@');
	size_t len = at == NULL ? 0 : (size_t)(at - claims->iss);

	call->who.site_id = claims->site_id;
	call->who.scopes = claims->has_scope ? auth_scopes(claims->scope) : SCOPE_ALL;
	if (at != NULL) {
		call->who.name = copy_text(call, claims->iss, len);
		call->who.domain = copy_text(call, at + 1, strlen(at + 1));
	}
	if (call->who.name.len == 0 || call->who.domain.len == 0) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	if ((call->who.scopes & call->wanted) == 0) {
		log_info("auth-refused", LOG_S("reason", "scope"), LOG_S("iss", claims->iss),
		         LOG_S("client", web_request_peer(call->req)),
		         LOG_S("route", web_request_route(call->req)->path));
		web_request_told(call->req);
		web_reply_problem(call->req, &web_forbidden,
		                  "This token's scope doesn't include it.");
		return;
	}
	call->then(call);
}

/* --- signed tokens ----------------------------------------------------------------- */

static void
kept_key_free(struct memo_item *item)
{
	struct kept_key *kept = (struct kept_key *)item;

	token_key_free(&kept->key);
	free(kept);
}

static void
refuse_token(struct lookup *l, enum token_rc rc)
{
	if (rc == TOKEN_MEMORY)
		web_reply_problem(l->call->req, &web_internal, NULL);
	else
		refuse(l->call, token_reason(rc), l->peek.iss[0] == '\0' ? NULL : l->peek.iss,
		       token_detail(rc));
}

static void
verify(struct lookup *l, const struct token_key *key)
{
	struct slice domain = dmtp_address_domain(&l->site);
	struct token_expect expect = { .aud =
		                           (const char *)domain.data, /* ends l->site's text */
		                       .now_s = clock_wall_s(),
		                       .skew_s = SKEW_S,
		                       .max_life_s = LIFE_MAX_S };
	struct token_claims claims;
	enum token_rc rc = token_verify(l->token, key, &expect, &claims);

	if (rc != TOKEN_OK) {
		refuse_token(l, rc);
	} else {
		token_cache_put(l->call->site->tokens, l->digest, &claims, l->generation);
		admit(l->call, &claims);
	}
}

static bool
parse_algorithm(const char *text, enum token_alg *out)
{
	static const char *const names[] = {
		[TOKEN_ES256] = "ES256", [TOKEN_RS256] = "RS256", [TOKEN_HS256] = "HS256"
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum token_alg)i;
			return true;
		}
	}
	return false;
}

/* The key that the store gave, checked and kept; *out is a reference. */
static enum token_rc
keep_key(struct lookup *l, struct kept_key **out)
{
	const struct site_key_get *get = &l->job.key;
	struct kept_key *kept = calloc(1, sizeof(*kept));
	enum token_rc rc = TOKEN_BAD_KEY;
	enum token_alg alg;

	if (kept == NULL)
		return TOKEN_MEMORY;
	memo_item_init(&kept->item, kept_key_free);
	if (parse_algorithm(get->algorithm, &alg))
		rc = token_key_make(alg, slice_mem(get->material, get->material_len),
		                    dmtp_address_slice(&l->site), get->site_id, &kept->key);
	if (rc != TOKEN_OK) {
		log_warn("key-unusable", LOG_S("site", l->site.text), LOG_S("kid", l->peek.kid),
		         LOG_S("reason", token_reason(rc)));
		memo_item_unref(&kept->item);
		return rc;
	}
	memo_put(l->call->site->keys, slice_mem(l->name, l->name_len), &kept->item, 1,
	         INT64_MAX, l->key_generation);
	*out = kept;
	return TOKEN_OK;
}

/* On the thread aside: the store has answered. */
static void
after_key(struct work *work)
{
	struct lookup *l = (struct lookup *)work;
	struct site_key_get *get = &l->job.key;
	struct kept_key *kept = NULL;
	enum store_rc rc = get->job.rc;
	enum token_rc token_rc = TOKEN_UNKNOWN_KEY;

	if (atomic_load(&l->call->site->stopping))
		rc = STORE_DOWN;
	if (rc == STORE_OK && !get->suspended)
		token_rc = keep_key(l, &kept);
	site_key_get_clear(get);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		site_reply_store(l->call, rc);
	else if (rc == STORE_OK && get->suspended)
		refuse_suspended(l->call, l->peek.iss);
	else if (token_rc != TOKEN_OK)
		refuse_token(l, token_rc);
	else
		verify(l, kept->key);
	if (kept != NULL)
		memo_item_unref(&kept->item);
}

static void
on_key(struct store_job *job)
{
	struct lookup *l = job->arg;

	aside_post(l->call->site->aside, &l->work);
}

static void
begin_signed(struct lookup *l)
{
	enum token_rc rc = token_peek(l->token, &l->peek);
	struct kept_key *kept;
	struct slice name;

	if (rc != TOKEN_OK) {
		refuse_token(l, rc);
		return;
	}
	if (dmtp_address_parse(slice_str(l->peek.iss), &l->site) != DMTP_ADDRESS_OK ||
	    !text_is_name(dmtp_address_local(&l->site)) ||
	    config_domain_find(l->call->site->config, dmtp_address_domain(&l->site)) == NULL) {
		refuse_token(l, TOKEN_UNKNOWN_KEY);
		return;
	}
	l->name_len = (size_t)snprintf((char *)l->name, sizeof(l->name), "%s%c%s", l->site.text,
	                               0, l->peek.kid);
	name = slice_mem(l->name, l->name_len);
	kept = (struct kept_key *)memo_get(l->call->site->keys, name, clock_mono_ms(),
	                                   &l->key_generation);
	if (kept != NULL) {
		verify(l, kept->key);
		memo_item_unref(&kept->item);
		return;
	}
	l->work.run = after_key;
	l->job.key = (struct site_key_get){ .job = { .done = on_key, .arg = l },
		                            .domain = dmtp_address_domain(&l->site),
		                            .name = dmtp_address_local(&l->site),
		                            .kid = slice_str(l->peek.kid) };
	store_site_key_get(l->call->site->store, &l->job.key);
}

/* --- opaque tokens ------------------------------------------------------------------- */

/* As claims, so that one cache serves both kinds. */
static void
admit_opaque(struct lookup *l)
{
	struct site_token_get *get = &l->job.token;
	struct token_claims claims = { .site_id = get->site_id,
		                       .has_scope = true,
		                       .exp = get->expires_us < 0 ? INT64_MAX
		                                                  : get->expires_us / 1000000 };
	int iss =
	    snprintf(claims.iss, sizeof(claims.iss), "%s@%s", get->site_name, get->site_domain);
	int scope = snprintf(claims.scope, sizeof(claims.scope), "%s", get->scopes);

	site_token_get_clear(get);
	if (iss < 0 || (size_t)iss >= sizeof(claims.iss) || scope < 0 ||
	    (size_t)scope >= sizeof(claims.scope)) {
		web_reply_problem(l->call->req, &web_internal, NULL);
		return;
	}
	token_cache_put(l->call->site->tokens, l->digest, &claims, l->generation);
	admit(l->call, &claims);
}

static void
after_token(struct work *work)
{
	struct lookup *l = (struct lookup *)work;
	struct site_token_get *get = &l->job.token;

	if (get->job.rc == STORE_OK && !get->suspended &&
	    !atomic_load(&l->call->site->stopping)) {
		admit_opaque(l);
		return;
	}
	site_token_get_clear(get);
	if (get->job.rc == STORE_NOT_FOUND)
		refuse(l->call, "unknown-token", NULL,
		       "The token isn't known, or no longer valid.");
	else if (get->job.rc == STORE_OK && get->suspended)
		refuse_suspended(l->call, NULL);
	else
		site_reply_store(l->call, get->job.rc == STORE_OK ? STORE_DOWN : get->job.rc);
}

static void
on_token(struct store_job *job)
{
	struct lookup *l = job->arg;

	aside_post(l->call->site->aside, &l->work);
}

static void
begin_opaque(struct lookup *l)
{
	int64_t site_id;

	if (!auth_opaque_site(l->token, &site_id)) {
		refuse(l->call, "malformed", NULL,
		       "The token isn't of the form that sites have.");
		return;
	}
	l->work.run = after_token;
	l->job.token = (struct site_token_get){ .job = { .done = on_token, .arg = l },
		                                .site_id = site_id,
		                                .now_us = clock_wall_us() };
	memcpy(l->job.token.hash, l->digest, sizeof(l->digest));
	store_site_token_get(l->call->site->store, &l->job.token);
}

/* --- the way in -------------------------------------------------------------------------- */

static bool
is_opaque(struct slice token)
{
	return token.len >= 5 && memcmp(token.data, "tmtp_", 5) == 0;
}

void
site_auth(struct call *call, unsigned any_of, call_step *then)
{
	uint8_t digest[TOKEN_DIGEST];
	struct token_claims claims;
	uint64_t generation = 0;
	struct lookup *l;
	struct slice token;

	call->wanted = any_of;
	call->then = then;
	if (!web_request_bearer(call->req, &token)) {
		refuse(call, "missing", NULL,
		       "Send the site's token as \"Authorization: Bearer …\".");
		return;
	}
	token_digest(token, digest);
	if (token_cache_get(call->site->tokens, digest, clock_wall_s(), &claims, &generation)) {
		admit(call, &claims);
		return;
	}
	l = web_request_alloc(call->req, sizeof(*l));
	if (l == NULL) {
		web_reply_problem(call->req, &web_internal, NULL);
		return;
	}
	memset(l, 0, sizeof(*l));
	l->call = call;
	l->token = token;
	l->generation = generation;
	memcpy(l->digest, digest, sizeof(digest));
	if (is_opaque(token))
		begin_opaque(l);
	else
		begin_signed(l);
}
