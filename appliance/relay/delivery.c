/* A batch on its way: see delivery.h. */
#include "relay/delivery.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/pickup.h"
#include "dmtp/uri.h"
#include "relay/session.h"
#include "store/pushes.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_MAX 1000 /* recipients read at once, and of one POST at most */
/*
 * Pages of ranges in memory: so many of a pair, and only one of each when so
 * many are of all. Memory stays flat however many batches wait, and a peer
 * that takes nothing keeps no other from being sent to.
 */
#define PAGES_OF_PAIR 32
#define PAGES_OF_ALL 512
#define ALONE_LOST_MAX 3 /* lost sessions in which it was alone: it is parked */
#define ATTEMPTS_MAX 8   /* claims without an end: it takes the process down with it */
#define THROTTLED_S 60   /* when a peer says "later" and not when */
/* Octets of a POST besides its recipients, at most: URIs are the most of it. And of a recipient besides values. */
#define POST_OVERHEAD 20000
#define RCPT_OCTETS 26
#define THROTTLED_MAX_S 3600

METRIC_DEFINE(recipients_done, METRIC_COUNTER, "tmtp_relay_recipients_total",
              "state=\"delivered\"", "Recipients by what their home servers answered.");
METRIC_DEFINE(recipients_failed, METRIC_COUNTER, "tmtp_relay_recipients_total",
              "state=\"failed\"", "Recipients by what their home servers answered.");
METRIC_DEFINE(recipients_later, METRIC_COUNTER, "tmtp_relay_recipients_total",
              "state=\"later\"", "Recipients by what their home servers answered.");

/* Recipients in memory; posts refer to it. */
struct page {
	struct pair *pair; /* counted there; NULL: a list's, which came with its batch */
	unsigned refs;
	struct queue_member *members;
	size_t n;
	uint8_t *memory;
};

struct failure_list {
	struct queue_failure *items;
	size_t n, cap;
};

struct delivery {
	struct source source; /* first */
	struct pair *pair;
	struct queue_batch *batch;
	struct page *page; /* being sent from `at` on, or NULL */
	size_t at;
	bool reading; /* the next page of a range is on its way from the store */
	bool queued;  /* it waits until one may be read */
	struct delivery *page_next;
	bool read_all;
	char *after; /* the last member read of a range */
	unsigned posts_out;
	int counted; /* recipients looked at */
	struct failure_list failures;
	bool left;         /* a post of it was made */
	bool any_answered; /* with K or with codes: the rest goes on without those */
	bool incomplete;   /* not all of its recipients are known: it goes back whole */
	bool lost, alone;  /* a post of it was lost with its session */
	bool hopeless;     /* the peer's limits don't hold it */
	bool ending;
	uint32_t later_s; /* the peer said of the whole: not now */
	char reason[NET_TEXT];
	struct queue_range range;
	struct queue_finish finish;
	struct relay_later later;
};

/* One POST that waits for its answer. */
struct post {
	struct command command; /* first */
	struct delivery *delivery;
	struct page *page;
	size_t first, n;
};

static void advance(struct delivery *d);
static void read_page(struct delivery *d);

/* --- Pages ----------------------------------------------------------------------- */

static bool
page_is_free(const struct pair *pair)
{
	return pair->pages < (pair->relay->pages < PAGES_OF_ALL ? PAGES_OF_PAIR : 1);
}

/* A page's place is free: who waits longest takes it. */
static void
page_leave(struct pair *pair)
{
	struct delivery *d = pair->page_first;

	pair->pages--;
	pair->relay->pages--;
	if (d == NULL || !page_is_free(pair))
		return;
	pair->page_first = d->page_next;
	if (pair->page_first == NULL)
		pair->page_last = NULL;
	d->queued = false;
	read_page(d);
}

static void
page_unref(struct page **page)
{
	struct page *p = *page;
	struct pair *pair;

	*page = NULL;
	if (p == NULL || --p->refs > 0)
		return;
	pair = p->pair;
	free(p->members);
	free(p->memory);
	free(p);
	if (pair != NULL)
		page_leave(pair);
}

