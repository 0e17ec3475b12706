/* Socket addresses: see address.h. */
#include "net/address.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

static const struct sockaddr_in *
as_v4(const struct net_address *a)
{
	return (const struct sockaddr_in *)(const void *)&a->ss;
}

static const struct sockaddr_in6 *
as_v6(const struct net_address *a)
{
	return (const struct sockaddr_in6 *)(const void *)&a->ss;
}

bool
net_address_make(const char *ip, uint16_t port, struct net_address *out)
{
	struct net_address a;
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&a.ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&a.ss;

	memset(&a, 0, sizeof(a));
	if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		a.len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		a.len = sizeof(*v6);
	} else {
		return false;
	}
	*out = a;
	return true;
}

bool
net_address_parse(const char *text, struct net_address *out)
{
	const char *colon = strrchr(text, ':');
	const char *first = text;
	char ip[INET6_ADDRSTRLEN];
	bool bracketed = text[0] == '[';
	uint64_t port;
	size_t len;

	if (colon == NULL || !text_parse_u64(slice_str(colon + 1), 65535, &port))
		return false;
	len = (size_t)(colon - text);
	if (len == 1 && text[0] == '*')
		return net_address_make("::", (uint16_t)port, out);
	if (bracketed) {
		if (len < 2 || text[len - 1] != ']')
			return false;
		first++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(ip) || (memchr(first, ':', len) != NULL) != bracketed)
		return false;
	memcpy(ip, first, len);
	ip[len] = '\0';
	return net_address_make(ip, (uint16_t)port, out);
}

void
net_address_copy(struct net_address *out, const struct sockaddr *sa, socklen_t len)
{
	memset(out, 0, sizeof(*out));
	out->len = len < sizeof(out->ss) ? len : (socklen_t)sizeof(out->ss);
	memcpy(&out->ss, sa, out->len);
}

static bool
is_mapped(const struct net_address *a)
{
	return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&as_v6(a)->sin6_addr);
}

const char *
net_address_format_ip(const struct net_address *a, char out[static NET_ADDRESS_TEXT])
{
	const char *text = NULL;

	if (a->ss.ss_family == AF_INET)
		text = inet_ntop(AF_INET, &as_v4(a)->sin_addr, out, NET_ADDRESS_TEXT);
	else if (is_mapped(a))
		text =
		    inet_ntop(AF_INET, &as_v6(a)->sin6_addr.s6_addr[12], out, NET_ADDRESS_TEXT);
	else if (a->ss.ss_family == AF_INET6)
		text = inet_ntop(AF_INET6, &as_v6(a)->sin6_addr, out, NET_ADDRESS_TEXT);
	if (text == NULL)
		(void)snprintf(out, NET_ADDRESS_TEXT, "unknown");
	return out;
}

const char *
net_address_format(const struct net_address *a, char out[static NET_ADDRESS_TEXT])
{
	char ip[NET_ADDRESS_TEXT];
	bool v6 = a->ss.ss_family == AF_INET6 && !is_mapped(a);

	(void)net_address_format_ip(a, ip);
	if (a->ss.ss_family == AF_UNIX)
		(void)snprintf(out, NET_ADDRESS_TEXT, "unix");
	else if (a->ss.ss_family != AF_INET && a->ss.ss_family != AF_INET6)
		(void)snprintf(out, NET_ADDRESS_TEXT, "unknown");
	else
		(void)snprintf(out, NET_ADDRESS_TEXT, v6 ? "[%.46s]:%u" : "%.46s:%u", ip,
		               (unsigned)net_address_port(a));
	return out;
}

bool
net_address_eq(const struct net_address *a, const struct net_address *b)
{
	char one[NET_ADDRESS_TEXT], other[NET_ADDRESS_TEXT];

	return strcmp(net_address_format(a, one), net_address_format(b, other)) == 0;
}

uint16_t
net_address_port(const struct net_address *a)
{
	if (a->ss.ss_family == AF_INET)
		return ntohs(as_v4(a)->sin_port);
	return a->ss.ss_family == AF_INET6 ? ntohs(as_v6(a)->sin6_port) : 0;
}

void
net_address_set_port(struct net_address *a, uint16_t port)
{
	if (a->ss.ss_family == AF_INET)
		((struct sockaddr_in *)(void *)&a->ss)->sin_port = htons(port);
	else if (a->ss.ss_family == AF_INET6)
		((struct sockaddr_in6 *)(void *)&a->ss)->sin6_port = htons(port);
}

size_t
net_address_key(const struct net_address *a, uint8_t out[static 8])
{
	if (a->ss.ss_family == AF_INET)
		memcpy(out, &as_v4(a)->sin_addr, 4);
	else if (is_mapped(a))
		memcpy(out, &as_v6(a)->sin6_addr.s6_addr[12], 4);
	else if (a->ss.ss_family == AF_INET6)
		memcpy(out, &as_v6(a)->sin6_addr, 8);
	else
		return 0;
	return a->ss.ss_family == AF_INET || is_mapped(a) ? 4 : 8;
}

struct range {
	uint8_t net[6];
	uint8_t bits;
};

/* What the IPv4 registry doesn't call globally reachable, and what is no unicast address. */
static const struct range closed_v4[] = {
	{ { 0 }, 8 },
	{ { 10 }, 8 },
	{ { 100, 64 }, 10 },
	{ { 127 }, 8 },
	{ { 169, 254 }, 16 },
	{ { 172, 16 }, 12 },
	{ { 192, 0, 0 }, 24 },
	{ { 192, 0, 2 }, 24 },
	{ { 192, 88, 99 }, 24 },
	{ { 192, 168 }, 16 },
	{ { 198, 18 }, 15 },
	{ { 198, 51, 100 }, 24 },
	{ { 203, 0, 113 }, 24 },
	{ { 224 }, 4 },
	{ { 240 }, 4 },
};

/* Global unicast is 2000::/3 (RFC 4291); everything outside it is closed, and these within. */
static const struct range closed_v6[] = {
	{ { 0x20, 0x01, 0x00 }, 23 }, /* protocol assignments: Teredo, benchmarking, ORCHID */
	{ { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, /* documentation */
	{ { 0x20, 0x02 }, 16 },             /* 6to4 */
	{ { 0x3f, 0xff, 0x00 }, 20 },       /* documentation */
};

static bool
in_range(const uint8_t *octets, const struct range *r)
{
	size_t whole = r->bits / 8, rest = r->bits % 8;
	uint8_t mask = (uint8_t)(0xff00u >> rest);

	if (memcmp(octets, r->net, whole) != 0)
		return false;
	return rest == 0 || ((octets[whole] ^ r->net[whole]) & mask) == 0;
}

static bool
in_any(const uint8_t *octets, const struct range *table, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (in_range(octets, &table[i]))
			return true;
	}
	return false;
}

bool
net_address_is_public(const struct sockaddr *sa)
{
	const uint8_t *octets;

	if (sa->sa_family == AF_INET) {
		octets =
		    (const uint8_t *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr;
		return !in_any(octets, closed_v4, sizeof(closed_v4) / sizeof(closed_v4[0]));
	}
	if (sa->sa_family == AF_INET6) {
		octets = (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)sa)
		             ->sin6_addr;
		return (octets[0] & 0xe0) == 0x20 &&
		       !in_any(octets, closed_v6, sizeof(closed_v6) / sizeof(closed_v6[0]));
	}
	return false;
}
