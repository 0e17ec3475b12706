/*
 * Counters and gauges in Prometheus' text format (exposition 0.0.4). Metrics
 * are static objects that register themselves on first use; adding is one
 * relaxed atomic, from any thread.
 */
#ifndef TMTP_BASE_METRIC_H
#define TMTP_BASE_METRIC_H

#include "base/buffer.h"

#include <stdatomic.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric {
	const char *name; /* "tmtp_pushes_total" */
	const char
	    *labels; /* "code=\"throttled\"" or NULL; metrics of one name stand together */
	const char *help;
	enum metric_kind kind;
	_Atomic int64_t value;
	struct metric *next; /* the registry's */
	atomic_flag linked;
};

#define METRIC_DEFINE(var, knd, nam, lab, hlp)        \
	static struct metric var = { .name = (nam),   \
		                     .labels = (lab), \
		                     .help = (hlp),   \
		                     .kind = (knd),   \
		                     .linked = ATOMIC_FLAG_INIT }

/* Shows the metric with its value 0 before anything happened. */
void metric_register(struct metric *m);

void metric_add(struct metric *m, int64_t n);
void metric_set(struct metric *m, int64_t value);
int64_t metric_get(struct metric *m);

/* Every registered metric, grouped by name, and the process's own memory. */
void metric_write_all(struct buffer *out);

#endif