static struct page *
page_make(struct pair *pair, struct queue_member *members, size_t n, uint8_t *memory)
{
	struct page *p = malloc(sizeof(*p));

	if (p != NULL)
		*p = (struct page){
			.pair = pair, .refs = 1, .members = members, .n = n, .memory = memory
		};
	return p;
}

static void
page_queue(struct delivery *d)
{
	struct pair *pair = d->pair;

	d->queued = true;
	d->page_next = NULL;
	if (pair->page_last != NULL)
		pair->page_last->page_next = d;
	else
		pair->page_first = d;
	pair->page_last = d;
}

static void
page_unqueue(struct delivery *d)
{
	struct pair *pair = d->pair;
	struct delivery *before = NULL;

	if (!d->queued)
		return;
	d->queued = false;
	for (struct delivery *x = pair->page_first; x != d; x = x->page_next)
		before = x;
	if (before == NULL)
		pair->page_first = d->page_next;
	else
		before->page_next = d->page_next;
	if (pair->page_last == d)
		pair->page_last = before;
}

/* --- Failures ---------------------------------------------------------------------- */

/* A copy of member and code, in one piece of memory behind member's pointer. False: no memory. */
static bool
failure_append(struct delivery *d, struct slice member, struct slice code, bool temporary)
{
	struct failure_list *list = &d->failures;
	uint8_t *copy;

	if (list->n == list->cap) {
		size_t cap = list->cap == 0 ? 8 : list->cap * 2;
		struct queue_failure *items = realloc(list->items, cap * sizeof(*items));

		if (items == NULL)
			return false;
		list->items = items;
		list->cap = cap;
	}
	copy = malloc(member.len + code.len + 1);
	if (copy == NULL)
		return false;
	memcpy(copy, member.data, member.len);
	if (code.len > 0)
		memcpy(copy + member.len, code.data, code.len);
	list->items[list->n++] = (struct queue_failure){
		.member = slice_mem(copy, member.len),
		.code = slice_mem(copy + member.len, code.len),
		.temporary = temporary,
	};
	return true;
}

static void
failure_add(struct delivery *d, struct slice member, struct slice code, bool temporary)
{
	if (!failure_append(d, member, code, temporary))
		d->incomplete = true;
}

/* These come again, in a batch of their own. */
static void
put_off(struct delivery *d, const struct page *page, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++)
		failure_add(d, page->members[i].member, SLICE(""), true);
	metric_add(&recipients_later, (int64_t)n);
}

static void
failures_free(struct failure_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free((void *)(uintptr_t)list->items[i].member.data);
	free(list->items);
}

/* --- The end ------------------------------------------------------------------------ */

static void
delivery_free(struct delivery *d)
{
	struct pair *pair = d->pair;

	page_unref(&d->page);
	failures_free(&d->failures);
	queue_range_clear(&d->range);
	queue_batch_free(&d->batch);
	free(d->after);
	free(d);
	plan_delivered(pair);
}

static void
on_finished(void *arg)
{
	struct delivery *d = arg;

	if (d->finish.job.rc != STORE_OK && d->finish.job.rc != STORE_NOT_FOUND)
		log_warn("delivery-unrecorded", LOG_S("peer", d->pair->names.domain),
		         LOG_S("reason", store_rc_text(d->finish.job.rc)));
	delivery_free(d);
}

static void
finish(struct delivery *d, enum queue_end end, int64_t not_before_us, bool uncounted)
{
	struct queue_batch *b = d->batch;

	session_remove(&d->source);
	d->ending = true;
	d->finish = (struct queue_finish){
		.site_id = b->site_id,
		.channel_id = b->channel_id,
		.domain_id = b->domain_id,
		.message_id = b->message_id,
		.owner = d->pair->relay->owner,
		.batch_no = b->batch_no,
		.lane = b->lane,
		.end = end,
		.recipients = d->counted,
		.now_us = clock_wall_us(),
		.not_before_us = not_before_us,
		.uncounted = uncounted,
		.tried = b->tried || d->left,
		.alone = d->lost && d->alone,
		.reason = d->reason[0] == '\0' ? NULL : d->reason,
		.failures = d->failures.items,
		.failures_n = end == QUEUE_DONE ? d->failures.n : 0,
	};
	d->finish.job.patience_ms =
	    600000; /* an answer that came is not given up because the database is away */
	relay_later(&d->later, d->pair->relay, &d->finish.job, on_finished, d);
	store_queue_finish(d->pair->relay->store, &d->finish);
}

