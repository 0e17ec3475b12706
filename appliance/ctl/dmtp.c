/*
 * tmtpctl dmtp: what another domain's DMTP servers say, and whether they can
 * be reached from here. The looking is look.h's; here it becomes a document,
 * and from that document words.
 */
#include "ctl/input.h"
#include "ctl/look.h"
#include "ctl/output.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_S 10
#define TIMEOUT_MAX_S 60
#define SENTENCE 1024

static const char *const modes[] = {
	[DMTP_CLIENT_TLS] = "TLS from the first octet",
	[DMTP_CLIENT_STARTTLS] = "STARTTLS",
	[DMTP_CLIENT_PLAIN] = "no TLS",
};

/* --- The verdict ------------------------------------------------------------------ */

struct verdict {
	bool reachable;
	char text[SENTENCE];
	char advice[SENTENCE]; /* "" when there is nothing to do */
};

static const char *
server_text(const struct look_try *t, char out[static NET_TEXT])
{
	const struct discover_target *to = &t->look->discovery.targets[t->target];
	char address[NET_ADDRESS_TEXT];

	(void)snprintf(out, NET_TEXT, "%.120s (%s, %s)", to->host,
	               net_address_format(&t->address, address), modes[to->mode]);
	return out;
}

/* The one that came furthest, in the order in which they are tried. */
static const struct look_try *
best_try(const struct look *look)
{
	const struct look_try *best = NULL;

	for (size_t i = 0; i < look->tries_n; i++) {
		const struct look_try *t = &look->tries[i];

		if (best == NULL || t->step > best->step ||
		    (t->step == best->step && t->target < best->target))
			best = t;
	}
	return best;
}

static void
judge_no_server(const struct look *look, struct verdict *v)
{
	const struct discovery *d = &look->discovery;
	const struct look_host *h = &look->hosts[0];

	if (d->refused) {
		(void)snprintf(v->text, SENTENCE,
		               "its DNS records say that it takes no "
		               "DMTP (the target \".\")");
		(void)snprintf(v->advice, SENTENCE,
		               "Nothing can be done here: the domain's "
		               "owner decides that.");
	} else if (d->count == 0) {
		(void)snprintf(v->text, SENTENCE, "%s", d->reason);
		(void)snprintf(v->advice, SENTENCE,
		               "Look whether the name servers work (relay.nameservers in the "
		               "configuration, otherwise those of /etc/resolv.conf), and try "
		               "again.");
	} else if (d->fallback && h->rc == RESOLVE_NO_NAME) {
		(void)snprintf(v->text, SENTENCE, "there is no such domain in DNS");
		(void)snprintf(v->advice, SENTENCE, "Look whether %s is written right.",
		               look->domain);
	} else if (d->fallback && h->rc == RESOLVE_NO_RECORD) {
		(void)snprintf(v->text, SENTENCE,
		               "it has neither SRV records for DMTP nor an address");
		(void)snprintf(v->advice, SENTENCE,
		               "Ask its owner whether it takes DMTP; it needs an SRV record "
		               "_dmtps._tcp.%s.",
		               look->domain);
	} else {
		(void)snprintf(v->text, SENTENCE, "no address was found for %s: %s",
		               d->targets[0].host, h->why);
		(void)snprintf(
		    v->advice, SENTENCE,
		    h->rc == RESOLVE_FAIL
			? "Look whether the name servers work, and try again."
			: "Tell its owner that the SRV record leads to a name without "
			  "an address.");
	}
}

static void
advise_certificate(const struct look_try *t, char out[static SENTENCE])
{
	const char *domain = t->look->domain;
	const struct config_route *route = t->look->route;

	if (t->certified && t->certificate.rule[0] == '\0')
		(void)snprintf(
		    out, SENTENCE,
		    "Ask its owner for a certificate that names %s (a dNSName, or an "
		    "SRV-ID _dmtps.%s); the server's own name does not count.",
		    domain, domain);
	else if (route != NULL && route->ca != NULL)
		(void)snprintf(
		    out, SENTENCE,
		    "The route in the configuration trusts only %s: look whether that "
		    "is still the domain's CA, and whether the certificate is valid now.",
		    route->ca);
	else
		(void)snprintf(
		    out, SENTENCE,
		    "Ask its owner to mend the certificate; if the domain has a CA of "
		    "its own that you trust, pin it: route \"%s\" { ca = \"file.pem\" }.",
		    domain);
}

