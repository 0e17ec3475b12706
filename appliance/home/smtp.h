/*
 * The door for mail: the local mail server's LMTP sessions. The protocol is
 * lmtp.h's; what becomes of mail is mails.h's.
 */
#ifndef TMTP_HOME_SMTP_H
#define TMTP_HOME_SMTP_H

#include "home/home.h"
#include "net/address.h"

struct smtp;

/* Listens as config->home.lmtp says, perhaps nowhere. NULL: why says what failed. */
struct smtp *smtp_new(struct home *home, char why[static NET_TEXT]);

/* No new sessions; what is under way is answered, then they are told 421. */
void smtp_drain(struct smtp *smtp);
bool smtp_is_quiet(const struct smtp *smtp);
void smtp_free(struct smtp **smtp);

#endif
