/*
 * Strict JSON input (RFC 8259): one object in UTF-8, without duplicate names,
 * NUL, lone surrogates, numbers that don't fit or anything behind it.
 */
#ifndef TMTP_WEB_JSON_H
#define TMTP_WEB_JSON_H

#include "base/slice.h"

#include <jansson.h>

/* Containers open at once. */
#define WEB_JSON_DEPTH 16

enum web_body_rc {
	WEB_BODY_OK = 0,
	WEB_BODY_MALFORMED, /* not such JSON; the text says where */
	WEB_BODY_MEMORY
};

/*
 * Parses strictly; *out is owned by the caller (json_decref). error gets a
 * sentence with line and column, no part of the input.
 */
enum web_body_rc web_json_parse(struct slice text, json_t **out, char error[static 160])
    __attribute__((warn_unused_result));

#endif
