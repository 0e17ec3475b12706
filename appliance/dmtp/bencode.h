/*
 * Bencoding (BEP 3) in DMTP's canonical form: keys sorted as raw strings and
 * unique, no leading zeros, no "-0", integers in int64, at most BEN_DEPTH
 * containers open. A scanner that finds where an element ends, a reader over
 * one complete element, and functions that append to a struct buffer.
 */
#ifndef TMTP_DMTP_BENCODE_H
#define TMTP_DMTP_BENCODE_H

#include "base/buffer.h"

#define BEN_DEPTH 8

enum ben_rc {
	BEN_OK = 0,
	BEN_MORE,  /* a valid start: ask again with more octets */
	BEN_BAD,   /* no canonical element begins like this */
	BEN_LIMIT, /* the element is longer than the limit, or a length in it says so */
};

/* --- scanner ------------------------------------------------------------ */

/* Private to bencode.c but for at. Fixed size, nothing to free. */
struct ben_scan {
	size_t at;    /* octets looked at; after BEN_OK the element's length */
	size_t limit; /* longest element */
	size_t skip;  /* octets of a string still to come */
	size_t key_at[BEN_DEPTH], key_len[BEN_DEPTH]; /* the last key of each open dictionary */
	size_t str_at, str_len;
	uint64_t number;
	uint8_t place[BEN_DEPTH];
	uint8_t depth, state, digits;
	bool negative;
};

void ben_scan_init(struct ben_scan *s, size_t limit);

/*
 * Looks on. data begins at the element's first octet; len is how much of it
 * (and of what follows it) is there: at each call the same octets and more,
 * wherever they now lie. Each octet is looked at once, but for keys, which are
 * compared with their neighbours. BEN_BAD and BEN_LIMIT are final.
 */
enum ben_rc ben_scan(struct ben_scan *s, const uint8_t *data, size_t len)
    __attribute__((warn_unused_result));

/* Exactly one canonical element, nothing behind it. BEN_MORE: it is cut. */
enum ben_rc ben_check(struct slice element, size_t limit) __attribute__((warn_unused_result));

/* --- reader ------------------------------------------------------------- */

enum ben_kind { BEN_END, BEN_INT, BEN_STR, BEN_LIST, BEN_DICT };

/*
 * A cursor over values that were scanned before. It stays within its octets
 * whatever they are. The error is sticky: after it every get answers 0 or
 * empty, ben_more is false, and bad is asked once at the end.
 */
struct ben_reader {
	const uint8_t *at, *end;
	const char *key; /* that ben_find was last asked for; once bad, where it went wrong */
	bool bad;
};

/* Reads element, or the values of a list's or dictionary's inside; borrows it. */
void ben_reader_init(struct ben_reader *r, struct slice values);

/* What stands next; BEN_END at the close of a container, at the end, or after an error. */
enum ben_kind ben_peek(const struct ben_reader *r);

/* Something stands before the close of the container. */
static inline bool
ben_more(const struct ben_reader *r)
{
	return !r->bad && r->at < r->end && *r->at != 'e';
}

/* The next value, moved past. Another kind is an error. Strings borrow. */
struct slice ben_get_str(struct ben_reader *r);
int64_t ben_get_int(struct ben_reader *r);

/* The octets of the next value, whatever it is, moved past. */
struct slice ben_get_raw(struct ben_reader *r);

/* The inside of the next list or dictionary (without "l"/"d" and "e"), moved past. */
struct slice ben_get_list(struct ben_reader *r);
struct slice ben_get_dict(struct ben_reader *r);

void ben_skip(struct ben_reader *r);

/* Into a container; out of it again, past whatever was not read. */
void ben_enter_list(struct ben_reader *r);
void ben_enter_dict(struct ben_reader *r);
void ben_leave(struct ben_reader *r);

/*
 * Within a dictionary, standing at a key: goes on to key. True: the cursor
 * stands at its value. False: absent; the cursor stands at the first greater
 * key. So keys are asked for in their sorted order.
 */
bool ben_find(struct ben_reader *r, const char *key);

/* How many values the inside of a list has. */
size_t ben_count(struct slice inside);

/* --- writer: appends; the caller writes dictionary keys in order --------- */

void ben_put_str(struct buffer *b, struct slice s);
void ben_put_text(struct buffer *b, const char *s); /* also for keys */
void ben_put_int(struct buffer *b, int64_t v);
void ben_put_list(struct buffer *b); /* opens */
void ben_put_dict(struct buffer *b); /* opens */
void ben_put_end(struct buffer *b);  /* closes */

#endif
