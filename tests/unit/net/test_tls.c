/*
 * net/tls: identities, names, protocols, resumption, reloading. Octets go from stream to
 * stream, without sockets.
 */
#include "net_test.h"

#include "net/tls_stream.h"

#include <openssl/err.h>

#define DAYS(n) ((n)*86400L)

static struct test_ca ca, other_ca;

struct end {
	struct tls_stream *s;
	bool done, failed, ended;
	struct buffer plain;
};

/* --- a handshake and what follows -------------------------------------------------- */

static void
drive(struct end *e)
{
	uint8_t out[70000];
	size_t got = 0;

	while (!e->failed && !e->ended) {
		enum tls_rc rc = e->done ? tls_stream_read(e->s, out, sizeof(out), &got)
		                         : tls_stream_handshake(e->s);

		if (rc == TLS_MORE) {
			assert_int_equal(e->s->in.len,
			                 0); /* it must have looked at everything */
			return;
		}
		e->failed = rc == TLS_FAILED;
		e->ended = rc == TLS_ENDED;
		if (rc == TLS_DONE && e->done)
			buffer_add(&e->plain, out, got);
		e->done = e->done || rc == TLS_DONE;
	}
}

static void
carry(struct end *from, struct end *to, size_t chunk)
{
	struct buffer *wire = &from->s->wire;
	size_t n = wire->len < chunk ? wire->len : chunk;
	uint8_t *flush = malloc(n); /* its end is the block's end */

	assert_non_null(flush);
	memcpy(flush, wire->data, n);
	buffer_consume(wire, n);
	to->s->in = slice_mem(flush, n);
	drive(to);
	to->s->in = slice_mem(NULL, 0);
	free(flush);
}

static void
pump(struct end *a, struct end *b, size_t chunk)
{
	drive(a);
	drive(b);
	while ((a->s->wire.len > 0 && !b->failed) || (b->s->wire.len > 0 && !a->failed)) {
		if (a->s->wire.len > 0 && !b->failed)
			carry(a, b, chunk);
		if (b->s->wire.len > 0 && !a->failed)
			carry(b, a, chunk);
	}
}

static void
begin(struct end *client, struct end *server, struct tls_client *tc, struct tls_server *ts,
      const char *expected, const char *own)
{
	*client = (struct end){ .s = tls_stream_new_client(tc, expected, own) };
	*server = (struct end){ .s = tls_stream_new_server(ts, false) };
	assert_non_null(client->s);
	assert_non_null(server->s);
	buffer_init(&client->plain, 1 << 20);
	buffer_init(&server->plain, 1 << 20);
}

static void
finish(struct end *client, struct end *server)
{
	tls_stream_free(&client->s);
	tls_stream_free(&server->s);
	buffer_free(&client->plain);
	buffer_free(&server->plain);
	assert_int_equal(ERR_peek_error(), 0); /* nothing may leak into the next one's errors */
}

static struct tls_server *
server_with(const struct tls_identity *identities, size_t count, const char *alpn)
{
	struct tls_server_config config = { .identities = identities,
		                            .count = count,
		                            .ca_file = test_path("ca.crt"),
		                            .alpn = alpn };
	struct tls_server *server;
	char why[NET_TEXT];

	assert_int_equal(tls_server_new(&config, &server, why), TLS_OK);
	return server;
}

static struct tls_client *
client_with(const char *cert, const char *alpn, bool unchecked)
{
	struct tls_identity own = test_identity("sender.example", cert == NULL ? "" : cert);
	struct tls_client_config config = { .identities = &own,
		                            .count = cert == NULL ? 0 : 1,
		                            .ca_file = test_path("ca.crt"),
		                            .alpn = alpn,
		                            .unchecked = unchecked };
	struct tls_client *client;
	char why[NET_TEXT];

	assert_int_equal(tls_client_new(&config, &client, why), TLS_OK);
	return client;
}

static struct tls_server *
plain_server(const char *cert)
{
	struct tls_identity id = test_identity("home.example", cert);

	return server_with(&id, 1, "dmtp/1");
}

