/* A member's entries: listing, reading, marking, dropping, watching. */
#ifndef TMTP_HOME_INBOX_H
#define TMTP_HOME_INBOX_H

#include "web/request.h"

web_handler on_inbox_list, on_inbox_count, on_inbox_events;
web_handler on_entry_get, on_entry_patch, on_entry_read, on_entry_drop;

#endif
