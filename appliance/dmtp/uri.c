/* Pickup URIs: see uri.h. */
#include "dmtp/uri.h"

#include "base/text.h"
#include "dmtp/address.h"

bool
dmtp_uri_possible(struct slice uri)
{
	if (uri.len == 0 || uri.len > DMTP_URI_MAX)
		return false;
	for (size_t i = 0; i < uri.len; i++)
		if (uri.data[i] <= 0x20 || uri.data[i] > 0x7e)
			return false;
	return true;
}

bool
dmtp_uri_split(struct slice uri, struct dmtp_uri *out)
{
	const struct slice scheme = SLICE("https://");
	struct slice rest, host;
	uint64_t port = 443;
	size_t end = 0;

	if (uri.len <= scheme.len || !dmtp_uri_possible(uri) ||
	    memcmp(uri.data, scheme.data, scheme.len) != 0 ||
	    memchr(uri.data, '#', uri.len) != NULL)
		return false;
	rest = slice_mem(uri.data + scheme.len, uri.len - scheme.len);
	while (end < rest.len && rest.data[end] != '/' && rest.data[end] != ':')
		end++;
	host = slice_mem(rest.data, end);
	if (!dmtp_domain_valid(host))
		return false;
	if (end < rest.len && rest.data[end] == ':') {
		size_t digits = ++end;

		while (end < rest.len && rest.data[end] != '/')
			end++;
		if (!text_parse_u64(slice_mem(rest.data + digits, end - digits), 65535,
		                    &port) ||
		    port == 0)
			return false;
	}
	*out = (struct dmtp_uri){ .host = host,
		                  .port = (uint16_t)port,
		                  .path = slice_mem(rest.data + end, rest.len - end) };
	return true;
}
