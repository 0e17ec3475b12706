/* base/config.c: what a good file becomes, and a table of bad ones with what is said of them.
 */
#include "base/config.h"
#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cmocka.h>

/* An account that exists everywhere, whoever runs the tests. */
#define ACCOUNT "nobody"

struct fixture {
	char dir[64];
	char file[128];
};

static void
path_in(const struct fixture *f, const char *name, char out[128])
{
	(void)snprintf(out, 128, "%s/%.40s", f->dir, name);
}

static void
write_file(const struct fixture *f, const char *name, const char *text)
{
	char path[128];
	FILE *out;

	path_in(f, name, path);
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, strlen(text), out), strlen(text));
	assert_int_equal(fclose(out), 0);
}

static void
write_pair(const struct fixture *f, const char *name, const char *domain)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509_EXTENSION *san;
	char path[128], text[300];
	FILE *out;

	(void)snprintf(text, sizeof(text), "DNS:%s", domain);
	san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text);
	assert_non_null(san);
	assert_int_equal(X509_set_version(x, 2), 1);
	assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x), 1), 1);
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), 0));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 3600));
	assert_int_equal(X509_set_pubkey(x, key), 1);
	assert_int_equal(X509_add_ext(x, san, -1), 1);
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	(void)snprintf(text, sizeof(text), "%s.pem", name);
	path_in(f, text, path);
	out = fopen(path, "w");
	assert_int_equal(PEM_write_X509(out, x), 1);
	(void)fclose(out);
	(void)snprintf(text, sizeof(text), "%s.key", name);
	path_in(f, text, path);
	out = fopen(path, "w");
	assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
	(void)fclose(out);
	X509_EXTENSION_free(san);
	X509_free(x);
	EVP_PKEY_free(key);
}

static void
write_encrypted_key(const struct fixture *f)
{
	static unsigned char passphrase[] = "secret";
	EVP_PKEY *key = EVP_EC_gen("P-256");
	char path[128];
	FILE *out;

	path_in(f, "encrypted.key", path);
	out = fopen(path, "w");
	assert_int_equal(
	    PEM_write_PrivateKey(out, key, EVP_aes_128_cbc(), passphrase, 6, NULL, NULL), 1);
	(void)fclose(out);
	EVP_PKEY_free(key);
}

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test-config-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(chmod(f->dir, 0755), 0);
	path_in(f, "tmtp.conf", f->file);
	write_pair(f, "shop", "shop.test");
	write_pair(f, "home", "home.test");
	write_encrypted_key(f);
	write_file(f, "empty.pem", "nothing\n");
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static enum config_rc
load(const struct fixture *f, const char *text, struct config **out, struct buffer *error)
{
	write_file(f, "tmtp.conf", text);
	buffer_init(error, 4096);
	return config_load(f->file, out, error);
}

static struct config *
load_good(const struct fixture *f, const char *text)
{
	struct config *c = NULL;
	struct buffer error;
	enum config_rc rc = load(f, text, &c, &error);

	if (rc != CONFIG_OK)
		fail_msg("refused: %.*s", (int)error.len, (const char *)error.data);
	buffer_free(&error);
	return c;
}

#define LONG_PATH                                                                       \
	"a-directory-with-a-long-name/a-directory-with-a-long-name/a-directory-with-a-" \
	"long-name/a-socket-with-a-long-name"
#define USER "user = \"" ACCOUNT "\"\n"
#define TEN "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
#define TITLE_100 TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define SHOP "domain \"shop.test\" { certificate = \"shop.pem\" key = \"shop.key\" }\n"

static void
test_defaults_are_filled_in(void **state)
{
	struct config *c = load_good(*state, USER SHOP);
	const struct fixture *f = *state;
	char path[128];

	for (int i = 0; i < CONFIG_ROLES; i++)
		assert_true(c->roles[i]);
	assert_string_equal(c->path, f->file);
	assert_string_equal(c->state_directory, "/var/lib/tmtp");
	assert_null(c->database);
	assert_null(c->postgres_directory);
	assert_int_equal(c->log_level, LOG_INFO_LEVEL);
	assert_int_equal(c->drain_timeout_s, 30);
	assert_in_range(c->embedded_memory_mb, 64, 1024);
	assert_int_equal(c->store_connections, 2);
	assert_int_equal(c->domains_count, 1);
	path_in(f, "shop.key", path);
	assert_string_equal(c->domains[0].key, path); /* relative names begin at the file */
	assert_string_equal(c->site.http.url, "https://shop.test");
	assert_true(c->site.threads >= 1 && c->home.threads >= 1);
	assert_int_equal(c->site.body_max_bytes, 36700160);
	assert_int_equal(c->home.dmtps_listen.count, 1);
	assert_string_equal(c->home.dmtps_listen.items[0].text, "[::]:3688");
	assert_int_equal(c->home.limits.command_octets, 262144);
	assert_int_equal(c->home.limits.rcpts, 1000);
	assert_true(c->home.invitations);
	assert_null(c->site.metrics_listen.text);
	assert_int_equal(c->relay.nameservers.count, 0);
	assert_int_equal(c->relay.expire_after_s, 432000);
	assert_true(c->relay.auth);
	assert_int_equal(c->routes_count, 0);
	config_free(&c);
	assert_null(c);
}

