/* What keys and tokens have in common: both let somebody speak for a site. */
#ifndef TMTP_CTL_CREDENTIAL_H
#define TMTP_CTL_CREDENTIAL_H

#include "ctl/find.h"
#include "ctl/output.h"

/* One change of the site's credentials; domain, name, actor and times are filled in. label is for the error. */
enum ctl_exit credential_change(struct ctl *ctl, const struct input_site *site,
                                struct site_change *change, const char *label);

/* {"keys": …} or {"tokens": …}. */
enum ctl_exit credential_list_show(struct ctl *ctl, bool tokens);

/* The option's word of a credential that ends: kid or the token's name. */
enum ctl_exit credential_revoke(struct ctl *ctl, bool token);

/*
 * Shows a secret for the only time: record's value at key, and the sentence before it (on
 * standard error). Wiped by the caller. Tells when it got lost. Takes record.
 */
enum ctl_exit credential_show_once(struct ctl *ctl, json_t *record, const char *secret,
                                   const char *sentence);

#endif
