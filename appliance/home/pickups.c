/* Pickup: see pickups.h. */
#include "home/pickups.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memo.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "dmtp/pickup.h"
#include "dmtp/uri.h"
#include "home/copies.h"
#include "home/judge.h"
#include "home/live.h"
#include "home/origins.h"
#include "home/resume.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include "base/hash.h"

#define LOOK_EVERY_MS 5000
#define CLAIM_MAX 200
#define URIS_MAX JUDGE_URIS
#define ACCOUNTS_MAX \
	4096 /* remembered for live push; beyond it the store is asked who has an entry */
#define WATCHED_MAX 20000
#define KEPT_MAX 64 /* verified messages kept for recipients who come right after */
#define KEPT_OCTETS ((size_t)8 << 20)
#define RETRY_FIRST_S 5
#define RETRY_MAX_S 3600
#define WRONG_MAX 3   /* complete answers that failed verification */
#define DOWN_MS 30000 /* a host that could not be reached is asked after the others */
#define DOWN_MAX 1000
#define CARD_RETRY_S 65 /* a site card is fetched at most once a minute */
#define CARD_AGAIN_S 6  /* and one that didn't come, every five seconds */

METRIC_DEFINE(verified_total, METRIC_COUNTER, "tmtp_pickup_messages_total",
              "result=\"verified\"", "Messages by how their pickup ended.");
METRIC_DEFINE(failed_total, METRIC_COUNTER, "tmtp_pickup_messages_total", "result=\"failed\"",
              "Messages by how their pickup ended.");
METRIC_DEFINE(withdrawn_total, METRIC_COUNTER, "tmtp_pickup_messages_total",
              "result=\"withdrawn\"", "Messages by how their pickup ended.");
METRIC_DEFINE(again_total, METRIC_COUNTER, "tmtp_pickup_messages_total", "result=\"again\"",
              "Messages by how their pickup ended.");

METRIC_DEFINE(delayed_total, METRIC_COUNTER, "tmtp_pickups_delayed_total", NULL,
              "Messages to many whose pickup waited a random moment.");

#define REFUSED(var, reason)                                                   \
	METRIC_DEFINE(var, METRIC_COUNTER, "tmtp_notifications_refused_total", \
	              "reason=\"" reason "\"",                                 \
	              "Notifications that are not their sender's, by why.")
REFUSED(refused_mismatch, "mismatch");
REFUSED(refused_certificate, "certificate");
REFUSED(refused_address, "address");

/* One message on its way in; kept for a while after it was verified. */
struct pick {
	struct pickups *pickups;
	struct pickup info; /* owned */
	char *uris[URIS_MAX];
	size_t uris_n, at;
	uint32_t left;  /* bits of URIs that are still to be tried */
	unsigned wrong; /* URIs whose answer failed verification */
	bool gone;      /* the sender's own domain says 410 */
	bool never;     /* what is wrong stays so */
	struct judge judge;
	int64_t wait_s; /* at least, before it is tried again */
	char reason[NET_TEXT];
	char host[DMTP_DOMAIN_MAX +
	          1]; /* of the URI that was tried last; the rest of it is a secret */
	struct fetch *fetch;
	uint8_t *body;
	size_t size;
	struct loop_timer start; /* when many others fetch it as well */
	bool done;
	bool differs; /* not all members read the same */
	int64_t only_account, verified_us;
	int64_t invited; /* the account of an invitation, or 0 */
	int64_t *accounts;
	size_t accounts_n, accounts_cap;
	bool accounts_over;
	struct dmtp_address only; /* whom alone the message names */
	struct pickup_finish finish;
	struct copies_announce *announce;
	struct home_later later;
	TAILQ_ENTRY(pick) kept;
	UT_hash_handle hh;
};

struct pickups {
	struct home *home;
	struct pick *picks;
	TAILQ_HEAD(kept_picks, pick) kept;
	size_t kept_n, kept_octets, under_way;
	struct memo *down; /* hosts, by the sender's domain that named them */
	struct resume *resume;
	struct loop_timer look;
	struct pickup_claim claim;
	struct home_later later;
	bool looking;
};

