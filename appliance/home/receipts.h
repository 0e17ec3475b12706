/* RECEIPT of other servers: what their members let sites here know. */
#ifndef TMTP_HOME_RECEIPTS_H
#define TMTP_HOME_RECEIPTS_H

#include "home/dmtp.h"

/* A RECEIPT that was judged and passed; borrows during the call. octets: of its element. Answers later. */
void receipts_take(struct dmtp_session *s, uint64_t seq, const struct dmtp_receipt *receipt,
                   size_t octets);

#endif