static int
group_setup(void **state)
{
	struct test_cert t = {
		.cn = "Test CA", .ca = true, .from_s = -DAYS(400), .until_s = DAYS(400)
	};

	(void)state;
	ca = test_cert_make(&t);
	t.cn = "Other CA";
	other_ca = test_cert_make(&t);
	test_cert_write("other_ca", &other_ca, NULL);
	test_cert_write("ca", &ca, NULL);
	test_cert_write("other-ca", &other_ca, NULL);
	test_cert_put("home", &(struct test_cert){ .cn = "h",
	                                           .san = "DNS:home.example",
	                                           .issuer = &ca,
	                                           .from_s = -DAYS(1),
	                                           .until_s = DAYS(30) });
	test_cert_put("home2", &(struct test_cert){
				   .cn = "h2", .san = "DNS:home.example", .issuer = &ca });
	test_cert_put("home-rsa",
	              &(struct test_cert){
			  .cn = "hr", .san = "DNS:home.example", .issuer = &ca, .rsa = true });
	test_cert_put("second", &(struct test_cert){
				    .cn = "s", .san = "DNS:second.example", .issuer = &ca });
	test_cert_put("sender",
	              &(struct test_cert){ .cn = "c",
	                                   .issuer = &ca,
	                                   .eku = "clientAuth",
	                                   .san = "DNS:sender.example,DNS:Mail.Sender.Example",
	                                   .from_s = -DAYS(1),
	                                   .until_s = DAYS(30) });
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	test_cert_free(&ca);
	test_cert_free(&other_ca);
	test_remove_dir();
	return 0;
}

/* --- the tests ---------------------------------------------------------------------- */

static void
exchange(struct end *client, struct end *server, size_t chunk)
{
	static uint8_t big[40000];

	assert_int_equal(tls_stream_write(client->s, SLICE("from the client")), TLS_DONE);
	pump(client, server, chunk);
	assert_true(slice_eq_str(buffer_slice(&server->plain), "from the client"));
	memset(big, 'x', sizeof(big));
	assert_int_equal(tls_stream_write(server->s, slice_mem(big, sizeof(big))), TLS_DONE);
	pump(client, server, chunk);
	assert_true(slice_eq(buffer_slice(&client->plain), slice_mem(big, sizeof(big))));
}

static void
test_both_versions_in_every_chunking(void **state)
{
	static const size_t chunks[] = { 1, 2, 3, 5, 16, 100, 1400, 100000 };
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with("sender", "dmtp/1", false);
	struct end c, s;

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(chunks) / sizeof(chunks[0]); i++) {
		size_t chunk = chunks[i / 2];
		bool old = i % 2 == 1;

		begin(&c, &s, tc, ts, "home.example", "sender.example");
		if (old)
			assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_2_VERSION),
			                 1);
		pump(&c, &s, chunk);
		assert_true(c.done && s.done && !c.failed && !s.failed);
		assert_string_equal(s.s->peer.version, old ? "TLSv1.2" : "TLSv1.3");
		assert_true(c.s->peer.verified && s.s->peer.verified);
		assert_string_equal(s.s->peer.problem, "");
		assert_string_equal(s.s->peer.sni, "home.example");
		assert_string_equal(s.s->peer.alpn, "dmtp/1");
		assert_string_equal(c.s->peer.alpn, "dmtp/1");
		assert_int_equal(s.s->peer.name_count, 2);
		assert_true(tls_peer_is(&s.s->peer, SLICE("sender.example")));
		assert_true(tls_peer_is(&s.s->peer, SLICE("mail.sender.example")));
		assert_false(tls_peer_is(&s.s->peer, SLICE("example")));
		exchange(&c, &s, chunk);
		tls_stream_shutdown(c.s);
		pump(&c, &s, chunk);
		assert_true(s.ended && !s.failed);
		/* Half-closed: what the server still says arrives. */
		buffer_clear(&c.plain);
		assert_int_equal(tls_stream_write(s.s, SLICE("still here")), TLS_DONE);
		pump(&c, &s, chunk);
		assert_true(slice_eq_str(buffer_slice(&c.plain), "still here"));
		finish(&c, &s);
	}
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_client_certificates(void **state)
{
	static const struct {
		const char *san, *eku;
		bool other_issuer;
		long from_s, until_s;
		const char *names; /* joined with spaces; NULL: unverified */
		const char *problem;
	} table[] = {
		{ "DNS:sender.example", "clientAuth", false, 0, 0, "sender.example", "" },
		{ "DNS:sender.example", "serverAuth", false, 0, 0, "sender.example", "" },
		{ "DNS:sender.example", "serverAuth,clientAuth", false, 0, 0, "sender.example",
		  "" },
		{ "DNS:sender.example", NULL, false, 0, 0, "sender.example", "" },
		{ "DNS:sender.example", "emailProtection", false, 0, 0, NULL,
		  "unsuitable certificate purpose" },
		{ "DNS:sender.example", "clientAuth", false, -DAYS(3), -DAYS(1), NULL,
		  "certificate has expired" },
		{ "DNS:sender.example", "serverAuth", false, DAYS(1), DAYS(3), NULL,
		  "certificate is not yet valid" },
		{ "DNS:sender.example", "clientAuth", true, 0, 0, NULL,
		  "unable to get local issuer certificate" },
		{ "DNS:*.sender.example,DNS:a.example", NULL, false, 0, 0, "a.example", "" },
		{ NULL, NULL, false, 0, 0, "", "" }, /* the common name is nobody's name */
		{ "email:a@b.example,DNS:b.example,DNS:B.example,URI:https://c.example", NULL,
		  false, 0, 0, "b.example", "" },
		{ "otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtp.x.example,otherName:1.3.6.1.5.5.7.8.7;"
		  "IA5:_dmtps.Y.example",
		  NULL, false, 0, 0, "x.example y.example", "" },
		{ "otherName:1.3.6.1.5.5.7.8.7;IA5:_xmpp.x.example,otherName:1.3.6.1.5.5.7.8.7;"
		  "IA5:x.example,"
		  "otherName:1.3.6.1.5.5.7.8.7;UTF8:_dmtp.u.example,otherName:1.3.6.1.5.5.7.8."
		  "5;IA5:_dmtp.v.example,"
		  "otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtp.*.example,otherName:1.3.6.1.5.5.7.8.7;"
		  "IA5:_dmtp.",
		  NULL, false, 0, 0, "", "" },
		{ "DNS:a..example,DNS:.example,DNS:trail.example.,DNS:a b.example", NULL, false,
		  0, 0, "", "" },
	};
	struct tls_server *ts = plain_server("home");
	struct end c, s;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct tls_client *tc;
		char joined[256] = "";

		test_cert_put("probe", &(struct test_cert){
					   .cn = "sender.example",
					   .san = table[i].san,
					   .eku = table[i].eku,
					   .issuer = table[i].other_issuer ? &other_ca : &ca,
					   .from_s = table[i].from_s,
					   .until_s = table[i].until_s });
		log_set_level(LOG_ERROR_LEVEL);
		tc = client_with("probe", "dmtp/1", false);
		begin(&c, &s, tc, ts, "home.example", "sender.example");
		pump(&c, &s, 500);
		assert_true(c.done && s.done && !s.failed); /* never refused for it */
		assert_true(s.s->peer.presented);
		assert_int_equal(s.s->peer.verified, table[i].names != NULL);
		assert_string_equal(s.s->peer.problem, table[i].problem);
		for (size_t n = 0; n < s.s->peer.name_count; n++)
			(void)snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined),
			               n == 0 ? "%s" : " %s", s.s->peer.names[n]);
		assert_string_equal(joined, table[i].names == NULL ? "" : table[i].names);
		finish(&c, &s);
		tls_client_free(&tc);
	}
	tls_server_free(&ts);
}

