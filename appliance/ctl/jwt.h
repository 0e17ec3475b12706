/* Signing a JWT, to try things out. */
#ifndef TMTP_CTL_JWT_H
#define TMTP_CTL_JWT_H

#include "ctl/pem.h"

#include <jansson.h>

#define JWT_MAX 8192

/* header.claims.signature with a NUL behind; alg is the signer's. False: libcrypto failed or it grew too long. */
bool jwt_make(const struct pem_signer *signer, const char *kid, const json_t *claims,
              struct buffer *out);

#endif
