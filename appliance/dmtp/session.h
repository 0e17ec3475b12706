/*
 * What the two session machines share: the greeting, the reasons for a close,
 * the waits that the protocol names. Times are the caller's monotonic
 * milliseconds; the machines have no clock.
 */
#ifndef TMTP_DMTP_SESSION_H
#define TMTP_DMTP_SESSION_H

#include "dmtp/address.h"
#include "dmtp/command.h"

#define DMTP_HANDSHAKE_MS \
	30000 /* STARTTLS to the end of the handshake; a client for its greeting */
#define DMTP_DRAIN_MS 10000 /* after X commands already sent are answered this long */
#define DMTP_LINGER_MS 2000 /* who closes first shuts its sending half and reads on */
#define DMTP_BAD_COMMANDS 20
#define DMTP_AUTH_FAILURES 3

#define DMTP_PORT_TLS 3688
#define DMTP_PORT_PLAIN 3687
#define DMTP_ALPN "dmtp/1"
#define DMTP_EXPORTER_LABEL "EXPORTER-dmtp"

struct dmtp_greeting {
	int64_t version; /* 1 */
	char host[DMTP_DOMAIN_MAX + 1];
	unsigned ext; /* DMTP_EXT_… */
	bool tls;     /* STARTTLS is offered */
	struct dmtp_limits limits;
};

void dmtp_greeting_encode(const struct dmtp_greeting *g, struct buffer *out);
/* False (out untouched): not a greeting, or limits below the floor. Any version is read. */
bool dmtp_greeting_decode(struct slice element, struct dmtp_greeting *out)
    __attribute__((warn_unused_result));

enum dmtp_close {
	DMTP_CLOSE_NONE = 0,
	DMTP_CLOSE_QUIT,    /* as agreed */
	DMTP_CLOSE_EOF,     /* the peer ended its stream */
	DMTP_CLOSE_DRAINED, /* X was said; everything is answered, or the time is up */
	DMTP_CLOSE_IDLE,
	DMTP_CLOSE_SLOW_COMMAND, /* server: a command was not complete in time */
	DMTP_CLOSE_STALLED,      /* the peer took no octet of what waits for it */
	DMTP_CLOSE_HANDSHAKE,    /* no handshake, or no greeting, in time */
	DMTP_CLOSE_NO_REPLY,     /* client: a command was not answered in time */
	DMTP_CLOSE_INJECTED,     /* octets behind STARTTLS or its K */
	DMTP_CLOSE_MALFORMED,    /* octets that are not canonical, or no greeting or response */
	DMTP_CLOSE_TOO_LARGE,
	DMTP_CLOSE_BAD_COMMANDS,
	DMTP_CLOSE_AUTH_FAILED, /* server: the third failure */
	DMTP_CLOSE_REFUSED,     /* Z instead of a greeting */
	DMTP_CLOSE_VERSION,     /* client: a protocol version that it does not know */
	DMTP_CLOSE_NO_TLS,      /* client: TLS is needed and not to be had */
	DMTP_CLOSE_UNASKED,     /* client: a reply that belongs to no command */
	DMTP_CLOSE_NO_MEMORY,
};

const char *dmtp_close_name(enum dmtp_close reason);

#endif
