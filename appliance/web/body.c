/*
 * Bodies by a table of fields: see body.h.
 */
#include "web/body.h"

#include "web/reply.h"
#include "web/request.h"

#include "base/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define DETAIL_MAX 256
#define POINTER_MAX 256
/* Octets of a client's own field name that an answer repeats. */
#define NAME_SHOWN 64

/* --- errors ---------------------------------------------------------------- */

void
web_errors_add(struct web_errors *errors, const struct web_problem *kind, const char *pointer,
               const char *detail, ...)
{
	char text[DETAIL_MAX];
	va_list ap;

	if (errors->kind == NULL)
		errors->kind = kind;
	if (errors->count++ >= WEB_ERRORS_MAX)
		return;
	if (errors->list == NULL)
		errors->list = json_array();
	va_start(ap, detail);
	(void)vsnprintf(text, sizeof(text), detail, ap);
	va_end(ap);
	(void)json_array_append_new(
	    errors->list, json_pack("{s:s, s:s}", "pointer", pointer, "detail", text));
}

void
web_errors_free(struct web_errors *errors)
{
	json_decref(errors->list);
	*errors = (struct web_errors){ .count = 0 };
}

void
web_reply_errors(struct web_request *req, struct web_errors *errors)
{
	const struct web_problem *kind = errors->kind == NULL ? &web_internal : errors->kind;
	const json_t *first = json_array_get(errors->list, 0);
	const char *pointer = json_string_value(json_object_get(first, "pointer"));
	const char *detail = json_string_value(json_object_get(first, "detail"));
	json_t *list = json_incref(errors->list);
	char text[POINTER_MAX + DETAIL_MAX];

	(void)snprintf(text, sizeof(text), "%s %s", pointer == NULL ? "" : pointer,
	               detail == NULL ? "" : detail);
	if (detail == NULL)
		web_reply_problem_errors(req, kind, list, NULL);
	else
		web_reply_problem_errors(req, kind, list, "%s",
		                         pointer[0] == '\0' ? detail : text);
	web_errors_free(errors);
}

/* --- fields ---------------------------------------------------------------- */

/* "~" and "/" in a name are written "~0" and "~1" (RFC 6901 section 3); a long name is cut. */
static void
pointer_make(char out[static POINTER_MAX], const char *base, const char *name)
{
	size_t n = (size_t)snprintf(out, POINTER_MAX, "%.180s/", base);
	size_t end = n + NAME_SHOWN;

	for (; *name != '\0' && n + 2 < POINTER_MAX; name++) {
		if (n >= end && ((unsigned char)*name & 0xc0) != 0x80)
			break;
		if (*name == '~' || *name == '/') {
			out[n++] = '~';
			out[n++] = *name == '~' ? '0' : '1';
		} else {
			out[n++] = *name;
		}
	}
	out[n] = '\0';
}

struct field_reader {
	const struct web_field *field;
	const char *pointer;
	struct web_errors *errors;
};

#define WRONG(r, ...) \
	(web_errors_add((r)->errors, &web_invalid_value, (r)->pointer, __VA_ARGS__), false)

static const char *
field_expected(const struct web_field *f)
{
	return f->expected != NULL ? f->expected : "a valid value";
}

static bool
read_string(const struct field_reader *r, const json_t *value, struct slice *out)
{
	const struct web_field *f = r->field;
	struct slice s;

	if (!json_is_string(value))
		return WRONG(r, "must be a string");
	s = slice_mem(json_string_value(value), json_string_length(value));
	if (f->max > 0 && s.len > (uint64_t)f->max)
		return WRONG(r, "must be at most %" PRId64 " octets long", f->max);
	if (s.len < (uint64_t)f->min)
		return f->min == 1
		           ? WRONG(r, "must not be empty")
		           : WRONG(r, "must be at least %" PRId64 " octets long", f->min);
	if (f->check != NULL && !f->check(s))
		return WRONG(r, "must be %s", field_expected(f));
	*out = s;
	return true;
}

static bool
read_int(const struct field_reader *r, const json_t *value, int64_t *out)
{
	const struct web_field *f = r->field;
	int64_t n;

	if (!json_is_integer(value))
		return WRONG(r, "must be an integer");
	n = json_integer_value(value);
	if ((f->min != 0 || f->max != 0) && (n < f->min || n > f->max))
		return WRONG(r, "must be from %" PRId64 " to %" PRId64, f->min, f->max);
	*out = n;
	return true;
}

static bool
read_bool(const struct field_reader *r, const json_t *value, bool *out)
{
	if (!json_is_boolean(value))
		return WRONG(r, "must be true or false");
	*out = json_is_true(value);
	return true;
}

static bool
count_is_fine(const struct field_reader *r, size_t count)
{
	const struct web_field *f = r->field;

	if (f->max > 0 && count > (uint64_t)f->max)
		return WRONG(r, "must have at most %" PRId64 " items", f->max);
	if (count < (uint64_t)f->min)
		return f->min == 1 ? WRONG(r, "must not be empty")
		                   : WRONG(r, "must have at least %" PRId64 " items", f->min);
	return true;
}

