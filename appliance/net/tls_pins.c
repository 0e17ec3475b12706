/*
 * CAs pinned for single domains, on a server's side: for such a name in a
 * client's certificate only its own CA counts, and that CA for no other name.
 * See tls_set.h.
 */
#include "net/tls_set.h"

#include <stdio.h>
#include <stdlib.h>

static X509_STORE *
store_of(const char *ca_file)
{
	X509_STORE *store = X509_STORE_new();

	if (store == NULL)
		return NULL;
	/* As with a client's pinned file: whatever stands in it is an anchor. */
	if (X509_STORE_load_file(store, ca_file) != 1 ||
	    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) != 1 ||
	    X509_STORE_set_depth(store, 8) != 1) {
		X509_STORE_free(store);
		return NULL;
	}
	return store;
}

bool
tls_pins_load(struct tls_set *set, const struct tls_pin *pins, size_t count,
              const char **bad_file)
{
	*bad_file = NULL;
	set->pins = count == 0 ? NULL : calloc(count, sizeof(*set->pins));
	if (count > 0 && set->pins == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct tls_pinned *pin = &set->pins[set->pin_count++];

		pin->domain = strdup(pins[i].domain);
		pin->store = store_of(pins[i].ca_file);
		if (pin->store == NULL)
			*bad_file = pins[i].ca_file;
		if (pin->domain == NULL || pin->store == NULL)
			return false;
	}
	return true;
}

void
tls_pins_free(struct tls_set *set)
{
	for (size_t i = 0; i < set->pin_count; i++) {
		free(set->pins[i].domain);
		X509_STORE_free(set->pins[i].store);
	}
	free(set->pins);
	set->pins = NULL;
	set->pin_count = 0;
}

static bool
is_pinned(const struct tls_set *set, const char *name)
{
	for (size_t i = 0; i < set->pin_count; i++)
		if (strcmp(set->pins[i].domain, name) == 0)
			return true;
	return false;
}

bool
tls_pins_concern(const struct tls_set *set, X509 *cert)
{
	struct tls_names names;
	bool concerned = false;

	if (set->pin_count == 0 || cert == NULL || !tls_names_read(cert, true, &names))
		return set->pin_count > 0 && cert != NULL;
	for (size_t i = 0; i < names.count; i++)
		concerned = concerned || is_pinned(set, names.names[i]);
	tls_names_free(&names);
	return concerned;
}

/* Both kinds of names in one block, as tls_names_read makes it. */
bool
tls_pins_apply(const struct tls_set *set, const bool *held, struct tls_names *names)
{
	size_t most = names->count + set->pin_count, octets = 0;
	struct tls_names made = { 0 };
	char *text;

	for (size_t i = 0; i < names->count; i++)
		octets += strlen(names->names[i]) + 1;
	for (size_t i = 0; i < set->pin_count; i++)
		octets += strlen(set->pins[i].domain) + 1;
	made.names = malloc(most * sizeof(*made.names) + octets + 1);
	if (made.names == NULL)
		return false;
	text = (char *)(made.names + most);
	for (size_t i = 0; i < most; i++) {
		bool own = i >= names->count;
		const char *name = own ? set->pins[i - names->count].domain : names->names[i];

		if (own ? !held[i - names->count] : is_pinned(set, name))
			continue;
		if (tls_names_have(&made, slice_str(name)))
			continue;
		made.names[made.count++] = text;
		text = (char *)mempcpy(text, name, strlen(name) + 1);
	}
	tls_names_free(names);
	*names = made;
	return true;
}