static void
test_every_option_reaches_its_field(void **state)
{
	struct config *c = load_good(
	    *state,
	    "# a comment\n"
	    "roles = {\"site\", \"relay\"}\n"
	    "state_directory = \"/srv/tmtp/\"\n"
	    "database = \"host=/run/postgresql dbname=tmtp passfile=/etc/tmtp/pgpass\"\n" USER
	    "log_level = \"debug\"\ndrain_timeout_s = 5\npostgres_directory = \"/opt/pg/bin\"\n"
	    "embedded_memory_mb = 300\nstore_connections = 3\n" SHOP
	    "domain \"home.test\" { certificate = \"home.pem\" key = \"home.key\" title = \"" TITLE_100
	    "\"\n"
	    " icon = \"https://home.test/icon.png\" signed = true }\n"
	    "site { listen = {\"127.0.0.1:1234\", \"[::1]:1235\"} url = "
	    "\"https://push.shop.test:8443/\" tls = true\n"
	    " threads = 3 body_max_bytes = 5000 message_max_bytes = 4000 metrics_listen = "
	    "\"127.0.0.1:9100\"\n"
	    " message_hosts = {\"https://cdn.test/x/\", \"https://[::1]:9\"} "
	    "max_pushes_per_second = 7 }\n"
	    "relay { sessions_per_domain = 9 expire_after_s = 60 retry_min_s = 1 retry_max_s = "
	    "2\n"
	    " connect_timeout_s = 3 nameservers = {\"127.0.0.1\", \"[::1]:5353\"} auth = false }\n"
	    "home { dmtp_listen = {} dmtps_listen = {\"127.0.0.1:3688\"} invitations = false "
	    "lmtp_listen = {\"unix:/run/tmtp/lmtp\", \"[::1]:24\"} lmtp_octets = 65536 "
	    "idle_s = 11 }\n"
	    "route \"home.test\" { dmtp = \"127.0.0.1:13688\" pickup = "
	    "\"mail.home.test:18443\" ca = \"home.pem\"\n"
	    " allow_private = true command_octets = 70000 message_octets = 2000 pipeline = 9\n"
	    " rcpts = 2000 uris = 5 }\n"
	    "route \"b.test\" { starttls = \"[::1]:1\" }\n"
	    "route \"c.test\" { dmtp = \"c.test:1\" plaintext = true }\n");
	const struct config_route *r;

	assert_true(c->roles[ROLE_SITE] && c->roles[ROLE_RELAY]);
	assert_false(c->roles[ROLE_HOME] || c->roles[ROLE_PANEL]);
	assert_string_equal(c->state_directory, "/srv/tmtp");
	assert_string_equal(c->database,
	                    "host=/run/postgresql dbname=tmtp passfile=/etc/tmtp/pgpass");
	assert_string_equal(c->postgres_directory, "/opt/pg/bin");
	assert_int_equal(c->log_level, LOG_DEBUG_LEVEL);
	assert_int_equal(c->embedded_memory_mb, 300);
	assert_int_equal(c->store_connections, 3);
	assert_string_equal(c->site.http.url, "https://push.shop.test:8443");
	assert_true(c->site.http.tls);
	assert_int_equal(c->site.http.listen.count, 2);
	assert_int_equal(c->site.http.listen.items[1].addr.ss_family, AF_INET6);
	assert_int_equal(((struct sockaddr_in *)&c->site.http.listen.items[0].addr)->sin_port,
	                 htons(1234));
	assert_int_equal(c->site.threads, 3);
	assert_int_equal(c->site.message_max_bytes, 4000);
	assert_string_equal(c->site.message_hosts.items[0], "https://cdn.test/x");
	assert_string_equal(c->site.metrics_listen.text, "127.0.0.1:9100");
	assert_int_equal(c->site.max_pushes_per_second, 7);
	assert_int_equal(c->relay.sessions_per_domain, 9);
	assert_int_equal(((struct sockaddr_in *)&c->relay.nameservers.items[0].addr)->sin_port,
	                 htons(53));
	assert_int_equal(
	    ((struct sockaddr_in6 *)&c->relay.nameservers.items[1].addr)->sin6_port,
	    htons(5353));
	assert_int_equal(c->home.dmtp_listen.count, 0);
	assert_int_equal(c->home.lmtp.listen.count, 2);
	assert_int_equal(c->home.lmtp.listen.items[0].addr.ss_family, AF_UNIX);
	assert_string_equal(c->home.lmtp.listen.items[0].text, "unix:/run/tmtp/lmtp");
	assert_int_equal(c->home.lmtp.octets, 65536);
	assert_string_equal(c->home.dmtps_listen.items[0].text, "127.0.0.1:3688");
	assert_false(c->home.invitations);
	assert_int_equal(c->home.limits.idle_s, 11);
	assert_non_null(config_domain_find(c, SLICE("home.test")));
	assert_null(config_domain_find(c, SLICE("x.test")));
	r = config_route_find(c, SLICE("home.test"));
	assert_non_null(r);
	assert_int_equal(r->dmtp, ROUTE_DMTP_TLS);
	assert_string_equal(r->dmtp_target.host, "127.0.0.1");
	assert_int_equal(r->dmtp_target.port, 13688);
	assert_string_equal(r->pickup.host, "mail.home.test");
	assert_true(r->allow_private);
	assert_int_equal(r->limits.command_octets, 70000);
	assert_int_equal(r->limits.message_octets, 2000);
	assert_int_equal(r->limits.pipeline, 9);
	assert_int_equal(r->limits.rcpts, 2000);
	assert_int_equal(r->limits.uris, 5);
	assert_false(c->relay.auth);
	assert_null(c->domains[0].title);
	assert_false(c->domains[0].signed_only);
	assert_string_equal(c->domains[1].title, TITLE_100);
	assert_string_equal(c->domains[1].icon, "https://home.test/icon.png");
	assert_true(c->domains[1].signed_only);
	r = config_route_find(c, SLICE("b.test"));
	assert_int_equal(r->dmtp, ROUTE_DMTP_STARTTLS);
	assert_string_equal(r->dmtp_target.host, "::1");
	assert_int_equal(config_route_find(c, SLICE("c.test"))->dmtp, ROUTE_DMTP_PLAINTEXT);
	config_free(&c);
}

