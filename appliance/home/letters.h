/* What members write to each other: sending, what became of it, conversations. */
#ifndef TMTP_HOME_LETTERS_H
#define TMTP_HOME_LETTERS_H

#include "web/request.h"

web_handler on_letter_send, on_letter_list, on_letter_get;

#endif
