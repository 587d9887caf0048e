/*
 * cache - what one thread keeps of one pool for its own next checkouts.
 *
 * A cache has a shelf per size class: an array used as a stack, so that the
 * buffer released last, which is warm, is checked out next. A full shelf
 * spills its cold half to the depot, an empty one refills half from there.
 *
 *      slot[0]  ...  slot[n/2]  ...  slot[n-1]   slot[n] ... slot[full-1]
 *      `---- cold half: spills ----'   hot end:      empty
 *                                      push, pop
 *
 * Each buffer knows the shelf that it was last on. Its release asks first
 * whether that is one of the calling thread's own, and then needs to find
 * neither thread, nor pool, nor class.
 *
 * THE OWNER WORD of a shelf is two halves, so that the owner's side needs no
 * atomic read-modify-write. The owner writes `busy`, all others write `gate`:
 *
 *      owner                              another thread
 *      E1  busy = 1                       C1  gate |= CLAIMED, shut the shelf
 *      E2  light fence                    C2  heavy fence
 *      E3  if shut: leave, go elsewhere   C3  if busy, or not shut any more:
 *          use the shelf                      undo, go elsewhere
 *      E4  busy = 0 (release)                 use the shelf
 *                                         C4  gate &= ~CLAIMED (release)
 *
 * A shelf is shut by a `least` above and a `limit` below every count, so the
 * comparison that finds a shelf empty, or full, finds it shut as well, and the
 * fast paths never look at the gate. Only the owner opens it again, in a slow
 * path: between E1 and E4, when it has found the gate without CLAIMED.
 *
 * Both sides store, fence and load (Dekker), so they cannot both miss the
 * other: at most one is inside, and neither ever waits. Should the owner open
 * the shelf between C1 and C2, for it was inside before C1, then the claimer
 * finds it busy, or, if it has left, open. E4 pairs with the acquire load at
 * C3, C4 with the acquire load of the gate before opening: whoever gets in sees
 * all that the one before did. The fences are a compiler barrier and
 * membarrier(2), which puts a full barrier into every running thread of the
 * process. Where the kernel lacks it, FENCED stays in the gate and the shelf
 * shut: that sends the owner through the slow paths, which store `busy` by a
 * sequentially consistent exchange.
 *
 * CLOSED in the gate is set once by bufpool_close and stays: the owner then
 * never gets in again. If it was inside, it finds the bit when it leaves (E4,
 * fence, load; against close's store, fence, load of busy) and empties the
 * shelf itself.
 *
 * The cache of a closed pool stays where it is until its thread, and no other,
 * binds it to a new pool: so a thread can always look at its own caches.
 */
#ifndef BUFPOOL_CACHE_H
#define BUFPOOL_CACHE_H

#include "buf.h"
#include "depot.h"
#include "hook.h"

/* Buffers of one class in a cache, at most. */
#define SHELF_MAX 60
#define SHELF_BYTES ((size_t)2 << 20)	/* likewise; one always fits */
#define SHELF_CHECKOUTS 1024	/* before the owner looks around; see left */

#define GATE_CLAIMED 1
#define GATE_CLOSED 2
#define GATE_FENCED 4
#define SHUT UINT32_MAX

/*
 * Counters have one writer, the owner, and are read by anyone. The law: over
 * all shelves, (allowance - left) - releases == buffers out.
 *
 * left counts down the checkouts until the owner leaves the fast path once, to
 * look whether memory has lain idle, and which node it runs on.
 */
struct bufpool_shelf {
	/* what its owner writes all the time, and others now and then */
	_Alignas(64) _Atomic uint32_t n;
	_Atomic uint32_t busy;
	_Atomic uint32_t gate;
	_Atomic uint32_t least;		/* 0; SHUT */
	_Atomic uint32_t limit;		/* full; 0: shut */
	_Atomic int32_t left;
	_Atomic uint64_t allowance;	/* checkouts, plus what is left */
	_Atomic uint64_t releases;
	_Atomic uint64_t misses;	/* of the checkouts: not ready */
	/* what is written at binding only: any thread that releases a buffer
	 * reads it, and must not take the line above from the owner for that */
	_Alignas(64) size_t size;	/* bytes of a buffer */
	const struct thread *thread;	/* whose */
	struct cache *cache;
	/* what its buffers remember: this shelf, or, where nodes are kept
	 * apart, none, so that each release compares nodes */
	struct bufpool_shelf *home;
	uint32_t full;
	uint32_t class;
	_Alignas(64) struct bufpool_buf *slot[SHELF_MAX];
};

struct cache {
	_Atomic uint64_t pool_id;	/* whose; 0: nobody's */
	_Atomic uint64_t wiped_bytes;
	_Atomic uint64_t gc_returns;
	_Atomic(struct depot *) depot;
	unsigned classes;
	unsigned moves;			/* refills and spills */
	unsigned nodes;			/* that the pool keeps apart */
	unsigned node;			/* whose buffers it holds; see below */
	/* Those past the last class are shut, and of boundless size. */
	struct bufpool_shelf shelf[BUFPOOL_CLASSES_MAX + 1];
};

/* Nobody's, and shut: where buffers belong that are of no shelf. */
extern struct bufpool_shelf cache_no_shelf;

void cache_init(void);		/* once, before any other thread */
void shelf_leave_slow(struct bufpool_shelf *s);

/*
 * Adds to what only this thread writes, and others may read at any time. No
 * read-modify-write is needed; but x86 has one instruction for it, which
 * compilers do not use for atomic objects.
 */