/* Each is refused, at this line (0: no line), with these words. */
static const struct {
	const char *text;
	int line;
	const char *words;
} bad[] = {
	{ "", 0, "is empty" },
	{ USER, 0, "no domain" },
	{ USER "roles = {\"panel\"}\n", 0, "panel.url: name it" },
	{ "nonsense = 1\n", 1, "no such option 'nonsense' here" },
	{ USER "site { nonsense = 1 }\n", 2, "no such option 'nonsense' here" },
	{ "log_level = \"info\"\nnowhere { }\n", 2, "no such option" },
	{ "roles = {\"site\"\n", 1, "the file ends here" },
	{ "site {\n", 1, "the file ends here" },
	{ "}", 1, "" },
	{ USER SHOP "site {\nurl = \"https://a.test\"\n", 4,
	  "the file ends here, with something still open" },
	{ USER SHOP "site { url = \"https://a.test\n", 3, "the file ends here" },
	{ USER SHOP "/* a comment", 3, "a comment begins here, and nothing ends it" },
	{ USER SHOP "roles = {\"site\",", 3, "the file ends here" },
	{ SHOP "user =", 2, "the file ends here" },
	{ "roles = {\"site\", \"post\"}\n", 1, "roles: \"post\" is not a role" },
	{ "roles = {\"site\", \"site\"}\n", 1, "\"site\" stands twice" },
	{ "roles = {}\n", 0, "name at least one" },
	{ "log_level = \"loud\"\n", 1, "\"loud\" is not a level" },
	{ "\ndrain_timeout_s = 5\ndrain_timeout_s = 6\n", 3, "drain_timeout_s stands twice" },
	{ USER "site { threads = 1 }\nsite { tls = false }\n", 3, "site stands twice" },
	{ "roles = {\"site\"}\nroles = {\"relay\"}\n", 2, "roles stands twice" },
	{ "roles = {\"site\", \"home\"}\nroles = {\"relay\"}\n", 2, "roles stands twice" },
	{ "roles = {\"site\", \"home\"}\nroles = {}\n", 1, "roles stands twice" },
	{ "roles = {\"site\"}\nroles = {}\n", 1, "roles stands twice" },
	{ "drain_timeout_s = -1\n", 1, "\"-1\" is not a whole number" },
	{ "drain_timeout_s = 010\n", 1, "\"010\" is not a whole number" },
	{ "drain_timeout_s = 0x10\n", 1, "\"0x10\" is not a whole number" },
	{ "drain_timeout_s = 3601\n", 1, "from 0 to 3600" },
	{ "drain_timeout_s = 30s\n", 1, "\"30s\" is not a whole number" },
	{ "store_connections = 0\n", 1, "from 1 to 8" },
	{ "store_connections = \"\"\n", 1, "\"\" is not a whole number" },
	{ "user = \"root\"\n", 1, "root is refused" },
	{ "user = \"no body\"\n", 1, "is not the name of an account" },
	{ "user = \"/x\"\n", 1, "is not the name of an account" },
	{ "database = \"tmtp\"\n", 1, "is neither \"embedded\"" },
	{ "database = \"host=db.test password=hunter2\"\n", 1, "holds a password" },
	{ "database = \"host=db.test password = hunter2\"\n", 1, "holds a password" },
	{ "database = \"host=db.test sslpassword=hunter2\"\n", 1, "holds a password" },
	{ "database = \"postgresql://u:hunter2@db.test/tmtp\"\n", 1, "holds a password" },
	{ "database = \"postgres://db.test/tmtp?user=u&password=hunter2\"\n", 1,
	  "holds a password" },
	{ USER "state_directory = \"\"\n" SHOP, 2, "state_directory is empty" },
	{ USER "state_directory = \"state\"\n" SHOP, 2, "must be an absolute path" },
	{ "domain { }\n", 1, "" },
	{ USER SHOP "domain \"shop.test\" { }\n", 3, "'shop.test' has a section already" },
	{ USER "domain \"Shop.test\" { }\n", 2, "\"Shop.test\" is not a domain" },
	{ USER "domain \"shop..test\" { }\n", 2, "is not a domain" },
	{ USER "domain \"shop.test.\" { }\n", 2, "is not a domain" },
	{ USER "domain \"-shop.test\" { }\n", 2, "is not a domain" },
	{ USER "domain \"shop-.test\" { }\n", 2, "is not a domain" },
	{ USER "domain \"sh\xc3\xb6p.test\" { }\n", 2, "is not a domain" },
	{ USER SHOP SHOP, 3, "" },
	{ USER "domain \"shop.test\" { key = \"shop.key\" }\n", 2,
	  "certificate without a key, or the reverse" },
	{ USER "domain \"shop.test\" { certificate = \"none.pem\"\nkey = \"shop.key\" }\n", 2,
	  "cannot be read: No such file" },
	{ USER "domain \"shop.test\" { certificate = \"empty.pem\" key = \"shop.key\" }\n", 2,
	  "holds no certificate" },
	{ USER "domain \"shop.test\" { certificate = \"shop.pem\" key = \"shop.pem\" }\n", 2,
	  "holds no private key" },
	{ USER "domain \"shop.test\" { certificate = \"shop.pem\" key = \"encrypted.key\" }\n",
	  2, "is encrypted" },
	{ USER "domain \"shop.test\" { certificate = \"shop.pem\" key = \"home.key\" }\n", 2,
	  "does not belong to" },
	{ USER "domain \"home.test\" { certificate = \"shop.pem\" key = \"shop.key\" }\n", 2,
	  "does not name home.test" },
	{ USER SHOP "site { listen = {\"127.0.0.1\"} }\n", 3,
	  "listen: \"127.0.0.1\" has no port" },
	{ USER SHOP "site { listen = {\"localhost:80\"} }\n", 3, "is not an address" },
	{ USER SHOP "site { listen = {\"::1:80\"} }\n", 3, "is not an address" },
	{ USER SHOP "site { listen = {\"[127.0.0.1]:80\"} }\n", 3, "is not an address" },
	{ USER SHOP "site { listen = {\"[::1:80\"} }\n", 3, "is not an address" },
	{ USER SHOP "site { listen = {\"127.0.0.1:0\"} }\n", 3, "has no port" },
	{ USER SHOP "site { listen = {\"127.0.0.1:65536\"} }\n", 3, "has no port" },
	{ USER SHOP "site { listen = {\"127.0.0.1:\"} }\n", 3, "is not an address" },
	{ USER SHOP "site { listen = {\"127.0.0.1:80x\"} }\n", 3, "has no port" },
	{ USER SHOP "site { listen = {} }\n", 3, "site.listen is empty" },
	{ USER SHOP "site { listen = {\"127.0.0.1:8081\"} }\n", 3,
	  "site.listen and home.listen both want 127.0.0.1:8081" },
	{ USER SHOP "panel { listen = {\"0.0.0.0:8081\"} }\n", 3,
	  "home.listen and panel.listen both want" },
	{ USER SHOP "home { dmtp_listen = {\"[::1]:3688\"} }\n", 3,
	  "home.dmtp_listen and home.dmtps_listen both want" },
	{ USER SHOP "relay { metrics_listen = \"127.0.0.1:8080\" }\n", 3,
	  "site.listen and relay.metrics_listen" },
	{ USER SHOP "home { lmtp_listen = {\"unix:tmtp/lmtp\"} }\n", 3,
	  "lmtp_listen: \"unix:tmtp/lmtp\" has no absolute path" },
	{ USER SHOP "home { lmtp_listen = {\"unix:/\"} }\n", 3, "has no absolute path" },
	{ USER SHOP "home { lmtp_listen = {\"unix:/" LONG_PATH "\"} }\n", 3,
	  "is longer than the path of a socket may be" },
	{ USER SHOP "home { lmtp_listen = {\"unix:/l\", \"unix:/l\"} }\n", 3,
	  "home.lmtp_listen and home.lmtp_listen both want unix:/l" },
	{ USER SHOP "home { lmtp_listen = {\"127.0.0.1:8081\"} }\n", 3,
	  "home.listen and home.lmtp_listen both want 127.0.0.1:8081" },
	{ USER SHOP "home { lmtp_listen = {\"192.0.2.1:24\"} }\n", 3,
	  "other machines may reach 192.0.2.1:24" },
	{ USER SHOP "home { lmtp_listen = {\"127.0.0.1:24\", \"[::]:24\"} }\n", 3,
	  "other machines may reach [::]:24" },
	{ USER SHOP "home { lmtp_rcpts = 0 }\n", 3, "is not a whole number from 1 to 1000" },
	{ USER SHOP "site { tls = yes }\n", 3, "tls: \"yes\" is neither true nor false" },
	{ USER SHOP "site { url = \"http://127.0.0.1:8080\" }\n", 3,
	  "site.url must begin with https://" },
	{ USER SHOP "home { url = \"http://home.test\" }\n", 3, "must begin with https://" },
	{ USER SHOP "home { url = \"home.test\" }\n", 3, "does not begin with https://" },
	{ USER SHOP "home { url = \"https://\" }\n", 3, "has no host name" },
	{ USER SHOP "home { url = \"https://Home.test\" }\n", 3,
	  "has no host name in lower case" },
	{ USER SHOP "home { url = \"https://u@home.test\" }\n", 3, "has no host name" },
	{ USER SHOP "home { url = \"https://home.test:0\" }\n", 3,
	  "has no host name in lower case, or a wrong port" },
	{ USER SHOP "home { url = \"https://home.test/x\" }\n", 3, "no path" },
	{ USER SHOP "home { url = \"https://[::1\" }\n", 3, "has no host name" },
	{ USER SHOP "site { message_hosts = {\"https://cdn.test/?a\"} }\n", 3, "has a query" },
	{ USER SHOP "site { message_hosts = {\"http://127.0.0.1/\"} }\n", 3,
	  "must begin with https://" },
	{ USER SHOP "site { message_hosts = {\"https://a.test\", \"https://b.test\", "
	            "\"https://c.test\", \"https://d.test\"} }\n",
	  3, "has more than 3 URLs" },
	{ USER SHOP "home { command_octets = 65535 }\n", 3, "from 65536" },
	{ USER SHOP "home { rcpts = 99 }\n", 3, "from 100" },
	{ USER SHOP "relay {\n\nretry_min_s = 10\nretry_max_s = 9 }\n", 5,
	  "retry_min_s is longer than" },
	{ USER SHOP "relay { nameservers = {\"ns.test\"} }\n", 3, "is not an address" },
	{ USER "domain \"shop.test\" { }\n", 0, "need a domain with certificate and key" },
	{ USER "roles = {\"site\"}\ndomain \"shop.test\" { }\nsite { tls = true }\n", 4,
	  "site.tls needs a domain" },
	{ "# c\n# c\n# c\nbogus = 1\n", 4, "no such option 'bogus' here" },
	{ "#\n##\n### c\n\nbogus = 1\n", 5, "no such option 'bogus' here" },
	{ "// c\n//c\n\t//c\n/ /\nbogus = 1\n", 4, "no such option '/'" },
	{ "/* c */\n/* c\n * c\n */ /* c */ /**/ # c */\nbogus = 1\n", 5, "no such option" },
	{ USER "/* c */ # c\n" SHOP "site { # c\n# c\n/* c\n */ url = \"x\" # c\n} # c\n", 7,
	  "does not begin with https://" },
	{ USER SHOP "site {\n#c\n#c\n\t# c\n\tbogus = 1\n}\n", 7, "no such option 'bogus'" },
	{ USER SHOP "database = \"host=a # b // c /* d\" // c\n# c\nbogus = 1\n", 5,
	  "no such option 'bogus'" },
	{ USER SHOP "database = \"\\\" # c /*\" # \"\nbogus = 1\n", 4,
	  "no such option 'bogus'" },
	{ USER SHOP "database = 'it\\'s # /*' # '\nbogus = 1\n", 4, "no such option 'bogus'" },
	{ USER SHOP "database = \"${NONE:-\"#} /* \" # c\nbogus = 1\n", 4, "no such option" },
	{ USER SHOP "site { url=https://a.test#c\n#c\n}bogus=1\n", 5,
	  "no such option 'bogus'" },
	{ "# c\n\n /* c\n# */ /* c\n\nbogus = 1\n", 4, "a comment begins here" },
	{ USER SHOP "# c\n# c\nsite {\n", 5, "the file ends here" },
	{ "# c\r\n# c\r\nbogus = 1\r\n", 3, "no such option 'bogus'" },
	{ USER SHOP "route \"home.test\" { }\n", 3, "says nothing" },
	{ USER SHOP "route \"Home.test\" { allow_private = true }\n", 3, "is not a domain" },
	{ USER SHOP "route \"home.test\" { dmtp = \"a.test:1\" starttls = \"a.test:2\" }\n", 3,
	  "not both" },
	{ USER SHOP "route \"home.test\" { plaintext = true }\n", 3,
	  "plaintext needs a target" },
	{ USER SHOP "route \"home.test\" { starttls = \"a.test:1\" plaintext = true }\n", 3,
	  "plaintext needs a target" },
	{ USER SHOP "route \"home.test\" { dmtp = \"a.test\" }\n", 3, "is not a target" },
	{ USER SHOP "route \"home.test\" { dmtp = \"A.test:1\" }\n", 3, "is not a host name" },
	{ USER SHOP "route \"home.test\" { pickup = \"[x]:1\" }\n", 3, "is not a target" },
	{ USER SHOP "route \"home.test\" { ca = \"none.pem\" }\n", 3, "cannot be read" },
	{ USER SHOP "route \"home.test\" { ca = \"empty.pem\" }\n", 3, "holds no certificate" },
	{ USER SHOP "route \"home.test\" { rcpts = 99 }\n", 3,
	  "rcpts: \"99\" is neither 0 nor at least 100" },
	{ USER SHOP "route \"home.test\" {\n\ncommand_octets = 65535 }\n", 5,
	  "command_octets: \"65535\" is neither 0 nor at least 65536" },
	{ USER SHOP "route \"home.test\" { pipeline = 7 }\n", 3, "nor at least 8" },
	{ USER SHOP "route \"home.test\" { uris = 3 }\n", 3, "nor at least 4" },
	{ USER SHOP "route \"home.test\" { uris = 65 }\n", 3, "from 0 to 64" },
	{ USER SHOP "relay { auth = maybe }\n", 3, "neither true nor false" },
	{ USER "domain \"shop.test\" { title = \"a\x01b\" }\n", 2, "is not one line" },
	{ USER "domain \"shop.test\" { title = \"\xc3\" }\n", 2, "is not one line" },
	{ USER "domain \"shop.test\" { title = \"" TITLE_100 "e\" }\n", 2,
	  "is not one line of at most 100 characters" },
	{ USER "domain \"shop.test\" { icon = \"http://shop.test/i.png\" }\n", 2,
	  "must begin with https://" },
	{ USER "domain \"shop.test\" { icon = \"icon.png\" }\n", 2,
	  "does not begin with https://" },
	{ USER "domain \"shop.test\" { signed = 1 }\n", 2, "neither true nor false" },
};

