/* Logging in and out: POST, GET and DELETE /v1/login. */
#ifndef TMTP_HOME_LOGIN_H
#define TMTP_HOME_LOGIN_H

#include "web/request.h"

struct api;

/* Makes the hash that stands for accounts that don't exist. False: no memory. */
bool login_prepare(struct api *api);

web_handler on_login, on_login_get, on_logout;

#endif