static void
advise(const struct look_try *t, char out[static SENTENCE])
{
	const char *domain = t->look->domain;

	switch (t->step) {
	case LOOK_GUARD:
		(void)snprintf(out, SENTENCE,
		               "If it is meant to be there, in your own network, pin it: route "
		               "\"%s\" { allow_private = true }; otherwise tell its owner.",
		               domain);
		break;
	case LOOK_TCP:
		(void)snprintf(out, SENTENCE,
		               "Look whether a firewall here keeps connections to port %u in; "
		               "otherwise its server is down: tell its owner.",
		               net_address_port(&t->address));
		break;
	case LOOK_STARTTLS:
		(void)snprintf(
		    out, SENTENCE,
		    "Plaintext is never used: it may be no DMTP server, or something "
		    "between strips STARTTLS. Tell its owner, who should offer "
		    "_dmtps._tcp.%s.",
		    domain);
		break;
	case LOOK_CHECK:
		advise_certificate(t, out);
		break;
	case LOOK_NAME:
	case LOOK_TLS:
	case LOOK_GREETING:
	case LOOK_DONE:
		(void)snprintf(
		    out, SENTENCE,
		    "Something answers there that is no DMTP server, or an ailing one: "
		    "tell its owner.");
		break;
	}
}

static void
judge_try(const struct look_try *t, struct verdict *v)
{
	char server[NET_TEXT];

	(void)server_text(t, server);
	if (t->step == LOOK_CHECK)
		(void)snprintf(v->text, SENTENCE,
		               "the certificate of %s does not stand the check: %s", server,
		               t->why);
	else
		(void)snprintf(v->text, SENTENCE, "%s fails: %s", server, t->why);
	advise(t, v->advice);
}

static void
judge(const struct look *look, struct verdict *v)
{
	const struct look_try *best = best_try(look);
	size_t good = 0;
	char server[NET_TEXT];

	*v = (struct verdict){ .reachable = best != NULL && best->step == LOOK_DONE };
	for (size_t i = 0; i < look->tries_n; i++)
		good += look->tries[i].step == LOOK_DONE;
	if (!v->reachable) {
		if (best == NULL)
			judge_no_server(look, v);
		else
			judge_try(best, v);
		return;
	}
	(void)snprintf(v->text, SENTENCE, "by %s", server_text(best, server));
	if (good < look->tries_n)
		(void)snprintf(v->advice, SENTENCE,
		               "Of %zu addresses %zu work%s: tell its owner what stands above.",
		               look->tries_n, good, good == 1 ? "s" : "");
}

/* --- The document ------------------------------------------------------------------- */

static json_t *
records_json(const struct look *look, enum resolve_rc rc, enum dmtp_client_mode mode)
{
	static const char *const answers[] = {
		[RESOLVE_FOUND] = "found",    [RESOLVE_NO_RECORD] = "none",
		[RESOLVE_NO_NAME] = "none",   [RESOLVE_REFUSED] = "refused",
		[RESOLVE_FAIL] = "no answer",
	};
	const struct discovery *d = &look->discovery;
	json_t *records = json_array();

	for (size_t i = 0; rc == RESOLVE_FOUND && i < d->count; i++)
		if (d->targets[i].mode == mode)
			json_array_append_new(
			    records, json_pack("{s:i, s:i, s:i, s:o}", "priority",
			                       d->targets[i].priority, "weight",
			                       d->targets[i].weight, "port", d->targets[i].port,
			                       "target", output_text(d->targets[i].host)));
	return json_pack("{s:s, s:o}", "answer", answers[rc], "records", records);
}

static json_t *
dns_json(const struct look *look)
{
	const struct discovery *d = &look->discovery;

	if (d->pinned)
		return json_null();
	return json_pack("{s:o, s:o, s:b}", "_dmtps._tcp",
	                 records_json(look, d->tls_rc, DMTP_CLIENT_TLS), "_dmtp._tcp",
	                 records_json(look, d->starttls_rc, DMTP_CLIENT_STARTTLS), "fallback",
	                 (int)d->fallback);
}

