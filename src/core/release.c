#include <errno.h>

#include "forked.h"
#include "home.h"
#include "release.h"
#include "sites.h"
#include "trim.h"
#include "wipe.h"

#define unlikely(x) __builtin_expect(!!(x), 0)
#define DIRTY 4096	/* bytes that cost more to wipe than a system call */

static void release_foreign(struct bufpool_buf *b, bool by_gc);
static void release_dirty(struct bufpool_buf *b, struct bufpool_shelf *s,
			  bool by_gc);
static void release_wiping(struct bufpool_buf *b, struct bufpool_shelf *s,
			   bool by_gc);
static void release_full_slow(struct bufpool_buf *b, struct bufpool_shelf *s,
			      bool by_gc);
static void release_slow(struct bufpool_buf *b, bool by_gc);

/* Puts a wiped buffer on a shelf of the caller's. */
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
 * The caller has turned the state to CACHED, so the buffer is the caller's
 * alone, and is wiped before anyone else can see it.
 */
static inline __attribute__((always_inline)) void
release_fast(struct bufpool_buf *b, bool by_gc)
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
	release_fast(b, false);
}

void
bp_release_gc(struct bufpool_buf *b)
{
	buf_turn_cached(b);
	release_fast(b, true);
}

void
bp_release_turned(struct bufpool_buf *b, bool by_gc)
{
	release_fast(b, by_gc);
}

/* Up to WIPE_SHORT bytes are wiped without a call, so without a stack frame. */
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

/* When the shelf has no room, the buffer is not wiped here, because it may go
 * to the system, which clears it anyway. */
static __attribute__((noinline)) void
release_wiping(struct bufpool_buf *b, struct bufpool_shelf *s, bool by_gc)
{
	if (unlikely(!shelf_has_room(s, shelf_count(s)))) {
		release_slow(b, by_gc);
		return;
	}
	counter_add(&s->cache->wiped_bytes, buf_clean(b));
	release_wiped(b, s, by_gc);
}

/* Puts a buffer that another thread checked out on a shelf of the caller's. */
static __attribute__((noinline)) void
release_foreign(struct bufpool_buf *b, bool by_gc)
{
	struct cache *k = thread_own_cache(b->place);
	struct bufpool_shelf *s;

	if (unlikely(b->class >= BUFPOOL_CLASSES_MAX || k == NULL ||
		     k->node != b->node)) {
		release_slow(b, by_gc);
		return;
	}
	s = &k->shelf[b->class];
	if (unlikely(!shelf_has_room(s, shelf_count(s)))) {
		release_slow(b, by_gc);
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
	release_slow(b, by_gc);
}

/* Puts the buffer on the shelf, which spills first if it is full. When the
 * shelf is claimed or closed, or the buffer is of another node, puts it into
 * the depot; when the depot is full, it goes to the arena. */
static void
spill_one(struct bufpool *p, struct cache *k, struct bufpool_buf *b)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	if (b->node == k->node && bp_shelf_open(s)) {
		bool full = !shelf_put(s, b);

		if (full) {
			bp_shelf_spill(s);
			shelf_put(s, b);
		}
		shelf_leave(s);
		if (full)
			bp_trim_spilled(p, s);
	} else {
		bp_depot_put(&k->depot, &b, 1);
		bp_cache_mark_depot(k, s->class);
		shelf_leave(s);
	}
}

/* Whether this buffer goes to the system now. True when the pool is closed, and
 * when shelf and depot are full, so that some buffer has to go, and this one is
 * dirty: the system clears its pages, so that they need not be wiped. */
static bool
leaves_now(struct bufpool *p, struct cache *k, const struct bufpool_buf *b)
{
	const struct bufpool_shelf *s = &k->shelf[b->class];
	unsigned ring = layout_ring(&p->layout, b->node, b->class);

	if (atomic_load(&s->gate) & GATE_CLOSED)
		return true;
	return b->mark >= DIRTY && bp_depot_room(&k->depot, ring) == 0 &&
	    (b->node != k->node || shelf_count(s) >= s->full);
}

static void
release_cached(struct bufpool *p, struct cache *k, struct bufpool_buf *b,
	       bool by_gc)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	sites_forget(b, by_gc);
	counter_add(&s->releases, 1);
	counter_add(&k->gc_returns, by_gc);
	if (leaves_now(p, k, b)) {
		bp_arena_give(b);
		bp_trim_spilled(p, s);
		return;
	}
	counter_add(&k->wiped_bytes, buf_clean(b));
	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	spill_one(p, k, b);
}

/* The first call in a fork child settles its pools. The buffer that is being
 * released has not come home yet, so it counts as out meanwhile. */
static void
settle_before(struct bufpool_buf *b)
{
	buf_set_state(b, BUF_OUT);
	bp_forked_settle_slow();
	buf_set_state(b, BUF_CACHED);
}

/* A release for which the shelf has no room, or which cannot use it. Holds the
 * pool, because b's reference may be its last. */
static __attribute__((noinline)) void
release_slow(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool *p = pool_of(b);
	int saved = errno;
	struct cache *k;

	if (forked_pending())
		settle_before(b);
	arena_ref(&p->arena);
	if (b->class < BUFPOOL_CLASSES_MAX &&
	    (k = bp_thread_cache(&p->caches)) != NULL)
		release_cached(p, k, b, by_gc);
	else {
		bp_home_uncached(b, by_gc);
		bp_trim_released(p);
	}
	bp_arena_drop(&p->arena);
	errno = saved;
}

static void
frozen_unref(struct bufpool_buf *b, bool by_gc)
{
	if (buf_unref(b))
		release_fast(b, by_gc);
}

void
bufpool_frozen_unref(struct bufpool_frozen *f)
{
	if (f != NULL)
		frozen_unref(buf_thaw(f), false);
}

void
bp_frozen_unref_gc(struct bufpool_frozen *f)
{
	frozen_unref(buf_thaw(f), true);
}
