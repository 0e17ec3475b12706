/* What a push becomes: see plan.h. */
#include "site/plan.h"

#include "base/text.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "dmtp/uri.h"
#include "store/attachments.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Fields of one message: a subject, three forms of the message, an action, attachments. */
#define FIELDS_MAX (5 + ATTACHMENTS_NAMED_MAX)
#define WORDS_MAX 140
/* What a message needs besides its fields' data. */
#define OVERHEAD_MAX 4096
/* What a large attachment's field has besides its URIs. */
#define LARGE_OVERHEAD 512
/* So many values fit the shortest dictionary of DMTP_VARS_MAX octets: "1:x0:" each. */
#define VALUES_MAX 256
#define WHERE_MAX 128

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

const struct web_problem plan_unknown_variable = {
	.type = "urn:tmtp:problem:unknown-variable",
	.title = "A variable has no value, or a value no variable.",
	.status = 422,
};

/* The body's fields as they stand there. */
struct push_body {
	const json_t *to;
	struct slice replaces;
	struct slice subject, lang, lane;
	const json_t *message, *action;
	const json_t *attachments; /* read before: origin has what they are */
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

static bool
is_id(struct slice s)
{
	struct uuid id;

	return uuid_parse(s, &id);
}

/* --- the body's table ------------------------------------------------------------ */

static const struct web_field push_fields[] = {
	{ "to", WEB_ANY, WEB_REQUIRED, offsetof(struct push_body, to), .max = 0 },
	{ "replaces", WEB_STRING, 0, offsetof(struct push_body, replaces), .check = is_id,
	  .expected = "the id of an earlier message" },
	{ "subject", WEB_STRING, 0, offsetof(struct push_body, subject), .check = is_subject,
	  .expected = "text of 1 to 200 characters in one line" },
	{ "message", WEB_ANY, 0, offsetof(struct push_body, message), .max = 0 },
	{ "action", WEB_OBJECT, 0, offsetof(struct push_body, action), .max = 0 },
	{ "attachments", WEB_ANY, 0, offsetof(struct push_body, attachments), .max = 0 },
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

/* --- recipients' values ---------------------------------------------------------------- */

/* Names of variables: given with a pointer to where, used in the text. Objects as sets. */
struct values {
	json_t *given, *used;
	bool memory; /* there was none */
};

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool
value_is_fine(const char *name, const json_t *value, const char *pointer,
              struct web_errors *errors)
{
	char where[WHERE_MAX];

	(void)snprintf(where, sizeof(where), "%s/values/%.40s", pointer, name);
	if (!dmtp_var_name_valid(slice_str(name)))
		web_errors_add(errors, &web_invalid_value, where,
		               "a variable's name is 1 to 30 of a-z, 0-9 and _");
	else if (!json_is_string(value) ||
	         !site_plan_text_valid(
		     slice_mem(json_string_value(value), json_string_length(value)), 0,
		     DMTP_VARS_MAX, true))
		web_errors_add(errors, &web_invalid_value, where,
		               "must be text without control characters");
	else
		return true;
	return false;
}

/* Sorted, as the canonical form wants it. */
static void
values_encode(const json_t *values, const char **names, size_t n, struct buffer *out)
{
	qsort(names, n, sizeof(*names), compare_names);
	buffer_add_u8(out, 'd');
	for (size_t i = 0; i < n; i++) {
		const json_t *value = json_object_get(values, names[i]);

		ben_put_str(out, slice_str(names[i]));
		ben_put_str(out,
		            slice_mem(json_string_value(value), json_string_length(value)));
	}
	buffer_add_u8(out, 'e');
}

/*
 * Of the last recipient of the plan. Until all are read, values.data counts from
 * the buffer's beginning: it may move.
 */
static void
values_read(struct values *v, const json_t *values, const char *pointer, struct plan *plan,
            struct web_errors *errors)
{
	const char *names[VALUES_MAX], *name;
	size_t n = 0, begin = plan->values.len, before = errors->count;
	json_t *value;
	char where[WHERE_MAX];

	json_object_foreach((json_t *)(uintptr_t)values, name, value)
	{
		if (!value_is_fine(name, value, pointer, errors))
			continue;
		if (n < VALUES_MAX)
			names[n] = name;
		n++;
		(void)snprintf(where, sizeof(where), "%s/values/%s", pointer, name);
		if (json_object_get(v->given, name) == NULL)
			v->memory = v->memory || json_object_set_new(v->given, name,
			                                             json_string(where)) != 0;
	}
	if (errors->count > before)
		return;
	if (n <= VALUES_MAX)
		values_encode(values, names, n, &plan->values);
	if (n > VALUES_MAX || plan->values.len - begin > DMTP_VARS_MAX) {
		(void)snprintf(where, sizeof(where), "%s/values", pointer);
		web_errors_add(errors, &web_invalid_value, where,
		               "are more than %d octets together", DMTP_VARS_MAX);
		return;
	}
	plan->has_values = true;
	plan->rcpts[plan->rcpts_n - 1].values.len = plan->values.len - begin;
}

/* Nothing moves any more. */
static void
values_settle(struct plan *plan)
{
	size_t at = 0;

	for (size_t i = 0; i < plan->rcpts_n; i++) {
		plan->rcpts[i].values =
		    slice_mem(plan->values.data + at, plan->rcpts[i].values.len);
		at += plan->rcpts[i].values.len;
	}
}

struct use {
	struct values *values;
	const char *pointer;
};

static void
use_name(const char *name, void *arg)
{
	struct use *u = arg;

	if (json_object_get(u->values->used, name) == NULL &&
	    json_object_set_new(u->values->used, name, json_string(u->pointer)) != 0)
		u->values->memory = true;
}

/* Of what was given and what is used each needs the other. */
static void
values_check(const struct values *v, struct web_errors *errors)
{
	const char *name;
	json_t *where;

	json_object_foreach(v->used, name, where)
	{
		if (json_object_get(v->given, name) == NULL)
			web_errors_add(
			    errors, &plan_unknown_variable, json_string_value(where),
			    "{{%s}} has no value: none of the recipients has one of this name",
			    name);
	}
	json_object_foreach(v->given, name, where)
	{
		if (json_object_get(v->used, name) == NULL)
			web_errors_add(
			    errors, &plan_unknown_variable, json_string_value(where),
			    "there is no {{%s}} in the text of the subject or the message",
			    name);
	}
}

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
	r->values = slice_mem(NULL, 0);
	*room += a->len;
}

/* Room for n recipients, their texts in the same block behind them. */
static bool
rcpts_alloc(struct plan *plan, size_t n, uint8_t **room)
{
	plan->rcpts =
	    malloc(n * (sizeof(*plan->rcpts) + sizeof(*plan->rcpts_at) + DMTP_ADDRESS_MAX));
	if (plan->rcpts == NULL)
		return false;
	plan->rcpts_at = (uint16_t *)(plan->rcpts + n);
	*room = (uint8_t *)(plan->rcpts_at + n);
	return true;
}

/* One of "to": an address, or {"address": …, "values": {…}}. */
struct to_item {
	struct slice address;
	const json_t *values; /* NULL: none */
};

static const json_t *
to_at(const json_t *to, size_t i)
{
	return json_is_array(to) ? json_array_get(to, i) : to;
}

static size_t
to_count(const json_t *to)
{
	return json_is_array(to) ? json_array_size(to) : 1;
}

static void
to_pointer(const json_t *to, size_t i, char out[static 32])
{
	(void)snprintf(out, 32, json_is_array(to) ? "/to/%zu" : "/to", i);
}

static bool
read_item(const json_t *item, const char *pointer, struct to_item *out,
          struct web_errors *errors)
{
	static const struct web_field fields[] = {
		{ "address", WEB_STRING, WEB_REQUIRED, offsetof(struct to_item, address),
		  .max = 0 },
		{ "values", WEB_OBJECT, 0, offsetof(struct to_item, values), .max = 0 },
	};

