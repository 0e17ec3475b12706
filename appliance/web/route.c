/*
 * Routes: paths are cut once at start, a request's path once a request, and
 * compared segment by segment. Tables are small, so a scan that first compares
 * the number of segments is as good as a tree.
 */
#include "web/private.h"

#include "base/text.h"

#include <stdlib.h>

bool
route_path_cut(struct slice path, struct route_path *out)
{
	const uint8_t *at = path.data, *end = path.data + path.len;

	out->n = 0;
	if (path.len == 0 || *at != '/')
		return false;
	if (path.len == 1)
		return true;
	while (at < end) {
		const uint8_t *from = ++at;

		at = memchr(from, '/', (size_t)(end - from));
		if (at == NULL)
			at = end;
		if (at == from || out->n == ROUTE_SEGMENTS)
			return false;
		out->part[out->n++] = slice_mem(from, (size_t)(at - from));
	}
	return true;
}

static bool
is_param(struct slice part)
{
	return part.len > 1 && part.data[0] == ':';
}

static bool
route_is_servable(const struct web_route *route, struct route_path *path)
{
	size_t params = 0;

	if (route->handler == NULL || route->method >= WEB_METHODS ||
	    route->method == WEB_HEAD || !route_path_cut(slice_str(route->path), path))
		return false;
	for (size_t i = 0; i < path->n; i++)
		params += is_param(path->part[i]);
	return params <= ROUTE_PARAMS;
}

bool
route_set_init(struct route_set *set, const struct web_route *routes, size_t n)
{
	*set = (struct route_set){ .routes = routes, .n = n };
	set->paths = calloc(n == 0 ? 1 : n, sizeof(*set->paths));
	if (set->paths == NULL)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!route_is_servable(&routes[i], &set->paths[i])) {
			route_set_deinit(set);
			return false;
		}
	}
	return true;
}

void
route_set_deinit(struct route_set *set)
{
	free(set->paths);
	*set = (struct route_set){ .n = 0 };
}

static bool
path_matches(const struct route_path *pattern, const struct route_path *path)
{
	if (pattern->n != path->n)
		return false;
	for (size_t i = 0; i < path->n; i++) {
		if (!is_param(pattern->part[i]) && !slice_eq(pattern->part[i], path->part[i]))
			return false;
	}
	return true;
}

const struct web_route *
route_find(const struct route_set *set, enum web_method method, const struct route_path *path,
           size_t *index, unsigned *allowed)
{
	*allowed = 0;
	for (size_t i = 0; i < set->n; i++) {
		if (!path_matches(&set->paths[i], path))
			continue;
		if (set->routes[i].method == method) {
			*index = i;
			return &set->routes[i];
		}
		*allowed |= 1u << set->routes[i].method;
	}
	if (*allowed & 1u << WEB_GET)
		*allowed |= 1u << WEB_HEAD;
	return NULL;
}

static int
hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
route_decode(struct slice s, uint8_t *out, struct slice *decoded)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.data[i];

		if (c == '%') {
			int high = i + 2 < s.len ? hex_value(s.data[i + 1]) : -1;
			int low = high < 0 ? -1 : hex_value(s.data[i + 2]);

			if (low < 0)
				return false;
			c = (uint8_t)(high << 4 | low);
			i += 2;
		}
		if (c == 0)
			return false;
		out[n++] = c;
	}
	*decoded = slice_mem(out, n);
	return text_is_utf8(*decoded);
}
