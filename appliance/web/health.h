/*
 * The operational listener of one role: /livez (the process answers), /readyz
 * (it could do its work now), /metrics (Prometheus text). Plain HTTP, one
 * thread, meant for loopback or an inner network.
 */
#ifndef TMTP_WEB_HEALTH_H
#define TMTP_WEB_HEALTH_H

#include "web/server.h"

struct web_health;
struct web_request;

struct web_health_options {
	const char *listen; /* "127.0.0.1:9101" */
	/*
	 * True: ready. False: reason (at most size octets with its NUL) says what
	 * is missing, without secrets. On a server thread; must not block. NULL: always ready.
	 */
	bool (*ready)(void *arg, char *reason, size_t size);
	void *arg;
};

enum web_rc web_health_start(const struct web_health_options *o, struct web_health **out,
                             char error[static WEB_ERROR_TEXT])
    __attribute__((warn_unused_result));
uint16_t web_health_port(const struct web_health *h);

/* The same, with a line in the log when it fails. Without an address: nothing, and true. */
bool web_health_begin(const struct web_health_options *o, struct web_health **out)
    __attribute__((warn_unused_result));

/*
 * /livez and /readyz of a listener that the public reaches too: the reason why
 * it isn't ready is the operator's, who reads it at his own.
 */
void web_health_on_livez(struct web_request *req, void *arg);
void web_health_say(struct web_request *req, bool draining, bool ready);

/* The role drains: /readyz says so from now on, whatever ready says. */
void web_health_drain(struct web_health *h);
void web_health_stop(struct web_health **h);

#endif
