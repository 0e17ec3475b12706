/*
 * The pure parts of resolve.h: reading answers, ordering targets. Nothing here waits or
 * remembers.
 */
#include "net/resolve.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/random.h>

enum { TYPE_A = 1, TYPE_CNAME = 5, TYPE_SOA = 6, TYPE_AAAA = 28, TYPE_SRV = 33, CLASS_IN = 1 };
enum { RCODE_OK = 0, RCODE_NXDOMAIN = 3 };

#define MAX_CNAMES 16

/* --- a cursor that stays failed -------------------------------------------------- */

struct cursor {
	const uint8_t *data;
	size_t len, at;
	bool bad;
};

static uint8_t
get_u8(struct cursor *c)
{
	if (c->bad || c->at >= c->len) {
		c->bad = true;
		return 0;
	}
	return c->data[c->at++];
}

static uint16_t
get_u16(struct cursor *c)
{
	unsigned high = get_u8(c);

	return (uint16_t)(high << 8 | get_u8(c));
}

static uint32_t
get_u32(struct cursor *c)
{
	uint32_t high = get_u16(c);

	return high << 16 | get_u16(c);
}

static void
skip(struct cursor *c, size_t n)
{
	if (c->bad || n > c->len - c->at)
		c->bad = true;
	else
		c->at += n;
}

/*
 * Appends one label in lower case; false when it holds what no host name does,
 * or is too much.
 */
static bool
add_label(struct cursor *c, size_t n, char *out, size_t *used)
{
	bool plain = *used + (*used > 0) + n < RESOLVE_NAME;

	if (plain && *used > 0)
		out[(*used)++] = '.';
	for (size_t i = 0; i < n; i++) {
		uint8_t o = get_u8(c);

		if (o >= 'A' && o <= 'Z')
			o = (uint8_t)(o - 'A' + 'a');
		plain = plain && ((o >= 'a' && o <= 'z') || (o >= '0' && o <= '9') ||
		                  o == '-' || o == '_');
		if (plain)
			out[(*used)++] = (char)o;
	}
	return plain;
}

/*
 * Reads a name; pointers may only lead backwards, so there is an end. False,
 * with the cursor behind it, when the name is whole but no host name.
 * Source: RFC 1035 section 4.1.4.
 */
static bool
get_name(struct cursor *c, char out[static RESOLVE_NAME])
{
	struct cursor r = *c;
	size_t used = 0, limit = c->at;
	bool jumped = false, plain = true;
	uint8_t n;

	while ((n = get_u8(&r)) != 0 && !r.bad) {
		if ((n & 0xc0) == 0xc0) {
			size_t to = (size_t)(n & 0x3f) << 8 | get_u8(&r);

			if (!jumped)
				c->at = r.at;
			jumped = true;
			if (r.bad || to >= limit)
				r.bad = true;
			r.at = limit = to;
		} else if ((n & 0xc0) != 0) {
			r.bad = true;
		} else if (!add_label(&r, n, out, &used)) {
			plain = false;
		}
	}
	if (!jumped)
		c->at = r.at;
	c->bad = c->bad || r.bad;
	out[plain && !c->bad ? used : 0] = '\0';
	return plain && !c->bad;
}

/* --- messages ---------------------------------------------------------------------- */

struct record {
	char owner[RESOLVE_NAME];
	bool plain; /* owner is a host name */
	uint16_t type;
	uint32_t ttl_s;
	struct cursor data; /* the whole message, at the record's data */
	size_t end;         /* of the data */
};

static bool
get_record(struct cursor *c, struct record *r)
{
	uint16_t cls, len;

	r->plain = get_name(c, r->owner);
	r->type = get_u16(c);
	cls = get_u16(c);
	r->ttl_s = get_u32(c);
	if (r->ttl_s > INT32_MAX)
		r->ttl_s = 0; /* RFC 2181 section 8 */
	len = get_u16(c);
	r->data = *c;
	skip(c, len);
	r->end = c->at;
	r->plain = r->plain && cls == CLASS_IN;
	return !c->bad;
}

struct answers {
	struct cursor at; /* at the first answer */
	uint16_t count;
	uint16_t authorities;    /* records behind the answers */
	char name[RESOLVE_NAME]; /* owner of what is looked for, after the CNAMEs */
	uint32_t ttl_s;
};

