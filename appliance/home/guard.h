/*
 * How often somebody may try: token buckets by name, in this process alone and
 * in bounded memory. When too many are kept the ones nearest to full go first.
 */
#ifndef TMTP_HOME_GUARD_H
#define TMTP_HOME_GUARD_H

#include "base/slice.h"

struct guard_rule {
	char kind;        /* keeps the names of different rules apart */
	unsigned burst;   /* how much a bucket holds */
	int64_t every_us; /* one is added each time */
};

struct guard;

/* Keeps at most about buckets of them. NULL: no memory. */
struct guard *guard_make(size_t buckets);
void guard_free(struct guard **guard);

/* Takes one from name's bucket. False: it is empty; *wait_s says when it isn't, at least 1. Any
 * thread. */
bool guard_take(struct guard *guard, const struct guard_rule *rule, struct slice name,
                int64_t now_us, unsigned *wait_s);

/*
 * Takes n, also more than there are: who is in debt already is refused
 * (false), and nothing is taken. *wait_s: until the debt is over, at least 1;
 * 0: there is none, now.
 */
bool guard_spend(struct guard *guard, const struct guard_rule *rule, struct slice name,
                 size_t n, int64_t now_us, unsigned *wait_s);

/* Takes one, whether it is there or not: what came at once is paid for by what comes later. */
void guard_charge(struct guard *guard, const struct guard_rule *rule, struct slice name,
                  int64_t now_us);

/* Nothing is left in name's bucket: guard_take would refuse. Takes nothing, and makes no bucket. */
bool guard_is_empty(struct guard *guard, const struct guard_rule *rule, struct slice name,
                    int64_t now_us);

/* Gives one back: it was no attempt to be counted. */
void guard_give(struct guard *guard, const struct guard_rule *rule, struct slice name,
                int64_t now_us);

#endif
