/* The registrable domain: see registrable.h. The system's list when it is newer than the
 * library's own. */
#include "home/registrable.h"

#include "dmtp/address.h"

#include <libpsl.h>
#include <pthread.h>

static psl_ctx_t *list; /* for the life of the process */

static void
load(void)
{
	list = psl_latest(NULL);
}

void
registrable_domain(struct slice domain, struct buffer *out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char name[DMTP_DOMAIN_MAX + 1];
	const char *found = NULL;

	(void)pthread_once(&once, load);
	if (list != NULL && domain.len > 0 && domain.len < sizeof(name)) {
		memcpy(name, domain.data, domain.len);
		name[domain.len] = '\0';
		found = psl_registrable_domain(list, name);
	}
	if (found != NULL)
		buffer_add_str(out, found);
	else
		buffer_add_slice(out, domain);
}
