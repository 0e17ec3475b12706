/*
 * Large attachments of messages that arrived: fetched after their message, once
 * for all its members and processes, over their URIs in order, in ranges, and
 * shown once all of it is verified. Nothing waits for them. A lease in the store
 * is the lock; what a process leaves undone another one goes on with, from where
 * it was left.
 */
#ifndef TMTP_HOME_COPIES_H
#define TMTP_HOME_COPIES_H

#include "home/home.h"
#include "store/copies.h"

/* NULL: no memory. */
struct copies *copies_new(struct home *home);

/* After the loop has stopped. */
void copies_free(struct copies **copies);

/*
 * Stores which large attachments a verified message has. False: it has none, and
 * fn isn't called. body is borrowed until fn, which says whether they are stored.
 */
struct copies_announce;
bool copies_announce(struct copies *copies, const struct uuid *notification_id,
                     struct slice body, struct copies_announce **out,
                     void (*fn)(void *arg, bool stored), void *arg);

/* No fn follows; sets *announce to NULL. NULL is harmless. */
void copies_announce_cancel(struct copies_announce **announce);

/* A message that was shown already got more members. */
void copies_rouse(struct copies *copies, const struct uuid *notification_id);

/* Looks for work. */
void copies_wake(struct copies *copies);

struct home *copies_home(const struct copies *copies);

/* What the configuration allows. */
struct copy_limits copies_limits(const struct home *home);

#endif
