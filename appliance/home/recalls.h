/*
 * Recalls that arrive: POSTs with `recall`. They are answered once committed;
 * then those who watch see what was withdrawn.
 */
#ifndef TMTP_HOME_RECALLS_H
#define TMTP_HOME_RECALLS_H

#include "home/dmtp.h"

/* octets: of the command's element. It replies by itself. */
void recalls_take(struct dmtp_session *s, uint64_t seq, const struct dmtp_post *post,
                  size_t octets);

#endif
