/*
 * The role "site": what websites speak to, as one process. tmtpd calls the
 * entry after it has become the configuration's user.
 */
#ifndef TMTP_SITE_ROLE_H
#define TMTP_SITE_ROLE_H

#include "base/config.h"

/*
 * Runs until SIGTERM or SIGINT, then drains and returns. One thread so far;
 * SIGTERM, SIGINT and SIGHUP are blocked and read with process_signals;
 * process_ready tells the supervisor that the role serves. On SIGHUP the role
 * calls config_reload and takes over certificates and the log level, or logs
 * the error and goes on as it was.
 * Returns the exit code: 0 after a drain, else the supervisor starts the role again.
 */
int site_main(const struct config *config);

#endif
