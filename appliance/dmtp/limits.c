/* The limits dictionary: see limits.h. */
#include "dmtp/limits.h"

struct dmtp_limits
dmtp_limits_floor(void)
{
	struct dmtp_limits l = DMTP_LIMITS_DEFAULT;

	l.command_octets = DMTP_FLOOR_COMMAND;
	l.pipeline = DMTP_FLOOR_PIPELINE;
	l.rcpts = DMTP_FLOOR_RCPTS;
	l.uris = DMTP_FLOOR_URIS;
	return l;
}

bool
dmtp_limits_valid(const struct dmtp_limits *l)
{
	return l->command_octets >= DMTP_FLOOR_COMMAND && l->pipeline >= DMTP_FLOOR_PIPELINE &&
	       l->rcpts >= DMTP_FLOOR_RCPTS && l->uris >= DMTP_FLOOR_URIS && l->idle_s >= 1 &&
	       l->message_octets >= 1 && l->message_octets <= INT64_MAX;
}

void
dmtp_limits_encode(const struct dmtp_limits *l, struct buffer *out)
{
	ben_put_dict(out);
	ben_put_text(out, "command");
	ben_put_int(out, l->command_octets);
	ben_put_text(out, "idle");
	ben_put_int(out, l->idle_s);
	ben_put_text(out, "message");
	ben_put_int(out, (int64_t)l->message_octets);
	ben_put_text(out, "noops");
	ben_put_int(out, l->noops);
	ben_put_text(out, "pipeline");
	ben_put_int(out, l->pipeline);
	ben_put_text(out, "rcpts");
	ben_put_int(out, l->rcpts);
	ben_put_text(out, "uris");
	ben_put_int(out, l->uris);
	ben_put_end(out);
}

static void
find_limit(struct ben_reader *r, const char *key, uint32_t *value)
{
	int64_t v;

	if (!ben_find(r, key))
		return;
	v = ben_get_int(r);
	if (v < 0)
		r->bad = true;
	else
		*value = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

void
dmtp_limits_decode(struct ben_reader *r, struct dmtp_limits *out)
{
	struct dmtp_limits l = DMTP_LIMITS_DEFAULT;

	ben_enter_dict(r);
	find_limit(r, "command", &l.command_octets);
	find_limit(r, "idle", &l.idle_s);
	if (ben_find(r, "message"))
		l.message_octets = (uint64_t)ben_get_int(r); /* below 0: too large, invalid */
	find_limit(r, "noops", &l.noops);
	find_limit(r, "pipeline", &l.pipeline);
	find_limit(r, "rcpts", &l.rcpts);
	find_limit(r, "uris", &l.uris);
	ben_leave(r);
	if (r->bad || !dmtp_limits_valid(&l))
		r->bad = true;
	else
		*out = l;
}
