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
 * (Bonwick's allocator has magazines here, which are exchanged as a whole. A
 * shelf stays where it is, so that a buffer can name the shelf that its owner's
 * release puts it on, and need not look up the thread, the pool or the class.)
 *
 * THE OWNER WORD tells who is inside a shelf. It is two words, so that the
 * owner's fast paths need no atomic read-modify-write: only the owner writes
 * `busy`, and everyone writes `gate`.
 *
 *      owner                              another thread
 *      E1  busy = 1                       C1  gate |= CLAIMED, shut the shelf
 *      E2  light fence                    C2  heavy fence
 *      E3  if shut: leave, go elsewhere   C3  if busy, or not shut any more:
 *          use the shelf                      undo, go elsewhere
 *      E4  busy = 0 (release)                 use the shelf
 *                                         C4  exchange gate for the same
 *                                             without CLAIMED (release)
 *
 * A count is compared with `empty_at` to see whether the shelf has a buffer,
 * and with `full_at` to see whether it has room. To shut a shelf is to set both
 * so that no count passes. So the fast paths find a shut shelf by a comparison
 * that they make anyway, and do not look at the gate before they use it. Only
 * the owner opens its shelf again, in a slow path, between E1 and E4, when it
 * has found the gate without CLAIMED.
 *
 * spec/model/shelf.lua has these steps by these names, and spec/38 runs them in
 * every order; so a change here is a change there.
 *
 * Each side stores, fences and loads what the other has stored (Dekker), so at
 * least one of them sees the other: at most one is inside, and neither ever
 * waits. An owner that was inside before C1 may open the shelf between C1 and
 * C2; then the claimer finds it busy or, if the owner has left, open. E4 pairs
 * with the acquire load at C3, and C4 with the acquire load of the gate before
 * the owner opens: whoever gets in sees all that the last one inside did.
 *
 * The light fence is a compiler barrier, the heavy one membarrier(2), which
 * puts a full barrier into every running thread of the process. Where the
 * kernel lacks it, FENCED stays in the gate and the shelf shut: that sends the
 * owner through the slow paths, which store `busy` by a sequentially
 * consistent exchange. Where the system refuses it later, to a process that
 * has entered a sandbox, nobody else can claim a shelf from then on: what a
 * thread has cached is that thread's alone, until it spills, flushes or exits.
 *
 * FENCED is needed because else memory that an idle thread has cached could
 * never be had where the kernel has no membarrier: a pool would fail at
 * max_bytes while its buffers lie on shelves. That claims fail in a sandbox is
 * needed because else a claimer would enter a shelf whose owner, which still
 * runs without fences, may be inside.
 *
 * CLOSED and RETIRED in the gate call for the shelf to be emptied: into the
 * system when the pool is closed, into the commons when the owner's thread
 * exits. Whoever sets the bit claims the shelf and empties it. If somebody is
 * inside, that one does so when it leaves: a claimer, because the exchange of
 * C4 fails; the owner, because it loads the gate after E4, and whoever sets
 * CLOSED fences before it loads `busy`. RETIRED is set by the owner, outside,
 * so only a claimer can find it.
 *
 * WATCHED in the gate sends the shelf's checkouts through the slow path, where
 * leak detection records them (sites.h). The shelf is used as ever, but stays
 * shut: the owner does not open it, and shuts it when it finds the bit on
 * leaving, which it looks for after each use anyway. So whoever sets the bit
 * need not claim the shelf, and a checkout that has begun before may pass. For
 * "sampled" the owner sets the bit itself, once in so many checkouts, and the
 * next checkout takes it away. For "all" whoever sets the pool's `watch` also
 * sets the bit of each live cache, and a cache that becomes live sets its own.
 *
 * Several threads change the bit, and in the end it says what `watch` does.
 * Whoever sets `watch` stores it, and then changes gates; whoever changes a
 * gate then loads `watch`, and changes the gate again as long as the two
 * differ. So the last one to change a gate has loaded the final `watch`.
 * spec/model/watch.lua has these steps.
 *
 * A CACHE belongs to a thread's record. It is live from the thread's first use
 * of the pool to the thread's exit, which empties the cache and adds its
 * counters to the pool's. The next thread that adopts the record uses the cache
 * again. When the pool ends, its caches are taken out of all records, so that
 * no later pool finds them, but only the record's owner unmaps a cache, so that
 * a thread can always read its own.
 */
