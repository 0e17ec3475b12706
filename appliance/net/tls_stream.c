/*
 * TLS over slices and a buffer: see tls_stream.h. A BIO of ours stands between
 * OpenSSL and them, so that octets are copied once and idle sessions hold none.
 */
#include "net/tls_stream.h"

#include "base/clock.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* A handshake's flight, an alert, or some records: conn.c sends before it grows. */
#define WIRE_MAX ((size_t)4 * 1024 * 1024)

/* --- the BIO -------------------------------------------------------------------- */

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method; /* for the life of the process */

static int
bio_read(BIO *bio, char *out, size_t size, size_t *got)
{
	struct slice *in = &((struct tls_stream *)BIO_get_data(bio))->in;

	BIO_clear_retry_flags(bio);
	if (in->len == 0) {
		BIO_set_retry_read(bio);
		return 0;
	}
	*got = in->len < size ? in->len : size;
	memcpy(out, in->data, *got);
	in->data += *got;
	in->len -= *got;
	return 1;
}

static int
bio_write(BIO *bio, const char *data, size_t len, size_t *written)
{
	struct buffer *wire = &((struct tls_stream *)BIO_get_data(bio))->wire;

	BIO_clear_retry_flags(bio);
	buffer_add(wire, data, len);
	if (wire->failed)
		return 0;
	*written = len;
	return 1;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP ? 1 : 0;
}

static void
method_make(void)
{
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "slice");
	if (method == NULL)
		return;
	(void)BIO_meth_set_read_ex(method, bio_read);
	(void)BIO_meth_set_write_ex(method, bio_write);
	(void)BIO_meth_set_ctrl(method, bio_ctrl);
}

/* --- its life ------------------------------------------------------------------- */

static bool
attach(struct tls_stream *stream)
{
	BIO *bio;

	(void)pthread_once(&method_once, method_make);
	stream->ssl = SSL_new(stream->set->ctx);
	bio = method == NULL ? NULL : BIO_new(method);
	if (stream->ssl == NULL || bio == NULL) {
		BIO_free(bio);
		return false;
	}
	BIO_set_data(bio, stream);
	BIO_set_init(bio, 1);
	SSL_set_bio(stream->ssl, bio, bio);
	return SSL_set_app_data(stream->ssl, stream) == 1;
}

static struct tls_stream *
stream_new(struct tls_set *set, bool server)
{
	struct tls_stream *stream = calloc(1, sizeof(*stream));

	if (stream == NULL)
		return NULL;
	stream->server = server;
	stream->set = tls_set_hold(set);
	buffer_init(&stream->wire, WIRE_MAX);
	if (!attach(stream))
		tls_stream_free(&stream);
	return stream;
}

struct tls_stream *
tls_stream_new_server(struct tls_server *server, bool require_alpn)
{
	struct tls_stream *stream = stream_new(tls_server_set(server), true);

	if (stream == NULL)
		return NULL;
	stream->require_alpn = require_alpn;
	SSL_set_accept_state(stream->ssl);
	return stream;
}

static bool
client_init(struct tls_stream *stream, const char *expected, const char *own)
{
	const char *shown =
	    own != NULL && tls_set_present(stream->set, stream->ssl, own) ? own : "";

	stream->expected = strdup(expected);
	if (stream->expected == NULL ||
	    asprintf(&stream->session_name, "%s %s", shown, expected) < 0) {
		stream->session_name = NULL;
		return false;
	}
	if (SSL_set_tlsext_host_name(stream->ssl, expected) != 1)
		return false;
	(void)tls_set_resume(stream->set, stream->ssl, stream->session_name, &stream->memory);
	SSL_set_connect_state(stream->ssl);
	return true;
}

struct tls_stream *
tls_stream_new_client(struct tls_client *client, const char *expected, const char *own)
{
	struct tls_stream *stream = stream_new(tls_client_set(client), false);

	if (stream != NULL && !client_init(stream, expected, own))
		tls_stream_free(&stream);
	ERR_clear_error();
	return stream;
}