static void
give_up(struct delivery *d, const char *reason)
{
	char id[UUID_TEXT];

	uuid_format(&d->batch->message_id, id);
	(void)snprintf(d->reason, sizeof(d->reason), "%s", reason);
	log_warn("delivery-dead", LOG_S("peer", d->pair->names.domain), LOG_S("message", id),
	         LOG_S("reason", d->reason));
	d->counted = d->batch->recipients;
	finish(d, QUEUE_DEAD, -1, false);
}

static void
park(struct delivery *d)
{
	char text[2 * NET_TEXT];

	(void)snprintf(
	    text, sizeof(text),
	    "parked: lost its session each of %d times that it was sent alone; last: %s",
	    ALONE_LOST_MAX, d->reason);
	give_up(d, text);
}

/* Why it is too late for it; NULL: it isn't. */
static const char *
expiry(const struct delivery *d)
{
	const struct queue_batch *b = d->batch;
	int64_t now = clock_wall_us(), since = b->accepted_us;
	int64_t longest = (int64_t)d->pair->relay->config->relay.expire_after_s * 1000000;

	if (b->expires_us >= 0)
		return b->expires_us <= now ? "expired before it could be delivered" : NULL;
	if (b->revived_us > since)
		since = b->revived_us;
	return since + longest <= now ? "could not be delivered within the operator's limit"
	                              : NULL;
}

/* The reason ends in the peer's own words, where there are any. */
static void
expire(struct delivery *d, const char *why)
{
	const char *last = d->reason[0] != '\0' ? d->reason : d->pair->peer->state.reason;
	char text[2 * NET_TEXT];

	(void)snprintf(text, sizeof(text), "%s%s%s", why, last != NULL ? "; last: " : "",
	               last != NULL ? last : "");
	give_up(d, text);
}

/*
 * Back to the queue. What came to an end doesn't count as an attempt: those
 * are for what takes the process down. It may have become too late meanwhile.
 */
static void
give_back(struct delivery *d, int64_t not_before_us)
{
	const char *late = expiry(d);

	if (late != NULL)
		expire(d, late);
	else
		finish(d, QUEUE_RELEASE, not_before_us, true);
}

/* When those that single recipients put off come again: later each time. */
static int64_t
again_s(const struct delivery *d)
{
	int64_t wait = (int64_t)THROTTLED_S * (d->batch->batch_no / QUEUE_RETRY_NO + 1);

	return wait < THROTTLED_MAX_S ? wait : THROTTLED_MAX_S;
}

/*
 * All posts of what was read are answered or lost. When some were answered the
 * batch is done, and the others are a batch of their own: else a peer that
 * takes less at a time than a batch has would be told its beginning for ever.
 */
static void
conclude(struct delivery *d)
{
	int64_t now = clock_wall_us();
	bool whole = d->incomplete || !d->any_answered;

	if (d->hopeless) {
		give_up(d, "the notification does not fit the peer's limits");
	} else if (d->lost && d->alone && whole && d->batch->lost_alone + 1 >= ALONE_LOST_MAX) {
		park(d);
	} else if (d->incomplete || ((d->lost || d->later_s > 0) && whole)) {
		give_back(d, d->later_s > 0 ? now + (int64_t)d->later_s * 1000000 : -1);
	} else {
		int64_t wait_s = d->later_s > 0 ? d->later_s : d->lost ? 0 : again_s(d);

		finish(d, QUEUE_DONE, now + wait_s * 1000000, false);
	}
}

