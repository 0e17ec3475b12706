/* Whether the database still answers at all: see pulse.h. */
#include "store/pulse.h"

enum pulse_rc
pulse_look(struct pulse *p, int64_t now_ms, int64_t heard_ms, int64_t *again_ms)
{
	if (p->asked && heard_ms >= p->asked_ms)
		p->asked = false;
	if (p->asked) {
		*again_ms = p->asked_ms + PULSE_SILENT_MS;
		if (now_ms < *again_ms)
			return PULSE_GOOD;
		p->asked = false;
		return PULSE_GONE;
	}
	*again_ms = heard_ms + PULSE_QUIET_MS;
	if (now_ms < *again_ms)
		return PULSE_GOOD;
	*p = (struct pulse){ .asked = true, .asked_ms = now_ms };
	*again_ms = now_ms + PULSE_SILENT_MS;
	return PULSE_ASK;
}