static void
test_bad_files_are_refused_with_line_and_reason(void **state)
{
	const struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct config *c = NULL;
		struct buffer error;
		char start[160];

		assert_int_equal(load(f, bad[i].text, &c, &error), CONFIG_INVALID);
		assert_null(c);
		buffer_add_u8(&error, '\0');
		assert_false(error.failed);
		if (bad[i].line > 0)
			(void)snprintf(start, sizeof(start), "%s:%d: ", f->file, bad[i].line);
		else
			(void)snprintf(start, sizeof(start), "%s", f->file);
		if (strncmp((char *)error.data, start, strlen(start)) != 0 ||
		    strstr((char *)error.data, bad[i].words) == NULL ||
		    strchr((char *)error.data, '\n') != NULL)
			fail_msg("case %zu, \"%s\": expected \"%s...%s\", got \"%s\"", i,
			         bad[i].text, start, bad[i].words, (char *)error.data);
		buffer_free(&error);
	}
}

/* The sample as it is shipped, from the repository's top folder; its last section, which stands in
 * comments, taken into use. */
static char *
read_sample(void)
{
	FILE *in = fopen("deploy/tmtp.conf.sample", "r");
	char *text = calloc(1, 1 << 20);

	assert_non_null(in);
	assert_non_null(text);
	assert_true(fread(text, 1, (1 << 20) - 1, in) > 1000);
	(void)fclose(in);
	for (char *at = strstr(text, "\n#route "); at != NULL; at = strstr(at + 1, "\n#"))
		at[1] = ' ';
	return text;
}

