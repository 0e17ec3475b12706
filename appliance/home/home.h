/*
 * The role's parts, and what they share. Two kinds of threads: the loop's, on
 * which other servers are spoken to (DMTP sessions, pickup), and the web
 * server's, on which members are. They meet in the store and in `live`.
 *
 *   dmtp     other servers' sessions: their commands, our replies
 *   posts    notifications that arrive, and their commit
 *   pickups  fetching a message once for all its members, verifying it
 *   copies   fetching messages' large attachments, after them
 *   origins  other domains' web servers, over the pinned routes
 *   cards    other domains' site cards: their keys, their hosts
 *   auths    AUTH: who proves a domain by a key of its card
 *   judge    whether a notification is its sender's, by the card
 *   smtp     the local mail server's sessions
 *   mails    mail that arrives, read apart, and its commit
 *   live     members who watch their inbox now
 *   presence which of them contacts are told of
 *   api      what a member may ask and say over HTTP
 */
#ifndef TMTP_HOME_HOME_H
#define TMTP_HOME_HOME_H

#include "base/config.h"
#include "base/id.h"
#include "net/loop.h"
#include "store/store.h"

struct dmtp_service;
struct posts;
struct pickups;
struct copies;
struct origins;
struct cards;
struct auths;
struct smtp;
struct mails;
struct live;
struct presence;
struct api;
struct guard;

struct home {
	const struct config *config; /* as at the start */
	struct loop *loop;
	struct store *store;
	struct dmtp_service *dmtp;
	struct posts *posts;
	struct origins *origins;
	struct cards *cards;
	struct auths *auths;
	struct pickups *pickups;
	struct copies *copies;
	struct mails *mails;
	struct smtp *smtp;
	struct live *live;
	struct presence *presence;
	struct api *api;
	struct guard *rates; /* of other servers */
	struct uuid worker;  /* this process, as owner of leases */
	int slot;            /* this process's row of arrival_count */
	unsigned jobs;       /* of the store that are under way for this loop */
	_Atomic bool draining;
};

/* --- A store's job whose end is told on the loop ---------------------------- */

/* Embeds in what embeds the job; lives until fn. */
struct home_later {
	struct loop_task task; /* first */
	struct home *home;
	void (*fn)(void *arg);
	void *arg;
};

/* Makes job call fn(arg) on the loop's thread when it ends. On the loop's thread, before each submission. */
void home_later(struct home_later *later, struct home *home, struct store_job *job,
                void (*fn)(void *arg), void *arg);

#endif
