/*
 * TLS without a socket, for conn.c: octets of the network in, octets for the
 * network out. OpenSSL reads what `in` holds and writes into `wire`.
 */
#ifndef TMTP_NET_TLS_STREAM_H
#define TMTP_NET_TLS_STREAM_H

#include "net/tls_set.h"

#include "base/buffer.h"

/* Past this many octets in wire nothing more should be read or written before some are sent. */
#define TLS_WIRE_HIGH 65536

enum tls_rc {
	TLS_DONE = 0,
	TLS_MORE,   /* needs more of the network's octets */
	TLS_ENDED,  /* the peer sent close_notify */
	TLS_FAILED, /* for good: see error, unverified */
};

struct tls_stream {
	SSL *ssl;
	struct slice in;    /* octets of the network, moved as they are used; borrowed */
	struct buffer wire; /* what to send */
	struct tls_set *set;
	struct tls_peer peer; /* after tls_stream_handshake gave TLS_DONE */
	struct tls_names names;
	struct tls_memory memory; /* of this session; counts once `remembered` */
	bool server, require_alpn;
	bool done;       /* the handshake */
	bool remembered; /* memory is of this session */
	bool srv_ids;    /* the chain that was checked lets SRV-IDs count */
	bool *
	    held; /* server: the pins whose CA vouches for their domain; NULL: none looked at */
	bool unverified; /* it failed because the server's certificate did */
	const char
	    *refusal;   /* why we ended the handshake, where OpenSSL can't say it; or NULL */
	char *expected; /* client: the domain to verify */
	char *session_name;
	char *sni; /* server: what was asked for */
	char error[NET_TEXT];
};

/* NULL: no memory. */
struct tls_stream *tls_stream_new_server(struct tls_server *server, bool require_alpn);
struct tls_stream *tls_stream_new_client(struct tls_client *client, const char *expected,
                                         const char *own);
void tls_stream_free(struct tls_stream **stream);

enum tls_rc tls_stream_handshake(struct tls_stream *stream);

/* Plaintext into out; *got is its length with TLS_DONE. */
enum tls_rc tls_stream_read(struct tls_stream *stream, uint8_t *out, size_t size, size_t *got);

/*
 * Encrypts plain whole into wire; a call should bring at most 16 KiB. TLS_DONE
 * or TLS_FAILED.
 */
enum tls_rc tls_stream_write(struct tls_stream *stream, struct slice plain);

/* close_notify into wire. */
void tls_stream_shutdown(struct tls_stream *stream);

bool tls_stream_exporter(struct tls_stream *stream, const char *label, uint8_t *out,
                         size_t len);

/* --- what the contexts call back; they find the stream as the SSL's app data ---- */

/* Certificate checks, in the peer's handshake. */
int tls_stream_verify_client(X509_STORE_CTX *check, void *arg);
int tls_stream_verify_server(X509_STORE_CTX *check, void *arg);

/* What this session may be remembered by: made once, after the certificates were checked. */
const struct tls_memory *tls_stream_memory(struct tls_stream *stream);

#endif
