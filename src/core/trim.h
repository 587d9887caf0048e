/*
 * trim - memory that lies idle goes back to the system: when asked, when it is
 * needed elsewhere in the pool, and by and by.
 */
#ifndef BUFPOOL_TRIM_H
#define BUFPOOL_TRIM_H

#include "registry.h"

/* Gives idle buffers back until so many bytes have gone, or none is left. Those
 * above the floors go first. Returns bytes. */
size_t trim_bytes(struct bufpool *p, size_t bytes);

/* What threads do now and then, in a slow path: take some expired tickets home,
 * sample the peaks, and let some of what lies idle decay, here and in one other
 * pool. */
void trim_maintain(struct bufpool *p);

#define TRIM_EVERY 16	/* refills and spills: looking reads all caches */

/* After a refill or spill, by the owner: maintains once in TRIM_EVERY. */
static inline void
trim_moved(struct bufpool *p, struct cache *k)
{
	if (k->moves++ % TRIM_EVERY == 0)
		trim_maintain(p);
}

#endif
