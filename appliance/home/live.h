/*
 * Members who watch their inbox now: server-sent events by account. Told by
 * the loop when an entry has become visible (after the commit, in the order of
 * commits), read by the web server's threads. Thread-safe.
 */
#ifndef TMTP_HOME_LIVE_H
#define TMTP_HOME_LIVE_H

#include "home/home.h"

struct live *live_new(struct home *home);
void live_free(struct live **live); /* after the web server has stopped */

/* Anybody watches: else nothing need be collected. */
bool live_any(const struct live *live);

/* The accounts that are watched now, at most max. Returns how many. */
size_t live_accounts(const struct live *live, int64_t *out, size_t max);

/* An entry that has just become visible. Slices are borrowed during the call. */
struct live_entry {
	struct uuid notification_id;
	struct slice sender, channel;
	int64_t date_s, arrived_us; /* arrived: as stored, the order of events */
	struct slice body;          /* the canonical message */
	bool
	    differs; /* members read it differently (values of their own, what it replaces): each is
	                 read from the store */
	bool mail; /* as in view.h */
	struct slice mail_sender, mail_from, mail_address;
};

/* Shows it to those of the accounts who watch. On the loop's thread. */
void live_arrived(struct live *live, const struct live_entry *entry, const int64_t *accounts,
                  size_t n);

/* Entries that may have been told have changed: each is read from the store. */
void live_changed(struct live *live, const struct uuid *notification_id,
                  const int64_t *accounts, size_t n);
/*
 * Something that isn't an entry, and isn't told again to who comes back: an
 * event by its name with its data (JSON). On the loop's thread.
 */
void live_tell(struct live *live, int64_t account_id, const char *event, struct slice data);

/* The same from any thread, soon; event stands for ever, data is copied. */
void live_tell_soon(struct live *live, int64_t account_id, const char *event,
                    struct slice data);

/* An invitation has arrived for this account: watchers are told to look. */
void live_invited(struct live *live, int64_t account_id);

/* --- For the API ------------------------------------------------------------ */

struct web_request;
struct view_cursor;

/* Streams of one account at a time; one more ends the oldest. */
#define LIVE_PER_ACCOUNT 32

/* Who watches, by which log-in. */
struct live_member {
	int64_t account_id;
	int64_t expires_us; /* of the log-in */
	uint8_t digest[32]; /* of its token */
};

/*
 * Answers the request with a stream: what became visible after the cursor
 * (NULL: nothing of that), oldest first, then what arrives, without gap or
 * double. The stream ends with the log-in. Any thread.
 */
void live_watch(struct live *live, struct web_request *req, const struct live_member *member,
                const struct view_cursor *since);

/* A member has logged out: the streams of that log-in end. */
void live_logged_out(struct live *live, const struct live_member *member);

/* Accounts have changed: each stream's log-in is looked up again before long. */
void live_forget(struct live *live);

/* Ends all streams after what is queued; later ones end at once. */
void live_close_all(struct live *live);

#endif
