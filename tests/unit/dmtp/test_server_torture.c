/* dmtp/server when memory is short: each allocation fails in turn, and the session ends itself. */
#include "torture.h"

#include "base/buffer.c"
#include "dmtp/server.c"

#define POST1                                                                              \
	"l4:POSTd4:datei1800000000e6:digest32:" DIGEST_D "4:from14:shop@a.example2:id2:n1" \
	"5:rcptsl20:" GRANT_A "e4:sizei100e4:urisl1:ueee"

/* Twelve commands answered in reverse, an information, a drain. Answers how the session ended. */
static enum dmtp_close
run(void)
{
	struct dmtp_server_options o = {
		.secured = true,
		.greeting = { .version = 1, .host = "h", .limits = DMTP_LIMITS_DEFAULT }
	};
	struct dmtp_response info = dmtp_response_make(DMTP_I, DMTP_CODE_THROTTLED, 5);
	struct dmtp_server *s = dmtp_server_new(&o, 0);
	struct dmtp_server_event e;
	enum dmtp_close reason = DMTP_CLOSE_NONE;
	uint64_t seqs[16];
	size_t n = 0;

	if (s == NULL)
		return DMTP_CLOSE_NO_MEMORY;
	for (int i = 0; i < 12; i++)
		(void)dmtp_server_feed(s, 0, (const uint8_t *)POST1 "l4:NOOPe",
		                       strlen(POST1) + 8);
	dmtp_server_info(s, 0, &info);
	while (dmtp_server_next(s, &e)) {
		if (e.kind == DMTP_SERVER_COMMAND)
			seqs[n++] = e.seq;
		if (e.kind == DMTP_SERVER_CLOSE)
			reason = e.reason;
	}
	while (n > 0)
		(void)dmtp_server_reply(s, 0, seqs[--n], &DMTP_RESPONSE_K);
	(void)dmtp_server_feed(s, 0, (const uint8_t *)"l4:QUITe", 8);
	for (int i = 0; i < 3; i++) {
		while (dmtp_server_next(s, &e))
			if (e.kind == DMTP_SERVER_CLOSE)
				reason = e.reason;
		dmtp_server_sent(s, 0, dmtp_server_output(s).len);
	}
	dmtp_server_free(&s);
	return reason;
}

static void
test_each_failed_allocation_ends_the_session_cleanly(void **state)
{
	long n;

	(void)state;
	for (n = 0; n < 1000; n++) {
		enum dmtp_close reason;

		torture_left = n;
		reason = run();
		if (torture_left >= 0) { /* none failed any more */
			assert_int_equal(reason, DMTP_CLOSE_QUIT);
			break;
		}
		assert_int_equal(reason, DMTP_CLOSE_NO_MEMORY);
	}
	torture_left = -1;
	assert_in_range(n, 10, 999);
}

static void
test_refusal_without_memory(void **state)
{
	struct dmtp_response z = dmtp_response_make(DMTP_Z, DMTP_CODE_SHUTTING_DOWN, 5);

	(void)state;
	for (long n = 0; n < 2; n++) {
		torture_left = n;
		assert_null(dmtp_server_new_refusing(&z, 0));
	}
	torture_left = -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_failed_allocation_ends_the_session_cleanly),
		cmocka_unit_test(test_refusal_without_memory),
	};

	return RUN(tests);
}
