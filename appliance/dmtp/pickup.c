/* Pickup paths: see pickup.h. */
#include "dmtp/pickup.h"

#include "dmtp/bencode.h"

void
dmtp_site_format(int64_t site_id, char out[static DMTP_SITE_TEXT])
{
	uint8_t octets[8];

	for (unsigned i = 0; i < 8; i++)
		octets[i] = (uint8_t)((uint64_t)site_id >> (56 - 8 * i));
	base32_encode(octets, sizeof(octets), out);
}

bool
dmtp_site_parse(struct slice text, int64_t *out)
{
	uint8_t octets[8];
	uint64_t n = 0;

	if (!base32_decode(text, octets, sizeof(octets)))
		return false;
	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | octets[i];
	if (n == 0 || n > INT64_MAX)
		return false;
	*out = (int64_t)n;
	return true;
}

void
dmtp_pickup_uri(struct buffer *out, struct slice base, const struct dmtp_pickup *pickup)
{
	char site[DMTP_SITE_TEXT], id[UUID_TEXT], digest[BASE32_LEN(32) + 1];

	dmtp_site_format(pickup->site_id, site);
	uuid_format(&pickup->message_id, id);
	base32_encode(pickup->digest, sizeof(pickup->digest), digest);
	buffer_add_slice(out, base);
	buffer_add_fmt(out, "/m/%s%s/%s/%s", pickup->attachment ? "a/" : "", site, id, digest);
}

static void
put_uri(struct buffer *list, const char *base, const struct dmtp_pickup *pickup)
{
	struct buffer uri;

	buffer_init(&uri, 4096);
	dmtp_pickup_uri(&uri, slice_str(base), pickup);
	if (uri.failed)
		list->failed = true;
	else
		ben_put_str(list, buffer_slice(&uri));
	buffer_free(&uri);
}

void
dmtp_pickup_put_uris(struct buffer *list, char *const *others, size_t others_n, const char *own,
                     const struct dmtp_pickup *pickup)
{
	for (size_t i = 0; i < others_n && i < DMTP_PICKUP_URIS - 1; i++)
		put_uri(list, others[i], pickup);
	put_uri(list, own, pickup);
}

bool
dmtp_pickup_parse(struct slice site, struct slice message, struct slice digest,
                  struct dmtp_pickup *out)
{
	struct dmtp_pickup made = { .site_id = 0 };

	if (!dmtp_site_parse(site, &made.site_id) || !uuid_parse(message, &made.message_id) ||
	    !base32_decode(digest, made.digest, sizeof(made.digest)))
		return false;
	*out = made;
	return true;
}

#define DELAY_MOST_MS 1000

int64_t
dmtp_pickup_delay_ms(size_t members, uint32_t random)
{
	size_t most = members < DELAY_MOST_MS ? members : DELAY_MOST_MS;

	return members <= DMTP_PICKUP_MANY ? 0 : (int64_t)(random % (most + 1));
}
