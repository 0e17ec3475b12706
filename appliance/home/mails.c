/*
 * Arriving mail: see mails.h. A delivery goes between the thread aside, which
 * reads it and makes the message, and the loop, which has it stored, once for
 * each domain of its recipients.
 */
#include "home/mails.h"

#include "base/aside.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/metric.h"
#include "dmtp/address.h"
#include "dmtp/message.h"
#include "home/live.h"
#include "home/mime.h"
#include "home/registrable.h"
#include "store/mails.h"

#include <sodium.h>
#include <stdlib.h>
#include <sys/queue.h>

#define DATE_AHEAD_S 3600 /* a clock may be wrong by so much */

METRIC_DEFINE(mails_stored, METRIC_COUNTER, "tmtp_mail_recipients_total", "result=\"stored\"",
              "Recipients of mail, by what became of it.");
METRIC_DEFINE(mails_closed, METRIC_COUNTER, "tmtp_mail_recipients_total", "result=\"closed\"",
              "Recipients of mail, by what became of it.");
METRIC_DEFINE(mails_unwanted, METRIC_COUNTER, "tmtp_mail_recipients_total",
              "result=\"unwanted\"", "Recipients of mail, by what became of it.");
METRIC_DEFINE(mails_put_off, METRIC_COUNTER, "tmtp_mail_recipients_total", "result=\"later\"",
              "Recipients of mail, by what became of it.");
METRIC_DEFINE(mails_whole, METRIC_COUNTER, "tmtp_mail_whole_total", NULL,
              "Mail that was beyond measure and is one attachment.");

struct mails {
	struct home *home;
	struct aside *aside;
	TAILQ_HEAD(all_deliveries, delivery) deliveries;
	size_t held;
};

/* A recipient; without an address it is nobody. */
struct whom {
	struct dmtp_address address;
	bool settled; /* its answer stands */
};

struct delivery {
	struct work work;      /* first: what the thread aside gets */
	struct loop_task task; /* on the way back */
	struct mails *mails;
	void (*done)(void *arg, const enum lmtp_answer *answers);
	void *arg;
	TAILQ_ENTRY(delivery) all;
	size_t octets;

	struct buffer body; /* until it is read */
	struct mime_mail *mail;
	uint8_t body_digest[DIGEST_LEN];
	struct lmtp_path sender;
	struct dmtp_address sender_address, author; /* len 0: of no address's form */
	struct whom *rcpts;
	enum lmtp_answer *answers;
	size_t rcpts_n;

	/* Of the domain that it is stored for now. */
	size_t *group; /* indexes of its recipients */
	struct dmtp_address gateway;
	struct buffer message, registrable;
	uint8_t digest[DIGEST_LEN], seen[DIGEST_LEN];
	bool made;
	struct mail_arrival arrival;
	struct home_later later;
	int64_t *accounts;
};

/* --- asking ------------------------------------------------------------------------- */

struct asking {
	struct mail_ask job; /* first */
	struct home_later later;
	struct dmtp_address rcpt, sender;
	void (*done)(void *arg, enum lmtp_answer answer);
	void *arg;
};

static struct dmtp_address
address_of(struct slice text)
{
	struct dmtp_address a = { .len = 0 };

	if (dmtp_address_normalise(text, &a) != DMTP_ADDRESS_OK)
		a.len = 0;
	return a;
}

static void
refused(struct slice sender, struct slice rcpt, const char *reason)
{
	metric_add(&mails_closed, 1);
	log_info("mail-refused", LOG_B("from", sender), LOG_B("to", rcpt),
	         LOG_S("reason", reason));
}

static void
on_asked(void *arg)
{
	struct asking *a = arg;
	enum lmtp_answer answer = LMTP_LATER;

	if (a->job.job.rc == STORE_OK) {
		answer = a->job.open ? LMTP_YES : LMTP_NOBODY;
	} else {
		metric_add(&mails_put_off, 1);
		log_warn("mail-put-off", LOG_B("to", dmtp_address_slice(&a->rcpt)),
		         LOG_S("reason", store_rc_text(a->job.job.rc)));
	}
	if (answer == LMTP_NOBODY)
		refused(a->job.sender, dmtp_address_slice(&a->rcpt), "closed");
	a->done(a->arg, answer);
	free(a);
}