	*out = (struct to_item){ .values = NULL };
	if (json_is_object(item))
		return web_fields_read(item, pointer, fields, COUNT(fields), out, errors);
	if (!json_is_string(item)) {
		web_errors_add(
		    errors, &web_invalid_value, pointer,
		    "must be a string, or an object with \"address\" and \"values\"");
		return false;
	}
	out->address = slice_mem(json_string_value(item), json_string_length(item));
	return true;
}

/* An address that stands twice counts once, with its first values. */
static enum plan_rc
read_rcpts(const json_t *to, struct plan *plan, struct values *values,
           struct web_errors *errors)
{
	struct dmtp_address address;
	struct seen seen = { { 0 } };
	size_t count = to_count(to);
	struct to_item item;
	char pointer[32];
	uint8_t *room;

	if (!rcpts_alloc(plan, count, &room))
		return PLAN_MEMORY;
	for (size_t i = 0; i < count; i++) {
		struct push_rcpt *r = &plan->rcpts[plan->rcpts_n];

		to_pointer(to, i, pointer);
		if (!read_item(to_at(to, i), pointer, &item, errors))
			continue;
		if (dmtp_address_normalise(item.address, &address) != DMTP_ADDRESS_OK) {
			web_errors_add(errors, &web_invalid_value, pointer,
			               "must be a member's address, local@domain");
			continue;
		}
		rcpt_set(r, &address, &room);
		if (seen_before(&seen, plan->rcpts, plan->rcpts_n))
			continue;
		plan->rcpts_at[plan->rcpts_n++] = (uint16_t)i;
		if (item.values != NULL && json_object_size(item.values) > 0)
			values_read(values, item.values, pointer, plan, errors);
	}
	if (!json_is_array(to))
		plan->rcpts_at = NULL;
	plan->audience = plan->rcpts_n == 1 ? PUSH_ONE : PUSH_LIST;
	return errors->count > 0 ? PLAN_INVALID : PLAN_OK;
}

static bool
to_is_fine(const json_t *to, struct web_errors *errors)
{
	const char *wrong = NULL;

	if (!json_is_array(to) && !json_is_string(to) && !json_is_object(to))
		wrong = "must be a string or a list of strings or objects";
	else if (to_count(to) < 1)
		wrong = "must not be empty";
	else if (to_count(to) > PUSH_RCPTS_MAX)
		wrong = "must have at most 1000 items";
	if (wrong != NULL)
		web_errors_add(errors, &web_invalid_value, "/to", "%s", wrong);
	return wrong == NULL;
}

static enum plan_rc
read_to(const struct push_body *body, struct plan *plan, struct values *values,
        struct web_errors *errors)
{
	const json_t *first = to_at(body->to, 0);

