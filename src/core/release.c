#include "release.h"
#include "checkout.h"
#include "spill.h"
#include "wipe.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

static struct bufpool_buf *checkout_empty_slow(struct bufpool_shelf *s,
					       struct bufpool *p, size_t n,
					       unsigned take);
static struct bufpool_buf *checkout_called_slow(struct bufpool_shelf *s,
						struct bufpool_buf *b,
						size_t n);
static struct bufpool_buf *checkout_due_slow(struct bufpool_shelf *s,
					     struct bufpool_buf *b, size_t n);

/*
 * Whatever is not the common case ends in a call that returns for it, so that
 * the common case needs no stack frame.
 */
static inline __attribute__((always_inline)) struct bufpool_buf *
checkout(struct bufpool *p, size_t n, unsigned take)
{
	struct cache *k = thread_own_cache(p->caches.place);
	struct bufpool_shelf *s;
	struct bufpool_buf *b;
	uint32_t count;

	if (unlikely(k == NULL))
		return bp_checkout_slow(p, n, take);
	s = cache_shelf(&p->caches, k, n);
	shelf_enter(s);
	count = shelf_count(s);
	if (unlikely(!shelf_has(s, count)))
		return checkout_empty_slow(s, p, n, take);
	b = shelf_pop(s, count);
	if (unlikely(shelf_exit(s)))
		return checkout_called_slow(s, b, n);
	if (unlikely(counter_add(&s->checkouts, 1) >= s->due))
		return checkout_due_slow(s, b, n);
	return buf_turn_out(b, n);
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

static __attribute__((noinline)) struct bufpool_buf *
checkout_empty_slow(struct bufpool_shelf *s, struct bufpool *p, size_t n,
		    unsigned take)
{
	shelf_leave(s);
	return bp_checkout_slow(p, n, take);
}

/* The pool was closed meanwhile, or the shelf is claimed. */
static __attribute__((noinline)) struct bufpool_buf *
checkout_called_slow(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	bp_shelf_leave_slow(s);
	if (counter_add(&s->checkouts, 1) >= s->due)
		return checkout_due_slow(s, b, n);
	return buf_turn_out(b, n);
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_due_slow(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	bp_cache_maintain_slow(pool_of(b), s);
	return buf_turn_out(b, n);
}

static void release_foreign(struct bufpool_buf *b, bool by_gc);
static void release_dirty(struct bufpool_buf *b, struct bufpool_shelf *s,
			  bool by_gc);
static void release_wiping(struct bufpool_buf *b, struct bufpool_shelf *s,
			   bool by_gc);
static void release_full_slow(struct bufpool_buf *b, struct bufpool_shelf *s,
			      bool by_gc);

/* A buffer that is wiped, onto a shelf of the caller's. */
static inline __attribute__((always_inline)) void
release_wiped(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	uint32_t count;

	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	shelf_enter(s);
	count = shelf_count(s);
	if (unlikely(!shelf_has_room(s, count))) {
		release_full_slow(b, s, by_gc);
		return;
	}
	shelf_push(s, count, b);
	counter_add(&s->releases, 1);
	if (by_gc)
		counter_add(&s->cache->gc_returns, 1);
	if (unlikely(shelf_exit(s)))
		bp_shelf_leave_slow(s);
}

/*
 * The caller has turned the state, so the buffer is its alone, and it is wiped
 * before anyone else can see it.
 */
static inline __attribute__((always_inline)) void
release(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool_shelf *s = b->shelf;

	hook("release: turned");
	buf_changed(b);
	if (unlikely(!owner_is_self(s->owner)))
		release_foreign(b, by_gc);
	else if ((b->mark | b->flags) != 0)
		release_dirty(b, s, by_gc);
	else
		release_wiped(b, s, by_gc);
}

void
bufpool_release(struct bufpool_buf *b)
{
	if (b == NULL)
		return;
	buf_turn_cached(b);
	release(b, false);
}

void
bp_release_gc(struct bufpool_buf *b)
{
	buf_turn_cached(b);
	release(b, true);
}

void
bp_release_turned(struct bufpool_buf *b, bool by_gc)
{
	release(b, by_gc);
}

/* What is short is wiped without a call, and so without a stack frame. */
static __attribute__((noinline)) void
release_dirty(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	if (b->mark > WIPE_SHORT || unlikely(b->consumed)) {
		release_wiping(b, s, by_gc);
		return;
	}
	counter_add(&s->cache->wiped_bytes, buf_clean(b));
	release_wiped(b, s, by_gc);
}

/* Without room on the shelf it may leave for the system, unwiped. */
static __attribute__((noinline)) void
release_wiping(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	if (unlikely(!shelf_has_room(s, shelf_count(s)))) {
		bp_release_slow(b, by_gc);
		return;
	}
	counter_add(&s->cache->wiped_bytes, buf_clean(b));
	release_wiped(b, s, by_gc);
}

/* A buffer that another thread checked out goes on a shelf of the caller's. */
static __attribute__((noinline)) void
release_foreign(struct bufpool_buf *b, bool by_gc)
{
	struct cache *k = thread_own_cache(b->place);
	struct bufpool_shelf *s;

	if (unlikely(b->class >= BUFPOOL_CLASSES_MAX || k == NULL ||
		     k->node != b->node)) {
		bp_release_slow(b, by_gc);
		return;
	}
	s = &k->shelf[b->class];
	if (unlikely(!shelf_has_room(s, shelf_count(s)))) {
		bp_release_slow(b, by_gc);
		return;
	}
	counter_add(&k->wiped_bytes, buf_clean(b));
	b->shelf = s->named;
	release_wiped(b, s, by_gc);
}

static __attribute__((noinline)) void
release_full_slow(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	shelf_leave(s);
	bp_release_slow(b, by_gc);
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
struct bufpool_buf *
bp_checkout_at(struct bufpool *p, size_t n, unsigned align, unsigned take)
{
	struct bufpool_buf *b = align <= LAYOUT_GRAIN_LOG
	    ? checkout(p, n, take)
	    : bp_checkout_large_slow(p, n, align, take);

	if (b != NULL)
		b->align = (uint8_t)align;
	return b;
}

struct bufpool_buf *
bufpool_checkout_aligned(struct bufpool *p, size_t n, size_t alignment)
{
	if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	return bp_checkout_at(p, n, (unsigned)__builtin_ctzl(alignment),
			      TAKE_ANY);
}
