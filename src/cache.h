/*
 * cache - what one thread keeps of one pool for its own next checkouts.
 *
 * A cache has a shelf per size class: an array used as a stack, so that the
 * buffer released last, which is warm, is checked out next. A full shelf
 * spills its cold half to the depot, an empty one refills half from there.
 *
 *      slot[0]  ...  slot[n/2]  ...  slot[n-1]   slot[n] ... slot[limit-1]
 *      `---- cold half: spills ----'   hot end:      empty
 *                                      push, pop
 *
 * THE OWNER WORD is two halves, so that the owner's side needs no atomic
 * read-modify-write. The owner writes `busy`, all others write `gate`:
 *
 *      owner                              another thread
 *      E1  busy = 1                       C1  gate |= CLAIMED
 *      E2  light fence                    C2  heavy fence
 *      E3  if gate: leave, go elsewhere   C3  if busy: undo, go elsewhere
 *          use the shelves                    use the shelves
 *      E4  busy = 0 (release)             C4  gate &= ~CLAIMED (release)
 *
 * Both sides store, fence and load (Dekker), so they cannot both miss the
 * other: at most one is inside, and neither ever waits. E4 pairs with the
 * acquire load at C3, C4 with the acquire load at E3: whoever gets in sees all
 * that the one before did. The fences are a compiler barrier and membarrier(2),
 * which puts a full barrier into every running thread of the process. Where the
 * kernel lacks it, FENCED stays in the gate: that sends the owner through the
 * slow paths, which store `busy` by a sequentially consistent exchange.
 *
 * CLOSED in the gate is set once by bufpool_close and stays: the owner then
 * never gets in again. If it was inside, it finds the bit when it leaves (E4,
 * fence, load; against close's store, fence, load of busy) and empties the
 * cache itself.
 *
 * The cache of a closed pool stays where it is until its thread, and no other,
 * binds it to a new pool: so a thread can always look at its own caches.
 */
#ifndef BUFPOOL_CACHE_H
#define BUFPOOL_CACHE_H

#include "buf.h"
#include "depot.h"

/* Buffers of one class in a cache, at most: so many that a shelf is 512 bytes,
 * which is found by a shift. */
#define SHELF_MAX 60
#define SHELF_BYTES ((size_t)2 << 20)	/* likewise; one always fits */

#define GATE_CLAIMED 1
#define GATE_CLOSED 2
#define GATE_FENCED 4

/* Counters have one writer, the owner, and are read by anyone. The law:
 * over all caches, checkouts - releases == buffers out. */
struct shelf {
	_Atomic uint32_t n;
	uint32_t limit;
	_Atomic uint64_t checkouts;
	_Atomic uint64_t releases;
	_Atomic uint64_t misses;	/* of the checkouts: not ready */
	struct bufpool_buf *slot[SHELF_MAX];
};

struct cache {
	_Atomic uint32_t busy;
	_Atomic uint32_t gate;
	_Atomic uint64_t pool_id;	/* whose; 0: nobody's */
	_Atomic uint64_t wiped_bytes;
	_Atomic uint64_t gc_returns;
	_Atomic(struct depot *) depot;
	unsigned classes;
	unsigned refills;
	_Alignas(64) struct shelf shelf[BUFPOOL_CLASSES_MAX];
};

void cache_init(void);		/* once, before any other thread */
bool cache_enter_slow(struct cache *k);
void cache_leave_slow(struct cache *k);

static inline void
counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer: no read-modify-write needed. Relaxed: statistics. */
	atomic_store_explicit(
	    counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
	    memory_order_relaxed);
}

static inline uint64_t
counter_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Owner only, once it is done inside, or has pushed into its depot. */
static inline void
cache_leave(struct cache *k)
{
	atomic_store_explicit(&k->busy, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(atomic_load(&k->gate) != 0, 0))
		cache_leave_slow(k);
}

/* Owner only. False: claimed or closed, and the shelves are not its own now. */
static inline bool
cache_enter(struct cache *k)
{
	atomic_store_explicit(&k->busy, 1, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(atomic_load(&k->gate) == 0, 1))
		return true;
	return cache_enter_slow(k);
}

/* Buffers of the class; exact for whoever is inside. Any thread. */
static inline uint32_t
cache_count(const struct cache *k, unsigned class)
{
	return atomic_load_explicit(&k->shelf[class].n, memory_order_relaxed);
}

/* Owner inside, or claimer. The hottest buffer, NULL when there is none. */
static inline struct bufpool_buf *
cache_pop(struct cache *k, unsigned class)
{
	struct shelf *s = &k->shelf[class];
	uint32_t n = cache_count(k, class);

	if (__builtin_expect(n == 0, 0))
		return NULL;
	atomic_store_explicit(&s->n, n - 1, memory_order_relaxed);
	return s->slot[n - 1];
}

/* Owner inside. False when the shelf is full. */
static inline bool
cache_push(struct cache *k, unsigned class, struct bufpool_buf *b)
{
	struct shelf *s = &k->shelf[class];
	uint32_t n = cache_count(k, class);

	if (__builtin_expect(n >= s->limit, 0))
		return false;
	s->slot[n] = b;
	atomic_store_explicit(&s->n, n + 1, memory_order_relaxed);
	return true;
}

/* Owner only: makes it the cache of p, unless it is; false when there is no
 * memory. Whatever pool it had before is gone. */
bool cache_bind(struct cache *k, const struct bufpool *p);

/* Another thread's way in and out. False when the owner is inside, or another
 * claimer. Unclaiming empties the cache if its pool was closed meanwhile. */
bool cache_claim(struct cache *k);
void cache_unclaim(struct cache *k);

/* Owner only: the cold half to the depot, or to the arena when that is full. */
void cache_spill(struct cache *k, unsigned class);

/* Owner only: everything to the depot. */
void cache_flush(struct cache *k);

/* Closes the gate for good, and empties the cache or leaves that to its owner,
 * who is inside. */
void cache_close(struct cache *k);

/* In a fork child, for the cache of a thread that is not there any more. */
void cache_abandon(struct cache *k);

#endif
