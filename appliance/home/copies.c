/*
 * Copies of large attachments: see copies.h. A fetch is of one segment, so that
 * memory doesn't grow with the attachment, what was committed is never fetched
 * twice, and a host that breaks off costs one segment. When all URIs failed it
 * is put off; each segment that came begins the count of attempts anew.
 */
#include "home/copies.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "dmtp/uri.h"
#include "home/judge.h"
#include "home/origins.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define LOOK_EVERY_MS 1000
#define AT_ONCE COPY_CLAIM_MAX
#define SEGMENT ((int64_t)4 * ATTACHMENT_PART)
#define SEGMENT_MS 90000
#define TURN_MS 20000 /* then others have theirs: a slow sender may not be in everybody's way */
#define LEASE_US (INT64_C(180) * 1000000)
#define RETRY_FIRST_S 2
#define RETRY_MAX_S 3600
#define ATTEMPTS_MAX 20 /* without an octet more: about eleven hours */
#define WRONG_MAX 3
#define GROW_PATIENCE_MS 60000

METRIC_DEFINE(fetched_total, METRIC_COUNTER, "tmtp_attachment_copies_total",
              "result=\"fetched\"", "Large attachments by how fetching them ended.");
METRIC_DEFINE(failed_total, METRIC_COUNTER, "tmtp_attachment_copies_total", "result=\"failed\"",
              "Large attachments by how fetching them ended.");
METRIC_DEFINE(again_total, METRIC_COUNTER, "tmtp_attachment_copies_total", "result=\"again\"",
              "Large attachments by how fetching them ended.");

struct copying {
	struct copies *copies;
	struct copy_work work; /* owned */
	struct pickup sender;  /* borrows from work: for the judge */
	struct judge judge;
	char *uris[JUDGE_URIS];
	size_t uris_n, at;
	uint32_t left; /* bits of URIs to be tried for this segment */
	bool lies;     /* each that was tried gave something else than it was asked for */
	struct digest_run run;
	struct fetch *fetch;
	uint8_t *segment;
	char reason[NET_TEXT];
	int64_t wait_s, began_ms;
	bool gone;
	struct copy_grow grow;
	struct copy_fail fail;
	struct home_later later;
	TAILQ_ENTRY(copying) entry;
};

struct copies {
	struct home *home;
	TAILQ_HEAD(copyings, copying) all;
	size_t n;
	struct loop_timer look;
	struct copy_claim claim;
	struct home_later later;
	bool looking, again;
};

struct home *
copies_home(const struct copies *copies)
{
	return copies->home;
}

struct copy_limits
copies_limits(const struct home *home)
{
	const struct config_home *c = &home->config->home;

	return (struct copy_limits){ .max_octets = (int64_t)c->attachment_max_bytes,
		                     .member_octets = (int64_t)c->attachment_member_bytes,
		                     .total_octets = (int64_t)c->attachment_total_bytes };
}

/* --- The end of one ---------------------------------------------------------------- */

static void
copying_free(struct copying *c)
{
	TAILQ_REMOVE(&c->copies->all, c, entry);
	c->copies->n--;
	fetch_cancel(&c->fetch);
	judge_cancel(&c->judge);
	copy_work_clear(&c->work);
	for (size_t i = 0; i < c->uris_n; i++)
		free(c->uris[i]);
	free(c->segment);
	free(c);
}

static void
over(void *arg)
{
	struct copying *c = arg;
	struct copies *copies = c->copies;

	copying_free(c);
	copies_wake(copies);
}

static void
put_off(struct copying *c)
{
	bool wrong = c->fail.wrong;
	int64_t wait_s = RETRY_FIRST_S;
	char id[UUID_TEXT];

	uuid_format(&c->work.copy_id, id);
	log_warn("attachment-failed", LOG_S("sender", c->work.sender), LOG_S("copy", id),
	         LOG_S("reason", c->reason), LOG_I("octets", c->work.octets),
	         LOG_I("attempts", c->work.attempts + 1));
	for (int i = 0; i < c->work.attempts && wait_s < RETRY_MAX_S; i++)
		wait_s *= 2;
	if (wait_s < c->wait_s)
		wait_s = c->wait_s;
	c->fail.copy_id = c->work.copy_id;
	c->fail.never = c->gone || c->work.attempts + 1 >= ATTEMPTS_MAX ||
	                (wrong && c->work.wrong + 1 >= WRONG_MAX);
	c->fail.reason = c->reason;
	c->fail.not_before_us =
	    clock_wall_us() + (wait_s < RETRY_MAX_S ? wait_s : RETRY_MAX_S) * 1000000;
	metric_add(c->fail.never ? &failed_total : &again_total, 1);
	home_later(&c->later, c->copies->home, &c->fail.job, over, c);
	store_copy_fail(c->copies->home->store, &c->fail);
}

/* --- Segments ------------------------------------------------------------------------ */

static void next_segment(struct copying *c);

