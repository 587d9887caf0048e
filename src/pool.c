#include <string.h>

#include "arena.h"
#include "pool.h"
#include "sanitize.h"
#include "thread.h"
#include "wipe.h"

#define SAMPLE_EVERY 16	/* refills: a sample reads all threads' counters */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum take {
	TAKE_READY,		/* only what is ready */
	TAKE_ANY,		/* or fresh memory */
	TAKE_THOUGH_CLOSED,	/* for what is out already, and grows */
};

static struct bufpool_buf *checkout_slow(struct bufpool *p, size_t n,
					 unsigned class, enum take take,
					 ptrdiff_t *fresh);
static struct bufpool_buf *checkout_exact(struct bufpool *p, size_t n,
					  unsigned align, enum take take,
					  ptrdiff_t *fresh);
static void release_slow(struct bufpool_buf *b, size_t wiped, bool by_gc);

/* From the caller's hands into the user's. */
static inline struct bufpool_buf *
hand_out(struct bufpool_buf *b, size_t n)
{
	ASAN_UNPOISON_MEMORY_REGION(b->base, b->capacity);
	buf_set_state(b, BUF_OUT);
	b->len = n;
	return b;
}

static inline __attribute__((always_inline)) struct bufpool_buf *
checkout(struct bufpool *p, size_t n, enum take take, ptrdiff_t *fresh)
{
	struct cache *k = thread_own_cache(p);
	unsigned class = pool_class(p, n);

	*fresh = 0;
	if (likely(k != NULL && class != CLASS_EXACT && cache_enter(k))) {
		struct bufpool_buf *b = cache_pop(k, class);

		if (likely(b != NULL))
			counter_add(&k->shelf[class].checkouts, 1);
		cache_leave(k);
		if (likely(b != NULL))
			return hand_out(b, n);
	}
	return checkout_slow(p, n, class, take, fresh);
}

static inline void
count_release(struct cache *k, unsigned class, size_t wiped, bool by_gc)
{
	counter_add(&k->shelf[class].releases, 1);
	if (wiped != 0)
		counter_add(&k->wiped_bytes, wiped);
	if (by_gc)
		counter_add(&k->gc_returns, 1);
}

/*
 * From the user's hands back. The caller has turned the state, so the buffer
 * is its alone, and it is wiped before anyone else can see it.
 */
static inline __attribute__((always_inline)) void
take_home(struct bufpool_buf *b, bool by_gc)
{
	struct cache *k = thread_own_cache(b->pool);
	unsigned class = b->class;
	size_t dirty = 0;

	buf_changed(b);
	if (likely(class < BUFPOOL_CLASSES_MAX)) {
		if (unlikely(b->at != b->base))
			buf_rewind(b);
		dirty = b->mark;
		if (dirty != 0)
			wipe(b->base, dirty);
		b->mark = 0;
		b->raw = b->granted = b->align = 0;
		ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
		if (likely(k != NULL && cache_enter(k))) {
			bool kept = cache_push(k, class, b);

			if (likely(kept))
				count_release(k, class, dirty, by_gc);
			cache_leave(k);
			if (likely(kept))
				return;
		}
	}
	release_slow(b, dirty, by_gc);
}

struct bufpool_buf *
bufpool_checkout(struct bufpool *p, size_t n)
{
	ptrdiff_t fresh;

	return checkout(p, n, TAKE_ANY, &fresh);
}

struct bufpool_buf *
bufpool_try_checkout(struct bufpool *p, size_t n)
{
	ptrdiff_t fresh;

	return checkout(p, n, TAKE_READY, &fresh);
}

void
bufpool_release(struct bufpool_buf *b)
{
	if (b == NULL)
		return;
	buf_turn(b, BUF_OUT, BUF_CACHED, BUF_GENERATION, "release");
	take_home(b, false);
}

void
buf_release_gc(struct bufpool_buf *b)
{
	buf_turn(b, BUF_OUT, BUF_CACHED, BUF_GENERATION, "release");
	take_home(b, true);
}

