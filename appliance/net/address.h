/*
 * Socket addresses: from text, to text, and whether an address is one of the
 * public Internet. No names are looked up here.
 */
#ifndef TMTP_NET_ADDRESS_H
#define TMTP_NET_ADDRESS_H

#include "base/slice.h"

#include <sys/socket.h>

/* Room for a human-readable reason, with its NUL. */
#define NET_TEXT 256

struct net_address {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* "[2001:db8:0:1:1:1:1:1%4294967295]:65535" and a NUL. */
#define NET_ADDRESS_TEXT 72

/*
 * "192.0.2.1:3688", "[::1]:3688" and, for listening, "*:3688" (:: for both
 * families). Port 0 is accepted. False on names and all else: out untouched.
 */
bool net_address_parse(const char *text, struct net_address *out);

/* An address without a port ("192.0.2.1", "::1") and a port. False: out untouched. */
bool net_address_make(const char *ip, uint16_t port, struct net_address *out);

/* Copies a system call's sockaddr. Len beyond sockaddr_storage is cut. */
void net_address_copy(struct net_address *out, const struct sockaddr *sa, socklen_t len);

/* As parse reads it; "unix" for a Unix socket, "unknown" for another family. A v4-mapped address shows as IPv4. */
const char *net_address_format(const struct net_address *a, char out[static NET_ADDRESS_TEXT]);

/* The same without the port and without brackets. */
const char *net_address_format_ip(const struct net_address *a,
                                  char out[static NET_ADDRESS_TEXT]);

/* The same host and port. */
bool net_address_eq(const struct net_address *a, const struct net_address *b);

uint16_t net_address_port(const struct net_address *a);
void net_address_set_port(struct net_address *a, uint16_t port);

/*
 * Who an address counts as: the four octets of an IPv4 (also a mapped one), the
 * first eight of an IPv6, since a /64 is one subscriber. Octets written, 0 for
 * another family.
 */
size_t net_address_key(const struct net_address *a, uint8_t out[static 8]);

/*
 * True for a unicast address that the public Internet routes. False for the
 * unspecified, loopback, link-local, private, shared (CGNAT), multicast,
 * broadcast, reserved, benchmarking and documentation ranges, for what embeds
 * an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo), and for families
 * other than IPv4 and IPv6.
 * Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).
 */
bool net_address_is_public(const struct sockaddr *sa);

#endif
