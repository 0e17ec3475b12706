/*
 * net/resolve: reading raw answers, ordering, and the cache before a small responder on
 * loopback.
 */
#include "net_test.h"

#include "net/resolve.h"

#include <arpa/inet.h>

/* --- building messages ------------------------------------------------------------- */

static void
put_u16(struct buffer *b, unsigned v)
{
	buffer_add_u8(b, (uint8_t)(v >> 8));
	buffer_add_u8(b, (uint8_t)v);
}

static void
put_u32(struct buffer *b, uint32_t v)
{
	put_u16(b, v >> 16);
	put_u16(b, v & 0xffff);
}

/* "a.b" as labels; "." is the root; "@12" a pointer to octet 12, also behind labels: "x.@12".
 */
static void
put_name(struct buffer *b, const char *name)
{
	while (*name != '\0' && *name != '@') {
		size_t n = strcspn(name, ".");

		if (n > 0) {
			buffer_add_u8(b, (uint8_t)n);
			buffer_add(b, name, n);
		}
		name += n + (name[n] == '.');
	}
	if (*name == '@')
		put_u16(b, 0xc000u | (unsigned)atoi(name + 1));
	else
		buffer_add_u8(b, 0);
}

static void
put_header(struct buffer *b, unsigned id, unsigned flags, unsigned answers,
           const char *question, unsigned type)
{
	put_u16(b, id);
	put_u16(b, flags);
	put_u16(b, 1);
	put_u16(b, answers);
	put_u32(b, 0);
	put_name(b, question);
	put_u16(b, type);
	put_u16(b, 1);
}

static void
put_record(struct buffer *b, const char *owner, unsigned type, uint32_t ttl,
           const struct buffer *data)
{
	put_name(b, owner);
	put_u16(b, type);
	put_u16(b, 1);
	put_u32(b, ttl);
	put_u16(b, (unsigned)data->len);
	buffer_add(b, data->data, data->len);
}

static void
put_srv(struct buffer *b, const char *owner, uint32_t ttl, unsigned prio, unsigned weight,
        unsigned port, const char *target)
{
	struct buffer data;

	buffer_init(&data, 1000);
	put_u16(&data, prio);
	put_u16(&data, weight);
	put_u16(&data, port);
	put_name(&data, target);
	put_record(b, owner, 33, ttl, &data);
	buffer_free(&data);
}

static void
put_cname(struct buffer *b, const char *owner, uint32_t ttl, const char *target)
{
	struct buffer data;

	buffer_init(&data, 1000);
	put_name(&data, target);
	put_record(b, owner, 5, ttl, &data);
	buffer_free(&data);
}

static void
put_address(struct buffer *b, const char *owner, uint32_t ttl, const char *ip)
{
	bool v6 = strchr(ip, ':') != NULL;
	struct buffer data;
	uint8_t octets[16];

	buffer_init(&data, 1000);
	assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, ip, octets), 1);
	buffer_add(&data, octets, v6 ? 16 : 4);
	put_record(b, owner, v6 ? 28 : 1, ttl, &data);
	buffer_free(&data);
}

#define ANSWER 0x8180u

static const char service[] = "_dmtps._tcp.example.org";

/* Parses with the message's end flush against the end of a block. */
static enum resolve_rc
parse(struct slice message, struct resolve_target *out, size_t *count, uint32_t *ttl)
{
	uint8_t *copy = malloc(message.len);
	enum resolve_rc rc;

	assert_non_null(copy);
	memcpy(copy, message.data, message.len);
	*count = 8;
	rc = resolve_parse_service(slice_mem(copy, message.len), "_DMTPS._tcp.Example.org.",
	                           out, count, ttl);
	free(copy);
	return rc;
}

/* --- parsing ------------------------------------------------------------------------ */

static void
put_soa(struct buffer *b, uint32_t ttl, uint32_t minimum)
{
	struct buffer data;

	buffer_init(&data, 1000);
	put_name(&data, "ns.example.org");
	put_name(&data, "hostmaster.example.org");
	for (int i = 0; i < 4; i++)
		put_u32(&data, 7);
	put_u32(&data, minimum);
	put_record(b, "example.org", 6, ttl, &data);
	buffer_free(&data);
}

