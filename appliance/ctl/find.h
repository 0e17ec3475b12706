/* Looking up what a command's arguments name; an absent one is told with what to do. */
#ifndef TMTP_CTL_FIND_H
#define TMTP_CTL_FIND_H

#include "ctl/input.h"
#include "store/sites.h"

/* list has exactly this one row on CTL_OK; site_list_clear. names may be NULL. */
enum ctl_exit find_site(struct ctl *ctl, const char *text, struct site_list *list,
                        struct input_site *names);

/* Only the site's number. */
enum ctl_exit find_site_id(struct ctl *ctl, const char *text, struct input_site *names,
                           int64_t *id);

/* An open channel of the site. */
enum ctl_exit find_channel_id(struct ctl *ctl, const struct input_site *site, int64_t site_id,
                              const char *name, int64_t *id);

#endif
