/* What every role does on SIGHUP. */
#ifndef TMTP_BASE_RELOAD_H
#define TMTP_BASE_RELOAD_H

#include "base/config.h"

/*
 * Reads the configuration again from where running came, takes over the log
 * level, lets take do the same with what is the role's own, and logs what
 * needs a restart. When it can't be read take isn't called, a line says why,
 * and all stays as it is. What take keeps of loaded it copies.
 */
void reload_config(const struct config *running,
                   void (*take)(void *arg, const struct config *loaded), void *arg);

#endif