void
mails_ask(struct mails *mails, struct slice sender, struct slice rcpt,
          void (*done)(void *arg, enum lmtp_answer answer), void *arg)
{
	struct asking *a = calloc(1, sizeof(*a));

	if (a == NULL) {
		done(arg, LMTP_TOO_MUCH);
		return;
	}
	a->rcpt = address_of(rcpt);
	a->sender = address_of(sender);
	a->done = done;
	a->arg = arg;
	if (a->rcpt.len == 0) {
		free(a);
		refused(sender, rcpt, "no address");
		done(arg, LMTP_NOBODY);
		return;
	}
	a->job.domain = dmtp_address_domain(&a->rcpt);
	a->job.name = dmtp_address_local(&a->rcpt);
	a->job.sender = dmtp_address_slice(&a->sender);
	home_later(&a->later, mails->home, &a->job.job, on_asked, a);
	store_mail_ask(mails->home->store, &a->job);
}

/* --- a delivery's life ------------------------------------------------------------------ */

static void
delivery_free(struct delivery *d)
{
	TAILQ_REMOVE(&d->mails->deliveries, d, all);
	d->mails->held -= d->octets;
	buffer_free(&d->body);
	buffer_free(&d->message);
	buffer_free(&d->registrable);
	mime_free(&d->mail);
	free(d->rcpts);
	free(d->answers);
	free(d->group);
	free(d->accounts);
	free(d->arrival.rcpts);
	free(d);
}

static void
finish(struct delivery *d)
{
	d->mails->home->jobs--;
	d->done(d->arg, d->answers);
	delivery_free(d);
}

/* The recipients of the first domain that isn't settled. */
static size_t
find_group(struct delivery *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->rcpts_n; i++) {
		if (d->rcpts[i].settled)
			continue;
		if (n == 0 || slice_eq(dmtp_address_domain(&d->rcpts[i].address),
		                       dmtp_address_domain(&d->rcpts[d->group[0]].address)))
			d->group[n++] = i;
	}
	return n;
}

static void
settle(struct delivery *d, size_t i, enum lmtp_answer answer)
{
	d->answers[i] = answer;
	d->rcpts[i].settled = true;
}

static void
put_off_rest(struct delivery *d, enum lmtp_answer answer, const char *reason)
{
	log_warn("mail-put-off", LOG_B("from", slice_mem(d->sender.text, d->sender.len)),
	         LOG_S("reason", reason));
	for (size_t i = 0; i < d->rcpts_n; i++) {
		if (d->rcpts[i].settled)
			continue;
		settle(d, i, answer);
		metric_add(&mails_put_off, 1);
	}
}

/* --- on the thread aside ------------------------------------------------------------------ */

/* What the same mail has again: its gateway, its envelope's sender and its octets. */
static void
make_seen(struct delivery *d)
{
	uint8_t text[DMTP_ADDRESS_MAX + 1 + LMTP_PATH_MAX + 1 + DIGEST_LEN];
	size_t at = d->gateway.len;

	memcpy(text, d->gateway.text, at);
	text[at++] = '\0';
	memcpy(text + at, d->sender.text, d->sender.len);
	at += d->sender.len;
	text[at++] = '\0';
	memcpy(text + at, d->body_digest, DIGEST_LEN);
	digest_sha256(slice_mem(text, at + DIGEST_LEN), d->seen);
}

/* The sender's clock, unless it can't be right. */
static int64_t
date_of(const struct delivery *d)
{
	int64_t now_s = clock_wall_s(), date_s = d->mail->date_s;

	return date_s < 0 || date_s > now_s + DATE_AHEAD_S ? now_s : date_s;
}

