/* What a member lets in: invitations, and the channels that senders hold or held. */
#ifndef TMTP_HOME_CONSENTS_H
#define TMTP_HOME_CONSENTS_H

#include "web/request.h"

web_handler on_invitation_list, on_invitation_get, on_invitation_accept, on_invitation_refuse;
web_handler on_consent_list, on_consent_grant, on_consent_revoke;

#endif
