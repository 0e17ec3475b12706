/*
 * Pickups that wait although their sender's host is back. Each waits twice as
 * long as before when it fails; once one of a domain's messages comes again,
 * all that wait for that domain are due.
 */
#ifndef TMTP_HOME_RESUME_H
#define TMTP_HOME_RESUME_H

#include "home/home.h"

struct resume *resume_new(struct home *home);
void resume_free(struct resume **resume);

/* A pickup from that domain was put off. */
void resume_failed(struct resume *resume, struct slice domain);

/* One was verified. retried: it had been put off itself, perhaps in another life of the process. */
void resume_worked(struct resume *resume, struct slice domain, bool retried);

#endif
