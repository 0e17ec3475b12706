/* tmtpctl account: the members at home on this appliance's domains. */
#include "ctl/find.h"
#include "ctl/output.h"

#include "base/clock.h"
#include "store/accounts.h"

#include <sodium.h>

static enum ctl_exit
change(struct ctl *ctl, enum account_change_kind kind, const struct input_site *who,
       const char *hash, int64_t *id)
{
	struct account_change c = {
		.actor = ctl->actor,
		.kind = kind,
		.domain = who->domain,
		.name = who->name,
		.password_hash = hash,
		.id = id_make(),
		.now_us = clock_wall_us(),
	};
	char missing[CTL_SENTENCE_MAX], taken[CTL_SENTENCE_MAX];

	(void)snprintf(missing, sizeof(missing),
	               "there is no account %s; tmtpctl account list shows those there are",
	               who->address);
	(void)snprintf(
	    taken, sizeof(taken),
	    "%s is taken: a domain's sites, channels and accounts share one namespace",
	    who->address);
	*id = c.id;
	return ctl_store_failed(ctl, ctl_ask(ctl, store_account_change, &c), missing, taken);
}

/* Reads the password and makes its argon2id hash; what verifies it pays the same price again. */
static enum ctl_exit
read_hash(struct ctl *ctl, char hash[static crypto_pwhash_STRBYTES])
{
	struct buffer password;
	enum ctl_exit result = input_password(ctl, ctl_value(ctl, "password-file"), &password);
	int failed;

	if (result != CTL_OK)
		return result;
	failed = crypto_pwhash_str_alg(
	    hash, (const char *)password.data, password.len, crypto_pwhash_OPSLIMIT_INTERACTIVE,
	    crypto_pwhash_MEMLIMIT_INTERACTIVE, crypto_pwhash_ALG_ARGON2ID13);
	input_wipe(&password);
	return failed == 0 ? CTL_OK
	                   : ctl_fail(ctl, CTL_REFUSED, "memory", "out of memory for argon2id");
}

static enum ctl_exit
account_create(struct ctl *ctl)
{
	char hash[crypto_pwhash_STRBYTES];
	struct input_site who;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_account(ctl, ctl->args[0], &who)) != CTL_OK ||
	    (result = input_domain_is_ours(ctl, who.domain)) != CTL_OK ||
	    (result = read_hash(ctl, hash)) != CTL_OK ||
	    (result = change(ctl, ACCOUNT_CREATE, &who, hash, &id)) != CTL_OK)
		return result;
	return output_done(ctl,
	                   json_pack("{s:o, s:o, s:s}", "id", output_id(id), "address",
	                             output_text(who.address), "state", "active"),
	                   "Account %s was created.", who.address);
}

static enum ctl_exit
account_password(struct ctl *ctl)
{
	char hash[crypto_pwhash_STRBYTES];
	struct input_site who;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_account(ctl, ctl->args[0], &who)) != CTL_OK ||
	    (result = read_hash(ctl, hash)) != CTL_OK ||
	    (result = change(ctl, ACCOUNT_PASSWORD, &who, hash, &id)) != CTL_OK)
		return result;
	return output_done(ctl, json_pack("{s:o}", "address", output_text(who.address)),
	                   "The password of %s was changed.", who.address);
}

static enum ctl_exit
set_state(struct ctl *ctl, enum account_change_kind kind, const char *state)
{
	struct input_site who;
	enum ctl_exit result;
	int64_t id;

	if ((result = input_account(ctl, ctl->args[0], &who)) != CTL_OK ||
	    (result = change(ctl, kind, &who, NULL, &id)) != CTL_OK)
		return result;
	return output_done(
	    ctl, json_pack("{s:o, s:s}", "address", output_text(who.address), "state", state),
	    "Account %s is %s.", who.address, state);
}

static enum ctl_exit
account_disable(struct ctl *ctl)
{
	return set_state(ctl, ACCOUNT_DISABLE, "disabled");
}

static enum ctl_exit
account_enable(struct ctl *ctl)
{
	return set_state(ctl, ACCOUNT_ENABLE, "active");
}

/* --- Listing -------------------------------------------------------------- */

/* Appends a domain's accounts, at most limit rows in all. */
static enum ctl_exit
append_accounts(struct ctl *ctl, struct slice domain, struct slice after, unsigned limit,
                json_t *rows)
{
	struct account_list list = { .domain = domain,
		                     .after = after,
		                     .limit = limit - (unsigned)json_array_size(rows) };
	enum store_rc rc;

	if (list.limit == 0)
		return CTL_OK;
	rc = ctl_ask(ctl, store_account_list, &list);
	if (rc != STORE_OK && rc != STORE_NOT_FOUND)
		return ctl_store_failed(ctl, rc, NULL, NULL);
	for (size_t i = 0; i < list.rows_n; i++) {
		const struct account_row *row = &list.rows[i];

		json_array_append_new(rows,
		                      json_pack("{s:o, s:s, s:s, s:o, s:o, s:o}", "address",
		                                output_text(row->address), "state",
		                                row->disabled_us >= 0 ? "disabled" : "active",
		                                "smtp", row->takes_mail ? "open" : "closed",
		                                "created", output_time(row->created_us),
		                                "disabled", output_time(row->disabled_us), "id",
		                                output_id(row->account_id)));
	}
	account_list_clear(&list);
	return CTL_OK;
}

