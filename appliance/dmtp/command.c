/*
 * Decoding and judging commands: see command.h. Decoding fails on shapes only;
 * a value that is out of form is noted and judged after the counts.
 */
#include "dmtp/command.h"

#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "dmtp/uri.h"

static const char *const verb_names[] = {
	[DMTP_VERB_UNKNOWN] = "",     [DMTP_STARTTLS] = "STARTTLS", [DMTP_POST] = "POST",
	[DMTP_CHANNELS] = "CHANNELS", [DMTP_NOOP] = "NOOP",         [DMTP_QUIT] = "QUIT",
	[DMTP_AUTH] = "AUTH",         [DMTP_GRANT] = "GRANT",       [DMTP_RECEIPT] = "RECEIPT",
	[DMTP_PRESENCE] = "PRESENCE",
};
static const char *const channel_names[] = {
	[DMTP_CHANNEL_OTHER] = "",
	[DMTP_CHANNEL_INBOX] = "inbox",
	[DMTP_CHANNEL_SMTP] = "smtp",
	[DMTP_CHANNEL_INVITE] = "invite",
};
static const char *const state_names[] = {
	[0] = "",
	[DMTP_GRANTED] = "granted",
	[DMTP_REFUSED] = "refused",
	[DMTP_REVOKED] = "revoked",
};
static const char *const receipt_names[] = {
	[0] = "",
	[DMTP_READ] = "read",
	[DMTP_WITHDRAWN] = "withdrawn",
};

