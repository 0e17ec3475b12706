/*
 * Commands of other servers: see commands.h. GRANT and CHANNELS are answered
 * here; POST and RECEIPT have files of their own.
 */
#include "home/commands.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "home/auths.h"
#include "home/guard.h"
#include "home/contacts.h"
#include "home/posts.h"
#include "home/presence.h"
#include "home/recalls.h"
#include "home/receipts.h"
#include "home/registrable.h"
#include "store/channels_asked.h"
#include "store/inboxes.h"
#include "store/members.h"

#include <sodium.h>
#include <stdlib.h>

#define DOWN_RETRY_S 5
/*
 * What changed less than so long ago is left for the next question: a change
 * that was made earlier may be committed later, and a cursor would pass it by.
 */
#define SETTLED_US INT64_C(5000000)

#define VERB_SHOWN 32 /* octets of one that nobody knows */

METRIC_DEFINE(commands_refused, METRIC_COUNTER, "tmtp_dmtp_commands_refused_total", NULL,
              "Commands of other servers that were refused.");

METRIC_DEFINE(commands_unverified, METRIC_COUNTER, "tmtp_dmtp_identities_refused_total",
              "reason=\"unverified-sender\"", "Identities of other servers that were refused.");

struct dmtp_response
command_response_down(void)
{
	struct dmtp_response r = dmtp_response_make(DMTP_Z, DMTP_CODE_STORAGE, DOWN_RETRY_S);

	r.text = SLICE("the database is not available");
	return r;
}

void
command_tell_refused(const struct dmtp_session *s, struct slice verb, struct slice from,
                     enum dmtp_code code, const char *detail)
{
	if (verb.len > VERB_SHOWN)
		verb.len = VERB_SHOWN;
	metric_add(&commands_refused, 1);
	if (code == DMTP_CODE_UNVERIFIED_SENDER)
		metric_add(&commands_unverified, 1);
	if (detail == NULL)
		log_info("command-refused", LOG_S("address", dmtp_session_address(s)),
		         LOG_B("verb", verb), LOG_B("from", from),
		         LOG_S("reason", dmtp_code_name(code)));
	else
		log_info("command-refused", LOG_S("address", dmtp_session_address(s)),
		         LOG_B("verb", verb), LOG_B("from", from),
		         LOG_S("reason", dmtp_code_name(code)), LOG_S("detail", detail));
}

static void
refuse(struct dmtp_session *s, uint64_t seq, const struct dmtp_command *command,
       struct dmtp_verdict v)
{
	struct dmtp_response r =
	    dmtp_response_make(v.letter, v.code, v.letter == DMTP_Z ? 60 : 0);

	if (v.why != NULL)
		r.text = slice_str(v.why);
	if (v.letter != DMTP_K)
		command_tell_refused(s, slice_str(dmtp_verb_name(command->verb)),
		                     dmtp_command_from(command), v.code, v.why);
	dmtp_session_reply(s, seq, &r);
}

static void
reply_down(struct dmtp_session *s, uint64_t seq)
{
	struct dmtp_response down = command_response_down();

	dmtp_session_reply(s, seq, &down);
}

/* --- GRANT ------------------------------------------------------------------------ */

struct grant_call {
	struct member_grant job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	struct dmtp_address from, to;
	char channel[32];
	uint8_t grant[DMTP_GRANT_LEN];
	struct consent_change answer; /* of a person to a person */
	struct buffer registrable;
};

/* A person heard something of a contact: it is looked at again, and presence agreed is told. */
static void
person_told(struct grant_call *c)
{
	struct home *home = dmtp_session_home(c->session);

	if (c->job.account_id == 0 || !c->job.changed)
		return;
	contact_tell(home->live, c->job.account_id, dmtp_address_slice(&c->from));
	if (c->job.presence)
		presence_touch(home->presence, c->job.account_id);
}

