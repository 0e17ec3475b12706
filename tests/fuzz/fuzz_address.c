/* Addresses and URIs: what is accepted is a fixed point, and within its limits. */
#include "fuzz.h"

#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/uri.h"

static void
check_address(const struct dmtp_address *a)
{
	struct dmtp_address again;
	struct slice channel, site;

	MUST(a->len <= DMTP_ADDRESS_MAX && a->text[a->len] == '\0' && a->local_len >= 1);
	MUST(dmtp_domain_valid(dmtp_address_domain(a)));
	MUST(dmtp_text_is_nfc(dmtp_address_local(a)));
	MUST(dmtp_address_parse(dmtp_address_slice(a), &again) == DMTP_ADDRESS_OK);
	MUST(dmtp_address_eq(a, &again));
	MUST(dmtp_address_normalise(dmtp_address_slice(a), &again) == DMTP_ADDRESS_OK);
	MUST(dmtp_address_eq(a, &again));
	if (dmtp_address_channel(a, &channel, &site)) {
		MUST(dmtp_address_make(channel, site, dmtp_address_domain(a), &again) ==
		     DMTP_ADDRESS_OK);
		MUST(dmtp_address_eq(a, &again));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_mem(data, size);
	char domain[DMTP_DOMAIN_MAX + 1];
	struct dmtp_address a;
	struct dmtp_uri u;

	if (dmtp_address_parse(in, &a) == DMTP_ADDRESS_OK)
		check_address(&a);
	if (dmtp_address_normalise(in, &a) == DMTP_ADDRESS_OK)
		check_address(&a);
	if (dmtp_domain_normalise(in, domain))
		MUST(dmtp_domain_valid(slice_str(domain)));
	if (dmtp_uri_split(in, &u))
		MUST(dmtp_domain_valid(u.host) && u.port != 0 &&
		     u.path.data + u.path.len == data + size);
	if (dmtp_id_valid(in))
		MUST(size >= 1 && size <= 64);
	return 0;
}
