/* Tables, records and JSON documents: see output.h. */
#include "ctl/output.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include <utf8proc.h>

#define COLUMNS_MAX 16
#define CELL_MAX 4096
#define GAP 2 /* blanks between columns */

static void *
alloc_or_exit(size_t size)
{
	void *p = malloc(size);

	if (p == NULL) {
		(void)fputs("tmtpctl: out of memory\n", stderr);
		_Exit(CTL_REFUSED);
	}
	return p;
}

void
output_init(void)
{
	json_set_alloc_funcs(alloc_or_exit, free);
}

/* --- Values --------------------------------------------------------------- */

json_t *
output_text(const char *text)
{
	struct buffer clean;
	json_t *value;

	if (text == NULL)
		return json_null();
	value = json_string(text);
	if (value != NULL)
		return value;
	buffer_init(&clean, SIZE_MAX / 2);
	for (const char *p = text; *p != '\0'; p++)
		buffer_add_u8(&clean, (uint8_t)*p < 0x80 ? (uint8_t)*p : '?');
	value = json_stringn((const char *)clean.data, clean.len);
	buffer_free(&clean);
	return value;
}

json_t *
output_time(int64_t wall_us)
{
	char text[32];

	if (wall_us < 0)
		return json_null();
	clock_format_rfc3339(wall_us, text);
	return json_string(text);
}

json_t *
output_id(int64_t id)
{
	return json_sprintf("%" PRId64, id);
}

json_t *
output_words(const char *words)
{
	json_t *list = json_array();

	while (words != NULL && *words != '\0') {
		size_t len = strcspn(words, " ");

		if (len > 0)
			json_array_append_new(list, json_stringn(words, len));
		words += len + (words[len] == ' ');
	}
	return list;
}

/* --- Cells ---------------------------------------------------------------- */

/* Appends a value's text without anything that could steer a terminal. */
static void
add_plain(struct buffer *out, const char *text)
{
	const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
	utf8proc_ssize_t len;
	utf8proc_int32_t point;

	for (; *p != '\0'; p += len > 0 ? len : 1) {
		len = utf8proc_iterate(p, -1, &point);
		if (len < 1 || utf8proc_category(point) == UTF8PROC_CATEGORY_CC ||
		    utf8proc_category(point) == UTF8PROC_CATEGORY_CF)
			buffer_add_u8(out, '?');
		else
			buffer_add(out, p, (size_t)len);
	}
}

