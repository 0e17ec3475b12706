/*
 * What can be wrong with a request, as problem details (RFC 9457): a stable
 * type URI, a title, a status. One table; rooms above add kinds of their own
 * as constants of the same struct.
 */
#ifndef TMTP_WEB_PROBLEM_H
#define TMTP_WEB_PROBLEM_H

struct web_problem {
	const char *type;  /* "urn:tmtp:problem:not-found" */
	const char *title; /* one sentence that is the same for every instance */
	unsigned status;
};

extern const struct web_problem web_bad_request;        /* 400 */
extern const struct web_problem web_malformed_json;     /* 400 */
extern const struct web_problem web_unknown_field;      /* 400 */
extern const struct web_problem web_missing_field;      /* 400 */
extern const struct web_problem web_invalid_value;      /* 400 */
extern const struct web_problem web_unauthorized;       /* 401, with WWW-Authenticate: Bearer */
extern const struct web_problem web_forbidden;          /* 403 */
extern const struct web_problem web_not_found;          /* 404 */
extern const struct web_problem web_method_not_allowed; /* 405 */
extern const struct web_problem web_conflict;           /* 409 */
extern const struct web_problem web_gone;               /* 410 */
extern const struct web_problem web_precondition_failed;   /* 412 */
extern const struct web_problem web_payload_too_large;     /* 413 */
extern const struct web_problem web_unsupported_media;     /* 415 */
extern const struct web_problem web_range_not_satisfiable; /* 416 */
extern const struct web_problem web_idempotency_mismatch;  /* 422 */
extern const struct web_problem web_too_many_requests;     /* 429, with Retry-After */
extern const struct web_problem web_header_too_large;      /* 431 */
extern const struct web_problem web_internal;              /* 500 */
extern const struct web_problem web_unavailable;           /* 503, with Retry-After */

#endif
