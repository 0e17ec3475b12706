/*
 * The site card: GET /.well-known/dmtp, without a token. The Host header says
 * whose. It is made from the configuration and the domain's keys, and kept
 * until something changes or a key may have ended.
 */
#include "site/handlers.h"
#include "site/owners.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "dmtp/card.h"
#include "dmtp/message.h"
#include "store/domain_keys.h"
#include "web/reply.h"

#include <stdlib.h>

#define KEEP_MS 60000
/* Short, so that a leaked key leaves soon; home servers keep a card for no less. */
#define CACHE_CONTROL "public, max-age=300"

struct kept_card {
	struct memo_item item;
	struct buffer text;
	char etag[BASE32_LEN(32) + 3];
};

struct card_call {
	struct call call; /* first; speaks for nobody */
	struct owner owner;
	uint64_t generation;
	struct domain_key_list list;
};

static void
kept_free(struct memo_item *item)
{
	struct kept_card *kept = (struct kept_card *)item;

	buffer_free(&kept->text);
	free(kept);
}

/* --- What it says --------------------------------------------------------------- */

/* The host of "https://host[:port][/path]"; an address is no host that a card could name. */
static void
add_host(struct dmtp_card *card, const char *url, const char *domain)
{
	const char *host = strstr(url, "://") + 3;
	struct slice name = slice_mem(host, strcspn(host, ":/"));

	if (!dmtp_domain_valid(name) || slice_eq_str(name, domain) ||
	    dmtp_card_has_host(card, name))
		return;
	card->hosts[card->hosts_n] = strndup(host, name.len);
	card->hosts_n += card->hosts[card->hosts_n] != NULL;
}

/* Every URL that a notification of this domain may name: see relay/delivery.c. */
static bool
fill_hosts(struct dmtp_card *card, const struct config_site *site, const char *domain)
{
	card->hosts = calloc(site->message_hosts.count + 1, sizeof(*card->hosts));
	if (card->hosts == NULL)
		return false;
	for (size_t i = 0; i < site->message_hosts.count && card->hosts_n < DMTP_CARD_HOSTS - 1;
	     i++)
		add_host(card, site->message_hosts.items[i], domain);
	add_host(card, site->http.url, domain);
	return true;
}

static bool
fill_keys(struct dmtp_card *card, const struct domain_key_list *list, int64_t now_us)
{
	card->keys = calloc(list->rows_n + 1, sizeof(*card->keys));
	if (card->keys == NULL)
		return false;
	for (size_t i = 0; i < list->rows_n; i++) {
		const struct domain_key *row = &list->rows[i];
		struct dmtp_card_key *key = &card->keys[card->keys_n++];

		(void)snprintf(key->id, sizeof(key->id), "%s", row->id);
		memcpy(key->public_key, row->public_key, sizeof(key->public_key));
		key->from = row->from_us / 1000000;
		key->until = row->until_us / 1000000;
		card->signed_only = card->signed_only || row->until_us > now_us;
	}
	return true;
}

static char *
copy_or_null(const char *text)
{
	return text == NULL ? NULL : strdup(text);
}

/* To demand signatures that nobody can make would be to refuse everything. */
static bool
encode(struct card_call *c, struct buffer *out)
{
	const struct owner *d = &c->owner;
	struct dmtp_card *card = dmtp_card_make();
	bool good;

	if (card == NULL)
		return false;
	card->name = strdup(d->title != NULL ? d->title : d->domain);
	card->icon = copy_or_null(d->icon);
	good = card->name != NULL && fill_hosts(card, &c->call.site->config->site, d->domain) &&
	       fill_keys(card, &c->list, clock_wall_us());
	if (d->signed_only && !card->signed_only)
		log_warn(
		    "card-unsigned", LOG_S("domain", d->domain),
		    LOG_S("reason",
		          "signatures are configured, but the domain has no key that signs: "
		          "tmtpctl domain-key make"));
	card->signed_only = card->signed_only && d->signed_only;
	good = good && dmtp_card_encode(card, out);
	dmtp_card_free(&card);
	return good;
}

