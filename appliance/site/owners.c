/* Our domains as the configuration names them: see owners.h. */
#include "site/owners.h"

#include <pthread.h>
#include <stdlib.h>

struct owners {
	pthread_mutex_t lock; /* of all below */
	struct owner *all;
	size_t n;
};

void
owner_clear(struct owner *o)
{
	free(o->domain);
	free(o->title);
	free(o->icon);
	*o = (struct owner){ .domain = NULL };
}

static void
clear_all(struct owner *all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		owner_clear(&all[i]);
	free(all);
}

static char *
copy(const char *text)
{
	return text == NULL ? NULL : strdup(text);
}

/* False: no memory; out is untouched. */
static bool
owner_make(const struct owner *from, struct owner *out)
{
	struct owner made = { .domain = copy(from->domain),
		              .title = copy(from->title),
		              .icon = copy(from->icon),
		              .signed_only = from->signed_only };

	if (made.domain == NULL || (made.title == NULL && from->title != NULL) ||
	    (made.icon == NULL && from->icon != NULL)) {
		owner_clear(&made);
		return false;
	}
	*out = made;
	return true;
}

void
owners_set(struct owners *owners, const struct config *config)
{
	size_t n = config->domains_count, made = 0, old_n;
	struct owner *all = calloc(n + 1, sizeof(*all)), *old;

	for (; all != NULL && made < n; made++) {
		const struct config_domain *d = &config->domains[made];
		const struct owner from = { .domain = d->name,
			                    .title = d->title,
			                    .icon = d->icon,
			                    .signed_only = d->signed_only };

		if (!owner_make(&from, &all[made]))
			break;
	}
	if (all == NULL || made < n) {
		clear_all(all, made);
		return;
	}
	(void)pthread_mutex_lock(&owners->lock);
	old = owners->all;
	old_n = owners->n;
	owners->all = all;
	owners->n = n;
	(void)pthread_mutex_unlock(&owners->lock);
	clear_all(old, old_n);
}

bool
owners_find(struct owners *owners, struct slice domain, struct owner *out)
{
	bool found = false;

	(void)pthread_mutex_lock(&owners->lock);
	for (size_t i = 0; !found && i < owners->n; i++)
		found = slice_eq_str(domain, owners->all[i].domain) &&
		        owner_make(&owners->all[i], out);
	(void)pthread_mutex_unlock(&owners->lock);
	return found;
}

struct owners *
owners_make(const struct config *config)
{
	struct owners *owners = calloc(1, sizeof(*owners));

	if (owners == NULL)
		return NULL;
	(void)pthread_mutex_init(&owners->lock, NULL);
	owners_set(owners, config);
	if (owners->n == config->domains_count)
		return owners;
	owners_free(&owners);
	return NULL;
}

void
owners_free(struct owners **owners)
{
	struct owners *o = *owners;

	if (o == NULL)
		return;
	*owners = NULL;
	clear_all(o->all, o->n);
	(void)pthread_mutex_destroy(&o->lock);
	free(o);
}
