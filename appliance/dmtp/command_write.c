/* Encoding commands: see command.h. Keys stand in their sorted order. */
#include "dmtp/command.h"

static void
put_pair(struct buffer *out, const char *key, struct slice value)
{
	ben_put_text(out, key);
	ben_put_str(out, value);
}

static void
put_pair_maybe(struct buffer *out, const char *key, struct slice value)
{
	if (value.len > 0)
		put_pair(out, key, value);
}

static void
put_pair_int(struct buffer *out, const char *key, int64_t value)
{
	ben_put_text(out, key);
	ben_put_int(out, value);
}

static void
put_pair_list(struct buffer *out, const char *key, struct slice inside)
{
	ben_put_text(out, key);
	ben_put_list(out);
	buffer_add_slice(out, inside);
	ben_put_end(out);
}

static void
open_command(struct buffer *out, enum dmtp_verb verb)
{
	ben_put_list(out);
	ben_put_text(out, dmtp_verb_name(verb));
}

void
dmtp_command_put_bare(struct buffer *out, enum dmtp_verb verb)
{
	open_command(out, verb);
	ben_put_end(out);
}

void
dmtp_post_begin(struct dmtp_post_writer *w, struct buffer *out, const struct dmtp_post *post)
{
	*w = (struct dmtp_post_writer){ .out = out, .post = post };
	open_command(out, DMTP_POST);
	ben_put_dict(out);
	put_pair_maybe(out, "channel", post->channel);
	put_pair_int(out, "date", post->date);
	put_pair(out, "digest", post->digest);
	if (post->has_expires)
		put_pair_int(out, "expires", post->expires);
	put_pair(out, "from", post->from);
	put_pair(out, "id", post->id);
	put_pair_maybe(out, "key", post->key);
	ben_put_text(out, "rcpts");
	ben_put_list(out);
}

void
dmtp_post_put_grant(struct dmtp_post_writer *w, const uint8_t grant[static DMTP_GRANT_LEN])
{
	uint8_t *room = buffer_reserve(w->out, 3 + DMTP_GRANT_LEN);

	if (room == NULL)
		return;
	/* NOLINTNEXTLINE(bugprone-not-null-terminated-result): octets, no text */
	memcpy(room, "20:", 3);
	memcpy(room + 3, grant, DMTP_GRANT_LEN);
	buffer_added(w->out, 3 + DMTP_GRANT_LEN);
}

void
dmtp_post_put_vars(struct dmtp_post_writer *w, const uint8_t grant[static DMTP_GRANT_LEN],
                   struct slice vars)
{
	ben_put_list(w->out);
	dmtp_post_put_grant(w, grant);
	buffer_add_slice(w->out, vars);
	ben_put_end(w->out);
}

void
dmtp_post_put_address(struct dmtp_post_writer *w, struct slice address,
                      enum dmtp_well_known channel)
{
	ben_put_list(w->out);
	ben_put_str(w->out, address);
	ben_put_text(w->out, dmtp_well_known_name(channel));
	ben_put_end(w->out);
}

void
dmtp_post_end(struct dmtp_post_writer *w)
{
	const struct dmtp_post *post = w->post;

	ben_put_end(w->out);
	put_pair_maybe(w->out, "recall", post->recall);
	put_pair_maybe(w->out, "replaces", post->replaces);
	put_pair_maybe(w->out, "signature", post->signature);
	put_pair_int(w->out, "size", post->size);
	if (post->recall.len == 0)
		put_pair_list(w->out, "uris", post->uris);
	ben_put_end(w->out);
	ben_put_end(w->out);
}

void
dmtp_channels_encode(const struct dmtp_channels *c, struct buffer *out)
{
	open_command(out, DMTP_CHANNELS);
	ben_put_dict(out);
	put_pair(out, "from", c->from);
	if (c->has_since)
		put_pair(out, "since", c->since);
	else
		put_pair_list(out, "users", c->users);
	ben_put_end(out);
	ben_put_end(out);
}

void
dmtp_grant_put(const struct dmtp_grant *g, struct buffer *inside)
{
	ben_put_dict(inside);
	put_pair(inside, "channel", g->channel);
	put_pair_int(inside, "date", g->date);
	put_pair(inside, "from", g->from);
	put_pair_maybe(inside, "grant", g->grant);
	if (g->presence)
		put_pair_int(inside, "presence", 1);
	if (g->receipts)
		put_pair_int(inside, "receipts", 1);
	put_pair(inside, "state", slice_str(dmtp_state_name(g->state)));
	put_pair(inside, "to", g->to);
	ben_put_end(inside);
}

void
dmtp_grant_encode(const struct dmtp_grant *g, struct buffer *out)
{
	open_command(out, DMTP_GRANT);
	dmtp_grant_put(g, out);
	ben_put_end(out);
}

void
dmtp_receipt_put(const struct dmtp_receipt_row *row, struct buffer *inside)
{
	ben_put_list(inside);
	ben_put_str(inside, row->id);
	ben_put_str(inside, slice_mem(row->grant, DMTP_GRANT_LEN));
	ben_put_text(inside, dmtp_receipt_name(row->kind));
	ben_put_int(inside, row->date);
	ben_put_end(inside);
}

void
dmtp_receipt_encode(const struct dmtp_receipt *r, struct buffer *out)
{
	open_command(out, DMTP_RECEIPT);
	ben_put_dict(out);
	put_pair_list(out, "events", r->events);
	put_pair(out, "from", r->from);
	put_pair(out, "to", r->to);
	ben_put_end(out);
	ben_put_end(out);
}

void
dmtp_presence_encode(const struct dmtp_presence *p, struct buffer *out)
{
	open_command(out, DMTP_PRESENCE);
	ben_put_dict(out);
	put_pair(out, "from", p->from);
	put_pair_list(out, "rcpts", p->rcpts);
	put_pair_int(out, "since", p->since);
	put_pair(out, "state", slice_str(dmtp_presence_name(p->state)));
	if (p->state != DMTP_OFFLINE)
		put_pair_int(out, "until", p->until);
	ben_put_end(out);
	ben_put_end(out);
}

void
dmtp_auth_encode(const struct dmtp_auth *a, struct buffer *out)
{
	open_command(out, DMTP_AUTH);
	ben_put_dict(out);
	put_pair(out, "domain", a->domain);
	put_pair(out, "key", a->key);
	put_pair(out, "signature", a->signature);
	ben_put_end(out);
	ben_put_end(out);
}