void
tls_stream_free(struct tls_stream **stream)
{
	struct tls_stream *s = *stream;

	*stream = NULL;
	if (s == NULL)
		return;
	/* Without this OpenSSL marks a session as not resumable that the network merely cut. */
	if (s->ssl != NULL && s->error[0] == '\0')
		SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(s->ssl);
	buffer_free(&s->wire);
	tls_names_free(&s->names);
	free(s->held);
	free(s->expected);
	free(s->session_name);
	free(s->sni);
	tls_set_release(&s->set);
	free(s);
}

/* --- certificates ---------------------------------------------------------------- */

static struct tls_stream *
stream_of(X509_STORE_CTX *check)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(check, SSL_get_ex_data_X509_STORE_CTX_idx());

	return SSL_get_app_data(ssl);
}

/*
 * Constraints on dNSName don't bind SRV-ID (RFC 4985 section 4 has its own), so
 * a CA that is held to some domains could name any other in an SRV-ID.
 */
static bool
chain_is_constrained(const STACK_OF(X509) * chain)
{
	for (int i = 1; i < sk_X509_num(chain); i++) {
		if (X509_get_ext_by_NID(sk_X509_value(chain, i), NID_name_constraints, -1) >= 0)
			return true;
	}
	return false;
}

/*
 * Checks the chain for one purpose, apart from the check that OpenSSL prepared; X509_V_OK or
 * the error.
 */
static int
verify_as(X509_STORE_CTX *given, X509_STORE *store, int purpose, bool *constrained)
{
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;
	int error = X509_V_ERR_OUT_OF_MEM;

	if (check == NULL || X509_STORE_CTX_init(check, store, X509_STORE_CTX_get0_cert(given),
	                                         X509_STORE_CTX_get0_untrusted(given)) != 1)
		goto out;
	param = X509_STORE_CTX_get0_param(check);
	if ((store == X509_STORE_CTX_get0_store(given) &&
	     X509_VERIFY_PARAM_set1(param, X509_STORE_CTX_get0_param(given)) != 1) ||
	    X509_STORE_CTX_set_purpose(check, purpose) != 1 ||
	    X509_VERIFY_PARAM_set_purpose(param, purpose) != 1)
		goto out;
	/* The least strength of keys and signatures holds for pinned CAs too. */
	X509_VERIFY_PARAM_set_auth_level(
	    param, X509_VERIFY_PARAM_get_auth_level(X509_STORE_CTX_get0_param(given)));
	X509_VERIFY_PARAM_set_time(param, (time_t)clock_wall_s());
	if (X509_verify_cert(check) == 1)
		error = X509_V_OK;
	else
		error = X509_STORE_CTX_get_error(check);
	if (error == X509_V_OK)
		*constrained = chain_is_constrained(X509_STORE_CTX_get0_chain(check));
	else if (error == X509_V_ERR_UNSPECIFIED)
		error = X509_V_ERR_CERT_UNTRUSTED;
out:
	X509_STORE_CTX_free(check);
	return error;
}

static int
verify_client_as(X509_STORE_CTX *given, X509_STORE *store, bool *constrained)
{
	int error = verify_as(given, store, X509_PURPOSE_SSL_CLIENT, constrained);

	if (error == X509_V_ERR_INVALID_PURPOSE)
		error = verify_as(given, store, X509_PURPOSE_SSL_SERVER, constrained);
	return error;
}

static bool
cert_names(X509 *cert, bool srv_ids, const char *domain)
{
	struct tls_names names;
	bool found =
	    tls_names_read(cert, srv_ids, &names) && tls_names_have(&names, slice_str(domain));

	tls_names_free(&names);
	return found;
}

/* Each pinned domain that the certificate names is judged by its own CA. */
static void
check_pins(struct tls_stream *stream, X509_STORE_CTX *given)
{
	X509 *cert = X509_STORE_CTX_get0_cert(given);

	free(stream->held);
	stream->held = stream->set->pin_count == 0
	                   ? NULL
	                   : calloc(stream->set->pin_count, sizeof(*stream->held));
	for (size_t i = 0; stream->held != NULL && i < stream->set->pin_count; i++) {
		const struct tls_pinned *pin = &stream->set->pins[i];
		bool constrained = false;

		stream->held[i] =
		    cert_names(cert, true, pin->domain) &&
		    verify_client_as(given, pin->store, &constrained) == X509_V_OK &&
		    cert_names(cert, !constrained, pin->domain);
	}
}

