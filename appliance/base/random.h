/*
 * Random numbers without a system call each: libsodium's generator in the
 * process, seeded by the kernel, safe across fork and threads. Ids and salts
 * take two a message.
 */
#ifndef TMTP_BASE_RANDOM_H
#define TMTP_BASE_RANDOM_H

#include <stdbool.h>

/* Before anything else of libsodium's, once a process. False: the system gives no randomness. */
bool random_start(void) __attribute__((warn_unused_result));

#endif