/* The lesser of the SOA record's TTL and its minimum (RFC 2308); it stands behind the answers. */
static void
test_none_is_kept_as_long_as_the_zone_says(void **state)
{
	static const struct {
		unsigned flags;
		uint32_t ttl, minimum, expected;
		enum resolve_rc rc;
	} table[] = {
		{ ANSWER, 300, 60, 60, RESOLVE_NO_RECORD },
		{ ANSWER, 30, 60, 30, RESOLVE_NO_RECORD },
		{ ANSWER | 3, 300, 5, 5, RESOLVE_NO_RECORD }, /* NXDOMAIN */
		{ ANSWER | 2, 300, 60, 0, RESOLVE_FAIL },
	};
	struct resolve_target t[8];
	struct buffer b;
	size_t count;
	uint32_t ttl;

	(void)state;
	buffer_init(&b, 1000);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		buffer_clear(&b);
		put_header(&b, 1, table[i].flags, 1, service, 33);
		b.data[9] = 1;                                    /* one record of authority */
		put_cname(&b, "elsewhere.org", 1, "example.org"); /* not asked for */
		put_soa(&b, table[i].ttl, table[i].minimum);
		assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), table[i].rc);
		if (table[i].rc != RESOLVE_FAIL)
			assert_int_equal(ttl, table[i].expected);
		for (size_t n = 0; n < b.len; n++) /* nothing is read behind the end */
			(void)parse(slice_mem(b.data, n), t, &count, &ttl);
	}
	buffer_clear(&b);
	put_header(&b, 1, ANSWER, 0, service, 33);
	assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), RESOLVE_NO_RECORD);
	assert_true(ttl == UINT32_MAX);
	buffer_free(&b);
}

static void
test_srv_records_with_compression_and_aliases(void **state)
{
	struct resolve_target t[8];
	struct buffer b;
	size_t count;
	uint32_t ttl;

	(void)state;
	buffer_init(&b, 2000);
	put_header(&b, 1, ANSWER, 5, service,
	           33); /* the question's name is at 12, "example.org" in it at 24 */
	put_srv(&b, "_x.example.org", 1, 0, 0, 1, "elsewhere.example.org");
	put_srv(&b, "alias.@24", 500, 20, 0, 3689,
	        "B.@24"); /* before the alias that leads here */
	put_cname(&b, "@12", 300, "alias.@24");
	put_srv(&b, "alias.example.ORG", 600, 10, 65535, 3688, "A.Example.Org");
	put_address(&b, "a.@24", 7, "192.0.2.1");
	assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), RESOLVE_FOUND);
	assert_int_equal(count, 2);
	assert_int_equal(ttl, 300);
	assert_string_equal(t[0].host, "b.example.org");
	assert_int_equal(t[0].port, 3689);
	assert_int_equal(t[0].priority, 20);
	assert_string_equal(t[1].host, "a.example.org");
	assert_int_equal(t[1].weight, 65535);
	/* every proper prefix is no answer */
	for (size_t n = 1; n < b.len; n++)
		assert_int_equal(parse(slice_mem(b.data, n), t, &count, &ttl), RESOLVE_FAIL);
	buffer_free(&b);
}

static void
test_every_altered_octet_is_survived(void **state)
{
	struct resolve_target t[8];
	struct buffer b;
	size_t count;
	uint32_t ttl;

	(void)state;
	buffer_init(&b, 2000);
	put_header(&b, 1, ANSWER, 2, service, 33);
	put_cname(&b, "@12", 300, "alias.@24");
	put_srv(&b, "alias.@24", 500, 20, 0, 3689, "B.@24");
	for (size_t i = 0; i < b.len; i++) {
		for (unsigned v = 0; v < 256; v++) {
			uint8_t was = b.data[i];

			b.data[i] = (uint8_t)v;
			(void)parse(buffer_slice(&b), t, &count, &ttl);
			assert_true(count <= 8);
			b.data[i] = was;
		}
	}
	buffer_free(&b);
}

