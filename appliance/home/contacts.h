/*
 * Persons whom a member knows: inviting, answering, letting go, blocking, and
 * her settings of each. What is common with letters.c stands below.
 */
#ifndef TMTP_HOME_CONTACTS_H
#define TMTP_HOME_CONTACTS_H

#include "home/call.h"
#include "store/contacts.h"

web_handler on_contact_list, on_contact_get, on_contact_invite, on_contact_patch;
web_handler on_contact_accept, on_contact_refuse, on_contact_block, on_contact_remove;

/* The person that the path names, normalised. False: the request has been answered. */
bool contact_path(struct call *call, struct dmtp_address *out);

/* 409: whatever is asked for needs another state of this contact. */
extern const struct web_problem contact_problem;

/* Those of the member's who watch are told to look at this contact again. Any thread. */
void contact_tell(struct live *live, int64_t account_id, struct slice address);

/* What a member is to be told when she can't write to this person, as one sentence; NULL: she can. */
const char *contact_cannot_write(const struct contact_row *row);

#endif
