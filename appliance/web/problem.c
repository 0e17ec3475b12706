/* The kinds of problems: see problem.h. The answers themselves are made in reply.c. */
#include "web/problem.h"

#define KIND(var, name, code, text)                                        \
	const struct web_problem var = { .type = "urn:tmtp:problem:" name, \
		                         .title = (text),                  \
		                         .status = (code) }

KIND(web_bad_request, "bad-request", 400, "The request isn't understood.");
KIND(web_malformed_json, "malformed-json", 400, "The body isn't the JSON that is expected.");
KIND(web_unknown_field, "unknown-field", 400, "The body has a field that doesn't exist here.");
KIND(web_missing_field, "missing-field", 400, "A required field is missing.");
KIND(web_invalid_value, "invalid-value", 400, "A value isn't valid.");
KIND(web_unauthorized, "unauthorized", 401, "A valid token is needed.");
KIND(web_forbidden, "forbidden", 403, "This token doesn't allow it.");
KIND(web_not_found, "not-found", 404, "There is no such thing.");
KIND(web_method_not_allowed, "method-not-allowed", 405, "This method isn't served here.");
KIND(web_conflict, "conflict", 409, "It conflicts with what is there.");
KIND(web_gone, "gone", 410, "It was here and has been withdrawn.");
KIND(web_precondition_failed, "precondition-failed", 412, "It has changed meanwhile.");
KIND(web_payload_too_large, "payload-too-large", 413, "The body is too large.");
KIND(web_unsupported_media, "unsupported-media-type", 415,
     "This media type isn't accepted here.");
KIND(web_range_not_satisfiable, "range-not-satisfiable", 416, "The range lies outside.");
KIND(web_idempotency_mismatch, "idempotency-mismatch", 422,
     "The idempotency key was used with another request.");
KIND(web_too_many_requests, "too-many-requests", 429, "Too many requests; come back later.");
KIND(web_header_too_large, "header-too-large", 431, "The request's headers are too large.");
KIND(web_internal, "internal", 500, "Something went wrong here.");
KIND(web_unavailable, "unavailable", 503, "Not available at the moment; come back later.");
