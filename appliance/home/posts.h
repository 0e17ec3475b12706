/*
 * Notifications that arrive: stored for those who granted the channel, then
 * acknowledged, then picked up. No answer, and no time that an answer takes,
 * tells anything about a member that the sender's own grant doesn't.
 */
#ifndef TMTP_HOME_POSTS_H
#define TMTP_HOME_POSTS_H

#include "home/dmtp.h"

struct posts *posts_new(struct home *home);
void posts_free(struct posts **posts);

/* A POST that was judged and passed, and its element's length; borrows during the call. Answers later. */
void posts_take(struct posts *posts, struct dmtp_session *s, uint64_t seq,
                const struct dmtp_post *post, size_t octets);

/* False: so much is under way that no session but one without any should bring more. */
bool posts_have_room(const struct posts *posts);

#endif
