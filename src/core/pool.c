
#include "arena.h"
#include "pool.h"
#include "sanitize.h"
#include "thread.h"
#include "wipe.h"

#define LOOK_EVERY 16	/* refills and spills: looking reads all caches */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum take {
	TAKE_READY,		/* only what is ready */
	TAKE_ANY,		/* or fresh memory */
	TAKE_THOUGH_CLOSED,	/* for what is out already, and grows */
};

static struct bufpool_buf *checkout_slow(struct bufpool *p, size_t n,
					 enum take take);
static struct bufpool_buf *checkout_empty(struct bufpool_shelf *s,
					  struct bufpool *p, size_t n,
					  enum take take);
static struct bufpool_buf *checkout_called(struct bufpool_shelf *s,
					   struct bufpool_buf *b, size_t n);
static struct bufpool_buf *checkout_due(struct bufpool_shelf *s,
					struct bufpool_buf *b, size_t n);
static struct bufpool_buf *checkout_exact(struct bufpool *p, size_t n,
					  unsigned align, enum take take);
static void release_dirty(struct bufpool_buf *b, struct bufpool_shelf *s,
			  bool by_gc);
static void release_foreign(struct bufpool_buf *b, bool by_gc);
static void release_full(struct bufpool_buf *b, struct bufpool_shelf *s,
			 bool by_gc);
static void release_slow(struct bufpool_buf *b, bool by_gc);

/* From the caller's hands into the user's. */
static inline struct bufpool_buf *
hand_out(struct bufpool_buf *b, size_t n)
{
	ASAN_UNPOISON_MEMORY_REGION(b->base, b->capacity);
	hook("checkout: handing out");
	own_add(&b->word, BUF_OUT - BUF_CACHED);
	b->len = n;
	return b;
}

/*
 * The hot path. Whatever is not the common case ends in a call that returns for
 * it, so that the common case needs no stack frame.
 */
static inline __attribute__((always_inline)) struct bufpool_buf *
checkout(struct bufpool *p, size_t n, enum take take)
{
	struct cache *k = thread_own_cache(p);
	struct bufpool_shelf *s;
	struct bufpool_buf *b;
	uint32_t count;

	if (unlikely(k == NULL))
		return checkout_slow(p, n, take);
	s = pool_shelf(p, k, n);
	shelf_enter(s);
	count = shelf_count(s);
	if (unlikely(!is_below(&s->least, count)))
		return checkout_empty(s, p, n, take);
	b = shelf_pop(s, count);
	if (unlikely(shelf_exit(s)))
		return checkout_called(s, b, n);
	if (unlikely(own_count_down(&s->left)))
		return checkout_due(s, b, n);
	return hand_out(b, n);
}

/* A wiped buffer that belongs on this shelf of the caller's. */
static inline __attribute__((always_inline)) void
release_wiped(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	shelf_enter(s);
	if (unlikely(!shelf_push(s, b, atomic_load_explicit(
				     &s->limit, memory_order_acquire)))) {
		release_full(b, s, by_gc);
		return;
	}
	own_add(&s->releases, 1);
	if (by_gc)
		own_add(&s->cache->gc_returns, 1);
	if (unlikely(shelf_exit(s)))
		shelf_leave_slow(s);
}

/*
 * From the user's hands back. The caller has turned the state, so the buffer
 * is its alone, and it is wiped before anyone else can see it.
 */
static inline __attribute__((always_inline)) void
take_home(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool_shelf *s = b->shelf;

	hook("release: turned");
	buf_changed(b);
	if (unlikely(!thread_is_own(s->thread)))
		release_foreign(b, by_gc);
	else if ((b->mark | b->extras) != 0)
		release_dirty(b, s, by_gc);
	else
		release_wiped(b, s, by_gc);
}

/* Wipes what was written: from here on all of the memory is zero. */
static inline void
clean(struct bufpool_buf *b, _Atomic uint64_t *wiped)
{
	if (unlikely(b->consumed))
		buf_rewind(b);
	wipe_lines(b->at, b->mark);
	hook("release: wiped");
	if (wiped != NULL)
		own_add(wiped, b->mark);
	b->mark = 0;
	b->extras = 0;
}