struct bufpool_buf *
bufpool_checkout_zeroed(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	if (b != NULL)
		wipe(b->base, b->capacity);
	return b;
}

/* Beyond the classes' own alignment the memory is a mapping of its own, which
 * no class could take back. */
static struct bufpool_buf *
checkout_at(struct bufpool *p, size_t n, unsigned align, enum take take,
	    ptrdiff_t *fresh)
{
	struct bufpool_buf *b = align <= POOL_ALIGN
	    ? checkout(p, n, take, fresh)
	    : checkout_exact(p, n, align, take, fresh);

	if (b != NULL)
		b->align = (uint8_t)align;
	return b;
}

struct bufpool_buf *
pool_checkout_larger(struct bufpool *p, size_t n, unsigned align,
		     ptrdiff_t *fresh)
{
	return checkout_at(p, n, align, TAKE_THOUGH_CLOSED, fresh);
}

struct bufpool_buf *
bufpool_checkout_aligned(struct bufpool *p, size_t n, size_t alignment)
{
	ptrdiff_t fresh;

	if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	return checkout_at(p, n, (unsigned)__builtin_ctzl(alignment),
			   TAKE_ANY, &fresh);
}

struct bufpool_frozen *
bufpool_freeze(struct bufpool_buf *b)
{
	atomic_store_explicit(&b->refs, 1, memory_order_relaxed);
	buf_turn(b, BUF_OUT, BUF_FROZEN, BUF_GENERATION, "freeze");
	buf_changed(b);
	return (struct bufpool_frozen *)b;
}

/* A frozen buffer is its descriptor under a name that only reads. */
static struct bufpool_buf *
thaw(const struct bufpool_frozen *f)
{
	return (struct bufpool_buf *)(uintptr_t)f;
}

const void *
bufpool_frozen_data(const struct bufpool_frozen *f)
{
	return thaw(f)->at;
}

size_t
bufpool_frozen_len(const struct bufpool_frozen *f)
{
	return thaw(f)->len;
}

struct bufpool_frozen *
bufpool_frozen_ref(struct bufpool_frozen *f)
{
	/* Relaxed: the caller has a reference, so the count cannot reach 0. */
	atomic_fetch_add_explicit(&thaw(f)->refs, 1, memory_order_relaxed);
	return f;
}

/* Each release of the count pairs with the acquire of the last one, which so
 * comes after every reader's last look. */
static void
unref(struct bufpool_buf *b, bool by_gc)
{
	uint32_t refs = atomic_fetch_sub_explicit(&b->refs, 1,
						  memory_order_acq_rel);

	if (refs > 1)
		return;
	buf_turn(b, refs == 1 ? BUF_FROZEN : BUF_STATE, BUF_CACHED,
		 BUF_GENERATION, "unref");
	take_home(b, by_gc);
}

void
bufpool_frozen_unref(struct bufpool_frozen *f)
{
	if (f != NULL)
		unref(thaw(f), false);
}

void
buf_unref_gc(struct bufpool_frozen *f)
{
	unref(thaw(f), true);
}

/*
 * The caller's cache where the fast path has not found it: a thread's first use
 * of the pool, or an exiting thread, which borrows an orphan's. NULL when there
 * is no memory for one.
 */
static struct cache *
find_cache(struct bufpool *p, struct thread **borrowed)
{
	struct thread *t = thread_self;

	*borrowed = NULL;
	if (t == NULL)
		t = thread_enroll();
	if (t == NULL)
		t = *borrowed = thread_borrow();
	return t != NULL ? thread_bind(t, p) : NULL;
}

/* Takes a ready buffer, the caller's own ring first; *from becomes the depot
 * that had it. Others are asked in an order that differs by thread, so that
 * not all empty the same one. */
static struct bufpool_buf *
steal(struct bufpool *p, struct cache *own, unsigned class,
      struct depot **from)
{
	struct thread *start = thread_self, *t = start;
	struct bufpool_buf *b;