static const char *const presence_names[] = {
	[0] = "",
	[DMTP_OFFLINE] = "offline",
	[DMTP_ONLINE] = "online",
	[DMTP_AWAY] = "away",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static size_t
find_name(const char *const *names, size_t count, struct slice name)
{
	for (size_t i = 1; i < count; i++)
		if (slice_eq_str(name, names[i]))
			return i;
	return 0;
}

static const char *
name_at(const char *const *names, size_t count, size_t i)
{
	return i < count ? names[i] : "";
}

enum dmtp_well_known
dmtp_well_known_find(struct slice name)
{
	return (enum dmtp_well_known)find_name(channel_names, COUNT(channel_names), name);
}

const char *
dmtp_well_known_name(enum dmtp_well_known c)
{
	return name_at(channel_names, COUNT(channel_names), (size_t)c);
}

const char *
dmtp_verb_name(enum dmtp_verb verb)
{
	return name_at(verb_names, COUNT(verb_names), (size_t)verb);
}

const char *
dmtp_state_name(enum dmtp_state state)
{
	return name_at(state_names, COUNT(state_names), (size_t)state);
}

enum dmtp_state
dmtp_state_find(struct slice name)
{
	return (enum dmtp_state)find_name(state_names, COUNT(state_names), name);
}

const char *
dmtp_receipt_name(enum dmtp_receipt_kind kind)
{
	return name_at(receipt_names, COUNT(receipt_names), (size_t)kind);
}

const char *
dmtp_presence_name(enum dmtp_presence_state state)
{
	return name_at(presence_names, COUNT(presence_names), (size_t)state);
}

/* --- arguments ----------------------------------------------------------- */

static struct slice
need_str(struct ben_reader *r, const char *key)
{
	if (!ben_find(r, key))
		r->bad = true;
	return ben_get_str(r);
}

static int64_t
need_int(struct ben_reader *r, const char *key)
{
	if (!ben_find(r, key))
		r->bad = true;
	return ben_get_int(r);
}

static struct slice
need_list(struct ben_reader *r, const char *key)
{
	if (!ben_find(r, key))
		r->bad = true;
	return ben_get_list(r);
}

/* Empty: absent. One that is there and empty is out of form. */
static struct slice
maybe_str(struct ben_reader *r, const char *key, bool *values_bad)
{
	struct slice s = { NULL, 0 };

	if (!ben_find(r, key))
		return s;
	s = ben_get_str(r);
	if (s.len == 0)
		*values_bad = true;
	return s;
}

/* A list of strings, each of them judged unless is_valid is NULL. */
static size_t
count_strings(struct ben_reader *r, struct slice inside, bool (*is_valid)(struct slice),
              bool *values_bad)
{
	struct ben_reader it;
	size_t n = 0;

	ben_reader_init(&it, inside);
	for (; ben_more(&it); n++) {
		struct slice s = ben_get_str(&it);

		if (is_valid != NULL && !is_valid(s))
			*values_bad = true;
	}
	if (it.bad)
		r->bad = true;
	return n;
}

static bool
is_address(struct slice s)
{
	struct dmtp_address a;

	return dmtp_address_parse(s, &a) == DMTP_ADDRESS_OK;
}

/* --- POST ---------------------------------------------------------------- */

/* [grant, {…}] or [address, channel]. */
static void
read_rcpt_list(struct ben_reader *it, struct dmtp_rcpt *out, bool *values_bad)
{
	struct slice first;

	ben_enter_list(it);
	first = ben_get_str(it);
	if (ben_peek(it) == BEN_DICT) {
		out->vars = ben_get_raw(it);
		out->grant = first.data;
		if (first.len != DMTP_GRANT_LEN || !dmtp_vars_valid(out->vars))
			*values_bad = true;
	} else {
		out->address = first;
		out->channel = ben_get_str(it);
		out->known = dmtp_well_known_find(out->channel);
	}
	ben_leave(it);
}

/* A wrong shape makes it bad. */
static inline void
read_rcpt(struct ben_reader *it, struct dmtp_rcpt *out, bool *values_bad)
{
	*out = (struct dmtp_rcpt){ .grant = NULL };
	/* nearly all there are in a broadcast */
	if (it->end - it->at >= 23 && memcmp(it->at, "20:", 3) == 0) {
		out->grant = it->at + 3;
		it->at += 23;
	} else if (ben_peek(it) == BEN_LIST) {
		read_rcpt_list(it, out, values_bad);
	} else {
		struct slice grant = ben_get_str(it);

		out->grant = grant.data;
		if (grant.len != DMTP_GRANT_LEN)
			*values_bad = true;
	}
}

bool
dmtp_rcpt_next(struct ben_reader *it, struct dmtp_rcpt *out)
{
	struct dmtp_rcpt one;
	bool values_bad = false;

	if (!ben_more(it))
		return false;
	read_rcpt(it, &one, &values_bad);
	if (values_bad)
		it->bad = true;
	if (it->bad)
		return false;
	*out = one;
	return true;
}

static bool
same_letters(struct slice a, struct slice b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++) {
		uint8_t x = a.data[i], y = b.data[i];

		x = x >= 'A' && x <= 'Z' ? x | 0x20 : x;
		y = y >= 'A' && y <= 'Z' ? y | 0x20 : y;
		if (x != y)
			return false;
	}
	return true;
}

/* Counts them; addresses must be one and the same, for the message has one "to". */
static void
scan_rcpts(struct ben_reader *r, struct dmtp_post *p)
{
	struct ben_reader it;
	struct dmtp_rcpt one;
	struct slice address = { NULL, 0 };

	ben_reader_init(&it, p->rcpts);
	for (; ben_more(&it); p->rcpt_count++) {
		read_rcpt(&it, &one, &p->values_bad);
		if (one.vars.len > 0)
			p->shared = true;
		if (one.grant != NULL)
			continue;
		if (one.known == DMTP_CHANNEL_INVITE)
			p->invites = true;
		if (address.data != NULL && !same_letters(address, one.address))
			p->values_bad = true;
		address = one.address;
	}
	if (it.bad)
		r->bad = true;
}