static __attribute__((noinline)) void
release_dirty(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	clean(b, &s->cache->wiped_bytes);
	release_wiped(b, s, by_gc);
}

/* A buffer that another thread checked out goes on a shelf of the caller's. */
static __attribute__((noinline)) void
release_foreign(struct bufpool_buf *b, bool by_gc)
{
	struct cache *k = atomic_load_explicit(
	    &thread_self->caches[b->slot], memory_order_relaxed);
	struct bufpool_shelf *s;

	if (unlikely(b->class >= BUFPOOL_CLASSES_MAX || k == NULL ||
		     k->node != b->node ||
		     atomic_load_explicit(&k->pool_id, memory_order_relaxed) !=
		     b->pool->id)) {
		release_slow(b, by_gc);
		return;
	}
	s = &k->shelf[b->class];
	clean(b, &k->wiped_bytes);
	b->shelf = s->home;
	release_wiped(b, s, by_gc);
}

struct bufpool_buf *
bufpool_checkout(struct bufpool *p, size_t n)
{
	return checkout(p, n, TAKE_ANY);
}

struct bufpool_buf *
bufpool_try_checkout(struct bufpool *p, size_t n)
{
	return checkout(p, n, TAKE_READY);
}

void
bufpool_release(struct bufpool_buf *b)
{
	if (b == NULL)
		return;
	buf_turn_home(b);
	take_home(b, false);
}

