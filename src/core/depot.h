/*
 * depot - where ready buffers wait for whichever thread needs them next.
 *
 * Each thread has one depot for each pool it uses: a ck_ring per size class
 * (and NUMA node, where the pool tells them apart), into which only that thread
 * pushes and from which everyone takes.
 *
 *      owner --push--> [ ring ] --take--> owner, by refill
 *                               --take--> any other thread, by stealing
 *
 * One producer to a ring is what makes it lock-free: in a ring with many
 * producers each waits until those before it have published, and one that lost
 * its core holds up all others (measured: 1120 ms at 32 threads on two cores,
 * against 0.26 us with one producer).
 *
 * The commons hold what is ready and belongs to no thread's depot: what a pool
 * was stocked with, and what exited threads have left. They are stacks, from
 * which any thread pops and onto which any thread pushes, without waiting.
 *
 * Only depot.c knows Concurrency Kit.
 */
#ifndef BUFPOOL_DEPOT_H
#define BUFPOOL_DEPOT_H

#include "buf.h"

struct depot;

/* A depot with a ring for each class of each node. NULL + ENOMEM. Whoever
 * destroys it is certain that no other thread reaches it. */
struct depot *bp_depot_create(const struct layout *l);
void bp_depot_destroy(struct depot *d);

/* Owner only. Turns CACHED into READY. False when the ring is full: the buffer
 * is still the caller's. */
bool bp_depot_push(struct depot *d, unsigned ring, struct bufpool_buf *b);

/* Any thread. Takes the oldest buffers, `count` at most, turns them CACHED, and
 * returns how many. They are the caller's. */
uint32_t bp_depot_take_some(struct depot *d, unsigned ring,
			    struct bufpool_buf **to, uint32_t count);

/* Any thread. Takes the oldest buffer; NULL when there is none. */
struct bufpool_buf *bp_depot_take(struct depot *d, unsigned ring);

/* Buffers in the ring; exact when nobody moves any. Any thread. */
uint32_t bp_depot_ready(const struct depot *d, unsigned ring);

/* Owner only. Whether bp_depot_push would fail. */
bool bp_depot_is_full(const struct depot *d, unsigned ring);

struct commons_ring {
	struct buf_stack stack;
	_Atomic uint64_t count;	/* never below what is on the stack */
};

struct commons {
	unsigned rings;
	struct commons_ring *ring;
	struct commons_ring alone[BUFPOOL_CLASSES_MAX];	/* one node's rings */
};

/* Empty commons. -1 + ENOMEM. */
int bp_commons_create(struct commons *m, const struct layout *l);
/* They are empty by then. */
void bp_commons_destroy(struct commons *m);

/* Any thread. Turns CACHED into READY. */
void bp_commons_push(struct commons *m, unsigned ring, struct bufpool_buf *b);

/* Any thread. Takes a buffer and turns it CACHED; NULL when there is none. */
struct bufpool_buf *bp_commons_take(struct commons *m, unsigned ring);

static inline uint64_t
commons_ready(const struct commons *m, unsigned ring)
{
	return atomic_load_explicit(&m->ring[ring].count,
				    memory_order_relaxed);
}

/* In a fork child: counts what is there. */
void bp_commons_after_fork(struct commons *m);

#endif
