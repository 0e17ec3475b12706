/*
 * LMTP's command lines (RFC 2033, RFC 5321 section 4.1): which verb, which
 * path, which parameters. Pure; borrows from the line.
 */
#ifndef TMTP_HOME_LMTP_LINE_H
#define TMTP_HOME_LMTP_LINE_H

#include "base/slice.h"

/* Octets of a path: RFC 5321 says 256 with its brackets, an address of DMTP has at most 318. */
#define LMTP_PATH_MAX 320

enum lmtp_verb {
	LMTP_UNKNOWN = 0,
	LMTP_LHLO,
	LMTP_MAIL,
	LMTP_RCPT_TO,
	LMTP_DATA,
	LMTP_RSET,
	LMTP_NOOP,
	LMTP_QUIT,
	LMTP_VRFY,
	LMTP_HELO, /* and EHLO, which a server of LMTP refuses */
};

enum lmtp_line_rc {
	LMTP_LINE_OK = 0,
	LMTP_LINE_SYNTAX, /* not of the form that the verb wants */
	LMTP_LINE_PATH,   /* the address isn't of an address's form */
	LMTP_LINE_UTF8,   /* more than ASCII without SMTPUTF8, or not UTF-8 (RFC 6531) */
	LMTP_LINE_PARAM,  /* a parameter that nobody offered */
	LMTP_LINE_VALUE,  /* a parameter's value */
};

/* What a MAIL or RCPT says. */
struct lmtp_path {
	char text[LMTP_PATH_MAX + 1]; /* without brackets and source route; "" is <> */
	size_t len;
	bool quoted; /* the local part stood in quotes: text has it without */
};

struct lmtp_mail {
	struct lmtp_path sender; /* quotes as they stood */
	bool has_size, utf8;
	uint64_t size;
};

/* The line without its CRLF. *args borrows what stands behind the verb. */
enum lmtp_verb lmtp_line_verb(struct slice line, struct slice *args);

/* "FROM:<path> [SIZE=n] [BODY=7BIT|8BITMIME] [SMTPUTF8]". out is filled on OK. */
enum lmtp_line_rc lmtp_line_mail(struct slice args, struct lmtp_mail *out)
    __attribute__((warn_unused_result));

/* "TO:<path>", without parameters. utf8: the MAIL before said SMTPUTF8. out is filled on OK. */
enum lmtp_line_rc lmtp_line_rcpt(struct slice args, bool utf8, struct lmtp_path *out)
    __attribute__((warn_unused_result));

#endif
