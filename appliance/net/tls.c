/*
 * TLS contexts: see tls.h and tls_set.h. There is one SSL_CTX for all domains
 * of a server: the certificate is put into the SSL when the name is known, so
 * that no other setting can differ between domains.
 */
#include "net/tls_stream.h"

#include "base/clock.h"
#include "base/log.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>

struct tls_server {
	struct tls_set *set;
};

struct tls_client {
	struct tls_set *set;
};

/* --- sets --------------------------------------------------------------------- */

struct tls_set *
tls_set_hold(struct tls_set *set)
{
	set->references++;
	return set;
}

static void
forget_session(struct tls_session *s)
{
	free(s->name);
	SSL_SESSION_free(s->session);
	*s = (struct tls_session){ 0 };
}

void
tls_set_release(struct tls_set **set)
{
	struct tls_set *s = *set;

	*set = NULL;
	if (s == NULL || --s->references > 0)
		return;
	for (size_t i = 0; i < s->count; i++) {
		free(s->keys[i].domain);
		X509_free(s->keys[i].cert);
		EVP_PKEY_free(s->keys[i].key);
		sk_X509_pop_free(s->keys[i].chain, X509_free);
	}
	free(s->keys);
	tls_pins_free(s);
	for (size_t i = 0; s->sessions != NULL && i < TLS_SESSIONS; i++)
		forget_session(&s->sessions[i]);
	free(s->sessions);
	SSL_CTX_free(s->ctx);
	free(s);
}

bool
tls_set_present(const struct tls_set *set, SSL *ssl, const char *domain)
{
	bool any = false;

	for (size_t i = 0; i < set->count; i++) {
		const struct tls_key *k = &set->keys[i];

		if (strcmp(k->domain, domain) != 0)
			continue;
		if (SSL_use_cert_and_key(ssl, k->cert, k->key, k->chain, 1) != 1)
			return false;
		any = true;
	}
	return any;
}

/* --- sessions of clients ------------------------------------------------------ */

static struct tls_session *
session_slot(const struct tls_set *set, const char *name)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (const char *c = name; *c != '\0'; c++)
		hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
	return &set->sessions[(hash ^ hash >> 32) % TLS_SESSIONS];
}

bool
tls_set_resume(const struct tls_set *set, SSL *ssl, const char *name, struct tls_memory *memory)
{
	struct tls_session *s;

	if (set->sessions == NULL)
		return false;
	s = session_slot(set, name);
	if (s->name == NULL || strcmp(s->name, name) != 0)
		return false;
	if (s->memory.valid_until <= clock_wall_s()) {
		forget_session(s);
		return false;
	}
	*memory = s->memory;
	return SSL_set_session(ssl, s->session) == 1;
}

void
tls_set_remember(struct tls_set *set, const char *name, SSL_SESSION *session,
                 const struct tls_memory *memory)
{
	struct tls_session *s = session_slot(set, name);
	char *copy = strdup(name);

	if (copy == NULL) {
		SSL_SESSION_free(session);
		return;
	}
	forget_session(s);
	*s = (struct tls_session){ .name = copy, .session = session, .memory = *memory };
}

static int
on_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_stream *stream = SSL_get_app_data(ssl);

	if (stream->session_name == NULL)
		return 0; /* OpenSSL keeps its reference */
	tls_set_remember(stream->set, stream->session_name, session, tls_stream_memory(stream));
	return 1;
}

/* --- tickets of servers ------------------------------------------------------- */

static int
on_make_ticket(SSL *ssl, void *arg)
{
	const struct tls_memory *memory = tls_stream_memory(SSL_get_app_data(ssl));

	(void)arg;
	return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), memory, sizeof(*memory));
}

/*
 * A ticket is renewed at each use: only what it remembers tells how old the
 * identity in it is.
 */
static SSL_TICKET_RETURN
on_read_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_len,
               SSL_TICKET_STATUS status, void *arg)
{
	struct tls_stream *stream = SSL_get_app_data(ssl);
	struct tls_memory memory;
	void *data;
	size_t len;

	(void)name;
	(void)name_len;
	(void)arg;
	if (status == SSL_TICKET_FATAL_ERR_MALLOC || status == SSL_TICKET_FATAL_ERR_OTHER)
		return SSL_TICKET_RETURN_ABORT;
	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	if (SSL_SESSION_get0_ticket_appdata(session, &data, &len) != 1 || len != sizeof(memory))
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	memcpy(&memory, data, sizeof(memory));
	if (memory.valid_until <= clock_wall_s())
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	/* What a pinned CA vouched for isn't in the ticket: it is looked at anew. */
	if (tls_pins_concern(stream->set, SSL_SESSION_get0_peer(session)))
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	stream->memory = memory;
	return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE
	                                    : SSL_TICKET_RETURN_USE_RENEW;
}

