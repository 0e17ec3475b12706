/* What a member decides about mail: whether she takes any, and from whom not. */
#ifndef TMTP_HOME_MAIL_CHANNEL_H
#define TMTP_HOME_MAIL_CHANNEL_H

#include "web/request.h"

web_handler on_mail_channel_get, on_mail_channel_open, on_mail_channel_close;
web_handler on_mail_block, on_mail_unblock;

#endif
