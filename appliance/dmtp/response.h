/*
 * Responses: ["I"|"X"|"K"|"E"|"Z", {…}?]. Decoding borrows from the element.
 */
#ifndef TMTP_DMTP_RESPONSE_H
#define TMTP_DMTP_RESPONSE_H

#include "dmtp/limits.h"

enum dmtp_letter {
	DMTP_I = 'I', /* information, unasked */
	DMTP_X = 'X', /* send no more commands */
	DMTP_K = 'K', /* done, and safe */
	DMTP_E = 'E', /* refused for good */
	DMTP_Z = 'Z', /* not now, try again */
};

enum dmtp_code {
	DMTP_CODE_NONE = 0,
	DMTP_CODE_CHANNEL_CLOSED,
	DMTP_CODE_THROTTLED,
	DMTP_CODE_STORAGE,
	DMTP_CODE_TOO_LARGE,
	DMTP_CODE_DUPLICATE_CONFLICT,
	DMTP_CODE_MALFORMED,
	DMTP_CODE_TLS_REQUIRED,
	DMTP_CODE_UNVERIFIED_SENDER,
	DMTP_CODE_NOT_NOW,
	DMTP_CODE_LIMIT,
	DMTP_CODE_UNKNOWN_COMMAND,
	DMTP_CODE_SHUTTING_DOWN,
	DMTP_CODE_OTHER, /* one that we do not know: judged by the letter */
};

/* For whom a code speaks. OTHER and NONE speak for the notification. */
enum dmtp_speaks { DMTP_SPEAKS_RCPT, DMTP_SPEAKS_NOTIFICATION, DMTP_SPEAKS_SESSION };

struct dmtp_response {
	enum dmtp_letter letter;
	enum dmtp_code code;
	struct slice code_raw; /* as received; when encoding only for OTHER */
	struct slice text;     /* at most DMTP_TEXT_MAX octets, UTF-8; a longer one is cut */
	uint32_t retry_s;      /* 0: absent */
	/* K only. Insides of bencoded containers; empty and has_… false when absent. */
	struct slice failed; /* triples: dmtp_failed_next, dmtp_failed_put */
	size_t failed_count; /* decoding only */
	bool has_channels;
	struct slice channels; /* pairs: dmtp_channels_… */
	bool has_events;
	struct slice
	    events; /* GRANT's dictionaries: dmtp_grant_next (command.h), dmtp_grant_put */
	struct slice next; /* the cursor that belongs to events */
	bool has_limits;
	struct dmtp_limits limits;
};

#define DMTP_RESPONSE_K ((struct dmtp_response){ .letter = DMTP_K })

static inline struct dmtp_response
dmtp_response_make(enum dmtp_letter letter, enum dmtp_code code, uint32_t retry_s)
{
	return (struct dmtp_response){ .letter = letter, .code = code, .retry_s = retry_s };
}

enum dmtp_response_rc { DMTP_RESPONSE_OK = 0, DMTP_RESPONSE_BAD };

/* One complete canonical element. BAD leaves out untouched. Borrows. */
enum dmtp_response_rc dmtp_response_decode(struct slice element, struct dmtp_response *out)
    __attribute__((warn_unused_result));

/* Appends the element. A retry outside 1…86400 is brought into it; 0 leaves it out. */
void dmtp_response_encode(const struct dmtp_response *r, struct buffer *out);

const char *dmtp_code_name(enum dmtp_code code); /* "" for NONE and OTHER */
/* What the code says in words, the same whoever asks; "" for NONE and OTHER. */
const char *dmtp_code_text(enum dmtp_code code);
enum dmtp_code dmtp_code_find(struct slice name);
enum dmtp_speaks dmtp_code_speaks(enum dmtp_code code);

/* --- K's "failed": [[index, letter, code]…], index from 0 ---------------- */

struct dmtp_failed {
	uint32_t index;
	enum dmtp_letter letter; /* E or Z */
	enum dmtp_code code;
	struct slice code_raw;
};

/* it was set by ben_reader_init(&it, response.failed). False: no more. */
bool dmtp_failed_next(struct ben_reader *it, struct dmtp_failed *out);
void dmtp_failed_put(struct buffer *inside, uint32_t index, enum dmtp_letter letter,
                     enum dmtp_code code);

/* --- K's "channels": {address: [{"id", "name"}…]} ------------------------ */

struct dmtp_open_channel {
	struct slice id;   /* a grant's 20 octets, or a well-known name */
	struct slice name; /* may be empty */
};

/* it over response.channels: the next address and the inside of its list. */
bool dmtp_channels_next(struct ben_reader *it, struct slice *address, struct slice *list);
/* it over that list. */
bool dmtp_open_channel_next(struct ben_reader *it, struct dmtp_open_channel *out);

/* Opens the entry of an address (the caller goes through them in sorted order, each once). */
void dmtp_channels_open(struct buffer *inside, struct slice address);
void dmtp_channels_put(struct buffer *inside, const struct dmtp_open_channel *c);
void dmtp_channels_close(struct buffer *inside);

/* "Z throttled: Come back later.", "X": the peer's own words, at most 150 octets of its text, for people. */
void dmtp_response_words(const struct dmtp_response *response, char *out, size_t size);

#endif
