/* The greeting and the names of closes: see session.h. */
#include "dmtp/session.h"

static const char *const ext_names[] = { "AUTH", "GRANT", "RECEIPT",
	                                 "PRESENCE" }; /* bit by bit */

#define EXT_COUNT (sizeof(ext_names) / sizeof(ext_names[0]))

static const char *const close_names[] = {
	[DMTP_CLOSE_NONE] = "none",
	[DMTP_CLOSE_QUIT] = "quit",
	[DMTP_CLOSE_EOF] = "end-of-stream",
	[DMTP_CLOSE_DRAINED] = "drained",
	[DMTP_CLOSE_IDLE] = "idle",
	[DMTP_CLOSE_SLOW_COMMAND] = "slow-command",
	[DMTP_CLOSE_STALLED] = "stalled",
	[DMTP_CLOSE_HANDSHAKE] = "handshake",
	[DMTP_CLOSE_NO_REPLY] = "no-reply",
	[DMTP_CLOSE_INJECTED] = "injected",
	[DMTP_CLOSE_MALFORMED] = "malformed",
	[DMTP_CLOSE_TOO_LARGE] = "too-large",
	[DMTP_CLOSE_BAD_COMMANDS] = "bad-commands",
	[DMTP_CLOSE_AUTH_FAILED] = "auth-failed",
	[DMTP_CLOSE_REFUSED] = "refused",
	[DMTP_CLOSE_VERSION] = "version",
	[DMTP_CLOSE_NO_TLS] = "no-tls",
	[DMTP_CLOSE_UNASKED] = "unasked-reply",
	[DMTP_CLOSE_NO_MEMORY] = "no-memory",
};

const char *
dmtp_close_name(enum dmtp_close reason)
{
	return (size_t)reason < sizeof(close_names) / sizeof(close_names[0])
	           ? close_names[reason]
	           : "";
}

void
dmtp_greeting_encode(const struct dmtp_greeting *g, struct buffer *out)
{
	ben_put_dict(out);
	ben_put_text(out, "dmtp");
	ben_put_int(out, g->version);
	ben_put_text(out, "ext");
	ben_put_list(out);
	for (size_t i = 0; i < EXT_COUNT; i++)
		if ((g->ext & (1u << i)) != 0)
			ben_put_text(out, ext_names[i]);
	ben_put_end(out);
	ben_put_text(out, "host");
	ben_put_text(out, g->host);
	ben_put_text(out, "limits");
	dmtp_limits_encode(&g->limits, out);
	if (g->tls) {
		ben_put_text(out, "tls");
		ben_put_int(out, 1);
	}
	ben_put_end(out);
}

/* Names that we do not know are passed over. */
static unsigned
read_ext(struct ben_reader *r)
{
	unsigned ext = 0;

	ben_enter_list(r);
	while (ben_more(r)) {
		struct slice name = ben_get_str(r);

		for (size_t i = 0; i < EXT_COUNT; i++)
			if (slice_eq_str(name, ext_names[i]))
				ext |= 1u << i;
	}
	ben_leave(r);
	return ext;
}

static void
read_host(struct ben_reader *r, char out[static DMTP_DOMAIN_MAX + 1])
{
	struct slice host = ben_get_str(r);

	if (host.len > DMTP_DOMAIN_MAX ||
	    (host.len > 0 && memchr(host.data, 0, host.len) != NULL))
		r->bad = true;
	if (r->bad || host.len == 0)
		return;
	memcpy(out, host.data, host.len);
	out[host.len] = '\0';
}

bool
dmtp_greeting_decode(struct slice element, struct dmtp_greeting *out)
{
	struct dmtp_greeting g = { .limits = DMTP_LIMITS_DEFAULT };
	struct ben_reader r;

	ben_reader_init(&r, element);
	ben_enter_dict(&r);
	r.bad = r.bad || !ben_find(&r, "dmtp");
	g.version = ben_get_int(&r);
	if (!r.bad && g.version != 1) { /* what else it says is that version's business */
		*out = g;
		return true;
	}
	if (ben_find(&r, "ext"))
		g.ext = read_ext(&r);
	r.bad = r.bad || !ben_find(&r, "host");
	read_host(&r, g.host);
	if (ben_find(&r, "limits"))
		dmtp_limits_decode(&r, &g.limits);
	if (ben_find(&r, "tls"))
		g.tls = ben_get_int(&r) == 1;
	ben_leave(&r);
	if (r.bad)
		return false;
	*out = g;
	return true;
}
