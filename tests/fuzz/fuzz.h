/* What the fuzz targets share: one entry, and a check that stays in every build. */
#ifndef TMTP_TESTS_FUZZ_H
#define TMTP_TESTS_FUZZ_H

#include "base/buffer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/* The input as a stream of decisions: 0 when it is used up. */
static inline uint8_t
fuzz_octet(struct slice *in)
{
	uint8_t c;

	if (in->len == 0)
		return 0;
	c = in->data[0];
	in->data++;
	in->len--;
	return c;
}

/* The next n octets of the input, or what is left of it. */
static inline struct slice
fuzz_octets(struct slice *in, size_t n)
{
	struct slice s = { in->data, n < in->len ? n : in->len };

	in->data += s.len;
	in->len -= s.len;
	return s;
}

#endif
