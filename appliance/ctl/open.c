/*
 * The way to the configuration and the database, who it is that calls, and
 * what the database's answers mean to a person.
 */
#include "ctl/ctl.h"

#include "store/embedded.h"
#include "store/migrate.h"

#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

/* libpq asks whether the server runs; ours is run by tmtpd. */
const char *
ctl_down_help(const struct ctl *ctl)
{
	return ctl->config->database == NULL ? " (is tmtpd running?)" : "";
}

enum ctl_exit
ctl_open_config(struct ctl *ctl)
{
	enum ctl_exit result = CTL_OK;
	struct buffer error;
	enum config_rc rc;

	buffer_init(&error, 4096);
	rc = config_load(ctl->config_path, &ctl->config, &error);
	buffer_add_u8(&error, '\0');
	if (rc != CONFIG_OK)
		result =
		    ctl_fail(ctl, CTL_REFUSED,
		             rc == CONFIG_UNREADABLE ? "config-unreadable" : "config-invalid",
		             "%s", (const char *)error.data);
	buffer_free(&error);
	return result;
}

/* --- Who calls ------------------------------------------------------------ */

static bool
is_user_name(const char *name)
{
	size_t len = name == NULL ? 0 : strlen(name);

	if (len < 1 || len > 64)
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] <= ' ' || name[i] >= 0x7f || name[i] == '@')
			return false;
	return true;
}

/* Only root could set SUDO_USER as it pleases anyway; from anybody else it proves nothing. */
void
ctl_find_actor(struct ctl *ctl)
{
	const char *sudo = getuid() == 0 ? getenv("SUDO_USER") : NULL;
	const struct passwd *user = getpwuid(getuid());
	char host[128] = "";
	char name[80];

	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		(void)snprintf(host, sizeof(host), "localhost");
	if (is_user_name(sudo))
		(void)snprintf(name, sizeof(name), "%s", sudo);
	else if (user != NULL && is_user_name(user->pw_name))
		(void)snprintf(name, sizeof(name), "%s", user->pw_name);
	else
		(void)snprintf(name, sizeof(name), "uid-%u", (unsigned)getuid());
	(void)snprintf(ctl->actor, sizeof(ctl->actor), "%s@%s", name, host);
}

/* --- The database --------------------------------------------------------- */

enum ctl_exit
ctl_conninfo(struct ctl *ctl, const char *role, struct buffer *out)
{
	enum ctl_exit result = CTL_OK;
	struct buffer error;

	buffer_init(&error, 4096);
	if (!embedded_conninfo(ctl->config, role, out, &error)) {
		buffer_add_u8(&error, '\0');
		result =
		    ctl_fail(ctl, ctl->config->database == NULL ? CTL_DOWN : CTL_REFUSED,
		             ctl->config->database == NULL ? "database-down" : "config-invalid",
		             "%s", (const char *)error.data);
	}
	buffer_free(&error);
	return result;
}

static enum ctl_exit
check_schema(struct ctl *ctl, const char *conninfo)
{
	enum ctl_exit result = CTL_OK;
	struct buffer why;
	enum migrate_state state;

	buffer_init(&why, 4096);
	state = migrate_check(conninfo, &why);
	buffer_add_u8(&why, '\0');
	if (state == MIGRATE_DOWN)
		result = ctl_fail(ctl, CTL_DOWN, "database-down", "%s%s",
		                  (const char *)why.data, ctl_down_help(ctl));
	else if (state != MIGRATE_CURRENT)
		result = ctl_fail(ctl, CTL_REFUSED, "schema", "%s", (const char *)why.data);
	buffer_free(&why);
	return result;
}

enum ctl_exit
ctl_open_store(struct ctl *ctl)
{
	struct store_options options = { .name = "tmtpctl",
		                         .connections = { [STORE_WRITE] = 1 } };
	struct buffer conninfo;
	enum ctl_exit result;

	buffer_init(&conninfo, 8192);
	if ((result = ctl_conninfo(ctl, "tmtp_ctl", &conninfo)) != CTL_OK)
		goto out;
	options.conninfo = (const char *)conninfo.data;
	if ((result = check_schema(ctl, options.conninfo)) != CTL_OK)
		goto out;
	if ((ctl->store = store_start(&options)) == NULL)
		result = ctl_fail(ctl, CTL_REFUSED, "memory", "out of memory or threads");
out:
	buffer_free(&conninfo);
	return result;
}

void
ctl_close(struct ctl *ctl)
{
	store_stop(&ctl->store, 1000);
	config_free(&ctl->config);
}

/* --- Jobs ----------------------------------------------------------------- */

/* One job is under way at a time: the program has one thread of its own. */
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_cond = PTHREAD_COND_INITIALIZER;
static bool wait_done;

static void
on_done(struct store_job *job)
{
	(void)job;
	pthread_mutex_lock(&wait_lock);
	wait_done = true;
	pthread_cond_signal(&wait_cond);
	pthread_mutex_unlock(&wait_lock);
}

void
ctl_wait_begin(struct store_job *job)
{
	wait_done = false;
	job->done = on_done;
}

enum store_rc
ctl_wait_end(struct store_job *job)
{
	pthread_mutex_lock(&wait_lock);
	while (!wait_done)
		pthread_cond_wait(&wait_cond, &wait_lock);
	pthread_mutex_unlock(&wait_lock);
	return job->rc;
}

static enum ctl_exit
database_down(struct ctl *ctl)
{
	enum ctl_exit result;
	struct buffer why;

	buffer_init(&why, 4096);
	if (store_is_up(ctl->store, &why))
		buffer_add_str(&why, "it is full, shutting down, or took too long");
	buffer_add_u8(&why, '\0');
	result = ctl_fail(ctl, CTL_DOWN, "database-down",
	                  "the database went away, nothing was changed: %s%s",
	                  (const char *)why.data, ctl_down_help(ctl));
	buffer_free(&why);
	return result;
}

enum ctl_exit
ctl_store_failed(struct ctl *ctl, enum store_rc rc, const char *not_found, const char *conflict)
{
	switch (rc) {
	case STORE_OK:
		return CTL_OK;
	case STORE_NOT_FOUND:
		return ctl_fail(ctl, CTL_REFUSED, "not-found", "%s",
		                not_found != NULL ? not_found : "there is no such thing");
	case STORE_CONFLICT:
		return ctl_fail(ctl, CTL_REFUSED, "conflict", "%s",
		                conflict != NULL ? conflict : "it is taken already");
	case STORE_DOWN:
		return database_down(ctl);
	case STORE_COMMIT_UNKNOWN:
		return ctl_fail(
		    ctl, CTL_DOWN, "commit-unknown",
		    "the connection broke during the commit: whether the change was made is not known; "
		    "look (list or show) before you try again");
	case STORE_REFUSED:
		break;
	}
	return ctl_fail(ctl, CTL_REFUSED, "refused",
	                "the database refused this: the database's log says why");
}
