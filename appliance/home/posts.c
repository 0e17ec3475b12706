/* Arriving notifications: see posts.h. */
#include "home/posts.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "home/commands.h"
#include "home/guard.h"
#include "home/live.h"
#include "home/pickups.h"
#include "home/registrable.h"
#include "store/arrivals.h"

#include "base/hash.h"

#include <sodium.h>
#include <stdlib.h>

#define END_MAX_S INT64_C(253402300799) /* 9999-12-31T23:59:59Z */
/* Commands in memory, however many sessions send them and however slow the store is. */
#define POSTS_OCTETS ((size_t)64 << 20)

METRIC_DEFINE(rcpts_stored, METRIC_COUNTER, "tmtp_dmtp_recipients_total", "state=\"stored\"",
              "Recipients of notifications that arrived.");
METRIC_DEFINE(rcpts_closed, METRIC_COUNTER, "tmtp_dmtp_recipients_total", "state=\"closed\"",
              "Recipients of notifications that arrived.");

METRIC_DEFINE(rcpts_throttled, METRIC_COUNTER, "tmtp_dmtp_recipients_total",
              "state=\"throttled\"", "Recipients of notifications that arrived.");

/* Contacts whose messages are counted, by their grants. */
#define GRANTS_COUNTED 16384
#define MINUTE_US 60000000

/* What two POSTs to one recipient each must not share while both are under way. */
struct key {
	struct post *post;
	size_t len;
	uint8_t octets[DMTP_ADDRESS_MAX + DMTP_ID_MAX + 2];
	UT_hash_handle hh;
};

struct posts {
	struct home *home;
	struct key *keys;
	struct post *waiting, **waiting_end; /* share a key with one that is under way */
	size_t octets;                       /* of all that are under way */
	struct guard *guard;                 /* how much persons send: by grant */
	struct guard_rule rule;
};

/* One POST: its grants are one arrival, each of its invitations is one too. */
struct post {
	struct posts *posts;
	struct dmtp_session *session;
	uint64_t seq;
	struct post *next; /* among the waiting */
	unsigned parts;    /* jobs that are under way */
	bool down;
	struct key by_id, by_digest;
	bool keyed;

	size_t octets;
	uint8_t *memory;      /* what the slices below borrow from; so many */
	struct slice channel; /* offered by an invitation */
	struct arrival arrival;
	struct home_later later;
	uint32_t *arrival_index; /* the POST's index of each of arrival's rcpts */
	struct arrival_named
	    named;        /* recipients of arrival whose grants the store is asked for */
	size_t *named_at; /* which of arrival's rcpts each is */
	bool named_asked;
	struct dmtp_address *named_address;
	struct invite {
		struct post *post;
		struct arrival_invite job;
		struct home_later later;
		struct buffer registrable;
		struct dmtp_address member;
	} * invites;
	size_t invites_n;
	struct buffer failed; /* inside of K's failed */
	size_t failed_n, throttled_n, rcpts_n;
};

static void submit(struct post *p);

/* --- Keeping what arrived ----------------------------------------------------------- */

/* Room for all that a POST's element holds; slices of it stand still. */
struct memory {
	uint8_t *at;
};

static struct slice
keep(struct memory *m, struct slice s)
{
	struct slice kept = slice_mem(m->at, s.len);

	if (s.len > 0)
		memcpy(m->at, s.data, s.len);
	m->at += s.len;
	return kept;
}

/* An address as others compare it: its local part's ASCII letters lower-cased. */
static struct slice
keep_address(struct memory *m, struct slice s)
{
	struct dmtp_address address;

	if (dmtp_address_parse(s, &address) != DMTP_ADDRESS_OK)
		return keep(m, s);
	return keep(m, dmtp_address_slice(&address));
}

static struct slice
keep_uris(struct memory *m, const struct dmtp_post *post)
{
	struct ben_reader it;
	uint8_t *first = m->at;

	ben_reader_init(&it, post->uris);
	while (ben_more(&it)) {
		if (m->at > first)
			*m->at++ = '\n';
		(void)keep(m, ben_get_str(&it));
	}
	return slice_mem(first, (size_t)(m->at - first));
}

/* --- Recipients ----------------------------------------------------------------------- */

static void
close_rcpt(struct post *p, uint32_t index)
{
	dmtp_failed_put(&p->failed, index, DMTP_E, DMTP_CODE_CHANNEL_CLOSED);
	p->failed_n++;
}

