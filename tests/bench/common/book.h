/*
 * Who was told what: every pair of a notification's id and a recipient, each
 * once, and how that compares with the grants that were expected.
 */
#ifndef TMTP_BENCH_BOOK_H
#define TMTP_BENCH_BOOK_H

#include "dmtp/address.h"
#include "dmtp/command.h"

struct book;

struct book_counts {
	uint64_t ids;        /* notifications */
	uint64_t conflicts;  /* ids that came again with another digest, size or from */
	uint64_t distinct;   /* pairs */
	uint64_t again;      /* pairs that came once more */
	uint64_t expected;   /* grants in the file, 0 without one */
	uint64_t unexpected; /* pairs whose recipient isn't in it */
	uint64_t missing;    /* expected grants that some id hasn't reached, over all ids */
};

/* NULL: no memory. */
struct book *book_new(void);
void book_free(struct book **book);

/*
 * Reads the expected grants, 32 characters of base32 a line. False: the file
 * can't be read, or a line is something else (why says which).
 */
bool book_expect(struct book *book, const char *path, char why[static 256]);

/* The number of a post's id in this book; 0: no memory. */
uint32_t book_id(struct book *book, const struct dmtp_post *post);

/* Notes one recipient of it. False: no memory. */
bool book_take(struct book *book, uint32_t id, const struct dmtp_rcpt *rcpt);

struct book_counts book_counts(const struct book *book);

/* Forgets every pair and id, keeps what is expected. */
void book_reset(struct book *book);

#endif