static struct kept_card *
make(struct card_call *c)
{
	struct kept_card *kept = calloc(1, sizeof(*kept));
	uint8_t digest[DMTP_DIGEST_LEN];

	if (kept == NULL)
		return NULL;
	memo_item_init(&kept->item, kept_free);
	buffer_init(&kept->text, DMTP_CARD_MAX);
	if (!encode(c, &kept->text) || !dmtp_digest(buffer_slice(&kept->text), digest)) {
		memo_item_unref(&kept->item);
		return NULL;
	}
	kept->etag[0] = '"';
	base32_encode(digest, sizeof(digest), kept->etag + 1);
	kept->etag[1 + BASE32_LEN(32)] = '"';
	kept->etag[2 + BASE32_LEN(32)] = '\0';
	return kept;
}

/* --- Answers ---------------------------------------------------------------------- */

static void
card_done(void *owner)
{
	memo_item_unref(owner);
}

/* Takes a reference to kept. */
static void
reply_card(struct web_request *req, struct kept_card *kept)
{
	const struct web_object object = {
		.content_type = "application/json",
		.cache_control = CACHE_CONTROL,
		.etag = kept->etag,
		.data = kept->text.data,
		.len = kept->text.len,
		.free_data = card_done,
		.owner = &kept->item,
	};

	web_reply_object(req, &object);
}

/* Everything of the call is given back before the reply, which ends it. */
static void
on_keys(struct store_job *job)
{
	struct card_call *c = job->arg;
	struct web_request *req = c->call.req;
	struct kept_card *kept = NULL;

	if (job->rc == STORE_OK)
		kept = make(c);
	domain_key_list_clear(&c->list);
	if (kept != NULL)
		memo_put(c->call.site->cards, slice_str(c->owner.domain), &kept->item, 1,
		         clock_mono_ms() + KEEP_MS, c->generation);
	owner_clear(&c->owner);
	if (kept != NULL)
		reply_card(req, kept);
	else if (job->rc != STORE_OK)
		site_reply_store(&c->call, job->rc);
	else
		web_reply_problem(req, &web_internal, NULL);
}

/* Host is "shop.test" or "shop.test:8443", in any case. */
static bool
find_asked(struct web_request *req, struct owners *owners, struct owner *out)
{
	char name[DMTP_DOMAIN_MAX + 1];
	struct slice host;
	size_t n = 0;

	if (!web_request_header(req, "Host", &host))
		return false;
	for (; n < host.len && host.data[n] != ':'; n++) {
		uint8_t c = host.data[n];

		if (n == DMTP_DOMAIN_MAX)
			return false;
		name[n] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
	}
	return owners_find(owners, slice_mem(name, n), out);
}

void
on_card(struct web_request *req, void *arg)
{
	struct site *site = arg;
	struct card_call *c = site_begin(req, arg, sizeof(*c));
	struct kept_card *kept;

	if (c == NULL)
		return;
	if (!find_asked(req, site->owners, &c->owner)) {
		web_reply_problem(req, &web_not_found, NULL);
		return;
	}
	kept = (struct kept_card *)memo_get(site->cards, slice_str(c->owner.domain),
	                                    clock_mono_ms(), &c->generation);
	if (kept != NULL) {
		owner_clear(&c->owner);
		reply_card(req, kept);
		return;
	}
	c->list = (struct domain_key_list){
		.job = { .done = on_keys, .arg = c },
		.domain = slice_str(c->owner.domain),
		.ended_after_us = clock_wall_us() - (int64_t)DOMAIN_KEY_SHOWN_S * 1000000,
		.limit = DMTP_CARD_KEYS,
	};
	store_domain_key_list(site->store, &c->list);
}
