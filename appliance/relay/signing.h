/*
 * Our domains' private keys: what signs their messages, once a message for all
 * its batches, and proves them by AUTH. Loaded when the relay starts and when
 * an administrator changed something. A message's signature depends on nothing
 * but the key, so it is kept in memory only: made anew it is the same.
 */
#ifndef TMTP_RELAY_SIGNING_H
#define TMTP_RELAY_SIGNING_H

#include "dmtp/command.h"
#include "relay/relay.h"
#include "store/queue.h"

/* NULL: no memory. */
struct signing *signing_new(struct relay *relay);

/* After the store has stopped. */
void signing_free(struct signing **signing);

/* Asks the store for the keys, again until it answers. */
void signing_load(struct signing *signing);

/* The keys are known: before that nothing may leave that is perhaps to be signed. */
bool signing_is_ready(const struct signing *signing);

/*
 * Puts the signature of its message into batch: by the newest key of domain
 * that is valid at the message's date and has stood in the card long enough
 * for others' caches, or else by the newest. Nothing when there is none. Any
 * thread.
 */
void signing_sign(struct signing *signing, struct slice domain, struct queue_batch *batch);

/* A key proves this domain now. */
bool signing_can_prove(struct signing *signing, struct slice domain);

/*
 * AUTH of a session: out borrows from key_id and signature. False: no key.
 * exporter: 32 octets of the TLS session.
 */
struct signing_proof {
	char key_id[65];
	uint8_t signature[DMTP_SIGNATURE_LEN];
};
bool signing_prove(struct signing *signing, struct slice domain, struct slice server,
                   const uint8_t exporter[static 32], struct signing_proof *out);

#endif