static void
test_kinds_of_no(void **state)
{
	static const struct {
		unsigned flags;
		const char *target; /* NULL: no record */
		unsigned port;
		enum resolve_rc rc;
	} table[] = {
		{ ANSWER, NULL, 0, RESOLVE_NO_RECORD },
		{ ANSWER | 3, NULL, 0, RESOLVE_NO_RECORD }, /* NXDOMAIN */
		{ ANSWER | 2, NULL, 0, RESOLVE_FAIL },      /* SERVFAIL */
		{ ANSWER | 5, NULL, 0, RESOLVE_FAIL },      /* REFUSED */
		{ ANSWER, ".", 0, RESOLVE_REFUSED },
		{ ANSWER, "a.example", 0,
		  RESOLVE_NO_RECORD }, /* nothing can listen on port 0 */
		{ ANSWER, "a b.example", 5, RESOLVE_NO_RECORD },
		{ ANSWER, "a.example", 5, RESOLVE_FOUND },
		{ 0x0100, "a.example", 5, RESOLVE_FAIL },          /* a question */
		{ ANSWER | 0x0200, "a.example", 5, RESOLVE_FAIL }, /* truncated */
		{ ANSWER, "@82", 5, RESOLVE_FAIL }, /* at octet 82: points at itself */
		{ ANSWER, "x.@500", 5, RESOLVE_FAIL },
		{ ANSWER, "@83", 5, RESOLVE_FAIL },
	};
	struct resolve_target t[8];
	struct buffer b;
	size_t count;
	uint32_t ttl;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		buffer_init(&b, 2000);
		put_header(&b, 1, table[i].flags, table[i].target != NULL, service, 33);
		if (table[i].target != NULL)
			put_srv(&b, service, 60, 1, 1, table[i].port, table[i].target);
		if (parse(buffer_slice(&b), t, &count, &ttl) != table[i].rc)
			fail_msg("row %zu", i);
		assert_int_equal(count, table[i].rc == RESOLVE_FOUND);
		buffer_free(&b);
	}
}

static void
test_bounds_of_an_answer(void **state)
{
	struct resolve_target t[8];
	struct buffer b;
	char long_name[300] = "";
	size_t count;
	uint32_t ttl;

	(void)state;
	buffer_init(&b, 65536);
	put_header(&b, 1, ANSWER, 20, service, 33);
	for (unsigned i = 0; i < 20; i++)
		put_srv(&b, service, 0x80000000u, i, 0, 1, "a.example");
	assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), RESOLVE_FOUND);
	assert_int_equal(count, 8);
	assert_int_equal(ttl, 0); /* the highest bit set: RFC 2181 */
	buffer_clear(&b);
	put_header(&b, 1, ANSWER, 2, service, 33);
	for (int i = 0; i < 28; i++)
		(void)strcat(long_name, "123456789."); /* 280 characters */
	put_srv(&b, service, 60, 1, 1, 1, long_name);
	put_srv(&b, service, 60, 1, 1, 1, long_name + 30); /* 249, without the final dot */
	assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), RESOLVE_FOUND);
	assert_int_equal(count, 1);
	assert_int_equal(strlen(t[0].host), 249);
	buffer_clear(&b);
	put_header(&b, 1, ANSWER, 2, service, 33);
	put_cname(&b, service, 1, "loop.example");
	put_cname(&b, "loop.example", 1, service);
	assert_int_equal(parse(buffer_slice(&b), t, &count, &ttl), RESOLVE_NO_RECORD);
	buffer_free(&b);
}

/* --- ordering -------------------------------------------------------------------------- */

static uint32_t
fixed_random(void *arg, uint32_t n)
{
	uint32_t **next = arg;

	return *(*next)++ % n;
}

static void
test_order_follows_priority_then_the_weighted_draw(void **state)
{
	struct resolve_target t[] = {
		{ "p2", 1, 2, 5 },
		{ "w1", 1, 1, 1 },
		{ "w0", 1, 1, 0 },
		{ "w3", 1, 1, 3 },
	};
	/* sums: 0, 1, 4. Drawn: 4 of 0..4 -> w3 (or w1, by place); then of the rest; then p2 */
	uint32_t draws[] = { 0, 4, 1, 0 }, *next = draws;

	(void)state;
	resolve_order(t, 4, fixed_random, &next);
	assert_string_equal(t[0].host,
	                    "w0"); /* weight 0 stands first: only a draw of 0 takes it */
	assert_string_equal(t[3].host, "p2");
	resolve_order(t, 0, fixed_random, &next);
}

