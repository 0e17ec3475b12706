/*
 * What a statement is made of, for the files of this room only: its text, its
 * parameter types, how jobs become parameters and rows become results.
 */
#ifndef TMTP_STORE_OP_H
#define TMTP_STORE_OP_H

#include "base/id.h"
#include "store/store.h"

#include <libpq-fe.h>

#define ARGS_MAX 28

/* Types of parameters (pg_type.dat). */
enum {
	T_BOOL = 16,
	T_BYTEA = 17,
	T_INT8 = 20,
	T_INT4 = 23,
	T_TEXT = 25,
	T_TIMESTAMPTZ = 1184,
	T_UUID = 2950,
	T_BOOLS = 1000,
	T_BYTEAS = 1001,
	T_INT4S = 1007,
	T_TEXTS = 1009,
	T_INT8S = 1016,
	T_TIMESTAMPTZS = 1185,
	T_UUIDS = 2951,
};

/* The parameters of one execution, in PostgreSQL's binary format. Columns are filled one element after the other. */
struct args {
	struct arg {
		struct buffer value;
		Oid type;
		bool is_array;
		bool is_null;
		uint32_t count;
	} arg[ARGS_MAX];
	unsigned n;
};

void args_bool(struct args *a, unsigned col, bool v);
void args_i32(struct args *a, unsigned col, int32_t v);
void args_i64(struct args *a, unsigned col, int64_t v);
void args_uuid(struct args *a, unsigned col, const struct uuid *v);
void args_text(struct args *a, unsigned col, const char *v);
void args_slice(struct args *a, unsigned col, struct slice v); /* text and bytea */
void args_time(struct args *a, unsigned col, int64_t wall_us); /* below 0: NULL */
void args_null(struct args *a, unsigned col);

/* Reading results, binary format. NULL is 0, the empty slice, or time -1. */
bool row_is_null(const PGresult *r, int row, int col);
bool row_bool(const PGresult *r, int row, int col);
int32_t row_i32(const PGresult *r, int row, int col);
int64_t row_i64(const PGresult *r, int row, int col);
struct uuid row_uuid(const PGresult *r, int row, int col);
struct slice row_slice(const PGresult *r, int row, int col); /* borrows from r */
int64_t row_time(const PGresult *r, int row, int col); /* wall microseconds, -1 for NULL */
/* A copy with a NUL behind it, to be freed; NULL for NULL. */
char *row_text(const PGresult *r, int row, int col);

/* Elements of a one-dimensional binary array: calls each(i, element or {NULL,0}). Returns the count. */
size_t row_array(const PGresult *r, int row, int col,
                 void (*each)(size_t i, struct slice v, void *arg), void *arg);

struct store_op {
	const char *name; /* the prepared statement's name; unique */
	const char *sql;
	const Oid *types; /* of the parameters, 0 ends */
	enum store_lane lane;
	unsigned batch_max; /* jobs one execution carries; 0 means 1 */
	bool repeatable;    /* executing it a second time after a lost answer changes nothing */
	/* Executed instead when an answer was lost: this one would not do a second time. NULL: it does. */
	const struct store_op *again;
	const char *wakes; /* NOTIFY this channel after the commit, or NULL */
	/* About how many octets a job brings, when they may be many; NULL: few. Large ones share no commit. */
	size_t (*octets)(const struct store_job *job);
	/* Fills the columns for all jobs. */
	void (*bind)(struct args *a, struct store_job *const *jobs, size_t n);
	/* Reads the rows into the jobs and sets rc of each (it is STORE_OK before). May be called again after a
	 * retry: it frees what it had set. NULL: the rows don't matter. */
	void (*rows)(const PGresult *r, struct store_job *const *jobs, size_t n);
};

/* upkeep.c's, for a connection that meets a day without partitions. */
extern const struct store_op upkeep_partitions_op;

#endif
