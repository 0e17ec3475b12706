/* Sites, keys, tokens, channels: see sites.h. What administrators change stands in
 * site_changes.c. */
#include "store/sites.h"

#include "store/rows.h"

#include <sodium.h>

/* --- The revision -------------------------------------------------------- */

static void
bind_nothing(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)a;
	(void)jobs;
	(void)n;
}

static void
rows_revision(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct revision_get *get = (struct revision_get *)jobs[i];

		get->number = PQntuples(r) > 0 ? row_i64(r, 0, 0) : 0;
	}
}

static const struct store_op revision = {
	.name = "revision_get",
	.sql = "SELECT number FROM tmtp.revision WHERE only_row",
	.types = (const Oid[]){ 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_nothing,
	.rows = rows_revision,
};

void
store_revision_get(struct store *store, struct revision_get *get)
{
	get->job.op = &revision;
	store_submit(store, &get->job);
}

/* --- A key by its id ----------------------------------------------------- */

static void
bind_key(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct site_key_get *get = (const struct site_key_get *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_slice(a, 1, get->domain);
		args_slice(a, 2, get->name);
		args_slice(a, 3, get->kid);
	}
}

void
site_key_get_clear(struct site_key_get *get)
{
	if (get->material != NULL)
		sodium_memzero(get->material, get->material_len);
	free(get->material);
	get->material = NULL;
	get->material_len = 0;
}

static void
rows_key(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		site_key_get_clear((struct site_key_get *)jobs[i]);
		jobs[i]->rc = STORE_NOT_FOUND;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct site_key_get *get = (struct site_key_get *)jobs[row_i32(r, row, 0)];

		get->site_id = row_i64(r, row, 1);
		row_copy(get->algorithm, sizeof(get->algorithm), r, row, 2);
		get->material = row_octets(r, row, 3, &get->material_len);
		get->suspended = row_bool(r, row, 4);
		get->job.rc = get->material == NULL ? STORE_DOWN : STORE_OK;
	}
}

static const struct store_op key_get = {
	.name = "site_key_get",
	.sql = "SELECT i.ord, s.site_id, k.algorithm, k.material, s.suspended_at IS NOT NULL "
	       "FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[]) AS i(ord, domain, "
	       "name, kid) "
	       "JOIN tmtp.site s ON s.domain = i.domain AND s.name = i.name AND s.kind = 0 "
	       "JOIN tmtp.site_key k ON k.site_id = s.site_id AND k.kid = i.kid "
	       " AND k.revoked_at IS NULL",
	.types = (const Oid[]){ T_INT4S, T_TEXTS, T_TEXTS, T_TEXTS, 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_key,
	.rows = rows_key,
};

void
store_site_key_get(struct store *store, struct site_key_get *get)
{
	get->job.op = &key_get;
	get->material = NULL;
	get->material_len = 0;
	store_submit(store, &get->job);
}

/* --- A token by its hash ------------------------------------------------- */

static void
bind_token(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct site_token_get *get = (const struct site_token_get *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, get->site_id);
		args_slice(a, 2, slice_mem(get->hash, sizeof(get->hash)));
		args_time(a, 3, get->now_us);
	}
}

void
site_token_get_clear(struct site_token_get *get)
{
	free(get->scopes);
	free(get->site_name);
	free(get->site_domain);
	get->scopes = get->site_name = get->site_domain = NULL;
}

static void
rows_token(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		site_token_get_clear((struct site_token_get *)jobs[i]);
		jobs[i]->rc = STORE_NOT_FOUND;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct site_token_get *get = (struct site_token_get *)jobs[row_i32(r, row, 0)];

		get->scopes = row_text(r, row, 1);
		get->site_name = row_text(r, row, 2);
		get->site_domain = row_text(r, row, 3);
		get->expires_us = row_time(r, row, 4);
		get->suspended = row_bool(r, row, 5);
		get->job.rc = STORE_OK;
		if (get->scopes == NULL || get->site_name == NULL || get->site_domain == NULL)
			get->job.rc = STORE_DOWN;
	}
}

static const struct store_op token_get = {
	.name = "site_token_get",
	.sql =
	    "SELECT i.ord, array_to_string(t.scopes, ' '), s.name, s.domain, t.expires_at, "
	    " s.suspended_at IS NOT NULL "
	    "FROM unnest($1::int4[], $2::int8[], $3::bytea[], $4::timestamptz[]) "
	    " AS i(ord, site_id, token_hash, now) "
	    "JOIN tmtp.site_token t ON t.site_id = i.site_id AND t.token_hash = i.token_hash "
	    " AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > i.now) "
	    "JOIN tmtp.site s ON s.site_id = t.site_id AND s.kind = 0",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_BYTEAS, T_TIMESTAMPTZS, 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_token,
	.rows = rows_token,
};