static void
test_order_draws_by_weight(void **state)
{
	int first[3] = { 0 };

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct resolve_target t[] = { { "0", 1, 7, 0 },
			                      { "1", 1, 7, 10 },
			                      { "2", 1, 7, 30 } };

		resolve_order(t, 3, resolve_random, NULL);
		first[t[0].host[0] - '0']++;
	}
	/*
	 * of 41 draws 1, 10 and 30: 488, 4878, 14634 expected; five standard deviations either
	 * way
	 */
	assert_in_range(first[0], 378, 598);
	assert_in_range(first[1], 4577, 5179);
	assert_in_range(first[2], 14321, 14947);
}

/* --- a responder ------------------------------------------------------------------------- */

static struct loop *loop;
static struct resolver *resolver;
static struct loop_fd server;
static int server_fd, questions;
static bool mute; /* answers nothing */

static void
respond(struct buffer *out, unsigned id, const char *name, unsigned type)
{
	if (strcmp(name, service) == 0 && type == 33) {
		put_header(out, id, ANSWER, 1, name, type);
		put_srv(out, name, 100, 1, 1, 3688, "mx.example.org");
	} else if (strcmp(name, "_none._tcp.example.org") == 0) {
		put_header(out, id, ANSWER | 3, 0, name, type);
	} else if (strcmp(name, "_dot._tcp.example.org") == 0) {
		put_header(out, id, ANSWER, 1, name, type);
		put_srv(out, name, 100, 0, 0, 0, ".");
	} else if (strcmp(name, "both.example.org") == 0) {
		put_header(out, id, ANSWER, 2, name, type);
		put_address(out, name, type == 28 ? 50 : 100,
		            type == 28 ? "2001:db8::1" : "192.0.2.1");
		put_address(out, name, type == 28 ? 50 : 100,
		            type == 28 ? "2001:db8::2" : "192.0.2.2");
	} else if (strcmp(name, "half.example.org") == 0 && type == 1) {
		put_header(out, id, ANSWER, 1, name, type);
		put_address(out, name, 1000, "192.0.2.3");
	} else if (strcmp(name, "half.example.org") == 0 ||
	           strcmp(name, "broken.example.org") == 0) {
		put_header(out, id, ANSWER | 2, 0, name, type);
	} else if (strcmp(name, "empty.example.org") == 0) {
		put_header(out, id, ANSWER, 0, name, type);
	} else {
		put_header(out, id, ANSWER | 3, 0, name, type);
	}
}

static void
on_question(struct loop_fd *watch, unsigned ready)
{
	uint8_t in[1000];
	char name[256] = "";
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	struct buffer out;
	ssize_t n = recvfrom(watch->fd, in, sizeof(in), 0, (struct sockaddr *)&from, &len);
	size_t at = 12;

	(void)ready;
	assert_true(n > 12);
	questions++;
	if (mute)
		return;
	while (in[at] != 0) {
		(void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%.*s",
		               at == 12 ? "" : ".", in[at], (const char *)in + at + 1);
		at += 1u + in[at];
	}
	buffer_init(&out, 2000);
	respond(&out, (unsigned)in[0] << 8 | in[1], name,
	        (unsigned)in[at + 1] << 8 | in[at + 2]);
	assert_true(sendto(watch->fd, out.data, out.len, 0, (struct sockaddr *)&from, len) > 0);
	buffer_free(&out);
}

static int
setup(void **state)
{
	struct net_address a;
	char servers[NET_ADDRESS_TEXT], why[NET_TEXT];
	struct resolver_config config = {
		.servers = servers, .timeout_ms = 200, .tries = 2, .cache_max = 4
	};

	(void)state;
	loop = loop_new();
	server_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_true(net_address_make("127.0.0.1", 0, &a));
	assert_int_equal(bind(server_fd, (struct sockaddr *)&a.ss, a.len), 0);
	assert_int_equal(getsockname(server_fd, (struct sockaddr *)&a.ss, &a.len), 0);
	assert_true(loop_fd_init(&server, loop, server_fd, on_question, NULL));
	assert_true(loop_fd_want(&server, LOOP_READ));
	(void)net_address_format(&a, servers);
	resolver = resolver_new(loop, &config, why);
	assert_non_null(resolver);
	questions = 0;
	mute = false;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	resolver_free(&resolver);
	loop_fd_deinit(&server);
	(void)close(server_fd);
	loop_free(&loop);
	clock_freeze(-1);
	return 0;
}

