/*
 * reclaim - idle memory goes back to the system because a request needs it.
 */
#ifndef BUFPOOL_RECLAIM_H
#define BUFPOOL_RECLAIM_H

#include "pool.h"

/* What a checkout may do beyond taking what is ready. */
#define TAKE_READY 0
#define TAKE_FRESH 1	/* take fresh memory */
#define TAKE_RECLAIM 2	/* give idle memory back for it */
#define TAKE_CLOSED 4	/* though the pool is closed: what is out may grow */
#define TAKE_TO_GROW 8	/* it goes on growing: a kept mapping of any size; where
			 * max_bytes is, a range of addresses */
#define TAKE_ANY (TAKE_FRESH | TAKE_RECLAIM)

/* What a request needs, and what has been given back for it. */
struct want {
	size_t bytes;		/* to commit */
	size_t addresses;	/* to map at once, in bytes */
	size_t given;		/* addresses, in bytes */
};

/* After the arena has refused with `error`, for the time `tries`, counted from
 * 0: whether it is worth another try. Holds what was given back in w. */
bool bp_reclaim(struct bufpool *p, struct want *w, int error, unsigned take,
		int tries);

#endif