/* --- Answers ------------------------------------------------------------------------- */

static struct slice
code_of(enum dmtp_code code, struct slice raw)
{
	return code == DMTP_CODE_OTHER ? raw : slice_str(dmtp_code_name(code));
}

static void
fail_some(struct post *post, const struct dmtp_response *response)
{
	struct ben_reader it;
	struct dmtp_failed failed;
	size_t n = 0;

	ben_reader_init(&it, response->failed);
	while (dmtp_failed_next(&it, &failed)) {
		bool temporary = failed.letter == DMTP_Z;

		if (failed.index >= post->n)
			continue;
		failure_add(post->delivery,
		            post->page->members[post->first + failed.index].member,
		            code_of(failed.code, failed.code_raw), temporary);
		metric_add(temporary ? &recipients_later : &recipients_failed, 1);
		n++;
	}
	metric_add(&recipients_done, (int64_t)post->n - (int64_t)n);
}

static void
fail_all(struct post *post, const struct dmtp_response *response)
{
	for (size_t i = 0; i < post->n; i++)
		failure_add(post->delivery, post->page->members[post->first + i].member,
		            code_of(response->code, response->code_raw), false);
	metric_add(&recipients_failed, (int64_t)post->n);
}

static void
post_end(struct post *post)
{
	struct delivery *d = post->delivery;

	page_unref(&post->page);
	free(post);
	d->posts_out--;
	advance(d);
}

/* E or Z of the whole command: for the notification it ends or waits; for the session the peer waits. */
static void
refuse_whole(struct post *post, const struct dmtp_response *r)
{
	struct delivery *d = post->delivery;

	dmtp_response_words(r, d->reason, sizeof(d->reason));
	if (r->letter == DMTP_E && dmtp_code_speaks(r->code) != DMTP_SPEAKS_SESSION) {
		char id[UUID_TEXT];

		uuid_format(&d->batch->message_id, id);
		log_warn("notification-refused", LOG_S("peer", d->pair->names.domain),
		         LOG_S("message", id), LOG_I("recipients", post->n),
		         LOG_S("reason", d->reason));
		fail_all(post, r);
		d->any_answered = true;
		d->reason[0] = '\0';
		return;
	}
	put_off(d, post->page, post->first, post->n);
	d->later_s = r->retry_s > 0 ? r->retry_s : THROTTLED_S;
	if (r->letter == DMTP_Z) {
		peer_wait(d->pair->peer, d->reason, d->later_s);
	} else { /* of the session: how long is the peer's backoff to say */
		d->later_s = 1;
		peer_failed(d->pair->peer, d->reason);
	}
}

static void
on_replied(struct command *command, const struct dmtp_response *response)
{
	struct post *post = (struct post *)command;

	if (response->letter == DMTP_K) {
		peer_answered(post->delivery->pair->peer);
		post->delivery->any_answered = true;
		fail_some(post, response);
	} else {
		if (response->letter == DMTP_E &&
		    dmtp_code_speaks(response->code) != DMTP_SPEAKS_SESSION)
			peer_answered(post->delivery->pair->peer);
		refuse_whole(post, response);
	}
	post_end(post);
}

static void
on_lost(struct command *command, bool alone, const char *reason)
{
	struct post *post = (struct post *)command;
	struct delivery *d = post->delivery;

	d->lost = true;
	d->alone = d->alone || alone;
	put_off(d, post->page, post->first, post->n);
	(void)snprintf(d->reason, sizeof(d->reason), "%s", reason);
	post_end(post);
}

/* --- Making POSTs ---------------------------------------------------------------------- */

/*
 * A person's message is picked up where `home` serves it, and from no cache.
 * Its host must be her own domain: when the role's URL has another name the
 * domain's proxy leads there.
 */
