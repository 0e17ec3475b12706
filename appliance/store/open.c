/* A role's store: see open.h. */
#include "store/open.h"

#include "base/log.h"
#include "store/embedded.h"

#include <stdio.h>

#define TEXT_MAX 4096

struct store *
store_open(const struct config *config, const char *role, const struct store_options *options)
{
	struct store_options full = *options;
	struct store *store = NULL;
	struct buffer conninfo, error;

	buffer_init(&conninfo, TEXT_MAX);
	buffer_init(&error, TEXT_MAX);
	if (embedded_conninfo(config, role, &conninfo, &error)) {
		full.conninfo = (const char *)conninfo.data;
		store = store_start(&full);
		if (store == NULL)
			log_error("start-failed",
			          LOG_S("reason", "the store: no memory or threads"));
	} else {
		log_error("database-unknown", LOG_B("reason", buffer_slice(&error)));
	}
	buffer_free(&conninfo);
	buffer_free(&error);
	return store;
}

bool
store_is_ready(void *arg, char *reason, size_t size)
{
	struct buffer why;
	bool up;

	buffer_init(&why, TEXT_MAX);
	up = store_is_up(arg, &why);
	if (!up)
		(void)snprintf(reason, size, "database: %.*s", (int)why.len,
		               why.failed ? "" : (const char *)why.data);
	buffer_free(&why);
	return up;
}