/* "pinned.example" may be vouched for by other_ca alone, and other_ca vouches for nothing else.
 */
static void
test_a_pinned_ca_speaks_for_its_domain_and_no_other(void **state)
{
	static const struct {
		const char *san;
		bool by_pinned_ca;
		const char *names; /* NULL: unverified */
	} table[] = {
		{ "DNS:pinned.example", true, "pinned.example" },
		{ "otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtp.pinned.example", true,
		  "pinned.example" },
		{ "DNS:pinned.example", false, NULL },
		{ "DNS:other.example", true, NULL },
		{ "DNS:other.example", false, "other.example" },
		{ "DNS:pinned.example,DNS:other.example", true, "pinned.example" },
		{ "DNS:pinned.example,DNS:other.example", false, "other.example" },
	};
	struct tls_identity id = test_identity("home.example", "home");
	struct tls_pin pin = { "pinned.example", test_path("other_ca.crt") };
	struct tls_server_config config = { .identities = &id,
		                            .count = 1,
		                            .ca_file = test_path("ca.crt"),
		                            .pins = &pin,
		                            .pin_count = 1 };
	struct tls_server *ts;
	struct end c, s;
	char why[NET_TEXT];

	(void)state;
	assert_int_equal(tls_server_new(&config, &ts, why), TLS_OK);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct tls_client *tc;

		test_cert_put("probe", &(struct test_cert){
					   .cn = "x",
					   .san = table[i].san,
					   .issuer = table[i].by_pinned_ca ? &other_ca : &ca });
		tc = client_with("probe", "dmtp/1", false);
		for (int again = 0; again < 2;
		     again++) { /* the second time resumption is offered */
			begin(&c, &s, tc, ts, "home.example", "sender.example");
			pump(&c, &s, 500);
			assert_true(c.done && s.done && !s.failed);
			exchange(&c, &s, 500);
			assert_int_equal(s.s->peer.verified, table[i].names != NULL);
			assert_int_equal(s.s->peer.name_count, table[i].names != NULL);
			if (table[i].names != NULL)
				assert_string_equal(s.s->peer.names[0], table[i].names);
			finish(&c, &s);
		}
		tls_client_free(&tc);
	}
	pin.ca_file = test_path("missing.crt");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_TRUST);
	assert_non_null(strstr(why, "missing.crt"));
	tls_server_free(&ts);
}

