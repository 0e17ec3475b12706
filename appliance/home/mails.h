/*
 * Mail that arrives: asked whether it may, read apart, stored for the members
 * who take it, shown to those who watch; answered after the commit. Members of
 * different domains share nothing, so a mail to several domains is stored
 * domain by domain.
 */
#ifndef TMTP_HOME_MAILS_H
#define TMTP_HOME_MAILS_H

#include "home/home.h"
#include "home/lmtp.h"

struct mails;

/* NULL: out of memory or threads. */
struct mails *mails_new(struct home *home);

/* After the store has stopped; calls nobody back. */
void mails_free(struct mails **mails);

/*
 * May this sender's mail go to this address? Paths as LMTP has them, borrowed
 * during the call. Calls done on the loop, perhaps before it returns.
 */
void mails_ask(struct mails *mails, struct slice sender, struct slice rcpt,
               void (*done)(void *arg, enum lmtp_answer answer), void *arg);

/*
 * A mail that s has whole (LMTP_EVENT_MESSAGE); takes its body, borrows the
 * rest during the call. Calls done on the loop with an answer for each of its
 * recipients: never YES before that one's entry is committed.
 */
void mails_take(struct mails *mails, struct lmtp *s,
                void (*done)(void *arg, const enum lmtp_answer *answers), void *arg);

/* Octets of mail that are on their way. */
size_t mails_held(const struct mails *mails);

#endif
