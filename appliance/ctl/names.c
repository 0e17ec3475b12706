/* Words: see names.h. A number that this program doesn't know is "unknown". */
#include "ctl/names.h"

#include <stddef.h>

static const char *
pick(const char *const *names, size_t n, int value)
{
	return value >= 0 && (size_t)value < n ? names[value] : "unknown";
}

#define PICK(names, value) pick(names, sizeof(names) / sizeof((names)[0]), value)

const char *
name_of_audience(int audience)
{
	static const char *const names[] = { "one", "list", "channel", "invitation" };

	return PICK(names, audience);
}

const char *
name_of_lane(int lane)
{
	static const char *const names[] = { "urgent", "normal", "bulk" };

	return PICK(names, lane);
}

const char *
name_of_batch_state(int state)
{
	static const char *const names[] = { "waiting", "done",    "dead",
		                             "held",    "dropped", "recalled" };

	return PICK(names, state);
}
