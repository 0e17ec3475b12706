/* Attachments of a member's entries: what they are, and their octets. */
#ifndef TMTP_HOME_ATTACHMENTS_H
#define TMTP_HOME_ATTACHMENTS_H

#include "home/call.h"
#include "home/copies.h"

/* Whether an entry's fields (view_fields) have attachments that didn't come with the message. */
bool attachments_any_large(const json_t *fields);

/* Says of those how far they are and where their octets can be had. */
void attachments_describe(json_t *fields, const struct uuid *entry_id,
                          const struct copy_list *copies);

web_handler on_entry_attachment;

#endif