/*
 * A contact sends more than is taken. Only grants that held are counted, and
 * looked at before anything is asked of the store.
 */
static bool
throttled(struct post *p, uint32_t index, const uint8_t *grant)
{
	const struct posts *posts = p->posts;

	if (!guard_is_empty(posts->guard, &posts->rule, slice_mem(grant, DMTP_GRANT_LEN),
	                    clock_mono_us()))
		return false;
	dmtp_failed_put(&p->failed, index, DMTP_Z, DMTP_CODE_THROTTLED);
	p->failed_n++;
	p->throttled_n++;
	return true;
}

static void
count_contact(struct post *p, const struct arrival_rcpt *rcpt)
{
	guard_charge(p->posts->guard, &p->posts->rule, slice_mem(rcpt->grant, DMTP_GRANT_LEN),
	             clock_mono_us());
}

struct rcpt_counts {
	size_t grants, named, invites;
};

static bool
count_rcpts(const struct dmtp_post *post, struct rcpt_counts *n)
{
	struct ben_reader it;
	struct dmtp_rcpt rcpt;

	*n = (struct rcpt_counts){ 0 };
	ben_reader_init(&it, post->rcpts);
	while (dmtp_rcpt_next(&it, &rcpt)) {
		n->grants += rcpt.grant != NULL;
		n->named += rcpt.grant == NULL && rcpt.known == DMTP_CHANNEL_INBOX;
		n->invites += rcpt.grant == NULL && rcpt.known == DMTP_CHANNEL_INVITE;
	}
	return n->grants + n->named + n->invites <= post->rcpt_count;
}

/* Until the store has said otherwise its grant is one that nobody has. */
static bool
take_named(struct post *p, struct arrival_rcpt *to, struct slice address)
{
	struct arrival_named_rcpt *named = &p->named.rcpts[p->named.rcpts_n];
	struct dmtp_address *parsed = &p->named_address[p->named.rcpts_n];

	if (dmtp_address_parse(address, parsed) != DMTP_ADDRESS_OK)
		return false;
	named->domain = dmtp_address_domain(parsed);
	named->name = dmtp_address_local(parsed);
	randombytes_buf(named->grant, sizeof(named->grant));
	to->grant = named->grant;
	p->named_at[p->named.rcpts_n++] = p->arrival.rcpts_n;
	return true;
}

/* Other addresses than members', and channels that nobody here opens by name, are closed. */
static void
take_rcpts(struct post *p, struct memory *memory, const struct dmtp_post *post)
{
	struct ben_reader it;
	struct dmtp_rcpt rcpt;
	uint32_t index = 0;

	ben_reader_init(&it, post->rcpts);
	for (; dmtp_rcpt_next(&it, &rcpt); index++) {
		struct invite *v = &p->invites[p->invites_n];
		struct arrival_rcpt *to = &p->arrival.rcpts[p->arrival.rcpts_n];

		if (rcpt.grant != NULL && throttled(p, index, rcpt.grant))
			continue;
		if (rcpt.known == DMTP_CHANNEL_INBOX && rcpt.grant == NULL &&
		    take_named(p, to, rcpt.address)) {
			p->arrival_index[p->arrival.rcpts_n++] = index;
			to->vars = keep(memory, rcpt.vars);
		} else if (rcpt.grant != NULL) {
			p->arrival_index[p->arrival.rcpts_n++] = index;
			to->grant = keep(memory, slice_mem(rcpt.grant, DMTP_GRANT_LEN)).data;
			to->vars = keep(memory, rcpt.vars);
		} else if (rcpt.known == DMTP_CHANNEL_INVITE &&
		           p->posts->home->config->home.invitations &&
		           dmtp_address_parse(rcpt.address, &v->member) == DMTP_ADDRESS_OK) {
			v->post = p;
			buffer_init(&v->registrable, DMTP_DOMAIN_MAX + 1);
			p->invites_n++;
		} else if (rcpt.known != DMTP_CHANNEL_INVITE ||
		           !p->posts->home->config->home.invitations) {
			close_rcpt(p, index);
		} /* an invitation to what is no address: K, and dropped */
	}
}

static void
post_free(struct post *p)
{
	p->posts->octets -= p->octets;
	arrival_clear(&p->arrival);
	free(p->arrival.rcpts);
	free(p->arrival_index);
	free(p->named.rcpts);
	free(p->named_at);
	free(p->named_address);
	for (size_t i = 0; i < p->invites_n; i++)
		buffer_free(&p->invites[i].registrable);
	free(p->invites);
	free(p->memory);
	buffer_free(&p->failed);
	free(p);
}

