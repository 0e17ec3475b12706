/*
 * A growing octet buffer with a maximum. A failed append leaves the content as
 * it was and marks the buffer failed; every later append is then a no-op, so a
 * writer appends freely and asks once at the end.
 */
#ifndef TMTP_BASE_BUFFER_H
#define TMTP_BASE_BUFFER_H

#include "base/slice.h"

#include <stdarg.h>

struct buffer {
	uint8_t *data; /* owned */
	size_t len;    /* octets in use */
	size_t cap;    /* octets allocated */
	size_t max;    /* cap never exceeds this */
	bool failed;   /* an append hit max or ran out of memory */
};

/* An empty buffer that never holds more than max octets. Allocates nothing. */
void buffer_init(struct buffer *b, size_t max);

/* Frees the memory; the buffer is as after buffer_init with the same max. */
void buffer_free(struct buffer *b);

/* Forgets the content and the failure, keeps the memory. */
void buffer_clear(struct buffer *b);

/* Gives memory beyond keep octets back when the buffer is empty. */
void buffer_shrink(struct buffer *b, size_t keep);

/* Room for n more octets behind the content, or NULL (failed). Content grows by buffer_added. */
uint8_t *buffer_reserve(struct buffer *b, size_t n);

/* n octets were written into what buffer_reserve gave. */
void buffer_added(struct buffer *b, size_t n);

void buffer_add(struct buffer *b, const void *data, size_t len);
void buffer_add_slice(struct buffer *b, struct slice s);
void buffer_add_str(struct buffer *b, const char *s);
void buffer_add_u8(struct buffer *b, uint8_t c);
void buffer_add_fmt(struct buffer *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Drops the first n octets (n <= len); the rest moves to the front. */
void buffer_consume(struct buffer *b, size_t n);

/* Borrows until the next change of the buffer. */
static inline struct slice
buffer_slice(const struct buffer *b)
{
	return (struct slice){ b->data, b->len };
}

#endif