void
store_site_token_get(struct store *store, struct site_token_get *get)
{
	get->job.op = &token_get;
	get->scopes = get->site_name = get->site_domain = NULL;
	store_submit(store, &get->job);
}

/* --- Channels ------------------------------------------------------------ */

void
channel_list_clear(struct channel_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++)
		free(list->rows[i].title);
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

/* Columns from first on: channel_id, name, title, created_at, closed_at, members. */
static void
read_channel(struct channel_list *list, const PGresult *r, int row, int first)
{
	struct channel_row *c = &list->rows[list->rows_n++];

	c->channel_id = row_i64(r, row, first);
	row_copy(c->name, sizeof(c->name), r, row, first + 1);
	c->title = row_text(r, row, first + 2);
	c->created_us = row_time(r, row, first + 3);
	c->closed_us = row_time(r, row, first + 4);
	c->members = row_i64(r, row, first + 5);
	if (c->title == NULL)
		list->job.rc = STORE_DOWN;
}

static void
bind_channel(struct args *a, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct channel_list *list = (const struct channel_list *)jobs[i];

		args_i32(a, 0, (int32_t)i);
		args_i64(a, 1, list->site_id);
		args_slice(a, 2, list->name);
	}
}

static void
rows_channel(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		channel_list_clear((struct channel_list *)jobs[i]);
		jobs[i]->rc = STORE_NOT_FOUND;
	}
	for (int row = 0; row < PQntuples(r); row++) {
		struct channel_list *list = (struct channel_list *)jobs[row_i32(r, row, 0)];

		list->job.rc = STORE_OK;
		list->rows = calloc(1, sizeof(list->rows[0]));
		if (list->rows == NULL)
			list->job.rc = STORE_DOWN;
		else
			read_channel(list, r, row, 1);
	}
}

static const struct store_op channel_get = {
	.name = "channel_get",
	.sql = "SELECT i.ord, c.channel_id, c.name, c.title, c.created_at, c.closed_at, "
	       " (SELECT coalesce(sum(k.members), 0)::int8 FROM tmtp.chunk k "
	       "  WHERE k.site_id = c.site_id AND k.channel_id = c.channel_id) "
	       "FROM unnest($1::int4[], $2::int8[], $3::text[]) AS i(ord, site_id, name) "
	       "JOIN tmtp.channel c ON c.site_id = i.site_id AND c.name = i.name",
	.types = (const Oid[]){ T_INT4S, T_INT8S, T_TEXTS, 0 },
	.lane = STORE_READ,
	.batch_max = 128,
	.repeatable = true,
	.bind = bind_channel,
	.rows = rows_channel,
};

static void
bind_channels(struct args *a, struct store_job *const *jobs, size_t n)
{
	(void)n;
	args_i64(a, 0, ((const struct channel_list *)jobs[0])->site_id);
}

static void
rows_channels(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct channel_list *list = (struct channel_list *)jobs[0];

	(void)n;
	channel_list_clear(list);
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++)
		read_channel(list, r, row, 0);
}

static const struct store_op channels_get = {
	.name = "channel_list",
	.sql = "SELECT c.channel_id, c.name, c.title, c.created_at, c.closed_at, "
	       " (SELECT coalesce(sum(k.members), 0)::int8 FROM tmtp.chunk k "
	       "  WHERE k.site_id = c.site_id AND k.channel_id = c.channel_id) "
	       "FROM tmtp.channel c WHERE c.site_id = $1 ORDER BY c.name",
	.types = (const Oid[]){ T_INT8, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_channels,
	.rows = rows_channels,
};

void
store_channel_list(struct store *store, struct channel_list *list)
{
	list->job.op = list->name.len > 0 ? &channel_get : &channels_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

/* --- Sites, for administrators ------------------------------------------- */

static void
bind_sites(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct site_list *list = (const struct site_list *)jobs[0];

	(void)n;
	args_slice(a, 0, list->domain);
	args_slice(a, 1, list->name);
}

void
site_list_clear(struct site_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].address);
		free(list->rows[i].title);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

static void
rows_sites(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct site_list *list = (struct site_list *)jobs[0];

	(void)n;
	site_list_clear(list);
	if (PQntuples(r) == 0 && list->name.len > 0)
		list->job.rc = STORE_NOT_FOUND;
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct site_row *s = &list->rows[list->rows_n++];

		s->site_id = row_i64(r, row, 0);
		s->address = row_text(r, row, 1);
		s->title = row_text(r, row, 2);
		s->created_us = row_time(r, row, 3);
		s->suspended_us = row_time(r, row, 4);
		s->keys = row_i64(r, row, 5);
		s->tokens = row_i64(r, row, 6);
		s->channels = row_i64(r, row, 7);
		if (s->address == NULL || s->title == NULL)
			list->job.rc = STORE_DOWN;
	}
}

