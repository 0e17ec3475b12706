/* Asking for a password on the terminal, without echo. */
#ifndef TMTP_CTL_PROMPT_H
#define TMTP_CTL_PROMPT_H

#include "ctl/ctl.h"

/* Asks twice on /dev/tty; at most max octets, a NUL stands behind. The caller wipes out. */
enum ctl_exit prompt_new_password(struct ctl *ctl, size_t max, struct buffer *out);

#endif
