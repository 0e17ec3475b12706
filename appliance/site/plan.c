/* What a push becomes: see plan.h. */
#include "site/plan.h"

#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "dmtp/uri.h"

#include <stdio.h>
#include <stdlib.h>

/* Fields of one message: a subject, three forms of the message, an action. */
#define FIELDS_MAX 5
#define WORDS_MAX 140
/* What a message needs besides its fields' data. */
#define OVERHEAD_MAX 4096

/* The body's fields as they stand there. */
struct push_body {
	struct web_strings to;
	struct slice subject, lang, lane;
	const json_t *message, *action;
	int64_t expires;
};

struct action_body {
	struct slice label, url;
};

/* --- text ---------------------------------------------------------------------- */

bool
site_plan_text_valid(struct slice text, size_t min, size_t max, bool lines)
{
	size_t characters = 0;

	if (!text_is_utf8(text))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];

		if ((c < 0x20 && !(lines && (c == '\n' || c == '\r' || c == '\t'))) ||
		    c == 0x7f)
			return false;
		if (c == 0xc2 && text.data[i + 1] < 0xa0) /* C1 controls */
			return false;
		characters += (c & 0xc0) != 0x80;
	}
	return characters >= min && characters <= max;
}

static bool
is_letter(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static bool
is_alnum(uint8_t c)
{
	return is_letter(c) || (c >= '0' && c <= '9');
}

/*
 * Programs that show text make links of much: schemes, "www.", and words that
 * look like a domain. A dot within a word, with two letters behind it, is that.
 */
static bool
looks_like_link(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.data[i] == ':' && i + 2 < s.len && s.data[i + 1] == '/' &&
		    s.data[i + 2] == '/')
			return true;
		if (s.data[i] == '.' && i > 0 && i + 2 < s.len && is_alnum(s.data[i - 1]) &&
		    is_letter(s.data[i + 1]) && is_letter(s.data[i + 2]))
			return true;
		if (s.data[i] == '@' ||
		    (s.data[i] == ':' && i >= 6 &&
		     strncasecmp((const char *)s.data + i - 6, "mailto", 6) == 0))
			return true;
	}
	return false;
}

bool
site_plan_words_valid(struct slice text)
{
	return site_plan_text_valid(text, 1, WORDS_MAX, false) && !looks_like_link(text);
}

static bool
is_subject(struct slice s)
{
	return site_plan_text_valid(s, 1, PLAN_SUBJECT_MAX, false);
}

static bool
is_label(struct slice s)
{
	return site_plan_text_valid(s, 1, PLAN_LABEL_MAX, false);
}

/* A fragment is the page's own matter; the rest is judged as any of our URIs. */
static bool
is_action_url(struct slice s)
{
	const uint8_t *hash = memchr(s.data, '#', s.len);
	size_t len = hash == NULL ? s.len : (size_t)(hash - s.data);
	struct dmtp_uri uri;

	return dmtp_uri_split(slice_mem(s.data, len), &uri) &&
	       memchr(s.data, ' ', s.len) == NULL &&
	       site_plan_text_valid(s, 1, DMTP_URI_MAX, false);
}

/* A BCP 47 tag's shape: "de", "de-AT", "zh-Hant-TW". */
static bool
is_lang(struct slice s)
{
	size_t run = 0;

	for (size_t i = 0; i < s.len; i++) {
		if (s.data[i] == '-') {
			if (run == 0)
				return false;
			run = 0;
		} else if (s.data[i] >= 0x80 || !is_alnum(s.data[i]) || ++run > 8) {
			return false;
		}
	}
	return s.len >= 2 && s.len <= 35 && run > 0 && is_letter(s.data[0]);
}

static bool
is_lane(struct slice s)
{
	return slice_eq_str(s, "urgent") || slice_eq_str(s, "normal") ||
	       slice_eq_str(s, "bulk");
}

/* --- the body's table ------------------------------------------------------------ */

