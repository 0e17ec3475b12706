/* GRANTs of members here for sites elsewhere: claims them and sends them, until they are acknowledged. */
#ifndef TMTP_RELAY_GRANTS_H
#define TMTP_RELAY_GRANTS_H

#include "relay/relay.h"

struct grants *grants_new(struct relay *relay);
void grants_free(struct grants **grants);

/* Something may wait: look soon. */
void grants_wake(struct grants *grants);

#endif
