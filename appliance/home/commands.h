/* Other servers' commands: judged, and given to what answers them. */
#ifndef TMTP_HOME_COMMANDS_H
#define TMTP_HOME_COMMANDS_H

#include "home/dmtp.h"

/* Extension verbs that are served: what greetings offer. */
#define COMMANDS_EXT (DMTP_EXT_AUTH | DMTP_EXT_GRANT | DMTP_EXT_RECEIPT | DMTP_EXT_PRESENCE)

/* Answers with dmtp_session_reply, at once or later. event is a COMMAND and borrows during the call. */
void command_handle(struct dmtp_session *s, const struct dmtp_server_event *event);

/*
 * One line in the log and one more in the metric: who was refused what, and why. from may be
 * empty; detail is what the code doesn't say, or NULL.
 */
void command_tell_refused(const struct dmtp_session *s, struct slice verb, struct slice from,
                          enum dmtp_code code, const char *detail);

/* "Z storage": the database is not available. */
struct dmtp_response command_response_down(void);

#endif