static void
take_ttl(struct answers *a, uint32_t ttl_s)
{
	if (ttl_s < a->ttl_s)
		a->ttl_s = ttl_s;
}

/* The header and the questions. RESOLVE_FOUND: read on. */
static enum resolve_rc
open_message(struct slice message, struct answers *a)
{
	struct cursor *c = &a->at;
	char name[RESOLVE_NAME];
	uint16_t flags, questions;

	*c = (struct cursor){ .data = message.data, .len = message.len };
	a->ttl_s = INT32_MAX;
	skip(c, 2);
	flags = get_u16(c);
	questions = get_u16(c);
	a->count = get_u16(c);
	a->authorities = get_u16(c);
	skip(c, 2);
	for (; questions > 0 && !c->bad; questions--) {
		(void)get_name(c, name);
		skip(c, 4);
	}
	if (c->bad || (flags & 0x8000) == 0 || (flags & 0x0200) != 0)
		return RESOLVE_FAIL;
	if ((flags & 15) == RCODE_NXDOMAIN)
		return RESOLVE_NO_NAME;
	return (flags & 15) == RCODE_OK ? RESOLVE_FOUND : RESOLVE_FAIL;
}

/*
 * One more CNAME of a->name, if there is one. False: none (or the message is broken: later
 * reading finds that too).
 */
static bool
follow(struct answers *a)
{
	struct cursor c = a->at;
	struct record r;
	char next[RESOLVE_NAME];

	for (uint16_t i = 0; i < a->count && get_record(&c, &r); i++) {
		if (r.type != TYPE_CNAME || !r.plain || strcmp(r.owner, a->name) != 0)
			continue;
		if (!get_name(&r.data, next) || r.data.at != r.end)
			return false;
		memcpy(a->name, next, sizeof(next));
		take_ttl(a, r.ttl_s);
		return true;
	}
	return false;
}

static void
lower_name(const char *name, char out[static RESOLVE_NAME])
{
	size_t len = strlen(name);

	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len >= RESOLVE_NAME)
		len = 0;
	for (size_t i = 0; i < len; i++)
		out[i] =
		    (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
	out[len] = '\0';
}

static enum resolve_rc
open_answers(struct slice message, const char *name, struct answers *a)
{
	enum resolve_rc rc = open_message(message, a);

	lower_name(name, a->name);
	for (int i = 0; i < MAX_CNAMES && rc == RESOLVE_FOUND && follow(a); i++)
		;
	return rc;
}

/*
 * How long "there is none" may be kept: the zone's SOA record, behind the
 * answers, says it. UINT32_MAX: it is not there. Source: RFC 2308, section 5.
 */
static uint32_t
none_ttl(const struct answers *a)
{
	struct cursor c = a->at;
	uint32_t minimum;
	struct record r;

	for (unsigned i = 0; i < (unsigned)a->count + a->authorities && get_record(&c, &r);
	     i++) {
		if (i < a->count || r.type != TYPE_SOA || r.end - r.data.at < 20)
			continue;
		r.data.at = r.end - 4;
		minimum = get_u32(&r.data);
		return minimum < r.ttl_s ? minimum : r.ttl_s;
	}
	return UINT32_MAX;
}

/* SRV data; false when it is broken. An empty host is the root. */
static bool
get_target(struct record *r, struct resolve_target *t, bool *usable)
{
	struct cursor *c = &r->data;

	t->priority = get_u16(c);
	t->weight = get_u16(c);
	t->port = get_u16(c);
	*usable = get_name(c, t->host);
	return !c->bad && c->at == r->end;
}

enum resolve_rc
resolve_parse_service(struct slice message, const char *name, struct resolve_target *out,
                      size_t *count, uint32_t *ttl_s)
{
	struct answers a;
	struct record r;
	struct resolve_target t;
	enum resolve_rc rc = open_answers(message, name, &a);
	size_t found = 0, roots = 0, room = *count;
	bool usable;

	*count = 0;
	*ttl_s = none_ttl(&a);
	if (rc != RESOLVE_FOUND)
		return rc == RESOLVE_NO_NAME ? RESOLVE_NO_RECORD : rc;
	for (uint16_t i = 0; i < a.count; i++) {
		if (!get_record(&a.at, &r))
			return RESOLVE_FAIL;
		if (r.type != TYPE_SRV || !r.plain || strcmp(r.owner, a.name) != 0)
			continue;
		if (!get_target(&r, &t, &usable))
			return RESOLVE_FAIL;
		take_ttl(&a, r.ttl_s);
		if (usable && t.host[0] == '\0')
			roots++;
		else if (usable && t.port != 0 && found < room)
			out[found++] = t;
	}
	*count = found;
	if (found > 0 || roots > 0)
		*ttl_s = a.ttl_s;
	if (found > 0)
		return RESOLVE_FOUND;
	return roots > 0 ? RESOLVE_REFUSED : RESOLVE_NO_RECORD;
}

