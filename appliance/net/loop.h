/*
 * One thread's event loop: descriptors, timers, tasks posted by other threads,
 * and work put off to the end of a turn. Everything here belongs to the loop's
 * thread, except loop_post and loop_stop. Signals are not handled here.
 */
#ifndef TMTP_NET_LOOP_H
#define TMTP_NET_LOOP_H

#include "base/mailbox.h"

struct event; /* libevent's; only loop.c looks inside */

struct loop;

/* NULL when the system gives no memory or no descriptor. SIGPIPE is the process's to ignore. */
struct loop *loop_new(void);

/*
 * Frees the loop and what lingers in it (conn_linger). Everything else that was
 * made with it must be gone before; tasks still posted are dropped unseen.
 */
void loop_free(struct loop **loop);

/* Runs turns until loop_stop. */
void loop_run(struct loop *loop);

/*
 * One turn: waits at most max_wait_ms (below 0: until something happens), then
 * runs what is due. False once loop_stop was called. Not from within a callback.
 */
bool loop_turn(struct loop *loop, int64_t max_wait_ms);

/* Ends loop_run after the current turn. Any thread. */
void loop_stop(struct loop *loop);

/* Monotonic milliseconds as of the beginning of this turn. */
int64_t loop_mono_ms(const struct loop *loop);

/* A task embeds this; run gets it back on the loop's thread, which may free it. */
struct loop_task {
	struct mail mail; /* first */
	void (*run)(struct loop_task *task);
};

/* Takes task until it runs; oldest first. Any thread. */
void loop_post(struct loop *loop, struct loop_task *task);

/* A timer embeds in its owner. All fields are the loop's but arg, which is the owner's. */
struct loop_timer {
	struct loop *loop;
	void (*fn)(struct loop_timer *timer);
	void *arg;
	int64_t due_ms;  /* when it shall fire */
	int64_t heap_ms; /* where it stands in the heap; never after due_ms */
	struct loop_timer *child, *sibling, *back;
	bool set;
};

/* Not set yet. The timer must be cancelled before its memory goes. */
void loop_timer_init(struct loop_timer *timer, struct loop *loop,
                     void (*fn)(struct loop_timer *), void *arg);

/*
 * Fires once, ms from now (at least 0); an earlier setting is replaced. Never fails; putting
 * off costs nothing.
 */
void loop_timer_set(struct loop_timer *timer, int64_t ms);

void loop_timer_cancel(struct loop_timer *timer);

/*
 * Work put off to the end of the turn, so that many causes share one effect. Embeds in its
 * owner.
 */
struct loop_defer {
	void (*fn)(struct loop_defer *defer);
	void *arg;
	struct loop_defer *next, *prev; /* prev is NULL while it doesn't wait */
};

void loop_defer_init(struct loop_defer *defer, void (*fn)(struct loop_defer *), void *arg);

/*
 * Runs once before the loop waits again; asking twice is asking once. What is put off by such
 * work runs in the next turn, at once.
 */
void loop_defer(struct loop *loop, struct loop_defer *defer);

void loop_defer_cancel(struct loop_defer *defer);

enum loop_want { LOOP_READ = 1, LOOP_WRITE = 2 };

/* Watches a descriptor, level-triggered. Embeds in its owner. */
struct loop_fd {
	void (*fn)(struct loop_fd *watch,
	           unsigned ready); /* LOOP_READ | LOOP_WRITE; errors show as both */
	void *arg;
	struct loop *loop;
	struct event *read_event, *write_event;
	int fd; /* borrowed: closed by its owner, after loop_fd_deinit */
	unsigned want;
};

/* Watches nothing yet. False when memory is short; deinit is harmless then. */
bool loop_fd_init(struct loop_fd *watch, struct loop *loop, int fd,
                  void (*fn)(struct loop_fd *, unsigned), void *arg)
    __attribute__((warn_unused_result));

/*
 * Watches for exactly these. False when the system refused; then nothing changed for the new
 * ones.
 */
bool loop_fd_want(struct loop_fd *watch, unsigned want);

/* Allowed from within fn. */
void loop_fd_deinit(struct loop_fd *watch);

/* --- for this room ---------------------------------------------------------- */

/* Something the loop owns and ends in loop_free, unless it left before. */
struct loop_guest {
	void (*end)(struct loop_guest *guest);
	struct loop_guest *next, **back;
};

void loop_guest_add(struct loop *loop, struct loop_guest *guest);
void loop_guest_remove(struct loop_guest *guest);

#define LOOP_SCRATCH 65536

/*
 * Memory of LOOP_SCRATCH octets for whatever one callback of a descriptor reads, until that
 * returns.
 */
uint8_t *loop_scratch_in(struct loop *loop);

/* The same, for what is made out of that (decrypted). */
uint8_t *loop_scratch_out(struct loop *loop);

#endif
