/*
 * checkout - takes a buffer from the shelf of the caller's own cache, which is
 * the hot path, or else from the first of these that has one:
 *
 *      own depot -> commons -> other depots -> arena -> other nodes
 *      -> idle caches -> what lies idle goes back to the system, arena again
 *      -> NULL
 *
 * A checkout above the classes, of an alignment that they have not, or of a
 * guarded buffer, takes a mapping of its own instead.
 */
#ifndef BUFPOOL_CHECKOUT_H
#define BUFPOOL_CHECKOUT_H

#include "reclaim.h"
#include "sites.h"

/* As bufpool_checkout_aligned, but `align` is the binary logarithm of the
 * alignment, `take` says by TAKE_ bits what the checkout may do, and `site`
 * where it comes from. EAGAIN when nothing is ready and no fresh memory may be
 * taken. ESITE: see SITE_ASK. */
struct bufpool_buf *bp_checkout_at(struct bufpool *p, size_t n, unsigned align,
				   unsigned take, uintptr_t site);

/* The same for a buffer with a mapping of its own, however small n is. The
 * alignment is in `take`, from the bit TAKE_ALIGN_SHIFT on. */
struct bufpool_buf *bp_checkout_alone(struct bufpool *p, size_t n,
				      unsigned take, uintptr_t site);

/* As bufpool_checkout and bufpool_try_checkout, with SITE_ASK. */
struct bufpool_buf *bp_checkout_asking(struct bufpool *p, size_t n);
struct bufpool_buf *bp_try_checkout_asking(struct bufpool *p, size_t n);

#endif
