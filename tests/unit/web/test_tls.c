/* HTTPS: certificates by SNI, their replacement at run time, what is refused, handshakes that wait. */
#include "base/buffer.h"
#include "base/metric.h"
#include "web/http.h"
#include "web/lines.h"
#include "web/reply.h"
#include "web/request.h"
#include "web/server.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

static char dir[] = "/tmp/web-tls-XXXXXX";
static struct web_server *server;
static struct http_answer answer;

static const char *
path(const char *name)
{
	static char paths[8][64];
	static int n;
	char *p = paths[n++ % 8];

	(void)snprintf(p, 64, "%s/%s", dir, name);
	return p;
}

static void
write_file(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(path(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* A self-signed certificate for host and what is below it; its serial tells it from others. */
static void
make_cert(const char *host, unsigned char serial, const char *cert_name, const char *key_name)
{
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
	gnutls_datum_t pem;
	char any[64];

	assert_true(gnutls_x509_privkey_init(&key) >= 0);
	assert_true(gnutls_x509_privkey_generate(
			key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
			0) >= 0);
	assert_true(gnutls_x509_crt_init(&crt) >= 0);
	(void)gnutls_x509_crt_set_version(crt, 3);
	(void)gnutls_x509_crt_set_serial(crt, &serial, 1);
	(void)gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60);
	(void)gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
	(void)gnutls_x509_crt_set_key(crt, key);
	(void)snprintf(any, sizeof(any), "*.%s", host);
	(void)gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, host,
	                                           (unsigned)strlen(host), GNUTLS_FSAN_SET);
	(void)gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, any,
	                                           (unsigned)strlen(any), GNUTLS_FSAN_APPEND);
	assert_true(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0) >= 0);
	assert_true(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem) >= 0);
	write_file(cert_name, pem.data, pem.size);
	gnutls_free(pem.data);
	assert_true(
	    gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, 0, &pem) >= 0);
	write_file(key_name, pem.data, pem.size);
	gnutls_free(pem.data);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
}

/* --- a client -------------------------------------------------------------- */

struct tls_client {
	int fd;
	gnutls_session_t session;
	gnutls_certificate_credentials_t cred;
	int serial; /* of the server's certificate; -1: no handshake */
};

static int
client_serial(struct tls_client *c)
{
	unsigned n;
	const gnutls_datum_t *peers = gnutls_certificate_get_peers(c->session, &n);
	gnutls_x509_crt_t crt;
	unsigned char serial[32];
	size_t len = sizeof(serial);

	assert_non_null(peers);
	assert_true(gnutls_x509_crt_init(&crt) >= 0);
	assert_true(gnutls_x509_crt_import(crt, &peers[0], GNUTLS_X509_FMT_DER) >= 0);
	assert_true(gnutls_x509_crt_get_serial(crt, serial, &len) >= 0);
	gnutls_x509_crt_deinit(crt);
	return serial[len - 1];
}

static void
client_prepare(struct tls_client *c, const char *sni, const char *priorities)
{
	c->fd = http_connect(web_server_port(server));
	assert_true(c->fd >= 0);
	assert_true(gnutls_init(&c->session, GNUTLS_CLIENT) >= 0);
	assert_true(gnutls_certificate_allocate_credentials(&c->cred) >= 0);
	assert_true(gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->cred) >= 0);
	assert_true(gnutls_priority_set_direct(c->session, priorities, NULL) >= 0);
	if (sni != NULL)
		(void)gnutls_server_name_set(c->session, GNUTLS_NAME_DNS, sni, strlen(sni));
	gnutls_transport_set_int(c->session, c->fd);
}

static void
client_open(struct tls_client *c, const char *sni, const char *priorities)
{
	int rc;

	client_prepare(c, sni, priorities);
	do
		rc = gnutls_handshake(c->session);
	while (rc < 0 && !gnutls_error_is_fatal(rc));
	c->serial = rc < 0 ? -1 : client_serial(c);
}