/* --- The answer ------------------------------------------------------------------------- */

/* One line for all that a command was refused; nothing in it tells whether somebody exists. */
static void
log_refusal(const struct post *p, const char *reason)
{
	log_info("post-refused", LOG_S("address", dmtp_session_address(p->session)),
	         LOG_B("from", p->arrival.from), LOG_B("id", p->arrival.id),
	         LOG_S("reason", reason), LOG_I("recipients", p->rcpts_n),
	         LOG_I("closed", p->failed_n - p->throttled_n),
	         LOG_I("throttled", p->throttled_n));
}

static void
answer(struct post *p)
{
	struct dmtp_response r = DMTP_RESPONSE_K;

	if (p->down)
		r = command_response_down();
	else if (p->arrival.rcpts_n > 0 && p->arrival.outcome == ARRIVAL_CONFLICT)
		r = dmtp_response_make(DMTP_E, DMTP_CODE_DUPLICATE_CONFLICT, 0);
	else if (p->failed.failed)
		r = dmtp_response_make(DMTP_Z, DMTP_CODE_STORAGE, 60);
	else
		r.failed = buffer_slice(&p->failed);
	if (r.letter != DMTP_K)
		log_refusal(p, dmtp_code_name(r.code));
	else if (p->failed_n > p->throttled_n)
		log_refusal(p, dmtp_code_name(DMTP_CODE_CHANNEL_CLOSED));
	else if (p->failed_n > 0)
		log_refusal(p, dmtp_code_name(DMTP_CODE_THROTTLED));
	metric_add(&rcpts_closed, (int64_t)(p->failed_n - p->throttled_n));
	metric_add(&rcpts_throttled, (int64_t)p->throttled_n);
	metric_add(&rcpts_stored, p->down ? 0 : (int64_t)(p->rcpts_n - p->failed_n));
	dmtp_session_reply(p->session, p->seq, &r);
}

/* --- One at a time of what shares an id or a digest ---------------------------------------- */

static struct key *
key_find(struct posts *posts, const struct key *key)
{
	struct key *found;

	HASH_FIND(hh, posts->keys, key->octets, key->len, found);
	return found;
}

static void
key_set(struct key *key, struct post *p, char kind, struct slice a, struct slice b)
{
	size_t at = 0;

	key->post = p;
	key->octets[at++] = (uint8_t)kind;
	memcpy(key->octets + at, a.data, a.len);
	at += a.len;
	key->octets[at++] = 0;
	memcpy(key->octets + at, b.data, b.len);
	key->len = at + b.len;
}

static bool
keys_take(struct post *p)
{
	struct posts *posts = p->posts;

	if (key_find(posts, &p->by_id) != NULL || key_find(posts, &p->by_digest) != NULL)
		return false;
	HASH_ADD(hh, posts->keys, octets, p->by_id.len, &p->by_id);
	HASH_ADD(hh, posts->keys, octets, p->by_digest.len, &p->by_digest);
	p->keyed = true;
	return true;
}

/* One that waited has a grant, which the store answers later: submit comes back here but once. */
static void
keys_give(struct post *p) /* NOLINT(misc-no-recursion): see above */
{
	struct posts *posts = p->posts;
	struct post *waiting = posts->waiting;

	if (!p->keyed)
		return;
	HASH_DELETE(hh, posts->keys, &p->by_id);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): keyed: both stand in keys */
	HASH_DELETE(hh, posts->keys, &p->by_digest);
	p->keyed = false;
	posts->waiting = NULL;
	posts->waiting_end = &posts->waiting;
	while (waiting != NULL) {
		struct post *next = waiting->next;

		waiting->next = NULL;
		submit(waiting);
		waiting = next;
	}
}

/* --- The store's answers --------------------------------------------------------------------- */

static void
part_done(struct post *p) /* NOLINT(misc-no-recursion): see keys_give */
{
	if (--p->parts > 0)
		return;
	answer(p);
	keys_give(p);
	post_free(p);
}

static void
on_revived(void *arg)
{
	struct post *p = arg;

	if (p->arrival.job.rc != STORE_OK)
		p->down = true;
	else
		pickups_arrived(p->posts->home->pickups, &p->arrival);
	part_done(p);
}

