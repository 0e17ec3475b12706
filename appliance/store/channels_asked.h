/* What a sender may ask about its channels (CHANNELS): who holds which, and what changed since. */
#ifndef TMTP_STORE_CHANNELS_ASKED_H
#define TMTP_STORE_CHANNELS_ASKED_H

#include "base/id.h"
#include "store/store.h"

struct open_channel {
	char *address; /* a member's */
	char *channel;
	uint8_t grant[20];
};

/* What these members hold open to this sender. */
struct channels_get {
	struct store_job job;
	struct slice from;         /* borrowed until done, as are users */
	const struct slice *users; /* normalised addresses */
	size_t users_n;
	struct open_channel *rows; /* out, by address; freed by channels_get_clear */
	size_t rows_n;
};

void store_channels_get(struct store *store, struct channels_get *get);
void channels_get_clear(struct channels_get *get);

struct consent_event {
	char *address, *channel;
	int state; /* enum consent_state */
	bool has_grant, receipts, presence;
	uint8_t grant[20];
	int64_t date_s;
	struct uuid changed_id;
};

/* What members said to this sender since a cursor, oldest first. */
struct channels_since {
	struct store_job job;
	struct slice from;
	struct uuid since; /* all zero: from the start */
	int64_t before_us; /* only what changed before; 0: all */
	unsigned limit;
	struct consent_event *rows; /* out; freed by channels_since_clear */
	size_t rows_n;
};

void store_channels_since(struct store *store, struct channels_since *since);
void channels_since_clear(struct channels_since *since);

#endif
