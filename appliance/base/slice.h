/*
 * Borrowed memory: a pointer and a length, never freed through the slice.
 * Every parser in the project reads slices and hands out slices of its input.
 */
#ifndef TMTP_BASE_SLICE_H
#define TMTP_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
	const uint8_t *data; /* may be NULL when len is 0 */
	size_t len;          /* octets */
};

/* A slice of a string literal, without its NUL. */
#define SLICE(literal) ((struct slice){ (const uint8_t *)("" literal), sizeof(literal) - 1 })

/* A slice of a NUL-terminated string; borrows from s. NULL gives the empty slice. */
static inline struct slice
slice_str(const char *s)
{
	return (struct slice){ (const uint8_t *)s, s == NULL ? 0 : strlen(s) };
}

static inline struct slice
slice_mem(const void *data, size_t len)
{
	return (struct slice){ (const uint8_t *)data, len };
}

static inline bool
slice_eq(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool
slice_eq_str(struct slice a, const char *s)
{
	return slice_eq(a, slice_str(s));
}

/* Order of raw octets, a shorter one first when it is the other's beginning. Below 0, 0, above 0. */
static inline int
slice_cmp(struct slice a, struct slice b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int c = n == 0 ? 0 : memcmp(a.data, b.data, n);

	if (c != 0)
		return c;
	return a.len < b.len ? -1 : a.len > b.len;
}

#endif
