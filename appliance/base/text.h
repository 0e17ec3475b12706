/*
 * Small text codecs and checks: base32 (RFC 4648 alphabet, lower case, no
 * padding), hexadecimal, names, UTF-8, integers. Nothing here allocates.
 */
#ifndef TMTP_BASE_TEXT_H
#define TMTP_BASE_TEXT_H

#include "base/slice.h"

/* Characters of len octets in base32, without a NUL: 20 -> 32, 32 -> 52. */
#define BASE32_LEN(octets) (((octets)*8 + 4) / 5)

/* Writes BASE32_LEN(len) characters and a NUL into out. */
void base32_encode(const uint8_t *data, size_t len, char *out);

/*
 * Decodes exactly BASE32_LEN(len) lower-case characters into len octets.
 * False (out untouched) on another length, character, or set trailing bits.
 */
bool base32_decode(struct slice text, uint8_t *out, size_t len);

/* Writes 2 * len lower-case characters and a NUL into out. */
void hex_encode(const uint8_t *data, size_t len, char *out);

/* Decodes exactly 2 * len characters, either case. False leaves out untouched. */
bool hex_decode(struct slice text, uint8_t *out, size_t len);

/* A site's or channel's name: [a-z0-9-]{1,30}. */
bool text_is_name(struct slice s);

/* Well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong, up to U+10FFFF). */
bool text_is_utf8(struct slice s);

/* Code points of well-formed UTF-8. */
size_t text_characters(struct slice s);

/* A decimal integer without sign, blanks or leading zeros, 0..max. False: out untouched. */
bool text_parse_u64(struct slice s, uint64_t max, uint64_t *out);

#endif
