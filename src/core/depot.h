/*
 * depot - where buffers wait for whichever thread needs them next.
 *
 * Each thread has one depot for each pool it uses: a ck_ring per size class
 * (and NUMA node, where the pool tells them apart), into which only that thread
 * puts and from which everyone takes.
 *
 *      owner --push--> [ ring ] --take--> owner, by refill
 *                               --take--> any other thread, by stealing
 *
 * One producer to a ring is what makes it lock-free: a ring with many
 * producers has each wait until those before it have published, and one that
 * lost its core holds up all others (measured: 1120 ms at 32 threads on two
 * cores, against 0.26 us so).
 *
 * Only depot.c knows Concurrency Kit.
 */
#ifndef BUFPOOL_DEPOT_H
#define BUFPOOL_DEPOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct depot;

/*
 * A depot with rings for each class of each node, those of a node together;
 * that of a class with room for sizes[class] - 1 buffers. Sizes are powers of
 * two. NULL + ENOMEM. Its owner, or whoever is certain that no other thread
 * reaches it, may destroy it; NULL does nothing.
 */
struct depot *depot_create(unsigned nodes, unsigned classes,
			   const uint32_t *sizes);
void depot_destroy(struct depot *d);
unsigned depot_rings(const struct depot *d);

/* Owner only. Turns CACHED into READY. False when the ring is full: the buffer
 * is still the caller's. */
bool depot_push(struct depot *d, unsigned ring, struct bufpool_buf *b);

/* Any thread. The oldest buffers, n at most, now CACHED and the caller's;
 * returns how many. Then the same for one; NULL when there is none. */
uint32_t depot_take_some(struct depot *d, unsigned ring,
			 struct bufpool_buf **to, uint32_t n);
struct bufpool_buf *depot_take(struct depot *d, unsigned ring);

/* Buffers in the ring; exact when nobody moves any. Any thread. */
uint32_t depot_ready(const struct depot *d, unsigned ring);

#endif
