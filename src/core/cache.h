/*
 * cache - what one thread keeps of one pool for its own next checkouts.
 *
 * A cache has a shelf per size class: an array used as a stack, so that the
 * buffer released last, which is warm, is checked out next. A full shelf spills
 * its cold half to the depot, an empty one refills half from there.
 *
 *      buf[0]  ...  buf[count/2]  ...  buf[count-1]   ...   buf[full-1]
 *      `-- cold half: spills --'       hot end:       empty
 *                                      push, pop
 *
 * (Bonwick's magazines, which stand at this place in his allocator, are
 * exchanged as a whole. A shelf stays, so that a buffer can name the shelf that
 * it was last on: a release then finds neither thread, nor pool, nor class.)
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
 * A count is compared with `empty_at` to see whether the shelf has a buffer,
 * and with `full_at` to see whether it has room. To shut a shelf is to move
 * both beyond every count. So the fast paths find a shut shelf by the
 * comparison that they make anyway, and never look at the gate. Only the owner
 * opens its shelf again, in a slow path: between E1 and E4, when it has found
 * the gate without CLAIMED.
 *
 * Both sides store, fence and load (Dekker), so they cannot both miss the
 * other: at most one is inside, and neither ever waits. An owner that was
 * inside before C1 may open the shelf between C1 and C2: then the claimer finds
 * it busy or, once the owner has left, open. E4 pairs with the acquire load at
 * C3, C4 with the acquire load of the gate before opening: whoever gets in sees
 * all that the one before did.
 *
 * The fences are a compiler barrier and membarrier(2), which puts a full
 * barrier into every running thread of the process. Where the kernel lacks it,
 * FENCED stays in the gate and the shelf shut: that sends the owner through the
 * slow paths, which store `busy` by a sequentially consistent exchange. Where
 * the system refuses it later, to a process that has entered a sandbox, no
 * claim succeeds from then on: what a thread has cached is that thread's alone,
 * until it spills, flushes or exits.
 *
 * CLOSED and RETIRED in the gate call for the shelf to be emptied: to the
 * system when the pool is closed, to the commons when the owner's thread exits.
 * Whoever is inside finds the bit when leaving and does it: the owner by E4,
 * fence, load, a claimer by the exchange of C4.
 *
 * A CACHE belongs to a thread's record. It is live from the moment when its
 * thread first uses the pool to the thread's exit, which empties it and adds
 * its counters to those of the pool. The next thread that adopts the record
 * takes the cache up again. Once the pool is gone it is taken out of the
 * record, so that no later pool meets it, and unmapped by the record's owner
 * only: so a thread can always look at its own caches.
 */
#ifndef BUFPOOL_CACHE_H
#define BUFPOOL_CACHE_H

#include "arena.h"
#include "depot.h"

/* Checkouts between two looks at the clock: from one, in a thread that seldom
 * comes, to this many in one that comes all the time. */
#define SHELF_STRIDE 256

#define GATE_CLAIMED 1
#define GATE_CLOSED 2
#define GATE_RETIRED 4
#define GATE_FENCED 8
#define GATE_CALLED (GATE_CLOSED | GATE_RETIRED)
#define SHUT UINT32_MAX		/* of empty_at: no count is above it */

/* Who owns a shelf: the address that identifies a thread. NULL: nobody. */
struct owner {
	_Atomic(const void *) token;
};

/*
 * Counters have one writer, the owner, and are read by anyone. The law: over
 * all shelves and the uncached, checkouts - releases == buffers out.
 */
struct bufpool_shelf {
	/* what its owner writes all the time, and others now and then */
	_Alignas(64) _Atomic uint32_t count;	/* buffers on it */
	_Atomic uint32_t busy;
	_Atomic uint32_t gate;
	_Atomic uint32_t empty_at;	/* 0; SHUT */
	_Atomic uint32_t full_at;	/* full; 0: shut */
	uint32_t stride;	/* checkouts from the last look to the next */
	_Atomic uint64_t checkouts;
	_Atomic uint64_t releases;
	_Atomic uint64_t misses;	/* of the checkouts: fresh memory */
	uint64_t due;		/* the next look is after so many checkouts */
	int64_t looked_at;	/* milliseconds */
	/* what is written at creation only: any thread that releases a buffer
	 * reads it, and must not take the line above from the owner for that */
	_Alignas(64) size_t size;	/* bytes of a buffer */
	const struct owner *owner;
	struct cache *cache;
	/* what its buffers name as their shelf: this one, or, where nodes are
	 * kept apart, none, so that each release compares nodes */
	struct bufpool_shelf *named;
	uint32_t full;
	uint32_t class;
	_Alignas(64) struct bufpool_buf *buf[SHELF_MAX];
};