struct asked {
	struct resolve_query query;
	int calls;
	enum resolve_rc rc;
	size_t count;
	int64_t ttl_s;
	struct resolve_target target;
	char addresses[256];
	void (*then)(struct asked *asked);
	struct asked *other;
};

static void
on_answer(struct resolve_query *q, const struct resolve_answer *answer)
{
	struct asked *a = q->arg;
	char text[NET_ADDRESS_TEXT];

	a->calls++;
	a->rc = answer->rc;
	a->count = answer->count;
	a->ttl_s = answer->ttl_s;
	assert_int_equal(answer->rc == RESOLVE_FOUND, answer->count > 0);
	assert_int_equal(answer->rc == RESOLVE_FOUND, answer->text[0] == '\0');
	if (answer->targets != NULL)
		a->target = answer->targets[0];
	a->addresses[0] = '\0';
	for (size_t i = 0; answer->addresses != NULL && i < answer->count; i++)
		(void)snprintf(a->addresses + strlen(a->addresses),
		               sizeof(a->addresses) - strlen(a->addresses),
		               i == 0 ? "%s" : " %s",
		               net_address_format_ip(&answer->addresses[i], text));
	if (a->then != NULL)
		a->then(a);
}

static struct asked
ask_and_wait(bool is_service, const char *name)
{
	static struct asked a;

	a = (struct asked){ 0 };
	(is_service ? resolve_service : resolve_host)(resolver, &a.query, name, on_answer, &a);
	assert_int_equal(a.calls, 0); /* never from within the call */
	TURN_UNTIL(loop, a.calls == 1);
	return a;
}

static void
test_services_and_hosts_of_a_real_responder(void **state)
{
	static const struct {
		bool service;
		const char *name;
		enum resolve_rc rc;
		const char *addresses;
	} table[] = {
		{ true, "_none._tcp.example.org", RESOLVE_NO_RECORD, "" },
		{ true, "_dot._tcp.example.org", RESOLVE_REFUSED, "" },
		{ true, "broken.example.org", RESOLVE_FAIL, "" },
		{ true, "", RESOLVE_FAIL, "" },
		{ true, "a..b", RESOLVE_FAIL, "" },
		{ false, "both.example.org", RESOLVE_FOUND,
		  "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2" },
		{ false, "half.example.org", RESOLVE_FOUND, "192.0.2.3" },
		{ false, "broken.example.org", RESOLVE_FAIL, "" },
		{ false, "empty.example.org", RESOLVE_NO_RECORD, "" },
		{ false, "missing.example.org", RESOLVE_NO_NAME, "" },
		{ false, "192.0.2.99", RESOLVE_FOUND, "192.0.2.99" },
		{ false, "2001:db8::99", RESOLVE_FOUND, "2001:db8::99" },
	};
	struct asked a = ask_and_wait(true, service);

	(void)state;
	assert_int_equal(a.rc, RESOLVE_FOUND);
	assert_string_equal(a.target.host, "mx.example.org");
	assert_int_equal(a.target.port, 3688);
	assert_int_equal(a.ttl_s, 100);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		a = ask_and_wait(table[i].service, table[i].name);
		if (a.rc != table[i].rc)
			fail_msg("%s: %s", table[i].name, resolve_rc_name(a.rc));
		if (!table[i].service)
			assert_string_equal(a.addresses, table[i].addresses);
	}
	assert_int_equal(ask_and_wait(false, "both.example.org").ttl_s, 50);
	assert_true(ask_and_wait(false, "half.example.org").ttl_s <=
	            5); /* the other half is asked again soon */
}