static void
client_close(struct tls_client *c)
{
	gnutls_deinit(c->session);
	gnutls_certificate_free_credentials(c->cred);
	(void)close(c->fd);
}

static int
client_ask(struct tls_client *c)
{
	static const char text[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
	size_t len = 0;
	ssize_t n;

	if (gnutls_record_send(c->session, text, sizeof(text) - 1) < 0)
		return 0;
	do {
		n = gnutls_record_recv(c->session, answer.head + len,
		                       sizeof(answer.head) - 1 - len);
		if (n <= 0 && (n == 0 || gnutls_error_is_fatal((int)n)))
			return 0;
		len += n > 0 ? (size_t)n : 0;
		answer.head[len] = '\0';
	} while (strstr(answer.head, "\r\n\r\nhello") == NULL);
	return atoi(answer.head + 9);
}

static int
serial_for(const char *sni)
{
	struct tls_client c;
	int serial;

	client_open(&c, sni, "NORMAL");
	serial = c.serial;
	client_close(&c);
	return serial;
}

/* --- tests ----------------------------------------------------------------- */

static void
on_hello(struct web_request *req, void *arg)
{
	(void)arg;
	web_reply_bytes(req, 200, "text/plain", SLICE("hello"));
}

static int
setup(void **state)
{
	static const struct web_route routes[] = { { WEB_GET, "/hello", on_hello, 0, 0 } };
	struct web_cert certs[2] = { { path("a.pem"), path("a.key") },
		                     { path("b.pem"), path("b.key") } };
	struct web_options o = { .listen = "127.0.0.1:0",
		                 .threads = 2,
		                 .certs = certs,
		                 .n_certs = 2,
		                 .routes = routes,
		                 .n_routes = 1 };
	char error[WEB_ERROR_TEXT];

	(void)state;
	return web_server_start(&o, &server, error) == WEB_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	web_server_stop(&server, 100);
	return 0;
}

static void
test_sni_chooses_and_the_first_serves_the_rest(void **state)
{
	(void)state;
	assert_int_equal(serial_for("a.example"), 1);
	assert_int_equal(serial_for("b.example"), 2);
	assert_int_equal(serial_for("x.b.example"), 2); /* *.b.example */
	assert_int_equal(serial_for("c.example"), 1);
	assert_int_equal(serial_for(NULL), 1);
}

static void
test_reload_for_new_handshakes_only(void **state)
{
	const struct web_cert fresh[] = { { path("a2.pem"), path("a2.key") } };
	char error[WEB_ERROR_TEXT];
	struct tls_client old, fresh_client;

	(void)state;
	client_open(&old, "a.example", "NORMAL");
	assert_int_equal(old.serial, 1);
	assert_int_equal(client_ask(&old), 200);
	assert_int_equal(web_server_reload_tls(server, fresh, 1, error), WEB_OK);
	client_open(&fresh_client, "a.example", "NORMAL");
	assert_int_equal(fresh_client.serial, 3);
	assert_int_equal(client_ask(&fresh_client), 200);
	assert_int_equal(client_ask(&old), 200); /* goes on */
	assert_non_null(strstr(answer.head, "Strict-Transport-Security:"));
	client_close(&old);
	client_close(&fresh_client);
}

static void
test_a_bad_reload_says_why_and_keeps_the_old(void **state)
{
	const struct web_cert bad[][1] = {
		{ { path("none.pem"), path("a.key") } },
		{ { path("a.pem"), path("none.key") } },
		{ { path("a.pem"), path("b.key") } },
		{ { path("junk.pem"), path("a.key") } },
		{ { path("a.pem"), path("junk.pem") } },
		{ { path("a.key"), path("a.key") } },
	};
	char error[WEB_ERROR_TEXT];

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(web_server_reload_tls(server, bad[i], 1, error), WEB_BAD_CERT);
		assert_non_null(strstr(error, "/tmp/web-tls-"));
		assert_int_equal(serial_for("a.example"), 1);
	}
	assert_int_equal(web_server_reload_tls(server, bad[0], 0, error), WEB_BAD_CERT);
}

