/*
 * depot - where ready buffers wait for whichever thread needs them next.
 *
 * They wait in batches. A batch is up to half a shelf of buffers, of one class
 * and one node, that is put and taken as a whole, in one step. (Bonwick calls
 * it a magazine.)
 *
 *      spill, flush --put--> [ batch  batch  batch ] --take--> refill, steal
 *
 * Each thread has a depot for each pool it uses: a ck_ring per size class (and
 * NUMA node, where the pool tells them apart), into which only that thread puts
 * and from which every thread takes. The ring is lock-free because it has one
 * producer: in a ring with many, each waits until those before it have
 * published, and one that lost its core holds up all others (design.md has the
 * times).
 *
 * The commons are the depot that belongs to no thread. They hold what a pool
 * was stocked with, what exited threads have left, what came home without a
 * cache, and the rest of a batch when a taker wanted only a part. They have a
 * stack where the other depots have a ring, so that any thread can put without
 * waiting.
 *
 * Only depot.c knows Concurrency Kit. spec/model/depot.lua has what a ring and
 * its count do, and the marks of cache.h.
 */
#ifndef BUFPOOL_DEPOT_H
#define BUFPOOL_DEPOT_H

#include "buf.h"

/* What waits of one class and node. */
struct batches {
	_Atomic uint64_t ready;	/* buffers; never fewer than there are */
	struct stack stack;	/* in the commons, instead of a ring */
};

struct depot {
	const struct layout *layout;
	struct ring *ring;	/* NULL: the commons */
	struct batches *batches;
	char *map;		/* the rings, their slots and, where nodes are
				 * kept apart, the batches; or NULL */
	size_t bytes;		/* of map */
	struct batches of_one_node[BUFPOOL_CLASSES_MAX];	/* `batches`,
					 * where nodes are not kept apart */
};

/* create makes an empty depot of a thread, or the commons; -1 + ENOMEM. The
 * caller of destroy makes sure that the depot is empty and that no other thread
 * can reach it. */
int bp_depot_create(struct depot *d, const struct layout *l, bool common);
void bp_depot_destroy(struct depot *d);

/* Makes buffers of one class READY; they must be CACHED and the caller's.
 * Buffers for which the ring has no room go to the system. Called by the
 * depot's owner only, but for the commons by any thread. The caller holds the
 * pool. */
void bp_depot_put(struct depot *d, struct bufpool_buf *const *b,
		  uint32_t count);

/* Takes one batch, half a shelf of buffers at most, and returns how many there
 * are. They are CACHED then, and the caller's; the warmest comes last. Any
 * thread. */
uint32_t bp_depot_take(struct depot *d, unsigned ring, struct bufpool_buf **to);

/* How many buffers are ready; exact while no thread moves any. Any thread. */
static inline uint64_t
depot_ready(const struct depot *d, unsigned ring)
{
	return atomic_load_explicit(&d->batches[ring].ready,
				    memory_order_relaxed);
}

/* How many more buffers the ring has room for; the commons have no limit. Owner
 * only. */
uint64_t bp_depot_room(const struct depot *d, unsigned ring);

/* In a fork child: counts again what is on the stacks. The rings must be
 * empty. */
void bp_depot_after_fork(struct depot *d);

#endif
