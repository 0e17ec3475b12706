/*
 * Identifiers that the application makes: UUIDv7 (RFC 9562) for messages,
 * batches and notifications, 63-bit numbers for sites, accounts and the like.
 * Both begin with the time, so that rows made together lie together.
 */
#ifndef TMTP_BASE_ID_H
#define TMTP_BASE_ID_H

#include "base/slice.h"

struct uuid {
	uint8_t octets[16];
};

/* 8-4-4-4-12 characters and a NUL. */
#define UUID_TEXT 37

/* A new UUIDv7; of two made by one process the later one is the greater. Thread-safe. */
struct uuid uuid_make(void);

/* The least UUIDv7 of a wall-clock time: a bound for ranges and partitions. */
struct uuid uuid_floor(int64_t wall_us);

/* Wall-clock microseconds (whole milliseconds) that a UUIDv7 carries. */
int64_t uuid_time_us(const struct uuid *id);

void uuid_format(const struct uuid *id, char out[static UUID_TEXT]);

/* The lower-case form uuid_format writes, nothing else. False leaves out untouched. */
bool uuid_parse(struct slice text, struct uuid *out);

/* A new positive number: 41 bits of milliseconds since 2025, 22 bits that count and differ. */
int64_t id_make(void);

#endif
