/*
 * A look at another domain's DMTP servers, from outside: where they are, and
 * how far one comes with each of their addresses. It says nothing but STARTTLS
 * and QUIT, shows no certificate of ours, and writes nothing down. What fails
 * the certificate's check is looked at all the same, and told.
 */
#ifndef TMTP_CTL_LOOK_H
#define TMTP_CTL_LOOK_H

#include "dmtp/card.h"
#include "dmtp/session.h"
#include "net/conn.h"
#include "net/discover.h"
#include "net/fetch.h"

#define LOOK_TRIES 64 /* addresses looked at, of all targets */

/* The step at which it ended, in their order: a later one came further. */
enum look_step {
	LOOK_NAME,     /* the target has no address */
	LOOK_GUARD,    /* its address is not a public one: not tried */
	LOOK_TCP,      /* not connected */
	LOOK_STARTTLS, /* no greeting before TLS, or one that doesn't offer TLS */
	LOOK_TLS,      /* no handshake, or not our protocol */
	LOOK_GREETING, /* no greeting */
	LOOK_CHECK,    /* all of it, but the certificate isn't the domain's */
	LOOK_DONE,     /* nothing is wrong */
};

struct look;

/* One address of one target. */
struct look_try {
	struct look *look;
	size_t target; /* of the discovery's */
	struct net_address address;
	enum look_step step;
	char why[NET_TEXT];           /* "" with LOOK_DONE */
	int64_t began_ms, connect_ms; /* connect_ms: -1 until connected */
	bool secured;
	char version[16], cipher[64], alpn[16];
	char problem[NET_TEXT]; /* of the certificate; "": good */
	bool certified;         /* it showed one */
	struct tls_certificate certificate;
	bool greeted;
	struct dmtp_greeting greeting;
	/* its own */
	struct conn *conn;
	struct dmtp_client *client;
	struct loop_timer timer;
	bool over;
};

struct look_host {
	struct look *look;
	size_t target;
	struct resolve_query query;
	struct loop_timer timer;
	bool busy;
	enum resolve_rc rc;
	char why[NET_TEXT]; /* "": it has addresses */
};

struct look_card {
	bool asked, answered;
	enum fetch_rc rc;
	long status;
	char why[NET_TEXT];
	struct dmtp_card *card; /* NULL: none */
};

struct look {
	const struct config *config;
	const char *domain;
	int64_t timeout_ms; /* of each step */
	/* out */
	const struct config_route *route; /* pinned for the domain, or NULL */
	struct discovery discovery;
	struct look_host hosts[DISCOVER_MAX];
	struct look_try tries[LOOK_TRIES];
	size_t tries_n;
	struct look_card card;
	/* its own */
	struct loop *loop;
	struct resolver *resolver;
	struct tls_client *tls;
	struct fetcher *fetcher;
	struct fetch *fetch;
	struct net_address pin;
	struct loop_timer timer; /* of the discovery */
	unsigned pending;
};

/* config, domain and timeout_ms are set, the rest is zero. False: why says what couldn't begin. */
bool look_run(struct look *look, char why[static NET_TEXT]);

/* What it holds. */
void look_clear(struct look *look);

#endif
