/* What --help and --version print, made from the command table. */
#ifndef TMTP_CTL_HELP_H
#define TMTP_CTL_HELP_H

#include "ctl/ctl.h"

#include <stdio.h>

/* Every command with its summary; group: only those that begin with this word. */
void help_all(FILE *out, const struct ctl_command *const *groups, size_t groups_n,
              const char *group);

/* Some command begins with this word. */
bool help_is_group(const struct ctl_command *const *groups, size_t groups_n, const char *word);

void help_command(const struct ctl_command *command);

void help_version(void);

#endif