/* The cell's text, with a NUL. */
static void
cell_text(struct buffer *out, const json_t *value)
{
	const json_t *item;
	size_t i;

	buffer_clear(out);
	if (json_is_string(value)) {
		add_plain(out, json_string_value(value));
	} else if (json_is_integer(value)) {
		buffer_add_fmt(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	} else if (json_is_boolean(value)) {
		buffer_add_str(out, json_is_true(value) ? "yes" : "no");
	} else if (json_is_array(value)) {
		json_array_foreach((json_t *)value, i, item)
		{
			buffer_add_str(out, i > 0 ? "," : "");
			add_plain(out, json_string_value(item));
		}
	}
	if (out->len == 0)
		buffer_add_u8(out, '-');
	if (out->failed)
		out->len = CELL_MAX;
	buffer_add_u8(out, '\0');
}

void
output_plain(const char *text)
{
	struct buffer plain;

	buffer_init(&plain, CELL_MAX);
	add_plain(&plain, text);
	(void)fwrite(plain.data, 1, plain.len, stdout);
	buffer_free(&plain);
}

/* Columns of a terminal that UTF-8 text takes. */
static size_t
text_width(const char *text)
{
	const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
	utf8proc_int32_t point;
	utf8proc_ssize_t len;
	size_t width = 0;

	for (; *p != '\0' && (len = utf8proc_iterate(p, -1, &point)) > 0; p += len)
		width += (size_t)utf8proc_charwidth(point);
	return width;
}

static void
print_cell(const char *text, size_t width, bool right, bool last)
{
	size_t own = text_width(text);
	int blanks = own < width ? (int)(width - own) : 0;

	if (right)
		printf("%*s%s", blanks, "", text);
	else
		printf("%s%*s", text, last ? 0 : blanks, "");
	(void)fputs(last ? "\n" : "  ", stdout);
}

/* --- Tables and records --------------------------------------------------- */

/* Widths of the columns, and which hold numbers only. */
static size_t
measure(const json_t *rows, const struct output_column *columns, size_t *widths, bool *numbers,
        struct buffer *cell)
{
	const json_t *row;
	size_t i, n = 0;

	for (; n < COLUMNS_MAX && columns[n].key != NULL; n++) {
		widths[n] = text_width(columns[n].title);
		numbers[n] = json_array_size(rows) > 0;
		json_array_foreach((json_t *)rows, i, row)
		{
			const json_t *value = json_object_get(row, columns[n].key);
			size_t width;

			cell_text(cell, value);
			width = text_width((const char *)cell->data);
			widths[n] = width > widths[n] ? width : widths[n];
			numbers[n] = numbers[n] && json_is_integer(value);
		}
	}
	return n;
}

static void
print_table(const json_t *rows, const struct output_column *columns)
{
	size_t widths[COLUMNS_MAX], n, i;
	bool numbers[COLUMNS_MAX];
	struct buffer cell;
	const json_t *row;

	buffer_init(&cell, CELL_MAX + 8);
	n = measure(rows, columns, widths, numbers, &cell);
	for (size_t c = 0; c < n; c++)
		print_cell(columns[c].title, widths[c], numbers[c], c + 1 == n);
	json_array_foreach((json_t *)rows, i, row)
	{
		for (size_t c = 0; c < n; c++) {
			cell_text(&cell, json_object_get(row, columns[c].key));
			print_cell((const char *)cell.data, widths[c], numbers[c], c + 1 == n);
		}
	}
	buffer_free(&cell);
}

void
output_json(json_t *document)
{
	(void)json_dumpf(document, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	(void)fputc('\n', stdout);
	json_decref(document);
}

enum ctl_exit
output_page(struct ctl *ctl, const char *name, json_t *rows,
            const struct output_column *columns, const char *empty, const char *option,
            const char *next)
{
	json_t *document;

	if (ctl->json) {
		document = json_object();
		json_object_set_new(document, name, rows);
		json_object_set_new(document, "next", output_text(next));
		output_json(document);
		return CTL_OK;
	}
	if (json_array_size(rows) == 0)
		printf("%s\n", empty);
	else
		print_table(rows, columns);
	if (next != NULL) {
		(void)fflush(stdout);
		(void)fprintf(stderr, "There may be more: go on with --%s %s\n", option, next);
	}
	json_decref(rows);
	return CTL_OK;
}

enum ctl_exit
output_list(struct ctl *ctl, const char *name, json_t *rows,
            const struct output_column *columns, const char *empty)
{
	json_t *document;

	if (!ctl->json)
		return output_page(ctl, name, rows, columns, empty, NULL, NULL);
	document = json_object();
	json_object_set_new(document, name, rows);
	output_json(document);
	return CTL_OK;
}

enum ctl_exit
output_record(struct ctl *ctl, json_t *record, const struct output_column *columns)
{
	struct buffer cell;
	size_t width = 0;

	if (ctl->json) {
		output_json(record);
		return CTL_OK;
	}
	for (const struct output_column *c = columns; c->key != NULL; c++)
		width = text_width(c->title) > width ? text_width(c->title) : width;
	buffer_init(&cell, CELL_MAX + 8);
	for (const struct output_column *c = columns; c->key != NULL; c++) {
		cell_text(&cell, json_object_get(record, c->key));
		printf("%s:%*s%s\n", c->title, (int)(width - text_width(c->title) + GAP), "",
		       (const char *)cell.data);
	}
	buffer_free(&cell);
	json_decref(record);
	return CTL_OK;
}

enum ctl_exit
output_done(struct ctl *ctl, json_t *record, const char *fmt, ...)
{
	va_list ap;

	if (ctl->json) {
		output_json(record);
		return CTL_OK;
	}
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	(void)fputc('\n', stdout);
	json_decref(record);
	return CTL_OK;
}

/* After a failed write errno is gone, but a pipe that nobody reads still says so. */
static bool
is_closed(void)
{
	struct pollfd fd = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLERR | POLLHUP)) != 0;
}

enum output_rc
output_flush(void)
{
	bool bad = fflush(stdout) != 0;
	const char *why = bad ? strerror(errno) : "is the disk full?";
	static bool told;

	if (!bad && ferror(stdout) == 0)
		return OUTPUT_OK;
	if (is_closed())
		return OUTPUT_CLOSED;
	if (!told)
		(void)fprintf(stderr, "tmtpctl: the output could not be written: %s\n", why);
	told = true;
	return OUTPUT_FAILED;
}