static void
test_no_client_certificate_and_an_unknown_own_domain(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with("sender", NULL, false);
	struct end c, s;

	(void)state;
	begin(&c, &s, tc, ts, "home.example", "stranger.example");
	pump(&c, &s, 500);
	assert_true(s.done && !s.s->peer.presented && !s.s->peer.verified);
	assert_string_equal(s.s->peer.problem, "no certificate");
	assert_string_equal(s.s->peer.alpn, "");
	assert_false(tls_peer_is(&s.s->peer, SLICE("sender.example")));
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_the_server_must_prove_the_expected_name(void **state)
{
	static const struct {
		const char *cn, *san, *eku;
		bool other_issuer;
		long from_s, until_s;
		bool good;
		const char *problem;
	} table[] = {
		{ "x", "DNS:target.example", NULL, false, 0, 0, true, "" },
		{ "x", "DNS:TARGET.example", "serverAuth", false, 0, 0, true, "" },
		{ "x", "otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtps.target.example", NULL, false, 0,
		  0, true, "" },
		{ "x", "DNS:*.example", NULL, false, 0, 0, false, "hostname mismatch" },
		{ "x", "DNS:sub.target.example,DNS:example", NULL, false, 0, 0, false,
		  "hostname mismatch" },
		{ "target.example", NULL, NULL, false, 0, 0, false, "hostname mismatch" },
		{ "x", "DNS:target.example", "clientAuth", false, 0, 0, false,
		  "unsuitable certificate purpose" },
		{ "x", "DNS:target.example", NULL, false, -DAYS(3), -DAYS(1), false,
		  "certificate has expired" },
		{ "x", "DNS:target.example", NULL, true, 0, 0, false,
		  "unable to get local issuer certificate" },
	};
	struct end c, s;

	(void)state;
	log_set_level(LOG_ERROR_LEVEL);
	for (size_t i = 0; i < 2 * sizeof(table) / sizeof(table[0]); i++) {
		size_t row = i / 2;
		bool unchecked = i % 2 == 1;
		struct tls_client *tc = client_with(NULL, NULL, unchecked);
		struct tls_server *ts;

		test_cert_put("probe", &(struct test_cert){
					   .cn = table[row].cn,
					   .san = table[row].san,
					   .eku = table[row].eku,
					   .issuer = table[row].other_issuer ? &other_ca : &ca,
					   .from_s = table[row].from_s,
					   .until_s = table[row].until_s });
		ts = plain_server("probe");
		begin(&c, &s, tc, ts, "target.example", NULL);
		pump(&c, &s, 500);
		if (table[row].good || unchecked) {
			assert_true(c.done && !c.failed);
			assert_int_equal(c.s->peer.verified, table[row].good);
			assert_string_equal(c.s->peer.problem, table[row].problem);
		} else {
			assert_true(c.failed && c.s->unverified && !c.done);
			assert_non_null(strstr(c.s->error, table[row].problem));
			assert_true(s.failed || !s.done);
		}
		finish(&c, &s);
		tls_client_free(&tc);
		tls_server_free(&ts);
	}
}

static void
test_srv_ids_of_a_constrained_ca_do_not_count(void **state)
{
	struct test_cert t = { .cn = "Held CA",
		               .ca = true,
		               .issuer = &ca,
		               .constraints = "permitted;DNS:held.example" };
	struct test_ca held = test_cert_make(&t), leaf;
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc;
	struct end c, s;

	(void)state;
	t = (struct test_cert){
		.cn = "l",
		.issuer = &held,
		.san = "DNS:a.held.example,otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtp.victim.example"
	};
	leaf = test_cert_make(&t);
	test_cert_write("held", &leaf, &held);
	tc = client_with("held", NULL, false);
	begin(&c, &s, tc, ts, "home.example", "sender.example");
	pump(&c, &s, 500);
	assert_true(s.s->peer.verified);
	assert_true(tls_peer_is(&s.s->peer, SLICE("a.held.example")));
	assert_false(tls_peer_is(&s.s->peer, SLICE("victim.example")));
	finish(&c, &s);
	/* nor after resumption, where the chain isn't seen again */
	begin(&c, &s, tc, ts, "home.example", "sender.example");
	pump(&c, &s, 500);
	assert_true(s.s->peer.resumed && s.s->peer.verified);
	assert_true(tls_peer_is(&s.s->peer, SLICE("a.held.example")));
	assert_false(tls_peer_is(&s.s->peer, SLICE("victim.example")));
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
	test_cert_free(&leaf);
	test_cert_free(&held);
}

/* The server's certificate as the client saw it. */
static const char *
served(struct end *c)
{
	static char cn[64];

	(void)X509_NAME_get_text_by_NID(
	    X509_get_subject_name(SSL_get0_peer_certificate(c->s->ssl)), NID_commonName, cn,
	    sizeof(cn));
	return cn;
}

static void
test_sni_chooses_the_certificate_and_unknown_names_get_the_first(void **state)
{
	static const struct {
		const char *name, *cn;
		bool verified;
	} table[] = {
		{ "home.example", "h", true },
		{ "second.example", "s", true },
		{ "third.example", "h", false },
		{ "sub.second.example", "h", false },
	};
	struct tls_identity ids[] = { test_identity("home.example", "home"),
		                      test_identity("Second.Example", "second") };
	struct tls_server *ts = server_with(ids, 2, NULL);
	struct tls_client *tc = client_with(NULL, NULL, true);
	struct end c, s;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		begin(&c, &s, tc, ts, table[i].name, NULL);
		pump(&c, &s, 500);
		assert_true(c.done && s.done);
		assert_string_equal(served(&c), table[i].cn);
		assert_int_equal(c.s->peer.verified, table[i].verified);
		assert_string_equal(s.s->peer.sni, table[i].name);
		finish(&c, &s);
	}
	begin(&c, &s, tc, ts, "second.example", NULL);
	SSL_set_tlsext_host_name(c.s->ssl, "SECOND.example");
	pump(&c, &s, 500);
	assert_string_equal(served(&c), "s");
	assert_string_equal(s.s->peer.sni, "second.example");
	finish(&c, &s);
	begin(&c, &s, tc, ts, "second.example", NULL);
	SSL_set_tlsext_host_name(c.s->ssl, NULL);
	SSL_set_session(c.s->ssl, NULL);
	pump(&c, &s, 500);
	assert_string_equal(served(&c), "h");
	assert_string_equal(s.s->peer.sni, "");
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_one_domain_with_two_kinds_of_keys(void **state)
{
	struct tls_identity ids[] = { test_identity("home.example", "home"),
		                      test_identity("home.example", "home-rsa") };
	struct tls_server *ts = server_with(ids, 2, NULL);
	struct tls_client *tc = client_with(NULL, NULL, false);
	struct end c, s;

	(void)state;
	begin(&c, &s, tc, ts, "home.example", NULL);
	assert_int_equal(SSL_set1_sigalgs_list(c.s->ssl, "rsa_pss_rsae_sha256"), 1);
	/*
	 * the CA's own signature is ECDSA, which this client then couldn't judge: only the
	 * choice matters here
	 */
	pump(&c, &s, 500);
	assert_int_equal(EVP_PKEY_get_base_id(SSL_get_privatekey(s.s->ssl)), EVP_PKEY_RSA);
	finish(&c, &s);
	begin(&c, &s, tc, ts, "home.example", NULL);
	pump(&c, &s, 500);
	assert_true(c.done && s.done);
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_alpn_table(void **state)
{
	static const struct {
		const char *client, *server;
		bool required, good;
		const char *agreed;
	} table[] = {
		{ "dmtp/1", "dmtp/1", true, true, "dmtp/1" },
		{ "dmtp/1", "dmtp/1", false, true, "dmtp/1" },
		{ NULL, "dmtp/1", false, true, "" },
		{ NULL, "dmtp/1", true, false, "" },
		{ "http/1.1", "dmtp/1", true, false, "" },
		{ "http/1.1", "dmtp/1", false, false, "" },
		{ "dmtp/2", "dmtp/1", true, false, "" },
		{ "dmtp/1", NULL, true, true, "" },
		{ NULL, NULL, true, true, "" },
	};
	struct tls_identity id = test_identity("home.example", "home");
	struct end c, s;

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(table) / sizeof(table[0]); i++) {
		size_t row = i / 2;
		struct tls_server *ts = server_with(&id, 1, table[row].server);
		struct tls_client *tc = client_with(NULL, table[row].client, false);

		begin(&c, &s, tc, ts, "home.example", NULL);
		if (i % 2 == 1)
			assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_2_VERSION),
			                 1);
		s.s->require_alpn = table[row].required;
		pump(&c, &s, 500);
		assert_int_equal(s.done && !s.failed, table[row].good);
		assert_int_equal(c.done && !c.failed, table[row].good);
		if (table[row].good) {
			assert_string_equal(s.s->peer.alpn, table[row].agreed);
			assert_string_equal(c.s->peer.alpn, table[row].agreed);
		} else {
			assert_non_null(strstr(c.s->error, "no application protocol"));
			assert_false(c.s->unverified);
		}
		finish(&c, &s);
		tls_client_free(&tc);
		tls_server_free(&ts);
	}
}

