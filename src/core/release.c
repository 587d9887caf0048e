#include <errno.h>

#include "forked.h"
#include "home.h"
#include "release.h"
#include "sites.h"
#include "trim.h"
#include "wipe.h"

#define unlikely(x) __builtin_expect(!!(x), 0)
#define DIRTY 4096	/* a buffer with as many written bytes goes to the
			 * system itself, when one has to go */

static void release_foreign(struct bufpool_buf *b, uintptr_t from);
static void release_short(struct bufpool_buf *b, struct bufpool_shelf *s,
			  uintptr_t from);
static void release_long(struct bufpool_buf *b, struct bufpool_shelf *s,
			 uintptr_t from);
static void release_full_slow(struct bufpool_buf *b, struct bufpool_shelf *s,
			      uintptr_t from);
static void release_slow(struct bufpool_buf *b, uintptr_t from);

/* Puts a wiped buffer on a shelf of the caller's. False where that has no room:
 * then the caller is still inside, and ends with release_full_slow. */
static inline __attribute__((always_inline)) bool
release_wiped(struct bufpool_buf *b, struct bufpool_shelf *s, uintptr_t from)
{
	uint32_t count;

	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	shelf_enter(s);
	count = shelf_count(s);
	if (unlikely(!shelf_has_room(s, count)))
		return false;
	shelf_push(s, count, b);
	counter_add(&s->releases, 1);
	if (from == SITE_GC)
		counter_add(&s->cache->gc_returns, 1);
	if (unlikely(shelf_leave_fast(s)))
		bp_shelf_leave_slow(s);
	return true;
}

/*
 * The caller has turned the state to CACHED, so the buffer is the caller's
 * alone, and is wiped before anyone else can see it. Returns ESITE where
 * `from` is SITE_ASK and the buffer has a record, and 0 otherwise. A buffer
 * with a record names no shelf, so only buffers whose shelf is not the
 * caller's are checked for a record.
 */
static inline __attribute__((always_inline)) int
release_fast(struct bufpool_buf *b, uintptr_t from)
{
	struct bufpool_shelf *s = b->shelf;

	hook("release: turned");
	buf_changed(b);
	if (unlikely(!owner_is_self(s->owner))) {
		bool wanted = from == SITE_ASK && sites_has(b);

		release_foreign(b, site_now(from));
		return wanted ? ESITE : 0;
	}
	if ((b->mark | b->flags) != 0)
		release_short(b, s, site_now(from));
	else if (!release_wiped(b, s, from))
		release_full_slow(b, s, site_now(from));
	return 0;
}

/* The same for a buffer that is out. */
static inline __attribute__((always_inline)) int
release_out(struct bufpool_buf *b, uintptr_t from)
{
	if (buf_turn_cached(b))
		return release_fast(b, from);
	bp_buf_released_twice(b);
	return 0;	/* Not run: aborted. */
}

void
bufpool_release(struct bufpool_buf *b)
{
	if (b == NULL)
		return;
	release_out(b, SITE_CALLER);
}

int
bp_release_asking(struct bufpool_buf *b)
{
	return release_out(b, SITE_ASK);
}

void
bp_release_gc(struct bufpool_buf *b)
{
	release_out(b, SITE_GC);
}

void
bp_release_scoped(struct bufpool_buf *b)
{
	release_out(b, SITE_SCOPE);
}

/* Up to WIPE_SHORT bytes are wiped without a call, so without a stack frame. A
 * buffer that was consumed from goes the long way, because rewinding it raises
 * its mark. */
static __attribute__((noinline)) void
release_short(struct bufpool_buf *b, struct bufpool_shelf *s, uintptr_t from)
{
	if (b->mark > WIPE_SHORT || unlikely(b->consumed)) {
		release_long(b, s, from);
		return;
	}
	counter_add(&s->cache->wiped_bytes, buf_clean(b));
	if (!release_wiped(b, s, from))
		release_full_slow(b, s, from);
}

/* When the shelf has no room, the buffer is not wiped here, because it may go
 * to the system, which clears it anyway. Asked outside, this is a guess;
 * release_wiped asks again inside. */
static __attribute__((noinline)) void
release_long(struct bufpool_buf *b, struct bufpool_shelf *s, uintptr_t from)
{
	if (unlikely(!shelf_has_room(s, shelf_count(s)))) {
		release_slow(b, from);
		return;
	}
	counter_add(&s->cache->wiped_bytes, buf_clean(b));
	if (!release_wiped(b, s, from))
		release_full_slow(b, s, from);
}