	if (!to_is_fine(body->to, errors))
		return PLAN_INVALID;
	if (to_count(body->to) == 1 && json_is_string(first) &&
	    strcmp(json_string_value(first), "*") == 0) {
		plan->audience = PUSH_CHANNEL;
		return PLAN_OK;
	}
	return read_rcpts(body->to, plan, values, errors);
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
		octets += f->item[i].large ? f->item[i].uris.len + LARGE_OVERHEAD
		                           : f->item[i].data.len;
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

/* Names in the subject and in the message's forms. */
static void
find_names(const struct fields *f, struct values *v)
{
	static const char *const pointers[] = {
		[DMTP_SUBJECT] = "/subject", [DMTP_MESSAGE] = "/message"
	};

	for (size_t i = 0; i < f->n; i++) {
		const struct dmtp_field *item = &f->item[i];
		struct use use = { v, NULL };

		if (item->name != DMTP_SUBJECT && item->name != DMTP_MESSAGE)
			continue;
		use.pointer = pointers[item->name];
		dmtp_template_names(item->data, dmtp_escape_for(item->type), use_name, &use);
	}
}

static enum plan_rc
read_body(const struct push_body *body, struct plan *out, struct fields *f, struct values *v,
          struct web_errors *errors)
{
	enum plan_rc rc = read_to(body, out, v, errors);

	if (rc == PLAN_MEMORY)
		return rc;
	read_content(body, f, errors);
	if (errors->count == 0) {
		find_names(f, v);
		values_check(v, errors);
		values_settle(out);
	}
	if (v->memory || f->action.failed || out->values.failed)
		return PLAN_MEMORY;
	return errors->count > 0 ? PLAN_INVALID : PLAN_OK;
}

enum plan_rc
site_plan_make(const json_t *json, const struct plan_origin *origin, struct plan *out,
               struct web_errors *errors)
{
	struct push_body body = { .expires = 0 };
	struct values v = { .memory = false };
	struct fields f = { .n = 0 };
	enum plan_rc rc = PLAN_MEMORY;

	*out = (struct plan){ .audience = PUSH_CHANNEL };
	buffer_init(&out->values, (size_t)PUSH_RCPTS_MAX * DMTP_VARS_MAX + DMTP_VARS_MAX);
	if (!web_fields_read(json, "", push_fields, COUNT(push_fields), &body, errors))
		return PLAN_INVALID;
	buffer_init(&f.action, (size_t)2 * DMTP_URI_MAX);
	v.given = json_object();
	v.used = json_object();
	if (v.given != NULL && v.used != NULL)
		rc = read_body(&body, out, &f, &v, errors);
	out->lane = lane_of(&body, out->audience);
	out->expires_s = body.expires;
	out->is_replacement = body.replaces.len > 0 && uuid_parse(body.replaces, &out->earlier);
	for (size_t i = 0; i < origin->attached_n && i < ATTACHMENTS_NAMED_MAX; i++)
		f.item[f.n++] = origin->attached[i];
	if (rc == PLAN_OK)
		rc = encode_push(origin, &f, out);
	json_decref(v.given);
	json_decref(v.used);
	buffer_free(&f.action);
	return rc;
}

/* The date is the message's first value, and of the same length until 2286. */
bool
site_plan_redate(struct plan *plan, int64_t date_s)
{
	static const char head[] = "d4:datei";
	size_t at = sizeof(head) - 1;
	char text[24];
	size_t n = (size_t)snprintf(text, sizeof(text), "%" PRId64 "e", date_s);

	if (plan->message.len < at + n || memcmp(plan->message.data, head, at) != 0 ||
	    memchr(plan->message.data + at, 'e', n) != plan->message.data + at + n - 1)
		return false;
	memcpy(plan->message.data + at, text, n);
	return dmtp_digest(buffer_slice(&plan->message), plan->digest);
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
	buffer_free(&plan->values);
	buffer_free(&plan->message);
}
