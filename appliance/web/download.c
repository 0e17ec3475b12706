/*
 * Downloads: see download.h. The daemon's reader suspends the connection and
 * asks; the answer resumes it. The response holds a reference, and so does a
 * question that isn't answered yet; what the object owned goes with the last.
 */
#include "web/download.h"

#include "web/private.h"

#include <stdlib.h>

#define BLOCK 32768

struct web_download {
	pthread_mutex_t lock;
	_Atomic int refs;
	struct MHD_Connection *mhd;
	struct web_server *server;
	uint64_t first; /* of the object's octets, what the answer begins with */
	void (*want)(struct web_download *, uint64_t, void *);
	void (*free_data)(void *);
	void *owner;
	/* Under the lock. */
	uint8_t *data;
	size_t len, used;
	bool suspended, failed, ended;
};

static void
download_unref(struct web_download *d)
{
	if (atomic_fetch_sub(&d->refs, 1) != 1)
		return;
	if (d->free_data != NULL)
		d->free_data(d->owner);
	free(d->data);
	(void)pthread_mutex_destroy(&d->lock);
	free(d);
}

/* Under the lock. */
static size_t
take(struct web_download *d, char *out, size_t max)
{
	size_t n = d->len - d->used < max ? d->len - d->used : max;

	memcpy(out, d->data + d->used, n);
	d->used += n;
	if (d->used == d->len) {
		free(d->data);
		d->data = NULL;
	}
	return n;
}

/* Counted before refusing is read: a server that refuses and counts none may stop its daemon. */
static bool
may_suspend(struct web_download *d)
{
	atomic_fetch_add(&d->server->fetching, 1);
	if (!atomic_load(&d->server->refusing))
		return true;
	atomic_fetch_sub(&d->server->fetching, 1);
	return false;
}

static ssize_t
on_read(void *cls, uint64_t pos, char *out, size_t max)
{
	struct web_download *d = cls;
	ssize_t n = MHD_CONTENT_READER_END_WITH_ERROR;
	bool asks = false;

	pthread_mutex_lock(&d->lock);
	if (d->data != NULL) {
		n = (ssize_t)take(d, out, max);
	} else if (!d->failed && may_suspend(d)) {
		asks = d->suspended = true;
		atomic_fetch_add(&d->refs, 1);
		MHD_suspend_connection(d->mhd);
		n = 0;
	}
	pthread_mutex_unlock(&d->lock);
	if (asks)
		d->want(d, d->first + pos, d->owner);
	return n;
}

void
web_download_give(struct web_download *d, void *data, size_t len, size_t skip)
{
	struct web_server *server = d->server;
	bool resumed = false;

	pthread_mutex_lock(&d->lock);
	if (data == NULL || skip >= len || d->ended) {
		free(data);
		d->failed = true;
	} else {
		d->data = data;
		d->len = len;
		d->used = skip;
	}
	if (d->suspended) {
		d->suspended = false;
		resumed = true;
		MHD_resume_connection(d->mhd);
	}
	pthread_mutex_unlock(&d->lock);
	download_unref(d);
	if (resumed)
		atomic_fetch_sub(&server->fetching, 1);
}

/* The response is gone: sent to its end, client gone, or never sent. */
static void
on_release(void *cls)
{
	struct web_download *d = cls;

	pthread_mutex_lock(&d->lock);
	d->ended = true;
	free(d->data);
	d->data = NULL;
	pthread_mutex_unlock(&d->lock);
	download_unref(d);
}

struct MHD_Response *
download_response(struct web_request *req, const struct web_object *o, size_t from,
                  size_t count)
{
	struct web_download *d = calloc(1, sizeof(*d));
	struct MHD_Response *response;

	if (d == NULL)
		return NULL;
	(void)pthread_mutex_init(&d->lock, NULL);
	atomic_init(&d->refs, 1);
	d->mhd = req->mhd;
	d->server = req->server;
	d->first = from;
	d->want = o->want;
	d->owner = o->owner;
	response = MHD_create_response_from_callback(count, BLOCK, on_read, d, on_release);
	if (response == NULL)
		download_unref(d);
	else
		d->free_data = o->free_data; /* from now on its own */
	return response;
}
