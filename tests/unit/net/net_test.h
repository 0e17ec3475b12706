/*
 * What the tests of net/ share: certificates made on the spot, a recorder for a
 * connection's events, and turning the loop until something holds.
 */
#ifndef TMTP_TEST_NET_H
#define TMTP_TEST_NET_H

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/conn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define TEST_FN __attribute__((unused)) static

/* --- certificates ------------------------------------------------------------- */

struct test_ca {
	X509 *cert;
	EVP_PKEY *key;
};

static char test_dir[64];
static long test_serial = 1000;

TEST_FN const char *
test_path(const char *name)
{
	static char paths[1024][96];
	static size_t next;
	char *p = paths[next++ % 1024];

	if (test_dir[0] == '\0') {
		(void)snprintf(test_dir, sizeof(test_dir), "/tmp/tmtp-net-XXXXXX");
		assert_non_null(mkdtemp(test_dir));
	}
	(void)snprintf(p, sizeof(paths[0]), "%s/%s", test_dir, name);
	return p;
}

TEST_FN void
test_remove_dir(void)
{
	char command[128];

	if (test_dir[0] == '\0')
		return;
	(void)snprintf(command, sizeof(command), "rm -rf %s", test_dir);
	assert_int_equal(system(command), 0);
	test_dir[0] = '\0';
}

TEST_FN void
test_add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(ext);
	assert_int_equal(X509_add_ext(cert, ext, -1), 1);
	X509_EXTENSION_free(ext);
}

struct test_cert {
	const char *cn;
	const char *san; /* "DNS:a,DNS:b,otherName:1.3.6.1.5.5.7.8.7;IA5:_dmtp.c" or NULL */
	const char *eku; /* "clientAuth", ... or NULL */
	const char *constraints; /* nameConstraints or NULL */
	bool ca;
	bool rsa;
	long from_s, until_s;         /* relative to now; 0, 0: a day around now */
	const struct test_ca *issuer; /* NULL: itself */
};

TEST_FN struct test_ca
test_cert_make(const struct test_cert *t)
{
	struct test_ca made = { X509_new(), t->rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256") };
	X509 *issuer = t->issuer == NULL ? made.cert : t->issuer->cert;

	assert_non_null(made.key);
	assert_int_equal(X509_set_version(made.cert, 2), 1);
	ASN1_INTEGER_set(X509_get_serialNumber(made.cert), test_serial++);
	X509_gmtime_adj(X509_getm_notBefore(made.cert), t->until_s == 0 ? -86400 : t->from_s);
	X509_gmtime_adj(X509_getm_notAfter(made.cert), t->until_s == 0 ? 86400 : t->until_s);
	X509_set_pubkey(made.cert, made.key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(made.cert), "CN", MBSTRING_ASC,
	                           (const unsigned char *)t->cn, -1, -1, 0);
	X509_set_issuer_name(made.cert, X509_get_subject_name(issuer));
	test_add_ext(made.cert, issuer, NID_basic_constraints,
	             t->ca ? "critical,CA:TRUE" : "CA:FALSE");
	test_add_ext(made.cert, issuer, NID_subject_key_identifier, "hash");
	if (t->san != NULL)
		test_add_ext(made.cert, issuer, NID_subject_alt_name, t->san);
	if (t->eku != NULL)
		test_add_ext(made.cert, issuer, NID_ext_key_usage, t->eku);
	if (t->constraints != NULL)
		test_add_ext(made.cert, issuer, NID_name_constraints, t->constraints);
	assert_true(X509_sign(made.cert, t->issuer == NULL ? made.key : t->issuer->key,
	                      EVP_sha256()) > 0);
	return made;
}

TEST_FN void
test_cert_free(struct test_ca *c)
{
	X509_free(c->cert);
	EVP_PKEY_free(c->key);
	*c = (struct test_ca){ NULL, NULL };
}

/*
 * Writes <name>.crt (with the chain behind it, if any) and <name>.key into the directory of the
 * test.
 */
TEST_FN void
test_cert_write(const char *name, const struct test_ca *c, const struct test_ca *chain)
{
	char file[64];
	FILE *f;

	(void)snprintf(file, sizeof(file), "%s.crt", name);
	f = fopen(test_path(file), "w");
	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, c->cert), 1);
	if (chain != NULL)
		assert_int_equal(PEM_write_X509(f, chain->cert), 1);
	(void)fclose(f);
	(void)snprintf(file, sizeof(file), "%s.key", name);
	f = fopen(test_path(file), "w");
	assert_non_null(f);
	assert_int_equal(PEM_write_PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL), 1);
	(void)fclose(f);
}