/* "\t#name = value" or "name = value": where the name begins, or NULL. */
static char *
option_in(char *line)
{
	char *name = line + strspn(line, "\t ");
	size_t len;

	name += *name == '#';
	len = strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789");
	return len > 0 && strncmp(name + len, " = ", 3) == 0 ? name : NULL;
}

/* Each option of the sample, taken into use and mistyped: the error names its line. */
static void
test_a_mistyped_option_of_the_sample_has_its_line(void **state)
{
	const struct fixture *f = *state;
	char *sample = read_sample();
	unsigned line = 0, options = 0;

	for (char *at = sample; *at != '\0'; at = strchr(at, '\n') + 1) {
		char *end = strchr(at, '\n'), *name, *text, start[160], first;
		struct config *c = NULL;
		struct buffer error;

		line++;
		*end = '\0';
		name = option_in(at);
		*end = '\n';
		if (name == NULL)
			continue;
		options++;
		first = *name;
		text = strdup(sample);
		assert_non_null(text);
		text[name - sample] = 'X';
		if (name > at && name[-1] == '#')
			text[name - 1 - sample] = ' ';
		assert_int_equal(load(f, text, &c, &error), CONFIG_INVALID);
		buffer_add_u8(&error, '\0');
		(void)snprintf(start, sizeof(start), "%s:%u: no such option 'X", f->file, line);
		if (strncmp((char *)error.data, start, strlen(start)) != 0)
			fail_msg("line %u, %c...: got \"%s\"", line, first, (char *)error.data);
		buffer_free(&error);
		free(text);
	}
	free(sample);
	assert_in_range(options, 40, 200);
}