/* --- names and protocols -------------------------------------------------------- */

static void
lower(char *s)
{
	for (; *s != '\0'; s++) {
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
	}
}

static int
on_choose_certificate(SSL *ssl, void *arg)
{
	const struct tls_set *set = ((struct tls_stream *)SSL_get_app_data(ssl))->set;
	const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	char domain[256];

	(void)arg;
	if (sni != NULL && strlen(sni) < sizeof(domain)) {
		(void)snprintf(domain, sizeof(domain), "%s", sni);
		lower(domain);
		if (tls_set_present(set, ssl, domain))
			return 1;
	}
	return tls_set_present(set, ssl, set->keys[0].domain);
}

/* Without this callback OpenSSL wouldn't say that it heeded the name. */
static int
on_server_name(SSL *ssl, int *alert, void *arg)
{
	(void)ssl;
	(void)alert;
	(void)arg;
	return SSL_TLSEXT_ERR_OK;
}

/* Source: RFC 7301 section 3.2: no protocol in common is fatal. */
static int
on_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
               const unsigned char *in, unsigned inlen, void *arg)
{
	struct tls_stream *stream = SSL_get_app_data(ssl);
	const uint8_t *own = stream->set->alpn;

	(void)arg;
	for (size_t i = 0; i < inlen; i += 1u + in[i]) {
		if (in[i] == own[0] && (size_t)in[i] <= inlen - i - 1 &&
		    memcmp(in + i + 1, own + 1, own[0]) == 0) {
			*out = in + i + 1;
			*outlen = in[i];
			return SSL_TLSEXT_ERR_OK;
		}
	}
	stream->refusal = "the client offers other protocols by ALPN";
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A client that doesn't speak ALPN at all never reaches on_choose_alpn. */
static int
on_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls_stream *stream = SSL_get_app_data(ssl);
	const unsigned char *data;
	size_t len;

	(void)arg;
	if (!stream->require_alpn || stream->set->alpn[0] == 0 ||
	    SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation,
	                              &data, &len) == 1)
		return SSL_CLIENT_HELLO_SUCCESS;
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	stream->refusal = "the client offers no ALPN";
	return SSL_CLIENT_HELLO_ERROR;
}

/* --- building ------------------------------------------------------------------- */

static enum tls_error
failed(enum tls_error error, char *why, const char *what, const char *detail)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	if (detail == NULL)
		detail = reason != NULL ? reason : "unknown error";
	(void)snprintf(why, NET_TEXT, "%.160s: %.80s", what, detail);
	ERR_clear_error();
	return error;
}

/* A key under a passphrase is an error, not a question on the terminal. */
static int
no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static enum tls_error
load_chain(struct tls_key *key, const char *file, char *why)
{
	BIO *in = BIO_new_file(file, "r");
	X509 *cert;

	if (in == NULL)
		return failed(TLS_BAD_FILE, why, file, NULL);
	key->cert = PEM_read_bio_X509_AUX(in, NULL, no_passphrase, NULL);
	key->chain = sk_X509_new_null();
	while (key->cert != NULL && key->chain != NULL &&
	       (cert = PEM_read_bio_X509(in, NULL, no_passphrase, NULL)) != NULL) {
		if (sk_X509_push(key->chain, cert) <= 0) {
			X509_free(cert);
			break;
		}
	}
	BIO_free(in);
	if (key->cert == NULL)
		return failed(TLS_BAD_FILE, why, file, "no certificate in PEM");
	/* The loop ends at the end of the file, or at an entry that is broken: */
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return failed(TLS_BAD_FILE, why, file, NULL);
	ERR_clear_error();
	return TLS_OK;
}

static enum tls_error
load_private_key(struct tls_key *key, const char *file, char *why)
{
	BIO *in = BIO_new_file(file, "r");

	if (in == NULL)
		return failed(TLS_BAD_FILE, why, file, NULL);
	key->key = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL);
	BIO_free(in);
	if (key->key == NULL)
		return failed(TLS_BAD_FILE, why, file,
		              "no private key in PEM without a passphrase");
	if (X509_check_private_key(key->cert, key->key) != 1)
		return failed(TLS_BAD_KEY, why, file, "isn't the certificate's key");
	return TLS_OK;
}

/* OpenSSL's own opinion of the pair (its security level), now instead of in every handshake. */
static enum tls_error
try_key(struct tls_set *set, const struct tls_key *key, const char *file, char *why)
{
	SSL *probe = SSL_new(set->ctx);
	bool good = probe != NULL &&
	            SSL_use_cert_and_key(probe, key->cert, key->key, key->chain, 1) == 1;

	SSL_free(probe);
	return good ? TLS_OK : failed(TLS_BAD_KEY, why, file, NULL);
}