/* A buffer whose shelf is not the caller's, because another thread checked it
 * out, or which names no shelf: a large one, one without memory, one that is
 * watched, one that a thread without a cache checked out, and any where nodes
 * are kept apart. For a watched one thread_own_cache finds no cache. */
static __attribute__((noinline)) void
release_foreign(struct bufpool_buf *b, uintptr_t from)
{
	struct cache *k = thread_own_cache(b->place);
	struct bufpool_shelf *s;

	if (unlikely(b->class >= BUFPOOL_CLASSES_MAX || k == NULL ||
		     k->node != b->node)) {
		release_slow(b, from);
		return;
	}
	s = &k->shelf[b->class];
	b->shelf = s->named;
	release_long(b, s, from);
}

static __attribute__((noinline)) void
release_full_slow(struct bufpool_buf *b, struct bufpool_shelf *s,
		  uintptr_t from)
{
	shelf_leave(s);
	release_slow(b, from);
}

/* Puts the buffer on the shelf, of which half spills first if it is full. When
 * the shelf is claimed or closed, or the buffer is of another node, puts it
 * into the depot; when the depot is full, it goes to the arena. */
static void
shelve_slow(struct bufpool *p, struct cache *k, struct bufpool_buf *b)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	if (b->node == k->node && bp_shelf_enter_slow(s)) {
		bool full = !shelf_put(s, b);

		if (full) {
			bp_shelf_spill(s);
			shelf_put(s, b);
		}
		shelf_leave(s);
		if (full)
			bp_trim_look_soon(p);
	} else {
		bp_depot_put(&k->depot, &b, 1);
		bp_cache_mark_depot(k, s->class);
		/* We were not inside. To leave does what the gate calls for: a
		 * close that came meanwhile has left the depot to its owner. */
		shelf_leave(s);
	}
}

/* Whether this buffer goes to the system now. True when the pool is closed.
 * Also when the buffer has DIRTY written bytes, the depot is full, and the
 * shelf is full or of another node: one has to go, and the system clears its
 * pages, so that they need not be wiped. */
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
	       uintptr_t from)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	sites_forget(b, from);
	counter_add(&s->releases, 1);
	counter_add(&k->gc_returns, from == SITE_GC);
	if (leaves_now(p, k, b)) {
		bp_arena_give(b);
		/* as after a spill, because there is too much of this class */
		bp_trim_look_soon(p);
		return;
	}
	counter_add(&k->wiped_bytes, buf_clean(b));
	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	shelve_slow(p, k, b);
}

/* The first call in a fork child settles its pools. The buffer that is being
 * released has not come home yet, so it is made OUT again, and counts as out.
 * Where another thread is just settling, that one may have seen it CACHED, and
 * counts it as lost. */
static void
settle_before(struct bufpool_buf *b)
{
	buf_set_state(b, BUF_OUT);
	bp_forked_settle_slow();
	buf_set_state(b, BUF_CACHED);
}

/* A release for which the shelf has no room, or which cannot use it. Holds the
 * pool, because b's reference may be the pool's last. */
static __attribute__((noinline)) void
release_slow(struct bufpool_buf *b, uintptr_t from)
{
	struct bufpool *p = pool_of(b);
	int saved = errno;
	struct cache *k;

	if (forked_pending())
		settle_before(b);
	arena_ref(&p->arena);
	if (b->class < BUFPOOL_CLASSES_MAX &&
	    (k = bp_thread_cache(&p->caches)) != NULL)
		release_cached(p, k, b, from);
	else {
		bp_home_uncached(b, from);
		bp_trim_look_soon(p);
	}
	bp_arena_drop(&p->arena);
	errno = saved;
}

void
bufpool_frozen_unref(struct bufpool_frozen *f)
{
	if (f != NULL && buf_unref(buf_thaw(f)))
		release_fast(buf_thaw(f), SITE_CALLER);
}

int
bp_frozen_unref_asking(struct bufpool_frozen *f)
{
	return buf_unref(buf_thaw(f)) ? release_fast(buf_thaw(f), SITE_ASK) : 0;
}

void
bp_frozen_unref_gc(struct bufpool_frozen *f)
{
	if (buf_unref(buf_thaw(f)))
		release_fast(buf_thaw(f), SITE_GC);
}
