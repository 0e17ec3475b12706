/*
 * Octets of a web_object that are not in memory: asked for as the client takes
 * them, a piece at a time (web/reply.h, want). One piece a client is held.
 */
#ifndef TMTP_WEB_DOWNLOAD_H
#define TMTP_WEB_DOWNLOAD_H

#include "base/slice.h"

struct web_download;

/*
 * Answers a want: takes data (from malloc), of which the octets from skip on
 * are those that were asked for, at least one; more than the answer needs are
 * fine. NULL: they can't be had, and the client sees its connection cut. Once a
 * want, any thread, also from within it.
 */
void web_download_give(struct web_download *d, void *data, size_t len, size_t skip);

#endif