static void
test_tls_1_1_is_refused(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with(NULL, NULL, false);
	struct end c, s;

	(void)state;
	begin(&c, &s, tc, ts, "home.example", NULL);
	SSL_set_security_level(c.s->ssl, 0);
	SSL_set_security_level(s.s->ssl, 0);
	assert_int_equal(SSL_set_min_proto_version(c.s->ssl, TLS1_1_VERSION), 1);
	assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_1_VERSION), 1);
	pump(&c, &s, 500);
	assert_true(s.failed && !s.done && !c.done);
	assert_non_null(strstr(s.s->error, "unsupported protocol"));
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_renegotiation_is_not_done(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with(NULL, NULL, false);
	struct end c, s;

	(void)state;
	begin(&c, &s, tc, ts, "home.example", NULL);
	assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_2_VERSION), 1);
	SSL_clear_options(c.s->ssl, SSL_OP_NO_RENEGOTIATION);
	pump(&c, &s, 500);
	assert_true(c.done && s.done);
	assert_int_equal(SSL_renegotiate(c.s->ssl), 1);
	(void)SSL_do_handshake(c.s->ssl);
	pump(&c, &s, 500);
	assert_int_equal(SSL_num_renegotiations(s.s->ssl), 0);
	assert_true(c.failed); /* it was told no_renegotiation */
	ERR_clear_error();
	finish(&c, &s);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_exporter_is_one_secret_of_both_and_needs_ems_in_1_2(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with(NULL, NULL, false);
	uint8_t a[32], b[32], before[32] = { 0 };
	struct end c, s;

	(void)state;
	for (int i = 0; i < 3; i++) { /* 1.3; 1.2; 1.2 without the extended master secret */
		begin(&c, &s, tc, ts, "home.example", NULL);
		if (i > 0)
			assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_2_VERSION),
			                 1);
		if (i == 2)
			SSL_set_options(c.s->ssl, SSL_OP_NO_EXTENDED_MASTER_SECRET);
		if (i == 2)
			SSL_set_session(c.s->ssl, NULL);
		pump(&c, &s, 500);
		assert_true(c.done && s.done);
		memset(a, 1, sizeof(a));
		assert_int_equal(tls_stream_exporter(s.s, "EXPORTER-dmtp", a, sizeof(a)),
		                 i < 2);
		assert_int_equal(tls_stream_exporter(c.s, "EXPORTER-dmtp", b, sizeof(b)),
		                 i < 2);
		if (i < 2) {
			assert_memory_equal(a, b, 32);
			assert_memory_not_equal(a, before, 32);
			memcpy(before, a, 32);
			assert_true(tls_stream_exporter(c.s, "EXPORTER-other", b, sizeof(b)));
			assert_memory_not_equal(a, b, 32);
		} else {
			assert_int_equal(a[0], 1); /* untouched */
		}
		finish(&c, &s);
	}
	tls_client_free(&tc);
	tls_server_free(&ts);
}