	if (own != NULL) {
		*from = atomic_load(&own->depot);
		b = depot_take(*from, class);
		if (b != NULL)
			return b;
	}
	do {
		struct cache *k;

		t = thread_next(t);
		if (t == NULL)	/* round the end of the list */
			t = start != NULL ? thread_next(NULL) : NULL;
		if (t == NULL)
			break;
		k = thread_cache(t, p);
		if (k == NULL || k == own)
			continue;
		*from = atomic_load(&k->depot);
		b = depot_take(*from, class);
		if (b != NULL)
			return b;
	} while (t != start);
	return NULL;
}

/* One buffer for the caller, and half a shelf more for its next checkouts. */
static struct bufpool_buf *
refill(struct bufpool *p, struct cache *k, unsigned class)
{
	struct bufpool_buf *b, *more;
	struct depot *from;

	b = steal(p, k, class, &from);
	if (b == NULL || k == NULL || !cache_enter(k))
		return b;
	while (cache_count(k, class) + 1 < (k->shelf[class].limit + 1) / 2) {
		more = depot_take(from, class);
		if (more == NULL)
			break;
		cache_push(k, class, more);
	}
	if (k->refills++ % SAMPLE_EVERY == 0)
		pool_sample(p);
	cache_leave(k);
	return b;
}

/* From a cache whose owner is not inside. */
static struct bufpool_buf *
claim_one(struct bufpool *p, unsigned class)
{
	struct bufpool_buf *b = NULL;

	for (struct thread *t = thread_next(NULL); t && !b;
	     t = thread_next(t)) {
		struct cache *k = thread_cache(t, p);

		if (k == NULL || cache_count(k, class) == 0 || !cache_claim(k))
			continue;
		b = cache_pop(k, class);
		cache_unclaim(k);
	}
	return b;
}

/* Gives idle buffers of a class back until `excess` have gone. */
static size_t
give_back_class(struct bufpool *p, unsigned class, uint64_t excess)
{
	struct bufpool_buf *b;
	size_t bytes = 0;

	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		struct cache *k = thread_cache(t, p);
		struct depot *d;

		if (k == NULL)
			continue;
		d = atomic_load(&k->depot);
		while (excess > 0 && (b = depot_take(d, class)) != NULL) {
			arena_give(b);
			excess--;
			bytes += p->class_size[class];
		}
		if (excess == 0 || cache_count(k, class) == 0 ||
		    !cache_claim(k))
			continue;
		while (excess > 0 && (b = cache_pop(k, class)) != NULL) {
			arena_give(b);
			excess--;
			bytes += p->class_size[class];
		}
		cache_unclaim(k);
	}
	return bytes;
}

static size_t
give_back(struct bufpool *p, bool keep_floor)
{
	size_t bytes = 0;

	for (unsigned c = 0; c < p->classes; c++) {
		uint64_t idle = pool_cached(p, c) + pool_ready(p, c);
		uint64_t floor = keep_floor ? p->floor[c] : 0;

		if (idle > floor)
			bytes += give_back_class(p, c, idle - floor);
	}
	return bytes;
}

size_t
bufpool_trim(struct bufpool *p)
{
	return give_back(p, true);
}

/* Fresh memory, and when that fails, memory that lies idle in other classes
 * and in other threads' caches. */
static struct bufpool_buf *
take_fresh(struct bufpool *p, unsigned class, size_t n, unsigned align)
{
	for (;;) {
		struct bufpool_buf *b = class == CLASS_EXACT
		    ? arena_take_exact(p, n, (size_t)1 << align)
		    : arena_take(p, class);
		int failed = errno;

		if (b == NULL && class != CLASS_EXACT)
			b = claim_one(p, class);
		if (b != NULL || give_back(p, false) == 0) {
			errno = failed;
			return b;
		}
	}
}

static struct bufpool_buf *
checkout_exact(struct bufpool *p, size_t n, unsigned align, enum take take,
	       ptrdiff_t *fresh)
{
	struct bufpool_buf *b;

	if (n > PTRDIFF_MAX)
		errno = EOVERFLOW;
	else if (take != TAKE_THOUGH_CLOSED && atomic_load(&p->closed))
		errno = ESHUTDOWN;
	else if (take == TAKE_READY)
		errno = EAGAIN;
	else if ((b = take_fresh(p, CLASS_EXACT, n, align)) != NULL) {
		atomic_fetch_add_explicit(&p->exact_checkouts, 1,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&p->exact_out, 1,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&p->exact_bytes_out, b->span,
					  memory_order_relaxed);
		*fresh = (ptrdiff_t)b->span;
		pool_sample(p);
		return hand_out(b, n);
	}
	return NULL;
}

