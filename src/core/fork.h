/*
 * fork - a child of fork counts anew what it has of a pool.
 *
 * The child has one thread, or some that it has started and that are inside no
 * pool. What the parent's other threads were just moving is nowhere: it is
 * lost, and counted so.
 */
#ifndef BUFPOOL_FORK_H
#define BUFPOOL_FORK_H

#include "pool.h"
#include "table.h"

/* First, for each pool: what other threads had cached goes to the commons. */
void bp_fork_adopt(struct bufpool *p);

/* Then, once: counts what is out of each pool, and what holds it. `pools` are
 * their places. */
void bp_fork_tally(const struct table *pools);

/* Last, for each pool: the law on struct bufpool, solved for lost. */
void bp_fork_count_lost(struct bufpool *p);

#endif
