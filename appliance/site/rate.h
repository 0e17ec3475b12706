/*
 * How often a site may push: a token bucket a site, in this process alone. It
 * holds a second's worth, so a burst of that size passes at once.
 */
#ifndef TMTP_SITE_RATE_H
#define TMTP_SITE_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rates;

/* per_second above 0. NULL: no memory. */
struct rates *rates_make(unsigned per_second);
void rates_free(struct rates **rates);

/* Takes one from the site's bucket. False: it is empty; *wait_s says when it isn't, at least 1.
 * Any thread. */
bool rates_take(struct rates *rates, int64_t site_id, int64_t now_us, unsigned *wait_s);

#endif
