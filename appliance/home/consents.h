/* What a member lets in: invitations, and the channels that senders hold or held. */
#ifndef TMTP_HOME_CONSENTS_H
#define TMTP_HOME_CONSENTS_H

#include "store/inboxes.h"
#include "web/request.h"

web_handler on_invitation_list, on_invitation_get, on_invitation_accept, on_invitation_refuse;
web_handler on_consent_list, on_consent_grant, on_consent_revoke;

/* --- For contacts.c ----------------------------------------------------------- */

struct call;
struct dmtp_address;

/* Takes one of the member's changes. False: the request has been answered, 429. */
bool consent_may_change(struct call *call);

/* All of a change but its job and what is special of it; borrows sender and channel. */
void consent_change_fill(struct call *call, const struct dmtp_address *sender,
                         struct slice channel, enum consent_state state,
                         struct consent_change *change);

#endif