struct cache {
	uint64_t id;			/* of its pool */
	struct bufpool_arena *arena;	/* of its pool, or of a later one */
	_Atomic uint64_t wiped_bytes;
	_Atomic uint64_t gc_returns;
	struct caches *caches;		/* of its pool */
	struct depot depot;
	struct cache_block *block;	/* where it is listed */
	unsigned bit;			/* and at which place of it */
	bool live;			/* owner only; true implies the bit */
	unsigned node;			/* whose buffers it holds */
	size_t bytes;			/* of this mapping */
	/* checkouts of a shelf that was last found empty: see claim_one */
	_Atomic uint32_t seen[BUFPOOL_CLASSES_MAX];
	struct cache *next;		/* after its pool: see thread.c */
	/* One more than there are classes; the last one's size is boundless,
	 * and it is always shut. */
	struct bufpool_shelf shelf[];
};

#define CACHE_BLOCK 64		/* as many as a word has bits */

/* What a cache may have buffers on: by class, its shelf, and its depot. */
#define PART_SHELF(class) (class)
#define PART_DEPOT(class) (BUFPOOL_CLASSES_MAX + (class))
#define PARTS (2 * BUFPOOL_CLASSES_MAX)
#define PART_ALL PARTS

/*
 * MARKS. Whoever looks for buffers passes by what is not marked.
 *
 * A shelf without a mark is shut and empty. Its owner marks it inside, before
 * it opens it, and only a claimer takes the mark away, inside, when it leaves
 * the shelf empty: so the two exclude each other (E, C above).
 *
 * A depot without a mark is empty, or its owner is just pushing. The owner
 * pushes, fences, and marks it where there is no mark; a taker that has found
 * nothing takes the mark away, fences, looks again, and marks it where there is
 * something. Each stores, fences and loads what the other stores: so the owner
 * finds the mark gone, or the taker what was pushed. A spill marks the depot
 * before it pushes, too, so that what it has pushed is found meanwhile.
 */
struct cache_block {
	_Atomic uint64_t live;		/* bit i: cache[i] is */
	_Atomic uint32_t used;	/* places asked for, of which 64 exist */
	struct cache_block *next;
	_Atomic(struct cache *) cache[CACHE_BLOCK];
	_Atomic uint64_t marked[PARTS];	/* bit i: of cache[i] */
};

/*
 * All caches of one pool, and what stands in for a cache where a thread has
 * none. Blocks are listed once, and unmapped with the pool. Looking at all
 * caches takes the time of those that are live, or of those that are marked,
 * and two loads for 64 others.
 */
struct caches {
	uint64_t id;			/* the pool's; never used twice */
	uint32_t place;			/* the pool's, in each thread's array */
	/* by i: the offset in a cache of the shelf of the smallest class that
	 * holds 2^i bytes. A request from 2^i bytes on begins there. */
	uint16_t first[64];
	const struct layout *layout;
	struct bufpool_arena *arena;
	_Atomic uint32_t closed;
	_Atomic(struct cache_block *) blocks;
	struct depot commons;
	/* counters of threads that had no cache, and of those that exited */
	struct {
		_Atomic uint64_t checkouts, releases, misses;
	} uncached[BUFPOOL_CLASSES_MAX];
	_Atomic uint64_t wiped_bytes, gc_returns;
};

/* Where buffers belong that no thread releases fast. Nobody's, and shut. */
extern struct bufpool_shelf bp_cache_no_shelf;

void bp_cache_init(void);		/* once, before any other thread */

/* Makes caches ready whose layout, arena, id and place are filled in already.
 * -1 + ENOMEM. Undone by bp_caches_destroy, when no thread reaches them. */
int bp_caches_create(struct caches *cs);
void bp_caches_destroy(struct caches *cs);

/* An address that the calling thread alone has, for as long as it lives, and
 * that is found without a call. */
static inline const void *
owner_token(void)
{
#if defined(__x86_64__) && !defined(__ILP32__)
	const void *token;

	__asm__("mov %%fs:0, %0" : "=r"(token));
	return token;
#elif defined(__aarch64__)
	return __builtin_thread_pointer();
#else
	static __thread char mine;

	return &mine;
#endif
}

/* Whether the calling thread is the owner. */
static inline bool
owner_is_self(const struct owner *o)
{
	return atomic_load_explicit(&o->token, memory_order_relaxed) ==
	    owner_token();
}

