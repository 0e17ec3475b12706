/* The life of a statement's parameters; filling them stands in op.h. For the engine only. */
#ifndef TMTP_STORE_ARGS_H
#define TMTP_STORE_ARGS_H

#include "store/op.h"

void args_init(struct args *a);
void args_deinit(struct args *a);

/* Empties every column and sets the types (0 ends); keeps the memory. */
void args_begin(struct args *a, const Oid *types);

/* Closes arrays and fills libpq's vectors (ARGS_MAX each). False when a value grew beyond its limit. */
bool args_finish(struct args *a, const char **values, int *lengths, int *formats)
    __attribute__((warn_unused_result));

#endif
