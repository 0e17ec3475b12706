/*
 * The two ends of a session machine's stream, private to server.c and
 * client.c: octets that came in and are being scanned, octets that wait to go.
 */
#ifndef TMTP_DMTP_STREAM_H
#define TMTP_DMTP_STREAM_H

#include "dmtp/bencode.h"

#define STREAM_KEEP 65536 /* memory that an empty end keeps */

struct inlet {
	struct buffer data;
	size_t at; /* where the element under scan begins */
	struct ben_scan scan;
};

struct outlet {
	struct buffer data;
	size_t at;        /* octets of data that were sent */
	uint64_t sent;    /* octets sent since the session began */
	int64_t waits_ms; /* since when no octet of what waits was taken */
};

static inline size_t
inlet_waiting(const struct inlet *in)
{
	return in->data.len - in->at;
}

/* Makes room at the front; what was borrowed from the inlet is gone. */
static inline void
inlet_compact(struct inlet *in)
{
	if (in->at > 0)
		buffer_consume(&in->data, in->at);
	in->at = 0;
	buffer_shrink(&in->data, STREAM_KEEP);
}

/* The next complete element, moved past; limit counts for the one after it too. */
static inline enum ben_rc
inlet_element(struct inlet *in, size_t limit, struct slice *out)
{
	const uint8_t *start = in->data.data == NULL ? NULL : in->data.data + in->at;
	enum ben_rc rc = ben_scan(&in->scan, start, inlet_waiting(in));

	if (rc != BEN_OK)
		return rc;
	*out = slice_mem(start, in->scan.at);
	in->at += in->scan.at;
	ben_scan_init(&in->scan, limit);
	return BEN_OK;
}

static inline size_t
outlet_waiting(const struct outlet *out)
{
	return out->data.len - out->at;
}

/* Octets ever put, whether sent or not. */
static inline uint64_t
outlet_total(const struct outlet *out)
{
	return out->sent + outlet_waiting(out);
}

static inline void
outlet_sent(struct outlet *out, int64_t now_ms, size_t n)
{
	if (n > outlet_waiting(out))
		n = outlet_waiting(out);
	if (n > 0)
		out->waits_ms = now_ms;
	out->at += n;
	out->sent += n;
	if (out->at == out->data.len) {
		buffer_clear(&out->data);
		out->at = 0;
		buffer_shrink(&out->data, STREAM_KEEP);
	} else if (out->at > out->data.len / 2) {
		buffer_consume(&out->data, out->at);
		out->at = 0;
	}
}

static inline struct slice
outlet_slice(const struct outlet *out)
{
	if (outlet_waiting(out) == 0)
		return slice_mem(NULL, 0);
	return slice_mem(out->data.data + out->at, outlet_waiting(out));
}

/* What waits is given up. */
static inline void
outlet_drop(struct outlet *out)
{
	out->data.len = out->at;
}

#endif
