/*
 * Presence: notices which members watch and which no longer do, and has those
 * contacts told who agreed to it. Nothing is said of a member who agreed with
 * nobody.
 */
#ifndef TMTP_HOME_PRESENCE_H
#define TMTP_HOME_PRESENCE_H

#include "dmtp/command.h"
#include "home/dmtp.h"
#include "web/request.h"

struct presence;

struct presence *presence_new(struct home *home);
void presence_free(struct presence **presence);

/* Something was agreed, or no longer: this member's contacts are told anew, soon. Any thread. */
void presence_touch(struct presence *presence, int64_t account_id);

/* PRESENCE of another server, which was checked. Answers it. */
void presence_take(struct dmtp_session *s, uint64_t seq, const struct dmtp_presence *said);

/* GET and PUT /v1/presence. */
web_handler on_presence_get, on_presence_put;

#endif