static json_t *
route_json(const struct look *look)
{
	const struct config_route *r = look->route;
	json_t *target = json_null();

	if (r == NULL)
		return json_null();
	if (r->dmtp != ROUTE_DMTP_NONE)
		target = json_sprintf("%s:%u", r->dmtp_target.host, r->dmtp_target.port);
	return json_pack("{s:o, s:o, s:b}", "dmtp", target, "ca", output_text(r->ca),
	                 "allow_private", (int)r->allow_private);
}

static json_t *
certificate_json(const struct look_try *t)
{
	const struct tls_certificate *c = &t->certificate;
	const struct config_route *route = t->look->route;

	if (!t->certified)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o}", "subject",
	                 output_text(c->subject), "issuer", output_text(c->issuer), "names",
	                 output_words(c->names), "from", output_time(c->from_s * 1000000),
	                 "until", output_time(c->until_s * 1000000), "valid",
	                 (int)(t->problem[0] == '\0'), "rule",
	                 c->rule[0] == '\0' ? json_null() : json_string(c->rule), "problem",
	                 t->problem[0] == '\0' ? json_null() : output_text(t->problem), "ca",
	                 output_text(route == NULL ? NULL : route->ca));
}

static json_t *
greeting_json(const struct look_try *t)
{
	static const struct {
		unsigned bit;
		const char *verb;
	} verbs[] = { { DMTP_EXT_AUTH, "AUTH" },
		      { DMTP_EXT_GRANT, "GRANT" },
		      { DMTP_EXT_RECEIPT, "RECEIPT" },
		      { DMTP_EXT_PRESENCE, "PRESENCE" } };
	const struct dmtp_limits *l = &t->greeting.limits;
	json_t *ext = json_array();

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if ((t->greeting.ext & verbs[i].bit) != 0)
			json_array_append_new(ext, json_string(verbs[i].verb));
	if (!t->greeted) {
		json_decref(ext);
		return json_null();
	}
	return json_pack("{s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "host",
	                 output_text(t->greeting.host), "extensions", ext, "limits", "command",
	                 (json_int_t)l->command_octets, "idle", (json_int_t)l->idle_s,
	                 "message", (json_int_t)l->message_octets, "noops",
	                 (json_int_t)l->noops, "pipeline", (json_int_t)l->pipeline, "rcpts",
	                 (json_int_t)l->rcpts, "uris", (json_int_t)l->uris);
}

static json_t *
try_json(const struct look_try *t)
{
	char address[NET_ADDRESS_TEXT];
	json_t *tls = json_null();

	if (t->secured)
		tls =
		    json_pack("{s:s, s:s, s:o}", "version", t->version, "cipher", t->cipher,
		              "alpn", t->alpn[0] == '\0' ? json_null() : output_text(t->alpn));
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:b, s:o}", "address",
	                 net_address_format(&t->address, address), "connect_ms",
	                 t->connect_ms < 0 ? json_null() : json_integer(t->connect_ms), "tls",
	                 tls, "certificate", certificate_json(t), "greeting", greeting_json(t),
	                 "works", (int)(t->step == LOOK_DONE), "reason",
	                 t->why[0] == '\0' ? json_null() : output_text(t->why));
}

static json_t *
servers_json(const struct look *look)
{
	const struct discovery *d = &look->discovery;
	json_t *servers = json_array();

	for (size_t i = 0; i < d->count; i++) {
		const struct discover_target *t = &d->targets[i];
		const char *why = look->hosts[i].why;
		json_t *addresses = json_array();

		for (size_t n = 0; n < look->tries_n; n++)
			if (look->tries[n].target == i)
				json_array_append_new(addresses, try_json(&look->tries[n]));
		json_array_append_new(servers,
		                      json_pack("{s:o, s:i, s:s, s:o, s:o}", "host",
		                                output_text(t->host), "port", t->port, "way",
		                                modes[t->mode], "reason",
		                                why[0] == '\0' ? json_null() : output_text(why),
		                                "addresses", addresses));
	}
	return servers;
}