static void *
reload_often(void *arg)
{
	const struct web_cert a[] = { { path("a.pem"), path("a.key") } };
	const struct web_cert b[] = { { path("a2.pem"), path("a2.key") } };
	char error[WEB_ERROR_TEXT];

	for (int i = 0; i < 200; i++) {
		if (web_server_reload_tls(server, i % 2 ? a : b, 1, error) != WEB_OK)
			return arg;
	}
	return NULL;
}

static void
test_handshakes_while_certificates_change(void **state)
{
	pthread_t thread;
	void *failed;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, reload_often, server), 0);
	for (int i = 0; i < 50; i++) {
		struct tls_client c;

		client_open(&c, "a.example", "NORMAL");
		assert_true(c.serial == 1 || c.serial == 3);
		assert_int_equal(client_ask(&c), 200);
		client_close(&c);
	}
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
}

static void
test_old_protocols_are_refused(void **state)
{
	struct tls_client c;

	(void)state;
	client_open(&c, "a.example", "NORMAL:-VERS-ALL:+VERS-TLS1.1");
	assert_int_equal(c.serial, -1);
	client_close(&c);
	client_open(&c, "a.example", "NORMAL:-VERS-ALL:+VERS-TLS1.2");
	assert_int_equal(c.serial, 1);
	client_close(&c);
}

static void
test_plain_http_and_silence_on_the_tls_port_do_no_harm(void **state)
{
	struct http_client *silent = http_open(web_server_port(server));
	char line[256];

	(void)state;
	lines_begin();
	assert_int_equal(http_ask(web_server_port(server),
	                          "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", &answer),
	                 0);
	assert_true(lines_next(line, sizeof(line)));
	lines_end();
	assert_non_null(strstr(line, "event=connection-refused reason=tls-handshake "
	                             "client=127.0.0.1"));
	assert_int_equal(serial_for("a.example"), 1);
	http_close(silent);
}

/* Handshakes that the server holds for their clients, as it says in its metrics. */
static int
handshakes_waiting(void)
{
	struct buffer text;
	const char *line;
	int n;

	buffer_init(&text, 1 << 20);
	metric_write_all(&text);
	buffer_add_u8(&text, '\0');
	line = strstr((const char *)text.data, "\ntmtp_http_handshakes ");
	n = line == NULL ? -1 : atoi(strchr(line, ' '));
	buffer_free(&text);
	return n;
}

static bool
become_waiting(int wanted)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	for (int i = 0; i < 5000 && handshakes_waiting() != wanted; i++)
		(void)nanosleep(&pause, NULL);
	return handshakes_waiting() == wanted;
}

static int64_t
processor_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* They would take both of the server's threads all the time. */
static void
test_handshakes_that_say_nothing_cost_nothing(void **state)
{
	static const char half[] =
	    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half of a hello";
	const struct timespec pause = { .tv_nsec = 300000000 };
	int fd[12];
	int64_t before;

	(void)state;
	for (size_t i = 0; i < 12; i++) {
		fd[i] = http_connect(web_server_port(server));
		if (i % 3 > 0)
			assert_true(write(fd[i], half, i % 3 == 1 ? 1 : sizeof(half) - 1) > 0);
	}
	assert_true(become_waiting(12));
	before = processor_ms();
	(void)nanosleep(&pause, NULL);
	assert_true(processor_ms() - before < 100);
	assert_int_equal(serial_for("a.example"), 1);
	for (size_t i = 0; i < 12; i++)
		(void)close(fd[i]);
	assert_true(become_waiting(0));
}

/* What the session sends goes out octet by octet. */
static ssize_t
dribble(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (send((int)(intptr_t)ptr, (const char *)data + i, 1, MSG_NOSIGNAL) != 1)
			return -1;
	}
	return (ssize_t)len;
}

