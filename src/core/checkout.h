/*
 * refill - a checkout that the caller's cache cannot serve.
 *
 *      own depot -> commons -> other depots -> arena -> other nodes
 *      -> idle caches -> what lies idle goes back to the system, arena again
 *      -> NULL
 */
#ifndef BUFPOOL_CHECKOUT_H
#define BUFPOOL_CHECKOUT_H

#include "pool.h"

/* What a checkout may do beyond taking what is ready. */
#define TAKE_READY 0
#define TAKE_FRESH 1	/* take fresh memory */
#define TAKE_RECLAIM 2	/* give idle memory back for it */
#define TAKE_CLOSED 4	/* though the pool is closed: what is out may grow */
#define TAKE_TO_GROW 8	/* it goes on growing: a kept mapping of any size; where
			 * max_bytes is, a range of addresses */
#define TAKE_ANY (TAKE_FRESH | TAKE_RECLAIM)

/* A buffer of n bytes, OUT, of the pool's classes or a large one; half a shelf
 * of its class comes along for the next checkouts. NULL + errno as
 * bufpool_checkout; EAGAIN when nothing is ready and nothing may be taken. */
struct bufpool_buf *bp_checkout_slow(struct bufpool *p, size_t n,
				     unsigned take);

/* A large buffer at a multiple of 1 << align. */
struct bufpool_buf *bp_checkout_large_slow(struct bufpool *p, size_t n,
					   unsigned align, unsigned take);

/* Makes a large buffer that is out hold n bytes from its base, by moving its
 * pages where it has to, as bp_arena_extend does. False + EDQUOT, ENOMEM, the
 * buffer unchanged. */
bool bp_large_extend_slow(struct bufpool_buf *b, size_t n, size_t range,
			  unsigned take);

/* What the owner of a shelf does when it is due: looks which node it runs on,
 * and at what lies idle; and says when the shelf is due again. */
void bp_cache_maintain_slow(struct bufpool *p, struct bufpool_shelf *s);

#endif