/* The end of a GRANT; the one thing that is left is its reply. */
static void
grant_end(struct grant_call *c, enum store_rc rc)
{
	struct dmtp_response k = DMTP_RESPONSE_K;

	if (rc != STORE_OK)
		reply_down(c->session, c->seq);
	else
		dmtp_session_reply(c->session, c->seq, &k);
	buffer_free(&c->registrable);
	free(c);
}

static void
on_answered(void *arg)
{
	struct grant_call *c = arg;

	if (c->answer.job.rc == STORE_OK)
		person_told(c);
	grant_end(c, c->answer.job.rc);
}

/*
 * A person whom a member invited has said yes: her inbox is open to them, too.
 * Before the K, so that a lost yes comes again.
 */
static void
answer_person(struct grant_call *c)
{
	struct home *home = dmtp_session_home(c->session);
	struct consent_change *a = &c->answer;

	registrable_domain(c->job.domain, &c->registrable);
	a->account_id = c->job.account_id;
	a->sender = dmtp_address_slice(&c->from);
	a->sender_domain = c->job.domain;
	a->registrable = buffer_slice(&c->registrable);
	a->channel = c->job.channel;
	a->state = CONSENT_GRANTED;
	a->why = c->job.joined ? CONSENT_ANSWER_ANEW : CONSENT_ANSWER;
	randombytes_buf(a->grant_id, sizeof(a->grant_id));
	a->changed_id = uuid_make();
	a->sender_id = id_make();
	a->domain_id = id_make();
	a->now_us = c->job.now_us;
	home_later(&c->later, home, &a->job, on_answered, c);
	store_consent_change(home->store, a);
}

static void
on_granted(void *arg)
{
	struct grant_call *c = arg;

	if (c->job.job.rc == STORE_OK && c->job.changed)
		log_info("grant-taken", LOG_B("from", dmtp_address_slice(&c->from)),
		         LOG_B("to", dmtp_address_slice(&c->to)), LOG_S("channel", c->channel),
		         LOG_S("state", member_state_name(c->job.state)));
	if (c->job.job.rc == STORE_OK && c->job.account_id != 0 &&
	    c->job.state == MEMBER_GRANTED) {
		answer_person(c);
		return;
	}
	if (c->job.job.rc == STORE_OK)
		person_told(c);
	grant_end(c, c->job.job.rc);
}

static enum member_state
state_of(enum dmtp_state state)
{
	return state == DMTP_GRANTED   ? MEMBER_GRANTED
	       : state == DMTP_REFUSED ? MEMBER_REFUSED
	                               : MEMBER_REVOKED;
}

static void
take_grant(struct dmtp_session *s, uint64_t seq, const struct dmtp_grant *g)
{
	struct home *home = dmtp_session_home(s);
	struct grant_call *c = calloc(1, sizeof(*c));
	struct dmtp_response k = DMTP_RESPONSE_K;

	if (c == NULL) {
		reply_down(s, seq);
		return;
	}
	if (dmtp_address_parse(g->from, &c->from) != DMTP_ADDRESS_OK ||
	    dmtp_address_parse(g->to, &c->to) != DMTP_ADDRESS_OK ||
	    g->channel.len >= sizeof(c->channel)) {
		free(c); /* names nobody: K whether or not it exists */
		dmtp_session_reply(s, seq, &k);
		return;
	}
	c->session = s;
	c->seq = seq;
	buffer_init(&c->registrable, DMTP_DOMAIN_MAX + 1);
	memcpy(c->channel, g->channel.data, g->channel.len);
	if (g->grant.len == sizeof(c->grant))
		memcpy(c->grant, g->grant.data, g->grant.len);
	c->job.domain = dmtp_address_domain(&c->from);
	c->job.member = dmtp_address_local(&c->from);
	c->job.site_domain = dmtp_address_domain(&c->to);
	c->job.site_name = dmtp_address_local(&c->to);
	c->job.channel = slice_str(c->channel);
	c->job.state = state_of(g->state);
	c->job.grant_id = slice_mem(c->grant, g->grant.len);
	c->job.receipts = g->receipts;
	c->job.presence = g->presence;
	c->job.date_s = g->date;
	c->job.now_us = clock_wall_us();
	home_later(&c->later, home, &c->job.job, on_granted, c);
	store_member_grant(home->store, &c->job);
}

