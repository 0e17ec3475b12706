/* Keys of websites: checking public ones, signing with private ones, with OpenSSL's libcrypto. */
#ifndef TMTP_CTL_PEM_H
#define TMTP_CTL_PEM_H

#include "ctl/ctl.h"

#define SECRET_MIN 32 /* octets of an HS256 secret */
#define SECRET_MAX 1024

/*
 * A public key of the file, checked for the algorithm (ES256: P-256; RS256:
 * RSA of 2048 to 8192 bits), as PEM without anything around it.
 */
enum ctl_exit pem_read_public(struct ctl *ctl, const char *algorithm, const char *path,
                              struct buffer *out);

/* An HS256 secret of the file: one line, its characters are the secret. Wipe it. */
enum ctl_exit pem_read_secret(struct ctl *ctl, const char *path, struct buffer *out);

/* What a JWT is signed with: a private key of the file, or a secret. */
struct pem_signer;

enum ctl_exit pem_read_signer(struct ctl *ctl, const char *path, struct pem_signer **out);
enum ctl_exit pem_read_secret_signer(struct ctl *ctl, const char *path,
                                     struct pem_signer **out);
void pem_signer_free(struct pem_signer **signer);

/* "ES256", "RS256" or "HS256". */
const char *pem_algorithm(const struct pem_signer *signer);

/* The signature as a JWT carries it (RFC 7518 section 3), appended to out. False: libcrypto failed. */
bool pem_sign(const struct pem_signer *signer, struct slice data, struct buffer *out);

#endif