static void
read_post(struct ben_reader *r, struct dmtp_post *p)
{
	*p = (struct dmtp_post){ .values_bad = false };
	p->channel = maybe_str(r, "channel", &p->values_bad);
	p->date = need_int(r, "date");
	p->digest = need_str(r, "digest");
	p->has_expires = ben_find(r, "expires");
	if (p->has_expires)
		p->expires = ben_get_int(r);
	p->from = need_str(r, "from");
	p->id = need_str(r, "id");
	p->key = maybe_str(r, "key", &p->values_bad);
	p->rcpts = need_list(r, "rcpts");
	p->recall = maybe_str(r, "recall", &p->values_bad);
	p->replaces = maybe_str(r, "replaces", &p->values_bad);
	p->signature = maybe_str(r, "signature", &p->values_bad);
	p->size = need_int(r, "size");
	if (ben_find(r, "uris"))
		p->uris = ben_get_list(r);
	else if (p->recall.len == 0)
		r->bad = true;
	p->uri_count = count_strings(r, p->uris, dmtp_uri_possible, &p->values_bad);
	scan_rcpts(r, p);
}

#define NO_FORM "A value is not of its form."

/* NULL: it is within POST's bounds. */
static const char *
date_fault(int64_t date, int64_t now_s)
{
	if (date > now_s + DMTP_FUTURE_S)
		return "The date is more than an hour ahead: one of the two clocks is wrong.";
	if (date < now_s - DMTP_PAST_S)
		return "The date is more than 30 days old.";
	return NULL;
}

static bool
earlier_id_valid(struct slice earlier, struct slice id)
{
	return earlier.len == 0 || (dmtp_id_valid(earlier) && !slice_eq(earlier, id));
}

/* What an invitation may offer: no channel of a site has the name of one that everybody has. */
static bool
may_be_offered(struct slice channel)
{
	return text_is_name(channel) && !slice_eq_str(channel, "invite") &&
	       !slice_eq_str(channel, "smtp");
}

static const char *
recall_fault(const struct dmtp_post *p)
{
	bool recall = p->recall.len > 0;

	if (recall != (p->uri_count == 0))
		return "A message has uris, a recall has none.";
	if (recall && p->replaces.len > 0)
		return "A recall replaces nothing.";
	if (!earlier_id_valid(p->recall, p->id) || !earlier_id_valid(p->replaces, p->id))
		return "recall and replaces name the id of another message.";
	return NULL;
}

static const char *
key_fault(const struct dmtp_post *p)
{
	if ((p->key.len > 0) != (p->signature.len > 0))
		return "key and signature go together.";
	if (p->key.len > 0 &&
	    !(dmtp_id_valid(p->key) && p->signature.len == DMTP_SIGNATURE_LEN))
		return "key or signature is not of its form.";
	return NULL;
}

/* What is wrong with the values, NULL when nothing is. */
static const char *
post_fault(const struct dmtp_post *p, int64_t now_s)
{
	const char *why;

	if (p->values_bad)
		return "A value is not of its form, or rcpts do not go together.";
	if (!is_address(p->from))
		return "from is no address.";
	if (!dmtp_id_valid(p->id))
		return "id is not of its form.";
	if ((why = date_fault(p->date, now_s)) != NULL)
		return why;
	if (p->digest.len != DMTP_DIGEST_LEN)
		return "digest is not as long as SHA-256.";
	if (p->size < 1)
		return "size is at least 1.";
	if (p->rcpt_count < 1)
		return "rcpts is empty.";
	if (p->invites && !may_be_offered(p->channel))
		return "channel is nothing to invite to.";
	return (why = key_fault(p)) != NULL ? why : recall_fault(p);
}

static struct dmtp_verdict
refuse(enum dmtp_code code)
{
	return (struct dmtp_verdict){ DMTP_E, code, NULL };
}

#define TOO_MANY_RCPTS "More entries in one command than the greeting's limit rcpts allows."

static struct dmtp_verdict
over(const char *why)
{
	return (struct dmtp_verdict){ DMTP_E, DMTP_CODE_LIMIT, why };
}