static void
test_a_missing_file_is_unreadable(void **state)
{
	struct config *c = NULL;
	struct buffer error;

	(void)state;
	buffer_init(&error, 4096);
	assert_int_equal(config_load("/nonexistent/tmtp.conf", &c, &error), CONFIG_UNREADABLE);
	assert_non_null(memmem(error.data, error.len, "No such file", 12));
	buffer_clear(&error);
	assert_int_equal(config_load("/", &c, &error), CONFIG_UNREADABLE);
	buffer_free(&error);
}

/* A file of any octets is refused or accepted, never more than that: each prefix of a good one.
 */
static void
test_every_prefix_is_handled(void **state)
{
	static const char text[] = USER SHOP "site { listen = {\"127.0.0.1:1\"} }\n"
					     "route \"home.test\" { dmtp = '127.0.0.1:1' }\n";

	for (size_t n = 0; n < sizeof(text); n++) {
		struct config *c = NULL;
		struct buffer error;
		char part[sizeof(text)];

		memcpy(part, text, n);
		part[n] = '\0';
		if (load(*state, part, &c, &error) == CONFIG_OK)
			config_free(&c);
		else
			assert_true(error.len > 0 && c == NULL);
		buffer_free(&error);
	}
}

static void
test_reload_reads_the_descriptor_again(void **state)
{
	const struct fixture *f = *state;
	struct config *c = NULL, *next = NULL;
	struct buffer error;
	int fd;

	write_file(f, "tmtp.conf", USER SHOP "drain_timeout_s = 1\n");
	fd = open(f->file, O_RDWR | O_CLOEXEC);
	buffer_init(&error, 4096);
	assert_int_equal(config_load_fd(fd, f->file, &c, &error), CONFIG_OK);
	assert_int_equal(config_reload(c, &next, &error), CONFIG_OK);
	assert_int_equal(next->drain_timeout_s, 1);
	config_free(&next);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	assert_int_equal(config_reload(c, &next, &error), CONFIG_INVALID);
	assert_null(next);
	buffer_free(&error);
	config_free(&c);
	(void)close(fd);
}

