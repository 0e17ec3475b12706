/*
 * Where an appliance serves its own messages: <base>/m/<site>/<message>/<digest>,
 * the site's number (8 octets, big-endian) and the digest in base32, the message's
 * id as a UUID. The digest makes it a capability; the other two find the row. A
 * large attachment has <base>/m/a/<site>/<attachment>/<digest>: it has no salt, so
 * there the random part of its id makes it one.
 */
#ifndef TMTP_DMTP_PICKUP_H
#define TMTP_DMTP_PICKUP_H

#include "base/buffer.h"
#include "base/id.h"
#include "base/text.h"
#include "dmtp/limits.h"

/* A site's number as text: 13 characters. */
#define DMTP_SITE_TEXT (BASE32_LEN(8) + 1)

/* What a pickup path names. */
struct dmtp_pickup {
	int64_t site_id;
	struct uuid message_id; /* or the attachment's */
	uint8_t digest[32];
	bool attachment;
};

void dmtp_site_format(int64_t site_id, char out[static DMTP_SITE_TEXT]);

/* The form dmtp_site_format writes, and positive. False leaves out untouched. */
bool dmtp_site_parse(struct slice text, int64_t *out);

/* Appends the URI; base is "https://host[:port][/path]" without a trailing slash. */
void dmtp_pickup_uri(struct buffer *out, struct slice base, const struct dmtp_pickup *pickup);

/* URIs of one message, at most: what every receiver takes in a POST, its own among them. */
#define DMTP_PICKUP_URIS DMTP_FLOOR_URIS

/*
 * Appends them to a list, as bencoded strings in the order in which they are tried: at the
 * others, which are there to take the load, as far as they fit, then at own, which is never
 * left out, since 410 counts from there alone.
 */
void dmtp_pickup_put_uris(struct buffer *list, char *const *others, size_t others_n,
                          const char *own, const struct dmtp_pickup *pickup);

/*
 * How many milliseconds a home server waits before it picks a message up, so
 * that not all fetch at the same moment what was sent to many: none for an
 * ordinary one, else at random up to one for each member that was notified here,
 * at most a second. random: any number, all equally likely.
 */
#define DMTP_PICKUP_MANY 100
int64_t dmtp_pickup_delay_ms(size_t members, uint32_t random);

/* The three segments behind "/m/" or "/m/a/", each exactly as dmtp_pickup_uri writes it. False leaves out
 * untouched. */
bool dmtp_pickup_parse(struct slice site, struct slice message, struct slice digest,
                       struct dmtp_pickup *out);

#endif