#ifndef BUFPOOL_CACHE_H
#define BUFPOOL_CACHE_H

#include "arena.h"
#include "depot.h"

/* The most checkouts from a shelf between two looks at the clock. bp_trim_due
 * begins with one, and doubles as long as they come in quick succession. */
#define SHELF_STRIDE 256

/* Leak detection, unless it was told how many: one checkout of so many, and for
 * one shelf no two within so many milliseconds. */
#define SAMPLE_AUTO 1024
#define SAMPLE_AUTO_APART 10

#define GATE_CLAIMED 1
#define GATE_CLOSED 2
#define GATE_RETIRED 4
#define GATE_FENCED 8
#define GATE_WATCHED 16
#define GATE_TO_EMPTY (GATE_CLOSED | GATE_RETIRED)
#define SHUT UINT32_MAX		/* value of empty_at; no count is above it */

/* Who owns a shelf: the address that identifies a thread. NULL: nobody. */
struct owner {
	_Atomic(const void *) token;
};

/*
 * Only the owner writes the counters, and any thread reads them. Summed over
 * all shelves and over caches.uncached, checkouts - releases == buffers out.
 */
struct bufpool_shelf {
	/* written by the owner all the time, by other threads rarely */
	_Alignas(64) _Atomic uint32_t count;	/* buffers on it */
	_Atomic uint32_t busy;
	_Atomic uint32_t gate;
	_Atomic uint32_t empty_at;	/* open: 0; shut: SHUT */
	_Atomic uint32_t full_at;	/* open: full; shut: 0 */
	uint32_t stride;	/* checkouts to the next look at the clock */
	_Atomic uint64_t checkouts;
	_Atomic uint64_t releases;
	_Atomic uint64_t misses;	/* checkouts that took fresh memory */
	uint64_t due;		/* `checkouts` at the next bp_trim_due, for a
				 * look or a sample */
	int64_t looked_at;	/* when the last one was, in milliseconds */
	/* read by every thread that releases a buffer, so on a line of its own,
	 * because the line above changes at each checkout. Written at creation,
	 * and the last three by the owner, at each sample */
	_Alignas(64) size_t size;	/* bytes of a buffer */
	const struct owner *owner;
	struct cache *cache;
	/* what a buffer put here names as its shelf: this one; where nodes are
	 * kept apart bp_cache_no_shelf, so that each release compares nodes */
	struct bufpool_shelf *named;
	uint32_t full;
	uint32_t class;
	int64_t sample_at;	/* `checkouts` at the next sample; may be
				 * negative, because fold_shelf begins these
				 * anew */
	uint64_t chance;	/* the generator that draws it; 0: none drawn */
	int64_t sampled_at;	/* when the last one was, in milliseconds */
	_Alignas(64) struct bufpool_buf *buf[SHELF_MAX];
};

/* The owner's, of a shelf: which checkout is the next sample of the sizes that
 * are asked for. Written once in so many checkouts. See requests.h. */
struct request_sample {
	int64_t at;		/* as sample_at of a shelf */
	uint64_t look;		/* `checkouts` at the next look at the clock */
	uint32_t distance;	/* checkouts from the last sample to the next */
	uint32_t apart;		/* the average that distances are drawn for;
				 * rises until it is REQUESTS_APART or more */
};

struct cache {
	uint64_t id;			/* of its pool */
	struct bufpool_arena *arena;	/* of its pool, or of a later one:
					 * bp_cache_hold compares ids */
	_Atomic uint64_t wiped_bytes;
	_Atomic uint64_t gc_returns;
	struct caches *caches;		/* of its pool */
	struct depot depot;
	struct cache_block *block;	/* the block that lists this cache */
	unsigned bit;			/* its place in the block */
	bool live;			/* owner only; where true, its bit in
					 * block->live is set */
	unsigned node;			/* whose buffers it holds */
	size_t bytes;			/* of this mapping */
	/* by class, `checkouts` when claim_one of checkout.c last found the
	 * shelf empty */
	_Atomic uint32_t seen[BUFPOOL_CLASSES_MAX];
	struct request_sample requests[BUFPOOL_CLASSES_MAX];
	uint64_t chance;	/* what their distances are drawn from */
	struct cache *next;		/* in a record's list of caches whose
					 * pools have ended: see thread.c */
	/* One for each class, and a last one that is always shut, of size
	 * SIZE_MAX, which every larger request finds. */
	struct bufpool_shelf shelf[];
};