/* --- CHANNELS {from, users} --------------------------------------------------------- */

struct channels_call {
	struct channels_get job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	struct dmtp_address from;
	uint8_t *memory;       /* what written borrows from */
	struct slice *written; /* as they were asked for, sorted, each once */
	size_t written_n;
	struct dmtp_address *users; /* those of them that are addresses, sorted */
	struct slice *slices;       /* each once */
};

static void
channels_free(struct channels_call *c)
{
	channels_get_clear(&c->job);
	free(c->memory);
	free(c->written);
	free(c->users);
	free(c->slices);
	free(c);
}

static int
compare_slices(const void *a, const void *b)
{
	return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static int
compare_users(const void *a, const void *b)
{
	return slice_cmp(dmtp_address_slice(a), dmtp_address_slice(b));
}

/* The first row of that address, or where it would stand: rows are sorted. */
static size_t
find_row(const struct channels_call *c, struct slice address)
{
	size_t low = 0, high = c->job.rows_n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (slice_cmp(slice_str(c->job.rows[middle].address), address) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
put_open(const struct channels_call *c, struct slice address, struct buffer *inside)
{
	for (size_t row = find_row(c, address);
	     row < c->job.rows_n && slice_eq_str(address, c->job.rows[row].address); row++) {
		struct dmtp_open_channel open = {
			.id = slice_mem(c->job.rows[row].grant, DMTP_GRANT_LEN),
			.name = slice_str(c->job.rows[row].channel),
		};

		dmtp_channels_put(inside, &open);
	}
}

/* Each asked user is a key as it was written, known or not, an address or not. */
static void
put_channels(const struct channels_call *c, struct buffer *inside)
{
	struct dmtp_address user;

	for (size_t i = 0; i < c->written_n; i++) {
		dmtp_channels_open(inside, c->written[i]);
		if (dmtp_address_parse(c->written[i], &user) == DMTP_ADDRESS_OK)
			put_open(c, dmtp_address_slice(&user), inside);
		dmtp_channels_close(inside);
	}
}

static void
on_channels(void *arg)
{
	struct channels_call *c = arg;
	struct dmtp_response r = DMTP_RESPONSE_K;
	struct buffer inside;

	buffer_init(&inside, DMTP_RESPONSE_MAX);
	if (c->job.job.rc == STORE_OK)
		put_channels(c, &inside);
	if (c->job.job.rc != STORE_OK || inside.failed) {
		reply_down(c->session, c->seq);
	} else {
		r.has_channels = true;
		r.channels = buffer_slice(&inside);
		dmtp_session_reply(c->session, c->seq, &r);
	}
	buffer_free(&inside);
	channels_free(c);
}

static void
read_written(struct channels_call *c, const struct dmtp_channels *channels)
{
	struct ben_reader it;
	uint8_t *at = c->memory;
	size_t n = 0;

	ben_reader_init(&it, channels->users);
	for (; ben_more(&it); n++) {
		struct slice user = ben_get_str(&it);

		if (user.len > 0)
			memcpy(at, user.data, user.len);
		c->written[n] = slice_mem(at, user.len);
		at += user.len;
	}
	qsort(c->written, n, sizeof(c->written[0]), compare_slices);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || !slice_eq(c->written[i], c->written[c->written_n - 1]))
			c->written[c->written_n++] = c->written[i];
}

static void
read_users(struct channels_call *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->written_n; i++)
		if (dmtp_address_parse(c->written[i], &c->users[n]) == DMTP_ADDRESS_OK)
			n++;
	qsort(c->users, n, sizeof(c->users[0]), compare_users);
	c->job.users = c->slices;
	for (size_t i = 0; i < n; i++)
		if (i == 0 || !dmtp_address_eq(&c->users[i], &c->users[i - 1]))
			c->slices[c->job.users_n++] = dmtp_address_slice(&c->users[i]);
}

static void
take_users(struct dmtp_session *s, uint64_t seq, const struct dmtp_channels *channels)
{
	struct home *home = dmtp_session_home(s);
	struct channels_call *c = calloc(1, sizeof(*c));

	if (c != NULL) {
		c->memory = malloc(channels->users.len + 1);
		c->written = calloc(channels->user_count + 1, sizeof(*c->written));
		c->users = calloc(channels->user_count + 1, sizeof(*c->users));
		c->slices = calloc(channels->user_count + 1, sizeof(*c->slices));
	}
	if (c == NULL || c->memory == NULL || c->written == NULL || c->users == NULL ||
	    c->slices == NULL ||
	    dmtp_address_parse(channels->from, &c->from) != DMTP_ADDRESS_OK) {
		if (c != NULL)
			channels_free(c);
		reply_down(s, seq);
		return;
	}
	c->session = s;
	c->seq = seq;
	c->job.from = dmtp_address_slice(&c->from);
	read_written(c, channels);
	read_users(c);
	home_later(&c->later, home, &c->job.job, on_channels, c);
	store_channels_get(home->store, &c->job);
}

/* --- CHANNELS {from, since} ----------------------------------------------------------- */

struct since_call {
	struct channels_since job; /* first */
	struct home_later later;
	struct dmtp_session *session;
	uint64_t seq;
	struct dmtp_address from;
};

static void
put_events(const struct since_call *c, struct buffer *inside)
{
	static const enum dmtp_state states[] = { [CONSENT_GRANTED] = DMTP_GRANTED,
		                                  [CONSENT_REFUSED] = DMTP_REFUSED,
		                                  [CONSENT_REVOKED] = DMTP_REVOKED };

	for (size_t i = 0; i < c->job.rows_n; i++) {
		const struct consent_event *e = &c->job.rows[i];
		struct dmtp_grant g = {
			.from = slice_str(e->address),
			.to = dmtp_address_slice(&c->from),
			.channel = slice_str(e->channel),
			.state = states[e->state & 3],
			.receipts = e->receipts,
			.presence = e->presence,
			.date = e->date_s,
		};

		if (e->has_grant && e->state != CONSENT_REFUSED)
			g.grant = slice_mem(e->grant, sizeof(e->grant));
		dmtp_grant_put(&g, inside);
	}
}

static void
on_since(void *arg)
{
	struct since_call *c = arg;
	struct dmtp_response r = DMTP_RESPONSE_K;
	struct buffer inside;
	char next[UUID_TEXT] = "";

	buffer_init(&inside, DMTP_RESPONSE_MAX);
	if (c->job.job.rc == STORE_OK)
		put_events(c, &inside);
	if (c->job.job.rc != STORE_OK || inside.failed) {
		reply_down(c->session, c->seq);
	} else {
		uuid_format(c->job.rows_n > 0 ? &c->job.rows[c->job.rows_n - 1].changed_id
		                              : &c->job.since,
		            next);
		r.has_events = true;
		r.events = buffer_slice(&inside);
		r.next = slice_str(next);
		dmtp_session_reply(c->session, c->seq, &r);
	}
	buffer_free(&inside);
	channels_since_clear(&c->job);
	free(c);
}

static void
take_since(struct dmtp_session *s, uint64_t seq, const struct dmtp_channels *channels)
{
	struct home *home = dmtp_session_home(s);
	struct since_call *c = calloc(1, sizeof(*c));
	struct dmtp_command command = { .verb = DMTP_CHANNELS, .channels = *channels };

	if (c == NULL || dmtp_address_parse(channels->from, &c->from) != DMTP_ADDRESS_OK) {
		free(c);
		reply_down(s, seq);
		return;
	}
	if (channels->since.len > 0 && !uuid_parse(channels->since, &c->job.since)) {
		free(c);
		refuse(s, seq, &command,
		       (struct dmtp_verdict){ DMTP_E, DMTP_CODE_MALFORMED,
		                              "since is no cursor of ours." });
		return;
	}
	c->session = s;
	c->seq = seq;
	c->job.from = dmtp_address_slice(&c->from);
	/* What fits into one response, however long the addresses are. */
	c->job.limit = DMTP_EVENTS_MAX;
	c->job.before_us = clock_wall_us() - SETTLED_US;
	home_later(&c->later, home, &c->job.job, on_since, c);
	store_channels_since(home->store, &c->job);
}

/* --- Rates ------------------------------------------------------------------------------ */

static size_t
weight(const struct dmtp_command *c)
{
	return c->verb == DMTP_POST && c->post.rcpt_count > 0 ? c->post.rcpt_count : 1;
}

/*
 * A domain that uses up its rate is told so with an I, early enough that one
 * that heeds it hears no Z; those of its commands that come nevertheless get it.
 */
static bool
within_rate(struct dmtp_session *s, uint64_t seq, const struct dmtp_command *c)
{
	struct home *home = dmtp_session_home(s);
	unsigned rate = home->config->home.max_rcpts_per_second, wait_s = 0;
	struct guard_rule rule = { .kind = 'r', .burst = rate };
	struct slice from = dmtp_domain_of(dmtp_command_from(c));
	struct dmtp_response r;
	bool good;

	if (rate == 0 || c->verb == DMTP_AUTH) /* whose command it is AUTH is yet to tell */
		return true;
	rule.every_us = INT64_C(1000000) / rate;
	good = guard_spend(home->rates, &rule, from, weight(c), clock_mono_us(), &wait_s);
	if (wait_s == 0)
		return true;
	r = dmtp_response_make(good ? DMTP_I : DMTP_Z, DMTP_CODE_THROTTLED, wait_s);
	r.text = SLICE("slower");
	if (good) {
		log_info("sender-throttled", LOG_S("address", dmtp_session_address(s)),
		         LOG_B("domain", from), LOG_I("retry_s", wait_s));
		dmtp_session_inform(s, &r);
		return true;
	}
	metric_add(&commands_refused, 1);
	dmtp_session_reply(s, seq, &r);
	return false;
}

/* --- All ---------------------------------------------------------------------------------- */

void
command_handle(struct dmtp_session *s, const struct dmtp_server_event *event)
{
	const struct dmtp_command *c = &event->command;
	struct slice from = dmtp_domain_of(dmtp_command_from(c));
	struct dmtp_verdict v = { DMTP_E, DMTP_CODE_UNKNOWN_COMMAND, NULL };

	if (c->verb == DMTP_POST || c->verb == DMTP_CHANNELS || c->verb == DMTP_GRANT ||
	    c->verb == DMTP_AUTH || c->verb == DMTP_PRESENCE || c->verb == DMTP_RECEIPT)
		v = dmtp_command_check(c, dmtp_session_limits(s),
		                       dmtp_session_is_verified(s, from), clock_wall_s());
	if (v.letter != 0)
		refuse(s, event->seq, c, v);
	else if (!within_rate(s, event->seq, c))
		return;
	else if (c->verb == DMTP_POST && c->post.recall.len > 0)
		recalls_take(s, event->seq, &c->post, event->octets);
	else if (c->verb == DMTP_POST)
		posts_take(dmtp_session_home(s)->posts, s, event->seq, &c->post, event->octets);
	else if (c->verb == DMTP_AUTH)
		auths_take(dmtp_session_home(s)->auths, s, event->seq, &c->auth);
	else if (c->verb == DMTP_RECEIPT)
		receipts_take(s, event->seq, &c->receipt, event->octets);
	else if (c->verb == DMTP_GRANT)
		take_grant(s, event->seq, &c->grant);
	else if (c->verb == DMTP_PRESENCE)
		presence_take(s, event->seq, &c->presence);
	else if (c->channels.has_since)
		take_since(s, event->seq, &c->channels);
	else
		take_users(s, event->seq, &c->channels);
}