/* Adds to what only this thread writes, and others may read at any time, so
 * that no read-modify-write is needed. Returns the sum. */
static inline uint64_t
counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	n += atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, n, memory_order_relaxed);
	return n;
}

static inline uint64_t
counter_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Owner only: the next checkout from it is to look at the clock, and those
 * after that more often than they did. */
static inline void
shelf_look_soon(struct bufpool_shelf *s)
{
	s->stride = s->stride > SHELF_STRIDE / 64 ? SHELF_STRIDE / 64 : 0;
	s->due = counter_get(&s->checkouts) + 1;
}

/* The shelf that holds n bytes; the last, which is shut, when n is above every
 * class. */
static inline struct bufpool_shelf *
cache_shelf(const struct caches *cs, struct cache *k, size_t n)
{
	unsigned log = 63 - (unsigned)__builtin_clzl(n | 1);
	struct bufpool_shelf *s = (void *)((char *)k + cs->first[log]);

	while (__builtin_expect(n > s->size, 0))
		s++;
	return s;
}

/* Owner only: E1 and E2. */
static inline void
shelf_enter(struct bufpool_shelf *s)
{
	atomic_store_explicit(&s->busy, 1, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	hook("shelf: entered");
}

/* Owner only: E4. True when bp_shelf_leave_slow has to be called then. */
static inline bool
shelf_exit(struct bufpool_shelf *s)
{
	hook("shelf: leaving");
	atomic_store_explicit(&s->busy, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	hook("shelf: left");
	return __builtin_expect(atomic_load_explicit(
	    &s->gate, memory_order_acquire) != 0, 0);
}

/* Owner only, after shelf_exit: does what the gate calls for. Keeps errno. */
void bp_shelf_leave_slow(struct bufpool_shelf *s);

/* Owner only, once it is done inside. */
static inline void
shelf_leave(struct bufpool_shelf *s)
{
	if (shelf_exit(s))
		bp_shelf_leave_slow(s);
}

/* Buffers on it; exact for whoever is inside. Any thread. */
static inline uint32_t
shelf_count(const struct bufpool_shelf *s)
{
	return atomic_load_explicit(&s->count, memory_order_relaxed);
}

/* Owner inside: whether there is a buffer to take, of so many. E3. */
static inline bool
shelf_has(const struct bufpool_shelf *s, uint32_t count)
{
	return count > atomic_load_explicit(&s->empty_at,
					    memory_order_acquire);
}

/* Owner inside: whether there is room above so many. E3. */
static inline bool
shelf_has_room(const struct bufpool_shelf *s, uint32_t count)
{
	return count < atomic_load_explicit(&s->full_at, memory_order_acquire);
}

/* Whoever is inside and has found `count` buffers, at least one. */
static inline struct bufpool_buf *
shelf_pop(struct bufpool_shelf *s, uint32_t count)
{
	struct bufpool_buf *b = s->buf[count - 1];

	atomic_store_explicit(&s->count, count - 1, memory_order_relaxed);
	hook("shelf: popped");
	if (b == NULL)
		__builtin_unreachable();
	return b;
}

/* Whoever is inside and has found `count` buffers, fewer than fill it. */
static inline void
shelf_push(struct bufpool_shelf *s, uint32_t count, struct bufpool_buf *b)
{
	s->buf[count] = b;
	hook("shelf: pushed");
	atomic_store_explicit(&s->count, count + 1, memory_order_relaxed);
}

/* Whoever is inside; NULL when there is none. */
static inline struct bufpool_buf *
shelf_take(struct bufpool_shelf *s)
{
	uint32_t count = shelf_count(s);

	return count > 0 ? shelf_pop(s, count) : NULL;
}

/* Owner inside. The buffer names this shelf from then on, where it may. False
 * when the shelf is full. */
static inline bool
shelf_put(struct bufpool_shelf *s, struct bufpool_buf *b)
{
	uint32_t count = shelf_count(s);

	if (count >= s->full)
		return false;
	b->shelf = s->named;
	shelf_push(s, count, b);
	return true;
}

/* Owner only, in slow paths: enters, and opens the shelf if it was shut. False
 * when it is claimed or closed: then the owner has left again. */
bool bp_shelf_open(struct bufpool_shelf *s);

/* Another thread's way in and out; that thread holds the pool. False when the
 * owner is inside, or another claimer, or the system refuses the fence.
 * Unclaiming empties the shelf if it was called for meanwhile. */
bool bp_shelf_claim(struct bufpool_shelf *s);
void bp_shelf_unclaim(struct bufpool_shelf *s);

/* Owner inside: the cold half goes to the depot, or to the arena when that is
 * full. */
void bp_shelf_spill(struct bufpool_shelf *s);

/* A cache of a pool for the owner's record, listed and not live. NULL + ENOMEM.
 * The caller holds the pool. */
struct cache *bp_cache_create(struct caches *cs, const struct owner *owner);

/* The record's owner only, once the pool is gone. */
void bp_cache_destroy(struct cache *k);

/* Holds its pool, by a reference to the arena; false when that is gone. Any
 * thread that may look at k. */
bool bp_cache_hold(const struct cache *k);

/* Owner only, who holds the pool: makes it live, and closes it when the pool
 * has been closed. */
void bp_cache_attach(struct cache *k);

/* Owner only, who may have moved to another node: takes its buffers from there
 * from now on, and leaves those of the old one where that node's threads look
 * first. */
void bp_cache_find_node(struct cache *k);

/* Owner only: what is on the shelves goes to the depot. */
void bp_cache_flush(struct cache *k);

/* Owner only, as the last thing that its thread does with it: everything goes
 * to the commons, and it is no longer live. The caller holds the pool. */
void bp_cache_retire(struct cache *k);

/* Closes the gates for good, and empties the shelves or leaves that to whoever
 * is inside. The caller holds the pool. */
void bp_cache_close(struct cache *k);

/* In a fork child: what is ready, and what other threads had cached, goes to
 * the commons. */
void bp_caches_after_fork(struct caches *cs);

/* CACHED buffers of a class into the commons, or to the system if the pool is
 * closed. Any thread that holds the pool. */
void bp_caches_put_common(struct caches *cs, struct bufpool_buf *const *b,
			  uint32_t count);

/* Takes a batch from the depot of another thread, of those first that are
 * listed after `own`, so that not all threads empty the same one. As
 * bp_depot_take; own is the caller's, or NULL: from any depot. The caller holds
 * the pool. */
uint32_t bp_caches_steal(struct caches *cs, const struct cache *own,
			 unsigned ring, struct bufpool_buf **to);

/* Takes a ready buffer of whatever node and thread, CACHED and the caller's,
 * and puts the rest of its batch into the commons; NULL when there is none. The
 * caller holds the pool. */
struct bufpool_buf *bp_caches_take_one(struct caches *cs, unsigned class);

/* Gives what is in the commons back to the system. Any thread that holds the
 * pool. */
void bp_caches_drain_commons(struct caches *cs);

/* Of a depot of the owner's, after it has pushed; and of one in which a taker
 * has found nothing. */
void bp_cache_mark_depot(struct cache *k, unsigned class);
void bp_cache_unmark_depot(struct cache *k, unsigned class);

/* Live caches in turn, each once, by any thread that holds the pool; all, or
 * those that are marked for a part. */
struct cache_walk {
	struct cache_block *block;
	unsigned part;
	uint64_t left;		/* those of the block that are still to come */
};

static inline uint64_t
caches_of_block(const struct cache_block *block, unsigned part)
{
	uint64_t live = atomic_load(&block->live);

	return part == PART_ALL ? live
	    : live & atomic_load(&block->marked[part]);
}

static inline struct cache_walk
caches_all(const struct caches *cs, unsigned part)
{
	struct cache_walk w = { .block = atomic_load(&cs->blocks),
				.part = part };

	if (w.block != NULL)
		w.left = caches_of_block(w.block, part);
	return w;
}

/* Those that are listed after k. */
static inline struct cache_walk
caches_after(const struct cache *k, unsigned part)
{
	struct cache_walk w = { .block = k->block, .part = part };

	w.left = caches_of_block(w.block, part) &
	    ~(((uint64_t)2 << k->bit) - 1);
	return w;
}

/* NULL at the end. */
static inline struct cache *
caches_next(struct cache_walk *w)
{
	struct cache *k;

	if (w->block == NULL)
		return NULL;
	while (w->left == 0) {
		w->block = w->block->next;
		if (w->block == NULL)
			return NULL;
		w->left = caches_of_block(w->block, w->part);
	}
	k = atomic_load(&w->block->cache[__builtin_ctzll(w->left)]);
	w->left &= w->left - 1;
	return k;
}

#define for_each_marked(k, cs, part)                            \
	for (struct cache_walk walk_ = caches_all(cs, part);    \
	     ((k) = caches_next(&walk_)) != NULL;)
#define for_each_cache(k, cs) for_each_marked(k, cs, PART_ALL)

#endif
