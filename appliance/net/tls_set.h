/*
 * What stands behind tls.h, for this room only: one generation of a server's or
 * client's TLS settings. Reloading makes a new one; connections keep theirs.
 */
#ifndef TMTP_NET_TLS_SET_H
#define TMTP_NET_TLS_SET_H

#include "net/tls.h"

#include <openssl/ssl.h>

/* A session resumes, and speaks for an identity, at most this long after its full handshake. */
#define TLS_SESSION_S 86400

/* Client sessions kept for resumption. */
#define TLS_SESSIONS 1024

struct tls_key {
	char *domain;
	X509 *cert;
	EVP_PKEY *key;
	STACK_OF(X509) * chain;
};

/* What resumption must remember beside OpenSSL's own session; travels inside server tickets. */
struct tls_memory {
	int64_t valid_until; /* wall seconds */
	int64_t srv_ids;     /* 1: SRV-IDs of the certificate count */
};

struct tls_session {
	char *name; /* own domain, space, expected domain */
	SSL_SESSION *session;
	struct tls_memory memory;
};

struct tls_pinned {
	char *domain;
	X509_STORE *store;
};

struct tls_set {
	size_t references;
	SSL_CTX *ctx;
	struct tls_key *keys;
	size_t count;
	uint8_t alpn[1 + 255 + 1]; /* wire form: length, name; length 0: none; a NUL behind */
	bool unchecked;            /* client: a failed check isn't fatal */
	int64_t expires;
	struct tls_pinned *pins; /* server */
	size_t pin_count;
	struct tls_session *sessions; /* client: TLS_SESSIONS slots by hash */
};

struct tls_set *tls_server_set(const struct tls_server *server); /* borrowed */
struct tls_set *tls_client_set(const struct tls_client *client); /* borrowed */
struct tls_set *tls_set_hold(struct tls_set *set);
void tls_set_release(struct tls_set **set);

/* Presents every key of this domain; false when there is none or OpenSSL refuses. */
bool tls_set_present(const struct tls_set *set, SSL *ssl, const char *domain);

/*
 * The last session under this name into ssl, with its memory; false when there is none that
 * still counts.
 */
bool tls_set_resume(const struct tls_set *set, SSL *ssl, const char *name,
                    struct tls_memory *memory);

/* Takes the session; an older one under the same name, or of the same slot, goes. */
void tls_set_remember(struct tls_set *set, const char *name, SSL_SESSION *session,
                      const struct tls_memory *memory);

/* --- certificates, tls_names.c ------------------------------------------------ */

struct tls_names {
	const char **names; /* one block, owned */
	size_t count;
};

/*
 * The domains in a certificate's subjectAltName: dNSName and, when srv_ids,
 * SRV-ID of _dmtp and _dmtps; lower case, each once, no wildcards, nothing that
 * isn't a host name. False: no memory (out is empty).
 */
bool tls_names_read(X509 *cert, bool srv_ids, struct tls_names *out);
bool tls_names_have(const struct tls_names *names, struct slice domain);
void tls_names_free(struct tls_names *names);

/* --- pinned CAs, tls_pins.c ----------------------------------------------------- */

/* False: *bad_file couldn't be loaded, or (NULL) no memory. */
bool tls_pins_load(struct tls_set *set, const struct tls_pin *pins, size_t count,
                   const char **bad_file);
void tls_pins_free(struct tls_set *set);

/* The certificate names a pinned domain. */
bool tls_pins_concern(const struct tls_set *set, X509 *cert);

/*
 * Of names, which the ordinary roots vouch for, takes the pinned domains out,
 * and puts those in whose own CA held (one bool a pin). False: no memory.
 */
bool tls_pins_apply(const struct tls_set *set, const bool *held, struct tls_names *names);

/* The certificate in words, and by which rule it names domain. */
void tls_certificate_describe(X509 *cert, const char *domain, struct tls_certificate *out);

/* Wall seconds of the certificate's notAfter. */
int64_t tls_cert_ends(const X509 *cert);

#endif