static json_t *
card_json(const struct look *look)
{
	const struct look_card *c = &look->card;
	json_t *card, *keys = json_array(), *hosts = json_array();

	for (size_t i = 0; c->card != NULL && i < c->card->keys_n; i++) {
		const struct dmtp_card_key *k = &c->card->keys[i];

		json_array_append_new(keys,
		                      json_pack("{s:o, s:o, s:o}", "id", output_text(k->id),
		                                "from", output_time(k->from * 1000000), "until",
		                                output_time(k->until * 1000000)));
	}
	for (size_t i = 0; c->card != NULL && i < c->card->hosts_n; i++)
		json_array_append_new(hosts, output_text(c->card->hosts[i]));
	card = json_pack("{s:o, s:b, s:o, s:o, s:b, s:o, s:o}", "url",
	                 json_sprintf("https://%s" DMTP_CARD_PATH, look->domain), "found",
	                 (int)(c->card != NULL), "reason",
	                 c->why[0] == '\0' ? json_null() : output_text(c->why), "name",
	                 output_text(c->card == NULL ? NULL : c->card->name), "signed",
	                 (int)(c->card != NULL && c->card->signed_only), "hosts", hosts, "keys",
	                 keys);
	return card;
}

static json_t *
document_of(const struct look *look, const struct verdict *v)
{
	return json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "domain",
	                 output_text(look->domain), "reachable", (int)v->reachable, "verdict",
	                 json_sprintf("%s %s reached: %s.", look->domain,
	                              v->reachable ? "can be" : "cannot be", v->text),
	                 "advice", v->advice[0] == '\0' ? json_null() : output_text(v->advice),
	                 "route", route_json(look), "dns", dns_json(look), "servers",
	                 servers_json(look), "card", card_json(look));
}

/* --- Words ------------------------------------------------------------------------------ */

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text == NULL ? "" : text;
}

/* "    Title        value"; the value may be anything that the other side said. */
static void
line(const char *title, const char *value)
{
	printf("    %-12s ", title);
	output_plain(value);
	(void)fputc('\n', stdout);
}

/* "A, B" of an array's texts. */
static void
line_of_list(const char *title, const json_t *list, const char *empty)
{
	const json_t *item;
	size_t i;

	printf("    %-12s %s", title, json_array_size(list) == 0 ? empty : "");
	json_array_foreach((json_t *)list, i, item)
	{
		(void)fputs(i > 0 ? ", " : "", stdout);
		output_plain(json_string_value(item));
	}
	(void)fputc('\n', stdout);
}

static void
print_records(const char *name, const char *domain, const json_t *service)
{
	const char *answer = text_of(service, "answer");
	const json_t *record;
	size_t i;

	printf("  %s.%s\n", name, domain);
	if (strcmp(answer, "found") != 0)
		printf("    %s\n", strcmp(answer, "refused") == 0
		                       ? "\".\": the domain says that it has no such service"
		                   : strcmp(answer, "none") == 0 ? "no SRV record"
		                                                 : "no usable answer");
	json_array_foreach(json_object_get(service, "records"), i, record)
	{
		printf("    priority %" JSON_INTEGER_FORMAT ", weight %" JSON_INTEGER_FORMAT
		       ", port %" JSON_INTEGER_FORMAT ", ",
		       json_integer_value(json_object_get(record, "priority")),
		       json_integer_value(json_object_get(record, "weight")),
		       json_integer_value(json_object_get(record, "port")));
		output_plain(text_of(record, "target"));
		(void)fputc('\n', stdout);
	}
}

static void
print_way(const json_t *document)
{
	const json_t *dns = json_object_get(document, "dns");
	const json_t *route = json_object_get(document, "route");
	const char *domain = text_of(document, "domain");

	if (json_is_object(route)) {
		printf("Route in the configuration\n");
		line("DMTP", json_is_string(json_object_get(route, "dmtp"))
		                 ? text_of(route, "dmtp")
		                 : "as DNS says");
		line("CA", json_is_string(json_object_get(route, "ca")) ? text_of(route, "ca")
		                                                        : "the system's");
		line("Addresses", json_is_true(json_object_get(route, "allow_private"))
		                      ? "also those that are not public"
		                      : "only public ones");
		(void)fputc('\n', stdout);
	}
	if (!json_is_object(dns))
		return;
	printf("DNS\n");
	print_records("_dmtps._tcp", domain, json_object_get(dns, "_dmtps._tcp"));
	print_records("_dmtp._tcp", domain, json_object_get(dns, "_dmtp._tcp"));
	if (json_is_true(json_object_get(dns, "fallback")))
		printf("  So the addresses of %s itself are tried.\n", domain);
	(void)fputc('\n', stdout);
}

