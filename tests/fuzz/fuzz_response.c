/* Responses: any octets are decoded safely; what is accepted is written and read alike. */
#include "fuzz.h"

#include "dmtp/command.h"

static void
walk(const struct dmtp_response *r)
{
	struct slice address, list;
	struct dmtp_open_channel c;
	struct dmtp_failed f;
	struct dmtp_grant g;
	struct ben_reader it, of_one;
	size_t n = 0;

	ben_reader_init(&it, r->failed);
	while (dmtp_failed_next(&it, &f))
		n++;
	MUST(n == r->failed_count && !it.bad);
	ben_reader_init(&it, r->channels);
	while (dmtp_channels_next(&it, &address, &list)) {
		ben_reader_init(&of_one, list);
		while (dmtp_open_channel_next(&of_one, &c))
			MUST(c.id.len > 0);
		MUST(!of_one.bad);
	}
	MUST(!it.bad);
	ben_reader_init(&it, r->events);
	while (dmtp_grant_next(&it, &g))
		MUST(g.values_bad || g.grant.len == DMTP_GRANT_LEN || g.state == DMTP_REFUSED);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_mem(data, size);
	struct dmtp_response r, again;
	struct buffer b;

	if (dmtp_response_decode(in, &r) != DMTP_RESPONSE_OK)
		return 0;
	if (ben_check(in, DMTP_RESPONSE_MAX) != BEN_OK)
		return 0;
	walk(&r);
	buffer_init(&b, 2 * DMTP_RESPONSE_MAX);
	dmtp_response_encode(&r, &b);
	MUST(ben_check(buffer_slice(&b), 2 * DMTP_RESPONSE_MAX) == BEN_OK);
	MUST(dmtp_response_decode(buffer_slice(&b), &again) == DMTP_RESPONSE_OK);
	MUST(again.letter == r.letter && again.code == r.code && again.retry_s == r.retry_s);
	MUST(again.failed_count == r.failed_count && slice_eq(again.text, r.text));
	buffer_free(&b);
	return 0;
}
