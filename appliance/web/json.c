/*
 * Strict JSON: see json.h. yajl reads, many times as fast as jansson's reader on the long strings
 * that messages are; jansson holds. What yajl would let pass is looked at before: UTF-8 that isn't,
 * and escapes of what is no character.
 */
#include "web/json.h"

#include "base/buffer.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

/* Characters of a number. */
#define NUMBER_MAX 64

/* What is being read: the containers that are open, and the name that the next value gets. */
struct reader {
	json_t *root; /* owned */
	json_t *open[WEB_JSON_DEPTH];
	size_t depth;
	struct buffer name;
	const char *reason; /* why it was given up, or NULL */
	bool memory;        /* none is left */
};

static int
give_up(struct reader *r, const char *reason)
{
	r->reason = reason;
	return 0;
}

static int
out_of_memory(struct reader *r)
{
	r->memory = true;
	return 0;
}

/* Takes value; puts it where the text has it. */
static int
add(struct reader *r, json_t *value)
{
	json_t *parent = r->depth == 0 ? NULL : r->open[r->depth - 1];
	int rc;

	if (value == NULL)
		return out_of_memory(r);
	if (parent == NULL) {
		r->root = value;
		return 1;
	}
	if (json_is_object(parent))
		rc = json_object_setn_new_nocheck(parent, (const char *)r->name.data,
		                                  r->name.len, value);
	else
		rc = json_array_append_new(parent, value);
	return rc == 0 ? 1 : out_of_memory(r);
}

static int
open_container(struct reader *r, json_t *container)
{
	if (r->depth == WEB_JSON_DEPTH) {
		json_decref(container);
		return give_up(r, "too many containers are open at once");
	}
	if (!add(r, container))
		return 0;
	r->open[r->depth++] = container;
	return 1;
}

static int
on_null(void *ctx)
{
	return add(ctx, json_null());
}

static int
on_boolean(void *ctx, int value)
{
	return add(ctx, json_boolean(value));
}

/* The text is a number, as the grammar has it; whether it fits is ours to see. */
static int
on_number(void *ctx, const char *text, size_t len)
{
	char copy[NUMBER_MAX + 1];
	json_t *value;

	if (len > NUMBER_MAX)
		return give_up(ctx, "a number is too long");
	memcpy(copy, text, len);
	copy[len] = '\0';
	errno = 0;
	if (strpbrk(copy, ".eE") == NULL) {
		value = json_integer(strtoll(copy, NULL, 10));
	} else {
		double d = strtod(copy, NULL);

		if (d > -1 && d < 1)
			errno = 0; /* too small to be exact is no error */
		value = json_real(errno == ERANGE ? 0 : d);
	}
	if (errno == ERANGE) {
		json_decref(value);
		return give_up(ctx, "a number is too large");
	}
	return add(ctx, value);
}

static int
on_string(void *ctx, const unsigned char *text, size_t len)
{
	return add(ctx, json_stringn_nocheck((const char *)text, len));
}

static int
on_start_map(void *ctx)
{
	return open_container(ctx, json_object());
}

static int
on_name(void *ctx, const unsigned char *text, size_t len)
{
	struct reader *r = ctx;

	if (json_object_getn(r->open[r->depth - 1], (const char *)text, len) != NULL)
		return give_up(r, "a name stands twice in one object");
	buffer_clear(&r->name);
	buffer_add(&r->name, text, len);
	buffer_add_u8(&r->name, '\0'); /* an empty name has an address too */
	if (r->name.failed)
		return out_of_memory(r);
	r->name.len--;
	return 1;
}

static int
on_start_array(void *ctx)
{
	return open_container(ctx, json_array());
}

static int
on_end(void *ctx)
{
	((struct reader *)ctx)->depth--;
	return 1;
}

static const yajl_callbacks callbacks = {
	.yajl_null = on_null,
	.yajl_boolean = on_boolean,
	.yajl_number = on_number,
	.yajl_string = on_string,
	.yajl_start_map = on_start_map,
	.yajl_map_key = on_name,
	.yajl_end_map = on_end,
	.yajl_start_array = on_start_array,
	.yajl_end_array = on_end,
};

