/* The client machine under decisions: what the peer sends, what we send, how time goes. */
#include "fuzz.h"

#include "dmtp/client.h"

static int tags[1 << 16]; /* their addresses are the tags */

struct run {
	struct dmtp_client *c;
	int64_t now;
	size_t sent, answered;
	bool closed;
};

static void
take_events(struct run *r)
{
	struct dmtp_client_event e;

	while (dmtp_client_next(r->c, &e)) {
		MUST(!r->closed);
		switch (e.kind) {
		case DMTP_CLIENT_REPLY:
			MUST(e.tag == &tags[r->answered++]);
			break;
		case DMTP_CLIENT_HANDSHAKE:
			MUST(dmtp_client_secured(r->c, r->now));
			break;
		case DMTP_CLIENT_CLOSED:
			r->closed = true;
			MUST(dmtp_client_output(r->c).len == 0);
			break;
		default:
			break;
		}
	}
}

static void
send_one(struct run *r)
{
	size_t room = dmtp_client_room(r->c);
	enum dmtp_client_rc rc =
	    dmtp_client_send(r->c, r->now, DMTP_POST, SLICE("l4:POSTdee"), &tags[r->sent]);

	MUST((rc == DMTP_CLIENT_OK) == (room > 0));
	if (rc == DMTP_CLIENT_OK)
		r->sent++;
}

/* Every command was answered or is handed back, in order. */
static void
settle(struct run *r)
{
	struct dmtp_client_lost l;
	bool unsent = false;

	while (dmtp_client_take_lost(r->c, &l)) {
		MUST(l.tag == &tags[r->answered++]);
		MUST(!(unsent && l.sent));
		unsent = !l.sent;
	}
	MUST(r->answered == r->sent);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_mem(data, size), part;
	uint8_t flags = fuzz_octet(&in);
	struct dmtp_client_options o = { .mode = (enum dmtp_client_mode)(flags % 3),
		                         .window = flags / 64,
		                         .keep_alive = (flags & 32) != 0 };
	struct run r = { .c = dmtp_client_new(&o, 0) };

	MUST(r.c != NULL);
	while (in.len > 0 && r.sent < 60000) {
		uint8_t op = fuzz_octet(&in);

		switch (op % 8) {
		case 0:
		case 1:
		case 2:
			part = fuzz_octets(&in, fuzz_octet(&in));
			(void)dmtp_client_feed(r.c, r.now, part.data, part.len);
			break;
		case 3:
			send_one(&r);
			break;
		case 4:
			dmtp_client_sent(r.c, r.now, op > 64 ? SIZE_MAX : op / 8);
			break;
		case 5:
			r.now += fuzz_octet(&in) * INT64_C(2000);
			dmtp_client_tick(r.c, r.now);
			break;
		case 6:
			dmtp_client_set_window(r.c, op / 8);
			break;
		default:
			if (op > 230)
				dmtp_client_quit(r.c, r.now);
			else if (op > 200)
				dmtp_client_eof(r.c, r.now);
			break;
		}
		take_events(&r);
		MUST(!r.closed || dmtp_client_deadline(r.c) == -1);
	}
	settle(&r);
	dmtp_client_free(&r.c);
	return 0;
}