static void
end_turn(struct copying *c)
{
	c->fail =
	    (struct copy_fail){ .copy_id = c->work.copy_id, .not_before_us = clock_wall_us() };
	home_later(&c->later, c->copies->home, &c->fail.job, over, c);
	store_copy_fail(c->copies->home->store, &c->fail);
}

static void
on_grown(void *arg)
{
	struct copying *c = arg;

	free(c->segment);
	c->segment = NULL;
	if (c->grow.job.rc != STORE_OK || c->grow.whole || c->copies->home->draining) {
		if (c->grow.job.rc != STORE_OK && c->grow.job.rc != STORE_NOT_FOUND)
			log_warn("attachment-unrecorded", LOG_S("sender", c->work.sender),
			         LOG_S("reason", store_rc_text(c->grow.job.rc)));
		else if (c->grow.whole)
			metric_add(&fetched_total, 1);
		over(c);
		return;
	}
	c->work.octets += (int64_t)c->grow.data.len;
	c->work.attempts = 0;
	if (clock_mono_ms() - c->began_ms < TURN_MS)
		next_segment(c);
	else
		end_turn(c);
}

/* All of it is here or this was only a part of it. */
static void
take_segment(struct copying *c, struct slice octets)
{
	uint8_t digest[DIGEST_LEN];

	digest_run_add(&c->run, octets);
	c->grow = (struct copy_grow){
		.job = { .patience_ms = GROW_PATIENCE_MS },
		.copy_id = c->work.copy_id,
		.octets = c->work.octets,
		.whole = c->work.octets + (int64_t)octets.len == c->work.size,
		.lease_until_us = clock_wall_us() + LEASE_US,
	};
	if (c->grow.whole) {
		digest_run_end(&c->run, digest);
		if (memcmp(digest, c->work.digest, sizeof(digest)) != 0) {
			c->fail.wrong = true;
			(void)snprintf(c->reason, sizeof(c->reason),
			               "what was fetched is not what the message names");
			put_off(c);
			return;
		}
	} else {
		digest_run_save(&c->run, c->grow.running);
	}
	c->segment = malloc(octets.len);
	if (c->segment == NULL) {
		(void)snprintf(c->reason, sizeof(c->reason), "out of memory");
		put_off(c);
		return;
	}
	memcpy(c->segment, octets.data, octets.len);
	c->grow.data = slice_mem(c->segment, octets.len);
	home_later(&c->later, c->copies->home, &c->grow.job, on_grown, c);
	store_copy_grow(c->copies->home->store, &c->grow);
}

static int64_t
segment_len(const struct copying *c)
{
	int64_t left = c->work.size - c->work.octets;

	return left < SEGMENT ? left : SEGMENT;
}

/* Whether an answer is exactly what was asked for. */
static bool
is_segment(struct copying *c, const struct fetch_answer *answer)
{
	int64_t first = c->work.octets, len = segment_len(c);
	char range[96];

	if ((int64_t)answer->body.len != len)
		return false;
	if (answer->status == 200)
		return len == c->work.size;
	(void)snprintf(range, sizeof(range), "bytes %lld-%lld/%lld", (long long)first,
	               (long long)(first + len - 1), (long long)c->work.size);
	return answer->status == 206 && strcmp(answer->content_range, range) == 0;
}

static void fetch_next(struct copying *c);

/* Of the sender's own domain. */
static bool
is_own(const struct copying *c)
{
	struct dmtp_uri uri;

	return dmtp_uri_split(slice_str(c->uris[c->at]), &uri) &&
	       slice_eq(uri.host, dmtp_domain_of(slice_str(c->work.sender)));
}

static void
on_fetched(void *arg, const struct fetch_answer *answer)
{
	struct copying *c = arg;

	c->fetch = NULL;
	if (answer->rc == FETCH_OK && is_segment(c, answer)) {
		take_segment(c, answer->body);
		return;
	}
	if (answer->rc == FETCH_OK && answer->status == 410 && is_own(c)) {
		(void)snprintf(c->reason, sizeof(c->reason), "the sender has withdrawn it");
		c->gone = true;
		put_off(c);
		return;
	}
	if ((answer->rc != FETCH_OK && answer->rc != FETCH_TOO_LARGE) || answer->status < 200 ||
	    answer->status > 299)
		c->lies = false;
	if (answer->rc == FETCH_OK && answer->status >= 200 && answer->status <= 299)
		(void)snprintf(c->reason, sizeof(c->reason),
		               "the answer is not the range that was asked for");
	else if (answer->rc == FETCH_OK)
		(void)snprintf(c->reason, sizeof(c->reason), "HTTP status %ld", answer->status);
	else
		(void)snprintf(c->reason, sizeof(c->reason), "%s%s%s",
		               fetch_rc_name(answer->rc), answer->text[0] == '\0' ? "" : ": ",
		               answer->text);
	fetch_next(c);
}