static void
warn_of_other_names(const struct tls_key *key)
{
	struct tls_names names;

	if (tls_names_read(key->cert, true, &names) &&
	    !tls_names_have(&names, slice_str(key->domain)))
		log_warn(
		    "certificate-names-other", LOG_S("domain", key->domain),
		    LOG_S("reason",
		          "peers will refuse it: the certificate doesn't name this domain"));
	tls_names_free(&names);
}

static enum tls_error
load_key(struct tls_set *set, const struct tls_identity *identity, char *why)
{
	struct tls_key *key = &set->keys[set->count++];
	enum tls_error error;
	int64_t ends;

	key->domain = strdup(identity->domain);
	if (key->domain == NULL)
		return failed(TLS_NO_MEMORY, why, identity->domain, "no memory");
	lower(key->domain);
	error = load_chain(key, identity->cert_file, why);
	if (error == TLS_OK)
		error = load_private_key(key, identity->key_file, why);
	if (error == TLS_OK)
		error = try_key(set, key, identity->cert_file, why);
	if (error != TLS_OK)
		return error;
	warn_of_other_names(key);
	ends = tls_cert_ends(key->cert);
	if (set->count == 1 || ends < set->expires)
		set->expires = ends;
	return TLS_OK;
}

static enum tls_error
load_keys(struct tls_set *set, const struct tls_identity *identities, size_t count, char *why)
{
	enum tls_error error = TLS_OK;

	if (count == 0)
		return TLS_OK;
	set->keys = calloc(count, sizeof(*set->keys));
	if (set->keys == NULL)
		return failed(TLS_NO_MEMORY, why, "certificates", "no memory");
	for (size_t i = 0; i < count && error == TLS_OK; i++)
		error = load_key(set, &identities[i], why);
	return error;
}

static enum tls_error
load_trust(struct tls_set *set, const char *ca_file, char *why)
{
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(set->ctx);

	X509_VERIFY_PARAM_set_depth(param, 8);
	if (ca_file == NULL)
		return SSL_CTX_set_default_verify_paths(set->ctx) == 1
		           ? TLS_OK
		           : failed(TLS_BAD_TRUST, why, "the system's trust roots", NULL);
	if (SSL_CTX_load_verify_file(set->ctx, ca_file) != 1)
		return failed(TLS_BAD_TRUST, why, ca_file, NULL);
	/*
	 * A pinned file may hold an intermediate or the server's own certificate: that is the
	 * anchor then.
	 */
	(void)X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
	return TLS_OK;
}

static enum tls_error
load_pins(struct tls_set *set, const struct tls_server_config *config, char *why)
{
	const char *bad_file;

	if (tls_pins_load(set, config->pins, config->pin_count, &bad_file))
		return TLS_OK;
	return bad_file != NULL ? failed(TLS_BAD_TRUST, why, bad_file, NULL)
	                        : failed(TLS_NO_MEMORY, why, "pinned CAs", "no memory");
}

static enum tls_error
set_alpn(struct tls_set *set, const char *alpn, char *why)
{
	size_t len = alpn == NULL ? 0 : strlen(alpn);

	if (len > 255)
		return failed(TLS_BAD_CONFIG, why, "ALPN", "longer than 255 octets");
	set->alpn[0] = (uint8_t)len;
	if (len > 0)
		memcpy(set->alpn + 1, alpn, len);
	return TLS_OK;
}

