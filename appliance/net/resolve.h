/*
 * DNS for one loop: SRV records of a service, addresses of a host, cached by
 * their TTL within bounds. Equal questions asked at once are asked once.
 */
#ifndef TMTP_NET_RESOLVE_H
#define TMTP_NET_RESOLVE_H

#include "net/address.h"
#include "net/loop.h"

struct resolver;

struct resolver_config {
	const char *servers; /* "127.0.0.1:5353,[::1]:53"; NULL: the system's */
	int timeout_ms;      /* of the first try; 0: 3000 */
	int tries;           /* 0: 3 */
	size_t cache_max;    /* answers kept; 0: 10,000 */
	int64_t ttl_min_s;   /* 0: 5 */
	int64_t ttl_max_s;   /* 0: 3600 */
	int64_t
	    ttl_none_s; /* the most for NO_RECORD, NO_NAME and REFUSED; 0: 60. FAIL is never kept. */
};

/* NULL: why says what failed. */
struct resolver *resolver_new(struct loop *loop, const struct resolver_config *config,
                              char why[static NET_TEXT]);

/* Every query must be over or cancelled. Not from within a query's callback. */
void resolver_free(struct resolver **resolver);

/* Forgets every answer. */
void resolver_forget(struct resolver *resolver);

enum resolve_rc {
	RESOLVE_FOUND = 0,
	RESOLVE_NO_RECORD, /* the name exists without such records; services: or NXDOMAIN */
	RESOLVE_NO_NAME,   /* hosts only: NXDOMAIN */
	RESOLVE_REFUSED, /* services only: the target "." (RFC 2782), none of this kind here */
	RESOLVE_FAIL,    /* no usable answer: timeout, SERVFAIL, REFUSED, garbage */
};

const char *resolve_rc_name(enum resolve_rc rc);

/* The longest name in text, with a NUL. */
#define RESOLVE_NAME 254

struct resolve_target {
	char host[RESOLVE_NAME]; /* lower case, without the final dot */
	uint16_t port, priority, weight;
};

/* At most this many targets or addresses of an answer are looked at. */
#define RESOLVE_MAX 64

/* Borrowed until the callback returns. */
struct resolve_answer {
	enum resolve_rc rc;
	const struct resolve_target *targets; /* services; in the answer's order */
	const struct net_address *addresses;  /* hosts; port 0; IPv6 and IPv4 taking turns */
	size_t count;
	int64_t ttl_s;    /* how long this may be kept, from now */
	const char *text; /* why, when not FOUND */
};

struct resolve_entry;

/*
 * Embeds in its owner, which keeps it until the callback or resolve_cancel. Fields are the
 * resolver's.
 */
struct resolve_query {
	void (*fn)(struct resolve_query *query, const struct resolve_answer *answer);
	void *arg;
	struct resolve_entry *entry;
	struct resolve_query *next, **back;
	struct loop_defer no_memory;
};

/*
 * name: "_dmtps._tcp.example.org". The callback comes from the loop, later, exactly once; it
 * may free the query.
 */
void resolve_service(struct resolver *resolver, struct resolve_query *query, const char *name,
                     void (*fn)(struct resolve_query *, const struct resolve_answer *),
                     void *arg);

/* A and AAAA; also literals and the hosts file. No search domains. */
void resolve_host(struct resolver *resolver, struct resolve_query *query, const char *name,
                  void (*fn)(struct resolve_query *, const struct resolve_answer *), void *arg);

/* No callback follows. Harmless when it came already. */
void resolve_cancel(struct resolve_query *query);

/* --- pure parts ------------------------------------------------------------- */

/* A number below n (n > 0), from the kernel's randomness; arg is ignored. */
uint32_t resolve_random(void *arg, uint32_t n);

/*
 * Puts targets into the order in which to try them: lowest priority first,
 * within one a weighted random choice without putting back.
 * Source: RFC 2782, "Weight".
 */
void resolve_order(struct resolve_target *targets, size_t count,
                   uint32_t (*random)(void *arg, uint32_t n), void *arg);

/*
 * Reads the SRV records of name out of a DNS message, following CNAMEs within
 * it. *count comes in as the room in out, and goes out as the targets found;
 * what is beyond the room is left out. ttl: the least of those used; when there
 * are none, what the SOA record says of that (RFC 2308), UINT32_MAX without one.
 * FOUND, NO_RECORD (NXDOMAIN or none), REFUSED (the only target is "."), or FAIL
 * (malformed, or an error code). Source: RFC 1035 section 4, RFC 2782.
 */
enum resolve_rc resolve_parse_service(struct slice message, const char *name,
                                      struct resolve_target *out, size_t *count,
                                      uint32_t *ttl_s);

/* The same for addresses, port 0: A records, or AAAA when v6. NXDOMAIN is NO_NAME here. */
enum resolve_rc resolve_parse_addresses(struct slice message, const char *name, bool v6,
                                        struct net_address *out, size_t *count,
                                        uint32_t *ttl_s);

#endif