static struct dmtp_verdict
malformed(const char *why)
{
	return (struct dmtp_verdict){ DMTP_E, DMTP_CODE_MALFORMED, why };
}

static struct dmtp_verdict
check_post(const struct dmtp_post *p, const struct dmtp_limits *limits, int64_t now_s)
{
	const char *why = post_fault(p, now_s);

	if (p->rcpt_count > limits->rcpts)
		return over(TOO_MANY_RCPTS);
	if (p->uri_count > limits->uris)
		return over("More uris than the greeting's limits allow.");
	if (why != NULL)
		return malformed(why);
	if ((uint64_t)p->size > limits->message_octets)
		return (struct dmtp_verdict){
			DMTP_E, DMTP_CODE_TOO_LARGE,
			"size is more than the greeting's limit for a message."
		};
	if (p->has_expires && p->expires < now_s)
		return (struct dmtp_verdict){ DMTP_K, DMTP_CODE_NONE, NULL };
	return DMTP_VERDICT_PASS;
}

/* --- CHANNELS ------------------------------------------------------------ */

static void
read_channels(struct ben_reader *r, struct dmtp_channels *c)
{
	bool has_users;

	*c = (struct dmtp_channels){ .has_since = false };
	c->from = need_str(r, "from");
	c->has_since = ben_find(r, "since");
	if (c->has_since)
		c->since = ben_get_str(r);
	has_users = ben_find(r, "users");
	if (has_users)
		c->users = ben_get_list(r);
	c->user_count = count_strings(r, c->users, NULL, NULL);
	if (has_users == c->has_since) /* one is asked, not both and not neither */
		r->bad = true;
}

static struct dmtp_verdict
check_channels(const struct dmtp_channels *c, const struct dmtp_limits *limits)
{
	if (c->user_count > limits->rcpts)
		return over(TOO_MANY_RCPTS);
	if (!is_address(c->from))
		return malformed("from is no address.");
	if (c->since.len > DMTP_CURSOR_MAX)
		return malformed("since is longer than any cursor.");
	return DMTP_VERDICT_PASS;
}

/* --- GRANT --------------------------------------------------------------- */

static void
read_grant(struct ben_reader *r, struct dmtp_grant *g)
{
	int64_t receipts = 0, presence = 0;
	bool refused;

	*g = (struct dmtp_grant){ .values_bad = false };
	g->channel = need_str(r, "channel");
	g->date = need_int(r, "date");
	g->from = need_str(r, "from");
	g->grant = maybe_str(r, "grant", &g->values_bad);
	if (ben_find(r, "presence"))
		presence = ben_get_int(r);
	if (ben_find(r, "receipts"))
		receipts = ben_get_int(r);
	g->presence = presence == 1;
	g->receipts = receipts == 1;
	g->state = dmtp_state_find(need_str(r, "state"));
	g->to = need_str(r, "to");
	refused = g->state == DMTP_REFUSED;
	if (receipts < 0 || receipts > 1 || presence < 0 || presence > 1 || g->state == 0 ||
	    g->grant.len != (refused ? 0 : DMTP_GRANT_LEN) || !text_is_name(g->channel) ||
	    !is_address(g->from) || !is_address(g->to))
		g->values_bad = true;
}

bool
dmtp_grant_next(struct ben_reader *it, struct dmtp_grant *out)
{
	struct dmtp_grant one;

	if (!ben_more(it))
		return false;
	ben_enter_dict(it);
	read_grant(it, &one);
	ben_leave(it);
	if (it->bad)
		return false;
	*out = one;
	return true;
}

static struct dmtp_verdict
check_grant(const struct dmtp_grant *g, int64_t now_s)
{
	const char *why = g->values_bad ? NO_FORM : date_fault(g->date, now_s);

	return why == NULL ? DMTP_VERDICT_PASS : malformed(why);
}

/* --- RECEIPT ------------------------------------------------------------- */