/* Recalled before it came, but not for all of these. */
static void
revive(struct post *p)
{
	struct home *home = p->posts->home;

	home_later(&p->later, home, &p->arrival.job, on_revived, p);
	store_arrival_revive(home->store, &p->arrival);
}

static void
on_arrived(void *arg)
{
	struct post *p = arg;
	struct arrival *a = &p->arrival;

	if (a->job.rc != STORE_OK) {
		p->down = true;
	} else if (a->outcome == ARRIVAL_STORED) {
		bool any = false, person = strcmp(a->channel, "inbox") == 0;

		for (size_t i = 0; i < a->rcpts_n; i++) {
			if (a->rcpts[i].closed)
				close_rcpt(p, p->arrival_index[i]);
			else
				any = true;
			if (person && !a->rcpts[i].closed)
				count_contact(p, &a->rcpts[i]);
		}
		if (any && a->state == ARRIVAL_RECALLED && a->added > 0) {
			revive(p);
			return;
		}
		if (any)
			pickups_arrived(p->posts->home->pickups, a);
	}
	part_done(p);
}

static void
on_invited(void *arg)
{
	struct invite *v = arg;
	struct post *p = v->post;

	if (v->job.job.rc != STORE_OK)
		p->down = true;
	else /* shown or not: whether it is fetched must not tell whether there is such a member */
		pickups_invited(p->posts->home->pickups, &v->job);
	part_done(p);
}

/* --- Submitting -------------------------------------------------------------------------------- */

static void
submit_invite(struct invite *v)
{
	const struct arrival *a = &v->post->arrival;
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): take_rcpts set it when it counted v */
	struct home *home = v->post->posts->home;
	struct slice domain = dmtp_domain_of(a->from);

	registrable_domain(domain, &v->registrable);
	v->job.from = a->from;
	v->job.from_domain = domain;
	v->job.registrable = buffer_slice(&v->registrable);
	v->job.channel = v->post->channel;
	v->job.domain = dmtp_address_domain(&v->member);
	v->job.name = dmtp_address_local(&v->member);
	v->job.id = a->id;
	v->job.digest = a->digest;
	v->job.uris = a->uris;
	v->job.key = a->key;
	v->job.signature = a->signature;
	v->job.size = a->size;
	v->job.date_s = a->date_s;
	v->job.expires_us = a->expires_us;
	v->job.now_us = a->now_us;
	v->job.lease_until_us = a->lease_until_us;
	v->job.fresh_id = uuid_make();
	v->job.sender_id = id_make();
	v->job.domain_id = id_make();
	v->job.per_day = (int)home->config->home.invitations_per_day;
	v->job.slot = home->slot;
	home_later(&v->later, home, &v->job.job, on_invited, v);
	store_arrival_invite(home->store, &v->job);
}

/* Those of whom a contact's rate is used up are taken out, as throttled() does it with grants. */
static void
throttle_named(struct post *p)
{
	struct arrival *a = &p->arrival;
	size_t kept = 0, n = 0;

	for (size_t i = 0; i < a->rcpts_n; i++) {
		bool is_named = n < p->named.rcpts_n && p->named_at[n] == i;

		n += is_named;
		if (is_named && throttled(p, p->arrival_index[i], a->rcpts[i].grant))
			continue;
		p->arrival_index[kept] = p->arrival_index[i];
		a->rcpts[kept++] = a->rcpts[i];
	}
	a->rcpts_n = kept;
}

static void
on_named(void *arg)
{
	struct post *p = arg;

	p->named_asked = true;
	if (p->named.job.rc != STORE_OK) {
		p->down = true;
		p->parts = 1;
		part_done(p);
		return;
	}
	throttle_named(p);
	submit(p);
}

static void
submit(struct post *p) /* NOLINT(misc-no-recursion): see keys_give */
{
	struct home *home = p->posts->home;

	if (p->named.rcpts_n > 0 && !p->named_asked) {
		p->named.from = p->arrival.from;
		home_later(&p->later, home, &p->named.job, on_named, p);
		store_arrival_named(home->store, &p->named);
		return;
	}

	if (p->arrival.rcpts_n == 1 && !p->keyed && !keys_take(p)) {
		*p->posts->waiting_end = p;
		p->posts->waiting_end = &p->next;
		return;
	}
	p->parts = 1;
	p->arrival.now_us = clock_wall_us();
	p->arrival.lease_until_us = p->arrival.now_us + PICKUP_LEASE_US;
	p->arrival.want_accounts = live_any(home->live);
	p->arrival.slot = home->slot;
	/* A message is an entry or an invitation, and never both: those who granted come first. */
	if (p->arrival.rcpts_n > 0) {
		p->parts++;
		home_later(&p->later, home, &p->arrival.job, on_arrived, p);
		store_arrival(home->store, &p->arrival);
	}
	for (size_t i = 0; i < p->invites_n; i++) {
		p->parts++;
		submit_invite(&p->invites[i]);
	}
	part_done(p); /* of this call */
}