static void
print_certificate(const json_t *c)
{
	char text[SENTENCE];

	if (!json_is_object(c))
		return;
	line("Certificate", text_of(c, "subject"));
	line_of_list("  for", json_object_get(c, "names"), "no name");
	line("  by", text_of(c, "issuer"));
	(void)snprintf(text, sizeof(text), "%s to %s", text_of(c, "from"), text_of(c, "until"));
	line("  valid", text);
	if (json_is_true(json_object_get(c, "valid")))
		(void)snprintf(text, sizeof(text),
		               "good: it names the domain as %s, trusted by %s",
		               text_of(c, "rule"),
		               json_is_string(json_object_get(c, "ca")) ? text_of(c, "ca")
		                                                        : "the system's CAs");
	else
		(void)snprintf(text, sizeof(text), "BAD: %s", text_of(c, "problem"));
	line("  check", text);
}

static json_int_t
number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static void
print_greeting(const json_t *g)
{
	const json_t *l = json_object_get(g, "limits");
	char text[SENTENCE];

	if (!json_is_object(g))
		return;
	line("Greeting", text_of(g, "host"));
	line_of_list("  extensions", json_object_get(g, "extensions"), "none");
	(void)snprintf(text, sizeof(text),
	               "message %lld octets, command %lld octets, %lld recipients, %lld URIs",
	               number(l, "message"), number(l, "command"), number(l, "rcpts"),
	               number(l, "uris"));
	line("  limits", text);
	(void)snprintf(text, sizeof(text),
	               "%lld commands unanswered, %lld NOOPs in a row, idle %lld s",
	               number(l, "pipeline"), number(l, "noops"), number(l, "idle"));
	line("", text);
}

static void
print_address(const json_t *a)
{
	const json_t *ms = json_object_get(a, "connect_ms"), *tls = json_object_get(a, "tls");
	char text[SENTENCE];

	printf("  %s\n", text_of(a, "address"));
	if (json_is_integer(ms)) {
		(void)snprintf(text, sizeof(text), "connected in %lld ms",
		               json_integer_value(ms));
		line("TCP", text);
	}
	if (json_is_object(tls)) {
		(void)snprintf(text, sizeof(text), "%s, %s, ALPN %s", text_of(tls, "version"),
		               text_of(tls, "cipher"),
		               text_of(tls, "alpn")[0] == '\0' ? "none" : text_of(tls, "alpn"));
		line("TLS", text);
	}
	print_certificate(json_object_get(a, "certificate"));
	print_greeting(json_object_get(a, "greeting"));
	if (json_is_true(json_object_get(a, "works")))
		line("Works", "yes");
	else
		line("FAILS", text_of(a, "reason"));
}

static void
print_servers(const json_t *servers)
{
	const json_t *server, *address;
	size_t i, n;

	json_array_foreach((json_t *)servers, i, server)
	{
		printf("Server ");
		output_plain(text_of(server, "host"));
		printf(", port %" JSON_INTEGER_FORMAT ", %s\n", number(server, "port"),
		       text_of(server, "way"));
		if (json_is_string(json_object_get(server, "reason")))
			line("FAILS", text_of(server, "reason"));
		json_array_foreach(json_object_get(server, "addresses"), n, address)
		{
			print_address(address);
		}
		(void)fputc('\n', stdout);
	}
}