static const struct web_field push_fields[] = {
	{ "to", WEB_STRINGS, WEB_REQUIRED, offsetof(struct push_body, to), .min = 1,
	  .max = PUSH_RCPTS_MAX },
	{ "subject", WEB_STRING, 0, offsetof(struct push_body, subject), .check = is_subject,
	  .expected = "text of 1 to 200 characters in one line" },
	{ "message", WEB_ANY, 0, offsetof(struct push_body, message), .max = 0 },
	{ "action", WEB_OBJECT, 0, offsetof(struct push_body, action), .max = 0 },
	{ "lang", WEB_STRING, 0, offsetof(struct push_body, lang), .check = is_lang,
	  .expected = "a language tag (BCP 47), such as \"de-AT\"" },
	{ "lane", WEB_STRING, 0, offsetof(struct push_body, lane), .check = is_lane,
	  .expected = "\"urgent\", \"normal\" or \"bulk\"" },
	{ "expires", WEB_INT, 0, offsetof(struct push_body, expires), .min = PLAN_EXPIRES_MIN_S,
	  .max = PLAN_EXPIRES_MAX_S },
};

static const struct web_field action_fields[] = {
	{ "label", WEB_STRING, WEB_REQUIRED, offsetof(struct action_body, label),
	  .check = is_label, .expected = "text of 1 to 80 characters in one line" },
	{ "url", WEB_STRING, WEB_REQUIRED, offsetof(struct action_body, url),
	  .check = is_action_url,
	  .expected = "an https URL with a host name, at most 2048 octets" },
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* --- recipients --------------------------------------------------------------------- */

/* Which of those taken so far has this address; an open hash over indices. */
struct seen {
	uint16_t slot[2 * 1024]; /* index + 1; 0: free */
};

static bool
seen_before(struct seen *seen, const struct push_rcpt *rcpts, size_t index)
{
	const struct push_rcpt *r = &rcpts[index];
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < r->member.len; i++)
		h = (h ^ r->member.data[i]) * 16777619u;
	for (size_t i = 0; i < r->domain.len; i++)
		h = (h ^ r->domain.data[i]) * 16777619u;
	for (h %= COUNT(seen->slot); seen->slot[h] != 0; h = (h + 1) % COUNT(seen->slot)) {
		const struct push_rcpt *other = &rcpts[seen->slot[h] - 1];

		if (slice_eq(other->member, r->member) && slice_eq(other->domain, r->domain))
			return true;
	}
	seen->slot[h] = (uint16_t)(index + 1);
	return false;
}

/* The address's text is copied to *room, which moves behind it. */
static void
rcpt_set(struct push_rcpt *r, const struct dmtp_address *a, uint8_t **room)
{
	memcpy(*room, a->text, a->len);
	r->member = slice_mem(*room, a->local_len);
	r->domain = slice_mem(*room + a->local_len + 1, (size_t)(a->len - a->local_len - 1));
	r->holds = false;
	*room += a->len;
}

/* Room for n recipients, their texts in the same block behind them. */
static bool
rcpts_alloc(struct plan *plan, size_t n, uint8_t **room)
{
	plan->rcpts = malloc(n * (sizeof(*plan->rcpts) + DMTP_ADDRESS_MAX));
	if (plan->rcpts == NULL)
		return false;
	*room = (uint8_t *)(plan->rcpts + n);
	return true;
}

static enum plan_rc
read_rcpts(const struct push_body *body, struct plan *plan, struct web_errors *errors)
{
	struct dmtp_address address;
	struct seen seen = { { 0 } };
	char pointer[32] = "/to";
	uint8_t *room;

	if (!rcpts_alloc(plan, body->to.count, &room))
		return PLAN_MEMORY;
	for (size_t i = 0; i < body->to.count; i++) {
		if (json_is_array(body->to.json))
			(void)snprintf(pointer, sizeof(pointer), "/to/%zu", i);
		if (dmtp_address_normalise(web_strings_at(&body->to, i), &address) !=
		    DMTP_ADDRESS_OK) {
			web_errors_add(errors, &web_invalid_value, pointer,
			               "must be a member's address, local@domain");
			continue;
		}
		rcpt_set(&plan->rcpts[plan->rcpts_n], &address, &room);
		if (!seen_before(&seen, plan->rcpts, plan->rcpts_n))
			plan->rcpts_n++;
	}
	plan->audience = plan->rcpts_n == 1 ? PUSH_ONE : PUSH_LIST;
	return errors->count > 0 ? PLAN_INVALID : PLAN_OK;
}

