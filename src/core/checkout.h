/*
 * checkout - takes a buffer from the shelf of the caller's own cache, which is
 * the hot path, or else from the first of these that has one:
 *
 *      own depot -> commons -> other depots -> arena -> other nodes
 *      -> idle caches -> what lies idle goes back to the system, arena again
 *      -> NULL
 */
#ifndef BUFPOOL_CHECKOUT_H
#define BUFPOOL_CHECKOUT_H

#include "reclaim.h"

/* As bufpool_checkout_aligned, but `align` is the binary logarithm of the
 * alignment, and `take` says by TAKE_ bits what the checkout may do. EAGAIN
 * when nothing is ready and no fresh memory may be taken. */
struct bufpool_buf *bp_checkout_at(struct bufpool *p, size_t n, unsigned align,
				   unsigned take);

/* The same for a buffer with a mapping of its own, however small n is. */
struct bufpool_buf *bp_checkout_large(struct bufpool *p, size_t n,
				      unsigned align, unsigned take);

#endif