#define CACHE_BLOCK 64		/* as many as a word has bits */

/* The parts of a cache that may hold buffers: for each class a shelf and a
 * depot. */
#define PART_SHELF(class) (class)
#define PART_DEPOT(class) (BUFPOOL_CLASSES_MAX + (class))
#define PARTS (2 * BUFPOOL_CLASSES_MAX)
#define PART_ALL PARTS

/*
 * MARKS. A search for buffers skips shelves and depots that are not marked.
 *
 * A shelf without a mark is shut and empty. The owner marks it while inside,
 * before it opens the shelf. Only a claimer takes the mark away, also while
 * inside, when it leaves the shelf empty. So the two exclude each other, by E
 * and C above.
 *
 * A depot without a mark is empty, or a push or an unmark is under way. The
 * owner pushes, fences, and sets the mark if it is missing. A taker that has
 * found the depot empty takes the mark away, fences, looks again, and sets the
 * mark if there is something. Each stores, fences and loads what the other
 * stores, so the owner finds the mark gone or the taker finds what was pushed.
 * A spill also sets the mark before its first push, so that others find its
 * first batches while it pushes the rest.
 */
struct cache_block {
	_Atomic uint64_t live;		/* bit i: cache[i] is live */
	_Atomic uint32_t used;	/* places given out; 64 or more: all are */
	struct cache_block *next;
	_Atomic(struct cache *) cache[CACHE_BLOCK];
	_Atomic uint64_t marked[PARTS];	/* bit i: that part of cache[i] is */
};

/*
 * All caches of one pool, and the counters of threads that have no cache.
 * Blocks are listed once, and unmapped with the pool. A walk over the caches
 * visits those that are live, or those that are marked, and costs two loads for
 * each block of 64.
 */
struct caches {
	uint64_t id;			/* the pool's; never used twice */
	uint32_t place;			/* the pool's, in each thread's array */
	/* first[i]: offset in a cache of the shelf of the smallest class that
	 * holds 2^i bytes, where the search for a request of 2^i to
	 * 2^(i+1) - 1 bytes begins */
	uint16_t first[64];
	const struct layout *layout;
	struct bufpool_arena *arena;
	_Atomic uint32_t closed;
	_Atomic uint32_t watch;		/* leak detection: BUFPOOL_LEAK_ */
	_Atomic uint32_t sample;	/* of so many checkouts, one; 0: auto */
	_Atomic(struct cache_block *) blocks;
	struct depot commons;
	/* counters of threads without a cache, and of threads that exited */
	struct {
		_Atomic uint64_t checkouts, releases, misses;
	} uncached[BUFPOOL_CLASSES_MAX];
	_Atomic uint64_t wiped_bytes, gc_returns;
};

/* A shut shelf that no thread owns. A buffer that no thread can release by the
 * fast path names it. */
extern struct bufpool_shelf bp_cache_no_shelf;

void bp_cache_init(void);	/* at load, and when a fork child settles */

/* Initialises caches whose layout, arena, id and place are filled in already;
 * -1 + ENOMEM. bp_caches_destroy undoes that, when no thread can reach them. */
int bp_caches_create(struct caches *cs);
void bp_caches_destroy(struct caches *cs);

/* An address that identifies the calling thread for as long as it lives. It is
 * found without a call. */
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

/* Adds n to a counter and returns the sum. Needs no atomic read-modify-write,
 * because only the calling thread writes the counter; others may read it. */
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

/* The shelf of the smallest class that holds n bytes; the last one, which is
 * shut, when n is above every class. */
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

/* Owner only: E4. True when the caller has to call bp_shelf_leave_slow. The
 * acquire pairs with C4: what a claimer has stored inside is seen. */