/* The peer names any integer; microseconds must hold it, and a year of four digits. */
static int64_t
end_us(const struct dmtp_post *post)
{
	if (!post->has_expires)
		return -1;
	return (post->expires < END_MAX_S ? post->expires : END_MAX_S) * 1000000;
}

static void
copy_post(struct post *p, const struct dmtp_post *post)
{
	struct arrival *a = &p->arrival;
	struct memory memory = { .at = p->memory };

	a->from = keep_address(&memory, post->from);
	a->id = keep(&memory, post->id);
	a->digest = keep(&memory, post->digest);
	a->replaces = keep(&memory, post->replaces);
	a->uris = keep_uris(&memory, post);
	a->key = keep(&memory, post->key);
	a->signature = keep(&memory, post->signature);
	p->channel = keep(&memory, post->channel);
	a->size = post->size;
	a->date_s = post->date;
	a->expires_us = end_us(post);
	a->fresh_id = uuid_make();
	take_rcpts(p, &memory, post);
	key_set(&p->by_id, p, 'i', dmtp_domain_of(a->from), a->id);
	key_set(&p->by_digest, p, 'd', a->from, a->digest);
}

static bool
make_room(struct post *p, const struct rcpt_counts *n)
{
	p->arrival.rcpts = calloc(n->grants + n->named + 1, sizeof(*p->arrival.rcpts));
	p->arrival_index = calloc(n->grants + n->named + 1, sizeof(*p->arrival_index));
	p->invites = calloc(n->invites + 1, sizeof(*p->invites));
	p->named.rcpts = calloc(n->named + 1, sizeof(*p->named.rcpts));
	p->named_at = calloc(n->named + 1, sizeof(*p->named_at));
	p->named_address = calloc(n->named + 1, sizeof(*p->named_address));
	return p->arrival.rcpts != NULL && p->arrival_index != NULL && p->invites != NULL &&
	       p->named.rcpts != NULL && p->named_at != NULL && p->named_address != NULL;
}

void
posts_take(struct posts *posts, struct dmtp_session *s, uint64_t seq,
           const struct dmtp_post *post, size_t octets)
{
	struct post *p = calloc(1, sizeof(*p));
	struct dmtp_response down = command_response_down();
	struct rcpt_counts n;

	if (p == NULL || !count_rcpts(post, &n)) {
		free(p);
		dmtp_session_reply(s, seq, &down);
		return;
	}
	p->posts = posts;
	p->octets = octets;
	posts->octets += octets;
	p->session = s;
	p->seq = seq;
	p->rcpts_n = post->rcpt_count;
	buffer_init(&p->failed, DMTP_RESPONSE_MAX);
	p->memory = malloc(octets);
	if (!make_room(p, &n) || p->memory == NULL) {
		post_free(p);
		dmtp_session_reply(s, seq, &down);
		return;
	}
	copy_post(p, post);
	submit(p);
}

bool
posts_have_room(const struct posts *posts)
{
	return posts->octets < POSTS_OCTETS;
}

struct posts *
posts_new(struct home *home)
{
	struct posts *posts = calloc(1, sizeof(*posts));
	unsigned per_minute = home->config->home.contact_messages_per_minute;

	if (posts == NULL)
		return NULL;
	posts->home = home;
	posts->waiting_end = &posts->waiting;
	posts->rule = (struct guard_rule){ .kind = 'm',
		                           .burst = per_minute,
		                           .every_us = MINUTE_US / per_minute };
	posts->guard = guard_make(GRANTS_COUNTED);
	if (posts->guard == NULL)
		posts_free(&posts);
	return posts;
}

void
posts_free(struct posts **posts)
{
	if (*posts != NULL)
		guard_free(&(*posts)->guard);
	free(*posts);
	*posts = NULL;
}
