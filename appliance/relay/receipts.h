/* Receipts of members here, on their way to the sites that they let know: a hundred a command. */
#ifndef TMTP_RELAY_RECEIPTS_H
#define TMTP_RELAY_RECEIPTS_H

#include "relay/relay.h"

struct receipts *receipts_new(struct relay *relay);
void receipts_free(struct receipts **receipts);

/* There may be some to send. */
void receipts_wake(struct receipts *receipts);

#endif
