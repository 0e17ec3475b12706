/* The words for numbers of the tables that more than one command shows. */
#ifndef TMTP_CTL_NAMES_H
#define TMTP_CTL_NAMES_H

/* enum push_audience: "one", "list", "channel", "invitation". */
const char *name_of_audience(int audience);

/* enum push_lane: "urgent", "normal", "bulk". */
const char *name_of_lane(int lane);

/* A batch's state: "waiting", "done", "dead", "held", "dropped". */
const char *name_of_batch_state(int state);

#endif
