/*
 * JSON bodies. Their fields are read by a table, so that what is unknown,
 * missing or of the wrong type is told by JSON pointer (RFC 6901).
 */
#ifndef TMTP_WEB_BODY_H
#define TMTP_WEB_BODY_H

#include "base/slice.h"
#include "web/json.h"
#include "web/problem.h"

struct web_request;

/* Errors that one answer tells. */
#define WEB_ERRORS_MAX 16

enum web_field_type {
	WEB_STRING,  /* out: struct slice; min and max count octets */
	WEB_INT,     /* out: int64_t; min and max bound the value */
	WEB_BOOL,    /* out: bool */
	WEB_STRINGS, /* out: struct web_strings; a string or several; min and max count them */
	WEB_OBJECT,  /* out: const json_t * */
	WEB_ARRAY,   /* out: const json_t *; min and max count items */
	WEB_ANY      /* out: const json_t * */
};

/* One string or a list of them; borrows from the JSON. */
struct web_strings {
	const json_t *json;
	size_t count;
};

struct slice web_strings_at(const struct web_strings *s, size_t i);

enum web_field_flag {
	WEB_REQUIRED = 1,
	WEB_NULLABLE = 2 /* null reads as absent */
};

/*
 * { "title", WEB_STRING, WEB_REQUIRED, offsetof(struct push, title), .max = 200 }
 * An absent field leaves its place in out untouched. max 0 means no upper bound for strings
 * and lists; an int with min 0 and max 0 takes any int64.
 */
struct web_field {
	const char *name;
	enum web_field_type type;
	unsigned flags;
	size_t offset; /* in the caller's struct */
	int64_t min, max;
	bool (*check)(struct slice value); /* strings, and each of WEB_STRINGS; NULL: any */
	const char *expected; /* what check wants: "a channel's name, [a-z0-9-]{1,30}" */
};

/* What was wrong so far; kind is the first error's. Zero it before, free it after. */
struct web_errors {
	const struct web_problem *kind;
	json_t *list; /* owned */
	size_t count;
};

/* Adds one; pointer is "/to/3". From 16 on they are only counted. */
void web_errors_add(struct web_errors *errors, const struct web_problem *kind,
                    const char *pointer, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));
void web_errors_free(struct web_errors *errors);

/*
 * Reads object's fields into out by the table. pointer is object's own, ""
 * for the root. False when anything was wrong: errors then says what.
 */
bool web_fields_read(const json_t *object, const char *pointer, const struct web_field *fields,
                     size_t n_fields, void *out, struct web_errors *errors)
    __attribute__((warn_unused_result));

/* Answers the request with what errors holds, and frees them. */
void web_reply_errors(struct web_request *req, struct web_errors *errors);

/*
 * All of it: 415, parse, read. True: *json (owned by the caller) holds what out
 * borrows. False: the request has been answered.
 */
bool web_body_read(struct web_request *req, const struct web_field *fields, size_t n_fields,
                   void *out, json_t **json) __attribute__((warn_unused_result));

#endif
