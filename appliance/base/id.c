/* Identifiers: see id.h. */
#include "base/id.h"

#include "base/clock.h"
#include "base/text.h"

#include <pthread.h>
#include <sodium.h>

#define ID_EPOCH_MS INT64_C(1735689600000) /* 2025-01-01T00:00:00Z */

static pthread_mutex_t uuid_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t uuid_last; /* milliseconds << 12 | counter: the sortable first 60 bits */
static pthread_mutex_t id_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t id_last;

static void
put_prefix(struct uuid *id, uint64_t ms, unsigned counter)
{
	for (int i = 0; i < 6; i++)
		id->octets[i] = (uint8_t)(ms >> (40 - 8 * i));
	id->octets[6] = (uint8_t)(0x70 | counter >> 8);
	id->octets[7] = (uint8_t)counter;
}

struct uuid
uuid_make(void)
{
	struct uuid id;
	uint64_t now = (uint64_t)clock_wall_us();
	uint64_t stamp = now / 1000 << 12 | now % 1000 * 4096 / 1000;

	randombytes_buf(id.octets + 8, 8);
	pthread_mutex_lock(&uuid_lock);
	if (stamp <= uuid_last)
		stamp =
		    uuid_last + 1; /* also when the clock was set back: order before truth */
	uuid_last = stamp;
	pthread_mutex_unlock(&uuid_lock);
	put_prefix(&id, stamp >> 12, stamp & 0xfff);
	id.octets[8] = (uint8_t)(0x80 | (id.octets[8] & 0x3f));
	return id;
}

struct uuid
uuid_floor(int64_t wall_us)
{
	struct uuid id = { { 0 } };

	put_prefix(&id, wall_us < 0 ? 0 : (uint64_t)(wall_us / 1000), 0);
	id.octets[8] = 0x80;
	return id;
}

int64_t
uuid_time_us(const struct uuid *id)
{
	int64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->octets[i];
	return ms * 1000;
}

void
uuid_format(const struct uuid *id, char out[static UUID_TEXT])
{
	static const uint8_t groups[] = { 4, 2, 2, 2, 6 };
	const uint8_t *from = id->octets;

	for (size_t g = 0; g < sizeof(groups); g++) {
		hex_encode(from, groups[g], out);
		from += groups[g];
		out += (size_t)2 * groups[g];
		*out++ = '-';
	}
	out[-1] = '\0';
}

bool
uuid_parse(struct slice text, struct uuid *out)
{
	struct uuid id;
	char again[UUID_TEXT];
	char digits[33];
	size_t n = 0;

	if (text.len != UUID_TEXT - 1)
		return false;
	for (size_t i = 0; i < text.len && n < 32; i++)
		if (text.data[i] != '-')
			digits[n++] = (char)text.data[i];
	if (n != 32 || !hex_decode(slice_mem(digits, n), id.octets, sizeof(id.octets)))
		return false;
	uuid_format(&id, again);
	if (!slice_eq_str(text, again))
		return false;
	*out = id;
	return true;
}

int64_t
id_make(void)
{
	int64_t ms = clock_wall_us() / 1000 - ID_EPOCH_MS;
	int64_t id;

	if (ms < 0)
		ms = 0;
	id = (ms & ((INT64_C(1) << 41) - 1)) << 22 | (randombytes_uniform(1 << 10) << 12);
	pthread_mutex_lock(&id_lock);
	if (id <= id_last && id_last - id < INT64_C(1) << 22)
		id = id_last +
		     1; /* ids made in a row are neighbours: contiguous where it can be */
	id_last = id;
	pthread_mutex_unlock(&id_lock);
	return id;
}