/* Of the domains in the configuration's order, beginning with that of after. */
static enum ctl_exit
append_all(struct ctl *ctl, const char *only, const struct input_site *after, unsigned limit,
           json_t *rows)
{
	bool begun = after->domain[0] == '\0';
	enum ctl_exit result = CTL_OK;

	if (only != NULL)
		return append_accounts(ctl, slice_str(only), slice_str(after->name), limit,
		                       rows);
	for (size_t i = 0; i < ctl->config->domains_count && result == CTL_OK; i++) {
		const char *domain = ctl->config->domains[i].name;
		bool here = !begun && strcmp(domain, after->domain) == 0;

		begun = begun || here;
		if (begun)
			result =
			    append_accounts(ctl, slice_str(domain),
			                    slice_str(here ? after->name : ""), limit, rows);
	}
	return result;
}

static enum ctl_exit
account_list(struct ctl *ctl)
{
	static const struct output_column columns[] = {
		{ "address", "ADDRESS" }, { "state", "STATE" }, { "smtp", "SMTP" },
		{ "created", "CREATED" }, { NULL, NULL },
	};
	const char *only = ctl_value(ctl, "domain"), *from = ctl_value(ctl, "after"),
		   *next = NULL;
	char domain[DMTP_DOMAIN_MAX + 1];
	struct input_site after = { .name = "" };
	enum ctl_exit result;
	unsigned limit;
	json_t *rows;

	if ((result = input_limit(ctl, ctl_value(ctl, "limit"), &limit)) != CTL_OK ||
	    (from != NULL && (result = input_account(ctl, from, &after)) != CTL_OK) ||
	    (only != NULL && (result = input_domain(ctl, only, domain)) != CTL_OK))
		return result;
	rows = json_array();
	result = append_all(ctl, only != NULL ? domain : NULL, &after, limit, rows);
	if (result != CTL_OK) {
		json_decref(rows);
		return result;
	}
	if (json_array_size(rows) == limit)
		next = json_string_value(
		    json_object_get(json_array_get(rows, limit - 1), "address"));
	if (json_array_size(rows) == 0 && only != NULL) {
		json_decref(rows);
		if ((result = input_domain_is_ours(ctl, domain)) != CTL_OK)
			return result;
		rows = json_array();
	}
	return output_page(ctl, "accounts", rows, columns,
	                   only != NULL ? "There are no accounts of this domain, or none "
	                                  "behind: tmtpctl account create ADDRESS makes one."
	                                : "There are no accounts: tmtpctl account create "
	                                  "ADDRESS makes one.",
	                   "after", next);
}

#define PASSWORD_OPTION                                                                \
	{                                                                              \
		"password-file", "FILE",                                               \
		    "a file whose only line is the password; -: standard input", false \
	}

const struct ctl_command account_commands[] = {
	{ .name = "account create",
	  .arguments = "ADDRESS",
	  .summary = "Makes a member's account.",
	  .more =
	      "The domain must stand in the configuration. Without --password-file the password is asked for "
	      "on the terminal. Only its argon2id hash is stored.",
	  .example = "tmtpctl account create ann@home.test\n"
	             "pwgen -s 20 1 | tmtpctl account create bob@home.test --password-file -",
	  .options =
	      (const struct ctl_option[]){ PASSWORD_OPTION, { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = account_create },
	{ .name = "account password",
	  .arguments = "ADDRESS",
	  .summary = "Gives an account another password.",
	  .example = "tmtpctl account password ann@home.test",
	  .options =
	      (const struct ctl_option[]){ PASSWORD_OPTION, { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = account_password },
	{ .name = "account disable",
	  .arguments = "ADDRESS",
	  .summary = "Lets nobody log in to an account; what it holds stays.",
	  .example = "tmtpctl account disable ann@home.test",
	  .needs = NEEDS_STORE,
	  .run = account_disable },
	{ .name = "account enable",
	  .arguments = "ADDRESS",
	  .summary = "Lets the member log in again.",
	  .example = "tmtpctl account enable ann@home.test",
	  .needs = NEEDS_STORE,
	  .run = account_enable },
	{ .name = "account list",
	  .arguments = "",
	  .summary = "Shows the accounts of our domains, or of one.",
	  .more = "SMTP is open when the member takes mail from the local mail server.",
	  .example = "tmtpctl account list --domain home.test",
	  .options =
	      (const struct ctl_option[]){
		  { "domain", "NAME", "only this domain's", false },
		  { "after", "ADDRESS", "those behind this one", false },
		  { "limit", "N", "at most so many, 1 to 100000 (100)", false },
		  { NULL, NULL, NULL, false } },
	  .needs = NEEDS_STORE,
	  .run = account_list },
	{ .name = NULL },
};