static enum plan_rc
read_to(const struct push_body *body, struct plan *plan, struct web_errors *errors)
{
	if (body->to.count == 1 && slice_eq_str(web_strings_at(&body->to, 0), "*")) {
		plan->audience = PUSH_CHANNEL;
		return PLAN_OK;
	}
	return read_rcpts(body, plan, errors);
}

static enum push_lane
lane_of(const struct push_body *body, enum push_audience audience)
{
	if (body->lane.len == 0)
		return audience == PUSH_CHANNEL ? LANE_BULK : LANE_NORMAL;
	if (body->lane.data[0] == 'u')
		return LANE_URGENT;
	return body->lane.data[0] == 'b' ? LANE_BULK : LANE_NORMAL;
}

/* --- the message's fields --------------------------------------------------------------- */

struct fields {
	struct dmtp_field item[FIELDS_MAX];
	size_t n;
	struct buffer action; /* owned */
};

static void
field_add(struct fields *f, enum dmtp_field_name name, struct slice type, struct slice lang,
          struct slice data)
{
	f->item[f->n++] =
	    (struct dmtp_field){ .name = name, .type = type, .lang = lang, .data = data };
}

static struct slice
json_slice(const json_t *string)
{
	return slice_mem(json_string_value(string), json_string_length(string));
}

/* {"text/plain": …, "text/markdown": …, "text/html": …}: one of them at least, in this order.
 */
static void
read_forms(const struct push_body *body, struct fields *f, struct web_errors *errors)
{
	static const char *const types[] = { "text/plain", "text/markdown", "text/html" };
	static const char *const pointers[] = { "/message/text~1plain",
		                                "/message/text~1markdown",
		                                "/message/text~1html" };
	size_t known = 0;

	for (size_t i = 0; i < COUNT(types); i++) {
		const json_t *form = json_object_get(body->message, types[i]);

		if (form == NULL)
			continue;
		known++;
		if (!json_is_string(form) || json_string_length(form) == 0)
			web_errors_add(errors, &web_invalid_value, pointers[i],
			               "must be a string that isn't empty");
		else
			field_add(f, DMTP_MESSAGE, slice_str(types[i]), body->lang,
			          json_slice(form));
	}
	if (known < json_object_size(body->message))
		web_errors_add(errors, &web_unknown_field, "/message",
		               "has only \"text/plain\", \"text/markdown\" and \"text/html\"");
	else if (known == 0)
		web_errors_add(errors, &web_missing_field, "/message",
		               "must have \"text/plain\", \"text/markdown\" or \"text/html\"");
}

static void
read_message(const struct push_body *body, struct fields *f, struct web_errors *errors)
{
	if (json_is_object(body->message))
		read_forms(body, f, errors);
	else if (!json_is_string(body->message) || json_string_length(body->message) == 0)
		web_errors_add(
		    errors, &web_invalid_value, "/message",
		    "must be a string that isn't empty, or an object of media types");
	else
		field_add(f, DMTP_MESSAGE, SLICE("text/plain"), body->lang,
		          json_slice(body->message));
}

static void
read_action(const struct push_body *body, struct fields *f, struct web_errors *errors)
{
	struct action_body action = { { NULL, 0 }, { NULL, 0 } };

	if (!web_fields_read(body->action, "/action", action_fields, COUNT(action_fields),
	                     &action, errors))
		return;
	buffer_add_str(&f->action, "# ");
	buffer_add_slice(&f->action, action.label);
	buffer_add_str(&f->action, "\r\n");
	buffer_add_slice(&f->action, action.url);
	buffer_add_str(&f->action, "\r\n");
	field_add(f, DMTP_ACTION, SLICE(PLAN_ACTION_TYPE), body->lang,
	          buffer_slice(&f->action));
}

