/*
 * What comes in: addresses, names, times, and secrets, which are read from a
 * file, standard input or a terminal without echo, never from the arguments.
 * Everything here says what is wrong itself and returns other than CTL_OK then.
 */
#ifndef TMTP_CTL_INPUT_H
#define TMTP_CTL_INPUT_H

#include "base/id.h"
#include "ctl/ctl.h"
#include "dmtp/address.h"

#define TITLE_MAX 100 /* characters */

/* A site's address as its two names. */
struct input_site {
	char address[DMTP_ADDRESS_MAX + 1];
	char name[DMTP_LOCAL_MAX + 1];
	char domain[DMTP_DOMAIN_MAX + 1];
};

/* "shop@shop.test", of any domain. */
enum ctl_exit input_site(struct ctl *ctl, const char *text, struct input_site *out);

/* "ann@home.test", of any domain. */
enum ctl_exit input_account(struct ctl *ctl, const char *text, struct input_site *out);

/* A domain as people write it, to lower-case A-labels. */
enum ctl_exit input_domain(struct ctl *ctl, const char *text,
                           char out[static DMTP_DOMAIN_MAX + 1]);

/* The domain stands in the configuration. */
enum ctl_exit input_domain_is_ours(struct ctl *ctl, const char *domain);

/* "[a-z0-9-]{1,30}"; what: "channel's name". */
enum ctl_exit input_name(struct ctl *ctl, const char *what, const char *text);
/* Of a channel that a site is to have. */
enum ctl_exit input_channel(struct ctl *ctl, const char *text);

/* Text for people: 1 to TITLE_MAX characters of UTF-8 without controls. */
enum ctl_exit input_title(struct ctl *ctl, const char *option, const char *text);

/* A key's id or a token's name: 1 to 64 printable ASCII characters. */
enum ctl_exit input_label(struct ctl *ctl, const char *option, const char *text);

/* The number of a --limit; absent (NULL): 100. */
enum ctl_exit input_limit(struct ctl *ctl, const char *text, unsigned *out);

/* "30s", "10m", "12h", "90d", "2w"; never nothing. The first only looks, and says nothing. */
bool input_is_duration(const char *text, int64_t *seconds);
enum ctl_exit input_duration(struct ctl *ctl, const char *option, const char *text,
                             int64_t *seconds);

/* A duration ago, "2026-11-21" or "2026-11-21T23:00:00Z", in wall microseconds. */
enum ctl_exit input_past(struct ctl *ctl, const char *option, const char *text,
                         int64_t *wall_us);

enum ctl_exit input_uuid(struct ctl *ctl, const char *text, struct uuid *out);

/* The whole file, "-" being standard input, at most max octets; a NUL stands behind. */
enum ctl_exit input_file(struct ctl *ctl, const char *path, size_t max, struct buffer *out);

/* "standard input" for "-". */
const char *input_path_name(const char *path);

/* The same without one line end at its end. Wipe it with input_wipe. */
enum ctl_exit input_secret(struct ctl *ctl, const char *path, size_t max, struct buffer *out);

/*
 * A new password: of the file when path is given, else asked for twice on the
 * terminal. 8 to 256 octets of UTF-8 without controls. Wipe it.
 */
enum ctl_exit input_password(struct ctl *ctl, const char *path, struct buffer *out);

/* Overwrites and frees. */
void input_wipe(struct buffer *secret);

#endif
