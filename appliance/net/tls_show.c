/* What a certificate says, in words for people. Nothing is judged here but whose name it has. */
#include "net/tls_set.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

static int64_t
seconds(const ASN1_TIME *time)
{
	struct tm tm;

	return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void
name_line(const X509_NAME *name, char out[static NET_TEXT])
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n = 0;

	/* RFC 2253's flags write whatever isn't visible ASCII as an escape. */
	if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0)
		n = BIO_read(bio, out, NET_TEXT - 1);
	out[n > 0 ? n : 0] = '\0';
	BIO_free(bio);
}

/* Appends " prefix:text"; false when there is no room, then "..." stands at the end. */
static bool
add_name(struct tls_certificate *out, const char *kind, const ASN1_STRING *text)
{
	const uint8_t *octets = ASN1_STRING_get0_data(text);
	size_t len = (size_t)ASN1_STRING_length(text), at = strlen(out->names);
	char *to;

	if (at + 1 + strlen(kind) + len + sizeof(" ...") > sizeof(out->names)) {
		(void)snprintf(out->names + at, sizeof(out->names) - at, " ...");
		return false;
	}
	to = out->names + at;
	to += snprintf(to, sizeof(out->names) - at, "%s%s", at > 0 ? " " : "", kind);
	for (size_t i = 0; i < len; i++)
		*to++ = (char)(octets[i] > ' ' && octets[i] < 0x7f ? octets[i] : '?');
	*to = '\0';
	return true;
}

static bool
add_general(struct tls_certificate *out, const GENERAL_NAME *name)
{
	if (name->type == GEN_DNS)
		return add_name(out, "DNS:", name->d.dNSName);
	if (name->type == GEN_OTHERNAME && name->d.otherName->value != NULL &&
	    OBJ_obj2nid(name->d.otherName->type_id) == NID_SRVName &&
	    name->d.otherName->value->type == V_ASN1_IA5STRING)
		return add_name(out, "SRV:", name->d.otherName->value->value.ia5string);
	return true;
}

static bool
names_it(X509 *cert, bool srv_ids, const char *domain)
{
	struct tls_names names;
	bool found =
	    tls_names_read(cert, srv_ids, &names) && tls_names_have(&names, slice_str(domain));

	tls_names_free(&names);
	return found;
}

void
tls_certificate_describe(X509 *cert, const char *domain, struct tls_certificate *out)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	*out = (struct tls_certificate){ .rule = "" };
	name_line(X509_get_subject_name(cert), out->subject);
	name_line(X509_get_issuer_name(cert), out->issuer);
	out->from_s = seconds(X509_get0_notBefore(cert));
	out->until_s = seconds(X509_get0_notAfter(cert));
	for (int i = 0; all != NULL && i < sk_GENERAL_NAME_num(all); i++)
		if (!add_general(out, sk_GENERAL_NAME_value(all, i)))
			break;
	GENERAL_NAMES_free(all);
	if (names_it(cert, false, domain))
		out->rule = "dNSName";
	else if (names_it(cert, true, domain))
		out->rule = "SRV-ID";
	ERR_clear_error();
}
