/*
 * checkout - from the shelf of the caller's own cache, which is the hot path,
 * or else from
 *
 *      own depot -> commons -> other depots -> arena -> other nodes
 *      -> idle caches -> what lies idle goes back to the system, arena again
 *      -> NULL
 */
#ifndef BUFPOOL_CHECKOUT_H
#define BUFPOOL_CHECKOUT_H

#include "reclaim.h"

/* As bufpool_checkout_aligned, the alignment by its binary logarithm, and what
 * the checkout may do by the TAKE_ bits. EAGAIN when nothing is ready and
 * nothing may be taken. */
struct bufpool_buf *bp_checkout_at(struct bufpool *p, size_t n, unsigned align,
				   unsigned take);

/* The same of a large buffer, whatever its size. */
struct bufpool_buf *bp_checkout_large(struct bufpool *p, size_t n,
				      unsigned align, unsigned take);

#endif
