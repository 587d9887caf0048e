/*
 * requests - which sizes are asked for, so that a class which is far too large
 * can be seen. A checkout says so by the n that it is called with. A checkout
 * of 0 bytes does not count, because it leaves open how much is wanted.
 *
 * Of a shelf one checkout in so many is a sample, and counts for all since the
 * sample before. The distance is drawn anew each time, so that every checkout
 * of a loop is a sample as often as any other, whatever the loop's length, and
 * it does not depend on spills, which the program's pattern of releases brings
 * about. It begins with 1 and rises to REQUESTS_APART on average, so that a
 * program of a hundred checkouts is seen, too. The shelf is made due for the
 * sample, also where it is not yet due to look around, so the fast path knows
 * nothing of it.
 *
 * Checkouts of threads without a cache, and those above the classes, count one
 * by one.
 */
#ifndef BUFPOOL_REQUESTS_H
#define BUFPOOL_REQUESTS_H

#include "cache.h"

#define REQUESTS_APART 1024	/* checkouts between samples, on average */

/* Any thread adds to the counters and reads them, each by itself, because none
 * says anything about another. */
struct request_count {
	_Atomic uint64_t bytes;
	_Atomic uint64_t bin[BUFPOOL_REQUEST_BINS];	/* see bufpool.h */
};

/* Of a pool; a mapping of its own, because with it the pool would not fit one
 * page. */
struct requests {
	struct request_count class[BUFPOOL_CLASSES_MAX], large;
};

/* NULL + ENOMEM. */
struct requests *bp_requests_create(void);
/* No thread can reach it. NULL does nothing. */
void bp_requests_destroy(struct requests *r);

/* Counts `weight` requests of n bytes, of a class of `size` bytes or, where it
 * is 0, above the classes. Any thread. */
void bp_requests_count(struct request_count *r, size_t size, size_t n,
		       uint64_t weight);

/* Called by the shelf's owner when the shelf is due, after a checkout of n
 * bytes: counts it if it is a sample. True if that is all the shelf was due
 * for; then it is due again in time. */
bool bp_requests_due(struct requests *r, struct bufpool_shelf *s, size_t n);

/* Called by the shelf's owner, who has set when the shelf is due to look
 * around: makes it due before that if there is a sample before that. */
void bp_requests_next(struct bufpool_shelf *s);

#endif