/* Never fails the handshake: a session that isn't verified may still say why it is there. */
int
tls_stream_verify_client(X509_STORE_CTX *check, void *arg)
{
	struct tls_stream *stream = stream_of(check);
	bool constrained = false;
	int error = verify_client_as(check, X509_STORE_CTX_get0_store(check), &constrained);

	(void)arg;
	check_pins(stream, check);
	stream->srv_ids = error == X509_V_OK && !constrained;
	X509_STORE_CTX_set_error(check, error);
	return 1;
}

static bool
names_expected(const struct tls_stream *stream, X509 *cert, bool srv_ids)
{
	return cert_names(cert, srv_ids, stream->expected);
}

int
tls_stream_verify_server(X509_STORE_CTX *check, void *arg)
{
	struct tls_stream *stream = stream_of(check);
	bool constrained = false;
	int error = verify_as(check, X509_STORE_CTX_get0_store(check), X509_PURPOSE_SSL_SERVER,
	                      &constrained);

	(void)arg;
	stream->srv_ids = error == X509_V_OK && !constrained;
	if (error == X509_V_OK &&
	    !names_expected(stream, X509_STORE_CTX_get0_cert(check), stream->srv_ids))
		error = X509_V_ERR_HOSTNAME_MISMATCH;
	X509_STORE_CTX_set_error(check, error);
	return error == X509_V_OK || stream->set->unchecked;
}

const struct tls_memory *
tls_stream_memory(struct tls_stream *stream)
{
	X509 *cert = SSL_get0_peer_certificate(stream->ssl);
	int64_t ends;

	if (stream->remembered)
		return &stream->memory;
	if (!SSL_session_reused(stream->ssl)) {
		stream->memory.srv_ids = stream->srv_ids;
		stream->memory.valid_until = clock_wall_s() + TLS_SESSION_S;
		ends = cert == NULL ? INT64_MAX : tls_cert_ends(cert);
		if (ends < stream->memory.valid_until)
			stream->memory.valid_until = ends;
	}
	stream->remembered = true;
	return &stream->memory;
}

/* --- what is known after the handshake ------------------------------------------- */

/* What pinned CAs add to the identity, and take from what the ordinary roots gave. */
static bool
fill_pinned(struct tls_stream *stream, X509 *cert)
{
	struct tls_peer *peer = &stream->peer;

	if (!tls_pins_concern(stream->set, cert))
		return true;
	if (stream->held ==
	    NULL) /* no memory: the ordinary roots must not speak for a pinned domain */
		return false;
	if (!tls_pins_apply(stream->set, stream->held, &stream->names))
		return false;
	peer->verified = stream->names.count > 0;
	if (peer->verified)
		peer->problem = "";
	else if (*peer->problem == '\0')
		peer->problem = "not of the CA that is pinned for the domain";
	return true;
}

static bool
fill_identity(struct tls_stream *stream)
{
	const struct tls_memory *memory = tls_stream_memory(stream);
	struct tls_peer *peer = &stream->peer;
	X509 *cert = SSL_get0_peer_certificate(stream->ssl);
	long result = SSL_get_verify_result(stream->ssl);

	peer->presented = cert != NULL;
	peer->problem = "no certificate";
	if (cert == NULL)
		return true;
	peer->valid_until = tls_cert_ends(cert);
	if (peer->resumed && memory->valid_until < peer->valid_until)
		peer->valid_until = memory->valid_until;
	if (result == X509_V_OK && peer->valid_until <= clock_wall_s())
		result = X509_V_ERR_CERT_HAS_EXPIRED;
	if (result == X509_V_OK && !tls_names_read(cert, memory->srv_ids != 0, &stream->names))
		return false;
	if (result == X509_V_OK && !stream->server &&
	    !tls_names_have(&stream->names, slice_str(stream->expected)))
		result = X509_V_ERR_HOSTNAME_MISMATCH;
	peer->verified = result == X509_V_OK;
	peer->problem = peer->verified ? "" : X509_verify_cert_error_string(result);
	if (!peer->verified)
		tls_names_free(&stream->names);
	if (stream->server && peer->valid_until > clock_wall_s() && !fill_pinned(stream, cert))
		return false;
	peer->names = stream->names.names;
	peer->name_count = stream->names.count;
	return true;
}

