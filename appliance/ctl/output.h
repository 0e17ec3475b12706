/*
 * What a command found or did, for people and for programs. Both forms come
 * from one JSON value: with --json it is the document, otherwise columns say
 * what of it is shown and how it is headed. Running out of memory ends the
 * program.
 */
#ifndef TMTP_CTL_OUTPUT_H
#define TMTP_CTL_OUTPUT_H

#include "ctl/ctl.h"

#include <jansson.h>

struct output_column {
	const char *key;   /* of the row's object; NULL ends the list */
	const char *title; /* "CREATED" above a table, "Created" before a value */
};

/* Before anything else. */
void output_init(void);

/* {name: rows}, or a table; empty is the sentence for no rows. Takes rows. */
enum ctl_exit output_list(struct ctl *ctl, const char *name, json_t *rows,
                          const struct output_column *columns, const char *empty);

/* The same for a page: next (NULL: there is no more) is the value of option that goes on behind these rows. */
enum ctl_exit output_page(struct ctl *ctl, const char *name, json_t *rows,
                          const struct output_column *columns, const char *empty,
                          const char *option, const char *next);

/* The object, or a line for each column. Takes record. */
enum ctl_exit output_record(struct ctl *ctl, json_t *record,
                            const struct output_column *columns);

/* The object, or a sentence. Takes record. */
enum ctl_exit output_done(struct ctl *ctl, json_t *record, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints text without anything that could steer a terminal. */
void output_plain(const char *text);

/* Writes the document. Takes it. */
void output_json(json_t *document);

/* Text as JSON; octets that aren't UTF-8 become "?". NULL gives null. */
json_t *output_text(const char *text);

/* Wall microseconds as RFC 3339; below 0 gives null. */
json_t *output_time(int64_t wall_us);

/* A 63-bit id: a string, since JavaScript rounds such numbers. */
json_t *output_id(int64_t id);

/* Words separated by blanks, as an array. */
json_t *output_words(const char *words);

enum output_rc {
	OUTPUT_OK = 0,
	OUTPUT_CLOSED, /* nobody reads it any more: no fault of a list (head, less) */
	OUTPUT_FAILED, /* a full disk or the like; told on standard error */
};

/* Writes what is still buffered. */
enum output_rc output_flush(void);

#endif
