/*
 * The scanner: octet by octet it answers as at once; what it takes, the
 * reader walks to the end, and the writer writes again octet for octet.
 */
#include "fuzz.h"

#include "dmtp/bencode.h"

#define LIMIT 4096

/* Writes what r reads; the order of keys is the scanner's business. */
static void
copy_values(struct ben_reader *r, struct buffer *out)
{
	uint8_t open[BEN_DEPTH];
	size_t depth = 0;

	do {
		switch (ben_peek(r)) {
		case BEN_INT:
			ben_put_int(out, ben_get_int(r));
			break;
		case BEN_STR:
			ben_put_str(out, ben_get_str(r));
			break;
		case BEN_LIST:
		case BEN_DICT:
			MUST(depth < BEN_DEPTH);
			open[depth] = ben_peek(r) == BEN_LIST ? 'l' : 'd';
			buffer_add_u8(out, open[depth++]);
			r->at++;
			break;
		default:
			MUST(depth > 0 && !r->bad);
			ben_leave(r);
			ben_put_end(out);
			depth--;
			break;
		}
		MUST(!r->bad);
	} while (depth > 0);
}

static void
scan_both_ways(const uint8_t *data, size_t size, size_t limit)
{
	struct ben_scan once, bits;
	enum ben_rc rc_once, rc_bits = BEN_MORE;

	ben_scan_init(&once, limit);
	ben_scan_init(&bits, limit);
	rc_once = ben_scan(&once, data, size);
	for (size_t n = 0; n <= size && rc_bits == BEN_MORE; n++) {
		rc_bits = ben_scan(&bits, data, n);
		MUST(rc_bits != BEN_MORE || bits.at == n);
	}
	MUST(rc_once == rc_bits && once.at == bits.at);
	MUST(once.at <= limit && once.at <= size);
}

static void
read_anything(const uint8_t *data, size_t size)
{
	struct ben_reader r;

	ben_reader_init(&r, slice_mem(data, size));
	ben_enter_dict(&r);
	(void)ben_find(&r, "a");
	(void)ben_get_raw(&r);
	(void)ben_find(&r, "id");
	(void)ben_get_list(&r);
	ben_leave(&r);
	(void)ben_count(slice_mem(data, size));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ben_reader r;
	struct buffer copy;

	scan_both_ways(data, size, LIMIT);
	scan_both_ways(data, size, size / 2);
	read_anything(data, size);
	if (ben_check(slice_mem(data, size), LIMIT) != BEN_OK)
		return 0;
	buffer_init(&copy, LIMIT);
	ben_reader_init(&r, slice_mem(data, size));
	copy_values(&r, &copy);
	MUST(slice_eq(buffer_slice(&copy), slice_mem(data, size)));
	buffer_free(&copy);
	return 0;
}