static void
read_receipt_row(struct ben_reader *it, struct dmtp_receipt_row *row, bool *values_bad)
{
	struct slice grant;

	ben_enter_list(it);
	row->id = ben_get_str(it);
	grant = ben_get_str(it);
	row->grant = grant.data;
	row->kind = (enum dmtp_receipt_kind)find_name(receipt_names, COUNT(receipt_names),
	                                              ben_get_str(it));
	row->date = ben_get_int(it);
	ben_leave(it);
	if (!dmtp_id_valid(row->id) || grant.len != DMTP_GRANT_LEN || row->kind == 0)
		*values_bad = true;
}

bool
dmtp_receipt_next(struct ben_reader *it, struct dmtp_receipt_row *out)
{
	struct dmtp_receipt_row one;
	bool values_bad = false;

	if (!ben_more(it))
		return false;
	read_receipt_row(it, &one, &values_bad);
	if (values_bad)
		it->bad = true;
	if (it->bad)
		return false;
	*out = one;
	return true;
}

static void
read_receipt(struct ben_reader *r, struct dmtp_receipt *c)
{
	struct dmtp_receipt_row row;
	struct ben_reader it;

	*c = (struct dmtp_receipt){ .values_bad = false };
	c->events = need_list(r, "events");
	c->from = need_str(r, "from");
	c->to = need_str(r, "to");
	ben_reader_init(&it, c->events);
	for (; ben_more(&it); c->event_count++)
		read_receipt_row(&it, &row, &c->values_bad);
	if (it.bad)
		r->bad = true;
	if (!is_address(c->from) || !is_address(c->to))
		c->values_bad = true;
}

static struct dmtp_verdict
check_receipt(const struct dmtp_receipt *c, const struct dmtp_limits *limits)
{
	if (c->event_count > limits->rcpts)
		return over(TOO_MANY_RCPTS);
	return c->values_bad ? malformed(NO_FORM) : DMTP_VERDICT_PASS;
}

/* --- PRESENCE ------------------------------------------------------------ */

const uint8_t *
dmtp_presence_next(struct ben_reader *it)
{
	struct slice grant;

	if (!ben_more(it))
		return NULL;
	grant = ben_get_str(it);
	if (grant.len != DMTP_GRANT_LEN)
		it->bad = true;
	return it->bad ? NULL : grant.data;
}

static void
read_presence(struct ben_reader *r, struct dmtp_presence *p)
{
	struct ben_reader it;
	bool has_until;

	*p = (struct dmtp_presence){ .values_bad = false };
	p->from = need_str(r, "from");
	p->rcpts = need_list(r, "rcpts");
	p->since = need_int(r, "since");
	p->state = (enum dmtp_presence_state)find_name(presence_names, COUNT(presence_names),
	                                               need_str(r, "state"));
	has_until = ben_find(r, "until");
	if (has_until)
		p->until = ben_get_int(r);
	ben_reader_init(&it, p->rcpts);
	for (; ben_more(&it); p->rcpt_count++)
		if (ben_get_str(&it).len != DMTP_GRANT_LEN)
			p->values_bad = true;
	if (it.bad)
		r->bad = true;
	if (p->state == 0 || has_until == (p->state == DMTP_OFFLINE) || p->since < 0 ||
	    p->rcpt_count == 0 || !is_address(p->from))
		p->values_bad = true;
}

static struct dmtp_verdict
check_presence(const struct dmtp_presence *p, const struct dmtp_limits *limits, int64_t now_s)
{
	if (p->rcpt_count > limits->rcpts)
		return over(TOO_MANY_RCPTS);
	if (p->values_bad)
		return malformed(NO_FORM);
	if (p->since > now_s + DMTP_FUTURE_S || p->until > now_s + DMTP_FUTURE_S)
		return malformed("since or until is more than an hour ahead.");
	return DMTP_VERDICT_PASS;
}

/* --- AUTH ---------------------------------------------------------------- */

