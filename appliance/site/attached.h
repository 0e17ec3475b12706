/*
 * "attachments" of a push: which uploaded attachments it names, and the fields
 * that they become in its message.
 */
#ifndef TMTP_SITE_ATTACHED_H
#define TMTP_SITE_ATTACHED_H

#include "base/buffer.h"
#include "base/config.h"
#include "dmtp/message.h"
#include "store/attachments.h"
#include "web/body.h"

/* 422: a push names an attachment that this site hasn't. */
extern const struct web_problem attached_unknown;

struct attached {
	struct attachment_named named[ATTACHMENTS_NAMED_MAX];
	size_t n;
	struct dmtp_field fields[ATTACHMENTS_NAMED_MAX]; /* borrow from named and uris */
	struct buffer uris;                              /* owned; freed by buffer_free */
};

/* From the body of a push; n is 0 when it has none. False: errors says what is wrong. */
bool attached_read(const json_t *body, struct attached *out, struct web_errors *errors)
    __attribute__((warn_unused_result));

/* Makes the fields, once all are found. False: no memory. */
bool attached_make(struct attached *a, const struct config_site *site, int64_t site_id)
    __attribute__((warn_unused_result));

/* "errors" of the answer when some are not found. */
json_t *attached_missing(const struct attached *a);

/* A digest as the API writes it: 64 hexadecimal digits, lower case. */
#define ATTACHED_DIGEST_TEXT 65
void attached_digest_text(const uint8_t digest[static 32],
                          char out[static ATTACHED_DIGEST_TEXT]);

#endif