static void
read_content(const struct push_body *body, struct fields *f, struct web_errors *errors)
{
	if (body->subject.len > 0)
		field_add(f, DMTP_SUBJECT, SLICE("text/plain"), body->lang, body->subject);
	if (body->message != NULL)
		read_message(body, f, errors);
	if (body->action != NULL)
		read_action(body, f, errors);
	if (body->subject.len == 0 && body->message == NULL)
		web_errors_add(errors, &web_missing_field, "/message",
		               "is missing: a push has a subject, a message or both");
}

/* --- the message ---------------------------------------------------------------------- */

static enum plan_rc
encode(const struct plan_origin *origin, struct slice to, const struct fields *f,
       struct plan *out)
{
	struct dmtp_address from;
	struct dmtp_message m = { .to = to, .date = origin->date_s };
	size_t octets = 0;

	for (size_t i = 0; i < f->n; i++)
		octets += f->item[i].data.len;
	if (octets > origin->message_max_bytes)
		return PLAN_TOO_LARGE;
	if (dmtp_address_make((struct slice){ NULL, 0 }, origin->site, origin->domain, &from) !=
	    DMTP_ADDRESS_OK)
		return PLAN_MEMORY;
	m.from = dmtp_address_slice(&from);
	memcpy(m.salt, origin->salt, sizeof(m.salt));
	buffer_init(&out->message, octets + OVERHEAD_MAX);
	if (buffer_reserve(&out->message, octets + 256) == NULL ||
	    dmtp_message_encode(&m, f->item, f->n, &out->message) != DMTP_MESSAGE_OK ||
	    !dmtp_digest(buffer_slice(&out->message), out->digest))
		return PLAN_MEMORY;
	return out->message.len > origin->message_max_bytes ? PLAN_TOO_LARGE : PLAN_OK;
}

/* A message to one names the member; any other names the channel, never who else gets it. */
static enum plan_rc
encode_push(const struct plan_origin *origin, const struct fields *f, struct plan *out)
{
	struct dmtp_address channel;

	if (out->audience == PUSH_ONE) {
		const struct push_rcpt *r = &out->rcpts[0];

		/* member and domain lie side by side with the "@" between them: rcpt_set */
		return encode(origin,
		              slice_mem(r->member.data, r->member.len + 1 + r->domain.len), f,
		              out);
	}
	if (dmtp_address_make(origin->channel, origin->site, origin->domain, &channel) !=
	    DMTP_ADDRESS_OK)
		return PLAN_MEMORY;
	return encode(origin, dmtp_address_slice(&channel), f, out);
}

enum plan_rc
site_plan_make(const json_t *json, const struct plan_origin *origin, struct plan *out,
               struct web_errors *errors)
{
	struct push_body body = { .expires = 0 };
	struct fields f = { .n = 0 };
	enum plan_rc rc;

	*out = (struct plan){ .audience = PUSH_CHANNEL };
	if (!web_fields_read(json, "", push_fields, COUNT(push_fields), &body, errors))
		return PLAN_INVALID;
	buffer_init(&f.action, (size_t)2 * DMTP_URI_MAX);
	rc = read_to(&body, out, errors);
	if (rc != PLAN_MEMORY)
		read_content(&body, &f, errors);
	if (rc == PLAN_OK && errors->count > 0)
		rc = PLAN_INVALID;
	out->lane = lane_of(&body, out->audience);
	out->expires_s = body.expires;
	if (rc == PLAN_OK)
		rc = f.action.failed ? PLAN_MEMORY : encode_push(origin, &f, out);
	buffer_free(&f.action);
	return rc;
}

enum plan_rc
site_plan_invitation(const struct plan_origin *origin, struct slice to, struct slice title,
                     struct slice text, struct plan *out)
{
	const struct slice none = { NULL, 0 };
	struct fields f = { .n = 0 };

	*out = (struct plan){ .audience = PUSH_INVITATION, .lane = LANE_URGENT };
	field_add(&f, DMTP_SUBJECT, SLICE("text/plain"), none, title);
	if (text.len > 0)
		field_add(&f, DMTP_MESSAGE, SLICE("text/plain"), none, text);
	return encode(origin, to, &f, out);
}

void
site_plan_free(struct plan *plan)
{
	free(plan->rcpts);
	plan->rcpts = NULL;
	plan->rcpts_n = 0;
	buffer_free(&plan->message);
}
