/* dmtp/client when memory is short: each allocation fails in turn; no tag is ever lost. */
#include "torture.h"

#include "base/buffer.c"
#include "dmtp/client.c"

static int tags[20]; /* their addresses are the tags */

/* Twenty commands, some answered. Answers how the session ended; every tag comes back once. */
static enum dmtp_close
run(void)
{
	struct dmtp_client_options o = { .mode = DMTP_CLIENT_TLS };
	struct dmtp_client *c = dmtp_client_new(&o, 0);
	struct dmtp_client_event e;
	struct dmtp_client_lost l;
	enum dmtp_close reason = DMTP_CLOSE_NONE;
	int sent = 0, back = 0;

	if (c == NULL)
		return DMTP_CLOSE_NO_MEMORY;
	(void)dmtp_client_feed(c, 0, (const uint8_t *)"d4:dmtpi1e4:host1:he", 20);
	while (dmtp_client_next(c, &e))
		reason = e.reason;
	for (int i = 0; i < 20; i++)
		if (dmtp_client_send(c, 0, DMTP_POST, SLICE("l4:POSTdee"), &tags[sent]) ==
		    DMTP_CLIENT_OK)
			sent++;
	dmtp_client_sent(c, 0, dmtp_client_output(c).len);
	for (int i = 0; i < sent; i++)
		(void)dmtp_client_feed(c, 0, (const uint8_t *)"l1:Ke", 5);
	dmtp_client_quit(c, 0);
	for (int turn = 0; turn < 3; turn++) {
		while (dmtp_client_next(c, &e)) {
			if (e.kind == DMTP_CLIENT_REPLY)
				assert_ptr_equal(e.tag, &tags[back++]);
			if (e.kind == DMTP_CLIENT_CLOSED)
				reason = e.reason;
		}
		if (dmtp_client_output(c).len > 0) { /* QUIT */
			dmtp_client_sent(c, 0, dmtp_client_output(c).len);
			(void)dmtp_client_feed(c, 0, (const uint8_t *)"l1:Ke", 5);
		}
	}
	while (dmtp_client_take_lost(c, &l))
		assert_ptr_equal(l.tag, &tags[back++]);
	assert_int_equal(back, sent);
	dmtp_client_free(&c);
	return reason;
}

static void
test_each_failed_allocation_keeps_every_tag(void **state)
{
	bool failed = true;
	long n;

	(void)state;
	for (n = 0; n < 1000 && failed; n++) {
		enum dmtp_close reason;

		torture_left = n;
		reason = run();
		failed = torture_left < 0;
		/* a command that could not be queued was not taken; the session may go on */
		assert_true(reason == DMTP_CLOSE_QUIT ||
		            (failed && reason == DMTP_CLOSE_NO_MEMORY));
	}
	torture_left = -1;
	assert_in_range(n, 5, 999);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_failed_allocation_keeps_every_tag),
	};

	return RUN(tests);
}