static void
test_answers_are_kept_for_their_ttl_within_bounds(void **state)
{
	int64_t now = clock_wall_us();
	int before;

	(void)state;
	clock_freeze(now);
	assert_int_equal(ask_and_wait(true, service).rc, RESOLVE_FOUND);
	assert_int_equal(questions, 1);
	clock_freeze(now + 99 * 1000000);
	assert_int_equal(ask_and_wait(true, "_dmtps._tcp.EXAMPLE.org.").ttl_s, 1);
	assert_int_equal(questions, 1);
	clock_freeze(now + 100 * 1000000);
	(void)loop_turn(loop, 0);
	assert_int_equal(ask_and_wait(true, service).ttl_s, 100);
	assert_int_equal(questions, 2);
	assert_int_equal(ask_and_wait(true, "_none._tcp.example.org").rc, RESOLVE_NO_RECORD);
	assert_int_equal(ask_and_wait(true, "_none._tcp.example.org").rc, RESOLVE_NO_RECORD);
	assert_int_equal(questions, 3);
	before = questions;
	assert_int_equal(ask_and_wait(true, "broken.example.org").rc, RESOLVE_FAIL);
	assert_true(questions > before);
	before = questions;
	assert_int_equal(ask_and_wait(true, "broken.example.org").rc, RESOLVE_FAIL);
	assert_true(questions > before); /* a failure is never kept */
	/* four entries at most: the one used longest ago is forgotten */
	assert_int_equal(ask_and_wait(true, service).rc, RESOLVE_FOUND);
	(void)ask_and_wait(true, "a._none.example.org");
	(void)ask_and_wait(true, "b._none.example.org");
	before = questions;
	(void)ask_and_wait(true, service);
	assert_int_equal(questions, before);
	(void)ask_and_wait(true, "c._none.example.org");
	before = questions;
	(void)ask_and_wait(true, "_none._tcp.example.org");
	assert_int_equal(questions, before + 1);
	resolver_forget(resolver);
	(void)ask_and_wait(true, service);
	assert_int_equal(questions, before + 2);
}

static void
cancel_other(struct asked *a)
{
	resolve_cancel(&a->other->query);
	resolver_forget(resolver);
}

static void
test_equal_questions_are_asked_once_and_may_be_cancelled(void **state)
{
	static struct asked a[5];

	(void)state;
	memset(a, 0, sizeof(a));
	for (int i = 0; i < 5; i++)
		resolve_service(resolver, &a[i].query, service, on_answer, &a[i]);
	resolve_cancel(&a[1].query);
	a[2].then = cancel_other; /* from within a callback, and the entry with it */
	a[2].other = &a[3];
	TURN_UNTIL(loop, a[4].calls == 1);
	assert_int_equal(questions, 1);
	assert_int_equal(a[0].calls + a[1].calls + a[2].calls + a[3].calls, 2);
	assert_int_equal(a[1].calls + a[3].calls, 0);
	resolve_cancel(&a[0].query); /* harmless */
}

static void
test_silence_is_a_failure_in_time(void **state)
{
	static struct asked a;

	(void)state;
	mute = true;
	assert_int_equal(ask_and_wait(false, "both.example.org").rc, RESOLVE_FAIL);
	assert_int_equal(questions, 4); /* two tries, two families */
	a = (struct asked){ 0 };
	resolve_service(resolver, &a.query, service, on_answer, &a);
	resolve_cancel(&a.query); /* teardown: the resolver goes while the question is out */
}

static void
test_bad_servers_are_said(void **state)
{
	char why[NET_TEXT];
	struct resolver_config config = { .servers = "nowhere:x" };

	(void)state;
	assert_null(resolver_new(loop, &config, why));
	assert_non_null(strstr(why, "nowhere:x"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none_is_kept_as_long_as_the_zone_says),
		cmocka_unit_test(test_srv_records_with_compression_and_aliases),
		cmocka_unit_test(test_every_altered_octet_is_survived),
		cmocka_unit_test(test_kinds_of_no),
		cmocka_unit_test(test_bounds_of_an_answer),
		cmocka_unit_test(test_order_follows_priority_then_the_weighted_draw),
		cmocka_unit_test(test_order_draws_by_weight),
		cmocka_unit_test_setup_teardown(test_services_and_hosts_of_a_real_responder,
		                                setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_answers_are_kept_for_their_ttl_within_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_equal_questions_are_asked_once_and_may_be_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silence_is_a_failure_in_time, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(test_bad_servers_are_said, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