static const struct store_op sites_get = {
	.name = "site_list",
	.sql = "SELECT s.site_id, s.name || '@' || s.domain, s.title, s.created_at, "
	       "s.suspended_at, "
	       " (SELECT count(*) FROM tmtp.site_key k "
	       "  WHERE k.site_id = s.site_id AND k.revoked_at IS NULL), "
	       " (SELECT count(*) FROM tmtp.site_token t "
	       "  WHERE t.site_id = s.site_id AND t.revoked_at IS NULL), "
	       " (SELECT count(*) FROM tmtp.channel c "
	       "  WHERE c.site_id = s.site_id AND c.closed_at IS NULL) "
	       "FROM tmtp.site s "
	       "WHERE s.kind = 0 AND ($1 = '' OR s.domain = $1) AND ($2 = '' OR s.name = $2) "
	       "ORDER BY s.domain, s.name",
	.types = (const Oid[]){ T_TEXT, T_TEXT, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_sites,
	.rows = rows_sites,
};

void
store_site_list(struct store *store, struct site_list *list)
{
	list->job.op = &sites_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}

/* --- Keys and tokens, for administrators --------------------------------- */

static void
bind_credentials(struct args *a, struct store_job *const *jobs, size_t n)
{
	const struct credential_list *list = (const struct credential_list *)jobs[0];

	(void)n;
	args_text(a, 0, list->domain);
	args_text(a, 1, list->name);
}

void
credential_list_clear(struct credential_list *list)
{
	for (size_t i = 0; i < list->rows_n; i++) {
		free(list->rows[i].label);
		free(list->rows[i].what);
	}
	free(list->rows);
	list->rows = NULL;
	list->rows_n = 0;
}

/* A site without credentials is one row of NULLs. */
static void
rows_credentials(const PGresult *r, struct store_job *const *jobs, size_t n)
{
	struct credential_list *list = (struct credential_list *)jobs[0];

	(void)n;
	credential_list_clear(list);
	if (PQntuples(r) == 0)
		list->job.rc = STORE_NOT_FOUND;
	list->rows = rows_room(r, sizeof(list->rows[0]), &list->job);
	for (int row = 0; list->rows != NULL && row < PQntuples(r); row++) {
		struct credential_row *c;

		if (row_is_null(r, row, 1))
			continue;
		c = &list->rows[list->rows_n++];
		c->is_token = row_bool(r, row, 0);
		c->label = row_text(r, row, 1);
		c->what = row_text(r, row, 2);
		c->created_us = row_time(r, row, 3);
		c->expires_us = row_time(r, row, 4);
		c->revoked_us = row_time(r, row, 5);
		if (c->label == NULL || c->what == NULL)
			list->job.rc = STORE_DOWN;
	}
	if (list->rows_n == 0)
		credential_list_clear(list);
}

static const struct store_op credentials_get = {
	.name = "credential_list",
	.sql = "SELECT c.is_token, c.label, c.what, c.created_at, c.expires_at, c.revoked_at "
	       "FROM tmtp.site s LEFT JOIN LATERAL ("
	       " SELECT false AS is_token, k.kid AS label, k.algorithm AS what, k.created_at, "
	       "  NULL::timestamptz AS expires_at, k.revoked_at "
	       " FROM tmtp.site_key k WHERE k.site_id = s.site_id "
	       " UNION ALL "
	       " SELECT true, t.name, array_to_string(t.scopes, ' '), t.created_at, "
	       "t.expires_at, t.revoked_at "
	       " FROM tmtp.site_token t WHERE t.site_id = s.site_id) c ON true "
	       "WHERE s.domain = $1 AND s.name = $2 "
	       "ORDER BY c.is_token, c.created_at, c.label",
	.types = (const Oid[]){ T_TEXT, T_TEXT, 0 },
	.lane = STORE_READ,
	.repeatable = true,
	.bind = bind_credentials,
	.rows = rows_credentials,
};

void
store_credential_list(struct store *store, struct credential_list *list)
{
	list->job.op = &credentials_get;
	list->rows = NULL;
	list->rows_n = 0;
	store_submit(store, &list->job);
}
