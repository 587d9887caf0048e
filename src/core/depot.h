/*
 * depot - where ready buffers wait for whichever thread needs them next.
 *
 * They wait in batches: up to half a shelf, of one class and one node, that is
 * put and taken as a whole, by one exchange. (Bonwick's magazines.)
 *
 *      spill, flush --put--> [ batch  batch  batch ] --take--> refill, steal
 *
 * Each thread has a depot for each pool it uses: a ck_ring per size class (and
 * NUMA node, where the pool tells them apart), into which only that thread puts
 * and from which everyone takes. One producer to a ring is what makes it
 * lock-free: in a ring with many producers each waits until those before it
 * have published, and one that lost its core holds up all others (measured:
 * 1120 ms at 32 threads on two cores, against 0.26 us with one producer).
 *
 * The commons are the depot that belongs to no thread: what a pool was stocked
 * with, what exited threads have left, and the rest of a batch of which a part
 * was wanted. They have a stack where the others have a ring, so any thread
 * puts, without waiting.
 *
 * Only depot.c knows Concurrency Kit.
 */
#ifndef BUFPOOL_DEPOT_H
#define BUFPOOL_DEPOT_H

#include "buf.h"

/* How many wait of one class and node. */
struct batches {
	_Atomic uint64_t ready;	/* buffers; never fewer than there are */
	struct buf_stack stack;	/* of the commons */
};

struct depot {
	const struct layout *layout;
	struct ring *ring;	/* NULL: the commons */
	struct batches *batches;
	char *map;		/* what the two are in; NULL: alone is enough */
	size_t bytes;
	struct batches alone[BUFPOOL_CLASSES_MAX];	/* of a single node */
};

/* An empty depot of a thread, or the commons. -1 + ENOMEM. Whoever destroys it
 * is certain that it is empty and that no other thread reaches it. */
int bp_depot_create(struct depot *d, const struct layout *l, bool common);
void bp_depot_destroy(struct depot *d);

/* Makes buffers of one class ready, which are CACHED and the caller's. What
 * finds no room goes to the system. The owner only; the commons: any thread.
 * The caller holds the pool. */
void bp_depot_put(struct depot *d, struct bufpool_buf *const *b,
		  uint32_t count);

/* Takes a batch, half a shelf of buffers at most, which are CACHED and the
 * caller's; those that were the warmest come last. Returns how many. Any
 * thread. */
uint32_t bp_depot_take(struct depot *d, unsigned ring, struct bufpool_buf **to);

/* Buffers of a ring; exact when nobody moves any. Any thread. */
static inline uint64_t
depot_ready(const struct depot *d, unsigned ring)
{
	return atomic_load_explicit(&d->batches[ring].ready,
				    memory_order_relaxed);
}

/* Buffers that still find room. Owner only. */
uint64_t bp_depot_room(const struct depot *d, unsigned ring);

/* In a fork child: counts what is on the stacks. Rings are empty by then. */
void bp_depot_after_fork(struct depot *d);

#endif
