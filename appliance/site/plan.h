/*
 * From the body of a push to what is stored: recipients, lane, expiry, and the
 * canonical message with its digest. Pure: no request, no store, no clock.
 */
#ifndef TMTP_SITE_PLAN_H
#define TMTP_SITE_PLAN_H

#include "base/buffer.h"
#include "dmtp/message.h"
#include "store/pushes.h"
#include "web/body.h"

#define PLAN_SUBJECT_MAX 200 /* characters */
/* A placeholder without a value, or a value without a placeholder. */
extern const struct web_problem plan_unknown_variable; /* 422 */

#define PLAN_LABEL_MAX 80 /* characters of an action's label */
#define PLAN_EXPIRES_MIN_S 60
#define PLAN_EXPIRES_MAX_S 2592000

/* The media type of an action's data: "# <label>" CR LF "<url>" CR LF (RFC 2483). */
#define PLAN_ACTION_TYPE "text/uri-list"

/* Who pushes, where and when. */
struct plan_origin {
	struct slice site, domain, channel; /* names; borrowed during site_plan_make */
	int64_t date_s;
	uint8_t salt[16]; /* random, unique */
	size_t message_max_bytes;
	/* What "attachments" of the body has become (site/attached.h); borrowed likewise. */
	const struct dmtp_field *attached;
	size_t attached_n;
};

struct plan {
	enum push_audience audience;
	enum push_lane lane;
	int64_t expires_s;       /* from now; 0: never */
	struct push_rcpt *rcpts; /* owned, as what they point to */
	size_t rcpts_n;
	bool has_values; /* of recipients, for variables; they stand in `values` */
	struct buffer values;
	bool is_replacement; /* of `earlier` */
	struct uuid earlier;
	uint16_t *rcpts_at;    /* where each stands in "to", when that is a list; else NULL */
	struct buffer message; /* the canonical message */
	uint8_t digest[32];
};

enum plan_rc {
	PLAN_OK = 0,
	PLAN_INVALID,   /* errors says what */
	PLAN_TOO_LARGE, /* the message is longer than message_max_bytes */
	PLAN_MEMORY,
};

/*
 * json: a push as site/API.md describes it. *out is to be freed by site_plan_free
 * in any case; it borrows nothing.
 */
enum plan_rc site_plan_make(const json_t *json, const struct plan_origin *origin,
                            struct plan *out, struct web_errors *errors)
    __attribute__((warn_unused_result));

/*
 * An invitation to this member's address (normalised): the channel's title as
 * the subject, and the site's own words, if any, as the message.
 */
enum plan_rc site_plan_invitation(const struct plan_origin *origin, struct slice to,
                                  struct slice title, struct slice text, struct plan *out)
    __attribute__((warn_unused_result));

/* The same message with another date, and its new digest. False: no memory; or the dates aren't of one length. */
bool site_plan_redate(struct plan *plan, int64_t date_s) __attribute__((warn_unused_result));

void site_plan_free(struct plan *plan);

/* An invitation's own words: 1 to 140 characters, one paragraph, nothing that looks like a
 * link. */
bool site_plan_words_valid(struct slice text);

/* Well-formed text of min to max characters without controls; lines: LF, CR and TAB are
 * allowed. */
bool site_plan_text_valid(struct slice text, size_t min, size_t max, bool lines);

#endif
