/* Metrics: see metric.h. */
#include "base/metric.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *registry; /* sorted by name, then labels */

static int
metric_cmp(const struct metric *a, const struct metric *b)
{
	int c = strcmp(a->name, b->name);

	if (c != 0)
		return c;
	return strcmp(a->labels == NULL ? "" : a->labels, b->labels == NULL ? "" : b->labels);
}

void
metric_register(struct metric *m)
{
	struct metric **at;

	if (atomic_flag_test_and_set_explicit(&m->linked, memory_order_relaxed))
		return;
	pthread_mutex_lock(&registry_lock);
	for (at = &registry; *at != NULL && metric_cmp(*at, m) < 0; at = &(*at)->next)
		continue;
	m->next = *at;
	*at = m;
	pthread_mutex_unlock(&registry_lock);
}

void
metric_add(struct metric *m, int64_t n)
{
	metric_register(m);
	atomic_fetch_add_explicit(&m->value, n, memory_order_relaxed);
}

void
metric_set(struct metric *m, int64_t value)
{
	metric_register(m);
	atomic_store_explicit(&m->value, value, memory_order_relaxed);
}

int64_t
metric_get(struct metric *m)
{
	return atomic_load_explicit(&m->value, memory_order_relaxed);
}

/* Resident octets of this process, from /proc/self/statm (proc(5)); 0 when unknown. */
static int64_t
resident_octets(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long total, resident;
	int n;

	if (f == NULL)
		return 0;
	/* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers */
	n = fscanf(f, "%ld %ld", &total, &resident);
	(void)fclose(f);
	return n == 2 ? (int64_t)resident * sysconf(_SC_PAGESIZE) : 0;
}

void
metric_write_all(struct buffer *out)
{
	const char *before = "";

	buffer_add_fmt(out,
	               "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
	               "# TYPE process_resident_memory_bytes gauge\n"
	               "process_resident_memory_bytes %" PRId64 "\n",
	               resident_octets());
	pthread_mutex_lock(&registry_lock);
	for (struct metric *m = registry; m != NULL; m = m->next) {
		if (strcmp(before, m->name) != 0)
			buffer_add_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help,
			               m->name,
			               m->kind == METRIC_COUNTER ? "counter" : "gauge");
		before = m->name;
		if (m->labels != NULL)
			buffer_add_fmt(out, "%s{%s} %" PRId64 "\n", m->name, m->labels,
			               metric_get(m));
		else
			buffer_add_fmt(out, "%s %" PRId64 "\n", m->name, metric_get(m));
	}
	pthread_mutex_unlock(&registry_lock);
}