static void
count_checkout(struct bufpool *p, struct cache *k, unsigned class, bool miss)
{
	if (k != NULL) {
		counter_add(&k->shelf[class].checkouts, 1);
		counter_add(&k->shelf[class].misses, miss);
	} else {
		atomic_fetch_add(&p->stray[class].checkouts, 1);
		atomic_fetch_add(&p->stray[class].misses, miss);
	}
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_slow(struct bufpool *p, size_t n, unsigned class, enum take take,
	      ptrdiff_t *fresh)
{
	struct thread *borrowed;
	struct bufpool_buf *b;
	struct cache *k;
	bool miss = false;

	if (class == CLASS_EXACT)
		return checkout_exact(p, n, 0, take, fresh);
	if (take != TAKE_THOUGH_CLOSED && atomic_load(&p->closed)) {
		errno = ESHUTDOWN;
		return NULL;
	}
	k = find_cache(p, &borrowed);
	b = refill(p, k, class);
	if (b == NULL && take == TAKE_READY) {
		b = claim_one(p, class);
		errno = EAGAIN;
	} else if (b == NULL) {
		b = take_fresh(p, class, 0, 0);
		miss = b != NULL;
		*fresh = miss ? (ptrdiff_t)p->class_size[class] : 0;
	}
	if (b != NULL)
		count_checkout(p, k, class, miss);
	if (borrowed != NULL)
		thread_give_up(borrowed);
	if (b == NULL)
		return NULL;
	if (miss)
		pool_sample(p);
	return hand_out(b, n);
}

struct bufpool_buf *
pool_checkout_bare(struct bufpool *p)
{
	struct bufpool_buf *b = buf_create(p);

	if (b != NULL) {
		atomic_fetch_add(&p->alive, 1);
		buf_set_state(b, BUF_OUT);
	}
	return b;
}

/* A full shelf spills; a cache that is not the owner's now is passed by, into
 * the depot; a full depot is passed by, into the arena. */
static void
put_away(struct cache *k, unsigned class, struct bufpool_buf *b, bool borrowed)
{
	if (k == NULL || (atomic_load(&k->gate) & GATE_CLOSED)) {
		arena_give(b);
	} else if (!borrowed && cache_enter(k)) {
		if (!cache_push(k, class, b)) {
			cache_spill(k, class);
			cache_push(k, class, b);
		}
		cache_leave(k);
	} else {
		if (!depot_push(atomic_load(&k->depot), class, b))
			arena_give(b);
		cache_leave(k);
	}
}

static __attribute__((noinline)) void
release_slow(struct bufpool_buf *b, size_t wiped, bool by_gc)
{
	struct bufpool *p = b->pool;
	unsigned class = b->class;
	struct thread *borrowed;
	int saved = errno;
	struct cache *k;

	if (class == CLASS_NONE) {
		buf_destroy(b);
		pool_drop(p);
	} else if (class == CLASS_EXACT) {
		atomic_fetch_sub_explicit(&p->exact_out, 1,
					  memory_order_relaxed);
		atomic_fetch_sub_explicit(&p->exact_bytes_out, b->span,
					  memory_order_relaxed);
		if (by_gc)
			atomic_fetch_add_explicit(&p->exact_gc_returns, 1,
						  memory_order_relaxed);
		arena_give(b);
	} else {
		k = find_cache(p, &borrowed);
		if (k != NULL)
			count_release(k, class, wiped, by_gc);
		else
			atomic_fetch_add(&p->stray[class].releases, 1);
		put_away(k, class, b, borrowed != NULL);
		if (borrowed != NULL)
			thread_give_up(borrowed);
	}
	errno = saved;
}