static inline void
own_add(_Atomic uint64_t *to, uint64_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	__asm__("addq %1, %0" : "+m"(*to) : "er"(n) : "cc");
#else
	atomic_store_explicit(
	    to, atomic_load_explicit(to, memory_order_relaxed) + n,
	    memory_order_relaxed);
#endif
}

/* The same for a count, up or down. */
static inline void
own_step(_Atomic uint32_t *count, int32_t by)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	__asm__("addl %1, %0" : "+m"(*count) : "er"(by) : "cc");
#else
	atomic_store_explicit(
	    count, atomic_load_explicit(count, memory_order_relaxed) +
	    (uint32_t)by, memory_order_relaxed);
#endif
}

/* The same, down by one; true when the result is negative. */
static inline bool
own_count_down(_Atomic int32_t *from)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	bool negative;

	__asm__("subl $1, %0" : "+m"(*from), "=@ccs"(negative));
	return negative;
#else
	int32_t n = atomic_load_explicit(from, memory_order_relaxed) - 1;

	atomic_store_explicit(from, n, memory_order_relaxed);
	return n < 0;
#endif
}

/* Whether it is below n, by an acquire load. */
static inline bool
is_below(const _Atomic uint32_t *number, uint32_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	bool below;

	__asm__ volatile("cmpl %2, %1" : "=@ccb"(below)
			 : "m"(*number), "ri"(n) : "memory");
	return below;
#else
	return atomic_load_explicit(number, memory_order_acquire) < n;
#endif
}

static inline uint64_t
counter_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Never too many: the allowance grows after left does. Any thread. */
static inline uint64_t
shelf_checkouts(const struct bufpool_shelf *s)
{
	uint64_t allowance = atomic_load_explicit(&s->allowance,
						  memory_order_acquire);

	return allowance - (uint64_t)(int64_t)atomic_load_explicit(
	    &s->left, memory_order_relaxed);
}

/* Owner only: E1 and E2. */
static inline void
shelf_enter(struct bufpool_shelf *s)
{
	atomic_store_explicit(&s->busy, 1, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	hook("shelf: entered");
}

/* Owner only: E4. True when shelf_leave_slow has to be called then. */
static inline bool
shelf_exit(struct bufpool_shelf *s)
{
	hook("shelf: leaving");
	atomic_store_explicit(&s->busy, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	return __builtin_expect(!is_below(&s->gate, 1), 0);
}

/* Both, once it is done inside, or has pushed into its depot. */
static inline void
shelf_leave(struct bufpool_shelf *s)
{
	if (shelf_exit(s))
		shelf_leave_slow(s);
}

/* Buffers on it; exact for whoever is inside. Any thread. */
static inline uint32_t
shelf_count(const struct bufpool_shelf *s)
{
	return atomic_load_explicit(&s->n, memory_order_relaxed);
}

/* Whoever is inside, and has found n buffers, at least one. The hottest. */
static inline struct bufpool_buf *
shelf_pop(struct bufpool_shelf *s, size_t n)
{
	struct bufpool_buf *b = s->slot[n - 1];

	own_step(&s->n, -1);
	hook("shelf: popped");
	if (b == NULL)
		__builtin_unreachable();
	return b;
}

/* The same; NULL when there is none. */
static inline struct bufpool_buf *
shelf_take(struct bufpool_shelf *s)
{
	uint32_t n = shelf_count(s);

	return n > 0 ? shelf_pop(s, n) : NULL;
}

/* Whoever is inside. False when the shelf is full. */
static inline bool
shelf_push(struct bufpool_shelf *s, struct bufpool_buf *b, uint32_t limit)
{
	uint32_t n = atomic_load_explicit(&s->n, memory_order_relaxed);

	if (__builtin_expect(n >= limit, 0))
		return false;
	s->slot[n] = b;
	hook("shelf: pushed");
	own_step(&s->n, 1);
	return true;
}

/* Nobody's yet, and closed; never destroyed. NULL + ENOMEM. */
struct cache *cache_create(void);

/* Owner only: makes it the cache of p, unless it is; false when there is no
 * memory. Whatever pool it had before is gone. */
bool cache_bind(struct cache *k, const struct bufpool *p,
		const struct thread *t);

/* Owner only, in slow paths: enters, and opens the shelf if it was shut. False
 * when it is claimed or closed: it has left again. */
bool shelf_open(struct bufpool_shelf *s);

/* Owner only: another SHELF_CHECKOUTS until it looks around. */
void shelf_renew(struct bufpool_shelf *s);

/* Another thread's way in and out. False when the owner is inside, or another
 * claimer. Unclaiming empties the shelf if its pool was closed meanwhile. */
bool shelf_claim(struct bufpool_shelf *s);
void shelf_unclaim(struct bufpool_shelf *s);

/* Owner inside: the cold half to the depot, or to the arena when that is
 * full. */
void shelf_spill(struct bufpool_shelf *s);

/* Owner only: everything to the depot. */
void cache_flush(struct cache *k);

/* The owner leaves it to another thread, perhaps of another node: it has to be
 * found anew, and until then no buffer is of the cache's node. */
#define NODE_UNKNOWN BUFPOOL_NODES_MAX
void cache_leave_to_others(struct cache *k);

/* Closes the gates for good, and empties the shelves or leaves that to the
 * owner, who is inside. */
void cache_close(struct cache *k);

/* In a fork child, for the cache of a thread that is not there any more. */
void cache_abandon(struct cache *k);

#endif