/* One more session at this many seconds from now: was it resumed? */
static bool
resumes(struct tls_client *tc, struct tls_server *ts, bool old, int64_t at_s, bool *verified)
{
	static int64_t base_s;
	struct end c, s;
	bool resumed;

	if (base_s == 0)
		base_s = (int64_t)time(NULL);
	clock_freeze((base_s + at_s) * 1000000);
	begin(&c, &s, tc, ts, "home.example", "sender.example");
	if (old)
		assert_int_equal(SSL_set_max_proto_version(c.s->ssl, TLS1_2_VERSION), 1);
	pump(&c, &s, 500);
	exchange(&c, &s, 500); /* 1.3: the tickets come behind the handshake */
	assert_true(c.done && s.done && c.s->peer.verified);
	assert_int_equal(c.s->peer.resumed, s.s->peer.resumed);
	resumed = s.s->peer.resumed;
	*verified = tls_peer_is(&s.s->peer, SLICE("sender.example"));
	finish(&c, &s);
	clock_freeze(-1);
	return resumed;
}

static void
test_resumption_carries_an_identity_for_24_hours_in_all(void **state)
{
	bool verified;

	(void)state;
	for (int old = 0; old < 2; old++) {
		struct tls_server *ts = plain_server("home");
		struct tls_client *tc = client_with("sender", NULL, false);

		assert_false(resumes(tc, ts, old, 0, &verified));
		assert_true(verified);
		for (int64_t h = 1; h < 24; h += 5) {
			assert_true(resumes(tc, ts, old, h * 3600,
			                    &verified)); /* renewed each time, not prolonged */
			assert_true(verified);
		}
		assert_false(resumes(tc, ts, old, 24 * 3600 + 1, &verified));
		assert_true(verified); /* a full handshake proved it anew */
		assert_true(resumes(tc, ts, old, 25 * 3600, &verified));
		tls_client_free(&tc);
		tls_server_free(&ts);
	}
}

