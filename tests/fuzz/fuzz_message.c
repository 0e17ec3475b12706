/* Messages and variables: decoded safely, written again alike, expanded within their bounds. */
#include "fuzz.h"

#include "dmtp/message.h"

#define ROOM (1 << 22)
#define FIELDS 16

static void
rewrite(const struct dmtp_message *m)
{
	struct dmtp_field fields[FIELDS];
	struct dmtp_message again;
	struct ben_reader it;
	struct buffer b;
	size_t n = 0;
	bool known = true;

	ben_reader_init(&it, m->fields);
	while (n < FIELDS && dmtp_field_next(&it, &fields[n]))
		known = known && fields[n++].name != DMTP_FIELD_OTHER;
	MUST(!it.bad);
	if (n != m->field_count || !known)
		return;
	buffer_init(&b, ROOM);
	MUST(dmtp_message_encode(m, fields, n, &b) == DMTP_MESSAGE_OK);
	MUST(dmtp_message_decode(buffer_slice(&b), &again) == DMTP_MESSAGE_OK);
	MUST(again.date == m->date && slice_eq(again.from, m->from) &&
	     slice_eq(again.to, m->to));
	buffer_free(&b);
}

/* The first octets are variables if they are any; the rest is a text. */
static void
expand(struct slice in)
{
	static const char vars[] = "d1:a3:<&>1:b5:{{a}}e";
	size_t cut = fuzz_octet(&in);
	struct slice own = fuzz_octets(&in, cut);
	struct buffer b;

	if (!dmtp_vars_valid(own))
		own = slice_str(vars);
	for (int how = DMTP_ESCAPE_NONE; how <= DMTP_ESCAPE_HTML; how++) {
		buffer_init(&b, ROOM);
		dmtp_template_expand(in, (enum dmtp_escape)how, own, &b);
		buffer_free(&b);
	}
	buffer_init(&b, ROOM); /* without variables nothing but them goes missing */
	dmtp_template_expand(in, DMTP_ESCAPE_HTML, slice_mem(NULL, 0), &b);
	MUST(b.len <= in.len);
	buffer_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_mem(data, size);
	struct dmtp_message m;
	uint8_t digest[DMTP_DIGEST_LEN];

	if (dmtp_message_decode(in, &m) == DMTP_MESSAGE_OK) {
		struct dmtp_expected e = {
			.size = (int64_t)size, .from = m.from, .to = m.to, .date = m.date
		};

		rewrite(&m);
		MUST(dmtp_digest(in, digest));
		e.digest = slice_mem(digest, sizeof(digest));
		MUST(dmtp_message_check(in, &e, &m) == DMTP_MESSAGE_OK);
	}
	expand(in);
	return 0;
}