static void
test_options_that_need_a_restart_are_named(void **state)
{
	struct config *a = load_good(*state, USER SHOP);
	struct config *b =
	    load_good(*state, USER SHOP "log_level = \"warn\"\ndrain_timeout_s = 1\n"
	                                "domain \"home.test\" { }\n");
	struct config *c = load_good(
	    *state, USER "store_connections = 3\n" SHOP
			 "site { threads = 4 }\nhome { listen = {\"127.0.0.1:81\"} }\n"
			 "route \"x.test\" { allow_private = true }\n");
	struct buffer names;

	buffer_init(&names, 4096);
	config_restart_options(a, b, &names);
	assert_int_equal(names.len, 0);
	config_restart_options(a, c, &names);
	buffer_add_u8(&names, '\0');
	assert_string_equal((char *)names.data,
	                    "store_connections, site.threads, home.listen, route.dmtp, "
	                    "route.starttls, route.plaintext, route.pickup, route.ca, "
	                    "route.allow_private, route.command_octets, "
	                    "route.message_octets, route.pipeline, route.rcpts, route.uris");
	buffer_free(&names);
	config_free(&a);
	config_free(&b);
	config_free(&c);
}

/* Only root can become somebody else, and only root can see that the key is closed to them. */
static void
test_a_key_that_the_user_cannot_read_is_refused(void **state)
{
	const struct fixture *f = *state;
	struct config *c = NULL;
	struct buffer error;
	char path[128];

	if (geteuid() != 0)
		skip();
	path_in(f, "shop.key", path);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(load(f, USER SHOP, &c, &error), CONFIG_INVALID);
	assert_non_null(memmem(error.data, error.len, "Permission denied", 17));
	assert_int_equal(chmod(path, 0644), 0);
	buffer_free(&error);
	assert_int_equal(load(f, "user = \"nosuchaccount\"\n" SHOP, &c, &error),
	                 CONFIG_INVALID);
	assert_non_null(memmem(error.data, error.len, "there is no account nosuchaccount", 33));
	buffer_free(&error);
}

