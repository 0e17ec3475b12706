/*
 * Mail (RFC 5322, MIME) as the fields of a message: its subject, its text in
 * as many types as it comes in, and the rest as attachments. The only file
 * that knows GMime. Nothing that a mail says makes it fail: what is beyond
 * measure or not to be taken apart becomes one attachment, the mail as it came.
 */
#ifndef TMTP_HOME_MIME_H
#define TMTP_HOME_MIME_H

#include "base/buffer.h"
#include "dmtp/message.h"

#define MIME_SUBJECT_MAX 1000 /* octets */
#define MIME_FROM_MAX 1000
#define MIME_ADDRESS_MAX 320
#define MIME_ATTACHMENTS_MAX 100
#define MIME_FIELDS_MAX (1 + 2 + MIME_ATTACHMENTS_MAX)

struct mime_piece {
	struct buffer data;
	char type[256];
};

struct mime_mail {
	struct buffer from;    /* the header From, decoded, one line; empty: none */
	struct buffer address; /* of its first mailbox, as it stands */
	int64_t date_s;        /* the header Date; -1: none that can be read */
	bool whole;            /* it was not taken apart */
	struct dmtp_field fields[MIME_FIELDS_MAX]; /* at least one; borrow from the pieces */
	size_t fields_n;
	struct mime_piece pieces[MIME_FIELDS_MAX];
	size_t pieces_n;
};

/* Once a process, before the first mail; no other thread may be at it. */
void mime_start(void);

/* One thread at a time. False: out of memory. Freed by mime_free. */
bool mime_read(struct slice octets, struct mime_mail **out) __attribute__((warn_unused_result));
void mime_free(struct mime_mail **mail);

#endif
