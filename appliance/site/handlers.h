/* The handlers of the role's routes, a file a subject; the table stands in routes.c. */
#ifndef TMTP_SITE_HANDLERS_H
#define TMTP_SITE_HANDLERS_H

#include "base/text.h"
#include "site/call.h"
#include "store/messages.h"
#include "web/request.h"
#include "web/server.h"

/* messages.c */
web_handler on_push;

/* status.c */
web_handler on_message_list, on_message_get, on_message_recipients;

/* recall.c */
web_handler on_message_recall;

/* channels.c */
web_handler on_channel_list, on_channel_get;

/* members.c */
web_handler on_member_add, on_member_list, on_member_get, on_member_remove;

/* pickup.c */
web_handler on_pickup;

/* uploads.c, attachments.c */
web_handler on_attachment_upload, on_attachment_get;

/* card.c */
web_handler on_card;

/* routes.c: the public listener's table. NULL: no memory. To be freed with free(). */
struct web_route *site_routes(const struct config *config, size_t *count);

/* --- channels.c ------------------------------------------------------------- */

struct channel_call;
typedef void channel_step(struct channel_call *call);

/* A call about one channel of the caller's, named in the path. Stands first in the handlers'
 * own. */
struct channel_call {
	struct call call;
	struct slice name; /* of the channel, in the request's memory */
	int64_t channel_id;
	channel_step *found;
	channel_step *missing; /* instead of a 404, or NULL */
};

/*
 * Finds the channel :channel of the call's site, in memory or in the store,
 * and goes on with found; 404 or 503 otherwise. found may run on the store's
 * thread: it must be short.
 */
void site_channel_find(struct channel_call *call, channel_step *found);

/* --- pickup.c ---------------------------------------------------------------- */

/*
 * Keeps a message that was just committed for those who fetch it in a moment.
 * Takes body, which was made by malloc.
 */
void site_body_keep(struct site *site, int64_t site_id, const struct uuid *message_id,
                    const uint8_t digest[static 32], bool shared, void *body, size_t len);

/* What caches are told: of a message's or an attachment's octets, and of what was recalled. */
#define SITE_PICKUP_GONE "public, max-age=60" /* takes the place of a cache's copy */
const char *site_pickup_caching(bool shared);

/* The digest in base32, in quotes. */
#define PICKUP_ETAG_TEXT (BASE32_LEN(32) + 3)
void site_pickup_etag(const uint8_t digest[static 32], char etag[static PICKUP_ETAG_TEXT]);

/* The message has been recalled: nobody gets it from memory any more. Any thread. */
void site_body_recalled(struct site *site, const struct uuid *message_id);

#endif
