/* Bounded growing buffers: see buffer.h. */
#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>

#define BUFFER_FIRST 256

void
buffer_init(struct buffer *b, size_t max)
{
	*b = (struct buffer){ .max = max };
}

void
buffer_free(struct buffer *b)
{
	free(b->data);
	buffer_init(b, b->max);
}

void
buffer_clear(struct buffer *b)
{
	b->len = 0;
	b->failed = false;
}

void
buffer_shrink(struct buffer *b, size_t keep)
{
	if (b->len == 0 && b->cap > keep) {
		free(b->data);
		b->data = NULL;
		b->cap = 0;
	}
}

uint8_t *
buffer_reserve(struct buffer *b, size_t n)
{
	size_t cap = b->cap == 0 ? BUFFER_FIRST : b->cap;
	uint8_t *data;

	if (b->failed || n > b->max || b->len > b->max - n) {
		b->failed = true;
		return NULL;
	}
	if (b->len + n <= b->cap && b->data != NULL)
		return b->data + b->len;
	while (cap < b->len + n)
		cap = cap > b->max / 2 ? b->max : cap * 2;
	if (cap > b->max)
		cap = b->max;
	data = realloc(b->data, cap == 0 ? 1 : cap);
	if (data == NULL) {
		b->failed = true;
		return NULL;
	}
	b->data = data;
	b->cap = cap;
	return b->data + b->len;
}

void
buffer_added(struct buffer *b, size_t n)
{
	b->len += n;
}

void
buffer_add(struct buffer *b, const void *data, size_t len)
{
	uint8_t *room;

	if (len == 0)
		return;
	room = buffer_reserve(b, len);
	if (room == NULL)
		return;
	memcpy(room, data, len);
	b->len += len;
}

void
buffer_add_slice(struct buffer *b, struct slice s)
{
	buffer_add(b, s.data, s.len);
}

void
buffer_add_str(struct buffer *b, const char *s)
{
	buffer_add(b, s, strlen(s));
}

void
buffer_add_u8(struct buffer *b, uint8_t c)
{
	buffer_add(b, &c, 1);
}

void
buffer_add_fmt(struct buffer *b, const char *fmt, ...)
{
	va_list ap;
	int n;
	uint8_t *room;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
		return;
	}
	room = buffer_reserve(b, (size_t)n + 1);
	if (room == NULL)
		return;
	va_start(ap, fmt);
	(void)vsnprintf((char *)room, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void
buffer_consume(struct buffer *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}
