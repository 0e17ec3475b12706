/*
 * What a member sees of an entry, as JSON: from the canonical message and this
 * member's variables. Text is inserted escaped by the field's type; HTML goes
 * through as a string that nobody here trusts: who shows it sanitises it.
 */
#ifndef TMTP_HOME_VIEW_H
#define TMTP_HOME_VIEW_H

#include "base/id.h"
#include "dmtp/message.h"
#include "store/inboxes.h"

#include <jansson.h>

/* Octets of a subject and a text in the list form; a longer one is cut at a character. */
#define VIEW_SUBJECT_MAX 1000
/* As much of a body as the list form looks at: a subject that begins behind it isn't shown. */
#define VIEW_LIST_OCTETS 16384
/* Characters of an invitation's own words. */
#define VIEW_WORDS_MAX 140

/* An entry of somebody's inbox; borrows. */
struct view_entry {
	struct uuid id;              /* the entry's */
	struct uuid notification_id; /* with changed_us its place among the events */
	struct slice from, channel;
	int64_t date_s, arrived_us, read_us; /* read -1: not yet */
	int64_t changed_us;
	bool withdrawn;
	struct slice body; /* the canonical message or, for the list form, a beginning of it */
	struct slice variables; /* a whole dictionary, or empty */
	bool mail; /* from is our gateway; who wrote it nobody verified (store/mails.h) */
	struct slice mail_sender, mail_from, mail_address;
};

struct view_entry view_of_row(const struct inbox_row *row);

/*
 * {"id","from","channel","subject","text"?,"date","arrived","read","replaced"?,"withdrawn"?};
 * the subject is null when there is none; text is a person's message, or its
 * beginning. Mail has also {"verified": false, "mail": {"from","address","sender"}}.
 * Never fails for a body's sake.
 */
json_t *view_list_form(const struct view_entry *entry);

/*
 * {"subject","message":[{"type","text","lang"?}…],"actions":[{"label","url"}…],
 *  "attachments":[{"type","size","url"?}…]}
 * NULL: the body doesn't decode, or no memory. An attachment's url is the
 * path of view_attachment; one that isn't here has none.
 */
json_t *view_fields(const struct view_entry *entry);

enum view_attached {
	VIEW_ATTACHED_NONE = 0,
	VIEW_ATTACHED_HERE, /* in the message: *out has its octets, borrowed from body */
	VIEW_ATTACHED_LARGE /* the message only names it */
};

/* The message's attachment number n, from 0. */
enum view_attached view_attachment(struct slice body, uint64_t n, struct slice *out);

/*
 * An invitation's own words as a string: plain text only, one paragraph of at
 * most VIEW_WORDS_MAX characters, without what looks like a link. null: none.
 */
json_t *view_words(struct slice body);

/* Nothing in the words looks like a link or an address. */
bool view_words_are_plain(struct slice words);

/* "2026-11-21T23:01:24Z"; null below 0. */
json_t *view_time(int64_t wall_us);

/* --- The order of events: "<changed_us>-<notification uuid>" ------------------- */

struct view_cursor {
	int64_t changed_us;
	struct uuid id; /* the notification's */
};

/* Characters of a cursor and a NUL. */
#define VIEW_CURSOR_TEXT (20 + UUID_TEXT)

/* Where this entry's event stands. */
struct view_cursor view_cursor_of(const struct view_entry *entry);

void view_cursor_format(const struct view_cursor *cursor, char out[static VIEW_CURSOR_TEXT]);

/* The form view_cursor_format writes. False: out untouched. */
bool view_cursor_parse(struct slice text, struct view_cursor *out);

/* Below 0, 0, above 0. */
int view_cursor_cmp(const struct view_cursor *a, const struct view_cursor *b);

#endif
