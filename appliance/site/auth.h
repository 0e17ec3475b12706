/*
 * Who calls, and what may they? From a bearer token, a site's signed one or an
 * opaque one, to call->who. Looks keys and tokens up in the store once; what
 * was verified is kept until the revision changes.
 */
#ifndef TMTP_SITE_AUTH_H
#define TMTP_SITE_AUTH_H

#include "site/call.h"

/*
 * Goes on with then once the token is verified and has one of the scopes in
 * any_of: at once, or later on the thread aside. Otherwise the request is
 * answered: 401, 403 or 503.
 */
void site_auth(struct call *call, unsigned any_of, call_step *then);

/* "tmtp_s_<site, 13>_<random, 16 to 64>", base32. False: not one; out untouched. */
bool auth_opaque_site(struct slice token, int64_t *site_id);

/* The scopes that stand in a text, parted by blanks. Unknown ones are nothing. */
unsigned auth_scopes(const char *text);

#endif