struct holders_call {
	struct arrival_holders job; /* first */
	struct home_later later;
	struct pickups *pickups;
	int64_t *ask;
};

static void fetch_next(struct pick *p);
static void on_start(struct loop_timer *timer);

/* --- A pick ------------------------------------------------------------------------ */

static void
pick_free(struct pick *p)
{
	loop_timer_cancel(&p->start);
	fetch_cancel(&p->fetch);
	judge_cancel(&p->judge);
	copies_announce_cancel(&p->announce);
	pickup_clear(&p->info);
	for (size_t i = 0; i < p->uris_n; i++)
		free(p->uris[i]);
	free(p->body);
	free(p->accounts);
	free(p);
}

static struct pick *
pick_find(struct pickups *pickups, const struct uuid *id)
{
	struct pick *p;

	HASH_FIND(hh, pickups->picks, id, sizeof(*id), p);
	return p;
}

static void
drop_oldest_kept(struct pickups *pickups)
{
	struct pick *p = TAILQ_FIRST(&pickups->kept);

	TAILQ_REMOVE(&pickups->kept, p, kept);
	pickups->kept_n--;
	pickups->kept_octets -= p->size;
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): what is kept stands in picks */
	HASH_DEL(pickups->picks, p);
	pick_free(p);
}

static void
pick_keep(struct pick *p)
{
	struct pickups *pickups = p->pickups;

	TAILQ_INSERT_TAIL(&pickups->kept, p, kept);
	pickups->kept_n++;
	pickups->kept_octets += p->size;
	while (pickups->kept_n > KEPT_MAX || pickups->kept_octets > KEPT_OCTETS)
		drop_oldest_kept(pickups);
}

static void
split_uris(struct pick *p)
{
	char *at = p->info.uris, *word;

	while ((word = strsep(&at, "\n")) != NULL && p->uris_n < URIS_MAX)
		if (*word != '\0' && (p->uris[p->uris_n] = strdup(word)) != NULL)
			p->uris_n++;
	p->left = (uint32_t)((UINT64_C(1) << p->uris_n) - 1);
}

/* Takes what info owns. NULL: no memory; its lease runs out and it comes again. */
static struct pick *
pick_begin(struct pickups *pickups, struct pickup *info)
{
	struct pick *p = pick_find(pickups, &info->notification_id);

	if (p != NULL) { /* leased again while it was still under way here */
		pickup_clear(info);
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		pickup_clear(info);
		return NULL;
	}
	p->pickups = pickups;
	p->info = *info;
	*info = (struct pickup){ .sender = NULL };
	loop_timer_init(&p->start, pickups->home->loop, on_start, p);
	split_uris(p);
	HASH_ADD(hh, pickups->picks, info.notification_id, sizeof(p->info.notification_id), p);
	pickups->under_way++;
	return p;
}

static void
add_accounts(struct pick *p, const int64_t *accounts, size_t n)
{
	if (n == 0 || p->accounts_over)
		return;
	if (p->accounts_n + n > ACCOUNTS_MAX) {
		p->accounts_over = true;
		return;
	}
	if (p->accounts_n + n > p->accounts_cap) {
		size_t cap = p->accounts_cap * 2 > p->accounts_n + n ? p->accounts_cap * 2
		                                                     : p->accounts_n + n;
		int64_t *more = realloc(p->accounts, cap * sizeof(*more));

		if (more == NULL) {
			p->accounts_over = true;
			return;
		}
		p->accounts = more;
		p->accounts_cap = cap;
	}
	memcpy(p->accounts + p->accounts_n, accounts, n * sizeof(*accounts));
	p->accounts_n += n;
}

/* Members have values of their own, or other entries that it takes the place of. */
static bool
differs(const struct arrival *a)
{
	bool found = a->replaces.len > 0;

	for (size_t i = 0; i < a->rcpts_n && !found; i++)
		found = a->rcpts[i].vars.len > 0;
	return found;
}

