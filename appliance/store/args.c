/*
 * Parameters and results in PostgreSQL's binary format: see op.h. Formats:
 * src/backend/utils/adt/{arrayfuncs,timestamp,uuid}.c of PostgreSQL 15.
 */
#include "store/args.h"

#include <stdlib.h>

#define ARG_MAX_OCTETS ((size_t)512 << 20) /* half of PostgreSQL's own limit of a value */
#define ARG_KEEP_OCTETS ((size_t)4 << 20)
#define PG_EPOCH_US INT64_C(946684800000000) /* 2000-01-01T00:00:00Z in Unix microseconds */
#define ARRAY_HEAD 20

static Oid
element_type(Oid type)
{
	switch (type) {
	case T_BOOLS:
		return T_BOOL;
	case T_BYTEAS:
		return T_BYTEA;
	case T_INT4S:
		return T_INT4;
	case T_TEXTS:
		return T_TEXT;
	case T_INT8S:
		return T_INT8;
	case T_TIMESTAMPTZS:
		return T_TIMESTAMPTZ;
	case T_UUIDS:
		return T_UUID;
	default:
		return 0;
	}
}

static void
put_u32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void
put_u64(uint8_t *p, uint64_t v)
{
	put_u32(p, (uint32_t)(v >> 32));
	put_u32(p + 4, (uint32_t)v);
}

static uint32_t
get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t
get_u64(const uint8_t *p)
{
	return (uint64_t)get_u32(p) << 32 | get_u32(p + 4);
}

void
args_init(struct args *a)
{
	*a = (struct args){ .n = 0 };
	for (unsigned i = 0; i < ARGS_MAX; i++)
		buffer_init(&a->arg[i].value, ARG_MAX_OCTETS);
}

void
args_deinit(struct args *a)
{
	for (unsigned i = 0; i < ARGS_MAX; i++)
		buffer_free(&a->arg[i].value);
}

void
args_begin(struct args *a, const Oid *types)
{
	for (a->n = 0; types[a->n] != 0; a->n++) {
		struct arg *arg = &a->arg[a->n];
		uint8_t head[ARRAY_HEAD];

		buffer_clear(&arg->value);
		buffer_shrink(&arg->value, ARG_KEEP_OCTETS);
		arg->type = types[a->n];
		arg->is_array = element_type(arg->type) != 0;
		arg->is_null = !arg->is_array;
		arg->count = 0;
		if (arg->is_array) {
			put_u32(head, 1);     /* dimensions */
			put_u32(head + 4, 1); /* there may be NULLs */
			put_u32(head + 8, element_type(arg->type));
			put_u32(head + 12, 0); /* elements: set at the end */
			put_u32(head + 16, 1); /* the first one's index */
			buffer_add(&arg->value, head, sizeof(head));
		}
	}
}

bool
args_finish(struct args *a, const char **values, int *lengths, int *formats)
{
	bool good = true;

	for (unsigned i = 0; i < a->n; i++) {
		struct arg *arg = &a->arg[i];

		if (arg->is_array && arg->value.len >= ARRAY_HEAD)
			put_u32(arg->value.data + 12, arg->count);
		/* An empty text is a value: never a NULL pointer, which would say NULL. */
		values[i] = arg->is_null              ? NULL
		            : arg->value.data == NULL ? ""
		                                      : (char *)arg->value.data;
		lengths[i] = (int)arg->value.len;
		formats[i] = 1;
		good = good && !arg->value.failed;
	}
	return good;
}

/* Room for one element or scalar of len octets. */
static uint8_t *
arg_room(struct args *a, unsigned col, size_t len)
{
	struct arg *arg = &a->arg[col];
	uint8_t *p;

	if (!arg->is_array) {
		buffer_clear(&arg->value);
		arg->is_null = false;
		p = buffer_reserve(&arg->value, len);
		if (p != NULL)
			buffer_added(&arg->value, len);
		return p;
	}
	p = buffer_reserve(&arg->value, len + 4);
	if (p == NULL)
		return NULL;
	put_u32(p, (uint32_t)len);
	buffer_added(&arg->value, len + 4);
	arg->count++;
	return p + 4;
}

