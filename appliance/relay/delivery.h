/*
 * One claimed batch on its way: its recipients page by page, the POSTs they
 * become, the answers, and what is written down at the end.
 */
#ifndef TMTP_RELAY_DELIVERY_H
#define TMTP_RELAY_DELIVERY_H

#include "relay/plan.h"

/* Takes batch (claimed for the pair); tells plan_delivered when it is over, whatever happened. */
void delivery_begin(struct pair *pair, struct queue_batch *batch);

#endif