static void
read_auth(struct ben_reader *r, struct dmtp_auth *a)
{
	a->domain = need_str(r, "domain");
	a->key = need_str(r, "key");
	a->signature = need_str(r, "signature");
	a->values_bad = !dmtp_domain_valid(a->domain) || !dmtp_id_valid(a->key) ||
	                a->signature.len != DMTP_SIGNATURE_LEN;
}

/* --- any command --------------------------------------------------------- */

static void
read_argument(struct ben_reader *r, struct dmtp_command *c)
{
	ben_enter_dict(r);
	switch (c->verb) {
	case DMTP_POST:
		read_post(r, &c->post);
		break;
	case DMTP_CHANNELS:
		read_channels(r, &c->channels);
		break;
	case DMTP_GRANT:
		read_grant(r, &c->grant);
		break;
	case DMTP_RECEIPT:
		read_receipt(r, &c->receipt);
		break;
	case DMTP_PRESENCE:
		read_presence(r, &c->presence);
		break;
	default:
		read_auth(r, &c->auth);
		break;
	}
	ben_leave(r);
}

enum dmtp_code
dmtp_command_decode(struct slice element, struct dmtp_command *out)
{
	struct dmtp_command c = { .verb = DMTP_VERB_UNKNOWN };
	struct ben_reader r;
	struct slice verb;

	out->wrong = NULL;
	ben_reader_init(&r, element);
	ben_enter_list(&r);
	verb = ben_get_str(&r);
	if (r.bad)
		return DMTP_CODE_MALFORMED;
	c.verb = (enum dmtp_verb)find_name(verb_names, COUNT(verb_names), verb);
	if (c.verb == DMTP_VERB_UNKNOWN)
		return DMTP_CODE_UNKNOWN_COMMAND;
	if (c.verb != DMTP_STARTTLS && c.verb != DMTP_NOOP && c.verb != DMTP_QUIT)
		read_argument(&r, &c);
	if (r.bad) {
		out->wrong = r.key;
		return DMTP_CODE_MALFORMED;
	}
	*out = c;
	return DMTP_CODE_NONE;
}

struct slice
dmtp_command_verb_sent(struct slice element)
{
	struct ben_reader r;

	ben_reader_init(&r, element);
	ben_enter_list(&r);
	return ben_get_str(&r);
}

enum dmtp_verb
dmtp_command_verb(struct slice element)
{
	return (enum dmtp_verb)find_name(verb_names, COUNT(verb_names),
	                                 dmtp_command_verb_sent(element));
}

struct slice
dmtp_command_from(const struct dmtp_command *c)
{
	switch (c->verb) {
	case DMTP_POST:
		return c->post.from;
	case DMTP_CHANNELS:
		return c->channels.from;
	case DMTP_GRANT:
		return c->grant.from;
	case DMTP_RECEIPT:
		return c->receipt.from;
	case DMTP_PRESENCE:
		return c->presence.from;
	case DMTP_AUTH:
		return c->auth.domain;
	default:
		return slice_mem(NULL, 0);
	}
}

struct dmtp_verdict
dmtp_command_check(const struct dmtp_command *c, const struct dmtp_limits *limits,
                   bool verified, int64_t now_s)
{
	if (c->verb == DMTP_AUTH)
		return c->auth.values_bad ? malformed(NO_FORM) : DMTP_VERDICT_PASS;
	if (!verified)
		return refuse(DMTP_CODE_UNVERIFIED_SENDER);
	switch (c->verb) {
	case DMTP_POST:
		return check_post(&c->post, limits, now_s);
	case DMTP_CHANNELS:
		return check_channels(&c->channels, limits);
	case DMTP_GRANT:
		return check_grant(&c->grant, now_s);
	case DMTP_RECEIPT:
		return check_receipt(&c->receipt, limits);
	case DMTP_PRESENCE:
		return check_presence(&c->presence, limits, now_s);
	default:
		return DMTP_VERDICT_PASS;
	}
}
