/*
 * TLS contexts for conn.h: certificates by domain, trust roots, what a peer
 * proved about itself. TLS 1.2 and 1.3; no renegotiation, no early data.
 * Contexts belong to the loop's thread and outlive nothing: a connection holds
 * its own reference to what it began with.
 */
#ifndef TMTP_NET_TLS_H
#define TMTP_NET_TLS_H

#include "net/address.h"

enum tls_error {
	TLS_OK = 0,
	TLS_BAD_FILE,   /* missing, unreadable, or no certificate or key in it */
	TLS_BAD_KEY,    /* the key isn't the certificate's */
	TLS_BAD_TRUST,  /* the CA file */
	TLS_BAD_CONFIG, /* no identity, a domain that is none, an ALPN too long */
	TLS_NO_MEMORY,
};

/*
 * A domain's certificate. The same domain may stand twice with keys of different kinds (ECDSA
 * and RSA).
 */
struct tls_identity {
	const char *domain;    /* lower-case A-labels */
	const char *cert_file; /* PEM, the leaf first, then its chain */
	const char *key_file;  /* PEM */
};

struct tls_server;
struct tls_client;

/*
 * A CA pinned for one domain: for that name in clients' certificates it
 * replaces the trust roots, and it vouches for no other name.
 */
struct tls_pin {
	const char *domain;  /* lower-case A-labels */
	const char *ca_file; /* PEM */
};

struct tls_server_config {
	/* At least one; the first serves unknown and absent SNI. */
	const struct tls_identity *identities;
	size_t count;
	const char *ca_file; /* PEM, what clients' chains lead to; NULL: the system's roots */
	const char *alpn;    /* the protocol served, "dmtp/1"; NULL: none */
	const struct tls_pin *pins;
	size_t pin_count;
};

/*
 * Builds a server's contexts; everything is copied. A client certificate is
 * asked for and never required; one whose chain fails leaves the session
 * unverified. On error *out is NULL and why says which file and what.
 */
enum tls_error tls_server_new(const struct tls_server_config *config, struct tls_server **out,
                              char why[static NET_TEXT]) __attribute__((warn_unused_result));

/*
 * Swaps in new contexts when all of them are good, else keeps the old. Sessions go on; tickets
 * are forgotten.
 */
enum tls_error tls_server_reload(struct tls_server *server,
                                 const struct tls_server_config *config,
                                 char why[static NET_TEXT]) __attribute__((warn_unused_result));

void tls_server_free(struct tls_server **server);

/* Wall seconds at which the first of the identities' leaf certificates ends. */
int64_t tls_server_expires(const struct tls_server *server);

struct tls_client_config {
	/* Own certificates, by own domain; may be none. */
	const struct tls_identity *identities;
	size_t count;
	const char *ca_file; /* NULL: the system's roots */
	const char *alpn; /* asked for; whether the server chose it stands in tls_peer.alpn */
	/*
	 * Only for a route that an operator pinned so: a server that fails the
	 * check is connected to all the same, with tls_peer.verified false.
	 */
	bool unchecked;
};

/* As tls_server_new. */
enum tls_error tls_client_new(const struct tls_client_config *config, struct tls_client **out,
                              char why[static NET_TEXT]) __attribute__((warn_unused_result));

enum tls_error tls_client_reload(struct tls_client *client,
                                 const struct tls_client_config *config,
                                 char why[static NET_TEXT]) __attribute__((warn_unused_result));

void tls_client_free(struct tls_client **client);

/*
 * What is known of the other side after the handshake. Borrowed from the connection until it is
 * closed.
 */
struct tls_peer {
	bool presented; /* a certificate */
	/*
	 * Its chain held, for clientAuth or serverAuth, within its times; in a
	 * client also: the expected name is among its names.
	 */
	bool verified;
	const char *problem; /* why not verified; "" when verified */
	/*
	 * The domains that the verified certificate names, as dNSName or as SRV-ID
	 * of _dmtp or _dmtps (RFC 4985), lower case, each once, no wildcards.
	 * None when not verified.
	 */
	const char *const *names;
	size_t name_count;
	/* Wall seconds; the identity ends then. When resumed, within 24 h at most. */
	int64_t valid_until;
	const char *sni;     /* what the client asked for, lower case; "" when it didn't */
	const char *alpn;    /* what was agreed; "" when nothing was */
	const char *version; /* "TLSv1.3" */
	const char *cipher;
	bool resumed;
};

/* A certificate in words, whatever the check said of it. */
struct tls_certificate {
	char subject[NET_TEXT], issuer[NET_TEXT]; /* RFC 2253; cut when longer */
	/*
	 * Its names, blanks between: "DNS:a.test SRV:_dmtps.a.test"; nothing in it but visible ASCII.
	 * Cut when longer, with "..." as the last.
	 */
	char names[1024];
	int64_t from_s, until_s; /* wall seconds */
	/* Which kind of name is the domain that was asked about: "dNSName", "SRV-ID" or "" (none). */
	const char *rule;
};

/* Domain is among the verified names and valid_until hasn't passed; domain in lower case. */
bool tls_peer_is(const struct tls_peer *peer, struct slice domain);

#endif
