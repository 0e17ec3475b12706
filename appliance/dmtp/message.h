/*
 * Messages: one canonical dictionary {date, fields, from, salt, to}, named by
 * its SHA-256. Builds, reads, checks, signs, and inserts recipients' variables.
 */
#ifndef TMTP_DMTP_MESSAGE_H
#define TMTP_DMTP_MESSAGE_H

#include "dmtp/limits.h"

enum dmtp_field_name {
	DMTP_FIELD_OTHER = 0, /* a name that we do not know: passed over */
	DMTP_SUBJECT,
	DMTP_MESSAGE,
	DMTP_ATTACHMENT,
	DMTP_ACTION,
};

struct dmtp_field {
	enum dmtp_field_name name;
	struct slice type; /* media type */
	struct slice lang; /* BCP 47 tag; empty: absent */
	struct slice data; /* inline */
	/* A large attachment instead of data. */
	bool large;
	int64_t size;
	struct slice digest; /* DMTP_DIGEST_LEN octets */
	struct slice uris;   /* inside of a list of strings */
};

struct dmtp_message {
	struct slice from, to;
	int64_t date;
	uint8_t salt[DMTP_SALT_LEN];
	struct slice fields; /* decoding only: inside of the list, for dmtp_field_next */
	size_t field_count;  /* decoding only */
};

enum dmtp_message_rc {
	DMTP_MESSAGE_OK = 0,
	DMTP_MESSAGE_BAD,  /* not canonical, or not of this form */
	DMTP_MESSAGE_SIZE, /* what dmtp_message_check found */
	DMTP_MESSAGE_DIGEST,
	DMTP_MESSAGE_FROM,
	DMTP_MESSAGE_DATE,
	DMTP_MESSAGE_TO,
	DMTP_MESSAGE_SIGNATURE, /* for the caller's use */
};

const char *dmtp_message_rc_name(enum dmtp_message_rc rc);

/* Appends the message. Makes what dmtp_message_decode accepts, or BAD (out is as before). */
enum dmtp_message_rc dmtp_message_encode(const struct dmtp_message *m,
                                         const struct dmtp_field *fields, size_t count,
                                         struct buffer *out)
    __attribute__((warn_unused_result));

/* The whole of octets, judged in every field. Borrows. BAD leaves out untouched. */
enum dmtp_message_rc dmtp_message_decode(struct slice octets, struct dmtp_message *out)
    __attribute__((warn_unused_result));

/* it was set by ben_reader_init(&it, message.fields). False: no more. */
bool dmtp_field_next(struct ben_reader *it, struct dmtp_field *out);

/*
 * A picked-up message against its notification: size, digest, form, from,
 * date, to, in this order. to is the recipient's address or the grant's
 * channel's; addresses are compared as address.h says. out is filled on OK.
 */
struct dmtp_expected {
	int64_t size;
	struct slice digest;
	struct slice from;
	int64_t date;
	struct slice to;
};
enum dmtp_message_rc dmtp_message_check(struct slice octets,
                                        const struct dmtp_expected *expected,
                                        struct dmtp_message *out)
    __attribute__((warn_unused_result));

/* SHA-256. False: the library failed (out of memory). */
bool dmtp_digest(struct slice octets, uint8_t out[static DMTP_DIGEST_LEN])
    __attribute__((warn_unused_result));

/* --- signatures (Ed25519) ------------------------------------------------ */

/* secret: libsodium's 64 octets (seed and public key). */
void dmtp_message_sign(const uint8_t digest[static DMTP_DIGEST_LEN],
                       const uint8_t secret[static 64], uint8_t out[static DMTP_SIGNATURE_LEN]);
bool dmtp_message_verify(const uint8_t digest[static DMTP_DIGEST_LEN], struct slice signature,
                         const uint8_t key[static DMTP_KEY_LEN]);

/* AUTH: exporter is 32 octets of the TLS session; domains at most 253 octets (else false). */
bool dmtp_auth_sign(const uint8_t exporter[static 32], struct slice client_domain,
                    struct slice server_domain, const uint8_t secret[static 64],
                    uint8_t out[static DMTP_SIGNATURE_LEN]);
bool dmtp_auth_verify(const uint8_t exporter[static 32], struct slice client_domain,
                      struct slice server_domain, struct slice signature,
                      const uint8_t key[static DMTP_KEY_LEN]);

/* --- variables ------------------------------------------------------------ */

enum dmtp_escape { DMTP_ESCAPE_NONE, DMTP_ESCAPE_HTML, DMTP_ESCAPE_MARKDOWN };

/* How a field's values are escaped: in HTML and Markdown, or not at all. */
enum dmtp_escape dmtp_escape_for(struct slice media_type);

/*
 * Appends text with each {{name}} replaced by that variable of vars (a whole
 * dictionary "d…e", or empty), once, not scanned again; a missing one is
 * empty. With DMTP_ESCAPE_HTML values are escaped, and within tags, comments,
 * script and style nothing is inserted. With DMTP_ESCAPE_MARKDOWN (CommonMark)
 * punctuation besides, and nothing is inserted into links' destinations. A short
 * text can ask for much: out's maximum is the bound.
 */
void dmtp_template_expand(struct slice text, enum dmtp_escape escape, struct slice vars,
                          struct buffer *out);

/* Tells each place of text where a variable would be inserted, in their order. */
void dmtp_template_names(struct slice text, enum dmtp_escape escape,
                         void (*each)(const char *name, void *arg), void *arg);

/* What a field's type may be: "type/subtype", perhaps with parameters, as DMTP has it. */
bool dmtp_media_type_valid(struct slice type);

/* [a-z0-9_]{1,30} */
bool dmtp_var_name_valid(struct slice name);

/* A whole canonical dictionary of at most DMTP_VARS_MAX octets: [a-z0-9_]{1,30} -> UTF-8. */
bool dmtp_vars_valid(struct slice vars);

#endif