void
buf_release_gc(struct bufpool_buf *b)
{
	buf_turn_home(b);
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
checkout_at(struct bufpool *p, size_t n, unsigned align, enum take take)
{
	struct bufpool_buf *b = align <= POOL_ALIGN
	    ? checkout(p, n, take)
	    : checkout_exact(p, n, align, take);

	if (b != NULL)
		b->align = (uint8_t)align;
	return b;
}

struct bufpool_buf *
pool_checkout_larger(struct bufpool *p, size_t n, unsigned align)
{
	return checkout_at(p, n, align, TAKE_THOUGH_CLOSED);
}

struct bufpool_buf *
bufpool_checkout_aligned(struct bufpool *p, size_t n, size_t alignment)
{
	if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	return checkout_at(p, n, (unsigned)__builtin_ctzl(alignment),
			   TAKE_ANY);
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
	struct thread *t = thread_enrolled() ? thread_self : thread_enroll();

	*borrowed = NULL;
	if (t == NULL)
		t = *borrowed = thread_borrow();
	return t != NULL ? thread_bind(t, p) : NULL;
}

/* A thread that has moved to another node takes its buffers from there, and
 * leaves those of the old one where that node's threads look first. */
static void
find_node(struct bufpool *p, struct cache *k)
{
	unsigned node;

	if (p->nodes == 1)
		return;
	node = arena_node(p);
	if (node != k->node) {
		cache_flush(k);
		k->node = node;
	}
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_empty(struct bufpool_shelf *s, struct bufpool *p, size_t n,
	       enum take take)
{
	shelf_leave(s);
	return checkout_slow(p, n, take);
}

static __attribute__((noinline)) void
release_full(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	shelf_leave(s);
	release_slow(b, by_gc);
}

/* The pool was closed meanwhile, or the shelf is claimed. */
static __attribute__((noinline)) struct bufpool_buf *
checkout_called(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	shelf_leave_slow(s);
	if (own_count_down(&s->left))
		return checkout_due(s, b, n);
	return hand_out(b, n);
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_due(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	shelf_renew(s);
	find_node(b->pool, s->cache);
	pool_look_around(b->pool);
	return hand_out(b, n);
}

static void
look_now_and_then(struct bufpool *p, struct cache *k)
{
	if (k->moves++ % LOOK_EVERY == 0)
		pool_look_around(p);
}

/* Takes a ready buffer of a node, the caller's own ring first; *from becomes
 * the depot that had it. Others are asked in an order that differs by thread,
 * so that not all empty the same one. */
static struct bufpool_buf *
steal(struct bufpool *p, struct cache *own, unsigned ring, struct depot **from)
{
	struct thread *start = thread_enrolled() ? thread_self : NULL;
	struct thread *t = start;
	struct bufpool_buf *b;

	if (own != NULL) {
		*from = atomic_load(&own->depot);
		b = depot_take(*from, ring);
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
		hook("steal: found a cache");
		*from = atomic_load(&k->depot);
		b = depot_take(*from, ring);
		if (b != NULL)
			return b;
	} while (t != start);
	return NULL;
}

/* Onto a shelf of the caller's own, who is inside. */
static bool
put_on_shelf(struct bufpool_shelf *s, struct bufpool_buf *b)
{
	b->shelf = s->home;
	return shelf_push(s, b, s->full);
}

/* One buffer for the caller, and half a shelf more for its next checkouts. A
 * shelf that was shut may still have some. */
static struct bufpool_buf *
refill(struct bufpool *p, struct cache *k, unsigned class)
{
	unsigned ring = pool_ring(p, k ? k->node : arena_node(p), class);
	struct bufpool_shelf *s = k ? &k->shelf[class] : NULL;
	struct bufpool_buf *b = NULL, *more[SHELF_MAX];
	struct depot *from;
	uint32_t count = 0;

	if (s != NULL && shelf_count(s) > 0 && shelf_open(s)) {
		b = shelf_take(s);
		shelf_leave(s);
	}
	if (b != NULL)
		return b;
	b = steal(p, k, ring, &from);
	if (b == NULL || s == NULL || !shelf_open(s))
		return b;
	if (shelf_count(s) + 1 < (s->full + 1) / 2)
		count = depot_take_some(from, ring, more,
		    (s->full + 1) / 2 - 1 - shelf_count(s));
	while (count > 0)
		put_on_shelf(s, more[--count]);
	shelf_leave(s);
	look_now_and_then(p, k);
	return b;
}

/* A ready buffer of whatever node: rather than none. */
static struct bufpool_buf *
take_elsewhere(struct bufpool *p, unsigned class)
{
	struct bufpool_buf *b = NULL;
	struct depot *from;

	for (unsigned node = 0; node < p->nodes && b == NULL; node++)
		b = steal(p, NULL, pool_ring(p, node, class), &from);
	return b;
}

/* From a shelf whose owner is not inside. */
static struct bufpool_buf *
claim_one(struct bufpool *p, unsigned class)
{
	struct bufpool_buf *b = NULL;

	for (struct thread *t = thread_next(NULL); t && !b;
	     t = thread_next(t)) {
		struct cache *k = thread_cache(t, p);
		struct bufpool_shelf *s = k ? &k->shelf[class] : NULL;

		if (s == NULL || shelf_count(s) == 0 || !shelf_claim(s))
			continue;
		b = shelf_take(s);
		hook("claim: popped");
		shelf_unclaim(s);
	}
	return b;
}

/* Fresh memory, and when that fails, memory that lies idle in other classes
 * and in other threads' caches. */
static struct bufpool_buf *
take_fresh(struct bufpool *p, unsigned class, unsigned node, bool *miss)
{
	for (;;) {
		struct bufpool_buf *b = arena_take(p, class, node);
		int failed = errno;

		*miss = b != NULL;
		if (b == NULL)
			b = take_elsewhere(p, class);
		if (b == NULL)
			b = claim_one(p, class);
		if (b != NULL || pool_give_back(p) == 0) {
			errno = failed;
			return b;
		}
	}
}

static struct bufpool_buf *
take_exact(struct bufpool *p, size_t n, unsigned align)
{
	for (;;) {
		struct bufpool_buf *b = arena_take_exact(p, n,
							 (size_t)1 << align);
		int failed = errno;

		if (b != NULL || pool_give_back(p) == 0) {
			errno = failed;
			return b;
		}
	}
}

static struct bufpool_buf *
checkout_exact(struct bufpool *p, size_t n, unsigned align, enum take take)
{
	struct bufpool_buf *b;

	if (n > PTRDIFF_MAX)
		errno = EOVERFLOW;
	else if (take != TAKE_THOUGH_CLOSED && atomic_load(&p->closed))
		errno = ESHUTDOWN;
	else if (take == TAKE_READY)
		errno = EAGAIN;
	else if ((b = take_exact(p, n, align)) != NULL) {
		atomic_fetch_add_explicit(&p->exact.checkouts, 1,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&p->exact.bytes_taken, buf_size(b),
					  memory_order_relaxed);
		pool_sample(p);
		return hand_out(b, n);
	}
	return NULL;
}

static void
count_checkout(struct bufpool *p, struct cache *k, unsigned class, bool miss)
{
	if (miss)
		atomic_store_explicit(&p->was_short[class], 1,
				      memory_order_relaxed);
	if (k != NULL) {
		if (own_count_down(&k->shelf[class].left)) {
			shelf_renew(&k->shelf[class]);
			pool_look_around(p);
		}
		own_add(&k->shelf[class].misses, miss);
	} else {
		atomic_fetch_add(&p->stray[class].checkouts, 1);
		atomic_fetch_add(&p->stray[class].misses, miss);
	}
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_slow(struct bufpool *p, size_t n, enum take take)
{
	unsigned class = pool_class(p, n);
	struct thread *borrowed;
	struct bufpool_buf *b;
	struct cache *k, *own;	/* own: not borrowed for this one checkout */
	bool miss = false;

	if (class == CLASS_EXACT)
		return checkout_exact(p, n, 0, take);
	if (take != TAKE_THOUGH_CLOSED && atomic_load(&p->closed)) {
		errno = ESHUTDOWN;
		return NULL;
	}
	k = find_cache(p, &borrowed);
	own = borrowed == NULL ? k : NULL;
	if (own != NULL)
		find_node(p, own);
	b = refill(p, own, class);
	if (b == NULL && take == TAKE_READY) {
		b = take_elsewhere(p, class);
		if (b == NULL)
			b = claim_one(p, class);
		errno = EAGAIN;
	} else if (b == NULL) {
		b = take_fresh(p, class, own ? own->node : arena_node(p),
			       &miss);
	}
	if (b != NULL) {
		count_checkout(p, k, class, miss);
		b->shelf = own != NULL ? own->shelf[class].home
				       : &cache_no_shelf;
	}
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

/* A full shelf spills; a shelf that is not the owner's now, and a buffer of
 * another node, are passed by, into the depot; a full depot is passed by, into
 * the arena. */
static void
put_away(struct cache *k, struct bufpool_buf *b, bool borrowed)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	if (atomic_load(&s->gate) & GATE_CLOSED) {
		arena_give(b);
	} else if (!borrowed && b->node == k->node && shelf_open(s)) {
		if (!put_on_shelf(s, b)) {
			shelf_spill(s);
			/* now, for it is b that holds the pool */
			look_now_and_then(b->pool, k);
			put_on_shelf(s, b);
		}
		shelf_leave(s);
	} else {
		if (!depot_push(atomic_load(&k->depot),
				pool_ring(b->pool, b->node, b->class), b))
			arena_give(b);
		shelf_leave(s);
	}
}

static void
release_exact(struct bufpool *p, struct bufpool_buf *b, bool by_gc)
{
	atomic_fetch_add_explicit(&p->exact.releases, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->exact.bytes_returned, buf_size(b),
				  memory_order_relaxed);
	if (by_gc)
		atomic_fetch_add_explicit(&p->exact.gc_returns, 1,
					  memory_order_relaxed);
	arena_give(b);
}

static __attribute__((noinline)) void
release_slow(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool *p = b->pool;
	struct thread *borrowed;
	int saved = errno;
	struct cache *k;

	if (b->class == CLASS_NONE) {
		buf_destroy(b);
		pool_drop(p);
	} else if (b->class == CLASS_EXACT) {
		release_exact(p, b, by_gc);
	} else if ((k = find_cache(p, &borrowed)) != NULL) {
		clean(b, &k->wiped_bytes);
		own_add(&k->shelf[b->class].releases, 1);
		own_add(&k->gc_returns, by_gc);
		put_away(k, b, borrowed != NULL);
		if (borrowed != NULL)
			thread_give_up(borrowed);
	} else {
		clean(b, NULL);
		atomic_fetch_add(&p->stray[b->class].releases, 1);
		arena_give(b);
	}
	errno = saved;
}
