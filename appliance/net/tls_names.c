/* What a certificate says of itself: names and end. See tls_set.h. */
#include "net/tls_set.h"

#include <openssl/x509v3.h>
#include <stdlib.h>

#define MAX_NAME 253
#define MAX_NAMES 4096 /* looked at; a CA that certifies more of them at once isn't known */

/* Writes the lower-case name into out; false unless it is a plain host name. */
static bool
copy_host_name(struct slice s, char *out)
{
	uint8_t before = '.';

	if (s.len == 0 || s.len > MAX_NAME)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i];

		if (c >= 'A' && c <= 'Z')
			c = (uint8_t)(c - 'A' + 'a');
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
		      c == '_' || (c == '.' && before != '.')))
			return false;
		out[i] = (char)c;
		before = c;
	}
	out[s.len] = '\0';
	return before != '.';
}

static struct slice
asn1_slice(const ASN1_STRING *s)
{
	return slice_mem(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

/* "_dmtp.domain" or "_dmtps.domain": only the domain. False for other services. */
static bool
strip_service(struct slice *s)
{
	static const char *const services[] = { "_dmtp.", "_dmtps." };

	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		size_t len = strlen(services[i]);

		if (s->len > len && memcmp(s->data, services[i], len) == 0) {
			s->data += len;
			s->len -= len;
			return true;
		}
	}
	return false;
}

static bool
read_name(const GENERAL_NAME *name, bool srv_ids, char *out)
{
	struct slice s;

	if (name->type == GEN_DNS)
		return copy_host_name(asn1_slice(name->d.dNSName), out);
	if (name->type != GEN_OTHERNAME || !srv_ids || name->d.otherName->value == NULL ||
	    OBJ_obj2nid(name->d.otherName->type_id) != NID_SRVName ||
	    name->d.otherName->value->type != V_ASN1_IA5STRING)
		return false;
	s = asn1_slice(name->d.otherName->value->value.ia5string);
	return strip_service(&s) && copy_host_name(s, out);
}

bool
tls_names_have(const struct tls_names *names, struct slice domain)
{
	for (size_t i = 0; i < names->count; i++) {
		/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): as many as count are set */
		if (slice_eq_str(domain, names->names[i]))
			return true;
	}
	return false;
}

/*
 * Pointers first, then room for every name at its longest is too much: the texts follow as they
 * come.
 */
static bool
collect(const GENERAL_NAMES *all, bool srv_ids, struct tls_names *out)
{
	int most = sk_GENERAL_NAME_num(all) < MAX_NAMES ? sk_GENERAL_NAME_num(all) : MAX_NAMES;
	size_t octets = 0;
	char name[MAX_NAME + 1];
	char *text;

	for (int i = 0; i < most; i++) {
		if (read_name(sk_GENERAL_NAME_value(all, i), srv_ids, name))
			octets += strlen(name) + 1;
	}
	out->names = malloc((size_t)most * sizeof(*out->names) + octets + 1);
	if (out->names == NULL)
		return false;
	text = (char *)(out->names + most);
	for (int i = 0; i < most; i++) {
		if (!read_name(sk_GENERAL_NAME_value(all, i), srv_ids, name) ||
		    tls_names_have(out, slice_str(name)))
			continue;
		memcpy(text, name, strlen(name) + 1);
		out->names[out->count++] = text;
		text += strlen(name) + 1;
	}
	return true;
}

bool
tls_names_read(X509 *cert, bool srv_ids, struct tls_names *out)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	bool done;

	*out = (struct tls_names){ 0 };
	if (all == NULL)
		return true;
	done = collect(all, srv_ids, out);
	GENERAL_NAMES_free(all);
	return done;
}

void
tls_names_free(struct tls_names *names)
{
	free(names->names);
	*names = (struct tls_names){ 0 };
}

int64_t
tls_cert_ends(const X509 *cert)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm);
}
