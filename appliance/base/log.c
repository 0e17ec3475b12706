/* Structured log lines: see log.h. */
#include "base/log.h"

#include "base/buffer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <unistd.h>

#define LOG_LINE_MAX 4096  /* a line is cut there, so that it stays one write */
#define LOG_VALUE_MAX 1024 /* octets of one value */

static const char *log_role;
static _Atomic int log_min = LOG_INFO_LEVEL;
static _Atomic int log_fd = STDERR_FILENO;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void
log_set_role(const char *role)
{
	log_role = role;
}

void
log_set_level(enum log_level level)
{
	atomic_store(&log_min, (int)level);
}

void
log_set_fd(int fd)
{
	atomic_store(&log_fd, fd);
}

static bool
is_plain(struct slice v)
{
	if (v.len == 0)
		return false;
	for (size_t i = 0; i < v.len; i++)
		if (v.data[i] <= ' ' || v.data[i] >= 0x7f || v.data[i] == '"' ||
		    v.data[i] == '=' || v.data[i] == '\\')
			return false;
	return true;
}

static void
add_value(struct buffer *b, struct slice v)
{
	if (v.len > LOG_VALUE_MAX)
		v.len = LOG_VALUE_MAX;
	if (is_plain(v)) {
		buffer_add_slice(b, v);
		return;
	}
	buffer_add_u8(b, '"');
	for (size_t i = 0; i < v.len; i++) {
		uint8_t c = v.data[i];

		if (c == '"' || c == '\\')
			buffer_add_fmt(b, "\\%c", c);
		else if (c < ' ' || c == 0x7f)
			buffer_add_fmt(b, "\\x%02x", c);
		else
			buffer_add_u8(b, c);
	}
	buffer_add_u8(b, '"');
}

static void
add_field(struct buffer *b, const struct log_field *f)
{
	buffer_add_u8(b, ' ');
	buffer_add_str(b, f->key);
	buffer_add_u8(b, '=');
	switch (f->kind) {
	case LOG_FIELD_STR:
		add_value(b, slice_str(f->str == NULL ? "-" : f->str));
		break;
	case LOG_FIELD_SLICE:
		add_value(b, f->slice);
		break;
	case LOG_FIELD_INT:
		buffer_add_fmt(b, "%" PRId64, f->num);
		break;
	}
}

void
log_write(enum log_level level, const char *event, const struct log_field *fields)
{
	struct buffer b;
	int saved = errno;

	if ((int)level < atomic_load_explicit(&log_min, memory_order_relaxed))
		return;
	buffer_init(&b, LOG_LINE_MAX);
	buffer_add_str(&b, "event=");
	buffer_add_str(&b, event);
	if (level != LOG_INFO_LEVEL)
		buffer_add_fmt(&b, " level=%s", level_names[level]);
	if (log_role != NULL)
		buffer_add_fmt(&b, " role=%s", log_role);
	for (; fields->key != NULL; fields++) {
		size_t before = b.len;

		add_field(&b, fields);
		if (b.failed) {
			b.failed = false;
			b.len = before;
			break;
		}
	}
	if (b.len == b.max)
		b.len--;
	buffer_add_u8(&b, '\n');
	while (write(atomic_load(&log_fd), b.data, b.len) < 0 && errno == EINTR)
		continue;
	buffer_free(&b);
	errno = saved;
}
