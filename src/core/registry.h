/*
 * registry - the pools of the process: how they begin and end, and their names.
 */
#ifndef BUFPOOL_REGISTRY_H
#define BUFPOOL_REGISTRY_H

#include "pool.h"

/* Sets *pool to the next pool, closed ones too; false when there are no more.
 * The first call has *cursor 0. Each pool is held until the caller drops its
 * arena's reference. */
bool bp_registry_next(unsigned *cursor, struct bufpool **pool);

/* The pool of this id, closed or not, whose arena's reference the caller has to
 * drop; NULL when it is gone. Any thread. */
struct bufpool *bp_registry_hold(uint64_t id);

#define REGISTRY_WORK 1024	/* buffers that one call unmaps */

/* Continues to unmap the memory of pools that have no references any more, up
 * to `work` buffers. True when none is left. Keeps errno. Any thread. */
bool bp_registry_finish(unsigned work);

#endif