static void
print_card(const json_t *card)
{
	const json_t *key;
	char text[SENTENCE];
	size_t i;

	printf("Site card %s\n", text_of(card, "url"));
	if (!json_is_true(json_object_get(card, "found"))) {
		(void)snprintf(text, sizeof(text), "none: %s", text_of(card, "reason"));
		line("Card", text);
		(void)fputc('\n', stdout);
		return;
	}
	line("Name",
	     json_is_string(json_object_get(card, "name")) ? text_of(card, "name") : "-");
	if (json_array_size(json_object_get(card, "hosts")) > 0)
		line_of_list("Hosts", json_object_get(card, "hosts"), "");
	line("Signed", json_is_true(json_object_get(card, "signed"))
	                   ? "everything of this domain is"
	                   : "not everything has to be");
	if (json_array_size(json_object_get(card, "keys")) == 0)
		line("Keys", "none");
	json_array_foreach(json_object_get(card, "keys"), i, key)
	{
		(void)snprintf(text, sizeof(text), "%s, from %s until %s", text_of(key, "id"),
		               text_of(key, "from"), text_of(key, "until"));
		line(i == 0 ? "Keys" : "", text);
	}
	(void)fputc('\n', stdout);
}

static void
print_document(const json_t *document)
{
	print_way(document);
	print_servers(json_object_get(document, "servers"));
	print_card(json_object_get(document, "card"));
	output_plain(text_of(document, "verdict"));
	(void)fputc('\n', stdout);
	if (json_is_string(json_object_get(document, "advice"))) {
		output_plain(text_of(document, "advice"));
		(void)fputc('\n', stdout);
	}
}

/* --- The command -------------------------------------------------------------------------- */

static enum ctl_exit
read_timeout(struct ctl *ctl, int64_t *ms)
{
	const char *text = ctl_value(ctl, "timeout");
	int64_t seconds = TIMEOUT_S;

	if (text != NULL && (!input_is_duration(text, &seconds) || seconds > TIMEOUT_MAX_S))
		return ctl_usage(ctl, "--timeout takes 1s to %ds", TIMEOUT_MAX_S);
	*ms = seconds * 1000;
	return CTL_OK;
}

static enum ctl_exit
show(struct ctl *ctl, const struct look *look)
{
	struct verdict *v = calloc(1, sizeof(*v));
	enum ctl_exit result = CTL_REFUSED;
	json_t *document;

	if (v == NULL)
		return ctl_fail(ctl, CTL_REFUSED, "system", "out of memory");
	judge(look, v);
	document = document_of(look, v);
	if (v->reachable)
		result = CTL_OK;
	free(v);
	if (ctl->json) {
		output_json(document);
	} else {
		print_document(document);
		json_decref(document);
	}
	return result;
}

static enum ctl_exit
dmtp_look(struct ctl *ctl)
{
	char domain[DMTP_DOMAIN_MAX + 1], why[NET_TEXT];
	enum ctl_exit result = input_domain(ctl, ctl->args[0], domain);
	struct look *look;
	int64_t timeout_ms = 0;

	if (result != CTL_OK || (result = read_timeout(ctl, &timeout_ms)) != CTL_OK)
		return result;
	look = calloc(1, sizeof(*look));
	if (look == NULL)
		return ctl_fail(ctl, CTL_REFUSED, "system", "out of memory");
	look->config = ctl->config;
	look->domain = domain;
	look->timeout_ms = timeout_ms;
	if (look_run(look, why))
		result = show(ctl, look);
	else
		result = ctl_fail(ctl, CTL_REFUSED, "system", "%s", why);
	look_clear(look);
	free(look);
	return result;
}

const struct ctl_command dmtp_commands[] = {
	{ .name = "dmtp",
	  .arguments = "DOMAIN",
	  .summary = "Shows what a domain's DMTP servers say, and whether they can be reached.",
	  .more =
	      "It asks DNS, or takes the route in the configuration, as the relay does, and looks "
	      "at every server's addresses: connection, TLS, certificate, greeting; then at the "
	      "domain's site card. It sends nothing but a farewell and writes nothing. The exit "
	      "status is 0 when the domain can be reached, otherwise 1.",
	  .example = "tmtpctl dmtp home.test",
	  .options =
	      (const struct ctl_option[]){ { "timeout", "TIME",
	                                     "at most so long for each step, 1s to 60s (10s)",
	                                     false },
	                                   { NULL, NULL, NULL, false } },
	  .needs = NEEDS_CONFIG,
	  .run = dmtp_look },
	{ .name = NULL },
};
