/*
 * What can be checked of certificates and keys before anything serves with
 * them. Private to config.c; the TLS itself lives elsewhere.
 */
#ifndef TMTP_BASE_CONFIG_PEM_H
#define TMTP_BASE_CONFIG_PEM_H

#include "base/buffer.h"

/*
 * The file's first certificate names this domain, exactly (no wildcard), and
 * belongs to the key. An expired one passes: it is better than none. False: a
 * sentence in why.
 */
bool pem_check_pair(const char *certificate, const char *key, const char *domain,
                    struct buffer *why) __attribute__((warn_unused_result));

/* The file holds at least one certificate. */
bool pem_check_ca(const char *file, struct buffer *why) __attribute__((warn_unused_result));

#endif