static inline bool
shelf_leave_fast(struct bufpool_shelf *s)
{
	hook("shelf: leaving");
	atomic_store_explicit(&s->busy, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	hook("shelf: left");
	return __builtin_expect(atomic_load_explicit(
	    &s->gate, memory_order_acquire) != 0, 0);
}

/* Owner only, after shelf_leave_fast: does what the gate calls for. Keeps
 * errno. */
void bp_shelf_leave_slow(struct bufpool_shelf *s);

/* Owner only: leaves, and does what the gate calls for. */
static inline void
shelf_leave(struct bufpool_shelf *s)
{
	if (shelf_leave_fast(s))
		bp_shelf_leave_slow(s);
}

/* Owner only: makes the next checkout from this shelf look at the clock. A
 * stride above 4 becomes 4, any other 0. From 4 bp_trim_due goes on with 8, or
 * with 1 if the last look was long ago; from 0 it goes on with 1. */
static inline void
shelf_look_soon(struct bufpool_shelf *s)
{
	s->stride = s->stride > SHELF_STRIDE / 64 ? SHELF_STRIDE / 64 : 0;
	s->due = counter_get(&s->checkouts) + 1;
	/* or bp_requests_due would end the call, as it does for a sample */
	s->cache->requests[s->class].look = 0;
}

/* How many buffers are on it; exact for whoever is inside. Any thread. */
static inline uint32_t
shelf_count(const struct bufpool_shelf *s)
{
	return atomic_load_explicit(&s->count, memory_order_relaxed);
}

/* Owner, inside: whether the shelf, of this count, is open and has a buffer.
 * E3. Who finds it open has opened it itself, and has seen then, by the load of
 * the gate, what a claimer did inside. So nothing is known to rest on the
 * acquire; it stays because it costs nothing on x86. */
static inline bool
shelf_has(const struct bufpool_shelf *s, uint32_t count)
{
	return count > atomic_load_explicit(&s->empty_at,
					    memory_order_acquire);
}

/* Owner: whether the shelf, of this count, is open and has room. E3. Outside
 * the answer is a guess. */
static inline bool
shelf_has_room(const struct bufpool_shelf *s, uint32_t count)
{
	return count < atomic_load_explicit(&s->full_at, memory_order_acquire);
}

/* Called by whoever is inside, with the shelf's count, which is not 0. */
static inline struct bufpool_buf *
shelf_pop(struct bufpool_shelf *s, uint32_t count)
{
	struct bufpool_buf *b = s->buf[count - 1];

	atomic_store_explicit(&s->count, count - 1, memory_order_relaxed);
	hook("shelf: popped");
	if (b == NULL)
		/* Not run: so callers need no test for NULL. */
		__builtin_unreachable();
	return b;
}

/* Called by whoever is inside, with the shelf's count, which is below full. */
static inline void
shelf_push(struct bufpool_shelf *s, uint32_t count, struct bufpool_buf *b)
{
	s->buf[count] = b;
	hook("shelf: pushed");
	atomic_store_explicit(&s->count, count + 1, memory_order_relaxed);
}

/* Called by whoever is inside. NULL when the shelf is empty. */
static inline struct bufpool_buf *
shelf_take(struct bufpool_shelf *s)
{
	uint32_t count = shelf_count(s);

	return count > 0 ? shelf_pop(s, count) : NULL;
}

/* Owner, inside. The buffer names s->named from then on. False when the shelf
 * is full. */
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

/* Owner only, in slow paths: enters, and opens the shelf unless FENCED or
 * WATCHED keep it shut. When the shelf is claimed or closed, leaves again and
 * returns false. */
bool bp_shelf_enter_slow(struct bufpool_shelf *s);

/* How a thread enters and leaves that is not the owner, or is the owner and
 * outside; it holds the pool. claim returns false when the owner or another
 * claimer is inside, when the owner has just opened the shelf, or when the
 * system refuses the fence. unclaim also
 * empties a shelf whose gate calls for that. */
bool bp_shelf_claim(struct bufpool_shelf *s);
void bp_shelf_unclaim(struct bufpool_shelf *s);

/* Owner, inside: moves the cold half to the depot, or to the arena when the
 * depot is full. */
void bp_shelf_spill(struct bufpool_shelf *s);

/* Makes a cache of a pool for the owner's record; it is listed, but not live.
 * NULL + ENOMEM. The caller holds the pool. */
struct cache *bp_cache_create(struct caches *cs, const struct owner *owner);

/* The record's owner only, once the pool is gone, or where creation failed. */
void bp_cache_destroy(struct cache *k);

/* Makes the gates say what `watch` of the pool says. Any thread that holds the
 * pool. */
void bp_cache_follow_watch(struct cache *k);

/* Owner only, for "sampled", when the shelf is due: if a sample has come due,
 * has the next checkout recorded. Makes the shelf due no later than the next
 * sample. */
void bp_shelf_sample(struct bufpool_shelf *s);

/* Owner only, for "sampled": the next checkout is to be recorded. */
void bp_shelf_watch(struct bufpool_shelf *s);

/* Owner only: takes back that the next checkout is to be recorded, unless all
 * are. True if it was to be. */
bool bp_shelf_unwatch(struct bufpool_shelf *s);

/* Of how many checkouts one is a sample, on average. */
static inline uint64_t
caches_sample(const struct caches *cs)
{
	uint64_t n = atomic_load_explicit(&cs->sample, memory_order_relaxed);

	return n != 0 ? n : SAMPLE_AUTO;
}

/* Draws, from random bits, the distance in checkouts to the next sample: from 1
 * to twice the average less 1. With a fixed distance, a program whose checkouts
 * alternate would have only one kind of them recorded. */
static inline uint64_t
caches_draw(const struct caches *cs, uint64_t random)
{
	return 1 + (random >> 33) % (2 * caches_sample(cs) - 1);
}

/* Takes a reference to the arena of k's pool, which holds the pool; false when
 * the pool is gone. Any thread that may read k. */
bool bp_cache_hold(const struct cache *k);

/* Makes the cache live, and closes it at once when the pool is closed. Owner
 * only, who holds the pool. */
void bp_cache_attach(struct cache *k);

/* Owner only: looks which node the thread runs on. If it has moved, the cached
 * buffers go to the depot, where threads of their node find them, except from a
 * shelf that is claimed just now. What comes from now on is of the new node. */
void bp_cache_find_node(struct cache *k);

/* Owner only: moves all buffers to the depot, except from a shelf that is
 * claimed just now. */
void bp_cache_flush(struct cache *k);

/* The last thing that an exiting thread does with its cache: moves all buffers
 * to the commons and makes the cache not live. Owner only, who holds the
 * pool. */
void bp_cache_retire(struct cache *k);

/* Sets CLOSED in all gates for good. Empties each shelf, or leaves that to
 * whoever is inside. The caller holds the pool. */
void bp_cache_close(struct cache *k);

/* In a fork child: moves what is ready in the depots, and what other threads
 * had cached, to the commons. */
void bp_caches_after_fork(struct caches *cs);

/* Puts CACHED buffers of one class into the commons, or gives them to the
 * system if the pool is closed. Any thread that holds the pool. */
void bp_caches_put_common(struct caches *cs, struct bufpool_buf *const *b,
			  uint32_t count);

/* Takes a batch from the depot of another thread, as bp_depot_take does. `own`
 * is the caller's cache; the search begins with the caches listed after it, so
 * that not all threads empty the same depot. NULL: searches all depots. The
 * caller holds the pool. */
uint32_t bp_caches_steal(struct caches *cs, const struct cache *own,
			 unsigned ring, struct bufpool_buf **to);

/* Takes one ready buffer of any node and thread, which is CACHED then and the
 * caller's, and puts the rest of its batch into the commons. NULL when there is
 * none. The caller holds the pool. */
struct bufpool_buf *bp_caches_take_one(struct caches *cs, unsigned class);

/* Gives what is in the commons back to the system. Any thread that holds the
 * pool. */
void bp_caches_drain_commons(struct caches *cs);

/* By the owner, after it has pushed to its depot. See MARKS. */
void bp_cache_mark_depot(struct cache *k, unsigned class);

/* A walk that visits each live cache once: all of them, or those that are
 * marked for a part. Any thread that holds the pool. */
struct cache_walk {
	struct cache_block *block;
	unsigned part;
	uint64_t left;		/* caches of the block not visited yet */
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

/* A walk over the caches that are listed after k. (Of bit 63 the shift makes 0,
 * and nothing of the block is left.) */
static inline struct cache_walk
caches_after(const struct cache *k, unsigned part)
{
	struct cache_walk w = { .block = k->block, .part = part };

	w.left = caches_of_block(w.block, part) &
	    ~(((uint64_t)2 << k->bit) - 1);
	return w;
}

/* The next cache of the walk; NULL at the end. */
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