static enum tls_error
set_new(const SSL_METHOD *method, struct tls_set **out, char *why)
{
	struct tls_set *set = calloc(1, sizeof(*set));

	ERR_clear_error();
	*out = set;
	if (set == NULL)
		return failed(TLS_NO_MEMORY, why, "TLS", "no memory");
	set->references = 1;
	set->ctx = SSL_CTX_new(method);
	if (set->ctx == NULL || SSL_CTX_set_min_proto_version(set->ctx, TLS1_2_VERSION) != 1)
		return failed(TLS_NO_MEMORY, why, "TLS", NULL);
	(void)SSL_CTX_set_options(set->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	(void)SSL_CTX_set_mode(set->ctx, SSL_MODE_RELEASE_BUFFERS |
	                                     SSL_MODE_ENABLE_PARTIAL_WRITE |
	                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_timeout(set->ctx, TLS_SESSION_S);
	return TLS_OK;
}

static enum tls_error
server_settings(struct tls_set *set, char *why)
{
	static const uint8_t sid[] = "tmtp";
	SSL_CTX *ctx = set->ctx;

	(void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	(void)SSL_CTX_set_max_early_data(ctx, 0);
	/* Sessions live in tickets alone, where the age of the identity is seen. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_session_id_context(ctx, sid, sizeof(sid) - 1) != 1 ||
	    SSL_CTX_set_session_ticket_cb(ctx, on_make_ticket, on_read_ticket, NULL) != 1)
		return failed(TLS_NO_MEMORY, why, "TLS", NULL);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, tls_stream_verify_client, NULL);
	SSL_CTX_set_cert_cb(ctx, on_choose_certificate, NULL);
	SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
	(void)SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
	if (set->alpn[0] > 0)
		SSL_CTX_set_alpn_select_cb(ctx, on_choose_alpn, NULL);
	return TLS_OK;
}

static enum tls_error
server_set(const struct tls_server_config *config, struct tls_set **out, char *why)
{
	enum tls_error error = set_new(TLS_server_method(), out, why);

	if (error == TLS_OK && config->count == 0)
		error =
		    failed(TLS_BAD_CONFIG, why, "TLS server", "no certificate is configured");
	if (error == TLS_OK)
		error = set_alpn(*out, config->alpn, why);
	if (error == TLS_OK)
		error = load_trust(*out, config->ca_file, why);
	if (error == TLS_OK)
		error = load_pins(*out, config, why);
	if (error == TLS_OK)
		error = server_settings(*out, why);
	if (error == TLS_OK)
		error = load_keys(*out, config->identities, config->count, why);
	if (error != TLS_OK)
		tls_set_release(out);
	return error;
}

static enum tls_error
client_settings(struct tls_set *set, char *why)
{
	SSL_CTX *ctx = set->ctx;

	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT |
	                                              SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_new_session);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, tls_stream_verify_server, NULL);
	set->sessions = calloc(TLS_SESSIONS, sizeof(*set->sessions));
	if (set->sessions == NULL)
		return failed(TLS_NO_MEMORY, why, "TLS", "no memory");
	if (set->alpn[0] > 0 && SSL_CTX_set_alpn_protos(ctx, set->alpn, set->alpn[0] + 1u) != 0)
		return failed(TLS_NO_MEMORY, why, "ALPN", NULL);
	return TLS_OK;
}

static enum tls_error
client_set(const struct tls_client_config *config, struct tls_set **out, char *why)
{
	enum tls_error error = set_new(TLS_client_method(), out, why);

	if (error == TLS_OK)
		error = set_alpn(*out, config->alpn, why);
	if (error == TLS_OK)
		error = load_trust(*out, config->ca_file, why);
	if (error == TLS_OK)
		error = client_settings(*out, why);
	if (error == TLS_OK)
		error = load_keys(*out, config->identities, config->count, why);
	if (error != TLS_OK)
		tls_set_release(out);
	else
		(*out)->unchecked = config->unchecked;
	return error;
}

/* --- what others hold ------------------------------------------------------------- */

enum tls_error
tls_server_reload(struct tls_server *server, const struct tls_server_config *config,
                  char why[static NET_TEXT])
{
	struct tls_set *set;
	enum tls_error error = server_set(config, &set, why);

	if (error != TLS_OK)
		return error;
	tls_set_release(&server->set);
	server->set = set;
	return TLS_OK;
}

enum tls_error
tls_server_new(const struct tls_server_config *config, struct tls_server **out,
               char why[static NET_TEXT])
{
	struct tls_server *server = calloc(1, sizeof(*server));
	enum tls_error error;

	*out = NULL;
	if (server == NULL)
		return failed(TLS_NO_MEMORY, why, "TLS", "no memory");
	error = tls_server_reload(server, config, why);
	if (error != TLS_OK)
		free(server);
	else
		*out = server;
	return error;
}

void
tls_server_free(struct tls_server **server)
{
	if (*server != NULL)
		tls_set_release(&(*server)->set);
	free(*server);
	*server = NULL;
}

int64_t
tls_server_expires(const struct tls_server *server)
{
	return server->set->expires;
}

struct tls_set *
tls_server_set(const struct tls_server *server)
{
	return server->set;
}

enum tls_error
tls_client_reload(struct tls_client *client, const struct tls_client_config *config,
                  char why[static NET_TEXT])
{
	struct tls_set *set;
	enum tls_error error = client_set(config, &set, why);

	if (error != TLS_OK)
		return error;
	tls_set_release(&client->set);
	client->set = set;
	return TLS_OK;
}

enum tls_error
tls_client_new(const struct tls_client_config *config, struct tls_client **out,
               char why[static NET_TEXT])
{
	struct tls_client *client = calloc(1, sizeof(*client));
	enum tls_error error;

	*out = NULL;
	if (client == NULL)
		return failed(TLS_NO_MEMORY, why, "TLS", "no memory");
	error = tls_client_reload(client, config, why);
	if (error != TLS_OK)
		free(client);
	else
		*out = client;
	return error;
}

void
tls_client_free(struct tls_client **client)
{
	if (*client != NULL)
		tls_set_release(&(*client)->set);
	free(*client);
	*client = NULL;
}

struct tls_set *
tls_client_set(const struct tls_client *client)
{
	return client->set;
}