/* An item's error names the item, "/to/3". */
static bool
read_item(const struct field_reader *r, const json_t *item, size_t i, bool single)
{
	char pointer[POINTER_MAX + 24];
	struct field_reader ri = { r->field, pointer, r->errors };

	(void)snprintf(pointer, sizeof(pointer), "%s/%zu", r->pointer, i);
	if (single)
		ri.pointer = r->pointer;
	if (!json_is_string(item))
		return WRONG(&ri, "must be a string");
	if (r->field->check != NULL &&
	    !r->field->check(slice_mem(json_string_value(item), json_string_length(item))))
		return WRONG(&ri, "must be %s", field_expected(r->field));
	return true;
}

static bool
read_strings(const struct field_reader *r, const json_t *value, struct web_strings *out)
{
	size_t count = json_is_string(value) ? 1 : json_array_size(value);
	bool good = true;

	if (!json_is_string(value) && !json_is_array(value))
		return WRONG(r, "must be a string or a list of strings");
	if (!count_is_fine(r, count))
		return false;
	if (json_is_string(value)) {
		good = read_item(r, value, 0, true);
	} else {
		for (size_t i = 0; i < count && r->errors->count < WEB_ERRORS_MAX; i++)
			good = read_item(r, json_array_get(value, i), i, false) && good;
	}
	if (good)
		*out = (struct web_strings){ value, count };
	return good;
}

struct slice
web_strings_at(const struct web_strings *s, size_t i)
{
	const json_t *item = json_is_string(s->json) ? s->json : json_array_get(s->json, i);

	return slice_mem(json_string_value(item), json_string_length(item));
}

static bool
read_field(const struct field_reader *r, const json_t *value, void *out)
{
	switch (r->field->type) {
	case WEB_STRING:
		return read_string(r, value, out);
	case WEB_INT:
		return read_int(r, value, out);
	case WEB_BOOL:
		return read_bool(r, value, out);
	case WEB_STRINGS:
		return read_strings(r, value, out);
	case WEB_OBJECT:
		if (!json_is_object(value))
			return WRONG(r, "must be an object");
		break;
	case WEB_ARRAY:
		if (!json_is_array(value))
			return WRONG(r, "must be a list");
		if (!count_is_fine(r, json_array_size(value)))
			return false;
		break;
	case WEB_ANY:
		break;
	}
	*(const json_t **)out = value;
	return true;
}

static void
refuse_unknown(const json_t *object, const char *base, const struct web_field *fields,
               size_t n_fields, struct web_errors *errors)
{
	char pointer[POINTER_MAX];

	for (void *it = json_object_iter((json_t *)(uintptr_t)object); it != NULL;
	     it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
		const char *name = json_object_iter_key(it);
		size_t i = 0;

		while (i < n_fields && strcmp(fields[i].name, name) != 0)
			i++;
		if (i < n_fields)
			continue;
		pointer_make(pointer, base, name);
		web_errors_add(errors, &web_unknown_field, pointer, "isn't a field here");
	}
}

bool
web_fields_read(const json_t *object, const char *base, const struct web_field *fields,
                size_t n_fields, void *out, struct web_errors *errors)
{
	size_t before = errors->count;
	size_t present = 0;
	char pointer[POINTER_MAX];

	for (size_t i = 0; i < n_fields; i++) {
		const json_t *value = json_object_get(object, fields[i].name);
		struct field_reader r = { &fields[i], pointer, errors };

		present += value != NULL;
		pointer_make(pointer, base, fields[i].name);
		if (value == NULL || (json_is_null(value) && fields[i].flags & WEB_NULLABLE)) {
			if (fields[i].flags & WEB_REQUIRED)
				web_errors_add(errors, &web_missing_field, pointer,
				               "is required");
			continue;
		}
		(void)read_field(&r, value, (uint8_t *)out + fields[i].offset);
	}
	if (present != json_object_size(object))
		refuse_unknown(object, base, fields, n_fields, errors);
	return errors->count == before;
}

bool
web_body_read(struct web_request *req, const struct web_field *fields, size_t n_fields,
              void *out, json_t **json)
{
	struct web_errors errors = { .count = 0 };
	char error[160];
	json_t *value;

	if (!web_request_content_is(req, "application/json")) {
		web_reply_problem(req, &web_unsupported_media,
		                  "Content-Type must be application/json, in UTF-8.");
		return false;
	}
	switch (web_json_parse(web_request_body(req), &value, error)) {
	case WEB_BODY_OK:
		break;
	case WEB_BODY_MEMORY:
		web_reply_problem(req, &web_unavailable, NULL);
		return false;
	default:
		web_reply_problem(req, &web_malformed_json,
		                  "The body must be a JSON object: %s.", error);
		return false;
	}
	if (!web_fields_read(value, "", fields, n_fields, out, &errors)) {
		json_decref(value);
		web_reply_errors(req, &errors);
		return false;
	}
	*json = value;
	return true;
}
