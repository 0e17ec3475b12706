/*
 * Addresses: "local@domain", the local part UTF-8 in NFC without controls,
 * spaces or "@", at most 64 octets, compared after lower-casing ASCII; the
 * domain lower-case A-labels, at most 253. And the forms that the local parts
 * of sites and channels have.
 */
#ifndef TMTP_DMTP_ADDRESS_H
#define TMTP_DMTP_ADDRESS_H

#include "base/slice.h"

#define DMTP_LOCAL_MAX 64
#define DMTP_DOMAIN_MAX 253
#define DMTP_ADDRESS_MAX (DMTP_LOCAL_MAX + 1 + DMTP_DOMAIN_MAX)

enum dmtp_address_rc {
	DMTP_ADDRESS_OK = 0,
	DMTP_ADDRESS_BAD, /* not of this form: it matches no user */
};

/* Normalised; equal addresses have equal text. */
struct dmtp_address {
	uint16_t len;       /* of text, without its NUL */
	uint16_t local_len; /* the "@" stands at text[local_len] */
	char text[DMTP_ADDRESS_MAX + 1];
};

/* As it stands on the wire: the domain must be lower-case A-labels. BAD leaves out untouched. */
enum dmtp_address_rc dmtp_address_parse(struct slice in, struct dmtp_address *out)
    __attribute__((warn_unused_result));

/*
 * As people and programs enter it: blanks around it are dropped, the local
 * part is brought to NFC, a domain of any case or in U-labels to lower-case
 * A-labels (IDNA 2008, non-transitional). BAD leaves out untouched.
 */
enum dmtp_address_rc dmtp_address_normalise(struct slice in, struct dmtp_address *out)
    __attribute__((warn_unused_result));

static inline struct slice
dmtp_address_slice(const struct dmtp_address *a)
{
	return slice_mem(a->text, a->len);
}

static inline struct slice
dmtp_address_local(const struct dmtp_address *a)
{
	return slice_mem(a->text, a->local_len);
}

static inline struct slice
dmtp_address_domain(const struct dmtp_address *a)
{
	return slice_mem(a->text + a->local_len + 1, (size_t)(a->len - a->local_len - 1));
}

bool dmtp_address_eq(const struct dmtp_address *a, const struct dmtp_address *b);

/* "channel.site@domain": the two names; borrow from a. False: not a channel's address. */
bool dmtp_address_channel(const struct dmtp_address *a, struct slice *channel,
                          struct slice *site);

/* Makes "channel.site@domain", or "site@domain" when channel is empty. */
enum dmtp_address_rc dmtp_address_make(struct slice channel, struct slice site,
                                       struct slice domain, struct dmtp_address *out)
    __attribute__((warn_unused_result));

/* What stands behind the last "@", empty when there is none. Nothing else is checked. */
struct slice dmtp_domain_of(struct slice address);

/* Lower-case LDH labels of 1 to 63, at most 253 octets, the last label not a number. */
bool dmtp_domain_valid(struct slice domain);

/* A domain as people enter it, brought to lower-case A-labels. False leaves out untouched. */
bool dmtp_domain_normalise(struct slice in, char out[static DMTP_DOMAIN_MAX + 1]);

/* 1 to 64 printable ASCII octets. */
bool dmtp_id_valid(struct slice id);

/* Well-formed UTF-8 in normalisation form C; at most DMTP_LOCAL_MAX octets. */
bool dmtp_text_is_nfc(struct slice s);

#endif