static void
test_a_handshake_that_comes_octet_by_octet_succeeds(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct tls_client c;
		int rc, one = 1;

		client_prepare(&c, "a.example",
		               i == 0 ? "NORMAL" : "NORMAL:-VERS-ALL:+VERS-TLS1.2");
		(void)setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		gnutls_transport_set_push_function(c.session, dribble);
		do
			rc = gnutls_handshake(c.session);
		while (rc < 0 && !gnutls_error_is_fatal(rc));
		assert_int_equal(rc, 0);
		assert_int_equal(client_ask(&c), 200);
		client_close(&c);
	}
	assert_true(become_waiting(0));
}

static void
test_a_handshake_that_takes_too_long_is_cut(void **state)
{
	struct web_cert certs[1] = { { path("a.pem"), path("a.key") } };
	struct web_options o = { .listen = "127.0.0.1:0",
		                 .threads = 1,
		                 .request_s = 1,
		                 .certs = certs,
		                 .n_certs = 1 };
	struct web_server *brief;
	char error[WEB_ERROR_TEXT], octet;
	int fd;

	(void)state;
	assert_int_equal(web_server_start(&o, &brief, error), WEB_OK);
	fd = http_connect(web_server_port(brief));
	assert_true(become_waiting(1));
	assert_int_equal(read(fd, &octet, 1), 0);
	assert_true(become_waiting(0));
	(void)close(fd);
	web_server_stop(&brief, 0);
}

static void
test_a_server_stops_while_handshakes_wait(void **state)
{
	struct web_cert certs[1] = { { path("a.pem"), path("a.key") } };
	struct web_options o = {
		.listen = "127.0.0.1:0", .threads = 2, .certs = certs, .n_certs = 1
	};
	struct web_server *s;
	char error[WEB_ERROR_TEXT], octet;
	int fd[20];

	(void)state;
	assert_int_equal(web_server_start(&o, &s, error), WEB_OK);
	for (size_t i = 0; i < 20; i++)
		fd[i] = http_connect(web_server_port(s));
	assert_true(become_waiting(20));
	web_server_stop(&s, 0);
	assert_int_equal(handshakes_waiting(), 0);
	for (size_t i = 0; i < 20; i++) {
		assert_true(read(fd[i], &octet, 1) <= 0);
		(void)close(fd[i]);
	}
}

static void
test_a_server_without_tls_cannot_reload(void **state)
{
	const struct web_cert a[] = { { path("a.pem"), path("a.key") } };
	struct web_options o = { .listen = "127.0.0.1:0", .threads = 1 };
	struct web_server *plain;
	char error[WEB_ERROR_TEXT];

	(void)state;
	assert_int_equal(web_server_start(&o, &plain, error), WEB_OK);
	assert_int_equal(web_server_reload_tls(plain, a, 1, error), WEB_BAD_CERT);
	web_server_stop(&plain, 0);
}

static int
group_setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	make_cert("a.example", 1, "a.pem", "a.key");
	make_cert("b.example", 2, "b.pem", "b.key");
	make_cert("a.example", 3, "a2.pem", "a2.key");
	write_file("junk.pem", "junk", 4);
	return 0;
}

static int
group_teardown(void **state)
{
	static const char *const names[] = { "a.pem",  "a.key",  "b.pem",   "b.key",
		                             "a2.pem", "a2.key", "junk.pem" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unlink(path(names[i]));
	return rmdir(dir);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_sni_chooses_and_the_first_serves_the_rest),
		T(test_reload_for_new_handshakes_only),
		T(test_a_bad_reload_says_why_and_keeps_the_old),
		T(test_handshakes_while_certificates_change),
		T(test_old_protocols_are_refused),
		T(test_plain_http_and_silence_on_the_tls_port_do_no_harm),
		T(test_handshakes_that_say_nothing_cost_nothing),
		T(test_a_handshake_that_comes_octet_by_octet_succeeds),
		T(test_a_handshake_that_takes_too_long_is_cut),
		T(test_a_server_stops_while_handshakes_wait),
		T(test_a_server_without_tls_cannot_reload),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
