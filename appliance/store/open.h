/* A role's store: by the configuration, and with the answer that /readyz wants. */
#ifndef TMTP_STORE_OPEN_H
#define TMTP_STORE_OPEN_H

#include "base/config.h"
#include "store/store.h"

/*
 * As this database role ("tmtp_site"), with config's database or the embedded
 * one; conninfo of options is filled in here. NULL: logged.
 */
struct store *store_open(const struct config *config, const char *role,
                         const struct store_options *options)
    __attribute__((warn_unused_result));

/* For web_health: arg is the store; reason begins with "database: ". */
bool store_is_ready(void *arg, char *reason, size_t size);

#endif
