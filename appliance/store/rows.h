/* Copies of result values that outlive the result, and SQL that several share: for the files of this room only. */
#ifndef TMTP_STORE_ROWS_H
#define TMTP_STORE_ROWS_H

#include "store/op.h"

#include <stdlib.h>

/*
 * Greater than any member's name, which has at most 64 octets: the end of a
 * range whose next_member is NULL. "next IS NULL OR member < next" would not
 * be a bound of the index: everything behind the range would be read.
 */
#define SQL_MEMBER_LAST "repeat(chr(1114111), 17)"

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

/* A store_op's rows when any row means that the thing was there. */
static inline void
rows_found(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	(void)n;
	if (PQntuples(r) == 0)
		jobs[0]->rc = STORE_NOT_FOUND;
}

/* What a change of an administrator's answers as its one number. */
enum row_verdict { ROW_FINE, ROW_NO_SUCH, ROW_TAKEN };

/* A store_op's rows for it: STORE_OK, STORE_NOT_FOUND or STORE_CONFLICT. */
static inline void
rows_verdict(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	static const enum store_rc rcs[] = {
		[ROW_FINE] = STORE_OK,
		[ROW_NO_SUCH] = STORE_NOT_FOUND,
		[ROW_TAKEN] = STORE_CONFLICT,
	};

	(void)n;
	jobs[0]->rc = PQntuples(r) == 1 ? rcs[row_i32(r, 0, 0)] : STORE_REFUSED;
}

#endif
