/* Whose a domain is: the registrable domain by the public suffix list. */
#ifndef TMTP_HOME_REGISTRABLE_H
#define TMTP_HOME_REGISTRABLE_H

#include "base/buffer.h"

/*
 * Appends the registrable domain of domain (lower-case A-labels): "a.b.co.uk"
 * gives "b.co.uk". A public suffix, or what the list can't say, is its own.
 * Any thread.
 */
void registrable_domain(struct slice domain, struct buffer *out);

#endif
