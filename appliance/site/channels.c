/* Channels: listing them, and finding the one that a path names. */
#include "site/handlers.h"

#include "base/clock.h"
#include "base/text.h"
#include "site/auth.h"
#include "store/sites.h"
#include "web/reply.h"

#include <stdlib.h>

/* --- what is listed ----------------------------------------------------------- */

static json_t *
channel_json(const struct channel_row *row)
{
	json_t *o =
	    json_pack("{s:s, s:s, s:o, s:I}", "name", row->name, "title", row->title, "created",
	              site_time_json(row->created_us), "members", (json_int_t)row->members);

	if (row->closed_us >= 0)
		(void)json_object_set_new(o, "closed", site_time_json(row->closed_us));
	return o;
}

static void
on_listed(struct store_job *job)
{
	struct channel_list *list = (struct channel_list *)job;
	struct call *call = job->arg;
	enum store_rc rc = job->rc;
	json_t *rows = json_array();

	for (size_t i = 0; rc == STORE_OK && i < list->rows_n; i++)
		(void)json_array_append_new(rows, channel_json(&list->rows[i]));
	channel_list_clear(list);
	if (rc == STORE_OK) {
		web_reply_json(call->req, 200, json_pack("{s:o}", "channels", rows));
	} else {
		json_decref(rows);
		site_reply_store(call, rc);
	}
}

static void
list_channels(struct call *call)
{
	struct channel_list *list = site_job(call, sizeof(*list), on_listed);

	if (list == NULL)
		return;
	list->site_id = call->who.site_id;
	store_channel_list(call->site->store, list);
}

void
on_channel_list(struct web_request *req, void *arg)
{
	struct call *call = site_begin(req, arg, sizeof(*call));

	if (call != NULL)
		site_auth(call, SCOPE_ALL, list_channels);
}

/* --- one ------------------------------------------------------------------------- */

static void
on_got(struct store_job *job)
{
	struct channel_list *list = (struct channel_list *)job;
	struct call *call = job->arg;
	enum store_rc rc = job->rc;
	json_t *row = NULL;

	if (rc == STORE_OK && list->rows_n == 1)
		row = channel_json(&list->rows[0]);
	else if (rc == STORE_OK)
		rc = STORE_NOT_FOUND;
	channel_list_clear(list);
	if (rc == STORE_OK)
		web_reply_json(call->req, 200, row);
	else
		site_reply_store(call, rc);
}

static void
get_channel(struct call *call)
{
	struct channel_list *list;
	struct slice name = web_request_param(call->req, "channel");

	if (!text_is_name(name)) {
		web_reply_problem(call->req, &web_not_found, NULL);
		return;
	}
	list = site_job(call, sizeof(*list), on_got);
	if (list == NULL)
		return;
	list->site_id = call->who.site_id;
	list->name = name;
	store_channel_list(call->site->store, list);
}

void
on_channel_get(struct web_request *req, void *arg)
{
	struct call *call = site_begin(req, arg, sizeof(*call));

	if (call != NULL)
		site_auth(call, SCOPE_ALL, get_channel);
}

/* --- finding -------------------------------------------------------------------- */

struct kept_channel {
	struct memo_item item;
	int64_t channel_id;
};

struct channel_lookup {
	struct channel_list list;
	uint64_t generation;
	size_t key_len;
	uint8_t key[8 + 30];
};

static void
kept_channel_free(struct memo_item *item)
{
	free(item);
}

static void
keep_channel(struct site *site, const struct channel_lookup *l, int64_t channel_id)
{
	struct kept_channel *kept = malloc(sizeof(*kept));

	if (kept == NULL)
		return;
	memo_item_init(&kept->item, kept_channel_free);
	kept->channel_id = channel_id;
	memo_put(site->channels, slice_mem(l->key, l->key_len), &kept->item, 1, INT64_MAX,
	         l->generation);
	memo_item_unref(&kept->item);
}

static void
on_found(struct store_job *job)
{
	struct channel_lookup *l = (struct channel_lookup *)job;
	struct channel_call *call = job->arg;
	enum store_rc rc = job->rc;

	if (rc == STORE_OK && (l->list.rows_n != 1 || l->list.rows[0].closed_us >= 0))
		rc = STORE_NOT_FOUND;
	if (rc == STORE_OK) {
		call->channel_id = l->list.rows[0].channel_id;
		keep_channel(call->call.site, l, call->channel_id);
	}
	channel_list_clear(&l->list);
	if (rc == STORE_NOT_FOUND && call->missing != NULL)
		call->missing(call);
	else if (rc == STORE_NOT_FOUND)
		web_reply_problem(call->call.req, &web_not_found, "There is no such channel.");
	else if (rc != STORE_OK)
		site_reply_store(&call->call, rc);
	else
		call->found(call);
}

void
site_channel_find(struct channel_call *call, channel_step *found)
{
	struct site *site = call->call.site;
	struct channel_lookup *l;
	struct kept_channel *kept;
	uint64_t generation;
	uint8_t key[8 + 30];
	size_t key_len = 8;

	call->name = web_request_param(call->call.req, "channel");
	call->found = found;
	if (!text_is_name(call->name)) {
		web_reply_problem(call->call.req, &web_not_found, "There is no such channel.");
		return;
	}
	memcpy(key, &call->call.who.site_id, 8);
	memcpy(key + 8, call->name.data, call->name.len);
	key_len += call->name.len;
	kept = (struct kept_channel *)memo_get(site->channels, slice_mem(key, key_len),
	                                       clock_mono_ms(), &generation);
	if (kept != NULL) {
		call->channel_id = kept->channel_id;
		memo_item_unref(&kept->item);
		found(call);
		return;
	}
	l = site_job(&call->call, sizeof(*l), on_found);
	if (l == NULL)
		return;
	l->list.site_id = call->call.who.site_id;
	l->list.name = call->name;
	l->generation = generation;
	l->key_len = key_len;
	memcpy(l->key, key, key_len);
	store_channel_list(site->store, &l->list);
}
