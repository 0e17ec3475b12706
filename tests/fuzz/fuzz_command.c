/* Commands: any octets are decoded safely; what passes is walked, written and read again. */
#include "fuzz.h"

#include "dmtp/command.h"
#include "dmtp/message.h"

#define NOW INT64_C(1800000000)
#define ROOM (1 << 22)

static void
rewrite_post(const struct dmtp_post *p, struct buffer *out)
{
	struct dmtp_post_writer w;
	struct dmtp_rcpt r;
	struct ben_reader it;
	size_t n = 0;

	dmtp_post_begin(&w, out, p);
	ben_reader_init(&it, p->rcpts);
	for (; dmtp_rcpt_next(&it, &r); n++) {
		if (r.grant == NULL)
			dmtp_post_put_address(&w, r.address, r.known);
		else if (r.vars.len > 0)
			dmtp_post_put_vars(&w, r.grant, r.vars);
		else
			dmtp_post_put_grant(&w, r.grant);
	}
	MUST(n == p->rcpt_count && !it.bad);
	dmtp_post_end(&w);
}

static void
rewrite_receipt(const struct dmtp_receipt *c, struct buffer *out)
{
	struct dmtp_receipt_row row;
	struct ben_reader it;
	size_t n = 0;

	ben_reader_init(&it, c->events);
	for (; dmtp_receipt_next(&it, &row); n++)
		;
	MUST(n == c->event_count && !it.bad);
	dmtp_receipt_encode(c, out);
}

static void
rewrite_presence(const struct dmtp_presence *c, struct buffer *out)
{
	struct ben_reader it;
	size_t n = 0;

	ben_reader_init(&it, c->rcpts);
	for (; dmtp_presence_next(&it) != NULL; n++)
		;
	MUST(n == c->rcpt_count && !it.bad);
	dmtp_presence_encode(c, out);
}

static void
rewrite(const struct dmtp_command *c, struct buffer *out)
{
	switch (c->verb) {
	case DMTP_POST:
		rewrite_post(&c->post, out);
		break;
	case DMTP_CHANNELS:
		dmtp_channels_encode(&c->channels, out);
		break;
	case DMTP_GRANT:
		dmtp_grant_encode(&c->grant, out);
		break;
	case DMTP_RECEIPT:
		rewrite_receipt(&c->receipt, out);
		break;
	case DMTP_PRESENCE:
		rewrite_presence(&c->presence, out);
		break;
	case DMTP_AUTH:
		dmtp_auth_encode(&c->auth, out);
		break;
	default:
		dmtp_command_put_bare(out, c->verb);
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct dmtp_limits limits = DMTP_LIMITS_DEFAULT;
	struct slice in = slice_mem(data, size);
	struct dmtp_command c, again;
	struct buffer b;

	(void)dmtp_command_verb(in);
	if (dmtp_command_decode(in, &c) != DMTP_CODE_NONE)
		return 0;
	MUST(dmtp_command_verb(in) == c.verb);
	if (ben_check(in, limits.command_octets) != BEN_OK ||
	    dmtp_command_check(&c, &limits, true, NOW).letter != 0)
		return 0;
	buffer_init(&b, ROOM);
	rewrite(&c, &b);
	MUST(!b.failed && ben_check(buffer_slice(&b), ROOM) == BEN_OK);
	MUST(dmtp_command_decode(buffer_slice(&b), &again) == DMTP_CODE_NONE);
	MUST(again.verb == c.verb);
	MUST(slice_eq(dmtp_command_from(&again), dmtp_command_from(&c)));
	MUST(dmtp_command_check(&again, &limits, true, NOW).letter == 0);
	buffer_free(&b);
	return 0;
}