/* Four hexadecimal digits, or -1. */
static int
hex4(struct slice text, size_t at)
{
	int value = 0;

	if (text.len < 4 || at > text.len - 4)
		return -1;
	for (size_t i = at; i < at + 4; i++) {
		uint8_t c = text.data[i];
		int digit = c >= '0' && c <= '9'                     ? c - '0'
		            : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
		                                                     : -1;

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/*
 * Escapes stand in strings only, or the text is malformed anyway. NULL, or what is wrong with the
 * one at *at; a surrogate counts with its other half.
 */
static const char *
escapes_wrong(struct slice text, size_t *at)
{
	const uint8_t *next;

	for (size_t i = 0; i < text.len; i = *at) {
		int code, low;

		next = memchr(text.data + i, '\\', text.len - i);
		if (next == NULL)
			return NULL;
		*at = (size_t)(next - text.data) + 2;
		if (*at > text.len || text.data[*at - 1] != 'u')
			continue;
		code = hex4(text, *at);
		if (code == 0)
			return "it holds a NUL";
		if (code < 0xd800 || code > 0xdfff)
			continue;
		low = text.len - *at >= 6 && memcmp(text.data + *at + 4, "\\u", 2) == 0
		          ? hex4(text, *at + 6)
		          : -1;
		if (code > 0xdbff || low < 0xdc00 || low > 0xdfff)
			return "it escapes half a surrogate pair";
		*at += 10;
	}
	return NULL;
}

static enum web_body_rc
malformed(struct slice text, size_t at, const char *reason, char error[static 160])
{
	size_t line = 1, begin = 0;

	for (size_t i = 0; i < at && i < text.len; i++) {
		if (text.data[i] == '\n') {
			line++;
			begin = i + 1;
		}
	}
	(void)snprintf(error, 160, "%s (line %zu, column %zu)", reason, line, at - begin);
	return WEB_BODY_MALFORMED;
}

static const char *
reason_of(yajl_handle handle)
{
	unsigned char *text = yajl_get_error(handle, 0, NULL, 0);
	const char *reason = "it can't be parsed";

	if (text == NULL)
		return reason;
	if (strstr((const char *)text, "premature EOF") != NULL)
		reason = "it ends too early";
	else if (strstr((const char *)text, "trailing garbage") != NULL)
		reason = "something follows its end";
	yajl_free_error(handle, text);
	return reason;
}

static enum web_body_rc
read_all(struct reader *r, struct slice text, yajl_handle handle, char error[static 160])
{
	yajl_status status = yajl_parse(handle, text.data, text.len);
	size_t at = yajl_get_bytes_consumed(handle);

	if (status == yajl_status_ok) {
		status = yajl_complete_parse(handle);
		at = text.len;
	}
	if (r->memory)
		return WEB_BODY_MEMORY;
	if (status != yajl_status_ok)
		return malformed(text, at, r->reason != NULL ? r->reason : reason_of(handle),
		                 error);
	if (r->root != NULL && json_is_object(r->root))
		return WEB_BODY_OK;
	(void)snprintf(error, 160, "it isn't an object");
	return WEB_BODY_MALFORMED;
}

enum web_body_rc
web_json_parse(struct slice text, json_t **out, char error[static 160])
{
	struct reader r = { .depth = 0 };
	enum web_body_rc rc = WEB_BODY_MEMORY;
	const char *wrong;
	size_t at = 0;
	yajl_handle handle;

	if (!text_is_utf8(text)) {
		(void)snprintf(error, 160, "it isn't UTF-8");
		return WEB_BODY_MALFORMED;
	}
	wrong = escapes_wrong(text, &at);
	if (wrong != NULL)
		return malformed(text, at, wrong, error);
	handle = yajl_alloc(&callbacks, NULL, &r);
	buffer_init(&r.name, SIZE_MAX / 2);
	if (handle != NULL && yajl_config(handle, yajl_dont_validate_strings, 1) == 1)
		rc = read_all(&r, text, handle, error);
	if (handle != NULL)
		yajl_free(handle);
	buffer_free(&r.name);
	if (rc == WEB_BODY_OK)
		*out = r.root;
	else
		json_decref(r.root);
	if (rc == WEB_BODY_MEMORY)
		(void)snprintf(error, 160, "no memory");
	return rc;
}