static bool
make_address(const struct record *r, bool v6, struct net_address *out)
{
	struct sockaddr_storage ss = { .ss_family = v6 ? AF_INET6 : AF_INET };
	size_t len = v6 ? 16 : 4;

	if (r->end - r->data.at != len)
		return false;
	if (v6)
		memcpy(&((struct sockaddr_in6 *)(void *)&ss)->sin6_addr,
		       r->data.data + r->data.at, len);
	else
		memcpy(&((struct sockaddr_in *)(void *)&ss)->sin_addr,
		       r->data.data + r->data.at, len);
	net_address_copy(out, (const struct sockaddr *)&ss,
	                 v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
	return true;
}

enum resolve_rc
resolve_parse_addresses(struct slice message, const char *name, bool v6,
                        struct net_address *out, size_t *count, uint32_t *ttl_s)
{
	struct answers a;
	struct record r;
	enum resolve_rc rc = open_answers(message, name, &a);
	size_t found = 0, room = *count;

	*count = 0;
	*ttl_s = none_ttl(&a);
	if (rc != RESOLVE_FOUND)
		return rc;
	for (uint16_t i = 0; i < a.count; i++) {
		if (!get_record(&a.at, &r))
			return RESOLVE_FAIL;
		if (r.type != (v6 ? TYPE_AAAA : TYPE_A) || !r.plain ||
		    strcmp(r.owner, a.name) != 0)
			continue;
		take_ttl(&a, r.ttl_s);
		if (found < room && !make_address(&r, v6, &out[found++]))
			return RESOLVE_FAIL;
	}
	*count = found;
	if (found > 0)
		*ttl_s = a.ttl_s;
	return found > 0 ? RESOLVE_FOUND : RESOLVE_NO_RECORD;
}

/* --- ordering ------------------------------------------------------------------------ */

uint32_t
resolve_random(void *arg, uint32_t n)
{
	uint32_t limit = UINT32_MAX - UINT32_MAX % n, v;

	(void)arg;
	do {
		if (getrandom(&v, sizeof(v), 0) != sizeof(v)) {
			if (errno != EINTR)
				return 0;
			v = UINT32_MAX;
		}
	} while (v >= limit);
	return v % n;
}

/*
 * Lowest priority first; within one, weight 0 first: they then have their small
 * chance below.
 */
static int
by_priority(const void *a, const void *b)
{
	const struct resolve_target *x = a, *y = b;

	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return (x->weight > 0) - (y->weight > 0);
}

void
resolve_order(struct resolve_target *targets, size_t count,
              uint32_t (*random)(void *arg, uint32_t n), void *arg)
{
	if (count > 0)
		qsort(targets, count, sizeof(*targets), by_priority);
	for (size_t i = 0; i < count; i++) {
		uint32_t sum = 0, pick;
		size_t j;
		struct resolve_target chosen;

		for (j = i; j < count && targets[j].priority == targets[i].priority; j++)
			sum += targets[j].weight;
		pick = random(arg, sum + 1);
		sum = 0;
		for (j = i; (sum += targets[j].weight) < pick; j++)
			;
		chosen = targets[j];
		memmove(&targets[i + 1], &targets[i], (j - i) * sizeof(*targets));
		targets[i] = chosen;
	}
}

const char *
resolve_rc_name(enum resolve_rc rc)
{
	switch (rc) {
	case RESOLVE_FOUND:
		return "found";
	case RESOLVE_NO_RECORD:
		return "no-record";
	case RESOLVE_NO_NAME:
		return "no-name";
	case RESOLVE_REFUSED:
		return "refused";
	case RESOLVE_FAIL:
		break;
	}
	return "fail";
}