static int
become_and_look(void)
{
	struct process_user user;
	struct buffer error;

	buffer_init(&error, 256);
	if (process_user_find(ACCOUNT, &user) != PROCESS_OK)
		return 10;
	if (process_become(&user, true, &error) != PROCESS_OK)
		return 11;
	if (getuid() != user.uid || getgid() != user.gid || setuid(0) == 0)
		return 12;
	if (open("/etc/shadow", O_RDONLY) >= 0)
		return 13;
	return 0;
}

static void
test_becoming_another_user_is_for_good(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0)
		_exit(become_and_look());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_signals_are_read_and_readiness_is_told_once(void **state)
{
	int fds[2], sig = process_signals();
	char text[16], octets[4];

	(void)state;
	assert_true(sig >= 0);
	assert_int_equal(process_next_signal(sig), 0);
	assert_int_equal(kill(getpid(), SIGHUP), 0);
	assert_int_equal(process_next_signal(sig), SIGHUP);
	assert_int_equal(kill(getpid(), SIGINT), 0);
	assert_int_equal(process_next_signal(sig), SIGTERM);
	assert_int_equal(process_next_signal(sig), 0);
	(void)close(sig);
	assert_int_equal(pipe(fds), 0);
	(void)snprintf(text, sizeof(text), "%d", fds[1]);
	assert_int_equal(setenv(PROCESS_READY_ENV, text, 1), 0);
	process_ready();
	process_ready();
	assert_int_equal(read(fds[0], octets, sizeof(octets)), 1);
	assert_int_equal(read(fds[0], octets, sizeof(octets)), 0); /* closed */
	(void)close(fds[0]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_filled_in),
		cmocka_unit_test(test_every_option_reaches_its_field),
		cmocka_unit_test(test_bad_files_are_refused_with_line_and_reason),
		cmocka_unit_test(test_a_mistyped_option_of_the_sample_has_its_line),
		cmocka_unit_test(test_a_missing_file_is_unreadable),
		cmocka_unit_test(test_every_prefix_is_handled),
		cmocka_unit_test(test_reload_reads_the_descriptor_again),
		cmocka_unit_test(test_options_that_need_a_restart_are_named),
		cmocka_unit_test(test_a_key_that_the_user_cannot_read_is_refused),
		cmocka_unit_test(test_becoming_another_user_is_for_good),
		cmocka_unit_test(test_signals_are_read_and_readiness_is_told_once),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
