/*
 * reclaim - gives idle memory back to the system because a request needs it.
 */
#ifndef BUFPOOL_RECLAIM_H
#define BUFPOOL_RECLAIM_H

#include "pool.h"

/* What a checkout may do beyond taking what is ready. */
#define TAKE_READY 0
#define TAKE_FRESH 1	/* take fresh memory */
#define TAKE_RECLAIM 2	/* give idle memory back for it */
#define TAKE_CLOSED 4	/* also from a closed pool, for a buffer that grows or
			 * is split */
#define TAKE_TO_GROW 8	/* the buffer will grow on: take a kept mapping of any
			 * size or, where max_bytes is, a range of addresses */
#define TAKE_ALIGN_SHIFT 8	/* of the alignment, as a logarithm */
#define TAKE_ANY (TAKE_FRESH | TAKE_RECLAIM)

/* What a request needs, and what has been given back for it. */
struct want {
	size_t bytes;		/* to commit */
	size_t addresses;	/* to map at once, in bytes */
	size_t given;		/* addresses, in bytes */
};

/* Called when the arena has refused a request with `error`. `tries` is how
 * often it had refused that before. Gives idle memory back, adds to w->given
 * where addresses were missing, and returns whether the request should be tried
 * again. */
bool bp_reclaim(struct bufpool *p, struct want *w, int error, unsigned take,
		int tries);

/* Counts a call that ends without memory, for that reason. */
void bp_reclaim_refused(struct bufpool *p, int error);

#endif