static bool
fill_peer(struct tls_stream *stream)
{
	struct tls_peer *peer = &stream->peer;
	const char *sni = SSL_get_servername(stream->ssl, TLSEXT_NAMETYPE_host_name);
	const unsigned char *alpn;
	unsigned alpn_len;

	SSL_get0_alpn_selected(stream->ssl, &alpn, &alpn_len);
	peer->alpn = alpn_len > 0 ? (const char *)stream->set->alpn + 1 : "";
	peer->version = SSL_get_version(stream->ssl);
	peer->cipher = SSL_get_cipher_name(stream->ssl);
	peer->resumed = SSL_session_reused(stream->ssl) == 1;
	stream->sni = strdup(sni == NULL ? "" : sni);
	if (stream->sni == NULL)
		return false;
	for (char *c = stream->sni; *c != '\0'; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	}
	peer->sni = stream->sni;
	return fill_identity(stream);
}

bool
tls_peer_is(const struct tls_peer *peer, struct slice domain)
{
	struct tls_names names = { (const char **)(uintptr_t)peer->names, peer->name_count };

	return peer->verified && peer->valid_until > clock_wall_s() &&
	       tls_names_have(&names, domain);
}

/* --- octets ---------------------------------------------------------------------- */

static enum tls_rc
fail(struct tls_stream *stream, const char *while_doing)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	long result = SSL_get_verify_result(stream->ssl);

	if (!stream->server && result != X509_V_OK && !stream->set->unchecked) {
		stream->unverified = true;
		reason = X509_verify_cert_error_string(result);
	}
	if (stream->refusal != NULL)
		reason = stream->refusal;
	if (stream->wire.failed)
		reason = "no room for what is to be sent";
	(void)snprintf(stream->error, sizeof(stream->error), "%s: %s", while_doing,
	               reason == NULL ? "unknown error" : reason);
	ERR_clear_error();
	return TLS_FAILED;
}

enum tls_rc
tls_stream_handshake(struct tls_stream *stream)
{
	int rc;

	if (stream->done)
		return TLS_DONE;
	ERR_clear_error();
	rc = SSL_do_handshake(stream->ssl);
	if (rc != 1)
		return SSL_get_error(stream->ssl, rc) == SSL_ERROR_WANT_READ
		           ? TLS_MORE
		           : fail(stream, "TLS handshake");
	if (!fill_peer(stream))
		return fail(stream, "TLS handshake");
	if (!stream->server && !stream->peer.verified && !stream->set->unchecked) {
		stream->unverified =
		    true; /* a resumed session whose identity doesn't hold any more */
		(void)snprintf(stream->error, sizeof(stream->error), "TLS handshake: %s",
		               stream->peer.problem);
		return TLS_FAILED;
	}
	stream->done = true;
	return TLS_DONE;
}

enum tls_rc
tls_stream_read(struct tls_stream *stream, uint8_t *out, size_t size, size_t *got)
{
	ERR_clear_error();
	if (SSL_read_ex(stream->ssl, out, size, got) == 1)
		return TLS_DONE;
	switch (SSL_get_error(stream->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return TLS_MORE;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_ENDED;
	default:
		return fail(stream, "TLS");
	}
}

enum tls_rc
tls_stream_write(struct tls_stream *stream, struct slice plain)
{
	size_t done;

	ERR_clear_error();
	while (plain.len > 0) {
		if (SSL_write_ex(stream->ssl, plain.data, plain.len, &done) != 1)
			return fail(stream, "TLS");
		plain.data += done;
		plain.len -= done;
	}
	return TLS_DONE;
}

void
tls_stream_shutdown(struct tls_stream *stream)
{
	ERR_clear_error();
	(void)SSL_shutdown(stream->ssl);
	ERR_clear_error();
}

bool
tls_stream_exporter(struct tls_stream *stream, const char *label, uint8_t *out, size_t len)
{
	uint8_t secret[64];

	if (len > sizeof(secret) || (SSL_version(stream->ssl) < TLS1_3_VERSION &&
	                             SSL_get_extms_support(stream->ssl) != 1))
		return false;
	ERR_clear_error();
	if (SSL_export_keying_material(stream->ssl, secret, len, label, strlen(label), NULL, 0,
	                               0) != 1)
		return false;
	memcpy(out, secret, len);
	OPENSSL_cleanse(secret, sizeof(secret));
	return true;
}
