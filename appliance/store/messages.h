/* A stored message: picked up by home servers, and what became of it. */
#ifndef TMTP_STORE_MESSAGES_H
#define TMTP_STORE_MESSAGES_H

#include "base/id.h"
#include "store/store.h"

/* For GET of a pickup URI. STORE_NOT_FOUND unless site, id and digest fit together. */
struct message_body {
	struct store_job job;
	int64_t site_id;
	struct uuid message_id;
	uint8_t digest[32];
	bool known; /* the octets aren't wanted: body stays NULL */
	/* out; body is freed by message_body_clear */
	uint8_t *body;
	size_t size;
	bool shared;   /* more than one recipient may fetch it: it may be cached publicly */
	bool recalled; /* 410; without body */
	/* messages.c's own */
	struct store *store;
	void (*then)(struct store_job *job);
	bool is_large;
};

void store_message_body(struct store *store, struct message_body *body);
void message_body_clear(struct message_body *body);

/*
 * Counts of recipients by what became of them, at a cost of the batches and
 * failures, not of the recipients. While a broadcast waits its number is an
 * estimate (what the chunks were last counted as).
 */
struct message_status {
	struct store_job job;
	int64_t site_id;
	struct uuid message_id;
	/* out */
	char channel[32];
	int audience, lane;                           /* enum push_audience, enum push_lane */
	int64_t accepted_us, expires_us, recalled_us; /* -1: not */
	int64_t waiting;   /* not yet acknowledged by their home servers */
	int64_t delivered; /* acknowledged with K */
	int64_t failed;    /* refused for good, one by one */
	int64_t dead;      /* given up: expired or parked */
	int64_t rejected;  /* named in the push without holding the channel */
	int64_t recalled;  /* it was recalled before it left for them */
	/* Of those who allow receipts. */
	int64_t read, withdrawn; /* withdrawn: recalled before it was read */
	/* How far a recall got; all 0 when nobody had to be told. */
	struct {
		int64_t waiting, delivered, failed, dead;
	} recall;
};

/* STORE_NOT_FOUND: no such message of this site. */
void store_message_status(struct store *store, struct message_status *status);

enum recipient_state {
	RECIPIENT_WAITING,
	RECIPIENT_DELIVERED,
	RECIPIENT_FAILED,
	RECIPIENT_DEAD,
	RECIPIENT_REJECTED,
	RECIPIENT_RECALLED /* before it left; the last */
};

/* "waiting", "delivered", "failed", "dead", "rejected", "recalled". */
const char *recipient_state_name(enum recipient_state state);

struct recipient_row {
	char *address;
	enum recipient_state state;
	char *reason;                  /* a code, or NULL */
	int64_t read_us, withdrawn_us; /* -1: not, or she doesn't say */
};

/*
 * A page of recipients in order of (domain name, member), derived from batches
 * and failures. Who left the channel before her batch went out was not sent to
 * and is not listed; who left later is, as delivered. STORE_NOT_FOUND: no such
 * message of this site.
 */
struct message_recipients {
	struct store_job job;
	int64_t site_id;
	struct uuid message_id;
	struct slice
	    after; /* an address of the page before; empty: from the start. Borrowed until done */
	int state; /* only this one; -1: all */
	unsigned limit;
	/* out; freed by message_recipients_clear */
	struct recipient_row *rows;
	size_t rows_n;
};

void store_message_recipients(struct store *store, struct message_recipients *page);
void message_recipients_clear(struct message_recipients *page);

/* The site's newest messages, before a given one. */
struct message_summary {
	struct uuid message_id;
	char channel[32];
	int audience, lane;
	int64_t accepted_us, recalled_us;
	int32_t size;
};

struct message_list {
	struct store_job job;
	int64_t site_id;
	struct uuid before; /* all zero: from the newest */
	unsigned limit;
	struct message_summary *rows; /* out; freed by message_list_clear */
	size_t rows_n;
};

void store_message_list(struct store *store, struct message_list *list);
void message_list_clear(struct message_list *list);

#endif
