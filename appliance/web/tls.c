/*
 * Certificates: a set is loaded whole, checked (each key belongs to its leaf),
 * and shared by reference, so that a reload never pulls one from under a
 * handshake. Expired ones are taken: a served old certificate beats none.
 */
#include "web/private.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>

#define CHAIN_MAX 16

struct tls_pair {
	gnutls_pcert_st chain[CHAIN_MAX];
	unsigned n;
	gnutls_privkey_t key;
	gnutls_x509_crt_t leaf; /* for its names */
};

struct tls_set {
	_Atomic int refs;
	size_t n;
	struct tls_pair pairs[];
};

static enum web_rc
fail(char error[static WEB_ERROR_TEXT], const char *file, const char *why)
{
	(void)snprintf(error, WEB_ERROR_TEXT, "%s: %s", file, why);
	return WEB_BAD_CERT;
}

static enum web_rc
pair_load_chain(struct tls_pair *p, const char *file, char error[static WEB_ERROR_TEXT])
{
	gnutls_datum_t pem;
	unsigned max = CHAIN_MAX;
	int rc = gnutls_load_file(file, &pem);

	if (rc < 0)
		return fail(error, file, gnutls_strerror(rc));
	rc = gnutls_pcert_list_import_x509_raw(p->chain, &max, &pem, GNUTLS_X509_FMT_PEM, 0);
	gnutls_free(pem.data);
	if (rc < 0)
		return fail(error, file, gnutls_strerror(rc));
	p->n = max;
	if (max == 0)
		return fail(error, file, "no certificate in it");
	rc = gnutls_x509_crt_init(&p->leaf);
	if (rc >= 0)
		rc = gnutls_x509_crt_import(p->leaf, &p->chain[0].cert, GNUTLS_X509_FMT_DER);
	return rc < 0 ? fail(error, file, gnutls_strerror(rc)) : WEB_OK;
}

static enum web_rc
pair_load_key(struct tls_pair *p, const char *file, char error[static WEB_ERROR_TEXT])
{
	gnutls_datum_t pem;
	int rc = gnutls_load_file(file, &pem);

	if (rc < 0)
		return fail(error, file, gnutls_strerror(rc));
	rc = gnutls_privkey_init(&p->key);
	if (rc >= 0)
		rc = gnutls_privkey_import_x509_raw(p->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
	gnutls_memset(pem.data, 0, pem.size);
	gnutls_free(pem.data);
	return rc < 0 ? fail(error, file, gnutls_strerror(rc)) : WEB_OK;
}

static bool
pair_belongs_together(const struct tls_pair *p)
{
	gnutls_pubkey_t pub;
	uint8_t a[64], b[64];
	size_t na = sizeof(a), nb = sizeof(b);
	bool same;

	if (gnutls_pubkey_init(&pub) < 0)
		return false;
	same = gnutls_pubkey_import_privkey(pub, p->key, 0, 0) >= 0 &&
	       gnutls_pubkey_get_key_id(pub, GNUTLS_KEYID_USE_SHA256, a, &na) >= 0 &&
	       gnutls_pubkey_get_key_id(p->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, b, &nb) >=
	           0 &&
	       na == nb && memcmp(a, b, na) == 0;
	gnutls_pubkey_deinit(pub);
	return same;
}

static void
tls_set_free(struct tls_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		struct tls_pair *p = &set->pairs[i];

		for (unsigned j = 0; j < p->n; j++)
			gnutls_pcert_deinit(&p->chain[j]);
		if (p->key != NULL)
			gnutls_privkey_deinit(p->key);
		if (p->leaf != NULL)
			gnutls_x509_crt_deinit(p->leaf);
	}
	free(set);
}

enum web_rc
tls_set_load(const struct web_cert *certs, size_t n, struct tls_set **out,
             char error[static WEB_ERROR_TEXT])
{
	struct tls_set *set = calloc(1, sizeof(*set) + n * sizeof(set->pairs[0]));
	enum web_rc rc = WEB_OK;

	if (set == NULL || n == 0) {
		free(set);
		(void)snprintf(error, WEB_ERROR_TEXT, "%s",
		               n == 0 ? "no certificate" : "no memory");
		return n == 0 ? WEB_BAD_CERT : WEB_MEMORY;
	}
	atomic_init(&set->refs, 1);
	set->n = n;
	for (size_t i = 0; i < n && rc == WEB_OK; i++) {
		rc = pair_load_chain(&set->pairs[i], certs[i].cert_file, error);
		if (rc == WEB_OK)
			rc = pair_load_key(&set->pairs[i], certs[i].key_file, error);
		if (rc == WEB_OK && !pair_belongs_together(&set->pairs[i]))
			rc =
			    fail(error, certs[i].key_file, "doesn't belong to the certificate");
	}
	if (rc != WEB_OK) {
		tls_set_free(set);
		return rc;
	}
	*out = set;
	return WEB_OK;
}

struct tls_set *
tls_set_ref(struct tls_set *set)
{
	atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
	return set;
}

void
tls_set_unref(struct tls_set **set)
{
	if (*set != NULL &&
	    atomic_fetch_sub_explicit(&(*set)->refs, 1, memory_order_acq_rel) == 1)
		tls_set_free(*set);
	*set = NULL;
}

static struct tls_pair *
pair_for_name(struct tls_set *set, gnutls_session_t session)
{
	char name[256];
	size_t len = sizeof(name);
	unsigned type;

	if (gnutls_server_name_get(session, name, &len, &type, 0) < 0 ||
	    type != GNUTLS_NAME_DNS)
		return &set->pairs[0];
	for (size_t i = 0; i < set->n; i++) {
		if (gnutls_x509_crt_check_hostname(set->pairs[i].leaf, name))
			return &set->pairs[i];
	}
	return &set->pairs[0];
}

int
tls_choose(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
           struct gnutls_pcert_st **certs, unsigned *n_certs, struct gnutls_ocsp_data_st **ocsp,
           unsigned *n_ocsp, struct gnutls_privkey_st **key, unsigned *flags)
{
	struct MHD_Connection *mhd = gnutls_session_get_ptr(session);
	struct web_conn *conn = mhd == NULL ? NULL : conn_of(mhd);
	struct tls_pair *p;

	(void)info;
	if (conn == NULL)
		return -1;
	if (conn->tls == NULL) {
		pthread_mutex_lock(&conn->server->lock);
		conn->tls = tls_set_ref(conn->server->tls);
		pthread_mutex_unlock(&conn->server->lock);
	}
	p = pair_for_name(conn->tls, session);
	*certs = p->chain;
	*n_certs = p->n;
	*ocsp = NULL;
	*n_ocsp = 0;
	*key = p->key;
	*flags = 0;
	return 0;
}
