/*
 * AUTH (PROTOCOL.md 6.4): a client proves its domain by a key of the domain's
 * site card. A client address that asks for cards which aren't in memory has
 * them fetched one after the other.
 */
#ifndef TMTP_HOME_AUTHS_H
#define TMTP_HOME_AUTHS_H

#include "home/dmtp.h"

/* NULL: no memory. */
struct auths *auths_new(struct home *home);

/* After the loop has stopped and the sessions have ended. */
void auths_free(struct auths **auths);

/* Answers with dmtp_session_reply, at once or later. auth was checked, and borrows during the call. */
void auths_take(struct auths *auths, struct dmtp_session *s, uint64_t seq,
                const struct dmtp_auth *auth);

#endif
