/*
 * HTTPS requests on a loop: GET for pickup and key pages, POST for webhooks.
 * https only, no redirects, no proxies, no cookies, no content encodings; every
 * bound is checked while reading. Whether a host may be asked at all is the
 * caller's rule; which address it may have is checked here, at every connect.
 */
#ifndef TMTP_NET_FETCH_H
#define TMTP_NET_FETCH_H

#include "net/resolve.h"

struct fetcher;
struct fetch;

struct fetcher_config {
	struct resolver *resolver; /* borrowed; NULL: the C library's, in threads of libcurl */
	size_t max_per_host;       /* fetches at once, each on a connection; 0: 16 */
	size_t max_total;          /* the same over all hosts; 0: 128 */
	size_t max_octets;      /* sum of max_body of those at once, so of memory; 0: 256 MiB */
	size_t max_waiting;     /* fetches accepted beyond those; 0: 100,000 */
	const char *user_agent; /* NULL: none */
};

/* NULL: no memory. */
struct fetcher *fetcher_new(struct loop *loop, const struct fetcher_config *config);

/* Cancels what runs, without callbacks. Not from within a fetch's callback. */
void fetcher_free(struct fetcher **fetcher);

enum fetch_rc {
	FETCH_OK = 0,  /* a complete answer, whatever its status */
	FETCH_BAD_URL, /* not https, no host, credentials in it, or not a URL */
	FETCH_BLOCKED, /* no address of the host is public */
	FETCH_RESOLVE, /* no address */
	FETCH_CONNECT,
	FETCH_UNVERIFIED, /* the server's certificate */
	FETCH_TOO_LARGE,  /* more than max_body octets, or headers beyond 64 KiB */
	FETCH_TIMEOUT,    /* connecting, in total, or below the low-speed limit */
	FETCH_BROKEN,     /* the connection or the HTTP on it */
	FETCH_OVERLOAD,   /* max_waiting reached, or no memory */
};

const char *fetch_rc_name(enum fetch_rc rc);

/* Copied by fetch_start, but for body. Zeros mean the defaults. */
struct fetch_request {
	const char *url;
	size_t max_body;        /* octets of a 2xx answer; one more is FETCH_TOO_LARGE */
	int64_t connect_ms;     /* default 10,000 */
	int64_t total_ms;       /* from fetch_start to the end; default 60,000 */
	size_t low_speed_bytes; /* a second, on average over low_speed_s; default 1024 */
	int64_t low_speed_s;    /* default 20 */
	const char *ca_file;    /* NULL: the system's roots */
	/*
	 * Connect here, whatever the URL's host resolves to; the certificate must still name
	 * the host.
	 */
	const struct net_address *pin;
	bool allow_private; /* no address guard: only for a route that an operator pinned */
	bool ranged;        /* ask for octets range_first..range_last only */
	uint64_t range_first, range_last;
	const char *const *headers; /* "Name: value", ended by NULL; NULL: none */
	bool post;                  /* POST body instead of GET */
	struct slice body;          /* borrowed until the end */
};

/* Borrowed until the callback returns. */
struct fetch_answer {
	enum fetch_rc rc;
	long status;       /* 0 when none was read */
	struct slice body; /* only with FETCH_OK and a status of 200 to 299, else empty */
	const char *text;  /* why, for people; "" with FETCH_OK */
	const char *content_type;  /* "" when absent */
	const char *etag;          /* "" when absent */
	const char *cache_control; /* "" when absent */
	const char *content_range; /* "" when absent */
	int64_t retry_after_s;     /* -1 when absent or a date that has passed */
	bool reused;               /* no new connection was made */
};

/*
 * NULL only when memory is short. The callback comes from the loop, later, exactly once; the
 * fetch is gone after it.
 */
struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
                          void (*fn)(void *arg, const struct fetch_answer *answer), void *arg);

/* No callback follows; sets *fetch to NULL. NULL is harmless. */
void fetch_cancel(struct fetch **fetch);

/*
 * The host (lower case, an IPv6 literal in its brackets) and port that fetching
 * this URL would ask: for the caller's rule on hosts, so that both read the URL
 * alike. False, outputs untouched, for what would be FETCH_BAD_URL.
 */
bool fetch_url_host(const char *url, char host[static RESOLVE_NAME], uint16_t *port);

/* Fetches under way or waiting. */
size_t fetcher_count(const struct fetcher *fetcher);

#endif
