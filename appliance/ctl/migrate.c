/* tmtpctl migrate and check-config: what stands before everything else. */
#include "ctl/output.h"
#include "ctl/progress.h"

#include "base/clock.h"
#include "base/id.h"
#include "store/audit.h"
#include "store/embedded.h"
#include "store/migrate.h"

/* What is told of a run of migrations. */
struct run {
	struct ctl *ctl;
	struct progress progress;
	json_t *applied;
};

static void
on_migration(const struct migration *m, void *arg)
{
	struct run *run = arg;
	size_t index = (size_t)(m - migrations);

	progress_step(&run->progress, index, m->name);
	if (!run->ctl->json) {
		printf("Applying %s (%zu of %zu)\n", m->name, index + 1, migrations_count);
		(void)fflush(stdout);
	}
	json_array_append_new(run->applied, output_text(m->name));
}

static const char *
last_name(const json_t *names)
{
	return json_string_value(json_array_get(names, json_array_size(names) - 1));
}

static enum ctl_exit
write_one(struct ctl *ctl, const char *name)
{
	struct audit_add add = {
		.actor = ctl->actor,
		.action = "migrate",
		.subject = name,
		.audit_id = uuid_make(),
		.now_us = clock_wall_us(),
	};

	return ctl_store_failed(ctl, ctl_ask(ctl, store_audit_add, &add), NULL, NULL);
}

/* The tables that hold the audit log are there by now. */
static enum ctl_exit
write_audit(struct ctl *ctl, const json_t *applied)
{
	enum ctl_exit result = ctl_open_store(ctl);

	for (size_t i = 0; result == CTL_OK && i < json_array_size(applied); i++)
		result = write_one(ctl, json_string_value(json_array_get(applied, i)));
	return result;
}

static enum ctl_exit
run_failed(struct ctl *ctl, enum store_rc rc, const struct run *run, const struct buffer *why)
{
	const char *text = why->len > 1 ? (const char *)why->data : "no reason was given";

	if (rc == STORE_DOWN)
		return ctl_fail(ctl, CTL_DOWN, "database-down", "%s%s", text,
		                ctl_down_help(ctl));
	if (json_array_size(run->applied) == 0)
		return ctl_fail(ctl, CTL_REFUSED, "schema", "%s", text);
	return ctl_fail(
	    ctl, CTL_REFUSED, "schema",
	    "the migration %s failed, nothing of it remains, those before it do: %s",
	    last_name(run->applied), text);
}

static enum ctl_exit
tell(struct ctl *ctl, json_t *applied)
{
	size_t n = json_array_size(applied);

	return output_done(
	    ctl,
	    json_pack("{s:o, s:I, s:s}", "applied", json_incref(applied), "migrations",
	              (json_int_t)migrations_count, "state", "current"),
	    n == 0 ? "The schema is current (%zu migrations): nothing was to be done."
		   : "The schema is current (%zu migrations).",
	    migrations_count);
}

static enum ctl_exit
migrate(struct ctl *ctl)
{
	struct run run = { .ctl = ctl, .applied = json_array() };
	struct buffer conninfo, why;
	enum ctl_exit result;
	enum store_rc rc;

	buffer_init(&conninfo, 8192);
	buffer_init(&why, 8192);
	if ((result = ctl_conninfo(ctl, "tmtp_owner", &conninfo)) != CTL_OK)
		goto out;
	progress_begin(&run.progress, migrations_count);
	rc = migrate_run((const char *)conninfo.data, on_migration, &run, &why);
	progress_end(&run.progress);
	buffer_add_u8(&why, '\0');
	if (rc != STORE_OK)
		result = run_failed(ctl, rc, &run, &why);
	else if (json_array_size(run.applied) > 0)
		result = write_audit(ctl, run.applied);
	if (result == CTL_OK)
		result = tell(ctl, run.applied);
out:
	json_decref(run.applied);
	buffer_free(&why);
	buffer_free(&conninfo);
	return result;
}

/* --- check-config --------------------------------------------------------- */

static json_t *
config_json(const struct config *config)
{
	json_t *roles = json_array(), *domains = json_array(), *routes = json_array();

	for (int i = 0; i < CONFIG_ROLES; i++)
		if (config->roles[i])
			json_array_append_new(
			    roles, output_text(config_role_name((enum config_role)i)));
	for (size_t i = 0; i < config->domains_count; i++)
		json_array_append_new(domains, output_text(config->domains[i].name));
	for (size_t i = 0; i < config->routes_count; i++)
		json_array_append_new(routes, output_text(config->routes[i].domain));
	return json_pack("{s:b, s:o, s:o, s:o, s:o, s:s}", "ok", 1, "config",
	                 output_text(config->path), "roles", roles, "domains", domains,
	                 "routes", routes, "database",
	                 config->database == NULL ? "embedded" : "external");
}

static enum ctl_exit
check_config(struct ctl *ctl)
{
	static const struct output_column fields[] = {
		{ "config", "Configuration" },
		{ "ok", "In order" },
		{ "roles", "Roles" },
		{ "domains", "Domains" },
		{ "routes", "Pinned routes" },
		{ "database", "Database" },
		{ NULL, NULL },
	};
	enum ctl_exit result = CTL_OK;
	struct buffer why;
	bool good;

	buffer_init(&why, 4096);
	good = embedded_check(ctl->config, &why);
	buffer_add_u8(&why, '\0');
	if (!good)
		result =
		    ctl_fail(ctl, CTL_REFUSED, "config-invalid", "%s", (const char *)why.data);
	buffer_free(&why);
	if (result != CTL_OK)
		return result;
	return output_record(ctl, config_json(ctl->config), fields);
}

const struct ctl_command migrate_commands[] = {
	{ .name = "check-config",
	  .arguments = "",
	  .summary = "Reads the configuration and says whether it is in order.",
	  .more = "Certificates and keys are looked at too; the database isn't.",
	  .example = "tmtpctl --config /etc/tmtp/tmtp.conf check-config",
	  .needs = NEEDS_CONFIG,
	  .run = check_config },
	{ .name = "migrate",
	  .arguments = "",
	  .summary = "Brings the database's tables to this program's version.",
	  .more =
	      "Connects as tmtp_owner. Each migration runs in a transaction of its own; running it again "
	      "changes nothing. An embedded database is migrated by tmtpd itself when it is new.",
	  .example = "tmtpctl migrate",
	  .needs = NEEDS_CONFIG,
	  .run = migrate },
	{ .name = NULL },
};