/* Makes and writes one, and forgets it. */
TEST_FN void
test_cert_put(const char *name, const struct test_cert *t)
{
	struct test_ca made = test_cert_make(t);

	test_cert_write(name, &made, NULL);
	test_cert_free(&made);
}

TEST_FN struct tls_identity
test_identity(const char *domain, const char *name)
{
	char file[64];
	struct tls_identity id = { .domain = domain };

	(void)snprintf(file, sizeof(file), "%s.crt", name);
	id.cert_file = test_path(file);
	(void)snprintf(file, sizeof(file), "%s.key", name);
	id.key_file = test_path(file);
	return id;
}

/* --- turning the loop ----------------------------------------------------------- */

/* Turns until cond holds; fails the test after 20 real seconds. */
#define TURN_UNTIL(loop, cond)                                     \
	do {                                                       \
		time_t until_ = time(NULL) + 20;                   \
		while (!(cond)) {                                  \
			(void)loop_turn(loop, 200);                \
			if (time(NULL) > until_)                   \
				fail_msg("never held: %s", #cond); \
		}                                                  \
	} while (0)

/* --- a connection's events -------------------------------------------------------- */

struct side {
	struct conn *conn;
	struct buffer got;
	size_t take; /* octets taken a call; 0: everything */
	bool take_none;
	size_t most_seen; /* the longest input offered */
	int connected, secured, drained, ended, closed;
	bool clean;
	enum conn_end end;
	char text[NET_TEXT];
	bool close_in_data;
	void (*on_data)(struct side *side, struct slice in, size_t *taken);
	void *context;
};

TEST_FN void
side_connected(struct conn *conn, void *arg)
{
	(void)conn;
	((struct side *)arg)->connected++;
}

TEST_FN void
side_secured(struct conn *conn, void *arg)
{
	(void)conn;
	((struct side *)arg)->secured++;
}

TEST_FN size_t
side_data(struct conn *conn, void *arg, struct slice in)
{
	struct side *s = arg;
	size_t taken = s->take > 0 && s->take < in.len ? s->take : in.len;

	(void)conn;
	if (in.len > s->most_seen)
		s->most_seen = in.len;
	if (s->take_none)
		taken = 0;
	if (s->on_data != NULL)
		s->on_data(s, in, &taken);
	buffer_add(&s->got, in.data, taken);
	if (s->close_in_data)
		conn_close(&s->conn);
	return taken;
}

TEST_FN void
side_drained(struct conn *conn, void *arg)
{
	(void)conn;
	((struct side *)arg)->drained++;
}

TEST_FN void
side_ended(struct conn *conn, void *arg, bool clean)
{
	struct side *s = arg;

	(void)conn;
	s->ended++;
	s->clean = clean;
}

TEST_FN void
side_closed(struct conn *conn, void *arg, enum conn_end end, const char *text)
{
	struct side *s = arg;

	(void)conn;
	s->closed++;
	s->end = end;
	(void)snprintf(s->text, sizeof(s->text), "%s", text);
}

static const struct conn_events side_events __attribute__((unused)) = {
	.connected = side_connected,
	.secured = side_secured,
	.data = side_data,
	.drained = side_drained,
	.ended = side_ended,
	.closed = side_closed,
};

TEST_FN void
side_init(struct side *s)
{
	memset(s, 0, sizeof(*s));
	buffer_init(&s->got, (size_t)64 * 1024 * 1024);
}

TEST_FN void
side_free(struct side *s)
{
	conn_close(&s->conn);
	buffer_free(&s->got);
}

TEST_FN bool
side_got(const struct side *s, const char *text)
{
	return slice_eq_str(buffer_slice(&s->got), text);
}

#endif