void
args_bool(struct args *a, unsigned col, bool v)
{
	uint8_t *p = arg_room(a, col, 1);

	if (p != NULL)
		*p = v;
}

void
args_i32(struct args *a, unsigned col, int32_t v)
{
	uint8_t *p = arg_room(a, col, 4);

	if (p != NULL)
		put_u32(p, (uint32_t)v);
}

void
args_i64(struct args *a, unsigned col, int64_t v)
{
	uint8_t *p = arg_room(a, col, 8);

	if (p != NULL)
		put_u64(p, (uint64_t)v);
}

void
args_uuid(struct args *a, unsigned col, const struct uuid *v)
{
	uint8_t *p = arg_room(a, col, sizeof(v->octets));

	if (p != NULL)
		memcpy(p, v->octets, sizeof(v->octets));
}

void
args_slice(struct args *a, unsigned col, struct slice v)
{
	uint8_t *p = arg_room(a, col, v.len);

	if (p != NULL && v.len > 0)
		memcpy(p, v.data, v.len);
}

void
args_text(struct args *a, unsigned col, const char *v)
{
	if (v == NULL)
		args_null(a, col);
	else
		args_slice(a, col, slice_str(v));
}

void
args_time(struct args *a, unsigned col, int64_t wall_us)
{
	if (wall_us < 0)
		args_null(a, col);
	else
		args_i64(a, col, wall_us - PG_EPOCH_US);
}

void
args_null(struct args *a, unsigned col)
{
	struct arg *arg = &a->arg[col];
	uint8_t *p;

	if (!arg->is_array) {
		arg->is_null = true;
		return;
	}
	p = buffer_reserve(&arg->value, 4);
	if (p == NULL)
		return;
	put_u32(p, UINT32_MAX);
	buffer_added(&arg->value, 4);
	arg->count++;
}

bool
row_is_null(const PGresult *r, int row, int col)
{
	return PQgetisnull(r, row, col) == 1;
}

struct slice
row_slice(const PGresult *r, int row, int col)
{
	if (row_is_null(r, row, col))
		return (struct slice){ NULL, 0 };
	return slice_mem(PQgetvalue(r, row, col), (size_t)PQgetlength(r, row, col));
}

bool
row_bool(const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);

	return v.len == 1 && v.data[0] != 0;
}

int32_t
row_i32(const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);

	return v.len == 4 ? (int32_t)get_u32(v.data) : 0;
}

int64_t
row_i64(const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);

	return v.len == 8 ? (int64_t)get_u64(v.data) : 0;
}

struct uuid
row_uuid(const PGresult *r, int row, int col)
{
	struct slice v = row_slice(r, row, col);
	struct uuid id = { { 0 } };

	if (v.len == sizeof(id.octets))
		memcpy(id.octets, v.data, v.len);
	return id;
}

int64_t
row_time(const PGresult *r, int row, int col)
{
	if (row_is_null(r, row, col))
		return -1;
	return row_i64(r, row, col) + PG_EPOCH_US;
}

char *
row_text(const PGresult *r, int row, int col)
{
	if (row_is_null(r, row, col))
		return NULL;
	return strdup(PQgetvalue(r, row, col));
}

size_t
row_array(const PGresult *r, int row, int col,
          void (*each)(size_t i, struct slice v, void *arg), void *arg)
{
	struct slice v = row_slice(r, row, col);
	size_t at = ARRAY_HEAD, n, i;

	if (v.len < ARRAY_HEAD || get_u32(v.data) != 1)
		return 0;
	n = get_u32(v.data + 12);
	for (i = 0; i < n && v.len - at >= 4; i++) {
		uint32_t len = get_u32(v.data + at);

		at += 4;
		if (len == UINT32_MAX) {
			each(i, (struct slice){ NULL, 0 }, arg);
			continue;
		}
		if (len > v.len - at)
			break;
		each(i, slice_mem(v.data + at, len), arg);
		at += len;
	}
	return i;
}