static void
test_the_server_by_itself_forgets_identities_after_24_hours(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with("sender", NULL, false);
	bool verified;

	(void)state;
	assert_false(resumes(tc, ts, false, 0, &verified));
	/* a client that doesn't keep to the rule: its memory says for ever */
	for (size_t i = 0; i < TLS_SESSIONS; i++)
		tls_client_set(tc)->sessions[i].memory.valid_until = INT64_MAX;
	assert_false(resumes(tc, ts, false, 24 * 3600 + 1, &verified));
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_the_client_by_itself_forgets_sessions_after_24_hours(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with("sender", NULL, false);
	struct tls_memory memory;
	bool verified;
	SSL *ssl;

	(void)state;
	assert_false(resumes(tc, ts, false, 0, &verified));
	ssl = SSL_new(tls_client_set(tc)->ctx);
	assert_true(
	    tls_set_resume(tls_client_set(tc), ssl, "sender.example home.example", &memory));
	assert_false(tls_set_resume(tls_client_set(tc), ssl, " home.example", &memory));
	clock_freeze(clock_wall_us() + INT64_C(86402) * 1000000);
	assert_false(
	    tls_set_resume(tls_client_set(tc), ssl, "sender.example home.example", &memory));
	clock_freeze(-1);
	SSL_free(ssl);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_resumption_never_outlives_the_certificate(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc;
	bool verified;

	(void)state;
	test_cert_put("short", &(struct test_cert){ .cn = "c",
	                                            .issuer = &ca,
	                                            .san = "DNS:sender.example",
	                                            .from_s = -3600,
	                                            .until_s = 3600 });
	tc = client_with("short", NULL, false);
	assert_false(resumes(tc, ts, false, 0, &verified));
	assert_true(verified);
	assert_true(resumes(tc, ts, false, 3000, &verified));
	assert_true(verified);
	/* The client's memory is of the server's certificate, the server's of the client's. */
	assert_false(resumes(tc, ts, false, 4000, &verified));
	assert_false(verified);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_a_resumed_server_whose_identity_has_ended_is_not_trusted(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with(NULL, NULL, false);
	struct end c, s;

	(void)state;
	for (int again = 0; again < 2; again++) {
		begin(&c, &s, tc, ts, "home.example", NULL);
		if (again)
			c.s->memory.valid_until =
			    clock_wall_s(); /* it ends while the handshake runs */
		pump(&c, &s, 500);
		assert_int_equal(c.done, !again);
		assert_int_equal(c.failed && c.s->unverified, again);
		assert_true(!again || strstr(c.s->error, "expired") != NULL);
		finish(&c, &s);
	}
	tls_client_free(&tc);
	tls_server_free(&ts);
}

static void
test_an_identity_ends_with_its_certificate_within_a_session_too(void **state)
{
	struct tls_peer peer = { .verified = true,
		                 .names = (const char *const[]){ "a.example" },
		                 .name_count = 1 };

	(void)state;
	peer.valid_until = clock_wall_s() + 60;
	assert_true(tls_peer_is(&peer, SLICE("a.example")));
	peer.valid_until = clock_wall_s();
	assert_false(tls_peer_is(&peer, SLICE("a.example")));
}

static void
test_reload_swaps_only_what_is_good_and_sessions_go_on(void **state)
{
	struct tls_identity id = test_identity("home.example", "home"), bad = id;
	struct tls_server_config config = { .identities = &bad,
		                            .count = 1,
		                            .ca_file = test_path("ca.crt") };
	struct tls_server *ts = server_with(&id, 1, NULL);
	struct tls_client *tc = client_with(NULL, NULL, false);
	int64_t expires = tls_server_expires(ts);
	struct end c, s, c2, s2;
	char why[NET_TEXT];
	FILE *f;

	(void)state;
	assert_in_range((uint64_t)expires, (uint64_t)time(NULL) + (uint64_t)DAYS(29),
	                (uint64_t)time(NULL) + (uint64_t)DAYS(31));
	begin(&c, &s, tc, ts, "home.example", NULL);
	pump(&c, &s, 500);
	bad.cert_file = test_path("missing.crt");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_FILE);
	assert_non_null(strstr(why, "missing.crt"));
	bad = id;
	bad.key_file = test_path("home2.key");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_KEY);
	assert_non_null(strstr(why, "home2.key"));
	bad.key_file = test_path("home.crt");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_FILE);
	bad.key_file = id.key_file;
	bad.cert_file = test_path("home.key");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_FILE);
	bad = id;
	config.ca_file = test_path("home.key");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_TRUST);
	config.ca_file = test_path("ca.crt");
	config.count = 0;
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_CONFIG);
	config.count = 1;
	f = fopen(test_path("broken.crt"), "w");
	assert_non_null(f);
	(void)fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", f);
	(void)fclose(f);
	bad.cert_file = test_path("broken.crt");
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_BAD_FILE);
	assert_true(tls_server_expires(ts) == expires);
	begin(&c2, &s2, tc, ts, "home.example", NULL); /* the old one still serves */
	pump(&c2, &s2, 500);
	assert_string_equal(served(&c2), "h");
	finish(&c2, &s2);
	bad = test_identity("home.example", "home2");
	begin(&c2, &s2, tc, ts, "home.example", NULL); /* begun before, done after */
	assert_int_equal(tls_server_reload(ts, &config, why), TLS_OK);
	assert_true(tls_server_expires(ts) < expires);
	pump(&c2, &s2, 500);
	assert_true(c2.done && s2.done);
	finish(&c2, &s2);
	exchange(&c, &s, 500);
	finish(&c, &s);
	begin(&c, &s, tc, ts, "home.example", NULL);
	pump(&c, &s, 500);
	assert_true(c.done && !c.s->peer.resumed); /* tickets went with the old contexts */
	assert_string_equal(served(&c), "h2");
	tls_server_free(&ts); /* while a session lives */
	tls_client_free(&tc);
	exchange(&c, &s, 500);
	finish(&c, &s);
}

