/* Look-ups: see find.h. */
#include "ctl/find.h"

enum ctl_exit
find_site(struct ctl *ctl, const char *text, struct site_list *list, struct input_site *names)
{
	/* cppcheck-suppress uninitvar ; its address only: input_site fills it */
	struct input_site own, *site = names != NULL ? names : &own;
	char missing[CTL_SENTENCE_MAX];
	enum ctl_exit result = input_site(ctl, text, site);
	enum store_rc rc;

	if (result != CTL_OK)
		return result;
	*list = (struct site_list){ .domain = slice_str(site->domain),
		                    .name = slice_str(site->name) };
	rc = ctl_ask(ctl, store_site_list, list);
	if (rc == STORE_OK && list->rows_n == 0)
		rc = STORE_NOT_FOUND;
	(void)snprintf(missing, sizeof(missing),
	               "there is no site %s; tmtpctl site list shows those there are",
	               site->address);
	return ctl_store_failed(ctl, rc, missing, NULL);
}

enum ctl_exit
find_site_id(struct ctl *ctl, const char *text, struct input_site *names, int64_t *id)
{
	struct site_list list;
	enum ctl_exit result = find_site(ctl, text, &list, names);

	if (result == CTL_OK) {
		*id = list.rows[0].site_id;
		site_list_clear(&list);
	}
	return result;
}

enum ctl_exit
find_channel_id(struct ctl *ctl, const struct input_site *site, int64_t site_id,
                const char *name, int64_t *id)
{
	struct channel_list list = { .site_id = site_id, .name = slice_str(name) };
	char missing[CTL_SENTENCE_MAX];
	enum ctl_exit result = input_name(ctl, "channel's name", name);
	enum store_rc rc;

	if (result != CTL_OK)
		return result;
	rc = ctl_ask(ctl, store_channel_list, &list);
	if (rc == STORE_OK && list.rows_n == 0)
		rc = STORE_NOT_FOUND;
	(void)snprintf(
	    missing, sizeof(missing),
	    "%s has no channel \"%s\"; tmtpctl channel list %s shows those there are",
	    site->address, name, site->address);
	if (rc == STORE_OK)
		*id = list.rows[0].channel_id;
	channel_list_clear(&list);
	return ctl_store_failed(ctl, rc, missing, NULL);
}
