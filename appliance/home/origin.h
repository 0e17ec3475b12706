/* Messages that members wrote, as other servers pick them up: GET /m/:site/:message/:digest. */
#ifndef TMTP_HOME_ORIGIN_H
#define TMTP_HOME_ORIGIN_H

#include "web/request.h"

web_handler on_origin;

#endif
