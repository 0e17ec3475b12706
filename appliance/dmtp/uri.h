/*
 * The URIs under which messages and large attachments are picked up: https
 * only. Whether a host may be asked is not decided here.
 */
#ifndef TMTP_DMTP_URI_H
#define TMTP_DMTP_URI_H

#include "base/slice.h"

#define DMTP_URI_MAX 2048

struct dmtp_uri {
	struct slice host; /* a valid domain (address.h); borrows */
	uint16_t port;     /* 443 when absent */
	struct slice path; /* from the first "/", with the query; borrows; may be empty */
};

/* 1 to DMTP_URI_MAX octets of visible ASCII: what else could a URI be made of? */
bool dmtp_uri_possible(struct slice uri);

/*
 * "https://host[:port][/path]", possible, no user, no fragment, no IP address.
 * False leaves out untouched.
 */
bool dmtp_uri_split(struct slice uri, struct dmtp_uri *out);

#endif
