/* Addresses, names, times, files: see input.h. The terminal stands in prompt.c. */
#include "ctl/input.h"

#include "base/clock.h"
#include "base/text.h"
#include "ctl/prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 100000
#define PASSWORD_MIN 8
#define PASSWORD_MAX 256

/* --- Names and addresses -------------------------------------------------- */

static void
copy_slice(char *out, size_t room, struct slice s)
{
	(void)snprintf(out, room, "%.*s", (int)s.len, (const char *)s.data);
}

static enum ctl_exit
parse_address(struct ctl *ctl, const char *text, struct dmtp_address *address,
              struct input_site *out)
{
	if (dmtp_address_normalise(slice_str(text), address) != DMTP_ADDRESS_OK)
		return ctl_fail(ctl, CTL_REFUSED, "invalid-address",
		                "\"%s\" is not an address: write it like name@domain.test",
		                text);
	copy_slice(out->address, sizeof(out->address), dmtp_address_slice(address));
	copy_slice(out->name, sizeof(out->name), dmtp_address_local(address));
	copy_slice(out->domain, sizeof(out->domain), dmtp_address_domain(address));
	return CTL_OK;
}

enum ctl_exit
input_site(struct ctl *ctl, const char *text, struct input_site *out)
{
	struct dmtp_address address;
	enum ctl_exit result = parse_address(ctl, text, &address, out);

	if (result == CTL_OK && !text_is_name(dmtp_address_local(&address)))
		return ctl_fail(ctl, CTL_REFUSED, "invalid-name",
		                "\"%s\" can't be a site's name: 1 to 30 of a-z, 0-9 and -",
		                out->name);
	return result;
}

enum ctl_exit
input_account(struct ctl *ctl, const char *text, struct input_site *out)
{
	struct dmtp_address address;

	return parse_address(ctl, text, &address, out);
}

enum ctl_exit
input_domain(struct ctl *ctl, const char *text, char out[static DMTP_DOMAIN_MAX + 1])
{
	if (dmtp_domain_normalise(slice_str(text), out))
		return CTL_OK;
	return ctl_fail(ctl, CTL_REFUSED, "invalid-domain",
	                "\"%s\" is not a domain: write it like home.test", text);
}

enum ctl_exit
input_domain_is_ours(struct ctl *ctl, const char *domain)
{
	if (config_domain_find(ctl->config, slice_str(domain)) != NULL)
		return CTL_OK;
	return ctl_fail(
	    ctl, CTL_REFUSED, "unknown-domain",
	    "%s is not a domain of this appliance: add domain \"%s\" { ... } to %s first",
	    domain, domain, ctl->config->path);
}

enum ctl_exit
input_name(struct ctl *ctl, const char *what, const char *text)
{
	if (text_is_name(slice_str(text)))
		return CTL_OK;
	return ctl_fail(ctl, CTL_REFUSED, "invalid-name",
	                "\"%s\" can't be a %s: 1 to 30 of a-z, 0-9 and -", text, what);
}

/* Names that DMTP gives to channels which everybody has. */
enum ctl_exit
input_channel(struct ctl *ctl, const char *text)
{
	static const char *const known[] = { "inbox", "invite", "smtp" };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(text, known[i]) == 0)
			return ctl_fail(ctl, CTL_REFUSED, "invalid-name",
			                "\"%s\" can't be a site's channel: it is one of the "
			                "channels that every member has (inbox, invite, smtp)",
			                text);
	return input_name(ctl, "channel's name", text);
}

enum ctl_exit
input_title(struct ctl *ctl, const char *option, const char *text)
{
	const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
	bool ok = text_is_utf8(slice_str(text));
	utf8proc_int32_t point;
	unsigned n = 0;

	while (ok && *p != '\0') {
		p += utf8proc_iterate(p, -1, &point);
		ok = utf8proc_category(point) != UTF8PROC_CATEGORY_CC && ++n <= TITLE_MAX;
	}
	if (ok && n > 0)
		return CTL_OK;
	return ctl_fail(
	    ctl, CTL_REFUSED, "invalid-title",
	    "--%s takes 1 to %d characters of UTF-8, without line ends and controls", option,
	    TITLE_MAX);
}

enum ctl_exit
input_label(struct ctl *ctl, const char *option, const char *text)
{
	if (dmtp_id_valid(slice_str(text)) && strchr(text, ' ') == NULL)
		return CTL_OK;
	return ctl_fail(ctl, CTL_REFUSED, "invalid-name",
	                "--%s takes 1 to 64 printable ASCII characters without blanks", option);
}

enum ctl_exit
input_limit(struct ctl *ctl, const char *text, unsigned *out)
{
	uint64_t n = LIMIT_DEFAULT;

	if (text != NULL && (!text_parse_u64(slice_str(text), LIMIT_MAX, &n) || n == 0))
		return ctl_usage(ctl, "--limit takes a number from 1 to %d", LIMIT_MAX);
	*out = (unsigned)n;
	return CTL_OK;
}

enum ctl_exit
input_uuid(struct ctl *ctl, const char *text, struct uuid *out)
{
	if (uuid_parse(slice_str(text), out))
		return CTL_OK;
	return ctl_fail(ctl, CTL_REFUSED, "invalid-id",
	                "\"%s\" is not an id: the list command shows those there are", text);
}