static void
person_uri(const struct delivery *d, const struct dmtp_pickup *pickup, struct buffer *uri)
{
	const char *domain = d->pair->names.site_domain;
	char base[sizeof("https://") + RESOLVE_NAME];
	struct dmtp_uri parts;

	dmtp_pickup_uri(uri, slice_str(d->pair->relay->config->home.http.url), pickup);
	if (dmtp_uri_split(buffer_slice(uri), &parts) && slice_eq_str(parts.host, domain))
		return;
	buffer_clear(uri);
	(void)snprintf(base, sizeof(base), "https://%s", domain);
	dmtp_pickup_uri(uri, slice_str(base), pickup);
}

static void
put_uris(struct delivery *d, struct buffer *inside)
{
	const struct config_site *site = &d->pair->relay->config->site;
	struct dmtp_pickup pickup = { .site_id = d->batch->site_id,
		                      .message_id = d->batch->message_id };
	struct buffer uri;

	memcpy(pickup.digest, d->batch->digest, sizeof(pickup.digest));
	if (d->pair->names.person) {
		buffer_init(&uri, 4096);
		person_uri(d, &pickup, &uri);
		ben_put_str(inside, buffer_slice(&uri));
		buffer_free(&uri);
		return;
	}
	_Static_assert(CONFIG_MESSAGE_HOSTS + 1 <= DMTP_PICKUP_URIS, "each host is in use");
	dmtp_pickup_put_uris(inside, site->message_hosts.items, site->message_hosts.count,
	                     site->http.url, &pickup);
}

static void
put_recipients(struct dmtp_post_writer *w, struct delivery *d, const struct page *page,
               size_t first, size_t n)
{
	char address[96 + RESOLVE_NAME];

	for (size_t i = first; i < first + n; i++) {
		const struct queue_member *m = &page->members[i];

		if (m->state == QUEUE_HOLDS && m->vars.len > 0) {
			dmtp_post_put_vars(w, m->grant, m->vars);
			continue;
		}
		if (m->state == QUEUE_HOLDS) {
			dmtp_post_put_grant(w, m->grant);
			continue;
		}
		(void)snprintf(address, sizeof(address), "%.*s@%s", (int)m->member.len,
		               (const char *)m->member.data, d->pair->names.domain);
		dmtp_post_put_address(w, slice_str(address), DMTP_CHANNEL_INVITE);
	}
}

static void
encode(struct delivery *d, size_t n, struct buffer *out)
{
	const struct queue_batch *b = d->batch;
	struct dmtp_post_writer w;
	struct buffer uris;
	char id[UUID_TEXT], earlier[UUID_TEXT];
	struct dmtp_post post = {
		.from = slice_str(d->pair->from),
		.date = b->date_s,
		.size = b->size,
		.digest = slice_mem(b->digest, sizeof(b->digest)),
		.has_expires = b->expires_us >= 0,
		.expires = b->expires_us / 1000000,
	};

	uuid_format(&b->message_id, id);
	uuid_format(&b->earlier, earlier);
	post.id = slice_str(id);
	if (b->is_recall)
		post.recall = slice_str(earlier);
	else if (b->is_replacement)
		post.replaces = slice_str(earlier);
	if (b->key_id[0] != '\0') {
		post.key = slice_str(b->key_id);
		post.signature = slice_mem(b->signature, sizeof(b->signature));
	}
	if (b->audience == PUSH_INVITATION)
		post.channel = slice_str(b->channel);
	buffer_init(&uris, 16384);
	if (!b->is_recall)
		put_uris(d, &uris);
	post.uris = buffer_slice(&uris);
	dmtp_post_begin(&w, out, &post);
	put_recipients(&w, d, d->page, d->at, n);
	dmtp_post_end(&w);
	buffer_free(&uris);
}

