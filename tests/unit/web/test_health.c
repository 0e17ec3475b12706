/* The operational listener. */
#include "base/metric.h"
#include "web/health.h"
#include "web/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

static struct http_answer answer;
static _Atomic bool ready;

static bool
on_ready(void *arg, char *reason, size_t size)
{
	(void)arg;
	if (!atomic_load(&ready))
		(void)snprintf(reason, size, "the database doesn't answer");
	return atomic_load(&ready);
}

static int
ask(struct web_health *h, const char *path)
{
	char text[100];

	(void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
	return http_ask(web_health_port(h), text, &answer);
}

static void
test_live_ready_and_draining(void **state)
{
	struct web_health_options o = { .listen = "127.0.0.1:0", .ready = on_ready };
	char error[WEB_ERROR_TEXT];
	struct web_health *h;

	(void)state;
	assert_int_equal(web_health_start(&o, &h, error), WEB_OK);
	assert_int_equal(ask(h, "/livez"), 200);
	assert_int_equal(ask(h, "/readyz"), 503);
	assert_string_equal(answer.body, "the database doesn't answer\n");
	atomic_store(&ready, true);
	assert_int_equal(ask(h, "/readyz"), 200);
	web_health_drain(h);
	assert_int_equal(ask(h, "/readyz"), 503);
	assert_string_equal(answer.body, "draining\n");
	assert_int_equal(ask(h, "/livez"), 200);
	assert_int_equal(ask(h, "/"), 404);
	web_health_stop(&h);
	assert_null(h);
	web_health_stop(&h);
}

static void
test_metrics_count_requests_by_class(void **state)
{
	struct web_health_options o = { .listen = "127.0.0.1:0" };
	char error[WEB_ERROR_TEXT];
	struct web_health *h;

	(void)state;
	assert_int_equal(web_health_start(&o, &h, error), WEB_OK);
	assert_int_equal(ask(h, "/readyz"), 200); /* nobody to ask: ready */
	assert_int_equal(ask(h, "/metrics"), 200);
	assert_non_null(strstr(http_header(&answer, "Content-Type"), "version=0.0.4"));
	assert_non_null(strstr(answer.body, "# TYPE tmtp_http_requests_total counter\n"));
	assert_non_null(strstr(answer.body, "tmtp_http_requests_total{class=\"4xx\"} 1\n"));
	assert_non_null(strstr(answer.body, "tmtp_http_streams 0\n"));
	assert_non_null(strstr(answer.body, "tmtp_http_connections "));
	assert_non_null(strstr(answer.body, "process_resident_memory_bytes "));
	web_health_stop(&h);
}

static void
test_a_taken_address_is_told(void **state)
{
	struct web_health_options o = { .listen = "127.0.0.1:0" };
	char error[WEB_ERROR_TEXT], taken[32];
	struct web_health *h, *other;

	(void)state;
	assert_int_equal(web_health_start(&o, &h, error), WEB_OK);
	(void)snprintf(taken, sizeof(taken), "127.0.0.1:%u", web_health_port(h));
	o.listen = taken;
	assert_int_equal(web_health_start(&o, &other, error), WEB_LISTEN);
	assert_null(other);
	web_health_stop(&h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_live_ready_and_draining),
		cmocka_unit_test(test_metrics_count_requests_by_class),
		cmocka_unit_test(test_a_taken_address_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
