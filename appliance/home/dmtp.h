/*
 * Other servers' sessions: listening, TLS, and the life of each session. The
 * protocol is dmtp/server.h's; commands go to commands.c.
 */
#ifndef TMTP_HOME_DMTP_H
#define TMTP_HOME_DMTP_H

#include "dmtp/server.h"
#include "home/home.h"
#include "net/address.h"

struct dmtp_service;
struct dmtp_session;

/* Listens as config->home says. NULL: why says what failed. */
struct dmtp_service *dmtp_service_new(struct home *home, char why[static NET_TEXT]);

/* Certificates and pinned CAs again, from a configuration just loaded. */
bool dmtp_service_reload(struct dmtp_service *service, const struct config *loaded,
                         char why[static NET_TEXT]);

/* No new sessions; the others are told X and answered. */
void dmtp_service_drain(struct dmtp_service *service);
bool dmtp_service_is_quiet(const struct dmtp_service *service);
void dmtp_service_free(struct dmtp_service **service);

/* --- For the commands -------------------------------------------------------- */

/* Keeps the session's memory until the reply is given. */
void dmtp_session_hold(struct dmtp_session *s);

/* The reply to a command, and the end of its hold. Does nothing else when the session has ended. */
void dmtp_session_reply(struct dmtp_session *s, uint64_t seq,
                        const struct dmtp_response *response);

/* An I, unasked. Within a command's hold. */
void dmtp_session_inform(struct dmtp_session *s, const struct dmtp_response *info);

/* The session is verified for this domain now: by its certificate, or by AUTH with a key that still counts. */
bool dmtp_session_is_verified(const struct dmtp_session *s, struct slice domain);

/*
 * AUTH held: the session is verified for domain by this key of its card until
 * then (wall seconds). *limits: what holds from the reply on. False: no more
 * domains in this session.
 */
bool dmtp_session_prove(struct dmtp_session *s, const char *domain, const char *key,
                        int64_t until, struct dmtp_limits *limits);

/* The recipients' domain that the client named (SNI), if it is ours; else "". */
const char *dmtp_session_server(const struct dmtp_session *s);

/* It has ended: a reply would reach nobody. */
bool dmtp_session_is_over(const struct dmtp_session *s);

/* Keying material for AUTH. False: this TLS session can't give any. */
bool dmtp_session_exporter(const struct dmtp_session *s, uint8_t out[static 32]);

const struct net_address *dmtp_session_peer_address(const struct dmtp_session *s);

/* The peer's address, for log lines. */
const char *dmtp_session_address(const struct dmtp_session *s);

const struct dmtp_limits *dmtp_session_limits(const struct dmtp_session *s);

struct home *dmtp_session_home(const struct dmtp_session *s);

#endif