static enum dmtp_client_rc
send_post(struct delivery *d, size_t n)
{
	struct post *post = malloc(sizeof(*post));
	enum dmtp_client_rc rc = DMTP_CLIENT_TOO_LONG;
	struct buffer encoded;

	if (post == NULL)
		return DMTP_CLIENT_NO_MEMORY;
	*post = (struct post){ .delivery = d, .page = d->page, .first = d->at, .n = n };
	post->command.replied = on_replied;
	post->command.lost = on_lost;
	buffer_init(&encoded, session_limits(d->source.session)->command_octets);
	encode(d, n, &encoded);
	if (!encoded.failed)
		rc = session_send(d->source.session, DMTP_POST, buffer_slice(&encoded),
		                  &post->command, d->source.lane >= LANE_BULK);
	buffer_free(&encoded);
	if (rc != DMTP_CLIENT_OK) {
		free(post);
		return rc;
	}
	d->page->refs++;
	d->posts_out++;
	d->left = true;
	return rc;
}

/* As many of the next n recipients as the peer takes in one command; *n: how many. */
static enum dmtp_client_rc
send_most(struct delivery *d, size_t *n)
{
	enum dmtp_client_rc rc = send_post(d, *n);

	while (rc == DMTP_CLIENT_TOO_LONG && *n > 1) {
		*n /= 2;
		rc = send_post(d, *n);
	}
	return rc;
}

static void
on_page(void *arg)
{
	struct delivery *d = arg;
	struct queue_range *r = &d->range;

	d->reading = false;
	if (r->job.rc != STORE_OK) {
		d->lost = d->read_all = d->incomplete = true;
		(void)snprintf(d->reason, sizeof(d->reason), "%s", store_rc_text(r->job.rc));
	} else if (r->members_n > 0) {
		struct slice last = r->members[r->members_n - 1].member;

		d->read_all = r->members_n < r->limit;
		free(d->after);
		d->after = strndup((const char *)last.data, last.len);
		d->page = page_make(d->pair, r->members, r->members_n, r->memory);
		d->at = 0;
		d->counted += (int)r->members_n;
		if (d->page == NULL || d->after == NULL) {
			d->lost = d->read_all = d->incomplete = true;
		} else {
			r->members = NULL;
			r->memory = NULL;
			r->members_n = 0;
		}
	} else {
		d->read_all = true;
	}
	queue_range_clear(r);
	if (d->page == NULL)
		page_leave(d->pair);
	advance(d);
}

static void
read_page(struct delivery *d)
{
	d->pair->pages++;
	d->pair->relay->pages++;
	d->reading = true;
	d->range = (struct queue_range){
		.batch = d->batch,
		.after = slice_str(d->after),
		.limit = PAGE_MAX,
	};
	d->range.job.patience_ms = 30000;
	relay_later(&d->later, d->pair->relay, &d->range.job, on_page, d);
	store_queue_range(d->pair->relay->store, &d->range);
}

/* Of n recipients as many as fit a command with their values; one at least. */
static size_t
fitting(const struct delivery *d, size_t n)
{
	size_t room = session_limits(d->source.session)->command_octets - POST_OVERHEAD;

	for (size_t i = 0; i < n; i++) {
		size_t octets = RCPT_OCTETS + d->page->members[d->at + i].vars.len;

		if (octets > room)
			return i > 0 ? i : 1;
		room -= octets;
	}
	return n;
}

static enum source_rc
make(struct source *source)
{
	struct delivery *d = (struct delivery *)source;
	enum dmtp_client_rc rc;
	size_t left, n;

	if (d->page == NULL)
		return SOURCE_WAIT; /* the store reads */
	left = d->page->n - d->at;
	n = session_limits(source->session)->rcpts;
	if (n > left)
		n = left;
	n = fitting(d, n);
	rc = send_most(d, &n);
	if (rc == DMTP_CLIENT_FULL || rc == DMTP_CLIENT_CLOSING)
		return SOURCE_WAIT;
	if (rc != DMTP_CLIENT_OK) {
		d->hopeless = rc == DMTP_CLIENT_TOO_LONG;
		d->lost = !d->hopeless;
		advance(d);
		return SOURCE_DONE;
	}
	d->at += n;
	if (d->at < d->page->n)
		return SOURCE_SENT;
	page_unref(&d->page);
	if (d->read_all)
		session_remove(source);
	else
		read_page(d);
	return d->read_all ? SOURCE_DONE : SOURCE_SENT;
}