static bool
start_fetch(struct copying *c)
{
	int64_t len = segment_len(c);
	struct fetch_request request = {
		.url = c->uris[c->at],
		.max_body = (size_t)len,
		.total_ms = SEGMENT_MS,
		.ranged = true,
		.range_first = (uint64_t)c->work.octets,
		.range_last = (uint64_t)(c->work.octets + len - 1),
	};

	c->fetch =
	    origins_fetch(c->copies->home->origins, dmtp_domain_of(slice_str(c->work.sender)),
	                  &request, on_fetched, c);
	if (c->fetch == NULL)
		(void)snprintf(c->reason, sizeof(c->reason), "out of memory");
	return c->fetch != NULL;
}

/* The URI at hand as long as it does; then the others in their order. */
static void
fetch_next(struct copying *c)
{
	while (c->left != 0) {
		while ((c->left & UINT32_C(1) << c->at) == 0)
			c->at = (c->at + 1) % c->uris_n;
		c->left &= ~(UINT32_C(1) << c->at);
		if (start_fetch(c))
			return;
		c->lies = false;
	}
	c->fail.wrong = c->lies;
	put_off(c);
}

static void
next_segment(struct copying *c)
{
	c->left = c->judge.allowed;
	c->lies = true;
	fetch_next(c);
}

/* --- Beginning ------------------------------------------------------------------------- */

static void
on_judged(void *arg)
{
	struct copying *c = arg;

	if (c->judge.verdict == JUDGE_PASS) {
		/* After what was wrong another URI begins. */
		c->at = (size_t)c->work.wrong % c->uris_n;
		next_segment(c);
		return;
	}
	(void)snprintf(c->reason, sizeof(c->reason), "%s", c->judge.reason);
	c->wait_s = 10;
	put_off(c);
}

static void
begin(struct copies *copies, struct copy_work *work)
{
	struct copying *c = calloc(1, sizeof(*c));
	char *at, *word;

	if (c == NULL) {
		copy_work_clear(work); /* its lease runs out */
		return;
	}
	c->copies = copies;
	c->began_ms = clock_mono_ms();
	c->work = *work;
	*work = (struct copy_work){ .uris = NULL };
	TAILQ_INSERT_TAIL(&copies->all, c, entry);
	copies->n++;
	at = c->work.uris;
	while ((word = strsep(&at, "\n")) != NULL && c->uris_n < JUDGE_URIS)
		if (*word != '\0' && (c->uris[c->uris_n] = strdup(word)) != NULL)
			c->uris_n++;
	if (c->work.octets > 0)
		digest_run_restore(&c->run, c->work.running, (uint64_t)c->work.octets);
	else
		digest_run_init(&c->run);
	c->sender = (struct pickup){ .sender = c->work.sender,
		                     .date_s = c->work.date_s,
		                     .key = c->work.key,
		                     .signature = c->work.signature,
		                     .signature_len = c->work.signature_len };
	memcpy(c->sender.digest, c->work.message_digest, sizeof(c->sender.digest));
	judge_begin(&c->judge, copies->home, &c->sender, c->uris, c->uris_n, on_judged, c);
}

static void
on_claimed(void *arg)
{
	struct copies *copies = arg;
	size_t n = copies->claim.job.rc == STORE_OK ? copies->claim.rows_n : 0;

	copies->looking = false;
	for (size_t i = 0; i < n; i++)
		begin(copies, &copies->claim.rows[i]);
	copies->claim.rows_n = 0;
	if (!copies->home->draining && copies->n < AT_ONCE)
		loop_timer_set(&copies->look, copies->again ? 0 : LOOK_EVERY_MS);
	copies->again = false;
}

static void
on_look(struct loop_timer *timer)
{
	struct copies *copies = timer->arg;
	int64_t now = clock_wall_us();

	if (copies->looking || copies->home->draining || copies->n >= AT_ONCE)
		return;
	copies->looking = true;
	copies->claim = (struct copy_claim){ .now_us = now,
		                             .lease_until_us = now + LEASE_US,
		                             .limit = (unsigned)(AT_ONCE - copies->n) };
	home_later(&copies->later, copies->home, &copies->claim.job, on_claimed, copies);
	store_copy_claim(copies->home->store, &copies->claim);
}

void
copies_wake(struct copies *copies)
{
	if (copies->looking)
		copies->again = true;
	else if (!copies->home->draining)
		loop_timer_set(&copies->look, 0);
}

/* --- Life -------------------------------------------------------------------------------- */

struct copies *
copies_new(struct home *home)
{
	struct copies *copies = calloc(1, sizeof(*copies));

	if (copies == NULL)
		return NULL;
	copies->home = home;
	TAILQ_INIT(&copies->all);
	loop_timer_init(&copies->look, home->loop, on_look, copies);
	loop_timer_set(&copies->look, 0);
	return copies;
}

void
copies_free(struct copies **copies)
{
	struct copies *all = *copies;

	if (all == NULL)
		return;
	*copies = NULL;
	loop_timer_cancel(&all->look);
	while (!TAILQ_EMPTY(&all->all))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): copying_free takes it out of the list */
		copying_free(TAILQ_FIRST(&all->all));
	free(all);
}
