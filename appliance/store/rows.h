/* Copies of result values that outlive the result: for the files of this room only. */
#ifndef TMTP_STORE_ROWS_H
#define TMTP_STORE_ROWS_H

#include "store/op.h"

#include <stdlib.h>

/* Into a fixed array, cut to its size; "" for NULL. */
static inline void
row_copy(char *out, size_t cap, const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);
	size_t n = v.len < cap ? v.len : cap - 1;

	if (n > 0)
		memcpy(out, v.data, n);
	out[n] = '\0';
}

/* Octets to be freed; NULL (*len 0) for NULL or when memory is short. */
static inline uint8_t *
row_octets(const PGresult *r, int row, int col, size_t *len)
{
	struct slice v = row_slice(r, row, col);
	uint8_t *copy = v.data == NULL ? NULL : malloc(v.len + 1);

	*len = copy == NULL ? 0 : v.len;
	if (*len > 0)
		memcpy(copy, v.data, v.len);
	return copy;
}

/* Zeroed room for a result's rows; NULL when there are none, or with rc told when memory is short. */
static inline void *
rows_room(const PGresult *r, size_t size, struct store_job *job)
{
	int n = PQntuples(r);
	void *room = n == 0 ? NULL : calloc((size_t)n, size);

	if (n > 0 && room == NULL)
		job->rc = STORE_DOWN;
	return room;
}

#endif