static void
add_recipients(struct pick *p, const struct arrival *a)
{
	p->differs = p->differs || differs(a);
	add_accounts(p, a->accounts, a->accounts_n);
}

/* --- Showing ------------------------------------------------------------------------- */

static void
show(struct pick *p, int64_t arrived_us, const int64_t *accounts, size_t n)
{
	struct live_entry entry = {
		.notification_id = p->info.notification_id,
		.sender = slice_str(p->info.sender),
		.channel = slice_str(p->info.channel),
		.date_s = p->info.date_s,
		.arrived_us = arrived_us > p->verified_us ? arrived_us : p->verified_us,
		.body = slice_mem(p->body, p->size),
		.differs = p->differs,
	};

	if (p->only_account == 0) {
		live_arrived(p->pickups->home->live, &entry, accounts, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (accounts[i] == p->only_account)
			live_arrived(p->pickups->home->live, &entry, &accounts[i], 1);
}

static void
on_holders(void *arg)
{
	struct holders_call *c = arg;
	struct pick *p = pick_find(c->pickups, &c->job.notification_id);

	if (c->job.job.rc == STORE_OK && p != NULL)
		show(p, p->verified_us, c->job.accounts, c->job.accounts_n);
	arrival_holders_clear(&c->job);
	free(c->ask);
	free(c);
}

/* More recipients than were remembered: the store knows who of those that watch is one. */
static void
show_holders(struct pick *p)
{
	struct home *home = p->pickups->home;
	struct holders_call *c = calloc(1, sizeof(*c));

	if (c == NULL || (c->ask = malloc(WATCHED_MAX * sizeof(*c->ask))) == NULL) {
		free(c);
		return;
	}
	c->pickups = p->pickups;
	c->job.notification_id = p->info.notification_id;
	c->job.ask = c->ask;
	c->job.ask_n = live_accounts(home->live, c->ask, WATCHED_MAX);
	home_later(&c->later, home, &c->job.job, on_holders, c);
	store_arrival_holders(home->store, &c->job);
}

/* What was fetched and is all right, but for whom it is to. */
static void
tell_unseen(const struct pick *p)
{
	char id[UUID_TEXT];

	uuid_format(&p->info.notification_id, id);
	log_warn(
	    "message-unseen", LOG_S("sender", p->info.sender), LOG_S("notification", id),
	    LOG_S("reason", "its \"to\" is neither the channel nor a member who was sent it"));
}

/* --- The end of a pickup ---------------------------------------------------------------- */

static void
on_finished(void *arg)
{
	struct pick *p = arg;
	struct pickups *pickups = p->pickups;
	bool verified = p->finish.end == PICKUP_VERIFIED && p->finish.job.rc == STORE_OK &&
	                p->finish.only_account >= 0;

	pickups->under_way--;
	if (p->finish.job.rc != STORE_OK && p->finish.job.rc != STORE_NOT_FOUND)
		log_warn("pickup-unrecorded", LOG_S("sender", p->info.sender),
		         LOG_S("reason", store_rc_text(p->finish.job.rc)));
	if (p->finish.job.rc == STORE_OK && p->finish.unseen)
		tell_unseen(p);
	if (!verified) {
		HASH_DEL(pickups->picks, p);
		pick_free(p);
		return;
	}
	metric_add(&verified_total, 1);
	resume_worked(pickups->resume, dmtp_domain_of(slice_str(p->info.sender)),
	              p->info.attempts > 0);
	p->done = true;
	p->only_account = p->finish.only_account;
	p->verified_us = p->finish.now_us;
	if (p->invited != 0) {
		live_invited(pickups->home->live, p->invited);
	} else if (p->accounts_over || p->accounts_n == 0) {
		if (live_any(pickups->home->live))
			show_holders(p);
	} else {
		show(p, p->verified_us, p->accounts, p->accounts_n);
	}
	pick_keep(p);
}

static void
finish(struct pick *p, enum pickup_end end)
{
	struct home *home = p->pickups->home;

	p->finish.notification_id = p->info.notification_id;
	p->finish.end = end;
	p->finish.reason = p->reason;
	p->finish.now_us = clock_wall_us();
	p->finish.job.patience_ms = 60000;
	home_later(&p->later, home, &p->finish.job, on_finished, p);
	store_pickup_finish(home->store, &p->finish);
}

static bool
is_over(const struct pick *p, int64_t now_us)
{
	return (p->info.expires_us >= 0 && p->info.expires_us <= now_us) ||
	       p->info.date_s * 1000000 + (int64_t)DMTP_PAST_S * 1000000 <= now_us;
}

/* No URI gave the message: again later, unless it never will. */
static void
put_off(struct pick *p)
{
	int64_t now = clock_wall_us();
	int64_t wait_s = RETRY_FIRST_S;
	int attempts = p->info.attempts;

	char id[UUID_TEXT];

	uuid_format(&p->info.notification_id, id);
	log_warn("pickup-failed", LOG_S("sender", p->info.sender), LOG_S("notification", id),
	         LOG_S("host", p->host), LOG_S("reason", p->reason),
	         LOG_I("attempts", attempts + 1));
	if (p->gone) {
		metric_add(&withdrawn_total, 1);
		finish(p, PICKUP_WITHDRAWN);
		return;
	}
	if (p->never || (p->wrong == p->uris_n && attempts + 1 >= WRONG_MAX) ||
	    p->uris_n == 0 || is_over(p, now)) {
		metric_add(&failed_total, 1);
		finish(p, PICKUP_FAILED);
		return;
	}
	metric_add(&again_total, 1);
	resume_failed(p->pickups->resume, dmtp_domain_of(slice_str(p->info.sender)));
	while (attempts-- > 0 && wait_s < RETRY_MAX_S)
		wait_s *= 2;
	if (wait_s < p->wait_s)
		wait_s = p->wait_s;
	p->finish.not_before_us = now + (wait_s < RETRY_MAX_S ? wait_s : RETRY_MAX_S) * 1000000;
	finish(p, PICKUP_AGAIN);
}

/* --- Verifying ------------------------------------------------------------------------------ */

/* Is "to" the channel's address? Else it must be one member's, who then is the only one to see it. */
static bool
is_to_channel(const struct pick *p, struct slice to)
{
	struct dmtp_address sender, channel;

	return dmtp_address_parse(slice_str(p->info.sender), &sender) == DMTP_ADDRESS_OK &&
	       dmtp_address_make(slice_str(p->info.channel), dmtp_address_local(&sender),
	                         dmtp_address_domain(&sender), &channel) == DMTP_ADDRESS_OK &&
	       slice_eq(dmtp_address_slice(&channel), to);
}

static enum dmtp_message_rc
verify(struct pick *p, struct slice body, struct dmtp_address *only)
{
	struct dmtp_message m;
	struct dmtp_expected expected = {
		.size = p->info.size,
		.digest = slice_mem(p->info.digest, sizeof(p->info.digest)),
		.from = slice_str(p->info.sender),
		.date = p->info.date_s,
	};
	enum dmtp_message_rc rc;

	only->len = 0;
	rc = dmtp_message_decode(body, &m);
	/* A wrong form of what has the right digest is the sender's fault, one of another digest the store's:
	 * dmtp_message_check tells them apart, in the right order. */
	expected.to = rc == DMTP_MESSAGE_OK ? m.to : expected.from;
	if (p->info.recipient != NULL)
		expected.to = slice_str(p->info.recipient);
	rc = dmtp_message_check(body, &expected, &m);
	if (rc != DMTP_MESSAGE_OK || p->info.recipient != NULL || is_to_channel(p, m.to))
		return rc;
	if (dmtp_address_parse(m.to, only) != DMTP_ADDRESS_OK)
		return DMTP_MESSAGE_TO;
	return DMTP_MESSAGE_OK;
}

static void
on_announced(void *arg, bool stored)
{
	struct pick *p = arg;

	p->announce = NULL;
	if (stored) {
		finish(p, PICKUP_VERIFIED);
		return;
	}
	(void)snprintf(p->reason, sizeof(p->reason), "the database doesn't answer");
	put_off(p);
}

static void
accept_body(struct pick *p, struct slice body, const struct dmtp_address *only)
{
	p->body = malloc(body.len);
	if (p->body == NULL) {
		(void)snprintf(p->reason, sizeof(p->reason), "out of memory");
		put_off(p);
		return;
	}
	memcpy(p->body, body.data, body.len);
	p->size = body.len;
	p->finish.body = slice_mem(p->body, p->size);
	if (only->len > 0) {
		p->only = *only; /* the job borrows it */
		p->finish.only_name = dmtp_address_local(&p->only);
		p->finish.only_domain = dmtp_address_domain(&p->only);
	}
	/* Before it is shown, so that nothing is forgotten: this waits for a commit, and no more. */
	if (p->info.recipient != NULL ||
	    !copies_announce(p->pickups->home->copies, &p->info.notification_id, p->finish.body,
	                     &p->announce, on_announced, p))
		finish(p, PICKUP_VERIFIED);
}

/* --- Fetching --------------------------------------------------------------------------------- */

static void
count_refusal(enum fetch_rc rc)
{
	if (rc == FETCH_TOO_LARGE)
		metric_add(&refused_mismatch, 1);
	else if (rc == FETCH_UNVERIFIED)
		metric_add(&refused_certificate, 1);
	else if (rc == FETCH_BLOCKED)
		metric_add(&refused_address, 1);
}

/*
 * A host that is down costs seconds each time, so for a while the others come first. It is
 * remembered for the domain whose messages it has: one domain can't speak for another's hosts.
 * What an HTTP status says is about the message.
 */
static bool
says_down(enum fetch_rc rc)
{
	return rc == FETCH_RESOLVE || rc == FETCH_CONNECT || rc == FETCH_UNVERIFIED ||
	       rc == FETCH_TIMEOUT || rc == FETCH_BROKEN;
}

static struct slice
down_key(const struct pick *p, size_t at, char key[static MEMO_KEY_MAX])
{
	struct slice domain = dmtp_domain_of(slice_str(p->info.sender));
	struct dmtp_uri uri = { .port = 0 };
	int n;

	(void)dmtp_uri_split(slice_str(p->uris[at]), &uri);
	n = snprintf(key, MEMO_KEY_MAX, "%.*s %.*s:%u", (int)domain.len,
	             (const char *)domain.data, (int)uri.host.len, (const char *)uri.host.data,
	             uri.port);
	return slice_mem(key, n < MEMO_KEY_MAX ? (size_t)n : MEMO_KEY_MAX - 1);
}

static bool
is_down(const struct pick *p, size_t at)
{
	char key[MEMO_KEY_MAX];
	struct memo_item *item =
	    memo_get(p->pickups->down, down_key(p, at, key), clock_mono_ms(), NULL);
	bool down = item != NULL;

	memo_item_unref(item);
	return down;
}

static void
down_free(struct memo_item *item)
{
	free(item);
}

static void
remember_down(const struct pick *p)
{
	struct memo *down = p->pickups->down;
	struct memo_item *item;
	char key[MEMO_KEY_MAX];

	if (p->uris_n == 1 || is_down(p, p->at) || (item = malloc(sizeof(*item))) == NULL)
		return;
	memo_item_init(item, down_free);
	memo_put(down, down_key(p, p->at, key), item, 1, clock_mono_ms() + DOWN_MS,
	         memo_generation(down));
	memo_item_unref(item);
	log_warn("pickup-host-down", LOG_S("sender", p->info.sender), LOG_S("host", p->host),
	         LOG_S("reason", p->reason));
}

static void
forget_down(const struct pick *p)
{
	char key[MEMO_KEY_MAX];

	memo_drop(p->pickups->down, down_key(p, p->at, key));
}

static void
on_fetched(void *arg, const struct fetch_answer *answer)
{
	struct pick *p = arg;
	struct dmtp_address only;
	struct dmtp_uri uri;
	enum dmtp_message_rc rc;

	p->fetch = NULL;
	if (answer->rc == FETCH_OK)
		forget_down(p);
	if (answer->rc == FETCH_OK && answer->status == 200) {
		rc = verify(p, answer->body, &only);
		if (rc == DMTP_MESSAGE_OK) {
			accept_body(p, answer->body, &only);
			return;
		}
		p->wrong++;
		metric_add(&refused_mismatch, 1);
		(void)snprintf(p->reason, sizeof(p->reason),
		               "what was picked up is not what was announced: %s",
		               dmtp_message_rc_name(rc));
	} else if (answer->rc == FETCH_OK) {
		(void)snprintf(p->reason, sizeof(p->reason), "HTTP status %ld", answer->status);
		if (answer->status == 410 && dmtp_uri_split(slice_str(p->uris[p->at]), &uri) &&
		    slice_eq(uri.host, dmtp_domain_of(slice_str(p->info.sender))))
			p->gone = true;
	} else {
		if (answer->rc == FETCH_TOO_LARGE)
			p->wrong++;
		count_refusal(answer->rc);
		(void)snprintf(p->reason, sizeof(p->reason), "%s%s%s",
		               fetch_rc_name(answer->rc), answer->text[0] == '\0' ? "" : ": ",
		               answer->text);
		if (says_down(answer->rc))
			remember_down(p);
	}
	if (p->gone)
		put_off(p);
	else
		fetch_next(p);
}

/*
 * What is slow isn't waited for as long as another URI is left: the host of the one in front
 * may be a cache that is down. The last one gets all the patience that a fetch has.
 */
static void
set_patience(const struct pick *p, struct fetch_request *request)
{
	request->total_ms = 60000;
	if ((p->judge.allowed & p->left) == 0)
		return;
	request->connect_ms = 3000;
	request->low_speed_s = 4;
	request->total_ms = 10000 + p->info.size / 64; /* 64 KB/s */
}

static bool
start_fetch(struct pick *p, const char *url)
{
	struct pickups *pickups = p->pickups;
	struct slice domain = dmtp_domain_of(slice_str(p->info.sender));
	struct fetch_request request = {
		.url = url,
		.max_body = (size_t)p->info.size,
	};
	struct dmtp_uri uri;

	p->host[0] = '\0';
	if (!dmtp_uri_split(slice_str(url), &uri)) {
		(void)snprintf(p->reason, sizeof(p->reason), "the URI is no https:// one");
		p->wrong++;
		return false;
	}
	(void)snprintf(p->host, sizeof(p->host), "%.*s", (int)uri.host.len,
	               (const char *)uri.host.data);
	if ((p->judge.allowed & UINT32_C(1) << p->at) == 0) {
		(void)snprintf(p->reason, sizeof(p->reason),
		               "the URI's host is not the sender's domain, nor in its card");
		p->wrong++;
		return false;
	}
	set_patience(p, &request);
	p->fetch = origins_fetch(pickups->home->origins, domain, &request, on_fetched, p);
	if (p->fetch == NULL)
		(void)snprintf(p->reason, sizeof(p->reason), "out of memory");
	return p->fetch != NULL;
}

/* The next URI in the sender's order, those on hosts that are down last. */
static void
choose(struct pick *p)
{
	size_t first = URIS_MAX;

	for (size_t i = 0; i < p->uris_n; i++) {
		if ((p->left & UINT32_C(1) << i) == 0)
			continue;
		if (first == URIS_MAX)
			first = i;
		if (!is_down(p, i)) {
			first = i;
			break;
		}
	}
	p->at = first;
	p->left &= ~(UINT32_C(1) << first);
}

static void
fetch_next(struct pick *p)
{
	while (p->left != 0) {
		choose(p);
		if (start_fetch(p, p->uris[p->at]))
			return;
	}
	put_off(p);
}

/* --- Judging ----------------------------------------------------------------------------------- */

static void
on_judged(void *arg)
{
	struct pick *p = arg;

	if (p->judge.verdict == JUDGE_PASS) {
		fetch_next(p);
		return;
	}
	(void)snprintf(p->reason, sizeof(p->reason), "%s", p->judge.reason);
	p->never = p->judge.verdict == JUDGE_NEVER;
	p->wait_s = CARD_AGAIN_S;
	if (p->judge.verdict == JUDGE_WRONG) {
		p->wrong = (unsigned)p->uris_n;
		p->wait_s = CARD_RETRY_S;
	}
	put_off(p);
}

/* --- Beginning ----------------------------------------------------------------------------------- */

static char *
copy(struct slice s)
{
	return strndup((const char *)s.data, s.len);
}

/* Fields that are both absent or both there; memory that is short leaves them absent, and the pickup is tried again. */
static bool
copy_signature(struct pickup *info, struct slice key, struct slice signature)
{
	if (key.len == 0)
		return true;
	info->key = copy(key);
	info->signature = malloc(signature.len);
	if (info->key == NULL || info->signature == NULL)
		return false;
	memcpy(info->signature, signature.data, signature.len);
	info->signature_len = signature.len;
	return true;
}

static void
on_start(struct loop_timer *timer)
{
	struct pick *p = timer->arg;

	judge_begin(&p->judge, p->pickups->home, &p->info, p->uris, p->uris_n, on_judged, p);
}

static void
begin(struct pickups *pickups, struct pickup *info, const struct arrival *a, int64_t invited)
{
	int64_t delay_ms = a == NULL ? 0 : dmtp_pickup_delay_ms(a->added, randombytes_random());
	struct pick *p;

	if (info->sender == NULL || info->channel == NULL || info->uris == NULL) {
		pickup_clear(info);
		return;
	}
	p = pick_begin(pickups, info);
	if (p == NULL)
		return;
	p->invited = invited;
	if (a != NULL)
		add_recipients(p, a);
	else
		p->differs = true; /* as far as is known */
	if (delay_ms > 0) {
		metric_add(&delayed_total, 1);
		loop_timer_set(&p->start, delay_ms);
	} else {
		on_start(&p->start);
	}
}

/* Already verified: those who watch see it now; from memory, or each from the store. */
static void
show_late(struct pickups *pickups, const struct arrival *a)
{
	struct pick *p = pick_find(pickups, &a->notification_id);
	char sender[DMTP_ADDRESS_MAX + 1];
	struct live_entry entry = { .notification_id = a->notification_id,
		                    .differs = true,
		                    .arrived_us = a->now_us,
		                    .date_s = a->date_s,
		                    .channel = slice_str(a->channel) };

	if (a->accounts_n == 0)
		return;
	if (p != NULL && p->done && !differs(a)) {
		show(p, a->now_us, a->accounts, a->accounts_n);
		return;
	}
	(void)snprintf(sender, sizeof(sender), "%.*s", (int)a->from.len,
	               (const char *)a->from.data);
	entry.sender = slice_str(sender);
	live_arrived(pickups->home->live, &entry, a->accounts, a->accounts_n);
}

void
pickups_arrived(struct pickups *pickups, const struct arrival *a)
{
	struct pickup info = { .sender = NULL };
	struct pick *p;

	if (!a->fresh) {
		p = pick_find(pickups, &a->notification_id);
		if (a->state == 1 || (p != NULL && p->done)) {
			show_late(pickups, a);
			copies_rouse(pickups->home->copies, &a->notification_id);
		} else if (p != NULL) {
			add_recipients(p, a);
		}
		return;
	}
	info.notification_id = a->notification_id;
	info.sender = copy(a->from);
	info.channel = strdup(a->channel);
	memcpy(info.digest, a->digest.data, sizeof(info.digest));
	info.size = a->size;
	info.date_s = a->date_s;
	info.expires_us = a->expires_us;
	info.uris = copy(a->uris);
	if (copy_signature(&info, a->key, a->signature))
		begin(pickups, &info, a, 0);
	else
		pickup_clear(&info);
}

void
pickups_invited(struct pickups *pickups, const struct arrival_invite *invite)
{
	struct pickup info = { .notification_id = invite->fresh_id };
	char recipient[DMTP_ADDRESS_MAX + 1];

	(void)snprintf(recipient, sizeof(recipient), "%.*s@%.*s", (int)invite->name.len,
	               (const char *)invite->name.data, (int)invite->domain.len,
	               (const char *)invite->domain.data);
	info.sender = copy(invite->from);
	info.channel = copy(invite->channel);
	info.recipient = strdup(recipient);
	memcpy(info.digest, invite->digest.data, sizeof(info.digest));
	info.size = invite->size;
	info.date_s = invite->date_s;
	info.expires_us = invite->expires_us;
	info.uris = copy(invite->uris);
	if (invite->shown)
		live_invited(pickups->home->live, invite->account_id);
	if (copy_signature(&info, invite->key, invite->signature))
		begin(pickups, &info, NULL, invite->account_id);
	else
		pickup_clear(&info);
}

/* --- What another life left behind ------------------------------------------------------------------ */

static void
on_claimed(void *arg)
{
	struct pickups *pickups = arg;
	bool more = pickups->claim.rows_n == CLAIM_MAX;

	pickups->looking = false;
	for (size_t i = 0; i < pickups->claim.rows_n; i++)
		if (pick_find(pickups, &pickups->claim.rows[i].notification_id) == NULL)
			begin(pickups, &pickups->claim.rows[i], NULL, 0);
	pickup_claim_clear(&pickups->claim);
	if (!pickups->home->draining)
		loop_timer_set(&pickups->look, more ? 0 : LOOK_EVERY_MS);
}

static void
on_look(struct loop_timer *timer)
{
	struct pickups *pickups = timer->arg;
	int64_t now = clock_wall_us();

	if (pickups->looking || pickups->home->draining)
		return;
	pickups->looking = true;
	pickups->claim = (struct pickup_claim){
		.now_us = now,
		.lease_until_us = now + PICKUP_LEASE_US,
		.oldest = uuid_floor(now - (int64_t)(DMTP_PAST_S + 86400) * 1000000),
		.limit = CLAIM_MAX,
	};
	home_later(&pickups->later, pickups->home, &pickups->claim.job, on_claimed, pickups);
	store_pickup_claim(pickups->home->store, &pickups->claim);
}

void
pickups_wake(struct pickups *pickups)
{
	if (!pickups->looking)
		loop_timer_set(&pickups->look, 0);
}

size_t
pickups_count(const struct pickups *pickups)
{
	return pickups->under_way;
}

/* --- Life ---------------------------------------------------------------------------------------------- */

struct pickups *
pickups_new(struct home *home)
{
	struct pickups *pickups = calloc(1, sizeof(*pickups));

	if (pickups == NULL)
		return NULL;
	pickups->home = home;
	pickups->down = memo_make(DOWN_MAX);
	pickups->resume = resume_new(home);
	if (pickups->down == NULL || pickups->resume == NULL) {
		memo_free(&pickups->down);
		resume_free(&pickups->resume);
		free(pickups);
		return NULL;
	}
	TAILQ_INIT(&pickups->kept);
	loop_timer_init(&pickups->look, home->loop, on_look, pickups);
	loop_timer_set(&pickups->look, 0);
	return pickups;
}

void
pickups_free(struct pickups **pickups)
{
	struct pickups *all = *pickups;
	struct pick *p, *next;

	if (all == NULL)
		return;
	*pickups = NULL;
	loop_timer_cancel(&all->look);
	HASH_ITER(hh, all->picks, p, next)
	{
		HASH_DEL(all->picks, p);
		pick_free(p);
	}
	memo_free(&all->down);
	resume_free(&all->resume);
	free(all);
}
