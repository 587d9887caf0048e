/*
 * checkout - checkout and release, the hot path. What the caller's own cache
 * can serve is here; refill and spill have the rest.
 */
#ifndef BUFPOOL_RELEASE_H
#define BUFPOOL_RELEASE_H

#include "pool.h"

/* As bufpool_checkout_aligned, the alignment by its binary logarithm, and what
 * the checkout may do by the TAKE_ bits of checkout.h. */
struct bufpool_buf *bp_checkout_at(struct bufpool *p, size_t n, unsigned align,
				   unsigned take);

/* The rest of a release, of a buffer whose state the caller has turned to
 * CACHED. */
void bp_release_turned(struct bufpool_buf *b, bool by_gc);

/* bufpool_release, counted as a return by a garbage collector. */
void bp_release_gc(struct bufpool_buf *b);

#endif