static bool
make_message(struct delivery *d)
{
	struct slice domain = dmtp_address_domain(&d->rcpts[d->group[0]].address);
	struct dmtp_message m = { .date = date_of(d) };
	struct dmtp_address to;
	size_t room = 65536;

	if (dmtp_address_make((struct slice){ NULL, 0 }, SLICE(MAIL_GATEWAY), domain,
	                      &d->gateway) != DMTP_ADDRESS_OK ||
	    dmtp_address_make(SLICE(MAIL_CHANNEL), SLICE(MAIL_GATEWAY), domain, &to) !=
	        DMTP_ADDRESS_OK)
		return false;
	for (size_t i = 0; i < d->mail->fields_n; i++)
		room += d->mail->fields[i].data.len + 512;
	buffer_free(&d->message);
	buffer_init(&d->message, room);
	m.from = dmtp_address_slice(&d->gateway);
	m.to = dmtp_address_slice(&to);
	randombytes_buf(m.salt, sizeof(m.salt));
	d->arrival.date_s = m.date;
	make_seen(d);
	return dmtp_message_encode(&m, d->mail->fields, d->mail->fields_n, &d->message) ==
	           DMTP_MESSAGE_OK &&
	       dmtp_digest(buffer_slice(&d->message), d->digest);
}

static void
prepare(struct work *work)
{
	struct delivery *d = (struct delivery *)work;
	bool good = true;

	if (d->mail == NULL) {
		digest_sha256(buffer_slice(&d->body), d->body_digest);
		good = mime_read(buffer_slice(&d->body), &d->mail);
		buffer_free(&d->body);
		if (good)
			d->author = address_of(buffer_slice(&d->mail->address));
	}
	d->made = good && make_message(d);
	loop_post(d->mails->home->loop, &d->task);
}

/* --- on the loop ------------------------------------------------------------------------------ */

static void
show(struct delivery *d, size_t n)
{
	const struct mail_arrival *a = &d->arrival;
	struct live_entry entry = {
		.notification_id = a->notification_id,
		.sender = a->gateway,
		.channel = SLICE(MAIL_CHANNEL),
		.date_s = a->date_s,
		.arrived_us = a->now_us,
		.body = a->body,
		.mail = true,
		.mail_sender = a->mail_sender,
		.mail_from = a->mail_from,
		.mail_address = a->mail_address,
	};
	size_t added = 0;

	for (size_t i = 0; i < n; i++)
		if (a->rcpts[i].fate == MAIL_STORED && a->rcpts[i].added)
			d->accounts[added++] = a->rcpts[i].account_id;
	live_arrived(d->mails->home->live, &entry, d->accounts, added);
}

static void
settle_one(struct delivery *d, size_t i, enum mail_fate fate)
{
	struct slice to = dmtp_address_slice(&d->rcpts[i].address);
	struct slice from = slice_mem(d->sender.text, d->sender.len);

	settle(d, i, fate == MAIL_CLOSED ? LMTP_NOBODY : LMTP_YES);
	if (fate == MAIL_CLOSED) {
		refused(from, to, "closed");
	} else if (fate == MAIL_UNWANTED) {
		metric_add(&mails_unwanted, 1);
		log_info("mail-unwanted", LOG_B("from", from), LOG_B("to", to),
		         LOG_B("author", dmtp_address_slice(&d->author)));
	} else {
		metric_add(&mails_stored, 1);
		log_info("mail-stored", LOG_B("from", from), LOG_B("to", to),
		         LOG_I("octets", d->octets));
	}
}

static void next_domain(struct delivery *d);

static void
on_stored(void *arg)
{
	struct delivery *d = arg;
	struct mail_arrival *a = &d->arrival;

	if (a->job.rc != STORE_OK) {
		put_off_rest(d, LMTP_LATER, store_rc_text(a->job.rc));
	} else {
		for (size_t i = 0; i < a->rcpts_n; i++)
			settle_one(d, d->group[i], a->rcpts[i].fate);
		show(d, a->rcpts_n);
	}
	next_domain(d);
}

static void
submit(struct delivery *d, size_t n)
{
	struct mail_arrival *a = &d->arrival;
	struct home *home = d->mails->home;

	buffer_clear(&d->registrable);
	registrable_domain(dmtp_address_domain(&d->gateway), &d->registrable);
	a->domain = dmtp_address_domain(&d->gateway);
	a->gateway = dmtp_address_slice(&d->gateway);
	a->registrable = buffer_slice(&d->registrable);
	a->seen = slice_mem(d->seen, sizeof(d->seen));
	a->digest = slice_mem(d->digest, sizeof(d->digest));
	a->body = buffer_slice(&d->message);
	a->sender = dmtp_address_slice(&d->sender_address);
	a->author = dmtp_address_slice(&d->author);
	a->mail_sender = slice_mem(d->sender.text, d->sender.len);
	a->mail_from = buffer_slice(&d->mail->from);
	a->mail_address = buffer_slice(&d->mail->address);
	a->now_us = clock_wall_us();
	a->fresh_id = uuid_make();
	a->sender_id = id_make();
	a->domain_id = id_make();
	for (size_t i = 0; i < n; i++)
		a->rcpts[i].name = dmtp_address_local(&d->rcpts[d->group[i]].address);
	a->rcpts_n = n;
	home_later(&d->later, home, &a->job, on_stored, d);
	store_mail_arrival(home->store, a);
}

