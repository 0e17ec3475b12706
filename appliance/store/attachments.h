/*
 * Attachments that sites uploaded: their octets in parts, what they take, how
 * long they stay, which messages name them. An attachment is one of one site.
 */
#ifndef TMTP_STORE_ATTACHMENTS_H
#define TMTP_STORE_ATTACHMENTS_H

#include "base/id.h"
#include "store/store.h"

/* Octets of each part but the last. A multiple of DIGEST_BLOCK. */
#define ATTACHMENT_PART 262144
#define ATTACHMENT_TYPE_MAX 255

/* An upload begins: what it may take is set aside. */
struct attachment_begin {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id; /* fresh */
	const char *type;          /* media type; borrowed until done */
	int64_t reserve, quota;    /* octets: of this one at most, of all of the site */
	unsigned at_once;          /* uploads of the site */
	int64_t now_us, keep_until_us;
	bool busy; /* out: so many are under way already; nothing was stored */
	bool full; /* out: the quota doesn't have that much left; nothing was stored */
};

void store_attachment_begin(struct store *store, struct attachment_begin *begin);

/* The next part. STORE_NOT_FOUND or STORE_REFUSED: the upload was given up meanwhile. */
struct attachment_part {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id;
	int part_no;
	struct slice data; /* borrowed until done */
	int64_t keep_until_us;
};

void store_attachment_part(struct store *store, struct attachment_part *part);

/*
 * All parts are there. When the site has an attachment of this digest already,
 * that one is kept, for at least as long, and this upload forgotten.
 * STORE_CONFLICT: another upload of the same digest ended just now; ask again.
 */
struct attachment_end {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id;
	uint8_t digest[32];
	int64_t size;
	int64_t keep_until_us;
	/* out */
	char type[ATTACHMENT_TYPE_MAX + 1]; /* of the one that is kept */
	bool fresh;                         /* it is this one */
};

void store_attachment_end(struct store *store, struct attachment_end *end);

/* An upload is given up. Nothing happens to a complete one. */
struct attachment_drop {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id;
};

void store_attachment_drop(struct store *store, struct attachment_drop *drop);

/*
 * A message is about to name some. All must be there, or nothing is written:
 * STORE_NOT_FOUND, and found says which are. Keeps them at least as long as the
 * message may be picked up.
 */
#define ATTACHMENTS_NAMED_MAX 16

struct attachment_named {
	uint8_t digest[32]; /* all different */
	/* out */
	bool found;
	struct uuid attachment_id;
	int64_t size;
	char type[ATTACHMENT_TYPE_MAX + 1];
};

struct attachment_name {
	struct store_job job;
	int64_t site_id;
	struct uuid message_id;
	struct attachment_named *named; /* borrowed until done */
	size_t named_n;
	int64_t keep_until_us;
	int64_t slack_us; /* kept until so much earlier is long enough: fewer writes */
};

void store_attachment_name(struct store *store, struct attachment_name *name);

/*
 * For GET of its URI. STORE_NOT_FOUND unless site, id and digest fit together
 * and a message names it.
 */
struct attachment_find {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id;
	uint8_t digest[32];
	/* out */
	int64_t size;
	bool recalled; /* every message that names it was */
	bool shared;   /* more than one recipient may fetch it */
};

void store_attachment_find(struct store *store, struct attachment_find *find);

/* A part's octets. */
struct attachment_read {
	struct store_job job;
	int64_t site_id;
	struct uuid attachment_id;
	int part_no;
	uint8_t *data; /* out; from malloc, the caller's to free */
	size_t len;
};

void store_attachment_read(struct store *store, struct attachment_read *read);

/* Forgets what was kept long enough, and uploads that went on no more; at most limit. */
struct attachment_reap {
	struct store_job job;
	int64_t now_us;
	unsigned limit;
	int64_t forgotten; /* out */
};

void store_attachment_reap(struct store *store, struct attachment_reap *reap);

#endif
