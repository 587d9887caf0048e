/*
 * fork - a child of fork counts anew what it has of a pool.
 *
 * The child has one thread, or some that it has started and that are inside no
 * pool. Buffers that the parent's other threads were just moving cannot be
 * found; they are lost, and counted as lost.
 */
#ifndef BUFPOOL_FORK_H
#define BUFPOOL_FORK_H

#include "pool.h"
#include "table.h"

/* First, for each pool: moves to the commons what is ready in depots and what
 * other threads had cached. */
void bp_fork_adopt(struct bufpool *p);

/* Then, once for all pools: counts the buffers that each has out, and the
 * descriptors that hold it. `pools` is the table of places. */
void bp_fork_tally(const struct table *pools);

/* Last, for each pool: computes `lost` from the equation in pool.h. */
void bp_fork_count_lost(struct bufpool *p);

#endif