static void
test_every_altered_octet_of_a_hello_is_survived(void **state)
{
	struct tls_server *ts = plain_server("home");
	struct tls_client *tc = client_with(NULL, "dmtp/1", false);
	struct end c, s;
	size_t len = 1;

	(void)state;
	for (size_t i = 0; i < len; i++) {
		begin(&c, &s, tc, ts, "home.example", NULL);
		drive(&c);
		len = c.s->wire.len;
		c.s->wire.data[i] ^= 0xff;
		carry(&c, &s, len);
		assert_false(s.done);
		assert_true(!s.failed || s.s->error[0] != '\0');
		finish(&c, &s);
	}
	assert_true(len > 200);
	tls_client_free(&tc);
	tls_server_free(&ts);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_versions_in_every_chunking),
		cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_a_pinned_ca_speaks_for_its_domain_and_no_other),
		cmocka_unit_test(test_no_client_certificate_and_an_unknown_own_domain),
		cmocka_unit_test(test_the_server_must_prove_the_expected_name),
		cmocka_unit_test(test_srv_ids_of_a_constrained_ca_do_not_count),
		cmocka_unit_test(
		    test_sni_chooses_the_certificate_and_unknown_names_get_the_first),
		cmocka_unit_test(test_one_domain_with_two_kinds_of_keys),
		cmocka_unit_test(test_alpn_table),
		cmocka_unit_test(test_tls_1_1_is_refused),
		cmocka_unit_test(test_renegotiation_is_not_done),
		cmocka_unit_test(test_exporter_is_one_secret_of_both_and_needs_ems_in_1_2),
		cmocka_unit_test(test_resumption_carries_an_identity_for_24_hours_in_all),
		cmocka_unit_test(test_the_server_by_itself_forgets_identities_after_24_hours),
		cmocka_unit_test(test_the_client_by_itself_forgets_sessions_after_24_hours),
		cmocka_unit_test(test_resumption_never_outlives_the_certificate),
		cmocka_unit_test(test_a_resumed_server_whose_identity_has_ended_is_not_trusted),
		cmocka_unit_test(
		    test_an_identity_ends_with_its_certificate_within_a_session_too),
		cmocka_unit_test(test_reload_swaps_only_what_is_good_and_sessions_go_on),
		cmocka_unit_test(test_every_altered_octet_of_a_hello_is_survived),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