/* --- Times ---------------------------------------------------------------- */

bool
input_is_duration(const char *text, int64_t *seconds)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };
	size_t len = strlen(text);
	uint64_t n;

	if (len < 2 || !text_parse_u64(slice_mem(text, len - 1), 100000, &n) || n == 0)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (text[len - 1] == units[i].unit) {
			*seconds = (int64_t)n * units[i].seconds;
			return true;
		}
	}
	return false;
}

enum ctl_exit
input_duration(struct ctl *ctl, const char *option, const char *text, int64_t *seconds)
{
	if (input_is_duration(text, seconds))
		return CTL_OK;
	return ctl_usage(ctl, "--%s takes a number and a unit: 30s, 10m, 12h, 90d or 2w",
	                 option);
}

enum ctl_exit
input_past(struct ctl *ctl, const char *option, const char *text, int64_t *wall_us)
{
	struct tm tm = { .tm_mday = 1 };
	int64_t seconds;
	const char *end;

	if (input_is_duration(text, &seconds)) {
		*wall_us = clock_wall_us() - seconds * 1000000;
		return CTL_OK;
	}
	end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (end == NULL || *end != '\0') {
		tm = (struct tm){ .tm_mday = 1 };
		end = strptime(text, "%Y-%m-%d", &tm);
	}
	if (end == NULL || *end != '\0' || (seconds = timegm(&tm)) < 0)
		return ctl_usage(ctl, "--%s takes 24h, 7d, 2026-11-21 or 2026-11-21T23:00:00Z",
		                 option);
	*wall_us = seconds * 1000000;
	return CTL_OK;
}

/* --- Files and secrets ---------------------------------------------------- */

/* The whole room is taken at once: a buffer that grows would leave copies of a secret behind. */
static int
read_all(int fd, size_t max, struct buffer *out)
{
	for (;;) {
		uint8_t *room = buffer_reserve(out, max + 2 - out->len);
		ssize_t n;

		if (room == NULL)
			return ENOMEM;
		n = read(fd, room, max + 1 - out->len);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n == 0)
			return 0;
		buffer_added(out, n > 0 ? (size_t)n : 0);
		if (out->len > max)
			return EFBIG;
	}
}

const char *
input_path_name(const char *path)
{
	return strcmp(path, "-") == 0 ? "standard input" : path;
}

enum ctl_exit
input_file(struct ctl *ctl, const char *path, size_t max, struct buffer *out)
{
	bool is_stdin = strcmp(path, "-") == 0;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int error = fd < 0 ? errno : 0;

	buffer_init(out, max + 2);
	if (error == 0)
		error = read_all(fd, max, out);
	if (fd >= 0 && !is_stdin)
		(void)close(fd);
	if (error == 0) {
		buffer_add_u8(out, '\0');
		out->len--;
		return CTL_OK;
	}
	input_wipe(out);
	if (error == EFBIG)
		return ctl_fail(ctl, CTL_REFUSED, "too-large",
		                "%s is longer than %zu octets: is it the right file?",
		                input_path_name(path), max);
	return ctl_fail(ctl, CTL_REFUSED, "unreadable", "%s can't be read: %s",
	                input_path_name(path), strerror(error));
}

enum ctl_exit
input_secret(struct ctl *ctl, const char *path, size_t max, struct buffer *out)
{
	enum ctl_exit result = input_file(ctl, path, max + 2, out);

	if (result != CTL_OK)
		return result;
	if (out->len > 0 && out->data[out->len - 1] == '\n')
		out->len--;
	if (out->len > 0 && out->data[out->len - 1] == '\r')
		out->len--;
	out->data[out->len] = '\0';
	return CTL_OK;
}

static bool
is_password(const struct buffer *b)
{
	if (b->len < PASSWORD_MIN || b->len > PASSWORD_MAX || !text_is_utf8(buffer_slice(b)))
		return false;
	for (size_t i = 0; i < b->len; i++)
		if (b->data[i] < ' ' || b->data[i] == 0x7f)
			return false;
	return true;
}

enum ctl_exit
input_password(struct ctl *ctl, const char *path, struct buffer *out)
{
	enum ctl_exit result;

	if (path == NULL && isatty(STDIN_FILENO) == 0)
		return ctl_usage(
		    ctl,
		    "standard input is no terminal: name a file with --password-file FILE, "
		    "or - for standard input");
	if (path == NULL || (strcmp(path, "-") == 0 && isatty(STDIN_FILENO) != 0))
		result = prompt_new_password(ctl, PASSWORD_MAX, out);
	else
		result = input_secret(ctl, path, PASSWORD_MAX, out);
	if (result != CTL_OK || is_password(out))
		return result;
	input_wipe(out);
	return ctl_fail(ctl, CTL_REFUSED, "invalid-password",
	                "a password is one line of %d to %d octets of UTF-8 without controls",
	                PASSWORD_MIN, PASSWORD_MAX);
}

void
input_wipe(struct buffer *secret)
{
	if (secret->data != NULL)
		sodium_memzero(secret->data, secret->cap);
	buffer_free(secret);
}
