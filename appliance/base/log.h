/*
 * Log lines on standard error: "event=push-refused role=site reason=\"...\"",
 * one line an event, one event a line. Values are escaped; a token, a secret
 * or a message's body is never one. Each line is one write, whole among lines
 * of other threads and processes.
 */
#ifndef TMTP_BASE_LOG_H
#define TMTP_BASE_LOG_H

#include "base/slice.h"

enum log_level { LOG_DEBUG_LEVEL, LOG_INFO_LEVEL, LOG_WARN_LEVEL, LOG_ERROR_LEVEL };

struct log_field {
	const char *key; /* NULL ends the list */
	enum { LOG_FIELD_STR, LOG_FIELD_SLICE, LOG_FIELD_INT } kind;
	const char *str;
	struct slice slice;
	int64_t num;
};

#define LOG_S(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_STR, .str = (v) })
#define LOG_B(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_SLICE, .slice = (v) })
#define LOG_I(k, v) \
	((struct log_field){ .key = (k), .kind = LOG_FIELD_INT, .num = (int64_t)(v) })

/* log_info("peer-refused", LOG_S("peer", name), LOG_I("retry_s", 30)) */
#define log_at(level, ...) LOG_CALL(level, __VA_ARGS__, (struct log_field){ .key = NULL })
#define LOG_CALL(level, event, ...) \
	log_write(level, event, (const struct log_field[]){ __VA_ARGS__ })
#define log_debug(...) log_at(LOG_DEBUG_LEVEL, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO_LEVEL, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN_LEVEL, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR_LEVEL, __VA_ARGS__)

void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* The role that stands in every line of this process; borrowed for ever. NULL: none. */
void log_set_role(const char *role);

/* Lines below this level are dropped. The default is LOG_INFO_LEVEL. */
void log_set_level(enum log_level level);

/* Where lines go, instead of standard error (2). Tests. */
void log_set_fd(int fd);

#endif