static void
on_prepared(struct loop_task *task)
{
	struct delivery *d =
	    (struct delivery *)(void *)((char *)task - offsetof(struct delivery, task));

	if (!d->made) {
		put_off_rest(d, LMTP_TOO_MUCH, "out of memory");
		finish(d);
		return;
	}
	if (d->mail->whole)
		metric_add(&mails_whole, 1);
	submit(d, find_group(d));
}

static void
next_domain(struct delivery *d)
{
	if (find_group(d) == 0)
		finish(d);
	else
		aside_post(d->mails->aside, &d->work);
}

/* --- taking ------------------------------------------------------------------------------------ */

static bool
delivery_room(struct delivery *d, size_t n)
{
	d->rcpts = calloc(n, sizeof(*d->rcpts));
	d->answers = calloc(n, sizeof(*d->answers));
	d->group = calloc(n, sizeof(*d->group));
	d->accounts = calloc(n, sizeof(*d->accounts));
	d->arrival.rcpts = calloc(n, sizeof(*d->arrival.rcpts));
	d->rcpts_n = n;
	return d->rcpts != NULL && d->answers != NULL && d->group != NULL &&
	       d->accounts != NULL && d->arrival.rcpts != NULL;
}

static struct delivery *
delivery_new(struct mails *mails, struct lmtp *s)
{
	struct delivery *d = calloc(1, sizeof(*d));
	struct slice sender = lmtp_sender(s);

	if (d == NULL)
		return NULL;
	d->mails = mails;
	d->work.run = prepare;
	d->task.run = on_prepared;
	TAILQ_INSERT_TAIL(&mails->deliveries, d, all);
	lmtp_take_body(s, &d->body);
	d->octets = d->body.len;
	mails->held += d->octets;
	buffer_init(&d->message, 0);
	buffer_init(&d->registrable, DMTP_DOMAIN_MAX + 1);
	memcpy(d->sender.text, sender.data, sender.len);
	d->sender.len = sender.len;
	d->sender_address = address_of(sender);
	if (!delivery_room(d, lmtp_rcpts(s))) {
		delivery_free(d);
		return NULL;
	}
	for (size_t i = 0; i < d->rcpts_n; i++) {
		d->rcpts[i].address = address_of(lmtp_rcpt(s, i));
		if (d->rcpts[i].address.len == 0)
			settle(d, i, LMTP_NOBODY);
	}
	return d;
}

void
mails_take(struct mails *mails, struct lmtp *s,
           void (*done)(void *arg, const enum lmtp_answer *answers), void *arg)
{
	struct delivery *d = delivery_new(mails, s);

	if (d == NULL) {
		done(arg, NULL);
		return;
	}
	d->done = done;
	d->arg = arg;
	mails->home->jobs++;
	next_domain(d);
}

size_t
mails_held(const struct mails *mails)
{
	return mails->held;
}

struct mails *
mails_new(struct home *home)
{
	struct mails *mails = calloc(1, sizeof(*mails));

	if (mails == NULL)
		return NULL;
	mails->home = home;
	TAILQ_INIT(&mails->deliveries);
	mails->aside = aside_start();
	if (mails->aside == NULL) {
		free(mails);
		return NULL;
	}
	mime_start();
	return mails;
}

void
mails_free(struct mails **mails)
{
	struct mails *m = *mails;

	*mails = NULL;
	if (m == NULL)
		return;
	aside_stop(m->aside);
	aside_free(&m->aside);
	while (!TAILQ_EMPTY(&m->deliveries))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): delivery_free takes it out of the list */
		delivery_free(TAILQ_FIRST(&m->deliveries));
	free(m);
}