static bool
enter_session(struct delivery *d)
{
	const char *own = strchr(d->pair->from, '@') + 1;
	struct session *s = peer_session(d->pair->peer, own, d->pair->key.site_id);

	if (s == NULL)
		return false;
	session_add(s, &d->source);
	return true;
}

/* The session went before all was sent: the rest goes on in another, or later. */
static void
gone(struct source *source, const char *reason)
{
	struct delivery *d = (struct delivery *)source;

	if (enter_session(d))
		return;
	d->lost = true;
	(void)snprintf(d->reason, sizeof(d->reason), "%s", reason);
	advance(d);
}

/*
 * Nothing more is sent of it. What was read and not sent is put off, and the
 * rest is read to be put off, unless nothing was answered: it goes back whole.
 */
static void
cut_short(struct delivery *d)
{
	session_remove(&d->source);
	page_unqueue(d);
	if (d->page != NULL) {
		put_off(d, d->page, d->at, d->page->n - d->at);
		page_unref(&d->page);
	}
	if (d->posts_out > 0 || d->reading)
		return;
	if (d->any_answered && !d->read_all && !d->hopeless && !d->incomplete)
		read_page(d);
	else
		conclude(d);
}

/* After anything that happened to it: goes on, waits, or ends. */
static void
advance(struct delivery *d) /* NOLINT(misc-no-recursion): once, to end what is lost */
{
	if (d->ending)
		return;
	if (d->lost || d->hopeless || d->later_s > 0) {
		cut_short(d);
		return;
	}
	if (d->page != NULL) {
		if (d->source.session != NULL) {
			session_ready(d->source.session);
		} else if (!enter_session(d)) {
			d->lost = true;
			advance(d);
		}
		return;
	}
	if (d->read_all && d->posts_out == 0)
		conclude(d);
}

/* --- The beginning ------------------------------------------------------------------------ */

/* Of a list, those who can get it; who left is a failure, who needs no invitation any more is none. */
static void
take_list(struct delivery *d)
{
	struct queue_batch *b = d->batch;
	enum queue_member_state wanted =
	    b->audience == PUSH_INVITATION ? QUEUE_INVITED : QUEUE_HOLDS;
	size_t kept = 0;

	d->counted = (int)b->members_n;
	d->read_all = true;
	for (size_t i = 0; i < b->members_n; i++) {
		if (b->members[i].state == wanted)
			b->members[kept++] = b->members[i];
		else if (wanted == QUEUE_HOLDS)
			failure_add(d, b->members[i].member, SLICE("revoked"), false);
	}
	if (kept == 0)
		return;
	d->page = page_make(NULL, b->members, kept, b->memory);
	if (d->page == NULL) {
		d->lost = true;
		return;
	}
	b->members = NULL;
	b->memory = NULL;
}

void
delivery_begin(struct pair *pair, struct queue_batch *batch)
{
	struct delivery *d = calloc(1, sizeof(*d));

	if (d == NULL) { /* its lease runs out and it comes again */
		queue_batch_free(&batch);
		plan_delivered(pair);
		return;
	}
	d->pair = pair;
	d->batch = batch;
	d->source = (struct source){ .make = make,
		                     .gone = gone,
		                     .lane = batch->lane,
		                     .stream = pair->key.site_id,
		                     .order = batch->message_id };
	if (batch->recalled) {
		finish(d, QUEUE_RECALLED, -1, false);
	} else if (expiry(d) != NULL) {
		expire(d, expiry(d));
	} else if (batch->attempts > ATTEMPTS_MAX) {
		give_up(d, "parked: claimed again and again without an end");
	} else if (batch->is_range) {
		if (enter_session(d)) {
			/* Only the first page waits for its place: who has begun stands before those that hold one. */
			if (page_is_free(pair))
				read_page(d);
			else
				page_queue(d);
		} else {
			d->lost = d->read_all = true;
			advance(d);
		}
	} else {
		take_list(d);
		advance(d);
	}
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): its session, or the queue for pages, has it */
}
