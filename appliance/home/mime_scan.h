/*
 * Is a mail within measure? A look at its lines before a parser builds an
 * object for each part and each header: what a few octets ask of memory, of
 * the stack and of time is bounded here. It may count too much, never too
 * little.
 */
#ifndef TMTP_HOME_MIME_SCAN_H
#define TMTP_HOME_MIME_SCAN_H

#include "base/slice.h"

#define MIME_HEADER_LINES_MAX 20000
#define MIME_HEADER_OCTETS_MAX ((size_t)1 << 20) /* of all headers of all parts */
#define MIME_BOUNDARIES_MAX 10000                /* lines that could be one */
#define MIME_CONTAINERS_MAX 100 /* multiparts and messages: so deep they can be nested */

bool mime_scan(struct slice mail);

#endif
