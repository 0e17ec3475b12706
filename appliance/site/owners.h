/*
 * What the configuration says of our domains for their site cards. It may
 * change while the role runs, so it is kept apart from the configuration as at
 * the start.
 */
#ifndef TMTP_SITE_OWNERS_H
#define TMTP_SITE_OWNERS_H

#include "base/config.h"

struct owners;

/* A domain of ours; whoever asked owns it. */
struct owner {
	char *domain, *title, *icon; /* title and icon NULL: none */
	bool signed_only;
};

/* NULL: no memory. */
struct owners *owners_make(const struct config *config);
void owners_free(struct owners **owners);

/* Takes over what a configuration just loaded says. Without memory the old stands. */
void owners_set(struct owners *owners, const struct config *config);

/* Any thread. False: no domain of ours, or no memory; out untouched. */
bool owners_find(struct owners *owners, struct slice domain, struct owner *out);
void owner_clear(struct owner *owner);

#endif
