/*
 * Whether the database still answers at all. A statement may be slow, so when
 * nothing was heard on any connection for a while a question is asked that
 * costs nothing; a database that leaves it without an answer is as good as
 * gone, although its connections are open. For store.c only.
 */
#ifndef TMTP_STORE_PULSE_H
#define TMTP_STORE_PULSE_H

#include <stdbool.h>
#include <stdint.h>

#define PULSE_QUIET_MS 1000  /* so long nobody is asked */
#define PULSE_SILENT_MS 4000 /* so long after the question the database is given up */

enum pulse_rc {
	PULSE_GOOD,
	PULSE_ASK,  /* ask it something now */
	PULSE_GONE, /* it doesn't answer */
};

struct pulse {
	bool asked;
	int64_t asked_ms;
};

/* heard_ms: when the database last said anything. *again_ms: when to look again. */
enum pulse_rc pulse_look(struct pulse *p, int64_t now_ms, int64_t heard_ms, int64_t *again_ms);

#endif
